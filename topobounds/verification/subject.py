"""A matrix that claims are tested on, with what the tests share: its forests, its diagrams, the order of its weights.

Each is computed once, when it is first needed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from topobounds._types import Array, Integers, Zeros
from topobounds.theory.ties import tie_counts
from topobounds.topology.persistence import PersistenceDiagram, diagram_of_forest
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest


@dataclass(frozen=True, eq=False)
class Subject:
    """A matrix under test.

    Attributes
    ----------
    weights : ndarray of shape (m, n)
        The matrix: finite, of floating-point numbers. It must not change.
    """

    weights: Array

    @cached_property
    def n_weights(self) -> int:
        """Number of the weights other than zero."""
        return int(np.count_nonzero(self.weights))

    @cached_property
    def forest(self) -> SpanningForest:
        """Maximum spanning forest of the weights other than zero."""
        return maximum_spanning_forest(self.weights)

    @cached_property
    def forest_with_zeros(self) -> SpanningForest:
        """Maximum spanning forest where zeros are edges of weight 0; without zeros it is `forest`."""
        return maximum_spanning_forest(self.weights, zeros="edge") if self.has_zeros else self.forest

    @property
    def has_zeros(self) -> bool:
        """Whether a weight is zero."""
        return self.n_weights < self.weights.size

    @property
    def readings(self) -> tuple[Zeros, ...]:
        """The ways to read zeros that make a difference."""
        return ("absent", "edge") if self.has_zeros else ("absent",)

    def diagram(self, zeros: Zeros) -> PersistenceDiagram:
        """Return the persistence diagram, zeros read as no edges or as edges of weight 0."""
        return diagram_of_forest(self.forest if zeros == "absent" else self.forest_with_zeros)

    @cached_property
    def order(self) -> Integers:
        """Flat indices of the weights other than zero, |w| descending, ties by index; sorted by numpy."""
        return np.argsort(-np.abs(self.weights).ravel(), kind="stable")[: self.n_weights]

    def retained(self, k: int) -> int:
        """Return the number of forest edges among the k largest weights."""
        return int(np.searchsorted(self.forest.ranks, k, side="right"))

    def tie_counts(self, k: int) -> tuple[int, int]:
        """Return how many weights are above the k-th largest, and how many at least as large; k from 1."""
        return tie_counts(self._magnitudes, k)

    def has_tie_at(self, k: int) -> bool:
        """Whether a tie decides which weights are the k largest."""
        return 0 < k < self.n_weights and self.tie_counts(k)[1] > k

    @cached_property
    def _magnitudes(self) -> NDArray[np.float64]:
        magnitudes: NDArray[np.float64] = np.abs(self.weights[self.weights != 0]).astype(np.float64)
        return magnitudes


def count_components(cells: Integers, shape: tuple[int, ...]) -> int:
    """Return the components of the layer graph whose edges are these cells, isolated neurons counted; by scipy.

    Examples
    --------
    >>> count_components(np.array([0, 1]), (2, 2))
    2
    """
    m, n = shape
    rows, cols = np.divmod(cells, n)
    graph = coo_array((np.ones(cells.size), (rows, m + cols)), shape=(m + n, m + n))
    return int(connected_components(graph, directed=False, return_labels=False))
