"""The largest magnitudes of a full layer, in order, and bounds on the others, at about one read of its weights."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from topobounds._parallel import processors
from topobounds._types import FloatArray, Integers, Keys

Result = TypeVar("Result")

SORTED_CELLS = 2**18  # a layer of so many is sorted as a whole, which takes less than loading the kernels
BINNED_CELLS = 2**24  # a layer of more is read once only
_CHUNK = 2**21
_SAMPLED_HITS = 256  # sampled keys above the bound: it lets 1 +- 1/16 of what is wanted through
_BIN_BITS = 7  # of a float's fraction that tell bins apart: a bin is at most 1 / 128 of its place wide
_EXPONENT_BITS = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}


def largest_magnitudes(matrix: NDArray[Any], wanted: int) -> FloatArray:
    """Return the largest |w| of a matrix, falling, without those that are 0.

    All of a small one, else about `wanted`, in general a few more.

    Parameters
    ----------
    matrix : ndarray of float16, bfloat16, float32 or float64
        Finite.
    wanted : int
        At least 1.
    """
    if matrix.size <= SORTED_CELLS or 4 * wanted >= matrix.size:
        values = np.sort(np.abs(matrix.astype(np.float64)).ravel())[::-1]
        return np.asarray(values[: np.count_nonzero(values)])
    bits = _bits(matrix)
    bound = _sampled_bound(bits, wanted)
    keys, ties = _above(bits, bound)
    keys = np.append(keys[::-1], np.full(min(ties, wanted) if bound else 0, bound, bits.dtype))
    return np.asarray(keys.view(matrix.dtype).astype(np.float64))


class BinnedMagnitudes:
    """How many |w| of a matrix lie in each of some thousand bins: bounds on the magnitude of any rank."""

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

    def at_most(self, ranks: Integers) -> FloatArray:
        """Return numbers that the magnitudes of these ranks, from 1, are not above."""
        return self._values(((self._bin(ranks) + 1) << self._shift) - 1)

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


def _sampled_bound(bits: Keys, wanted: int) -> Any:
    """Return a key that about the wanted number of keys reach, by a sample."""
    share = wanted / bits.size
    size = math.ceil(_SAMPLED_HITS / share)
    sample = bits[np.random.default_rng(0).integers(bits.size, size=size)] & _magnitude(bits)
    place = size - math.ceil(1.1 * share * size)
    return np.partition(sample, place)[place]


def _above(bits: Keys, bound: Any) -> tuple[Keys, int]:
    """Return the keys above `bound`, rising, and how many are equal to it."""
    from topobounds._kernels.magnitudes import collect_above, sort_keys  # noqa: PLC0415 (loads numba)

    def collect(chunk: Keys) -> tuple[Keys, int]:
        keys = np.empty(chunk.size + 1, chunk.dtype)
        count, equal = collect_above(chunk, _magnitude(bits), bound, keys)
        return keys[:count].copy(), int(equal)

    parts, ties = zip(*_each(collect, bits), strict=True)
    above = np.concatenate(parts)
    return sort_keys(above, np.empty_like(above)), sum(ties)


def _each(function: Callable[[Keys], Result], bits: Keys) -> list[Result]:
    """Apply a function whose kernel releases the lock to pieces of `bits`, on all cores."""
    chunks = [bits[start : start + _CHUNK] for start in range(0, bits.size, _CHUNK)]
    with ThreadPoolExecutor(min(processors(), len(chunks))) as pool:
        return list(pool.map(function, chunks))
