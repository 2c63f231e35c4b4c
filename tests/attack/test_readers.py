"""Readers of files, of bytes that nobody wrote: `tests.attack.readers`, here without a fuzzer."""

import zlib

import numpy as np
import pytest

from tests.attack import readers

pytestmark = pytest.mark.usefixtures("registered")
CHANGES = 60  # of each input to begin with


def altered(content, rng):
    """Return an input with some bytes changed, cut out, repeated, or taken from elsewhere in it."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not content:
            break
        at, length = int(rng.integers(len(content))), int(rng.integers(1, 20))
        kind = rng.integers(5)
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[at : at + length]
        elif kind == 2:
            content[at:at] = content[at : at + length] * int(rng.integers(1, 5))
        elif kind == 3:
            content[at : at + 8] = [0, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1][rng.integers(6)].to_bytes(8, "little")
        else:
            content[at : at + 1] = rng.choice(list(b'[]{}",:=-\\\0\xff0e')).item().to_bytes(1, "little")
    return bytes(content)


@pytest.fixture
def registered(monkeypatch):
    from tests.checkpoint.conftest import entry_points_of_the_project
    from topobounds.checkpoint import opening

    monkeypatch.setattr(opening, "entry_points", entry_points_of_the_project)


@pytest.mark.parametrize("kind", readers.FILES)
def test_altered_files_are_read_or_refused_in_one_line(kind, tmp_path):
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    inputs = list(readers.seeds(kind))
    for number, content in enumerate(inputs):
        for change in range(1 + CHANGES // len(inputs)):
            place = tmp_path / f"{number}-{change}"
            place.mkdir()
            readers.attempt(kind, altered(content, rng) if change else content, place)
