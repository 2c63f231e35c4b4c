"""``topobounds doctor``: what of topobounds works on this machine, for a report of a fault."""

import math
import os
import platform
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from topobounds._memory import memory
from topobounds._parallel import processor_name, processors
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, new_table, print_json, print_table

_PLUGINS = "topobounds.doctor"
"""Entry-point group: functions without arguments, each of which answers the key of its name."""
_PLUGIN_KEYS = ("data", "devices")
NOBODY = "No package that knows is installed."
_NOT_INSTALLED = "not installed"


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds doctor",
        "topobounds doctor --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def doctor(as_json: bool) -> None:
    """Tell what is installed and what works here: packages, extras, memory, caches, data and devices.

    It never fails: what cannot be found out is a dash with the reason. Put its output into a report of a fault.
    """
    answers: dict[str, Callable[[], Any]] = {
        "topobounds": lambda: metadata.version("topobounds"),
        "python": platform.python_version,
        "platform": platform.platform,
        "packages": lambda: _versions(_required()),
        "processors": lambda: {"count": processors(), "name": processor_name()},
        "memory": _bytes_of_memory,
        "cache": _cache,
        "extras": _extras,
        **dict.fromkeys(_PLUGIN_KEYS, _nobody),
        **{plugin.name: partial(_answer_of, plugin) for plugin in metadata.entry_points(group=_PLUGINS)},
    }
    found: dict[str, Any] = {}
    for key, answer in answers.items():
        try:
            found[key] = answer()
        except Exception as error:  # whatever is broken here, this command tells
            found[key] = None
            found[f"{key}_reason"] = " ".join(str(error).split()) or type(error).__name__
    if as_json:
        print_json(found)
        return
    table = new_table("what", "found")
    for key in answers:
        for what, words in _rows(key, found[key], found.get(f"{key}_reason")):
            table.add_row(what, words)
    print_table(console_on_stdout(), table)


def _nobody() -> Any:
    raise LookupError(NOBODY)


def _answer_of(plugin: metadata.EntryPoint) -> Any:
    return plugin.load()()


def _required(extra: str | None = None) -> list[str]:
    """Return the distributions that topobounds needs, or that one of its extras brings."""
    names = []
    for requirement in metadata.requires("topobounds") or ():
        marker = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and (marker[1] if marker else None) == extra and name[0] != "topobounds":
            names.append(name[0])
    return names


def _versions(names: list[str]) -> dict[str, str | None]:
    """Return the version of each distribution; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _extras() -> dict[str, dict[str, Any]]:
    """Return each extra, whether all that it brings is installed, and the versions."""
    extras = metadata.metadata("topobounds").get_all("Provides-Extra") or []
    versions = {extra: _versions(_required(extra)) for extra in extras}
    return {
        extra: {
            "installed": None not in found.values(),
            "packages": {name: version or _NOT_INSTALLED for name, version in found.items()},
        }
        for extra, found in versions.items()
    }


def _bytes_of_memory() -> int:
    known = memory()
    if math.isinf(known):
        raise LookupError("The operating system does not say.")
    return int(known)


def _cache() -> dict[str, Any]:
    """Return where compiled kernels are kept, and whether they can be; without it every process compiles anew."""
    from topobounds._kernels.selection import count_digits

    path = getattr(getattr(count_digits, "_cache", None), "cache_path", None)
    if path is None:
        raise LookupError(
            "There is no place for compiled kernels: set NUMBA_CACHE_DIR to a folder that can be written."
        )
    there = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    return {"path": str(path), "writable": os.access(there, os.W_OK | os.X_OK)}


def _rows(key: str, value: Any, reason: str | None) -> Iterator[tuple[str, str]]:
    """Yield the rows of a table for one answer."""
    if value is None:
        yield key, f"- ({reason})"
    elif key == "memory":
        yield key, f"{value / 2**30:.1f} GiB"
    elif key == "extras":
        for extra, about in value.items():
            missing = [name for name, version in about["packages"].items() if version == _NOT_INSTALLED]
            yield f"extra {extra}", f"missing: {', '.join(missing)}" if missing else "installed"
    else:
        yield key, _in_words(value)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(_in_words(each["name"] if isinstance(each, dict) else each) for each in value) or "none"
    return {True: "yes", False: "no", None: _NOT_INSTALLED}.get(value, str(value))
