"""Tests that find rare errors by their number: a share of the cases in every run, all of them by ``make attack``."""

import pytest


def seeds(always, under_attack):
    """Return the seeds of a parametrised test: the first few always run, the others by ``make attack`` alone."""
    return [*range(always), *(pytest.param(seed, marks=pytest.mark.attack) for seed in range(always, under_attack))]
