"""Kernels in random order, against every order and every subset of small ones."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests import naive_convolution
from topobounds.layers import Conv
from topobounds.theory import random_kernels
from topobounds.theory.counting import exact_expected_overlap
from topobounds.theory.critical_weights import critical_weights_range
from topobounds.theory.random_kernels import (
    coverage_constant,
    exact_expected_critical_weights,
    expected_channel_overlap,
)
from topobounds.topology.convolution import critical_kernel_weights


def critical_in_order(conv, order):
    """Return the critical weights where the weights come in this order."""
    kernel = np.empty(conv.n_weights)
    kernel[list(order)] = range(conv.n_weights, 0, -1)
    return int((naive_convolution.critical(conv, kernel) > 0).sum())


def mean_over_orders(conv):
    """Return the mean number of critical weights over all orders."""
    counts = [critical_in_order(conv, order) for order in itertools.permutations(range(conv.n_weights))]
    return Fraction(sum(counts), len(counts))


def components_of_subsets(conv):
    """Return the components of the layer with each subset of its weights, as bits, each counted anew."""
    kept = []
    for bits in range(2**conv.n_weights):
        pairs = [(i, conv.n_inputs + o) for i, o, w in naive_convolution.edges(conv) if bits >> w & 1]
        kept.append(naive_convolution.components(conv.n_vertices, pairs))
    return kept


def mean_over_subsets(conv):
    """Return the mean over all orders by all subsets of the weights."""
    n = conv.n_weights
    kept = components_of_subsets(conv)
    total = Fraction(0)
    for bits, weight in itertools.product(range(2**n), range(n)):
        if not bits >> weight & 1 and kept[bits | 1 << weight] < kept[bits]:
            before = bits.bit_count()
            total += Fraction(math.factorial(before) * math.factorial(n - before - 1), math.factorial(n))
    return total


def extremes(conv):
    """Return the least and the most critical weights that an order can have, from the components of all subsets."""
    kept = components_of_subsets(conv)
    least, most = {0: 0}, {0: 0}
    for bits in range(1, len(kept)):
        before = [bits ^ 1 << weight for weight in range(conv.n_weights) if bits >> weight & 1]
        least[bits] = min(least[each] + (kept[bits] < kept[each]) for each in before)
        most[bits] = max(most[each] + (kept[bits] < kept[each]) for each in before)
    return least[len(kept) - 1], most[len(kept) - 1]


def circular(size):
    return Conv(1, 1, (3, 3), (size, size), padding=1, padding_mode="circular")


@pytest.mark.parametrize(
    ("conv", "mean"),
    [
        (Conv(1, 1, (3, 3), (8, 8), padding=1), Fraction(1247, 315)),
        (Conv(1, 1, (3, 3), (3, 3), padding=1), Fraction(1247, 315)),
        (Conv(1, 1, (3, 3), (28, 11), padding=1), Fraction(1247, 315)),
        (Conv(96, 96, (3, 3), (112, 112), padding=1, groups=96), 96 * Fraction(1247, 315)),
        (Conv(1, 1, (3, 3), (2, 2), padding=1), Fraction(21, 5)),
        (Conv(1, 1, (3, 3), (2, 9), padding=1), Fraction(5029, 1260)),
        (circular(7), 3),
        (circular(8), Fraction(65, 18)),
        (circular(9), Fraction(64, 21)),
        (Conv(1, 1, (3, 3), (1, 1), padding=1), 1),  # eight taps read only padding
        (Conv(3, 3, (1, 1), (5, 5), groups=3), 3),
        (Conv(1, 1, (4, 4), (4, 4)), 16),  # a star: every weight has a cell of its own
        (Conv(3, 2, 1, 1, stride=5, padding=1), 0),
        (Conv(3, 2, 1, 4), 4),  # a tree of the channels at every cell
    ],
)
def test_known_expectations(conv, mean):
    assert exact_expected_critical_weights(conv) == mean


@pytest.mark.parametrize("seed", range(3))
def test_every_order_of_the_weights_of_random_geometries(seed):
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < 12:
        conv = naive_convolution.random_conv(rng)
        if 2 <= conv.n_weights <= 6 and conv.n_vertices <= 100:
            assert exact_expected_critical_weights(conv) == mean_over_orders(conv), conv
            compared += 1


@pytest.mark.parametrize(
    "conv",
    [
        Conv(1, 1, (3, 3), (3, 3), padding=1),
        Conv(1, 1, (3, 3), (3, 4), padding=1, padding_mode="replicate"),
        Conv(1, 1, (3, 3), (5, 5), stride=2, padding=1),
        Conv(1, 1, (3, 3), (2, 2), stride=2, padding=1, transposed=True),
        Conv(1, 3, 3, 4, padding=1),
    ],
)
def test_every_subset_of_nine_weights(conv):
    assert exact_expected_critical_weights(conv) == mean_over_subsets(conv)


@pytest.mark.parametrize(
    ("conv", "least", "most"),
    [
        (Conv(1, 1, (3, 3), (4, 4), padding=1), 3, 6),
        (Conv(1, 1, (3, 3), (2, 2), padding=1), 3, 7),
        (Conv(1, 1, (3, 3), (2, 4), padding=1), 3, 7),
        (circular(7), 3, 3),
        (circular(8), 3, 5),
    ],
)
def test_the_least_and_the_most_critical_weights_of_a_depthwise_kernel(conv, least, most):
    assert extremes(conv) == (least, most)
    lower, upper = critical_weights_range(conv)
    assert lower == least
    assert upper >= most


def test_groups_are_independent():
    one, three = Conv(1, 1, 3, 5, padding=1), Conv(3, 3, 3, 5, padding=1, groups=3)
    assert exact_expected_critical_weights(three) == 3 * exact_expected_critical_weights(one)


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (None, "Argument 'conv' must be a Conv, not None."),
        (Conv(1, 1, (3, 3), (4096, 4096), padding=1), "Argument 'conv' must be a Conv with at most 25 weights and "),
        (Conv(1, 1, 26, 30), "Argument 'conv' must be a Conv with at most 25 weights and "),
        (Conv(1, 1, 12, 13), "Argument 'conv' must be a Conv whose weights have fewer subsets that differ in "),
    ],
)
def test_what_is_too_large_is_refused(conv, message, monkeypatch):
    monkeypatch.setattr(random_kernels, "MOST_CLOSED_SETS", 1000)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        exact_expected_critical_weights(conv)
    assert str(error.value).startswith(message)


# -- coverage --------------------------------------------------------------------------------------------------------


def mean_coverage(conv, side):
    """Return the mean, over all orders of the taps, of those that reach a new neuron of a channel."""
    taps = {}
    for i, o, weight in naive_convolution.edges(conv):
        taps.setdefault(weight, set()).add(o if side == "outputs" else i)
    orders = list(itertools.permutations(taps))
    new = 0
    for order in orders:
        covered = set()
        for tap in order:
            new += not taps[tap] <= covered
            covered |= taps[tap]
    return Fraction(new, len(orders))


@pytest.mark.parametrize(
    ("conv", "constant"),
    [
        (Conv(1, 1, (3, 3), (8, 8), padding=1), Fraction(349, 126)),
        (Conv(64, 8, (3, 3), (4096, 4096), padding=1), Fraction(349, 126)),
        (Conv(1, 1, (5, 5), (8, 8), padding=2), Fraction(55929971, 15600900)),
        (Conv(1, 1, 3, 8, padding=1), Fraction(5, 3)),
        (circular(8), 1),
        (Conv(1, 1, (3, 3), (8, 8)), 1),  # every tap reads real cells at every position
        (Conv(3, 2, 1, 1, stride=5, padding=1), 0),
    ],
)
def test_known_coverage_of_the_outputs(conv, constant):
    assert coverage_constant(conv) == constant


@pytest.mark.parametrize("side", ["outputs", "inputs"])
def test_coverage_over_every_order_of_the_taps(side):
    rng = np.random.default_rng(5)
    compared = 0
    while compared < 25:
        conv = naive_convolution.random_conv(rng)
        one = Conv(
            1,
            1,
            conv.kernel_size,
            conv.input_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            padding_mode=conv.padding_mode,
            transposed=conv.transposed,
            output_padding=conv.output_padding,
        )
        if 2 <= one.n_weights <= 6:
            assert coverage_constant(one, side) == mean_coverage(one, side), one
            compared += 1


@pytest.mark.parametrize("transposed", [False, True])
def test_many_channels_on_one_side_tend_to_the_constant(transposed):
    wide = Conv(1, 600, 3, 4, padding=1, transposed=transposed)
    rng = np.random.default_rng(6)
    kernels = (rng.standard_normal(wide.weight_shape) for _ in range(10))
    shares = [critical_kernel_weights(kernel, wide).n_critical / 600 for kernel in kernels]
    assert np.mean(shares) == pytest.approx(5 / 3, abs=0.02)


def test_coverage_refuses_what_it_does_not_know():
    conv = Conv(1, 1, 3, 8, padding=1)
    with pytest.raises(ValueError, match=r"^Argument 'side' must be one of 'outputs', 'inputs', not 'both'\.$"):
        coverage_constant(conv, "both")
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv, not 3\.$"):
        coverage_constant(3)
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv with at most 25 taps "):
        coverage_constant(Conv(1, 1, (6, 6), (8, 8)))


# -- channels --------------------------------------------------------------------------------------------------------


def mean_channel_overlap(m, n, taps, k):
    """Return the mean over all k-subsets of the weights."""
    ranks = []
    for subset in itertools.combinations(range(m * n * taps), k):
        pairs = [divmod(weight // taps, n) for weight in subset]
        ranks.append(m + n - naive_convolution.components(m + n, [(i, m + j) for i, j in pairs]))
    return Fraction(sum(ranks), len(ranks) * (m + n - 1))


@pytest.mark.parametrize(("m", "n", "taps"), [(1, 1, 3), (1, 3, 2), (2, 2, 2), (2, 2, 3), (2, 3, 2), (3, 2, 2)])
def test_channels_against_every_subset_of_the_weights(m, n, taps):
    for k in range(m * n * taps + 1):
        assert expected_channel_overlap(m, n, taps, k) == mean_channel_overlap(m, n, taps, k)


def test_known_overlaps_of_channels():
    assert expected_channel_overlap(2, 2, 9) == Fraction(281, 357)
    assert expected_channel_overlap(5, 7, 1) == exact_expected_overlap(5, 7)
    assert expected_channel_overlap(5, 7, 4, 0) == 0
    assert expected_channel_overlap(3, 3, 4, 36) == 1


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 2, 9), "m"), ((2, 2.5, 9), "n"), ((2, 2, 0), "taps"), ((2, 2, 9, 37), "k")]
)
def test_channels_refuse_what_is_out_of_range(arguments, name):
    with pytest.raises(ValueError, match=rf"^Argument '{name}' must be "):
        expected_channel_overlap(*arguments)
