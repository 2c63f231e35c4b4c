"""What may be given as weights: quantised ones with their scales."""

import ml_dtypes
import numpy as np
import pytest

from topobounds import ScaledWeights, maximum_spanning_forest

CODES = [
    np.int8,
    np.uint8,
    np.int16,
    np.float16,
    *(getattr(ml_dtypes, f"float8_{kind}") for kind in ("e4m3fn", "e5m2")),
]
CODES += [ml_dtypes.int4, ml_dtypes.uint4]


def random_case(rng):
    """Return weights of one to four axes with scales in blocks, and what they are, entry by entry."""
    shape = tuple(rng.integers(1, 7, rng.integers(1, 5)))
    codes = rng.integers(0, 8, shape).astype(CODES[rng.integers(len(CODES))])
    block = rng.integers(1, 5, len(shape)).tolist()
    sides = [1 if rng.random() < 0.4 else -(-side // step) for side, step in zip(shape, block, strict=True)]
    scale = rng.standard_normal(sides)
    places = np.indices(shape)
    index = tuple(p * (s > 1) // b for p, s, b in zip(places, sides, block, strict=True))
    return ScaledWeights(codes, scale, block), codes.astype(np.float32) * scale.astype(np.float32)[index]


def random_slice(rng, side):
    low, high = (None if rng.random() < 0.3 else int(rng.integers(0, side + 1)) for _ in range(2))
    return slice(low, high, rng.choice([None, 1, 2, -1]))


def test_scaled_weights_are_code_by_scale_in_float32_and_so_are_their_parts():
    rng = np.random.default_rng(0)
    for _ in range(500):
        weights, full = random_case(rng)
        assert (weights.shape, weights.size, weights.ndim) == (full.shape, full.size, full.ndim)
        index = tuple(random_slice(rng, side) for side in full.shape[: rng.integers(1, full.ndim + 1)])
        for part, expected in [
            (weights, full),
            (weights[index], full[index]),
            (weights.T, full.T),
            (weights.T[::-1].T, full.T[::-1].T),
            (weights.reshape(len(full), -1), full.reshape(len(full), -1)),
            (weights[index].reshape(-1), full[index].reshape(-1)),
        ]:
            array = np.asarray(part)
            assert array.dtype == part.dtype == np.float32
            assert np.array_equal(array, expected)


def test_a_scale_for_rows_columns_groups_blocks_or_all():
    codes = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    for scale, block, factor in [
        (2, None, np.full((3, 4), 2)),
        ([[1], [2], [3]], None, np.array([[1], [2], [3]])),
        ([[1, 2, 3, 4]], None, np.array([[1, 2, 3, 4]])),
        ([[1, 2], [3, 4], [5, 6]], 3, np.array([[1, 1, 1, 2], [3, 3, 3, 4], [5, 5, 5, 6]])),
        ([[1, 2], [3, 4]], (2, 3), np.array([[1, 1, 1, 2], [1, 1, 1, 2], [3, 3, 3, 4]])),
    ]:
        assert np.array_equal(np.asarray(ScaledWeights(codes, scale, block)), codes * factor)


def test_the_product_is_rounded_once_and_to_float32():
    codes = np.array([[127, 3]], np.int8)
    scale = 0.1
    assert np.array_equal(np.asarray(ScaledWeights(codes, scale)), codes.astype(np.float32) * np.float32(0.1))
    assert np.asarray(ScaledWeights(codes, scale), np.float64)[0, 0] == float(np.float32(127) * np.float32(0.1))
    with pytest.raises(ValueError, match="copy"):
        np.array(ScaledWeights(codes, scale), copy=False)


@pytest.mark.parametrize(
    ("codes", "scale", "block", "message"),
    [
        (np.ones((2, 3)), 1, None, "Argument 'codes' must be integers or floats of at most 16 bits, not 'float64'."),
        (np.ones((2, 3), bool), 1, None, "Argument 'codes' must be integers or floats"),
        (np.int8(3), 1, None, "Argument 'codes' must be an array with at least one axis"),
        (np.ones((2, 3), np.int8), [1, 2], None, "'scale' must be one number or an array with 2 axes, as the codes"),
        (np.ones((2, 3), np.int8), [[1], [2], [3]], None, "1 or 2 entries along an axis of 2 codes in blocks of 1"),
        (np.ones((2, 3), np.int8), "a", None, "Argument 'scale' must be an array of real numbers"),
        (np.ones((2, 3), np.int8), np.nan, None, "1 of its 1 entries are not, the first at row 0, column 0: nan."),
        (np.ones((2, 3), np.int8), [[1, 1e39], [1, 2]], 2, "1 of its 4 entries are not, the first at row 0, column 1"),
        (np.ones((2, 3), np.int8), 1, 0, "Argument 'block' must be a positive integer, not 0."),
        (np.ones((2, 3), np.int8), 1, (1, 2, 3), "Argument 'block' must be an integer or 2 integers"),
    ],
)
def test_codes_scales_and_blocks_that_do_not_fit_are_refused(codes, scale, block, message):
    with pytest.raises(ValueError, match="Argument") as refused:
        ScaledWeights(codes, scale, block)
    assert message in str(refused.value)


def test_a_part_is_made_of_slices_only():
    with pytest.raises(ValueError, match="Argument 'index' must be at most 2 slices"):
        ScaledWeights(np.ones((2, 3), np.int8), 1)[0]


def test_a_product_that_is_not_finite_is_refused_with_its_place():
    weights = ScaledWeights(np.array([[1, 1], [1, 100]], np.int8), 1e38)
    with pytest.raises(ValueError, match="1 of its 4 entries are NaN or infinite, the first at row 1, column 1: inf"):
        maximum_spanning_forest(weights)
