"""Closed forms for the overlap of a layer's k largest weights with its maximum spanning forest.

Setting, in all of this module: W has m rows and n columns, N = m n, and its |w| are exchangeable with almost surely
distinct magnitudes. Then the k largest weights are a uniformly random set of k cells, G(m, n; k), and

    R_k = |forest ∩ top-k| = m + n - kappa(G(m, n; k)),     X_k = R_k / alpha,     alpha = m + n - 1,

with kappa the number of connected components, isolated vertices counted. ``q(c) = C(N - c, k) / C(N, k)`` is the
probability that c given cells are all empty.
"""

import math

from topobounds._arguments import argument_error, density_fraction, integer, real
from topobounds.layers import cells_at_density

__all__ = [
    "boruvka_bound",
    "concentration_band",
    "corollary_3_4_repaired",
    "minimum_overlap",
    "overlap_limit",
    "star_bound",
]


def star_bound(m: int, n: int, k: int | None = None) -> float:
    """Return the star bound, a lower bound on the expected overlap: one edge for every non-isolated vertex of a side.

    ::

        E[X_k] >= max(n (1 - q(m)), m (1 - q(n))) / alpha

    Keeping one edge of every non-empty column gives a forest of stars, so R_k is at least the number of non-empty
    columns, and likewise of rows.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    float
        In [0, 1]; 0 for k = 0; k / alpha, which is exact, if m or n is 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    boruvka_bound : Larger.

    Examples
    --------
    >>> round(star_bound(784, 300), 4)
    0.5428
    """
    m, n, k = checked_shape(m, n, k)
    if min(m, n) == 1:
        return k / (m * n)
    return max(n * _hit(m * n, k, m), m * _hit(m * n, k, n)) / (m + n - 1)


def boruvka_bound(m: int, n: int, k: int | None = None) -> float:
    """Return the Boruvka bound, a lower bound on the expected overlap: what Boruvka's first round finds.

    ::

        E[X_k] >= (m (1 - q(n)) + n (1 - q(m)) - N / alpha * (1 - q(alpha))) / alpha

    Every vertex marks its heaviest edge in the top k; the marked edges lie in the forest, and an edge marked twice is
    the heaviest of its row and of its column. At k = alpha the value is above 0.609 for all m, n.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    float
        In [0, 1]; 0 for k = 0; k / alpha, which is exact, if m or n is 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(boruvka_bound(784, 300), 4)
    0.6132
    """
    m, n, k = checked_shape(m, n, k)
    if min(m, n) == 1:
        return k / (m * n)
    cells, alpha = m * n, m + n - 1
    marked_twice = cells / alpha * _hit(cells, k, alpha)
    return min(1.0, (m * _hit(cells, k, n) + n * _hit(cells, k, m) - marked_twice) / alpha)


def corollary_3_4_repaired(m: int, n: int, density: float) -> float:
    """Return a lower bound on the expected overlap that holds at every density: Corollary 3.4, repaired.

    For a uniformly random support of M = p m n cells, rounded, connected or not, and weights exchangeable on it, ::

        E[X] >= B(alpha)    for M >= alpha = m + n - 1,        E[X] >= B(M) alpha / M    for M < alpha

    where B(k) = `boruvka_bound` (m, n, k). X is read either way: the k = alpha largest weights against
    alpha, or the k = alpha' largest against the alpha' edges of the support's own forest (for M < alpha, only so).
    Supports that are not uniformly random can do much worse: see `topobounds.theory.supports`.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    density : float
        p in (0, 1], with at least one cell.

    Returns
    -------
    float
        In [0, 1]; above 0.609, and independent of the density once M >= alpha.

    Raises
    ------
    ValueError
        If an argument is out of range, or the support is empty.

    Examples
    --------
    >>> round(corollary_3_4_repaired(784, 300, 0.1), 4)
    0.6132
    """
    m, n, _ = checked_shape(m, n, None)
    density_fraction("density", density)
    cells, alpha = cells_at_density(m, n, density), m + n - 1
    if not cells:
        raise argument_error("density", f"at least one of the {m * n} cells", density)
    kept = min(cells, alpha)
    return min(1.0, boruvka_bound(m, n, kept) * alpha / kept)


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
    m, n, k = checked_shape(m, n, k)
    x = _giant_share(k / m, k / n)
    y = -math.expm1(-k / n * x)
    return min(1.0, (m * x + n * y + k * (1 - x) * (1 - y)) / (m + n - 1))


