"""Bounds on the expected numbers of components of the random bipartite graph G(m, n; k), by their numbers of vertices.

A component on a rows and b columns with e edges: C(m, a) C(n, b) choices of vertices, c(a, b, e) connected graphs on
them, none of the ``cross = a (n - b) + b (m - a)`` cells to other vertices, k - e edges on the
``free = (m - a)(n - b)`` cells among those. Trees have ``tau = a^(b-1) b^(a-1)`` forms (Scoins 1962). The bounds are
proved in docs/theory/enclosure.md, to which the numbers (E1) to (E6) refer.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds._types import FloatArray
from topobounds.theory._logarithms import UNIT, Ball, ball_sum, log_binomial, log_ratio

MAX_PAIRS = 100_000  # shapes (rows, columns) of components counted one by one
MAX_SIZE = 2**17  # vertices of components counted one by one
FACTOR = 1 + 2.0**-34  # more than the rounding in products and sums of 2^18 positive numbers
NEGLIGIBLE = 1e-12  # components
BLOCK = 1 / 48  # relative width of the blocks of shapes in `middle_components`

Range = tuple[FloatArray, FloatArray]  # first and last of a block of numbers


class BySize(NamedTuple):
    """Bounds on expected numbers of components, indexed by their numbers of vertices (or by shape).

    Counted are the trees and the unicyclic components of those shapes (a, b) for which a tree is possible.
    """

    counted: FloatArray  # from below
    counted_above: FloatArray  # from above
    unicyclic: FloatArray  # those of them that are unicyclic, from above
    every: FloatArray  # all components, from above


def components_by_size(m: int, n: int, k: int, least: int = 64, block: float = BLOCK) -> tuple[BySize, float]:
    """Return the components of up to L vertices, and a bound on those of more than L and up to (m + n) / 2.

    L is `least` or more, so large that the latter are negligible, or as large as can be afforded. For 1 <= k < m n and
    m, n >= 2; `block` as in `middle_components`.
    """
    half, pairs, largest = (m + n) // 2, 0, 1
    chunks, middle = [_isolated_vertices(m, n, k)], math.inf
    while middle > NEGLIGIBLE and pairs < MAX_PAIRS and largest < MAX_SIZE:
        start, largest = largest + 1, min(half, max(least, 2 * largest))
        rows, columns = _shapes(m, n, start, largest)
        chunks.append(_sum_by_size(_components(m, n, k, rows, columns), rows + columns, start, largest))
        pairs, middle = pairs + len(rows), middle_components(m, n, k, largest, block)
    return BySize(*map(np.concatenate, zip(*chunks, strict=True))), middle


def middle_components(m: int, n: int, k: int, largest: int, block: float = BLOCK) -> float:
    """Return a bound on the expected number of components of more than `largest` and up to (m + n) / 2 vertices.

    Shapes are taken together in blocks of the relative width `block`: the wider, the faster and the looser.
    """
    half = (m + n) // 2
    if largest >= half:
        return 0.0
    (a0, a1), (b0, b1) = _blocks(min(m, half - 1), block), _blocks(min(n, half - 1), block)
    i, j = np.nonzero((a0[:, None] + b0 <= half) & (a1[:, None] + b1 > largest))
    log_bound = _binomial_model(m, n, k, (a0[i], a1[i]), (b0[j], b1[j]))
    shapes = (a1 - a0 + 1)[i] * (b1 - b0 + 1)[j]
    with np.errstate(over="ignore"):
        return float(np.sum(shapes * log_bound.exp_above())) * FACTOR


def _binomial_model(m: int, n: int, k: int, rows: Range, columns: Range) -> Ball:
    """Return a bound on the logarithm of the expected number of components of one shape, for blocks of shapes (E6).

    At density p = k / N, ::

        C(m, a) C(n, b) (1-p)^cross (1 - (1-p)^a)^b (1 - (1-p)^b)^(a-1) sqrt(8 k (1-p))

    each factor where it is largest in [first, last].
    """
    (a0, a1), (b0, b1) = rows, columns
    cells, left = m * n, m * n - k
    log_empty = math.log1p(-k / cells) if k < left else math.log(left / cells)
    choices = ball_sum(_most_choices(m, a0, a1), _most_choices(n, b0, b1))
    cross = np.min([a * (n - b) + b * (m - a) for a in rows for b in columns], axis=0)  # bilinear: at a corner
    transfer = np.full_like(cross, math.log(8 * k * (left / cells)) / 2)
    bound = ball_sum(choices, cross * log_empty, _log_reached(a0, b0, -a1 * log_empty, -b1 * log_empty), transfer)
    return Ball(bound.mid, bound.rad + UNIT * (a1 + b1))


def _log_reached(a: FloatArray, b: FloatArray, column_rate: FloatArray, row_rate: FloatArray) -> FloatArray:
    """Return a bound on the log chance that a search from one vertex reaches all of a rows and b columns (E5).

    A column is missed with probability exp(-column_rate), a row with exp(-row_rate); the start is a row or a column.
    """
    column, row = np.log(-np.expm1(-column_rate)), np.log(-np.expm1(-row_rate))
    return np.minimum(b * column + (a - 1) * row, (b - 1) * column + a * row)


def _isolated_vertices(m: int, n: int, k: int) -> BySize:
    """Return the components of 0 and of 1 vertex: m q(n) + n q(m)."""
    cells, others = np.array([n, m], dtype=float), np.array([m, n], dtype=float)
    possible = cells <= m * n - k
    empty = log_ratio(m * n, np.where(possible, cells, 0.0), k)
    below = others @ np.where(possible, empty.exp_below(), 0.0) / FACTOR
    above = others @ np.where(possible, empty.exp_above(), 0.0) * FACTOR
    return BySize(*(np.array([0.0, x]) for x in (below, above, 0.0, above)))


def _shapes(m: int, n: int, smallest: int, largest: int) -> tuple[FloatArray, FloatArray]:
    """Return all (a, b) with 1 <= a <= m, 1 <= b <= n and smallest <= a + b <= largest."""
    rows = np.arange(1, min(m, largest - 1) + 1)
    first = np.maximum(1, smallest - rows)
    count = np.maximum(0, np.minimum(n, largest - rows) - first + 1)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(rows, count).astype(float), (np.repeat(first, count) + offset).astype(float)


def _components(m: int, n: int, k: int, a: FloatArray, b: FloatArray) -> BySize:
    """Return the bounds for every shape (a, b)."""
    edges, cells = a + b - 1, m * n
    free, cross = (m - a) * (n - b), a * (n - b) + b * (m - a)
    spare = k - edges  # edges elsewhere, if the component is a tree
    possible = (spare >= 0) & (spare <= free)
    forms = ball_sum((b - 1) * np.log(a), (a - 1) * np.log(b))
    drawn = log_ratio(cells, np.minimum(edges, k), cells - k)  # that given cells are all among the k
    placed = ball_sum(_log_choices(m, a), _log_choices(n, b), forms, drawn)

    tree = ball_sum(placed, _log_missed(cells - edges, cross + a * b - edges, spare, possible))
    trees, trees_above = np.where(possible, tree.exp_below(), 0.0), np.where(possible, tree.exp_above(), 0.0)
    spanned = (spare >= 0) & (cross + k <= cells)  # a spanning tree, whatever else is inside
    moment = ball_sum(placed, _log_missed(cells - edges, cross, spare, spanned)).exp_above()
    moment = np.where(spanned, moment * FACTOR, 0.0)

    odds = np.where(possible, spare, 0.0) / np.where(possible, free - spare + 1, 1.0)
    cycles, cycle_trees = _cycles_per_tree(a, b)
    unicyclic, unicyclic_above = trees * cycles * odds / FACTOR, trees_above * cycles * odds * FACTOR
    by_moment = (moment - trees - trees * cycle_trees * odds / FACTOR) / 12
    connected = ball_sum(tree, _log_connected(a, b, np.where(odds > 0, odds, 1.0)), -forms.mid)
    by_search = Ball(connected.mid, connected.rad + forms.rad).exp_above() * FACTOR - trees - unicyclic
    more = np.where((a * b > edges + 1) & (spare > 1), np.maximum(0.0, np.minimum(by_moment, by_search)), 0.0)

    every = np.where(possible, trees_above + unicyclic_above + more, moment / 4)
    loose = np.nonzero(every - trees - unicyclic > NEGLIGIBLE**2)
    in_model = _binomial_model(m, n, k, (a[loose], a[loose]), (b[loose], b[loose])).exp_above() * FACTOR
    every[loose] = np.minimum(every[loose], in_model)
    return BySize(trees + unicyclic, trees_above + unicyclic_above, unicyclic_above, every)


def _sum_by_size(shapes: BySize, sizes: FloatArray, smallest: int, largest: int) -> BySize:
    index = (sizes - smallest).astype(np.intp)
    sums = (np.bincount(index, weights, largest - smallest + 1) for weights in shapes)
    return BySize(*(x.astype(float) for x in sums))


def _log_choices(m: int, a: FloatArray) -> Ball:
    """Return log C(m, a)."""
    counts = np.arange(a.max() + 1)
    return log_binomial(m, counts).at(a.astype(np.intp))


def _log_missed(cells: FloatArray, missed: FloatArray, drawn: FloatArray, possible: NDArray[np.bool_]) -> Ball:
    """Return log(C(cells - missed, drawn) / C(cells, drawn)) where `possible`, else 0."""
    return log_ratio(cells, np.where(possible, missed, 0.0), np.where(possible, drawn, 0.0))


def _cycles_per_tree(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return, over tau(a, b), the numbers of connected graphs with one cycle and of their spanning trees (E3).

    ``sum_l w_l (a + b - l) / 2`` and ``sum_l w_l (a + b - l) l`` over cycles of 2 l vertices, l >= 2, with
    ``w_l = prod_{i<l} (1 - i/a) (1 - i/b)``. The sums end where w_l < 1e-24, which leaves out less than 2^-40 of them.
    """
    cycles, trees, w, length = np.zeros_like(a), np.zeros_like(a), (1 - 1 / a) * (1 - 1 / b), 2
    while w.max(initial=0.0) > 1e-24:
        cycles += w * (a + b - length) / 2
        trees += w * (a + b - length) * length
        w = w * np.maximum(0.0, 1 - length / a) * np.maximum(0.0, 1 - length / b)
        length += 1
    return cycles, trees


def _log_connected(a: FloatArray, b: FloatArray, odds: FloatArray) -> Ball:
    """Return a bound on log(sum_e c(a, b, e) z^(e - a - b + 1)) at z = odds > 0 (E5)."""
    step = np.log1p(odds)
    total = ball_sum(a * b * step, _log_reached(a, b, a * step, b * step), -(a + b - 1) * np.log(odds))
    return Ball(total.mid, total.rad + UNIT * (a + b))


def _most_choices(m: int, first: FloatArray, last: FloatArray) -> Ball:
    """Return log C(m, a) at the a in [first, last] where it is largest: nearest to m / 2."""
    return log_binomial(m, np.clip(float(m // 2), first, last))


def _blocks(largest: int, width: float) -> Range:
    """Return first and last numbers of blocks that cover 1 to `largest`, growing in proportion."""
    starts = [1]
    while starts[-1] <= largest:
        starts.append(starts[-1] + max(1, int(starts[-1] * width)))
    first = np.array(starts[:-1], dtype=float)
    return first, np.minimum(np.array(starts[1:], dtype=float) - 1, largest)
