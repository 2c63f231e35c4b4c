"""What the run folder of an IMP experiment says, level by level. No torch here."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from topobounds._files import write_whole
from topobounds.runs import Level, RunError, RunFolder
from torch_bridge.experiment.plan import ImpPlan

COLUMNS = ("replicate", "level", "density", "overlap", "neural_persistence", "dead_units", "test_accuracy")
"""What a table of the levels shows; there is more in every record."""
_IDENTITY = ("replicate", "level", "method", "name")


def open_run(folder: str | os.PathLike[str]) -> tuple[RunFolder, ImpPlan]:
    """Return a run folder and its plan.

    Raises
    ------
    RunError
        If it is no run folder, is damaged, or holds something else than an IMP experiment.
    """
    run = RunFolder.open(folder)
    try:
        return run, ImpPlan.from_dict(run.plan | run.extent)
    except ValueError as error:
        raise RunError(f"{run.path} holds no IMP experiment: {error}") from None


def level_name(replicate: int, level: int) -> str:
    """Return the name of a level's folder."""
    return f"replicate-{replicate}.level-{level:02d}"


def missing_levels(run: RunFolder, plan: ImpPlan) -> list[tuple[int, int]]:
    """Return replicate and number of the levels that are still to be made, in the order in which they are made."""
    missing = []
    for replicate in range(plan.replicates):
        for level in plan.levels:
            if not run.is_finished(level_name(replicate, level)):
                missing.append((replicate, level))
            elif stops_after(run, plan, replicate, level):
                break
    return missing


def stops_after(run: RunFolder, plan: ImpPlan, replicate: int, level: int) -> bool:
    """Return whether a finished level is a replicate's last, because its accuracy is below the plan's target."""
    if plan.pruning.stop_below is None:
        return False
    return plan.pruning.is_last(_last(run.level(level_name(replicate, level))))


def test_images(run: RunFolder) -> int | None:
    """Return how many test images the accuracies of a run are of; None before its first level, or with own data."""
    data = run.levels[0].metrics[0].get("data") if run.levels else None
    return None if data is None else int(data["counts"]["test"])


def level_records(run: RunFolder) -> list[dict[str, Any]]:
    """Return the summary of every finished level, by replicate and level.

    Raises
    ------
    RunError
        If a level is damaged, as far as the sizes of its files tell.
    """
    return [_last(level) for level in run.levels]


def layer_records(run: RunFolder) -> list[dict[str, Any]]:
    """Return the record of every layer of every finished level, with ``replicate`` and ``level``."""
    found = []
    for level in run.levels:
        summary = _last(level)
        where = {key: summary[key] for key in ("replicate", "level", "method")}
        found += [where | record for record in level.metrics if record["record"] == "layer"]
    return found


def status(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return where a run stands, as plain Python.

    Returns
    -------
    dict
        ``folder``, ``plan`` (whole, defaults too), ``sha256``, ``in_use`` (a process is at it), ``levels_done``,
        ``levels_planned``, ``finished`` (also where the accuracy fell below the target), ``test_images`` (how many the
        accuracies are of, None where that is not known), and ``levels``: the summaries of the finished ones.

    Raises
    ------
    RunError
        As `open_run`, or if a level is damaged.
    """
    run, plan = open_run(folder)
    levels = level_records(run)
    planned = plan.replicates * len(plan.levels)
    return {
        "folder": str(run.path),
        "plan": plan.complete(),
        "sha256": run.sha256,
        "in_use": run.is_in_use,
        "levels_done": len(levels),
        "levels_planned": planned,
        "finished": not missing_levels(run, plan),
        "test_images": test_images(run),
        "levels": levels,
    }


def export(folder: str | os.PathLike[str], out: Path) -> list[Path]:
    """Write what a run found in forms that other programs read.

    Parameters
    ----------
    folder : path
        The run folder.
    out : pathlib.Path
        Where to: made where missing; files of the same names are replaced.

    Returns
    -------
    list of pathlib.Path
        ``levels.csv`` and ``layers.csv``, the records; and for the last finished level of each replicate
        ``replicate-0.safetensors``, the weights under the names of the net's state, pruned ones zero, and
        ``replicate-0.masks.safetensors``.

    Raises
    ------
    RunError
        As `open_run`; if no level is finished, one is damaged, or the files cannot be written.
    """
    run, _ = open_run(folder)
    levels = {level.name.split(".")[0]: level for level in run.levels}
    if not levels:
        raise RunError(f"{run.path} has no finished level to export.")
    files = {"levels.csv": _csv(level_records(run)), "layers.csv": _csv(layer_records(run))}
    for replicate, level in levels.items():
        files[f"{replicate}.safetensors"] = level.read("end.safetensors")
        files[f"{replicate}.masks.safetensors"] = level.read("masks.safetensors")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(out / name, content)
    except OSError as error:
        raise RunError(f"{out} could not be written: {error.strerror or error}.") from error
    return [out / name for name in files]


def _last(level: Level) -> dict[str, Any]:
    level.check_sizes()
    if not level.metrics or level.metrics[-1].get("record") != "level":
        raise RunError(f"{level.path} is no level of an IMP experiment: its metrics do not end in a summary.")
    return level.metrics[-1]


def _csv(records: list[dict[str, Any]]) -> bytes:
    """Return the records as CSV; what says which record it is comes first."""
    keys = {key: None for record in records for key in record}
    columns = [key for key in _IDENTITY if key in keys] + [key for key in keys if key not in (*_IDENTITY, "record")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow(
            ["x".join(map(str, each)) if isinstance(each, list) else each for each in map(record.get, columns)]
        )
    return text.getvalue().encode()
