"""The certified law of the critical rank, against every k-subset, exact counts, and samples."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.theory.enumeration import connected_graphs, n_components
from topobounds import connection_probability, critical_rank_law, maximum_spanning_forest, simulate_overlap
from topobounds.theory import critical_rank
from topobounds.theory.critical_rank import connection_limit, critical_rank_limit
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap

SMALL = [(1, 1), (1, 4), (2, 2), (2, 3), (3, 2), (3, 3), (3, 4), (2, 6)]


def exact_probabilities(m, n):
    """P(k* <= k) for k = 0, ..., m n, from the oracle's count of connected graphs."""
    return [Fraction(c, math.comb(m * n, k)) for k, c in enumerate(connected_graphs(m, n))]


def share_connected(m, n, k):
    """P(k* <= k) over every k-subset of the cells."""
    subsets = list(itertools.combinations(range(m * n), k))
    return Fraction(sum(n_components(m, n, subset) == 1 for subset in subsets), len(subsets))


def sampled_ranks(m, n, trials, seed):
    rng = np.random.default_rng(seed)
    return np.array([maximum_spanning_forest(rng.random((m, n))).critical_rank for _ in range(trials)])


@pytest.fixture
def nothing_is_counted(monkeypatch):
    """Make the law show its bounds where it would count."""
    monkeypatch.setattr(critical_rank, "_is_counted", lambda _m, _n: False)


@pytest.mark.parametrize(("m", "n"), SMALL)
def test_the_probability_is_that_over_every_subset(m, n):
    for k in range(m * n + 1):
        chance = connection_probability(m, n, k)
        assert share_connected(m, n, k) in chance, k
        assert chance.width <= math.ulp(1.0)


@pytest.mark.parametrize(("m", "n", "mean"), [(2, 2, "3"), (2, 3, "21/5"), (3, 3, "38/7"), (3, 4, "15839/2310")])
def test_known_means(m, n, mean):
    assert critical_rank_law(m, n).mean == critical_rank_law(n, m).mean == Fraction(mean)


@pytest.mark.parametrize(
    ("m", "n", "lower", "upper"),
    [(12, 12, 37, 37), (784, 300, 5448, 5448), (100, 100, 550, 551), (1000, 1000, 7934, 7937)],
)
def test_known_medians(m, n, lower, upper):
    median = critical_rank_law(m, n).median
    assert lower <= median.lower <= median.upper <= upper


@pytest.mark.parametrize(("m", "n"), [(4, 4), (5, 3), (12, 12), (1, 6)])
def test_at_alpha_the_probability_is_the_number_of_spanning_trees_over_all_graphs(m, n):
    alpha = m + n - 1
    trees = Fraction(m ** (n - 1) * n ** (m - 1), math.comb(m * n, alpha))
    assert trees in connection_probability(m, n, alpha)
    assert (m, n) != (4, 4) or trees == Fraction(256, 715)


def test_at_alpha_the_probability_of_large_layers_is_that_of_trees_too():
    chance = connection_probability(784, 300, 1083)
    trees = Fraction(784**299 * 300**783, math.comb(235200, 1083))
    assert trees in chance
    assert chance.width < 1e-9 * chance.upper
    assert round(math.log10(chance.upper)) == -193


@pytest.mark.usefixtures("nothing_is_counted")
@pytest.mark.parametrize("m", range(800, 846, 3))
def test_a_probability_where_doubles_have_fewer_digits_is_enclosed(m):
    """Down to 2^-1074 and below, numbers are rounded to multiples of that, and no longer to their own last digits."""
    probability = Fraction(m**8 * 9 ** (m - 1), math.comb(9 * m, m + 8))
    chance = connection_probability(m, 9, m + 8)
    assert 0 < probability < Fraction(10) ** -310
    assert Fraction(chance.lower) <= probability <= Fraction(chance.upper)
    assert chance.width < 1e-318


@pytest.mark.usefixtures("nothing_is_counted")
@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 2), (3, 3), (2, 7), (6, 5), (8, 8), (40, 3), (12, 12), (30, 8)])
def test_the_bounds_enclose_the_exact_probability_at_every_k(m, n):
    for k, exact in enumerate(exact_probabilities(m, n) if m * n <= 64 else counted(m, n)):
        assert exact in connection_probability(m, n, k), k


