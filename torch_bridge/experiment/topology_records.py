"""The layers of a net as graphs: pruning them, and what pruning and training did to their topology. No torch here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from topobounds._arguments import argument_errors_naming
from topobounds._text import counted
from topobounds._types import Array, Mask
from topobounds.chance.measured_layer import MeasuredKernel, MeasuredLayer
from topobounds.chance.overlap import OverlapNull, kernel_overlap_null, layer_overlap_null
from topobounds.chance.sampling import Sampling
from topobounds.layers import Conv, LayerTensor
from topobounds.pruning import MaskRequest, Prunable, exchange, kept_masks, pruning_method, redrawn_mask
from topobounds.topology.layer_topology import Topology, layer_topology
from topobounds.topology.spanning import SpanningForest
from topobounds.weights import check_finite, weight_array
from torch_bridge.experiment.plan import Pruning

if TYPE_CHECKING:
    from topobounds.topology.convolution import CriticalWeights

    Forest = SpanningForest | CriticalWeights

_PERSISTENCES = ("neural_persistence", "neural_persistence_before_pruning", "neural_persistence_after_pruning")
TRIALS = 20  # random orders of a layer: a level of an experiment is to take little longer for them


def layer_topologies(
    layers: list[LayerTensor], weights: Mapping[str, Array], masks: Mapping[str, Mask]
) -> dict[str, Topology]:
    """Return the topology of every layer by name.

    Parameters
    ----------
    layers : list of LayerTensor
        The prunable layers.
    weights, masks : mapping of str to ndarray
        The weights and their masks, by layer name.

    Raises
    ------
    ValueError
        Naming the layer and its part, if a surviving weight is NaN or infinite.
    """
    found = {}
    for layer in layers:
        _check_finite(layer, weights[layer.name], masks[layer.name])
        found[layer.name] = layer_topology(layer, weights[layer.name], masks[layer.name])
    return found


def _check_finite(layer: LayerTensor, weights: Array, mask: Mask) -> None:
    """Refuse surviving weights that are NaN or infinite, naming the part of the layer that they are in."""
    for name, part, alive in zip(layer.part_names, *map(layer.split, (weights, mask)), strict=True):
        with argument_errors_naming(name):
            check_finite(part.reshape(len(part), -1), alive.reshape(len(part), -1), part.shape)


def pruning_record(old: Mask, new: Mask, before: Topology, after: Topology) -> dict[str, Any]:
    """Return what a pruning did to a layer.

    Parameters
    ----------
    old, new : ndarray of bool
        The masks before and after it.
    before, after : Topology
        The topologies of the same weights under these masks.
    """
    return {
        "pruned": int(old.sum()) - int(new.sum()),
        "neural_persistence_before_pruning": before.neural_persistence,
        "neural_persistence_after_pruning": after.neural_persistence,
        "diagram_preserved": before.is_kept_by(after),
        "forest_survived": before.share_in(new),
    }


def price_record(
    layer: LayerTensor, weights: Array, old: Mask, before: Topology, kept: int
) -> dict[str, int | float | None]:
    """Return what T-IMP exchanges, or would have exchanged, against magnitude pruning of a layer to the same count.

    Parameters
    ----------
    layer : LayerTensor
        What was pruned.
    weights : ndarray
        Its weights.
    old : ndarray of bool
        The mask before the pruning.
    before : Topology
        Of the weights under this mask.
    kept : int
        Weights that the pruning left.

    Returns
    -------
    dict
        ``swaps`` and ``squared_weight_lost``, as in `topobounds.TopologyPrice`; None where fewer weights are left than
        carry the topology, for then T-IMP has no mask.
    """
    price = exchange(Prunable(weight_array(weights), old, before.critical, (layer,)), kept)
    return {
        "swaps": None if price is None else price.swaps,
        "squared_weight_lost": None if price is None else price.squared_weight_lost,
    }


def chance_record(
    layer: LayerTensor, weights: Array, mask: Mask, topology: Topology, trials: int = TRIALS, seed: int = 0
) -> dict[str, Any]:
    """Return the overlap of a layer beside what its weights would give in random order on their own support.

    Parameters
    ----------
    layer : LayerTensor
        What is measured.
    weights, mask, topology
        Its weights, their mask, and the topology of the weights under it.
    trials, seed : int
        Random orders of each graph where the law is not known: under a mask, of a kernel, and of some small layers.

    Returns
    -------
    dict
        ``overlap_expected``, ``overlap_deviation``, ``overlap_z`` and ``overlap_status`` as in
        `topobounds.LayerReport`; of several graphs the weights that they hold add up, and what is sampled of one is
        sampled. ``overlap_trials`` and ``overlap_seed`` where there was sampling.
    """
    nulls = [_overlap_null(*part, None, Sampling(trials, seed)) for part in _parts(layer, weights, mask, topology)]
    return _beside_chance("overlap", topology.overlap, topology.sizes, nulls)


def survival_record(
    layer: LayerTensor, weights: Array, old: Mask, new: Mask, before: Topology, trials: int = TRIALS, seed: int = 0
) -> dict[str, Any]:
    """Return what is left of a layer's topology under another mask, beside what chance would leave.

    Parameters
    ----------
    layer : LayerTensor
        What was pruned.
    weights : ndarray
        Its weights before that.
    old, new : ndarray of bool
        The masks before and after it.
    before : Topology
        Of the weights under the old mask.
    trials, seed : int
        As in `chance_record`.

    Returns
    -------
    dict
        ``forest_survived``, the share of the weights that carry the topology that is left, and with ``_expected``,
        ``_deviation``, ``_z``, ``_status``, ``_trials`` and ``_seed`` what the same weights would give in random order
        on their support if as many of them were left, graph by graph, the largest; ``missing_edges``, how many of those
        that carry the topology are gone; ``revived``, how many weights are left that the old mask had pruned.
    """
    counts = [int(np.count_nonzero(part)) for part in layer.split(np.logical_and(old, new))]
    parts = zip(_parts(layer, weights, old, before), counts, strict=True)
    nulls = [_overlap_null(*part, count, Sampling(trials, seed)) for part, count in parts]
    return {
        "forest_survived": before.share_in(new),
        **_beside_chance("forest_survived", before.share_in(new), before.sizes, nulls),
        "missing_edges": int(np.count_nonzero(np.greater(before.critical, new))),
        "revived": int(np.count_nonzero(np.greater(new, old))),
    }


def _beside_chance(name: str, measured: float, sizes: Sequence[int], nulls: Sequence[OverlapNull]) -> dict[str, Any]:
    """Return what chance gives for a share of the weights that carry the topology of several graphs, counted together.

    Parameters
    ----------
    name : str
        What the keys begin with.
    measured : float
        The share.
    sizes : sequence of int
        How many weights carry the topology of each graph.
    nulls : sequence of OverlapNull
        Of each graph.
    """
    known = [(size, null) for size, null in zip(sizes, nulls, strict=True) if null.expected is not None and size]
    total = sum(size for size, _ in known)
    means = [(size, (null.expected.lower + null.expected.upper) / 2) for size, null in known if null.expected]
    expected = sum(size * mean for size, mean in means) / total if total else None
    deviation = math.hypot(*(size * (null.deviation or 0.0) for size, null in known)) / total if total else None
    status = "sampled" if any(null.status == "sampled" for _, null in known) else "certified"
    sampled = next((null for _, null in known if null.trials), None)
    return {
        f"{name}_expected": expected,
        f"{name}_deviation": deviation,
        f"{name}_z": (measured - expected) / deviation if deviation and expected is not None else None,
        f"{name}_status": status if total else None,
        f"{name}_trials": sampled.trials if sampled else None,
        f"{name}_seed": sampled.seed if sampled else None,
    }


def layer_facts(layer: LayerTensor) -> dict[str, Any]:
    """Return what a layer is, whatever its weights are."""
    geometry = layer.geometry
    return {
        "name": layer.name,
        "shape": list(layer.shape),
        "graphs": "shared" if layer.shares_weights else "dense",
        "input_size": list(geometry.input_size) if isinstance(geometry, Conv) else None,
    }


def training_record(layer: LayerTensor, mask: Mask, topology: Topology) -> dict[str, Any]:
    """Return the state of a layer at the end of a level, `topology` being that of its weights under the mask."""
    kept = int(mask.sum())
    dead_outputs, dead_inputs = dead_units(layer, mask)
    deficit = topology.deficit(inputs_first=layer.inputs_first)
    return {
        "record": "layer",
        **layer_facts(layer),
        "weights": layer.n_weights,
        "kept": kept,
        "density": kept / layer.n_weights,
        "critical": topology.n_critical,
        "alpha": topology.alpha,
        "components": topology.n_components,
        "overlap": topology.overlap,
        "neural_persistence": topology.neural_persistence,
        "dead_outputs": dead_outputs,
        "dead_inputs": dead_inputs,
        "silent_inputs": deficit.silent_inputs,
        "silent_outputs": deficit.silent_outputs,
        "fragments": deficit.fragments,
    }


def level_summary(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over the layers; the overlap is that of all forests together.

    Dead units are outputs that no weight reaches, gate by gate where there are gates; what no weight reads is told by
    layer only, for it is some layer's output as well.
    """
    total = {key: sum(layer[key] for layer in layers) for key in ("weights", "kept", "critical", "alpha")}
    held = sum(layer["overlap"] * layer["critical"] for layer in layers)
    return {
        **total,
        "density": total["kept"] / total["weights"],
        "overlap": held / total["critical"] if total["critical"] else 1.0,
        "dead_units": sum(layer["dead_outputs"] for layer in layers),
        **{key: sum(layer[key] for layer in layers) if key in layers[0] else None for key in _PERSISTENCES},
    }


