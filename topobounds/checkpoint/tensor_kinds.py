"""What a stored tensor is, by its name, shape, neighbours and config: a table of rules, the first that knows it counts.

A rule returns a `LayerTensor`, or a reason why the tensor is no layer, or None where it does not know.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from topobounds.checkpoint.kernels import read_kernel
from topobounds.checkpoint.stored import Stored
from topobounds.layers import LayerTensor
from topobounds.layers.tensors import GATES, numbered_parts

Answer = LayerTensor | str | None
Rule = Callable[[Stored], Answer]

_GATES_BY_NUMBER = {1: GATES["RNN"], 3: GATES["GRU"], 4: GATES["LSTM"]}
_WEIGHT = re.compile(r"weight|kernel|(.*[_.])?w\d*|W\d*|(.*_)?weights?", re.IGNORECASE)


def kind_of(stored: Stored) -> LayerTensor | str:
    """Return the layer that a tensor is read as, or the reason why it is none."""
    for rule in RULES:
        answer = rule(stored)
        if answer is not None:
            return answer if isinstance(answer, str) else replace(answer, dtype=stored.dtype)
    axes = len(stored.shape)
    return f"no name or neighbour tells what its {axes} dimensions are; a geometry file can"


# -- what is no layer -------------------------------------------------------------------------------------------------


def _unreadable(stored: Stored) -> Answer:
    dtype = stored.names.dtypes[stored.name]
    return f"of a type that is not read: {dtype}" if isinstance(dtype, str) else None


def _no_numbers(stored: Stored) -> Answer:
    """Leave out booleans, integers, complex numbers, texts, and tensors without a value."""
    if stored.dtype == "bool":
        return "mask or buffer (bool)"
    if 0 in stored.shape:
        return "empty"
    if stored.is_real:
        return None
    if len(stored.shape) > 1 and stored.dtype in ("int8", "uint8"):
        return f"codes of unknown scale ({stored.dtype})"
    return f"buffer ({stored.dtype})"


def _optimiser_state(stored: Stored) -> Answer:
    found = re.search(r"(^|[./])optim(izer|iser)?(_state)?[./]|exp_avg(_sq)?$|momentum_buffer$", stored.name)
    return "optimiser state" if found else None


def _mask(stored: Stored) -> Answer:
    return "mask" if re.search(r"(^|_)mask$", stored.leaf) else None


def _vector(stored: Stored) -> Answer:
    """Leave out what has at most one dimension."""
    if len(stored.shape) > 1:
        return None
    if not stored.shape:
        return "one number"
    if re.search(r"(^|_)bias(_|$)|(^|_)b(_[ih]h)?\d*$|^beta$", stored.leaf, re.IGNORECASE):
        return "norm" if _is_norm(stored) else "bias"
    if _is_norm(stored):
        return "norm"
    return "vector of one dimension"


def _is_norm(stored: Stored) -> bool:
    named = stored.has_word(r"norm|(^|_)(ln|bn|gn|layernorm|batchnorm)(_|\d|$)|^(running|moving)_(mean|var)")
    return (
        named
        or any(stored.beside(leaf) is not None for leaf in ("running_mean", "moving_mean"))
        or (stored.leaf in ("weight", "gamma", "scale"))
    )


def _element_by_element(stored: Stored) -> Answer:
    """Leave out what is added or multiplied element by element, or looked up by position."""
    for pattern, reason in _NO_LAYERS:
        if re.fullmatch(pattern, stored.leaf, re.IGNORECASE):
            return reason
    same = {"weight": "bias", "bias": "weight", "scale": "bias"}.get(stored.leaf)
    if same is not None and stored.beside(same) == stored.shape:
        return "norm"
    if re.search(r"(^|_)bias(es)?$", stored.leaf):
        return "bias of several dimensions"
    longest = max(stored.shape)
    if sum(size > 1 for size in stored.shape) < 2 and longest >= 1 and not _WEIGHT.fullmatch(stored.leaf):
        return "vector: one dimension longer than 1"
    return None


_NO_LAYERS = (
    (r".*relative_position_bias_table|.*rel_pos(_[hwt])?", "table of position biases"),
    (r".*pos(ition(al)?)?_?(embed(ding)?s?|encodings?|emb)(_\w+)?|pe", "position embedding, added to the activations"),
    (
        r"(cls|class|mask|dist|bos|eos|pad|register|query|prompt|resampler)\w*_?(tokens?|embedding|queries)",
        "learned token",
    ),
    (r"a_log|ssm_\w+|time_(decay|first|faaaa|mix_\w+|maa_[xwkvrg])|time_mix|x_[rwkvag]", "parameter of a recurrence"),
    (r"running_(mean|var)|moving_(mean|variance)|inv_freq|(cos|sin)_cached", "buffer"),
    (r"(layer_?scale\w*|gamma_?\d*|ls\d?)", "scale, multiplied element by element"),
)
"""Last pieces of names, whatever their capitals, and what they are."""


# -- layers -----------------------------------------------------------------------------------------------------------


def _recurrent(stored: Stored) -> Answer:
    """Read the gates of recurrent layers of torch, also of cells and under names of one's own."""
    match = re.fullmatch(r"(.*?)(weight|w)_(ih|hh|hr)((_l\d+)?(_reverse)?)", stored.leaf, re.IGNORECASE)
    if match is None or len(stored.shape) != 2:
        return None
    before, weight, which, layer, *_ = match.groups()
    if which == "hr":
        return LayerTensor(stored.name, stored.shape, words=("projection of the hidden state",))
    hidden = stored.beside(f"{before}{weight}_hh{layer}")
    squeezing = stored.beside(f"{before}{weight}_hr{layer}")
    own = stored.shape if which == "hh" else hidden
    size = squeezing[-1] if squeezing else own[-1] if own else 0
    if not size or stored.shape[0] % size:
        return LayerTensor(stored.name, stored.shape, assumed="one graph: its gates cannot be told, without weight_hh")
    number = stored.shape[0] // size
    gates = _GATES_BY_NUMBER.get(number, numbered_parts(number))
    is_square = which == "hh" and not squeezing
    return LayerTensor(
        stored.name,
        stored.shape,
        kind="recurrent" if is_square else "dense",
        parts=gates,
        words=gate_words(gates, "hidden to hidden" if which == "hh" else "inputs to hidden"),
        assumed=None if number in _GATES_BY_NUMBER else f"{number} gates, of no known kind of recurrent layer",
    )


