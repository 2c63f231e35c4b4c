"""What goes wrong is told in one line, which names the file or the option that is meant."""

import errno
import json
import os
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from topobounds import CheckpointError, RunFolder, exact_expected_overlap, open_checkpoint
from topobounds._arguments import file_name
from topobounds._files import write_whole
from topobounds._text import LONGEST_SHOWN, shortened
from topobounds.cli import main
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.training import data


def error_of(capsys, arguments):
    """Return the one line that a command ends with."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    printed = capsys.readouterr()
    assert (left.value.code, printed.out) == (2, "")
    (line,) = printed.err.splitlines()
    return line


def npy(path, shape):
    """Write a .npy file without values whose header has this text for a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    return path


@pytest.mark.parametrize(
    "shape",
    [
        f"({2**63 - 1}, {2**63 - 1})",
        f"({2**63 - 1}, 2)",
        f"(0, {2**63 - 1}, {2**63 - 1})",
        "(50000, 50000)",
        "(-1, 3)",
        "(-3, -3)",
        "(3, 'x')",
        "(10**9, 3)",
        "(" * 3000 + "1" + ")" * 3000,
        "(" * 90 + "1",
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_header_of_numpy_that_makes_no_sense_is_one_line(capsys, tmp_path, shape, kind):
    file = npy(tmp_path / "layer.npy", shape)
    if kind == "npz":
        with zipfile.ZipFile(tmp_path / "layer.npz", "w") as archive:
            archive.write(file, "layer.npy")
        file = tmp_path / "layer.npz"
    with pytest.raises(CheckpointError), open_checkpoint(file) as checkpoint:
        checkpoint.tensor("layer")
    line = error_of(capsys, ["verify", file])
    assert str(file) in line
    assert len(line) < len(str(file)) + 2 * LONGEST_SHOWN


@pytest.mark.parametrize("header", [b'{"a":' + b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"[]", b"\xff"])
def test_a_header_of_safetensors_that_makes_no_sense_is_one_line(capsys, tmp_path, header):
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    line = error_of(capsys, ["verify", file])
    assert str(file) in line
    assert " is damaged" in line


def test_json_that_is_nested_too_deeply_is_one_line(capsys, tmp_path):
    (tmp_path / "plan.json").write_text("[" * 200_000)
    assert "nested too deeply" in error_of(capsys, ["verify", "--replay", tmp_path / "plan.json"])
    assert "nested too deeply" in error_of(capsys, ["imp", "status", tmp_path])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_the_disk_refuses_names_the_file_and_leaves_nothing(monkeypatch, tmp_path, error):
    def fail(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(error)) as raised:
        write_whole(tmp_path / "figure.csv", "1")
    assert raised.value.filename == str(tmp_path / "figure.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["overlap", "--m", "3", "--n", "3"], ["--help"], ["imp"], ["imp", "--help"]])
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_one_line(arguments, json_flag):
    command = [sys.executable, "-m", "topobounds", *arguments, *(json_flag if "--m" in arguments else [])]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (2, "Error: stdout: No space left on device.\n")


def test_no_room_for_the_error_leaves_its_status():
    command = [sys.executable, "-m", "topobounds", "overlap", "--m", "0", "--n", "3"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout) == (2, "")


def test_a_download_without_a_network_is_one_line(monkeypatch, tmp_path, capfd):
    pytest.importorskip("pooch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TOPOBOUNDS_DATA", raising=False)
    source = replace(data.IDX_SOURCES["mnist"], url="http://localhost:9/mnist/")
    monkeypatch.setitem(data.IDX_SOURCES, "mnist", source)
    with pytest.raises(data.DataError) as raised:
        data.load_dataset("mnist", download=True)
    assert str(raised.value).startswith(
        "train-images-idx3-ubyte.gz could not be downloaded from http://localhost:9/mnist/train-images-idx3-ubyte.gz: "
    )
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


PLAN = '[model]\nname = "mlp"\nhidden = [5]\n[data]\nname = "digits"\n[recipe]\n[pruning]\nmethod = "all"\n'


@pytest.mark.parametrize("typed", [[], ["--method", "imp"], ["--seed", "3"]])
def test_a_key_of_a_plan_is_no_option(capsys, tmp_path, typed):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    line = error_of(capsys, ["imp", "run", file, "--out", tmp_path / "run", *typed])
    assert line.startswith(f"Error: {file}: [pruning] Key 'method' must be one of 'imp', ")


def test_an_option_that_was_typed_is_called_by_its_name(capsys, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.replace("all", "imp"))
    line = error_of(capsys, ["imp", "run", file, "--out", tmp_path / "run", "--method=all"])
    assert line.startswith("Error: Argument '--method' must be one of")
    assert error_of(
        capsys, ["compression", "--conv", "3", "4", "--kernel", "1", "--input", "4", "--groups=2"]
    ).startswith("Error: Argument '--groups' must divide")


def test_an_argument_in_a_witness_is_no_option(capsys, tmp_path):
    witness = {"claims": ["star_bound"], "m": 0, "n": 3, "seed": 1, "density": 1.0}
    witness |= {"bound": [0.5, 1.0], "estimate": 0.5, "trials_used": 1}
    file = tmp_path / "witness.json"
    file.write_text(json.dumps({"format": "topobounds witnesses", "version": 1, "witnesses": [witness]}))
    assert "Argument 'm' must be a positive integer, not 0" in error_of(capsys, ["verify", "--replay", file])


def test_exact_counting_refuses_the_layer_as_it_was_given(capsys):
    assert "m=300, n=784, k=1083" in error_of(capsys, ["overlap", "--m", "300", "--n", "784", "--exact"])
    with pytest.raises(ValueError, match="m=12, n=100000, k=100011 "):
        exact_expected_overlap(12, 100_000)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["verify", ""], "FILE"),
        (["verify", "--replay", ""], "--replay"),
        (["verify", "--m", "3", "--n", "3", "--witness", ""], "--witness"),
        (["imp", "status", ""], "FOLDER"),
        (["imp", "resume", ""], "FOLDER"),
        (["imp", "plot", ""], "FOLDER"),
        (["imp", "export", "", "--out", "x"], "FOLDER"),
        (["imp", "export", "x", "--out", ""], "--out"),
        (["imp", "run", "", "--out", "x"], "PLAN"),
        (["imp", "run", "digits", "--out", ""], "--out"),
        (["imp", "run", "digits", "--out", "x", "--data-dir", ""], "--data-dir"),
        (["figures", "--out", ""], "--out"),
        (["figures", "--data-dir", ""], "--data-dir"),
    ],
)
def test_no_name_is_not_the_current_folder(capsys, arguments, name):
    line = error_of(capsys, arguments)
    assert f"'{name}" in line
    assert "not ''." in line


@pytest.mark.parametrize("opened", [open_checkpoint, RunFolder.open, lambda path: RunFolder.create(path, {})])
@pytest.mark.parametrize("name", ["", b"", "a\0b", None, 3])
def test_no_name_is_not_the_current_folder_in_python_either(opened, name):
    with pytest.raises(ValueError, match="Argument 'path' must be the name of a file or folder, not"):
        opened(name)


def test_names_are_texts_bytes_or_paths(tmp_path):
    assert file_name("path", tmp_path) == str(tmp_path)
    assert file_name("path", b"a") == file_name("path", "a") == "a"


def test_long_texts_lose_their_middle():
    assert shortened("ab" * 500) == f"{'ab' * 48}a ... {'ab' * 49}"
    assert len(shortened("x" * 201)) == LONGEST_SHOWN
    assert shortened("x" * 200) == "x" * 200


def test_the_plan_of_a_toml_text_speaks_of_keys():
    with pytest.raises(ValueError, match=r"^\[pruning\] Key 'method' must be one of"):
        ImpPlan.from_dict({"pruning": {"method": np.float64(1)}})
