"""Simulated overlaps: the draws, the supports, the count, and that every road gives the same numbers."""

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from tests import naive
from topobounds import montecarlo
from topobounds._kernels.montecarlo import _draw_cells, draw_ranks
from topobounds.montecarlo import simulate_overlap

ALL_64 = (1 << 64) - 1


# -- an oracle in pure Python: one trial, word by word ----------------------------------------------------------------


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & ALL_64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & ALL_64
    return x ^ (x >> 31)


def words(seed, trial, which):
    start = mix((mix(seed) + (2 * trial + which) * 0x9E3779B97F4A7C15) & ALL_64)
    step = mix(start ^ 0x9E3779B97F4A7C15) | 1
    if (step ^ (step >> 1)).bit_count() < 24:
        step ^= 0xAAAAAAAAAAAAAAAA
    for c in itertools.count(1):
        yield mix((start + c * step) & ALL_64)


def cells_of(seed, trial, m, n):
    """Yield the distinct cells of a trial without fixed cells, in order."""
    drawn = set()
    for word in words(seed, trial, 0):
        row, column = (word >> 32) * m, (word & 0xFFFFFFFF) * n
        if row % (1 << 32) < (1 << 32) % m or column % (1 << 32) < (1 << 32) % n:
            continue
        cell = row >> 32, column >> 32
        if cell not in drawn:
            drawn.add(cell)
            yield cell


@pytest.mark.parametrize(("m", "n", "k"), [(30, 20, 49), (20, 31, 50), (3, 3, 9), (1, 7, 4), (5, 5, 0)])
def test_a_trial_is_what_the_definition_says(m, n, k):
    layer = montecarlo._support(m, n, 1.0, "uniform")
    _, retained = montecarlo._run(layer, k, 11, montecarlo._numpy_ranks, range(6))
    expected = [m + n - naive.components(itertools.islice(cells_of(11, t, m, n), k), m, n) for t in range(6)]
    assert retained.tolist() == expected


def test_streams_of_trials_and_kinds_differ_and_steps_are_odd():
    streams = montecarlo._streams(0, range(1000))
    assert len(np.unique(streams[:, 0])) == len(np.unique(streams[:, 1])) == 2000
    assert (streams[:, 1] % 2 == 1).all()
    assert (streams != montecarlo._streams(1, range(1000))).all()
    np.testing.assert_array_equal(montecarlo._streams(0, range(300, 310)), streams[:, :, 300:310])


def test_a_word_in_the_incomplete_interval_is_skipped_by_both():
    # The word 0 gives row 0 and column 0 with a remainder of 0, below 2^32 mod 3 = 1.
    step = int(montecarlo._streams(0, range(1))[0, 1, 0])
    streams = np.array([[[-step % (1 << 64)], [step]]] * 2, np.uint64)
    assert montecarlo._mix(streams[0, 0] + streams[0, 1]).tolist() == [0]
    assert montecarlo._pairs(np.zeros(1, np.uint64), 3, 4).tolist() == [-1]
    assert montecarlo._pairs(np.zeros(1, np.uint64), 4, 8).tolist() == [0]
    layer = montecarlo._support(4, 3, 1.0, "uniform")
    edges, counters = np.empty((2, 1), np.uint32), np.zeros(2, np.uint64)
    _draw_cells(streams, 0, counters, (4, 3), True, np.zeros(1, np.uint64), 0, edges, 1)
    assert counters[0] >= 2
    assert montecarlo._top_cells(layer, streams, 1).tolist() == [[3 * (int(edges[0, 0]) - 3) + int(edges[1, 0])]]


# -- the law of the draws ---------------------------------------------------------------------------------------------


def chi_square_p(counts, expected):
    return stats.chisquare([counts[key] for key in expected], list(expected.values())).pvalue


def test_top_cells_of_the_full_layer_are_uniform_in_order():
    cells = montecarlo._top_cells(montecarlo._support(2, 3, 1.0, "uniform"), montecarlo._streams(5, range(24_000)), 3)
    orders = list(itertools.permutations(range(6), 3))
    counts = Counter(map(tuple, cells.tolist()))
    assert set(counts) == set(orders)
    assert chi_square_p(counts, dict.fromkeys(orders, 200)) > 1e-3


