"""The command line, as a process."""

import json
import math
import os
import shlex
import subprocess
import sys

import pytest


def topobounds(*arguments, options=(), **environment):
    command = [sys.executable, *options, "-m", "topobounds", *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=variables)


def as_json(*arguments):
    run = topobounds(*arguments, "--json")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


def test_help_imports_no_numerical_library():
    run = topobounds("--help", options=["-X", "importtime"])
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert run.returncode == 0
    assert {"overlap", "compression", "figures"} <= set(run.stdout.split())
    assert not imported & {"numpy", "numba", "scipy", "sympy", "matplotlib", "torch", "gudhi"}


def test_a_short_overlap_loads_no_compiler():
    run = topobounds("overlap", "--m", "784", "--n", "300", options=["-X", "importtime"])
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert run.returncode == 0
    assert "numpy" in imported
    assert not imported & {"numba", "scipy", "sympy", "matplotlib", "torch", "gudhi"}


def test_overlap_784_300():
    report = as_json("overlap", "--m", "784", "--n", "300", "--seed", "7")
    assert {"m", "n", "k", "density", "alpha", "eta_tau", "theorem_3_3", "corollary_3_4", "monte_carlo"} <= set(report)
    assert {"star_bound", "boruvka_bound", "enclosure", "limit", "exact"} <= set(report)
    assert 0.799621 <= report["enclosure"][0] <= report["enclosure"][1] <= 0.799663  # THEORY 4.4
    assert report["exact"] is None
    assert (report["alpha"], report["k"], report["corollary_3_4"]) == (1083, 1083, None)
    assert report["eta_tau"] == pytest.approx(235200 / 1083, rel=1e-15)
    assert report["theorem_3_3"]["value"] == pytest.approx(0.1213, abs=5e-5)
    assert report["theorem_3_3"]["status"] == "proved"
    simulated = report["monte_carlo"]
    assert (simulated["trials"], simulated["seed"]) == (200, 7)
    assert abs(simulated["mean"] - 0.799607) < 5 * simulated["standard_error"]


def test_overlap_at_a_density():
    report = as_json("overlap", "--m", "784", "--n", "300", "--density", "0.1", "--seed", "1")
    assert report["corollary_3_4"]["value"] == 1.0
    assert report["corollary_3_4"]["status"] == "false"
    assert report["monte_carlo"]["mean"] < 0.82


def test_overlap_without_trials_and_at_another_k():
    report = as_json("overlap", "--m", "30", "--n", "20", "--k", "100", "--trials", "0")
    assert report["monte_carlo"] is None
    assert report["theorem_3_3"]["value"] is None
    assert "49" in report["theorem_3_3"]["reason"]


def test_exact_and_latex():
    report = as_json("overlap", "--m", "4", "--n", "4", "--exact", "--latex", "--trials", "0")
    assert report["exact"] == "346/385"
    assert report["enclosure"][0] <= 346 / 385 <= report["enclosure"][1]
    printed = topobounds("overlap", "--m", "4", "--n", "4", "--latex").stdout
    assert printed.strip() == report["latex"]
    assert printed.startswith(r"\begin{align*}")


def test_one_trial_has_no_standard_error():
    assert as_json("overlap", "--m", "3", "--n", "3", "--trials", "1")["monte_carlo"]["standard_error"] is None


