"""Locks that keep other processes from writing into a run folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topobounds.runs.errors import RunError, as_run_error

_POLL_SECONDS = 0.02
LOCK_PATIENCE = 1.0
"""Seconds within which the lock of a process that was killed is free."""

_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _let_go() -> None:
    """Close the locks that a process has from its parent, which would be locked as long as it goes on."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def lock(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock of a file for the length of a ``with`` block; wait `patience` seconds for another process."""
    with as_run_error(path, "locked"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        with as_run_error(path, "locked"):
            _acquire(descriptor, path.parent, patience)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()}".encode())
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def _acquire(descriptor: int, folder: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= until:
                holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "starting"
                raise RunError(f"{folder} is in use by another process ({holder}).") from error
            time.sleep(_POLL_SECONDS)
