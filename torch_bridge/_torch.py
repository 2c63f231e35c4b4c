"""PyTorch for the modules that cannot do without it: a `MissingExtra` says how to install it where it is missing."""

import sys

from torch_bridge import MissingExtra

try:
    import torch
    from torch import Tensor, nn
    from torch.ao.pruning.sparsifier.base_sparsifier import BaseSparsifier
    from torch.nn import functional
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.parameter import is_lazy
    from torch.nn.utils import parametrize, prune
    from torch.nn.utils.parametrize import ParametrizationList
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from torch.overrides import TorchFunctionMode
    from torch.utils.weak import WeakTensorKeyDictionary
except ModuleNotFoundError as error:
    raise MissingExtra("torch") from error

__all__ = [
    "BaseSparsifier",
    "ParametrizationList",
    "SpectralNorm",
    "Tensor",
    "TorchFunctionMode",
    "WeakTensorKeyDictionary",
    "WeightNorm",
    "_ConvNd",
    "functional",
    "is_instance_if_loaded",
    "is_lazy",
    "nn",
    "parametrize",
    "prune",
    "register_optimizer_step_post_hook",
    "torch",
]


def is_instance_if_loaded(value: object, module: str, name: str) -> bool:
    """Return whether a value is of a class whose module may not have been imported; if it was not, it is none."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)
