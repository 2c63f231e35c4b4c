"""A layer's measured numbers beside what chance gives: the columns of a report are those of the nulls."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topobounds import critical_rank_law, layer_report, maximum_spanning_forest, overlap_null, persistence_null
from topobounds._engine import NumpyBudget
from topobounds.analysis.reports import COLUMNS, ModelReport
from topobounds.layers import Conv, Dense
from topobounds.topology import moments
from topobounds.topology.moments import weight_moments

CHANCE = (
    "safe_density_expected",
    "overlap_expected",
    "overlap_deviation",
    "overlap_z",
    "neural_persistence_expected",
    "neural_persistence_deviation",
    "neural_persistence_z",
    "neural_persistence_share",
)
CONV = Conv(3, 4, 3, 5, padding=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def check_columns(report, overlap, persistence):
    assert report.overlap_expected in overlap.expected
    assert (report.overlap_deviation, report.overlap_z) == (overlap.deviation, overlap.z)
    assert (report.overlap_status, report.overlap_deviation_status) == (overlap.status, overlap.deviation_status)
    assert report.neural_persistence_expected == persistence.norm
    assert report.neural_persistence_deviation == persistence.deviation
    assert (report.neural_persistence_z, report.neural_persistence_share) == (persistence.z, persistence.share)
    assert report.neural_persistence_status == persistence.status
    assert report.neural_persistence_deviation_status == persistence.deviation_status
    ends = persistence.range
    assert report.neural_persistence_range == (None if ends is None else (ends.lower, ends.upper))


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_a_dense_layer_stands_beside_its_nulls(density):
    weights = normal(60, 50)
    weights[np.random.default_rng(1).random(weights.shape) >= density] = 0
    report = layer_report("a", weights, Dense(60, 50), trials=30, seed=7)
    check_columns(report, overlap_null(weights, trials=30, seed=7), persistence_null(weights, trials=30, seed=7))
    assert report.overlap == overlap_null(weights, trials=2, seed=0).measured
    sampled = density < 1
    assert (report.trials, report.seed) == ((30, 7) if sampled else (None, None))
    assert report.overlap_status == ("sampled" if sampled else "certified")
    assert (report.safe_density_expected is None) == sampled == (report.chance_reason is not None)
    assert report.rms == pytest.approx(np.sqrt(np.mean(weights**2)), rel=1e-12)
    assert report.w_max == np.abs(weights).max()


def test_a_kernel_stands_beside_random_orders_of_its_taps():
    kernel = normal(*CONV.weight_shape)
    kernel.flat[::5] = 0
    report = layer_report("a", kernel, CONV, trials=25, seed=3)
    overlap = overlap_null(kernel, conv=CONV, trials=25, seed=3)
    check_columns(report, overlap, persistence_null(kernel, conv=CONV, trials=25, seed=3))
    assert (report.trials, report.seed, report.overlap_status) == (25, 3, "sampled")
    assert "not known for kernels" in report.chance_reason


def test_a_transposed_matrix_has_the_same_columns():
    weights = normal(40, 25)
    one, other = (layer_report("a", w, Dense(40, 25), trials=0).to_dict() for w in (weights, weights.T))
    assert one | {"shape": other["shape"]} == other  # what is sampled is drawn in the other orientation
    assert one["overlap_status"] == "certified"


@pytest.mark.parametrize("inputs_first", [True, False])
def test_silent_neurons_are_named_by_their_side(inputs_first):
    weights = np.array([[9, 8, 7], [6, 5, 0.4], [0.3, 0.2, 0.1]])  # the five largest leave the third input alone
    report = layer_report("a", weights if inputs_first else weights.T, Dense(3, 3), inputs_first=inputs_first)
    assert (report.silent_inputs, report.silent_outputs, report.fragments) == (1, 0, 1)
    wide = layer_report("a", normal(4, 9), Dense(9, 4))  # its shape tells that outputs come first
    assert wide.silent_inputs == maximum_spanning_forest(normal(4, 9)).deficit().silent_outputs


def test_the_safe_density_by_chance_is_that_of_the_law():
    report = layer_report("a", normal(30, 20), Dense(30, 20), trials=0)
    law = critical_rank_law(30, 20)
    assert report.safe_density_expected == (law.median.lower + law.median.upper) / 2 / 600
    assert report.safe_density_range == (law.low.lower / 600, law.high.upper / 600)
    low, high = report.safe_density_range
    assert low < report.safe_density_expected < high


@pytest.mark.parametrize("shape", [(60, 50), (40, 3)])
def test_without_trials_what_is_certified_is_still_there(shape):
    report = layer_report("a", normal(*shape), Dense(*shape), trials=0)
    assert report.overlap_status == report.neural_persistence_status == "certified"
    assert (report.trials, report.seed) == (None, None)
    known = min(shape) >= 50
    assert (report.neural_persistence_z is not None) == known == (report.chance_reason is None)
    kernel = layer_report("a", normal(*CONV.weight_shape), CONV, trials=0)
    assert all(getattr(kernel, name) is None for name in CHANCE)
    assert "no trials were asked for" in kernel.chance_reason


def test_without_chance_nothing_of_it_is_there():
    full = layer_report("a", normal(30, 20), Dense(30, 20), seed=0)
    without = layer_report("a", normal(30, 20), Dense(30, 20), chance=False)
    assert all(getattr(without, name) is None for name in CHANCE)
    assert without.chance_reason == "What chance gives was not asked for."
    same = [name for name, value in without.to_dict().items() if value is not None and name != "chance_reason"]
    assert {name: full.to_dict()[name] for name in same} == {name: without.to_dict()[name] for name in same}


def test_layers_without_a_null_say_why():
    zeros = layer_report("a", np.zeros((4, 3)), Dense(4, 3))
    assert all(getattr(zeros, name) is None for name in CHANCE)
    assert "no weight other than zero" in zeros.chance_reason
    assert (zeros.w_max, zeros.rms, zeros.silent_inputs, zeros.silent_outputs) == (0.0, 0.0, 4, 3)
    unknown = layer_report("a", normal(3, 2, 3, 3), None, kind="conv")
    assert unknown.chance_reason == "The layer has no known graph."
    assert (unknown.silent_inputs, unknown.nonzero) == (None, 54)


@pytest.mark.parametrize("trials", [1, -1, 2.5])
def test_trials_are_none_or_enough_for_a_spread(trials):
    with pytest.raises(ValueError, match="'trials' must be"):
        layer_report("a", normal(3, 2), Dense(3, 2), trials=trials)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([1, 3, 50]))
def test_every_missing_number_of_chance_has_a_reason(m, n, seed, levels):
    """Ties, zeros, single rows, disconnected layers."""
    weights = np.round(normal(m, n, seed=seed) * levels) / levels
    report = layer_report("a", weights, Dense(m, n), trials=10, seed=0)
    record = json.loads(json.dumps(report.to_dict()))
    missing = [name for name in CHANCE if record[name] is None]
    assert bool(missing) == (record["chance_reason"] is not None) or report.neural_persistence == 0
    lost = report.alpha - round(report.overlap * report.alpha)
    own = maximum_spanning_forest(weights).deficit(m * n)
    assert lost == report.silent_inputs + report.silent_outputs + report.fragments - own.n_components


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "bfloat16", np.int8])
@pytest.mark.parametrize("shape", [(7,), (30, 20), (1500, 1400), (3, 2, 5, 5)])
def test_moments_of_every_type(dtype, shape):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.round(normal(*shape) * 2).clip(-4, 4)
    array = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    moments = weight_moments(array)
    assert moments.nonzero == np.count_nonzero(values)
    assert moments.rms == pytest.approx(np.sqrt(np.mean(values**2)), rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 7), (2000, 2200)])
@pytest.mark.parametrize("scale", [1e300, 1e-200, 5e-324])
def test_moments_of_weights_whose_squares_leave_the_range(shape, scale):
    values = np.where(np.arange(math.prod(shape)) % 3, 2 * scale, 0.0).reshape(shape)
    moments = weight_moments(values)
    assert moments.nonzero == np.count_nonzero(values)
    assert moments.rms == pytest.approx(2 * np.sqrt(moments.nonzero / values.size) * scale, rel=1e-12, abs=5e-324)


@pytest.mark.parametrize("exponent", [-133, -70, -60, 60, 64, 124])
def test_moments_of_bfloat16_whose_squares_no_float32_holds(exponent):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = (normal(2000, 2200) * 2.0**exponent).astype(ml_dtypes.bfloat16)
    array[::3, ::5] = 0
    values = array.astype(np.float64)
    moments = weight_moments(array)
    assert moments.nonzero == np.count_nonzero(values)
    assert moments.rms == pytest.approx(np.sqrt(np.mean(values**2)), rel=1e-13)


@pytest.mark.parametrize("shape", [(5, 7), (2000, 2200)])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_moments_of_weights_that_are_not_finite(shape, value):
    values = np.ones(shape)
    values[-1, -1] = value
    assert not np.isfinite(weight_moments(values).rms)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "bfloat16"])
@pytest.mark.parametrize("size", [1, 63, 65, 255, 257, 321, 70_001])
def test_kernels_and_numpy_add_up_squares_to_the_same_bit(dtype, size, monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = normal(size, seed=size)
    values[::3] *= 1e-7  # below the normal numbers of float16
    values[::5] = -0.0
    array = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    found = []
    for cells in (0, 10**6):
        monkeypatch.setattr("topobounds.topology.moments._NUMPY_BUDGET", NumpyBudget("topobounds", 0, cells))
        found.append(weight_moments(array))
    assert found[0] == found[1]
    assert found[0].nonzero == np.count_nonzero(array)
    assert found[0].rms == pytest.approx(np.sqrt(np.mean(array.astype(np.float64) ** 2)), rel=1e-13)


def test_a_table_shows_chance_beside_what_is_measured():
    layers = (layer_report("a", normal(30, 20), Dense(30, 20), seed=0),)
    report = ModelReport(layers, {"b": "no layer"})
    table = report._repr_html_()
    titles = list(COLUMNS)
    for title in ("overlap", "safe density", "neural persistence"):
        assert titles[titles.index(title) + 1] == f"{title} by chance"
        assert f"<th>{title} by chance</th>" in table
    assert report.left_out == report.unread == report.left_alone == {"b": "no layer"}
    record = report.to_dict()
    assert record["left_out"] == [{"name": "b", "shape": None, "dtype": None, "reason": "no layer", "fault": None}]


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e25])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "float8_e4m3fn"])
def test_the_moments_do_not_tell_whether_kernels_were_loaded(dtype, scale, monkeypatch):
    """In a file of many layers it is chance which of them are read before the kernels are loaded."""
    for size in (1, 63, 64, 255, 300, 2**16 + 321, 2**19 + 2**16 + 7):
        with np.errstate(over="ignore", invalid="ignore"):
            values = (np.random.default_rng(size).standard_normal(size) * scale).astype(dtype)
        if not np.isfinite(values.astype(np.float64)).all():
            continue
        found = []
        for by_numpy in (True, False):
            monkeypatch.setattr(moments._NUMPY_BUDGET, "affords", lambda _, answer=by_numpy: answer)
            found.append(weight_moments(values.reshape(1, -1)))
        assert found[0] == found[1]
