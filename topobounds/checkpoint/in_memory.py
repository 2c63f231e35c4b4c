"""Arrays in memory as a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from topobounds._arguments import argument_error
from topobounds._types import Array
from topobounds.checkpoint.base import NOTHING, Checkpoint
from topobounds.checkpoint.errors import CheckpointError
from topobounds.weights import as_array


class ArraysCheckpoint(Checkpoint):
    """A mapping of names to arrays, or tensors of torch, as a checkpoint without files.

    Names of one array, or of one memory, are tied.

    Parameters
    ----------
    arrays : mapping of str to array_like
        Converted one at a time, when they are read.
    config : mapping, optional
        What a config.json would say.

    Raises
    ------
    ValueError
        If it is no mapping, a name is no text, or a value has no shape and dtype.

    Examples
    --------
    >>> checkpoint = ArraysCheckpoint({"fc.weight": np.eye(3)})
    >>> checkpoint.names, checkpoint.shape("fc.weight"), checkpoint.files
    (('fc.weight',), (3, 3), ())
    """

    format = "arrays"

    def __init__(self, arrays: Mapping[str, Any], config: Mapping[str, Any] = NOTHING) -> None:
        super().__init__(Path())
        if not isinstance(arrays, Mapping):
            raise argument_error("arrays", "a mapping of names to arrays", arrays)
        for name, array in arrays.items():
            if not isinstance(name, str):
                raise argument_error("arrays", "a mapping of names to arrays, names being texts", name)
            if not hasattr(array, "shape") or not hasattr(array, "dtype"):
                raise ValueError(f"Argument 'arrays' must hold arrays, but '{name}' is of type {type(array).__name__}.")
        first: dict[object, str] = {}
        self.tied = {}
        for name, array in arrays.items():
            owner = first.setdefault(_memory(array), name)
            if owner != name:
                self.tied[name] = owner
        self._arrays = {name: array for name, array in arrays.items() if name not in self.tied}
        self.config = config

    @property
    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays, in the order of the mapping."""
        return tuple(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return tuple(self._arrays[self._checked(name)].shape)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of an array, that of an array of one of its values where it is a tensor of torch."""
        dtype = self._arrays[self._checked(name)].dtype
        return dtype if isinstance(dtype, np.dtype) else self.tensor(name).dtype

    def tensor(self, name: str) -> Array:
        """Return an array."""
        name = self._checked(name)
        try:
            return as_array(name, self._arrays[name])
        except ValueError as error:
            raise CheckpointError(f"Tensor '{name}' cannot be read: {error}") from error


def _memory(array: Any) -> object:
    """Return what two arrays have in common that are one."""
    if isinstance(array, np.ndarray) and array.size:
        return array.ctypes.data, array.shape, array.strides, array.dtype.str
    if hasattr(array, "data_ptr") and hasattr(array, "stride") and array.data_ptr():
        return array.data_ptr(), tuple(array.shape), array.stride(), str(array.dtype)
    return id(array)
