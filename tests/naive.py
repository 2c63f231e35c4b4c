"""Oracles, kept dumb: pure Python, brute force, no library of ours."""

import itertools
import math
from fractions import Fraction


def kruskal(weights, mask=None, zeros="absent"):
    """Return [(row, column), ...] of the maximum spanning forest in order of entry, and alpha and critical rank."""
    m, n = len(weights), len(weights[0])
    cells = [(i, j) for i in range(m) for j in range(n) if mask is None or mask[i][j]]
    cells = [(i, j) for i, j in cells if zeros == "edge" or weights[i][j] != 0]
    order = sorted(cells, key=lambda c: (-abs(weights[c[0]][c[1]]), c[0] * n + c[1]))
    edges, ranks = _forest(order, m, n)
    alpha = sum(weights[i][j] != 0 for i, j in edges)
    return edges, alpha, ranks[alpha - 1] if alpha else 0


def components(cells, m, n):
    """Return the number of components, isolated vertices counted, of the bipartite graph of these cells."""
    return m + n - len(_forest(cells, m, n)[0])


def expected_overlap(m, n, k):
    """Return E[X_k] over all k-subsets of the cells, exactly."""
    cells = list(itertools.product(range(m), range(n)))
    ranks = sum(m + n - components(top, m, n) for top in itertools.combinations(cells, k))
    return Fraction(ranks, math.comb(m * n, k) * (m + n - 1))


def _forest(order, m, n):
    label = {("row", i): i for i in range(m)} | {("column", j): m + j for j in range(n)}
    edges, ranks = [], []
    for rank, (i, j) in enumerate(order, 1):
        a, b = label["row", i], label["column", j]
        if a != b:
            edges.append((i, j))
            ranks.append(rank)
            label = {v: (b if c == a else c) for v, c in label.items()}
    return edges, ranks