@pytest.mark.parametrize("support", ["star", "block"])
def test_top_cells_of_a_star_and_a_block_follow_their_law(support):
    """3x4, 9 cells: all sets of 4 cells, against every support and every choice in it."""
    layer = montecarlo._support(3, 4, 0.75, support)
    fixed = layer.fixed.tolist()
    assert len(fixed) == {"star": 6, "block": 7}[support]
    others = sorted(set(range(12)) - set(fixed))
    law = Counter()
    for extra in itertools.combinations(others, 9 - len(fixed)):
        law.update(itertools.combinations(sorted(fixed + list(extra)), 4))
    trials = 30_000
    tops = montecarlo._top_cells(layer, montecarlo._streams(5, range(trials)), 4)
    counts = Counter(map(tuple, np.sort(tops).tolist()))
    assert set(counts) <= set(law)
    assert chi_square_p(counts, {top: trials * weight / law.total() for top, weight in law.items()}) > 1e-3


@pytest.mark.parametrize(("m", "n", "density"), [(30, 20, 0.3), (20, 30, 0.55), (7, 9, 0.9), (4, 4, 0.5), (12, 1, 0.5)])
def test_supports_have_their_cells_and_their_shape(m, n, density):
    for support in ("uniform", "star", "block"):
        if support != "uniform" and n == 1:
            continue
        layer = montecarlo._support(m, n, density, support)
        assert layer.cells == round(density * m * n)
        drawn = montecarlo._top_cells(layer, montecarlo._streams(1, range(20)), layer.cells)
        masks = np.zeros((20, m, n), bool)
        masks.reshape(20, -1)[np.arange(20)[:, None], drawn] = True
        assert (masks.sum(axis=(1, 2)) == layer.cells).all()
        if support == "uniform" or layer.cells > layer.fixed.size:
            assert len(np.unique(masks.reshape(20, -1), axis=0)) > 1
        if support != "uniform":
            assert masks[:, 0].all()
            assert masks[:, :, 0].all()
            assert masks[:, : layer.side, : layer.side].all()
            next_block = layer.side == min(m, n) or m + n - 1 + layer.side**2 > layer.cells
            assert next_block if support == "block" else layer.side == 1


def test_the_block_covers_the_layer_where_the_density_does():
    layer = montecarlo._support(5, 5, 24 / 25, "block")
    assert (layer.side, layer.fixed.size, layer.n_free) == (4, 18, 7)
    assert layer.free_cells(np.arange(7)).tolist() == [9, 14, 19, 21, 22, 23, 24]


# -- known values -----------------------------------------------------------------------------------------------------


KNOWN = {(2, 2): "1", (2, 3): "19/20", (3, 3): "13/14", (4, 4): "346/385"}


@pytest.mark.parametrize(("shape", "value"), KNOWN.items())
def test_small_layers_against_enumeration(shape, value):
    exact = naive.expected_overlap(*shape, sum(shape) - 1)
    assert exact == Fraction(value)
    estimate = simulate_overlap(*shape, trials=20_000, seed=1)
    assert abs(estimate.mean - exact) <= 5 * estimate.standard_error


@pytest.mark.parametrize("k", range(10))
def test_every_k_against_enumeration(k):
    estimate = simulate_overlap(3, 3, k, trials=5_000, seed=2)
    assert abs(estimate.mean - naive.expected_overlap(3, 3, k)) <= 5 * estimate.standard_error


@pytest.mark.parametrize("kwargs", [{}, {"density": 0.1}, {"density": 0.1, "alpha_of": "complete"}])
def test_784x300_at_every_density(kwargs):
    """0.7996 without and with a uniform support: the corollary's 1 at density 0.1 is not what happens."""
    estimate = simulate_overlap(784, 300, trials=200, seed=4, **kwargs)
    assert abs(estimate.mean - 0.799607) <= 5 * estimate.standard_error
    assert estimate.standard_error < 1e-3
    assert (estimate.k, estimate.alpha, estimate.connected) == (1083, 1083.0, 1.0)


