"""Convolutions whose weights are shared: which kernel weights carry the layer's spanning forest."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, choice
from topobounds._kernels.tied_graph import label_vertices
from topobounds._memory import check_memory
from topobounds._types import Zeros
from topobounds.layers import Axis, Conv
from topobounds.layers.axis import axis_edges
from topobounds.layers.convolution import checked_conv
from topobounds.topology import tied_graph
from topobounds.topology.deficit import Deficit
from topobounds.topology.forest import RankedForest
from topobounds.topology.persistence import PersistenceDiagram, neural_persistence
from topobounds.weights import as_array, check_finite, mask_matrix, order_keys, weight_array

_VERTEX_BYTES = 16  # that a neuron takes at least, its parent and what tells classes of them apart
_MOST_KEPT = 2**18  # weights of a kernel, and edges from one channel to another, of which the graph is kept
_MOST_EDGES = 2**26  # from one channel to another: some 10 s and 5 GB


@dataclass(frozen=True, eq=False, repr=False)
class CriticalWeights(RankedForest):
    """The kernel weights that carry a convolution's spanning forest.

    Attributes
    ----------
    indices : ndarray of int64, one entry per critical weight
        Flat indices into the kernel, in order of entry: descending |w|, ties by flat index. With ``zeros="edge"``
        weights of zero come last.
    merges : ndarray of int64, one entry per critical weight
        How many components each merges: its multiplicity in the persistence diagram. Their sum is the number of edges
        of the spanning forest.
    weights : ndarray, one entry per critical weight
        |w| of each, descending, in the type of the weights.
    ranks : ndarray of int64, one entry per critical weight
        Position of each among all stored weights (of the support) in the total order, from 1, ascending.
    weight_shape : tuple of int
        Shape of the kernel.
    shape : tuple of int
        Input and output neurons of the layer.
    n_critical : int
        Critical weights that are not zero; they come first.
    alpha : int
        Edges of the forest of the non-zero weights, the sum of their merges.
    n_components : int
        Components of the graph this forest spans, isolated neurons counted.
    """

    indices: NDArray[np.int64]
    merges: NDArray[np.int64]
    weights: NDArray[Any]
    ranks: NDArray[np.int64]
    weight_shape: tuple[int, ...]
    shape: tuple[int, int]
    n_critical: int
    alpha: int
    n_components: int
    _conv: Conv

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """True where a weight is critical and not zero; of the kernel's shape."""
        mask = np.zeros(self.weight_shape, np.bool_)
        mask.flat[self.indices[: self.n_critical]] = True
        mask.setflags(write=False)
        return mask

    @cached_property
    def multiplicities(self) -> NDArray[np.int64]:
        """The merges of every weight, 0 where it is not critical; of the kernel's shape."""
        multiplicities = np.zeros(self.weight_shape, np.int64)
        multiplicities.flat[self.indices] = self.merges
        multiplicities.setflags(write=False)
        return multiplicities

    @property
    def ratio(self) -> Fraction | None:
        """Stored weights over critical weights that are not zero (``eta_shared``); None if there is none of these."""
        return Fraction(math.prod(self.weight_shape), self.n_critical) if self.n_critical else None

    @property
    def w_max(self) -> float:
        """The largest |w| among the weights that make an edge; 0 if there is none.

        It is that of the first critical weight. Weights whose tap reads only padding, at every position, do not count:
        they are in no graph, and a pruning that drops them must not rescale the diagram.
        """
        return float(self.weights[0]) if self.weights.size else 0.0

    @property
    def diagram(self) -> PersistenceDiagram:
        """The layer's persistence diagram, a point (1, |w| / w_max) for every merge.

        ``edges`` holds the critical weight of each point as row and column of the kernel flattened to
        (weight_shape[0], -1).
        """
        values = self.weights.astype(np.float64)
        deaths = np.repeat(values / self.w_max if self.w_max else values, self.merges)
        places = np.divmod(self.indices, math.prod(self.weight_shape[1:]))
        return PersistenceDiagram(
            births=np.ones(deaths.size),
            deaths=deaths,
            edges=np.repeat(np.stack(places, axis=1), self.merges, axis=0),
            n_essential=self.n_components,
            shape=self.shape,
            alpha=self.alpha,
            w_max=self.w_max,
            backend="kruskal",
        )

    @property
    def _n_carriers(self) -> int:
        return self.n_critical

    @property
    def _n_stored(self) -> int:
        return math.prod(self.weight_shape)

    def _deficit_of_first(self, n_carriers: int) -> Deficit:
        """Return the deficit in neurons, channel by position, not in channels.

        The edges of the forest join neurons, and `alpha` counts them: so only with neurons is a lost edge a silent
        neuron or a fragment. A padded border can leave neurons silent in a channel that has weights.
        """
        silent_inputs, silent_outputs = (
            touched.size - int(np.count_nonzero(touched)) for touched in _touched(self.indices[:n_carriers], self._conv)
        )
        n_components = sum(self.shape) - int(self.merges[:n_carriers].sum())
        return Deficit(silent_inputs, silent_outputs, n_components - silent_inputs - silent_outputs)

    def __repr__(self) -> str:
        return (
            f"CriticalWeights(weight_shape={self.weight_shape}, n_critical={self.n_critical}, alpha={self.alpha}, "
            f"n_components={self.n_components})"
        )


