"""What a lost forest edge is: silent neurons and fragments, against the graph of the largest weights written out."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests import naive_convolution
from tests.topology.test_network import _random_network
from topobounds import Deficit, maximum_spanning_forest
from topobounds.layers import Conv
from topobounds.topology.convolution import critical_kernel_weights
from topobounds.topology.network import chain, network_forest
from topobounds.topology.recurrent import GATES, unrolled_forest

TIED = hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(-3, 3))


def _counts(inputs, outputs, edges):
    """Return the silent inputs, the silent outputs and the components that have an edge, by walking the graph."""
    neighbours = {vertex: set() for vertex in [*inputs, *outputs]}
    for a, b in edges:
        if a != b:
            neighbours[a].add(b)
            neighbours[b].add(a)
    unseen, fragments = {vertex for vertex in neighbours if neighbours[vertex]}, 0
    while unseen:
        fragments += 1
        waiting = [unseen.pop()]
        while waiting:
            reached = neighbours[waiting.pop()] & unseen
            unseen -= reached
            waiting += reached
    silent = [sum(not neighbours[vertex] for vertex in side) for side in (inputs, outputs)]
    return Deficit(*silent, fragments)


def _agrees(forest, inputs, outputs, weights, edges_of_weight):
    """Compare the deficit at every k; `weights` holds |w| of each stored weight, `edges_of_weight` its edges."""
    order = sorted((w for w in range(len(weights)) if weights[w]), key=lambda w: (-weights[w], w))
    whole = _counts(inputs, outputs, [edge for w in order for edge in edges_of_weight[w]])
    n_vertices = len(inputs) + len(outputs)
    for k in range(len(weights) + 1):
        left = _counts(inputs, outputs, [edge for w in order[:k] for edge in edges_of_weight[w]])
        assert forest.deficit(k) == left
        held = n_vertices - left.n_components  # the forest edges that the k largest weights make
        assert forest.alpha - held == left.n_components - whole.n_components


@settings(max_examples=60, deadline=None)
@given(TIED, st.data(), st.sampled_from(["absent", "edge"]))
def test_a_layer_that_is_tied_full_of_zeros_masked_or_in_pieces(weights, data, zeros):
    m, n = weights.shape
    mask = data.draw(st.none() | hnp.arrays(np.bool_, (m, n)))
    alive = weights if mask is None else weights * mask
    cells = [[(("in", i), ("out", j))] for i, j in np.ndindex(m, n)]
    inputs, outputs = [("in", i) for i in range(m)], [("out", j) for j in range(n)]
    forest = maximum_spanning_forest(weights, mask, zeros=zeros)
    _agrees(forest, inputs, outputs, np.abs(alive).ravel().tolist(), cells)


@pytest.mark.parametrize("seed", range(10))
def test_networks_count_every_neuron_once(seed):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        connections, zeros = _random_network(rng), str(rng.choice(["absent", "edge"]))
        sizes = {}
        for matrix, source, target in connections:
            sizes |= {source: len(matrix), target: matrix.shape[1]}
        fed = {target for _, _, target in connections}
        sides = [[(g, i) for g in sizes if (g in fed) == is_fed for i in range(sizes[g])] for is_fed in (False, True)]
        edges = [[((a, i), (b, j))] for matrix, a, b in connections for i, j in np.ndindex(matrix.shape)]
        weights = [abs(float(w)) for matrix, _, _ in connections for w in matrix.ravel()]
        _agrees(network_forest(connections, zeros=zeros), *sides, weights, edges)


@pytest.mark.parametrize("seed", range(10))
def test_kernels_count_neurons_of_every_padding_group_and_direction(seed):
    rng = np.random.default_rng(3000 + seed)
    for _ in range(4):
        conv = naive_convolution.random_conv(rng)
        kernel = np.round(rng.standard_normal(conv.weight_shape) * 2)  # ties, and zeros
        mask = rng.random(conv.weight_shape) < 0.7 if rng.random() < 0.3 else None
        zeros = str(rng.choice(["absent", "edge"]))
        edges = [[] for _ in range(kernel.size)]
        for i, o, weight in naive_convolution.edges(conv):
            edges[weight].append((("in", i), ("out", o)))
        inputs, outputs = [("in", i) for i in range(conv.n_inputs)], [("out", o) for o in range(conv.n_outputs)]
        alive = kernel if mask is None else kernel * mask
        forest = critical_kernel_weights(kernel, conv, mask, zeros=zeros)
        _agrees(forest, inputs, outputs, np.abs(alive).ravel().tolist(), edges)


@pytest.mark.parametrize("cell", GATES)
def test_unrolled_layers_count_the_neurons_of_every_step(cell):
    rng = np.random.default_rng(len(cell))
    for _ in range(6):
        size, n_inputs, steps = (int(x) for x in rng.integers((1, 0, 1), (5, 4, 4)))
        both = np.round(rng.standard_normal((len(GATES[cell]) * size, n_inputs + size)))
        ih, hh = both[:, :n_inputs], both[:, n_inputs:]
        times = range(1, steps + 1)
        edges = [[(("h", t, i % size), ("x", t, j)) for t in times] for i, j in np.ndindex(ih.shape)]
        edges += [[(("h", t, i % size), ("h", t - 1, j)) for t in times] for i, j in np.ndindex(hh.shape)]
        inputs = [("x", t, j) for t in times for j in range(n_inputs)] + [("h", 0, j) for j in range(size)]
        outputs = [("h", t, j) for t in times for j in range(size)]
        weights = np.abs(np.concatenate([ih.ravel(), hh.ravel()])).tolist()
        _agrees(unrolled_forest(ih if n_inputs else None, hh, steps, cell), inputs, outputs, weights, edges)


def test_nothing_kept_and_nothing_there():
    forest = maximum_spanning_forest(np.ones((3, 2)))
    assert forest.deficit(0) == Deficit(3, 2, 0)
    assert forest.deficit(6) == Deficit(0, 0, 1)
    empty = maximum_spanning_forest(np.zeros((3, 2)), zeros="edge")
    assert empty.deficit() == empty.deficit(6) == Deficit(3, 2, 0)


def test_k_is_alpha_or_the_critical_weights_by_default():
    rng = np.random.default_rng(4)
    weights, conv = rng.standard_normal((30, 20)), Conv(3, 4, (3, 3), (5, 5), padding=1)
    assert maximum_spanning_forest(weights).deficit() == maximum_spanning_forest(weights).deficit(49)
    critical = critical_kernel_weights(rng.standard_normal(conv.weight_shape), conv)
    assert critical.deficit() == critical.deficit(critical.n_critical)
    network = network_forest(chain([weights, rng.standard_normal((20, 5))]))
    assert network.deficit() == network.deficit(network.alpha)


@pytest.mark.parametrize("k", [-1, 7, 1.5])
def test_k_out_of_range_is_refused(k):
    forest = maximum_spanning_forest(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"Argument 'k' must be an integer from 0 to 6, not"):
        forest.deficit(k)


@pytest.mark.parametrize(
    ("file", "name", "expected", "lost"),
    [
        ("mnist_6_100_nat.pth", "1.weight", Deficit(476, 9, 2), 486),
        ("mnist_fc_3layer.pth", "fc1.weight", Deficit(385, 23, 5), 412),
        ("fashion_mnist_robust_cnn.pth", "5.weight", Deficit(966, 90, 1), 1056),
    ],
)
def test_trained_layers_lose_silent_neurons(file, name, expected, lost):
    folder = Path(os.environ.get("TOPOBOUNDS_DATA", "/nowhere")) / "checkpoints"
    if not (folder / file).exists():
        pytest.skip("TOPOBOUNDS_DATA has no such checkpoint")
    (weights,) = _tensors(torch.load(folder / file, map_location="cpu", weights_only=False), name)
    forest = maximum_spanning_forest(weights.numpy().T)
    assert forest.deficit() == expected
    assert round((1 - forest.overlap()) * forest.alpha) == lost == expected.n_components - 1


def _tensors(stored, name):
    """Return the tensors of this name, however deep a checkpoint holds them."""
    pairs = stored.items() if hasattr(stored, "items") else enumerate(stored) if isinstance(stored, list) else ()
    inside = list(itertools.chain.from_iterable(_tensors(value, name) for _, value in pairs))
    return inside + ([stored[name]] if hasattr(stored, "items") and name in stored else [])
