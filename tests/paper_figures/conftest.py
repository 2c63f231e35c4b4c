"""What the figures' tests share."""

import subprocess
import sys

import pytest

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from topobounds.cli import main; main(sys.argv[1:])"


def figures_without_torch(*arguments):
    """Run ``topobounds figures`` as a process that finds no torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, "figures", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def from_records(tmp_path_factory):
    """Return the folder of all figures drawn from the records that come with the package, and how that run ended."""
    folder = tmp_path_factory.mktemp("from-records")
    run = figures_without_torch("--from-records", "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder, run
