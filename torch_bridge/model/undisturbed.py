"""A model in evaluation mode for the length of a ``with`` block, and afterwards as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from torch_bridge._torch import Tensor, is_instance_if_loaded, is_lazy, nn, torch
from torch_bridge.model.locks import MODEL_LOCK


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the length of a ``with`` block, without gradients, and leave it as it was.

    Put back are the modes, buffers and gradients of its modules, the tensors among their attributes, embeddings that
    renormalise themselves, and the state of the random generators of torch, numpy and Python. One thread at a time.
    """
    with MODEL_LOCK:
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
            if is_instance_if_loaded(
                module, "torch.distributed.fsdp", "FSDPModule"
            ):  # the call has gathered its weights
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
