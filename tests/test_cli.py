"""The command line: what it says here, and that it says the same as a process."""

import json
import math
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from tests.command_line import process, topobounds
from topobounds import architecture, critical_weights_bound, global_pruning, overlap_deviation, simulate_overlap
from topobounds.analysis import compression as analysis
from topobounds.cli import main
from topobounds.cli.overlap import _number_line


def as_json(*arguments):
    run = topobounds(*arguments, "--json")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return json.loads(run.stdout)


LINES = [
    "overlap --m 9 --n 7 --seed 1",
    "compression --dense 3 0",
    "collapse --mlp 784-300-100-10 --json",
    "verify --m 7 --n 3 --trials 2 --seed 1",
    "no-such-command",
]
OTHER_LINES = [
    "overlap --m 9 --n 7 --seed 1 --json",
    "overlap --m 9 --n 7 --exact --latex",
    "compression --dense 784 300",
    "collapse --mlp 784-300-100-10",
    "verify --m 7 --n 3 --colour",
    "analyze no-such-file.npz",
]


@pytest.mark.parametrize("line", [*LINES, *(pytest.param(line, marks=pytest.mark.long) for line in OTHER_LINES)])
def test_a_process_ends_as_the_command_does_here(line):
    apart, here = process(*line.split()), topobounds(*line.split())
    assert (here.returncode, here.stdout, here.stderr) == (apart.returncode, apart.stdout, apart.stderr)


def test_help_imports_no_numerical_library():
    run = process("--help", options=["-X", "importtime"])
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert run.returncode == 0
    assert {"overlap", "compression", "figures"} <= set(run.stdout.split())
    assert not imported & {"numpy", "numba", "scipy", "sympy", "matplotlib", "torch", "gudhi"}


@pytest.mark.parametrize(
    "command", ["overlap --m 784 --n 300", "overlap --m 300 --n 300 --k 500", "collapse --mlp 784-300-100-10"]
)
def test_a_short_answer_loads_no_compiler(command):
    run = process(*command.split(), options=["-X", "importtime"])
    imported = {line.split("|")[-1].strip() for line in run.stderr.splitlines()}
    assert run.returncode == 0
    assert "numpy" in imported
    assert not imported & {"numba", "scipy", "sympy", "matplotlib", "torch", "gudhi"}


def test_overlap_says_how_far_one_layer_strays():
    options = ("--trials", "50", "--seed", "1")
    wide = as_json("overlap", "--m", "784", "--n", "300", *options)["deviation"]
    assert wide == {"value": overlap_deviation(784, 300), "status": "limit"}
    thin = as_json("overlap", "--m", "784", "--n", "10", *options)["deviation"]
    assert (thin["status"], round(thin["value"], 5)) == ("proved", 0.01073)
    small = as_json("overlap", "--m", "30", "--n", "30", *options)["deviation"]
    sampled = simulate_overlap(30, 30, trials=50, seed=1).standard_deviation
    assert small == {"value": sampled, "status": "sampled"}
    for nothing_simulated in (("--trials", "0"), ("--trials", "5", "--density", "0.5")):
        none = as_json("overlap", "--m", "30", "--n", "30", *nothing_simulated)["deviation"]
        assert (none["value"], none["status"], bool(none["reason"])) == (None, None, True)
    table = topobounds("overlap", "--m", "784", "--n", "300", *options).stdout
    assert re.search(r"^deviation +0\.0083 +limit ", table, flags=re.MULTILINE)


def test_collapse_is_what_global_pruning_says():
    report = as_json("collapse", "--mlp", "784-300-100-10", "--density", "0.05")
    assert set(report) == {
        "schema_version", "law", "density", "collapse_density", "overlap_expected", "status", "layers"
    }  # fmt: skip
    pruned = global_pruning([784, 300, 100, 10], 0.05)
    assert report["collapse_density"] == pruned.collapse_density == pytest.approx(0.0454, abs=5e-5)
    assert (report["law"], report["status"], report["overlap_expected"]) == ("torch", "limit", pruned.overlap)
    for layer, expected in zip(report["layers"], pruned.layers, strict=True):
        assert layer == {name: getattr(expected, name) for name in layer}
        assert set(layer) == {"name", "weights", "kept", "density", "reached", "effective"}


def test_collapse_shows_the_published_networks_and_by_default_where_they_break():
    network = ("--architecture", "vgg16", "--dataset", "cifar100", "--law", "he")
    kept = [layer["kept"] for layer in as_json("collapse", *network, "--density", "0.01")["layers"]]
    assert round(kept[9], 1) == 2447.3
    broken = as_json("collapse", "--mlp", "784-300-100-10")
    assert broken["density"] == pytest.approx(broken["collapse_density"], rel=1e-4)
    assert broken["layers"][0]["kept"] < 1
    lines = topobounds("collapse", "--mlp", "784-300-100-10", COLUMNS="110").stdout.splitlines()
    assert "below the density 0.0454" in lines[0]
    assert lines[-1].split()[:2] == ["2", "1,000"]


