"""One call of a model: which layers it calls, on inputs of what size, which neurons each reads and feeds."""

import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from topobounds.layers import Conv
from torch_bridge._torch import Tensor, _ConvNd, nn, torch
from torch_bridge.model.conv_geometry import conv_geometry
from torch_bridge.model.example_input import as_arguments
from torch_bridge.model.locks import MODEL_LOCK
from torch_bridge.model.modules import is_convolution
from torch_bridge.model.neurons import Neurons
from torch_bridge.model.reads import WeightReads
from torch_bridge.model.undisturbed import undisturbed
from torch_bridge.model.weight_tensors import ModuleTensors, model_weight_tensors

Sizes = tuple[tuple[int, ...], tuple[int, ...]]


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
    with MODEL_LOCK:
        return _trace(model, example_input)


def _trace(model: nn.Module, example_input: Any) -> Trace:
    tensors = model_weight_tensors(model)
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

    args, kwargs = as_arguments(example_input)
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
