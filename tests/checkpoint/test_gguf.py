"""GGUF files, against the package that defines them."""

import subprocess
import sys

import numpy as np
import pytest

from topobounds import maximum_spanning_forest
from topobounds.checkpoint import CheckpointError, open_checkpoint
from topobounds.checkpoint.gguf import PLAIN
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.weights import ScaledWeights

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
RNG = np.random.default_rng(29)
Type = gguf.GGMLQuantizationType
NOT_DEQUANTISED = [each for each in Type if each.name in ("Q8_1", "Q8_K", "Q1_0")]
BLOCKS = [each for each in Type if each.name not in PLAIN and each not in NOT_DEQUANTISED]
QUANTISED_BY_PACKAGE = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.TQ1_0, Type.TQ2_0]


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def random_blocks(kind, n_rows, n_columns):
    """Return rows of random bytes whose blocks stand for finite weights."""
    block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    wanted = n_rows * n_columns // block
    found = np.empty((0, n_bytes), np.uint8)
    while len(found) < wanted:
        tried = RNG.integers(0, 256, (wanted, n_bytes), np.uint8)
        with np.errstate(all="ignore"):
            found = np.concatenate([found, tried[np.isfinite(gguf.dequantize(tried, kind)).all(1)]])
    return found[:wanted].reshape(n_rows, -1)


@pytest.fixture
def written(tmp_path):
    def write(tensors, settings=(), alignment=None):
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
        if alignment is not None:
            writer.add_custom_alignment(alignment)
        for key, value in dict(settings).items():
            writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
        writer.add_array("tokenizer.tokens", ["a", "bc", "def"])
        writer.add_array("some.numbers", [1, 2, 3])
        for each, (array, kind) in tensors.items():
            writer.add_tensor(each, array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "x.gguf"

    return write


def same_as_the_package(path):
    """Compare every tensor with what the package reads and dequantises; return the checkpoint."""
    checkpoint = open_checkpoint(path)
    reader = gguf.GGUFReader(path)
    assert [tensor.name for tensor in reader.tensors] == list(checkpoint.names)
    for tensor in reader.tensors:
        found = checkpoint.tensor(tensor.name)
        assert found.shape == checkpoint.shape(tensor.name) == tuple(reversed(tensor.shape.tolist()))
        assert found.dtype == checkpoint.dtype(tensor.name)
        with np.errstate(all="ignore"):
            expected = (
                tensor.data if tensor.tensor_type.name in PLAIN else gguf.dequantize(tensor.data, tensor.tensor_type)
            )
        assert np.asarray(found).tobytes() == expected.tobytes()
    return checkpoint


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_every_block_type_that_the_package_dequantises(written, kind):
    blocks = random_blocks(kind, 24, 512)
    checkpoint = same_as_the_package(written({"blk.0.ffn_up.weight": (blocks, kind)}))
    assert checkpoint.shape("blk.0.ffn_up.weight") == (24, 512)
    assert checkpoint.stored_as == {"blk.0.ffn_up.weight": f"blocks of {kind.name}"}


@pytest.mark.parametrize("kind", NOT_DEQUANTISED, ids=lambda kind: kind.name)
def test_the_other_block_types_are_none_of_the_package(kind):
    with pytest.raises(NotImplementedError):
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)


@pytest.mark.parametrize("kind", QUANTISED_BY_PACKAGE, ids=lambda kind: kind.name)
def test_weights_that_the_package_quantised(written, kind):
    weights = RNG.standard_normal((30, 256)).astype(np.float32)
    path = written({"w": (gguf.quantize(weights, kind), kind)})
    found = np.asarray(same_as_the_package(path).tensor("w"))
    assert np.corrcoef(found.ravel(), weights.ravel())[0, 1] > 0.6
    assert isinstance(open_checkpoint(path).tensor("w"), ScaledWeights) == (kind in (Type.Q4_0, Type.Q8_0))


