"""Quantised weights of state dicts: each kind against the library, or the definition, that made it."""

import importlib.util
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoint.slow_readers import gptq_packed, gptq_weights, words_packed
from topobounds import maximum_spanning_forest
from topobounds.checkpoint import CheckpointError, open_checkpoint
from topobounds.checkpoint.code_formats import CODE_FORMATS
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.weights import ScaledWeights

pytestmark = [
    pytest.mark.usefixtures("registered"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]
RNG = np.random.default_rng(14)
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def normal(*shape):
    return torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))


def scales(*shape):
    return torch.from_numpy(RNG.uniform(0.01, 2, shape).astype(np.float32))


@pytest.fixture
def written(tmp_path):
    def write(tensors, config=None, name="model.safetensors"):
        save_file({each: tensor.clone().contiguous() for each, tensor in tensors.items()}, tmp_path / name)
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
        return open_checkpoint(tmp_path if name == "model.safetensors" else tmp_path / name)

    return write


def compressed_tensors(module):
    return pytest.importorskip(f"compressed_tensors.{module}", reason="compressed-tensors is not installed")


def only(checkpoint, left=()):
    """Return the one quantised weight of a checkpoint, which has no more names and leaves out nothing."""
    assert checkpoint.left_out == {}
    (name,) = set(checkpoint.names) - set(left)
    weights = checkpoint.tensor(name)
    assert weights.shape == checkpoint.shape(name)
    assert weights.dtype == checkpoint.dtype(name) == np.float32
    return name, weights


def same(found, expected):
    expected = np.asarray(expected)
    assert expected.dtype == np.float32
    assert np.array_equal(np.asarray(found).view(np.int32), np.ascontiguousarray(expected).view(np.int32))


# -- codes of eight bits with scales ---------------------------------------------------------------------------------

PLACES = {
    "one scale": ((), lambda s: s),
    "one scale in a list": ((1,), lambda s: s),
    "rows": ((40,), lambda s: s[:, None]),
    "rows, a column": ((40, 1), lambda s: s),
    "columns": ((1, 96), lambda s: s),
    "groups of 32": ((40, 3), lambda s: s.repeat_interleave(32, 1)),
    "blocks": ((2, 3), lambda s: s.repeat_interleave(32, 0)[:40].repeat_interleave(32, 1)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [E4M3, E5M2, torch.int8])
@pytest.mark.parametrize("scale_name", ["weight_scale", "weight_scale_inv", "scale", "scale_weight"])
def test_codes_times_scales_wherever_these_stand(written, place, dtype, scale_name):
    shape, spread = PLACES[place]
    codes = (normal(40, 96) * 20).clamp(-127, 127).to(dtype)
    scale = scales(*shape)
    block = {"weight_block_size": [32, 32]} if place == "blocks" else {}
    checkpoint = written({"fc.weight": codes, f"fc.{scale_name}": scale}, {"quant_method": "fp8", **block})
    name, found = only(checkpoint)
    assert name == "fc.weight"
    assert isinstance(found, ScaledWeights)
    same(found, codes.float() * spread(scale))
    assert checkpoint.stored_as[name].startswith(f"fc.weight * fc.{scale_name}, ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scales_of_other_types_are_brought_to_float32_first(written, dtype):
    codes, scale = normal(8, 6).to(E4M3), scales(8, 1).to(dtype)
    _, found = only(written({"weight": codes, "weight_scale": scale}))
    same(found, codes.float() * scale.float())


@pytest.mark.parametrize(("n_inputs", "n_groups"), [(160, 2), (96, 2), (80, 5), (600, 5)])
@pytest.mark.parametrize("rows_too", [False, True])
def test_blocks_that_may_be_equal_or_of_a_usual_size_are_not_guessed_at(written, n_inputs, n_groups, rows_too):
    """Of 160 codes with two scales, 80 and 80 share one, or 128 and 32, unless something tells."""
    size, usual = n_inputs // n_groups, {(160, 2): 128, (96, 2): 64, (600, 5): 128}.get((n_inputs, n_groups))
    codes = (normal(n_inputs if rows_too else 4, n_inputs) * 20).to(torch.int8)
    scale = scales(n_groups if rows_too else 4, n_groups)
    spread = scale.repeat_interleave(size, 0) if rows_too else scale

    def read(name="weight_scale", **config):
        return written({"weight": codes, name: scale}, {"quant_method": "x", **config})

    told = read(weight_block_size=[size, size] if rows_too else [1, size])
    same(only(told)[1], codes.float() * spread.repeat_interleave(size, 1))
    if usual is None:
        same(only(read())[1], codes.float() * spread.repeat_interleave(size, 1))
    else:
        assert "and nothing says which codes share one" in read().left_out["weight"]
    if usual == 128:  # what blocks are called by DeepSeek, which has them of this size
        spread = scale.repeat_interleave(usual, 0)[:n_inputs] if rows_too else scale
        same(only(read("weight_scale_inv"))[1], codes.float() * spread.repeat_interleave(usual, 1)[:, :n_inputs])


@pytest.mark.parametrize("shape", [(300, 260), (128, 128), (129, 1), (64, 300)])
def test_blocks_of_128_as_deepseek_stores_them_without_a_config(written, shape):
    codes = normal(*shape).to(E4M3)
    scale = scales(*(-(-side // 128) for side in shape))
    _, found = only(written({"w.weight": codes, "w.weight_scale_inv": scale}))
    spread = scale.repeat_interleave(128, 0)[: shape[0]].repeat_interleave(128, 1)[:, : shape[1]]
    same(found, codes.float() * spread)


def test_a_scale_in_another_shard(tmp_path):
    codes, scale = normal(300, 260).to(E4M3), scales(3, 3)
    save_file({"w.weight": codes}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"w.weight_scale_inv": scale}, tmp_path / "model-00002-of-00002.safetensors")
    places = {"w.weight": "model-00001-of-00002.safetensors", "w.weight_scale_inv": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    )
    _, found = only(open_checkpoint(tmp_path))
    same(found[:128, :128], codes.float()[:128, :128] * scale[0, 0])
    alone = open_checkpoint(tmp_path / "model-00001-of-00002.safetensors")
    assert alone.names == ()
    assert "whose scales are not in what was opened" in alone.left_out["w.weight"]


def test_float8_of_a_model_that_is_not_quantised_is_read_as_it_is(written):
    codes = normal(5, 4).to(E4M3)
    checkpoint = written({"weight": codes})
    assert np.array_equal(checkpoint.tensor("weight").astype(np.float32), codes.float())


def test_float8_without_scales_beside_float8_with_them_is_left_out(written):
    checkpoint = written(
        {"a.weight": normal(5, 4).to(E4M3), "a.weight_scale": scales(5), "b.weight": normal(5, 4).to(E4M3)}
    )
    assert checkpoint.names == ("a.weight",)
    assert list(checkpoint.left_out) == ["b.weight"]


def test_experts_and_kernels_have_scales_too(written):
    experts, kernel = normal(3, 256, 130).to(E4M3), (normal(8, 3, 3, 3) * 40).to(torch.int8)
    block, row = scales(3, 2, 2), scales(8)
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    checkpoint = written(
        {"up_proj": experts, "up_proj_scale_inv": block, "conv.weight": kernel, "conv.weight_scale": row}, config
    )
    assert set(checkpoint.names) == {"conv.weight", "up_proj"}
    spread = block.repeat_interleave(128, 1).repeat_interleave(128, 2)[:, :, :130]
    same(checkpoint.tensor("up_proj"), experts.float() * spread)
    same(checkpoint.tensor("conv.weight"), kernel.float() * row[:, None, None, None])


def test_scales_that_are_powers_of_two(written):
    exponents = torch.randint(120, 135, (8, 3), dtype=torch.uint8)
    codes = normal(8, 96).to(E4M3)
    expected = codes.float() * torch.exp2(exponents.float() - 127).repeat_interleave(32, 1)
    for scale in (exponents, exponents.view(torch.float8_e8m0fnu)):
        _, found = only(written({"weight": codes, "weight_scale": scale}))
        same(found, expected)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"weight_scale": scales(7)}, r"its scales are 7, its codes 40 x 96, and nothing says which codes share one"),
        ({"weight_scale": scales(96)}, "its scales are 96, its codes 40 x 96"),
        ({"weight_scale": scales(3, 5)}, "its scales are 3 x 5"),
        ({"weight_scale_inv": scales(1, 3)}, "its scales are 1 x 3"),
        ({"weight_scale": scales(40, 1, 1)}, "its scales are 40 x 1 x 1"),
        ({"weight_scale": torch.zeros(40, 0)}, "its scales are 40 x 0"),
        ({"weight_scale": torch.ones(40, dtype=torch.int32)}, "its scales, 'weight_scale', are of int32"),
        ({"weight_scale": torch.ones(40).to(torch.float8_e8m0fnu)}, "bytes with scales that are powers of two"),
        (
            {"weight_scale": scales(40, 3), "weight_zero_point": torch.zeros(3, 40, dtype=torch.int8)},
            "its zero points are 3 x 40, its scales 40 x 3",
        ),
        (
            {"weight_scale": scales(40), "weight_zero_point": torch.zeros(39, dtype=torch.int8)},
            "its zero points are 39, its scales 40",
        ),
        (
            {"weight_scale": scales(40, 3), "weight_g_idx": torch.zeros(95, dtype=torch.int32)},
            "the order of its groups is 95, its codes are 40 x 96",
        ),
    ],
)
def test_what_does_not_fit_together_is_left_out_with_the_sizes(written, tensors, reason):
    codes = torch.ones(40, 96, dtype=torch.int8)
    checkpoint = written({f"fc.{name}": tensor for name, tensor in {"weight": codes, **tensors}.items()})
    assert checkpoint.names == ()
    assert reason.replace("'weight", "'weight") in checkpoint.left_out["fc.weight"]
    assert set(checkpoint.left_out) == {f"fc.{name}" for name in ("weight", *tensors)}


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"weight_scale": scales(40), "scale_weight": scales(1, 96)}, "'weight_scale', 'scale_weight'"),
        ({"weight_scale": scales(40), "weight_scale_inv": scales(1)}, "'weight_scale_inv', 'weight_scale'"),
        ({"weight_scale": scales(40, 6), "weight_scale_2": scales(1)}, "'weight_scale', 'weight_scale_2'"),
        ({"weight_scale_2": scales(1)}, "'weight_scale_2'"),
        ({"weight_scale": scales(40), "weight_global_scale": scales(1)}, "'weight_scale', 'weight_global_scale'"),
    ],
)
def test_several_scales_are_not_guessed_at(written, others, named):
    checkpoint = written({"weight": normal(40, 96).to(E4M3), **others})
    assert f"{named}: that is not known" in checkpoint.left_out["weight"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), {"weight", *others})


