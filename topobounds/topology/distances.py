"""Bottleneck and Wasserstein distances of persistence diagrams, exactly.

All points of a layer's diagram are born at 1, so a point is its persistence, a number in [0, 1]. Between two points the
distance is the difference of their persistences, from a point to the diagonal half its persistence: the largest
coordinate of the difference, as in gudhi. What the algorithms rest on is in docs/theory/distances.md.
"""

import math

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import argument_error, real
from topobounds.topology.persistence import PersistenceDiagram


def bottleneck_distance(a: PersistenceDiagram, b: PersistenceDiagram) -> float:
    """Return the bottleneck distance of two diagrams: the least that a matching's worst pair can cost.

    With the persistences ``x_1 >= x_2 >= ...`` and ``y_1 >= y_2 >= ...``, the shorter list continued by zeros, ::

        min over j >= 0 of max(|x_i - y_i| for i <= j,  x_{j+1} / 2,  y_{j+1} / 2)

    that is, the j most persistent points are matched in order and the others lie no further than that from the
    diagonal. Each diagram is on its own scale, |w| / w_max.

    Parameters
    ----------
    a, b : PersistenceDiagram
        The diagrams, of layers of whatever shapes.

    Returns
    -------
    float
        In [0, 1], or infinity where the diagrams have different numbers of classes that never die. Diagrams with
        ``zeros="edge"`` have one each, so that their distance is finite.

    Raises
    ------
    ValueError
        If one of them is no PersistenceDiagram.

    See Also
    --------
    wasserstein_distance : Adds up what all pairs cost.

    References
    ----------
    docs/theory/distances.md, "Bottleneck distance"; Cohen-Steiner, Edelsbrunner and Harer, Discrete & Computational
    Geometry 37, 2007.

    Examples
    --------
    >>> from topobounds.topology.persistence import persistence_diagram
    >>> a = persistence_diagram([[4.0, 2.0], [3.0, 1.0]])
    >>> b = persistence_diagram([[4.0, 1.5], [3.0, 1.0]])
    >>> bottleneck_distance(a, b)
    0.125
    """
    if _diagram("a", a).n_essential != _diagram("b", b).n_essential:
        return math.inf
    return _bottleneck(_persistences(a), _persistences(b))


def wasserstein_distance(a: PersistenceDiagram, b: PersistenceDiagram, p: float = 2) -> float:
    """Return the Wasserstein distance of two diagrams: the least p-norm of what the pairs of a matching cost.

    A matching pairs some points of one diagram with as many of the other; the rest are matched to the diagonal. With
    persistences x and y, a pair costs ``|x - y|`` and a point on its own ``x / 2``; the distance is the least ::

        (sum of |x - y|^p over the pairs + sum of (x / 2)^p over the other points)^(1/p)

    It is found exactly, in a time that grows with the product of the numbers of points where the diagrams are far
    apart, and with their sum where they are near. Each diagram is on its own scale, |w| / w_max.

    Parameters
    ----------
    a, b : PersistenceDiagram
        The diagrams, of layers of whatever shapes.
    p : float
        Order of the norm, at least 1, or infinity, for which this is the bottleneck distance.

    Returns
    -------
    float
        At least the bottleneck distance; infinity where the diagrams have different numbers of classes that never die.

    Raises
    ------
    ValueError
        If `a` or `b` is no PersistenceDiagram, or `p` is below 1 or NaN.

    Notes
    -----
    ``gudhi.hera.wasserstein_distance`` has the same costs by default, with ``order=p``; persim's ``wasserstein`` has
    p = 1 and the Euclidean distance to the diagonal, ``x / sqrt(2)``.

    References
    ----------
    docs/theory/distances.md, "Wasserstein distance".

    Examples
    --------
    >>> from topobounds.topology.persistence import persistence_diagram
    >>> a = persistence_diagram([[4.0, 2.0], [3.0, 1.0]])
    >>> b = persistence_diagram([[4.0, 1.0], [2.0, 1.0]])
    >>> wasserstein_distance(a, b, 1), round(wasserstein_distance(a, b), 4)
    (0.5, 0.3536)
    """
    order = real("p", p, "a number of at least 1, or infinity", 1.0, math.inf)
    largest = bottleneck_distance(a, b)
    if order == math.inf or largest in (0.0, math.inf):
        return largest
    # In units of the bottleneck distance the sum lies between 1 and the number of points: no power that counts is lost.
    cost = _least_cost(_persistences(a) / largest, _persistences(b) / largest, order)
    return float(largest * cost ** (1 / order))