def gate_words(gates: tuple[str, ...], whole: str) -> tuple[str, ...]:
    """Return what the gates of a recurrent layer are, for people."""
    if gates == ("",):
        return (whole,)
    return tuple(f"gate {place} of {len(gates)} ({gate})" for place, gate in enumerate(gates, 1))


def _attention_input(stored: Stored) -> Answer:
    """Read the three projections of torch's MultiheadAttention in one matrix."""
    if stored.leaf != "in_proj_weight" or len(stored.shape) != 2 or stored.shape[0] != 3 * stored.shape[1]:
        return None
    parts = ("query", "key", "value")
    return LayerTensor(stored.name, stored.shape, parts=parts, words=projection_words(parts))


def projection_words(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return what projections in one tensor are, for people."""
    return tuple(f"{part} projection, {place} of {len(parts)}" for place, part in enumerate(parts, 1))


def _embedding(stored: Stored) -> Answer:
    """Read a table of vectors, told by its name, and as it has no bias."""
    if len(stored.shape) != 2 or stored.bias is not None:
        return None
    word = r"(.*_)?(emb|embs|embed|embeds|embedding|embeddings|lut)(_(in|tokens?|positions?|layer))?(_\d+)?"
    named = stored.leaf if not _WEIGHT.fullmatch(stored.leaf) else stored.module
    known = re.fullmatch(rf"{word}|w[tp]e|relative_attention_bias|rel_embeddings", named, re.IGNORECASE)
    shared = named == "shared" and stored.shape[0] > stored.shape[1]
    if not known and not shared:
        return None
    return LayerTensor(stored.name, stored.shape, "embedding", inputs_first=True)


def _dense(stored: Stored) -> Answer:
    if len(stored.shape) != 2:
        return None
    rows, columns = stored.shape
    if rows != columns and stored.bias == columns:
        reason = "inputs first, as the bias is as long as a row"
        return LayerTensor(stored.name, stored.shape, inputs_first=True, assumed=reason)
    known = _WEIGHT.fullmatch(stored.leaf) or stored.bias == rows
    return LayerTensor(
        stored.name, stored.shape, assumed=None if known else "a dense layer, its rows the outputs; no name tells"
    )


RULES: tuple[Rule, ...] = (
    _unreadable,
    _no_numbers,
    _optimiser_state,
    _mask,
    _vector,
    _element_by_element,
    _recurrent,
    _attention_input,
    _embedding,
    _dense,
    read_kernel,
)
"""In the order in which they are asked."""
