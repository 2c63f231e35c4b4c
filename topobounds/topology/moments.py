"""How many weights of a tensor are not zero, and how large they are on average, in one read of them."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._engine import NumpyBudget, kernels_disabled
from topobounds._parallel import in_threads
from topobounds._types import Keys
from topobounds.weights import ScaledWeights, as_array, every_byte, infinity_key, is_signed_byte, key_bits, weight_array

_NUMPY_BUDGET = NumpyBudget("topobounds._kernels.squares", cells=2**22, loaded_cells=2**16)
_CHUNK = 2**19  # stays in a cache, where it is read twice
_TASK = 4 * _CHUNK
_NAN_OF_FNUZ = np.uint8(0x80)  # the negative zero of other types
_LEAST = 2.0**-149  # the smallest float32 that is not 0
_SUMS = 64  # that the kernels make side by side
_FEW_CODES = 2**16  # that are read as floats; not by whether kernels are loaded, for the two add up differently
_CODES_OF_A_TABLE = 2**11  # which share a scale: for fewer, a table of the squares takes longer than the squares
_LEAST_WIDTH = 64  # entries of a line that share a scale, for the same reason
_PRECISION = 2.0**-48  # of a sum of squares that are looked up
_SMALLEST = 1e-290  # of a sum of squares, of which none has lost digits that count
_SMALLEST_BFLOAT16 = 1e-29  # likewise of a mean of squares that were made in float32: each may have lost 2^-150


class WeightMoments(NamedTuple):
    """What one read of a tensor tells.

    Attributes
    ----------
    nonzero : int
        Weights that are not zero.
    rms : float
        The square root of the mean squared weight, zeros included.
    """

    nonzero: int
    rms: float


def weight_moments(weights: "ArrayLike | ScaledWeights") -> WeightMoments:
    """Return how many weights are not zero, and the root of their mean square.

    Parameters
    ----------
    weights : array_like of any shape
        As in `topobounds.weights.weight_array`. Finite, else `rms` is not finite either. Codes of one byte, with scales
        or without, are read as they are.

    Returns
    -------
    WeightMoments
        Squares are added up in double precision, in an order that does not depend on the threads. Codes and the array
        that they stand for have the same `nonzero`, and the same `rms` but for the additions: to a few 1e-14.

    Raises
    ------
    ValueError
        As `weight_array`.

    Examples
    --------
    >>> weight_moments([[3.0, 0.0], [0.0, -4.0]])
    WeightMoments(nonzero=2, rms=2.5)
    """
    products = _products(weights)
    if products is not None:
        nonzero, total = _nonzero_and_squares_of_codes(products)
        if nonzero and _SMALLEST < total < math.inf:
            return WeightMoments(nonzero, math.sqrt(total / products.size))
    array = weight_array(weights)
    flat = array.ravel(order="K")  # no copy of what is contiguous
    nonzero, total = _added(flat)
    if nonzero and not _SMALLEST < total < math.inf:
        return WeightMoments(nonzero, _scaled_rms(flat))
    return WeightMoments(nonzero, math.sqrt(total / flat.size))


def _products(weights: "ArrayLike | ScaledWeights") -> ScaledWeights | None:
    """Return weights as a matrix of codes of one byte with their scales, where the kernels read such; else None."""
    if not isinstance(weights, ScaledWeights):
        array = as_array("weights", weights)
        if not is_signed_byte(array.dtype) or array.ndim < 1:
            return None
        weights = ScaledWeights(array, 1.0)
    reading = _reading_of(weights.codes.dtype) if is_signed_byte(weights.codes.dtype) else None
    if reading is None or weights.size <= _FEW_CODES or kernels_disabled():
        return None
    with np.errstate(over="ignore"):
        if not np.isfinite(np.abs(weights.scale).max() * reading.factor):
            return None
    if weights.ndim != 2:
        weights = weights.reshape(len(weights), -1)
    strides = weights.codes.strides
    return weights.T if abs(strides[0]) < abs(strides[1]) else weights


class _Reading(NamedTuple):
    """How the bits of a byte become a float32: see `_float_of_byte`."""

    shift: int
    factor: np.float32
    smallest: float
    """The least magnitude that is not 0."""
    largest: float
    """The largest magnitude; of int8 infinite, for no table is made of it."""
    infinity: np.uint8
    """The least bits, but for the sign, of what is not finite."""


@functools.cache
def _reading_of(dtype: np.dtype[Any]) -> _Reading | None:
    """Return how a type is read; None where the lower bits of a float32 are not those of its numbers."""
    if dtype == np.int8:
        return _Reading(0, np.float32(1), 1.0, math.inf, np.uint8(0xFF))
    values = np.abs(every_byte(dtype)[:0x80].astype(np.float32))
    finite = np.isfinite(values)
    shift = 23 - int(ml_dtypes.finfo(dtype).nmant)  # type: ignore[no-untyped-call]
    moved = (np.arange(0x80, dtype=np.uint32) << np.uint32(shift)).view(np.float32)
    factor = values[1] / moved[1]
    if not np.array_equal(values[finite], moved[finite] * factor):
        return None
    return _Reading(shift, factor, float(values[1]), float(values[finite].max()), np.uint8(infinity_key(dtype)))


def _nonzero_and_squares_of_codes(weights: ScaledWeights) -> tuple[int, float]:
    """Return what `_added` does, of a matrix; a sum that is not finite where a code is not."""
    from topobounds._kernels import squares  # noqa: PLC0415 (loads numba)

    reading = _reading_of(weights.codes.dtype)
    assert reading is not None
    codes = weights.codes if weights.codes.dtype == np.int8 else weights.codes.view(np.uint8)
    has_other_nan = weights.codes.dtype.name.endswith("fnuz")
    m, n = codes.shape
    block = tuple(
        step if k > 1 else side for step, k, side in zip(weights.block, weights.scale.shape, (m, n), strict=True)
    )
    scales = np.ascontiguousarray(np.abs(weights.scale) * reading.factor)
    terms = scales, block, np.uint32(reading.shift)
    # A scale below this may make the smallest number of the type 0.
    least_scale = np.float32(_LEAST * float(reading.factor) / reading.smallest)
    by_table = (
        squares.LOOKS_UP_BYTES
        and reading.largest * float(np.abs(weights.scale).max()) <= np.finfo(np.float32).max
        and min(block[0], m) * block[1] >= _CODES_OF_A_TABLE
        and min(block[1], n) >= _LEAST_WIDTH
    )

    def add(lines: slice) -> tuple[float, int]:
        tile = np.ascontiguousarray(codes[lines]).reshape(-1)
        if by_table:
            total, nonzero, beyond, wrong = squares.add_squares_by_table(tile, n, lines.start, *terms, reading.infinity)
        if not by_table or wrong > _PRECISION * total:
            total, nonzero, beyond = squares.add_squares_of_products(
                tile, n, lines.start, *terms, least_scale, reading.infinity
            )
        return math.nan if beyond or (has_other_nan and np.any(tile == _NAN_OF_FNUZ)) else total, int(nonzero)

    step = max(_TASK // n, 1)
    step = step // block[0] * block[0] or step  # lines that share their scales, together
    starts = range(0, m, step)
    sums = in_threads(add, [slice(start, min(start + step, m)) for start in starts])
    return sum(count for _, count in sums), _exact_sum(total for total, _ in sums)


def _added(flat: NDArray[Any]) -> tuple[int, float]:
    """Return how many entries are not zero, and the sum of the squares, infinite where it overflows."""
    in_numpy = _NUMPY_BUDGET.affords(flat.size)

    def added(sums_of: Callable[[NDArray[Any]], tuple[float, int]]) -> tuple[int, float]:
        def add(first: int) -> list[tuple[float, int]]:
            last = min(first + _TASK, flat.size)
            return [sums_of(flat[at : at + _CHUNK]) for at in range(first, last, _CHUNK)]

        sums = [pair for pairs in in_threads(add, range(0, flat.size, _TASK)) for pair in pairs]
        return sum(int(nonzero) for _, nonzero in sums), _exact_sum(total for total, _ in sums)

    if flat.dtype.name == "bfloat16":
        of_bfloat16 = _squares_in_numpy_of_bfloat16 if in_numpy else _squares_of_bfloat16
        nonzero, total = added(lambda values: of_bfloat16(values.view(np.uint16)))
        if not nonzero or _SMALLEST_BFLOAT16 * flat.size < total < math.inf:
            return nonzero, total
    return added(_squares_in_numpy if in_numpy else _squares)


def _squares(values: NDArray[Any]) -> tuple[float, int]:
    """Return the sum of the squares of floats, and how many of them are not zero."""
    from topobounds._kernels.squares import add_squares, add_squares_of_float16  # noqa: PLC0415 (loads numba)

    if values.dtype == np.float16:
        return add_squares_of_float16(values.view(np.uint16))  # type: ignore[no-any-return]
    if values.dtype.name == "bfloat16":
        values = values.astype(np.float32)
    bits, magnitude = key_bits(values)
    return add_squares(values, bits, bits.dtype.type(magnitude))  # type: ignore[no-any-return]


def _squares_of_bfloat16(bits: Keys) -> tuple[float, int]:
    from topobounds._kernels.squares import add_squares_of_bfloat16  # noqa: PLC0415 (loads numba)

    return add_squares_of_bfloat16(bits)  # type: ignore[no-any-return]


def _squares_in_numpy(values: NDArray[Any]) -> tuple[float, int]:
    """Return what `_squares` does, to the last bit: which of the two is asked depends on the past."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.square(values.astype(np.float64))
        whole = squares.size - squares.size % _SUMS
        sums = np.add.reduce(squares[:whole].reshape(-1, _SUMS), axis=0)
        sums[0] = np.add.accumulate(np.append(sums[0], squares[whole:]))[-1]
        return float(np.add.accumulate(sums)[-1]), int(np.count_nonzero(values))


