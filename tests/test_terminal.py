"""What reaches a terminal or a pipe: of its width, in its encoding, and nothing that it would obey."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from topobounds import prune_checkpoint
from topobounds._text import printable
from topobounds.cli import main

OVERLAP = ["overlap", "--m", "30", "--n", "20", "--seed", "1"]
COMMANDS = [OVERLAP, ["compression", "--dense", "784", "300"], ["verify", "--m", "7", "--n", "3", "--trials", "2"]]
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def output_of(capsys, arguments):
    """Return what a command prints into a pipe."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def in_a_terminal(columns, arguments, **environment):
    """Return what a command prints on a terminal of so many columns, stdout and stderr together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "topobounds", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**variables, **environment}) as process:
        os.close(theirs)
        content = b""
        try:
            while chunk := os.read(ours, 65536):
                content += chunk
        except OSError:  # how a terminal that was left ends
            pass
    os.close(ours)
    assert process.returncode == 0
    return content.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "columns", ["", "0", "00", "1", "2", "7", "19", "20", "33", "79", "300", "-5", "²", "9" * 5000]
)
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda command: command[0])
def test_every_width_has_the_whole_table(capsys, monkeypatch, arguments, columns):
    seeded = [*arguments, *([] if arguments[0] == "compression" else ["--seed", "1"])]
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = output_of(capsys, seeded)
    monkeypatch.setenv("COLUMNS", columns)
    narrow = output_of(capsys, seeded)
    words = set(re.sub(r"^ *(0 \|.*|[a-zA-Z ]{0,4})$", "", whole, flags=re.MULTILINE).split())
    assert words <= set(narrow.split())


@pytest.mark.parametrize("columns", ["", "0"])
def test_nothing_is_wrapped_in_a_pipe(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    rows = output_of(capsys, OVERLAP).splitlines()
    assert re.match(r"A 30 x 20 layer: .* \(eta_tau = 12\.24\)\.$", rows[0])
    (simulated,) = (row for row in rows if row.startswith("simulated"))
    assert "200 trials, seed 1." in simulated


def rarely(*arguments):
    """Mark a case of a test as long, where others of its kind are in every run: each is a process of its own."""
    return pytest.param(*arguments, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("columns", "length"), [(10, 18), rarely(40, 34), rarely(67, 61), (80, 74), rarely(107, 101), (300, 101)]
)
def test_the_number_line_follows_the_terminal(columns, length):
    rows = in_a_terminal(columns, OVERLAP).splitlines()
    (line,) = (row for row in rows if row.startswith("0 |"))
    assert len(line) == length + 6


def test_a_terminal_of_no_size_has_eighty_columns():
    rows = in_a_terminal(0, OVERLAP).splitlines()
    assert max(len(ANSI.sub("", row)) for row in rows) == 80


@pytest.mark.parametrize("columns", [rarely("0"), "1", rarely("300")])
def test_a_bar_fits_every_width(columns):
    verify = ["verify", "--m", "30", "--n", "20", "--trials", "40", "--seed", "1", "--claim", "component_identity"]
    in_a_terminal(int(columns), verify, COLUMNS=columns)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TERM"])
def test_colour_in_a_pipe_breaks_no_cell(capsys, monkeypatch, variable):
    arguments = ["verify", "--m", "20", "--n", "10", "--trials", "20", "--seed", "1"]
    plain = output_of(capsys, arguments)
    monkeypatch.setenv(variable, "dumb" if variable == "TERM" else "1")
    assert ANSI.sub("", output_of(capsys, arguments)) == plain


@pytest.mark.parametrize("encoding", ["ascii", rarely("latin-1"), "utf-8"])
def test_every_encoding_can_be_written(tmp_path, encoding):
    path = tmp_path / "мой.safetensors"
    save_file({"слой": np.random.default_rng(0).standard_normal((4, 3))}, path)
    command = [sys.executable, "-m", "topobounds", "verify", str(path), "--claim", "component_identity"]
    run = subprocess.run(
        command, capture_output=True, timeout=120, check=False, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert "слой".encode(encoding, "backslashreplace") in run.stdout


HOSTILE = "a\x1b[31mRED\n\x07\x9b2J\u202e[bold]b[/bold]:smile:"
ESCAPED = r"a\x1b[31mRED\n\x07\x9b2J\u202e[bold]b[/bold]:smile:"


def test_what_is_printable_stays_and_the_rest_is_escaped():
    assert printable(HOSTILE) == ESCAPED
    assert printable("Borůvka × слой \\x1b") == "Borůvka × слой \\x1b"
    assert printable("\udc80") == "\\udc80"


@pytest.fixture
def hostile(tmp_path):
    """Return a file of weights whose own name and whose tensor's name hold what a terminal obeys."""
    path = tmp_path / "f\x1b[31m.safetensors"
    save_file({HOSTILE: np.random.default_rng(0).standard_normal((4, 3))}, path)
    return path


def test_names_of_tensors_and_files_are_escaped_in_tables(capsys, monkeypatch, hostile):
    printed = output_of(capsys, ["verify", str(hostile), "--seed", "1"])
    assert f"f\\x1b[31m.safetensors, {ESCAPED}: 4 x 3" in printed
    assert not set(printed) & set("\x1b\x07\x9b\u202e")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31m" not in output_of(capsys, ["verify", str(hostile), "--seed", "1"])


