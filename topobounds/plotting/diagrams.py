"""Persistence diagrams of one layer: as points, as bars, and as the number of components by threshold."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from topobounds.plotting.curves import CATEGORIES
from topobounds.topology.persistence import PersistenceDiagram


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
        Where to draw. Its abscissa is turned round, so that the filtration is read from left to right.
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