def counted(m, n):
    """P(k* <= k) by the package's own count, which other tests hold against the oracle's."""
    counts = critical_rank._connected_graphs(max(m, n), min(m, n))
    return [Fraction(c, math.comb(m * n, k)) for k, c in enumerate(counts)]


@pytest.mark.usefixtures("nothing_is_counted")
@pytest.mark.parametrize(("m", "n"), [(30, 8), (100, 6), (300, 4)])
def test_bounds_shifted_by_their_width_miss(m, n):
    shares = counted(m, n)
    k = next(k for k, share in enumerate(shares) if share >= Fraction(1, 2))
    chance = connection_probability(m, n, k)
    assert shares[k] in chance
    assert shares[k] not in Enclosure(chance.lower + chance.width, chance.upper + chance.width)
    assert shares[k] not in Enclosure(chance.lower - chance.width, chance.upper - chance.width)


@pytest.mark.usefixtures("nothing_is_counted")
@pytest.mark.parametrize(("m", "n"), [(6, 5), (12, 12), (15, 15), (30, 8), (100, 6), (300, 4)])
def test_the_enclosed_quantiles_and_mean_contain_the_counted_ones(m, n):
    shares = counted(m, n)
    law = critical_rank_law(m, n)
    for probability in (1e-6, 0.05, 0.3, 0.5, 0.9, 0.95, 1 - 1e-6):
        exact = next(k for k, share in enumerate(shares) if share >= Fraction(probability))
        assert exact in law.quantile(probability), probability
    mean = critical_rank._enclosed_mean(max(m, n), min(m, n))
    assert sum(1 - share for share in shares) in mean
    assert mean.width < 0.08 * mean.lower


@pytest.mark.parametrize(("m", "n"), [(2, 3), (3, 4), (5, 5), (4, 12)])
def test_the_counted_quantiles_are_the_least_ranks(m, n):
    shares = exact_probabilities(m, n)
    law = critical_rank_law(m, n)
    for probability in (0.01, 0.05, 0.5, 0.75, 0.95, 0.999):
        k = next(k for k, share in enumerate(shares) if share >= Fraction(probability))
        assert law.quantile(probability) == Enclosure(k, k)
    assert law.mean == sum(1 - share for share in shares)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (2, 5), (3, 4), (6, 6), (9, 4), (12, 12)])
def test_the_probability_is_log_concave_in_k(m, n):
    """The mean is enclosed by this: connected sets are the spanning sets of a matroid (Mason's conjecture, proved)."""
    shares = counted(m, n)
    assert all(shares[k] ** 2 >= shares[k - 1] * shares[k + 1] for k in range(1, m * n))


@pytest.mark.parametrize(("m", "n"), [(20, 20), (60, 40), (10, 200)])
def test_the_critical_ranks_of_sampled_weights_follow_the_law(m, n):
    ranks = sampled_ranks(m, n, 400, seed=3)
    law = critical_rank_law(m, n)
    error = 5 * ranks.std() / math.sqrt(len(ranks))
    assert law.mean.lower - error < ranks.mean() < law.mean.upper + error
    for k in np.quantile(ranks, [0.05, 0.25, 0.5, 0.75, 0.95]).astype(int).tolist():
        chance = connection_probability(m, n, k)
        allowed = 5 * math.sqrt(0.25 / len(ranks))
        assert chance.lower - allowed < np.mean(ranks <= k) < chance.upper + allowed, k


@pytest.mark.parametrize(("m", "n"), [(18, 18), (100, 100), (784, 300)])
def test_the_share_of_connected_random_supports_follows_the_law(m, n):
    trials = 1000
    for k in (int(critical_rank_law(m, n).quantile(p).upper) for p in (0.05, 0.5, 0.95)):
        chance = connection_probability(m, n, k)
        share = simulate_overlap(m, n, density=k / (m * n), trials=trials, seed=k).connected
        allowed = 5 * math.sqrt(0.25 / trials)
        assert chance.lower - allowed < share < chance.upper + allowed, k


