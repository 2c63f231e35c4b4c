"""Figure 2 (section 2.3): a small two-layer net under the filtration, its persistence diagram and its Betti-0 curve.

A net with layers of a, b and c neurons is, as a graph, the complete bipartite graph K(b, a + c): the hidden neurons on
one side, inputs and outputs on the other. So it is one matrix, ``[W1^T | W2]``, and the library takes it as it is.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from paper_figures.settings import Settings
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord, provenance
from topobounds.plotting import CATEGORIES, draw_betti_curve, draw_filtration, draw_persistence_diagram
from topobounds.topology.persistence import PersistenceDiagram, persistence_diagram
from topobounds.topology.spanning import maximum_spanning_forest

TRAINS = False
OPTIONS = ("seed", "no_caption")

_WIDTHS = (4, 3, 2)
COLUMNS = ("layer", "source", "target", "weight", "value", "rank", "in_forest")


def measure(settings: Settings) -> FigureRecord:
    """Return the edges of the net in order of entry: weight, normalised value, and whether it is a forest edge."""
    joined = _network_matrix(*two_layers(settings.seed))
    forest = maximum_spanning_forest(joined)
    order = np.argsort(-np.abs(joined), axis=None, kind="stable")
    in_forest = set(zip(forest.rows.tolist(), forest.cols.tolist(), strict=True))
    rows = []
    for rank, cell in enumerate(order.tolist(), 1):
        hidden, other = divmod(cell, joined.shape[1])
        weight = float(joined[hidden, other])
        value = abs(weight) / float(forest.weights[0])
        rows.append((*_ends(hidden, other), weight, value, rank, int((hidden, other) in in_forest)))
    command = f"topobounds figures figure2 --seed {settings.seed}"
    return FigureRecord("figure2", provenance(command, seed=settings.seed), COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def two_layers(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two weight matrices, inputs by outputs, of seeded standard normal weights."""
    rng = np.random.default_rng([seed, *_WIDTHS])
    return rng.standard_normal(_WIDTHS[:2]), rng.standard_normal(_WIDTHS[1:])


def _network_matrix(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Return ``[W1^T | W2]``: rows are the hidden neurons, columns the inputs, then the outputs."""
    return np.hstack([first.T, second])


def thresholds(values: NDArray[np.float64]) -> list[float]:
    """Return four thresholds: those at which 2, 4 and 6 forest edges are in, and the one at which all are.

    Parameters
    ----------
    values : ndarray
        Normalised values of the forest edges, descending.
    """
    return [float(values[min(count, len(values)) - 1]) for count in (2, 4, 6, len(values))]


def draw(record: FigureRecord) -> Figure:
    """Return the figure: the net at four thresholds above, diagram and curve beneath."""
    joined = record_matrix(record)
    forest, diagram = maximum_spanning_forest(joined), persistence_diagram(joined)
    figure = new_figure(3.9)
    above, beneath = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.15, 1]).ravel()
    levels = thresholds(diagram.deaths)
    for ax, level, before in zip(above.subplots(1, 4), levels, [np.inf, *levels], strict=False):
        draw_filtration(
            ax, joined, forest, level, positions=neuron_places(), labels_below=before, style={"fontsize": 7}
        )
        _head(ax, level, diagram.betti_curve(level))
    left, right = beneath.subplots(1, 2, width_ratios=[1, 1.7])
    draw_persistence_diagram(left, diagram)
    left.set(aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    _mark_most_persistent(left, diagram)
    draw_betti_curve(right, diagram)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def record_matrix(record: FigureRecord) -> NDArray[np.float64]:
    """Return the matrix ``[W1^T | W2]`` that a record of this figure holds."""
    inputs, hidden, outputs = _WIDTHS
    ends = zip(*(record.column(name) for name in ("layer", "source", "target", "weight")), strict=True)
    joined = np.empty((hidden, inputs + outputs))
    for layer, source, target, weight in ends:
        place = (target, source) if layer == 1 else (source, inputs + target)
        joined[place] = weight
    return joined


def neuron_places() -> NDArray[np.float64]:
    """Return where the neurons stand: hidden in the middle, inputs left, outputs right."""
    inputs, hidden, outputs = _WIDTHS
    ranks = [(1, hidden), (0, inputs), (2, outputs)]
    return np.array([(x, (count - 1) / 2 - i) for x, count in ranks for i in range(count)], float)


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    net = "-".join(map(str, _WIDTHS))
    return (
        f"Figure 2. A {net} net (inputs, hidden, outputs from left to right) under the superlevel filtration, and "
        "its zeroth persistent homology. Above: the edges with |w|/max|w| at or above the threshold t. Bold: edges of "
        "the maximum spanning forest, in the colour of their component, with the value at which they entered. Hollow "
        "neurons are alone. Below: each forest edge ends one component (left; the triangle stands for the one that "
        "never ends), so their number falls (right). Arrow: the most persistent of those that end. "
        f"Standard normal weights, seed {record.provenance['seed']}; no data, no training."
    )


def _head(ax: Axes, level: float, components: int) -> None:
    ax.set_title(f"$t = {level:.2f}$: {components} component{'s' if components > 1 else ''}")
    ax.margins(0.12)


def _mark_most_persistent(ax: Axes, diagram: PersistenceDiagram) -> None:
    """Point at the point that is farthest from the diagonal."""
    place = int(np.argmax(diagram.births - diagram.deaths))
    point = (float(diagram.births[place]), float(diagram.deaths[place]))
    arrow = {"arrowstyle": "-|>", "color": CATEGORIES[4], "linewidth": 1.4, "shrinkB": 3}
    ax.annotate("", point, xytext=(point[0] - 0.45, point[1]), arrowprops=arrow)


def _ends(hidden: int, other: int) -> tuple[int, int, int]:
    """Return layer, source and target of a cell of the joined matrix."""
    return (1, other, hidden) if other < _WIDTHS[0] else (2, hidden, other - _WIDTHS[0])
