"""IMP: exact counts, nothing leaks, and the same bytes however often it is killed."""

import copy
import dataclasses
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from topobounds import effective_density, overlap_null, topology_price
from topobounds.runs import RunError, RunFolder
from topobounds.runs import level as run_level
from topobounds.topology.layer_topology import layer_topology
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import maximum_spanning_forest
from torch_bridge.experiment.history import level_name, status
from torch_bridge.experiment.net_state import layer_tensors, masked_steps
from torch_bridge.experiment.plan import ImpPlan, Pruning
from torch_bridge.experiment.run import run_imp
from torch_bridge.model.devices import processor
from torch_bridge.training.data import load_dataset
from torch_bridge.training.seeding import generator_seed

TINY = {
    "model": {"name": "mlp", "hidden": [20, 15]},
    "data": {"name": "digits"},
    "recipe": {"epochs": 2, "learning_rate": 0.1, "momentum": 0.9},
    "pruning": {"rounds": 2, "rate": 0.5},
}
CONV = {
    "model": {"name": "vgg11", "width": 2},
    "data": {"name": "digits"},
    "recipe": {
        "epochs": 1, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-2, "batch_size": 128,
        "schedule": "cosine", "warmup": 3, "evaluate_every": 5,
    },
    "pruning": {"method": "t-imp", "rounds": 2, "rate": 0.3, "scope": "global", "rewind_step": 4},
}  # fmt: skip


def plan_of(base, **parts):
    """Return a plan: the tables of `base`, with the keys of `parts` put over theirs."""
    tables = {name: base[name] | parts.pop(name, {}) for name in base}
    return ImpPlan.from_dict(tables | parts)


