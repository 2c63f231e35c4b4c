"""PyTorch's modules as layers: a table of the kinds there are, which tensors each stores, and what a call connects."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from topobounds._arguments import argument_error
from topobounds.layers import LayerTensor
from topobounds.layers.layer_tensor import GATES, WHOLE
from torch_bridge._torch import Tensor, _ConvNd, nn

_TRANSPOSED_LINEAR = "transformers.pytorch_utils.Conv1D"
_QUANTIZED = "torch.ao.nn.quantized."
"""Where torch's own quantized layers are; the dynamic ones are subclasses. Their ``weight`` is a method."""


@dataclass(frozen=True, eq=False)
class Ends:
    """The neurons that one layer graph reads and feeds in one call.

    Attributes
    ----------
    module : torch.nn.Module
        Whose graph it is.
    place : int
        The place of the graph among those of its module.
    read, fed : Tensor or None
        What holds these neurons; None where no tensor does.
    n_read, n_fed : int
        How many neurons they are.
    """

    module: nn.Module
    place: int
    read: Any
    n_read: int
    fed: Any
    n_fed: int


@dataclass(frozen=True, eq=False)
class ModuleKind:
    """A kind of module that is a layer.

    Attributes
    ----------
    includes : callable
        Whether a module is one.
    tensors : callable
        The weight tensors of a module, under the names of its parameters, in the shapes that its sizes ask for, where
        they tell.
    ends : callable
        What one call of a module connects: of module, arguments by position and name, and output.
    """

    includes: Callable[[nn.Module], bool]
    tensors: Callable[[Any], tuple[LayerTensor, ...]]
    ends: Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], Iterator[Ends]]


def declared_shape(module: nn.Module, name: str) -> tuple[int, ...]:
    """Return the shape that the sizes of a module ask for in a weight of its own; empty where they do not tell."""
    kind = module_kind(module)
    found = () if kind is None else kind.tensors(module)
    return next((tensor.shape for tensor in found if tensor.name == name), ())


def check_module(name: str, module: object) -> None:
    """Refuse what is no module of torch.

    Raises
    ------
    ValueError
        If it is none; `name` is the argument to blame.
    """
    if not isinstance(module, nn.Module):
        raise argument_error(name, "a torch.nn.Module", module if isinstance(module, type) else type(module).__name__)


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution, transposed or quantized ones included."""
    return isinstance(module, _ConvNd) or is_quantized(module, "_ConvNd")


def is_quantized(module: nn.Module, name: str | None = None) -> bool:
    """Return whether a module is one of torch's own quantized layers, of this name if there is one, or a subclass."""
    own = (each for each in type(module).__mro__ if each.__module__.startswith(_QUANTIZED))
    return any(name in (None, each.__name__) for each in own)


