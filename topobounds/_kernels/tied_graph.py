"""Kruskal's algorithm on graphs whose edges share their weights: convolutions, recurrent layers unrolled in time.

Vertices come in blocks, one per channel (or unit); block b holds the vertices ``starts[b] .. starts[b + 1] - 1``. A
weight joins two blocks through one of a few taps: tap t joins vertex ``firsts[e]`` of the one with vertex
``seconds[e]`` of the other, for every e of ``tap_starts[t] .. tap_starts[t + 1] - 1``. `parent` is a union-find, at
the start each vertex's own number. A block is whole once its vertices lie in one component. A union-find of its own:
a cached kernel calls only kernels of its own file.
"""

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._types import Array


@compiled
def _root(parent: Array, vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@compiled
def _joined(parent: Array, start: int, stop: int, known: int) -> int:
    """Return how many of the first vertices of a block lie in one component, of which `known` are known to."""
    root = _root(parent, start)
    while start + known < stop and _root(parent, start + known) == root:
        known += 1
    return known


@compiled
def join(
    first_blocks: Array,
    second_blocks: Array,
    taps: Array,
    starts: Array,
    tap_starts: Array,
    firsts: Array,
    seconds: Array,
    parent: Array,
    joined: Array,
    limit: int,
    merges: Array,
) -> int:
    """Add all edges of each weight in turn; write to `merges` how many components each merges, and return the sum.

    One entry of `first_blocks`, `second_blocks`, `taps` and `merges` per weight. ``joined[b]`` is how many of the first
    vertices of block b are known to lie in one component, at the start 1. Two whole blocks take one step. Stops at
    `limit` merges. `parent`, `joined` and `merges` (zeros at the start) are modified in place.
    """
    total = 0
    for weight in range(taps.size):
        if total == limit:
            break
        a, b, tap = first_blocks[weight], second_blocks[weight], taps[weight]
        stop = tap_starts[tap + 1]
        if joined[a] == starts[a + 1] - starts[a] and joined[b] == starts[b + 1] - starts[b]:
            stop = min(stop, tap_starts[tap] + 1)
        for edge in range(tap_starts[tap], stop):
            x, y = starts[a] + firsts[edge], starts[b] + seconds[edge]
            if parent[x] == parent[y]:
                continue  # most edges end here: no search for the root
            x, y = _root(parent, x), _root(parent, y)
            if x != y:
                parent[max(x, y)] = min(x, y)  # so the large component seldom gets another root
                merges[weight] += 1
        total += merges[weight]
        joined[a] = _joined(parent, starts[a], starts[a + 1], joined[a])
        joined[b] = _joined(parent, starts[b], starts[b + 1], joined[b])
    return total


@compiled
def compress(parent: Array) -> None:
    """Make every entry of `parent` the root of its component."""
    for vertex in range(parent.size):
        parent[vertex] = _root(parent, vertex)


@compiled
def gather_candidates(
    levels: Array,
    below: int,
    first_blocks: Array,
    second_blocks: Array,
    first_taps: Array,
    taps_per_pair: int,
    whole: NDArray[np.bool_],
    classes: Array,
    most_common_classes: tuple[int, int],
    best: Array,
    others: Array,
) -> int:
    """Find the weights of levels 1 .. below - 1 that may still merge something, and return how many are in `others`.

    Two blocks are of one class if, vertex for vertex, they lie in the same components. Weights of one tap between the
    same two classes then join the same components: the first of them in the total order merges all that they can, and
    the others need not be looked at. A table of the first ones of all pairs of classes would be large, and most blocks
    are of one class, so it is kept for ``most_common_classes`` only: [0] of the first blocks, [1] of the second.

    Into `best`, -1 before, goes the index of the first weight of each tap: ``best[0, b, tap]`` from the first blocks of
    the most common class to the second block b, ``best[1, a, tap]`` from the first block a to the second blocks of the
    most common class, ``best[2, 0, tap]`` between the two classes. Every weight between other classes goes to `others`.
    Both arrays are modified in place.
    """
    n_others = 0
    for pair in range(first_blocks.size):
        a, b = first_blocks[pair], second_blocks[pair]
        if whole[a] and whole[b] and classes[a] == classes[b]:
            continue
        # Which of the two blocks is of the most common class: -1 neither, 0 the first, 1 the second, 2 both.
        side = int(classes[a] == most_common_classes[0]) + 2 * int(classes[b] == most_common_classes[1]) - 1
        block = b if side == 0 else a if side == 1 else 0
        for weight in range(pair * taps_per_pair, (pair + 1) * taps_per_pair):
            level = levels[weight]
            if level == 0 or level >= below:
                continue
            if side < 0:
                others[n_others] = weight
                n_others += 1
                continue
            tap = first_taps[pair] + weight - pair * taps_per_pair
            if best[side, block, tap] < 0 or levels[best[side, block, tap]] < level:
                best[side, block, tap] = weight
    return n_others


@compiled
def label_vertices(firsts: Array, seconds: Array, parent: Array, labels: Array) -> None:
    """Write to `labels` the component of each vertex of the graph with edges (first, second).

    `parent` and `labels` are modified in place.
    """
    for edge in range(firsts.size):
        parent[_root(parent, firsts[edge])] = _root(parent, seconds[edge])
    for vertex in range(parent.size):
        labels[vertex] = _root(parent, vertex)
