"""The command line: one file per command, and the only files of the package that print.

Numbers go to stdout (a table, or one JSON object with ``--json``), progress and errors to stderr. What a command
needs is imported inside it, so that ``topobounds --help`` loads no numerical library and a short answer comes at once.
"""

from topobounds.cli.group import main

__all__ = ["main"]
