"""Every interval, fraction and bound that topobounds calls certified, exact or proved, against the truth in balls.

``python -m tests.attack.enclosures`` goes through 500 points (m, n, k) and prints what was checked; some of them are in
the ordinary tests. The truth is that of `tests.attack.random_graphs`, of sums over all orders of tiny layers, and where
a layer is too large for either of what can be said of it by hand: with few edges, with few cells missing, with two
columns, and of large layers by adding up components in balls. A truth is known to about 2^-60, so an end is wrong
where it lies beyond the truth by more.
"""

import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb, ctx

import topobounds
from tests.attack.random_graphs import random_graphs
from topobounds.chance.price import topology_price
from topobounds.layers.shape import Shape
from topobounds.theory import critical_rank, overlap
from topobounds.theory._components import SHARP
from topobounds.theory.bounds import boruvka_bound, corollary_3_4_repaired, star_bound
from topobounds.theory.counting import counting_steps, exact_expected_overlap, exact_expected_ranks
from topobounds.theory.critical_rank import connection_probability, critical_rank_law
from topobounds.theory.deviation import exact_overlap_variance, known_deviation
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap, expected_retention, expected_retention_of
from topobounds.theory.persistence import (
    expected_persistence,
    persistence_range,
    persistence_sum,
    untrained_persistence,
)
from topobounds.theory.ranks import QUICK, missing_edges
from topobounds.theory.ties import tied_expected_overlap

BITS = 200
COUNTED = SHARP._replace(steps=-1)  # the enclosure itself, where layers are counted
ORDERS = (1, 2, 3, 7.5, 0.5)
PROBABILITIES = (0.05, 0.5, 0.95, 0.99)


class Findings:
    """What was checked, and what was found wrong."""

    def __init__(self) -> None:
        self.checked: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.points: set[tuple[int, int, int]] = set()
        self.units: dict[str, float] = {}

    def contains(self, name: str, interval: Enclosure, truth: Any, *where: Any) -> None:
        """Note an interval, and whether the truth, a ball or a fraction, is certainly not in it."""
        self.checked[name] += 1
        truth = ball(truth)
        if not truth.is_finite() or not interval.lower <= interval.upper:
            self.wrong.append(f"{name} {where}: {interval}, truth {truth}")
        elif truth < arb(interval.lower) or truth > arb(interval.upper):
            self.wrong.append(f"{name} {where}: {interval} without {truth}")

    def holds(self, name: str, condition: bool, *where: Any) -> None:
        """Note a condition."""
        self.checked[name] += 1
        if not condition:
            self.wrong.append(f"{name} {where}")

    def equal(self, name: str, value: Any, truth: arb, *where: Any) -> None:
        """Note a fraction, and whether the truth is certainly another."""
        self.holds(name, bool(ball(value).overlaps(truth)), value, truth, *where)


def ball(value: Any) -> arb:
    """Return a number as a ball."""
    if isinstance(value, Fraction):
        return arb(value.numerator) / value.denominator
    return arb(value)


def choose(n: int, k: int) -> arb:
    """Return C(n, k), for numbers of any size."""
    if k < 0 or k > n:
        return arb(0)
    if min(k, n - k) < 2000:
        return arb(math.comb(n, k))
    return (arb(n + 1).lgamma() - arb(k + 1).lgamma() - arb(n - k + 1).lgamma()).exp()


def missed(cells: int, k: int, c: int) -> arb:
    """Return the chance that k random cells miss c given ones."""
    few, many = sorted((c, k))
    if few < 2000:
        top = bottom = arb(1)
        for i in range(few):
            top *= max(0, cells - many - i)
            bottom *= cells - i
        return top / bottom
    return choose(cells - c, k) / choose(cells, k)


# -- layers of which all is known ------------------------------------------------------------------------------------


