"""The forest of a whole network, against Kruskal's algorithm on the graph written out."""

import itertools
from fractions import Fraction

import ml_dtypes
import networkx as nx
import numpy as np
import pytest

from tests import naive_convolution
from topobounds.layers import Dense, Network
from topobounds.topology.network import chain, network_forest
from topobounds.topology.spanning import maximum_spanning_forest


def _explicit(connections, zeros):
    """Return the forest's (layer, row, column) in order of entry, their ranks, and the components."""
    vertices, weights = {}, []
    for layer, (matrix, source, target) in enumerate(connections):
        for i, j in np.ndindex(matrix.shape):
            ends = [vertices.setdefault(end, len(vertices)) for end in ((source, i), (target, j))]
            weights.append((-abs(float(matrix[i, j])), layer, i * matrix.shape[1] + j, (layer, i, j), tuple(ends)))
    weights = [w for w in sorted(weights) if w[0] or zeros == "edge"]
    merges = naive_convolution.merges(len(vertices), [[w[-1]] for w in weights])
    taken = np.flatnonzero(merges)
    return [weights[w][3] for w in taken], taken + 1, len(vertices) - taken.size


def _random_network(rng):
    """Return connections among up to five groups: chains, branches, skips, parallel and recurrent layers."""
    names = ["in", "a", "b", ("c", 1), 4]
    sizes = {name: int(rng.integers(1, 9)) for name in names}
    connections = []
    for _ in range(rng.integers(1, 7)):
        source, target = (names[i] for i in rng.integers(0, 5, 2))
        matrix = rng.standard_normal((sizes[source], sizes[target]))
        kind = rng.integers(4)
        if kind == 1:
            matrix = np.round(matrix * 2).astype(np.float16)
        elif kind == 2:
            matrix = np.where(rng.random(matrix.shape) < 0.7, 0, matrix)
        elif kind == 3:
            matrix = np.round(matrix).astype(ml_dtypes.bfloat16)
        connections.append((matrix, source, target))
    return connections


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_against_the_explicit_graph(seed):
    rng = np.random.default_rng(seed)
    for _ in range(15):
        connections, zeros = _random_network(rng), str(rng.choice(["absent", "edge"]))
        found = network_forest(connections, zeros=zeros)
        edges, ranks, n_components = _explicit(connections, zeros)
        assert list(zip(found.layers.tolist(), found.rows.tolist(), found.cols.tolist(), strict=True)) == edges
        np.testing.assert_array_equal(found.ranks, ranks)
        assert found.n_components == n_components
        values = [abs(float(connections[layer][0][i, j])) for layer, i, j in edges]
        np.testing.assert_array_equal(found.weights, values)
        assert found.alpha == np.count_nonzero(values)
        assert found.critical_rank == (ranks[found.alpha - 1] if found.alpha else 0)


def test_the_overlap_is_by_the_components_of_the_top_k():
    rng = np.random.default_rng(3)
    matrices = [rng.standard_normal(shape) for shape in ((20, 12), (12, 9), (9, 4))]
    found = network_forest(chain(matrices))
    order = np.argsort(-np.abs(np.concatenate([m.ravel() for m in matrices])))
    places = [(layer, i, j) for layer, m in enumerate(matrices) for i, j in np.ndindex(m.shape)]
    for k in (0, 1, 17, 44, 200, order.size):
        graph = nx.Graph()
        graph.add_nodes_from((group, i) for group, size in enumerate((20, 12, 9, 4)) for i in range(size))
        graph.add_edges_from(((layer, i), (layer + 1, j)) for layer, i, j in (places[w] for w in order[:k]))
        kept = 45 - nx.number_connected_components(graph)
        assert found.overlap(k) == kept / 44
    np.testing.assert_array_equal(found.retention([0, 44, order.size]), [0, found.overlap(), 1])


def test_one_layer_is_its_own_network():
    weights = np.random.default_rng(4).standard_normal((30, 20)).astype(np.float32)
    found, forest = network_forest(chain([weights])), maximum_spanning_forest(weights)
    np.testing.assert_array_equal(found.rows, forest.rows)
    np.testing.assert_array_equal(found.ranks, forest.ranks)
    np.testing.assert_array_equal(found.deaths, forest.weights.astype(float) / float(forest.weights[0]))
    assert found.overlap() == forest.overlap()


def test_layers_that_share_no_neurons_fall_apart():
    rng = np.random.default_rng(5)
    first, second = rng.standard_normal((6, 5)), rng.standard_normal((7, 3))
    found = network_forest([(first, "a", "b"), (second, "c", "d")])
    assert (found.n_components, found.alpha, found.ratio) == (2, 19, Fraction(51, 19))
    for layer, weights in enumerate((first, second)):
        np.testing.assert_array_equal(found.rows[found.layers == layer], maximum_spanning_forest(weights).rows)


