"""The kinds of quantised weights in state dicts: how each is told by its parts, and how it is decoded.

A kind is a function of a module and the own name of one of its tensors, the codes; to add one, write it and put it into
`CODE_FORMATS`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._types import Array
from topobounds.checkpoint.coded_weights import CodedModule, CodedWeight, UnreadCodedWeight
from topobounds.checkpoint.json_text import parsed_json
from topobounds.checkpoint.packed import MOST_BITS, awq_ordered, unpacked, with_zeros, words_of
from topobounds.weights import ScaledWeights

FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_EXPONENTS = "float8_e8m0fnu"
FLOATS = ("float16", "bfloat16", "float32", "float64")
_USUAL_BLOCK = (128,)
"""The sides of the blocks that share a scale, where no config.json tells others."""
_MX_GROUP = (32,)
_LONGEST_STATE = 2**16
"""Bytes of the JSON text that bitsandbytes keeps beside a weight of four bits."""
_LARGEST_INT8 = 127
"""The code of the largest magnitude of a row in bitsandbytes' weights of eight bits."""

_AUTO_ROUND = "auto-round"
_PACKINGS_OF_AUTO_ROUND = {
    "auto_round:auto_gptq": ("gptq", "gptq"),
    "auto_round:gptq": ("gptq", "gptq"),
    "auto_round": ("gptq", "gptq_v2"),
    "auto_round:gptqmodel": ("gptq", "gptq_v2"),
    "auto_round:auto_awq": ("awq", "gemm"),
    "auto_round:awq": ("awq", "gemm"),
}
"""Whose packing AutoRound used, and of which version, by its ``packing_format``."""

Kind = Callable[[CodedModule, str], CodedWeight | UnreadCodedWeight | None]


# -- codes of eight bits, each an array item --------------------------------------------------------------------------


def scaled_codes(module: CodedModule, own: str) -> CodedWeight | UnreadCodedWeight | None:
    """Return float8 or int8 codes whose scales are a tensor beside them: one, or one for each row, group or block."""
    dtype = module.dtype(own)
    if dtype not in (*FLOAT8, "int8") or len(module.shape(own)) < 2:
        return None
    is_weight = own == "weight"
    seconds = [f"{own}_scale_2", f"{own}_global_scale"]
    names = [f"{own}_scale_inv", f"{own}_scale", *seconds, *(["scale_weight"] if is_weight else [])]
    found = [name for name in names if name in module]
    if not found and is_weight and "scale" in module:  # beside a scale of a clearer name it is something else
        found = ["scale"]
    if not found:
        return None
    besides = {"zeros": f"{own}_zero_point", "groups": f"{own}_g_idx"}
    besides = {role: name for role, name in besides.items() if name in module}
    if len(found) > 1 or found[0] in seconds:
        return module.refused((own, *found, *besides.values()), _several(found))
    roles = {"codes": own, "scale": found[0]} | besides
    missing = _missing(module, own, roles)
    return module.refused(tuple(roles.values()), missing) if missing else _scaled(module, own, roles)


def _several(scales: Sequence[str]) -> str:
    count = "several scales" if len(scales) > 1 else "a second scale and no first"
    named = ", ".join(f"'{name}'" for name in scales)
    return f"it has {count}, {named}: that is not known"


def _missing(module: CodedModule, name: str, roles: Mapping[str, str]) -> str:
    """Return which part of a weight of compressed-tensors its config tells and the module lacks; empty where none."""
    scales = module.shape(roles["scale"])
    if module.dtype(roles["codes"]) not in FLOAT8 and "zeros" not in roles and module.quantisation.tells_zeros:
        return _not_opened("zero points", f"{name}_zero_point")
    if "groups" not in roles and module.quantisation.tells_order_of_groups and len(scales) > 1 and scales[-1] > 1:
        return _not_opened("an order of its groups", f"{name}_g_idx")
    return ""


def _not_opened(what: str, name: str) -> str:
    return f"its config tells {what}, and '{name}' is not in what was opened"


