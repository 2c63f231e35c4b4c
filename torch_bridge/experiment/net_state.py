"""What the driver of IMP needs of a net: its prunable tensors, its state as arrays, masks while it is trained."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from topobounds._arguments import argument_error
from topobounds._types import Array
from topobounds.checkpoint import DTYPES
from topobounds.layers import LayerTensor
from topobounds.pruning import chain_of
from torch_bridge._torch import Tensor, is_lazy, nn, register_optimizer_step_post_hook, torch
from torch_bridge.model.example_input import example_input_for
from torch_bridge.model.stored import computes_its_own_way
from torch_bridge.model.tracing import trace
from torch_bridge.model.unprunable import why_unprunable
from torch_bridge.model.unread_weights import unread_weights
from torch_bridge.model.weight_tensors import model_weight_tensors
from torch_bridge.model.weights import weight_parameter

State = dict[str, Array]


def layer_tensors(net: nn.Module, example_input: Any = None) -> list[LayerTensor]:
    """Return the prunable weight tensors of a net: linear, recurrent and convolutional layers, attention.

    Parameters
    ----------
    net : torch.nn.Module
        The net. Embeddings, biases, normalisation and weights that are computed from others are left out; weights that
        layers share come once.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the net is called with, once, to learn the geometry of its convolutions; of one that is called on inputs
        of several sizes the first counts. Kernels of unknown geometry are matrices, group by group.

    Returns
    -------
    list of LayerTensor
        In the order of the net's modules.

    Raises
    ------
    ValueError
        If there is none, or one is pruned by ``torch.nn.utils.prune`` already.

    Examples
    --------
    >>> [(layer.name, layer.parts[1]) for layer in layer_tensors(nn.LSTM(8, 16))]
    [('weight_ih_l0', 'forget'), ('weight_hh_l0', 'forget')]
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    traced = None if example_input is None else trace(net, example_input_for(net, example_input))
    found: dict[str, LayerTensor] = {}
    for module, tensors in model_weight_tensors(net).items():
        for tensor in tensors:
            parameter = module._parameters.get(tensor.own_name)
            if f"{tensor.own_name}_mask" in module._buffers:
                name = names[id(weight_parameter(module, tensor.own_name))].removesuffix("_orig")
                raise ValueError(
                    f"Layer '{name}' is pruned by torch.nn.utils.prune already; prune.remove makes it plain."
                )
            if parameter is not None and tensor.kind != "embedding" and not why_unprunable(module, tensor.own_name):
                name = names[id(parameter)]
                convs = traced.convs(module) if traced and tensor.kind == "conv" else [None]
                layer = replace(tensor, name=name, shape=tuple(parameter.shape))
                found.setdefault(name, layer.with_geometry(next(iter(convs), None)))
    if not found:
        raise ValueError("Argument 'model' must have a layer to prune, and this has none.")
    return list(found.values())


def check_in_a_row(net: nn.Module, layers: list[LayerTensor], example_input: Any) -> None:
    """Refuse a net whose layers do not follow one another, each reading the very neurons that the one before feeds.

    Parameters
    ----------
    net : torch.nn.Module
        The net.
    layers : list of LayerTensor
        Its prunable layers, in the order of its modules.
    example_input : Tensor, or tuple or dict of arguments
        What the net is called with, once, to learn which layers share neurons.

    Raises
    ------
    ValueError
        Naming the first layer that does not fit, or if there is no example input.
    """
    rule = "The method 'effective' needs dense layers and convolutions in a row"
    if example_input is None:
        raise ValueError(f"{rule}, and without example_input it is not known what layer feeds what.")
    chain_of(layers)
    neurons = trace(net, example_input_for(net, example_input)).neurons
    fed: int | None = None
    seen: set[int] = set()
    for layer in layers:
        ends = neurons.get((net.get_submodule(layer.source), 0), [])
        if len(ends) != 1 or (fed is not None and ends[0][0] != fed) or ends[0][1] in (*seen, ends[0][0]):
            raise ValueError(f"{rule}, and '{layer.name}' is not called once on the neurons that the one before feeds.")
        seen |= set(ends[0])
        fed = ends[0][1]


