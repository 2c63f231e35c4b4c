"""Curves with what surrounds them: a spread, or an interval."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from topobounds._arguments import argument_error


class BandArtists(NamedTuple):
    """What `draw_band` added: the line of means, and the band of one standard deviation around it."""

    mean: Line2D
    band: PolyCollection


class IntervalArtists(NamedTuple):
    """What `draw_interval` added to the axes: the line of middles, and the interval around it."""

    middle: Line2D
    band: PolyCollection


def draw_band(ax: Axes, x: ArrayLike, samples: ArrayLike, **line: Any) -> BandArtists:
    """Draw the mean of several curves, with a band of one sample standard deviation to either side.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    x : array_like of shape (points,)
        Abscissae.
    samples : array_like of shape (trials, points)
        One curve a trial. With a single trial the band has no width.
    **line
        Passed to ``ax.plot`` for the line of means (``color``, ``label``, ``marker``...).

    Returns
    -------
    BandArtists
        The line and the band.

    Raises
    ------
    ValueError
        If `samples` is no matrix with one column for each abscissa and at least one row.
    """
    abscissae, curves = np.asarray(x, float), np.asarray(samples, float)
    if curves.ndim != 2 or len(curves) == 0 or curves.shape[1:] != abscissae.shape:
        rule = f"a matrix of one row a trial and {abscissae.size} columns"
        raise argument_error("samples", rule, curves.shape)
    mean = curves.mean(axis=0)
    spread = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(mean)
    (drawn,) = ax.plot(abscissae, mean, **line)
    band = ax.fill_between(abscissae, mean - spread, mean + spread, color=drawn.get_color(), alpha=0.2, linewidth=0)
    return BandArtists(drawn, band)


def draw_interval(ax: Axes, x: ArrayLike, lower: ArrayLike, upper: ArrayLike, **line: Any) -> IntervalArtists:
    """Draw a curve that is known to lie in an interval: a line through the middles, and the interval around it.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    x, lower, upper : array_like of shape (points,)
        Abscissae, and the ends of the interval at each: of an `Enclosure`, a `RetentionCurve`, a confidence interval.
    **line
        Passed to ``ax.plot`` for the line (``color``, ``label``, ``marker``...).

    Returns
    -------
    IntervalArtists
        The line and the interval.

    Raises
    ------
    ValueError
        If the three are not of one length, or an upper end lies below its lower end.
    """
    abscissae, low, high = np.asarray(x, float), np.asarray(lower, float), np.asarray(upper, float)
    if low.shape != abscissae.shape or high.shape != abscissae.shape or (high < low).any():
        rule = f"{abscissae.size} numbers, none below its lower end"
        raise argument_error("upper", rule, f"{high.tolist()} above {low.tolist()}")
    (drawn,) = ax.plot(abscissae, (low + high) / 2, **line)
    band = ax.fill_between(abscissae, low, high, color=drawn.get_color(), alpha=0.25, linewidth=0)
    return IntervalArtists(drawn, band)
