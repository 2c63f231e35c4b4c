"""numpy's own files: one array in a .npy file, several in a .npz archive. Nothing is unpickled."""

import io
import lzma
import math
import os
import shutil
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from topobounds._files import writing_whole
from topobounds._memory import largest_unpacked_size
from topobounds._text import shortened
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.location import Location, read_range, size_of
from topobounds.checkpoint.rewriting import BLOCK, BesideWriter, Change, WeightFile, write_anew
from topobounds.checkpoint.signatures import format_by_signature

_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
)
"""What zipfile and numpy's reader of headers raise on files that are damaged, besides ValueError and EOFError."""
_LONGEST_HEADER = 2**14
"""Bytes of the header of a .npy file; numpy refuses those of more than 10,000."""
_LONGEST_REASON = 100  # characters
_CHUNK = 2**20
"""Bytes that are unpacked at a time."""


@dataclass(frozen=True)
class Header:
    """The header of a .npy file.

    Attributes
    ----------
    shape : tuple of int
    columns_first : bool
        Whether the first index is the one that changes fastest.
    dtype : numpy.dtype
    start : int
        The byte at which the values begin.
    """

    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype[Any]
    start: int

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read the header that a file of this content begins with.

        Raises
        ------
        ValueError
            If it makes no sense.
        """
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"its version of the format, {version[0]}.{version[1]}, is unknown")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that Python 2 wrote it
                shape, columns_first, dtype = read(stream)
        except (SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError):  # of what Python makes of it
            raise ValueError("its header is not numpy's") from None
        except ValueError as error:  # numpy shows all of a header that it does not like
            raise ValueError(shortened(str(error), _LONGEST_REASON)) from None
        if any(length < 0 for length in shape):
            raise ValueError(f"its header announces the shape {shape}")
        return cls(shape, columns_first, dtype, stream.tell())

    @property
    def n_bytes(self) -> int:
        """The length of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, values: Array) -> Array:
        """Return the array of so many bytes of values."""
        order = "F" if self.columns_first else "C"
        array: Array = values.view(self.dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]
        return array


