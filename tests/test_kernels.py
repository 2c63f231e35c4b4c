"""Kernels where numba cannot do what it does elsewhere: keep what it compiled, or compile at all."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

import topobounds
from topobounds import magnitude_mask, maximum_spanning_forest, simulate_overlap
from topobounds._kernels import compiled
from topobounds.topology import spanning_engine as engine

PACKAGE = Path(topobounds.__file__).parent
EVERY_KERNEL_FILE = """
import numpy as np, topobounds as tb
weights = np.random.default_rng(0).standard_normal((520, 520))
forest = tb.maximum_spanning_forest(np.tile(weights, (4, 4)))
mask = tb.magnitude_mask(np.tile(weights, (4, 4)), 1000)
overlap = tb.simulate_overlap(300_000, 300_000, trials=2, seed=1).mean
kernel = tb.critical_kernel_weights(weights[:4, :9].reshape(2, 2, 3, 3), tb.Conv(2, 2, (3, 3), (8, 8)))
print(forest.alpha, int(mask.sum()), round(overlap, 2), kernel.alpha)
"""


@pytest.mark.long
def test_kernels_do_without_a_cache_where_none_can_be_written(tmp_path):
    """Neither beside the package, where a file is in the way as on a read-only disk, nor at home, nor as told."""
    shutil.copytree(PACKAGE, tmp_path / "topobounds", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "topobounds" / "_kernels" / "__pycache__").touch()
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), "/proc/none")
    variables = {**os.environ, **nowhere, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERY_KERNEL_FILE],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=variables,
        cwd=tmp_path,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "4159 1000 0.84 199\n"


def _double(x):
    return 2 * x


@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "no")])
def test_a_full_disk_stops_no_kernel(monkeypatch, trouble):
    def fail(*_):
        raise trouble

    kernel = compiled(_double)
    monkeypatch.setattr(IndexDataCacheFile, "save", fail)
    monkeypatch.setattr(IndexDataCacheFile, "load", fail)
    assert (kernel(3), kernel(2.5)) == (6, 5.0)


@pytest.mark.parametrize("content", [b"", b"no pickle"])
def test_a_damaged_cache_stops_no_kernel(content):
    kernel = compiled(_double)
    Path(kernel._cache._cache_file._index_path).write_bytes(content)
    assert kernel(3) == 6


def test_numpy_does_the_work_where_numba_is_told_not_to_compile(monkeypatch):
    weights = np.random.default_rng(0).standard_normal((1100, 1000))
    expected = maximum_spanning_forest(weights)
    mask = magnitude_mask(weights, 5000)
    overlap = simulate_overlap(3000, 2000, trials=1000, seed=1).mean

    def fail(*_):
        raise AssertionError("a kernel was called")

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.setattr(engine, "spanning_edges", fail)
    monkeypatch.setattr("topobounds.montecarlo._compiled_ranks", fail)
    monkeypatch.setattr("topobounds.pruning.selection._mark_by_digits", fail)
    np.testing.assert_array_equal(maximum_spanning_forest(weights).ranks, expected.ranks)
    np.testing.assert_array_equal(magnitude_mask(weights, 5000), mask)
    assert simulate_overlap(3000, 2000, trials=1000, seed=1).mean == overlap
    with pytest.raises(ValueError, match="NUMBA_DISABLE_JIT"):
        simulate_overlap(2**20, 2**20, trials=1, seed=0)


def test_a_kernel_that_is_not_compiled_is_the_function_itself(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert compiled(_double) is _double
