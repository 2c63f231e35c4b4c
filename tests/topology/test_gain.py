"""Circular convolutions by gain graphs, against the layer graph itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive_convolution
from topobounds.layers import Conv
from topobounds.theory.critical_weights import critical_weights_range
from topobounds.topology.convolution import critical_kernel_weights
from topobounds.topology.gain import _n_cosets, _with_vector, circular_critical_kernel_weights


def random_torus(rng):
    """Return a random small circular convolution whose output has input size / stride cells."""
    while True:
        n_axes = int(rng.choice([1, 2, 2, 3]))
        groups = int(rng.choice([1, 1, 2, 3]))
        channels = groups * rng.integers(1, 4, 2)
        stride = rng.choice([1, 1, 1, 2, 3], n_axes)
        positions = rng.integers(1, {1: 13, 2: 8, 3: 5}[n_axes], n_axes)
        kernel, dilation = rng.integers(1, 5, n_axes), rng.integers(1, 4, n_axes)
        padding = rng.integers(0, 5, n_axes)
        padding_end = (positions - 1) * stride + dilation * (kernel - 1) + 1 - positions * stride - padding
        try:
            return Conv(
                int(channels[0]),
                int(channels[1]),
                tuple(kernel.tolist()),
                tuple((positions * stride).tolist()),
                tuple(stride.tolist()),
                tuple(padding.tolist()),
                tuple(dilation.tolist()),
                groups,
                padding_end=tuple(padding_end.tolist()),
                padding_mode="circular",
            )
        except ValueError:
            continue


def random_kernel(rng, conv):
    """Return a kernel of distinct weights, of tied ones with zeros, or of few weights that are not zero."""
    kernel = rng.standard_normal(conv.weight_shape)
    return [kernel, np.round(2 * kernel), np.where(rng.random(kernel.shape) < 0.6, 0, kernel)][rng.integers(3)]


@pytest.mark.parametrize("seed", range(3))
def test_both_roads_agree_on_random_circular_convolutions(seed):
    rng = np.random.default_rng(seed)
    for _ in range(100):
        conv = random_torus(rng)
        kernel = random_kernel(rng, conv)
        by_gains, by_graph = circular_critical_kernel_weights(kernel, conv), critical_kernel_weights(kernel, conv)
        np.testing.assert_array_equal(by_gains.indices, by_graph.indices, err_msg=repr(conv))
        np.testing.assert_array_equal(by_gains.merges, by_graph.merges, err_msg=repr(conv))
        np.testing.assert_array_equal(by_gains.weights, by_graph.weights)
        assert by_gains.n_components == by_graph.n_components
        assert by_gains.alpha == by_graph.alpha
        if kernel.all():
            lower, upper = critical_weights_range(conv)
            assert lower <= by_gains.n_critical <= upper


def test_the_explicit_graph_agrees():
    rng = np.random.default_rng(7)
    for _ in range(30):
        conv = random_torus(rng)
        kernel = random_kernel(rng, conv)
        expected = naive_convolution.critical(conv, kernel)
        np.testing.assert_array_equal(circular_critical_kernel_weights(kernel, conv).multiplicities.ravel(), expected)


def test_many_channels():
    conv = Conv(32, 48, (3, 3), (8, 8), padding=1, padding_mode="circular")
    kernel = np.random.default_rng(0).standard_normal(conv.weight_shape).astype(np.float32)
    by_gains, by_graph = circular_critical_kernel_weights(kernel, conv), critical_kernel_weights(kernel, conv)
    np.testing.assert_array_equal(by_gains.indices, by_graph.indices)
    np.testing.assert_array_equal(by_gains.merges, by_graph.merges)
    assert by_gains.weights.dtype == np.float32


@pytest.mark.parametrize(
    "conv",
    [
        Conv(4, 6, (1, 1), (5, 5)),  # without padding: a dense layer at every position
        Conv(3, 5, (2, 2), (6, 6), stride=2),  # patches
        Conv(5, 3, (2, 2), (3, 3), stride=2, transposed=True),
        Conv(2, 3, (3, 1), (6, 5), padding=(1, 0), padding_mode="circular"),
    ],
)
def test_geometries_that_read_no_padding(conv):
    kernel = np.random.default_rng(1).standard_normal(conv.weight_shape)
    expected = critical_kernel_weights(kernel, conv)
    np.testing.assert_array_equal(circular_critical_kernel_weights(kernel, conv).indices, expected.indices)


def test_every_type_of_weights():
    conv = Conv(3, 4, (3, 3), (6, 6), padding=1, padding_mode="circular")
    kernel = (30 * np.random.default_rng(2).standard_normal(conv.weight_shape)).round()
    expected = critical_kernel_weights(kernel, conv).indices
    for given_kernel in (kernel.astype(np.float16), kernel.astype(np.int64), torch.from_numpy(kernel), kernel.tolist()):
        np.testing.assert_array_equal(circular_critical_kernel_weights(given_kernel, conv).indices, expected)


def test_a_kernel_of_zeros_has_no_critical_weight():
    conv = Conv(2, 3, (3, 3), (4, 4), padding=1, padding_mode="circular")
    found = circular_critical_kernel_weights(np.zeros(conv.weight_shape), conv)
    assert (found.n_critical, found.alpha, found.n_components) == (0, 0, 80)


@pytest.mark.parametrize(
    "conv",
    [
        Conv(2, 2, (3, 3), (8, 8), padding=1),
        Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="reflect"),
        Conv(2, 2, (3, 3), (8, 8), padding=0, padding_mode="circular"),
        Conv(2, 2, (3, 3), (7, 7), stride=2, padding=1, padding_mode="circular"),
    ],
)
def test_what_is_no_torus_is_refused(conv):
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv with circular padding and an output of "):
        circular_critical_kernel_weights(np.ones(conv.weight_shape), conv)


def test_bad_weights_are_refused():
    conv = Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="circular")
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv, not 3\.$"):
        circular_critical_kernel_weights(np.ones(conv.weight_shape), 3)
    with pytest.raises(ValueError, match=r"^Argument 'weights' must be an array of the shape of the kernel, "):
        circular_critical_kernel_weights(np.ones((2, 2, 3)), conv)
    kernel = np.ones(conv.weight_shape)
    kernel[1, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match=r"must be finite, but .*, the first at index \(1, 0, 2, 2\): nan\.$"):
        circular_critical_kernel_weights(kernel, conv)


# -- lattices --------------------------------------------------------------------------------------------------------


def generated(periods, vectors):
    """Return the elements of the torus that vectors generate, by adding until nothing new comes."""
    elements, new = {(0,) * len(periods)}, [(0,) * len(periods)]
    while new:
        element = new.pop()
        for vector in vectors:
            total = tuple((x + y) % p for x, y, p in zip(element, vector, periods, strict=True))
            if total not in elements:
                elements.add(total)
                new.append(total)
    return elements


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_the_hermite_form_is_that_of_the_generated_lattice(data):
    periods = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    vector = st.tuples(*[st.integers(-8, 8)] * len(periods))
    vectors = data.draw(st.lists(vector, max_size=4))
    torus = tuple(tuple(p * (a == b) for b in range(len(periods))) for a, p in enumerate(periods))
    lattice = torus
    for each in vectors:
        lattice = _with_vector(lattice, each)
    backwards = torus
    for each in reversed(vectors):
        backwards = _with_vector(backwards, each)
    assert lattice == backwards  # one form for one lattice
    elements = generated(periods, vectors)
    assert _n_cosets(lattice) * len(elements) == math.prod(periods)
    assert generated(periods, lattice) == elements
    for a, b in itertools.product(range(len(periods)), repeat=2):
        assert lattice[a][a] > 0
        assert lattice[a][b] == 0 if b < a else 0 <= lattice[a][b] < max(lattice[b][b], lattice[a][b] + (a == b))
