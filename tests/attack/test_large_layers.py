"""Layers of more than 2^31 and 2^32 cells, nearly all of them zero: no index may run over.

Untouched zeros take no memory, so a layer costs little more than its mask: 2 GB.
"""

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from topobounds import magnitude_mask, maximum_spanning_forest, topological_mask
from topobounds.chance.magnitudes import largest_magnitudes
from topobounds.theory.persistence import sufficient_rank
from topobounds.topology.moments import weight_moments

pytestmark = pytest.mark.attack

LAYERS = {
    "2^32 int8": (2**16, 2**16, np.int8),
    "beyond 2^32 int8": (2**16 + 3, 2**16 + 5, np.int8),
    "long rows": (2**9 + 1, 2**23 + 1, np.int8),
    "long columns": (2**23 + 1, 2**9 + 1, np.int8),
    "beyond 2^31 bfloat16": (2**15 + 9, 2**16 + 1, ml_dtypes.bfloat16),
    "float8": (2**15 + 1, 2**16 + 1, ml_dtypes.float8_e4m3fn),
}


def kruskal(order, m, n):
    """Return the positions of forest edges among flat indices in order."""
    parent, found = {}, []

    def find(x):
        while parent.setdefault(x, x) != x:
            parent[x] = x = parent[parent[x]]
        return x

    for position, cell in enumerate(order):
        a, b = find(cell // n), find(m + cell % n)
        if a != b:
            parent[a] = b
            found.append(position)
    return found


def layer(m, n, dtype):
    """Return a layer of zeros but for some cells before and beyond 2^31 and 2^32, and these in order."""
    rng = np.random.default_rng(m)
    weights = np.zeros((m, n), dtype)
    cells = {0, 1, n - 1, m * n - 1, m * n - 2, (m - 1) * n}
    for edge in (2**31, 2**32):
        cells |= {edge + d for d in range(-3, 4)} | set((edge + rng.integers(-(10**6), 10**6, 40)).tolist())
    cells |= set(rng.integers(0, m * n, 100).tolist())
    cells |= {(m - 1 - i) * n + n - 1 - j for i in range(6) for j in range(6)}  # not all of which are edges
    cells = np.array(sorted(cell for cell in cells if 0 <= cell < m * n))
    values = rng.integers(1, 100, cells.size)
    weights[cells // n, cells % n] = (values - 50 * (np.dtype(dtype) == np.int8)).astype(dtype)
    sizes = np.abs(weights[cells // n, cells % n].astype(np.float64))
    cells, sizes = cells[sizes > 0], sizes[sizes > 0]
    order = np.lexsort((cells, -sizes))
    return weights, cells[order], sizes[order]


@pytest.mark.parametrize("name", LAYERS)
def test_forests_beyond_two_to_the_31(name):
    m, n, dtype = LAYERS[name]
    weights, order, sizes = layer(m, n, dtype)
    assert weights.size > 2**31
    forest = maximum_spanning_forest(weights)
    positions = kruskal(order.tolist(), m, n)
    np.testing.assert_array_equal(forest.rows * n + forest.cols, order[positions])
    np.testing.assert_array_equal(forest.weights.astype(np.float64), sizes[positions])
    np.testing.assert_array_equal(forest.ranks, np.array(positions) + 1)
    assert (forest.alpha, forest.n_components) == (len(positions), m + n - len(positions))
    assert forest.overlap(m * n) == 1.0
    moments = weight_moments(weights)
    assert moments.nonzero == order.size
    np.testing.assert_array_equal(largest_magnitudes(weights, sufficient_rank(m, n)), sizes)


@pytest.mark.parametrize("name", ["2^32 int8", "beyond 2^32 int8", "beyond 2^31 bfloat16"])
def test_zeros_that_are_edges_have_ranks_beyond_two_to_the_31(name):
    m, n, dtype = LAYERS[name]
    weights, order, _ = layer(m, n, dtype)
    forest = maximum_spanning_forest(weights, zeros="edge")
    # A zero joins something only in the first row, or as the first zero of its row.
    present = set(order.tolist())
    zeros = [cell for cell in range(n) if cell not in present]
    zeros += [next(cell for cell in range(i * n, i * n + n) if cell not in present) for i in range(1, m)]
    edges = [*order.tolist(), *zeros]
    positions = kruskal(edges, m, n)
    ranks = np.concatenate(
        [np.arange(order.size), order.size + np.array(zeros) - np.searchsorted(np.sort(order), zeros)]
    )
    np.testing.assert_array_equal(forest.rows * n + forest.cols, np.array(edges)[positions])
    np.testing.assert_array_equal(forest.ranks, ranks[positions] + 1)
    assert forest.ranks[-1] > 2**31
    assert forest.n_components == 1


def test_masks_beyond_two_to_the_31():
    m, n, dtype = LAYERS["beyond 2^31 bfloat16"]
    free = Path("/proc/meminfo")
    if free.exists() and int(re.search(r"MemAvailable: +(\d+)", free.read_text())[1]) < 14 * 2**20:
        pytest.skip("the masks take 14 GB")
    weights, order, _ = layer(m, n, dtype)
    positions = kruskal(order.tolist(), m, n)
    keep = (len(positions) + order.size) // 2
    assert len(positions) < keep < order.size
    kept = np.flatnonzero(magnitude_mask(weights, keep))
    np.testing.assert_array_equal(kept, np.sort(order[:keep]))
    others = np.delete(order, positions)[: keep - len(positions)]
    kept = np.flatnonzero(topological_mask(weights, keep))
    np.testing.assert_array_equal(kept, np.sort(np.concatenate([order[positions], others])))
    with_zeros = order.size + 5  # the first zeros, by flat index
    kept = np.flatnonzero(magnitude_mask(weights, with_zeros))
    first = [cell for cell in range(2 * with_zeros) if cell not in set(order.tolist())][:5]
    np.testing.assert_array_equal(kept, np.sort(np.concatenate([order, first])))
