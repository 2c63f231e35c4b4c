"""``topobounds figures``: makes the paper's figures and tables. Importing it loads click and nothing else."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paper_figures.registry import FIGURES, ONLY_NAMED, figure_module
from topobounds._arguments import argument_error, choice
from topobounds.cli.arguments import Count, Name
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, print_json, print_line, print_table, progress_bar

if TYPE_CHECKING:
    from topobounds.figures.record import FigureRecord

_DEFAULT_SEED = 0
_FIXED = ("dataset", "trials", "epochs", "seed")
"""What a committed record has settled."""
_OF_FIGURES = (*_FIXED, "data_dir", "download", "device", "jobs", "no_caption")
"""Options that some figures use and others do not."""


def _folder(ctx: click.Context, param: click.Parameter, given: str) -> Path:
    """Return the folder that is meant, if it is one or can become one."""
    out = Path(given)
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not given or not there.is_dir():
        raise click.UsageError(str(argument_error(param.opts[0], "a folder", given)), ctx)
    return out


@click.command(
    cls=CommandWithExamples,
    examples=("topobounds figures table1 figure2", "topobounds figures --from-records --no-caption --out figures"),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", default="figures", callback=_folder, show_default=True, help="Folder of the files.")
@click.option(
    "--dataset",
    type=click.Choice(["auto", "mnist", "fashion-mnist", "digits"]),
    default="auto",
    show_default=True,
    help="What the nets are trained on; auto is MNIST if it is at hand, else digits.",
)
@click.option("--trials", type=Count(1), default=5, show_default=True, help="Nets trained, or replicates.")
@click.option("--epochs", type=Count(1), default=20, show_default=True, help="Epochs of each.")
@click.option("--seed", type=Count(0), default=_DEFAULT_SEED, show_default=True, help="Seed of everything random.")
@click.option("--data-dir", type=Name(), help="Folder with mnist/ and fashion-mnist/.")
@click.option("--download", is_flag=True, help="Download missing data into the user's cache.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--jobs", type=Count(1), help="Nets trained at the same time.  [default: one a processor]")
@click.option("--from-records", is_flag=True, help="Draw the numbers that come with the package; trains nothing.")
@click.option("--no-caption", is_flag=True, help="Draw no caption into the pictures; it is still written as text.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def figures(
    ctx: click.Context, /, names: tuple[str, ...], from_records: bool, no_caption: bool, as_json: bool, **asked: Any
) -> None:
    """Make the paper's figures and tables, and what goes beyond it, or those named.

    The paper's: table1, figure1, figure2, figure3. Beyond it: figure1_null (figure 1 beside what the same values give
    in random order), figure3_expected (figure 3 beside exchangeable weights), bounds (all bounds beside the truth),
    retention (what magnitude pruning leaves of the spanning tree), corollary_3_4 (where it fails) and compression
    (table 1 in three conventions). These add about a minute without a net to train.

    Only when named, for it trains for about an hour on MNIST: t_imp, T-IMP beside IMP by density. It has its own
    epochs, whatever --epochs says. --from-records draws it too.

    Trains the nets that are missing, measures them, draws PDF and PNG, and writes the numbers behind each figure as
    CSV and, with where they come from, as JSON. Nets are kept under OUT/runs; a finished trial is not trained again.

    What needs no net depends on --seed alone, and table1 on nothing. An option that no figure made uses is refused.
    """
    started = time.monotonic()
    wanted = [choice("NAME", name, tuple(FIGURES)) for name in dict.fromkeys(names)] or [
        name for name in FIGURES if from_records or name not in ONLY_NAMED
    ]
    _check_used(ctx, wanted, from_records)
    with progress_bar("starting") as progress:
        asked["progress"] = progress
        records = _committed(ctx, wanted, asked) if from_records else _measured(wanted, asked)
        files = {record.name: publish(record, asked["out"], caption_drawn=not no_caption) for record in records}
    if as_json:
        print_json(_summary(records, files, time.monotonic() - started))
    else:
        _print(records, files)


def publish(record: "FigureRecord", folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write a record's CSV, JSON and pictures into a folder, made where missing, and return the files.

    With `caption_drawn` the captions stand beneath the pictures, too.

    Raises
    ------
    OSError
        If the folder or a file in it cannot be written; the message names it.
    """
    from topobounds.figures.publish import write_numbers

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} could not be written: {error.strerror}.") from None
    numbers = write_numbers(record, folder)
    return numbers + figure_module(record.name).render(record, folder, caption_drawn=caption_drawn)


