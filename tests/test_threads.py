"""Compiled kernels called from sixteen threads at once give what one gives; what runs at once shares the processors."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from types import ModuleType

import numpy as np
import pytest

from topobounds import (
    magnitude_mask,
    maximum_spanning_forest,
    neural_persistence,
    overlap_null,
    persistence_null,
    simulate_overlap,
    topological_mask,
)
from topobounds._engine import kernels_disabled
from topobounds._parallel import Sharing, fair_share
from topobounds.topology.moments import weight_moments

THREADS = 16


def matrices():
    """Return layers of several types, some with ties and zeros, large enough for the engine of large forests."""
    draw = np.random.default_rng(0)
    wide = draw.standard_normal((300, 200)).astype(np.float32)
    return [
        draw.standard_normal((120, 90)),
        wide,
        draw.integers(-3, 4, (150, 110)).astype(np.int8),
        np.where(draw.random((200, 100)) < 0.1, draw.standard_normal((200, 100)), 0.0),
        np.asfortranarray(wide[::2]),
        draw.standard_normal((700, 600)).astype(np.float16),
    ]


def forest(weights):
    found = maximum_spanning_forest(weights)
    return found.rows, found.cols, found.weights, found.ranks


ASKED = {
    "forest": forest,
    "persistence": neural_persistence,
    "magnitude": lambda weights: magnitude_mask(weights, 0.3),
    "t-imp": lambda weights: topological_mask(weights, np.count_nonzero(weights) // 2),
    "overlap null": lambda weights: overlap_null(weights, trials=20, seed=3).to_dict(),
    "persistence null": lambda weights: persistence_null(weights, trials=8, seed=3).to_dict(),
    "simulation": lambda weights: simulate_overlap(*weights.shape, trials=20, seed=weights.shape[0]).to_dict(),
}


def as_bytes(found):
    if isinstance(found, tuple):
        return [as_bytes(each) for each in found]
    return (found.tobytes(), found.dtype, found.shape) if isinstance(found, np.ndarray) else repr(found)


@pytest.mark.parametrize("name", ASKED)
def test_sixteen_threads_give_what_one_gives(name):
    layers = [np.array(layer) if layer.flags.c_contiguous else layer for layer in matrices()]
    here = [as_bytes(ASKED[name](layer)) for layer in layers]
    together = Barrier(THREADS)

    def ask(number):
        together.wait()
        order = np.random.default_rng(number).permutation(len(layers))
        return {place: as_bytes(ASKED[name](layers[place])) for place in order}

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(ask, range(THREADS)):
            assert [found[place] for place in range(len(layers))] == here


def test_a_thread_that_imports_numba_does_not_disturb_the_others(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))  # as it is before it has read its settings
    assert not kernels_disabled()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert kernels_disabled()


def test_what_is_done_at_the_same_time_shares_the_processors():
    sharing, together = Sharing(), Barrier(2)

    def share(_: int) -> int:
        with sharing.piece():
            together.wait(60)
            return fair_share(8)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(share, range(2))) == [4, 8], "the first one began alone"
    with sharing.piece():
        assert (fair_share(8), fair_share(1)) == (8, 1), "both of them have ended"
        with sharing.piece():
            assert (fair_share(8), fair_share(1)) == (4, 1)
    assert fair_share(8) == 8


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_the_sums_of_squares_are_the_same_whatever_the_share_of_the_processors(at_once):
    weights = np.random.default_rng(0).standard_normal((1500, 3000))
    alone = weight_moments(weights)
    sharing = Sharing()
    with ExitStack() as pieces:
        for _ in range(at_once):
            pieces.enter_context(sharing.piece())
        assert weight_moments(weights) == alone
