"""Critical compression ratios; the exact layer graph is counted again here by brute force."""

import itertools
from fractions import Fraction

import pytest

from topobounds.layers import Conv, Dense, Recurrent, Unrolled
from topobounds.theory.compression import compression, critical_compression_ratio


def explicit_graph(conv):
    """Return (edges, vertices, components) of the layer graph, edge by edge."""
    inputs = list(itertools.product(range(conv.in_channels), *map(range, conv.input_size)))
    outputs = list(itertools.product(range(conv.out_channels), *map(range, conv.output_size)))
    parent = {("in", i): ("in", i) for i in inputs} | {("out", o): ("out", o) for o in outputs}

    def find(x):
        while parent[x] != x:
            x = parent[x]
        return x

    edges = 0
    for (c, *position), (d, *place) in itertools.product(inputs, outputs):
        same_group = c * conv.groups // conv.in_channels == d * conv.groups // conv.out_channels
        offsets = [p + pad - q * s for p, q, s, pad in zip(position, place, conv.stride, conv.padding, strict=True)]
        steps = zip(offsets, conv.dilation, conv.kernel_size, strict=True)
        if same_group and all(o % d == 0 and 0 <= o // d < k for o, d, k in steps):
            edges += 1
            parent[find(("in", (c, *position)))] = find(("out", (d, *place)))
    return edges, len(parent), len({find(v) for v in parent})


CONVS = [
    Conv(1, 1, (3, 3), (4, 4), padding=1),
    Conv(2, 3, (3, 3), (5, 4), stride=2, padding=1),
    Conv(2, 4, (1, 1), (3, 3)),
    Conv(4, 4, (3, 3), (4, 4), padding=1, groups=4),
    Conv(2, 2, 3, 9, dilation=2),
    Conv(1, 2, (2, 2), (7, 7), stride=3),
]


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_toeplitz_counts_the_exact_layer_graph(conv):
    edges, vertices, components = explicit_graph(conv)
    result = compression(conv, "toeplitz")
    assert (result.weights, result.kept, result.components) == (edges, vertices - components, components)
    assert result.ratio == Fraction(edges, vertices - components) == critical_compression_ratio(conv, "toeplitz")
    assert result.reason is None


@pytest.mark.parametrize("convention", ["paper", "toeplitz"])
def test_dense_and_recurrent_are_the_same_in_both_conventions(convention):
    assert critical_compression_ratio((784, 300), convention) == Fraction(235200, 1083)
    assert critical_compression_ratio(Dense(784, 300), convention) == Fraction(235200, 1083)
    assert critical_compression_ratio(Recurrent(7), convention) == Fraction(49, 13)
    assert critical_compression_ratio((1, 9), convention) == 1


@pytest.mark.parametrize("convention", ["paper", "toeplitz"])
def test_a_transposed_convolution_is_the_convolution_with_its_ends_exchanged(convention):
    there = Conv(4, 6, (3, 3), (9, 9), stride=2, padding=1)
    back = Conv(6, 4, (3, 3), (5, 5), stride=2, padding=1, transposed=True)
    assert back.output_size == there.input_size
    assert compression(back, convention) == compression(there, convention)


@pytest.mark.parametrize("convention", ["paper", "toeplitz"])
def test_an_unrolled_layer_counts_pairs_of_neurons(convention):
    assert critical_compression_ratio(Unrolled(7, 1), convention) == Fraction(49, 13)
    assert critical_compression_ratio(Unrolled(3, 2, 4, 4), convention) == Fraction(2 * 3 * 7, 3 * 3 + 2 * 4 - 1)


def test_a_one_by_one_convolution_has_no_compression_ratio_in_the_paper_convention():
    result = compression(Conv(64, 64, (1, 1), (8, 8)))
    assert result.ratio == Fraction(64, 2 * 64 - 1)
    assert "no compression ratio" in result.reason
    assert compression(Conv(64, 64, (3, 3), (8, 8), padding=1)).reason is None


def test_a_graph_without_edges_has_nothing_to_keep():
    conv = Conv(2, 3, 1, 1, stride=5, padding=1)
    assert explicit_graph(conv) == (0, 5, 5)
    result = compression(conv, "toeplitz")
    assert (result.weights, result.kept, result.ratio, result.components) == (0, 0, None, 5)
    assert "no edge" in result.reason
    with pytest.raises(ValueError, match="No compression ratio: The layer graph has no edge"):
        critical_compression_ratio(conv, "toeplitz")


def test_several_layers_give_the_ratio_of_the_sums():
    layers = [(784, 300), Dense(300, 100), Recurrent(10), Conv(2, 2, (1, 1), (4, 4))]
    paper = compression(layers)
    assert paper.ratio == Fraction(235200 + 30000 + 100 + 16, 1083 + 399 + 19 + 31)
    assert paper.reason.startswith("Layer 4: Below 1")
    exact = compression(layers, "toeplitz")
    assert exact.components == 1 + 1 + 1 + 16
    assert exact.reason is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critical_compression_ratio((3, 3), "shared"), "Argument 'convention' must be one of 'paper', 'toep"),
        (lambda: critical_compression_ratio("dense"), "Argument 'layer' must be"),
        (lambda: critical_compression_ratio((0, 3)), "Argument 'm' must be a positive integer, not 0"),
        (lambda: compression([]), "Argument 'layers' must be"),
        (lambda: compression([(3, 3), 7]), "Argument 'layer' must be"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
