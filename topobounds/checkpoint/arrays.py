"""numpy's own files: one array in a .npy file, several in a .npz archive. Nothing is unpickled."""

import math
import os
import tokenize
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, ClassVar, Self, cast

import numpy as np

from topobounds._files import writing_whole
from topobounds._memory import most_expanded
from topobounds.checkpoint.base import Array, Change, Checkpoint, CheckpointError, explained


class NpyCheckpoint(Checkpoint):
    """The one array of a .npy file, which goes by the stem of the file's name."""

    format = "npy"

    def __init__(self, path: Path, array: Array) -> None:
        super().__init__(path)
        self._array = array

    @staticmethod
    def can_open(path: Path) -> bool:
        """Whether the file is called .npy."""
        return path.suffix == ".npy"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file; its values are mapped into memory, and read when they are looked at.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged or of another kind, or would have to be unpickled.
        """
        with explained(path):
            _check_length(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise CheckpointError(f"{path} is of another kind: it is an archive of arrays, as .npz files are.")
        return cls(path, array)

    @property
    def names(self) -> tuple[str, ...]:
        """The stem of the file's name."""
        return (self.path.stem,)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the array."""
        self._checked(name)
        return self._array.shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of the array."""
        self._checked(name)
        return self._array.dtype

    def tensor(self, name: str) -> Array:
        """Return the array, a read-only view of the file."""
        self._check_memory(self._checked(name), self._array.nbytes)
        return self._array

    def rewrite(self, target: str | os.PathLike[str], change: Change) -> None:
        """Write a .npy file; see `Checkpoint.rewrite`."""
        with writing_whole(Path(target)) as stream:
            np.save(stream, self._changed(self.path.stem, change), allow_pickle=False)


def _check_length(path: Path) -> None:
    """Refuse a .npy file that is shorter than its header says, without arithmetic that overflows."""
    with path.open("rb") as stream:
        if stream.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            return  # np.load tells what it is
        stream.seek(0)
        shape, dtype = _read_header(stream)
        held, declared = path.stat().st_size - stream.tell(), math.prod(shape) * dtype.itemsize
    if held < declared and not dtype.hasobject:
        raise ValueError(f"its header announces {declared} bytes, {held} follow it")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the dtype that numpy's header of an array announces.

    Raises
    ------
    ValueError
        If it makes no sense.
    """
    version = np.lib.format.read_magic(stream)
    try:
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    except (
        SyntaxError,
        tokenize.TokenError,
        TypeError,
        RecursionError,
        MemoryError,
    ):  # of what Python makes of its text
        raise ValueError("its header is not numpy's") from None
    if any(length < 0 for length in shape):
        raise ValueError(f"its header announces the shape {shape}")
    return shape, dtype


class NpzCheckpoint(Checkpoint):
    """The arrays of a .npz archive."""

    format = "npz"
    _DAMAGES: ClassVar[tuple[type[Exception], ...]] = (zipfile.BadZipFile,)

    def __init__(self, path: Path, archive: "np.lib.npyio.NpzFile", held: ExitStack) -> None:
        super().__init__(path)
        self._archive = archive
        self._zip = cast(zipfile.ZipFile, archive.zip)
        self._held = held

    @staticmethod
    def can_open(path: Path) -> bool:
        """Whether the file is called .npz."""
        return path.suffix == ".npz"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an archive; its table of contents is read.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged or of another kind.
        """
        with ExitStack() as held:
            with explained(path, None, *cls._DAMAGES):
                # numpy, given a name, leaves the file open when the archive is damaged.
                stream = held.enter_context(path.open("rb"))
                archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise CheckpointError(f"{path} is damaged: it is no archive of arrays.")
            held.enter_context(archive)
            return cls(path, archive, held.pop_all())

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays, in the archive's order."""
        return tuple(self._archive.files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, from its header."""
        return self._header(name)[0]

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of an array, from its header."""
        return self._header(name)[1]

    def tensor(self, name: str) -> Array:
        """Read one array."""
        with explained(self.path, self._checked(name), *self._DAMAGES):
            self._check_expansion(name)
            array = self._archive[name]
        if not isinstance(array, np.ndarray):
            raise CheckpointError(f"{self.path} is damaged: its entry '{name}' is no array.")
        return array

    def rewrite(self, target: str | os.PathLike[str], change: Change) -> None:
        """Write a .npz archive, compressed where this one is; see `Checkpoint.rewrite`."""
        with writing_whole(Path(target)) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name in self.names:
                array = self._changed(name, change)
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = self._entry(name).compress_type
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def close(self) -> None:
        """Close the archive."""
        self._held.close()

    def _check_expansion(self, name: str) -> None:
        """Refuse an array that is announced to be far larger than what is stored of it."""
        entry = self._entry(name)
        with self._zip.open(entry) as member:
            if member.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                return  # no array
            member.seek(0)
            shape, dtype = _read_header(member)
        announced = math.prod(shape) * dtype.itemsize
        if announced > most_expanded(entry.compress_size):
            raise ValueError(
                f"its {entry.compress_size} bytes are announced to expand to {announced}; numpy.savez stores an array "
                "as it is"
            )
        self._check_memory(name, announced)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(f"{name}.npy")
        except KeyError:
            return self._zip.getinfo(name)

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with (
            explained(self.path, self._checked(name), *self._DAMAGES),
            self._zip.open(self._entry(name)) as member,
        ):
            return _read_header(member)
