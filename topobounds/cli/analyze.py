"""``topobounds analyze``: what the weights in a file say, layer by layer, beside what chance gives."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from topobounds.cli.arguments import Count, Name, Sizes, output_file
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, print_json, progress_bar
from topobounds.cli.scheduler import executor_at, refuse_both

if TYPE_CHECKING:
    from topobounds.analysis.reports import ModelReport

INTERRUPTED = 130


class CommandWithRules(CommandWithExamples):
    """A command whose help lists the rules of findings; they are loaded for that only."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the name of each rule and what it sees."""
        super().format_epilog(ctx, formatter)
        from topobounds.analysis.findings import RULES

        with formatter.section("Rules"):
            formatter.write_dl([(name, f"{rule.severity}: {rule.about}") for name, rule in RULES.items()])


@click.command(
    cls=CommandWithRules,
    examples=(
        "topobounds analyze model.safetensors --html page.html",
        "topobounds analyze checkpoint.pt --include '*.mlp.*' --sort -overlap_z --fail-on all-zero",
    ),
)
@click.argument("path")
@click.option("--include", multiple=True, metavar="GLOB", help="Only tensors with names like this; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No tensors with names like this; may be repeated.")
@click.option("--geometry", metavar="TOML", type=Name(), help="What the tensors are, where that is told wrong.")
@click.option("--input", "input_size", type=Sizes(), help="What goes in, as 3x32x32.  [default: maps of 8x8]")
@click.option("--mask", metavar="PATH", help="A file of masks, under the names of the tensors.")
@click.option("--scores", metavar="PATH", help="A file of scores that rank the weights in the place of |w|.")
@click.option("--scales", is_flag=True, help="Also what the scales of the neurons explain; takes longer.")
@click.option("--sort", metavar="COLUMN", help="Sort the rows; from the largest with a - before the column.")
@click.option("--columns", metavar="LIST", help="These columns of each layer, with commas between them.")
@click.option("--all", "show_all", is_flag=True, help="A row for every layer, however many.")
@click.option("--csv", metavar="FILE", type=Name(), help="Write all columns to a CSV file.")
@click.option("--parquet", metavar="FILE", type=Name(), help="Write all columns to a Parquet file.")
@click.option("--html", metavar="FILE", type=Name(), help="Write a page about the model, with pictures of each layer.")
@click.option("--fail-on", multiple=True, metavar="RULE", help="Exit 1 if there is such a finding; may be repeated.")
@click.option("--jobs", type=Count(1, 1024), help="Tensors at the same time.  [default: one for each processor]")
@click.option("--scheduler", metavar="ADDRESS", help="Do the work on the Dask cluster of this scheduler: tcp://...")
@click.option("--trials", type=Count(0), help="Random orders of a layer, where they are drawn.  [default: 20 to 200]")
@click.option("--seed", type=Count(0), help="Seed of what is drawn.  [default: drawn, and shown]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def analyze(
    path: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    geometry: Path | None,
    input_size: tuple[int, ...] | None,
    mask: str | None,
    scores: str | None,
    scales: bool,
    sort: str | None,
    columns: str | None,
    show_all: bool,
    csv: Path | None,
    parquet: Path | None,
    html: Path | None,
    fail_on: tuple[str, ...],
    jobs: int | None,
    scheduler: str | None,
    trials: int | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """Tell layer by layer how far the weights in PATH can be pruned, and what chance alone would have given.

    PATH is a file (.safetensors, .npz, .npy, .gguf, .onnx, or one of torch), a folder with an index of shards, a run
    folder, or a URL. Over 60 layers the table has a row for each pattern of names; --all and --columns show every
    layer.
    """
    for option, file in (("--csv", csv), ("--parquet", parquet), ("--html", html)):
        if file is not None:
            output_file(option, file, unlike=path)

    from topobounds.analysis.checkpoint import analyze as analyze_checkpoint
    from topobounds.analysis.errors import Interrupted
    from topobounds.analysis.findings import checked_rule
    from topobounds.analysis.table import checked_columns
    from topobounds.cli.layer_table import Shown, print_report

    shown = Shown(
        columns=None if columns is None else checked_columns("--columns", columns.split(",")),
        sort=None if sort is None else checked_columns("--sort", [sort.removeprefix("-")])[0],
        is_descending=sort is not None and sort.startswith("-"),
        is_whole=show_all,
    )
    for rule in fail_on:
        checked_rule("--fail-on", rule)
    if parquet is not None:
        _check_parquet()
    if html is not None:
        from topobounds.report.page import template

        template()  # before anything is read, since jinja2 may be missing
    is_interrupted = False
    refuse_both(jobs, scheduler)
    with executor_at(scheduler) as (executor, _), progress_bar("headers", in_bytes=True) as advance:
        try:
            report = analyze_checkpoint(
                path,
                include=include,
                exclude=exclude,
                geometry=geometry,
                input_size=input_size,
                mask=mask,
                scores=scores,
                scales=scales,
                curves=html is not None,
                trials=trials,
                seed=seed,
                jobs=jobs,
                executor=executor,
                progress=advance,
            )
        except Interrupted as interrupt:
            report = interrupt.report
            is_interrupted = True
    _write_columns(report, csv, parquet)
    if html is not None:
        from topobounds.report import write_html

        write_html(report, html)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(console_on_stdout(), report, shown)
    if is_interrupted:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    return int(any(finding.rule in fail_on for finding in report.findings))


def _check_parquet() -> None:
    """Refuse to write Parquet without what writes it, before anything is read."""
    from topobounds._records import parquet_bytes

    parquet_bytes({})


def _write_columns(report: "ModelReport", csv: Path | None, parquet: Path | None) -> None:
    if csv is None and parquet is None:
        return
    from topobounds._files import write_whole
    from topobounds._records import csv_text, parquet_bytes
    from topobounds.analysis.table import layer_columns

    columns = layer_columns(report.layers)
    if csv is not None:
        write_whole(csv, csv_text(columns))
    if parquet is not None:
        write_whole(parquet, parquet_bytes(columns))
