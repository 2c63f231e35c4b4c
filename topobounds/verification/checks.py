"""Claims about every matrix: each check returns whether one matrix bears the claim out."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from topobounds._types import Integers
from topobounds.pruning import magnitude_mask
from topobounds.topology.deficit import Deficit
from topobounds.topology.effective import effective_density
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.verification.subject import Subject, count_components

_SMALL_SUPPORT = 12  # weights of which all sets are tried


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


def deficit(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether the edges that the k largest weights lack are counted by silent neurons and fragments, at several k.

    They are alpha less the edges of the forest among the k largest; silent inputs, silent outputs and fragments count
    the components at k, less those with all weights kept. `forest.deficit` must agree with another count: of neurons
    by numpy, of components by scipy.
    """
    alpha = subject.forest.alpha
    several = rng.integers(0, min(subject.n_weights, 8 * alpha) + 1, 7).tolist()
    of_all = subject.forest.deficit(subject.weights.size)
    for k in (alpha, subject.n_weights, *several):
        found = subject.forest.deficit(k)
        lost = found.n_components - of_all.n_components
        if found != _counted_deficit(subject, k) or lost != alpha - subject.retained(k):
            return False
    return True


def t_imp_optimal(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether no mask that keeps the components has larger weights than T-IMP's, at alpha and at one random k.

    The i-th largest weight of T-IMP's mask is to be at least that of any other: it has, among the j largest weights,
    min(j, k - alpha + R_j), k the weights kept and R_j the forest edges among the j, and no other has more. The others
    are spanning trees of random orders of the weights, and of slightly disturbed ones, filled up with the largest or
    with random weights; on small supports all masks.
    """
    alpha = subject.forest.alpha
    if not alpha:
        return True
    trees = list(_random_trees(subject, rng))
    for keep in (alpha, int(rng.integers(alpha, subject.n_weights + 1))):
        mask = _t_imp_mask(subject, keep)
        best = _falling_magnitudes(subject, np.flatnonzero(mask))
        if not np.array_equal(np.cumsum(mask.ravel()[subject.order]), _most_of_the_largest(subject, keep)):
            return False
        others = _spanning_sets(subject, keep, trees, rng)
        if not all(np.all(best >= _falling_magnitudes(subject, other)) for other in others):
            return False
    return True


def effective_density_is_nominal(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether every weight that T-IMP keeps in layers in a row lies on a path from an input to an output.

    The layers are the matrix, its transpose and the matrix again: a hidden neuron without a weight on one side has none
    on the other either, as the statement presumes. Each layer keeps a random number of weights, alpha or more.
    """
    alpha = subject.forest.alpha
    keeps = [alpha, *rng.integers(alpha, subject.n_weights + 1, 2).tolist()]
    masks = [_t_imp_mask(subject, keep) for keep in keeps]
    row = [masks[0], masks[1].T, masks[2]]
    nominal = sum(keeps) / sum(mask.size for mask in row)
    return bool(np.isclose(effective_density(row), nominal, rtol=1e-12, atol=0.0))


def diagram_equals_gudhi(subject: Subject, rng: np.random.Generator) -> bool:
    """Whether our diagram is gudhi's: the same points in the same multiplicities, zeros read either way."""
    del rng  # nothing is drawn here
    for zeros in subject.readings:
        ours = subject.diagram(zeros)
        theirs = persistence_diagram(subject.weights, zeros=zeros, backend="gudhi")
        if ours.n_essential != theirs.n_essential or not np.array_equal(np.asarray(ours), np.asarray(theirs)):
            return False
    return True


def _counted_deficit(subject: Subject, k: int) -> Deficit:
    """Return the silent neurons and the fragments of the graph of the k largest weights, counted without a forest."""
    m, n = subject.weights.shape
    cells = subject.order[:k]
    rows, cols = np.divmod(cells, n)
    inputs = m - int(np.unique(rows).size)
    outputs = n - int(np.unique(cols).size)
    return Deficit(inputs, outputs, count_components(cells, (m, n)) - inputs - outputs)


def _falling_magnitudes(subject: Subject, cells: Integers) -> NDArray[np.float64]:
    """Return the |w| of some cells, falling."""
    return np.sort(np.abs(subject.weights.flat[cells]).astype(np.float64))[::-1]


def _most_of_the_largest(subject: Subject, keep: int) -> Integers:
    """Return, for every j, how many of the j largest weights a mask of `keep` that keeps the components can hold.

    A mask holds at most R_j edges of a spanning forest among them, and keep - alpha weights beyond a spanning forest.
    """
    j = np.arange(1, subject.n_weights + 1)
    in_forest = np.searchsorted(subject.forest.ranks[: subject.forest.alpha], j, side="right")
    return np.minimum(j, keep - subject.forest.alpha + in_forest)


def _spanning_sets(subject: Subject, keep: int, trees: list[Integers], rng: np.random.Generator) -> Iterator[Integers]:
    """Yield sets of `keep` weights with the components of all weights; of a small support every one there is."""
    support = subject.order
    if support.size <= _SMALL_SUPPORT:
        for chosen in itertools.combinations(support.tolist(), keep):
            cells = np.array(chosen)
            if count_components(cells, subject.weights.shape) == subject.forest.n_components:
                yield cells
    for tree in trees:
        in_tree = np.zeros(subject.weights.size, np.bool_)
        in_tree[tree] = True
        others = support[~in_tree[support]]  # from the largest on
        yield np.append(tree, others[: keep - tree.size])
        yield np.append(tree, rng.choice(others, keep - tree.size, replace=False))


def _random_trees(subject: Subject, rng: np.random.Generator) -> Iterator[Integers]:
    """Yield spanning forests of random orders of the weights, two close to the true order and one that is any."""
    ranks = np.arange(1, subject.n_weights + 1)
    for noise in (0.05, 0.5, 20.0):
        order = np.argsort(ranks * np.exp(noise * rng.standard_normal(ranks.size)))
        yield _spanning_forest_in_order(subject.order[order], subject.weights.shape)


def _spanning_forest_in_order(cells: Integers, shape: tuple[int, ...]) -> Integers:
    """Return the cells that join two components when they enter one after another; by scipy."""
    m, n = shape
    rows, cols = np.divmod(cells, n)
    ends = rows.astype(np.int32), (m + cols).astype(np.int32)  # older releases of scipy find trees by such alone
    graph = csr_array((np.arange(1.0, cells.size + 1), ends), shape=(m + n, m + n))
    tree = minimum_spanning_tree(graph).tocoo()
    inputs, outputs = np.sort(np.stack([tree.row, tree.col]).astype(np.int64), axis=0)
    return np.asarray(inputs * n + outputs - m)


def _t_imp_mask(subject: Subject, keep: int) -> NDArray[np.bool_]:
    """Return the mask of T-IMP, as `topological_mask` does, but around a forest that is known already."""
    critical = np.zeros(subject.weights.shape, np.bool_)
    critical[subject.forest.rows, subject.forest.cols] = True
    return critical | magnitude_mask(subject.weights, keep - subject.forest.alpha, ~critical)


def _keeps_diagram(subject: Subject, cells: Integers) -> bool:
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
