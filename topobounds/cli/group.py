"""The group of commands, and how a run of one ends."""

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from topobounds._text import printable
from topobounds.cli.analyze import analyze
from topobounds.cli.arguments import option_names_in
from topobounds.cli.collapse import collapse
from topobounds.cli.compare import compare
from topobounds.cli.compression import compression
from topobounds.cli.doctor import doctor
from topobounds.cli.overlap import overlap
from topobounds.cli.preview import preview
from topobounds.cli.prune import prune
from topobounds.cli.sweep import sweep
from topobounds.cli.verify import verify

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_USAGE_ERROR = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 1
_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What the system says without a name is said of stdout: errors of files name the file."""
_LONGEST_SUMMARY = 200  # characters
WORDS = "topobounds.words"  # of the command line, in click's context


class Commands(click.Group):
    """The commands of this folder, and those that other packages register as ``topobounds.commands`` entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted({*super().list_commands(ctx), *_plugins()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command of our own or, failing that, load the plug-in of that name."""
        command = super().get_command(ctx, name)
        if command is None and name in (plugins := _plugins()):
            command = plugins[name].load()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every command with the whole of its first sentence, which click would cut."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(_LONGEST_SUMMARY)) for name, command in found if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words that were typed, and go on."""
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what is wrong with an argument is said of the option, if the user typed it."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            commands = command.commands.values() if isinstance(command, click.Group) else [command] if command else []
            typed = {word.partition("=")[0] for word in ctx.meta[WORDS]}
            params = [param for each in commands for param in each.params]
            message = option_names_in(str(error), params, typed)
            if message == str(error):
                raise
            raise ValueError(message) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="topobounds", message="%(prog)s %(version)s")
def cli() -> None:
    """Zeroth-order topology of neural network layers, and what magnitude pruning keeps of it."""


for command in (overlap, compression, collapse, verify, analyze, compare, preview, prune, doctor, sweep):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process: errors are one line on stderr and exit status 2."""
    _write_in_any_encoding()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a cache of fonts that cannot be kept is no news
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        status = _run(words)
        _flush_output()
    except (click.Abort, KeyboardInterrupt):
        _leave("Interrupted.", _INTERRUPTED)
    except click.ClickException as error:
        _leave(f"Error: {error.format_message()}", _USAGE_ERROR)
    except BrokenPipeError:
        _discard_output()  # whoever read it has seen enough
        sys.exit(_BROKEN_PIPE)
    except (ValueError, OSError, ArithmeticError, MemoryError, RecursionError, ImportError) as error:
        _leave(f"Error: {_reason(error)}", _USAGE_ERROR)
    sys.exit(status if isinstance(status, int) else 0)


def _run(words: list[str]) -> Any:
    """Return what the command returns; a group of commands without one is a question for help."""
    try:
        return cli.main(words, prog_name="topobounds", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0


def _write_in_any_encoding() -> None:
    """Let characters that an output's encoding does not have be escaped, as Python does on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _reason(error: Exception) -> str:
    """Return what is wrong: the file, where the system says no more than that, and never nothing."""
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or ("stdout" if error.errno in _OF_OUTPUT else "")
        return f"{where}: {error.strerror}." if where else f"{error.strerror}."
    nameless = "There is not enough memory." if isinstance(error, MemoryError) else type(error).__name__
    return str(error) or nameless


def _leave(message: str, status: int) -> None:
    with suppress(OSError):  # where there is no room for it either, the status says it alone
        click.echo(printable(" ".join(message.split())), err=True)
    _discard_output()
    sys.exit(status)


def _flush_output() -> None:
    """Put what was printed where it goes; OSError if that has no room for it."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _discard_output() -> None:
    """Let go what could not be printed, so that Python does not try again when the process ends."""
    try:
        _flush_output()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plugins() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {plugin.name: plugin for plugin in entry_points(group="topobounds.commands")}