def test_a_parameter_called_scale_beside_the_scale_of_the_weight_is_one_of_its_own(written):
    codes, scale = normal(40, 96).to(E4M3), scales(40, 1)
    _, found = only(written({"weight": codes, "weight_scale": scale, "scale": scales(96)}), left=["scale"])
    same(found, codes.float() * scale)


def test_no_codes_less_zero_points_are_no_weights(written):
    zeros, scale = torch.ones(1, dtype=torch.int8), scales(1)
    tensors = {"weight": torch.zeros(0, 4, dtype=torch.int8), "weight_scale": scale, "weight_zero_point": zeros}
    assert only(written(tensors))[1].shape == (0, 4)


def test_zero_points_of_any_type_are_whole_numbers_that_fit(written):
    codes, scale = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8).reshape(8, 32), scales(8, 1)

    def read(zeros):
        return written({"weight": codes, "weight_scale": scale, "weight_zero_point": zeros}).tensor("weight")

    for dtype in (torch.bfloat16, torch.float32, torch.int32, torch.int64):
        zeros = torch.arange(-40, 40, 10)[:, None].to(dtype)
        same(read(zeros), (codes.float() - zeros.float()) * scale)
    for wrong, reason in ((0.5, "no whole numbers"), (math.nan, "no whole numbers"), (math.inf, "no whole numbers")):
        with pytest.raises(CheckpointError, match=reason):
            read(torch.full((8, 1), wrong))
    for far in (2**31 - 1, 40_000, -40_000):
        with pytest.raises(CheckpointError, match="beyond 16 bits"):
            read(torch.full((8, 1), far, dtype=torch.int32))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
def test_a_scale_that_is_no_number_in_float32_is_refused_when_it_is_read(written, bad):
    scale = scales(40).double()
    scale[3] = bad
    checkpoint = written({"weight": torch.ones(40, 96, dtype=torch.int8), "weight_scale": scale})
    with pytest.raises(CheckpointError, match=r"tensor 'weight', is damaged.*'scale' must be finite.*row 3"):
        checkpoint.tensor("weight")


# -- compressed-tensors ----------------------------------------------------------------------------------------------


