"""The law of the critical rank: how far plain magnitude pruning can go with the diagram intact, certified.

The k largest of exchangeable weights are the uniformly random bipartite graph G(m, n; k), and the critical rank k* is
the first k at which it is connected. Small layers are counted exactly. In larger ones a graph that is not connected has
an isolated vertex, counted by inclusion and exclusion, or a component of 2 to (m + n) / 2 vertices, bounded in
expectation (`topobounds.theory._components`). The proofs are in docs/theory/critical_rank.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import argument_error, real
from topobounds._cache import cached
from topobounds._records import Record, plain_record
from topobounds._types import FloatArray
from topobounds.layers.shape import Shape
from topobounds.theory._balls import Ball, ball_sum
from topobounds.theory._components import Effort, components_by_size
from topobounds.theory._logarithms import log_binomial, log_ratio
from topobounds.theory._rounding import ROUNDING_FACTOR, ROUNDING_UNIT, SUBNORMAL
from topobounds.theory.counting import QUICK_STEPS, connected_graphs, connected_steps
from topobounds.theory.enclosure import MAX_ENCLOSURE_CELLS, Enclosure, rounded_outwards

_MOST_COUNTED = 2**11  # cells of a layer that is counted, if that takes no more than QUICK_STEPS
LEVELS = 48  # numbers of isolated vertices up to which inclusion and exclusion goes
_LARGEST_TERM = 600.0  # logarithm of a term up to which the terms of all levels can be added in double precision
_EFFORT = Effort(least=16)  # components of more vertices are next to none here
_SMALLEST = math.ulp(0.0)  # an upper bound on positive numbers that a double cannot hold
_SUM_FACTOR = 1 + 2.0**-40  # more than the rounding in geometric sums
NODES = 40  # ranks between which the distribution function is bounded by its log-concavity


@dataclass(frozen=True)
class CriticalRankLaw(Record):
    """The law of the critical rank k* of an m x n layer, for exchangeable |w| with almost surely distinct magnitudes.

    Attributes
    ----------
    m, n : int
        The layer.
    median : Enclosure
        Contains the least k at which at least half of all layers are connected; both ends are integers.
    low, high : Enclosure
        Contain the quantiles at 0.05 and 0.95.
    """

    m: int
    n: int
    median: Enclosure
    low: Enclosure
    high: Enclosure

    @property
    def mean(self) -> Fraction | Enclosure:
        """E[k*]: exact where the layer is small enough to count, an interval that contains it elsewhere."""
        return _mean(max(self.m, self.n), min(self.m, self.n))

    def quantile(self, probability: float) -> Enclosure:
        """Return an interval that contains the quantile of k* at `probability`, min{k : P(k* <= k) >= probability}.

        Parameters
        ----------
        probability : float
            In [0, 1]. At 0 it is the least k* that occurs, m + n - 1, and at 1 the largest, m n - min(m, n) + 1.

        Returns
        -------
        Enclosure
            Both ends are integers.

        Raises
        ------
        ValueError
            If `probability` is no number in [0, 1].

        Examples
        --------
        >>> critical_rank_law(784, 300).quantile(0.99)
        Enclosure(lower=8663, upper=8663)
        """
        probability = real("probability", probability, "a number in [0, 1]", 0.0, 1.0)
        return _quantile(max(self.m, self.n), min(self.m, self.n), probability)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, the mean and ``schema_version`` as plain Python, ready for ``json.dumps``."""
        return {**super().to_dict(), "mean": plain_record(self.mean)}


