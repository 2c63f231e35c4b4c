"""The deviation of the overlap: exact against every k-subset, the limit against exact values and samples."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.theory.enumeration import n_components, small_layers
from topobounds import concentration_band, maximum_spanning_forest, overlap_deviation, simulate_overlap
from topobounds.theory.counting import component_moments, exact_expected_overlap
from topobounds.theory.deviation import Deviation, exact_overlap_variance, known_deviation, overlap_covariance


def ranks_of_subsets(m, n, cells, k):
    return [m + n - n_components(m, n, subset) for subset in itertools.combinations(cells, k)]


def variance_over_every_subset(m, n, k):
    """Var R_k, exactly."""
    ranks = ranks_of_subsets(m, n, range(m * n), k)
    return Fraction(sum(r * r for r in ranks), len(ranks)) - Fraction(sum(ranks), len(ranks)) ** 2


def covariance_over_every_pair(m, n, k, k2):
    """Cov(R_k, R_k2), exactly: every k2-subset, and every k-subset of it."""
    pairs = []
    for later in itertools.combinations(range(m * n), k2):
        rank = m + n - n_components(m, n, later)
        pairs += [(earlier, rank) for earlier in ranks_of_subsets(m, n, later, k)]
    mean, mean2 = (Fraction(sum(rank), len(pairs)) for rank in zip(*pairs, strict=True))
    return Fraction(sum(r * r2 for r, r2 in pairs), len(pairs)) - mean * mean2


def sampled_covariance(m, n, k, k2, trials, seed):
    """Return Cov(R_k, R_k2) over random matrices and its standard error."""
    rng = np.random.default_rng(seed)
    counts = np.array([maximum_spanning_forest(rng.random((m, n))).retention([k, k2]) for _ in range(trials)])
    centred = (counts - counts.mean(axis=0)) * (m + n - 1)
    products = centred[:, 0] * centred[:, 1]
    return products.mean(), products.std() / math.sqrt(trials)


def test_the_exact_variance_is_that_over_every_subset():
    for m, n, k in small_layers(3):
        assert exact_overlap_variance(m, n, k) * (m + n - 1) ** 2 == variance_over_every_subset(m, n, k), (m, n, k)
    for m, n, k in [(4, 4, 7), (2, 7, 8), (5, 3, 9)]:
        assert exact_overlap_variance(m, n, k) * (m + n - 1) ** 2 == variance_over_every_subset(m, n, k), (m, n, k)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (9, 7), (40, 6), (100, 5), (14, 14)])
def test_the_count_for_the_variance_is_another_road_to_the_expected_overlap(m, n):
    for k in (0, 1, 4, m + n - 1, m * n // 2, m * n - 1, m * n):
        components, _ = component_moments(m, n, k)
        overlap = (m + n - Fraction(components, math.comb(m * n, k))) / (m + n - 1)
        assert overlap == exact_expected_overlap(m, n, k), k


@pytest.mark.parametrize(("m", "n"), [(8, 8), (40, 6), (5, 100)])
def test_the_exact_variance_is_bounded_by_the_mean(m, n):
    """For R_k from k' to alpha of a given mean, no law has more variance than one on the two ends."""
    alpha = m + n - 1
    for k in (5, alpha, 2 * alpha):
        mean = exact_expected_overlap(m, n, k)
        assert 0 < exact_overlap_variance(m, n, k) <= (Fraction(min(k, alpha), alpha) - mean) * mean


@pytest.mark.parametrize(("m", "n", "k"), [(12, 12, 23), (100, 5, 104), (20, 20, 39), (784, 10, 1586)])
def test_the_exact_deviation_is_what_is_sampled(m, n, k):
    sampled = simulate_overlap(m, n, k, trials=4000, seed=1).standard_deviation
    assert math.sqrt(exact_overlap_variance(m, n, k)) == pytest.approx(sampled, rel=5 / math.sqrt(2 * 4000))


@pytest.mark.parametrize(
    ("m", "n", "sampled", "error", "limit"),
    [
        (784, 300, 9.12, 0.10, 9.01),
        (1000, 1000, 11.79, 0.1, 11.82),
        (300, 100, 5.51, 0.08, 5.53),
        (4096, 4096, 23.75, 0.84, 23.93),
    ],
)
def test_known_deviations_at_alpha(m, n, sampled, error, limit):
    deviation = overlap_deviation(m, n) * (m + n - 1)
    assert deviation == pytest.approx(limit, abs=0.005)
    assert abs(deviation - sampled) < 3 * error


def test_known_constants_at_alpha():
    assert overlap_deviation(10**6, 10**6) * math.sqrt(2 * 10**6) == pytest.approx(0.26438, abs=1e-5)
    assert overlap_deviation(784, 300) * math.sqrt(1083) == pytest.approx(0.27379, abs=1e-5)


@pytest.mark.parametrize(("k", "k2", "limit"), [(250, 399, 9.28), (399, 600, 14.87), (600, 399, 14.87)])
def test_known_covariances(k, k2, limit):
    assert 399**2 * overlap_covariance(300, 100, k, k2) == pytest.approx(limit, abs=0.005)


@pytest.mark.parametrize(("k", "k2"), [(250, 399), (399, 600)])
def test_the_covariance_is_what_is_sampled(k, k2):
    sampled, error = sampled_covariance(300, 100, k, k2, 1500, seed=2)
    assert abs(399**2 * overlap_covariance(300, 100, k, k2) - sampled) < 4 * error + 0.05 * sampled


