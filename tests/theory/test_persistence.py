"""Neural persistence under the null of the values: against every order of small layers, and known values."""

import itertools
import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from tests.theory.random_orders import all_cells, forest_rank_law, mean, persistence_sums
from topobounds import maximum_spanning_forest
from topobounds.theory import persistence
from topobounds.theory import ranks as expected_ranks
from topobounds.theory.bounds import minimum_overlap
from topobounds.theory.counting import exact_expected_overlap, exact_expected_ranks
from topobounds.theory.overlap import expected_overlap
from topobounds.theory.persistence import (
    expected_persistence,
    extreme_ranks,
    forest_edge_probabilities,
    persistence_deviation,
    persistence_range,
    persistence_sum,
    sufficient_rank,
    untrained_persistence,
    untrained_persistence_limit,
)
from topobounds.theory.ranks import DEEPEST, missing_edges

SHAPES = [(1, 1), (1, 4), (2, 2), (2, 3), (3, 2), (2, 4), (3, 3)]
ORDERS = [1, 2, 3, 0.5]
VALUES = {
    "distinct": [19, 17, 12, 9, 8, 5, 3, 2, 1],
    "tied": [7, 7, 7, 4, 4, 4, 4, 1, 1],
    "with zeros as edges": [5, 4, 4, 3, 2, 1, 0, 0, 0],
    "all equal": [3] * 9,
    "one dominates": [1000, 1, 1, 1, 1, 1, 1, 1, 1],
    "not binary": [0.9, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01, 1e-3, 1e-30],
}


@cache
def law(m, n):
    return forest_rank_law(all_cells(m, n), m, n)


@pytest.fixture
def by_enclosure(monkeypatch):
    """Let nothing be counted exactly."""
    for module in (persistence, expected_ranks):
        monkeypatch.setattr(module, "counting_steps", lambda m, n, k: math.inf)
    missing_edges.cache_clear()
    yield
    missing_edges.cache_clear()


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_probabilities_are_those_of_all_orders(m, n):
    assert law(m, n).total() == math.factorial(m * n)
    counted = [sum(orders for ranks, orders in law(m, n).items() if j in ranks) for j in range(1, m * n + 1)]
    assert forest_edge_probabilities(m, n) == [Fraction(c, math.factorial(m * n)) for c in counted]


def test_the_probabilities_of_3x3_are_known():
    known = [1, 1, 1, Fraction(13, 14), Fraction(5, 7), Fraction(2, 7), Fraction(1, 14), 0, 0]
    assert forest_edge_probabilities(3, 3) == known


@pytest.mark.parametrize(("m", "n"), [(4, 4), (3, 7), (6, 5), (2, 30)])
def test_the_probabilities_fall_and_add_up_to_alpha(m, n):
    chances = forest_edge_probabilities(m, n)
    assert sorted(chances, reverse=True) == chances
    assert sum(chances) == m + n - 1
    assert sum(chances[: m + n - 1]) == (m + n - 1) * exact_expected_overlap(m, n)


def test_a_layer_too_large_to_count_is_refused():
    with pytest.raises(ValueError, match="too large to count exactly up to k=160000"):
        exact_expected_ranks(400, 400)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_expected_persistence_is_the_mean_over_all_orders(m, n, p, values):
    values = values[: m * n]
    interval = expected_persistence(m, n, values, p=p)
    truth = mean(persistence_sums(law(m, n), values, p))
    slack = 0 if isinstance(p, int) else 1e-13  # of the oracle's own floats
    assert interval.lower - slack <= truth <= interval.upper + slack
    assert interval.width <= 1e-12 * (1 + truth)


def test_the_value_of_a_3x3_layer_is_known():
    interval = expected_persistence(3, 3, VALUES["distinct"])
    assert Fraction(2146, 2527) in interval
    assert interval.width < 1e-12


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("cells", [1, 2, 4, 6, 8])
def test_on_uniformly_random_supports_the_sum_ends_with_the_cells(cells, p, values):
    """The first cells of a random order of all are a uniformly random support in random order."""
    values = [v for v in values[:cells] if v]
    truth = mean(persistence_sums(law(3, 3), values, p))
    interval = expected_persistence(3, 3, values, p=p, cells=len(values))
    assert truth in interval
    assert interval.width <= 1e-12 * (1 + truth)


