"""Layers as a table on the terminal: one row each, or of many layers one row for each pattern of their names."""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from topobounds._text import bytes_in_words, counted, grouped_reasons
from topobounds.cli.console import UNBOUNDED, lines_of, new_table, print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from topobounds.analysis.reports import LayerReport, ModelReport

_MOST_ROWS = 60  # layers that have a row each where not all of them are asked for
_WORST = 10
_WIDE = 108  # columns that all titles take, with names of layers of some 20 letters
_MEDIUM = 80
_SHORTEST_NAME = 16  # columns into which the names of layers are folded at the least
_MOST_NAMED = 3  # layers that are named with a finding
_NUMBER = re.compile(r"(?<![A-Za-z0-9_])[0-9]+(?![A-Za-z0-9_])")
"""A number that is a part of a name of its own: of a block of a network, or of an expert."""


@dataclass(frozen=True)
class Shown:
    """What of a report is shown.

    Attributes
    ----------
    columns : list of str or None
        The columns that were asked for, by their keys.
    sort : str or None
        The column by which the rows are sorted, and
    is_descending : bool
        whether from the largest.
    is_whole : bool
        Whether every layer has a row.
    """

    columns: list[str] | None = None
    sort: str | None = None
    is_descending: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Title:
    """A column of the table: its title, and what stands below it."""

    title: str
    cell: Callable[[Any], str]
    is_text: bool = False


def print_report(console: "Console", report: "ModelReport", shown: Shown) -> None:
    """Print what was read, the layers and the findings."""
    for line in _what_was_read(report):
        console.print(line)
    if shown.columns is not None:
        _print_columns(console, report, shown, shown.columns)
    elif len(report.layers) <= _MOST_ROWS or shown.is_whole:
        _print_layers(console, _sorted(report.layers, shown), _WIDE)
        _print_scales(console, _sorted(report.layers, shown))
    else:
        _print_patterns(console, report.layers)
        by = shown.sort or "overlap_z"
        first = "last" if shown.is_descending else "first"
        title = f"The {_WORST} {first} by {shown.sort}; --all shows every layer." if shown.sort else _WORST_TITLE
        console.print()
        console.print(title)
        worst = _sorted(report.layers, Shown(sort=by, is_descending=shown.is_descending))[:_WORST]
        _print_layers(console, worst, _WIDE)
        _print_scales(console, worst)
    for line in _networks(report):
        console.print(line)
    _print_findings(console, report)


_WORST_TITLE = f"The {_WORST} whose largest weights hold least, against chance; --all shows every layer."


def _what_was_read(report: "ModelReport") -> list[str]:
    """Return what was opened, how much of it was read, and why the rest was not."""
    lines = []
    if report.source is not None:
        source = report.source
        files = f"{len(source.files)} files, " if len(source.files) > 1 else ""
        seeds = {layer.seed for layer in report.layers} - {None}
        seed = f", seed {seeds.pop()}" if len(seeds) == 1 else ""
        lines.append(f"{source.path}: {source.format}, {files}{bytes_in_words(source.bytes)} read{seed}")
        if source.mask is not None:
            lines.append(f"Masked by {source.mask}.")
        if source.scores is not None:
            lines.append(f"Ranked by {source.scores}.")
    read, left_out = report.tensors_read, len(report.left_out)
    tied = f", {len(report.tied)} tied to another" if report.tied else ""
    tensors = f"{read} of {counted(read + left_out, 'tensor')}{tied}"
    lines.append(f"{tensors}; left out: {grouped_reasons(report.left_out)}." if report.left_out else f"{tensors}.")
    return lines


# -- one row each ------------------------------------------------------------------------------------------------------


