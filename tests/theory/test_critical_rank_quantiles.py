"""The critical rank as single numbers: the upper ends of the certified law."""

import pytest

from topobounds import Enclosure, critical_rank_law
from topobounds.theory.critical_rank import connection_probability, critical_rank, critical_rank_quantile


@pytest.mark.parametrize(
    ("m", "n", "density", "eta_magnitude", "eta_tau"), [(784, 300, 0.0232, 43, 217), (300, 100, 0.0589, 17, 75)]
)
def test_known_answers(m, n, density, eta_magnitude, eta_tau):
    rank = critical_rank(m, n)
    assert rank.density == pytest.approx(density, abs=1.5e-4)
    assert (round(rank.eta_magnitude), round(rank.eta_tau)) == (eta_magnitude, eta_tau)
    assert rank.low < rank.median < rank.mean < rank.high


@pytest.mark.parametrize(("m", "n"), [(1, 9), (3, 4), (20, 20), (60, 40)])
def test_the_numbers_are_those_of_the_law(m, n):
    rank, law = critical_rank(m, n), critical_rank_law(m, n)
    assert (rank.low, rank.median, rank.high) == (law.low.upper, law.median.upper, law.high.upper)
    mean = (law.mean.lower + law.mean.upper) / 2 if isinstance(law.mean, Enclosure) else float(law.mean)
    assert rank.mean == mean


def test_the_quantile_is_the_first_rank_proved_to_reach_the_probability():
    for probability in (0.01, 0.5, 0.99):
        k = critical_rank_quantile(30, 20, probability)
        assert connection_probability(30, 20, k - 1).lower < probability <= connection_probability(30, 20, k).lower


@pytest.mark.parametrize(
    ("call", "name"),
    [(lambda: critical_rank_quantile(3, 3, 1.5), "'probability'"), (lambda: critical_rank(3, -1), "'n'")],
)
def test_bad_arguments(call, name):
    with pytest.raises(ValueError, match=f"Argument {name} must be"):
        call()
