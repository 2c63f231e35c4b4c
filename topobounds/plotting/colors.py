"""Colours: for things without an order, and for the layers of a net."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgba

from topobounds._arguments import integer

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours for things without an order (Okabe and Ito's, told apart by every kind of colour vision)."""


def layer_colors(count: int) -> list[tuple[float, float, float, float]]:
    """Return `count` colours in the order of the layers, dark to light, evenly spaced to the eye.

    Parameters
    ----------
    count : int
        How many, at least 1.

    Returns
    -------
    list of RGBA tuples
        From matplotlib's viridis (perceptually ordered, safe for colour-blind readers), without its pale end.

    Raises
    ------
    ValueError
        If `count` is no positive integer.

    Examples
    --------
    >>> len(layer_colors(6))
    6
    """
    places = np.linspace(0.0, 0.9, integer("count", count, 1))
    return [to_rgba(tuple(colormaps["viridis"](place))) for place in places]
