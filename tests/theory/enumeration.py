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
