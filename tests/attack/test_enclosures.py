"""What is called certified, proved or exact, against the truth in ball arithmetic: `tests.attack.enclosures`."""

import pytest
from flint import arb, ctx

from tests.attack import enclosures
from tests.attack.random_graphs import random_graphs
from tests.theory.enumeration import mean_rank
from topobounds.theory.enclosure import Enclosure


@pytest.mark.long
def test_fifty_points_hold_the_truth():
    found = enclosures.Findings()
    enclosures.check_quickly(found)
    assert found.wrong == []
    assert len(found.points) >= 50


@pytest.mark.attack
def test_five_hundred_points_hold_the_truth():
    found = enclosures.Findings()
    enclosures.check_everything(found)
    assert found.wrong == []
    assert len(found.points) >= 500


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 2), (3, 3), (2, 4)])
def test_the_truth_is_that_of_all_graphs(m, n):
    with ctx.workprec(enclosures.BITS):
        for k, graphs in random_graphs(m, n, range(m * n + 1)).items():
            components = m + n - enclosures.ball(mean_rank(m, n, k))
            assert abs(graphs.components - components) < 2.0**-60


def test_what_is_wrong_is_found():
    """An end beyond the truth by one unit in the last place, a bound above it, a fraction that is another."""
    found = enclosures.Findings()
    with ctx.workprec(enclosures.BITS):
        third = arb(1) / 3
        found.contains("low", Enclosure(0.0, 0.33333333333333326), third)
        found.contains("high", Enclosure(0.3333333333333334, 1.0), third)
        found.contains("nothing", Enclosure(0.0, 1.0), arb("nan"))
        found.equal("fraction", 0.25, third)
        assert [line.split()[0] for line in found.wrong] == ["low", "high", "nothing", "fraction"]
        found.contains("right", Enclosure(0.3333333333333333, 0.33333333333333337), third)
        assert len(found.wrong) == 4
