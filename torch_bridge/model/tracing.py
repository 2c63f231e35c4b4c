"""What the weights of PyTorch's modules are to a graph: which tensors are layers, of which parts, of what geometry."""

import random
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from topobounds._arguments import argument_error, integer
from topobounds.layers import Conv, LayerTensor
from torch_bridge._torch import ParametrizationList, SpectralNorm, Tensor, WeightNorm, _ConvNd, is_lazy, nn, torch
from torch_bridge.model.masked import current_mask
from torch_bridge.model.modules import (
    declared_shape,
    is_convolution,
    is_quantized,
    joined,
    stored_weight,
    weight_tensors,
)
from torch_bridge.model.neurons import Neurons
from torch_bridge.model.reads import WeightReads
from torch_bridge.model.stored import UnreadWeight, is_of, is_plain, one_line, stored_values

Sizes = tuple[tuple[int, ...], tuple[int, ...]]
ModuleTensors = dict[nn.Module, tuple[LayerTensor, ...]]

PACKED = {torch.int8, torch.uint8, torch.int16, torch.int32}
"""Types of the codes of packed weights; indices are of 64 bits."""
ONE_AT_A_TIME = threading.RLock()
"""Held while a model is called, read or pruned, whose modes, hooks and gradients are changed for as long: a second
thread waits. The state of the random generators is put back afterwards too, and there is one for all models."""


def check_module(name: str, module: object) -> None:
    """Refuse what is no module of torch.

    Raises
    ------
    ValueError
        If it is none; `name` is the argument to blame.
    """
    if not isinstance(module, nn.Module):
        raise argument_error(name, "a torch.nn.Module", module if isinstance(module, type) else type(module).__name__)


def model_tensors(model: nn.Module, known: ModuleTensors | None = None) -> ModuleTensors:
    """Return the tensors of every module of a model that are layers, in the order of its modules.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    known : dict of module to tuple of LayerTensor, optional
        What was found before: only modules that are not in it, such as the model made when it was called, are asked.
    """
    known = known or {}
    return {
        module: known[module] if module in known else weight_tensors(module, path)
        for path, module in model.named_modules()
    }


def unread_weights(model: nn.Module, known: ModuleTensors | None = None) -> Iterator[tuple[str, str]]:
    """Yield the weights of modules that are no layer here, and those that are not there to be read, and why.

    Those are parameters of two or more dimensions, and whatever may hold packed weights: buffers of small integers or
    that are called a weight, and objects of torch's own. What a layer does store, and cannot be read, is for
    `current_weight` to tell.
    """
    found = model_tensors(model, known)
    decoded = {
        inner for module, tensors in found.items() if tensors and is_quantized(module) for inner in module.modules()
    }
    for path, module in model.named_modules():
        for tensor in found[module]:
            if not has_weight(module, tensor.own_name):
                yield tensor.name, _why_absent(module, tensor.own_name)
        if module not in decoded and not isinstance(module, ParametrizationList):
            held = [tensor.own_name for tensor in found[module]]
            for name in _other_weights(module, held):
                yield joined(path, name), _why_unknown(module, name, bool(held))


def _why_absent(module: nn.Module, name: str) -> str:
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
        packed = buffer.dtype in PACKED or ("weight" in name and buffer.dtype != torch.bool)
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


def has_weight(module: nn.Module, name: str) -> bool:
    """Return whether a module has a weight to be read: not one that it makes whenever it is called."""
    if stored_weight(module, name) is not None or hasattr(type(module), name):  # the class of a parametrized one has it
        return True
    if is_quantized(module) and hasattr(module, "get_weight"):
        return True
    return isinstance(vars(module).get(name, module._buffers.get(name)), Tensor)


