"""Critical weights of circular convolutions without their graph: a gain graph and a lattice for each component.

Where the padding is circular and the stride divides the input size, every tap joins the position y of an output
channel with the cell y + v of an input channel, coordinates taken modulo the map's size: the layer graph is the cover
of the graph of the channels with the gains v (Gross and Tucker, Topological Graph Theory, 1987, chapter 2). With a
stride, the cells of one residue modulo the stride count as a channel. A component of the channels is so many
components of the layer as the torus has elements outside the lattice that its closed walks generate. So the channels,
their offsets and these lattices are all there is to keep; docs/theory/convolutions.md has the proof.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error
from topobounds.layers import Axis, Conv
from topobounds.layers.convolution import checked_conv
from topobounds.topology.convolution import CriticalWeights
from topobounds.weights import check_finite, weight_array

_Vector = tuple[int, ...]
_Lattice = tuple[_Vector, ...]


def circular_critical_kernel_weights(weights: ArrayLike, conv: Conv) -> CriticalWeights:
    """Return the critical weights of a circular convolution, by a gain graph: a second road to them.

    The result is that of `critical_kernel_weights`, to the index; the work does not grow with the size of the map.
    It is meant as a check and for the docs: written in plain Python, it takes some microseconds for every weight up to
    the last critical one.

    Parameters
    ----------
    weights : array_like of shape ``conv.weight_shape``
        The kernel; weights of exactly zero make no edge.
    conv : Conv
        A geometry along every dimension of which the padding is circular, or no padding is read, and
        ``output size * stride == input size``.

    Returns
    -------
    CriticalWeights
        Indices in order of entry (|w| descending, ties by flat index), with their merges.

    Raises
    ------
    ValueError
        If `conv` is no such Conv, the shape of the kernel is not its own, or a weight is NaN or infinite.

    See Also
    --------
    critical_kernel_weights : For every geometry, fast.

    Notes
    -----
    Statement and proof: docs/theory/convolutions.md, "Circular padding: a gain graph".

    Examples
    --------
    >>> conv = Conv(16, 16, (3, 3), (8, 8), padding=1, padding_mode="circular")
    >>> kernel = np.random.default_rng(0).standard_normal(conv.weight_shape)
    >>> critical = circular_critical_kernel_weights(kernel, conv)
    >>> critical.n_critical, critical.n_components, int(critical.merges.sum())
    (34, 1, 2047)
    """
    graph = _GainGraph(checked_conv(conv))
    magnitudes = _magnitudes(weights, conv)
    indices: list[int] = []
    merges: list[int] = []
    ranks: list[int] = []
    remaining = conv.n_vertices - conv.n_components
    for rank, index in enumerate(np.argsort(-magnitudes.astype(np.float64), kind="stable").tolist(), 1):
        if not remaining or not magnitudes[index]:
            break
        merged = graph.add(index)
        if merged:
            indices.append(index)
            merges.append(merged)
            ranks.append(rank)
            remaining -= merged
    return CriticalWeights(
        indices=np.array(indices, np.int64),
        merges=np.array(merges, np.int64),
        weights=magnitudes[indices],
        ranks=np.array(ranks, np.int64),
        weight_shape=conv.weight_shape,
        shape=(conv.n_inputs, conv.n_outputs),
        n_critical=len(indices),
        alpha=sum(merges),
        n_components=conv.n_vertices - sum(merges),
        _conv=conv,
    )


def _magnitudes(weights: ArrayLike, conv: Conv) -> NDArray[np.generic]:
    """Return |w| of a kernel, flat."""
    kernel = weight_array(weights)
    if kernel.shape != conv.weight_shape:
        rule = f"an array of the shape of the kernel, {conv.weight_shape}"
        raise argument_error("weights", rule, kernel.shape)
    check_finite(kernel.reshape(kernel.shape[0], -1), None, conv.weight_shape)
    return np.asarray(np.abs(kernel).ravel())


@dataclass(frozen=True)
class _Tap:
    """Where a tap leads: the position y to the cell y + shift among those of one residue, in units of the stride."""

    residue: int
    shift: _Vector


class _GainGraph:
    """The channels of a convolution, joined by the weights added so far.

    Vertices are the channels on the side of the kernel's positions, then those of the cells, one for each residue.
    ``offset[v]`` takes the coordinates of v to those of ``parent[v]``: the neuron (v, y) is connected with
    (parent[v], y + offset[v]). ``lattice[root]`` holds the differences of coordinates between connected neurons of
    one channel, the periods of the torus among them.
    """

    def __init__(self, conv: Conv) -> None:
        for axis in conv.axes:
            _check_torus(axis)
        self.periods = tuple(axis.positions for axis in conv.axes)
        self.taps = _taps(conv)
        self.n_firsts, self.n_seconds = conv.weight_shape[:2]
        self.firsts_per_group = self.n_firsts // conv.groups
        self.n_residues = math.prod(conv.stride)
        n_vertices = self.n_firsts + conv.groups * self.n_seconds * self.n_residues
        self.parent = list(range(n_vertices))
        self.offset = [(0,) * len(self.periods)] * n_vertices
        torus = tuple(tuple(p * (a == b) for b in range(len(self.periods))) for a, p in enumerate(self.periods))
        self.lattice = [torus] * n_vertices

    def add(self, weight: int) -> int:
        """Add all edges of a weight, and return how many components of the layer graph they merge."""
        pair, tap = divmod(weight, len(self.taps))
        first, second = divmod(pair, self.n_seconds)
        channel = first // self.firsts_per_group * self.n_seconds + second
        residue, shift = self.taps[tap].residue, self.taps[tap].shift
        position_root, position_offset = self._root(first)
        cell_root, cell_offset = self._root(self.n_firsts + channel * self.n_residues + residue)
        # From the root of the cells over the tap to the root of the positions.
        gain = tuple(p - s - c for p, s, c in zip(position_offset, shift, cell_offset, strict=True))
        lattice = self.lattice[position_root]
        before = _n_cosets(lattice)
        if position_root == cell_root:
            grown = _with_vector(lattice, gain)
        else:
            before += _n_cosets(self.lattice[cell_root])
            grown = lattice
            for vector in self.lattice[cell_root]:
                grown = _with_vector(grown, vector)
            self.parent[cell_root] = position_root
            self.offset[cell_root] = self._reduced(gain)
        self.lattice[position_root] = grown
        return before - _n_cosets(grown)

    def _root(self, vertex: int) -> tuple[int, _Vector]:
        """Return the root of a vertex and the offset to it, and hang the vertex there."""
        path = []
        while self.parent[vertex] != vertex:
            path.append(vertex)
            vertex = self.parent[vertex]
        offset = (0,) * len(self.periods)
        for each in reversed(path):
            offset = self._reduced(tuple(map(sum, zip(self.offset[each], offset, strict=True))))
            self.parent[each] = vertex
            self.offset[each] = offset
        return vertex, offset

    def _reduced(self, vector: _Vector) -> _Vector:
        return tuple(x % period for x, period in zip(vector, self.periods, strict=True))


def _check_torus(axis: Axis) -> None:
    reads_no_padding = not axis.padding and (axis.positions - 1) * axis.stride + axis.span <= axis.size
    wraps = axis.padding_mode == "circular" or reads_no_padding
    if not wraps or axis.positions * axis.stride != axis.size:
        rule = "a Conv with circular padding and an output of input size / stride along every dimension"
        raise argument_error("conv", rule, axis)


def _taps(conv: Conv) -> list[_Tap]:
    """Return the taps in the order of the kernel."""
    along = [
        [divmod(tap * axis.dilation - axis.padding, axis.stride) for tap in range(axis.kernel)] for axis in conv.axes
    ]
    taps = []
    for steps in itertools.product(*along):
        residue = 0
        for (_, remainder), axis in zip(steps, conv.axes, strict=True):
            residue = residue * axis.stride + remainder
        taps.append(_Tap(residue, tuple(shift for shift, _ in steps)))
    return taps


# -- lattices --------------------------------------------------------------------------------------------------------
# A lattice of full rank in Z^d is the rows of its Hermite form: upper triangular, its diagonal positive, each entry
# above a diagonal one at least 0 and less than that. The form is unique, so equal lattices are equal tuples.


def _n_cosets(lattice: _Lattice) -> int:
    """Return the index of the lattice in Z^d."""
    return math.prod(row[axis] for axis, row in enumerate(lattice))


def _with_vector(lattice: _Lattice, vector: _Vector) -> _Lattice:
    """Return the lattice generated by a lattice and one vector more.

    Examples
    --------
    >>> _with_vector(((8, 0), (0, 8)), (1, 3))
    ((1, 3), (0, 8))
    >>> _with_vector(((1, 3), (0, 8)), (2, 0))
    ((1, 1), (0, 2))
    """
    rows = []
    rest = vector
    for axis, row in enumerate(lattice):
        pivot, rest = _eliminated(row, rest, axis)
        rows.append(pivot)
    for axis in range(1, len(rows)):  # from the left, for what is taken off changes the entries further right
        for above in range(axis):
            rows[above] = _minus(rows[above], rows[above][axis] // rows[axis][axis], rows[axis])
    return tuple(rows)


def _eliminated(row: _Vector, vector: _Vector, axis: int) -> tuple[_Vector, _Vector]:
    """Return two vectors that generate the same: one positive at `axis`, the other 0 there, by Euclid's algorithm."""
    while vector[axis]:
        row, vector = vector, _minus(row, row[axis] // vector[axis], vector)
    return (row if row[axis] > 0 else _minus((0,) * len(row), 1, row)), vector


def _minus(vector: _Vector, times: int, other: _Vector) -> _Vector:
    return tuple(x - times * y for x, y in zip(vector, other, strict=True))
