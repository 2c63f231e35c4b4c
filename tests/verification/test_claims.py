"""The claims: which hold, which is false, and on what layers they are tested."""

import pytest

from tests.verification.cases import IDS, MATRIX_IDS, at_density, said, verdicts
from topobounds.theory.counting import exact_expected_overlap
from topobounds.verification import CLAIMS


def test_the_list_of_claims():
    assert list(CLAIMS) == [*IDS, "exchangeable"]
    assert all(name == claim.id and claim.source and claim.statement for name, claim in CLAIMS.items())


@pytest.mark.long
def test_784_300_at_a_tenth():
    found = at_density(0.1)
    assert list(found) == IDS
    assert {name for name, verdict in found.items() if verdict.verdict != "holds"} == {"corollary_3_4"}
    corollary = found["corollary_3_4"]
    assert (corollary.verdict, corollary.bound) == ("violated", 1.0)
    assert corollary.confidence_interval[1] < 1
    assert abs(corollary.estimate - 0.8) < 5 * corollary.standard_error
    assert found["theorem_3_3"].bound == pytest.approx(0.1213, abs=5e-5)
    assert found["boruvka_bound"].bound == pytest.approx(0.6132, abs=5e-5)
    assert found["enclosure"].confidence_interval[0] < 0.79962 < found["enclosure"].confidence_interval[1]
    assert found["diagram_equals_gudhi"].reason.startswith("No counterexample in")


def test_784_300_at_a_half():
    found = verdicts(784, 300, density=0.5, claims=["theorem_3_3", "corollary_3_4"])
    assert {name: verdict.verdict for name, verdict in found.items()} == dict.fromkeys(found, "holds")


def test_just_below_where_the_corollary_turns_true():
    found = verdicts(784, 300, density=0.15, claims=["corollary_3_4"])["corollary_3_4"]
    assert found.verdict == "violated"  # 0.811 printed, 0.800 true
    assert found.bound - found.estimate < 0.02


@pytest.mark.parametrize(
    ("m", "n", "options"),
    [
        (1, 7, {}),
        (2, 2, {}),
        (9, 1, {}),
        pytest.param(8, 8, {"density": 0.2}, marks=pytest.mark.long),
        (8, 8, {"density": 0.5, "support": "star"}),
        (12, 40, {"density": 0.3, "support": "block"}),
        pytest.param(30, 20, {"distribution": "normal", "density": 0.4}, marks=pytest.mark.long),
        (30, 20, {"distribution": "cauchy"}),
    ],
)
def test_only_the_printed_corollary_ever_fails(m, n, options):
    found = said(m, n, trials=60, tolerance=0.3, **options)
    assert found["theorem_3_3"] == "holds"
    assert {name for name, verdict in found.items() if verdict == "violated"} <= {"corollary_3_4"}
    assert all(found[name] == "holds" for name in MATRIX_IDS)


def test_a_block_breaks_the_corollary_and_not_its_repair():
    found = verdicts(300, 300, density=0.099, support="block", claims=["corollary_3_4", "corollary_3_4_repaired"])
    printed, repaired = found["corollary_3_4"], found["corollary_3_4_repaired"]
    assert (printed.verdict, repaired.verdict) == ("violated", "holds")
    assert repaired.bound == pytest.approx(0.276, abs=0.01)
    assert repaired.estimate == pytest.approx(0.353, abs=0.02)


def test_a_claim_is_put_to_layers_that_meet_its_hypothesis():
    found = verdicts(20, 20, density=0.3, support="star", trials=8)
    assert (found["boruvka_bound"].density, found["boruvka_bound"].support) == (1.0, "uniform")
    assert (found["corollary_3_4"].density, found["corollary_3_4"].support) == (0.3, "star")
    sparse = verdicts(20, 20, density=0.05, trials=8)
    assert sparse["boruvka_bound"].density == 1.0  # 20 cells are fewer than the 39 to keep
    assert "corollary_3_4" not in sparse


@pytest.mark.long
def test_other_k():
    found = verdicts(6, 5, 12, claims=["boruvka_bound", "enclosure"])
    assert found["boruvka_bound"].k == 12
    exact = float(exact_expected_overlap(6, 5, 12))
    assert found["enclosure"].confidence_interval[0] < exact < found["enclosure"].confidence_interval[1]
    assert "theorem_3_3" not in said(6, 5, 12, trials=1)
    for k in (0, 30):
        assert set(said(6, 5, k, trials=50, tolerance=0.3).values()) == {"holds"}


def test_undecided_when_the_trials_are_spent():
    found = verdicts(100, 80, trials=16, claims=["boruvka_bound", "enclosure", "component_identity"])
    assert (found["boruvka_bound"].verdict, found["boruvka_bound"].trials) == ("undecided", 16)
    assert found["enclosure"].verdict == "undecided"
    assert "which is not clear of the bound" in found["boruvka_bound"].reason
    assert (found["component_identity"].verdict, found["component_identity"].trials) == ("holds", 16)


def test_undecided_where_one_matrix_is_too_much():
    found = verdicts(4096, 14336, claims=["theorem_3_2"])["theorem_3_2"]
    assert (found.verdict, found.trials, found.estimate) == ("undecided", 0, None)
    assert "--trials" in found.reason


def test_a_claim_gets_the_same_verdict_alone_and_in_company():
    options = {"density": 0.4, "trials": 64}
    company = ["theorem_3_3", "star_bound", "enclosure", "t_imp_preserves"]
    alone = verdicts(20, 10, claims=["star_bound"], **options)["star_bound"]
    assert alone == verdicts(20, 10, claims=company, **options)["star_bound"]
    assert alone != verdicts(20, 10, claims=["star_bound"], seed=2, **options)["star_bound"]