def test_compression_says_how_few_weights_any_kernel_needs():
    command = "compression --conv 64 64 --kernel 3x3 --input 8x8 --padding 1 --trials 2 --seed 1"
    shared = as_json(*command.split())["shared"]
    assert shared["bound"] == 129 <= shared["kept"]
    assert "whatever the kernel, kept >= 129, ratio <= 285.7674" in topobounds(*command.split(), COLUMNS="400").stdout
    network = as_json("compression", "--architecture", "vgg11", "--dataset", "cifar10", "--trials", "2", "--seed", "1")
    vgg = architecture("vgg11", "cifar10")
    bound = sum(critical_weights_bound(layer.conv) for layer in vgg.convs) + 512 + 10 - 1
    assert network["shared"]["bound"] == bound


def test_overlap_784_300():
    report = as_json("overlap", "--m", "784", "--n", "300", "--seed", "7")
    assert {"m", "n", "k", "density", "alpha", "eta_tau", "theorem_3_3", "corollary_3_4", "monte_carlo"} <= set(report)
    assert {"star_bound", "boruvka_bound", "enclosure", "limit", "exact"} <= set(report)
    assert 0.799621 <= report["enclosure"][0] <= report["enclosure"][1] <= 0.799663
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
    arguments = ["overlap", "--m", "40", "--n", "30", "--seed", "3"]
    runs = [run(*arguments).stdout for run in (topobounds, topobounds, process)]
    assert runs[0] == runs[1] == runs[2]
    assert "seed 3" in runs[0]


def test_overlap_prints_sentence_line_and_table():
    out = topobounds("overlap", "--m", "784", "--n", "300", "--seed", "1").stdout
    assert out.startswith("A 784 x 300 layer: its 1083 largest weights of 235200 hold")
    line, below = number_lines(out)
    places = {mark: line.index(mark) - line.index("|") - 1 for mark in "Tsbc"}
    expected = {"T": 0.1213, "s": 0.5428, "b": 0.6132, "c": 0.7996}
    assert all(places[mark] == round(60 * value) for mark, value in expected.items())
    assert below == " " * (line.index("c")) + "o"  # simulated, at the place of what is certified


def number_lines(out):
    """Return the rows of the number line, without the legend."""
    rows = out.splitlines()
    first = next(place for place, row in enumerate(rows) if row.startswith("0 |"))
    last = next(place for place in range(first, len(rows)) if rows[place].startswith("    T "))
    return rows[first:last]


def test_marks_that_share_a_place_are_all_shown():
    rows = list(_number_line([("a", [0.5], "A"), ("b", [0.501], "B"), ("c", [0.5], "C"), ("d", [1.0], "D")], 67))
    assert [row.rstrip() for row in rows] == rows, "no trailing blanks"
    assert rows == [f"0 |{'-' * 30}a{'-' * 29}d| 1", f"{' ' * 33}b", f"{' ' * 33}c", "    a A   b B   c C   d D"]


def test_an_interval_is_marked_at_both_ends_and_what_is_missing_not_at_all():
    line, legend = _number_line([("c", [0.1, 0.9], "certified"), ("T", [], "theorem")], 67)
    assert [place for place, mark in enumerate(line) if mark == "c"] == [3 + 6, 3 + 54]
    assert legend == "    c certified"


def sentence(*arguments):
    """Return the sentence that an overlap begins with, on one line."""
    return " ".join(topobounds("overlap", *arguments).stdout.partition("0 |")[0].split())


def test_the_sentence_at_a_density_says_which_k_was_simulated():
    arguments = ["--m", "784", "--n", "300", "--density", "0.005", "--seed", "1"]
    report = as_json("overlap", *arguments)
    simulated = report["monte_carlo"]
    assert (report["k"], simulated["k"], report["cells"]) == (1083, None, 1176)
    assert f"alpha of its own support for k, {simulated['alpha']:.1f} on average" in simulated["reason"]
    edges = f"edges ({simulated['alpha']:.1f} on average), hold {simulated['mean']:.4f} of that forest on average"
    assert sentence(*arguments) == (
        "A 784 x 300 layer on a random support of density 0.005: its largest weights, as many of the 1176 as its "
        f"maximum spanning forest has {edges} (eta_tau of the complete layer = 217.17)."
    )
    given = sentence(*arguments, "--k", "900")
    mean = as_json("overlap", *arguments, "--k", "900")["monte_carlo"]["mean"]
    assert f"its 900 largest weights of 1176 hold {mean:.4f} of its maximum spanning forest's edges on average" in given
    assert "hold an unknown share of" in sentence(*arguments, "--trials", "0")


