"""Critical weights by chance: exact where there are few weights, else sampled."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

import topobounds as tb
from topobounds.analysis.compression import compression_report
from topobounds.chance import convolution
from topobounds.theory.random_kernels import coverage_constant, exact_expected_critical_weights


def test_small_kernels_are_exact():
    assert tb.expected_critical_weights(tb.Conv(1, 1, (3, 3), (8, 8), padding=1)) == Fraction(1247, 315)
    assert tb.expected_critical_weights(tb.Conv(1, 1, (4, 4), (8, 8), 4)) == 16
    depthwise = tb.Conv(32, 32, (3, 3), (14, 14), padding=1, groups=32)
    assert tb.expected_critical_weights(depthwise) == 32 * Fraction(1247, 315)


def test_the_exact_value_is_what_random_kernels_have(monkeypatch):
    conv = tb.Conv(1, 1, (3, 3), (4, 4), padding=1)
    monkeypatch.setattr(convolution, "MOST_EXACT_WEIGHTS", 0)
    estimate = tb.expected_critical_weights(conv, trials=2000, seed=1)
    exact = exact_expected_critical_weights(conv)
    assert abs(estimate.mean - exact) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.03


def test_what_cannot_be_summed_over_is_sampled(monkeypatch):
    conv = tb.Conv(1, 1, (3, 3), (8, 8), padding=1)
    monkeypatch.setattr("topobounds.theory.random_kernels.MOST_CLOSED_SETS", 10)
    assert tb.expected_critical_weights(conv, trials=5, seed=0).trials == 5


def test_an_estimate_stands_beside_its_bounds():
    conv = tb.Conv(8, 12, (3, 3), (6, 6), padding=1)
    estimate = tb.expected_critical_weights(conv, trials=10, seed=3)
    counts = [
        tb.critical_kernel_weights(
            np.random.default_rng((3, trial)).standard_normal(conv.weight_shape), conv
        ).n_critical
        for trial in range(10)
    ]
    assert estimate.mean == pytest.approx(np.mean(counts))
    assert estimate.standard_deviation == pytest.approx(np.std(counts, ddof=1))
    assert estimate.standard_error == pytest.approx(np.std(counts, ddof=1) / math.sqrt(10))
    assert estimate.lower == tb.critical_weights_bound(conv) == 21
    assert estimate.lower <= min(counts) <= max(counts) <= estimate.upper


def test_a_seed_gives_the_same_kernels_as_the_compression_report():
    conv = tb.Conv(8, 12, (3, 3), (6, 6), padding=1)
    estimate = tb.expected_critical_weights(conv, trials=4, seed=9)
    assert estimate == tb.expected_critical_weights(conv, trials=4, seed=9)
    assert estimate.mean == compression_report([conv], trials=4, seed=9).shared.kept
    drawn = tb.expected_critical_weights(conv, trials=4)
    assert drawn == tb.expected_critical_weights(conv, trials=4, seed=drawn.seed)


def test_progress_is_told():
    steps = []
    tb.expected_critical_weights(tb.Conv(4, 6, 3, 6), trials=3, seed=0, progress=lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_one_trial_says_nothing_of_its_error():
    estimate = tb.expected_critical_weights(tb.Conv(4, 6, 3, 6), trials=1, seed=0)
    assert math.isnan(estimate.standard_error)
    record = json.loads(json.dumps(estimate.to_dict()))
    assert record["standard_error"] is None
    assert record["schema_version"] == 1


def test_a_layer_without_edges_has_none():
    assert tb.expected_critical_weights(tb.Conv(3, 2, 1, 1, stride=5, padding=1)) == 0
    estimate = tb.expected_critical_weights(tb.Conv(30, 20, 1, 1, stride=5, padding=1), trials=2, seed=0)
    assert (estimate.mean, estimate.lower, estimate.upper) == (0, 0, 0)


def test_unequal_widths_come_near_the_constant_of_the_wide_side():
    conv = tb.Conv(2, 400, (3, 3), (4, 4), padding=1)
    estimate = tb.expected_critical_weights(conv, trials=10, seed=0)
    assert estimate.mean / 400 == pytest.approx(float(coverage_constant(conv)), abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv": (3, 3)}, r"Argument 'conv' must be a Conv, not \(3, 3\)\."),
        ({"trials": 0}, r"Argument 'trials' must be a positive integer, not 0\."),
        ({"seed": -1}, r"Argument 'seed' must be a non-negative integer, not -1\."),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tb.expected_critical_weights(**({"conv": tb.Conv(4, 6, 3, 6)} | arguments))
