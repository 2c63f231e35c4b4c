"""A page about a record that one sends to colleagues: one file that needs no network and no program but a browser."""

import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from topobounds._arguments import argument_error, file_name
from topobounds._files import write_whole
from topobounds._records import Record
from topobounds._text import counted, printable
from topobounds.analysis.comparison import Comparison
from topobounds.analysis.findings import RULES
from topobounds.analysis.reports import ModelReport
from topobounds.pruning.report import PruningReport

_HERE = Path(__file__).parent
EXTRA = "A page needs jinja2, which is not installed: in a clone of topobounds, pip install '.[page]'."
WORDS = {
    "must keep": "The fewest weights that can carry the layer's topology, its maximum spanning forest. Pruning that "
    "protects topology (T-IMP) can go down to them.",
    "safe density": "Down to this density plain magnitude pruning leaves the topology whole; beside it what the same "
    "number of weights would allow in random order.",
    "overlap": "Of the weights that carry the topology, the share that is among as many largest weights. Where it is "
    "low, magnitude pruning takes what holds the layer together.",
    "persistence": "How long it takes until the layer's neurons are joined, as weights enter from the largest down: "
    "neural persistence, normalised.",
    "by chance": "What the layer's own weights would give if they lay in random order on the places they have.",
    "z": "By how many standard deviations the layer differs from chance. Between -2 and 2 there is nothing to explain.",
}
"""What the titles of the columns mean."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is shown, and what it is sorted by."""

    shown: str
    value: str
    number: bool = False
    about: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table; links lead to its anchor."""

    anchor: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """One column: its title, the key of the record that it shows, how, and what it means."""

    title: str
    key: str
    digits: int | None = None
    about: str = ""

    @property
    def number(self) -> bool:
        """Whether it holds numbers."""
        return self.digits is not None


@dataclass(frozen=True)
class Table:
    """One table; `id` is the key of its rows in the record."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    about: str = ""
    details: bool = False


@dataclass(frozen=True)
class Page:
    """What a page shows of a record, whatever the record is."""

    title: str
    subtitle: str
    facts: Sequence[Mapping[str, str]]
    tables: Sequence[Table]
    findings: Sequence[Mapping[str, Any]] | None = None
    words: Sequence[tuple[str, str]] = field(default_factory=lambda: tuple(WORDS.items()))
    provenance: str = ""


def write_html(record: Record, path: str | os.PathLike[str]) -> Path:
    """Write a page about a record: summary, findings, a table to sort and filter, and pictures of each layer.

    The file is whole in itself: it asks for nothing from a network and works without one. It holds the record as JSON.

    Parameters
    ----------
    record : ModelReport, Comparison or PruningReport
        What `topobounds.analyze`, `torch_bridge.analyze`, `topobounds.compare` or `topobounds.prune_checkpoint`
        returns. With ``curves=True`` each layer of a ModelReport has its pictures.
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
    ValueError
        If there is no page about such a record.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from topobounds import analyze
    >>> report = analyze({"fc.weight": np.random.default_rng(0).standard_normal((30, 20))}, curves=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(write_html(report, f"{folder}/page.html").name)
    page.html
    """
    return write_page(_page_of(record), record.to_dict(), path)


