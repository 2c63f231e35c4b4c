"""What the shapes of a checkpoint imply, before a weight is read."""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

from numpy.typing import ArrayLike

from topobounds._arguments import as_written, density_fraction
from topobounds._records import Record, html_table
from topobounds.checkpoint import Checkpoint, CheckpointError
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.checkpoint.opening import opened
from topobounds.layers import Conv, LayerTensor
from topobounds.theory.compression import compression
from topobounds.theory.critical_rank import critical_rank_law
from topobounds.theory.critical_weights import critical_weights_bound
from topobounds.theory.global_pruning import kept_by_fan_in
from topobounds.theory.overlap import expected_overlap

_NO_GRAPH = "The layer has no known graph."
_OF_KERNELS = "What chance gives is not known for kernels without sampling; must_keep is a lower bound."
_TOO_FEW = "At this density fewer weights are kept than carry the topology."
_NO_DENSITY = "No density was given."


@dataclass(frozen=True)
class LayerPreview(Record):
    """What the shape of one layer implies.

    Attributes
    ----------
    name, kind, read_as, assumed, dtype : str or None
        As in `LayerReport`.
    shape : tuple of int
        Of the part of the stored tensor.
    weights : int
        Stored weights.
    alpha : int or None
        Edges of the spanning forest, if no weight is zero.
    must_keep : int or None
        The fewest weights that carry the topology: alpha, or of a kernel a proved lower bound.
    eta_tau : float or None
        Critical compression ratio, as the paper counts it.
    keep : int or None
        Weights left at the density.
    overlap_expected : float or None
        Share of the forest that the `keep` largest weights hold by chance (alpha of them where there is no density):
        the middle of a certified interval.
    safe_density_expected : float or None
        As in `LayerReport`.
    swaps_expected : float or None
        Forest edges that magnitude pruning to `keep` weights is expected to lose, each of which T-IMP swaps for another
        weight.
    kept_if_global : float or None
        Weights left at the density of all layers together if the net were untrained, by torch's default law.
    reason : str or None
        Why something is None.
    """

    name: str
    kind: str
    read_as: str
    assumed: str | None
    shape: tuple[int, ...]
    dtype: str
    weights: int
    alpha: int | None = None
    must_keep: int | None = None
    eta_tau: float | None = None
    keep: int | None = None
    overlap_expected: float | None = None
    safe_density_expected: float | None = None
    swaps_expected: float | None = None
    kept_if_global: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class PreviewSummary(Record):
    """The layers in a few numbers: sums.

    Attributes
    ----------
    layers, weights, must_keep : int
        Layer graphs, stored weights, and the fewest that carry the topology.
    keep : int or None
        Weights left at the density.
    impossible : int
        Layers that cannot be cut to the density with their topology intact.
    below_if_global : int
        Layers that untrained global pruning would leave with fewer weights than carry their topology.
    bytes : int
        Of the stored tensors.
    """

    layers: int
    weights: int
    must_keep: int
    keep: int | None
    impossible: int
    below_if_global: int
    bytes: int


@dataclass(frozen=True)
class Preview(Record):
    """What the shapes of a checkpoint imply.

    Attributes
    ----------
    source : dict
        ``path``, ``format``, ``files`` and ``bytes``.
    density : float or None
        To which the layers would be pruned.
    layers : tuple of LayerPreview
        In the order in which they are stored.
    left_out : dict of str to str
        What is no layer, and why.
    tied : dict of str to str
        Names that stand for the tensor of another name.
    summary : PreviewSummary
        Sums over the layers.
    """

    source: dict[str, Any]
    density: float | None
    layers: tuple[LayerPreview, ...]
    left_out: dict[str, str]
    tied: dict[str, str]
    summary: PreviewSummary

    def to_dict(self) -> dict[str, Any]:
        """Return the preview as plain Python: what ``topobounds preview --json`` prints."""
        record = super().to_dict()
        return {**record, "left_out": [{"name": name, "reason": why} for name, why in self.left_out.items()]}

    def _repr_html_(self) -> str:
        names = ("name", "read_as", "weights", "must_keep", "eta_tau", "keep", "overlap_expected", "swaps_expected")
        return html_table({name: [getattr(layer, name) for layer in self.layers] for name in names})


