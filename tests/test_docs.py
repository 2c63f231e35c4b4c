"""What the README shows is what the commands print, and what it names is there."""

import doctest
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from tests.command_line import topobounds
from topobounds.analysis.comparison import LayerComparison
from topobounds.pruning.report import PrunedLayer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ANALYZE = (ROOT / "docs" / "analyze.md").read_text()
PRUNE = (ROOT / "docs" / "prune.md").read_text()
(WIDTH,) = set(re.findall(r"a terminal of (\d+) columns", README + ANALYZE + PRUNE))
FILES = re.compile(r"\w+\.(pth|th|npz|safetensors)\b")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def shown(page: str) -> list[tuple[str, str, str]]:
    return [block.removeprefix("$ ").partition("\n") for block in blocks("console", page)]


SHOWN = [*shown(README), *shown(ANALYZE)]
COMMANDS = [(command, output) for command, _, output in SHOWN if command.startswith("topobounds")]


@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_a_page_shows(command, output, tmp_path, monkeypatch, request):
    monkeypatch.setenv("COLUMNS", WIDTH)
    folder = tmp_path
    if FILES.search(command):  # of a published network, in the folder that TOPOBOUNDS_DATA names
        folder = request.getfixturevalue("data_dir") / "checkpoints"
    monkeypatch.chdir(folder)
    assert_prints(command, output)


def assert_prints(command, output):
    run = topobounds(*shlex.split(command)[1:])
    assert run.returncode == 0, run.stderr
    assert [line.rstrip() for line in run.stdout.splitlines()] == output.splitlines()


def test_the_page_about_pruning_shows_what_its_commands_print_of_the_file_that_it_makes(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", WIDTH)
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python", PRUNE)
    exec(compile(example, "docs/prune.md", "exec"), {})
    commands = [(command, output) for command, _, output in shown(PRUNE)]
    assert len(commands) == 4
    for command, output in commands:  # each of what those before it wrote
        assert_prints(command, output)


@pytest.mark.parametrize(("layer", "section"), [(PrunedLayer, "prune"), (LayerComparison, "compare")])
def test_every_key_of_a_layer_stands_on_the_page_about_pruning(layer, section):
    text = PRUNE.partition(f"## The columns of `topobounds {section}`")[2].partition("\n## ")[0]
    assert {field.name for field in fields(layer) if f"`{field.name}`" not in text} == set()


def test_the_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = [command.split()[1] for command, _, _ in SHOWN if command.startswith("make")]
    assert named
    assert set(named) <= set(targets)


def test_the_python_example_runs():
    (example,) = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(example, {}, "README", "README.md", 0)
    assert len(test.examples) == 10
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/analyze.md", "docs/prune.md"])
def test_links_and_paths_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert all(((ROOT / page).parent / link.partition("#")[0]).exists() for link in links)
    table = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in text.splitlines() if row.startswith("| `to")]
    folder = ROOT
    for names in table:
        for name in names:
            folder = ROOT if "/" in name or (ROOT / name).exists() else ROOT / "topobounds"
            assert (folder / name).exists()
