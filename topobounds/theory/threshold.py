"""The critical rank as single numbers: the upper ends of the certified law in `topobounds.theory.critical_rank`."""

from dataclasses import dataclass
from fractions import Fraction

from topobounds._arguments import real
from topobounds._records import Record
from topobounds.layers.shape import checked_shape
from topobounds.theory.critical_rank import connection_probability, critical_rank_law, critical_rank_law_of

__all__ = ["CriticalRank", "connection_probability", "critical_rank", "critical_rank_quantile"]


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
    shape = checked_shape(m, n, None)
    law = critical_rank_law_of(shape)
    m, n, alpha = shape
    low, median, high = (int(interval.upper) for interval in (law.low, law.median, law.high))
    exact_or_interval = law.mean
    if isinstance(exact_or_interval, Fraction):
        mean = float(exact_or_interval)
    else:
        mean = (exact_or_interval.lower + exact_or_interval.upper) / 2
    return CriticalRank(m, n, median, low, high, mean, median / (m * n), m * n / median, m * n / alpha)
