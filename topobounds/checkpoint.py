"""Weights on disk: the named arrays of .npy, .npz and .safetensors files, one at a time and without torch."""

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from numpy.typing import NDArray

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


class CheckpointError(OSError):
    """A file of weights that cannot be read, or holds no such tensor; the message names the file and the tensor."""


def read_arrays(path: str | os.PathLike[str], tensor: str | None = None) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and the values of every array in a file, in the file's order, reading each when it is due.

    Parameters
    ----------
    path : path
        A ``.npy`` file, whose one array goes by the stem of the file name; a ``.npz`` file; or a ``.safetensors`` file.
    tensor : str, optional
        Yield this array only.

    Yields
    ------
    tuple of str and ndarray
        Name and values; arrays may be read-only views of the file. bfloat16 and float8 have the dtypes of ml_dtypes.

    Raises
    ------
    CheckpointError
        If the file is missing, of another kind or damaged, or has no array of that name. Nothing is unpickled.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "layers.npz"
    >>> np.savez(file, first=np.eye(3), second=np.ones(4))
    >>> [(name, array.shape) for name, array in read_arrays(file)]
    [('first', (3, 3)), ('second', (4,))]
    """
    file = Path(path)
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if file.suffix not in readers:
        raise CheckpointError(f"{file} is no .npy, .npz or .safetensors file.")
    found = False
    for name, array in readers[file.suffix](file, tensor):
        found = True
        yield name, array
    if tensor is not None and not found:
        raise CheckpointError(f"{file} has no tensor '{tensor}'.")


def _read_npy(file: Path, tensor: str | None) -> Iterator[tuple[str, NDArray[Any]]]:
    if tensor in (None, file.stem):
        with _explained(file):
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        yield file.stem, array


def _read_npz(file: Path, tensor: str | None) -> Iterator[tuple[str, NDArray[Any]]]:
    with _explained(file):
        stream = file.open("rb")  # which numpy, given a name, leaves open when the archive is damaged
    with stream:
        with _explained(file):
            archive = np.load(stream, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise CheckpointError(f"{file} is damaged: it is no archive of arrays.")
        for name in archive.files:
            if tensor in (None, name):
                with _explained(file, name):
                    array = archive[name]
                if not isinstance(array, np.ndarray):
                    raise CheckpointError(f"{file} is damaged: its entry '{name}' is no array.")
                yield name, array


def _read_safetensors(file: Path, tensor: str | None) -> Iterator[tuple[str, NDArray[Any]]]:
    header, start = _header(file)
    # The library checks the header and that the tensors cover the file; the values are read where they lie, because
    # it has no numpy dtype for float8.
    with _explained(file, _cut_tensor(header, file.stat().st_size - start)), safetensors.safe_open(file, "numpy"):
        pass
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if tensor not in (None, name):
            continue
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(f"{file}, tensor '{name}', is of type {entry['dtype']}, which numpy has no name for.")
        first, last = entry["data_offsets"]
        with _explained(file, name):
            raw = np.fromfile(file, np.uint8, last - first, offset=start + first)
            array = raw.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
        yield name, array


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors' entries and where the data begin; no entries if the header makes no sense."""
    with _explained(file), file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        content = stream.read(length) if length < file.stat().st_size else b""
    try:
        header = json.loads(content)
        return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + length
    except (ValueError, AttributeError):
        return {}, 8 + length


def _cut_tensor(header: dict[str, Any], size: int) -> str | None:
    """Return the first tensor that goes beyond `size` bytes of data, as far as the header makes sense."""
    try:
        spans = [(*entry["data_offsets"], name) for name, entry in header.items()]
        return min(((first, name) for first, last, name in spans if last > size), default=(0, None))[1]
    except (TypeError, ValueError, LookupError):
        return None


@contextmanager
def _explained(file: Path, tensor: str | None = None) -> Iterator[None]:
    """Turn what goes wrong with a file into one error that names it."""
    where = f"{file}, tensor '{tensor}'," if tensor else f"{file}"
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        reason = "it holds no plain array of numbers" if "pickle" in str(error) else str(error).rstrip(".")
        raise CheckpointError(f"{where} is damaged, or of another kind: {reason}.") from error
    except OSError as error:
        raise CheckpointError(f"{where} could not be read: {error.strerror or 'no such file'}.") from error