def test_the_limit_of_the_covariance_is_poor_for_tiny_layers():
    """The signs agree with those over every pair of subsets, the sizes do not."""
    for m, n, k, k2 in [(3, 3, 5, 6), (3, 4, 6, 7), (2, 5, 5, 7)]:
        exact = covariance_over_every_pair(m, n, k, k2)
        limit = (m + n - 1) ** 2 * overlap_covariance(m, n, k, k2)
        assert exact > 0
        assert limit > 1.5 * exact


def test_the_covariance_at_one_time_is_the_variance():
    for k in (600, 1083, 2000):
        assert overlap_covariance(784, 300, k, k) == pytest.approx(overlap_deviation(784, 300, k) ** 2, rel=1e-12)


def test_a_matrix_of_covariances_is_symmetric_and_positive():
    ks = np.arange(1, 1500, 20)
    matrix = overlap_covariance(300, 100, ks[:, None], ks[None, :])
    assert matrix.shape == (75, 75)
    assert (matrix == matrix.T).all()
    assert np.linalg.eigvalsh(matrix).min() > -1e-9 * matrix.max()
    assert matrix[3, 40] == overlap_covariance(300, 100, int(ks[3]), int(ks[40]))


def test_below_criticality_the_limit_is_nothing():
    assert overlap_covariance(300, 100, 100, 170) == overlap_covariance(300, 100, 100, 400) == 0
    assert overlap_covariance(300, 100, [], []).shape == (0,)


@pytest.mark.parametrize(("m", "n"), [(50, 50), (50, 400), (100, 100), (300, 100), (784, 300)])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.4, 1.0])
def test_the_limit_is_within_about_a_tenth_in_its_domain(m, n, place):
    first, last = math.ceil(1.2 * math.sqrt(m * n)), 2 * (m + n - 1)
    k = round(first + place * (last - first))
    trials = 2000
    assert known_deviation(m, n, k).status == "limit"
    sampled = simulate_overlap(m, n, k, trials=trials, seed=5).standard_deviation
    assert overlap_deviation(m, n, k) == pytest.approx(sampled, rel=0.11 + 4 / math.sqrt(2 * trials))


def test_the_limit_is_poor_outside_its_domain_and_is_not_used_there():
    just_above_criticality = 1083 * math.sqrt(overlap_covariance(784, 300, 520, 520))
    assert just_above_criticality == pytest.approx(0.90, abs=0.005)  # 1.40 sampled
    for k, factor in [(793, 1.03), (2 * 793, 1.09), (3 * 793, 1.29), (4 * 793, 1.73)]:
        exact = exact_overlap_variance(784, 10, k)
        assert math.sqrt(overlap_covariance(784, 10, k, k) / exact) == pytest.approx(factor, abs=0.012), k
    assert math.sqrt(overlap_covariance(20, 20, 117, 117) / exact_overlap_variance(20, 20, 117)) > 1.8
    assert known_deviation(784, 300, 520) is None
    assert known_deviation(300, 49) is None
    assert known_deviation(784, 300, 2167) is None
    assert known_deviation(2**40, 30) is None


def test_what_is_not_random_has_no_deviation():
    for m, n, k in [(1, 9, 5), (9, 1, None), (1, 1, None), (2, 2, None), (784, 300, 3), (784, 300, 784 * 300)]:
        assert overlap_deviation(m, n, k) == 0, (m, n, k)
        assert known_deviation(m, n, k).status == "proved"
    assert overlap_covariance(1, 9, 5, 5) > 0, "which the limit does not know"


def test_small_layers_are_counted():
    for m, n, k in [(3, 3, 5), (12, 12, 23), (784, 10, 793), (20, 20, 39)]:
        assert known_deviation(m, n, k) == Deviation(math.sqrt(exact_overlap_variance(m, n, k)), "proved")


def test_where_neither_way_is_good_nothing_is_said():
    assert known_deviation(300, 100) == Deviation(overlap_deviation(300, 100), "limit")
    assert known_deviation(30, 30) is None


def test_the_deviation_is_about_half_of_what_the_rigorous_band_allows():
    """The band is for the tail exp(-2 t^2 / v), of a deviation of sqrt(v) / 2."""
    for m, n in [(784, 300), (1000, 1000), (12, 12)]:
        allowed = concentration_band(m, n, confidence=0.5) / math.sqrt(2 * math.log(4))
        assert 0.35 < overlap_deviation(m, n) / allowed < 0.65


def test_a_layer_without_an_answer_names_the_domain_and_the_way_on():
    with pytest.raises(ValueError, match=r"m=30, n=30, k=59 .* min\(m, n\) >= 50, 1.2 sqrt.* simulate_overlap"):
        overlap_deviation(30, 30)
    with pytest.raises(ValueError, match=r"too large to count exactly: .* overlap_deviation .* simulate_overlap"):
        exact_overlap_variance(784, 300)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: overlap_deviation(0, 3), "'m'"),
        (lambda: overlap_deviation(3, 3, 10), "'k'"),
        (lambda: known_deviation(3, -1), "'n'"),
        (lambda: overlap_covariance(3, 3, 10, 1), "'k'"),
        (lambda: overlap_covariance(3, 3, 1, [2, 2.5]), "'k2'"),
        (lambda: exact_overlap_variance(3, 3, -1), "'k'"),
    ],
)
def test_bad_arguments(call, name):
    with pytest.raises(ValueError, match=f"Argument {name} must be"):
        call()
