"""Files that are read only if they are files, and appear whole or not at all."""

import errno
import os
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file, nor a symbolic link to one: a pipe may never end, and a device never does.

    Raises
    ------
    OSError
        If it is of another kind, is not there or cannot be looked at; it names the file.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 -- paths of every kind
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "of another kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Return the content of a regular file.

    Parameters
    ----------
    path : path
        The file.
    most : int, optional
        Bytes that it may have.

    Raises
    ------
    OSError
        As `check_regular`; or if the file is longer, or cannot be read.

    Examples
    --------
    >>> read_regular("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 22] it is a device, not a file: '/dev/zero'
    """
    check_regular(path)
    with Path(path).open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG, f"it has {size} bytes, more than the {most} that such a file may have", str(path)
            )
        return stream.read(size)  # no more than that: a file of the system's may go on for ever


def parsed_toml(content: bytes) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises
    ------
    ValueError
        If it is no TOML, no UTF-8, or nested too deeply.

    Examples
    --------
    >>> parsed_toml(b"layer.stride = 2")
    {'layer': {'stride': 2}}
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("its arrays or tables are nested too deeply") from None


@contextmanager
def writing_whole(path: Path) -> Iterator[IO[bytes]]:
    """Yield a stream for the content of a file, which is put on the disk and renamed when the block ends.

    It is written beside its place, so that nobody ever sees a part of it; an exception in the block leaves nothing.

    Parameters
    ----------
    path : pathlib.Path
        The file, in a folder that exists; what was there before is replaced.

    Raises
    ------
    OSError
        If the disk refuses; it names `path`, and what was there before is untouched.
    """
    try:
        if path.exists():
            check_regular(path)  # a device would be replaced by a file
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is None:  # raised in the block with a message of its own
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_whole(path: Path, content: str | bytes) -> Path:
    r"""Write a file whole or not at all: see `writing_whole`.

    Parameters
    ----------
    path : pathlib.Path
        The file, in a folder that exists; what was there before is replaced.
    content : str or bytes
        Text is written as UTF-8.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    OSError
        If the disk refuses; it names `path`, and what was there before is untouched.

    Examples
    --------
    >>> file = write_whole(Path(tempfile.mkdtemp()) / "numbers.csv", "a,b\n1,2\n")
    >>> file.read_text(), [other.name for other in file.parent.iterdir()]
    ('a,b\n1,2\n', ['numbers.csv'])
    """
    with writing_whole(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
    return path
