"""Plans: what they say, what they refuse, and a hash that new options do not change."""

import dataclasses
import json

import pytest

from topobounds.runs import json_sha256
from torch_bridge.experiment.command import CONFIGS
from torch_bridge.experiment.net_state import layer_tensors
from torch_bridge.experiment.plan import ImpPlan, Pruning
from torch_bridge.experiment.topology_records import check_feasible
from torch_bridge.training.models import build_model
from torch_bridge.training.plan import DataPlan, ModelPlan, Recipe, Seeds

MINIMAL = """
[model]
name = "lenet-300-100"
[data]
name = "mnist"
[recipe]
"""

OTHER = {  # for every key another value that goes with the rest
    "recipe": {
        "epochs": 3, "steps": 7, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.5, "momentum": 0.5,
        "weight_decay": 0.1, "schedule": "cosine", "gamma": 0.5, "warmup": 2, "evaluate_every": 3,
        "precision": "bfloat16", "compile": True,
    },
    "pruning": {
        "method": "t-imp", "rounds": 3, "rate": 0.1, "scope": "global", "output_factor": 0.5,
        "factors": {"layers.0.weight": 0.5}, "on_infeasible": "clamp", "after": "finetune", "rewind_step": 5,
        "stop_below": 0.9,
    },
    "data": {"name": "digits", "validation": 100, "normalization": "standard", "image_size": 32},
    "model": {"name": "lenet-5", "initialization": "glorot"},
    "seeds": {"init": 1, "order": 1, "split": 1, "pruning": 1},
}  # fmt: skip


def tables(**parts):
    base = {"model": {"name": "lenet-300-100"}, "data": {"name": "mnist"}, "recipe": {}}
    return base | {name: base.get(name, {}) | part if isinstance(part, dict) else part for name, part in parts.items()}


def test_defaults_left_out_or_spelt_out_are_one_plan():
    plan = ImpPlan.from_toml(MINIMAL)
    spelt_out = ImpPlan.from_dict(plan.complete())
    assert spelt_out == plan
    assert plan.changed() == {"model": {"name": "lenet-300-100"}, "data": {"name": "mnist"}, "recipe": {}}
    whole = {key: value for key, value in plan.complete().items() if key != "replicates"}
    assert plan.sha256 == spelt_out.sha256 == json_sha256(whole)
    assert dataclasses.replace(plan, replicates=7).sha256 == plan.sha256


def test_a_plan_goes_through_json_and_back():
    plan = ImpPlan.from_dict(tables(pruning={"factors": {"layers.0.weight": 0.25}}, replicates=3, seeds={"order": 4}))
    assert ImpPlan.from_dict(json.loads(json.dumps(plan.changed()))) == plan
    assert plan.complete()["pruning"]["rate"] == 0.2
    assert ImpPlan.from_dict({}).changed() == {}


@pytest.mark.parametrize(("table", "key"), [(table, key) for table, keys in OTHER.items() for key in keys])
def test_every_key_counts(table, key):
    plan = ImpPlan.from_dict(tables(**{table: {key: OTHER[table][key]}}))
    assert plan.sha256 != ImpPlan.from_dict(tables()).sha256
    assert plan.changed()[table][key] == OTHER[table][key]


