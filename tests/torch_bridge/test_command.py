"""`topobounds imp` from the outside."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.torch import load_file

from topobounds.cli import main
from topobounds.runs import RunFolder
from torch_bridge.experiment import history, picture
from torch_bridge.experiment.command import _plan
from torch_bridge.experiment.history import level_name
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.experiment.run import run_imp
from torch_bridge.model.devices import processor
from torch_bridge.training.data import load_dataset
from torch_bridge.training.models import mlp

PLAN = """
replicates = 2
[model]
name = "mlp"
hidden = [20, 15]
[data]
name = "digits"
[recipe]
epochs = 1
learning_rate = 0.1
[pruning]
rounds = 2
rate = 0.4
"""


def call(capsys, *arguments):
    """Run the command line in this process; return its status, stdout and stderr."""
    with pytest.raises(SystemExit) as left:
        main(["imp", *map(str, arguments)])
    return left.value.code, *capsys.readouterr()


def refused(capsys, *arguments):
    """Return the one line on stderr of a command that fails."""
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    return err


def table(file):
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("plan") / "plan.toml"
    file.write_text(PLAN)
    return file


@pytest.fixture(scope="module")
def made(plan_file, tmp_path_factory):
    """Return the run folders of IMP and T-IMP, made in this process: each start of torch takes seconds."""
    folders = {method: tmp_path_factory.mktemp(method) / "run" for method in ("imp", "t-imp")}
    for method, folder in folders.items():
        options = ["--out", str(folder), "--device", "cpu", "--jobs", "1"]
        with pytest.raises(SystemExit) as left:
            main(["imp", "run", str(plan_file), "--method", method, *options])
        assert left.value.code == 0
    return folders


# run, resume, status


def test_a_run_is_told_as_json_and_as_a_table(made, plan_file, capsys):
    status, out, err = call(
        capsys, "run", plan_file, "--method", "imp", "--out", made["imp"], "--device", "cpu", "--json"
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["finished"] is True
    assert found["in_use"] is False
    assert (found["levels_done"], found["levels_planned"]) == (6, 6)
    assert found["plan"]["pruning"]["rate"] == 0.4
    assert [level["kept"] for level in found["levels"]] == [1730, 1038, 623] * 2
    assert found["seconds"] < 60
    status, out, _ = call(capsys, "status", made["imp"])
    assert status == 0
    assert "imp of mlp, 6 of 6 levels, finished" in " ".join(out.split())
    assert "0.6000" in out


def test_the_command_makes_what_the_function_makes(made, plan_file, tmp_path):
    plan = ImpPlan.from_toml(PLAN)
    run_imp(plan, tmp_path, device="cpu")
    for file in sorted(tmp_path.glob("replicate*/*")):
        assert file.read_bytes() == (made["imp"] / file.relative_to(tmp_path)).read_bytes()


def test_a_seed_stands_for_all_seeds(plan_file, tmp_path, capsys):
    options = ("--out", tmp_path / "run", "--device", "cpu", "--jobs", 1)
    assert call(capsys, "run", plan_file, "--seed", 7, *options)[0] == 0
    assert RunFolder.open(tmp_path / "run").plan["seeds"] == dict.fromkeys(("init", "order", "split", "pruning"), 7)


def test_resume_makes_what_is_missing(made, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(made["t-imp"], folder)
    for level in (level_name(0, 2), level_name(1, 2)):
        shutil.rmtree(folder / level)
    _, out, _ = call(capsys, "status", folder, "--json")
    assert json.loads(out)["levels_done"] == 4
    assert json.loads(out)["finished"] is False
    status, out, _ = call(capsys, "resume", folder, "--device", "cpu", "--jobs", 1, "--json")
    assert status == 0
    assert json.loads(out)["finished"] is True
    for file in sorted(folder.glob("replicate*/*")):
        assert file.read_bytes() == (made["t-imp"] / file.relative_to(folder)).read_bytes()


START = """
import signal
from topobounds.cli import main
if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not have
    main()
