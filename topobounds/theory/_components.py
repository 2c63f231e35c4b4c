"""Bounds on the expected numbers of components of the random bipartite graph G(m, n; k), by their numbers of vertices.

A component on a rows and b columns with e edges: C(m, a) C(n, b) choices of vertices, c(a, b, e) connected graphs on
them, none of the ``cross = a (n - b) + b (m - a)`` cells to other vertices, k - e edges on the
``free = (m - a)(n - b)`` cells among those. Trees have ``tau = a^(b-1) b^(a-1)`` forms (Scoins 1962). The bounds are
proved in docs/theory/enclosure.md, to which the numbers (E1) to (E6) refer.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds._types import FloatArray
from topobounds.theory._balls import Ball, ball_sum
from topobounds.theory._logarithms import Real, log_binomial, log_ratio
from topobounds.theory._rounding import ROUNDING_FACTOR, ROUNDING_UNIT

_MAX_PAIRS = 100_000  # shapes (rows, columns) of components counted one by one
_MAX_SIZE = 2**17  # vertices of components counted one by one
NEGLIGIBLE = 1e-12  # components
COARSE, FINE = 1 / 4, 1 / 64  # relative widths of the blocks of shapes in `middle_components`, at first and in the end
_LONGEST_TABLE = 2**18  # of logarithms of binomials
_LEAST_GAIN = 0.9  # share that a round of finer blocks may leave, for another to be worth it
_SMALL_SHARE = 1 / 16  # of what is negligible, that is lost in a round with blocks that are not made finer

Range = tuple[FloatArray, FloatArray]  # first and last of a block of numbers
Blocks = tuple[FloatArray, FloatArray, FloatArray, FloatArray]  # first and last row, first and last column of each


class BySize(NamedTuple):
    """Bounds on expected numbers of components, indexed by their numbers of vertices (or by shape).

    Counted are the trees and the unicyclic components of those shapes (a, b) for which a tree is possible.
    """

    counted: FloatArray  # from below
    counted_above: FloatArray  # from above
    unicyclic: FloatArray  # those of them that are unicyclic, from above
    every: FloatArray  # all components, from above


class Effort(NamedTuple):
    """How sharp the bounds are to be.

    Attributes
    ----------
    least : int
        Vertices of components that are counted at least.
    enough : float
        Expected number of larger components that is negligible.
    most : int
        Shapes after which no more are counted.
    blocks : int
        Blocks of shapes that are looked at in one round of `middle_components`.
    steps : int
        Steps of exact counting at one k that are cheap: 400,000 take a fifth of a second.
    all_steps : int
        Likewise at all k: 700,000 take about as long, 5 million up to two seconds.
    ranks : int
        At how many k, at most, a curve is enclosed that is not counted.
    """

    least: int = 64
    enough: float = NEGLIGIBLE
    most: int = _MAX_PAIRS
    blocks: int = 2**15
    steps: int = 400_000
    all_steps: int = 5_000_000
    ranks: int = 128


SHARP = Effort()


def components_by_size(m: int, n: int, k: int, effort: Effort = SHARP) -> tuple[BySize, float]:
    """Return the components of up to L vertices, and a bound on those of more than L and up to (m + n) / 2.

    L is so large that the latter are negligible, or as large as can be afforded. For 1 <= k < m n and m, n >= 2.
    """
    half = (m + n) // 2
    largest = min(half, effort.least)
    sizes = [largest]
    while _n_shapes(m, n, sizes[-1]) < effort.most and sizes[-1] < min(half, _MAX_SIZE):
        sizes.append(min(half, 2 * sizes[-1]))
    middle = middle_components(m, n, k, largest, effort)
    if middle > effort.enough and len(sizes) > 1:
        last = middle_components(m, n, k, sizes[-1], effort)
        # Where no size is large enough, there is no use in trying them one by one.
        for largest in sizes[1:-1] if last <= effort.enough else ():
            middle = middle_components(m, n, k, largest, effort)
            if middle <= effort.enough:
                break
        else:
            largest, middle = sizes[-1], last
    return BySize(*(row[0] for row in _up_to(m, n, np.array([float(k)]), largest, effort.enough))), middle


def components_at_ranks(m: int, n: int, ks: FloatArray, effort: Effort) -> tuple[BySize, FloatArray]:
    """Return the components of up to ``effort.least`` vertices at several k, a row for each, and bounds on the others.

    The bounds, on the components of more and of up to (m + n) / 2 vertices, are by blocks as they are at first: where
    one of them is not negligible, `components_by_size` may do better.
    """
    largest = min((m + n) // 2, effort.least)
    return _up_to(m, n, ks, largest), _middle_at_ranks(m, n, ks, largest)


def _up_to(m: int, n: int, ks: FloatArray, largest: int, enough: float = 0.0) -> BySize:
    """Return the bounds on components of 0 to `largest` vertices, a row for each k.

    At one k, many shapes that are all but impossible are only bounded, together by `enough`.
    """
    single = _isolated_vertices(m, n, ks)
    if largest < 2:
        return single
    facts = _shape_facts(m, n, largest)
    if ks.size == 1:
        per_shape = _likely_components(m, n, float(ks[0]), facts, enough)
    else:
        per_shape = _components(m, n, np.repeat(ks, facts.a.size), facts.repeated(ks.size))
    index = (facts.a + facts.b - 2).astype(np.intp)
    several = (_sums(bounds.reshape(ks.size, -1), index, largest - 1) for bounds in per_shape)
    return BySize(*(np.concatenate(parts, axis=1) for parts in zip(single, several, strict=True)))


def _likely_components(m: int, n: int, k: float, facts: "_Facts", enough: float) -> BySize:
    """Return the bounds for every shape; where a rough one is at most a share of `enough`, that for all that are above.

    The shapes that random graphs have lie along one diagonal.
    """
    rough = _binomial_model(m, n, k, (facts.a, facts.a), (facts.b, facts.b)).exp_above()
    likely = np.flatnonzero(rough > enough / facts.a.size)
    bounds = BySize(np.zeros(rough.size), rough, rough.copy(), rough.copy())
    for whole, part in zip(bounds, _components(m, n, k, facts.at(likely)), strict=True):
        whole[likely] = part
    return bounds


def _sums(bounds: FloatArray, index: NDArray[np.intp], size: int) -> FloatArray:
    """Return the sums over the shapes of each number of vertices, row by row."""
    return np.array([np.bincount(index, row, size) for row in bounds], dtype=float)


def _middle_at_ranks(m: int, n: int, ks: FloatArray, largest: int) -> FloatArray:
    """Return, for each k, a bound on the expected components of more than `largest` and up to (m + n) / 2 vertices.

    The shapes of a block, from a0 to a1 rows by b0 to b1 columns, share a bound.
    """
    half = (m + n) // 2
    if largest >= half:
        return np.zeros(ks.size)
    blocks = _middle_blocks(m, n, half)
    a0, a1, b0, b1 = (np.tile(ends, ks.size) for ends in _blocks_between(blocks, half, largest))
    k = np.repeat(ks, a0.size // ks.size)
    with np.errstate(over="ignore"):
        bounds = (a1 - a0 + 1) * (b1 - b0 + 1) * _binomial_model(m, n, k, (a0, a1), (b0, b1)).exp_above()
        return np.asarray(np.sum(bounds.reshape(ks.size, -1), axis=1) * ROUNDING_FACTOR)


def _middle_blocks(m: int, n: int, half: int) -> Blocks:
    """Return blocks that cover all shapes of up to `half` vertices."""
    (row_first, row_last), (col_first, col_last) = _blocks(min(m, half - 1)), _blocks(min(n, half - 1))
    i, j = (place.ravel() for place in np.indices((row_first.size, col_first.size)))
    return row_first[i], row_last[i], col_first[j], col_last[j]


def _blocks_between(blocks: Blocks, half: int, largest: int) -> Blocks:
    """Return the blocks that hold a shape of more than `largest` and up to `half` vertices."""
    a0, a1, b0, b1 = blocks
    inside = (a0 + b0 <= half) & (a1 + b1 > largest)
    return a0[inside], a1[inside], b0[inside], b1[inside]


def middle_components(m: int, n: int, k: int, largest: int, effort: Effort = SHARP) -> float:
    """Return a bound on the expected number of components of more than `largest` and up to (m + n) / 2 vertices.

    Shapes are taken together in blocks. Those that matter are halved in both directions until all together are at most
    ``effort.enough``, or finer blocks would gain little.
    """
    half = (m + n) // 2
    if largest >= half:
        return 0.0
    blocks = _middle_blocks(m, n, half)
    coarse = 0.0
    before = math.inf
    while True:
        a0, a1, b0, b1 = _blocks_between(blocks, half, largest)
        with np.errstate(over="ignore"):
            shapes = (a1 - a0 + 1) * (b1 - b0 + 1)
            bounds = shapes * _binomial_model(m, n, k, (a0, a1), (b0, b1)).exp_above()
            total = coarse + float(np.sum(bounds))
        wide = (a1 - a0 >= np.maximum(1, FINE * a0)) | (b1 - b0 >= np.maximum(1, FINE * b0))
        matter = wide & (bounds > effort.enough * _SMALL_SHARE / max(bounds.size, 1))
        gained = math.isinf(total) or total <= _LEAST_GAIN * before
        if total <= effort.enough or not gained or not matter.any() or 4 * np.count_nonzero(matter) > effort.blocks:
            return total * ROUNDING_FACTOR
        coarse += float(np.sum(bounds[~matter]))
        before = total
        blocks = _quarters(a0[matter], a1[matter], b0[matter], b1[matter])


def _quarters(a0: FloatArray, a1: FloatArray, b0: FloatArray, b1: FloatArray) -> Blocks:
    """Return blocks of shapes halved in both directions, or in the one in which there are two."""
    a, b = np.floor((a0 + a1) / 2), np.floor((b0 + b1) / 2)
    first_rows, last_rows = np.concatenate([a0, a + 1, a0, a + 1]), np.concatenate([a, a1, a, a1])
    first_cols, last_cols = np.concatenate([b0, b0, b + 1, b + 1]), np.concatenate([b, b, b1, b1])
    there = (first_rows <= last_rows) & (first_cols <= last_cols)
    return first_rows[there], last_rows[there], first_cols[there], last_cols[there]


def _binomial_model(m: int, n: int, k: Real, rows: Range, columns: Range) -> Ball:
    """Return a bound on the logarithm of the expected number of components of one shape, for blocks of shapes (E6).

    At density p = k / N, ::

        C(m, a) C(n, b) (1-p)^cross (1 - (1-p)^a)^b (1 - (1-p)^b)^(a-1) sqrt(8 k (1-p))

    each factor where it is largest in [first, last].
    """
    (a0, a1), (b0, b1) = rows, columns
    cells, left = m * n, m * n - k
    log_empty = np.where(k < left, np.log1p(-np.minimum(k, left) / cells), np.log(left / cells))
    choices = ball_sum(_most_choices(m, a0, a1), _most_choices(n, b0, b1))
    cross = np.min([a * (n - b) + b * (m - a) for a in rows for b in columns], axis=0)  # bilinear: at a corner
    transfer = np.log(8 * k * (left / cells)) / 2 + np.zeros_like(cross)
    bound = ball_sum(choices, cross * log_empty, _log_reached(a0, b0, -a1 * log_empty, -b1 * log_empty), transfer)
    return Ball(bound.mid, bound.rad + ROUNDING_UNIT * (a1 + b1))


def _log_reached(a: FloatArray, b: FloatArray, column_rate: FloatArray, row_rate: FloatArray) -> FloatArray:
    """Return a bound on the log chance that a search from one vertex reaches all of a rows and b columns (E5).

    A column is missed with probability exp(-column_rate), a row with exp(-row_rate); the start is a row or a column.
    """
    column, row = np.log(-np.expm1(-column_rate)), np.log(-np.expm1(-row_rate))
    return np.minimum(b * column + (a - 1) * row, (b - 1) * column + a * row)


def _isolated_vertices(m: int, n: int, ks: FloatArray) -> BySize:
    """Return the components of 0 and of 1 vertex, a row for each k: m q(n) + n q(m)."""
    cells, others = np.array([n, m], dtype=float), np.array([m, n], dtype=float)
    possible = cells <= m * n - ks[:, None]
    empty = log_ratio(m * n, np.where(possible, cells, 0.0), ks[:, None])
    below = np.where(possible, empty.exp_below(), 0.0) @ others / ROUNDING_FACTOR
    above = np.where(possible, empty.exp_above(), 0.0) @ others * ROUNDING_FACTOR
    none = np.zeros_like(below)
    return BySize(*(np.stack([none, one], axis=1) for one in (below, above, none, above)))


class _Facts(NamedTuple):
    """What is known of shapes of components (a, b) whatever k is."""

    a: FloatArray
    b: FloatArray
    choices: Ball  # logarithm of C(m, a) C(n, b) a^(b-1) b^(a-1)
    forms: Ball  # logarithm of a^(b-1) b^(a-1)
    cycles: FloatArray  # per tree: see `_cycles_per_tree`
    cycle_trees: FloatArray

    def at(self, index: NDArray[np.intp]) -> "_Facts":
        """Return those of the shapes at `index`."""
        a, b, choices, forms, cycles, cycle_trees = self
        return _Facts(a[index], b[index], choices.at(index), forms.at(index), cycles[index], cycle_trees[index])

    def repeated(self, times: int) -> "_Facts":
        """Return them so many times, one after the other."""
        return self.at(np.tile(np.arange(self.a.size), times))


@lru_cache(maxsize=8)
def _shape_facts(m: int, n: int, largest: int) -> _Facts:
    """Return all shapes (a, b) with 1 <= a <= m, 1 <= b <= n and a + b <= largest."""
    rows = np.arange(1, min(m, largest - 1) + 1)
    count = np.minimum(n, largest - rows)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return _facts(m, n, np.repeat(rows, count).astype(float), 1.0 + offset)


def _facts(m: int, n: int, a: FloatArray, b: FloatArray) -> _Facts:
    forms = ball_sum((b - 1) * np.log(a), (a - 1) * np.log(b))
    return _Facts(a, b, ball_sum(_log_choices(m, a), _log_choices(n, b), forms), forms, *_cycles_per_tree(a, b))


def _components(m: int, n: int, k: Real, facts: _Facts) -> BySize:
    """Return the bounds for every shape (a, b), at one k or at one for each shape."""
    a, b, choices, forms, cycles, cycle_trees = facts
    edges, cells = a + b - 1, m * n
    free, cross = (m - a) * (n - b), a * (n - b) + b * (m - a)
    spare = k - edges  # edges elsewhere, if the component is a tree
    possible = (spare >= 0) & (spare <= free)
    drawn = log_ratio(cells, np.minimum(edges, k), cells - k)  # that given cells are all among the k
    placed = ball_sum(choices, drawn)

    tree = ball_sum(placed, _log_missed(cells - edges, cross + a * b - edges, spare, possible))
    trees, trees_above = np.where(possible, tree.exp_below(), 0.0), np.where(possible, tree.exp_above(), 0.0)
    spanned = (spare >= 0) & (cross + k <= cells)  # a spanning tree, whatever else is inside
    moment = ball_sum(placed, _log_missed(cells - edges, cross, spare, spanned)).exp_above()
    moment = np.where(spanned, moment * ROUNDING_FACTOR, 0.0)

    odds = np.where(possible, spare, 0.0) / np.where(possible, free - spare + 1, 1.0)
    unicyclic, unicyclic_above = trees * cycles * odds / ROUNDING_FACTOR, trees_above * cycles * odds * ROUNDING_FACTOR
    by_moment = (moment - trees - trees * cycle_trees * odds / ROUNDING_FACTOR) / 12
    connected = ball_sum(tree, _log_connected(a, b, np.where(odds > 0, odds, 1.0)), -forms.mid)
    by_search = Ball(connected.mid, connected.rad + forms.rad).exp_above() * ROUNDING_FACTOR - trees - unicyclic
    more = np.where((a * b > edges + 1) & (spare > 1), np.maximum(0.0, np.minimum(by_moment, by_search)), 0.0)

    every = np.where(possible, trees_above + unicyclic_above + more, moment / 4)
    loose = np.nonzero(every - trees - unicyclic > NEGLIGIBLE**2)
    ks = np.broadcast_to(k, a.shape)[loose]
    in_model = _binomial_model(m, n, ks, (a[loose], a[loose]), (b[loose], b[loose])).exp_above() * ROUNDING_FACTOR
    every[loose] = np.minimum(every[loose], in_model)
    return BySize(trees + unicyclic, trees_above + unicyclic_above, unicyclic_above, every)


def _log_choices(m: int, a: FloatArray) -> Ball:
    """Return log C(m, a)."""
    return log_binomial(m, a) if m > _LONGEST_TABLE else _table_of_choices(m).at(a.astype(np.intp))


@lru_cache(maxsize=16)
def _table_of_choices(m: int) -> Ball:
    """Return log C(m, 0), ..., log C(m, m)."""
    return log_binomial(m, np.arange(m + 1.0))


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
    return Ball(total.mid, total.rad + ROUNDING_UNIT * (a + b))


def _most_choices(m: int, first: FloatArray, last: FloatArray) -> Ball:
    """Return log C(m, a) at the a in [first, last] where it is largest: nearest to m / 2."""
    return _log_choices(m, np.clip(float(m // 2), first, last))


def _n_shapes(m: int, n: int, largest: int) -> int:
    """Return the number of shapes (a, b) with 1 <= a <= m, 1 <= b <= n and a + b <= largest."""
    rows = np.arange(1, min(m, largest - 1) + 1)
    return int(np.sum(np.minimum(n, largest - rows)))


def _blocks(largest: int) -> Range:
    """Return first and last numbers of blocks that cover 1 to `largest`, growing in proportion."""
    starts = [1]
    while starts[-1] <= largest:
        starts.append(starts[-1] + max(1, int(starts[-1] * COARSE)))
    first = np.array(starts[:-1], dtype=float)
    return first, np.minimum(np.array(starts[1:], dtype=float) - 1, largest)
