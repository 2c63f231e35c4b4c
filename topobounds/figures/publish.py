"""How the figures look, and how they become files."""

import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from topobounds._files import write_whole
from topobounds.figures.record import FigureRecord

TEXT_WIDTH = 6.0
"""Width of the paper's text in inches; figures are made at this size, so that no font is scaled."""

STYLE: dict[Any, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.2,
    "legend.labelspacing": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "pdf.fonttype": 42,
    "figure.dpi": 300,
    "text.hinting": "none",
}

CAPTION_SIZE = 7.5
CAPTION_COLUMNS = 136
"""Characters of a caption's line at `CAPTION_SIZE` on `TEXT_WIDTH`."""


def new_figure(height: float) -> Figure:
    """Return an empty figure of the text's width, outside pyplot."""
    return Figure(figsize=(TEXT_WIDTH, height), layout="constrained")


def add_caption(figure: Figure, caption: str) -> None:
    """Write a caption small beneath everything else; the layout makes room for it."""
    lines = textwrap.fill(caption, CAPTION_COLUMNS, break_on_hyphens=False)
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=CAPTION_SIZE, color="0.25", linespacing=1.25)


def write_numbers(record: FigureRecord, folder: Path) -> list[Path]:
    """Write the numbers behind a figure into an existing folder, as CSV and JSON, and return the two files."""
    texts = {"csv": record.csv(), "json": record.json()}
    return [write_whole(folder / f"{record.name}.{kind}", text) for kind, text in texts.items()]


def publish(draw: Callable[[FigureRecord], Figure], caption: str, record: FigureRecord, folder: Path) -> list[Path]:
    """Draw a record in the style of the project with its caption beneath, and save it as PDF, PNG and caption text.

    Parameters
    ----------
    draw : callable
        Record to figure.
    caption : str
        One paragraph.
    record : FigureRecord
        What to draw.
    folder : pathlib.Path
        An existing folder.

    Returns
    -------
    list of pathlib.Path
        The three files. No date or machine is in them: the same record gives the same bytes.
    """
    with mpl.rc_context(STYLE):
        figure = draw(record)
        add_caption(figure, caption)
        images = {
            "pdf": _image(figure, "pdf", {"CreationDate": None, "Title": record.name}),
            "png": _image(figure, "png", {"Software": None}),
        }
    pictures = [write_whole(folder / f"{record.name}.{kind}", image) for kind, image in images.items()]
    return [*pictures, write_whole(folder / f"{record.name}.txt", caption + "\n")]


def _image(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata=metadata)
    return content.getvalue()