def contents(folder):
    """Return the bytes of all finished levels, and of nothing hidden."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(Path(folder).glob("[!.]*/*"))}


def layers_of(level):
    return [record for record in level.metrics if record["record"] == "layer"]


def evaluations(level):
    return [record for record in level.metrics if record["record"] == "evaluation"]


# what is written


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return run_imp(plan_of(TINY, replicates=2), tmp_path_factory.mktemp("tiny"), device="cpu")


def test_levels_files_and_records(tiny):
    assert [level.name for level in tiny.levels] == [level_name(r, n) for r in range(2) for n in range(3)]
    for level in tiny.levels:
        level.verify()
        assert level.weight_files == ["end", "masks", "start"]
        kinds = [record["record"] for record in level.metrics]
        assert kinds == ["start", *["evaluation"] * 3, *["layer"] * 3, "level"]
        assert [record["step"] for record in evaluations(level)] == [0, 19, 38]
        assert [record["name"] for record in layers_of(level)] == [f"layers.{i}.weight" for i in range(3)]
        assert set(level.weights("masks")) == {f"layers.{i}.weight" for i in range(3)}
        assert level.metrics[0]["data"]["name"] == "digits"
        assert level.metrics[0]["processor"] == processor()
    assert evaluations(tiny.level(level_name(0, 0)))[-1]["validation_accuracy"] > 0.5


def test_replicates_differ_and_each_depends_on_its_number_alone(tiny, tmp_path):
    first, second = (tiny.level(level_name(r, 0)).weights("start")["layers.0.weight"] for r in range(2))
    assert not np.array_equal(first, second)
    alone = run_imp(plan_of(TINY), tmp_path, device="cpu")
    for level in alone.levels:
        for stem in level.weight_files:
            for name, array in level.weights(stem).items():
                np.testing.assert_array_equal(array, tiny.level(level.name).weights(stem)[name])


@pytest.mark.long
def test_replicates_in_processes_are_the_same_bytes(tiny, tmp_path):
    heard = []
    plan = plan_of(TINY, replicates=2)
    run = run_imp(plan, tmp_path, device="cpu", jobs=2, progress=lambda *call: heard.append(call))
    assert contents(run.path) == contents(tiny.path)
    assert heard[-1][:2] == (228, 228)
    assert {message.split(",")[0] for *_, message in heard} == {"replicate 1 of 2", "replicate 2 of 2"}


def test_more_replicates_can_be_added_to_a_finished_run(tiny, tmp_path):
    run_imp(plan_of(TINY), tmp_path, device="cpu")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("replicate*/*")}
    heard = []
    run = run_imp(plan_of(TINY, replicates=2), tmp_path, device="cpu", progress=lambda *call: heard.append(call))
    assert contents(run.path) == contents(tiny.path)
    assert all(file.stat().st_mtime_ns == changed for file, changed in before.items())
    assert (heard[0][:2], heard[-1][:2]) == ((133, 228), (228, 228))
    assert run_imp(plan_of(TINY), tmp_path, device="cpu").extent == {"replicates": 2}


def test_the_start_and_the_order_have_seeds_of_their_own(tiny, tmp_path):
    starts, ends = [], []
    for seeds in ({}, {"init": 1}, {"order": 1}):
        run = run_imp(plan_of(TINY, seeds=seeds, pruning={"rounds": 1}), tmp_path / str(seeds), device="cpu")
        starts.append(run.levels[0].weights("start")["layers.0.weight"])
        ends.append(run.levels[0].weights("end")["layers.0.weight"])
    np.testing.assert_array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(ends[0], ends[2])


def test_accuracy_is_taken_at_the_least_validation_loss_and_at_the_end(tmp_path):
    plan = plan_of(TINY, recipe={"epochs": 6, "learning_rate": 1.5}, pruning={"rounds": 1})
    level = run_imp(plan, tmp_path, device="cpu").levels[0]
    found, summary = evaluations(level), level.metrics[-1]
    best = min(found, key=lambda record: record["validation_loss"])
    assert best["step"] not in (0, found[-1]["step"])  # else there is nothing to choose
    assert summary["best_step"] == best["step"]
    for key in ("validation_loss", "validation_accuracy", "test_accuracy"):
        assert summary[key] == best[key]
        assert summary[f"{key}_at_end"] == found[-1][key]


def test_test_images_choose_nothing(tmp_path, monkeypatch):
    plan = plan_of(TINY, pruning={"rounds": 1})
    run = run_imp(plan, tmp_path / "a", device="cpu")
    data = load_dataset("digits")
    scrambled = dataclasses.replace(data, test_labels=(data.test_labels + 1) % 10)
    monkeypatch.setattr("torch_bridge.experiment.run.load_dataset", lambda *_, **__: scrambled)
    other = run_imp(plan, tmp_path / "b", device="cpu")
    for mine, theirs in zip(run.levels, other.levels, strict=True):
        for stem in mine.weight_files:
            for name, array in mine.weights(stem).items():
                np.testing.assert_array_equal(array, theirs.weights(stem)[name])
        assert mine.metrics[-1]["best_step"] == theirs.metrics[-1]["best_step"]
        assert mine.metrics[-1]["test_accuracy"] != theirs.metrics[-1]["test_accuracy"]


# counts


def integer_counts(n_weights, numerator, denominator, rounds):
    """Return what a geometric schedule leaves, in integers: nearest, halves to even."""
    counts, left = [], n_weights
    for _ in range(rounds):
        whole, rest = divmod(left * numerator, denominator)
        left = whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))
        counts.append(left)
    return counts


@pytest.mark.parametrize("method", ["imp", "t-imp", "random", "shuffled"])
@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_every_level_keeps_the_exact_count(tmp_path, method, schedule):
    change = {"rate": 0.3, "output_factor": 0.5} if schedule == "geometric" else {"schedule": "linear", "density": 0.3}
    plan = plan_of(TINY, recipe={"steps": 3}, pruning={"method": method, "rounds": 3, "rate": 0.3, **change})
    run = run_imp(plan, tmp_path, device="cpu")
    for place, (name, weights) in enumerate({"0": 1280, "1": 300, "2": 150}.items()):
        if schedule == "geometric":
            expected = integer_counts(weights, *((85, 100) if place == 2 else (7, 10)), 3)
        else:
            expected = [round(weights - weights * Fraction(7, 10) * r / 3) for r in (1, 2, 3)]
        masks = [level.weights("masks")[f"layers.{name}.weight"] for level in run.levels]
        assert [int(mask.sum()) for mask in masks] == [weights, *expected]
        for earlier, later in itertools.pairwise(masks):
            assert not (later & ~earlier).any()


@pytest.mark.parametrize("method", ["imp", "t-imp", "random", "shuffled"])
def test_global_counts_are_exact_over_the_layers(tmp_path, method):
    plan = plan_of(TINY, recipe={"steps": 3}, pruning={"method": method, "rate": 0.3, "scope": "global"})
    run = run_imp(plan, tmp_path, device="cpu")
    kept = [sum(int(mask.sum()) for mask in level.weights("masks").values()) for level in run.levels]
    assert kept == [1730, *integer_counts(1730, 7, 10, 2)]
    assert [level.metrics[-1]["kept"] for level in run.levels] == kept


def test_a_factor_of_zero_leaves_a_layer_dense(tmp_path):
    plan = plan_of(TINY, recipe={"steps": 2}, pruning={"scope": "global", "factors": {"layers.0.weight": 0}})
    masks = run_imp(plan, tmp_path, device="cpu").levels[-1].weights("masks")
    assert masks["layers.0.weight"].all()
    assert masks["layers.1.weight"].sum() + masks["layers.2.weight"].sum() == integer_counts(450, 1, 2, 2)[-1]


def test_shuffled_has_the_counts_of_t_imp_at_other_places(tmp_path):
    masks = {}
    for method in ("t-imp", "shuffled"):
        plan = plan_of(TINY, pruning={"method": method, "rounds": 1, "scope": "global"})
        masks[method] = run_imp(plan, tmp_path / method, device="cpu").levels[-1].weights("masks")
    for name, mask in masks["t-imp"].items():
        assert mask.sum() == masks["shuffled"][name].sum()
        assert not np.array_equal(mask, masks["shuffled"][name])


def test_imp_keeps_the_largest(tiny):
    dense, pruned = tiny.level(level_name(0, 0)), tiny.level(level_name(0, 1))
    for name, mask in pruned.weights("masks").items():
        magnitudes = np.abs(dense.weights("end")[name])
        assert magnitudes[mask].min() > magnitudes[~mask].max()


# topology


@pytest.mark.parametrize("after", ["rewind", "finetune"])
def test_t_imp_preserves_every_diagram_at_every_pruning(tmp_path, after):
    plan = plan_of(TINY, pruning={"method": "t-imp", "rounds": 3, "rate": 0.4, "output_factor": 0.5, "after": after})
    run = run_imp(plan, tmp_path, device="cpu")
    for before, level in itertools.pairwise(run.levels):
        weights, old, new = before.weights("end"), before.weights("masks"), level.weights("masks")
        for record in layers_of(level):
            name = record["name"]
            assert record["kept"] < record["kept"] + record["pruned"]
            for zeros in ("absent", "edge"):
                one, other = (
                    persistence_diagram(np.where(mask[name], weights[name], 0), zeros=zeros) for mask in (old, new)
                )
                np.testing.assert_array_equal(one.deaths, other.deaths)
                assert (one.w_max, one.n_essential) == (other.w_max, other.n_essential)
            assert record["diagram_preserved"] is True
            assert record["forest_survived"] == 1.0
            assert record["neural_persistence_before_pruning"] == record["neural_persistence_after_pruning"]


@pytest.mark.parametrize("method", ["imp", "t-imp", "shuffled"])
@pytest.mark.parametrize("after", ["rewind", "finetune"])
def test_a_level_measures_two_topologies_a_layer_and_reads_the_level_before_once(tmp_path, monkeypatch, method, after):
    measured, read = [], []

    def counted_topology(layer, weights, mask):
        measured.append(layer.name)
        return layer_topology(layer, weights, mask)

    def counted_weights(level, stem):
        read.append((level.name, stem))
        return stored_weights(level, stem)

    stored_weights = run_level.Level.weights
    monkeypatch.setattr("torch_bridge.experiment.topology_records.layer_topology", counted_topology)
    monkeypatch.setattr(run_level.Level, "weights", counted_weights)
    options = {"method": method, "rounds": 2, "rate": 0.2, "after": after}
    plan = ImpPlan(pruning=Pruning(**options))
    run = run_imp(plan, tmp_path / "run", model=small_net, train_fn=unchanged)
    layers = ["0.weight", "2.weight"]
    assert sorted(measured) == sorted(layers * (1 + 2 * plan.pruning.rounds))
    dense = [(level_name(0, 0), "start")] * (after == "rewind")
    before = [[(level_name(0, level), "end"), (level_name(0, level), "masks")] for level in range(2)]
    assert read == [*before[0], *dense, *before[1], *dense]
    shutil.rmtree(run.path / level_name(0, 2))
    measured.clear()
    again = run_imp(plan, run.path, model=small_net, train_fn=unchanged)
    assert sorted(measured) == sorted(layers * 3)  # the level before was made by another call
    assert [layers_of(level) for level in again.levels] == [layers_of(level) for level in run.levels]


def small_net():
    return nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 6))


def unchanged(model, mask, level):
    return {}


def test_levels_say_what_chance_gives_and_what_t_imp_costs(tiny):
    before, level = tiny.level(level_name(0, 1)), tiny.level(level_name(0, 2))
    for record in layers_of(level):
        name = record["name"]
        old, new = before.weights("masks")[name], level.weights("masks")[name]
        price = topology_price(before.weights("end")[name], record["kept"], old, expected=False)
        assert record["swaps"] == price.swaps
        assert record["squared_weight_lost"] == pytest.approx(price.squared_weight_lost, rel=1e-9, abs=1e-12)
        weights = level.weights("end")[name]
        null = overlap_null(weights, mask=new, trials=20, seed=0)
        assert record["overlap_expected"] in null.expected
        assert record["overlap_z"] == pytest.approx(null.z, rel=1e-9)
        assert (record["overlap_status"], record["overlap_trials"], record["overlap_seed"]) == ("sampled", 20, 0)
        deficit = maximum_spanning_forest(weights.T, new.T).deficit()
        assert record["silent_inputs"] == deficit.silent_inputs
        assert (record["silent_outputs"], record["fragments"]) == (deficit.silent_outputs, deficit.fragments)
    assert all("swaps" not in record for record in layers_of(tiny.level(level_name(0, 0))))


def test_pruning_by_effective_weights_says_what_a_cut_tie_left_dead(tmp_path):
    plan = ImpPlan(pruning=Pruning(method="effective", scope="global", rounds=3, rate=0.5))
    run = run_imp(plan, tmp_path, model=small_net, train_fn=unchanged, example_input=torch.zeros(1, 12))
    for level in run.levels:
        masks = level.weights("masks")
        kept = [masks[name].T for name in ("0.weight", "2.weight")]
        n_kept, n_weights = sum(int(mask.sum()) for mask in kept), sum(mask.size for mask in kept)
        alive = round(effective_density(kept) * n_weights)
        assert level.metrics[-1]["dead_connections"] == n_kept - alive
    assert [level.metrics[-1]["kept"] for level in run.levels] == [180, *plan.pruning.counts(180)]


class Skip(nn.Module):
    """Two layers on one input, added."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.a(x) + self.b(x)


