"""A convolution along one spatial dimension, one channel to one channel, and its graph."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AxisGraph:
    """The one-dimensional, one-channel layer graph, counted.

    ``n_joined`` counts the components that have an edge; a cell or position is touched if it has one.
    """

    n_edges: int
    n_joined: int
    touched_cells: int
    touched_positions: int


@dataclass(frozen=True)
class Axis:
    """A convolution along one spatial dimension, one channel to one channel.

    A kernel at `positions` places reads `size` cells: tap t at position q reads the cell
    ``q stride - padding + t dilation``. For a convolution cells are inputs and positions outputs; for a transposed
    one it is the other way round.
    """

    size: int
    positions: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    padding_mode: str = "zeros"

    @property
    def span(self) -> int:
        """Cells from the first tap to the last."""
        return self.dilation * (self.kernel - 1) + 1

    def copied(self, cell: Any) -> Any:
        """Return the real cell that is copied to `cell`, an integer or an array of them; not for zero padding."""
        last = self.size - 1
        if self.padding_mode == "circular":
            return cell % self.size
        if self.padding_mode == "reflect":
            return last - abs(last - cell % max(1, 2 * last))
        return (abs(cell) - abs(cell - last) + last) // 2  # cell clipped to 0 .. last

    def real_cells(self, position: int) -> range:
        """Return the cells of the image that the taps read at `position`, padding left out."""
        start = position * self.stride - self.padding
        first = max(0, -(start // self.dilation))
        last = min(self.kernel - 1, (self.size - 1 - start) // self.dilation)
        return range(start + first * self.dilation, start + last * self.dilation + 1, self.dilation)

    def copied_cells(self, position: int) -> set[int]:
        """Return the cells that the taps over the padding read at `position`."""
        if self.padding_mode == "zeros":
            return set()
        start = position * self.stride - self.padding
        reads = range(start, start + self.span, self.dilation)
        return {self.copied(cell) for cell in reads if not 0 <= cell < self.size}

    @cached_property
    def graph(self) -> AxisGraph:
        """The one-channel graph along this dimension; takes a time of O(size + positions) unless padding is copied."""
        parent = list(range(self.size + self.positions))

        def find(x: int) -> int:
            while parent[x] != x:
                parent[x] = x = parent[parent[x]]
            return x

        n_edges, touched, reach = 0, set(), dict[int, int]()
        for position in range(self.positions):
            real, copied = self.real_cells(position), self.copied_cells(position)
            n_edges += len(real) + sum(cell not in real for cell in copied)
            vertex = self.size + position
            for cell in itertools.chain(self._fresh(real, reach), copied):
                touched |= {cell, vertex}
                parent[find(cell)] = find(vertex)
        cells = sum(v < self.size for v in touched)
        return AxisGraph(n_edges, len({find(v) for v in touched}), cells, len(touched) - cells)

    def _fresh(self, real: range, reach: dict[int, int]) -> range:
        """Return the part of `real` that earlier positions have not strung together, with one cell they have.

        ``reach[r]`` is the last cell read so far among those of residue r modulo the dilation; runs of one residue
        begin and end in order, so what lies between the start of this one and that cell is one component already.
        """
        if not real:
            return real
        residue = real[0] % self.dilation
        start = max(real[0], reach.get(residue, 0))
        reach[residue] = real[-1]
        return range(start, real[-1] + 1, self.dilation)


def axis_edges(axis: Axis) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return tap, cell and kernel position of every edge along one dimension."""
    taps, positions = np.indices((axis.kernel, axis.positions)).reshape(2, -1)
    cells = positions * axis.stride - axis.padding + taps * axis.dilation
    if axis.padding_mode != "zeros":
        return taps, axis.copied(cells), positions
    real = (cells >= 0) & (cells < axis.size)
    return taps[real], cells[real], positions[real]
