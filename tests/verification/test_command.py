"""`topobounds verify` as a command."""

import contextlib
import json
import math
import os
import shlex
import zipfile
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from tests.command_line import process, topobounds
from tests.verification.cases import at_density, blocked, exchangeable
from topobounds import analyze
from topobounds.cli import main
from topobounds.verification import CLAIMS, verify, write_witnesses

KEYS = {"claim", "m", "n", "density", "support", "distribution", "bound", "estimate", "standard_error"}


KEYS |= {"confidence_interval", "trials", "verdict"}


def json_checks(*arguments, start=topobounds):
    run = start("verify", *arguments, "--json")
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)["checks"]


def test_the_command_finds_the_false_corollary():
    names = ["theorem_3_3", "corollary_3_4", "component_identity"]
    chosen = [word for name in names for word in ("--claim", name)]
    found = json_checks("--m", 784, "--n", 300, "--density", 0.1, "--seed", 1, *chosen)
    assert all(set(check) >= KEYS for check in found)
    assert found == [at_density(0.1)[name].to_dict() for name in names]
    corollary = found[1]
    assert corollary["verdict"] == "violated"
    assert corollary["witness"]["seed"] == 1


def test_the_command_prints_a_table_and_the_command_that_shows_it_again(tmp_path):
    arguments = ["--m", 60, "--n", 50, "--density", 0.12, "--trials", 32, "--seed", 4]
    run = topobounds("verify", *arguments, "--strict", "--witness", tmp_path / "w.json")
    assert (run.returncode, run.stderr) == (1, "")
    lines = run.stdout.splitlines()
    assert lines[0].startswith("60 x 50, distribution none, seed 4")
    (row,) = (line for line in lines if line.startswith("corollary_3_4 "))
    assert row.split()[-1] == "violated"
    (again,) = (line.removeprefix("Again: topobounds") for line in lines if line.startswith("Again: "))
    assert len(again) > 120, "on one line, to be pasted"
    assert topobounds(*shlex.split(again), "--strict").returncode == 1
    replayed = topobounds("verify", "--replay", tmp_path / "w.json", "--strict")
    assert replayed.returncode == 1
    assert "Violated: corollary_3_4." in replayed.stdout


def test_it_is_said_that_no_witness_is_written_where_nothing_is_violated(tmp_path):
    arguments = ["verify", "--m", 8, "--n", 6, "--claim", "theorem_3_3", "--seed", 1]
    with contextlib.chdir(tmp_path):
        run = topobounds(*arguments, "--witness", "w.json", "--json")
    assert (run.returncode, run.stderr) == (0, "No claim is violated, so w.json is not written.\n")
    assert run.stdout == topobounds(*arguments, "--json").stdout
    assert not (tmp_path / "w.json").exists()


