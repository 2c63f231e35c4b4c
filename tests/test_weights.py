"""What may be given as weights: quantised ones with their scales."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

import topobounds as tb
from tests.topology.test_few_levels import DTYPES, KINDS, matrix_of
from topobounds import Conv, Dense, ScaledWeights, critical_kernel_weights, maximum_spanning_forest
from topobounds.layers import LayerTensor
from topobounds.topology.layer_topology import layer_topology
from topobounds.weights import non_zero

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


def assert_equal(one, other):
    """Compare two results, field by field and bit by bit."""
    if dataclasses.is_dataclass(one):
        assert type(one) is type(other)
        for field in dataclasses.fields(one):
            if field.name.startswith("_"):
                continue
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("codes", [np.int8, np.uint8, np.int16, ml_dtypes.int4, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("shared", ["by all", "by a row", "by a column", "by a group", "by a block"])
def test_what_takes_weights_takes_scaled_ones_and_gives_the_same(codes, shared):
    m, n = 60, 48
    sides, block = {
        "by all": ((1, 1), None),
        "by a row": ((m, 1), None),
        "by a column": ((1, n), None),
        "by a group": ((m, 3), 16),
        "by a block": ((2, 3), (32, 20)),
    }[shared]
    rng = np.random.default_rng(5)
    given = ScaledWeights(rng.integers(0, 8, (m, n)).astype(codes), rng.standard_normal(sides), block)
    tensor = LayerTensor("gates", (m, n), parts=("a", "b", "c"))
    for function in [
        tb.maximum_spanning_forest,
        tb.persistence_diagram,
        lambda w: tb.persistence_diagram(w, zeros="edge", backend="gudhi"),
        tb.neural_persistence,
        lambda w: tb.magnitude_overlap(w, 200),
        lambda w: tb.magnitude_mask(w, 0.1),
        lambda w: tb.topological_mask(w, 0.2),
        lambda w: tb.random_mask(w, 0.1, seed=1),
        lambda w: tb.network_masks([w, w], 500, scope="global"),
        lambda w: tb.persistence_null(w, trials=5, seed=1),
        lambda w: tb.overlap_null(w, trials=5, seed=1),
        lambda w: tb.layer_report("fc", w, Dense(m, n), trials=5, seed=1),
        lambda w: (layer_topology(tensor, w).critical, layer_topology(tensor, w).forests),
    ]:
        assert_equal(function(given), function(np.asarray(given)))


def test_kernels_of_bytes_and_scaled_ones_have_the_critical_weights_of_their_values():
    rng = np.random.default_rng(6)
    for turn in range(200):
        conv = [
            Conv(5, 6, (3, 3), (6, 6), padding=1),
            Conv(4, 6, (2, 3), (5, 7), groups=2, stride=2),
            Conv(3, 4, (3, 3), (4, 4), transposed=True),
            Conv(7, 9, (1, 1), (3, 3)),
        ][turn % 4]
        rows, columns = conv.weight_shape[0], int(np.prod(conv.weight_shape[1:]))
        dtype = [kind for kind in DTYPES if kind is not np.uint8 or turn % 2][turn % (len(DTYPES) - 1)]
        kernel = np.ascontiguousarray(matrix_of(KINDS[turn % len(KINDS)], dtype, rows, columns, rng))
        kernel = kernel.reshape(conv.weight_shape)
        mask = rng.random(conv.weight_shape) < 0.7 if turn % 3 == 0 else None
        zeros = "edge" if turn % 5 == 0 else "absent"
        found = critical_kernel_weights(kernel, conv, mask, zeros=zeros)
        same = critical_kernel_weights(kernel.astype(np.float32), conv, mask, zeros=zeros)
        assert_equal(found, same)
        scaled = ScaledWeights(kernel, rng.standard_normal((rows, 1, 1, 1)))
        found = critical_kernel_weights(scaled, conv, mask, zeros=zeros)
        assert_equal(found, critical_kernel_weights(np.asarray(scaled), conv, mask, zeros=zeros))


def test_a_part_that_is_not_finite_is_refused_with_its_place_in_the_tensor():
    codes = np.ones((6, 4), ml_dtypes.float8_e4m3fn)
    codes[5, 3] = np.nan
    with pytest.raises(ValueError, match="1 of its 24 entries are NaN or infinite, the first at row 5, column 3: nan"):
        layer_topology(LayerTensor("gates", (6, 4), parts=("a", "b")), ScaledWeights(codes, 2))


@pytest.mark.parametrize("side", [3, 300])
def test_a_signalling_nan_is_refused_without_a_warning(side):
    weights = np.full((side, side), 0x7F81, np.uint16).view(ml_dtypes.bfloat16)
    with pytest.raises(ValueError, match="must be finite"):
        maximum_spanning_forest(weights)


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, bool, ">f2"]
    + [getattr(ml_dtypes, f"float8_{kind}") for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e4m3b11fnuz")],
)
def test_what_is_not_zero_in_every_type_and_layout(dtype):
    values = np.array([[0.0, -0.0, 1.0], [-2.0, 0.0, 0.25]]).astype(dtype).repeat(2, 1)
    values[1, 4:] = np.finfo(np.float16).smallest_subnormal if values.dtype == np.float16 else values[1, 4]
    for given in (values, values.T, np.asfortranarray(values), values[:, ::2], values[0, 0], values[:0]):
        found = non_zero(np.asarray(given))
        np.testing.assert_array_equal(found, np.asarray(given).astype(np.float64) != 0)
    room = np.empty(values.shape, np.bool_)
    non_zero(values.copy(order="F"), out=room)
    np.testing.assert_array_equal(room, values.astype(np.float64) != 0)
