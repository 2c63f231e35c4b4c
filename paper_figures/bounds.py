"""Beyond the paper: every bound on the expected overlap beside the truth, over the shape of the layer.

The layers have `VERTICES` neurons in all, so that alpha is the same for all of them, and run from flat to square.
"""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from paper_figures.settings import Settings
from topobounds.analysis.overlap import overlap_report
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord, point_seed, provenance
from topobounds.plotting import CATEGORIES, draw_interval
from topobounds.theory.bounds import BOUNDS
from topobounds.theory.paper import PrintedClaim

TRAINS = False
OPTIONS = ("seed", "no_caption")

_ABOUT_COMPLETE_LAYERS = tuple(name for name, bound in BOUNDS.items() if not bound.needs_density)
COLUMNS = ("m", "n", *_ABOUT_COMPLETE_LAYERS, "lower", "upper", "limit", "simulated", "standard_error")
VERTICES = 1000
SHAPES = 26
SIMULATED = 4000
_LINE_STYLES = (
    (CATEGORIES[1], "--"),
    (CATEGORIES[4], "-."),
    (CATEGORIES[2], "-"),
    (CATEGORIES[5], ":"),
)
_TRUTH, _LIMIT = CATEGORIES[6], CATEGORIES[3]


def measure(settings: Settings) -> FigureRecord:
    """Return bounds, certified interval, limit and simulation of E[X_alpha] for each shape with m + n = VERTICES."""
    sizes, rows = row_counts(VERTICES, SHAPES), []
    for done, m in enumerate(sizes, 1):
        rows.append(_row(m, VERTICES - m, settings.seed))
        settings.progress(done, len(sizes), "bounds")
    command = f"topobounds figures bounds --seed {settings.seed}"
    made = provenance(command, seed=settings.seed, simulated_layers=SIMULATED)
    return FigureRecord("bounds", made, COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def row_counts(vertices: int, count: int) -> list[int]:
    """Return at most `count` values of m from 2 to half the vertices, as evenly spaced in log m as integers are."""
    return sorted({round(m) for m in np.geomspace(2, vertices // 2, count).tolist()})


def draw(record: FigureRecord) -> Figure:
    """Return the figure: values above, what little they differ from the certified interval beneath."""
    figure = new_figure(4.3)
    above, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    shapes = np.array(record.column("m"), float) / record.column("n")
    _draw_values(above, record, shapes)
    _draw_differences(beneath, record, shapes)
    above.set(xscale="log", ylabel="expected overlap", ylim=(0, 1.03))
    beneath.set(xlabel="$m/n$", ylabel="difference × 1000", ylim=(-3, 3), xlim=(shapes[0] * 0.9, 1.1))
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _draw_values(ax: Axes, record: FigureRecord, shapes: NDArray[np.float64]) -> None:
    """Draw the bounds, the certified interval, the limit and the simulation."""
    draw_interval(ax, shapes, record.column("lower"), record.column("upper"), color=_TRUTH, label="certified interval")
    ax.plot(shapes, record.column("limit"), color=_LIMIT, linestyle=":", label="limit for large layers")
    error = 5 * np.array(record.column("standard_error"))
    ax.errorbar(
        shapes, record.column("simulated"), error, fmt="o", color=CATEGORIES[0], markersize=3.5, label="simulation"
    )
    drawn = (name for name in _ABOUT_COMPLETE_LAYERS if name in record.columns)
    for name, (color, line) in zip(drawn, itertools.cycle(_LINE_STYLES), strict=False):
        ax.plot(shapes, record.column(name), color=color, linestyle=line, label=BOUNDS[name].label)


def _draw_differences(ax: Axes, record: FigureRecord, shapes: NDArray[np.float64]) -> None:
    """Draw interval, limit and simulation less the middle of the interval, in thousandths."""
    lower, upper, limit, simulated, error = (
        1000 * np.array(record.column(name)) for name in ("lower", "upper", "limit", "simulated", "standard_error")
    )
    middle = (lower + upper) / 2
    draw_interval(ax, shapes, lower - middle, upper - middle, color=_TRUTH)
    ax.plot(shapes, limit - middle, color=_LIMIT, linestyle=":")
    ax.errorbar(shapes, simulated - middle, 5 * error, fmt="o", color=CATEGORIES[0], elinewidth=0.8)


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    made = record.provenance
    vertices = record.column("m")[0] + record.column("n")[0]
    lower, upper = (np.array(record.column(name)) for name in ("lower", "upper"))
    return (
        "Bounds and truth. Expected share of the maximum spanning tree that the m + n - 1 largest weights hold, of "
        f"m×n layers with m + n = {vertices}, for exchangeable weights without ties. The certified interval is at "
        f"most {(upper - lower).max():.1g} wide. Simulation: mean of {made['simulated_layers']} random layers, five "
        "standard errors to either side. Below: limit and simulation less the middle of the interval. "
        f"No data, no training; seed {made['seed']}."
    )


def _row(m: int, n: int, seed: int) -> tuple[int | float | None, ...]:
    report = overlap_report(m, n, trials=SIMULATED, seed=point_seed(seed, m, n))
    truth, simulation = report.enclosure, report.monte_carlo
    assert simulation is not None
    values = (report.bounds[name] for name in _ABOUT_COMPLETE_LAYERS)
    bounds = [value.value if isinstance(value, PrintedClaim) else value for value in values]
    return m, n, *bounds, truth.lower, truth.upper, report.limit, simulation.mean, simulation.standard_error