def _sorted(layers: "Sequence[LayerReport]", shown: Shown) -> "Sequence[LayerReport]":
    """Return the layers by the value of a column, those without one last."""
    if shown.sort is None:
        return layers
    from topobounds.analysis.table import layer_columns

    values = layer_columns(layers).get(shown.sort)
    if values is None:  # a column of scales that were not asked for
        return layers
    known = [place for place, value in enumerate(values.values) if value is not None]
    known.sort(key=lambda place: values.values[place], reverse=shown.is_descending)
    rest = [place for place, value in enumerate(values.values) if value is None]
    return [layers[place] for place in (*known, *rest)]


def _print_columns(console: "Console", report: "ModelReport", shown: Shown, names: list[str]) -> None:
    from topobounds.analysis.table import layer_columns

    columns = layer_columns(_sorted(report.layers, shown))
    table = new_table()
    for name in names:
        is_text = name in columns and columns[name].kind is str
        table.add_column(name, justify="left" if is_text else "right")
    nothing = [None] * len(report.layers)
    for row in zip(*(columns[name].values if name in columns else nothing for name in names), strict=True):
        table.add_row(*map(_value, row))
    print_table(console, table)


def _print_layers(console: "Console", layers: "Sequence[LayerReport]", wide: int) -> None:
    """Print a row for each layer, with as many columns as the terminal has room for."""
    print_rows(console, layers, FULL if console.width >= wide else _SOME if console.width >= _MEDIUM else _FEW)


def print_rows(console: "Console", layers: Sequence[Any], *choices: Sequence[Title]) -> None:
    """Print a row for each layer, with the first choice of columns that the terminal has room for, or the last.

    The first column is the names, which are folded where the others leave no room for them.
    """
    for titles in choices:
        cells = [[title.cell(layer) for title in titles] for layer in layers]
        title_widths = [max(map(len, title.title.split("\n"))) for title in titles]
        cell_widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else []
        pairs = zip(cell_widths[1:], title_widths[1:], strict=False)  # of all columns but the names'
        width_for_names = console.width - sum(max(pair) + 1 for pair in pairs)  # one for the space after it
        folded_names = (folded(name, _SHORTEST_NAME) for name, *_ in cells)
        if width_for_names >= max((len(line) for lines in folded_names for line in lines), default=0):
            break
    table = new_table(padding=(0, 1, 0, 0))
    for title in titles:
        lines = title.title.split("\n")
        table.add_column(_title(console, lines), justify="left" if title.is_text else "right")
    for row in cells:
        table.add_row(lines_of(*folded(row[0], max(width_for_names, _SHORTEST_NAME))), *row[1:])
    print_table(console, table)


def _title(console: "Console", lines: list[str]) -> "Text":
    """Return a title of several lines; on one line where there is room for everything."""
    return lines_of(*lines) if console.width < UNBOUNDED else lines_of(" ".join(lines).replace("- ", "").strip())


