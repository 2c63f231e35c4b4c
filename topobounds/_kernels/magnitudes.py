"""Kernels that read the largest magnitudes of a layer, and how many lie in each bin, without sorting the layer.

Keys are the bits of the weights as unsigned integers, without the sign, which `magnitude` masks away; they sort as |w|
does. A bin holds the keys that agree but for their lowest `shift` bits.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._kernels.spanning import (
    _any_at_least,
    _at_least,
    _equal,
    _float_of,
    _intrinsic,
    _key,
    _load,
    _lowest,
    _number,
    _splat,
    ir,
)
from topobounds._types import Keys

_DIGIT_BITS, _DIGITS = 11, 2048
_SUMS = 64
_NO_SIGN = np.uint16(0x7FFF)
_NO_SIGN_OF_BYTE, _NO_BYTE = np.uint8(0x7F), np.uint8(0)
_LANES, _U0, _U1 = np.uint64(4), np.uint64(0), np.uint64(1)
_STEP, _BITS = np.uint64(128), np.uint64(64)
_FOUR = np.uint64(256)
_WIDTH = 8  # numbers in double precision that are added at once


@compiled
def count_bins(bits: Keys, magnitude: Any, shift: Any, counts: NDArray[np.int64]) -> None:
    """Add to `counts`, modified in place, the keys by bin; each of its four rows counts every fourth key.

    Four rows, since counting twice in one place makes the second wait for the first.
    """
    size = np.uint64(bits.size)
    whole = size // _LANES * _LANES
    for index in range(_U0, whole, _LANES):
        for lane in range(_LANES):
            counts[lane, (bits[index + lane] & magnitude) >> shift] += 1
    for index in range(whole, size):
        counts[_U0, (bits[index] & magnitude) >> shift] += 1


@compiled
def collect_above(bits: Keys, magnitude: Any, bound: Any, keys: Keys) -> tuple[Any, Any]:
    """Write to `keys`, modified in place, all keys above `bound`.

    `keys` needs room for as many as there are bits. Returns how many are above, and how many equal `bound`.
    """
    count, equal, size = _U0, _U0, np.uint64(bits.size)
    whole = size // _STEP * _STEP
    for block in range(_U0, whole, _STEP):
        if not _any_at_least(bits, block, magnitude, bound):
            continue
        for start in range(block, block + _STEP, _BITS):
            heavy = _at_least(bits, start, magnitude, bound)
            while heavy:
                key = bits[start + _lowest(heavy)] & magnitude
                heavy &= heavy - _U1
                keys[count] = key
                count += np.uint64(key > bound)
                equal += np.uint64(key == bound)
    for index in range(whole, size):
        key = bits[index] & magnitude
        if key > bound:
            keys[count] = key
            count += _U1
        equal += np.uint64(key == bound)
    return count, equal


@compiled
def sort_keys(keys: Keys, spare: Keys) -> Keys:
    """Return the keys rising, in one of the two arrays, of equal length; both are modified.

    Digit by digit from the lowest: for keys that differ in few of their bits this is faster than comparing them.
    """
    source, target = keys, spare
    for shift in range(0, 8 * keys.itemsize, _DIGIT_BITS):
        places = np.zeros(_DIGITS, np.int64)
        for key in source:
            places[np.uint64(key) >> np.uint64(shift) & np.uint64(_DIGITS - 1)] += 1
        if places.max() == source.size:
            continue
        first = 0
        for smaller in range(_DIGITS):
            count = places[smaller]
            places[smaller] = first
            first += count
        for key in source:
            digit = np.uint64(key) >> np.uint64(shift) & np.uint64(_DIGITS - 1)
            target[places[digit]] = key
            places[digit] += 1
        source, target = target, source
    return source


@compiled
def add_squares(weights: NDArray[Any]) -> tuple[Any, Any]:
    """Return the sum of the squares of floats, in double precision, and how many of them are not 0."""
    # Many sums side by side: the order of the additions is fixed, and yet the processor can do several at once.
    sums, nonzero = np.zeros(_SUMS), 0
    for index in range(weights.size):
        nonzero += weights[index] != 0
    whole = weights.size - weights.size % _SUMS
    for first in range(0, whole, _SUMS):
        row = weights[first : first + _SUMS]
        for lane in range(_SUMS):
            wide = np.float64(row[lane])
            sums[lane] += wide * wide
    for index in range(whole, weights.size):
        wide = np.float64(weights[index])
        sums[0] += wide * wide
    return sums.sum(), nonzero


# LLVM checks at every step whether the sums lie among the numbers, and keeps none of them, so this is written out.
@_intrinsic
def _add_bfloat16(_typing: Any, bits: Any, start: Any, sums: Any) -> Any:
    """Add to the 64 sums the squares of the 256 numbers in bfloat16 from `start` on, which are made in float32.

    Sum i gets those of the numbers ``start + i``, ``start + i + 64`` and so on, one after the other.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, wide = signature.args, ir.VectorType(ir.DoubleType(), _WIDTH)
        target = context.make_array(kinds[2])(context, builder, args[2]).data
        words, floats = ir.VectorType(ir.IntType(32), _WIDTH), ir.VectorType(ir.FloatType(), _WIDTH)
        upper_half = ir.Constant(words, [16] * _WIDTH)
        for lane in range(0, _SUMS, _WIDTH):
            place = builder.bitcast(builder.gep(target, [ir.Constant(ir.IntType(64), lane)]), wide.as_pointer())
            total = builder.load(place, align=8)
            for offset in range(lane, int(_FOUR), _SUMS):
                first = builder.add(args[1], ir.Constant(ir.IntType(64), offset))
                block = builder.zext(_load(context, builder, kinds[0], args[0], first, _WIDTH), words)
                values = builder.bitcast(builder.shl(block, upper_half), floats)
                total = builder.fadd(total, builder.fpext(builder.fmul(values, values), wide))
            builder.store(total, place, align=8)
        return context.get_dummy_value()

    return types.void(bits, types.uint64, sums), generate


