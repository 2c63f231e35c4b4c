"""The whole network as one graph: layers that share their neurons, and the forest that spans them all."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, choice, integers, items
from topobounds._kernels.convolution import join
from topobounds._records import Record
from topobounds.layers import Dense, Network
from topobounds.topology.spanning import SpanningForest, Zeros, maximum_spanning_forest
from topobounds.weights import weight_matrix

Connection = tuple[ArrayLike, Hashable, Hashable]
_CELLS_SORTED = 2**21


@dataclass(frozen=True, eq=False, repr=False)
class NetworkForest(Record):
    """The maximum spanning forest of a network of dense layers that share their neurons.

    Attributes
    ----------
    network : Network
        Which layer joins which groups of neurons, with the closed-form counts.
    layers : ndarray of int64, one entry per edge
        The layer of each edge, in order of entry: descending |w|, ties by layer, then by flat row-major index.
    rows, cols : ndarray of int64, one entry per edge
        Its place in the matrix of that layer.
    weights : ndarray of float64, one entry per edge
        |w|, descending.
    zeros : {"absent", "edge"}
        Whether weights that are zero made edges of weight 0.
    alpha : int
        Edges of the forest of the non-zero weights: neurons minus its components. With ``zeros="edge"`` the edges from
        position `alpha` on have weight 0.
    n_components : int
        Components of the graph this forest spans, neurons without an edge counted.
    """

    network: Network
    layers: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    weights: NDArray[np.float64]
    zeros: Zeros
    alpha: int
    n_components: int
    _positions: NDArray[np.int64]
    _forests: tuple[SpanningForest, ...]
    _matrices: tuple[NDArray[Any], ...]

    @property
    def ratio(self) -> Fraction | None:
        """Stored weights over `alpha`: the critical compression of the network pruned as one; None if alpha is 0."""
        return Fraction(self.network.n_weights, self.alpha) if self.alpha else None

    @property
    def w_max(self) -> float:
        """The largest |w| of any layer that makes an edge: one normaliser for all layers; 0 if all are zero."""
        return float(self.weights[0]) if self.weights.size else 0.0

    @property
    def deaths(self) -> NDArray[np.float64]:
        """|w| / w_max of each edge: the finite part of the network's persistence diagram, births being 1."""
        return self.weights / self.w_max if self.w_max else self.weights

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Position of each edge among all weights of the network in the total order, from 1.

        Reads the weights once more; they must still be those that the forest was made from.
        """
        ranks = np.empty(self.layers.size, np.int64)
        for layer, forest in enumerate(self._forests):
            own = self.layers == layer
            ranks[own] = forest.ranks[self._positions[own]]
        for layer, matrix in enumerate(self._matrices):
            ranks += np.where(self.layers == layer, 0, _entered(matrix, self.weights, layer < self.layers))
        ranks.setflags(write=False)
        return ranks

    @property
    def critical_rank(self) -> int:
        """Rank of the lightest edge of the non-zero weights' forest; 0 if it has none.

        Global magnitude pruning leaves the network's diagram as it is exactly if it keeps at least this many weights.
        """
        return int(self.ranks[self.alpha - 1]) if self.alpha else 0

    def overlap(self, k: int | None = None) -> float:
        """Return |forest ∩ top-k| / alpha, top-k being the k largest weights of the whole network.

        Parameters
        ----------
        k : int, optional
            Weights kept in all layers together, 0 to all; alpha by default.

        Returns
        -------
        float
            In [0, 1]; 1.0 for a network without non-zero weights, whose empty forest nothing can lose.

        Raises
        ------
        ValueError
            If `k` is no integer from 0 to the number of weights.
        """
        return float(self.retention([self.alpha if k is None else k])[0])

    def retention(self, ks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the overlap at each k: the retention curve of global magnitude pruning.

        Parameters
        ----------
        ks : sequence of int
            Numbers of weights kept, each from 0 to all.

        Returns
        -------
        ndarray of float64, one entry per k
            See `overlap`.

        Raises
        ------
        ValueError
            If `ks` is no sequence, or one of them no integer from 0 to the number of weights.
        """
        kept = integers("ks", "k", ks, 0, self.network.n_weights)
        if not self.alpha:
            return np.ones(len(kept))
        return np.searchsorted(self.ranks[: self.alpha], kept, side="right") / self.alpha

    def __repr__(self) -> str:
        return (
            f"NetworkForest(layers={len(self._matrices)}, neurons={self.network.n_vertices}, alpha={self.alpha}, "
            f"n_components={self.n_components}, zeros={self.zeros!r})"
        )


