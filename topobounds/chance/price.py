"""What keeping the topology costs: T-IMP beside plain magnitude pruning, and the cost that chance alone would give."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, as_written, integer, is_integer, real
from topobounds._records import Record
from topobounds._text import counted
from topobounds._types import FloatArray
from topobounds.chance.measured_layer import MeasuredLayer
from topobounds.chance.overlap import overlap_if_ties_decide
from topobounds.theory.deviation import known_deviation
from topobounds.theory.enclosure import MAX_ENCLOSURE_CELLS, Enclosure
from topobounds.theory.overlap import expected_overlap
from topobounds.theory.ranks import missing_edges
from topobounds.theory.ties import move_that_counts, swaps_by_a_rule
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.weights import mask_matrix, weight_matrix

_CHUNK = 2**20  # ranks at a time
_ROUNDING = 2.0**-40  # of a sum of products of non-negative numbers: more than its roundings, up to 2^52 terms
_SQUARED_AS_THEY_ARE = 400  # largest binary exponent, up or down, of sizes that are squared without being scaled


@dataclass(frozen=True)
class TopologyPrice(Record):
    """What T-IMP gives up against magnitude pruning to the same count.

    Attributes
    ----------
    alpha, keep : int
        Edges of the layer's forest, and the weights kept, at least alpha.
    swaps : int
        Weights that one mask keeps and the other does not: ``alpha - R_k``, the forest edges that magnitude loses.
    squared_weight_lost : float
        Sum of the squared weights of magnitude's mask, less that of T-IMP's; at least 0, infinite beyond the largest
        double.
    share_lost : float
        The same over the sum of magnitude's mask; 0 where that is 0.
    expected_swaps : Enclosure or None
        Certified interval of the expected number of swaps, the same values standing in random order, those that tie
        too; None where the rule that ranks ties, the flat index, moves `swaps` by more than a standard deviation.
    expected_squared_weight_lost : Enclosure or None
        Certified interval of a lower bound on the expectation of what is lost, over the order of the values. The
        expectation is at most `expectation_gap` above the interval; the bound is sharp in the limit.
    expectation_gap : float or None
        See above; 0 for keep = alpha, where the interval contains the expectation itself.
    reason : str or None
        Why an expectation is missing; None if none is.
    """

    alpha: int
    keep: int
    swaps: int
    squared_weight_lost: float
    share_lost: float
    expected_swaps: Enclosure | None
    expected_squared_weight_lost: Enclosure | None
    expectation_gap: float | None
    reason: str | None = None


def topology_price(
    weights: ArrayLike, keep: int | float | Fraction, mask: ArrayLike | None = None, *, expected: bool = True
) -> TopologyPrice:
    """Return what T-IMP costs against magnitude pruning, and what it would cost by chance.

    T-IMP keeps the alpha edges of the maximum spanning forest and the k - alpha largest other weights. It is the best
    of all masks of k weights that keep the layer's components, so this is the price of keeping the components; that the
    persistence diagram is kept too costs nothing more. With v_1 >= v_2 >= ... the sorted |w|, ``rho_j = E R_j`` and
    K = k - alpha, ::

        E[squared weight lost] >= sum_j (v_j^2 - v_{j+1}^2) (min(j, k) - min(j, K + rho_j))

    Parameters
    ----------
    weights : array_like of shape (m, n)
        As in `topobounds.maximum_spanning_forest`.
    keep : int or float or Fraction
        Weights to keep, alpha at least, or the share of the survivors, as in `topobounds.topological_mask`.
    mask : array_like of bool of shape (m, n), optional
        The survivors so far.
    expected : bool
        Whether to compute the expectations too, which takes seconds for every new shape.

    Returns
    -------
    TopologyPrice
        The expectations are those of a full layer; they are None where weights are zero or masked. What is lost is the
        same in whatever order ties are ranked, but not the swaps: see `TopologyPrice.expected_swaps`.

    Raises
    ------
    ValueError
        As `topobounds.maximum_spanning_forest`, or if `keep` is out of range.

    References
    ----------
    docs/theory/why_t_imp.md, "The price".

    Examples
    --------
    >>> price = topology_price([[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]], 4)
    >>> price.swaps, price.squared_weight_lost  # 6 is given up for 1
    (1, 35.0)
    """
    matrix = weight_matrix(weights)
    survivors = np.ones(matrix.shape, np.bool_) if mask is None else mask_matrix(mask, matrix.shape)
    forest = maximum_spanning_forest(matrix, None if mask is None else survivors)
    count = _count(keep, forest.alpha, int(np.count_nonzero(survivors)))
    in_common = round(forest.overlap(count) * forest.alpha)
    given_up, taken_instead = _swapped(matrix, survivors, forest, count, in_common)
    exponent, swapped = (_exponent(sizes) for sizes in (forest.weights, given_up))
    given_up, taken_instead = _scaled(given_up, swapped), _scaled(taken_instead, swapped)
    lost = math.fsum((given_up - taken_instead) * (given_up + taken_instead))  # as falling sizes, none below 0
    total = _largest_squares(_scaled(matrix[survivors], exponent), count)
    reason = _no_expectation(matrix, survivors, expected)
    chance = _expectations(np.abs(matrix.astype(np.float64)), count) if reason is None else (None, None, None)
    expected_swaps = chance[0]
    if expected_swaps is not None:
        layer = MeasuredLayer.of(matrix, None, forest, n_nonzero=matrix.size)
        least = _least_move(forest, count, expected_swaps)
        at_random = overlap_if_ties_decide(layer, count, least / forest.alpha, 0)
        if at_random is not None:
            reason = swaps_by_a_rule(forest.alpha * (1 - at_random)) + ". So there are no expected swaps."
            expected_swaps = None
    return TopologyPrice(
        alpha=forest.alpha,
        keep=count,
        swaps=forest.alpha - in_common,
        squared_weight_lost=_raised(lost, 2 * swapped),
        share_lost=_raised(lost / total, 2 * (swapped - exponent)) if total else 0.0,
        expected_swaps=expected_swaps,
        expected_squared_weight_lost=chance[1],
        expectation_gap=chance[2],
        reason=reason,
    )


def _least_move(forest: SpanningForest, k: int, swaps: Enclosure) -> float:
    known = known_deviation(*forest.shape, k)
    return move_that_counts(swaps.upper, None if known is None else known.value * forest.alpha)


def _count(keep: Any, alpha: int, survivors: int) -> int:
    """Return how many weights to keep: a number of them, or a share of the survivors."""
    if is_integer(keep):
        count = integer("keep", keep, 0, survivors)
    else:
        real("keep", keep, "a number of weights or a share of them in (0, 1]", 0.0, 1.0, open_low=True)
        count = round(as_written(keep) * survivors)
    if count < alpha:
        raise argument_error(
            "keep", f"at least alpha = {counted(alpha, 'weight')}, the edges of the spanning forest", keep
        )
    return count


def _swapped(
    matrix: NDArray[Any], survivors: NDArray[np.bool_], forest: SpanningForest, k: int, in_common: int
) -> tuple[FloatArray, FloatArray]:
    """Return the sizes that magnitude alone keeps, and those that T-IMP keeps instead.

    T-IMP keeps the whole forest and the k - alpha largest others, magnitude the `in_common` first edges of the forest
    and so the k - `in_common` largest others.
    """
    others = survivors.copy()
    others[forest.rows, forest.cols] = False
    sizes = np.sort(np.abs(matrix[others].astype(np.float64)))[::-1]
    return sizes[k - forest.alpha : k - in_common], forest.weights[in_common : forest.alpha].astype(np.float64)


def _exponent(falling: NDArray[Any]) -> int:
    """Return e such that sizes over 2^e have squares that a double holds: 0 where they have them as they are."""
    exponent = math.frexp(float(falling[0]))[1] if len(falling) else 0
    return exponent if abs(exponent) > _SQUARED_AS_THEY_ARE else 0


def _scaled(weights: NDArray[Any], exponent: int) -> FloatArray:
    """Return the weights over 2^exponent."""
    weights = weights.astype(np.float64)
    return np.ldexp(weights, -exponent) if exponent else weights


def _raised(value: float, exponent: int) -> float:
    """Return value 2^exponent, infinite beyond the largest double."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def _largest_squares(weights: NDArray[Any], k: int) -> float:
    """Return the sum of the k largest squared weights."""
    squares = np.square(weights.astype(np.float64))
    return float(np.sum(np.partition(squares, squares.size - k)[squares.size - k :])) if k else 0.0


