"""What the README shows is what the commands print, and what it names is there."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from tests.command_line import topobounds

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ANALYZE = (ROOT / "docs" / "analyze.md").read_text()
(WIDTH,) = set(re.findall(r"a terminal of (\d+) columns", README + ANALYZE))
FILES = re.compile(r"\w+\.(pth|th|npz|safetensors)\b")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


SHOWN = [block.removeprefix("$ ").partition("\n") for block in (*blocks("console"), *blocks("console", ANALYZE))]
COMMANDS = [(command, output) for command, _, output in SHOWN if command.startswith("topobounds")]


@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_a_page_shows(command, output, tmp_path, monkeypatch, request):
    monkeypatch.setenv("COLUMNS", WIDTH)
    folder = tmp_path
    if FILES.search(command):  # of a published network, in the folder that TOPOBOUNDS_DATA names
        folder = request.getfixturevalue("data_dir") / "checkpoints"
    monkeypatch.chdir(folder)
    run = topobounds(*shlex.split(command)[1:])
    assert run.returncode == 0, run.stderr
    assert [line.rstrip() for line in run.stdout.splitlines()] == output.splitlines()


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


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/analyze.md"])
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
