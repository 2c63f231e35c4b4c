"""Beyond the paper: on which shapes and densities Corollary 3.4 as printed fails, over uniformly random supports.

Two readings of it. *Uniform*: all uniformly random supports, the overlap at k = alpha of the complete layer. Its
expectation is that of the complete layer, whatever the density (docs/theory/supports.md, "Uniformly random supports:
the corollary repaired"), so the verdict is by theory. *Connected*: only those supports that are connected, which the
corollary presumes. There the verdict is by what holds on every connected support, or by the certified interval where
nearly all are connected, or, where neither decides, by sampling.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from paper_figures.bounds import row_counts
from paper_figures.settings import Settings
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord, point_seed, provenance
from topobounds.plotting import CATEGORIES
from topobounds.supports import cells_at_density
from topobounds.theory.critical_rank import connection_limit, critical_rank_limit
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap
from topobounds.theory.paper import corollary_3_4
from topobounds.theory.support_bounds import any_support_bound
from topobounds.verification import verify

TRAINS = False
OPTIONS = ("seed", "no_caption")

COLUMNS = (
    "m",
    "n",
    "density",
    "corollary_3_4",
    "lower",
    "upper",
    "uniform",
    "connected",
    "connected_by",
    "connection_density",
)
_VERTICES = 1000
SHAPES = 22
DENSITIES = tuple(float(f"{p:.3g}") for p in np.geomspace(0.004, 1, 31))
SIMULATED, _CONFIDENCE = 400, 0.999
NEGLIGIBLE = 1e-9
"""A chance of being disconnected that moves no expectation that could be seen."""
_RARE = 0.02
"""Connected supports rarer than this are not waited for."""

READINGS = {"uniform": "all supports", "connected": "connected supports only"}
COLORS = {"fails": CATEGORIES[1], "holds": CATEGORIES[5], "undecided": "0.55", "undefined": "0.93"}


def measure(settings: Settings) -> FigureRecord:
    """Return, for each shape and density, the printed bound, the expected overlap, and the verdict on each reading."""
    sizes, rows = row_counts(_VERTICES, SHAPES), []
    for done, m in enumerate(sizes, 1):
        rows += _rows(m, _VERTICES - m, settings.seed)
        settings.progress(done, len(sizes), "Corollary 3.4")
    command = f"topobounds figures corollary_3_4 --seed {settings.seed}"
    made = provenance(command, seed=settings.seed, simulated_layers=SIMULATED, confidence=_CONFIDENCE)
    return FigureRecord("corollary_3_4", made, COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def verdict(bound: float | None, truth: Enclosure) -> str:
    """Return what an interval around the expected overlap says of a lower bound on it.

    Parameters
    ----------
    bound : float or None
        The printed bound; None where there is none.
    truth : Enclosure
        Contains the expected overlap.

    Returns
    -------
    {"fails", "holds", "undecided", "undefined"}
    """
    if bound is None:
        return "undefined"
    if bound > truth.upper:
        return "fails"
    return "holds" if bound <= truth.lower else "undecided"


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a map for each reading."""
    figure = new_figure(3.0)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, (reading, title) in zip(axes, READINGS.items(), strict=True):
        _draw_map(ax, record, reading)
        ax.set(title=title, xlabel="$m/n$", xscale="log", yscale="log")
    axes[0].set_ylabel("density")
    found = [each for each in COLORS if each in record.column("uniform") + record.column("connected")]
    handles: list[Any] = [Patch(color=COLORS[each], label=each) for each in found]
    handles += axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _draw_map(ax: Axes, record: FigureRecord, reading: str) -> None:
    """Draw the verdicts as a map, and the density from which on most supports are connected as a line."""
    densities, verdicts = _codes(record, reading)
    shapes = np.array(record.distinct("m")) / np.array(record.distinct("n"))
    colors = ListedColormap(list(COLORS.values()))
    ax.pcolormesh(_edges(shapes), _edges(densities), verdicts.T, cmap=colors, vmin=-0.5, vmax=len(COLORS) - 0.5)
    connected = [record.where(m=m).column("connection_density")[0] for m in record.distinct("m")]
    ax.plot(shapes, connected, color="k", linewidth=1.0, linestyle="--", label="half are connected")


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    made = record.provenance
    vertices = record.column("m")[0] + record.column("n")[0]
    sampled = record.column("connected_by").count("simulation")
    return (
        f"Where Corollary 3.4 fails. m×n layers with m + n = {vertices} and uniformly random supports of the density; "
        "the printed lower bound against the expected overlap of exchangeable weights without ties. Left: all "
        "supports, k = m + n - 1, decided by theory. Right: connected ones only, decided by theory and at "
        f"{sampled} points by at most {made['simulated_layers']} samples at confidence {made['confidence']:g}. "
        "Undecided: connected too rarely to be sampled. Undefined: fewer weights than m + n - 1. Above "
        f"the dashed line more than half of the supports are connected. No data, no training; seed {made['seed']}."
    )