def quantised(weight, **arguments):
    """Return a state dict of compressed-tensors, its settings, and the weights that it decompresses to itself."""
    compressors, quantization = compressed_tensors("compressors"), compressed_tensors("quantization")
    kind = arguments.pop("kind")
    shape, asymmetric = arguments.pop("scales"), not arguments.get("symmetric", True)
    args = quantization.QuantizationArgs(**arguments)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args, format=kind)
    state = {"weight": weight, "weight_scale": scales(*shape) / 30}
    if asymmetric:
        low = -(2 ** (args.num_bits - 1))
        state["weight_zero_point"] = torch.randint(low, -low, shape, dtype=torch.int8)
    compressor = compressors.BaseCompressor.get_value_from_registry(kind)
    packed = compressor.compress(state, scheme)
    config = {
        "quant_method": "compressed-tensors",
        "format": kind,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": args.model_dump(mode="json")}},
    }
    return packed, config, compressor.decompress(packed, scheme)["weight"]


PACKED = [
    {"num_bits": 4, "strategy": "group", "group_size": 32, "scales": (40, 3)},
    {"num_bits": 4, "strategy": "group", "group_size": 32, "scales": (40, 3), "symmetric": False},
    {"num_bits": 4, "strategy": "channel", "scales": (40, 1)},
    {"num_bits": 4, "strategy": "channel", "scales": (40, 1), "symmetric": False},
    {"num_bits": 8, "strategy": "group", "group_size": 48, "scales": (40, 2), "symmetric": False},
    {"num_bits": 8, "strategy": "tensor", "scales": (1,)},
    {"num_bits": 8, "strategy": "tensor", "scales": (1,), "symmetric": False},
    {"num_bits": 4, "strategy": "tensor", "scales": (1,), "symmetric": False},
    {"num_bits": 3, "strategy": "tensor", "scales": (), "symmetric": False},
    {"num_bits": 3, "strategy": "group", "group_size": 32, "scales": (40, 3), "symmetric": False},
    {"num_bits": 2, "strategy": "channel", "scales": (40, 1)},
    {"num_bits": 5, "strategy": "group", "group_size": 16, "scales": (40, 6)},
    {"num_bits": 7, "strategy": "channel", "scales": (40, 1), "symmetric": False},
]


@pytest.mark.parametrize("arguments", PACKED, ids=lambda each: f"{each['num_bits']} bits, {each['strategy']}")
@pytest.mark.parametrize("told", [True, False])
def test_pack_quantized_is_what_compressed_tensors_decompresses(written, arguments, told):
    state, config, expected = quantised(normal(40, 96), kind="pack-quantized", **arguments)
    name, found = only(written({f"a.{name}": tensor for name, tensor in state.items()}, config if told else None))
    assert name == "a.weight"
    same(found, expected)


@pytest.mark.parametrize("n_inputs", [96, 1])
@pytest.mark.parametrize("strategy", ["channel", "tensor"])
def test_the_zero_point_of_one_row_is_packed_and_that_of_all_codes_is_not(written, strategy, n_inputs):
    arguments = {"num_bits": 4, "strategy": strategy, "scales": (1, 1) if strategy == "channel" else (1,)}
    state, config, expected = quantised(normal(1, n_inputs), kind="pack-quantized", symmetric=False, **arguments)
    assert (state["weight_zero_point"].dtype == torch.int32) == (strategy == "channel")
    same(only(written(state, config))[1], expected)


def test_zero_points_of_groups_that_are_not_packed_are_not_read_as_if_they_were(written):
    """Those of one row have the shape of their words."""
    state, config, _ = quantised(normal(1, 96), kind="pack-quantized", **{**PACKED[0], "scales": (1, 3)})
    state["weight_zero_point"] = torch.ones(1, 3, dtype=torch.int8)
    checkpoint = written(state, config)
    assert checkpoint.left_out["weight_packed"] == "its zero points are 1 x 3 of int8, its scales 1 x 3"


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "int-quantized", "num_bits": 8, "strategy": "channel", "scales": (40, 1)},
        {"kind": "int-quantized", "num_bits": 8, "strategy": "channel", "scales": (40, 1), "symmetric": False},
        {"kind": "int-quantized", "num_bits": 8, "strategy": "tensor", "scales": (1,)},
        {"kind": "int-quantized", "num_bits": 8, "strategy": "group", "group_size": 32, "scales": (40, 3)},
        {"kind": "float-quantized", "num_bits": 8, "type": "float", "strategy": "channel", "scales": (40, 1)},
        {"kind": "float-quantized", "num_bits": 8, "type": "float", "strategy": "tensor", "scales": (1,)},
        {
            "kind": "float-quantized",
            "num_bits": 8,
            "type": "float",
            "strategy": "block",
            "block_structure": [16, 64],
            "scales": (3, 2),
        },
        {"kind": "naive-quantized", "num_bits": 4, "strategy": "channel", "scales": (40, 1), "symmetric": False},
    ],
    ids=lambda each: f"{each['kind']}, {each['strategy']}",
)
def test_codes_of_compressed_tensors_that_are_not_packed(written, arguments):
    state, config, expected = quantised(normal(40, 96), **arguments)
    _, found = only(written(state, config))
    same(found, expected)


ASYMMETRIC = [
    {"kind": "pack-quantized", **PACKED[1]},
    {"kind": "int-quantized", "num_bits": 8, "strategy": "channel", "scales": (40, 1), "symmetric": False},
]


@pytest.mark.parametrize("arguments", ASYMMETRIC, ids=lambda each: each["kind"])
def test_without_the_zero_points_that_the_config_tells_nothing_is_read(written, arguments):
    state, config, expected = quantised(normal(40, 96), **arguments)
    same(only(written(state, config))[1], expected)
    zeros = state.pop("weight_zero_point")
    assert zeros.any()
    checkpoint = written(state, config)
    codes = next(name for name in ("weight_packed", "weight") if name in state)
    assert checkpoint.left_out[codes] == (
        "its config tells zero points, and 'weight_zero_point' is not in what was opened"
    )
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(state))


@pytest.mark.parametrize("told", ["group", True])
def test_without_the_order_of_groups_that_the_config_tells_nothing_is_read(written, told):
    state, config, expected = quantised(normal(40, 96), kind="pack-quantized", **PACKED[0])
    weights = config["config_groups"]["group_0"]["weights"]
    same(only(written(state, config))[1], expected)
    weights["actorder"] = told
    checkpoint = written(state, config)
    assert (
        "an order of its groups, and 'weight_g_idx' is not in what was opened" in checkpoint.left_out["weight_packed"]
    )
    weights["actorder"] = "weight"  # the order of quantising, and not of the groups
    same(only(written(state, config))[1], expected)


