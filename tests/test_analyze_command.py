"""`topobounds analyze` as a command: what it prints, writes and refuses."""

import csv
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from importlib.resources import files

import jsonschema
import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from safetensors.numpy import save_file

from tests.test_json import unexplained
from topobounds import ModelReport, analyze
from topobounds.analysis import checkpoint
from topobounds.analysis.findings import RULES
from topobounds.analysis.reports import FIRST_KEYS
from topobounds.analysis.table import checked_columns, column_names
from topobounds.cli import main
from topobounds.cli.layer_table import FULL, folded

RNG = np.random.default_rng(0)
HOSTILE = "a\x1b[31mRED\n\x07\u202e[bold]b.weight"


def schema(name):
    return json.loads(files("topobounds").joinpath("schemas", f"{name}.json").read_text())


def weights(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


TENSORS = {
    "conv.weight": weights(6, 3, 3, 3),
    "rnn.weight_ih_l0": weights(16, 5),
    "rnn.weight_hh_l0": weights(16, 4),
    "fc1.weight": weights(20, 30),
    "fc1.bias": weights(20),
    "bn.weight": weights(6),
    "fc2.weight": weights(10, 20),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.safetensors"
    save_file(TENSORS, path)
    return path


def run(capsys, *arguments):
    """Return status, stdout and stderr of a command in this process."""
    with pytest.raises(SystemExit) as left:
        main(["analyze", *map(str, arguments)])
    printed = capsys.readouterr()
    return left.value.code, printed.out, printed.err


def printed(capsys, *arguments):
    status, out, err = run(capsys, *arguments, "--seed", 1)
    assert (status, err) == (0, "")
    return out


def as_json(capsys, *arguments):
    report = json.loads(printed(capsys, *arguments, "--json"))
    jsonschema.validate(report, schema("analyze"))
    return report


def refused(capsys, *arguments):
    """Return the one line with which a command is refused."""
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


def process(*arguments, **environment):
    command = [sys.executable, "-m", "topobounds", "analyze", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, timeout=120, check=False, env={**os.environ, **environment}, text=True
    )


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_the_object_is_that_of_the_report(capsys, file):
    record = as_json(capsys, file)
    assert record == json.loads(json.dumps(analyze(file, seed=1).to_dict()))
    assert record["tensors"] == {"read": 5, "left_out": 2, "tied": 0}
    names = {layer["name"] for layer in record["layers"]}
    assert {"conv.weight", "rnn.weight_ih_l0[input]", "rnn.weight_hh_l0[forget]"} <= names
    assert set(FIRST_KEYS) <= set(record["layers"][0])
    assert {each["name"]: each["reason"] for each in record["left_out"]} == {"fc1.bias": "bias", "bn.weight": "norm"}
    assert record["source"]["files"] == ["small.safetensors"]


def test_what_is_printed_can_be_loaded(capsys, file, tmp_path):
    (tmp_path / "report.json").write_text(printed(capsys, file, "--json"))
    assert ModelReport.load(tmp_path / "report.json").to_dict() == as_json(capsys, file)


@pytest.mark.parametrize(
    "options", [["--scales"], ["--trials", 0], ["--include", "conv*"], ["--input", "3x16x16"], ["--jobs", 1]], ids=str
)
def test_every_option_gives_what_the_schema_says(capsys, file, options):
    as_json(capsys, file, *options)


def test_the_curves_of_a_report_are_described():
    jsonschema.validate(json.loads(json.dumps(analyze(TENSORS, seed=1, curves=True).to_dict())), schema("analyze"))


def test_the_schema_has_every_key():
    """And the keys of a layer are those of the schema, so that neither grows without the other."""
    described = schema("analyze")
    layer = described["$defs"]["layer"]
    report = analyze(TENSORS, seed=1).to_dict()
    assert set(layer["properties"]) == set(layer["required"]) == set(report["layers"][0])
    assert set(described["properties"]) == set(report)
    assert set(described["properties"]["findings"]["items"]["properties"]["rule"]["enum"]) == set(RULES)


@pytest.mark.parametrize("command", ["analyze", "verify"])
def test_a_schema_is_a_schema_and_refuses(command):
    described = schema(command)
    jsonschema.Draft202012Validator.check_schema(described)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": described["properties"]["schema_version"]["const"]}, described)


def test_a_null_that_is_no_option_has_its_reason(capsys, file):
    """What was guessed, tied, masked or counted may be nothing; a number that is missing says why."""
    optional = {"assumed", "file", "tied_to", "calls", "looks_fixed", "scales", "mask", "scores", "fault", "trials"}
    optional |= {"seed", "m", "n", "curves"}
    for layer in as_json(capsys, file)["layers"]:
        missing = {key for key, value in layer.items() if value is None} - optional
        missing = {key for key in missing if not key.endswith("reason")}
        assert not missing or layer["reason"] or layer["chance_reason"], (layer["name"], missing)
    assert unexplained({"a": None}) == [".a"]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_first_lines_say_what_was_selected(capsys, file):
    first, second, *_ = printed(capsys, file).splitlines()
    assert re.fullmatch(rf"{re.escape(str(file))}: safetensors, 4\.\d+ kB read, seed 1", first)
    assert second == "5 of 7 tensors; left out: norm (1); bias (1)."
    first, second, *_ = printed(capsys, file, "--include", "fc*", "--exclude", "*2*").splitlines()
    assert second == "1 of 7 tensors; left out: not included (4); bias (1); excluded (1)."


def rows_of(table):
    return {row.split()[0]: row.split()[1:] for row in table.splitlines() if row.strip()}


def test_the_table_has_the_numbers(capsys, file):
    table = printed(capsys, file)
    title = next(row for row in table.splitlines() if row.startswith("layer "))
    titles = "layer shape density must keep % safe density by chance overlap by chance z persistence z"
    assert title.split() == titles.split()
    layers = {layer.name: layer for layer in analyze(file, seed=1).layers}
    for name, layer in layers.items():
        shape, density, must_keep, percent, safe, safe_by_chance, overlap, *_ = rows_of(table)[name]
        assert shape == "x".join(map(str, layer.shape))
        assert must_keep == f"{layer.critical}/{layer.weights}"
        assert (density, overlap) == (f"{layer.density:.4f}", f"{layer.overlap:.4f}")
        assert float(percent) == pytest.approx(100 * layer.critical / layer.weights, abs=0.01)
        assert safe_by_chance == ("-" if layer.kind == "conv" else f"{layer.safe_density_expected:.4f}")
        assert safe == f"{layer.safe_density:.4f}"


def test_alpha_is_no_title():
    assert not any("alpha" in title.title for title in FULL)


@pytest.mark.parametrize(
    ("columns", "titles"),
    [
        (300, ["layer", "shape", "density", "keep", "%", "overlap", "z", "z"]),
        (108, ["layer", "shape", "density", "keep", "%", "overlap", "z", "z"]),
        (107, ["layer", "keep", "%", "overlap", "z"]),
        (80, ["layer", "keep", "%", "overlap", "z"]),
        (79, ["layer", "must", "keep", "safe", "overlap", "z"]),
        (40, ["layer", "must", "keep", "safe", "overlap", "z"]),
    ],
)
def test_the_columns_follow_the_width(capsys, monkeypatch, file, columns, titles):
    monkeypatch.setenv("COLUMNS", str(columns))
    table = printed(capsys, file)
    header = table.partition("conv.weight")[0].split()
    assert all(title in header for title in titles)
    assert ("density" in header) == (columns >= 80)
    assert ("tence" in header) == (columns >= 108)
    assert max(len(row.rstrip()) for row in table.splitlines()[1:]) <= max(columns, 50)


@pytest.mark.parametrize("columns", ["", "0", "1", "19", "²", "-5", "300"])
def test_every_width_has_every_layer(capsys, monkeypatch, file, columns):
    monkeypatch.setenv("COLUMNS", columns)
    letters = "".join(printed(capsys, file).split())
    assert all(f"{layer.critical}/{layer.weights}" in letters for layer in analyze(file, seed=1).layers)


@pytest.mark.long
def test_what_the_scales_explain_stands_in_a_second_table(capsys, monkeypatch, file):
    assert "the scales of the neurons add" not in printed(capsys, file)
    table = printed(capsys, file, "--scales").partition("the scales of the neurons add")[2]
    rows = rows_of(table)
    layers = {layer.name: layer.scales for layer in analyze(file, seed=1, scales=True).layers}
    told = {name for name, scales in layers.items() if None not in (scales.overlap_z, scales.neural_persistence_z)}
    assert told
    for name in told:
        numbers = list(map(float, rows[name]))
        for key, shown in (("overlap", numbers[:4]), ("neural_persistence", numbers[4:])):
            shares, z = getattr(layers[name], key), getattr(layers[name], f"{key}_z")
            assert shown[:3] == pytest.approx(shares, abs=6e-5)
            assert shown[3] == pytest.approx(z, abs=0.06)
    assert rows["conv.weight"] == ["-"] * 8
    assert "Not told: The scales of neurons are not known for kernels (1)" in table
    monkeypatch.setenv("COLUMNS", "60")
    narrow = printed(capsys, file, "--scales").partition("the scales")[2].partition("Findings")[0]
    assert max(len(row.rstrip()) for row in narrow.splitlines()) <= 60
    assert "overlap" in narrow
    assert "persistence" not in narrow


def test_a_name_is_folded_between_its_parts():
    name = "model.layers.31.mlp.up_proj.weight[3 gate]"
    for width in range(1, 50):
        lines = folded(name, width)
        assert "".join(lines) == name
        assert all(len(line) <= max(width, len(".up_proj")) for line in lines)


MANY = {f"model.layers.{i}.mlp.{name}.weight": weights(6, 8) for i in range(35) for name in ("up_proj", "down_proj")}


@pytest.fixture
def many(tmp_path):
    path = tmp_path / "many.safetensors"
    save_file({**MANY, "head.weight": weights(4, 6)}, path)
    return path


def test_many_layers_have_a_row_for_each_pattern(capsys, many):
    table = printed(capsys, many)
    rows = rows_of(table)
    layers = [layer for layer in analyze(many, seed=1).layers if "up_proj" in layer.name]
    number, shape, median, worst, *_, z_median, z_worst = rows["model.layers.*.mlp.up_proj.weight"][:8]
    assert (number, shape, rows["head.weight"][0]) == ("35", "6x8", "1")
    shares = [100 * layer.critical / layer.weights for layer in layers]
    assert (float(median), float(worst)) == pytest.approx((np.median(shares), max(shares)), abs=0.01)
    deviations = [layer.overlap_z for layer in layers]
    assert (float(z_median), float(z_worst)) == pytest.approx((np.median(deviations), min(deviations)), abs=0.06)
    assert "The 10 whose largest weights hold least, against chance; --all shows every layer." in table
    least = sorted(analyze(many, seed=1).layers, key=lambda layer: layer.overlap_z)[:10]
    assert [row.split()[0] for row in table.splitlines() if re.match(r"model\.layers\.\d", row)][:10] == [
        layer.name for layer in least
    ]


def test_all_shows_every_layer(capsys, many):
    assert set(MANY) <= set(rows_of(printed(capsys, many, "--all")))
    assert not set(MANY) <= set(rows_of(printed(capsys, many)))


@pytest.mark.parametrize("columns", ["40", "79", "80", "108"])
def test_patterns_fit_every_width(capsys, monkeypatch, many, columns):
    monkeypatch.setenv("COLUMNS", columns)
    table = printed(capsys, many)
    assert max(len(row.rstrip()) for row in table.splitlines()[1:]) <= max(int(columns), 50)
    assert "layers.*" in table.replace("\n", "").replace(" ", "")


def test_rows_are_sorted_by_a_column(capsys, file, many):
    names = [layer.name for layer in sorted(analyze(file, seed=1).layers, key=lambda layer: layer.weights)]
    shown = [
        row.split() for row in printed(capsys, file, "--columns", "name,weights", "--sort", "weights").splitlines()
    ]
    assert [row[1] for row in shown[3 : 3 + len(names)]] == [
        str(size) for size in sorted(layer.weights for layer in analyze(file, seed=1).layers)
    ]
    table = printed(capsys, file, "--sort", "-weights", "--columns", "name,weights")
    assert table.splitlines()[3].split() == ["fc1.weight", "600"]
    table = printed(capsys, file, "--sort", "safe_density_expected")  # of the kernel there is none
    assert [row for row in table.splitlines() if re.match(r"\S+\.weight\S*  ", row)][-1].startswith("conv.weight")
    assert "The 10 first by rms" in printed(capsys, many, "--sort", "rms")
    assert "The 10 last by rms" in printed(capsys, many, "--sort", "-rms")


def test_columns_by_their_names(capsys, file):
    header, *rows = printed(capsys, file, "--columns", "name,kind,safe_density_low,critical_ratio").splitlines()[2:]
    assert header.split() == ["name", "kind", "safe_density_low", "critical_ratio"]
    layers = analyze(file, seed=1).layers
    for row, layer in zip(rows, layers, strict=False):
        name, kind, low, ratio = row.split()
        assert (name, kind) == (layer.name, layer.kind)
        assert low == ("-" if layer.safe_density_range is None else f"{layer.safe_density_range[0]:.6g}")
        assert ratio == f"{layer.critical_ratio:.6g}"


def test_every_column_can_be_shown_and_sorted_by(capsys, file):
    names = column_names()
    assert checked_columns("columns", names) == names
    printed(capsys, file, "--columns", ",".join(names))
    for name in ("shape", "calls", "overlap_share_of_scales"):
        printed(capsys, file, "--sort", name)


def test_findings_are_told_once_a_rule(capsys, tmp_path):
    dead = weights(20, 30)
    dead[3] = 0
    save_file({f"a{i}.weight": dead for i in range(6)} | {"b.weight": np.zeros((3, 4))}, tmp_path / "w.safetensors")
    table = printed(capsys, tmp_path / "w.safetensors")
    assert (
        "warning dead-neurons: a0.weight: 1 output has only zeros. Also a1.weight, a2.weight, a3.weight and 2 more."
        in table
    )
    assert "warning all-zero: b.weight: All its 12 weights are zero." in table


# -- files -------------------------------------------------------------------------------------------------------------


def test_csv_has_all_layers_and_columns(capsys, many, tmp_path):
    printed(capsys, many, "--csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    layers = analyze(many, seed=1).layers
    assert list(rows[0]) == column_names()
    assert [row["name"] for row in rows] == [layer.name for layer in layers]
    assert [float(row["overlap_z"]) for row in rows] == [layer.overlap_z for layer in layers]
    assert {row["shape"] for row in rows} == {"6x8", "4x6"}


def test_parquet_and_frames_have_the_same(capsys, file, tmp_path):
    printed(capsys, file, "--parquet", tmp_path / "out.parquet", "--scales")
    table = parquet.read_table(tmp_path / "out.parquet")
    shares = {
        f"{key}_share_of_{of}" for key in ("overlap", "neural_persistence") for of in ("values", "scales", "rest")
    }
    assert set(table.column_names) == {*column_names(), *shares, "overlap_scales_z", "neural_persistence_scales_z"}
    report = analyze(file, seed=1, scales=True)
    for backend in ("pandas", "polars", "pyarrow"):
        frame = report.to_frame(backend)
        assert list(frame.columns if backend != "pyarrow" else frame.column_names) == table.column_names
    assert isinstance(report.to_frame(), pd.DataFrame)
    assert table.to_pydict()["critical_ratio"] == [layer.critical_ratio for layer in report.layers]
    shares = table.to_pydict()
    for row, layer in enumerate(report.layers):
        if layer.scales.overlap:
            assert sum(shares[f"overlap_share_of_{of}"][row] for of in ("values", "scales", "rest")) == pytest.approx(1)


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
def test_an_output_is_a_file_in_a_folder(capsys, file, tmp_path, option):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent/x", "folder", "pipe", "/dev/null", "/dev/stdout"):
        message = refused(capsys, file, option, tmp_path / name)
        assert message.startswith(
            f"Error: Argument '{option}' must be the name of a file in a folder that exists, not "
        )
    assert refused(capsys, file, option, file).startswith(f"Error: Argument '{option}' must be another file than ")
    assert file.stat().st_size > 4000


def test_a_file_is_replaced_whole(capsys, file, tmp_path):
    (tmp_path / "out.csv").write_text("old")
    printed(capsys, file, "--csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("name,kind,")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "small.safetensors"]


def test_parquet_without_its_extra_is_refused_before_anything_is_read(capsys, monkeypatch, file, tmp_path):
    monkeypatch.setattr("topobounds._records.find_spec", lambda name: None)
    assert "pip install -e '.[frames]'" in refused(capsys, tmp_path / "absent", "--parquet", tmp_path / "out")
    printed(capsys, file, "--csv", tmp_path / "out.csv")


# -- exit codes and errors ---------------------------------------------------------------------------------------------


def test_the_exit_code_is_of_the_findings_that_are_named(capsys, tmp_path):
    save_file({"a.weight": np.zeros((3, 4)), "b.weight": weights(3, 4)}, tmp_path / "w.safetensors")
    statuses = {rule: run(capsys, tmp_path / "w.safetensors", "--fail-on", rule)[0] for rule in RULES}
    assert (statuses["all-zero"], statuses["damaged"], statuses["not-finite"]) == (1, 0, 0)
    status, out, err = run(
        capsys, tmp_path / "w.safetensors", "--fail-on", "damaged", "--fail-on", "all-zero", "--json"
    )
    assert (status, err) == (1, "")
    jsonschema.validate(json.loads(out), schema("analyze"))


def test_one_bad_tensor_is_left_out(capsys, tmp_path):
    bad = weights(3, 4)
    bad[1, 2] = np.nan
    save_file({"a.weight": bad, "b.weight": weights(3, 4)}, tmp_path / "w.safetensors")
    record = as_json(capsys, tmp_path / "w.safetensors")
    assert [layer["name"] for layer in record["layers"]] == ["b.weight"]
    (finding,) = (each for each in record["findings"] if each["severity"] == "error")
    assert (finding["rule"], finding["layer"]) == ("not-finite", "a.weight")
    assert "row 1, column 2" in finding["text"]
    assert run(capsys, tmp_path / "w.safetensors", "--fail-on", "not-finite")[0] == 1
    save_file({"a.weight": bad}, tmp_path / "w.safetensors")
    assert "not finite" in refused(capsys, tmp_path / "w.safetensors")


def test_a_file_without_layers_is_refused_with_the_commonest_reason(capsys, tmp_path):
    save_file({"a.bias": weights(3), "b.bias": weights(3), "bn.weight": weights(3)}, tmp_path / "w.safetensors")
    message = refused(capsys, tmp_path / "w.safetensors")
    assert "3 tensors" in message
    assert "2 of them: bias" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--include", "fc3*"], ["'--include'", "fc3*", "fc"]),
        (["--exclude", "nothing*"], ["'--exclude'", "nothing*"]),
        (["--columns", "name,overlp"], ["'--columns'", "'overlap'", "not 'overlp'"]),
        (["--columns", ""], ["'--columns'", "'name'"]),
        (["--sort", "criticalratio"], ["'--sort'", "'critical_ratio'"]),
        (["--sort", "-criticalratio"], ["'--sort'", "'critical_ratio'"]),
        (["--fail-on", "dead-neuron"], ["'--fail-on'", "'dead-neurons'"]),
        (["--jobs", "0"], ["'--jobs'"]),
        (["--trials", "1"], ["'--trials'", "at least 2"]),
        (["--trials", "-1"], ["'--trials'"]),
        (["--seed", "-1"], ["'--seed'"]),
        (["--input", "3xx2"], ["'--input'", "3x3"]),
        (["--mask", "absent.npz"], ["absent.npz"]),
        (["--scores", "absent.npz"], ["absent.npz"]),
        (["--geometry", "absent.toml"], ["absent.toml"]),
        (["--csv", "absent/out.csv"], ["'--csv'"]),
        (["--csv", ""], ["'--csv'"]),
        (["--mask", ""], ["the name of a file"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
    ids=str,
)
def test_bad_arguments_are_one_line(capsys, file, options, words):
    message = refused(capsys, file, *options)
    assert all(word in message for word in words), message


def test_masks_and_scores_of_other_names_and_shapes_are_refused(capsys, file, tmp_path):
    for option in ("--mask", "--scores"):
        np.savez(tmp_path / "other.npz", **{"fc1.wight": np.ones((20, 30))})
        assert "fc1.weight" in refused(capsys, file, option, tmp_path / "other.npz")
        np.savez(tmp_path / "other.npz", **{"fc1.weight": np.ones((30, 20))})
        message = refused(capsys, file, option, tmp_path / "other.npz")
        assert "(20, 30)" in message
        assert "(30, 20)" in message


def test_masks_and_scores(capsys, file, tmp_path):
    mask = np.ones((20, 30), bool)
    mask[4] = False
    np.savez(tmp_path / "mask.npz", **{"fc1.weight_mask": mask})
    record = as_json(capsys, file, "--mask", tmp_path / "mask.npz")
    (layer,) = (layer for layer in record["layers"] if layer["name"] == "fc1.weight")
    assert (layer["nonzero"], layer["dead_outputs"]) == (570, 1)
    np.savez(tmp_path / "scores.npz", **{"fc1.weight": np.arange(600.0).reshape(20, 30) + 1})
    record = as_json(capsys, file, "--scores", tmp_path / "scores.npz", "--include", "fc1*")
    assert [layer["name"] for layer in record["layers"]] == ["fc1.weight"]
    assert record["layers"][0]["rms"] == pytest.approx(float(np.sqrt((TENSORS["fc1.weight"] ** 2).mean())), rel=1e-5)


def test_what_is_no_checkpoint_is_refused(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("absent.safetensors", "notes.txt", "pipe.safetensors", "."):
        assert str(tmp_path) in refused(capsys, tmp_path / name)
    assert "PATH" in refused(capsys).upper()
    assert "'path'" in refused(capsys, "").lower()


# -- terminals, pipes and signals --------------------------------------------------------------------------------------


def test_names_are_escaped(capsys, tmp_path):
    path = tmp_path / "f\x1b[31m.safetensors"
    bad = np.full((3, 4), np.inf)
    save_file({HOSTILE: weights(4, 3), f"2{HOSTILE}": bad, f"3{HOSTILE}": np.zeros((4, 3))}, path)
    for options in ([], ["--columns", "name,tensor"] if "tensor" in column_names() else ["--columns", "name"]):
        shown = printed(capsys, path, *options)
        assert not set(shown) & set("\x1b\x07\u202e")
        assert r"a\x1b[31mRED\n" in shown
    assert {layer["name"] for layer in as_json(capsys, path)["layers"]} == {HOSTILE, f"3{HOSTILE}"}
    save_file({HOSTILE: bad}, path)
    assert r"\x1b[31m" in refused(capsys, path)


@pytest.mark.parametrize("flag", [[], pytest.param(["--json"], marks=pytest.mark.long)])
def test_a_pipe_that_is_closed_early_ends_quietly(file, flag):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "topobounds", "analyze", str(file), *flag]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True) as started:
        os.close(write)
        _, errors = started.communicate(timeout=120)
    assert errors.count("\n") <= 1
    assert "Traceback" not in errors


def test_any_surroundings(file, tmp_path):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), "/proc/none")
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error"}
    done = process(file, "--seed", 1, **nowhere, **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "fc1.weight" in done.stdout


def test_one_seed_gives_one_result_whatever_the_jobs(capsys, file):
    assert printed(capsys, file, "--json", "--jobs", 1) == printed(capsys, file, "--json", "--jobs", 4)


def in_a_terminal(*arguments, until=None):
    """Return status, and what a command writes to a terminal that only stderr is; interrupted when `until` is there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "topobounds", "analyze", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as printed, subprocess.Popen(command, stdout=printed, stderr=theirs) as started:
        os.close(theirs)
        content = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how a terminal that was left ends
                break
            content += chunk
            if until is not None and re.search(until, content.decode(errors="replace")):
                until = None
                started.send_signal(signal.SIGINT)
        os.close(ours)
        status = started.wait(timeout=120)
        printed.seek(0)
        return status, printed.read(), content.decode()


def test_a_bar_is_on_stderr_of_a_terminal_only(tmp_path):
    save_file({f"layer{i}.weight": weights(400, 400) for i in range(4)}, tmp_path / "w.safetensors")
    status, out, terminal = in_a_terminal(tmp_path / "w.safetensors", "--seed", 1)
    assert status == 0
    assert re.search(r"\d\.\d/2\.6 MB", terminal)
    assert re.search(r"layer\d\.weight", terminal)
    assert "\x1b" not in out


@pytest.mark.long
def test_what_is_done_when_interrupted_is_printed(tmp_path):
    layers = dict.fromkeys((f"layer{i:02}.weight" for i in range(40)), weights(1500, 1500))
    save_file(layers, tmp_path / "w.safetensors")
    started = time.monotonic()
    status, out, terminal = in_a_terminal(
        tmp_path / "w.safetensors", "--json", "--jobs", 1, until=r"layer(0[1-9]|[1-3]\d)\.weight"
    )
    assert time.monotonic() - started < 60
    assert status == 130
    assert terminal.rstrip().endswith("Interrupted.")
    record = json.loads(out)
    jsonschema.validate(record, schema("analyze"))
    assert 1 <= len(record["layers"]) < 40
    reasons = {each["reason"] for each in record["left_out"]}
    assert reasons == {checkpoint.INTERRUPTED}


def test_an_interrupted_report_is_shown_as_a_table(capsys, monkeypatch, file):
    report = analyze(file, seed=1)

    def interrupted(*arguments, **options):
        raise checkpoint.Interrupted(report)

    monkeypatch.setattr(checkpoint, "analyze", interrupted)
    status, out, err = run(capsys, file)
    assert (status, err) == (130, "Interrupted.\n")
    assert "fc1.weight" in out


# -- published networks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers", "kinds"),
    [
        ("resnet20-12fca82f.th", 20, {"conv": 19, "dense": 1}),
        ("resnet56-4bfd9763.th", 56, {"conv": 55, "dense": 1}),
        ("mnist_6_100_nat.pth", 6, {"dense": 6}),
        ("mnist_fc_3layer.pth", 3, {"dense": 3}),
        ("mnist_lenet5.pth", 5, {"conv": 2, "dense": 3}),
        ("fashion_mnist_robust_cnn.pth", 4, {"conv": 2, "dense": 2}),
        ("silero_vad_16k.safetensors", 14, {"conv": 6, "dense": 4, "recurrent": 4}),
        ("g2p_gru_checkpoint20.npz", 15, {"embedding": 2, "dense": 7, "recurrent": 6}),
    ],
)
def test_published_networks_are_read(capsys, data_dir, name, layers, kinds):
    record = as_json(capsys, data_dir / "checkpoints" / name, "--trials", 2)
    found = [layer["kind"] for layer in record["layers"]]
    assert {kind: found.count(kind) for kind in found} == kinds
    assert len(found) == layers
    fixed = [finding["layer"] for finding in record["findings"] if finding["rule"] == "looks-fixed"]
    assert fixed == (["stft_conv.weight"] if name.startswith("silero") else [])
