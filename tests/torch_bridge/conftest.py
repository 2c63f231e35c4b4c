"""Shared by the tests of the bridge."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Nets this small are slowed down by threads, and by a factor of fifty where other tests keep the cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
