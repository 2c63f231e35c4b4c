"""What the weights of the layers of a model say, beside what their shapes imply."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error
from topobounds._records import Record, html_table
from topobounds.layers import TensorLayer
from topobounds.theory.compression import compression


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
    layer: TensorLayer | None,
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
    >>> from topobounds.layers import Dense
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
    implied = [compression(layer, convention) for convention in ("paper", "toeplitz")] if layer else []
    eta_tau, eta_tau_toeplitz = (c.ratio for c in implied) if implied else (None, None)
    return LayerReport(
        name=name,
        kind=kind,
        shape=array.shape,
        m=None if layer is None else layer.n_inputs,
        n=None if layer is None else layer.n_outputs,
        weights=array.size,
        nonzero=int(np.count_nonzero(array)),
        eta_tau=eta_tau,
        eta_tau_toeplitz=eta_tau_toeplitz,
        calls=calls,
        reason=" ".join(r for r in (reason, *(c.reason for c in implied)) if r) or None,
        neurons=neurons,
        **_measured(array, layer),
    )


def _measured(weights: NDArray[Any], layer: TensorLayer | None) -> dict[str, Any]:
    """Return what the weights say; None for each where the layer has no known graph."""
    if layer is None:
        return dict.fromkeys(("alpha", "components", "critical", "critical_rank", "overlap", "neural_persistence"))
    from topobounds.topology.tensors import graph_topology

    topology = graph_topology(layer, weights)
    return {
        "alpha": topology.alpha,
        "components": topology.n_components,
        "critical": topology.n_critical,
        "critical_rank": topology.forests[0].critical_rank,
        "overlap": topology.overlap,
        "neural_persistence": topology.neural_persistence,
    }


def _number(ratio: Fraction | None) -> float | None:
    return None if ratio is None else float(ratio)