def _scaled(module: CodedModule, own: str, roles: Mapping[str, str]) -> CodedWeight | UnreadCodedWeight:
    scale_type = module.dtype(roles["scale"])
    as_exponents = scale_type == "uint8" and module.dtype(own) in FLOAT8
    shape, scales = module.shape(own), module.shape(roles["scale"])
    if scale_type not in (*FLOATS, _EXPONENTS) and not as_exponents:
        kind = scale_type or "a type that numpy has no name for"
        return module.refused(tuple(roles.values()), f"its scales, '{roles['scale']}', are of {kind}")
    if scale_type == _EXPONENTS and module.dtype(own) == "int8":
        return module.refused(
            tuple(roles.values()), "bytes with scales that are powers of two: they may be two codes each"
        )
    told, usual = ([_MX_GROUP], ()) if as_exponents else ([*module.quantisation.blocks], _USUAL_BLOCK)
    if not told and roles["scale"].endswith("_scale_inv") and len(scales) > 1:  # as DeepSeek names those of its blocks
        told.append(_USUAL_BLOCK)
    places = scale_places(shape, scales, told, usual)
    if places is None:
        return module.refused(tuple(roles.values()), _misfit(shape, scales))
    placed, block = places
    if "zeros" in roles and not _are_placed(module.shape(roles["zeros"]), placed):
        sizes = f"its zero points are {_by(module.shape(roles['zeros']))}, its scales {_by(scales)}"
        return module.refused(tuple(roles.values()), sizes)
    if "groups" in roles and module.shape(roles["groups"]) != shape[-1:]:
        sizes = f"the order of its groups is {_by(module.shape(roles['groups']))}, its codes are {_by(shape)}"
        return module.refused(tuple(roles.values()), sizes)
    written = "({codes} - {zeros}) * {scale}" if "zeros" in roles else "{codes} * {scale}"
    decode = partial(_decode_scaled, placed=placed, block=block, as_exponents=as_exponents)
    return module.coded(own, roles, written + _in_blocks(placed, block), shape, decode)


def _are_placed(zeros: tuple[int, ...], placed: tuple[int, ...]) -> bool:
    """Whether zero points lie as their scales do, without the last axes of one, or all in one row.

    Examples
    --------
    >>> _are_placed((3,), (3, 1)), _are_placed((6,), (3, 2)), _are_placed((2, 3), (3, 2)), _are_placed((1, 3), (3, 1))
    (True, True, False, False)
    """
    number = math.prod(placed)
    if number == 1:
        return math.prod(zeros) == 1
    return zeros == (number,) or zeros + (1,) * (len(placed) - len(zeros)) == placed


def _decode_scaled(
    parts: Mapping[str, Array], placed: tuple[int, ...], block: tuple[int, ...], as_exponents: bool
) -> Array | ScaledWeights:
    codes, scale = parts["codes"], parts["scale"]
    if as_exponents:
        scale = scale.view(np.dtype(_EXPONENTS))
    zeros = parts["zeros"].reshape(placed) if "zeros" in parts else None
    groups = _order_of_groups(parts.get("groups"), placed[-1])
    if zeros is not None and codes.dtype != np.int8:
        if np.any(zeros.astype(np.float32)):
            raise ValueError("it has zero points, which float8 codes do not")
        zeros = None
    return with_zeros(
        codes, None if zeros is None else _whole(zeros), scale.reshape(placed).astype(np.float32), block, groups
    )


def _whole(zeros: Array) -> Array:
    """Return zero points as integers, of whatever type they are stored."""
    if zeros.dtype.kind in "iu":
        return zeros
    exact: NDArray[np.float64] = zeros.astype(np.float64)
    if not (np.abs(exact) < 2**53).all() or (exact != np.rint(exact)).any():
        raise ValueError("its zero points are no whole numbers")
    return exact.astype(np.int64)


