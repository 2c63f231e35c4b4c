"""The limit of the expected overlap for large layers, and how far the overlap of one layer strays from its mean.

Setting, in all of this module: W has m rows and n columns, N = m n, and its |w| are exchangeable with almost surely
distinct magnitudes. Then the k largest weights are a uniformly random set of k cells, G(m, n; k), and

    R_k = |forest ∩ top-k| = m + n - kappa(G(m, n; k)),     X_k = R_k / alpha,     alpha = m + n - 1,

with kappa the number of connected components, isolated vertices counted. ``q(c) = C(N - c, k) / C(N, k)`` is the
probability that c given cells are all empty.
"""

import math
from typing import TYPE_CHECKING

from topobounds._arguments import integer, real
from topobounds.layers.shape import Shape, checked_shape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def overlap_limit(m: int, n: int, k: int | None = None) -> float:
    """Return the limit of the expected overlap for large layers, evaluated at m, n and k.

    For min(m, n) -> infinity with k/m and k/n bounded, X_k -> (m x + n y + k (1 - x)(1 - y)) / alpha, where x and y
    are the shares of rows and columns in the giant component: the largest solution of ::

        x = 1 - exp(-(k / m) y),     y = 1 - exp(-(k / n) x).

    At and below criticality, k^2 <= m n, x = y = 0 and the value is k / alpha. At k = alpha it lies between
    1 - 1/e = 0.632 (m/n -> 0) and 0.8381 (m = n).

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    float
        In [0, 1]. An approximation, good to about 1 / min(m, n), not a bound; `expected_overlap` encloses the truth.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(overlap_limit(784, 300), 5)
    0.79961
    >>> round(overlap_limit(10**6, 10**6), 5)
    0.8381
    """
    return overlap_limit_of(checked_shape(m, n, k))


def overlap_limit_of(shape: Shape) -> float:
    """Return the `overlap_limit` of a checked shape."""
    m, n, k = shape
    x = giant_share(k / m, k / n)
    y = -math.expm1(-k / n * x)
    return min(1.0, (m * x + n * y + k * (1 - x) * (1 - y)) / shape.alpha)


def concentration_band(
    m: int, n: int, k: int | None = None, *, support: "ArrayLike | None" = None, confidence: float = 0.999
) -> float:
    """Return the half-width t of a band that X_k leaves with at most the probability 1 - confidence, for one layer.

    ::

        P(|X_k - E X_k| >= t) <= 2 exp(-2 alpha^2 t^2 / v),     v = sum_{i=1}^{k} ((N - k) / (N - i))^2

    N is m n or, of a layer with zeros or a mask, the number of cells of its support, and alpha that of its forest. One
    swapped cell changes the rank by at most 1, and the k cells are drawn without replacement. v is replaced by
    ``min(k, (N - k)^2 k / ((N - k - 1/2) (N - 1/2)))``, which is no smaller (1/x^2 is convex).

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to N; alpha if left out.
    support : array_like of bool, shape (m, n), optional
        The cells that carry a weight, among which the weights are exchangeable; all m n if left out.
    confidence : float
        In (0, 1).

    Returns
    -------
    float
        The half-width in units of X_k. 0 for k = 0 and k = N, where nothing is random.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(concentration_band(784, 300), 3)
    0.059
    >>> import numpy as np
    >>> round(concentration_band(784, 300, support=np.random.default_rng(0).random((784, 300)) < 0.01), 3)
    0.045
    """
    if support is None:
        shape = checked_shape(m, n, k)
        cells, alpha, k = m * n, shape.alpha, shape.k
    else:
        from topobounds.theory.support_bounds import support_size  # noqa: PLC0415 (loads scipy)

        cells, alpha = support_size(support, (m, n))
        k = alpha if k is None else integer("k", k, 0, cells)
    confidence = real("confidence", confidence, "a number in (0, 1)", math.ulp(0.0), math.nextafter(1.0, 0.0))
    return math.sqrt(spread(cells, k) / 2 * math.log(2 / (1 - confidence))) / alpha


def spread(cells: int, k: int) -> float:
    """Return v in P(f - E f >= t) <= exp(-2 t^2 / v), f a function of k random cells that a swap changes by <= 1."""
    left = cells - k
    return min(k, left**2 * k / ((left - 0.5) * (cells - 0.5))) if left else 0.0


def giant_share(a: float, b: float) -> float:
    """Return the largest root of x = g(x) = 1 - exp(-a (1 - exp(-b x))), which is 0 if a b <= 1.

    g is concave and g(0) = 0, so Newton's steps from x = 1, right of the root, fall monotonically onto it.
    """
    if a * b <= 1:
        return 0.0
    x, previous = 1.0, math.inf
    while x < previous:
        inner = math.exp(-b * x)
        outer = math.exp(a * math.expm1(-b * x))
        previous, x = x, x - (1 - outer - x) / (a * b * inner * outer - 1)
    return max(0.0, previous)
