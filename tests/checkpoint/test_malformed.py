"""Malformed files are refused in one line that names the file and the tensor, and nothing in them is run."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.checkpoint.malformed import CASES, problems
from topobounds import analyze
from topobounds._text import printable
from topobounds.checkpoint import CheckpointError
from topobounds.verification import verdicts_on_file

pytestmark = pytest.mark.usefixtures("registered")


def test_the_cases_have_names_of_their_own():
    assert max(Counter(case.name for case in CASES).values()) == 1
    assert len(CASES) >= 80


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_file_is_refused_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = case.write(tmp_path)
    messages, readable = problems(path)
    assert messages
    name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path.name)
    for message in messages:
        assert message.isprintable()
        assert message.endswith(".")
        assert len(message) < 650
        assert name in message
    assert case.tensor is None or f"'{case.tensor}'" in messages[0]
    assert set(case.readable) <= set(readable)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_report_refuses_a_malformed_file_or_leaves_out_what_is_damaged(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = case.write(tmp_path)
    report, refusal = None, ""
    try:
        report = analyze(path, chance=False, trials=0, seed=0)
    except CheckpointError as error:
        refusal = str(error)
    if report is None:
        assert printable(path.name) in refusal
        assert not case.readable
    else:
        assert report.left_out
        told = [printable(f"{name}: {reason}") for name, reason in report.left_out.items()]
        assert case.tensor is None or any(case.tensor in each for each in told)
        assert {finding.rule for finding in report.findings} & {"damaged", "left-out"}
    assert not (tmp_path / "ran").exists()


def test_the_command_names_the_tensors_that_are_damaged(tmp_path):
    case = next(case for case in CASES if case.name == "npz: another checksum")
    verdicts = verdicts_on_file(case.write(tmp_path), claims=["theorem_3_3"], trials=2, seed=0)
    assert verdicts.damaged == ("bad",)
    assert {verdict.tensor for verdict in verdicts.verdicts} == {"good"}


@pytest.mark.long
def test_all_of_them_take_little_memory(tmp_path):
    command = [sys.executable, "-m", "tests.checkpoint.malformed", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=600
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == len(CASES)
    assert sum(int(line[0].split()[2]) for line in lines) < 500
