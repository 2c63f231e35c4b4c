"""`verify` and `verify_file`: given weights, progress and bad arguments."""

import json
import math

import numpy as np
import pytest

from tests.verification.cases import GIVEN_IDS, MATRIX_IDS, blocked, exchangeable, said, verdicts
from topobounds import overlap_range
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.verification import CLAIMS, verify, verify_file


def test_progress_is_told():
    told = []
    claims = ["theorem_3_3", "component_identity"]
    verify(
        20, 10, trials=64, seed=1, claims=claims, progress=lambda done, total, claim: told.append((done, total, claim))
    )
    assert {claim for *_, claim in told} == set(claims)
    assert all(done <= total == 64 for done, total, _ in told)


def test_exchangeable_weights_break_nothing():
    found = verdicts(weights=exchangeable())
    assert list(found) == GIVEN_IDS
    assert {name for name, verdict in found.items() if verdict.verdict != "holds"} == {"enclosure", "limit"}
    assert found["concentration"].estimate == pytest.approx(
        maximum_spanning_forest(exchangeable()).overlap(), rel=1e-12
    )
    assert found["concentration"].bound[1] - found["concentration"].bound[0] < 0.25


def test_weights_that_are_not_exchangeable_are_told():
    found = said(weights=blocked())
    broken = {"corollary_3_4_repaired", "star_bound", "boruvka_bound", "enclosure", "concentration", "exchangeable"}
    assert broken <= {name for name, verdict in found.items() if verdict == "violated"}
    assert all(found[name] == "holds" for name in MATRIX_IDS)
    shuffled = said(weights=blocked(), distribution="shuffled", trials=64, claims=["boruvka_bound", "theorem_3_2"])
    assert set(shuffled.values()) == {"holds"}


def test_false_alarms_are_no_more_than_allowed():
    rng = np.random.default_rng(4)
    options = {"claims": ["concentration", "boruvka_bound", "exchangeable"], "confidence": 0.8, "trials": 64}
    runs = [said(weights=rng.standard_cauchy((15, 10)), **options) for _ in range(60)]
    for name in options["claims"]:
        assert sum(run[name] == "violated" for run in runs) <= 0.2 * 60


def test_a_pruned_layer_has_its_own_support():
    weights = exchangeable()
    weights[np.random.default_rng(1).random(weights.shape) > 0.12] = 0
    found = verdicts(weights=weights)
    assert found["corollary_3_4"].verdict == "violated"  # 1 printed, 0.8 true
    assert found["corollary_3_4_repaired"].verdict == "holds"
    assert found["exchangeable"].verdict == "holds"
    assert found["theorem_3_2"].density == pytest.approx(0.12, abs=0.01)


def test_what_a_given_layer_does_not_meet():
    weights = exchangeable()
    weights[:50] = 0
    found = verdicts(weights=weights)
    assert found["corollary_3_4"].verdict == "undecided"
    assert "51 components" in found["corollary_3_4"].reason
    assert found["corollary_3_4"].bound is None
    few = np.zeros((10, 10))
    few[0, :4] = [1, 2, 3, 4]
    found = verdicts(weights=few)
    assert found["theorem_3_3"].verdict == "undecided"
    assert "fewer than the 19 to keep" in found["theorem_3_3"].reason
    assert found["exchangeable"].verdict == "holds"


def test_ties_across_the_cut_are_told():
    weights = np.sign(exchangeable())
    found = verdicts(weights=weights)
    assert "tie" in found["boruvka_bound"].reason
    assert found["exchangeable"].verdict == "holds"  # one sign or another at random is as exchangeable as can be
    elsewhere = exchangeable()
    elsewhere[:, 0] = 1e-9
    assert "tie" not in verdicts(weights=elsewhere)["boruvka_bound"].reason


HEAVY_TIES = {
    "equal": np.ones((60, 40)),
    "two levels": np.random.default_rng(1).choice([-2.0, -1.0, 1.0, 2.0], (60, 40)),
    "ternary": np.random.default_rng(1).integers(-1, 2, (60, 40)).astype(float),
    "integers": np.round(np.random.default_rng(1).standard_normal((60, 40)) * 2.5),
}


