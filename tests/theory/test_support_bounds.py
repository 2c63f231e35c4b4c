"""Bounds for given and for arbitrary supports; known answers from docs/theory/supports.md."""

import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.enumeration import n_components
from topobounds.theory.bounds import boruvka_bound, corollary_3_4_repaired
from topobounds.theory.overlap import concentration_band
from topobounds.theory.paper import corollary_3_4
from topobounds.theory.support_bounds import any_support_bound, support_bound


def rank(m, n, cells):
    return m + n - n_components(m, n, cells)


def mean_rank_of_subsets(m, n, cells, k):
    ranks = [rank(m, n, subset) for subset in itertools.combinations(cells, k)]
    return Fraction(sum(ranks), len(ranks))


def star_support(m, n, density, seed=0):
    """Row 0 and column 0, the rest uniformly random."""
    cells = np.zeros((m, n), dtype=bool)
    cells[0], cells[:, 0] = True, True
    others = np.flatnonzero(~cells)
    count = round(density * m * n) - cells.sum()
    cells.flat[np.random.default_rng(seed).choice(others, count, replace=False)] = True
    return cells


@pytest.mark.parametrize(("density", "value"), [(0.1, 0.613), (0.01, 0.652)])
def test_star_supports(density, value):
    assert support_bound(star_support(784, 300, density)) == pytest.approx(value, abs=3e-3)


def test_a_dense_block_and_a_thin_tree():
    """300x300 at density 0.099: bound 0.276, sampled 0.353, where Corollary 3.4 says 1."""
    cells = np.zeros((300, 300), dtype=bool)
    cells[0], cells[:, 0], cells[:92, :92] = True, True, True
    assert cells.mean() == pytest.approx(0.099, abs=1e-3)
    assert support_bound(cells) == pytest.approx(0.276, abs=5e-3)
    assert corollary_3_4(300, 300, float(cells.mean())).value == 1
    assert any_support_bound(int(cells.sum()), 599) < support_bound(cells)


@pytest.mark.parametrize(("m", "n", "k"), [(784, 300, None), (20, 50, 7), (5, 3, 15), (1, 6, 2), (4, 4, 0)])
def test_on_the_full_support_it_is_the_boruvka_bound(m, n, k):
    assert support_bound(np.ones((m, n)), k) == pytest.approx(boruvka_bound(m, n, k), rel=1e-12, abs=1e-15)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=80, deadline=None)
def test_below_the_truth_on_every_small_support(m, n, data):
    cells = data.draw(st.lists(st.integers(0, m * n - 1), min_size=1, max_size=9, unique=True))
    alpha = rank(m, n, cells)
    mask = np.zeros(m * n)
    mask[cells] = 1
    k = data.draw(st.integers(0, len(cells)))
    truth = mean_rank_of_subsets(m, n, cells, k) / alpha
    assert support_bound(mask.reshape(m, n), k) <= truth * (1 + Fraction(1, 10**12))
    assert any_support_bound(len(cells), alpha, k) <= truth * (1 + Fraction(1, 10**12))
    truth_at_alpha = mean_rank_of_subsets(m, n, cells, alpha) / alpha
    assert support_bound(mask.reshape(m, n)) <= truth_at_alpha * (1 + Fraction(1, 10**12))


@pytest.mark.parametrize("m_n", [(2, 3), (3, 3), (4, 2)])
def test_the_worst_case_bound_on_every_support(m_n):
    m, n = m_n
    for size in range(1, m * n + 1):
        for cells in itertools.combinations(range(m * n), size):
            alpha = rank(m, n, cells)
            truth = mean_rank_of_subsets(m, n, cells, alpha) / alpha
            assert any_support_bound(size, alpha) <= truth * (1 + Fraction(1, 10**12))


def test_the_worst_case_bound_is_no_weaker_than_a_simpler_one():
    """A simpler bound is max(alpha / M, (1 - 1/e) min(1/2, sqrt(M) / alpha))."""
    for weights, alpha in [(1083, 1083), (5000, 1083), (235200, 1083), (9, 5), (1, 1), (8000, 599)]:
        theirs = max(alpha / weights, (1 - math.exp(-1)) * min(0.5, math.sqrt(weights) / alpha))
        assert any_support_bound(weights, alpha) >= theirs * (1 - 1e-15)
    assert any_support_bound(100 * 100, 199) == pytest.approx(1 - math.exp(-1))
    assert any_support_bound(7, 7) == 1


@pytest.mark.parametrize("density", [0.05, 0.1, 0.15, 0.5, 1])
def test_corollary_3_4_repaired_does_not_depend_on_the_density_of_a_large_support(density):
    assert corollary_3_4_repaired(784, 300, density) == boruvka_bound(784, 300)


@pytest.mark.parametrize(("m", "n"), [(2, 3), (3, 3), (1, 4)])
def test_corollary_3_4_repaired_holds_in_both_readings(m, n):
    alpha = m + n - 1
    for size in range(1, m * n + 1):
        supports = list(itertools.combinations(range(m * n), size))
        bound = corollary_3_4_repaired(m, n, size / (m * n)) * (1 - 1e-14)
        own = [mean_rank_of_subsets(m, n, s, rank(m, n, s)) / rank(m, n, s) for s in supports]
        assert sum(own) / len(own) >= bound
        if size >= alpha:
            whole = [mean_rank_of_subsets(m, n, s, alpha) / alpha for s in supports]
            assert sum(whole) / len(whole) >= bound


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float64, ml_dtypes.bfloat16])
def test_numbers_of_any_type_are_cells_where_they_are_not_0(dtype):
    cells = np.array([[1, 0, 1], [1, 1, 0]])
    assert support_bound(cells.astype(dtype)) == support_bound(cells != 0)
    assert support_bound([[math.inf, 0], [1, -1]]) == support_bound([[1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: support_bound(np.ones(4)), r"'support' must be a matrix, not \(4,\)"),
        (lambda: support_bound(np.zeros((3, 4))), "'support' must be a matrix with at least one cell"),
        (lambda: support_bound(np.zeros((0, 4))), "'support' must be a matrix with at least one cell"),
        (lambda: support_bound([[1.0, math.nan]]), "'support' must be without NaN"),
        (lambda: support_bound(np.array([[1, math.nan]], ml_dtypes.bfloat16)), "'support' must be without NaN"),
        (lambda: support_bound([["a", ""]]), "'support' must be a matrix of true and false, or of real numbers, not"),
        (lambda: support_bound(np.array([[1, "a"]], object)), "'support' must be a matrix of true and false"),
        (lambda: support_bound(np.ones((2, 2)) * 1j), "or of real numbers, not 'one of complex128'"),
        (lambda: concentration_band(1, 2, support=[[math.nan, 1.0]]), "'support' must be without NaN"),
        (lambda: support_bound(np.eye(3), 4), "'k' must be an integer from 0 to 3"),
        (lambda: any_support_bound(0, 1), "'n_weights' must be a positive integer"),
        (lambda: any_support_bound(10, 4), "'alpha' must be an integer from 6 to 10"),
        (lambda: any_support_bound(10, 11), "'alpha' must be an integer from 6 to 10"),
        (lambda: any_support_bound(10, 8, 11), "'k' must be an integer from 0 to 10"),
        (lambda: corollary_3_4_repaired(3, 3, 0.01), "'density' must be at least one of the 9 cells"),
        (lambda: corollary_3_4_repaired(3, 3, 0), "'density' must be a number in"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
