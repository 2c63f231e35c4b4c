"""Random small layers and kernels against other software: `tests.attack.differential`."""

from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest

from tests.attack import differential
from topobounds.topology import spanning
from topobounds.topology.key_matrix import Edges


def test_a_block_of_cases_is_answered_as_by_others():
    counts = Counter()
    with differential.counted(counts), patch.object(differential, "BLOCK", 200):
        assert differential.run_block(1, 0, counts) == []
    assert counts["scipy"] > 160
    assert min(counts[name] for name in ("naive", "networkx", "gudhi", "masks", "convolutions")) > 5


@pytest.mark.attack
def test_many_cases_are_answered_as_by_others_and_every_part_is_used(tmp_path):
    state = differential.run(tmp_path, 50_000, 1200, seed=int(np.random.default_rng().integers(2**32)))
    assert not (tmp_path / "differences.txt").exists(), (tmp_path / "differences.txt").read_text()
    parts = [f"path {name}" for name in [*differential.PATHS, "_plain_edges", "collect_scaled"]]
    assert min(state["counts"].get(part, 0) for part in parts) > 100


def test_a_run_goes_on_where_it_ended(tmp_path):
    with patch.object(differential, "BLOCK", 25):
        differential.run(tmp_path / "twice", 25, 60, seed=5)
        twice = differential.run(tmp_path / "twice", 50, 60, seed=5)
        once = differential.run(tmp_path / "once", 50, 60, seed=5)
    assert twice["counts"] == once["counts"]


def test_a_wrong_forest_is_found():
    """An edge left out, in the numpy engine alone."""
    right = spanning._plain_edges

    def wrong(order, keys):
        edges = right(order, keys)
        return Edges(edges.cells[:-1], edges.keys[:-1], edges.ranks[:-1])

    with patch.object(spanning, "_plain_edges", wrong), patch.object(differential, "BLOCK", 200):
        found = differential.run_block(1, 1, Counter())
    assert len(found) > 20
    assert all("numpy=True" in line for line in found if "place" in line and "scipy" not in line)
