"""What a claim is put to: overlaps, supports and matrices, each a function of the seed and of its own number.

Without a distribution no weight is drawn: overlaps come from `simulate_overlap`, matrices hold the ranks of a random
order. With one, weights are drawn and Kruskal's algorithm runs on them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds import _memory
from topobounds.montecarlo import simulate_overlap
from topobounds.supports import cells_at_density
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.verification.sequential import Batch, batch_sizes

Matrix = NDArray[Any]
Sample = Callable[["Setting", int], Iterator[Batch]]

DISTRIBUTIONS = ("none", "normal", "uniform", "cauchy")
MOST, USUAL = 20_000, 4_000  # overlaps drawn for a claim by default, of small layers and of others
CELL_BYTES = 24  # that a drawn layer takes at least, weights and order
VERTICES, CELLS = 80_000_000, 20_000_000  # and at most as many as have so many vertices, or weights if they are drawn


@dataclass(frozen=True)
class Setting:
    """What layers are drawn.

    Attributes
    ----------
    m, n : int
        Rows and columns.
    k : int or None
        Largest weights; None for alpha.
    density : float
        Share of the cells that carry a weight.
    support : str
        ``"uniform"``, ``"star"`` or ``"block"``; ``"mask"`` for a fixed `mask`; ``"given"`` for that of `weights`.
    distribution : str
        One of `DISTRIBUTIONS`; ``"shuffled"`` for the entries of `weights` at random places, zeros among them.
    seed : int
        What everything drawn follows from.
    weights : ndarray of shape (m, n), optional
        What is shuffled.
    mask : ndarray of bool of shape (m, n), optional
        The fixed support.
    """

    m: int
    n: int
    k: int | None
    density: float
    support: str
    distribution: str
    seed: int
    weights: Matrix | None = None
    mask: NDArray[np.bool_] | None = None

    @property
    def alpha(self) -> int:
        """Edges of a spanning tree of the complete layer."""
        return self.m + self.n - 1

    @property
    def kept(self) -> int:
        """Largest weights: `k`, or alpha of the complete layer."""
        return self.alpha if self.k is None else self.k

    @property
    def cells(self) -> int:
        """Cells that carry a weight."""
        if self.weights is not None:
            return int(np.count_nonzero(self.weights))
        return cells_at_density(self.m, self.n, self.density)

    def stream(self, *path: str | int) -> np.random.Generator:
        """Return the random numbers that belong to `path`."""
        numbers = (tuple(part.encode()) if isinstance(part, str) else (part,) for part in path)
        return np.random.default_rng([self.seed, *(number for part in numbers for number in part)])

    def budget(self, trials: int | None) -> int:
        """Return how many overlaps to draw at most: the trials asked for, or what takes a few seconds."""
        if trials is not None:
            return trials
        if self.distribution != "none":
            return min(USUAL, CELLS // (self.m * self.n))
        vertices = self.m + self.n
        return min(MOST, max(USUAL, VERTICES // vertices // 16), VERTICES // vertices)


# -- overlaps: each yields batches of values in [0, 1] -----------------------------------------------------------------


def layer_overlaps(setting: Setting, budget: int) -> Iterator[Batch]:
    """Yield R_k / (m + n - 1), R_k the forest edges among the k largest weights, k the same for every support."""
    return _overlaps(setting, "layer", budget, k=setting.kept, alpha_of="complete")


def support_overlaps(setting: Setting, budget: int) -> Iterator[Batch]:
    """Yield R_k / alpha, alpha that of the sample's own support; it is also k, where none was given."""
    return _overlaps(setting, "support", budget, k=setting.k, alpha_of="support")


def connected_overlaps(setting: Setting, budget: int) -> Iterator[Batch]:
    """Yield R_alpha / alpha of those samples whose support is connected; the others make batches smaller."""
    return _overlaps(setting, "connected", budget, k=None, alpha_of="support", connected=True)


def outliers(setting: Setting, budget: int, low: float, high: float) -> Iterator[Batch]:
    """Yield whether R_k / (m + n - 1) lies outside [low, high]: 1 or 0."""
    for numbers in _numbers(budget):
        if setting.distribution == "none":
            singles = (_simulated(setting, ("tail", i), 1, k=setting.kept, alpha_of="complete") for i in numbers)
            values = [single.mean for single in singles]
        else:
            values = _drawn(setting, "tail", numbers, setting.kept, "complete")
        yield Batch.of([not low <= value <= high for value in values])


