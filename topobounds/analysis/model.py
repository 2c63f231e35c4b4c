"""What the weights of the layers of a model say, beside what their shapes imply and what chance gives."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike

from topobounds._arguments import argument_error
from topobounds._records import Record, html_table
from topobounds.analysis.expected import NO_GRAPH, NOT_ASKED, checked_seed, checked_trials, expected_columns
from topobounds.layers import TensorLayer
from topobounds.theory.compression import compression
from topobounds.topology.moments import weight_moments
from topobounds.topology.tensors import Topology, graph_topology
from topobounds.weights import as_array, check_finite


@dataclass(frozen=True)
class LayerReport(Record):
    """What the weights of one layer say, beside what its shape implies and what chance alone would give.

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
    w_max : float or None
        The largest |w|; of a kernel, among the weights that make an edge.
    rms : float
        Root of the mean squared weight, zeros included.
    silent_inputs, silent_outputs, fragments : int or None
        Of the graph of the `critical` largest weights: input and output neurons without a weight, and components that
        have one. On a connected layer ``alpha (1 - overlap) = silent_inputs + silent_outputs + fragments - 1`` (of a
        kernel the left side counts edges, not weights).
    safe_density_expected : float or None
        Median of the certified law of the critical rank for weights in random order, over `weights`; of dense layers
        without zeros.
    safe_density_range : tuple of two floats, or None
        Its quantiles at 5% and 95%, outwards.
    overlap_expected, overlap_deviation, overlap_z : float or None
        Mean and standard deviation of `overlap` if the layer's weights came in random order on their own support (a
        kernel's on its own taps), and ``(overlap - expected) / deviation``. The mean is the middle of an interval that
        `topobounds.overlap_null` gives.
    overlap_status, overlap_deviation_status : str or None
        Of the mean: ``"certified"`` or ``"sampled"``. Of the deviation: ``"proved"``, ``"limit"`` or ``"sampled"``.
    neural_persistence_expected : float or None
        What stands beside `neural_persistence`: the norm of the mean of NP^2 if the layer's own values lay on its
        support in random order, normalised likewise.
    neural_persistence_deviation, neural_persistence_z : float or None
        Standard deviation of NP^2, not normalised and without the root, and by how many of them the layer's own NP^2
        lies above the mean.
    neural_persistence_share : float or None
        ``(E[NP^2] / NP^2)^(1/2)``: the share of the persistence that the values alone explain; above 1 where the layer
        has less than chance gives.
    neural_persistence_range : tuple of two floats, or None
        The least and the largest NP^2 of all arrangements of the values on the support, not normalised; see
        `topobounds.persistence_null`.
    neural_persistence_status, neural_persistence_deviation_status : str or None
        As of the overlap.
    trials, seed : int or None
        Random orders drawn, and what draws them again; None where nothing was sampled.
    chance_reason : str or None
        Why a number of chance is None.
    read_as : str or None
        The graph in words: ``"gate 2 of 4 (forget), 128 inputs x 128 outputs"``; None where a module was read.
    assumed : str or None
        What was guessed, as the stride of a kernel in a file; None where nothing was.
    dtype : str or None
        Type of the stored weights: ``"bfloat16"``.
    file : str or None
        The file that holds them, within its folder.
    tied_to : str or None
        Other names of the same stored weights, separated by commas.
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
    w_max: float | None = None
    rms: float = 0.0
    silent_inputs: int | None = None
    silent_outputs: int | None = None
    fragments: int | None = None
    safe_density_expected: float | None = None
    safe_density_range: tuple[float, float] | None = None
    overlap_expected: float | None = None
    overlap_deviation: float | None = None
    overlap_z: float | None = None
    overlap_status: str | None = None
    overlap_deviation_status: str | None = None
    neural_persistence_expected: float | None = None
    neural_persistence_deviation: float | None = None
    neural_persistence_z: float | None = None
    neural_persistence_share: float | None = None
    neural_persistence_range: tuple[float, float] | None = None
    neural_persistence_status: str | None = None
    neural_persistence_deviation_status: str | None = None
    trials: int | None = None
    seed: int | None = None
    chance_reason: str | None = None
    read_as: str | None = None
    assumed: str | None = None
    dtype: str | None = None
    file: str | None = None
    tied_to: str | None = None

    @property
    def critical_ratio(self) -> float | None:
        """Stored weights over those that carry the topology: how far T-IMP can prune; of a dense layer eta_tau."""
        return self.weights / self.critical if self.critical else None

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
        return {
            **super().to_dict(),
            **ratios,
            "density": self.density,
            "safe_density": self.safe_density,
            "critical_ratio": self.critical_ratio,
        }


