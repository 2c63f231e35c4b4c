"""Several roads to one number: the shapes, chance and weights are asked the same question and must agree."""

import itertools
import math

import numpy as np
import pytest

from tests import naive
from topobounds import (
    boruvka_bound,
    corollary_3_4,
    critical_compression_ratio,
    critical_kernel_weights,
    exact_expected_overlap,
    expected_overlap,
    magnitude_overlap,
    maximum_spanning_forest,
    overlap_limit,
    persistence_diagram,
    simulate_overlap,
    star_bound,
    theorem_3_3,
)
from topobounds.layers import Conv
from topobounds.supports import cells_at_density
from topobounds.theory.bounds import corollary_3_4_repaired
from topobounds.theory.symbolic import exact_theorem_3_3
from topobounds.verification.draws import Setting

SIZES = [(1, 1), (1, 9), (2, 2), (2, 3), (3, 4), (5, 5), (7, 40), (10, 10), (10, 1000), (30, 20), (33, 100)]
SIZES += [(64, 64), (100, 10), (128, 1000), (300, 100), (400, 400), (784, 300), (784, 10), (1000, 200), (2000, 2000)]


def places(m, n):
    """Return numbers of weights kept: none, few, around alpha, around connectivity, most and all."""
    alpha, cells = m + n - 1, m * n
    around = [0, 1, alpha // 3, alpha // 2, alpha - 1, alpha, alpha + 1, 3 * alpha // 2, 3 * alpha, 6 * alpha]
    return sorted({k for k in [*around, cells // 2, cells - 1, cells] if 0 <= k <= cells})


GRID = [(m, n, k) for m, n in SIZES for k in places(m, n)]


def test_the_grid_is_wide():
    assert len(GRID) >= 200
    assert {(1, 1, 0), (2000, 2000, 4_000_000)} <= set(GRID)


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_chance_lies_in_the_enclosure(m, n):
    for k in places(m, n):
        enclosure = expected_overlap(m, n, k)
        trials = 2 if k > 20_000 else 300
        estimate = simulate_overlap(m, n, k, trials=trials, seed=k)
        poisson = math.sqrt(enclosure.upper * (1 - enclosure.lower) / (m + n - 1) / trials)  # where no trial shows one
        allowed = 5 * max(estimate.standard_error, poisson) + 1e-12
        assert enclosure.lower - allowed <= estimate.mean <= enclosure.upper + allowed, k


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_the_bounds_stand_in_order(m, n):
    star, boruvka = star_bound(m, n), boruvka_bound(m, n)
    assert theorem_3_3(m, n).value <= star * (1 + 1e-12)
    assert star <= boruvka * (1 + 1e-12)
    assert boruvka <= expected_overlap(m, n).upper
    assert theorem_3_3(m, n).value == pytest.approx(float(exact_theorem_3_3(m, n)), rel=1e-12)
    for k in places(m, n):
        upper = expected_overlap(m, n, k).upper * (1 + 1e-12)
        assert star_bound(m, n, k) <= upper
        assert boruvka_bound(m, n, k) <= upper


@pytest.mark.parametrize(("m", "n"), list(itertools.product(range(1, 4), range(1, 5))))
def test_enumeration_exact_and_enclosure_agree_at_every_k(m, n):
    for k in range(m * n + 1):
        truth = naive.expected_overlap(m, n, k)
        assert exact_expected_overlap(m, n, k) == truth
        assert truth in expected_overlap(m, n, k)


def test_the_limit_is_approached_as_layers_grow():
    gaps = [abs(expected_overlap(8 * s, 3 * s).lower - overlap_limit(8 * s, 3 * s)) for s in (4, 16, 64, 256)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-4


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_weights_of_any_distribution_are_on_the_same_road(draw):
    m, n, trials = 60, 25, 300
    rng = np.random.default_rng(11)
    found = [magnitude_overlap(getattr(rng, draw)((m, n))) for _ in range(trials)]
    error = np.std(found, ddof=1) / np.sqrt(trials)
    enclosure = expected_overlap(m, n)
    assert enclosure.lower - 5 * error <= np.mean(found) <= enclosure.upper + 5 * error


def test_the_forest_is_as_large_as_the_shapes_say():
    rng = np.random.default_rng(2)
    for m, n in [(1, 1), (4, 7), (30, 20)]:
        assert maximum_spanning_forest(rng.standard_normal((m, n))).alpha == m * n / critical_compression_ratio((m, n))


def test_a_kernel_of_one_tap_on_one_pixel_is_a_dense_layer():
    """A 1x1 convolution on a 1x1 map, its dense matrix and the closed form: three rooms, one forest."""
    weights = np.random.default_rng(3).standard_normal((12, 9))
    conv = Conv(9, 12, (1, 1), (1, 1))
    critical = critical_kernel_weights(weights.reshape(12, 9, 1, 1), conv)
    forest = maximum_spanning_forest(weights)
    mask = np.zeros((12, 9), bool)
    mask[forest.rows, forest.cols] = True
    assert np.array_equal(critical.mask[:, :, 0, 0], mask)
    assert critical.ratio == critical_compression_ratio((9, 12)) == critical_compression_ratio(conv, "toeplitz")
    assert len(persistence_diagram(weights)) == critical.mask.sum()


def test_every_road_counts_the_same_cells_at_a_density():
    differ = 0
    for m, n, thousandths in itertools.product(range(2, 9), range(2, 25), range(5, 1000, 10)):
        density = thousandths / 1000
        cells = cells_at_density(m, n, density)
        differ += cells != round(density * m * n) or cells != round(density * (m * n))
        assert Setting(m, n, None, density, "uniform", "none", 0).cells == cells
        assert (corollary_3_4(m, n, density).value is None) == (cells < m + n - 1)
        if cells:
            assert simulate_overlap(m, n, 0, density=density, trials=1, seed=0).cells == cells
            kept = min(cells, m + n - 1)
            expected = min(1.0, boruvka_bound(m, n, kept) * (m + n - 1) / kept)
            assert corollary_3_4_repaired(m, n, density) == pytest.approx(expected, rel=1e-13)
        else:
            for road in (corollary_3_4_repaired, lambda m, n, p: simulate_overlap(m, n, density=p)):
                with pytest.raises(ValueError, match="one of the"):
                    road(m, n, density)
    assert differ > 5, "densities at which floating point would round another way are among them"
