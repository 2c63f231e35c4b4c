"""Formats that are known and not read are refused by name, with a way on."""

import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from topobounds.checkpoint import CheckpointError, open_checkpoint

pytestmark = pytest.mark.usefixtures("registered")


@pytest.mark.parametrize(
    ("name", "kind", "way_on"),
    [
        ("__0_0.distcp", "distributed checkpoint of torch", "dcp_to_torch"),
        ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "DeepSpeed", "zero_to_fp32.py"),
        ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "DeepSpeed", "zero_to_fp32.py"),
        ("mp_rank_00_model_states.pt", "DeepSpeed", "zero_to_fp32.py"),
        ("consolidated.00.pth", "split over processes", "convert_llama_weights_to_hf.py"),
        ("model.h5", "Keras", "w.numpy()"),
        ("model.keras", "Keras", "w.numpy()"),
        ("flax_model.msgpack", "Flax", "flatten_dict"),
        ("model.ckpt.index", "TensorFlow", "tf.train.load_checkpoint"),
        ("model.data-00000-of-00001", "TensorFlow", "tf.train.load_checkpoint"),
        ("model.pt2", "torch.export", "torch.export.load"),
        ("model.pkl", "pickled object", "np.savez"),
        ("manifest.ocdbt", "Orbax", "flatten_dict"),
        ("_METADATA", "Orbax", "flatten_dict"),
        ("saved_model.pb", "TensorFlow", "tf.train.load_checkpoint"),
        ("model.ckpt-100.index", "TensorFlow", "tf.train.load_checkpoint"),
        ("frozen.pb", "graph of TensorFlow", "tf.make_ndarray"),
        ("model.tflite", "TensorFlow Lite", "tf.lite.Interpreter"),
        ("model.mlmodel", "Core ML", "coremltools"),
        ("model.ot", "tch", "torch.jit.load"),
        ("model.ggml", "llama.cpp", "convert it to .gguf"),
        ("model.pdparams", "Paddle", "paddle.load"),
        ("model.mat", "MATLAB", "loadmat"),
        ("model.npz.gz", "compressed file", "unpack it"),
    ],
)
def test_by_name_as_a_file_and_in_a_folder(tmp_path, name, kind, way_on):
    file = tmp_path / name
    file.write_bytes(b"\0" * 64)
    refused = []
    for path in (file, tmp_path):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert str(caught.value).startswith(str(path))
        refused.append(kind in str(caught.value) and way_on in str(caught.value))
    assert any(refused)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!doctype html>", "web page"),
        (b"\x80\x04\x95", "pickled object"),
        (b"\x1f\x8b\x08", "compressed file"),
    ],
)
@pytest.mark.parametrize("name", ["model.bin", "model.safetensors", "model"])
def test_by_content_whatever_the_name(tmp_path, content, kind, name):
    (tmp_path / name).write_bytes(content + b"\0" * 64)
    with pytest.raises(CheckpointError, match=kind):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_begins_as_a_pickle_does_is_one_of_safetensors(tmp_path, length):
    save_file({"a.weight": np.ones((2, 3), np.float32)}, tmp_path / "short.safetensors")
    content = (tmp_path / "short.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    content = length.to_bytes(8, "little") + content[8:end].ljust(length) + content[end:]
    (tmp_path / "model.safetensors").write_bytes(content)
    assert load_file(tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        assert checkpoint.tensor("a.weight").sum() == 6


def test_a_checkpoint_of_tensorflow_by_its_end_or_by_its_index(tmp_path):
    (tmp_path / "old.ckpt").write_bytes(bytes(100) + bytes.fromhex("57fb808b247547db"))
    (tmp_path / "model.ckpt.index").write_bytes(bytes(100))
    for name in ("old.ckpt", "model.ckpt"):
        with pytest.raises(CheckpointError, match=rf"{name} is a checkpoint of TensorFlow"):
            open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "beside", ["consolidated.00.pth", "mp_rank_00_model_states.pt", "tf_model.h5", "x.msgpack", "x.distcp"]
)
@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors"])
def test_a_folder_that_holds_weights_beside_is_read(tmp_path, name, beside):
    save_file({"a": np.ones(2)}, tmp_path / name)
    (tmp_path / beside).write_bytes(b"")
    assert open_checkpoint(tmp_path).names == ("a",)


def test_a_folder_of_which_nothing_is_read_names_what_may_be(tmp_path):
    for name in ("first/a.safetensors", "first/b.txt", "second/b.txt", "third.npz", "fourth.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"or another known file\. Name one in it: first, third\.npz\.$"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("pointer", ["model-1", "model"])
def test_a_pointer_in_the_place_of_weights_in_a_folder(tmp_path, pointer):
    (tmp_path / f"{pointer}.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    if pointer == "model-1":
        (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(CheckpointError, match=rf"{pointer}\.safetensors is a pointer of Git LFS, .*: fetch the file"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        (["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"], "TorchScript archive"),
        (["m/archive_format", "m/models/model.json"], r"program of torch\.export"),
        (["config.json", "model.weights.h5"], "file of Keras"),
    ],
)
def test_archives_by_their_members(tmp_path, members, kind):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for member in members:
            archive.writestr(member, b"")
    with pytest.raises(CheckpointError, match=f"is a {kind}"):
        open_checkpoint(tmp_path / "model.pt")


def test_without_the_reader_of_torch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("topobounds.checkpoint.opening.entry_points", lambda group: [])
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"")
    with pytest.raises(
        CheckpointError, match=r"a file of torch, whose reader is missing: .* pip install -e '\.\[torch\]'"
    ):
        open_checkpoint(tmp_path / "model.pt")


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"torch, which is not installed: .* pip install -e '\.\[torch\]'"):
        open_checkpoint(tmp_path / "model.pt")
    np.save(tmp_path / "x.npy", np.ones(2))
    assert open_checkpoint(tmp_path / "x.npy").names == ("x",)
