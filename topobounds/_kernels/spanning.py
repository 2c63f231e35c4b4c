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

Keys = NDArray[Any]
Cells = NDArray[np.uint64]
Vertices = NDArray[np.uint32]

_intrinsic: Any = extending.intrinsic
ir: Any = cgutils.ir  # type: ignore[attr-defined]  # llvmlite's, which numba brings
_LANES = 64  # entries compared at once; the answer is one bit each in an uint64
_BLOCK = 128  # entries asked at once whether any of them is of interest: most often none is
_DIGIT_BITS = np.uint64(12)  # sorted by at once: their counts stay in the cache
_U0, _U1, _U2, _U15, _U32 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(15), np.uint64(32)
_U64, _U128 = np.uint64(_LANES), np.uint64(_BLOCK)
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
def _number_at_least(_typing: Any, array: Any, start: Any, magnitude: Any, bound: Any) -> Any:
    """How many of the _BLOCK entries from `start` on, masked by `magnitude`, are at least `bound`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, lanes = signature.args[0], 256 // signature.args[0].dtype.bitwidth
        mask, bounds = _splat(builder, args[2], lanes), _splat(builder, args[3], lanes)
        counts = ir.Constant(mask.type, [0] * lanes)
        for offset in range(0, _BLOCK, lanes):
            place = builder.add(args[1], ir.Constant(ir.IntType(64), offset))
            keys = builder.and_(_load(context, builder, kind, args[0], place, lanes), mask)
            # A comparison that holds is -1 in every bit of its lane.
            counts = builder.sub(counts, builder.sext(builder.icmp_unsigned(">=", keys, bounds), mask.type))
        total = ir.Constant(ir.IntType(64), 0)
        for lane in range(lanes):
            count = builder.extract_element(counts, ir.Constant(ir.IntType(32), lane))
            total = builder.add(total, count if lanes == 4 else builder.zext(count, ir.IntType(64)))
        return total

    return types.uint64(array, types.uint64, array.dtype, array.dtype), generate


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
        bounds[place] = bounds_by_ratio[_bits_of(_ratio(least, scales[place])) >> shift]
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
    for code in codes:
        least, largest = min(least, code), max(largest, code)
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
    tile: Keys, magnitude: Any, lift: Any, own: Vertices, labels: Vertices, keys: Keys, places: Vertices
) -> None:
    """Write, for each line of `tile`, the largest key among the entries whose label is not the line's own.

    `own` and `labels` as for `collect`. `places` receives where it is, the first of equals; a line that has none gets
    key 0. `keys` and `places` are modified in place.
    """
    n = np.uint64(labels.size) - _U64
    for line in range(np.uint64(own.size)):
        base, label = line * n, own[line]
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
    """Raise `keys`, for each entry of a line, to the largest key that the lines of `tile` hold there.

    As `heaviest_by_line`, across the lines: `places` receives the line, counted from `first`, the first of equals. It
    stops once all of `keys` have reached `ceiling`, which no key exceeds: where the largest weights tie, very soon.
    """
    n = np.uint64(labels.size) - _U64
    for line in range(np.uint64(own.size)):
        if line & _U15 == _U15:  # seldom enough to cost nothing
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
def count_level(
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


@inlined
def _enters_before(keys: Cells, cells: Cells, edge: Any, key: Any, cell: Any) -> Any:
    """Whether an edge is at or before the entry of this key and cell in the total order."""
    return keys[edge] > key or (keys[edge] == key and cells[edge] <= cell)


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
def _count_ties(
    tile: Keys, begin: Any, magnitude: Any, bound: Any, cells: Cells, passed: Any, first_cell: Any, counts: Any
) -> None:
    """Count the entries of a block that reach `bound` by the edges before them, whose cells are given in order."""
    for lane in range(_U128):
        while passed < np.uint64(cells.size) and cells[passed] <= first_cell + lane:
            passed += _U1
        counts[0, passed] += np.int64(np.uint64(tile[begin + lane] & magnitude) >= bound)


@compiled
def _bins_of_all(
    tile: Keys, begin: Any, lanes: Any, magnitude: Any, lightest: Any, span: Any, shift: Any, n_bins: int, places: Cells
) -> None:
    """Write the bin of every entry of a block to `places`: bin `n_bins` above all edges, the next one below them."""
    for lane in range(lanes):
        key = np.uint64(tile[begin + lane] & magnitude)
        place = (key - lightest) >> shift if key - lightest <= span else np.uint64(n_bins)
        places[lane] = np.uint64(n_bins) + _U1 if key < lightest else place


@compiled
def _bins_of_some(
    tile: Keys,
    begin: Any,
    lanes: Any,
    magnitude: Any,
    lightest: Any,
    span: Any,
    shift: Any,
    n_bins: int,
    places: Cells,
    some_lanes: Cells,
) -> Any:
    """Write the bins of the entries of a block that reach `lightest`, and which these are; return how many."""
    count = _U0
    for half in range(_U0, lanes, _U64):
        bits = _heavy(tile, begin + half, min(_U64, lanes - half), magnitude, lightest)
        while bits:
            lane = half + _lowest(bits)
            bits &= bits - _U1
            offset = np.uint64(tile[begin + lane] & magnitude) - lightest
            places[count] = offset >> shift if offset <= span else np.uint64(n_bins)
            some_lanes[count] = lane
            count += _U1
    return count


@compiled
def count_between(
    tile: Keys,
    magnitude: Any,
    lift: Any,
    width: int,
    first: int,
    transposed: bool,
    edge_keys: Cells,
    edge_cells: Cells,
    edges_above: NDArray[np.uint32],
    slots: NDArray[np.uint32],
    shift: Any,
    counts: NDArray[np.int64],
) -> None:
    """Count, for each e, the entries of `tile` that have exactly e of the E given edges at or before them.

    The edges are in order. Bin b holds the 2^shift keys from ``edge_keys[-1] + (b << shift)`` on, and
    ``edges_above[b]`` edges are in higher bins. ``slots[b]`` is that number where the bin holds no edge, for then it
    is the answer, and E + 1 where it holds edges. Two bins more are for keys above those of all edges, whose slot is
    0, and for keys below, whose slot is E + 2. `counts` has two rows of E + 3 entries, modified in place: columns
    0 to E added up are the answer.
    """
    n, n_edges = np.uint64(width), np.uint64(edge_keys.size)
    raw_lightest, span = edge_keys[-1] - np.uint64(lift), edge_keys[0] - edge_keys[-1]
    one_level = span == _U0 and not transposed
    passed = _U0  # with one level: the edges before a block, whose cells rise through the tile
    # The last answer in the bin that begins after so many edges: among ties the next one is most often the same.
    guesses = np.arange(edge_keys.size + 1).astype(np.uint64)
    every_lane = np.arange(_BLOCK).astype(np.uint64)
    some_lanes, places, unclear = np.empty_like(every_lane), np.empty_like(every_lane), np.empty_like(every_lane)
    for line in range(np.uint64(tile.size) // n):
        row = np.uint64(first) + line
        for start in range(_U0, n, _U128):
            lanes, begin = min(_U128, n - start), line * n + start
            n_places = lanes
            if lanes == _U128:
                if not _any_at_least(tile, begin, magnitude, raw_lightest):
                    continue
                n_places = _number_at_least(tile, begin, magnitude, raw_lightest)
                if one_level and not _any_at_least(tile, begin, magnitude, raw_lightest + _U1):
                    first_cell = row << _U32 | start
                    while passed < n_edges and edge_cells[passed] < first_cell:
                        passed += _U1
                    # What is left ties with all edges: where no edge lies in the block, it is counted at once.
                    if passed == n_edges or edge_cells[passed] >= first_cell + lanes:
                        counts[0, passed] += np.int64(n_places)
                    else:
                        _count_ties(tile, begin, magnitude, raw_lightest, edge_cells, passed, first_cell, counts)
                    continue
            # The bins of the entries in question; if these are many, of all entries, which takes no branch.
            if n_places > _U32:
                n_places, in_question = lanes, every_lane
                _bins_of_all(tile, begin, lanes, magnitude, raw_lightest, span, shift, edges_above.size, places)
            else:
                in_question = some_lanes
                n_places = _bins_of_some(
                    tile, begin, lanes, magnitude, raw_lightest, span, shift, edges_above.size, places, some_lanes
                )
            # Every entry counts in the slot of its bin, in turn in two rows, for a slot that is hit again has to wait.
            n_unclear = _U0
            for i in range(n_places):
                slot = np.uint64(slots[places[i]])
                counts[i & _U1, slot] += 1
                unclear[n_unclear] = i
                n_unclear += np.uint64(slot == n_edges + _U1)
            # Those that share a bin with edges are compared with these.
            for i in range(n_unclear):
                lane, place = in_question[unclear[i]], places[unclear[i]]
                key, col = np.uint64(tile[begin + lane] & magnitude) + np.uint64(lift), start + lane
                cell = col << _U32 | row if transposed else row << _U32 | col
                low = np.uint64(edges_above[place])
                high = np.uint64(edges_above[place - _U1]) if place else n_edges
                before = _edges_before(edge_keys, edge_cells, low, high, guesses[low], key, cell)
                guesses[low] = before
                counts[0, before] += 1
