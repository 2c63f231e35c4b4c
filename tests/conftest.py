"""Shared by all tests: a throwaway cache for compiled kernels, and the data folder if there is one."""

import os
import tempfile
from pathlib import Path

import pytest

# numba's cache of a kernel does not notice an edit in another file, so tests never trust an old one; the workers of
# one run share what the first of them compiles.
_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
# pytest-xdist gives its workers a terminal's width, which what is printed into a pipe would obey.
os.environ.pop("COLUMNS", None)
os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"topobounds-numba-{_run}")


@pytest.fixture(scope="session")
def data_dir():
    """Return the folder that TOPOBOUNDS_DATA names; tests that need it skip where there is none."""
    folder = os.environ.get("TOPOBOUNDS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TOPOBOUNDS_DATA names no folder with the data sets")
    return Path(folder)
