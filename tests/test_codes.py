"""Codes of one byte, with scales or without: a report on them is that on the weights that they stand for."""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest

from topobounds._kernels import squares
from topobounds.analysis.fixed import looks_fixed
from topobounds.analysis.reports import layer_report
from topobounds.chance import magnitudes
from topobounds.chance.magnitudes import largest_magnitudes
from topobounds.layers import Conv, Dense
from topobounds.topology import moments, spanning
from topobounds.topology.moments import weight_moments
from topobounds.weights import ScaledWeights, non_zero

FLOATS = [
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2fnuz,
    ml_dtypes.float8_e3m4,
    ml_dtypes.float8_e4m3b11fnuz,
    ml_dtypes.float8_e4m3,
]
SHARED = {  # sides of the blocks that share a scale, of a matrix of 300 by 520
    "tensor": (300, 520),
    "row": (1, 520),
    "column": (300, 1),
    "group": (1, 32),
    "block": (128, 128),
    "odd block": (7, 50),
}
SHAPE = (300, 520)


@pytest.fixture(autouse=True)
def as_large_layers(monkeypatch):
    """Every matrix is read as large ones are: by the kernels, in several chunks, and not sorted as a whole."""
    for module, name, value in [
        (moments, "_CHUNK", 2**14),
        (moments, "_TASK", 2**14),
        (moments, "_FEW_CODES", 0),
        (moments, "_CODES_OF_A_TABLE", 1),
        (moments, "_LEAST_WIDTH", 1),
        (magnitudes, "SORTED_CELLS", 0),
        (magnitudes, "_CHUNK", 10_000),
        (spanning, "_SCALED_CELLS", 0),
    ]:
        monkeypatch.setattr(module, name, value)
    for module in (moments, spanning):
        monkeypatch.setattr(module._NUMPY_BUDGET, "affords", lambda cells: False)


def random_codes(dtype, shape, seed, zeros=0.0):
    """Return codes of normal weights, some of them zero: as far up as the type goes."""
    rng = np.random.default_rng(seed)
    most = 128.0 if dtype == np.int8 else float(ml_dtypes.finfo(dtype).max)
    values = np.clip(rng.standard_normal(shape) / 3.5, -1, 1) * most
    least = -128 if dtype == np.int8 else -most
    values = np.clip(np.where(rng.random(shape) < zeros, 0, values), least, 127 if dtype == np.int8 else most)
    codes = (np.rint(values) if dtype == np.int8 else values).astype(dtype)
    codes[np.isnan(codes.astype(np.float32))] = 0
    return codes


def random_scale(shape, sides, seed):
    n_scales = [-(-side // step) for side, step in zip(shape, sides, strict=True)]
    scale = np.exp(np.random.default_rng(seed).standard_normal(n_scales)) * 1e-3
    return scale.astype(np.float32) * np.where(np.arange(scale.size).reshape(scale.shape) % 3, 1, -1)


def scaled(dtype, sides, seed, zeros=0.0, shape=SHAPE):
    return ScaledWeights(random_codes(dtype, shape, seed, zeros), random_scale(shape, sides, seed), sides)


def same_moments(weights, expected):
    rms = math.sqrt(math.fsum(np.square(expected.astype(np.float64)).ravel()) / expected.size)
    for looks_up in {False, squares.LOOKS_UP_BYTES}:
        with patch.object(squares, "LOOKS_UP_BYTES", looks_up):
            found = weight_moments(weights)
        assert found.nonzero == np.count_nonzero(expected)
        assert found.rms == pytest.approx(rms, rel=1e-14)


def same_reports(weights, expected, layer, **options):
    """Every field is the same, bit for bit, but for the last digits of the root mean square, and the dtype."""
    found, known = (layer_report("a", each, layer, trials=4, seed=0, **options) for each in (weights, expected))
    assert found.rms == pytest.approx(known.rms, rel=1e-14)
    assert replace(found, rms=0.0, dtype="").to_dict() == replace(known, rms=0.0, dtype="").to_dict()


@pytest.mark.parametrize("share", SHARED)
@pytest.mark.parametrize(
    "dtype", [np.int8, *FLOATS[:3], *(pytest.param(f, marks=pytest.mark.long) for f in FLOATS[3:])]
)
def test_moments_and_the_largest_magnitudes(dtype, share):
    for seed, zeros in enumerate([0.0, 0.3]):
        weights = scaled(dtype, SHARED[share], seed, zeros)
        expected = np.asarray(weights)
        same_moments(weights, expected)
        same_moments(weights.T, expected.T)
        assert np.array_equal(non_zero(weights), expected != 0)
        for wanted in (300, 5000):
            assert np.array_equal(largest_magnitudes(weights, wanted), largest_magnitudes(expected, wanted))
            assert np.array_equal(largest_magnitudes(weights.T, wanted), largest_magnitudes(expected.T.copy(), wanted))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, *FLOATS])
def test_without_scales(dtype):
    codes = random_codes(np.int8, SHAPE, 0, 0.1).view(np.uint8) if dtype == np.uint8 else random_codes(dtype, SHAPE, 0)
    for given in (codes, codes.T, codes[::2, ::3]):
        expected = given.astype(np.float64)
        same_moments(given, expected)
        for wanted in (300, 5000):
            assert np.array_equal(largest_magnitudes(given, wanted), largest_magnitudes(expected, wanted))
    same_reports(codes, codes.astype(np.float64), Dense(*SHAPE))


@pytest.mark.parametrize("width", [1, 3, 63, 64, 65, 255, 256, 257, 600])
@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.float8_e4m3fn])
def test_moments_of_lines_of_every_length(dtype, width):
    weights = scaled(dtype, (2, 5), 0, 0.1, (130, width))
    same_moments(weights, np.asarray(weights))