@compiled
def add_squares_of_bfloat16(bits: Keys) -> tuple[Any, Any]:
    """Return what `add_squares` does, of the bits of numbers in bfloat16, but for squares that no float32 can hold.

    The square of a number in bfloat16 has 16 digits, so in float32 it is exact unless it overflows, when the sum is
    infinite, or is below 2^-110, when it may lose up to 2^-150.
    """
    sums, zeros, size = np.zeros(_SUMS), _U0, np.uint64(bits.size)
    most = size // _FOUR * _FOUR
    for block in range(_U0, most, _FOUR):
        _add_bfloat16(bits, block, sums)
        for start in range(block, block + _FOUR, _BITS):
            zeros += _number(_equal(bits, start, _NO_SIGN, np.uint16(0)))
    for index in range(most, size):
        value = _float_of(np.uint32(bits[index]) << np.uint32(16))
        sums[(index - most) % np.uint64(_SUMS)] += np.float64(value * value)
        zeros += np.uint64((bits[index] & _NO_SIGN) == 0)
    return sums.sum(), size - zeros


@_intrinsic
def _float_of_byte(_typing: Any, code: Any, shift: Any) -> Any:
    """Return an int8 as a float32; of a byte the float32 whose bits are its lower 7, moved up by `shift`."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if code.signed:
            return builder.sitofp(args[0], ir.FloatType())
        bits = builder.zext(builder.and_(args[0], ir.Constant(ir.IntType(8), 0x7F)), ir.IntType(32))
        return builder.bitcast(builder.shl(bits, args[1]), ir.FloatType())

    return types.float32(code, types.uint32), generate


# LLVM checks at every step whether the sums lie among the codes, and keeps none of them, so this is written out.
@_intrinsic
def _add_block(_typing: Any, codes: Any, start: Any, scale_of: Any, shift: Any, sums: Any) -> Any:
    """Add to the 64 sums the squares of the products of the 256 codes from `start` on and their scales.

    Sum i gets those of the codes ``start + i``, ``start + i + 64`` and so on, one after the other.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, wide = signature.args, ir.VectorType(ir.DoubleType(), _WIDTH)
        target = context.make_array(kinds[4])(context, builder, args[4]).data
        bits = ir.VectorType(ir.IntType(32), _WIDTH)
        floats = ir.VectorType(ir.FloatType(), _WIDTH)
        mask = ir.Constant(bits, [0x7F] * _WIDTH)
        shifts = _splat(builder, args[3], _WIDTH)
        for lane in range(0, _SUMS, _WIDTH):
            place = builder.bitcast(builder.gep(target, [ir.Constant(ir.IntType(64), lane)]), wide.as_pointer())
            total = builder.load(place, align=8)
            for offset in range(lane, int(_FOUR), _SUMS):
                first = builder.add(args[1], ir.Constant(ir.IntType(64), offset))
                block = _load(context, builder, kinds[0], args[0], first, _WIDTH)
                if kinds[0].dtype.signed:
                    values = builder.sitofp(block, floats)
                else:
                    moved = builder.shl(builder.and_(builder.zext(block, bits), mask), shifts)
                    values = builder.bitcast(moved, floats)
                product = builder.fmul(values, _load(context, builder, kinds[2], args[2], first, _WIDTH))
                exact = builder.fpext(product, wide)
                total = builder.fadd(total, builder.fmul(exact, exact))
            builder.store(total, place, align=8)
        return context.get_dummy_value()

    return types.void(codes, types.uint64, scale_of, types.uint32, sums), generate


