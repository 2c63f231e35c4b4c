"""Layers and calls that several tests of the verification share."""

import functools

import numpy as np

from topobounds.verification import CLAIMS, verify

IDS = [
    "theorem_3_2",
    "theorem_3_3",
    "corollary_3_4",
    "corollary_3_4_repaired",
    "star_bound",
    "boruvka_bound",
    "enclosure",
    "concentration",
    "limit",
    "global_pruning",
    "persistence_null",
    "component_identity",
    "deficit",
    "t_imp_preserves",
    "t_imp_optimal",
    "effective_density",
    "diagram_equals_gudhi",
]


GIVEN_IDS = [name for name in IDS if name != "global_pruning"] + ["exchangeable"]  # claims about one given matrix
MATRIX_IDS = [name for name in IDS if CLAIMS[name].sample == "matrix"]


def verdicts(*arguments, **options):
    return {verdict.claim: verdict for verdict in verify(*arguments, **{"seed": 1} | options)}


def said(*arguments, **options):
    return {name: verdict.verdict for name, verdict in verdicts(*arguments, **options).items()}


@functools.cache
def at_density(density):
    return verdicts(784, 300, density=density)


def exchangeable():
    return np.random.default_rng(0).standard_normal((200, 100))


def blocked():
    """Return a matrix whose largest weights stand in a corner, so that small ones connect it."""
    weights = exchangeable()
    weights[:20, :20] *= 100
    return weights
