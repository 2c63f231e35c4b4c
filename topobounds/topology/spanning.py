"""The maximum spanning forest of a layer, and its overlap with the largest weights."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import choice, integers
from topobounds._engine import kernels_disabled
from topobounds._records import Record
from topobounds.topology.keys import Edges, KeyMatrix
from topobounds.topology.order import Filtration, filtration
from topobounds.weights import check_finite, mask_matrix, weight_matrix

Zeros = Literal["absent", "edge"]
_NUMPY_CELLS = 2**22
_numpy_cells = [0]  # treated in numpy so far
_SAMPLE = 2**13
_PLAIN_STEP = 2**14  # cells made Python integers at a time


@dataclass(frozen=True, eq=False, repr=False)
class SpanningForest(Record):
    """The maximum spanning forest of a layer graph.

    Attributes
    ----------
    rows, cols : ndarray of int64, one entry per edge
        The edges in order of entry: descending |w|, ties by flat row-major index.
    weights : ndarray, one entry per edge
        |w| of each edge, descending, in the type of the weights.
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
    `ranks`, and what needs them, are read off the forest's computation where it went through all heavier weights, as
    it does for all but a few edges of most layers; else the weights, which must still be what they were, are read
    once more when they are asked for.
    ``rows`` and ``cols`` index the matrix that was given, so ``W[forest.rows, forest.cols]`` are the signed weights.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    weights: NDArray[Any]
    shape: tuple[int, int]
    zeros: Zeros
    alpha: int
    n_components: int
    _ranks: "_Ranks"

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Position of each edge among all weights of the layer in the total order, from 1.

        Raises
        ------
        RuntimeError
            If the weights had to be read once more and are no longer those that the forest was made from.
        """
        return self._ranks.all

    @cached_property
    def critical_rank(self) -> int:
        """Rank of the lightest edge of the non-zero support's forest; 0 if it has none.

        Magnitude pruning leaves the persistence diagram as it is exactly if it keeps at least this many weights.
        """
        return int(self._ranks.between(self.alpha - 1, self.alpha)[0]) if self.alpha else 0

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
            If `ks` is no sequence, or one of them no integer from 0 to m n.
        """
        m, n = self.shape
        kept = integers("ks", "k", ks, 0, m * n)
        if not self.alpha:
            return np.ones(len(kept))
        ranks = self._ranks.up_to(max(kept, default=0))
        return np.searchsorted(ranks[: self.alpha], kept, side="right") / self.alpha

    def __repr__(self) -> str:
        return (
            f"SpanningForest(shape={self.shape}, alpha={self.alpha}, n_components={self.n_components}, "
            f"zeros={self.zeros!r})"
        )


@dataclass(frozen=True, eq=False)
class _Ranks:
    """The ranks of a forest's edges, known from the start or counted when they are asked for.

    `sample` are keys as they were when the forest was made, by which weights that changed since are noticed.
    """

    edges: Edges
    keys: KeyMatrix
    sample: NDArray[Any]

    @cached_property
    def all(self) -> NDArray[np.int64]:
        known = self.edges.ranks
        every = np.concatenate([known, self.between(known.size, self.edges.cells.size)])
        every.setflags(write=False)
        return every

    def up_to(self, rank: int) -> NDArray[np.int64]:
        """Return the ranks of the first edges, among them all ranks up to `rank`."""
        return self.edges.ranks if rank <= self.edges.n_sorted else self.all

    def between(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the ranks of edges `first` to `last` - 1, all of them known or none."""
        if last <= self.edges.ranks.size:
            return self.edges.ranks[first:last]
        from topobounds.topology.forest import ranks_of  # noqa: PLC0415 (loads numba)

        edge_keys, edge_cells = self.edges.keys[first:last], self.edges.cells[first:last]
        same = np.array_equal(self.keys.at(edge_cells), edge_keys)
        if not same or not np.array_equal(self.keys.sample(_SAMPLE)[0], self.sample):
            raise RuntimeError("The weights have changed since the forest was made, so ranks cannot be counted.")
        return ranks_of(self.keys, edge_keys, edge_cells)


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
    matrix = weight_matrix(weights)
    support = None if mask is None else mask_matrix(mask, matrix.shape)
    keys = KeyMatrix.of(matrix, support, zero_edges=zeros == "edge")
    edges = _edges(matrix, support, keys)
    rows, cols = (
        index.astype(np.int64) for index in (edges.cells >> np.uint64(32), edges.cells & np.uint64(2**32 - 1))
    )
    values = keys.magnitudes(edges.keys, matrix.dtype)
    return SpanningForest(
        rows=rows,
        cols=cols,
        weights=values,
        shape=keys.shape,
        zeros=zeros,
        alpha=int(np.count_nonzero(values)),
        n_components=sum(keys.shape) - rows.size,
        _ranks=_Ranks(edges, keys, keys.sample(_SAMPLE)[0] if edges.ranks.size < rows.size else keys.bits[:0]),
    )


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


def _edges(matrix: NDArray[Any], support: NDArray[np.bool_] | None, keys: KeyMatrix) -> Edges:
    """Return the forest's edges from the kernels, or from numpy alone for as long as that is the faster way in."""
    if not _affords_numpy(matrix.size):
        from topobounds.topology.forest import NotFiniteError, spanning_edges  # noqa: PLC0415 (loads numba)

        try:
            return spanning_edges(keys)
        except NotFiniteError:
            check_finite(matrix, support)
    return _plain_edges(filtration(matrix, support), keys)


def _affords_numpy(cells: int) -> bool:
    """Say whether to treat a layer in numpy: while the kernels are not loaded, and all such layers cost less than that.

    Loading takes 0.9 s, numpy some 0.1 microseconds a cell: so a first small layer takes milliseconds, and many of
    them never more than twice the time that the better of the two ways would have taken.
    """
    if kernels_disabled():
        return True
    if "topobounds.topology.forest" in sys.modules or _numpy_cells[0] + cells > _NUMPY_CELLS:
        return False
    _numpy_cells[0] += cells
    return True


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
    return Edges(cells, keys.at(cells), ranks, m * n)
