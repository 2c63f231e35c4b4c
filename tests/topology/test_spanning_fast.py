"""The fast spanning forest against the plain Kruskal's algorithm on a full stable sort: the same edges, in order."""

import itertools
import pickle
import re
from pathlib import Path

import ml_dtypes
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topobounds import (
    ScaledWeights,
    magnitude_overlap,
    maximum_spanning_forest,
    neural_persistence,
    persistence_diagram,
)
from topobounds.topology import spanning
from topobounds.topology import spanning_engine as machine
from topobounds.topology.filtration import filtration
from topobounds.topology.key_matrix import KeyMatrix
from topobounds.topology.spanning import forest_and_largest

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


@numba.njit
def _kruskal(cells, m, n):
    parent, ranks = np.arange(m + n), np.empty(m + n, np.int64)
    merged = 0
    for position in range(cells.size):
        a, b = cells[position] // n, m + cells[position] % n
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if a != b:
            parent[a] = b
            ranks[merged] = position + 1
            merged += 1
    return ranks[:merged]


def _oracle(weights, mask=None, zeros="absent"):
    """Return the flat indices and ranks of the forest's edges, and how many of them are not zero."""
    order = filtration(weights, mask)
    m, n = weights.shape
    ranks = _kruskal(order.cells[: order.cells.size if zeros == "edge" else order.n_nonzero], m, n)
    return order.cells[ranks - 1], ranks, np.count_nonzero(ranks <= order.n_nonzero)


