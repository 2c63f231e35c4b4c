"""ONNX files, against the reference evaluator of the package that defines them."""

import subprocess
import sys

import numpy as np
import pytest

from topobounds.checkpoint import CheckpointError, open_checkpoint
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.weights import ScaledWeights

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 -- after the question whether it is there
from onnx import __version__ as onnx_version  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RNG = np.random.default_rng(31)
OPSET = 21


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(nodes, stored, inputs, outputs=("y",), output_type=TensorProto.FLOAT, **parts):
    """Return a model of nodes, tensors by name, and the shapes of its inputs by name."""
    protos = [
        each if isinstance(each, TensorProto) else numpy_helper.from_array(each, name) for name, each in stored.items()
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info(name, output_type, None) for name in outputs]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "g", values, made, protos)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **parts)


@pytest.fixture
def opened(tmp_path):
    def write(model, **saved):
        onnx.save_model(model, tmp_path / "x.onnx", **saved)
        return open_checkpoint(tmp_path / "x.onnx")

    return write


def only_layer(checkpoint):
    (layer,) = read_layer_tensors(checkpoint).layers
    return layer


# -- which layer -----------------------------------------------------------------------------------------------------

X_RIGHT, X_LEFT = (5, 4), (4, 5)
MATRICES = {
    "MatMul(x, W)": ([helper.make_node("MatMul", ["x", "w"], ["y"])], (4, 3), X_RIGHT, True),
    "MatMul(W, x)": ([helper.make_node("MatMul", ["w", "x"], ["y"])], (3, 4), X_LEFT, False),
    "Gemm(x, W)": ([helper.make_node("Gemm", ["x", "w"], ["y"])], (4, 3), X_RIGHT, True),
    "Gemm(x, W')": ([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], (3, 4), X_RIGHT, False),
    "Gemm(W, x)": ([helper.make_node("Gemm", ["w", "x"], ["y"])], (3, 4), X_LEFT, False),
    "Gemm(W', x)": ([helper.make_node("Gemm", ["w", "x"], ["y"], transA=1)], (4, 3), X_LEFT, True),
    "MatMul(x, W')": (
        [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["x", "t"], ["y"])],
        (3, 4),
        X_RIGHT,
        False,
    ),
    "Gemm(x, W'')": (
        [helper.make_node("Transpose", ["w"], ["t"]), helper.make_node("Gemm", ["x", "t"], ["y"], transB=1)],
        (4, 3),
        X_RIGHT,
        True,
    ),
    "MatMul(x, a copy)": (
        [helper.make_node("Identity", ["w"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])],
        (4, 3),
        X_RIGHT,
        True,
    ),
}


@pytest.mark.parametrize("case", MATRICES)
def test_which_axis_of_a_matrix_is_the_inputs(opened, case):
    nodes, shape, given, inputs_first = MATRICES[case]
    weight = normal(*shape)
    model = model_of(nodes, {"w": weight}, {"x": given})
    (result,) = ReferenceEvaluator(model).run(None, {"x": normal(*given)})
    assert result.shape in ((5, 3), (3, 5))  # so 3 are the outputs and 4 the inputs
    layer = only_layer(opened(model))
    assert (layer.kind, layer.inputs_first, layer.graph.n_inputs, layer.graph.n_outputs) == (
        "dense",
        inputs_first,
        4,
        3,
    )
    assert layer.assumed is None
    assert np.array_equal(opened(model).tensor("w"), weight)


def test_a_stack_of_matrices(opened):
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(2, 4, 3)}, {"x": (2, 5, 4)})
    layer = only_layer(opened(model))
    assert (layer.parts, layer.inputs_first) == (("0", "1"), True)
    assert [(graph.n_inputs, graph.n_outputs) for graph in layer.graphs] == [(4, 3)] * 2


def test_an_embedding_and_a_head_that_shares_it(opened):
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"]),
        helper.make_node("Transpose", ["table"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),
    ]
    stored = {"table": normal(9, 4), "ids": np.array([1, 2])}
    reading = read_layer_tensors(opened(model_of(nodes, stored, {})))
    (layer,) = reading.layers
    assert (layer.kind, layer.inputs_first, layer.graph.n_inputs) == ("embedding", True, 9)
    assert reading.left_out == {"ids": "input 1 of Gather, which is no layer that is known"}


