"""The maximum spanning forest of a layer, and its overlap with the largest weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import choice, integer
from topobounds._kernels.spanning import kruskal
from topobounds._records import Record
from topobounds.topology.filtration import Filtration, filtration

Zeros = Literal["absent", "edge"]


@dataclass(frozen=True, eq=False, repr=False)
class SpanningForest(Record):
    """The maximum spanning forest of a layer graph.

    Attributes
    ----------
    rows, cols : ndarray of int64, one entry per edge
        The edges in order of entry: descending |w|, ties by flat row-major index.
    weights : ndarray, one entry per edge
        |w| of each edge, descending, in the type of the weights.
    ranks : ndarray of int64, one entry per edge
        Position of each edge among all weights of the layer in the total order, from 1.
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
    def critical_rank(self) -> int:
        """Rank of the lightest edge of the non-zero support's forest; 0 if it has none.

        Magnitude pruning leaves the persistence diagram as it is exactly if it keeps at least this many weights.
        """
        return int(self.ranks[self.alpha - 1]) if self.alpha else 0

    def overlap(self, k: int | None = None) -> float:
        """Return |forest ∩ top-k| / alpha, the share of the forest that the k largest weights hold.

        Parameters
        ----------
        k : int, optional
            Weights kept, 0 to m n; alpha by default (the paper's X). Weights that are zero are no forest edges
            here, whatever `zeros` was.

        Returns
        -------
        float
            In [0, 1]; 1.0 for a layer without non-zero weights, whose empty forest nothing can lose.

        Raises
        ------
        ValueError
            If `k` is no integer from 0 to m n.

        Examples
        --------
        >>> forest = maximum_spanning_forest([[3.0, 2.0], [2.5, 1.0]])
        >>> forest.overlap(2), forest.overlap()
        (0.6666666666666666, 1.0)
        """
        return float(self.retention([self.alpha if k is None else k])[0])

    def retention(self, ks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the overlap at each k: the retention curve of magnitude pruning.

        Parameters
        ----------
        ks : sequence of int
            Numbers of weights kept, each from 0 to m n.

        Returns
        -------
        ndarray of float64, one entry per k
            See `overlap`.

        Raises
        ------
        ValueError
            If one of them is no integer from 0 to m n.
        """
        m, n = self.shape
        kept = [integer("k", k, 0, m * n) for k in ks]
        if not self.alpha:
            return np.ones(len(kept))
        return np.searchsorted(self.ranks[: self.alpha], kept, side="right") / self.alpha

    def __repr__(self) -> str:
        return (
            f"SpanningForest(shape={self.shape}, alpha={self.alpha}, n_components={self.n_components}, "
            f"critical_rank={self.critical_rank}, zeros={self.zeros!r})"
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
        Real and finite, m inputs by n outputs (a torch weight is the transpose). float16, bfloat16, float32 and
        float64 are used as they are; integers, booleans and the 8-bit floats of ml_dtypes are converted; torch
        tensors are accepted.
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
    Balwani & Krzyston, arXiv 2206.06563, section 2.2.

    Examples
    --------
    >>> forest = maximum_spanning_forest([[0.1, -0.9], [0.5, 0.4], [0.0, 0.8]])
    >>> forest.rows.tolist(), forest.cols.tolist(), forest.weights.tolist()
    ([0, 2, 1, 1], [1, 1, 0, 1], [0.9, 0.8, 0.5, 0.4])
    >>> forest.alpha, forest.critical_rank
    (4, 4)
    """
    zeros = choice("zeros", zeros, ("absent", "edge"))  # type: ignore[assignment]
    edges = filtration(weights, mask)
    positions = _forest_positions(edges, edges.n_nonzero if zeros == "absent" else edges.cells.size)
    m, n = edges.shape
    rows, cols = np.divmod(edges.cells[positions], n)
    return SpanningForest(
        rows=rows,
        cols=cols,
        weights=np.abs(edges.weights[rows, cols]),
        ranks=positions + 1,
        shape=(m, n),
        zeros=zeros,
        alpha=int(np.searchsorted(positions, edges.n_nonzero)),
        n_components=m + n - positions.size,
    )


def magnitude_overlap(weights: ArrayLike, k: int | None = None, mask: ArrayLike | None = None) -> float:
    """Return |forest ∩ top-k| / alpha without the forest: by the components of the graph of the k largest weights.

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
    edges = filtration(weights, mask)
    m, n = edges.shape
    alpha = _forest_positions(edges, edges.n_nonzero).size
    kept = alpha if k is None else integer("k", k, 0, m * n)
    return _forest_positions(edges, min(kept, edges.n_nonzero)).size / alpha if alpha else 1.0


def _forest_positions(edges: Filtration, n_edges: int) -> NDArray[np.int64]:
    """Return the positions, among the first `n_edges` edges, of those that merge two components."""
    m, n = edges.shape
    ranks = np.empty(min(m + n - 1, n_edges), np.int64)
    merged = kruskal(edges.cells[:n_edges], m, n, np.arange(m + n), ranks)
    return ranks[:merged]