def test_a_seed_gives_one_result():
    runs = [topobounds("overlap", "--m", "40", "--n", "30", "--seed", "3").stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert "seed 3" in runs[0]


def test_overlap_prints_sentence_line_and_table():
    out = topobounds("overlap", "--m", "784", "--n", "300", "--seed", "1").stdout
    assert out.startswith("A 784 x 300 layer: its 1083 largest weights of 235200 hold")
    line = next(row for row in out.splitlines() if row.startswith("0 |"))
    places = {mark: line.index(mark) - line.index("|") - 1 for mark in "Tsbc"}
    expected = {"T": 0.1213, "s": 0.5428, "b": 0.6132, "c": 0.7996}
    assert all(places[mark] == round(60 * value) for mark, value in expected.items())


def test_fewer_weights_than_neurons_are_called_what_they_are():
    out = topobounds("overlap", "--m", "784", "--n", "300", "--density", "0.001", "--seed", "1").stdout
    sentence = " ".join(out.split("0 |")[0].split())
    assert "its 235 largest weights of 235 hold" in sentence
    assert "1083" not in sentence  # a support of 235 cells has no spanning tree


def test_a_narrow_terminal_cuts_no_number():
    wide = topobounds("compression", "--dense", "1" + "0" * 12, "1" + "0" * 12, COLUMNS="400").stdout
    narrow = topobounds("compression", "--dense", "1" + "0" * 12, "1" + "0" * 12, COLUMNS="40").stdout
    assert "…" not in narrow
    assert set(wide.split()) == set(narrow.split())
    overlap = [topobounds("overlap", "--m", "9", "--n", "9", "--seed", "1", COLUMNS=width) for width in ("400", "30")]
    words = [set(run.stdout.replace("-" * 10, " ").split()) for run in overlap]
    assert "certified" in words[1]
    assert {word for word in words[0] if word[-1].isalnum()} <= words[1]


def test_the_legend_breaks_between_its_entries():
    rows = topobounds("overlap", "--m", "784", "--n", "300", "--seed", "1", COLUMNS="80").stdout.splitlines()
    assert "    c certified" in rows


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_failure(closed):
    command = f"{shlex.quote(sys.executable)} -m topobounds verify --m 7 --n 3 --trials 2 {closed}"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["overlap", "--m", "0", "--n", "3"], "Argument '--m' must be a positive integer, not 0."),
        (["overlap", "--m", "abc", "--n", "3"], "Argument '--m' must be a positive integer, not 'abc'."),
        (["overlap", "--m", "3.5", "--n", "3"], "not '3.5'"),
        (["overlap", "--m", "3"], "--n"),
        (["overlap", "--m", "3", "--n", "3", "--k", "10"], "from 0 to 9, not 10"),
        (["overlap", "--m", "9", "--n", "9", "--density", "0"], "a number in (0, 1], not 0.0"),
        (["overlap", "--m", "9", "--n", "9", "--density", "1.5"], "not 1.5"),
        (["overlap", "--m", "9", "--n", "9", "--density", "nan"], "not nan"),
        (["overlap", "--m", "9", "--n", "9", "--density", "half"], "not 'half'"),
        (["overlap", "--m", "9", "--n", "9", "--trials", "-1"], "non-negative"),
        (["overlap", "--m", "9", "--n", "9", "--seed", "-1"], "--seed"),
        (["overlap", "--m", "9", "--n", "9", "--colour"], "--colour"),
        (["overlap", "--m", "784", "--n", "300", "--exact"], "expected_overlap"),
        (["overlap", "--m", "99999999999999999999", "--n", "3"], "add up to at most 16777216"),
        (["no-such-command"], "no-such-command"),
        (["compression"], "exactly one"),
        (["compression", "--dense", "3", "4", "--recurrent", "5"], "--dense, --recurrent"),
        (["compression", "--dense", "3", "0"], "--dense"),
        (["compression", "--dense", "3", "4", "--kernel", "3x3"], "--conv"),
        (["compression", "--conv", "1", "2", "--kernel", "3x3"], "--input"),
        (["compression", "--conv", "1", "2", "--kernel", "3y3", "--input", "8x8"], "not '3y3'"),
        (["compression", "--conv", "1", "2", "--kernel", "3x3", "--input", "8"], "input_size"),
        (["compression", "--conv", "16", "16", "--kernel", "9x9", "--input", "4x4"], "9 taps"),
        (["compression", "--conv", "3", "4", "--kernel", "1x1", "--input", "4x4", "--groups", "2"], "groups"),
        (["compression", "--conv", "3", "4", "--kernel", "1", "--input", "4", "--stride", "0"], "stride"),
        (["compression", "--architecture", "vgg11"], "--dataset"),
        (["compression", "--architecture", "vgg19", "--dataset", "cifar10"], "resnet18/tiny-imagenet"),
    ],
)
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_bad_input_gets_one_line(arguments, named, json_flag):
    run = topobounds(*arguments, *json_flag)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.strip().splitlines()) == 1
    assert named in run.stderr


@pytest.mark.parametrize("group", [[], ["imp"]])
def test_nothing_asked_is_help(group):
    run = topobounds(*group)
    assert run.returncode == 0
    assert run.stdout.startswith(" ".join(["Usage: topobounds", *group]))


@pytest.mark.parametrize(
    ("arguments", "ratio"), [(["--dense", "784", "300"], 235200 / 1083), (["--recurrent", "128"], 128 * 128 / 255)]
)
def test_compression_without_sharing(arguments, ratio):
    report = as_json("compression", *arguments)
    assert report["paper"]["ratio"] == report["toeplitz"]["ratio"] == pytest.approx(ratio, rel=1e-15)
    assert report["toeplitz"]["components"] == 1
    assert report["shared"]["ratio"] is None
    assert report["shared"]["reason"]


def test_compression_of_a_convolution():
    geometry = ["--conv", "16", "16", "--kernel", "3x3", "--input", "8x8", "--padding", "1x1"]
    report = as_json("compression", *geometry, "--seed", "5")
    assert report["paper"]["ratio"] == pytest.approx(64 * 9 / 163, rel=1e-15)
    assert report["toeplitz"]["ratio"] == pytest.approx(16 * 16 * 22 * 22 / 2047, rel=1e-15)
    shared = report["shared"]
    assert 60 <= shared["kept"] <= 90  # THEORY 2: median 73 of 2304
    assert shared["ratio"] == pytest.approx(2304 / shared["kept"])
    assert as_json("compression", *geometry, "--seed", "5") == report


def test_compression_of_a_disconnected_convolution():
    report = as_json("compression", "--conv", "16", "32", "--kernel", "1x1", "--input", "8x8")
    toeplitz = report["toeplitz"]
    assert [toeplitz[key] for key in ("weights", "kept", "components", "reason")] == [16 * 32 * 64, 47 * 64, 64, None]
    assert toeplitz["ratio"] == pytest.approx(512 / 47, rel=1e-15)
    assert report["paper"]["ratio"] < 1
    assert report["paper"]["reason"]
    assert report["shared"]["ratio"] == pytest.approx(512 / 47)


def test_compression_in_one_and_three_dimensions():
    for size, dimensions in (("8", 1), ("8x8x8", 3)):
        kernel = "x".join(["3"] * dimensions)
        report = as_json("compression", "--conv", "2", "2", "--kernel", kernel, "--input", size, "--padding", "1")
        assert report["toeplitz"]["weights"] == 4 * 22**dimensions
        assert report["paper"]["weights"] == 24**dimensions


def test_compression_of_an_architecture_is_table_1():
    report = as_json("compression", "--architecture", "resnet20", "--dataset", "cifar10", "--trials", "1")
    assert round(report["paper"]["ratio"], 4) == 4.1679
    assert report["shared"]["weights"] == sum(
        (3 * 16 * 9, 6 * 16 * 16 * 9, 16 * 32 * 9, 5 * 32 * 32 * 9, 32 * 64 * 9, 5 * 64 * 64 * 9, 640)
    )
    assert report["shared"]["ratio"] > 10
    assert math.isfinite(report["toeplitz"]["ratio"])


def test_version():
    assert topobounds("--version").stdout.split()[0] == "topobounds"
