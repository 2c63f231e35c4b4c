"""The files of a run folder: their names, and how they are read and written."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from topobounds._arguments import argument_error
from topobounds._files import read_regular
from topobounds.runs.errors import as_run_error

MANIFEST_FILE = "manifest.json"
METRICS_FILE = "metrics.jsonl"
PLAN_FILE = "plan.json"


def checked_file_name(argument: str, name: str) -> str:
    """Return `name` if it may be that of a file or a folder of a run.

    Raises
    ------
    ValueError
        If it holds anything but letters, digits and ``. _ = -``, or starts with a dot; `argument` is blamed.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", name):
        raise argument_error(argument, "a file name of letters, digits and . _ = -, not starting with a dot", name)
    return name


def read_file(file: Path) -> bytes:
    """Return the content of a file; a `RunError` names one that cannot be read."""
    with as_run_error(file, "read"):
        return read_regular(file)


def write_new_file(file: Path, content: bytes) -> None:
    """Write a new file of a level, and put it on the disk; OSError if it is there already."""
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Put a rename in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_file(file: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file that a manifest is to vouch for, once it is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def is_file_description(value: Any) -> bool:
    """Whether it is what `describe_file` returned, read from JSON."""
    return isinstance(value, dict) and type(value.get("size")) is int and isinstance(value.get("sha256"), str)
