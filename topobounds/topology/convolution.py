"""Convolutions whose weights are shared: which kernel weights carry the layer's spanning forest."""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._kernels.convolution import shared_kruskal
from topobounds._records import Record
from topobounds.layers import Conv
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
    n_input_cells, n_output_cells = math.prod(conv.input_size), math.prod(conv.output_size)
    merged = shared_kruskal(
        order,
        conv.in_channels // conv.groups,
        conv.out_channels // conv.groups,
        starts,
        edge_inputs,
        edge_outputs,
        n_input_cells,
        n_output_cells,
        conv.in_channels * n_input_cells,
        np.arange(conv.n_vertices),
        conv.n_vertices - conv.n_components,
        multiplicities,
    )
    shaped = multiplicities.reshape(conv.weight_shape)
    return CriticalWeights(shaped > 0, shaped, conv.n_vertices - merged)


def tap_edges(conv: Conv) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the edges of each kernel tap in one channel: starts (taps + 1), input positions, output positions."""
    starts, inputs, outputs = [0], [], []
    for tap in itertools.product(*(range(size) for size in conv.kernel_size)):
        ranges = [axis.real_outputs(t) for axis, t in zip(conv.axes, tap, strict=True)]
        output = np.indices([len(r) for r in ranges]).reshape(len(ranges), -1)
        output += np.array([[r.start] for r in ranges])
        steps = zip(output, conv.axes, tap, strict=True)
        read = [q * axis.stride - axis.padding + t * axis.dilation for q, axis, t in steps]
        inputs.append(np.ravel_multi_index(tuple(read), conv.input_size))
        outputs.append(np.ravel_multi_index(tuple(output), conv.output_size))
        starts.append(starts[-1] + output.shape[1])
    return np.array(starts), np.concatenate(inputs), np.concatenate(outputs)
