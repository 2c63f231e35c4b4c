"""Uses an installation that nobody can write to, in a process without a home: ``python -I tests/readonly_install.py``.

As root, permissions stop nothing: the environment is mounted read-only, in a name space of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = """
import numpy as np, topobounds as tb
weights = np.random.default_rng(0).standard_normal((520, 520))
print(tb.maximum_spanning_forest(np.tile(weights, (4, 4))).alpha)
"""
MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
NOWHERE = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), "/proc/none")


def check_use():
    """Run what compiles, draws and tells, in an environment that is read-only already."""
    place = Path(sys.prefix)
    try:
        (place / "written").touch()
    except OSError:
        pass
    else:
        (place / "written").unlink()
        raise AssertionError(f"{place} can be written to")
    command = str(Path(sys.executable).with_name("topobounds"))
    with tempfile.TemporaryDirectory() as folder:
        for words in (
            [sys.executable, "-I", "-W", "error", "-c", KERNELS],
            [command, "overlap", "--m", "784", "--n", "300", "--seed", "1"],
            [command, "figures", "figure2", "--from-records", "--out", folder],
            [command, "verify", "--m", "8", "--n", "6", "--trials", "2"],
        ):
            run = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
            assert (run.returncode, run.stderr) == (0, ""), (words, run.stderr)
    run = subprocess.run([command, "doctor", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["cache"] is None, found["cache"]
    assert "NUMBA_CACHE_DIR" in found["cache_reason"]


def main():
    command = [sys.executable, "-I", __file__, "--read-only"]
    if os.geteuid() == 0:
        command = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", sys.prefix, *command]
    else:
        subprocess.run(["chmod", "-R", "a-w", sys.prefix], check=True)
    try:
        subprocess.run(command, check=True, env={**os.environ, **NOWHERE})
    finally:
        if os.geteuid() != 0:
            subprocess.run(["chmod", "-R", "u+w", sys.prefix], check=True)


if __name__ == "__main__":
    check_use() if "--read-only" in sys.argv else main()