def scale_places(
    shape: tuple[int, ...],
    scales: tuple[int, ...],
    told: Sequence[tuple[int, ...]],
    usual: tuple[int, ...] = (),
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return where the scales of codes stand: their shape with as many axes as the codes, and the sides of a block.

    Along an axis with one scale, or with one for each code, that is clear. Along the others the blocks have the sides
    that are told, the last of which are those of the last axes; where none fits, those that cut the last axis, or all
    axes without a scale for each code alike, into equal parts, and else the usual ones. None where nothing fits, where
    several that are told do, and, if blocks need not be equal as some are usual, where a power of two cuts the axes
    into as many parts.

    Examples
    --------
    >>> scale_places((300, 256), (3, 2), [(128, 128)]), scale_places((6, 4), (6,), [])
    (((3, 2), (128, 128)), ((6, 1), (1, 1)))
    >>> scale_places((300, 256), (7, 2), [(128, 128)]) is None
    True
    >>> scale_places((6, 96), (6, 2), []), scale_places((6, 96), (6, 2), [], usual=(128,))  # of 48, or of 64 and 32
    (((6, 2), (1, 48)), None)
    >>> scale_places((6, 160), (6, 2), [(80,), (128,)]) is None, scale_places((6, 160), (6, 2), [(80,), (64,)])
    (True, ((6, 2), (1, 80)))
    """
    if math.prod(scales) == 1:
        return (1,) * len(shape), (1,) * len(shape)
    placed = scales + (1,) * (len(shape) - len(scales))
    if len(placed) > len(shape) or 0 in placed or (len(scales) == 1 and scales[0] != shape[0]):
        return None
    cut = [axis for axis, n in enumerate(placed) if n not in (1, shape[axis])]
    equal = {shape[axis] / n for axis, n in enumerate(placed) if n != shape[axis]}
    if cut and cut[-1] == len(shape) - 1 and len(equal) == 1 and (side := equal.pop()).is_integer():
        is_clear = not usual or not all(_rival(shape[axis], placed[axis]) for axis in cut)
        others: list[tuple[int, ...]] = [(int(side),)] if is_clear else []
    else:
        others = [usual] if usual else []
    fitting = _fitting_blocks(shape, placed, told) or _fitting_blocks(shape, placed, others or [(1,)])[:1]
    return (placed, fitting[0]) if len(set(fitting)) == 1 else None


def _fitting_blocks(
    shape: tuple[int, ...], placed: tuple[int, ...], told: Sequence[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Return the sides of blocks, of those that are told, that cut codes into as many parts as they have scales."""
    cut = [axis for axis, n in enumerate(placed) if n not in (1, shape[axis])]
    found = []
    for sides in told:
        spread = (sides[0],) * (len(shape) - len(sides)) + sides[-len(shape) :]
        if all(-(-shape[axis] // spread[axis]) == placed[axis] for axis in cut):
            found.append(tuple(spread[axis] if axis in cut else 1 for axis in range(len(shape))))
    return found


def _in_blocks(scales: tuple[int, ...], block: tuple[int, ...]) -> str:
    """Return which codes share a scale, in words."""
    if math.prod(scales) == 1:
        return ", one scale"
    if math.prod(scales) == scales[0] and block[0] == 1:
        return ", a scale for each row"
    sides = [str(side) if n > 1 else "all" for side, n in zip(block, scales, strict=True)]
    return f", a scale for each {' x '.join(sides)}"


def _order_of_groups(groups: Array | None, n_groups: int) -> Array | None:
    """Return the group of each code of a row; None where it was made and never filled."""
    if groups is None or (groups == -1).all():
        return None
    if groups.dtype.kind not in "iu" or groups.min() < 0 or groups.max() >= n_groups:
        raise ValueError(f"the order of its groups names another than the {n_groups} there are")
    return groups


# -- weights of bitsandbytes ------------------------------------------------------------------------------------------


def bitsandbytes_8_bits(module: CodedModule, own: str) -> CodedWeight | UnreadCodedWeight | None:
    """Return int8 codes with the largest magnitude of each row in ``SCB``."""
    if own != "weight" or "SCB" not in module or module.dtype(own) != "int8":
        return None
    parts = (own, "SCB", "weight_format")
    shape = module.shape(own)
    if len(shape) != 2 or math.prod(module.shape("SCB")) != shape[0]:
        return module.refused(parts, f"its rows' magnitudes, 'SCB', are {_by(module.shape('SCB'))}, not {shape[:1]}")
    order = module.small("weight_format", 1) if "weight_format" in module else None
    if order is not None and np.any(order):
        return module.refused(parts, "its codes are in the order of a kernel ('weight_format'), which is not known")
    roles = {"codes": own, "scale": "SCB"} | ({"order": "weight_format"} if "weight_format" in module else {})
    return module.coded(own, roles, f"{{codes}} * {{scale}} / {_LARGEST_INT8}", shape, _decode_8_bits)


def _decode_8_bits(parts: Mapping[str, Array]) -> ScaledWeights:
    largest = parts["scale"].astype(np.float32).reshape(-1, 1)
    return ScaledWeights(parts["codes"], largest / np.float32(_LARGEST_INT8))


def bitsandbytes_4_bits(module: CodedModule, own: str) -> CodedWeight | UnreadCodedWeight | None:
    """Return codes of four bits, two in a byte, that stand for the values of a table, times a scale for each block."""
    states = [name for name in module.own if name.startswith(f"{own}.quant_state.bitsandbytes__")]
    if len(states) != 1:
        return None
    roles = {"codes": own, "scale": f"{own}.absmax", "table": f"{own}.quant_map", "state": states[0]}
    nested = {"outer_scale": f"{own}.nested_absmax", "outer_table": f"{own}.nested_quant_map"}
    owns = (*roles.values(), *nested.values())
    state = _state(module.small(states[0], _LONGEST_STATE))
    if state is None:
        return module.refused(owns, f"'{module.stored(states[0])}' does not say its shape and the size of its blocks")
    shape, block = state["shape"], state["blocksize"]
    if "nested_blocksize" in state:
        roles |= nested
    missing = [name for name in roles.values() if name not in module]
    if missing:
        return module.refused(owns, f"its part '{module.stored(missing[0])}' is missing")
    if "nested_blocksize" not in state and module.dtype(roles["scale"]) not in FLOATS:
        kind = module.dtype(roles["scale"])
        return module.refused(owns, f"its scales, '{module.stored(roles['scale'])}', are of {kind}")
    n_weights = math.prod(shape)
    n_bytes = math.prod(module.shape(own)) * module.checkpoint.dtype(module.stored(own)).itemsize
    if n_bytes != -(-n_weights // 2) or math.prod(module.shape(roles["scale"])) != -(-n_weights // block):
        sizes = f"it has {n_bytes} bytes and {_by(module.shape(roles['scale']))} scales"
        return module.refused(owns, f"{sizes}, which are not those of {_by(shape)} weights in blocks of {block}")
    written = f"{{table}}[{{codes}}] * {{scale}}, blocks of {block}"
    decode = partial(_decode_4_bits, shape=tuple(shape), state=state)
    return module.coded(own, roles, written, tuple(shape), decode)


def _state(stored: Array | None) -> dict[str, Any] | None:
    """Return what bitsandbytes says of a weight of four bits, if it is what it should be."""
    try:
        state = parsed_json(bytes(stored.astype(np.uint8)))  # type: ignore[union-attr]
        counts = [*state["shape"], state["blocksize"], state.get("nested_blocksize", 1)]
        is_nested = {"nested_blocksize", "nested_offset"} & set(state)
        offset = float(state["nested_offset"] if is_nested else 0)
    except (AttributeError, ValueError, TypeError, LookupError):
        return None
    is_good = state["shape"] and all(type(count) is int and 0 < count < 2**40 for count in counts)
    return state if is_good and math.isfinite(offset) and len(is_nested) != 1 else None


def _decode_4_bits(parts: Mapping[str, Array], shape: tuple[int, ...], state: Mapping[str, Any]) -> Array:
    scale = parts["scale"]
    if "outer_scale" in parts:
        outer = _from_table(scale, parts["outer_table"], parts["outer_scale"], state["nested_blocksize"])
        scale = outer + np.float32(state["nested_offset"])
    stored = np.ascontiguousarray(parts["codes"]).view(np.uint8).reshape(-1)
    codes = np.stack([stored >> 4, stored & 15], axis=-1).reshape(-1)[: math.prod(shape)]
    return _from_table(codes, parts["table"], scale, state["blocksize"]).reshape(shape)


def _from_table(codes: Array, table: Array, scale: Array, block: int) -> NDArray[np.float32]:
    """Return the values of codes in a table, times the scale of each block."""
    if codes.dtype != np.uint8 or table.ndim != 1 or scale.size != -(-codes.size // block):
        raise ValueError("its codes, its table and its scales are not those of blocks of bytes")
    values = table.astype(np.float32)[codes.reshape(-1)]
    scale = scale.astype(np.float32).reshape(-1)
    if not np.isfinite(scale).all():
        first = int(np.argmin(np.isfinite(scale)))
        raise ValueError(f"its scales must be finite in float32, and that of block {first} is {scale[first]}")
    values *= np.repeat(scale, block)[: values.size]
    return values


# -- codes of a few bits, packed into words ---------------------------------------------------------------------------


def gptq_or_awq(module: CodedModule, own: str) -> CodedWeight | UnreadCodedWeight | None:
    """Return the weights of GPTQ and of AWQ: codes, zero points and scales, inputs first."""
    if own != "qweight" or "scales" not in module:
        return None
    owns = (own, "qzeros", "scales", "g_idx", "w_bf16_to_fp8_scale", "act_scales")
    unfit = _unfit_words(module)
    if unfit:
        return module.refused(owns, unfit)
    codes, scales = module.shape(own), module.shape("scales")
    method, order = _packing(module)
    if codes[1] == scales[1] and method in ("", "gptq"):
        return _gptq(module, owns, order)
    if codes[1] == words_of(scales[1], 4) and method in ("", "awq"):
        return _awq(module, owns, order)
    if method.endswith(_AUTO_ROUND):
        packing = f"is '{order}', which is not known" if order else "is not told"
        return module.refused(owns, f"its packing_format of {method} {packing}")
    return module.refused(owns, f"its codes are {_by(codes)}, its scales {_by(scales)}, as of no known packing")


def _unfit_words(module: CodedModule) -> str:
    """Return why the parts of a module are none that GPTQ or AWQ could have packed; empty where they may be."""
    if "weight" in module:
        return _taken(module, "weight")
    if "qzeros" not in module:
        return "its zero points, 'qzeros', are missing"
    if "w_bf16_to_fp8_scale" in module:
        return "its codes are made float8 before they are weights ('w_bf16_to_fp8_scale'), which is not read"
    types = [module.dtype(name) for name in ("qweight", "qzeros", "scales")]
    shapes = [module.shape(name) for name in ("qweight", "qzeros", "scales")]
    if types[:2] != ["int32"] * 2 or types[2] not in FLOATS or any(len(shape) != 2 for shape in shapes):
        return f"its parts are of {', '.join(types)}, and no 32-bit words with scales"
    return f"its parts are {', '.join(map(_by, shapes))}: some are empty" if any(0 in shape for shape in shapes) else ""


def _packing(module: CodedModule) -> tuple[str, str]:
    """Return the method that packed the codes, and their order in the words, where the config tells them."""
    told = module.quantisation.packed_setting
    method = told("quant_method")
    if method.endswith(_AUTO_ROUND):
        order = told("packing_format")
        return _PACKINGS_OF_AUTO_ROUND.get(order, (method, order))
    return method, told("checkpoint_format") or told("version")


def _gptq(module: CodedModule, owns: tuple[str, ...], order: str) -> CodedWeight | UnreadCodedWeight:
    if order not in ("", "gptq", "gptq_v2"):
        return module.refused(owns, f"its codes are in the order of '{order}', which is not known")
    (n_words, columns), zeros = module.shape("qweight"), module.shape("qzeros")
    n_groups = module.shape("scales")[0]
    told = module.quantisation.bits
    n_inputs = module.shape("g_idx") if "g_idx" in module else ()
    fitting = [
        bits
        for bits in range(2, MOST_BITS + 1)
        if zeros == (n_groups, words_of(columns, bits)) and (not told or bits in told) and n_words * 32 % bits == 0
    ]
    if n_inputs:
        fitting = [bits for bits in fitting if n_inputs == (n_words * 32 // bits,)]
    are_clear = len(fitting) == 1 and (told or n_inputs or n_words % fitting[0] == 0)  # as of 32 inputs, or 64, ...
    if not are_clear:
        sizes = f"its codes are {_by((n_words, columns))} words, its zero points {_by(zeros)}"
        return module.refused(owns, f"{sizes}, its scales {_by(module.shape('scales'))}: its bits are not clear")
    bits = fitting[0]
    rows = n_words * 32 // bits
    size = _group_size(rows, n_groups, module.quantisation.group_sizes)
    if not n_inputs and not size:
        return module.refused(owns, _unclear_groups(rows, n_groups))
    if not n_inputs and n_groups > 1 and module.quantisation.tells_order_of_groups:
        return module.refused(owns, _not_opened("an order of its groups", "g_idx"))
    roles = {"codes": "qweight", "zeros": "qzeros", "scale": "scales"} | ({"groups": "g_idx"} if n_inputs else {})
    offset = 0 if order == "gptq_v2" else 1
    minus = "{zeros}" if order == "gptq_v2" else "({zeros} + 1)"
    written = f"transpose of ({{codes}} - {minus}) * {{scale}}, {bits} bits in {n_groups} groups"
    decode = partial(_decode_gptq, bits=bits, shape=(columns, rows), offset=offset, size=size)
    return module.coded("weight", roles, written, (columns, rows), decode)


def _decode_gptq(
    parts: Mapping[str, Array], bits: int, shape: tuple[int, int], offset: int, size: int
) -> Array | ScaledWeights:
    columns, rows = shape
    scale = np.ascontiguousarray(parts["scale"].T.astype(np.float32))
    codes = unpacked(parts["codes"].T, bits, rows)
    # GPTQ's first format stores the zero point minus one, which wraps: a zero point of 0 is stored as the largest code.
    zeros = (unpacked(parts["zeros"], bits, columns).T + np.uint8(offset)) & np.uint8(2**bits - 1)
    return _in_groups(codes, zeros, scale, parts.get("groups"), size)


def _awq(module: CodedModule, owns: tuple[str, ...], order: str) -> CodedWeight | UnreadCodedWeight:
    if order not in ("", "gemm"):
        return module.refused(owns, f"its codes are in the order of '{order}', which is not known")
    rows, n_words = module.shape("qweight")
    n_groups, columns = module.shape("scales")
    sizes = f"its codes are {_by((rows, n_words))} words, its zero points {_by(module.shape('qzeros'))}"
    if module.shape("qzeros") != (n_groups, n_words) or columns != 8 * n_words or rows % max(n_groups, 1):
        return module.refused(owns, f"{sizes}, its scales {_by((n_groups, columns))}: that is not AWQ's 4 bits")
    if module.quantisation.bits and 4 not in module.quantisation.bits:
        return module.refused(owns, "its config tells another number of bits than the 4 of its sizes")
    roles = {"codes": "qweight", "zeros": "qzeros", "scale": "scales"}
    written = f"transpose of ({{codes}} - {{zeros}}) * {{scale}}, 4 bits in {n_groups} groups"
    return module.coded("weight", roles, written, (columns, rows), _decode_awq)


def _decode_awq(parts: Mapping[str, Array]) -> Array | ScaledWeights:
    scale = np.ascontiguousarray(parts["scale"].T.astype(np.float32))
    codes, zeros = (
        np.ascontiguousarray(awq_ordered(unpacked(parts[role], 4, len(scale))).T) for role in ("codes", "zeros")
    )
    return _in_groups(codes, zeros, scale, None, codes.shape[1] // scale.shape[1])


def _in_groups(codes: Array, zeros: Array, scale: Array, groups: Array | None, size: int) -> Array | ScaledWeights:
    """Return weights, outputs first, whose groups are so many neighbours unless their order is another."""
    n_inputs, n_groups = codes.shape[1], scale.shape[1]
    order = _order_of_groups(groups, n_groups)
    if order is not None and size and np.array_equal(order, np.arange(n_inputs) // size):
        order = None
    if order is None and not size:
        raise ValueError(_unclear_groups(n_inputs, n_groups))
    return with_zeros(codes, zeros, scale, (1, size), order)


def _group_size(n_inputs: int, n_groups: int, told: Collection[int]) -> int:
    """Return how many neighbours share a scale, of which the last group may have fewer; 0 where it is not clear.

    Examples
    --------
    >>> _group_size(160, 2, {128}), _group_size(160, 2, ()), _group_size(160, 5, ())
    (128, 0, 32)
    """
    if n_groups == 1:
        return n_inputs
    fitting = {size for size in told if -(-n_inputs // size) == n_groups}
    if fitting:
        return fitting.pop() if len(fitting) == 1 else 0
    return 0 if n_inputs % n_groups or _rival(n_inputs, n_groups) else n_inputs // n_groups


def _rival(length: int, n_blocks: int) -> int:
    """Return which power of two, as sides of blocks usually are, cuts a length into as many unequal blocks; 0 if none.

    Examples
    --------
    >>> _rival(160, 2), _rival(256, 2), _rival(2560, 32)
    (128, 0, 0)
    """
    power = 1 << (-(-length // n_blocks) - 1).bit_length()
    return power if length % power and -(-length // power) == n_blocks else 0


def _unclear_groups(n_inputs: int, n_groups: int) -> str:
    return f"its {n_inputs} inputs are in {n_groups} groups, and nothing says how many are in each"


def packed_by_compressed_tensors(module: CodedModule, own: str) -> CodedWeight | UnreadCodedWeight | None:
    """Return the ``pack-quantized`` weights of compressed-tensors; its weights of four-bit floats are not read."""
    if not own.endswith("_packed") or f"{own.removesuffix('_packed')}_scale" not in module:
        return None
    name = own.removesuffix("_packed")
    named = {"codes": own, "scale": f"{name}_scale", "shape": f"{name}_shape"}
    besides = {"zeros": f"{name}_zero_point", "groups": f"{name}_g_idx"}
    roles = named | {role: other for role, other in besides.items() if other in module}
    seconds = (f"{name}_global_scale", f"{name}_scale_2")
    owns = (*roles.values(), *seconds)
    if module.dtype(own) == "uint8":
        kind = "MXFP4" if module.dtype(named["scale"]) in ("uint8", _EXPONENTS) else "NVFP4"
        return module.refused(owns, f"{kind}, two floating-point codes in a byte, which is not read")
    if module.dtype(own) != "int32" or module.dtype(named["scale"]) not in FLOATS:
        kinds = f"its codes are of {module.dtype(own)}, its scales of {module.dtype(named['scale'])}"
        return module.refused(owns, f"{kinds}: that packing is not known")
    stored = module.small(named["shape"], 8) if named["shape"] in module else None
    if stored is None or stored.dtype.kind not in "iu" or stored.size < 2:
        return module.refused(owns, f"its shape, '{module.stored(named['shape'])}', is missing or no list of sizes")
    unfit = _taken(module, name) or _missing(module, name, roles)
    unfit = unfit or next((_several((named["scale"], each)) for each in seconds if each in module), "")
    if unfit:
        return module.refused(owns, unfit)
    shape = tuple(map(int, stored.reshape(-1)))
    return _packed(module, name, roles, owns, shape)


def _packed(
    module: CodedModule, name: str, roles: Mapping[str, str], owns: tuple[str, ...], shape: tuple[int, ...]
) -> CodedWeight | UnreadCodedWeight:
    words, scales = module.shape(roles["codes"]), module.shape(roles["scale"])
    sizes = f"its codes are {_by(words)} words, its shape says {_by(shape)}"
    told = module.quantisation.bits
    fitting = [
        bits
        for bits in range(1, MOST_BITS + 1)
        if words == (*shape[:-1], words_of(shape[-1], bits)) and (not told or bits in told)
    ]
    if min(shape) < 1 or len(fitting) != 1:
        return module.refused(owns, f"{sizes}: its bits are not clear")
    places = scale_places(shape, scales, [each for each in module.quantisation.blocks if len(each) == 1])
    if places is None:
        return module.refused(owns, _misfit(shape, scales))
    placed, block = places
    bits = fitting[0]
    if block[-2] != 1:
        return module.refused(owns, _misfit(shape, scales))
    zeros = module.shape(roles["zeros"]) if "zeros" in roles else ()
    zeros_type = module.dtype(roles["zeros"]) if "zeros" in roles else ""
    are_packed = zeros_type == "int32" and zeros == (*shape[:-2], words_of(shape[-2], bits), placed[-1])
    is_one = math.prod(zeros) == math.prod(placed) == 1  # one for all codes is not packed
    if "zeros" in roles and not are_packed and not is_one:
        kind = "words" if zeros_type == "int32" else f"of {zeros_type}"
        return module.refused(owns, f"its zero points are {_by(zeros)} {kind}, its scales {_by(scales)}")
    if "groups" in roles and module.shape(roles["groups"]) != shape[-1:]:
        return module.refused(owns, f"the order of its groups is {_by(module.shape(roles['groups']))}; {sizes}")
    minus = " - {zeros}" if "zeros" in roles else ""
    written = f"({{codes}}{minus}) * {{scale}}, {bits} bits" + _in_blocks(placed, block)
    decode = partial(_decode_packed, bits=bits, shape=shape, placed=placed, block=block, are_packed=are_packed)
    return module.coded(name, roles, written, shape, decode)


def _decode_packed(
    parts: Mapping[str, Array],
    bits: int,
    shape: tuple[int, ...],
    placed: tuple[int, ...],
    block: tuple[int, ...],
    are_packed: bool,
) -> Array | ScaledWeights:
    half = 2 ** (bits - 1)  # what is added to a code, and to a zero point, so that none is negative
    codes = (unpacked(parts["codes"], bits, shape[-1]) - np.uint8(half)).view(np.int8)
    zeros = _whole(parts["zeros"]).reshape(placed) if "zeros" in parts and not are_packed else None
    if are_packed:
        columns = unpacked(np.swapaxes(parts["zeros"], -1, -2), bits, shape[-2])
        zeros = np.swapaxes((columns - np.uint8(half)).view(np.int8), -1, -2)
    scale = parts["scale"].reshape(placed).astype(np.float32)
    return with_zeros(codes, zeros, scale, block, _order_of_groups(parts.get("groups"), placed[-1]))


# -- what is known and not read ---------------------------------------------------------------------------------------


def four_bit_floats(module: CodedModule, own: str) -> UnreadCodedWeight | None:
    """Return codes of MXFP4 and NVFP4."""
    blocks = own.removesuffix("_blocks")
    if own != blocks and f"{blocks}_scales" in module and module.dtype(own) == "uint8":
        return module.refused((own, f"{blocks}_scales"), "MXFP4, two floating-point codes in a byte, which is not read")
    names = (own, f"{own}_scale", f"{own}_scale_2")
    if module.dtype(own) == "uint8" and names[2] in module:
        return module.refused(names, "NVFP4, two floating-point codes in a byte, which is not read")
    return None


def other_codes(module: CodedModule, own: str) -> UnreadCodedWeight | None:
    """Return the codes of methods that are known by the names of their parts."""
    for kind, names in OTHERS.items():
        if own == names[0] and all(name in module for name in names):
            return module.refused([own, *(name for name in module.own if name not in (own, "bias"))], kind)
    return None


OTHERS = {
    "HQQ's codes, which are not read": ("W_q",),
    "AQLM's codes, which are not read": ("codes", "codebooks", "scales"),
    "QuIP#'s codes, which are not read": ("Qidxs", "SU", "SV"),
    "VPTQ's codes, which are not read": ("indices", "centroids"),
    "codes in the order of Marlin's kernels, which are not read": ("B", "s"),
    "EETQ's codes, in the order of its kernels, which are not read": ("qweight", "weight_scales"),
}
"""What is said of methods that are not read, and the tensors by which each is known, the codes first."""

CODE_FORMATS: tuple[Kind, ...] = (
    bitsandbytes_4_bits,
    bitsandbytes_8_bits,
    gptq_or_awq,
    packed_by_compressed_tensors,
    four_bit_floats,
    scaled_codes,
    other_codes,
)
"""The kinds of quantised weights; the first that takes a tensor counts."""


def _taken(module: CodedModule, name: str) -> str:
    """Return that the name of a weight is that of a stored tensor; empty where it is not."""
    return f"it would be read as '{module.stored(name)}', and there is such a tensor" if name in module else ""


def _misfit(shape: tuple[int, ...], scales: tuple[int, ...]) -> str:
    return f"its scales are {_by(scales)}, its codes {_by(shape)}, and nothing says which codes share one"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