def _check_used(ctx: click.Context, names: list[str], from_records: bool) -> None:
    """Refuse an option that was typed and that nothing depends on which is made."""
    used = {option for name in names for option in figure_module(name).OPTIONS}
    for option in ctx.command.params:
        typed = ctx.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
        if not typed or option.name not in _OF_FIGURES:
            continue
        if option.name not in used:
            raise click.UsageError(f"Option '{option.opts[0]}' is used by none of these: {', '.join(names)}.", ctx)
        if from_records and option.name not in (*_FIXED, "no_caption"):
            raise click.UsageError(
                f"Option '{option.opts[0]}' is for training, and --from-records trains nothing.", ctx
            )


def _measured(names: list[str], asked: dict[str, Any]) -> "list[FigureRecord]":
    """Return the records measured now; nets are trained for those figures that need them."""
    from paper_figures.settings import Settings

    trained = [name for name in names if figure_module(name).TRAINS]
    dataset = _dataset(trained, asked) if trained else asked["dataset"]
    settings = Settings(**{**asked, "dataset": dataset})
    return [figure_module(name).measure(settings) for name in names]


def _dataset(trained: list[str], asked: dict[str, Any]) -> str:
    """Return the data set that is meant, saying so where `auto` falls back, once torch is there to train on it."""
    from torch_bridge import MissingExtra, require
    from torch_bridge.training.data import resolve_dataset

    try:
        dataset = resolve_dataset(asked["dataset"], asked["data_dir"], download=asked["download"])
        require("torch")
    except MissingExtra as error:
        rest = "--from-records draws the numbers that come with the package."
        raise click.ClickException(f"Nets are trained for {', '.join(trained)}. {error} ({rest})") from None
    if asked["dataset"] == "auto" and dataset == "digits":
        click.echo("No MNIST at hand (--data-dir, TOPOBOUNDS_DATA, --download): using scikit-learn's digits.", err=True)
    return dataset


def _committed(ctx: click.Context, names: list[str], asked: dict[str, Any]) -> "list[FigureRecord]":
    """Return the records that come with the package, if they are what was asked for."""
    from paper_figures.settings import committed_record

    explicit = [key for key in _FIXED if ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE]
    records = [committed_record(name) for name in names]
    for record in records:
        for key in (key for key in explicit if asked[key] not in (record.settled.get(key, asked[key]), "auto")):
            made = f"--{key} {record.settled[key]}"
            raise click.UsageError(f"The record of {record.name} was made with {made}, not {asked[key]}.", ctx)
    return records


def _summary(records: "list[FigureRecord]", files: dict[str, list[Path]], seconds: float) -> dict[str, Any]:
    """Return what was made; data set, trials and epochs are null where no net is behind it."""
    settled = {key: value for record in records for key, value in record.settled.items() if value is not None}
    return {
        "figures": {name: [str(file) for file in made] for name, made in files.items()},
        **{key: settled.get(key) for key in _FIXED},
        "seconds": round(seconds, 3),
    }


def _print(records: "list[FigureRecord]", files: dict[str, list[Path]]) -> None:
    for record in records:
        if show := getattr(figure_module(record.name), "show", None):
            table, footnotes = show(record)
            console = console_on_stdout()
            print_table(console, table)
            for footnote in footnotes:
                console.print(footnote)
    for made in files.values():
        print_line(" ".join([str(made[0]), *(file.suffix for file in made[1:])]))
