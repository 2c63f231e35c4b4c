"""The console of rich as the commands use it. Imported when a table or a bar is shown, for rich takes its time."""

from typing import Any

from rich.console import Console
from rich.text import Text

from topobounds._text import printable

_HEIGHT = 25  # which nothing depends on; with a height of its own, rich does not ask the terminal for both


class PlainConsole(Console):
    """A console to which a text is a text: without markup, and without what a terminal would obey."""

    def __init__(self, *, stderr: bool, width: int) -> None:
        super().__init__(stderr=stderr, width=width, height=_HEIGHT, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as rich prints it, control characters escaped."""
        return super().render_str(printable(text), **options)