def uniform_expectations(m, n, cells):
    """Return E[X] in both readings, the share of connected supports, and E[X] given a connected one."""
    complete = m + n - 1
    own, whole, connected = [], [], []
    for support in itertools.combinations(itertools.product(range(m), range(n)), cells):
        alpha = m + n - naive.components(support, m, n)
        tops = [m + n - naive.components(top, m, n) for top in itertools.combinations(support, alpha)]
        own.append(Fraction(sum(tops), len(tops) * alpha))
        tops = [m + n - naive.components(top, m, n) for top in itertools.combinations(support, complete)]
        whole.append(Fraction(sum(tops), len(tops) * complete))
        if alpha == complete:
            connected.append(own[-1])
    n_supports = math.comb(m * n, cells)
    shares = sum(own) / n_supports, sum(whole) / n_supports, Fraction(len(connected), n_supports)
    return *shares, sum(connected) / len(connected)


def test_both_readings_where_the_support_may_be_disconnected():
    own, whole, connected, given_connected = uniform_expectations(3, 3, 6)
    support, complete = (
        simulate_overlap(3, 3, density=2 / 3, alpha_of=a, trials=20_000, seed=3) for a in ("support", "complete")
    )
    assert whole == Fraction(13, 14)
    assert abs(support.mean - own) <= 5 * support.standard_error
    assert abs(complete.mean - whole) <= 5 * complete.standard_error
    assert own - whole > 5 * support.standard_error
    assert (support.k, complete.k) == (None, 5)
    assert support.alpha < complete.alpha == 5
    for estimate in (support, complete):
        assert abs(estimate.connected - connected) <= 5 * math.sqrt(connected * (1 - connected) / 20_000)
        assert abs(estimate.mean_connected - given_connected) <= 5 * estimate.standard_error_connected


def mask_expectation(mask, k):
    cells = [tuple(c) for c in np.argwhere(mask).tolist()]
    tops = [sum(mask.shape) - naive.components(top, *mask.shape) for top in itertools.combinations(cells, k)]
    return sum(tops) / len(tops)


def test_a_mask_is_the_support():
    mask = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]], bool)
    estimate = simulate_overlap(4, 5, support=mask, trials=5_000, seed=1)
    assert (estimate.support, estimate.cells, estimate.density) == ("mask", 8, 0.4)
    assert (estimate.k, estimate.alpha, estimate.connected) == (6, 6.0, 0.0)
    assert math.isnan(estimate.mean_connected)
    assert abs(estimate.mean - mask_expectation(mask, 6) / 6) <= 5 * estimate.standard_error
    complete = simulate_overlap(4, 5, support=mask, alpha_of="complete", trials=5_000, seed=1)
    assert (complete.k, complete.mean, complete.standard_error) == (8, 0.75, 0.0)
    assert simulate_overlap(4, 5, 4, support=mask.tolist(), trials=50, seed=1).mean <= 4 / 6


def test_a_pendant_cycle_refutes_the_printed_corollary():
    """8x8, density 1/4, a 4-cycle with 12 pendant edges: E[X] = 19/20, not the printed 0.9616 (theory/supports.md)."""
    mask = np.zeros((8, 8), bool)
    mask[0, :5] = mask[:5, 0] = mask[1, 1] = True
    mask[1, 5:] = mask[5:, 1] = True
    estimate = simulate_overlap(8, 8, support=mask, trials=20_000, seed=1)
    assert (estimate.density, estimate.connected, estimate.k) == (0.25, 1.0, 15)
    assert abs(estimate.mean - 0.95) <= 5 * estimate.standard_error < 0.9616 - 0.95


def test_stars_and_blocks_are_connected_and_ordered():
    star, block = (simulate_overlap(60, 40, density=0.3, support=s, seed=1) for s in ("star", "block"))
    uniform = simulate_overlap(60, 40, density=0.3, seed=1)
    assert star.connected == block.connected == 1.0
    assert block.mean < star.mean < uniform.mean + 5 * uniform.standard_error
    assert simulate_overlap(60, 40, density=99 / 2400, support="star", seed=1).mean == 1.0


# -- one number, whatever the road ------------------------------------------------------------------------------------


def layers():
    rng = np.random.default_rng(0)
    for m, n in [(784, 300), (30, 20), (20, 30), (40, 3), (5, 1), (1, 5), (1, 1), (2, 2)]:
        yield m, n, 1.0, "uniform"
        for density, support in itertools.product((0.02, 0.3, 0.6, 0.95), ("uniform", "star", "block")):
            if round(density * m * n) >= (1 if support == "uniform" else m + n - 1):
                yield m, n, density, support
        mask = rng.random((m, n)) < 0.3
        mask[0, 0] = True
        yield m, n, 1.0, mask


