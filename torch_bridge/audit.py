"""The layers of a net as graphs: pruning them, and what pruning and training did to their topology. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import argument_error
from topobounds.layers import Conv
from topobounds.pruning import Infeasible, Mask, Method, magnitude_mask, network_masks
from topobounds.topology.convolution import critical_kernel_weights
from topobounds.topology.persistence import PersistenceDiagram, persistence_diagram, total_neural_persistence
from topobounds.weights import check_finite
from torch_bridge.plan import Pruning

Array = NDArray[Any]

METHODS: dict[str, Method] = {"imp": "magnitude", "random": "random"}
"""What they are to `topobounds.pruning`; all others start from T-IMP's masks."""


@dataclass(frozen=True)
class LayerTensor:
    """A weight tensor of a net, and the graphs that it holds.

    Attributes
    ----------
    name : str
        As in the net's state: ``"layers.0.weight"``.
    shape : tuple of int
        Of the tensor, at least two dimensions.
    parts : int
        Graphs stacked along the first dimension, in equal blocks of rows: the gates of a recurrent layer. They are
        ranked together, and each keeps its own forest.
    conv : Conv or None
        For a kernel, the geometry; its graph is then that of the convention ``shared``. None: a matrix of the first
        dimension and the rest.
    groups : int
        Groups of a kernel.
    inputs_first : bool
        Whether the first dimension is the inputs: of a transposed convolution, and of GPT-2's linear layers.
    """

    name: str
    shape: tuple[int, ...]
    parts: int = 1
    conv: Conv | None = None
    groups: int = 1
    inputs_first: bool = False

    @property
    def n_weights(self) -> int:
        """Stored weights."""
        return int(np.prod(self.shape))

    @property
    def part_names(self) -> list[str]:
        """The names of its graphs: its own where there is one."""
        if self.conv is not None or self.parts == 1:
            return [self.name]
        return [f"{self.name}[{place}]" for place in range(self.parts)]

    def split(self, array: Array) -> list[Array]:
        """Return the graphs' parts of an array of the tensor's shape."""
        if self.conv is not None:
            return [array]
        return np.split(array.reshape(self.shape[0], -1), self.parts)

    def join(self, parts: list[Mask]) -> Mask:
        """Return the tensor of the graphs' parts."""
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Topology:
    """The topology of a layer tensor under a mask.

    Attributes
    ----------
    critical : ndarray of bool of the tensor's shape
        The weights that carry it: edges of the spanning forests, or critical kernel weights.
    diagrams : list of PersistenceDiagram
        One for each graph.
    """

    critical: Mask
    diagrams: list[PersistenceDiagram]

    @property
    def neural_persistence(self) -> float:
        """Normalised, convention ``balwani``, p = 2; summed over the graphs of the tensor."""
        return total_neural_persistence(self.diagrams, normalized=True)

    @property
    def n_critical(self) -> int:
        """Number of critical weights: alpha where the layer is dense; fewer for a kernel, whose weights share edges."""
        return int(np.count_nonzero(self.critical))

    def is_kept_by(self, other: "Topology") -> bool:
        """Whether another topology of the same layer has the same diagrams, bit for bit."""
        return all(map(_same, self.diagrams, other.diagrams))


def layer_topology(layer: LayerTensor, weights: Array, mask: Mask) -> Topology:
    """Return the topology of a layer tensor under a mask.

    Parameters
    ----------
    layer : LayerTensor
        What graphs it holds.
    weights, mask : ndarray of the tensor's shape
        Finite where the mask is True.

    Raises
    ------
    ValueError
        If a surviving weight is NaN or infinite.

    Examples
    --------
    >>> layer = LayerTensor("a", (3, 2))
    >>> layer_topology(layer, np.array([[3.0, 2.0], [2.5, 1.0], [0.5, 0.1]]), np.ones((3, 2), np.bool_)).n_critical
    4
    """
    if weights.size == 0:
        raise argument_error("weights", "an array with at least one entry", weights.shape)
    if layer.parts > 1:  # else a bad entry would be told by its place in a part
        matrix = weights.reshape(len(weights), -1)
        check_finite(matrix, mask.reshape(matrix.shape), weights.shape)
    critical, diagrams = [], []
    for part, alive in zip(layer.split(weights), layer.split(mask), strict=True):
        support = None if alive.all() else alive  # which is read faster
        if layer.conv is not None:
            found = critical_kernel_weights(part, layer.conv, support)
            diagram, carries = found.diagram, found.mask
        else:
            diagram, carries = persistence_diagram(part, support), np.zeros(part.shape, np.bool_)
            carries[tuple(diagram.edges.T)] = True
        critical.append(carries)
        diagrams.append(diagram)
    return Topology(layer.join(critical), diagrams)


def layer_overlap(layer: LayerTensor, weights: Array, mask: Mask, topology: Topology) -> float:
    """Return the share of the critical weights that are among the equally many largest weights of their graphs.

    For a dense layer the paper's X. 1.0 where there is none.

    Examples
    --------
    >>> layer, weights = LayerTensor("a", (3, 2)), np.array([[3.0, 2.0], [2.5, 1.0], [0.5, 0.1]])
    >>> mask = np.ones((3, 2), np.bool_)
    >>> layer_overlap(layer, weights, mask, layer_topology(layer, weights, mask))
    0.75
    """
    held = sum(
        int((magnitude_mask(part, int(carries.sum()), support) & carries).sum())
        for part, support, carries in zip(*map(layer.split, (weights, mask, topology.critical)), strict=True)
    )
    return held / topology.n_critical if topology.n_critical else 1.0


