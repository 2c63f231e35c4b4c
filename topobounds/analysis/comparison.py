"""Two checkpoints of one model, layer by layer: what of one's topology is alive in the other."""

import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import checked_seed, checked_trials
from topobounds._records import Record, html_table
from topobounds._text import counted
from topobounds.analysis.reports import LayerReport, layer_report
from topobounds.checkpoint import Checkpoint, CheckpointError
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.checkpoint.opening import opened
from topobounds.checkpoint.per_tensor_arrays import MASK_SUFFIX
from topobounds.layers import LayerTensor, SingleTensorLayer
from topobounds.topology.distances import bottleneck_distance, wasserstein_distance
from topobounds.topology.layer_topology import Topology, graph_topology
from topobounds.weights import mask_matrix, what_is_not_finite

Source = str | os.PathLike[str] | Checkpoint | Mapping[str, ArrayLike]
Progress = Callable[[int, int, str], None]
_NO_GRAPH = "The layer has no known graph."
EQUAL = "Both hold the same weights."
_MOST_NAMED = 5


@dataclass(frozen=True)
class LayerComparison(Record):
    """One layer in two checkpoints.

    Attributes
    ----------
    name, kind : str
        As in `LayerReport`.
    shape : tuple of int
        Of its weights.
    forest_in_common : float or None
        Share of the weights that carry a's topology (edges of its spanning forest, critical weights of a kernel) that
        carry b's too; 1.0 where there are none, all weights of a being zero.
    forest_in_common_expected : float or None
        Its mean if b's weights came in random order on all cells, whatever a's are: alpha of b / weights, proved, since
        then every cell is as likely to be an edge. None for kernels, and where b has zeros.
    forest_kept : float or None
        Share of the weights that carry a's topology that are not zero in b; 1.0 where there are none. None where the
        layer is not compared.
    density_a, density_b : float or None
        Shares of the weights that are not zero: `density_b` is the mean of `forest_kept` if b's zeros were at random.
    silent_inputs, silent_outputs, fragments : int or None
        Of the part of a's forest that is alive in b: neurons without an edge, and components that have one. On a layer
        pruned by magnitude the deficit of docs/theory/deficit.md.
    overlap_a, overlap_b, overlap_expected : float or None
        As in `LayerReport`; what chance gives is that of b.
    neural_persistence_a, neural_persistence_b : float or None
    neural_persistence_expected_a, neural_persistence_expected_b : float or None
        As in `LayerReport`.
    bottleneck, wasserstein : float or None
        Distances of the persistence diagrams, of order 2 the latter. Each diagram is over its own largest weight. None
        where they are infinite, the two having different numbers of components that never merge.
    reason : str or None
        Why a number is None, or what is to be known about it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    density_a: float | None = None
    density_b: float | None = None
    forest_in_common: float | None = None
    forest_in_common_expected: float | None = None
    forest_kept: float | None = None
    silent_inputs: int | None = None
    silent_outputs: int | None = None
    fragments: int | None = None
    overlap_a: float | None = None
    overlap_b: float | None = None
    overlap_expected: float | None = None
    neural_persistence_a: float | None = None
    neural_persistence_b: float | None = None
    neural_persistence_expected_a: float | None = None
    neural_persistence_expected_b: float | None = None
    bottleneck: float | None = None
    wasserstein: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ComparisonSummary(Record):
    """Two checkpoints in a few numbers.

    Attributes
    ----------
    layers : int
        That both have.
    compared : int
        Those whose weights are finite in both and of a known graph: what the rest is about.
    identical : int
        Layers whose weights are the same in both.
    topology_kept : int
        Layers of which all that carries a's topology is alive in b.
    diagrams_equal : int
        Layers at distance 0.
    least_kept : str or None
        The layer of which the least is alive; None where all of each is.
    text : str
        In words.
    """

    layers: int
    compared: int
    identical: int
    topology_kept: int
    diagrams_equal: int
    least_kept: str | None
    text: str


@dataclass(frozen=True)
class Comparison(Record):
    """Two checkpoints, layer by layer.

    Attributes
    ----------
    a, b : str
        What was compared.
    layers : tuple of LayerComparison
        What both hold, in a's order.
    only_in_a, only_in_b : dict of str to str
        Layers without a counterpart, and why: another shape, or no such name.
    seed : int
        Of what was sampled.
    """

    a: str
    b: str
    layers: tuple[LayerComparison, ...]
    only_in_a: dict[str, str]
    only_in_b: dict[str, str]
    seed: int

    @property
    def summary(self) -> ComparisonSummary:
        """Both in a few numbers."""
        kept = [(layer.forest_kept, layer.name) for layer in self.layers if layer.forest_kept is not None]
        lessened = [(share, name) for share, name in kept if share < 1]
        identical = sum(layer.reason == EQUAL for layer in self.layers)
        return ComparisonSummary(
            layers=len(self.layers),
            compared=len(kept),
            identical=identical,
            topology_kept=len(kept) - len(lessened),
            diagrams_equal=sum(layer.bottleneck == 0 for layer in self.layers),
            least_kept=min(lessened)[1] if lessened else None,
            text=_in_words(self, identical),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain Python: what ``topobounds compare --json`` prints."""
        record = super().to_dict()
        record["layers"] = [{k: v for k, v in each.items() if k != "schema_version"} for each in record["layers"]]
        return {**record, "summary": {k: v for k, v in self.summary.to_dict().items() if k != "schema_version"}}

    def _repr_html_(self) -> str:
        return html_table({name: [getattr(layer, name) for layer in self.layers] for name in _COLUMNS})