def pooled_net():
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (small_net, None, "without example_input it is not known what layer feeds what"),
        (Skip, torch.zeros(1, 6), "'b.weight' is not called once on the neurons that the one before feeds"),
        (pooled_net, torch.zeros(1, 1, 8), "unless layers are in a row: this reads 6 neurons, not 12"),
    ],
)
def test_pruning_by_effective_weights_needs_layers_in_a_row(tmp_path, model, example, message):
    plan = ImpPlan(pruning=Pruning(method="effective", scope="global"))
    with pytest.raises(ValueError, match=message):
        run_imp(plan, tmp_path / "run", model=model, train_fn=unchanged, example_input=example)
    assert not (tmp_path / "run").exists()


def test_the_audit_is_that_of_the_forests(tiny):
    before, level = tiny.level(level_name(0, 1)), tiny.level(level_name(0, 2))
    lost = []
    for record in layers_of(level):
        name, old = record["name"], before.weights("masks")
        forest = maximum_spanning_forest(level.weights("end")[name], level.weights("masks")[name])
        assert (record["alpha"], record["critical"]) == (forest.alpha, forest.alpha)
        assert record["components"] == forest.n_components
        assert record["overlap"] == forest.overlap()
        earlier = maximum_spanning_forest(before.weights("end")[name], old[name])
        edges, now = (set(zip(f.rows.tolist(), f.cols.tolist(), strict=True)) for f in (earlier, forest))
        kept = {edge for edge in edges if level.weights("masks")[name][edge]}
        assert record["forest_survived"] == len(kept) / len(edges)
        assert record["forest_persisted"] == len(edges & now) / len(edges)
        mask = level.weights("masks")[name]
        assert record["dead_outputs"] == sum(not row.any() for row in mask)
        assert record["dead_inputs"] == sum(not column.any() for column in mask.T)
        assert record["density"] == mask.mean()
        lost.append(record["forest_survived"] < 1)
    assert any(lost)  # magnitude pruning to a quarter cuts the forest somewhere


def test_too_few_weights_for_t_imp_are_refused_before_training_or_clamped(tmp_path):
    change = {"method": "t-imp", "rounds": 4, "rate": 0.5}
    with pytest.raises(ValueError, match=r"Round 3 leaves layer 'layers\.2\.weight' 19 weights.*alpha = 24.*clamp"):
        run_imp(plan_of(TINY, pruning=change), tmp_path / "raise", device="cpu")
    assert not (tmp_path / "raise").exists()  # so that the plan can be mended
    run = run_imp(
        plan_of(TINY, recipe={"steps": 2}, pruning={**change, "on_infeasible": "clamp"}),
        tmp_path / "clamp",
        device="cpu",
    )
    kept = [int(level.weights("masks")["layers.2.weight"].sum()) for level in run.levels]
    assert kept == [150, 75, 38, 24, 24]


# no leaks


def test_pruned_weights_stay_exactly_zero(tmp_path):
    for optimizer in ({"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adamw"}):
        recipe = {"momentum": 0.0, **optimizer, "weight_decay": 0.1, "learning_rate": 0.01}
        run = run_imp(plan_of(TINY, recipe=recipe, pruning={"after": "finetune"}), tmp_path / str(recipe), device="cpu")
        for level in run.levels:
            for stem in ("start", "end"):
                weights = level.weights(stem)
                for name, mask in level.weights("masks").items():
                    pruned = weights[name][~mask]
                    assert pruned.tobytes() == bytes(pruned.nbytes)  # not even -0.0
                    assert (weights[name][mask] != 0).all()


def test_a_rewind_goes_back_to_the_initialisation(tiny):
    dense = tiny.level(level_name(0, 0)).weights("start")
    for number in (1, 2):
        level = tiny.level(level_name(0, number))
        for name, array in level.weights("start").items():
            mask = level.weights("masks").get(name, True)
            np.testing.assert_array_equal(array, np.where(mask, dense[name], 0))


def test_a_rewind_takes_batch_norm_and_the_schedule_along(tmp_path):
    run = run_imp(plan_of(CONV), tmp_path, device="cpu")
    early, late = run.levels[0].weights("rewind"), run.levels[0].weights("end")
    for level in run.levels[1:]:
        start = level.weights("start")
        for name, array in start.items():
            np.testing.assert_array_equal(array, np.where(level.weights("masks").get(name, True), early[name], 0))
        assert int(start["norms.0.num_batches_tracked"]) == 4
        assert int(level.weights("end")["norms.0.num_batches_tracked"]) == 10
        assert not np.array_equal(start["norms.0.running_mean"], late["norms.0.running_mean"])
        assert [record["step"] for record in evaluations(level)] == [4, 5, 10]


def test_a_level_is_what_a_plain_pytorch_loop_does_with_a_new_optimiser(tmp_path):
    recipe = {"epochs": 1, "weight_decay": 1e-2, "schedule": "steps", "milestones": [0.5]}
    run = run_imp(plan_of(TINY, recipe=recipe, pruning={"after": "lr-rewind"}), tmp_path, device="cpu")
    start, end, masks = (run.levels[1].weights(stem) for stem in ("start", "end", "masks"))
    net = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 10), nn.LogSoftmax(1))
    names = [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    parameters = dict(zip(names, net.parameters(), strict=True))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(start[name]))
    images, labels = training_images()
    order = np.random.default_rng(generator_seed(0, "order", 0, 1, 0)).permutation(len(labels))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for step, batch in enumerate(np.split(order, range(64, len(order), 64))):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 9.5 else 0.01
        optimizer.zero_grad()
        functional.nll_loss(net(images[batch]), labels[batch]).backward()
        optimizer.step()
        for name, mask in masks.items():
            parameters[name].data[~torch.tensor(mask)] = 0
    for name, parameter in parameters.items():
        torch.testing.assert_close(torch.tensor(end[name]), parameter.data, rtol=1e-3, atol=1e-5)


def training_images():
    data = load_dataset("digits")
    held_out = np.random.default_rng(generator_seed(0, "split")).permutation(1297)[:130]
    left = np.setdiff1d(np.arange(1297), held_out)
    return (torch.tensor(data.train_images[left]) / 16 - 0.5) / 0.5, torch.tensor(data.train_labels[left]).long()


