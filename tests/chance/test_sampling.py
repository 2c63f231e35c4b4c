"""Random orders of supports and kernels: against every order of small ones, and whatever the threads."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from tests.theory.random_orders import forest_rank_law
from topobounds import Conv, critical_kernel_weights, maximum_spanning_forest
from topobounds.chance import sampling
from topobounds.chance.sampling import live_taps, sample_kernels, sample_supports

SUPPORTS = {
    "full": np.ones((3, 3), bool),
    "one row": np.ones((1, 6), bool),
    "a path": np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], bool),
    "disconnected": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool),
    "with a lone row and column": np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool),
    "one cell": np.array([[0, 0], [0, 1]], bool),
    "few of many": np.eye(9, dtype=bool) | np.eye(9, k=1, dtype=bool)[:, ::-1],
}
SUPPORTS["few of many"][:, 4:] = False


def cells_of(present):
    return [tuple(cell) for cell in np.argwhere(present).tolist()]


@cache
def law_of(name):
    return forest_rank_law(cells_of(SUPPORTS[name]), *SUPPORTS[name].shape)


def sampled_ranks(present, alpha, trials, seed=0):
    """Return how often each ranks of the forest's edges were drawn."""
    kept = []

    def statistic(ranks):
        kept.append(ranks.copy())
        return np.zeros(len(ranks))

    sample_supports(present, alpha, statistic, trials, seed)
    found, counts = np.unique(np.concatenate(kept), axis=0, return_counts=True)
    return Counter(dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True)))


@pytest.mark.parametrize("drawn_per_vertex", [0, 1, 6])
@pytest.mark.parametrize("few_of", [0, 8, 10**9], ids=["listed", "by share", "looked up"])
@pytest.mark.parametrize("name", SUPPORTS)
def test_the_ranks_have_the_law_of_all_orders(name, few_of, drawn_per_vertex, monkeypatch):
    monkeypatch.setattr(sampling, "_FEW_OF", few_of)
    monkeypatch.setattr(sampling, "_DRAWN_PER_VERTEX", drawn_per_vertex)
    law = law_of(name)
    trials = 20_000
    kept = sampled_ranks(SUPPORTS[name], len(next(iter(law))), trials)
    assert kept.total() == trials
    assert set(kept) <= set(law)
    for ranks, count in law.items():
        share = count / law.total()
        allowed = 5 * math.sqrt(share * (1 - share) / trials)
        assert abs(kept[ranks] / trials - share) <= allowed, ranks


def test_the_law_of_a_larger_support_does_not_depend_on_how_it_is_drawn(monkeypatch):
    rng = np.random.default_rng(0)
    present = rng.random((60, 40)) < 0.1
    present[7] = False
    alpha = maximum_spanning_forest(present).alpha
    means = []
    for few_of, drawn_per_vertex in itertools.product([0, 10**9], [0, 2, 6]):
        monkeypatch.setattr(sampling, "_FEW_OF", few_of)
        monkeypatch.setattr(sampling, "_DRAWN_PER_VERTEX", drawn_per_vertex)
        sample = sample_supports(present, alpha, lambda ranks: (ranks <= 80).mean(axis=1), 4000, few_of + 1)
        means.append((sample.mean, sample.standard_error))
    mean, error = means[0]
    assert 0.5 < mean < 0.9
    assert all(abs(other - mean) < 5 * math.hypot(error, e) for other, e in means)


def test_a_trial_depends_on_the_seed_and_its_number_alone(monkeypatch):
    present = SUPPORTS["disconnected"]

    def statistic(ranks):
        return ranks.sum(axis=1).astype(float)

    whole = sample_supports(present, 6, statistic, 200, 3).values
    assert np.array_equal(sample_supports(present, 6, statistic, 50, 3).values, whole[:50])
    assert not np.array_equal(sample_supports(present, 6, statistic, 200, 4).values, whole)
    monkeypatch.setattr(sampling, "processors", lambda: 1)
    assert np.array_equal(sample_supports(present, 6, statistic, 200, 3).values, whole)
    monkeypatch.setattr(sampling, "RANKS_AT_A_TIME", 1)
    assert np.array_equal(sample_supports(present, 6, statistic, 200, 3).values, whole)


def test_a_support_too_large_to_number_is_refused():
    present = np.broadcast_to(np.ones(1, bool), (2**16, 2**16))
    with pytest.raises(ValueError, match="must be a layer of fewer than 2\\^32 cells, to be sampled"):
        sample_supports(present, 1, lambda ranks: ranks[:, 0].astype(float), 2, 0)


KERNELS = {
    "one channel": Conv(1, 1, (2, 2), (3, 3)),
    "two channels": Conv(2, 1, (3,), (3,), padding=1),
    "a padded map of one cell": Conv(1, 2, (3,), (1,), padding=1),
    "transposed": Conv(1, 2, (2,), (3,), stride=2, transposed=True),
}


@pytest.mark.parametrize("conv", KERNELS.values(), ids=KERNELS)
def test_kernels_have_the_law_of_all_orders(conv):
    size = math.prod(conv.weight_shape)
    merged = []
    for order in itertools.permutations(range(1, size + 1)):
        critical = critical_kernel_weights(np.reshape(order, conv.weight_shape).astype(float), conv)
        merged.append(sum((size + 1 - w) * merges for w, merges in zip(critical.weights, critical.merges, strict=True)))
    sample = sample_kernels(conv, np.ones(conv.weight_shape, bool), lambda r, merges: float(r @ merges), 2000, 5)
    assert set(sample.values) <= set(merged)
    assert abs(sample.mean - np.mean(merged)) <= 5 * np.std(merged) / math.sqrt(2000)
    assert sample.deviation == pytest.approx(np.std(merged), rel=0.15)


def test_taps_that_read_only_padding_are_not_live():
    taps = live_taps(Conv(1, 2, (3, 3), (1, 5), padding=1))
    assert taps.shape == (2, 1, 3, 3)
    assert taps[0, 0].tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert live_taps(Conv(3, 4, (3, 3), (8, 8), padding=1)).all()


def test_equal_values_have_no_deviation():
    values = np.full(7, Fraction(1, 10), float)
    sample = sampling.Sample(values, 0)
    assert (sample.mean, sample.deviation, sample.standard_error) == (0.1, 0.0, 0.0)
