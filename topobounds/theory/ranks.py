"""The expected rank of the k largest weights, for every k at once: enclosed at some k, bounded between by concavity.

``rho_k = E R_k`` for exchangeable |w|: the expected number of forest edges among a dense layer's k largest weights.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topobounds._records import Record
from topobounds.layers.shape import checked_shape
from topobounds.theory.enclosure import expected_retention_of

FloatArray = NDArray[np.float64]
Index = NDArray[np.int64]

N_RANKS = 140  # at which rho is enclosed; between them it is known to some units where it bends most
_ROUNDING = 2.0**-46  # of m + n: more than the few roundings of a chord


@dataclass(frozen=True, eq=False)
class ExpectedRanks(Record):
    """Bounds on rho_k of an m x n layer at some k, from which bounds at every k follow.

    Attributes
    ----------
    m, n : int
        The layer.
    ks : ndarray of float64, rising
        From 0 to m n.
    lower, upper : ndarray of float64
        Ends of an interval that contains rho_k, for each of them.
    """

    m: int
    n: int
    ks: FloatArray
    lower: FloatArray
    upper: FloatArray

    def at(self, ks: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds on rho at any `ks` from 0 to m n, rounded outwards.

        rho is concave and rises by at most 1 a step. So it lies above its chords, and beyond two known points below the
        line through them: through the lower end at the farther point and the upper end at the nearer one.
        """
        slack = _ROUNDING * (self.m + self.n)
        below = np.interp(ks, self.ks, self.lower) - slack
        after = np.clip(np.searchsorted(self.ks, ks), 1, self.ks.size - 1)
        above = np.minimum(self.upper[after], ks)
        above = np.minimum(above, self._from_the_left(ks, after - 1))
        above = np.minimum(above, self._from_the_right(ks, after))
        return np.maximum(below, 0.0), above + slack

    def _from_the_left(self, ks: FloatArray, nearest: Index) -> FloatArray:
        """Return upper bounds by the lines through the two known points before `ks`, the second of them `nearest`."""
        slopes = np.clip((self.upper[1:] - self.lower[:-1]) / np.diff(self.ks), 0, 1)
        rise = np.where(nearest > 0, slopes[np.maximum(nearest - 1, 0)], 1.0)
        return self.upper[nearest] + rise * (ks - self.ks[nearest])

    def _from_the_right(self, ks: FloatArray, nearest: Index) -> FloatArray:
        """Return upper bounds by the lines through the two known points after `ks`, the first of them `nearest`."""
        slopes = np.maximum((self.lower[1:] - self.upper[:-1]) / np.diff(self.ks), 0)
        fall = np.where(nearest < slopes.size, slopes[np.minimum(nearest, slopes.size - 1)], 0.0)
        return self.upper[nearest] - fall * (self.ks[nearest] - ks)


@functools.lru_cache(maxsize=64)
def expected_ranks(m: int, n: int) -> ExpectedRanks:
    """Return bounds on rho_k, the expected rank of the k largest weights of an m x n layer, for every k.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.

    Returns
    -------
    ExpectedRanks
        Enclosures at 0, m n and some 140 ranks between (all, if there are no more), closest where rho bends most.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Takes seconds; what was computed is remembered.

    Examples
    --------
    >>> ranks = expected_ranks(3, 3)
    >>> below, above = ranks.at(np.array([4.0]))
    >>> bool(below[0] <= 4 - 9 / 126 <= above[0])  # 9 of the 126 sets of 4 cells are cycles
    True
    """
    shape = checked_shape(m, n, None)
    m, n, alpha = shape
    curve = expected_retention_of(shape, [0, *_chosen(m, n), m * n])
    lower = np.array(curve.lower) * alpha * (1 - 2.0**-50)
    upper = np.minimum(np.array(curve.upper) * alpha * (1 + 2.0**-50), alpha)
    return ExpectedRanks(m, n, np.array(curve.ks, float), lower, upper)


def _chosen(m: int, n: int) -> list[int]:
    """Return ranks from below criticality, sqrt(m n), to where the graph is all but surely connected."""
    if m * n <= N_RANKS:
        return list(range(1, m * n))
    connected = min(m * n, max(m, n) * (math.log(m + n) + 10))
    spaced = np.geomspace(max(1.0, math.sqrt(m * n) / 2), connected, N_RANKS)
    return sorted({*map(int, spaced), m + n - 1})
