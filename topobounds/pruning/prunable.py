"""A weight tensor that is to be pruned, and which of its weights are kept in any case."""

from dataclasses import dataclass

import numpy as np

from topobounds._types import Array, Mask
from topobounds.layers import LayerTensor
from topobounds.topology.layer_topology import layer_topology
from topobounds.weights import weight_array


@dataclass(frozen=True, eq=False)
class Prunable:
    """A weight tensor that is to be pruned.

    Attributes
    ----------
    weights : ndarray of floats, of any shape
        Finite where they survive.
    survivors : ndarray of bool of that shape
        What earlier rounds have left.
    protected : ndarray of bool of that shape
        Survivors that are kept in any case.
    layers : tuple of LayerTensor
        The layer graphs that the tensor is read as; several where layers share their weights.
    """

    weights: Array
    survivors: Mask
    protected: Mask
    layers: tuple[LayerTensor, ...]

    @classmethod
    def unprotected(cls, weights: Array, survivors: Mask, *layers: LayerTensor) -> "Prunable":
        """Return a tensor of which any weight may go."""
        return cls(weights, survivors, np.zeros(weights.shape, np.bool_), layers)

    @classmethod
    def keeping_topology(cls, weights: Array, survivors: Mask, layer: LayerTensor) -> "Prunable":
        """Return a tensor of which what carries the topology of a layer is kept."""
        critical = layer_topology(layer, weights, survivors).critical
        return cls(weight_array(weights), survivors, critical, (layer,))

    @property
    def n_protected(self) -> int:
        """How many weights are kept in any case."""
        return int(np.count_nonzero(self.protected))

    @property
    def n_survivors(self) -> int:
        """How many weights earlier rounds have left."""
        return int(np.count_nonzero(self.survivors))
