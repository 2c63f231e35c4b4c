"""Run folders as checkpoints: the end of the last level, zero where its masks are."""

import json

import numpy as np
import pytest

from topobounds.checkpoint import CheckpointError, open_checkpoint
from topobounds.runs import RunFolder

pytestmark = pytest.mark.usefixtures("registered")
WEIGHTS = {"layers.10.weight": np.full((2, 3), 2.0), "layers.2.weight": np.ones((2, 2)), "layers.2.bias": np.ones(2)}
MASKS = {"layers.2.weight": np.array([[True, False], [False, True]])}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {"rounds": 2})
    for number in (9, 10):
        with folder.writing(f"replicate-0.level-{number}") as level:
            level.save_weights("start", {name: array * 0 for name, array in WEIGHTS.items()})
            level.save_weights("end", {name: array * number for name, array in WEIGHTS.items()})
            level.save_weights("masks", MASKS)
    return folder


def test_a_run_is_the_end_of_its_last_level_with_its_masks(run):
    with open_checkpoint(run.path) as checkpoint:
        assert checkpoint.format == "run"
        assert checkpoint.names == ("layers.2.bias", "layers.2.weight", "layers.10.weight")
        assert [file.parent.name for file in checkpoint.files] == ["replicate-0.level-10"]
        assert checkpoint.tensor("layers.2.weight").tolist() == [[10, 0], [0, 10]]
        assert checkpoint.tensor("layers.10.weight").tolist() == [[20] * 3] * 2
        assert (checkpoint.shape("layers.2.bias"), checkpoint.dtype("layers.2.bias")) == ((2,), np.float64)
        assert checkpoint.stored_as == {"layers.2.weight": "layers.2.weight, where its mask is not 0"}
        assert list(checkpoint.left_out) == ["replicate-0.level-9"]
        with pytest.raises(CheckpointError, match="has no tensor 'tail'"):
            checkpoint.tensor("tail")


def test_one_level_of_a_run(run):
    checkpoint = open_checkpoint(run.path / "replicate-0.level-9")
    assert checkpoint.tensor("layers.2.bias").tolist() == [9, 9]


def test_a_level_without_an_end_is_its_last_epoch(tmp_path):
    run = RunFolder.create(tmp_path, {})
    with run.writing("trial-0") as level:
        for epoch in (2, 10):
            level.save_weights(f"epoch-{epoch}", {"a": np.full(2, epoch)})
    assert open_checkpoint(tmp_path).tensor("a").tolist() == [10, 10]


def test_what_cannot_be_read_of_a_run_is_named(run, tmp_path):
    with pytest.raises(CheckpointError, match="no level is finished yet"):
        open_checkpoint(RunFolder.create(tmp_path / "new", {}).path)
    end = run.path / "replicate-0.level-10" / "end.safetensors"
    end.write_bytes(end.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"end\.safetensors is damaged: it ends at byte"):
        open_checkpoint(run.path)
    plan = json.loads((run.path / "plan.json").read_text())
    (run.path / "plan.json").write_text(json.dumps(plan | {"plan": {"rounds": 3}}))
    with pytest.raises(CheckpointError, match=r"plan\.json is damaged"):
        open_checkpoint(run.path)


def test_a_mask_of_another_shape_is_damage(tmp_path):
    run = RunFolder.create(tmp_path, {})
    with run.writing("trial-0") as level:
        level.save_weights("end", {"a": np.ones((2, 2))})
        level.save_weights("masks", {"a": np.ones(3, np.bool_)})
    with pytest.raises(CheckpointError, match="tensor 'a', is damaged: its mask is of another shape"):
        open_checkpoint(tmp_path)
