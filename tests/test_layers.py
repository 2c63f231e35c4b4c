"""What a layer is to a graph, against brute force and torch's own convolutions."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from tests import naive_convolution
from tests.floods import seeds
from topobounds.layers import Conv, Dense, Network, PrintedCounts, Recurrent, Unrolled, is_layer
from topobounds.supports import cells_at_density


@pytest.mark.parametrize("seed", seeds(4, 16))
def test_counts_of_random_geometries_are_those_of_the_explicit_graph(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        conv = naive_convolution.random_conv(rng)
        kernel = rng.integers(1, 100, conv.weight_shape).astype(float)
        explicit = naive_convolution.matrix(conv, kernel)
        np.testing.assert_array_equal(explicit, naive_convolution.torch_matrix(conv, kernel), err_msg=repr(conv))
        pairs = [(i, conv.n_inputs + o) for i, o in np.argwhere(explicit).tolist()]
        assert conv.n_edges == len(pairs), conv
        assert conv.n_components == naive_convolution.components(conv.n_vertices, pairs), conv


def test_counts_of_random_axes_are_those_of_the_explicit_graph():
    rng = np.random.default_rng(0)
    for _ in range(400):
        stride, dilation, kernel = (int(x) for x in rng.integers(1, 8, 3))
        size, padding = int(rng.integers(1, 40)), int(rng.integers(0, 8))
        mode = str(rng.choice(["zeros", "circular", "reflect", "replicate"]))
        try:
            conv = Conv(1, 1, kernel, size, stride, padding, dilation, padding_mode=mode)
        except ValueError:
            continue
        pairs = {(i, size + o) for i, o, _ in naive_convolution.edges(conv)}
        assert conv.n_edges == len(pairs), conv
        assert conv.n_components == naive_convolution.components(conv.n_vertices, pairs), conv


def test_known_counts():
    conv = Conv(16, 16, (3, 3), (8, 8), padding=1)
    assert (conv.n_edges, conv.n_vertices, conv.n_components) == (16 * 16 * 22**2, 2048, 1)
    assert Conv(16, 32, (1, 1), (8, 8)).n_components == 64  # one dense layer per pixel
    assert Conv(12, 12, (3, 3), (8, 8), padding=1, groups=12).n_components == 12
    assert Conv(3, 8, (4, 4), (16, 16), stride=4).n_components == 16  # patches share nothing
    assert Conv(1, 1, (2, 2), (7, 7), stride=3).n_components == 4 + 49 - 16  # cells between the patches are lone
    assert Conv(1, 1, 3, 9, dilation=3).n_components == 3
    assert Conv(1, 1, 1, 1, stride=5, padding=1).n_components == 2  # the one tap reads padding only


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_is_that_of_torch(kernel, mode, dilation):
    conv = Conv(1, 1, kernel, 9, padding="same", dilation=dilation, padding_mode=mode)
    assert conv.output_size == (9,)
    layer = nn.Conv1d(
        1, 1, kernel, padding="same", dilation=dilation, padding_mode=mode, bias=False, dtype=torch.float64
    )
    weights = layer.weight.detach().numpy()
    with torch.no_grad():
        answers = layer(torch.eye(9, dtype=torch.float64).reshape(9, 1, 9)).reshape(9, 9).numpy()
    np.testing.assert_allclose(naive_convolution.matrix(conv, weights), answers, rtol=1e-14)
    assert conv.n_edges == np.count_nonzero(naive_convolution.matrix(conv, np.ones(weights.shape)))


def test_valid_and_one_sided_padding():
    assert Conv(1, 1, (3, 3), (8, 8), padding="valid") == Conv(1, 1, (3, 3), (8, 8))
    conv = Conv(1, 1, 3, 8, stride=2, padding=0, padding_end=1)
    assert (conv.output_size, conv.padded_size, conv.n_edges) == ((4,), (9,), 11)


def test_a_pair_joined_twice_is_one_edge():
    conv = Conv(1, 1, 3, 2, padding=1, padding_mode="circular")  # both outer taps read the other cell
    assert (conv.n_edges, len(naive_convolution.edges(conv))) == (4, 6)


def test_a_transposed_convolution_is_the_mirror_of_a_convolution():
    up = Conv(4, 6, (4, 3), (5, 5), stride=2, padding=1, groups=2, transposed=True)
    down = Conv(6, 4, (4, 3), up.output_size, stride=2, padding=1, groups=2)
    assert down.output_size == up.input_size == up.kernel_positions
    assert up.weight_shape == down.weight_shape
    assert up.padded_size == down.padded_size
    for count in ("n_edges", "n_vertices", "n_components", "n_weights"):
        assert getattr(up, count) == getattr(down, count)


def test_long_signals_are_counted_at_once():
    start = time.perf_counter()
    conv = Conv(1, 512, 400, 16_000, padding=200)
    assert conv.n_edges == 512 * sum(min(q + 200, 16_000) - max(q - 200, 0) for q in range(16_001))
    assert conv.n_components == 1
    assert time.perf_counter() - start < 5


def test_numbers_stand_for_every_dimension():
    assert Conv(1, 1, 3, (8, 9), 2, 1).kernel_size == (3, 3)
    assert Conv(1, 1, [3, 1], 8).input_size == (8, 8)
    assert Conv(1, 1, 3, 8).output_size == (6,)


@pytest.mark.parametrize(
    ("shape", "density", "cells"),
    [
        ((5, 20), 0.235, 24),  # 23.5: halves go to even, and 0.235 * 5 * 20 is 23.499999999999996
        ((5, 10), 0.45, 22),
        ((2, 3), Fraction(1, 12), 0),
        ((2, 3), Fraction(1, 4), 2),
        ((784, 300), 0.1, 23520),
        ((3, 3), 5e-324, 0),
        ((2**26, 2**26), 1.0, 2**52),
        ((4, 4), np.float32(0.1), 2),
    ],
)
def test_cells_at_a_density(shape, density, cells):
    assert cells_at_density(*shape, density) == cells


def test_unrolled_layers():
    assert Unrolled(5, 1).n_edges == Recurrent(5).n_edges == Dense(5, 5).n_edges
    assert Unrolled(5, 1).n_vertices == Recurrent(5).n_vertices
    layer = Unrolled(hidden_size=3, steps=4, input_size=2, gates=4)
    assert (layer.n_weights, layer.n_edges, layer.n_vertices, layer.n_components) == (60, 60, 23, 1)


GIVEN = (2, 4, (3, 3), (8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 0}, "Argument 'stride' must be a positive integer, not 0."),
        ({"padding": -1}, "Argument 'padding' must be a non-negative integer, not -1."),
        ({"padding": (1, 1, 1)}, "Argument 'padding' must be a number or 2 of them, not (1, 1, 1)."),
        ({"dilation": 1.5}, "Argument 'dilation' must be a positive integer, not 1.5."),
        ({"groups": 3}, "Argument 'groups' must divide in_channels=2 and out_channels=4, not 3."),
        (
            {"dilation": 4},
            "Argument 'kernel_size' must fit the padded input: 3 taps at dilation 4 span 9 cells, not the 8",
        ),
        ({"padding_mode": "mirror"}, "Argument 'padding_mode' must be one of 'zeros', 'circular'"),
        ({"padding_mode": "reflect", "padding": 8}, "Argument 'padding' must be at most 7 where padding_mode"),
        ({"padding_mode": "circular", "padding": 9}, "Argument 'padding' must be at most 8 where padding_mode"),
        ({"padding": "full"}, "Argument 'padding' must be one of 'valid', 'same', not 'full'."),
        ({"padding": "same", "stride": 2}, "Argument 'padding' must be a number where the stride is not 1"),
        ({"padding": "same", "padding_end": 1}, "Argument 'padding_end' must be left out where padding is 'same'"),
        ({"output_padding": 1}, "Argument 'output_padding' must be 0 where the convolution is not transposed"),
        ({"transposed": True, "output_padding": 1}, "Argument 'output_padding' must be less than the stride 1"),
        (
            {"padding": (0, 10**11)},
            "Argument 'input_size' must be so small that input and output have at most 16777216",
        ),
        ({"transposed": "no"}, "Argument 'transposed' must be True or False, not 'no'."),
        ({"transposed": True, "padding": 5}, "Argument 'padding' must be so small that an output is left"),
        ({"transposed": True, "padding_mode": "circular"}, "Argument 'padding_mode' must be 'zeros' where"),
    ],
)
def test_bad_geometry_is_named(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared whole below
        Conv(*GIVEN, **arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(0, 1, 3, 8), "Argument 'in_channels' must be a positive integer, not 0."),
        (lambda: Conv(1, 1, (), 8), "Argument 'kernel_size' must be given along 1 to 3 dimensions, not ()."),
        (lambda: Conv(1, 1, (1,) * 4, 8), "Argument 'kernel_size' must be given along 1 to 3 dimensions"),
        (lambda: Conv(1, 1, (3, 3), (8,)), "Argument 'input_size' must be a number or 2 of them, not (8,)."),
        (lambda: Conv(1, 1, "3", 8), "Argument 'kernel_size' must be a positive integer, not '3'."),
        (
            lambda: Conv(1, 1, 3, 10**11),
            "Argument 'input_size' must be so small that input and output have at most 16777",
        ),
        (lambda: Dense(0, 3), "Argument 'm' must be a positive integer, not 0."),
        (lambda: Recurrent(-1), "Argument 'hidden_size' must be a positive integer, not -1."),
        (lambda: Unrolled(3, 0), "Argument 'steps' must be a positive integer, not 0."),
        (lambda: Unrolled(3, 1, -1), "Argument 'input_size' must be a non-negative integer, not -1."),
    ],
)
def test_bad_shapes_are_named(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - likewise
        make()
    assert str(error.value).startswith(message)


# what all shapes have in common

SHAPES = [
    Dense(7, 3),
    Recurrent(4),
    Unrolled(4, 3, 2, 4),
    Network([(Dense(3, 2), 0, 1), (Dense(2, 2), 1, 1)]),
    Conv(2, 3, (3,), (7,), stride=2),
]


def test_a_shape_is_told_from_what_is_none_by_its_type():
    assert all(map(is_layer, SHAPES))
    assert not any(map(is_layer, [(3, 2), "dense", None, Dense, 3, object()]))


def test_where_every_weight_is_an_edge_the_shape_fixes_how_many_are_critical():
    fixed = {type(shape): shape.n_critical for shape in SHAPES}
    assert fixed == {Dense: 9, Recurrent: 7, Unrolled: 21, Network: 4, Conv: None}


def test_the_printed_counts_are_a_spanning_tree_of_a_connected_graph():
    counts = [shape.printed_counts for shape in SHAPES]
    assert counts == [
        PrintedCounts(21, 9, 1),
        PrintedCounts(16, 7, 1),
        PrintedCounts(72, 21, 1),
        PrintedCounts(10, 4, None),
        PrintedCounts(9, 9, None),  # 3 positions of 3 taps; 7 cells and 3 positions
    ]
    assert not any(each.reason for each in counts)


def test_a_printed_quotient_below_one_says_why():
    below = Conv(4, 4, (1, 1), (8, 8)).printed_counts
    assert (below.weights, below.kept) == (64, 127)
    assert "no compression ratio" in below.reason


def test_neurons_of_a_layer_of_one_tensor():
    assert [(s.n_inputs, s.n_outputs) for s in (Dense(7, 3), Recurrent(4), SHAPES[-1])] == [(7, 3), (4, 4), (14, 9)]