def current_weight(module: nn.Module, name: str) -> Tensor:
    """Return a weight as the module uses it now, decoded and detached; pruned entries are zero.

    ``module.weight`` of a pruned module dates from its last call; ``weight_orig * weight_mask`` is what it is now. So
    it is with the older ``weight_norm`` and ``spectral_norm``. In torch's own quantized layers it is a method.

    Raises
    ------
    UnreadWeight
        If there are none, as in a lazy module or on the device ``meta``, or they are stored in a form that cannot be
        read; see `stored_values`.
    """
    parameter, mask = stored_weight(module, name), current_mask(module, name)
    stored = parameter if parameter is not None else _computed_weight(module, name)
    values = stored_values(module, stored, declared_shape(module, name))
    return values if mask is None or parameter is None else values * mask.to(values.dtype)


def _computed_weight(module: nn.Module, name: str) -> Any:
    """Return a weight that is no parameter of its module."""
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
        raise UnreadWeight(f"{type(module).__name__} does not return it: {one_line(error)}.") from None


def why_not_pruned(module: nn.Module, name: str) -> str | None:
    """Return why a weight of a layer cannot be pruned in place; None if it can."""
    parameter = stored_weight(module, name)
    if parameter is None:
        return _why_no_parameter(module, name)
    try:
        stored_values(module, parameter, declared_shape(module, name))
    except UnreadWeight as error:
        return str(error)
    if not is_plain(parameter):
        kind = str(parameter.dtype if parameter.layout == torch.strided else parameter.layout)
        kind = kind if type(parameter) is nn.Parameter else type(parameter).__name__
        return f"It is stored in another form ({kind}): prune it before it is put into this form."
    return None


def out_of_reach(model: nn.Module) -> dict[int, str]:
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
    return any(is_of("torch.distributed.fsdp", name, module) for name in ("FSDPModule", "FullyShardedDataParallel"))


def _why_no_parameter(module: nn.Module, name: str) -> str:
    if is_quantized(module):
        return "It is quantized: prune before quantizing."
    if not has_weight(module, name):
        return _why_absent(module, name)
    if name in module._buffers:
        return "it is a buffer and no parameter, and torch prunes parameters"
    hooks = module._forward_pre_hooks.values()
    if name in vars(module) and not any(isinstance(hook, WeightNorm | SpectralNorm) for hook in hooks):
        return "it is a plain attribute and no parameter, and torch prunes parameters"
    return "it is computed from other parameters"


def conv_geometry(module: nn.Module, input_size: Sequence[int], output_size: Sequence[int] | None = None) -> Conv:
    """Return the geometry of a convolution for inputs of a given size.

    Parameters
    ----------
    module : torch.nn.Conv1d, Conv2d, Conv3d or a transposed one
        The convolution.
    input_size : sequence of int
        Cells along each spatial dimension, no batch and no channels.
    output_size : sequence of int, optional
        For a transposed convolution that was called with one: it decides the output padding.

    Returns
    -------
    Conv
        The same geometry in topobounds' terms.

    Raises
    ------
    ValueError
        If the module is no convolution, or the size does not fit it.

    Examples
    --------
    >>> conv_geometry(nn.Conv2d(3, 8, 5, stride=2, padding=2), (28, 28)).output_size
    (14, 14)
    """
    if not is_convolution(module):
        raise argument_error("module", "a convolution", type(module).__name__)
    n_axes = len(cast(_ConvNd, module).kernel_size)
    if not isinstance(input_size, Sequence) or len(input_size) != n_axes:
        raise argument_error("input_size", f"a sequence of {n_axes} positive integers", input_size)
    padding = cast(tuple[int, ...], module.output_padding)
    conv = _conv(cast(_ConvNd, module), input_size, padding)
    if output_size is None or not conv.transposed or conv.output_size == tuple(output_size):
        return conv
    extra = (p + a - b for p, a, b in zip(padding, output_size, conv.output_size, strict=True))
    return _conv(cast(_ConvNd, module), input_size, tuple(extra))


