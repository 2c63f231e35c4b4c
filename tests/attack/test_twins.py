"""Kernels run as plain Python, every index checked: `tests.attack.twins`."""

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest

from tests.attack import differential, mutation, twins
from topobounds import ScaledWeights
from topobounds.chance import magnitudes
from topobounds.topology import moments

is_python = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0"), reason="kernels are compiled")


@pytest.fixture(params=[1, 2**20])
def codes_of_a_table(request, monkeypatch):
    """From how many codes with one scale on their squares are looked up: always, and never."""
    monkeypatch.setattr(moments, "_CODES_OF_A_TABLE", request.param)
    monkeypatch.setattr(moments, "_LEAST_WIDTH", 1)


@pytest.mark.long
@pytest.mark.skipif(not is_python.args[0], reason="they are run as they are")
def test_these_tests_pass_where_kernels_are_python():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", "0", __file__]
    command += ["-k", "not these_tests"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "28 passed" in done.stdout


@is_python
def test_forests_masks_and_kernels_are_those_of_others():
    counts = Counter()
    with twins.installed(), differential.counted(counts), patch.object(differential, "BLOCK", 60):
        for block in range(8):
            assert differential.run_block(9, block, counts) == []
    assert all(counts[f"path {part}"] for part in [*differential.PATHS, "collect_scaled"])


@is_python
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int8", "float8_e4m3fn"])
@pytest.mark.usefixtures("codes_of_a_table")
def test_magnitudes_and_moments_are_those_of_numpy(dtype):
    rng = np.random.default_rng(8)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    with twins.installed(), patch.object(magnitudes, "SORTED_CELLS", 0), patch.object(magnitudes, "BINNED_CELLS", 700):
        for m, n in [(20, 30), (31, 33), (9, 300), (40, 64)]:
            values = (rng.standard_normal((m, n)) * 30 * (rng.random((m, n)) < 0.8)).astype(kind)
            scales = (rng.random((m, 1)) + 0.1, 1e-44 * (rng.random((m, 1)) < 0.5))  # products that underflow, and 0
            given = [values, *(ScaledWeights(values, scale) for scale in scales if kind.itemsize == 1)]
            for weights in given:
                sizes = np.abs(np.asarray(weights).astype(np.float64))
                largest = magnitudes.largest_magnitudes(weights, 40)
                expected = np.sort(sizes, axis=None)[::-1][: np.count_nonzero(sizes)]
                np.testing.assert_array_equal(largest, expected[: largest.size])
                assert largest.size >= min(20, expected.size)
                found = moments.weight_moments(weights)
                assert found.nonzero == np.count_nonzero(sizes)
                rms = math.sqrt(math.fsum((sizes**2).ravel()) / sizes.size)
                assert found.rms == pytest.approx(rms, rel=1e-14 if rms > 1e-40 else 1e-6)


@is_python
@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
@pytest.mark.usefixtures("codes_of_a_table")
def test_moments_of_codes_whose_scales_change_in_the_midst_of_lines(dtype, monkeypatch):
    rng = np.random.default_rng(8)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    for shape, block, task in [
        ((7, 300), (3, 70), 10**6),
        ((40, 129), (40, 64), 10**6),
        ((37, 260), (2, 260), 1000),
        ((5, 64), (1, 1), 100),
        ((3, 600), (3, 520), 10**6),
    ]:
        monkeypatch.setattr(moments, "_TASK", task)
        sides = tuple(-(-side // step) for side, step in zip(shape, block, strict=True))
        codes = (rng.standard_normal(shape) * 30 * (rng.random(shape) < 0.8)).astype(kind)
        for scale in (10.0 ** rng.uniform(-3, 2, sides), np.where(rng.random(sides) < 0.5, 1e-42, 1.0)):
            weights = ScaledWeights(codes, scale.astype(np.float32), block)
            values = np.asarray(weights).astype(np.float64)
            with twins.installed():
                found = moments.weight_moments(weights)
            assert found.nonzero == np.count_nonzero(values)
            assert found.rms == pytest.approx(math.sqrt(math.fsum((values**2).ravel()) / values.size), rel=1e-14)


@is_python
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
@pytest.mark.usefixtures("codes_of_a_table")
def test_one_code_that_is_not_finite_is_met_wherever_it_stands(dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype))
    for place in (0, 70, 255, 256, 299, 300, 1799):
        codes = np.full(1800, 200, kind)  # near the largest, so that a table tells it from its neighbours
        codes[place] = np.nan
        with twins.installed():
            sums = moments._nonzero_and_squares_of_codes(ScaledWeights(codes.reshape(6, 300), np.ones((2, 5)), (3, 64)))
        assert math.isnan(sums[1])


def test_every_module_that_is_changed_has_tests_to_notice():
    for room in mutation.SHARES:
        for module in mutation.modules(room):
            assert any(file.startswith("tests/") for file in mutation.tests_of(str(module))), module