"""


def test_ctrl_c_before_there_is_a_folder_tells_nothing_to_resume(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("torch_bridge.experiment.run.run_imp", interrupted)
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(PLAN)
    with pytest.raises(SystemExit) as left:
        main(["imp", "run", str(plan_file), "--out", str(tmp_path / "run")])
    assert left.value.code == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


@pytest.mark.long
def test_ctrl_c_leaves_the_finished_levels_and_the_checkpoint(tmp_path):
    folder = tmp_path / "run"
    plan_file = tmp_path / "long.toml"
    plan_file.write_text(PLAN.replace("epochs = 1", "epochs = 400"))
    (tmp_path / "start.py").write_text(START)
    command = [sys.executable, str(tmp_path / "start.py"), "imp", "run", str(plan_file), "--out", str(folder)]
    options = ["--device", "cpu", "--checkpoint-seconds", "0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob(".*.checkpoint")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    told, _, said = err.strip().splitlines()
    assert told == f"What is done is kept; this goes on from the last checkpoint: topobounds imp resume {folder}"
    assert said == "Interrupted."
    run = RunFolder.open(folder)
    assert any(run.checkpoint(level_name(replicate, 0)) is not None for replicate in range(2))
    assert not run.is_in_use


def test_importing_the_command_loads_click_and_no_numbers():
    heavy = {"torch", "numpy", "rich", "numba"}
    code = f"import sys, torch_bridge.experiment.command; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.long
def test_levels_are_read_and_drawn_without_torch(made, tmp_path):
    code = """