def connection_probability(m: int, n: int, k: int) -> Enclosure:
    """Return an interval that contains P(k* <= k), the chance that the k largest weights of a layer connect it.

    Exact up to rounding for small layers (to about 16 x 16), for k = alpha = m + n - 1, where it is
    ``m^(n-1) n^(m-1) / C(m n, alpha)`` (Scoins 1962), below alpha and from ``m n - min(m, n) + 1`` on. Elsewhere ::

        B_odd - M <= P(k* <= k) <= min(B_even, (1 - q(n))^m, (1 - q(m))^n, m^(n-1) n^(m-1) C(k, alpha) / C(m n, alpha))

    with M a bound on the expected number of components of 2 to (m + n) / 2 vertices where no vertex is isolated, and B
    the partial sums of ::

        P(no vertex is isolated) = sum_{a, b} (-1)^(a+b) C(m, a) C(n, b) C((m-a)(n-b), k) / C(m n, k)

    over all a + b <= s, s odd or even, and ``q(c) = C(m n - c, k) / C(m n, k)``.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.
    k : int
        Largest weights kept, 0 to m n.

    Returns
    -------
    Enclosure
        Within [0, 1], for exchangeable |w| with almost surely distinct magnitudes. At the median it is 0.02 wide for
        17 x 17, where exact counting ends, 0.004 at 100 x 100, 5e-4 at 1000 x 1000 and 3e-8 at 784 x 300.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    connection_limit : An approximation for layers of any size.

    Notes
    -----
    docs/theory/critical_rank.md, "Any size".

    Examples
    --------
    >>> chance = connection_probability(784, 300, 5448)
    >>> f"{chance.lower:.6f} {chance.upper:.6f}"
    '0.500258 0.500258'
    """
    m, n, k = Shape.checked(m, n, k)
    m, n = max(m, n), min(m, n)
    _check_cells(m, n)
    if k < m + n - 1:
        return Enclosure(0.0, 0.0)
    if k > m * n - n:
        return Enclosure(1.0, 1.0)
    if _is_counted(m, n):
        return rounded_outwards(Fraction(_connected_graphs(m, n)[k], math.comb(m * n, k)))
    return _enclosed(m, n, k)


def connection_limit(m: int, n: int, k: int) -> float:
    """Return the limit law of P(k* <= k), at m, n and k: that the k largest weights of a random layer connect it.

    ::

        P(k* <= k) ~ exp(-m q(n) - n q(m)),     q(c) = C(m n - c, k) / C(m n, k)

    For large layers the last things to be connected are single neurons, whose number is nearly Poisson.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int
        Largest weights kept, 0 to m n.

    Returns
    -------
    float
        In [0, 1]; 0 below k = m + n - 1 and 1 from k = m n - min(m, n) + 1 on, which is exact. An approximation, good
        from some tens of rows and columns on, not a bound; `connection_probability` encloses the truth.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(connection_limit(784, 300, 5448), 3)
    0.501
    """
    m, n, k = Shape.checked(m, n, k)
    if k < m + n - 1:
        return 0.0
    if k > m * n - min(m, n):
        return 1.0
    many, few = max(m, n), min(m, n)
    isolated = many * _chance_of_empty(m * n, k, few)
    if k <= m * n - many:
        isolated += few * _chance_of_empty(m * n, k, many)
    return math.exp(-isolated)


def critical_rank_limit(m: int, n: int, probability: float = 0.5) -> int:
    """Return the quantile of the limit law of the critical rank: the least k with `connection_limit` >= probability.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    probability : float
        In [0, 1].

    Returns
    -------
    int
        From m + n - 1 to m n - min(m, n) + 1. An approximation; `critical_rank_law` has certified quantiles.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> critical_rank_limit(784, 300), critical_rank_law(784, 300).median
    (5445, Enclosure(lower=5448, upper=5448))
    """
    m, n, alpha = Shape.checked(m, n, None)
    probability = real("probability", probability, "a number in [0, 1]", 0.0, 1.0)
    return _first_rank(lambda k: connection_limit(m, n, k) >= probability, alpha, m * n - min(m, n) + 1)


def critical_rank_law(m: int, n: int) -> CriticalRankLaw:
    """Return the law of the critical rank k*: the number of largest weights from which on they connect the layer.

    Magnitude pruning keeps the diagram of a layer iff it keeps at least k* weights. The median over m n is the safe
    density to be expected.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52; the law is symmetric in them.

    Returns
    -------
    CriticalRankLaw
        Median, quantiles and mean, certified: exact for small layers, elsewhere intervals.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    docs/theory/critical_rank.md, "The law".

    Examples
    --------
    >>> law = critical_rank_law(784, 300)
    >>> law.median, law.low, law.high
    (Enclosure(lower=5448, upper=5448), Enclosure(lower=4332, upper=4332), Enclosure(lower=7430, upper=7430))
    >>> critical_rank_law(3, 4).mean
    Fraction(15839, 2310)
    """
    return critical_rank_law_of(Shape.checked(m, n, None))


def critical_rank_law_of(shape: Shape) -> CriticalRankLaw:
    """Return the `critical_rank_law` of a layer of a checked shape."""
    _check_cells(shape.m, shape.n)
    return _law(shape.m, shape.n)


@cached(1024)
def _law(m: int, n: int) -> CriticalRankLaw:
    low, median, high = (_quantile(max(m, n), min(m, n), probability) for probability in (0.05, 0.5, 0.95))
    return CriticalRankLaw(m, n, median, low, high)