def test_every_key_is_tested():
    left_out = {  # each needs another key to go with it
        Recipe: {"milestones"},
        Pruning: {"schedule", "density", "finetune_epochs"},
        ModelPlan: {"hidden", "width"},
        DataPlan: set(),
        Seeds: set(),
    }
    for name, kind in ImpPlan.PARTS.items():
        assert {field.name for field in dataclasses.fields(kind)} == set(OTHER[name]) | left_out[kind]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prune": {}}, r"'a key' must be one of .*'pruning'.* not 'prune'"),
        ({"recipe": {"epoch": 3}}, r"'a key of \[recipe\]' must be one of 'epochs', .* not 'epoch'"),
        ({"recipe": 3}, r"'recipe' must be a table, not 3"),
        ({"model": {"name": "alexnet"}}, r"\[model\] Key 'name' must be one of 'mlp', .* not 'alexnet'"),
        ({"model": {"name": "mlp"}}, r"'hidden' must be given with the model 'mlp', and not be empty"),
        ({"model": {"hidden": [3]}}, "'hidden' goes with the model 'mlp', not with 'lenet-300-100'"),
        ({"model": {"name": "mlp", "hidden": 3}}, "'hidden' must be a sequence of positive integers, not 3"),
        ({"model": {"name": "mlp", "hidden": [0]}}, "'hidden' must be a positive integer, not 0"),
        ({"model": {"width": 3}}, "'width' goes with vgg11, resnet-20, lstm, not with lenet-300-100"),
        ({"data": {"name": "auto"}}, "'name' must be one of 'mnist', 'fashion-mnist', 'digits'"),
        ({"data": {"validation": 0}}, "'validation' must be a positive integer"),
        ({"data": {"validation": 1.0}}, "'validation' must be a number of images or a share"),
        ({"recipe": {"epochs": 0}}, "'epochs' must be a positive integer, not 0"),
        ({"recipe": {"optimizer": "lion"}}, "'optimizer' must be one of 'sgd', 'adam', 'adamw'"),
        ({"recipe": {"momentum": 0.9, "optimizer": "adam"}}, "'momentum' goes with the optimizer 'sgd'"),
        ({"recipe": {"schedule": "steps"}}, "'milestones' must be given with the schedule 'steps'"),
        ({"recipe": {"milestones": [0.5]}}, "'milestones' goes with the schedule 'steps', not with 'constant'"),
        (
            {"recipe": {"schedule": "steps", "milestones": [1.5]}},
            r"'milestones' must be a sequence of numbers in \(0, 1\), not 1.5",
        ),
        ({"recipe": {"learning_rate": 0}}, "'learning_rate' must be a positive, finite number, not 0"),
        ({"pruning": {"method": "timp"}}, "'method' must be one of 'imp', 't-imp', 'random', 'shuffled'"),
        ({"pruning": {"rate": 1}}, r"'rate' must be a number in \(0, 1\), not 1"),
        ({"pruning": {"schedule": "linear"}}, "'density' must be given with the schedule 'linear'"),
        ({"pruning": {"density": 0.1}}, "'density' goes with the schedule 'linear'"),
        ({"pruning": {"rewind_step": 5, "after": "finetune"}}, "'rewind_step' goes with after='rewind'"),
        ({"pruning": {"finetune_epochs": 5}}, "'finetune_epochs' goes with after='finetune'"),
        ({"pruning": {"output_factor": 2}}, r"'output_factor' must be a number in \[0, 1\], not 2"),
        ({"pruning": {"scope": "global", "output_factor": 0.5}}, "'output_factor' must be 0 or 1 where all layers"),
        ({"pruning": {"factors": [1]}}, "'factors' must be a mapping"),
        ({"replicates": 0}, "'replicates' must be a positive integer, not 0"),
        ({"recipe": {"compile": 1}}, "'compile' must be true or false, not 1"),
        ({"replicates": 10**9}, "'replicates' must be at most 10000, not 1000000000"),
        ({"pruning": {"rounds": 10**5}}, "'rounds' must be at most 10000, not 100000"),
        ({"pruning": {"rounds": 10**4}, "replicates": 10**4}, "must make at most 100000 levels, .* not 100010000"),
        ({"recipe": {"warmup": 10**400}}, "'warmup' must be at most 2147483647, not 1000"),
        ({"data": {"image_size": 10**400}}, "'image_size' must be at most 2147483647, not 1000"),
        ({"model": {"name": "mlp", "hidden": [10**12]}}, "'hidden' must be at most 2147483647, not 1000000000000"),
        ({"recipe": {"milestones": 5}}, "'milestones' must be a sequence of numbers"),
        ({"recipe": {"learning_rate": float("inf")}}, "'learning_rate' must be a positive, finite number, not inf"),
        ({"recipe": {"weight_decay": float("inf")}}, "'weight_decay' must be a non-negative, finite number, not inf"),
        ({"recipe": {"learning_rate": 10**400}}, "'learning_rate' must be a positive, finite number, not 1000"),
        ({"pruning": {"output_factor": 10**400}}, "'output_factor' must be a number in"),
        ({"seeds": {"order": 2**64}}, "'order' must be at most 18446744073709551615, not 18446744073709551616"),
        ({"seeds": {"init": -1}}, r"\[seeds\] Key 'init' must be a non-negative integer"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ImpPlan.from_dict(tables(**change))


def test_a_whole_number_is_the_same_plan_as_its_float():
    one, other = (
        ImpPlan.from_dict(
            tables(
                recipe={"learning_rate": kind(1), "gamma": kind(1)},
                pruning={"factors": {"a": kind(0)}, "output_factor": kind(0)},
            )
        )
        for kind in (int, float)
    )
    assert one == other
    assert one.sha256 == other.sha256


def test_many_rounds_are_checked_in_one_pass(monkeypatch):
    counted = []
    counts = Pruning.counts
    monkeypatch.setattr(Pruning, "counts", lambda *arguments: counted.append(1) or counts(*arguments))
    layers = layer_tensors(build_model(ModelPlan(name="mlp", hidden=[30, 20]), 8))
    with pytest.raises(ValueError, match=r"^Round 9 leaves layer 'layers\.2\.weight' 27 weights, fewer than .* 29"):
        check_feasible(layers, Pruning(method="t-imp", rounds=1000))
    assert len(counted) == 3


def test_parts_that_need_others():
    with pytest.raises(ValueError, match=r"needs \[data\]"):
        ImpPlan.from_dict({"model": {"name": "lenet-5"}})
    with pytest.raises(ValueError, match=r"Key 'name' of \[data\] must be given"):
        ImpPlan.from_dict({"data": {}})
    with pytest.raises(ValueError, match=r"'rewind_step' needs a \[recipe\]"):
        ImpPlan.from_dict({"pruning": {"rewind_step": 3}})
    with pytest.raises(ValueError, match="'pruning' must be a Pruning, not 'dict'"):
        ImpPlan(pruning={})


def test_files_are_named(tmp_path):
    file = tmp_path / "plan.toml"
    with pytest.raises(ValueError, match=r"plan\.toml could not be read: No such file"):
        ImpPlan.read(file)
    file.write_text("[model\n")
    with pytest.raises(ValueError, match=r"plan\.toml: .*line 1"):
        ImpPlan.read(file)
    file.write_text("a = " + "[" * 10_000)
    with pytest.raises(ValueError, match=r"plan\.toml: This is no plan: its arrays or tables are nested too deeply"):
        ImpPlan.read(file)
    file.write_text(MINIMAL + "epochs = 0\n")
    with pytest.raises(ValueError, match=r"plan\.toml: \[recipe\] Key 'epochs'"):
        ImpPlan.read(file)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.stem)
@pytest.mark.parametrize("method", ["imp", "t-imp"])
def test_the_plans_of_the_package_can_be_met(file, method):
    plan = ImpPlan.read(file)
    side = plan.data.image_size or {"digits": 8}.get(plan.data.name, 28)
    pruning = dataclasses.replace(plan.pruning, method=method)
    check_feasible(layer_tensors(build_model(plan.model, side)), pruning)


def test_a_plan_records_a_method_by_one_name():
    for name, recorded in {"magnitude": "imp", "topological": "t-imp", "imp": "imp", "random": "random"}.items():
        plan = ImpPlan(pruning=Pruning(method=name))
        assert plan.pruning.method == recorded
        assert plan.sha256 == ImpPlan(pruning=Pruning(method=recorded)).sha256