def _agree(weights, mask=None, zeros="absent"):
    forest = maximum_spanning_forest(weights, mask, zeros=zeros)
    cells, ranks, alpha = _oracle(weights, mask, zeros)
    m, n = weights.shape
    np.testing.assert_array_equal(forest.rows * n + forest.cols, cells)
    np.testing.assert_array_equal(forest.weights, np.abs(weights[forest.rows, forest.cols]))
    assert (forest.alpha, forest.n_components) == (alpha, m + n - cells.size)
    some = np.array([0, 1, alpha, (m * n) // 3, m * n])
    expected = np.searchsorted(ranks[:alpha], some, side="right") / alpha if alpha else np.ones(5)
    np.testing.assert_array_equal(forest.retention(some[:3]), expected[:3])
    assert forest.critical_rank == (ranks[alpha - 1] if alpha else 0)
    np.testing.assert_array_equal(forest.retention(some), expected)
    np.testing.assert_array_equal(forest.ranks, ranks)


def _values(kind, m, n, rng):
    """Return one of the inputs that are hard for one part of the algorithm or another."""
    normal = rng.standard_normal((m, n))
    block = np.arange(m)[:, None] * 8 // m ^ np.arange(n) * 8 // n
    return {
        "normal": lambda: normal,
        "cauchy": lambda: rng.standard_cauchy((m, n)) * 0.01,
        "few levels": lambda: np.round(normal * 2),
        "ternary": lambda: rng.integers(-1, 2, (m, n)),
        "int4": lambda: rng.integers(-8, 8, (m, n)),
        "all equal": lambda: np.full((m, n), -0.5),
        "all zero": lambda: np.zeros((m, n)),
        "mostly zero": lambda: normal * (rng.random((m, n)) < 0.05),
        "dead lines": lambda: normal * (rng.random((m, 1)) < 0.5) * (rng.random(n) < 0.8),
        "scales": lambda: normal * np.exp(rng.standard_normal((m, 1))) * np.exp(rng.standard_normal(n)),
        "rank 1": lambda: rng.standard_normal((m, 1)) * rng.standard_normal(n),
        "rank 3": lambda: rng.standard_normal((m, 3)) @ rng.standard_normal((3, n)),
        "sorted": lambda: np.sort(normal, axis=None).reshape(m, n),
        "rising": lambda: np.sort(np.abs(normal), axis=None).reshape(m, n),
        "falling columns": lambda: -np.sort(-np.abs(normal), axis=None).reshape(n, m).T,
        "blocks": lambda: normal * (block == 0),
        "weak between blocks": lambda: normal * np.where(block == 0, 1, 0.01),
        "hierarchy": lambda: normal * 0.3 ** np.ceil(np.log2(block + 1)),
        "subnormal": lambda: normal * 1e-7,
        "one heavy column": lambda: normal * np.where(np.arange(n) == n // 2, 100, 1),
    }[kind]()


KINDS = ["normal", "cauchy", "few levels", "ternary", "int4", "all equal", "all zero", "mostly zero", "dead lines"]
KINDS += ["scales", "rank 1", "rank 3", "sorted", "rising", "falling columns", "blocks", "weak between blocks"]
KINDS += ["hierarchy", "subnormal", "one heavy column"]
RARE_LIMITS = ["much wanted", "never enough room"]
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "rows reversed": lambda w: w[::-1],
    "columns reversed": lambda w: np.asfortranarray(w)[:, ::-1],
    "all reversed": lambda w: w[::-1, ::-1],
    "every other column": lambda w: np.repeat(w, 2, axis=1)[:, ::2],
    "every other row": lambda w: np.repeat(w, 2, axis=0)[1::2],
    "rows of a wider one": lambda w: np.hstack([w, w])[:, : w.shape[1]],
}


@pytest.fixture
def small_pieces(monkeypatch):
    """Let small matrices go through many chunks and threads, short buffers, and every kind of round."""
    monkeypatch.setattr(machine, "THREADS", 3)
    monkeypatch.setattr(machine, "_CELLS_PER_CHUNK", 2000)
    monkeypatch.setattr(machine, "_CELLS_PER_COPY", 1500)
    monkeypatch.setattr(machine, "_ROOM", 64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zeros", ["absent", "edge"])
def test_many_small_matrices_of_every_type_and_layout(kind, zeros):
    rng = np.random.default_rng([KINDS.index(kind), zeros == "edge"])
    for dtype, layout, masked in itertools.product(DTYPES, LAYOUTS, [False, False, True, True]):
        m, n = rng.integers(1, 70, 2)
        weights = LAYOUTS[layout](_values(kind, m, n, rng).astype(dtype))
        mask = LAYOUTS[layout](rng.random((m, n)) < rng.choice([0.03, 0.3, 0.9])) if masked else None
        _agree(weights, mask, zeros)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "limits", ["as it is", "little wanted", *(pytest.param(each, marks=pytest.mark.long) for each in RARE_LIMITS)]
)
def test_pieces_threads_and_rounds_of_every_kind(kind, limits, monkeypatch):
    rng = np.random.default_rng([7, KINDS.index(kind)])
    if limits == "little wanted":
        monkeypatch.setattr(machine, "_wanted", lambda keys: max(keys.shape))
        monkeypatch.setattr(machine, "_CROWD", 2)
    elif limits == "much wanted":
        monkeypatch.setattr(machine, "_wanted", lambda keys: keys.size // 5)
    elif limits == "never enough room":
        monkeypatch.setattr(machine, "_LIMIT", 0.5)
    for dtype, layout in itertools.product(DTYPES, ["C", "Fortran", "rows reversed", "every other column"]):
        m, n = rng.integers(50, 100, 2)
        weights = LAYOUTS[layout](_values(kind, m, n, rng).astype(dtype))
        mask = rng.random((m, n)) < 0.5 if dtype is np.float16 else None
        _agree(weights, mask, "edge" if layout == "Fortran" else "absent")


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_layers(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for m, n in [(1, 1), (1, 400), (400, 1), (784, 10), (10, 1500), (300, 260)]:
        for weights in (_values(kind, m, n, rng).astype(np.float32), _values(kind, n, m, rng).astype(np.float64).T):
            _agree(weights)


FLOATS = {16: st.floats(width=16), 32: st.floats(width=32), 64: st.floats()}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_anything_hypothesis_can_think_of(data):
    width = data.draw(st.sampled_from([16, 32, 64]))
    finite = FLOATS[width].filter(np.isfinite)
    elements = data.draw(st.sampled_from([finite, st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0])]))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=90))
    weights = data.draw(hnp.arrays(f"f{width // 8}", shape, elements=elements))
    mask = data.draw(st.none() | hnp.arrays(bool, shape))
    weights = data.draw(st.sampled_from([weights, np.asfortranarray(weights), weights[::-1, ::-1]]))
    _agree(weights, mask, data.draw(st.sampled_from(["absent", "edge"])))


def test_float16_ties_go_by_flat_index():
    rng = np.random.default_rng(3)
    weights = (1 + rng.integers(0, 3, (200, 150)) / 1024).astype(np.float16)
    for matrix in (weights, weights.T, np.asfortranarray(weights), weights[:, ::-1]):
        _agree(matrix)
    rows = maximum_spanning_forest(np.full((60, 50), 0.1, np.float16))
    assert rows.rows.tolist() == [0] * 50 + list(range(1, 60))
    assert rows.cols.tolist() == [*range(50), *[0] * 59]


