"""The picture of IMP runs: accuracy, overlap and neural persistence by density. No torch here."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count, cycle
from pathlib import Path
from typing import Any

from topobounds._text import counted
from topobounds.figures.publish import new_figure, publish, write_numbers
from topobounds.figures.record import DATASETS, FigureRecord, provenance
from topobounds.plotting import CATEGORIES, draw_band
from topobounds.pruning.methods import RECORDED_NAMES, pruning_method
from topobounds.runs import RunError
from torch_bridge.experiment import history

PANELS = {
    "test_accuracy": "test accuracy",
    "overlap": "overlap",
    "neural_persistence": "neural persistence",
}
COLUMNS = ("run", "replicate", "level", "density", *PANELS)
_DASHES = ("-", "--", ":", "-.")
"""Runs are the same until one of them loses topology; of curves that coincide both are to be seen."""
QUANTITIES = (
    "Test accuracy at the least validation loss; the share of the maximum spanning forests that is among equally many "
    "largest weights; normalised neural persistence (convention balwani, p = 2), summed over the layers; each after "
    "training."
)
"""What is drawn, for a caption."""
METHODS = {name: pruning_method(name).label for name in RECORDED_NAMES}
"""What the methods of plans are called in the picture."""


def publish_runs(folders: Sequence[Path], out: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write the picture of one or several runs, and the numbers behind it.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Run folders, finished or not.
    out : pathlib.Path
        The folder to write to; it is made where it is missing.
    caption_drawn : bool
        Whether the caption stands beneath the picture, too.

    Returns
    -------
    list of pathlib.Path
        ``imp.csv``, ``imp.json``, ``imp.pdf``, ``imp.png`` and the caption, ``imp.txt``.

    Raises
    ------
    RunError
        If a folder holds no IMP experiment, is damaged, or has no finished level; or `out` cannot be written.
    """
    record = measure(folders)
    try:
        out.mkdir(parents=True, exist_ok=True)
        numbers = write_numbers(record, out)
        return numbers + publish(draw, caption(record), record, out, caption_drawn=caption_drawn)
    except OSError as error:
        raise RunError(f"{out} could not be written: {error.strerror or error}.") from error


def measure(folders: Sequence[Path], replicates: int | None = None) -> FigureRecord:
    """Return the numbers, one row for every finished level of a replicate.

    The replicates are those that are whole; where none is, the first.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Run folders.
    replicates : int, optional
        Look at the first so many only.

    Raises
    ------
    RunError
        As `publish_runs`.
    """
    rows: list[tuple[Any, ...]] = []
    runs: dict[str, dict[str, Any]] = {}
    for folder in {folder.resolve(): folder for folder in folders}.values():
        run, plan = history.open_run(folder)
        finished = [each for each in history.level_records(run) if replicates is None or each["replicate"] < replicates]
        levels = _comparable(finished, {replicate for replicate, _ in history.missing_levels(run, plan)})
        if not levels:
            raise RunError(f"{run.path} has no finished level to draw.")
        name = _unused_name(METHODS[plan.pruning.method], folder, runs)
        facts = run.levels[0].metrics[0]
        data = facts["data"] and {key: facts["data"][key] for key in ("name", "sha256")}
        if data:
            data["test_images"] = history.test_images(run)
        made = replace(plan, replicates=len({level["replicate"] for level in levels}))
        of_training = {key: facts.get(key) for key in ("device", "processor", "torch")}
        runs[name] = {"plan": made.complete(), **of_training, "data": data}
        rows += [(name, *(level[column] for column in COLUMNS[1:])) for level in levels]
    command = "topobounds imp plot " + " ".join(folder.name for folder in folders)
    return FigureRecord("imp", provenance(command, runs=runs), COLUMNS, tuple(rows))


def draw(record: FigureRecord) -> Any:
    """Return the figure: a panel for each quantity that every level has."""
    panels = {column: label for column, label in PANELS.items() if None not in record.column(column)}
    figure = new_figure(2.7)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        for run, color, dashes in zip(record.distinct("run"), cycle(CATEGORIES), cycle(_DASHES), strict=False):
            part = record.where(run=run)
            _, densities = part.pivot("density", across="level", down="replicate")
            _, values = part.pivot(column, across="level", down="replicate")
            draw_band(
                ax,
                densities.mean(axis=0),
                values,
                color=color,
                linestyle=dashes,
                marker="o",
                label=run.replace("$", r"\$"),
            )
        ax.set(xlabel="density", ylabel=label)
        _turn_round(ax, record.column("density"))
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=1.2)
    return figure


def caption(record: FigureRecord) -> str:
    """Return the caption."""
    made = record.provenance["runs"]
    counts = {run: len(record.where(run=run).distinct("replicate")) for run in made}
    described = "; ".join(f"{run}: {_described(facts, counts[run])}" for run, facts in made.items())
    return (
        f"Iterative pruning, level by level. {QUANTITIES} {_spread(set(counts.values()))}{_standard_error(record)} "
        f"{described}."
    )


def _spread(counts: set[int]) -> str:
    """Return what the curves and their bands are, for runs of these numbers of replicates."""
    if counts == {1}:
        return "One replicate, so no spread is known."
    where = ", of runs with several" if 1 in counts else ""
    return f"Means over the replicates, and one sample standard deviation to either side{where}."


def _standard_error(record: FigureRecord) -> str:
    """Return what the test images alone leave uncertain of an accuracy; nothing where their number is not known."""
    sizes = [run["data"].get("test_images") for run in record.provenance["runs"].values() if run["data"]]
    accuracies = [value for value in record.column("test_accuracy") if value is not None]
    if not accuracies or not sizes or None in sizes:
        return ""
    typical, images = statistics.median(accuracies), min(sizes)
    error = math.sqrt(typical * (1 - typical) / images)
    return (
        f" The choice of {images} test images alone gives an accuracy of {typical:.3f} a standard error of {error:.3f}."
    )


def net_name(plan: dict[str, Any]) -> str:
    """Return the net of a complete plan as it is printed, with the widths of an mlp."""
    if not plan["model"]:
        return "own net"
    return " ".join([plan["model"]["name"], "-".join(map(str, plan["model"]["hidden"]))]).strip()


def _comparable(levels: list[dict[str, Any]], unfinished: set[int]) -> list[dict[str, Any]]:
    """Return the levels that every finished replicate has; if none is finished, all of the first replicate."""
    whole = [level for level in levels if level["replicate"] not in unfinished]
    if not whole:
        return [level for level in levels if level["replicate"] == levels[0]["replicate"]]
    fewest = min(Counter(level["replicate"] for level in whole).values())  # one may have stopped before another
    return [level for level in whole if level["level"] < fewest]


def _unused_name(name: str, folder: Path, used: dict[str, Any]) -> str:
    if name not in used:
        return name
    numbers = chain([""], (f" {n}" for n in count(2)))
    others = (f"{name} ({folder.resolve().name}{number})" for number in numbers)
    return next(other for other in others if other not in used)


def _described(facts: dict[str, Any], replicates: int) -> str:
    plan = facts["plan"]
    data = DATASETS[facts["data"]["name"]] if facts["data"] else "own data"
    return f"{net_name(plan)}, {data}, {plan['pruning']['after']}, {counted(replicates, 'replicate')}"


def _turn_round(ax: Any, densities: list[float]) -> None:
    """Show densities on a log axis, dense on the left, with plain numbers."""
    ax.set_xscale("log")
    ticks = [tick for tick in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001) if tick >= min(densities) / 1.2]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.invert_xaxis()
