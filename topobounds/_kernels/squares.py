"""Kernels that add up the squares of the weights of a layer, and count those that are not 0."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils, registry
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._kernels.spanning import _equal, _float_of, _intrinsic, _key, _load, _number, _splat, ir
from topobounds._types import Keys

_SUMS = 64
_NO_SIGN = np.uint16(0x7FFF)
_NO_SIGN_OF_BYTE, _NO_BYTE = np.uint8(0x7F), np.uint8(0)
_U0, _THIRTY_TWO, _BITS, _FOUR = np.uint64(0), np.uint64(32), np.uint64(64), np.uint64(256)
_WIDTH = 8  # numbers in double precision that are added at once
_CODES_OF_A_WORD = 4  # codes of one byte in 32 bits
_GROUP = _WIDTH * _CODES_OF_A_WORD


# LLVM checks at every step whether the sums lie among the numbers, and keeps none of them, so this is written out.
def _adding(squares: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return what writes the code that adds the squares of 256 numbers to 64 sums, each 8 by a function's code.

    Sum i gets those of the numbers ``start + i``, ``start + i + 64`` and so on, one after the other.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, wide = signature.args, ir.VectorType(ir.DoubleType(), _WIDTH)
        target = context.make_array(kinds[2])(context, builder, args[2]).data
        for lane in range(0, _SUMS, _WIDTH):
            place = builder.bitcast(builder.gep(target, [ir.Constant(ir.IntType(64), lane)]), wide.as_pointer())
            total = builder.load(place, align=8)
            for offset in range(lane, int(_FOUR), _SUMS):
                first = builder.add(args[1], ir.Constant(ir.IntType(64), offset))
                block = _load(context, builder, kinds[0], args[0], first, _WIDTH)
                total = builder.fadd(total, squares(builder, block))
            builder.store(total, place, align=8)
        return context.get_dummy_value()

    return generate


@_intrinsic
def _add_floats(_typing: Any, numbers: Any, start: Any, sums: Any) -> Any:
    """Add to the 64 sums the squares of the 256 numbers from `start` on: see `_adding`."""

    def squares(builder: Any, block: Any) -> Any:
        wide = builder.fpext(block, ir.VectorType(ir.DoubleType(), _WIDTH)) if numbers.dtype.bitwidth < 64 else block
        return builder.fmul(wide, wide)

    return types.void(numbers, types.uint64, sums), _adding(squares)


@_intrinsic
def _add_float16(_typing: Any, bits: Any, start: Any, sums: Any) -> Any:
    """Add to the 64 sums the squares of the 256 numbers in float16 from `start` on: see `_adding`."""

    def squares(builder: Any, block: Any) -> Any:
        halves = builder.bitcast(block, ir.VectorType(ir.HalfType(), _WIDTH))
        values = builder.fpext(halves, ir.VectorType(ir.FloatType(), _WIDTH))
        return builder.fpext(builder.fmul(values, values), ir.VectorType(ir.DoubleType(), _WIDTH))

    return types.void(bits, types.uint64, sums), _adding(squares)


@_intrinsic
def _add_bfloat16(_typing: Any, bits: Any, start: Any, sums: Any) -> Any:
    """Add to the 64 sums the squares of the 256 numbers in bfloat16 from `start` on: see `_adding`."""

    def squares(builder: Any, block: Any) -> Any:
        words = ir.VectorType(ir.IntType(32), _WIDTH)
        upper_half = builder.shl(builder.zext(block, words), ir.Constant(words, [16] * _WIDTH))
        values = builder.bitcast(upper_half, ir.VectorType(ir.FloatType(), _WIDTH))
        return builder.fpext(builder.fmul(values, values), ir.VectorType(ir.DoubleType(), _WIDTH))

    return types.void(bits, types.uint64, sums), _adding(squares)


@_intrinsic
def _float_of_half(_typing: Any, bits: Any) -> Any:
    """Return the float32 of the bits of a float16."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@compiled
