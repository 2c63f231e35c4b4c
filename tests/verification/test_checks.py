"""Claims about every matrix."""

import ml_dtypes
import numpy as np
import pytest

from tests.verification.cases import MATRIX_IDS
from topobounds.pruning import magnitude_mask, topological_mask
from topobounds.topology.deficit import Deficit
from topobounds.topology.persistence import persistence_diagram
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.verification import CLAIMS, checks
from topobounds.verification import subject as subjects
from topobounds.verification.subject import Subject


def a_matrix():
    return np.random.default_rng(7).standard_normal((8, 6))


@pytest.mark.parametrize("name", MATRIX_IDS)
@pytest.mark.parametrize("kind", ["float32", "ties", "zeros", "one row", "one weight"])
def test_every_matrix_bears_them_out(name, kind):
    weights = {
        "float32": a_matrix().astype(np.float32),
        "ties": np.round(a_matrix()),
        "zeros": np.where(np.abs(a_matrix()) > 1, a_matrix(), 0),
        "one row": a_matrix()[:1],
        "one weight": np.array([[0.0, 0.0], [3.0, 0.0]]),
    }[kind]
    assert all(CLAIMS[name].check(Subject(weights), np.random.default_rng(seed)) for seed in range(5))


def test_the_checks_see_what_is_wrong(monkeypatch):
    def caught(name):
        return not all(CLAIMS[name].check(Subject(a_matrix()), np.random.default_rng(seed)) for seed in range(5))

    with monkeypatch.context() as patch:
        patch.setattr(subjects, "maximum_spanning_forest", lambda w: maximum_spanning_forest(w.T.reshape(w.shape)))
        assert caught("component_identity")
        assert caught("theorem_3_2")
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_t_imp_mask", lambda subject, keep: magnitude_mask(subject.weights, keep))
        assert caught("t_imp_preserves")
        assert caught("effective_density")
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_t_imp_mask", lambda subject, keep: topological_mask(1 / subject.weights, keep))
        assert caught("t_imp_optimal")
    with monkeypatch.context() as patch:
        patch.setattr(SpanningForest, "deficit", lambda forest, k=None: Deficit(0, 0, forest.n_components))
        assert caught("deficit")
    with monkeypatch.context() as patch:
        patch.setattr(checks, "_keeps_diagram", lambda subject, cells: True)
        assert caught("theorem_3_2")
    with monkeypatch.context() as patch:
        patch.setattr(
            checks, "persistence_diagram", lambda w, zeros, backend: persistence_diagram(w + (backend == "gudhi"))
        )
        assert caught("diagram_equals_gudhi")


MATRICES = {
    "normal": a_matrix(),
    "ties": np.round(a_matrix()),
    "zeros": np.where(np.abs(a_matrix()) > 1, a_matrix(), 0),
    "bfloat16": a_matrix().astype(ml_dtypes.bfloat16),
    "one row": a_matrix()[:1],
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_mask_of_t_imp_around_a_known_forest_is_its_mask(name):
    subject = Subject(MATRICES[name])
    for keep in range(subject.forest.alpha, subject.n_weights + 1):
        np.testing.assert_array_equal(
            checks._t_imp_mask(subject, keep), topological_mask(MATRICES[name], keep), err_msg=str(keep)
        )


@pytest.mark.parametrize("name", MATRICES)
def test_a_diagram_is_kept_exactly_if_both_readings_of_zeros_are(name):
    weights = MATRICES[name]
    subject = Subject(weights)
    rng = np.random.default_rng(2)
    edges = subject.forest.rows * weights.shape[1] + subject.forest.cols
    others = np.setdiff1d(np.flatnonzero(weights), edges)
    sets = [rng.choice(weights.size, size, replace=False) for size in range(weights.size + 1)]
    sets += [np.append(edges, rng.permutation(others)[:size]) for size in range(others.size + 1)]
    sets += [subject.order[:size] for size in range(1, subject.n_weights + 1)]
    outcomes = set()
    for cells in sets:
        pruned = np.zeros_like(weights)
        pruned.flat[cells] = weights.flat[cells]
        before, after = (
            [persistence_diagram(w, zeros=zeros) for zeros in ("absent", "edge")] for w in (weights, pruned)
        )
        same = all(
            (a.n_essential, a.w_max) == (b.n_essential, b.w_max) and np.array_equal(a.deaths, b.deaths)
            for a, b in zip(before, after, strict=True)
        )
        assert checks._keeps_diagram(subject, cells) == same
        outcomes.add(same)
    assert outcomes == {True, False}
