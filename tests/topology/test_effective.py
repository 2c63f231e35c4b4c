"""Effective weights against the plain definition: a weight counts at a threshold if a path through it survives."""

import itertools
import math
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import topobounds as tb
from topobounds.layers import Conv
from topobounds.topology.effective import effective_density, effective_masks, effective_weights

RESIDUAL = [("x", "h"), ("h", "y"), ("x", "y"), ("y", "z")]


def edges_of(matrices, connections):
    """Return (size, source, target, place, flat index) of every edge; an identity has size infinity."""
    found = []
    for place, (matrix, (source, target)) in enumerate(zip(matrices, connections, strict=True)):
        if matrix is None:
            pairs = zip(matrices, connections, strict=True)
            width = next(len(m) for m, ends in pairs if ends[0] == source and m is not None)
            found += [(math.inf, (source, i), (target, i), place, i) for i in range(width)]
        else:
            for i, j in itertools.product(range(len(matrix)), range(len(matrix[0]))):
                found.append((abs(matrix[i][j]), (source, i), (target, j), place, i * len(matrix[0]) + j))
    return found


def reached(edges, starts):
    """Return what can be reached along edges, by repeating the search until nothing changes."""
    found = set(starts)
    while True:
        more = {target for _, source, target, *_ in edges if source in found} - found
        if not more:
            return found
        found |= more


def alive(matrices, connections, threshold):
    """Return (place, flat index) of the weights on paths of edges of at least that size, by the definition."""
    edges = [edge for edge in edges_of(matrices, connections) if edge[0] >= threshold]
    sources, targets = {source for source, _ in connections}, {target for _, target in connections}
    vertices = {vertex for edge in edges_of(matrices, connections) for vertex in edge[1:3]}
    forward = reached(edges, [v for v in vertices if v[0] not in targets])
    backwards = [(size, target, source, place, index) for size, source, target, place, index in edges]
    backward = reached(backwards, [v for v in vertices if v[0] not in sources])
    return {(e[3], e[4]) for e in edges if e[1] in forward and e[2] in backward and e[0] < math.inf}


def diagram_deaths(matrices, connections):
    """Return the weights at which components that hold an input or output merge, threshold by threshold."""
    found = effective_weights(matrices, connections)
    edges = [e for e in edges_of(matrices, connections) if e[0] < math.inf]
    ends, before = [], components_with_ends(matrices, connections, [])
    for threshold in [math.inf, *found.values.tolist()]:
        kept = alive(matrices, connections, threshold) if threshold < math.inf else set()
        links = [(e[1], e[2]) for e in edges if (e[3], e[4]) in kept]
        links += alive_identities(matrices, connections, threshold)
        count = components_with_ends(matrices, connections, links)
        ends += [threshold] * (before - count)
        before = count
    return ends


def alive_identities(matrices, connections, threshold):
    edges = [edge for edge in edges_of(matrices, connections) if edge[0] >= threshold]
    sources, targets = {source for source, _ in connections}, {target for _, target in connections}
    vertices = {vertex for edge in edges_of(matrices, connections) for vertex in edge[1:3]}
    forward = reached(edges, [v for v in vertices if v[0] not in targets])
    backward = reached([(s, b, a) for s, a, b, *_ in edges], [v for v in vertices if v[0] not in sources])
    return [(e[1], e[2]) for e in edges if e[0] == math.inf and e[1] in forward and e[2] in backward]


def components_with_ends(matrices, connections, links):
    sources, targets = {source for source, _ in connections}, {target for _, target in connections}
    label = {v: v for edge in edges_of(matrices, connections) for v in edge[1:3]}
    for a, b in links:
        old, new = label[a], label[b]
        label = {v: new if c == old else c for v, c in label.items()}
    return len({label[v] for v in label if v[0] not in targets or v[0] not in sources})


