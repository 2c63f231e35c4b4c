"""``topobounds prune``: what it prints and writes, its exit codes, and files of sparsities for other tools."""

import json
from importlib.resources import files

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from topobounds import prune_checkpoint
from topobounds.checkpoint import CheckpointError
from topobounds.cli import main
from topobounds.pruning.sparsities import read_sparsities, write_sparsities

RNG = np.random.default_rng(4)
NET = {
    "fc1.weight": RNG.standard_normal((30, 40)).astype(np.float32),
    "fc1.bias": RNG.standard_normal(30).astype(np.float32),
    "fc2.weight": RNG.standard_normal((4, 30)).astype(np.float32),
}
KEYS = {"source", "target", "method", "scope", "allocate", "density", "layers", "left_out", "summary"}
LAYER_KEYS = {"name", "shape", "weights", "survivors", "asked", "kept", "alpha", "swaps", "squared_weight_lost"}


@pytest.fixture
def net(tmp_path):
    save_file(NET, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.fixture
def run(capsys):
    def command(*arguments, code=0):
        with pytest.raises(SystemExit) as left:
            main(["prune", *map(str, arguments)])
        printed = capsys.readouterr()
        assert left.value.code == code
        if code:
            assert printed.out == ""
            assert printed.err.count("\n") == 1
            return printed.err
        assert printed.err == ""
        return printed.out

    return command


def test_the_object_has_the_keys_and_is_that_of_python(run, net, tmp_path):
    record = json.loads(run(net, tmp_path / "new.safetensors", "--density", 0.3, "--json"))
    report = prune_checkpoint(net, tmp_path / "other.safetensors", density=0.3)
    assert record.keys() >= KEYS
    assert record["layers"][0].keys() >= LAYER_KEYS | {"preserved", "reason"}
    assert record["density"] == 0.3
    assert record["summary"] == {
        "weights": 1320,
        "kept": 396,
        "density": 0.3,
        "preserved": True,
        "bytes": net.stat().st_size,
    }
    assert record["left_out"] == [{"name": "fc1.bias", "shape": [30], "dtype": "float32", "reason": "bias"}]
    assert [layer["kept"] for layer in record["layers"]] == [layer.kept for layer in report.layers]
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--density", 0.3],
        ["--density", 0.3, "--dry-run"],
        ["--density", 0.3, "--masks-only"],
        ["--density", 0.3, "--scope", "global", "--method", "magnitude"],
        ["--density", 0.3, "--method", "random"],
        ["--density", 0.3, "--scores", "{net}"],
    ],
)
def test_the_object_is_that_of_the_schema_and_every_null_has_a_reason(run, net, tmp_path, options):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("topobounds").joinpath("schemas", "prune.json").read_text())
    options = [str(net) if option == "{net}" else option for option in options]
    record = json.loads(run(net, tmp_path / "new.safetensors", *options, "--json"))
    assert record["scores"] == (str(net) if "--scores" in options else None)
    jsonschema.Draft202012Validator(schema).validate(record)
    for layer in record["layers"]:
        assert layer["reason"] or all(
            value is not None for key, value in layer.items() if key not in ("reason", "convention")
        )
    assert record["reason"] or record["target"]


def test_the_last_line_says_that_the_file_is_as_large_as_before(run, net, tmp_path):
    lines = run(net, tmp_path / "new.safetensors", "--density", 0.15).splitlines()
    assert lines[1].split()[:4] == ["fc1.weight", "30x40", "165", "(180"]
    assert "198 of 1320 weights kept, density 0.150000" in lines[3]
    assert "2 of 2 layers keep their diagrams, bit for bit" in lines[3]
    assert lines[-1].startswith(f"The weights take {net.stat().st_size} bytes, as before.")
    assert "smaller" in lines[-1]


