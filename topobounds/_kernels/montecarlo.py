"""Ranks of randomly drawn graphs, one trial after another.

The vertices of the shorter side of the layer (inner) are numbered first, those of the longer side (outer) after them;
an edge is kept as its higher and its lower end. Word c = 1, 2, ... of a stream is ``mix(start + c * step)``. The words
and what is made of them are those of `topobounds.montecarlo`, bit for bit.
"""

import numpy as np

from topobounds._kernels import compiled
from topobounds._types import Integers, Vertices, Words

_U = np.uint64
_HALF = np.uint64(0xFFFFFFFF)


@compiled
def draw_ranks(
    streams: Words,
    limits: Integers,
    first: int,
    full: int,
    sides: tuple[int, int],
    tall: bool,
    square: int,
    slots: int,
    fixed: Vertices,
    seen: tuple[Words, Words],
    shifts: tuple[int, int],
    edges: Vertices,
    parents: Vertices,
    ranks: Integers,
) -> int:
    """Write the rank of the first cells of each trial to `ranks`.

    Parameters
    ----------
    streams : uint64 (2, 2, trials)
        Start and step of the stream of cells and of the stream of slots.
    limits : int64 (trials,)
        Distinct cells to take.
    first : int
        The trial to begin with.
    full : int
        Rank at which a trial is over.
    sides : (int, int)
        Outer and inner vertices.
    tall : bool
        Whether the outer vertices are the rows.
    square : int
        Side of the square that holds no free cell; used where there are slots.
    slots : int
        Cells of the support if some are fixed, else 0: all cells are free.
    fixed : uint32 (2, n_fixed)
        Higher and lower ends of the fixed cells.
    seen : (uint64 (), uint64 ())
        Sets of the cells and of the slots drawn; modified in place.
    shifts : (int, int)
        0 where the set is a bitmap, else 64 less the binary logarithm of its size as a hash table.
    edges : uint32 (2, block)
        Modified in place.
    parents : uint32 (outer + inner,)
        Modified in place.
    ranks : int64 (trials,)
        Modified in place.

    Returns
    -------
    int
        Number of trials; or the trial at which a hash table was half full, to be done again with larger sets.
    """
    counters = np.zeros(2, np.uint64)
    for trial in range(first, limits.size):
        seen[0][:] = 0
        seen[1][:] = 0
        counters[:] = 0
        for vertex in range(parents.size):
            parents[vertex] = vertex
        rank = taken = 0
        while taken < limits[trial] and rank < full:
            count = min(edges.shape[1], limits[trial] - taken)
            taken += count
            if (shifts[0] and 2 * taken > seen[0].size) or (shifts[1] and 2 * taken > seen[1].size):
                return trial
            if slots:
                _draw_slots(streams, trial, counters, sides, tall, square, slots, fixed, seen, shifts, edges, count)
            else:
                _draw_cells(streams, trial, counters, sides, tall, seen[0], shifts[0], edges, count)
            rank += _merge(edges, count, parents)
        ranks[trial] = rank
    return limits.size


@compiled
def _mix(x: np.uint64) -> np.uint64:
    x ^= x >> _U(30)
    x *= _U(0xBF58476D1CE4E5B9)
    x ^= x >> _U(27)
    x *= _U(0x94D049BB133111EB)
    return x ^ (x >> _U(31))


@compiled
def _enters(seen: Words, shift: int, value: np.uint64) -> bool:
    """Put `value` in the set; return whether it is new."""
    if shift == 0:
        bit = _U(1) << (value & _U(63))
        word = seen[value >> _U(6)]
        seen[value >> _U(6)] = word | bit
        return bool((word & bit) == 0)
    place = (value * _U(0x9E3779B97F4A7C15)) >> _U(shift)
    while seen[place] != 0:
        if seen[place] == value + _U(1):
            return False
        place = (place + _U(1)) & _U(seen.size - 1)
    seen[place] = value + _U(1)
    return True


@compiled
def _draw_cells(
    streams: Words,
    trial: int,
    counters: Words,
    sides: tuple[int, int],
    tall: bool,
    seen: Words,
    shift: int,
    edges: Vertices,
    count: int,
) -> None:
    """Draw distinct cells, all cells being free, until `count` edges are written."""
    start, step = streams[0, 0, trial], streams[0, 1, trial]
    done = 0
    while done < count:
        high, low = edges[0, done:count], edges[1, done:count]
        _draw_pairs(start + counters[0] * step, step, sides, tall, high, low)
        counters[0] += _U(count - done)
        done += _keep_new(high, low, _U(sides[1]), seen, shift)


