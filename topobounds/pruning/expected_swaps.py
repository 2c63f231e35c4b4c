"""What T-IMP would swap of a tensor by chance: of the same weights in random order."""

import math
from dataclasses import dataclass

import numpy as np

from topobounds._parallel import in_threads
from topobounds._types import Array, Mask
from topobounds.pruning.prunable import Prunable
from topobounds.pruning.selection import RANKINGS
from topobounds.theory.deviation import known_deviation
from topobounds.theory.overlap import expected_overlap
from topobounds.theory.ties import move_that_counts, swaps_by_a_rule
from topobounds.topology.spanning import maximum_spanning_forest

_KERNEL_UNKNOWN = "what chance would swap is not known for kernels without sampling"
ZEROS_UNKNOWN = "what chance would swap is known for layers without zeros"
_CHUNK = 2**20  # weights for one call: they stay in the cache
_TIE_ORDERS = 5  # whose swaps are averaged
_SPREAD_UNKNOWN = "how far these swaps spread by chance is not known"


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


def expected_swaps(
    tensor: Prunable, count: int, swaps: int | None = None, largest: Mask | None = None
) -> ExpectedSwaps:
    """Return what T-IMP would swap by chance of a tensor of which so many weights are left.

    Magnitude pruning to `count` weights leaves k of a graph of m inputs and n outputs, whatever the order of its
    weights, and so loses (m + n - 1) (1 - E X_k) edges of its forest, which are the swaps. So it is where ties come in
    random order too; ranked by their place many ties may give far more swaps, of which chance then says nothing.

    Parameters
    ----------
    tensor : Prunable
        Of one layer; its weights rank it.
    count : int
        Weights that are left, no fewer than are protected.
    swaps : int, optional
        What is swapped of the tensor as it is: with it, nothing is returned where this is due to the order of ties.
    largest : ndarray of bool of the tensor's shape, optional
        The mask of magnitude pruning, where it is known.

    References
    ----------
    docs/theory/why_t_imp.md, "The price".

    Examples
    --------
    >>> from topobounds.layers import LayerTensor
    >>> weights = np.random.default_rng(0).standard_normal((784, 300))
    >>> tensor = Prunable.unprotected(weights, np.ones(weights.shape, np.bool_), LayerTensor("fc", weights.shape))
    >>> found = expected_swaps(tensor, 1083)
    >>> round(found.mean, 1), round(found.deviation, 1)
    (217.0, 9.0)
    """
    (layer,) = tensor.layers
    if layer.shares_weights:
        return ExpectedSwaps(reason=_KERNEL_UNKNOWN)
    if tensor.n_survivors < tensor.weights.size:
        return ExpectedSwaps(reason=ZEROS_UNKNOWN)
    counts = [count]
    if largest is None and (len(layer.parts) > 1 or swaps is not None):
        largest = np.zeros(tensor.weights.shape, np.bool_)
        RANKINGS["magnitude"]([tensor.weights.ravel()], [tensor.survivors.ravel()], count, [largest.ravel()], None)
    if largest is not None and len(layer.parts) > 1:
        counts = [int(np.count_nonzero(part)) for part in layer.split(largest)]
    means, spreads = [], []
    for graph, k in zip(layer.matrix_graphs, counts, strict=True):
        m, n = graph.n_inputs, graph.n_outputs
        overlap, known = expected_overlap(m, n, k), known_deviation(m, n, k)
        means.append((m + n - 1) * (1 - (overlap.lower + overlap.upper) / 2))
        if known is not None:
            spreads.append(((m + n - 1) * known.value, known.status))
    mean = math.fsum(means)
    deviation = math.hypot(*(value for value, _ in spreads)) if len(spreads) == len(means) else None
    if swaps is not None and largest is not None:
        least = move_that_counts(mean, deviation)
        if _ties_may_move(tensor.weights, largest, least):
            graphs = zip(layer.split(tensor.weights), layer.split(largest), strict=True)
            at_random = math.fsum(_swaps_with_ties_at_random(weights, mask) for weights, mask in graphs)
            if abs(at_random - swaps) > least:
                told = swaps_by_a_rule(at_random)
                return ExpectedSwaps(reason=f"{told[0].lower()}{told[1:]}, and {mean:.1f} are expected by chance")
    if deviation is None:
        return ExpectedSwaps(mean, reason=_SPREAD_UNKNOWN)
    return ExpectedSwaps(mean, deviation, "limit" if ("limit" in (kind for _, kind in spreads)) else "proved")


def _ties_may_move(weights: Array, largest: Mask, least: float) -> bool:
    """Whether more than so many of the largest weights may be others if ties at the cut are ranked in another order."""
    flat, kept = weights.ravel(), largest.ravel()
    parts = [slice(start, start + _CHUNK) for start in range(0, flat.size, _CHUNK)]

    def smallest(part: slice) -> tuple[float, int]:
        sizes = _sizes(flat[part][kept[part]])
        size = sizes.min() if sizes.size else np.inf
        return float(size), int(np.count_nonzero(sizes == size))

    found = in_threads(smallest, parts)
    cut = min(size for size, _ in found)
    among_the_largest = sum(ties for size, ties in found if size == cut)
    if among_the_largest <= least:
        return False
    everywhere = sum(in_threads(lambda part: int(np.count_nonzero(_sizes(flat[part]) == cut)), parts))
    return everywhere - among_the_largest > least


def _sizes(weights: Array) -> Array:
    """Return |w|; of integers without a sign, for that of the smallest one with a sign overflows to its bits."""
    sizes: Array = np.abs(weights)
    return sizes.view(f"u{sizes.itemsize}") if sizes.dtype.kind == "i" else sizes


def _swaps_with_ties_at_random(weights: Array, largest: Mask) -> float:
    """Return how many forest edges of a full matrix are not among its largest weights, ties at the cut in random order.

    That is the mean of some orders. The edges that are among them are those of the spanning forest of these alone.
    """
    alpha, magnitudes = sum(weights.shape) - 1, _sizes(weights)
    if not largest.any():
        return float(alpha)
    tied = np.flatnonzero(magnitudes == magnitudes[largest].min())
    above = largest.ravel().copy()
    above[tied] = False
    n_kept = int(np.count_nonzero(largest)) - int(np.count_nonzero(above))
    rng = np.random.default_rng(0)
    swaps = []
    for _ in range(_TIE_ORDERS):
        kept = above.copy()
        kept[rng.choice(tied, n_kept, replace=False)] = True
        swaps.append(alpha - maximum_spanning_forest(weights, kept.reshape(weights.shape)).alpha)
    return float(np.mean(swaps))
