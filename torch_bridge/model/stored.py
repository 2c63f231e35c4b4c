"""In which form a module stores a weight: plain, or coded, packed, sparse, distributed or not there at all.

What is coded is decoded where the tensor, its module or the library that coded it says how; whatever cannot be read is
refused with the reason, so that a report can list it.
"""

import copy
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, cast

from torch_bridge._torch import Tensor, is_instance_if_loaded, is_lazy, nn, torch
from torch_bridge.model.errors import UnreadWeightError, first_line

_PLAIN_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN_TYPES: tuple[type[Tensor], ...] = (Tensor, nn.Parameter)
"""What holds its values and computes with them; of a subclass that is not known."""
_DECODERS = ("get_original_weight", "dequantize")
"""Methods of tensor subclasses that return the weights that their codes stand for: torchao's NF4 and its others."""
_INT8_LARGEST = 127  # the code of the largest magnitude of a row in bitsandbytes' Linear8bitLt


def stored_values(module: nn.Module, stored: Any, shape: Sequence[int] = ()) -> Tensor:
    """Return the weights that a stored tensor stands for, as a dense tensor of floating point, detached.

    Parameters
    ----------
    module : torch.nn.Module
        Whose weight it is: some codes have their scales there.
    stored : Tensor
        The parameter, buffer or attribute.
    shape : sequence of int
        What the sizes of the module ask for; empty where they do not tell.

    Raises
    ------
    UnreadWeightError
        If it has no values here (lazy, ``meta``, fake, sharded), they are complex, or they are codes or packed in a
        way that is not known.

    Examples
    --------
    >>> stored_values(nn.Linear(2, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]]).to_sparse(), (2, 2))
    tensor([[1., 0.],
            [0., 2.]])
    """
    if not isinstance(stored, Tensor):
        raise UnreadWeightError(f"It is no tensor, but of type {type(stored).__name__}.")
    _check_present(stored)
    try:
        values = _decoded(module, stored.detach())
    except UnreadWeightError:
        raise
    except Exception as error:
        raise UnreadWeightError(
            f"Its weights, a {type(stored).__name__}, could not be decoded: {first_line(error)}."
        ) from None
    _check_floats(module, values)
    if shape and tuple(values.shape) != tuple(shape):
        raise UnreadWeightError(
            f"It is stored as {_by(values.shape)}, and the sizes of its {type(module).__name__} ask for {_by(shape)}: "
            "it is packed, sharded or replaced."
        )
    if values.numel() == 0:
        raise UnreadWeightError(f"It has no entries: its shape is {_by(values.shape)}.")
    return values


def is_plain(stored: Tensor) -> bool:
    """Return whether a stored tensor is the weights themselves, dense and of floating point."""
    return type(stored) in PLAIN_TYPES and stored.layout == torch.strided and stored.is_floating_point()


def _check_present(stored: Tensor) -> None:
    if is_lazy(stored) or stored.is_meta:
        raise UnreadWeightError(
            "It has no weights yet: they are made when the model is first called, or moved from 'meta'."
        )
    if is_instance_if_loaded(stored, "torch._subclasses.fake_tensor", "FakeTensor"):
        raise UnreadWeightError("It is a fake tensor, which has a shape and no values.")
    if is_instance_if_loaded(stored, "torch.distributed.tensor", "DTensor") or hasattr(stored, "local_shards"):
        raise UnreadWeightError("It is distributed over several processes: full_tensor() gathers it.")


def _decoded(module: nn.Module, stored: Tensor) -> Tensor:
    for scaled in (_int8_rows, _packed_4_bits):
        values = scaled(module, stored)
        if values is not None:
            return values
    if stored.is_quantized:
        return stored.dequantize()
    if stored.layout != torch.strided:
        return stored.to_dense()
    for name in _DECODERS:
        decode = getattr(type(stored), name, None)
        if decode is not None and decode is not getattr(Tensor, name, None):
            decoded: Tensor = getattr(stored, name)()
            return decoded.detach()
    return stored


