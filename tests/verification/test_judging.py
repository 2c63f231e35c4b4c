"""Verdicts: what is violated, what holds, what stays undecided, and how often a verdict is wrong."""

from dataclasses import replace

import pytest

from tests.verification.cases import said
from topobounds.theory.counting import exact_expected_overlap
from topobounds.verification import CLAIMS
from topobounds.verification.judging import decide


@pytest.mark.parametrize(
    ("bound", "interval", "tolerance", "verdict"),
    [
        ((0.5, 1.0), (0.5, 0.6), 0.0, "holds"),
        ((0.5, 1.0), (0.4, 0.49), 0.2, "violated"),
        ((0.5, 1.0), (0.499, 0.6), 0.0, "undecided"),
        ((0.5, 1.0), (0.499, 0.6), 0.002, "holds"),
        ((0.5, 0.5), (0.51, 0.6), 0.0, "violated"),
        ((0.5, 0.5), (0.499, 0.501), 0.002, "holds"),
        ((0.0, 0.1), (0.05, 0.2), 0.01, "undecided"),
    ],
)
def test_decisions(bound, interval, tolerance, verdict):
    assert decide(bound, interval, tolerance) == verdict


@pytest.mark.parametrize(("shift", "wrong"), [(0.0, "violated"), (1e-9, "holds")])
def test_a_bound_at_the_truth_is_misjudged_no_more_often_than_allowed(monkeypatch, shift, wrong):
    truth = float(exact_expected_overlap(4, 4)) + shift
    monkeypatch.setitem(CLAIMS, "star_bound", replace(CLAIMS["star_bound"], bound=lambda s: (truth, 1.0)))
    options = {"claims": ["star_bound"], "trials": 256, "confidence": 0.8, "tolerance": 0}
    found = [said(4, 4, seed=seed, **options)["star_bound"] for seed in range(150)]
    assert found.count(wrong) <= 0.2 * 150


@pytest.mark.parametrize(("shift", "verdict"), [(-0.03, "holds"), (0.03, "violated")])
def test_a_bound_off_the_truth_is_told_apart(monkeypatch, shift, verdict):
    bound = float(exact_expected_overlap(4, 4)) + shift
    monkeypatch.setitem(CLAIMS, "star_bound", replace(CLAIMS["star_bound"], bound=lambda s: (bound, 1.0)))
    assert said(4, 4, claims=["star_bound"]) == {"star_bound": verdict}
