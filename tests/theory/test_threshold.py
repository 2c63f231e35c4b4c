"""The law of the critical rank; known answers from shared/THEORY.md 4.8."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.theory.enumeration import connected_graphs
from topobounds.theory.threshold import connection_probability, critical_rank, critical_rank_quantile


def sampled_critical_ranks(m, n, trials, seed):
    rng = np.random.default_rng(seed)
    ranks = []
    for _ in range(trials):
        parent, left = list(range(m + n)), m + n
        for k, cell in enumerate(rng.permutation(m * n), 1):
            row, column = cell // n, m + cell % n
            while parent[row] != row:
                row = parent[row]
            while parent[column] != column:
                column = parent[column]
            left -= row != column
            parent[row] = column
            if left == 1:
                ranks.append(k)
                break
    return np.array(ranks)


@pytest.mark.parametrize(
    ("m", "n", "density", "eta_magnitude", "eta_tau"), [(784, 300, 0.0232, 43, 217), (300, 100, 0.0589, 17, 75)]
)
def test_known_answers(m, n, density, eta_magnitude, eta_tau):
    rank = critical_rank(m, n)
    assert rank.density == pytest.approx(density, abs=1.5e-4)
    assert (round(rank.eta_magnitude), round(rank.eta_tau)) == (eta_magnitude, eta_tau)
    assert rank.low < rank.median < rank.mean < rank.high


def test_the_law_of_a_middling_layer_is_what_is_sampled():
    ranks = sampled_critical_ranks(60, 40, 300, seed=5)
    rank = critical_rank(60, 40)
    error = ranks.std() / math.sqrt(len(ranks))
    assert abs(ranks.mean() - rank.mean) < 4 * error + 0.02 * rank.mean
    share = (ranks <= rank.median).mean()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(len(ranks))


def test_the_law_approaches_the_exact_probability():
    gaps = []
    for size in (6, 8, 10, 14):
        counts = connected_graphs(size, size)
        exact = [Fraction(c, math.comb(size * size, k)) for k, c in enumerate(counts)]
        gaps.append(max(abs(float(p) - connection_probability(size, size, k)) for k, p in enumerate(exact)))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.11


def test_edges():
    assert connection_probability(5, 4, 7) == 0
    assert connection_probability(5, 4, 17) == connection_probability(5, 4, 20) == 1
    assert connection_probability(5, 4, 16) == pytest.approx(math.exp(-5 / math.comb(20, 4)))  # no column can be empty
    assert critical_rank_quantile(5, 4, 0) == 8
    assert critical_rank_quantile(5, 4, 1) == 17
    tree = critical_rank(1, 9)
    assert (tree.low, tree.median, tree.high, tree.mean, tree.eta_magnitude) == (9, 9, 9, 9, 1)


def test_the_quantile_inverts_the_probability():
    for probability in (0.01, 0.5, 0.99):
        k = critical_rank_quantile(30, 20, probability)
        assert connection_probability(30, 20, k - 1) < probability <= connection_probability(30, 20, k)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: connection_probability(0, 3, 1), "'m'"),
        (lambda: connection_probability(3, 3, 10), "'k'"),
        (lambda: critical_rank_quantile(3, 3, 1.5), "'probability'"),
        (lambda: critical_rank(3, -1), "'n'"),
    ],
)
def test_bad_arguments(call, name):
    with pytest.raises(ValueError, match=f"Argument {name} must be"):
        call()
