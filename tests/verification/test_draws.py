"""What is drawn: supports, matrices and overlaps."""

import math
import os

import pytest

from tests.verification.cases import said
from topobounds.theory.counting import exact_expected_overlap
from topobounds.verification import verify
from topobounds.verification.batches import Batch
from topobounds.verification.draws import DrawSetting, draw_support
from topobounds.verification.kinds import LAYER


def test_every_distribution_has_the_same_overlap():
    truth = float(exact_expected_overlap(4, 4))
    for distribution in ("none", "normal", "uniform", "cauchy"):
        setting = DrawSetting(4, 4, None, 1.0, "uniform", distribution, 5)
        seen = sum(LAYER.draw(setting, 1000), Batch(0, 0.5, 0.0))
        assert abs(seen.mean - truth) < 5 * math.sqrt(seen.squares / 999 / 1000)


def test_supports():
    for support in ("uniform", "star", "block"):
        setting = DrawSetting(12, 9, None, 0.5, support, "none", 5)
        mask = draw_support(setting, setting.random_generator("a mask"))
        assert mask.sum() == 54
        if support != "uniform":
            assert mask[0].all()
            assert mask[:, 0].all()
    assert mask[:6, :6].all()  # 54 cells - 20 in the cross leave room for 5 x 5 more
    assert not mask[:7, :7].all()


def test_a_star_of_half_a_cell_more_than_it_needs():
    found = said(5, 20, density=0.235, support="star", distribution="normal", claims=["component_identity"])
    assert found == {"component_identity": "holds"}
    with pytest.raises(ValueError, match=r"at least 0\.24 for support 'star', 24 of the 100 cells, not 0\.234"):
        verify(5, 20, density=0.234, support="star", distribution="normal")


@pytest.mark.parametrize(
    "options", [{"distribution": "normal"}, {"claims": ["component_identity"]}, {"support": "block", "density": 0.02}]
)
def test_what_does_not_fit_into_memory_is_refused_before_it_is_drawn(monkeypatch, options):
    """At 2000 x 2000 cells, on a machine of a megabyte."""
    pages = {"SC_PHYS_PAGES": 256, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    with pytest.raises(
        ValueError,
        match=r"^A layer of 2000 x 2000 cells takes at least 0\.1 GiB of memory, more than half of the 0\.0 GiB\.$",
    ):
        verify(2000, 2000, trials=1, seed=1, **options)
    assert verify(100, 100, trials=1, seed=1, **options)
