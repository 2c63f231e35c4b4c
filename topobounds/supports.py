"""Which cells of a layer carry a weight."""

from typing import SupportsFloat

from topobounds._arguments import as_written

MOST_NEURONS = 2**24  # of a layer that is summed up or sampled: some ten seconds each


def check_neurons(m: int, n: int) -> None:
    """Refuse a layer of so many rows and columns that what is in proportion to them takes too long.

    Raises
    ------
    ValueError
        If m + n is more than `MOST_NEURONS`.
    """
    if m + n > MOST_NEURONS:
        raise ValueError(f"Arguments 'm' and 'n' must add up to at most {MOST_NEURONS}, not {m + n}.")


def cells_at_density(m: int, n: int, density: SupportsFloat) -> int:
    """Return how many of the m n cells a support of this density has, wherever they are.

    The density is read as it is written (0.1 is one tenth), multiplied exactly and rounded to the nearest integer,
    halves to even.

    Parameters
    ----------
    m, n : int
        Rows and columns.
    density : float or Fraction
        In (0, 1].

    Returns
    -------
    int
        From 0, where the density is below half a cell, to m n.

    Examples
    --------
    >>> cells_at_density(5, 20, 0.235), round(0.235 * 5 * 20)
    (24, 23)
    """
    return round(as_written(density) * m * n)
