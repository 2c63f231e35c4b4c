"""The overlap of one layer's largest weights with its spanning forest beside what a random order would give."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from topobounds._arguments import integer
from topobounds._records import Record
from topobounds.chance.measured_layer import NEARLY_FULL, MeasuredKernel, MeasuredLayer
from topobounds.chance.sampling import (
    CONFIDENCE,
    NOT_SAMPLED,
    SAMPLED_WIDTH,
    TRIALS,
    Sample,
    Sampling,
    checked_sampling,
    sample_kernels,
)
from topobounds.layers import Conv
from topobounds.montecarlo import simulate_overlap
from topobounds.theory._rounding import ROUNDING_UNIT
from topobounds.theory.deviation import Deviation, known_deviation
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap
from topobounds.theory.ties import TIES_DECIDE, tie_counts
from topobounds.topology.key_matrix import keys_of
from topobounds.topology.moments import weight_moments

if TYPE_CHECKING:
    from topobounds.topology.convolution import CriticalWeights

_CELLS_AT_A_TIME = 2**21
_TIE_ORDERS = 5  # whose overlaps are averaged: one alone may differ from another by a deviation


@dataclass(frozen=True)
class OverlapNull(Record):
    """The overlap of a layer's k largest weights with its forest, and its law if its weights came in random order.

    Attributes
    ----------
    expected : Enclosure or None
        An interval around the expected overlap. Certified, it contains it; sampled, it is the mean of the trials with
        3 standard errors on either side.
    deviation : float or None
        Standard deviation of the overlap under the null.
    measured : float
        The layer's own overlap; 1 for a layer of zeros.
    z : float or None
        ``(measured - expected) / deviation`` at the middle of the interval; None where the deviation is 0, or where the
        rule that ranks tied weights moves `measured` by more than it, as with weights of few magnitudes.
    status : str or None
        ``"certified"`` or ``"sampled"``: of `expected`.
    deviation_status : str or None
        ``"proved"``, ``"limit"`` or ``"sampled"``: of `deviation`.
    standard_error : float or None
        Of a sampled mean.
    uniform_support : Enclosure or None
        Beside the null of a layer with zeros, another: on uniformly random supports of as many cells, the expected
        edges among the k largest over the expected edges of the forest (a ratio of means, both certified). It answers
        another question and is not what `z` is about.
    k : int or None
        Weights kept; None where each order of a kernel has its own number of critical weights.
    shape : tuple of int
        Rows m and columns n; input and output neurons of a convolution.
    weights : int
        Weights that are not zero.
    alpha : int
        Edges of the spanning forest.
    trials, seed : int or None
        Of the sampling, where there was any.
    reason : str or None
        Why a number is missing.
    """

    expected: Enclosure | None
    deviation: float | None
    measured: float
    z: float | None
    status: str | None
    deviation_status: str | None
    standard_error: float | None
    uniform_support: Enclosure | None
    k: int | None
    shape: tuple[int, int]
    weights: int
    alpha: int
    trials: int | None
    seed: int | None
    reason: str | None


def overlap_null(
    weights: ArrayLike,
    k: int | None = None,
    *,
    mask: ArrayLike | None = None,
    conv: Conv | None = None,
    trials: int = TRIALS,
    seed: int | None = None,
) -> OverlapNull:
    """Return a layer's overlap beside what a random order of its weights would give.

    The null hypothesis: the weights come in uniformly random order on the layer's own support. On a full layer the
    mean is certified; the deviation is that of `overlap_deviation`, exact or a limit, and simulated where neither is
    good. A few zeros, as in numbers of few bits, on a connected support leave the mean certified. With more zeros or a
    mask, and for a convolution kernel, both are sampled.

    Parameters
    ----------
    weights : array_like of shape (m, n), or ``conv.weight_shape``
        The layer, as in `maximum_spanning_forest`. Zeros are no edges.
    k : int, optional
        Weights kept, from 0 to m n (of a kernel, to all its weights). By default alpha of the support; of a kernel
        the number of its critical weights, in each order anew.
    mask : array_like of bool of the shape of `weights`, optional
        The support: a weight that is False is none.
    conv : Conv, optional
        The geometry of a kernel. Its overlap is the share of its critical weights that are among its k largest.
    trials : int
        Random orders drawn where there is sampling, at least 2.
    seed : int, optional
        From 0 to 2^64 - 1. None draws one; the result records it. The numbers do not depend on the threads.

    Returns
    -------
    OverlapNull
        Of a layer of zeros, or an empty mask, there is no null, and the reason says so.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest` or `critical_kernel_weights`; or if an argument is out of range.

    Notes
    -----
    docs/theory/persistence_null.md, "Which null for which layer".

    Examples
    --------
    >>> scales = np.exp(np.random.default_rng(0).standard_normal((784, 1)))
    >>> null = overlap_null(scales * np.random.default_rng(1).standard_normal((784, 300)))
    >>> round(null.expected.lower, 3), round(null.measured, 3), null.z < -20, null.deviation_status
    (0.8, 0.319, True, 'limit')
    """
    sampling = checked_sampling(trials, seed)
    if conv is not None:
        kernel = MeasuredKernel.of(weights, conv, mask)
        return kernel_overlap_null(kernel, None if k is None else integer("k", k, 0, kernel.kernel.size), sampling)
    layer = MeasuredLayer.of(weights, mask, n_nonzero=weight_moments(weights).nonzero if mask is None else None)
    m, n = layer.shape
    return layer_overlap_null(layer, layer.forest.alpha if k is None else integer("k", k, 0, m * n), sampling)


def layer_overlap_null(layer: MeasuredLayer, k: int, sampling: Sampling | None) -> OverlapNull:
    """Return the `overlap_null` of a layer that has been read; without sampling, what is known without it."""
    if not layer.forest.alpha:
        return _without_null(layer.shape, k, "The layer has no weight other than zero, so nothing can be permuted.")
    null = _of_full_layer(layer, k, sampling) if _is_nearly_full(layer, k) else _of_support(layer, k, sampling)
    return null if null.z is None else _judged_by_ties(null, layer, k, sampling.seed if sampling else 0)


def kernel_overlap_null(kernel: MeasuredKernel, k: int | None, sampling: Sampling | None) -> OverlapNull:
    """Return the `overlap_null` of a kernel that has been read; without sampling, what is known without it."""
    critical = kernel.critical
    if not critical.alpha:
        reason = "The kernel has no weight other than zero that makes an edge, so nothing can be permuted."
        return _without_null(critical.shape, k, reason)

    def overlap(ranks: NDArray[np.int64], _merges: NDArray[np.int64]) -> float:
        return float(np.mean(ranks <= (ranks.size if k is None else k)))

    null = _of_sample(
        sample_kernels(kernel.conv, kernel.present, overlap, *sampling) if sampling else None,
        measured=overlap(critical.ranks[: critical.n_critical], critical.merges),
        uniform_support=None,
        k=k,
        size=(critical.shape, int(np.count_nonzero(kernel.present)), critical.alpha),
    )
    if null.z is None or sampling is None or not _kernel_may_turn_on_ties(critical, k, cast(float, null.deviation)):
        return null
    orders = [kernel.with_ties_at_random(seed) for seed in np.random.SeedSequence(sampling.seed).spawn(_TIE_ORDERS)]
    at_random = np.mean([overlap(each.ranks[: each.n_critical], each.merges) for each in orders])
    if abs(at_random - null.measured) <= cast(float, null.deviation):
        return null
    return _without_z_of_a_rule(null, float(at_random))


def overlap_range(weights: ArrayLike, k: int | None = None, *, mask: ArrayLike | None = None) -> Enclosure:
    """Return the overlaps that one layer can have, in whatever order its tied weights are ranked.

    Weights that tie at the cut make the overlap a matter of the rule that ranks them (here the flat index, so that a
    transpose may have another overlap). With k0 weights above the k-th largest, k1 at least as large, and R_j the
    forest edges among the j largest, which is the same under every rule at j = k0 and at j = k1, ::

        max(R_k0, R_k1 - (k1 - k)) <= R_k <= min(R_k1, R_k0 + (k - k0))

    Parameters
    ----------
    weights : array_like of shape (m, n)
        The layer, as in `maximum_spanning_forest`. Zeros are no edges.
    k : int, optional
        Weights kept, from 0 to m n; alpha of the layer if left out.
    mask : array_like of bool, shape (m, n), optional
        The support: a weight that is False is none.

    Returns
    -------
    Enclosure
        Of R_k / alpha. The upper end is the overlap under some rule; the lower one may be lower than under any. Without
        a tie at the cut both are the overlap; 1 for a layer of zeros.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest`, or if `k` is out of range.

    Notes
    -----
    docs/theory/overlap.md, "Ties".

    Examples
    --------
    >>> found = overlap_range([[3.0, 2.0, 2.0], [2.0, 2.0, 1.0]], 4)
    >>> found.lower, found.upper
    (0.75, 1.0)
    """
    layer = MeasuredLayer.of(weights, mask)
    alpha = layer.forest.alpha
    kept = alpha if k is None else integer("k", k, 0, layer.matrix.size)
    if not 0 < kept < layer.n_weights:
        overlap = layer.forest.overlap(kept)
        return Enclosure(overlap, overlap)
    above, at_least = tie_counts(np.abs(np.asarray(layer.matrix)[layer.present].astype(np.float64)), kept)
    before, after = np.searchsorted(layer.forest.ranks[:alpha], [above, at_least], side="right").tolist()
    least = max(before, after - (at_least - kept))
    most = min(after, before + kept - above)
    return Enclosure(least / alpha, most / alpha)


def _judged_by_ties(null: OverlapNull, layer: MeasuredLayer, k: int, seed: int) -> OverlapNull:
    """Return a null, without its z where that would tell by which rule weights that tie at the cut are ranked."""
    at_random = overlap_if_ties_decide(layer, k, cast(float, null.deviation), seed)
    return null if at_random is None else _without_z_of_a_rule(null, at_random)


def overlap_if_ties_decide(layer: MeasuredLayer, k: int, deviation: float, seed: int) -> float | None:
    """Return the overlap with the weights that tie at the cut in random orders, if it is another than by their place.

    Another is one whose mean differs by more than `deviation`. None, if it is not.
    """
    if not _may_turn_on_ties(layer, k, deviation):
        return None
    at_random = _overlap_with_ties_at_random(layer, k, seed)
    return at_random if abs(at_random - layer.forest.overlap(k)) > deviation else None


def _without_z_of_a_rule(null: OverlapNull, at_random: float) -> OverlapNull:
    """Return a null without its z, and with what the overlap is where ties are ranked at random."""
    told = f"{TIES_DECIDE}, the overlap is {at_random:.4f}."
    return replace(null, z=None, reason=f"{told} So there is no z.")


def _may_turn_on_ties(layer: MeasuredLayer, k: int, deviation: float) -> bool:
    """Whether it may move the overlap by a deviation that the weights that tie at the cut are ranked by their place.

    Those of them that are kept, a share f of t, then lie in the first rows, so that more of them meet in one row, where
    the second joins nothing more. That is estimated, from above, by the forest's edges among them, t / 2m, and
    f (1 - f); on a support whose rows may differ, by these edges alone.
    """
    alpha = layer.forest.alpha
    most = _most_tied_at(np.abs(layer.forest.weights), layer.forest.ranks, k)  # edges that tie at the cut
    if not 0 < k < layer.n_weights or most <= deviation * alpha:
        return False
    if not layer.may_be_nearly_full:
        return True
    if k >= layer.largest.size or layer.largest[-1] == layer.largest[k - 1]:  # and perhaps more
        return True
    above, at_least = tie_counts(layer.largest, k)
    share = (k - above) / (at_least - above)
    needed_twice = min(1.0, (at_least - above) / (2 * min(layer.shape)))
    return bool(most * needed_twice * share * (1 - share) > deviation * alpha)


def _kernel_may_turn_on_ties(critical: "CriticalWeights", k: int | None, deviation: float) -> bool:
    """Whether more critical weights tie at the cut than make a deviation."""
    n_critical = critical.n_critical
    magnitudes, ranks = critical.weights[:n_critical], critical.ranks[:n_critical]
    return bool(_most_tied_at(magnitudes, ranks, n_critical if k is None else k) > deviation * n_critical)


def _most_tied_at(magnitudes: NDArray[Any], ranks: NDArray[np.int64], k: int) -> int:
    """Return how many of some falling magnitudes tie with the last of rank k or above, or with the next one."""
    kept = int(np.searchsorted(ranks, k, side="right"))
    around = magnitudes[max(kept - 1, 0)], magnitudes[min(kept, magnitudes.size - 1)]
    return max(int(np.count_nonzero(magnitudes == each)) for each in around)


def _overlap_with_ties_at_random(layer: MeasuredLayer, k: int, seed: int) -> float:
    """Return the mean overlap with the weights that tie at the cut in some random orders.

    The weights are read anew, twice: how many tie at the cut is known only then.
    """
    magnitudes = layer.largest if k <= layer.largest.size else layer.magnitudes
    n_above = int(np.searchsorted(-magnitudes, -magnitudes[k - 1]))
    keys = keys_of(layer.matrix, layer.support, zero_edges=False)
    cut = keys.key_of(magnitudes[k - 1])
    step = max(_CELLS_AT_A_TIME // keys.width, 1)

    def of_lines(start: int) -> NDArray[Any]:
        tile, mask, _ = keys.wide_tile(slice(start, min(start + step, keys.n_lines)))
        return np.asarray(tile & mask)

    starts = range(0, keys.n_lines, step)
    ends = np.cumsum([np.count_nonzero(of_lines(start) == cut) for start in starts])
    rng = np.random.default_rng(seed)
    orders = [np.sort(rng.choice(int(ends[-1]), k - n_above, replace=False)) for _ in range(_TIE_ORDERS)]
    above: list[NDArray[np.int64]] = []
    kept: list[list[NDArray[np.int64]]] = [[] for _ in orders]
    for start, end in zip(starts, ends, strict=True):
        found = of_lines(start)
        above.append(start * keys.width + np.flatnonzero(found > cut))
        tied = np.flatnonzero(found == cut)
        for chosen, cells in zip(orders, kept, strict=True):
            here = chosen[(chosen >= end - tied.size) & (chosen < end)] - (end - tied.size)
            cells.append(start * keys.width + tied[here])
    n_edges = [_forest_edges(np.concatenate([*above, *cells]), keys.n_lines, keys.width) for cells in kept]
    return float(np.mean(n_edges) / layer.forest.alpha)


def _forest_edges(cells: NDArray[np.int64], n_lines: int, width: int) -> int:
    """Return how many edges the spanning forest of some cells has."""
    lines, entries = np.divmod(cells, width)
    n_vertices = n_lines + width
    edges = np.ones(cells.size, np.bool_), (lines, n_lines + entries)
    graph = coo_array(edges, shape=(n_vertices, n_vertices))
    return int(n_vertices - connected_components(graph, directed=False, return_labels=False))


def _is_nearly_full(layer: MeasuredLayer, k: int) -> bool:
    """Whether few cells are absent, or the interval around the expected overlap is no wider than that of a sample."""
    if not layer.may_be_nearly_full:
        return False
    shift = layer.shift_at(k)
    if shift <= NEARLY_FULL:
        return True
    deviation = known_deviation(*layer.shape, min(k, layer.n_weights))
    return deviation is not None and shift <= SAMPLED_WIDTH * deviation.value * layer.forest.alpha


def _of_full_layer(layer: MeasuredLayer, k: int, sampling: Sampling | None) -> OverlapNull:
    """Return the null of a layer without absent weights, or with so few that an interval holds its expectation."""
    m, n = layer.shape
    kept = min(k, layer.n_weights)
    deviation = known_deviation(m, n, kept)
    if layer.n_absent and deviation and deviation.value and deviation.status == "proved":
        deviation = None  # what is proved is proved of the full layer, not of this one
    known = deviation is not None
    if deviation is None and sampling is not None:
        support = layer.present if layer.n_absent else "uniform"
        estimate = simulate_overlap(m, n, kept, support=support, trials=sampling.trials, seed=sampling.seed)
        deviation = Deviation(estimate.standard_deviation, "sampled")
    return _null(
        _on_nearly_full_support(layer, k),
        deviation,
        None,
        measured=layer.forest.overlap(k),
        status="certified",
        uniform_support=None,
        k=k,
        size=(layer.shape, layer.n_weights, m + n - 1),
        sampling=None if known else sampling,
    )


def _on_nearly_full_support(layer: MeasuredLayer, k: int) -> Enclosure:
    """Return an interval around the expected overlap; d absent cells shift it by at most d / `n_weights` of it."""
    full = expected_overlap(*layer.shape, min(k, layer.n_weights))
    if not layer.n_absent:
        return full
    share = layer.n_absent / layer.n_weights + 4 * ROUNDING_UNIT
    return Enclosure(full.lower * (1 - share), min(1.0, full.upper * (1 + share)))


def _of_support(layer: MeasuredLayer, k: int, sampling: Sampling | None) -> OverlapNull:
    alpha = layer.forest.alpha

    def overlap(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.mean(ranks <= k, axis=1))

    return _of_sample(
        layer.sample(overlap, sampling) if sampling else None,
        measured=layer.forest.overlap(k),
        uniform_support=_on_uniform_support(layer.shape, k, layer.n_weights),
        k=k,
        size=(layer.shape, layer.n_weights, alpha),
    )


def _on_uniform_support(shape: tuple[int, int], k: int, cells: int) -> Enclosure:
    """Return E[R_k] / E[R_cells], the cells of a uniformly random support being the first of a random order of all."""
    largest = expected_overlap(*shape, min(k, cells))
    every = expected_overlap(*shape, cells)
    lower = math.nextafter(largest.lower / every.upper, 0.0)
    return Enclosure(lower, min(1.0, math.nextafter(largest.upper / every.lower, 2.0)))


def _of_sample(
    sample: Sample | None,
    *,
    measured: float,
    uniform_support: Enclosure | None,
    k: int | None,
    size: tuple[tuple[int, int], int, int],
) -> OverlapNull:
    expected = None
    if sample is not None:
        error = CONFIDENCE * sample.standard_error
        expected = Enclosure(max(0.0, sample.mean - error), min(1.0, sample.mean + error))
    return _null(
        expected,
        Deviation(sample.deviation, "sampled") if sample else None,
        sample.standard_error if sample else None,
        measured=measured,
        status="sampled" if sample else None,
        uniform_support=uniform_support,
        k=k,
        size=size,
        sampling=Sampling(sample.values.size, sample.seed) if sample else None,
    )


def _null(
    expected: Enclosure | None,
    deviation: Deviation | None,
    standard_error: float | None,
    *,
    measured: float,
    status: str | None,
    uniform_support: Enclosure | None,
    k: int | None,
    size: tuple[tuple[int, int], int, int],
    sampling: Sampling | None,
) -> OverlapNull:
    reason = None
    z = None
    if deviation is None or expected is None:
        reason = NOT_SAMPLED
    elif not deviation.value:
        reason = "Every order that was seen gives the same overlap, so there is no z."
    else:
        z = (measured - (expected.lower + expected.upper) / 2) / deviation.value
    shape, weights, alpha = size
    return OverlapNull(
        expected=expected,
        deviation=deviation.value if deviation else None,
        measured=measured,
        z=z,
        status=status,
        deviation_status=deviation.status if deviation else None,
        standard_error=standard_error,
        uniform_support=uniform_support,
        k=k,
        shape=shape,
        weights=weights,
        alpha=alpha,
        trials=sampling.trials if sampling else None,
        seed=sampling.seed if sampling else None,
        reason=reason,
    )


def _without_null(shape: tuple[int, int], k: int | None, reason: str) -> OverlapNull:
    return OverlapNull(
        expected=None,
        deviation=None,
        measured=1.0,
        z=None,
        status=None,
        deviation_status=None,
        standard_error=None,
        uniform_support=None,
        k=k,
        shape=shape,
        weights=0,
        alpha=0,
        trials=None,
        seed=None,
        reason=reason,
    )
