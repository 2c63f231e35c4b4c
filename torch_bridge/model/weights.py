"""One weight of one of PyTorch's modules: whether there is one, its parameter, and its values now."""

from typing import Any, cast

from torch_bridge._torch import SpectralNorm, Tensor, WeightNorm, nn
from torch_bridge.model.errors import UnreadWeightError, first_line
from torch_bridge.model.masked import current_mask, parametrised_mask
from torch_bridge.model.modules import declared_shape, is_quantized
from torch_bridge.model.stored import stored_values


def weight_parameter(module: nn.Module, name: str) -> nn.Parameter | None:
    """Return the parameter that holds a weight, masked or not; None if it is no parameter."""
    if parametrised_mask(module, name) is not None:
        original = cast(Any, module.parametrizations)[name].original
        return original if isinstance(original, nn.Parameter) else None
    pruned = f"{name}_mask" in module._buffers
    return module._parameters.get(f"{name}_orig" if pruned else name)


def has_weight(module: nn.Module, name: str) -> bool:
    """Return whether a module has a weight to be read: not one that it makes whenever it is called."""
    if weight_parameter(module, name) is not None or hasattr(
        type(module), name
    ):  # the class of a parametrized one has it
        return True
    if is_quantized(module) and hasattr(module, "get_weight"):
        return True
    return isinstance(vars(module).get(name, module._buffers.get(name)), Tensor)


def current_weight(module: nn.Module, name: str) -> Tensor:
    """Return a weight as the module uses it now, decoded and detached; pruned entries are zero.

    ``module.weight`` of a pruned module dates from its last call, so the weight is computed here, as ``weight_orig *
    weight_mask``; and so it is under the older ``weight_norm`` and ``spectral_norm``. In torch's own quantized layers
    ``weight`` is a method, which is called.

    Raises
    ------
    UnreadWeightError
        If the weight has no values, as in a lazy module or on the device ``meta``, or they are stored in a form that
        cannot be read; see `stored_values`.
    """
    parameter, mask = weight_parameter(module, name), current_mask(module, name)
    stored = parameter if parameter is not None else _weight_of_no_parameter(module, name)
    values = stored_values(module, stored, declared_shape(module, name))
    return values if mask is None or parameter is None else values * mask.to(values.dtype)


def _weight_of_no_parameter(module: nn.Module, name: str) -> Any:
    """Return a weight that is no parameter of its module: computed, given by a method, or a plain tensor."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            return hook.compute_weight(module)
        if isinstance(hook, SpectralNorm) and hook.name == name:
            return hook.compute_weight(module, do_power_iteration=False)
    try:
        if is_quantized(module) and hasattr(module, "get_weight"):  # of recurrent layers: all at once, by name
            return cast(Any, module).get_weight()[name]
        value = getattr(module, name)
        return value() if callable(value) and not isinstance(value, Tensor) else value
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError) as error:
        raise UnreadWeightError(f"{type(module).__name__} does not return it: {first_line(error)}.") from None