def test_after_pruning(tmp_path):
    starts, dense = {}, None
    for after in ("rewind", "finetune", "lr-rewind", "reinit"):
        recipe = {"schedule": "steps", "milestones": [0.5], "gamma": 0.5}
        run = run_imp(
            plan_of(TINY, recipe=recipe, pruning={"after": after, "rounds": 1}), tmp_path / after, device="cpu"
        )
        starts[after], mask = (run.levels[1].weights(stem)["layers.0.weight"] for stem in ("start", "masks"))
        dense = {stem: run.levels[0].weights(stem)["layers.0.weight"] for stem in ("start", "end")}
    np.testing.assert_array_equal(starts["rewind"], np.where(mask, dense["start"], 0))
    np.testing.assert_array_equal(starts["finetune"], np.where(mask, dense["end"], 0))
    np.testing.assert_array_equal(starts["lr-rewind"], starts["finetune"])
    assert ((starts["reinit"] != 0) == mask).all()
    assert not (starts["reinit"] == dense["start"])[mask].any()


# killed and resumed

FORKS = multiprocessing.get_context("forkserver")


def run_in_child(tables, folder, ready):
    os.environ["OMP_NUM_THREADS"] = "1"
    ready.set()
    run_imp(ImpPlan.from_dict(tables), folder, device="cpu", checkpoint_seconds=0.02)


def kill_at_random(tables, folder, longest, moments):
    """Start the run and kill it -9 at a random moment of up to `longest` seconds; return whether it was too late."""
    FORKS.set_forkserver_preload(["tests.torch_bridge.test_imp"])
    ready = FORKS.Event()
    child = FORKS.Process(target=run_in_child, args=(tables, folder, ready))
    child.start()
    assert ready.wait(60)
    time.sleep(moments.uniform(0, longest))
    child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == 0


@pytest.mark.long
def test_killed_with_its_processes_it_ends_in_the_same_bytes(tiny, tmp_path):
    command = [
        sys.executable,
        "-m",
        "topobounds",
        "imp",
        "run",
        str(tmp_path / "plan.toml"),
        "--out",
        str(tmp_path / "run"),
    ]
    (tmp_path / "plan.toml").write_text(
        "replicates = 2\n[model]\nname = 'mlp'\nhidden = [20, 15]\n[data]\nname = 'digits'\n"
        "[recipe]\nepochs = 2\nlearning_rate = 0.1\nmomentum = 0.9\n[pruning]\nrounds = 2\nrate = 0.5\n"
    )
    with subprocess.Popen([*command, "--device", "cpu", "--jobs", "2", "--checkpoint-seconds", "0"]) as caller:
        while len(list((tmp_path / "run").glob("replicate-?.level-00"))) < 2:
            assert caller.poll() is None
            time.sleep(0.01)
        caller.kill()
    again = run_imp(ImpPlan.from_toml((tmp_path / "plan.toml").read_text()), tmp_path / "run", device="cpu")
    assert contents(again.path) == contents(tiny.path)


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(3, 1, marks=pytest.mark.long), pytest.param(20, 2, marks=pytest.mark.attack)]
)
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path, kills, seed):
    plan, started = plan_of(CONV, replicates=2), time.monotonic()
    whole = contents(run_imp(plan, tmp_path / "whole", device="cpu").path)
    longest, moments = (time.monotonic() - started) / 3, random.Random(seed)
    folder = tmp_path / "killed-0"
    while kills:
        if kill_at_random(plan.changed(), folder, longest, moments):
            assert contents(folder) == whole
            folder = tmp_path / f"killed-{kills}"
        else:
            kills -= 1
    assert contents(run_imp(plan, folder, device="cpu").path) == whole
    assert not list(folder.glob(".*.checkpoint"))


def test_an_interrupted_level_goes_on_from_its_checkpoint(tmp_path):
    plan, seen = plan_of(CONV, recipe={"epochs": 2}), []

    def stop(done, total, message):
        seen.append((done, total, message))
        if done == 20 + 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_imp(plan, tmp_path / "a", device="cpu", checkpoint_seconds=0, progress=stop)
    run = RunFolder.open(tmp_path / "a")
    assert [level.name for level in run.levels] == [level_name(0, 0)]
    assert run.checkpoint(level_name(0, 1)) is not None
    before = len(seen)
    run_imp(plan, tmp_path / "a", device="cpu", progress=lambda *call: seen.append(call))
    assert seen[before][0] == seen[before - 1][0]  # the step before was the last that was kept
    assert seen[-1][:2] == (20 + 2 * 16, 20 + 2 * 16)
    whole = run_imp(plan, tmp_path / "b", device="cpu")
    assert contents(run.path) == contents(whole.path)


def test_a_checkpoint_made_from_other_data_is_refused(tmp_path, monkeypatch):
    plan = plan_of(TINY)

    def stop(done, total, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_imp(plan, tmp_path, device="cpu", checkpoint_seconds=0, progress=stop)
    monkeypatch.setattr("torch_bridge.training.data.DIGITS_SEED", 1)
    with pytest.raises(RunError, match=r"checkpoint of replicate-0\.level-00 in .* was made from other data"):
        run_imp(plan, tmp_path, device="cpu")


def interrupted(plan, folder, **own):
    """Make a run up to its first evaluation, with a checkpoint."""

    def stop(done, total, message):
        if list(Path(folder).glob(".*.checkpoint")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_imp(plan, folder, device="cpu", checkpoint_seconds=0, progress=stop, **own)


def test_a_checkpoint_made_by_another_plan_or_of_another_net_or_level_is_refused(tmp_path):
    message = r"checkpoint of replicate-0\.level-0\d in .* another plan or another net"
    interrupted(plan_of(TINY), tmp_path / "plan")
    (tmp_path / "plan" / "plan.json").unlink()
    with pytest.raises(RunError, match=message):
        run_imp(plan_of(TINY, recipe={"learning_rate": 0.05}), tmp_path / "plan", device="cpu")

    plan = ImpPlan.from_dict({"data": TINY["data"], "recipe": TINY["recipe"], "pruning": {"rounds": 1}})

    def net(kind):
        return lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 20), kind(), nn.Linear(20, 10))

    interrupted(plan, tmp_path / "net", model=net(nn.ReLU))
    with pytest.raises(RunError, match=message):
        run_imp(plan, tmp_path / "net", model=net(nn.Tanh), device="cpu")
    assert len(run_imp(plan, tmp_path / "net", model=net(nn.ReLU), device="cpu").levels) == 2

    interrupted(plan_of(TINY), tmp_path / "level")
    level = tmp_path / "level" / f".{level_name(0, 0)}.checkpoint"
    kept = level.read_bytes()
    run_imp(plan_of(TINY), tmp_path / "level", device="cpu")
    shutil.rmtree(tmp_path / "level" / level_name(0, 2))
    level.with_name(f".{level_name(0, 2)}.checkpoint").write_bytes(kept)
    with pytest.raises(RunError, match=message):
        run_imp(plan_of(TINY), tmp_path / "level", device="cpu")


