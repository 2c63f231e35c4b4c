"""Critical kernel weights, against graphs written out in full and against torch's own convolutions."""

import functools

import ml_dtypes
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from tests import naive_convolution
from topobounds import neural_persistence
from topobounds.layers import Conv
from topobounds.topology.convolution import critical_kernel_weights, filter_persistence
from topobounds.topology.spanning import maximum_spanning_forest


def _random_kernel(rng, shape):
    kernel = rng.standard_normal(shape)
    kind = rng.integers(4)
    if kind == 1:
        kernel = np.round(kernel * 2)  # ties, and zeros
    elif kind == 2:
        kernel = np.where(rng.random(shape) < 0.6, 0.0, kernel)
    elif kind == 3:
        kernel = (kernel * rng.lognormal(0, 2, (shape[0],) + (1,) * (len(shape) - 1))).astype(np.float32)
    return kernel


@pytest.mark.parametrize("seed", range(16))
def test_random_geometries_against_the_explicit_graph(seed):
    rng = np.random.default_rng(1000 + seed)
    for _ in range(25):
        conv = naive_convolution.random_conv(rng)
        kernel = _random_kernel(rng, conv.weight_shape)
        mask = rng.random(conv.weight_shape) < 0.7 if rng.random() < 0.3 else None
        zeros = str(rng.choice(["absent", "edge"]))
        found = critical_kernel_weights(kernel, conv, mask, zeros=zeros)
        expected = naive_convolution.critical(conv, kernel, mask, zeros)
        np.testing.assert_array_equal(found.multiplicities.ravel(), expected, err_msg=repr(conv))
        np.testing.assert_array_equal(found.mask.ravel(), (expected > 0) & (kernel.ravel() != 0))
        assert found.n_components == conv.n_vertices - expected.sum()
        assert found.alpha == expected[kernel.ravel() != 0].sum()


@pytest.mark.parametrize("seed", range(8))
def test_diagrams_are_those_of_the_matrix_torch_makes(seed):
    rng = np.random.default_rng(2000 + seed)
    compared = 0
    while compared < 8:
        conv = naive_convolution.random_conv(rng)
        kernel = _random_kernel(rng, conv.weight_shape).astype(float)
        if conv.n_edges < len(naive_convolution.edges(conv)):
            continue  # torch adds the weights of a pair that two taps join
        matrix = naive_convolution.torch_matrix(conv, kernel)
        deaths = critical_kernel_weights(kernel, conv).diagram
        weights = maximum_spanning_forest(matrix).weights
        np.testing.assert_array_equal(deaths.deaths, weights / deaths.w_max if weights.size else weights)
        rows, cols = np.nonzero(matrix)
        levels, ranks = np.unique(np.abs(matrix[rows, cols]), return_inverse=True)
        ends = rows, conv.n_inputs + cols
        graph = csr_array((-1.0 - ranks, ends), shape=(conv.n_vertices, conv.n_vertices))
        tree = -1.0 - minimum_spanning_tree(graph).data
        np.testing.assert_array_equal(np.sort(levels[tree.astype(int)]), weights[::-1])
        compared += 1


CONV = Conv(16, 24, (3, 3), (4, 4), padding=1)


@functools.cache
def _kernels():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(CONV.weight_shape)
    dead = normal.copy()
    dead[:5], dead[:, 3:9] = 0, 0
    centre, heavy, corner = np.zeros_like(normal), normal * 1e-3, np.zeros_like(normal)
    centre[:, :, 1, 1] = heavy[:, :, 1, 1] = normal[:, :, 1, 1]
    corner[:, :, 0, 0] = normal[:, :, 0, 0]
    rows, columns = rng.lognormal(0, 2, (24, 1, 1, 1)), rng.lognormal(0, 2, (1, 16, 1, 1))
    return {
        "normal": normal,
        "dead channels": dead,
        "log-normal scales": normal * rows * columns,
        "log-normal scales, dead channels": dead * rows * columns,
        "ternary": np.sign(np.where(np.abs(normal) < 0.5, 0, normal)),
        "all equal": np.ones_like(normal),
        "few levels": np.round(normal * 3),
        "mostly zero": np.where(rng.random(normal.shape) < 0.95, 0, normal),
        "all zero": np.zeros_like(normal),
        "centre only": centre,
        "centre heavy": heavy,
        "corner only": corner,
        "sorted": np.sort(normal, axis=None).reshape(normal.shape),
        "rank 1": rng.standard_normal((24, 1, 1, 1)) * rng.standard_normal((1, 16, 3, 3)),
        "blocks": normal * np.kron(np.eye(8), np.ones((3, 2)))[:, :, None, None],
    }


