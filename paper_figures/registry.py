"""The figures there are: name -> the module that makes it.

What a module has is said by `FigureModule`; one with a function ``show(record)`` also has something for the terminal,
which rich prints. To add a figure, write a module and name it here.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from paper_figures.settings import Settings
    from topobounds.figures.record import FigureRecord

FIGURES = {
    "table1": "paper_figures.table1",
    "figure1": "paper_figures.figure1",
    "figure1_null": "paper_figures.figure1_null",
    "figure2": "paper_figures.figure2",
    "figure3": "paper_figures.figure3",
    "figure3_expected": "paper_figures.figure3_expected",
    "bounds": "paper_figures.bounds",
    "retention": "paper_figures.retention",
    "corollary_3_4": "paper_figures.corollary_3_4",
    "compression": "paper_figures.compression",
    "t_imp": "paper_figures.t_imp",
}

ONLY_NAMED = frozenset({"t_imp"})
"""Figures that train for minutes more: made when they are named, not with all the others."""


class FigureModule(Protocol):
    """What a figure's module has."""

    TRAINS: bool
    """Whether `measure` needs trained nets, and so torch."""
    OPTIONS: tuple[str, ...]
    """The command's options that the figure depends on, by the names of their parameters."""

    def measure(self, settings: "Settings") -> "FigureRecord":
        """Return the numbers behind the figure."""

    def render(self, record: "FigureRecord", folder: Path, *, caption_drawn: bool = True) -> list[Path]:
        """Write the pictures of a record (for a table: its texts) into an existing folder and return the files.

        With `caption_drawn` the caption stands beneath the picture, too.
        """


def figure_module(name: str) -> FigureModule:
    """Return the module of a figure; `name` is one of `FIGURES`."""
    return cast(FigureModule, import_module(FIGURES[name]))
