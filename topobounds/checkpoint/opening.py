"""Which reader opens a file, and all its arrays in turn."""

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from topobounds._arguments import file_name
from topobounds._files import check_regular
from topobounds.checkpoint.arrays import NpyCheckpoint, NpzCheckpoint
from topobounds.checkpoint.base import Array, Checkpoint, CheckpointError, Reader, explained
from topobounds.checkpoint.safetensors import SafetensorsCheckpoint

READERS: tuple[Reader, ...] = (NpyCheckpoint, NpzCheckpoint, SafetensorsCheckpoint)
GROUP = "topobounds.readers"


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a file of weights; only its headers are read.

    The formats of this package come first, then those that others register as entry points of the group
    ``topobounds.readers``: objects with ``can_open(path)`` and ``open(path)``, see `Reader`.

    Parameters
    ----------
    path : path
        A ``.npy``, ``.npz`` or ``.safetensors`` file, or what a registered reader opens.

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
    file = Path(file_name("path", path))
    if not file.is_dir():
        with explained(file):
            check_regular(file)
    for reader in READERS:
        if reader.can_open(file):
            return reader.open(file)
    registered: list[Reader] = [plugin.load() for plugin in entry_points(group=GROUP)]
    for reader in registered:
        if reader.can_open(file):
            return reader.open(file)
    raise CheckpointError(f"{file} is no .npy, .npz or .safetensors file.")


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
        if tensor is not None and tensor not in checkpoint.names:
            raise CheckpointError(f"{Path(path)} has no tensor '{tensor}'.")
        for name in checkpoint.names if tensor is None else (tensor,):
            yield name, checkpoint.tensor(name)
