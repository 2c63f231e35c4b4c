"""The expected overlap of layers with tied magnitudes, such as quantised ones, under any rule that breaks the ties.

The proof is in docs/theory/overlap.md, "Ties".
"""

import math
from collections.abc import Iterable
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import argument_error, integer
from topobounds.layers.shape import Shape
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap_of

TIES_DECIDE = "Weights tie at the cut: where those are ranked at random, as by chance"
"""How the reason begins why a number is not held against chance: the rule that ranks ties makes it."""


def tied_expected_overlap(m: int, n: int, above: int, at_least: int) -> Enclosure:
    """Return an interval that contains E[X_k] of a layer whose k-th largest magnitude is tied, however ties are broken.

    ::

        E[X_above] <= E[X_k] <= E[X_at_least],     X_k = |forest ∩ top-k| / (m + n - 1)

    where `above` weights are strictly larger than the k-th largest and `at_least` are at least as large. The outer
    two are those of a layer without ties, `expected_overlap`. The k largest contain the former and lie within the
    latter, and the rank of a set of edges rises with the set.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1, with m n at most 2^52.
    above : int
        Weights strictly above the k-th largest magnitude, 0 to m n; less than k.
    at_least : int
        Weights at least as large, `above` to m n; at least k. `tie_counts` counts both.

    Returns
    -------
    Enclosure
        Within [0, 1], for exchangeable |w| with any ties, given their values. Where nothing is tied, above = k - 1 and
        at_least = k. A rule may be anything, such as the order of the cells, so a layer and its transpose, with the
        ties of both broken by the flat index, may differ by as much as the interval is wide. Zeros may be edges or
        not; where they are not, k must be at most the number of other weights.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    Weights of 784 x 300 quantised to int8, of which 1080 are above and 1202 at least the 1083rd:

    >>> overlap = tied_expected_overlap(784, 300, 1080, 1202)
    >>> f"{overlap.lower:.4f} {overlap.upper:.4f}"
    '0.7987 0.8323'
    """
    shape = Shape.checked(m, n, None)
    above = integer("above", above, 0, shape.cells)
    at_least = integer("at_least", at_least, above, shape.cells)
    below = expected_overlap_of(shape._replace(k=above))
    beyond = expected_overlap_of(shape._replace(k=at_least))
    return Enclosure(below.lower, beyond.upper)


def tie_counts(magnitudes: Iterable[SupportsFloat] | NDArray[Any], k: int) -> tuple[int, int]:
    """Return how many magnitudes are strictly above the k-th largest, and how many at least as large.

    Parameters
    ----------
    magnitudes : array_like of float
        The |w| of a layer, in any order and shape, without NaN; every entry counts, zeros too.
    k : int
        From 1 to the number of magnitudes.

    Returns
    -------
    tuple of int
        `above` < k and `at_least` >= k; k - 1 and k where the k-th largest is tied with no other.

    Raises
    ------
    ValueError
        If a magnitude is NaN or negative, or `k` is out of range.

    Examples
    --------
    >>> tie_counts([3, 2, 2, 2, 1], 3), tie_counts([3, 2, 2, 2, 1], 1)
    ((1, 4), (0, 1))
    """
    values = np.asarray(magnitudes).ravel()
    k = integer("k", k, 1, values.size)
    if not (values >= 0).all():
        raise argument_error("magnitudes", "numbers from 0 on", values[~(values >= 0)][0])
    tied = np.partition(values, values.size - k)[values.size - k]
    return int(np.count_nonzero(values > tied)), int(np.count_nonzero(values >= tied))


def swaps_by_a_rule(at_random: float) -> str:
    """Return the words that T-IMP's swaps are those of the rule that ranks ties, and how many a random order makes.

    Examples
    --------
    >>> swaps_by_a_rule(54.3)
    'Weights tie at the cut: where those are ranked at random, as by chance, 54.3 weights are swapped'
    """
    return f"{TIES_DECIDE}, {at_random:.1f} weights are swapped"


def move_that_counts(mean: float, deviation: float | None) -> float:
    """Return by how many swaps a rule for ties has to move them so that chance no longer tells what is expected.

    That is a standard deviation; where it is not known hardly anything is swapped, and it is that of rare events.

    Examples
    --------
    >>> move_that_counts(54.3, 4.7), move_that_counts(9.0, None), move_that_counts(0.4, None)
    (4.7, 3.0, 1.0)
    """
    return max(1.0, math.sqrt(mean)) if deviation is None else deviation
