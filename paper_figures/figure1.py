"""Figure 1: neural persistence of every layer while the net is trained, and its total, trial by trial."""

from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper_figures.settings import Settings
from paper_figures.training import layer_weights, net_name, run_provenance, source_line, trained, trials
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord
from topobounds.plotting import CATEGORIES, draw_band, layer_colors
from topobounds.topology.persistence import neural_persistence

TRAINS = True

COLUMNS = ("trial", "epoch", "layer", "normalized_neural_persistence")


def measure(settings: Settings) -> FigureRecord:
    """Return the normalised neural persistence (``balwani``, p = 2) of each layer after each epoch of each trial."""
    run, rows = trained(settings), []
    for trial, level in trials(run, settings):
        for epoch in range(1, settings.epochs + 1):
            for layer, weights in enumerate(layer_weights(level, epoch), 1):
                rows.append((trial, epoch, layer, neural_persistence(weights, normalized=True)))
            settings.progress(trial * settings.epochs + epoch, settings.trials * settings.epochs, "neural persistence")
    return FigureRecord("figure1", run_provenance("figure1", settings, run), COLUMNS, tuple(rows))


def render(record: FigureRecord, folder: Path) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: layers on the left, totals on the right."""
    figure = new_figure(2.75)
    left, right = figure.subplots(1, 2)
    layers = record.distinct("layer")
    for layer, color in zip(layers, layer_colors(len(layers)), strict=True):
        epochs, persistence = record.where(layer=layer).pivot("normalized_neural_persistence", across="epoch")
        draw_band(left, epochs, persistence, color=color, marker="o", label=f"layer {layer}")
    for trial, trial_color in zip(record.distinct("trial"), cycle(CATEGORIES), strict=False):
        epochs, persistence = record.where(trial=trial).pivot("normalized_neural_persistence", "epoch", down="layer")
        right.plot(epochs, persistence.sum(axis=0), color=trial_color, linewidth=1.0, label=f"trial {trial}")
    left.set(xlabel="epoch", ylabel="normalised neural persistence")
    right.set(xlabel="epoch", ylabel="total over the layers")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        ax.set_ylim(bottom=0)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2)
    return figure


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    net = net_name(record.provenance)
    return (
        f"Figure 1. Normalised neural persistence (convention balwani, p = 2) of a {net} net while it is trained. "
        "Left: each layer, mean over the trials and one sample standard deviation to either side. "
        f"Right: the sum over the layers, trial by trial. {source_line(record.provenance)}"
    )