def test_closed_form_of_connected_networks():
    rng = np.random.default_rng(6)
    widths = [784, 300, 100, 10]
    found = network_forest(chain([rng.standard_normal(shape) for shape in itertools.pairwise(widths)]))
    assert found.alpha == found.network.n_vertices - found.network.n_components == sum(widths) - 1
    assert found.ratio == Fraction(266200, 1193)


def test_residual_connections():
    rng = np.random.default_rng(7)
    up, down, skip = rng.standard_normal((8, 16)), rng.standard_normal((16, 8)), rng.standard_normal((8, 4))
    identity = network_forest([(up, "stream", "hidden"), (down, "hidden", "stream")])
    assert (identity.network.n_vertices, identity.alpha) == (24, 23)
    projected = network_forest([(up, "x", "h"), (rng.standard_normal((16, 4)), "h", "y"), (skip, "x", "y")])
    assert (projected.network.n_vertices, projected.n_components) == (28, 1)
    recurrent = network_forest([(np.diag([9.0, 9.0]) + 1, "h", "h")])
    assert (recurrent.alpha, recurrent.weights.tolist(), recurrent.w_max) == (1, [1.0], 1.0)


def test_ties_go_to_the_earlier_layer():
    found = network_forest([(np.ones((1, 2)), "a", "b"), (np.ones((2, 1)), "b", "a")])
    assert found.layers.tolist() == [0, 0]
    assert found.ranks.tolist() == [1, 2]


def test_zeros():
    nothing = network_forest(chain([np.zeros((2, 3)), np.zeros((3, 1))]))
    assert (nothing.alpha, nothing.ratio, nothing.w_max, nothing.critical_rank) == (0, None, 0.0, 0)
    assert (nothing.n_components, nothing.overlap(3)) == (6, 1.0)
    edges = network_forest(chain([np.zeros((2, 3)), np.eye(3)]), zeros="edge")
    assert (edges.alpha, edges.n_components, edges.weights.tolist()) == (3, 1, [1.0] * 3 + [0.0] * 4)


def test_records_are_plain_on_request():
    record = network_forest([(np.ones((1, 2)), "a", "b")]).to_dict()
    assert record["network"] == {"connections": [[{"m": 1, "n": 2}, "a", "b"]]}
    assert not [key for key in record if key.startswith("_")]


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        ([], "Argument 'connections' must be a non-empty sequence of (weights, source, target), not []."),
        ([np.ones((2, 2))], "Argument 'connections' must be a non-empty sequence of (weights, source, target)"),
        (
            [(np.ones((2, 3)), 0, 1), (np.ones((2, 2)), 1, 2)],
            "Argument 'connections' must be of one size per group: la",
        ),
        ([(np.ones((2, 3)), 0, 0)], "Argument 'connections' must be of one size per group: layer 0 has 3 neurons in 0"),
        ([(np.ones(3), 0, 1)], "Argument 'weights' must be a matrix"),
        ([(np.full((2, 2), np.nan), 0, 1)], "Argument 'weights' must be finite, but 4 of its 4 entries"),
    ],
)
def test_bad_connections_are_named(connections, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        network_forest(connections)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("given", [5, None, "ab", True])
def test_what_is_no_sequence_is_refused(given):
    for call, name in ((network_forest, "connections"), (Network, "connections"), (chain, "layers")):
        with pytest.raises(ValueError, match=rf"^Argument '{name}' must be a sequence of .*, not "):
            call(given)
    with pytest.raises(ValueError, match=r"^Argument 'ks' must be a sequence of integers from 0 to 6, not "):
        network_forest(chain([np.ones((2, 3))])).retention(given)


@pytest.mark.parametrize("given", [[5], ["abc"], [(Dense(2, 3), {}, 1)], [(Dense(2, 3), 0)], [[Dense(2, 3), 0, [1]]]])
def test_what_is_no_connection_is_refused(given):
    with pytest.raises(
        ValueError, match=r"'connections' must be a non-empty sequence of \(Dense, source, target\), not "
    ):
        Network(given)


def test_bad_shapes_and_ks_are_named():
    with pytest.raises(ValueError, match="'connections' must be a non-empty sequence of"):
        Network([(3, 0, 1)])
    with pytest.raises(ValueError, match="layer 1 has 5 neurons in 'b', which has 3, not"):
        Network([(Dense(2, 3), "a", "b"), (Dense(5, 2), "b", "c")])
    with pytest.raises(ValueError, match="'k' must be an integer from 0 to 6, not 7"):
        network_forest(chain([np.ones((2, 3))])).overlap(7)


def test_components_of_shapes():
    assert Network([(Dense(2, 3), 0, 1), (Dense(4, 5), 2, 3), (Dense(3, 5), 1, 3)]).n_components == 1
    assert Network([(Dense(2, 3), 0, 1), (Dense(4, 5), 2, 3)]).n_components == 2
