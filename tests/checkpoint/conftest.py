"""Readers that other rooms register, whatever the installed metadata say."""

from importlib.metadata import EntryPoint

import pytest

from topobounds.checkpoint import opening

REGISTERED = {"torch": "torch_bridge.model.reader:TorchReader", "runs": "topobounds.runs.reader:RunReader"}


def entry_points_of_the_project(group):
    return [EntryPoint(name, value, group) for name, value in REGISTERED.items()] if group == opening.GROUP else []


@pytest.fixture
def registered(monkeypatch):
    """Register the readers of the project, as its pyproject.toml does."""
    monkeypatch.setattr(opening, "entry_points", entry_points_of_the_project)
