"""Kruskal's algorithm on graphs whose edges share their weights: convolutions, recurrent layers unrolled in time.

Vertices come in blocks, one per channel (or unit); block b holds the vertices ``starts[b] .. starts[b + 1] - 1``. A
weight joins two blocks through one of a few taps: tap t joins vertex ``firsts[e]`` of the one with vertex
``seconds[e]`` of the other, for every e of ``tap_starts[t] .. tap_starts[t + 1] - 1``. `parent` is a union-find, at
the start each vertex's own number. A block is whole once its vertices lie in one component. A union-find of its own:
a cached kernel calls only kernels of its own file.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]


@numba.njit(cache=True, nogil=True)
def _root(parent: Integers, vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@numba.njit(cache=True, nogil=True)
def _in_one_component(parent: Integers, start: int, stop: int) -> bool:
    root, vertex = _root(parent, start), start + 1
    while vertex < stop and _root(parent, vertex) == root:
        vertex += 1
    return vertex == stop


@numba.njit(cache=True, nogil=True)
def join(
    first_blocks: Integers,
    second_blocks: Integers,
    taps: Integers,
    starts: Integers,
    tap_starts: Integers,
    firsts: Integers,
    seconds: Integers,
    parent: Integers,
    whole: NDArray[np.bool_],
    limit: int,
    merges: Integers,
) -> int:
    """Add all edges of each weight in turn; write to `merges` how many components each merges, and return the sum.

    One entry of `first_blocks`, `second_blocks`, `taps` and `merges` per weight. Two whole blocks take one step. Stops
    at `limit` merges. `parent`, `whole` and `merges` (zeros at the start) are modified in place.
    """
    total = 0
    for weight in range(taps.size):
        if total == limit:
            break
        a, b, tap = first_blocks[weight], second_blocks[weight], taps[weight]
        stop = tap_starts[tap + 1]
        if whole[a] and whole[b]:
            stop = min(stop, tap_starts[tap] + 1)
        for edge in range(tap_starts[tap], stop):
            x = _root(parent, starts[a] + firsts[edge])
            y = _root(parent, starts[b] + seconds[edge])
            if x != y:
                parent[x] = y
                merges[weight] += 1
        total += merges[weight]
        if not whole[a]:
            whole[a] = _in_one_component(parent, starts[a], starts[a + 1])
        if not whole[b]:
            whole[b] = _in_one_component(parent, starts[b], starts[b + 1])
    return total


@numba.njit(cache=True, nogil=True)
def label_whole_blocks(starts: Integers, parent: Integers, whole: NDArray[np.bool_], labels: Integers) -> None:
    """Write to `labels` the component of each whole block, and ``-1 - b`` for a block b that is not.

    A block's label is the same as another's exactly if no weight between them can merge anything.
    `labels` is modified in place; `parent` is compressed.
    """
    for block in range(whole.size):
        labels[block] = _root(parent, starts[block]) if whole[block] else -1 - block


@numba.njit(cache=True, nogil=True)
def label_edges(firsts: Integers, seconds: Integers, parent: Integers, labels: Integers) -> None:
    """Write to `labels` the component of each edge (first, second) of a graph; `parent` is modified in place."""
    for edge in range(firsts.size):
        parent[_root(parent, firsts[edge])] = _root(parent, seconds[edge])
    for edge in range(firsts.size):
        labels[edge] = _root(parent, firsts[edge])
