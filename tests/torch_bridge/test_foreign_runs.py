"""Runs of other programs, audited: folders as open_lth and others write them, damaged, missing and of other nets."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils import prune

from tests.test_json import unexplained
from topobounds import CheckpointError, maximum_spanning_forest, topology_price
from topobounds.cli import main
from topobounds.runs import RunError
from topobounds.runs.foreign import find_levels, logged_accuracy, read_level
from torch_bridge.experiment.audit import audit_run
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.experiment.run import run_imp

SHAPES = {"fc1.weight": (20, 30), "fc2.weight": (5, 20)}
COUNTS = (1.0, 0.5, 0.2)


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["imp", "import", *map(str, arguments)])
    return left.value.code, *capsys.readouterr()


def largest(weights, mask, share):
    """Return the mask of the largest of the weights under a mask, a share of all cells."""
    sizes = np.where(mask, np.abs(weights), -1.0).ravel()
    kept = np.zeros(sizes.size, bool)
    kept[np.argsort(-sizes, kind="stable")[: round(share * sizes.size)]] = True
    return kept.reshape(mask.shape)


def made_levels(shapes=SHAPES, counts=COUNTS, seed=0):
    """Return weights at the end and masks of each level of a run of magnitude pruning."""
    rng = np.random.default_rng(seed)
    masks = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    found, weights = [], {}
    for share in counts:
        if weights:
            masks = {name: largest(weights[name], mask, share) for name, mask in masks.items()}
        rows = {
            name: np.exp(rng.standard_normal((shape[0], *[1] * (len(shape) - 1)))) for name, shape in shapes.items()
        }
        weights = {
            name: (rows[name] * rng.standard_normal(shape) * masks[name]).astype(np.float32)
            for name, shape in shapes.items()
        }
        found.append((weights, masks))
    return found


def write_open_lth(folder, levels, *, epochs=3, replicate=1):
    for number, (weights, masks) in enumerate(levels):
        place = folder / f"replicate_{replicate}" / f"level_{number}" / "main"
        place.mkdir(parents=True)
        state = {name: torch.from_numpy(array) for name, array in weights.items()} | {"fc1.bias": torch.zeros(20)}
        torch.save({name: torch.zeros_like(each) + 7 for name, each in state.items()}, place / "model_ep0_it0.pth")
        torch.save(state, place / f"model_ep{epochs}_it0.pth")
        torch.save({"model_state_dict": state, "ep": 2, "optimizer_state_dict": {}}, place / "checkpoint.pth")
        torch.save({name: torch.from_numpy(mask).int() for name, mask in masks.items()}, place / "mask.pth")
        logged = [("test_accuracy", 0, 0.1), ("test_loss", 30, 2.0), ("test_accuracy", 30, 0.9 - number / 100)]
        (place / "logger").write_text("\n".join(",".join(map(str, each)) for each in logged))
        (place / "sparsity_report.json").write_text("{}")
    return folder


@pytest.fixture
def open_lth(tmp_path):
    return write_open_lth(tmp_path / "lottery_0123456789abcdef", made_levels())


def without_places(found):
    """Return what an audit says, but for where the files were."""
    levels = [{k: v for k, v in level.items() if k not in ("path", "masks_from")} for level in found["levels"]]
    return levels, found["layers"]


# what is found


def test_every_number_of_a_run_of_open_lth_is_that_of_its_weights_and_masks(open_lth):
    found = audit_run(open_lth)
    levels = made_levels()
    assert [(each["replicate"], each["level"]) for each in found["levels"]] == [(1, 0), (1, 1), (1, 2)]
    assert [each["test_accuracy"] for each in found["levels"]] == [0.9, 0.89, 0.88]
    assert [each["kept"] for each in found["levels"]] == [700, 350, 140]
    assert {each["masks_from"] for each in found["levels"]} == {"a file of masks"}
    assert found["left_out"].keys() == {"fc1.bias"}
    for record in found["layers"]:
        name, level = record["name"], record["level"]
        weights, mask = (each[name] for each in levels[level])
        forest = maximum_spanning_forest(weights, mask)
        assert record["overlap"] == forest.overlap()
        assert record["alpha"] == forest.alpha
        assert record["silent_outputs"] + record["silent_inputs"] + record["fragments"] >= 1
        assert record["dead_outputs"] == int((~mask.any(axis=1)).sum())
        assert record["overlap_status"] == ("certified" if level == 0 else "sampled")
        if level == 0:
            assert "forest_survived" not in record
            continue
        earlier, old = (each[name] for each in levels[level - 1])
        before = maximum_spanning_forest(earlier, old)
        lost = int((~mask[before.rows, before.cols]).sum())
        assert record["missing_edges"] == lost
        assert record["forest_survived"] == pytest.approx(1 - lost / before.alpha, abs=1e-12)
        assert record["forest_survived"] == pytest.approx(before.overlap(int(mask.sum())), abs=1e-12)
        assert record["revived"] == 0
        if mask.sum() >= before.alpha:
            price = topology_price(earlier, int(mask.sum()), old, expected=False)
            assert record["swaps"] == price.swaps
            assert record["t_imp_dead_outputs"] == int((~old.any(axis=1)).sum())  # those that were dead before
            assert record["squared_weight_lost"] == pytest.approx(price.squared_weight_lost)
            assert record["swaps"] == lost
        else:
            assert record["swaps"] is None
            assert "so T-IMP has no mask" in record["reason"]


def test_what_scales_of_neurons_do_is_far_below_chance(open_lth):
    """The rows of these weights have scales, so magnitude pruning loses more of the forest than chance would."""
    last = audit_run(open_lth)["levels"][1]
    assert last["forest_survived"] < last["forest_survived_expected"] - 3 * last["forest_survived_deviation"]
    assert last["forest_survived_z"] < -3
    assert last["missing_edges"] > 0
    assert last["t_imp_dead_units"] == 0


def test_the_chance_of_a_mask_is_that_of_the_largest_weights_in_random_order(tmp_path):
    """Over many layers without scales, the mean of what survives is what is said to be expected."""
    shapes = {f"l{number}.weight": (12, 10) for number in range(60)}
    levels = made_levels(shapes, (1.0, 0.25), seed=3)
    rng = np.random.default_rng(8)
    first = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    masks = {name: largest(array, np.ones(array.shape, bool), 0.25) for name, array in first.items()}
    found = _audited(tmp_path, [(first, levels[0][1]), (first, masks)])
    last = found["levels"][1]
    assert last["forest_survived_status"] == "certified"
    assert abs(last["forest_survived_z"]) < 4
    layers = [layer for layer in found["layers"] if layer["level"] == 1]
    measured, expected = (
        np.mean([layer[key] for layer in layers]) for key in ("forest_survived", "forest_survived_expected")
    )
    assert measured == pytest.approx(expected, abs=0.02)
    assert layers[0]["forest_survived_expected"] < 0.97


def _audited(folder, levels):
    """Return the audit of levels in folders of their own."""
    for number, (weights, masks) in enumerate(levels):
        place = folder / f"level_{number}"
        place.mkdir()
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, place / "end.safetensors")
        save_file(masks, place / "masks.safetensors")
    return audit_run(folder)


def test_our_own_run_has_the_same_numbers_as_its_own_records(tmp_path):
    """What a run of ours says of itself is what an audit of its files in foreign folders says."""
    plan = ImpPlan.from_dict({"pruning": {"method": "imp", "rounds": 3, "rate": 0.5}})
    torch.manual_seed(0)

    def train(model, mask, level):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(64, 20)), torch.randint(0, 5, (64,))).backward()
            optimizer.step()

    run = run_imp(
        plan, tmp_path / "run", model=nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)), train_fn=train
    )
    for number, level in enumerate(run.levels):
        place = tmp_path / "foreign" / f"level-{number}"
        place.mkdir(parents=True)
        for stem in ("start", "end", "masks"):
            (place / f"{stem}.safetensors").write_bytes(level.read(f"{stem}.safetensors"))
    found = audit_run(tmp_path / "foreign")
    for level in run.levels:
        number = level.metrics[-1]["level"]
        for own in (record for record in level.metrics if record["record"] == "layer"):
            (other,) = (each for each in found["layers"] if each["level"] == number and each["name"] == own["name"])
            shared = own.keys() - {"record", "overlap_trials", "overlap_seed"}
            assert shared <= other.keys()
            assert {key: own[key] for key in shared} == {key: other[key] for key in shared}
        summary = found["levels"][number]
        shared = level.metrics[-1].keys() & summary.keys()
        assert {"density", "overlap", "dead_units", "neural_persistence", "kept"} <= shared
        assert {key: level.metrics[-1][key] for key in shared} == {key: summary[key] for key in shared}


# where masks may be


def _write_zeros(place, weights, masks):
    save_file(weights, place / "weights.safetensors")


def _write_packed(place, weights, masks):
    np.savez(place / "model.npz", **weights)
    np.savez(place / "mask.npz", **{f"{name}_mask": mask.astype(np.float32) for name, mask in masks.items()})


def _write_in_the_same_file(place, weights, masks):
    named = {f"{name}_mask": torch.from_numpy(mask) for name, mask in masks.items()}
    torch.save({name: torch.from_numpy(each) for name, each in weights.items()} | named, place / "net.pt")


def _write_mask_of_the_module(place, weights, masks):
    named = {name.replace(".weight", ".mask"): torch.from_numpy(mask).float() for name, mask in masks.items()}
    torch.save({name: torch.from_numpy(each) for name, each in weights.items()} | named, place / "epoch-9.pt")
    torch.save({"fc1.weight": torch.full((20, 30), 7.0)}, place / "epoch-2.pt")


def _write_buffers_of_open_lth(place, weights, masks):
    named = {"mask_" + name.replace(".", "___"): torch.from_numpy(mask).float() for name, mask in masks.items()}
    torch.save({name: torch.from_numpy(each) for name, each in weights.items()} | named, place / "net.pt")


def _write_pruned_module(place, weights, masks):
    net = nn.Module()
    net.fc1, net.fc2 = nn.Linear(30, 20), nn.Linear(20, 5)
    net.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()}, strict=False)
    for layer, name in ((net.fc1, "fc1.weight"), (net.fc2, "fc2.weight")):
        prune.custom_from_mask(layer, "weight", torch.from_numpy(masks[name]))
    torch.save(net.state_dict(), place / "last.pt")


LAYOUTS = {
    _write_zeros: "zeros of the weights",
    _write_packed: "a file of masks",
    _write_in_the_same_file: "the file of weights",
    _write_mask_of_the_module: "the file of weights",
    _write_buffers_of_open_lth: "the file of weights",
    _write_pruned_module: "the file of weights",
}


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_masks_are_found_wherever_they_are(write, open_lth, tmp_path):
    for number, (weights, masks) in enumerate(made_levels()):
        place = tmp_path / "plain" / f"round{number}"
        place.mkdir(parents=True)
        write(place, weights, masks)
    found, expected = audit_run(tmp_path / "plain"), audit_run(open_lth)
    assert {level["masks_from"] for level in found["levels"]} == {LAYOUTS[write]}
    for mine, theirs in zip(found["layers"], expected["layers"], strict=True):
        assert mine == theirs | {"replicate": 0}


def test_a_kept_weight_that_is_zero_is_kept_where_there_are_masks(tmp_path):
    levels = made_levels(counts=(1.0,))
    levels[0][0]["fc1.weight"][0, 0] = 0
    place = tmp_path / "level_0"
    place.mkdir()
    _write_pruned_module(place, *levels[0])
    assert audit_run(tmp_path)["levels"][0]["kept"] == 700
    (place / "last.pt").unlink()
    _write_zeros(place, *levels[0])
    assert audit_run(tmp_path)["levels"][0]["kept"] == 699


def test_kernels_and_shards(tmp_path):
    levels = made_levels({"conv.weight": (6, 4, 3, 3)}, (1.0, 0.6))
    for number, (weights, masks) in enumerate(levels):
        place = tmp_path / f"iter_{number}"
        place.mkdir()
        save_file({"conv.weight": weights["conv.weight"]}, place / "model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": {"conv.weight": "model-00001-of-00001.safetensors"}}
        (place / "model.safetensors.index.json").write_text(json.dumps(index))
        np.savez(place / "masks.npz", **masks)
    first, last = audit_run(tmp_path, input_size=(4, 5, 5))["layers"]
    assert first["input_size"] == [5, 5]
    assert first["graphs"] == "shared"
    assert first["assumed"]
    assert 0 < last["forest_survived"] <= 1
    assert last["forest_survived_status"] == "sampled"
    assert last["missing_edges"] == round((1 - last["forest_survived"]) * first["critical"])
    other = audit_run(tmp_path, input_size=(4, 3, 3))["layers"][0]
    assert other["alpha"] < first["alpha"]


# what is wrong, and said


def test_a_level_that_is_missing_is_said_and_the_next_is_compared_with_the_one_before(open_lth):
    whole = audit_run(open_lth)
    place = open_lth / "replicate_1"
    (place / "level_1").rename(open_lth / "elsewhere")
    found = audit_run(place)
    assert [level["compared_with"] for level in found["levels"]] == [None, 0]
    assert found["left_out"]["replicate 0, level 1"] == "there is no folder of it"
    assert found["levels"][1]["missing_edges"] != whole["levels"][2]["missing_edges"]


@pytest.mark.parametrize("name", ["model_ep3_it0.pth", "mask.pth"])
def test_a_damaged_file_leaves_its_level_out_by_name(open_lth, name):
    file = open_lth / "replicate_1" / "level_1" / "main" / name
    file.write_bytes(file.read_bytes()[:200])
    found = audit_run(open_lth)
    assert [level["level"] for level in found["levels"]] == [0, 2]
    assert str(file) in found["left_out"]["replicate 1, level 1"]


def test_pickled_objects_are_not_unpickled(open_lth, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save({"fc1.weight": Evil()}, open_lth / "replicate_1" / "level_1" / "main" / "mask.pth")
    found = audit_run(open_lth)
    assert "never unpickled" in found["left_out"]["replicate 1, level 1"]
    assert not (tmp_path / "made").exists()


def test_levels_of_another_net_are_left_out_by_name(open_lth):
    place = open_lth / "replicate_1" / "level_2" / "main"
    torch.save({"fc1.weight": torch.ones(20, 31), "fc2.weight": torch.ones(5, 20)}, place / "model_ep3_it0.pth")
    torch.save({"fc1.weight": torch.ones(20, 31), "fc2.weight": torch.ones(5, 20)}, place / "mask.pth")
    reason = audit_run(open_lth)["left_out"]["replicate 1, level 2"]
    assert "'fc1.weight' is of shape (20, 31) there and of shape (20, 30) at replicate 1, level 0" in reason


def test_masks_of_another_shape_than_their_weights_are_said(open_lth):
    masks = {"fc1.weight": torch.ones(30, 20), "fc2.weight": torch.ones(5, 20)}
    torch.save(masks, open_lth / "replicate_1" / "level_2" / "main" / "mask.pth")
    reason = audit_run(open_lth)["left_out"]["replicate 1, level 2"]
    assert reason.endswith("mask of 'fc1.weight', is of another shape: (30, 20), not (20, 30)")


def test_a_file_of_masks_of_no_layer_is_refused_and_not_taken_for_none(open_lth):
    file = open_lth / "replicate_1" / "level_2" / "main" / "mask.pth"
    torch.save({"other.weight": torch.ones(20, 30)}, file)
    level = find_levels(open_lth).levels[2]
    said = f"{file} holds no mask of a layer in {level.weights}: it holds 'other.weight', and the mask of"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        read_level(level)
    found = audit_run(open_lth)
    assert [each["level"] for each in found["levels"]] == [0, 1]
    assert said in found["left_out"]["replicate 1, level 2"]


def test_what_a_later_level_leaves_out_is_said_of_it(open_lth):
    for level in (1, 2):
        file = open_lth / "replicate_1" / f"level_{level}" / "main" / "mask.pth"
        masks = {name: torch.ones(shape) for name, shape in SHAPES.items()}
        torch.save(masks | {"other.weight": torch.ones(2, 2)} if level == 2 else masks, file)
    found = audit_run(open_lth)
    assert found["left_out"].keys() == {"fc1.bias", "other.weight in mask.pth at replicate 1, level 2"}
    assert found["left_out"]["other.weight in mask.pth at replicate 1, level 2"] == "a mask of no layer"


def test_a_layer_without_a_mask_at_a_later_level_is_said(open_lth):
    file = open_lth / "replicate_1" / "level_2" / "main" / "mask.pth"
    torch.save({"fc1.weight": torch.ones(20, 30)}, file)
    reason = audit_run(open_lth)["left_out"]["replicate 1, level 2"]
    assert "'fc2.weight' is absent (it has no mask, and other layers have) there" in reason


def test_masks_that_hold_other_numbers_are_said(open_lth):
    masks = {"fc1.weight": torch.ones(20, 30), "fc2.weight": torch.ones(5, 20)}
    masks["fc2.weight"][1, 2] = 0.5
    torch.save(masks, open_lth / "replicate_1" / "level_2" / "main" / "mask.pth")
    reason = audit_run(open_lth)["left_out"]["replicate 1, level 2"]
    assert reason.endswith("mask 'fc2.weight', must hold 0 and 1 alone, not 0.5 at (1, 2)")


def test_weights_that_are_not_finite_are_said(open_lth):
    weights, _ = made_levels()[1]
    weights["fc2.weight"][np.unravel_index(np.abs(weights["fc2.weight"]).argmax(), (5, 20))] = np.nan
    state = {name: torch.from_numpy(each) for name, each in weights.items()}
    torch.save(state, open_lth / "replicate_1" / "level_1" / "main" / "model_ep3_it0.pth")
    reason = audit_run(open_lth)["left_out"]["replicate 1, level 1"]
    assert "fc2.weight" in reason
    assert "NaN" in reason


def test_levels_that_are_not_trained_to_the_end_are_left_out(open_lth):
    place = open_lth / "replicate_1" / "level_2" / "main"
    (place / "model_ep3_it0.pth").unlink()
    found = audit_run(open_lth)
    assert (
        "not trained to the end: its last weights are of epoch 0, iteration 0"
        in found["left_out"]["replicate 1, level 2"]
    )


def test_masks_that_are_not_nested_are_said(open_lth, capsys):
    place = open_lth / "replicate_1" / "level_2" / "main"
    levels = made_levels()
    masks = {name: ~mask for name, mask in levels[1][1].items()}
    torch.save({name: torch.from_numpy(mask) for name, mask in masks.items()}, place / "mask.pth")
    status, out, _ = call(capsys, open_lth)
    assert status == 0
    assert "replicate 1, level 2: its masks are not within those before; 350 weights came back." in out
    last = audit_run(open_lth)["layers"][-1]
    assert (last["revived"], last["forest_survived"]) == (int(masks["fc2.weight"].sum()), 0.0)


def test_what_a_pruned_weight_held_does_not_matter_when_it_comes_back(open_lth):
    expected = made_levels()
    places = [open_lth / "replicate_1" / f"level_{number}" / "main" for number in (1, 2)]
    masks = {name: ~mask for name, mask in expected[1][1].items()}
    torch.save({name: torch.from_numpy(mask) for name, mask in masks.items()}, places[1] / "mask.pth")
    before = audit_run(open_lth)["layers"]
    held = {name: np.where(expected[1][1][name], array, np.nan) for name, array in expected[1][0].items()}
    torch.save({name: torch.from_numpy(array) for name, array in held.items()}, places[0] / "model_ep3_it0.pth")
    assert audit_run(open_lth)["layers"] == before


def test_a_mask_that_grows_has_no_t_imp_beside_it(open_lth):
    place = open_lth / "replicate_1" / "level_2" / "main"
    torch.save({name: torch.ones(shape) for name, shape in SHAPES.items()}, place / "mask.pth")
    last = audit_run(open_lth)["layers"][-1]
    assert last["swaps"] is None
    assert "100 weights are left, more than the 50 before, so T-IMP has no mask" in last["reason"]


def test_a_layer_of_which_nothing_is_left(open_lth):
    place = open_lth / "replicate_1" / "level_2" / "main"
    masks = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    torch.save(masks, place / "mask.pth")
    last = audit_run(open_lth)["levels"][-1]
    assert (last["kept"], last["forest_survived"], last["swaps"]) == (0, 0.0, None)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "holds no numbered folders with weights"),
        (["level_0/readme.txt"], "holds no numbered folders with weights"),
        (["a_0/w.npz", "b_0/w.npz"], "holds several kinds of numbered folders with weights, 'a', 'b'"),
        (["level_1/w.npz", "level_01/w.npz"], "holds two folders of one number: level_01, level_1"),
        (["level_0/a.npz", "level_0/b.npz"], "holds several files of weights, a.npz, b.npz: leave one, or call it end"),
        (
            ["level_0/w.npz", "level_0/mask.npz", "level_0/masks.npz"],
            "holds several files of masks, mask.npz, masks.npz",
        ),
        (["level_0/start.npz"], "holds no weights of its end: start.npz"),
        (["plan.json"], "is a run of topobounds: topobounds imp status reads it"),
    ],
)
def test_a_folder_that_holds_no_run_is_refused_in_one_line(tmp_path, capsys, made, said):
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.savez(tmp_path / name, fc=np.eye(3))
        if not name.endswith(".npz"):
            (tmp_path / f"{name}.npz").rename(tmp_path / name)
    status, out, err = call(capsys, tmp_path)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_folder_that_is_not_there_is_refused(tmp_path, capsys):
    status, _, err = call(capsys, tmp_path / "nowhere")
    assert (status, err) == (2, f"Error: {tmp_path / 'nowhere'} could not be read: No such file or directory.\n")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("test_accuracy,0,0.5\ntest_accuracy,10,0.75\n", (0.75, None)),
        ("test_loss,0,0.5\n", "has no test_accuracy"),
        ("test_accuracy,0\n", "is damaged: its lines are no name, iteration, value"),
        ("\udc80", "is damaged"),
        ("test_accuracy,5,nan\n", "has no test_accuracy"),
    ],
)
def test_the_last_accuracy_of_a_logger(open_lth, content, expected):
    level = find_levels(open_lth).levels[0]
    (level.path / "logger").write_bytes(content.encode("utf-8", "surrogateescape"))
    value, reason = logged_accuracy(level)
    assert (value, reason) == expected if isinstance(expected, tuple) else expected in reason


# the command


def test_the_command_prints_a_table_json_and_a_page(open_lth, tmp_path, capsys):
    status, out, err = call(capsys, open_lth, "--html", tmp_path / "page.html")
    assert (status, err) == (0, "")
    assert "3 levels, masks from a file of masks." in out
    assert "By chance: 20 random orders of each layer on its own places, seed 0." in out
    status, out, _ = call(capsys, open_lth, "--json")
    found = json.loads(out)
    assert found["schema_version"] == 1
    assert {k: found[k] for k in ("levels", "layers")} == {k: audit_run(open_lth)[k] for k in ("levels", "layers")}
    keys = {"input_size", "assumed", "compared_with"}
    assert [name for name in unexplained(found) if name.split(".")[-1] not in keys] == []
    assert "forest_survived" in (tmp_path / "page.html").read_text()


def test_a_seed_gives_the_same_numbers_and_another_gives_others(open_lth):
    one, again, other = (audit_run(open_lth, seed=seed)["layers"][-1] for seed in (1, 1, 2))
    assert one == again
    assert one["forest_survived_expected"] != other["forest_survived_expected"]


def test_several_replicates_are_told_apart(tmp_path):
    for replicate in (1, 2):
        write_open_lth(tmp_path, made_levels(seed=replicate), replicate=replicate)
    found = audit_run(tmp_path)
    assert [(level["replicate"], level["level"]) for level in found["levels"]] == [
        (r, n) for r in (1, 2) for n in (0, 1, 2)
    ]
    assert [level["compared_with"] for level in found["levels"]] == [None, 0, 1] * 2


def test_folders_of_safetensors_are_audited_without_torch(tmp_path):
    for number, (weights, masks) in enumerate(made_levels()):
        place = tmp_path / f"level_{number}"
        place.mkdir()
        save_file(weights, place / "end.safetensors")
        save_file(masks, place / "mask.safetensors")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from topobounds.cli import main\n"
        f"main(['imp', 'import', {str(tmp_path)!r}])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "3 levels" in run.stdout


def test_no_level_that_can_be_read_is_an_error(open_lth):
    for file in open_lth.glob("*/*/main/mask.pth"):
        file.write_bytes(b"x")
    with pytest.raises(RunError, match=r"has no level that can be read. replicate 1, level 0: .*mask.pth"):
        audit_run(open_lth)


def test_what_a_level_holds(open_lth):
    held = read_level(find_levels(open_lth).levels[1])
    assert [layer.name for layer in held.layers] == ["fc1.weight", "fc2.weight"]
    assert held.masks["fc1.weight"].dtype == bool
    assert held.weights["fc1.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input", "0x3"), "Argument '--input' must be a positive integer, not 0."),
        (("--geometry", "nosuch.toml"), "nosuch.toml could not be read: No such file or directory."),
    ],
)
def test_what_is_told_wrongly_is_no_fault_of_a_level(tmp_path, capsys, options, said):
    (tmp_path / "level_0").mkdir()
    np.savez(tmp_path / "level_0" / "end.npz", fc=np.eye(3))
    with pytest.raises(SystemExit) as left:
        main(["imp", "import", str(tmp_path), *options])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"Error: {said}\n"


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_masks_beside_the_weights_are_left_out_as_masks(tmp_path, dtype):
    (tmp_path / "level_0").mkdir()
    mask = np.eye(4, 3, dtype=dtype)
    np.savez(tmp_path / "level_0" / "end.npz", **{"fc.weight": np.ones((4, 3)), "fc.weight_mask": mask})
    found = audit_run(tmp_path)
    assert found["left_out"] == {"fc.weight_mask": "mask"}
    assert found["layers"][0]["kept"] == 3
