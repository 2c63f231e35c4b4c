"""What the shapes imply, what the weights say and what chance gives, side by side.

This module holds and compares; the numbers are computed on the floors below.
"""

import math
import secrets
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import MOST_TRIALS, argument_error, density_fraction, integer, items
from topobounds._records import Record, html_table
from topobounds.layers import Conv, Dense, LayerShape, Recurrent
from topobounds.montecarlo import Estimate, simulate_overlap
from topobounds.supports import cells_at_density, check_neurons
from topobounds.theory.compression import Compression, as_layers, compression, critical_compression_ratio
from topobounds.theory.counting import exact_expected_overlap
from topobounds.theory.enclosure import Enclosure, expected_overlap
from topobounds.theory.overlap import boruvka_bound, overlap_limit, star_bound
from topobounds.theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
from topobounds.theory.table1 import Architecture

Progress = Callable[[int, int], None]
UNCOUNTED = "The closed form presumes a connected graph; components are not counted."
Row = tuple[str, float | Fraction | str | None, str, str]


@dataclass(frozen=True)
class OverlapReport(Record):
    """Everything known of the overlap of a dense layer's k largest weights with its maximum spanning tree.

    Attributes
    ----------
    m, n, k : int
        Inputs, outputs, and the weights kept that the bounds, the enclosure and the limit are about.
    density : float
        Density of the uniformly random support that the corollary and the simulation are about; 1 for all cells.
    cells : int
        Cells of that support.
    alpha : int
        Edges of the spanning tree of the complete layer, m + n - 1.
    eta_tau : Fraction
        Critical compression ratio of the complete layer.
    theorem_3_3, corollary_3_4 : PrintedClaim
        The printed bounds; no corollary where no density was given.
    star_bound, boruvka_bound : float
        Proved lower bounds for the complete layer.
    enclosure : Enclosure
        A certified interval around the expected overlap of the complete layer.
    limit : float
        The overlap of large layers of this shape.
    exact : Fraction or None
        The expected overlap of the complete layer, if it was asked for.
    monte_carlo : Estimate or None
        The simulation, None for no trials. On a support its k is that support's own alpha, where no k was asked for.
    """

    m: int
    n: int
    k: int
    density: float
    cells: int
    alpha: int
    eta_tau: Fraction
    theorem_3_3: PrintedClaim
    corollary_3_4: PrintedClaim | None
    star_bound: float
    boruvka_bound: float
    enclosure: Enclosure
    limit: float
    exact: Fraction | None
    monte_carlo: Estimate | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is known, as a table: name, value (of the certified interval what digits it gives), status, remark."""
        whole = "" if self.density == 1 else " For the complete layer."
        certified = ", ".join(_outwards(self.enclosure, 7))
        rows: list[Row] = [("Theorem 3.3, printed", *_of_claim(self.theorem_3_3))]
        if self.corollary_3_4:
            rows.append(("Corollary 3.4, printed", *_of_claim(self.corollary_3_4)))
        rows += [
            ("star bound", self.star_bound, "proved", f"One edge for every neuron of one side.{whole}"),
            ("Boruvka bound", self.boruvka_bound, "proved", f"The first round of Boruvka's algorithm.{whole}"),
            ("certified", certified_digits(self.enclosure), "proved", f"In [{certified}], for the complete layer."),
        ]
        if self.exact is not None:
            rows.append(("exact", self.exact, "proved", f"{_fraction(self.exact)}, for the complete layer."))
        rows.append(("limit", self.limit, "asymptotic", f"Large {'complete ' if whole else ''}layers of this shape."))
        if self.monte_carlo:
            rows.append(("simulated", self.monte_carlo.mean, "sampled", _of_estimate(self.monte_carlo)))
        return tuple(rows)

    def _repr_html_(self) -> str:
        columns = zip(*self.rows, strict=True)
        return html_table(dict(zip(("overlap", "value", "status", "remark"), columns, strict=True)))

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python; `eta_tau` as a number, `enclosure` as a pair."""
        ends = [self.enclosure.lower, self.enclosure.upper]
        return {**super().to_dict(), "eta_tau": float(self.eta_tau), "enclosure": ends}


