"""What the figures' tests share."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from topobounds.cli import main; main(sys.argv[1:])"


def figures_without_torch(*arguments):
    """Run ``topobounds figures`` as a process that finds no torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, "figures", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


SOME = ("table1", "figure2", "bounds")


def _drawn_from_records(folder, *names):
    """Draw figures in a process of their own from the records that come with the package."""
    run = figures_without_torch(*names, "--from-records", "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder, run


@pytest.fixture(scope="session")
def from_records(tmp_path_factory):
    """Return the folder of all figures drawn from the records that come with the package, and how that run ended."""
    return _drawn_from_records(tmp_path_factory.mktemp("from-records"))


@pytest.fixture(scope="session")
def some_from_records(tmp_path_factory):
    """Return the same of a few of them."""
    return _drawn_from_records(tmp_path_factory.mktemp("some-from-records"), *SOME)
