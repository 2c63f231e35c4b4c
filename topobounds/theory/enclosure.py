"""A certified interval around the expected overlap, up to m n = 2^52.

The components of the random bipartite graph G(m, n; k) with m rows, n columns and k edges are counted by size: those
with few vertices nearly exactly, the giant one as one, those in between by first moments. Every step is a bound on
one side, proved in docs/theory/enclosure.md; rounding is accounted for (`topobounds.theory._logarithms`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from topobounds._arguments import argument_error, integers
from topobounds._records import Record
from topobounds.layers.shape import Shape, checked_shape
from topobounds.theory._components import (
    FACTOR,
    NEGLIGIBLE,
    SHARP,
    BySize,
    Effort,
    components_at_ranks,
    components_by_size,
)
from topobounds.theory._logarithms import UNIT, FloatArray
from topobounds.theory.bounds import minimum_overlap_of
from topobounds.theory.counting import counting_steps, exact_expected_overlap_of
from topobounds.theory.overlap import spread

MAX_CELLS = 2**52  # so that every count is an integer that a double holds


@dataclass(frozen=True)
class Enclosure(Record):
    """An interval that contains the value.

    Attributes
    ----------
    lower, upper : float
        The ends.
    """

    lower: float
    upper: float

    @property
    def width(self) -> float:
        """The difference of the ends."""
        return self.upper - self.lower

    def __contains__(self, value: "float | Fraction") -> bool:
        """Return whether `value` lies between the ends."""
        return self.lower <= value <= self.upper


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
    return expected_overlap_of(checked_shape(m, n, k))


@lru_cache(maxsize=1024)
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
    lower, upper = _expected_components(m, n, np.array([float(k)]), row, np.array([middle]))
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
        lower, upper = _expected_components(m, n, others, by_size, middle)
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
    if shape.cells > MAX_CELLS:
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
    shape = checked_shape(m, n, None)
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


def rounded_outwards(value: Fraction) -> Enclosure:
    """Return the interval between the floats next to a non-negative value."""
    nearest = float(value)
    lower = nearest if nearest <= value else math.nextafter(nearest, 0)
    upper = nearest if nearest >= value else math.nextafter(nearest, 1)
    return Enclosure(lower, upper)


def _expected_components(
    m: int, n: int, ks: FloatArray, by_size: BySize, middle: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return bounds on E[kappa] at several k, for 4 <= k < m n and m, n >= 2.

    `by_size` and `middle` are bounds on the components of each number of vertices, and on those of more and up to
    (m + n) / 2, a row for each k.
    """
    vertices = m + n
    sizes = np.arange(by_size.every.shape[1])
    counted = np.cumsum(by_size.counted, axis=1) / FACTOR
    left_below = np.maximum(0.0, vertices - np.cumsum(sizes * by_size.counted_above, axis=1) * FACTOR)
    unicyclic = np.cumsum(by_size.unicyclic, axis=1) * FACTOR
    rest = _chance_of_a_rest(m, n, ks[:, None], counted, unicyclic, left_below)

    above = np.cumsum(by_size.every, axis=1) * FACTOR
    left_above = vertices - np.cumsum(sizes * by_size.counted, axis=1) / FACTOR
    some_beyond = np.min((above + left_above / (sizes + 1))[:, 1:], axis=1)
    giant = np.minimum(1.0, left_above[:, -1] / (vertices // 2 + 1))
    upper = np.minimum(some_beyond, above[:, -1] + middle + giant)
    return np.max(counted + rest, axis=1) * (1 - UNIT), upper * (1 + UNIT)


def _chance_of_a_rest(
    m: int, n: int, ks: FloatArray, counted: FloatArray, unicyclic: FloatArray, left: FloatArray
) -> FloatArray:
    """Return a lower bound on the chance that some component is not among those counted, for every size L (E4).

    If none is, all cycles are in counted unicyclic components. The number of independent cycles, k - R_k, is
    concentrated, and so far above the expected number of those components that this is unlikely.
    """
    vertices = m + n
    by_vertices = left / vertices
    cycles = ks - vertices * (1 + UNIT) + np.max(counted + by_vertices, axis=1, keepdims=True)
    best = by_vertices
    some = np.where(cycles > 0, cycles, 1.0)
    spreads = np.array([[spread(m * n, int(k))] for k in ks.ravel()])
    for share in np.arange(0.05, 1, 0.05):
        fewer = np.exp(-2 * (share * cycles) ** 2 / spreads)
        with np.errstate(over="ignore"):
            best = np.maximum(best, 1 - fewer - unicyclic / ((1 - share) * some))
    return np.where(cycles > 0, best, by_vertices)