def overlap_report(
    m: int,
    n: int,
    k: int | None = None,
    *,
    density: float | None = None,
    exact: bool = False,
    trials: int = 200,
    seed: int | None = None,
    progress: Progress | None = None,
) -> OverlapReport:
    """Return all that is known of the expected overlap of an m x n layer.

    Parameters
    ----------
    m, n : int
        Inputs and outputs, at least 1, together at most 2**24.
    k : int, optional
        Weights kept, 0 to m n; alpha by default. The printed bounds are about k = alpha only.
    density : float, optional
        In (0, 1]: ask for Corollary 3.4, and simulate on uniformly random supports of this density.
    exact : bool
        Also count graphs, for a layer small or thin enough.
    trials : int
        Trials of the simulation; 0 for none.
    seed : int, optional
        Seed of the simulation; drawn and recorded if not given.
    progress : callable, optional
        Called with (trials done, trials).

    Returns
    -------
    OverlapReport
        The printed bounds, the proved ones, the enclosure, the limit and the simulation.

    Raises
    ------
    ValueError
        If an argument is out of range, or the exact value was asked for and is out of reach.

    Examples
    --------
    >>> report = overlap_report(784, 300, seed=1)
    >>> report.alpha, round(report.theorem_3_3.value, 4), round(report.boruvka_bound, 4)
    (1083, 0.1213, 0.6132)
    """
    m, n, trials = integer("m", m, 1), integer("n", n, 1), integer("trials", trials, 0, most=MOST_TRIALS)
    check_neurons(m, n)
    cells = m * n if density is None else _cells(m, n, density)
    alpha = m + n - 1
    kept = alpha if k is None else integer("k", k, 0, m * n)
    if k is not None and k > cells:
        raise argument_error("k", f"at most {cells}, the number of cells of the support", k)
    return OverlapReport(
        m=m,
        n=n,
        k=kept,
        density=1.0 if density is None else float(density),
        cells=cells,
        alpha=alpha,
        eta_tau=critical_compression_ratio((m, n)),
        theorem_3_3=_at_alpha(theorem_3_3(m, n), kept, alpha),
        corollary_3_4=None if density is None else _at_alpha(corollary_3_4(m, n, density), kept, alpha),
        star_bound=star_bound(m, n, kept),
        boruvka_bound=boruvka_bound(m, n, kept),
        enclosure=expected_overlap(m, n, kept),
        limit=overlap_limit(m, n, kept),
        exact=exact_expected_overlap(m, n, kept) if exact else None,
        monte_carlo=simulate_overlap(m, n, k, density=density or 1.0, trials=trials, seed=seed, progress=progress)
        if trials
        else None,
    )


def _cells(m: int, n: int, density: float) -> int:
    density_fraction("density", density)
    if not (cells := cells_at_density(m, n, density)):
        raise argument_error("density", f"at least {1 / (m * n)!r}, one of the {m * n} cells", density)
    return cells


def certified_digits(interval: Enclosure, digits: int = 4) -> str:
    """Return what an interval certifies: the number to so many digits if both ends round to it, else the interval.

    Examples
    --------
    >>> certified_digits(Enclosure(0.79962, 0.79963)), certified_digits(Enclosure(0.84496, 0.85554))
    ('0.7996', '0.8449 to 0.8556')
    """
    lower, upper = f"{interval.lower:.{digits}f}", f"{interval.upper:.{digits}f}"
    return lower if lower == upper else " to ".join(_outwards(interval, digits))


def _outwards(interval: Enclosure, digits: int) -> tuple[str, str]:
    """Return decimals around an interval."""
    scale = 10**digits
    ends = math.floor(Fraction(interval.lower) * scale), math.ceil(Fraction(interval.upper) * scale)
    lower, upper = (f"{end / scale:.{digits}f}" for end in ends)
    return lower, upper


def _fraction(value: Fraction) -> str:
    """Return a fraction, or how long it is where that is more than a line."""
    if value.denominator < 10**20:
        return str(value)
    return f"A fraction with a denominator of {len(str(value.denominator))} digits"


def _of_claim(claim: PrintedClaim) -> tuple[float | None, str, str]:
    return claim.value, claim.status, claim.reason


