"""The bridge on a device that is not the CPU, on machines that have none: a simulated one, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_bridge_on_a_simulated_accelerator():
    options = ["-n", "0", "--no-header", "-p", "no:cacheprovider", "-W", "ignore"]
    command = [sys.executable, "-m", "pytest", *options, "tests/torch_bridge/on_accelerator.py"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout
    assert " skipped" not in found.stdout
