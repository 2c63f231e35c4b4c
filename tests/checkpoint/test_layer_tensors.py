"""What the tensors of checkpoints are read as: kinds, parts and graphs, and nothing that is in no list."""

import numpy as np

from topobounds.checkpoint.layer_tensors import read_tensors
from topobounds.checkpoint.memory import ArraysCheckpoint
from topobounds.layers.tensors import GATES


def zeros(**shapes):
    """Return arrays of these shapes, names written with two underscores for a dot."""
    return {name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}


def read(arrays, config=None, **asked):
    """Return the layers by name, and what is left out."""
    reading = read_tensors(ArraysCheckpoint(arrays, config or {}), **asked)
    named = [*(tensor.name for tensor in reading.layers), *reading.left_out, *reading.tied]
    assert sorted(named) == sorted(arrays)  # nothing is in no list, or in two
    for tensor in reading.layers:
        assert len(tensor.parts) == len(tensor.graphs) == len(tensor.read_as) == len(tensor.split(arrays[tensor.name]))
        assert tensor.join(tensor.split(arrays[tensor.name])).shape == arrays[tensor.name].shape
    return {tensor.name: tensor for tensor in reading.layers}, reading.left_out


def test_gates_are_told_from_their_neighbours():
    arrays = zeros(
        a__weight_ih_l0=(12, 5), a__weight_hh_l0=(12, 3), a__weight_ih_l0_reverse=(12, 5), a__weight_hh_l0_reverse=(12, 3),
        b__weight_ih=(9, 5), b__weight_hh=(9, 3), enc_w_ih=(6, 2), enc_w_hh=(6, 2), c__weight_ih_l0=(4, 5), c__weight_hh_l0=(4, 4),
        p__weight_ih_l0=(24, 5), p__weight_hh_l0=(24, 2), p__weight_hr_l0=(2, 6), lone__weight_ih_l0=(12, 5),
    )  # fmt: skip
    layers, left_out = read(arrays)
    assert not left_out
    assert {name: (tensor.kind, tensor.parts) for name, tensor in layers.items()} == {
        "a.weight_ih_l0": ("dense", GATES["LSTM"]),
        "a.weight_hh_l0": ("recurrent", GATES["LSTM"]),
        "a.weight_ih_l0_reverse": ("dense", GATES["LSTM"]),
        "a.weight_hh_l0_reverse": ("recurrent", GATES["LSTM"]),
        "b.weight_ih": ("dense", GATES["GRU"]),
        "b.weight_hh": ("recurrent", GATES["GRU"]),
        "enc_w_ih": ("dense", GATES["GRU"]),
        "enc_w_hh": ("recurrent", GATES["GRU"]),
        "c.weight_ih_l0": ("dense", ("",)),
        "c.weight_hh_l0": ("recurrent", ("",)),
        "p.weight_ih_l0": ("dense", GATES["LSTM"]),
        "p.weight_hh_l0": ("dense", GATES["LSTM"]),
        "p.weight_hr_l0": ("dense", ("",)),
        "lone.weight_ih_l0": ("dense", ("",)),
    }
    assert [name for name, tensor in layers.items() if tensor.assumed] == ["lone.weight_ih_l0"]
