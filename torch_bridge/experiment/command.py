"""``topobounds imp``: IMP and T-IMP from a plan. Importing it loads click and nothing else."""

import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error, choice, spelled
from topobounds._text import counted, grouped_reasons, printable
from topobounds.cli.arguments import Count, Name, Sizes, output_file
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import (
    console_on_stdout,
    new_table,
    print_json,
    print_line,
    print_table,
    progress_bar,
)
from topobounds.pruning.methods import RECORDED_NAMES

if TYPE_CHECKING:
    from torch_bridge.experiment.plan import ImpPlan

CONFIGS = Path(__file__).with_name("configs")
"""The plans that come with the package."""

Run = Name(folder=True)


def _names() -> list[str]:
    return sorted(file.stem for file in CONFIGS.glob("*.toml"))


PLANS = "Plans that come with the package: " + ", ".join(_names()) + "."


def _training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `run` and `resume` share."""
    options = [
        click.option("--data-dir", type=Name(), help="Folder with mnist/ and fashion-mnist/."),
        click.option("--download", is_flag=True, help="Download missing data into the user's cache."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option("--jobs", type=Count(1), help="Replicates made at the same time.  [default: one a processor]"),
        click.option(
            "--checkpoint-seconds",
            type=click.FloatRange(min=0),
            default=10.0,
            show_default=True,
            help="Time between checkpoints inside a level.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def imp() -> None:
    """Prune nets round by round: by magnitude (IMP), topology first (T-IMP), or at random.

    A run is a folder of levels. It can be killed at any moment and resumed, and ends in the same weights, masks and
    metrics.
    """


@imp.command(
    epilog=PLANS,
    cls=CommandWithExamples,
    examples=(
        "topobounds imp run digits --out runs/digits",
        "topobounds imp run lenet-300-100 --out runs/lenet --method imp --replicates 2",
    ),
)
@click.argument("plan")
@click.option("--out", required=True, type=Run, help="Run folder; made where missing, resumed if it is this plan's.")
@click.option("--seed", type=Count(0, 2**64 - 1), help="In place of all seeds of the plan.")
@click.option("--replicates", type=Count(1), help="In place of the plan's; a finished run may be given more.")
@click.option("--method", help=f"In place of the plan's: {', '.join(RECORDED_NAMES[:-1])} or {RECORDED_NAMES[-1]}.")
@_training_options
def run(plan: str, out: Path, seed: int | None, replicates: int | None, method: str | None, **how: Any) -> None:
    """Run PLAN, a TOML file or the name of a plan that comes with the package."""
    chosen = _plan(plan)
    if chosen.model is None or chosen.recipe is None:
        raise click.UsageError(f"{plan}: a plan for the command line needs [model], [data] and [recipe].")
    _make(_changed(chosen, seed, replicates, method), out, **how)


@imp.command(cls=CommandWithExamples, examples=("topobounds imp plans", "topobounds imp plans --json"))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def plans(as_json: bool) -> None:
    """Print the plans that come with the package, a line each."""
    from torch_bridge.experiment.plan import ImpPlan

    found = {name: ImpPlan.read(CONFIGS / f"{name}.toml").complete() for name in _names()}
    if as_json:
        print_json({"plans": found})
        return
    table = new_table("plan", "net", "data", "method", "levels", "replicates")
    for name, plan in found.items():
        net, data = ((plan[key] or {}).get("name", "-") for key in ("model", "data"))
        pruning = plan["pruning"]
        levels = len(ImpPlan.read(CONFIGS / f"{name}.toml").levels)
        table.add_row(name, net, data, pruning["method"], str(levels), str(plan["replicates"]))
    print_table(console_on_stdout(), table)


@imp.command(
    "plan",
    epilog=PLANS,
    cls=CommandWithExamples,
    examples=(
        "topobounds imp plan digits > mine.toml",
        "topobounds imp plan digits --json",
    ),
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout: the whole plan, defaults too.")
def show_plan(name: str, as_json: bool) -> None:
    """Print the plan NAME that comes with the package, as the beginning of one of your own."""
    from torch_bridge.experiment.plan import ImpPlan

    file = CONFIGS / f"{choice('NAME', spelled(name, _names()), _names())}.toml"
    if as_json:
        plan = ImpPlan.read(file)
        print_json({"plan": plan.complete(), "sha256": plan.sha256})
    else:
        click.echo(file.read_text(encoding="utf-8"), nl=False)


@imp.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds imp resume runs/digits",
        "topobounds imp resume runs/digits --jobs 1",
    ),
)
@click.argument("folder", type=Run)
@_training_options
def resume(folder: Path, **how: Any) -> None:
    """Go on with the run in FOLDER, from its last checkpoint."""
    from torch_bridge.experiment.history import open_run

    _, plan = open_run(folder)
    if plan.model is None or plan.recipe is None:
        missing = "net" if plan.model is None else "training function"
        raise click.UsageError(f"{folder} was run with a {missing} of the caller's own: call run_imp again.")
    _make(plan, folder, **how)


@imp.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds imp status runs/digits --html run.html",
        "topobounds imp status runs/digits --json",
    ),
)
@click.argument("folder", type=Run)
@click.option("--html", metavar="FILE", type=Name(), help="Write a page about the run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(folder: Path, html: Path | None, as_json: bool) -> None:
    """Tell how far the run in FOLDER is, and what its levels found."""
    if html is not None:
        output_file("--html", html)
        from torch_bridge.experiment.page import write_run_page

        write_run_page(folder, html)
    _show(folder, as_json)


@imp.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds imp plot runs/digits-imp runs/digits-t-imp",
        "topobounds imp plot runs/digits --out pictures --no-caption",
    ),
)
@click.argument("folders", nargs=-1, required=True, type=Run, metavar="FOLDER...")
@click.option("--out", default="figures", type=Run, show_default=True, help="Folder of the files.")
@click.option("--no-caption", is_flag=True, help="Draw no caption into the picture; it is still written as text.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def plot(folders: tuple[Path, ...], out: Path, no_caption: bool, as_json: bool) -> None:
    """Draw accuracy, overlap and neural persistence by density, for the runs in one or several folders.

    Writes imp.pdf and imp.png, and the numbers behind them as imp.csv and imp.json.
    """
    from torch_bridge.experiment.picture import publish_runs

    _print_files(publish_runs(folders, out, caption_drawn=not no_caption), as_json)


@imp.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds imp export runs/digits --out exported",
        "topobounds imp export runs/digits --out exported --json",
    ),
)
@click.argument("folder", type=Run)
@click.option("--out", required=True, type=Run, help="Folder of the files.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def export(folder: Path, out: Path, as_json: bool) -> None:
    """Write the records of the run in FOLDER as CSV, and its last weights and masks as safetensors."""
    from torch_bridge.experiment import history

    _print_files(history.export(folder, out), as_json)


@imp.command(
    "import",
    cls=CommandWithExamples,
    examples=(
        "topobounds imp import open_lth_data/lottery_1a2b/replicate_1",
        "topobounds imp import rounds --input 3x32x32 --html audit.html --json",
    ),
)
@click.argument("folder", type=Run)
@click.option("--geometry", metavar="TOML", type=Name(), help="What the tensors are, where that is told wrong.")
@click.option("--input", "input_size", type=Sizes(), help="What convolutions read, as 3x32x32.  [default: maps of 8x8]")
@click.option("--trials", type=Count(2), default=20, show_default=True, help="Random orders of a layer.")
@click.option("--seed", type=Count(0, 2**64 - 1), default=0, show_default=True, help="Seed of what is drawn.")
@click.option("--html", metavar="FILE", type=Name(), help="Write a page about the levels.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def import_(folder: Path, html: Path | None, as_json: bool, **how: Any) -> None:
    """Audit the run of another program in FOLDER: what its masks left of the topology of every layer.

    FOLDER holds numbered folders, the levels, or numbered replicates of them: those of open_lth, or any with one file
    of weights each, whose masks are in a second file (mask.pth), in the same one (fc.weight_mask), or its zeros.
    """
    if html is not None:
        output_file("--html", html)
        from topobounds.report.page import template

        template()  # before anything is read, since jinja2 may be missing
    from torch_bridge.experiment.audit import audit_run

    with progress_bar("levels") as progress:
        found = audit_run(folder, progress=progress, **how)
    if html is not None:
        from torch_bridge.experiment.page import write_audit_page

        write_audit_page(found, html)
    if as_json:
        print_json(found)
    else:
        _print_audit(found)


def _plan(name: str) -> "ImpPlan":
    from torch_bridge.experiment.plan import ImpPlan

    file = Path(name)
    if not file.is_file() and (bundled := spelled(name, _names())) in _names():
        file = CONFIGS / f"{bundled}.toml"
    if not file.exists() or file.is_dir():
        raise argument_error("PLAN", f"a TOML file or one of {', '.join(_names())}", name)
    return ImpPlan.read(file)


def _changed(plan: "ImpPlan", seed: int | None, replicates: int | None, method: str | None) -> "ImpPlan":
    from dataclasses import replace

    from torch_bridge.training.plan import Seeds

    if seed is not None:
        plan = replace(plan, seeds=Seeds(init=seed, order=seed, split=seed, pruning=seed))
    if replicates is not None:
        plan = replace(plan, replicates=replicates)
    return plan if method is None else replace(plan, pruning=replace(plan.pruning, method=method))


def _make(plan: "ImpPlan", folder: Path, as_json: bool, **how: Any) -> None:
    from torch_bridge import MissingExtra, require

    try:
        require("torch")
    except MissingExtra as error:
        raise click.ClickException(str(error)) from None
    from topobounds.runs import PLAN_FILE
    from torch_bridge.experiment.run import run_imp

    started = time.monotonic()
    try:
        with progress_bar("starting") as progress:
            run_imp(plan, folder, progress=progress, **how)
    except KeyboardInterrupt:
        if (folder / PLAN_FILE).exists():  # else nothing has begun
            go_on = printable(shlex.join(["topobounds", "imp", "resume", str(folder)]))
            click.echo(f"\nWhat is done is kept; this goes on from the last checkpoint: {go_on}", err=True)
        raise
    _show(folder, as_json, seconds=round(time.monotonic() - started, 3))


def _show(folder: Path, as_json: bool, **more: Any) -> None:
    from torch_bridge.experiment.history import status as status_of

    found = status_of(folder) | more
    if as_json:
        print_json(found)
    else:
        _print_status(found)


def _print_status(found: dict[str, Any]) -> None:
    from torch_bridge.experiment.history import COLUMNS

    plan, console = found["plan"], console_on_stdout()
    state = "finished" if found["finished"] else "running" if found["in_use"] else "not finished"
    name = (plan["model"] or {}).get("name", "own net")
    said = (
        f"{found['folder']}: {plan['pruning']['method']} of {name}, {found['levels_done']} of "
        f"{counted(found['levels_planned'], 'level')}, {state}."
    )
    console.print(said)
    table = new_table(*(column.replace("_", " ") for column in COLUMNS))
    for level in found["levels"]:
        table.add_row(*(_cell(level.get(column)) for column in COLUMNS))
    print_table(console, table)
    images = found["test_images"]
    accuracy = f"of {images} images, at the least validation loss" if images else "as the training function tells it"
    note = f"Test accuracy: {accuracy}. Neural persistence: after training, which moves it; pruning by t-imp does not."
    console.print(note, markup=False, highlight=False)


def _print_audit(found: dict[str, Any]) -> None:
    from torch_bridge.experiment.audit import COLUMNS

    console, levels = console_on_stdout(), found["levels"]
    where = ", ".join(dict.fromkeys(level["masks_from"] for level in levels))
    console.print(f"{found['folder']}: {counted(len(levels), 'level')}, masks from {where}.", markup=False)
    table = new_table(*(title for title, _ in COLUMNS))
    for level in levels:
        table.add_row(*(_cell(level[key], 1 if key.endswith("_z") else 4) for _, key in COLUMNS))
    print_table(console, table)
    for line in _audit_notes(found):
        print_line(line)


def _audit_notes(found: dict[str, Any]) -> Iterator[str]:
    """Yield what is to be said below the table of levels."""
    yield (
        "Forest: the weights that carry the topology. Kept: of the forest before a level, the share its mask keeps, "
        "beside what as many of the largest weights keep by chance; overlap: of the weights at the level's end. Swaps, "
        "T-IMP dead: what T-IMP changes at the same counts, and leaves without a weight."
    )
    statuses = {level[key] for level in found["levels"] for key in ("overlap_status", "forest_survived_status")}
    if "sampled" in statuses:
        orders = counted(found["trials"], "random order")
        yield f"By chance: {orders} of each layer on its own places, seed {found['seed']}."
    assumed = {layer["assumed"] for layer in found["layers"] if layer["assumed"]}
    for guess in sorted(assumed):
        yield f"Assumed of kernels: {guess}."
    for level in found["levels"]:
        label = f"replicate {level['replicate']}, level {level['level']}"
        if level["revived"]:
            yield f"{label}: its masks are not within those before; {counted(level['revived'], 'weight')} came back."
        if level["compared_with"] not in (None, level["level"] - 1):
            yield f"{label} is compared with level {level['compared_with']}, which is not the one before it."
    levels = {name: reason for name, reason in found["left_out"].items() if name.startswith("replicate ")}
    for name, reason in levels.items():
        yield f"left out: {name}: {reason}."
    tensors = {name: reason for name, reason in found["left_out"].items() if name not in levels}
    if tensors:
        yield f"{counted(len(tensors), 'tensor')} left out: {grouped_reasons(tensors)}."


def _cell(value: Any, digits: int = 4) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return "-" if value is None else str(value)


def _print_files(files: list[Path], as_json: bool) -> None:
    if as_json:
        print_json({"files": [str(file) for file in files]})
    else:
        for file in files:
            print_line(str(file))
