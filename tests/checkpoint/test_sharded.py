"""Folders of .safetensors files: the index is the authority, and every tensor is read once."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from topobounds.checkpoint import CheckpointError, open_checkpoint, read_arrays

RNG = np.random.default_rng(5)
SHARDS = {
    "model-00001-of-00002.safetensors": {
        "model.embed_tokens.weight": RNG.standard_normal((6, 4), np.float32),
        "model.layers.0.weight": RNG.standard_normal((4, 4), np.float32),
    },
    "model-00002-of-00002.safetensors": {"model.layers.1.weight": RNG.standard_normal((4, 4))},
}
TENSORS = {name: array for arrays in SHARDS.values() for name, array in arrays.items()}


def write_sharded(folder, **changes):
    """Write the shards and their index, some entries of which are changed; an entry of None goes."""
    folder.mkdir(exist_ok=True)
    for shard, arrays in SHARDS.items():
        save_file(arrays, folder / shard, {"format": "pt"})
    places = {name: shard for shard, arrays in SHARDS.items() for name in arrays}
    places = {name: shard for name, shard in (places | changes).items() if shard is not None}
    index = {"metadata": {"total_size": sum(array.nbytes for array in TENSORS.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_sharded(tmp_path / "model")


@pytest.mark.parametrize("entry", ["", "model.safetensors.index.json"])
def test_a_folder_and_its_index_hold_every_tensor_once(folder, entry):
    with open_checkpoint(folder / entry) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.names == tuple(TENSORS)
        assert [file.name for file in checkpoint.files] == sorted(SHARDS)
        for name, array in TENSORS.items():
            assert (checkpoint.shape(name), checkpoint.dtype(name)) == (array.shape, array.dtype)
            assert np.array_equal(checkpoint.tensor(name), array)
        assert not checkpoint.left_out
        assert not checkpoint.tied


def test_stray_files_and_tensors_are_left_out_with_a_reason(folder):
    save_file({"model.layers.1.weight": np.ones(2)}, folder / "model-00003-of-00002.safetensors")
    write_sharded(folder, **{"model.layers.0.weight": None})
    with open_checkpoint(folder) as checkpoint:
        assert "model.layers.0.weight" not in checkpoint.names
        assert "does not name it" in checkpoint.left_out["model.layers.0.weight"]
        assert "does not name" in checkpoint.left_out["model-00003-of-00002.safetensors"]
        assert np.array_equal(checkpoint.tensor("model.layers.1.weight"), TENSORS["model.layers.1.weight"])


def test_of_a_tensor_in_two_files_the_index_chooses_one(folder):
    save_file(dict(TENSORS), folder / "model-00001-of-00002.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert sorted(checkpoint.names) == sorted(TENSORS)
        (doubled,) = checkpoint.left_out
        assert doubled == "model.layers.1.weight in model-00001-of-00002.safetensors"


def test_missing_files_are_counted_and_named(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    message = r"1 of the 2 files is missing, with 1 tensor: model-00002-of-00002\.safetensors"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_a_tensor_that_a_file_lacks_is_named(folder):
    write_sharded(folder, ghost="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"index\.json is damaged: tensor 'ghost' is not in model-00001"):
        open_checkpoint(folder)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/x.safetensors", "", 3, "a/../../x.safetensors", "config.json"])
def test_an_index_that_leads_elsewhere_is_damaged(folder, shard):
    save_file({"ghost": np.ones(2)}, folder.parent / "x.safetensors")
    write_sharded(folder, ghost=shard)
    with pytest.raises(CheckpointError, match="tensor 'ghost' would be in"):
        open_checkpoint(folder)


def test_an_index_that_names_a_tensor_twice_is_damaged(folder):
    file = folder / "model.safetensors.index.json"
    shard = "model-00001-of-00002.safetensors"
    file.write_text(f'{{"weight_map": {{"model.layers.0.weight": "{shard}", "model.layers.0.weight": "{shard}"}}}}')
    with pytest.raises(CheckpointError, match=r"holds 'model\.layers\.0\.weight' twice"):
        open_checkpoint(folder)


def test_a_cache_folder_of_symbolic_links_is_followed(folder, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = tmp_path / f"blob{number}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(blob)
    assert [name for name, _ in read_arrays(snapshot)] == list(TENSORS)


@pytest.mark.parametrize("main", ["0a1b", None])
def test_the_folder_of_a_model_in_the_cache_leads_to_its_snapshot(folder, tmp_path, main):
    cache = tmp_path / "models--someone--model"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "refs").mkdir()
    folder.rename(cache / "snapshots" / "0a1b")
    if main is not None:
        (cache / "snapshots" / "ffff").mkdir()
        (cache / "refs" / "main").write_text(main)
    with open_checkpoint(cache) as checkpoint:
        assert checkpoint.path.name == "0a1b"
        assert checkpoint.names == tuple(TENSORS)


def test_several_snapshots_and_none_of_them_main(folder, tmp_path):
    cache = tmp_path / "models--someone--model"
    (cache / "snapshots" / "ffff").mkdir(parents=True)
    folder.rename(cache / "snapshots" / "0a1b")
    with pytest.raises(CheckpointError, match=r"is a folder without model\.safetensors\.index\.json"):
        open_checkpoint(cache)


def test_a_folder_with_one_file(tmp_path):
    save_file(dict(TENSORS), tmp_path / "model.safetensors")
    save_file({"a": np.ones(2)}, tmp_path / "other.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert sorted(checkpoint.names) == sorted(TENSORS)
        assert list(checkpoint.left_out) == ["other.safetensors"]
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 2 \.safetensors files and no index: name one of them, other"):
        open_checkpoint(tmp_path)


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is a folder without model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"tie_word_embeddings": True}, True),
        ({"text_config": {"tie_word_embeddings": True}}, True),
        ({"architectures": ["GPT2LMHeadModel"]}, True),
        ({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}, False),
        ({"architectures": ["BertModel"]}, False),
        ([], False),
    ],
)
def test_a_missing_output_head_is_tied_to_the_embedding_as_the_config_says(folder, config, tied):
    (folder / "config.json").write_text(json.dumps(config))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tied == ({"lm_head.weight": "model.embed_tokens.weight"} if tied else {})
        if tied:
            assert np.array_equal(checkpoint.tensor("lm_head.weight"), TENSORS["model.embed_tokens.weight"])
            assert "lm_head.weight" not in checkpoint.names


def test_a_stored_output_head_is_not_tied(tmp_path):
    save_file({"lm_head.weight": np.ones(2), "wte.weight": np.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    assert not open_checkpoint(tmp_path).tied


def test_names_that_the_library_left_out_as_shared_are_tied(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "model.safetensors", {"b": "a", "format": "pt"})
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        assert checkpoint.tied == {"b": "a"}
        assert [name for name, _ in read_arrays(tmp_path / "model.safetensors", "b")] == ["b"]


def test_a_rewritten_folder_has_the_same_files_and_the_change(folder, tmp_path):
    (folder / "config.json").write_text('{"hidden_size": 4}')
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("")
    with open_checkpoint(folder) as checkpoint:
        checkpoint.rewrite(tmp_path / "same", lambda name, array: array)
        checkpoint.rewrite(tmp_path / "zero", lambda name, array: np.zeros_like(array) if "layers.1" in name else array)
        with pytest.raises(CheckpointError, match="is there already"):
            checkpoint.rewrite(tmp_path / "same", lambda name, array: array)
        with pytest.raises(CheckpointError, match="cannot be rewritten"):
            checkpoint.rewrite(tmp_path / "half", lambda name, array: array[:1])
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    assert sorted(file.name for file in (tmp_path / "same").iterdir()) == names
    assert all((tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes() for name in names)
    changed = dict(read_arrays(tmp_path / "zero"))
    assert not changed.pop("model.layers.1.weight").any()
    assert all(np.array_equal(array, TENSORS[name]) for name, array in changed.items())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "same", "zero"]