class Drops(nn.Module):
    """Leaves out images by generators other than torch's."""

    def forward(self, x):
        if not self.training:
            return x
        return x * random.choice([0.5, 2.0]) * (np.random.rand() < 0.8)  # noqa: NPY002 -- as callers do


def test_a_net_that_draws_from_other_generators_resumes_to_the_same_bytes(tmp_path):
    plan = ImpPlan.from_dict({"data": TINY["data"], "recipe": TINY["recipe"], "pruning": {"rounds": 1}})

    def net():
        return nn.Sequential(nn.Flatten(), Drops(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))

    interrupted(plan, tmp_path / "a", model=net)
    resumed = run_imp(plan, tmp_path / "a", model=net, device="cpu")
    assert contents(resumed.path) == contents(run_imp(plan, tmp_path / "b", model=net, device="cpu").path)


@pytest.mark.parametrize("change", ["swapped", "copied"])
def test_levels_that_were_moved_or_copied_are_refused(tiny, tmp_path, change):
    folder = shutil.copytree(tiny.path, tmp_path / "run")
    first, second = folder / level_name(0, 1), folder / level_name(0, 2)
    shutil.rmtree(second)
    if change == "swapped":
        first.rename(second)
    else:
        shutil.copytree(first, folder / f"{first.name}.bak")
    for read in (status, lambda path: run_imp(plan_of(TINY, replicates=2), path, device="cpu")):
        with pytest.raises(RunError, match=rf"was made as the level '{level_name(0, 1)}': a copy, or renamed"):
            read(folder)


def test_a_finished_run_is_checked_whole(tiny, tmp_path):
    folder = shutil.copytree(tiny.path, tmp_path / "run")
    end = folder / level_name(0, 1) / "end.safetensors"
    content = end.read_bytes()
    end.write_bytes(content[:1000])
    for read in (status, lambda path: run_imp(plan_of(TINY, replicates=2), path, device="cpu")):
        with pytest.raises(RunError, match=r"end\.safetensors is damaged: it ends at byte 1000 of"):
            read(folder)
    end.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"end\.safetensors is damaged: it was altered"):
        run_imp(plan_of(TINY, replicates=2), folder, device="cpu")


def test_what_was_left_of_checkpoints_goes_when_a_finished_run_is_opened(tmp_path):
    run = run_imp(plan_of(TINY), tmp_path, device="cpu")
    for left in (f".{level_name(0, 2)}.checkpoint", f".{level_name(0, 1)}.checkpoint.partial"):
        (run.path / left).write_bytes(b"left")
    run_imp(plan_of(TINY), tmp_path, device="cpu")
    assert not list(run.path.glob(".*checkpoint*"))