@compiled
def _draw_pairs(
    start: np.uint64, step: np.uint64, sides: tuple[int, int], tall: bool, high: Vertices, low: Vertices
) -> None:
    """Make a pair of each of the next words, low = 2^32 - 1 where the word is to be skipped.

    A loop of its own because it compiles to vector instructions.
    """
    outer, inner = _U(sides[0]), _U(sides[1])
    outer_half, inner_half = (_U(32), _U(0)) if tall else (_U(0), _U(32))
    outer_tail, inner_tail = _U(1 << 32) % outer, _U(1 << 32) % inner
    for e in range(high.size):
        start += step
        word = _mix(start)
        a = ((word >> outer_half) & _HALF) * outer
        b = ((word >> inner_half) & _HALF) * inner
        skip = ((a & _HALF) < outer_tail) | ((b & _HALF) < inner_tail)
        high[e] = a >> _U(32)
        low[e] = _HALF if skip else b >> _U(32)


@compiled
def _keep_new(high: Vertices, low: Vertices, inner: np.uint64, seen: Words, shift: int) -> int:
    """Move the pairs that are not in the set yet to the front, as edges; return their number."""
    kept = 0
    for e in range(high.size):
        vertex, other = _U(high[e]), _U(low[e])
        if other != _HALF:
            high[kept] = vertex + inner
            low[kept] = other
            kept += int(_enters(seen, shift, vertex * inner + other))
    return kept


@compiled
def _draw_slots(
    streams: Words,
    trial: int,
    counters: Words,
    sides: tuple[int, int],
    tall: bool,
    square: int,
    slots: int,
    fixed: Vertices,
    seen: tuple[Words, Words],
    shifts: tuple[int, int],
    edges: Vertices,
    count: int,
) -> None:
    """Draw distinct slots; the first ones are the fixed cells, any other brings in a free cell not drawn before."""
    m, n = sides if tall else (sides[1], sides[0])
    corner = (square - 1) * (n - square)
    free = corner + (m - square) * (n - 1)
    for e in range(count):
        slot = _draw_index(streams[1], trial, counters, 1, slots, seen[1], shifts[1])
        if slot < fixed.shape[1]:
            edges[0, e] = fixed[0, slot]
            edges[1, e] = fixed[1, slot]
            continue
        index = _draw_index(streams[0], trial, counters, 0, free, seen[0], shifts[0])
        if index < corner:
            row, column = 1 + index // (n - square), square + index % (n - square)
        else:
            row, column = square + (index - corner) // (n - 1), 1 + (index - corner) % (n - 1)
        edges[0, e] = n + row if tall else m + column
        edges[1, e] = column if tall else row


@compiled
def _draw_index(
    stream: Words, trial: int, counters: Words, which: int, population: int, seen: Words, shift: int
) -> int:
    """Draw an index below `population` that is not in the set yet."""
    bits = 1
    while (population - 1) >> bits:
        bits += 1
    while True:
        counters[which] += _U(1)
        value = _mix(stream[0, trial] + counters[which] * stream[1, trial]) >> _U(64 - bits)
        if value < _U(population) and _enters(seen, shift, value):
            return np.int64(value)  # type: ignore[return-value]


@compiled
def _merge(edges: Vertices, count: int, parents: Vertices) -> int:
    """Join the ends of the first `count` edges, which are modified in place; return by how much the rank grows.

    Rem's union-find, breadth first: each pass moves the higher end of every edge to its parent, which is lower,
    until it is a root (the edge joins two trees) or meets the lower end. No branch depends on the data: that, and not
    the number of steps, is what costs time here.
    """
    high, low = edges[0], edges[1]
    rank = 0
    while count:
        left = 0
        for e in range(count):
            vertex, other = high[e], low[e]
            parent = parents[vertex]
            below = min(parent, other)
            parents[vertex] = below
            high[left] = max(parent, other)
            low[left] = below
            rank += parent == vertex
            left += (parent != vertex) & (parent != other)
        count = left
    return rank
