"""What T-IMP keeps instead of what magnitude pruning keeps: the price of the topology of a tensor."""

import math
from dataclasses import dataclass

import numpy as np

from topobounds._parallel import in_threads
from topobounds._types import Array, FloatArray, Mask
from topobounds.pruning.masks import MaskRequest, kept_masks
from topobounds.pruning.methods import METHODS
from topobounds.pruning.prunable import Prunable
from topobounds.pruning.selection import RANKINGS

_CHUNK = 2**20  # weights


@dataclass(frozen=True)
class Exchange:
    """What T-IMP and magnitude pruning of one tensor to the same count keep instead of one another.

    Attributes
    ----------
    swaps : int
        Weights that one of the two masks keeps and the other does not; those that carry the topology and that
        magnitude loses.
    squared_weight_lost : float
        Sum of the squared weights of magnitude's mask, less that of T-IMP's; at least 0.
    """

    swaps: int
    squared_weight_lost: float


def exchange(
    tensor: Prunable, count: int, topological: Mask | None = None, room: Mask | None = None
) -> Exchange | None:
    """Return the price of keeping the protected weights of a tensor of which so many are left.

    Parameters
    ----------
    tensor : Prunable
        Its protected weights are those that carry its topology.
    count : int
        Weights that are left.
    topological : ndarray of bool of the tensor's shape, optional
        T-IMP's mask of so many, where it is known.
    room : ndarray of bool of the tensor's shape, optional
        Contiguous memory that is overwritten with the mask of magnitude pruning; it may be the tensor's `protected`.

    Returns
    -------
    Exchange or None
        None where fewer are left than are protected, for then T-IMP has no mask.

    Examples
    --------
    >>> weights = np.array([[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]])
    >>> forest = np.array([[True, True, True], [True, False, False]])
    >>> exchange(Prunable(weights, np.ones((2, 3), np.bool_), forest, ()), 4)
    Exchange(swaps=1, squared_weight_lost=35.0)
    """
    if count < tensor.n_protected:
        return None
    if topological is None:
        (topological,) = kept_masks([tensor], MaskRequest("count", count, count), METHODS["t-imp"])
    largest = np.empty(tensor.weights.shape, np.bool_) if room is None else room
    largest.fill(False)
    RANKINGS["magnitude"]([tensor.weights.ravel()], [tensor.survivors.ravel()], count, [largest.reshape(-1)], None)
    given_up, instead = _only_in(largest, topological, tensor.weights), _only_in(topological, largest, tensor.weights)
    lost = math.fsum(np.square(given_up)) - math.fsum(np.square(instead))
    return Exchange(given_up.size, max(0.0, lost))


def _only_in(mask: Mask, other: Mask, weights: Array) -> FloatArray:
    """Return the weights that one mask keeps and another does not."""
    flat, one, two = weights.ravel(), mask.ravel(), other.ravel()

    def only(start: int) -> FloatArray:
        part = slice(start, start + _CHUNK)
        return flat[part][np.greater(one[part], two[part])].astype(np.float64)

    return np.concatenate(in_threads(only, range(0, flat.size, _CHUNK)))  # chunks stay in the cache
