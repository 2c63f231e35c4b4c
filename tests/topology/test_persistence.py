"""Persistence diagrams and neural persistence."""

import math

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from topobounds import neural_persistence, persistence_diagram, total_neural_persistence

# W = default_rng(seed).standard_normal((m, n)); the values are those of the code of either paper's authors
REFERENCE = {
    (0, 5, 4): (1.8118288579463568, 0.6405782359016734, 1.5108685616185145, 0.5710546396783509),
    (1, 30, 20): (2.763135715224764, 0.3947336736035377, 2.5758336477246875, 0.371789562475386),
}
SMALL = st.tuples(st.integers(1, 6), st.integers(1, 6))
MATRICES = arrays.arrays(np.int8, SMALL, elements=st.integers(-4, 4))


@pytest.mark.parametrize(("case", "values"), REFERENCE.items())
def test_neural_persistence_reference_values(case, values):
    matrix = np.random.default_rng(case[0]).standard_normal(case[1:])
    ways = [("rieck", False), ("rieck", True), ("balwani", False), ("balwani", True)]
    ours = [neural_persistence(matrix, convention=c, normalized=z) for c, z in ways]
    np.testing.assert_allclose(ours, values, rtol=1e-12, atol=0)


@settings(max_examples=100, deadline=None)
@given(MATRICES)
def test_rieck_squared_is_balwani_squared_plus_components(weights):
    diagram = persistence_diagram(weights)
    rieck, balwani = (neural_persistence(weights, convention=c) for c in ("rieck", "balwani"))
    assert rieck**2 == pytest.approx(balwani**2 + diagram.n_essential, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(MATRICES, st.sampled_from([1, 1.5, 2, 7, math.inf]), st.sampled_from(["balwani", "rieck"]), st.booleans())
def test_a_diagram_serves_as_its_layer_does(weights, p, convention, normalized):
    options = {"p": p, "convention": convention, "normalized": normalized}
    value = neural_persistence(weights, **options)
    for zeros in ("absent", "edge"):
        for backend in ("kruskal", "gudhi"):
            diagram = persistence_diagram(weights, zeros=zeros, backend=backend)
            assert neural_persistence(diagram, **options) == value


@settings(max_examples=100, deadline=None)
@given(MATRICES, st.floats(1, 50) | st.just(math.inf))
def test_normalised_is_at_most_one_and_scale_and_sign_change_nothing(weights, p):
    value = neural_persistence(weights, p=p, normalized=True)
    assert 0 <= value <= 1 + 1e-12
    assert neural_persistence(weights * -4.0, p=p, normalized=True) == value
    assert neural_persistence(weights.T, p=p, normalized=True) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("m", "n"), [(7, 3), (3, 7), (12, 5)])
def test_gudhis_edges_stand_by_weight_and_among_ties_by_flat_index(m, n):
    rng = np.random.default_rng(m)
    for _ in range(20):
        diagram = persistence_diagram(rng.integers(0, 3, (m, n)).astype(float), backend="gudhi")
        flat = [
            (-death, row * n + col) for death, (row, col) in zip(diagram.deaths, diagram.edges.tolist(), strict=True)
        ]
        assert flat == sorted(flat)


def test_known_diagram():
    diagram = persistence_diagram([[4.0, 2.0], [-3.0, 1.0]])
    assert np.asarray(diagram).tolist() == [[1, 1], [1, 0.75], [1, 0.5]]
    assert diagram.edges.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert (diagram.n_essential, len(diagram), diagram.w_max) == (1, 3, 4.0)
    assert neural_persistence(diagram) == pytest.approx(math.hypot(0.25, 0.5))
    assert neural_persistence(diagram, p=1) == pytest.approx(0.75)
    assert neural_persistence(diagram, p=math.inf) == 0.5
    assert neural_persistence(diagram, p=1, normalized=True) == pytest.approx(0.375)
    assert neural_persistence(diagram, p=math.inf, normalized=True) == 0.5


def test_degenerate_layers():
    for layer in (np.zeros((2, 3)), np.ones((1, 1)), [[0.0, 5.0]]):
        assert neural_persistence(layer) == neural_persistence(layer, normalized=True) == 0.0
    zeros = np.zeros((2, 3))
    assert neural_persistence(zeros, convention="rieck") == pytest.approx(math.sqrt(5))
    assert neural_persistence(zeros, convention="rieck", normalized=True) == pytest.approx(math.sqrt(5 / 4))
    assert np.asarray(persistence_diagram(zeros)).shape == (0, 2)
    assert np.asarray(persistence_diagram(zeros, zeros="edge")).tolist() == [[1, 0]] * 4


