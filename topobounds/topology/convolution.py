"""Convolutions whose weights are shared: which kernel weights carry the layer's spanning forest."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._kernels.convolution import shared_kruskal
from topobounds._records import Record
from topobounds.layers import Axis, Conv
from topobounds.topology.filtration import as_array, check_finite, order_keys, weight_matrix


@dataclass(frozen=True, eq=False)
class CriticalWeights(Record):
    """The kernel weights that carry a convolution's spanning forest.

    Attributes
    ----------
    mask : ndarray of bool of the kernel's shape
        True where a weight is critical: adding all its edges at once merges at least two components.
    multiplicities : ndarray of int64 of the kernel's shape
        How many merges each weight makes; their sum is the number of forest edges.
    n_components : int
        Components of the layer graph of the non-zero kernel weights, isolated neurons counted.
    """

    mask: NDArray[np.bool_]
    multiplicities: NDArray[np.int64]
    n_components: int

    @property
    def n_critical(self) -> int:
        """Number of critical weights."""
        return int(self.mask.sum())

    @property
    def ratio(self) -> Fraction | None:
        """Stored weights over critical weights (``eta_shared``); None if no weight is critical."""
        return Fraction(self.mask.size, self.n_critical) if self.n_critical else None


def critical_kernel_weights(weights: ArrayLike, conv: Conv) -> CriticalWeights:
    """Return the critical weights of a convolution kernel: the compression convention ``shared``.

    Kernel weights are taken in the total order (|w| descending, ties by flat index of the kernel); each adds all its
    edges, at every output position where its tap reads a real input. It is critical if they merge components.
    Keeping exactly the critical weights preserves the persistence diagram with its multiplicities. Without ties they
    are the unique smallest such set; with ties the set depends on the order.

    Parameters
    ----------
    weights : array_like of shape (out_channels, in_channels / groups, *kernel_size)
        The kernel, as torch stores it. Zeros make no edges.
    conv : Conv
        The geometry.

    Returns
    -------
    CriticalWeights
        Mask, multiplicities, components and the ratio stored / critical.

    Raises
    ------
    ValueError
        If the shape is not that of `conv`, or a weight is NaN or infinite.

    Notes
    -----
    This is no part of the paper, whose closed form counts one channel and every position as a weight of its own.

    Examples
    --------
    >>> kernel = np.random.default_rng(0).standard_normal((16, 16, 3, 3))
    >>> critical = critical_kernel_weights(kernel, Conv(16, 16, (3, 3), (8, 8), padding=1))
    >>> critical.n_critical, critical.n_components, int(critical.multiplicities.sum())
    (73, 1, 2047)
    """
    kernel = as_array("weights", weights)
    if kernel.shape != conv.weight_shape:
        raise ValueError(
            f"Argument 'weights' must have the shape of the kernel, {conv.weight_shape}, not {kernel.shape}."
        )
    matrix = weight_matrix(kernel.reshape(kernel.shape[0], -1))
    check_finite(matrix)
    keys = order_keys(matrix).ravel()
    order = np.argsort(~keys, kind="stable")[: np.count_nonzero(keys)]
    starts, edge_inputs, edge_outputs = tap_edges(conv)
    multiplicities = np.zeros(keys.size, np.int64)
    n_cells, n_positions = math.prod(axis.size for axis in conv.axes), math.prod(conv.kernel_positions)
    merged = shared_kruskal(
        order,
        conv.weight_shape[1],
        conv.weight_shape[0] // conv.groups,
        starts,
        edge_inputs,
        edge_outputs,
        n_cells,
        n_positions,
        conv.weight_shape[1] * conv.groups * n_cells,
        np.arange(conv.n_vertices),
        conv.n_vertices - conv.n_components,
        multiplicities,
    )
    shaped = multiplicities.reshape(conv.weight_shape)
    return CriticalWeights(shaped > 0, shaped, conv.n_vertices - merged)


def tap_edges(conv: Conv) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the edges of each kernel tap in one channel: starts (taps + 1), cells, kernel positions."""
    taps, cells, positions = (np.zeros(1, np.int64) for _ in range(3))
    for axis in conv.axes:
        tap, cell, position = axis_edges(axis)
        taps = np.add.outer(taps * axis.kernel, tap).ravel()
        cells = np.add.outer(cells * axis.size, cell).ravel()
        positions = np.add.outer(positions * axis.positions, position).ravel()
    order = np.argsort(taps, kind="stable")
    starts = np.searchsorted(taps[order], np.arange(math.prod(conv.kernel_size) + 1))
    return starts, cells[order], positions[order]


def axis_edges(axis: Axis) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return tap, cell and kernel position of every edge along one dimension."""
    taps, positions = np.indices((axis.kernel, axis.positions)).reshape(2, -1)
    cells = positions * axis.stride - axis.padding + taps * axis.dilation
    if axis.padding_mode != "zeros":
        return taps, axis.copied(cells), positions
    real = (cells >= 0) & (cells < axis.size)
    return taps[real], cells[real], positions[real]
