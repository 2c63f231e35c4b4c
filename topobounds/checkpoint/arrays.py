"""numpy's own files: one array in a .npy file, several in a .npz archive. Nothing is unpickled."""

import math
import os
import shutil
import tokenize
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np

from topobounds._files import writing_whole
from topobounds._memory import most_expanded
from topobounds.checkpoint.base import Array, Beside, Change, Checkpoint, CheckpointError, explained
from topobounds.checkpoint.location import Location, read_range, size_of
from topobounds.checkpoint.rewriting import BLOCK, WeightFile, write_anew
from topobounds.checkpoint.signatures import format_of

DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
)
"""What zipfile and numpy's reader of headers raise on files that are damaged, besides ValueError and EOFError."""
LONGEST_HEADER = 2**16
"""Bytes of the header of a .npy file; numpy refuses those of more than 10,000."""


class NpyCheckpoint(Checkpoint):
    """The one array of a .npy file, which goes by the stem of the file's name."""

    format = "npy"
    can_be_written = True

    def __init__(self, path: Location, array: Array) -> None:
        super().__init__(path)
        self._array = array

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file begins as such a file does, or is called .npy and shows nothing else."""
        return format_of(path) == "npy" or (path.suffix == ".npy" and format_of(path) is None)

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open a file; its values are mapped into memory, and read when they are looked at. A URL is read at once.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged or of another kind, or would have to be unpickled.
        """
        if format_of(path) == "npz":
            raise CheckpointError(f"{path} is of another kind: it is an archive of arrays, as .npz files are.")
        size = size_of(path)
        with explained(path, None, *DAMAGES), path.open("rb") as stream:
            shape, columns_first, dtype = _read_header(stream)
            start = stream.tell()
            length = math.prod(shape) * dtype.itemsize
            if dtype.hasobject:
                raise ValueError("it holds no plain array of numbers")
            if length > size - start:
                raise ValueError(f"its header announces {length} bytes of values, {size - start} follow it")
            values = read_range(path, start, length)
            return cls(path, values.view(dtype).reshape(shape, order="F" if columns_first else "C"))

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

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: Beside | None = None,
        room: int = 0,
    ) -> None:
        """Write a .npy file; see `Checkpoint.rewrite`."""
        files = {self.path.name: WeightFile(self.path, self._write, self.names)}
        write_anew(self, files, target, change, resume=resume, beside=beside, room=room)

    def _write(self, file: Path, change: Change) -> None:
        with writing_whole(file) as stream:
            np.save(stream, self.changed(self.path.stem, change), allow_pickle=False)


class NpzCheckpoint(Checkpoint):
    """The arrays of a .npz archive."""

    format = "npz"
    can_be_written = True

    def __init__(self, path: Location, archive: "np.lib.npyio.NpzFile", held: ExitStack) -> None:
        super().__init__(path)
        self._archive = archive
        self._zip = cast(zipfile.ZipFile, archive.zip)
        self._held = held

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file is an archive of .npy files, or called .npz and shows nothing else."""
        return format_of(path) == "npz" or (path.suffix == ".npz" and format_of(path) in (None, "zip"))

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open an archive; its table of contents is read.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged or of another kind.
        """
        with ExitStack() as held:
            with explained(path, None, *DAMAGES):
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
        with explained(self.path, self._checked(name), *DAMAGES):
            self._check_size(name)
            array = self._archive[name]
        if not isinstance(array, np.ndarray):
            raise CheckpointError(f"{self.path} is damaged: its entry '{name}' is no array.")
        return array

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: Beside | None = None,
        room: int = 0,
    ) -> None:
        """Write a .npz archive, compressed where this one is; see `Checkpoint.rewrite`."""
        names = tuple(name for name in self.names if self._is_plain(name))
        files = {self.path.name: WeightFile(self.path, self._write, names)}
        write_anew(self, files, target, change, resume=resume, beside=beside, room=room)

    def _write(self, file: Path, change: Change) -> None:
        with writing_whole(file) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name in self.names:
                stored = self._entry(name)
                entry = zipfile.ZipInfo(stored.filename)
                entry.compress_type = stored.compress_type
                with archive.open(entry, "w", force_zip64=True) as member:
                    self._write_member(name, stored, member, change)

    def _write_member(self, name: str, stored: zipfile.ZipInfo, member: IO[bytes], change: Change) -> None:
        """Write an array, or what is none and so cannot be changed."""
        if self._is_plain(name):
            array = self.tensor(name)
            new = self.checked_change(name, array, change(name, array))
            if new is not array:
                np.lib.format.write_array(member, new, allow_pickle=False)
                return
        with self._zip.open(stored) as content:
            shutil.copyfileobj(content, member, BLOCK)

    def _is_plain(self, name: str) -> bool:
        """Whether a member of the archive is an array of numbers."""
        with self._zip.open(self._entry(name)) as member:
            if member.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                return False
        return not self.dtype(name).hasobject

    def close(self) -> None:
        """Close the archive."""
        self._held.close()

    def _entry(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(f"{name}.npy")
        except KeyError:
            return self._zip.getinfo(name)

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with (
            explained(self.path, self._checked(name), *DAMAGES),
            self._zip.open(self._entry(name)) as member,
        ):
            shape, _, dtype = _read_header(member)
            return shape, dtype

    def _check_size(self, name: str) -> None:
        """Refuse an array that is not as long as its header says, or that a few bytes would expand to."""
        entry = self._entry(name)
        if entry.file_size > most_expanded(entry.compress_size):
            sizes = f"its {entry.compress_size} bytes would expand to {entry.file_size}"
            raise ValueError(f"{sizes}, as those of real weights do not; np.load reads it where that is meant")
        with self._zip.open(entry) as member:
            if member.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                return  # `tensor` says that it is no array
        shape, dtype = self._header(name)
        declared = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and not declared < entry.file_size < declared + LONGEST_HEADER:
            raise ValueError(f"its header announces {declared} bytes of values, its entry holds {entry.file_size}")
        self._check_memory(name, declared)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy file: shape, whether columns come first, dtype.

    Raises
    ------
    ValueError
        If it makes no sense.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its version of the format, {version[0]}.{version[1]}, is unknown")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, columns_first, dtype = read(stream)
    except (SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError):  # of what Python makes of it
        raise ValueError("its header is not numpy's") from None
    if any(length < 0 for length in shape):
        raise ValueError(f"its header announces the shape {shape}")
    return shape, columns_first, dtype