CONVOLUTIONS = [
    {},
    {"strides": [2, 3]},
    {"pads": [0, 1, 2, 1]},
    {"dilations": [2, 1], "strides": [1, 2], "pads": [2, 2, 2, 2]},
    {"group": 2},
    {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "VALID", "strides": [2, 2]},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("given", [(9, 12), (10, 11)])
def test_the_geometry_of_a_convolution(opened, attributes, given):
    groups = attributes.get("group", 1)
    weight = normal(6, 4 // groups, 3, 2)
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], {"w": weight}, {"x": (1, 4, *given)})
    (result,) = ReferenceEvaluator(model).run(None, {"x": normal(1, 4, *given)})
    layer = only_layer(opened(model))
    conv = layer.geometry
    assert (conv.in_channels, conv.out_channels, conv.groups, conv.kernel_size) == (4, 6, groups, (3, 2))
    sides = zip(given, (3, 2), attributes.get("strides", (1, 1)), strict=True)
    if attributes.get("auto_pad") == "VALID":  # which the evaluator of older releases counts wrongly
        assert (conv.input_size, conv.output_size) == (given, tuple((a - k) // step + 1 for a, k, step in sides))
    elif attributes.get("auto_pad"):  # likewise
        assert (conv.input_size, conv.output_size) == (given, tuple(-(-a // step) for a, _, step in sides))
    if tuple(map(int, onnx_version.split(".")[:2])) < (1, 23) and result.shape[2:] != conv.output_size:
        pytest.skip("the evaluator of this release counts the positions of padded convolutions wrongly")
    assert conv.output_size == result.shape[2:]
    assert layer.assumed is None
    assert layer.split(weight)[0].shape == conv.weight_shape
    for corner in [(0, 0), (given[0] - 1, given[1] - 1)]:
        lone = np.zeros((1, 4, *given), np.float32)
        lone[0, 0, corner[0], corner[1]] = 1
        (fed,) = ReferenceEvaluator(model).run(None, {"x": lone})
        expected = [np.prod([len([q for q in range(axis.positions) if cell in axis.real_cells(q)]) for axis, cell in
                    zip(conv.axes, corner, strict=True)])]  # fmt: skip
        assert np.count_nonzero(fed[0, 0]) == expected[0]


TRANSPOSED = [
    ({}, None),
    ({"strides": [2, 3]}, None),
    ({"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]}, None),
    ({"strides": [2, 2], "auto_pad": "SAME_UPPER"}, None),
    ({"strides": [2, 3], "auto_pad": "SAME_LOWER"}, None),
    ({"dilations": [2, 1], "group": 2}, (9, 8)),  # the evaluator does not know groups, nor a told output
    ({"strides": [2, 2], "output_shape": [10, 13]}, (10, 13)),
]


@pytest.mark.parametrize(("attributes", "size"), TRANSPOSED, ids=str)
def test_the_geometry_of_a_transposed_convolution(opened, attributes, size):
    groups = attributes.get("group", 1)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)
    model = model_of([node], {"w": normal(4, 6 // groups, 3, 3)}, {"x": (1, 4, 5, 6)})
    if size is None:
        (result,) = ReferenceEvaluator(model).run(None, {"x": normal(1, 4, 5, 6)})
        size = result.shape[2:]
    conv = only_layer(opened(model)).geometry
    assert (conv.in_channels, conv.out_channels, conv.groups, conv.transposed) == (4, 6, groups, True)
    assert (conv.input_size, conv.output_size) == ((5, 6), size)


def test_a_convolution_on_an_input_of_any_size_is_assumed_to_read_a_map(opened):
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    checkpoint = opened(model_of([node], {"w": normal(6, 4, 3, 3)}, {"x": ("batch", 4, "height", "width")}))
    (layer,) = read_layer_tensors(checkpoint).layers
    assert (layer.geometry.stride, layer.geometry.padding, layer.assumed) == ((2, 2), (1, 1), "a map of 8x8")
    (layer,) = read_layer_tensors(checkpoint, input_size=(32, 20)).layers
    assert layer.geometry.input_size == (32, 20)


def test_sizes_are_inferred_through_the_graph(opened):
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "b"], ["y"]),
    ]
    stored = {"a": normal(80, 3, 3, 3), "b": normal(5, 80, 3, 3)}  # the second of more bytes than stay in the graph
    first, second = read_layer_tensors(opened(model_of(nodes, stored, {"x": (1, 3, 32, 48)}))).layers
    assert (first.geometry.output_size, second.geometry.input_size) == ((16, 24), (8, 12))


def test_an_impossible_geometry_is_left_out(opened):
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[-3, 0, 0, 0])
    reading = read_layer_tensors(opened(model_of([node], {"w": normal(6, 4, 3, 3)}, {"x": (1, 4, 8, 8)})))
    assert "a kernel whose geometry is impossible: Argument 'padding'" in reading.left_out["w"]


# -- recurrent layers ------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, w, r):
    """Return the last hidden state, from the weights of each gate by name."""
    h = c = np.zeros(len(r["input"]))
    for step in x:
        gate = {name: w[name] @ step + r[name] @ h for name in w}
        c = sigmoid(gate["forget"]) * c + sigmoid(gate["input"]) * np.tanh(gate["cell"])
        h = sigmoid(gate["output"]) * np.tanh(c)
    return h


def gru(x, w, r):
    h = np.zeros(len(r["reset"]))
    for step in x:
        update, reset = (sigmoid(w[name] @ step + r[name] @ h) for name in ("update", "reset"))
        new = np.tanh(w["new"] @ step + r["new"] @ (reset * h))
        h = (1 - update) * new + update * h
    return h


def plain(x, w, r):
    h = np.zeros(len(r[""]))
    for step in x:
        h = np.tanh(w[""] @ step + r[""] @ h)
    return h


@pytest.mark.parametrize(("operator", "n_gates", "slow"), [("LSTM", 4, lstm), ("GRU", 3, gru), ("RNN", 1, plain)])
def test_the_gates_have_their_names(opened, operator, n_gates, slow):
    w, r, x = normal(1, 5 * n_gates, 4), normal(1, 5 * n_gates, 5), normal(7, 1, 4)
    node = helper.make_node(operator, ["x", "w", "r"], ["", "y"], hidden_size=5)
    model = model_of([node], {"w": w, "r": r}, {"x": x.shape})
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    found = read_layer_tensors(opened(model)).layers
    assert [(layer.name, layer.kind) for layer in found] == [("w", "dense"), ("r", "recurrent")]
    parts = [
        dict(zip(layer.parts, layer.split(array), strict=True)) for layer, array in zip(found, (w, r), strict=True)
    ]
    assert np.allclose(slow(x[:, 0], *parts), expected.ravel(), atol=1e-5)


def test_both_directions(opened):
    node = helper.make_node("GRU", ["x", "w", "r", "b"], ["", "y"], hidden_size=5, direction="bidirectional")
    stored = {"w": normal(2, 15, 4), "r": normal(2, 15, 5), "b": normal(2, 30)}
    reading = read_layer_tensors(opened(model_of([node], stored, {"x": (7, 1, 4)})))
    assert reading.layers[0].parts[2:5] == ("forward new", "reverse update", "reverse reset")
    assert [graph.n_weights for graph in reading.layers[1].graphs] == [25] * 6
    assert reading.left_out == {"b": "bias"}


# -- quantised -------------------------------------------------------------------------------------------------------


def dequantised(checkpoint, model, name="w"):
    """Compare a weight with what the reference evaluator dequantises it to; return it."""
    (expected,) = ReferenceEvaluator(model).run(None, {})
    found = checkpoint.tensor(name)
    assert (checkpoint.dtype(name), checkpoint.shape(name)) == (np.float32, expected.shape)
    assert np.array_equal(np.asarray(found).view(np.int32), expected.astype(np.float32).view(np.int32))
    return found


def tensor_of(kind, shape, name="w"):
    """Return codes of a type."""
    low, high = {"INT": (-100, 100), "UINT": (0, 200)}[kind.rstrip("0123456789")]
    if kind.endswith("4"):
        low, high = max(low, -8), min(high, 7)
    return helper.make_tensor(name, getattr(TensorProto, kind), shape, RNG.integers(low, high + 1, shape).ravel())


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4", "UINT4", "INT16", "UINT16"])
@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize(
    ("scales", "attributes"),
    [((), {}), ((6,), {"axis": 0}), ((8,), {}), ((8,), {"axis": -1}), ((6, 2), {"axis": 1, "block_size": 4})],
)
def test_codes_that_a_node_dequantises(opened, kind, zeros, scales, attributes):
    stored = {"w": tensor_of(kind, (6, 8)), "s": RNG.uniform(0.01, 1, scales).astype(np.float32)}
    if zeros:
        stored["z"] = tensor_of(kind, scales, "z")
    node = helper.make_node("DequantizeLinear", list(stored), ["y"], **attributes)
    model = model_of([node], stored, {})
    checkpoint = opened(model)
    assert checkpoint.names == ("w",)
    assert checkpoint.stored_as == {"w": "(w - z) * s" if zeros else "w * s"}
    dequantised(checkpoint, model)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_float8_codes(opened, kind):
    codes = helper.make_tensor("w", getattr(TensorProto, kind), (6, 8), normal(48) * 20)
    model = model_of(
        [helper.make_node("DequantizeLinear", ["w", "s"], ["y"], axis=0)],
        {"w": codes, "s": RNG.uniform(0.01, 1, 6).astype(np.float32)},
        {},
    )
    assert isinstance(dequantised(opened(model), model), ScaledWeights)


def test_a_quantised_convolution_has_its_geometry(opened):
    stored = {"w": tensor_of("INT8", (6, 4, 3, 3)), "s": RNG.uniform(0.01, 1, 6).astype(np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0),
        helper.make_node("Conv", ["x", "d"], ["y"], strides=[2, 2]),
    ]
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (1, 4, 9, 9)})))
    (layer,) = reading.layers
    assert (layer.name, layer.geometry.output_size, reading.left_out) == ("w", (4, 4), {})


def test_weights_that_are_quantised_and_dequantised_again_are_those_that_are_stored(opened):
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Gemm", ["x", "d"], ["y"], transB=1),
    ]
    weight = normal(3, 4)
    stored = {"w": weight, "s": np.float32([0.1]).reshape(()), "z": np.int8([0]).reshape(())}
    checkpoint = opened(model_of(nodes, stored, {"x": (5, 4)}))
    (layer,) = read_layer_tensors(checkpoint).layers
    assert (layer.name, layer.graph.n_inputs) == ("w", 4)
    assert np.array_equal(checkpoint.tensor("w"), weight)


