"""Figure 1 (section 2.3): neural persistence of every layer while the net is trained, and its total by trial."""

import math
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from paper_figures import training
from paper_figures.settings import TRAINING_OPTIONS, Settings
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord
from topobounds.plotting import CATEGORIES, draw_band, layer_colors
from topobounds.topology.persistence import neural_persistence

TRAINS = True
OPTIONS = (*TRAINING_OPTIONS, "seed", "no_caption")

COLUMNS = ("trial", "epoch", "layer", "normalized_neural_persistence")
_COLUMNS_OF_PANELS = 3
_OTHERS: dict[str, Any] = {"color": "0.75", "linewidth": 0.6}
"""How the layers look that a panel is not about."""


def measure(settings: Settings) -> FigureRecord:
    """Return the normalised neural persistence (``balwani``, p = 2) of each layer after each epoch of each trial.

    Epoch 0 is the initialisation.
    """
    run, rows = training.trained(settings), []
    for trial, level in training.trials(run, settings):
        for epoch in range(settings.epochs + 1):
            for layer, weights in enumerate(training.layer_weights(level, epoch), 1):
                rows.append((trial, epoch, layer, neural_persistence(weights, normalized=True)))
            settings.progress(trial * settings.epochs + epoch, settings.trials * settings.epochs, "neural persistence")
    return FigureRecord("figure1", training.run_provenance("figure1", settings, run), COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: a panel for each layer on the left, the totals of the trials on the right."""
    figure = new_figure(2.9)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.7, 1]).ravel()
    _draw_layers(left, record)
    _draw_totals(right.subplots(), record)
    return figure


def _draw_layers(figure: SubFigure, record: FigureRecord) -> None:
    """Draw a panel for each layer: its mean over the trials with the band, and thin the means of the other layers."""
    layers = record.distinct("layer")
    rows = math.ceil(len(layers) / _COLUMNS_OF_PANELS)
    grid = figure.subplots(rows, _COLUMNS_OF_PANELS, sharex=True, sharey=True, squeeze=False)
    curves = {
        layer: record.where(layer=layer).pivot("normalized_neural_persistence", across="epoch") for layer in layers
    }
    for ax, layer, color in zip(grid.ravel(), layers, layer_colors(len(layers)), strict=False):
        for epochs, persistence in (curve for other, curve in curves.items() if other != layer):
            ax.plot(epochs, persistence.mean(axis=0), **_OTHERS)
        draw_band(ax, *curves[layer], color=color, marker="o", markersize=1.6, linewidth=1.0)
        ax.set_title(f"layer {layer}")
        _set_axes(ax)
    for ax in grid.ravel()[len(layers) :]:
        ax.set_axis_off()
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel("normalised neural persistence", fontsize="medium")


def _draw_totals(ax: Axes, record: FigureRecord) -> None:
    """Draw the total of each trial, with the standard deviation (ddof=0) of its layers to either side."""
    for trial, color in zip(record.distinct("trial"), cycle(CATEGORIES), strict=False):
        epochs, persistence = record.where(trial=trial).pivot("normalized_neural_persistence", "epoch", down="layer")
        total, spread = persistence.sum(axis=0), persistence.std(axis=0)
        ax.plot(epochs, total, color=color, linewidth=1.0, label=f"trial {trial}")
        ax.fill_between(epochs, total - spread, total + spread, color=color, alpha=0.12, linewidth=0)
    ax.set(xlabel="epoch", ylabel="total over the layers")
    _set_axes(ax)
    ax.legend(loc="lower right")


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    net = training.net_name(record.provenance)
    return (
        f"Figure 1. Normalised neural persistence (convention balwani, p = 2) of a {net} net while it is trained; "
        "epoch 0 is the initialisation. Left: each layer, mean over the trials and one sample standard deviation "
        "(ddof=1) to either side; thin, the means of the other layers. Right: the sum over the layers, trial by trial, "
        "and the standard deviation of the trial's layers (ddof=0) to either side. A layer's values are relative to "
        f"its largest weight, and move with it. {training.source_line(record.provenance)}"
    )


def _set_axes(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], nbins=4))
    ax.set_ylim(bottom=0)
