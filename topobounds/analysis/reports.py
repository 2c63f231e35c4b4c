"""What the weights of the layers of a model say, beside what their shapes imply and what chance gives."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike

from topobounds._arguments import argument_error, checked_seed, checked_trials, file_name
from topobounds._files import read_regular, write_whole
from topobounds._records import Record, frame, html_table, plain_record
from topobounds._types import Array
from topobounds.analysis.curves import LayerCurves
from topobounds.analysis.expected import NO_GRAPH, NOT_ASKED, expected_columns
from topobounds.analysis.fixed import looks_fixed
from topobounds.chance.magnitudes import SORTED_CELLS
from topobounds.layers import Conv, SingleTensorLayer
from topobounds.theory.compression import compression
from topobounds.theory.persistence import sufficient_rank
from topobounds.topology.layer_topology import Topology, graph_topology
from topobounds.topology.moments import weight_moments
from topobounds.weights import ScaledWeights, as_array, check_finite

_RATIOS = ("eta_tau", "eta_tau_toeplitz")
"""The fields of a `LayerReport` that are exact ratios."""
FIRST_KEYS = (
    *("name", "kind", "read_as", "assumed", "shape", "m", "n", "dtype", "file", "tied_to"),
    *("weights", "nonzero", "density", "w_max", "rms", "alpha", "components", "critical", "critical_ratio"),
    *("eta_tau", "eta_tau_toeplitz", "critical_rank"),
    *("safe_density", "safe_density_expected", "safe_density_range"),
    *("overlap", "overlap_expected", "overlap_deviation", "overlap_z", "overlap_status"),
    *("neural_persistence", "neural_persistence_expected", "neural_persistence_deviation", "neural_persistence_z"),
    *("neural_persistence_share", "neural_persistence_range", "neural_persistence_status"),
    *("silent_inputs", "silent_outputs", "fragments", "calls", "reason"),
)
"""The keys of a `LayerReport` as plain Python, in the order in which they are read; the others follow."""
_SIMPLE_DENOMINATORS = 10**6
"""Up to which the ratio that a number was rounded from is told: dense layers of a million neurons."""
_NOTABLE = 3.0
"""Standard deviations from what chance gives at which a layer is counted."""
_LONGEST_FILE = 2**30
"""Bytes of a saved report: a million layers take less."""


@dataclass(frozen=True)
class ScaleShares(Record):
    """What of a layer's numbers its values give, what the scales of its neurons add, and the rest.

    Attributes
    ----------
    overlap : tuple of three floats, or None
        Shares of the measured overlap, with the sum 1: what a random order gives, what the scales of the neurons add to
        that (or take from it, if below 0), and what is left.
    overlap_z : float or None
        By how many standard deviations the measured overlap lies above what the scales give.
    neural_persistence : tuple of three floats, or None
        Likewise of NP^2, not normalised.
    neural_persistence_z : float or None
        As `overlap_z`.
    trials, seed : int or None
        Of `topobounds.scale_null`, which gives these numbers; the fit of the scales is corrected for.
    reason : str or None
        Why there are none.
    """

    overlap: tuple[float, float, float] | None = None
    overlap_z: float | None = None
    neural_persistence: tuple[float, float, float] | None = None
    neural_persistence_z: float | None = None
    trials: int | None = None
    seed: int | None = None
    reason: str | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ScaleShares":
        """Return the shares that `to_dict` gave."""
        return cls(**{f.name: _tuples(record[f.name]) for f in dataclasses.fields(cls)})


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
        `topobounds.overlap_null` gives. No z where the order of weights that tie at the cut decides it: see there.
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
        `topobounds.persistence_null`. Of layers of up to 2^20 weights.
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
    tensor : str
        The stored tensor that it is a part of, or is.
    w_second : float or None
        The second largest |w|; None where there is none.
    dead_inputs, dead_outputs : int or None
        Inputs and outputs all of whose weights are zero; of a kernel, channels, all of whose weights are zero or meet
        nothing but padding.
    components_unpruned : int or None
        Components of the graph of the shape, none of its weights zero: more than one for some convolutions.
    looks_fixed : str or None
        Why the weights look as if they were not trained: their name, or rows that are sampled sinusoids.
    scales : ScaleShares or None
        How much of the numbers the scales of the neurons explain, where that was asked for.
    curves : LayerCurves or None
        The layer's pictures as numbers, where they were asked for.
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
    tensor: str = ""
    w_second: float | None = None
    dead_inputs: int | None = None
    dead_outputs: int | None = None
    components_unpruned: int | None = None
    looks_fixed: str | None = None
    scales: ScaleShares | None = None
    curves: LayerCurves | None = None

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
        """Return the fields as plain Python, with `density`, `safe_density` and `critical_ratio`; ratios as numbers."""
        ratios = {name: _number(getattr(self, name)) for name in _RATIOS}
        computed = {name: getattr(self, name) for name in ("density", "safe_density", "critical_ratio")}
        record = {**super().to_dict(), **ratios, **computed}
        return {name: record[name] for name in dict.fromkeys(("schema_version", *FIRST_KEYS, *record))}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "LayerReport":
        """Return the report that `to_dict` gave; ratios as the simplest fractions that round to the numbers."""
        values = {f.name: _tuples(record[f.name]) for f in dataclasses.fields(cls)}
        ratios = {name: _fraction(values[name]) for name in _RATIOS}
        scales = None if record["scales"] is None else ScaleShares.from_dict(record["scales"])
        curves = None if record["curves"] is None else LayerCurves.from_dict(record["curves"])
        return cls(**values | ratios | {"scales": scales, "curves": curves})


@dataclass(frozen=True)
class Source:
    """Where the weights of a report come from, and what they were ranked by.

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
    mask : str or None
        The file of masks beside them; "arrays" for a mapping.
    scores : str or None
        Likewise, of the scores that took the place of |w| in every rank.
    """

    path: str
    format: str
    files: tuple[str, ...]
    bytes: int
    mask: str | None = None
    scores: str | None = None


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
class NetworkReport(Record):
    """Dense layers that share their neurons as one graph.

    Attributes
    ----------
    layers : tuple of str
        Their names, each as often as it is called.
    neurons, weights, nonzero : int
        Neurons, each counted once; stored weights, and those that are not zero.
    alpha, components : int
        Edges of the spanning forest of the non-zero weights, and components of their graph.
    critical_ratio : float or None
        ``weights / alpha``: how far the network can be pruned as one with its topology intact; None where alpha is 0.
    critical_rank : int
        Rank of the lightest edge of the forest among all weights, which are compared across layers.
    safe_density : float
        ``critical_rank / weights``: where global magnitude pruning stops preserving the tree.
    overlap : float
        Share of the forest among the alpha largest weights of the network.
    silent_inputs, silent_outputs, fragments : int
        Of the graph of these weights, as of a layer; a neuron that any layer feeds is an output.
    assumed : str or None
        What was guessed: that layers in a file feed one another.
    reason : str
        Why nothing stands beside the measured numbers.
    """

    layers: tuple[str, ...]
    neurons: int
    weights: int
    nonzero: int
    alpha: int
    components: int
    critical_ratio: float | None
    critical_rank: int
    safe_density: float
    overlap: float
    silent_inputs: int
    silent_outputs: int
    fragments: int
    assumed: str | None
    reason: str

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "NetworkReport":
        """Return the report that `to_dict` gave."""
        return cls(**{f.name: _tuples(record[f.name]) for f in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Summary(Record):
    """A model in a few numbers: sums over its layers.

    Attributes
    ----------
    layers : int
        Layer graphs; a tensor may hold several.
    unknown : int
        Those of them whose graph is not known; they count among the weights only.
    weights, nonzero : int
        Stored weights, and those that are not zero.
    density : float
        ``nonzero / weights``; 1 where there is none.
    alpha, components, critical : int
        Sums over the layers with a known graph: edges of the spanning forests, components, weights that carry them.
    critical_ratio : float or None
        Stored weights of these layers over `critical`: how far T-IMP can prune them.
    below_chance, above_chance : int
        Layers whose overlap lies 3 standard deviations or more below, or above, what chance gives.
    total_neural_persistence : float
        Sum of the normalised neural persistence.
    """

    layers: int
    unknown: int
    weights: int
    nonzero: int
    density: float
    alpha: int
    components: int
    critical: int
    critical_ratio: float | None
    below_chance: int
    above_chance: int
    total_neural_persistence: float


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
    networks : tuple of NetworkReport
        Dense layers that share their neurons, as one graph each.
    faults : dict of str to str
        Of the tensors left out for what they hold: ``"damaged"`` or ``"not-finite"``.
    """

    schema_version: ClassVar[int] = 2

    layers: tuple[LayerReport, ...]
    left_out: dict[str, str]
    source: Source | None = None
    forms: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    networks: tuple[NetworkReport, ...] = ()
    faults: dict[str, str] = field(default_factory=dict)

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
    def tensors_read(self) -> int:
        """Stored tensors that are read; each is one layer or several."""
        return len({layer.tensor for layer in self.layers})

    @property
    def fed_by(self) -> dict[str, tuple[str, ...]]:
        """For each layer the layers that feed the neurons it reads, in the model's order; itself where it adds to them.

        Of what was traced: see `LayerReport.neurons`.
        """
        fed = [(layer.name, {target for _, target in layer.neurons}) for layer in self.layers]
        read = [(layer.name, {source for source, _ in layer.neurons}) for layer in self.layers]
        return {reader: tuple(name for name, groups in fed if groups & sources) for reader, sources in read}

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """`fed_by` by its earlier name. Deprecated."""
        return self.fed_by

    @property
    def summary(self) -> Summary:
        """The model in a few numbers."""
        known = [layer for layer in self.layers if layer.alpha is not None]
        critical = sum(layer.critical or 0 for layer in known)
        deviations = [layer.overlap_z for layer in known if layer.overlap_z is not None]
        return Summary(
            layers=len(self.layers),
            unknown=len(self.layers) - len(known),
            weights=sum(layer.weights for layer in self.layers),
            nonzero=sum(layer.nonzero for layer in self.layers),
            density=self.density,
            alpha=sum(layer.alpha or 0 for layer in known),
            components=sum(layer.components or 0 for layer in known),
            critical=critical,
            critical_ratio=sum(layer.weights for layer in known) / critical if critical else None,
            below_chance=sum(z <= -_NOTABLE for z in deviations),
            above_chance=sum(z >= _NOTABLE for z in deviations),
            total_neural_persistence=self.total_neural_persistence,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain Python, ready for ``json.dumps``: what ``topobounds analyze --json`` prints."""
        layers = [_without_version(layer.to_dict()) for layer in self.layers]
        return {
            "schema_version": self.schema_version,
            "source": plain_record(self.source),
            "tensors": {"read": self.tensors_read, "left_out": len(self.left_out), "tied": len(self.tied)},
            "layers": layers,
            "networks": plain_record(self.networks),
            "left_out": [self._left_out_record(name, reason) for name, reason in self.left_out.items()],
            "tied": dict(self.tied),
            "fed_by": plain_record(self.fed_by),
            "summary": plain_record(self.summary),
            "findings": plain_record(self.findings),
        }

    def to_frame(self, backend: str | None = None) -> Any:
        """Return the layers as a data frame: a row each, under the keys of ``topobounds analyze --json``.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, optional
            What makes it; the first of these that is installed if left out.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            As `topobounds.analysis.table.layer_columns` says.

        Raises
        ------
        ValueError
            If there is no such backend.
        ImportError
            If it is not installed, or narwhals is not; it names the extra.
        """
        from topobounds.analysis.table import layer_columns  # stands on this file

        return frame(layer_columns(self.layers), backend)

    def _left_out_record(self, name: str, reason: str) -> dict[str, Any]:
        shape, dtype = self.forms.get(name, (None, None))
        form = {"name": name, "shape": plain_record(shape), "dtype": dtype}
        return {**form, "reason": reason, "fault": self.faults.get(name)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ModelReport":
        """Return the report that `to_dict` gave.

        Raises
        ------
        ValueError
            If it is no such record, or one of another version.
        """
        version = record.get("schema_version")
        if version != cls.schema_version:
            raise ValueError(f"It is no report of this version: its schema_version is {version}, not 2.")
        left_out = record["left_out"]
        source = record["source"]
        return cls(
            layers=tuple(map(LayerReport.from_dict, record["layers"])),
            left_out={each["name"]: each["reason"] for each in left_out},
            source=None if source is None else Source(**source | {"files": tuple(source["files"])}),
            forms={
                each["name"]: (tuple(each["shape"]), each["dtype"]) for each in left_out if each["shape"] is not None
            },
            tied=dict(record["tied"]),
            findings=tuple(Finding(**finding) for finding in record["findings"]),
            networks=tuple(map(NetworkReport.from_dict, record["networks"])),
            faults={each["name"]: each["fault"] for each in left_out if each["fault"]},
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a file: the JSON that ``topobounds analyze --json`` prints.

        Parameters
        ----------
        path : path
            The file, which appears whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written.
        ValueError
            If `path` is empty.
        """
        write_whole(Path(file_name("path", path)), json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ModelReport":
        """Read a report that `save` or ``topobounds analyze --json`` wrote.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        ModelReport
            With the same numbers; exact ratios are the simplest that round to those in the file.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is no such file; the message names it.
        """
        place = file_name("path", path)
        try:
            record = json.loads(read_regular(place, _LONGEST_FILE))
            if not isinstance(record, dict):
                raise TypeError
            return cls.from_dict(record)
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{place} is no saved report of a model: {_lacks(error)}.") from None
        except ValueError as error:
            raise ValueError(f"{place} is no saved report of a model. {error}") from None

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
    weights: ArrayLike | ScaledWeights,
    layer: SingleTensorLayer | None,
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
    weights : array_like or ScaledWeights
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
    given = weights if isinstance(weights, ScaledWeights) else as_array("weights", weights)
    array = cast(Array, given)  # a ScaledWeights has what is asked of an array
    if array.size == 0:
        raise argument_error("weights", "an array with at least one entry", array.shape)
    if layer is None:
        check_finite(array.reshape(len(array), -1), shape=array.shape)
    elif array.size != layer.n_weights:
        raise argument_error("weights", f"the {layer.n_weights} weights of {layer}", array.shape)
    implied = [compression(layer, convention) for convention in ("paper", "toeplitz")] if layer else []
    eta_tau, eta_tau_toeplitz = (c.ratio for c in implied) if implied else (None, None)
    if inputs_first is None:
        inputs_first = _inputs_first(array.shape, layer)
    topology = None if layer is None else graph_topology(layer, array, n_largest=_n_largest(layer) if chance else 0)
    moments = weight_moments(array)
    columns: dict[str, Any] = {"chance_reason": NO_GRAPH if layer is None else NOT_ASKED}
    if layer is not None and topology is not None and chance:
        columns = expected_columns(array, layer, topology, moments.nonzero, trials, seed)
    return LayerReport(
        name=name,
        tensor=name,
        kind=kind,
        shape=array.shape,
        dtype=array.dtype.name,
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
        looks_fixed=looks_fixed(name, array),
        **_measured(topology, inputs_first=inputs_first),
        **_dead(layer, topology, inputs_first=inputs_first),
        **columns,
    )


def _n_largest(layer: SingleTensorLayer) -> int:
    """Return how many of the largest weights what chance gives is read off, where these are not all of them."""
    if isinstance(layer, Conv) or layer.n_weights <= SORTED_CELLS:
        return 0
    return sufficient_rank(layer.n_inputs, layer.n_outputs)


def _inputs_first(shape: tuple[int, ...], layer: SingleTensorLayer | None) -> bool:
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
        # The two largest weights never close a circle, so the second is in the forest, too.
        "w_second": float(forest.weights[1]) if topology.n_critical > 1 else None,
        "silent_inputs": deficit.silent_inputs,
        "silent_outputs": deficit.silent_outputs,
        "fragments": deficit.fragments,
    }


def _dead(layer: SingleTensorLayer | None, topology: Topology | None, *, inputs_first: bool) -> dict[str, Any]:
    """Return how many inputs and outputs have no weight but zeros, and the components of a layer without zeros."""
    if layer is None or topology is None:
        return {}
    (forest,) = topology.forests
    if isinstance(layer, Conv):
        # A channel that has a weight has a critical one: the largest of it joins neurons that nothing joined before.
        kernel = topology.critical.reshape(layer.groups, -1, topology.critical.shape[1], math.prod(layer.kernel_size))
        dead_first, dead_second = (int(np.count_nonzero(~kernel.any(axis=axes))) for axes in ((2, 3), (1, 3)))
        inputs_first = layer.transposed
    else:
        deficit = forest.deficit(layer.n_weights)
        dead_first, dead_second = deficit.silent_inputs, deficit.silent_outputs
    inputs, outputs = (dead_first, dead_second) if inputs_first else (dead_second, dead_first)
    return {"dead_inputs": inputs, "dead_outputs": outputs, "components_unpruned": layer.n_components}


def _without_version(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "schema_version"}


def _tuples(value: Any) -> Any:
    """Return lists, within one another, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _fraction(value: float | None) -> Fraction | None:
    """Return the ratio that was rounded to a number: the simplest that does, or the number itself."""
    if value is None:
        return None
    simple = Fraction(value).limit_denominator(_SIMPLE_DENOMINATORS)
    return simple if float(simple) == value else Fraction(value)


def _lacks(error: Exception) -> str:
    """Return what is wrong with a file of JSON, in a few words."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return "it is no JSON" if isinstance(error, ValueError | RecursionError) else "it has other keys"


def _number(ratio: Fraction | None) -> float | None:
    return None if ratio is None else float(ratio)
