"""How much of its forest a layer would keep at each density if its weights came in random order."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds._types import FloatArray
from topobounds.chance.measured_layer import MeasuredKernel, MeasuredLayer
from topobounds.chance.sampling import Sampling, sample_kernels
from topobounds.theory.deviation import known_deviation
from topobounds.theory.overlap import expected_retention


class RetentionNull(NamedTuple):
    """What chance gives for the overlap at each of some numbers of weights kept.

    Attributes
    ----------
    expected : ndarray
        Means: the middles of certified intervals on a full layer, else sampled; NaN where nothing was sampled.
    deviation : ndarray
        Standard deviations: proved or limits on a full layer, else sampled; NaN where they are not known.
    """

    expected: FloatArray
    deviation: FloatArray


def retention_null(
    layer: MeasuredLayer | MeasuredKernel, ks: NDArray[np.int64], sampling: Sampling | None
) -> RetentionNull:
    """Return what a random order of a layer's weights, on its own support, would keep of the forest at each k.

    Parameters
    ----------
    layer : MeasuredLayer or MeasuredKernel
        A layer or a kernel that has been read.
    ks : ndarray of int64, rising
        Numbers of largest weights kept.
    sampling : Sampling or None
        Where the null is not known, how it is sampled; None for not at all.

    Examples
    --------
    >>> layer = MeasuredLayer.of(np.random.default_rng(0).standard_normal((30, 20)))
    >>> null = retention_null(layer, np.array([49, 200, 600]), None)
    >>> null.expected.round(2).tolist(), float(null.deviation[-1])
    ([0.84, 1.0, 1.0], 0.0)
    """
    if isinstance(layer, MeasuredLayer) and layer.n_weights == layer.matrix.size:
        m, n = layer.shape
        curve = expected_retention(m, n, ks.tolist())
        deviations = [known_deviation(m, n, k) for k in ks.tolist()]
        values = np.array([np.nan if each is None else each.value for each in deviations])
        if sampling is not None and np.isnan(values).any():
            values = np.where(np.isnan(values), _sampled(layer, ks, sampling).std(axis=0, ddof=1), values)
        return RetentionNull((np.array(curve.lower) + np.array(curve.upper)) / 2, values)
    if sampling is None or not _alpha_of(layer):
        return RetentionNull(np.full(ks.size, np.nan), np.full(ks.size, np.nan))
    values_of_trials = _sampled(layer, ks, sampling)
    return RetentionNull(values_of_trials.mean(axis=0), values_of_trials.std(axis=0, ddof=1))


def _alpha_of(layer: MeasuredLayer | MeasuredKernel) -> int:
    """Return the edges of the forest of a layer or kernel."""
    return layer.forest.alpha if isinstance(layer, MeasuredLayer) else layer.critical.alpha


def _sampled(layer: MeasuredLayer | MeasuredKernel, ks: NDArray[np.int64], sampling: Sampling) -> FloatArray:
    """Return the overlaps at each k of each trial, (trials, ks)."""

    def kept(ranks: NDArray[np.int64], *_merges: Any) -> FloatArray:
        return np.asarray(np.searchsorted(np.sort(ranks), ks, side="right") / ranks.size)

    def kept_of_many(ranks: NDArray[np.int64]) -> FloatArray:
        return np.stack([kept(each) for each in ranks])

    if isinstance(layer, MeasuredLayer):
        return layer.sample(kept_of_many, sampling).values
    return sample_kernels(layer.conv, layer.present, kept, *sampling).values
