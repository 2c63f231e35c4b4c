"""safetensors files: a header of names, types, shapes and places, then the values, one tensor after the other."""

import io
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeGuard

import ml_dtypes
import numpy as np
import safetensors

from topobounds._files import writing_whole
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.config import read_config, tied_by_config
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.json_text import LONGEST_JSON, parsed_json
from topobounds.checkpoint.location import Location, RemotePath, read_range, size_of
from topobounds.checkpoint.rewriting import BesideWriter, Change, WeightFile, flushing, write_anew, write_blocks
from topobounds.checkpoint.signatures import format_by_signature

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
_BITS: dict[str, int] = {name: 8 * np.dtype(dtype).itemsize for name, dtype in DTYPES.items()} | {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "C64": 64,
}
"""Of one value, of types that numpy has no name for as well."""
_MOST_AXES = 64
"""Of an array of numpy."""


@dataclass(frozen=True)
class Entry:
    """Where the values of a tensor lie in a file, and how they are to be read."""

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int

    @property
    def n_bytes(self) -> int:
        """The length of its values."""
        return self.last - self.first


class SafetensorsCheckpoint(Checkpoint):
    """The tensors of one .safetensors file."""

    format = "safetensors"
    can_be_written = True

    def __init__(self, path: Location, header: "Header") -> None:
        super().__init__(path)
        self.header = header
        self.config, self.left_out = read_config(path.parent)
        self.tied = tied_by_config(self.config, header.entries) | tied_by_metadata(header)

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file begins as such a file does, or is called .safetensors and shows nothing else."""
        return format_by_signature(path) in ("safetensors", None) and (
            path.suffix == ".safetensors" or format_by_signature(path) is not None
        )

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open a file; its header is read and checked against the file's length.

        Raises
        ------
        CheckpointError
            If it cannot be read or is damaged; where the file ends too early, the first tensor that is cut is named.
        """
        return cls(path, read_header(path))

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of their values."""
        return tuple(self.header.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.header.entries[self._checked(name)].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; bfloat16 and float8 are those of ml_dtypes."""
        return numpy_dtype(self.path, self.header, self._checked(name))

    def tensor(self, name: str) -> Array:
        """Read one tensor."""
        name = self._checked(name)
        self._check_memory(name, self.header.entries[name].n_bytes)
        return read_tensor(self.path, self.header, name)

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
        room: int = 0,
    ) -> None:
        """Write a .safetensors file with this one's header, metadata included; see `Checkpoint.rewrite`."""
        files = {self.path.name: weight_file(self, self.path, self.header, self.names)}
        write_anew(self, files, target, change, resume=resume, beside=beside, room=room)


@dataclass(frozen=True)
class Header:
    """The header of a .safetensors file: its tensors in the order of their values, and where the values begin."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


def tied_by_metadata(header: Header) -> dict[str, str]:
    """Return the names that the library left out of a file because they share a tensor's memory, with that tensor."""
    entries = header.entries
    return {name: other for name, other in header.metadata.items() if name not in entries and other in entries}


def read_tensor(file: Location, header: Header, name: str) -> Array:
    """Read one tensor: a view of the file, or a copy where it does not lie at a multiple of its item's size.

    Raises
    ------
    CheckpointError
        If the file ends before, or numpy has no name for the type.
    """
    entry = header.entries[name]
    dtype = numpy_dtype(file, header, name)
    with as_checkpoint_error(file, name):
        raw = read_range(file, header.start + entry.first, entry.n_bytes)
    array = raw.view(dtype).reshape(entry.shape)
    return array if array.flags.aligned else array.copy()


def numpy_dtype(file: Location, header: Header, name: str) -> np.dtype[Any]:
    """Return the dtype of a tensor; `CheckpointError` if numpy has no name for it."""
    dtype = header.entries[name].dtype
    if dtype not in DTYPES:
        raise CheckpointError(f"{file}, tensor '{name}', is of type {dtype}, which numpy has no name for.")
    named: np.dtype[Any] = np.dtype(DTYPES[dtype])
    return named


def weight_file(checkpoint: Checkpoint, file: Location, header: Header, names: Collection[str]) -> WeightFile:
    """Return a .safetensors file that can be written anew.

    Parameters
    ----------
    checkpoint : Checkpoint
        Whose `changed` gives the tensors.
    file, header : Location, Header
        The file.
    names : collection of str
        The tensors that are the checkpoint's; the bytes of others are copied.
    """
    own = tuple(name for name in header.entries if name in names and header.entries[name].dtype in DTYPES)

    def write(path: Path, change: Change) -> None:
        with writing_whole(path) as stream, flushing(stream) as flush:
            with as_checkpoint_error(file):
                stream.write(read_range(file, 0, header.start).data)
            for name, entry in header.entries.items():
                if name in own:
                    new = np.ascontiguousarray(checkpoint.changed(name, change))
                    write_blocks(stream, new.reshape(-1).view(np.uint8).data if new.size else memoryview(b""))
                else:
                    write_blocks(stream, read_range(file, header.start + entry.first, entry.n_bytes).data)
                flush()

    return WeightFile(file, write, own)


