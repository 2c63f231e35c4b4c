"""The largest magnitudes of a layer: as sorting says, whatever the type, the layout, the ties and the zeros."""

import ml_dtypes
import numpy as np
import pytest

from topobounds.chance import magnitudes
from topobounds.chance.magnitudes import BinnedMagnitudes, largest_magnitudes

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def sorted_magnitudes(matrix):
    values = np.sort(np.abs(matrix.astype(np.float64)).ravel())[::-1]
    return values[values > 0]


@pytest.fixture
def unsorted(monkeypatch):
    monkeypatch.setattr(magnitudes, "SORTED_CELLS", 0)
    monkeypatch.setattr(magnitudes, "_CHUNK", 1000)


def layers(dtype):
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((90, 70))
    some_zeros = np.where(rng.random((90, 70)) < 0.3, 0, normal)
    quantised = np.round(4 * normal)
    return [
        matrix.astype(dtype)
        for matrix in (normal, normal[::2, ::3], normal.T, some_zeros, quantised, np.ones((90, 70)), np.zeros((90, 70)))
    ]


@pytest.mark.parametrize("wanted", [1, 40, 500, 5000])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_largest_are_those_of_sorting(dtype, wanted, unsorted):
    for matrix in layers(dtype):
        values = sorted_magnitudes(matrix)
        largest = largest_magnitudes(matrix, wanted)
        assert largest.size >= min(wanted // 2, values.size)
        assert np.array_equal(largest, values[: largest.size])


def test_a_small_layer_is_sorted_as_a_whole():
    matrix = layers(np.float32)[3]
    assert np.array_equal(largest_magnitudes(matrix, 1), sorted_magnitudes(matrix))


@pytest.mark.parametrize("dtype", TYPES)
def test_bins_bound_every_magnitude(dtype, unsorted):
    for matrix in layers(dtype)[:-1]:
        values = sorted_magnitudes(matrix)
        ranks = np.arange(1, values.size + 1)
        below = BinnedMagnitudes(matrix).at_least(ranks)
        assert np.all(below <= values)
        assert np.all(below >= values * (1 - 1 / 128))


def test_bins_of_numbers_without_a_leading_bit_are_bounds_too():
    matrix = np.array([[5e-324, 1e-310], [2e-300, 1.0]])
    assert np.all(BinnedMagnitudes(matrix).at_least(np.arange(1, 5)) <= sorted_magnitudes(matrix))
