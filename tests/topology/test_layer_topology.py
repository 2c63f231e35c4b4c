"""Stored tensors as graphs: names, shapes and parts, and a topology that is that of its parts."""

import numpy as np
import pytest

from topobounds import critical_kernel_weights, maximum_spanning_forest
from topobounds.layers import Conv, Dense, LayerTensor, Recurrent
from topobounds.layers.layer_tensor import GATES, numbered_parts
from topobounds.layers.layout import Layout
from topobounds.pruning import magnitude_mask
from topobounds.topology.layer_topology import FORESTS, graph_topology, layer_topology

CONV = Conv(4, 6, (3, 3), (5, 5), padding=1)
TENSORS = [
    LayerTensor("dense", (12, 9)),
    LayerTensor("embedding", (7, 5), "embedding", inputs_first=True),
    LayerTensor("gates", (20, 7), parts=GATES["LSTM"]),
    LayerTensor("hidden", (15, 5), "recurrent", GATES["GRU"]),
    LayerTensor("kernel", (6, 4, 3, 3), "conv", geometry=CONV),
    LayerTensor("flat", (6, 2, 3), "conv", groups=3).with_geometry(None),
]
LAID_OUT = [
    LayerTensor("heads", (12, 5), parts=("q", "k", "v"), layout=Layout(sizes=(6, 3, 3), interleaved=3)),
    LayerTensor("columns", (5, 12), parts=("q", "k"), inputs_first=True, layout=Layout(axis=1, sizes=(8, 4))),
    LayerTensor("experts", (2, 4, 6), parts=("0 a", "0 b", "1 a", "1 b"), layout=Layout(stacked=1, axis=1)),
    LayerTensor("alternating", (2, 4, 6), parts=("0 a", "0 b", "1 a", "1 b"), inputs_first=True,
                layout=Layout(stacked=1, axis=1, sizes=(3, 3), interleaved=3)),
    LayerTensor("projection", (4, 3, 5), inputs_first=True, layout=Layout(row_axes=2)),
    LayerTensor("channels last", (3, 3, 4, 6), "conv", geometry=CONV, layout=Layout(order=(3, 2, 0, 1))),
]  # fmt: skip


def random_layer(tensor, seed):
    """Return weights with ties and zeros, and a mask."""
    rng = np.random.default_rng(seed)
    return np.round(rng.standard_normal(tensor.shape), 1), rng.random(tensor.shape) < 0.6


