"""Which layers of a PyTorch model share neurons: groups of neurons, followed from tensor to tensor through one call."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch_bridge._torch import Tensor, TorchFunctionMode, WeakTensorKeyDictionary, nn
from torch_bridge.model.modules import call_ends

_ADDITIONS = {"add", "iadd", "radd", "sub", "isub", "rsub"}
_PRODUCTS = {"mul", "imul", "rmul", "div", "truediv", "itruediv"}
_RESHAPING = {"flatten", "unflatten", "reshape", "reshape_as", "view", "view_as", "ravel", "squeeze", "unsqueeze"}
_ELEMENTWISE = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("softsign", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "log_sigmoid", "logsigmoid", "tanh", "tanhshrink"),
    *("hardshrink", "softshrink", "threshold", "clamp", "clip", "abs", "neg"),
    *("sin", "cos", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "erf", "pow"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
    *("contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16"),
}


def _spans(tensor: Tensor, result: Tensor) -> bool:
    """Return whether a tensor has the shape of a result, or is repeated along the first dimensions only."""
    own = tensor.shape
    while own and own[0] == 1:
        own = own[1:]
    return result.shape[result.ndim - len(own) :] == own


class Neurons(TorchFunctionMode):
    """While it is entered, follow groups of neurons through torch's functions.

    A group of n neurons lies in a tensor in row-major order: neuron i at all flat places that are i modulo n. Reshaping
    keeps that, and so does what acts on each element; sums make two groups one. All other functions, pooling,
    transposing, concatenating and products of two groups among them, make new neurons.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tags = WeakTensorKeyDictionary()
        self._joined: list[int] = []  # the group that a group became part of; itself if none
        self._sizes: list[int | None] = []
        self._resized: dict[tuple[int, int], int] = {}  # what a group is to a layer that reads another number

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and say which neurons its result holds."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        changed = args[0] if name == "setitem" else result
        if isinstance(changed, Tensor):
            group = self._kept(name, [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)], changed)
            if group is not None:
                self._tags[changed] = group
            elif changed in self._tags:
                del self._tags[changed]
        return result

    def _kept(self, name: str, given: list[Tensor], result: Tensor) -> int | None:
        """Return the group of a function's result, None for new neurons."""
        if name in _RESHAPING:
            return self._of(given[0]) if given[0].numel() == result.numel() else None
        if name in _ELEMENTWISE:
            return self._of(given[0]) if given[0].shape == result.shape else None
        if name not in _ADDITIONS | _PRODUCTS:
            return None
        new = [t for t in given if t.shape == result.shape] if name in _ADDITIONS else []
        aligned = [t for t in given if t in self._tags and _spans(t, result)] + new
        groups = {self._root(self._of(t)) for t in aligned}
        spread = {self._root(self._of(t)) for t in given if t in self._tags and not _spans(t, result)}
        if not groups or self._layers(spread):
            return None
        if name in _ADDITIONS:
            return self._merged(groups)
        factors = self._layers(groups) or groups  # a mask or a gate that no layer made only scales
        return next(iter(factors)) if len(factors) == 1 else None

    def _layers(self, groups: set[int]) -> set[int]:
        """Return the groups that layers have read or fed."""
        return {group for group in groups if self._sizes[group] is not None}

    def _of(self, tensor: Tensor) -> int:
        if tensor not in self._tags:
            self._tags[tensor] = self.new(None)
        return int(self._tags[tensor])

    def _root(self, group: int) -> int:
        while self._joined[group] != group:
            group = self._joined[group]
        return group

    def _merged(self, groups: set[int]) -> int | None:
        sizes = {self._sizes[group] for group in self._layers(groups)}
        if len(sizes) > 1:
            return None
        first = min(groups)
        for group in groups:
            self._joined[group] = first
        self._sizes[first] = next(iter(sizes), None)
        return first

    def new(self, size: int | None) -> int:
        """Return a group that no tensor holds yet."""
        self._joined.append(len(self._joined))
        self._sizes.append(size)
        return len(self._joined) - 1

    def held(self, tensor: Any, size: int) -> int:
        """Return the group of `size` neurons that a tensor holds, a new one if it holds none of that size."""
        if not isinstance(tensor, Tensor):
            return self.new(size)
        group = self._root(self._of(tensor))
        if self._sizes[group] not in (None, size):
            return self._resized.setdefault((group, size), self.new(size))
        self._sizes[group] = size
        return group

    def ends(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Iterator[tuple[nn.Module, int, tuple[int, int]]]:
        """Yield the groups that a call of a layer read and fed: module, place of the graph in the module, groups."""
        for ends in call_ends(module, args, kwargs, output):
            groups = self.held(ends.read, ends.n_read), self.held(ends.fed, ends.n_fed)
            yield ends.module, ends.place, groups

    def numbered(self, ends: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the groups numbered from 0 in the order in which they are first read or fed."""
        numbers: dict[int, int] = {}
        return [
            (numbers.setdefault(self._root(a), len(numbers)), numbers.setdefault(self._root(b), len(numbers)))
            for a, b in ends
        ]
