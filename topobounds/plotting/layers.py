"""What the layers of a network keep under magnitude pruning, beside what chance gives."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, choice
from topobounds._types import FloatArray
from topobounds.analysis.curves import spaced_counts
from topobounds.analysis.reports import LayerReport
from topobounds.chance.measured_layer import MeasuredKernel, MeasuredLayer
from topobounds.chance.retention import retention_null
from topobounds.chance.sampling import TRIALS, checked_sampling
from topobounds.layers import Conv
from topobounds.plotting.colors import CATEGORIES
from topobounds.plotting.curves import BandArtists, IntervalArtists, draw_interval
from topobounds.theory._logarithms import log_ratio
from topobounds.topology.effective import EffectiveWeights
from topobounds.topology.forest import Forest
from topobounds.topology.spanning import SpanningForest

_MEASURED = CATEGORIES[0]
CHANCE = "0.55"
_POINTS = 200  # of a curve
_POINTS_OF_CHANCE = 24  # each of them asks for a null
_MOST_NAMES = 40  # layers whose names are legible under an axis


class RetentionArtists(NamedTuple):
    """What `draw_retention` added: the layer's own curve, and chance with two standard deviations to either side."""

    measured: Line2D
    chance: IntervalArtists


class BesideChanceArtists(NamedTuple):
    """What `draw_beside_chance` and `draw_over_training` added: what is measured, and chance by layer or epoch."""

    measured: Line2D
    chance: ErrorbarContainer | BandArtists


class SilentArtists(NamedTuple):
    """What `draw_silent_neurons` added: silent inputs, silent outputs and fragments; and chance of the first two."""

    silent_inputs: Line2D
    silent_outputs: Line2D
    fragments: Line2D
    chance: tuple[Line2D, ...]


class EffectiveArtists(NamedTuple):
    """What `draw_effective_density` added: the effective density, the density, and where the network collapses."""

    effective: Line2D
    density: Line2D | None
    collapse: Line2D


def draw_retention(
    ax: Axes,
    weights: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    conv: Conv | None = None,
    trials: int = TRIALS,
    seed: int | None = None,
    **line: Any,
) -> RetentionArtists:
    """Draw the share of the spanning forest that magnitude pruning keeps at each density, beside chance.

    Parameters
    ----------
    ax : Axes
        Where to draw; its abscissa becomes logarithmic.
    weights, mask, conv, trials, seed
        As in `topobounds.overlap_null`; chance is given at 24 densities.
    **line
        Passed to ``ax.plot`` for the layer's own curve.

    Returns
    -------
    RetentionArtists
        The curve from one weight kept to all of them, and chance from its mean less two standard deviations to its mean
        plus two, within [0, 1].

    Raises
    ------
    ValueError
        As `topobounds.overlap_null`.
    """
    measured_layer: MeasuredLayer | MeasuredKernel
    forest: Forest
    if conv is None:
        measured_layer = MeasuredLayer.of(weights, mask)
        forest, stored = measured_layer.forest, measured_layer.matrix.size
    else:
        measured_layer = MeasuredKernel.of(weights, conv, mask)
        forest, stored = measured_layer.critical, conv.n_weights
    ks = spaced_counts(1, stored, _POINTS)
    (measured,) = ax.plot(ks / stored, forest.retention(ks), **{"color": _MEASURED, "label": "measured", **line})
    null_ks = spaced_counts(1, stored, _POINTS_OF_CHANCE)
    null = retention_null(measured_layer, null_ks, checked_sampling(trials, seed))
    known = ~np.isnan(null.expected)
    expected, spread = null.expected[known], 2 * np.nan_to_num(null.deviation[known])
    chance = draw_interval(
        ax,
        null_ks[known] / stored,
        np.clip(expected - spread, 0, 1),
        np.clip(expected + spread, 0, 1),
        color=CHANCE,
        linestyle="--",
        label="chance",
    )
    ax.set(xscale="log", ylim=(0, 1.02), xlabel="density", ylabel="share of the forest kept")
    return RetentionArtists(measured, chance)