@dataclass(frozen=True)
class Source:
    """Where the weights of a report come from.

    Attributes
    ----------
    path : str
        As it was given; empty for a module or arrays in memory.
    format : str
        ``"safetensors"``; of a module the name of its class.
    files : tuple of str
        The files read, within the folder.
    bytes : int
        Bytes of the stored tensors that were read.
    """

    path: str
    format: str
    files: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Finding:
    """Something that a report points out.

    Attributes
    ----------
    severity : str
        ``"info"``, ``"warning"`` or ``"error"``.
    rule : str
        ``"below-critical"``.
    layer : str or None
        The layer or tensor; None of the whole.
    text : str
        A sentence with the numbers.
    """

    severity: str
    rule: str
    layer: str | None
    text: str


@dataclass(frozen=True)
class ModelReport(Record):
    """The layers of a model.

    Attributes
    ----------
    layers : tuple of LayerReport
        In the model's order.
    left_out : dict of str to str
        Weights of two or more dimensions that are no layer here, and why; of a file every tensor that is not read.
    source : Source or None
        Where the weights come from.
    forms : dict of str to (tuple of int, str)
        Of the tensors of a file that are left out, shape and dtype, where the file tells them.
    tied : dict of str to str
        Names that stand for the tensor of another name.
    findings : tuple of Finding
        What is pointed out, the worst first.
    """

    layers: tuple[LayerReport, ...]
    left_out: dict[str, str]
    source: Source | None = None
    forms: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def unread(self) -> dict[str, str]:
        """`left_out` by its earlier name. Deprecated."""
        return self.left_out

    @property
    def left_alone(self) -> dict[str, str]:
        """`left_out` by the name that a report of pruning had for it. Deprecated."""
        return self.left_out

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
        """Return the fields as plain Python, with `density`, `total_neural_persistence`, `sources` and ``unread``."""
        record = super().to_dict()
        layers = [layer.to_dict() for layer in self.layers]
        totals = {"density": self.density, "total_neural_persistence": self.total_neural_persistence}
        sources = {name: list(feeding) for name, feeding in self.sources.items()}
        return {**record, "unread": record["left_out"], "layers": layers, **totals, "sources": sources}

    def _repr_html_(self) -> str:
        shown = {title: [getattr(layer, field) for layer in self.layers] for title, field in COLUMNS.items()}
        neurons = [", ".join(f"{source} → {target}" for source, target in layer.neurons) for layer in self.layers]
        return html_table({**shown, "neurons": neurons})


COLUMNS = {
    "name": "name",
    "kind": "kind",
    "shape": "shape",
    "m": "m",
    "n": "n",
    "weights": "weights",
    "density": "density",
    "components": "components",
    "alpha": "alpha",
    "critical": "critical",
    "eta_tau": "eta_tau",
    "eta_tau_toeplitz": "eta_tau_toeplitz",
    "safe density": "safe_density",
    "safe density by chance": "safe_density_expected",
    "overlap": "overlap",
    "overlap by chance": "overlap_expected",
    "overlap z": "overlap_z",
    "neural persistence": "neural_persistence",
    "neural persistence by chance": "neural_persistence_expected",
    "neural persistence z": "neural_persistence_z",
    "reason": "reason",
}
"""The columns of a report as a table, and the fields that they show: beside what is measured, what chance gives."""


