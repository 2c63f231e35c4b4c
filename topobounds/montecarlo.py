"""The overlap of a layer's heaviest weights with its maximum spanning forest, by simulation.

No weight is drawn. Under exchangeable magnitudes the k heaviest weights of a support are a uniformly random k-subset
of its cells, and for every matrix |forest ∩ top-k| = m + n - kappa, where kappa counts the components of the graph of
those k cells (docs/theory/README.md, "The setting in ten lines"). So a trial draws cells and counts components.

One trial is one stream of random words, a function of the seed and the number of the trial alone. What is drawn does
not depend on how many trials are asked for, on how they are batched, on the number of threads, or on whether numpy or
the compiled kernels count.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import MOST_TRIALS, argument_error, check_neurons, checked_seed, choice, integer
from topobounds._engine import NumpyBudget, kernels_disabled
from topobounds._parallel import processors
from topobounds._records import Record
from topobounds._types import Integers, Progress, Words
from topobounds.supports import Support, read_support

_NUMPY_CELLS = 5_000_000  # expected draws that numpy makes in the time it takes to load the compiled kernels,
_LOADED_CELLS = 30_000  # and those that it makes about as fast as they do
NUMPY_POPULATION = 1 << 36  # a cell and its place among the words drawn share 63 bits in `_is_first`
NUMPY_BATCH, COMPILED_BATCH = 1 << 15, 1 << 21  # expected draws at a time: what stays in the cache; some 20 ms
BITMAP_CELLS = 1 << 22  # above, a hash table is faster than clearing a bitmap,
TABLE_CELLS = 256  # unless it is no smaller: it has 4 places of 64 bits for every cell drawn
_NUMPY_BUDGET = NumpyBudget("topobounds._kernels.montecarlo", _NUMPY_CELLS, _LOADED_CELLS)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Estimate(Record):
    """A simulated overlap X = |forest ∩ top-k| / alpha, with what is needed to judge it.

    Attributes
    ----------
    mean : float
        Mean of X over the trials, in [0, 1].
    standard_error : float
        ``standard_deviation / sqrt(trials)``; NaN for one trial, which says nothing about its own error.
    trials, seed : int
        These two, with the layer and the support, determine every draw.
    m, n : int
        Shape of the layer.
    k : int or None
        Cells taken; None if each trial took the alpha of its own support and these differed.
    density, cells : float, int
        The density asked for (of a given mask: its own) and the number of cells of the support.
    support : str
        ``"uniform"``, ``"star"``, ``"block"`` or ``"mask"``.
    alpha_of : str
        Whose forest X is measured against: ``"support"`` or ``"complete"``.
    alpha : float
        Mean over the trials of the denominator of X.
    standard_deviation : float
        Of X, with ``trials - 1`` in the denominator; NaN for one trial.
    connected : float
        Share of the trials whose support was connected.
    mean_connected, standard_error_connected : float
        The mean over those trials alone, and its standard error; NaN where there are none, or only one.
    reason : str or None
        Why `k` is None or a number NaN, which JSON writes as null; None if there is nothing to say.
    """

    mean: float
    standard_error: float
    trials: int
    seed: int
    m: int
    n: int
    k: int | None
    density: float
    support: str
    cells: int
    alpha_of: str
    alpha: float
    standard_deviation: float
    connected: float
    mean_connected: float
    standard_error_connected: float
    reason: str | None = None


def simulate_overlap(
    m: int,
    n: int,
    k: int | None = None,
    *,
    density: float = 1.0,
    support: str | ArrayLike = "uniform",
    alpha_of: str = "support",
    trials: int = 200,
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Estimate the expected overlap E[X_k], X_k = |forest ∩ top-k| / alpha, for exchangeable magnitudes.

    The k heaviest weights of the support are a uniformly random k-subset of its cells; |forest ∩ top-k| is m + n less
    the components of their graph (docs/theory/README.md, "The setting in ten lines"). Nothing is assumed of the
    distribution of the weights but exchangeability and the absence of ties.

    Parameters
    ----------
    m, n : int
        Rows and columns of the layer, at least 1, together at most 2**24.
    k : int, optional
        How many of the heaviest weights, from 0 to the number of cells of the support. The default is alpha, as in
        the paper: see `alpha_of`.
    density : float
        Share of the m n cells that carry a weight, in (0, 1]; a support has exactly `cells_at_density` cells.
    support : {"uniform", "star", "block"} or array of bool, shape (m, n)
        Where they are. ``"uniform"``: uniformly random, in each trial anew. ``"star"``: all of row 0 and column 0,
        the rest uniformly random. ``"block"``: row 0 and column 0, then the top-left s x s block, s as large as
        fits, the rest uniformly random. An array is the support itself; `density` is then not given.
    alpha_of : {"support", "complete"}
        Whose spanning forest is meant by alpha, in the default `k` and in the denominator: that of the trial's own
        support (m + n - kappa, kappa its components) or that of the complete graph (m + n - 1). The two differ only
        where the support is disconnected.
    trials : int
        From 1 to 10^9. A run of more trials begins with the same draws.
    seed : int, optional
        From 0 to 2^64 - 1. None draws one; the estimate records it.
    threads : int, optional
        At least 1; None takes every processor at hand. The numbers do not depend on it, nor on what counts: the first
        5 million cells that a process draws are counted by numpy in one thread, which takes less than loading the
        compiled kernels (4,600 trials at 784 x 300; 200 trials of all layers with m + n up to 25,000).
    progress : callable, optional
        Called with (trials done, trials) after every batch.

    Returns
    -------
    Estimate
        With k = 0 the mean is 0; where m or n is 1 it is min(k / alpha, 1), as every cell is in the forest.

    Raises
    ------
    ValueError
        If an argument is out of range, the support has no cell, or a star does not fit the density.

    Examples
    --------
    >>> from topobounds.montecarlo import simulate_overlap
    >>> estimate = simulate_overlap(784, 300, seed=1)
    >>> estimate.k, estimate.trials
    (1083, 200)
    >>> abs(estimate.mean - 0.7996) < 5 * estimate.standard_error
    True
    """
    m, n = integer("m", m, 1), integer("n", n, 1)
    check_neurons(m, n)
    drawn = _support(m, n, density, support)
    choice("alpha_of", alpha_of, ("support", "complete"))
    k = None if k is None else integer("k", k, 0)
    limit = _limit(drawn, k, alpha_of)
    trials = integer("trials", trials, 1, most=MOST_TRIALS)
    seed = checked_seed(seed)
    workers = processors() if threads is None else integer("threads", threads, 1)
    return _simulated(drawn, limit, alpha_of, trials, seed, workers, progress)


