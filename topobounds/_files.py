"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> Path:
    r"""Write a file beside its place, put it on the disk, and rename it: nobody ever sees a part of it.

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
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return path