def preview(
    source: str | os.PathLike[str] | Checkpoint | Mapping[str, ArrayLike],
    density: float | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    geometry: Any = None,
    input_size: Sequence[int] | None = None,
) -> Preview:
    """Return what the shapes in a checkpoint imply, from its headers alone: no weight is read, or transferred.

    Parameters
    ----------
    source : path, Checkpoint, or mapping of str to array_like
        As in `topobounds.analyze`; of a URL only the headers are asked for.
    density : float, optional
        In (0, 1]: share of each layer's weights that pruning would keep.
    include, exclude, geometry, input_size
        As in `topobounds.analyze`.

    Returns
    -------
    Preview
        For untrained or unknown weights, in random order: a trained net's are not, so measure them.

    Raises
    ------
    CheckpointError
        If the file cannot be opened, or has no layer.
    ValueError
        If an argument is out of range, or names what is not there.

    Examples
    --------
    >>> import numpy as np
    >>> found = preview({"fc.weight": np.empty((300, 784), np.float16)}, 0.02).layers[0]
    >>> found.alpha, found.keep, round(found.overlap_expected, 3), round(found.swaps_expected, 1)
    (1083, 4704, 0.998, 1.8)
    """
    if density is not None:
        density_fraction("density", density)
    with ExitStack() as held:
        checkpoint = opened(source, held)
        options: dict[str, Any] = {"geometry": geometry, "input_size": input_size}
        reading = read_layer_tensors(checkpoint, include=include, exclude=exclude, **options)
        if not reading.layers:
            count = len(reading.left_out)
            which, read = ("The only tensor", "is not") if count == 1 else (f"None of the {count} tensors", "is")
            raise CheckpointError(f"{which} of {checkpoint.path} {read} read as a layer.")
        layers = [part for tensor in reading.layers for part in _previews(tensor, density)]
        n_bytes = sum(tensor.n_weights * checkpoint.dtype(tensor.name).itemsize for tensor in reading.layers)
        is_in_memory = isinstance(checkpoint, ArraysCheckpoint)
        about = {
            "path": "" if is_in_memory else str(checkpoint.path),
            "format": checkpoint.format,
            "files": [file.name for file in checkpoint.files],
            "bytes": n_bytes,
        }
    if density is not None:
        fan_ins = [fan for tensor in reading.layers for fan in _fan_ins(tensor)]
        kept = kept_by_fan_in([layer.weights for layer in layers], fan_ins, float(density))
        layers = [replace(layer, kept_if_global=number) for layer, number in zip(layers, kept, strict=True)]
    summary = PreviewSummary(
        layers=len(layers),
        weights=sum(layer.weights for layer in layers),
        must_keep=sum(layer.must_keep or 0 for layer in layers),
        keep=None if density is None else sum(layer.keep or 0 for layer in layers),
        impossible=sum(layer.keep is not None and layer.keep < (layer.must_keep or 0) for layer in layers),
        below_if_global=sum(
            each.kept_if_global is not None and each.kept_if_global < (each.must_keep or 0) for each in layers
        ),
        bytes=n_bytes,
    )
    return Preview(about, density, tuple(layers), reading.left_out, reading.tied, summary)


def _previews(tensor: LayerTensor, density: float | None) -> list[LayerPreview]:
    shapes = tensor.layout.part_shapes(tensor.shape, len(tensor.parts))
    found = []
    for name, words, graph, shape in zip(tensor.part_names, tensor.read_as, tensor.graphs, shapes, strict=True):
        weights = math.prod(shape)
        keep = None if density is None else round(as_written(density) * weights)
        about = LayerPreview(name, tensor.kind, words, tensor.assumed, tuple(shape), tensor.dtype, weights, keep=keep)
        implied = {"reason": _NO_GRAPH} if graph is None else _implied(cast(Any, graph), keep)
        found.append(replace(about, **implied))
    return found


@cache
def _implied(graph: Any, keep: int | None) -> dict[str, Any]:
    """Return what a graph implies; once for each shape, since a model has few."""
    ratio = compression(graph).ratio
    alpha = graph.n_vertices - graph.n_components
    known: dict[str, Any] = {"alpha": alpha, "eta_tau": None if ratio is None else float(ratio)}
    if isinstance(graph, Conv):
        return {**known, "must_keep": critical_weights_bound(graph), "reason": _OF_KERNELS}
    m, n = graph.n_inputs, graph.n_outputs
    k = alpha if keep is None else keep
    overlap = expected_overlap(m, n, k)
    middle = (overlap.lower + overlap.upper) / 2
    median = critical_rank_law(m, n).median
    too_few = keep is not None and keep < alpha
    return {
        **known,
        "must_keep": alpha,
        "overlap_expected": middle,
        "safe_density_expected": (median.lower + median.upper) / 2 / (m * n),
        "swaps_expected": None if keep is None or too_few else alpha * (1 - middle),
        "reason": _NO_DENSITY if keep is None else _TOO_FEW if too_few else None,
    }


def _fan_ins(tensor: LayerTensor) -> list[int]:
    """Return of each part the weights that a neuron, or an output cell, reads."""
    shapes = tensor.layout.part_shapes(tensor.shape, len(tensor.parts))
    fans = []
    for shape, graph in zip(shapes, tensor.graphs, strict=True):
        if graph is None or isinstance(graph, Conv):
            fans.append(max(1, math.prod(shape[1:])))
        else:
            fans.append(graph.n_inputs)
    return fans
