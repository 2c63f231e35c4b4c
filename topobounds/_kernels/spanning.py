"""Kernels of the spanning forest of a dense layer: filter, Kruskal's algorithm, Borůvka rounds, ranks.

A kernel sees the matrix as a tile: some of its rows (or columns), one after the other in one flat array of unsigned
integers, whose order is that of |w| once `magnitude` has masked the sign away. `lift` is added to every key: 0 where a
zero weight is no edge, 1 where it is one, so that key 0 always means no edge.

An edge is a cell, ``row << 32 | column``, which sorts as the flat row-major index and never overflows; or, packed with
its key, a code that sorts as the total order. Vertices are numbered 0 .. m-1 for rows and m .. m+n-1 for columns.
"""

from typing import Any

import numpy as np
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

from topobounds._kernels import compiled, inlined
from topobounds._types import Cells, Keys, Vertices

_intrinsic: Any = extending.intrinsic
ir: Any = cgutils.ir  # type: ignore[attr-defined]  # llvmlite's, which numba brings
_LANES = 64  # entries compared at once; the answer is one bit each in an uint64
_BLOCK = 128  # entries asked at once whether any of them is of interest: most often none is
_DIGIT_BITS = np.uint64(12)  # sorted by at once: their counts stay in the cache
UNREAD_BINS = 64  # counters that take turns for what nobody reads: one alone would be waited for
_PENDING = 1024  # entries that are compared with edges together
_U0, _U1, _U2, _U15, _U32 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(15), np.uint64(32)
_U64, _U128 = np.uint64(_LANES), np.uint64(_BLOCK)
_ONE = np.uint32(1)
HOLDS_EDGES = np.uint32(2**31)  # the mark of a bin, above all that it can count
_LOW = np.uint64(0xFFFFFFFF)
_U31_BITS = np.uint32(0x7FFFFFFF)
_NEARLY_ONE, _SMALL = np.float32(1 - 2**-20), np.float32(2**-100)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _load(context: Any, builder: Any, array_type: Any, array: Any, start: Any, lanes: int) -> Any:
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [start])
    kind = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=array_type.dtype.bitwidth // 8)


def _keys(builder: Any, dtype: Any, vector: Any, magnitude: Any) -> Any:
    """Return the keys of a vector of entries, less their lift: |x| of integers with a sign, else the masked bits."""
    if not dtype.signed:
        return builder.and_(vector, _splat(builder, magnitude, vector.type.count))
    zeros = ir.Constant(vector.type, [0] * vector.type.count)
    return builder.select(builder.icmp_signed("<", vector, zeros), builder.sub(zeros, vector), vector)


def _unsigned(array: Any) -> Any:
    return types.Integer.from_bitwidth(array.dtype.bitwidth, signed=False)


# LLVM does not vectorise these comparisons nor return a bit mask, so the vector code is written out.
@_intrinsic
def _any_at_least(_typing: Any, array: Any, start: Any, magnitude: Any, bound: Any) -> Any:
    """Whether one of the _BLOCK entries from `start` on, masked by `magnitude`, is at least `bound`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, lanes = signature.args[0], 256 // signature.args[0].dtype.bitwidth
        offsets = [ir.Constant(ir.IntType(64), offset) for offset in range(0, _BLOCK, lanes)]
        starts = [builder.add(args[1], offset) for offset in offsets]
        mask = _splat(builder, args[2], lanes)
        vectors = [builder.and_(_load(context, builder, kind, args[0], place, lanes), mask) for place in starts]
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [builder.select(builder.icmp_unsigned(">", a, b), a, b) for a, b in pairs]
        passed = builder.icmp_unsigned(">=", vectors[0], _splat(builder, args[3], lanes))
        bits = builder.bitcast(passed, ir.IntType(lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(array, types.uint64, array.dtype, array.dtype), generate


@_intrinsic
def _write_bins(
    _typing: Any,
    array: Any,
    start: Any,
    magnitude: Any,
    lightest: Any,
    span: Any,
    shift: Any,
    n_bins: Any,
    bins: Any,
) -> Any:
    """Write to `bins` the bin of each of the _BLOCK entries from `start` on: see `count_in_bins`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, lanes = signature.args[0], 256 // signature.args[0].dtype.bitwidth
        mask, least, most, shifts = (_splat(builder, args[i], lanes) for i in (2, 3, 4, 5))
        wide = ir.VectorType(ir.IntType(32), lanes)
        above = _splat(builder, args[6], lanes)
        target = context.make_array(signature.args[7])(context, builder, args[7]).data
        for offset in range(0, _BLOCK, lanes):
            place = builder.add(args[1], ir.Constant(ir.IntType(64), offset))
            keys = builder.and_(_load(context, builder, kind, args[0], place, lanes), mask)
            beyond = builder.sub(keys, least)
            steps = builder.lshr(beyond, shifts)
            if kind.dtype.bitwidth != 32:
                steps = (builder.trunc if kind.dtype.bitwidth > 32 else builder.zext)(steps, wide)
            inside = builder.select(builder.icmp_unsigned("<=", beyond, most), steps, above)
            unread = builder.add(above, ir.Constant(wide, [1 + (offset + i) % UNREAD_BINS for i in range(lanes)]))
            result = builder.select(builder.icmp_unsigned(">=", keys, least), inside, unread)
            pointer = builder.gep(target, [ir.Constant(ir.IntType(64), offset)])
            builder.store(result, builder.bitcast(pointer, wide.as_pointer()), align=4)
        return context.get_dummy_value()

    kind = array.dtype
    return types.void(array, types.uint64, kind, kind, kind, kind, types.uint32, bins), generate