def call_ends(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Iterator[Ends]:
    """Yield what one call of a module connects, graph by graph; nothing for recurrent modules."""
    kind = module_kind(module)
    if kind is not None:
        yield from kind.ends(module, args, kwargs, output)


def module_kind(module: nn.Module) -> ModuleKind | None:
    """Return the kind of layer that a module is; None if it is none."""
    return next((kind for kind in _MODULE_KINDS if kind.includes(module)), None)


def _has_weight(types: tuple[type[nn.Module], ...]) -> Callable[[nn.Module], bool]:
    """Return whether a module is of some types and has a ``weight`` that is not None."""
    return lambda module: isinstance(module, types) and module._parameters.get("weight", module) is not None


def _is_transposed_linear(module: nn.Module) -> bool:
    """Return whether a module is the linear layer of GPT-2 in the package transformers, which stores inputs first."""
    return any(f"{each.__module__}.{each.__name__}" == _TRANSPOSED_LINEAR for each in type(module).__mro__)


def _weight(
    kind: str, rows: str, columns: str, *, inputs_first: bool = False
) -> Callable[[Any], tuple[LayerTensor, ...]]:
    """Return the one weight of modules that have its rows and columns in attributes of these names."""

    def tensors(module: nn.Module) -> tuple[LayerTensor, ...]:
        shape = tuple(cast(int, getattr(module, name)) for name in (rows, columns) if hasattr(module, name))
        return (LayerTensor("weight", shape if len(shape) == 2 else (), kind=kind, inputs_first=inputs_first),)

    return tensors


def _kernel(module: _ConvNd) -> tuple[LayerTensor, ...]:
    transposed = module.transposed
    rows, columns = module.out_channels, module.in_channels
    if transposed:
        rows, columns = columns, rows
    shape = (rows, columns // module.groups, *module.kernel_size)
    return (LayerTensor("weight", shape, kind="conv", groups=module.groups, inputs_first=transposed),)


def _recurrent_tensors(module: nn.RNNBase | nn.RNNCellBase) -> tuple[LayerTensor, ...]:
    if isinstance(module, nn.RNNBase):
        gates = GATES[module.mode.split("_")[0]]
        names = [name for name in module._flat_weights_names if name.startswith("weight")]
    else:
        known = [kind for kind in GATES if isinstance(module, getattr(nn, f"{kind}Cell"))]
        gates = GATES[known[0]] if known else ()
        names = ["weight_ih", "weight_hh"] if known else []
    squeezed = getattr(module, "proj_size", 0) > 0  # then weight_hh reads the projection, and is no l x l matrix
    return tuple(
        LayerTensor(
            name,
            kind="recurrent" if name.startswith("weight_hh") and not squeezed else "dense",
            parts=WHOLE if name.startswith("weight_hr") else gates,
        )
        for name in names
    )


def _packed_recurrent_tensors(module: Any) -> tuple[LayerTensor, ...]:
    """Return the weights of torch's dynamically quantized recurrent layers and cells, named as in the float ones."""
    kind = type(module).__name__.removesuffix("Cell")
    gates, hidden = GATES.get(getattr(module, "mode", kind), ()), module.hidden_size
    if not gates:
        return ()
    layers = [("", module.input_size)]
    if not type(module).__name__.endswith("Cell"):
        sides = ("", "_reverse") if module.bidirectional else ("",)
        sizes = [module.input_size, *[hidden * len(sides)] * (module.num_layers - 1)]
        layers = [(f"_l{layer}{side}", size) for layer, size in enumerate(sizes) for side in sides]
    rows = len(gates) * hidden
    pairs = (
        (LayerTensor(f"weight_ih{layer}", (rows, size), parts=gates),
         LayerTensor(f"weight_hh{layer}", (rows, hidden), kind="recurrent", parts=gates))
        for layer, size in layers
    )  # fmt: skip
    return tuple(tensor for pair in pairs for tensor in pair)


def _projections(module: nn.MultiheadAttention) -> tuple[LayerTensor, ...]:
    width = module.embed_dim
    if module._qkv_same_embed_dim:
        return (LayerTensor("in_proj_weight", (3 * width, width), parts=("query", "key", "value")),)
    sizes = {"q": width, "k": module.kdim, "v": module.vdim}
    return tuple(LayerTensor(f"{side}_proj_weight", (width, size)) for side, size in sizes.items())


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return next(iter((*args, *kwargs.values())), None)


def _sized_ends(n_read: str, n_fed: str) -> Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], Iterator[Ends]]:
    """Return the ends of modules that have their numbers of neurons in attributes of these names."""

    def ends(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Iterator[Ends]:
        if hasattr(module, n_read) and hasattr(module, n_fed):
            read = _first(args, kwargs)
            yield Ends(module, 0, read, cast(int, getattr(module, n_read)), output, cast(int, getattr(module, n_fed)))

    return ends


def _kernel_ends(module: _ConvNd, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Iterator[Ends]:
    read = _first(args, kwargs)
    if isinstance(read, Tensor) and isinstance(output, Tensor):
        axes = 1 + len(module.kernel_size)
        yield Ends(module, 0, read, math.prod(read.shape[-axes:]), output, math.prod(output.shape[-axes:]))


def _attention_ends(
    module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> Iterator[Ends]:
    """Yield the ends of the projections, which feed neurons of their own, and of the output projection."""
    named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
    width = module.embed_dim
    for place, (name, size) in enumerate({"query": width, "key": module.kdim, "value": module.vdim}.items()):
        yield Ends(module, place, named.get(name), size, None, width)
    yield Ends(module.out_proj, 0, None, width, output[0] if isinstance(output, tuple) else output, width)


def _no_ends(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Iterator[Ends]:
    return iter(())


_MODULE_KINDS = (
    ModuleKind(
        lambda module: _has_weight((nn.Linear,))(module) or is_quantized(module, "Linear"),
        _weight("dense", "out_features", "in_features"),
        _sized_ends("in_features", "out_features"),
    ),
    ModuleKind(
        lambda module: _has_weight((nn.Embedding, nn.EmbeddingBag))(module) or is_quantized(module, "Embedding"),
        _weight("embedding", "num_embeddings", "embedding_dim", inputs_first=True),
        _sized_ends("num_embeddings", "embedding_dim"),
    ),
    ModuleKind(
        lambda module: _has_weight((_ConvNd,))(module) or is_quantized(module, "_ConvNd"), _kernel, _kernel_ends
    ),
    ModuleKind(_is_transposed_linear, _weight("dense", "nx", "nf", inputs_first=True), _sized_ends("nx", "nf")),
    ModuleKind(lambda module: isinstance(module, nn.RNNBase | nn.RNNCellBase), _recurrent_tensors, _no_ends),
    ModuleKind(
        lambda module: is_quantized(module, "RNNBase") or is_quantized(module, "RNNCellBase"),
        _packed_recurrent_tensors,
        _no_ends,
    ),
    ModuleKind(lambda module: isinstance(module, nn.MultiheadAttention), _projections, _attention_ends),
)
"""The kinds of layers that are read; the first that includes a module counts."""
