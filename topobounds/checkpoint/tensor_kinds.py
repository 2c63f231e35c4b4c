"""What a stored tensor is, by its name, shape, neighbours and config: a table of rules, the first that knows it counts.

A rule returns a `LayerTensor`, or a reason why the tensor is no layer, or None where it does not know.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from topobounds.checkpoint.coded import coded
from topobounds.checkpoint.experts import read_experts
from topobounds.checkpoint.fused import QKV, projection_words, read_conv1d, read_fused
from topobounds.checkpoint.keras import read_keras
from topobounds.checkpoint.kernels import read_kernel
from topobounds.checkpoint.stored import Stored
from topobounds.layers import LayerTensor
from topobounds.layers.layer_tensor import GATES, gate_words, numbered_parts

Answer = LayerTensor | str | None
Rule = Callable[[Stored], Answer]

_GATES_BY_NUMBER = {1: GATES["RNN"], 3: GATES["GRU"], 4: GATES["LSTM"]}
_OPTIMISER = re.compile(
    r"(^|[./])optim(izer|iser)?(_state)?[./]|exp_avg(_sq)?$|momentum_buffer$|^(adam\w*|rmsprop|sgd|nadam|adagrad|lion)[./]",
    re.IGNORECASE,
)
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
    dtype = stored.tensors.dtypes[stored.name]
    return dtype if isinstance(dtype, str) else None


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
    if not re.match("u?int", stored.dtype):
        return f"no real numbers of at most 64 bits ({stored.dtype})"
    return f"buffer ({stored.dtype})"


def _optimiser_state(stored: Stored) -> Answer:
    return "optimiser state" if _OPTIMISER.search(stored.name) else None


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
    for pattern, reason in _NO_LAYERS if stored.leaf != "weight" else ():
        if re.fullmatch(pattern, stored.leaf, re.IGNORECASE):
            return reason
    return None


def _norm_or_bias(stored: Stored) -> Answer:
    """Leave out norms, biases and vectors that are stored with several dimensions."""
    same = {"weight": "bias", "bias": "weight", "scale": "bias"}.get(stored.leaf)
    if same is not None and stored.beside(same) == stored.shape:
        return "norm"
    if stored.leaf in ("scale", "gamma", "beta", "g") and stored.has_word("norm"):
        return "norm"
    if stored.leaf == "bias" and stored.shape[:-2] == (1, 1) and stored.shape[-1] == stored.shape[-2]:
        return "mask"  # of GPT-2 and its like, where a head may look
    if re.search(r"(^|_)bias(es)?(_[kuv])?$", stored.leaf):
        return "bias of several dimensions"
    if sum(size > 1 for size in stored.shape) < 2 and not _WEIGHT.fullmatch(stored.leaf):
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
    (r"latents?(_\w+)?|latent_quer(y|ies)", "learned token"),
    (r"embed_(avg|sum)|ema_\w+", "running average"),
    (r"running_(mean|var)|moving_(mean|variance)|inv_freq|(cos|sin)_cached", "buffer"),
    (r"(.*scale_shift_table|layer_?scale\w*|gamma_?\d*|ls\d?)", "scale, multiplied element by element"),
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


def _attention_input(stored: Stored) -> Answer:
    """Read the three projections of torch's MultiheadAttention in one matrix."""
    if stored.leaf != "in_proj_weight" or len(stored.shape) != 2 or stored.shape[0] != 3 * stored.shape[1]:
        return None
    return LayerTensor(stored.name, stored.shape, parts=QKV, words=projection_words(QKV))


def _low_rank(stored: Stored) -> Answer:
    """Read a factor of an adapter (LoRA) as a layer of its own."""
    factor = low_rank_factor(stored.name)
    if factor is None:
        return None
    found = _dense(stored) if len(stored.shape) == 2 else read_kernel(stored)
    words = (f"low-rank factor {factor} (LoRA)",)
    return replace(found, words=words) if isinstance(found, LayerTensor) else found


def low_rank_factor(name: str) -> str | None:
    """Return which of the two factors of an adapter (LoRA) a tensor is, by its name; None where it is none.

    Examples
    --------
    >>> low_rank_factor("layers.0.q_proj.lora_A.weight"), low_rank_factor("q_proj.weight")
    ('A', None)
    """
    match = re.search(r"(?:^|[._/])lora_(?:embedding_)?(A|B|down|up)(?:$|[._/])", name, re.IGNORECASE)
    return None if match is None else {"a": "A", "down": "A"}.get(match[1].lower(), "B")


def _named(stored: Stored) -> str:
    """Return what a tensor is called: its last piece, or its module, or the list that this is in."""
    if not _WEIGHT.fullmatch(stored.leaf):
        return stored.leaf
    around = stored.pieces[-3] if len(stored.pieces) > 2 and stored.module.isdigit() else ""
    return around if re.search(r"embed(ding)?s?(_|$)", around) else stored.module


_TABLES = {"emb", "embs", "embed", "embeds", "embedding", "embeddings", "lut", "codebook"}
_NO_TABLES = {
    "out", "proj", "projection", "projector", "head", "mapping", "linear", "dense", "fc", "patch", "norm", "avg", "sum",
}  # fmt: skip
_EMBEDDINGS = r"w[tp]e|relative_attention_bias|rel_embeddings|(queries|row|column)_embedder|query_feat|.*_tokens?"


def _array_times_matrix(stored: Stored) -> Answer:
    """Read the projections of CLIP, which are parameters that an activation is multiplied by from the left."""
    named = stored.leaf in ("text_projection", "image_projection") or stored.pieces[-2:] == ["visual", "proj"]
    if not named or len(stored.shape) != 2:
        return None
    return LayerTensor(stored.name, stored.shape, inputs_first=True, assumed="inputs first, as in CLIP")


def _embedding(stored: Stored) -> Answer:
    """Read a table of vectors, told by its name, and as it has no bias."""
    if len(stored.shape) != 2 or stored.bias is not None:
        return None
    named = _named(stored)
    words = set(re.split("[_-]", named.lower()))
    known = (words & _TABLES and not words & _NO_TABLES) or re.fullmatch(_EMBEDDINGS, named, re.IGNORECASE)
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
    coded,
    _unreadable,
    _mask,
    _no_numbers,
    _optimiser_state,
    _vector,
    _recurrent,
    _low_rank,
    _element_by_element,
    _norm_or_bias,
    _attention_input,
    read_experts,
    read_fused,
    read_conv1d,
    read_keras,
    _embedding,
    _array_times_matrix,
    _dense,
    read_kernel,
)
"""In the order in which they are asked."""