@pytest.mark.parametrize("absent", [1, 2, 3])
def test_the_interval_for_every_support_holds_for_each_connected_one(absent):
    values = VALUES["distinct"][: 9 - absent]
    interval = expected_persistence(3, 3, values, cells=9 - absent, every_support=True)
    means = []
    for left_out in itertools.combinations(all_cells(3, 3), absent):
        of_support = forest_rank_law([c for c in all_cells(3, 3) if c not in left_out], 3, 3)
        if len(next(iter(of_support))) == 5:
            means.append(mean(persistence_sums(of_support, values, 2)))
    assert len(means) > 8
    assert all(m in interval for m in means)


@pytest.mark.parametrize("absent", [1, 2, 3, 4])
def test_the_missing_edges_on_every_support_are_those_of_each_connected_one(absent):
    """By all subsets of the cells; a whole row but one cell may be absent."""
    cells = 9 - absent
    ks = np.arange(1, cells + 1)
    lower, upper = missing_edges(3, 3).on_every_support(cells, 9, ks)
    full_lower, full_upper = missing_edges(3, 3).lower[ks], missing_edges(3, 3).upper[ks]
    assert np.all(upper - lower <= full_upper - full_lower + 2 * (5 - full_lower) * absent / cells + 1e-12)
    n_connected = 0
    for left_out in itertools.combinations(all_cells(3, 3), absent):
        support = [cell for cell in all_cells(3, 3) if cell not in left_out]
        missing = [5 - mean_rank(support, int(k), 3, 3) for k in ks]
        if not missing[-1]:
            n_connected += 1
            assert all(low <= edges <= high for low, edges, high in zip(lower, missing, upper, strict=True))
    assert n_connected > 8


def mean_rank(support, k, m, n):
    """Return the mean rank of the sets of k cells of a support, each counted by the components that it leaves."""
    ranks = []
    for some in itertools.combinations(support, k):
        label = list(range(m + n))
        for row, column in some:
            old, new = label[row], label[m + column]
            label = [new if each == old else each for each in label]
        ranks.append(m + n - len(set(label)))
    return Fraction(sum(ranks), len(ranks))


@pytest.mark.parametrize("known", [1, 2, 4, 8])
def test_fewer_magnitudes_only_widen_the_interval(known):
    part = expected_persistence(3, 3, VALUES["distinct"][:known])
    assert Fraction(2146, 2527) in part
    assert (part.width > 0.05) == (known < 7)  # the seventh is the last that may be a forest edge


@pytest.mark.parametrize(("m", "n"), [(4, 4), (5, 9), (3, 60), pytest.param(16, 15, marks=pytest.mark.long)])
def test_the_enclosure_contains_what_is_counted(m, n, by_enclosure):
    ranks = exact_expected_ranks(m, n)
    missing = missing_edges(m, n)
    last = missing.lower.size - 1
    assert last == min(m * n, math.ceil(max(m, n) * (math.log(max(m, n)) + DEEPEST)))
    for k in range(last + 1):
        assert missing.lower[k] <= m + n - 1 - ranks[k] <= missing.upper[k]
    values = np.abs(np.random.default_rng(m).standard_normal(m * n))
    falling = np.sort(values)[::-1]
    chances = forest_edge_probabilities(m, n)
    steps = [(1 - Fraction(v) / Fraction(falling[0])) ** 2 for v in falling.tolist()]
    truth = sum(c * g for c, g in zip(chances, steps, strict=True))
    interval = expected_persistence(m, n, falling)
    assert truth in interval
    assert interval.width < 0.03 * interval.upper


def test_bounds_between_the_ranks_hold_at_ranks_of_their_own():
    m, n = 60, 45
    missing = missing_edges(m, n)
    for k in range(1, missing.lower.size, 37):
        point = expected_overlap(m, n, k)
        assert missing.lower[k] <= (m + n - 1) * (1 - point.lower) + 1e-9
        assert (m + n - 1) * (1 - point.upper) - 1e-9 <= missing.upper[k]


