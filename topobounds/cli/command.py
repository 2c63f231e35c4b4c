"""A command whose help ends with calls to copy."""

from collections.abc import Sequence
from typing import Any

import click


class CommandWithExamples(click.Command):
    """A command whose help ends with calls to copy.

    Parameters
    ----------
    examples : sequence of str
        Whole lines.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, a line each."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