@pytest.mark.parametrize("name", _kernels())
@pytest.mark.parametrize("zeros", ["absent", "edge"])
def test_structured_kernels_of_many_channels(name, zeros):
    kernel = _kernels()[name]
    found = critical_kernel_weights(kernel, CONV, zeros=zeros)
    expected = naive_convolution.critical(CONV, kernel, zeros=zeros)
    np.testing.assert_array_equal(found.multiplicities.ravel(), expected)
    order = np.lexsort((np.arange(expected.size), -np.abs(kernel.ravel())))
    np.testing.assert_array_equal(found.indices, order[expected[order] > 0])


@pytest.mark.parametrize("name", ["normal", "log-normal scales, dead channels", "few levels", "mostly zero"])
def test_groups_and_transposed_kernels_of_many_channels(name):
    for conv in (
        Conv(16, 24, (3, 3), (3, 3), padding=1, groups=4),
        Conv(24, 16, (3, 3), (3, 3), 2, 1, transposed=True),
        Conv(16, 24, (3, 3), (4, 4), padding=2, dilation=2),
    ):
        kernel = _kernels()[name][:, : conv.weight_shape[1]]
        expected = naive_convolution.critical(conv, kernel)
        np.testing.assert_array_equal(critical_kernel_weights(kernel, conv).multiplicities.ravel(), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.int8])
def test_every_type_of_weights(dtype):
    kernel = (_kernels()["normal"] * 30).astype(dtype)
    expected = naive_convolution.critical(CONV, kernel.astype(float))
    np.testing.assert_array_equal(critical_kernel_weights(kernel, CONV).multiplicities.ravel(), expected)
    strided = np.asfortranarray(kernel)
    np.testing.assert_array_equal(critical_kernel_weights(strided, CONV).multiplicities.ravel(), expected)


def test_torch_parameters_are_taken_as_they_are():
    layer = torch.nn.Conv2d(16, 24, 3, padding=1)
    found = critical_kernel_weights(layer.weight, CONV)
    expected = naive_convolution.critical(CONV, layer.weight.detach().numpy())
    np.testing.assert_array_equal(found.multiplicities.ravel(), expected)


@pytest.mark.parametrize("name", ["normal", "dead channels", "few levels", "blocks"])
def test_the_critical_weights_alone_have_the_same_diagram(name):
    kernel = _kernels()[name]
    found = critical_kernel_weights(kernel, CONV)
    kept = critical_kernel_weights(np.where(found.mask, kernel, 0), CONV)
    np.testing.assert_array_equal(kept.diagram.deaths, found.diagram.deaths)
    assert (kept.diagram.n_essential, kept.w_max) == (found.diagram.n_essential, found.w_max)
    masked = critical_kernel_weights(kernel, CONV, found.mask)
    np.testing.assert_array_equal(masked.indices, found.indices)
    for lost in found.indices[:5]:  # without ties no smaller set will do
        fewer = found.mask.copy()
        fewer.ravel()[lost] = False
        smaller = critical_kernel_weights(kernel, CONV, fewer).diagram
        assert name == "few levels" or not np.array_equal(smaller.deaths, found.diagram.deaths)


def test_one_by_one_is_a_dense_layer_per_pixel():
    kernel = np.random.default_rng(3).standard_normal((32, 16, 1, 1))
    found = critical_kernel_weights(kernel, Conv(16, 32, (1, 1), (8, 8)))
    forest = maximum_spanning_forest(kernel[:, :, 0, 0])
    np.testing.assert_array_equal(found.indices, forest.rows * 16 + forest.cols)
    assert (found.merges == 64).all()
    assert found.n_components == 64
    assert found.ratio == pytest.approx(512 / 47)


