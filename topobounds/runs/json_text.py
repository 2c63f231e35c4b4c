"""The JSON of run folders: read from files, and written as one text for one value."""

import hashlib
import json
from pathlib import Path
from typing import Any

from topobounds.runs.errors import RunError


def parse_json(file: Path, content: bytes, line: int = 1) -> Any:
    """Return what a JSON text says; a `RunError` names file and line of one that is damaged."""
    try:
        return json.loads(content)
    except ValueError as error:
        reason = f"line {line + error.lineno - 1}: {error.msg}" if isinstance(error, json.JSONDecodeError) else error
        raise RunError(f"{file} is damaged: {reason}.") from error
    except RecursionError:
        raise RunError(f"{file} is damaged: it is nested too deeply.") from None


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pretty_json(value: Any) -> bytes:
    """Return JSON with sorted keys for people to read."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of `canonical_json`, by which the plan of a run is known."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