@pytest.mark.parametrize("dtype", [torch.int8, E4M3])
def test_of_several_groups_of_other_sizes_the_one_that_fits_is_taken_and_none_where_two_fit(written, dtype):
    """Which layers a group of the config is for is not read."""
    state = {"weight": (normal(6, 160) * 30).to(dtype), "weight_scale": scales(6, 2)}
    config = {
        "quant_method": "compressed-tensors",
        "config_groups": {f"group_{size}": {"weights": {"group_size": size}} for size in (32, 128, 64)},
    }
    groups = state["weight_scale"].repeat_interleave(128, 1)[:, :160]
    same(only(written(state, config))[1], state["weight"].float() * groups)
    config["config_groups"]["another"] = {"weights": {"group_size": 80}}
    checkpoint = written(state, config)
    assert checkpoint.left_out["weight"] == (
        "its scales are 6 x 2, its codes 6 x 160, and nothing says which codes share one"
    )


def test_mxfp8_of_compressed_tensors(written):
    decompress_mx_scale = compressed_tensors("compressors.mx_utils").decompress_mx_scale
    codes, exponents = normal(40, 96).to(E4M3), torch.randint(118, 136, (40, 3), dtype=torch.uint8)
    _, found = only(written({"weight": codes, "weight_scale": exponents}))
    same(found, codes.float() * decompress_mx_scale(exponents).float().repeat_interleave(32, 1))


def test_groups_in_another_order(written):
    state, config, _ = quantised(normal(40, 96), kind="pack-quantized", **PACKED[1])
    order = torch.from_numpy(RNG.permutation(np.arange(96) // 32).astype(np.int32))
    plain = np.asarray(only(written(state, config))[1])
    found = only(written({**state, "weight_g_idx": order}, config))[1]
    never_filled = only(written({**state, "weight_g_idx": torch.full((96,), -1, dtype=torch.int32)}, config))[1]
    same(never_filled, plain)
    codes = np.asarray(only(written({**state, "weight_scale": torch.ones(40, 3)}, config))[1])
    assert codes.max() <= 15
    unpack_from_int32 = compressed_tensors("compressors.pack_quantized").unpack_from_int32
    zeros = unpack_from_int32(state["weight_zero_point"], 4, (40, 3), packed_dim=0)
    raw = unpack_from_int32(state["weight_packed"], 4, (40, 96))
    same(found, (raw.float() - zeros.float()[:, order.long()]) * state["weight_scale"][:, order.long()])


@pytest.mark.parametrize("order", [[3] * 96, [-2] * 96])
def test_an_order_of_groups_that_are_not_there_is_refused_when_it_is_read(written, order):
    state, config, _ = quantised(normal(40, 96), kind="pack-quantized", **PACKED[0])
    checkpoint = written({**state, "weight_g_idx": torch.tensor(order, dtype=torch.int32)}, config)
    with pytest.raises(CheckpointError, match=r"tensor 'weight'.* names another than the 3 there are"):
        checkpoint.tensor("weight")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight_shape": None}, "its shape, 'weight_shape', is missing or no list of sizes"),
        ({"weight_shape": torch.tensor([40, 2**40])}, "its bits are not clear"),
        ({"weight_shape": torch.tensor([-40, 96])}, "its bits are not clear"),
        ({"weight_shape": torch.tensor([40])}, "is missing or no list of sizes"),
        ({"weight_packed": torch.zeros(40, 11, dtype=torch.int32)}, "its bits are not clear"),
        ({"weight_packed": torch.zeros(39, 12, dtype=torch.int32)}, "its bits are not clear"),
        ({"weight_packed": torch.zeros(40, 12, dtype=torch.int16)}, "its codes are of int16"),
        ({"weight_scale": scales(40, 5)}, "its scales are 40 x 5"),
        ({"weight_zero_point": torch.zeros(5, 2, dtype=torch.int32)}, "its zero points are 5 x 2 words"),
        (
            {"weight_global_scale": scales(1)},
            "several scales, 'weight_scale', 'weight_global_scale': that is not known",
        ),
        ({"weight_zero_point": torch.zeros(5, 3, dtype=torch.int8)}, "its zero points are 5 x 3 of int8"),
        ({"weight_zero_point": torch.zeros(1, dtype=torch.int8)}, "its zero points are 1 of int8, its scales 40 x 3"),
    ],
)
def test_parts_of_packed_weights_that_lie_are_left_out(written, change, reason):
    state, config, _ = quantised(normal(40, 96), kind="pack-quantized", **PACKED[1])
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    checkpoint = written(changed, config)
    assert reason in checkpoint.left_out["weight_packed"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(changed))


# -- GPTQ and AWQ ----------------------------------------------------------------------------------------------------


def gptq(bits, rows=96, columns=64, n_groups=3, order="neighbours", zero_offset=1):
    """Return a GPTQ layer as its packer makes it, and its weights by the definition."""
    codes = RNG.integers(0, 2**bits, (rows, columns))
    zeros = RNG.integers(0, 2**bits, (n_groups, columns))
    scale = RNG.uniform(0.01, 0.1, (n_groups, columns)).astype(np.float16)
    groups = np.arange(rows) * n_groups // rows
    if order == "act":
        groups = RNG.permutation(groups)
    state = gptq_packed(codes, zeros, bits, zero_offset)
    state = {name: torch.from_numpy(array) for name, array in state.items()} | {"scales": torch.from_numpy(scale)}
    return state | {"g_idx": torch.from_numpy(groups.astype(np.int32))}, gptq_weights(codes, zeros, scale, groups)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("order", ["neighbours", "act"])
@pytest.mark.parametrize("version", [None, "gptq", "gptq_v2"])
def test_gptq_is_what_its_definition_says(written, bits, order, version):
    state, expected = gptq(bits, order=order, zero_offset=0 if version == "gptq_v2" else 1)
    config = None if version is None else {"quant_method": "gptq", "bits": bits, "checkpoint_format": version}
    checkpoint = written({f"a.{name}": tensor for name, tensor in state.items()}, config)
    name, found = only(checkpoint)
    assert (name, found.shape) == ("a.weight", (64, 96))
    same(found, expected)
    assert isinstance(found, ScaledWeights) == (order == "neighbours")
    assert ("+ 1" in checkpoint.stored_as[name]) == (version != "gptq_v2")


def test_gptq_with_inputs_that_fill_words_and_no_32_of_them_is_read_where_its_bits_are_told(written):
    """Its sizes are those of 3 bits and 32 inputs too."""
    state, expected = gptq(4, rows=24, columns=24, n_groups=1)
    same(only(written(state))[1], expected)  # the order of groups tells how many inputs there are
    del state["g_idx"]
    assert "its bits are not clear" in written(state).left_out["qweight"]
    same(only(written(state, {"quant_method": "gptq", "bits": 4}))[1], expected)