@pytest.mark.parametrize("bitmap_cells", [1 << 22, 0], ids=["bitmap", "hash"])
def test_numpy_and_numba_draw_the_same(monkeypatch, bitmap_cells):
    monkeypatch.setattr(montecarlo, "BITMAP_CELLS", bitmap_cells)
    monkeypatch.setattr(montecarlo, "TABLE_CELLS", 256 if bitmap_cells else 0)
    for m, n, density, support in layers():
        layer = montecarlo._support(m, n, density, support)
        for k in {None, 0, 1, layer.cells // 2, min(layer.cells, 3000)}:
            limit = montecarlo._limit(layer, k, "support")
            numpy, numba = (
                montecarlo._run(layer, limit, 9, ranks, range(3))
                for ranks in (montecarlo._numpy_ranks, montecarlo._compiled_ranks)
            )
            np.testing.assert_array_equal(numpy, numba, err_msg=f"{layer} {k}")


def test_a_table_that_fills_gives_way_to_a_bitmap(monkeypatch):
    layer = montecarlo._support(30, 20, 0.5, "uniform")
    streams, limits = montecarlo._streams(1, range(40)), np.full(40, 300)
    expected = montecarlo._numpy_ranks(layer, streams, limits, 49)
    sets, asked = montecarlo._set, []

    def small_tables(population, load):
        asked.append(load)
        return sets(population, load) if load == math.inf else (np.zeros(256, np.uint64), 56)

    monkeypatch.setattr(montecarlo, "_set", small_tables)
    np.testing.assert_array_equal(montecarlo._compiled_ranks(layer, streams, limits, 49), expected)
    assert asked[-1] == math.inf
    work = (np.zeros(256, np.uint64),) * 2, (56, 56), np.empty((2, 64), np.uint32), np.empty(50, np.uint32)
    ranks = np.zeros(40, np.int64)
    stopped = draw_ranks(streams, limits, 0, 49, (30, 20), True, 0, 0, np.empty((2, 0), np.uint32), *work, ranks)
    assert 0 <= stopped < 40
    np.testing.assert_array_equal(ranks[:stopped], expected[:stopped])


@pytest.mark.parametrize("kwargs", [{}, {"density": 0.15}, {"density": 0.3, "support": "block"}])
def test_threads_and_batches_leave_no_trace(monkeypatch, kwargs):
    expected = simulate_overlap(30, 20, trials=300, seed=6, **kwargs)
    monkeypatch.setattr(montecarlo, "NUMPY_BATCH", 1 << 10)
    assert simulate_overlap(30, 20, trials=300, seed=6, **kwargs) == expected
    monkeypatch.setattr(montecarlo._NUMPY_BUDGET, "affords", lambda cells: False)
    for threads, batch in [(1, 1 << 10), (2, 1 << 11), (3, 1 << 12), (None, 1 << 21)]:
        monkeypatch.setattr(montecarlo, "COMPILED_BATCH", batch)
        assert simulate_overlap(30, 20, trials=300, seed=6, threads=threads, **kwargs) == expected


def test_more_trials_begin_with_the_same_draws():
    layer = montecarlo._support(30, 20, 0.2, "uniform")
    few, many = (montecarlo._batches(layer, None, 8, trials, 1) for trials in (200, 100_000))
    first = np.concatenate(list(few), axis=1)
    assert first.shape == (2, 200)
    np.testing.assert_array_equal(next(many)[1][:200], first[1])
    many.close()


def test_beyond_2_to_the_31_cells():
    m = n = 1 << 16
    layer = montecarlo._support(m, n, 1.0, "uniform")
    assert layer.cells == 1 << 32
    streams, limits = montecarlo._streams(2, range(1)), np.array([m + n - 1])
    numpy, numba = (
        ranks(layer, streams, limits, m + n - 1) for ranks in (montecarlo._numpy_ranks, montecarlo._compiled_ranks)
    )
    assert numpy.tolist() == numba.tolist()
    assert abs(numpy[0] / (m + n - 1) - 0.8381) < 0.01
    cells = montecarlo._top_cells(layer, streams, 1000)
    assert cells.max() > 1 << 31
    assert np.unique(cells).size == 1000


def test_a_layer_too_large_for_numpy_is_compiled(monkeypatch):
    monkeypatch.setattr(montecarlo, "NUMPY_POPULATION", 599)
    monkeypatch.delattr(montecarlo, "_numpy_ranks")
    with pytest.raises(NameError, match="_numpy_ranks"):
        simulate_overlap(29, 20, trials=2, seed=0)


# -- edges and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 9), (9, 1)])
def test_every_cell_of_a_row_is_in_the_forest(m, n):
    estimate = simulate_overlap(m, n, trials=20, seed=0)
    assert (estimate.mean, estimate.standard_error, estimate.k) == (1.0, 0.0, m + n - 1)
    assert simulate_overlap(m, n, 1, trials=20, seed=0).mean == 1 / (m + n - 1)


def test_no_cells_and_all_cells():
    none, every = (simulate_overlap(7, 5, k, trials=50, seed=0) for k in (0, 35))
    assert (none.mean, none.standard_error, none.k) == (0.0, 0.0, 0)
    assert (every.mean, every.standard_deviation) == (1.0, 0.0)
    assert simulate_overlap(784, 300, 235_199, trials=5, seed=0).mean == 1.0


def test_one_trial_has_no_standard_error():
    record = simulate_overlap(7, 5, trials=1, seed=0)
    assert math.isnan(record.standard_error)
    as_dict = json.loads(json.dumps(record.to_dict()))
    assert as_dict["standard_error"] is as_dict["standard_deviation"] is None
    assert 0 < as_dict["mean"] <= 1
    assert as_dict["reason"] == "One trial says nothing about its own error."
    assert simulate_overlap(7, 5, trials=2, seed=0).reason is None


def test_what_is_missing_has_its_reason():
    estimate = simulate_overlap(784, 300, density=0.005, trials=20, seed=1)
    assert (estimate.k, estimate.cells, estimate.connected) == (None, 1176, 0)
    own = f"Each trial took the alpha of its own support for k, {estimate.alpha:.1f} on average."
    assert estimate.reason == f"{own} No support was connected, so these have no mean."
    assert 880 < estimate.alpha < 900
    few = simulate_overlap(6, 5, density=0.35, trials=20, seed=2)
    assert math.isnan(few.standard_error_connected)
    assert not math.isnan(few.mean_connected)
    assert few.reason.endswith("One support was connected, so the mean over these has no standard error.")
    same = simulate_overlap(784, 300, 900, density=0.005, trials=20, seed=1)
    assert (same.k, same.reason) == (900, "No support was connected, so these have no mean.")


def test_no_seed_draws_one_and_records_it():
    first, second = (simulate_overlap(7, 5, trials=20) for _ in range(2))
    assert first.seed != second.seed
    assert simulate_overlap(7, 5, trials=20, seed=first.seed) == first


def test_moments_are_those_of_the_trials():
    layer = montecarlo._support(30, 20, 0.15, "uniform")
    alphas, retained = montecarlo._run(layer, None, 1, montecarlo._numpy_ranks, range(300))
    overlaps = retained / alphas
    estimate = simulate_overlap(30, 20, density=0.15, trials=300, seed=1)
    assert estimate.mean == pytest.approx(overlaps.mean(), rel=1e-14)
    assert estimate.standard_deviation == pytest.approx(overlaps.std(ddof=1), rel=1e-12)
    assert estimate.standard_error == pytest.approx(overlaps.std(ddof=1) / math.sqrt(300), rel=1e-12)
    assert estimate.alpha == pytest.approx(alphas.mean())
    assert 0 < estimate.connected == (alphas == 49).mean() < 1


def test_progress_counts_to_the_end(monkeypatch):
    monkeypatch.setattr(montecarlo, "NUMPY_BATCH", 10 * 13)
    calls = []
    simulate_overlap(7, 5, trials=95, seed=0, progress=lambda *call: calls.append(call))
    assert calls == [(done, 95) for done in (*range(10, 95, 10), 95)]


def test_an_interrupt_stops_the_work(monkeypatch):
    monkeypatch.setattr(montecarlo._NUMPY_BUDGET, "affords", lambda cells: False)
    monkeypatch.setattr(montecarlo, "COMPILED_BATCH", 10 * 13)
    run, begun = montecarlo._run, []

    def counted(*args):
        begun.append(args[-1])
        return run(*args)

    def stop(done, trials):
        raise KeyboardInterrupt

    monkeypatch.setattr(montecarlo, "_run", counted)
    with pytest.raises(KeyboardInterrupt):
        simulate_overlap(7, 5, trials=10_000, seed=0, threads=2, progress=stop)
    assert 1 <= len(begun) <= 5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"m": 0}, "Argument 'm' must be a positive integer, not 0."),
        ({"n": 2.0}, "Argument 'n' must be a positive integer, not 2.0."),
        ({"m": 1 << 26}, r"Arguments 'm' and 'n' must add up to at most 16777216, not 67108872."),
        ({"k": -1}, "Argument 'k' must be a non-negative integer, not -1."),
        ({"k": 81}, "Argument 'k' must be at most 80, the number of cells of the support, not 81."),
        ({"k": 41, "density": 0.5}, "Argument 'k' must be at most 40, the number of cells of the support, not 41."),
        ({"density": 0}, r"Argument 'density' must be a number in \(0, 1\], not 0."),
        ({"density": 1.5}, r"Argument 'density' must be a number in \(0, 1\], not 1.5."),
        ({"density": 0.001}, "Argument 'density' must be at least 0.0125, one of the 80 cells, not 0.001."),
        (
            {"density": 0.2, "support": "star"},
            "Argument 'density' must be at least 0.2125 for support 'star', 17 of the 80 cells, not 0.2.",
        ),
        (
            {"density": 0.2, "support": "block"},
            "Argument 'density' must be at least 0.2125 for support 'block', 17 of the 80 cells, not 0.2.",
        ),
        (
            {"density": 0.1, "alpha_of": "complete"},
            "Argument 'density' must be large enough for 17 cells, the alpha of the complete graph, not 0.1.",
        ),
        ({"support": "ring"}, "Argument 'support' must be one of 'uniform', 'star', 'block', not 'ring'."),
        (
            {"support": np.ones((8, 10), bool)},
            r"Argument 'support' must be .* bool array \(10, 8\), not bool \(8, 10\).",
        ),
        ({"support": np.ones((10, 8))}, r"Argument 'support' must be .* bool array \(10, 8\), not float64 \(10, 8\)."),
        ({"support": np.zeros((10, 8), bool)}, "Argument 'support' must have at least one cell that is True, not 0."),
        (
            {"support": np.ones((10, 8), bool), "density": 0.5},
            "Argument 'density' must be left out where 'support' is a mask, not 0.5.",
        ),
        ({"alpha_of": "forest"}, "Argument 'alpha_of' must be one of 'support', 'complete', not 'forest'."),
        ({"trials": 0}, "Argument 'trials' must be a positive integer, not 0."),
        ({"trials": 10**20}, "Argument 'trials' must be at most 1000000000, not 100000000000000000000."),
        ({"seed": -1}, "Argument 'seed' must be an integer from 0 to 18446744073709551615, not -1."),
        ({"threads": 0}, "Argument 'threads' must be a positive integer, not 0."),
    ],
)
def test_errors_name_the_argument_the_rule_and_what_was_given(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        simulate_overlap(**({"m": 10, "n": 8} | kwargs))


@pytest.mark.parametrize("m, n", [(10, 8), (784, 300), (7, 3), (11, 13)])  # noqa: PT006
def test_the_smallest_density_that_an_error_states_works(m, n):
    smallest = (m + n - 1) / (m * n)
    assert simulate_overlap(m, n, density=smallest, support="star", trials=3, seed=0).cells == m + n - 1


def test_numpy_draws_what_takes_less_than_loading_the_kernels(monkeypatch):
    monkeypatch.setattr(montecarlo._NUMPY_BUDGET, "spent", 0)
    monkeypatch.delitem(sys.modules, "topobounds._kernels.montecarlo", raising=False)
    assert montecarlo._NUMPY_BUDGET.affords(4600 * 1084)
    assert not montecarlo._NUMPY_BUDGET.affords(20_000)
    assert montecarlo._NUMPY_BUDGET.affords(10_000)
    monkeypatch.setitem(sys.modules, "topobounds._kernels.montecarlo", montecarlo)
    assert montecarlo._NUMPY_BUDGET.affords(30_000)
    assert not montecarlo._NUMPY_BUDGET.affords(30_001)


def test_a_one_shot_loads_no_heavy_library():
    code = (
        "import sys; from topobounds.montecarlo import simulate_overlap; simulate_overlap(784, 300, seed=0);"
        "print(sorted({'numba', 'scipy', 'sympy', 'matplotlib', 'concurrent.futures.thread'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