@compiled
def _spread_scales(scales: NDArray[np.float32], share: int, scale_of: NDArray[np.float32]) -> Any:
    """Write to `scale_of`, modified in place, what scale every entry has, `share` in a row one; return the least."""
    least = scales[0]
    for place in range(scales.size):
        scale = scales[place]
        least = min(least, scale)
        scale_of[place * share : min(place * share + share, scale_of.size)] = scale
    return least


@compiled
def add_squares_of_products(
    tile: Keys,
    width: int,
    first: int,
    scales: NDArray[np.float32],
    block: tuple[int, int],
    shift: Any,
    least_scale: Any,
    infinity: Any,
) -> tuple[Any, Any, Any]:
    """Return what `add_squares` does, of the products, in float32, of codes of one byte and their scales.

    `tile` holds lines of `width` codes, the first of them line `first`; line i and entry j have the scale
    ``scales[i // block[0], j // block[1]]``, which is multiplied by `_float_of_byte`. Smaller scales than `least_scale`
    may make a product 0. Returns also how many codes have bits, but for the sign, of at least `infinity`; of int8 none.
    """
    sums, zeros, beyond, n = np.zeros(_SUMS), _U0, _U0, np.uint64(width)
    scale_of, current, faint = np.empty(width, np.float32), np.int64(-1), False
    whole, most = n // _BITS * _BITS, n // _FOUR * _FOUR
    for line in range(np.uint64(tile.size) // n):
        if (first + np.int64(line)) // block[0] != current:
            current = (first + np.int64(line)) // block[0]
            faint = _spread_scales(scales[current], block[1], scale_of) < least_scale
        base = line * n
        codes = tile[base : base + n]
        for start in range(_U0, whole, _BITS):
            beyond += _number(_at_least(codes, start, _NO_SIGN_OF_BYTE, infinity))
            zeros += _number(_equal(codes, start, _NO_SIGN_OF_BYTE, _NO_BYTE))
        for start in range(_U0, most, _FOUR):
            _add_block(codes, start, scale_of, shift, sums)
        for start in range(most, n, _BITS):
            for lane in range(min(_BITS, n - start)):
                wide = np.float64(_float_of_byte(codes[start + lane], shift) * scale_of[start + lane])
                sums[lane] += wide * wide
        for entry in range(whole, n):
            key = _key(codes, entry, _NO_SIGN_OF_BYTE)
            beyond += np.uint64(key >= infinity)
            zeros += np.uint64(key == 0)
        if faint:
            for entry in range(n):
                product = _float_of_byte(codes[entry], shift) * scale_of[entry]
                zeros += np.uint64(product == 0 and _key(codes, entry, _NO_SIGN_OF_BYTE) != 0)
    return sums.sum(), np.uint64(tile.size) - zeros, beyond