def test_names_of_tensors_and_files_are_escaped_in_errors(capsys, hostile, tmp_path):
    save_file({HOSTILE: np.full((4, 3), np.nan)}, hostile)
    for arguments in (
        ["verify", str(hostile)],
        ["verify", str(hostile), "--tensor", "\x1b[2J"],
        ["verify", str(tmp_path / "\x1b[2J.npy")],
        ["verify", "--replay", str(tmp_path / "\x1b[2J")],
        ["imp", "status", str(tmp_path / "\x1b[2J")],
        ["imp", "run", "\x1b[2J", "--out", "x"],
        ["figures", "\x1b[2J"],
        ["\x1b[2J"],
        ["overlap", "--\x1b[2J"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "\\x1b" in printed.err
        assert "\x1b" not in printed.err
        assert len(printed.err.splitlines()) == 1


def test_json_escapes_names_itself_and_keeps_them(capsys, hostile):
    printed = output_of(capsys, ["verify", str(hostile), "--json"])
    assert "\x1b" not in printed
    assert {check["tensor"] for check in json.loads(printed)["checks"]} == {HOSTILE}


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("json_flag", [[], rarely(["--json"])])
def test_a_pipe_that_is_closed_early_ends_quietly(arguments, json_flag):
    """As ``| head -1``: the reader is gone before anything is written."""
    read, write = os.pipe()
    os.close(read)
    claims = ["--claim", "component_identity"] if arguments[0] == "verify" else []
    command = [sys.executable, "-m", "topobounds", *arguments, *claims, *json_flag]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True) as process:
        os.close(write)
        _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    assert errors.count("\n") <= 1


def test_a_long_simulation_shows_a_bar_on_a_terminal():
    conv = ["compression", "--conv", "4", "4", "--kernel", "3x3", "--input", "64x64", "--trials", "3", "--seed", "1"]
    assert "3 random kernels" in in_a_terminal(80, conv).partition("convention")[0]
    assert "counting graphs" in in_a_terminal(80, [*OVERLAP, "--exact"]).partition("A 30 x 20")[0]


def test_making_the_environment_says_what_it_does():
    recipe = (Path(__file__).parents[1] / "Makefile").read_text().partition("pyproject.toml\n")[2]
    first = re.search(r"^\t@echo .*$", recipe, re.MULTILINE)
    assert first is not None
    assert recipe.index(first[0]) < recipe.index("venv .venv")
    assert "quiet" not in recipe


@pytest.mark.long
def test_a_home_that_cannot_be_written_is_no_news(tmp_path):
    command = [sys.executable, "-m", "topobounds", "figures", "bounds", "--from-records", "--out", str(tmp_path)]
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), "/proc/none")
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **nowhere}
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Return a file of weights and a copy pruned by magnitude, which is in pieces."""
    folder = tmp_path_factory.mktemp("pruned")
    draw = np.random.default_rng(0)
    source, target = folder / "model.safetensors", folder / "by_magnitude.safetensors"
    shapes = {
        "model.encoder.layers.0.mlp.up_proj.weight": (30, 50),
        "conv.weight": (6, 4, 3, 3),
        "head.weight": (9, 30),
    }
    save_file({name: draw.standard_normal(shape) for name, shape in shapes.items()}, source)
    prune_checkpoint(source, target, density=0.1, method="magnitude")
    return source, target


PRUNING = ["prune", "model.safetensors", "--density", "0.1", "--dry-run"]
COMPARING = ["compare", "model.safetensors", "by_magnitude.safetensors", "--seed", "1"]


@pytest.mark.parametrize("columns", [110, 90, 70, 50])
@pytest.mark.parametrize("arguments", [PRUNING, COMPARING], ids=lambda command: command[0])
def test_layers_and_sentences_fit_every_width(capsys, monkeypatch, pruned, arguments, columns):
    monkeypatch.chdir(pruned[0].parent)
    monkeypatch.setenv("COLUMNS", str(columns))
    printed = output_of(capsys, arguments)
    assert max(len(row.rstrip()) for row in printed.splitlines()) <= columns
    names = "".join(row.split()[0] for row in printed.splitlines() if row)
    assert all(name in names for name in load_file(pruned[0]))
    shown = {"prune": ["kept", "keep", "diagram"], "compare": ["kept", "density", "bottle-"]}[arguments[0]]
    assert set(shown) <= set(printed.split())
    assert ("by" in printed.split()) == (columns >= 70)
    assert ("shape" in printed.split() or "overlap" in printed.split()) == (columns >= 90)


def test_the_sentences_of_prune_and_compare_stay_whole_in_a_pipe(capsys, monkeypatch, pruned):
    monkeypatch.chdir(pruned[0].parent)
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = output_of(capsys, PRUNING).splitlines()
    assert "199 of 1986 weights kept, density 0.100201 (t-imp, local, uniform); 3 of 3 layers keep" in rows[-2]
    assert rows[-2].endswith("their diagrams, bit for bit.")
    rows = output_of(capsys, COMPARING).splitlines()
    assert rows[2] == "Of 3 layers, b keeps all that carries a's topology in 0."
    assert " ".join(rows[3].split()) == (
        "layer density a b kept in common by chance silent overlap a b by chance bottleneck"
    )
