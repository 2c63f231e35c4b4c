"""What a file is by its content: its first bytes, and the members of a zip archive."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path, PurePosixPath

from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import Location, RemotePath

_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What torch.save began a file with before torch 1.6, after the two bytes that name the protocol of the pickle."""
_TENSORFLOW_END = bytes.fromhex("57fb808b247547db")
"""What TensorFlow's tables end with: the index of a checkpoint, or one of before 1.0 whole."""
_FIRST_BYTES = {
    b"\x93NUMPY": "npy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"version https://git-lfs": "git-lfs",
    b"<!DOCTYPE html": "html",
    b"<!doctype html": "html",
    b"<html": "html",
    b"GGUF": "gguf",
    b"\x1f\x8b": "compressed",
    b"BZh": "compressed",
    b"\xfd7zXZ": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"MATLAB 5.0 MAT-file": "matlab",
}
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))


_KNOWN: ContextVar[dict[Location, str | None] | None] = ContextVar("known formats", default=None)


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Look at every file once in a ``with`` block, in which no file changes, however many ask what it is."""
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def format_by_signature(path: Location) -> str | None:
    """Return what the content of a file shows it to be; None if nothing is recognised, or it cannot be read.

    Returns
    -------
    str or None
        ``npy npz safetensors torch torchscript torch.export keras hdf5 git-lfs html gguf tensorflow matlab compressed
        zip pickle``, or ``torch, legacy``.
    """
    known = _KNOWN.get()
    if known is None:
        return _remembered(path) if isinstance(path, RemotePath) else _looked_at(path)
    if path not in known:
        known[path] = _looked_at(path)
    return known[path]


@lru_cache(maxsize=8)
def _remembered(path: RemotePath) -> str | None:
    return _looked_at(path)


def _looked_at(path: Location) -> str | None:
    try:
        if not path.is_file():
            return None
        if isinstance(path, RemotePath) and not (start := path.start).startswith(b"PK"):
            return _format_of_start(start)  # without asking for more than the header
        with path.open("rb") as stream:
            start = stream.read(32)
            if start.startswith((b"PK\3\4", b"PK\5\6")):
                with zipfile.ZipFile(stream) as archive:
                    return _format_of_archive(archive.namelist())
    except (CheckpointError, OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    return _format_of_start(start) or ("tensorflow" if _ends_as_tensorflow(path) else None)


def _ends_as_tensorflow(path: Location) -> bool:
    """Whether a file on this machine ends as a table of TensorFlow does."""
    if not isinstance(path, Path) or path.stat().st_size < len(_TENSORFLOW_END):
        return False
    with path.open("rb") as stream:
        stream.seek(-len(_TENSORFLOW_END), os.SEEK_END)
        return stream.read() == _TENSORFLOW_END


def _format_of_start(start: bytes) -> str | None:
    """Return the format of a file that is no archive, by its first bytes.

    A header of safetensors is looked for first: its length, which comes before it, may be the first bytes of another
    format. One of 640 bytes begins as a pickle.
    """
    if start[8:].lstrip(b" ").startswith((b'{"', b"{}")) and int.from_bytes(start[:8], "little") < 2**40:
        return "safetensors"
    for first, name in _FIRST_BYTES.items():
        if start.startswith(first):
            return name
    if start.startswith(_PICKLES):
        return "torch, legacy" if start[2:].startswith(_TORCH_MAGIC) else "pickle"
    return None


def _format_of_archive(members: list[str]) -> str:
    """Return the format of a zip archive, by the names of its members."""
    names = {PurePosixPath(member).name for member in members}
    if "model.weights.h5" in names:
        return "keras"
    if "data.pkl" in names:
        return "torchscript" if "constants.pkl" in names else "torch"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "torch.export"
    return "npz" if any(member.endswith(".npy") for member in members) else "zip"
