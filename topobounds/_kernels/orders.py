"""Random orders of the cells of a support, and the ranks at which its spanning forest takes an edge.

One trial is one stream of words, ``mix(start + c * step)`` for c = 1, 2, ... (SplitMix64; Steele, Lea and Flood, 2014),
so it depends on its own start alone. The first cells of the order are drawn one by one. By then most vertices lie in
one component and most cells that are left can join nothing any more: the others are found by one pass over the
support, and only they are given a place in the rest of the order.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
Vertices = NDArray[np.uint32]
Words = NDArray[np.uint64]

_U = np.uint64
_STEP = _U(0x9E3779B97F4A7C15)
_LOW = _U(0xFFFFFFFF)
_SIX, _MASK_SIX = _U(6), _U(63)


@numba.njit(cache=True, nogil=True)
def forest_ranks(
    rows: Vertices,
    columns: Vertices,
    drawn: int,
    starts: Words,
    seen: Words,
    taken: Words,
    parents: Vertices,
    ranks: Ranks,
) -> None:
    """Write the ranks of the forest's edges, rising from 1, of one random order of the support per trial.

    Parameters
    ----------
    rows, columns : uint32 (cells,)
        The two vertices that each cell joins, numbered together.
    drawn : int
        Cells to draw one by one, from 0 to `cells`.
    starts : uint64 (trials,)
        Where the stream of each trial starts.
    seen, taken : uint64 (cells // 64 + 1,)
        Sets of the cells drawn and of the places given; modified in place.
    parents : uint32 (vertices,)
        Union-find; modified in place.
    ranks : int64 (trials, alpha)
        Modified in place; alpha is the number of edges of the support's forest.
    """
    cells, alpha = rows.size, ranks.shape[1]
    word = np.zeros(1, np.uint64)
    for trial in range(starts.size):
        word[0] = starts[trial]
        seen[:] = 0
        for vertex in range(parents.size):
            parents[vertex] = vertex
        merged = 0
        for rank in range(1, drawn + 1):
            if merged == alpha:
                break
            cell = _new_member(word, _U(cells), seen)
            if _joins(parents, rows[cell], columns[cell]):
                ranks[trial, merged] = rank
                merged += 1
        if merged < alpha:
            taken[:] = 0
            places = _live_places(word, rows, columns, drawn, seen, taken, parents)
            _finish(rows, columns, places, drawn, parents, merged, ranks[trial])


@numba.njit(cache=True, nogil=True)
def _live_places(
    word: Words, rows: Vertices, columns: Vertices, drawn: int, seen: Words, taken: Words, parents: Vertices
) -> Words:
    """Return ``place << 32 | cell``, sorted, of the cells not drawn that join two components; places are random."""
    for vertex in range(parents.size):
        parents[vertex] = _root(parents, vertex)
    live = np.empty(rows.size - drawn, np.uint64)
    count = 0
    for cell in range(rows.size):
        if parents[rows[cell]] != parents[columns[cell]] and not _holds(seen, _U(cell)):
            live[count] = cell
            count += 1
    left = _U(rows.size - drawn)
    for index in range(count):
        live[index] |= _new_member(word, left, taken) << _U(32)
    places = live[:count]
    places.sort()
    return places


@numba.njit(cache=True, nogil=True)
def _finish(
    rows: Vertices, columns: Vertices, places: Words, drawn: int, parents: Vertices, merged: int, ranks: Ranks
) -> None:
    """Take the cells of `places` in order, after the first `drawn`; write the ranks from position `merged` on."""
    for place in places:
        cell = place & _LOW
        if _joins(parents, rows[cell], columns[cell]):
            ranks[merged] = drawn + 1 + np.int64(place >> _U(32))
            merged += 1


@numba.njit(cache=True, nogil=True)
def _new_member(word: Words, population: np.uint64, members: Words) -> np.uint64:
    """Draw a number below `population`, at most 2^32, that the set does not hold yet; put it in."""
    while True:
        word[0] += _STEP
        product = (_mix(word[0]) >> _U(32)) * population
        # Lemire's method, without bias: the incomplete interval is skipped.
        if (product & _LOW) < _U(1 << 32) % population:
            continue
        value = product >> _U(32)
        if not _holds(members, value):
            members[value >> _SIX] |= _U(1) << (value & _MASK_SIX)
            return value


@numba.njit(cache=True, nogil=True)
def _holds(members: Words, value: np.uint64) -> bool:
    return bool((members[value >> _SIX] >> (value & _MASK_SIX)) & _U(1))


@numba.njit(cache=True, nogil=True)
def _mix(x: np.uint64) -> np.uint64:
    x ^= x >> _U(30)
    x *= _U(0xBF58476D1CE4E5B9)
    x ^= x >> _U(27)
    x *= _U(0x94D049BB133111EB)
    return x ^ (x >> _U(31))


@numba.njit(cache=True, nogil=True)
def _joins(parents: Vertices, vertex: int, other: int) -> bool:
    """Join the components of two vertices; return whether they were two."""
    a, b = _root(parents, vertex), _root(parents, other)
    if a == b:
        return False
    parents[max(a, b)] = min(a, b)
    return True


@numba.njit(cache=True, nogil=True)
def _root(parents: Vertices, vertex: int) -> int:
    while parents[vertex] != vertex:
        parents[vertex] = parents[parents[vertex]]
        vertex = parents[vertex]
    return vertex
