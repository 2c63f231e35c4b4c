"""Sweeps on a real Dask cluster of child processes: the same answers, whatever happens to it."""

import json
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cluster import Cluster
from topobounds.sweeps import sweep, sweep_status
from topobounds.sweeps.store import FILE

pytest.importorskip("distributed", reason="distributed is not installed")

PLAN = """
[[grid]]
question = "overlap"
m = {from = 2, to = 61}
n = [30, 31, 32, 33]
trials = 200
"""


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "plan.toml").write_text(PLAN)
    sweep(folder / "plan.toml", folder / "out", jobs=1)
    return answers(folder / "out")


def answers(folder):
    connection = sqlite3.connect(folder / FILE)
    rows = connection.execute("select key, parameters, status, answer from points").fetchall()
    connection.close()
    return sorted(rows)


def command(plan, out, cluster):
    words = [sys.executable, "-m", "topobounds", "sweep", str(plan), "--out", str(out), "--scheduler", cluster.address]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(out, least=1):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if sweep_status(out).done >= least:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("no row in a minute")


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(cluster, plan, tmp_path, undisturbed):
    cluster.start_workers(2)
    out = tmp_path / "out"
    process = command(plan, out, cluster)
    wait_for_rows(out)
    cluster.workers[0].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert answers(out) == undisturbed


@pytest.mark.attack
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_that_is_killed_goes_on_where_it_was(cluster, plan, tmp_path, undisturbed, number):
    cluster.start_workers(2)
    out = tmp_path / "out"
    process = command(plan, out, cluster)
    wait_for_rows(out)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    process = command(plan, out, cluster)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert answers(out) == undisturbed


@pytest.mark.attack
def test_a_scheduler_that_is_gone_is_said_to_be_and_what_is_done_is_kept(cluster, plan, tmp_path, undisturbed):
    cluster.start_workers(2)
    out = tmp_path / "out"
    process = command(plan, out, cluster)
    wait_for_rows(out)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    time.sleep(1)
    cluster.start_scheduler()
    cluster.start_workers(1)
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    if process.returncode:
        assert (process.returncode, output) == (2, "")
        assert "What is done is kept" in errors
        process = command(plan, out, cluster)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert answers(out) == undisturbed


@pytest.mark.slow
def test_analyze_on_a_cluster_gives_what_it_gives_here(cluster, tmp_path):
    cluster.start_workers(2)
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "model.npz", **{f"{i}.weight": draw.standard_normal((20 + i, 30)) for i in range(6)})
    words = [sys.executable, "-m", "topobounds", "analyze", str(tmp_path / "model.npz"), "--json", "--seed", "1"]
    here, there = (
        subprocess.run([*words, *options], capture_output=True, text=True, check=False)
        for options in ([], ["--scheduler", cluster.address])
    )
    assert (there.returncode, there.stderr) == (0, "")
    assert json.loads(there.stdout)["layers"] == json.loads(here.stdout)["layers"]


def test_an_address_without_a_scheduler_is_refused(plan, tmp_path):
    words = [sys.executable, "-m", "topobounds", "sweep", str(plan), "--out", str(tmp_path / "out")]
    done = subprocess.run([*words, "--scheduler", "tcp://127.0.0.1:9"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'--scheduler' must be the address of a Dask scheduler that answers" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