def pruning_record(layer: LayerTensor, weights: Array, old: Mask, new: Mask) -> dict[str, Any]:
    """Return what a pruning from one mask to the next did to a layer, the weights as they were then."""
    before, after = layer_topology(layer, weights, old), layer_topology(layer, weights, new)
    survived = int((before.critical & new).sum())
    return {
        "pruned": int(old.sum()) - int(new.sum()),
        "neural_persistence_before_pruning": before.neural_persistence,
        "neural_persistence_after_pruning": after.neural_persistence,
        "diagram_preserved": before.is_kept_by(after),
        "forest_survived": survived / before.n_critical if before.n_critical else 1.0,
    }


def layer_facts(layer: LayerTensor) -> dict[str, Any]:
    """Return what a layer is, whatever its weights are."""
    return {
        "name": layer.name,
        "shape": list(layer.shape),
        "graphs": "shared" if layer.conv else "dense",
        "input_size": list(layer.conv.input_size) if layer.conv else None,
    }


def training_record(layer: LayerTensor, weights: Array, mask: Mask) -> dict[str, Any]:
    """Return the state of a layer at the end of a level."""
    topology = layer_topology(layer, weights, mask)
    kept = int(mask.sum())
    dead_outputs, dead_inputs = dead_units(layer, mask)
    return {
        "record": "layer",
        **layer_facts(layer),
        "weights": layer.n_weights,
        "kept": kept,
        "density": kept / layer.n_weights,
        "critical": topology.n_critical,
        "alpha": sum(diagram.alpha for diagram in topology.diagrams),
        "components": sum(diagram.n_essential for diagram in topology.diagrams),
        "overlap": layer_overlap(layer, weights, mask, topology),
        "neural_persistence": topology.neural_persistence,
        "dead_outputs": dead_outputs,
        "dead_inputs": dead_inputs,
    }


def forest_share(layer: LayerTensor, earlier: tuple[Array, Mask], later: tuple[Array, Mask]) -> float:
    """Return the share of the critical weights of one level that are critical in a later one again."""
    old, new = (layer_topology(layer, *level).critical for level in (earlier, later))
    return int((old & new).sum()) / int(old.sum()) if old.any() else 1.0


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

    Returns
    -------
    dict of str to ndarray of bool
        A mask for every layer. Their sums are the counts of the schedule; larger where T-IMP was told to clamp.

    Raises
    ------
    ValueError
        If a surviving weight is NaN or infinite, or, for T-IMP, fewer than alpha weights are to be kept.
    """
    kind = METHODS.get(pruning.method, "topological")
    found = dict(masks)
    for place, (group, counts) in enumerate(_groups(layers, pruning)):
        found |= _ranked(group, weights, masks, counts[round_number - 1], kind, pruning, seed + place)
    if pruning.method == "shuffled":
        for place, layer in enumerate(layers):
            count = int(found[layer.name].sum())
            found |= _ranked([layer], weights, masks, count, "random", pruning, seed + place)
    return found


def _groups(layers: list[LayerTensor], pruning: Pruning) -> list[tuple[list[LayerTensor], tuple[int, ...]]]:
    """Return the layers that are ranked together, with the weights that they may keep after each round."""
    factors = layer_factors(layers, pruning)
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
    factors = layer_factors(layers, pruning)
    if pruning.method not in ("t-imp", "shuffled") or pruning.on_infeasible == "clamp" or not any(factors.values()):
        return
    too_few = []
    for group, counts in _groups(layers, pruning):
        alpha = sum(_alpha_by_shape(layer) for layer in group)
        round_number = next((r for r, count in enumerate(counts, 1) if count < alpha), None)
        if round_number is not None:
            names = f"layer '{group[0].name}'" if len(group) == 1 else "the layers together"
            too_few.append((round_number, names, counts[round_number - 1], alpha))
    if too_few:
        round_number, names, count, alpha = min(too_few, key=lambda each: each[0])
        raise ValueError(
            f"Round {round_number} leaves {names} {count} weights, fewer than the alpha = {alpha} that carry the "
            "topology: prune less, in fewer rounds, or set on_infeasible = 'clamp' to stop at alpha."
        )


def _alpha_by_shape(layer: LayerTensor) -> int:
    if layer.conv is not None:
        return 0
    rows = layer.shape[0] // layer.parts
    return layer.parts * (rows + layer.n_weights // layer.shape[0] - 1)


def layer_factors(layers: list[LayerTensor], pruning: Pruning) -> dict[str, float]:
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


def _ranked(
    group: list[LayerTensor],
    weights: Mapping[str, Array],
    masks: Mapping[str, Mask],
    count: int,
    method: Method,
    pruning: Pruning,
    seed: int,
) -> dict[str, Mask]:
    names = [name for layer in group for name in layer.part_names]

    def parts_of(arrays: Mapping[str, Array]) -> dict[str, Array]:
        parts = (part for layer in group for part in layer.split(arrays[layer.name]))
        return dict(zip(names, parts, strict=True))

    try:
        found = network_masks(
            parts_of(weights),
            count,
            parts_of(masks),
            method=method,
            scope="global",
            on_infeasible=cast(Infeasible, pruning.on_infeasible),
            convs={name: layer.conv for layer in group for name in layer.part_names},
            seed=seed if method == "random" else None,
        )
    except ValueError as error:
        about = f"Layer '{group[0].name}': " if len(group) == 1 and len(names) > 1 else ""
        raise ValueError(f"{about}{error}") from None
    return {layer.name: layer.join([found[name] for name in layer.part_names]) for layer in group}


def _same(one: PersistenceDiagram, other: PersistenceDiagram) -> bool:
    return (
        np.array_equal(one.deaths, other.deaths) and one.n_essential == other.n_essential and one.w_max == other.w_max
    )