@contextmanager
def masked_steps(net: nn.Module, masks: Mapping[str, Tensor], original: object = None) -> Iterator[None]:
    """Keep pruned weights at zero in whatever trains a net by ``torch.optim``, for the length of a ``with`` block.

    Their gradients are zero, so that optimisers which mix coordinates, and clipping by norm, see the pruned net; and
    after every step of every optimiser they are zero, whatever momentum and weight decay did.

    Parameters
    ----------
    net : torch.nn.Module
        The net. A copy of it is not watched.
    masks : mapping of str to bool tensor
        By parameter name, of the parameters' shapes.
    original : object, optional
        A net that `net` was copied from: an optimiser of its parameters trains the wrong one, and is refused.

    Raises
    ------
    ValueError
        In a step of an optimiser of `original`.
    """
    strangers = {id(p) for p in original.parameters()} if isinstance(original, nn.Module) else set()
    pruned = {name: ~mask for name, mask in masks.items()}

    @torch.no_grad()
    def apply_masks(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if any(id(parameter) in strangers for group in optimizer.param_groups for parameter in group["params"]):
            raise ValueError(
                "Argument 'train_fn' must make its optimiser for the net that it is given, not for another."
            )
        for name, parameter in net.named_parameters():
            if name in pruned:
                parameter.masked_fill_(pruned[name].to(parameter.device), 0)

    handles: list[Any] = [register_optimizer_step_post_hook(apply_masks)]
    for name, parameter in net.named_parameters():
        if name in pruned and parameter.requires_grad:
            hook = partial(_masked_gradient, pruned[name])
            handles.append(parameter.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _masked_gradient(pruned: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(pruned.to(gradient.device), 0)


def copied(net: nn.Module) -> nn.Module:
    """Return a copy of a net, with parameters of its own.

    Raises
    ------
    ValueError
        If it cannot be copied.
    """
    try:
        return copy.deepcopy(net)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        rule = f"a net that can be copied, or a function that returns a new one ({reason})"
        raise argument_error("model", rule, type(net).__name__) from None


def check_state(net: nn.Module) -> None:
    """Refuse a net whose state the run folder cannot hold.

    Raises
    ------
    ValueError
        Naming the entry that is no tensor of real numbers, or has none yet.
    """
    for name, value in (*net.state_dict().items(), *net.named_parameters(), *net.named_buffers()):
        obstacle = _why_not_held(value)
        if obstacle is not None:
            raise argument_error("model", f"a net whose state is tensors of real numbers, '{name}' too", obstacle)


def _why_not_held(value: object) -> str | None:
    """Return what keeps an entry of a state from being written; None if nothing does."""
    if not isinstance(value, Tensor) or is_lazy(value):
        return type(value).__name__
    if value.is_meta:
        return "a tensor on the device meta, which has no values"
    if value.layout != torch.strided:
        return str(value.layout)
    if computes_its_own_way(value):
        return type(value).__name__
    try:
        known = not value.is_complex() and as_numpy(value.new_empty(0)).dtype in map(np.dtype, DTYPES.values())
    except (TypeError, RuntimeError):  # a type that numpy has not
        known = False
    return None if known else str(value.dtype)


def aliases(net: nn.Module) -> dict[str, list[str]]:
    """Return, for every parameter by name, all names that the net's state has it under."""
    found: dict[int, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), []).append(name)
    return {names[0]: names for names in found.values()}


def left_alone(net: nn.Module, layers: list[LayerTensor]) -> dict[str, str]:
    """Return the weights of two or more dimensions that are not pruned, and why."""
    parameters = dict(net.named_parameters(remove_duplicate=False))
    pruned = {id(parameters[layer.name]) for layer in layers}
    found = dict(unread_weights(net))
    for module, tensors in model_weight_tensors(net).items():
        for tensor in tensors:
            if tensor.name not in parameters or id(parameters[tensor.name]) not in pruned:
                found[tensor.name] = why_unprunable(module, tensor.own_name) or "embeddings are not pruned"
    return found


def state_of(net: nn.Module) -> State:
    """Return the state of a net as arrays, copied."""
    return {name: as_numpy(value) for name, value in net.state_dict().items()}


def as_numpy(tensor: Tensor) -> Array:
    """Return a copy of a tensor; bfloat16, which torch cannot hand to numpy, in the type of ml_dtypes."""
    tensor = tensor.detach().cpu().clone()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def load(net: nn.Module, state: Mapping[str, Array]) -> None:
    """Give a net a state that `state_of` returned."""
    net.load_state_dict({name: _as_tensor(array) for name, array in state.items()})


def _as_tensor(array: Array) -> Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