def forest_of_part(tensor, part, mask):
    """Return the forest of a part, and the mask of the weights that carry it."""
    if tensor.geometry is not None:
        forest = critical_kernel_weights(part, CONV, mask)
        return forest, forest.mask
    forest = maximum_spanning_forest(part.reshape(len(part), -1), mask.reshape(len(part), -1))
    carries = np.zeros((len(part), part.size // len(part)), np.bool_)
    carries[forest.rows, forest.cols] = True
    return forest, carries.reshape(part.shape)


def test_the_graph_of_a_part_follows_from_shape_and_kind():
    assert [tensor.graph for tensor in TENSORS] == [
        Dense(9, 12),
        Dense(7, 5),
        Dense(7, 5),
        Recurrent(5),
        CONV,
        Dense(6, 2),
    ]


def test_the_parts_are_named_after_the_tensor():
    assert TENSORS[0].part_names == ("dense",)
    assert TENSORS[2].part_names == ("gates[input]", "gates[forget]", "gates[cell]", "gates[output]")
    assert TENSORS[5].part_names == ("flat[0]", "flat[1]", "flat[2]")
    assert numbered_parts(1) == ("",)


def test_a_name_within_its_source():
    assert LayerTensor("encoder.rnn.weight_hh_l0", source="encoder.rnn").own_name == "weight_hh_l0"
    assert LayerTensor("weight").own_name == "weight"


def test_a_geometry_is_for_kernels_only():
    assert TENSORS[0].with_geometry(CONV) is TENSORS[0]
    kernel = LayerTensor("kernel", (6, 4, 3, 3), "conv", groups=2).with_geometry(CONV)
    assert (kernel.parts, kernel.geometry) == (("",), CONV)


@pytest.mark.parametrize("tensor", TENSORS + LAID_OUT, ids=lambda tensor: tensor.name)
def test_joining_undoes_splitting(tensor):
    weights, _ = random_layer(tensor, 0)
    parts = tensor.split(weights)
    assert len(parts) == len(tensor.parts)
    np.testing.assert_array_equal(tensor.join(parts), weights)


@pytest.mark.parametrize("tensor", TENSORS + LAID_OUT, ids=lambda tensor: tensor.name)
@pytest.mark.parametrize("seed", range(4))
def test_a_topology_is_that_of_the_forests_of_its_parts(tensor, seed):
    weights, mask = random_layer(tensor, seed)
    topology = layer_topology(tensor, weights, mask)
    n_critical = alpha = n_components = held = 0
    critical = []
    for part, alive in zip(tensor.split(weights), tensor.split(mask), strict=True):
        forest, carries = forest_of_part(tensor, part, alive)
        critical.append(carries)
        alpha += forest.alpha
        n_components += forest.n_components
        n_critical += int(carries.sum())
        held += int((magnitude_mask(part, int(carries.sum()), alive) & carries).sum())
    np.testing.assert_array_equal(topology.critical, tensor.join(critical))
    assert (topology.n_critical, topology.alpha, topology.n_components) == (n_critical, alpha, n_components)
    assert topology.overlap == held / n_critical


def test_parts_lie_where_their_layout_says():
    tensors = {tensor.name: tensor for tensor in LAID_OUT}
    grid = np.arange(60).reshape(12, 5)
    heads = tensors["heads"].split(grid)
    rows = [[0, 1, 4, 5, 8, 9], [2, 6, 10], [3, 7, 11]]
    assert [part.tolist() for part in heads] == [grid[places].tolist() for places in rows]
    assert tensors["heads"].graphs == (Dense(5, 6), Dense(5, 3), Dense(5, 3))
    assert tensors["heads"].n_critical == 10 + 7 + 7
    stack = np.arange(48).reshape(2, 4, 6)
    assert tensors["experts"].split(stack)[3].tolist() == stack[1, :, 3:].tolist()
    assert tensors["alternating"].split(stack)[2].tolist() == stack[1, :, ::2].tolist()
    assert np.shares_memory(tensors["alternating"].split(stack)[2], stack)
    assert tensors["alternating"].graphs == (Dense(4, 3),) * 4
    assert tensors["projection"].graph == Dense(12, 5)
    kernel = np.arange(216).reshape(3, 3, 4, 6)
    assert tensors["channels last"].split(kernel)[0][5, 3, 0, 2] == kernel[0, 2, 3, 5]
    assert tensors["experts"].read_as == ("dense layer, 3 inputs x 4 outputs",) * 4


@pytest.mark.parametrize(
    ("parts", "layout"),
    [
        (2, Layout(sizes=(3, 3))),
        (2, Layout(sizes=(4, 8), interleaved=3)),
        (2, Layout(sizes=(6, 6, 0))),
        (5, Layout()),
        (7, Layout(stacked=1)),
        (2, Layout(axis=4)),
    ],
)
def test_a_tensor_that_cannot_be_cut_so_says_it(parts, layout):
    with pytest.raises(ValueError, match=r"cannot be cut from (12 rows or columns|a tensor of shape \(12, 5\))\."):
        _ = LayerTensor("a", (12, 5), parts=numbered_parts(parts), layout=layout).graphs


def test_a_topology_is_kept_by_the_mask_of_its_critical_weights():
    for tensor in TENSORS:
        weights, mask = random_layer(tensor, 5)
        topology = layer_topology(tensor, weights, mask)
        assert topology.is_kept_by(layer_topology(tensor, weights, topology.critical))
        assert topology.share_in(topology.critical) == 1.0
        largest = np.unravel_index(np.argmax(np.where(topology.critical, np.abs(weights), 0)), weights.shape)
        without = topology.critical.copy()
        without[largest] = False
        assert not topology.is_kept_by(layer_topology(tensor, weights, without))
        assert topology.share_in(without) == (topology.n_critical - 1) / topology.n_critical


def test_a_tensor_of_pruned_weights_has_no_critical_ones():
    for tensor in TENSORS:
        weights, _ = random_layer(tensor, 1)
        topology = layer_topology(tensor, weights, np.zeros(tensor.shape, np.bool_))
        assert (topology.n_critical, topology.overlap, topology.share_in(topology.critical)) == (0, 1.0, 1.0)


def test_the_critical_weights_that_the_shape_fixes_are_those_of_weights_without_zeros():
    for tensor in TENSORS:
        weights = np.random.default_rng(2).standard_normal(tensor.shape)
        if tensor.n_critical is not None:
            assert tensor.n_critical == layer_topology(tensor, weights).n_critical
    assert [tensor.name for tensor in TENSORS if tensor.n_critical is None] == ["kernel"]


def test_every_shape_of_one_tensor_has_a_forest():
    assert set(FORESTS) == {Dense, Recurrent, Conv}
    assert graph_topology(Recurrent(4), np.ones((4, 4))).n_critical == 7


def test_what_cannot_be_is_refused():
    tensor = TENSORS[2]
    weights, mask = random_layer(tensor, 0)
    with pytest.raises(ValueError, match=r"'weights' must be an array with at least one entry, not \(0, 3\)"):
        layer_topology(LayerTensor("none", (0, 3)), np.ones((0, 3)))
    weights[13, 2], mask[13, 2] = np.inf, True
    with pytest.raises(ValueError, match=r"1 of its 140 entries .* the first at row 13, column 2: inf"):
        layer_topology(tensor, weights, mask)
    mask[13, 2] = False
    layer_topology(tensor, weights, mask)
