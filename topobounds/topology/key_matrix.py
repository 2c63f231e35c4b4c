"""The order keys of a dense layer, read tile by tile: the weights are never copied as a whole."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from topobounds._types import Cells
from topobounds.weights import MAGNITUDE_BITS, order_keys

Tile = tuple[NDArray[Any], Any, Any]
_RUN = 16  # neighbours sampled together: one cache line of float32
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class KeyMatrix:
    """The order keys of a layer: unsigned integers that sort as |w| does; 0 means no edge.

    Attributes
    ----------
    bits : ndarray of unsigned integers, two-dimensional
        The bits of the weights. Its rows, called lines, are those of the layer, or its columns if `transposed`:
        whichever lie closer together in memory.
    support : ndarray of bool of the shape of `bits`, or None
        Cells that are False are no edges.
    transposed : bool
        Whether lines are columns of the layer.
    lift : int
        0 if a weight of zero is no edge, 1 if it is one; added to every key.
    infinity : int
        The key of infinity; those of NaN are larger.
    """

    bits: NDArray[Any]
    support: NDArray[np.bool_] | None
    transposed: bool
    lift: int
    infinity: int

    @classmethod
    def of(cls, matrix: NDArray[Any], support: NDArray[np.bool_] | None, *, zero_edges: bool) -> "KeyMatrix":
        """Read a floating-point matrix of 16, 32 or 64 bits, with any strides."""
        lift = int(zero_edges)
        bits = matrix.view(f"u{matrix.itemsize}")
        keys = cls(bits, support, transposed=False, lift=lift, infinity=_infinity(matrix.dtype) + lift)
        return keys.across() if abs(matrix.strides[0]) < abs(matrix.strides[1]) else keys

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m and columns n of the layer."""
        lines, width = self.bits.shape
        return (width, lines) if self.transposed else (lines, width)

    @property
    def size(self) -> int:
        """Cells of the layer."""
        return self.bits.size

    @property
    def width(self) -> int:
        """Entries of a line."""
        return int(self.bits.shape[1])

    @property
    def in_place(self) -> bool:
        """Whether a tile of neighbouring lines is a part of the weights themselves."""
        return self.support is None and self.bits.flags.c_contiguous

    def across(self) -> "KeyMatrix":
        """Return the same layer, with its lines the other way."""
        support = None if self.support is None else self.support.T
        return replace(self, bits=self.bits.T, support=support, transposed=not self.transposed)

    def tile(self, lines: slice | NDArray[np.int64]) -> Tile:
        """Return the given lines as one flat array, the bits of a key in it, and what is to be added to those."""
        kind = self.bits.dtype.type
        magnitude, lift = kind(MAGNITUDE_BITS[self.bits.itemsize]), kind(self.lift)
        block = self.bits[lines]
        if self.support is None:
            return np.ascontiguousarray(block).reshape(-1), magnitude, lift
        keys = np.where(self.support[lines], (block & magnitude) + lift, kind(0))
        return keys.reshape(-1), kind(np.iinfo(kind).max), kind(0)

    def cells(self, lines: NDArray[Any], entries: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the cells, ``row << 32 | column``, of entries of lines."""
        rows, cols = (entries, lines) if self.transposed else (lines, entries)
        return rows.astype(np.uint64) << np.uint64(32) | cols.astype(np.uint64)

    def at(self, cells: Cells) -> Cells:
        """Return the keys of cells of the support."""
        rows, cols = cells >> np.uint64(32), cells & np.uint64(2**32 - 1)
        index = (cols, rows) if self.transposed else (rows, cols)
        keys: Cells = (self.bits[index] & self.bits.dtype.type(MAGNITUDE_BITS[self.bits.itemsize])).astype(np.uint64)
        return keys + np.uint64(self.lift)

    def magnitudes(self, keys: Cells, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return |w| of keys, in the type of the weights."""
        return (keys - np.uint64(self.lift)).astype(self.bits.dtype).view(dtype)

    def first_reaching(self, values: NDArray[np.float64], strictly: NDArray[np.bool_], dtype: np.dtype[Any]) -> Cells:
        """Return the least key whose |w| is at least each value, or above it where `strictly` is true.

        `dtype` is that of the weights, which need not hold the values: it is rounded to the nearest, and where that
        falls short the next key is taken.
        """
        with np.errstate(over="ignore"):  # beyond the largest number is infinity, which no weight reaches
            nearest = values.astype(dtype)
        held = nearest.astype(np.float64)
        short = (held < values) | (strictly & (held == values))
        keys: Cells = nearest.view(self.bits.dtype).astype(np.uint64) + short.astype(np.uint64)
        return keys + np.uint64(self.lift)

    def sample(self, size: int) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """Return about `size` keys from everywhere, in rows of neighbours, and the line and first entry of each row."""
        run = min(_RUN, self.width)
        starts = self.width // run
        lines, blocks = np.divmod(_spread(size // run, len(self.bits) * starts), starts)
        index = lines, blocks * run
        kind = self.bits.dtype.type
        keys = (windows(self.bits, run)[index] & kind(MAGNITUDE_BITS[self.bits.itemsize])) + kind(self.lift)
        if self.support is not None:
            keys *= windows(self.support, run)[index]
        return keys, lines, blocks * run


@functools.cache
def _infinity(dtype: np.dtype[Any]) -> int:
    return int(order_keys(np.array([[np.inf]], dtype))[0, 0])


def windows(array: NDArray[Any], run: int) -> NDArray[Any]:
    """Return a view of every `run` neighbours along the last axis."""
    shape = *array.shape[:-1], array.shape[-1] - run + 1, run
    return as_strided(array, shape, (*array.strides, array.strides[-1]))


def _spread(count: int, size: int) -> NDArray[np.int64]:
    """Return count + 1 places below `size`, spread evenly and yet in step with no period of a matrix."""
    return (np.arange(1, count + 2) * _GOLDEN % 1 * size).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges of a spanning forest in order of entry.

    Attributes
    ----------
    cells, keys : ndarray of uint64
        ``row << 32 | column``, and the key there.
    ranks : ndarray of int64
        Ranks, from 1, of the first of them: as many as became known while the forest was made.
    """

    cells: Cells
    keys: Cells
    ranks: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each edge."""
        return (self.cells >> np.uint64(32)).astype(np.int64)

    @property
    def cols(self) -> NDArray[np.int64]:
        """Column of each edge."""
        return (self.cells & np.uint64(2**32 - 1)).astype(np.int64)