def test_taps_over_the_padding_do_not_set_the_scale():
    kernel = np.full((1, 1, 3, 3), 100.0)
    kernel[0, 0, 1, 1] = 2.0
    found = critical_kernel_weights(kernel, Conv(1, 1, (3, 3), (1, 1), padding=1))
    assert (found.w_max, found.indices.tolist(), found.diagram.deaths.tolist()) == (2.0, [4], [1.0])


def test_no_edge_at_all():
    kernel = np.ones((2, 3, 1))
    padding_only = critical_kernel_weights(kernel, Conv(3, 2, 1, 1, stride=5, padding=1))
    zeros = critical_kernel_weights(np.zeros((2, 3, 1)), Conv(3, 2, 1, 4))
    for found, n_vertices in ((padding_only, 5), (zeros, 20)):
        assert (found.n_critical, found.alpha, found.ratio, found.w_max) == (0, 0, None, 0.0)
        assert found.n_components == found.diagram.n_essential == n_vertices
        assert not found.mask.any()
    edges = critical_kernel_weights(np.zeros((2, 3, 1)), Conv(3, 2, 1, 4), zeros="edge")
    assert (edges.n_critical, edges.alpha, edges.n_components, edges.ratio) == (0, 0, 4, None)
    assert edges.diagram.deaths.tolist() == [0.0] * 16


def _counts(conv, seeds):
    draws = (np.random.default_rng(seed).standard_normal(conv.weight_shape) for seed in range(seeds))
    return [critical_kernel_weights(kernel, conv).n_critical for kernel in draws]


def test_how_many_weights_of_normal_kernels_are_critical():
    # medians over 600 seeds: 73 and 114; 60 seeds at a time reach from about 62 to 85 and from 99 to 126
    small = _counts(Conv(16, 16, (3, 3), (8, 8), padding=1), 60)
    assert 72 <= np.median(small) <= 75
    assert min(small) >= 55  # a connected layer has never less than 16 + 16 - 1
    assert max(small) <= 92
    assert 112 <= np.median(_counts(Conv(16, 32, (3, 3), (8, 8), padding=1), 60)) <= 116
    assert 425 <= np.median(_counts(Conv(64, 128, (3, 3), (16, 16), padding=1), 5)) <= 475
    assert 2200 <= _counts(Conv(512, 512, (3, 3), (14, 14), padding=1), 1)[0] <= 2500
    assert 9 / np.mean(_counts(Conv(1, 1, (3, 3), (8, 8), padding=1), 100)) == pytest.approx(2.28, abs=0.15)


def test_neural_persistence_counts_every_merge():
    found = critical_kernel_weights(_kernels()["normal"], CONV)
    value = np.sqrt((found.merges * (1 - found.weights / found.w_max) ** 2).sum())
    assert neural_persistence(found.diagram) == pytest.approx(value, rel=1e-12)
    assert neural_persistence(found.diagram, normalized=True) == pytest.approx(value / np.sqrt(found.alpha - 1))


def test_records_are_plain_on_request():
    record = critical_kernel_weights(_kernels()["normal"], CONV).to_dict()
    assert record["weight_shape"] == [24, 16, 3, 3]
    assert sum(record["merges"]) == record["alpha"] == 639


def test_a_mask_of_other_numbers_tells_where_in_the_kernel():
    mask = np.ones(CONV.weight_shape)
    mask[2, 1, 0, 2] = 2
    with pytest.raises(ValueError, match=r"but at index \(2, 1, 0, 2\) it is 2\.0"):
        critical_kernel_weights(np.ones(CONV.weight_shape), CONV, mask)


def test_a_mask_hides_what_is_not_finite():
    kernel = _kernels()["normal"].copy()
    mask = np.ones(kernel.shape, bool)
    kernel[2, 3, 0, 1], mask[2, 3, 0, 1] = np.nan, False
    found = critical_kernel_weights(kernel, CONV, mask)
    np.testing.assert_array_equal(
        found.multiplicities.ravel(), naive_convolution.critical(CONV, np.where(mask, kernel, 0))
    )
    message = r"must be finite, but 1 of its 3456 entries are .*, the first at index \(2, 3, 0, 1\): nan\.$"
    with pytest.raises(ValueError, match=message):
        critical_kernel_weights(kernel, CONV)


