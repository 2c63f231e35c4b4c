"""What is raised of run folders that cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RunError(OSError):
    """A run folder that cannot be read, written, locked or continued; the message names the file."""


@contextmanager
def as_run_error(path: Path, action: str) -> Iterator[None]:
    """Turn what the system refuses into a `RunError` that names the file and what could not be done with it."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path} could not be {action}: {error.strerror or error}.") from error
