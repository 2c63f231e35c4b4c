"""Files of torch.save: where the weights are in them, what is left out, and what is never unpickled."""

import argparse
import json
import tomllib
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from tests.checkpoint.conftest import REGISTERED
from topobounds.checkpoint import CheckpointError, open_checkpoint, read_arrays

pytestmark = pytest.mark.usefixtures("registered")
RNG = np.random.default_rng(11)
STATE = {
    "fc.weight": torch.from_numpy(RNG.standard_normal((4, 3), np.float32)),
    "fc.bias": torch.arange(3.0),
    "half": torch.from_numpy(RNG.standard_normal((2, 5))).to(torch.bfloat16),
    "eighth": torch.tensor([[0.5, -2.0]]).to(torch.float8_e4m3fn),
    "steps": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}


@pytest.fixture(params=["zip", "legacy"])
def save(request, tmp_path, monkeypatch):
    if request.param == "legacy":  # torch itself cannot load float8 from such a file
        monkeypatch.delitem(STATE, "eighth")

    def write(content, name="model.pt"):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=request.param == "zip")
        return tmp_path / name

    return write


def assert_same(checkpoint, state=STATE):
    assert checkpoint.names == tuple(state)
    for name, tensor in state.items():
        array = checkpoint.tensor(name)
        assert (checkpoint.shape(name), checkpoint.dtype(name)) == (array.shape, array.dtype)
        assert np.array_equal(array.astype(float), tensor.double().numpy())


def test_the_readers_are_registered():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["topobounds.readers"] == REGISTERED


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".ckpt", ".pth.tar", ".safetensors", ""])
def test_a_state_dict_whatever_it_is_called(save, suffix):
    with open_checkpoint(save(STATE, f"model{suffix}")) as checkpoint:
        assert checkpoint.format == "torch"
        assert [file.name for file in checkpoint.files] == [f"model{suffix}"]
        assert_same(checkpoint)
        assert checkpoint.dtype("half") == ml_dtypes.bfloat16
        with pytest.raises(CheckpointError, match="has no tensor 'tail'"):
            checkpoint.tensor("tail")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"acc": torch.tensor(3), "state_dict": [state]},
        lambda state: [state],
        lambda state: {"model": {"state_dict": state, "epoch": 3}},
        lambda state: {"model": state, "ema": {name: tensor.clone() for name, tensor in state.items()}},
        lambda state: {"params_ema": {"a": torch.ones(2)}, "params": state},
        lambda state: OrderedDict((f"module.{name}", tensor) for name, tensor in state.items()),
        lambda state: {"state": {"model": state, "optimizer": {"state": {}, "param_groups": []}}},
        lambda state: {"checkpoint": {"model": {"state_dict": state}, "epoch": 3}},
        lambda state: {"state_dict": state, "best": np.float64(0.9), "random": ("MT19937", np.arange(9), 3)},
        lambda state: {"net": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model": state, "state": {}, "optimizer": torch.optim.SGD([torch.ones(2)]).state_dict()},
    ],
)
def test_a_state_dict_wherever_it_is(save, wrapped):
    assert_same(open_checkpoint(save(wrapped(dict(STATE)))))


def test_what_stands_beside_the_weights_is_left_out_and_counted(save):
    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "model": net.state_dict(),
        "ema": net.state_dict(),
        "best": 0.9,
        "history": [1, 2],
        "mean": torch.ones(2),
    }
    checkpoint = open_checkpoint(save({**content, "optimizer": optimizer.state_dict()}))
    assert checkpoint.left_out == {
        "ema": "2 tensors beside the weights, which are in 'model'",
        "best": "no tensor, but of type float",
        "history": "no tensors, but 2 other entries",
        "mean": "a tensor beside the weights, which are in 'model'",
        "optimizer": "optimiser state, with 6 tensors",
    }


def test_of_nested_entries_none_is_lost(save):
    content = {"model": {"net": {"a": torch.ones(2)}, "head": {"b": torch.ones(2)}}, "best": np.ones(2)}
    checkpoint = open_checkpoint(save(content))
    assert checkpoint.names == ("net.a", "head.b")
    assert checkpoint.left_out == {"best": "no tensor, but a value of numpy"}


def test_arrays_of_numpy_are_no_weights_of_a_file_of_torch(save):
    with pytest.raises(CheckpointError, match="holds no weights: 'a' is no tensor, but a value of numpy"):
        open_checkpoint(save({"a": np.ones((2, 2))}))