@pytest.mark.parametrize("size", [128, 80])
@pytest.mark.parametrize("order", ["g_idx", "its size", None])
def test_the_last_of_gptqs_groups_may_be_shorter(written, order, size):
    codes, zeros = RNG.integers(0, 16, (160, 64)), RNG.integers(0, 16, (2, 64))
    scale, groups = RNG.uniform(0.01, 0.1, (2, 64)).astype(np.float16), np.arange(160) // size
    state = {name: torch.from_numpy(array) for name, array in gptq_packed(codes, zeros, 4, 1).items()}
    state["scales"] = torch.from_numpy(scale)
    if order == "g_idx":
        state["g_idx"] = torch.from_numpy(groups.astype(np.int32))
    config = {"quant_method": "gptq", "bits": 4} | ({"group_size": size} if order == "its size" else {})
    checkpoint = written(state, config)
    if order is None:  # 80 twice, or 128 and 32
        assert checkpoint.names == ()
        reason = "its 160 inputs are in 2 groups, and nothing says how many are in each"
        assert checkpoint.left_out["qweight"] == reason
    else:
        same(only(checkpoint)[1], gptq_weights(codes, zeros, scale, groups))


def test_gptqs_groups_that_no_usual_size_makes_but_equal_ones_are_equal(written):
    state, expected = gptq(4, rows=480, columns=32, n_groups=6)
    del state["g_idx"]
    same(only(written(state))[1], expected)


@pytest.mark.parametrize("key", ["extra_config", "dynamic"])
def test_layers_with_bits_and_groups_of_their_own_beside_those_of_the_rest(written, key):
    few, expected_few = gptq(4, rows=96, n_groups=3)
    many, expected_many = gptq(8, rows=96, n_groups=2)
    del few["g_idx"], many["g_idx"]
    state = {f"a.{name}": tensor for name, tensor in few.items()} | {f"b.{name}": t for name, t in many.items()}
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, key: {"b": {"bits": 8, "group_size": 48}, "c": 1}}
    checkpoint = written(state, config)
    assert checkpoint.left_out == {}
    same(checkpoint.tensor("a.weight"), expected_few)
    same(checkpoint.tensor("b.weight"), expected_many)
    config[key]["c"] = {"group_size": 64}
    assert "its 96 inputs are in 2 groups" in written(state, config).left_out["b.qweight"]


def test_gptq_without_an_order_of_groups_and_with_its_settings_in_a_file_of_its_own(written, tmp_path):
    state, expected = gptq(4, zero_offset=0)
    del state["g_idx"]
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "checkpoint_format": "gptq_v2"}))
    same(only(written(state))[1], expected)


@pytest.mark.parametrize(("content", "why"), [(b"{", "is damaged: "), (b"[1]", "is no JSON object")])
@pytest.mark.parametrize("file", ["config.json", "quantize_config.json"])
def test_settings_that_cannot_be_read_may_have_told_another_order(written, tmp_path, file, content, why):
    """With the zero points of gptq_v2, for one, all weights would be off by one step."""
    (tmp_path / file).write_bytes(content)
    state, _ = gptq(4)
    checkpoint = written(state | {"other.weight": normal(3, 4)})
    assert checkpoint.names == ("other.weight",)
    assert checkpoint.left_out["qweight"].startswith(f"quantised, and nothing tells how, for {file} {why}")
    listed = {file: checkpoint.left_out[file]} if file == "config.json" else {}
    assert set(checkpoint.left_out) == {"qweight", "qzeros", "scales", "g_idx", *listed}
    assert all(reason.startswith(f"{file} {why}") for reason in listed.values())


