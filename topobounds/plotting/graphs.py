"""The graph of one layer and its spanning forest."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import ListedColormap
from matplotlib.image import AxesImage
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error
from topobounds.plotting.colors import CATEGORIES
from topobounds.topology.spanning import SpanningForest
from topobounds.weights import weight_matrix

_PRESENT = "0.65"
_INK = "0.15"
_MOST_NEURONS = 40  # of a layer that is drawn as a graph
_MOST_BINS = 256  # to a side of a matrix


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


class ForestMatrixArtists(NamedTuple):
    """What `draw_forest` added of a large layer: the magnitudes, and the forest edges over them."""

    magnitudes: AxesImage
    forest: AxesImage


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


def draw_forest(ax: Axes, weights: ArrayLike, forest: SpanningForest) -> FiltrationArtists | ForestMatrixArtists:
    """Draw a layer and its spanning forest: as a graph if it has at most 40 neurons, else as a matrix.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    weights : array_like of shape (m, n)
        The layer.
    forest : SpanningForest
        Its maximum spanning forest, at least one edge.

    Returns
    -------
    FiltrationArtists or ForestMatrixArtists
        Of a graph, `draw_filtration` at the threshold at which its last edge enters. Of a matrix, |w| in grey, and the
        forest edges in colour; both are binned where there are more than 256 rows or columns: of |w| the largest of
        each bin, of the forest the edges in it.

    Raises
    ------
    ValueError
        As `draw_filtration`.
    """
    matrix = np.abs(weight_matrix(weights).astype(np.float64))
    m, n = _check_forest(matrix, forest)
    if m + n <= _MOST_NEURONS:
        return draw_filtration(ax, weights, forest, float(forest.weights[-1]) / float(matrix.max()))
    starts = [np.unique(np.linspace(0, size, min(size, _MOST_BINS), endpoint=False).astype(int)) for size in (m, n)]
    largest = np.maximum.reduceat(np.maximum.reduceat(matrix, starts[0], axis=0), starts[1], axis=1)
    bins = [np.searchsorted(s, e, "right") - 1 for s, e in zip(starts, (forest.rows, forest.cols), strict=True)]
    counts = np.zeros(largest.shape)
    np.add.at(counts, tuple(bins), 1)
    corners = (-0.5, n - 0.5, m - 0.5, -0.5)
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "none", "extent": corners}
    magnitudes = ax.imshow(largest, cmap="Greys", vmin=0, **options)
    marks = ax.imshow(np.ma.masked_equal(counts, 0), cmap=ListedColormap(CATEGORIES[1]), alpha=0.85, **options)
    ax.set(xlabel="output", ylabel="input")
    return ForestMatrixArtists(magnitudes, marks)


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
