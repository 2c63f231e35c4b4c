"""Ranking the weights of layers in a row by the paths that they lie on."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from topobounds._arguments import argument_error, argument_errors_naming
from topobounds._types import Array, Mask
from topobounds.layers import Conv, LayerTensor

if TYPE_CHECKING:
    from topobounds.pruning.prunable import Prunable


def path_scores(group: "Sequence[Prunable]") -> list[Array]:
    """Return scores that rank the surviving weights of a network by w_eff, ties by |w|.

    The effective weight w_eff of a weight is the largest threshold at which it lies on a path from an input to an
    output all of whose weights reach it; see `topobounds.effective_weights`.

    Parameters
    ----------
    group : sequence of Prunable
        Layers in a row, the first at the input: dense, or convolutions of known geometry.

    Returns
    -------
    list of ndarray of float64 of the shapes of the weights
        Equal where both are equal.

    Raises
    ------
    ValueError
        If they are no layers in a row, naming the first that does not fit.
    """
    from topobounds.topology.effective import effective_weights  # noqa: PLC0415 (others need it not)

    layers = chain_of([tensor.layers[0] for tensor in group])
    alive = [np.where(tensor.survivors, tensor.weights, tensor.weights.dtype.type(0)) for tensor in group]
    arrays = [_oriented(array, layer) for array, layer in zip(alive, layers, strict=True)]
    found = effective_weights(arrays, convs=_geometries(layers)).weights
    sizes = np.concatenate([np.abs(array.astype(np.float64)).ravel() for array in alive])
    effective = np.concatenate(
        [_oriented(part, layer).astype(np.float64).ravel() for part, layer in zip(found, layers, strict=True)]
    )
    order = np.lexsort((sizes, effective))
    rises = (np.diff(effective[order]) > 0) | (np.diff(sizes[order]) > 0)
    scores = np.empty(order.size)
    scores[order] = np.concatenate([[1.0], 1.0 + np.cumsum(rises)])
    ends = np.cumsum([array.size for array in alive])[:-1]
    return [part.reshape(array.shape) for part, array in zip(np.split(scores, ends), alive, strict=True)]


def dead_connections(layers: Sequence[LayerTensor], masks: Sequence[Mask]) -> int:
    """Return how many weights that masks keep lie on no path of kept weights from an input to an output.

    Parameters
    ----------
    layers : sequence of LayerTensor
        Layers in a row, the first at the input.
    masks : sequence of ndarray of bool
        One for each layer, of its shape.

    Raises
    ------
    ValueError
        If they are no layers in a row.

    Examples
    --------
    >>> layers = [LayerTensor("a", (2, 1)), LayerTensor("b", (1, 2))]
    >>> dead_connections(layers, [np.array([[True], [True]]), np.array([[True, False]])])
    1
    """
    from topobounds.topology.effective import effective_weights  # noqa: PLC0415 (others need it not)

    chain = chain_of(layers)
    kept = [_oriented(mask, layer) for mask, layer in zip(masks, chain, strict=True)]
    alive = effective_weights(kept, convs=_geometries(chain)).sizes.sum()
    return sum(int(np.count_nonzero(mask)) for mask in masks) - int(alive)


def chain_of(layers: Sequence[LayerTensor]) -> list[LayerTensor]:
    """Return layers, checked to be in a row: each feeds exactly the neurons that the next one reads.

    Raises
    ------
    ValueError
        Naming the first that is no graph of known neurons, or does not fit the one before.
    """
    for layer in layers:
        with argument_errors_naming(layer.name or None):
            if len(layer.parts) > 1 or layer.kind == "recurrent":
                raise argument_error("method", "another than 'effective' for gates, heads and groups", "effective")
            if layer.geometry is None and (layer.kind == "conv" or len(layer.shape) != 2):
                raise argument_error("method", "another than 'effective' for kernels of unknown geometry", "effective")
    for before, layer in pairwise(layers):
        given, read = before.graph.n_outputs, layer.graph.n_inputs
        if given != read:
            with argument_errors_naming(layer.name or None):
                rule = f"another than 'effective' unless layers are in a row: this reads {read} neurons, not {given}"
                raise argument_error("method", rule, "effective")
    return list(layers)


def _geometries(layers: Sequence[LayerTensor]) -> list[Conv | None]:
    return [layer.geometry if isinstance(layer.geometry, Conv) else None for layer in layers]


def _oriented(array: Array, layer: LayerTensor) -> Array:
    """Return a matrix as inputs by outputs, or such a one as it is stored; a kernel as it is."""
    return array if layer.geometry is not None or layer.inputs_first else array.T
