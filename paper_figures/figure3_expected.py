"""Figure 3 with the truth in place of the printed bound: trained layers beside what exchangeable weights would give.

The overlap is Figure 3's: k = alpha of the support's own forest. On uniformly random supports nearly all of which are
connected its expectation is that of the complete layer, which is certified; elsewhere it is simulated.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from paper_figures import figure3, training
from paper_figures.corollary_3_4 import chance_of_disconnected
from paper_figures.settings import TRAINING_OPTIONS, Settings
from topobounds.figures.publish import publish
from topobounds.figures.record import FigureRecord, point_seed
from topobounds.montecarlo import simulate_overlap
from topobounds.supports import cells_at_density
from topobounds.theory.deviation import known_deviation
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap

TRAINS = True
OPTIONS = (*TRAINING_OPTIONS, "seed", "no_caption")

COLUMNS = (
    "layer",
    "m",
    "n",
    "density",
    "support",
    "trial",
    "overlap",
    "expected",
    "standard_error",
    "standard_deviation",
    "source",
)
SIMULATED = 400
_NEGLIGIBLE = 1e-4
"""A chance of being disconnected that moves no expectation by more than simulation errs."""

_EXPECTED: dict[str, Any] = {"color": "k", "linestyle": "--", "linewidth": 1.2}
_SPREAD: dict[str, Any] = {"color": "0.8", "linewidth": 0}


def measure(settings: Settings) -> FigureRecord:
    """Return the overlaps of Figure 3, each beside the mean and standard deviation for exchangeable weights.

    `standard_error` is that of the simulated mean; where the mean is certified, half the width of the interval. There
    the deviation takes no simulation either, unless the layer is too thin for the formula and too large to be counted.
    """
    overlaps = figure3.measure(settings)
    keys = list(zip(*(overlaps.column(name) for name in ("m", "n", "density", "support")), strict=True))
    expected = dict.fromkeys(keys, (0.0, 0.0, 0.0, ""))
    for done, key in enumerate(expected, 1):
        expected[key] = expectation(*key, seed=settings.seed)
        settings.progress(done, len(expected), "expectations")
    places = overlaps.columns.index("overlap") + 1
    rows = [(*row[:places], *expected[key]) for row, key in zip(overlaps.rows, keys, strict=True)]
    command = overlaps.provenance["command"].replace("figure3", "figure3_expected")
    made = {**overlaps.provenance, "command": command, "simulated_layers": SIMULATED}
    return FigureRecord("figure3_expected", made, COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def expectation(m: int, n: int, density: float, support: str, *, seed: int) -> tuple[float, float, float, str]:
    """Return what exchangeable weights give on a random support: mean, its error, standard deviation, and the source.

    Parameters
    ----------
    m, n : int
        The layer.
    density, support
        As in `topobounds.supports.read_support`.
    seed : int
        The figure's.
    """
    truth = certified(m, n, density, support)
    known = None if truth is None else known_deviation(m, n)
    if truth is not None and known is not None:
        return (truth.lower + truth.upper) / 2, truth.width / 2, known.value, "certified"
    key = (m, n, round(density * 10**6), figure3.SUPPORTS.index(support))
    estimate = simulate_overlap(m, n, density=density, support=support, trials=SIMULATED, seed=point_seed(seed, *key))
    if truth is None:
        return estimate.mean, estimate.standard_error, estimate.standard_deviation, "simulated"
    return (truth.lower + truth.upper) / 2, truth.width / 2, estimate.standard_deviation, "certified"


def certified(m: int, n: int, density: float, support: str) -> Enclosure | None:
    """Return an interval that contains the expected overlap, or None where the theory gives none.

    With the whole layer as its support, or on uniformly random supports that are disconnected with a negligible chance
    d, it is that of the complete layer: to within d, as overlaps lie in [0, 1].
    """
    if density == 1:
        return expected_overlap(m, n)
    cells = cells_at_density(m, n, density)
    if support != "uniform" or cells < m + n - 1:
        return None
    loose = chance_of_disconnected(m, n, cells)
    if loose > _NEGLIGIBLE:
        return None
    complete = expected_overlap(m, n)
    return Enclosure(complete.lower - loose, complete.upper + loose)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a row for each support, a column for each layer."""
    handles = [
        Line2D([], [], **_EXPECTED, label="expected of exchangeable weights"),
        Patch(**_SPREAD, label="two standard deviations of one layer"),
    ]
    return figure3.draw_panels(record, draw_overlaps, handles)


def draw_overlaps(ax: Axes, record: FigureRecord, color: Any) -> None:
    """Draw one layer on one support: the mean with its band, and what exchangeable weights would give."""
    densities, expected, deviation = expectations(record)
    ax.fill_between(densities, expected - 2 * deviation, expected + 2 * deviation, **_SPREAD)
    ax.plot(densities, expected, **_EXPECTED)
    figure3.draw_measured(ax, record, color)
    ax.set_ylim(0, 1.05)


def expectations(record: FigureRecord) -> tuple[list[float], NDArray[np.float64], NDArray[np.float64]]:
    """Return the densities of one layer and support, and the expected overlap and its standard deviation at each."""
    names = ("density", "expected", "standard_deviation")
    points = {row[0]: row[1:] for row in zip(*(record.column(name) for name in names), strict=True)}
    mean, deviation = np.array(list(points.values()), float).T
    return list(points), mean, deviation


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    made = record.provenance
    return (
        "Figure 3, beside exchangeable weights. Share of the maximum spanning forest that the k largest weights hold, "
        f"k = alpha of the support's forest, for every layer of trained {training.net_name(made)} nets: mean over the "
        "trials, one sample standard deviation (ddof=1) to either side. Dashed: the expectation if the weights were "
        "exchangeable, certified where the support is the whole layer or uniformly random and nearly surely connected, "
        f"else simulated ({made['simulated_layers']} layers a point); grey: two standard deviations of one such layer "
        "to either side, by the formula for large layers or counted exactly where the expectation is certified, "
        f"else of the simulated layers. {training.source_line(made)}"
    )
