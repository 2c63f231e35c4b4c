"""How results, tables and progress reach the terminal."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TABLE_WIDTH = 120  # where there is no terminal
SCHEMA_VERSION = 1  # of the object that a command prints; rises when one of its own keys changes its meaning or goes


def console_on_stdout(width: int | None = None) -> "Console":
    """Return a console on stdout; `width` is that of an output that is no terminal, whose own is a guess."""
    from rich.console import Console

    console = Console(highlight=False)
    if width is not None and not console.is_terminal:
        console.width = width
    return console


def print_table(console: "Console", table: "Table") -> None:
    """Print a table that cuts no word: where the console is too narrow for that, its rows are longer than a line."""
    for column in table.columns:
        column.min_width = max(map(len, f"{column.header} {' '.join(map(str, column.cells))}".split()), default=0)
    console.print(table, crop=False)


@contextmanager
def progress_bar(label: str, *, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yield a function (done, total, label) that moves a bar on stderr; without a terminal there it does nothing."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total, message=label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TimeRemainingColumn(compact=True), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total, message=label: bar.update(task, completed=done, total=total, description=message)


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON object on stdout, with its schema version, numbers as numbers, never NaN."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **record}, allow_nan=False))


def decimals(value: float | Fraction | None, digits: int = 4) -> str:
    """Return a number with so many decimals; a dash where there is none."""
    return "-" if value is None else f"{float(value):.{digits}f}"
