"""Weights that are masked: by the hooks of ``torch.nn.utils.prune``, or by a parametrisation."""

import copy
from collections.abc import Callable
from typing import Any, cast

from topobounds._types import Mask
from torch_bridge._torch import Tensor, nn, parametrize, torch


class Masked(nn.Module):
    """A parametrisation of ``torch.nn.utils.parametrize`` under which masked entries are zero.

    The parameter stays itself, so that an optimiser that holds it goes on; the mask is a buffer, saved with the model.
    A module so masked is deep-copied, averaged, compiled and called under ``inference_mode`` like any other.

    Parameters
    ----------
    mask : Tensor of the shape of the weight
        Not zero where the weight is kept.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> _ = parametrize.register_parametrization(layer, "weight", Masked(torch.tensor([[True, False]])))
    >>> (layer.weight != 0).tolist()
    [[True, False]]
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight, zero where it is masked, whatever stands there."""
        return torch.where(self.mask != 0, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what is stored for a weight: itself."""
        return weight


def parametrised_mask(module: nn.Module, name: str) -> Tensor | None:
    """Return the mask of a weight of which a mask is the only parametrisation: `Masked`, or torch's FakeSparsity."""
    if not parametrize.is_parametrized(module, name):
        return None
    (*others, last) = cast(Any, module.parametrizations)[name]
    masks = isinstance(last, Masked) or type(last).__name__ == "FakeSparsity"
    return last.mask if masks and not others else None


def current_mask(module: nn.Module, name: str) -> Tensor | None:
    """Return the mask of a weight, however it is masked; None if it is not."""
    hooked = module._buffers.get(f"{name}_mask")
    return hooked if hooked is not None else parametrised_mask(module, name)


def mask_array(mask: Tensor) -> Mask:
    """Return a mask of torch as an array of bool."""
    return cast(Mask, (mask != 0).cpu().numpy())


def unmask(module: nn.Module) -> None:
    """Make masked weights of a model plain parameters again, the masked entries zero; see `Masked`."""
    for each in module.modules():
        for name in list(getattr(each, "parametrizations", {})):
            if parametrised_mask(each, name) is not None:
                parametrize.remove_parametrizations(each, name, leave_parametrized=True)


class CopyOfPruned:
    """How a module that hooks of pruning mask is deep-copied.

    Torch's hook leaves a weight with the history of its gradient in the module, which cannot be copied; the copy has
    the same values without it, and its own hook makes it anew with the next call.

    Parameters
    ----------
    module : torch.nn.Module
        The module, which has this as its ``__deepcopy__``.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, memo: dict[int, Any]) -> nn.Module:
        """Return a copy of the module."""
        module = self.module
        twin = type(module).__new__(type(module))
        memo[id(module)] = twin
        for key, value in vars(module).items():
            if key == "__deepcopy__":
                continue
            held = value.detach() if isinstance(value, Tensor) and not value.is_leaf else value
            if key == "_flat_weights":  # of recurrent modules
                held = [each if each is None or each.is_leaf else each.detach() for each in value]
            vars(twin)[key] = copy.deepcopy(held, memo)
        let_be_copied(twin)
        return twin


def let_be_copied(module: nn.Module) -> None:
    """See to it that a module can be deep-copied while hooks of pruning mask its weights."""
    copier: Callable[[dict[int, Any]], nn.Module] = CopyOfPruned(module)
    vars(module)["__deepcopy__"] = copier