def _int8_rows(module: nn.Module, stored: Tensor) -> Tensor | None:
    """Return the weights of bitsandbytes' ``Linear8bitLt``: int8 codes, and ``SCB``, the largest magnitude of a row.

    The scales are an attribute of the weight until the first call moves them to the ``state`` of the module.
    """
    holders = (module._parameters.get("weight"), getattr(module, "state", None))
    scales = [getattr(holder, "SCB", None) for holder in holders]
    scale = next((found for found in scales if isinstance(found, Tensor)), None)
    if scale is None or stored.dtype != torch.int8 or stored.ndim != 2 or len(scale) != len(stored):
        return None
    return stored.float() * (scale.detach().float() / _INT8_LARGEST)[:, None]


def _packed_4_bits(module: nn.Module, stored: Tensor) -> Tensor | None:
    """Return the weights of bitsandbytes' ``Linear4bit``, decoded by its own function.

    Its bytes may pass for numbers of another type (``quant_storage``): FSDP shards parameters of one type only.
    """
    state = getattr(module._parameters.get("weight"), "quant_state", None)
    if state is None or (stored.dtype != torch.uint8 and not _has_bytes_for(stored, state.shape)):
        return None
    library = sys.modules.get(f"{type(state).__module__.split('.')[0]}.functional")
    decode = getattr(library, "dequantize_4bit", None)
    if decode is None:
        raise UnreadWeightError(f"It is packed, two weights in a byte, and {type(state).__name__} does not say how.")
    if getattr(state, "packing_format_for_cpu", False):  # a call on a CPU packs them in another order
        # Its inverse leaves the scales in that order, or quantises them anew: they are put back here, as they are.
        state = copy.copy(state)
        state.absmax, state.original_nested = state.absmax.T.reshape(-1).float(), False
        stored, state = cast(Any, library)._convert_weight_packed_for_cpu_inverse(stored, state)
    # Codes are scaled in blocks that run on from row to row. On a CPU bitsandbytes begins a new block with every row,
    # which is wrong where a row is no multiple of a block long: so it is handed all the weights as one single row.
    flat = copy.copy(state)
    flat.shape = torch.Size((1, math.prod(state.shape)))
    values: Tensor = decode(stored.contiguous().view(torch.uint8), flat).reshape(tuple(state.shape))
    return values


def _has_bytes_for(stored: Tensor, shape: Sequence[int]) -> bool:
    """Return whether a tensor has as many bytes as weights of this shape have, two in a byte."""
    return stored.numel() * stored.element_size() == -(-math.prod(shape) // 2)


def _check_floats(module: nn.Module, values: Tensor) -> None:
    kind = str(values.dtype).removeprefix("torch.")
    if computes_its_own_way(values):
        raise UnreadWeightError(f"It is a {type(values).__name__}, whose values are not known to be the weights.")
    if values.is_complex():
        raise UnreadWeightError(f"Its weights are complex ({kind}).")
    if not values.is_floating_point():
        raise UnreadWeightError(f"It holds {kind}: codes or indices, and no weights.")
    if values.dtype in _PLAIN_FLOATS:
        return
    if "x2" in kind:
        raise UnreadWeightError(f"It holds {kind}: two weights in a byte.")
    named = (name for name, value in _tensors(module) if isinstance(value, Tensor))
    scale = next((name for name in named if re.search("scale|scaling|amax", name)), None)
    if scale is not None:
        raise UnreadWeightError(f"It holds {kind}, to be multiplied by '{scale}' in a way that is not known.")


def computes_its_own_way(values: Tensor) -> bool:
    """Return whether it is of a subclass that computes with something else than the values it shows."""
    return type(values) not in PLAIN_TYPES and type(values).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _tensors(module: nn.Module) -> list[tuple[str, Any]]:
    return [*module._parameters.items(), *module._buffers.items(), *vars(module).items()]


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"
