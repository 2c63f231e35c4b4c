"""What a user says of tensors: a TOML file of tables, one for each pattern of names.

::

    ["stem.conv.weight"]
    stride = 2
    padding = 3
    input = [224, 224]

    ["blocks.*.attn.qkv.weight"]
    parts = ["query", "key", "value"]
    sizes = [2048, 512, 512]
"""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from topobounds._arguments import argument_error, boolean, choice, file_name, integer
from topobounds._files import parsed_toml
from topobounds._text import printable
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.kernels import assumed_geometry
from topobounds.checkpoint.location import size_of
from topobounds.checkpoint.stored import Stored, nearest_names
from topobounds.layers import PADDING_MODES, LayerTensor
from topobounds.layers.layer_tensor import GATES, WHOLE, gate_words, numbered_parts
from topobounds.layers.layout import Layout

LONGEST = 2**20  # bytes of a geometry file
_KINDS = ("dense", "conv", "recurrent", "embedding", "none")
_WILD = frozenset("*?[")


@dataclass(frozen=True)
class Key:
    """A key of a geometry file.

    Attributes
    ----------
    check : callable
        ``check(key, value)``: the value, or ValueError.
    of_kernels : bool
        Whether it is said of kernels only.
    argument : str
        The argument of `Conv` that it is.
    """

    check: Callable[[str, Any], Any]
    of_kernels: bool = False
    argument: str = ""


def _lengths(low: int) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(integer(key, each, low) for each in value)
        return integer(key, value, low)

    return check


def _padding(key: str, value: Any) -> Any:
    return choice(key, value, ("same", "valid")) if isinstance(value, str) else _lengths(0)(key, value)


def _names(key: str, value: Any) -> tuple[str, ...]:
    """Return the names of parts: as they are given, or numbers of so many."""
    if isinstance(value, list) and value and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    if isinstance(value, list | str):
        raise argument_error(key, "a number, or a list of names", value)
    return numbered_parts(integer(key, value, 1))


def _gates(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return GATES[choice(key, value, tuple(GATES))]
    return _names(key, value)


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(key: str, value: Any) -> str:
        if value not in allowed and isinstance(value, str) and (near := difflib.get_close_matches(value, allowed, 1)):
            raise argument_error(key, f"one of {', '.join(allowed)}, perhaps '{near[0]}'", value)
        return choice(key, value, allowed)

    return check


def _positive(key: str, value: Any) -> int:
    return integer(key, value, 1)


def _sizes(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise argument_error(key, "a list of lengths, one for each part", value)
    return tuple(integer(key, each, 1) for each in value)


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "kind": Key(_one_of(_KINDS)),
        "inputs_first": Key(boolean),
        "gates": Key(_gates),
        "parts": Key(_names),
        "sizes": Key(_sizes),
        "interleaved": Key(_positive),
        "stacked": Key(boolean),
        "stride": Key(_lengths(1), True, "stride"),
        "padding": Key(_padding, True, "padding"),
        "padding_end": Key(_lengths(0), True, "padding_end"),
        "padding_mode": Key(_one_of(PADDING_MODES), True, "padding_mode"),
        "dilation": Key(_lengths(1), True, "dilation"),
        "output_padding": Key(_lengths(0), True, "output_padding"),
        "input": Key(_lengths(1), True, "input_size"),
        "groups": Key(_positive, True, "groups"),
        "transposed": Key(boolean, True),
        "channels_last": Key(boolean, True),
    }
)
"""The keys that a table may have."""