def _conv(module: _ConvNd, input_size: Sequence[int], output_padding: Sequence[int]) -> Conv:
    padding: Any = module.padding
    return Conv(
        module.in_channels,
        module.out_channels,
        tuple(module.kernel_size),
        tuple(integer("input_size", size, 1) for size in input_size),
        stride=tuple(module.stride),
        padding=padding if isinstance(padding, str) else tuple(padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
        padding_mode=module.padding_mode,
        transposed=module.transposed,
        output_padding=tuple(output_padding),
    )


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened when a model was called once.

    Attributes
    ----------
    calls : dict of module to list
        For every module with layers, the spatial sizes of input and output in each of its calls, in order; empty sizes
        where it is no convolution, or one of one's own that reads or returns anything but a tensor.
    neurons : dict of (module, int) to list
        For every layer graph, by its place in its module, the groups of neurons that each call read and fed: see
        `topobounds.LayerReport`. Recurrent modules have none.
    tensors : dict of module to tuple of LayerTensor
        The tensors of every module that are layers, as they were before the call.
    readers : dict of (module, str) to tuple of module
        For a weight, by module and own name, the other modules that read it in their own calls, as
        ``functional.linear(x, self.layer.weight)`` does.
    """

    calls: dict[nn.Module, list[Sizes]]
    neurons: dict[tuple[nn.Module, int], list[tuple[int, int]]]
    tensors: ModuleTensors
    readers: dict[tuple[nn.Module, str], tuple[nn.Module, ...]]

    def convs(self, module: nn.Module) -> list[Conv]:
        """Return the geometries a convolution was called with, each once, in order.

        Empty if it never was called, or gave an output that is not of its geometry's size or no tensor: that of a
        subclass that pads or crops by itself, whose graph is not known.
        """
        sizes = self.calls.get(module, [])
        if ((), ()) in sizes:
            return []
        found = [conv_geometry(module, *each) for each in sizes]
        if any(conv.output_size != output for conv, (_, output) in zip(found, sizes, strict=True)):
            return []
        return list(dict.fromkeys(found))


def trace(model: nn.Module, example_input: Any) -> Trace:
    """Call a model once, and return which layers were called and on what sizes.

    The model is called in evaluation mode without gradients and is left as it was; see `undisturbed`.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    example_input : Tensor, or tuple or dict
        Its argument; its positional arguments; its keyword arguments. On the model's device.

    Returns
    -------
    Trace
        The calls. Attention counts as a call of its output projection.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Flatten(), nn.Linear(36, 10))
    >>> trace(net, torch.zeros(1, 1, 8, 8)).convs(net[0])[0].output_size
    (3, 3)
    """
    with ONE_AT_A_TIME:
        return _trace(model, example_input)


def _trace(model: nn.Module, example_input: Any) -> Trace:
    tensors = model_tensors(model)
    calls: dict[nn.Module, list[Sizes]] = {module: [] for module, held in tensors.items() if held}
    neurons, ends = Neurons(), list[tuple[nn.Module, int, tuple[int, int]]]()
    reads = WeightReads((module, tensor.own_name) for module, held in tensors.items() for tensor in held)

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        sizes: Sizes = ((), ())
        if is_convolution(module):
            given = next(iter((*args, *kwargs.values())), None)
            n_axes = len(cast(_ConvNd, module).kernel_size)
            if isinstance(given, Tensor) and isinstance(output, Tensor):
                sizes = tuple(given.shape[-n_axes:]), tuple(output.shape[-n_axes:])
        calls[module].append(sizes)
        if isinstance(module, nn.MultiheadAttention):
            calls[module.out_proj].append(sizes)
        ends.extend(neurons.ends(module, args, kwargs, output))

    args, kwargs = _arguments(example_input)
    with ExitStack() as stack:
        for module in calls:
            stack.callback(module.register_forward_hook(record, with_kwargs=True).remove)
        stack.enter_context(_uncompiled())
        stack.enter_context(reads.watching(model))
        stack.enter_context(undisturbed(model))
        stack.enter_context(neurons)
        model(*args, **kwargs)
    found: dict[tuple[nn.Module, int], list[tuple[int, int]]] = {}
    for (layer, place, _), groups in zip(ends, neurons.numbered(groups for _, _, groups in ends), strict=True):
        found.setdefault((layer, place), []).append(groups)
    return Trace(calls, found, tensors, reads.readers())


def _uncompiled() -> AbstractContextManager[Any]:
    """Return a context in which what ``torch.compile`` made runs as it is written, so that its functions are seen."""
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()


def moved_to(model: nn.Module, example: Any) -> Any:
    """Return an example input on the device of a model and, where it is of floating point, in its type.

    Parameters
    ----------
    model : torch.nn.Module
        Its first parameter decides, and of the type its first of floating point; without one, the example stays as it
        is.
    example : Tensor, or tuple, list or dict of them
        Anything else in it stays as it is.
    """
    parameters = list(model.parameters())
    if not parameters:
        return example
    like = next((each for each in parameters if each.is_floating_point()), parameters[0])
    if isinstance(example, Tensor):
        kind = like.dtype if example.is_floating_point() and like.is_floating_point() else example.dtype
        return example.to(parameters[0].device, kind)
    if isinstance(example, dict):
        return {name: moved_to(model, value) for name, value in example.items()}
    return type(example)(moved_to(model, each) for each in example) if type(example) in (tuple, list) else example


def _arguments(example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_input, Mapping):
        return (), dict(example_input)
    return (example_input if type(example_input) is tuple else (example_input,)), {}  # a PackedSequence is a tuple, too


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the length of a ``with`` block, without gradients, and leave it as it was.

    Put back are the modes, buffers and gradients of its modules, the tensors among their attributes, embeddings that
    renormalise themselves, and the state of the random generators of torch, numpy and Python. One thread at a time.
    """
    with ONE_AT_A_TIME:
        yield from _undisturbed(model)


