"""Table 1 (section 4.1): critical compression ratios of the paper's networks, printed, computed and corrected."""

import string
from pathlib import Path

from rich.table import Table

from paper_figures.settings import Settings
from topobounds._files import write_whole
from topobounds.figures.record import FigureRecord, provenance
from topobounds.theory.table1 import Table1Row, decimals, table1

TRAINS = False
OPTIONS = ()

COLUMNS = ("architecture", "dataset", "part", "printed", "computed", "corrected")
NAMES = {
    "vgg11": "VGG11",
    "resnet18": "ResNet-18",
    "resnet20": "ResNet-20",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny-ImageNet",
}
HEADER = ("Network", "Data set", "Part", "Printed", "Computed", "Corrected")
_MARKS = string.ascii_lowercase
LEGEND = (
    "Critical compression ratio eta_tau of the convolutional layers, the dense layers and all layers. "
    "Computed: by the convention of the printed table. Corrected: at the network's true activations, where they differ."
)


def measure(settings: Settings) -> FigureRecord:
    """Return the 18 numbers of Table 1; `notes` holds the footnote of each row, or an empty text."""
    rows = table1()
    cells = tuple(_cells(row) for row in rows)
    return FigureRecord(
        "table1", provenance("topobounds figures table1"), COLUMNS, cells, tuple(row.note for row in rows)
    )


def render(record: FigureRecord, folder: Path, *, caption_drawn: bool = True) -> list[Path]:
    """Write the table as Markdown and as LaTeX (booktabs), footnotes marked; there is no picture for a caption."""
    return [write_whole(folder / "table1.md", markdown(record)), write_whole(folder / "table1.tex", latex(record))]


def show(record: FigureRecord) -> tuple[Table, list[str]]:
    """Return the table for the terminal, and its footnotes."""
    rows, footnotes = printed_rows(record)
    table = Table(*HEADER, "", box=None, pad_edge=False, header_style="bold", title="Table 1", title_justify="left")
    for column in table.columns[3:6]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    return table, [f"{mark} {note}" for mark, note in zip(_MARKS, footnotes, strict=False)]


def printed_rows(record: FigureRecord) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows as they are read, and the footnotes.

    Returns
    -------
    rows : list of tuple of str
        Network, data set, part, printed, computed and corrected with as many decimals as are printed, and last the
        footnote's mark or "".
    footnotes : list of str
        Their texts; the mark of the first is "a".
    """
    footnotes = list(dict.fromkeys(note for note in record.notes if note))
    marks = dict(zip(footnotes, _MARKS, strict=False))
    rows = []
    for (network, dataset, part, printed, *values), note in zip(record.rows, record.notes, strict=True):
        places = decimals(str(printed))
        digits = ["" if value is None else f"{value:.{places}f}" for value in values]
        rows.append((NAMES[str(network)], NAMES[str(dataset)], str(part), str(printed), *digits, marks.get(note, "")))
    return rows, footnotes


def markdown(record: FigureRecord) -> str:
    """Return the table in GitHub's Markdown."""
    rows, footnotes = printed_rows(record)
    lines = [_pipes(HEADER), _pipes(["---"] * 3 + ["---:"] * 3)]
    lines += [_pipes([*row[:3], f"{row[3]} <sup>{row[6]}</sup>" if row[6] else row[3], *row[4:6]]) for row in rows]
    notes = [f"<sup>{mark}</sup> {note}" for mark, note in zip(_MARKS, footnotes, strict=False)]
    return "\n".join([f"**Table 1.** {LEGEND}", "", *lines, "", "  \n".join(notes), ""])


def latex(record: FigureRecord) -> str:
    """Return the table in LaTeX; the document needs the booktabs package."""
    rows, footnotes = printed_rows(record)
    lines = []
    for *cells, printed, computed, corrected, mark in rows:
        marked = printed + (rf"\rlap{{\textsuperscript{{{mark}}}}}" if mark else "")
        lines += [r"\midrule"] if cells[2] == "CONV" else []
        lines.append(" & ".join([*cells, marked, computed, corrected]) + r" \\")
    notes = [rf"\textsuperscript{{{mark}}} {note}" for mark, note in zip(_MARKS, footnotes, strict=False)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{" + LEGEND.replace("eta_tau", r"$\eta_\tau$") + "}",
            r"\label{tab:critical-compression-ratios}",
            r"\begin{tabular}{lllrrr}",
            r"\toprule",
            " & ".join(HEADER) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\smallskip",
            r"\begin{minipage}{0.8\linewidth}\footnotesize",
            " \\\\\n".join(notes),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _cells(row: Table1Row) -> tuple[str | float | None, ...]:
    corrected = None if row.corrected is None else float(row.corrected)
    return row.architecture, row.dataset, row.part, row.printed, float(row.computed), corrected


def _pipes(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
