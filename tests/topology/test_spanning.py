"""The spanning forest against four others: a naive oracle, scipy, networkx and gudhi."""

import itertools

import ml_dtypes
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from tests import naive
from topobounds import magnitude_overlap, maximum_spanning_forest, persistence_diagram

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 4), (12, 30), (30, 20)]


def structured(shape, rng):
    """Yield (name, matrix): random, tied, zero-ridden and structured."""
    m, n = shape
    normal = rng.standard_normal(shape)
    yield "normal", normal
    yield "tied", rng.integers(-2, 3, shape).astype(float)
    yield "zero-ridden", np.where(rng.random(shape) < 0.8, 0.0, normal)
    yield "all equal", np.full(shape, -0.5)
    yield "all zero", np.zeros(shape)
    yield "rank one", np.outer(rng.standard_normal(m), rng.standard_normal(n))
    yield "sorted", np.sort(normal.ravel()).reshape(shape)
    yield "dead rows", np.where(np.arange(m)[:, None] % 2, normal, 0.0)
    yield "scales", normal * np.exp(3 * rng.standard_normal((m, 1)))
    yield "subnormal", normal * 1e-310
    yield "one entry", np.where(np.arange(m * n).reshape(shape) == m * n - 1, -3.0, 0.0)


CASES = [
    pytest.param(matrix, id=f"{shape[0]}x{shape[1]} {name}")
    for shape in SHAPES
    for name, matrix in structured(shape, np.random.default_rng(shape))
]


def edges_of(forest):
    return list(zip(forest.rows.tolist(), forest.cols.tolist(), strict=True))


@pytest.mark.parametrize("zeros", ["absent", "edge"])
@pytest.mark.parametrize("matrix", CASES)
def test_same_edges_in_the_same_order_as_the_naive_oracle(matrix, zeros):
    forest = maximum_spanning_forest(matrix, zeros=zeros)
    edges, alpha, critical_rank = naive.kruskal(matrix.tolist(), zeros=zeros)
    assert edges_of(forest) == edges
    assert (forest.alpha, forest.critical_rank) == (alpha, critical_rank)
    assert forest.n_components == sum(matrix.shape) - len(edges)
    np.testing.assert_array_equal(forest.weights, np.abs(matrix[forest.rows, forest.cols]))


@pytest.mark.parametrize("matrix", CASES)
def test_same_weights_as_scipy_on_ranks(matrix):
    m, n = matrix.shape
    rows, cols = np.nonzero(matrix)
    levels, ranks = np.unique(np.abs(matrix[rows, cols]), return_inverse=True)
    cost = (len(levels) - ranks).astype(float)  # scipy minimises, and cannot hold a zero
    tree = minimum_spanning_tree(coo_array((cost, (np.int32(rows), np.int32(m + cols))), shape=(m + n, m + n)))
    ours = maximum_spanning_forest(matrix)
    found = levels[len(levels) - np.sort(tree.data).astype(int)] if tree.nnz else []
    np.testing.assert_array_equal(ours.weights, found)


@pytest.mark.parametrize("matrix", CASES)
def test_same_weights_as_networkx(matrix):
    graph = networkx.Graph()
    graph.add_nodes_from(range(sum(matrix.shape)))
    for i, j in zip(*np.nonzero(matrix), strict=True):
        graph.add_edge(int(i), int(matrix.shape[0] + j), weight=abs(matrix[i, j]))
    tree = networkx.maximum_spanning_edges(graph, data=True)
    found = sorted((data["weight"] for _, _, data in tree), reverse=True)
    forest = maximum_spanning_forest(matrix)
    assert forest.weights.tolist() == found
    assert forest.n_components == networkx.number_connected_components(graph)


@pytest.mark.parametrize("zeros", ["absent", "edge"])
@pytest.mark.parametrize("matrix", CASES)
def test_same_diagram_as_gudhi(matrix, zeros):
    ours = persistence_diagram(matrix, zeros=zeros)
    theirs = persistence_diagram(matrix, zeros=zeros, backend="gudhi")
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert (ours.n_essential, ours.alpha, ours.w_max) == (theirs.n_essential, theirs.alpha, theirs.w_max)


