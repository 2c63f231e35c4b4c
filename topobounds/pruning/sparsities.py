"""Files of one sparsity a tensor, for other tools, and as a budget.

A list of ``{"tensor_fqn": NAME, "sparsity_level": SHARE}``, the share of the weights that are pruned, in JSON or YAML.
It is what ``prepare(model, config)`` of the sparsifiers in torch.ao.pruning and torchao takes; a mapping of names to
shares is read too.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topobounds._arguments import argument_error, file_name, real
from topobounds._files import read_regular, write_whole
from topobounds._text import shortened
from topobounds.checkpoint.errors import CheckpointError
from topobounds.pruning.report import PruningReport

LONGEST = 2**26  # bytes of such a file
NAME = "tensor_fqn"
_SHARE = "sparsity_level"
_LINE = re.compile(
    r"""(?P<dash>-[ ]+)?(?P<indent>[ ]+)?(?P<key>"(?:[^"\\]|\\.)*"|[^"].*?)[ ]*:[ ]+(?P<value>.+?)[ ]*"""
)


def write_sparsities(path: str | os.PathLike[str], report: PruningReport) -> None:
    """Write the sparsity of each layer of a report: YAML where the file is called so, else JSON.

    Parameters
    ----------
    path : path
        The file, in a folder that exists; what was there is replaced.
    report : PruningReport
        Of a pruning, or of one that was only tried.
    """
    entries = [{NAME: layer.name, _SHARE: 1 - layer.kept / layer.weights} for layer in report.layers]
    if Path(path).suffix in (".yaml", ".yml"):  # whose texts and numbers are those of JSON
        lines = [f"- {NAME}: {json.dumps(each[NAME])}\n  {_SHARE}: {json.dumps(each[_SHARE])}" for each in entries]
        write_whole(Path(path), "\n".join(lines) + "\n")
    else:
        write_whole(Path(path), json.dumps(entries, indent=2) + "\n")


def read_sparsities(path: Any, names: tuple[str, ...]) -> dict[str, float]:
    """Read a file of sparsities.

    Parameters
    ----------
    path : path
        The file.
    names : tuple of str
        What could have been given instead.

    Raises
    ------
    ValueError
        If there is no such file.
    CheckpointError
        If it cannot be read, or says something else.
    """
    file = Path(file_name("allocate", path))
    if not file.exists():
        raise argument_error("allocate", f"one of {', '.join(map(repr, names))}, or a file of sparsities", str(file))
    content = _parsed(file)
    if isinstance(content, list):
        pairs = [(each.get(NAME), each.get(_SHARE)) if isinstance(each, dict) else (None, None) for each in content]
    elif isinstance(content, Mapping):
        pairs = list(content.items())
    else:
        pairs = [(None, None)]
    found = {}
    for name, share in pairs:
        try:
            found[str(name)] = real(str(name), share, "a share of the weights in [0, 1]", 0.0, 1.0)
        except ValueError as error:
            problem = str(error).removeprefix("Argument ").rstrip(".")
            raise CheckpointError(f"{file} is no list of tensors and sparsities: {problem}.") from None
    return found


def _parsed(file: Path) -> Any:
    """Return what a file says: JSON, or lines of YAML as `write_sparsities` has them, or ``NAME: SHARE``."""
    text = read_regular(file, LONGEST).decode("utf-8", errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or (match["indent"] and not entries):
            raise CheckpointError(
                f"{file} is neither JSON nor a YAML list of {NAME} and {_SHARE}: line {number} is "
                f"{shortened(repr(line.strip()))}."
            )
        key, value = str(_scalar(match["key"])), _scalar(match["value"])
        if match["dash"]:
            entries.append({key: value})
        elif match["indent"]:
            entries[-1][key] = value
        else:
            entries.append({NAME: key, _SHARE: value})
    return entries


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip("'")