def _squares_in_numpy_of_bfloat16(bits: Keys) -> tuple[float, int]:
    """Return what the kernel `add_squares_of_bfloat16` does, to the last bit."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.square((bits.astype(np.uint32) << np.uint32(16)).view(np.float32)).astype(np.float64)
        rows = np.append(squares, np.zeros(-squares.size % _SUMS)).reshape(-1, _SUMS)
        sums = np.add.reduce(rows, axis=0)
        return float(np.add.accumulate(sums)[-1]), int(np.count_nonzero(bits & np.uint16(0x7FFF)))


def _exact_sum(terms: Iterable[float]) -> float:
    """Return the sum of numbers, infinite where it overflows."""
    try:
        return math.fsum(terms)
    except OverflowError:
        return math.inf


def _scaled_rms(flat: NDArray[Any]) -> float:
    """Return the root mean square of entries whose squares are too large or too small, by the largest of them."""
    chunks = [flat[at : at + _CHUNK] for at in range(0, flat.size, _CHUNK)]
    largest = float(np.max([np.max(np.abs(chunk.astype(np.float64))) for chunk in chunks]))
    if not math.isfinite(largest):
        return largest
    with np.errstate(under="ignore"):
        total = math.fsum(float(np.sum((chunk.astype(np.float64) / largest) ** 2)) for chunk in chunks)
    return largest * math.sqrt(total / flat.size)
