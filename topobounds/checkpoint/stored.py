"""A stored tensor among the others of its checkpoint: its name in pieces, and what its neighbours are."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from topobounds.checkpoint.base import NOTHING, Checkpoint
from topobounds.checkpoint.errors import CheckpointError


def _next_array(match: re.Match[str]) -> str:
    """Return the name that np.savez gives to the array after one."""
    return f"arr_{int(match[0].removeprefix('arr_')) + 1}"


_BIASES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"weight(_[iho]h_l\d+(_reverse)?|)$", r"bias\1"),
    (r"(depthwise_|pointwise_|)kernel$", "bias"),
    (r"(^|[._/])w(\d*)$", r"\1b\2"),
    (r"(^|[._/])W(\d*)$", r"\1b\2"),
    (r"^arr_\d+$", _next_array),
    (r"$", "_bias"),
)
"""How the name of a bias follows from that of its weight."""


class StoredTensors:
    """All tensors of a checkpoint: shapes and dtypes by name, and what the config.json says.

    Attributes
    ----------
    shapes : mapping of str to tuple of int
        In the order in which they are stored.
    dtypes : mapping of str to numpy.dtype or str
        The reason where numpy has no name for it.
    config : mapping
        As `Checkpoint.config`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any] | str] = {}
        for name in checkpoint.names:
            try:
                self.shapes[name] = checkpoint.shape(name)
                self.dtypes[name] = checkpoint.dtype(name)
            except CheckpointError as error:
                self.dtypes[name] = str(error).removeprefix(f"{checkpoint.path}, tensor '{name}', ").rstrip(".")
        self.config: Mapping[str, Any] = checkpoint.config or NOTHING

    @cached_property
    def model_types(self) -> tuple[str, ...]:
        """What the config calls the model, and the parts that it describes by themselves."""
        nested = (value for value in self.config.values() if isinstance(value, Mapping))
        found = (each.get("model_type") for each in (self.config, *nested))
        return tuple(each for each in found if isinstance(each, str))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that the config names."""
        listed = self.config.get("architectures")
        return tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()

    def is_model_type(self, *names: str) -> bool:
        """Whether the config calls the model, or a part of it, by one of these names."""
        return any(each in names for each in self.model_types)

    @cached_property
    def has_codes(self) -> bool:
        """Whether any tensor is of integers, or of numbers of one byte or less, as quantised weights are."""
        kinds = {dtype if isinstance(dtype, str) else dtype.name for dtype in self.dtypes.values()}
        return any(not kind.startswith(("bfloat16", "float16", "float32", "float64")) for kind in kinds)

    def of_module(self, path: str) -> "list[Stored]":
        """Return the tensors of one module, whose names are those of a path and one piece more."""
        return [Stored(name, self) for name in self._by_path.get(path, ())]

    @cached_property
    def _by_path(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.dtypes:
            found.setdefault(Stored(name, self).path, []).append(name)
        return found

    @cached_property
    def matrices(self) -> list[str]:
        """Names of the tensors of two or more dimensions, in the order in which they are stored."""
        return [name for name, shape in self.shapes.items() if len(shape) > 1 and math.prod(shape) > max(shape)]

    @cached_property
    def shapes_of_matrices(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the tensors of two dimensions."""
        return [(name, shape) for name, shape in self.shapes.items() if len(shape) == 2]

    def reads_colours(self, axes: int) -> bool:
        """Whether a kernel of so many dimensions reads three or four channels, as the first of colour images does."""
        return axes in self._first_layers

    @cached_property
    def _first_layers(self) -> set[int]:
        kernels = (shape for shape in self.shapes.values() if len(shape) in (4, 5))
        return {len(shape) for shape in kernels if shape[1] in (3, 4) and shape[0] > 4 and shape[2] > 1}

    @cached_property
    def before(self) -> dict[str, tuple[str, ...]]:
        """Of each of `matrices` the one before it, as stored and by name with numbers in their order."""
        found: dict[str, tuple[str, ...]] = dict.fromkeys(self.matrices, ())
        for order in (self.matrices, sorted(self.matrices, key=_natural)):
            for last, name in pairwise(order):
                found[name] = (*found[name], last)
        return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]


@dataclass(frozen=True, eq=False)
class Stored:
    """One tensor.

    Attributes
    ----------
    name : str
        As in the checkpoint.
    tensors : StoredTensors
        All tensors of the checkpoint, itself among them.
    """

    name: str
    tensors: StoredTensors

    @property
    def shape(self) -> tuple[int, ...]:
        """From the header."""
        return self.tensors.shapes.get(self.name, ())

    @cached_property
    def dtype(self) -> str:
        """The name of its dtype; empty where numpy has none."""
        dtype = self.tensors.dtypes[self.name]
        return "" if isinstance(dtype, str) else dtype.name

    @property
    def is_real(self) -> bool:
        """Whether its values are floating-point numbers of at most 64 bits."""
        return self.dtype.startswith(("float", "bfloat")) and self.dtype not in ("float96", "float128")

    @cached_property
    def pieces(self) -> list[str]:
        """Its name, cut at dots and slashes, without the ``:0`` of TensorFlow."""
        return re.split(r"[./]", self.name.removesuffix(":0"))

    @cached_property
    def leaf(self) -> str:
        """The last piece: ``"weight"``."""
        return self.pieces[-1]

    @property
    def module(self) -> str:
        """The last piece but one, the name of its module in the module around it; empty where there is none."""
        return self.pieces[-2] if len(self.pieces) > 1 else ""

    @cached_property
    def path(self) -> str:
        """What is before the last piece, with its dot or slash."""
        bare = self.name.removesuffix(":0")
        return bare[: len(bare) - len(self.leaf)]

    def beside(self, leaf: str) -> tuple[int, ...] | None:
        """Return the shape of the tensor with another last piece; None where there is none."""
        return self.tensors.shapes.get(f"{self.path}{leaf}{self.name[len(self.path) + len(self.leaf) :]}")

    def renamed(self, pattern: str, other: str | Callable[[re.Match[str]], str]) -> tuple[int, ...] | None:
        """Return the shape of the tensor whose name has `other` where this one's matches a pattern."""
        bare = self.name.removesuffix(":0")
        renamed, count = re.subn(pattern, other, bare, count=1)
        ending = self.name[len(bare) :]
        return self.tensors.shapes.get(renamed + ending) if count and renamed != bare else None

    @cached_property
    def bias(self) -> int | None:
        """The length of its bias, where there is one of one dimension."""
        if self.leaf == "weight":
            shape = self.tensors.shapes.get(f"{self.path}bias", ())
            return shape[0] if len(shape) == 1 else None
        found = (self.renamed(pattern, other) for pattern, other in _BIASES)
        lengths = [shape[0] for shape in found if shape is not None and len(shape) == 1]
        return lengths[0] if lengths else None

    def has_word(self, pattern: str, *, places: int = 2) -> bool:
        """Whether one of its last pieces, of which there are `places`, holds a pattern, whatever the capitals."""
        return any(re.search(pattern, piece, re.IGNORECASE) for piece in self.pieces[-places:])


def nearest_names(name: str, names: Iterable[str]) -> str:
    """Return the end of an error about a name that is none of some others: which are nearest."""
    names = list(names)
    near = difflib.get_close_matches(name, names, 3, 0.4) or names[:3]
    return f"; the nearest {'are' if len(near) > 1 else 'is'} {', '.join(near)}" if near else "; there is none"
