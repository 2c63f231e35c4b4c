"""What pruning did to the weight tensors of a model or a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from topobounds._records import Record, html_table

NOT_FINITE = " are not finite: "
"""What the reason has in it where a tensor was left out for NaN or infinity."""
NOT_ALIKE = " is pruned, to which config.json ties it: they are no longer the same, if they were"
"""What it ends with where a tensor was left out, and the stored one that is said to be the same was not."""


@dataclass(frozen=True)
class PrunedLayer(Record):
    """What pruning did to one weight tensor.

    Attributes
    ----------
    name : str
        The tensor: ``"features.0.weight"``.
    kind : {"dense", "recurrent", "conv", "embedding"}
        What its graphs are.
    convention : {"flattened", "shared"} or None
        For a convolution, what graph it was taken for.
    shape : tuple of int
        Of the tensor.
    weights, survivors : int
        Stored weights; those left by earlier rounds.
    asked : int or None
        The weights that were to be left of it; None where the number is that of several tensors together.
    kept : int
        Those left now: `asked`, or more where fewer would not have carried the topology.
    alpha : int
        Weights that carry the topology and so had to stay: edges of the spanning forests of its graphs, or critical
        kernel weights. Where layers share the weights, those that carry the topology of any of them had to.
    neural_persistence_before, neural_persistence_after : float
        Sum of the normalised neural persistence (convention ``balwani``, p = 2) over its graphs.
    preserved : bool
        Whether the persistence diagrams after pruning are, bit for bit, those before; measured, not presumed. With
        scores, these diagrams and all of `alpha`, persistence, swaps and squared weights are those of the scores.
    reason : str or None
        What else there is to say: the weights are another layer's too; how its graph was guessed.
    swaps : int or None
        Weights that T-IMP keeps here and magnitude pruning to the same count would not; None for other methods.
    swaps_expected, swaps_deviation : float or None
        Mean and standard deviation of `swaps` if the same weights lay in random order, ties too: the middle of a
        certified interval, and what is proved or a limit. None for other methods and where they are not known: for
        kernels, for layers with zeros, and the deviation where hardly anything is swapped. Both are None where the rule
        that ranks weights that tie at the cut, by their place, moves `swaps` by more than a deviation: `reason` tells
        what is swapped with these in random order.
    swaps_status, swaps_deviation_status : str or None
        What these two rest on: ``"certified"``; ``"proved"`` or ``"limit"``.
    squared_weight_lost : float or None
        Sum of the squared weights that magnitude pruning would keep, less that of those kept; None for other methods.
    """

    name: str
    kind: str
    convention: str | None
    shape: tuple[int, ...]
    weights: int
    survivors: int
    asked: int | None
    kept: int
    alpha: int
    neural_persistence_before: float
    neural_persistence_after: float
    preserved: bool
    reason: str | None = None
    swaps: int | None = None
    squared_weight_lost: float | None = None
    swaps_expected: float | None = None
    swaps_deviation: float | None = None
    swaps_status: str | None = None
    swaps_deviation_status: str | None = None

    @property
    def density(self) -> float:
        """Share of the weights that is left."""
        return self.kept / self.weights


@dataclass(frozen=True)
class PruningReport(Record):
    """What pruning did to a model or a file, layer by layer.

    Attributes
    ----------
    layers : tuple of PrunedLayer
        In the order of the model's modules, or of the file.
    left_out : dict of str to str
        Weight tensors that were not pruned, and why.
    source, target : str or None
        The file or folder that was pruned, and what was written; None for a model, or where nothing was written.
    masks : str or None
        The file of the masks; None where there is none.
    method, scope, allocate : str or None
        How a file was pruned.
    seed : int or None
        Of a random method.
    bytes, bytes_before : int or None
        Of the weight files of the target, and of the source.
    forms : dict of str to (tuple of int, str)
        Shape and dtype of what was left out of a file.
    budgets : dict of str to (dict of str to int)
        For each allocation, the weights that it would leave of each layer; empty unless nothing was written.
    scores : str or None
        The file of the scores that were taken for the weights, or ``"arrays"``; None without scores.
    """

    layers: tuple[PrunedLayer, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    source: str | None = None
    target: str | None = None
    masks: str | None = None
    method: str | None = None
    scope: str | None = None
    allocate: str | None = None
    seed: int | None = None
    bytes: int | None = None
    bytes_before: int | None = None
    forms: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    budgets: dict[str, dict[str, int]] = field(default_factory=dict)
    scores: str | None = None

    @property
    def left_alone(self) -> dict[str, str]:
        """`left_out` by its earlier name. Deprecated."""
        return self.left_out

    @property
    def not_finite(self) -> dict[str, str]:
        """What of `left_out` is left out as it, or its scores, hold NaN or infinity."""
        return {name: reason for name, reason in self.left_out.items() if NOT_FINITE in reason}

    @property
    def not_alike(self) -> dict[str, str]:
        """What of `left_out` config.json ties to a tensor that is stored too, and is pruned."""
        return {name: reason for name, reason in self.left_out.items() if reason.endswith(NOT_ALIKE)}

    @property
    def preserved(self) -> bool:
        """Whether every layer kept its persistence diagrams."""
        return all(layer.preserved for layer in self.layers)

    @property
    def density(self) -> float:
        """Share of the weights of these layers that is left."""
        return sum(layer.kept for layer in self.layers) / sum(layer.weights for layer in self.layers)

    @property
    def summary(self) -> dict[str, Any]:
        """Weights of the layers, how many of them are kept, the density, whether all is preserved, bytes."""
        weights, kept = (sum(getattr(layer, name) for layer in self.layers) for name in ("weights", "kept"))
        return {
            "weights": weights,
            "kept": kept,
            "density": self.density,
            "preserved": self.preserved,
            "bytes": self.bytes_before if self.bytes is None else self.bytes,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python, with `density` and `preserved`, and `left_out` as ``left_alone`` too."""
        record = super().to_dict()
        return {**record, "left_alone": record["left_out"], "density": self.density, "preserved": self.preserved}

    def _repr_html_(self) -> str:
        columns: dict[str, Sequence[object]] = {
            "layer": [layer.name for layer in self.layers],
            "kind": [layer.convention or layer.kind for layer in self.layers],
            "shape": [layer.shape for layer in self.layers],
            "weights": [layer.weights for layer in self.layers],
            "kept": [layer.kept for layer in self.layers],
            "density": [layer.density for layer in self.layers],
            "alpha": [layer.alpha for layer in self.layers],
            "neural persistence": [layer.neural_persistence_after for layer in self.layers],
            "preserved": [layer.preserved for layer in self.layers],
        }
        return html_table(columns)
