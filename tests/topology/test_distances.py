"""Distances of diagrams: against a solver of the assignment, gudhi, hand-made cases and the law of stability."""

import math

import gudhi
import gudhi.hera
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from topobounds import bottleneck_distance, persistence_diagram, wasserstein_distance

PERSISTENCES = st.lists(st.integers(0, 16).map(lambda sixteenths: sixteenths / 16), max_size=6)


def diagram_of(persistences):
    """Return the diagram of a 1 x n layer with an edge of persistence 0 and edges of these persistences."""
    return persistence_diagram([[1.0, *(1 - x for x in persistences)]], zeros="edge")


def costs(x, y):
    """Return the cost of every pair, of every point on its own, and of nothing: a complete assignment."""
    matrix = np.zeros((len(x) + len(y), len(x) + len(y)))
    matrix[: len(x), : len(y)] = np.abs(np.subtract.outer(x, y))
    matrix[: len(x), len(y) :] = np.divide(x, 2)[:, None]
    matrix[len(x) :, : len(y)] = np.divide(y, 2)
    return matrix


def assigned(x, y, p):
    """Return the Wasserstein distance by the assignment of least cost."""
    matrix = costs(x, y) ** p
    return float(matrix[linear_sum_assignment(matrix)].sum() ** (1 / p))


def assigned_bottleneck(x, y):
    """Return the least cost for which some assignment has no larger one."""
    matrix = costs(x, y)
    for cost in np.unique(matrix):
        too_large = matrix > cost
        if not too_large[linear_sum_assignment(too_large)].any():
            return float(cost)
    return 0.0


@given(PERSISTENCES, PERSISTENCES)
def test_the_bottleneck_distance_is_that_of_the_best_assignment(x, y):
    assert bottleneck_distance(diagram_of(x), diagram_of(y)) == assigned_bottleneck(x, y)


@given(PERSISTENCES, PERSISTENCES, st.sampled_from([1, 1.5, 2, 3]))
def test_the_wasserstein_distance_is_that_of_the_best_assignment(x, y, p):
    found = wasserstein_distance(diagram_of(x), diagram_of(y), p)
    assert found == pytest.approx(assigned(x, y, p), rel=1e-12, abs=1e-15)
    assert found == wasserstein_distance(diagram_of(y), diagram_of(x), p)


@pytest.mark.parametrize("apart", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("p", [1, 2, 5])
def test_diagrams_that_are_near_have_the_distance_of_the_best_assignment(apart, p):
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.uniform(0.3, 1, rng.integers(30, 60))
        y = np.append(
            np.clip(x + rng.uniform(-apart, apart, x.size), 0, 1)[: -rng.integers(1, 9)], rng.uniform(0, 0.1, 5)
        )
        assert wasserstein_distance(diagram_of(x), diagram_of(y), p) == pytest.approx(assigned(x, y, p), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "bottleneck", "sum_of_costs"),
    [
        ([], [], 0, 0),
        ([0.5], [], 0.25, 0.25),
        ([0.5], [0.25], 0.25, 0.25),
        ([1, 0.125], [0.125], 0.5, 0.5),  # not in order: 0.125 is paired with 0.125
        ([1, 0.75], [0.875, 0.875], 0.125, 0.25),
        ([0.67728763, 0.28847506, 0.14369993], [0.90586119, 0.82469942, 0.78359655, 0.77999928], 0.82469942 / 2, None),
    ],
)
def test_distances_known_by_hand(x, y, bottleneck, sum_of_costs):
    a, b = diagram_of(x), diagram_of(y)
    assert bottleneck_distance(a, b) == bottleneck_distance(b, a) == pytest.approx(bottleneck, rel=1e-15)
    assert sum_of_costs is None or wasserstein_distance(a, b, 1) == sum_of_costs
    assert wasserstein_distance(a, b, math.inf) == bottleneck_distance(a, b)


