"""T-IMP's mask is the best of all masks that keep the layer's components: all of them, in pure Python."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topobounds as tb
from tests import naive

SHAPES = [(1, 4), (2, 2), (2, 3), (3, 2), (2, 4), (3, 3)]


def layers(low, high):
    """Return layers of small integers, rich in ties and zeros."""
    return st.sampled_from(SHAPES).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(low, high), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
        )
    )


def spanning_subsets(matrix, k):
    """Yield every set of k weights, zeros left out, whose graph has the components of the layer's graph."""
    m, n = len(matrix), len(matrix[0])
    cells = [cell for cell in itertools.product(range(m), range(n)) if matrix[cell[0]][cell[1]]]
    wanted = naive.components(cells, m, n)
    for subset in itertools.combinations(cells, k):
        if naive.components(subset, m, n) == wanted:
            yield subset


def falling(matrix, cells):
    return sorted((abs(matrix[i][j]) for i, j in cells), reverse=True)


def dominates_every_other(matrix):
    """Check every k from alpha to the number of weights; return how many masks were compared."""
    forest, _, _ = naive.kruskal(matrix)
    n_weights = sum(x != 0 for row in matrix for x in row)
    compared = 0
    for k in range(len(forest), n_weights + 1):
        kept = [tuple(cell) for cell in np.argwhere(tb.topological_mask(matrix, k)).tolist()]
        best = falling(matrix, kept)
        others = list(spanning_subsets(matrix, k))
        assert tuple(sorted(kept)) in others
        assert all(a >= b for other in others for a, b in zip(best, falling(matrix, other), strict=True))
        compared += len(others)
    return compared


@settings(deadline=None)
@given(layers(1, 50))
def test_no_mask_with_the_same_components_has_a_larger_ith_weight(matrix):
    assert dominates_every_other(matrix) >= 1


@settings(deadline=None)
@given(layers(-2, 2))
def test_neither_with_ties_and_zeros_and_disconnected_supports(matrix):
    dominates_every_other(matrix)


@pytest.mark.parametrize("shape", [(2, 4), (3, 3)])
def test_of_distinct_weights_only_its_mask_has_the_largest_sum(shape):
    matrix = np.random.default_rng(0).permutation(np.arange(1.0, 2 + shape[0] * shape[1])[:-1]).reshape(shape).tolist()
    for k in range(sum(shape) - 1, shape[0] * shape[1]):
        sums = sorted((sum(falling(matrix, cells)) for cells in spanning_subsets(matrix, k)), reverse=True)
        mask = tb.topological_mask(matrix, k)
        assert sum(falling(matrix, np.argwhere(mask).tolist())) == sums[0] > [*sums, 0][1]


@settings(deadline=None)
@given(
    st.tuples(
        *[st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=2, max_size=2) for _ in range(2)]
    )
)
def test_neither_of_several_layers_ranked_together(pair):
    parts = [[list(itertools.chain(spanning_subsets(layer, k))) for k in range(5)] for layer in pair]
    least = sum(len(naive.kruskal(layer)[0]) for layer in pair)
    n_weights = sum(x != 0 for layer in pair for row in layer for x in row)
    for k in range(least, n_weights + 1):
        masks = tb.network_masks(list(pair), k, scope="global")
        kept = [np.argwhere(mask).tolist() for mask in masks]
        best = sorted(itertools.chain(*(falling(w, cells) for w, cells in zip(pair, kept, strict=True))), reverse=True)
        for first in range(k + 1):
            if first > 4 or k - first > 4:
                continue
            for one, other in itertools.product(parts[0][first], parts[1][k - first]):
                sizes = sorted(falling(pair[0], one) + falling(pair[1], other), reverse=True)
                assert all(a >= b for a, b in zip(best, sizes, strict=True))