@settings(max_examples=150, deadline=None)
@given(
    arrays.arrays(np.int8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(-3, 3)),
    st.randoms(use_true_random=False),
)
def test_masks_agree_with_the_oracle(weights, random):
    mask = np.array([[random.random() < 0.6 for _ in row] for row in weights])
    forest = maximum_spanning_forest(weights, mask)
    edges, alpha, critical_rank = naive.kruskal(weights.tolist(), mask.tolist())
    assert (edges_of(forest), forest.alpha, forest.critical_rank) == (edges, alpha, critical_rank)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-3, 3)))
def test_the_component_identity_at_every_k(weights):
    m, n = weights.shape
    forest = maximum_spanning_forest(weights)
    order = sorted(itertools.product(range(m), range(n)), key=lambda c: -abs(int(weights[c])))
    kept = [c for c in order if weights[c]]
    for k in range(m * n + 1):
        share = (m + n - naive.components(kept[:k], m, n)) / forest.alpha if forest.alpha else 1.0
        assert forest.overlap(k) == share
        assert magnitude_overlap(weights, k) == share
    assert forest.retention(range(m * n + 1)).tolist() == [forest.overlap(k) for k in range(m * n + 1)]


@pytest.mark.parametrize(("seed", "m", "n", "shared"), [(0, 5, 4, 7 / 8), (1, 30, 20, 42 / 49)])
def test_overlap_reference_values(seed, m, n, shared):
    matrix = np.random.default_rng(seed).standard_normal((m, n))  # expected by the authors' own code
    assert maximum_spanning_forest(matrix).overlap() == magnitude_overlap(matrix) == shared


def test_ties_go_by_flat_index_and_so_depend_on_the_orientation():
    ones = np.ones((2, 3))
    assert edges_of(maximum_spanning_forest(ones)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert edges_of(maximum_spanning_forest(ones.T)) == [(0, 0), (0, 1), (1, 0), (2, 0)]


def test_zeros_are_decided_on_the_raw_weight():
    matrix = np.array([[1e300, 5e-324], [-0.0, 0.0]])  # 5e-324 / 1e300 underflows, and is still an edge
    forest = maximum_spanning_forest(matrix)
    assert edges_of(forest) == [(0, 0), (0, 1)]
    assert forest.n_components == 2
    assert persistence_diagram(matrix).deaths.tolist() == [1.0, 0.0]
    with_zeros = maximum_spanning_forest(matrix, zeros="edge")
    assert edges_of(with_zeros) == [(0, 0), (0, 1), (1, 0)]
    assert (with_zeros.alpha, with_zeros.n_components, with_zeros.critical_rank) == (2, 1, 2)


def test_a_masked_cell_is_no_edge_and_is_not_looked_at():
    matrix, mask = np.array([[np.nan, 2.0], [3.0, 4.0]]), np.array([[False, True], [True, False]])
    for zeros in ("absent", "edge"):
        assert edges_of(maximum_spanning_forest(matrix, mask, zeros=zeros)) == [(1, 0), (0, 1)]
    assert maximum_spanning_forest(matrix, mask.astype(float)).alpha == 2


def test_a_layer_of_zeros_has_an_empty_forest_that_nothing_can_lose():
    forest = maximum_spanning_forest(np.zeros((3, 4)))
    assert (forest.alpha, forest.n_components, forest.critical_rank) == (0, 7, 0)
    assert forest.overlap() == forest.overlap(0) == magnitude_overlap(np.zeros((3, 4)), 5) == 1.0


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.uint16, bool, ">f4"],
)
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "sliced"])
def test_every_type_and_layout_has_the_forest_of_its_values(dtype, layout):
    values = (4 * np.random.default_rng(3).standard_normal((9, 14))).round()
    matrix = (np.abs(values) if np.dtype(dtype).kind in "ub" else values).astype(dtype)
    view = {"C": matrix, "F": np.asfortranarray(matrix), "reversed": matrix[::-1, ::-1], "sliced": matrix[::2, 1::3]}
    given = view[layout]
    same = maximum_spanning_forest(np.ascontiguousarray(given).astype(np.float64))
    assert edges_of(maximum_spanning_forest(given)) == edges_of(same)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_torch_tensors(dtype):
    torch = pytest.importorskip("torch")
    tensor = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype)).requires_grad_()
    same = maximum_spanning_forest(tensor.detach().float().numpy())
    assert edges_of(maximum_spanning_forest(tensor)) == edges_of(same)