@pytest.mark.parametrize("operator", ["QLinearMatMul", "QLinearConv"])
def test_operators_on_codes(opened, operator):
    shape = (4, 3) if operator == "QLinearMatMul" else (6, 4, 3, 3)
    n, axis = (3, 1) if operator == "QLinearMatMul" else (6, 0)
    stored = {
        "w": tensor_of("INT8", shape),
        "s": RNG.uniform(0.01, 1, n).astype(np.float32),
        "z": tensor_of("INT8", (n,), "z"),
        "one": np.float32(1).reshape(()),
        "none": np.uint8(0).reshape(()),
    }
    node = helper.make_node(operator, ["q", "one", "none", "w", "s", "z", "one", "none"], ["y"])
    quantise = helper.make_node("QuantizeLinear", ["x", "one", "none"], ["q"])
    given = (5, 4) if operator == "QLinearMatMul" else (1, 4, 9, 9)
    checkpoint = opened(model_of([quantise, node], stored, {"x": given}, output_type=TensorProto.UINT8))
    twin = model_of(
        [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"], axis=axis)],
        {name: stored[name] for name in "wsz"},
        {},
    )
    dequantised(checkpoint, twin)
    (layer,) = read_layer_tensors(checkpoint).layers
    assert layer.graph.n_inputs == (4 if operator == "QLinearMatMul" else 4 * 81)


@pytest.mark.parametrize(
    ("stored", "attributes"),
    [
        ({"s": np.ones(5, np.float32)}, {"axis": 0}),
        ({"s": np.ones((6, 3), np.float32)}, {"axis": 1, "block_size": 4}),
        ({"s": np.ones(6, np.float32), "z": np.zeros(5, np.int8)}, {"axis": 0}),
        ({"s": np.ones(6, np.float32), "z": np.zeros(6, np.uint8)}, {"axis": 0}),
        ({"s": np.ones(6, np.int32)}, {"axis": 0}),
    ],
)
def test_scales_that_do_not_fit_are_told(opened, stored, attributes):
    stored = {"w": tensor_of("INT8", (6, 8)), **stored}
    nodes = [
        helper.make_node("DequantizeLinear", list(stored), ["d"], **attributes),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (2, 6)})))
    assert reading.layers == ()
    assert reading.left_out["w"] == "codes whose scales and zero points do not fit them"


