"""A matrix under test: what it shares is right, and is computed once."""

import sys

import numpy as np
import pytest

from tests import naive
from tests.verification.cases import GIVEN_IDS
from topobounds.topology import spanning
from topobounds.topology.persistence import persistence_diagram
from topobounds.verification import verify_file
from topobounds.verification.subject import Subject, count_components

RNG = np.random.default_rng(11)
NORMAL = RNG.standard_normal((60, 40))
MATRICES = {
    "normal": NORMAL,
    "float32": NORMAL.astype(np.float32),
    "pruned": np.where(RNG.random((60, 40)) < 0.12, NORMAL, 0),
    "with silent rows": np.where(np.arange(60)[:, None] < 20, 0, NORMAL),
    "ties": np.sign(NORMAL),
    "ties and zeros": RNG.integers(-1, 2, (60, 40)).astype(float),
    "one row": NORMAL[:1],
}


@pytest.fixture
def forests(monkeypatch):
    """Return a list that grows by one whenever any module makes a forest."""
    made = []
    make = spanning.maximum_spanning_forest

    def counted(*arguments, **options):
        made.append(options.get("zeros", "absent"))
        return make(*arguments, **options)

    modules = [module for name, module in sys.modules.items() if name.startswith("topobounds")]
    for module in modules:
        if vars(module).get("maximum_spanning_forest") is make:
            monkeypatch.setattr(module, "maximum_spanning_forest", counted)
    return made


@pytest.mark.parametrize("name", MATRICES)
def test_verifying_a_matrix_of_a_file_makes_at_most_three_forests(tmp_path, forests, name):
    np.save(tmp_path / "weight.npy", MATRICES[name])  # a row of another name would be taken for a bias
    verdicts = verify_file(tmp_path / "weight.npy", seed=1, trials=64)
    assert {verdict.tensor for verdict in verdicts} == {"weight"}
    has_zeros = (MATRICES[name] == 0).any()
    assert [verdict.claim for verdict in verdicts] == [
        claim for claim in GIVEN_IDS if claim != "persistence_null" or not has_zeros
    ]
    assert 1 <= len(forests) <= (3 if has_zeros else 2)


def test_every_matrix_of_a_file_has_forests_of_its_own(tmp_path, forests):
    np.savez(tmp_path / "layers.npz", a=NORMAL, b=NORMAL[::-1])
    verify_file(tmp_path / "layers.npz", seed=1, claims=["component_identity", "theorem_3_2", "star_bound"])
    assert len(forests) == 2


def test_a_subject_makes_its_forest_when_it_is_needed_and_once(forests):
    subject = Subject(NORMAL)
    assert subject.n_weights == NORMAL.size
    assert not forests
    assert subject.forest is subject.forest_with_zeros
    subject.diagram("absent"), subject.diagram("edge"), subject.retained(5)
    assert forests == ["absent"]


@pytest.mark.parametrize("name", MATRICES)
def test_a_subject_is_what_a_naive_reading_gives(name):
    weights = MATRICES[name][:8, :6]
    subject = Subject(weights)
    edges, alpha, _ = naive.kruskal(weights.tolist())
    cells = sorted(range(weights.size), key=lambda cell: (-abs(weights.flat[cell]), cell))
    order = [cell for cell in cells if weights.flat[cell] != 0]
    assert subject.order.tolist() == order
    assert subject.n_weights == len(order)
    for k in range(len(order) + 1):
        top = {divmod(cell, weights.shape[1]) for cell in order[:k]}
        assert subject.retained(k) == len(top & set(edges))
        assert count_components(subject.order[:k], weights.shape) == naive.components(top, *weights.shape)
        next_ties = 0 < k < len(order) and abs(weights.flat[order[k - 1]]) == abs(weights.flat[order[k]])
        assert subject.has_tie_at(k) == next_ties
    assert subject.forest.alpha == alpha


@pytest.mark.parametrize("name", MATRICES)
def test_the_diagrams_of_a_subject_are_those_of_its_matrix(name):
    subject = Subject(MATRICES[name])
    for zeros in ("absent", "edge"):
        expected = persistence_diagram(MATRICES[name], zeros=zeros)
        assert subject.diagram(zeros).n_essential == expected.n_essential
        np.testing.assert_array_equal(np.asarray(subject.diagram(zeros)), np.asarray(expected))
    assert subject.readings == (("absent", "edge") if (MATRICES[name] == 0).any() else ("absent",))
