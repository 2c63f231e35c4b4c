"""What the tensors of checkpoints are read as: kinds, parts and graphs, and nothing that is in no list."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

from tests.checkpoint import fixtures
from topobounds import layer_tensors, open_checkpoint
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.layers import Conv, Dense
from topobounds.layers.layer_tensor import GATES
from torch_bridge.model.weight_tensors import model_weight_tensors

pytestmark = pytest.mark.usefixtures("registered")
QKV = ("query", "key", "value")


def read(shapes, config=None, dtypes=None, **asked):
    """Return the layers by name, and what is left out, of arrays of these shapes."""
    arrays = fixtures.random_arrays(shapes)
    arrays |= {name: arrays[name].astype(dtype) for name, dtype in (dtypes or {}).items()}
    reading = read_layer_tensors(ArraysCheckpoint(arrays, config or {}), **asked)
    check_reading(reading, arrays)
    return {tensor.name: tensor for tensor in reading.layers}, reading.left_out


def check_reading(reading, arrays):
    """Check that every tensor is in one list, and that parts are what their graphs say, and can be joined again."""
    named = [*(tensor.name for tensor in reading.layers), *reading.left_out, *reading.tied]
    assert set(arrays) <= set(named)
    assert len(named) == len(set(named))
    for tensor in reading.layers:
        array = arrays[tensor.name]
        parts = tensor.split(array)
        assert len(parts) == len(tensor.parts) == len(tensor.graphs) == len(tensor.read_as) == len(tensor.part_names)
        for part, graph in zip(parts, tensor.graphs, strict=True):
            shape = graph.weight_shape if isinstance(graph, Conv) or tensor.inputs_first else graph.weight_shape[::-1]
            assert part.shape == shape
        assert np.array_equal(tensor.join(parts), array)
        assert sum(part.size for part in parts) == array.size


def opened(path):
    """Return what a file is read as, checked against its arrays."""
    with open_checkpoint(path) as checkpoint:
        arrays = {name: checkpoint.tensor(name) for name in checkpoint.names}
        reading = read_layer_tensors(checkpoint)
        check_reading(reading, arrays)
        return reading, arrays


def kinds(layers):
    return {name: (tensor.kind, tensor.parts) for name, tensor in layers.items()}


# -- recurrent layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 3), (5, 1), (1, 1)])
def test_gates_of_one_input_or_one_hidden_unit_are_gates(inputs, hidden):
    layers, left_out = read({"r.weight_ih_l0": (4 * hidden, inputs), "r.weight_hh_l0": (4 * hidden, hidden)})
    assert not left_out
    for tensor in layers.values():
        assert tensor.parts == GATES["LSTM"]


def test_gates_are_told_from_their_neighbours():
    shapes = {
        "a.weight_ih_l0": (12, 5),
        "a.weight_hh_l0": (12, 3),
        "a.weight_hh_l0_reverse": (12, 3),
        "a.weight_ih_l0_reverse": (12, 5),
        "b.weight_ih": (9, 5),
        "b.weight_hh": (9, 3),
        "enc_w_ih": (6, 2),
        "enc_w_hh": (6, 2),
        "c.weight_ih_l0": (4, 5),
        "c.weight_hh_l0": (4, 4),
        "p.weight_ih_l0": (24, 5),
        "p.weight_hh_l0": (24, 2),
        "p.weight_hr_l0": (2, 6),
        "five.weight_ih": (10, 4),
        "five.weight_hh": (10, 2),
        "lone.weight_ih_l0": (12, 5),
    }
    layers, left_out = read(shapes)
    assert not left_out
    five = ("0", "1", "2", "3", "4")
    assert kinds(layers) == {
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
        "five.weight_ih": ("dense", five),
        "five.weight_hh": ("recurrent", five),
        "lone.weight_ih_l0": ("dense", ("",)),
    }
    assert [name for name, tensor in layers.items() if tensor.assumed] == [
        "five.weight_ih",
        "five.weight_hh",
        "lone.weight_ih_l0",
    ]
    assert layers["a.weight_ih_l0"].read_as[1] == "gate 2 of 4 (forget), 5 inputs x 3 outputs"


def test_gates_of_keras_lie_in_columns():
    shapes = {"lstm/cell/kernel:0": (5, 12), "lstm/cell/recurrent_kernel:0": (3, 12), "lstm/cell/bias:0": (12,)}
    layers, left_out = read(shapes | {"gru/kernel": (5, 6), "gru/recurrent_kernel": (2, 6)})
    assert left_out == {"lstm/cell/bias:0": "bias"}
    assert kinds(layers) == {
        "lstm/cell/kernel:0": ("dense", GATES["LSTM"]),
        "lstm/cell/recurrent_kernel:0": ("recurrent", GATES["LSTM"]),
        "gru/kernel": ("dense", ("update", "reset", "new")),
        "gru/recurrent_kernel": ("recurrent", ("update", "reset", "new")),
    }
    array = np.arange(60.0).reshape(5, 12)
    assert np.array_equal(layers["lstm/cell/kernel:0"].split(array)[1], array[:, 3:6])


def test_a_file_is_read_as_the_model_that_it_is_of():
    model = fixtures.torch_model()
    arrays = {name: values.numpy() for name, values in model.state_dict().items()}
    reading = read_layer_tensors(arrays)
    check_reading(reading, arrays)
    own = [tensor for tensors in model_weight_tensors(model).values() for tensor in tensors]
    found = {tensor.name: tensor for tensor in reading.layers}
    assert {tensor.name for tensor in own} == set(found)
    for tensor in own:
        same = found[tensor.name]
        for field in ("shape", "kind", "part_names", "groups", "inputs_first"):
            assert getattr(same, field) == getattr(tensor, field), (tensor.name, field)
        if tensor.kind != "conv":
            assert same.graphs == tensor.graphs
        for one, other in zip(same.split(arrays[tensor.name]), tensor.split(arrays[tensor.name]), strict=True):
            assert np.array_equal(one, other)


# -- attention --------------------------------------------------------------------------------------------------------


def test_the_linear_layers_of_gpt2_store_their_inputs_first(tmp_path):
    reading, arrays = opened(fixtures.gpt2(tmp_path))
    layers = {tensor.name: tensor for tensor in reading.layers}
    block = "transformer.h.0"
    assert [name for name, tensor in layers.items() if tensor.inputs_first and tensor.kind == "dense"] == [
        f"{block}.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]
    fused = layers[f"{block}.attn.c_attn.weight"]
    assert (fused.parts, fused.graphs, fused.assumed) == (QKV, (Dense(16, 16),) * 3, None)
    assert np.array_equal(fused.split(arrays[fused.name])[1], arrays[fused.name][:, 16:32])
    assert reading.left_out[f"{block}.attn.bias"] == "mask"
    assert {layers[f"transformer.{name}.weight"].kind for name in ("wte", "wpe")} == {"embedding"}
    assert reading.tied == {"lm_head.weight": "transformer.wte.weight"}


def test_without_a_config_the_bias_tells_and_that_is_said(tmp_path):
    reading, _ = opened(fixtures.gpt2(tmp_path, config=False))
    layers = {tensor.name: tensor for tensor in reading.layers if tensor.kind == "dense"}
    assert all(tensor.inputs_first and tensor.assumed for tensor in layers.values())
    linear, _ = read(
        {"h.0.attn.c_attn.weight": (48, 16), "h.0.attn.c_attn.bias": (48,), "h.0.mlp.c_proj.weight": (4, 4)}
    )
    assert not any(tensor.inputs_first for tensor in linear.values())


def test_widths_of_shared_heads_come_from_the_config(tmp_path):
    reading, arrays = opened(fixtures.grouped_query(tmp_path))
    layers = {tensor.name: tensor for tensor in reading.layers}
    fused = layers["model.layers.0.self_attn.qkv_proj.weight"]
    assert fused.graphs == (Dense(16, 16), Dense(16, 8), Dense(16, 8))
    assert fused.part_names[2] == "model.layers.0.self_attn.qkv_proj.weight[value]"
    assert np.array_equal(fused.split(arrays[fused.name])[2], arrays[fused.name][24:])
    gated = layers["model.layers.0.mlp.gate_up_proj.weight"]
    assert (gated.parts, gated.graphs) == (("gate", "up"), (Dense(16, 24),) * 2)
    assert not any(tensor.assumed for tensor in layers.values())
    assert fused.n_critical == 31 + 23 + 23


HEADS = {"hidden_size": 8, "num_attention_heads": 4}
INTERLEAVED = [
    ({"model_type": "bloom", "n_head": 4, "hidden_size": 8}, 24, 4, (2, 2, 2)),
    ({"model_type": "gpt_neox"} | HEADS, 24, 4, (2, 2, 2)),
    ({"model_type": "falcon", "multi_query": False} | HEADS, 24, 4, (2, 2, 2)),
    ({"model_type": "falcon", "multi_query": True} | HEADS, 12, 1, (8, 2, 2)),
    ({"model_type": "falcon", "new_decoder_architecture": True, "multi_query": True, "num_kv_heads": 2} | HEADS, 16, 2,
     (4, 2, 2)),
    ({"model_type": "gpt_bigcode", "multi_query": True, "n_head": 4, "n_embd": 8}, 12, 1, (8, 2, 2)),
    ({"model_type": "chatglm", "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 2} | HEADS, 16,
     1, (8, 4, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("config", "rows", "groups", "sizes"), INTERLEAVED)
def test_heads_that_alternate_are_told_apart_by_the_model(config, rows, groups, sizes):
    name = "h.0.self_attention.query_key_value.weight"
    layers, _ = read({name: (rows, 8)}, config)
    tensor = layers[name]
    array = np.arange(rows * 8.0).reshape(rows, 8)
    expected = [[], [], []]
    row = 0
    for _ in range(groups):  # what the model's own code does: group by group, a few rows of each part
        for part, size in enumerate(sizes):
            expected[part] += list(range(row, row + size))
            row += size
    assert row == rows
    for part, places in zip(tensor.split(array), expected, strict=True):
        assert np.array_equal(part, array[places])
    assert (tensor.parts, tensor.assumed) == (QKV, None)


def test_heads_of_unknown_order_are_one_graph():
    shapes = {"a.query_key_value.weight": (24, 8), "b.qkv.weight": (16, 8), "c.qkv.weight": (24, 8)}
    layers, _ = read(shapes)
    assert [len(tensor.parts) for tensor in layers.values()] == [1, 1, 3]
    assert layers["a.query_key_value.weight"].assumed == "one graph: in what order the heads lie, no config.json tells"
    assert layers["b.qkv.weight"].assumed == "one graph: no config.json tells the widths of query, key and value"
    assert layers["c.qkv.weight"].assumed == "query, key and value lie one after the other"


def test_attention_of_flax_and_keras_is_read_as_matrices():
    shapes = {"block/attention/query/kernel": (8, 4, 2), "block/attention/out/kernel": (4, 2, 8)}
    layers, _ = read(shapes)
    assert [tensor.graph for tensor in layers.values()] == [Dense(8, 8), Dense(8, 8)]
    with pytest.raises(KeyError):
        read({"query/kernel": (3, 4, 2)})[0]["none"]


# -- experts ----------------------------------------------------------------------------------------------------------


def test_each_expert_and_projection_has_a_graph(tmp_path):
    reading, arrays = opened(fixtures.mixture(tmp_path))
    layers = {tensor.name.rpartition(".")[2]: tensor for tensor in reading.layers}
    fused, down = layers["gate_up_proj"], layers["down_proj"]
    assert fused.parts == ("0 gate", "0 up", "1 gate", "1 up", "2 gate", "2 up")
    assert (fused.graphs[0], down.graphs[0], fused.inputs_first, down.inputs_first) == (
        Dense(16, 20),
        Dense(20, 16),
        True,
        True,
    )
    assert np.array_equal(fused.split(arrays[fused.name])[3], arrays[fused.name][1, :, 1::2])
    assert fused.read_as[3] == "expert 1 (of 3), up projection, 16 inputs x 20 outputs"
    assert fused.part_names[3] == "model.layers.0.mlp.experts.gate_up_proj[1 up]"
    assert {name: reason for name, reason in reading.left_out.items() if "proj" in name} == {
        "model.layers.0.mlp.experts.gate_up_proj_bias": "bias of several dimensions",
        "model.layers.0.mlp.experts.down_proj_bias": "bias of several dimensions",
    }
    assert not any(tensor.assumed for tensor in reading.layers)


def test_neighbours_tell_the_orientation_of_experts():
    first = {"mlp.experts.gate_up_proj": (2, 6, 8), "mlp.experts.down_proj": (2, 4, 6)}
    last = {"mlp.experts.gate_up_proj": (2, 8, 6), "mlp.experts.down_proj": (2, 6, 4)}
    for shapes in (first, last):
        layers, _ = read(shapes)
        assert [tensor.graphs[0] for tensor in layers.values()] == [Dense(6, 4), Dense(4, 6)]
        assert [tensor.inputs_first for tensor in layers.values()] == [shapes is first] * 2
    routed, _ = read({"moe.gate.weight": (2, 6), "moe.experts.w1": (2, 5, 6), "moe.experts.w2": (2, 6, 5)})
    assert [tensor.graphs[0] for tensor in routed.values()][1:] == [Dense(6, 5), Dense(5, 6)]
    unknown, _ = read({"experts.w1": (2, 5, 6)})
    assert unknown["experts.w1"].assumed == "experts with their outputs first"


def test_experts_of_dbrx_lie_below_one_another():
    config = {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 3}}
    shapes = {f"blocks.0.ffn.experts.mlp.{name}": (12, 5) for name in ("w1", "v1", "w2")}
    layers, _ = read(shapes, config)
    assert [tensor.graphs for tensor in layers.values()] == [(Dense(5, 4),) * 3, (Dense(5, 4),) * 3, (Dense(4, 5),) * 3]


# -- kernels ----------------------------------------------------------------------------------------------------------


def test_groups_and_transposition_are_told_by_neighbours_and_names():
    shapes = {
        "first.weight": (6, 1, 5, 5),
        "second.weight": (16, 6, 5, 5),
        "depthwise.weight": (16, 1, 3, 3),
        "up.weight": (16, 4, 2, 2),
        "up.bias": (4,),
        "deconv.weight": (4, 4, 2, 2),
        "block.conv1.weight": (32, 64, 1, 1),
        "block.conv2.weight": (32, 4, 3, 3),
        "block.conv3.weight": (64, 32, 1, 1),
        "block.downsample.0.weight": (64, 4, 1, 1),
        "skip.weight": (32, 2, 1),
        "beside.weight": (32, 2, 5),
        "pos.projection.weight": (32, 20),
        "pos.0.conv.weight": (32, 2, 9),
        "pos.1.conv.weight": (32, 2, 9),
        "wave.weight": (8, 2, 3),
        "volume.weight": (8, 2, 3, 3, 3),
    }
    layers, _ = read(shapes)
    assert {name: (tensor.groups, tensor.inputs_first) for name, tensor in layers.items()} == {
        "first.weight": (1, False),
        "second.weight": (1, False),
        "depthwise.weight": (16, False),
        "up.weight": (1, True),
        "deconv.weight": (1, True),
        "block.conv1.weight": (1, False),
        "block.conv2.weight": (8, False),
        "block.conv3.weight": (1, False),
        "block.downsample.0.weight": (1, False),
        "skip.weight": (1, False),
        "beside.weight": (1, False),
        "pos.projection.weight": (1, False),
        "pos.0.conv.weight": (16, False),
        "pos.1.conv.weight": (16, False),
        "wave.weight": (1, False),
        "volume.weight": (1, False),
    }
    assert layers["first.weight"].assumed == "stride 1, same padding, a map of 8x8"
    assert layers["depthwise.weight"].read_as == (
        "depthwise convolution 3x3, 16 to 16 channels, 1024 inputs x 1024 outputs",
    )
    assert layers["second.weight"].graphs[0].output_size == (8, 8)
    assert layers["deconv.weight"].graphs[0].output_size == (8, 8)


def test_an_input_gives_the_map_where_its_dimensions_are_those_of_the_kernel():
    shapes = {"conv.weight": (4, 3, 3, 3), "wave.weight": (4, 3, 3), "patch_embed.proj.weight": (8, 3, 16, 16)}
    layers, _ = read(shapes, input_size=(3, 32, 48))
    assert layers["conv.weight"].geometry.input_size == (32, 48)
    assert layers["wave.weight"].geometry.input_size == (8,)
    patches = layers["patch_embed.proj.weight"].geometry
    assert (patches.stride, patches.output_size) == ((16, 16), (2, 3))
    with pytest.raises(ValueError, match=r"'input_size' must be a positive integer, not 0"):
        read(shapes, input_size=(0, 4))


def test_kernels_of_keras_are_turned_to_the_order_of_torch():
    shapes = {
        "conv2d/kernel:0": (3, 3, 4, 6),
        "conv2d/bias:0": (6,),
        "conv2d_transpose/kernel": (2, 2, 5, 6),
        "depthwise_conv2d/depthwise_kernel": (3, 3, 6, 2),
        "separable/pointwise_kernel": (1, 1, 12, 7),
        "dense/kernel": (7, 3),
        "embedding/embeddings": (9, 4),
        "batch_normalization/gamma": (6,),
        "batch_normalization/moving_mean": (6,),
    }
    layers, left_out = read(shapes)
    graphs = {name: tensor.graphs[0] for name, tensor in layers.items()}
    conv = graphs["conv2d/kernel:0"]
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (4, 6, (3, 3))
    up = graphs["conv2d_transpose/kernel"]
    assert (up.in_channels, up.out_channels, up.transposed) == (6, 5, True)
    depthwise = graphs["depthwise_conv2d/depthwise_kernel"]
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (6, 12, 6)
    assert graphs["separable/pointwise_kernel"].in_channels == 12
    assert graphs["dense/kernel"] == Dense(7, 3)
    assert layers["embedding/embeddings"].kind == "embedding"
    assert set(left_out.values()) == {"bias", "norm"}
    array = np.arange(3 * 3 * 4 * 6.0).reshape(3, 3, 4, 6)
    (part,) = layers["conv2d/kernel:0"].split(array)
    assert part[5, 2, 1, 0] == array[1, 0, 2, 5]
    array = np.arange(3 * 3 * 6 * 2.0).reshape(3, 3, 6, 2)
    (part,) = layers["depthwise_conv2d/depthwise_kernel"].split(array)
    assert part[2 * 5 + 1, 0, 2, 1] == array[2, 1, 5, 1]  # the outputs of one input lie one after the other


def test_arrays_without_names_are_told_by_their_biases():
    shapes = {"arr_0": (784, 128), "arr_1": (128,), "arr_2": (3, 3, 1, 32), "arr_3": (32,), "arr_4": (5, 4)}
    layers, _ = read(shapes)
    assert layers["arr_0"].inputs_first
    assert layers["arr_2"].graphs[0].out_channels == 32
    assert layers["arr_4"].assumed == "a dense layer, its rows the outputs; no name tells"


# -- adapters, tables and what is no layer ----------------------------------------------------------------------------


def test_low_rank_factors_are_layers_of_their_own(tmp_path):
    reading, _ = opened(fixtures.adapter(tmp_path))
    assert [tensor.read_as[0] for tensor in reading.layers[:2]] == [
        "low-rank factor A (LoRA), 16 inputs x 4 outputs",
        "low-rank factor B (LoRA), 4 inputs x 16 outputs",
    ]
    layers, _ = read({"unet_to_q.lora_down.weight": (4, 8, 1, 1), "unet_to_q.lora_up.weight": (8, 4, 1, 1)})
    assert all("low-rank factor" in tensor.read_as[0] and tensor.kind == "conv" for tensor in layers.values())


def test_tables_of_vectors_are_told_from_linear_layers_of_like_names():
    tables = ["model.embed_tokens", "bert.embeddings.word_embeddings", "wpe", "shared", "relative_attention_bias"]
    linear = ["embed_out", "patch_embed.proj", "time_embedding", "mlp.gate"]
    shapes = {f"{name}.weight": (9, 4) for name in (*tables, *linear)} | {"time_embedding.bias": (9,)}
    layers, _ = read(shapes)
    assert [name for name, tensor in layers.items() if tensor.kind == "embedding"] == [f"{n}.weight" for n in tables]
    assert layers["wpe.weight"].graph == Dense(9, 4)


def test_what_is_no_layer_says_why():
    shapes = {
        "bn.weight": (4,),
        "bn.running_mean": (4,),
        "ln.weight": (3, 4),
        "ln.bias": (3, 4),
        "fc.bias": (4,),
        "logit_scale": (),
        "pos_embed": (1, 5, 4),
        "cls_token": (1, 1, 4),
        "mixer.A_log": (8, 4),
        "attn.relative_position_bias_table": (9, 2),
        "keep_mask": (4, 4),
        "unknown": (3, 4, 5),
        "nothing": (0, 4),
        "temperature": (4, 1, 1),
        "optimizer.state.0.exp_avg": (4, 4),
        "ids": (1, 9),
        "causal": (4, 4),
        "codes": (4, 4),
    }
    dtypes = {"ids": np.int64, "causal": np.bool_, "codes": np.uint8}
    layers, left_out = read(shapes, dtypes=dtypes)
    assert not layers
    assert left_out == {
        "bn.weight": "norm",
        "bn.running_mean": "norm",
        "ln.weight": "norm",
        "ln.bias": "norm",
        "fc.bias": "bias",
        "logit_scale": "one number",
        "pos_embed": "position embedding, added to the activations",
        "cls_token": "learned token",
        "mixer.A_log": "parameter of a recurrence",
        "attn.relative_position_bias_table": "table of position biases",
        "keep_mask": "mask",
        "unknown": "no name or neighbour tells what its 3 dimensions are; a geometry file can",
        "nothing": "empty",
        "temperature": "vector: one dimension longer than 1",
        "optimizer.state.0.exp_avg": "optimiser state",
        "ids": "buffer (int64)",
        "causal": "mask or buffer (bool)",
        "codes": "codes of unknown scale (uint8)",
    }
    forms = read_layer_tensors(fixtures.random_arrays({"bn.weight": (4,)})).forms
    assert forms == {"bn.weight": ((4,), "float32")}


def test_what_is_no_array_of_weights_is_left_out_with_its_reason(tmp_path):
    file = tmp_path / "odd.npz"
    odd = {"words": np.array(["a"]), "complex": np.ones((2, 2), complex), "long": np.ones((2, 2), np.longdouble)}
    np.savez(file, weight=np.ones((3, 2), ">f4"), **odd)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("cut.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran")
    with open_checkpoint(file) as checkpoint:
        reading = read_layer_tensors(checkpoint)
    assert [(tensor.name, tensor.dtype) for tensor in reading.layers] == [("weight", "float32")]
    assert set(reading.left_out) == {"cut", *odd}
    assert all(reading.left_out[name].startswith("no real numbers") for name in odd)
    assert reading.left_out["cut"].startswith("is damaged")
    assert reading.forms["cut"] == ((), "")


CODED = {
    "bitsandbytes, 4 bit": (
        {"fc.weight": (64, 1), "fc.weight.absmax": (2,), "fc.weight.quant_map": (16,), "fc.weight.quant_state.x": (8,)},
        {"fc.weight": np.uint8, "fc.weight.quant_state.x": np.uint8, "fc.weight.absmax": np.float32},
    ),
    "bitsandbytes, 8 bit": ({"fc.weight": (8, 4), "fc.SCB": (8,)}, {"fc.weight": np.int8}),
    "GPTQ": (
        {"fc.qweight": (4, 8), "fc.qzeros": (1, 1), "fc.scales": (1, 8), "fc.g_idx": (32,)},
        {"fc.qweight": np.int32, "fc.qzeros": np.int32, "fc.g_idx": np.int32, "fc.scales": np.float16},
    ),
    "compressed-tensors": (
        {"fc.weight_packed": (8, 4), "fc.weight_scale": (8, 2), "fc.weight_shape": (2,)},
        {"fc.weight_packed": np.int32, "fc.weight_shape": np.int64},
    ),
    "float8 in blocks": (
        {"fc.weight": (8, 4), "fc.weight_scale_inv": (2, 2)},
        {"fc.weight": ml_dtypes.float8_e4m3fn},
    ),
    "int8 by row": ({"fc.weight": (8, 4), "fc.weight_scale": (8, 1)}, {"fc.weight": np.int8}),
    "MXFP4": (
        {"experts.gate_up_proj_blocks": (2, 8, 4, 16), "experts.gate_up_proj_scales": (2, 8, 4)},
        {"experts.gate_up_proj_blocks": np.uint8, "experts.gate_up_proj_scales": np.uint8},
    ),
    "HQQ": ({"fc.W_q": (8, 4), "fc.scale": (8, 1), "fc.zero": (8, 1)}, {"fc.W_q": np.uint8}),
    "a scale below the name": ({"fc.weight": (8, 4), "fc.weight.scale": (8, 1)}, {"fc.weight": np.int8}),
}


@pytest.mark.parametrize("coding", CODED)
def test_codes_and_what_belongs_to_them_are_left_out(coding):
    shapes, dtypes = CODED[coding]
    layers, left_out = read(shapes, dtypes=dtypes)
    assert not layers
    first = next(iter(shapes))
    assert "codes" in left_out.pop(first)
    assert all("belongs to the quantised" in reason or "scale of" in reason for reason in left_out.values())


def test_values_of_8_bits_that_are_numbers_are_weights():
    layers, _ = read({"fc.weight": (8, 4)}, dtypes={"fc.weight": ml_dtypes.float8_e5m2})
    assert layers["fc.weight"].dtype == "float8_e5m2"


def test_scales_that_belong_to_nothing_known_are_no_layers():
    layers, left_out = read({"norm.scale": (3, 4), "fc.weight": (4, 4), "fc.input_scale": ()})
    assert list(layers) == ["fc.weight"]
    assert left_out == {"norm.scale": "norm", "fc.input_scale": "scale of quantised values"}


# -- files ------------------------------------------------------------------------------------------------------------


def test_every_tensor_of_a_sharded_folder_is_read_once(tmp_path):
    reading, arrays = opened(fixtures.sharded(tmp_path))
    assert len(arrays) == 18
    assert reading.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert reading.left_out["model-00003-of-00003.safetensors"] == "a file that the index does not name"
    assert {tensor.source for tensor in reading.layers} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    up = next(tensor for tensor in reading.layers if tensor.name == "model.layers.1.mlp.up_proj.weight")
    assert (up.shape, up.source) == ((48, 16), "model-00002-of-00002.safetensors")
    assert not any(tensor.assumed for tensor in reading.layers)


def test_a_cache_of_symbolic_links_is_the_folder_that_it_stands_for(tmp_path):
    linked, _ = opened(fixtures.symlinked_cache(tmp_path / "cache"))
    plain, _ = opened(fixtures.sharded(tmp_path / "plain"))
    assert linked == plain


def test_optimiser_state_is_counted_and_left_out(tmp_path):
    reading, _ = opened(fixtures.optimiser(tmp_path))
    assert reading.left_out["optimizer_state_dict"] == "optimiser state, with 6 tensors"
    assert len(reading.layers) == 29


def test_files_before_torch_1_6_are_read_alike(tmp_path):
    old, _ = opened(fixtures.legacy(tmp_path / "old"))
    new, _ = opened(fixtures.optimiser(tmp_path / "new"))
    assert [tensor.part_names for tensor in old.layers] == [tensor.part_names for tensor in new.layers]


PUBLISHED = {
    "fashion_mnist_robust_cnn.pth": {"conv": 2, "dense": 2},
    "g2p_gru_checkpoint20.npz": {"embedding": 2, "dense": 2 * 3 + 1, "recurrent": 2 * 3},
    "mnist_6_100_nat.pth": {"dense": 6},
    "mnist_fc_3layer.pth": {"dense": 3},
    "mnist_lenet5.pth": {"conv": 2, "dense": 3},
    "resnet20-12fca82f.th": {"conv": 19, "dense": 1},
    "resnet56-4bfd9763.th": {"conv": 55, "dense": 1},
    "silero_vad_16k.safetensors": {"conv": 6, "dense": 4, "recurrent": 4},
}


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_files_are_read_right_without_being_told(data_dir, file):
    reading, _ = opened(data_dir / "checkpoints" / file)
    found = {}
    for tensor in reading.layers:
        found[tensor.kind] = found.get(tensor.kind, 0) + len(tensor.parts)
        assert tensor.groups == 1
        assert not tensor.inputs_first or tensor.kind == "embedding"
        assert (tensor.assumed is None) == (tensor.kind != "conv")
    assert found == PUBLISHED[file]
    reasons = {"norm", "bias", "no tensor, but of type float", "a tensor beside the weights, which are in 'state_dict'"}
    assert set(reading.left_out.values()) <= reasons


# -- arrays in memory, and what is chosen -----------------------------------------------------------------------------


def test_arrays_in_memory_are_a_checkpoint():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    checkpoint = ArraysCheckpoint({"a": weight, "b": weight, "c": np.ones((2, 2))})
    assert (checkpoint.names, checkpoint.tied) == (("a", "c"), {"b": "a"})
    assert checkpoint.dtype("a") == np.float32
    assert checkpoint.tensor("b").shape == (3, 2)
    assert checkpoint.file_of("a") == ""
    with pytest.raises(ValueError, match=r"'arrays' must be a mapping of names to arrays, not \[1\]"):
        ArraysCheckpoint([1])
    with pytest.raises(ValueError, match=r"'arrays' must hold arrays, but 'a' is of type list"):
        ArraysCheckpoint({"a": [1.0]})
    with pytest.raises(ValueError, match="names being texts, not 3"):
        ArraysCheckpoint({3: np.ones(2)})


def test_patterns_choose_and_those_that_match_nothing_are_refused():
    shapes = {"encoder.fc1.weight": (3, 2), "encoder.fc2.weight": (2, 3), "decoder.weight": (2, 2)}
    layers, left_out = read(shapes, include=["encoder.*"], exclude=["*.fc2.*"])
    assert list(layers) == ["encoder.fc1.weight"]
    assert left_out == {"encoder.fc2.weight": "excluded", "decoder.weight": "not included"}
    assert [t.name for t in layer_tensors(fixtures.random_arrays(shapes), exclude="enc*")] == ["decoder.weight"]
    with pytest.raises(ValueError, match=r"'include' must match .*'encoder.fc3.weight' does not; the nearest are enc"):
        read(shapes, include=["encoder.fc3.weight"])
    tied = ArraysCheckpoint({"embed.weight": (table := np.ones((4, 2))), "head.weight": table, "fc.weight": np.eye(2)})
    assert [tensor.name for tensor in read_layer_tensors(tied, include=["head.*"]).layers] == ["embed.weight"]
    assert list(read({"odd[1]": (2, 3)}, include=["odd[1]"])[0]) == ["odd[1]"]
    with pytest.raises(ValueError, match=r"which 'none' does not"):
        layer_tensors(tied, include=["none"])  # before the first is asked for
    with pytest.raises(ValueError, match=r"'exclude' must be a sequence of patterns of names, not 3"):
        read(shapes, exclude=[3])