def layer_report(
    name: str,
    weights: ArrayLike,
    layer: TensorLayer | None,
    *,
    kind: str = "dense",
    calls: int | None = None,
    reason: str | None = None,
    neurons: tuple[tuple[int, int], ...] = (),
    inputs_first: bool | None = None,
    chance: bool = True,
    trials: int | None = None,
    seed: int | None = None,
) -> LayerReport:
    """Return what the weights of one layer say, beside what chance alone would give.

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
    inputs_first : bool, optional
        Whether the rows of a matrix are its inputs. By default they are, unless its shape is (outputs, inputs).
    chance : bool
        Whether what chance gives is computed, which at the first dense layer of a shape takes up to some seconds.
    trials : int, optional
        Random orders where that is sampled, at least 2: for kernels, layers with zeros, and, for the deviations, layers
        with few neurons on one side. By default 20 to 200, the fewer the larger the layer. 0 samples nothing: what is
        certified is still there.
    seed : int, optional
        From 0 to 2^64 - 1; drawn and recorded if not given.

    Returns
    -------
    LayerReport
        The measured, the implied and the expected.

    Raises
    ------
    ValueError
        If the weights do not have the layer's size, or as `maximum_spanning_forest` and `critical_kernel_weights`; or
        if `trials` or `seed` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from topobounds.layers import Dense
    >>> W = np.random.default_rng(0).standard_normal((30, 20))
    >>> report = layer_report("fc", W, Dense(30, 20), seed=0)
    >>> report.alpha, report.critical_rank, float(report.eta_tau), round(report.overlap, 3)
    (49, 109, 12.244897959183673, 0.857)
    >>> round(report.overlap_expected, 3), round(report.overlap_z, 1), report.overlap_status
    (0.84, 0.5, 'certified')
    """
    trials = checked_trials(trials)
    seed = checked_seed(seed)
    array = as_array("weights", weights)
    if array.size == 0:
        raise argument_error("weights", "an array with at least one entry", array.shape)
    if layer is None:
        check_finite(array.reshape(len(array), -1), shape=array.shape)
    elif array.size != layer.n_weights:
        raise argument_error("weights", f"the {layer.n_weights} weights of {layer}", array.shape)
    implied = [compression(layer, convention) for convention in ("paper", "toeplitz")] if layer else []
    eta_tau, eta_tau_toeplitz = (c.ratio for c in implied) if implied else (None, None)
    topology = None if layer is None else graph_topology(layer, array)
    moments = weight_moments(array)
    columns: dict[str, Any] = {"chance_reason": NO_GRAPH if layer is None else NOT_ASKED}
    if layer is not None and topology is not None and chance:
        columns = expected_columns(array, layer, topology, moments.nonzero, trials, seed)
    return LayerReport(
        name=name,
        kind=kind,
        shape=array.shape,
        m=None if layer is None else layer.n_inputs,
        n=None if layer is None else layer.n_outputs,
        weights=array.size,
        nonzero=moments.nonzero,
        rms=moments.rms,
        eta_tau=eta_tau,
        eta_tau_toeplitz=eta_tau_toeplitz,
        calls=calls,
        reason=" ".join(r for r in (reason, *(c.reason for c in implied)) if r) or None,
        neurons=neurons,
        **_measured(topology, inputs_first=_inputs_first(array.shape, layer) if inputs_first is None else inputs_first),
        **columns,
    )


def _inputs_first(shape: tuple[int, ...], layer: TensorLayer | None) -> bool:
    return layer is not None and shape == (layer.n_inputs, layer.n_outputs)


def _measured(topology: Topology | None, *, inputs_first: bool) -> dict[str, Any]:
    """Return what the weights say; None for each where the layer has no known graph."""
    if topology is None:
        return dict.fromkeys(("alpha", "components", "critical", "critical_rank", "overlap", "neural_persistence"))
    (forest,) = topology.forests
    deficit = topology.deficit(inputs_first=inputs_first)
    return {
        "alpha": topology.alpha,
        "components": topology.n_components,
        "critical": topology.n_critical,
        "critical_rank": forest.critical_rank,
        "overlap": topology.overlap,
        "neural_persistence": topology.neural_persistence,
        "w_max": float(forest.weights[0]) if topology.alpha else 0.0,
        "silent_inputs": deficit.silent_inputs,
        "silent_outputs": deficit.silent_outputs,
        "fragments": deficit.fragments,
    }


def _number(ratio: Fraction | None) -> float | None:
    return None if ratio is None else float(ratio)