def test_a_damaged_checkpoint_costs_the_level_and_nothing_else(tmp_path):
    plan = plan_of(CONV, pruning={"rounds": 1})

    def stop(done, total, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_imp(plan, tmp_path / "a", device="cpu", checkpoint_seconds=0, progress=stop)
    (checkpoint,) = (tmp_path / "a").glob(".*.checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    run = run_imp(plan, tmp_path / "a", device="cpu")
    assert contents(run.path) == contents(run_imp(plan, tmp_path / "b", device="cpu").path)


def test_a_finished_run_is_not_touched_and_needs_no_data(tiny, monkeypatch):
    before = {file: file.stat().st_mtime_ns for file in tiny.path.rglob("*")}
    monkeypatch.setattr("torch_bridge.experiment.run.load_dataset", None)
    run_imp(plan_of(TINY, replicates=2), tiny.path, device="cpu")
    assert {file: file.stat().st_mtime_ns for file in tiny.path.rglob("*")} == before


def test_threads_and_global_state_do_not_matter_and_are_left_alone(tiny, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    try:
        again = run_imp(plan_of(TINY, replicates=2), tmp_path, device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert contents(again.path) == contents(tiny.path)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


# refusals


def test_another_plan_is_refused_with_both_values(tiny):
    before = contents(tiny.path)
    other = plan_of(TINY, replicates=2, recipe={"epochs": 3, "weight_decay": 0.5})
    with pytest.raises(RunError) as error:
        run_imp(other, tiny.path, device="cpu")
    assert "recipe.epochs is 2 there and 3 here; recipe.weight_decay is 0.0 there and 0.5 here." in str(error.value)
    assert contents(tiny.path) == before


def test_a_truncated_level_is_named_and_the_others_are_intact(tmp_path):
    plan = plan_of(TINY)
    run_imp(plan, tmp_path, device="cpu")
    for number in (2,):
        (tmp_path / level_name(0, number) / "manifest.json").unlink()
    end = tmp_path / level_name(0, 1) / "end.safetensors"
    whole = end.read_bytes()
    end.write_bytes(whole[:-7])
    dense = contents(tmp_path / level_name(0, 0))
    with pytest.raises(
        RunError, match=r"level-01/end\.safetensors is damaged: it ends at byte \d+ of \d+, inside tensor"
    ):
        run_imp(plan, tmp_path, device="cpu")
    assert contents(tmp_path / level_name(0, 0)) == dense
    end.write_bytes(whole)
    assert len(run_imp(plan, tmp_path, device="cpu").levels) == 3


def test_a_second_process_is_refused(tmp_path):
    plan = plan_of(TINY)
    run = RunFolder.create(tmp_path, plan.of_each_replicate)
    assert not run.is_in_use
    other = RunFolder.open(tmp_path)
    with other.locked():
        assert run.is_in_use
        with pytest.raises(RunError, match=f"in use by another process .process {os.getpid()}."):
            run_imp(plan, tmp_path, device="cpu")
    assert not run.is_in_use


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run could not be made: Not a directory"):
        run_imp(plan_of(TINY), tmp_path / "file" / "run", device="cpu")
    run = RunFolder.create(tmp_path / "run", plan_of(TINY).of_each_replicate)
    (run.path / ".lock").unlink()
    (run.path / ".lock").mkdir()  # as good as read-only, also for root
    with pytest.raises(RunError, match=r"\.lock could not be locked"):
        run_imp(plan_of(TINY), run.path, device="cpu")


def test_a_plan_that_rewinds_beyond_its_training_claims_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"^Argument 'rewind_step' must be less than the \d+ steps of the dense level"):
        run_imp(plan_of(TINY, pruning={"rewind_step": 10**6}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    assert run_imp(plan_of(TINY), tmp_path / "run", device="cpu").levels


def test_rounds_end_with_the_first_level_below_the_target_accuracy(tmp_path):
    whole = run_imp(plan_of(TINY), tmp_path / "whole", device="cpu")
    accuracies = [level.metrics[-1]["validation_accuracy"] for level in whole.levels]
    target = float(np.nextafter(accuracies[0], 1))  # which the dense level misses already
    plan = plan_of(TINY, pruning={"stop_below": target})
    stopped = run_imp(plan, tmp_path / "stopped", device="cpu")
    assert [level.name for level in stopped.levels] == [level_name(0, 0)]
    assert status(stopped.path)["finished"]
    assert len(run_imp(plan, stopped.path, device="cpu").levels) == 1  # nothing is missing
    easy = plan_of(TINY, pruning={"stop_below": min(accuracies)})
    assert len(run_imp(easy, tmp_path / "easy", device="cpu").levels) == len(accuracies)


def test_a_target_accuracy_needs_a_recipe():
    with pytest.raises(ValueError, match=r"^Argument 'stop_below' needs a \[recipe\]"):
        ImpPlan(pruning=Pruning(stop_below=0.9))


def test_a_full_disk_leaves_the_levels_before_intact(tmp_path, monkeypatch):
    plan, writes = plan_of(TINY), []
    whole = run_imp(plan, tmp_path / "whole", device="cpu")
    write = run_level.write_new_file

    def full(file, content):
        writes.append(file)
        if len(writes) > 5:
            raise OSError(28, "No space left on device")
        write(file, content)

    monkeypatch.setattr(run_level, "write_new_file", full)
    with pytest.raises(RunError, match="No space left on device"):
        run_imp(plan, tmp_path / "a", device="cpu")
    monkeypatch.undo()
    left = RunFolder.open(tmp_path / "a").levels
    assert left
    for level in left:
        level.verify()
    assert contents(run_imp(plan, tmp_path / "a", device="cpu").path) == contents(whole.path)


def test_other_data_is_refused(tmp_path, monkeypatch):
    plan = plan_of(TINY, pruning={"rounds": 1})
    run = run_imp(plan, tmp_path, device="cpu")
    (run.path / level_name(0, 1) / "manifest.json").unlink()
    monkeypatch.setattr("torch_bridge.training.data.DIGITS_SEED", 1)
    with pytest.raises(RunError, match="level-00 was made from other data than the digits given now"):
        run_imp(plan, tmp_path, device="cpu")


def test_training_that_diverged_is_told_with_its_level(tmp_path):
    plan = plan_of(TINY, recipe={"learning_rate": 1e30})
    told = (
        r"^replicate-0\.level-00: Training diverged: \d+ of the 1280 weights left of layer 'layers\.0\.weight' are NaN"
    )
    with pytest.raises(ValueError, match=told):
        run_imp(plan, tmp_path, device="cpu")


# another device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_starts_alike_prunes_alike_and_learns_alike(tiny, tmp_path):
    again = run_imp(plan_of(TINY, replicates=2), tmp_path, device="cuda")
    for mine, theirs in zip(again.levels, tiny.levels, strict=True):
        if mine.name.endswith("00"):
            for name, array in mine.weights("start").items():
                np.testing.assert_array_equal(array, theirs.weights("start")[name])
        assert mine.metrics[-1]["kept"] == theirs.metrics[-1]["kept"]
        assert abs(mine.metrics[-1]["test_accuracy"] - theirs.metrics[-1]["test_accuracy"]) < 0.2
        assert mine.metrics[0]["device"] != "cpu"
        weights, masks = mine.weights("end"), mine.weights("masks")
        assert not any(weights[name][~mask].any() for name, mask in masks.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_goes_on_from_a_checkpoint_in_half_precision(tmp_path):
    plan = plan_of(CONV, recipe={"precision": "bfloat16"})

    def stop(done, total, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_imp(plan, tmp_path, device="cuda", checkpoint_seconds=0, progress=stop)
    assert len(run_imp(plan, tmp_path, device="cuda").levels) == 3


def test_half_precision_trains_too(tmp_path):
    level = run_imp(plan_of(CONV, recipe={"precision": "bfloat16"}), tmp_path, device="cpu").levels[-1]
    assert {array.dtype for name, array in level.weights("end").items() if "conv" in name} == {np.dtype(np.float32)}
    losses = [record["train_loss"] for record in evaluations(level) if record["train_loss"]]
    assert losses[-1] < losses[0]


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_net_learns_alike_and_goes_on_from_its_checkpoint(tiny, tmp_path):
    plan = plan_of(TINY, recipe={"compile": True}, pruning={"rounds": 1})

    def stop(done, total, message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_imp(plan, tmp_path / "a", device="cpu", checkpoint_seconds=0, progress=stop)
    run, whole = (run_imp(plan, tmp_path / name, device="cpu") for name in ("a", "b"))
    assert contents(run.path) == contents(whole.path)
    for mine, theirs in zip(run.levels, tiny.levels, strict=False):
        for name, array in mine.weights("end").items():
            np.testing.assert_allclose(array, theirs.weights("end")[name], atol=1e-4)


def test_a_net_that_cannot_be_compiled_is_told_in_one_line(tmp_path, monkeypatch):
    def broken(net, **options):
        def fail(*_):
            raise type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})(
                "\nNo compiler here\nmore"
            )

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        ValueError, match=r"'compile' must be false where torch.compile fails \(No compiler here\), not True"
    ):
        run_imp(plan_of(TINY, recipe={"compile": True}), tmp_path, device="cpu")


def test_a_precision_that_torch_cannot_compute_in_is_refused_before_training(tmp_path):
    class Fussy(nn.Linear):
        def forward(self, x):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("could not create a primitive descriptor.\nmore")
            return super().forward(x)

    tables = {"data": TINY["data"], "recipe": {"precision": "bfloat16"}}
    message = (
        r"'precision' must be 'float32' for this net on cpu \(torch: could not create a primitive descriptor\), not"
    )
    with pytest.raises(ValueError, match=message):
        run_imp(
            ImpPlan.from_dict(tables), tmp_path, model=lambda: nn.Sequential(nn.Flatten(), Fussy(64, 10)), device="cpu"
        )
    assert not list(tmp_path.iterdir())


# a net and a training function of the caller's own


def build():
    return nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Dropout(0.2), nn.Linear(30, 10))


def plain_training(model, mask, round):
    """Train as anybody does who has never heard of masks."""
    data = load_dataset("digits")
    images = torch.tensor(data.train_images[:512] / 16.0, dtype=torch.float32)
    labels = torch.tensor(data.train_labels[:512]).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for start in torch.randperm(16):
        batch = slice(32 * start, 32 * start + 32)
        optimizer.zero_grad()
        functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            if name in mask:
                assert not parameter[~mask[name]].any()
    return {"test_accuracy": 0.5 + round / 100, "density": float(mask["0.weight"].float().mean())}


def test_a_training_function_of_ones_own(tmp_path):
    plan = ImpPlan.from_dict({"pruning": {"method": "t-imp", "rounds": 2, "rate": 0.5}})
    run = run_imp(plan, tmp_path / "a", model=build, train_fn=plain_training)
    assert [level.metrics[-1]["test_accuracy"] for level in run.levels] == [0.5, 0.51, 0.52]
    assert [level.metrics[1]["density"] for level in run.levels] == [1, 0.5, 0.25]
    for level in run.levels[1:]:
        assert all(record["diagram_preserved"] for record in layers_of(level))
        for name, mask in level.weights("masks").items():
            assert not level.weights("end")[name][~mask].any()
    again = run_imp(plan, tmp_path / "b", model=build, train_fn=plain_training)
    assert contents(again.path) == contents(run.path)


def test_a_training_function_may_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def train(model, mask, round):
        os.chdir("/")

    run = run_imp(ImpPlan.from_dict({"pruning": {"rounds": 1}}), "here", model=build, train_fn=train)
    assert [level.path.parent for level in run.levels] == [tmp_path / "here"] * 2


def test_copies_of_a_module_of_ones_own_are_trained_and_it_is_left_as_it_is(tmp_path):
    net = build()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for method in ("imp", "t-imp"):
        plan = ImpPlan.from_dict({"pruning": {"method": method, "rounds": 1, "rate": 0.5}})
        run = run_imp(plan, tmp_path / method, model=net, train_fn=plain_training)
        np.testing.assert_array_equal(run.levels[0].weights("start")["0.weight"], before["0.weight"])
        assert int((run.levels[1].weights("end")["0.weight"] != 0).sum()) == 960
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training


def test_nothing_of_a_level_leaks_into_the_next(tmp_path):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = build(), 0
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x):
            self.calls += 1
            self.seen += 1
            return self.net(x)

    def careless(model, mask, round):
        assert model.training
        assert model.seen == int(model.calls) == 0
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        assert not model._forward_hooks
        model(torch.ones(2, 64)).sum().backward()
        model.register_forward_hook(lambda *_: None)
        model.net[3].requires_grad_(False)
        return {"random": random.random(), "numpy": np.random.rand()}  # noqa: NPY002 -- as callers do

    plan = ImpPlan.from_dict({"pruning": {"rounds": 2, "rate": 0.5}})
    run = run_imp(plan, tmp_path / "a", model=Counting(), train_fn=lambda *a: (careless(*a), a[0].eval())[0])
    drawn = [(level.metrics[1]["random"], level.metrics[1]["numpy"]) for level in run.levels]
    assert len(set(drawn)) == 3
    again = run_imp(plan, tmp_path / "b", model=Counting(), train_fn=careless)
    assert [(level.metrics[1]["random"], level.metrics[1]["numpy"]) for level in again.levels] == drawn


SHARED = build()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: SHARED, "'model' must be a function that returns a new net each time"),
        (lambda: 3, "'model' must be a net or a function that returns one, not 'int'"),
        (nn.LazyLinear(4), r"'model' must be a net whose state is tensors of real numbers, 'weight' too, not 'Un"),
        (nn.Sequential(nn.Linear(3, 3), nn.ParameterList([torch.zeros(2, dtype=torch.complex64)])), r"'1\.0' too, not"),
        (prune.l1_unstructured(nn.Linear(3, 3), "weight", 2), "'model' must be a net that can be copied"),
        (
            lambda: prune.l1_unstructured(nn.Linear(3, 3), "weight", 2),
            "Layer 'weight' is pruned by torch.nn.utils.",
        ),
    ],
)
def test_nets_that_cannot_be_used_are_refused(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        run_imp(ImpPlan.from_dict({"replicates": 1}), tmp_path, model=model, train_fn=lambda *_: None)


def by_hand(model, mask, round):
    images, labels = torch.randn(64, 64), torch.randint(0, 10, (64,))
    functional.cross_entropy(model(images), labels).backward()
    for parameter in model.parameters():
        parameter.data -= 0.1 * parameter.grad


def with_lbfgs(model, mask, round):
    images, labels = torch.randn(64, 64), torch.randint(0, 10, (64,))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=30)

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return {"loss": functional.cross_entropy(model.eval()(images), labels).item()}