def test_several_roads_to_the_chance_of_a_disconnected_layer():
    """1 - P(k* <= k) is at most E[kappa] - 1, and at least that over the most components there can be, (m + n) - 1."""
    for m, n in [(12, 12), (100, 100), (784, 300), (1000, 20)]:
        alpha = m + n - 1
        for k in (critical_rank_limit(m, n, p) for p in (0.05, 0.5, 0.99, 1 - 1e-6)):
            chance = connection_probability(m, n, k)
            overlap = expected_overlap(m, n, k)
            assert 1 - chance.upper <= alpha * (1 - overlap.lower) + 1e-12, (m, n, k)
            assert 1 - chance.lower >= (1 - overlap.upper) - 1e-12, (m, n, k)


def test_the_limit_is_near_for_large_layers_and_the_law_says_by_how_much():
    for m, n, gap in [(100, 100, 0.03), (784, 300, 0.002), (4096, 14336, 2e-4)]:
        k = critical_rank_limit(m, n)
        assert 0 < abs(connection_limit(m, n, k) - connection_probability(m, n, k).upper) < gap


def test_a_language_model_layer():
    law = critical_rank_law(4096, 14336)
    assert law.median.lower == law.median.upper == 142284
    assert critical_rank_law(4096, 14336) is law, "cached by shape"
    assert law.mean.width < 2e-3 * law.mean.lower


def test_the_record_is_ready_for_json():
    record = critical_rank_law(3, 4).to_dict()
    assert record["mean"] == "15839/2310"
    assert record["median"] == {"lower": 7, "upper": 7}
    assert critical_rank_law(20, 20).to_dict()["mean"].keys() == {"lower", "upper"}


def test_edges():
    assert connection_probability(5, 4, 7) == Enclosure(0, 0)
    assert connection_probability(50, 40, 88) == Enclosure(0, 0)
    assert connection_probability(50, 40, 1961) == connection_probability(50, 40, 2000) == Enclosure(1, 1)
    assert connection_probability(50, 40, 1960).lower > 1 - 1e-9
    for m, n in [(5, 4), (50, 40)]:
        assert critical_rank_law(m, n).quantile(0) == Enclosure(m + n - 1, m + n - 1)
        assert critical_rank_law(m, n).quantile(1) == Enclosure(m * n - min(m, n) + 1, m * n - min(m, n) + 1)
    line = critical_rank_law(1, 9)
    assert (line.low, line.median, line.high, line.mean) == (Enclosure(9, 9), Enclosure(9, 9), Enclosure(9, 9), 9)
    assert critical_rank_law(1, 10**9).median == Enclosure(10**9, 10**9)
    chance = connection_probability(2**50, 4, 2**50 + 3)
    assert chance.lower == 0 < chance.upper, "positive, though too small for a double"


def test_the_largest_layers():
    law = critical_rank_law(2**50, 4)
    assert 0 <= law.median.width < 1e-13 * law.median.lower
    with pytest.raises(
        ValueError, match=r"'m' must be so small that m n is at most 2\^52 \(connection_limit takes any"
    ):
        critical_rank_law(2**50, 5)


def test_the_limit_at_the_ends():
    assert connection_limit(5, 4, 7) == 0
    assert connection_limit(5, 4, 17) == connection_limit(5, 4, 20) == 1
    assert connection_limit(5, 4, 16) == pytest.approx(math.exp(-5 / math.comb(20, 4)))  # no column can be empty
    assert (critical_rank_limit(5, 4, 0), critical_rank_limit(5, 4, 1)) == (8, 17)


def test_the_quantile_of_the_limit_inverts_it():
    for probability in (0.01, 0.5, 0.99):
        k = critical_rank_limit(30, 20, probability)
        assert connection_limit(30, 20, k - 1) < probability <= connection_limit(30, 20, k)


def test_the_limit_approaches_the_exact_probability():
    gaps = [
        max(abs(float(p) - connection_limit(size, size, k)) for k, p in enumerate(counted(size, size)))
        for size in (6, 8, 10, 14)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.11


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: connection_probability(0, 3, 1), "'m'"),
        (lambda: connection_probability(3, 3, 10), "'k'"),
        (lambda: connection_limit(3, 3, -1), "'k'"),
        (lambda: critical_rank_limit(3, 3, 1.5), "'probability'"),
        (lambda: critical_rank_law(3, -1), "'n'"),
        (lambda: critical_rank_law(3, 3).quantile(math.nan), "'probability'"),
    ],
)
def test_bad_arguments(call, name):
    with pytest.raises(ValueError, match=f"Argument {name} must be"):
        call()