def test_with_scores_the_diagrams_are_said_to_be_theirs(run, net, tmp_path):
    scores = tmp_path / "scores.npz"
    np.savez(scores, **{"fc1.weight": np.square(NET["fc1.weight"])})
    lines = run(net, tmp_path / "new.safetensors", "--density", 0.3, "--scores", scores).splitlines()
    assert lines[2].startswith("360 of 1200 weights kept")
    assert lines[2].endswith(f"; 1 of 1 layer keeps the diagrams of its scores in {scores}, bit for bit.")
    assert lines[3] == f"2 tensors are left as they are: bias (1); {scores} holds no scores for it (1)."
    np.savez(scores, **{"fc1.wieght": np.square(NET["fc1.weight"])})
    message = run(net, tmp_path / "x.safetensors", "--density", 0.3, "--scores", scores, code=2)
    assert "'--scores' must be arrays under the names of the tensors (the nearest are 'fc1.weight'" in message
    assert not (tmp_path / "x.safetensors").exists()


def test_what_is_left_as_it_is_is_grouped_by_reason(run, tmp_path):
    bias = {"a.bias": np.ones(8, np.float32)}
    for name, others in (("one", bias), ("two", {**bias, "b.bias": np.ones(8, np.float32)})):
        save_file({"a.weight": np.ones((8, 9), np.float32), **others}, tmp_path / f"{name}.safetensors")
    assert "1 tensor is left as it is: bias (1)." in run(tmp_path / "one.safetensors", "--density", 0.5, "--dry-run")
    assert "2 tensors are left as they are: bias (2)." in run(
        tmp_path / "two.safetensors", "--density", 0.5, "--dry-run"
    )


def test_what_is_not_finite_is_named_on_a_line_of_its_own(run, tmp_path):
    arrays = {f"{name}.weight": RNG.standard_normal((9, 8)).astype(np.float32) for name in "abcdefg"}
    for place, name in enumerate("bcdefg"):
        arrays[f"{name}.weight"][place, 3] = np.nan if place % 2 else np.inf
    save_file(arrays | {"a.bias": np.ones(9, np.float32)}, tmp_path / "net.safetensors")
    lines = run(tmp_path / "net.safetensors", tmp_path / "new.safetensors", "--density", 0.5).splitlines()
    start = lines.index("7 tensors are left as they are: not finite (6); bias (1).")
    assert lines[start + 1 : start + 8] == [
        f"Not pruned: '{name}.weight', its weights are not finite: 1 of its 72 entries are NaN or infinite, the first "
        f"at row {place}, column 3: {'nan' if place % 2 else 'inf'}."
        for place, name in enumerate("bcdefg")
    ] + [f"Written: {tmp_path / 'new.safetensors'}, masks {tmp_path / 'new.masks.safetensors'}."]


def test_a_trial_shows_the_budgets_and_needs_no_target(run, net, tmp_path):
    text = run(net, "--density", 0.3, "--dry-run", "--export", tmp_path / "plan.json")
    assert text.splitlines()[0].split() == ["density", "of", "uniform", "safe", "retention"]
    assert text.splitlines()[-1] == "No weights are written."
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.safetensors", "plan.json"]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_an_exported_file_is_a_budget(run, net, tmp_path, suffix):
    plan = tmp_path / f"plan.{suffix}"
    run(net, tmp_path / "a.safetensors", "--density", 0.3, "--allocate", "safe", "--export", plan)
    run(net, tmp_path / "b.safetensors", "--allocate", plan)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    run(net, tmp_path / "c.safetensors", "--allocate", plan, "--density", 0.5)
    arrays = load_file(tmp_path / "c.safetensors")
    assert sum(np.count_nonzero(arrays[name]) for name in ("fc1.weight", "fc2.weight")) == 660


def test_masks_alone(run, net, tmp_path):
    text = run(net, tmp_path / "masks.safetensors", "--density", 0.3, "--masks-only")
    assert text.splitlines()[-1] == f"Written: {tmp_path / 'masks.safetensors'}, the masks alone."


