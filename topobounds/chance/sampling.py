"""A statistic of the spanning forest under random orders of the weights: of a support's cells, or of a kernel's taps.

Trial i depends on the seed and on i alone, not on the number of trials or of threads.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import LARGEST_SEED, MOST_TRIALS, argument_error, integer
from topobounds._cache import cached
from topobounds._parallel import in_threads, processors
from topobounds._types import FloatArray, Integers
from topobounds.layers import Conv
from topobounds.layers.axis import axis_edges

TRIALS = 200
CONFIDENCE = 3  # standard errors on either side of a sampled mean
SAMPLED_WIDTH = CONFIDENCE / math.sqrt(TRIALS)  # of that interval to either side, in standard deviations
NOT_SAMPLED = "It would have to be sampled, and no trials were asked for."
_MOST_SAMPLED_CELLS = 2**32 - 1
RANKS_AT_A_TIME = 2**20
_DRAWN_PER_VERTEX = 6  # edges that leave few vertices outside of the largest component
_FEW_FOR_THREADS = 2**17  # weights and neurons: with fewer, Python does most of a trial
_FEW_OF = 8  # cells: a support of fewer is listed, and one of more drawn by looking whether a cell is in it


@dataclass(frozen=True, eq=False)
class Sample:
    """Values of a statistic in random orders.

    Attributes
    ----------
    values : ndarray of float64
        One per trial.
    seed : int
        What draws them again.
    """

    values: FloatArray
    seed: int

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return float(self.values[0]) if self.deviation == 0 else float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """Standard deviation, exactly 0 where all values are equal."""
        return float(np.std(self.values, ddof=1)) if np.ptp(self.values) else 0.0

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.values.size)


class Sampling(NamedTuple):
    """How many random orders are drawn, and the seed that draws them again; both checked."""

    trials: int
    seed: int


def checked_sampling(trials: int, seed: int | None) -> Sampling:
    """Return the number of trials and a seed, drawn where None is given.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """
    trials = integer("trials", trials, 2, most=MOST_TRIALS)
    return Sampling(trials, secrets.randbits(32) if seed is None else integer("seed", seed, 0, LARGEST_SEED))


def sample_supports(
    present: NDArray[np.bool_],
    alpha: int,
    statistic: Callable[[Integers], FloatArray],
    trials: int,
    seed: int,
) -> Sample:
    """Return a statistic of the ranks of the forest's edges, the cells of a support in uniformly random order.

    Parameters
    ----------
    present : ndarray of bool of shape (m, n)
        The support.
    alpha : int
        Edges of its spanning forest.
    statistic : callable
        Makes of ranks from 1, int64 (b, alpha), rising along each row, b values, or rows of values.
    trials, seed : int
        Checked.

    Raises
    ------
    ValueError
        If the layer has 2^32 cells or more.
    """
    return Sample(of_random_orders(present, alpha, statistic, trials, seed), seed)


def of_random_orders(
    present: NDArray[np.bool_], alpha: int, function: Callable[[Integers], NDArray[Any]], trials: int, seed: int
) -> NDArray[Any]:
    """Return what a function makes of the ranks of some orders, of all of them: see `sample_supports`."""
    if present.size > _MOST_SAMPLED_CELLS:
        raise argument_error("weights", "a layer of fewer than 2^32 cells, to be sampled", present.shape)
    n_cells = int(np.count_nonzero(present))
    few = _FEW_OF * n_cells < present.size
    cells = np.flatnonzero(present).astype(np.uint32) if few else np.empty(0, np.uint32)
    bits = np.append(np.packbits(present, bitorder="little"), np.uint8(0))
    starts = np.asarray(np.random.SeedSequence(seed).generate_state(trials, np.uint64), np.uint64)
    size = max(1, min(RANKS_AT_A_TIME // max(alpha, 1), -(-trials // processors())))

    def run(first: int) -> NDArray[Any]:
        return function(_forest_ranks(bits, present.shape, cells, n_cells, alpha, starts[first : first + size]))

    return np.concatenate(in_threads(run, range(0, trials, size)))


def _forest_ranks(
    present: NDArray[np.uint8],
    shape: tuple[int, ...],
    cells: NDArray[np.uint32],
    n_cells: int,
    alpha: int,
    starts: NDArray[np.uint64],
) -> Integers:
    from topobounds._kernels.orders import forest_ranks  # noqa: PLC0415 (loads numba)

    vertices = np.empty((2, sum(shape)), np.uint32)
    ranks = np.zeros((starts.size, alpha), np.int64)
    drawn = min(n_cells // 2, _DRAWN_PER_VERTEX * vertices.shape[1])
    forest_ranks(present, shape[1], cells, n_cells, drawn, starts, vertices[0], vertices[1], ranks)
    return ranks


def sample_kernels(
    conv: Conv,
    present: NDArray[np.bool_],
    statistic: Callable[[Integers, Integers], Any],
    trials: int,
    seed: int,
) -> Sample:
    """Return a statistic of a convolution's critical weights, its kernel weights in uniformly random order.

    Parameters
    ----------
    conv : Conv
        The geometry.
    present : ndarray of bool of shape ``conv.weight_shape``
        The kernel weights that are not 0.
    statistic : callable
        Makes of the ranks from 1 of the critical weights, rising, and their merges a value, or several.
    trials, seed : int
        Checked.
    """
    orders = _kernel_orders(conv, np.packbits(present).tobytes(), trials, seed)
    return Sample(np.array([statistic(ranks, merges) for ranks, merges in orders]), seed)


@cached(16)
def _kernel_orders(conv: Conv, support: bytes, trials: int, seed: int) -> tuple[tuple[Integers, Integers], ...]:
    """Return, for each random order of the weights of a kernel, the ranks of its critical weights and their merges.

    The weights are those of a support, packed into bits; the largest has rank 1. The results are kept, since several
    statistics are taken of one kernel, and the layers of a net often share a geometry.
    """
    from topobounds.topology.convolution import critical_by_level  # noqa: PLC0415 (loads numba)

    present = np.flatnonzero(np.unpackbits(np.frombuffer(support, np.uint8), count=conv.n_weights))

    def run(trial: int) -> tuple[Integers, Integers]:
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(trial,)))
        levels = np.zeros(conv.n_weights, np.uint32 if conv.n_weights < 2**32 else np.uint64)
        levels[present] = generator.permutation(present.size) + 1
        indices, merges = critical_by_level(levels, conv)
        return present.size + 1 - levels[indices].astype(np.int64), merges

    if conv.n_weights + conv.n_vertices < _FEW_FOR_THREADS:
        return tuple(map(run, range(trials)))
    return tuple(in_threads(run, range(trials)))


def live_taps(conv: Conv) -> NDArray[np.bool_]:
    """Return which kernel weights make an edge at all, of shape ``conv.weight_shape``: some may read only padding."""
    live = np.ones((1,) * len(conv.axes), np.bool_)
    for place, axis in enumerate(conv.axes):
        taps = np.isin(np.arange(axis.kernel), axis_edges(axis)[0])
        live = live & np.expand_dims(taps, tuple(i for i in range(len(conv.axes)) if i != place))
    return np.broadcast_to(live, conv.weight_shape)
