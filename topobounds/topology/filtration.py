"""The order in which the weights of a layer enter its graph.

The filtration is superlevel: every neuron is there from the start, edges enter by descending |w|. One total order
serves everywhere (forest, top-k, masks): |w| descending, then flat row-major index ascending.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds.weights import check_finite, mask_matrix, order_keys, weight_matrix


@dataclass(frozen=True, eq=False)
class Filtration:
    """The edges of a layer graph in order of entry.

    Attributes
    ----------
    weights : ndarray of shape (m, n)
        The weights as a finite matrix.
    cells : ndarray of int64
        Flat row-major indices of the layer's edges in the total order; edges of weight zero come last.
    n_nonzero : int
        How many of `cells` carry a weight other than zero.
    """

    weights: NDArray[Any]
    cells: NDArray[np.int64]
    n_nonzero: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n."""
        m, n = self.weights.shape
        return m, n


def filtration(weights: ArrayLike, mask: ArrayLike | None = None) -> Filtration:
    """Return the edges of a layer graph in the total order.

    Parameters
    ----------
    weights : array_like of shape (m, n)
        See `weight_matrix`.
    mask : array_like of bool of shape (m, n), optional
        The support: cells that are False are no edges and are not looked at.

    Returns
    -------
    Filtration
        Every cell of the support, zeros last.

    Raises
    ------
    ValueError
        If an argument has another shape or kind than said, or a weight of the support is NaN or infinite.
    """
    matrix = weight_matrix(weights)
    support = None if mask is None else mask_matrix(mask, matrix.shape)
    return sorted_cells(matrix, support)


def sorted_cells(matrix: NDArray[Any], support: NDArray[np.bool_] | None) -> Filtration:
    """Return the filtration of a matrix that `stored_matrix` and a support that `mask_matrix` returned.

    Raises
    ------
    ValueError
        If a weight of the support is NaN or infinite.
    """
    check_finite(matrix, support)
    keys = order_keys(matrix).ravel()
    if support is None:
        cells = np.argsort(~keys, kind="stable")
    else:
        present = np.flatnonzero(support)
        cells = present[np.argsort(~keys[present], kind="stable")]
    return Filtration(matrix, cells.astype(np.int64, copy=False), int(np.count_nonzero(keys[cells])))