def test_signs_and_negative_zeros_do_not_count():
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((120, 90)) * (rng.random((120, 90)) < 0.04)
    flipped = np.where(rng.random(weights.shape) < 0.5, -weights, weights)
    for zeros in ("absent", "edge"):
        _agree(flipped, None, zeros)
        ours, theirs = (maximum_spanning_forest(w, zeros=zeros) for w in (weights, flipped))
        np.testing.assert_array_equal(ours.rows * 90 + ours.cols, theirs.rows * 90 + theirs.cols)


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_threads_change_nothing(threads, monkeypatch):
    monkeypatch.setattr(machine, "_CELLS_PER_CHUNK", 5000)
    monkeypatch.setattr(machine, "THREADS", threads)
    rng = np.random.default_rng(5)
    for kind in KINDS:
        _agree(_values(kind, 260, 210, rng).astype(np.float32))


@pytest.mark.parametrize("size", [(40, 30), (1100, 1000)])  # in one piece, and on several threads
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "all"])
def test_what_is_not_finite_is_counted_and_located(size, dtype, bad):
    m, n = size
    weights = np.random.default_rng(6).standard_normal(size).astype(dtype)
    places = [(m // 3, n - 1), (m - 2, 0), (m - 1, n // 2)]
    for place in places:
        weights[place] = np.nan if bad == "all" else bad
    if bad == "all":
        weights[:] = np.nan
    count, first = (m * n, (0, 0)) if bad == "all" else (3, places[0])
    message = (
        rf"but {count} of its {m * n} entries are NaN or infinite, the first at row {first[0]}, column {first[1]}: "
    )
    for given_weights in (weights, np.asfortranarray(weights)):
        for zeros in ("absent", "edge"):
            with pytest.raises(ValueError, match=message):
                maximum_spanning_forest(given_weights, zeros=zeros)
    mask = np.isfinite(weights)
    assert maximum_spanning_forest(weights, mask).alpha == (0 if bad == "all" else m + n - 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [(0, 0), (127, 63)])
def test_infinity_in_the_corners_and_the_largest_finite_weight(dtype, place):
    weights = np.random.default_rng(12).standard_normal((128, 64)).astype(dtype)
    weights[place] = ml_dtypes.finfo(dtype).max
    for zeros in ("absent", "edge"):
        _agree(weights, None, zeros)
    weights[place] = -np.inf
    for zeros, mask in itertools.product(("absent", "edge"), (None, np.ones((128, 64), bool))):
        with pytest.raises(ValueError, match=rf"1 of its 8192 .* at row {place[0]}, column {place[1]}: -inf"):
            maximum_spanning_forest(weights, mask, zeros=zeros)


def test_a_layer_whose_first_round_is_its_last_takes_no_further_pass(monkeypatch):
    normal = np.random.default_rng(8).standard_normal((400, 300)).astype(np.float32)
    _, ranks, _ = _oracle(normal)
    monkeypatch.setattr(machine, "ranks_of", None)
    forest = maximum_spanning_forest(normal)
    np.testing.assert_array_equal(forest.ranks, ranks)
    assert magnitude_overlap(normal) == forest.overlap()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["normal", "one level", "few levels", "rising", "scaled"])
def test_ranks_of_any_cells_are_their_places_in_the_sorted_layer(kind, dtype):
    rng = np.random.default_rng(13)
    for m, n, order, n_cells in itertools.product([1, 40, 150], [1, 60, 129, 300], "CF", [1, 5, 200]):
        normal = rng.standard_normal((m, n))
        weights = {
            "normal": normal,
            "one level": np.ones((m, n)),
            "few levels": np.round(normal * 2),
            "rising": np.sort(normal, axis=None).reshape(m, n),
            "scaled": normal * np.exp(rng.standard_normal((m, 1))),
        }[kind]
        weights = np.asarray(weights.astype(dtype), order=order)
        support = rng.random((m, n)) < 0.8 if n_cells == 5 else None
        sorted_layer = filtration(weights, support).cells
        places = np.sort(rng.choice(sorted_layer.size, min(n_cells, sorted_layer.size), replace=False))
        if not places.size:
            continue
        keys = KeyMatrix.of(weights, support, zero_edges=True)
        rows, cols = np.divmod(sorted_layer[places].astype(np.uint64), np.uint64(n))
        cells = rows << np.uint64(32) | cols
        np.testing.assert_array_equal(machine.ranks_of(keys, keys.at(cells), cells), places + 1)


@pytest.mark.parametrize("kind", ["scaled", "all ones"])
def test_a_forest_does_not_notice_what_becomes_of_its_weights(kind):
    rng = np.random.default_rng(9)
    weights = np.ones((400, 300))
    if kind == "scaled":
        weights = rng.standard_normal((400, 300)) * np.logspace(0, 4, 400)[:, None]
    cells, ranks, alpha = _oracle(weights)
    forest = maximum_spanning_forest(weights)
    weights[200:, 100:] = 0.5
    np.testing.assert_array_equal(forest.ranks, ranks)
    assert (forest.critical_rank, forest.rows.tolist()) == (ranks[alpha - 1], (cells // 300).tolist())


def test_the_critical_rank_of_equal_weights_is_that_of_the_last_row():
    weights = np.ones((2500, 2000), np.float32)
    forest = maximum_spanning_forest(weights)
    weights[2400:, 1900:] = 0.5
    assert forest.critical_rank == 4_998_001  # row 0, and the first cell of every other row
    weights.fill(1)
    np.testing.assert_array_equal(forest.ranks, [*range(1, 2001), *range(2001, 4_998_002, 2000)])


def test_a_pickled_forest_holds_its_edges_and_no_weights():
    weights = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
    forest = maximum_spanning_forest(weights)
    bytes_per_edge = 8 + 8 + 4 + 8  # row, column, weight, rank
    stored = pickle.dumps(forest)
    assert len(stored) < bytes_per_edge * forest.alpha + 2000
    np.testing.assert_array_equal(pickle.loads(stored).ranks, forest.ranks)


def test_numpy_alone_finds_the_same(monkeypatch):
    monkeypatch.setattr(spanning._NUMPY_BUDGET, "affords", lambda cells: True)
    rng = np.random.default_rng(10)
    for kind, zeros in itertools.product(KINDS, ["absent", "edge"]):
        m, n = rng.integers(1, 60, 2)
        _agree(_values(kind, m, n, rng).astype(np.float32), rng.random((m, n)) < 0.6, zeros)
        _agree(_values(kind, m, n, rng), None, zeros)


def test_the_diagram_and_its_norm_come_from_the_same_forest():
    weights = np.random.default_rng(11).standard_normal((300, 200)).astype(np.float32)
    cells, _, _ = _oracle(weights)
    values = np.abs(weights.ravel()[cells]).astype(float)
    diagram = persistence_diagram(weights)
    np.testing.assert_array_equal(diagram.deaths, values / values[0])
    np.testing.assert_array_equal(diagram.edges, np.stack(np.divmod(cells, 200), axis=1))
    expected = np.sqrt(np.sum((1 - values / values[0]) ** 2))
    assert neural_persistence(weights) == pytest.approx(expected, rel=1e-14)


def test_kernels_call_nothing_of_other_files():
    text = Path(machine.kernels.__file__).read_text()
    own = re.findall(r"^.*import.*topobounds.*$|^from topobounds.*$", text, re.MULTILINE)
    callable_names = [line for line in own if not line.startswith("from topobounds._types import ")]
    assert callable_names == ["from topobounds._kernels import compiled, inlined"]


@pytest.mark.parametrize("wanted", [1, 300, 2000, 10**6])
def test_the_largest_that_come_with_a_forest_are_those_of_sorting(wanted):
    rng = np.random.default_rng(wanted)
    known = 0
    for dtype, kind in itertools.product([*DTYPES, np.int8], KINDS):
        values = _values(kind, 120, 90, rng)
        weights = np.clip(np.round(values * 40), -128, 127).astype(dtype) if dtype is np.int8 else values.astype(dtype)
        forest, largest = forest_and_largest(weights, n_largest=wanted)
        assert np.array_equal(forest.ranks, maximum_spanning_forest(weights).ranks)
        if largest is not None:
            known += 1
            magnitudes = np.sort(np.abs(weights.astype(np.float64)), axis=None)[::-1]
            magnitudes = magnitudes[magnitudes > 0]
            assert largest.size >= min(0.9 * wanted, magnitudes.size)
            assert np.array_equal(largest, magnitudes[: largest.size])
    assert known >= 0.4 * len(KINDS) * (len(DTYPES) + 1)


def test_the_largest_products_of_codes_and_scales_come_with_a_forest():
    rng = np.random.default_rng(5)
    codes = rng.integers(-128, 128, (800, 700)).astype(np.int8)
    weights = ScaledWeights(codes, rng.random((8, 7)).astype(np.float32) + np.float32(0.5), (100, 100))
    _, largest = forest_and_largest(weights, n_largest=9000)
    magnitudes = np.sort(np.abs(np.asarray(weights).astype(np.float64)), axis=None)[::-1]
    assert largest.size >= 8100
    assert np.array_equal(largest, magnitudes[: largest.size])
