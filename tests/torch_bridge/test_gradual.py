"""T-IMP during training: the schedule, exact counts, and the callbacks of trainers, one real and two faked."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from topobounds import cubic_schedule
from topobounds.pruning import linear_schedule
from torch_bridge import GradualPruning


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def net():
    return nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 6))


def kept(report):
    return [layer.kept for layer in report.layers]


@pytest.mark.parametrize("front", ["prune", "parametrize"])
def test_pruned_weights_stay_zero_while_training_goes_on(front):
    model, x = net(), torch.randn(16, 40)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    pruning = GradualPruning(0.1, every=5, rounds=4, front=front)
    for step in range(1, 31):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        pruning(model, step)
        model(x)
        left = int((model[0].weight != 0).sum())
        assert left == (cubic_schedule(2000, 0.1, 4)[min(step // 5, 4) - 1] if step >= 5 else 2000)
    assert [kept(report)[0] for report in pruning.reports] == list(cubic_schedule(2000, 0.1, 4))
    assert kept(pruning.reports[-1])[1] == 55  # its tree: 30 were asked for
    assert all(report.preserved for report in pruning.reports)
    copy.deepcopy(pruning)


def test_the_global_scope_and_rounds_that_were_missed():
    model = net()
    pruning = GradualPruning(0.25, every=10, rounds=4, begin=0, schedule="linear", scope="global")
    assert sum(kept(pruning(model, 0))) == linear_schedule(2300, 0.25, 4)[0]
    assert pruning(model, 9) is None
    assert sum(kept(pruning(model, 25))) == linear_schedule(2300, 0.25, 4)[2]
    assert len(pruning.reports) == 3
    assert sum(kept(pruning(model, 1000))) == 575
    assert pruning(model, 1001) is None


def test_calls_are_counted_where_no_step_is_told():
    model, pruning = net(), GradualPruning(0.5, every=2, rounds=1, schedule="geometric")
    assert [pruning(model) is None for _ in range(4)] == [True, False, True, True]


def test_weights_that_are_shared_are_pruned_once():
    model = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    model[1].weight = model[0].weight
    for scope in ("local", "global"):
        twin = copy.deepcopy(model)
        report = GradualPruning(0.5, every=1, rounds=1, scope=scope)(twin, 1)
        assert kept(report) == [450, 450]


def test_hugging_faces_trainer_calls_it():
    callbacks = pytest.importorskip("transformers.trainer_callback")
    model, pruning = net(), GradualPruning(0.5, every=2, rounds=2)
    handler = callbacks.CallbackHandler([pruning], model, None, None, None)
    state, control = callbacks.TrainerState(), callbacks.TrainerControl()
    args = SimpleNamespace()
    handler.on_init_end(args, state, control)
    handler.on_train_begin(args, state, control)
    for step in range(1, 6):
        state.global_step = step
        handler.on_step_begin(args, state, control)
        handler.on_step_end(args, state, control)
    handler.on_train_end(args, state, control)
    assert [kept(report)[0] for report in pruning.reports] == [1125, 1000]


def test_lightnings_trainer_calls_it():
    model, pruning = net(), GradualPruning(0.5, every=2, rounds=2)
    for step in range(1, 6):
        pruning.on_train_batch_end(SimpleNamespace(global_step=step), model, None, None, step - 1)
    assert [kept(report)[0] for report in pruning.reports] == [1125, 1000]


@pytest.mark.parametrize(
    "arguments",
    [
        {"density": 0},
        {"every": 0},
        {"rounds": 0},
        {"begin": -1},
        {"schedule": "steep"},
        {"scope": "all"},
        {"front": "hooks"},
        {"on_infeasible": "share"},
    ],
)
def test_what_it_refuses(arguments):
    with pytest.raises(ValueError, match="must be"):
        GradualPruning(**{"density": 0.5, "every": 1, "rounds": 1, **arguments})


def test_what_is_no_event_is_no_attribute():
    with pytest.raises(AttributeError):
        GradualPruning(0.5, every=1, rounds=1).state_dict  # noqa: B018
