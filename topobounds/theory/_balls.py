"""Numbers known up to a radius: balls in double precision, their sums and bounds on their exponentials.

An exponential below 2^-1022 is rounded to a multiple of 2^-1074, so 2^-1060 is taken off, or added, as well.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds._types import FloatArray
from topobounds.theory._rounding import ROUNDING_UNIT, SUBNORMAL

LARGEST = 709.0  # whose exponential a double holds


class Ball(NamedTuple):
    """Numbers known up to a radius: the truth lies in [mid - rad, mid + rad]."""

    mid: FloatArray
    rad: FloatArray

    def at(self, index: NDArray[np.intp]) -> "Ball":
        """Return the entries at `index`."""
        return Ball(self.mid[index], self.rad[index])

    def exp_below(self) -> FloatArray:
        """Return a lower bound on exp of the numbers, at least 0 and at most exp(LARGEST)."""
        below = np.exp(np.minimum(self.mid - self.rad, LARGEST)) * (1 - ROUNDING_UNIT)
        return np.maximum(below - SUBNORMAL, 0.0)

    def exp_above(self) -> FloatArray:
        """Return an upper bound on exp of the numbers, infinity where a double overflows."""
        with np.errstate(over="ignore"):
            return np.exp(self.mid + self.rad) * (1 + ROUNDING_UNIT) + SUBNORMAL


def ball_sum(*terms: Ball | FloatArray) -> Ball:
    """Return the sum of balls, and of floats that are right to `ROUNDING_UNIT` of their own size."""
    mid, rad = np.array(0.0), np.array(0.0)
    for term in terms:
        part, error = term if isinstance(term, Ball) else (term, ROUNDING_UNIT * np.abs(term))
        mid = mid + part
        rad = rad + error + ROUNDING_UNIT * np.abs(part)
    return Ball(mid, rad)
