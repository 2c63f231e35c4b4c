"""One layer read for a null hypothesis: its magnitudes, its support, and the ranks of its spanning forest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds.chance.magnitudes import largest_magnitudes
from topobounds.theory.persistence import sufficient_rank
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.weights import mask_matrix, weight_matrix

FloatArray = NDArray[np.float64]


NEARLY_FULL = 0.25  # forest edges by which absent cells may shift an expected number of them


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """A dense layer and its maximum spanning forest.

    Attributes
    ----------
    matrix : ndarray of floats
        The weights.
    support : ndarray of bool, or None
        The mask; None if it is True everywhere.
    forest : SpanningForest
        Of the weights of the mask that are not zero.
    n_weights : int
        How many these are.
    largest : ndarray of float64
        The largest of their magnitudes, falling: all, or as many as were wanted or more.
    """

    matrix: NDArray[Any]
    support: NDArray[np.bool_] | None
    forest: SpanningForest
    n_weights: int
    largest: FloatArray

    @classmethod
    def of(cls, weights: ArrayLike, mask: ArrayLike | None) -> "MeasuredLayer":
        """Read a layer and its largest magnitudes.

        Raises
        ------
        ValueError
            As `maximum_spanning_forest`.
        """
        matrix = weight_matrix(weights)
        support = None if mask is None else mask_matrix(mask, matrix.shape)
        if support is not None and support.all():
            support = None
        forest = maximum_spanning_forest(matrix, support)
        if support is None:
            largest, zeros = largest_magnitudes(matrix, sufficient_rank(*forest.shape))
            return cls(matrix, None, forest, matrix.size - zeros, largest)
        values = np.abs(matrix[support].astype(np.float64))
        values = np.sort(values[values > 0])[::-1]
        return cls(matrix, support, forest, values.size, values)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n."""
        return self.forest.shape

    @property
    def nearly_full(self) -> bool:
        """Whether so few cells are absent, of a connected support, that the full layer's bounds hardly widen."""
        absent = self.matrix.size - self.n_weights
        shift = sufficient_rank(*self.shape) * absent / (self.n_weights + 1)
        return self.forest.alpha == sum(self.shape) - 1 and shift <= NEARLY_FULL

    @property
    def present(self) -> NDArray[np.bool_]:
        """Where a weight is that is not zero."""
        nonzero: NDArray[np.bool_] = self.matrix != 0
        return nonzero if self.support is None else nonzero & self.support

    @property
    def magnitudes(self) -> FloatArray:
        """All |w| that are not zero, falling."""
        if self.largest.size == self.n_weights:
            return self.largest
        return np.sort(np.abs(self.matrix.astype(np.float64)).ravel())[::-1][: self.n_weights]