def interesting(m: int, n: int) -> list[int]:
    """Return ks at which bounds are at their worst: the ends, criticality, alpha, where layers become connected."""
    cells, alpha = m * n, m + n - 1
    critical = math.sqrt(cells)
    ks = {0, 1, 3, 4, 5, int(critical), math.ceil(1.25 * critical), math.ceil(1.5 * critical), alpha - 1, alpha}
    ks |= {alpha + 1, 2 * alpha, int(alpha * math.log(alpha + 1) / 2), cells // 2, cells - max(m, n), cells - 1, cells}
    return sorted(k for k in ks if 0 <= k <= cells)


def check_layer(m: int, n: int, ks: list[int], found: Findings) -> None:
    """Check what is said of random graphs at these k, of one layer."""
    alpha, cells = m + n - 1, m * n
    small = cells <= 100
    around = {each for k in ks for each in ((k - 1, k + 1) if small else ()) if 0 <= each <= cells}
    truth = random_graphs(m, n, {*ks, *around}, pairs=cells <= 400)
    ranks = {k: m + n - graphs.components for k, graphs in truth.items()}
    shares = {k: rank / alpha for k, rank in ranks.items()}
    found.points |= {(m, n, k) for k in ks}
    enclosing = min(m, n) > 1
    curves = [expected_retention(m, n, ks)]
    if enclosing:
        inside = [k for k in ks if 4 <= k < cells]
        curves += [expected_retention_of(Shape(m, n, alpha), inside, effort) for effort in (COUNTED, QUICK)]
    for curve in curves:
        for k, lower, upper in zip(curve.ks, curve.lower, curve.upper, strict=True):
            found.contains("expected_retention", Enclosure(lower, upper), shares[k], m, n, k)
    for effort in (SHARP, QUICK):
        missing = missing_edges(m, n, effort)
        for k in truth:
            if k < missing.lower.size:
                interval = Enclosure(float(missing.lower[k]), float(missing.upper[k]))
                found.contains("missing_edges", interval, alpha - ranks[k], m, n, k)
        lower, upper = missing.ranks_at(np.array(sorted(truth)))
        for k, low, high in zip(sorted(truth), lower.tolist(), upper.tolist(), strict=True):
            found.contains("ranks_at", Enclosure(low, high), ranks[k], m, n, k)
    for k in ks:
        found.contains("expected_overlap", expected_overlap(m, n, k), shares[k], m, n, k)
        found.contains("expected_overlap", expected_overlap(n, m, k), shares[k], n, m, k)
        if enclosing and 4 <= k < cells:
            enclosed = overlap._overlap(Shape(m, n, k), COUNTED)
            found.contains("expected_overlap, enclosed", enclosed, shares[k], m, n, k)
        if small and 0 < k < cells:
            for above, at_least in ((k - 1, k), (k - 1, k + 1), (k, k + 1)):
                tied = tied_expected_overlap(m, n, above, at_least)
                found.contains("tied_expected_overlap", tied, shares[k], m, n, k)
        if counting_steps(m, n, k) <= 10**6:
            found.equal("exact_expected_overlap", exact_expected_overlap(m, n, k), shares[k], m, n, k)
        check_bounds(m, n, k, shares[k], found)
        if k == alpha:
            for density in (Fraction(alpha, cells), Fraction(1, 2), Fraction(9, 10), 1):
                if round(density * cells) >= alpha:
                    repaired = corollary_3_4_repaired(m, n, density)
                    found.holds("corollary_3_4_repaired", not arb(repaired) > shares[k], m, n, density)
        check_connection(m, n, k, truth[k].connected, found)
        deviation = known_deviation(m, n, k)
        if cells <= 400 and deviation is not None and deviation.status == "proved":
            variance = (truth[k].pairs + truth[k].components - truth[k].components ** 2) / alpha**2
            found.equal("exact_overlap_variance", exact_overlap_variance(m, n, k), variance, m, n, k)
            square = Fraction(deviation.value) ** 2
            near = Enclosure(float(square * (1 - Fraction(1, 2**50))), float(square * (1 + Fraction(1, 2**50))))
            if variance > 0:
                found.contains("overlap_deviation, proved", near, variance, m, n, k)


def check_bounds(m: int, n: int, k: int, share: arb | None, found: Findings) -> None:
    """Check the lower bounds on E[X_k] against their formulas, and against the truth where it is known."""
    cells, alpha = m * n, m + n - 1
    rows, columns, star = (1 - missed(cells, k, c) for c in (n, m, alpha))
    formulas = {
        star_bound: (m * rows).max(n * columns) / alpha,
        boruvka_bound: (m * rows + n * columns - ball(Fraction(cells, alpha)) * star) / alpha,
    }
    if min(m, n) == 1:
        formulas = dict.fromkeys(formulas, ball(Fraction(k, cells)))
    for bound, formula in formulas.items():
        value = bound(m, n, k)
        found.holds(bound.__name__, not arb(value) > formula, m, n, k)
        found.holds(bound.__name__, not arb(value) < formula * (1 - arb(2) ** -44), m, n, k)
        if share is not None:
            found.holds(bound.__name__, not arb(value) > share, m, n, k, share)


def check_connection(m: int, n: int, k: int, connected: arb, found: Findings) -> None:
    """Check the chance that k weights connect a layer."""
    found.contains("connection_probability", connection_probability(m, n, k), connected, m, n, k)
    long, short = max(m, n), min(m, n)
    if short > 1 and m + n - 1 <= k <= m * n - short:
        enclosed = critical_rank._enclosed(long, short, k)
        found.contains("connection_probability, enclosed", enclosed, connected, m, n, k)


def check_critical_rank(m: int, n: int, found: Findings, *, every_rank: bool = False) -> None:
    """Check the quantiles of the critical rank, and its mean where the law is known at every rank."""
    law = critical_rank_law(m, n)
    quantiles = {p: law.quantile(p) for p in PROBABILITIES}
    first, last = m + n - 1, m * n - min(m, n) + 1
    ends = {int(k) + d for each in quantiles.values() for k in (each.lower, each.upper) for d in (-1, 0)}
    ks = range(first, last) if every_rank else sorted(ends)
    truth = random_graphs(m, n, [k for k in {*ks, *ends} if first <= k < last])
    chances = {k: graphs.connected for k, graphs in truth.items()}
    for p, interval in quantiles.items():
        low, high = int(interval.lower), int(interval.upper)
        found.holds("critical_rank_law, quantile", high >= last or not chances.get(high, arb(0)) < p, m, n, p, interval)
        below = chances.get(low - 1, arb(0)) if low - 1 < last else arb(1)
        found.holds("critical_rank_law, quantile", low - 1 < first or not below > p, m, n, p, interval)
    if every_rank:
        mean = last - sum((chances[k] for k in range(first, last)), arb(0))
        exact = law.mean
        if isinstance(exact, Fraction):
            found.equal("critical_rank_law, mean", exact, mean, m, n)
        else:
            found.contains("critical_rank_law, mean", exact, mean, m, n)
        if min(m, n) > 1:
            enclosed = critical_rank._enclosed_mean(max(m, n), min(m, n))
            found.contains("critical_rank_law, mean enclosed", enclosed, mean, m, n)


# -- neural persistence ----------------------------------------------------------------------------------------------


def falling_values(cells: int, seed: int) -> Iterator[np.ndarray]:
    """Yield magnitudes of many kinds, falling."""
    rng = np.random.default_rng((seed, cells))
    yield np.sort(np.abs(rng.standard_normal(cells)))[::-1]
    yield np.sort(rng.random(cells))[::-1]
    yield np.sort(np.exp(rng.uniform(-700, 700, cells)))[::-1]
    yield np.sort(np.ceil(np.abs(rng.standard_normal(cells)) * 3))[::-1] + 1.0
    yield np.sort(1.0 - rng.random(cells) * 2.0**-50)[::-1]
    yield np.sort(rng.integers(1, 9, cells).astype(float) * 5e-324)[::-1]
    yield np.full(cells, 0.1)
    one = np.zeros(cells)
    one[0] = 1e308
    yield one


def check_persistence(m: int, n: int, found: Findings) -> None:
    """Check the expected neural persistence of given and of uniform values, whose ranks of edges are known."""
    cells, alpha = m * n, m + n - 1
    truth = random_graphs(m, n, range(cells + 1))
    ranks = [m + n - truth[k].components for k in range(cells + 1)]
    for k, rank_of_k in enumerate(exact_expected_ranks(m, n)):
        found.equal("exact_expected_ranks", rank_of_k, ranks[k], m, n, k)
    chances = [after - before for before, after in itertools.pairwise(ranks)]
    found.points |= {(m, n, k) for k in (1, alpha, cells)}
    for which, values in enumerate(falling_values(cells, seed=m)):
        exact = [arb(v) for v in values.tolist()]
        for p in ORDERS:
            steps = [(1 - v / exact[0]) ** arb(p) if v < exact[0] else arb(0) for v in exact]
            expected = sum((c * g for c, g in zip(chances, steps, strict=True)), arb(0))
            interval = expected_persistence(m, n, values, p=p)
            found.contains("expected_persistence", interval, expected, m, n, which, p)
            for given in (1, 2, alpha, cells // 2):
                part = expected_persistence(m, n, values[:given], p=p)
                found.contains("expected_persistence, of the largest", part, expected, m, n, which, p, given)
            for kept in {1, alpha, cells // 2, cells - 1} - {0}:
                among = sum((c * g for c, g in zip(chances[:kept], steps, strict=False)), arb(0))
                part = expected_persistence(m, n, values[:kept], p=p, cells=kept)
                found.contains("expected_persistence, uniform support", part, among, m, n, which, p, kept)
            whole = sum(steps, arb(0))
            found.contains("persistence_sum", persistence_sum(values, float(values[0]), p=p), whole, m, n, which, p)
            ends = persistence_range(m, n, values, p=p)
            found.holds("persistence_range", not arb(ends.upper) < expected, m, n, which, p)
            found.holds("persistence_range", not arb(ends.lower) > expected, m, n, which, p)
    for p in (1, 2, 3, 10, 100, 1000):
        expected = arb(0)
        for j, chance in enumerate(chances, 1):
            expected += chance * beta_moment(j, cells, p)
        found.contains("untrained_persistence", untrained_persistence(m, n, p=p), expected, m, n, p)


def beta_moment(j: int, cells: int, p: int) -> arb:
    """Return the p-th moment of Beta(j - 1, cells - j + 1)."""
    moment = arb(1)
    for i in range(p):
        moment *= arb(j - 1 + i) / (cells + i)
    return moment


# -- by all orders, or all subsets -----------------------------------------------------------------------------------


def rank(cells: tuple[tuple[int, int], ...], m: int, n: int) -> int:
    """Return the edges of a spanning forest of these cells."""
    label = list(range(m + n))
    edges = 0
    for i, j in cells:
        a, b = label[i], label[m + j]
        if a != b:
            label = [b if each == a else each for each in label]
            edges += 1
    return edges


def mean_ranks(cells: list[tuple[int, int]], m: int, n: int) -> list[Fraction]:
    """Return the mean rank of the subsets of each size."""
    return [
        Fraction(sum(rank(some, m, n) for some in itertools.combinations(cells, k)), math.comb(len(cells), k))
        for k in range(len(cells) + 1)
    ]


def check_supports(found: Findings) -> None:
    """Check what is certified of layers with a few zeros, by all subsets of their cells."""
    for m, n, absent in ((3, 3, 1), (3, 3, 2), (2, 4, 1), (4, 3, 2)):
        every = list(itertools.product(range(m), range(n)))
        whole = mean_ranks(every, m, n)
        values = np.linspace(9.0, 1.0, m * n - absent)
        steps = [(1 - Fraction(v) / Fraction(9)) ** 2 for v in values.tolist()]
        interval = expected_persistence(m, n, values, cells=values.size, every_support=True)
        for gone in itertools.combinations(every, absent):
            support = [cell for cell in every if cell not in gone]
            ranks = mean_ranks(support, m, n)
            if ranks[-1] < m + n - 1:
                continue
            expected = sum((b - a) * g for (a, b), g in zip(itertools.pairwise(ranks), steps, strict=True))
            found.contains("expected_persistence, every support", interval, expected, m, n, gone)
            weights = np.arange(1.0, m * n + 1).reshape(m, n)
            weights[tuple(zip(*gone, strict=True))] = 0.0
            for k in range(1, len(support) + 1):
                null = topobounds.overlap_null(weights, k, trials=2, seed=0)
                if null.status == "certified":
                    found.contains("overlap_null, few zeros", null.expected, ranks[k] / (m + n - 1), m, n, gone, k)
                if null.uniform_support is not None:
                    ratio = whole[k] / whole[len(support)]
                    found.contains("overlap_null, uniform support", null.uniform_support, ratio, m, n, gone, k)


def check_prices(found: Findings) -> None:
    """Check the price of topology, by all orders of six and of eight values."""
    for m, n, values in (
        (2, 3, (9, 7, 7, 4, 2, 1)),
        (2, 3, (1e30, 1, 1, 1e-9, 1e-30, 5e-324)),
        (4, 2, range(8, 0, -1)),
    ):
        for keep in range(m + n - 1, m * n + 1):
            swaps, lost, orders = Fraction(0), Fraction(0), 0
            for order in itertools.permutations(range(m * n)):
                if order[0] > order[1]:  # half of them, by symmetry of the first two columns or rows
                    continue
                ranked = sorted(range(m * n), key=lambda cell: order[cell])
                forest, label = [], list(range(m + n))
                for position, cell in enumerate(ranked):
                    a, b = label[cell // n], label[m + cell % n]
                    if a != b:
                        label = [b if each == a else each for each in label]
                        forest.append(position)
                others = [each for each in range(m * n) if each not in forest]
                kept = {*forest, *others[: keep - len(forest)]}
                swaps += len(kept - set(range(keep)))
                squares = [Fraction(v) ** 2 for v in values]
                lost += sum(squares[:keep]) - sum(squares[each] for each in kept)
                orders += 1
            matrix = np.array(values, dtype=float).reshape(m, n)
            price = topology_price(matrix, keep)
            found.contains("topology_price, swaps", price.expected_swaps, swaps / orders, m, n, keep)
            loss = price.expected_squared_weight_lost
            widened = Enclosure(loss.lower, loss.upper + price.expectation_gap * (1 + 2.0**-50))
            found.contains("topology_price, weight lost", widened, lost / orders, m, n, keep)


# -- layers too large to count ---------------------------------------------------------------------------------------


def check_large(m: int, n: int, found: Findings, effort: Any = SHARP) -> None:
    """Check layers of any size where the expectation has a closed form."""
    alpha, cells = m + n - 1, m * n
    few = {k: arb(k) for k in range(min(4, cells + 1))}
    four = choose(m, 2) * choose(n, 2)  # cycles of four edges
    if cells > 5:
        few[4] = 4 - four / choose(cells, 4)
        few[5] = 5 - four * (cells - 4) / choose(cells, 5)
    truth = {k: rank / alpha for k, rank in few.items()}
    for left in {0, 1, 2, min(m, n), max(m, n), m + n - 3} if min(m, n) > 1 else ():
        if 0 <= left < m + n - 2 and left < cells:  # a component other than the largest is a row or a column
            k = cells - left
            isolated = m * choose(cells - n, left - n) + n * choose(cells - m, left - m)
            truth[k] = (alpha - isolated / choose(cells, left)) / alpha
    if n == 2:
        for k in {alpha, m, 2 * m - 1, 2 * m, math.isqrt(2 * m)}:
            if 0 <= k <= cells and k < 10**6:
                none_full = choose(m, k) * arb(2) ** k / choose(cells, k)
                rows = m * missed(cells, k, 2)
                truth[k] = (m + 2 - rows - 2 + (1 - none_full)) / alpha
    for k, share in truth.items():
        found.points.add((m, n, k))
        found.contains("expected_overlap, large", expected_overlap(m, n, k), share, m, n, k)
        check_bounds(m, n, k, share, found)


def check_one_row(n: int, found: Findings) -> None:
    """Check layers of one row, where every weight is a forest edge."""
    for k in {0, 1, n // 3, n - 1, n}:
        found.points.add((1, n, k))
        share = Fraction(k, n)
        for interval in (expected_overlap(1, n, k), expected_overlap(n, 1, k)):
            found.holds("expected_overlap, one row", interval.lower <= share <= interval.upper, n, k)
        found.holds("star_bound", Fraction(star_bound(1, n, k)) <= share, n, k)
        found.holds("boruvka_bound", Fraction(boruvka_bound(1, n, k)) <= share, n, k)
        chance = connection_probability(1, n, k)
        found.holds("connection_probability", chance.lower == chance.upper == float(k == n), n, k)


def check_sandwich(m: int, n: int, k: int, largest: int, found: Findings) -> None:
    """Check a large layer by adding up its components in balls: an interval of our own must meet the one returned."""
    lower, upper = _components(m, n, k, largest)
    interval = expected_overlap(m, n, k)
    alpha = m + n - 1
    most, least = (m + n - lower) / alpha, (m + n - upper) / alpha
    found.points.add((m, n, k))
    found.holds("expected_overlap, by components", not arb(interval.upper) < least, m, n, k, least, interval)
    found.holds("expected_overlap, by components", not arb(interval.lower) > most, m, n, k, most, interval)
    found.holds("expected_overlap, by components: narrow", bool(most - least < arb(1e-5)), m, n, k, most - least)


def _components(m: int, n: int, k: int, largest: int) -> tuple[arb, arb]:
    """Return bounds on E[kappa]: trees and components with a cycle up to a size, and first moments of the others."""
    cells, vertices = m * n, m + n
    logs: dict[int, arb] = {}

    def factorial(x: int) -> arb:
        return logs.setdefault(x, arb(x + 1).lgamma())

    def log_choose(a: int, b: int) -> arb:
        return factorial(a) - factorial(b) - factorial(a - b)

    every = log_choose(cells, k)
    counted = m * missed(cells, k, n) + n * missed(cells, k, m)
    cycles = more = arb(0)
    for a in range(1, min(m, largest) + 1):
        for b in range(1, min(n, largest - a) + 1):
            size, free = a + b, (m - a) * (n - b)
            forms = log_choose(m, a) + log_choose(n, b) + (b - 1) * arb(a).log() + (a - 1) * arb(b).log()
            tree = (forms + log_choose(free, k - size + 1) - every).exp()
            with_cycle = arb(0)
            ways = arb(1)
            for half in range(2, min(a, b) + 1):
                ways = arb(1)
                for i in range(half):
                    ways *= arb((a - i) * (b - i)) / (a * b)
                with_cycle += ways * (a * b - (a - half) * (b - half)) / (2 * half)
            one = tree * with_cycle * (k - size + 1) / (free - k + size)
            counted += tree + one
            cycles += one
            extra = choose(a * b - size + 1, 2)  # a spanning tree and two more edges, and no edge that leads out
            if a * b > size:
                rest = cells - (a * (n - b) + b * (m - a)) - (size + 1)
                more += (forms + log_choose(rest, k - size - 1) - every).exp() * extra
    lost = vertices - counted  # more components than there are cannot be
    independent = k - vertices + counted
    spread = arb(k)
    no_rest = (-(independent**2) / (2 * spread)).exp() + 2 * cycles / independent
    middle = _middle(m, n, k, largest)
    assert lost > 1
    return counted + 1 - no_rest, counted + more + middle + 1


def _middle(m: int, n: int, k: int, largest: int) -> arb:
    """Return a bound on components of more vertices than `largest` and at most half, shape by shape, in doubles.

    It is next to nothing, so that it may be a thousand times too small without harm: that much is added.
    """
    from scipy.special import gammaln

    p, half = k / (m * n), (m + n) // 2
    total, b = 0.0, np.arange(n + 1.0)
    columns = gammaln(n + 1) - gammaln(b + 1) - gammaln(n - b + 1)
    row = np.log1p(-((1 - p) ** b[1:]))
    for a in range(1, min(m, half - 1) + 1):
        first, last = max(1, largest + 1 - a), min(n, half - a)
        if last < first:
            continue
        some = b[first : last + 1]
        choices = math.lgamma(m + 1) - math.lgamma(a + 1) - math.lgamma(m - a + 1) + columns[first : last + 1]
        cross = (a * (n - some) + some * (m - a)) * math.log1p(-p)
        reached = some * math.log(-math.expm1(a * math.log1p(-p))) + (a - 1) * row[first - 1 : last]
        total += float(np.exp(choices + cross + reached).sum()) * math.sqrt(8 * k)
    return arb(total) * 1000


def check_few_digits(found: Findings) -> None:
    """Check chances so small that doubles have fewer digits: of a tree, as Scoins counted them."""
    for n, first, last in ((9, 790, 850), (30, 360, 400), (200, 230, 260)):
        for m in range(first, last):
            alpha = m + n - 1
            trees = (arb(m).log() * (n - 1) + arb(n).log() * (m - 1)).exp() / choose(m * n, alpha)
            found.points.add((m, n, alpha))
            found.contains("connection_probability, of a tree", connection_probability(m, n, alpha), trees, m, n)


def check_functions(found: Findings) -> None:
    """Check that elementary functions err by at most 4 units in the last place, and note by how much they do."""
    rng = np.random.default_rng(3)
    samples = {
        "exp": rng.uniform(-708, 709, 20_000),
        "log": 10 ** rng.uniform(-300, 300, 20_000),
        "log1p": np.concatenate([-(10 ** rng.uniform(-18, np.log10(0.5), 10_000)), 10 ** rng.uniform(-18, 18, 10_000)]),
        "expm1": np.concatenate([-(10 ** rng.uniform(-18, 2, 10_000)), 10 ** rng.uniform(-18, 2, 10_000)]),
    }
    for name, x in samples.items():
        truth = [getattr(arb(v), name)() for v in x.tolist()]
        for library, values in (
            ("numpy", getattr(np, name)(x)),
            ("math", [getattr(math, name)(v) for v in x.tolist()]),
        ):
            _note_units(f"{library}.{name}", values, truth, found)
    bases, powers = rng.random(20_000), rng.choice([0.5, 1.5, 3.0, 7.5, 20.0], 20_000)
    truth = [arb(base) ** arb(power) for base, power in zip(bases.tolist(), powers.tolist(), strict=True)]
    _note_units("numpy.power", np.power(bases, powers), truth, found)


def _note_units(name: str, values: Any, truth: list[arb], found: Findings) -> None:
    units = max(
        float(abs(arb(value) - exact)) / math.ulp(value)
        for value, exact in zip(map(float, values), truth, strict=True)
        if abs(value) > 1e-300
    )
    found.units[name] = units
    found.holds("elementary functions", units <= 4, name, units)


# -- the grid --------------------------------------------------------------------------------------------------------

QUICK_LAYERS = [(1, 1), (1, 5), (2, 2), (3, 2), (4, 4), (7, 3), (9, 9)]
LAYERS = [
    *QUICK_LAYERS,
    *((1, n) for n in (2, 3, 9, 50)),
    *((m, 2) for m in (3, 5, 17, 90, 300)),
    *((m, 3) for m in (3, 11, 60, 150)),
    *((3, 5), (4, 5), (5, 5), (6, 5), (8, 8), (12, 12), (14, 11), (16, 16), (17, 17), (18, 18), (19, 19)),
    *((20, 14), (22, 22), (25, 12), (26, 26), (40, 6), (60, 8)),
]
FEW_KS = {(30, 30): [37, 45, 59, 118, 200], (40, 40): [50, 60, 79], (100, 20): [119]}
LARGE = [(10**6, 2), (2**26, 2**26), (2**51, 2), (2, 10**5), (4096, 14336), (14336, 4096), (784, 300), (10**7, 3)]
ROWS = [1, 2, 7, 10**4, 2**31, 2**52]
CRITICAL = [(2, 2), (3, 5), (6, 6), (9, 4), (12, 12), (17, 17), (18, 18), (20, 20), (30, 3)]
PERSISTENCE = [(2, 2), (4, 3), (6, 6), (12, 2), (12, 10)]
SANDWICHES = [(4096, 14336, 18431, 40), (14336, 4096, 40000, 24), (784, 300, 1083, 60), (1000, 1000, 3000, 40)]


def check_quickly(found: Findings) -> None:
    """Check a part that takes some seconds."""
    with ctx.workprec(BITS):
        for m, n in QUICK_LAYERS:
            check_layer(m, n, interesting(m, n)[:: 1 if m * n < 9 else 4], found)
        check_layer(19, 17, [35], found)
        check_critical_rank(4, 3, found, every_rank=True)
        check_persistence(3, 2, found)
        check_large(4096, 14336, found)
        check_one_row(7, found)
        check_few_digits(found)


def check_everything(found: Findings) -> None:
    """Check the whole grid."""
    steps = [
        *((f"layer {m} x {n}", lambda m=m, n=n: check_layer(m, n, interesting(m, n), found)) for m, n in LAYERS),
        *((f"layer {m} x {n}", lambda m=m, n=n, ks=ks: check_layer(m, n, ks, found)) for (m, n), ks in FEW_KS.items()),
        *((f"large {m} x {n}", lambda m=m, n=n: check_large(m, n, found)) for m, n in LARGE),
        *((f"one row of {n}", lambda n=n: check_one_row(n, found)) for n in ROWS),
        *(
            (f"critical {m} x {n}", lambda m=m, n=n: check_critical_rank(m, n, found, every_rank=m * n < 150))
            for m, n in CRITICAL
        ),
        *((f"persistence {m} x {n}", lambda m=m, n=n: check_persistence(m, n, found)) for m, n in PERSISTENCE),
        ("few digits", lambda: check_few_digits(found)),
        ("functions", lambda: check_functions(found)),
        ("supports", lambda: check_supports(found)),
        ("prices", lambda: check_prices(found)),
        *((f"components {each}", lambda each=each: check_sandwich(*each, found)) for each in SANDWICHES),
    ]
    for name, step in steps:
        start = time.perf_counter()
        with ctx.workprec(BITS):
            step()
        report(f"{name}: {time.perf_counter() - start:.1f} s, {len(found.wrong)} wrong so far")


def report(line: str) -> None:
    """Print a line at once."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Check everything and print what was checked."""
    found = Findings()
    start = time.perf_counter()
    check_everything(found)
    for name, count in sorted(found.checked.items()):
        print(f"{name}: {count}")
    for name, units in sorted(found.units.items()):
        print(f"{name}: at most {units:.2f} units in the last place")
    for line in found.wrong:
        print(f"WRONG {line}")
    seconds = time.perf_counter() - start
    print(
        f"{len(found.points)} points (m, n, k), {found.checked.total()} checks, "
        f"{len(found.wrong)} wrong, {seconds:.0f} s"
    )
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
