"""Convolutions of many channels on both sides: the limit of their critical weights and of their overlap.

Seen from one channel the others form a tree, and on a tree the neurons that are connected with a far part of the layer
follow a recursion (docs/theory/convolutions.md, "Many channels on both sides").
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from topobounds._arguments import argument_error
from topobounds._records import Record
from topobounds._types import FloatArray, Integers
from topobounds.layers import Conv
from topobounds.layers.convolution import checked_conv
from topobounds.theory.random_kernels import spatial_edges, tap_edges

_MOST_REACHED = 12  # neurons of a channel that one tap reaches: all their subsets are gone through
_STEP = 0.02  # of the weights per channel
_ITERATIONS = 3000  # at most; near the point where a large component begins, convergence is slow
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class CriticalWeightsLimit(Record):
    """What the critical weights of a kernel in random order tend to, for many channels.

    Attributes
    ----------
    per_channel : float
        Critical weights over in_channels + out_channels.
    overlap : float
        Share of the critical weights among as many heaviest weights.
    """

    per_channel: float
    overlap: float


class _Sets(NamedTuple):
    """The sets of neurons, of a channel of one side, that some tap reaches, numbered; 0 is the empty set.

    ``across[tap, set]`` is the set on the other side that a tap joins with a set; ``subsets[tap]`` are all subsets of
    what the tap reaches, ``signs[tap]`` being 1 for those of an even size and -1 for others.
    """

    across: Integers
    subsets: list[Integers]
    signs: list[FloatArray]


class _Voids(NamedTuple):
    """The probability, for every set of neurons of a channel, that none is in the large component."""

    positions: FloatArray
    cells: FloatArray


def critical_weights_limit(conv: Conv) -> CriticalWeightsLimit:
    """Return the limit of critical weights and overlap for many channels, at the ratio of the channels of `conv`.

    Its status is that of a limit: derived, and in agreement with simulation, but neither a bound nor proved.

    Parameters
    ----------
    conv : Conv
        The geometry: each tap may read a cell at one position only (zero and circular padding), and 12 at most. The
        number of cells hardly matters: 3 x 3 cells stand for larger maps. Of the channels the ratio counts.

    Returns
    -------
    CriticalWeightsLimit
        Two numbers, computed to about four digits; 0 and 1 where every tap reads padding only.

    Raises
    ------
    ValueError
        If `conv` is no such Conv.

    See Also
    --------
    topobounds.theory.random_kernels.coverage_constant : The limit for many channels on one side, proved.

    Examples
    --------
    >>> limit = critical_weights_limit(Conv(256, 256, (3, 3), (3, 3), padding=1))
    >>> round(limit.per_channel, 3), round(limit.overlap, 3)
    (2.353, 0.81)
    """
    along = [[tap_edges(axis, tap).cells for tap in range(axis.kernel)] for axis in checked_conv(conv).axes]
    reached = math.prod(max(cells.size for cells in taps) for taps in along)
    twice = any(np.unique(cells).size < cells.size for taps in along for cells in taps)
    if twice or reached > _MOST_REACHED:
        rule = f"a Conv each tap of which reads at most {_MOST_REACHED} cells, and each of them at one position"
        raise argument_error("conv", rule, conv)
    edges = spatial_edges(conv)
    if not edges:
        return CriticalWeightsLimit(0.0, 1.0)
    process = _Process(conv, [(each.positions.tolist(), each.cells.tolist()) for each in edges])
    voids = process.nothing
    times, chances = [], []
    # From the end, as the voids only grow towards the beginning: those of the time before are below the solution.
    for time in np.arange(process.end(), 0, -_STEP):
        voids = process.solution(time, voids)
        times.append(time)
        chances.append(process.critical_chance(voids))
    return _integrated(np.array([*times, 0.0])[::-1], np.array([*chances, process.share_reading])[::-1])


def _integrated(times: FloatArray, chances: FloatArray) -> CriticalWeightsLimit:
    """Return the integral of the chance that a weight is critical, and the share of it up to that time."""
    pieces = (chances[1:] + chances[:-1]) / 2 * np.diff(times)
    critical = np.concatenate([[0.0], np.cumsum(pieces)])
    per_channel = float(critical[-1])
    return CriticalWeightsLimit(per_channel, float(np.interp(per_channel, times, critical)) / per_channel)


class _Process:
    """Weights that enter one by one; the time is the number of weights over that of channels."""

    def __init__(self, conv: Conv, taps: list[tuple[list[int], list[int]]]) -> None:
        n_positions = conv.weight_shape[0]
        n_cells = conv.weight_shape[1] * conv.groups
        self.positions_rate = 1 + n_cells / n_positions  # weights of a channel of positions, per time
        self.cells_rate = 1 + n_positions / n_cells
        self.n_taps = math.prod(conv.kernel_size)
        self.share_reading = len(taps) / self.n_taps
        self.positions = _sets(taps)
        self.cells = _sets([(cells, positions) for positions, cells in taps])

    @property
    def nothing(self) -> _Voids:
        """Voids of a process that has gone on for ever: only the empty set is void."""
        n_positions, n_cells = self.positions.across.shape[1], self.cells.across.shape[1]
        return _Voids(np.eye(1, n_positions)[0], np.eye(1, n_cells)[0])

    def solution(self, time: float, start: _Voids) -> _Voids:
        """Return the least voids that solve the recursion, from voids that are below them."""
        voids = start
        for _ in range(_ITERATIONS):
            previous = voids
            voids = _Voids(
                self._void(time * self.positions_rate, voids.cells[self.positions.across]),
                self._void(time * self.cells_rate, voids.positions[self.cells.across]),
            )
            if all(np.abs(a - b).max() < _TOLERANCE for a, b in zip(voids, previous, strict=True)):
                break
        return voids

    def _void(self, weights: float, voids_across: FloatArray) -> FloatArray:
        """Return the chance that none of a Poisson number of weights joins a set with the large component."""
        return np.asarray(np.exp(-weights * (1 - voids_across).sum(axis=0) / self.n_taps))

    def critical_chance(self, voids: _Voids) -> float:
        """Return the chance that the next weight merges components: not all it joins is in the large one."""
        joined = sum(
            float((voids.positions[p] @ p_signs) * (voids.cells[c] @ c_signs))
            for p, p_signs, c, c_signs in zip(
                self.positions.subsets, self.positions.signs, self.cells.subsets, self.cells.signs, strict=True
            )
        )
        return self.share_reading - joined / self.n_taps

    def end(self) -> float:
        """Return a time after which a weight is critical with a chance below 1e-6."""
        time = 1.0
        voids = self.nothing
        while self.critical_chance(self.solution(time, voids)) > 1e-6:
            time *= 1.3
        return time


def _sets(taps: list[tuple[list[int], list[int]]]) -> _Sets:
    """Return the sets of neurons of one side, from what each tap joins, own neuron by other neuron."""
    own = _numbered([reached for reached, _ in taps])
    other = _numbered([reached for _, reached in taps])
    across = [[other[_carried(mask, *tap)] for mask in own] for tap in taps]
    subsets = [_subsets(reached) for reached, _ in taps]
    return _Sets(
        np.array(across),
        [np.array([own[mask] for mask in masks]) for masks in subsets],
        [np.array([(-1.0) ** mask.bit_count() for mask in masks]) for masks in subsets],
    )


def _numbered(reached: list[list[int]]) -> dict[int, int]:
    """Return the numbers of all subsets of the neurons each tap reaches; subsets are bits."""
    masks = {mask for neurons in reached for mask in _subsets(neurons)}
    return {mask: number for number, mask in enumerate(sorted(masks))}


def _subsets(neurons: list[int]) -> list[int]:
    masks = [0]
    for neuron in neurons:
        masks += [mask | 1 << neuron for mask in masks]
    return masks


def _carried(mask: int, own: list[int], other: list[int]) -> int:
    """Return the neurons that a tap joins with those of a set."""
    return sum(1 << across for neuron, across in zip(own, other, strict=True) if mask >> neuron & 1)
