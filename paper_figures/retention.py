"""Beyond the paper: how much of the spanning tree is left as a layer is pruned by magnitude, down to any density.

Expected curves are certified, for exchangeable weights; beside them stand those of trained layers.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from paper_figures import training
from paper_figures.settings import TRAINING_OPTIONS, Settings
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord
from topobounds.plotting import CATEGORIES, draw_band, draw_interval, layer_colors
from topobounds.theory.critical_rank import connection_limit, critical_rank_limit
from topobounds.theory.overlap import expected_retention
from topobounds.topology.spanning import maximum_spanning_forest

TRAINS = True
OPTIONS = (*TRAINING_OPTIONS, "seed", "no_caption")

COLUMNS = ("curve", "layer", "trial", "m", "n", "k", "density", "lower", "upper", "connected")
SHAPES = ((784, 300), (300, 100))
"""Shapes drawn besides those of the trained nets."""

POINTS = {"expected": 61, "trained": 16}
"""Densities of a curve, evenly spaced in the logarithm; those of the trained layers are among the expected ones."""
_MARKS = {"o": "k = alpha", "v": "half of all layers are connected"}
_EXPECTED: dict[str, Any] = {"color": "k", "linestyle": "--", "linewidth": 1.2}


def measure(settings: Settings) -> FigureRecord:
    """Return the retention |forest ∩ top-k| / alpha at many k, expected and of each layer of each trained net.

    `lower` and `upper` are the ends of a certified interval, or both the measured value. `connected` is the chance
    that the k largest weights connect the layer, by its limit law; or 1 or 0, measured.
    """
    run = training.trained(settings)
    layers = [
        (trial, layer, weights)
        for trial, level in training.trials(run, settings)
        for layer, weights in enumerate(training.layer_weights(level, settings.epochs), 1)
    ]
    shapes = list(dict.fromkeys([*SHAPES, *(weights.shape for _, _, weights in layers)]))
    rows = []
    for done, (m, n) in enumerate(shapes, 1):
        rows += _expected_rows(m, n)
        settings.progress(done, len(shapes), "expected retention")
    for trial, layer, weights in layers:
        rows += _trained_rows(layer, trial, weights)
    return FigureRecord("retention", training.run_provenance("retention", settings, run), COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def ranks(m: int, n: int, curve: str) -> list[int]:
    """Return the k of a curve, rising: from a few to m n, with alpha and the median of k* (limit law) among them.

    Parameters
    ----------
    m, n : int
        The layer.
    curve : {"expected", "trained"}
        Of which there are more and fewer.
    """
    spaced = np.geomspace(max(1, (m + n) / 8), m * n, POINTS[curve])
    return sorted({*(round(k) for k in spaced.tolist()), m + n - 1, critical_rank_limit(m, n)})


def draw(record: FigureRecord) -> Figure:
    """Return the figure: expected curves above, trained layers beside them beneath."""
    figure = new_figure(4.9)
    above, beneath = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1]).ravel()
    _draw_expected(above, record.where(curve="expected"))
    _draw_trained(beneath, record)
    return figure


def _draw_expected(figure: SubFigure, record: FigureRecord) -> None:
    """Draw the expected curves of all shapes: what is kept on the left, how many edges are lost on the right."""
    kept, lost = figure.subplots(1, 2, sharex=True)
    shapes = list(dict.fromkeys(zip(record.column("m"), record.column("n"), strict=True)))
    for (m, n), color in zip(shapes, CATEGORIES, strict=False):
        curve = record.where(m=m, n=n)
        densities, lower, upper = (np.array(curve.column(name)) for name in ("density", "lower", "upper"))
        draw_interval(kept, densities, lower, upper, color=color, label=f"{m} × {n}")
        alpha = m + n - 1
        draw_interval(lost, densities, alpha * (1 - upper), alpha * (1 - lower), color=color)
        middles = (lower + upper) / 2
        for mark, place in (("o", curve.column("k").index(alpha)), ("v", _threshold(curve))):
            kept.plot(densities[place], middles[place], mark, color=color, markersize=4.5)
            lost.plot(densities[place], alpha * (1 - middles[place]), mark, color=color, markersize=4.5)
    marks = [Line2D([], [], color="0.3", marker=mark, linestyle="", label=label) for mark, label in _MARKS.items()]
    kept.set(xscale="log", ylim=(0, 1.05), xlabel="density", ylabel="expected retention")
    lost.set(yscale="log", ylim=(0.02, 2000), xlabel="density", ylabel="expected edges lost")
    handles = [*kept.get_legend_handles_labels()[0], *marks]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)


def _draw_trained(figure: SubFigure, record: FigureRecord) -> None:
    """Draw the trained layers, a panel for each, with the expected curve of its shape."""
    measured = record.where(curve="trained")
    layers = list(dict.fromkeys(zip(*(measured.column(name) for name in ("layer", "m", "n")), strict=True)))
    axes = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for ax, (layer, m, n), color in zip(axes, layers, layer_colors(len(layers)), strict=True):
        expected = record.where(curve="expected", m=m, n=n)
        draw_interval(ax, expected.column("density"), expected.column("lower"), expected.column("upper"), **_EXPECTED)
        densities, retained = measured.where(layer=layer).pivot("lower", across="density")
        draw_band(ax, densities, retained, color=color, marker="o", markersize=2, linewidth=1.0)
        ax.set(xscale="log", ylim=(0, 1.05))
        ax.set_title(f"layer {layer}\n{m} × {n}", linespacing=1.0)
    axes[0].set_ylabel("retention")
    figure.supxlabel("density", fontsize="medium")
    handles = [Line2D([], [], **_EXPECTED, label="expected"), Line2D([], [], color="0.3", marker="o", label="trained")]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    made = record.provenance
    return (
        "Retention. Above: the expected share of the maximum spanning tree that is among the k largest weights of an "
        "m×n layer, against the density k / (m n) it is pruned to (left), and the expected number of its edges that "
        "are lost (right), for exchangeable weights without ties; certified intervals, on the left narrower than the "
        "lines. Triangles: from here on half of all layers are connected, so that magnitude pruning keeps their tree. "
        f"Below: the layers of trained {training.net_name(made)} nets, mean over the trials and one sample standard "
        f"deviation (ddof=1) to either side, beside the expectation of their shape. {training.source_line(made)}"
    )


def _threshold(curve: FigureRecord) -> int:
    """Return the first place of an expected curve at which half of all layers are connected."""
    return next(place for place, chance in enumerate(curve.column("connected")) if chance >= 0.5)


def _expected_rows(m: int, n: int) -> list[tuple[Any, ...]]:
    curve = expected_retention(m, n, ranks(m, n, "expected"))
    ends = zip(curve.ks, curve.densities, curve.lower, curve.upper, strict=True)
    return [
        ("expected", None, None, m, n, k, density, lower, upper, connection_limit(m, n, k))
        for k, density, lower, upper in ends
    ]


def _trained_rows(layer: int, trial: int, weights: NDArray[Any]) -> list[tuple[Any, ...]]:
    m, n = weights.shape
    forest, ks = maximum_spanning_forest(weights), ranks(m, n, "trained")
    critical = forest.critical_rank
    return [
        ("trained", layer, trial, m, n, k, k / (m * n), retained, retained, float(k >= critical))
        for k, retained in zip(ks, forest.retention(ks).tolist(), strict=True)
    ]