def minimum_overlap(m: int, n: int, k: int | None = None) -> int:
    """Return the least ``|forest ∩ top-k|`` that any m x n matrix of non-zero weights has, whatever their law.

    k edges on a rows and b columns need a b >= k, and a connected graph on them has rank a + b - 1; spreading the
    edges over several components only raises the rank. Sharp: fill an a x b block first.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    int
        ``min(a + b - 1 : a <= m, b <= n, a b >= k)``; 0 for k = 0.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> minimum_overlap(784, 300)
    65
    """
    m, n, k = checked_shape(m, n, k)
    # a + ceil(k / a) does not rise up to a = floor(sqrt(k)), nor fall from there on: the squarest block is best.
    side = min(m, n, math.isqrt(k))
    return side + -(-k // side) - 1 if k else 0


def concentration_band(m: int, n: int, k: int | None = None, *, confidence: float = 0.999) -> float:
    """Return the half-width t of a band that X_k leaves with at most the probability 1 - confidence, for one layer.

    ::

        P(|X_k - E X_k| >= t) <= 2 exp(-2 alpha^2 t^2 / v),     v = sum_{i=1}^{k} ((N - k) / (N - i))^2

    One swapped cell changes the rank by at most 1, and the k cells are drawn without replacement. v is replaced by
    ``min(k, (N - k)^2 k / ((N - k - 1/2) (N - 1/2)))``, which is no smaller (1/x^2 is convex).

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.
    confidence : float
        In (0, 1).

    Returns
    -------
    float
        The half-width in units of X_k. 0 for k = 0 and k = m n, where nothing is random.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(concentration_band(784, 300), 3)
    0.059
    """
    m, n, k = checked_shape(m, n, k)
    confidence = real("confidence", confidence, "a number in (0, 1)", math.ulp(0.0), math.nextafter(1.0, 0.0))
    return math.sqrt(spread(m * n, k) / 2 * math.log(2 / (1 - confidence))) / (m + n - 1)


def spread(cells: int, k: int) -> float:
    """Return v in P(f - E f >= t) <= exp(-2 t^2 / v), f a function of k random cells that a swap changes by <= 1."""
    left = cells - k
    return min(k, left**2 * k / ((left - 0.5) * (cells - 0.5))) if left else 0.0


def checked_shape(m: int, n: int, k: int | None) -> tuple[int, int, int]:
    """Return m, n and k as integers, with k = m + n - 1 for None.

    Raises
    ------
    ValueError
        If m or n is no positive integer, or k is no integer from 0 to m n.
    """
    m, n = integer("m", m, 1), integer("n", n, 1)
    return m, n, m + n - 1 if k is None else integer("k", k, 0, m * n)


def _hit(cells: int, k: int, c: int) -> float:
    """Return 1 - q(c), the probability that k random cells out of `cells` hit a given set of c cells."""
    if c + k > cells:
        return 1.0
    few, many = sorted((c, k))
    return 0.0 - math.expm1(math.fsum(_log_complement(many, cells - i) for i in range(few)))  # never -0.0


def _log_complement(part: int, whole: int) -> float:
    """Return log(1 - part / whole), to the last digits on both sides."""
    return math.log1p(-part / whole) if 2 * part <= whole else math.log((whole - part) / whole)


def _giant_share(a: float, b: float) -> float:
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
