"""What is raised of files of weights that cannot be read or written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from topobounds._text import printable, shortened

if TYPE_CHECKING:
    from topobounds.checkpoint.location import Location

_LONGEST_MESSAGE = 600  # characters of an error


class CheckpointError(OSError):
    """A file of weights that cannot be read, or holds no such tensor; the message names the file and the tensor.

    The message is one line of printable characters, whatever names the file holds.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(message), _LONGEST_MESSAGE))


@contextmanager
def as_checkpoint_error(file: "Location", tensor: str | None = None, *damages: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong with a file into one `CheckpointError` that names it, and the tensor.

    Parameters
    ----------
    file : pathlib.Path or RemotePath
        The file.
    tensor : str, optional
        The tensor that is being read.
    *damages : exception types
        What a damaged file raises, besides ValueError and EOFError.
    """
    where = f"{file}, tensor '{tensor}'," if tensor else f"{file}"
    damaged: tuple[type[Exception], ...] = (ValueError, EOFError, *damages)
    try:
        yield
    except CheckpointError:
        raise
    except damaged as error:
        reason = shortened(printable(" ".join(str(error).split()).rstrip(".")))
        if "pickle" in reason and "header" not in reason.lower():
            reason = "it holds no plain array of numbers"
        raise CheckpointError(f"{where} is damaged, or of another kind: {reason}.") from error
    except OSError as error:
        raise CheckpointError(f"{where} could not be read: {error.strerror or 'no such file'}.") from error