def test_the_sentence_calls_certified_what_is():
    """The middle of the interval at 20 x 20 is 0.8502; the truth is 0.8479."""
    arguments = ["--m", "20", "--n", "20", "--seed", "1", "--trials", "0"]
    lower, upper = as_json("overlap", *arguments)["enclosure"]
    found = re.search(r"hold (0\.\d{4}) to (0\.\d{4}) of its maximum spanning tree's 39 edges", sentence(*arguments))
    assert 0 <= lower - float(found[1]) < 1e-4
    assert 0 <= float(found[2]) - upper < 1e-4
    assert "hold 0.8479 of its maximum" in sentence(*arguments, "--exact")
    assert "0.8502" not in topobounds("overlap", *arguments, "--exact").stdout


def test_fewer_weights_than_neurons_are_called_what_they_are():
    out = topobounds("overlap", "--m", "784", "--n", "300", "--density", "0.001", "--seed", "1").stdout
    said = " ".join(out.split("0 |")[0].split())
    assert "its largest weights, as many of the 235 as its maximum spanning forest has edges (235.0" in said
    assert "1083" not in said  # a support of 235 cells has no spanning tree


def test_a_narrow_terminal_cuts_no_number():
    wide = topobounds("compression", "--dense", "1" + "0" * 12, "1" + "0" * 12, COLUMNS="400").stdout
    narrow = topobounds("compression", "--dense", "1" + "0" * 12, "1" + "0" * 12, COLUMNS="40").stdout
    assert "…" not in narrow
    assert set(wide.split()) == set(narrow.split())
    overlap = [topobounds("overlap", "--m", "9", "--n", "9", "--seed", "1", COLUMNS=width) for width in ("400", "30")]
    words = [set(re.sub(r"^0 .*", "", run.stdout, flags=re.MULTILINE).split()) for run in overlap]
    assert "certified" in words[1]
    assert {word for word in words[0] if word[-1].isalnum()} <= words[1]


