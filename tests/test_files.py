"""Files: regular ones only are opened, by every function and command; they are written whole, or nothing is there."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from topobounds import CheckpointError, RunError, RunFolder, open_checkpoint
from topobounds._files import check_regular, read_regular, write_whole
from topobounds.verification import replay, verify, verify_file, write_witnesses
from torch_bridge.experiment.history import export, open_run
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.training.data import DataError, read_idx

NOT_FILES = ["pipe", "device", "folder"]


def put(kind, path):
    """Put something that is no regular file at a path, in place of what is there."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", NOT_FILES)
@pytest.mark.parametrize(
    ("name", "opened", "error"),
    [
        ("layer.npy", open_checkpoint, CheckpointError),
        ("layers.npz", open_checkpoint, CheckpointError),
        ("model.safetensors", open_checkpoint, CheckpointError),
        ("layer.npy", verify_file, CheckpointError),
        ("witness.json", replay, OSError),
        ("plan.toml", ImpPlan.read, ValueError),
        ("train-images-idx3-ubyte", lambda file: read_idx(file, 3), DataError),
        ("train-images-idx3-ubyte.gz", lambda file: read_idx(file, 3), DataError),
        ("plan.json", lambda file: RunFolder.open(file.parent), RunError),
        ("plan.json", lambda file: open_run(file.parent), RunError),
    ],
)
def test_only_regular_files_are_read(tmp_path, kind, name, opened, error):
    file = put(kind, tmp_path / name)
    with pytest.raises(error) as raised:
        opened(file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", NOT_FILES)
@pytest.mark.parametrize("name", ["manifest.json", "metrics.jsonl", "w.safetensors"])
def test_only_regular_files_of_a_run_folder_are_read(tmp_path, kind, name):
    run = RunFolder.create(tmp_path / "run", {"epochs": 1})
    with run.writing("trial-0") as level:
        level.save_weights("w", {"a": np.eye(2)})
        level.append_metrics({"epoch": 0})
    put(kind, run.path / "trial-0" / name)
    with pytest.raises(RunError, match=name):
        run.level("trial-0").verify()


@pytest.mark.parametrize("kind", NOT_FILES)
def test_the_lock_and_the_checkpoint_of_a_run_are_files_too(tmp_path, kind):
    run = RunFolder.create(tmp_path / "run", {"epochs": 1})
    put(kind, run.path / ".lock")
    put(kind, run.path / ".trial-0.checkpoint")
    with pytest.raises(RunError, match=r"\.lock"):
        run.is_in_use  # noqa: B018
    with pytest.raises(RunError, match="checkpoint"):
        run.checkpoint("trial-0")


@pytest.mark.parametrize("kind", ["pipe", pytest.param("device", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "arguments",
    [["verify", "{}"], ["verify", "--replay", "{}"], ["imp", "run", "{}", "--out", "run"]],
)
def test_a_pipe_or_a_device_gets_one_line(tmp_path, kind, arguments):
    file = put(kind, tmp_path / "given.npy")
    run = subprocess.run(
        [sys.executable, "-m", "topobounds", *(word.format(file) for word in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1
    assert "given.npy" in run.stderr
    assert {"pipe": "a named pipe", "device": "a device"}[kind] in run.stderr


def test_symbolic_links_to_files_are_followed(tmp_path):
    """A Hugging Face cache is made of them."""
    blob = tmp_path / "blob"
    np.save(blob.with_suffix(".npy"), np.eye(3))
    link = tmp_path / "link.npy"
    link.symlink_to(blob.with_suffix(".npy"))
    with open_checkpoint(link) as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensor("link"), np.eye(3))
    assert read_regular(link) == blob.with_suffix(".npy").read_bytes()


def test_a_file_longer_than_such_a_file_may_be_is_not_read(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_bytes(b"#" * 2**17)
    with pytest.raises(ValueError, match=r"plan\.toml could not be read: it has 131072 bytes, more than the 16384"):
        ImpPlan.read(file)


def test_a_file_of_the_system_is_read_as_far_as_its_size_goes():
    assert read_regular("/proc/self/status") == b""


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_nothing_but_a_file_is_replaced(tmp_path, kind):
    target = put(kind, tmp_path / "witness.json")
    with pytest.raises(OSError, match="not a file"):
        write_whole(target, "{}")
    verdicts = verify(60, 50, density=0.1, claims=["corollary_3_4"], seed=1)
    with pytest.raises(OSError, match="not a file"):
        write_witnesses(target, verdicts)
    with pytest.raises(OSError, match="not a file"):
        check_regular(target)


def test_an_export_replaces_files_only(tmp_path):
    run = RunFolder.create(tmp_path / "run", ImpPlan().complete())
    with run.writing("replicate-0.level-00") as level:
        level.save_weights("end", {"a": np.eye(2)})
        level.save_weights("masks", {"a": np.ones((2, 2), bool)})
        level.append_metrics({"record": "level", "replicate": 0, "level": 0, "method": "imp"})
    out = tmp_path / "out"
    out.mkdir()
    put("pipe", out / "levels.csv")
    with pytest.raises(RunError, match="out"):
        export(run.path, out)
    shutil.rmtree(out)
    assert [file.name for file in export(run.path, out)] == [
        "levels.csv",
        "layers.csv",
        "replicate-0.safetensors",
        "replicate-0.masks.safetensors",
    ]
