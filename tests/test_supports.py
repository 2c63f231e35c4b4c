"""Which cells carry a weight: the kinds of supports, their cells, and the masks drawn of them."""

import os
import subprocess
import sys

import numpy as np
import pytest

from topobounds.supports import SUPPORTS, cells_at_density, fewest_cells, read_support
from topobounds.topology.spanning import maximum_spanning_forest

SHAPES = [(5, 4, 0.45), (5, 4, 0.8), (1, 6, 1.0), (6, 1, 1.0), (30, 20, 0.1), (20, 30, 0.55), (12, 12, 0.97)]


def cross(m, n, side=1):
    """Return the mask of row 0, column 0 and the top-left square."""
    mask = np.zeros((m, n), bool)
    mask[0] = mask[:, 0] = True
    mask[:side, :side] = True
    return mask


@pytest.mark.parametrize("kind", SUPPORTS)
@pytest.mark.parametrize(("m", "n", "density"), SHAPES)
def test_a_mask_has_exactly_the_cells_of_its_support(kind, m, n, density):
    support = read_support(m, n, density, kind)
    mask = support.draw_mask(np.random.default_rng(0))
    assert mask.sum() == support.cells == cells_at_density(m, n, density)
    if kind != "uniform":
        assert (mask >= cross(m, n, support.side)).all()
        assert maximum_spanning_forest(np.ones((m, n)), mask).alpha == support.alpha


@pytest.mark.parametrize("support", ["star", "uniform"])
@pytest.mark.parametrize(("m", "n", "density"), [(5, 4, 0.4), (5, 4, 0.55), (1, 6, 1.0), (30, 20, 0.1)])
def test_the_supports_of_figure_3_have_exactly_their_cells(support, m, n, density):
    mask = read_support(m, n, density, support).draw_mask(np.random.default_rng(0))
    assert mask.sum() == round(density * m * n)
    if support == "star":
        assert mask[0].all()
        assert mask[:, 0].all()
        assert maximum_spanning_forest(np.ones((m, n)), mask).alpha == m + n - 1


def test_supports_differ_by_the_generator_and_fill_every_cell():
    masks = [read_support(6, 5, 0.5, "star").draw_mask(np.random.default_rng(seed)) for seed in range(200)]
    frequency = np.mean(masks, axis=0)[1:, 1:]
    assert abs(frequency - 5 / 20).max() < 0.15, "15 cells, 10 of them the star's"


@pytest.mark.parametrize("kind", ["star", "block"])
@pytest.mark.parametrize(("m", "n", "density"), [(5, 4, 0.45), (7, 9, 0.6), (9, 7, 0.6), (12, 12, 0.97)])
def test_fixed_and_free_cells_are_all_cells_or_outside_them_only_the_square(kind, m, n, density):
    support = read_support(m, n, density, kind)
    fixed = cross(m, n, support.side)
    assert sorted(support.fixed) == np.flatnonzero(fixed).tolist()
    assert sorted(support.free_cells(np.arange(support.n_free))) == np.flatnonzero(~fixed).tolist()


@pytest.mark.parametrize(("m", "n", "density"), [(7, 9, 0.6), (9, 7, 0.3), (30, 30, 0.5)])
def test_the_square_of_a_block_is_as_large_as_fits(m, n, density):
    support = read_support(m, n, density, "block")
    assert cross(m, n, support.side).sum() == support.fixed.size <= support.cells
    assert support.side == min(m, n) or cross(m, n, support.side + 1).sum() > support.cells


def test_a_seed_gives_the_mask_that_the_definition_gives():
    for kind, fixed in (("uniform", np.zeros((9, 7), bool)), ("star", cross(9, 7)), ("block", cross(9, 7, 5))):
        expected = fixed.copy()
        others = np.random.default_rng(3).choice(np.flatnonzero(~fixed), 34 - fixed.sum(), replace=False)
        expected.flat[others] = True
        np.testing.assert_array_equal(
            read_support(9, 7, 34 / 63, kind).draw_mask(np.random.default_rng(3)), expected, err_msg=kind
        )


def test_a_mask_is_its_own_support():
    mask = np.random.default_rng(1).random((6, 5)) < 0.4
    support = read_support(6, 5, support=mask)
    np.testing.assert_array_equal(support.draw_mask(np.random.default_rng(0)), mask)
    assert (support.name, support.cells, support.density) == ("mask", mask.sum(), mask.mean())


def test_a_full_layer_has_no_fixed_cells_whatever_its_kind():
    for kind in SUPPORTS:
        support = read_support(4, 3, 1.0, kind)
        assert (support.fixed, support.cells, support.alpha) == (None, 12, 6)
        assert support.draw_mask(np.random.default_rng(0)).all()


@pytest.mark.parametrize(
    ("kind", "density", "message"),
    [
        ("ring", 0.5, "Argument 'support' must be one of 'uniform', 'star', 'block', not 'ring'"),
        ("uniform", 0.01, r"Argument 'density' must be at least 0\.05, one of the 20 cells, not 0\.01"),
        ("star", 0.35, r"must be at least 0\.4 for support 'star', 8 of the 20 cells, not 0\.35"),
        ("block", 0.35, r"must be at least 0\.4 for support 'block', 8 of the 20 cells, not 0\.35"),
        ("uniform", 1.5, r"Argument 'density' must be a number in \(0, 1\], not 1\.5"),
        (np.zeros((5, 4), bool), 1.0, "must have at least one cell that is True, not 0"),
        (np.ones((5, 4)), 1.0, r"or a bool array \(5, 4\), not float64 \(5, 4\)"),
        (np.ones((4, 5), bool), 1.0, r"or a bool array \(5, 4\), not bool \(4, 5\)"),
        (np.ones((5, 4), bool), 0.5, "Argument 'density' must be left out where 'support' is a mask"),
    ],
)
def test_a_support_that_does_not_exist_is_refused(kind, density, message):
    with pytest.raises(ValueError, match=message):
        read_support(5, 4, density, kind)


@pytest.mark.parametrize("kind", SUPPORTS)
def test_the_fewest_cells_make_a_support_and_one_less_does_not(kind):
    fewest = fewest_cells(5, 4, kind)
    assert read_support(5, 4, fewest / 20, kind).cells == fewest
    with pytest.raises(ValueError, match="'density'"):
        read_support(5, 4, (fewest - 0.6) / 20, kind)


def test_a_mask_that_memory_cannot_hold_is_refused(monkeypatch):
    pages = {"SC_PHYS_PAGES": 256, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    support = read_support(2000, 2000, 0.5)
    with pytest.raises(ValueError, match=r"2000 x 2000 cells takes at least 0\.1 GiB of memory"):
        support.draw_mask(np.random.default_rng(0))


def test_supports_load_nothing_heavy():
    code = "import sys, topobounds.supports; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numba", "scipy", "sympy", "matplotlib"} & set(run.stdout.split())
