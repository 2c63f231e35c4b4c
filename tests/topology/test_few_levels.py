"""Weights of 8 bits, where ties are the rule: their forests are those of the same values in float32, bit for bit."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from tests import naive_convolution
from topobounds import ScaledWeights, maximum_spanning_forest, persistence_diagram
from topobounds.topology import spanning
from topobounds.topology import spanning_engine as machine
from topobounds.topology.key_matrix import KeyMatrix

FLOATS = [getattr(ml_dtypes, f"float8_{name}") for name in ("e4m3fn", "e5m2", "e4m3", "e3m4")]
NEGATIVE_ZERO_IS_NAN = [getattr(ml_dtypes, f"float8_{name}") for name in ("e4m3fnuz", "e5m2fnuz", "e4m3b11fnuz")]
DTYPES = [np.int8, np.uint8, *FLOATS, *NEGATIVE_ZERO_IS_NAN]
KINDS = ["every code", "few codes", "one code", "zeros", "mostly zero", "normal", "dead lines", "scales", "sorted"]
KINDS += ["blocks", "hierarchy", "rising", "least and largest"]
_ALWAYS = ("every code", "normal", "scales")  # tested; the others with what takes long


def codes_of(kind, m, n, rng):
    """Return bytes, one of many kinds; those of a float may be NaN."""
    normal = np.clip(np.round(30 * rng.standard_normal((m, n))), -127, 127)
    block = np.arange(m)[:, None] * 4 // m ^ np.arange(n) * 4 // n
    codes = {
        "every code": lambda: rng.integers(0, 256, (m, n)),
        "few codes": lambda: rng.choice(rng.integers(0, 256, 3), (m, n)),
        "one code": lambda: np.full((m, n), rng.integers(0, 256)),
        "zeros": lambda: np.zeros((m, n)),
        "mostly zero": lambda: rng.integers(0, 256, (m, n)) * (rng.random((m, n)) < 0.1),
        "normal": lambda: normal,
        "dead lines": lambda: normal * (rng.random((m, 1)) < 0.5) * (rng.random(n) < 0.8),
        "scales": lambda: np.round(normal * rng.random((m, 1)) * rng.random(n)),
        "sorted": lambda: np.sort(normal, axis=None).reshape(m, n),
        "blocks": lambda: normal * (block == 0),
        "hierarchy": lambda: np.round(normal * 0.3**block),
        "rising": lambda: np.sort(np.abs(normal), axis=None).reshape(m, n),
        "least and largest": lambda: rng.choice([-128, 127, 0, 1], (m, n)),
    }[kind]()
    return (codes.astype(np.int64) & 255).astype(np.uint8)


def matrix_of(kind, dtype, m, n, rng):
    """Return a finite matrix of some layout."""
    matrix = codes_of(kind, m, n, rng).view(np.dtype(dtype))
    if matrix.dtype not in (np.int8, np.uint8):
        matrix = np.where(np.isfinite(matrix.astype(np.float32)), matrix, np.zeros((), dtype))
    return [np.asarray, np.asfortranarray, lambda w: w[::-1], lambda w: np.hstack([w, w])[:, :n]][rng.integers(4)](
        matrix
    )


def assert_same(forest, other):
    for field in ("rows", "cols", "ranks"):
        np.testing.assert_array_equal(getattr(forest, field), getattr(other, field))
    np.testing.assert_array_equal(forest.weights.astype(np.float32), other.weights)
    assert (forest.alpha, forest.n_components) == (other.alpha, other.n_components)


@pytest.fixture
def small_pieces(monkeypatch):
    """Let small matrices go through many chunks, short buffers, and every kind of round."""
    monkeypatch.setattr(machine, "THREADS", 1)
    monkeypatch.setattr(machine, "_CELLS_PER_CHUNK", 500)
    monkeypatch.setattr(machine, "_CELLS_PER_COPY", 300)
    monkeypatch.setattr(machine, "_ROOM", 64)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "kind", [kind if kind in _ALWAYS else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_ten_thousand_matrices_have_the_forests_of_their_values(kind, monkeypatch):
    rng = np.random.default_rng(KINDS.index(kind))
    for turn, dtype in itertools.product(range(10_000 // len(KINDS) // len(DTYPES) + 1), DTYPES):
        wanted = [lambda keys: max(keys.shape), lambda keys: 1 + keys.size // 5, lambda keys: 2 * sum(keys.shape)][
            turn % 3
        ]
        monkeypatch.setattr(machine, "_wanted", wanted)
        matrix = matrix_of(kind, dtype, *rng.integers(1, 40, 2), rng)
        mask = rng.random(matrix.shape) < rng.choice([0.2, 0.8]) if turn % 4 == 0 else None
        zeros = "edge" if turn % 5 == 0 else "absent"
        same = maximum_spanning_forest(matrix.astype(np.float32), mask, zeros=zeros)
        assert_same(maximum_spanning_forest(matrix, mask, zeros=zeros), same)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_larger_matrices_in_pieces_as_they_are(kind, dtype):
    rng = np.random.default_rng([KINDS.index(kind), DTYPES.index(dtype)])
    for shape in [(300, 700), (900, 150)]:
        matrix = matrix_of(kind, dtype, *shape, rng)
        assert_same(maximum_spanning_forest(matrix), maximum_spanning_forest(matrix.astype(np.float32)))


def test_the_magnitude_of_minus_128_is_128():
    weights = np.array([[-128, 127], [127, -127], [1, -128]], np.int8)
    forest = maximum_spanning_forest(weights)
    assert forest.weights.dtype == np.uint8
    assert forest.weights.tolist() == [128, 128, 127, 127]
    assert list(zip(forest.rows.tolist(), forest.cols.tolist(), strict=True)) == [(0, 0), (2, 1), (0, 1), (1, 0)]
    assert persistence_diagram(weights).w_max == 128
    large = np.tile(weights, (200, 300))
    assert_same(maximum_spanning_forest(large), maximum_spanning_forest(large.astype(np.float32)))


@pytest.mark.parametrize("dtype", FLOATS + NEGATIVE_ZERO_IS_NAN)
@pytest.mark.parametrize("size", [(40, 30), (1100, 1000)])  # in one piece, and on several threads
def test_every_code_that_is_not_finite_is_refused_with_its_place(dtype, size):
    m, n = size
    values = np.arange(256, dtype=np.uint8).view(dtype)
    bad = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    assert bad.size
    for code in bad if m < 100 else bad[:1]:
        weights = np.ones(size, dtype)
        places = [(m // 3, n - 1), (m - 2, 0), (m - 1, n // 2)]
        for place in places:
            weights[place] = values[code]
        message = rf"but 3 of its {m * n} entries are NaN or infinite, the first at row {m // 3}, column {n - 1}: "
        for given in (weights, np.asfortranarray(weights)):
            for zeros in ("absent", "edge"):
                with pytest.raises(ValueError, match=message):
                    maximum_spanning_forest(given, zeros=zeros)
        mask = np.isfinite(weights.astype(np.float32))
        assert maximum_spanning_forest(weights, mask).alpha == m + n - 1


@pytest.mark.parametrize("levels", [2, 3, 9, 17])
def test_many_ties_in_a_wide_and_in_a_tall_layer(levels):
    """So many that the largest weights are taken in flat order, the columns connected or not."""
    rng = np.random.default_rng(levels)
    for shape in [(1200, 900), (300, 4000), (4000, 130)]:
        weights = rng.integers(-(levels // 2), levels - levels // 2, shape).astype(np.int8)
        dead = weights * (rng.random((shape[0], 1)) < 0.9) * (rng.random(shape[1]) < 0.9)
        blocks = weights * (np.arange(shape[0])[:, None] * 8 // shape[0] == np.arange(shape[1]) * 8 // shape[1])
        for matrix in (weights, dead.astype(np.int8), blocks.astype(np.int8), np.asfortranarray(weights)):
            assert_same(maximum_spanning_forest(matrix), maximum_spanning_forest(matrix.astype(np.float32)))


@pytest.mark.parametrize("share", [0.004, 0.03, 0.4])
@pytest.mark.parametrize("n", [40, 64, 193])
def test_levels_one_after_the_other_join_what_kruskals_algorithm_joins(n, share):
    """Few weights have the level, so that long stretches of a line have none, before it and after it."""
    rng = np.random.default_rng(n)
    for m in (1, 5, 30):
        weights = (rng.integers(-3, 4, (m, n)) * (rng.random((m, n)) < share)).astype(np.int8)
        cells = [np.argwhere(np.abs(weights) == level) for level in (3, 2, 1)]
        joining = np.array(naive_convolution.merges(m + n, [[(i, m + j)] for i, j in np.concatenate(cells)]))
        keys, parent, start = KeyMatrix.of(weights, None, zero_edges=False), np.arange(m + n, dtype=np.uint32), 0
        assert not keys.transposed
        for level, there in zip((3, 2, 1), cells, strict=True):
            found, ranks = machine._joined_at(keys, level, parent)
            places = np.flatnonzero(joining[start : start + len(there)])
            np.testing.assert_array_equal(ranks, places + 1)
            np.testing.assert_array_equal(np.divmod(found, 2**32), there[places].T)
            start += len(there)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_ranks_in_the_midst_of_long_ties(order, dtype):
    """Hundreds of equal weights stand side by side, and some of them are asked for."""
    rng = np.random.default_rng(2)
    for m, n, step in [(20, 129, 1), (3, 600, -1), (300, 5, 1)]:
        levels = np.sort(rng.integers(1, 5, m * n))[::step].astype(dtype)
        weights = np.asarray(levels.reshape((m, n), order=order), order=order)
        sizes = weights.ravel()
        in_order = np.lexsort((np.arange(sizes.size), -sizes))
        for n_cells in (2, 5, 40):
            places = np.sort(rng.choice(sizes.size, n_cells, replace=False))
            keys = KeyMatrix.of(weights, None, zero_edges=False)
            rows, cols = np.divmod(in_order[places].astype(np.uint64), np.uint64(n))
            cells = rows << np.uint64(32) | cols
            np.testing.assert_array_equal(machine.ranks_of(keys, keys.at(cells), cells), places + 1)


def scales_of(kind, shape, rng):
    return {
        "normal": lambda: rng.standard_normal(shape),
        "far apart": lambda: np.exp(3 * rng.standard_normal(shape)),
        "few, and zero": lambda: rng.integers(0, 3, shape),
        "products near the least normal number": lambda: 1e-38 * rng.standard_normal(shape),
        "products that underflow": lambda: 1e-44 * rng.standard_normal(shape),
        "the least number": lambda: 1.4e-45 * rng.integers(0, 3, shape),
        "large": lambda: 1e33 * rng.standard_normal(shape),
    }[kind]()


SCALES = ["normal", "far apart", "few, and zero", "products near the least normal number", "products that underflow"]
SCALES += ["the least number", "large"]


def scaled_matrix(dtype, m, n, kind, rng):
    """Return codes with scales for all, by row, column, group or block, in some layout."""
    codes = matrix_of(KINDS[rng.integers(len(KINDS))], dtype, m, n, rng)
    block = int(rng.choice([1, 3, 128])), int(rng.choice([1, 5, 16, 32, 64, 128]))
    sides = [1 if rng.random() < 0.3 else -(-side // step) for side, step in zip((m, n), block, strict=True)]
    weights = ScaledWeights(codes, scales_of(kind, sides, rng), block)
    return [weights, weights[::-1], weights[:, n // 3 :], weights.T][rng.integers(4)]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", SCALES)
def test_weights_with_scales_have_the_forest_of_their_products(kind, monkeypatch):
    monkeypatch.setattr(spanning, "_SCALED_CELLS", 0)
    rng = np.random.default_rng([1, SCALES.index(kind)])
    for turn in range(120):  # every type with every number wanted, with a mask and without
        wanted = [lambda keys: max(keys.shape), lambda keys: 1 + keys.size // 5, lambda keys: 2 * sum(keys.shape)]
        monkeypatch.setattr(machine, "_wanted", wanted[turn % 3])
        m, n = rng.integers(1, [40, 130][turn % 2], 2)
        weights = scaled_matrix([np.int8, *FLOATS, *NEGATIVE_ZERO_IS_NAN][turn % 8], m, n, kind, rng)
        mask = rng.random(weights.shape) < 0.6 if turn % 5 == 0 else None
        zeros = "edge" if turn % 7 == 0 else "absent"
        forest = maximum_spanning_forest(weights, mask, zeros=zeros)
        assert_same(forest, maximum_spanning_forest(np.asarray(weights), mask, zeros=zeros))
        assert forest.weights.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, ml_dtypes.int4, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("block", [None, 32, (128, 128)])
def test_a_large_layer_with_scales_on_several_threads(dtype, block):
    rng = np.random.default_rng(3)
    normal = rng.standard_normal((1500, 1400)) * np.exp(0.2 * rng.standard_normal((1500, 1)))
    codes = np.clip(np.round(normal * (2 if dtype is ml_dtypes.int4 else 30)), 0 if dtype is np.uint8 else -8, 127)
    sides = {None: (1500, 1), 32: (1500, 44), (128, 128): (12, 11)}[block]
    for scale in (0.01, rng.random(sides)):
        weights = ScaledWeights(codes.astype(dtype), scale, block)
        assert_same(maximum_spanning_forest(weights), maximum_spanning_forest(np.asarray(weights)))


def test_products_and_codes_that_are_not_finite_are_refused_with_their_place():
    codes = np.ones((700, 600), ml_dtypes.float8_e4m3fn)
    codes[300, 17] = np.nan
    message = "1 of its 420000 entries are NaN or infinite, the first at row 300, column 17: "
    for scale in (0.5, np.zeros((700, 1)), np.full((700, 1), 1e-40)):
        with pytest.raises(ValueError, match=message + "nan"):
            maximum_spanning_forest(ScaledWeights(codes, scale))
    codes[300, 17] = 448
    for scale in (1e38, np.full((700, 1), 1e38)):
        with pytest.raises(ValueError, match=message + "inf"):
            maximum_spanning_forest(ScaledWeights(codes, scale))
