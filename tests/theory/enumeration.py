"""Oracles for the overlap, kept dumb: every k-subset of the cells of a small layer."""

import itertools
import math
from fractions import Fraction
from functools import cache


def n_components(m, n, cells):
    """Components of the graph on m rows and n columns with an edge for each of the cells, in row-major numbers."""
    parent = list(range(m + n))

    def find(x):
        while parent[x] != x:
            x = parent[x]
        return x

    for cell in cells:
        parent[find(cell // n)] = find(m + cell % n)
    return sum(parent[v] == v for v in range(m + n))


@cache
def mean_rank(m, n, k):
    """E[R_k] over all k-subsets, exactly."""
    ranks = [m + n - n_components(m, n, subset) for subset in itertools.combinations(range(m * n), k)]
    return Fraction(sum(ranks), len(ranks))


def mean_overlap(m, n, k=None):
    """E[X_k], exactly."""
    return mean_rank(m, n, m + n - 1 if k is None else k) / (m + n - 1)


def empty(m, n, k, c):
    """q(c), exactly."""
    return Fraction(math.comb(m * n - c, k), math.comb(m * n, k))


def small_layers(largest=3):
    """All (m, n, k) up to a size."""
    for m, n in itertools.product(range(1, largest + 1), repeat=2):
        for k in range(m * n + 1):
            yield m, n, k


@cache
def connected_graphs(a, b):
    """Count the connected bipartite graphs on a + b labelled vertices, by number of edges.

    All graphs, less those in which the component of a marked row is smaller.
    """
    if a == 0:
        return [1] if b == 1 else [0]
    counts = [math.comb(a * b, e) for e in range(a * b + 1)]
    for i, j in itertools.product(range(1, a + 1), range(b + 1)):
        if (i, j) != (a, b):
            rest = (a - i) * (b - j)
            ways = math.comb(a - 1, i - 1) * math.comb(b, j)
            for e, c in enumerate(connected_graphs(i, j)):
                for f in range(rest + 1 if c else 0):
                    counts[e + f] -= ways * c * math.comb(rest, f)
    return counts


def mean_overlap_by_components(m, n, k=None):
    """E[X_k], exactly, from the numbers of connected graphs: another road than the package's."""
    k = m + n - 1 if k is None else k
    total = 0
    for a, b in itertools.product(range(m + 1), range(n + 1)):
        if a + b:
            rest = (m - a) * (n - b)
            here = sum(c * math.comb(rest, k - e) for e, c in enumerate(connected_graphs(a, b)[: k + 1]))
            total += math.comb(m, a) * math.comb(n, b) * here
    return (m + n - Fraction(total, math.comb(m * n, k))) / (m + n - 1)