@pytest.mark.parametrize(
    ("change", "config", "reason"),
    [
        ({}, {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "in the order of 'marlin'"),
        ({}, {"quant_method": "gptq", "bits": 3}, "its bits are not clear"),
        ({}, {"quant_method": "hqq"}, "as of no known packing"),
        ({"qzeros": None}, None, "its zero points, 'qzeros', are missing"),
        ({"g_idx": None}, {"quant_method": "gptq", "bits": 4, "desc_act": True}, "'g_idx' is not in what was opened"),
        ({"qzeros": torch.zeros(3, 9, dtype=torch.int32)}, None, "its bits are not clear"),
        ({"g_idx": torch.zeros(95, dtype=torch.int32)}, None, "its bits are not clear"),
        ({"scales": scales(3, 65)}, None, "as of no known packing"),
        ({"scales": scales(0, 64), "qzeros": torch.zeros(0, 8, dtype=torch.int32)}, None, "some are empty"),
        ({"scales": torch.ones(3, 64, dtype=torch.int32)}, None, "no 32-bit words with scales"),
        (
            {"scales": scales(5, 64), "qzeros": torch.zeros(5, 8, dtype=torch.int32), "g_idx": None},
            None,
            "its 96 inputs are in 5 groups",
        ),
    ],
)
def test_what_is_no_gptq_is_left_out(written, change, config, reason):
    state, _ = gptq(4)
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    checkpoint = written(changed, config)
    assert reason in checkpoint.left_out["qweight"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(changed))


@pytest.mark.parametrize("codes", ["qweight", "weight_packed"])
def test_codes_beside_the_weight_that_they_would_be_are_left_out(written, codes):
    state = gptq(4)[0] if codes == "qweight" else quantised(normal(40, 96), kind="pack-quantized", **PACKED[0])[0]
    plain = normal(40, 96)
    checkpoint = written({**state, "weight": plain})
    assert checkpoint.names == ("weight",)
    same(checkpoint.tensor("weight"), plain)
    assert checkpoint.left_out[codes] == "it would be read as 'weight', and there is such a tensor"
    assert set(checkpoint.left_out) == set(state)


def test_a_group_that_is_not_there_is_refused_when_it_is_read(written):
    state, _ = gptq(4)
    state["g_idx"][5] = 3
    with pytest.raises(CheckpointError, match=r"tensor 'weight'.* names another than the 3 there are"):
        written(state).tensor("weight")


def awq(rows=96, columns=64, n_groups=3):
    """Return an AWQ layer: eight codes of a row in a word, in the order of its kernels."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # which of eight neighbours is in the lowest, the next, ... bits
    codes, zeros = RNG.integers(0, 16, (rows, columns)), RNG.integers(0, 16, (n_groups, columns))
    packed = [
        words_packed(each.reshape(len(each), -1, 8)[:, :, order].reshape(each.shape), 4) for each in (codes, zeros)
    ]
    scale = RNG.uniform(0.01, 0.1, (n_groups, columns)).astype(np.float16)
    state = {"qweight": packed[0], "qzeros": packed[1], "scales": scale}
    expected = gptq_weights(codes, zeros, scale, np.arange(rows) * n_groups // rows)
    return {name: torch.from_numpy(array) for name, array in state.items()}, expected


@pytest.mark.parametrize("config", [None, {"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": 32}])
def test_awq_is_what_its_definition_says(written, config):
    state, expected = awq()
    checkpoint = written(state, config)
    name, found = only(checkpoint)
    assert (name, found.shape) == ("weight", (64, 96))
    same(found, expected)


def dequantised_by_autoawq(state):
    spec = importlib.util.find_spec("awq")
    if spec is None:
        pytest.skip("autoawq is not installed")
    file = f"{spec.submodule_search_locations[0]}/utils/packing_utils.py"  # its package asks for a GPU's libraries
    found = importlib.util.spec_from_file_location("packing_utils", file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.dequantize_gemm(state["qweight"], state["qzeros"], state["scales"].float(), 4, 32)


def dequantised_by_compressed_tensors(state):
    converter = compressed_tensors("entrypoints.convert.converters.autoawq").AutoAWQConverter
    codes, zeros = converter.unpack_awq(state["qweight"], state["qzeros"], 4)
    codes, zeros = converter.reverse_awq_order(codes, zeros, 4)
    spread = [each.repeat_interleave(32, 0) for each in (zeros & 15, state["scales"].float())]
    return ((codes & 15) - spread[0]) * spread[1]


@pytest.mark.parametrize("dequantise", [dequantised_by_autoawq, dequantised_by_compressed_tensors])
def test_awq_is_what_others_unpack(written, dequantise):
    state, _ = awq()
    same(only(written(state))[1], dequantise(state).T)


@pytest.mark.parametrize(
    ("change", "config", "reason"),
    [
        ({}, {"quant_method": "awq", "version": "gemv"}, "in the order of 'gemv'"),
        ({}, {"quant_method": "awq", "bits": 8}, "another number of bits"),
        ({"qzeros": torch.zeros(3, 9, dtype=torch.int32)}, None, "that is not AWQ's 4 bits"),
        ({"scales": scales(5, 64), "qzeros": torch.zeros(5, 8, dtype=torch.int32)}, None, "that is not AWQ's 4 bits"),
    ],
)
def test_what_is_no_awq_is_left_out(written, change, config, reason):
    state, _ = awq()
    checkpoint = written({**state, **change}, config)
    assert reason in checkpoint.left_out["qweight"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(state))


# -- AutoRound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("packing", "zero_offset"),
    [("auto_round:auto_gptq", 1), ("auto_round:gptq", 1), ("auto_round", 0), ("auto_round:gptqmodel", 0)],
)
def test_autoround_in_the_words_of_gptq(written, bits, packing, zero_offset):
    """Its packers lessen the zero points only where they are to be read by AutoGPTQ; there is no order of groups."""
    state, expected = gptq(bits, rows=160, n_groups=5, zero_offset=zero_offset)
    del state["g_idx"]
    config = {"quant_method": "auto-round", "bits": bits, "group_size": 32, "sym": False, "packing_format": packing}
    same(only(written(state, config))[1], expected)


@pytest.mark.parametrize("packing", ["auto_round:auto_awq", "auto_round:awq"])
def test_autoround_in_the_words_of_awq(written, packing):
    state, expected = awq()
    config = {
        "quant_method": "auto-round", "bits": 4, "group_size": 32, "packing_format": packing,
        "extra_config": {"lm_head": {"bits": 8}},
    }  # fmt: skip
    same(only(written(state, config))[1], expected)


@pytest.mark.parametrize(
    ("change", "config", "reason"),
    [
        ({}, {"packing_format": "auto_round:marlin"}, "of auto-round is 'auto_round:marlin', which is not known"),
        ({}, {}, "its packing_format of auto-round is not told"),
        ({}, {"quant_method": "intel/auto-round", "backend": "auto_round:gptq:exllamav2"}, "is not told"),
        ({}, {"packing_format": "auto_round:auto_awq"}, "as of no known packing"),
        ({"w_bf16_to_fp8_scale": scales(1), "act_scales": scales(1)}, {"packing_format": "auto_round"}, "made float8"),
    ],
)
def test_autoround_in_other_words_is_left_out(written, change, config, reason):
    state = gptq(4)[0] | change
    checkpoint = written(state, {"quant_method": "auto-round", "bits": 4} | config)
    assert reason in checkpoint.left_out["qweight"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(state))


# -- bitsandbytes ----------------------------------------------------------------------------------------------------


def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(40, 96), (5, 7), (33, 64)])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_four_bits_of_bitsandbytes(written, kind, nested, shape, storage):
    functional = bitsandbytes().functional
    if storage != torch.uint8 and math.prod(shape) % (2 * storage.itemsize):
        pytest.skip("its bytes are no whole words")
    packed, state = functional.quantize_4bit(
        normal(*shape), quant_type=kind, compress_statistics=nested, blocksize=64, quant_storage=storage
    )
    parts = {f"a.weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    checkpoint = written({"a.weight": packed, **parts, "a.bias": normal(3)})
    name, found = only(checkpoint, left=["a.bias"])
    assert name == "a.weight"
    # its kernel for processors begins a block in every row, which is right only where blocks do not cross rows
    decode = pytest.importorskip("bitsandbytes.backends.default.ops")._dequantize_4bit_compute
    scale = state.absmax
    if nested:
        scale = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    with torch.compiler.set_stance("force_eager"):  # compiling it takes seconds for each shape
        same(found, decode(packed.view(torch.uint8).reshape(-1), scale, state.code, 64, shape, torch.float32))


def four_bits(**changes):
    codes, n = torch.arange(120, dtype=torch.uint8)[:, None], 240
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [15, 16], **changes}
    text = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    return {
        "weight": codes,
        "weight.absmax": scales(-(-n // 64)),
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": text,
    }


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (four_bits(shape=[15, 17]), "which are not those of 15 x 17 weights in blocks of 64"),
        (four_bits(shape=[2**30, 2**30]), "which are not those of"),
        (four_bits(shape=[-15, -16]), "does not say its shape"),
        (four_bits(shape=None), "does not say its shape"),
        (four_bits(blocksize=0), "does not say its shape"),
        (four_bits(blocksize=32), "in blocks of 32"),
        (four_bits(nested_blocksize=256), "does not say its shape"),
        (
            {**four_bits(), "weight.quant_state.bitsandbytes__nf4": torch.tensor([123], dtype=torch.uint8)},
            "does not say",
        ),
        ({**four_bits(), "weight.absmax": scales(3)}, "3 scales, which are not those of"),
        ({name: t for name, t in four_bits().items() if "absmax" not in name}, "its part 'weight.absmax' is missing"),
        ({name: t for name, t in four_bits().items() if "map" not in name}, "its part 'weight.quant_map' is missing"),
        (
            four_bits(nested_blocksize=256, nested_offset=0.5) | {"weight.nested_quant_map": torch.linspace(0, 1, 256)},
            "its part 'weight.nested_absmax' is missing",
        ),
        (
            four_bits() | {"weight.absmax": torch.ones(4, dtype=torch.uint8)},
            "its scales, 'weight.absmax', are of uint8",
        ),
    ],
)
def test_four_bits_that_lie_are_left_out(written, tensors, reason):
    checkpoint = written(tensors)
    assert reason in checkpoint.left_out["weight"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(tensors))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_scale_of_four_bits_that_is_no_number_is_refused_when_it_is_read(written, bad):
    tensors = four_bits()
    tensors["weight.absmax"][2] = bad
    with pytest.raises(CheckpointError, match=rf"tensor 'weight', is damaged.*that of block 2 is {bad}"):
        written(tensors).tensor("weight")


def test_a_table_that_is_too_short_is_refused_when_it_is_read(written):
    checkpoint = written({**four_bits(), "weight.quant_map": torch.linspace(-1, 1, 5)})
    with pytest.raises(CheckpointError, match=r"tensor 'weight', is damaged"):
        checkpoint.tensor("weight")


@pytest.mark.parametrize("with_format", [True, False])
def test_eight_bits_of_bitsandbytes(written, with_format):
    functional = bitsandbytes().functional
    codes, largest, _ = functional.int8_vectorwise_quant(normal(40, 96).half())
    order = {"a.weight_format": torch.tensor(0, dtype=torch.uint8)} if with_format else {}
    _, found = only(written({"a.weight": codes, "a.SCB": largest, **order}))
    # bitsandbytes multiplies twice and so rounds twice; here the scale is divided by 127 first.
    assert np.allclose(found, functional.int8_vectorwise_dequant(codes, largest), rtol=2e-7, atol=0)
    same(found, codes.float() * (largest.float() / 127)[:, None])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"SCB": scales(39)}, "its rows' magnitudes, 'SCB', are 39"),
        ({"weight_format": torch.tensor(2, dtype=torch.uint8)}, "in the order of a kernel"),
    ],
)
def test_eight_bits_that_do_not_fit_are_left_out(written, change, reason):
    tensors = {"weight": torch.ones(40, 96, dtype=torch.int8), "SCB": scales(40), **change}
    checkpoint = written(tensors)
    assert reason in checkpoint.left_out["weight"]
    assert (checkpoint.names, set(checkpoint.left_out)) == ((), set(tensors))


# -- what is known and not read --------------------------------------------------------------------------------------

BYTES = torch.zeros(8, 16, dtype=torch.uint8)
NOT_READ = {
    "MXFP4, of gpt-oss": (
        {"up_proj_blocks": torch.zeros(2, 8, 3, 16, dtype=torch.uint8), "up_proj_scales": BYTES},
        "MXFP4, two floating-point codes in a byte, which is not read",
    ),
    "MXFP4, of compressed-tensors": ({"weight_packed": BYTES, "weight_scale": BYTES}, "MXFP4"),
    "NVFP4, of compressed-tensors": (
        {"weight_packed": BYTES, "weight_scale": BYTES.view(E4M3), "weight_global_scale": scales(1)},
        "NVFP4",
    ),
    "NVFP4, of modelopt": ({"weight": BYTES, "weight_scale": BYTES.view(E4M3), "weight_scale_2": scales(1)}, "NVFP4"),
    "HQQ": ({"W_q": BYTES, "scale": scales(3), "zero": scales(3)}, "HQQ"),
    "AQLM": ({"codes": BYTES, "codebooks": scales(3, 2), "scales": scales(3)}, "AQLM"),
    "QuIP#": ({"Qidxs": BYTES, "SU": scales(3), "SV": scales(3)}, "QuIP#"),
    "VPTQ": ({"indices": BYTES, "centroids": scales(3)}, "VPTQ"),
    "Marlin": ({"B": BYTES, "s": scales(3)}, "Marlin"),
    "EETQ": ({"qweight": BYTES.view(torch.int8), "weight_scales": scales(3)}, "EETQ"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_known_and_not_read_is_left_out_by_name(written, kind):
    tensors, reason = NOT_READ[kind]
    tensors = {f"m.{name}": tensor for name, tensor in tensors.items()}
    checkpoint = written({**tensors, "n.weight": normal(3, 2)})
    assert checkpoint.names == ("n.weight",)
    codes, *others = checkpoint.left_out.values()
    assert reason in codes
    assert all(other.startswith("part of 'm.") for other in others)
    assert set(checkpoint.left_out) == set(tensors)


E4M3_CODES = (normal(40, 96) * 20).to(E4M3)
NOT_KNOWN = {
    "quanto, float8": ({"weight._data": E4M3_CODES, "weight._scale": scales(40, 1)}, "codes of quanto (float8_e4m3fn)"),
    "quanto, 4 bits": (
        {"weight._data": BYTES, "weight._scale": scales(40, 3), "weight._shift": scales(40, 3)},
        "codes of quanto (uint8)",
    ),
    "torchao, float8": (
        {"_weight_qdata": E4M3_CODES, "_weight_scale": scales(40, 3)},
        "codes of torchao (float8_e4m3fn)",
    ),
    "torchao, 4 bits": (
        {"_weight_qdata": torch.zeros(5, 3, 32, 4, dtype=torch.int32), "_weight_scale_and_zero": scales(3, 40, 2)},
        "codes of torchao (int32)",
    ),
    "2 of 4, of compressed-tensors": (
        {"compressed": normal(40, 48), "bitmask": BYTES, "shape": torch.tensor([40, 96])},
        "the values other than zero of a sparse matrix (float32)",
    ),
    "TensorRT-LLM": (
        {"weight": E4M3_CODES, "weights_scaling_factor": scales(1), "activation_scaling_factor": scales(1)},
        "codes with a scale beside them (float8_e4m3fn)",
    ),
    "with the scale of what it reads alone": (
        {"weight": E4M3_CODES, "input_scale": scales(1)},
        "codes with a scale beside them (float8_e4m3fn)",
    ),
}


@pytest.mark.parametrize("kind", NOT_KNOWN)
def test_codes_with_parts_of_other_names_are_no_weights_and_their_scales_no_layers(written, kind):
    tensors, reason = NOT_KNOWN[kind]
    tensors = {f"m.{name}": tensor for name, tensor in tensors.items()}
    reading = read_layer_tensors(written({**tensors, "n.weight": normal(3, 2)}))
    assert [layer.name for layer in reading.layers] == ["n.weight"]
    codes, *others = tensors
    belong = dict.fromkeys(others, f"belongs to the quantised '{codes}'")
    assert reading.left_out == {codes: f"{reason}, which are not read"} | belong


def test_codes_with_a_quantizer_below_them_are_no_weights(written):
    tensors = {"m.weight": E4M3_CODES, "m.weight_quantizer._amax": scales(1)}
    assert "which are not read" in read_layer_tensors(written(tensors)).left_out["m.weight"]


@pytest.mark.parametrize("other", ["logit_scale", "layer_scale", "embed_scale", "scale_shift_table"])
def test_float8_beside_what_multiplies_activations_is_read_as_it_is(written, other):
    reading = read_layer_tensors(written({"m.weight": E4M3_CODES, f"m.{other}": scales(6)}))
    assert [layer.name for layer in reading.layers] == ["m.weight"]


def test_a_tensor_without_a_name_is_one_like_others(written):
    codes, scale = torch.ones(4, 3, dtype=torch.int8), scales(4)
    checkpoint = written({"weight": codes, "weight_scale": scale, "": normal(3, 2), ".a": normal(2, 2)})
    assert set(checkpoint.names) == {"weight", "", ".a"}
    same(checkpoint.tensor("weight"), codes.float() * scale[:, None])


def test_every_tensor_of_a_quantised_model_is_a_layer_or_left_out(written):
    tensors = {
        "model.embed_tokens.weight": normal(50, 64),
        "model.layers.0.q_proj.weight": normal(64, 64).to(E4M3),
        "model.layers.0.q_proj.weight_scale_inv": scales(1, 1),
        "model.layers.0.q_proj.input_scale": scales(1),
        "model.layers.0.up_proj.qweight": BYTES,
        "model.layers.0.up_proj.scales": scales(3),
        "model.layers.0.norm.weight": scales(64),
    }
    reading = read_layer_tensors(written(tensors, {"quant_method": "fp8"}))
    assert [layer.name for layer in reading.layers] == ["model.embed_tokens.weight", "model.layers.0.q_proj.weight"]
    assert set(reading.left_out) == {
        "model.layers.0.q_proj.input_scale",
        "model.layers.0.up_proj.qweight",
        "model.layers.0.up_proj.scales",
        "model.layers.0.norm.weight",
    }
    assert reading.forms["model.layers.0.up_proj.qweight"] == ((8, 16), "uint8")


def test_projections_in_one_quantised_matrix_are_cut_without_being_multiplied_out(written):
    codes, scale = normal(12, 4).to(E4M3), scales(12, 1)
    checkpoint = written({"attn.in_proj_weight": codes, "attn.in_proj_weight_scale": scale})
    (layer,) = read_layer_tensors(checkpoint).layers
    assert layer.parts == ("query", "key", "value")
    parts = layer.split(checkpoint.tensor(layer.name))
    assert all(isinstance(part, ScaledWeights) for part in parts)
    same(np.concatenate([np.asarray(part) for part in parts]), codes.float() * scale)


def test_the_documentation_has_what_is_said_of_each_kind():
    documented = (Path(__file__).parents[2] / "docs" / "quantised.md").read_text()
    for _, reason in NOT_READ.values():
        assert reason.removesuffix(", which is not read") in documented
    for kind in CODE_FORMATS:
        assert f"`{kind.__name__}`" in documented


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": BYTES.view(torch.int8)},
        {"weight": normal(8, 16), "weight_scale": scales(8)},
        {"weight": normal(8, 16), "scale": scales(16)},
        {"qweight": BYTES},
        {"scales": scales(3)},
        {"weight": normal(3, 2), "weight.absmax": normal(3)},
    ],
)
def test_what_only_looks_like_it_is_left_as_it_is(written, tensors):
    checkpoint = written(tensors)
    assert set(checkpoint.names) == set(tensors)
    assert (checkpoint.stored_as, checkpoint.left_out) == ({}, {})


# -- in whatever file, and written again -----------------------------------------------------------------------------


def test_in_a_file_of_torch_under_the_prefix_of_a_wrapper(tmp_path):
    codes, scale = normal(6, 4).to(E4M3), scales(6)
    state = {"module.a.weight": codes, "module.a.weight_scale": scale, "module.b.weight": normal(3, 6)}
    torch.save(state, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.names == ("a.weight", "b.weight")
    same(checkpoint.tensor("a.weight"), codes.float() * scale[:, None])


def test_a_tied_head_follows_its_quantised_embedding(tmp_path):
    codes, scale = normal(6, 4).to(E4M3), scales(6)
    save_file(
        {"model.embed_tokens.weight": codes, "model.embed_tokens.weight_scale": scale}, tmp_path / "model.safetensors"
    )
    config = {"tie_word_embeddings": True, "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    same(checkpoint.tensor("lm_head.weight"), codes.float() * scale[:, None])


def test_the_forest_is_that_of_the_dequantised_weights(written):
    state, expected = gptq(4)
    found = only(written(state))[1]
    assert maximum_spanning_forest(found).ranks.tolist() == maximum_spanning_forest(expected).ranks.tolist()


def test_rewriting_changes_the_other_tensors_only(written, tmp_path):
    tensors = {"a.weight": torch.ones(4, 3, dtype=torch.int8), "a.weight_scale": scales(4), "b.weight": normal(3, 2)}
    checkpoint = written(tensors, name="x.safetensors")
    checkpoint.rewrite(tmp_path / "y", lambda name, array: array * (name == "a.weight"))
    with open_checkpoint(tmp_path / "y") as again:
        assert not again.tensor("b.weight").any()
        same(again.tensor("a.weight"), np.asarray(checkpoint.tensor("a.weight")))
    with pytest.raises(CheckpointError, match=r"tensor 'a\.weight', cannot be rewritten: it is quantised"):
        checkpoint.rewrite(tmp_path / "z.safetensors", lambda name, array: array * 0)


def test_headers_are_read_and_no_codes(tmp_path):
    header = {
        "weight": {"dtype": "I8", "shape": [2**20, 2**20], "data_offsets": [0, 2**40]},
        "weight_scale": {"dtype": "F32", "shape": [1], "data_offsets": [2**40, 2**40 + 4]},
    }
    text = json.dumps(header).encode()
    with (tmp_path / "x.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + 2**40 + 4)  # of holes
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.shape("weight") == (2**20, 2**20)
    with pytest.raises(CheckpointError, match=r"tensor 'weight', takes at least 1,024.0 GiB of memory"):
        checkpoint.tensor("weight")
