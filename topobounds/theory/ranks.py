"""How many forest edges are expected among the k largest weights, for every k at once: bounds, rounded outwards.

Exact where layers are small; else enclosed at a hundred k or so, and between them by concavity.
"""

import math
from dataclasses import dataclass

import numpy as np

from topobounds._arguments import check_neurons
from topobounds._cache import cached
from topobounds._types import FloatArray, Integers
from topobounds.layers.shape import Shape
from topobounds.theory._components import SHARP, Effort
from topobounds.theory._rounding import ROUNDING_UNIT
from topobounds.theory.counting import counting_steps, exact_expected_ranks
from topobounds.theory.enclosure import rounded_outwards
from topobounds.theory.overlap import RetentionCurve, expected_retention_of

QUICK = Effort(
    least=16, enough=1e-3, most=9_000, blocks=8_192, steps=20_000, all_steps=700_000, ranks=80
)  # of enclosing at one rank: thousandths of a second
DEEPEST = 20  # k up to M (ln M + DEEPEST), M the longer side, leave about e^-DEEPEST forest edges


@dataclass(frozen=True, eq=False)
class MissingEdges:
    """Bounds on ``alpha - E[R_k]``, the expected forest edges that are not among the k largest weights.

    Attributes
    ----------
    alpha : int
        Edges of the forest.
    lower, upper : ndarray of float64
        Entry k is about the k largest weights, k = 0, 1, ...; beyond the last entry it falls on, to 0 at all weights.
    """

    alpha: int
    lower: FloatArray
    upper: FloatArray

    def ranks_at(self, ks: Integers) -> tuple[FloatArray, FloatArray]:
        """Return bounds on E[R_k] at these k, which may be beyond the last entry.

        Examples
        --------
        >>> below, above = missing_edges(3, 3).ranks_at(np.array([4]))
        >>> bool(below[0] <= 4 - 9 / 126 <= above[0])  # 9 of the 126 sets of 4 cells are cycles
        True
        """
        last = self.lower.size - 1
        entries = np.minimum(ks, last)
        above = np.where(ks > last, self.alpha, np.minimum(ks, self.alpha - self.lower[entries]))
        rounding = ROUNDING_UNIT * self.alpha  # of the differences
        return np.maximum(0.0, self.alpha - self.upper[entries] - rounding), above + rounding

    def until(self, cells: int, ks: Integers) -> tuple[FloatArray, FloatArray]:
        """Return bounds on ``E[R_cells] - E[R_k]`` at these k, which are not beyond the last entry."""
        place = min(cells, self.lower.size - 1)
        end_lower = float(self.lower[place]) if place == cells else 0.0
        end_upper = float(self.upper[place])
        return np.maximum(0.0, self.lower[ks] - end_upper), np.maximum(0.0, self.upper[ks] - end_lower)

    def on_every_support(self, cells: int, size: int, ks: Integers) -> tuple[FloatArray, FloatArray]:
        """Return the same, k rising, for each connected support of `cells` of `size` cells.

        d absent cells shift E[R_k] by at most ``d / cells`` of it: docs/theory/persistence_null.md, "The null of the
        values".
        """
        if cells == size:
            return self.lower[ks], self.upper[ks]
        shift = np.minimum(ks, self.alpha - self.lower[ks]) * ((size - cells) / cells) * (1 + 4 * ROUNDING_UNIT)
        return np.maximum(0.0, self.lower[ks] - shift), np.minimum.accumulate(self.upper[ks] + shift)


@cached(32)
def missing_edges(m: int, n: int, effort: Effort = SHARP) -> MissingEdges:
    """Return bounds on the expected forest edges not among the k largest weights, for k up to M (ln M + 20).

    Exact, rounded outwards, where all ranks can be counted; else from `expected_retention` at about a hundred ranks
    and the concavity of E[R_k] in k: docs/theory/persistence_null.md, "The certified interval". Kept for the last
    32 shapes, since the first call takes up to a second or two; with `QUICK` some tenths of a second.

    Raises
    ------
    ValueError
        If m + n is beyond 2^24.
    """
    alpha = m + n - 1
    check_neurons(m, n)
    last = rank_at_depth(m, n, DEEPEST)
    if min(m, n) == 1:
        lower = upper = np.arange(alpha, -1.0, -1.0)[: last + 1]
    elif counting_steps(m, n, m * n) <= effort.all_steps:
        bounds = [rounded_outwards(alpha - rank) for rank in exact_expected_ranks(m, n, last)]
        lower = np.array([bound.lower for bound in bounds])
        upper = np.array([bound.upper for bound in bounds])
    else:
        curve = expected_retention_of(Shape(m, n, m + n - 1), _ranks_to_enclose(m, n, last, effort.ranks), effort)
        lower, upper = _between(curve, alpha, last)
    for ends in (lower, upper):
        ends.setflags(write=False)
    return MissingEdges(alpha, lower, upper)


def rank_at_depth(m: int, n: int, depth: int) -> int:
    """Return a k so large that about e^-depth forest edges are not among the k largest weights."""
    longer = max(m, n)
    return min(m * n, math.ceil(longer * (math.log(longer) + depth)))


def _between(curve: RetentionCurve, alpha: int, last: int) -> tuple[FloatArray, FloatArray]:
    """Return bounds on alpha - E[R_k] for k = 0, ..., `last` from those at some ranks, E[R_k] being concave."""
    ks = np.array([0, *curve.ks], np.float64)
    lower = np.array([0.0, *curve.lower]) * alpha
    upper = np.array([0.0, *curve.upper]) * alpha
    gaps = np.diff(ks)
    # The largest slope of E[R_k] to the right of each rank, and the least to its left, that the bounds allow.
    ahead = np.append(1.0, np.minimum(1.0, (upper[1:] - lower[:-1]) / gaps))
    behind = np.append(np.maximum(0.0, (lower[1:] - upper[:-1]) / gaps), 0.0)
    k = np.arange(last + 1.0)
    at = np.clip(np.searchsorted(ks, k, side="right") - 1, 0, ks.size - 2)
    from_left = upper[at] + ahead[at] * (k - ks[at])
    from_right = upper[at + 1] - behind[at + 1] * (ks[at + 1] - k)
    rank_above = np.minimum(np.minimum(from_left, from_right), np.minimum(k, alpha))
    rank_below = np.interp(k, ks, lower)
    slack = 2 * ROUNDING_UNIT * alpha  # a few roundings of numbers up to alpha
    return np.maximum(0.0, alpha - rank_above - slack), np.minimum(alpha, alpha - rank_below + slack)


def _ranks_to_enclose(m: int, n: int, last: int, most: int) -> list[int]:
    """Return the ranks to enclose: dense above criticality, sqrt(m n), where E[R_k] bends and enclosing is cheap."""
    n_bend = most // 5 + 1
    critical = math.sqrt(m * n)
    bend = np.linspace(1.0, 2.6, n_bend) * critical
    beyond = np.geomspace(2.6 * critical, max(last, 2.7 * critical), most - n_bend - 2)
    ranks = np.concatenate([[3, 0.3 * critical, 0.8 * critical], bend, beyond[1:], [last]])
    return sorted({int(k) for k in ranks if 1 <= k <= last})
