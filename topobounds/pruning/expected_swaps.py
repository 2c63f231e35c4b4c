"""What T-IMP would swap of a tensor by chance: of the same weights in random order."""

import math
from dataclasses import dataclass

import numpy as np

from topobounds.pruning.prunable import Prunable
from topobounds.pruning.selection import RANKINGS
from topobounds.theory.deviation import known_deviation
from topobounds.theory.overlap import expected_overlap

_KERNEL_UNKNOWN = "what chance would swap is not known for kernels without sampling"
ZEROS_UNKNOWN = "what chance would swap is known for layers without zeros"
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
        return ExpectedSwaps(mean, reason=_SPREAD_UNKNOWN)
    deviation = math.hypot(*(value for value, _ in spreads))
    return ExpectedSwaps(mean, deviation, "limit" if ("limit" in (kind for _, kind in spreads)) else "proved")
