"""JSON beside weights, and in their headers: read with a bound on its size, and no key twice."""

import json
from typing import Any

from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import Location, size_of

LONGEST_JSON = 10**8
"""Bytes of a JSON text that is read: the index of the largest models has some 10 MB."""
_MOST_VALUES = 5 * 10**6
"""Of a JSON text: each takes some 64 bytes of memory, whatever its length."""


def read_json(file: Location) -> Any:
    """Return what a JSON file says.

    Raises
    ------
    CheckpointError
        If it cannot be read, is no JSON, holds one key twice in one object, or is longer than 100 MB.
    """
    size = size_of(file)
    if size > LONGEST_JSON:
        raise CheckpointError(f"{file} is damaged, or of another kind: it has {size} bytes, too many for a JSON text.")
    try:
        with file.open("rb") as stream:
            return parsed_json(stream.read(size))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {str(error).rstrip('.')}.") from error
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{file} could not be read: {error.strerror or error}.") from error


def parsed_json(content: bytes) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    ValueError
        If it is no JSON in UTF-8, holds one key twice in one object, is nested too deeply for Python, or may
        hold over five million values.
    """
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise ValueError(f"it may hold more than {_MOST_VALUES} values")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it holds '{twice}' twice")
    return found
