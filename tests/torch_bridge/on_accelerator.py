"""What must hold on a device that is not the CPU; run by `test_accelerator.py`, in a process of its own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.torch_bridge.accelerator import REMOTE, RemoteTensor
from tests.torch_bridge.test_imp import CONV, TINY, contents, plan_of
from tests.torch_bridge.test_prune import ResNet18
from torch_bridge import TopologyLog, TrainingPlan, analyze, topological_, topological_mask
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.experiment.run import run_imp
from torch_bridge.model.stored import PLAIN_TYPES
from torch_bridge.training.figure_nets import train


@pytest.fixture(autouse=True)
def _the_device_is_found(monkeypatch):
    monkeypatch.setattr("torch_bridge.model.stored.PLAIN_TYPES", (*PLAIN_TYPES, RemoteTensor))
    for module in ("experiment.run", "training.figure_nets"):
        monkeypatch.setattr(
            f"torch_bridge.{module}.pick_device", lambda name: torch.device(name.replace("auto", "cpu"))
        )


def same_but_for_the_device(run, other):
    """Assert that two runs are the same: all arrays, and all records but for where they were made."""
    assert [level.name for level in run.levels] == [level.name for level in other.levels]
    for mine, theirs in zip(run.levels, other.levels, strict=True):
        for stem in theirs.weight_files:
            found, expected = mine.weights(stem), theirs.weights(stem)
            assert found.keys() == expected.keys()
            for name in found:
                np.testing.assert_array_equal(found[name], expected[name])
        assert [record | {"device": ""} for record in mine.metrics] == [r | {"device": ""} for r in theirs.metrics]


def test_the_device_is_not_the_cpu():
    there = torch.ones(3, 3).to(REMOTE)
    with pytest.raises(RuntimeError, match=r"add\.Tensor was given a tensor on cpu beside one on remote:0"):
        torch.ones(3, 3) + there
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    with pytest.raises(RuntimeError, match="a tensor on cpu beside one on remote:0"):
        nn.Linear(3, 2).to(REMOTE)(torch.ones(1, 3))
    assert torch.zeros(2, device=REMOTE).device == REMOTE
    assert torch.equal((there + 1).cpu(), 2 * torch.ones(3, 3))


ONCE = {"epochs": 1}
PLANS = {
    "mlp": plan_of(TINY, recipe=ONCE, replicates=2),
    "adam": plan_of(TINY, recipe=ONCE | {"optimizer": "adam", "momentum": 0.0}, pruning={"method": "shuffled"}),
    "reinit": plan_of(TINY, recipe=ONCE, pruning={"after": "reinit", "scope": "global"}),
    "vgg11": plan_of(CONV),
    "lenet-5": plan_of(CONV, model={"name": "lenet-5", "width": None}, pruning={"rounds": 1}),
    "resnet-20": plan_of(CONV, model={"name": "resnet-20"}, recipe={"batch_size": 256}, pruning={"rounds": 1}),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_of_the_command_line(name, tmp_path):
    plan = PLANS[name]
    run, expected = (run_imp(plan, tmp_path / device, device=device) for device in ("remote:0", "cpu"))
    assert run.levels[0].metrics[0]["device"] == "remote:0"
    same_but_for_the_device(run, expected)


def test_a_run_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path):
    plan, calls = plan_of(CONV, recipe={"optimizer": "adam", "momentum": 0.0}), []

    def stop(done, total, message):
        calls.append(done)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_imp(plan, tmp_path / "a", device="remote:0", checkpoint_seconds=0, progress=stop)
        assert list((tmp_path / "a").glob(".*.checkpoint"))
    run = run_imp(plan, tmp_path / "a", device="remote:0", checkpoint_seconds=0)
    whole = run_imp(plan, tmp_path / "b", device="remote:0")
    assert contents(run.path) == contents(whole.path)


def test_a_training_function_that_moves_the_net(tmp_path):
    def there(model, mask, round):
        model.to(REMOTE)
        images, labels = torch.randn(64, 64).to(REMOTE), torch.randint(0, 10, (64,)).to(REMOTE)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        assert mask["0.weight"].device.type == "cpu"  # where the net was when the level began

    def build():
        return nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))

    plan = ImpPlan.from_dict({"pruning": {"method": "t-imp", "rounds": 2, "rate": 0.5}})
    run = run_imp(plan, tmp_path, model=build, train_fn=there)
    for level in run.levels[1:]:
        masks = level.weights("masks")
        assert all(not level.weights("end")[name][~mask].any() for name, mask in masks.items())
        assert all(record["diagram_preserved"] for record in level.metrics if record["record"] == "layer")


def test_a_net_of_ones_own_trained_by_a_recipe(tmp_path):
    def build():
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10), nn.LogSoftmax(1)
        )

    plan = ImpPlan.from_dict({name: TINY[name] for name in ("data", "recipe", "pruning")})
    run, expected = (run_imp(plan, tmp_path / d, model=build, device=d) for d in ("remote:0", "cpu"))
    same_but_for_the_device(run, expected)


def build_conv():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 10))


@pytest.mark.parametrize("kind", ["module", "function"])
def test_a_module_of_ones_own_and_an_example_on_the_cpu(tmp_path, kind):
    torch.manual_seed(0)
    model = build_conv() if kind == "module" else build_conv
    plan = ImpPlan.from_dict({name: TINY[name] for name in ("data", "recipe", "pruning")})
    example = torch.zeros(1, 1, 8, 8)
    run, expected = (
        run_imp(plan, tmp_path / d, model=model, example_input=example, device=d) for d in ("remote:0", "cpu")
    )
    assert run.levels[0].metrics[-1]["alpha"] > run.levels[0].metrics[-1]["critical"]
    same_but_for_the_device(run, expected)


def test_a_net_of_ours_trained_by_a_function_of_ones_own(tmp_path):
    def stay(model, mask, round):
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}

    plan = ImpPlan.from_dict({"model": {"name": "lenet-5"}, "data": {"name": "digits"}, "pruning": {"rounds": 1}})
    assert len(run_imp(plan, tmp_path, train_fn=stay, device="remote:0").levels) == 2


def test_the_nets_of_the_figures(tmp_path):
    plan = TrainingPlan(dataset="digits", trials=1, epochs=2, passes_per_epoch=1)
    run, expected = (train(plan, tmp_path / device, device=device) for device in ("remote:0", "cpu"))
    for mine, theirs in zip(run.levels, expected.levels, strict=True):
        for stem in theirs.weight_files:
            for name, array in theirs.weights(stem).items():
                np.testing.assert_array_equal(mine.weights(stem)[name], array)


def test_masks_and_reports_of_a_model():
    model, example = ResNet18(width=4, classes=10), torch.randn(1, 3, 16, 16)
    other, elsewhere = copy.deepcopy(model).to(REMOTE), example.to(REMOTE)
    assert analyze(other, elsewhere, seed=0).to_dict() == analyze(model, example, seed=0).to_dict()
    for scope in ("local", "global"):
        here, there = topological_(model, 0.3, example_input=example, scope=scope), None
        there = topological_(other, 0.3, example_input=elsewhere, scope=scope)
        assert here.preserved
        assert here.to_dict() == there.to_dict()
    masks = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("_mask")]
    assert len(masks) == 21
    for name, mask in masks:
        assert other.get_buffer(name).device == REMOTE
        assert torch.equal(other.get_buffer(name).cpu(), mask)
    assert TopologyLog(example_input=elsewhere)(other, 0) == TopologyLog(example_input=example)(model, 0)


def test_masks_that_are_computed_where_the_weights_are():
    for weights in (torch.randn(40, 30), torch.randn(40, 30).round(), torch.randn(40, 30).to(torch.bfloat16)):
        survivors = torch.rand(40, 30) < 0.8
        expected = topological_mask(weights, 0.3, survivors)
        found = topological_mask(weights.to(REMOTE), 0.3, survivors.to(REMOTE))
        assert found.device == REMOTE
        assert torch.equal(found.cpu(), expected)
        assert torch.equal(topological_mask(weights.to(REMOTE), 0.3).cpu(), topological_mask(weights, 0.3))
    with pytest.raises(ValueError, match="must be finite, but 1 of its 6 entries"):
        topological_mask(torch.tensor([[1.0, 2.0, torch.nan], [1.0, 1.0, 1.0]]).to(REMOTE), 3)