def test_a_tensor_without_values_is_refused_by_itself(save):
    checkpoint = open_checkpoint(save({"a": torch.ones(2, device="meta"), "b": torch.ones(2)}))
    assert checkpoint.tensor("b").tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="tensor 'a', has no values: it was saved on the device 'meta'"):
        checkpoint.tensor("a")


def test_a_file_that_is_read_whole_must_fit_in_memory(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "new.pt")
    torch.save({"a": torch.ones(100)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    monkeypatch.setattr("topobounds._memory.memory", lambda: 500.0)
    assert len(open_checkpoint(tmp_path / "new.pt").names) == len(STATE)
    with pytest.raises(CheckpointError, match=r"old\.pt, which is read whole, takes at least .* of memory"):
        open_checkpoint(tmp_path / "old.pt")


def test_several_models_in_one_file_are_told_apart_by_their_keys(save):
    content = {
        "generator": {"a": torch.ones(2)},
        "critic": {"a": torch.zeros(2)},
        "optim_g": {"state": {}},
        "note": "x",
    }
    checkpoint = open_checkpoint(save(content))
    assert checkpoint.names == ("generator.a", "critic.a")
    assert set(checkpoint.left_out) == {"optim_g", "note"}


def test_tensors_that_are_one_are_tied_and_views_of_one_are_not(save):
    weight = torch.arange(12.0).reshape(3, 4)
    checkpoint = open_checkpoint(save({"embed": weight, "head": weight, "rows": weight[:2], "turned": weight.T}))
    assert checkpoint.names == ("embed", "rows", "turned")
    assert checkpoint.tied == {"head": "embed"}
    assert np.array_equal(checkpoint.tensor("head"), weight)
    assert np.array_equal(checkpoint.tensor("rows"), weight[:2])


def test_a_lone_tensor_goes_by_the_name_of_the_file(save):
    assert open_checkpoint(save(torch.ones(2, 2), "matrix.pt")).names == ("matrix",)


def test_pruned_and_normalised_weights_are_those_of_the_module(save):
    net = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 3, 3), nn.Linear(3, 2))
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    parametrizations.weight_norm(net[1])
    parametrizations.orthogonal(net[2])
    net.append(parametrizations.spectral_norm(nn.Linear(2, 2)))
    net.append(parametrizations.spectral_norm(nn.ConvTranspose2d(2, 3, 3)))
    net.eval()
    checkpoint = open_checkpoint(save(net.state_dict()))
    assert np.array_equal(checkpoint.tensor("0.weight"), net[0].weight.detach())
    assert np.allclose(checkpoint.tensor("1.weight"), net[1].weight.detach(), atol=1e-6)
    for spectral in ("3", "4"):
        assert np.allclose(checkpoint.tensor(f"{spectral}.weight"), net[int(spectral)].weight.detach(), atol=1e-6)
    assert "2.weight" not in checkpoint.names
    assert all("'2.weight', which is parametrised" in reason for reason in checkpoint.left_out.values())
    assert checkpoint.left_out


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ["sparse", "quantised"])
def test_what_is_no_plain_array_is_refused_by_itself(save, kind):
    eye = torch.eye(3)
    odd = eye.to_sparse() if kind == "sparse" else torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8)
    checkpoint = open_checkpoint(save({"odd": odd, "even": torch.ones(2)}))
    assert checkpoint.tensor("even").tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="tensor 'odd', is no plain array of numbers"):
        checkpoint.tensor("odd")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_left_out(tmp_path):
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])
    torch.save(
        {"a": nested, "even": torch.ones(2)}, tmp_path / "model.pt"
    )  # torch itself cannot load older files of it
    checkpoint = open_checkpoint(tmp_path / "model.pt")
    assert checkpoint.names == ("even",)
    assert checkpoint.left_out == {"a": "a nested tensor, which is not read"}


def test_tensors_of_torchao_are_left_out(tmp_path):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    net = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
    quantization.quantize_(net[0], quantization.Int8WeightOnlyConfig())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    checkpoint = open_checkpoint(tmp_path / "net.pt")
    assert set(checkpoint.names) == {"0.bias", "2.weight", "2.bias"}
    form = type(net[0].weight.data).__name__
    assert checkpoint.left_out == {"0.weight": f"a tensor in another form ({form}), which is not read"}