class NpyCheckpoint(Checkpoint):
    """The one array of a .npy file, which goes by the stem of the file's name."""

    format = "npy"
    can_be_written = True

    def __init__(self, path: Location, header: Header) -> None:
        super().__init__(path)
        self._header = header

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file begins as such a file does, or is called .npy and shows nothing else."""
        return format_by_signature(path) == "npy" or (path.suffix == ".npy" and format_by_signature(path) is None)

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open a file; its header is read, and checked against the length of the file.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged or of another kind, or would have to be unpickled.
        """
        if format_by_signature(path) == "npz":
            raise CheckpointError(f"{path} is of another kind: it is an archive of arrays, as .npz files are.")
        size = size_of(path)
        with as_checkpoint_error(path, None, *_DAMAGES), path.open("rb") as stream:
            header = Header.read(stream.read(_LONGEST_HEADER))
            if header.dtype.hasobject:
                raise ValueError("it holds no plain array of numbers")
            if header.n_bytes > size - header.start:
                announced = f"its header announces {header.n_bytes} bytes of values"
                raise ValueError(f"{announced}, {size - header.start} follow it")
            return cls(path, header)

    @property
    def names(self) -> tuple[str, ...]:
        """The stem of the file's name."""
        return (self.path.stem,)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the array."""
        self._checked(name)
        return self._header.shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of the array."""
        self._checked(name)
        return self._header.dtype

    def tensor(self, name: str) -> Array:
        """Return the array, a read-only view of the file where it lies on this machine."""
        self._check_memory(self._checked(name), self._header.n_bytes)
        with as_checkpoint_error(self.path, name, *_DAMAGES):
            return self._header.array(read_range(self.path, self._header.start, self._header.n_bytes))

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
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

    def __init__(self, path: Location, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        super().__init__(path)
        self._zip = archive
        self._entries = entries
        self._headers: dict[str, Header] = {}
        self._held = ExitStack()

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file is an archive of .npy files, or called .npz and shows nothing else."""
        return format_by_signature(path) == "npz" or (
            path.suffix == ".npz" and format_by_signature(path) in (None, "zip")
        )

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open an archive; its table of contents is read.

        Raises
        ------
        CheckpointError
            If it cannot be read, is damaged or of another kind, or holds an array twice.
        """
        if format_by_signature(path) == "npy":
            raise CheckpointError(f"{path} is of another kind: it is no archive of arrays, but one array.")
        with ExitStack() as held:
            with as_checkpoint_error(path, None, *_DAMAGES):
                stream = held.enter_context(path.open("rb"))
                archive = held.enter_context(zipfile.ZipFile(stream))
            entries: dict[str, zipfile.ZipInfo] = {}
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in entries:
                    raise CheckpointError(f"{path} is damaged: it holds an array '{name}' twice.")
                entries[name] = entry
            opened = cls(path, archive, entries)
            opened._held = held.pop_all()
            return opened

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays, in the archive's order."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, from its header."""
        return self._header(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of an array, from its header; an array of objects has none."""
        header = self._header(name)
        if header.dtype.hasobject:
            raise CheckpointError(
                f"{self.path}, tensor '{name}', is no plain array of numbers: it holds objects, never unpickled."
            )
        return header.dtype

    def tensor(self, name: str) -> Array:
        """Read one array."""
        self.dtype(name)
        header = self._header(name)
        entry = self._entries[name]
        with as_checkpoint_error(self.path, name, *_DAMAGES):
            if entry.file_size != header.start + header.n_bytes:
                announced = f"its header announces {header.n_bytes} bytes of values"
                raise ValueError(f"{announced}, its entry holds {entry.file_size - header.start}")
            self._check_memory(name, header.n_bytes)
            with self._zip.open(entry) as member:
                member.read(header.start)
                return header.array(_read_whole(member, header.n_bytes))

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
        room: int = 0,
    ) -> None:
        """Write a .npz archive, compressed where this one is; see `Checkpoint.rewrite`."""
        names = tuple(name for name in self.names if self._is_plain(name))
        files = {self.path.name: WeightFile(self.path, self._write, names)}
        write_anew(self, files, target, change, resume=resume, beside=beside, room=room)

    def _write(self, file: Path, change: Change) -> None:
        with writing_whole(file) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name in self.names:
                stored = self._entries[name]
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
        with self._zip.open(self._entries[name]) as member:
            if member.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                return False
        return not self.dtype(name).hasobject

    def close(self) -> None:
        """Close the archive."""
        self._held.close()

    def _header(self, name: str) -> Header:
        """Return the header of an array, read when it is first needed.

        Raises
        ------
        CheckpointError
            If the entry is damaged, is no array, or would unpack to far more bytes than weights do.
        """
        if name not in self._headers:
            entry = self._entries[self._checked(name)]
            with as_checkpoint_error(self.path, name, *_DAMAGES):
                # A few bytes can be made to unpack to any number: the table of contents tells before any are unpacked.
                if entry.file_size > largest_unpacked_size(entry.compress_size):
                    sizes = f"its {entry.compress_size} bytes would expand to {entry.file_size}"
                    raise ValueError(f"{sizes}, as those of real weights do not; np.load reads it where that is meant")
                with self._zip.open(entry) as member:
                    content = member.read(_LONGEST_HEADER)
                if not content.startswith(np.lib.format.MAGIC_PREFIX):
                    raise CheckpointError(f"{self.path} is damaged: its entry '{name}' is no array.")
                self._headers[name] = Header.read(content)
        return self._headers[name]


def _read_whole(member: IO[bytes], length: int) -> Array:
    """Read so many bytes of a member of an archive; at its end its checksum is compared."""
    values = np.empty(length, np.uint8)
    left = memoryview(values.data)
    while left and (count := member.readinto(left[:_CHUNK])):  # type: ignore[attr-defined]
        left = left[count:]
    if left:
        raise ValueError(f"it ends {len(left)} bytes too early")
    member.read(1)
    return values
