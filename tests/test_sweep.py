"""Sweeps: what a plan means, and that its answers do not depend on how, where and in what order they were found."""

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

from topobounds import analyze, overlap_report
from topobounds.cli import main
from topobounds.sweeps import SweepPlan, sweep, sweep_status
from topobounds.sweeps import plan as plan_module
from topobounds.sweeps.questions import QUESTIONS, Question
from topobounds.sweeps.store import FILE, Store, StoreError

PLAN = """
seed = 3
[[grid]]
question = "overlap"
m = {from = 2, to = 9}
n = [3, 5]
trials = 20
[[grid]]
question = "collapse"
mlp = ["20-20-20", "30-10-5"]
density = 0.5
"""


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def answers(folder):
    """Return what was answered, without when and where."""
    with sqlite3.connect(folder / FILE) as connection:
        rows = connection.execute("select key, question, parameters, status, answer from points").fetchall()
    connection.close()
    return sorted(rows)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "topobounds", "sweep", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_plan_is_all_combinations_and_each_point_has_its_own_seed(plan):
    read = SweepPlan.read(plan)
    points = list(read.points())
    assert len(points) == len(read) == 18
    asked = [(p.parameters["m"], p.parameters["n"]) for p in points[:16]]
    assert asked == [(m, n) for m in range(2, 10) for n in (3, 5)]
    assert len({p.parameters["seed"] for p in points[:16]}) == 16
    assert "seed" not in points[16].parameters


def test_the_seed_of_a_point_does_not_depend_on_its_place():
    small, large = (
        {
            tuple(p.parameters.items())
            for p in SweepPlan.of({"grid": [{"question": "overlap", "m": m, "n": 4}]}).points()
        }
        for m in ([7], [3, 7, 9])
    )
    assert small < large
    other = SweepPlan.of({"seed": 1, "grid": [{"question": "overlap", "m": [7], "n": 4}]})
    assert not {tuple(p.parameters.items()) for p in other.points()} & large


def test_an_answer_is_that_of_the_function(plan, tmp_path):
    sweep(plan, tmp_path / "out", jobs=1)
    with Store.open(tmp_path / "out") as store:
        rows = [json.loads(row[4]) for row in answers(tmp_path / "out") if row[1] == "overlap"]
        assert store.counts() == {"done": 18, "failed": 0}
    asked = next(p for p in SweepPlan.read(plan).points() if p.parameters["m"] == 8)
    expected = overlap_report(**asked.parameters).to_dict()
    assert json.loads(json.dumps(expected)) in rows


@pytest.mark.parametrize("jobs", [2, 5])
def test_any_executor_gives_the_same_answers(plan, tmp_path, jobs):
    sweep(plan, tmp_path / "one", jobs=1)
    with ThreadPoolExecutor(jobs) as executor:
        sweep(plan, tmp_path / "many", executor=executor)
    assert answers(tmp_path / "one") == answers(tmp_path / "many")


