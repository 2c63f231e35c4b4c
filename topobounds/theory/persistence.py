"""Neural persistence when only the values of the weights matter, and not where they lie.

The null hypothesis of this module: the sorted magnitudes ``v_1 >= v_2 >= ...`` of an m x n layer are known and lie on
its cells in uniformly random order. Then the weight of rank j is a forest edge with the probability
``c_j = E[R_j] - E[R_(j-1)]``, whatever the values, and with ``g_j = (1 - v_j / v_1)^p`` ::

    E[NP^p | values] = sum_j c_j g_j = sum_j (alpha - E[R_j]) (g_(j+1) - g_j)

Proofs are in docs/theory/persistence_null.md.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from topobounds._arguments import argument_error, integer, real
from topobounds._cache import cached
from topobounds._types import FloatArray, Integers
from topobounds.layers.shape import Shape
from topobounds.theory._components import SHARP
from topobounds.theory.counting import counting_steps, exact_expected_ranks
from topobounds.theory.deviation import LIMIT_LEAST_RANK, LIMIT_LEAST_SIDE, overlap_covariance
from topobounds.theory.enclosure import Enclosure, rounded_outwards
from topobounds.theory.ranks import QUICK, missing_edges, rank_at_depth

_DEPTH = 10  # ranks up to M (ln M + _DEPTH), M the longer side, leave about e^-_DEPTH forest edges
LARGEST_ORDER = 1000  # of the norm: p
_HALF_ULP = 2.0**-53
_UNDERFLOW = 2.0**-1000  # more than what a product of numbers in [0, 1] loses to underflow
_NODES = 256  # ranks at which the sum of `persistence_deviation` is taken


def forest_edge_probabilities(m: int, n: int) -> list[Fraction]:
    """Return the probability that the weight of each rank is an edge of the maximum spanning forest, exactly.

    ``c_j = E[R_j] - E[R_(j-1)]`` for weights in uniformly random order: the coefficients of E[NP^p | values].

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1; small, or thin (see `exact_expected_overlap`).

    Returns
    -------
    list of Fraction
        m n numbers in [0, 1], falling, with the sum m + n - 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or the layer is too large to count.

    Examples
    --------
    >>> [str(c) for c in forest_edge_probabilities(3, 3)]
    ['1', '1', '1', '13/14', '5/7', '2/7', '1/14', '0', '0']
    """
    ranks = exact_expected_ranks(m, n)
    return [later - earlier for earlier, later in itertools.pairwise(ranks)]


def expected_persistence(
    m: int, n: int, magnitudes: ArrayLike, *, p: float = 2, cells: int | None = None, every_support: bool = False
) -> Enclosure:
    """Return an interval that contains E[NP^p | values], the neural persistence that the values alone would give.

    The layer's m n magnitudes lie on its cells in uniformly random order; NP is that of the convention ``balwani`` of
    `neural_persistence`, zeros being no edges.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, together at most 2^24.
    magnitudes : array_like of float, one-dimensional
        The largest |w|, falling; all of them, or at least one. `sufficient_rank` of them are enough for a narrow
        interval: the rest is bounded by what may follow, down to 0.
    p : float
        Order of the norm, above 0.
    cells : int, optional
        Weights that are not zero; all m n if left out. They lie on a uniformly random set of that many cells.
    every_support : bool
        The interval is to hold for every connected support of that many cells, not on average over them. It is narrow
        where few cells are absent: d of them shift the expected forest edges among the k largest weights by at most
        ``d / cells`` of their number.

    Returns
    -------
    Enclosure
        Rounded outwards; of NP^p, not normalised. For all magnitudes equal, or at most one, 0.

    Raises
    ------
    ValueError
        If an argument is out of range, or the magnitudes do not fall, are not finite, or are more than `cells`.

    Notes
    -----
    docs/theory/persistence_null.md, "The null of the values" and "The certified interval". Errors of rounding: numpy's
    power errs by at most 4 units in the last place.

    Examples
    --------
    >>> interval = expected_persistence(3, 3, [19, 17, 12, 9, 8, 5, 3, 2, 1])
    >>> Fraction(2146, 2527) in interval, interval.width < 1e-12
    (True, True)
    """
    m, n, _ = Shape.checked(m, n, None)
    cells = m * n if cells is None else integer("cells", cells, 1, m * n)
    order = _checked_order(p)
    values = _checked_magnitudes(magnitudes, cells)
    missing = missing_edges(m, n, QUICK)
    used = min(values.size, missing.lower.size - 1)
    last = float(persistences(values[[0, -1]], order)[-1]) if values.size == cells else 1.0
    # Only the last of several equal values is followed by a rise.
    ks = np.append(np.flatnonzero(values[1:used] != values[: used - 1]) + 1, used)
    levels = values[ks - 1]
    steps = persistences(levels, order)
    lower, upper = missing.on_every_support(cells, m * n, ks) if every_support else missing.until(cells, ks)
    rises = np.append(np.diff(steps), last - float(steps[-1]) if used < cells else 0.0)
    # The rest of the values, beyond the ranks used, may all be as large as the last, which adds nothing.
    below = float(np.sum((lower * rises)[:-1]))
    above = float(np.sum(upper * rises))
    error = _sum_error(used) + _persistence_error(order)
    lost = _UNDERFLOW if np.any((steps < _UNDERFLOW) & (levels < levels[0])) else 0.0
    return Enclosure(below * (1 - error), above * (1 + error) + lost * (m + n))


def untrained_persistence(m: int, n: int, *, p: int = 2) -> Enclosure:
    """Return an interval that contains E[NP^p] of an untrained layer, whose |w| are independent and uniform on [0, b].

    That is the initialisation of ``torch.nn.Linear``; b does not matter. With N = m n and the c_j of
    `forest_edge_probabilities`, ::

        E[NP^p] = sum_j c_j (j-1) j ... (j+p-2) / (N (N+1) ... (N+p-1))

    Small and thin layers are counted exactly, and the fraction is rounded outwards.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, together at most 2^24.
    p : int
        Order of the norm, from 1 to 1000; there is no such formula where it is no integer.

    Returns
    -------
    Enclosure
        Of NP^p, not normalised.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    untrained_persistence_limit : For large square layers.

    Examples
    --------
    >>> Fraction(18, 35) in untrained_persistence(2, 3)
    True
    >>> interval = untrained_persistence(784, 300)
    >>> round(interval.lower, 4), round(interval.upper, 4)
    (0.0196, 0.0196)
    """
    m, n, _ = Shape.checked(m, n, None)
    p = integer("p", p, 1, LARGEST_ORDER)
    cells = m * n
    if counting_steps(m, n, cells) <= SHARP.all_steps and min(m, n) > 1:
        return rounded_outwards(_exact_untrained_persistence(m, n, p))
    missing = missing_edges(m, n)
    ranks = np.arange(1.0, missing.lower.size)
    moments = np.ones(ranks.size)  # of 1 - v_j / v_1
    for i in range(p):
        moments *= (ranks - 1 + i) / (cells + i)
    rises = np.append(np.diff(moments), 1.0 - moments[-1] if ranks.size < cells else 0.0)
    error = _sum_error(ranks.size) + 2 * p * _HALF_ULP
    below = float(np.sum((missing.lower[1:] * rises)[:-1]))
    above = float(np.sum(missing.upper[1:] * rises))
    lost = _UNDERFLOW if moments[:2][-1] < _UNDERFLOW < cells - 1 else 0.0  # that of rank 2 is the least above 0
    return Enclosure(below * (1 - error), above * (1 + error) + lost * (m + n))


def untrained_persistence_limit(p: int = 2) -> float:
    """Return the limit of ``n^(p-1) E[NP^p]`` of untrained n x n layers for large n.

    ``2 p! sum_(k>=1) C(p+k-2, k-1) / k^(p+2)``: 2 zeta(3) for p = 1, 4 zeta(3) for p = 2, 6 (zeta(3) + zeta(4)) for
    p = 3. So for p = 2 an untrained layer's normalised neural persistence is about sqrt(2 zeta(3)) / n = 1.5505 / n.

    Parameters
    ----------
    p : int
        Order of the norm, from 1 to 100.

    Returns
    -------
    float
        A limit, not a bound: at n = 100 and p = 2 it is 3.8% high. `untrained_persistence` encloses the truth.

    Raises
    ------
    ValueError
        If `p` is out of range.

    References
    ----------
    Frieze, *On the value of a random minimum spanning tree problem*, 1985; for bipartite graphs Frieze and McDiarmid,
    1989. docs/theory/persistence_null.md, "Untrained layers".

    Examples
    --------
    >>> [round(untrained_persistence_limit(p), 6) for p in (1, 2, 3)]
    [2.404114, 4.808228, 13.706281]
    """
    from scipy.special import zeta  # noqa: PLC0415 (not needed by others)

    p = integer("p", p, 1, 100)
    rising = [1]  # coefficients of k (k+1) ... (k+p-2), which is (p-1)! C(p+k-2, k-1), from the constant one on
    for i in range(p - 1):
        shifted = [0, *rising]
        rising = [i * same + below for same, below in zip([*rising, 0], shifted, strict=True)]
    return 2 * p * math.fsum(c * float(zeta(p + 2 - power)) for power, c in enumerate(rising) if c)


def persistence_deviation(m: int, n: int, magnitudes: ArrayLike, *, p: float = 2) -> float | None:
    """Return the standard deviation of NP^p given the values, in the limit of large layers.

    ``Var = sum_ij (g_(i+1) - g_i)(g_(j+1) - g_j) Cov(R_i, R_j)`` with `overlap_covariance`, over 256 ranks.

    Parameters
    ----------
    m, n, magnitudes, p
        As in `expected_persistence`.

    Returns
    -------
    float or None
        None outside the limit's domain, where permutations are to be sampled: layers with a side below 50, where it is
        up to 40% too large, and values that fall by large steps among the first 1.2 sqrt(m n) ranks, as quantised ones
        may, for there the limit knows no fluctuations. Inside, for p up to 2, it is right to about a tenth, too large
        rather than too small; to a fifth where a side is near 50 and the smallest weights matter, as for uniform ones.

    Raises
    ------
    ValueError
        As `expected_persistence`.

    Examples
    --------
    >>> values = np.linspace(1, 0, 784 * 300, endpoint=False)
    >>> f"{persistence_deviation(784, 300, values):.5f}"
    '0.00119'
    >>> persistence_deviation(784, 10, values[:7840]) is None
    True
    """
    m, n, _ = Shape.checked(m, n, None)
    order = _checked_order(p)
    values = _checked_magnitudes(magnitudes, m * n)
    if min(m, n) < LIMIT_LEAST_SIDE:
        return None
    nodes, covariance = _node_covariance(m, n)
    steps = persistences(values[np.minimum(nodes, values.size) - 1], order, float(values[0]))
    rises = np.diff(steps) / 2
    weights = np.append(rises, 0.0) + np.append(0.0, rises)
    deviation = math.sqrt(max(0.0, float(weights @ covariance @ weights)))
    return deviation if deviation >= 2 * _early_deviation(m, n, values, order) else None


def persistence_range(m: int, n: int, magnitudes: ArrayLike, *, p: float = 2) -> Enclosure:
    """Return the least and the largest NP^p that any arrangement of a full layer's magnitudes has.

    Least: the m + n - 1 largest weights form a tree. Largest: the weights fill nested blocks, as square as possible.
    Both are attained, for every p at once.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    magnitudes : array_like of float of shape (m n,)
        All |w|, falling; zeros counted as edges of weight 0.
    p : float
        Order of the norm, above 0.

    Returns
    -------
    Enclosure
        The two ends, each rounded outwards.

    Raises
    ------
    ValueError
        As `expected_persistence`; or if the magnitudes are not m n.

    Notes
    -----
    docs/theory/persistence_null.md, "The exact range".

    Examples
    --------
    >>> ends = persistence_range(3, 3, [19, 17, 12, 9, 8, 5, 3, 2, 1])
    >>> round(ends.lower, 3), round(ends.upper, 3)
    (0.759, 1.191)
    """
    m, n, _ = Shape.checked(m, n, None)
    order = _checked_order(p)
    values = _checked_magnitudes(magnitudes, m * n)
    if values.size < m * n:
        raise argument_error("magnitudes", f"all {m * n} magnitudes of the layer", f"{values.size} of them")
    earliest, latest = extreme_ranks(m, n)
    largest = float(values[0])
    least = persistence_sum(values[earliest - 1], largest, p=order)
    most = persistence_sum(values[latest - 1], largest, p=order)
    return Enclosure(least.lower, most.upper)


def extreme_ranks(m: int, n: int, cells: int | None = None, alpha: int | None = None) -> tuple[Integers, Integers]:
    """Return the ranks of the forest's edges in the two arrangements of least and of largest neural persistence.

    The first edges enter at ranks 1 to alpha at the earliest. Edge r enters at the latest where r - 1 edges cannot
    hold as many weights any more: at rank ``max(a b : a + b = r, a <= m, b <= n) + 1``, nor later than with alpha - r
    weights to follow.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    cells, alpha : int, optional
        Cells of the support and edges of its forest; those of the full layer if left out. On the full layer both are
        attained; on another support the first is, and the second is only a bound.

    Returns
    -------
    earliest, latest : ndarray of int64 of shape (alpha,)
        Rising, from 1.

    Examples
    --------
    >>> earliest, latest = extreme_ranks(3, 3)
    >>> earliest.tolist(), latest.tolist()
    ([1, 2, 3, 4, 5], [1, 2, 3, 5, 7])
    """
    cells = m * n if cells is None else cells
    alpha = m + n - 1 if alpha is None else alpha
    earliest = np.arange(1, alpha + 1)
    shorter = np.minimum(earliest // 2, min(m, n))
    latest = shorter * (earliest - shorter) + 1
    return earliest, np.minimum(latest, cells - alpha + earliest)


def persistence_sum(magnitudes: ArrayLike, largest: float, *, p: float = 2) -> Enclosure:
    """Return ``sum (1 - v / largest)^p`` over magnitudes of forest edges, rounded outwards.

    Examples
    --------
    >>> 0.25 in persistence_sum([2.0, 1.0], 2.0)
    True
    """
    values = np.asarray(magnitudes, np.float64)
    steps = persistences(values, p, largest)
    total = float(np.sum(steps))
    error = _sum_error(values.size) + _persistence_error(p)
    lost = _UNDERFLOW if np.any((steps < _UNDERFLOW) & (values < largest)) else 0.0
    return Enclosure(total * (1 - error), total * (1 + error) + lost * values.size)


def persistences(magnitudes: FloatArray, p: float, largest: float | None = None) -> FloatArray:
    """Return ``(1 - v / v_1)^p``, rising, with a relative error of at most `_persistence_error`."""
    top = float(magnitudes[0]) if largest is None else largest
    persistence = (top - magnitudes) / top
    if p in (1, 2):
        return persistence if p == 1 else persistence * persistence
    steps: FloatArray = np.maximum.accumulate(np.power(persistence, p))  # which may not rise in its last digit
    return steps


def sufficient_rank(m: int, n: int) -> int:
    """Return how many of the largest magnitudes `expected_persistence` needs for a narrow interval.

    At rank M (ln M + 10), M the longer side, about e^-10 = 5e-5 forest edges are yet to come: that is how much the
    magnitudes beyond can widen the interval of E[NP^p].

    Examples
    --------
    >>> sufficient_rank(784, 300), sufficient_rank(3, 3)
    (13065, 9)
    """
    return rank_at_depth(m, n, _DEPTH)


@cached(8)
def _node_covariance(m: int, n: int) -> tuple[Integers, FloatArray]:
    """Return the ranks at which the sum of `persistence_deviation` is taken, and their covariances."""
    nodes = np.geomspace(math.sqrt(m * n), sufficient_rank(m, n), _NODES).astype(np.int64)
    return nodes, (m + n - 1) ** 2 * np.asarray(overlap_covariance(m, n, nodes[:, None], nodes))


def _early_deviation(m: int, n: int, values: FloatArray, p: float) -> float:
    """Return about the largest standard deviation that one step of the values gives NP^p up to criticality.

    The number of cycles among the k largest, k - R_k, is there nearly Poisson, with the mean
    ``sum_(l>=2) s^(2l) / (2l)``, s = k / sqrt(m n): the expected number of cycles of each length.
    """
    critical = math.sqrt(m * n)
    steps = persistences(values[: math.ceil(LIMIT_LEAST_RANK * critical) + 1], p)
    share = np.minimum(0.95, np.arange(1, steps.size) / critical)
    cycles = -np.log1p(-(share**2)) / 2 - share**2 / 2
    return float(np.max(np.diff(steps) * np.sqrt(cycles), initial=0.0))


def _exact_untrained_persistence(m: int, n: int, p: int) -> Fraction:
    chances = forest_edge_probabilities(m, n)
    total = sum(c * math.prod(range(j - 1, j + p - 1)) for j, c in enumerate(chances, 1))
    return Fraction(total) / math.prod(range(m * n, m * n + p))


def _checked_magnitudes(magnitudes: ArrayLike, cells: int) -> FloatArray:
    """Return the largest magnitudes of a layer as float64, checked."""
    values = np.asarray(magnitudes, np.float64)
    rule = f"from 1 to {cells} finite numbers, falling, none below 0 and the first above"
    if values.ndim != 1 or not 0 < values.size <= cells:
        raise argument_error("magnitudes", rule, f"an array of shape {values.shape}")
    if not (values[0] < math.inf and values[-1] >= 0 and values[0] > 0 and np.all(values[1:] <= values[:-1])):
        raise argument_error("magnitudes", rule, magnitudes)
    return values


def _checked_order(p: float) -> float:
    return real("p", p, f"a number above 0 and at most {LARGEST_ORDER}", 0.0, LARGEST_ORDER, open_low=True)


def _sum_error(terms: int) -> float:
    """Return the relative error of a sum of so many products of non-negative numbers and of what goes with it."""
    return (terms + 16) * _HALF_ULP


def _persistence_error(p: float) -> float:
    """Return the relative error of `persistences`: two roundings, raised to the power, and that of the power."""
    return (2 * p + 16) * _HALF_ULP * 2