def simulate_overlap_of(
    support: Support, k: int | None, *, trials: int, seed: int, progress: Progress | None = None
) -> Estimate:
    """Return `simulate_overlap` of checked arguments: k at most the cells of the support, or None for its alpha."""
    return _simulated(support, _limit(support, k, "support"), "support", trials, seed, processors(), progress)


def _simulated(
    drawn: Support,
    limit: int | None,
    alpha_of: str,
    trials: int,
    seed: int,
    workers: int,
    progress: Progress | None,
) -> Estimate:
    """Return the estimate of so many trials; `limit` is the number of cells that each takes, as in `_limit`."""
    law = _law(drawn, limit, seed, trials, workers, progress)
    return _estimate(drawn, limit, alpha_of, seed, law)


def retained_counts(
    m: int, n: int, k: int, *, support: str | ArrayLike = "uniform", trials: int = 200, seed: int
) -> Counter[int]:
    """Return in how many trials of `simulate_overlap` so many forest edges were among the k largest weights.

    Parameters
    ----------
    m, n, k, support, trials, seed
        As in `simulate_overlap`; a named support has all m n cells.

    Returns
    -------
    Counter
        Trials by |forest ∩ top-k|.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> sorted(retained_counts(2, 2, 3, trials=5, seed=0).items())
    [(3, 5)]
    """
    drawn = _support(integer("m", m, 1), integer("n", n, 1), 1.0, support)
    limit = _limit(drawn, k, "support")
    law = _law(drawn, limit, seed, integer("trials", trials, 1, most=MOST_TRIALS), processors())
    counts: Counter[int] = Counter()
    for (retained, _), count in law.items():
        counts[retained] += count
    return counts


