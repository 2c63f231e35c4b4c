"""``topobounds figures`` as a process: on the embedded digits, killed and restarted, without torch, on bad input."""

import csv
import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paper_figures.registry import FIGURES, ONLY_NAMED
from tests.command_line import topobounds
from tests.paper_figures.conftest import SOME, figures_without_torch
from tests.paper_figures.test_figures import COLUMNS
from topobounds._parallel import processor_name

UNNAMED = [name for name in FIGURES if name not in ONLY_NAMED]
TINY = ("--dataset", "digits", "--trials", "3", "--epochs", "2", "--seed", "5", "--device", "cpu")


def figures(*arguments, **environment):
    return topobounds("figures", *arguments, **environment)


def one_line_error(run):
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("Error: ")
    return run.stderr


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Make two of the figures, three trials of two epochs.

    One trial after another and in this process; others, which train several at once, must end in the same bytes.
    """
    out = tmp_path_factory.mktemp("figures")
    run = figures("figure1", "figure3", "--out", out, "--json", "--jobs", 1, *TINY)
    assert run.returncode == 0, run.stderr
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run everything once, three trials of two epochs, with no data at hand: ``auto`` falls back to the digits."""
    out, empty = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("no-data")
    run = figures("--out", out, "--json", "--jobs", 1, *TINY[2:], TOPOBOUNDS_DATA=str(empty))
    assert run.returncode == 0, run.stderr
    return out, run


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.long
def test_whole_run_says_what_it_made(whole):
    out, run = whole
    made = json.loads(run.stdout)
    assert (made["dataset"], made["trials"], made["epochs"], made["seed"]) == ("digits", 3, 2, 5)
    assert made["seconds"] > 0
    assert list(made["figures"]) == UNNAMED
    files = {Path(file) for files in made["figures"].values() for file in files}
    assert files == {file for file in out.iterdir() if file.is_file()}, "every file is named, no partial one is left"
    assert {file.suffix for file in files} == {".csv", ".json", ".pdf", ".png", ".txt", ".md", ".tex"}
    assert run.stderr.count("\n") == 1
    assert "digits" in run.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", UNNAMED)
def test_whole_run_columns(whole, name):
    assert (whole[0] / f"{name}.csv").read_text().splitlines()[0] == COLUMNS[name]


@pytest.mark.long
def test_numbers_of_what_is_trained(tiny):
    persistence, overlaps = rows(tiny / "figure1.csv"), rows(tiny / "figure3.csv")
    assert [",".join(table[0]) for table in (persistence, overlaps)] == [COLUMNS["figure1"], COLUMNS["figure3"]]
    assert {(r["trial"], r["epoch"], r["layer"]) for r in persistence} == {
        (t, e, k) for t in "012" for e in "012" for k in "123456"
    }
    assert len(persistence) == 54
    first, last = (sum(float(r["normalized_neural_persistence"]) for r in persistence if r["epoch"] == e) for e in "02")
    assert 0 < first < last
    assert {(r["layer"], r["m"], r["n"]) for r in overlaps} >= {("1", "64", "100"), ("6", "100", "10")}
    assert {r["support"] for r in overlaps} == {"star", "uniform"}


@pytest.mark.long
def test_a_caption_says_the_data(tiny):
    caption = (tiny / "figure3.txt").read_text()
    assert "Data: scikit-learn digits; 3 trials of 2 epochs (an epoch is 20 passes); seed 5." in caption


@pytest.mark.long
def test_a_record_says_which_processors_trained_and_measured(tiny):
    made = json.loads((tiny / "figure1.json").read_text())["provenance"]
    assert made["processor"] == processor_name()
    assert [trained.partition(", ")[0] for trained in made["trained_on"]] == [processor_name()]


def test_an_option_that_one_of_the_figures_uses_is_taken(tmp_path):
    run = figures("table1", "figure2", "--seed", "3", "--no-caption", "--json", "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["seed"] == 3


@pytest.mark.long
def test_killed_and_restarted_ends_in_the_same_bytes(tiny, tmp_path):
    command = [sys.executable, "-m", "topobounds", "figures", "figure1", "--out", str(tmp_path), *TINY]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("runs/*/trial-*/manifest.json")):  # with several jobs any of them may be the first
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/trial-*/manifest.json")}
    assert len(finished) < 3, "killed in the middle"
    assert not list(tmp_path.glob("*.csv"))
    run = figures("figure1", "--out", tmp_path, "--jobs", 1, *TINY)
    assert run.returncode == 0, run.stderr
    for file, written in finished.items():
        assert file.stat().st_mtime_ns == written, "a finished trial is not trained again"
    for name in ("figure1.csv", "figure1.json", "figure1.pdf", "figure1.png"):
        assert (tmp_path / name).read_bytes() == (tiny / name).read_bytes()