def check(matrices, connections):
    """Compare w_eff, the densities and the diagram with the definition at every threshold that occurs."""
    found = effective_weights(matrices, connections)
    with_weights = [place for place, matrix in enumerate(matrices) if matrix is not None]
    sizes = {abs(x) for place in with_weights for x in np.ravel(matrices[place]).tolist()} - {0}
    for threshold in sizes:
        above = {
            (place, index)
            for place, part in zip(with_weights, found.weights, strict=True)
            for index in np.flatnonzero(part >= threshold).tolist()
        }
        assert above == alive(matrices, connections, threshold)
        assert found.density(threshold) == len(above) / found.n_weights
    everything = np.concatenate([part.ravel() for part in found.weights])
    assert found.collapse_threshold == everything.max()
    assert found.sizes.sum() == np.count_nonzero(everything)
    scale = found.collapse_threshold or 1
    deaths = [min(w / scale, 1) for w in diagram_deaths(matrices, connections)]
    assert found.diagram.deaths.tolist() == pytest.approx(deaths)
    vertices = {vertex for edge in edges_of(matrices, connections) for vertex in edge[1:3]}
    sources, targets = map(set, zip(*connections, strict=True))
    assert found.diagram.shape == tuple(sum(v[0] not in joined for v in vertices) for joined in (targets, sources))


def matrices_of(shapes):
    return st.tuples(
        *(st.lists(st.lists(st.integers(-3, 3), min_size=n, max_size=n), min_size=m, max_size=m) for m, n in shapes)
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4).flatmap(lambda w: matrices_of(itertools.pairwise(w))))
def test_a_chain_with_ties_and_zeros_agrees_with_the_definition(matrices):
    check(list(matrices), [(place, place + 1) for place in range(len(matrices))])


@settings(deadline=None)
@given(matrices_of([(3, 2), (2, 3), (3, 2)]))
def test_a_residual_block_agrees_with_the_definition(matrices):
    first, second, last = matrices
    check([first, second, None, last], RESIDUAL)


@settings(deadline=None)
@given(matrices_of([(2, 3), (3, 2)]))
def test_an_identity_from_an_input_to_an_output_joins_them_first(matrices):
    check([*matrices, None], [("x", "h"), ("h", "y"), ("x", "y")])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_identities_in_any_order_pass_on_the_size_of_a_matrix(order):
    """The matrix from c to d gives the sizes of a, b and e too."""
    matrix = [[1.0, 5.0], [3.0, 2.0]]
    network = [(None, ("a", "b")), (None, ("b", "c")), (matrix, ("c", "d")), (None, ("d", "e"))]
    matrices, connections = zip(*[network[place] for place in order], strict=True)
    found = effective_weights(matrices, connections)
    assert found.weights[0].tolist() == matrix
    assert found.diagram.shape == (2, 2)


@settings(deadline=None)
@given(matrices_of([(3, 2), (2, 2), (3, 2), (2, 1)]))
def test_a_skip_with_weights_and_any_order_of_connections_agree_with_the_definition(matrices):
    check([matrices[i] for i in (3, 1, 0, 2)], [("c", "d"), ("b", "c"), ("a", "b"), ("a", "c")])


@settings(deadline=None)
@given(matrices_of([(3, 3), (3, 2)]), st.integers(0, 15))
def test_masks_keep_exactly_what_is_asked_and_count_what_is_dead(matrices, keep):
    kept = effective_masks(matrices, keep)
    assert sum(int(mask.sum()) for mask in kept.masks) == keep
    pruned = [np.where(mask, 1, 0).tolist() for mask in kept.masks]
    assert kept.n_dead == keep - len(alive(pruned, [(0, 1), (1, 2)], 1))
    found = effective_weights(matrices)
    order = sorted(
        (-w, -abs(matrices[place][i][j]), place, i, j)
        for place, part in enumerate(found.weights)
        for (i, j), w in np.ndenumerate(part)
    )
    assert all(kept.masks[place][i, j] for *_, place, i, j in order[:keep])


@settings(deadline=None)
@given(matrices_of([(3, 3), (3, 2)]))
def test_whole_tie_classes_leave_no_dead_connection(matrices):
    for count in np.cumsum(effective_weights(matrices).sizes).tolist():
        assert effective_masks(matrices, count).n_dead == 0


# -- convolutions ----------------------------------------------------------------------------------------------------


def unrolled(kernel, conv):
    """Return the dense matrix of each weight's edges: (inputs, outputs) of flat indices into the kernel, tap by tap."""
    edges = []
    n_first, n_second = conv.weight_shape[:2]
    for index in np.ndindex(*conv.weight_shape):
        first, second, *taps = index
        channel = first // (n_first // conv.groups) * n_second + second
        for position in np.ndindex(*conv.kernel_positions):
            cell = [
                q * a.stride - a.padding + t * a.dilation for q, a, t in zip(position, conv.axes, taps, strict=True)
            ]
            if conv.padding_mode == "circular":
                cell = [c % a.size for c, a in zip(cell, conv.axes, strict=True)]
            if all(0 <= c < a.size for c, a in zip(cell, conv.axes, strict=True)):
                on_cells = int(np.ravel_multi_index((channel, *cell), (10**3, *(a.size for a in conv.axes))))
                on_positions = int(np.ravel_multi_index((first, *position), (10**3, *conv.kernel_positions)))
                ends = (on_positions, on_cells) if conv.transposed else (on_cells, on_positions)
                edges.append((abs(kernel[index]), *ends, index))
    return edges


