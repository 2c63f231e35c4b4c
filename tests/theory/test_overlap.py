"""Closed forms for the overlap; known answers from docs/theory/overlap.md."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.enumeration import empty, mean_overlap, n_components, small_layers
from topobounds import maximum_spanning_forest
from topobounds.montecarlo import retained_counts
from topobounds.theory import bounds
from topobounds.theory.bounds import boruvka_bound, corollary_3_4_repaired, minimum_overlap, star_bound
from topobounds.theory.enclosure import spread
from topobounds.theory.overlap import concentration_band, overlap_limit
from topobounds.theory.paper import theorem_3_3

ONE = 1 + 2**-44  # two bounds that are equal may be rounded down by different amounts


def star_exactly(m, n, k):
    return max(n * (1 - empty(m, n, k, m)), m * (1 - empty(m, n, k, n))) / (m + n - 1)


def boruvka_exactly(m, n, k):
    alpha = m + n - 1
    twice = Fraction(m * n, alpha) * (1 - empty(m, n, k, alpha))
    return (m * (1 - empty(m, n, k, n)) + n * (1 - empty(m, n, k, m)) - twice) / alpha


@st.composite
def shapes(draw, largest=2000):
    m, n = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    return m, n, draw(st.one_of(st.none(), st.integers(0, m * n)))


@pytest.mark.parametrize(
    ("bound", "m", "n", "value"),
    [
        (star_bound, 784, 300, 0.5428),
        (boruvka_bound, 784, 300, 0.6132),
        (boruvka_bound, 1000, 1000, 0.6197),
        (boruvka_bound, 10, 1000, 0.6492),
    ],
)
def test_bounds_known_answers(bound, m, n, value):
    assert bound(m, n) == pytest.approx(value, abs=5e-5)
    assert bound(m, n) == pytest.approx(bound(n, m), rel=1e-14)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(2, 2, 3), (7, 3, 5), (50, 20, 69), (50, 20, 999), (784, 300, 1083), (784, 300, 3)],
)
def test_bounds_to_the_last_digits(m, n, k):
    assert star_bound(m, n, k) == pytest.approx(float(star_exactly(m, n, k)), rel=1e-13)
    assert boruvka_bound(m, n, k) == pytest.approx(float(boruvka_exactly(m, n, k)), rel=1e-13)


def test_boruvka_to_the_last_digits_at_a_large_layer():
    m, n, alpha = 4096, 14336, 18431
    with mpmath.workdps(40):
        hit = {c: 1 - mpmath.binomial(m * n - c, alpha) / mpmath.binomial(m * n, alpha) for c in (m, n, alpha)}
        value = (m * hit[n] + n * hit[m] - mpmath.mpf(m * n) / alpha * hit[alpha]) / alpha
    assert boruvka_bound(m, n) == pytest.approx(float(value), rel=1e-13)


def test_bounds_hold_for_every_subset_of_every_small_layer():
    for m, n, k in small_layers():
        truth = mean_overlap(m, n, k)
        assert star_exactly(m, n, k) <= boruvka_exactly(m, n, k) <= truth, (m, n, k)


def test_the_boruvka_bound_is_the_expected_overlap_with_its_first_round():
    m, n, k = 3, 3, 5
    total = 0
    for order in itertools.permutations(range(m * n), k):
        heaviest = {}
        for cell in order:
            heaviest.setdefault(("row", cell // n), cell)
            heaviest.setdefault(("column", cell % n), cell)
        total += len(set(heaviest.values()))
    assert Fraction(total, math.perm(m * n, k)) / (m + n - 1) == boruvka_exactly(m, n, k)


def test_theorem_3_3_then_star_then_boruvka_on_a_grid():
    for m, n in itertools.product((*range(1, 21), 50, 137, 1000), repeat=2):
        assert theorem_3_3(m, n).value <= star_bound(m, n) * ONE, (m, n)
        assert star_bound(m, n) <= boruvka_bound(m, n) * ONE, (m, n)
        assert boruvka_bound(m, n) > 0.609, (m, n)


def test_the_boruvka_bound_is_above_0_609():
    """For alpha >= 100 proved in docs/theory/overlap.md."""
    shapes = [(m, n) for m in range(1, 101) for n in range(m, 102 - m)]
    assert min(boruvka_bound(m, n) for m, n in shapes) > 0.609
    assert 0.609 < boruvka_bound(1930, 8070) < 0.6101


@given(shapes())
def test_star_then_boruvka_at_any_k(shape):
    m, n, k = shape
    alpha = m + n - 1
    star, boruvka = star_bound(m, n, k), boruvka_bound(m, n, k)
    assert 0 <= star <= boruvka * ONE <= min(1, (alpha if k is None else k) / alpha) * ONE**2


@pytest.mark.parametrize("bound", [star_bound, boruvka_bound])
def test_exact_where_the_bounds_are_tight(bound):
    assert str(bound(5, 7, 0)) == "0.0"  # not -0.0, which would be printed
    assert [bound(1, 7, k) for k in range(8)] == pytest.approx([k / 7 for k in range(8)], rel=2e-16)
    assert bound(1, 1) == bound(6, 1) == 1
    assert bound(784, 300, 1) == pytest.approx(1 / 1083, rel=1e-13)


def test_at_k_equal_to_all_cells_every_vertex_is_hit():
    assert star_bound(6, 4, 24) == pytest.approx(6 / 9, rel=2**-46)
    assert boruvka_bound(6, 4, 24) == pytest.approx((10 - 24 / 9) / 9, rel=2**-44)


def test_bounds_are_rounded_down_and_not_far():
    """A float that is above the fraction it stands for would be no lower bound."""
    shapes = [*itertools.combinations_with_replacement(range(1, 24), 2), (50, 20), (300, 7), (784, 300)]
    for m, n in shapes:
        for k in {0, 1, 2, 3, m + n - 2, m + n - 1, m + n, m * n // 2, m * n - 1, m * n} - {-1}:
            if not 0 <= k <= m * n or (m * n > 1000 and k > 2000):
                continue
            for bound, exactly, loss in ((star_bound, star_exactly, 2**-46), (boruvka_bound, boruvka_exactly, 2**-44)):
                value, truth = Fraction(bound(m, n, k)), exactly(m, n, k)
                assert truth * (1 - loss) <= value <= truth, (bound, m, n, k)


def test_the_repaired_corollary_is_rounded_down():
    for cells in range(1, 19):
        truth = boruvka_exactly(10, 10, cells) * 19 / cells
        assert truth * (1 - 2**-44) <= Fraction(corollary_3_4_repaired(10, 10, cells / 100)) <= min(1, truth)


@pytest.mark.parametrize(("m", "n", "k"), [(70_000, 80_000, None), (2**18, 2**17, 2**20), (2**26, 2**26, None)])
def test_probabilities_of_many_factors_are_those_of_mpmath(m, n, k):
    alpha = m + n - 1
    k = alpha if k is None else k
    with mpmath.workdps(60):
        cells = mpmath.mpf(m * n)
        log_all = mpmath.loggamma(cells + 1) - mpmath.loggamma(cells - k + 1)
        missed = {c: mpmath.loggamma(cells - c + 1) - mpmath.loggamma(cells - c - k + 1) for c in (m, n, alpha)}
        hit = {c: -mpmath.expm1(log - log_all) for c, log in missed.items()}
        star = max(n * hit[m], m * hit[n]) / alpha
        boruvka = (m * hit[n] + n * hit[m] - cells / alpha * hit[alpha]) / alpha
        assert star * (1 - 2**-46) <= star_bound(m, n, k) <= star
        assert boruvka * (1 - 2**-44) <= boruvka_bound(m, n, k) <= boruvka


def test_both_ways_to_a_probability_agree(monkeypatch):
    added = [star_bound(400, 300, k) for k in (400, 699, 5000, 119_000, 119_599, 119_600, 119_601)]
    monkeypatch.setattr(bounds, "MOST_SUMMED", 100)
    assert [star_bound(400, 300, k) for k in (400, 699, 5000, 119_000, 119_599, 119_600, 119_601)] == pytest.approx(
        added, rel=1e-14
    )


@pytest.mark.parametrize("bound", [star_bound, boruvka_bound, overlap_limit, minimum_overlap, concentration_band])
def test_the_largest_layers_are_taken_at_once(bound):
    assert bound(2**63 - 1, 4) > 0
    assert bound(2**63 - 1, 2**63 - 1) > 0
    with pytest.raises(ValueError, match=r"^Argument 'm' must be at most 2\^63 - 1, not 1180591620717411303424\.$"):
        bound(2**70, 4)


@pytest.mark.parametrize(
    ("m", "n", "value", "digits"),
    [(784, 300, 0.79961, 5), (10**6, 10**6, 0.8380974, 6), (10, 10**8, 1 - 1 / math.e, 6), (4096, 4096, 0.838, 3)],
)
def test_limit_known_answers(m, n, value, digits):
    assert overlap_limit(m, n) == overlap_limit(n, m) == pytest.approx(value, abs=0.6 * 10**-digits)


def test_the_limit_for_a_square_layer_is_lamberts():
    """Where u = -W0(-2 e^-2) / 2 and X = 1 - u + u^2 (docs/theory/overlap.md, "Limit"), with k = 2m exactly."""
    m, u = 10**6, 0.2031879
    assert overlap_limit(m, m, 2 * m) * (2 * m - 1) / (2 * m) == pytest.approx(1 - u + u * u, abs=1e-7)


def test_the_limit_falls_with_the_aspect_ratio():
    values = [overlap_limit(10**7, n, 10**7 + n) for n in (10**7, 5 * 10**6, 10**6, 10**5, 10**4, 10**3)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("m", "n"), [(784, 300), (100, 100), (1, 50)])
def test_the_limit_at_and_below_criticality_is_a_forest(m, n):
    for k in (0, 1, math.isqrt(m * n)):
        assert overlap_limit(m, n, k) == k / (m + n - 1)


def test_the_limit_is_continuous_at_criticality_and_falls_behind_the_forest_above_it():
    behind = [k / 1999 - overlap_limit(1000, 1000, k) for k in range(1000, 1100, 10)]
    assert behind[0] == 0
    assert all(0 <= b < c < 1e-3 for b, c in itertools.pairwise(behind))


@given(shapes())
def test_the_limit_solves_its_equations_and_stays_in_range(shape):
    m, n, k = shape
    k = m + n - 1 if k is None else k
    u = v = 0.0
    for _ in range(2000):
        u, v = math.exp(-k / m * (1 - v)), math.exp(-k / n * (1 - u))
    iterated = (m + n - (m * u + n * v - k * u * v)) / (m + n - 1)
    assert 0 <= overlap_limit(m, n, k) <= 1
    assert overlap_limit(m, n, k) == pytest.approx(min(1, iterated), abs=1e-6)


def test_minimum_overlap_is_the_minimum_over_all_matrices():
    assert minimum_overlap(784, 300) == 65
    for m, n, k in small_layers():
        subsets = itertools.combinations(range(m * n), k)
        assert minimum_overlap(m, n, k) == min(m + n - n_components(m, n, s) for s in subsets), (m, n, k)


@given(shapes(largest=60))
def test_minimum_overlap_is_the_smallest_block(shape):
    m, n, k = shape
    k = m + n - 1 if k is None else k
    blocks = [a + b - 1 for a in range(1, m + 1) for b in range(1, n + 1) if a * b >= k]
    assert minimum_overlap(m, n, k) == (min(blocks) if k else 0)


def test_minimum_overlap_of_the_largest_layers_takes_no_search():
    assert minimum_overlap(2**40, 2**40, 2**80) == 2**41 - 1


def test_concentration_band():
    assert concentration_band(784, 300) == pytest.approx(0.059, abs=5e-4)
    assert str(concentration_band(5, 7, 0)) == str(concentration_band(5, 7, 35)) == "0.0"
    assert concentration_band(784, 300, confidence=0.5) < concentration_band(784, 300)


@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 4), (1, 5)])
def test_the_concentration_bound_holds_for_every_subset(m, n):
    """The share of subsets outside the band is at most 1 - confidence, and v is no smaller than the exact sum."""
    for k, confidence in itertools.product(range(1, m * n), (0.1, 0.5, 0.9)):
        band = concentration_band(m, n, k, confidence=confidence)
        exact_v = sum(((m * n - k) / (m * n - i)) ** 2 for i in range(1, k + 1))
        assert band >= math.sqrt(exact_v / 2 * math.log(2 / (1 - confidence))) / (m + n - 1) * (1 - 1e-12)
        centre = mean_overlap(m, n, k)
        overlaps = [(m + n - n_components(m, n, s)) / (m + n - 1) for s in itertools.combinations(range(m * n), k)]
        outside = sum(abs(x - centre) >= band for x in overlaps)
        assert outside <= (1 - confidence) * len(overlaps)


@pytest.mark.parametrize("bound", [star_bound, boruvka_bound, overlap_limit, minimum_overlap, concentration_band])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "'m' must be a positive integer, not 0"),
        ((3, 2.5), "'n' must be a positive integer, not 2.5"),
        ((3, 3, 10), "'k' must be an integer from 0 to 9, not 10"),
        ((3, 3, -1), "'k' must be an integer from 0 to 9, not -1"),
    ],
)
def test_bad_arguments(bound, arguments, message):
    with pytest.raises(ValueError, match=message):
        bound(*arguments)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, float("nan")])
def test_bad_confidence(confidence):
    with pytest.raises(ValueError, match=r"'confidence' must be a number in \(0, 1\)"):
        concentration_band(3, 3, confidence=confidence)


def test_the_band_of_a_support_is_that_of_its_cells():
    rng = np.random.default_rng(0)
    support = rng.random((40, 30)) < 0.1
    cells = int(support.sum())
    alpha = maximum_spanning_forest(support.astype(float)).alpha
    for k in (None, 30, cells):
        kept = alpha if k is None else k
        expected = math.sqrt(spread(cells, kept) / 2 * math.log(2 / 0.001)) / alpha
        assert concentration_band(40, 30, k, support=support) == pytest.approx(expected, rel=1e-12)
    assert concentration_band(40, 30, cells, support=support) == 0.0
    assert concentration_band(40, 30, 69, support=np.ones((40, 30))) == concentration_band(40, 30)


def test_overlaps_on_a_support_stay_in_its_band():
    support = np.random.default_rng(0).random((40, 30)) < 0.1
    band = concentration_band(40, 30, 60, support=support, confidence=0.9)
    alpha = maximum_spanning_forest(support.astype(float)).alpha
    counts = retained_counts(40, 30, 60, support=support, trials=2000, seed=3)
    overlaps = np.array(list(counts.elements())) / alpha
    assert np.mean(np.abs(overlaps - overlaps.mean()) >= band) <= 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support": np.ones((3, 4))}, r"'support' must be a matrix of shape \(4, 3\), not \(3, 4\)"),
        ({"support": np.zeros((4, 3))}, "'support' must be a matrix with at least one cell"),
        ({"support": np.eye(4, 3), "k": 4}, "'k' must be"),
    ],
)
def test_a_band_needs_a_support_of_the_layer(options, message):
    with pytest.raises(ValueError, match=message):
        concentration_band(4, 3, **options)