import sys
from pathlib import Path
from torch_bridge.experiment import history
from torch_bridge.experiment import picture
from torch_bridge.experiment.command import _plan
folder = Path(sys.argv[1])
weights = history.open_run(folder)[0].levels[-1].weights("end")
picture.publish_runs([folder], Path(sys.argv[2]))
print(history.status(folder)["levels_done"], len(weights), "torch" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(made["imp"]), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "6 6 False\n"


def test_a_folder_of_the_name_does_not_hide_a_plan_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _plan("digits").data.name == "digits"


def test_help_names_the_plans(capsys):
    status, out, _ = call(capsys, "run", "--help")
    assert status == 0
    assert "digits, lenet-300-100, paper, resnet-20" in " ".join(out.split())


# plot, export


@pytest.mark.long
def test_plot_draws_several_runs(made, tmp_path, capsys):
    out = tmp_path / "figures"
    status, printed, _ = call(capsys, "plot", made["imp"], made["t-imp"], "--out", out, "--json")
    assert status == 0
    names = [f"imp.{kind}" for kind in ("csv", "json", "pdf", "png", "txt")]
    assert sorted(json.loads(printed)["files"]) == [str(out / name) for name in names]
    rows = table(out / "imp.csv")
    assert len(rows) == 2 * 2 * 3
    assert {row["run"] for row in rows} == {"IMP", "T-IMP"}
    assert "mlp 20-15, scikit-learn digits, rewind, 2 replicates" in (out / "imp.txt").read_text()
    before = (out / "imp.pdf").read_bytes()
    call(capsys, "plot", made["imp"], made["t-imp"], "--out", out)
    assert (out / "imp.pdf").read_bytes() == before
    call(capsys, "plot", made["imp"], made["t-imp"], "--out", out, "--no-caption")
    assert (out / "imp.pdf").read_bytes() != before
    assert "2 replicates" in (out / "imp.txt").read_text()
    runs = json.loads((out / "imp.json").read_text())["provenance"]["runs"]
    assert [facts["processor"] for facts in runs.values()] == [processor()] * 2


def test_the_caption_and_the_table_say_what_the_accuracies_rest_on(made, capsys):
    record = picture.measure([made["imp"], made["t-imp"]])
    caption = picture.caption(record)
    assert "Means over the replicates, and one sample standard deviation to either side." in caption
    assert re.search(r"The choice of 500 test images alone gives an accuracy of 0\.\d{3} a standard error", caption)
    one = picture.caption(picture.measure([made["imp"]], replicates=1))
    assert "One replicate, so no spread is known." in one
    assert "deviation" not in one
    _, printed, _ = call(capsys, "status", made["t-imp"])
    assert "Test accuracy: of 500 images, at the least validation loss." in " ".join(printed.split())
    _, printed, _ = call(capsys, "status", made["t-imp"], "--json")
    assert json.loads(printed)["test_images"] == 500


def test_the_first_experiment_can_carry_its_picture():
    plan = _plan("digits")
    assert plan.replicates >= 5
    assert len(load_dataset("digits").test_labels) >= 500


def test_the_picture_shows_the_numbers(made):
    record = picture.measure([made["imp"]])
    figure = picture.draw(record)
    axes = figure.axes
    assert [ax.get_ylabel() for ax in axes] == list(picture.PANELS.values())
    levels = history.level_records(RunFolder.open(made["imp"]))
    for ax, quantity in zip(axes, picture.PANELS, strict=True):
        (line,) = ax.lines
        np.testing.assert_allclose(line.get_xdata(), [1, 0.6, 623 / 1730], atol=1e-3)
        means = [np.mean([level[quantity] for level in levels if level["level"] == n]) for n in range(3)]
        np.testing.assert_allclose(line.get_ydata(), means)
        assert ax.xaxis_inverted()


def test_only_whole_replicates_are_drawn_together(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made["imp"], folder)
    shutil.rmtree(folder / level_name(1, 2))
    assert picture.measure([folder]).distinct("replicate") == [0]
    shutil.rmtree(folder / level_name(0, 2))
    assert picture.measure([folder]).column("level") == [0, 1]
    assert picture.measure([folder, made["imp"]]).distinct("run") == ["IMP", "IMP (run)"]


def test_export_writes_records_and_plain_weights(made, tmp_path, capsys):
    out = tmp_path / "out"
    status, printed, _ = call(capsys, "export", made["t-imp"], "--out", out)
    assert status == 0
    assert printed.split() == [str(file) for file in (
        out / "levels.csv", out / "layers.csv", *(
            out / f"replicate-{r}.{kind}" for r in range(2) for kind in ("safetensors", "masks.safetensors")
        )
    )]  # fmt: skip
    layers = table(out / "layers.csv")
    assert len(layers) == 6 * 3
    assert list(layers[0])[:4] == ["replicate", "level", "method", "name"]
    assert (layers[0]["name"], layers[0]["shape"], layers[0]["forest_survived"]) == ("layers.0.weight", "20x64", "")
    assert {row["forest_survived"] for row in layers if row["level"] != "0"} == {"1.0"}
    assert len(table(out / "levels.csv")) == 6
    net = mlp((64, 20, 15, 10))
    net.load_state_dict(load_file(out / "replicate-1.safetensors"))
    masks = load_file(out / "replicate-1.masks.safetensors")
    for name, parameter in net.named_parameters():
        if name in masks:
            assert ((parameter != 0) == masks[name]).all()


# refusals


def test_errors_are_one_line(made, plan_file, tmp_path, capsys):
    assert "'PLAN' must be a TOML file or one of digits, " in refused(capsys, "run", "nothing", "--out", tmp_path / "x")
    assert "Missing option '--out'" in refused(capsys, "run", plan_file)
    assert "Argument '--method' must be one of 'imp'" in refused(
        capsys, "run", plan_file, "--method", "magic", "--out", tmp_path / "x"
    )
    nowhere = refused(capsys, "run", "lenet-300-100", "--data-dir", tmp_path / "no", "--out", tmp_path / "x")
    assert "--data-dir" in nowhere
    assert "'--seed'" in refused(capsys, "run", plan_file, "--seed", 2**64, "--out", tmp_path / "x")
    assert "'--checkpoint-seconds'" in refused(
        capsys, "run", plan_file, "--checkpoint-seconds", "nan", "--out", tmp_path / "x"
    )
    assert "'PLAN' must be a TOML file" in refused(capsys, "run", tmp_path, "--out", tmp_path / "x")
    (tmp_path / "empty.toml").write_text("")
    assert "empty.toml: a plan for the command line needs" in refused(
        capsys, "run", tmp_path / "empty.toml", "--out", tmp_path / "x"
    )
    assert not (tmp_path / "x").exists()
    message = refused(capsys, "run", plan_file, "--seed", 1, "--out", made["imp"], "--device", "cpu")
    assert "seeds.init is 0 there and 1 here" in message
    assert "could not be read" in refused(capsys, "status", tmp_path / "nothing")
    assert "could not be read" in refused(capsys, "plot", tmp_path / "nothing", "--out", tmp_path)
    own = run_imp(ImpPlan(), tmp_path / "own", model=lambda: mlp((4, 3)), train_fn=lambda *_: {})
    assert "a net of the caller's own" in refused(capsys, "resume", own.path)
    bare = tmp_path / "bare.toml"
    bare.write_text("replicates = 2\n")
    assert "needs [model], [data] and [recipe]" in refused(capsys, "run", bare, "--out", tmp_path / "x")


def test_brackets_and_dollars_in_the_name_of_a_folder(made, tmp_path, capsys):
    folder = tmp_path / "[a] [z] $x$"
    shutil.copytree(made["imp"], folder)
    _, out, _ = call(capsys, "status", folder)
    assert "[a] [z] $x$: imp of mlp" in " ".join(out.split())
    shutil.copytree(made["imp"], tmp_path / "b" / folder.name)
    call(capsys, "plot", folder, tmp_path / "b" / folder.name, "--out", tmp_path / "out")
    assert f"IMP ({folder.name})" in (tmp_path / "out" / "imp.csv").read_text()


def test_every_run_is_drawn_under_a_name_of_its_own(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = ["a/x", "b/x", "x"]
    for folder in folders:
        shutil.copytree(made["imp"], tmp_path / folder)
    call(capsys, "plot", *folders, "x", "--out", "out")
    rows = [row.split(",")[0] for row in (tmp_path / "out" / "imp.csv").read_text().splitlines()[1:]]
    names = list(dict.fromkeys(rows))
    assert names == ["IMP", "IMP (x)", "IMP (x 2)"]
    assert {rows.count(name) for name in names} == {len(rows) // 3}


def test_folders_that_hold_something_else(tmp_path, capsys):
    run = RunFolder.create(tmp_path / "other", {"epochs": 3})
    assert "holds no IMP experiment" in refused(capsys, "status", run.path)
    empty = RunFolder.create(tmp_path / "empty", ImpPlan.from_toml(PLAN).of_each_replicate)
    assert "no finished level to draw" in refused(capsys, "plot", empty.path, "--out", tmp_path)
    assert "no finished level to export" in refused(capsys, "export", empty.path, "--out", tmp_path)
    with empty.writing("replicate-0.level-00") as level:
        level.append_metrics({"epoch": 1})
    assert "do not end in a summary" in refused(capsys, "status", empty.path)


def test_a_run_of_ones_own_has_a_status_and_a_picture_too(tmp_path, capsys):
    run_imp(ImpPlan(), tmp_path / "own", model=lambda: mlp((30, 20, 10)), train_fn=lambda *_: {"loss": 1.0})
    _, out, _ = call(capsys, "status", tmp_path / "own")
    assert "imp of own net, 6 of 6 levels, finished" in " ".join(out.split())
    figure = picture.draw(picture.measure([tmp_path / "own"]))
    assert [ax.get_ylabel() for ax in figure.axes] == ["overlap", "neural persistence"]
    assert "own net, own data" in picture.caption(picture.measure([tmp_path / "own"]))


def test_a_run_is_a_page(made, tmp_path, capsys):
    page = tmp_path / "run.html"
    with pytest.raises(SystemExit) as left:
        main(["imp", "status", str(made["t-imp"]), "--html", str(page), "--json"])
    assert left.value.code == 0
    levels = json.loads(capsys.readouterr().out)["levels"]
    (found,) = re.findall(r'id="record">(.*?)</script>', page.read_text(), flags=re.DOTALL)
    record = json.loads(found)
    assert [{k: v for k, v in level.items() if k != "name"} for level in record["levels"]] == [
        {k: v for k, v in level.items() if k != "name"} for level in levels
    ]
    assert record["layers"]
    assert all(f'data-value="{level["density"]!r}"' in page.read_text() for level in levels)


def test_two_levels_of_a_run_are_compared(made, capsys):
    levels = sorted(folder for folder in made["t-imp"].iterdir() if folder.name.startswith("replicate-0.level-"))
    with pytest.raises(SystemExit) as left:
        main(["compare", str(levels[0]), str(levels[-1]), "--json", "--seed", "0"])
    assert left.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["layers"]) >= 2
    assert all(layer["density_a"] > layer["density_b"] > 0 for layer in found["layers"])
    assert all(0 <= layer["forest_kept"] <= 1 for layer in found["layers"])
