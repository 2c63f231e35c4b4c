"""``topobounds sweep``: many questions at once, on this machine or on a cluster."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error
from topobounds._text import counted
from topobounds.cli.arguments import Count, Name, refuse_stray
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, new_table, print_json, print_table, progress_bar
from topobounds.cli.scheduler import executor_at

if TYPE_CHECKING:
    from topobounds.sweeps import SweepResult

_FORMATS = (".csv", ".jsonl")


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds sweep plan.toml --out results",
        "topobounds sweep --out results --status",
        "topobounds sweep --out results --export rows.csv",
    ),
)
@click.argument("plan", required=False, type=Name())
@click.option("--out", required=True, type=Name(folder=True), help="Folder of the rows; made where it is missing.")
@click.option("--jobs", type=Count(1), help="Units of work at the same time.  [default: one a processor]")
@click.option("--scheduler", metavar="ADDRESS", help="Do the work on the Dask cluster of this scheduler: tcp://...")
@click.option("--large", is_flag=True, help="Allow more than a million points.")
@click.option("--status", is_flag=True, help="Only tell how far the sweep in the folder is.")
@click.option("--export", metavar="FILE", type=Name(), help="Write the rows of the folder as .csv or .jsonl.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def sweep(
    plan: Path | None,
    out: Path,
    jobs: int | None,
    scheduler: str | None,
    large: bool,
    status: bool,
    export: Path | None,
    as_json: bool,
) -> None:
    """Ask every point of PLAN, a TOML file of grids, that has no answer yet in the folder --out.

    Each point has a seed of its own, so the answers do not depend on the machines, their number or the order of work.
    The rows are in DIR/results.sqlite, one view for each question.
    """
    if plan is None and not status and export is None:
        raise click.UsageError("Name a PLAN, or give --status or --export FILE.")
    if plan is None or status:
        given = {"jobs": jobs, "scheduler": scheduler, "large": large or None}
        refuse_stray([name for name, value in given.items() if value is not None], "a PLAN that is to be run")
    if export is not None and export.suffix not in _FORMATS:
        raise argument_error("--export", f"the name of a file that ends in {' or '.join(_FORMATS)}", str(export))
    if plan is None or status:
        from topobounds.sweeps import sweep_status

        result = sweep_status(out)
    else:
        result = _run(plan, out, jobs, scheduler, large)
    if export is not None:
        _export(out, export)
    if as_json:
        print_json(_as_dict(result))
    else:
        _print_status(result)


def _run(plan: Path, out: Path, jobs: int | None, scheduler: str | None, large: bool) -> "SweepResult":
    from topobounds import sweeps

    read = sweeps.SweepPlan.read(plan)
    click.echo(f"{plan}: {counted(len(read), 'point', form=',')}.", err=True)
    with executor_at(scheduler) as (executor, threads), progress_bar("points") as advance:
        return sweeps.sweep(read, out, executor=executor, jobs=jobs or threads, large=large, progress=advance)


def _as_dict(result: "SweepResult") -> dict[str, Any]:
    record = result.to_dict()
    reason = "No two points have been answered." if result.rate is None else None
    return {**record, **({"reason": reason} if reason else {})}


def _print_status(result: "SweepResult") -> None:
    if result.salvaged:
        click.echo(result.salvaged, err=True)
    table = new_table("folder", "points", "done", "failed", "a second", "seconds left")
    rate, left = (("-" if value is None else f"{value:,.1f}") for value in (result.rate, result.seconds_left))
    table.add_row(result.folder, *(f"{n:,}" for n in (result.points, result.done, result.failed)), rate, left)
    print_table(console_on_stdout(), table)
    for error, points in result.errors.items():
        click.echo(f"failed: {points:,} of {error}", err=True)
    others = result.failed - sum(result.errors.values())
    if others:
        click.echo(f"failed: {others:,} more, of other errors, which are in the rows.", err=True)


def _export(folder: Path, file: Path) -> None:
    """Write the rows with the parameters and the numbers of the answers side by side."""
    from topobounds._files import writing_whole
    from topobounds.sweeps.store import Store

    with Store.open(folder) as store, writing_whole(file) as stream:
        if file.suffix == ".jsonl":
            for record in store.records():
                stream.write(json.dumps(record).encode() + b"\n")
            return
        columns = list(dict.fromkeys(name for record in store.records() for name in record))
        stream.write(_line(columns))
        for record in store.records():
            stream.write(_line([record.get(name) for name in columns]))


def _line(values: "list[Any]") -> bytes:
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    return text.getvalue().encode()
