"""Oracle for random orders of weights, kept dumb: every order of the cells of a small support, in pure Python."""

import math
from collections import Counter
from fractions import Fraction


def forest_rank_law(cells, m, n):
    """Return {ranks of the forest's edges: number of orders of the cells in which these are the ranks}.

    Walks through all orders; only where every cell that is left joins nothing are the orders of these counted at once.
    """
    law = Counter()

    def walk(left, label, ranks, rank):
        live = [c for c in left if label[c[0]] != label[m + c[1]]]
        if not live:
            law[ranks] += math.factorial(len(left))
            return
        for cell in left:
            a, b = label[cell[0]], label[m + cell[1]]
            rest = [c for c in left if c != cell]
            if a == b:
                walk(rest, label, ranks, rank + 1)
            else:
                walk(rest, [b if x == a else x for x in label], (*ranks, rank + 1), rank + 1)

    walk(list(cells), list(range(m + n)), (), 0)
    return law


def all_cells(m, n):
    return [(i, j) for i in range(m) for j in range(n)]


def persistences(values, p):
    """Return (1 - v / v_1)^p of falling values; exact for an integer p."""
    if isinstance(p, int):
        return [(1 - Fraction(v) / Fraction(values[0])) ** p for v in values]
    return [float(1 - Fraction(v) / Fraction(values[0])) ** p for v in values]


def persistence_sums(law, values, p):
    """Return {NP^p: number of orders}, the value of rank j being values[j - 1]; ranks beyond the values are absent."""
    steps = persistences(values, p)
    sums = Counter()
    for ranks, orders in law.items():
        sums[sum(steps[rank - 1] for rank in ranks if rank <= len(values))] += orders
    return sums


def mean(counts):
    return sum(x * count for x, count in counts.items()) / counts.total()
