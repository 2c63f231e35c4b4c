"""One layer read for a null hypothesis: its magnitudes, its support, and the ranks of its spanning forest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds.chance.magnitudes import largest_magnitudes
from topobounds.topology.filtration import mask_matrix, weight_matrix
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest

FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """A dense layer and its maximum spanning forest.

    Attributes
    ----------
    matrix : ndarray of floats
        The weights.
    present : ndarray of bool, or None
        The support: cells of the mask that are not zero; None if these are all cells.
    forest : SpanningForest
        Of the support.
    largest : ndarray of float64, or None
        The largest magnitudes of a full layer, falling, as many as were wanted or more.
    """

    matrix: NDArray[Any]
    present: NDArray[np.bool_] | None
    forest: SpanningForest
    largest: FloatArray | None

    @classmethod
    def of(cls, weights: ArrayLike, mask: ArrayLike | None, wanted: int = 1) -> "MeasuredLayer":
        """Read a layer and `wanted` of its largest magnitudes.

        Raises
        ------
        ValueError
            As `maximum_spanning_forest`.
        """
        matrix = weight_matrix(weights)
        support = None if mask is None else mask_matrix(mask, matrix.shape)
        forest = maximum_spanning_forest(matrix, support)
        if support is None or support.all():
            largest = largest_magnitudes(matrix, min(wanted, matrix.size))
            if not largest.zeros:
                return cls(matrix, None, forest, largest.values)
        present = matrix != 0 if support is None else support & (matrix != 0)
        return cls(matrix, present, forest, None)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n."""
        return self.forest.shape

    @property
    def n_cells(self) -> int:
        """Cells of the support."""
        return self.matrix.size if self.present is None else int(np.count_nonzero(self.present))

    @property
    def cells(self) -> tuple[Integers, Integers]:
        """Rows and columns of the cells of the support."""
        return np.nonzero(np.ones(self.shape, np.bool_) if self.present is None else self.present)

    @property
    def magnitudes(self) -> FloatArray:
        """All |w| of the support, falling."""
        values = self.matrix.ravel() if self.present is None else self.matrix[self.present]
        return np.sort(np.abs(values.astype(np.float64)))[::-1]