def draw_beside_chance(
    ax: Axes, layers: Sequence[LayerReport], column: str = "overlap", **points: Any
) -> BesideChanceArtists:
    """Draw a number of each layer beside what chance gives, with two standard deviations to either side.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    layers : sequence of LayerReport
        At least one. Those without the number leave their place empty, and so does missing chance.
    column : str
        ``"overlap"`` or ``"neural_persistence"``.
    **points
        Passed to ``ax.plot`` for what is measured.

    Returns
    -------
    BesideChanceArtists
        The measured points, one a layer, and the bars of chance, of the layers that have them.

    Raises
    ------
    ValueError
        If there is no layer, or no such column.
    """
    places = np.arange(len(_some("layers", layers)))
    chances = _chances(layers, column)
    known = ~np.isnan(chances[:, 0])
    middle, low, high = chances[known].T
    bars = ax.errorbar(
        places[known],
        middle,
        yerr=[middle - low, high - middle],
        fmt="_",
        color=CHANCE,
        elinewidth=5,
        alpha=0.6,
        label="chance",
    )
    style = {"color": _MEASURED, "marker": "o", "markersize": 5, "linestyle": "none", "label": "measured", **points}
    (measured,) = ax.plot(places, _measured(layers, column), **style)
    if len(layers) <= _MOST_NAMES:
        ax.set_xticks(places, [layer.name for layer in layers], rotation=90)
    ax.set(xlabel="layer", ylabel=_LABELS[column])
    return BesideChanceArtists(measured, bars)


def draw_over_training(
    ax: Axes, epochs: ArrayLike, reports: Sequence[LayerReport], column: str = "neural_persistence", **line: Any
) -> BesideChanceArtists:
    """Draw a number of one layer over training, beside what the values of its weights alone would give.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    epochs : array_like of shape (reports,)
        When each report was made.
    reports : sequence of LayerReport
        Of one layer, at least one.
    column : str
        ``"overlap"`` or ``"neural_persistence"``.
    **line
        Passed to ``ax.plot`` for what is measured.

    Returns
    -------
    BesideChanceArtists
        The measured curve, and chance with a band of two standard deviations to either side.

    Raises
    ------
    ValueError
        If there is no report, there is no such column, or the epochs are of another number.
    """
    times = np.asarray(epochs, float)
    if times.shape != (len(_some("reports", reports)),):
        raise argument_error("epochs", f"{len(reports)} numbers, one for each report", times.shape)
    style = {"color": _MEASURED, "label": "measured", **line}
    (measured,) = ax.plot(times, _measured(reports, column), **style)
    middle, low, high = _chances(reports, column).T
    (mean,) = ax.plot(times, middle, color=CHANCE, linestyle="--", label="chance")
    band = ax.fill_between(times, low, high, color=CHANCE, alpha=0.25, linewidth=0)
    ax.set(xlabel="epoch", ylabel=_LABELS[column])
    return BesideChanceArtists(measured, BandArtists(mean, band))


def draw_silent_neurons(ax: Axes, forest: SpanningForest) -> SilentArtists:
    """Draw how many neurons the k largest weights leave without a weight, and into how many pieces the rest falls.

    Parameters
    ----------
    ax : Axes
        Where to draw; its abscissa, the density k / (m n), becomes logarithmic.
    forest : SpanningForest
        Of the layer, its rows being the inputs.

    Returns
    -------
    SilentArtists
        The three counts; and, dashed, the silent inputs and outputs that k weights at random places leave:
        ``m C(N - n, k) / C(N, k)`` and ``n C(N - m, k) / C(N, k)`` with N = m n, exact expectations.
    """
    m, n = forest.shape
    ks = spaced_counts(1, m * n, _POINTS)
    deficits = [forest.deficit(k) for k in ks.tolist()]
    curves = {
        "silent inputs": [deficit.silent_inputs for deficit in deficits],
        "silent outputs": [deficit.silent_outputs for deficit in deficits],
        "fragments": [deficit.fragments for deficit in deficits],
    }
    colors = dict(zip(curves, CATEGORIES, strict=False))
    lines = [ax.plot(ks / (m * n), counts, color=colors[name], label=name)[0] for name, counts in curves.items()]
    dashed = [
        ax.plot(ks / (m * n), _expected_silent(count, others, ks), color=colors[name], linestyle="--", linewidth=0.9)[0]
        for name, count, others in (("silent inputs", m, n), ("silent outputs", n, m))
    ]
    ax.set(xscale="log", ylim=(0, None), xlabel="density", ylabel="count (dashed: chance)")
    return SilentArtists(lines[0], lines[1], lines[2], tuple(dashed))


