"""The files of a run folder: their names, how they are read and written, and what is said when that fails."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topobounds._arguments import argument_error

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
PLAN = "plan.json"
MOST_LEVELS = 100_000
"""Levels that a run may have: each is a folder, and a run is looked through for those that are missing."""
SCHEMA_VERSION = 2
"""Of plans and manifests. 1: the plan without what was at its default, and no version of topobounds."""


class RunError(OSError):
    """A run folder that cannot be read, written, locked or continued; the message names the file."""


def checked(argument: str, name: str) -> str:
    """Return `name` if it may be that of a file or a folder of a run.

    Raises
    ------
    ValueError
        If it holds anything but letters, digits and ``. _ = -``, or starts with a dot; `argument` is blamed.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", name):
        raise argument_error(argument, "a file name of letters, digits and . _ = -, not starting with a dot", name)
    return name


@contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn what the system refuses into a `RunError` that names the file and what could not be done with it."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path} could not be {action}: {error.strerror or error}.") from error


def read(file: Path) -> bytes:
    """Return the content of a file; a `RunError` names one that cannot be read."""
    with explained(file, "read"):
        return file.read_bytes()


def write(file: Path, content: bytes) -> None:
    """Write a new file of a level, and put it on the disk; OSError if it is there already."""
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync(folder: Path) -> None:
    """Put a rename in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_description(value: Any) -> bool:
    """Whether it is what `describe` returned, read from JSON."""
    return isinstance(value, dict) and type(value.get("size")) is int and isinstance(value.get("sha256"), str)


def describe(file: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file that a manifest is to vouch for, once it is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def parse(file: Path, content: bytes, line: int = 1) -> Any:
    """Return what a JSON text says; a `RunError` names file and line of one that is damaged."""
    try:
        return json.loads(content)
    except ValueError as error:
        reason = f"line {line + error.lineno - 1}: {error.msg}" if isinstance(error, json.JSONDecodeError) else error
        raise RunError(f"{file} is damaged: {reason}.") from error
    except RecursionError:
        raise RunError(f"{file} is damaged: it is nested too deeply.") from None


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pretty(value: Any) -> bytes:
    """Return JSON with sorted keys for people to read."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"


def digest(plan: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `plan`: sorted keys, no spaces."""
    return hashlib.sha256(canonical(plan)).hexdigest()
