"""What the shapes imply, what the weights say and what chance gives, side by side.

This module holds and compares; the numbers are computed on the floors below.
"""

import html
import math
import secrets
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, integer
from topobounds._records import Record
from topobounds.layers import Conv, Dense, LayerShape, Recurrent
from topobounds.montecarlo import Estimate, simulate_overlap
from topobounds.theory.compression import Compression, compression, critical_compression_ratio
from topobounds.theory.counting import exact_expected_overlap
from topobounds.theory.enclosure import Enclosure, expected_overlap
from topobounds.theory.overlap import boruvka_bound, overlap_limit, star_bound
from topobounds.theory.paper import PrintedClaim, corollary_3_4, theorem_3_3

Progress = Callable[[int, int], None]
MOST_NEURONS = 2**24  # the bounds take time in proportion to m + n: some ten seconds here


@dataclass(frozen=True)
class OverlapReport(Record):
    """Everything known of the overlap of a dense layer's k largest weights with its maximum spanning tree.

    Attributes
    ----------
    m, n, k : int
        Inputs, outputs, weights kept.
    density : float
        Density of the uniformly random support that the corollary and the simulation are about; 1 for all cells.
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
        The simulation, None for no trials.
    """

    m: int
    n: int
    k: int
    density: float
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
    m, n, trials = integer("m", m, 1), integer("n", n, 1), integer("trials", trials, 0)
    if m + n > MOST_NEURONS:
        raise ValueError(f"Arguments 'm' and 'n' must add up to at most {MOST_NEURONS}, not {m + n}.")
    alpha = m + n - 1
    kept = alpha if k is None else integer("k", k, 0, m * n)
    return OverlapReport(
        m=m,
        n=n,
        k=kept,
        density=1.0 if density is None else density,
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
        Why there is no ratio.
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
    """

    paper: Compression
    toeplitz: Compression
    shared: SharedCompression

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python; ratios as numbers."""
        record = super().to_dict()
        for name in ("paper", "toeplitz"):
            ratio = getattr(self, name).ratio
            record[name]["ratio"] = None if ratio is None else float(ratio)
        return record


def compression_report(
    layers: Sequence[LayerShape],
    printed_layers: Sequence[LayerShape] | None = None,
    *,
    trials: int = 20,
    seed: int | None = None,
    progress: Progress | None = None,
) -> CompressionReport:
    """Return the critical compression ratio of the layers, pruned each on its own, in the three conventions.

    Parameters
    ----------
    layers : sequence of Dense, Recurrent or Conv
        The layers.
    printed_layers : sequence of the same, optional
        The layers as the convention ``paper`` counts them, where that differs (`Architecture.printed_layers`).
    trials : int
        Random kernels for the convention ``shared``, at least 1.
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
    if not layers:
        raise argument_error("layers", "a sequence of at least one layer", layers)
    return CompressionReport(
        compression(tuple(printed_layers or layers)),
        compression(tuple(layers), "toeplitz"),
        _shared_compression(layers, integer("trials", trials, 1), seed, progress),
    )


def _shared_compression(
    layers: Sequence[LayerShape], trials: int, seed: int | None, progress: Progress | None
) -> SharedCompression:
    if not any(isinstance(layer, Conv) for layer in layers):
        return SharedCompression(reason="Only the weights of convolutions are shared.")
    seed = secrets.randbits(32) if seed is None else integer("seed", seed, 0)
    kept = [0] * trials
    for trial in range(trials):
        kept[trial] = sum(_n_critical(layer, (seed, trial, place)) for place, layer in enumerate(layers))
        if progress:
            progress(trial + 1, trials)
    weights, mean = sum(layer.n_weights for layer in layers), statistics.fmean(kept)
    if not mean:
        return SharedCompression(weights, 0.0, reason="The layer graph has no edge, so there is nothing to keep.")
    error = weights / mean**2 * statistics.stdev(kept) / math.sqrt(trials) if trials > 1 else None
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
        exactly if it keeps at least so many.
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
    from topobounds.topology.filtration import as_array

    array = as_array("weights", weights)
    if layer is not None and array.size != layer.n_weights:
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
    from topobounds.topology.persistence import neural_persistence
    from topobounds.topology.spanning import maximum_spanning_forest

    forest = maximum_spanning_forest(weights)
    return {
        "alpha": forest.alpha,
        "components": forest.n_components,
        "critical": forest.alpha,
        "critical_rank": forest.critical_rank,
        "overlap": forest.overlap(),
        "neural_persistence": neural_persistence(weights, normalized=True),
    }


def _measured_kernel(weights: NDArray[Any], conv: Conv) -> dict[str, Any]:
    from topobounds.pruning import magnitude_mask
    from topobounds.topology.convolution import critical_kernel_weights
    from topobounds.topology.persistence import neural_persistence

    critical = critical_kernel_weights(weights, conv)
    n_critical = critical.n_critical
    shared = int((critical.mask & magnitude_mask(weights, n_critical)).sum())
    return {
        "alpha": critical.alpha,
        "components": critical.n_components,
        "critical": n_critical,
        "critical_rank": _rank(weights, critical.indices[n_critical - 1]) if n_critical else 0,
        "overlap": shared / n_critical if n_critical else 1.0,
        "neural_persistence": neural_persistence(critical.diagram, normalized=True),
    }


def _rank(weights: NDArray[Any], index: int) -> int:
    """Return the place of one weight in the total order, from 1."""
    values = np.abs(weights.ravel())
    return int(np.count_nonzero(values > values[index]) + np.count_nonzero(values[: index + 1] == values[index]))


def html_table(columns: Mapping[str, Sequence[object]]) -> str:
    """Return columns of equal length as an HTML table, for notebooks.

    Examples
    --------
    >>> html_table({"layer": ["a<b"], "ratio": [1 / 3]})
    '<table><thead><tr><th>layer</th><th>ratio</th></tr></thead><tbody><tr><td>a&lt;b</td><td>0.3333</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in zip(*columns.values(), strict=True))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    if isinstance(value, float | Fraction):
        return f"{float(value):.4g}"
    return html.escape(str(value))


def _number(ratio: Fraction | None) -> float | None:
    return None if ratio is None else float(ratio)
