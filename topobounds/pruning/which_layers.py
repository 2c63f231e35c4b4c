"""Which layers of a file are pruned: all but those on which others look things up or are chosen, unless named."""

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.config import tied_though_stored, ties_embeddings
from topobounds.checkpoint.layer_tensors import LayerTensorReading
from topobounds.layers import LayerTensor
from topobounds.pruning.report import NOT_ALIKE

NAMED = 5  # tensors in a message
_QUANTISED_TYPE = re.compile(r"u?int\d+|float[468]_\w+")
_QUANTISED_REASON = re.compile(r"\bcodes?\b|packed|quanti[sz]ed|of a type that is not read: .*\bF[468]", re.IGNORECASE)
_HEAD = re.compile(r"(^|\.)(lm_head|output|embed_out|head|decoder|predictions\.decoder)\.weight$")
_ROUTER = re.compile(r"(^|[._])router([._]|$)|(^|\.)(shared_expert_gate|gating|gate_network)(\.|$)", re.IGNORECASE)
_GATE = re.compile(r"(^|\.)(gate|wg|w_gate)(\.(weight|wg|kernel))*$")
_EXPERTS = re.compile(r"(^|\.)(experts?|local_experts)(\.|$)")


def chosen_layers(
    reading: LayerTensorReading, checkpoint: Checkpoint, include: Iterable[str]
) -> tuple[list[LayerTensor], dict[str, str]]:
    """Return the layers that are pruned, and what is left out with the reason.

    Parameters
    ----------
    reading : LayerTensorReading
        What the tensors of a file are.
    checkpoint : Checkpoint
        The file.
    include : iterable of str
        Patterns. One that matches nothing but what would be left alone has it pruned.

    Raises
    ------
    ValueError
        If tensors are quantised; they are named.
    """
    _refuse_quantised(reading, checkpoint.quantised)
    names = [layer.name for layer in reading.layers]
    reasons = {layer.name: _why_not(layer, reading, checkpoint.config, names) for layer in reading.layers}
    patterns = [include] if isinstance(include, str) else list(include)
    asked = {
        name for pattern in patterns if _names_alone(pattern, reasons) for name in names if fnmatchcase(name, pattern)
    }
    chosen = [layer for layer in reading.layers if reasons[layer.name] is None or layer.name in asked]
    left_out = {
        name: f"{reason}; pruned where it is named" for name, reason in reasons.items() if reason and name not in asked
    }
    left_out = dict(reading.left_out) | left_out
    return chosen, left_out | _not_alike(checkpoint, {layer.name for layer in chosen}, left_out)


def _not_alike(checkpoint: Checkpoint, chosen: Collection[str], left_out: Mapping[str, str]) -> dict[str, str]:
    """Return what is left out though it is stored beside what is pruned, and config.json says that the two are one."""
    pairs = tied_though_stored(checkpoint.config, checkpoint.names).items()
    sides = [side for head, embedding in pairs for side in ((head, embedding), (embedding, head))]
    return {
        alone: f"{left_out[alone]}; '{pruned}'{NOT_ALIKE}"
        for alone, pruned in sides
        if pruned in chosen and alone in left_out
    }


def _names_alone(pattern: str, reasons: Mapping[str, str | None]) -> bool:
    """Whether a pattern matches only layers that are left alone."""
    return all(reason for name, reason in reasons.items() if fnmatchcase(name, pattern))


def _why_not(
    layer: LayerTensor, reading: LayerTensorReading, config: Mapping[str, Any], names: list[str]
) -> str | None:
    if layer.kind == "embedding":
        return "embedding"
    partners = [name for name, owner in reading.tied.items() if owner == layer.name]
    is_head = _HEAD.search(layer.name) is not None
    if partners and (is_head or any("embed" in name or "wte" in name for name in partners)):
        return f"head that is tied to '{partners[0]}'"
    if is_head and ties_embeddings(config) and any(each.kind == "embedding" for each in reading.layers):
        return "head that config.json ties to the embedding"
    has_experts = any(_EXPERTS.search(name) for name in names)
    if _ROUTER.search(layer.name) or (has_experts and _GATE.search(layer.name)):
        return "router of experts"
    return None


def _refuse_quantised(reading: LayerTensorReading, coded: Collection[str]) -> None:
    found = {
        layer.name: "codes" if layer.name in coded else layer.dtype
        for layer in reading.layers
        if layer.name in coded or _QUANTISED_TYPE.fullmatch(layer.dtype)
    }
    for name, reason in reading.left_out.items():
        shape, dtype = reading.forms.get(name, ((), ""))
        if len(shape) > 1 and _QUANTISED_REASON.search(reason):
            found[name] = dtype or reason
    if found:
        shown = ", ".join(f"'{name}' ({kind})" for name, kind in list(found.items())[:NAMED])
        others = f" and {len(found) - NAMED} others" if len(found) > NAMED else ""
        raise ValueError(
            f"Quantised tensors cannot be pruned: {shown}{others}. Prune the weights they were made from and quantise "
            "the result, or exclude them."
        )
