"""Quantised and packed weights: their codes and what belongs to them, told by name and dtype."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from topobounds.checkpoint.stored import Stored


@dataclass(frozen=True)
class Coding:
    """A way to store weights in another form.

    Attributes
    ----------
    about : str
        What the codes are.
    is_code : callable
        Whether a tensor holds such codes.
    companion : str
        Pattern of the names of the tensors beside them; ``{}`` stands for the name, or the path, of the codes.
    """

    about: str
    is_code: Callable[[Stored], bool]
    companion: re.Pattern[str]


def coded(stored: Stored) -> str | None:
    """Return what a tensor of quantised weights is, or what it belongs to; None where it is none."""
    if "_packed_params" in stored.name:
        return "packed parameters of a quantised layer of torch"
    for coding in _CODINGS if stored.tensors.has_codes else ():
        if coding.is_code(stored):
            return f"{coding.about} ({stored.dtype or 'unknown type'}), which are not read"
        match = coding.companion.fullmatch(stored.name)
        if match is None:
            continue
        for code in stored.tensors.of_module(match[1]):
            if coding.is_code(code):
                return f"belongs to the quantised '{code.name}'"
    if re.fullmatch(r"(weight|input|output)_(scale|zero_point|global_scale)\w*|[kqv]_scale", stored.leaf):
        return "scale of quantised values"
    return None


def _is_named(*leaves: str) -> Callable[[Stored], bool]:
    return lambda stored: stored.leaf in leaves


def _is_bitsandbytes(stored: Stored) -> bool:
    return any(f"{stored.name}.{part}" in stored.tensors.dtypes for part in ("absmax", "quant_map"))


def _is_linear8bit(stored: Stored) -> bool:
    return stored.dtype in ("int8", "uint8") and stored.beside("SCB") is not None


def _is_aqlm(stored: Stored) -> bool:
    return stored.leaf == "codes" and stored.beside("codebooks") is not None


def _is_blocks(stored: Stored) -> bool:
    return stored.leaf.endswith("_blocks") and stored.beside(f"{stored.leaf.removesuffix('blocks')}scales") is not None


def _is_quanto(stored: Stored) -> bool:
    return stored.leaf == "_data" and stored.beside("_scale") is not None


def _is_torchao(stored: Stored) -> bool:
    return stored.leaf.endswith("_qdata")


def _is_sparse(stored: Stored) -> bool:
    return stored.leaf == "compressed" and stored.beside("bitmask") is not None


def _has_unknown_scale(stored: Stored) -> bool:
    """Whether a matrix of float8 has beside it what is called a scale, under whatever name."""
    if not stored.dtype.startswith("float8") or len(stored.shape) < 2:
        return False
    if stored.tensors.of_module(f"{stored.path}{stored.leaf}_quantizer."):
        return True
    return any(re.fullmatch(_SCALES, other.leaf) for other in stored.tensors.of_module(stored.path))


def _has_scale(stored: Stored) -> bool:
    """Whether the values have one byte or less, and a scale beside them."""
    if not re.match("u?int[248]|float[468]", stored.dtype):
        return False
    own = (f"{stored.leaf}{ending}" for ending in ("_scale", "_scales", "_scale_inv", "_scale_2", ".scale", ".scales"))
    return any(stored.beside(leaf) is not None for leaf in (*own, "scale", "scales", "scale_inv"))


_LEAVES = r"(.*[./]|)(%s)"
_SCALES = r"(?!(?:layer|logit|embed|res)_?scale|scale_shift)(?:\w*_)?q?(?:scales?|scaling|amax)(?:_\w+)?"
"""Names of scales of codes, and not of those that multiply activations in models that are not quantised."""
_CODINGS = (
    Coding(
        "4-bit codes of bitsandbytes",
        _is_bitsandbytes,
        re.compile(r"(.*[./]|)[^./]+\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state[./].*)"),
    ),
    Coding("8-bit codes of bitsandbytes", _is_linear8bit, re.compile(_LEAVES % "SCB|weight_format")),
    Coding(
        "packed codes of GPTQ or AWQ", _is_named("qweight"), re.compile(_LEAVES % "qzeros|g_idx|scales|perm|qzeros_hf")
    ),
    Coding(
        "packed codes of compressed-tensors",
        _is_named("weight_packed"),
        re.compile(_LEAVES % r"weight_(scale|shape|zero_point|global_scale|g_idx)\w*"),
    ),
    Coding("codes of MXFP4, packed", _is_blocks, re.compile(_LEAVES % r"\w+_scales")),
    Coding("packed codes of HQQ", _is_named("W_q"), re.compile(_LEAVES % "scale|zero|meta")),
    Coding("codes of AQLM", _is_aqlm, re.compile(_LEAVES % "codebooks|scales")),
    Coding("codes of quanto", _is_quanto, re.compile(_LEAVES % "_scale|_shift")),
    Coding("codes of torchao", _is_torchao, re.compile(_LEAVES % r"\w+_(\w*scale\w*|zero_point|sparse_metadata)")),
    Coding(
        "the values other than zero of a sparse matrix",
        _is_sparse,
        re.compile(_LEAVES % "bitmask|shape|row_offsets|weight_scale|weight_zero_point"),
    ),
    Coding("codes with a scale beside them", _has_scale, re.compile(_LEAVES % r"(\w+_)?(scales?|zero_point)\w*")),
    Coding("codes with a scale beside them", _has_scale, re.compile(r"(.*[./]|)[^./]+\.(scales?)")),
    Coding("codes with a scale beside them", _has_unknown_scale, re.compile(_LEAVES % _SCALES)),
)
"""The ways that are known, in the order in which they are asked."""