@_intrinsic
def _any_above(_typing: Any, array: Any, start: Any, magnitude: Any, lift: Any, bounds: Any, first: Any) -> Any:
    """Whether one of the _BLOCK keys from `start` on, lift included, is above its bound; these begin at `first`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, lanes = signature.args[0], 256 // signature.args[0].dtype.bitwidth
        mask, lifts = _splat(builder, args[2], lanes), _splat(builder, args[3], lanes)
        found = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [0] * lanes)
        for offset in range(0, _BLOCK, lanes):
            place = [builder.add(begin, ir.Constant(ir.IntType(64), offset)) for begin in (args[1], args[5])]
            keys = builder.add(builder.and_(_load(context, builder, kind, args[0], place[0], lanes), mask), lifts)
            bound = _load(context, builder, signature.args[4], args[4], place[1], lanes)
            found = builder.or_(found, builder.icmp_unsigned(">", keys, bound))
        bits = builder.bitcast(found, ir.IntType(lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(array, types.uint64, array.dtype, array.dtype, bounds, types.uint64), generate


@_intrinsic
def _at_least(_typing: Any, array: Any, start: Any, magnitude: Any, bound: Any) -> Any:
    """Bit i of the result: the key at ``start + i``, less its lift, is at least `bound`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1], _LANES)
        block = _keys(builder, signature.args[0].dtype, block, args[2])
        return builder.bitcast(builder.icmp_unsigned(">=", block, _splat(builder, args[3], _LANES)), ir.IntType(64))

    return types.uint64(array, types.uint64, _unsigned(array), _unsigned(array)), generate


@_intrinsic
def _equal(_typing: Any, array: Any, start: Any, magnitude: Any, level: Any) -> Any:
    """Bit i of the result: the key at ``start + i``, less its lift, is `level`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1], _LANES)
        block = _keys(builder, signature.args[0].dtype, block, args[2])
        return builder.bitcast(builder.icmp_unsigned("==", block, _splat(builder, args[3], _LANES)), ir.IntType(64))

    return types.uint64(array, types.uint64, _unsigned(array), _unsigned(array)), generate


@_intrinsic
def _key(_typing: Any, array: Any, index: Any, magnitude: Any) -> Any:
    """Return the key at an index, less its lift."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1], 1)
        key = _keys(builder, signature.args[0].dtype, block, args[2])
        key = builder.extract_element(key, ir.Constant(ir.IntType(32), 0))
        return builder.zext(key, ir.IntType(64)) if signature.args[0].dtype.bitwidth < 64 else key

    return types.uint64(array, types.uint64, _unsigned(array)), generate


@_intrinsic
def _differ(_typing: Any, array: Any, start: Any, value: Any) -> Any:
    """Bit i of the result: ``array[start + i] != value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1], _LANES)
        return builder.bitcast(builder.icmp_unsigned("!=", block, _splat(builder, args[2], _LANES)), ir.IntType(64))

    return types.uint64(array, types.uint64, array.dtype), generate


@_intrinsic
def _lowest(_typing: Any, bits: Any) -> Any:
    """Index of the lowest bit that is set; `bits` is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@_intrinsic
def _highest(_typing: Any, bits: Any) -> Any:
    """Index of the highest bit that is set; `bits` is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return types.uint64(types.uint64), generate


@_intrinsic
def _number(_typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generate


@_intrinsic
def _bits_of(_typing: Any, number: Any) -> Any:
    """Return the bits of a float32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@_intrinsic
def _ratio(_typing: Any, number: Any, divisor: Any) -> Any:
    """Return the quotient of two float32, which is infinite where the second is 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fdiv(*args)

    return types.float32(types.float32, types.float32), generate


@_intrinsic
def _float_of(_typing: Any, bits: Any) -> Any:
    """Return the float32 of these bits."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), generate


@inlined
def _heavy(tile: Keys, start: Any, lanes: Any, magnitude: Any, bound: Any) -> Any:
    """Bit i of the result, i < lanes: the key at ``start + i``, less its lift, is at least `bound`."""
    stop = start + lanes
    if stop >= _U64:  # a short block is read from its end, so that no read passes the array's
        return _at_least(tile, stop - _U64, magnitude, bound) >> (_U64 - lanes)
    bits = _U0
    for i in range(lanes):
        bits |= np.uint64(_key(tile, start + i, magnitude) >= bound) << i
    return bits


