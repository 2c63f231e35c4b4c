"""Figure 1 beside the null of the same weights: how much of the persistence the values alone would give.

The figure of the paper stays as it is (`figure1`). Here the persistence of every layer after every epoch stands beside
the persistence that its own values give in random order, and the distance of the two in standard deviations.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from paper_figures import training
from paper_figures.settings import TRAINING_OPTIONS, Settings
from topobounds.chance.persistence import persistence_null
from topobounds.figures.publish import new_figure, publish
from topobounds.figures.record import FigureRecord, point_seed
from topobounds.plotting import draw_band, layer_colors
from topobounds.topology.persistence import neural_persistence

TRAINS = True
OPTIONS = (*TRAINING_OPTIONS, "seed", "no_caption")

COLUMNS = ("trial", "epoch", "layer", "normalized_neural_persistence", "expected", "z")
_DIGITS = 6  # of persistences: their certified intervals are not narrower
_Z_DIGITS = 2
_FIRST_EPOCHS = 5

_EXPECTED: dict[str, Any] = {"linestyle": "--", "linewidth": 1.0}


def measure(settings: Settings) -> FigureRecord:
    """Return the normalised neural persistence of each layer, beside what its values alone give (``balwani``, p = 2).

    `expected` is ``(E[NP^2 | values] / (alpha - 1))^(1/2)``, `z` the distance of NP^2 from its expectation in standard
    deviations: by the limit formula, or, in layers with a side below 50, of 200 random orders.
    """
    run, rows = training.trained(settings), []
    for trial, level in training.trials(run, settings):
        for epoch in filter(is_measured, range(settings.epochs + 1)):
            for layer, weights in enumerate(training.layer_weights(level, epoch), 1):
                null = persistence_null(weights, seed=point_seed(settings.seed, trial, epoch, layer))
                assert null.norm is not None
                assert null.z is not None
                measured = neural_persistence(weights, normalized=True)
                row = (round(measured, _DIGITS), round(null.norm, _DIGITS), round(null.z, _Z_DIGITS))
                rows.append((trial, epoch, layer, *row))
            settings.progress(trial * settings.epochs + epoch, settings.trials * settings.epochs, "nulls")
    return FigureRecord("figure1_null", training.run_provenance("figure1_null", settings, run), COLUMNS, tuple(rows))


def is_measured(epoch: int) -> bool:
    """Whether the null is measured after an epoch: the first few, in which most happens, and then every fifth."""
    return epoch <= _FIRST_EPOCHS or epoch % _FIRST_EPOCHS == 0


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write PDF, PNG and caption."""
    return publish(draw, caption(record), record, folder, caption_drawn=caption_drawn)


def draw(record: FigureRecord) -> Figure:
    """Return the figure: persistence and what the values alone give on the left, their distance on the right."""
    figure = new_figure(2.75)
    left, right = figure.subplots(1, 2)
    layers = record.distinct("layer")
    for layer, color in zip(layers, layer_colors(len(layers)), strict=True):
        rows = record.where(layer=layer)
        epochs, measured = rows.pivot("normalized_neural_persistence", across="epoch")
        draw_band(left, epochs, measured, color=color, marker="o", label=f"layer {layer}")
        _, expected = rows.pivot("expected", across="epoch")
        left.plot(epochs, np.mean(expected, axis=0), color=color, **_EXPECTED)
        _, z = rows.pivot("z", across="epoch")
        draw_band(right, epochs, z, color=color, marker="o", label=f"layer {layer}")
    right.axhspan(-3, 3, color="0.85", linewidth=0, label="within 3")
    handles, labels = left.get_legend_handles_labels()
    expected_line = Line2D([], [], color="k", **_EXPECTED)
    left.legend(
        [*handles, expected_line], [*labels, "values alone"], loc="lower left", bbox_to_anchor=(0, 1), ncols=3,
        columnspacing=1.2,
    )  # fmt: skip
    right.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1.2)
    left.set(xlabel="epoch", ylabel="normalised neural persistence")
    left.set_ylim(bottom=0)
    right.set(xlabel="epoch", ylabel="z of the persistence")
    right.set_yscale("symlog", linthresh=1)
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    net = training.net_name(record.provenance)
    return (
        f"Figure 1 beside its null. Left: normalised neural persistence (convention balwani, p = 2) of each layer of a "
        f"{net} net while it is trained (epoch 0 is the initialisation), mean over the trials and one sample standard "
        "deviation (ddof=1) to either side; dashed: what the same values give in random order (expectation certified, "
        "mean over the trials). Right: the distance of the two in standard deviations of one layer (of its squared "
        "norm; by the limit formula, of narrow layers sampled), linear between -1 and 1, logarithmic beyond. "
        f"{training.source_line(record.provenance)}"
    )
