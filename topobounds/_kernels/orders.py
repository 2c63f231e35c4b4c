"""Random orders of the cells of a support, and the ranks at which its spanning forest takes an edge.

One trial is one stream of words, ``mix(start + c * step)`` for c = 1, 2, ... (SplitMix64; Steele, Lea and Flood, 2014),
so it depends on its own start alone. The first cells of the order are drawn one by one. By then most vertices lie in
one component and most cells that are left can join nothing any more: the others are looked for where a vertex lies
outside of it, and only they are given a place in the rest of the order.

A cell is its flat row-major index; vertices are numbered 0 .. m-1 for rows and m .. m+n-1 for columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._types import Vertices, Words

_FlatCells = NDArray[np.uint32]
_Bits = NDArray[np.uint8]
_Places = NDArray[np.uint64]
_Set = NDArray[np.uint32]
_Ranks = NDArray[np.int64]

_U = np.uint64
_STEP = _U(0x9E3779B97F4A7C15)
_LOW = _U(0xFFFFFFFF)
_THREE, _MASK_THREE = _U(3), _U(7)
_AT_ONCE = 512  # cells drawn


@compiled
def forest_ranks(
    present: _Bits,
    n: int,
    cells: _FlatCells,
    n_cells: int,
    drawn: int,
    starts: Words,
    parents: Vertices,
    sizes: Vertices,
    ranks: _Ranks,
) -> None:
    """Write the ranks of the forest's edges, rising from 1, of one random order of the support per trial.

    Parameters
    ----------
    present : uint8 (m n // 8 + 1,)
        The support, a bit for each cell, the lowest of a byte first.
    n : int
        Columns.
    cells : uint32 (n_cells,) or (0,)
        Its cells; may be left out, where they are not few of all m n, at most 2^32 - 1.
    n_cells, drawn : int
        Cells of the support, and how many of them to draw one by one.
    starts : uint64 (trials,)
        Where the stream of each trial starts.
    parents, sizes : uint32 (m + n,)
        Union-find, and the vertices by component; modified in place.
    ranks : int64 (trials, alpha)
        Modified in place; alpha is the number of edges of the support's forest.
    """
    m, alpha = parents.size - n, ranks.shape[1]
    word = np.zeros(1, np.uint64)
    found, words = np.empty(_AT_ONCE, np.uint32), np.empty(_AT_ONCE, np.uint64)
    seen = _empty_set(drawn)
    for trial in range(starts.size):
        word[0] = starts[trial]
        seen[:] = 0
        for vertex in range(parents.size):
            parents[vertex] = vertex
        rank = merged = 0
        while rank < drawn and merged < alpha:
            # Step by step for many cells: what waits for memory in one step then does so side by side.
            count = _draw(word, present, _U(m * n), cells, found, words)
            new = 0
            for place in range(count):
                if rank + new == drawn:
                    break
                found[new] = found[place]
                new += _enters(seen, _U(found[place]))
                word[0] = words[place]
            for place in range(new):
                cell = found[place]
                if _joins(parents, cell // n, m + cell % n):
                    ranks[trial, merged] = rank + 1 + place
                    merged += 1
            rank += new
        if merged < alpha:
            live = _live_cells(present, m, n, cells, n_cells - drawn, seen, parents, sizes)
            taken = _empty_set(live.size)
            for index in range(live.size):
                live[index] |= _new_member(word, _U(n_cells - drawn), taken) << _U(32)
            live.sort()
            for place in live:
                if merged == alpha:
                    break
                cell = int(place & _LOW)
                if _joins(parents, cell // n, m + cell % n):
                    ranks[trial, merged] = drawn + 1 + int(place >> _U(32))
                    merged += 1


@compiled
def _draw(word: Words, present: _Bits, size: np.uint64, cells: _FlatCells, found: _FlatCells, words: Words) -> int:
    """Draw cells of the support, of all or of those that are listed; return how many.

    They are written to `found`, and to `words` where the stream is after each; both are modified in place.
    """
    count = 0
    if cells.size:
        for place in range(found.size):
            found[place] = cells[_below(word, _U(cells.size))]
            words[place] = word[0]
        return int(found.size)
    for _ in range(found.size):
        cell = _below(word, size)
        found[count] = cell
        words[count] = word[0]
        count += int(_is_present(present, cell))
    return count


@compiled
def _is_present(present: _Bits, cell: np.uint64) -> Any:
    return present[cell >> _THREE] >> (cell & _MASK_THREE) & _U(1)


@compiled
def _live_cells(
    present: _Bits, m: int, n: int, cells: _FlatCells, most: int, seen: _Set, parents: Vertices, sizes: Vertices
) -> _Places:
    """Return the cells of the support that are not drawn and join two components."""
    sizes[:] = 0
    for vertex in range(parents.size):
        parents[vertex] = _root(parents, vertex)
        sizes[parents[vertex]] += 1
    giant = sizes.argmax()
    outside = np.flatnonzero(parents[m:] != giant)
    rows_inside = np.count_nonzero(parents[:m] == giant)
    live = np.empty(most, np.uint64)
    count: Any = np.int64(0)  # as what is added to it: not a literal of its own to compile for
    if cells.size and cells.size < rows_inside * outside.size + (m - rows_inside) * n:
        for cell in cells:
            count = _add_live(np.int64(cell), n, m, seen, parents, live, count)
        return live[:count]
    for row in range(m):
        if parents[row] == giant:
            for index in outside:
                cell = row * n + int(index)
                if _is_present(present, _U(cell)):
                    count = _add_live(cell, n, m, seen, parents, live, count)
        else:
            for cell in range(row * n, row * n + n):
                if _is_present(present, _U(cell)):
                    count = _add_live(cell, n, m, seen, parents, live, count)
    return live[:count]


@compiled
def _add_live(cell: Any, n: int, m: int, seen: _Set, parents: Vertices, live: _Places, count: Any) -> Any:
    """Append a cell that is not drawn and joins two components, which `parents` labels; return the new count."""
    if parents[cell // n] != parents[m + cell % n] and not _holds(seen, _U(cell)):
        live[count] = cell
        count += 1
    return count


@compiled
def _new_member(word: Words, population: np.uint64, members: _Set) -> Any:
    """Draw a number below `population` that is not in the set yet; put it in."""
    while True:
        value = _below(word, population)
        if _enters(members, value):
            return value


@compiled
def _below(word: Words, population: np.uint64) -> Any:
    """Draw a number below `population`, less than 2^32."""
    while True:
        word[0] += _STEP
        product = (_mix(word[0]) >> _U(32)) * population
        # Lemire's method, without bias: a word is skipped if it falls into the incomplete interval.
        if (product & _LOW) >= population or (product & _LOW) >= _U(1 << 32) % population:
            return product >> _U(32)


@compiled
def _empty_set(count: int) -> Any:
    """Return a set for so many numbers: a table of each of them plus 1, at its place or at the first free one after.

    A bit for each number there may be would be a table far larger than the caches.
    """
    size = 4
    while size < 2 * count:
        size *= 2
    return np.zeros(size, np.uint32)


@compiled
def _enters(members: _Set, value: np.uint64) -> bool:
    """Put `value` in the set; return whether it is new."""
    place = _place(members, value)
    is_new = members[place] == 0
    members[place] = value + _U(1)
    return bool(is_new)


@compiled
def _holds(members: _Set, value: np.uint64) -> bool:
    return bool(members[_place(members, value)] != 0)


@compiled
def _place(members: _Set, value: np.uint64) -> Any:
    """Return where a number is in the table, or where it would be put."""
    last = _U(members.size - 1)
    place = (value * _STEP >> _U(32)) & last
    while members[place] != 0 and members[place] != value + _U(1):
        place = (place + _U(1)) & last
    return place


@compiled
def _mix(x: np.uint64) -> np.uint64:
    x ^= x >> _U(30)
    x *= _U(0xBF58476D1CE4E5B9)
    x ^= x >> _U(27)
    x *= _U(0x94D049BB133111EB)
    return x ^ (x >> _U(31))


@compiled
def _joins(parents: Vertices, vertex: int, other: int) -> bool:
    """Join the components of two vertices; return whether they were two."""
    a, b = _root(parents, vertex), _root(parents, other)
    if a == b:
        return False
    parents[max(a, b)] = min(a, b)
    return True


@compiled
def _root(parents: Vertices, vertex: int) -> int:
    while parents[vertex] != vertex:
        parents[vertex] = parents[parents[vertex]]
        vertex = parents[vertex]
    return vertex
