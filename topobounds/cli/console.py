"""How results, tables and progress reach the terminal."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TextIO

import click

from topobounds._text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

UNBOUNDED = 100_000  # columns of an output that is no terminal: nothing is wrapped
_NARROWEST = 24  # columns; a terminal that says it has fewer breaks the lines itself
_TERMINAL = 80  # columns of a terminal that does not say
SCHEMA_VERSION = 1  # of the object that a command prints; rises when one of its own keys changes its meaning or goes


def columns_of(stream: TextIO | None, otherwise: int) -> int:
    """Return how many columns an output has: what ``COLUMNS`` says, or its terminal; `otherwise` if it is none.

    A `COLUMNS` of 0 or one that is no number says nothing.
    """
    named = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[1-9][0-9]{0,4}", named):
        return max(int(named), _NARROWEST)
    if stream is None or stream.closed or not stream.isatty():
        return otherwise
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(columns, _NARROWEST) if columns else _TERMINAL


def console_on_stdout() -> "Console":
    """Return a console on stdout; where that is no terminal, everything has the width that it needs."""
    from topobounds.cli.plain_console import PlainConsole

    return PlainConsole(stderr=False, width=columns_of(sys.stdout, UNBOUNDED))


def new_table(*columns: str, **options: Any) -> "Table":
    """Return an empty table of these columns, in the style of all tables."""
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="bold", **options)


def print_table(console: "Console", table: "Table") -> None:
    """Print a table that cuts no word: where the console is too narrow for that, its rows are longer than a line."""
    from rich.text import Text

    for column in table.columns:
        cells = [
            cell.plain if isinstance(cell, Text) else printable(str(cell)) for cell in (column.header, *column.cells)
        ]
        column.min_width = max((len(word) for cell in cells for word in cell.split()), default=0)
    console.print(table, crop=False)


def lines_of(*lines: str) -> "Text":
    """Return what stands in a cell on several lines, control characters escaped."""
    from rich.text import Text

    return Text("\n".join(map(printable, lines)))


@contextmanager
def progress_bar(label: str, *, shown: bool = True, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """Yield a function (done, total, label) that moves a bar on stderr; without a terminal there it does nothing.

    With `in_bytes` what is done is counted beside the bar, in bytes.
    """
    if not shown or sys.stderr is None or sys.stderr.closed or not sys.stderr.isatty():
        yield lambda done, total, message=label: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    from topobounds.cli.plain_console import PlainConsole

    console = PlainConsole(stderr=True, width=columns_of(sys.stderr, _TERMINAL))
    counts: tuple[ProgressColumn, ...] = (DownloadColumn(),) if in_bytes else ()
    label_column = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), *counts, TimeRemainingColumn(compact=True), label_column)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(label), total=None)
        yield lambda done, total, message=label: bar.update(
            task, completed=done, total=total, description=printable(message)
        )


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON object on stdout, with its schema version, numbers as numbers, never NaN."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **record}, allow_nan=False))


def print_line(text: str) -> None:
    """Print one line on stdout, control characters escaped."""
    click.echo(printable(text))


def decimals(value: float | Fraction | None, digits: int = 4) -> str:
    """Return a number with so many decimals; a dash where there is none."""
    return "-" if value is None else f"{float(value):.{digits}f}"