@pytest.mark.parametrize("distribution", ["given", pytest.param("shuffled", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", HEAVY_TIES)
def test_ties_by_themselves_violate_nothing(name, distribution):
    """The claims presume distinct weights; those about any matrix are tested all the same, and hold."""
    weights = HEAVY_TIES[name]
    found = verdicts(weights=weights, distribution=distribution)
    assert "violated" not in {each.verdict for each in found.values()}
    assert {found[each.id].verdict for each in CLAIMS.values() if each.hypothesis == "any real matrix"} == {"holds"}
    assert found["enclosure"].verdict == "undecided"
    assert "tie" in found["enclosure"].reason
    low, high = found["enclosure"].confidence_interval
    if distribution == "given":
        possible = overlap_range(weights, 99)
        t = 0.192  # of all cells; of those of a support hardly less
        assert (low, high) == pytest.approx((max(0, possible.lower - t), min(1, possible.upper + t)), abs=1e-3)


def test_few_ties_spare_no_claim():
    """One tie at the cut moves X by an edge: a matrix of eight bits is tested, and one that is not fair is found."""
    found = verdicts(weights=np.round(exchangeable() * 1000), k=200)
    assert found["boruvka_bound"].verdict == "holds"
    weights = np.exp(np.random.default_rng(1).standard_normal((300, 1)) * 3) * np.random.default_rng(2).standard_normal(
        (300, 200)
    )
    weights = np.float16(weights / np.abs(weights).max() * 1000).astype(float)
    assert verdicts(weights=weights)["boruvka_bound"].verdict == "violated"


def test_shuffles_of_ties_have_the_overlap_of_ties():
    """With a fixed rule for heavy ties Theorem 3.3's hypothesis fails, 0.28 one way round, 0.65 the other."""
    weights = np.random.default_rng(2).integers(-1, 2, (784, 300)).astype(float)
    options = {"distribution": "shuffled", "trials": 40, "claims": ["boruvka_bound"]}
    found, turned = verdicts(weights=weights, **options), verdicts(weights=weights.T, **options)
    assert found["boruvka_bound"].estimate == pytest.approx(0.28, abs=0.01)
    assert found["boruvka_bound"].verdict == "undecided"
    assert "ties in another order may move X" in found["boruvka_bound"].reason
    assert turned["boruvka_bound"].estimate == pytest.approx(0.65, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'m' must be a positive integer, not None"),
        ({"m": 3}, "'n'"),
        ({"m": 3, "n": 0}, "'n'"),
        ({"m": 3, "n": 3, "k": 10}, "from 0 to 9"),
        ({"m": 3, "n": 3, "density": 0.0}, "'density'"),
        ({"m": 30, "n": 30, "density": 1e-4}, "one of the 900 cells"),
        ({"m": 30, "n": 30, "density": 0.01, "support": "star"}, "support 'star'"),
        ({"m": 3, "n": 3, "support": "ring"}, "'support'"),
        ({"m": 3, "n": 3, "distribution": "shuffled"}, "'distribution'"),
        ({"m": 3, "n": 3, "claims": ["theorem_9"]}, "'theorem_9'"),
        ({"m": 3, "n": 3, "claims": ["exchangeable"]}, "about a given matrix"),
        ({"m": 3, "n": 3, "k": 2, "claims": ["theorem_3_3"]}, "about the 5 largest weights, not 2"),
        ({"m": 9, "n": 9, "density": 0.1, "claims": ["corollary_3_4"]}, "8 weights cannot connect 18 neurons"),
        ({"m": 3, "n": 3, "trials": 0}, "'trials'"),
        ({"m": 3, "n": 3, "trials": 10**20}, "'trials' must be at most 1000000000"),
        (
            {"m": 2**31 - 2, "n": 1, "trials": 1, "claims": ["star_bound"]},
            "'m' and 'n' must add up to at most 16777216",
        ),
        ({"m": 3, "n": 3, "claims": 5}, "^Argument 'claims' must be a sequence of claims, not 5"),
        ({"m": 3, "n": 3, "confidence": 1.0}, "'confidence'"),
        ({"m": 3, "n": 3, "tolerance": -0.1}, "'tolerance'"),
        ({"m": 3, "n": 3, "seed": -1}, "'seed'"),
        ({"weights": np.zeros((3, 3))}, "a weight other than zero"),
        ({"weights": [[1.0, math.nan]]}, "NaN or infinite"),
        ({"weights": np.ones(3)}, "a matrix"),
        ({"weights": np.ones((3, 3)), "density": 0.5}, "left out where 'weights' are given"),
        ({"weights": np.ones((3, 3)), "m": 3}, "left out where 'weights' are given"),
        ({"weights": np.ones((3, 3)), "distribution": "normal"}, "'distribution'"),
        ({"weights": np.ones((3, 3)), "k": 10}, "from 0 to 9"),
        ({"weights": np.diag([1.0, 1, 1]), "distribution": "shuffled", "claims": ["star_bound"]}, "3 weights other"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        verify(**arguments)


def test_one_bad_matrix_does_not_hide_the_others(tmp_path):
    nan = exchangeable()
    nan[3, 4] = math.nan
    np.savez(tmp_path / "layers.npz", zeros=np.zeros((5, 4)), fair=exchangeable(), nan=nan, empty=np.ones((0, 3)))
    found = verify_file(tmp_path / "layers.npz", seed=1, claims=["exchangeable", "component_identity"])
    assert [(v.tensor, v.m, v.verdict) for v in found] == [
        (name, m, verdict)
        for name, m, verdict in (
            ("zeros", 5, "undecided"),
            ("fair", 200, "holds"),
            ("nan", 200, "undecided"),
        )
        for _ in range(2)
    ]
    assert "must hold a weight other than zero" in found[0].reason
    assert "the first at row 3, column 4: nan" in found[4].reason
    assert json.loads(json.dumps(found[0].to_dict(), allow_nan=False))["bound"] is None
    alone = verify_file(tmp_path / "layers.npz", seed=1, tensor="fair", claims=["exchangeable", "component_identity"])
    assert found[2:4] == alone


def test_bad_options_are_refused_before_a_file_is_read(tmp_path):
    with pytest.raises(ValueError, match="'lemma_1'"):
        verify_file(tmp_path / "absent.npz", claims=["lemma_1"])
