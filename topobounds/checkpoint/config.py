"""What the config.json beside the weights of a language model says of them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import Location, size_of

CONFIG = "config.json"
LONGEST_JSON = 10**8
"""Bytes of a JSON text that is read: the index of the largest models has some 10 MB."""
MOST_VALUES = 5 * 10**6
"""Of a JSON text: each takes some 64 bytes of memory, whatever its length."""
HEAD = "lm_head.weight"
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "shared.weight",
)


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
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError(f"it may hold more than {MOST_VALUES} values")
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


def read_config(folder: Location) -> Mapping[str, Any]:
    """Return the config.json of a folder; empty if there is none, or it makes no sense."""
    file = folder / CONFIG
    try:
        config = read_json(file) if file.is_file() else {}
    except (CheckpointError, OSError):
        return {}
    return config if isinstance(config, dict) else {}


def tied_by_config(config: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
    """Return the output head that a language model shares with its embedding, where the files lack one.

    Parameters
    ----------
    config : mapping
        Its config.json. Where it does not say ``tie_word_embeddings``, language models share it.
    names : collection of str
        The stored tensors.

    Examples
    --------
    >>> tied_by_config({"tie_word_embeddings": True}, ["model.embed_tokens.weight"])
    {'lm_head.weight': 'model.embed_tokens.weight'}
    """
    text = config.get("text_config")
    default = any("CausalLM" in str(name) or "LMHead" in str(name) for name in _listed(config.get("architectures")))
    nested = text.get("tie_word_embeddings", default) if isinstance(text, dict) else default
    if not config.get("tie_word_embeddings", nested) or any(name.endswith(HEAD) for name in names):
        return {}
    embeddings = [name for name in names if name.endswith(_EMBEDDINGS)]
    return {HEAD: embeddings[0]} if embeddings else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