def test_no_more_than_the_sufficient_magnitudes_are_needed():
    m, n = 120, 80
    values = np.sort(np.random.default_rng(0).random(m * n))[::-1]
    few = expected_persistence(m, n, values[: sufficient_rank(m, n)])
    whole = expected_persistence(m, n, values)
    assert few.lower <= whole.lower <= whole.upper <= few.upper
    assert few.width <= whole.width + 2e-4


@pytest.mark.parametrize(
    ("m", "n", "p", "value"),
    [
        (2, 2, 2, Fraction(2, 5)),
        (2, 3, 2, Fraction(18, 35)),
        (3, 3, 2, Fraction(1, 2)),
        (2, 2, 1, Fraction(3, 4)),
        (3, 3, 1, Fraction(7, 6)),
    ],
)
def test_untrained_layers_are_known_exactly(m, n, p, value):
    interval = untrained_persistence(m, n, p=p)
    assert value in interval
    assert interval.width <= 2 * math.ulp(interval.upper)


def test_an_untrained_layer_of_784x300_is_enclosed():
    interval = untrained_persistence(784, 300)
    assert 0.019601 <= interval.lower <= interval.upper <= 0.0196465
    assert interval.width < 5e-5


@pytest.mark.parametrize("p", [1, 2, 3, 40])
@pytest.mark.parametrize(("m", "n"), [(9, 9), (4, 20), (1, 12)])
def test_the_enclosure_of_untrained_layers_contains_what_is_counted(m, n, p, by_enclosure):
    chances = forest_edge_probabilities(m, n)
    cells = m * n
    moment = [
        Fraction(math.perm(j + p - 2, p) if j > 1 else 0, math.perm(cells + p - 1, p)) for j in range(1, cells + 1)
    ]
    assert sum(c * h for c, h in zip(chances, moment, strict=True)) in untrained_persistence(m, n, p=p)


def test_untrained_layers_are_what_uniform_weights_give():
    rng = np.random.default_rng(4)
    drawn = [expected_persistence(3, 3, np.sort(rng.random(9))[::-1]).lower for _ in range(4000)]
    assert abs(np.mean(drawn) - 0.5) < 5 * np.std(drawn) / math.sqrt(len(drawn))


def test_the_limits_are_zeta_values():
    zeta_3, zeta_4 = 1.2020569031595942, math.pi**4 / 90
    assert untrained_persistence_limit(1) == pytest.approx(2 * zeta_3, rel=1e-14)
    assert untrained_persistence_limit(2) == pytest.approx(4 * zeta_3, rel=1e-14)
    assert untrained_persistence_limit(3) == pytest.approx(6 * (zeta_3 + zeta_4), rel=1e-14)
    for p in (4, 7):
        terms = math.fsum(math.comb(p + k - 2, k - 1) / k ** (p + 2) for k in range(1, 20_000))
        assert untrained_persistence_limit(p) == pytest.approx(2 * math.factorial(p) * terms, rel=1e-6)


def test_the_limit_is_approached_from_below():
    ratios = [n * untrained_persistence(n, n).upper / untrained_persistence_limit(2) for n in (10, 30, 100, 300)]
    assert ratios == sorted(ratios)
    assert 1 / 1.04 < ratios[2] < 1 / 1.03
    assert ratios[3] > 0.98


@pytest.mark.parametrize("draw", ["random", "standard_normal", "standard_cauchy"])
@pytest.mark.parametrize("p", [1, 2])
def test_the_deviation_is_near_that_of_random_orders(draw, p):
    m, n = 120, 60
    values = np.sort(np.abs(getattr(np.random.default_rng(8), draw)(m * n)))[::-1]
    by_rank = persistence.persistences(values, p)
    ranks = [maximum_spanning_forest(order).ranks for order in random_orders(m, n, 500)]
    sampled = np.std([by_rank[r - 1].sum() for r in ranks], ddof=1)
    assert persistence_deviation(m, n, values, p=p) == pytest.approx(sampled, rel=0.2)


def random_orders(m, n, trials):
    rng = np.random.default_rng(9)
    return [rng.permutation(m * n).reshape(m, n) + 1.0 for _ in range(trials)]