class Geometry:
    """What a user says of tensors.

    Parameters
    ----------
    given : path, or mapping of str to mapping
        A TOML file, or its content: for each pattern of names the keys of `KEYS`.
    names : iterable of str
        The tensors that there are.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or is no TOML.
    ValueError
        If a key is unknown, a value impossible, or a pattern matches no tensor; the message names the file and the
        table, and what is nearest.
    """

    def __init__(self, given: str | os.PathLike[str] | Mapping[str, Any], names: Iterable[str]) -> None:
        self._origin = "geometry" if isinstance(given, Mapping) else file_name("geometry", given)
        content = geometry_content(given)
        names = list(names)
        self._tables: dict[str, dict[str, Any]] = {}
        for pattern, table in content.items():
            self._tables[pattern] = self._checked(pattern, table)
            if not any(_matches(name, pattern) for name in names):
                raise self._error(pattern, f"matches no tensor{nearest_names(pattern, names)}")
        self._used: set[str] = set()

    def applied(self, stored: Stored, answer: LayerTensor | str, input_size: tuple[int, ...] = ()) -> LayerTensor | str:
        """Return what a tensor is read as, where anything is said of it; else `answer`.

        Parameters
        ----------
        stored : Stored
            The tensor.
        answer : LayerTensor or str
            What it is without being told.
        input_size : tuple of int
            As in `assumed_geometry`.

        Raises
        ------
        ValueError
            If what is said is impossible for the tensor.
        """
        told: dict[str, Any] = {}
        last = ""
        for pattern, table in self._tables.items():
            if _matches(stored.name, pattern):
                obstacle = _obstacle(stored, answer, told | table)
                if obstacle is None:
                    told |= table
                    last = pattern
                    self._used.add(pattern)
                elif not _WILD & set(pattern):
                    raise self._error(pattern, f"is of a tensor that {obstacle}")
        if not told:
            return answer
        try:
            return _told(stored, answer, told, input_size)
        except ValueError as error:
            problem = str(error).replace("'input_size'", "'input'")
            raise self._error(last, f"says of '{stored.name}' {stored.shape}: {problem}", "") from None

    def check_used(self) -> None:
        """Refuse a table that says nothing of any tensor that it matches."""
        for pattern in self._tables:
            if pattern not in self._used:
                raise self._error(pattern, "matches no tensor of which this can be said")

    def _checked(self, pattern: str, table: Any) -> dict[str, Any]:
        if not isinstance(table, Mapping) or not table:
            raise self._error(pattern, f"must be a table of {', '.join(KEYS)}")
        found = {}
        for key, value in table.items():
            if isinstance(value, Mapping):
                raise self._error(pattern, 'must be in quotation marks, as a name with dots: ["layer.weight"]')
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, 1)
                perhaps = f"'{near[0]}' is the nearest" if near else f"there are {', '.join(KEYS)}"
                raise self._error(pattern, f"has an unknown key '{key}'; {perhaps}")
            try:
                found[key] = KEYS[key].check(key, value)
            except ValueError as error:
                raise self._error(pattern, f"cannot be used: {error}", "") from None
        return found

    def _error(self, pattern: str, problem: str, end: str = ".") -> ValueError:
        return ValueError(printable(f"{self._origin}, table '{pattern}', {problem}{end}"))


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def geometry_content(given: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tables of a geometry file, or what is given in its place.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or is no TOML.
    """
    return given if isinstance(given, Mapping) else _read(Path(file_name("geometry", given)))


def _read(file: Path) -> Mapping[str, Any]:
    if size_of(file) > LONGEST:
        raise CheckpointError(f"{file} is too long for a geometry file: it has {size_of(file)} bytes.")
    with as_checkpoint_error(file):
        return parsed_toml(file.read_bytes())


def _obstacle(stored: Stored, answer: LayerTensor | str, table: Mapping[str, Any]) -> str | None:
    """Return why nothing of a table can be said of a tensor; None where it can."""
    if not stored.is_real or len(stored.shape) < 2 or 0 in stored.shape:
        return f"is no array of weights: {answer}" if isinstance(answer, str) else "is no array of weights"
    if table.get("kind") not in (None, "conv") and any(KEYS[key].of_kernels for key in table):
        return f"is told to be {table['kind']}, and has keys of kernels"
    if "kind" not in table and all(KEYS[key].of_kernels for key in table):
        is_kernel = isinstance(answer, LayerTensor) and answer.kind == "conv"
        return None if is_kernel or isinstance(answer, str) else f"is read as {answer.kind}, not as a kernel"
    return None


def _told(
    stored: Stored, answer: LayerTensor | str, told: Mapping[str, Any], input_size: tuple[int, ...]
) -> LayerTensor | str:
    known = answer if isinstance(answer, LayerTensor) else None
    kernel_keys = any(KEYS[key].of_kernels for key in told)
    kind = told.get("kind") or (known.kind if known else "conv" if kernel_keys else "dense")
    if kind == "none":
        return "left out by the geometry file"
    base = known if known is not None and (known.kind == kind or kind in ("dense", "recurrent")) else None
    base = base or LayerTensor(stored.name, stored.shape)
    base = replace(base, kind=kind, dtype=stored.dtype, geometry=None)
    return _told_kernel(base, told, input_size) if kind == "conv" else _told_matrix(base, told)


def _told_kernel(base: LayerTensor, told: Mapping[str, Any], input_size: tuple[int, ...]) -> LayerTensor:
    n_axes = len(base.shape)
    if not 3 <= n_axes <= 5:
        raise ValueError(f"a kernel has 3 to 5 dimensions, this has {n_axes}.")
    transposed = told.get("transposed", base.inputs_first)
    layout = base.layout
    if "channels_last" in told:
        order = (n_axes - 1, n_axes - 2, *range(n_axes - 2)) if told["channels_last"] else ()
        layout = Layout(order=order)
    groups = told.get("groups", base.groups)
    tensor = replace(base, inputs_first=transposed, layout=layout, groups=groups, parts=WHOLE, assumed=None, words=())
    arguments = {KEYS[key].argument: value for key, value in told.items() if KEYS[key].argument}
    conv, assumed = assumed_geometry(tensor, input_size, arguments)
    return replace(tensor, geometry=conv, assumed=assumed)


def _told_matrix(base: LayerTensor, told: Mapping[str, Any]) -> LayerTensor:
    inputs_first = told.get("inputs_first", base.inputs_first or base.kind == "embedding")
    gates = told.get("gates")
    names = gates or told.get("parts", base.parts)
    stacked = int(told.get("stacked", bool(base.layout.stacked)))
    number = base.shape[0] if stacked else 1
    if stacked and {"parts", "gates", "stacked"} & told.keys():
        names = names if "parts" in told or gates else WHOLE
        names = tuple(f"{each} {part}".strip() for each in range(number) for part in names)
    cut = {"gates", "parts", "sizes", "interleaved", "stacked", "inputs_first"} & told.keys()
    layout = base.layout
    if cut:
        sizes = told.get("sizes", () if {"gates", "parts"} & told.keys() else layout.sizes)
        interleaved = told.get("interleaved", 1 if {"gates", "parts"} & told.keys() else layout.interleaved)
        layout = Layout(stacked=stacked, axis=int(inputs_first), sizes=sizes, interleaved=interleaved)
    kept = base.words if not {"gates", "parts", "stacked"} & told.keys() and "kind" not in told else ()
    tensor = replace(
        base,
        inputs_first=inputs_first,
        parts=names,
        layout=layout,
        words=gate_words(gates, "recurrent layer") if gates and not stacked else kept or _part_words(names),
        assumed=None,
    )
    for rows, columns in (shape for shape in tensor.part_shapes() if tensor.kind == "recurrent"):
        if rows != columns:
            raise ValueError(f"hidden to hidden is square, this is {rows} x {columns}.")
    tensor.part_shapes()
    return tensor


def _part_words(names: tuple[str, ...]) -> tuple[str, ...]:
    return (
        () if names == WHOLE else tuple(f"part {each} of {len(names)} ({name})" for each, name in enumerate(names, 1))
    )
