"""The neural persistence of one layer beside what its values alone would give, in random order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import real
from topobounds._records import Record
from topobounds.chance.magnitudes import BINNED_CELLS, BinnedMagnitudes
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
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.persistence import (
    LARGEST_ORDER,
    expected_persistence,
    extreme_ranks,
    persistence_deviation,
    persistence_sum,
    persistences,
)
from topobounds.weights import weight_matrix

_RANGE_IN_REPORT = 2**20  # weights of a layer up to which a report reads the range off them
_ROUNDING = 2.0**-46  # of a sum of as many persistences as a forest has, in parts of it, with room to spare


@dataclass(frozen=True)
class PersistenceNull(Record):
    """The neural persistence of a layer, and its law if the layer's values lay on its support in random order.

    All numbers but `norm` and `share` are those of NP^p, not normalised.

    Attributes
    ----------
    expected : Enclosure or None
        An interval around E[NP^p | values]. Certified, it contains it; sampled, it is the mean of the trials with 3
        standard errors on either side.
    norm : float or None
        ``(expected / (alpha - 1))^(1/p)``, at the middle of the interval: what stands beside the normalised NP; 0
        where alpha is 1.
    deviation : float or None
        Standard deviation of NP^p under the null.
    measured : float
        The layer's own NP^p; 0 for a layer of zeros.
    z : float or None
        ``(measured - expected) / deviation``; None where the deviation is 0, for then nothing was left to chance.
    share : float or None
        ``(expected / measured)^(1/p)``: the share of NP that the values alone explain. Above 1 where the layer has
        less than chance gives; None where NP is 0.
    range : Enclosure or None
        The least and the largest NP^p of all arrangements of the values on the support. On a full layer both are
        attained (of a layer of more than 2^18 weights the upper end is rounded up to the next of some thousand values,
        and of one of more than 2^24 there is none); on another support the largest is only a bound.
    status : str or None
        ``"certified"`` or ``"sampled"``: of `expected`.
    deviation_status : str or None
        ``"limit"`` or ``"sampled"``: of `deviation`.
    standard_error : float or None
        Of a sampled mean.
    uniform_support : Enclosure or None
        Beside the null of a layer with zeros, another, certified: E[NP^p] of the same values on a uniformly random
        support of as many cells. It answers another question and is not what `z` is about.
    p : float
        Order of the norm.
    shape : tuple of int
        Rows m and columns n of the layer; input and output neurons of a convolution.
    weights : int
        Weights that are not zero, and of a kernel make an edge.
    alpha : int
        Edges of the spanning forest.
    trials, seed : int or None
        Of the sampling, where there was any.
    reason : str or None
        Why a number is missing.
    """

    expected: Enclosure | None
    norm: float | None
    deviation: float | None
    measured: float
    z: float | None
    share: float | None
    range: Enclosure | None
    status: str | None
    deviation_status: str | None
    standard_error: float | None
    uniform_support: Enclosure | None
    p: float
    shape: tuple[int, int]
    weights: int
    alpha: int
    trials: int | None
    seed: int | None
    reason: str | None


def persistence_null(
    weights: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    p: float = 2,
    conv: Conv | None = None,
    trials: int = TRIALS,
    seed: int | None = None,
) -> PersistenceNull:
    """Return a layer's neural persistence beside what its values alone would give.

    The null hypothesis: the values |w| that are not zero lie on the layer's own support in uniformly random order.
    On a full layer its mean is certified, and its deviation a limit or, for layers with a side below 50, sampled; also
    with a few zeros, as in numbers of few bits, on a connected support. With more zeros or a mask, and for a
    convolution kernel, both are sampled.

    Parameters
    ----------
    weights : array_like of shape (m, n), or ``conv.weight_shape``
        The layer, as in `maximum_spanning_forest`. Zeros are no edges (convention ``balwani``).
    mask : array_like of bool of the shape of `weights`, optional
        The support: a weight that is False is none.
    p : float
        Order of the norm, above 0 and at most 1000.
    conv : Conv, optional
        The geometry of a kernel. Its null are random orders of its weights; those that read only padding stay out.
    trials : int
        Random orders drawn where there is sampling, at least 2.
    seed : int, optional
        From 0 to 2^64 - 1. None draws one; the result records it. The numbers do not depend on the threads.

    Returns
    -------
    PersistenceNull
        Of a layer of zeros, or an empty mask, there is no null, and the reason says so.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest` or `critical_kernel_weights`; or if an argument is out of range.

    Notes
    -----
    Proofs: docs/theory/persistence_null.md, "The null of the values". What is bounded at the first layer of a shape
    takes some tenths of a second and is kept for the next ones.

    Examples
    --------
    >>> null = persistence_null([[19.0, 3, 8], [12, 17, 1], [5, 2, 9]], seed=1)
    >>> round(null.expected.lower, 6), round(null.measured, 6), null.status
    (0.849228, 0.759003, 'certified')
    >>> pruned = persistence_null([[19.0, 0, 8], [12, 17, 0], [0, 2, 9]], seed=1)
    >>> pruned.status, pruned.trials, pruned.alpha
    ('sampled', 200, 5)
    """
    order = real("p", p, f"a number above 0 and at most {LARGEST_ORDER}", 0.0, LARGEST_ORDER, open_low=True)
    sampling = checked_sampling(trials, seed)
    if conv is not None:
        return kernel_persistence_null(MeasuredKernel.of(weights, conv, mask), order, sampling)
    return layer_persistence_null(MeasuredLayer.of(weights, mask), order, sampling)


def layer_persistence_null(
    layer: MeasuredLayer, p: float, sampling: Sampling | None, *, in_report: bool = False
) -> PersistenceNull:
    """Return the `persistence_null` of a layer that has been read; without sampling, what is known without it.

    A report has no place for `uniform_support`, which takes a while for every new shape, and has the range of smaller
    layers only, for it is read off the weights once more.
    """
    if not layer.forest.alpha:
        return _without_null(layer.shape, p, "The layer has no weight other than zero, so nothing can be permuted.")
    m, n = layer.shape
    expected = None
    deviation = None
    uniform_support = None
    if layer.may_be_nearly_full:
        limit = persistence_deviation(m, n, layer.largest, p=p)
        if _is_nearly_full(layer, limit):
            expected = expected_persistence(m, n, layer.largest, p=p, cells=layer.n_weights, every_support=True)
            deviation = limit
    if expected is None and not in_report:
        uniform_support = expected_persistence(m, n, layer.largest, p=p, cells=layer.n_weights)
    return _null(
        expected=expected,
        sample=_sampled(layer, p, sampling) if deviation is None and sampling is not None else None,
        deviation=deviation,
        measured=_measured(layer, p),
        extremes=_range(layer, p, _RANGE_IN_REPORT if in_report else BINNED_CELLS),
        uniform_support=uniform_support,
        p=p,
        shape=layer.shape,
        weights=layer.n_weights,
        alpha=layer.forest.alpha,
    )


def _is_nearly_full(layer: MeasuredLayer, deviation: float | None) -> bool:
    """Whether absent cells, if any, widen the interval around the mean by no more than the width of a sample's."""
    shift = layer.shift_at(layer.forest.alpha)  # times the largest rise of a persistence, which is at most 1
    return shift <= (NEARLY_FULL if deviation is None else 2 * SAMPLED_WIDTH * deviation)


def kernel_persistence_null(kernel: MeasuredKernel, p: float, sampling: Sampling | None) -> PersistenceNull:
    """Return the `persistence_null` of a kernel that has been read; without sampling, what is known without it."""
    critical = kernel.critical
    if not critical.alpha:
        reason = "The kernel has no weight other than zero that makes an edge, so nothing can be permuted."
        return _without_null(critical.shape, p, reason)
    values = np.sort(np.abs(kernel.kernel[kernel.live].astype(np.float64)))[::-1]
    by_rank = persistences(values, p)

    def statistic(ranks: NDArray[np.int64], merges: NDArray[np.int64]) -> float:
        return float(np.sum(by_rank[ranks - 1] * merges))

    return _null(
        expected=None,
        sample=sample_kernels(kernel.conv, kernel.live, statistic, *sampling) if sampling else None,
        deviation=None,
        measured=float(np.sum(persistences(critical.weights.astype(np.float64), p) * critical.merges)),
        extremes=None,
        uniform_support=None,
        p=p,
        shape=critical.shape,
        weights=values.size,
        alpha=critical.alpha,
    )


def _null(
    *,
    expected: Enclosure | None,
    sample: Sample | None,
    deviation: float | None,
    measured: float,
    extremes: Enclosure | None,
    uniform_support: Enclosure | None,
    p: float,
    shape: tuple[int, int],
    weights: int,
    alpha: int,
) -> PersistenceNull:
    """Put a record together from a certified mean or a sample, and a deviation in the limit or that sample."""
    certified = expected is not None
    if sample is not None:
        deviation = sample.deviation if sample.deviation > _ROUNDING * sample.mean else 0.0
        error = CONFIDENCE * sample.standard_error
        expected = expected or Enclosure(max(0.0, sample.mean - error), sample.mean + error)
    middle = None if expected is None else (expected.lower + expected.upper) / 2
    reasons = []
    if deviation is None:
        reasons.append(NOT_SAMPLED)
    elif not deviation:
        reasons.append("Every order gives the same neural persistence, so there is no z.")
    if extremes is None:
        reasons.append("The range is not known for kernels, nor read off large layers.")
    return PersistenceNull(
        expected=expected,
        norm=None if middle is None else (middle / (alpha - 1)) ** (1 / p) if alpha > 1 else 0.0,
        deviation=deviation,
        measured=measured,
        z=(measured - middle) / deviation if deviation and middle is not None else None,
        share=(middle / measured) ** (1 / p) if measured and middle is not None else None,
        range=extremes,
        status="certified" if certified else "sampled" if sample else None,
        deviation_status="sampled" if sample else None if deviation is None else "limit",
        standard_error=None if certified or sample is None else sample.standard_error,
        uniform_support=uniform_support,
        p=p,
        shape=shape,
        weights=weights,
        alpha=alpha,
        trials=sample.values.size if sample else None,
        seed=sample.seed if sample else None,
        reason=" ".join(reasons) or None,
    )


def _without_null(shape: tuple[int, int], p: float, reason: str) -> PersistenceNull:
    return PersistenceNull(
        expected=None,
        norm=None,
        deviation=None,
        measured=0.0,
        z=None,
        share=None,
        range=None,
        status=None,
        deviation_status=None,
        standard_error=None,
        uniform_support=None,
        p=p,
        shape=shape,
        weights=0,
        alpha=0,
        trials=None,
        seed=None,
        reason=reason,
    )


def _measured(layer: MeasuredLayer, p: float) -> float:
    deaths = layer.forest.weights[: layer.forest.alpha].astype(np.float64)
    return float(np.sum(persistences(deaths, p)))


def _sampled(layer: MeasuredLayer, p: float, sampling: Sampling) -> Sample:
    """Return NP^p with the layer's values in random orders on its support."""
    by_rank = persistences(layer.largest, p)

    def statistic(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        # Rarely is one of them beyond the largest magnitudes, and only then are all of them sorted.
        known = by_rank if ranks.max() <= by_rank.size else persistences(layer.magnitudes, p)
        return np.asarray(known[ranks - 1].sum(axis=1))

    return layer.sample(statistic, sampling)


def _range(layer: MeasuredLayer, p: float, most_cells: int) -> Enclosure | None:
    """Return the range over all arrangements; its upper end is rounded up from bins where a layer is not sorted."""
    values = layer.largest
    earliest, latest = extreme_ranks(*layer.shape, layer.n_weights, layer.forest.alpha)
    if values.size < layer.n_weights and layer.matrix.size > most_cells:
        return None
    late = values[np.minimum(latest, values.size) - 1]
    beyond = latest > values.size
    if beyond.any():
        late[beyond] = np.minimum(late[beyond], BinnedMagnitudes(weight_matrix(layer.matrix)).at_least(latest[beyond]))
    top = float(values[0])
    least = persistence_sum(values[earliest - 1], top, p=p).lower
    return Enclosure(least, persistence_sum(late, top, p=p).upper)