# -- supports --------------------------------------------------------------------------------------------------------


def _support(m: int, n: int, density: float, support: str | ArrayLike) -> Support:
    """Return the support that trials draw from, the alpha of a mask counted."""
    checked = read_support(m, n, density, support)
    if checked.name != "mask" or checked.fixed is None:
        return checked
    forest = _Forests(1, m, n)
    for first in range(0, checked.cells, NUMPY_BATCH):
        cells = checked.fixed[first : first + NUMPY_BATCH]
        forest.add(np.zeros_like(cells), cells)
    return replace(checked, alpha=int(forest.ranks()[0]))


def _limit(support: Support, k: int | None, alpha_of: str) -> int | None:
    """Return the number of cells to take, None for the alpha of each trial's own support."""
    if k is None and alpha_of == "support":
        return support.alpha
    if k is None and support.complete_alpha > support.cells:
        rule = f"large enough for {support.complete_alpha} cells, the alpha of the complete graph"
        raise argument_error("density", rule, support.density)
    k = support.complete_alpha if k is None else k
    if k > support.cells:
        raise argument_error("k", f"at most {support.cells}, the number of cells of the support", k)
    return k


# -- trials ----------------------------------------------------------------------------------------------------------


def _law(
    support: Support, limit: int | None, seed: int, trials: int, threads: int, progress: Progress | None = None
) -> Counter[tuple[int, int]]:
    """Return how many trials had which |forest ∩ top-k| and which alpha of the support."""
    law: Counter[tuple[int, int]] = Counter()
    for alphas, retained in _batches(support, limit, seed, trials, threads):
        codes, counts = np.unique(retained << 32 | alphas, return_counts=True)
        law.update({divmod(code, 1 << 32): count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)})
        if progress is not None:
            progress(law.total(), trials)
    return law


