"""Training: the same numbers whatever happens, and nets that learn."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from topobounds._parallel import processor_name
from topobounds.runs import RunError, RunFolder
from torch_bridge.model.devices import pick_device
from torch_bridge.training.data import load_dataset
from torch_bridge.training.figure_nets import TrainingPlan, train
from torch_bridge.training.models import mlp

PLAN = TrainingPlan(dataset="digits", trials=2, epochs=2, hidden=(20,), passes_per_epoch=3, seed=7)


def contents(run):
    return {str(file.relative_to(run.path)): file.read_bytes() for file in sorted(run.path.glob("[!.]*/*"))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(PLAN, tmp_path_factory.mktemp("run"), device="cpu")


# what is written


def test_levels_weights_and_metrics(run):
    assert [level.name for level in run.levels] == ["trial-0", "trial-1"]
    for level in run.levels:
        level.verify()
        assert level.weight_files == ["epoch-00", "epoch-01", "epoch-02"]
        shapes = {name: array.shape for name, array in level.weights("epoch-02").items()}
        assert shapes == {
            "layers.0.bias": (20,),
            "layers.0.weight": (20, 64),
            "layers.1.bias": (10,),
            "layers.1.weight": (10, 20),
        }
        first, *rest = level.metrics
        assert (first["epoch"], first["train_loss"], first["device"]) == (0, None, "cpu")
        assert first["torch"] == torch.__version__
        assert first["processor"] == f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
        assert first["data"]["counts"] == {"train": 1297, "test": 500}
        assert [record["epoch"] for record in rest] == [1, 2]
        assert rest[1]["train_loss"] < rest[0]["train_loss"] < first["test_loss"]


def test_trials_and_seeds_differ(run, tmp_path):
    first, second = (level.weights("epoch-00")["layers.0.weight"] for level in run.levels)
    assert not np.array_equal(first, second)
    other = train(TrainingPlan(**{**vars(PLAN), "seed": 8, "trials": 1, "epochs": 1}), tmp_path, device="cpu")
    assert not np.array_equal(first, other.levels[0].weights("epoch-00")["layers.0.weight"])


def test_a_trial_depends_on_its_seed_and_number_alone(run, tmp_path):
    shorter = train(TrainingPlan(**{**vars(PLAN), "trials": 1, "epochs": 1}), tmp_path, device="cpu")
    for stem in ("epoch-00", "epoch-01"):
        for name, array in shorter.levels[0].weights(stem).items():
            np.testing.assert_array_equal(array, run.levels[0].weights(stem)[name])


def test_more_trials_go_into_the_same_folder_and_train_only_what_is_missing(tmp_path):
    plans = [TrainingPlan(**{**vars(PLAN), "trials": trials, "epochs": 1}) for trials in (1, 2)]
    assert plans[0].name == plans[1].name
    train(plans[0], tmp_path, device="cpu")
    manifest = tmp_path / "trial-0" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    assert [level.name for level in train(plans[1], tmp_path, device="cpu").levels] == ["trial-0", "trial-1"]
    assert manifest.stat().st_mtime_ns == before


def test_the_initialisation_is_the_default_of_pytorch(run):
    for name, array in run.levels[0].weights("epoch-00").items():
        bound = 1 / np.sqrt(64 if ".0." in name else 20)
        assert np.abs(array).max() <= bound
        if array.size > 100:
            assert np.abs(array).max() > 0.95 * bound
            assert array.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_pass_is_what_a_plain_pytorch_loop_does(tmp_path, momentum):
    plan = TrainingPlan(dataset="digits", trials=1, epochs=1, hidden=(20,), passes_per_epoch=1, momentum=momentum)
    level = train(plan, tmp_path, device="cpu").levels[0]
    net = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10), nn.LogSoftmax(dim=1))
    net.load_state_dict(dict(zip(net.state_dict(), by_depth(level.weights("epoch-00")), strict=True)))
    data = load_dataset("digits")
    inputs = (torch.tensor(data.train_images) / 16 - 0.5) / 0.5
    order = np.random.default_rng(np.random.SeedSequence([0, 0]).spawn(2)[1]).permutation(1297)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=momentum)
    for start in range(0, 1297, 64):
        batch = order[start : start + 64]
        optimizer.zero_grad()
        functional.nll_loss(net(inputs[batch]), torch.tensor(data.train_labels[batch]).long()).backward()
        optimizer.step()
    for mine, theirs in zip(by_depth(level.weights("epoch-01")), net.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def by_depth(weights):
    """Weight before bias, as torch lists them."""
    names = sorted(weights, key=lambda name: (name.split(".")[1], name.endswith("bias")))
    return [torch.tensor(weights[name]) for name in names]


def test_nets_learn(tmp_path):
    plan = TrainingPlan(dataset="digits", trials=1, epochs=2, hidden=(100,), passes_per_epoch=20)
    first, _, last = train(plan, tmp_path, device="cpu").levels[0].metrics
    assert first["test_accuracy"] < 0.3
    assert last["test_accuracy"] > 0.8
    assert last["train_loss"] < 0.7


@pytest.mark.long
def test_mnist(data_dir, tmp_path):
    plan = TrainingPlan(dataset="mnist", trials=1, epochs=2)
    level = train(plan, tmp_path, data_dir=data_dir, device="cpu").levels[0]
    assert [array.shape for name, array in level.weights("epoch-02").items() if name.endswith(".weight")] == [
        (100, 784), *[(100, 100)] * 4, (10, 100),
    ]  # fmt: skip
    assert level.metrics[2]["train_loss"] < level.metrics[1]["train_loss"] < 2.31


# the same numbers


@pytest.mark.long
def test_trials_in_processes_are_the_same_bytes(tmp_path):
    plan, heard = TrainingPlan(dataset="digits", trials=2, epochs=2, hidden=(5,), passes_per_epoch=1), []
    whole = train(plan, tmp_path / "a", device="cpu")
    run = train(plan, tmp_path / "b", device="cpu", jobs=2, progress=lambda *call: heard.append(call))
    for mine, theirs in zip(run.levels, whole.levels, strict=True):
        assert mine.manifest == theirs.manifest
    assert heard[-1][:2] == (4, 4)
    with pytest.raises(ValueError, match="Argument 'jobs' must be a positive integer, not 0"):
        train(plan, tmp_path / "c", device="cpu", jobs=0)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_global_state_do_not_matter_and_are_left_alone(run, tmp_path, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(threads)
    np.random.seed(threads)  # noqa: NPY002 -- the global state is what is tested
    state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    try:
        again = train(PLAN, tmp_path, device="cpu")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert contents(again) == contents(run)
    torch.testing.assert_close(torch.get_rng_state(), state[0], rtol=0, atol=0)
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


@pytest.mark.long
def test_a_killed_run_goes_on_and_ends_in_the_same_numbers(tmp_path):
    plan = TrainingPlan(dataset="digits", trials=3, epochs=4, hidden=(20,), passes_per_epoch=3)
    code = f"from torch_bridge.training.figure_nets import *; train({plan!r}, sys.argv[1], device='cpu')"
    killed = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", f"import sys; {code}", str(killed)]) as process:
        wait_for(killed / ".trial-1.partial" / "epoch-02.safetensors", process)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(RunError, match=f"in use by another process .process {process.pid}."):
            train(plan, killed, device="cpu")
        process.send_signal(signal.SIGKILL)
    left = RunFolder.open(killed)
    assert [level.name for level in left.levels] == ["trial-0"]
    finished = (killed / "trial-0" / "manifest.json").stat()
    calls = []
    train(plan, killed, device="cpu", progress=lambda *call: calls.append(call))
    assert (killed / "trial-0" / "manifest.json").stat() == finished
    assert [call[:2] for call in calls] == [(done, 12) for done in range(5, 13)]
    assert calls[0][2].startswith("trial 2 of 3, epoch 1: test accuracy 0.")
    assert contents(left) == contents(train(plan, tmp_path / "whole", device="cpu"))


def wait_for(file, process):
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_finished_run_is_not_trained_again_and_needs_no_data(run, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    monkeypatch.setattr("torch_bridge.training.figure_nets.load_dataset", None)
    train(PLAN, run.path, device="cpu", progress=lambda *call: pytest.fail(str(call)))
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before


def test_an_exception_in_the_callback_loses_the_trial_only(tmp_path):
    def stop(done, total, message):
        if done == 3:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        train(PLAN, tmp_path, device="cpu", progress=stop)
    assert [level.name for level in RunFolder.open(tmp_path).levels] == ["trial-0"]
    assert torch.get_num_threads() == threads


# refusals


def test_another_plan_in_the_folder_is_refused(run):
    with pytest.raises(RunError, match=r"another plan: learning_rate is 0\.01 there and 0\.1 here\.$"):
        train(TrainingPlan(**{**vars(PLAN), "learning_rate": 0.1}), run.path, device="cpu")


def test_other_data_than_the_first_trials_is_refused(tmp_path, monkeypatch):
    def stop(done, total, message):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(PLAN, tmp_path, device="cpu", progress=stop)
    monkeypatch.setattr("torch_bridge.training.data.DIGITS_SEED", 1)
    with pytest.raises(RunError, match="trial-0 was trained on other data than the digits given now"):
        train(PLAN, tmp_path, device="cpu")


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="Argument 'device' must be one of 'auto', 'cpu', 'cuda', not 'tpu'"):
        pick_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"Argument 'device' .*finds no CUDA device.*not 'cuda'"):
        train(PLAN, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_starts_from_the_same_weights_and_learns_alike(run, tmp_path):
    again = train(PLAN, tmp_path, device="cuda")
    for mine, theirs in zip(again.levels, run.levels, strict=True):
        for name, array in mine.weights("epoch-00").items():
            np.testing.assert_array_equal(array, theirs.weights("epoch-00")[name])
        for name, array in mine.weights("epoch-02").items():
            np.testing.assert_allclose(array, theirs.weights("epoch-02")[name], atol=1e-2)
        assert mine.metrics[0]["device"] != "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "auto"}, "'dataset' must be one of 'mnist', 'fashion-mnist', 'digits', not 'auto'"),
        ({"trials": 0}, "'trials' must be a positive integer, not 0"),
        ({"epochs": 2.0}, "'epochs' must be a positive integer, not 2.0"),
        ({"seed": -1}, "'seed' must be a non-negative integer, not -1"),
        ({"hidden": (3, 0)}, "'hidden' must be a positive integer, not 0"),
        ({"batch_size": 0}, "'batch_size' must be a positive integer"),
        ({"learning_rate": 0}, "'learning_rate' must be a positive number, not 0"),
        ({"learning_rate": float("nan")}, "'learning_rate' must be a positive number, not nan"),
        ({"momentum": 1.0}, r"'momentum' must be a number in \[0, 1\), not 1.0"),
        ({"passes_per_epoch": 0}, "'passes_per_epoch' must be a positive integer, not 0"),
    ],
)
def test_plans_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingPlan(**{"dataset": "digits", **change})


def test_the_paper_is_the_default():
    plan = TrainingPlan(dataset="mnist")
    assert (plan.trials, plan.epochs, plan.hidden, plan.batch_size) == (5, 20, (100,) * 5, 64)
    assert (plan.learning_rate, plan.momentum, plan.passes_per_epoch) == (0.01, 0.0, 1)
    assert TrainingPlan(dataset="digits").passes_per_epoch == 20
    assert plan.name != TrainingPlan(dataset="mnist", learning_rate=0.02).name
    assert plan == TrainingPlan(dataset="mnist", hidden=[100] * 5)


def test_the_net():
    net = mlp((3, 4, 2))
    assert list(net.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    inputs = torch.randn(5, 3)
    plain = nn.Sequential(net.layers[0], nn.ReLU(), net.layers[1], nn.LogSoftmax(dim=1))
    torch.testing.assert_close(net(inputs), plain(inputs))
    with pytest.raises(ValueError, match="'widths' must be at least two numbers"):
        mlp((3,))
    with pytest.raises(ValueError, match="'widths' must be a positive integer, not 0"):
        mlp((3, 0))
