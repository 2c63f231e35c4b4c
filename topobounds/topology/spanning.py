"""The maximum spanning forest of a layer, and its overlap with the largest weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import choice
from topobounds._engine import NumpyBudget, kernels_disabled
from topobounds._types import FloatArray, Zeros
from topobounds.topology.deficit import Deficit
from topobounds.topology.filtration import Filtration, sorted_cells
from topobounds.topology.forest import RankedForest
from topobounds.topology.key_matrix import Edges, KeyMatrix, keys_of
from topobounds.weights import ScaledWeights, check_finite, mask_matrix, stored_matrix

if TYPE_CHECKING:
    from topobounds.topology.persistence import PersistenceDiagram

_NUMPY_BUDGET = NumpyBudget(
    "topobounds.topology.spanning_engine", cells=2**22
)  # 0.9 s to load; numpy takes 0.1 us a cell
_SCALED_CELLS = 2**18  # of fewer codes with scales all are multiplied out: picking the large ones takes as long
_PLAIN_STEP = 2**14  # cells made Python integers at a time


@dataclass(frozen=True, eq=False, repr=False)
class SpanningForest(RankedForest):
    """The maximum spanning forest of a layer graph.

    Attributes
    ----------
    rows, cols : ndarray of int64, one entry per edge
        The edges in order of entry: descending |w|, ties by flat row-major index.
    weights : ndarray, one entry per edge
        |w| of each edge, descending, in the type of the weights; of int8 in uint8, where |-128| is 128.
    ranks : ndarray of int64, one entry per edge
        Position of each edge among all weights of the layer in the total order, from 1, ascending.
    shape : tuple of int
        Rows m and columns n of the layer.
    zeros : {"absent", "edge"}
        Whether weights that are zero made edges of weight 0.
    alpha : int
        Edges of the forest of the non-zero support, under either option of `zeros`: m + n minus its components,
        isolated neurons counted. With ``zeros="edge"`` the edges from position `alpha` on have weight 0.
    n_components : int
        Components of the graph this forest spans: m + n - len(rows).

    Notes
    -----
    The record keeps its edges and nothing of the weights it was made from.
    ``rows`` and ``cols`` index the matrix that was given, so ``W[forest.rows, forest.cols]`` are the signed weights.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    weights: NDArray[Any]
    ranks: NDArray[np.int64]
    shape: tuple[int, int]
    zeros: Zeros
    alpha: int
    n_components: int

    @property
    def diagram(self) -> "PersistenceDiagram":
        """The layer's persistence diagram: a point (1, |w| / w_max) for every edge."""
        from topobounds.topology.persistence import diagram_of_forest  # noqa: PLC0415 (stands on this file)

        return diagram_of_forest(self)

    @property
    def _n_carriers(self) -> int:
        return self.alpha

    @property
    def _n_stored(self) -> int:
        m, n = self.shape
        return m * n

    def _deficit_of_first(self, n_carriers: int) -> Deficit:
        m, n = self.shape
        silent_inputs = m - int(np.count_nonzero(np.bincount(self.rows[:n_carriers])))
        silent_outputs = n - int(np.count_nonzero(np.bincount(self.cols[:n_carriers])))
        return Deficit(silent_inputs, silent_outputs, m + n - n_carriers - silent_inputs - silent_outputs)

    def __repr__(self) -> str:
        return (
            f"SpanningForest(shape={self.shape}, alpha={self.alpha}, n_components={self.n_components}, "
            f"zeros={self.zeros!r})"
        )


def maximum_spanning_forest(
    weights: ArrayLike, mask: ArrayLike | None = None, *, zeros: Zeros = "absent"
) -> SpanningForest:
    """Return the maximum spanning forest of a layer: Kruskal's algorithm on |w|, heaviest first.

    The layer graph is bipartite, an edge (i, j) of weight ``|weights[i, j]|`` for every cell of the support. Ties are
    broken by flat row-major index, so one matrix has one forest; its transpose, with ties, may have another, of the
    same weights.

    Parameters
    ----------
    weights : array_like of shape (m, n)
        Real and finite, m inputs by n outputs (a torch weight is the transpose). float16, bfloat16, float32, float64,
        int8, uint8 and the 8-bit floats of ml_dtypes are used as they are; other integers and booleans are converted;
        torch tensors and `ScaledWeights` are accepted.
    mask : array_like of bool of shape (m, n), optional
        The support. A cell that is False is no edge, under either option of `zeros`, and is not looked at. To have
        pruned weights as edges of weight 0, pass ``where(mask, weights, 0)`` and ``zeros="edge"``.
    zeros : {"absent", "edge"}
        What a weight of exactly zero is: no edge, or an edge of weight 0, which comes after all others.

    Returns
    -------
    SpanningForest
        Edges in order of entry, with `alpha`, `n_components`, `critical_rank` and the overlap at any k.

    Raises
    ------
    ValueError
        If `weights` is no real matrix with at least one row and column, `mask` has another shape, or a weight of
        the support is NaN or infinite (the message says how many, and where the first is).

    References
    ----------
    Balwani & Krzyston, PMLR 196, 2022, section 3.1.

    Examples
    --------
    >>> forest = maximum_spanning_forest([[0.1, -0.9], [0.5, 0.4], [0.0, 0.8]])
    >>> forest.rows.tolist(), forest.cols.tolist(), forest.weights.tolist()
    ([0, 2, 1, 1], [1, 1, 0, 1], [0.9, 0.8, 0.5, 0.4])
    >>> forest.alpha, forest.critical_rank
    (4, 4)
    """
    return forest_and_largest(weights, mask, zeros=zeros)[0]