def read_header(file: Location) -> Header:
    """Read the header of a file, and check it against the file's length.

    Raises
    ------
    CheckpointError
        If it cannot be read; is no JSON; holds a name twice; or its tensors do not cover the rest of the file one after
        the other, each as long as its type and shape say. The message names the tensor.
    """
    size = size_of(file)
    with as_checkpoint_error(file), _stream(file) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_JSON):
            raise ValueError(f"it has {size} bytes, which cannot hold a header of {length}")
        parsed = parsed_json(stream.read(length))
        if not isinstance(parsed, dict):
            raise ValueError("its header is no mapping of names to tensors")
        metadata = parsed.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are no texts")
    entries = {name: _entry(file, name, value) for name, value in parsed.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].first, item[1].last)))
    _check_places(file, ordered, size - 8 - length)
    return Header(ordered, metadata, 8 + length)


def _stream(file: Location) -> IO[bytes]:
    """Open a file; of one behind a URL only its header is asked for, and what is no header is not."""
    if not isinstance(file, RemotePath):
        return file.open("rb")
    start = file.start[:8]
    length = int.from_bytes(start, "little")
    return io.BytesIO(start + file.read_range(8, length) if length <= LONGEST_JSON else start)


def _entry(file: Location, name: str, value: Any) -> Entry:
    """Return the entry of a tensor, checked by itself."""
    with as_checkpoint_error(file, name):
        if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
            raise ValueError("its header does not say its type")
        shape, places = value.get("shape"), value.get("data_offsets")
        if not _are_counts(shape) or len(shape) > _MOST_AXES:
            raise ValueError(f"its shape is no list of at most {_MOST_AXES} non-negative integers")
        if not _are_counts(places) or len(places) != 2 or places[0] > places[1]:
            raise ValueError("its place is no pair of increasing non-negative integers")
        bits = _BITS.get(value["dtype"])
        if bits is None:
            raise ValueError(f"its type {value['dtype']} is unknown")
        if math.prod(shape) * bits != 8 * (places[1] - places[0]):
            raise ValueError(f"it has {places[1] - places[0]} bytes, its type {value['dtype']} and shape say otherwise")
        return Entry(value["dtype"], tuple(shape), *places)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(count) is int and 0 <= count < 2**63 for count in value)


def _check_places(file: Location, entries: Mapping[str, Entry], size: int) -> None:
    """Check that tensors cover the values' `size` bytes one after the other."""
    end = 0
    for name, entry in entries.items():
        with as_checkpoint_error(file, name):
            if entry.last > size:
                raise ValueError(f"the file ends at byte {size} of its values, the tensor at {entry.last}")
            if entry.first != end:
                raise ValueError(f"it begins at byte {entry.first} of the values, the tensor before it ends at {end}")
        end = entry.last
    if end != size:
        raise CheckpointError(f"{file} is damaged: {size - end} bytes at its end belong to no tensor.")


def arrays_in(content: bytes) -> dict[str, Array]:
    """Return the tensors of a safetensors file that is in memory, in the order of its header; read-only.

    Raises
    ------
    ValueError
        If it is damaged, or holds a dtype that numpy has no name for.
    """
    try:
        tensors = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ValueError(f"is damaged: {error}") from error
    for name, tensor in tensors:
        if tensor["dtype"] not in DTYPES:
            raise ValueError(f"tensor '{name}' is of dtype {tensor['dtype']}, which numpy has no name for")
    return {
        name: np.frombuffer(tensor["data"], dtype=DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in tensors
    }


def tensor_at(content: bytes, position: int) -> str | None:
    """Return the tensor that a byte of a safetensors file belongs to, as far as its header can be read."""
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        spans = {name: entry["data_offsets"] for name, entry in _entries(content[8:start]).items()}
        names = [name for name, (first, last) in spans.items() if first <= position - start < last]
    except (ValueError, TypeError, LookupError):
        return None
    return names[0] if names else None


def _entries(header: bytes) -> dict[str, Any]:
    try:
        return {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    except (ValueError, AttributeError, RecursionError):
        return {}
