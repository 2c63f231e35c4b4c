"""GGUF files: a header of settings and tensors, then the values, in blocks that the package gguf dequantises.

The header is read here and not by the package, whose reader maps a whole file that must lie on this machine, takes
a loop over every token of the vocabulary, and trusts the counts and lengths of a file.
"""

import math
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any, Self, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from topobounds._text import counted
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.described import Described
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.location import Location, read_range, size_of
from topobounds.checkpoint.signatures import format_by_signature
from topobounds.layers import LayerTensor
from topobounds.layers.layer_tensor import numbered_parts
from topobounds.layers.layout import Layout
from topobounds.weights import ScaledWeights

_VERSIONS = (2, 3)
_ALIGNMENT = 32
_LONGEST_NAME = 2**16
_MOST_AXES = 4
_SHORTEST_ENTRY, _SHORTEST_SETTING = 24, 13
"""Bytes of a tensor without a name and axes in the header, and of a setting of one byte."""
_DEEPEST = 4
"""Of arrays in arrays among the settings."""
_STRING, _ARRAY = 8, 9
_SETTINGS: dict[int, str] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""How a setting of each type is stored, but for texts and arrays."""
PLAIN: dict[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F64": np.float64,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
}
"""The types whose values are stored one by one."""
_SCALE_TYPES = ("F32", "F16", "BF16", "F64")
_ROWS_AT_A_TIME = 2**22  # weights; a block is dequantised in steps that take several times their size


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file, and of what type it is; the shape has the rows first, as in numpy."""

    type: int
    shape: tuple[int, ...]
    first: int


