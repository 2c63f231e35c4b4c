"""Claims about every matrix: each check returns whether one matrix bears the claim out."""

import numpy as np
from numpy.typing import NDArray

from topobounds.pruning import magnitude_mask
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.verification.subject import Cells, Subject, count_components


def component_identity(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether |forest ∩ top-k| = m + n - kappa(F_k) at k = alpha, at random k up to 8 alpha, and at any other one.

    The forest is Kruskal's on the whole matrix; the components of F_k are counted by scipy, the top k found by numpy.
    """
    alpha = subject.forest.alpha
    near = rng.integers(0, min(subject.n_weights, 8 * alpha) + 1, 7)
    anywhere = rng.integers(0, subject.n_weights + 1)
    shape = subject.weights.shape
    return all(
        subject.retained(int(k)) == sum(shape) - count_components(subject.order[:k], shape)
        for k in (alpha, *near, anywhere)
    )


def theorem_3_2(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether alpha weights suffice for the diagram and fewer never do, be they forest edges, the largest or random."""
    alpha = subject.forest.alpha
    if not alpha:
        return True
    edges = subject.forest.rows * subject.weights.shape[1] + subject.forest.cols
    fewer = int(rng.integers(0, alpha))
    some_edges = rng.choice(edges, fewer, replace=False)
    some_weights = rng.choice(np.flatnonzero(subject.weights), fewer, replace=False)
    too_few = (edges[:-1], some_edges, subject.order[: alpha - 1], some_weights)
    return _keeps_diagram(subject, edges) and not any(_keeps_diagram(subject, cells) for cells in too_few)


def t_imp_preserves(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether T-IMP leaves the diagram as it is, bit for bit, at alpha weights and at a random number of them."""
    alpha = subject.forest.alpha
    keeps = (alpha, int(rng.integers(alpha, subject.n_weights + 1)))
    return all(_keeps_diagram(subject, np.flatnonzero(_t_imp_mask(subject, keep))) for keep in keeps)


def diagram_equals_gudhi(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether our diagram is gudhi's: the same points in the same multiplicities, zeros read either way."""
    del rng  # nothing is drawn here
    for zeros in subject.readings:
        ours = subject.diagram(zeros)
        theirs = persistence_diagram(subject.weights, zeros=zeros, backend="gudhi")
        if ours.n_essential != theirs.n_essential or not np.array_equal(np.asarray(ours), np.asarray(theirs)):
            return False
    return True


def _t_imp_mask(subject: Subject, keep: int) -> NDArray[np.bool_]:
    """Return the mask of T-IMP, as `topological_mask` does, but around a forest that is known already."""
    critical = np.zeros(subject.weights.shape, np.bool_)
    critical[subject.forest.rows, subject.forest.cols] = True
    return critical | magnitude_mask(subject.weights, keep - subject.forest.alpha, ~critical)


def _keeps_diagram(subject: Subject, cells: Cells) -> bool:
    """Whether the weights in these cells have the diagram, and the largest weight, of all, zeros read either way.

    Diagrams are the same, bit for bit, with their largest weight, exactly if the weights of the forest edges are. Where
    zeros are edges the forest ends with edges of weight 0, so that the forest with them shows both diagrams.
    """
    if cells.size > subject.forest.alpha:
        pruned = np.zeros_like(subject.weights)
        pruned.flat[cells] = subject.weights.flat[cells]
        forest = maximum_spanning_forest(pruned, zeros="edge")
        return np.array_equal(forest.weights, subject.forest_with_zeros.weights)
    # So few edges leave as many components only if there is no cycle among them: they are their own spanning forest.
    if count_components(cells, subject.weights.shape) != subject.forest.n_components:
        return False
    magnitudes = np.abs(subject.weights.flat[cells]).astype(np.float64)
    return np.array_equal(np.sort(magnitudes)[::-1], subject.forest.weights.astype(np.float64))
