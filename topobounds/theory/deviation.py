"""The standard deviation of the overlap of one layer about its expectation.

Setting as in `topobounds.theory.overlap`: exchangeable |w| without ties, R_k = |forest ∩ top-k|, X_k = R_k / alpha. The
derivation and what it lacks to be a proof are in docs/theory/deviation.md.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import integers
from topobounds._records import Record
from topobounds.layers.shape import Shape
from topobounds.theory.counting import MAX_STEPS, QUICK_STEPS, component_moments, variance_steps
from topobounds.theory.overlap import giant_share

# The limit formula is within about a tenth where both sides are at least LIMIT_LEAST_SIDE and k is from
# LIMIT_LEAST_RANK sqrt(m n) to _LIMIT_LARGEST_RANK alpha.
LIMIT_LEAST_SIDE = 50
LIMIT_LEAST_RANK = 1.2
_LIMIT_LARGEST_RANK = 2


@dataclass(frozen=True)
class Deviation(Record):
    """A standard deviation of the overlap, and where it comes from.

    Attributes
    ----------
    value : float
        Standard deviation of X_k = |forest ∩ top-k| / (m + n - 1).
    status : str
        ``"proved"`` (counted exactly), ``"limit"`` (the formula for large layers) or ``"sampled"``.
    """

    value: float
    status: Literal["proved", "limit", "sampled"]


def overlap_deviation(m: int, n: int, k: int | None = None) -> float:
    """Return the standard deviation of X_k, the overlap of the k largest weights with the maximum spanning forest.

    Counted exactly where that is quick (one side of up to about 10, squares up to about 20 x 20, and wherever X_k is
    not random). For large layers by the limit ::

        Var R_k ~ m u (1 - u) + n v (1 - v) + k u v - k (1 - x y)^2

    with x, y the shares of rows and columns in the giant component (see `overlap_limit`), u = 1 - x and v = 1 - y. At
    m = n and k = alpha it is 0.26438 / sqrt(alpha).

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    float
        At least 0. The limit is used for min(m, n) >= 50 and 1.2 sqrt(m n) <= k <= 2 alpha alone, and is there within
        about a tenth of the truth; `known_deviation` says which of the two it is.

    Raises
    ------
    ValueError
        If an argument is out of range, or neither way is good at this m, n and k: then simulate.

    See Also
    --------
    known_deviation : The same with its status, or None where it must be sampled.
    concentration_band : A rigorous band, about twice as wide as the deviation suggests.

    Notes
    -----
    docs/theory/deviation.md, "Limit" and "Exact value".

    Examples
    --------
    >>> f"{overlap_deviation(784, 300):.5f} {overlap_deviation(784, 10):.5f} {overlap_deviation(1, 9)}"
    '0.00832 0.01073 0.0'
    >>> overlap_deviation(30, 30)
    Traceback (most recent call last):
    ValueError: Arguments m=30, n=30, k=59 are too large to count exactly and outside min(m, n) >= 50, \