def test_plain_types_and_several_tensors(written):
    plain = {
        "f32": (RNG.standard_normal((3, 4)).astype(np.float32), None),
        "f16": (RNG.standard_normal((3, 5)).astype(np.float16), None),
        "f64": (RNG.standard_normal((2, 3, 4)), None),
        "i8": (RNG.integers(-128, 127, (3, 5), np.int8), None),
        "i16": (RNG.integers(-128, 127, 7, np.int16), None),
        "i32": (RNG.integers(-128, 127, 7, np.int32), None),
        "i64": (RNG.integers(-128, 127, 7, np.int64), None),
        "q8": (random_blocks(Type.Q8_0, 3, 64), Type.Q8_0),
    }
    same_as_the_package(written(plain))


def test_bfloat16_is_one_of_the_plain_types(written):
    weights = RNG.standard_normal((3, 64)).astype(np.float32)
    path = written({"w": (gguf.quantize(weights, Type.BF16), Type.BF16)})
    checkpoint = open_checkpoint(path)
    assert checkpoint.dtype("w").name == "bfloat16"
    expected = gguf.dequantize(gguf.GGUFReader(path).tensors[0].data, Type.BF16)
    assert np.array_equal(checkpoint.tensor("w").astype(np.float32), expected)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_other_alignments(written, alignment):
    tensors = {name: (random_blocks(Type.Q4_K, 1, 256), Type.Q4_K) for name in "abc"}

    same_as_the_package(written(tensors, alignment=alignment))


@pytest.mark.parametrize("kind", NOT_DEQUANTISED, ids=lambda kind: kind.name)
def test_types_that_the_package_does_not_dequantise_are_left_out_by_name(written, kind):
    n_bytes = gguf.GGML_QUANT_SIZES[kind][1] * 256 // gguf.GGML_QUANT_SIZES[kind][0]
    plain = RNG.standard_normal((3, 4)).astype(np.float32)
    checkpoint = open_checkpoint(written({"w": (np.zeros((2, n_bytes), np.uint8), kind), "v": (plain, None)}))
    assert checkpoint.names == ("v",)
    assert checkpoint.left_out == {"w": f"of block type {kind.name}, which the package gguf does not dequantise"}


def test_what_its_names_say(written):
    tensors = {
        "token_embd.weight": (normal(9, 4), None),
        "blk.0.attn_norm.weight": (normal(4), None),
        "blk.0.attn_q.weight": (normal(6, 4), None),
        "blk.0.ffn_up_exps.weight": (random_blocks(Type.Q8_0, 6, 32).reshape(2, 3, -1), Type.Q8_0),
    }
    checkpoint = open_checkpoint(written(tensors))
    reading = read_layer_tensors(checkpoint)
    table, query, experts = reading.layers
    assert (table.kind, table.graph.n_inputs) == ("embedding", 9)
    assert (query.kind, query.graph.n_inputs, query.graph.n_outputs) == ("dense", 4, 6)
    assert experts.part_names == ("blk.0.ffn_up_exps.weight[0]", "blk.0.ffn_up_exps.weight[1]")
    assert reading.left_out == {"blk.0.attn_norm.weight": "norm"}
    stack = checkpoint.tensor(experts.name)
    for part, expected in zip(experts.split(stack), np.asarray(stack), strict=True):
        assert np.array_equal(np.asarray(part), expected)


SCALED = [each for each in BLOCKS if each.name in ("NVFP4", "TQ2_0", "Q8_0")]  # the first is not in old releases