def _of_estimate(estimate: Estimate) -> str:
    """Return what is to be known of a simulated mean."""
    own = f"k is the alpha of each support, {estimate.alpha:.1f} on average. " if estimate.k is None else ""
    if estimate.trials == 1:
        return f"{own}One trial, seed {estimate.seed}."
    return f"{own}Standard error {estimate.standard_error:.5f}, {estimate.trials} trials, seed {estimate.seed}."


def _at_alpha(claim: PrintedClaim, k: int, alpha: int) -> PrintedClaim:
    if k == alpha:
        return claim
    return PrintedClaim(None, "undefined", f"The paper's bound is about the {alpha} largest weights, not {k}.")


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
    reason : str or None
        Why there is no ratio, or no standard error.
    """

    weights: int | None = None
    kept: float | None = None
    ratio: float | None = None
    standard_error: float | None = None
    trials: int | None = None
    seed: int | None = None
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
            record["paper"]["reason"] = " ".join(filter(None, [self.paper.reason, UNCOUNTED]))
        del record["corrected"]
        if self.corrected is not None:
            record["paper"]["corrected"] = float(self.corrected)
        return record


def _of_kernels(shared: SharedCompression) -> str:
    """Return what is to be known of the mean over random kernels, or why there is none."""
    if not shared.trials:
        return shared.reason or ""
    kernels = f"{shared.trials} random kernel{'s' if shared.trials > 1 else ''}, seed {shared.seed}"
    return kernels if shared.standard_error is None else f"standard error {shared.standard_error:.4f}, {kernels}"


def _joined(*remarks: str | None) -> str:
    return "; ".join(filter(None, remarks))


def compression_report(
    layers: Sequence[LayerShape] | Architecture,
    printed_layers: Sequence[LayerShape] | None = None,
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
    layers: Sequence[LayerShape], trials: int, seed: int | None, progress: Progress | None
) -> SharedCompression:
    if not any(isinstance(layer, Conv) for layer in layers):
        return SharedCompression(reason="Only the weights of convolutions are shared.")
    seed = secrets.randbits(32) if seed is None else integer("seed", seed, 0)
    kept: Counter[int] = Counter()
    for trial in range(trials):
        kept[sum(_n_critical(layer, (seed, trial, place)) for place, layer in enumerate(layers))] += 1
        if progress:
            progress(trial + 1, trials)
    weights, mean = sum(layer.n_weights for layer in layers), statistics.fmean(kept.elements())
    if not mean:
        return SharedCompression(weights, 0.0, reason="The layer graph has no edge, so there is nothing to keep.")
    if trials == 1:
        reason = "One random kernel says nothing about its own error."
        return SharedCompression(weights, mean, weights / mean, None, trials, seed, reason)
    error = weights / mean**2 * statistics.stdev(kept.elements()) / math.sqrt(trials)
    return SharedCompression(weights, mean, weights / mean, error, trials, seed)


def _n_critical(layer: LayerShape, entropy: tuple[int, ...]) -> int:
    """Return the critical weights of a random normal kernel; of a dense layer, the edges of its spanning tree."""
    if not isinstance(layer, Conv):
        return layer.n_vertices - layer.n_components
    from topobounds.topology.convolution import critical_kernel_weights

    return critical_kernel_weights(np.random.default_rng(entropy).standard_normal(layer.weight_shape), layer).n_critical


@dataclass(frozen=True)
class LayerReport(Record):
    """What the weights of one layer say, beside what its shape implies.

    Attributes
    ----------
    name : str
        The layer's name in its model or file.
    kind : str
        ``"dense"``, ``"recurrent"``, ``"conv"`` or ``"embedding"``.
    shape : tuple of int
        Of the stored weights.
    m, n : int or None
        Input and output neurons of the layer graph; for a convolution all channels and real cells.
    weights, nonzero : int
        Stored weights, and those that are not zero.
    alpha : int or None
        Edges of the spanning forest of the non-zero weights.
    components : int or None
        Components of the graph of the non-zero weights, isolated neurons counted: m + n - alpha.
    critical : int or None
        Stored weights that carry the forest, the fewest that T-IMP can keep: alpha, or, of a convolution, the critical
        kernel weights.
    critical_rank : int or None
        Rank of the lightest of these among all stored weights: magnitude pruning preserves the persistence diagram
        exactly if it keeps at least so many, ties going by flat index as everywhere here (`torch.topk` breaks them
        otherwise, and weights in bfloat16 tie often).
    eta_tau, eta_tau_toeplitz : Fraction or None
        Critical compression ratio of the shape, in the convention ``paper`` and on the exact layer graph.
    overlap : float or None
        Share of the critical weights that lie among as many largest weights.
    neural_persistence : float or None
        Normalised, convention ``balwani``, p = 2.
    calls : int or None
        How often the model called the layer, where it was traced.
    reason : str or None
        Why something is None, or what is to be known about it.
    neurons : tuple of (int, int)
        Of each call that was traced, the group of neurons read and the group fed, numbered from 0 through the model in
        the order of its calls. Layers that name one group share its neurons, as in `topobounds.layers.Network`:
        ``(W, *ends)`` for each of these pairs, W being inputs by outputs, is what `network_forest` takes. A layer
        called twice has two pairs. Empty where nothing was traced.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    m: int | None
    n: int | None
    weights: int
    nonzero: int
    alpha: int | None
    components: int | None
    critical: int | None
    critical_rank: int | None
    eta_tau: Fraction | None
    eta_tau_toeplitz: Fraction | None
    overlap: float | None
    neural_persistence: float | None
    calls: int | None = None
    reason: str | None = None
    neurons: tuple[tuple[int, int], ...] = ()

    @property
    def density(self) -> float:
        """Share of the stored weights that are not zero."""
        return self.nonzero / self.weights

    @property
    def safe_density(self) -> float | None:
        """The density at which magnitude pruning stops preserving the tree: critical rank / weights."""
        return None if self.critical_rank is None else self.critical_rank / self.weights

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python, with `density` and `safe_density`; ratios as numbers."""
        ratios = {name: _number(getattr(self, name)) for name in ("eta_tau", "eta_tau_toeplitz")}
        return {**super().to_dict(), **ratios, "density": self.density, "safe_density": self.safe_density}


@dataclass(frozen=True)
class ModelReport(Record):
    """The layers of a model.

    Attributes
    ----------
    layers : tuple of LayerReport
        In the model's order.
    unread : dict of str to str
        Weights of two or more dimensions that are no layer here, and why.
    """

    layers: tuple[LayerReport, ...]
    unread: dict[str, str]

    @property
    def density(self) -> float:
        """Share of the stored weights of the layers that are not zero; 1 where there is none."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.nonzero for layer in self.layers) / weights if weights else 1.0

    @property
    def total_neural_persistence(self) -> float:
        """Sum of the normalised neural persistence over the layers that have one."""
        return math.fsum(layer.neural_persistence or 0.0 for layer in self.layers)

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """For each layer the layers that feed the neurons it reads, in the model's order; itself where it adds to them.

        Of what was traced: see `LayerReport.neurons`.
        """
        fed = [(layer.name, {target for _, target in layer.neurons}) for layer in self.layers]
        read = [(layer.name, {source for source, _ in layer.neurons}) for layer in self.layers]
        return {reader: tuple(name for name, groups in fed if groups & sources) for reader, sources in read}

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python, with `density`, `total_neural_persistence` and `sources`."""
        layers = [layer.to_dict() for layer in self.layers]
        totals = {"density": self.density, "total_neural_persistence": self.total_neural_persistence}
        sources = {name: list(feeding) for name, feeding in self.sources.items()}
        return {**super().to_dict(), "layers": layers, **totals, "sources": sources}

    def _repr_html_(self) -> str:
        columns = (
            "name kind shape m n weights density alpha components critical eta_tau eta_tau_toeplitz safe_density "
            "overlap neural_persistence reason"
        )
        shown = {c: [getattr(layer, c) for layer in self.layers] for c in columns.split()}
        neurons = [", ".join(f"{source} → {target}" for source, target in layer.neurons) for layer in self.layers]
        return html_table({**shown, "neurons": neurons})


def layer_report(
    name: str,
    weights: ArrayLike,
    layer: Dense | Recurrent | Conv | None,
    *,
    kind: str = "dense",
    calls: int | None = None,
    reason: str | None = None,
    neurons: tuple[tuple[int, int], ...] = (),
) -> LayerReport:
    """Return what the weights of one layer say.

    Parameters
    ----------
    name, kind, calls, reason, neurons
        As in `LayerReport`.
    weights : array_like
        A matrix for a dense or recurrent layer, (inputs, outputs) or as torch stores it, which changes nothing but the
        order of ties; the kernel for a convolution. Zeros are no edges.
    layer : Dense or Recurrent or Conv, or None
        The layer's shape. None for a convolution whose input size is not known: only what concerns the stored weights
        is then reported.

    Returns
    -------
    LayerReport
        The measured and the implied.

    Raises
    ------
    ValueError
        If the weights do not have the layer's size, or as `maximum_spanning_forest` and `critical_kernel_weights`.

    Examples
    --------
    >>> W = np.random.default_rng(0).standard_normal((30, 20))
    >>> report = layer_report("fc", W, Dense(30, 20))
    >>> report.alpha, report.critical_rank, float(report.eta_tau), round(report.overlap, 3)
    (49, 109, 12.244897959183673, 0.857)
    """
    from topobounds.weights import as_array, check_finite

    array = as_array("weights", weights)
    if array.size == 0:
        raise argument_error("weights", "an array with at least one entry", array.shape)
    if layer is None:
        check_finite(array.reshape(len(array), -1), shape=array.shape)
    elif array.size != layer.n_weights:
        raise argument_error("weights", f"the {layer.n_weights} weights of {layer}", array.shape)
    measured: dict[str, Any] = dict.fromkeys(
        ("alpha", "components", "critical", "critical_rank", "overlap", "neural_persistence")
    )
    if layer is not None:
        measured = _measured_kernel(array, layer) if isinstance(layer, Conv) else _measured_matrix(array)
    implied = [compression(layer, convention) for convention in ("paper", "toeplitz")] if layer else []
    eta_tau, eta_tau_toeplitz = (c.ratio for c in implied) if implied else (None, None)
    m, n = _neurons(layer)
    return LayerReport(
        name=name,
        kind=kind,
        shape=array.shape,
        m=m,
        n=n,
        weights=array.size,
        nonzero=int(np.count_nonzero(array)),
        eta_tau=eta_tau,
        eta_tau_toeplitz=eta_tau_toeplitz,
        calls=calls,
        reason=" ".join(r for r in (reason, *(c.reason for c in implied)) if r) or None,
        neurons=neurons,
        **measured,
    )


def _neurons(layer: Dense | Recurrent | Conv | None) -> tuple[int | None, int | None]:
    if layer is None:
        return None, None
    if isinstance(layer, Conv):
        return layer.n_inputs, layer.n_outputs
    return layer.weight_shape


def _measured_matrix(weights: NDArray[Any]) -> dict[str, Any]:
    from topobounds.topology.persistence import diagram_of_forest, neural_persistence
    from topobounds.topology.spanning import maximum_spanning_forest

    forest = maximum_spanning_forest(weights)
    return {
        "alpha": forest.alpha,
        "components": forest.n_components,
        "critical": forest.alpha,
        "critical_rank": forest.critical_rank,
        "overlap": forest.overlap(),
        "neural_persistence": neural_persistence(diagram_of_forest(forest), normalized=True),
    }


def _measured_kernel(weights: NDArray[Any], conv: Conv) -> dict[str, Any]:
    from topobounds.topology.convolution import critical_kernel_weights
    from topobounds.topology.persistence import neural_persistence

    critical = critical_kernel_weights(weights, conv)
    return {
        "alpha": critical.alpha,
        "components": critical.n_components,
        "critical": critical.n_critical,
        "critical_rank": critical.critical_rank,
        "overlap": critical.overlap(),
        "neural_persistence": neural_persistence(critical.diagram, normalized=True),
    }


def _number(ratio: Fraction | None) -> float | None:
    return None if ratio is None else float(ratio)