def test_the_legend_breaks_between_its_entries():
    rows = topobounds("overlap", "--m", "784", "--n", "300", "--seed", "1", COLUMNS="80").stdout.splitlines()
    assert "    o simulated" in rows


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_failure(closed):
    if closed == "2>&-" and np.lib.NumpyVersion(np.__version__) < "2.2.0":
        pytest.skip("this numpy cannot import its f2py without a stderr")
    command = (
        f"{shlex.quote(sys.executable)} -m topobounds verify --m 7 --n 3 --trials 2 --claim component_identity {closed}"
    )
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
        (
            ["overlap", "--m", "784", "--n", "300", "--exact"],
            "Argument '--exact' cannot be had for m=784, n=300, k=1083",
        ),
        (
            ["overlap", "--m", "5000", "--n", "5000", "--exact"],
            "Without it the value is certified to lie in an interval",
        ),
        (["compression", "--kernel", "3", "--input", "16x16"], "--kernel goes with --conv, which is missing: give the"),
        (["compression", "--conv", "4", "8", "--kernel", "3", "--input", "16x16"], "dimensions: give --kernel 3x3."),
        (["compression", "--conv", "4", "8", "--kernel", "3x3", "--input", "16"], "dimensions: give --input 16x16."),
        (
            ["compression", "--conv", "4", "8", "--kernel", "3x3", "--input", "8x8x8"],
            "as in --kernel 3x3 --input 16x16",
        ),
        (["overlap", "--m", "99999999999999999999", "--n", "3"], "add up to at most 16777216"),
        (["no-such-command"], "no-such-command"),
        (["collapse"], "Give exactly one of --mlp and --architecture, not none"),
        (["collapse", "--mlp", "3-4", "--architecture", "vgg16"], "not both"),
        (["collapse", "--mlp", "3-0"], "'--mlp' must be widths such as 784-300-100-10, not '3-0'"),
        (["collapse", "--mlp", "784"], "'--mlp' must be widths such as 784-300-100-10, not '784'"),
        (["collapse", "--mlp", "3-4", "--dataset", "cifar10"], "--dataset goes with --architecture"),
        (["collapse", "--architecture", "vgg16"], "--architecture needs --dataset"),
        (["collapse", "--architecture", "resnet20", "--dataset", "cifar10"], "without shortcuts, not 'resnet20'"),
        (["collapse", "--mlp", "3-4", "--density", "0"], "'--density' must be a number in (0, 1]"),
        (["collapse", "--mlp", "3-4", "--density", "1e-9"], "'--density' must be at least one of the 12 weights"),
        (["collapse", "--mlp", "3-4", "--law", "zipf"], "'--law' must be one of 'torch', "),
        (["compression"], "exactly one"),
        (["compression", "--dense", "3", "4", "--recurrent", "5"], "--dense, --recurrent"),
        (["compression", "--dense", "3", "0"], "--dense"),
        (["compression", "--dense", "3", "4", "--kernel", "3x3"], "--conv"),
        (["compression", "--conv", "1", "2", "--kernel", "3x3"], "--input"),
        (["compression", "--conv", "1", "2", "--kernel", "3y3", "--input", "8x8"], "not '3y3'"),
        (
            ["compression", "--conv", "1", "2", "--kernel", "3x3", "--input", "8"],
            "dimensions: give --input 8x8.",
        ),
        (
            ["compression", "--conv", "1", "2", "--kernel", "0", "--input", "8"],
            "Argument '--kernel' must be a positive",
        ),
        (
            ["compression", "--conv", "1", "2", "--kernel", "9" * 30, "--input", "8"],
            "Argument '--kernel' must be sizes",
        ),
        (["compression", "--conv", "1", "1", "--kernel", "3", "--input", "9" * 11], "'--input' must be so small that"),
        (
            ["compression", "--conv", "1", "1", "--kernel", "3", "--input", "8", "--trials", "9" * 20],
            "'--trials' must be",
        ),
        (
            ["compression", "--recurrent", "9" * 400],
            "Argument '--recurrent' must be an integer from 1 to 9223372036854775807",
        ),
        (["compression", "--dense", "3", "9" * 5000], "Argument '--dense' must be an integer from 1 to"),
        (["overlap", "--m", "9", "--n", "9", "--trials", "9" * 20], "Argument '--trials' must be at most 1000000000"),
        (["overlap", "--m", "9", "--n", "9", "--seed", "9" * 20], "Argument '--seed' must be an integer from 0 to"),
        (["overlap", "--m", "9", "--n", "9", "--density", "1e-9"], "Argument '--density' must be at least"),
        (["compression", "--conv", "16", "16", "--kernel", "9x9", "--input", "4x4"], "9 taps"),
        (["compression", "--conv", "3", "4", "--kernel", "1x1", "--input", "4x4", "--groups", "2"], "groups"),
        (["compression", "--conv", "3", "4", "--kernel", "1", "--input", "4", "--stride", "0"], "stride"),
        (["compression", "--architecture", "vgg11"], "--dataset"),
        (
            ["compression", "--architecture", "vgg19", "--dataset", "cifar10"],
            "Argument '--architecture' must be one of these with",
        ),
    ],
)
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_bad_input_gets_one_line(arguments, named, json_flag):
    run = topobounds(*arguments, *json_flag)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.strip().splitlines()) == 1
    assert named in run.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "There is not enough memory."),
        (MemoryError("Unable to allocate 7 TiB"), "Unable to allocate 7 TiB"),
        (OverflowError("int too large to convert to float"), "int too large to convert to float"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (RecursionError("maximum recursion depth exceeded"), "maximum recursion depth exceeded"),
        (FileNotFoundError(2, "No such file or directory", "there"), "there: No such file or directory."),
        (
            ValueError("Argument 'input_size' must be 1, not 'input_size'."),
            "Argument '--input' must be 1, not 'input_size'.",
        ),
        (ValueError("Arguments 'kernel_size' and 'x' must be 1."), "Arguments '--kernel' and 'x' must be 1."),
    ],
)
def test_whatever_goes_wrong_is_one_line(monkeypatch, capsys, error, said):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(analysis, "compression_report", fail)
    with pytest.raises(SystemExit) as left:
        main(["compression", "--conv", "3", "4", "--kernel", "3", "--input", "8"])
    assert left.value.code == 2
    assert capsys.readouterr() == ("", f"Error: {said}\n")


@pytest.mark.parametrize("group", [[], ["imp"]])
def test_nothing_asked_is_help(group):
    run = process(*group)
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
    assert 60 <= shared["kept"] <= 90  # of 2304; the median of random kernels is 73
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


def test_compression_of_a_network_says_what_it_adds_up():
    arguments = ["compression", "--architecture", "vgg11", "--dataset", "cifar10", "--trials", "1", "--seed", "0"]
    report = as_json(*arguments)
    assert round(report["paper"]["ratio"], 4) == 4.3919
    assert round(report["paper"]["corrected"], 4) == 4.8470
    assert "without pooling" in report["paper"]["reason"]
    assert report["shared"]["standard_error"] is None
    assert "its own error" in report["shared"]["reason"]
    printed = " ".join(topobounds(*arguments, COLUMNS="200").stdout.split())
    assert "Erratum: printed without pooling, all activations 32x32. At the true ones" in printed
    assert "components, summed over 9 layers" in printed


def test_version():
    assert process("--version").stdout.split()[0] == "topobounds"
