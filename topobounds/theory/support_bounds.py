"""Lower bounds on the overlap for supports that are given, or arbitrary: weights exchangeable on the support.

With M weights on the support, alpha edges in its maximum spanning forest and ``q_M(c) = C(M - c, k) / C(M, k)``, the
k largest weights are a uniformly random k-subset of the support. R_k is the number of them in the forest.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import bmat, csr_array
from scipy.sparse.csgraph import connected_components

from topobounds._arguments import argument_error, integer
from topobounds.weights import as_array, is_real


def support_bound(support: ArrayLike, k: int | None = None) -> float:
    """Return the Boruvka bound on E[R_k] / alpha for a given support, in time proportional to its cells.

    With d the number of cells of a row or column, ::

        E[R_k] >= sum_v (1 - q_M(d_v)) - sum_{(i,j) in support} (1 - q_M(d_i + d_j - 1)) / (d_i + d_j - 1)

    the expected number of edges that are the heaviest of their row or column among the k largest. On the full support
    it is `boruvka_bound`.

    Parameters
    ----------
    support : array_like of bool, shape (m, n)
        The cells that carry a weight; numbers count as True where they are not 0.
    k : int, optional
        Largest weights kept, 0 to M; alpha of the support's forest if left out.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If the support is no matrix of numbers, is empty or holds NaN, or `k` is out of range.

    See Also
    --------
    any_support_bound : For every support with M weights and a forest of alpha edges.

    Examples
    --------
    >>> import numpy as np
    >>> round(support_bound(np.ones((784, 300))), 4)
    0.6132
    """
    cells = _matrix(support)
    rows, columns = np.nonzero(cells)
    alpha = sum(cells.shape) - _n_components(cells)
    k = alpha if k is None else integer("k", k, 0, len(rows))
    row_sizes, column_sizes = cells.sum(axis=1), cells.sum(axis=0)
    stars = row_sizes[rows] + column_sizes[columns] - 1
    hit = _hits(len(rows), k, int(stars.max()))
    marked = hit[row_sizes].sum() + hit[column_sizes].sum()
    return float(min(1.0, (marked - (hit[stars] / stars).sum()) / alpha))


def any_support_bound(n_weights: int, alpha: int, k: int | None = None) -> float:
    """Return a lower bound on E[R_k] / alpha for every support with that many weights and that large a forest.

    ::

        E[R_k] >= max(k alpha / M, (1 - 1/e) min(k, 2 sqrt(M) - 1))

    The first because E[R_k] is concave in k, the second because the rank is submodular and a bipartite graph of rank r
    has at most (r + 1)^2 / 4 edges.

    Parameters
    ----------
    n_weights : int
        Weights M of the support, at least 1.
    alpha : int
        Edges of its forest, with 2 sqrt(M) - 1 <= alpha <= M.
    k : int, optional
        Largest weights kept, 0 to M; alpha if left out.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(any_support_bound(235200, 1083), 4)
    0.5656
    """
    n_weights = integer("n_weights", n_weights, 1)
    alpha = integer("alpha", alpha, math.isqrt(4 * n_weights - 1), n_weights)
    k = alpha if k is None else integer("k", k, 0, n_weights)
    spread_out = (1 - math.exp(-1)) * min(k, 2 * math.sqrt(n_weights) - 1)
    return min(1.0, max(k * alpha / n_weights, spread_out) / alpha)


def support_size(support: ArrayLike, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the cells of a support and the edges of its maximum spanning forest.

    Raises
    ------
    ValueError
        If the support is no matrix of numbers of this shape, is empty or holds NaN.

    Examples
    --------
    >>> support_size([[1, 1, 0], [0, 0, 1]], (2, 3))
    (3, 3)
    """
    cells = _matrix(support)
    if cells.shape != shape:
        raise argument_error("support", f"a matrix of shape {shape}", cells.shape)
    return int(np.count_nonzero(cells)), sum(shape) - _n_components(cells)


def _matrix(support: ArrayLike) -> NDArray[np.bool_]:
    cells = as_array("support", support)
    if cells.ndim != 2:
        raise argument_error("support", "a matrix", cells.shape)
    if cells.dtype != np.bool_ and not is_real(cells.dtype):
        raise argument_error("support", "a matrix of true and false, or of real numbers", f"one of {cells.dtype.name}")
    if (cells != cells).any():  # noqa: PLR0124 (NaN alone, of any type)
        raise argument_error("support", "without NaN, which is neither 0 nor another number", "a matrix with NaN")
    nonzero: NDArray[np.bool_] = cells != 0
    if not nonzero.any():
        raise argument_error("support", "a matrix with at least one cell that is not 0", f"{cells.shape} zeros")
    return nonzero


def _n_components(cells: NDArray[np.bool_]) -> int:
    block: Any = csr_array(cells)
    return int(connected_components(bmat([[None, block], [block.T, None]]), directed=False, return_labels=False))


def _hits(n_weights: int, k: int, largest: int) -> NDArray[np.float64]:
    """Return 1 - q_M(c) for c = 0, ..., largest."""
    left = n_weights - np.arange(largest)
    share_left = np.maximum(left - k, 0) / left
    with np.errstate(divide="ignore"):
        steps = np.where(2 * k <= left, np.log1p(-np.minimum(k / left, 0.5)), np.log(share_left))
    log_missed = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(-np.expm1(log_missed))