class GgufCheckpoint(Checkpoint):
    """The tensors of a GGUF file, under the names that they are stored under.

    Block types are dequantised to float32 by the package gguf; blocks of ``Q8_0`` and ``Q4_0`` are codes with a scale,
    and come as `ScaledWeights`. A matrix ``X.weight`` with one number beside it, ``X.scale``, is multiplied by it,
    and those of experts by one each, as llama.cpp does.
    """

    format = "gguf"
    holds_state_dict = False

    def __init__(self, path: Location, entries: Mapping[str, Entry], settings: Mapping[str, Any]) -> None:
        super().__init__(path)
        types = _Types()
        size = size_of(path)
        readable = {number for number in {each.type for each in entries.values()} if types.is_read(number)}
        reasons = {name: _reason(entry, types, readable) for name, entry in entries.items()}
        self.left_out = {name: reason for name, reason in reasons.items() if reason}
        self.left_out_forms = {
            name: (entries[name].shape, types.names.get(entries[name].type, "")) for name in self.left_out
        }
        self._entries = {name: entry for name, entry in entries.items() if not reasons[name]}
        self._types = types
        self.stored_as = {
            name: f"blocks of {types.names[entry.type]}"
            for name, entry in self._entries.items()
            if types.names[entry.type] not in PLAIN
        }
        for name, entry in self._entries.items():
            with as_checkpoint_error(path, name):
                end = entry.first + types.n_bytes(entry)
                if end > size:
                    raise ValueError(f"the file ends at byte {size}, the tensor at {end}")
        with_scale = {
            name: scale for name in self._entries if (scale := self._name_of_scale(name)) and scale in entries
        }
        self._scales = {name: scale for name, scale in with_scale.items() if self._is_scale(scale, name)}
        for name in with_scale.keys() - self._scales:
            entry = self._entries.pop(name)
            scale = with_scale[name]
            self.left_out[name] = f"its scale, '{scale}', is of another type or shape than one that multiplies it"
            self.left_out_forms[name] = (entry.shape, types.names[entry.type])
            self.stored_as.pop(name, None)
        self.stored_as |= {
            name: f"{self.stored_as.get(name, types.names[self._entries[name].type])} * {scale}"
            for name, scale in self._scales.items()
        }
        self._parts = frozenset(self._scales.values())
        self.described = {name: each for name in self.names if (each := _described(name, self._entries[name].shape))}
        count = settings.get("split.count")
        if isinstance(count, int) and count > 1:
            self.left_out |= {
                counted(count - 1, "more file"): f"the model is split into {count} files, of which this is one"
            }

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file begins as such a file does, or is called .gguf and shows nothing else."""
        return format_by_signature(path) == "gguf" or (path.suffix == ".gguf" and format_by_signature(path) is None)

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open a file; its header is read and checked against the file's length.

        Raises
        ------
        CheckpointError
            If it cannot be read or is damaged, is of an old version or for machines with another order of bytes, or
            the package gguf is not installed.
        """
        if find_spec("gguf") is None:
            raise CheckpointError(
                f"{path} is a GGUF file, and the package gguf is not installed: in a clone of topobounds, "
                "pip install -e '.[gguf]'."
            )
        size = size_of(path)
        with as_checkpoint_error(path, None, struct.error, UnicodeDecodeError), path.open("rb") as stream:
            entries, settings = _Header(path, stream, size).read()
        return cls(path, entries, settings)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of the header."""
        return tuple(name for name in self._entries if name not in self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, rows first; a GGUF file has the columns first."""
        return self._entries[self._checked(name)].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; float32 of blocks."""
        entry = self._entries[self._checked(name)]
        found: np.dtype[Any] = np.dtype(PLAIN.get(self._types.names[entry.type], np.float32))
        return np.result_type(found, np.float32) if name in self._scales else found

    def tensor(self, name: str) -> Array:
        """Read one tensor: a view of the file, or what its blocks stand for."""
        name = self._checked(name)
        entry = self._entries[name]
        kind = self._types.names[entry.type]
        n_bytes = self._types.n_bytes(entry)
        in_memory = n_bytes if kind in PLAIN else max(n_bytes, 4 * math.prod(entry.shape))
        self._check_memory(name, in_memory)
        with as_checkpoint_error(self.path, name):
            raw = read_range(self.path, entry.first, n_bytes)
            if kind in PLAIN:
                array: Array = raw.view(PLAIN[kind]).reshape(entry.shape)
                weights: Array | ScaledWeights = array if array.flags.aligned else array.copy()
            else:
                weights = self._types.dequantised(raw, entry)
            if name not in self._scales:
                return cast(Array, weights)  # a ScaledWeights has what is asked of an array
            with np.errstate(all="ignore"):  # as in the blocks, what is not finite is for whoever uses the weights
                multiplied: Array = np.asarray(weights, self.dtype(name)) * self._scale(name)
            return multiplied

    def _name_of_scale(self, of: str) -> str:
        """Return what the scale of a matrix is called, or of a stack of them; empty where none belongs to it."""
        entry = self._entries[of]
        kind = self._types.names[entry.type]
        can_have = len(entry.shape) > 1 and (kind not in PLAIN or kind in _SCALE_TYPES)
        return f"{of.removesuffix('weight')}scale" if can_have and of.endswith(".weight") else ""

    def _is_scale(self, name: str, of: str) -> bool:
        """Whether a tensor is the scale of another: one number, or of a stack of matrices one for each."""
        entry, shape = self._entries.get(name), self._entries[of].shape
        if entry is None or self._types.names[entry.type] not in _SCALE_TYPES:
            return False
        return math.prod(entry.shape) == 1 or (len(shape) == 3 and entry.shape == shape[:1])

    def _scale(self, of: str) -> NDArray[np.float32]:
        """Return what the blocks of a tensor are multiplied by, in a form that broadcasts against them."""
        entry = self._entries[self._scales[of]]
        raw = read_range(self.path, entry.first, self._types.n_bytes(entry))
        scale: NDArray[np.float32] = raw.copy().view(PLAIN[self._types.names[entry.type]]).astype(np.float32)
        if not np.isfinite(scale).all():
            raise ValueError(f"its scale, '{self._scales[of]}', is not finite in float32")
        return scale.reshape(-1, 1, 1) if scale.size > 1 else scale.reshape(())


def _described(name: str, shape: tuple[int, ...]) -> Described | None:
    """Return what the name of a tensor says that only GGUF files call so; None of others."""
    if name == "token_embd.weight" and len(shape) == 2:
        return Described(LayerTensor(name, shape, "embedding", inputs_first=True))
    if name.endswith("_exps.weight") and len(shape) == 3:
        words = tuple(f"expert {expert} (of {shape[0]})" for expert in range(shape[0]))
        layout = Layout(stacked=1)
        return Described(LayerTensor(name, shape, parts=numbered_parts(shape[0]), layout=layout, words=words))
    return None


class _Types:
    """The block types that the package gguf knows, and what it makes of their bytes."""

    def __init__(self) -> None:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415 -- an extra

        self.names = {int(each): each.name for each in GGMLQuantizationType}
        self._sizes = {int(each): sizes for each, sizes in GGML_QUANT_SIZES.items()}

    def n_bytes(self, entry: Entry) -> int:
        """Return the length of a tensor's values."""
        block, n_bytes = self._sizes[entry.type]
        return math.prod(entry.shape) // block * n_bytes

    def block(self, entry: Entry) -> int:
        """Return how many neighbours of a row are a block."""
        return int(self._sizes[entry.type][0])

    def is_read(self, number: int) -> bool:
        """Whether values of a type are read: stored one by one, or in blocks that the package dequantises."""
        from gguf import GGMLQuantizationType, dequantize  # noqa: PLC0415 -- an extra

        if number not in self.names or self.names[number] in PLAIN:
            return number in self.names
        try:
            dequantize(np.zeros((1, self._sizes[number][1]), np.uint8), GGMLQuantizationType(number))
        except (NotImplementedError, KeyError):
            return False
        return True

    def dequantised(self, raw: NDArray[np.uint8], entry: Entry) -> Array | ScaledWeights:
        """Return what the blocks of a tensor stand for."""
        block, n_bytes = self._sizes[entry.type]
        rows = raw.reshape(-1, entry.shape[-1] // block * n_bytes)
        codes = {"Q8_0": _q8_0, "Q4_0": _q4_0}.get(self.names[entry.type])
        if codes is not None:
            return codes(rows.reshape(-1, n_bytes), entry.shape)
        return self._by_the_package(rows, entry)

    def _by_the_package(self, rows: NDArray[np.uint8], entry: Entry) -> NDArray[np.float32]:
        from gguf import GGMLQuantizationType, dequantize  # noqa: PLC0415 -- an extra

        weights = np.empty((len(rows), entry.shape[-1]), np.float32)
        step = max(_ROWS_AT_A_TIME // max(entry.shape[-1], 1), 1)
        with np.errstate(all="ignore"):  # a scale may be infinite, or no number
            for start in range(0, len(rows), step):
                part = np.ascontiguousarray(rows[start : start + step])
                weights[start : start + step] = dequantize(part, GGMLQuantizationType(entry.type))
        return weights.reshape(entry.shape)


def _q8_0(blocks: NDArray[np.uint8], shape: tuple[int, ...]) -> ScaledWeights:
    """Return 32 codes of eight bits after a scale of float16."""
    codes = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    return _scaled(codes, blocks, shape)


def _q4_0(blocks: NDArray[np.uint8], shape: tuple[int, ...]) -> ScaledWeights:
    """Return 32 codes of four bits after a scale of float16: 16 in the low halves of the bytes, then the others."""
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return _scaled(halves.view(np.int8) - np.int8(8), blocks, shape)


def _scaled(codes: NDArray[np.int8], blocks: NDArray[np.uint8], shape: tuple[int, ...]) -> ScaledWeights:
    scale = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    return ScaledWeights(codes.reshape(shape), scale.reshape(*shape[:-1], -1), block=codes.shape[1])


def _reason(entry: Entry, types: _Types, readable: Collection[int]) -> str | None:
    """Return why a tensor is not read, if it is not."""
    name = types.names.get(entry.type)
    if name is None:
        return f"of block type {entry.type}, which the package gguf does not know: it was removed, or is newer"
    if entry.type not in readable:
        return f"of block type {name}, which the package gguf does not dequantise"
    if name not in PLAIN and (not entry.shape or entry.shape[-1] % types.block(entry)):
        return f"of block type {name}, whose {types.block(entry)} weights a block do not divide its rows"
    return None


class _Header:
    """The header of a GGUF file while it is read.

    Parameters
    ----------
    path : Path or RemotePath
        The file.
    stream : binary stream
        It, opened, at its start.
    size : int
        Its length, which nothing may go beyond.
    """

    def __init__(self, path: Location, stream: IO[bytes], size: int) -> None:
        self._path = path
        self._stream = stream
        self._size = size
        self._position = 0

    def read(self) -> tuple[dict[str, Entry], dict[str, Any]]:
        """Return the tensors, and the settings that are numbers.

        Raises
        ------
        ValueError
            What is wrong with it.
        CheckpointError
            If it is of a version that is not read.
        """
        if self._taken(4) != b"GGUF":
            raise ValueError("it does not begin as a GGUF file")
        (version,) = self._numbers("<I")
        if version not in _VERSIONS and int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS:
            raise CheckpointError(
                f"{self._path} is a GGUF file for machines with the other order of bytes: convert it anew without that."
            )
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self._path} is a GGUF file of version {version}, and 2 and 3 are read: convert it anew."
            )
        n_tensors, n_settings = self._numbers("<QQ")
        if n_tensors * _SHORTEST_ENTRY + n_settings * _SHORTEST_SETTING > self._size:
            raise ValueError(f"it announces {n_tensors} tensors and {n_settings} settings")
        settings = dict(self._setting() for _ in range(n_settings))
        entries = dict(self._entries(n_tensors))
        alignment = settings.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment % 8:
            raise ValueError(f"its tensors would be aligned to {alignment} bytes")
        start = -(-self._position // alignment) * alignment
        for name, entry in entries.items():
            if entry.first % alignment:
                raise ValueError(f"its tensor '{name}' begins at byte {entry.first}, no multiple of {alignment}")
        return {name: Entry(each.type, each.shape, start + each.first) for name, each in entries.items()}, settings

    def _entries(self, n_tensors: int) -> Iterator[tuple[str, Entry]]:
        seen = set()
        for _ in range(n_tensors):
            name = self._text(_LONGEST_NAME)
            (n_axes,) = self._numbers("<I")
            if n_axes > _MOST_AXES:
                raise ValueError(f"its tensor '{name}' has {n_axes} axes")
            shape = self._numbers(f"<{n_axes}Q")
            number, first = self._numbers("<IQ")
            if name in seen:
                raise ValueError(f"it holds '{name}' twice")
            if math.prod(shape) > 2**62 or first > 2**62:
                raise ValueError(f"its tensor '{name}' has {math.prod(shape)} weights at byte {first}")
            seen.add(name)
            yield name, Entry(number, tuple(reversed(shape)), first)

    def _setting(self) -> tuple[str, Any]:
        key = self._text(_LONGEST_NAME)
        (kind,) = self._numbers("<I")
        return key, self._value(key, kind, 0)

    def _value(self, key: str, kind: int, depth: int) -> Any:
        """Return a setting that is one number; what is a text or an array is passed over."""
        if kind in _SETTINGS:
            return self._numbers(_SETTINGS[kind])[0]
        if kind == _STRING:
            self._skip(self._numbers("<Q")[0])
            return None
        if kind != _ARRAY or depth > _DEEPEST:
            raise ValueError(f"its setting '{key}' is of an unknown type, {kind}")
        item, count = self._numbers("<IQ")
        if item in _SETTINGS:
            self._skip(count * struct.calcsize(_SETTINGS[item]))
            return None
        self._check_left(8 * count)  # a text or an array takes as much at least
        for _ in range(count):
            self._value(key, item, depth + 1)
        return None

    def _text(self, most: int) -> str:
        (length,) = self._numbers("<Q")
        if length > most:
            raise ValueError(f"it holds a name of {length} bytes")
        return self._taken(length).decode("utf-8")

    def _numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._taken(struct.calcsize(form)))

    def _taken(self, length: int) -> bytes:
        self._check_left(length)
        content = self._stream.read(length)
        self._position += length
        return content

    def _skip(self, length: int) -> None:
        self._check_left(length)
        self._position += length
        self._stream.seek(self._position)

    def _check_left(self, length: int) -> None:
        if self._position + length > self._size:
            raise ValueError(f"its header goes on to byte {self._position + length}, and it ends at {self._size}")
