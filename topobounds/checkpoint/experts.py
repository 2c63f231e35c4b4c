"""Experts of a mixture in one tensor: one graph per expert and projection, their orientation by model or neighbours."""

import re
from collections.abc import Iterator, Mapping

from topobounds.checkpoint.fused import GATED, ONE_AFTER_THE_OTHER
from topobounds.checkpoint.stored import Stored
from topobounds.layers import LayerTensor
from topobounds.layers.layout import Layout

_GATE_UP = r"gate_up_proj|gate_and_up(_proj)?|w13|input_linear"
_UP = r"w1|w3|v1|(up|gate)_proj|fc1|wi(_\d)?|up|gate|linear_1|mlp1(_weight)?"
_DOWN = r"w2|down_proj|output_linear|fc2|wo|down|linear_2|mlp2(_weight)?"
_INPUTS_FIRST = ("llama4", "llama4_text", "gpt_oss", "qwen3_vl_moe", "qwen3_vl_moe_text", "aria", "aria_text")
_OUTPUTS_FIRST = (
    "granitemoe", "granitemoehybrid", "granitemoeshared", "jetmoe", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2",
    "deepseek_v3", "olmoe",
)  # fmt: skip
_ROUTERS = ("gate", "router", "router.layer", "router.gate", "router.classifier")
_ALTERNATING = ("gpt_oss",)
"""Models in which every second row is of the gate, those between of the up projection."""


def read_experts(stored: Stored) -> LayerTensor | None:
    """Return how a tensor that stacks the weights of experts is read, or None if it is no such tensor."""
    named = re.search(r"expert|(^|[._/])moe", stored.name, re.IGNORECASE)
    if not named and stored.module not in ("input_linear", "output_linear"):
        return None
    if len(stored.shape) == 2:
        return _read_rows(stored)
    if len(stored.shape) != 3:
        return None
    role = _role(stored)
    if not role and stored.has_word("conv"):
        return None
    inputs_first, notes = _orientation(stored, role)
    axis = 1 if inputs_first else 0
    number, length = stored.shape[0], stored.shape[1 + axis]
    if role != "gate and up" or length % 2 or re.search("atten|attn", stored.path):
        parts, layout = tuple(map(str, range(number))), Layout(stacked=1)
        words = tuple(f"expert {expert} (of {number}){_what(stored, role)}" for expert in range(number))
    else:
        alternating = stored.tensors.is_model_type(*_ALTERNATING)
        layout = Layout(stacked=1, axis=axis, sizes=(length // 2,) * 2, interleaved=length // 2 if alternating else 1)
        if not stored.tensors.is_model_type(*_INPUTS_FIRST, *_OUTPUTS_FIRST):
            notes.append(ONE_AFTER_THE_OTHER.format(role))
        parts = tuple(f"{expert} {part}" for expert in range(number) for part in GATED)
        words = tuple(f"expert {expert} (of {number}), {part} projection" for expert in range(number) for part in GATED)
    return LayerTensor(
        stored.name,
        stored.shape,
        parts=parts,
        inputs_first=inputs_first,
        layout=layout,
        words=words,
        assumed="; ".join(notes) or None,
    )


def _role(stored: Stored) -> str:
    named = stored.leaf if stored.leaf not in ("weight", "kernel") else stored.module
    roles = {"gate and up": _GATE_UP, "up": _UP, "down": _DOWN}
    return next((role for role, pattern in roles.items() if re.fullmatch(pattern, named, re.IGNORECASE)), "")


def _what(stored: Stored, role: str) -> str:
    named = stored.leaf if stored.leaf not in ("weight", "kernel") else stored.module
    return f", {named}" if role else ""


def _orientation(stored: Stored, role: str) -> tuple[bool, list[str]]:
    """Return whether the inputs of each expert come first, and what is assumed of it for people; nothing if known."""
    first, second = stored.shape[1:]
    for hidden in _hidden_size_candidates(stored) if role and first != second else ():
        if hidden in (first, second):
            # up and gate projections read the hidden state, down projections write it
            return (hidden == first) != (role == "down"), []
    if stored.tensors.is_model_type(*_INPUTS_FIRST):
        return True, []
    if stored.tensors.is_model_type(*_OUTPUTS_FIRST):
        return False, []
    return False, ["experts with their outputs first"]


def _hidden_size_candidates(stored: Stored) -> Iterator[int]:
    """Yield what may be the size of the hidden state: of the router, the other projections, the config."""
    tensors = stored.tensors
    around = re.split(r"[^./]*expert", stored.name, maxsplit=1)[0]
    for router in _ROUTERS:
        shape = tensors.shapes.get(f"{around}{router}.weight")
        if shape is not None and len(shape) == 2:
            yield from (size for size in shape[::-1] if size != stored.shape[0])
    pair = {"gate_up_proj": "down_proj", "down_proj": "gate_up_proj"}
    other = next((stored.renamed(re.escape(one), two) for one, two in pair.items() if one in stored.name), None)
    if other is not None and len(other) == 3:
        shared = set(stored.shape[1:]) & set(other[1:])
        yield from sorted(shared if len(shared) == 1 else ())
    for config in (tensors.config, *(value for value in tensors.config.values() if isinstance(value, Mapping))):
        for key in ("hidden_size", "d_model", "n_embd"):
            if type(config.get(key)) is int:
                yield config[key]


def _read_rows(stored: Stored) -> LayerTensor | None:
    """Return the experts of DBRX, which lie one below the other in a matrix."""
    about = stored.tensors.config.get("ffn_config")
    number = about.get("moe_num_experts") if isinstance(about, Mapping) else None
    if (
        stored.leaf not in ("w1", "v1", "w2")
        or not stored.tensors.is_model_type("dbrx")
        or "experts" not in stored.pieces
    ):
        return None
    if type(number) is not int or number < 1 or stored.shape[0] % number:
        return None
    return LayerTensor(
        stored.name,
        stored.shape,
        parts=tuple(map(str, range(number))),
        inputs_first=stored.leaf == "w2",
        words=tuple(f"expert {expert} (of {number}), {stored.leaf}" for expert in range(number)),
    )
