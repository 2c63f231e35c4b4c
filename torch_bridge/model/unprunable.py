"""Which weights of a model can be pruned in place, and why the others cannot."""

from torch_bridge._torch import SpectralNorm, WeightNorm, is_instance_if_loaded, nn, torch
from torch_bridge.model.errors import UnreadWeightError
from torch_bridge.model.modules import declared_shape, is_quantized
from torch_bridge.model.stored import is_plain, stored_values
from torch_bridge.model.unread_weights import unread_weights, why_unread
from torch_bridge.model.weights import has_weight, weight_parameter


def why_unprunable(module: nn.Module, name: str) -> str | None:
    """Return why a weight of a layer cannot be pruned in place; None if it can."""
    parameter = weight_parameter(module, name)
    if parameter is None:
        return _why_no_parameter(module, name)
    try:
        stored_values(module, parameter, declared_shape(module, name))
    except UnreadWeightError as error:
        return str(error)
    if not is_plain(parameter):
        kind = str(parameter.dtype if parameter.layout == torch.strided else parameter.layout)
        kind = kind if type(parameter) is nn.Parameter else type(parameter).__name__
        return f"It is stored in another form ({kind}): prune it before it is put into this form."
    return None


def unprunable_parameters(model: nn.Module) -> dict[int, str]:
    """Return why a mask would not serve all that read a weight, by the identity of its parameter.

    A module that is no layer here (scripted, or one that was written by hand) may hold the parameter of a layer as its
    own, and reads it unmasked; FSDP puts tensors of its own in the place of parameters whenever it gathers or shards.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    found = {
        id(named[name]): f"the same weights as '{name}', which is left alone: {reason.rstrip('.')}"
        for name, reason in unread_weights(model)
        if name in named
    }
    for module in model.modules():
        if _is_sharded(module):
            reason = "It is distributed by FSDP, which replaces it in every call: prune a file of the weights."
            found |= {id(parameter): reason for parameter in module.parameters()}
    return found


def _is_sharded(module: nn.Module) -> bool:
    names = ("FSDPModule", "FullyShardedDataParallel")
    return any(is_instance_if_loaded(module, "torch.distributed.fsdp", name) for name in names)


def _why_no_parameter(module: nn.Module, name: str) -> str:
    if is_quantized(module):
        return "It is quantized: prune before quantizing."
    if not has_weight(module, name):
        return why_unread(module, name)
    if name in module._buffers:
        return "it is a buffer and no parameter, and torch prunes parameters"
    hooks = module._forward_pre_hooks.values()
    if name in vars(module) and not any(isinstance(hook, WeightNorm | SpectralNorm) for hook in hooks):
        return "it is a plain attribute and no parameter, and torch prunes parameters"
    return "it is computed from other parameters"
