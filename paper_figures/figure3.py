"""Figure 3: the overlap of the largest weights with the spanning forest against density, with Corollary 3.4 as printed.

Two kinds of support: the authors' star (all of row 0 and column 0, the rest uniformly random), which is connected by
construction, and the uniform one, which need not be.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from paper_figures.settings import Settings
from paper_figures.training import layer_weights, net_name, run_provenance, source_line, trained, trials
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord
from topobounds.plotting import CATEGORIES, draw_band, layer_colors
from topobounds.supports import cells_at_density, fewest_cells, read_support
from topobounds.theory.paper import corollary_3_4
from topobounds.topology.spanning import magnitude_overlap

Panel = Callable[[Axes, FigureRecord, dict[int, Any]], None]

TRAINS = True

COLUMNS = ("layer", "m", "n", "density", "support", "trial", "overlap", "corollary_3_4")
SUPPORTS = ("star", "uniform")
DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RING: dict[str, Any] = {
    "marker": "o",
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgecolor": CATEGORIES[1],
    "markersize": 7,
}
"""How a printed bound looks that the measurement breaks."""


def measure(settings: Settings) -> FigureRecord:
    """Return the overlap of each layer of each trained net at each density, on both supports.

    The overlap is |forest ∩ top-k| / k, the forest being that of the weights on the support and k = alpha its edges.
    """
    run, rows = trained(settings), []
    for trial, level in trials(run, settings):
        for layer, weights in enumerate(layer_weights(level, settings.epochs), 1):
            rows += _layer_rows(layer, weights, trial, settings.seed)
        settings.progress(trial + 1, settings.trials, "overlaps")
    return FigureRecord("figure3", run_provenance("figure3", settings, run), COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a row for each shape of layer, a column for each support."""
    return draw_panels(record, draw_overlaps, _bound_handles())


def draw_panels(record: FigureRecord, draw_panel: Panel, handles: Sequence[Artist]) -> Figure:
    """Return a figure with a row for each shape of layer, a column for each support, and a legend above.

    Parameters
    ----------
    record : FigureRecord
        With columns layer, m, n and support.
    draw_panel : callable
        Draws a part of the record into axes, layers in the colours it is handed.
    handles : sequence of Artist
        What the legend shows besides the layers.
    """
    shapes = list(dict.fromkeys(zip(record.column("m"), record.column("n"), strict=True)))
    layers = record.distinct("layer")
    colors = dict(zip(layers, layer_colors(len(layers)), strict=True))
    figure = new_figure(0.9 + 1.45 * len(shapes))
    grid = figure.subplots(len(shapes), len(SUPPORTS), sharex=True, sharey=True, squeeze=False)
    for axes, (m, n) in zip(grid, shapes, strict=True):
        for ax, support in zip(axes, SUPPORTS, strict=True):
            part = record.where(m=m, n=n, support=support)
            draw_panel(ax, part, colors)
            ax.set_title(f"{m} × {n}, {support} support")
        axes[0].set_ylabel("overlap")
    for ax in grid[-1]:
        ax.set_xlabel("density")
    known = [Line2D([], [], color=color, marker="o", label=f"layer {layer}") for layer, color in colors.items()]
    figure.legend(handles=[*known, *handles], loc="outside upper center", ncols=4)
    return figure


def draw_overlaps(ax: Axes, record: FigureRecord, colors: dict[int, Any]) -> None:
    """Draw the layers of one shape on one support: means with their band, and the printed bound as dots."""
    for layer in record.distinct("layer"):
        densities, overlaps = record.where(layer=layer).pivot("overlap", across="density")
        draw_band(ax, densities, overlaps, color=colors[layer], marker="o")
    bounds, broken = printed_bounds(record)
    ax.plot(bounds[:, 0], bounds[:, 1], "k.", markersize=4)
    ax.plot(bounds[broken, 0], bounds[broken, 1], **RING)
    ax.set(xlim=(-0.03, 1.03), ylim=(0, 1.13))


def printed_bounds(record: FigureRecord) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the printed bounds of one shape and support, and which of them the measurement breaks.

    Returns
    -------
    bounds : ndarray of shape (points, 2)
        Density and bound, where there is one.
    broken : ndarray of bool
        Whether the bound is above the mean overlap over the trials of at least one layer.
    """
    at = {density: record.where(density=density) for density in record.distinct("density")}
    bounds = {p: here.column("corollary_3_4")[0] for p, here in at.items()}
    points = [(p, bound) for p, bound in bounds.items() if bound is not None]
    return np.array(points).reshape(-1, 2), np.array([bound > _lowest_mean(at[p]) for p, bound in points], bool)


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    return (
        "Figure 3. Share of the maximum spanning forest that the k largest weights hold, k = alpha of the support's "
        f"forest, against the density of the support, for every layer of trained {net_name(record.provenance)} nets: "
        "mean over the trials, one sample standard deviation to either side. Star support: all of row 0 and column 0, "
        "the rest uniformly random; uniform support: all uniformly random. Dots: the lower bound of Corollary 3.4, "
        "which is false as printed; ringed where the mean of a layer lies below it."
        f"{_left_out(record)} {source_line(record.provenance)}"
    )


def _left_out(record: FigureRecord) -> str:
    """Return the sentence that names the densities without a star, by shape; empty if there are none."""
    densities = sorted(record.distinct("density"))
    shapes = dict.fromkeys(zip(record.column("m"), record.column("n"), strict=True))
    absent = {(m, n): [f"{p:g}" for p in densities if not _exists(m, n, p, "star")] for m, n in shapes}
    parts = [f"{m}×{n} at {', '.join(missing)}" for (m, n), missing in absent.items() if missing]
    return f" Left out, with too few weights for a star: {'; '.join(parts)}." if parts else ""


def _layer_rows(layer: int, weights: NDArray[Any], trial: int, seed: int) -> list[tuple[Any, ...]]:
    m, n = weights.shape
    rows = []
    for support in SUPPORTS:
        for density in (p for p in DENSITIES if _exists(m, n, p, support)):
            # a stream of its own for each support, so that no order of work changes the numbers
            key = (seed, trial, layer, round(density * 10**6), SUPPORTS.index(support))
            mask = read_support(m, n, density, support).draw_mask(np.random.default_rng(key))
            bound = corollary_3_4(m, n, density).value
            rows.append((layer, m, n, density, support, trial, magnitude_overlap(weights, mask=mask), bound))
    return rows


def _exists(m: int, n: int, density: float, support: str) -> bool:
    return cells_at_density(m, n, density) >= fewest_cells(m, n, support)


def _lowest_mean(record: FigureRecord) -> float:
    return min(float(np.mean(record.where(layer=layer).column("overlap"))) for layer in record.distinct("layer"))


def _bound_handles() -> list[Line2D]:
    dot = Line2D([], [], color="k", marker=".", linestyle="", label="Cor. 3.4 as printed")
    return [dot, Line2D([], [], **RING, label="above a measured mean")]
