"""``topobounds doctor`` tells what is here, and never fails."""

import json
import os
import platform
from importlib import metadata
from importlib.util import find_spec

import numpy as np
import pytest

from topobounds.cli import doctor as module
from topobounds.cli import main
from torch_bridge.model.devices import devices
from torch_bridge.training.data import FILES, data_found

KEYS = ["topobounds", "python", "platform", "packages", "processors", "memory", "cache", "data", "extras", "devices"]


def printed(capsys, *options):
    with pytest.raises(SystemExit) as left:
        main(["doctor", *options])
    output = capsys.readouterr()
    assert (left.value.code, output.err) == (0, "")
    return output.out


def test_it_tells_what_is_here(capsys):
    found = json.loads(printed(capsys, "--json"))
    assert set(KEYS) <= set(found)
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == np.__version__
    assert found["processors"]["count"] >= 1
    assert found["cache"]["writable"] in (True, False)
    torch = found["extras"]["torch"]
    assert torch["packages"]["torch"] == (metadata.version("torch") if find_spec("torch") else "not installed")
    assert torch["installed"] == ("not installed" not in torch["packages"].values())


def test_every_key_is_a_row_of_the_table(capsys):
    words = {line.split()[0] for line in printed(capsys).splitlines()}
    assert set(KEYS) - {"extras"} | {"extra"} <= words


def test_what_is_broken_is_a_dash_with_the_reason(capsys, monkeypatch):
    monkeypatch.setenv("TOPOBOUNDS_DATA", "/no/such/folder")
    monkeypatch.setattr(module.metadata, "version", lambda name: 1 / 0)
    found = json.loads(printed(capsys, "--json"))
    assert found["topobounds"] is None
    assert found["topobounds_reason"] == "division by zero"
    assert found["data"] is None
    assert found["data_reason"]
    assert "- (division by zero)" in printed(capsys)


def test_a_cache_that_cannot_be_written_is_said_to_be(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert module._cache()["writable"] is False


def test_without_packages_that_know_devices_there_are_none(capsys, monkeypatch):
    monkeypatch.setattr(module.metadata, "entry_points", lambda group: ())
    found = json.loads(printed(capsys, "--json"))
    assert (found["devices"], found["devices_reason"]) == (None, module.NOBODY)


def test_torch_tells_its_devices():
    torch = pytest.importorskip("torch")
    found = devices()
    assert found[0]["name"] == "cpu"
    assert len(found) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()
    assert all(each["memory"] or each["reason"] for each in found)


def test_data_sets_that_are_whole_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPOBOUNDS_DATA", str(tmp_path))
    assert data_found() == {"folder": str(tmp_path), "sets": []}
    (tmp_path / "mnist").mkdir()
    for name in FILES:
        (tmp_path / "mnist" / name).touch()
    assert data_found()["sets"] == ["mnist"]
