"""How many weights each tensor of a file is left with, so that all together have an exact number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._types import FloatArray
from topobounds.topology.layer_topology import Topology

LEVELS = 1000
"""Steps in which the share of the forest that magnitude pruning keeps is raised, by ``retention``."""
_HALVINGS = 200


@dataclass(frozen=True, eq=False)
class Profile:
    """What an allocation goes by, of one tensor.

    Attributes
    ----------
    weights, survivors : int
        Stored weights; those that are not zero.
    critical_rank : int
        Weights that magnitude pruning must keep so that the diagram stays, summed over the graphs of the tensor.
    ranks : ndarray of float64
        Weights that it must keep so that the first 0, 1, ... `LEVELS` thousandths of the critical weights stay.
    share : float
        Weights that a file of densities asks for; 0 where there is none.
    """

    weights: int
    survivors: int
    critical_rank: int
    ranks: FloatArray
    share: float = 0.0

    @classmethod
    def of(cls, topology: Topology, weights: int, survivors: int) -> "Profile":
        """Return the profile of a tensor with this topology."""
        ranks = np.zeros(LEVELS + 1)
        for forest, size in zip(topology.forests, topology.sizes, strict=True):
            if size:
                steps = np.linspace(0.0, size, LEVELS + 1)
                ranks += np.interp(steps, np.arange(size + 1), np.concatenate([[0], forest.ranks[:size]]))
        critical = sum(forest.critical_rank for forest in topology.forests)
        return cls(weights, survivors, critical, ranks)


_Demand = Callable[[Profile, float], float]
"""``demand(profile, level)``: weights that a tensor is left with at a level, the same for all tensors; it rises."""


def _uniform(profile: Profile, level: float) -> float:
    return level * profile.weights


def _safe(profile: Profile, level: float) -> float:
    return level * profile.critical_rank


def _retention(profile: Profile, level: float) -> float:
    """Up to level 1 the share of the critical weights, from there to 2 the way from all of them to all weights."""
    if level <= 1:
        return float(np.interp(level * LEVELS, np.arange(LEVELS + 1), profile.ranks))
    beyond = min(level - 1, 1.0)
    return profile.critical_rank + beyond * (profile.survivors - profile.critical_rank)


def _file(profile: Profile, level: float) -> float:
    return level * profile.share


ALLOCATIONS: dict[str, _Demand] = {"uniform": _uniform, "safe": _safe, "retention": _retention}
"""The allocations by name: one density for all tensors; in proportion to the density at which magnitude pruning would
begin to lose the topology; as much as keeps one share of every forest under magnitude pruning."""
FROM_FILE: _Demand = _file


def allocated(
    profiles: Sequence[Profile], total: int, demand: _Demand, least: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Return how many weights each tensor is left with.

    The level is sought at which the demands of all tensors, each held between its bounds, add up to the total. They are
    rounded down, and what is then missing goes to those that lost most by the rounding, the first ones among equals.

    Parameters
    ----------
    profiles : sequence of Profile
        The tensors.
    total : int
        Weights of all together.
    demand : callable
        One of `ALLOCATIONS`, or `FROM_FILE`.
    least : sequence of int, optional
        What each tensor must keep; 0 by default. Its survivors are the most.

    Returns
    -------
    ndarray of int64
        They add up to the total, or to the bound that it is beyond.

    Examples
    --------
    >>> sizes = (1000, 1000, 10)
    >>> profiles = [Profile(size, size, 0, np.zeros(LEVELS + 1)) for size in sizes]
    >>> allocated(profiles, 201, ALLOCATIONS["uniform"]).tolist()
    [100, 100, 1]
    >>> allocated(profiles, 201, ALLOCATIONS["uniform"], [0, 0, 9]).tolist()
    [96, 96, 9]
    """
    low = np.zeros(len(profiles), np.int64) if least is None else np.asarray(least, np.int64)
    high = np.array([profile.survivors for profile in profiles], np.int64)
    total = min(max(total, int(low.sum())), int(high.sum()))
    below, above = 0.0, 1.0
    while _sum(_demands(profiles, demand, above, low, high)) < total and above < 2.0**64:
        above *= 2
    for _ in range(_HALVINGS):
        level = (below + above) / 2
        if _sum(_demands(profiles, demand, level, low, high)) < total:
            below = level
        else:
            above = level
    exact = _demands(profiles, demand, above, low, high)
    counts = np.floor(exact).astype(np.int64)
    return _made_exact(counts, exact - counts, total, low, high)


def _demands(profiles: Sequence[Profile], demand: _Demand, level: float, low: Any, high: Any) -> FloatArray:
    asked = np.array([demand(profile, level) for profile in profiles], np.float64)
    clipped: FloatArray = np.clip(asked, low, high)
    return clipped


def _sum(values: FloatArray) -> float:
    return float(values.sum())


def _made_exact(
    counts: NDArray[np.int64], lost: FloatArray, total: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return counts, one more or less here and there, that add up to a total within their bounds."""
    missing = total - int(counts.sum())
    while missing:
        sign = 1 if missing > 0 else -1
        room = high - counts if sign > 0 else counts - low
        open_ = np.flatnonzero(room)
        order = open_[np.argsort(-sign * lost[open_], kind="stable")][: abs(missing)]
        steps = np.minimum(room[order], abs(missing) // len(order))
        counts[order] += sign * steps
        missing -= sign * int(steps.sum())
    return counts