def test_training_by_hand_and_optimisers_that_mix_coordinates_see_the_pruned_net(tmp_path):
    plan = ImpPlan.from_dict({"pruning": {"rounds": 2, "rate": 0.7}})
    net = nn.Sequential(nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 10))
    for level in run_imp(plan, tmp_path / "a", model=net, train_fn=by_hand).levels:
        assert all(not level.weights("end")[name][~mask].any() for name, mask in level.weights("masks").items())
    run = run_imp(plan, tmp_path / "b", model=net, train_fn=with_lbfgs)
    assert run.levels[1].metrics[1]["loss"] < 0.1  # 64 images learnt by heart with 670 weights


def a_copy(model, mask, round):
    other = copy.deepcopy(model)
    by_hand(other, mask, round)
    model.load_state_dict(other.state_dict())


def another_parameter(model, mask, round):
    model[0].weight = nn.Parameter(torch.ones(30, 64))


def pruned_by_torch(model, mask, round):
    prune.l1_unstructured(model[0], "weight", 1)


@pytest.mark.parametrize(
    ("train_fn", "message"),
    [
        (a_copy, r"level-01: Argument 'train_fn' must leave pruned weights at zero, but 960 of '0\.weight' are not"),
        (another_parameter, r"level-01: Argument 'train_fn' must leave pruned weights at zero, but 960 of '0\.weight'"),
        (pruned_by_torch, r"level-00: Argument 'train_fn' must leave .* parameters as they are; '0\.weight' is gone"),
        (
            lambda *_: {"a": {1, 2}},
            r"'train_fn' must be a function .* that JSON can hold, not 'a = \{1, 2\}'",
        ),
        (lambda *_: {"test_accuracy": "high"}, "'train_fn' must be .* 'test_accuracy' a number, not 'high'"),
    ],
)
def test_what_a_training_function_must_not_do(tmp_path, train_fn, message):
    plan = ImpPlan.from_dict({"pruning": {"rounds": 1, "rate": 0.5}})
    with pytest.raises(ValueError, match=message):
        run_imp(plan, tmp_path, model=build(), train_fn=train_fn)


def test_an_optimiser_of_another_net_is_refused(tmp_path):
    net = build()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train_fn(model, mask, round):
        model(torch.ones(2, 64)).sum().backward()
        optimizer.step()

    with pytest.raises(ValueError, match="'train_fn' must make its optimiser for the net that it is given"):
        run_imp(ImpPlan.from_dict({}), tmp_path, model=net, train_fn=train_fn)


def test_metrics_of_any_kind_and_masks_that_are_changed(tmp_path):
    def train_fn(model, mask, round):
        for each in mask.values():
            each.fill_(True)
        return {"record": "mine", "a": np.float32(0.5), "b": torch.tensor([1, 2]), "c": float("nan"), "d": None}

    plan = ImpPlan.from_dict({"pruning": {"rounds": 2, "rate": 0.5}})
    run = run_imp(plan, tmp_path, model=build, train_fn=train_fn)
    assert [level.metrics[-1]["kept"] for level in run.levels] == [2220, 1110, 555]
    expected = {"record": "training", "a": 0.5, "b": [1, 2], "c": None, "d": None}
    assert [level.metrics[1] for level in run.levels] == [expected] * 3


def test_weights_that_layers_share_start_masked_under_both_names(tmp_path):
    def tied():
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10))
        net[2].weight = net[0].weight
        return net

    seen = []

    def train_fn(model, mask, round):
        seen.append({name: int((parameter != 0).sum()) for name, parameter in model.named_parameters() if name in mask})

    run = run_imp(ImpPlan.from_dict({"pruning": {"rounds": 1, "rate": 0.9}}), tmp_path, model=tied, train_fn=train_fn)
    assert seen[1] == {"0.weight": 410, "3.weight": 64}
    start = run.levels[1].weights("start")
    np.testing.assert_array_equal(start["0.weight"], start["2.weight"])