def folded(name: str, width: int) -> list[str]:
    """Return a name in lines of so many letters, broken before dots and brackets; a longer piece is left whole.

    Examples
    --------
    >>> folded("encoder.weight_ih[forget]", 18)
    ['encoder.weight_ih', '[forget]']
    """
    lines = [""]
    for piece in re.split(r"(?=[.\\[/])", name):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _share(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value >= 0.001 or not value else f"{value:.1e}"


def _z(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(layer: "LayerReport") -> str:
    return "-" if layer.critical is None else f"{100 * layer.critical / layer.weights:.2f}"


def _must_keep(layer: "LayerReport") -> str:
    return f"{'-' if layer.critical is None else layer.critical}/{layer.weights}"


def _value(value: Any) -> str:
    """Return a value of a column that was asked for by its key."""
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


_NAME = Title("layer", lambda layer: layer.name, is_text=True)
_SHAPE = Title("shape", lambda layer: "x".join(map(str, layer.shape)), is_text=True)
_DENSITY = Title("density", lambda layer: _share(layer.density))
_MUST_KEEP = Title("must keep", _must_keep)
_PERCENT = Title("%", _percent)
_SAFE = Title("safe\ndensity", lambda layer: _share(layer.safe_density))
_SAFE_BY_CHANCE = Title("by\nchance", lambda layer: _share(layer.safe_density_expected))
_OVERLAP = Title("overlap", lambda layer: _share(layer.overlap))
_OVERLAP_BY_CHANCE = Title("by\nchance", lambda layer: _share(layer.overlap_expected))
_OVERLAP_Z = Title("z", lambda layer: _z(layer.overlap_z))
_PERSISTENCE = Title("persis-\ntence", lambda layer: _share(layer.neural_persistence))
_PERSISTENCE_Z = Title("z", lambda layer: _z(layer.neural_persistence_z))
FULL = (
    *(_NAME, _SHAPE, _DENSITY, _MUST_KEEP, _PERCENT, _SAFE, _SAFE_BY_CHANCE),
    *(_OVERLAP, _OVERLAP_BY_CHANCE, _OVERLAP_Z, _PERSISTENCE, _PERSISTENCE_Z),
)
_SOME = (_NAME, _MUST_KEEP, _PERCENT, _SAFE, _SAFE_BY_CHANCE, _OVERLAP, _OVERLAP_BY_CHANCE, _OVERLAP_Z)
_FEW = (_NAME, _MUST_KEEP, Title("safe", _SAFE.cell), Title("overlap z", _OVERLAP_Z.cell))


def _print_scales(console: "Console", layers: "Sequence[LayerReport]") -> None:
    """Print what the scales of the neurons explain of each layer, where that was asked for."""
    asked = [layer for layer in layers if layer.scales is not None]
    if not asked:
        return
    console.print()
    console.print(
        "What the values of the weights alone give, what the scales of the neurons add, and the rest, with its z:"
    )
    overlap, persistence = _shares_of("overlap", "overlap\nvalues"), _shares_of("neural_persistence", _SQUARED)
    print_rows(console, asked, (_NAME, *overlap, *persistence), (_NAME, *overlap))
    reasons = {f"{i}": layer.scales.reason for i, layer in enumerate(asked) if layer.scales and layer.scales.reason}
    if reasons:
        console.print(f"Not told: {grouped_reasons(reasons)}.")


_SQUARED = "persistence\nsquared\nvalues"


def _shares_of(key: str, title: str) -> list[Title]:
    """Return the columns of the shares of a number, whose sum is 1, and of the z of what is left."""

    def share(place: int, layer: "LayerReport") -> str:
        shares = getattr(layer.scales, key)
        return "-" if shares is None else f"{shares[place]:.4f}"

    shares = [Title(each, partial(share, place)) for place, each in enumerate((title, "scales", "rest"))]
    return [*shares, Title("z", lambda layer: _z(getattr(layer.scales, f"{key}_z")))]


# -- one row for each pattern of names ---------------------------------------------------------------------------------


def name_pattern(name: str) -> str:
    """Return the pattern that a name shares with those of other blocks.

    Examples
    --------
    >>> name_pattern("model.layers.17.mlp.up_proj.weight"), name_pattern("conv2d_1.weight"), name_pattern("w1[3 gate]")
    ('model.layers.*.mlp.up_proj.weight', 'conv2d_1.weight', 'w1[* gate]')
    """
    return _NUMBER.sub("*", name)


def _print_patterns(console: "Console", layers: "Sequence[LayerReport]") -> None:
    """Print a row for each pattern: how many layers it has, and the median and the worst of what is measured."""
    groups: dict[str, list[LayerReport]] = {}
    for layer in layers:
        groups.setdefault(name_pattern(layer.name), []).append(layer)
    many = _PATTERN_MEASURES if console.width >= _WIDE else _PATTERN_MEASURES[:3]
    measures = many if console.width >= _MEDIUM else _PATTERN_MEASURES[1:3]
    table = new_table(padding=(0, 1, 0, 0))
    table.add_column("layers")
    table.add_column("number", justify="right")
    if console.width >= _WIDE:
        table.add_column("shape")
    for title, *_ in measures:
        lines = [*title.split("\n"), "median"]
        table.add_column(_title(console, lines), justify="right")
        table.add_column(_title(console, [*[""] * (len(lines) - 1), "worst"]), justify="right")
    rows = []
    for pattern, group in groups.items():
        shapes = {_SHAPE.cell(layer) for layer in group}
        shape = [shapes.pop() if len(shapes) == 1 else f"{len(shapes)} shapes"] if console.width >= _WIDE else []
        cells = [cell for _, value, worst, shown in measures for cell in _median_and_worst(group, value, worst, shown)]
        rows.append([pattern, str(len(group)), *shape, *cells])
    heads = ["number", *(["shape"] if console.width >= _WIDE else []), *["density", "worst"] * len(measures)]
    columns = list(zip(heads, *(row[1:] for row in rows), strict=True))
    width_for_names = max(console.width - sum(max(map(len, column)) + 1 for column in columns), _SHORTEST_NAME)
    for row in rows:
        table.add_row(lines_of(*folded(row[0], width_for_names)), *row[1:])
    print_table(console, table)


def _median_and_worst(
    group: "list[LayerReport]",
    value: "Callable[[LayerReport], float | None]",
    worst: Callable[[list[float]], float],
    shown: Callable[[float | None], str],
) -> tuple[str, str]:
    known = [number for layer in group if (number := value(layer)) is not None]
    return (shown(statistics.median(known)), shown(worst(known))) if known else ("-", "-")


def _percent_of(layer: "LayerReport") -> float | None:
    return None if layer.critical is None else 100 * layer.critical / layer.weights


_PATTERN_MEASURES: "tuple[tuple[str, Callable[[LayerReport], float | None], Callable[[list[float]], float], Callable[[float | None], str]], ...]" = (  # noqa: E501
    ("must\nkeep %", _percent_of, max, lambda value: "-" if value is None else f"{value:.2f}"),
    ("safe\ndensity", lambda layer: layer.safe_density, max, _share),
    ("overlap\nz", lambda layer: layer.overlap_z, min, _z),
    ("persis-\ntence z", lambda layer: layer.neural_persistence_z, min, _z),
)
"""What is measured of the layers of a pattern: title, value, which of the values is the worst, how it is written."""


# -- below the table ---------------------------------------------------------------------------------------------------


def _networks(report: "ModelReport") -> list[str]:
    """Return a line for each network of layers that share their neurons."""
    lines = []
    for network in report.networks:
        ends = (
            f"{network.layers[0]} to {network.layers[-1]}" if len(network.layers) > 2 else " and ".join(network.layers)
        )
        assumed = f" ({network.assumed})" if network.assumed else ""
        must = f"must keep {network.alpha}/{network.weights}, safe density {_share(network.safe_density)}"
        lines.append(f"As one network, {ends}{assumed}: {must}, overlap {_share(network.overlap)}.")
    return lines


def _print_findings(console: "Console", report: "ModelReport") -> None:
    """Print a line for each rule that sees something: the first text, and which other layers it is about."""
    by_rule: dict[tuple[str, str], list[Any]] = {}
    for finding in report.findings:
        by_rule.setdefault((finding.severity, finding.rule), []).append(finding)
    if not by_rule:
        return
    console.print()
    console.print("Findings")
    for (severity, rule), findings in by_rule.items():
        first, *others = findings
        where = f"{first.layer}: " if first.layer else ""
        console.print(f"{severity} {rule}: {where}{first.text}{_also(others)}")


def _also(others: "Sequence[Any]") -> str:
    """Return which other layers there is a finding of."""
    if not others:
        return ""
    names = [finding.layer or "the whole" for finding in others]
    if len(names) <= _MOST_NAMED:
        return f" Also {', '.join(names)}."
    return f" Also {', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more."