def test_a_tensor_larger_than_its_memory_is_refused_by_itself(save):
    checkpoint = open_checkpoint(save({"wide": torch.ones(1).expand(10**6, 10**6), "even": torch.ones(2)}))
    with pytest.raises(CheckpointError, match="tensor 'wide', is damaged: it declares 1000000000000 values"):
        checkpoint.tensor("wide")


class Payload:
    """An object that would make a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_objects_are_never_unpickled(save, tmp_path):
    file = save({"state_dict": STATE, "args": Payload(tmp_path / "ran")})
    with pytest.raises(
        CheckpointError, match=r"holds a pickled object, .*, which can run code and is never unpickled"
    ) as caught:
        open_checkpoint(file)
    assert "Save its weights alone" in str(caught.value)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError, match=r"a pickled object, argparse\.Namespace, which"):
        open_checkpoint(save({"state_dict": STATE, "args": argparse.Namespace(a=1)}))
    with pytest.raises(
        CheckpointError, match=r"a pickled object, torch\.nn\.modules\.linear\.Linear, .*loaded\.state_dict\("
    ):
        open_checkpoint(save(nn.Linear(2, 2)))


def test_a_file_without_weights(save):
    with pytest.raises(CheckpointError, match="holds no weights: 'epoch' is no tensor, but of type int"):
        open_checkpoint(save({"epoch": 1}))
    with pytest.raises(CheckpointError, match="holds no weights: 'model' is optimiser state, with 0 tensors"):
        open_checkpoint(save(torch.optim.SGD([torch.ones(2)]).state_dict()))


def test_the_values_of_a_zip_file_are_mapped_into_memory(tmp_path):
    torch.save(STATE, tmp_path / "model.pt")
    array = open_checkpoint(tmp_path / "model.pt").tensor("fc.weight")
    assert not array.flags.owndata


def test_a_compressed_record_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as old, zipfile.ZipFile(tmp_path / "new.pt", "w") as new:
        for member in old.namelist():
            new.writestr(member, old.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="is compressed, which torch does not do"):
        open_checkpoint(tmp_path / "new.pt")


# -- folders -----------------------------------------------------------------------------------------------------------


def write_folder(folder, save, places=None):
    shards = {
        "pytorch_model-1.bin": {"embed_tokens.weight": torch.ones(3, 2)},
        "pytorch_model-2.bin": {"b": torch.ones(2)},
    }
    for shard, state in shards.items():
        save(state, shard)
    places = places or {name: shard for shard, state in shards.items() for name in state}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize("entry", ["", "pytorch_model.bin.index.json"])
def test_a_folder_with_an_index(tmp_path, save, entry):
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    checkpoint = open_checkpoint(write_folder(tmp_path, save) / entry)
    assert checkpoint.names == ("embed_tokens.weight", "b")
    assert [file.name for file in checkpoint.files] == ["pytorch_model-1.bin", "pytorch_model-2.bin"]
    assert checkpoint.tied == {"lm_head.weight": "embed_tokens.weight"}


def test_an_index_that_lies(tmp_path, save):
    write_folder(tmp_path, save, {"b": "pytorch_model-1.bin"})
    with pytest.raises(CheckpointError, match=r"tensor 'b' is not in pytorch_model-1\.bin"):
        open_checkpoint(tmp_path)
    write_folder(tmp_path, save, {"b": "pytorch_model-3.bin"})
    with pytest.raises(CheckpointError, match="1 of the 1 file is missing, with 1 tensor: "):
        open_checkpoint(tmp_path)
    write_folder(tmp_path, save, {"b": "pytorch_model-2.bin"})
    assert open_checkpoint(tmp_path).names == ("b",)


def test_a_folder_with_one_file(tmp_path, save):
    save(STATE, "pytorch_model.bin")
    assert_same(open_checkpoint(tmp_path))


# -- rewriting ---------------------------------------------------------------------------------------------------------


def test_a_rewritten_file_keeps_all_that_is_not_changed(save, tmp_path):
    weight = torch.ones(3, 2)
    state = OrderedDict(
        {f"module.{name}": tensor for name, tensor in STATE.items()} | {"module.a": weight, "module.b": weight}
    )
    content = {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}, "param_groups": []}}
    with open_checkpoint(save(content)) as checkpoint:
        checkpoint.rewrite(
            tmp_path / "new.pt", lambda name, array: np.zeros_like(array) if name in ("a", "half") else array
        )
    new = torch.load(tmp_path / "new.pt", weights_only=True)
    assert new["epoch"] == 3
    assert new["optimizer"]["state"][0].tolist() == [1, 1]
    assert list(new["state_dict"]) == list(state)
    assert not new["state_dict"]["module.half"].double().any()
    assert new["state_dict"]["module.a"].data_ptr() == new["state_dict"]["module.b"].data_ptr()
    assert not new["state_dict"]["module.b"].any()
    assert torch.equal(new["state_dict"]["module.turned"], STATE["turned"])
    assert zipfile.is_zipfile(tmp_path / "new.pt") == zipfile.is_zipfile(tmp_path / "model.pt")


def test_a_rewritten_folder_has_the_same_files(tmp_path, save):
    folder = tmp_path / "model"
    folder.mkdir()
    write_folder(folder, lambda state, name: save(state, f"model/{name}"))
    (folder / "config.json").write_text("{}")
    with open_checkpoint(folder) as checkpoint:
        checkpoint.rewrite(tmp_path / "new", lambda name, array: array * 0 if name == "b" else array)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == sorted(file.name for file in folder.iterdir())
    with open_checkpoint(tmp_path / "new") as new, open_checkpoint(folder) as old:
        assert not new.tensor("b").any()
        assert np.array_equal(new.tensor("embed_tokens.weight"), old.tensor("embed_tokens.weight"))
        size = json.loads((tmp_path / "new" / "pytorch_model.bin.index.json").read_text())["metadata"]["total_size"]
        assert size == sum(new.tensor(name).nbytes for name in new.names)


def test_the_archive_of_a_rewritten_file_is_whole(tmp_path):
    turned, base = torch.ones(5, 4).T, torch.arange(12.0)
    content = {"turned": turned, "flat": base, "view": base[4:8], "half": torch.ones(3, 3, dtype=torch.bfloat16)}
    torch.save(content, tmp_path / "model.pt")
    with open_checkpoint(tmp_path / "model.pt") as checkpoint:
        checkpoint.rewrite(tmp_path / "new.pt", lambda name, array: array if name == "flat" else array * 0)
    new = torch.load(tmp_path / "new.pt", weights_only=True)
    assert zipfile.ZipFile(tmp_path / "new.pt").testzip() is None
    assert new["turned"].stride() == turned.stride()
    assert not new["turned"].any()
    assert not new["half"].any()
    assert new["flat"].tolist() == [0, 1, 2, 3, 0, 0, 0, 0, 8, 9, 10, 11]


def test_a_change_of_shape_or_type_is_refused_and_leaves_nothing(tmp_path, save):
    checkpoint = open_checkpoint(save(STATE))
    with pytest.raises(CheckpointError, match=r"tensor 'fc\.weight', cannot be rewritten: its change is float64"):
        checkpoint.rewrite(tmp_path / "new.pt", lambda name, array: array.astype(np.float64))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


# -- files of others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "count", "name", "shape"),
    [
        ("resnet20-12fca82f.th", 97, "layer3.2.conv2.weight", (64, 64, 3, 3)),
        ("resnet56-4bfd9763.th", 277, "linear.weight", (10, 64)),
        ("mnist_6_100_nat.pth", 12, "1.weight", (100, 784)),
        ("mnist_fc_3layer.pth", 6, "fc2.weight", (64, 128)),
        ("mnist_lenet5.pth", 10, "3.weight", (16, 6, 5, 5)),
        ("fashion_mnist_robust_cnn.pth", 8, "5.weight", (100, 1568)),
        ("silero_vad_16k.safetensors", 15, "lstm_cell.weight_hh", (512, 128)),
        ("g2p_gru_checkpoint20.npz", 12, "enc_w_hh", (768, 256)),
    ],
)
def test_published_checkpoints_open(data_dir, file, count, name, shape):
    with open_checkpoint(data_dir / "checkpoints" / file) as checkpoint:
        assert (len(checkpoint.names), checkpoint.shape(name)) == (count, shape)
        arrays = dict(read_arrays(data_dir / "checkpoints" / file))
        assert all(array.shape == checkpoint.shape(name) and np.isfinite(array).all() for name, array in arrays.items())