def _diagram(name: str, value: PersistenceDiagram) -> PersistenceDiagram:
    if not isinstance(value, PersistenceDiagram):
        raise argument_error(name, "a PersistenceDiagram", value)
    return value


def _persistences(diagram: PersistenceDiagram) -> NDArray[np.float64]:
    """Return how long the points of a diagram persist, in descending order."""
    return np.sort(diagram.births - diagram.deaths)[::-1]


def _bottleneck(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the bottleneck distance of persistences in descending order."""
    # A point that is matched with one of persistence 0 costs more than on its own, so the zeros change nothing.
    longer = max(x.size, y.size) + 1
    x = np.pad(x, (0, longer - x.size))
    y = np.pad(y, (0, longer - y.size))
    matched = np.maximum.accumulate(np.append(0.0, np.abs(x - y)[:-1]))
    first_on_its_own = np.maximum(x, y) / 2
    return float(np.maximum(matched, first_on_its_own).min())


def _least_cost(x: NDArray[np.float64], y: NDArray[np.float64], p: float) -> float:
    """Return the least sum of p-th powers that a matching of persistences in descending order costs.

    Pairs of a cheapest matching do not cross, so the cost of the first i points of x and the first j of y follows from
    those with one point less: the last point of x is on its own, or that of y, or the two are a pair. The table is
    filled along its antidiagonals i + j = s, one after another, and only in a band: where i > j, some i - j points of x
    are on their own, and if those that cost least cost more than a matching in order does, none that is cheapest comes
    by.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a cost beyond all bounds is never the least
        x_alone = (x / 2) ** p
        y_alone = (y / 2) ** p
        x_sums = np.append(0.0, np.cumsum(x_alone))
        y_sums = np.append(0.0, np.cumsum(y_alone))
        most = _most_on_their_own(x, y, p, x_sums, y_sums)
        first_column, first_row = x_sums.tolist(), y_sums.tolist()
        # Along an antidiagonal i rises and j falls: of y, and of what its points cost alone, the reverse is read.
        y_reversed = y[::-1]
        y_alone_reversed = y_alone[::-1]
        # Cell i of an antidiagonal is entry i + 1; those from `low` to `high` are in the band, with one beside them.
        two_before, one_before, costs = np.full((3, x.size + 3), np.inf)
        one_before[1] = 0.0
        low = high = 0
        for s in range(1, x.size + y.size + 1):
            low = max(low, s - y.size)
            while 2 * low < s and first_row[s - low] - first_row[low] > most:
                low += 1
            high = min(high + 1, s, x.size)
            while 2 * high > s and first_column[high] - first_column[s - high] > most:
                high -= 1
            start, stop = max(low, 1), min(high, s - 1) + 1
            if start < stop:
                x_part = slice(start - 1, stop - 1)
                y_part = slice(y.size - s + start, y.size - s + stop)
                pair = two_before[start:stop] + np.abs(x[x_part] - y_reversed[y_part]) ** p
                alone = np.minimum(
                    one_before[start:stop] + x_alone[x_part],
                    one_before[start + 1 : stop + 1] + y_alone_reversed[y_part],
                )
                np.minimum(pair, alone, out=costs[start + 1 : stop + 1])
            costs[low] = costs[high + 2] = np.inf
            if low == 0:
                costs[1] = first_row[s]
            if high == s:
                costs[s + 1] = first_column[s]
            two_before, one_before, costs = one_before, costs, two_before
    return float(one_before[x.size + 1])


def _most_on_their_own(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    p: float,
    x_sums: NDArray[np.float64],
    y_sums: NDArray[np.float64],
) -> float:
    """Return what points on their own may cost in a cheapest matching; NaN where no number holds it.

    No more than a matching of the first points of both in order costs; to this, all that rounding may have done to the
    sums is added, which hold what the first points cost on their own.
    """
    n_pairs = min(x.size, y.size)
    pairs = np.append(0.0, np.cumsum(np.abs(x[:n_pairs] - y[:n_pairs]) ** p))
    totals = pairs + (x_sums[-1] - x_sums[: n_pairs + 1]) + (y_sums[-1] - y_sums[: n_pairs + 1])
    rounding = 4 * np.finfo(float).eps * (x.size + y.size) * (pairs[-1] + x_sums[-1] + y_sums[-1])
    return float(totals.min() + rounding)