def test_a_witness_that_says_something_else_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--m", "60", "--n", "50", "--density", "0.12", "--trials", "32", "--seed", "4", "--json"]
    with pytest.raises(SystemExit):
        main(["verify", *arguments, "--claim", "corollary_3_4", "--witness", "w.json"])
    capsys.readouterr()
    record = json.loads(Path("w.json").read_text())
    record["witnesses"][0]["estimate"] = -1
    Path("w.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit) as left:
        main(["verify", "--replay", "w.json"])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith("Error: Witness 1 of w.json cannot be replayed: its 'estimate' is -1.0, but 0.")
    assert len(err.splitlines()) == 1


def test_the_help_lists_the_claims(capsys):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    words = capsys.readouterr().out.split()
    assert set(CLAIMS) <= set(words)


def test_strict_is_calm_where_nothing_is_violated():
    assert topobounds("verify", "--m", 8, "--n", 6, "--claim", "theorem_3_3", "--strict").returncode == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be taken away here")
def test_one_seed_gives_one_result_whatever_the_processors():
    arguments = ("--m", 100, "--n", 80, "--density", 0.2, "--seed", 9, "--claim", "enclosure")
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        alone = json_checks(*arguments, start=process)
    finally:
        os.sched_setaffinity(0, processors)
    assert alone == json_checks(*arguments)


def test_the_command_on_files(tmp_path):
    np.savez(tmp_path / "layers.npz", fair=exchangeable(), unfair=blocked(), bias=np.ones(3))
    found = json_checks(tmp_path / "layers.npz", "--claim", "exchangeable", "--claim", "component_identity")
    assert [(c["tensor"], c["claim"], c["verdict"]) for c in found] == [
        ("fair", "component_identity", "holds"),
        ("fair", "exchangeable", "holds"),
        ("unfair", "component_identity", "holds"),
        ("unfair", "exchangeable", "violated"),
    ]
    found = json_checks(
        tmp_path / "layers.npz", "--tensor", "unfair", "--distribution", "shuffled", "--claim", "star_bound"
    )
    assert [(c["tensor"], c["verdict"]) for c in found] == [("unfair", "holds")]
    printed = " ".join(topobounds("verify", tmp_path / "layers.npz", "--tensor", "unfair", "--seed", 2).stdout.split())
    assert "unfair: 200 x 100, distribution given, seed 2" in printed
    assert "--tensor unfair" in printed


def test_a_file_is_read_as_analyze_reads_it(tmp_path):
    """Gates are matrices of their own; kernels, integers, masks and what is no weight are left out, and said to be."""
    rng = np.random.default_rng(0)
    tensors = {
        "conv.weight": rng.standard_normal((4, 3, 3, 3)),
        "rnn.weight_ih_l0": rng.standard_normal((32, 5)),
        "rnn.weight_hh_l0": rng.standard_normal((32, 8)),
        "attn.in_proj_weight": rng.standard_normal((18, 6)),
        "fc.weight": rng.standard_normal((7, 8)),
        "fc.bias": rng.standard_normal(7),
        "ids": np.arange(12).reshape(3, 4),
        "mask": np.eye(4, dtype=bool),
    }
    np.savez(tmp_path / "w.npz", **tensors)
    run = topobounds("verify", tmp_path / "w.npz", "--claim", "component_identity", "--json", "--seed", 1)
    record = json.loads(run.stdout)
    jsonschema.validate(record, json.loads(files("topobounds").joinpath("schemas", "verify.json").read_text()))
    layers = [layer for layer in analyze(tensors, seed=1).layers if layer.kind != "conv"]
    assert [check["tensor"] for check in record["checks"]] == [layer.name for layer in layers]
    assert "rnn.weight_hh_l0[forget]" in {layer.name for layer in layers}
    assert all(
        {check["m"], check["n"]} == {layer.m, layer.n} for check, layer in zip(record["checks"], layers, strict=True)
    )
    reasons = {each["name"]: each["reason"] for each in record["left_out"]}
    assert set(reasons) == {"conv.weight", "fc.bias", "ids", "mask"}
    assert reasons["conv.weight"] == "kernel of a convolution, of which the claims say nothing"
    printed = topobounds("verify", tmp_path / "w.npz", "--claim", "component_identity", "--seed", 1).stdout
    assert printed.startswith("12 matrices; left out: ")
    for name, tested in (("rnn.weight_hh_l0", 4), ("rnn.weight_hh_l0[cell]", 1), ("fc.weight", 1)):
        assert len(json_checks(tmp_path / "w.npz", "--claim", "component_identity", "--tensor", name)) == tested
    for name, words in (
        ("conv.weight", "kernel of a convolution"),
        ("ids", "buffer (int64)"),
        ("fc", "no tensor 'fc'"),
    ):
        run = topobounds("verify", tmp_path / "w.npz", "--tensor", name)
        assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
        assert words in run.stderr


def test_a_tied_tensor_is_tested_by_either_name(tmp_path):
    shared = torch.from_numpy(exchangeable())
    torch.save({"embed.weight": shared, "head.weight": shared, "other.weight": shared + 1}, tmp_path / "w.pt")
    tested = [
        [check["tensor"] for check in json_checks(tmp_path / "w.pt", "--claim", "component_identity", *options)]
        for options in ([], ["--tensor", "head.weight"], ["--tensor", "embed.weight"])
    ]
    assert tested == [["embed.weight", "other.weight"], ["embed.weight"], ["embed.weight"]]


def test_a_damaged_tensor_does_not_hide_the_others(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones((3, 4)), b=exchangeable())
    with zipfile.ZipFile(tmp_path / "w.npz") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", contents["a.npy"][:-8])
        archive.writestr("b.npy", contents["b.npy"])
    run = topobounds("verify", tmp_path / "w.npz", "--claim", "exchangeable", "--json", "--seed", 1)
    record = json.loads(run.stdout)
    assert [check["tensor"] for check in record["checks"]] == ["b"]
    assert "is damaged" in record["left_out"][0]["reason"]
    run = topobounds("verify", tmp_path / "w.npz", "--tensor", "a")
    assert (run.returncode, run.stdout) == (2, "")
    assert "tensor 'a', is damaged" in run.stderr


@pytest.fixture
def bad_files(tmp_path):
    np.save(tmp_path / "nan.npy", np.array([[1.0, math.nan], [2.0, 3.0]]))
    np.save(tmp_path / "fair.npy", exchangeable())
    np.save(tmp_path / "zeros.npy", np.zeros((3, 3)))
    np.savez(tmp_path / "vectors.npz", bias=np.ones(3))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:-4])
    (tmp_path / "weights.pt").write_bytes(b"PK")
    (tmp_path / "no.json").write_text("{}")
    (tmp_path / "half.json").write_text('{"format": "topobounds witnesses", "version": 1, "witnesses": [{"m": 3}]}')
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "exactly one"),
        (["--m", "3"], "--n"),
        (["--n", "3"], "--m"),
        (["--m", "0", "--n", "3"], "'--m'"),
        (["--m", "3", "--n", "3", "nan.npy"], "--m and FILE"),
        (["--replay", "no.json", "--confidence", "0.999"], "--confidence does not go with --replay"),
        (["nan.npy", "--density", "0.5"], "--density does not go with FILE"),
        (["nan.npy", "--support", "star"], "--support does not go with FILE"),
        (["fair.npy", "--distribution", "cauchy"], "'--distribution' must be one of 'given', 'shuffled'"),
        (["--m", "3", "--n", "3", "--tensor", "a"], "--tensor does not go with --m"),
        (["--replay", "no.json", "--seed", "1"], "--seed does not go with --replay"),
        (["--m", "3", "--n", "3", "--claim", "lemma_1"], "'lemma_1'"),
        (["--m", "3", "--n", "3", "--confidence", "2"], "'--confidence'"),
        (["--m", "3", "--n", "3", "--density", "1e-3"], "'--density'"),
        (["--m", "2147483646", "--n", "1"], "Arguments '--m' and '--n' must add up to at most 16777216"),
        (
            ["--m", "3", "--n", "3", "--witness", ""],
            "'--witness' must be the name of a file or folder, not ''",
        ),
        (
            ["--m", "3", "--n", "3", "--witness", "no/w"],
            "'--witness' must be the name of a file in a folder that exists",
        ),
        (["--replay", ""], "'--replay' must be the name of a file or folder, not ''"),
        (["--replay", "."], ". could not be read: Is a directory."),
        (["nan.npy"], "nan.npy, tensor 'nan': Argument 'weights' must be finite, but 1 of its 4"),
        (["zeros.npy"], "zeros.npy, tensor 'zeros': Argument 'weights' must hold a weight other than zero"),
        (["vectors.npz"], "no matrix in vectors.npz"),
        (["vectors.npz", "--tensor", "bias"], "no matrix in tensor 'bias' of vectors.npz"),
        (["vectors.npz", "--tensor", "head"], "vectors.npz has no tensor 'head'"),
        (["cut.npy"], "cut.npy is damaged"),
        (["absent.safetensors"], "absent.safetensors could not be read"),
        (["weights.pt"], "weights.pt is damaged, or no file of torch: it cannot be unpickled as weights alone"),
        (["--replay", "no.json"], "no.json is no witness file"),
        (["--replay", "half.json"], "Witness 1 of half.json cannot be replayed"),
        (["--replay", "absent.json"], "absent.json could not be read: No such file or directory."),
    ],
)
def test_bad_input_gets_one_line(bad_files, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(bad_files)
    with pytest.raises(SystemExit) as left:
        main(["verify", *arguments])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert named in err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that even root cannot write to")
def test_nothing_is_printed_if_the_witness_cannot_be_written():
    target = "/proc/w.json"
    arguments = ["--m", 60, "--n", 50, "--density", 0.12, "--trials", 32, "--seed", 4, "--claim", "corollary_3_4"]
    run = topobounds("verify", *arguments, "--witness", target, "--json")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"Error: {target} could not be written: No such file or directory.\n"


def test_bad_input_in_a_process(bad_files):
    run = process("verify", "nan.npy", "--json", cwd=bad_files)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Error: nan.npy, tensor 'nan': Argument 'weights' must be finite")
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_matrix_that_is_not_finite_is_one_line(tmp_path):
    weights = exchangeable()
    weights[3, 5] = np.nan
    np.savez(tmp_path / "a.npz", broken=weights, fair=exchangeable())
    run = topobounds("verify", tmp_path / "a.npz", "--seed", 1)
    (line,) = (line for line in run.stdout.splitlines() if "broken" in line)
    assert line.startswith(f"Not tested: {tmp_path / 'a.npz'}, broken: ")
    assert line.endswith("1 of its 20000 entries are NaN or infinite, the first at row 3, column 5: nan.")
    assert sum(line.startswith("theorem_3_2") for line in run.stdout.splitlines()) == 1


def test_rows_of_one_claim_tell_their_k(tmp_path, capsys):
    """A file may hold witnesses of one claim at several k; they are printed in one table."""
    found = [verdict for k in (150, 299) for verdict in verify(weights=blocked(), k=k, claims=["enclosure"], seed=1)]
    assert write_witnesses(tmp_path / "w.json", found, blocked()) == 2
    with pytest.raises(SystemExit):
        main(["verify", "--replay", str(tmp_path / "w.json")])
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines() if line.startswith("enclosure")] == [
        "enclosure (k = 150)",
        "enclosure (k = 299)",
    ]
    assert "Violated: enclosure (k = 150)" in out
    assert [" --k 150 " in line for line in out.splitlines() if line.startswith("Again: ")] == [True, False]
