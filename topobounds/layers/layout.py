"""How the graphs of a layer lie in the tensor that stores them: in which blocks, along which axis, in which order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Layout:
    """How the parts of a tensor lie in it; by default in equal blocks of rows.

    The steps from the tensor to its parts, in this order: its axes are exchanged (`order`), the entries of the leading
    axes taken one by one (`stacked`), the rest read as a matrix or kernel (`row_axes`), and this cut along one axis
    (`axis`, `sizes`, `interleaved`).

    Attributes
    ----------
    order : tuple of int
        The axes in the order in which torch has them: ``(3, 2, 0, 1)`` of a kernel of Keras. Empty for all as they are.
    stacked : int
        Leading axes of which each entry is a matrix or kernel by itself: 1 for experts in one tensor.
    row_axes : int
        Axes that are the rows of a matrix, the rest being its columns.
    axis : int
        Axis of the matrix or kernel along which its parts lie side by side: 1 where its columns are the outputs.
    sizes : tuple of int
        Their lengths along this axis, over all groups; empty where they are equal.
    interleaved : int
        Groups along this axis, each with a piece of every part: the heads of attention. 1 for each part in one piece.

    Examples
    --------
    >>> heads = Layout(sizes=(4, 2, 2), interleaved=2)
    >>> [part.ravel().tolist() for part in heads.places(np.arange(8)[:, None], 3)]
    [[0, 1, 4, 5], [2, 6], [3, 7]]
    """

    order: tuple[int, ...] = ()
    stacked: int = 0
    row_axes: int = 1
    axis: int = 0
    sizes: tuple[int, ...] = ()
    interleaved: int = 1

    @property
    def cuts_one_axis(self) -> bool:
        """Whether the parts are slices of the tensor along one axis."""
        return not self.order and not self.stacked and self.interleaved == 1

    def part_shapes(self, shape: tuple[int, ...], n_parts: int) -> list[tuple[int, ...]]:
        """Return the shape of each part of a tensor: of a matrix rows and columns, each perhaps of several axes.

        Raises
        ------
        ValueError
            If the tensor cannot be cut so.
        """
        ordered = tuple(shape[axis] for axis in self.order) if self.order else shape
        n_slices = math.prod(ordered[: self.stacked])
        inner = list(ordered[self.stacked :])
        if not n_slices or n_parts % n_slices or len(inner) <= self.axis:
            raise ValueError(f"{n_parts} parts cannot be cut from a tensor of shape {shape}.")
        found = []
        for size in self._sizes(inner[self.axis], n_parts // n_slices):
            found.append((*inner[: self.axis], size, *inner[self.axis + 1 :]))
        return found * n_slices

    def places(self, array: NDArray[Scalar], n_parts: int) -> Iterator[NDArray[Scalar]]:
        """Yield where the parts lie in an array: views, which have one more axis where the parts are interleaved."""
        ordered = array.transpose(self.order) if self.order else array
        slices = ordered.reshape(-1, *ordered.shape[self.stacked :]) if self.stacked else [ordered]
        for each in slices:
            yield from self._blocks(each, n_parts // len(slices))

    def _blocks(self, array: NDArray[Any], n_blocks: int) -> Iterator[NDArray[Any]]:
        if n_blocks == 1:
            yield array
            return
        length = array.shape[self.axis]
        sizes = self._sizes(length, n_blocks)
        lead = (slice(None),) * self.axis
        if self.interleaved > 1:
            groups = (self.interleaved, length // self.interleaved)
            array = array.reshape(*array.shape[: self.axis], *groups, *array.shape[self.axis + 1 :])
            lead = (*lead, slice(None))
        start = 0
        for size in sizes:
            end = start + size // self.interleaved
            yield array[(*lead, slice(start, end))]
            start = end

    def _sizes(self, length: int, n_blocks: int) -> tuple[int, ...]:
        """Return the lengths of blocks along an axis, checked."""
        sizes = self.sizes or (length // n_blocks,) * n_blocks
        whole = len(sizes) == n_blocks and sum(sizes) == length
        if not whole or length % self.interleaved or any(size % self.interleaved for size in sizes):
            raise ValueError(f"{n_blocks} blocks of {sizes} cannot be cut from {length} rows or columns.")
        return sizes


ROWS = Layout()
"""Equal blocks of rows."""
