"""T-IMP beside IMP: the record that comes with the package, and a small plan made by the command."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from paper_figures import t_imp
from paper_figures.settings import Settings, committed_record
from tests.command_line import topobounds
from topobounds.runs import RunFolder
from torch_bridge.experiment import picture
from torch_bridge.experiment.history import level_name
from torch_bridge.experiment.plan import ImpPlan

PLAN = """
[model]
name = "mlp"
hidden = [12]
[data]
name = "digits"
[recipe]
epochs = 1
[pruning]
rounds = 3
rate = 0.5
output_factor = 0.5
"""
HEAD = ["t_imp", "--device", "cpu", "--dataset", "digits", "--seed", "3", "--trials", "1"]


def figures(out):
    """Run the command in this process and return what it says it made."""
    run = topobounds("figures", *HEAD, "--out", out, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the folder of a run of the command with a small plan in the place of the digits', and what it said."""
    folder = tmp_path_factory.mktemp("t-imp")
    (folder / "digits.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(t_imp, "CONFIGS", folder)
        yield folder / "out", figures(folder / "out")


def test_the_committed_record_is_of_the_plans_that_come_with_the_package(tmp_path):
    record = committed_record("t_imp")
    made = record.provenance
    dataset, seed = made["data"]["name"], made["seed"]
    settings = Settings(
        tmp_path, dataset, made["trials"], 20, seed, None, False, "cpu", 1, lambda done, total, message: None
    )
    plans = {picture.METHODS[method]: t_imp._method_plan(settings, method) for method in t_imp.METHODS}
    assert {run: ImpPlan.from_dict(facts["plan"]) for run, facts in made["runs"].items()} == plans
    for run, plan in plans.items():
        assert record.where(run=run).column("level") == list(plan.levels) * plan.replicates
        assert made["runs"][run]["data"]["sha256"] == made["data"]["sha256"]
    assert made["data"]["files"]["train-images-idx3-ubyte.gz"].startswith("440fcabf")
    assert made["command"] == f"topobounds figures t_imp --dataset {dataset} --trials {made['trials']} --seed {seed}"


def test_the_methods_part_and_prune_the_same_number():
    imp, ours = (committed_record("t_imp").where(run=run) for run in ("IMP", "T-IMP"))
    assert imp.column("density") == ours.column("density")
    for replicate in range(5):
        pairs = zip(imp.where(replicate=replicate).rows, ours.where(replicate=replicate).rows, strict=True)
        same = [first[1:] == second[1:] for first, second in pairs]
        assert same[0]
        assert not same[-1]
        assert same == sorted(same, reverse=True), "once apart, they stay so"


def test_every_number_is_drawn():
    record = committed_record("t_imp")
    axes = t_imp.draw(record).axes
    assert [ax.get_ylabel() for ax in axes] == list(picture.PANELS.values())
    for ax, quantity in zip(axes, picture.PANELS, strict=True):
        for line, run in zip(ax.lines, ("IMP", "T-IMP"), strict=True):
            assert line.get_label() == run
            of_run = record.where(run=run)
            density, values = (np.reshape(of_run.column(name), (5, 19)) for name in ("density", quantity))
            np.testing.assert_allclose(line.get_xdata(), density.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0), rtol=1e-12)
        band = ax.collections[-1].get_paths()[0].vertices[:, 1]  # of the last run, whose values these are
        edges = [values.mean(axis=0) + sign * values.std(axis=0, ddof=1) for sign in (-1, 1)]
        assert all(np.isclose(band, edge, rtol=1e-12).any() for edge in np.ravel(edges))


def test_the_caption_says_plan_data_replicates_and_seed():
    caption = t_imp.caption(committed_record("t_imp"))
    assert "lenet-300-100, 20% of the survivors pruned a round (output layer 10%), then rewind." in caption
    assert caption.endswith("Data: MNIST; 5 replicates of 19 levels of 10 epochs; seed 0.")
    assert "Means over the replicates, and one sample standard deviation to either side." in caption


def test_the_command_runs_both_methods_and_writes_their_levels(tiny):
    out, said = tiny
    assert (said["dataset"], said["trials"], said["epochs"], said["seed"]) == ("digits", 1, None, 3)
    assert said["figures"]["t_imp"] == [str(out / f"t_imp.{kind}") for kind in ("csv", "json", "pdf", "png", "txt")]
    rows = list(csv.DictReader(io.StringIO((out / "t_imp.csv").read_text())))
    assert [(row["run"], row["level"]) for row in rows] == [(run, n) for run in ("IMP", "T-IMP") for n in "0123"]
    runs = [RunFolder.open(folder) for folder in sorted((out / "runs").iterdir())]
    assert [run.plan["pruning"].get("method", "imp") for run in runs] == ["imp", "t-imp"]
    assert all(run.plan["seeds"] == dict.fromkeys(("init", "order", "split", "pruning"), 3) for run in runs)
    for row, level in zip(rows, (level for run in runs for level in run.levels), strict=True):
        masks = level.weights("masks").values()
        assert float(row["density"]) == sum(map(np.count_nonzero, masks)) / sum(mask.size for mask in masks)
        assert float(row["test_accuracy"]) == level.metrics[-1]["test_accuracy"]


def test_only_what_is_missing_is_trained(tiny, tmp_path):
    out = shutil.copytree(tiny[0], tmp_path / "out")
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    (folder,) = (out / "runs").glob("t-imp-digits-seed-3-*")
    shutil.rmtree(folder / level_name(0, 3))
    finished = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/*/manifest.json")}
    assert len(finished) == 7
    figures(out)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert (folder / level_name(0, 3) / "manifest.json").exists()
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before
