"""Checkpoints written anew: what is kept byte for byte, where a target may be, and how a broken run is taken up."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from topobounds.checkpoint import CheckpointError, open_checkpoint

RNG = np.random.default_rng(2)
ARRAYS = {name: RNG.standard_normal((6, 5)).astype(np.float32) for name in ("a", "b", "c")}
Usage = namedtuple("Usage", "total used free")


def halved(name, array):
    return array * np.float32(0.5) if name == "b" else array


def write_shards(folder, **metadata):
    folder.mkdir()
    for name, array in ARRAYS.items():
        save_file({name: array, f"{name}.spare": np.ones(3)}, folder / f"model-{name}.safetensors", {"format": "pt"})
    places = {name: f"model-{name}.safetensors" for name in ARRAYS}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": metadata, "weight_map": places}))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("a b c")
    return folder


def files_of(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_folder_keeps_every_byte_that_is_not_changed(tmp_path):
    source = write_shards(tmp_path / "model", total_size=7, author="me")
    with open_checkpoint(source) as checkpoint:
        checkpoint.rewrite(tmp_path / "new", halved)
    old, new = files_of(source), files_of(tmp_path / "new")
    differ = {name for name in old if old[name] != new.get(name)}
    assert new.keys() == old.keys()
    assert differ == {"model-b.safetensors", "model.safetensors.index.json"}
    tensors = load_file(tmp_path / "new" / "model-b.safetensors")
    assert np.array_equal(tensors["b"], ARRAYS["b"] / 2)
    assert np.array_equal(tensors["b.spare"], np.ones(3))  # the index does not name it
    index = json.loads(new["model.safetensors.index.json"])
    assert index["metadata"] == {"total_size": 3 * 6 * 5 * 4, "author": "me"}


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors"])
def test_a_folder_of_one_file_becomes_a_folder(tmp_path, name):
    source = tmp_path / "model"
    source.mkdir()
    save_file(ARRAYS, source / name, {"format": "pt"})
    (source / "config.json").write_text("{}")
    with open_checkpoint(source) as checkpoint:
        checkpoint.rewrite(tmp_path / "new", halved)
    assert sorted(files_of(tmp_path / "new")) == sorted(["config.json", name])
    with safe_open(tmp_path / "new" / name, "numpy") as new:
        assert new.metadata() == {"format": "pt"}
        assert np.array_equal(new.get_tensor("b"), ARRAYS["b"] / 2)


def write_arrays(kind, folder):
    """Write the arrays; if "masked", with a mask for b, and another tensor between the two; return file or folder."""
    if kind == "shards":
        return write_shards(folder / "x")
    if kind == "npz":
        np.savez(folder / "x.npz", **ARRAYS)
        return folder / "x.npz"
    if kind in ("torch", "legacy"):
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
        torch.save(tensors, folder / "x.pt", _use_new_zipfile_serialization=kind == "torch")
        return folder / "x.pt"
    masked = {"b_mask": np.ones((6, 5), np.float32), "b_n": -ARRAYS["b"], "b_orig": ARRAYS["b"]}  # in this order
    arrays = ARRAYS if kind == "safetensors" else {"a": ARRAYS["a"], **masked, "c": ARRAYS["c"]}
    save_file(arrays, folder / "x.safetensors")
    return folder / "x.safetensors"


@pytest.mark.parametrize("kind", ["safetensors", "shards", "npz", "torch", "legacy", "masked"])
def test_a_change_may_return_all_arrays_in_the_same_memory(tmp_path, kind):
    room = np.empty((6, 5), np.float32)

    def cut(_, array):
        room[:] = np.where(array > 0, array, 0)
        return room

    source = write_arrays(kind, tmp_path)
    target = tmp_path / f"new{source.suffix}"
    with open_checkpoint(source) as checkpoint:
        checkpoint.rewrite(target, cut)
    with open_checkpoint(target) as new:
        for name, array in ARRAYS.items():
            assert np.array_equal(new.tensor(name), np.where(array > 0, array, 0))


def test_what_is_no_array_in_an_archive_is_copied(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **ARRAYS, turned=np.asfortranarray(ARRAYS["a"]))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("note.txt", "hello")
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        checkpoint.rewrite(tmp_path / "y.npz", halved)
    with zipfile.ZipFile(tmp_path / "x.npz") as old, zipfile.ZipFile(tmp_path / "y.npz") as new:
        assert new.namelist() == old.namelist()
        assert [name for name in new.namelist() if new.read(name) != old.read(name)] == ["b.npy"]
        assert {each.compress_type for each in new.infolist() if each.filename.endswith(".npy")} == {
            zipfile.ZIP_DEFLATED
        }


def test_where_a_target_may_be(tmp_path):
    source = write_shards(tmp_path / "model")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(source)
    with open_checkpoint(source) as checkpoint:
        for target, problem in {
            source: "is there already",
            source / "new": "lies in",
            tmp_path / "link" / "new": "lies in",
            tmp_path / "dangling": "is there already",
            tmp_path / "missing" / "new": "there is no folder",
        }.items():
            with pytest.raises(CheckpointError, match=problem):
                checkpoint.rewrite(target, halved)
    assert names_in(tmp_path) == ["dangling", "link", "model"]


def test_the_room_on_the_disk_is_looked_at_first(tmp_path, monkeypatch):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 400))
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        with pytest.raises(CheckpointError, match=r"it needs [\d.]+ (kB|bytes), \d+ bytes are free"):
            checkpoint.rewrite(tmp_path / "y.safetensors", pytest.fail)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 10**4))
        with pytest.raises(CheckpointError, match="it needs"):
            checkpoint.rewrite(tmp_path / "y.safetensors", pytest.fail, room=10**4)


def test_what_is_written_beside_appears_with_the_target(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    events = []

    @contextmanager
    def beside(folder):
        events.append("entered")
        yield
        events.append("left")
        (folder / "y.note").write_text("n")

    def change(name, array):
        events.append(name)
        return array

    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        checkpoint.rewrite(tmp_path / "y.safetensors", change, beside=beside, resume="one")
    assert events == ["entered", "a", "b", "c", "left"]
    assert names_in(tmp_path) == ["x.safetensors", "y.note", "y.safetensors"]


def test_an_interrupted_run_is_taken_up_at_the_file(tmp_path):
    source = write_shards(tmp_path / "model")
    seen = []

    def interrupted(name, array):
        if name == "c":
            raise KeyboardInterrupt
        return halved(name, array)

    def change(name, array):
        seen.append(name)
        return halved(name, array)

    with open_checkpoint(source) as checkpoint:
        with pytest.raises(KeyboardInterrupt):
            checkpoint.rewrite(tmp_path / "new", interrupted, resume="one")
        partial = tmp_path / ".new.partial" / "model-b.safetensors"
        before = partial.stat()
        checkpoint.rewrite(tmp_path / "new", change, resume="one")
        checkpoint.rewrite(tmp_path / "whole", halved)
    assert seen == ["a", "b", "c"]  # a change may keep a record
    assert (tmp_path / "new" / "model-b.safetensors").stat().st_ino == before.st_ino
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")
    assert names_in(tmp_path) == ["model", "new", "whole"]


def test_a_run_of_another_change_begins_anew(tmp_path):
    source = write_shards(tmp_path / "model")

    def interrupted(name, array):
        if name == "c":
            raise KeyboardInterrupt
        return array * 0

    with open_checkpoint(source) as checkpoint:
        with pytest.raises(KeyboardInterrupt):
            checkpoint.rewrite(tmp_path / "new", interrupted, resume="zeros")
        checkpoint.rewrite(tmp_path / "new", halved, resume="halves")
        checkpoint.rewrite(tmp_path / "whole", halved)
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")


def test_a_change_that_fails_leaves_nothing(tmp_path):
    source = write_shards(tmp_path / "model")
    with open_checkpoint(source) as checkpoint, pytest.raises(CheckpointError, match="cannot be rewritten"):
        checkpoint.rewrite(tmp_path / "new", lambda name, array: array[:1], resume="one")
    assert names_in(tmp_path) == ["model"]


SLOW = """
    import sys, time
    from topobounds.checkpoint import open_checkpoint

    def change(name, array):
        time.sleep(0.05)
        return array * array.dtype.type(0.5)

    with open_checkpoint(sys.argv[1]) as checkpoint:
        checkpoint.rewrite(sys.argv[2], change, resume="halves")
"""


@pytest.mark.long
def test_a_run_that_is_killed_at_random_ends_in_the_same_bytes(tmp_path):
    source = write_shards(tmp_path / "model")
    command = [sys.executable, "-c", textwrap.dedent(SLOW), source]
    rng = np.random.default_rng()
    for _ in range(5):
        process = subprocess.Popen([*command, tmp_path / "new"])
        time.sleep(rng.uniform(0.1, 0.8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "new").exists():
            shutil.rmtree(tmp_path / "new")
    subprocess.run([*command, tmp_path / "new"], check=True)
    subprocess.run([*command, tmp_path / "whole"], check=True)
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")
    assert names_in(tmp_path) == ["model", "new", "whole"]