@inlined
def _tied(tile: Keys, start: Any, lanes: Any, magnitude: Any, level: Any) -> Any:
    """Bit i of the result, i < lanes: the key at ``start + i``, less its lift, is `level`."""
    stop = start + lanes
    if stop >= _U64:
        return _equal(tile, stop - _U64, magnitude, level) >> (_U64 - lanes)
    bits = _U0
    for i in range(lanes):
        bits |= np.uint64(_key(tile, start + i, magnitude) == level) << i
    return bits


@inlined
def _elsewhere(labels: Vertices, start: Any, lanes: Any, own: Any) -> Any:
    """Bit i of the result, i < lanes: the label of line ``start + i`` is not `own`; 64 labels of padding come first."""
    return _differ(labels, start + lanes, own) >> (_U64 - lanes)


@compiled
def collect(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    own: Vertices,
    labels: Vertices,
    first: int,
    bound: Any,
    layout: Cells,
    apart: bool,
    line: int,
    codes: Cells,
) -> tuple[Any, Any]:
    """Write the codes of the keys of `tile` that are at least `bound` to `codes`, modified in place.

    Entries whose label is their line's are left out: `own` holds the label of each line, `labels` those of the entries
    of a line, after 64 labels of padding; if they are known to be `apart`, no labels are read. Lines count from
    `first`. It begins at line `line` of the tile and stops
    before one that `codes` might not hold. Returns the line to go on from, and how many codes were written.

    `layout` is (top, dropped, cell_bits, line_shift, entry_shift), and a code
    ``(top - key) >> dropped << cell_bits | line << line_shift | entry << entry_shift``.
    """
    top, dropped, cell_bits, line_shift, entry_shift = layout[0], layout[1], layout[2], layout[3], layout[4]
    n, room, raw_bound = np.uint64(labels.size) - _U64, np.uint64(codes.size), np.uint64(bound) - np.uint64(lift)
    # Most blocks hold none. Which do is written down without a branch, for nothing foresees them.
    words, starts = np.empty(n // _U64 + _U2, np.uint64), np.empty(n // _U64 + _U2, np.uint64)
    count, row = _U0, np.uint64(line)
    while row < np.uint64(own.size) and count + n <= room:
        base, cell, n_words = row * n, (np.uint64(first) + row) << line_shift, _U0
        for start in range(_U0, n - n % _U64, _U64):
            bits = _at_least(tile, base + start, magnitude, raw_bound)
            words[n_words], starts[n_words] = bits, start
            n_words += np.uint64(bits != _U0)
        if n % _U64:
            rest = n - n % _U64
            words[n_words], starts[n_words] = _heavy(tile, base + rest, n - rest, magnitude, raw_bound), rest
            n_words += _U1
        for place in range(n_words):
            start = starts[place]
            bits = words[place]
            if not apart:
                bits &= _elsewhere(labels, start, min(_U64, n - start), own[row])
            while bits:
                entry = start + _lowest(bits)
                bits &= bits - _U1
                key = _key(tile, base + entry, magnitude) + np.uint64(lift)
                codes[count] = (top - key) >> dropped << cell_bits | cell | entry << entry_shift
                count += _U1
        row += _U1
    return row, count


@compiled
def _bound_words(
    scales: Any, least: Any, bounds_by_ratio: Any, bounds: Any, firsts: Vertices, lasts: Vertices, word_bounds: Any
) -> None:
    """Write the bound of the bytes of every scale to `bounds`, and the least that a word has to `word_bounds`.

    Word i has the scales ``firsts[i]`` to ``lasts[i]``.
    """
    shift = np.uint32(31) - np.uint32(_number(np.uint64(bounds_by_ratio.size - 1)))
    for place in range(scales.size):
        # 0 / 0 is NaN, with a sign on some processors: only codes that are not finite pass.
        bounds[place] = bounds_by_ratio[(_bits_of(_ratio(least, scales[place])) & _U31_BITS) >> shift]
    if scales.size == 1:
        word_bounds[:] = bounds[0]
        return
    for word in range(word_bounds.size):
        word_bounds[word] = bounds[firsts[word]]
        for place in range(firsts[word] + 1, lasts[word] + 1):
            word_bounds[word] = min(word_bounds[word], bounds[place])


@compiled
def collect_scaled(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    own: Vertices,
    labels: Vertices,
    first: int,
    bound: Any,
    layout: Cells,
    apart: bool,
    scales: Any,
    lines_per_scale: int,
    scale_of_entry: Vertices,
    by_key: Any,
    bounds_by_ratio: Any,
    line: int,
    codes: Cells,
) -> tuple[Any, Any]:
    """As `collect`, where the entries of `tile` are bytes to be multiplied by scales: keys are those of the products.

    Line i, counted from 0, and entry j have the scale ``scales[i // lines_per_scale, scale_of_entry[j]]``. `by_key`
    holds the values of the keys of bytes, rising, infinity for those that are not finite; these always pass.
    `bounds_by_ratio` holds, by the highest bits of a float, the least key of a byte whose value may reach it. `bound`
    is above `lift`.
    """
    top, dropped, cell_bits, line_shift, entry_shift = layout[0], layout[1], layout[2], layout[3], layout[4]
    n, room = np.uint64(labels.size) - _U64, np.uint64(codes.size)
    raw_bound = np.uint32(np.uint64(bound) - np.uint64(lift))
    # A product that reaches the bound after rounding may have fallen short of it before.
    least = _float_of(raw_bound) * (_NEARLY_ONE if _float_of(raw_bound) > _SMALL else np.float32(0.25))
    bounds = np.empty(scales.shape[1], np.uint8)
    word_bounds = np.empty(n // _U64 + _U1, np.uint8)
    firsts, lasts = np.empty(word_bounds.size, np.uint32), np.empty(word_bounds.size, np.uint32)
    for word in range(np.uint64(word_bounds.size)):
        last = min(word * _U64 + _U64, n) - _U1
        firsts[word], lasts[word] = scale_of_entry[min(word * _U64, last)], scale_of_entry[last]
    words, starts = np.empty(n // _U64 + _U2, np.uint64), np.empty(n // _U64 + _U2, np.uint64)
    count, row, current = _U0, np.uint64(line), np.int64(-1)
    while row < np.uint64(own.size) and count + n <= room:
        line_scales = scales[(first + np.int64(row)) // lines_per_scale]
        if (first + np.int64(row)) // lines_per_scale != current:
            current = (first + np.int64(row)) // lines_per_scale
            _bound_words(line_scales, least, bounds_by_ratio, bounds, firsts, lasts, word_bounds)
        base, cell, n_words = row * n, (np.uint64(first) + row) << line_shift, _U0
        for start in range(_U0, n - n % _U64, _U64):
            bits = _at_least(tile, base + start, magnitude, word_bounds[start // _U64])
            words[n_words], starts[n_words] = bits, start
            n_words += np.uint64(bits != _U0)
        if n % _U64:
            rest = n - n % _U64
            bits = _heavy(tile, base + rest, n - rest, magnitude, word_bounds[rest // _U64])
            words[n_words], starts[n_words] = bits, rest
            n_words += _U1
        for place in range(n_words):
            start = starts[place]
            bits, word = words[place], start // _U64
            scale = line_scales[firsts[word]]
            if not apart:
                bits &= _elsewhere(labels, start, min(_U64, n - start), own[row])
            while bits:
                entry = start + _lowest(bits)
                bits &= bits - _U1
                if firsts[word] != lasts[word]:
                    scale = line_scales[scale_of_entry[entry]]
                raw = _bits_of(by_key[_key(tile, base + entry, magnitude)] * scale) & _U31_BITS
                codes[count] = (
                    (top - (np.uint64(raw) + np.uint64(lift))) >> dropped << cell_bits | cell | entry << entry_shift
                )
                count += np.uint64(raw >= raw_bound)
        row += _U1
    return row, count


@inlined
def _digit(code: Any, low: Any, least: Any, shift: Any, mask: Any) -> Any:
    return ((code >> low) - least) >> shift & mask


@compiled
def sort_codes(codes: Cells, spare: Cells, low: Any) -> Cells:
    """Return codes rising by their bits from `low` up, equal ones as they came; both arrays are modified.

    Digit by digit from the lowest: codes that differ in few of these bits take but one or two passes.
    """
    least, largest = ~_U0, _U0
    for i in range(np.uint64(codes.size)):  # thus without branches, many at once
        least = codes[i] if codes[i] < least else least
        largest = codes[i] if codes[i] > largest else largest
    least >>= low
    n_bits = _U0
    while codes.size and ((largest >> low) - least) >> n_bits:
        n_bits += _U1
    n_passes = (n_bits + _DIGIT_BITS - _U1) // _DIGIT_BITS
    source, target = codes, spare
    half = codes.size // 2
    for digit in range(n_passes):
        width = (n_bits + n_passes - _U1) // n_passes
        shift, mask = digit * width, (_U1 << width) - _U1
        # Each half has its own counts: where values repeat, counting one would have to wait for the one before.
        places, later = np.zeros(_U1 << width, np.uint32), np.zeros(_U1 << width, np.uint32)
        for i in range(half):
            places[_digit(source[i], low, least, shift, mask)] += 1
            later[_digit(source[half + i], low, least, shift, mask)] += 1
        for i in range(2 * half, source.size):
            later[_digit(source[i], low, least, shift, mask)] += 1
        first = np.uint32(0)
        for value in range(places.size):
            count, second = places[value], later[value]
            places[value], later[value] = first, first + count
            first += count + second
        for i in range(half):
            value, other = (
                _digit(source[i], low, least, shift, mask),
                _digit(source[half + i], low, least, shift, mask),
            )
            target[places[value]], target[later[other]] = source[i], source[half + i]
            places[value] += 1
            later[other] += 1
        for i in range(2 * half, source.size):
            value = _digit(source[i], low, least, shift, mask)
            target[later[value]] = source[i]
            later[value] += 1
        source, target = target, source
    return source


@compiled
def heaviest_by_line(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    lines: NDArray[np.int64],
    own: Vertices,
    labels: Vertices,
    keys: Keys,
    places: Vertices,
) -> None:
    """Write, for each of `lines` of `tile`, the largest key among the entries whose label is not the line's own.

    `own` and `labels` as for `collect`. `places` receives where it is, the first of equals; a line that has none gets
    key 0. `keys` and `places` are modified in place.
    """
    n = np.uint64(labels.size) - _U64
    for line in range(np.uint64(own.size)):
        base, label = np.uint64(lines[line]) * n, own[line]
        bound, place, found = np.uint64(1 - lift), _U0, False
        for block in range(_U0, n, _U128):
            if block + _U128 <= n and not _any_at_least(tile, base + block, magnitude, bound):
                continue
            for start in range(block, min(block + _U128, n), _U64):
                lanes = min(_U64, n - start)
                others = _elsewhere(labels, start, lanes, label)
                bits = _heavy(tile, base + start, lanes, magnitude, bound) & others
                if bits:
                    while bits:  # from behind: a line that rises is then settled at once
                        bound = np.uint64(tile[base + start + _highest(bits)] & magnitude) + _U1
                        bits = _heavy(tile, base + start, lanes, magnitude, bound) & others
                    bits = _heavy(tile, base + start, lanes, magnitude, bound - _U1) & others
                    place, found = start + _lowest(bits), True
        keys[line] = bound - _U1 + np.uint64(lift) if found else _U0
        places[line] = place


@compiled
def heaviest_by_entry(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    own: Vertices,
    labels: Vertices,
    first: int,
    ceiling: Any,
    keys: Keys,
    places: Vertices,
) -> None:
    """Find the largest key of each entry of a line, across the lines of `tile` that lie in another component.

    `keys` and `places` are modified in place, each entry whose key here is larger than what stands in `keys`: to that
    key, and the number of its line, counted from `first`, the first of equals. The other arguments are as in `collect`;
    the labels of the entries begin after 64 others (see the top of this file). It stops once all of `keys` have reached
    `ceiling`, which no key exceeds: where the largest weights tie, very soon.
    """
    n = np.uint64(labels.size) - _U64
    for line in range(np.uint64(own.size)):
        if line & _U15 == _U15:  # only every sixteenth line, which costs nothing
            reached = True
            for entry in range(n):
                reached &= keys[entry] >= ceiling
            if reached:
                return
        base, label, row = line * n, own[line], np.uint32(np.uint64(first) + line)
        for block in range(_U0, n, _U128):
            if block + _U128 <= n and not _any_above(tile, base + block, magnitude, lift, keys, block):
                continue
            for entry in range(block, min(block + _U128, n)):  # no branches: the compiler does many at once
                key = (tile[base + entry] & magnitude) + lift
                better = (key > keys[entry]) & (labels[_U64 + entry] != label)
                keys[entry] = key if better else keys[entry]
                places[entry] = row if better else places[entry]


@inlined
def _root(parent: Vertices, vertex: Any) -> Any:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@compiled
def kruskal(codes: Cells, row_bits: Any, col_bits: Any, m: int, parent: Vertices, positions: NDArray[np.int64]) -> int:
    """Take `codes` in order; write to `positions` the place of each that merges two components, and count them.

    The lowest `col_bits` of a code are its column, the `row_bits` above them its row. `parent` and `positions` are
    modified in place; `positions` needs room for min(m + n - 1, codes.size) entries.
    """
    merged, tree = 0, parent.size - 1
    row_mask, col_mask = (_U1 << row_bits) - _U1, (_U1 << col_bits) - _U1
    for place in range(codes.size):
        if merged == tree:
            break
        a = _root(parent, np.uint32(codes[place] >> col_bits & row_mask))
        b = _root(parent, np.uint32(np.uint64(m) + (codes[place] & col_mask)))
        if a != b:
            parent[max(a, b)] = min(a, b)
            positions[merged] = place
            merged += 1
    return merged


@compiled
def survey_level(
    tile: Keys, magnitude: Any, level: Any, counts: NDArray[np.int64], entries: NDArray[np.int64], met: Cells
) -> None:
    """Count the keys of each line of `tile` that are `level`, lift not included, and find the first of them.

    `counts` receives how many there are, `entries` the entry of the first, both modified in place; entry i of any line
    sets bit ``i % 64`` of ``met[i // 64]``.
    """
    n_lines = np.uint64(counts.size)
    n = np.uint64(tile.size) // n_lines
    for line in range(n_lines):
        base, count, entry = line * n, _U0, n
        for start in range(_U0, n, _U64):
            bits = _tied(tile, base + start, min(_U64, n - start), magnitude, level)
            if bits and not count:
                entry = start + _lowest(bits)
            count += _number(bits)
            met[start // _U64] |= bits
        counts[line], entries[line] = count, entry


@inlined
def _join(parent: Vertices, reached: NDArray[np.uint8], a: Any, b: Any) -> Any:
    """Join two roots; return by how much fewer components there are of those that hold an entry to be reached."""
    low, high = min(a, b), max(a, b)
    parent[high] = low
    fewer = reached[low] & reached[high]
    reached[low] |= reached[high]
    return np.int64(fewer)


@compiled
def sweep_level(
    tile: Keys,
    magnitude: Any,
    level: Any,
    first: int,
    offset: int,
    parent: Vertices,
    labels: Vertices,
    counts: NDArray[np.int64],
    reached: NDArray[np.uint8],
    state: NDArray[np.int64],
    cells: Cells,
    ranks: NDArray[np.int64],
) -> int:
    """Take the keys of `tile` that are `level`, lift not included, in flat order, and write those that join components.

    Lines are rows, count from `first`, and are vertices; the entry i of a line is the vertex ``offset + i``. `labels`
    are as for `collect`, and may be behind `parent`. `counts` holds for each line of the tile how many keys are at the
    level. `reached` marks the roots of components that hold an entry which any line has at this level. `state` is (how
    many edges were found, how many keys of the level went before the tile, how many components are marked). Cells and
    ranks within the level, from 1, of edges are written to `cells` and `ranks`. All but the tile are modified in place.

    It stops as soon as only one component is marked: from then on only the first key of a line can join anything.
    Returns how many lines were taken.
    """
    n = np.uint64(labels.size) - _U64
    stale = _U0  # entries looked at in vain, and those joined, since labels were up to date
    for line in range(counts.size):
        if state[2] <= 1:
            return line
        row = np.uint32(first + line)
        own, base, before = _root(parent, row), np.uint64(line) * n, np.uint64(state[1])
        for start in range(_U0, n if counts[line] else _U0, _U64):
            lanes = min(_U64, n - start)
            every = _tied(tile, base + start, lanes, magnitude, level)
            if not every:
                continue
            bits = every & _elsewhere(labels, start, lanes, own)
            while bits:
                lane = _lowest(bits)
                bits &= bits - _U1
                a, b = _root(parent, row), _root(parent, np.uint32(np.uint64(offset) + start + lane))
                stale += _U1
                if a != b:
                    state[2] -= _join(parent, reached, a, b)
                    cells[state[0]] = np.uint64(row) << _U32 | (start + lane)
                    ranks[state[0]] = before + _number(every & ((_U1 << lane) - _U1)) + _U1
                    state[0] += 1
                    own = _root(parent, row)
            before += _number(every)
        state[1] += counts[line]
        if stale > n:
            stale = _U0
            for entry in range(n):
                labels[_U64 + entry] = _root(parent, np.uint32(np.uint64(offset) + entry))
    return counts.size


@compiled
def join_lines(
    first: int,
    offset: int,
    parent: Vertices,
    counts: NDArray[np.int64],
    entries: NDArray[np.int64],
    state: NDArray[np.int64],
    cells: Cells,
    ranks: NDArray[np.int64],
) -> None:
    """Join every line from `first` on along its first key of a level; as `sweep_level` where nothing else can join."""
    for line in range(first, counts.size):
        if counts[line]:
            a, b = _root(parent, np.uint32(line)), _root(parent, np.uint32(offset + entries[line]))
            if a != b:
                parent[max(a, b)] = min(a, b)
                cells[state[0]] = np.uint64(line) << _U32 | np.uint64(entries[line])
                ranks[state[0]] = state[1] + 1
                state[0] += 1
        state[1] += counts[line]


@compiled
def label(parent: Vertices) -> None:
    """Point every vertex at its root; `parent` is modified in place."""
    for vertex in range(np.uint32(parent.size)):
        parent[vertex] = _root(parent, vertex)


@compiled
def hook(keys: Cells, cells: Cells, m: int, parent: Vertices, component_keys: Cells, component_cells: Cells) -> int:
    """Merge every component along its first edge in the order; write these edges to `cells`, and count them.

    `keys` and `cells` hold the first edge that leaves the component of each vertex, key 0 where there is none or the
    vertex sits out; `parent` holds labels. All are modified in place: the edges taken come first in `keys` and
    `cells`; `component_keys`, 0 at the start, receives the key of the first edge of each component.
    """
    for vertex in range(keys.size):
        root, key = parent[vertex], keys[vertex]
        if key > component_keys[root] or (
            key and key == component_keys[root] and cells[vertex] < component_cells[root]
        ):
            component_keys[root], component_cells[root] = key, cells[vertex]
    merged = 0
    for root in range(keys.size):
        if component_keys[root]:
            cell = component_cells[root]
            a = _root(parent, np.uint32(cell >> _U32))
            b = _root(parent, np.uint32(np.uint64(m) + (cell & _LOW)))
            if a != b:
                parent[max(a, b)] = min(a, b)
                keys[merged], cells[merged] = component_keys[root], cell
                merged += 1
    return merged


@compiled
def open_bins(edge_keys: Cells, shift: Any, edges_above: NDArray[np.uint32], bins: NDArray[np.uint32]) -> None:
    """Mark the bins that hold edges, and write how many edges lie above each: see `count_in_bins`."""
    n_edges, n_bins = np.uint64(edge_keys.size), np.uint64(edges_above.size) - _U2
    edge, lightest = _U0, edge_keys[edge_keys.size - 1]
    edges_above[n_bins + _U1] = 0
    for i in range(n_bins):
        place = n_bins - _U1 - i
        edges_above[place + _U1] = edge
        while edge < n_edges and (edge_keys[edge] - lightest) >> shift == place:
            edge += _U1
            bins[place] = HOLDS_EDGES
    edges_above[0] = n_edges


@compiled
def close_bins(bins: NDArray[np.uint32], edges_above: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
    """Add what `bins` have counted to `counts`, and set them back: see `count_in_bins`. Both are modified in place."""
    for place in range(edges_above.size - 1):
        if bins[place] & HOLDS_EDGES:
            bins[place] = HOLDS_EDGES
        else:
            counts[edges_above[place + 1]] += np.int64(bins[place])
            bins[place] = 0


@inlined
def _edges_before(keys: Cells, cells: Cells, low: Any, high: Any, guess: Any, key: Any, cell: Any) -> Any:
    """Return how many edges are at or before the entry of this key and cell: from `low` to `high`, `guess` perhaps."""
    if high - low == _U1:  # written without a branch, which could not be foreseen
        return low + np.uint64((keys[low] > key) | ((keys[low] == key) & (cells[low] <= cell)))
    for _ in range(2):
        after = guess < high and (keys[guess] > key or (keys[guess] == key and cells[guess] <= cell))
        last = guess - _U1
        before = guess == low or keys[last] > key or (keys[last] == key and cells[last] <= cell)
        if before and not after:
            return guess
        if not before:
            break
        guess += _U1
    while low < high:
        middle = (low + high) >> _U1
        if keys[middle] > key or (keys[middle] == key and cells[middle] <= cell):
            low = middle + _U1
        else:
            high = middle
    return low


@compiled
def _compare(
    tile: Keys,
    pending: Cells,
    n_pending: Any,
    magnitude: Any,
    lift: Any,
    width: Any,
    first: Any,
    transposed: bool,
    lightest: Any,
    shift: Any,
    edge_keys: Cells,
    edge_cells: Cells,
    edges_above: NDArray[np.uint32],
    guesses: Cells,
    counts: NDArray[np.int64],
) -> None:
    """Count the first `n_pending` of the entries `pending`, whose bins hold edges, by the edges at or before them."""
    for i in range(n_pending):
        raw = np.uint64(tile[pending[i]] & magnitude)
        place, key = (raw - lightest) >> shift, raw + np.uint64(lift)
        low, high = np.uint64(edges_above[place + _U1]), np.uint64(edges_above[place])
        edge_key = edge_keys[low]
        if high - low == _U1 and edge_key != key:
            counts[low + np.uint64(edge_key > key)] += 1
        else:
            line, entry = pending[i] // width, pending[i] % width
            line += first
            cell = entry << _U32 | line if transposed else line << _U32 | entry
            before = _edges_before(edge_keys, edge_cells, low, high, guesses[low], key, cell)
            guesses[low] = before
            counts[before] += 1


@compiled
def _count_segment(tile: Keys, start: Any, stop: Any, magnitude: Any, bound: Any) -> tuple[Any, Any]:
    """Return how many entries from `start` to `stop` are `bound`, and how many are above it."""
    equal, above = np.uint32(0), np.uint32(0)
    for place in range(start, stop):
        key = tile[place] & magnitude
        equal += np.uint32(key == bound)
        above += np.uint32(key > bound)
    return np.int64(equal), np.int64(above)


@compiled
def count_level(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    width: int,
    first: int,
    transposed: bool,
    edge_key: Any,
    edge_cells: Cells,
    counts: NDArray[np.int64],
) -> None:
    """Count, for each e, the entries of `tile` that have exactly e of the given edges at or before them.

    The edges are in order and all of them have the key `edge_key`. `counts` is modified in place. It compares a line
    with one bound between edges, which is as fast as it can be read, and takes all edges for every line if the lines
    are columns: these have to be few, then.
    """
    n, bound = np.uint64(width), edge_key - lift
    n_edges, passed = np.uint64(edge_cells.size), _U0
    for line in range(np.uint64(tile.size) // n):
        place, here = line * n, np.uint64(first) + line
        stop = place + n
        if transposed:
            passed = _U0
        while place < stop:
            # Up to the next edge, that is, the next entry with one more edge at or before it.
            end = stop
            if transposed:
                while passed < n_edges:
                    row = edge_cells[passed] >> _U32
                    end = line * n + row + np.uint64(edge_cells[passed] & _LOW > here)
                    if end > place:
                        break
                    passed += _U1
                end = min(end, stop) if passed < n_edges else stop
            else:
                while passed < n_edges and edge_cells[passed] <= here << _U32 | (place - line * n):
                    passed += _U1
                if passed < n_edges and edge_cells[passed] >> _U32 == here:
                    end = line * n + (edge_cells[passed] & _LOW)
            equal, above = _count_segment(tile, place, end, magnitude, bound)
            counts[passed] += equal
            counts[0] += above
            place = end


@inlined
def _edges_among(places: NDArray[np.uint32], edges_above: NDArray[np.uint32]) -> tuple[Any, Any]:
    """Return how many edges are in the bins from the least to the greatest of a block's, and how many in higher ones.

    More than one may be told as two without a look at all entries, and so are entries below those of all edges.
    """
    n_bins = np.uint32(edges_above.size - 2)
    least, most = min(places[0], places[_BLOCK - 1]), max(places[0], places[_BLOCK - 1])
    if most > n_bins or edges_above[least] - edges_above[most + _U1] > 1:  # most often, unless they are sorted
        return _U2, _U0
    for lane in range(_BLOCK):
        place = places[lane]
        least = place if place < least else least
        most = place if place > most else most
    if most > n_bins:
        return _U2, _U0
    above = np.uint64(edges_above[most + _U1])
    return np.uint64(edges_above[least]) - above, above


@inlined
def _count_all(places: NDArray[np.uint32], start: Any, bins: NDArray[np.uint32], pending: Cells, n_pending: Any) -> Any:
    """Count a block of entries in their bins; add those of bins that hold edges to `pending`, and return its length."""
    for lane in range(_U0, _U128):
        count = np.uint32(bins[places[lane]] + _ONE)
        bins[places[lane]] = count
        pending[n_pending] = start + lane
        n_pending += np.uint64(count >= HOLDS_EDGES)
    return n_pending


@compiled
def count_in_bins(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    width: int,
    first: int,
    transposed: bool,
    lightest: Any,
    span: Any,
    shift: Any,
    edge_keys: Cells,
    edge_cells: Cells,
    edges_above: NDArray[np.uint32],
    bins: NDArray[np.uint32],
    counts: NDArray[np.int64],
) -> None:
    """Count the entries of `tile` by how many of the given edges are at or before them.

    The edges are in order; `lightest` is the key of their last, less its lift, and `span` how far the first is from
    it. Bin b of B holds the 2^shift keys from ``lightest + (b << shift)`` on, bin B the keys above those of all edges,
    and UNREAD_BINS more the keys below. ``edges_above[b + 1]`` edges are in higher bins than b, and ``edges_above[0]``
    is the number of all. An entry counts in its bin. If that holds edges (`open_bins` has marked it), the entry is
    also compared with them, and counted in ``counts[e]``, e the edges at or before it. `bins` and `counts` are modified
    in place; `close_bins` adds up the two.
    """
    n, n_bins = np.uint64(width), np.uint32(edges_above.size - 2)
    # The last answer in the bin that begins after so many edges: among ties the next one is most often the same.
    guesses = np.arange(edge_keys.size + 1).astype(np.uint64)
    places = np.empty(_BLOCK, np.uint32)
    pending, n_pending, room = np.empty(_PENDING, np.uint64), _U0, np.uint64(_PENDING - _BLOCK)
    for start in range(_U0, np.uint64(tile.size), _U128):
        lanes = min(_U128, np.uint64(tile.size) - start)
        early = _heavy(tile, start, min(lanes, _U64), magnitude, lightest)
        late = _heavy(tile, start + _U64, lanes - _U64, magnitude, lightest) if lanes > _U64 else _U0
        if lanes == _U128 and _number(early) + _number(late) > _U64:
            _write_bins(tile, start, magnitude, lightest, span, shift, n_bins, places)
            n_among, n_above = _edges_among(places, edges_above)
            equal, heavier = _U0, _U128
            if n_among == _U1:
                bound = edge_keys[n_above] - np.uint64(lift)
                for half in (start, start + _U64):
                    equal += _number(_equal(tile, half, magnitude, bound))
                heavier = _number(_at_least(tile, start, magnitude, bound))
                heavier += _number(_at_least(tile, start + _U64, magnitude, bound))
            if n_among > _U1 or equal:
                n_pending = _count_all(places, start, bins, pending, n_pending)
            else:
                counts[n_above] += np.int64(heavier)
                counts[n_above + n_among] += np.int64(_U128 - heavier)
        else:
            for half in range(_U0, lanes, _U64):
                reaching = late if half else early
                while reaching:
                    entry = start + half + _lowest(reaching)
                    reaching &= reaching - _U1
                    beyond = np.uint64(tile[entry] & magnitude) - lightest
                    place = beyond >> shift if beyond <= span else np.uint64(n_bins)
                    count = np.uint32(bins[place] + _ONE)
                    bins[place] = count
                    pending[n_pending] = entry
                    n_pending += np.uint64(count >= HOLDS_EDGES)
        if n_pending > room or start + _U128 >= np.uint64(tile.size):
            lines = n, np.uint64(first), transposed
            edges = edge_keys, edge_cells, edges_above
            _compare(tile, pending, n_pending, magnitude, lift, *lines, lightest, shift, *edges, guesses, counts)
            n_pending = _U0