def _batches(
    support: Support, limit: int | None, seed: int, trials: int, threads: int
) -> Iterator[tuple[Integers, Integers]]:
    """Yield, batch by batch, alpha and |forest ∩ top-k| of each trial."""
    work = _work(support, limit)
    large = support.m * support.n > NUMPY_POPULATION
    if large and kernels_disabled():
        most = f"at most {NUMPY_POPULATION} cells where NUMBA_DISABLE_JIT is set"
        raise ValueError(f"Arguments 'm' and 'n' must make {most}, not {support.m * support.n}.")
    compiled = large or not _NUMPY_BUDGET.affords(trials * work)
    size = max(1, (COMPILED_BATCH if compiled else NUMPY_BATCH) // work)
    batches = (range(first, min(first + size, trials)) for first in range(0, trials, size))
    ranks = _compiled_ranks if compiled else _numpy_ranks
    run = partial(_run, support, limit, seed, ranks)
    return _in_threads(run, batches, threads) if compiled else map(run, batches)


def _work(support: Support, limit: int | None) -> int:
    """Return about how many cells a trial draws: the limit, or what it takes to connect the support."""
    vertices = support.m + support.n
    top = vertices if limit is None else limit
    if support.name != "mask":
        top = min(top, 16 * vertices)
    return 1 + top + (min(support.cells, 8 * vertices) if support.alpha is None else 0)


def _in_threads(
    run: Callable[[range], tuple[Integers, Integers]], batches: Iterator[range], threads: int
) -> Iterator[tuple[Integers, Integers]]:
    """Yield the result of each batch, in order; what has not begun when the caller stops is not done."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        pending = deque(pool.submit(run, batch) for batch in islice(batches, 2 * threads))
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(run, batch) for batch in islice(batches, 1))
        finally:
            for future in pending:
                future.cancel()


_RankFunction = Callable[[Support, Words, Integers, int], Integers]


def _run(
    support: Support, limit: int | None, seed: int, ranks: _RankFunction, trials: range
) -> tuple[Integers, Integers]:
    """Return alpha of the support and |forest ∩ top-k| of each of these trials."""
    streams = _streams(seed, trials)
    if support.alpha is None:
        alphas = ranks(support, streams, np.full(len(trials), support.cells), support.complete_alpha)
    else:
        alphas = np.full(len(trials), support.alpha)
    limits = alphas if limit is None else np.full(len(trials), limit)
    return alphas, ranks(support, streams, limits, support.alpha or support.complete_alpha)


# Both functions below return, for each stream, the rank of the first cells that it draws, as many as its limit says.
# A trial whose rank has reached `full` is over: no cell can add to it.


def _compiled_ranks(support: Support, streams: Words, limits: Integers, full: int) -> Integers:
    """Return the ranks, by the compiled kernel: for many trials."""
    from topobounds._kernels.montecarlo import draw_ranks

    vertices = support.m + support.n
    most = min(int(limits.max()), 16 * vertices)
    edges = np.empty((2, min(max(vertices, 64), 4096)), np.uint32)
    parents = np.empty(vertices, np.uint32)
    ranks = np.zeros(limits.size, np.int64)
    sides, slots = (max(support.m, support.n), min(support.m, support.n)), 0 if support.fixed is None else support.cells
    done = 0
    # A hash table that turns out too small gives way to a bitmap.
    for load in (most, math.inf):
        cells, slot_set = _set(support.n_free, load), _set(slots, load)
        seen, shifts = (cells[0], slot_set[0]), (cells[1], slot_set[1])
        layout = (sides, support.m >= support.n, support.side, slots, support.fixed_edges)
        done = draw_ranks(streams, limits, done, full, *layout, seen, shifts, edges, parents, ranks)
        if done == limits.size:
            break
    return ranks


def _set(population: int, load: float) -> tuple[Words, int]:
    """Return an empty set for the kernel, and its shift: 0 for a bitmap, else 64 less the bits of a hash table."""
    if population <= max(BITMAP_CELLS, TABLE_CELLS * load):
        return np.zeros(population // 64 + 1, np.uint64), 0
    bits = int(4 * load).bit_length()
    return np.zeros(1 << bits, np.uint64), 64 - bits


def _numpy_ranks(support: Support, streams: Words, limits: Integers, full: int) -> Integers:
    """Return the ranks, by numpy: for few trials."""
    ranks = np.zeros(limits.size, np.int64)
    forests = _Forests(limits.size, support.m, support.n)
    live = np.flatnonzero(limits > 0)
    start, stop = 0, 8 * (support.m + support.n)  # connects nearly every uniform support
    while live.size:
        stop = min(stop, int(limits[live].max()))
        cells = _top_cells(support, streams[:, :, live], stop)[:, start:]
        taken = np.arange(start, stop) < limits[live, None]
        forests.add(np.broadcast_to(live[:, None], cells.shape)[taken], cells[taken])
        ranks = forests.ranks()
        live = live[(ranks[live] < full) & (limits[live] > stop)]
        start, stop = stop, 2 * stop
    return ranks


def _top_cells(support: Support, streams: Words, count: int) -> Integers:
    """Return the first `count` cells of each trial's support in a uniformly random order, shape (trials, count)."""
    if support.fixed is None:
        return _first_distinct(streams[0], count, support.n_free, lambda words: _pairs(words, support.m, support.n))
    slots = _first_distinct(streams[1], count, support.cells, lambda words: _below(words, support.cells))
    is_free = slots >= support.fixed.size
    cells = support.fixed[np.where(is_free, 0, slots)]
    # The free cells of the support enter in a random order too: the next one is the next fresh cell of its stream.
    most = int(is_free.sum(axis=1).max())
    if most:
        index = _first_distinct(streams[0], most, support.n_free, lambda words: _below(words, support.n_free))
        entered = np.arange(most) < is_free.sum(axis=1, keepdims=True)
        cells[is_free] = support.free_cells(index[entered])
    return cells


class _Forests:
    """Spanning forests of many bipartite graphs at a time, by numpy.

    A vertex of the longer side hangs on one vertex of the shorter side, its anchor. So a vertex of the longer side
    that has a cell counts 1 towards the rank, and the other cells become edges between vertices of the shorter side.
    """

    def __init__(self, trials: int, m: int, n: int) -> None:
        self.columns, self.by_row = n, m >= n
        self.n_anchors, self.n_roots = max(m, n), min(m, n)
        self.anchors = np.full(trials * self.n_anchors, -1)
        self.parents = np.arange(trials * self.n_roots)

    def add(self, trials: Integers, cells: Integers) -> None:
        """Add cells, each to the graph of its trial; both arrays are flat."""
        rows = cells // self.columns
        columns = cells - rows * self.columns
        outer, inner = (rows, columns) if self.by_row else (columns, rows)
        outer = outer + trials * self.n_anchors
        inner = inner + trials * self.n_roots
        loose = self.anchors[outer] < 0
        self.anchors[outer[loose]] = inner[loose]
        self._unite(self.anchors[outer], inner)

    def _unite(self, u: Integers, v: Integers) -> None:
        """Join the ends of each edge: hook the higher root on the lower, flatten, repeat with the edges still apart."""
        while True:
            u, v = self.parents[u], self.parents[v]
            apart = u != v
            if not apart.any():
                return
            u, v = u[apart], v[apart]
            self.parents[np.maximum(u, v)] = np.minimum(u, v)
            flatter = self.parents[self.parents]
            while not np.array_equal(flatter, self.parents):
                self.parents, flatter = flatter, flatter[flatter]

    def ranks(self) -> Integers:
        """Return the rank of each graph: its vertices less its components."""
        hung = (self.anchors >= 0).reshape(-1, self.n_anchors).sum(axis=1)
        merged = (self.parents != np.arange(self.parents.size)).reshape(-1, self.n_roots).sum(axis=1)
        return np.asarray(hung + merged, np.int64)


# -- random words ----------------------------------------------------------------------------------------------------


def _streams(seed: int, trials: range) -> Words:
    """Return the two streams of each trial, shape (2, 2, trials): cells and slots, each a start and a step.

    Word c = 1, 2, ... of a stream is ``mix(start + c * step)``: SplitMix64 with a step of its own for each stream
    (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    base = _mix(np.array([seed], np.uint64))
    numbers = np.arange(2 * trials.start, 2 * trials.stop, dtype=np.uint64).reshape(-1, 2).T
    starts = _mix(base + numbers * _GOLDEN)
    steps = _mix(starts ^ _GOLDEN) | 1
    # The paper's remedy for steps with too few bit changes.
    steps[np.bitwise_count(steps ^ (steps >> 1)) < 24] ^= 0xAAAAAAAAAAAAAAAA
    return np.stack([starts, steps], axis=1)


def _mix(x: Words) -> Words:
    """Return the 64-bit finalizer of SplitMix64."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _first_distinct(stream: Words, count: int, population: int, decode: Callable[[Words], Integers]) -> Integers:
    """Return the first `count` distinct values of each stream, in the order drawn, shape (trials, count).

    `decode` makes of words uniform values in [0, population), or -1 for a word to be skipped.
    """
    n_words = _words_for(count, population)
    while True:
        counter = np.arange(1, n_words + 1, dtype=np.uint64)
        values = decode(_mix(stream[0, :, None] + stream[1, :, None] * counter))
        fresh = _is_first(values)
        entered = np.cumsum(fresh, axis=1)
        if (entered[:, -1] >= count).all():
            return values[fresh & (entered <= count)].reshape(-1, count)
        n_words *= 2


def _words_for(count: int, population: int) -> int:
    """Return how many words hold `count` distinct values, nearly always: mean plus five standard deviations.

    The mean and variance are those of the coupon collector, for words of which all (or, if `population` is no power
    of two, at least half) are in range; too few words cost a second attempt, nothing else.
    """
    left = (population - count + 0.5) / population
    mean = max(count, -population * math.log(left))
    variance = population * (1 / left - 1) - mean
    return math.ceil(mean + 5 * math.sqrt(max(variance, 0))) + 8


def _is_first(values: Integers) -> NDArray[np.bool_]:
    """Return where a value, not -1, occurs for the first time in its row."""
    fresh = values >= 0
    bits = values.shape[1].bit_length()
    order = (values << bits) | np.arange(values.shape[1])
    order.sort(axis=1)
    same = (order[:, 1:] >> bits) == (order[:, :-1] >> bits)
    rows, places = np.nonzero(same)
    fresh[rows, order[rows, places + 1] & ((1 << bits) - 1)] = False
    return fresh


def _pairs(words: Words, m: int, n: int) -> Integers:
    """Return a uniformly random cell for each word: the row from its upper half, the column from its lower half.

    Lemire's method, without bias: a word is skipped if either product falls into the incomplete interval.
    """
    rows, columns = (words >> 32) * m, (words & 0xFFFFFFFF) * n
    cells = ((rows >> 32) * n + (columns >> 32)).astype(np.int64)
    cells[((rows & 0xFFFFFFFF) < (1 << 32) % m) | ((columns & 0xFFFFFFFF) < (1 << 32) % n)] = -1
    return cells


def _below(words: Words, population: int) -> Integers:
    """Return the top bits of each word, as many as `population` needs; -1 where they are out of range."""
    values = (words >> (64 - max(1, (population - 1).bit_length()))).astype(np.int64)
    values[values >= population] = -1
    return values


# -- the estimate ----------------------------------------------------------------------------------------------------


def _estimate(support: Support, limit: int | None, alpha_of: str, seed: int, law: Counter[tuple[int, int]]) -> Estimate:
    """Return the estimate of a law: how many trials had which |forest ∩ top-k| and which alpha of the support."""
    counts = sorted(law.items())
    connected = [item for item in counts if item[0][1] == support.complete_alpha]
    alphas = {alpha for (_, alpha), _ in counts}
    trials = law.total()
    of: dict[str, Any] = {} if alpha_of == "support" else {"alpha": support.complete_alpha}
    mean, deviation = _moments(counts, **of)
    mean_connected, deviation_connected = _moments(connected)
    n_connected = sum(count for _, count in connected)
    mean_alpha = sum(alpha * count for (_, alpha), count in counts) / trials
    k = min(alphas) if limit is None and len(alphas) == 1 else limit
    return Estimate(
        mean=mean,
        standard_error=deviation / math.sqrt(trials),
        trials=trials,
        seed=seed,
        m=support.m,
        n=support.n,
        k=k,
        density=support.density,
        support=support.name,
        cells=support.cells,
        alpha_of=alpha_of,
        alpha=float(of.get("alpha", mean_alpha)),
        standard_deviation=deviation,
        connected=n_connected / trials,
        mean_connected=mean_connected,
        standard_error_connected=deviation_connected / math.sqrt(max(n_connected, 1)),
        reason=_reason(k, mean_alpha, trials, n_connected),
    )


def _reason(k: int | None, mean_alpha: float, trials: int, n_connected: int) -> str | None:
    """Return why numbers of an estimate are missing."""
    said = []
    if k is None:
        said.append(f"Each trial took the alpha of its own support for k, {mean_alpha:.1f} on average.")
    if trials == 1:
        said.append("One trial says nothing about its own error.")
    if not n_connected:
        said.append("No support was connected, so these have no mean.")
    elif n_connected == 1 < trials:
        said.append("One support was connected, so the mean over these has no standard error.")
    return " ".join(said) or None


def _moments(counts: list[tuple[tuple[int, int], int]], alpha: int | None = None) -> tuple[float, float]:
    """Return mean and standard deviation of retained / alpha, of which only the results are rounded."""
    total = sum(count for _, count in counts)
    if not total:
        return math.nan, math.nan
    overlaps = [(Fraction(retained, alpha or own), count) for (retained, own), count in counts]
    mean = sum(count * x for x, count in overlaps) / total
    if total == 1:
        return float(mean), math.nan
    variance = sum(count * (x - mean) ** 2 for x, count in overlaps) / (total - 1)
    return float(mean), math.sqrt(variance)