def test_the_deviation_is_left_to_sampling_outside_of_its_domain():
    normal = np.sort(np.abs(np.random.default_rng(0).standard_normal(100 * 60)))[::-1]
    assert persistence_deviation(100, 60, normal) > 0
    assert persistence_deviation(200, 30, normal) is None
    steep = np.append(np.full(60, 2.0), np.ones(5940))  # one step, below criticality
    assert persistence_deviation(100, 60, steep) is None
    assert persistence_deviation(100, 60, np.ones(6000)) == 0


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_the_range_is_that_of_all_orders(m, n, p, values):
    values = values[: m * n]
    sums = persistence_sums(law(m, n), values, p)
    ends = persistence_range(m, n, values, p=p)
    assert ends.lower == pytest.approx(float(min(sums)), rel=1e-12, abs=1e-15)
    assert ends.upper == pytest.approx(float(max(sums)), rel=1e-12, abs=1e-15)
    if isinstance(p, int):
        assert min(sums) in ends
        assert max(sums) in ends


@pytest.mark.parametrize(("m", "n"), [*SHAPES, (1, 9), (5, 8), (8, 5), (7, 7), (3, 40)])
def test_the_latest_ranks_are_where_the_least_rank_rises(m, n):
    earliest, latest = extreme_ranks(m, n)
    least = [minimum_overlap(m, n, k) for k in range(m * n + 1)]
    assert latest.tolist() == [next(k for k, r in enumerate(least) if r >= edge) for edge in range(1, m + n)]
    assert earliest.tolist() == list(range(1, m + n))


@pytest.mark.parametrize("absent", [1, 2, 3, 4])
def test_on_every_support_the_least_is_attained_and_the_largest_a_bound(absent):
    values = VALUES["distinct"][: 8 - absent]
    for left_out in itertools.combinations(all_cells(2, 4), absent):
        of_support = forest_rank_law([c for c in all_cells(2, 4) if c not in left_out], 2, 4)
        alpha = len(next(iter(of_support)))
        sums = persistence_sums(of_support, values, 2)
        earliest, latest = extreme_ranks(2, 4, len(values), alpha)
        least = persistence_sum([values[k - 1] for k in earliest], values[0])
        most = persistence_sum([values[k - 1] for k in latest], values[0])
        assert min(sums) in least
        assert max(sums) <= most.upper


def test_zeros_that_may_move_leave_the_range_of_the_full_layer():
    """2 x 4, values 6 to 1 and two zeros that are no edges: the true range is [14/36, 46/36]."""
    sums = set()
    for absent in itertools.combinations(all_cells(2, 4), 2):
        support = [c for c in all_cells(2, 4) if c not in absent]
        sums |= set(persistence_sums(forest_rank_law(support, 2, 4), [6, 5, 4, 3, 2, 1], 2))
    assert (min(sums), max(sums)) == (Fraction(14, 36), Fraction(46, 36))
    full = persistence_range(2, 4, [6, 5, 4, 3, 2, 1, 0, 0])
    assert not (full.lower <= min(sums) <= max(sums) <= full.upper)


@pytest.mark.parametrize(
    "magnitudes", [[], [[2, 1]], [1, 2], [2, -1], [0, 0], [math.inf, 1], [1, math.nan], [5, 4, 3, 2, 1]]
)
def test_magnitudes_that_do_not_fall_are_refused(magnitudes):
    with pytest.raises(ValueError, match="Argument 'magnitudes' must be from 1 to 4 finite numbers, falling"):
        expected_persistence(2, 2, magnitudes)


@pytest.mark.parametrize("p", [0, -1, math.inf, math.nan, "2"])
def test_an_order_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match="Argument 'p' must be a number above 0"):
        expected_persistence(2, 2, [2, 1], p=p)


def test_a_range_of_some_of_the_magnitudes_is_refused():
    with pytest.raises(ValueError, match="must be all 4 magnitudes of the layer, not '3 of them'"):
        persistence_range(2, 2, [3, 2, 1])


def test_tiny_persistences_do_not_escape_the_interval():
    values = [1.0, 1.0 - 2.0**-53, 1.0 - 2.0**-53, 0.5]
    interval = expected_persistence(2, 2, values, p=500)
    truth = mean(persistence_sums(law(2, 2), values, 500))
    assert truth in interval
    assert truth > 0
