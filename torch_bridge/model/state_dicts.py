"""Where the weights are in what torch.load returns: state dicts under customary keys, in lists, beside other things."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topobounds._text import counted

if TYPE_CHECKING:
    from torch import Tensor

_CUSTOMARY_KEYS: tuple[str, ...] = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "params_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema",
    "checkpoint",
)
"""Under which a checkpoint keeps its weights, the ones to be preferred first."""
_INNER_KEYS: tuple[str, ...] = ("state_dict", "model_state_dict")
"""Under which they are within such an entry, whatever else is there; under another key where no other has tensors."""
_DEEPEST = 16


class NumpyValue:
    """What stands for a number or an array of numpy in a file of torch: nothing is made of it.

    Its methods take what a pickle hands to those of numpy.
    """

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclass
class StateDict:
    """The weights in a checkpoint.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By name; in nested mappings and lists the names of the levels are joined with dots.
    left_out : dict of str to str
        What is there besides, with the reason: optimiser state, other sets of weights, what is no tensor.
    """

    tensors: "dict[str, Tensor]" = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def find_state_dict(content: Any, name: str) -> StateDict:
    """Return the weights in what torch.load returned.

    Parameters
    ----------
    content : object
        A state dict; a mapping with one under a customary key, perhaps in a list; or nested mappings and lists of
        tensors.
    name : str
        What a tensor is called that stands alone.

    Returns
    -------
    StateDict
        The weights, and what is left out.

    Examples
    --------
    >>> import torch
    >>> state = {"fc.weight": torch.ones(2, 2)}
    >>> optimizer = {"state": {}, "param_groups": []}
    >>> found = find_state_dict({"epoch": 3, "state_dict": [state], "optimizer": optimizer}, "x")
    >>> list(found.tensors), found.left_out["epoch"], found.left_out["optimizer"]
    (['fc.weight'], 'no tensor, but of type int', 'optimiser state, with 0 tensors')
    """
    found = StateDict()
    weights = _without_list(content)
    for depth in range(_DEEPEST):
        key = _weights_key(weights, _CUSTOMARY_KEYS if not depth or _has_one_set(weights) else _INNER_KEYS)
        if key is None:
            break
        found.left_out |= {str(each): _reason(each, weights[each], key) for each in weights if each != key}
        weights = _without_list(weights[key])
    if _is_tensor(weights):
        found.tensors[name] = weights
    elif _is_optimiser("", weights):
        found.left_out[name] = f"optimiser state, with {counted(_tensors_in(weights), 'tensor')}"
    else:
        _flatten(weights, "", found, set(), _DEEPEST)
    return found


def _without_list(value: Any) -> Any:
    """Return what is in a list of one."""
    while isinstance(value, list | tuple) and len(value) == 1 and not _is_tensor(value[0]):
        value = value[0]
    return value


def _weights_key(content: Any, keys: Iterable[str]) -> str | None:
    if not isinstance(content, Mapping) or _is_optimiser("", content):
        return None
    held = (key for key in keys if key in content and not _is_tensor(content[key]))
    return next((key for key in held if _tensors_in(content[key]) and not _is_optimiser(key, content[key])), None)


def _reason(name: object, value: Any, chosen: str) -> str:
    """Return why an entry beside the weights is left out."""
    count = _tensors_in(value)
    if _is_optimiser(name, value):
        return f"optimiser state, with {counted(count, 'tensor')}"
    if _is_tensor(value):
        return f"a tensor beside the weights, which are in '{chosen}'"
    return f"{counted(count, 'tensor')} beside the weights, which are in '{chosen}'" if count else _kind(value)


def _has_one_set(content: Any) -> bool:
    """Whether one entry of a mapping has tensors, optimiser state aside."""
    entries = content.items() if isinstance(content, Mapping) else ()
    return sum(bool(_tensors_in(value)) and not _is_optimiser(key, value) for key, value in entries) == 1


def _kind(value: Any) -> str:
    if isinstance(value, NumpyValue):
        return "no tensor, but a value of numpy"
    sized = isinstance(value, Mapping | list | tuple | set)
    return f"no tensors, but {len(value)} other entries" if sized else f"no tensor, but of type {type(value).__name__}"


def _flatten(value: Any, name: str, found: StateDict, visited: set[int], depth: int) -> None:
    """Add the tensors of nested mappings and lists; what refers to itself is followed once."""
    visited.add(id(value))
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, each in items:
        full = f"{name}.{key}" if name else str(key)
        if _is_tensor(each):
            found.tensors[full] = each
        elif _is_optimiser(key, each):
            found.left_out[full] = f"optimiser state, with {counted(_tensors_in(each), 'tensor')}"
        elif _tensors_in(each) and id(each) not in visited and depth:
            _flatten(each, full, found, visited, depth - 1)
        else:
            found.left_out[full] = _kind(each)


def _is_optimiser(name: object, value: Any) -> bool:
    named = "optim" in str(name).lower() and not _is_tensor(value)
    return named or (isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys())


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensors_in(value: Any) -> int:
    """Return how many tensors there are in nested mappings and lists, each of which is looked at once."""
    count, waiting, visited = 0, [value], set()
    while waiting:
        each = waiting.pop()
        if _is_tensor(each):
            count += 1
        elif isinstance(each, Mapping | list | tuple) and id(each) not in visited:
            visited.add(id(each))
            waiting += each.values() if isinstance(each, Mapping) else each
    return count
