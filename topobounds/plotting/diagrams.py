"""Persistence diagrams of one layer: as points, as bars, and as the number of components by threshold."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from topobounds.plotting.colors import CATEGORIES
from topobounds.topology.persistence import PersistenceDiagram

_BELOW = -0.05  # where the bars of components that never die end


class DiagramArtists(NamedTuple):
    """What `draw_persistence_diagram` added: points, essential classes, the diagonal and the empty half above it."""

    points: PathCollection
    essential: PathCollection
    diagonal: Line2D
    above: Polygon


def draw_persistence_diagram(ax: Axes, diagram: PersistenceDiagram, **points: Any) -> DiagramArtists:
    """Draw the persistence diagram of a superlevel filtration: birth = 1 >= death, so points lie below the diagonal.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    diagram : PersistenceDiagram
        The diagram, on the normalised scale.
    **points
        Passed to ``ax.scatter`` for the finite points.

    Returns
    -------
    DiagramArtists
        The finite points in order of entry, the essential classes (a triangle under the axis at birth 1 for all of
        them, as none dies), the diagonal and the empty half above it.
    """
    above = Polygon([(0, 0), (1.05, 1.05), (0, 1.05)], closed=True, facecolor="0.94", edgecolor="none", zorder=0)
    ax.add_patch(above)
    (diagonal,) = ax.plot([0, 1.05], [0, 1.05], color="0.6", linewidth=0.8, zorder=1)
    style = {"s": 22, "color": CATEGORIES[0], "edgecolors": "white", "linewidths": 0.5, "zorder": 3, **points}
    finite = ax.scatter(diagram.births, diagram.deaths, **style)
    born = np.ones(min(diagram.n_essential, 1))
    essential = ax.scatter(born, born * -0.07, marker="v", s=28, color=CATEGORIES[1], zorder=3)
    ax.set(xlim=(0, 1.05), ylim=(-0.14, 1.05), xlabel="birth", ylabel="death")
    return DiagramArtists(finite, essential, diagonal, above)


def draw_betti_curve(ax: Axes, diagram: PersistenceDiagram, **line: Any) -> Line2D:
    """Draw Betti-0, the number of components, as the threshold falls from 1 to 0.

    Parameters
    ----------
    ax : Axes
        Where to draw. Its x axis runs from 1 down to 0, so that the filtration is read from left to right.
    diagram : PersistenceDiagram
        The diagram, on the normalised scale.
    **line
        Passed to ``ax.step``.

    Returns
    -------
    Line2D
        Vertices at threshold 1.05 (nothing entered), at each death, and at 0.
    """
    entries = np.unique(diagram.deaths)[::-1]
    vertices = sum(diagram.shape)
    components = [vertices, *np.atleast_1d(diagram.betti_curve(entries)), diagram.betti_curve(0.0)]
    (curve,) = ax.step(
        [1.05, *entries, 0.0], components, where="post", **{"color": CATEGORIES[0], "linewidth": 1.2, **line}
    )
    ax.set(xlim=(1.05, 0.0), ylim=(0, vertices + 0.5), xlabel="threshold", ylabel="components")
    return curve


class BarcodeArtists(NamedTuple):
    """What `draw_barcode` added: a bar for each finite point, in order of entry, and for each essential class."""

    bars: LineCollection
    essential: LineCollection


def draw_barcode(ax: Axes, diagram: PersistenceDiagram, **bars: Any) -> BarcodeArtists:
    """Draw the persistence diagram as bars from the birth of each component, 1, to its death as the threshold falls.

    Parameters
    ----------
    ax : Axes
        Where to draw. Its x axis runs from 1 down to 0, so that the filtration is read from left to right.
    diagram : PersistenceDiagram
        The diagram, on the normalised scale.
    **bars
        Passed to the ``LineCollection`` of the finite bars.

    Returns
    -------
    BarcodeArtists
        The finite bars from bottom to top in order of entry, the shortest first, and above them the essential ones, of
        the components that never die, which go on below 0.
    """
    heights = np.arange(len(diagram.deaths) + diagram.n_essential, dtype=float)
    finite, endless = np.split(heights, [len(diagram.deaths)])
    style = {"colors": CATEGORIES[0], "linewidths": 1.2, **bars}
    drawn = LineCollection(_bars(diagram.births, diagram.deaths, finite), **style)
    essential = LineCollection(
        _bars(np.ones(endless.size), np.full(endless.size, _BELOW), endless), colors=CATEGORIES[1], linewidths=1.2
    )
    ax.add_collection(drawn)
    ax.add_collection(essential)
    ax.set(xlim=(1.05, _BELOW), ylim=(-1, heights.size), xlabel="threshold, falling", ylabel="component")
    return BarcodeArtists(drawn, essential)


def _bars(births: NDArray[np.float64], deaths: NDArray[np.float64], heights: NDArray[np.float64]) -> list[Any]:
    return list(np.stack([np.stack([births, heights], axis=1), np.stack([deaths, heights], axis=1)], axis=1))
