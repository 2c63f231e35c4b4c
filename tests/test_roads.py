"""Several roads to one number: the shapes, chance and weights are asked the same question and must agree."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests import naive
from topobounds import (
    boruvka_bound,
    chain,
    connection_probability,
    corollary_3_4,
    critical_compression_ratio,
    critical_kernel_weights,
    critical_rank_law,
    exact_expected_overlap,
    expected_critical_weights,
    expected_overlap,
    magnitude_overlap,
    maximum_spanning_forest,
    network_forest,
    neural_persistence,
    overlap_limit,
    persistence_diagram,
    persistence_null,
    simulate_overlap,
    star_bound,
    theorem_3_3,
    untrained_persistence,
    untrained_persistence_limit,
)
from topobounds.layers import Conv
from topobounds.supports import cells_at_density
from topobounds.theory.bounds import corollary_3_4_repaired
from topobounds.theory.critical_rank import connection_limit
from topobounds.theory.critical_weights import critical_weights_range
from topobounds.theory.persistence import expected_persistence, forest_edge_probabilities, persistence_range
from topobounds.theory.symbolic import exact_theorem_3_3
from topobounds.topology.gain import circular_critical_kernel_weights
from topobounds.verification.draws import DrawSetting

SIZES = [(1, 1), (1, 9), (2, 2), (2, 3), (3, 4), (5, 5), (7, 40), (10, 10), (10, 1000), (30, 20), (33, 100)]
SIZES += [(64, 64), (100, 10), (128, 1000), (300, 100), (400, 400), (784, 300), (784, 10), (1000, 200), (2000, 2000)]


def places(m, n):
    """Return numbers of weights kept: none, few, around alpha, around connectivity, most and all."""
    alpha, cells = m + n - 1, m * n
    around = [0, 1, alpha // 3, alpha // 2, alpha - 1, alpha, alpha + 1, 3 * alpha // 2, 3 * alpha, 6 * alpha]
    return sorted({k for k in [*around, cells // 2, cells - 1, cells] if 0 <= k <= cells})


GRID = [(m, n, k) for m, n in SIZES for k in places(m, n)]


def test_the_grid_is_wide():
    assert len(GRID) >= 200
    assert {(1, 1, 0), (2000, 2000, 4_000_000)} <= set(GRID)


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_chance_lies_in_the_enclosure(m, n):
    for k in places(m, n):
        enclosure = expected_overlap(m, n, k)
        trials = 2 if k > 20_000 else 300
        estimate = simulate_overlap(m, n, k, trials=trials, seed=k)
        poisson = math.sqrt(enclosure.upper * (1 - enclosure.lower) / (m + n - 1) / trials)  # where no trial shows one
        allowed = 5 * max(estimate.standard_error, poisson) + 1e-12
        assert enclosure.lower - allowed <= estimate.mean <= enclosure.upper + allowed, k


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_the_bounds_stand_in_order(m, n):
    star, boruvka = star_bound(m, n), boruvka_bound(m, n)
    assert theorem_3_3(m, n).value <= star * (1 + 1e-12)
    assert star <= boruvka * (1 + 1e-12)
    assert boruvka <= expected_overlap(m, n).upper
    assert theorem_3_3(m, n).value == pytest.approx(float(exact_theorem_3_3(m, n)), rel=1e-12)
    for k in places(m, n):
        upper = expected_overlap(m, n, k).upper * (1 + 1e-12)
        assert star_bound(m, n, k) <= upper
        assert boruvka_bound(m, n, k) <= upper


@pytest.mark.parametrize(("m", "n"), list(itertools.product(range(1, 4), range(1, 5))))
def test_enumeration_exact_and_enclosure_agree_at_every_k(m, n):
    for k in range(m * n + 1):
        truth = naive.expected_overlap(m, n, k)
        assert exact_expected_overlap(m, n, k) == truth
        assert truth in expected_overlap(m, n, k)


def test_the_limit_is_approached_as_layers_grow():
    gaps = [abs(expected_overlap(8 * s, 3 * s).lower - overlap_limit(8 * s, 3 * s)) for s in (4, 16, 64, 256)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-4


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_weights_of_any_distribution_are_on_the_same_road(draw):
    m, n, trials = 60, 25, 300
    rng = np.random.default_rng(11)
    found = [magnitude_overlap(getattr(rng, draw)((m, n))) for _ in range(trials)]
    error = np.std(found, ddof=1) / np.sqrt(trials)
    enclosure = expected_overlap(m, n)
    assert enclosure.lower - 5 * error <= np.mean(found) <= enclosure.upper + 5 * error


def test_the_forest_is_as_large_as_the_shapes_say():
    rng = np.random.default_rng(2)
    for m, n in [(1, 1), (4, 7), (30, 20)]:
        assert maximum_spanning_forest(rng.standard_normal((m, n))).alpha == m * n / critical_compression_ratio((m, n))


def test_a_kernel_of_one_tap_on_one_pixel_is_a_dense_layer():
    """A 1x1 convolution on a 1x1 map, its dense matrix and the closed form: three rooms, one forest."""
    weights = np.random.default_rng(3).standard_normal((12, 9))
    conv = Conv(9, 12, (1, 1), (1, 1))
    critical = critical_kernel_weights(weights.reshape(12, 9, 1, 1), conv)
    forest = maximum_spanning_forest(weights)
    mask = np.zeros((12, 9), bool)
    mask[forest.rows, forest.cols] = True
    assert np.array_equal(critical.mask[:, :, 0, 0], mask)
    assert critical.ratio == critical_compression_ratio((9, 12)) == critical_compression_ratio(conv, "toeplitz")
    assert len(persistence_diagram(weights)) == critical.mask.sum()


@pytest.mark.long
def test_every_road_counts_the_same_cells_at_a_density():
    differ = 0
    grid = itertools.product(range(2, 9), range(2, 25), range(5, 1000, 10))
    for place, (m, n, thousandths) in enumerate(grid):
        density = thousandths / 1000
        cells = cells_at_density(m, n, density)
        rounds_otherwise = cells != round(density * m * n) or cells != round(density * (m * n))
        differ += rounds_otherwise
        assert DrawSetting(m, n, None, density, "uniform", "none", 0).cells == cells
        assert (corollary_3_4(m, n, density).value is None) == (cells < m + n - 1)
        if place % 9 and not rounds_otherwise:
            continue  # the roads that follow are the slow ones
        if cells:
            assert simulate_overlap(m, n, 0, density=density, trials=1, seed=0).cells == cells
            kept = min(cells, m + n - 1)
            expected = min(1.0, boruvka_bound(m, n, kept) * (m + n - 1) / kept)
            assert corollary_3_4_repaired(m, n, density) == pytest.approx(expected, rel=1e-13)
        else:
            for road in (corollary_3_4_repaired, lambda m, n, p: simulate_overlap(m, n, density=p)):
                with pytest.raises(ValueError, match="one of the"):
                    road(m, n, density)
    assert differ > 5, "densities at which floating point would round another way are among them"


# -- neural persistence ------------------------------------------------------------------------------------------------

VALUES = [19, 17, 12, 9, 8, 5]  # of a 2 x 3 layer


def placed(values, m, n):
    """Return NP^2 of some values in the order of the cells, by brute force and exactly."""
    rows = [list(values[i * n : (i + 1) * n]) for i in range(m)]
    edges, _, _ = naive.kruskal(rows)
    return sum((1 - Fraction(rows[i][j], max(values))) ** 2 for i, j in edges)


def test_neural_persistence_by_chance_six_ways():
    """All orders, exact coefficients, the certified interval, shuffles, the null of a layer, and the range around."""
    m, n = 2, 3
    orders = [placed(order, m, n) for order in itertools.permutations(VALUES)]
    truth = sum(orders) / len(orders)
    terms = zip(forest_edge_probabilities(m, n), VALUES, strict=True)
    assert sum(probability * (1 - Fraction(value, VALUES[0])) ** 2 for probability, value in terms) == truth
    interval = expected_persistence(m, n, VALUES)
    assert truth in interval
    assert interval.width < 1e-12
    rng = np.random.default_rng(0)
    shuffled = [neural_persistence(rng.permutation(VALUES).reshape(m, n).astype(float)) ** 2 for _ in range(2000)]
    assert abs(np.mean(shuffled) - float(truth)) < 5 * np.std(shuffled) / math.sqrt(2000)
    layer = np.array(VALUES, float).reshape(m, n)
    null = persistence_null(layer, seed=0)
    assert truth in null.expected
    assert null.measured == pytest.approx(float(placed(VALUES, m, n)))
    assert null.deviation == pytest.approx(np.std([float(order) for order in orders]), rel=0.15)
    possible = persistence_range(m, n, VALUES)
    for end, extreme in ((possible.lower, min(orders)), (possible.upper, max(orders))):
        assert end == pytest.approx(float(extreme), rel=1e-12)


def test_untrained_layers_four_ways():
    """The exact value, the certified interval, drawn layers, and the zeta limit that it approaches."""
    rng = np.random.default_rng(1)
    drawn = [neural_persistence(rng.uniform(-1, 1, (3, 3))) ** 2 for _ in range(4000)]
    exact = untrained_persistence(3, 3)
    assert Fraction(1, 2) in exact
    assert abs(np.mean(drawn) - 0.5) < 5 * np.std(drawn) / math.sqrt(4000)
    drawn = [neural_persistence(rng.uniform(-1, 1, (60, 60))) ** 2 for _ in range(200)]
    certified = untrained_persistence(60, 60)
    error = 5 * np.std(drawn) / math.sqrt(200)
    assert certified.lower - error <= np.mean(drawn) <= certified.upper + error
    gaps = [untrained_persistence_limit(2) / n / untrained_persistence(n, n).lower - 1 for n in (30, 60, 120)]
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 0.04


# -- the deficit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "tied", "pruned"])
def test_a_deficit_four_ways(kind):
    """The record of the forest, the network of one layer, counting without a forest, and the lost forest edges."""
    weights = np.random.default_rng(4).standard_normal((9, 6))
    weights = {"normal": weights, "tied": np.round(weights), "pruned": np.where(abs(weights) > 0.8, weights, 0)}[kind]
    m, n = weights.shape
    forest = maximum_spanning_forest(weights)
    network = network_forest(chain([weights]))
    order = sorted(np.flatnonzero(weights).tolist(), key=lambda cell: (-abs(weights.flat[cell]), cell))
    of_all = forest.deficit(weights.size).n_components
    for k in range(len(order) + 1):
        top = [divmod(cell, n) for cell in order[:k]]
        inputs, outputs = m - len({i for i, _ in top}), n - len({j for _, j in top})
        counted = (inputs, outputs, naive.components(top, m, n) - inputs - outputs)
        found = forest.deficit(k)
        assert (found.silent_inputs, found.silent_outputs, found.fragments) == counted
        assert network.deficit(k) == found
        lost = forest.alpha - sum(forest.ranks[: forest.alpha] <= k)
        assert sum(counted) - of_all == lost


# -- the critical rank -------------------------------------------------------------------------------------------------


def test_the_law_of_the_critical_rank_five_ways():
    """Every subset, the exact law, its mean, the critical ranks of drawn layers, and simulated supports."""
    m, n = 3, 4
    cells = list(itertools.product(range(m), range(n)))
    for k in range(m * n + 1):
        joined = sum(naive.components(top, m, n) == 1 for top in itertools.combinations(cells, k))
        assert Fraction(joined, math.comb(m * n, k)) in connection_probability(m, n, k)
    law = critical_rank_law(m, n)
    assert law.mean == Fraction(15839, 2310)
    rng = np.random.default_rng(2)
    ranks = [maximum_spanning_forest(rng.standard_normal((m, n))).critical_rank for _ in range(3000)]
    assert abs(np.mean(ranks) - 15839 / 2310) < 5 * np.std(ranks) / math.sqrt(3000)
    share = simulate_overlap(m, n, density=8 / 12, trials=4000, seed=1).connected
    certain = connection_probability(m, n, 8)
    assert abs(share - certain.lower) < 5 * math.sqrt(certain.lower * (1 - certain.lower) / 4000)


def test_the_certified_law_of_the_critical_rank_three_ways():
    """The certified interval, the critical ranks of drawn layers, and the limit law."""
    m, n = 100, 80
    rng = np.random.default_rng(3)
    ranks = np.array([maximum_spanning_forest(rng.standard_normal((m, n))).critical_rank for _ in range(400)])
    for k in (350, 450, 600):
        interval = connection_probability(m, n, k)
        error = 5 * math.sqrt(0.25 / 400)
        assert interval.lower - error <= np.mean(ranks <= k) <= interval.upper + error
        assert connection_limit(m, n, k) == pytest.approx(interval.lower, abs=0.05)


# -- circular convolutions ---------------------------------------------------------------------------------------------


def test_circular_convolutions_three_ways():
    """The layer graph, the gain graph, and the mean over all orders, between the bounds for every kernel."""
    conv = Conv(1, 1, (3, 3), (8, 8), padding=1, padding_mode="circular")
    rng = np.random.default_rng(5)
    counts = []
    for _ in range(400):
        kernel = rng.standard_normal(conv.weight_shape)
        by_graph = critical_kernel_weights(kernel, conv)
        by_gains = circular_critical_kernel_weights(kernel, conv)
        assert np.array_equal(by_graph.indices, by_gains.indices)
        assert np.array_equal(by_graph.merges, by_gains.merges)
        counts.append(by_graph.n_critical)
    least, most = critical_weights_range(conv)
    assert least <= min(counts) <= max(counts) <= most
    exact = expected_critical_weights(conv)
    assert exact == Fraction(65, 18)
    assert abs(np.mean(counts) - 65 / 18) < 5 * np.std(counts) / math.sqrt(400)
