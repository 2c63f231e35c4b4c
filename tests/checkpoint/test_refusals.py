"""Formats that are known and not read are refused by name, with a way on."""

import sys
import zipfile

import numpy as np
import pytest

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
    ],
)
@pytest.mark.parametrize("name", ["model.bin", "model.safetensors", "model"])
def test_by_content_whatever_the_name(tmp_path, content, kind, name):
    (tmp_path / name).write_bytes(content + b"\0" * 64)
    with pytest.raises(CheckpointError, match=kind):
        open_checkpoint(tmp_path / name)


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
