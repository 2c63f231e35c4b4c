"""The largest magnitudes of a full layer, in order, lower bounds on the others, at about one read of its weights."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from topobounds._parallel import in_threads
from topobounds._types import FloatArray, Integers, Keys
from topobounds.topology.key_matrix import ScaledKeyMatrix, keys_of
from topobounds.weights import ScaledWeights, key_bits

Result = TypeVar("Result")

SORTED_CELLS = 2**18  # a layer of so many is sorted as a whole, which takes less than loading the kernels
BINNED_CELLS = 2**24  # a layer of more is read once only
_CHUNK = 2**21
_SAMPLED_HITS = 256  # sampled keys above the bound: it lets 1 +- 1/16 of what is wanted through
_BIN_BITS = 7  # of a float's fraction that tell bins apart: a bin is at most 1 / 128 of its place wide
_EXPONENT_BITS = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}


def largest_magnitudes(matrix: NDArray[Any] | ScaledWeights, wanted: int) -> FloatArray:
    """Return the largest |w| of a matrix, falling, without those that are 0.

    All of a small one, else about `wanted`, in general a few more: of `ScaledWeights` those of ``np.asarray`` of them.

    Parameters
    ----------
    matrix : ndarray or ScaledWeights
        Finite; as `topobounds.weights.stored_matrix` returns it.
    wanted : int
        At least 1.
    """
    if matrix.size <= SORTED_CELLS or 4 * wanted >= matrix.size:
        values = np.sort(np.abs(np.asarray(matrix).astype(np.float64)).ravel())[::-1]
        return np.asarray(values[: np.count_nonzero(values)])
    if isinstance(matrix, ScaledWeights):
        return _largest_products(matrix, wanted)
    found = _largest_keys(matrix, wanted)
    magnitudes = found if matrix.dtype == np.int8 else found.view(matrix.dtype)
    return np.asarray(magnitudes.astype(np.float64))


def _largest_keys(matrix: NDArray[Any], wanted: int) -> Keys:
    """Return the order keys of what `largest_magnitudes` returns."""
    bits, mask = key_bits(matrix)
    if bits.dtype == np.int8:
        bits, mask = np.abs(bits).view(np.uint8), 0xFF
    bits = bits.ravel(order="K")  # no copy of a contiguous matrix is made
    magnitude = bits.dtype.type(mask)
    bound = _sampled_bound(lambda places: bits[places] & magnitude, bits.size, wanted)
    return _in_order(*_above(bits, magnitude, bound), bound, wanted)


def _largest_products(weights: ScaledWeights, wanted: int) -> FloatArray:
    """Return what `largest_magnitudes` does: the products of which are made that reach a bound, and a sample."""
    keys = keys_of(weights, None, zero_edges=False)

    def products_at(places: Integers) -> Keys:
        rows, cols = np.divmod(places.astype(np.uint64), np.uint64(weights.shape[1]))
        return keys.at(rows << np.uint64(32) | cols)

    bound = _sampled_bound(products_at, weights.size, wanted)
    if not isinstance(keys, ScaledKeyMatrix):  # one scale, which leaves the codes in their order
        bits = keys.bits.ravel(order="K")
        bits = np.abs(bits).view(np.uint8) if bits.dtype == np.int8 else bits
        bound = np.uint8(bound)
        found = _in_order(*_above(bits, np.uint8(keys.magnitude), bound), bound, wanted)
        return keys.magnitudes(found.astype(np.uint64)).astype(np.float64)
    if not bound:
        return largest_magnitudes(np.asarray(weights), wanted)
    from topobounds._kernels.magnitudes import sort_keys  # noqa: PLC0415 (loads numba)
    from topobounds.topology.spanning_engine import scaled_keys  # noqa: PLC0415 (loads numba)

    reaching = scaled_keys(keys, int(bound))
    above = reaching[reaching > bound]
    found = _in_order(sort_keys(above, np.empty_like(above)), reaching.size - above.size, np.uint32(bound), wanted)
    return found.view(np.float32).astype(np.float64)


def _in_order(above: Keys, ties: int, bound: Any, wanted: int) -> Keys:
    """Return keys above a bound, which are given rising, and then those equal to it, as many as are wanted: falling."""
    return np.append(above[::-1], np.full(min(ties, wanted) if bound else 0, bound, above.dtype))


class BinnedMagnitudes:
    """How many |w| of a matrix lie in each of some thousand bins: a lower bound on the magnitude of any rank."""

    def __init__(self, matrix: NDArray[Any]) -> None:
        from topobounds._kernels.magnitudes import count_bins  # noqa: PLC0415 (loads numba)

        bits = _bits(matrix)
        shift = _bin_shift(matrix.dtype)
        bins = 1 << (8 * matrix.itemsize - 1 - shift)

        def count(chunk: Keys) -> Integers:
            counts = np.zeros((4, bins), np.int64)
            count_bins(chunk, _magnitude(bits), bits.dtype.type(shift), counts)
            return np.asarray(counts.sum(axis=0))

        counts = np.sum(_each(count, bits), axis=0)
        self._bins = np.flatnonzero(counts)[::-1]
        self._last_ranks = np.cumsum(counts[self._bins])
        self._dtype = matrix.dtype
        self._shift = shift

    def at_least(self, ranks: Integers) -> FloatArray:
        """Return numbers that the magnitudes of these ranks, from 1, are not below."""
        return self._values(self._bin(ranks) << self._shift)

    def _bin(self, ranks: Integers) -> Integers:
        return self._bins[np.searchsorted(self._last_ranks, ranks)]

    def _values(self, keys: Integers) -> FloatArray:
        return keys.astype(f"u{self._dtype.itemsize}").view(self._dtype).astype(np.float64)


def _bits(matrix: NDArray[Any]) -> Keys:
    """Return the bits of the weights in one row, in the order of memory: no copy of a contiguous matrix is made."""
    return matrix.ravel(order="K").view(f"u{matrix.itemsize}")


def _magnitude(bits: Keys) -> Any:
    return bits.dtype.type(np.iinfo(bits.dtype).max >> 1)


def _bin_shift(dtype: np.dtype[Any]) -> int:
    fraction = 8 * dtype.itemsize - 1 - _EXPONENT_BITS[dtype.name]
    return max(fraction - _BIN_BITS, 0)


def _sampled_bound(keys_at: Callable[[Integers], Keys], n_keys: int, wanted: int) -> Any:
    """Return a key that about the wanted number of keys reach, by a sample; they are asked for by their places."""
    share = wanted / n_keys
    size = math.ceil(_SAMPLED_HITS / share)
    sample = keys_at(np.random.default_rng(0).integers(n_keys, size=size))
    place = size - math.ceil(1.1 * share * size)
    return np.partition(sample, place)[place]


def _above(bits: Keys, magnitude: Any, bound: Any) -> tuple[Keys, int]:
    """Return the keys above `bound`, rising, and how many are equal to it."""
    from topobounds._kernels.magnitudes import collect_above, sort_keys  # noqa: PLC0415 (loads numba)

    def collect(chunk: Keys) -> tuple[Keys, int]:
        keys = np.empty(chunk.size + 1, chunk.dtype)
        count, equal = collect_above(chunk, magnitude, bound, keys)
        return keys[:count].copy(), int(equal)

    parts, ties = zip(*_each(collect, bits), strict=True)
    above = np.concatenate(parts)
    return sort_keys(above, np.empty_like(above)), sum(ties)


def _each(function: Callable[[Keys], Result], bits: Keys) -> list[Result]:
    """Apply a function whose kernel releases the lock to pieces of `bits`, on all cores."""
    return in_threads(function, [bits[start : start + _CHUNK] for start in range(0, bits.size, _CHUNK)])