def critical_kernel_weights(
    weights: ArrayLike, conv: Conv, mask: ArrayLike | None = None, *, zeros: Zeros = "absent"
) -> CriticalWeights:
    """Return the critical weights of a convolution kernel: the compression convention ``shared``.

    Kernel weights are taken in the total order (|w| descending, ties by flat index of the kernel); each adds all its
    edges, at every output position where its tap reads a real input. It is critical if they merge components.
    Keeping exactly the critical weights preserves the persistence diagram with its multiplicities. Without ties they
    are the unique smallest such set; with ties the set depends on the order, and need not be smallest.

    Parameters
    ----------
    weights : array_like of shape ``conv.weight_shape``
        The kernel, as torch stores it: (out_channels, in_channels / groups, *kernel_size), or, transposed,
        (in_channels, out_channels / groups, *kernel_size). Real; types as in `maximum_spanning_forest`.
    conv : Conv
        The geometry.
    mask : array_like of bool of shape ``conv.weight_shape``, optional
        The support: a weight that is False makes no edge, and is not looked at.
    zeros : {"absent", "edge"}
        What a weight of exactly zero makes: no edges, or edges of weight 0, which come after all others. `mask`,
        `n_critical` and `ratio` of the result concern the non-zero weights either way.

    Returns
    -------
    CriticalWeights
        The critical weights in order of entry with their multiplicities, the components, the ratio stored / critical
        and the diagram.

    Raises
    ------
    ValueError
        If `conv` is no `Conv` or larger than `check_edges` admits, the shape of the kernel or the mask is not that of
        `conv`, or a weight of the support is NaN or infinite.

    Notes
    -----
    This is no part of the paper, whose closed form counts one channel and every position as a weight of its own.

    A convolution whose spatial graph falls apart (1x1, stride as large as the kernel, dilation) is solved once for
    every kind of part. A connected ungrouped layer has at least ``in_channels + out_channels - 1`` critical weights.

    Examples
    --------
    >>> kernel = np.random.default_rng(0).standard_normal((16, 16, 3, 3))
    >>> critical = critical_kernel_weights(kernel, Conv(16, 16, (3, 3), (8, 8), padding=1))
    >>> critical.n_critical, critical.n_components, int(critical.multiplicities.sum())
    (73, 1, 2047)
    >>> round(float(critical.ratio), 2), critical.diagram
    (31.56, PersistenceDiagram(shape=(1024, 1024), points=2047, n_essential=1, w_max=3.89942, backend='kruskal'))
    """
    choice("zeros", zeros, ("absent", "edge"))
    matrix = _kernel_matrix(weights, checked_conv(conv))
    check_edges(conv)
    support = None if mask is None else _support(mask, conv, matrix.shape)
    check_finite(matrix, support, conv.weight_shape)
    keys = order_keys(matrix)
    levels = tied_graph.entry_levels(keys, support, zeros).ravel()
    indices, merges = critical_by_level(levels, conv)
    values = np.abs(matrix.ravel()[indices])
    n_critical = int(np.count_nonzero(values))
    return CriticalWeights(
        indices=indices,
        merges=merges,
        weights=values,
        ranks=tied_graph.ranks_in_order(matrix, support, zeros, indices),
        weight_shape=conv.weight_shape,
        shape=(conv.n_inputs, conv.n_outputs),
        n_critical=n_critical,
        alpha=int(merges[:n_critical].sum()),
        n_components=conv.n_vertices - int(merges.sum()),
        _conv=conv,
    )


