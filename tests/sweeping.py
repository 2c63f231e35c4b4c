"""Shared by tests that break sweeps: what they end in, and a question of another package that kills its worker."""

import os
import sqlite3
import time

from topobounds.sweeps import sweep_status
from topobounds.sweeps.store import FILE

MODULE = """
import os, signal, time
from topobounds.sweeps.questions import Question

def answer(x, kills="", after=0.0):
    time.sleep(after)
    if x == 17 and kills == "memory":
        held = []
        while len(held) < 300:
            held.append(b"x" * 2**24)
            time.sleep(0.02)
        time.sleep(3600)
    if x == 17 and kills == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"twice": 2 * x}

DOUBLED = Question(answer, ("x",), ("kills", "after"))
"""
METADATA = "Metadata-Version: 2.1\nName: doubled\nVersion: 1\n"


def install(folder):
    """Put the package of the question ``doubled`` into a folder; return the environment in which it is found."""
    (folder / "doubled.py").write_text(MODULE)
    info = folder / "doubled-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[topobounds.questions]\ndoubled = doubled:DOUBLED\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def answers(folder):
    """Return what was answered, without when and where."""
    connection = sqlite3.connect(folder / FILE)
    rows = connection.execute("select key, parameters, status, answer from points").fetchall()
    connection.close()
    return sorted(rows)


def wait_for_rows(out, least=1):
    """Wait until a sweep in another process has written rows."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if sweep_status(out).done >= least:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("no row in a minute")