def _parts(
    layer: LayerTensor, weights: Array, mask: Mask, topology: Topology
) -> Iterator[tuple[LayerTensor, Array, Mask, "Forest"]]:
    """Yield each graph of a layer with its weights, their mask and its forest."""
    for part, alive, forest in zip(*map(layer.split, (weights, mask)), topology.forests, strict=True):
        if layer.geometry is None:
            yield layer, part.reshape(len(part), -1), alive.reshape(len(part), -1), forest
        else:
            yield layer, part, alive, forest


def _overlap_null(
    layer: LayerTensor, weights: Array, mask: Mask, forest: "Forest", k: int | None, sampling: Sampling
) -> OverlapNull:
    """Return what chance gives for the overlap of one graph with its k largest weights, or as many as are critical."""
    if isinstance(forest, SpanningForest):
        measured = MeasuredLayer.of(weights, mask, forest, int(np.count_nonzero(weights[mask])))
        return layer_overlap_null(measured, forest.alpha if k is None else k, sampling)
    kernel = MeasuredKernel.of(weights, cast(Conv, layer.geometry), mask, forest)
    return kernel_overlap_null(kernel, k, sampling)


def dead_units(layer: LayerTensor, mask: Mask) -> tuple[int, int]:
    """Return how many outputs and how many inputs (units, channels) have no weight left."""
    blocks = mask.reshape(layer.groups, layer.shape[0] // layer.groups, layer.shape[1], -1)
    firsts, seconds = (int((~blocks.any(axis=axes)).sum()) for axes in ((2, 3), (1, 3)))
    return (seconds, firsts) if layer.inputs_first else (firsts, seconds)


def prune(
    layers: list[LayerTensor],
    weights: Mapping[str, Array],
    masks: Mapping[str, Mask],
    pruning: Pruning,
    round_number: int,
    seed: int,
    topologies: Mapping[str, Topology] | None = None,
) -> dict[str, Mask]:
    """Return the masks after one round.

    Parameters
    ----------
    layers : list of LayerTensor
        The prunable layers, the output layer last.
    weights, masks : mapping of str to ndarray
        The trained weights and their masks, by layer name.
    pruning : Pruning
        Method, schedule, scope, factors.
    round_number : int
        From 1 to ``pruning.rounds``.
    seed : int
        For the methods that are random.
    topologies : mapping of str to Topology, optional
        Those of the weights under their masks, by layer name, where they have been measured already.

    Returns
    -------
    dict of str to ndarray of bool
        A mask for every layer. Their sums are the counts of the schedule; larger where T-IMP was told to clamp.

    Raises
    ------
    ValueError
        If a surviving weight is NaN or infinite, or, for T-IMP, fewer than alpha weights are to be kept.
    """
    groups = _groups(layers, pruning)
    method = pruning_method(pruning.method)
    counting = method.counted_by
    tensors = _prunables(layers, weights, masks, topologies, protects=counting.protects)
    found = dict(masks)
    for place, (group, counts) in enumerate(groups):
        names = [layer.name for layer in group]
        count = counts[round_number - 1]
        with argument_errors_naming(names[0] if len(names) == 1 else None):
            kept = kept_masks(
                [tensors[name] for name in names],
                MaskRequest("keep", count, count),
                counting,
                on_infeasible=pruning.on_infeasible,
                entropy=(seed + place, 0),
            )
        found |= dict(zip(names, kept, strict=True))
    if method.counts_of:
        for place, name in enumerate(tensors):
            found[name] = redrawn_mask(tensors[name], found[name], method, (seed + place, 0))
    return found


def _prunables(
    layers: list[LayerTensor],
    weights: Mapping[str, Array],
    masks: Mapping[str, Mask],
    topologies: Mapping[str, Topology] | None,
    *,
    protects: bool,
) -> dict[str, Prunable]:
    """Return the layers as they are to be pruned, by name; measured here where topologies are needed and not given."""
    if topologies is None and protects:
        topologies = layer_topologies(layers, weights, masks)
    found = {}
    for layer in layers:
        array = weight_array(weights[layer.name])
        survivors = masks[layer.name]
        if topologies is None:
            _check_finite(layer, array, survivors)
        found[layer.name] = Prunable.unprotected(array, survivors, layer)
        if topologies is not None and protects:
            found[layer.name] = Prunable(array, survivors, topologies[layer.name].critical, (layer,))
    return found


def _groups(layers: list[LayerTensor], pruning: Pruning) -> list[tuple[list[LayerTensor], tuple[int, ...]]]:
    """Return the layers that are ranked together, with the weights that they may keep after each round."""
    factors = _layer_factors(layers, pruning)
    pruned = [layer for layer in layers if factors[layer.name]]
    if pruning.scope == "global":
        total = sum(layer.n_weights for layer in pruned)
        return [(pruned, pruning.counts(total))] if pruned else []
    return [([each], pruning.counts(each.n_weights, factors[each.name])) for each in pruned]


def check_feasible(layers: list[LayerTensor], pruning: Pruning) -> None:
    """Refuse a plan that T-IMP cannot meet, as far as the shapes tell: before anything is trained.

    A connected dense layer of m inputs and n outputs has alpha = m + n - 1; what a kernel needs depends on its weights
    and is told when it is pruned.

    Raises
    ------
    ValueError
        Naming the layer, the first round that asks for too little, and alpha.
    """
    factors = _layer_factors(layers, pruning)
    protects = pruning_method(pruning.method).counted_by.protects
    if not protects or pruning.on_infeasible == "clamp" or not any(factors.values()):
        return
    too_few = []
    for group, counts in _groups(layers, pruning):
        alpha = sum(layer.n_critical or 0 for layer in group)
        round_number = next((r for r, count in enumerate(counts, 1) if count < alpha), None)
        if round_number is not None:
            names = f"layer '{group[0].name}'" if len(group) == 1 else "the layers together"
            too_few.append((round_number, names, counts[round_number - 1], alpha))
    if too_few:
        round_number, names, count, alpha = min(too_few, key=lambda each: each[0])
        raise ValueError(
            f"Round {round_number} leaves {names} {counted(count, 'weight')}, fewer than the alpha = {alpha} that "
            "carry the topology: prune less, in fewer rounds, or set on_infeasible = 'clamp' to stop at alpha."
        )


def _layer_factors(layers: list[LayerTensor], pruning: Pruning) -> dict[str, float]:
    """Return what the rate of each layer is multiplied by; the output layer is the last.

    Raises
    ------
    ValueError
        If the plan names a layer that there is not.
    """
    names = [layer.name for layer in layers]
    for name in pruning.factors:
        if name not in names:
            raise ValueError(
                f"The net has no layer '{name}', which the plan's factors name; it has {', '.join(names)}."
            )
    return dict.fromkeys(names, 1.0) | {names[-1]: pruning.output_factor} | dict(pruning.factors)
