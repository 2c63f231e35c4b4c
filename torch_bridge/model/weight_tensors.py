"""Which tensors of PyTorch's modules are layers, under which names, and of which shapes."""

from dataclasses import replace
from typing import cast

from topobounds.layers import LayerTensor
from torch_bridge._torch import Tensor, is_lazy, nn
from torch_bridge.model.modules import module_kind
from torch_bridge.model.weights import weight_parameter

ModuleTensors = dict[nn.Module, tuple[LayerTensor, ...]]


def weight_tensors(module: nn.Module, path: str = "") -> tuple[LayerTensor, ...]:
    """Return the tensors of a module itself, not of its children, that are layers.

    Parameters
    ----------
    module : torch.nn.Module
        Linear, embedding, convolution (transposed too), RNN, LSTM, GRU, their cells, MultiheadAttention, or a subclass;
        and the linear layer of GPT-2 in the package transformers, which is called Conv1D.
    path : str
        Where it is in its model; the names of the tensors begin with it.

    Returns
    -------
    tuple of LayerTensor
        Empty for any other module. A kernel has no geometry, for that depends on the input. Torch's own quantized
        layers (``torch.ao.nn.quantized``) are read too.

    Examples
    --------
    >>> [(t.name, t.kind, t.shape, len(t.parts)) for t in weight_tensors(nn.LSTM(8, 16))]
    [('weight_ih_l0', 'dense', (64, 8), 4), ('weight_hh_l0', 'recurrent', (64, 16), 4)]
    """
    kind = module_kind(module)
    return () if kind is None else tuple(_located(tensor, module, path) for tensor in kind.tensors(module))


def model_weight_tensors(model: nn.Module, known: ModuleTensors | None = None) -> ModuleTensors:
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


def name_in_model(path: str, name: str) -> str:
    """Return the name in the model of a tensor of the module at `path`."""
    return f"{path}.{name}" if path else name


def _located(tensor: LayerTensor, module: nn.Module, path: str) -> LayerTensor:
    """Return a tensor with its name in the model, and its shape where it is known."""
    parameter = weight_parameter(module, tensor.name)
    known = parameter is not None and not is_lazy(parameter)
    shape = tuple(cast(Tensor, parameter).shape) if known else ()
    return replace(tensor, name=name_in_model(path, tensor.name), shape=shape, source=path)
