"""What a model holds that may be weights and is read as no layer, and why."""

from collections.abc import Iterator, Sequence

from torch_bridge._torch import ParametrizationList, nn, torch
from torch_bridge.model.modules import is_quantized
from torch_bridge.model.weight_tensors import ModuleTensors, model_weight_tensors, name_in_model
from torch_bridge.model.weights import has_weight

_PACKED = {torch.int8, torch.uint8, torch.int16, torch.int32}
"""Types of the codes of packed weights; indices are of 64 bits."""


def unread_weights(model: nn.Module, known: ModuleTensors | None = None) -> Iterator[tuple[str, str]]:
    """Yield the weights of modules that are no layer here, and those that are not there to be read, and why.

    Those are parameters of two or more dimensions, and whatever may hold packed weights: buffers of small integers or
    that are called a weight, and objects of torch's own. What a layer does store, and cannot be read, is for
    `current_weight` to tell.
    """
    found = model_weight_tensors(model, known)
    decoded = {
        inner for module, tensors in found.items() if tensors and is_quantized(module) for inner in module.modules()
    }
    for path, module in model.named_modules():
        for tensor in found[module]:
            if not has_weight(module, tensor.own_name):
                yield tensor.name, why_unread(module, tensor.own_name)
        if module not in decoded and not isinstance(module, ParametrizationList):
            held = [tensor.own_name for tensor in found[module]]
            for name in _other_weights(module, held):
                yield name_in_model(path, name), _why_unknown(module, name, bool(held))


def why_unread(module: nn.Module, name: str) -> str:
    """Return why a layer has no weight of this name."""
    forms = [each for each in (*module._parameters, *module._buffers) if each.startswith(f"{name}_")]
    if forms:
        return f"It is stored in a form that is not known: {', '.join(forms)}."
    return "It is made while the model is called."


def _other_weights(module: nn.Module, held: Sequence[str]) -> Iterator[str]:
    """Yield the names of what may be weights in a module, but for those that are read as `held` or make these."""
    for name, parameter in module.named_parameters(recurse=False):
        if (parameter.ndim > 1 or type(parameter).__name__ == "FlatParameter") and not _belongs_to(name, held):
            yield name
    for name, buffer in module.named_buffers(recurse=False):
        packed = buffer.dtype in _PACKED or ("weight" in name and buffer.dtype != torch.bool)
        if packed and buffer.ndim > 1 and not _belongs_to(name, held) and not _is_mask(module, name):
            yield name
    if not held and not isinstance(module, torch.jit.ScriptModule):
        yield from (name for name, value in vars(module).items() if isinstance(value, torch.ScriptObject))


def _belongs_to(name: str, held: Sequence[str]) -> bool:
    return bool(held) and ("bias" in name or any(name == each or name.startswith(f"{each}_") for each in held))


def _is_mask(module: nn.Module, name: str) -> bool:
    """Return whether a buffer is a mask of pruning."""
    return f"{name.removesuffix('_mask')}_orig" in module._parameters


def _why_unknown(module: nn.Module, name: str, is_layer: bool) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return f"{module.original_name} is scripted or traced, so its layers cannot be told apart."
    kind = type(module).__name__
    if name not in module._parameters:
        return f"{kind} is quantized or packed: its weights are not read."
    if is_layer:
        return f"{kind} has it beside the weights that topobounds knows."
    return f"{kind} is no layer that topobounds knows."
