"""Bounds on critical kernel weights, against graphs written out in full."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive_convolution
from topobounds.layers import Conv
from topobounds.theory.critical_weights import critical_weights_bound, critical_weights_range
from topobounds.topology.convolution import critical_kernel_weights


def n_critical(conv, order):
    """Critical weights where the weights come in this order."""
    kernel = np.empty(conv.n_weights)
    kernel[list(order)] = range(conv.n_weights, 0, -1)
    return int((naive_convolution.critical(conv, kernel) > 0).sum())


def all_counts(conv):
    """Critical weights for every order of the weights."""
    return {n_critical(conv, order) for order in itertools.permutations(range(conv.n_weights))}


def components(n_vertices, edges):
    label = list(range(n_vertices))
    for a, b in edges:
        label = [label[a] if each == label[b] else each for each in label]
    return label


def zero_padded_bound(conv):
    """Return the bound by its definition: residues that are read, and dimensions along which something moves."""
    residues, moving = 1, 0
    for axis in conv.axes:
        edges = [
            (q * axis.stride - axis.padding + t * axis.dilation, q)
            for q in range(axis.positions)
            for t in range(axis.kernel)
        ]
        edges = [(x, q) for x, q in edges if 0 <= x < axis.size]
        residues *= len({x % axis.stride for x, _ in edges})
        label = components(axis.size + axis.positions, [(x, axis.size + q) for x, q in edges])
        cells = [("cell", x % axis.stride, label[x]) for x in range(axis.size)]
        positions = [("position", label[axis.size + q]) for q in range(axis.positions)]
        moving += len(set(cells)) < len(cells) or len(set(positions)) < len(positions)
    if not residues:
        return 0
    ins, outs = (conv.out_channels, conv.in_channels) if conv.transposed else (conv.in_channels, conv.out_channels)
    return ins * residues + outs - conv.groups + conv.groups * moving


@pytest.mark.parametrize(
    ("conv", "bound"),
    [
        (Conv(64, 64, (3, 3), (8, 8), padding=1), 129),
        (Conv(512, 512, (3, 3), (14, 14), padding=1), 1025),
        (Conv(1, 1, (3, 3), (8, 8), padding=1), 3),
        (Conv(16, 32, (1, 1), (8, 8)), 47),  # a dense layer at every position
        (Conv(16, 32, (3, 3), (8, 8), 2, 1), 4 * 16 + 32 - 1 + 2),  # four residues
        (Conv(1, 1, 2, 2, 2), 2),  # two cells of two residues, which no walk shifts
        (Conv(8, 8, 3, 9, padding=1, groups=8), 16),
        (Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="circular"), 5),
        (Conv(2, 2, (3, 3), (7, 9), padding=1, padding_mode="circular"), 4),  # one diagonal step reaches every cell
        (Conv(1, 1, (3, 3, 3), (6, 4, 9), padding=1, padding_mode="circular"), 1 + 2),
        (Conv(1, 1, (3, 3), (8, 8), 2, 1, padding_mode="circular"), 4 + 1 - 1 + 2),
        (Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="reflect"), 5),
        (Conv(2, 2, (3, 3), (8, 8), padding=2, dilation=2, padding_mode="reflect"), 3),
        (Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="replicate"), 3),
        (Conv(2, 2, (3, 3), (8, 8), padding_mode="replicate"), 5),  # no padding is read
        (Conv(3, 2, 1, 1, stride=5, padding=1), 0),  # only padding is
    ],
)
def test_known_bounds(conv, bound):
    assert critical_weights_bound(conv) == bound


def test_the_bound_is_its_definition_with_zero_padding():
    rng = np.random.default_rng(0)
    for _ in range(300):
        conv = naive_convolution.random_conv(rng, modes=("zeros",))
        assert critical_weights_bound(conv) == zero_padded_bound(conv), conv


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32 - 1))
def test_no_random_kernel_leaves_the_range(seed):
    rng = np.random.default_rng(seed)
    conv = naive_convolution.random_conv(rng)
    lower, upper = critical_weights_range(conv)
    assert lower == critical_weights_bound(conv)
    assert lower <= n_critical(conv, rng.permutation(conv.n_weights)) <= upper, conv


SMALL = [
    Conv(1, 1, 3, 4, padding=1),
    Conv(1, 1, 3, 7, stride=2, padding=1),
    Conv(1, 1, (2, 2), (3, 3)),
    Conv(1, 1, (2, 2), (3, 3), padding=1),
    Conv(1, 1, (2, 3), (2, 4), padding="same"),
    Conv(2, 1, 3, 4, padding=1),
    Conv(2, 2, 3, 4, padding=1, groups=2),
    Conv(1, 1, (2, 3), (4, 4), padding="same", padding_mode="circular"),
    Conv(1, 1, 6, 12, padding="same", padding_mode="circular"),
    Conv(1, 1, (2, 2), (4, 6), stride=2, padding_mode="circular"),
    Conv(1, 1, 5, 4, padding=(1,), padding_end=3, padding_mode="circular"),
    Conv(1, 1, (2, 3), (3, 3), padding="same", padding_mode="reflect"),
    Conv(1, 1, (2, 3), (3, 3), padding="same", padding_mode="replicate"),
    Conv(1, 1, 4, 6, stride=2, padding=1, transposed=True),
]


@functools.cache
def _extremes(conv):
    counts = all_counts(conv)
    return min(counts), max(counts)


@pytest.mark.parametrize("conv", SMALL)
def test_no_order_of_the_weights_leaves_the_range(conv):
    lower, upper = critical_weights_range(conv)
    least, most = _extremes(conv)
    assert lower <= least
    assert most <= upper


def test_the_bounds_are_attained():
    lower = [critical_weights_range(conv)[0] == _extremes(conv)[0] for conv in SMALL]
    upper = [critical_weights_range(conv)[1] == _extremes(conv)[1] for conv in SMALL]
    assert sum(lower) >= len(SMALL) // 2
    assert any(upper)


def test_two_taps_connect_a_replicated_map():
    # The bound for zero padding, 3, does not hold: the diagonal tap takes every cell to the corner, step by step.
    conv = Conv(1, 1, (2, 2), (5, 7), padding=0, padding_end=1, padding_mode="replicate")
    assert conv.output_size == (5, 7)
    assert conv.n_components == 1
    assert n_critical(conv, [0, 3, 1, 2]) == 2
    assert critical_weights_bound(conv) == 1


def test_more_weights_of_a_circular_kernel_are_critical_than_the_torus_has_growths():
    # Cin + Cout - 1 + Omega(8) + Omega(8) = 9 is no bound: two pairs of channels grow apart before they are joined.
    conv = Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="circular")
    slow = [2, 8, 3, 6, 0, 1, 4, 5, 7]
    between = list(range(9, 27))
    assert n_critical(conv, slow + [27 + tap for tap in slow] + between) == 11
    assert critical_weights_range(conv) == (5, 15)


def test_a_transposed_convolution_has_the_bound_of_its_mirror():
    for stride, padding, kernel in itertools.product((1, 2, 3), (0, 1), (1, 2, 4)):
        conv = Conv(6, 4, (kernel, 4), (13, 13), stride, padding, groups=2)
        image = Conv(4, 6, (kernel, 4), conv.output_size, stride, padding, groups=2, transposed=True)
        if image.output_size == conv.input_size:
            assert critical_weights_range(image) == critical_weights_range(conv)


def test_the_critical_weights_of_a_larger_map_are_among_those_of_a_smaller_one():
    rng = np.random.default_rng(0)
    compared = fewer = 0
    while compared < 400:
        small = naive_convolution.random_conv(rng, modes=("zeros",))
        more = rng.integers(0, 4, len(small.axes)).tolist()
        sizes = [size + m * stride for size, m, stride in zip(small.input_size, more, small.stride, strict=True)]
        if small.transposed or any(axis.size < axis.stride for axis in small.axes):
            continue
        large = Conv(
            small.in_channels,
            small.out_channels,
            small.kernel_size,
            sizes,
            small.stride,
            small.padding,
            small.dilation,
            small.groups,
        )
        reading = [{w for _, _, w in naive_convolution.edges(conv)} for conv in (small, large)]
        if reading[0] != reading[1]:
            continue
        kernel = np.round(2 * rng.standard_normal(small.weight_shape), int(rng.integers(2)))  # with ties and zeros
        critical = [set(critical_kernel_weights(kernel, conv).indices.tolist()) for conv in (small, large)]
        assert critical[1] <= critical[0], (small, large)
        compared += 1
        fewer += critical[1] < critical[0]
    assert fewer


def test_the_bound_takes_no_longer_for_a_large_map():
    conv = Conv(2048, 2048, (7, 7), (2**20, 2**20), padding=3)
    assert critical_weights_bound(conv) == 4097
    assert critical_weights_bound(Conv(1, 1, 2**16, 2**20)) == 2


def test_a_kernel_with_zeros_may_have_fewer_critical_weights():
    conv = Conv(2, 2, 3, 6, padding=1)
    kernel = np.zeros(conv.weight_shape)
    kernel[0, 0, 1] = 1
    assert (naive_convolution.critical(conv, kernel) > 0).sum() == 1
    assert critical_weights_bound(conv) == 4


@pytest.mark.parametrize("conv", [None, 3, (3, 3), {}])
def test_what_is_no_conv_is_refused(conv):
    for function in (critical_weights_bound, critical_weights_range):
        with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv, not .*\.$"):
            function(conv)
