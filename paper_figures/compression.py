"""Beyond the paper: Table 1's networks in the three conventions for what a convolution is to a graph.

*paper* counts one channel of each convolution, *toeplitz* every connection of every channel, *shared* the kernel
weights that are really stored and pruned: those of random normal kernels, which of them are critical depends on them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.settings import Settings
from paper_figures.table1 import NAMES
from topobounds._files import write_whole
from topobounds.analysis.compression import CompressionReport, compression_report
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord, provenance
from topobounds.layers import Layer
from topobounds.plotting import CATEGORIES
from topobounds.theory.table1 import PARTS, PRINTED, architecture

TRAINS = False
OPTIONS = ("seed", "no_caption")

COLUMNS = ("architecture", "dataset", "part", "convention", "weights", "kept", "ratio", "standard_error")
TRIALS = 3
CONVENTIONS = {
    "paper": "paper: one channel, as printed",
    "toeplitz": "toeplitz: every connection",
    "shared": "shared: stored weights",
}
HEADER = ("Network", "Data set", "Part", *(name.capitalize() for name in CONVENTIONS))
LEGEND = (
    "Weights over the fewest of them that keep the 0-dimensional persistence diagram of every layer. Paper: one "
    "channel of each convolution on padded input, as printed. Toeplitz: every connection of every channel between real "
    "neurons. Shared: kernel weights as they are stored"
)

Counts = tuple[int, float, float | None]
"""Weights, how many of them are kept, and the standard error of the ratio where the kept were drawn."""


def measure(settings: Settings) -> FigureRecord:
    """Return weights, kept ones and their ratio, for each network, part and convention; the whole is a ratio of sums.

    `kept` is a mean over `TRIALS` standard normal kernels where it depends on them, and the standard error, to first
    order from that of `kept`, is then not None.
    """
    rows, known = [], dict[tuple[Layer, ...], CompressionReport]()
    for done, key in enumerate(PRINTED, 1):
        network = architecture(*key)
        convs = tuple(layer.conv for layer in network.convs)
        if convs not in known:
            known[convs] = compression_report(convs, network.printed_convs, trials=TRIALS, seed=settings.seed)
        rows += _rows(key, known[convs], network.dense)
        settings.progress(done, len(PRINTED), "compression")
    command = f"topobounds figures compression --seed {settings.seed}"
    made = provenance(command, seed=settings.seed, random_kernels=TRIALS)
    return FigureRecord("compression", made, COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write the table as Markdown and LaTeX (booktabs), and PDF, PNG and caption."""
    texts = {"md": markdown(record), "tex": latex(record)}
    tables = [write_whole(folder / f"compression.{kind}", text) for kind, text in texts.items()]
    return tables + publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def printed_rows(record: FigureRecord) -> list[tuple[str, ...]]:
    """Return the rows as they are read: network, data set, part, and the ratio in each convention to four digits."""
    keys = list(dict.fromkeys(zip(*(record.column(name) for name in COLUMNS[:3]), strict=True)))
    rows = []
    for network, dataset, part in keys:
        here = record.where(architecture=network, dataset=dataset, part=part)
        ratios = dict(zip(here.column("convention"), here.column("ratio"), strict=True))
        rows.append((NAMES[network], NAMES[dataset], part, *(f"{ratios[name]:.4g}" for name in CONVENTIONS)))
    return rows


def markdown(record: FigureRecord) -> str:
    """Return the table in GitHub's Markdown."""
    rows = [HEADER, ("---",) * 3 + ("---:",) * 3, *printed_rows(record)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"**Table 1 in three conventions.** {_legend(record)}", "", *lines, ""])


def latex(record: FigureRecord) -> str:
    """Return the table in LaTeX; the document needs the booktabs package."""
    lines = []
    for row in printed_rows(record):
        lines += [r"\midrule"] if row[2] == PARTS[0] else []
        lines.append(" & ".join(row) + r" \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{" + _legend(record) + "}",
            r"\label{tab:compression-conventions}",
            r"\begin{tabular}{lllrrr}",
            r"\toprule",
            " & ".join(HEADER) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a panel for each part, in it a row for each network."""
    figure = new_figure(3.8)
    axes = figure.subplots(1, len(PARTS), sharey=True)
    for ax, part in zip(axes, PARTS, strict=True):
        _draw_part(ax, record.where(part=part))
        ax.set_title(part)
        ax.set_xlabel("compression ratio")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _draw_part(ax: Axes, record: FigureRecord) -> None:
    """Draw the ratios of one part: for each network a line from 1 in each convention, on a logarithmic axis."""
    networks = list(dict.fromkeys(zip(record.column("architecture"), record.column("dataset"), strict=True)))
    places = -np.arange(len(networks))
    looks = zip((0.22, 0, -0.22), "osD", CATEGORIES, strict=False)
    for (name, label), (offset, marker, color) in zip(CONVENTIONS.items(), looks, strict=True):
        ratios = record.where(convention=name).column("ratio")
        ax.hlines(places + offset, 1, ratios, color=color, linewidth=1.5)
        ax.plot(ratios, places + offset, marker, color=color, label=label, markersize=3.5)
    ax.set(xscale="log", xlim=(1, 2000), ylim=(0.4 - len(networks), 0.6))
    ax.set_yticks(places, [f"{NAMES[network]}\n{NAMES[dataset]}" for network, dataset in networks], linespacing=0.95)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    return f"Table 1's networks in three conventions. {_legend(record)} No data, no training."


def _legend(record: FigureRecord) -> str:
    made = record.provenance
    return f"{LEGEND}, mean of {made['random_kernels']} draws of standard normal kernels, seed {made['seed']}."


def _rows(key: tuple[str, str], convs: CompressionReport, dense: Sequence[Layer]) -> list[tuple[Any, ...]]:
    """Return the nine rows of one network."""
    edges = compression_report(dense).paper
    rows = []
    for convention, conv in _counts(convs).items():
        parts = (conv, (edges.weights, edges.kept, None), _sum(conv, edges.weights, edges.kept))
        rows += [
            (*key, part, convention, weights, kept, weights / kept, error)
            for part, (weights, kept, error) in zip(PARTS, parts, strict=True)
        ]
    return sorted(rows, key=lambda row: PARTS.index(row[2]))


def _counts(report: CompressionReport) -> dict[str, Counts]:
    """Return the counts of the convolutions in each convention."""
    shared = report.shared
    assert shared.weights is not None
    assert shared.kept is not None
    return {
        "paper": (report.paper.weights, report.paper.kept, None),
        "toeplitz": (report.toeplitz.weights, report.toeplitz.kept, None),
        "shared": (shared.weights, shared.kept, shared.standard_error),
    }


def _sum(convs: Counts, weights: int, kept: int) -> Counts:
    """Return the counts with those of the dense layers, which nothing random enters.

    The standard error of w / k is w / k^2 times that of k, which does not change.
    """
    conv_weights, conv_kept, error = convs
    total, left = conv_weights + weights, conv_kept + kept
    if error is not None:
        error *= (conv_kept**2 / conv_weights) * (total / left**2)
    return total, left, error
