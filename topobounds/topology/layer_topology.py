"""The topology of a stored weight tensor: the spanning forests of the layer graphs that it is read as."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from topobounds._arguments import argument_error
from topobounds._types import Array, FloatArray, Mask
from topobounds.layers import Conv, Dense, LayerTensor, Recurrent, SingleTensorLayer
from topobounds.topology.deficit import Deficit
from topobounds.topology.persistence import PersistenceDiagram, total_neural_persistence
from topobounds.topology.spanning import SpanningForest, forest_and_largest
from topobounds.weights import check_finite

if TYPE_CHECKING:
    from topobounds.topology.convolution import CriticalWeights

    Forest: TypeAlias = SpanningForest | CriticalWeights


def _forest_of_matrix(
    weights: Array, graph: SingleTensorLayer, support: Mask | None, n_largest: int
) -> tuple[SpanningForest, FloatArray | None]:
    return forest_and_largest(weights, support, n_largest=n_largest)


def _forest_of_kernel(
    weights: Array, graph: SingleTensorLayer, support: Mask | None, n_largest: int
) -> "tuple[CriticalWeights, None]":
    from topobounds.topology.convolution import critical_kernel_weights  # noqa: PLC0415 (loads numba)

    return critical_kernel_weights(weights, cast(Conv, graph), support), None


FORESTS: "dict[type[Any], Callable[[Array, SingleTensorLayer, Mask | None, int], tuple[Forest, FloatArray | None]]]" = {
    Dense: _forest_of_matrix,
    Recurrent: _forest_of_matrix,
    Conv: _forest_of_kernel,
}
"""For each shape of a layer graph the forest it has, and what `Topology.largest` is to be."""


def _carriers(forest: "Forest") -> Mask:
    """Return the mask of the stored weights that carry a forest."""
    if not isinstance(forest, SpanningForest):
        return forest.mask
    mask = np.zeros(forest.shape, np.bool_)
    mask[forest.rows, forest.cols] = True
    return mask


@dataclass(frozen=True, eq=False)
class Topology:
    """The topology of a stored weight tensor.

    Attributes
    ----------
    forests : tuple of SpanningForest or CriticalWeights
        One for each graph of the tensor.
    sizes : tuple of int
        How many weights carry each of these forests.
    largest : ndarray of float64, or None
        The largest |w| of a matrix, falling, if they were asked for and became known with the forest.
    """

    forests: "tuple[Forest, ...]"
    sizes: tuple[int, ...]
    _join: Callable[[Sequence[Mask]], Mask]
    largest: FloatArray | None = None

    @cached_property
    def critical(self) -> Mask:
        """The weights that carry it, of the tensor's shape: edges of the spanning forests, or critical kernel weights.

        Made when it is asked for, since it takes a byte for every weight.
        """
        return self._join([_carriers(forest) for forest in self.forests])

    @cached_property
    def diagrams(self) -> list[PersistenceDiagram]:
        """The persistence diagram of each graph."""
        return [forest.diagram for forest in self.forests]

    @property
    def n_critical(self) -> int:
        """Number of critical weights: alpha where the layer is dense; fewer for a kernel, whose weights share edges."""
        return sum(self.sizes)

    @property
    def alpha(self) -> int:
        """Edges of the forests of the graphs, summed."""
        return sum(forest.alpha for forest in self.forests)

    @property
    def n_components(self) -> int:
        """Connected components of the graphs, neurons without an edge counted, summed."""
        return sum(forest.n_components for forest in self.forests)

    def deficit(self, *, inputs_first: bool) -> Deficit:
        """Return the silent neurons and the fragments of the graphs of as many largest weights as are critical.

        Parameters
        ----------
        inputs_first : bool
            Whether the rows of a matrix are the inputs of the layer; of a kernel its geometry tells.

        Returns
        -------
        Deficit
            Summed over the graphs of the tensor, each with its own number of critical weights.
        """
        deficits = [forest.deficit() for forest in self.forests]
        first, second = (sum(getattr(d, f"silent_{side}") for d in deficits) for side in ("inputs", "outputs"))
        matrices = all(isinstance(forest, SpanningForest) for forest in self.forests)
        inputs, outputs = (second, first) if matrices and not inputs_first else (first, second)
        return Deficit(inputs, outputs, sum(deficit.fragments for deficit in deficits))

    @property
    def neural_persistence(self) -> float:
        """Normalised, convention ``balwani``, p = 2; summed over the graphs of the tensor."""
        return total_neural_persistence(self.diagrams, normalized=True)

    @property
    def overlap(self) -> float:
        """Share of the critical weights that are among the equally many largest weights of their graphs.

        For a dense layer the paper's X. 1.0 where there is none.
        """
        if len(self.forests) == 1:
            return self.forests[0].overlap()
        if not self.n_critical:
            return 1.0
        held = sum(round(forest.overlap() * size) for forest, size in zip(self.forests, self.sizes, strict=True))
        return held / self.n_critical

    def is_kept_by(self, other: "Topology") -> bool:
        """Return whether another topology of the same tensor has the same diagrams, bit for bit."""
        return all(map(_are_equal, self.diagrams, other.diagrams))

    def share_in(self, mask: Mask) -> float:
        """Return the share of the critical weights that a mask keeps; 1.0 where there is none."""
        n_critical = self.n_critical
        return int(np.count_nonzero(self.critical & mask)) / n_critical if n_critical else 1.0


def graph_topology(
    graph: SingleTensorLayer, weights: Array, mask: Mask | None = None, *, n_largest: int = 0
) -> Topology:
    """Return the topology of the weights of one layer graph under a mask.

    Parameters
    ----------
    graph : Dense, Recurrent or Conv
        The shape of the layer.
    weights : ndarray
        A matrix, of either orientation, or the kernel of the convolution.
    mask : ndarray of bool of the shape of `weights`, optional
        The weights that are there; all by default.
    n_largest : int
        How many of the largest |w| of a matrix are asked for, about.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest` and `critical_kernel_weights`.

    Examples
    --------
    >>> graph_topology(Dense(2, 2), np.array([[3.0, 2.0], [2.5, 1.0]])).critical.tolist()
    [[True, True], [True, False]]
    """
    forest, largest = FORESTS[type(graph)](weights, graph, mask, n_largest)
    size = forest.alpha if isinstance(forest, SpanningForest) else forest.n_critical
    return Topology((forest,), (size,), itemgetter(0), largest)


def layer_topology(layer: LayerTensor, weights: Array, mask: Mask | None = None) -> Topology:
    """Return the topology of a stored weight tensor under a mask.

    Parameters
    ----------
    layer : LayerTensor
        What graphs it holds.
    weights : ndarray of the tensor's shape
        Finite where the mask is True.
    mask : ndarray of bool of the tensor's shape, optional
        The weights that are there; all by default.

    Returns
    -------
    Topology
        The forest of each part, and the weights that carry them.

    Raises
    ------
    ValueError
        If there is no weight, or one that is there is NaN or infinite.

    Examples
    --------
    >>> topology = layer_topology(LayerTensor("a", (3, 2)), np.array([[3.0, 2.0], [2.5, 1.0], [0.5, 0.1]]))
    >>> topology.n_critical, topology.overlap
    (4, 0.75)
    """
    shape = weights.shape
    if weights.size == 0:
        raise argument_error("weights", "an array with at least one entry", shape)
    if len(layer.parts) > 1:  # else the message would tell where in its part a bad entry is
        check_finite(weights.reshape(len(weights), -1), None if mask is None else mask.reshape(len(mask), -1), shape)
    layer = replace(layer, shape=shape)
    supports = [None] * len(layer.parts) if mask is None else layer.split(mask)
    parts = []
    for graph, part, support in zip(layer.matrix_graphs, layer.split(weights), supports, strict=True):
        whole = support is None or bool(support.all())  # without a support the weights are read faster
        parts.append(_part_topology(layer, graph, part, None if whole else support))
    return Topology(
        forests=tuple(forest for part in parts for forest in part.forests),
        sizes=tuple(size for part in parts for size in part.sizes),
        _join=layer.join,
    )


def _part_topology(layer: LayerTensor, graph: SingleTensorLayer, weights: Array, support: Mask | None) -> Topology:
    """Return the topology of one part; a kernel without geometry is read as a matrix."""
    if layer.geometry is None:
        weights = weights.reshape(len(weights), -1)
        support = None if support is None else support.reshape(weights.shape)
    return graph_topology(graph, weights, support)


def _are_equal(one: PersistenceDiagram, other: PersistenceDiagram) -> bool:
    return (
        np.array_equal(one.deaths, other.deaths) and one.n_essential == other.n_essential and one.w_max == other.w_max
    )
