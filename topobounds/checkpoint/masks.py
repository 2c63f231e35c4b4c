"""Masks on disk: a safetensors file of one bit a weight, which says of what weights they are."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._files import writing_whole
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.safetensors import SafetensorsCheckpoint

_VERSION = "topobounds.masks"
SHAPES = "shapes"
_FORMAT = "1: one bit a weight, 1 where it is kept, by flat index, the first in the lowest bit of the first byte"


class MasksCheckpoint(Checkpoint):
    """The masks of a file that `writing_masks` wrote, as arrays of bool.

    Attributes
    ----------
    metadata : mapping of str to str
        What the file says of itself.
    """

    format = "masks"

    def __init__(self, stored: SafetensorsCheckpoint) -> None:
        super().__init__(stored.path)
        self._stored = stored
        self.metadata = stored.header.metadata
        self._shapes = self._read_shapes()

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that the masks belong to."""
        return self._stored.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a mask."""
        return self._shapes[self._checked(name)]

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return bool."""
        self._checked(name)
        return np.dtype(np.bool_)

    def tensor(self, name: str) -> Array:
        """Unpack one mask."""
        shape = self.shape(name)
        self._check_memory(name, math.prod(shape))
        bits = np.unpackbits(self._stored.tensor(name), count=math.prod(shape), bitorder="little")
        return bits.view(np.bool_).reshape(shape)

    def close(self) -> None:
        """Let go of the file."""
        self._stored.close()

    def _read_shapes(self) -> dict[str, tuple[int, ...]]:
        try:
            shapes = {name: tuple(shape) for name, shape in json.loads(self.metadata[SHAPES]).items()}
            for name in self._stored.names:
                if self._stored.shape(name) != (_n_bytes(shapes[name]),) or self._stored.dtype(name) != np.uint8:
                    raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            problem = "its metadata do not tell the shapes of its masks"
            raise CheckpointError(f"{self.path} is damaged: {problem}.") from None
        return shapes


def _n_bytes(shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) // 8)


def masks_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return about how many bytes the masks of tensors of these shapes take on disk."""
    return sum(_n_bytes(shape) + 256 + 2 * len(name) for name, shape in shapes.items()) + 4096


@contextmanager
def writing_masks(
    path: Path, shapes: Mapping[str, tuple[int, ...]], base: Mapping[str, str]
) -> Iterator[Callable[[str, NDArray[np.bool_]], None]]:
    """Yield a function ``write(name, mask)`` for the masks of a file, which is there when the block ends.

    Parameters
    ----------
    path : Path
        The file.
    shapes : mapping of str to tuple of int
        Of the masks, each of which is to be written.
    base : mapping of str to str
        SHA-256 of the files that the weights are in, by name.
    """
    sizes = {name: _n_bytes(shape) for name, shape in shapes.items()}
    ends = dict(zip(sizes, itertools.accumulate(sizes.values()), strict=True))
    entries = {
        name: {"dtype": "U8", "shape": [size], "data_offsets": [ends[name] - size, ends[name]]}
        for name, size in sizes.items()
    }
    metadata = {
        _VERSION: _FORMAT,
        SHAPES: json.dumps({k: list(v) for k, v in shapes.items()}),
        "base": json.dumps(base),
    }
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    header += b" " * (-len(header) % 8)
    missing = set(shapes)
    with writing_whole(path) as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + sum(sizes.values()))

        def write(name: str, mask: NDArray[np.bool_]) -> None:
            stream.seek(8 + len(header) + ends[name] - sizes[name])
            stream.write(np.packbits(mask, bitorder="little").data)
            missing.discard(name)

        yield write
        if missing:
            raise ValueError(f"No mask of '{min(missing)}' was written.")


def with_masks(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint, as arrays of bool where it is a file of masks."""
    if isinstance(checkpoint, SafetensorsCheckpoint) and _VERSION in checkpoint.header.metadata:
        return MasksCheckpoint(checkpoint)
    return checkpoint
