"""How expectations over random layers are enclosed: bounds on the number of components, up to m n = 2^52.

The components of the random bipartite graph G(m, n; k) with m rows, n columns and k edges are counted by size: those
with few vertices nearly exactly, the giant one as one, those in between by first moments. Every step is a bound on
one side, proved in docs/theory/enclosure.md; rounding is accounted for (`topobounds.theory._logarithms`).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from topobounds._records import Record
from topobounds._types import FloatArray
from topobounds.theory._components import BySize
from topobounds.theory._rounding import ROUNDING_FACTOR, ROUNDING_UNIT

MAX_ENCLOSURE_CELLS = 2**52  # so that every count is an integer that a double holds


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


def rounded_outwards(value: Fraction) -> Enclosure:
    """Return the interval between the floats next to a non-negative value."""
    nearest = float(value)
    lower = nearest if nearest <= value else math.nextafter(nearest, 0.0)
    upper = nearest if nearest >= value else math.nextafter(nearest, math.inf)
    return Enclosure(lower, upper)


def expected_components(
    m: int, n: int, ks: FloatArray, by_size: BySize, middle: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return bounds on E[kappa] at several k, for 4 <= k < m n and m, n >= 2.

    `by_size` and `middle` are bounds on the components of each number of vertices, and on those of more and up to
    (m + n) / 2, a row for each k.
    """
    vertices = m + n
    sizes = np.arange(by_size.every.shape[1])
    counted = np.cumsum(by_size.counted, axis=1) / ROUNDING_FACTOR
    left_below = np.maximum(0.0, vertices - np.cumsum(sizes * by_size.counted_above, axis=1) * ROUNDING_FACTOR)
    unicyclic = np.cumsum(by_size.unicyclic, axis=1) * ROUNDING_FACTOR
    rest = _chance_of_a_rest(m, n, ks[:, None], counted, unicyclic, left_below)

    above = np.cumsum(by_size.every, axis=1) * ROUNDING_FACTOR
    left_above = vertices - np.cumsum(sizes * by_size.counted, axis=1) / ROUNDING_FACTOR
    some_beyond = np.min((above + left_above / (sizes + 1))[:, 1:], axis=1)
    giant = np.minimum(1.0, left_above[:, -1] / (vertices // 2 + 1))
    upper = np.minimum(some_beyond, above[:, -1] + middle + giant)
    return np.max(counted + rest, axis=1) * (1 - ROUNDING_UNIT), upper * (1 + ROUNDING_UNIT)


def _chance_of_a_rest(
    m: int, n: int, ks: FloatArray, counted: FloatArray, unicyclic: FloatArray, left: FloatArray
) -> FloatArray:
    """Return a lower bound on the chance that some component is not among those counted, for every size L (E4).

    If none is, all cycles are in counted unicyclic components. The number of independent cycles, k - R_k, is
    concentrated, and so far above the expected number of those components that this is unlikely.
    """
    vertices = m + n
    by_vertices = left / vertices
    cycles = ks - vertices * (1 + ROUNDING_UNIT) + np.max(counted + by_vertices, axis=1, keepdims=True)
    best = by_vertices
    some = np.where(cycles > 0, cycles, 1.0)
    spreads = np.array([[spread(m * n, int(k))] for k in ks.ravel()])
    for share in np.arange(0.05, 1, 0.05):
        fewer = np.exp(-2 * (share * cycles) ** 2 / spreads)
        with np.errstate(over="ignore"):
            best = np.maximum(best, 1 - fewer - unicyclic / ((1 - share) * some))
    return np.where(cycles > 0, best, by_vertices)


def spread(cells: int, k: int) -> float:
    """Return v in P(f - E f >= t) <= exp(-2 t^2 / v), f a function of k random cells that a swap changes by <= 1."""
    left = cells - k
    return min(k, left**2 * k / ((left - 0.5) * (cells - 0.5))) if left else 0.0
