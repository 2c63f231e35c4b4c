"""Claims about every matrix, put to one: each check returns whether the matrix bears the claim out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from topobounds.pruning import topological_mask
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import Zeros, maximum_spanning_forest
from topobounds.verification.draws import Matrix

READINGS: tuple[Zeros, Zeros] = ("absent", "edge")


def component_identity(weights: Matrix, rng: np.random.Generator) -> bool:
    """Whether |forest ∩ top-k| = m + n - kappa(F_k) at k = alpha, at random k up to 8 alpha, and at any other one.

    The forest is Kruskal's on the whole matrix; the components of F_k are counted by scipy, the top k found by numpy.
    """
    m, n = weights.shape
    forest = maximum_spanning_forest(weights)
    magnitudes = np.abs(weights).ravel()
    order = np.argsort(-magnitudes, kind="stable")[: np.count_nonzero(magnitudes)]
    near = rng.integers(0, min(order.size, 8 * forest.alpha) + 1, 7)
    for k in (forest.alpha, *near, rng.integers(0, order.size + 1)):
        rows, cols = np.divmod(order[:k], n)
        graph = coo_array((np.ones(rows.size), (rows, m + cols)), shape=(m + n, m + n))
        kappa = connected_components(graph, directed=False, return_labels=False)
        if np.count_nonzero(forest.ranks[: forest.alpha] <= k) != m + n - kappa:
            return False
    return True


def theorem_3_2(weights: Matrix, rng: np.random.Generator) -> bool:
    """Whether alpha weights suffice for the diagram and fewer never do, be they forest edges, the largest or random."""
    forest = maximum_spanning_forest(weights)
    edges = forest.rows * weights.shape[1] + forest.cols
    if not forest.alpha:
        return True
    fewer = int(rng.integers(0, forest.alpha))
    largest = np.argsort(-np.abs(weights).ravel(), kind="stable")
    too_few = [edges[:-1], rng.choice(edges, fewer, replace=False), largest[: forest.alpha - 1]]
    too_few.append(rng.choice(np.flatnonzero(weights), fewer, replace=False))
    enough, *changed = _keeps_diagram(weights, [edges, *too_few])
    return enough and not any(changed)


def t_imp_preserves(weights: Matrix, rng: np.random.Generator) -> bool:
    """Whether T-IMP leaves the diagram as it is, bit for bit, at alpha weights and at a random number of them."""
    alpha, nonzero = maximum_spanning_forest(weights).alpha, int(np.count_nonzero(weights))
    masks = (topological_mask(weights, int(keep)) for keep in (alpha, rng.integers(alpha, nonzero + 1)))
    return all(_keeps_diagram(weights, [np.flatnonzero(mask) for mask in masks]))


def diagram_equals_gudhi(weights: Matrix, rng: np.random.Generator) -> bool:
    """Whether our diagram is gudhi's: the same points in the same multiplicities, zeros read either way."""
    del rng  # nothing is drawn here
    for zeros in READINGS:
        ours, theirs = (persistence_diagram(weights, zeros=zeros, backend=b) for b in ("kruskal", "gudhi"))
        if ours.n_essential != theirs.n_essential or not np.array_equal(np.asarray(ours), np.asarray(theirs)):
            return False
    return True


def _keeps_diagram(weights: Matrix, kept: Sequence[NDArray[np.int64]]) -> list[bool]:
    """Return whether the weights in each of these sets of cells have the diagram, and the largest weight, of all."""
    before = _diagrams(weights)
    found = []
    for cells in kept:
        pruned = np.zeros_like(weights)
        pruned.ravel()[cells] = weights.ravel()[cells]
        pairs = zip(before, _diagrams(pruned), strict=True)
        found.append(all(a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in pairs))
    return found


def _diagrams(weights: Matrix) -> list[tuple[int, float, NDArray[np.float64]]]:
    diagrams = [persistence_diagram(weights, zeros=zeros) for zeros in READINGS]
    return [(diagram.n_essential, diagram.w_max, diagram.deaths) for diagram in diagrams]
