"""Where weights lie: a path on this machine, or a URL whose bytes are asked for range by range."""

import ctypes
import io
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from http import HTTPStatus
from pathlib import Path, PurePath, PurePosixPath
from threading import Lock
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from topobounds._files import check_regular
from topobounds._text import shortened
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error

_BUFFER = 2**18
"""Bytes in a request for a header of unknown length; so many of both ends of a file are kept."""
_MOST_AHEAD = 2**23
"""Bytes in a request when a file is read on and on."""
_LEAST_ASKED = 2**20
"""Bytes of a tensor that are worth asking for before they are met."""
_PLACES = 4
"""Where in a part of a file it is asked whether the system holds it."""
_LEAST_AHEAD, _AHEAD = 2**28, 2**29
"""Bytes behind a tensor that are to be looked at ahead: once they are fewer than the first, up to the second."""
_LARGE_PAGE = 2**21
"""Bytes; files begin at a multiple of them in memory, too, for the system to map them in large pages."""
_SUFFIXES = {
    "safetensors": (".safetensors",),
    "npz": (".npz",),
    "npy": (".npy",),
    "torch": (".pt", ".pth", ".th"),
}
"""What programs go by that open a file of a format, the commonest first."""


@dataclass(frozen=True, eq=False)
class RemotePath:
    """A file or a folder behind a URL, with those methods of `pathlib.Path` that readers use.

    Parameters
    ----------
    url : str
        Anything that fsspec opens: ``https://host/folder/model.safetensors``, ``s3://bucket/key``, ``memory://file``.

    Examples
    --------
    >>> path = RemotePath("https://host/folder/model.safetensors?download=true")
    >>> path.name, path.suffix, path.stem, str(path.parent / "config.json")
    ('model.safetensors', '.safetensors', 'model', 'https://host/folder/config.json')
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL's path."""
        return PurePosixPath(unquote(urlsplit(self.url).path or self.url.split("://")[-1])).name

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot on."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> "RemotePath":
        """The folder; a query (``?download=true``) is not kept."""
        scheme, host, path, _, _ = urlsplit(self.url)
        return RemotePath(urlunsplit((scheme, host, path.rstrip("/").rpartition("/")[0], "", "")))

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def is_dir(self) -> bool:
        """Whether it is a folder; of a web server, which does not tell, what ends in / or has no suffix."""
        if self._is_on_the_web:
            return urlsplit(self.url).path.endswith("/") or not self.suffix
        with _remote_as_checkpoint_error(self):
            return bool(self._filesystem.isdir(self._key))

    def is_file(self) -> bool:
        """Whether it is a file that can be asked for."""
        return not self.is_dir() and self.exists()

    def exists(self) -> bool:
        """Whether it is there; a web server is asked for its headers only."""
        with _remote_as_checkpoint_error(self):
            try:
                self._filesystem.info(self._key)
            except FileNotFoundError:
                return False
        return True

    @cached_property
    def size(self) -> int:
        """The length of the file in bytes.

        Raises
        ------
        CheckpointError
            If it is not there, or the server does not say.
        """
        with _remote_as_checkpoint_error(self):
            size = self._filesystem.info(self._key).get("size")
        if not isinstance(size, int):
            raise CheckpointError(f"{self} cannot be read in parts: its server does not say how long it is. {_WAY_ON}")
        return size

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file for reading; its bytes are asked for as they are read, in ranges of at least 256 KiB.

        Raises
        ------
        CheckpointError
            If it is not there, or its server sends whole files only.
        """
        return io.BufferedReader(_Ranges(self), _BUFFER)

    def read_range(self, first: int, length: int) -> bytes:
        """Ask for bytes of the file, in one request; fewer come where the file ends before.

        Raises
        ------
        CheckpointError
            If it is not there, its server sends whole files only, or the connection breaks.
        """
        length = min(length, self._size_of_parted - first)
        if length <= 0:
            return b""
        with _remote_as_checkpoint_error(self):
            content: bytes = self._filesystem.cat_file(self._key, start=first, end=first + length)
        if len(content) != length:
            raise CheckpointError(f"{self} could not be read: of {length} bytes at {first}, {len(content)} came.")
        return content

    @cached_property
    def start(self) -> bytes:
        """The first 32 bytes of the file, which tell its format."""
        return self.read_range(0, 32)

    @cached_property
    def head(self) -> bytes:
        """The first 256 KiB of the file."""
        return self.read_range(0, _BUFFER)

    @cached_property
    def tail(self) -> bytes:
        """The last 256 KiB of the file: an archive has its table of contents there."""
        start = max(0, self.size - _BUFFER)
        return self.head if start == 0 else self.read_range(start, _BUFFER)

    @cached_property
    def _size_of_parted(self) -> int:
        """The length of a file that can be read in parts; a web server is asked for its last byte to see that."""
        if self._is_on_the_web and self.size > 1:
            with _remote_as_checkpoint_error(self), self._filesystem.open(self._key, "rb", cache_type="none") as stream:
                try:
                    stream.seek(self.size - 1)
                    stream.read(1)
                except ValueError:  # it answers with the whole file, of which fsspec then reads nothing
                    raise CheckpointError(
                        f"{self} cannot be read in parts: its server sends whole files only. {_WAY_ON}"
                    ) from None
        return self.size

    @property
    def _is_on_the_web(self) -> bool:
        return urlsplit(self.url).scheme in ("http", "https")

    @cached_property
    def _filesystem(self) -> Any:
        return self._resolved[0]

    @cached_property
    def _key(self) -> str:
        return str(self._resolved[1])

    @cached_property
    def _resolved(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 -- an extra
        except ModuleNotFoundError:
            raise CheckpointError(
                f"{self} needs fsspec, which is not installed: in a clone of topobounds, pip install -e '.[remote]'."
            ) from None
        with _remote_as_checkpoint_error(self):
            filesystem, key = url_to_fs(self.url)
        return filesystem, key


Location = Path | RemotePath


def location(path: str | os.PathLike[str] | RemotePath) -> Location:
    """Return where a path or a URL points; ``file://`` is a path.

    Raises
    ------
    CheckpointError
        If it is neither: a URL of nothing, or one with half an address.

    Examples
    --------
    >>> location("weights.npz"), location("file:///data/weights.npz"), location("s3://bucket/weights.npz")
    (PosixPath('weights.npz'), PosixPath('/data/weights.npz'), RemotePath(url='s3://bucket/weights.npz'))
    """
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if not isinstance(path, str) or "://" not in text:
        return Path(text)
    scheme, separator, rest = text.partition("://")
    url = scheme.lower() + separator + rest
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise CheckpointError(f"{text} is no URL: {error}.") from None
    if not (parts.netloc or parts.path):
        raise CheckpointError(f"{text} names no file or folder.")
    return Path(unquote(parts.path)) if parts.scheme == "file" else RemotePath(url)


def path_elsewhere(path: str | os.PathLike[str] | RemotePath) -> str:
    """Return the path or the URL under which processes in other folders find a file.

    Examples
    --------
    >>> path_elsewhere("weights.npz") == str(Path.cwd() / "weights.npz"), path_elsewhere("s3://bucket/weights.npz")
    (True, 's3://bucket/weights.npz')
    """
    place = location(path)
    return str(place.absolute() if isinstance(place, Path) else place)


def size_of(file: Location) -> int:
    """Return the length of a file in bytes.

    Raises
    ------
    CheckpointError
        If it is not there, or no regular file: pipes and devices may send nothing, or never end.
    """
    if isinstance(file, RemotePath):
        return file.size
    with as_checkpoint_error(file):
        check_regular(file)
        return file.stat().st_size


def is_inside(name: Any) -> bool:
    """Return whether a name that a file holds leads to another file in its folder, or below.

    Examples
    --------
    >>> is_inside("weights/part.bin"), is_inside("../part.bin"), is_inside("/part.bin")
    (True, False, False)
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name or "://" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def check_new_path(place: Path) -> None:
    """Refuse a place for a new file or folder where something is already, or that is in no folder.

    Raises
    ------
    CheckpointError
        If it is such a place.
    """
    if os.path.lexists(place):
        raise CheckpointError(f"{place} is there already: give the name of something new.")
    if not place.parent.is_dir():
        raise CheckpointError(f"{place} cannot be written: there is no folder {place.parent}.")