@pytest.mark.parametrize("seed", range(3))
def test_gudhi_gives_the_same_for_a_normal_and_a_uniform_layer(seed):
    rng = np.random.default_rng(seed)
    a, b = persistence_diagram(rng.standard_normal((30, 20))), persistence_diagram(rng.random((30, 20)))
    theirs = gudhi.bottleneck_distance(a.as_sublevel(essential=True), b.as_sublevel(essential=True), 0)
    assert bottleneck_distance(a, b) == pytest.approx(theirs, rel=1e-14)
    for p in (1.0, 2.0):
        of_hera = gudhi.hera.wasserstein_distance(a.as_sublevel(), b.as_sublevel(), order=p, delta=1e-3)
        assert wasserstein_distance(a, b, p) == pytest.approx(of_hera, rel=2e-3)
    assert seed or round(bottleneck_distance(a, b), 3) == 0.333


def test_the_sublevel_form_is_what_gudhi_and_persim_take():
    """An array of floats of shape (k, 2), births not above deaths, infinite deaths only if asked for."""
    diagram = persistence_diagram([[4.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    points = diagram.as_sublevel()
    assert points.dtype == np.float64
    assert points.tolist() == [[0.0, 0.0], [0.0, 0.5], [0.0, 0.75]]
    assert diagram.n_essential == 2
    assert diagram.as_sublevel(essential=True).tolist() == [*points.tolist(), [0.0, math.inf], [0.0, math.inf]]
    assert persistence_diagram(np.zeros((2, 2))).as_sublevel().shape == (0, 2)


def test_layers_with_unlike_numbers_of_components_are_infinitely_far_apart():
    weights = np.diag([1.0, 0.5])
    whole, apart = persistence_diagram(weights, zeros="edge"), persistence_diagram(weights)
    full = persistence_diagram([[1.0, 0.5], [0.25, 0.5]])
    assert bottleneck_distance(full, apart) == wasserstein_distance(full, apart, 1) == math.inf
    assert bottleneck_distance(full, whole) == 0.5
    assert gudhi.bottleneck_distance(*(d.as_sublevel(essential=True) for d in (full, apart))) == math.inf


def test_a_layer_is_at_no_distance_from_itself_on_any_scale():
    weights = np.random.default_rng(1).standard_normal((40, 30)).astype(np.float32)
    diagram = persistence_diagram(weights)
    for other in (diagram, persistence_diagram(4 * weights), persistence_diagram(weights.T)):
        assert bottleneck_distance(diagram, other) == wasserstein_distance(diagram, other) == 0.0


def test_no_power_overflows_or_is_lost():
    a, b = diagram_of([0.5, 0.25, 1e-12]), diagram_of([0.5 - 1e-9, 0.25])
    assert wasserstein_distance(a, b, 5000) == pytest.approx(bottleneck_distance(a, b), rel=1e-3)
    assert 0 < wasserstein_distance(a, b, 5000) < 1.1e-9


@given(st.integers(0, 1000), st.sampled_from([0.001, 0.05, 0.5]))
def test_a_diagram_moves_no_further_than_the_weights(seed, eps):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((6, 5))
    moved = weights + rng.uniform(-eps, eps, weights.shape)
    largest = max(np.abs(weights).max(), np.abs(moved).max())
    a, b = (persistence_diagram(layer, zeros="edge") for layer in (weights, moved))
    distance = bottleneck_distance(a, b)
    assert distance <= 2 * eps / largest * (1 + 1e-12)
    assert wasserstein_distance(a, b) <= 10**0.5 * 2 * eps / largest * (1 + 1e-12)
    moved.flat[np.abs(weights).argmax()] = weights.flat[np.abs(weights).argmax()]
    if np.abs(moved).max() == np.abs(weights).max():
        assert bottleneck_distance(a, persistence_diagram(moved, zeros="edge")) <= eps / np.abs(weights).max() * (
            1 + 1e-12
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 2)), 1), "Argument 'a' must be a PersistenceDiagram, not array"),
        ((persistence_diagram(np.ones((2, 2))), None), "Argument 'b' must be a PersistenceDiagram, not None"),
    ],
)
def test_what_is_no_diagram_is_refused(arguments, message):
    for distance in (bottleneck_distance, wasserstein_distance):
        with pytest.raises(ValueError, match=message):
            distance(*arguments)


@pytest.mark.parametrize("p", [0.5, math.nan, "2", None])
def test_an_order_below_one_is_refused(p):
    diagram = diagram_of([0.5])
    with pytest.raises(ValueError, match=r"^Argument 'p' must be a number of at least 1, or infinity, not"):
        wasserstein_distance(diagram, diagram, p)