def _undisturbed(model: nn.Module) -> Iterator[None]:
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    registered = [(module._buffers, dict(module._buffers)) for module in modules if not _is_scripted(module)]
    tensors = [(place, name, _Kept(tensor)) for module in modules for place, name, tensor in _changeable(module)]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the model's, to be put back
    try:
        _evaluate(model)
        for parameter, _ in gradients:
            parameter.grad = None
        with torch.no_grad(), torch.random.fork_rng(list(devices)):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        for module, mode in modes:
            module.training = mode
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for place, before in registered:
            for name in set(place) - set(before):
                del place[name]
        for place, name, kept in tensors:
            kept.put_back()
            place[name] = kept.tensor
        for module in modules:
            if is_of("torch.distributed.fsdp", "FSDPModule", module):  # the call has gathered its weights
                cast(Any, module).reshard()


def _evaluate(model: nn.Module) -> None:
    """Put a model into evaluation mode; programs of torch.export, which refuse that, stay as they were exported."""
    try:
        model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _changeable(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Yield the tensors that a call may change: no parameters but those of embeddings with a largest norm.

    And no masks of pruning, which are as large as the weights, as are the masked weights.
    """
    if _is_scripted(module):  # its buffers can be written to, and not be replaced
        yield from (({}, name, buffer) for name, buffer in module.named_buffers(recurse=False))
        return
    found: list[tuple[dict[str, Any], str, Any]] = [
        (module._buffers, name, buffer)
        for name, buffer in module._buffers.items()
        if f"{name.removesuffix('_mask')}_orig" not in module._parameters
    ]
    found += [(vars(module), name, value) for name, value in vars(module).items()]
    if getattr(module, "max_norm", None) is not None:
        found += [(module._parameters, name, parameter) for name, parameter in module._parameters.items()]
    for place, name, tensor in found:
        if isinstance(tensor, Tensor) and not tensor.is_meta and not is_lazy(tensor):
            yield place, name, tensor


class _Kept:
    """A tensor and what it holds."""

    def __init__(self, tensor: Tensor) -> None:
        computed = not tensor.is_leaf  # a weight that a hook makes anew: as large as the parameter, and replaced whole
        self.tensor, self.before = tensor, tensor.detach() if computed else tensor.detach().clone()

    def put_back(self) -> None:
        """Write what it held, if it was changed."""
        if self.tensor.layout != torch.strided or not torch.equal(self.tensor, self.before):
            with torch.no_grad():
                self.tensor.copy_(self.before)
