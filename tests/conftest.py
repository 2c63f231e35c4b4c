"""Shared by all tests: where compiled kernels are kept, and the data folder if there is one."""

import gc
import hashlib
import os
import shutil
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.optional import ABSENT, absent_of
from topobounds._parallel import processors

ROOT = Path(__file__).parents[1]


def kernel_cache():
    """Return the folder for what numba compiles, one for the kernels as they are now, and remove those before.

    numba's cache of a kernel notices an edit in its own file only, and no setting of numba's at all. Under a name made
    of all of them it can outlive a run, and the processes of one run share it. One that
    compiles nothing removes nothing.
    """
    content = hashlib.sha256(version("numba").encode())
    for file in sorted((ROOT / "topobounds" / "_kernels").glob("*.py")):
        content.update(file.read_bytes())
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")}
    settings.pop("NUMBA_CACHE_DIR", None)
    content.update(repr(settings).encode())
    folder = ROOT / ".pytest_cache" / "kernels" / content.hexdigest()[:16]
    compiles = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
    if compiles and "PYTEST_XDIST_WORKER" not in os.environ and folder.parent.exists():
        for other in set(folder.parent.iterdir()) - {folder}:
            shutil.rmtree(other, ignore_errors=True)
    return folder


os.environ["NUMBA_CACHE_DIR"] = str(kernel_cache())
if "PYTEST_XDIST_WORKER" in os.environ:
    from tests import one_compiler

    one_compiler.install()
# Threads of torch that wait for others sleep: there are more workers than processors.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Hundreds of processes are started here: none should compile the package's source anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# pytest-xdist gives its workers a terminal's width, which what is printed into a pipe would obey.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def data_dir():
    """Return the folder that TOPOBOUNDS_DATA names; tests that need it skip where there is none."""
    folder = os.environ.get("TOPOBOUNDS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TOPOBOUNDS_DATA names no folder with the data sets")
    return Path(folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Keep the garbage collector from what is imported and collected meanwhile: none of it is garbage.

    Workers let it alone for good: no round goes through it again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        if hasattr(session.config, "workerinput"):  # not so in processes that a worker's tests start
            gc.freeze()
            gc.set_threshold(100_000, 20, 20)  # compiling a kernel makes a million objects, of which few are garbage
        gc.enable()


@pytest.hookimpl(optionalhook=True)  # runs without xdist know of no workers
def pytest_xdist_auto_num_workers(config):
    """Return one worker more than there are processors: many a test waits for a process that it has started."""
    return processors() + 1


def pytest_ignore_collect(collection_path, config):
    """Leave out what needs a package that is not installed: environments of releases have few of them."""
    left_out = collection_path.suffix == ".py" and bool(ABSENT) and absent_of(collection_path) is not None
    return True if left_out else None


def pytest_report_header():
    """Say what is left out, and why: a file that is not collected is silent otherwise."""
    files = Counter(filter(None, map(absent_of, Path(__file__).parent.rglob("test_*.py")))) if ABSENT else {}
    return [f"{count} files of tests left out: {name} is not installed" for name, count in sorted(files.items())]