_COLUMNS = (
    "name",
    "shape",
    "density_a",
    "density_b",
    "forest_kept",
    "forest_in_common",
    "overlap_a",
    "overlap_b",
    "overlap_expected",
    "neural_persistence_a",
    "neural_persistence_b",
    "bottleneck",
    "wasserstein",
)
"""The columns of a comparison as a table."""


def compare(
    a: Source,
    b: Source,
    *,
    geometry: Any = None,
    input_size: tuple[int, ...] | None = None,
    trials: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two checkpoints of one model layer by layer: how much of a's topology is alive in b.

    Parameters
    ----------
    a, b : path, Checkpoint, or mapping of str to array_like
        As in `topobounds.analyze`; a level of a run is a folder too. Layers are the same if name and shape are.
    geometry, input_size
        As in `topobounds.analyze`, for both.
    trials, seed
        As in `topobounds.layer_report`.
    progress : callable, optional
        Called as ``progress(done, total, name)``, in weights.

    Returns
    -------
    Comparison
        Its `summary` says in words if nothing is in common, or everything.

    Raises
    ------
    CheckpointError
        If one of the two cannot be opened, or nothing in it can be read as a layer.
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> W = np.random.default_rng(0).standard_normal((30, 20))
    >>> pruned = np.where(np.abs(W) > 1, W, 0.0)
    >>> found = compare({"fc.weight": W}, {"fc.weight": pruned}, seed=0).layers[0]
    >>> round(found.density_b, 3), round(found.forest_kept, 3), found.silent_inputs, found.silent_outputs
    (0.335, 1.0, 0, 0)
    """
    drawn = checked_seed(seed)
    task = {"trials": checked_trials(trials), "seed": drawn}
    with ExitStack() as held:
        first, second = (opened(source, held) for source in (a, b))
        of_a, of_b = (
            {layer.name: layer for layer in read_layer_tensors(each, geometry=geometry, input_size=input_size).layers}
            for each in (first, second)
        )
        for checkpoint, layers, other, others in ((first, of_a, second, of_b), (second, of_b, first, of_a)):
            if not layers:
                hint = _hint_of_masks(other, checkpoint) if _holds_masks(checkpoint, others) else ""
                raise CheckpointError(f"None of the tensors of {_name(checkpoint)} is read as a layer.{hint}")
        if _is_named_by_its_file(first) and _is_named_by_its_file(second):
            of_b = dict(zip(of_a, of_b.values(), strict=True))
        only_in_a, only_in_b = _unmatched(of_a, of_b), _unmatched(of_b, of_a)
        common = [layer for name, layer in of_a.items() if name not in only_in_a]
        total = sum(layer.n_weights for layer in common)
        done = 0
        compared: list[LayerComparison] = []
        for layer in common:
            if progress is not None:
                progress(done, total, layer.name)
            compared += _compared(layer, first, second, of_b[layer.name].name, task)
            done += layer.n_weights
        return Comparison(_name(first), _name(second), tuple(compared), only_in_a, only_in_b, drawn)


def _name(checkpoint: Checkpoint) -> str:
    return "arrays" if isinstance(checkpoint, ArraysCheckpoint) else str(checkpoint.path)


def _holds_masks(checkpoint: Checkpoint, layers: Mapping[str, LayerTensor]) -> bool:
    """Whether it holds a mask, of true and false or of 1 and 0, under the name of a layer of another checkpoint."""
    names = ((name, each.shape) for each in layers.values() for name in (each.name, each.name + MASK_SUFFIX))
    name, shape = next(((name, shape) for name, shape in names if name in checkpoint.names), (None, ()))
    try:
        return name is not None and mask_matrix(checkpoint.tensor(name), shape).shape == shape
    except (ValueError, CheckpointError):
        return False


def _hint_of_masks(weights: Checkpoint, masks: Checkpoint) -> str:
    """Return where masks belong."""
    if isinstance(weights, ArraysCheckpoint) or isinstance(masks, ArraysCheckpoint):
        return " It holds masks, which belong beside weights: topobounds.analyze(weights, mask=masks)."
    command = f"topobounds analyze {shlex.quote(_name(weights))} --mask {shlex.quote(_name(masks))}"
    return f" It holds masks, which belong beside weights: {command}"


def _is_named_by_its_file(checkpoint: Checkpoint) -> bool:
    """Whether all it holds is one array without a name, as an .npy file does, which is called as the file is."""
    return not isinstance(checkpoint, ArraysCheckpoint) and list(checkpoint.names) == [checkpoint.path.stem]


def _unmatched(own: Mapping[str, LayerTensor], others: Mapping[str, LayerTensor]) -> dict[str, str]:
    """Return the layers that the other checkpoint does not have in this shape, and why."""
    found = {}
    for name, layer in own.items():
        other = others.get(name)
        if other is None:
            found[name] = "The other has no layer of this name."
        elif other.shape != layer.shape or other.parts != layer.parts:
            found[name] = f"There it has the shape {other.shape}, here {layer.shape}."
    return found


def _compared(
    layer: LayerTensor, first: Checkpoint, second: Checkpoint, name_in_b: str, task: Mapping[str, int | None]
) -> Iterator[LayerComparison]:
    try:
        weights = [first.tensor(layer.name), second.tensor(name_in_b)]
        reason = _not_finite(weights, layer.shape)
    except CheckpointError as error:
        reason = str(error)
    if reason is not None:
        for name in layer.part_names:
            yield LayerComparison(name, layer.kind, layer.shape, reason=reason)
        return
    parts = zip(layer.part_names, layer.graphs, *map(layer.split, weights), strict=True)
    for name, graph, one, other in parts:
        yield _compared_part(name, layer, graph, one, other, task)


def _not_finite(weights: list[NDArray[Any]], shape: tuple[int, ...]) -> str | None:
    """Return in words which side of a layer has NaN or infinity; None if none has."""
    for side, array in zip("ab", weights, strict=True):
        found = what_is_not_finite(np.asarray(array).reshape(len(array), -1), shape=shape)
        if found is not None:
            return f"Not finite in {side}: {found}."
    return None


def _compared_part(
    name: str,
    layer: LayerTensor,
    graph: SingleTensorLayer | None,
    one: NDArray[Any],
    other: NDArray[Any],
    task: Mapping[str, int | None],
) -> LayerComparison:
    sides = {"a": one, "b": other}
    known: dict[str, Any] = {"reason": _NO_GRAPH}
    if graph is not None:
        same = one.dtype == other.dtype and np.array_equal(one, other)
        options: dict[str, Any] = {"kind": layer.kind, "inputs_first": layer.inputs_first, **task}
        reports = [layer_report(name, each, graph, **options) for each in ((one,) if same else (one, other))]
        topologies = [graph_topology(graph, each) for each in ((one,) if same else (one, other))]
        known = _numbers(graph, topologies[0], topologies[-1], one, other, inputs_first=layer.inputs_first)
        known |= _both("overlap", reports) | _both("neural_persistence", reports)
        known["overlap_expected"] = reports[-1].overlap_expected
        known |= {
            f"neural_persistence_expected_{side}": report.neural_persistence_expected
            for side, report in (("a", reports[0]), ("b", reports[-1]))
        }
        known["reason"] = EQUAL if same else _reason(topologies[0], topologies[-1])
    densities: dict[str, Any] = {
        f"density_{side}": float(np.count_nonzero(each) / each.size) for side, each in sides.items()
    }
    return LayerComparison(name, layer.kind, one.shape, **densities, **known)


def _both(column: str, reports: list[LayerReport]) -> dict[str, Any]:
    return {f"{column}_a": getattr(reports[0], column), f"{column}_b": getattr(reports[-1], column)}


def _reason(a: Topology, b: Topology) -> str | None:
    (one,), (other,) = a.diagrams, b.diagrams
    if not a.n_critical:
        return "All weights of a are zero, so it has no topology that could be lost."
    if one.n_essential != other.n_essential:
        return (
            f"Components that never merge: {one.n_essential} of a, {other.n_essential} of b, so the distances of the "
            "diagrams are infinite."
        )
    return None


def _numbers(
    graph: SingleTensorLayer,
    a: Topology,
    b: Topology,
    weights_of_a: NDArray[Any],
    weights_of_b: NDArray[Any],
    *,
    inputs_first: bool,
) -> dict[str, Any]:
    (diagram_a,), (diagram_b,) = a.diagrams, b.diagrams
    (forest,) = a.forests
    alive = a.critical & (weights_of_b != 0)
    full = bool(np.all(weights_of_b != 0))
    is_matrix = hasattr(forest, "rows")
    numbers: dict[str, Any] = {
        "forest_in_common": a.share_in(b.critical),
        "forest_in_common_expected": b.alpha / weights_of_b.size if full and is_matrix else None,
        "forest_kept": a.share_in(alive),
        "bottleneck": _finite(bottleneck_distance(diagram_a, diagram_b)),
        "wasserstein": _finite(wasserstein_distance(diagram_a, diagram_b, 2)),
    }
    # What carries a's topology and is alive in b: its components are those of a's graph without the rest.
    rest = graph_topology(graph, np.where(alive, weights_of_a, weights_of_a.dtype.type(0)))
    deficit = rest.deficit(inputs_first=inputs_first)
    numbers |= {name: getattr(deficit, name) for name in ("silent_inputs", "silent_outputs", "fragments")}
    return numbers


def _finite(distance: float) -> float | None:
    return distance if math.isfinite(distance) else None


def _in_words(found: Comparison, identical: int) -> str:
    if not found.layers:
        return "The two have no layer in common: no name stands for weights of the same shape in both."
    if identical == len(found.layers) and not found.only_in_a and not found.only_in_b:
        return "The two hold the same weights."
    shares = {layer.name: layer.forest_kept for layer in found.layers}
    without = [name for name, share in shares.items() if share is None]
    compared = len(shares) - len(without)
    if not compared:
        return f"None of the layers that both have is compared: {_listed(without)}."
    whole = sum(share == 1 for share in shares.values())
    rest = f"; not compared: {_listed(without)}" if without else ""
    return f"Of {counted(compared, 'layer')}, b keeps all that carries a's topology in {whole}{rest}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
