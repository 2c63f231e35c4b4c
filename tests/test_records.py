"""Records stay what they were."""

import dataclasses

import numpy as np
import pytest

from topobounds import (
    PersistenceDiagram,
    chain,
    critical_kernel_weights,
    maximum_spanning_forest,
    network_forest,
    persistence_diagram,
    unrolled_forest,
)
from topobounds.layers import Conv

RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((12, 9))
CONV = Conv(3, 4, 3, 6, padding=1)
RECORDS = {
    "forest": maximum_spanning_forest(WEIGHTS),
    "large forest": maximum_spanning_forest(RNG.standard_normal((400, 300))),
    "diagram": persistence_diagram(WEIGHTS),
    "gudhi's diagram": persistence_diagram(WEIGHTS, backend="gudhi"),
    "network": network_forest(chain([WEIGHTS, WEIGHTS.T])),
    "kernel": critical_kernel_weights(RNG.standard_normal(CONV.weight_shape), CONV),
    "unrolled": unrolled_forest(None, RNG.standard_normal((5, 5)), 3),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_arrays_of_a_record_cannot_be_written_to(name):
    record = RECORDS[name]
    names = [f.name for f in dataclasses.fields(record)] + [
        n for n in ("ranks", "mask", "multiplicities") if hasattr(record, n)
    ]
    arrays = {name: array for name in names if isinstance(array := getattr(record, name), np.ndarray) and array.ndim}
    assert len(arrays) >= 3
    for array in arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = array.flat[0]


def test_what_a_record_was_made_of_can_be_written_to():
    weights = WEIGHTS.copy()
    forest = maximum_spanning_forest(weights)
    births, deaths, edges = np.ones(1), np.ones(1), np.zeros((1, 2), np.int64)
    diagram = PersistenceDiagram(births, deaths, edges, 1, (1, 1), 1, 1.0, "kruskal")
    for array in (weights, births, deaths, edges):
        array.flat[0] = 0
    assert diagram.births.base is births
    assert forest.alpha == 20


def test_numbers_and_texts_are_left_as_they_are():
    diagram = RECORDS["diagram"]
    assert (type(diagram.w_max), diagram.backend, diagram.shape) == (float, "kruskal", (12, 9))
