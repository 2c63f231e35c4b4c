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
UNREAD_BINS = 64  # counters that take turns for what nobody reads: one alone would be waited for
_PENDING = 1024  # entries that are compared with edges together
_U0, _U1, _U2, _U15, _U32 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(15), np.uint64(32)
_U64, _U128 = np.uint64(_LANES), np.uint64(_BLOCK)
_DIGIT_BITS, _DIGITS, _DIGIT = np.uint64(11), 2**11, np.uint64(2**11 - 1)
_ONE, _GROUP = np.uint32(1), np.uint64(8)
HOLDS_EDGES = np.uint32(2**31)  # the mark of a bin, above all that it can count
_LOW = np.uint64(0xFFFFFFFF)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _load(context: Any, builder: Any, array_type: Any, array: Any, start: Any, lanes: int) -> Any:
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [start])
    kind = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=array_type.dtype.bitwidth // 8)


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
    """Bit i of the result: ``array[start + i] & magnitude >= bound``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _load(context, builder, signature.args[0], args[0], args[1], _LANES)
        block = builder.and_(block, _splat(builder, args[2], _LANES))
        return builder.bitcast(builder.icmp_unsigned(">=", block, _splat(builder, args[3], _LANES)), ir.IntType(64))

    return types.uint64(array, types.uint64, array.dtype, array.dtype), generate


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


@inlined
def _heavy(tile: Keys, start: Any, lanes: Any, magnitude: Any, bound: Any) -> Any:
    """Bit i of the result, i < lanes: the key at ``start + i``, less its lift, is at least `bound`."""
    stop = start + lanes
    if stop >= _U64:  # a short block is read from its end, so that no read passes the array's
        return _at_least(tile, stop - _U64, magnitude, bound) >> (_U64 - lanes)
    bits = _U0
    for i in range(lanes):
        bits |= np.uint64(tile[start + i] & magnitude >= bound) << i
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
    line: int,
    codes: Cells,
) -> tuple[Any, Any]:
    """Write the codes of the keys of `tile` that are at least `bound` to `codes`, modified in place.

    Entries whose label is their line's are left out: `own` holds the label of each line, `labels` those of the entries
    of a line, after 64 labels of padding. Lines count from `first`. It begins at line `line` of the tile and stops
    before one that `codes` might not hold. Returns the line to go on from, and how many codes were written.

    `layout` is (top, dropped, cell_bits, line_shift, entry_shift), and a code
    ``(top - key) >> dropped << cell_bits | line << line_shift | entry << entry_shift``.
    """
    top, dropped, cell_bits, line_shift, entry_shift = layout[0], layout[1], layout[2], layout[3], layout[4]
    n, room, raw_bound = np.uint64(labels.size) - _U64, np.uint64(codes.size), bound - lift
    count, row = _U0, np.uint64(line)
    while row < np.uint64(own.size) and count + n <= room:
        base, cell = row * n, (np.uint64(first) + row) << line_shift
        for block in range(_U0, n, _U128):
            if block + _U128 <= n and not _any_at_least(tile, base + block, magnitude, raw_bound):
                continue
            for start in range(block, min(block + _U128, n), _U64):
                lanes = min(_U64, n - start)
                bits = _heavy(tile, base + start, lanes, magnitude, raw_bound)
                if bits:
                    bits &= _elsewhere(labels, start, lanes, own[row])
                while bits:
                    entry = start + _lowest(bits)
                    bits &= bits - _U1
                    key = np.uint64(tile[base + entry] & magnitude) + np.uint64(lift)
                    codes[count] = (top - key) >> dropped << cell_bits | cell | entry << entry_shift
                    count += _U1
        row += _U1
    return row, count


@compiled
def sort_codes(codes: Cells, spare: Cells) -> Cells:
    """Return `codes` in order, in one of the two arrays, both of one size and modified in place.

    By digits from the lowest up, without those that all codes share: where np.sort takes 26 ns a code, 7 ns.
    """
    differing = _U0
    for code in codes:
        differing |= code ^ codes[0]
    source, target = codes, spare
    ends = np.empty(_DIGITS, np.int64)
    shift = _U0
    while shift < _U64 and differing >> shift:
        if differing >> shift & _DIGIT:
            ends[:] = 0
            for code in source:
                ends[code >> shift & _DIGIT] += 1
            begin = 0
            for digit in range(_DIGITS):
                count = ends[digit]
                ends[digit] = begin
                begin += count
            for code in source:
                digit = code >> shift & _DIGIT
                target[ends[digit]] = code
                ends[digit] += 1
            source, target = target, source
        shift += _DIGIT_BITS
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
    """Raise `keys`, for each entry of a line, to the largest key that the lines of `tile` hold there.

    As `heaviest_by_line`, across all lines: `places` receives the line, counted from `first`, the first of equals. It
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
def _same_edges_before(places: NDArray[np.uint32], edges_above: NDArray[np.uint32]) -> Any:
    """Whether all entries of a block have the same edges before them, for no edge is in a bin between theirs."""
    n_bins = np.uint32(edges_above.size - 2)
    if max(places[0], places[_BLOCK - 1]) > n_bins:
        return False
    if edges_above[places[0] + _U1] != edges_above[places[_BLOCK - 1] + _U1]:  # most often, unless they are sorted
        return False
    least = most = places[0]
    for lane in range(_BLOCK):
        place = places[lane]
        least = place if place < least else least
        most = place if place > most else most
    return most <= n_bins and edges_above[least] == edges_above[most + _U1]


@inlined
def _count_all(places: NDArray[np.uint32], start: Any, bins: NDArray[np.uint32], pending: Cells, n_pending: Any) -> Any:
    """Count a block of entries in their bins; add those of bins that hold edges to `pending`, and return its length."""
    for group in range(_U0, _U128, _GROUP):
        marks = np.uint32(0)
        for lane in range(group, group + _GROUP):
            count = np.uint32(bins[places[lane]] + _ONE)
            bins[places[lane]] = count
            marks |= count
        if marks >= HOLDS_EDGES:
            for lane in range(group, group + _GROUP):
                pending[n_pending] = start + lane
                n_pending += np.uint64(bins[places[lane]] >= HOLDS_EDGES)
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
            if _same_edges_before(places, edges_above):
                counts[edges_above[places[0] + _U1]] += _BLOCK
            else:
                n_pending = _count_all(places, start, bins, pending, n_pending)
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
