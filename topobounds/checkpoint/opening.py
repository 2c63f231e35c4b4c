"""Which reader opens a file, and all its arrays in turn."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from topobounds._arguments import file_name
from topobounds._types import Array
from topobounds.checkpoint.arrays import NpyCheckpoint, NpzCheckpoint
from topobounds.checkpoint.base import Checkpoint, Reader
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.gguf import GgufCheckpoint
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.location import Location, RemotePath, location, size_of
from topobounds.checkpoint.masks import with_masks
from topobounds.checkpoint.model_names import with_model_names
from topobounds.checkpoint.onnx import OnnxCheckpoint
from topobounds.checkpoint.quantised import with_quantised_weights
from topobounds.checkpoint.refusals import refusal_of_unread, refuse_by_content
from topobounds.checkpoint.safetensors import SafetensorsCheckpoint
from topobounds.checkpoint.sharded import LoneFileReader, ShardedCheckpoint, snapshot_of
from topobounds.checkpoint.signatures import format_by_signature, looked_at_once

_READERS: tuple[Reader, ...] = (
    ShardedCheckpoint,
    NpyCheckpoint,
    NpzCheckpoint,
    GgufCheckpoint,
    OnnxCheckpoint,
    SafetensorsCheckpoint,
)
GROUP = "topobounds.readers"
SUFFIXES = (".safetensors", ".npz", ".npy", ".pt", ".pth", ".th", ".bin", ".ckpt", ".gguf", ".onnx")
"""Of files that may be weights: a folder of which none is the one to be read is refused, and they are named."""


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a file of weights; only its headers are read.

    The formats of this package come first, then those that others register as entry points of the group
    ``topobounds.readers``: objects with ``can_open(path)`` and ``open(path)``, see `Reader`.

    Parameters
    ----------
    path : path
        A ``.npy``, ``.npz``, ``.safetensors``, ``.gguf`` or ``.onnx`` file; a folder with
        ``model.safetensors.index.json``, or with one ``.safetensors`` file; what a registered reader opens, such as the
        files of torch; or the URL of one of them, of which only what is read is transferred. The content of a file
        decides, then its name.

    Returns
    -------
    Checkpoint
        Its tensors by name; a context manager.

    Raises
    ------
    CheckpointError
        If the file is missing, of another kind or damaged. Nothing is unpickled.
    ValueError
        If `path` is empty.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "layers.npz"
    >>> np.savez(file, first=np.eye(3), second=np.ones(4))
    >>> with open_checkpoint(file) as checkpoint:
    ...     print(checkpoint.format, checkpoint.names, checkpoint.shape("first"), checkpoint.tensor("second"))
    npz ('first', 'second') (3, 3) [1. 1. 1. 1.]
    """
    place = snapshot_of(location(file_name("path", path)))
    with looked_at_once():
        if not place.is_dir():  # a folder may hold both what is read and what is not
            _check_kind(place)
            refuse_by_content(place)
        for reader in _readers():
            if reader.can_open(place):
                return _as_model(reader.open(place))
        refuse_by_content(place)
        raise CheckpointError(_why_none_opens(place))


def opened(source: Any, held: ExitStack) -> Checkpoint:
    """Return a checkpoint as it is, arrays in memory as one, and what is opened by its path until `held` closes it.

    Raises
    ------
    CheckpointError
        As `open_checkpoint`.
    ValueError
        As `ArraysCheckpoint`.
    """
    if isinstance(source, Checkpoint):
        return source
    return ArraysCheckpoint(source) if isinstance(source, Mapping) else held.enter_context(open_checkpoint(source))


def _as_model(stored: Checkpoint) -> Checkpoint:
    """Return a state dict under the names of the model, its quantised weights as weights; others as they are."""
    try:
        stored = with_masks(stored)
        return with_quantised_weights(with_model_names(stored)) if stored.holds_state_dict else stored
    except BaseException:
        stored.close()
        raise


def _readers() -> Iterator[Reader]:
    """Yield the readers in the order in which they are tried; those of other packages are not imported before."""
    yield from _READERS
    for plugin in entry_points(group=GROUP):
        yield plugin.load()
    yield LoneFileReader()


def _check_kind(place: Location) -> None:
    """Refuse pipes and devices, and servers that send whole files only; say of what is missing what it may be."""
    if isinstance(place, RemotePath):
        _ = place.start
        return
    try:
        size_of(place)
    except CheckpointError:
        refuse_by_content(place)
        raise


def _why_none_opens(place: Location) -> str:
    """Return the message on what no reader opens."""
    known = refusal_of_unread(place)
    if known is not None:
        return known.told_of(place)
    if place.is_dir():
        within = _weights_in(place) if isinstance(place, Path) else []
        way_on = f" Name one in it: {', '.join(within[:5])}." if within else ""
        known_files = "model.safetensors.index.json, model.safetensors or another known file"
        return f"{place} is a folder without {known_files}.{way_on}"
    if format_by_signature(place) in ("torch", "torch, legacy"):
        return (
            f"{place} is a file of torch, whose reader is missing: in a clone of topobounds, pip install -e '.[torch]'."
        )
    return f"{place} is no .npy, .npz, .safetensors, .gguf or .onnx file."


def _weights_in(folder: Path) -> list[str]:
    """Return the files in a folder that look like weights, and the folders in it that hold such files."""
    names = []
    for each in sorted(folder.iterdir()):
        files = each.iterdir() if each.is_dir() else (each,)
        if any(file.suffix in SUFFIXES and file.is_file() for file in files):
            names.append(each.name)
    return names


def read_arrays(path: str | os.PathLike[str], tensor: str | None = None) -> Iterator[tuple[str, Array]]:
    """Yield the name and the values of every array in a file, in the file's order, reading each when it is due.

    Parameters
    ----------
    path : path
        What `open_checkpoint` takes.
    tensor : str, optional
        Yield this array only.

    Yields
    ------
    tuple of str and ndarray
        Name and values; arrays may be read-only views of the file. bfloat16 and float8 have the dtypes of ml_dtypes.

    Raises
    ------
    CheckpointError
        If the file is missing, of another kind or damaged, or has no array of that name.
    """
    with open_checkpoint(path) as checkpoint:
        if tensor is not None and tensor not in (*checkpoint.names, *checkpoint.tied):
            raise CheckpointError(f"{checkpoint.path} has no tensor '{tensor}'.")
        for name in checkpoint.names if tensor is None else (tensor,):
            yield name, checkpoint.tensor(name)