CONVS = [
    Conv(2, 3, 3, 5, padding=1),
    Conv(2, 2, (2, 3), (3, 4), stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
    Conv(2, 4, 3, 6, groups=2, stride=2),
    Conv(1, 2, 3, 4, padding=1, padding_mode="circular"),
    Conv(2, 2, 2, 2, padding=1, padding_mode="circular"),  # two taps read one cell for one output
    Conv(2, 3, 3, 3, stride=2, padding=1, transposed=True),
]


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_a_kernel_between_dense_layers_agrees_with_its_edges(conv):
    rng = np.random.default_rng(0)
    for _ in range(10):
        before = rng.integers(-4, 5, (3, conv.n_inputs))
        kernel = rng.integers(-4, 5, conv.weight_shape)
        after = rng.integers(-4, 5, (conv.n_outputs, 2))
        found = effective_weights([before, kernel, after], convs=[None, conv, None])
        into = np.abs(before).max(axis=0)
        out_of = np.abs(after).max(axis=1)
        best_out = np.zeros(conv.n_outputs)
        expected = np.zeros(conv.weight_shape)
        for size, source, target, index in unrolled(kernel, conv):
            expected[index] = max(expected[index], min(size, into[source], out_of[target]))
            best_out[target] = max(best_out[target], min(size, into[source]))
        assert found.weights[1].tolist() == expected.tolist()
        assert found.weights[2].tolist() == np.minimum(np.abs(after), best_out[:, None]).tolist()


def test_a_kernel_of_one_cell_is_a_dense_layer():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
    dense = effective_weights([first, second])
    conv = effective_weights([first, second.T[:, :, None]], convs=[None, Conv(3, 2, 1, 1)])
    assert np.array_equal(conv.weights[1][:, :, 0].T, dense.weights[1])
    with pytest.raises(ValueError, match="without convolutions"):
        _ = conv.diagram


# -- reference points ------------------------------------------------------------------------------------------------


def test_a_trained_network_collapses_with_a_class_of_ten_weights(data_dir):
    torch = pytest.importorskip("torch")
    state = torch.load(data_dir / "checkpoints" / "mnist_6_100_nat.pth", weights_only=True)["state_dict"][0]
    found = effective_weights([state[f"{place}.weight"].T for place in range(1, 12, 2)])
    assert found.sizes[0] == 10


def test_an_untrained_deep_network_goes_from_fifteen_percent_straight_to_nothing():
    widths = [784, 100, 100, 100, 100, 100, 10]
    rng = np.random.default_rng(0)
    layers = [rng.uniform(-1, 1, (m, n)) / math.sqrt(m) for m, n in itertools.pairwise(widths)]
    found = effective_weights(layers)
    assert 0.10 < found.sizes[0] / found.n_weights < 0.20


# -- what T-IMP leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_every_weight_that_t_imp_keeps_is_on_a_path(seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 7, rng.integers(2, 5)).tolist()
    layers = [rng.standard_normal((m, n)) for m, n in itertools.pairwise(widths)]
    masks = [None] * len(layers)
    for _ in range(3):
        left = [layer.size if mask is None else mask.sum() for layer, mask in zip(layers, masks, strict=True)]
        counts = [rng.integers(sum(layer.shape) - 1, n + 1) for layer, n in zip(layers, left, strict=True)]
        masks = [tb.topological_mask(*each) for each in zip(layers, counts, masks, strict=True)]
        nominal = sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)
        assert effective_density(masks) == nominal
        layers = [layer + rng.standard_normal(layer.shape) for layer in layers]


