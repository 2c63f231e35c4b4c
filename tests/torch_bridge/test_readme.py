"""What the bridge's README shows runs."""

import dataclasses
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from torch import nn

import torch_bridge
from topobounds import LayerReport
from topobounds.runs import RunFolder
from torch_bridge.experiment.command import CONFIGS, imp
from torch_bridge.experiment.plan import ImpPlan

README = Path(torch_bridge.__file__).with_name("README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def block(language):
    return blocks(language)[0]


def test_the_training_function_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block("python"), {})
    levels = RunFolder.open("runs/mine").levels
    assert len(levels) == 4
    for level in levels[1:]:
        layers = [record for record in level.metrics if record["record"] == "layer"]
        assert [layer["diagram_preserved"] for layer in layers] == [True, True]


def test_the_sparsifier(capsys):
    text = blocks("python")[1]
    exec(text, {})
    assert len([line for line in text.splitlines() if line]) <= 12
    assert capsys.readouterr().out == "360 of 1200 left\n"


def test_a_file_pruned(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = [each for each in blocks("python") if "prune_checkpoint" in each]
    exec(text, {})
    assert text.count("\n") <= 12
    assert capsys.readouterr().out == "450 of 1500 left, diagrams kept: True\n"


@pytest.mark.long
def test_hugging_faces_trainer(tmp_path):
    """In a process of its own: what it imports warns."""
    for package in ("transformers", "accelerate"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    (text,) = [each for each in blocks("python") if "TrainingArguments" in each]
    assert len([line for line in text.splitlines() if line]) <= 12
    run = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[119, 78, 62, 60]"


def test_sinks_of_three_loggers():
    """Fakes that refuse what the real ones refuse: no step, no number."""
    seen = []

    def add_scalar(tag, value, global_step):
        seen.append(("tensorboard", tag, float(value), int(global_step)))

    def log_metrics(metrics, step=None):
        seen.extend(("mlflow", key, float(value), int(step)) for key, value in metrics.items())

    def log(record):
        seen.extend(("wandb", key, float(value), record["epoch"]) for key, value in record.items())

    fakes = {
        "writer": SimpleNamespace(add_scalar=add_scalar),
        "wandb": SimpleNamespace(log=log),
        "mlflow": SimpleNamespace(log_metrics=log_metrics),
        "TopologyLog": torch_bridge.TopologyLog,
    }
    (text,) = [each for each in blocks("python") if "wandb" in each]
    exec(text, fakes)
    assert text.count("\n") == 3
    for name in ("tensorboard", "weights_and_biases", "mlflow_"):
        fakes[name](nn.Linear(20, 10), 7)
    for logger in ("tensorboard", "wandb", "mlflow"):
        own = {tag: value for who, tag, value, step in seen if who == logger and step == 7}
        assert "topology/neural_persistence" in own
        assert "topology/weight/overlap_z" in own


def test_the_loop_that_stops_early(capsys):
    exec(blocks("python")[-1], {})
    assert capsys.readouterr().out == "stopped after epoch 6\n"  # an untrained net does not grow after the third


def test_every_column_of_chance_is_explained():
    names = {field.name for field in dataclasses.fields(LayerReport)}
    for row in re.findall(r"^\| (`.*?) \|", README.split("## What chance gives")[1], flags=re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row):
            assert name in names
    chance = {name for name in names if re.search("_(expected|deviation|z|share|range|status)$", name)}
    told = {name for name in chance if f"`{name}`" in README or name.endswith("_deviation_status")}
    assert told == chance


def test_the_plan_is_one():
    plan = ImpPlan.from_toml(block("toml"))
    assert plan.pruning.counts(1000)[-1] == 100


@pytest.mark.parametrize("line", block("console").splitlines())
def test_the_commands_are_there(line):
    program, group, command, *arguments = line.removeprefix("$ ").split()
    assert (program, group) == ("topobounds", "imp")
    options = [word for word in arguments if word.startswith("--")]
    told = CliRunner().invoke(imp, [command, "--help"]).output
    assert all(option in told for option in options)
    if command == "run":
        assert (CONFIGS / f"{arguments[0]}.toml").exists()
