"""safetensors files: a header of names, types, shapes and places, then the values, one tensor after the other."""

import json
import os
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
import safetensors

from topobounds._files import writing_whole
from topobounds.checkpoint.base import Array, Change, Checkpoint, CheckpointError, explained

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
}


class SafetensorsCheckpoint(Checkpoint):
    """The tensors of one .safetensors file."""

    format = "safetensors"

    def __init__(self, path: Path, header: dict[str, Any], start: int) -> None:
        super().__init__(path)
        self._header = header
        self._start = start

    @staticmethod
    def can_open(path: Path) -> bool:
        """Whether the file is called .safetensors."""
        return path.suffix == ".safetensors"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file; its header is read and checked against the file's length.

        Raises
        ------
        CheckpointError
            If it cannot be read or is damaged; where the file ends too early, the first tensor that is cut is named.
        """
        header, start = read_header(path)
        # The library checks the header and that the tensors cover the file; the values are read where they lie,
        # because it has no numpy dtype for float8.
        cut = _cut_tensor(header, path.stat().st_size - start)
        with explained(path, cut, safetensors.SafetensorError), safetensors.safe_open(path, "numpy"):
            pass
        return cls(path, header, start)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of their values."""
        return tuple(sorted(self._header, key=lambda name: self._header[name]["data_offsets"]))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._header[self._checked(name)]["shape"])

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; bfloat16 and float8 are those of ml_dtypes."""
        dtype = self._header[self._checked(name)]["dtype"]
        if dtype not in DTYPES:
            raise CheckpointError(f"{self.path}, tensor '{name}', is of type {dtype}, which numpy has no name for.")
        named: np.dtype[Any] = np.dtype(DTYPES[dtype])
        return named

    def tensor(self, name: str) -> Array:
        """Read one tensor."""
        dtype = self.dtype(name)
        first, last = self._header[name]["data_offsets"]
        self._check_memory(name, last - first)
        with explained(self.path, name):
            raw = np.fromfile(self.path, np.uint8, last - first, offset=self._start + first)
            return raw.view(dtype).reshape(self.shape(name))

    def rewrite(self, target: str | os.PathLike[str], change: Change) -> None:
        """Write a .safetensors file with this one's header, metadata included; see `Checkpoint.rewrite`."""
        with writing_whole(Path(target)) as stream:
            with explained(self.path), self.path.open("rb") as source:
                stream.write(source.read(self._start))
            for name in self.names:
                array = self._changed(name, change)
                stream.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")


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


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors' entries and where the values begin; no entries if the header makes no sense."""
    with explained(file), file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        content = stream.read(length) if length < file.stat().st_size else b""
    return _entries(content), 8 + length


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


def _cut_tensor(header: dict[str, Any], size: int) -> str | None:
    """Return the first tensor that goes beyond `size` bytes of values, as far as the header makes sense."""
    try:
        spans = [(*entry["data_offsets"], name) for name, entry in header.items()]
        return min(((first, name) for first, last, name in spans if last > size), default=(0, None))[1]
    except (TypeError, ValueError, LookupError):
        return None