def test_a_drawn_seed_is_shown_and_makes_the_same(run, net, tmp_path):
    drawn = json.loads(run(net, tmp_path / "a.safetensors", "--density", 0.3, "--method", "random", "--json"))
    run(net, tmp_path / "b.safetensors", "--density", 0.3, "--method", "random", "--seed", drawn["seed"])
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{net}"], "Missing argument 'TARGET'"),
        (["{net}", "{new}"], "Missing option '--density'"),
        (["{net}", "{net}", "--density", "0.3"], "is there already"),
        (["{net}", "{new}", "--density", "2:4"], "'--density' must not be a pattern such as 2:4"),
        (["{net}", "{new}", "--density", "0.3", "--method", "4:8"], "'--method' must not be a pattern such as 4:8"),
        (["{net}", "{new}", "--density", "0.01"], "'--density' must leave at least alpha = 102 of the 1320 weights"),
        (["{net}", "{new}", "--density", "0.01"], "leaves 13. --on-infeasible clamp stops at alpha."),
        (["{net}", "{new}", "--density", "0.11", "--on-infeasible", "raise"], "'fc2.weight' (33 critical, 13 asked)"),
        (["{net}", "{new}", "--density", "0.3", "--include", "zz"], "'--include' must match the name of a tensor"),
        (["{net}", "{new}", "--density", "0.3", "--allocate", "zz"], "or a file of sparsities, not 'zz'"),
        (["{net}", "{new}", "--density", "0.3", "--export", "/no/x.json"], "'--export' must be the name of a file"),
        (["/no/net.npz", "{new}", "--density", "0.3"], "no/net.npz"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_2(run, net, tmp_path, arguments, message):
    words = [word.format(net=net, new=tmp_path / "new.safetensors") for word in arguments]
    assert message in run(*words, code=2)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_files_of_sparsities_that_make_no_sense(net, tmp_path):
    plan = tmp_path / "plan.yaml"
    for text, message in {
        "- tensor_fqn: a\n  sparsity_level: 2\n": "'a' must be a share",
        "[1, 2]": "is no list of tensors and sparsities",
        "a: [\n": "'a' must be a share",
        "nonsense": "line 1 is 'nonsense'",
        "3": "is no list of tensors",
        "- [1]: 2\n": "'None' must be a share",
        "- {}: 3\n": "'None' must be a share",
        "a: " + "[" * 100_000: "'a' must be a share",
        "[" * 100_000: "line 1 is '",
    }.items():
        plan.write_text(text)
        with pytest.raises(CheckpointError, match=message) as refused:
            read_sparsities(plan, ("uniform",))
        assert len(str(refused.value)) < 650
    plan.write_text('# mine\n"fc9.weight": 0.5\n')
    with pytest.raises(ValueError, match=r"names 'fc9\.weight' .* one of them is 'fc2\.weight' or 'fc1\.weight'"):
        prune_checkpoint(net, tmp_path / "x.safetensors", allocate=plan)


def test_other_tools_read_what_is_exported(net, tmp_path):
    torch = pytest.importorskip("torch")
    from torch.ao.pruning import WeightNormSparsifier  # noqa: PLC0415 -- after torch

    report = prune_checkpoint(net, tmp_path / "x.safetensors", density=0.4, allocate="safe")
    write_sparsities(tmp_path / "plan.json", report)
    model = torch.nn.Module()
    model.fc1, model.fc2 = torch.nn.Linear(40, 30), torch.nn.Linear(30, 4)
    sparsifier = WeightNormSparsifier(sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, json.loads((tmp_path / "plan.json").read_text()))
    sparsifier.step()
    for group in sparsifier.groups:
        density = float(group["module"].parametrizations["weight"][0].mask.mean())
        wanted = next(layer for layer in report.layers if layer.name == group["tensor_fqn"])
        assert density == pytest.approx(wanted.density, abs=0.05)
    yaml = pytest.importorskip("yaml")
    write_sparsities(tmp_path / "plan.yaml", report)
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text()) == json.loads((tmp_path / "plan.json").read_text())


def test_one_of_two_that_config_json_ties_is_told(run, tmp_path):
    folder, wte = tmp_path / "model", "wte.weight"
    folder.mkdir()
    save_file({wte: NET["fc1.weight"], "lm_head.weight": NET["fc1.weight"]}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    lines = run(folder, tmp_path / "one", "--density", 0.4, "--include", wte).splitlines()
    why = (
        "not included; 'wte.weight' is pruned, to which config.json ties it: they are no longer the same, if they were"
    )
    assert f"Not pruned: 'lm_head.weight', {why}." in lines
    told = run(folder, tmp_path / "two", "--density", 0.4, "--include", wte, "--include", "lm_head.weight")
    assert "Not pruned" not in told