def _overlaps(
    setting: Setting, name: str, budget: int, *, k: int | None, alpha_of: str, connected: bool = False
) -> Iterator[Batch]:
    for numbers in _numbers(budget):
        if setting.distribution == "none":
            path = name, numbers.start
            yield _simulated(setting, path, len(numbers), k=k, alpha_of=alpha_of, connected=connected)
        else:
            yield Batch.of(_drawn(setting, name, numbers, k, alpha_of, connected=connected))


def _numbers(budget: int) -> Iterator[range]:
    first = 0
    for size in batch_sizes(budget):
        yield range(first, first + size)
        first += size


def _simulated(
    setting: Setting, path: tuple[str, int], count: int, *, k: int | None, alpha_of: str, connected: bool = False
) -> Batch:
    estimate = simulate_overlap(
        setting.m,
        setting.n,
        k,
        density=1.0 if setting.mask is not None else setting.density,
        support=setting.support if setting.mask is None else setting.mask,
        alpha_of=alpha_of,
        trials=count,
        seed=int(setting.stream(*path).integers(1 << 63)),
    )
    mean, error = estimate.mean, estimate.standard_error
    if connected:
        count = round(estimate.connected * count)
        mean, error = estimate.mean_connected, estimate.standard_error_connected
    return Batch(count, mean, error**2 * count * (count - 1)) if count > 1 else Batch.of([mean][:count])


def _drawn(
    setting: Setting, name: str, numbers: range, k: int | None, alpha_of: str, *, connected: bool = False
) -> list[float]:
    """Return the overlaps of matrices; only of those with a connected support, if asked for."""
    values = []
    for number in numbers:
        overlap, alpha = forest_overlap(draw_matrix(setting, setting.stream(name, number)), k, alpha_of)
        if alpha == setting.alpha or not connected:
            values.append(overlap)
    return values


def forest_overlap(weights: Matrix, k: int | None, alpha_of: str) -> tuple[float, int]:
    """Return |forest ∩ top-k| over alpha, and alpha of the support; by Kruskal's algorithm on the whole matrix."""
    forest = maximum_spanning_forest(weights)
    kept = forest.alpha if k is None else k
    retained = int(np.searchsorted(forest.ranks[: forest.alpha], kept, side="right"))
    alpha = forest.alpha if alpha_of == "support" else sum(forest.shape) - 1
    return (retained / alpha if alpha else 1.0), forest.alpha


OVERLAPS = {"layer": layer_overlaps, "support": support_overlaps, "connected": connected_overlaps}


# -- supports and matrices ---------------------------------------------------------------------------------------------


def check_memory(m: int, n: int) -> None:
    """Refuse a layer whose cells take more than half of the memory.

    Raises
    ------
    ValueError
        Saying how much it would take.
    """
    _memory.check_memory(f"A layer of {m} x {n} cells", CELL_BYTES * m * n)


def draw_support(setting: Setting, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a random support of the setting's kind."""
    if setting.mask is not None:
        return setting.mask
    check_memory(setting.m, setting.n)
    mask = np.zeros((setting.m, setting.n), np.bool_)
    if setting.support != "uniform":
        mask[0], mask[:, 0] = True, True
    if setting.support == "block":
        side = 1 + min(math.isqrt(setting.cells - setting.alpha), setting.m - 1, setting.n - 1)
        mask[:side, :side] = True
    free = np.flatnonzero(~mask)
    mask.flat[rng.choice(free, setting.cells - int(mask.sum()), replace=False)] = True
    return mask


def draw_matrix(setting: Setting, rng: np.random.Generator) -> Matrix:
    """Return a random matrix; without a distribution it holds the ranks of its cells in a random order, from 1."""
    if setting.weights is not None and setting.mask is None:
        return rng.permutation(setting.weights.ravel()).reshape(setting.weights.shape)
    if setting.weights is not None and setting.mask is not None:
        shuffled = np.zeros_like(setting.weights)
        shuffled[setting.mask] = rng.permutation(setting.weights[setting.mask])
        return shuffled
    mask = draw_support(setting, rng)
    weights = np.zeros(mask.shape)
    weights[mask] = _VALUES[setting.distribution](rng, setting.cells)
    return weights


_VALUES: dict[str, Callable[[np.random.Generator, int], Matrix]] = {
    "none": lambda rng, size: rng.permutation(size) + 1.0,
    "normal": lambda rng, size: rng.standard_normal(size),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size),
    "cauchy": lambda rng, size: rng.standard_cauchy(size),
}
