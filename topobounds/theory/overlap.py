"""The expected overlap, certified and in the limit of large layers, and how far one layer strays from it.

Setting, in all of this module: W has m rows and n columns, N = m n, and its |w| are exchangeable with almost surely
distinct magnitudes. Then the k largest weights are a uniformly random set of k cells, G(m, n; k), and

    R_k = |forest ∩ top-k| = m + n - kappa(G(m, n; k)),     X_k = R_k / alpha,     alpha = m + n - 1,

with kappa the number of connected components, isolated vertices counted. ``q(c) = C(N - c, k) / C(N, k)`` is the
probability that c given cells are all empty.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from topobounds._arguments import argument_error, integer, integers, real
from topobounds._cache import cached
from topobounds._records import Record
from topobounds.layers.shape import Shape
from topobounds.theory._components import NEGLIGIBLE, SHARP, BySize, Effort, components_at_ranks, components_by_size
from topobounds.theory.bounds import minimum_overlap_of
from topobounds.theory.counting import counting_steps, exact_expected_overlap_of
from topobounds.theory.enclosure import MAX_ENCLOSURE_CELLS, Enclosure, expected_components, rounded_outwards, spread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class RetentionCurve(Record):
    """The expected overlap at many k.

    Attributes
    ----------
    m, n : int
        The layer.
    ks : tuple of int
        Numbers of largest weights, rising.
    lower, upper : tuple of float
        Ends of an interval that contains E[X_k], for every k.
    """

    m: int
    n: int
    ks: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def densities(self) -> tuple[float, ...]:
        """The densities k / (m n) to which the layer is pruned."""
        return tuple(k / (self.m * self.n) for k in self.ks)


def expected_overlap(m: int, n: int, k: int | None = None) -> Enclosure:
    """Return an interval that contains E[X_k], the expected overlap of the k largest weights with the forest.

    ``E[X_k] = (m + n - E[kappa]) / (m + n - 1)``, kappa being the components of the uniformly random bipartite graph
    with k edges. Small layers are counted exactly (`exact_expected_overlap`), larger ones enclosed.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    Enclosure
        Within [0, 1], for exchangeable |w| with almost surely distinct magnitudes. At k = alpha it is widest, 5.9e-3,
        at 18 x 18, where exact counting ends, 6e-4 at 40 x 40, and narrower than 2e-6 from 200 x 200 on; at a given
        size it is widest for k just above criticality, 1.2 to 1.5 times sqrt(m n).

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> enclosure = expected_overlap(784, 300)
    >>> round(enclosure.lower, 6), round(enclosure.upper, 6)
    (0.799622, 0.799622)
    """
    return expected_overlap_of(Shape.checked(m, n, k))


@cached(1024)
def expected_overlap_of(shape: Shape) -> Enclosure:
    """Return the `expected_overlap` of a checked shape; kept, since it takes some hundredths of a second."""
    return _overlap(shape, SHARP)


def _overlap(shape: Shape, effort: Effort) -> Enclosure:
    m, n, k = shape
    _check_cells(shape)
    if _is_exact(shape, effort):
        return rounded_outwards(_exactly(shape))
    by_size, middle = components_by_size(m, n, k, effort)
    row = BySize(*(bounds[np.newaxis] for bounds in by_size))
    lower, upper = expected_components(m, n, np.array([float(k)]), row, np.array([middle]))
    return _enclosed(shape, float(lower[0]), float(upper[0]))


def _overlaps(shape: Shape, ks: list[int], effort: Effort) -> dict[int, Enclosure]:
    """Return the intervals at many k: all at once where `effort` is enough for components to be negligible."""
    m, n = shape.m, shape.n
    _check_cells(shape)
    shapes = {k: shape._replace(k=k) for k in ks}
    points = {k: rounded_outwards(_exactly(each)) for k, each in shapes.items() if _is_exact(each, effort)}
    others = np.array([k for k in ks if k not in points and effort.enough > NEGLIGIBLE], dtype=float)
    if others.size:
        by_size, middle = components_at_ranks(m, n, others, effort)
        lower, upper = expected_components(m, n, others, by_size, middle)
        for place in np.flatnonzero(middle <= effort.enough).tolist():
            k = int(others[place])
            points[k] = _enclosed(shapes[k], float(lower[place]), float(upper[place]))
    return {k: points[k] if k in points else _overlap(each, effort) for k, each in shapes.items()}


def _enclosed(shape: Shape, lower: float, upper: float) -> Enclosure:
    """Return the interval of the expected overlap from bounds on the expected components."""
    m, n, k = shape
    alpha = shape.alpha
    least, most = minimum_overlap_of(shape) / alpha, min(k, alpha) / alpha
    slack = 4 * math.ulp(m + n) / alpha
    return Enclosure(
        max((m + n - upper) / alpha - slack, math.nextafter(least, 0)),
        min((m + n - lower) / alpha + slack, math.nextafter(most, 1)),
    )


def _check_cells(shape: Shape) -> None:
    if shape.cells > MAX_ENCLOSURE_CELLS:
        rule = f"so small that m n is at most 2^52 (overlap_limit takes any size) at n={shape.n}"
        raise argument_error("m", rule, shape.m)


def _is_exact(shape: Shape, effort: Effort) -> bool:
    m, n, k = shape
    return k <= 3 or k == m * n or min(m, n) == 1 or counting_steps(m, n, k) <= effort.steps


def expected_retention(m: int, n: int, ks: Iterable[int]) -> RetentionCurve:
    """Return the expected retention curve: the share of the forest that is among the k largest weights, for many k.

    `expected_overlap` at every k, sharpened by what such a curve must be: E[X_k] rises with k, and E[X_k] / k falls
    (the rank of a set of edges is submodular).

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.
    ks : iterable of int
        Numbers of largest weights, each from 0 to m n.

    Returns
    -------
    RetentionCurve
        With the k in rising order, each once.

    Raises
    ------
    ValueError
        If m or n is out of range, `ks` no sequence, or one of them no integer from 0 to m n.

    Examples
    --------
    >>> curve = expected_retention(784, 300, [1083, 5000])
    >>> [(round(density, 4), round(low, 3)) for density, low in zip(curve.densities, curve.lower)]
    [(0.0046, 0.8), (0.0213, 0.999)]
    """
    shape = Shape.checked(m, n, None)
    return expected_retention_of(shape, integers("ks", "k", ks, 0, shape.cells))


def expected_retention_of(shape: Shape, ks: Iterable[int], effort: Effort = SHARP) -> RetentionCurve:
    """Return the `expected_retention` of a layer of a checked shape, whose own k is not used, at checked ks."""
    points = _overlaps(shape, sorted(set(ks)), effort)
    below, above = {0: 0.0}, {0: 0.0}
    before = 0
    for k, point in points.items():
        below[k] = max(point.lower, below[before])
        above[k] = min(point.upper, rounded_outwards(Fraction(above[before]) * k / before).upper if before else 1.0)
        before = k
    after = before
    for k in reversed(points):
        below[k] = max(below[k], rounded_outwards(Fraction(below[after]) * k / after).lower if after else 0.0)
        above[k] = min(above[k], above[after])
        after = k
    return RetentionCurve(
        shape.m, shape.n, tuple(points), tuple(below[k] for k in points), tuple(above[k] for k in points)
    )


def _exactly(shape: Shape) -> Fraction:
    if shape.k <= 3:  # a bipartite cycle has at least four edges
        return Fraction(shape.k, shape.alpha)
    return Fraction(1) if shape.k == shape.cells else exact_expected_overlap_of(shape)


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
    return overlap_limit_of(Shape.checked(m, n, k))


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
        shape = Shape.checked(m, n, k)
        cells, alpha, k = m * n, shape.alpha, shape.k
    else:
        from topobounds.theory.support_bounds import support_size  # noqa: PLC0415 (loads scipy)

        cells, alpha = support_size(support, (m, n))
        k = alpha if k is None else integer("k", k, 0, cells)
    confidence = real("confidence", confidence, "a number in (0, 1)", math.ulp(0.0), math.nextafter(1.0, 0.0))
    return math.sqrt(spread(cells, k) / 2 * math.log(2 / (1 - confidence))) / alpha


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
