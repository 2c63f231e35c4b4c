"""Sweeps on a real Dask cluster of child processes: the same answers, whatever happens to it."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.cluster import SILENT, Cluster
from tests.command_line import process, topobounds
from tests.sweeping import answers, install, wait_for_rows
from topobounds.sweeps import sweep
from topobounds.sweeps.store import Store

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


SOON = "import sys; from topobounds.cli import main, scheduler; scheduler.CONNECT_SECONDS = 1; main(sys.argv[1:])"
"""The command line, in a process that gives up waiting for a cluster after a second."""


def refused(plan, out, address):
    words = [sys.executable, "-c", SOON, "sweep", str(plan), "--out", str(out), "--scheduler", address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def command(plan, out, cluster, environment=None):
    words = [sys.executable, "-m", "topobounds", "sweep", str(plan), "--out", str(out), "--scheduler", cluster.address]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.long
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


@pytest.mark.attack
def test_a_cluster_without_workers_is_told_of_and_new_ones_go_on(cluster, plan, tmp_path, undisturbed):
    cluster.start_workers(1)
    out = tmp_path / "out"
    process = command(plan, out, cluster)
    wait_for_rows(out)
    cluster.workers[0].kill()
    line = process.stderr.readline() + process.stderr.readline()
    assert (
        line == f"{plan}: 240 points.\n{cluster.address} has no workers left; waiting for new ones. Ctrl-C gives up.\n"
    )
    cluster.start_workers(1)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert answers(out) == undisturbed


@pytest.mark.attack
def test_a_point_that_takes_all_memory_fails_alone(tmp_path):
    # Dask gives a unit to four workers before it gives up; one is enough here.
    environment = SILENT | install(tmp_path) | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    file = tmp_path / "plan.toml"
    file.write_text('[[grid]]\nquestion = "doubled"\nx = {from = 1, to = 40}\nkills = "memory"\nafter = 0.1\n')
    cluster = Cluster(tmp_path, environment)
    try:
        cluster.start_workers(2, "--nanny", "--memory-limit", "800MiB")
        process = command(file, tmp_path / "out", cluster, environment)
        _, errors = process.communicate(timeout=300)
    finally:
        cluster.close()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    with Store.open(tmp_path / "out") as store:
        rows = {record["x"]: record for record in store.records()}
    assert {x for x, row in rows.items() if row["status"] == "done"} == set(range(1, 41)) - {17}
    assert rows[17]["error"].startswith("Its worker was lost 4 times, the last time by KilledWorker: ")


@pytest.mark.long
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


@pytest.mark.long
def test_a_scheduler_without_workers_is_refused(cluster, plan, tmp_path):
    rule = "must be the address of a scheduler with workers"
    error = f"Error: Argument '--scheduler' {rule}, not '{cluster.address}'."
    assert refused(plan, tmp_path / "out", cluster.address) == error


def test_an_address_without_a_scheduler_is_refused(plan, tmp_path):
    error = refused(plan, tmp_path / "out", "tcp://127.0.0.1:9")
    assert "'--scheduler' must be the address of a Dask scheduler that answers" in error


@pytest.mark.parametrize("address", ["nonsense", "tcp://h:x", "foo://x", ""])
def test_what_is_no_address_is_refused_at_once_and_in_one_line(address):
    start = process if address == "nonsense" else topobounds
    run = start("verify", "--m", "4", "--n", "3", "--scheduler", address)
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    assert line.endswith(f"such as tcp://127.0.0.1:8786, not '{address}'.")
