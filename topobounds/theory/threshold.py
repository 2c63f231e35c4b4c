"""How far plain magnitude pruning can go with the diagram intact: the law of the critical rank."""

import math
from dataclasses import dataclass

import numpy as np

from topobounds._arguments import real
from topobounds._records import Record
from topobounds.layers.shape import checked_shape
from topobounds.theory._logarithms import log_ratio


@dataclass(frozen=True)
class CriticalRank(Record):
    """What is to be expected of the critical rank k* of a dense layer.

    Attributes
    ----------
    m, n : int
        The layer.
    median, low, high : int
        The median of k* and its quantiles at 0.05 and 0.95.
    mean : float
        Its expectation.
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


def connection_probability(m: int, n: int, k: int) -> float:
    """Return the limit law of P(k* <= k): that the k largest weights of a dense layer connect it.

    ::

        P(k* <= k) ~ exp(-m q(n) - n q(m)),     q(c) = C(m n - c, k) / C(m n, k)

    For large layers the last things to be connected are single neurons, whose number is nearly Poisson. An
    approximation, good from some tens of rows and columns on, not a bound; its error is not certified.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int
        Largest weights kept, 0 to m n.

    Returns
    -------
    float
        In [0, 1]; 0 below k = m + n - 1 and 1 from k = m n - min(m, n) + 1 on, which is exact.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(connection_probability(784, 300, 5445), 2)
    0.5
    """
    m, n, k = checked_shape(m, n, k)
    if k < m + n - 1:
        return 0.0
    if k > m * n - min(m, n):
        return 1.0
    many, few = max(m, n), min(m, n)
    isolated = many * _empty(m * n, k, few) + (few * _empty(m * n, k, many) if k <= m * n - many else 0.0)
    return math.exp(-isolated)


def critical_rank_quantile(m: int, n: int, probability: float = 0.5) -> int:
    """Return the least k with `connection_probability` (m, n, k) >= probability.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
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

    Examples
    --------
    >>> critical_rank_quantile(784, 300)
    5445
    """
    m, n, low = checked_shape(m, n, None)
    probability = real("probability", probability, "a number in [0, 1]", 0.0, 1.0)
    high = m * n - min(m, n) + 1
    while low < high:
        middle = (low + high) // 2
        if connection_probability(m, n, middle) >= probability:
            high = middle
        else:
            low = middle + 1
    return low


def critical_rank(m: int, n: int) -> CriticalRank:
    """Return what is to be expected of the critical rank: the rank of the lightest edge of the spanning tree.

    Magnitude pruning keeps the diagram of a layer iff it keeps at least k* weights. By `connection_probability`, an
    approximation for large layers with exchangeable |w| and almost surely distinct magnitudes.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.

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
    m, n, alpha = checked_shape(m, n, None)
    median = critical_rank_quantile(m, n)
    # E[k*] = int_0^1 quantile(u) du, by the midpoint rule.
    levels = [(i + 0.5) / 64 for i in range(64)]
    mean = math.fsum(critical_rank_quantile(m, n, u) for u in levels) / len(levels)
    low, high = (critical_rank_quantile(m, n, u) for u in (0.05, 0.95))
    return CriticalRank(m, n, median, low, high, mean, median / (m * n), m * n / median, m * n / alpha)


def _empty(cells: int, k: int, c: int) -> float:
    """Return q(c) for c <= cells - k."""
    return math.exp(log_ratio(cells, np.array(float(c)), k).mid)