def add_squares(numbers: NDArray[Any], bits: Keys, no_sign: Any) -> tuple[Any, Any]:
    """Return the sum of the squares of floats, in double precision, and how many of them are not 0.

    `bits` are theirs, and `no_sign` has all of these but the sign.
    """
    # Many sums side by side: the order of the additions is fixed, and yet the processor can do several at once.
    sums, zeros, size = np.zeros(_SUMS), _U0, np.uint64(numbers.size)
    most, whole = size // _FOUR * _FOUR, size // _BITS * _BITS
    for block in range(_U0, most, _FOUR):
        for start in range(block, block + _FOUR, _BITS):  # first, for it reads them in order
            zeros += _number(_equal(bits, start, no_sign, no_sign ^ no_sign))  # a 0 of their type
        _add_floats(numbers, block, sums)
    for index in range(most, size):
        wide = np.float64(numbers[index])
        sums[index % _BITS if index < whole else _U0] += wide * wide
        zeros += np.uint64((bits[index] & no_sign) == 0)
    return sums.sum(), size - zeros


@compiled
def add_squares_of_float16(bits: Keys) -> tuple[Any, Any]:
    """Return what `add_squares` does, of the bits of numbers in float16, whose squares are exact in float32."""
    sums, zeros, size = np.zeros(_SUMS), _U0, np.uint64(bits.size)
    most, whole = size // _FOUR * _FOUR, size // _BITS * _BITS
    for block in range(_U0, most, _FOUR):
        _add_float16(bits, block, sums)
        for start in range(block, block + _FOUR, _BITS):
            zeros += _number(_equal(bits, start, _NO_SIGN, np.uint16(0)))
    for index in range(most, size):
        wide = np.float64(_float_of_half(bits[index]))
        sums[index % _BITS if index < whole else _U0] += wide * wide
        zeros += np.uint64((bits[index] & _NO_SIGN) == 0)
    return sums.sum(), size - zeros


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
def _add_products(
    _typing: Any, codes: Any, start: Any, n_groups: Any, scale_of: Any, shift: Any, sums: Any, largest: Any
) -> Any:
    """Add to the 32 sums the squares of the products of codes and their scales: `n_groups` of 32 from `start` on.

    Code ``4 * i + j`` of a group, i < 8 and j < 4, has place ``8 * j + i`` among the scales of a group, of which the
    first is that of the first code, and among the sums. Before they are added to these, they are added up by
    themselves: the fewer additions there are in a row, the less is lost. To `largest`, 32 bytes, modified in place,
    goes what is larger, but for the sign, in the same place of a group; nothing where codes are numbers with a sign.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds, long = signature.args, ir.IntType(64)
        arrays = [context.make_array(kinds[i])(context, builder, args[i]) for i in (0, 3, 5, 6)]
        given, scales, totals, most = (array.data for array in arrays)
        wide, group_of_bytes = ir.VectorType(ir.DoubleType(), _WIDTH), ir.VectorType(ir.IntType(8), _GROUP)
        bits, floats = ir.VectorType(ir.IntType(32), _WIDTH), ir.VectorType(ir.FloatType(), _WIDTH)
        variable: Any = cgutils.alloca_once_value
        kind = ir.FunctionType(wide, [wide] * 3)
        add_product = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.v8f64")  # type: ignore[no-untyped-call]

        def words(count: int) -> Any:
            return ir.Constant(bits, [count] * _WIDTH)

        def pointer(array: Any, place: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(array, [place]), kind.as_pointer())

        nothing = ir.Constant(wide, [0.0] * _WIDTH)
        added = [variable(builder, nothing) for _ in range(_CODES_OF_A_WORD)]  # LLVM keeps them in registers
        shifts = _splat(builder, args[4], _WIDTH)
        group_bits = ir.Constant(long, _GROUP.bit_length() - 1)
        no_sign = ir.Constant(group_of_bytes, [int(_NO_SIGN_OF_BYTE)] * _GROUP)
        most = pointer(most, ir.Constant(long, 0), group_of_bytes)
        seen = variable(builder, builder.load(most, align=1))
        with cgutils.for_range(builder, args[2], intp=long) as group:
            first = builder.shl(group.index, group_bits)
            block = builder.load(pointer(given, builder.add(args[1], first), bits), align=1)
            if not kinds[0].dtype.signed:
                block = builder.and_(builder.bitcast(block, group_of_bytes), no_sign)
                before = builder.load(seen)
                builder.store(builder.select(builder.icmp_unsigned(">", block, before), block, before), seen)
                block = builder.bitcast(block, bits)
            for place in range(_CODES_OF_A_WORD):
                if kinds[0].dtype.signed:
                    upper = builder.shl(block, words(24 - 8 * place))
                    values = builder.sitofp(builder.ashr(upper, words(24)), floats)
                else:
                    moved = builder.and_(builder.lshr(block, words(8 * place)), words(0x7F))
                    values = builder.bitcast(builder.shl(moved, shifts), floats)
                at = builder.add(first, ir.Constant(long, _WIDTH * place))
                product = builder.fmul(values, builder.load(pointer(scales, at, floats), align=4))
                exact = builder.fpext(product, wide)  # so is its square, and one rounding is as good as two
                builder.store(builder.call(add_product, [exact, exact, builder.load(added[place])]), added[place])
        for place, total in enumerate(added):
            target = pointer(totals, ir.Constant(long, _WIDTH * place), wide)
            builder.store(builder.fadd(builder.load(target, align=8), builder.load(total)), target, align=8)
        builder.store(builder.load(seen), most, align=1)
        return context.get_dummy_value()

    return types.void(codes, types.uint64, types.uint64, scale_of, types.uint32, sums, largest), generate


@compiled
def _spread_scales(scales: NDArray[np.float32], share: int, scale_of: NDArray[np.float32], whole: int) -> Any:
    """Write to `scale_of`, modified in place, what scale every entry has, `share` in a row one; return the least.

    Of the first `whole` entries, the scales of every group are in the order of `_add_products`.
    """
    least = scales[0]
    for place in range(scales.size):
        scale = scales[place]
        least = min(least, scale)
        scale_of[place * share : min(place * share + share, scale_of.size)] = scale
    if share % _GROUP and scales.size > 1:
        group = np.empty((_WIDTH, _CODES_OF_A_WORD), np.float32)
        for first in range(0, whole, _GROUP):
            group.ravel()[:] = scale_of[first : first + _GROUP]
            scale_of[first : first + _GROUP] = group.T.copy().ravel()
    return least


@compiled
def _move_to(total: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    """Add sums to `total`, whose second entry is what the first has lost to rounding; both are modified in place."""
    for lane in range(sums.size):
        before, added = total[0], sums[lane]
        total[0] = before + added
        came = total[0] - before
        total[1] += (before - (total[0] - came)) + (added - came)  # Knuth's two-sum
        sums[lane] = 0.0


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
    may make a product 0. Returns also a number above 0 if codes have bits, but for the sign, of at least `infinity`; of
    int8 none has.
    """
    sums, total, largest = np.zeros(_GROUP), np.zeros(2), np.zeros(_GROUP, np.uint8)
    zeros, beyond, n = _U0, _U0, np.uint64(width)
    scale_of, current, faint = np.empty(width, np.float32), np.int64(-1), False
    whole = n // _BITS * _BITS
    for line in range(np.uint64(tile.size) // n):
        if (first + np.int64(line)) // block[0] != current:
            current = (first + np.int64(line)) // block[0]
            faint = _spread_scales(scales[current], block[1], scale_of, np.int64(whole)) < least_scale
        base = line * n
        _add_products(tile, base, whole // _THIRTY_TWO, scale_of, shift, sums, largest)
        for start in range(base, base + whole, _BITS):
            zeros += _number(_equal(tile, start, _NO_SIGN_OF_BYTE, _NO_BYTE))
        for entry in range(whole, n):
            wide = np.float64(_float_of_byte(tile[base + entry], shift) * scale_of[entry])
            sums[entry % _THIRTY_TWO] += wide * wide
            key = _key(tile, base + entry, _NO_SIGN_OF_BYTE)
            beyond += np.uint64(key >= infinity)
            zeros += np.uint64(key == 0)
        if faint:
            for entry in range(n):
                product = _float_of_byte(tile[base + entry], shift) * scales[current, np.int64(entry) // block[1]]
                zeros += np.uint64(product == 0 and _key(tile, base + entry, _NO_SIGN_OF_BYTE) != 0)
        if line % _BITS == _U0:  # few additions in a row, however many lines there are
            _move_to(total, sums)
    _move_to(total, sums)
    return total.sum(), np.uint64(tile.size) - zeros, beyond + np.uint64(largest.max() >= infinity)


_CODES = 128  # of a byte without its sign
_DIGITS, _DIGIT_BITS = 7, 8
_LINES = 16  # read at once: of more, a processor no longer foresees what comes next in each
_FEATURES: Any = registry.cpu_target.target_context.codegen().magic_tuple()[-1]  # that kernels are compiled for
LOOKS_UP_BYTES = "+avx512vbmi" in _FEATURES.split(",")
"""Whether this processor looks up 64 bytes at once in a table of 128, which `add_squares_by_table` asks for."""


@_intrinsic
def _add_digits(
    _typing: Any,
    codes: Any,
    start: Any,
    width: Any,
    lines: Any,
    n_blocks: Any,
    digits: Any,
    sums: Any,
    largest: Any,
) -> Any:
    """Look up codes in tables of 128 bytes and add what is found to `sums`, modified in place, 8 of them for a table.

    The codes are `n_blocks` times 64 entries from `start` on, and those below them in so many `lines` of `width`
    entries; their sign is ignored. `digits` holds the tables one after the other. To `largest`, 64 codes, modified in
    place, goes what is larger in the same place of a block.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        long, block_of_bytes, words = ir.IntType(64), ir.VectorType(ir.IntType(8), 64), ir.VectorType(ir.IntType(64), 8)
        kinds = signature.args
        table, totals, most = (context.make_array(kinds[i])(context, builder, args[i]).data for i in (5, 6, 7))

        def pointer(array: Any, place: int, kind: Any) -> Any:
            return builder.bitcast(builder.gep(array, [ir.Constant(long, place)]), kind.as_pointer())

        variable: Any = cgutils.alloca_once_value

        def instruction(name: str, result: Any, *operands: Any) -> Any:
            kind = ir.FunctionType(result, operands)
            return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]

        look_up = instruction("llvm.x86.avx512.vpermi2var.qi.512", block_of_bytes, *[block_of_bytes] * 3)
        add_bytes = instruction("llvm.x86.avx512.psad.bw.512", words, block_of_bytes, block_of_bytes)
        nothing = ir.Constant(block_of_bytes, [0] * 64)
        no_sign = ir.Constant(block_of_bytes, [int(_NO_SIGN_OF_BYTE)] * 64)
        tables = [
            [builder.load(pointer(table, place, block_of_bytes), align=1) for place in (first, first + 64)]
            for first in range(0, _CODES * (_DIGITS + 1), _CODES)
        ]
        # Kept in registers: LLVM moves what is stored in these variables into them.
        places = [pointer(totals, 8 * place, words) for place in range(len(tables))]
        added = [variable(builder, builder.load(place, align=8)) for place in places]
        seen = variable(builder, builder.load(pointer(most, 0, block_of_bytes), align=1))
        with cgutils.for_range(builder, args[3], intp=long) as line:
            first = builder.add(args[1], builder.mul(line.index, args[2]))
            with cgutils.for_range(builder, args[4], intp=long) as block:
                place = builder.add(first, builder.shl(block.index, ir.Constant(long, 6)))
                entries = _load(context, builder, kinds[0], args[0], place, 64)
                for (low, high), total in zip(tables, added, strict=True):
                    found = builder.call(look_up, [low, entries, high])  # of the places only 7 bits are read
                    builder.store(builder.add(builder.load(total), builder.call(add_bytes, [found, nothing])), total)
                unsigned, before = builder.and_(entries, no_sign), builder.load(seen)
                builder.store(builder.select(builder.icmp_unsigned(">", unsigned, before), unsigned, before), seen)
        for place, total in zip(places, added, strict=True):
            builder.store(builder.load(total), place, align=8)
        builder.store(builder.load(seen), pointer(most, 0, block_of_bytes), align=1)
        return context.get_dummy_value()

    long = types.uint64
    return types.void(codes, long, long, long, long, digits, sums, largest), generate


@compiled
def _write_digits(scale: Any, shift: Any, infinity: Any, digits: NDArray[np.uint8]) -> int:
    """Write the squares of the products of every code and a scale to `digits`, modified in place.

    A product is made in float32. Its square is rounded to a whole number of units, which are 2 to the power that is
    returned: table i of the first seven holds digit i, to base 256. The last table holds 1 where the product is 0.
    """
    squares = np.empty(_CODES)
    for code in range(_CODES):
        product = _float_of(np.uint32(code) << shift) * scale if code < infinity else np.float32(0)
        wide = np.float64(product)
        squares[code] = wide * wide
        digits[_DIGITS, code] = product == 0
    unit = math.frexp(squares[min(int(infinity), _CODES) - 1])[1] - _DIGITS * _DIGIT_BITS
    factor = math.ldexp(1.0, -unit)
    for code in range(_CODES):
        whole = np.uint64(np.rint(squares[code] * factor))
        for digit in range(_DIGITS):
            digits[digit, code] = whole >> np.uint64(_DIGIT_BITS * digit) & np.uint64(0xFF)
    return unit


@compiled
def add_squares_by_table(
    tile: Keys,
    width: int,
    first: int,
    scales: NDArray[np.float32],
    block: tuple[int, int],
    shift: Any,
    infinity: Any,
) -> tuple[Any, Any, Any, Any]:
    """Return what `add_squares_of_products` does, of floats of one byte, and the most by which the sum is wrong.

    Every square is looked up, as a number of 56 bits, in a table that is made for each scale. No product overflows.
    """
    n_scales, lines, line = scales.shape[1], tile.size // width, 0
    digits = np.empty((n_scales, _DIGITS + 1, _CODES), np.uint8)
    units, whole = np.empty(n_scales, np.int64), np.empty(n_scales, np.int64)
    for place in range(n_scales):
        whole[place] = int(min(block[1], width - place * block[1])) // 64
    sums, largest = np.empty((n_scales, _DIGITS + 1, 8), np.uint64), np.zeros(64, np.uint8)
    total, wrong, zeros, beyond = 0.0, 0.0, _U0, _U0
    sums_of_rest = np.zeros(_SUMS)  # of the entries that are too few for a look-up, by their place among them
    while line < lines:  # those that share their scales
        row = (first + line) // block[0]
        stop = int(min(lines, (row + 1) * block[0] - first))
        for place in range(n_scales):
            units[place] = _write_digits(scales[row, place], shift, infinity, digits[place])
        sums[:] = 0
        for top in range(line, stop, _LINES):
            n_lines = np.uint64(min(_LINES, stop - top))
            for place in range(n_scales):
                start = np.uint64(top * width + place * block[1])
                blocks = np.uint64(whole[place])
                _add_digits(tile, start, np.uint64(width), n_lines, blocks, digits[place], sums[place], largest)
        for place in range(n_scales):
            found = 0.0
            for digit in range(_DIGITS - 1, -1, -1):
                found = 256 * found + np.float64(sums[place, digit].sum())
            total += math.ldexp(found, int(units[place]))
            wrong += math.ldexp(32.0 * whole[place] * (stop - line), int(units[place]))  # half a unit each
            zeros += sums[place, _DIGITS].sum()
            begin, end = place * block[1] + 64 * whole[place], min((place + 1) * block[1], width)
            for base in range(line * width, stop * width if begin < end else 0, width):
                for index in range(base + begin, base + end):
                    code = tile[index] & _NO_SIGN_OF_BYTE
                    wide = np.float64(_float_of(np.uint32(code) << shift) * scales[row, place])
                    sums_of_rest[index - base - begin] += wide * wide
                    zeros += np.uint64(wide == 0)
                    beyond += np.uint64(code >= infinity)
        line = stop
    total += sums_of_rest.sum()
    return total, np.uint64(tile.size) - zeros, beyond + np.uint64(largest.max() >= infinity), wrong
