"""Kinds of samples: what each draws, and that a new one needs no other file to know of it."""

import json

import numpy as np
import pytest

from tests.verification.cases import exchangeable
from topobounds.verification import CLAIMS, draws, kinds, replay, verify, write_witnesses
from topobounds.verification.claims import Claim
from topobounds.verification.draws import DrawSetting
from topobounds.verification.judging import decide
from topobounds.verification.subject import Subject


def test_every_claim_has_a_kind_and_the_name_of_its_sample():
    assert {claim.sample for claim in CLAIMS.values()} == {
        "layer",
        "support",
        "connected",
        "tail",
        "matrix",
        "shuffles",
        "network",
        "values",
    }
    assert all(isinstance(claim.kind, kinds.Kind) for claim in CLAIMS.values())


def test_on_all_cells_every_overlap_is_that_of_the_layer():
    full = DrawSetting(6, 5, None, 1.0, "uniform", "normal", 3)
    sparse = DrawSetting(6, 5, None, 0.6, "uniform", "normal", 3)
    claim = CLAIMS["star_bound"]
    for kind in (kinds.LAYER, kinds.SUPPORT, kinds.CONNECTED):
        assert kind.stream(claim, full) == "layer"
        assert kind.stream(claim, sparse) == kind.name
    assert kinds.OUTLIERS.stream(claim, full) == "tail"


@pytest.mark.parametrize("zeros", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 20, 33, 100])
def test_the_overlaps_of_tied_shuffles_are_those_of_forests_of_shuffles(zeros, k):
    rng = np.random.default_rng(5)
    weights = np.where(rng.random((20, 14)) < zeros, 0.0, rng.integers(1, 4, (20, 14)) * rng.choice([-1, 1], (20, 14)))
    mask = weights != 0
    setting = DrawSetting(20, 14, k, float(mask.mean()), "given", "given", 8, weights, None if mask.all() else mask)
    subject = Subject(weights)
    overlap = kinds.MeasuredOverlap(subject, setting, subject.n_weights, subject.forest.alpha, k)
    assert overlap.tie
    ours = list(kinds._retained_by_shuffles(overlap, range(400)).elements())
    shuffles = [draws.draw_matrix(setting, np.random.default_rng(seed)) for seed in range(400)]
    theirs = [Subject(shuffle).retained(k) for shuffle in shuffles]
    error = np.sqrt((np.var(ours) + np.var(theirs)) / 400)
    assert abs(np.mean(ours) - np.mean(theirs)) <= 5 * error
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.2, abs=1e-9)


class Transposes(kinds.Kind):
    """Pairs of a matrix and its transpose."""

    name = "transposes"

    def stream(self, claim, setting):
        return claim.id

    def test_samples(self, claims, setting, terms):
        shown = [self._verdict(claim, setting) for claim in claims]
        return dict(zip([claim.id for claim in claims], shown, strict=True))

    def test_subject(self, claim, subject, setting, terms):
        return self._outcome(claim, subject.weights, setting)

    def example(self, claim, setting, trials):
        return {"matrix": self._matrix(setting)}

    def check_example(self, claim, setting, matrix, known):
        if self._outcome(claim, matrix, setting).verdict != "violated":
            raise ValueError("the matrix in it bears the claim out")

    def _verdict(self, claim, setting):
        return self._outcome(claim, self._matrix(setting), setting)

    def _matrix(self, setting):
        return draws.draw_matrix(setting, setting.random_generator("transposes"))

    def _outcome(self, claim, matrix, setting):
        differ = Subject(matrix).forest.overlap() - Subject(matrix.T).forest.overlap()
        interval = (differ, differ)
        bound = claim.interval(setting)
        return kinds.Outcome(bound, differ, None, interval, 1, decide(bound, interval), "Both were measured.")


@pytest.mark.parametrize(("low", "verdict"), [(0.0, "holds"), (0.5, "violated")])
def test_a_claim_of_a_new_kind_of_sample_is_tested_like_the_others(monkeypatch, tmp_path, low, verdict):
    claim = Claim("no_side", "", "overlaps are those of transposes", "", ">=", Transposes(), lambda s: (low, 1.0))
    monkeypatch.setitem(CLAIMS, "no_side", claim)
    (drawn,) = verify(12, 9, distribution="normal", claims=["no_side"], seed=2)
    (given,) = verify(weights=exchangeable(), claims=["no_side"], seed=2)
    assert (drawn.verdict, given.verdict, drawn.bound) == (verdict, verdict, low)
    file = tmp_path / "witness.json"
    assert write_witnesses(file, [drawn]) == (verdict == "violated")
    if verdict == "violated":
        assert replay(file) == [drawn]
        record = json.loads(file.read_text())
        assert record["witnesses"][0]["matrix"]["shape"] == [12, 9]
        monkeypatch.setitem(CLAIMS, "no_side", Claim("no_side", "", "", "", ">=", Transposes(), lambda s: (0.0, 1.0)))
        with pytest.raises(ValueError, match="the matrix in it bears the claim out"):
            replay(file)
