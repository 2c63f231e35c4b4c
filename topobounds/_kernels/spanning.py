"""Union-find, and Kruskal's algorithm on the graphs of dense layers.

Vertices 0 .. m-1 are the rows, m .. m+n-1 the columns; `parent` holds one entry per vertex, at the
start its own number. Cell `c` of an (m, n) matrix is the edge between row ``c // n`` and column ``c % n``.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def _root(parent: Integers, vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@numba.njit(cache=True, nogil=True)
def kruskal(cells: Integers, m: int, n: int, parent: Integers, ranks: Integers) -> int:
    """Take `cells` in order; write to `ranks` the position of each that merges two components, and count them.

    `parent` and `ranks` are modified in place; `ranks` needs room for min(m + n - 1, cells.size) entries.
    """
    merged = 0
    for position in range(cells.size):
        if merged == m + n - 1:
            break
        a = _root(parent, cells[position] // n)
        b = _root(parent, m + cells[position] % n)
        if a != b:
            parent[a] = b
            ranks[merged] = position
            merged += 1
    return merged
