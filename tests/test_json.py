"""What ``--json`` prints: one object with its schema version, and beside a null the reason."""

import json

import numpy as np
import pytest

from topobounds import RunFolder, architecture
from topobounds._arguments import spelled
from topobounds.cli import main
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.training.plan import ModelPlan

NOT_THERE = {"file", "tensor", "witness", "k", "density", "bound", "seed"}
"""What may be null of a check, whose `reason` says what is to be said: a drawn layer is in no file."""


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    output = capsys.readouterr()
    assert (left.value.code, output.err) == (0, "")
    return output.out


def as_json(capsys, *arguments):
    return json.loads(printed(capsys, *arguments, "--json"))


def unexplained(value, where=""):
    """Return the nulls beside which no reason stands."""
    if isinstance(value, list):
        return [found for place, each in enumerate(value) for found in unexplained(each, f"{where}[{place}]")]
    if not isinstance(value, dict):
        return []
    found = []
    for key, each in value.items():
        if each is None and key != "reason" and not key.endswith("_reason") and key not in NOT_THERE:
            reason = value.get(f"{key}_reason") or value.get("reason")
            found += [] if reason else [f"{where}.{key}"]
        found += unexplained(each, f"{where}.{key}")
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ["overlap", "--m", 6, "--n", 5, "--trials", 0],
        ["overlap", "--m", 6, "--n", 5, "--trials", 1],
        ["overlap", "--m", 6, "--n", 5, "--k", 3, "--density", 0.5, "--exact"],
        ["overlap", "--m", 2**25, "--n", 2**25, "--trials", 0],
        ["compression", "--dense", 6, 5],
        ["compression", "--recurrent", 6],
        ["compression", "--conv", 2, 2, "--kernel", "3", "--input", "8", "--trials", 1],
        ["compression", "--conv", 64, 64, "--kernel", "3x3", "--input", "4096x4096"],
        ["compression", "--conv", 1, 1, "--kernel", "1x1", "--input", "8x8", "--padding", "3"],
        ["verify", "--m", 6, "--n", 5, "--trials", 3],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_beside_every_null_stands_its_reason(capsys, arguments):
    report = as_json(capsys, *arguments)
    assert report["schema_version"] == 1
    assert unexplained(report) == []


def test_what_is_there_has_no_reason_why_it_is_not(capsys):
    report = as_json(capsys, "overlap", "--m", 6, "--n", 5, "--exact", "--density", 0.5, "--seed", 1)
    assert report["exact"] is not None
    assert {report[f"{key}_reason"] for key in ("exact", "monte_carlo", "corollary_3_4")} == {None}


def test_every_object_of_imp_says_its_schema(capsys, tmp_path):
    run = RunFolder.create(tmp_path / "run", ImpPlan().of_each_replicate, extent={"replicates": 1})
    with run.writing("replicate-0.level-00") as level:
        level.save_weights("end", {"a": np.eye(2)})
        level.save_weights("masks", {"a": np.ones((2, 2), bool)})
        summary = {"record": "level", "replicate": 0, "level": 0, "method": "imp", "name": "x", "density": 1.0}
        level.append_metrics(
            summary
            | {"overlap": 1.0, "neural_persistence": 1.0, "test_accuracy": 0.5, "data": None, "device": "cpu"}
            | {"torch": "2"}
        )
    for arguments in (
        ["imp", "plan", "digits"],
        ["imp", "status", run.path],
        ["imp", "export", run.path, "--out", tmp_path / "out"],
        ["imp", "plot", run.path, "--out", tmp_path / "out"],
        ["figures", "table1", "--from-records", "--out", tmp_path / "figures"],
    ):
        assert as_json(capsys, *arguments)["schema_version"] == 1


@pytest.mark.parametrize("spelling", ["resnet20", "resnet-20", "ResNet20", "ResNet_20"])
def test_an_architecture_has_every_spelling_in_every_command(capsys, spelling):
    table = printed(
        capsys, "compression", "--architecture", spelling, "--dataset", "cifar10", "--trials", 1, "--seed", 0
    )
    assert table == printed(
        capsys, "compression", "--architecture", "resnet20", "--dataset", "CIFAR-10", "--trials", 1, "--seed", 0
    )
    assert architecture(spelling, "cifar-10") == architecture("resnet20", "cifar10")
    assert ModelPlan(name=spelling) == ModelPlan(name="resnet-20")
    assert as_json(capsys, "imp", "plan", spelling)["plan"]["model"]["name"] == "resnet-20"


def test_another_name_is_no_spelling():
    assert spelled("resnet", ["resnet-20"]) == "resnet"
    assert spelled(20, ["resnet-20"]) == 20
    assert ModelPlan(name="VGG-11").name == "vgg11"


@pytest.mark.parametrize("name", ["digits", "lenet-300-100", "paper", "resnet-20"])
def test_a_plan_that_comes_with_the_package_is_printed_as_it_is(capsys, tmp_path, name):
    file = tmp_path / "mine.toml"
    file.write_text(printed(capsys, "imp", "plan", name))
    report = as_json(capsys, "imp", "plan", name)
    plan = ImpPlan.read(file)
    assert (plan.complete(), plan.sha256) == (report["plan"], report["sha256"])


def test_a_plan_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["imp", "plan", "mnist"])
    assert capsys.readouterr().err.startswith("Error: Argument 'NAME' must be one of 'digits', ")