def connected_mean(complete: Enclosure, loose: float) -> Enclosure:
    """Return an interval that contains E[X] over the connected ones among uniformly random supports.

    With d the chance of a disconnected support, ``E[X] - d <= E[X; connected] <= E[X | connected] <= E[X] / (1 - d)``.

    Parameters
    ----------
    complete : Enclosure
        Contains E[X] of the complete layer, which is that over all supports.
    loose : float
        At least d.
    """
    if loose >= 1:
        return Enclosure(0.0, 1.0)
    return Enclosure(max(0.0, complete.lower - loose), min(1.0, complete.upper / (1 - loose)))


def chance_of_disconnected(m: int, n: int, cells: int) -> float:
    """Return a number that P(a uniformly random support is disconnected) does not exceed.

    ``P(kappa > 1) <= E[kappa] - 1 = alpha (1 - E[X_M])`` for a support of M cells, and E[X_M] is enclosed.
    """
    return (m + n - 1) * (1 - expected_overlap(m, n, cells).lower)


def _rows(m: int, n: int, seed: int) -> list[tuple[Any, ...]]:
    """Return the rows of one shape, thin supports first."""
    complete, rows, loose = expected_overlap(m, n), [], 1.0
    line = critical_rank_limit(m, n) / (m * n)
    for density in DENSITIES:
        bound, cells = corollary_3_4(m, n, density).value, cells_at_density(m, n, density)
        if bound is not None and loose > NEGLIGIBLE:  # beyond, it only falls
            loose = chance_of_disconnected(m, n, cells)
        connected, by = _on_connected(m, n, density, bound, connected_mean(complete, loose), seed)
        rows.append(
            (m, n, density, bound, complete.lower, complete.upper, verdict(bound, complete), connected, by, line)
        )
    return rows


def _on_connected(
    m: int, n: int, density: float, bound: float | None, mean: Enclosure, seed: int
) -> tuple[str, str | None]:
    """Return the verdict over connected supports, and what it rests on.

    On a connected support E[X] = 1 only if it is a tree or a single cycle, and with more than alpha cells, on a layer
    larger than 2 x 2, some are neither: so there a bound of 1 fails.
    """
    if bound is None:
        return "undefined", None
    cells, alpha = cells_at_density(m, n, density), m + n - 1
    if bound == 1 and cells > alpha:
        return "fails", "cycles"
    if bound <= any_support_bound(cells, alpha):
        return "holds", "every support"
    if (found := verdict(bound, mean)) != "undecided":
        return found, "enclosure"
    if connection_limit(m, n, cells) < _RARE:
        return "undecided", None
    sampled = verify(
        m,
        n,
        density=density,
        claims=["corollary_3_4"],
        trials=SIMULATED,
        confidence=_CONFIDENCE,
        seed=point_seed(seed, m, n, cells),
    )[0].verdict
    return {"violated": "fails"}.get(sampled, sampled), "simulation"


def _codes(record: FigureRecord, reading: str) -> tuple[list[float], NDArray[np.int64]]:
    """Return the densities, and the verdicts as places in `COLORS`: one row a shape, one column a density."""
    places = list(COLORS)
    densities = record.distinct("density")
    codes = [places.index(each) for each in record.column(reading)]
    return densities, np.array(codes).reshape(-1, len(densities))


def _edges(centres: ArrayLike) -> NDArray[np.float64]:
    """Return the edges of cells around these centres, half way in the logarithm."""
    places = np.log(centres)
    middles = (places[1:] + places[:-1]) / 2
    return np.exp([2 * places[0] - middles[0], *middles, 2 * places[-1] - middles[-1]])
