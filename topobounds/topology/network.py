"""The whole network as one graph: layers that share their neurons, and the forest that spans them all."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, choice, items
from topobounds._kernels.tied_graph import join
from topobounds._types import Cells, Zeros
from topobounds.layers import Dense, Network
from topobounds.topology.deficit import Deficit
from topobounds.topology.forest import RankedForest
from topobounds.topology.key_matrix import KeyMatrix
from topobounds.topology.persistence import PersistenceDiagram
from topobounds.topology.spanning import keys_and_forest_edges
from topobounds.topology.spanning_engine import ranks_of
from topobounds.weights import weight_matrix

Connection = tuple[ArrayLike, Hashable, Hashable]
_AFTER_ALL_CELLS = np.uint64(2**64 - 1)  # as the cell of a bound: no cell of its key comes after it


@dataclass(frozen=True, eq=False, repr=False)
class NetworkForest(RankedForest):
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
    ranks : ndarray of int64, one entry per edge
        Position of each edge among all weights of the network in the total order, from 1, ascending.
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
    ranks: NDArray[np.int64]
    zeros: Zeros
    alpha: int
    n_components: int

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

    @property
    def diagram(self) -> PersistenceDiagram:
        """The network's persistence diagram: a point (1, |w| / w_max) for every edge.

        ``edges`` holds the two neurons of each edge, numbered group by group as in ``network.sizes``; ``shape`` counts
        the neurons that no layer feeds, and those that one does.
        """
        sources, targets = _ends(self.network, self.layers, self.rows, self.cols)
        n_inputs = int(np.count_nonzero(~_is_fed(self.network)))
        return PersistenceDiagram(
            births=np.ones(self.weights.size),
            deaths=self.deaths,
            edges=np.stack([sources, targets], axis=1),
            n_essential=self.n_components,
            shape=(n_inputs, self.network.n_vertices - n_inputs),
            alpha=self.alpha,
            w_max=self.w_max,
            backend="kruskal",
        )

    @property
    def _n_carriers(self) -> int:
        return self.alpha

    @property
    def _n_stored(self) -> int:
        return self.network.n_weights

    def _deficit_of_first(self, n_carriers: int) -> Deficit:
        """Return the deficit, each neuron counted once: as an output if any layer feeds it, else as an input.

        A hidden neuron that is silent has lost all weights that feed it and all that it feeds; it was the output of a
        layer first. The edge from a neuron to itself joins nothing, and leaves it silent.
        """
        first = slice(n_carriers)
        sources, targets = _ends(self.network, self.layers[first], self.rows[first], self.cols[first])
        silent = np.ones(self.network.n_vertices, np.bool_)
        silent[sources] = False
        silent[targets] = False
        fed = _is_fed(self.network)
        silent_inputs = int(np.count_nonzero(silent & ~fed))
        silent_outputs = int(np.count_nonzero(silent & fed))
        return Deficit(silent_inputs, silent_outputs, silent.size - n_carriers - silent_inputs - silent_outputs)

    def __repr__(self) -> str:
        return (
            f"NetworkForest(layers={len(self.network.connections)}, neurons={self.network.n_vertices}, "
            f"alpha={self.alpha}, n_components={self.n_components}, zeros={self.zeros!r})"
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
    layer_keys, layer_forests = zip(*(keys_and_forest_edges(matrix, None, zeros) for matrix in matrices), strict=True)
    layers = np.repeat(np.arange(len(matrices)), [edges.cells.size for edges in layer_forests])
    cells = np.concatenate([edges.cells for edges in layer_forests])
    weights = np.concatenate(
        [keys.magnitudes(edges.keys).astype(np.float64) for keys, edges in zip(layer_keys, layer_forests, strict=True)]
    )
    order = np.lexsort((layers, -weights))  # stable, and a layer's forest is in order already
    rows, cols = (cells >> np.uint64(32)).astype(np.int64), (cells & np.uint64(2**32 - 1)).astype(np.int64)
    sources, targets = _ends(network, layers, rows, cols)
    taken = order[_merging(sources[order], targets[order], network.n_vertices)]
    return NetworkForest(
        network=network,
        layers=layers[taken],
        rows=rows[taken],
        cols=cols[taken],
        weights=weights[taken],
        ranks=_ranks(layer_keys, [matrix.dtype for matrix in matrices], layers[taken], cells[taken], weights[taken]),
        zeros=zeros,
        alpha=int(np.count_nonzero(weights[taken])),
        n_components=network.n_vertices - taken.size,
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


def _group_starts(network: Network) -> dict[Hashable, int]:
    """Return the number of the first neuron of each group, neurons being numbered group by group."""
    return dict(zip(network.sizes, np.cumsum([0, *network.sizes.values()]).tolist(), strict=False))


def _ends(
    network: Network, layers: NDArray[np.int64], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the neurons, numbered group by group, that edges join: that of the row and that of the column."""
    starts = _group_starts(network)
    first_source = np.array([starts[source] for _, source, _ in network.connections])
    first_target = np.array([starts[target] for _, _, target in network.connections])
    return first_source[layers] + rows, first_target[layers] + cols


def _is_fed(network: Network) -> NDArray[np.bool_]:
    """Return, for each neuron, whether it is the output of a layer."""
    fed_groups = {target for _, _, target in network.connections}
    return np.repeat([group in fed_groups for group in network.sizes], list(network.sizes.values()))


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


def _ranks(
    layer_keys: Sequence[KeyMatrix],
    dtypes: Sequence[np.dtype[Any]],
    layers: NDArray[np.int64],
    cells: Cells,
    weights: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return the rank of each edge among all weights of the network: one pass over each layer.

    In a layer that an edge is not of, the weights before it are those that reach a bound: at least its |w| in earlier
    layers, more than that in later ones, for ties go by layer.
    """
    ranks = np.ones(layers.size, np.int64)
    if not layers.size:
        return ranks
    for layer, (keys, dtype) in enumerate(zip(layer_keys, dtypes, strict=True)):
        bounds = keys.first_reaching(weights, layers < layer, dtype)
        ranks += ranks_of(keys, bounds, np.where(layers == layer, cells, _AFTER_ALL_CELLS)) - 1
    return ranks
