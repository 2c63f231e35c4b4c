"""The expected overlap of tied layers: every arrangement of small multisets, and every rule for ties."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.theory.enumeration import mean_overlap, n_components
from topobounds import expected_overlap, magnitude_overlap
from topobounds.theory.ties import tie_counts, tied_expected_overlap


def mean_overlap_of_arrangements(m, n, values, k, rule):
    """E[X_k] over every arrangement of the values, ties in the order of the rule among the cells."""
    retained = []
    for arrangement in set(itertools.permutations(values)):
        cells = sorted(range(m * n), key=lambda cell: (-arrangement[cell], rule.index(cell)))
        retained.append(m + n - n_components(m, n, cells[:k]))
    return Fraction(sum(retained), len(retained) * (m + n - 1))


def best_and_worst(m, n, values, k):
    """E[X_k] if, in every arrangement, ties are broken to keep most or least."""
    most, least = [], []
    for arrangement in set(itertools.permutations(values)):
        tied = sorted(values, reverse=True)[k - 1]
        above = [cell for cell in range(m * n) if arrangement[cell] > tied]
        equal = [cell for cell in range(m * n) if arrangement[cell] == tied]
        ranks = [m + n - n_components(m, n, above + list(c)) for c in itertools.combinations(equal, k - len(above))]
        most.append(max(ranks))
        least.append(min(ranks))
    share = len(most) * (m + n - 1)
    return Fraction(sum(least), share), Fraction(sum(most), share)


@pytest.mark.parametrize(
    ("m", "n", "values"), [(2, 3, (2, 2, 2, 1, 1, 1)), (2, 3, (3, 2, 2, 2, 2, 1)), (2, 4, (3, 3, 2, 2, 2, 2, 1, 1))]
)
def test_every_rule_stays_in_the_interval(m, n, values):
    for k in range(1, m * n + 1):
        above, at_least = tie_counts(values, k)
        interval = tied_expected_overlap(m, n, above, at_least)
        assert mean_overlap(m, n, above) <= mean_overlap(m, n, at_least)
        for rule in (list(range(m * n)), list(range(m * n))[::-1]):
            assert mean_overlap_of_arrangements(m, n, values, k, rule) in interval, k
        worst, best = best_and_worst(m, n, values, k)
        assert worst in interval, k
        assert best in interval, k


def test_the_known_interval_of_int8_weights():
    weights = np.random.default_rng(0).normal(size=(784, 300))
    codes = np.round(weights / (np.abs(weights).max() / 127)).astype(np.int8)
    above, at_least = tie_counts(np.abs(codes), 1083)
    assert (above, at_least) == (1080, 1202)
    interval = tied_expected_overlap(784, 300, above, at_least)
    assert (round(interval.lower, 4), round(interval.upper, 4)) == (0.7987, 0.8323)
    overlaps = magnitude_overlap(codes), magnitude_overlap(codes.T)
    assert [round(overlap, 4) for overlap in overlaps] == [0.8024, 0.8015]
    assert all(overlap in interval for overlap in overlaps)


def test_ternary_weights_are_within_an_interval_that_says_little():
    ternary = np.random.default_rng(0).integers(-1, 2, (784, 300))
    interval = tied_expected_overlap(784, 300, *tie_counts(np.abs(ternary), 1083))
    assert (interval.lower, interval.upper) == (0, 1)
    assert magnitude_overlap(ternary) in interval


def test_without_ties_it_is_the_expected_overlap_to_one_weight():
    magnitudes = np.random.default_rng(1).random(30 * 40)
    above, at_least = tie_counts(magnitudes, 69)
    assert (above, at_least) == (68, 69)
    interval = tied_expected_overlap(30, 40, above, at_least)
    assert interval.upper == expected_overlap(30, 40).upper
    assert interval.lower == expected_overlap(30, 40, 68).lower


def test_counts_of_ties():
    assert tie_counts([[3, 2], [2, 1]], 2) == tie_counts([[3, 2], [2, 1]], 3) == (1, 3)
    assert tie_counts(np.zeros(5), 2) == (0, 5)
    assert tie_counts([math.inf, 1.0], 1) == (0, 1)


def test_edges():
    assert tied_expected_overlap(3, 3, 0, 9).lower == 0
    assert tied_expected_overlap(3, 3, 0, 9).upper == 1
    assert tied_expected_overlap(1, 1, 1, 1).lower == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tied_expected_overlap(0, 3, 0, 1), "'m' must be"),
        (lambda: tied_expected_overlap(3, 3, 10, 10), "'above' must be an integer from 0 to 9"),
        (lambda: tied_expected_overlap(3, 3, 5, 4), "'at_least' must be an integer from 5 to 9"),
        (lambda: tie_counts([1, 2], 0), "'k' must be an integer from 1 to 2"),
        (lambda: tie_counts([1, -2], 1), "'magnitudes' must be numbers from 0 on"),
        (lambda: tie_counts([1, math.nan], 1), "'magnitudes' must be numbers from 0 on"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
