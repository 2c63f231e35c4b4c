"""Readers that other rooms register, whatever the installed metadata say."""

from importlib.metadata import EntryPoint

import pytest

from topobounds.checkpoint import opening

REGISTERED = {"torch": "torch_bridge.reader:TorchReader", "runs": "topobounds.runs.reader:RunReader"}


@pytest.fixture
def registered(monkeypatch):
    """Register the readers of the project, as its pyproject.toml does."""
    plugins = [EntryPoint(name, value, opening.GROUP) for name, value in REGISTERED.items()]
    monkeypatch.setattr(opening, "entry_points", lambda group: plugins if group == opening.GROUP else [])