def critical_by_level(levels: NDArray[Any], conv: Conv) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the flat indices of the critical weights of all parts of a layer in order of entry, and their merges.

    Parameters
    ----------
    levels : ndarray of unsigned integers, one entry per kernel weight
        See `topobounds.topology.tied_graph.entry_levels`.
    conv : Conv
        The geometry, checked.
    """
    found, merged = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    small = max(conv.n_weights, _spatial_edges(conv)) <= _MOST_KEPT
    for copies, graph in _kept_graphs(conv) if small else layer_graphs(conv):
        indices, merges = tied_graph.critical_weights(levels, graph, graph.n_vertices - conv.groups)
        found.append(indices)
        merged.append(copies * merges)
    indices, part = np.unique(np.concatenate(found), return_inverse=True)
    merges = np.zeros(indices.size, np.int64)
    np.add.at(merges, part, np.concatenate(merged))
    order = np.argsort(~levels[indices], kind="stable")
    return indices[order], merges[order]


def filter_persistence(weights: ArrayLike, conv: Conv, *, p: float = 2) -> float:
    """Return the neural persistence of a convolution as the paper's authors computed it: summed over its filters.

    For every filter f the one-channel kernel ``k_f = sum over input channels of |W[f, c]|`` slides over the padded
    input, padding cells being neurons like the others; each gives the p-norm of ``1 - |k_f| / max |k_f|`` over the
    spanning forest of its layer graph, unnormalised (convention ``balwani``), and these are added up.

    It is another quantity than ``neural_persistence(critical_kernel_weights(weights, conv).diagram)``, which is that
    of the layer graph itself: with all channels, and with real neurons only.

    Parameters
    ----------
    weights : array_like of shape ``conv.weight_shape``
        The kernel, real and finite.
    conv : Conv
        The geometry; not transposed, and without groups, which the authors' code does not have.
    p : float
        Order of the norm, above 0.

    Returns
    -------
    float
        At least 0; a filter that is all zeros adds 0.

    Raises
    ------
    ValueError
        As `critical_kernel_weights` and `neural_persistence`, or if `conv` is transposed or has groups.

    References
    ----------
    Balwani & Krzyston, PMLR 196, 2022, the notebook of section 2.3's experiment.

    Examples
    --------
    >>> kernel = np.random.default_rng(0).standard_normal((6, 1, 3, 3))
    >>> conv = Conv(1, 6, (3, 3), (28, 28), padding=1)
    >>> round(filter_persistence(kernel, conv), 3)
    44.955
    """
    matrix = _kernel_matrix(weights, checked_conv(conv))
    if conv.transposed or conv.groups > 1:
        raise argument_error("conv", "a convolution without groups that is not transposed", conv)
    check_finite(matrix, None, conv.weight_shape)
    one_channel = Conv(1, 1, conv.kernel_size, conv.padded_size, conv.stride, 0, conv.dilation)
    magnitudes = np.abs(matrix.astype(np.float64)).reshape(conv.weight_shape)
    kernels = magnitudes.sum(axis=1).reshape(conv.out_channels, 1, 1, *conv.kernel_size)
    diagrams = (critical_kernel_weights(kernel, one_channel).diagram for kernel in kernels)
    return math.fsum(neural_persistence(diagram, p=p) for diagram in diagrams)


def check_edges(conv: Conv) -> None:
    """Refuse a convolution whose graph takes too long, or too much memory, to go through.

    Raises
    ------
    ValueError
        If it has more than `_MOST_EDGES` edges from one channel to another, those over the padding counted.
    """
    edges = _spatial_edges(conv)
    if edges > _MOST_EDGES:
        rule = f"so small that two channels have at most {_MOST_EDGES} edges between them, not {edges},"
        raise ValueError(f"Argument 'input_size' must be {rule} which {conv.input_size} makes.")


def _kernel_matrix(weights: ArrayLike, conv: Conv) -> NDArray[Any]:
    kernel = weight_array(weights)
    if kernel.shape != conv.weight_shape:
        raise ValueError(
            f"Argument 'weights' must have the shape of the kernel, {conv.weight_shape}, not {kernel.shape}."
        )
    return kernel.reshape(kernel.shape[0], -1)


def _support(mask: ArrayLike, conv: Conv, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = as_array("mask", mask)
    if array.shape != conv.weight_shape:
        raise ValueError(f"Argument 'mask' must have the shape of the kernel, {conv.weight_shape}, not {array.shape}.")
    return mask_matrix(array, conv.weight_shape).reshape(shape)


def _touched(indices: NDArray[np.int64], conv: Conv) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which input and output neurons, channel by channel, have an edge of one of these kernel weights."""
    n_first, n_second = conv.weight_shape[:2]
    pairs, taps = np.divmod(indices, math.prod(conv.kernel_size))
    firsts, seconds = np.divmod(pairs, n_second)
    seconds += firsts // (n_first // conv.groups) * n_second  # the channels of one group follow those of another
    cells_of_tap, positions_of_tap = _reach(conv)
    positions = np.zeros((n_first, positions_of_tap.shape[1]), np.bool_)
    cells = np.zeros((n_second * conv.groups, cells_of_tap.shape[1]), np.bool_)
    for tap in np.unique(taps):
        positions[firsts[taps == tap]] |= positions_of_tap[tap]
        cells[seconds[taps == tap]] |= cells_of_tap[tap]
    return (positions, cells) if conv.transposed else (cells, positions)