def test_scales_that_are_codes_themselves_are_not_taken_for_numbers(opened):
    stored = {"w": tensor_of("INT8", (6, 8)), "s": tensor_of("UINT8", (6,), "s"), "t": np.float32([0.1]).reshape(())}
    nodes = [
        helper.make_node("DequantizeLinear", ["s", "t"], ["scale"]),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["d"], axis=0),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (2, 6)})))
    assert reading.left_out["w"] == "input 0 of DequantizeLinear, which is no layer that is known"
    assert reading.layers == ()


def test_codes_whose_scale_is_applied_later_are_left_out(opened):
    node = helper.make_node("MatMulInteger", ["x", "w", "", "z"], ["y"])
    model = model_of([node], {"w": tensor_of("INT8", (4, 3)), "z": np.int8(3).reshape(())}, {"x": (5, 4)})
    reading = read_layer_tensors(opened(model))
    assert (reading.layers, reading.left_out["w"]) == ((), "codes of MatMulInteger, whose scales are not known")


@pytest.mark.parametrize("operator", ["MatMul", "Gather"])
def test_codes_that_no_node_dequantises_before_a_layer_reads_them_are_no_weights(opened, operator):
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "c"], ["m"])
        if operator == "MatMul"
        else helper.make_node("Gather", ["c", "which"], ["m"]),
        helper.make_node("Mul", ["m", "s"], ["y"]),
    ]
    stored = {"w": tensor_of("INT8", (4, 3)), "s": np.ones(3, np.float32), "which": np.int64([1])}
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (5, 4)})))
    assert (reading.layers, reading.left_out["w"]) == ((), "codes of unknown scale (int8)")