def _no_expectation(matrix: NDArray[Any], survivors: NDArray[np.bool_], expected: bool) -> str | None:
    """Return why there is no expectation, if there is none."""
    if not expected:
        return "The expectations were not asked for."
    if not survivors.all():
        return "The expectations are known for full layers, and weights are masked."
    if not matrix.all():
        return "The expectations are known for full layers, and weights are zero."
    if matrix.size > MAX_ENCLOSURE_CELLS:
        return "The expectations are known for at most 2^52 weights."
    return None


def _expectations(sizes: FloatArray, k: int) -> tuple[Enclosure, Enclosure, float]:
    """Return the expected swaps, the bound on the expected loss, and how far the expectation may lie above it.

    Three edges of a bipartite graph close no cycle, so magnitude loses nothing before rank K + 4: whatever is larger
    than the weight of this rank counts no more than it does, and the sizes are scaled by that weight.
    """
    m, n = sizes.shape
    alpha = m + n - 1
    extra = k - alpha
    overlap = expected_overlap(m, n, k)
    swaps = Enclosure(
        max(0.0, alpha * (1 - overlap.upper) * (1 - _ROUNDING)), alpha * (1 - overlap.lower) * (1 + _ROUNDING)
    )
    if min(m, n) == 1 or extra + 4 > m * n:
        return swaps, Enclosure(0.0, 0.0), 0.0
    falling = np.sort(sizes, axis=None)[::-1]
    falling[: extra + 3] = falling[extra + 3]
    exponent = _exponent(falling)
    falling = _scaled(falling, exponent)
    least, most, gap = [], [], []
    for js, drops, lower, upper in _steps(falling, m, n):
        top = np.minimum(js, k)
        least.append(drops @ np.maximum(top - np.minimum(js, extra + upper), 0.0))
        most.append(drops @ (top - np.minimum(js, extra + lower)))
        gap.append(drops @ _jensen_gaps(js, m * n, extra, js - upper, js - lower) if extra else 0.0)
    # Squares of the smallest, or their differences times a chance, may be no normal numbers.
    slack = 2.0**-1022 * (m * n) ** 2 if falling[-1] < 2.0**-_SQUARED_AS_THEY_ARE else 0.0
    loss_from = max(0.0, math.fsum(least) * (1 - _ROUNDING) - slack)
    loss_to, widest = (sum_ * (1 + _ROUNDING) + slack for sum_ in (math.fsum(most), math.fsum(gap)))
    if exponent:
        loss_from = max(0.0, math.nextafter(_raised(loss_from, 2 * exponent), 0.0))
        loss_to = math.nextafter(_raised(loss_to, 2 * exponent), math.inf)
        widest = math.nextafter(_raised(widest, 2 * exponent), math.inf)
    return swaps, Enclosure(loss_from, loss_to), widest if extra else 0.0


