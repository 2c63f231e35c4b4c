"""Figure 3 (section 4.2): overlap of the largest weights with the spanning forest by density, beside Corollary 3.4.

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
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from paper_figures import training
from paper_figures.settings import TRAINING_OPTIONS, Settings
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord
from topobounds.plotting import CATEGORIES, draw_band, layer_colors
from topobounds.supports import cells_at_density, fewest_cells, read_support
from topobounds.theory.paper import corollary_3_4
from topobounds.topology.spanning import magnitude_overlap

_Panel = Callable[[Axes, FigureRecord, Any], None]

TRAINS = True
OPTIONS = (*TRAINING_OPTIONS, "seed", "no_caption")

COLUMNS = ("layer", "m", "n", "density", "support", "trial", "overlap", "corollary_3_4")
SUPPORTS = ("star", "uniform")
_DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RING: dict[str, Any] = {
    "marker": "o",
    "linestyle": "",
    "markerfacecolor": "none",
    "markeredgecolor": CATEGORIES[1],
    "markersize": 4.5,
    "markeredgewidth": 0.8,
}
"""How a printed bound looks that the measurement breaks."""


def measure(settings: Settings) -> FigureRecord:
    """Return the overlap of each layer of each trained net at each density, on both supports.

    The overlap is |forest ∩ top-k| / k, the forest being that of the weights on the support and k = alpha its edges.
    """
    run, rows = training.trained(settings), []
    for trial, level in training.trials(run, settings):
        for layer, weights in enumerate(training.layer_weights(level, settings.epochs), 1):
            rows += _layer_rows(layer, weights, trial, settings.seed)
        settings.progress(trial + 1, settings.trials, "overlaps")
    return FigureRecord("figure3", training.run_provenance("figure3", settings, run), COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a row for each support, a column for each layer."""
    return draw_panels(record, draw_overlaps, _bound_handles())


def draw_panels(record: FigureRecord, draw_panel: _Panel, handles: Sequence[Artist]) -> Figure:
    """Return a figure with a row for each support, a column for each layer, and a legend above.

    Parameters
    ----------
    record : FigureRecord
        With columns layer, m, n and support.
    draw_panel : callable
        Draws the part of the record that is about one layer and one support into axes, in a colour.
    handles : sequence of Artist
        What the legend shows.
    """
    layers = list(dict.fromkeys(zip(*(record.column(name) for name in ("layer", "m", "n")), strict=True)))
    figure = new_figure(3.5)
    grid = figure.subplots(len(SUPPORTS), len(layers), sharex=True, sharey=True, squeeze=False)
    for axes, support in zip(grid, SUPPORTS, strict=True):
        for ax, (layer, _, _), color in zip(axes, layers, layer_colors(len(layers)), strict=True):
            draw_panel(ax, record.where(layer=layer, support=support), color)
        axes[0].set_ylabel(f"{support} support\noverlap")
    for ax, (layer, m, n) in zip(grid[0], layers, strict=True):
        ax.set_title(f"layer {layer}\n{m} × {n}", linespacing=1.0)
    for ax in grid[-1]:
        ax.set_xlabel("density")
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def draw_overlaps(ax: Axes, record: FigureRecord, color: Any) -> None:
    """Draw one layer on one support: the mean with its band, and the printed bound as dots."""
    draw_measured(ax, record, color)
    bounds, broken = _printed_bounds(record)
    ax.plot(bounds[:, 0], bounds[:, 1], "k.", markersize=2.5)
    ax.plot(bounds[broken, 0], bounds[broken, 1], **_RING)
    ax.set_ylim(0, 1.13)


def draw_measured(ax: Axes, record: FigureRecord, color: Any) -> None:
    """Draw the mean overlap of one layer over the trials, with its band, in percent as the paper has it."""
    draw_band(ax, *record.pivot("overlap", across="density"), color=color, marker="o", markersize=2, linewidth=1.0)
    ax.set(xlim=(-0.06, 1.06), xticks=[0, 0.5, 1])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _printed_bounds(record: FigureRecord) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the printed bounds of one layer and support, and which of them the measurement breaks.

    Returns
    -------
    bounds : ndarray of shape (points, 2)
        Density and bound, where there is one.
    broken : ndarray of bool
        Whether the bound is above the mean overlap over the trials.
    """
    at = {density: record.where(density=density) for density in record.distinct("density")}
    bounds = {p: here.column("corollary_3_4")[0] for p, here in at.items()}
    points = [(p, bound) for p, bound in bounds.items() if bound is not None]
    return np.array(points).reshape(-1, 2), np.array(
        [bound > np.mean(at[p].column("overlap")) for p, bound in points], bool
    )


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    return (
        "Figure 3. Share of the maximum spanning forest that the k largest weights hold, k = alpha of the support's "
        "forest, against the density of the support, for every layer of trained "
        f"{training.net_name(record.provenance)} nets: mean over the trials, one sample standard deviation "
        "(ddof=1) to either side. Star support: all of row 0 and column 0, the rest uniformly "
        "random; uniform support: all uniformly random. Dots: the lower bound of Corollary 3.4, which is false as "
        "printed; ringed where the mean lies below it."
        f"{_left_out(record)} {training.source_line(record.provenance)}"
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
        for density in (p for p in _DENSITIES if _exists(m, n, p, support)):
            # a stream of its own for each support, so that no order of work changes the numbers
            key = (seed, trial, layer, round(density * 10**6), SUPPORTS.index(support))
            mask = read_support(m, n, density, support).draw_mask(np.random.default_rng(key))
            bound = corollary_3_4(m, n, density).value
            rows.append((layer, m, n, density, support, trial, magnitude_overlap(weights, mask=mask), bound))
    return rows


def _exists(m: int, n: int, density: float, support: str) -> bool:
    return cells_at_density(m, n, density) >= fewest_cells(m, n, support)


def _bound_handles() -> list[Line2D]:
    dot = Line2D([], [], color="k", marker=".", linestyle="", label="Cor. 3.4 as printed")
    return [dot, Line2D([], [], **_RING, label="above the measured mean")]