@pytest.mark.parametrize("cast", ["codes", "scale", "weights"])
def test_what_is_cast_to_integers_is_not_what_is_stored(opened, cast):
    """A cast between floats rounds; one to integers, truth values or float8 may change all."""
    stored = {"w": tensor_of("INT8", (4, 3)), "s": np.float32([0.5, 1.5, 2.5])}
    names = {"codes": "w", "scale": "s"}
    if cast == "weights":
        nodes = [
            helper.make_node("Cast", ["s2"], ["c"], to=TensorProto.INT8),
            helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        ]
        stored = {"s2": normal(4, 3)}
    else:
        name = names[cast]
        to = TensorProto.UINT8 if cast == "codes" else TensorProto.INT32
        inputs = ["c" if each == name else each for each in ("w", "s")]
        if cast == "scale":
            inputs[1] = "f"
        back = [helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT)] if cast == "scale" else []
        dequantise = helper.make_node("DequantizeLinear", inputs, ["d"], axis=1)
        nodes = [helper.make_node("Cast", [name], ["c"], to=to), *back, dequantise]
    nodes.append(helper.make_node("MatMul", ["x", "d"], ["y"]))
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (5, 4)})))
    assert reading.layers == ()
    assert set(reading.left_out) == set(stored)


def test_an_axis_that_is_not_there_is_not_another(opened):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=7),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    stored = {"w": tensor_of("INT8", (4, 3)), "s": np.ones(3, np.float32)}
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (5, 4)})))
    assert reading.left_out["w"] == "codes whose scales and zero points do not fit them"


def test_a_graph_within_a_node_reads_what_the_graph_around_it_dequantised(opened):
    def branch(name):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("MatMul", ["x", "d"], [name])], name, [], [value])

    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("If", ["which"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    stored = {"w": tensor_of("INT8", (4, 3)), "s": np.float32([0.5, 1.5, 2.5]), "which": np.bool_(True).reshape(())}
    checkpoint = opened(model_of(nodes, stored, {"x": (5, 4)}))
    (layer,) = read_layer_tensors(checkpoint).layers
    assert (layer.name, layer.inputs_first, layer.assumed) == ("w", True, None)
    codes = numpy_helper.to_array(stored["w"]).astype(np.float32)
    assert np.array_equal(np.asarray(checkpoint.tensor("w")), codes * stored["s"])


# -- where tensors are -----------------------------------------------------------------------------------------------


def dense_model(**stored):
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], stored or {"w": normal(40, 30)}, {"x": (2, None)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.int64, np.bool_])
@pytest.mark.parametrize("external", [True, False])
def test_values_of_every_type_in_the_file_or_beside_it(opened, dtype, external):
    array = (RNG.standard_normal((40, 30)) * 3).astype(dtype)
    saved = {"save_as_external_data": True, "location": "x.data", "size_threshold": 0} if external else {}
    checkpoint = opened(dense_model(w=array), **saved)
    found = checkpoint.tensor("w")
    assert (found.dtype, checkpoint.dtype("w"), checkpoint.shape("w")) == (dtype, dtype, (40, 30))
    assert np.array_equal(found, array)
    assert checkpoint.file_of("w") == ("x.data" if external else "x.onnx")


