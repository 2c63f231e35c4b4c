"""What the options of the commands may be: one grammar of errors, naming the option that was typed."""

import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error, density_fraction, file_name, integer

LARGEST = 2**63 - 1  # number that a size may be; beyond, ratios leave the range of floating point


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]  # when it runs, older releases take no parameter
else:
    _ParamType = click.ParamType


class Count(_ParamType):
    """An integer within a range, refused in the words of `topobounds._arguments`."""

    name = "integer"

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return `value` as an integer from `low` to `high`."""
        try:
            return integer(_option(param), _as_number(int, value), self.low, self.high)
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None


class Density(_ParamType):
    """A density in (0, 1]."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` as a number in (0, 1]."""
        try:
            return density_fraction(_option(param), _as_number(float, value))
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None


class Name(_ParamType):
    """The name of a file or, with `folder`, of what is a folder or can become one."""

    name = "path"

    def __init__(self, *, folder: bool = False) -> None:
        self.folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return `value` as a path."""
        try:
            path = Path(file_name(_option(param), value))
            if self.folder and path.exists() and not path.is_dir():
                raise argument_error(_option(param), "a folder", value)
            return path
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None


class Sizes(_ParamType):
    """Sizes along one, two or three dimensions, as in ``3``, ``3x3`` or ``3x3x3``."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return `value` as a tuple of integers."""
        try:
            return tuple(integer("", int(size), -LARGEST, LARGEST) for size in str(value).lower().split("x"))
        except ValueError:
            rule = "sizes such as 3, 3x3 or 3x3x3"
            raise click.UsageError(str(argument_error(_option(param), rule, value)), ctx) from None


class Widths(_ParamType):
    """Widths of layers in a row, as in ``784-300-100-10``."""

    name = "widths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return `value` as a tuple of two or more integers."""
        try:
            widths = tuple(integer("", int(width), 1, LARGEST) for width in str(value).split("-"))
        except ValueError:
            widths = ()
        if len(widths) < 2:
            rule = "widths such as 784-300-100-10"
            raise click.UsageError(str(argument_error(_option(param), rule, value)), ctx)
        return widths


def output_file(option: str, path: Path, *, unlike: str | None = None) -> Path:
    """Return the name of a file that can be written, and is not the file `unlike`, which is read.

    Raises
    ------
    ValueError
        If its folder is not there, or it is there and no regular file or the other one; `option` is to blame.
    """
    # /dev/stdout is a link to whatever stdout is; a file that appears whole would take the link's place.
    is_of_system = any(path.parent.resolve().is_relative_to(folder) for folder in ("/dev", "/proc", "/sys"))
    is_other = path.exists() and (is_of_system or not path.is_file())
    if not path.name or is_other or not path.parent.is_dir():
        raise argument_error(option, "the name of a file in a folder that exists", str(path))
    if unlike and path.exists() and Path(unlike).exists() and path.samefile(unlike):
        raise argument_error(option, "another file than the one that is read", str(path))
    return path


def option_names_in(message: str, params: Sequence[click.Parameter], typed: Container[str]) -> str:
    """Return an error message in the words of a command line.

    What is wrong with an argument is said of its option, if it was `typed`, and a call such as ``method='random'`` that
    is advised is written as an option.
    """
    options = {param.name: param for param in params if isinstance(param, click.Option)}
    blamed = {name: param.opts[0] for name, param in options.items() if any(word in typed for word in param.opts)}
    arguments = re.compile(r"\bArguments? '\w+'(?: and '\w+')*")
    message = arguments.sub(
        lambda match: re.sub(r"\w+(?=')", lambda name: blamed.get(name[0], name[0]), match[0]), message
    )
    calls = re.compile(r"\b(\w+)='([\w-]+)'")
    return calls.sub(lambda call: f"{options[call[1]].opts[0]} {call[2]}" if call[1] in options else call[0], message)


def required(name: str, value: Any, by: str) -> Any:
    """Return the value of the option of an argument, refused if it is missing where the option `by` was typed."""
    if value is None:
        raise click.UsageError(f"{by} needs {spelling(name)}.")
    return value


def refuse_stray(names: Sequence[str], home: str) -> None:
    """Refuse the options of these arguments, which were typed without the option that they go with."""
    if names:
        raise click.UsageError(f"{spelling(names[0])} goes with {home}.")


def spelling(name: str) -> str:
    """Return how the option of an argument is typed."""
    return "--" + name.removesuffix("_size").replace("_", "-")


def _option(param: click.Parameter | None) -> str:
    if isinstance(param, click.Argument):
        return param.human_readable_name.strip("[].")
    return param.opts[0] if param else "value"


def _as_number(kind: type, value: Any) -> Any:
    """Return `value` as a number of the kind, or as it is for the check to refuse."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        return value
