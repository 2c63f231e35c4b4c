"""Which modules read the weights of others in their own calls, as ``functional.linear(x, self.layer.weight)`` does."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch_bridge._torch import Tensor, TorchFunctionMode, nn, torch
from torch_bridge.model.weights import weight_parameter

Weight = tuple[nn.Module, str]


class WeightReads(TorchFunctionMode):
    """While `watching` a model that is called, notes which module reads which weight in a function of torch.

    The reader is the module whose call is the innermost one at that moment. A look at shape, type or device is no
    reading, and neither is what a module does with its own weights.

    Parameters
    ----------
    weights : iterable of (torch.nn.Module, str)
        The weights to watch, by module and own name.
    """

    def __init__(self, weights: Iterable[Weight]) -> None:
        super().__init__()
        self._weights = list(weights)
        self._owners: dict[int, list[Weight]] = {}  # by the identity of a tensor that holds the weight
        self._kept: list[Any] = []  # these tensors, so that no other gets the identity of one
        self._active: list[nn.Module] = []
        self._readers: dict[Weight, list[nn.Module]] = {}

    def readers(self) -> dict[Weight, tuple[nn.Module, ...]]:
        """Return what was noted: the readers of every weight that has one."""
        return {weight: tuple(modules) for weight, modules in self._readers.items()}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watch the calls of a model and its modules for the length of a ``with`` block."""
        own: dict[nn.Module, list[Weight]] = {}
        for weight in self._weights:
            own.setdefault(weight[0], []).append(weight)
            self._note_tensors(weight)

        def enter(module: nn.Module, inputs: Any) -> None:
            self._active.append(module)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._active.pop()
            for weight in own.get(module, ()):  # a pruned one has a new tensor after every call
                self._note_tensors(weight)

        with ExitStack() as stack:
            for module in model.modules():
                if not isinstance(module, torch.jit.ScriptModule):
                    stack.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
                    stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            with self:
                yield

    def _note_tensors(self, weight: Weight) -> None:
        module, name = weight
        for tensor in (weight_parameter(module, name), vars(module).get(name)):
            if isinstance(tensor, Tensor) and weight not in self._owners.setdefault(id(tensor), []):
                self._owners[id(tensor)].append(weight)
                self._kept.append(tensor)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and note the weights among its arguments."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._active and _holds_tensors(result):
            for value in (*args, *kwargs.values()):
                for each in value if isinstance(value, list | tuple) else (value,):
                    self._note_reader(self._owners.get(id(each), ()))
        return result

    def _note_reader(self, owners: Iterable[Weight]) -> None:
        reader = self._active[-1]
        if any(module is reader for module, _ in owners):
            return
        for weight in owners:
            found = self._readers.setdefault(weight, [])
            if all(each is not reader for each in found):
                found.append(reader)


def _holds_tensors(result: Any) -> bool:
    return isinstance(result, Tensor) or (
        isinstance(result, list | tuple) and any(isinstance(t, Tensor) for t in result)
    )