def test_an_integer_too_large_is_placed_in_the_kernel():
    kernel = np.ones(CONV.weight_shape, np.int64)
    kernel[2, 3, 0, 1] = 2**53 + 1
    with pytest.raises(ValueError, match=r"but holds 9007199254740993 at index \(2, 3, 0, 1\)\.$"):
        critical_kernel_weights(kernel, CONV)


@pytest.mark.parametrize("conv", [None, 3, "conv", {}, (3, 3)])
def test_what_is_no_conv_is_refused(conv):
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv, not .*\.$"):
        critical_kernel_weights(np.ones(CONV.weight_shape), conv)


@pytest.mark.parametrize(
    ("kernel", "mask", "zeros", "message"),
    [
        (np.ones((24, 16, 3)), None, "absent", "Argument 'weights' must have the shape of the kernel"),
        (np.ones((16, 24, 3, 3)), None, "absent", "Argument 'weights' must have the shape of the kernel"),
        (np.ones((24, 16, 3, 3), complex), None, "absent", "Argument 'weights' must hold real numbers"),
        (np.ones((24, 16, 3, 3)), np.ones((24, 16)), "absent", "Argument 'mask' must have the shape of the kernel"),
        (np.ones((24, 16, 3, 3)), np.full((24, 16, 3, 3), 0.5), "absent", "Argument 'mask' must be an array of true"),
        (np.ones((24, 16, 3, 3)), None, "keep", "Argument 'zeros' must be one of"),
    ],
)
def test_bad_arguments_are_named(kernel, mask, zeros, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        critical_kernel_weights(kernel, CONV, mask, zeros=zeros)
    assert str(error.value).startswith(message)


# the authors' persistence of a convolution


def one_filter_persistence(kernel, rows, cols):
    """Kruskal by hand on the one-channel graph of a kernel over rows x cols cells, all of them neurons."""
    height, width = kernel.shape
    positions = [(i, j) for i in range(rows - height + 1) for j in range(cols - width + 1)]
    edges = [
        (abs(kernel[a, b]), ("cell", i + a, j + b), ("output", i, j))
        for i, j in positions
        for a in range(height)
        for b in range(width)
        if kernel[a, b]
    ]
    component = {vertex: vertex for _, *ends in edges for vertex in ends}

    def root(vertex):
        while component[vertex] != vertex:
            vertex = component[vertex]
        return vertex

    squares = 0.0
    for weight, first, second in sorted(edges, key=lambda edge: -edge[0]):
        a, b = root(first), root(second)
        if a != b:
            component[a] = b
            squares += (1 - weight / abs(kernel).max()) ** 2
    return squares**0.5


def test_the_authors_persistence_is_summed_over_filters_of_one_channel():
    kernel = np.random.default_rng(4).standard_normal((3, 2, 3, 2))
    kernel[2] = 0  # a filter without weights adds nothing
    conv = Conv(2, 3, (3, 2), (5, 4), padding=(1, 2))
    expected = sum(one_filter_persistence(abs(kernel[f]).sum(axis=0), 7, 8) for f in range(2))
    assert filter_persistence(kernel, conv) == pytest.approx(expected, rel=1e-12)


def test_the_authors_persistence_is_another_number_than_that_of_the_layer():
    kernel = np.random.default_rng(0).standard_normal((4, 2, 3, 3))
    conv = Conv(2, 4, (3, 3), (8, 8), padding=1)
    ours = neural_persistence(critical_kernel_weights(kernel, conv).diagram)
    assert abs(filter_persistence(kernel, conv) - ours) > 1


@pytest.mark.parametrize("conv", [Conv(2, 2, (3, 3), (8, 8), groups=2), Conv(2, 2, (3, 3), (8, 8), transposed=True)])
def test_the_authors_persistence_knows_no_groups_and_no_transposed_convolutions(conv):
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a convolution without groups"):
        filter_persistence(np.ones(conv.weight_shape), conv)
