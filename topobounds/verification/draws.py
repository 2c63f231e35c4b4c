"""The samples that claims are tested on: overlaps, supports and matrices, functions of the seed and of their number.

Without a distribution no weight is drawn: overlaps come from `simulate_overlap`, matrices hold the ranks of a random
order. With one, weights are drawn and Kruskal's algorithm runs on them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topobounds._types import Array
from topobounds.layers.shape import Shape
from topobounds.montecarlo import simulate_overlap
from topobounds.supports import cells_at_density, read_support
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.verification.batches import Batch, batch_sizes

DISTRIBUTIONS = ("none", "normal", "uniform", "cauchy")
_MOST, USUAL = 20_000, 4_000  # overlaps drawn for a claim by default, of small layers and of others
# Of large layers fewer: all that are drawn have at most so many vertices, or so many cells where weights are drawn.
_VERTICES, CELLS = 80_000_000, 20_000_000


@dataclass(frozen=True)
class DrawSetting:
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
    weights: Array | None = None
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
    def shape(self) -> Shape:
        """Rows, columns and largest weights, checked before."""
        return Shape(self.m, self.n, self.kept)

    @property
    def cells(self) -> int:
        """Cells that carry a weight."""
        if self.weights is not None:
            return int(np.count_nonzero(self.weights))
        return cells_at_density(self.m, self.n, self.density)

    def random_generator(self, *path: str | int) -> np.random.Generator:
        """Return the generator of the random numbers of one purpose: the same `path` and seed give the same numbers."""
        numbers = (tuple(part.encode()) if isinstance(part, str) else (part,) for part in path)
        return np.random.default_rng([self.seed, *(number for part in numbers for number in part)])

    def budget(self, trials: int | None) -> int:
        """Return how many overlaps to draw at most: these trials, or what takes a few seconds."""
        if trials is not None:
            return trials
        if self.distribution != "none":
            return min(USUAL, CELLS // (self.m * self.n))
        vertices = self.m + self.n
        return min(_MOST, max(USUAL, _VERTICES // vertices // 16), _VERTICES // vertices)


# -- overlaps: each yields batches of values in [0, 1] -----------------------------------------------------------------


def overlaps(
    setting: DrawSetting, name: str, budget: int, *, k: int | None, alpha_of: str, connected: bool = False
) -> Iterator[Batch]:
    """Yield R_k / alpha, R_k the forest edges among the k largest weights.

    Parameters
    ----------
    setting : DrawSetting
        What layers are drawn.
    name : str
        Of the random numbers.
    budget : int
        Layers to draw.
    k : int or None
        Largest weights; None for the alpha of each sample's own support.
    alpha_of : {"support", "complete"}
        Whose alpha is meant: that of each sample's own support, or m + n - 1.
    connected : bool
        Leave out the samples whose support is not connected, which makes batches smaller.
    """
    for numbers in batches_of_numbers(budget):
        if setting.distribution == "none":
            path = name, numbers.start
            yield _simulated(setting, path, len(numbers), k=k, alpha_of=alpha_of, connected=connected)
        else:
            yield Batch.of(_drawn(setting, name, numbers, k, alpha_of, connected=connected))


def outliers(setting: DrawSetting, budget: int, low: float, high: float) -> Iterator[Batch]:
    """Yield whether R_k / (m + n - 1) lies outside [low, high]: 1 or 0."""
    for numbers in batches_of_numbers(budget):
        if setting.distribution == "none":
            singles = (_simulated(setting, ("tail", i), 1, k=setting.kept, alpha_of="complete") for i in numbers)
            values = [single.mean for single in singles]
        else:
            values = _drawn(setting, "tail", numbers, setting.kept, "complete")
        yield Batch.of([not low <= value <= high for value in values])


def batches_of_numbers(budget: int) -> Iterator[range]:
    """Yield the numbers of the samples of each batch, `budget` in all."""
    first = 0
    for size in batch_sizes(budget):
        yield range(first, first + size)
        first += size


def _simulated(
    setting: DrawSetting, path: tuple[str, int], count: int, *, k: int | None, alpha_of: str, connected: bool = False
) -> Batch:
    estimate = simulate_overlap(
        setting.m,
        setting.n,
        k,
        density=1.0 if setting.mask is not None else setting.density,
        support=setting.support if setting.mask is None else setting.mask,
        alpha_of=alpha_of,
        trials=count,
        seed=int(setting.random_generator(*path).integers(1 << 63)),
    )
    mean, error = estimate.mean, estimate.standard_error
    if connected:  # `estimate.connected` is the share of the samples whose support is connected
        count = round(estimate.connected * count)
        mean, error = estimate.mean_connected, estimate.standard_error_connected
    if count < 2:  # one sample has no standard error, none has no mean
        return Batch.of([mean][:count])
    sum_of_squares = error**2 * count * (count - 1)  # of the deviations from the mean, which a batch keeps
    return Batch(count, mean, sum_of_squares)


def _drawn(
    setting: DrawSetting, name: str, numbers: range, k: int | None, alpha_of: str, *, connected: bool = False
) -> list[float]:
    """Return the overlaps of matrices; with `connected` only of those that have a connected support."""
    values = []
    for number in numbers:
        overlap, alpha = forest_overlap(draw_matrix(setting, setting.random_generator(name, number)), k, alpha_of)
        if alpha == setting.alpha or not connected:
            values.append(overlap)
    return values


def moved_by_ties(setting: DrawSetting) -> float:
    """Return by how much the overlap of shuffled weights may differ if those that tie at the cut are in another order.

    Of k0 weights above the k-th largest and k1 at least as large, another order puts at most min(k - k0, k1 - k) others
    among the k largest. With zeros k may be the alpha of a sample's support, at least 2 sqrt(weights) - 1.

    Examples
    --------
    >>> weights = np.array([[3.0, 2.0, 2.0], [2.0, 2.0, 1.0]])
    >>> moved_by_ties(DrawSetting(2, 3, 3, 1.0, "uniform", "shuffled", 0, weights))  # 2 of the 4 ties are kept
    0.5
    """
    if setting.weights is None:
        return 0.0
    n_weights, alpha, most = setting.cells, setting.alpha, min(setting.kept, setting.cells)
    cuts = np.array([most])
    if n_weights < setting.weights.size:
        alpha = math.ceil(2 * math.sqrt(n_weights)) - 1
        cuts = np.arange(1, most + 1) if setting.k is None else cuts
    rising = np.sort(np.abs(setting.weights[setting.weights != 0]).astype(np.float64))
    cuts = cuts[cuts > 0]
    at_the_cut = rising[n_weights - cuts]
    above = n_weights - np.searchsorted(rising, at_the_cut, side="right")
    at_least = n_weights - np.searchsorted(rising, at_the_cut, side="left")
    return float(np.minimum(cuts - above, at_least - cuts).max(initial=0)) / alpha


def forest_overlap(weights: Array, k: int | None, alpha_of: str) -> tuple[float, int]:
    """Return |forest ∩ top-k| over alpha, and alpha of the support; by Kruskal's algorithm on the whole matrix."""
    forest = maximum_spanning_forest(weights)
    kept = forest.alpha if k is None else k
    retained = int(np.searchsorted(forest.ranks[: forest.alpha], kept, side="right"))
    alpha = forest.alpha if alpha_of == "support" else sum(forest.shape) - 1
    return (retained / alpha if alpha else 1.0), forest.alpha


# -- supports and matrices ---------------------------------------------------------------------------------------------


def draw_support(setting: DrawSetting, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a random support of the setting's kind, or its fixed one."""
    if setting.mask is not None:
        return setting.mask
    return read_support(setting.m, setting.n, setting.density, setting.support).draw_mask(rng)


def draw_matrix(setting: DrawSetting, rng: np.random.Generator) -> Array:
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


_VALUES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "none": lambda rng, size: rng.permutation(size) + 1.0,
    "normal": lambda rng, size: rng.standard_normal(size),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size),
    "cauchy": lambda rng, size: rng.standard_cauchy(size),
}