@settings(deadline=None)
@given(matrices_of([(2, 3), (3, 3), (3, 2)]), st.data())
def test_so_it_is_with_ties_zeros_and_disconnected_layers_unless_a_hidden_neuron_is_isolated(matrices, data):
    layers = [np.array(matrix) for matrix in matrices]
    for before, after in itertools.pairwise(layers):
        assume((before != 0).any(axis=0).all())
        assume((after != 0).any(axis=1).all())
    least = [tb.maximum_spanning_forest(layer).alpha for layer in layers]
    counts = [data.draw(st.integers(low, np.count_nonzero(w))) for low, w in zip(least, layers, strict=True)]
    masks = [tb.topological_mask(layer, count) for layer, count in zip(layers, counts, strict=True)]
    assert round(effective_density(masks) * sum(mask.size for mask in masks)) == sum(counts)


def test_effective_density_is_lower_where_a_hidden_neuron_is_isolated_on_one_side():
    first, second = [[0, 1], [0, 2]], [[3, 4], [1, 2]]
    masks = [tb.topological_mask(first, 2), tb.topological_mask(second, 3)]
    assert sum(int(mask.sum()) for mask in masks) == 5
    assert effective_density(masks) * 8 == 3


def test_effective_density_is_lower_for_one_forest_of_the_whole_network():
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal(shape) for shape in ((784, 300), (300, 100), (100, 10))]
    forest = tb.network_forest(tb.chain(layers))
    masks = [np.zeros(layer.shape, bool) for layer in layers]
    for layer, row, col in zip(forest.layers, forest.rows, forest.cols, strict=True):
        masks[layer][row, col] = True
    assert forest.alpha == 1193
    effective = round(effective_density(masks) * sum(mask.size for mask in masks))
    assert effective < 1193


def test_effective_density_is_lower_for_a_kernel_whose_kept_tap_carries_no_edge():
    conv = Conv(2, 2, (3, 3), (1, 1), padding=1)
    kernel = np.arange(1.0, 37.0).reshape(conv.weight_shape)
    mask = tb.topological_mask(kernel, 5, conv=conv)
    edges = np.zeros(conv.weight_shape, bool)
    edges[:, :, 1, 1] = True  # the only tap that reads a real cell
    assert effective_density([mask], convs=[conv]) == np.count_nonzero(mask & edges) / 36 < 5 / 36


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrices", "connections", "said"),
    [
        ([[[1.0]], [[1.0]]], [("a", "b"), ("b", "a")], "'connections' must be free of cycles"),
        ([[[1.0]]], [("a", "a")], "'connections' must be free of cycles"),
        ([[[1.0, 2.0]], [[1.0]]], None, "group 1 has one number of neurons, not '2 and 1'"),
        ([[[math.nan]]], None, "must be finite"),
        ([None], None, "at least one matrix"),
        (
            [[[1.0]], None],
            [("a", "b"), ("c", "d")],
            "every identity joins, perhaps by way of others, a group whose size a matrix gives, not ('c', 'd')",
        ),
        ([[[1.0]]], [("a", "b", "c")], "a sequence of"),
        ([[[1.0]]], [("a", "b"), ("b", "c")], "one entry for each of the 1 matrices"),
    ],
)
def test_what_is_no_network_is_refused(matrices, connections, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        effective_weights(matrices, connections)


def test_a_threshold_must_be_above_zero_and_a_count_within_the_network():
    with pytest.raises(ValueError, match="'threshold' must be a number above 0"):
        effective_weights([[[1.0]]]).density(0)
    with pytest.raises(ValueError, match="'keep' must be an integer from 0 to 1"):
        effective_masks([[[1.0]]], 2)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "int8", "float64"])
def test_every_type_of_weights_gives_the_same_effective_weights(kind):
    rng = np.random.default_rng(0)
    layers = [rng.integers(-9, 10, shape) for shape in ((5, 4), (4, 3))]
    expected = effective_weights([layer.astype(np.float64) for layer in layers])
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else kind
    found = effective_weights([layer.astype(dtype) for layer in layers])
    for part, other in zip(found.weights, expected.weights, strict=True):
        assert part.tolist() == other.tolist()


def test_layers_without_kernels_load_no_compiled_code():
    code = (
        "import sys, topobounds as tb; tb.effective_weights([[[1.0]], [[2.0]]]).diagram; print('numba' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_network_of_zeros_has_no_path():
    found = effective_weights([np.zeros((2, 3)), np.ones((3, 1))])
    assert found.collapse_threshold == 0
    assert found.values.size == 0
    assert found.density(1e-300) == 0
    assert len(found.diagram) == 0
    assert found.diagram.n_essential == 3