class Losing(Executor):
    """Loses the worker of some of the units."""

    def __init__(self, loses):
        self.loses, self.submitted = loses, []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.submitted.append(args[0])
        if self.loses(len(self.submitted), args[0]):
            future.set_exception(OSError("killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_what_is_lost_with_its_worker_is_asked_again(plan, tmp_path):
    sweep(plan, tmp_path / "one", jobs=1)
    losing = Losing(lambda count, unit: count % 3 == 0)
    assert sweep(plan, tmp_path / "lossy", executor=losing, jobs=2).failed == 0
    assert answers(tmp_path / "one") == answers(tmp_path / "lossy")


def test_a_point_that_kills_its_workers_fails_alone(plan, tmp_path):
    killer = [("collapse", {"mlp": "30-10-5", "density": 0.5})]
    losing = Losing(lambda count, unit: killer[0] in unit)
    result = sweep(plan, tmp_path, executor=losing, jobs=3)
    assert (result.done, result.failed) == (17, 1)
    with Store.open(tmp_path) as store:
        (failed,) = [record for record in store.records() if record["status"] == "failed"]
    assert failed["error"] == "Its worker was lost 4 times, the last time by OSError: killed"
    assert (sweep(plan, tmp_path, jobs=1).done, sweep_status(tmp_path).failed) == (18, 0), "asked again, and answered"


def test_workers_that_are_all_lost_end_the_sweep_with_what_is_done(plan, tmp_path):
    losing = Losing(lambda count, unit: count > 1)
    with pytest.raises(ChildProcessError, match="What is done is kept: go on with the same command"):
        sweep(plan, tmp_path, executor=losing, jobs=1)
    assert 0 < sweep_status(tmp_path).done < 18
    assert sweep(plan, tmp_path, jobs=1).done == 18


def test_what_makes_no_sense_is_a_failed_row_and_the_rest_goes_on(tmp_path):
    plan = SweepPlan.of({"grid": [{"question": "overlap", "m": [3, 0, 5], "n": 4, "trials": 0}]})
    result = sweep(plan, tmp_path, jobs=1)
    assert (result.done, result.failed) == (2, 1)
    with Store.open(tmp_path) as store:
        errors = [record["error"] for record in store.records() if record["status"] == "failed"]
    assert errors == ["Argument 'm' must be a positive integer, not 0."]


def test_why_points_failed_is_told_once_for_each_error(tmp_path, capsys):
    (tmp_path / "plan.toml").write_text(
        'grid = [{question = "overlap", m = [3, 0, -1], n = [4, 5], trials = 0},'
        ' {question = "collapse", mlp = [' + ", ".join(f'"{i}"' for i in range(12)) + "], density = 0.5}]"
    )
    plan, out = str(tmp_path / "plan.toml"), str(tmp_path / "out")
    told = []
    for arguments in ([plan, "--jobs", "1"], ["--status"], ["--status", "--json"]):
        with pytest.raises(SystemExit):
            main(["sweep", *arguments, "--out", out])
        told.append(capsys.readouterr())
    lines = told[1].err.splitlines()
    assert lines[:2] == [
        "failed: 2 of overlap: Argument 'm' must be a positive integer, not -1.",
        "failed: 2 of overlap: Argument 'm' must be a positive integer, not 0.",
    ]
    assert (len(lines), lines[-1]) == (11, "failed: 4 more, of other errors, which are in the rows.")
    assert told[0].err.splitlines()[-11:] == lines
    assert list(json.loads(told[2].out)["errors"].values()) == [2, 2, *[1] * 8]
    assert told[2].err == ""


def test_nothing_is_asked_twice(plan, tmp_path, monkeypatch):
    sweep(plan, tmp_path, jobs=1)
    before = answers(tmp_path)
    monkeypatch.setitem(QUESTIONS, "overlap", Question(lambda **_: 1 / 0, ("m", "n"), ("trials",), draws=True))
    assert sweep(plan, tmp_path, jobs=1).done == 18
    assert answers(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'grid' must be at least one table"),
        ("[[grid]]\nquestion = 'overlaps'", "'question' must be one of 'overlap', "),
        ("[[grid]]\nquestion = 'overlap'\nm = 3", "needs n"),
        ("[[grid]]\nquestion = 'overlap'\nm = 3\nn = 4\nkk = 3", "must be one of 'm', 'n', 'k'"),
        ("grids = 3", "'key' must be one of 'seed', 'grid'"),
        ("seed = -1\n[[grid]]\nquestion = 'overlap'\nm = 3\nn = 4", "'seed'"),
        ("[[grid]]\nquestion = 'overlap'\nm = []\nn = 4", "'m' must be at least one value"),
        ("[[grid]]\nquestion = 'overlap'\nm = [3, 3]\nn = 4", "'m' must be values that differ"),
        ("[[grid]]\nquestion = 'overlap'\nm = [[3]]\nn = 4", "'m' must be a number"),
        ("[[grid]]\nquestion = 'overlap'\nm = nan\nn = 4", "'m' must be a number"),
        ("[[grid]]\nquestion = 'overlap'\nm = {from = 3}\nn = 4", "'m' must be a range"),
        ("[[grid]]\nquestion = 'overlap'\nm = {from = 3, to = 2}\nn = 4", "'m.to'"),
        ("[[grid]]\nquestion = 'overlap'\nm = {from = 3, to = 5, by = 2}\nn = 4", "one of 'from', 'to', 'step'"),
        ("[[grid]]\nquestion = 'overlap'\nm = {from = 1, to = 1e300}\nn = 4", "'m.to'"),
        (f"[[grid]]\nquestion = 'overlap'\nm = {{from = 1, to = {10**20}}}\nn = 4", "'m.to'"),
        ("[[grid]]\nquestion = 'overlap'\nm = {from = 1, to = 10000000000}\nn = {from = 1, to = 999999}", "at most 9,"),
        ("grid = [", "is no TOML"),
        ("grid = " + "[" * 100_000, "is no TOML: its arrays or tables are nested too deeply"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        SweepPlan.read(tmp_path / "plan.toml")
    assert "plan.toml" in str(refused.value)


def test_a_large_plan_must_be_asked_for(tmp_path, monkeypatch):
    axis = {"from": 1, "to": 2000000}
    plan = SweepPlan.of({"grid": [{"question": "overlap", "m": axis, "n": axis}]})
    with pytest.raises(ValueError, match=r"at most 1,000,000 points.*4,000,000,000,000"):
        sweep(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("topobounds.sweeps.run.MOST_POINTS", 3)
    small = SweepPlan.of({"grid": [{"question": "overlap", "m": [2, 3], "n": [2, 3], "trials": 0}]})
    assert sweep(small, tmp_path / "out", jobs=1, large=True).done == 4


def test_the_folder_of_another_plan_is_refused(plan, tmp_path):
    sweep(plan, tmp_path / "out", jobs=1)
    other = SweepPlan.of({"grid": [{"question": "overlap", "m": 2, "n": 2, "trials": 0}]})
    with pytest.raises(StoreError, match="holds the results of another plan"):
        sweep(other, tmp_path / "out")
    assert sweep_status(tmp_path / "out").done == 18


def test_two_processes_do_not_share_a_folder(plan, tmp_path):
    seen = []

    def second(done, total):
        seen.append(run(plan, "--out", tmp_path) if not seen else None)

    sweep(plan, tmp_path, jobs=1, progress=second)
    assert seen[0].returncode == 2
    assert "is in use by another process" in seen[0].stderr
    assert seen[0].stdout == ""


def test_a_damaged_row_is_asked_again(plan, tmp_path):
    sweep(plan, tmp_path, jobs=1)
    before = answers(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("update points set answer = replace(answer, '0', '1') where key = ?", before[3][:1])
    connection.close()
    result = sweep(plan, tmp_path, jobs=1)
    assert "1 damaged row is asked again" in result.salvaged
    assert answers(tmp_path) == before


@pytest.mark.parametrize("where", [0, 0.3, 0.6, 0.95])
def test_what_a_damaged_file_still_tells_is_kept(plan, tmp_path, where):
    big = SweepPlan.of({"grid": [{"question": "overlap", "m": {"from": 2, "to": 21}, "n": [3, 4, 5], "trials": 5}]})
    sweep(big, tmp_path, jobs=1)
    before = answers(tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    start = int(where * len(content))
    content[start : start + 3000] = os.urandom(3000)
    (tmp_path / FILE).write_bytes(content)
    result = sweep(big, tmp_path, jobs=1)
    assert result.done == 60
    assert answers(tmp_path) == before
    if result.salvaged:
        assert "damaged" in result.salvaged


def test_a_folder_without_a_sweep_has_no_status(tmp_path):
    with pytest.raises(StoreError, match="holds no sweep"):
        sweep_status(tmp_path)
    (tmp_path / FILE).write_bytes(b"something else, and long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"results\.sqlite"):
        sweep_status(tmp_path)


@pytest.mark.attack
def test_killed_at_random_it_ends_with_the_rows_of_an_undisturbed_sweep(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text('[[grid]]\nquestion = "overlap"\nm = {from = 2, to = 81}\nn = [30, 31, 32, 33, 34]\ntrials = 200\n')
    sweep(file, tmp_path / "whole", jobs=1)
    draw = random.Random(0)
    command = [sys.executable, "-m", "topobounds", "sweep", str(file), "--out", str(tmp_path / "killed"), "--jobs", "1"]
    for _ in range(20):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(draw.uniform(0.2, 2.5))
            process.send_signal(signal.SIGKILL)
    assert run(file, "--out", tmp_path / "killed", "--jobs", 1).returncode == 0
    assert answers(tmp_path / "killed") == answers(tmp_path / "whole")


def test_the_command_tells_status_and_exports(plan, tmp_path, capsys):
    out = tmp_path / "out"
    done = run(plan, "--out", out, "--jobs", 1, "--json")
    assert (done.returncode, done.stderr) == (0, f"{plan}: 18 points.\n")
    assert json.loads(done.stdout)["done"] == 18
    for name in ("rows.csv", "rows.jsonl"):
        with pytest.raises(SystemExit) as left:
            main(["sweep", "--out", str(out), "--export", str(tmp_path / name), "--json"])
        assert left.value.code == 0
    with (tmp_path / "rows.csv").open() as stream:
        table = list(csv.DictReader(stream))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(table) == len(lines) == 18
    assert {row["status"] for row in table} == {"done"}  # of the row: the answer to one question has one of its own
    assert {row["answer.status"] for row in lines if row["question"] == "collapse"} == {"limit"}
    of_eight = [row for row in lines if row.get("m") == 8 and row["n"] == 5]
    assert of_eight[0]["monte_carlo.trials"] == 20
    assert [float(row["limit"]) for row in table if row["m"] == "8" and row["n"] == "5"] == [of_eight[0]["limit"]]


def test_each_question_is_a_view_that_other_programs_read(plan, tmp_path):
    sweep(plan, tmp_path, jobs=1)
    with sqlite3.connect(tmp_path / FILE) as connection:
        found = connection.execute('select m, n, "enclosure.0", "monte_carlo.mean" from overlap where m = 8').fetchall()
        laws = connection.execute("select mlp, collapse_density from collapse").fetchall()
        statuses = connection.execute('select distinct status, "answer.status" from collapse').fetchall()
    connection.close()
    assert statuses == [("done", "limit")]
    assert {(m, n) for m, n, *_ in found} == {(8, 3), (8, 5)}
    assert all(0 < low <= 1 and 0 < mean <= 1 for _, _, low, mean in found)
    assert {mlp for mlp, _ in laws} == {"20-20-20", "30-10-5"}


def test_an_answer_with_more_numbers_than_sqlite_has_columns_has_a_view_of_the_first(tmp_path, monkeypatch):
    many = Question(lambda m: {f"layer.{i}": m * i for i in range(2500)}, ("m",), ())
    monkeypatch.setitem(QUESTIONS, "many", many)
    assert sweep(SweepPlan.of({"grid": [{"question": "many", "m": [1, 2]}]}), tmp_path, jobs=1).done == 2
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute('select "layer.7" from many order by m').fetchall() == [(7,), (14,)]
    connection.close()
    with Store.open(tmp_path) as store:
        assert [record["layer.2499"] for record in store.records()] == [2499, 4998]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "Name a PLAN"),
        (["--out", "x", "--status", "--jobs", "2"], "--jobs goes with a PLAN"),
        (["--out", "x", "--export", "rows.xls"], "'--export' must be the name of a file that ends in .csv or .jsonl"),
        (["nowhere.toml", "--out", "x"], "nowhere.toml"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["sweep", *arguments])
    output = capsys.readouterr()
    assert (left.value.code, output.out) == (2, "")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_every_question_takes_the_parameters_that_it_names():
    for name, question in QUESTIONS.items():
        with pytest.raises((ValueError, TypeError)) as refused:
            question.answer(**dict.fromkeys(question.parameters, object()))
        assert "unexpected keyword" not in str(refused.value), name


def test_files_are_opened_where_the_work_is_done(tmp_path):
    draw = np.random.default_rng(0)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **{"fc.weight": draw.standard_normal((12, 9)), "fc.bias": np.zeros(12)})
    paths = [str(tmp_path / f"{name}.npz") for name in "ab"]
    plan = SweepPlan.of({"grid": [{"question": "analyze", "path": [*paths, "nowhere.npz"]}]})
    result = sweep(plan, tmp_path / "out", jobs=1)
    assert (result.done, result.failed) == (2, 1)
    with Store.open(tmp_path / "out") as store:
        found = {record["path"]: record for record in store.records()}
    assert "nowhere.npz" in found["nowhere.npz"]["error"]
    for path in paths:
        layer = analyze(path, seed=found[path]["seed"]).layers[0]
        assert found[path]["layers.fc.weight.overlap_z"] == layer.overlap_z


def test_hashes_tell_points_apart():
    points = [plan_module.Point("overlap", {"m": 3, "n": n}) for n in (3, 3.0, "3", True)]
    assert len({point.key for point in points}) == 4
