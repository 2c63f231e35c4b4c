"""Recurrent layers gate by gate and unrolled, against graphs written out in full."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from tests import naive_convolution
from topobounds.layers import Recurrent, Unrolled
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.recurrent import (
    GATES,
    recurrent_diagrams,
    recurrent_forests,
    recurrent_matrices,
    unrolled_forest,
)
from topobounds.topology.spanning import maximum_spanning_forest

CELLS = [("rnn", torch.nn.RNN), ("gru", torch.nn.GRU), ("lstm", torch.nn.LSTM)]


def _explicit(weight_ih, weight_hh, steps, zeros):
    """Return the merges of each weight, those of weight_ih first, and the number of vertices."""
    size, n_inputs = weight_hh.shape[1], weight_ih.shape[1]
    vertex = {("x", t, a): t * n_inputs + a - n_inputs for t in range(1, steps + 1) for a in range(n_inputs)}
    vertex |= {("h", t, j): steps * n_inputs + t * size + j for t in range(steps + 1) for j in range(size)}
    weights = [("x", row % size, col, weight_ih[row, col]) for row, col in np.ndindex(weight_ih.shape)]
    weights += [("h", row % size, col, weight_hh[row, col]) for row, col in np.ndindex(weight_hh.shape)]
    order = sorted(range(len(weights)), key=lambda w: (-abs(weights[w][3]), w))
    order = [w for w in order if weights[w][3] or zeros == "edge"]
    bundles = []
    for w in order:
        kind, unit, other, _ = weights[w]
        back = 1 if kind == "h" else 0
        bundles.append([(vertex["h", t, unit], vertex[kind, t - back, other]) for t in range(1, steps + 1)])
    counts = np.zeros(len(weights), int)
    counts[order] = naive_convolution.merges(len(vertex), bundles)
    return counts, len(vertex)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("zeros", ["absent", "edge"])
@pytest.mark.parametrize("kind", ["normal", "tied", "sparse", "scaled"])
def test_unrolled_forests_against_the_explicit_graph(cell, zeros, kind):
    rng = np.random.default_rng(len(cell) + len(kind))
    for _ in range(8):
        size, n_inputs, steps = (int(x) for x in rng.integers((1, 0, 1), (12, 9, 6)))
        rows = len(GATES[cell]) * size
        both = rng.standard_normal((rows, n_inputs + size))
        if kind == "tied":
            both = np.round(both * 2)
        elif kind == "sparse":
            both = np.where(rng.random(both.shape) < 0.8, 0, both)
        elif kind == "scaled":
            both *= rng.lognormal(0, 2, (rows, 1))
        ih, hh = both[:, :n_inputs], both[:, n_inputs:]
        found = unrolled_forest(ih if n_inputs else None, hh, steps, cell, zeros=zeros)
        expected, n_vertices = _explicit(ih, hh, steps, zeros)
        counts = np.zeros_like(expected)
        place = np.where(found.hidden, ih.size + found.rows * size + found.cols, found.rows * n_inputs + found.cols)
        counts[place] = found.merges
        np.testing.assert_array_equal(counts, expected)
        assert found.layer == Unrolled(size, steps, n_inputs, len(GATES[cell]))
        assert found.layer.n_vertices == n_vertices
        assert found.n_components == n_vertices - expected.sum()
        stored = np.where(found.hidden, hh[found.rows, np.where(found.hidden, found.cols, 0)], 0)
        np.testing.assert_array_equal(found.weights[found.hidden], np.abs(stored[found.hidden]))
        assert (np.diff(found.deaths) <= 0).all()
        assert found.deaths.size == expected.sum()


def test_one_step_without_inputs_is_the_papers_layer():
    weights = np.random.default_rng(5).standard_normal((40, 40))
    found = unrolled_forest(None, weights, 1)
    forest = maximum_spanning_forest(weights)
    np.testing.assert_array_equal(found.rows, forest.rows)
    np.testing.assert_array_equal(found.cols, forest.cols)
    assert found.alpha == Recurrent(40).n_vertices - Recurrent(40).n_components == 79
    assert found.ratio == Fraction(1600, 79)


def test_more_steps_share_neurons():
    weights = np.random.default_rng(6).standard_normal((64, 64))
    measured = {steps: unrolled_forest(None, weights, steps) for steps in (1, 2, 10, 100)}
    for steps, found in measured.items():
        assert found.alpha == (steps + 1) * 64 - 1  # the closed form of a connected layer
        assert found.layer.n_edges / found.alpha == pytest.approx(steps * 64**2 / ((steps + 1) * 64 - 1))
    critical = [found.n_critical for found in measured.values()]
    assert critical[0] == 127
    assert critical == sorted(critical, reverse=True)  # shared weights: 2 l - 1 edges become fewer weights


@pytest.mark.parametrize(("cell", "module"), CELLS)
def test_torch_layers_gate_by_gate(cell, module):
    torch.manual_seed(0)
    layer = module(7, 5)
    matrices = recurrent_matrices(layer.weight_ih_l0, layer.weight_hh_l0, cell)
    gates = GATES[cell]
    assert matrices["ih"].shape == (5 * len(gates), 7)
    if len(gates) > 1:
        stacked = np.concatenate([matrices[f"hh_{gate}"] for gate in gates])
        np.testing.assert_array_equal(stacked, layer.weight_hh_l0.detach().numpy())
        assert np.shares_memory(matrices["ih_" + gates[1]], matrices["ih"])
    forests = recurrent_forests(layer.weight_ih_l0, layer.weight_hh_l0, cell)
    diagrams = recurrent_diagrams(layer.weight_ih_l0, layer.weight_hh_l0, cell)
    assert forests.keys() == diagrams.keys() == matrices.keys()
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(diagrams[name].deaths, persistence_diagram(matrix).deaths)
        assert forests[name].alpha == len(diagrams[name]) == sum(matrix.shape) - 1


def test_matrices_of_two_types_are_compared_exactly():
    rng = np.random.default_rng(8)
    ih, hh = rng.standard_normal((20, 6)).astype(np.float16), rng.standard_normal((20, 20)).astype(np.float32)
    found = unrolled_forest(ih, hh, 3)
    same = unrolled_forest(ih.astype(float), hh.astype(float), 3)
    assert found.weights.dtype == np.float32
    for name in ("hidden", "rows", "cols", "merges", "weights"):
        np.testing.assert_array_equal(getattr(found, name), getattr(same, name))


def test_a_large_lstm_unrolled_long():
    rng = np.random.default_rng(9)
    found = unrolled_forest(rng.standard_normal((512, 28)), rng.standard_normal((512, 128)), 28, "lstm")
    assert found.n_components == 1
    assert found.alpha == 29 * 128 + 28 * 28 - 1
    assert found.n_critical < 500
    assert found.to_dict()["layer"] == {"hidden_size": 128, "steps": 28, "input_size": 28, "gates": 4}


def test_zeros():
    found = unrolled_forest(np.zeros((3, 2)), np.zeros((3, 3)), 4)
    assert (found.alpha, found.n_critical, found.ratio, found.w_max, found.n_components) == (0, 0, None, 0.0, 23)
    edges = unrolled_forest(np.zeros((3, 2)), np.zeros((3, 3)), 4, zeros="edge")
    assert (edges.alpha, edges.n_components, edges.deaths.tolist()) == (0, 1, [0.0] * 22)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recurrent_matrices(np.ones((4, 2)), np.ones((4, 4)), "qrnn"), "Argument 'cell' must be one of 'rnn'"),
        (
            lambda: recurrent_matrices(np.ones((4, 2)), np.ones((4, 3))),
            "Argument 'weight_hh' must be of shape (1 l, l)",
        ),
        (
            lambda: recurrent_forests(np.ones((8, 2)), np.ones((8, 4)), "lstm"),
            "Argument 'weight_hh' must be of shape (4",
        ),
        (lambda: recurrent_forests(np.ones((5, 2)), np.ones((8, 2)), "lstm"), "Argument 'weight_ih' must be of 8 rows"),
        (lambda: unrolled_forest(None, np.ones((4, 4)), 0), "Argument 'steps' must be a positive integer, not 0."),
        (lambda: unrolled_forest(None, np.ones((4, 4)), 2, zeros="no"), "Argument 'zeros' must be one of"),
        (
            lambda: unrolled_forest(None, np.full((2, 2), np.inf), 2),
            "Argument 'weights' must be finite, but 4 of its 4",
        ),
        (lambda: unrolled_forest(np.ones(4), np.ones((4, 4)), 2), "Argument 'weights' must be a matrix"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        call()
    assert str(error.value).startswith(message)