def test_the_input_is_left_as_it_was():
    matrix = np.random.default_rng(0).standard_normal((20, 10))
    before = matrix.copy()
    matrix.setflags(write=False)
    maximum_spanning_forest(matrix)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"at least one row and one column, not an array of shape \(3,\)"),
        (np.ones((0, 3)), r"shape \(0, 3\)"),
        (np.ones((3, 0)), r"shape \(3, 0\)"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (3.0, r"shape \(\)"),
        ([[1.0, np.nan], [np.inf, 1.0]], "2 of its 4 entries are NaN or infinite, the first at row 0, column 1: nan"),
        ([[1.0, 1.0], [-np.inf, 1.0]], "1 of its 4 .* row 1, column 0: -inf"),
        (np.full((2, 2), np.nan), "4 of its 4"),
        (np.array([[np.nan]], np.float16), "row 0, column 0"),
        (np.ones((2, 2), complex), "not values of type complex128"),
        ([["a", "b"]], "real numbers"),
        ([[1.0, 2.0], [3.0]], "array of numbers"),
        (
            np.array([[1, -2], [2**53, -(2**53) - 1]]),
            r"beyond 2\*\*53.*but holds -9007199254740993 at row 1, column 1\.$",
        ),
        (np.array([[3, np.iinfo(np.int64).min]]), r"but holds -9223372036854775808 at row 0, column 1\.$"),
        (np.array([[2**64 - 1]], np.uint64), r"but holds 18446744073709551615 at row 0, column 0\.$"),
        ([[object]], r"not values of type object\.$"),
        (np.ma.masked_less(np.eye(3), 1), "an array that hides no entries"),  # not to be read as if it hid none
        (coo_array(np.eye(3)), "not 'coo_array'"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        maximum_spanning_forest(weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.ones((2, 3), bool)}, r"shape of the weights, \(2, 2\), not \(2, 3\)"),
        ({"mask": np.full((2, 2), 0.5)}, "true and false"),
        ({"zeros": "maybe"}, "Argument 'zeros' must be one of 'absent', 'edge', not 'maybe'"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        maximum_spanning_forest(np.ones((2, 2)), **arguments)


def test_a_message_has_one_full_stop():
    class Refuses:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("This one refuses.")

    with pytest.raises(ValueError, match=r"and this is none: This one refuses\.$"):
        maximum_spanning_forest(Refuses())


def test_lazily_negated_and_conjugated_tensors_are_read():
    torch = pytest.importorskip("torch")
    weights = torch.tensor([[1.0, 0.5], [0.25, 2.0]])
    negated = torch._neg_view(weights)
    assert negated.is_neg()
    assert edges_of(maximum_spanning_forest(negated)) == edges_of(maximum_spanning_forest(weights))
    with pytest.raises(ValueError, match="not values of type complex64"):
        maximum_spanning_forest(torch.ones(2, 2, dtype=torch.complex64).conj())


@pytest.mark.parametrize("ks", [5, None, "12"])
def test_ks_are_a_sequence(ks):
    with pytest.raises(ValueError, match=r"^Argument 'ks' must be a sequence of integers from 0 to 4, not "):
        maximum_spanning_forest(np.ones((2, 2))).retention(ks)


@pytest.mark.parametrize("k", [-1, 5, 1.5, "2", True])
def test_a_k_outside_the_layer_is_refused(k):
    forest = maximum_spanning_forest(np.ones((2, 2)))
    with pytest.raises(ValueError, match="Argument 'k' must be an integer from 0 to 4"):
        forest.overlap(k)
    with pytest.raises(ValueError, match="Argument 'k'"):
        magnitude_overlap(np.ones((2, 2)), k)


def test_the_record_becomes_plain_python():
    record = maximum_spanning_forest([[1.0, 0.5]]).to_dict()
    assert record["rows"] == [0, 0]
    assert record["schema_version"] == 1
    assert "SpanningForest(shape=(1, 2), alpha=2" in repr(maximum_spanning_forest([[1.0, 0.5]]))