def draw_effective_density(
    ax: Axes, effective: EffectiveWeights, weights: Sequence[ArrayLike] = (), **line: Any
) -> EffectiveArtists:
    """Draw the effective density of a network pruned at each threshold: the share of its weights that lie on a path.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    effective : EffectiveWeights
        Of `topobounds.effective_weights`.
    weights : sequence of array_like
        The weights of the network: their density, dashed, is what is left at a threshold on a path or not.
    **line
        Passed to ``ax.plot`` for the effective density.

    Returns
    -------
    EffectiveArtists
        The effective density, the density if there are weights, and the threshold above which no path is left.
    """
    collapse = effective.collapse_threshold
    known = [np.abs(np.asarray(each, np.float64)).ravel() for each in weights]
    sizes = np.sort(np.concatenate(known)) if known else np.array([collapse])
    thresholds = np.linspace(0.0, max(float(sizes[-1]), collapse) or 1.0, _POINTS + 1)[1:]
    on_paths = [effective.density(threshold) for threshold in thresholds.tolist()]
    (curve,) = ax.plot(thresholds, on_paths, **{"color": _MEASURED, "label": "effective density", **line})
    density = None
    if len(weights):
        left = (sizes.size - np.searchsorted(sizes, thresholds)) / sizes.size
        (density,) = ax.plot(thresholds, left, color=CHANCE, linestyle="--", label="density")
    mark = ax.axvline(collapse, color=CATEGORIES[1], linewidth=0.9, label="collapse")
    ax.set(yscale="log", xlim=(0, None), ylim=(None, 1.2), xlabel="threshold", ylabel="share of the weights")
    return EffectiveArtists(curve, density, mark)


_LABELS = {"overlap": "overlap", "neural_persistence": "neural persistence"}


def _some(name: str, reports: Sequence[LayerReport]) -> Sequence[LayerReport]:
    if not reports:
        raise argument_error(name, "at least one report", "none")
    return reports


def _measured(reports: Sequence[LayerReport], column: str) -> FloatArray:
    choice("column", column, tuple(_LABELS))
    return np.array([np.nan if (value := getattr(each, column)) is None else value for each in reports], float)


def _chances(reports: Sequence[LayerReport], column: str) -> FloatArray:
    """Return for each report what chance gives, and two standard deviations below and above; NaN where unknown."""
    choice("column", column, tuple(_LABELS))
    found = []
    for report in reports:
        expected, deviation = (getattr(report, f"{column}_{name}") for name in ("expected", "deviation"))
        if expected is None:
            found.append((np.nan, np.nan, np.nan))
        elif column == "overlap":
            spread = 2 * (deviation or 0.0)
            found.append((expected, max(0.0, expected - spread), min(1.0, expected + spread)))
        else:  # the deviation is that of NP^2, which is not normalised
            normaliser = max((report.alpha or 0) - 1, 1)
            squares = (expected**2 + side * 2 * (deviation or 0.0) / normaliser for side in (-1, 1))
            low, high = (math.sqrt(max(0.0, square)) for square in squares)
            found.append((expected, low, high))
    return np.array(found, float)


def _expected_silent(count: int, cells_of_each: int, ks: NDArray[np.int64]) -> FloatArray:
    """Return how many of `count` neurons, each with so many cells, k weights at random places leave silent."""
    cells = count * cells_of_each
    possible = ks <= cells - cells_of_each
    ball = log_ratio(cells, np.full(ks.size, float(cells_of_each)), np.where(possible, ks, 0))
    return np.asarray(np.where(possible, count * np.exp(ball.mid), 0.0))
