"""The help of every command: calls that can be copied, and nothing cut."""

import shlex

import click
import pytest

from topobounds.cli.group import cli

CONTEXT = click.Context(cli, info_name="topobounds")


def commands(group=cli, context=CONTEXT):
    """Yield every command with its context, those of other packages too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield command, inner


ALL = [(inner.command_path, command, inner) for command, inner in commands()]


@pytest.mark.parametrize(("path", "command", "context"), ALL, ids=[path for path, *_ in ALL])
def test_a_command_shows_two_calls_that_it_understands(path, command, context):
    examples = getattr(command, "examples", ())
    assert len(examples) >= 2
    assert all(f"  {example}\n" in command.get_help(context) + "\n" for example in examples)
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])
        own = path.split()
        assert words[: len(own)] == own
        options = [word.partition("=")[0] for word in words[len(own) :] if word.startswith("--")]
        known = {option for param in command.params for option in param.opts}
        assert set(options) <= known


@pytest.mark.parametrize(("path", "command", "context"), ALL, ids=[path for path, *_ in ALL])
def test_every_option_says_what_it_is(path, command, context):
    for param in command.params:
        if isinstance(param, click.Option) and not param.is_flag:
            assert param.help or isinstance(param.type, click.Choice), f"{path} {param.opts[0]}"


def test_no_summary_in_the_list_of_commands_is_cut():
    assert "..." not in cli.get_help(CONTEXT).partition("Commands:")[2]
