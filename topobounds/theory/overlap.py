"""Closed forms for the overlap of a layer's k largest weights with its maximum spanning forest.

Setting, in all of this module: W has m rows and n columns, N = m n, and its |w| are exchangeable with almost surely
distinct magnitudes. Then the k largest weights are a uniformly random set of k cells, G(m, n; k), and

    R_k = |forest ∩ top-k| = m + n - kappa(G(m, n; k)),     X_k = R_k / alpha,     alpha = m + n - 1,

with kappa the number of connected components, isolated vertices counted. ``q(c) = C(N - c, k) / C(N, k)`` is the
probability that c given cells are all empty.
"""

import math
from fractions import Fraction

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

LARGEST_SIDE = 2**63 - 1  # beyond, nothing is a layer, and powers of its size overflow a double
MOST_EXACT = 64  # factors of a probability that are multiplied as integers,
MOST_SUMMED = 2**16  # and one by one, by their logarithms
ROUNDING = 2.0**-47  # of the terms of a bound; see `star_bound`


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
        In [0, 1], rounded down: never above the number it stands for, and at most 2^-46 of it below (where k or alpha
        is at most 64, the largest float not above). 0 for k = 0; k / alpha, the expectation itself, if m or n is 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or m or n beyond 2^63 - 1.

    See Also
    --------
    boruvka_bound : Larger.

    Notes
    -----
    With u = 2^-53, a logarithm or an exponential errs by at most 8 u (four units in the last place, as in
    `topobounds.theory._logarithms`), and its arguments and products add less than 4 u. 1 - q is found to 45 u from at
    most three such parts; dividing and adding leave less than 64 u = 2^-47 of what is added up, which is taken off.

    Examples
    --------
    >>> round(star_bound(784, 300), 4)
    0.5428
    """
    m, n, k = checked_shape(m, n, k)
    if min(m, n) == 1:
        return _rounded_down(Fraction(k, m * n))
    alpha = m + n - 1
    if min(k, alpha) <= MOST_EXACT:
        return _rounded_down(max(n * _exact_hit(m * n, k, m), m * _exact_hit(m * n, k, n)) / alpha)
    return max(n * _hit(m * n, k, m), m * _hit(m * n, k, n)) / alpha * (1 - ROUNDING)


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
        In [0, 1], rounded down: never above the number it stands for, and at most 2^-44 of it below (see
        `star_bound`). 0 for k = 0; k / alpha, the expectation itself, if m or n is 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or m or n beyond 2^63 - 1.

    Examples
    --------
    >>> round(boruvka_bound(784, 300), 4)
    0.6132
    """
    m, n, k = checked_shape(m, n, k)
    if min(m, n) == 1:
        return _rounded_down(Fraction(k, m * n))
    cells, alpha = m * n, m + n - 1
    if min(k, alpha) <= MOST_EXACT:
        both = m * _exact_hit(cells, k, n) + n * _exact_hit(cells, k, m)
        return _rounded_down((both - Fraction(cells, alpha) * _exact_hit(cells, k, alpha)) / alpha)
    marked = m * _hit(cells, k, n) + n * _hit(cells, k, m)
    marked_twice = cells / alpha * _hit(cells, k, alpha)
    return min(1.0, (marked - marked_twice - ROUNDING * (marked + marked_twice)) / alpha)


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
    bound = boruvka_bound(m, n, kept)
    return bound if kept == alpha else min(1.0, _rounded_down(Fraction(bound) * alpha / kept))


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
    x = giant_share(k / m, k / n)
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
        If m or n is no positive integer or beyond 2^63 - 1, or k is no integer from 0 to m n.
    """
    m, n = integer("m", m, 1), integer("n", n, 1)
    for name, side in (("m", m), ("n", n)):
        if side > LARGEST_SIDE:
            raise argument_error(name, "at most 2^63 - 1", side)
    return m, n, m + n - 1 if k is None else integer("k", k, 0, m * n)


def _exact_hit(cells: int, k: int, c: int) -> Fraction:
    """Return 1 - q(c) as a fraction."""
    few, many = sorted((c, k))
    return 1 - Fraction(math.perm(max(0, cells - many), few), math.perm(cells, few))


def _hit(cells: int, k: int, c: int) -> float:
    """Return 1 - q(c), the probability that k random cells out of `cells` hit a given set of c cells."""
    if c + k > cells:
        return 1.0
    few, many = sorted((c, k))
    if few > MOST_SUMMED:
        return -math.expm1(_log_missed(cells, many, few))
    return 0.0 - math.expm1(math.fsum(_log_complement(many, cells - i) for i in range(few)))  # never -0.0


def _log_missed(cells: int, many: int, few: int) -> float:
    """Return log q, without adding up its factors: Stirling's formula taken apart, as in docs/theory/enclosure.md.

    That is for k = many and c = few, both in the thousands at least, where r(x) = 1 / (12 x) - 1 / (360 x^3) to the
    last digit; where x = y is smaller, q is 0 to the last digit.
    """
    rest = cells - few - many
    if not rest:
        return -math.inf
    r_many, r_few, r_cells, r_rest = (1 / (12 * x) - 1 / (360 * x**3) for x in (cells - few, cells - many, cells, rest))
    crossed = _log_complement(few * many, (cells - few) * (cells - many))
    return math.fsum(
        [
            many * _log_complement(few, cells),
            few * _log_complement(many, cells),
            -(rest + 0.5) * crossed,
            r_many + r_few - r_cells - r_rest,
        ]
    )


def _log_complement(part: int, whole: int) -> float:
    """Return log(1 - part / whole), to the last digits on both sides."""
    return math.log1p(-part / whole) if 2 * part <= whole else math.log((whole - part) / whole)


def _rounded_down(value: Fraction) -> float:
    """Return the largest float that is not above a non-negative value."""
    nearest = float(value)
    return nearest if nearest <= value else math.nextafter(nearest, 0)


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