@pytest.mark.parametrize("kind", SCALED, ids=lambda kind: kind.name)
def test_blocks_are_multiplied_by_the_scale_beside_them(written, kind):
    matrix, stack = random_blocks(kind, 6, 256), random_blocks(kind, 6, 256).reshape(2, 3, -1)
    one, each = np.array([0.003], np.float32), np.array([0.5, 0.001], np.float32)
    rows, floats = normal(6), normal(3, 4).astype(np.float16)
    tensors = {
        "blk.0.ffn_up.weight": (matrix, kind),
        "blk.0.ffn_up.scale": (one, None),
        "blk.0.ffn_up_exps.weight": (stack, kind),
        "blk.0.ffn_up_exps.scale": (each, None),
        "blk.0.attn_q.weight": (matrix, kind),
        "blk.0.attn_q.scale": (rows, None),  # no form of a scale that is known
        "blk.0.attn_k.weight": (floats, None),  # as BitNet's are, unless they are packed
        "blk.0.attn_k.scale": (one.reshape(1, 1), None),
        "blk.0.attn_norm.weight": (rows, None),
        "blk.0.attn_norm.scale": (one, None),  # beside no matrix
    }
    checkpoint = open_checkpoint(written(tensors))
    up, experts = "blk.0.ffn_up.weight", "blk.0.ffn_up_exps.weight"
    scales = {f"blk.0.{name}.scale" for name in ("ffn_up", "ffn_up_exps", "attn_k")}
    assert set(checkpoint.names) == set(tensors) - scales - {"blk.0.attn_q.weight"}
    assert checkpoint.stored_as[up] == f"blocks of {kind.name} * blk.0.ffn_up.scale"
    plain = gguf.dequantize(matrix, kind)
    assert np.array_equal(checkpoint.tensor(up), plain * one)
    assert np.array_equal(checkpoint.tensor(experts), gguf.dequantize(stack, kind) * each[:, None, None])
    reason = "its scale, 'blk.0.attn_q.scale', is of another type or shape than one that multiplies it"
    assert checkpoint.left_out == {"blk.0.attn_q.weight": reason}
    assert checkpoint.stored_as["blk.0.attn_k.weight"] == "F16 * blk.0.attn_k.scale"
    assert checkpoint.dtype("blk.0.attn_k.weight") == checkpoint.tensor("blk.0.attn_k.weight").dtype == np.float32
    assert np.array_equal(checkpoint.tensor("blk.0.attn_k.weight"), floats.astype(np.float32) * one)
    assert np.array_equal(checkpoint.tensor("blk.0.attn_norm.weight"), rows)


def test_a_scale_beside_blocks_that_is_no_number_is_refused_when_it_is_read(written):
    scale = np.array([np.inf], np.float32)
    tensors = {"w.weight": (random_blocks(Type.Q8_0, 3, 64), Type.Q8_0), "w.scale": (scale, None)}
    with pytest.raises(CheckpointError, match=r"tensor 'w.weight', is damaged.*'w.scale', is not finite"):
        open_checkpoint(written(tensors)).tensor("w.weight")


def test_a_file_of_several_says_so(written):
    checkpoint = open_checkpoint(written({"w": (np.ones((3, 4), np.float32), None)}, {"split.count": 3}))
    assert checkpoint.left_out == {"2 more files": "the model is split into 3 files, of which this is one"}


def test_a_scale_that_is_no_number_is_refused_when_it_is_read(written):
    blocks = random_blocks(Type.Q8_0, 3, 64)
    blocks[1, :2] = np.array([np.nan], np.float16).view(np.uint8)
    checkpoint = open_checkpoint(written({"w": (blocks, Type.Q8_0)}))
    with pytest.raises(CheckpointError, match=r"tensor 'w', is damaged.*row 1, column 0"):
        checkpoint.tensor("w")


def test_for_machines_with_the_other_order_of_bytes(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("w", np.ones((3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="for machines with the other order of bytes"):
        open_checkpoint(tmp_path / "x.gguf")


def test_the_forest_of_a_block_type(written):
    blocks = random_blocks(Type.Q6_K, 40, 256)
    found = open_checkpoint(written({"w": (blocks, Type.Q6_K)})).tensor("w")
    assert maximum_spanning_forest(found).alpha == maximum_spanning_forest(gguf.dequantize(blocks, Type.Q6_K)).alpha


def test_without_the_package_the_extra_is_named(written, monkeypatch):
    path = written({"w": (np.ones((3, 4), np.float32), None)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("topobounds.checkpoint.gguf.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"x\.gguf is a GGUF file, .*pip install -e '\.\[gguf\]'"):
        open_checkpoint(path)


def test_the_package_is_imported_for_such_files_only():
    code = "import sys, topobounds.checkpoint; sys.exit('gguf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
