"""Pieces of work in processes: the same as one after the other, and none outlives its caller."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from topobounds._parallel import MOST_JOBS, do_pieces, process_count, processors

ROOT = Path(__file__).parents[2]
SECONDS = 60.0


def write(folder, piece, report):
    report(1, f"{piece} begun")
    (folder / str(piece)).write_text(str(os.getpid()))
    report(2, f"{piece} done")


def write_and_wait(folder, piece, report):
    write(folder, piece, report)
    time.sleep(SECONDS)


def fail_at_two(folder, piece, report):
    write(folder, piece, report)
    if piece == 2:
        wait_for((folder / "1").exists)
        raise ValueError("piece 2 cannot be done")
    time.sleep(SECONDS)


def end_without_a_word(folder, piece, report):
    write(folder, piece, report)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def runs(file):
    """Return whether the process whose number a file holds goes on; one that waits to be reaped does not."""
    text = file.read_text()
    try:
        return bool(text) and Path(f"/proc/{text}/stat").read_text().rsplit(")", maxsplit=1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("jobs", "pieces"), [(1, [3, 1, 2]), (2, [3, 1, 2]), (4, [3, 1]), (2, [7]), (2, [])])
def test_every_piece_is_done_once_and_reports_are_added(tmp_path, jobs, pieces):
    heard = []
    do_pieces(partial(write, tmp_path), pieces, jobs, lambda done, message: heard.append((done, message)))
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == sorted(pieces)
    assert {message for _, message in heard} == {f"{piece} {what}" for piece in pieces for what in ("begun", "done")}
    assert [done for done, _ in heard] == list(range(1, 2 * len(pieces) + 1))
    own = {file.read_text() == str(os.getpid()) for file in tmp_path.iterdir()}
    assert own <= {min(jobs, len(pieces)) < 2}
    assert not multiprocessing.active_children()


def test_an_error_ends_what_the_others_do(tmp_path):
    started = time.monotonic()
    with pytest.raises(ValueError, match="piece 2 cannot be done"):
        do_pieces(partial(fail_at_two, tmp_path), [1, 2, 3], 2, lambda done, message: None)
    assert time.monotonic() - started < SECONDS / 2
    assert not runs(tmp_path / "1")
    assert not multiprocessing.active_children()


def test_an_interrupt_ends_what_the_others_do(tmp_path):
    def interrupt(done, message):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        do_pieces(partial(write_and_wait, tmp_path), [1, 2], 2, interrupt)
    assert time.monotonic() - started < SECONDS / 2
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_told(tmp_path):
    with pytest.raises(ChildProcessError, match="worker process was killed, perhaps for want of memory"):
        do_pieces(partial(end_without_a_word, tmp_path), [1, 2], 2, lambda done, message: None)


def test_no_process_outlives_the_caller(tmp_path):
    script = f"""
from functools import partial
from pathlib import Path
from tests.torch_bridge.test_parallel import do_pieces, write_and_wait
if __name__ == "__main__":
    do_pieces(partial(write_and_wait, Path({str(tmp_path)!r})), [1, 2], 2, lambda done, message: None)
"""
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], env=environment) as caller:
        files = [tmp_path / "1", tmp_path / "2"]
        wait_for(lambda: all(file.exists() and runs(file) for file in files))
        caller.kill()
    wait_for(lambda: not any(map(runs, files)))


def test_how_many():
    assert process_count(None, "cpu") == processors()
    assert process_count(None, "cuda") == 1
    assert process_count(3, "cuda") == 3
    assert process_count(MOST_JOBS, "cpu") == 1024
    with pytest.raises(ValueError, match="'jobs' must be at most 1024, not 1025"):
        process_count(1025, "cpu")
    for wrong in (0, -1, 1.5, True, "two"):
        with pytest.raises(ValueError, match="Argument 'jobs' must be a positive integer, not"):
            process_count(wrong, "cpu")
