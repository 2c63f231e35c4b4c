"""The permutation test: a p-value that is right, and a verdict that follows from it."""

from collections import Counter

import numpy as np
import pytest

from tests.verification.cases import blocked, exchangeable, verdicts
from topobounds.verification import verify
from topobounds.verification.judging import JudgingTerms, outcome_of_permutations
from topobounds.verification.permutation import PermutationTest

TERMS = JudgingTerms(None, 0.9, 0.0, None)


def a_test(observed, values):
    return PermutationTest(observed, 10, Counter(values))


def test_the_p_value_is_twice_the_smaller_share():
    test = a_test(3, [1, 2, 3, 3, 4, 5, 6, 7, 8])
    assert test.shuffles == 9
    assert test.as_extreme == 4
    assert test.p_value == 2 * 5 / 10
    assert a_test(0, range(1, 20)).p_value == 2 / 20
    assert a_test(5, [5] * 9).p_value == 1.0


def test_mean_deviation_and_z_are_those_of_the_values():
    values = [1, 4, 4, 7]
    test = a_test(7, values)
    assert test.mean == np.mean(values) / 10
    assert test.deviation == pytest.approx(np.std(values, ddof=1) / 10)
    assert test.z == pytest.approx((7 - np.mean(values)) / np.std(values, ddof=1))
    assert a_test(5, [5, 5]).z is None
    assert a_test(4, [5]).z is None


@pytest.mark.parametrize("error", [0.05, 0.1, 0.2, 0.5])
def test_what_is_accepted_is_what_has_a_larger_p_value(error):
    values = np.random.default_rng(1).binomial(10, 0.4, 59)
    low, high = a_test(0, values).accepted(error)
    for observed in range(11):
        assert (low <= observed / 10 <= high) == (a_test(observed, values).p_value > error)


def test_a_verdict_needs_enough_shuffles():
    few, many = range(1, 10), range(1, 30)
    assert outcome_of_permutations(a_test(0, few), "", TERMS).verdict == "undecided"
    assert outcome_of_permutations(a_test(0, many), "", TERMS).verdict == "violated"
    assert outcome_of_permutations(a_test(4, few), "", TERMS).verdict == "holds"
    assert "fewer than 19 shuffles" in outcome_of_permutations(a_test(0, few), "", TERMS).reason


def test_a_test_on_exchangeable_numbers_rejects_as_rarely_as_it_says():
    rng = np.random.default_rng(3)
    p_values = [a_test(int(x[0]), x[1:].tolist()).p_value for x in rng.binomial(40, 0.5, (4000, 60))]
    for error in (0.05, 0.1, 0.3):
        assert np.mean(np.array(p_values) <= error) <= error + 4 * np.sqrt(error / 4000)


def test_a_matrix_seven_deviations_away_does_not_hold():
    rng = np.random.default_rng(0)
    scales = np.exp(0.2 * rng.standard_normal((200, 1)))
    (verdict,) = verify(weights=scales * rng.standard_normal((200, 100)), claims=["exchangeable"], seed=1)
    assert -12 < verdict.z < -5
    assert verdict.verdict == "violated"
    assert verdict.p_value <= 0.001
    assert not verdict.bound[0] <= verdict.estimate <= verdict.bound[1]


def test_only_the_test_has_a_p_value():
    found = verdicts(weights=blocked(), trials=3000, claims=["exchangeable", "star_bound"])
    assert found["exchangeable"].p_value == 2 / 3001
    assert found["exchangeable"].z < -10
    assert found["star_bound"].z is found["star_bound"].p_value is None
    few = verdicts(weights=blocked(), trials=50, claims=["exchangeable"])["exchangeable"]
    assert few.verdict == "undecided"


def test_a_matrix_among_its_shuffles_is_spared_early():
    found = verdicts(weights=exchangeable(), claims=["exchangeable"])["exchangeable"]
    assert found.verdict == "holds"
    assert found.trials < 2000