1.2 sqrt(m n) <= k <= 2 (m + n - 1), where the limit is good. simulate_overlap estimates the deviation.
    """
    m, n, k = Shape.checked(m, n, k)
    known = known_deviation(m, n, k)
    if known is None:
        raise ValueError(
            f"Arguments m={m}, n={n}, k={k} are too large to count exactly and outside "
            f"min(m, n) >= {LIMIT_LEAST_SIDE}, {LIMIT_LEAST_RANK} sqrt(m n) <= k <= {_LIMIT_LARGEST_RANK} (m + n - 1), "
            "where the limit is good. simulate_overlap estimates the deviation."
        )
    return known.value


def exact_overlap_variance(m: int, n: int, k: int | None = None) -> Fraction:
    r"""Return Var X_k, the variance of the overlap of the k largest weights with the maximum spanning forest, exactly.

    The graphs A on m rows and n columns, by their edges and components, are counted by ::

        sum_A q^kappa(A) x^|A| = sum_{L |- n} N_L q (q-1) ... (q-r+1) (sum_i (1 + x)^{L_i} + q - r)^m

    over the partitions L of n into r parts, N_L being the number of set partitions of type L. The first two derivatives
    at q = 1 give E[kappa] and E[kappa (kappa - 1)], and ``Var X_k = Var kappa / (m + n - 1)^2``.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1; the value is symmetric in them.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    Fraction
        For exchangeable |w| with almost surely distinct magnitudes; 0 where R_k is not random (k <= 3, k = m n, 1 x n).

    Raises
    ------
    ValueError
        If an argument is out of range, or the layer is too large to count.

    See Also
    --------
    overlap_deviation : Its square root, from the limit formula where layers are large.

    Notes
    -----
    docs/theory/deviation.md, "Exact value".

    Examples
    --------
    >>> exact_overlap_variance(3, 3), exact_overlap_variance(2, 2)
    (Fraction(9, 980), Fraction(0, 1))
    """
    return exact_overlap_variance_of(Shape.checked(m, n, k))


def exact_overlap_variance_of(shape: Shape) -> Fraction:
    """Return the `exact_overlap_variance` of a checked shape."""
    m, n, k = shape
    m, n = max(m, n), min(m, n)
    if n == 1:
        return Fraction(0)
    steps = variance_steps(m, n, k)
    if steps > MAX_STEPS:
        raise ValueError(
            f"Arguments m={m}, n={n}, k={k} are too large to count exactly: about {steps:.0e} steps, more than "
            f"{MAX_STEPS:.0e}. overlap_deviation has the limit for large layers, simulate_overlap estimates it."
        )
    first, second = component_moments(m, n, k)
    graphs = math.comb(m * n, k)
    mean = Fraction(first, graphs)
    return (Fraction(second, graphs) + mean - mean**2) / (m + n - 1) ** 2


def known_deviation(m: int, n: int, k: int | None = None) -> Deviation | None:
    """Return `overlap_deviation` with its status, or None where it must be sampled.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    Deviation or None
        ``"proved"`` or ``"limit"``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> known_deviation(1000, 1000).status, known_deviation(784, 10).status, known_deviation(30, 30)
    ('limit', 'proved', None)
    """
    return known_deviation_of(Shape.checked(m, n, k))


@lru_cache(maxsize=1024)
def known_deviation_of(shape: Shape) -> Deviation | None:
    """Return `known_deviation` of a checked shape."""
    m, n, k = shape
    # Not random: up to 3 edges close no cycle, for a bipartite one has at least 4; all m n weights hold the whole
    # forest; and the weights of a single row or column are their forest.
    if k <= 3 or k == m * n or min(m, n) == 1:
        return Deviation(0.0, "proved")
    if variance_steps(m, n, k) <= QUICK_STEPS:
        return Deviation(math.sqrt(exact_overlap_variance_of(shape)), "proved")
    if min(m, n) >= LIMIT_LEAST_SIDE and LIMIT_LEAST_RANK**2 * m * n <= k**2 and k <= _LIMIT_LARGEST_RANK * (m + n - 1):
        return Deviation(math.sqrt(overlap_covariance(m, n, k, k)), "limit")
    return None


def overlap_covariance(m: int, n: int, k: ArrayLike, k2: ArrayLike) -> NDArray[np.float64] | float:
    """Return the limit of the covariance of X_k and X_k2: how the overlaps at two k of one layer vary together.

    For k <= k2, with x, y, u, v at k as in `overlap_deviation` and x', y', u', v' at k2, ::

        Cov(R_k, R_k2) ~ m u' (1 - u) + n v' (1 - v) - k u' v' + k (u v' + v u') - k (1 - x y) (1 - x' y')

    and ``X_k = R_k / alpha``, alpha = m + n - 1. So for constants d_k, ``Var sum_k d_k X_k`` is the sum of
    ``d_j d_k Cov(X_j, X_k)``.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k, k2 : int or array_like of int
        Largest weights kept, each 0 to m n; broadcast against each other.

    Returns
    -------
    float or ndarray
        A float for two integers. An approximation for large layers, not a bound: within some hundredths at 300 x 100
        around alpha; below criticality, k^2 <= m n, it is 0; just above it is too small, and with k / (m n) it grows
        too large.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    docs/theory/deviation.md, "Two times".

    Examples
    --------
    >>> alpha = 399
    >>> f"{alpha**2 * overlap_covariance(300, 100, 250, 399):.2f}"
    '9.28'
    >>> overlap_covariance(300, 100, [[300], [399]], [300, 399]).shape
    (2, 2)
    """
    m, n, alpha = Shape.checked(m, n, None)
    earlier, later = np.sort(np.broadcast_arrays(_ranks("k", k, m * n), _ranks("k2", k2, m * n)), axis=0)
    u, v = _extinction(m, n, earlier)
    u2, v2 = _extinction(m, n, later)
    # Small components: of the rows, of the columns, and of the edges that both times share.
    counted = m * u2 * (1 - u) + n * v2 * (1 - v) + earlier * (u * v2 + v * u2 - u2 * v2)
    # The number of edges is fixed: 1 - x y = u + v - u v of the next edges join two components.
    fixed_edges = earlier * (u + v - u * v) * (u2 + v2 - u2 * v2)
    covariance = np.asarray((counted - fixed_edges) / alpha**2)
    return covariance if covariance.ndim else float(covariance)


def _ranks(name: str, k: ArrayLike, cells: int) -> NDArray[np.float64]:
    array = np.asarray(k)
    checked = integers(name, name, array.ravel().tolist(), 0, cells)
    return np.array(checked, dtype=np.float64).reshape(array.shape)


def _extinction(m: int, n: int, ks: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares u of the rows and v of the columns that are not in the giant component, at each k."""
    distinct, place = np.unique(ks, return_inverse=True)
    in_giant = np.array([giant_share(k / m, k / n) for k in distinct.tolist()])
    v = np.exp(-distinct / n * in_giant)
    u = np.exp(distinct / m * np.expm1(-distinct / n * in_giant))
    return u[place].reshape(ks.shape), v[place].reshape(ks.shape)