def network_forest(connections: Sequence[Connection], *, zeros: Zeros = "absent") -> NetworkForest:
    """Return the maximum spanning forest of a network whose dense layers share their neurons.

    One total order over all weights: |w| descending, then the layer's place in `connections`, then flat row-major
    index. Weights are compared as they are, across layers: global pruning. An edge that the forest of the network
    holds is in the forest of its layer, for a cycle in a layer is one in the network; so the layers' forests are
    found first, and the network's among their edges.

    Parameters
    ----------
    connections : sequence of (weights, source, target)
        Each layer's matrix, inputs by outputs (a torch weight is the transpose), with the names of the groups of
        neurons that it reads and feeds: see `Network`. For layers one after the other, see `chain`.
    zeros : {"absent", "edge"}
        As in `maximum_spanning_forest`.

    Returns
    -------
    NetworkForest
        The edges in order of entry, with the ratio ``sum |W_k| / (neurons - components)`` and the global overlap at
        any k.

    Raises
    ------
    ValueError
        If there is no layer, one is no such triple, a group has two sizes, or as `maximum_spanning_forest`.

    Notes
    -----
    The whole-network extension is named as future work by the paper. Convolutions are not among the layers: pooling
    parts the neurons of one from those of the next, and stored weights are no edges there.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> forest = network_forest(chain([rng.standard_normal((784, 300)), rng.standard_normal((300, 10))]))
    >>> forest.alpha, float(round(forest.ratio, 4)), forest.overlap(forest.critical_rank)
    (1093, 217.9323, 1.0)
    """
    choice("zeros", zeros, ("absent", "edge"))
    given = items("connections", connections, "(weights, source, target)")
    if not given or not all(isinstance(c, Sequence) and len(c) == 3 for c in given):
        raise argument_error("connections", "a non-empty sequence of (weights, source, target)", connections)
    matrices = tuple(weight_matrix(weights) for weights, _, _ in given)
    shapes = [Dense(*matrix.shape) for matrix in matrices]
    groups = [(source, target) for _, source, target in given]
    network = Network(tuple((shape, *ends) for shape, ends in zip(shapes, groups, strict=True)))
    forests = tuple(maximum_spanning_forest(matrix, zeros=zeros) for matrix in matrices)
    layers = np.repeat(np.arange(len(forests)), [forest.rows.size for forest in forests])
    positions = np.concatenate([np.arange(forest.rows.size) for forest in forests])
    weights = np.concatenate([forest.weights.astype(np.float64) for forest in forests])
    order = np.lexsort((positions, layers, -weights))  # a layer's forest is in order already
    sources, targets = _ends(network, forests)
    taken = order[_merging(sources[order], targets[order], network.n_vertices)]
    return NetworkForest(
        network=network,
        layers=layers[taken],
        rows=np.concatenate([forest.rows for forest in forests])[taken],
        cols=np.concatenate([forest.cols for forest in forests])[taken],
        weights=weights[taken],
        zeros=zeros,
        alpha=int(np.count_nonzero(weights[taken])),
        n_components=network.n_vertices - taken.size,
        _positions=positions[taken],
        _forests=forests,
        _matrices=matrices,
    )


def chain(layers: Sequence[ArrayLike]) -> list[Connection]:
    """Return the connections of layers one after the other: group 0 to 1, 1 to 2, and so on.

    Parameters
    ----------
    layers : sequence of array_like of shape (m, n)
        Matrices, inputs by outputs.

    Returns
    -------
    list of (weights, source, target)
        For `network_forest`.

    Raises
    ------
    ValueError
        If `layers` is no sequence.

    Examples
    --------
    >>> [(source, target) for _, source, target in chain([np.ones((4, 3)), np.ones((3, 2))])]
    [(0, 1), (1, 2)]
    """
    return [(weights, place, place + 1) for place, weights in enumerate(items("layers", layers, "matrices"))]


def _ends(network: Network, forests: Sequence[SpanningForest]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the neurons, numbered group by group, that the edges of the layers' forests join."""
    starts = dict(zip(network.sizes, np.cumsum([0, *network.sizes.values()]), strict=False))
    ends = [(starts[source], starts[target]) for _, source, target in network.connections]
    sources = [forest.rows + start for forest, (start, _) in zip(forests, ends, strict=True)]
    targets = [forest.cols + start for forest, (_, start) in zip(forests, ends, strict=True)]
    return np.concatenate(sources), np.concatenate(targets)


def _merging(sources: NDArray[np.int64], targets: NDArray[np.int64], n_vertices: int) -> NDArray[np.int64]:
    """Return which edges merge two components, taken one after the other."""
    merges = np.zeros(sources.size, np.int64)
    single = np.zeros(1, np.int64)
    join(
        sources,
        targets,
        np.zeros(sources.size, np.int64),
        np.arange(n_vertices + 1),
        np.arange(2),
        single,
        single,
        np.arange(n_vertices),
        np.ones(n_vertices, np.int64),
        n_vertices,
        merges,
    )
    return np.flatnonzero(merges)


def _entered(matrix: NDArray[Any], weights: NDArray[np.float64], ties: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many entries of a matrix are larger in size than each weight, or as large where `ties` is true."""
    counts = np.zeros(weights.size, np.int64)
    step = max(1, _CELLS_SORTED // matrix.shape[1])
    for start in range(0, len(matrix), step):
        values = np.sort(np.abs(matrix[start : start + step].astype(np.float64)), axis=None)
        below = np.where(ties, np.searchsorted(values, weights), np.searchsorted(values, weights, side="right"))
        counts += values.size - below
    return counts