def test_what_is_not_pruned_is_recorded(tmp_path):
    net = nn.Sequential(nn.Embedding(9, 4), parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    run = run_imp(ImpPlan.from_dict({}), tmp_path, model=net, train_fn=lambda *_: None)
    assert run.levels[0].metrics[0]["left_alone"] == {
        "0.weight": "embeddings are not pruned",
        "1.weight": "it is computed from other parameters",
    }


def test_another_net_or_a_forgotten_example_is_refused_at_resumption(tmp_path):
    def net(channels=4):
        return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.Flatten(), nn.Linear(64 * channels, 10))

    plan, example = ImpPlan.from_dict({"pruning": {"rounds": 1}}), torch.zeros(1, 1, 8, 8)
    run = run_imp(plan, tmp_path, model=net, train_fn=lambda *_: None, example_input=example)
    shutil.rmtree(run.level(level_name(0, 1)).path)
    with pytest.raises(
        RunError, match=r"'0\.weight' is 4x1x3x3 \(shared graphs, inputs 8x8\) there and 4x1x3x3 \(dense "
    ):
        run_imp(plan, tmp_path, model=net, train_fn=lambda *_: None)
    with pytest.raises(RunError, match=r"level-00 was made with other layers: "):
        run_imp(plan, tmp_path, model=lambda: net(5), train_fn=lambda *_: None, example_input=example)
    assert len(run_imp(plan, tmp_path, model=net, train_fn=lambda *_: None, example_input=example).levels) == 2


def test_a_net_on_inputs_of_another_size_is_refused_at_resumption(tmp_path):
    def net():
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))

    plan = ImpPlan.from_dict({"pruning": {"rounds": 1}})
    how = {"model": net, "train_fn": lambda *_: None}
    run = run_imp(plan, tmp_path, **how, example_input=torch.zeros(1, 1, 8, 8))
    shutil.rmtree(run.level(level_name(0, 1)).path)
    with pytest.raises(RunError, match=r"inputs 8x8\) there and .*, inputs 9x9\) in the net and the example_input"):
        run_imp(plan, tmp_path, **how, example_input=torch.zeros(1, 1, 9, 9))


@pytest.mark.parametrize("last", [nn.Identity(), nn.LogSoftmax(dim=1)])
def test_a_net_of_ones_own_in_our_training(tmp_path, last):
    def net():
        layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
        return nn.Sequential(*layers, last)

    tables = {"data": TINY["data"], "recipe": {"steps": 5}, "pruning": {"method": "t-imp", "rounds": 1, "rate": 0.5}}
    run = run_imp(ImpPlan.from_dict(tables), tmp_path, model=net, example_input=torch.zeros(1, 1, 8, 8), device="cpu")
    records = layers_of(run.levels[1])
    assert [record["graphs"] for record in records] == ["shared", "dense"]
    assert all(record["diagram_preserved"] for record in records)
    assert records[0]["alpha"] > records[0]["critical"]
    losses = [record["validation_loss"] for record in evaluations(run.levels[0])]
    assert 0 < losses[-1] < losses[0]


def circular(model, mask, round):
    metrics = {}
    metrics["itself"] = metrics
    return metrics


def bias_of_nan(model, mask, round):
    model[3].bias.data.fill_(torch.nan)


def with_a_buffer(model, mask, round):
    model.register_buffer("seen", torch.ones(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return (self.layer(x.flatten(1)),) * 2


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


@pytest.mark.parametrize(
    ("tables", "given", "message"),
    [
        ({}, {}, "'model' must be given exactly where the plan has no .model., not None"),
        ({}, {"model": build}, r"'train_fn' must be given exactly where the plan has no \[recipe\], not None"),
        (TINY, {"model": build}, r"'model' must be given exactly where the plan has no \[model\], not 'build'"),
        (TINY, {"train_fn": plain_training}, "'train_fn' must be given exactly .*, not 'plain_training'"),
        ({"replicates": 2}, {"model": build(), "train_fn": plain_training}, "'model' must be a function that returns"),
        ({}, {"model": nn.ReLU, "train_fn": plain_training}, "'model' must have a layer to prune"),
        ({}, {"model": build, "train_fn": lambda *_: 3.0}, "'train_fn' must be a function that returns a mapping"),
        ({}, {"model": build, "train_fn": circular}, "'train_fn' must be a function that returns .* JSON can hold"),
        ({}, {"model": build, "train_fn": bias_of_nan}, "diverged: 10 of the 10 entries of '3.bias' are NaN"),
        (
            {"pruning": {"after": "finetune"}},
            {"model": build, "train_fn": with_a_buffer},
            "'train_fn' must leave the net's state as it is; 'seen' is new in it",
        ),
        ({"data": TINY["data"], "recipe": {}}, {"model": Twice}, r"'model' must be a net that returns .*, not 'tuple'"),
        ({"data": TINY["data"], "recipe": {}}, {"model": narrow}, r"scores of 10 classes, 2x10, .*, not \(2, 5\)"),
        (
            {"data": TINY["data"], "recipe": {}},
            {"model": lambda: nn.Linear(3, 3)},
            "'model' must be a net that returns scores .* 2x1x8x8, not 'one that fails",
        ),
        ({"pruning": {"factors": {"x": 0.5}}}, {"model": build, "train_fn": plain_training}, "no layer 'x'"),
        (TINY, {"jobs": 0}, "'jobs' must be a positive integer, not 0"),
        (
            {"replicates": 2},
            {"model": lambda: nn.Linear(64, 10), "train_fn": plain_training, "jobs": 2},
            r"'jobs' must be 1 where other processes cannot import the model or train_fn \(.*lambda.*, not 2",
        ),
    ],
)
def test_what_does_not_go_with_the_plan_is_refused(tmp_path, tables, given, message):
    with pytest.raises(ValueError, match=message):
        run_imp(ImpPlan.from_dict(tables), tmp_path / "run", **given)


def test_masked_steps_watch_every_optimiser_and_only_inside():
    net = nn.Linear(4, 3)
    mask = torch.rand(3, 4) > 0.5
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
        optimizer = kind(net.parameters(), lr=0.1)
        with masked_steps(net, {"weight": mask}):
            net(torch.ones(1, 4)).sum().backward()
            optimizer.step()
        assert not net.weight[~mask].any()
        assert (net.weight[mask] != 0).all()
        net(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        assert net.weight[~mask].any()


# what a net's layers are


def test_layers_of_a_net():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 6)
            self.attention = nn.MultiheadAttention(6, 2)
            self.conv = nn.Conv1d(6, 4, 3, groups=2)
            self.gru = nn.GRU(6, 5)
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight

    found = {layer.name: (layer.shape, layer.parts) for layer in layer_tensors(Tied())}
    assert found == {
        "attention.in_proj_weight": ((18, 6), ("query", "key", "value")),
        "attention.out_proj.weight": ((6, 6), ("",)),
        "conv.weight": ((4, 3, 3), ("0", "1")),
        "gru.weight_ih_l0": ((15, 6), ("reset", "update", "new")),
        "gru.weight_hh_l0": ((15, 5), ("reset", "update", "new")),
        "first.weight": ((6, 6), ("",)),
    }