def write_page(page: Page, record: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a page that is made already.

    Parameters
    ----------
    page : Page
        What is shown.
    record : mapping
        What the page holds as JSON; under the `id` of each of its tables that has details, their rows.
    path : path
        The file, replaced whole if there is one.
    """
    # No text of a JSON string may end the element that holds it.
    text = json.dumps(record, allow_nan=False).replace("<", "\\u003c")
    parts = {"style": _own("page.css"), "script": _own("page.js"), "record": text}
    return write_whole(Path(file_name("path", path)), template().render(page=page, **parts))


def template() -> Any:
    """Return the template of a page.

    Raises
    ------
    ImportError
        If jinja2 is not installed; it names the extra.
    """
    try:
        import jinja2
    except ModuleNotFoundError:
        raise ImportError(EXTRA) from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_printable)
    return environment.from_string(_own("page.html.jinja"))


def _printable(value: Any) -> Any:
    """Return a text as a terminal shows it, control characters escaped; what is HTML already as it is."""
    return printable(value) if type(value) is str else value


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _page_of(record: Record) -> Page:
    for kind, page in PAGES.items():
        if isinstance(record, kind):
            return page(record)
    raise argument_error("record", f"one of {', '.join(kind.__name__ for kind in PAGES)}", type(record).__name__)


LAYERS = (
    Column("layer", "name", None, "Name in the model or file"),
    Column("kind", "kind", None, "Kind of layer; how it was read stands in its details"),
    Column("weights", "weights", 0, "Stored weights"),
    Column("density", "density", 4, "Share of them that is not zero"),
    Column("must keep", "critical", 0, WORDS["must keep"]),
    Column("safe density", "safe_density", 4, WORDS["safe density"]),
    Column("by chance", "safe_density_expected", 4, WORDS["by chance"]),
    Column("overlap", "overlap", 3, WORDS["overlap"]),
    Column("by chance", "overlap_expected", 3, WORDS["by chance"]),
    Column("z", "overlap_z", 1, WORDS["z"]),
    Column("persistence", "neural_persistence", 3, WORDS["persistence"]),
    Column("by chance", "neural_persistence_expected", 3, WORDS["by chance"]),
    Column("z", "neural_persistence_z", 1, WORDS["z"]),
)
_LEFT_OUT = (Column("tensor", "name"), Column("shape", "shape"), Column("type", "dtype"), Column("reason", "reason"))


def _page_of_model(report: ModelReport) -> Page:
    record = report.to_dict()
    layers, left_out = record["layers"], record["left_out"]
    source = record.get("source") or {}
    tables = [
        table_of("layers", "Layers", LAYERS, layers, "Open a layer to see its pictures. Titles sort.", details=True),
        *([table_of("left_out", "Left out", _LEFT_OUT, left_out, "What is not read, and why.")] if left_out else []),
    ]
    weights, critical = (sum(layer[key] or 0 for layer in layers) for key in ("weights", "critical"))
    facts = [
        fact(
            "layers", f"{len(layers):,}", f"{counted(len(left_out), 'tensor', form=',')} left out" if left_out else ""
        ),
        fact("weights", f"{weights:,}", f"density {report.density:.4g}"),
        fact("must keep", f"{critical:,}", f"{_percent(critical, weights)} of the weights carry all topology"),
        fact(
            "below chance",
            counted(_below(layers), "layer", form=","),
            "overlap more than 3 standard deviations under chance",
        ),
        fact("highest safe density", *_least_safe(layers)),
    ]
    anchors = {layer["name"]: _anchor("layers", place) for place, layer in enumerate(layers)}
    anchors |= {each["name"]: _anchor("left_out", place) for place, each in enumerate(left_out)}
    findings = [
        {**finding, "layer": _name(finding["layer"]), "anchor": anchors.get(finding["layer"], "layers")}
        for finding in record["findings"]
    ]
    groups = [
        {"severity": severity, "rule": rule, "about": RULES[rule].about, "findings": list(group)}
        for (severity, rule), group in itertools.groupby(findings, lambda each: (each["severity"], each["rule"]))
    ]
    provenance = f"topobounds {version('topobounds')}. {source.get('path') or 'A model in memory'}"
    seeds = {layer["seed"] for layer in layers if layer["seed"] is not None}
    return Page(
        title=Path(source.get("path") or "model").name or "model",
        subtitle=f"How far each layer can be pruned before its topology breaks, and what chance alone would give. "
        f"{source.get('format') or ''}".strip(),
        facts=facts,
        tables=tables,
        findings=groups,
        provenance=f"{provenance}. Seed of what was sampled: {', '.join(map(str, sorted(seeds))) or 'nothing was'}.",
    )


_COMPARED = (
    Column("layer", "name"),
    Column("density of a", "density_a", 4),
    Column("density of b", "density_b", 4),
    Column("forest kept", "forest_kept", 4, "Share of what carries a's topology that is not zero in b"),
    Column("in common", "forest_in_common", 4, "Share of what carries a's topology that carries b's too"),
    Column("by chance", "forest_in_common_expected", 4, "Its mean if b's weights came in random order"),
    Column("overlap a", "overlap_a", 3, WORDS["overlap"]),
    Column("overlap b", "overlap_b", 3, WORDS["overlap"]),
    Column("by chance", "overlap_expected", 3, WORDS["by chance"]),
    Column("persistence a", "neural_persistence_a", 3, WORDS["persistence"]),
    Column("persistence b", "neural_persistence_b", 3, WORDS["persistence"]),
    Column("bottleneck", "bottleneck", 4, "Distance of the persistence diagrams: the largest shift of a point"),
    Column("wasserstein", "wasserstein", 4, "Distance of the persistence diagrams of order 2"),
)
_ONLY = (Column("layer", "name"), Column("reason", "reason"))


def _page_of_comparison(comparison: Comparison) -> Page:
    record, summary = comparison.to_dict(), comparison.summary
    sides = {f"only_in_{side}": f"Only in {side}" for side in "ab"}
    only = {key: [{"name": name, "reason": why} for name, why in record[key].items()] for key in sides}
    tables = [
        table_of("layers", "Layers", _COMPARED, record["layers"], "Open a layer to see all its numbers.", details=True),
        *(table_of(key, title, _ONLY, only[key], "") for key, title in sides.items() if only[key]),
    ]
    of_all = f"of {counted(summary.compared, 'layer', form=',')}"
    about = [f"{counted(summary.identical, 'holds', 'hold', form=',')} the same weights"]
    if summary.compared < summary.layers:
        about.append(f"{counted(summary.layers - summary.compared, 'is', 'are', form=',')} not compared")
    facts = [
        fact("layers in both", f"{summary.layers:,}", ", ".join(about)),
        fact("topology kept", f"{summary.topology_kept:,}", f"{of_all} have all that carries a's topology in b"),
        fact("diagrams equal", f"{summary.diagrams_equal:,}", of_all),
        fact("least kept", _name(summary.least_kept) or "-"),
    ]
    return Page(
        title=f"{_last(comparison.a)} and {_last(comparison.b)}",
        subtitle=summary.text,
        facts=facts,
        tables=tables,
        provenance=f"topobounds {version('topobounds')}. a: {comparison.a}, b: {comparison.b}. Seed {comparison.seed}.",
    )


def _last(path: str) -> str:
    return Path(path).name or path


_PRUNED = (
    Column("layer", "name"),
    Column("kind", "kind"),
    Column("weights", "weights", 0, "Stored weights"),
    Column("left before", "survivors", 0, "Weights that earlier rounds left"),
    Column("asked", "asked", 0, "Weights that were to be left"),
    Column("kept", "kept", 0, "Weights that are left"),
    Column("must keep", "alpha", 0, WORDS["must keep"]),
    Column("swaps", "swaps", 0, "Weights that T-IMP keeps here and magnitude pruning to the same number would not"),
    Column("by chance", "swaps_expected", 1, "What it would be if the same weights lay in random order"),
    Column("weight lost", "squared_weight_lost", 4, "Squared weight given up for them"),
    Column("diagrams kept", "preserved", None, "Whether the persistence diagrams are those before, bit for bit"),
    Column("persistence before", "neural_persistence_before", 4, WORDS["persistence"]),
    Column("after", "neural_persistence_after", 4, WORDS["persistence"]),
)


def _page_of_pruning(report: PruningReport) -> Page:
    layers = report.to_dict()["layers"]
    left_out = [{"name": name, "reason": why} for name, why in report.left_out.items()]
    tables = [
        table_of("layers", "Layers", _PRUNED, layers, "Open a layer to see all its numbers.", details=True),
        *([table_of("left_out", "Left as they are", _ONLY, left_out, "")] if left_out else []),
    ]
    kept = sum(layer.preserved for layer in report.layers)
    swaps = [layer.swaps for layer in report.layers if layer.swaps is not None]
    whose = "layers, bit for bit" if report.scores is None else f"layers, bit for bit, of the scores in {report.scores}"
    facts = [
        fact("weights kept", f"{report.summary['kept']:,}", f"of {report.summary['weights']:,}"),
        fact("density", f"{report.density:.4g}"),
        fact("diagrams kept", f"{kept:,} of {len(report.layers):,}", whose),
        fact("swapped", f"{sum(swaps):,}" if swaps else "-", "weights, against magnitude pruning"),
    ]
    how = ", ".join(each for each in (report.method, report.scope, report.allocate) if each)
    return Page(
        title=_last(report.target or report.source or "pruned model"),
        subtitle=f"What pruning left of {report.source or 'a model'}{f' ({how})' if how else ''}.",
        facts=facts,
        tables=tables,
        words=tuple((word, WORDS[word]) for word in ("must keep", "persistence")),
        provenance=f"topobounds {version('topobounds')}. {report.source or 'A model in memory'}.",
    )


PAGES: dict[type[Record], Callable[[Any], Page]] = {
    ModelReport: _page_of_model,
    Comparison: _page_of_comparison,
    PruningReport: _page_of_pruning,
}
"""How each record becomes a page."""


def table_of(
    key: str,
    title: str,
    columns: Sequence[Column],
    records: Sequence[Mapping[str, Any]],
    about: str,
    *,
    details: bool = False,
) -> Table:
    """Return a table of the columns that any of the records fills."""
    used = tuple(c for c in columns if any(_shown(record, c) not in (None, "") for record in records))
    rows = (Row(_anchor(key, place), tuple(_cell(record, c) for c in used)) for place, record in enumerate(records))
    return Table(key, title, used, tuple(rows), about, details)


def _anchor(table: str, place: int) -> str:
    return f"{table}-{place}"


def _shown(record: Mapping[str, Any], column: Column) -> Any:
    return _name(record.get(column.key)) if column.key == "name" else record.get(column.key)


def _name(name: str | None) -> str | None:
    """Return a name as it is shown; two quotes for an empty one, of which nothing would be seen."""
    return "''" if name == "" else name


def _cell(record: Mapping[str, Any], column: Column) -> Cell:
    value = _shown(record, column)
    if value is None:
        return Cell("-", "", column.number, str(record.get("reason") or ""))
    if isinstance(value, bool):
        return Cell("yes" if value else "no", str(value).lower())
    if column.digits is None:
        text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
        return Cell(text, text)
    shown = f"{value:,.{column.digits}f}"
    if column.digits and value and abs(value) < 10.0**-column.digits:
        shown = f"{value:.2g}"
    return Cell(shown, repr(value), True, repr(value))


def fact(label: str, value: str, note: str = "") -> dict[str, str]:
    """Return one fact of a summary: what it is, the number, and what is to be known about it."""
    return {"label": label, "value": value, "note": note}


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g}%" if whole else "-"


def _below(layers: Sequence[Mapping[str, Any]]) -> int:
    return sum((layer["overlap_z"] or 0.0) < -3 for layer in layers)


def _least_safe(layers: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    known = [layer for layer in layers if layer["safe_density"] is not None]
    if not known:
        return "-", "no layer has one"
    worst = max(known, key=lambda layer: layer["safe_density"])
    return f"{worst['safe_density']:.4g}", f"of {_name(worst['name'])}: below it, magnitude pruning breaks a layer"
