"""Where files are read, and read ahead of who reads them."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from topobounds.checkpoint import location
from topobounds.checkpoint.location import read_range

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what it holds of a file")


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Write a file of 40 MiB, of which 4 to 8 are to be read ahead."""
    path = tmp_path / "large"
    path.write_bytes(np.arange(5 * MIB, dtype=np.uint64).tobytes())
    monkeypatch.setattr(location, "_LEAST_AHEAD", 4 * MIB)
    monkeypatch.setattr(location, "_AHEAD", 8 * MIB)
    return path


@pytest.fixture
def looked_at(monkeypatch):
    """Return a function that returns which parts were looked at, in MiB; the system holds these, and nothing else."""
    parts, reading = [], location._ReadingAhead()

    def look_at(descriptor, first, last):
        parts.append((os.fstat(descriptor).st_ino, first // MIB, last // MIB))

    def is_held(file, places):
        finish()
        return all(
            any(each[0] == file.stat().st_ino and each[1] <= at // MIB < each[2] for each in parts) for at in places
        )

    def finish():
        reading._thread.submit(int).result()
        return [part[1:] for part in parts]

    monkeypatch.setattr(location, "_is_held", is_held)
    monkeypatch.setattr(location, "_look_at", look_at)
    monkeypatch.setattr(location, "_reading_ahead", lambda: reading)
    return finish


@pytest.mark.parametrize("first", [0, 1, 4096, 2 * MIB, 2 * MIB + 8, 39 * MIB])
def test_a_range_is_what_the_file_holds_there(large, first):
    length = min(3 * MIB, 40 * MIB - first)
    assert read_range(large, first, length).tobytes() == large.read_bytes()[first : first + length]


def test_a_range_beyond_the_end_is_refused(large):
    with pytest.raises(ValueError, match="greater than file size"):
        read_range(large, 39 * MIB, 2 * MIB)


def test_tensors_in_order_are_read_ahead_once_and_in_large_parts(large, looked_at):
    for first in range(0, 40 * MIB, 2 * MIB):
        read_range(large, first, 2 * MIB)
    assert looked_at() == [(0, 10), (10, 16), (16, 22), (22, 28), (28, 34), (34, 40)]


def test_two_threads_a_little_out_of_order_begin_anew_once_at_most(large, looked_at):
    for first in (2, 0, 8, 6, 4):
        read_range(large, first * MIB, 2 * MIB)
    assert looked_at() == [(2, 12), (0, 10), (10, 18)]


def test_a_file_that_is_read_again_is_read_ahead_again(large, looked_at, monkeypatch):
    monkeypatch.setattr(location, "_is_held", lambda *_: False)
    for first in (0, 20, 36, 38, 0, 4):
        read_range(large, first * MIB, 2 * MIB)
    assert looked_at() == [(0, 10), (20, 30), (36, 40), (0, 10)]


def test_another_place_or_file_is_begun_anew(large, looked_at, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(3 * MIB))
    for path, first in ((large, 30), (large, 0), (other, 0), (large, 20)):
        read_range(path, first * MIB, 2 * MIB)
    assert looked_at() == [(30, 40), (0, 10), (0, 3), (20, 30)]


def test_small_tensors_and_what_is_held_are_not_read_ahead(large, looked_at, monkeypatch):
    read_range(large, 0, MIB - 1)
    monkeypatch.setattr(location, "_is_held", lambda *_: True)
    read_range(large, 0, 2 * MIB)
    assert looked_at() == []


def test_what_is_not_held_is_not_fetched_by_asking_whether_it_is(large):
    with large.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if location._is_held(large, [20 * MIB]):
        pytest.skip("the file system lets go of nothing")
    time.sleep(0.1)
    assert not location._is_held(large, [20 * MIB])
    with large.open("rb") as stream:
        stream.seek(20 * MIB)
        stream.read(1)
    assert location._is_held(large, [20 * MIB])
    assert not location._is_held(large, [20 * MIB, 40 * MIB - 1])


def test_what_was_looked_at_is_held_and_its_file_closed(large):
    with large.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if location._is_held(large, [20 * MIB]):
        pytest.skip("the system holds all of a file here, whatever it is told")
    reading = location._ReadingAhead()
    reading.ask(large, 32 * MIB, 2 * MIB)
    reading._thread.shutdown()
    assert location._is_held(large, [34 * MIB, 40 * MIB - 1])
    assert large not in [each.resolve() for each in Path("/proc/self/fd").iterdir()]