def check_suffix(place: Path, kind: str, source: PurePath | None = None) -> None:
    """Refuse a name by which other programs would take a new file for another format than it has.

    Raises
    ------
    CheckpointError
        If the name ends as those of another format do, and not as that of the file that is written anew.
    """
    suffix = place.suffix.lower()
    if source is not None and suffix == source.suffix.lower():
        return
    told = next((each for each, suffixes in _SUFFIXES.items() if suffix in suffixes), kind)
    if told != kind:
        way_on = f"name it {place.with_suffix(_SUFFIXES[kind][0]).name}"
        raise CheckpointError(
            f"{place} cannot be written: it would be of the format {kind}, and {place.suffix} says {told}; {way_on}."
        )


def read_range(file: Location, first: int, length: int) -> NDArray[np.uint8]:
    """Return bytes of a file: mapped into memory where it lies on this machine, one request where it does not.

    Parameters
    ----------
    file : Path or RemotePath
        The file.
    first, length : int
        Which bytes.

    Returns
    -------
    ndarray of uint8
        Read-only.

    Raises
    ------
    ValueError
        If the file ends before.
    OSError
        If it cannot be read.
    """
    if not length:
        return np.empty(0, np.uint8)
    if isinstance(file, Path):
        if sys.platform == "linux" and length >= _LEAST_ASKED:
            _reading_ahead().ask(file, first, length)
        return _mapped(file, first, length)
    content = file.read_range(first, length)
    if len(content) < length:
        raise ValueError(f"it ends at byte {first + len(content)} of {first + length}")
    return np.frombuffer(content, np.uint8)


@cache
def _reading_ahead() -> "_ReadingAhead":
    return _ReadingAhead()


