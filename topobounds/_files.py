"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
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
