"""The critical compression ratio of layers in three conventions, side by side."""

import math
import secrets
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import numpy as np

from topobounds._arguments import MOST_TRIALS, integer, items
from topobounds._memory import check_memory
from topobounds._records import Record, html_table
from topobounds._types import Progress
from topobounds.layers import Conv, Layer, SingleTensorLayer
from topobounds.theory.compression import Compression, as_layers, compression
from topobounds.theory.critical_weights import critical_weights_bound
from topobounds.theory.table1 import Architecture

_KERNEL_BYTES = 40  # that a random weight takes at least, its order included
_UNCOUNTED = "The closed form presumes a connected graph; components are not counted."


@dataclass(frozen=True)
class SharedCompression(Record):
    """Stored weights over critical ones, for random kernels.

    Attributes
    ----------
    weights : int or None
        Stored weights.
    kept : float or None
        Mean number of critical weights over the trials.
    ratio : float or None
        ``weights / kept``.
    standard_error : float or None
        Of `ratio`, to first order from that of `kept`; None for one trial.
    trials, seed : int or None
        Random kernels drawn, and what draws them again.
    bound : int or None
        Fewest critical weights that kernels without zeros can have, proved (`critical_weights_bound`), with the
        spanning trees of dense layers: so `ratio` is at most ``weights / bound`` for whatever kernels.
    reason : str or None
        Why there is no ratio, or no standard error.
    """

    weights: int | None = None
    kept: float | None = None
    ratio: float | None = None
    standard_error: float | None = None
    trials: int | None = None
    seed: int | None = None
    bound: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CompressionReport(Record):
    """The critical compression ratio of one or several layers in the three conventions.

    Attributes
    ----------
    paper, toeplitz : Compression
        The printed closed form, and the exact layer graph.
    shared : SharedCompression
        Stored kernel weights over critical ones.
    n_layers : int
        Layers that `toeplitz` and `shared` add up: weights, what is kept, and components.
    corrected : Fraction or None
        Of a network of Table 1 whose printed row errs: the ratio by the paper's convention at the true activations.
    """

    paper: Compression
    toeplitz: Compression
    shared: SharedCompression
    n_layers: int = 1
    corrected: Fraction | None = None

    @property
    def rows(self) -> tuple[tuple[str, int | None, float | None, float | Fraction | None, str], ...]:
        """The conventions as a table: name, weights, what is kept, their ratio, and a remark."""
        paper, toeplitz, shared = self.paper, self.toeplitz, self.shared
        components = f"{toeplitz.components} component{'s' if toeplitz.components != 1 else ''}"
        if self.n_layers > 1:
            components += f", summed over {self.n_layers} layers"
        return (
            ("paper", paper.weights, paper.kept, paper.ratio, paper.reason or ""),
            ("toeplitz", toeplitz.weights, toeplitz.kept, toeplitz.ratio, _joined(components, toeplitz.reason)),
            ("shared", shared.weights, shared.kept, shared.ratio, _of_kernels(shared)),
        )

    def _repr_html_(self) -> str:
        columns = zip(*self.rows, strict=True)
        names = ("convention", "weights", "kept", "ratio", "remark")
        return html_table(dict(zip(names, columns, strict=True)))

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python; ratios as numbers, `corrected`, where there is one, within `paper`."""
        record = super().to_dict()
        for name in ("paper", "toeplitz"):
            ratio = getattr(self, name).ratio
            record[name]["ratio"] = None if ratio is None else float(ratio)
        if self.paper.components is None:
            record["paper"]["reason"] = " ".join(filter(None, [self.paper.reason, _UNCOUNTED]))
        del record["corrected"]
        if self.corrected is not None:
            record["paper"]["corrected"] = float(self.corrected)
        return record


def _of_kernels(shared: SharedCompression) -> str:
    """Return what is to be known of the mean over random kernels, or why there is none."""
    if not shared.trials:
        return shared.reason or ""
    kernels = f"{shared.trials} random kernel{'s' if shared.trials > 1 else ''}, seed {shared.seed}"
    if shared.standard_error is not None:
        kernels = f"standard error {shared.standard_error:.4f}, {kernels}"
    if not shared.bound or shared.weights is None:
        return kernels
    return f"{kernels}; whatever the kernel, kept >= {shared.bound:,}, ratio <= {shared.weights / shared.bound:.4f}"


def _joined(*remarks: str | None) -> str:
    return "; ".join(filter(None, remarks))


def compression_report(
    layers: Sequence[Layer] | Architecture,
    printed_layers: Sequence[Layer] | None = None,
    *,
    trials: int = 20,
    seed: int | None = None,
    progress: Progress | None = None,
) -> CompressionReport:
    """Return the critical compression ratio of the layers, pruned each on its own, in the three conventions.

    Parameters
    ----------
    layers : sequence of Dense, Recurrent or Conv, or Architecture
        The layers. A network of Table 1 brings its `printed_layers`, and says in what they differ.
    printed_layers : sequence of the same, optional
        The layers as the convention ``paper`` counts them, where that differs.
    trials : int
        Random kernels for the convention ``shared``, from 1 to 10^9.
    seed : int, optional
        Their seed; drawn and recorded if not given.
    progress : callable, optional
        Called with (trials done, trials).

    Returns
    -------
    CompressionReport
        Ratios of sums over the layers. ``shared`` draws standard normal kernels; dense and recurrent layers among
        convolutions count m n stored weights and a spanning tree.

    Raises
    ------
    ValueError
        If there is no layer, or an argument is out of range.

    Examples
    --------
    >>> from topobounds.layers import Conv
    >>> report = compression_report([Conv(16, 32, (1, 1), (8, 8))], seed=0)
    >>> report.toeplitz.ratio, report.shared.kept
    (Fraction(512, 47), 47.0)
    """
    if isinstance(layers, Architecture):
        return _of_architecture(layers, trials, seed, progress)
    shapes = as_layers(items("layers", layers, "layers"))
    return CompressionReport(
        paper=compression(shapes if printed_layers is None else as_layers(printed_layers)),
        toeplitz=compression(shapes, "toeplitz"),
        shared=_shared_compression(shapes, integer("trials", trials, 1, most=MOST_TRIALS), seed, progress),
        n_layers=len(shapes),
    )


def _of_architecture(
    network: Architecture, trials: int, seed: int | None, progress: Progress | None
) -> CompressionReport:
    """Return the report on a network of Table 1, with what the printed row leaves out."""
    report = compression_report(network.layers, network.printed_layers, trials=trials, seed=seed, progress=progress)
    pooled = compression((*network.pooled_convs, *network.dense)).ratio
    corrected = None if pooled == report.paper.ratio else pooled
    notes = [report.paper.reason, network.printed_note]
    if corrected is not None:
        notes.append(f"At the true ones, which the other rows count, it would be {float(corrected):.4f}.")
    paper = replace(report.paper, reason=" ".join(filter(None, notes)) or None)
    return replace(report, paper=paper, corrected=corrected)


def _shared_compression(
    layers: Sequence[Layer], trials: int, seed: int | None, progress: Progress | None
) -> SharedCompression:
    if all(layer.n_critical is not None for layer in layers):
        return SharedCompression(reason="Only the weights of convolutions are shared.")
    seed = secrets.randbits(32) if seed is None else integer("seed", seed, 0)
    weights = sum(layer.n_weights for layer in layers)
    if reason := _too_large(layers):
        return SharedCompression(weights, reason=reason)
    kept: Counter[int] = Counter()
    for trial in range(trials):
        kept[sum(_n_critical(layer, (seed, trial, place)) for place, layer in enumerate(layers))] += 1
        if progress:
            progress(trial + 1, trials)
    mean = statistics.fmean(kept.elements())
    bound = sum(map(_least_critical, layers))
    if not mean:
        reason = "The layer graph has no edge, so there is nothing to keep."
        return SharedCompression(weights, 0.0, bound=bound, reason=reason)
    if trials == 1:
        reason = "One random kernel says nothing about its own error."
        return SharedCompression(weights, mean, weights / mean, None, trials, seed, bound, reason)
    error = weights / mean**2 * statistics.stdev(kept.elements()) / math.sqrt(trials)
    return SharedCompression(weights, mean, weights / mean, error, trials, seed, bound)


def _least_critical(layer: Layer) -> int:
    """Return the fewest critical weights of any kernel without zeros; of a dense layer, the edges of its tree."""
    return critical_weights_bound(layer) if isinstance(layer, Conv) else layer.n_critical or 0


def _too_large(layers: Sequence[Layer]) -> str | None:
    """Return why random kernels of these layers are not drawn; None if they can be."""
    from topobounds.topology.convolution import check_edges

    try:
        for layer in layers:
            if isinstance(layer, Conv):
                check_edges(layer)
                check_memory(f"A random kernel of {layer.n_weights} weights", _KERNEL_BYTES * layer.n_weights)
    except ValueError as error:
        return f"Not simulated: {error}"
    return None


def _n_critical(layer: Layer, entropy: tuple[int, ...]) -> int:
    """Return the critical weights of a random normal kernel; of a dense layer, the edges of its spanning tree."""
    if layer.n_critical is not None:
        return layer.n_critical
    from topobounds.topology.layer_topology import graph_topology

    graph = cast(SingleTensorLayer, layer)  # the number is only unknown where one stored tensor makes the graph
    return graph_topology(graph, np.random.default_rng(entropy).standard_normal(graph.weight_shape)).n_critical