def _reach(conv: Conv) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which cells each tap of a channel reads, and at which positions it reads one: a row for every tap."""
    cells = positions = np.ones((1, 1), np.bool_)
    for axis in conv.axes:
        axis_taps, axis_cells, axis_positions = axis_edges(axis)
        reads = np.zeros((axis.kernel, axis.size), np.bool_)
        reads[axis_taps, axis_cells] = True
        used = np.zeros((axis.kernel, axis.positions), np.bool_)
        used[axis_taps, axis_positions] = True
        # A tap of several dimensions reads the product of what it reads along each.
        cells, positions = np.kron(cells, reads), np.kron(positions, used)
    return cells, positions


def _spatial_edges(conv: Conv) -> int:
    """Return the edges from one channel to another, those over the padding counted."""
    return math.prod(axis.kernel * axis.positions for axis in conv.axes)


@lru_cache(maxsize=8)
def _kept_graphs(conv: Conv) -> tuple[tuple[int, tied_graph.SharedGraph], ...]:
    """Return `layer_graphs`; kept, since a kernel is read in many orders, and the layers of a net share geometries."""
    return tuple(layer_graphs(conv))


def layer_graphs(conv: Conv) -> Iterator[tuple[int, tied_graph.SharedGraph]]:
    """Yield the connected parts of the spatial graph with all their channels, equal ones once, and how many there are.

    A 1x1 convolution is so many copies of a dense layer; most others are one part.
    """
    n_first, n_second = conv.weight_shape[:2]
    group = np.arange(n_first, dtype=np.int32) // (n_first // conv.groups)
    firsts = np.repeat(np.arange(n_first, dtype=np.int32), n_second)
    seconds = n_first + np.add.outer(group * n_second, np.arange(n_second, dtype=np.int32)).ravel()
    of_axis = {axis: axis_parts(axis) for axis in set(conv.axes)}
    for parts in itertools.product(*(of_axis[axis] for axis in conv.axes)):
        cells = math.prod(part.n_cells for _, part in parts)
        positions = math.prod(part.n_positions for _, part in parts)
        vertices = n_first * positions + n_second * conv.groups * cells
        check_memory(f"A layer graph of {vertices} connected neurons", _VERTEX_BYTES * vertices)
        part = reduce(AxisPart.times, (part for _, part in parts))
        sizes = np.repeat([part.n_positions, part.n_cells], [n_first, n_second * conv.groups])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        copies = math.prod(copies for copies, _ in parts)
        yield copies, tied_graph.SharedGraph(starts, firsts, seconds, np.zeros_like(firsts), part.n_taps, part.edges)


@dataclass(frozen=True, eq=False)
class AxisPart:
    """A connected part of the graph of one channel along some dimensions: its edges, cells and positions renumbered."""

    n_taps: int
    n_cells: int
    n_positions: int
    taps: NDArray[np.int64]
    cells: NDArray[np.int64]
    positions: NDArray[np.int64]

    def times(self, other: "AxisPart") -> "AxisPart":
        """Return the part of the product graph: cells with cells, positions with positions, taps with taps."""
        return AxisPart(
            self.n_taps * other.n_taps,
            self.n_cells * other.n_cells,
            self.n_positions * other.n_positions,
            np.add.outer(self.taps * other.n_taps, other.taps).ravel(),
            np.add.outer(self.cells * other.n_cells, other.cells).ravel(),
            np.add.outer(self.positions * other.n_positions, other.positions).ravel(),
        )

    @property
    def edges(self) -> tied_graph.TapEdges:
        """The edges by tap, from positions to cells."""
        order = np.argsort(self.taps, kind="stable")
        starts = np.searchsorted(self.taps[order], np.arange(self.n_taps + 1))
        return tied_graph.TapEdges(starts, self.positions[order], self.cells[order])


def axis_parts(axis: Axis) -> list[tuple[int, AxisPart]]:
    """Return the connected parts of the graph along one dimension, equal ones once, and how many there are of each."""
    taps, cells, positions = axis_edges(axis)
    labels = np.empty(axis.size + axis.positions, np.int64)
    label_vertices(cells, axis.size + positions, np.arange(labels.size), labels)
    cell, position = _places(labels[: axis.size])[cells], _places(labels[axis.size :])[positions]
    codes = (taps * axis.size + cell) * axis.positions + position
    order = np.argsort(labels[cells], kind="stable")
    ends = np.flatnonzero(np.diff(labels[cells[order]], append=-1)) + 1
    codes = codes[order]
    parts: dict[bytes, int] = {}
    for start, end in itertools.pairwise([0, *ends.tolist()]):
        equal = codes[start:end].tobytes()
        parts[equal] = parts.get(equal, 0) + 1
    return [(copies, _decode(axis, np.frombuffer(equal, np.int64))) for equal, copies in parts.items()]


def _places(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each entry among those of its label."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    places = np.empty_like(labels)
    places[order] = np.arange(labels.size) - np.repeat(starts, np.diff(starts, append=labels.size))
    return places


def _decode(axis: Axis, codes: NDArray[np.int64]) -> AxisPart:
    rest, positions = np.divmod(codes, axis.positions)
    taps, cells = np.divmod(rest, axis.size)
    return AxisPart(axis.kernel, int(cells.max()) + 1, int(positions.max()) + 1, taps, cells, positions)