@pytest.mark.parametrize("shape", [(2**20,), (2**20, 1), (2**19, 2), (2**15, 32), (2**13, 95)])
def test_as_many_equal_squares_as_there_may_be_in_one_sum(shape):
    """Each addition to a sum that grows without end would be rounded the same way."""
    weights = ScaledWeights(np.full(shape, 77, np.int8), np.float32(0.1))
    same_moments(weights, np.asarray(weights))


@pytest.mark.parametrize("dtype", [np.int8, *FLOATS])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-42, 1e-38, 1e37])
def test_products_at_the_ends_of_float32(dtype, size):
    scale = np.full((300, 1), 0.5, np.float32)
    scale[5:200] = size
    weights = ScaledWeights(random_codes(dtype, SHAPE, 0, 0.1), scale)
    with np.errstate(over="ignore"):
        expected = np.asarray(weights)
    assert np.array_equal(non_zero(weights), expected != 0)
    if np.isfinite(expected).all():
        same_moments(weights, expected)
        assert np.array_equal(largest_magnitudes(weights, 500), largest_magnitudes(expected, 500))


@pytest.mark.parametrize("dtype", FLOATS)
def test_weights_far_below_the_largest_of_their_type(dtype):
    """Their squares are less than a table of the squares of the type tells apart."""
    codes = np.random.default_rng(0).integers(0, 4, SHAPE, np.uint8).view(dtype)
    codes[250, :] = ml_dtypes.finfo(dtype).max
    weights = ScaledWeights(codes, random_scale(SHAPE, (128, 128), 0), (128, 128))
    for given in (weights, ScaledWeights(codes[:250], weights.scale[:2], (128, 128))):
        same_moments(given, np.asarray(given))


@pytest.mark.skipif(sys.platform != "linux" or "NUMBA_CPU_FEATURES" in os.environ, reason="nobody tells what it can")
def test_bytes_are_looked_up_where_the_processor_does():
    does = "avx512vbmi" in Path("/proc/cpuinfo").read_text().split()
    assert does == squares.LOOKS_UP_BYTES


@pytest.mark.skipif(not squares.LOOKS_UP_BYTES, reason="this processor looks up no 64 bytes at once")
def test_what_no_look_up_reaches_is_added_up_apart(monkeypatch):
    """A million small squares, each added to the sum of the large ones, would all be rounded alike."""
    monkeypatch.setattr(moments, "_TASK", 2**21)
    codes = np.full((16_000, 127), 200, ml_dtypes.float8_e4m3fn)
    weights = ScaledWeights(codes, np.float32([[0.3, 0.003]]), (16_000, 64))
    rms = math.sqrt(math.fsum(np.square(np.asarray(weights).astype(np.float64)).ravel()) / codes.size)
    assert weight_moments(weights).rms == pytest.approx(rms, rel=1e-14)


def test_every_code_of_every_type():
    for dtype in [np.int8, *FLOATS]:
        every = np.arange(256, dtype=np.uint8).view(dtype)
        every = np.tile(every[np.isfinite(every.astype(np.float32))], (4, 30))
        weights = ScaledWeights(every, np.float32([[0.3], [0.7], [1e-5], [3.0]]))
        same_moments(weights, np.asarray(weights))


@pytest.mark.parametrize("dtype", FLOATS)
def test_moments_of_codes_that_are_not_finite_are_not_finite(dtype):
    for place in [(0, 0), (299, 519), (150, 515)]:
        codes = random_codes(dtype, SHAPE, 0)
        codes[place] = np.nan
        if np.isnan(codes[place].astype(np.float32)):
            assert not math.isfinite(weight_moments(ScaledWeights(codes, 0.5)).rms)
            with pytest.raises(ValueError, match=f"row {place[0]}, column {place[1]}: nan"):
                layer_report("a", ScaledWeights(codes, 0.5), Dense(*SHAPE), seed=0)


@pytest.mark.parametrize("share", SHARED)
@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_a_report_on_codes_is_that_on_their_weights(dtype, share):
    for seed, zeros in enumerate([0.0, 0.4]):
        weights = scaled(dtype, SHARED[share], seed, zeros)
        same_reports(weights, np.asarray(weights), Dense(*SHAPE))


def test_a_report_on_small_layers_and_on_zeros():
    rng = np.random.default_rng(0)
    for _ in range(8):
        m, n = rng.integers(1, 12, 2)
        codes = rng.integers(-2, 3, (m, n)).astype(np.int8)
        weights = ScaledWeights(codes, rng.random((m, 1)).astype(np.float32))
        same_reports(weights, np.asarray(weights), Dense(int(m), int(n)))
    zeros = ScaledWeights(np.zeros(SHAPE, np.int8), np.ones((300, 1), np.float32))
    same_reports(zeros, np.asarray(zeros), Dense(*SHAPE))


@pytest.mark.parametrize("sides", [(12, 8, 3, 3), (1, 8, 3, 3), (1, 4, 3, 3)])
@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.float8_e4m3fn])
def test_a_report_on_kernels(dtype, sides):
    weights = scaled(dtype, sides, 0, 0.1, (12, 8, 3, 3))
    conv = Conv(8, 12, (3, 3), (10, 10), padding=1)
    same_reports(weights, np.asarray(weights), conv, kind="conv")
    same_reports(weights, np.asarray(weights), None, kind="conv")


def test_a_table_of_sinusoids_is_told_from_its_codes():
    angles = np.outer(np.arange(1, 25), np.arange(64)) * 2 * np.pi / 64
    codes = np.rint(np.cos(angles) * 127).astype(np.int8)
    weights = ScaledWeights(codes, np.full((24, 1), 0.01))
    assert looks_fixed("a", weights) == looks_fixed("a", np.asarray(weights))
