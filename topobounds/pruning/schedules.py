"""How many weights are left after each round of iterative pruning."""

from fractions import Fraction

import numpy as np

from topobounds._arguments import as_written, density_fraction, integer, real

_MOST_ROUNDS = 10**6


def linear_schedule(n_weights: int, density: float | Fraction, rounds: int) -> tuple[int, ...]:
    """Return the paper's schedule: the same share of all weights is pruned in every round.

    After round r of N, ``n_weights (1 - (1 - density) r / N)`` weights are left, computed exactly (the density is read
    as it is written) and rounded to the nearest integer, halves to even; the rounding does not add up.

    Parameters
    ----------
    n_weights : int
        Weights of the layer or network before the first round, at least 1.
    density : float or Fraction
        Share to be left after the last round, in (0, 1].
    rounds : int
        Rounds N, from 1 to 10^6.

    Returns
    -------
    tuple of int
        Weights left after each round; the last is ``n_weights density``, rounded.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Balwani & Krzyston, PMLR 196, 2022, section 2.1: p/N percent of all weights are pruned a round.

    Examples
    --------
    >>> linear_schedule(1000, 0.1, 5)
    (820, 640, 460, 280, 100)
    """
    weights, n_rounds = integer("n_weights", n_weights, 1), integer("rounds", rounds, 1, most=_MOST_ROUNDS)
    density_fraction("density", density)
    pruned = weights * (1 - as_written(density)) / n_rounds
    return tuple(round(weights - pruned * r) for r in range(1, n_rounds + 1))


def geometric_schedule(n_weights: int, rate: float | Fraction, rounds: int) -> tuple[int, ...]:
    """Return the literature's schedule: the same share of what is left is pruned in every round.

    Each round leaves ``round((1 - rate) left)``, the rate as it is written, computed exactly, halves to even: for 0.2
    what a mask of ``keep=0.8`` leaves when it is taken again and again.

    Parameters
    ----------
    n_weights : int
        Weights of the layer or network before the first round, at least 1.
    rate : float or Fraction
        Share of the survivors that each round prunes, in [0, 1); 0.2 is customary, 0.1 for the output layer.
    rounds : int
        Rounds, from 1 to 10^6.

    Returns
    -------
    tuple of int
        Weights left after each round.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> geometric_schedule(1000, 0.2, 5)
    (800, 640, 512, 410, 328)
    """
    left, n_rounds = integer("n_weights", n_weights, 1), integer("rounds", rounds, 1, most=_MOST_ROUNDS)
    real("rate", rate, "a number in [0, 1)", 0.0, float(np.nextafter(1.0, 0.0)))
    kept = 1 - as_written(rate)
    counts = []
    for _ in range(n_rounds):
        left = round(kept * left)
        counts.append(left)
    return tuple(counts)


def cubic_schedule(n_weights: int, density: float | Fraction, rounds: int) -> tuple[int, ...]:
    """Return the schedule of gradual pruning: much is pruned in the first rounds, little in the last.

    After round r of N, ``n_weights (density + (1 - density) (1 - r / N)^3)`` weights are left, computed exactly (the
    density is read as it is written) and rounded to the nearest integer, halves to even.

    Parameters
    ----------
    n_weights : int
        Weights of the layer or network before the first round, at least 1.
    density : float or Fraction
        Share to be left after the last round, in (0, 1].
    rounds : int
        Rounds N, from 1 to 10^6.

    Returns
    -------
    tuple of int
        Weights left after each round; the last is ``n_weights density``, rounded.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Zhu & Gupta, To prune, or not to prune, 2017 (arXiv 1710.01878), equation 1.

    Examples
    --------
    >>> cubic_schedule(1000, 0.1, 5)
    (561, 294, 158, 107, 100)
    """
    weights, n_rounds = integer("n_weights", n_weights, 1), integer("rounds", rounds, 1, most=_MOST_ROUNDS)
    density_fraction("density", density)
    last = as_written(density)
    left = (last + (1 - last) * (1 - Fraction(r, n_rounds)) ** 3 for r in range(1, n_rounds + 1))
    return tuple(round(weights * share) for share in left)
