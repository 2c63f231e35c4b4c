"""What happens to machines while a sweep runs on them: no memory, no room on the disk, SIGTERM. Nothing is lost."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sweeping import answers, install, wait_for_rows
from topobounds.sweeps import sweep
from topobounds.sweeps.store import FILE, Store

PLAN = '[[grid]]\nquestion = "overlap"\nm = {from = 2, to = 61}\nn = [3, 4, 5, 6]\ntrials = 20\n'  # soon answered
LENGTHY = PLAN.replace("[3, 4, 5, 6]", "[30, 31, 32, 33]").replace("trials = 20", "trials = 8000")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux only")


def started(plan, out, *options, env=None):
    words = [sys.executable, "-m", "topobounds", "sweep", str(plan), "--out", str(out), *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


@pytest.mark.long
def test_a_point_that_kills_processes_of_this_machine_fails_alone(tmp_path):
    environment = install(tmp_path)
    file = tmp_path / "plan.toml"
    file.write_text('[[grid]]\nquestion = "doubled"\nx = {from = 1, to = 30}\nkills = "signal"\nafter = 0.4\n')
    process = started(file, tmp_path / "out", "--jobs", "2", env=environment)
    _, errors = process.communicate(timeout=120)
    told, failed = errors.splitlines()
    assert (process.returncode, told) == (0, f"{file}: 30 points.")
    assert failed.startswith("failed: 1 of doubled: Its worker was lost 4 times, the last time by BrokenProcessPool: ")
    with Store.open(tmp_path / "out") as store:
        rows = {record["x"]: record for record in store.records()}
    assert {x: row["twice"] for x, row in rows.items() if row["status"] == "done"} == {
        x: 2 * x for x in range(1, 31) if x != 17
    }
    assert rows[17]["error"].startswith("Its worker was lost 4 times, the last time by BrokenProcessPool: ")


@pytest.mark.long
@needs_proc
def test_sigterm_keeps_what_is_done_and_leaves_no_process(plan, tmp_path):
    plan.write_text(LENGTHY)  # a pool is made after a second only
    out = tmp_path / "out"
    process = started(plan, out, "--jobs", "2")
    wait_for_rows(out)
    children = []
    while not children and process.poll() is None:  # until the pool is there, whichever thread makes it
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
            children = [child for task in tasks for child in task.read_text().split()]
    assert children, "the sweep was over before it had a pool"
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (-signal.SIGTERM, "")
    until = time.monotonic() + 20
    while any(is_alive(child) for child in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(is_alive(child) for child in children)
    before = answers(out)
    assert 0 < len(before) < 240
    sweep(plan, out, jobs=1)
    sweep(plan, tmp_path / "undisturbed", jobs=1)
    assert answers(out) == answers(tmp_path / "undisturbed")
    assert set(before) <= set(answers(out))


def is_alive(pid):
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 32 MB, which root may."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    words = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
    if not mounted or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.long
def test_a_full_disk_ends_in_one_line_and_the_sweep_goes_on_when_there_is_room(plan, small_disk, tmp_path):
    out, filler = small_disk / "out", small_disk / "filler"
    filler.write_bytes(bytes(32 * 2**20 - 200 * 2**10))
    process = started(plan, out, "--jobs", "1")
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (2, "")
    assert errors == f"{plan}: 240 points.\nError: {out / FILE}: database or disk is full.\n"
    before = answers(out)
    assert 0 < len(before) < 240
    filler.unlink()
    process = started(plan, out, "--jobs", "1")
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, f"{plan}: 240 points.\n")
    sweep(plan, tmp_path / "undisturbed", jobs=1)
    assert answers(out) == answers(tmp_path / "undisturbed")
    assert set(before) <= set(answers(out))


def test_a_disk_that_is_full_from_the_start_is_told_of(plan, small_disk):
    (small_disk / "out").mkdir()
    room = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(room))
    process = started(plan, small_disk / "out", "--jobs", "1")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors.count("\n")) == (2, "", 2)
    assert str(small_disk / "out") in errors.splitlines()[1]
