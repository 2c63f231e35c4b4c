"""Samples in batches: what each tells of their mean, and how many samples it holds."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_FIRST_BATCH = 8  # small, as the guess before it is blind


@dataclass(frozen=True)
class Batch:
    """What a batch of samples tells of their mean.

    Attributes
    ----------
    count : int
        Samples.
    mean : float
        Their mean, in [0, 1].
    squares : float
        Sum of the squared deviations from `mean`.
    """

    count: int
    mean: float
    squares: float

    @classmethod
    def of(cls, values: ArrayLike) -> "Batch":
        """Return the batch of these samples."""
        samples = np.asarray(values, np.float64)
        mean = float(samples.mean()) if samples.size else 0.5
        return cls(samples.size, mean, float(np.sum((samples - mean) ** 2)))

    def __add__(self, other: "Batch") -> "Batch":
        count = self.count + other.count
        if not count:
            return self
        mean = (self.count * self.mean + other.count * other.mean) / count
        between = self.count * other.count / count * (self.mean - other.mean) ** 2
        return Batch(count, mean, self.squares + other.squares + between)

    @property
    def mirrored(self) -> "Batch":
        """The batch of 1 - X."""
        return Batch(self.count, 1 - self.mean, self.squares)


def batch_sizes(budget: int) -> Iterator[int]:
    """Yield the sizes of batches that double what has been drawn, until `budget` samples are spent."""
    drawn = 0
    while drawn < budget:
        size = min(max(_FIRST_BATCH, drawn), budget - drawn)
        yield size
        drawn += size
