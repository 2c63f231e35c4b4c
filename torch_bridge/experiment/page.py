"""A page about a run of IMP: its levels, and what each found of each layer. No torch here."""

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from topobounds._text import counted
from topobounds.report.page import WORDS, Column, Page, fact, table_of, write_page
from torch_bridge.experiment import history

_LEVELS = (
    Column("level", "name"),
    Column("replicate", "replicate", 0),
    Column("density", "density", 4, "Share of the weights that is not pruned"),
    Column("test accuracy", "test_accuracy", 4),
    Column("overlap", "overlap", 4, WORDS["overlap"]),
    Column("persistence", "neural_persistence", 4, WORDS["persistence"]),
    Column("dead units", "dead_units", 0, "Neurons without a weight"),
)
LAYERS = (
    Column("layer", "name"),
    Column("replicate", "replicate", 0),
    Column("level", "level", 0),
    Column("weights", "weights", 0),
    Column("kept", "kept", 0),
    Column("must keep", "alpha", 0, WORDS["must keep"]),
    Column("overlap", "overlap", 4, WORDS["overlap"]),
    Column("by chance", "overlap_expected", 4, WORDS["by chance"]),
    Column("persistence", "neural_persistence", 4, WORDS["persistence"]),
    Column("by chance", "neural_persistence_expected", 4, WORDS["by chance"]),
)
_KEPT = "Of the weights that carried the topology at the end of the level before, the share that the mask left"
_SURVIVAL = (
    Column("forest kept", "forest_survived", 4, _KEPT),
    Column("by chance", "forest_survived_expected", 4, WORDS["by chance"]),
    Column("z", "forest_survived_z", 1, WORDS["z"]),
    Column("missing edges", "missing_edges", 0, "How many of them the mask took"),
    Column("swaps", "swaps", 0, "Weights that T-IMP keeps at the same count in the place of the largest"),
)
_AUDITED_LEVELS = (
    *_LEVELS[:3],
    *_SURVIVAL,
    Column("overlap", "overlap", 4, WORDS["overlap"]),
    Column("by chance", "overlap_expected", 4, WORDS["by chance"]),
    Column("dead units", "dead_units", 0, "Neurons without a weight"),
    Column("T-IMP dead", "t_imp_dead_units", 0, "Neurons that T-IMP leaves without a weight at the same counts"),
    _LEVELS[3],
)
_AUDITED_LAYERS = (*LAYERS[:6], *_SURVIVAL, *LAYERS[6:8])


def write_run_page(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write a page about the run in a folder, finished or not.

    Parameters
    ----------
    folder : path
        The run folder.
    path : path
        The file, replaced whole if there is one.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    RunError
        As `open_run`, or if a level is damaged.
    ImportError
        If jinja2 is not installed.
    """
    found = history.status(folder)
    run, plan = history.open_run(folder)
    levels = [{"name": f"{level['replicate']}, {level['level']}", **level} for level in found["levels"]]
    layers = history.layer_records(run)
    last = [level for level in levels if level["level"] == max((each["level"] for each in levels), default=0)]
    accuracies = [level["test_accuracy"] for level in last if level.get("test_accuracy") is not None]
    images = found["test_images"]
    facts = [
        fact(
            "levels",
            f"{found['levels_done']:,} of {found['levels_planned']:,}",
            "" if found["finished"] else "not finished",
        ),
        fact("last density", f"{last[0]['density']:.4g}" if last else "-"),
        fact(
            "test accuracy there",
            f"{sum(accuracies) / len(accuracies):.4f}" if accuracies else "-",
            f"mean of {counted(len(accuracies), 'replicate')}{f', {images:,} images each' if images else ''}"
            if accuracies
            else "",
        ),
    ]
    page = Page(
        title=run.path.name,
        subtitle=f"Iterative pruning by {plan.pruning.method}, level by level.",
        facts=facts,
        tables=[
            table_of("levels", "Levels", _LEVELS, levels, "A level is named by replicate and number.", details=True),
            table_of("layers", "Layers", LAYERS, layers, "Every layer of every level.", details=True),
        ],
        words=tuple((word, WORDS[word]) for word in ("must keep", "overlap", "persistence", "by chance")),
        provenance=f"topobounds {version('topobounds')}. {run.path}, plan {run.sha256}.",
    )
    return write_page(page, {"levels": levels, "layers": layers, "status": found}, path)


def write_audit_page(found: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a page about the run of another program.

    Parameters
    ----------
    found : dict
        What `torch_bridge.experiment.audit.audit_run` returns.
    path : path
        The file, replaced whole if there is one.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    """
    levels = [{"name": f"{level['replicate']}, {level['level']}", **level} for level in found["levels"]]
    left_out = [{"name": name, "reason": reason} for name, reason in found["left_out"].items()]
    least = min((level["forest_survived"] for level in levels if level["forest_survived"] is not None), default=None)
    drawn = f"By chance: {counted(found['trials'], 'random order')} where the law is not known, seed {found['seed']}."
    page = Page(
        title=Path(found["folder"]).name,
        subtitle="What iterative pruning by another program left of the topology, level by level.",
        facts=[
            fact("levels", f"{len(levels):,}"),
            fact("last density", f"{levels[-1]['density']:.4g}"),
            fact("forest kept, the least", "-" if least is None else f"{least:.4f}"),
        ],
        tables=[
            table_of("levels", "Levels", _AUDITED_LEVELS, levels, drawn, details=True),
            table_of("layers", "Layers", _AUDITED_LAYERS, found["layers"], "Every layer of every level.", details=True),
            table_of("left_out", "Left out", (Column("what", "name"), Column("why", "reason")), left_out, ""),
        ],
        words=tuple((word, WORDS[word]) for word in ("must keep", "overlap", "by chance", "z")),
        provenance=f"topobounds {version('topobounds')}. {found['folder']}.",
    )
    return write_page(page, found, path)
