"""From how many weights are asked for to masks: the weights that are protected first, then the best of the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from topobounds._parallel import in_threads
from topobounds._types import Array, FloatArray, Mask
from topobounds.layers import LayerTensor
from topobounds.pruning.effective import path_scores
from topobounds.pruning.methods import METHODS, Method
from topobounds.pruning.selection import RANKINGS
from topobounds.theory.deviation import known_deviation
from topobounds.theory.overlap import expected_overlap

_CHUNK = 2**20  # weights
Infeasible = Literal["raise", "clamp"]


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

    @property
    def n_protected(self) -> int:
        """How many weights are kept in any case."""
        return int(np.count_nonzero(self.protected))

    @property
    def n_survivors(self) -> int:
        """How many weights earlier rounds have left."""
        return int(np.count_nonzero(self.survivors))


@dataclass(frozen=True)
class Request:
    """How many weights are to be left, and the argument that asked for it.

    Attributes
    ----------
    argument : str
        Its name.
    value : object
        As it was given.
    count : int
        The weights that it leaves.
    out_of : int or None
        The survivors, where the value alone does not say of how many weights it is.
    """

    argument: str
    value: object
    count: int
    out_of: int | None = None


def kept_masks(
    group: Sequence[Prunable],
    request: Request,
    method: Method,
    *,
    on_infeasible: str = "raise",
    entropy: tuple[int, int] | None = None,
    out: Sequence[Mask] | None = None,
) -> list[Mask]:
    """Return the masks of tensors that are ranked together.

    Parameters
    ----------
    group : sequence of Prunable
        The tensors; ties go by tensor, then by flat index.
    request : Request
        How many weights are to be left of all together.
    method : Method
        Its ranking decides which of the weights that are not protected are kept.
    on_infeasible : {"raise", "clamp"}
        What to do if fewer weights are to be left than are protected: refuse, or keep exactly those.
    entropy : tuple of int, optional
        Seed of a ranking that is random, which needs it.
    out : sequence of ndarray of bool, optional
        The masks that are returned, whatever they hold: contiguous, of the shape of each tensor.

    Returns
    -------
    list of ndarray of bool
        A mask of the shape of each tensor.

    Raises
    ------
    ValueError
        If fewer weights are to be left than are protected, and `on_infeasible` is ``raise``.

    Examples
    --------
    >>> from topobounds.pruning import METHODS
    >>> weights = np.array([[3.0, 9.0], [5.0, 1.0]])
    >>> protected = np.array([[False, False], [False, True]])
    >>> tensor = Prunable(weights, np.ones((2, 2), np.bool_), protected, ())
    >>> kept_masks([tensor], Request("keep", 2, 2), METHODS["magnitude"])[0].tolist()
    [[False, True], [False, True]]
    """
    n_protected = sum(tensor.n_protected for tensor in group)
    if request.count < n_protected and on_infeasible == "raise":
        raise _too_few(group, n_protected, request)
    masks = [np.empty(tensor.weights.shape, np.bool_) for tensor in group] if out is None else list(out)
    for mask, tensor in zip(masks, group, strict=True):
        np.copyto(mask, tensor.protected)
    kept = [mask.reshape(-1) for mask in masks]
    survivors = [tensor.survivors.ravel() for tensor in group]
    wanted = max(request.count, n_protected) - n_protected
    ranked = path_scores(group) if method.by_paths else [tensor.weights for tensor in group]
    RANKINGS[method.rank]([array.ravel() for array in ranked], survivors, wanted, kept, entropy)
    return masks


def redrawn_mask(tensor: Prunable, mask: Mask, method: Method, entropy: tuple[int, int] | None) -> Mask:
    """Return as many survivors as a mask keeps, chosen by a method that protects none of them."""
    count = int(np.count_nonzero(mask))
    free = replace(tensor, protected=np.zeros(mask.shape, np.bool_))
    return kept_masks([free], Request("keep", count, count), method, entropy=entropy)[0]


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
        (topological,) = kept_masks([tensor], Request("count", count, count), METHODS["t-imp"])
    largest = np.empty(tensor.weights.shape, np.bool_) if room is None else room
    largest.fill(False)
    RANKINGS["magnitude"]([tensor.weights.ravel()], [tensor.survivors.ravel()], count, [largest.reshape(-1)], None)
    given_up, instead = _only_in(largest, topological, tensor.weights), _only_in(topological, largest, tensor.weights)
    lost = math.fsum(np.square(given_up)) - math.fsum(np.square(instead))
    return Exchange(given_up.size, max(0.0, lost))


KERNEL_UNKNOWN = "what chance would swap is not known for kernels without sampling"
ZEROS_UNKNOWN = "what chance would swap is known for layers without zeros"
SPREAD_UNKNOWN = "how far these swaps spread by chance is not known"


@dataclass(frozen=True)
class ExpectedSwaps:
    """What T-IMP would swap of a tensor by chance: the same weights in random order in each of its graphs.

    Attributes
    ----------
    mean : float or None
        The middle of a certified interval.
    deviation : float or None
        Standard deviation.
    deviation_status : {"proved", "limit"} or None
        What that rests on: the weakest of its graphs.
    reason : str or None
        Why one of them is None.
    """

    mean: float | None = None
    deviation: float | None = None
    deviation_status: str | None = None
    reason: str | None = None

    @property
    def status(self) -> str | None:
        """What the mean rests on."""
        return None if self.mean is None else "certified"


def expected_swaps(tensor: Prunable, count: int) -> ExpectedSwaps:
    """Return what T-IMP would swap by chance of a tensor of which so many weights are left.

    Magnitude pruning to `count` weights leaves k of a graph of m inputs and n outputs, whatever the order of its
    weights, and so loses (m + n - 1) (1 - E X_k) edges of its forest, which are the swaps.

    Parameters
    ----------
    tensor : Prunable
        Of one layer; its weights rank it.
    count : int
        Weights that are left, no fewer than are protected.

    References
    ----------
    docs/theory/why_t_imp.md, "The price".

    Examples
    --------
    >>> weights = np.random.default_rng(0).standard_normal((784, 300))
    >>> tensor = Prunable.unprotected(weights, np.ones(weights.shape, np.bool_), LayerTensor("fc", weights.shape))
    >>> found = expected_swaps(tensor, 1083)
    >>> round(found.mean, 1), round(found.deviation, 1)
    (217.0, 9.0)
    """
    (layer,) = tensor.layers
    if layer.shares_weights:
        return ExpectedSwaps(reason=KERNEL_UNKNOWN)
    if tensor.n_survivors < tensor.weights.size:
        return ExpectedSwaps(reason=ZEROS_UNKNOWN)
    counts = [count]
    if len(layer.parts) > 1:
        largest = np.zeros(tensor.weights.shape, np.bool_)
        RANKINGS["magnitude"]([tensor.weights.ravel()], [tensor.survivors.ravel()], count, [largest.ravel()], None)
        counts = [int(np.count_nonzero(part)) for part in layer.split(largest)]
    means, spreads = [], []
    for graph, k in zip(layer.matrix_graphs, counts, strict=True):
        m, n = graph.n_inputs, graph.n_outputs
        overlap, known = expected_overlap(m, n, k), known_deviation(m, n, k)
        means.append((m + n - 1) * (1 - (overlap.lower + overlap.upper) / 2))
        if known is not None:
            spreads.append(((m + n - 1) * known.value, known.status))
    mean = math.fsum(means)
    if len(spreads) < len(means):
        return ExpectedSwaps(mean, reason=SPREAD_UNKNOWN)
    deviation = math.hypot(*(value for value, _ in spreads))
    return ExpectedSwaps(mean, deviation, "limit" if ("limit" in (kind for _, kind in spreads)) else "proved")


def _only_in(mask: Mask, other: Mask, weights: Array) -> FloatArray:
    """Return the weights that one mask keeps and another does not."""
    flat, one, two = weights.ravel(), mask.ravel(), other.ravel()

    def only(start: int) -> FloatArray:
        part = slice(start, start + _CHUNK)
        return flat[part][np.greater(one[part], two[part])].astype(np.float64)

    return np.concatenate(in_threads(only, range(0, flat.size, _CHUNK)))  # chunks stay in the cache


def _too_few(group: Sequence[Prunable], n_protected: int, request: Request) -> ValueError:
    layers = [layer for tensor in group for layer in tensor.layers]
    carriers = {
        frozenset([False]): "the edges of the spanning forest",
        frozenset([True]): "the critical kernel weights",
    }.get(
        frozenset(layer.shares_weights for layer in layers),
        "the edges of the spanning forests and the critical kernel weights",
    )
    n_graphs = sum(len(layer.parts) for layer in layers)
    diagram = "the diagram of the layer" + "s" * (n_graphs > 1)
    out_of = "" if request.out_of is None else f" of {request.out_of}"
    return ValueError(
        f"Argument '{request.argument}' must leave at least alpha = {n_protected} weights, {carriers}, or {diagram} "
        f"would change; {request.value!r} leaves {request.count}{out_of}. on_infeasible='clamp' stops at alpha."
    )
