"""The group of commands, and how a run of one ends."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from topobounds.cli.arguments import option_names_in
from topobounds.cli.collapse import collapse
from topobounds.cli.compression import compression
from topobounds.cli.overlap import overlap
from topobounds.cli.verify import verify

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

USAGE_ERROR = 2
INTERRUPTED = 130


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

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what is wrong with an argument is message of the option that the user typed."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            commands = command.commands.values() if isinstance(command, click.Group) else [command] if command else []
            message = option_names_in(str(error), [param for each in commands for param in each.params])
            if message == str(error):
                raise
            raise ValueError(message) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="topobounds", message="%(prog)s %(version)s")
def cli() -> None:
    """Zeroth-order topology of neural network layers, and what magnitude pruning keeps of it."""


for command in (overlap, compression, collapse, verify):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process: errors are one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        status = cli.main(words, prog_name="topobounds", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit()
    except (click.Abort, KeyboardInterrupt):
        _leave("Interrupted.", INTERRUPTED)
    except click.ClickException as error:
        _leave(f"Error: {error.format_message()}", USAGE_ERROR)
    except (ValueError, OSError, ArithmeticError, MemoryError, RecursionError, ImportError) as error:
        _leave(f"Error: {_reason(error)}", USAGE_ERROR)
    sys.exit(status if isinstance(status, int) else 0)


def _reason(error: Exception) -> str:
    """Return what is wrong: the file, where the system says no more than that, and never nothing."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    nameless = "There is not enough memory." if isinstance(error, MemoryError) else type(error).__name__
    return str(error) or nameless


def _leave(message: str, status: int) -> None:
    click.echo(" ".join(message.split()), err=True)
    sys.exit(status)


def _plugins() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {plugin.name: plugin for plugin in entry_points(group="topobounds.commands")}
