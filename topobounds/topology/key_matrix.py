"""The order keys of a dense layer, read tile by tile: the weights are never copied as a whole."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from topobounds._types import Cells
from topobounds.weights import ScaledWeights, every_byte, infinity_key, key_bits, order_keys

_Tile = tuple[NDArray[Any], Any, Any]
_RUN = 16  # neighbours sampled together: one cache line of float32
_RATIO_BITS = 13  # of a float32, after its sign: a 32nd of it tells ratios apart
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class KeyMatrix:
    """The order keys of a layer: unsigned integers that sort as |w| does; 0 means no edge.

    Attributes
    ----------
    bits : ndarray of unsigned integers, or of int8, two-dimensional
        The bits of the weights. Its rows, called lines, are those of the layer, or its columns if `transposed`:
        whichever lie closer together in memory.
    magnitude : int
        The bits of an entry that make its key; of int8 it is the absolute value instead.
    support : ndarray of bool of the shape of `bits`, or None
        Cells that are False are no edges.
    transposed : bool
        Whether lines are columns of the layer.
    lift : int
        0 if a weight of zero is no edge, 1 if it is one; added to every key.
    infinity : int
        The least key that no finite weight has.
    dtype : numpy.dtype
        The type of the |w| that keys stand for.
    factor : float32 or None
        What these are to be multiplied by, in float32, where that does not change their order.
    """

    bits: NDArray[Any]
    magnitude: int
    support: NDArray[np.bool_] | None
    transposed: bool
    lift: int
    infinity: int
    dtype: np.dtype[Any]
    factor: np.float32 | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, matrix: NDArray[Any], support: NDArray[np.bool_] | None, *, zero_edges: bool) -> "KeyMatrix":
        """Read a matrix that `topobounds.weights.stored_matrix` returned, with any strides."""
        lift = int(zero_edges)
        bits, magnitude = key_bits(matrix)
        if lift and matrix.dtype == np.uint8:  # whose keys leave no bit free
            bits = bits.astype(np.uint16)
        dtype = np.dtype(np.uint8) if matrix.dtype == np.int8 else matrix.dtype
        infinity = infinity_key(matrix.dtype) + lift
        keys = cls(bits, magnitude, support, transposed=False, lift=lift, infinity=infinity, dtype=dtype)
        return keys.across() if abs(bits.strides[0]) < abs(bits.strides[1]) else keys

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
    def n_lines(self) -> int:
        """Lines."""
        return len(self.bits)

    @property
    def in_place(self) -> bool:
        """Whether a tile of neighbouring lines is a part of the weights themselves."""
        return self.support is None and self.bits.flags.c_contiguous

    def across(self) -> "KeyMatrix":
        """Return the same layer, with its lines the other way."""
        support = None if self.support is None else self.support.T
        return replace(self, bits=self.bits.T, support=support, transposed=not self.transposed)

    @property
    def kind(self) -> Any:
        """The unsigned type of the bits that a key takes, lift included."""
        return np.dtype(f"u{self.bits.itemsize}").type

    @property
    def top(self) -> int:
        """A power of 2 that no key exceeds, not those of NaN either."""
        return 1 << (8 if self.bits.itemsize == 1 else 8 * self.bits.itemsize - 1)

    def tile(self, lines: slice | NDArray[np.int64]) -> _Tile:
        """Return the given lines as one flat array, the bits of a key in it, and what is to be added to those."""
        magnitude, lift = self.kind(self.magnitude), self.kind(self.lift)
        block = self.bits[lines]
        if self.support is None:
            return np.ascontiguousarray(block).reshape(-1), magnitude, lift
        keys = np.where(self.support[lines], self._keys_of(block), self.kind(0))
        return keys.reshape(-1), self.kind(np.iinfo(self.kind).max), self.kind(0)

    @property
    def wide_kind(self) -> Any:
        """The unsigned type of the entries of a wide tile."""
        return np.uint16 if self.bits.dtype == np.uint8 and self.dtype == np.uint8 else self.kind

    @property
    def wide_in_place(self) -> bool:
        """Whether a wide tile of neighbouring lines is a part of the weights themselves."""
        return self.in_place and self.bits.dtype == self.wide_kind

    def wide_tile(self, lines: slice | NDArray[np.int64]) -> _Tile:
        """Return the same for kernels that take no signed entries, and whose keys leave a bit free: a copy of bytes."""
        tile, magnitude, lift = self.tile(lines)
        if tile.dtype == np.int8:
            tile = np.abs(tile).view(np.uint8)
        kind = self.wide_kind
        return tile.astype(kind, copy=False), kind(magnitude), kind(lift)

    def _keys_of(self, entries: NDArray[Any]) -> NDArray[Any]:
        """Return the keys of some of the bits."""
        bits = np.abs(entries).view(self.kind) if entries.dtype.kind == "i" else entries & self.kind(self.magnitude)
        keys: NDArray[Any] = bits + self.kind(self.lift)
        return keys

    def cells(self, lines: NDArray[Any], entries: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the cells, ``row << 32 | column``, of entries of lines."""
        rows, cols = (entries, lines) if self.transposed else (lines, entries)
        return rows.astype(np.uint64) << np.uint64(32) | cols.astype(np.uint64)

    def at(self, cells: Cells) -> Cells:
        """Return the keys of cells of the support."""
        rows, cols = cells >> np.uint64(32), cells & np.uint64(2**32 - 1)
        index = (cols, rows) if self.transposed else (rows, cols)
        return self._keys_of(self.bits[index]).astype(np.uint64)

    def magnitudes(self, keys: Cells) -> NDArray[Any]:
        """Return |w| of keys, in the type of the weights; of int8 in uint8."""
        values = (keys - np.uint64(self.lift)).astype(f"u{self.dtype.itemsize}").view(self.dtype)
        return values if self.factor is None else values.astype(np.float32) * self.factor

    def key_of(self, magnitude: float) -> int:
        """Return the key of the entries whose |w| is `magnitude`, which the type of the weights holds."""
        if self.bits.itemsize > 1 or isinstance(self, ScaledKeyMatrix):
            return int(np.asarray(magnitude, self.dtype).view(self.kind)) + self.lift
        keys = np.arange(self.lift, self.infinity, dtype=np.uint64)
        return self.lift + int(np.searchsorted(self.magnitudes(keys).astype(np.float64), magnitude))

    def first_reaching(self, values: NDArray[np.float64], strictly: NDArray[np.bool_], dtype: np.dtype[Any]) -> Cells:
        """Return the least key whose |w| is at least each value, or above it where `strictly` is true.

        `dtype` is that of the weights, which need not hold the values: it is rounded to the nearest, and where that
        falls short the next key is taken.
        """
        with np.errstate(over="ignore"):  # beyond the largest number is infinity, which no weight reaches
            nearest = values.astype(dtype)
        held = nearest.astype(np.float64)
        short = (held < values) | (strictly & (held == values))
        keys: Cells = nearest.view(self.kind).astype(np.uint64) + short.astype(np.uint64)
        return keys + np.uint64(self.lift)

    def sample(self, size: int) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """Return about `size` keys from everywhere, in rows of neighbours, and the line and first entry of each row."""
        run = min(_RUN, self.width)
        starts = self.width // run
        lines, blocks = np.divmod(_spread(size // run, self.n_lines * starts), starts)
        index = lines, blocks * run
        keys = self._sampled_keys(lines, blocks * run, run)
        if self.support is not None:
            keys *= windows(self.support, run)[index]
        return keys, lines, blocks * run

    def _sampled_keys(self, lines: NDArray[np.int64], entries: NDArray[np.int64], run: int) -> NDArray[Any]:
        """Return the keys of so many neighbours from each place on."""
        return self._keys_of(windows(self.bits, run)[lines, entries])


@dataclass(frozen=True, eq=False)
class ScaledKeyMatrix(KeyMatrix):
    """The order keys of a layer whose entries are codes to be multiplied by scales: those of the products in float32.

    Attributes
    ----------
    scale : ndarray of float32, two-dimensional
        The absolute values of the scales.
    block : tuple of int
        How many lines, and entries of a line, share a scale; as many as there are where there is one.
    values : ndarray of float32 of shape (256,)
        |code| for every byte of `bits`.
    by_key : ndarray of float32 of shape (256,)
        |code| for every key of a code, rising; infinity for those that are not finite, and beyond.
    """

    scale: NDArray[np.float32]
    block: tuple[int, int]
    values: NDArray[np.float32]
    by_key: NDArray[np.float32]

    @classmethod
    def of_scaled(cls, weights: ScaledWeights, support: NDArray[np.bool_] | None, *, zero_edges: bool) -> KeyMatrix:
        """Read weights whose codes are of int8 or an 8-bit float: where one scale leaves their order, as the codes."""
        codes = KeyMatrix.of(weights.codes, support, zero_edges=zero_edges)
        code_keys, first = np.unique(order_keys(every_byte(weights.codes.dtype)), return_index=True)
        magnitudes = np.abs(every_byte(weights.codes.dtype)[first].astype(np.float32))
        by_key = np.full(256, np.inf, np.float32)
        by_key[code_keys] = np.where(np.isfinite(magnitudes), magnitudes, np.inf)
        scale = np.abs(weights.scale)
        if scale.size == 1 and _keeps_order(by_key, float(scale.reshape(-1)[0])):
            return replace(codes, factor=scale.reshape(-1)[0])
        shares = zip(weights.block, scale.shape, weights.shape, strict=True)
        block = [step if n_scales > 1 else side for step, n_scales, side in shares]
        if codes.transposed:
            scale, block = scale.T, block[::-1]
        return cls(
            bits=codes.bits,
            magnitude=codes.magnitude,
            support=codes.support,
            transposed=codes.transposed,
            lift=codes.lift,
            infinity=infinity_key(np.dtype(np.float32)) + codes.lift,
            dtype=np.dtype(np.float32),
            scale=scale,
            block=(block[0], block[1]),
            values=by_key[replace(codes, lift=0)._keys_of(every_byte(codes.bits.dtype))],
            by_key=by_key,
        )

    @property
    def in_place(self) -> bool:
        """False: a tile is made of products."""
        return False

    @property
    def kind(self) -> Any:
        """The unsigned type of the bits of a product."""
        return np.uint32

    @property
    def top(self) -> int:
        """A power of 2 that no key exceeds."""
        return 1 << 31

    def across(self) -> "ScaledKeyMatrix":
        """Return the same layer, with its lines the other way."""
        return replace(
            self,
            bits=self.bits.T,
            support=None if self.support is None else self.support.T,
            transposed=not self.transposed,
            scale=self.scale.T,
            block=self.block[::-1],
        )

    def code_tile(self, lines: slice | NDArray[np.int64]) -> _Tile:
        """Return the codes of the given lines as one flat array, and as `tile`."""
        return np.ascontiguousarray(self.bits[lines]).reshape(-1), np.uint8(self.magnitude), np.uint32(self.lift)

    def filter_terms(self) -> tuple[Any, ...]:
        """Return what tells the bound of a code: the scales, how many lines share one, and which each entry has.

        Then the values of codes by key and, by the highest bits of a positive float32, the least key of a code that may
        reach it: at least 1, so that zeros do not, and never above those that are not finite.
        """
        floats = (np.arange(2**_RATIO_BITS, dtype=np.uint32) << np.uint32(31 - _RATIO_BITS)).view(np.float32)
        floats[np.isnan(floats)] = np.inf
        n_finite = np.count_nonzero(np.isfinite(self.by_key))
        bounds = np.clip(np.searchsorted(self.by_key[:n_finite], floats), 1, None).astype(np.uint8)
        scale_of_entry = (np.arange(self.width) // self.block[1]).astype(np.uint32)
        return self.scale, self.block[0], scale_of_entry, self.by_key, bounds

    def tile(self, lines: slice | NDArray[np.int64]) -> _Tile:
        """Return the products of the given lines as one flat array, and as of a KeyMatrix."""
        scale = self.scale[np.arange(self.n_lines)[lines] // self.block[0]]
        if scale.shape[1] > 1:
            scale = np.repeat(scale, self.block[1], axis=1)[:, : self.width]
        keys = self._products(self.bits[lines], scale)
        if self.support is not None:
            keys *= self.support[lines]
        return keys.reshape(-1), np.uint32(0xFFFFFFFF), np.uint32(0)

    def at(self, cells: Cells) -> Cells:
        """Return the keys of cells of the support."""
        rows, cols = cells >> np.uint64(32), cells & np.uint64(2**32 - 1)
        lines, entries = (cols, rows) if self.transposed else (rows, cols)
        return self._products(self.bits[lines, entries], self._scale_at(lines, entries)).astype(np.uint64)

    def _sampled_keys(self, lines: NDArray[np.int64], entries: NDArray[np.int64], run: int) -> NDArray[Any]:
        scale = self._scale_at(lines[:, None], entries[:, None] + np.arange(run))
        return self._products(windows(self.bits, run)[lines, entries], scale)

    def _scale_at(self, lines: NDArray[Any], entries: NDArray[Any]) -> NDArray[np.float32]:
        kinds = lines.dtype.type(self.block[0]), entries.dtype.type(self.block[1])
        scales: NDArray[np.float32] = self.scale[lines // kinds[0], entries // kinds[1]]
        return scales

    def _products(self, codes: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[np.uint32]:
        """Return the keys of codes by their scales."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            products = self.values[codes.view(np.uint8)] * scale
        keys: NDArray[np.uint32] = (products.view(np.uint32) & np.uint32(0x7FFFFFFF)) + np.uint32(self.lift)
        return keys


def keys_of(matrix: NDArray[Any] | ScaledWeights, support: NDArray[np.bool_] | None, *, zero_edges: bool) -> KeyMatrix:
    """Return the order keys of what `topobounds.weights.stored_matrix` returned."""
    read = ScaledKeyMatrix.of_scaled if isinstance(matrix, ScaledWeights) else KeyMatrix.of
    return read(matrix, support, zero_edges=zero_edges)  # type: ignore[arg-type]


def _keeps_order(by_key: NDArray[np.float32], scale: float) -> bool:
    """Whether all codes, times one scale, are finite numbers in the order of the codes: none over- or underflows.

    `by_key` holds the number of each code. Two of them differ by a 256th of themselves at least, and rounding in
    float32 moves a product by far less.
    """
    finite = by_key[np.isfinite(by_key)].astype(np.float64) * scale
    limits = np.finfo(np.float32)
    return (
        bool(finite.max() <= limits.max) and bool(finite[finite > 0].min(initial=np.inf) >= limits.tiny) and scale > 0
    )


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
    largest : ndarray of uint64, or None
        The largest keys of the layer, falling, where about as many as were asked for became known with them.
    """

    cells: Cells
    keys: Cells
    ranks: NDArray[np.int64]
    largest: Cells | None = None

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each edge."""
        return (self.cells >> np.uint64(32)).astype(np.int64)

    @property
    def cols(self) -> NDArray[np.int64]:
        """Column of each edge."""
        return (self.cells & np.uint64(2**32 - 1)).astype(np.int64)