@pytest.mark.parametrize(
    "kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT32", "UINT64", "FLOAT8E4M3FN", "INT4", "BOOL"]
)
def test_values_that_stand_one_by_one(opened, kind):
    values = RNG.integers(0, 2, 12)
    proto = helper.make_tensor("w", getattr(TensorProto, kind), (4, 3), values)
    assert not proto.HasField("raw_data")
    found = opened(dense_model(w=proto)).tensor("w")
    assert found.astype(np.float64).ravel().tolist() == values.tolist()


def test_packed_codes_beside_the_file(opened):
    array = numpy_helper.to_array(tensor_of("INT4", (5, 3)))
    proto = numpy_helper.from_array(array, "w")
    checkpoint = opened(dense_model(w=proto), save_as_external_data=True, location="x.data", size_threshold=0)
    assert np.array_equal(checkpoint.tensor("w"), array)


def test_constants_and_the_tensors_of_graphs_within_nodes(opened):
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["z"])],
        "then",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(normal(4, 3), "inner")],
    )
    other = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(normal(4, 3))),
            helper.make_node("MatMul", ["x", "c"], ["z2"]),
        ],
        "else",
        [],
        [helper.make_tensor_value_info("z2", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["which"], ["y"], then_branch=inner, else_branch=other)
    reading = read_layer_tensors(opened(model_of([node], {"which": np.bool_(True).reshape(())}, {"x": (5, 4)})))
    assert {layer.name: layer.inputs_first for layer in reading.layers} == {"inner": True, "c": True}
    assert reading.left_out == {"which": "input 0 of If, which is no layer that is known"}


def test_functions_of_the_model_are_seen_through(opened):
    function = helper.make_function(
        "own",
        "Linear",
        ["a", "b"],
        ["c"],
        [helper.make_node("Gemm", ["a", "b"], ["c"], transB=1)],
        [helper.make_opsetid("", OPSET)],
    )
    node = helper.make_node("Linear", ["x", "w"], ["y"], domain="own")
    layer = only_layer(opened(model_of([node], {"w": normal(3, 4)}, {"x": (5, 4)}, functions=[function])))
    assert (layer.inputs_first, layer.graph.n_inputs) == (False, 4)


def test_every_tensor_is_read_or_left_out(opened):
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Add", ["h", "a"], ["i"]),
        helper.make_node("Reshape", ["i", "shape"], ["y"]),
    ]
    stored = {"w": normal(4, 3), "b": normal(3), "a": normal(5, 3), "shape": np.array([15]), "unused": normal(2, 2)}
    stored["texts"] = helper.make_tensor("texts", TensorProto.STRING, (1,), [b"x"])
    reading = read_layer_tensors(opened(model_of(nodes, stored, {"x": (5, 4)})))
    assert {layer.name for layer in reading.layers} | set(reading.left_out) == set(stored)
    assert reading.left_out["a"] == "input 1 of Add, which is no layer that is known"
    assert (reading.left_out["b"], reading.left_out["texts"]) == ("bias", "texts, or of a type that is not known")


def test_a_type_of_a_later_version_is_left_out(opened):
    stored = {"w": normal(4, 3), "later": TensorProto(name="later", dims=[2], data_type=99, raw_data=bytes(2))}
    checkpoint = opened(dense_model(**stored))
    assert checkpoint.names == ("w",)
    assert checkpoint.left_out == {"later": "texts, or of a type that is not known"}


def test_a_sparse_tensor_is_left_out(opened):
    model = dense_model()
    values = numpy_helper.from_array(np.float32([1, 2]), "sparse")
    indices = numpy_helper.from_array(np.array([1, 5]), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3, 4]))
    assert opened(model).left_out == {"sparse": "sparse: its indices are beside its values"}


def test_without_the_package_the_extra_is_named(opened, tmp_path, monkeypatch):
    opened(dense_model())
    monkeypatch.setattr("topobounds.checkpoint.onnx.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"x\.onnx is an ONNX file, .*pip install -e '\.\[onnx\]'"):
        open_checkpoint(tmp_path / "x.onnx")


def test_the_package_is_imported_for_such_files_only():
    code = "import sys, topobounds.checkpoint; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
