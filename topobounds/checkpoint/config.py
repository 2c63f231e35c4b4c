"""What the config.json beside the weights of a language model says of them."""

from collections.abc import Collection, Mapping
from typing import Any

from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.json_text import read_json
from topobounds.checkpoint.location import Location

CONFIG = "config.json"
_HEAD = "lm_head.weight"
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "shared.weight",
)


def read_config(folder: Location) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return the config.json of a folder, empty if there is none, and why it is not read, by its name, if it is not."""
    return read_settings(folder / CONFIG)


def read_settings(file: Location) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return a JSON file beside weights, empty if there is none, and why it is not read, by its name, if it is not."""
    try:
        settings = read_json(file) if file.is_file() else {}
    except (CheckpointError, OSError) as error:
        return {}, {file.name: f"{file.name} {str(error).removeprefix(f'{file} ').rstrip('.')}"}
    return (settings, {}) if isinstance(settings, dict) else ({}, {file.name: f"{file.name} is no JSON object"})


def tied_by_config(config: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
    """Return the output head that a language model shares with its embedding, where the files lack one, by its name.

    Parameters
    ----------
    config : mapping
        The model's config.json. Where it does not say ``tie_word_embeddings``, a language model shares the two.
    names : collection of str
        The stored tensors.

    Examples
    --------
    >>> tied_by_config({"tie_word_embeddings": True}, ["model.embed_tokens.weight"])
    {'lm_head.weight': 'model.embed_tokens.weight'}
    """
    default = any("CausalLM" in str(name) or "LMHead" in str(name) for name in _listed(config.get("architectures")))
    if not ties_embeddings(config, default=default) or any(name.endswith(_HEAD) for name in names):
        return {}
    embeddings = [name for name in names if name.endswith(_EMBEDDINGS)]
    return {_HEAD: embeddings[0]} if embeddings else {}


def tied_though_stored(config: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
    """Return the output head that config.json says to be the embedding, where the files hold both, by its name.

    Programs differ in what they load then: the stored head, or the embedding in its place.

    Examples
    --------
    >>> tied_though_stored({"tie_word_embeddings": True}, ["model.embed_tokens.weight", "lm_head.weight"])
    {'lm_head.weight': 'model.embed_tokens.weight'}
    """
    heads = [name for name in names if name.endswith(_HEAD)]
    embeddings = [name for name in names if name.endswith(_EMBEDDINGS)]
    return {heads[0]: embeddings[0]} if heads and embeddings and ties_embeddings(config) else {}


def ties_embeddings(config: Mapping[str, Any], *, default: bool = False) -> bool:
    """Return whether config.json says that a language model shares its embedding and its head, or else the default."""
    text = config.get("text_config")
    nested = text.get("tie_word_embeddings", default) if isinstance(text, dict) else default
    return bool(config.get("tie_word_embeddings", nested))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
