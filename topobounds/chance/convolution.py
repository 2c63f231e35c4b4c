"""How many weights of a kernel are critical by chance: exactly for small kernels, by simulation for others."""

import math
import secrets
import statistics
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from topobounds._arguments import MOST_TRIALS, integer
from topobounds._records import Record
from topobounds._types import Progress
from topobounds.layers import Conv
from topobounds.layers.convolution import checked_conv
from topobounds.theory.critical_weights import critical_weights_range
from topobounds.theory.random_kernels import exact_expected_critical_weights
from topobounds.topology.convolution import critical_kernel_weights

MOST_EXACT_WEIGHTS = 16  # of a group; with more, the sum over their subsets may take minutes


@dataclass(frozen=True)
class CriticalWeightsEstimate(Record):
    """A simulated number of critical weights of a random kernel, with what is needed to judge it.

    Attributes
    ----------
    mean : float
        Mean over the trials.
    standard_error : float
        ``standard_deviation / sqrt(trials)``; NaN for one trial, which says nothing about its own error.
    standard_deviation : float
        Of the number of one kernel, with ``trials - 1`` in the denominator; NaN for one trial.
    trials, seed : int
        These two, with the geometry, determine every draw.
    lower, upper : int
        Proved bounds for every kernel without zeros (`critical_weights_range`).
    """

    mean: float
    standard_error: float
    standard_deviation: float
    trials: int
    seed: int
    lower: int
    upper: int


def expected_critical_weights(
    conv: Conv, *, trials: int = 20, seed: int | None = None, progress: Progress | None = None
) -> Fraction | CriticalWeightsEstimate:
    """Return the expected number of critical weights of a kernel whose weights come in uniformly random order.

    That is the order of exchangeable magnitudes without ties, whatever their law. With at most 16 weights per group,
    as depthwise 3 x 3 and 4 x 4 kernels have them, it is summed over their subsets, exactly; where this is too much,
    and for all other kernels, it is the mean over random normal kernels.

    Parameters
    ----------
    conv : Conv
        The geometry.
    trials : int
        Random kernels, from 1 to 10^9, where the value is not exact. A run of more trials begins with the same draws.
    seed : int, optional
        Their seed, at least 0; drawn and recorded if not given.
    progress : callable, optional
        Called with (trials done, trials) after every kernel.

    Returns
    -------
    Fraction or CriticalWeightsEstimate
        The exact value, or an estimate of it; 0 where every tap reads padding only.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    critical_weights_bound : A lower bound for every kernel without zeros.
    topobounds.theory.random_kernels.exact_expected_critical_weights : Exactly, or not at all.

    Notes
    -----
    Proofs, and a table of common geometries: docs/theory/convolutions.md.

    Examples
    --------
    >>> expected_critical_weights(Conv(32, 32, (3, 3), (8, 8), padding=1, groups=32)) / 32
    Fraction(1247, 315)
    >>> estimate = expected_critical_weights(Conv(16, 16, (3, 3), (8, 8), padding=1), seed=0)
    >>> estimate.lower, round(estimate.mean, 2), round(estimate.standard_error, 2)
    (33, 73.95, 1.03)
    """
    trials = integer("trials", trials, 1, most=MOST_TRIALS)
    seed = secrets.randbits(32) if seed is None else integer("seed", seed, 0)
    if checked_conv(conv).n_weights <= MOST_EXACT_WEIGHTS * conv.groups:
        try:
            return exact_expected_critical_weights(conv)
        except ValueError:  # the map is so large that the components of all subsets would not fit into memory
            pass
    counts = []
    for trial in range(trials):
        counts.append(_count(conv, (seed, trial)))
        if progress is not None:
            progress(trial + 1, trials)
    deviation = statistics.stdev(counts) if trials > 1 else math.nan
    lower, upper = critical_weights_range(conv)
    return CriticalWeightsEstimate(
        mean=statistics.fmean(counts),
        standard_error=deviation / math.sqrt(trials),
        standard_deviation=deviation,
        trials=trials,
        seed=seed,
        lower=lower,
        upper=upper,
    )


def _count(conv: Conv, entropy: tuple[int, int]) -> int:
    """Return the critical weights of a random normal kernel."""
    kernel = np.random.default_rng(entropy).standard_normal(conv.weight_shape)
    return critical_kernel_weights(kernel, conv).n_critical
