"""The permutation test: a given overlap among those of shuffles of the weights."""

import math
from collections import Counter
from dataclasses import dataclass, field

from topobounds._types import Interval


@dataclass
class PermutationTest:
    """An observed number of forest edges among those of shuffles, which are exchangeable with it under the hypothesis.

    The test is two-sided: twice the smaller share, at most 1, of the shuffles that are as low, or as high, as what was
    observed, which is counted among them. If it is one of T + 1 exchangeable numbers, the p-value is at most p with a
    probability of at most p, whatever T is.

    Attributes
    ----------
    observed : int
        |forest ∩ top-k| of the matrix.
    alpha : int
        What makes it an overlap.
    counts : Counter
        Shuffles by their |forest ∩ top-k|.
    """

    observed: int
    alpha: int
    counts: Counter[int] = field(default_factory=Counter)

    @property
    def shuffles(self) -> int:
        """Number of shuffles so far."""
        return self.counts.total()

    @property
    def as_extreme(self) -> int:
        """Shuffles on the side where there are fewer: as low as what was observed, or as high."""
        low = sum(count for value, count in self.counts.items() if value <= self.observed)
        high = sum(count for value, count in self.counts.items() if value >= self.observed)
        return min(low, high)

    @property
    def p_value(self) -> float:
        """Two-sided p-value, at least 2 / (shuffles + 1)."""
        return min(1.0, 2 * (self.as_extreme + 1) / (self.shuffles + 1))

    @property
    def mean(self) -> float:
        """Mean overlap of the shuffles."""
        return sum(value * count for value, count in self.counts.items()) / self.shuffles / self.alpha

    @property
    def deviation(self) -> float:
        """Standard deviation of the overlap of the shuffles; 0 where all are equal, or there is one."""
        if len(self.counts) < 2:
            return 0.0
        mean = self.mean * self.alpha
        squares = sum(count * (value - mean) ** 2 for value, count in self.counts.items())
        return math.sqrt(squares / (self.shuffles - 1)) / self.alpha

    @property
    def z(self) -> float | None:
        """Distance of the observed overlap from the mean of the shuffles in standard deviations; None without any."""
        return (self.observed / self.alpha - self.mean) / self.deviation if self.deviation else None

    def accepted(self, error: float) -> Interval:
        """Return the overlaps that have a p-value above `error`; all, where there are too few shuffles for less."""
        outside = math.floor(error / 2 * (self.shuffles + 1))
        if not outside:
            return 0.0, 1.0
        values = sorted(self.counts.elements())
        return values[outside - 1] / self.alpha, values[-outside] / self.alpha
