"""Random bipartite graphs with k edges, from the definition and in ball arithmetic (Arb): nothing of ours is used.

With one exponential variable for the rows (z) and one for the columns (y), all bipartite graphs, each edge with the
weight x, are ``G = sum_b y^b / b! exp(z (1 + x)^b)``; the connected ones are log G, and a graph with one of its
components marked is one of G log G. At a number x that is a recursion of power series in z; the coefficient of x^k is
taken by Cauchy's integral over M points of a circle. The coefficients k + i M that this lets in are not negative and
at most what all graphs with so many edges allow, so that the balls hold the truth.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from flint import acb, acb_series, arb, ctx

ENOUGH = 2.0**-60  # radius of what is returned
SPREADS = 14  # standard deviations of a binomial that M points cover


class Graphs(NamedTuple):
    """What is known of the random graph with k edges: balls that contain the truth."""

    components: arb  # E[kappa]
    pairs: arb  # E[kappa (kappa - 1)]
    connected: arb  # P(kappa = 1)


def random_graphs(m: int, n: int, ks: Iterable[int], *, pairs: bool = False) -> dict[int, Graphs]:
    """Return the truth at several k of one layer; all k of it cost little more than one where m n is small."""
    found: dict[int, Graphs] = {}
    left = sorted(set(ks))
    cells = m * n
    while left:
        k = left[0]
        spread = math.sqrt(max(4.0, k * (cells - k) / cells))
        here = [each for each in left if each <= k + 3 * spread]
        points = min(cells + 1, round(SPREADS * spread) + 20) | 1
        found |= _coefficients(max(m, n), min(m, n), here, points, pairs)
        left = left[len(here) :]
    return found


def _coefficients(m: int, n: int, ks: list[int], points: int, pairs: bool) -> dict[int, Graphs]:
    for bits in range(128 + 64 * (n // 16), 64 * n + 512, 64):
        with ctx.workprec(bits):
            found = _by_cauchy(m, n, ks, points, pairs)
            if all(float(ball.rad()) < ENOUGH for graphs in found.values() for ball in graphs):
                return found
    raise ArithmeticError(f"{m} x {n}, k = {ks}: no precision is enough")


def _by_cauchy(m: int, n: int, ks: list[int], points: int, pairs: bool) -> dict[int, Graphs]:
    cells, middle = m * n, ks[len(ks) // 2]
    radius = arb(max(middle, 1)) / max(cells - middle, 1)
    sums = {k: [arb(0)] * 3 for k in ks}
    for j in range(points // 2 + 1):
        turn = _turn(j, points)
        marked = _marked(m, n, turn * radius, pairs)
        for k in ks:
            back = _turn(-j * k, points) * (1 if j == 0 else 2)
            sums[k] = [total + (value * back).real for total, value in zip(sums[k], marked, strict=True)]
    found = {}
    for k in ks:
        others = (k + i * points for i in range(-(k // points), (cells - k) // points + 1) if i)
        scale = radius**-k / _choose(cells, k)
        alias = sum((_choose(cells, other) * radius**other for other in others), arb(0)) * scale
        most = (m + n, (m + n) ** 2 if pairs else 0, 1)
        balls = (
            total * scale / points - alias * bound * arb(0).union(1) for total, bound in zip(sums[k], most, strict=True)
        )
        found[k] = Graphs(*balls)
    return found


def _turn(j: int, points: int) -> acb:
    angle = arb(2 * (j % points)) / points
    return acb(angle.cos_pi(), angle.sin_pi())


def _choose(n: int, k: int) -> arb:
    return arb(math.comb(n, k))


def _marked(m: int, n: int, x: acb, pairs: bool) -> tuple[acb, acb, acb]:
    """Return the sums over graphs of kappa x^edges, of kappa (kappa - 1) x^edges, and of x^edges of the connected."""
    cap, ctx.cap = ctx.cap, m + 1
    try:
        power = acb(1)
        some = []  # exp(z ((1 + x)^b - 1)) / b!, without isolated rows
        factor = arb(1)
        for b in range(n + 1):
            some.append(acb_series([0, power - 1]).exp() / factor)
            power *= 1 + x
            factor *= b + 1
        connected = [acb_series([0])]
        for b in range(1, n + 1):
            rest = acb_series([0])
            for j in range(1, b):
                rest += j * connected[j] * some[b - j]
            connected.append(some[b] - rest / b)
        rows = acb_series([0, 1])  # a row alone is a component
        every_row = rows.exp()
        once = _product(connected, some, n)
        marked = (rows * some[n] + once) * every_row
        twice = acb_series([0])
        if pairs:
            both = [_product(connected, connected, b) for b in range(n + 1)]
            twice = (rows * rows * some[n] + 2 * rows * once + _product(both, some, n)) * every_row
        scale = arb(math.factorial(m)) * math.factorial(n)
        return marked[m] * scale, twice[m] * scale, connected[n][m] * scale
    finally:
        ctx.cap = cap


def _product(left: list[acb_series], right: list[acb_series], n: int) -> acb_series:
    total = acb_series([0])
    for b in range(n + 1):
        total += left[b] * right[n - b]
    return total
