"""Confidence intervals that may be looked at after every batch."""

import math

import numpy as np
import pytest

from topobounds.verification.batches import Batch, batch_sizes
from topobounds.verification.sequential import MAX_STAKE, MeanInterval, share_interval


def test_the_inequality_of_the_proof():
    x = np.linspace(-1, 20, 2001)
    for stake in np.linspace(0, MAX_STAKE, 16):
        psi = -math.log1p(-stake) - stake
        assert (np.exp(stake * x - x**2 * psi) <= 1 + stake * x + 1e-12).all()


def looks(draw, budget=512, confidence=0.9):
    """Yield the interval and the naive 90% interval after every batch of one run."""
    interval = MeanInterval(confidence)
    for size in batch_sizes(budget):
        interval.add(Batch.of(draw(size)))
        naive = 1.645 * interval.standard_error
        yield interval.ends, (interval.seen.mean - naive, interval.seen.mean + naive)


LAWS = {
    "coin": (0.5, lambda rng: lambda size: rng.random(size) < 0.5),
    "rare": (0.05, lambda rng: lambda size: rng.random(size) < 0.05),
    "uniform": (0.5, lambda rng: rng.random),
    "narrow": (0.8, lambda rng: lambda size: 0.8 + 0.02 * (rng.random(size) - 0.5)),
}


@pytest.mark.parametrize("law", LAWS)
def test_looking_at_every_batch_keeps_the_confidence(law):
    mean, of = LAWS[law]
    rng = np.random.default_rng(0)
    runs, ours, naive = 400, 0, 0
    for _ in range(runs):
        seen = list(looks(of(rng)))
        ours += any(not low <= mean <= high for (low, high), _ in seen)
        naive += any(not low <= mean <= high for _, (low, high) in seen)
    assert ours <= 0.1 * runs
    assert naive > 0.25 * runs  # which a fixed-size interval does not


def test_the_interval_closes_in():
    rng = np.random.default_rng(1)
    widths = [high - low for (low, high), _ in looks(LAWS["narrow"][1](rng), 4096, 0.999)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.005


def test_batches_add_up():
    rng = np.random.default_rng(2)
    values = rng.random(50)
    whole, parts = Batch.of(values), Batch.of(values[:20]) + Batch.of(values[20:21]) + Batch.of(values[21:])
    assert (whole.count, whole.mean, whole.squares) == pytest.approx((parts.count, parts.mean, parts.squares))
    assert sum(batch_sizes(1000)) == 1000
    assert list(batch_sizes(3)) == [3]
    assert MeanInterval(0.9).ends == (0.0, 1.0)


def test_a_share_of_successes():
    rng = np.random.default_rng(3)
    for p in (0.5, 0.97):
        missed = 0
        for _ in range(2000):
            first = int(rng.geometric(1 - p))
            failed = first <= 100
            low, high = share_interval(min(first, 100), failed=failed, confidence=0.9)
            missed += not low <= p <= high
        assert missed <= 0.1 * 2000
    assert share_interval(1, failed=True, confidence=0.9) == (0.0, 0.95)