def test_a_large_order_does_not_underflow():
    matrix = 1 - 1e-5 * np.random.default_rng(0).random((5, 5))
    assert neural_persistence(matrix, p=300) == pytest.approx(neural_persistence(matrix, p=math.inf), rel=0.01)


def test_totals_in_both_conventions():
    layers = [np.random.default_rng(s).standard_normal((6, 4)) * (s + 1) for s in range(3)]
    largest = max(np.abs(w).max() for w in layers)
    assert total_neural_persistence(layers) == pytest.approx(sum(map(neural_persistence, layers)))
    by_hand = []
    for w in layers:  # rieck: the maximum over all layers, a point (1, 0) for the class that survives
        deaths = np.append(persistence_diagram(w).deaths * np.abs(w).max() / largest, 0.0)
        by_hand.append(np.linalg.norm(1 - deaths))
    assert total_neural_persistence(layers, convention="rieck") == pytest.approx(sum(by_hand))
    mean = np.mean([v / 3 for v in by_hand])
    assert total_neural_persistence(layers, convention="rieck", normalized=True) == pytest.approx(mean)
    assert total_neural_persistence([np.zeros((2, 2))], convention="rieck") == pytest.approx(2.0)


def test_betti_curve_counts_components():
    matrix = np.random.default_rng(4).standard_normal((8, 6)).round(1)
    diagram = persistence_diagram(matrix)
    scaled = np.abs(matrix) / np.abs(matrix).max()
    for t in (*np.unique(scaled), 0.33, 1.0):
        graph = gudhi.SimplexTree()
        for vertex in range(14):
            graph.insert([vertex])
        for i, j in np.argwhere((scaled >= t) & (matrix != 0)):
            graph.insert([i, 8 + j])
        graph.compute_persistence(persistence_dim_max=True)
        assert diagram.betti_curve(t) == graph.betti_numbers()[0]
    assert diagram.betti_curve(1.01) == 0
    assert diagram.betti_curve([[0.0, 2.0]]).tolist() == [[diagram.n_essential, 0]]
    with pytest.raises(ValueError, match="NaN"):
        diagram.betti_curve([0.5, np.nan])
    with pytest.raises(ValueError, match=r"^Argument 't' must be a number or an array of numbers, not {}\.$"):
        diagram.betti_curve({})
    with pytest.raises(ValueError, match=r"^Argument 't' must be a number or an array of numbers, not \[1000"):
        diagram.betti_curve([10**400])


def test_as_gudhi_is_what_gudhi_gives():
    matrix = np.where(np.random.default_rng(5).random((6, 5)) < 0.7, 0, np.random.default_rng(6).random((6, 5)))
    tree = gudhi.SimplexTree()
    for vertex in range(11):
        tree.insert([vertex], -1.0)
    for i, j in np.argwhere(matrix):
        tree.insert([i, 6 + j], -matrix[i, j] / matrix.max())
    expected = [pair for pair in tree.persistence(min_persistence=-1, persistence_dim_max=True) if pair[0] == 0]
    ours = persistence_diagram(matrix).as_gudhi()
    assert sorted(ours) == sorted(expected)
    assert any(math.isinf(death) for _, (_, death) in ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0.5}, "at least 1, or infinity, not 0.5"),
        ({"p": math.nan}, "not nan"),
        ({"p": "2"}, "not '2'"),
        ({"convention": "lacombe"}, "one of 'balwani', 'rieck', not 'lacombe'"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    for function, layers in ((neural_persistence, np.ones((2, 2))), (total_neural_persistence, [np.ones((2, 2))])):
        with pytest.raises(ValueError, match=message):
            function(layers, **arguments)


def test_other_refusals():
    with pytest.raises(
        ValueError, match=r"^Argument 'layers' must be a sequence of weight matrices or diagrams, not 3\.$"
    ):
        total_neural_persistence(3)
    with pytest.raises(ValueError, match="at least one layer"):
        total_neural_persistence([])
    with pytest.raises(ValueError, match="backend"):
        persistence_diagram(np.ones((2, 2)), backend="ripser")
    with pytest.raises(ValueError, match="NaN or infinite"):
        persistence_diagram([[math.inf]], backend="gudhi")
    with pytest.raises(ValueError, match="copy=False"):
        np.array(persistence_diagram(np.ones((2, 2))), copy=False)