def _quantile(m: int, n: int, probability: float) -> Enclosure:
    """Return an interval that contains the quantile, for m >= n.

    By the monotony of P(k* <= k) every k with a lower bound of at least `probability` is an upper end, and every k
    after one with an upper bound below it a lower end; bisection need not know whether the bounds rise.
    """
    first, last = m + n - 1, m * n - n + 1
    if n == 1 or probability in (0.0, 1.0):
        k = last if probability else first
        return Enclosure(k, k)
    if _is_counted(m, n):
        counts, chance = _connected_graphs(m, n), Fraction(probability)
        k = _first_rank(lambda k: counts[k] >= chance * math.comb(m * n, k), first, last)
        return Enclosure(k, k)
    least = _first_rank(lambda k: _upper(m, n, k) >= probability, first, last)
    # Middle components are few, so the upper end is found by short steps from where they are left out.
    reached = _first_rank(lambda k: _none_isolated(m, n, k).lower >= probability, least, last)
    step = 1
    while reached < last and _lower(m, n, reached) < probability:
        below = reached
        reached = min(last, reached + step)
        step *= 2
    if step > 2:
        reached = _first_rank(lambda k: _lower(m, n, k) >= probability, below + 1, reached)
    return Enclosure(least, reached)


def _first_rank(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the least k from `low` to `high` at which a condition holds that goes on holding, as it does at `high`."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=1024)
def _mean(m: int, n: int) -> Fraction | Enclosure:
    """Return E[k*], for m >= n."""
    if n == 1:
        return Fraction(m)
    return _exact_mean(m, n) if _is_counted(m, n) else _enclosed_mean(m, n)


def _check_cells(m: int, n: int) -> None:
    if m * n > MAX_ENCLOSURE_CELLS:
        rule = f"so small that m n is at most 2^52 (connection_limit takes any size) at n={n}"
        raise argument_error("m", rule, m)


# -- exactly ---------------------------------------------------------------------------------------------------------


def _is_counted(m: int, n: int) -> bool:
    """Return whether the layer is small enough to be counted."""
    return m * n <= _MOST_COUNTED and connected_steps(m, n) <= QUICK_STEPS


@lru_cache(maxsize=64)
def _connected_graphs(m: int, n: int) -> list[int]:
    return connected_graphs(m, n)


def _exact_mean(m: int, n: int) -> Fraction:
    """Return E[k*] = sum_k (1 - P(k* <= k)), each P being a count over m n choose k."""
    cells = m * n
    factorials = [1]
    for i in range(1, cells + 1):
        factorials.append(factorials[-1] * i)
    total = sum(c * factorials[k] * factorials[cells - k] for k, c in enumerate(_connected_graphs(m, n)))
    return cells + 1 - Fraction(total, factorials[cells])


# -- in an interval --------------------------------------------------------------------------------------------------


def _enclosed(m: int, n: int, k: int) -> Enclosure:
    """Return an interval that contains P(k* <= k), for alpha <= k <= m n - n and m >= n >= 2."""
    return Enclosure(_lower(m, n, k), _upper(m, n, k))


def _lower(m: int, n: int, k: int) -> float:
    if k == m + n - 1:
        return float(_log_trees(m, n, k).exp_below())
    none_isolated = _none_isolated(m, n, k).lower
    return max(0.0, (none_isolated - _middle(m, n, k)) * (1 - ROUNDING_UNIT)) if none_isolated else 0.0


def _upper(m: int, n: int, k: int) -> float:
    trees = float(_log_trees(m, n, k).exp_above())
    return max(min(_none_isolated(m, n, k).upper, trees), _SMALLEST)


def _log_trees(m: int, n: int, k: int) -> Ball:
    """Return the logarithm of the expected number of spanning trees: of the chance of one if k = m + n - 1."""
    by_columns = np.array((n - 1) * math.log(m))
    by_rows = np.array((m - 1) * math.log(n))
    drawn = log_ratio(m * n, np.array(float(m + n - 1)), m * n - k)  # that given cells are all among the k
    return ball_sum(by_columns, by_rows, drawn)


def _no_row_empty(m: int, n: int, k: int) -> float:
    """Return an upper bound on the chance that none of the m rows is empty: (1 - q(n))^m."""
    if n + k > m * n:
        return 1.0
    return math.exp(m * math.log1p(-float(_log_empty(m * n, k, n).exp_below()))) * ROUNDING_FACTOR + SUBNORMAL


class _IsolatedSets(NamedTuple):
    """All sets of up to LEVELS vertices by their numbers of rows and columns."""

    level: NDArray[np.intp]  # vertices
    cells: FloatArray  # that are empty if they are isolated
    log_sets: Ball  # logarithm of the number of such sets


@lru_cache(maxsize=64)
def _isolated_sets(m: int, n: int) -> _IsolatedSets:
    every = np.indices((min(m, LEVELS) + 1, min(n, LEVELS) + 1)).reshape(2, -1)
    a, b = every[:, every.sum(axis=0) <= LEVELS]
    log_sets = ball_sum(log_binomial(m, a.astype(float)), log_binomial(n, b.astype(float)))
    return _IsolatedSets(a + b, (a * n + b * m - a * b).astype(float), log_sets)


@lru_cache(maxsize=4096)
def _none_isolated(m: int, n: int, k: int) -> Enclosure:
    """Return an interval in [0, 1] that contains the chance that no vertex is isolated.

    By inclusion and exclusion, whose sums that end with an odd number of vertices are lower bounds, and those that end
    with an even one upper bounds (Bonferroni): the best of them.
    """
    if min(m, n) < 1 or k > m * n:
        return Enclosure(0.0, 1.0)
    sets = _isolated_sets(m, n)
    possible = sets.cells <= m * n - k
    log_term = ball_sum(sets.log_sets, log_ratio(m * n, np.where(possible, sets.cells, 0.0), k))
    with np.errstate(over="ignore"):
        each_above = np.where(possible, log_term.exp_above(), 0.0) * ROUNDING_FACTOR
        term_above = np.bincount(sets.level, each_above)
    finite = Ball(np.minimum(log_term.mid, _LARGEST_TERM), log_term.rad)
    each_below = np.where(possible, finite.exp_below(), 0.0) / ROUNDING_FACTOR
    term_below = np.bincount(sets.level, each_below)
    even = np.arange(len(term_below)) % 2 == 0
    with np.errstate(over="ignore"):
        lower = np.cumsum(np.where(even, term_below, -term_above))[~even]
        upper = np.cumsum(np.where(even, term_above, -term_below))[even]
    best_upper = min(float(upper.min()), _no_row_empty(m, n, k), _no_row_empty(n, m, k), 1.0)
    best_upper = max(best_upper, _SMALLEST)
    return Enclosure(min(best_upper, max(0.0, float(lower.max()))), best_upper)


@lru_cache(maxsize=4096)
def _middle(m: int, n: int, k: int) -> float:
    """Return an upper bound on the expected components of 2 to (m + n) / 2 vertices where no vertex is isolated.

    Those of 2 and of 3 vertices have 1 and 2 edges, and the rest is a random graph too, without an isolated vertex.
    """
    by_size, larger = components_by_size(m, n, k, _EFFORT)
    pairs, paths = (*by_size.every[2:4], 0.0, 0.0)[:2]
    pairs *= _none_isolated(m - 1, n - 1, k - 1).upper
    paths *= max(_none_isolated(m - 1, n - 2, k - 2).upper, _none_isolated(m - 2, n - 1, k - 2).upper)
    return float(pairs + paths + by_size.every[4:].sum() + larger) * ROUNDING_FACTOR


def _log_empty(cells: int, k: int, c: int) -> Ball:
    """Return log q(c) for c <= cells - k."""
    return log_ratio(cells, np.array(float(c)), k)


def _chance_of_empty(cells: int, k: int, c: int) -> float:
    """Return q(c) for c <= cells - k, to the last digits."""
    return math.exp(_log_empty(cells, k, c).mid)


def _enclosed_mean(m: int, n: int) -> Enclosure:
    """Return an interval that contains E[k*] = last - sum_{k < last} P(k* <= k), for m >= n >= 2."""
    first, last = m + n - 1, m * n - n + 1
    # Most of the ranks stand where the probability rises from next to 0; beyond the last of them it is next to 1.
    start = critical_rank_limit(m, n, math.exp(-9))
    end = critical_rank_limit(m, n, 1 - 1e-12)
    bend = critical_rank_limit(m, n, 0.99)
    spaced = [*np.linspace(start, bend, NODES), *np.linspace(bend, end, NODES // 2)]
    ranks = np.unique([first, *np.array(spaced, dtype=np.int64), last])
    points = [_enclosed(m, n, k) for k in ranks[:-1].tolist()]
    lower = np.array([*(point.lower for point in points), 1.0])
    upper = np.array([*(point.upper for point in points), 1.0])
    gaps = np.diff(ranks).astype(float)
    least = float(np.sum(_sums_below(gaps, lower)))
    most = float(np.sum(_sums_above(gaps, lower, upper)))
    return Enclosure(max(first, last - most * _SUM_FACTOR), last - least / _SUM_FACTOR)


def _sums_below(gaps: FloatArray, lower: FloatArray) -> FloatArray:
    """Return lower bounds on the sums of P(k* <= k) over the ranks from each one of a list to before the next.

    P is log-concave in k, so between two ranks it is above the geometric sequence that joins its lower bounds.
    """
    positive = (lower[:-1] > 0) & (lower[1:] > 0)
    ratio = np.divide(lower[1:], lower[:-1], out=np.ones_like(gaps), where=positive)
    return lower[:-1] * _geometric_sum(np.log(ratio) / gaps, gaps)


def _sums_above(gaps: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Return upper bounds on the sums of P(k* <= k) over the ranks from each one of a list to before the next.

    P is below the continuation of the geometric sequences that join it at the two ranks before, and at the two ranks
    after; the one is taken for the first half of a gap, the other for the second. And P rises.
    """
    sums = gaps * upper[1:]
    inner = np.arange(1, len(gaps) - 1)
    first_half = np.floor(gaps[inner] / 2)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        before = np.log(upper[inner] / lower[inner - 1]) / gaps[inner - 1]
        after = np.log(lower[inner + 2] / upper[inner + 1]) / gaps[inner + 1]
        rising = upper[inner] * _geometric_sum(before, first_half)
        falling = upper[inner + 1] * np.exp(-after) * _geometric_sum(-after, gaps[inner] - first_half)
    sums[inner] = np.fmin(sums[inner], rising + falling)
    return sums


def _geometric_sum(step: FloatArray, count: FloatArray) -> FloatArray:
    """Return sum_{j < count} exp(step j)."""
    safe = np.where(step == 0, 1.0, step)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(step == 0, count, np.expm1(safe * count) / np.expm1(safe))


@dataclass(frozen=True)
class CriticalRank(Record):
    """What is to be expected of the critical rank k* of a dense layer.

    Attributes
    ----------
    m, n : int
        The layer.
    median, low, high : int
        The median of k* and its quantiles at 0.05 and 0.95, by `critical_rank_quantile`.
    mean : float
        Its expectation; the middle of the interval that contains it.
    density : float
        Safe density, median / (m n).
    eta_magnitude : float
        Compression at the median, m n / median: what magnitude pruning reaches at zero topological loss.
    eta_tau : float
        m n / (m + n - 1), what T-IMP reaches.
    """

    m: int
    n: int
    median: int
    low: int
    high: int
    mean: float
    density: float
    eta_magnitude: float
    eta_tau: float


def critical_rank_quantile(m: int, n: int, probability: float = 0.5) -> int:
    """Return the least k that is proved to connect at least a share `probability` of all layers: P(k* <= k) >= it.

    The upper end of the certified quantile: exact for small layers and for most shapes that are not square, a few
    ranks too many at most elsewhere.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.
    probability : float
        In [0, 1].

    Returns
    -------
    int
        From m + n - 1 to m n - min(m, n) + 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    topobounds.theory.critical_rank.critical_rank_limit : An approximation for layers of any size.

    Examples
    --------
    >>> critical_rank_quantile(784, 300), critical_rank_quantile(12, 12)
    (5448, 37)
    """
    probability = real("probability", probability, "a number in [0, 1]", 0.0, 1.0)
    return int(critical_rank_law(m, n).quantile(probability).upper)


def critical_rank(m: int, n: int) -> CriticalRank:
    """Return what is to be expected of the critical rank: the rank of the lightest edge of the spanning tree.

    Magnitude pruning keeps the diagram of a layer iff it keeps at least k* weights. For exchangeable |w| with almost
    surely distinct magnitudes.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.

    Returns
    -------
    CriticalRank
        Median, quantiles and mean of k*, and the compression that goes with the median.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> rank = critical_rank(784, 300)
    >>> round(rank.density, 4), round(rank.eta_magnitude), round(rank.eta_tau)
    (0.0232, 43, 217)
    """
    shape = Shape.checked(m, n, None)
    law = critical_rank_law_of(shape)
    m, n, alpha = shape
    low, median, high = (int(interval.upper) for interval in (law.low, law.median, law.high))
    exact_or_interval = law.mean
    if isinstance(exact_or_interval, Fraction):
        mean = float(exact_or_interval)
    else:
        mean = (exact_or_interval.lower + exact_or_interval.upper) / 2
    return CriticalRank(m, n, median, low, high, mean, median / (m * n), m * n / median, m * n / alpha)
