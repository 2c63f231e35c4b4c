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
from topobounds.theory._components import FACTOR, components_by_size
from topobounds.theory._logarithms import UNIT, FloatArray
from topobounds.theory.bounds import minimum_overlap_of
from topobounds.theory.counting import counting_steps, exact_expected_overlap_of
from topobounds.theory.overlap import spread

MAX_CELLS = 2**52  # so that every count is an integer that a double holds
CHEAP_STEPS = 400_000  # of exact counting: a fifth of a second


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
    m, n, k = shape
    if m * n > MAX_CELLS:
        raise argument_error("m", f"so small that m n is at most 2^52 (overlap_limit takes any size) at n={n}", m)
    if k <= 3 or k == m * n or min(m, n) == 1 or counting_steps(m, n, k) <= CHEAP_STEPS:
        return rounded_outwards(_exactly(shape))
    lower, upper = _expected_components(m, n, k)
    alpha = shape.alpha
    least, most = minimum_overlap_of(shape) / alpha, min(k, alpha) / alpha
    slack = 4 * math.ulp(m + n) / alpha
    return Enclosure(
        max((m + n - upper) / alpha - slack, math.nextafter(least, 0)),
        min((m + n - lower) / alpha + slack, math.nextafter(most, 1)),
    )


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


def expected_retention_of(shape: Shape, ks: Iterable[int]) -> RetentionCurve:
    """Return the `expected_retention` of a layer of a checked shape, whose own k is not used, at checked ks."""
    kept = sorted(set(ks))
    points = {k: expected_overlap_of(shape._replace(k=k)) for k in kept}
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


def _expected_components(m: int, n: int, k: int) -> tuple[float, float]:
    """Return bounds on E[kappa], for 4 <= k < m n and m, n >= 2."""
    vertices = m + n
    by_size, middle = components_by_size(m, n, k)
    sizes = np.arange(len(by_size.every))
    counted = np.cumsum(by_size.counted) / FACTOR
    left_below = np.maximum(0.0, vertices - np.cumsum(sizes * by_size.counted_above) * FACTOR)
    rest = _chance_of_a_rest(m, n, k, counted, np.cumsum(by_size.unicyclic) * FACTOR, left_below)

    above = np.cumsum(by_size.every) * FACTOR
    left_above = vertices - np.cumsum(sizes * by_size.counted) / FACTOR
    some_beyond = np.min((above + left_above / (sizes + 1))[1:])
    giant = min(1.0, left_above[-1] / (vertices // 2 + 1))
    upper = min(some_beyond, above[-1] + middle + giant)
    return float(np.max(counted + rest)) * (1 - UNIT), float(upper) * (1 + UNIT)


def _chance_of_a_rest(
    m: int, n: int, k: int, counted: FloatArray, unicyclic: FloatArray, left: FloatArray
) -> FloatArray:
    """Return a lower bound on the chance that some component is not among those counted, for every size L (E4).

    If none is, all cycles are in counted unicyclic components. The number of independent cycles, k - R_k, is
    concentrated, and so far above the expected number of those components that this is unlikely.
    """
    vertices = m + n
    by_vertices = left / vertices
    cycles = k - vertices * (1 + UNIT) + float(np.max(counted + by_vertices))
    if cycles <= 0:
        return by_vertices
    best = by_vertices
    for share in np.arange(0.05, 1, 0.05):
        fewer = math.exp(-2 * (share * cycles) ** 2 / spread(m * n, k))
        best = np.maximum(best, 1 - fewer - unicyclic / ((1 - share) * cycles))
    return best