def _steps(falling: FloatArray, m: int, n: int) -> Iterator[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Yield, some at a time, the ranks j, the drops v_j^2 - v_{j+1}^2 of falling sizes, and bounds on rho_j."""
    missing = missing_edges(m, n)
    falling = np.append(falling, 0.0)
    for start in range(0, m * n, _CHUNK):
        v = falling[start : start + _CHUNK + 1]
        js = np.arange(start + 1, start + v.size)
        yield (js.astype(np.float64), (v[:-1] - v[1:]) * (v[:-1] + v[1:]), *missing.ranks_at(js))


def _jensen_gaps(js: FloatArray, cells: int, extra: int, least: FloatArray, most: FloatArray) -> FloatArray:
    """Return bounds on min(E Z, K) - E min(Z, K), Z = j - R_j being the weights outside the forest, K = `extra`.

    It is E (Z - K)^+ or E (K - Z)^+, so at most half the standard deviation, at most sqrt(v) / 4, and, as
    P(Z - E Z >= s) <= exp(-2 s^2 / v), at most sqrt(pi v / 8) exp(-2 (E Z - K)^2 / v).
    """
    left = cells - js
    v = np.minimum(js, left**2 * js / (np.abs(left - 0.5) * (cells - 0.5)))
    distance = np.maximum(np.maximum(least - extra, extra - most), 0.0)
    tail = np.sqrt(math.pi / 8 * v) * np.exp(-2 * distance**2 / np.maximum(v, 0.25))
    return np.where(js <= extra, 0.0, np.minimum(np.sqrt(v) / 4, tail))