def forest_and_largest(
    weights: ArrayLike, mask: ArrayLike | None = None, *, zeros: Zeros = "absent", n_largest: int = 0
) -> tuple[SpanningForest, FloatArray | None]:
    """Return the maximum spanning forest of a layer, and the largest weights that had to be sorted for it.

    Parameters
    ----------
    weights, mask, zeros
        As in `maximum_spanning_forest`.
    n_largest : int
        How many are asked for, about; 0 for none.

    Returns
    -------
    forest : SpanningForest
        That of `maximum_spanning_forest`.
    largest : ndarray of float64, or None
        The largest |w|, falling, without zeros: somewhat less than were asked for, or more; None if it does not come
        to that.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest`.
    """
    zeros = choice("zeros", zeros, ("absent", "edge"))  # type: ignore[assignment]
    matrix = stored_matrix(weights)
    support = None if mask is None else mask_matrix(mask, matrix.shape)
    keys, edges = keys_and_forest_edges(matrix, support, zeros, n_largest)
    weights_of_edges = keys.magnitudes(edges.keys)
    forest = SpanningForest(
        rows=edges.rows,
        cols=edges.cols,
        weights=weights_of_edges,
        ranks=_all_ranks(keys, edges),
        shape=keys.shape,
        zeros=zeros,
        alpha=int(np.count_nonzero(weights_of_edges)),
        n_components=sum(keys.shape) - edges.cells.size,
    )
    return forest, None if edges.largest is None else keys.magnitudes(edges.largest).astype(np.float64)


def magnitude_overlap(weights: ArrayLike, k: int | None = None, mask: ArrayLike | None = None) -> float:
    """Return |forest ∩ top-k| / alpha, the share of a layer's spanning forest that its k largest weights hold.

    Kruskal's algorithm is greedy, so the forest edges among the first k edges are a spanning forest of the graph
    F_k that these k make: ``|forest ∩ top-k| = m + n - kappa(F_k)``, for every matrix.

    Parameters
    ----------
    weights, mask
        As in `maximum_spanning_forest`.
    k : int, optional
        Weights kept, 0 to m n; alpha of the support by default (the paper's X).

    Returns
    -------
    float
        The value of ``maximum_spanning_forest(weights, mask).overlap(k)``.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest`; or if `k` is no integer from 0 to m n.

    Examples
    --------
    >>> magnitude_overlap([[3.0, 2.0], [2.5, 1.0]], 2)
    0.6666666666666666
    """
    return maximum_spanning_forest(weights, mask).overlap(k)


def keys_and_forest_edges(
    matrix: NDArray[Any] | ScaledWeights, support: NDArray[np.bool_] | None, zeros: Zeros, n_largest: int = 0
) -> tuple[KeyMatrix, Edges]:
    """Return the order keys of a layer, and its forest's edges with the ranks that became known on the way.

    Parameters
    ----------
    matrix, support
        As `stored_matrix` and `mask_matrix` return them.
    zeros : {"absent", "edge"}
        As in `maximum_spanning_forest`.
    n_largest : int
        As in `forest_and_largest`.

    Raises
    ------
    ValueError
        If a weight of the support is NaN or infinite.
    """
    if isinstance(matrix, ScaledWeights) and (matrix.size < _SCALED_CELLS or kernels_disabled()):
        matrix = np.asarray(matrix)
    keys = keys_of(matrix, support, zero_edges=zeros == "edge")
    if not _NUMPY_BUDGET.affords(matrix.size):
        from topobounds.topology.spanning_engine import NotFiniteError, spanning_edges  # noqa: PLC0415 (loads numba)

        try:
            return keys, spanning_edges(keys, n_largest)
        except NotFiniteError:
            check_finite(matrix, support)  # says where
    return keys, _plain_edges(sorted_cells(np.asarray(matrix), support), keys)


def _all_ranks(keys: KeyMatrix, edges: Edges) -> NDArray[np.int64]:
    """Return the ranks of all edges; those that are not known yet take one pass over the weights."""
    n_known = edges.ranks.size
    if n_known == edges.cells.size:
        return edges.ranks
    from topobounds.topology.spanning_engine import ranks_of  # noqa: PLC0415 (loads numba)

    return np.concatenate([edges.ranks, ranks_of(keys, edges.keys[n_known:], edges.cells[n_known:])])


def _plain_edges(order: Filtration, keys: KeyMatrix) -> Edges:
    """Kruskal's algorithm on all cells, in numpy and Python."""
    m, n = order.shape
    parent = list(range(m + n))
    n_cells = order.cells.size if keys.lift else order.n_nonzero
    positions: list[int] = []
    for start in range(0, n_cells, _PLAIN_STEP):
        if len(positions) == m + n - 1:
            break
        for position, cell in enumerate(order.cells[start : min(start + _PLAIN_STEP, n_cells)].tolist(), start):
            a, b = cell // n, m + cell % n
            while parent[a] != a:
                parent[a] = a = parent[parent[a]]
            while parent[b] != b:
                parent[b] = b = parent[parent[b]]
            if a != b:
                parent[a] = b
                positions.append(position)
    ranks = np.array(positions, np.int64) + 1
    rows, cols = np.divmod(order.cells[ranks - 1].astype(np.uint64), np.uint64(n))
    cells = rows << np.uint64(32) | cols
    return Edges(cells, keys.at(cells), ranks)
