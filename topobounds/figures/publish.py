"""How the figures look, and how they become files."""

import io
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from topobounds._files import write_whole
from topobounds.figures.record import FigureRecord

_TEXT_WIDTH = 6.0
"""Width of the paper's text in inches; figures are made at this size, so that no font is scaled."""

_STYLE: dict[Any, Any] = {
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

_CAPTION_SIZE = 7.5
CAPTION_COLUMNS = 136
"""Characters of a caption's line at `_CAPTION_SIZE` on `_TEXT_WIDTH`."""
SHORTEST_LAST_LINE = 24
"""Characters that the last line of a caption should have."""


@contextmanager
def style() -> Iterator[None]:
    """Let figures look as the project's do for the length of a ``with`` block, whatever the user's matplotlibrc says.

    Everything starts from matplotlib's own defaults, so that the same record gives the same bytes under every setting
    (``text.usetex``, ``savefig.dpi``...). The user's settings are back afterwards.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def new_figure(height: float) -> Figure:
    """Return an empty figure of the text's width, outside pyplot."""
    return Figure(figsize=(_TEXT_WIDTH, height), layout="constrained")


def add_caption(figure: Figure, caption: str) -> None:
    """Write a caption small beneath everything else; the layout makes room for it."""
    lines = "\n".join(caption_lines(caption))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=_CAPTION_SIZE, color="0.25", linespacing=1.25)


def caption_lines(caption: str) -> list[str]:
    """Return the lines of a caption, no word or two left alone on the last one where a little narrower lines avoid it.

    Parameters
    ----------
    caption : str
        One paragraph.

    Examples
    --------
    >>> [len(line) for line in caption_lines("word " * 28 + "end.")]
    [119, 24]
    """
    wrapped = [textwrap.wrap(caption, CAPTION_COLUMNS - less, break_on_hyphens=False) for less in range(20)]
    good = (lines for lines in wrapped if len(lines) == 1 or len(lines[-1]) >= SHORTEST_LAST_LINE)
    return next(good, wrapped[0])


def write_numbers(record: FigureRecord, folder: Path) -> list[Path]:
    """Write the numbers behind a figure into an existing folder, as CSV and JSON, and return the two files."""
    texts = {"csv": record.csv(), "json": record.json()}
    return [write_whole(folder / f"{record.name}.{kind}", text) for kind, text in texts.items()]


def publish(
    draw: Callable[[FigureRecord], Figure],
    caption: str,
    record: FigureRecord,
    folder: Path,
    *,
    caption_drawn: bool = True,
) -> list[Path]:
    """Draw a record in the style of the project, and save it as PDF, PNG and caption text.

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
    caption_drawn : bool
        Whether the caption is written beneath the picture too, and not in its own file alone.

    Returns
    -------
    list of pathlib.Path
        The three files. No date, no machine and none of the user's settings of matplotlib is in them: the same record
        gives the same bytes with the same versions of matplotlib and numpy.
    """
    with style():
        figure = draw(record)
        if caption_drawn:
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