@pytest.mark.parametrize(
    ("drawn", "names"), [("some_from_records", SOME), pytest.param("from_records", FIGURES, marks=pytest.mark.long)]
)
def test_from_records_needs_no_torch(drawn, names, request):
    folder, run = request.getfixturevalue(drawn)
    assert "4.3914" in run.stdout
    assert "Misprint" in run.stdout
    assert f"{folder}/figure2.csv .json .pdf .png .txt" in run.stdout.splitlines()
    assert {file.stem for file in folder.glob("*.png")} == set(names) - {"table1"}
    assert not (folder / "runs").exists()


def test_without_torch_what_trains_says_how_to_get_it(tmp_path):
    error = one_line_error(figures_without_torch("--out", tmp_path))
    assert "Nets are trained for figure1, figure1_null, figure3, figure3_expected, retention. " in error
    assert "pip install '.[torch]' in a clone of topobounds" in error


@pytest.mark.long
def test_without_torch_what_trains_nothing_is_measured(tmp_path):
    run = figures_without_torch("figure2", "table1", "figure2", "--json", "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    assert list(made["figures"]) == ["figure2", "table1"]
    assert (made["dataset"], made["trials"], made["seed"]) == (None, None, 0)


def test_importing_the_command_is_cheap():
    code = "import sys, paper_figures.command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "matplotlib", "torch", "rich", "numba"} & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "'NAME' must be one of 'table1', 'figure1', 'figure1_null', 'figure2', 'figure3', "),
        (["--trials", "0"], "'--trials' must be a positive integer, not 0"),
        (["--epochs", "0"], "'--epochs' must be a positive integer, not 0"),
        (["--seed", "-1"], "'--seed' must be a non-negative integer, not -1"),
        (["--dataset", "cifar"], "'cifar' is not one of 'auto', 'mnist'"),
        (["figure1", "--data-dir", "/no/such/folder"], "must be an existing folder, not '/no/such/folder'"),
        (["table1", "--out", __file__], f"'--out' must be a folder, not '{__file__}'"),
        (["table1", "--out", f"{__file__}/x"], f"'--out' must be a folder, not '{__file__}/x'"),
        (["table1", "--out", ""], "'--out' must be a folder, not ''"),
        (
            ["figure1", "--dataset", "digits", "--trials", "1000000000000"],
            "'--trials' must be at most 100000, not 1000000",
        ),
        (["figure1", "--dataset", "digits", "--trials", "100001"], "'--trials' must be at most 100000, not 100001"),
        (["figure1", "--dataset", "digits", "--epochs", "1000000"], "'--epochs' must be at most 100000, not 1000000"),
        (["figure1", "--dataset", "digits", "--jobs", "1025"], "'--jobs' must be at most 1024, not 1025"),
        (["t_imp", "--dataset", "digits", "--trials", "1000000"], "'--trials' must be at most 16666, not 1000000"),
        (["table1", "--trials", "5"], "Option '--trials' is used by none of these: table1."),
        (["table1", "--seed", "0", "--from-records"], "Option '--seed' is used by none of these: table1."),
        (["table1", "--no-caption"], "Option '--no-caption' is used by none of these: table1."),
        (["figure2", "bounds", "--jobs", "2"], "Option '--jobs' is used by none of these: figure2, bounds."),
        (["figure2", "--dataset", "digits"], "Option '--dataset' is used by none of these: figure2."),
        (["t_imp", "--epochs", "3"], "Option '--epochs' is used by none of these: t_imp."),
        (["--from-records", "--jobs", "2"], "Option '--jobs' is for training, and --from-records trains nothing."),
        (["--from-records", "--seed", "4"], "The record of figure1 was made with --seed 0, not 4"),
        (["--from-records", "--dataset", "digits"], "The record of figure1 was made with --dataset mnist, not digits"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    assert message in one_line_error(figures(*arguments))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that even root cannot write to")
def test_a_folder_that_cannot_be_made_is_named():
    error = one_line_error(figures("table1", "--out", "/proc/x"))
    assert error == "Error: /proc/x could not be written: No such file or directory.\n"


def test_auto_is_no_other_data_set_than_that_of_the_records(tmp_path):
    run = figures("figure1", "--from-records", "--dataset", "auto", "--out", tmp_path, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["dataset"] == "mnist"


def test_missing_data_says_how_to_get_it(tmp_path):
    error = one_line_error(figures("figure1", "--dataset", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "out"))
    assert "--download" in error


def test_truncated_data_is_named_and_not_half_used(tmp_path):
    (tmp_path / "mnist").mkdir()
    for part in ("train", "t10k"):
        images, labels = (8, 3, 2, 28, 28), (8, 1, 2)
        for kind, (_, axes, *sizes) in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, axes]) + b"".join(size.to_bytes(4, "big") for size in sizes)
            whole = gzip.compress(header + bytes(2 * 784 if axes == 3 else 2))
            (tmp_path / "mnist" / f"{part}-{kind}-ubyte.gz").write_bytes(whole)
    damaged = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-12])
    error = one_line_error(figures("figure1", "--data-dir", tmp_path, "--out", tmp_path / "out"))
    assert "t10k-images-idx3-ubyte.gz is damaged" in error
    assert not list((tmp_path / "out").glob("*.csv"))
    assert not list((tmp_path / "out").glob("runs/*/trial-*"))
