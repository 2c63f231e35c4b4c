"""Runs of IMP that other programs made, told as our own are, level by level. No torch here."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topobounds._text import counted
from topobounds._types import Array, Mask, NamedProgress
from topobounds.chance.sampling import checked_sampling
from topobounds.checkpoint import CheckpointError
from topobounds.checkpoint.layer_tensors import check_given_geometry
from topobounds.layers import LayerTensor
from topobounds.pruning import METHODS, MaskRequest, Prunable, exchange, kept_masks
from topobounds.runs import RunError
from topobounds.runs.foreign import (
    ForeignLevel,
    LevelWeights,
    check_same_layers,
    find_levels,
    level_label,
    logged_accuracy,
    read_level,
)
from topobounds.topology.layer_topology import Topology
from topobounds.weights import weight_array
from torch_bridge.experiment import topology_records

_FIRST = "there is no level before it to compare with"
_SUMS = ("missing_edges", "revived", "swaps", "squared_weight_lost", "t_imp_dead_units")
_SHARES = ("overlap", "forest_survived")
COLUMNS = (
    ("replicate", "replicate"),
    ("level", "level"),
    ("density", "density"),
    ("forest kept", "forest_survived"),
    ("by chance", "forest_survived_expected"),
    ("z", "forest_survived_z"),
    ("missing edges", "missing_edges"),
    ("overlap", "overlap"),
    ("by chance", "overlap_expected"),
    ("z", "overlap_z"),
    ("dead units", "dead_units"),
    ("swaps", "swaps"),
    ("T-IMP dead", "t_imp_dead_units"),
    ("test accuracy", "test_accuracy"),
)
"""What a table of the levels shows, and its titles; there is more in every record."""


@dataclass(frozen=True, eq=False)
class _Measured:
    """A level that was read: its numbers, what it holds, and the topology of each layer."""

    found: ForeignLevel
    held: LevelWeights
    topologies: dict[str, Topology]

    @property
    def label(self) -> str:
        return level_label(self.found.replicate, self.found.level)


def audit_run(
    folder: str | os.PathLike[str],
    *,
    geometry: Any = None,
    input_size: Sequence[int] | None = None,
    trials: int = topology_records.TRIALS,
    seed: int = 0,
    progress: NamedProgress | None = None,
) -> dict[str, Any]:
    """Return what the levels of a run that another program made did to the topology of its layers.

    Parameters
    ----------
    folder : path
        As in `topobounds.runs.foreign.find_levels`: numbered folders of weights and masks, such as open_lth writes.
    geometry, input_size
        As in `topobounds.analyze`: what the tensors are, and the map that convolutions read.
    trials, seed : int
        Random orders of a layer where chance has no known law, at least 2, and what draws them.
    progress : callable, optional
        ``progress(done, total, level)``, in levels.

    Returns
    -------
    dict
        ``folder``, ``trials``, ``seed``; ``levels``, with the keys of the summaries that `history.status` returns, and
        ``layers``, with those of the records of a level of our own. Of a level after the first also what its mask left
        of the topology of the weights before it, those at the end of the level ``compared_with``: `survival_record`;
        and what T-IMP would have kept at the same counts: ``swaps`` and ``squared_weight_lost`` against the largest
        weights, ``t_imp_dead_outputs`` and ``t_imp_dead_inputs``. ``reason`` says why a number is None. ``left_out``:
        levels and tensors that are not told of, and why; the tensors are those of the first level, and what later
        levels leave out besides.

    Raises
    ------
    RunError
        If there are no levels, or none of them can be read.
    CheckpointError
        If `geometry` cannot be read.
    ValueError
        If an argument is out of range.
    """
    checked_sampling(trials, seed)
    check_given_geometry(geometry, input_size)
    run = find_levels(folder)
    left_out = dict(run.left_out)
    levels: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    first: _Measured | None = None
    before: _Measured | None = None
    for number, found in enumerate(run.levels):
        label = level_label(found.replicate, found.level)
        if progress is not None:
            progress(number, len(run.levels), label)
        try:
            held = read_level(found, geometry=geometry, input_size=input_size)
            if first is not None:
                check_same_layers(label, first.held, first.label, held)
            measured = _Measured(
                found, held, topology_records.layer_topologies(list(held.layers), held.weights, held.masks)
            )
        except (CheckpointError, ValueError) as error:
            left_out[label] = str(error).rstrip(".")
            continue
        if first is None:
            first = measured
            left_out |= held.left_out
        new = held.left_out.items() - first.held.left_out.items()
        left_out |= {f"{name} at {label}": reason for name, reason in sorted(new)}
        compared = before if before is not None and before.found.replicate == found.replicate else None
        records = [_layer_record(layer, measured, compared, trials, seed) for layer in held.layers]
        levels.append(_level_record(measured, compared, records))
        layers += records
        before = measured
    if not levels:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in list(left_out.items())[:1])
        raise RunError(f"{folder} has no level that can be read. {reasons}.")
    return {
        "folder": str(folder),
        "trials": trials,
        "seed": seed,
        "levels": levels,
        "layers": layers,
        "left_out": left_out,
    }


def _layer_record(
    layer: LayerTensor, level: _Measured, compared: _Measured | None, trials: int, seed: int
) -> dict[str, Any]:
    """Return the record of one layer at one level."""
    name = layer.name
    weights, mask, topology = level.held.weights[name], level.held.masks[name], level.topologies[name]
    record: dict[str, Any] = {"replicate": level.found.replicate, "level": level.found.level}
    record |= topology_records.training_record(layer, mask, topology) | {"assumed": layer.assumed}
    record |= topology_records.chance_record(layer, weights, mask, topology, trials, seed)
    reasons = []
    if compared is None:
        reasons.append(_FIRST)
    else:
        old, before, earlier = compared.held.masks[name], compared.topologies[name], compared.held.weights[name]
        left = np.logical_and(old, mask)  # a weight that came back may have held anything before
        after = topology_records.layer_topologies([layer], {name: earlier}, {name: left})[name]
        record |= topology_records.pruning_record(old, mask, before, after)
        record |= topology_records.survival_record(layer, earlier, old, mask, before, trials, seed)
        record["forest_persisted"] = before.share_in(topology.critical)
        record |= _t_imp(layer, earlier, old, before, int(np.count_nonzero(mask)))
        reasons += [record.pop("t_imp_reason")] if record["swaps"] is None else []
    for key in _SHARES:
        if record.get(f"{key}_z", 0) is None:
            reasons.append(f"{key}_z: in every order that was drawn it is the same, or no weight is left")
    drawn = tuple(f"{key}_{what}" for key in _SHARES for what in ("trials", "seed"))
    return {key: value for key, value in record.items() if key not in (*drawn, "record", "t_imp_reason")} | {
        "reason": "; ".join(reasons) or None
    }


def _t_imp(layer: LayerTensor, weights: Array, old: Mask, before: Topology, count: int) -> dict[str, Any]:
    """Return what T-IMP would have kept of a layer in the place of a mask of so many weights."""
    tensor = Prunable(weight_array(weights), old, before.critical, (layer,))
    keys = ("swaps", "squared_weight_lost", "t_imp_dead_outputs", "t_imp_dead_inputs")
    left = f"{counted(count, 'weight is', 'weights are')} left"
    if count < tensor.n_protected:
        few = f"{left}, and {tensor.n_protected} carry the topology, so T-IMP has no mask"
        return dict.fromkeys(keys) | {"t_imp_reason": few}
    if count > tensor.n_survivors:
        many = f"{left}, more than the {tensor.n_survivors} before, so T-IMP has no mask"
        return dict.fromkeys(keys) | {"t_imp_reason": many}
    (mask,) = kept_masks([tensor], MaskRequest("keep", count, count), METHODS["t-imp"])
    price = exchange(tensor, count, mask)
    assert price is not None
    found = (price.swaps, price.squared_weight_lost, *topology_records.dead_units(layer, mask))
    return dict(zip(keys, found, strict=True))


def _level_record(level: _Measured, compared: _Measured | None, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a level, from the records of its layers."""
    accuracy, why_none = logged_accuracy(level.found)
    record: dict[str, Any] = {
        "replicate": level.found.replicate,
        "level": level.found.level,
        "path": str(level.found.path),
        "masks_from": level.held.masks_from,
        "compared_with": None if compared is None else compared.found.level,
        **topology_records.level_summary(layers),
    }
    sizes = [layer["critical"] for layer in layers]
    record |= _shares("overlap", layers, sizes)
    if compared is None:
        keys = (f"forest_survived{end}" for end in ("", "_expected", "_deviation", "_z", "_status"))
        record |= dict.fromkeys((*keys, *_SUMS))
    else:
        before = [compared.topologies[layer["name"]].n_critical for layer in layers]
        survived = sum(layer["forest_survived"] * size for layer, size in zip(layers, before, strict=True))
        record["forest_survived"] = survived / sum(before) if sum(before) else 1.0
        record |= _shares("forest_survived", layers, before)
        record |= {key: _sum(layers, key) for key in _SUMS[:-1]}
        record["t_imp_dead_units"] = _sum(layers, "t_imp_dead_outputs")
    reasons = [] if compared else [_FIRST]
    if compared and record["swaps"] is None:
        reasons.append("T-IMP has no mask of so few or so many weights for a layer")
    if any(record[f"{key}_z"] is None for key in _SHARES):
        reasons.append("z needs a deviation by chance")
    return record | {"test_accuracy": accuracy, "test_accuracy_reason": why_none, "reason": "; ".join(reasons) or None}


def _shares(name: str, layers: list[dict[str, Any]], sizes: list[int]) -> dict[str, Any]:
    """Return what chance gives for a share of the critical weights of all layers together."""
    known = [(layer, size) for layer, size in zip(layers, sizes, strict=True) if layer[f"{name}_expected"] is not None]
    total = sum(size for _, size in known)
    if not total:
        return dict.fromkeys(f"{name}{end}" for end in ("_expected", "_deviation", "_z", "_status"))
    measured, expected = (sum(layer[key] * size for layer, size in known) / total for key in (name, f"{name}_expected"))
    deviation = math.hypot(*(layer[f"{name}_deviation"] * size for layer, size in known)) / total
    states = {layer[f"{name}_status"] for layer, _ in known}
    return {
        f"{name}_expected": expected,
        f"{name}_deviation": deviation,
        f"{name}_z": (measured - expected) / deviation if deviation else None,
        f"{name}_status": "sampled" if "sampled" in states else "certified",
    }


def _sum(layers: list[dict[str, Any]], key: str) -> Any:
    """Return the sum over the layers; None where one has no such number."""
    values = [layer[key] for layer in layers]
    return None if None in values else sum(values)
