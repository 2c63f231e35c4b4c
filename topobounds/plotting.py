"""Pictures of single records, drawn into axes that the caller owns.

Every function takes a matplotlib ``Axes`` first, returns the artists it added, writes no file and changes no setting of
matplotlib. Sizes, fonts and what stands around the axes are the caller's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, integer
from topobounds.topology.persistence import PersistenceDiagram
from topobounds.topology.spanning import SpanningForest
from topobounds.weights import weight_matrix

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours for things without an order (Okabe and Ito's, told apart by every kind of colour vision)."""

_PRESENT = "0.65"
_INK = "0.15"


class FiltrationArtists(NamedTuple):
    """What `draw_filtration` added to the axes.

    Attributes
    ----------
    edges : LineCollection
        Edges in the graph that are no forest edges.
    forest : LineCollection
        Forest edges in the graph, in order of entry, in the colour of their component.
    vertices : PathCollection
        Rows, then columns; hollow where nothing is connected yet.
    labels : list of Text
        The value at which a forest edge entered.
    """

    edges: LineCollection
    forest: LineCollection
    vertices: PathCollection
    labels: list[Text]


class DiagramArtists(NamedTuple):
    """What `draw_persistence_diagram` added: points, essential classes, the diagonal and the empty half above it."""

    points: PathCollection
    essential: PathCollection
    diagonal: Line2D
    above: Polygon


class BandArtists(NamedTuple):
    """What `draw_band` added: the line of means, and the band of one standard deviation around it."""

    mean: Line2D
    band: FillBetweenPolyCollection


class IntervalArtists(NamedTuple):
    """What `draw_interval` added to the axes: the line of middles, and the interval around it."""

    middle: Line2D
    band: FillBetweenPolyCollection


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


def draw_filtration(
    ax: Axes,
    weights: ArrayLike,
    forest: SpanningForest,
    threshold: float,
    *,
    positions: ArrayLike | None = None,
    labels_below: float = np.inf,
    style: Mapping[str, Any] | None = None,
) -> FiltrationArtists:
    """Draw the graph of the weights with ``|w| / w_max >= threshold``: its components in colour, forest edges bold.

    A component takes its colour when its first edge enters and, when two merge, the earlier colour stays. So colours
    agree between pictures of one layer at several thresholds.

    Parameters
    ----------
    ax : Axes
        Where to draw; its frame and ticks are taken away.
    weights : array_like of shape (m, n)
        The layer.
    forest : SpanningForest
        Its maximum spanning forest, at least one edge.
    threshold : float
        On the normalised scale.
    positions : array_like of shape (m + n, 2), optional
        Where the rows, then the columns, stand; by default two facing ranks.
    labels_below : float
        Write the value of forest edges that entered below this one (the threshold of the picture before).
    style : mapping, optional
        Passed to the labels (``fontsize``...).

    Returns
    -------
    FiltrationArtists
        Edges, forest edges, vertices and labels.

    Raises
    ------
    ValueError
        If the forest is not one of a layer of this shape, or has no edge, or the positions have another shape.
    """
    matrix = np.abs(weight_matrix(weights).astype(np.float64))
    m, n = _check_forest(matrix, forest)
    places = _facing_ranks(m, n) if positions is None else np.asarray(positions, float)
    if places.shape != (m + n, 2):
        raise argument_error("positions", f"an array of shape {(m + n, 2)}", places.shape)
    values = forest.weights.astype(np.float64) / matrix.max()
    entered = int(np.count_nonzero(values >= threshold))
    pairs = np.stack([forest.rows, forest.cols + m], axis=1)[:entered]
    groups = _components(pairs, m + n)
    others = (matrix / matrix.max() >= threshold) & (matrix > 0)
    others[forest.rows, forest.cols] = False
    rows, cols = np.nonzero(others)
    labelled = range(int(np.count_nonzero(values >= labels_below)), entered)
    ax.set_axis_off()
    edges = LineCollection(_segments(places, np.stack([rows, cols + m], axis=1)), colors=_PRESENT, linewidths=0.8)
    bold = LineCollection(_segments(places, pairs), colors=_colors(groups[pairs[:, 0]]), linewidths=2.2, zorder=2)
    x, y = places.T
    vertices = ax.scatter(x, y, s=42, c=_colors(groups), edgecolors=_INK, linewidths=0.8, zorder=3)
    ax.add_collection(edges)
    ax.add_collection(bold)
    labels = [_edge_label(ax, places[pairs], i, float(values[i]), style or {}) for i in labelled]
    return FiltrationArtists(edges, bold, vertices, labels)


def _check_forest(matrix: NDArray[np.float64], forest: SpanningForest) -> tuple[int, int]:
    if forest.shape != matrix.shape or not len(forest.rows) or not matrix.max() > 0:
        raise argument_error("forest", f"a forest with edges of a layer of shape {matrix.shape}", forest)
    return forest.shape


def _facing_ranks(m: int, n: int) -> NDArray[np.float64]:
    rows, cols = ((np.arange(count) - (count - 1) / 2) for count in (m, n))
    return np.concatenate([np.stack([0 * rows, -rows], axis=1), np.stack([0 * cols + 1, -cols], axis=1)])


def _components(pairs: NDArray[np.int64], n_vertices: int) -> NDArray[np.int64]:
    """Return the component of each vertex, numbered as their first edges enter; -1 for a vertex alone."""
    groups, fresh = np.full(n_vertices, -1), 0
    for pair in pairs:
        joined = groups[pair][groups[pair] >= 0]
        members = np.isin(groups, joined)
        members[pair] = True
        groups[members] = joined.min(initial=fresh)
        fresh += not joined.size
    return groups


def _segments(places: NDArray[np.float64], pairs: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    return list(places[pairs])


def _colors(groups: NDArray[np.int64]) -> list[str]:
    return ["white" if group < 0 else CATEGORIES[group % len(CATEGORIES)] for group in groups]


def _edge_label(ax: Axes, segments: NDArray[np.float64], edge: int, value: float, style: Mapping[str, Any]) -> Text:
    """Write the value of one of the segments on it, where the others are farthest."""
    start, end = segments[edge]
    spots = start + np.linspace(0.25, 0.75, 11)[:, None] * (end - start)
    x, y = spots[np.argmax(_clearance(spots, np.delete(segments, edge, axis=0)))]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    return ax.text(x, y, f"{value:.2f}", ha="center", va="center", bbox=box, zorder=4, **style)


def _clearance(spots: NDArray[np.float64], segments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each spot from the nearest segment, at most 0.5 so that the middle wins among the free."""
    starts, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    offsets = spots[:, None] - starts
    share = np.clip((offsets * along).sum(axis=2) / (along**2).sum(axis=1), 0, 1)
    nearest = np.linalg.norm(offsets - share[..., None] * along, axis=2).min(axis=1, initial=0.5)
    centrality = -np.abs(np.linspace(-1, 1, len(spots)))
    return np.asarray(nearest + 1e-3 * centrality)
