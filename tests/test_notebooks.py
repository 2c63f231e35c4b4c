"""The notebooks run from top to bottom on what is embedded, and are saved without output."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


LONG = ("reading_a_checkpoint", "the_overlap_three_ways", "what_chance_explains")


def long_where_it_is(path):
    return pytest.param(path, marks=pytest.mark.long) if path.stem in LONG else path


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
    assert {path.stem for path in NOTEBOOKS} > set(LONG)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_saved_without_output(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own libraries
@pytest.mark.parametrize("path", [long_where_it_is(path) for path in NOTEBOOKS], ids=lambda p: p.stem)
def test_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads of small nets wait for each other where tests run side by side
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