class _ReadingAhead:
    """A thread of its own that looks at every page of a file in order, before others meet it.

    Then the system reads large pieces, and the disk is never idle. Where several threads meet pages here and there, it
    reads small ones, whose handling takes as long as the disk does; so it does where `posix_fadvise` asks for them.
    """

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (loads queues and logging)

        self._thread = ThreadPoolExecutor(1)
        self._lock = Lock()
        self._file: Path | None = None
        self._descriptor: int | None = None
        self._first = self._last = 0

    def ask(self, file: Path, first: int, length: int) -> None:
        """Have a tensor read that is to be mapped, and what comes next, unless the system holds it already."""
        size = file.stat().st_size
        wanted, last = min(first + length + _LEAST_AHEAD, size), min(first + length + _AHEAD, size)
        with self._lock:
            goes_on = file == self._file and self._first < first <= self._last  # else it is read once more
            start = self._last if goes_on else first
            places = (first + (wanted - 1 - first) * place // (_PLACES - 1) for place in range(_PLACES))
            if start >= wanted or _is_held(file, places):
                return
            if not goes_on or self._descriptor is None:
                self._close()
                self._file, self._first, self._descriptor = file, first, os.open(file, os.O_RDONLY)
            self._last = last
            self._thread.submit(_look_at, self._descriptor, start, last)
            if last == size:
                self._close()

    def _close(self) -> None:
        """Close the file, once what was asked for has been looked at."""
        if self._descriptor is not None:
            self._thread.submit(os.close, self._descriptor)
        self._descriptor = None


def _is_held(file: Path, places: Iterable[int]) -> bool:
    """Whether the system holds these bytes of a file, so that nothing would have to wait for them.

    It is not asked for them, as by `os.RWF_NOWAIT`: then it would fetch them, and might hold them by the time it
    answers. Of a file that is neither one's own nor to be written it tells nothing; this is taken for no.
    """
    if file.stat().st_uid != os.geteuid() and not os.access(file, os.W_OK):
        return False
    mincore, held = ctypes.CDLL(None).mincore, ctypes.c_ubyte()
    with file.open("rb") as stream:
        for place in places:
            start = place - place % mmap.ALLOCATIONGRANULARITY
            with mmap.mmap(stream.fileno(), 1, access=mmap.ACCESS_READ, offset=start) as page:
                address = ctypes.c_void_p(np.frombuffer(page, np.uint8).ctypes.data)
                if mincore(address, ctypes.c_size_t(1), ctypes.byref(held)) or not held.value & 1:
                    return False
    return True


def _look_at(descriptor: int, first: int, last: int) -> None:
    """Read one byte of every page of a file from `first` to `last`.

    The descriptor is the same for all of a file: by it the system knows that they are read in order.
    """
    start = first - first % mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(descriptor, last - start, access=mmap.ACCESS_READ, offset=start) as mapped:
        np.add.reduce(np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE])


def _mapped(file: Path, first: int, length: int) -> NDArray[np.uint8]:
    """Return bytes of a file, mapped into memory, in large pages where the system has such."""
    before = first % _LARGE_PAGE
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), before + length, access=mmap.ACCESS_READ, offset=first - before)
    if sys.platform == "linux" and length >= _LEAST_ASKED:
        with suppress(OSError):  # it has none
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapped, np.uint8)[before:]


_WAY_ON = "Download it and give its path."


class _Ranges(io.RawIOBase):
    """The bytes of a remote file as a stream; a request that goes on where the last one ended is twice as long."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._position = 0
        self._start = 0
        self._content = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._path.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if not self._start <= self._position < self._start + len(self._content):
            self._ask(len(buffer))
        first = self._position - self._start
        content = self._content[first : first + len(buffer)]
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _ask(self, length: int) -> None:
        """Have the bytes at the current position at hand."""
        tail = max(0, self._path.size - _BUFFER)
        if self._position < _BUFFER:
            self._start, self._content = 0, self._path.head
        elif self._position >= tail:
            self._start, self._content = tail, self._path.tail
        else:
            goes_on = self._position == self._start + len(self._content)
            length = max(length, min(2 * len(self._content), _MOST_AHEAD) if goes_on else 0)
            self._content = self._path.read_range(self._position, length)
            self._start = self._position


@contextmanager
def _remote_as_checkpoint_error(path: RemotePath) -> Iterator[None]:
    """Turn what a file system of fsspec raises, which may be anything, into one error that names the URL."""
    try:
        yield
    except (CheckpointError, FileNotFoundError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} could not be read: {_reason_of_absence(error)}.") from error
    except Exception as error:
        raise CheckpointError(f"{path} could not be read: {_told(error)}.") from error


def _reason_of_absence(error: BaseException) -> str:
    """Return why a file is not found: fsspec says so too of a server that is not reached, or refuses."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if cause is None or status == HTTPStatus.NOT_FOUND:
        return "it is not there"
    return f"its server answered {status}, {getattr(cause, 'message', '')}" if status else _told(cause)


def _told(error: BaseException) -> str:
    """Return what an error says, on one line and without its full stop."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (shortened(" ".join(told.split())) or type(error).__name__).rstrip(".")
