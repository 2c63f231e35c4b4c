"""The null of neural persistence: exact on small supports, certified on full layers, sampled elsewhere."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory.random_orders import forest_rank_law, mean, persistence_sums
from topobounds import (
    Conv,
    critical_kernel_weights,
    magnitude_mask,
    maximum_spanning_forest,
    neural_persistence,
    persistence_null,
)
from topobounds.chance import magnitudes
from topobounds.chance.measured_layer import MeasuredLayer
from topobounds.chance.persistence import _sampled
from topobounds.chance.sampling import Sampling
from topobounds.theory.persistence import expected_persistence, persistence_range

SMALL = {
    "without zeros": [[19.0, 3, 8], [12, 17, 1], [5, 2, 9]],
    "with zeros": [[19.0, 0, 8], [12, 17, 0], [0, 2, 9]],
    "tied": [[2.0, 2, 0], [1, 2, 1], [0, 1, 1]],
    "disconnected": [[4.0, 1, 0, 0], [3, -2, 0, 0], [0, 0, 7, 5], [0, 0, 6, 0]],
    "with a dead row": [[4.0, 1, 2], [0, 0, 0], [3, -2, 5]],
    "one row": [[4.0, 1, 2, 0]],
}


def exact_null(weights, p):
    """Return {NP^p: orders} over all permutations of the values on their own support."""
    matrix = np.array(weights)
    cells = [tuple(c) for c in np.argwhere(matrix).tolist()]
    values = sorted(np.abs(matrix[matrix != 0]).tolist(), reverse=True)
    return persistence_sums(forest_rank_law(cells, *matrix.shape), values, p)


@pytest.mark.parametrize("p", [1, 2, 3, 0.5])
@pytest.mark.parametrize("weights", SMALL.values(), ids=SMALL)
def test_small_layers_have_the_null_of_all_orders(weights, p):
    law = exact_null(weights, p)
    null = persistence_null(weights, p=p, trials=4000, seed=1)
    truth = float(mean(law))
    deviation = math.sqrt(float(mean(_squares(law))))
    assert null.expected.lower - 1e-12 <= truth + 4e-3 * deviation
    assert truth - 4e-3 * deviation <= null.expected.upper + 1e-12
    assert null.deviation == pytest.approx(deviation, rel=0.1, abs=1e-12)
    assert null.measured == pytest.approx(_measured(weights, p), rel=1e-12, abs=1e-15)
    assert null.range.lower <= float(min(law)) * (1 + 1e-12) + 1e-15
    assert float(max(law)) * (1 - 1e-12) <= null.range.upper + 1e-15


def _squares(law):
    middle = mean(law)
    squares = type(law)()
    for x, count in law.items():
        squares[(x - middle) ** 2] += count
    return squares


def _measured(weights, p):
    values = maximum_spanning_forest(weights).weights
    return float(np.sum((1 - values / values[0]) ** p))


def test_the_3x3_layer_of_known_value():
    null = persistence_null(SMALL["without zeros"])
    assert Fraction(2146, 2527) in null.expected
    assert null.expected.width < 1e-6
    assert null.status == "certified"
    assert null.deviation_status == "sampled"
    assert null.uniform_support is None


def test_a_layer_with_zeros_is_permuted_on_its_own_support():
    null = persistence_null(SMALL["with zeros"], trials=300, seed=5)
    assert (null.status, null.deviation_status, null.trials, null.seed) == ("sampled", "sampled", 300, 5)
    assert null.weights == 6
    assert null.standard_error == pytest.approx(null.deviation / math.sqrt(300))
    assert null.uniform_support == expected_persistence(3, 3, [19, 17, 12, 9, 8, 2], cells=6)


def test_a_mask_is_a_support():
    full = np.array(SMALL["without zeros"])
    pruned = np.array(SMALL["with zeros"])
    by_mask = persistence_null(full, pruned != 0, seed=1)
    assert by_mask == persistence_null(pruned, seed=1)
    assert persistence_null(full, np.ones((3, 3), bool), seed=1) == persistence_null(full, seed=1)


def test_the_normalised_null_stands_beside_the_normalised_persistence():
    weights = np.random.default_rng(0).standard_normal((60, 80))
    null = persistence_null(weights)
    assert null.measured == pytest.approx(neural_persistence(weights) ** 2, rel=1e-12)
    alpha = 139
    middle = (null.expected.lower + null.expected.upper) / 2
    assert null.norm == pytest.approx(math.sqrt(middle / (alpha - 1)))
    assert null.share == pytest.approx(null.norm / neural_persistence(weights, normalized=True))
    assert null.z == pytest.approx((null.measured - middle) / null.deviation)
    assert abs(null.z) < 4
    assert (null.status, null.deviation_status, null.trials, null.seed) == ("certified", "limit", None, None)


@pytest.mark.parametrize("weights", [np.zeros((3, 4)), [[0.0]]])
def test_a_layer_of_zeros_has_no_null(weights):
    null = persistence_null(weights)
    assert (null.expected, null.z, null.status, null.measured, null.weights) == (None, None, None, 0.0, 0)
    assert "no weight other than zero" in null.reason
    json.dumps(null.to_dict(), allow_nan=False)


def test_an_empty_mask_has_no_null():
    assert persistence_null(np.ones((2, 2)), np.zeros((2, 2), bool)).expected is None


@pytest.mark.parametrize(
    "weights", [np.ones((4, 5)), np.eye(4), [[3.0, 1, 2]], [[4.0, 3], [2, 1]], [[5.0]]], ids=lambda w: str(np.shape(w))
)
def test_where_nothing_is_left_to_chance_there_is_no_z(weights):
    null = persistence_null(weights, seed=0)
    assert null.deviation == 0
    assert null.z is None
    assert "no z" in null.reason
    assert null.measured == pytest.approx(null.expected.lower, abs=1e-9)


def test_a_few_absent_cells_leave_the_null_certified():
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((200, 300))
    full = persistence_null(weights)
    weights[3, 4] = 0
    null = persistence_null(weights)
    assert null.status == "certified"
    assert null.expected.lower <= full.expected.upper + 0.05
    assert full.expected.lower - 0.05 <= null.expected.upper
    assert null.expected.width < full.expected.width + 0.1


@pytest.mark.parametrize("n_absent", [3, 12])
def test_the_null_of_a_layer_with_some_zeros_is_certified_and_what_sampling_gives(n_absent):
    """As of weights rounded to few bits, the smallest of which become zero: here up to 12 of 60,000."""
    rng = np.random.default_rng(8)
    full = rng.standard_normal((200, 300))
    weights = full.copy()
    weights.flat[np.argsort(np.abs(full), axis=None)[:n_absent]] = 0
    null = persistence_null(weights)
    layer = MeasuredLayer.of(weights)
    sample = _sampled(layer, 2, Sampling(2000, 3))
    assert (null.status, null.deviation_status, null.weights) == ("certified", "limit", 60_000 - n_absent)
    assert null.expected.lower - 4 * sample.standard_error <= sample.mean
    assert sample.mean <= null.expected.upper + 4 * sample.standard_error
    assert null.deviation == pytest.approx(sample.deviation, rel=0.1)
    assert null.expected.width < persistence_null(full).expected.width + 0.43 * null.deviation


def test_a_layer_with_many_zeros_is_sampled():
    weights = np.random.default_rng(8).standard_normal((200, 300))
    weights[np.abs(weights) < 0.1] = 0
    assert persistence_null(weights, trials=5, seed=0).status == "sampled"


def test_values_are_scale_free_and_signs_do_not_matter():
    weights = np.random.default_rng(3).standard_normal((70, 60))
    null, scaled = persistence_null(weights), persistence_null(-8 * weights.T)
    assert scaled.expected.lower == pytest.approx(null.expected.lower, rel=1e-9)
    assert scaled.z == pytest.approx(null.z, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_layer_read_in_bins_has_the_same_null_and_a_slightly_wider_range(dtype, monkeypatch):
    weights = np.random.default_rng(4).standard_normal((150, 300)).astype(dtype)
    whole = persistence_null(weights, p=1)
    monkeypatch.setattr(magnitudes, "SORTED_CELLS", 0)
    part = persistence_null(weights, p=1)
    assert part.expected.lower == pytest.approx(whole.expected.lower, abs=1e-3)
    assert part.deviation == pytest.approx(whole.deviation, rel=1e-6)
    assert part.range.lower == pytest.approx(whole.range.lower, rel=1e-12)
    assert whole.range.upper <= part.range.upper <= whole.range.upper * 1.01


def test_pruned_row_scales_are_far_from_chance_only_beside_their_own_support():
    rng = np.random.default_rng(0)
    weights = np.exp(rng.standard_normal((784, 1))) * rng.standard_normal((784, 300))
    null = persistence_null(weights, magnitude_mask(weights, 11_760), seed=1)
    assert null.z > 20
    assert null.uniform_support.lower > null.measured > null.expected.upper
    assert null.measured in null.range


KERNEL = np.array([4.0, 3, 2, 1]).reshape(1, 2, 2)


def test_a_kernel_has_the_null_of_all_orders_of_its_taps():
    conv = Conv(2, 1, (2,), (3,))
    found = []
    for order in itertools.permutations([4.0, 3, 2, 1]):
        critical = critical_kernel_weights(np.reshape(order, (1, 2, 2)), conv)
        found.append(float(np.sum((1 - critical.weights / critical.weights[0]) ** 2 * critical.merges)))
    null = persistence_null(KERNEL, conv=conv, trials=2000, seed=3)
    assert null.expected.lower <= np.mean(found) + 1e-3
    assert np.mean(found) <= null.expected.upper + 1e-3
    assert null.deviation == pytest.approx(np.std(found), rel=0.1, abs=1e-12)
    assert null.measured == pytest.approx(neural_persistence(critical_kernel_weights(KERNEL, conv).diagram) ** 2)
    assert (null.status, null.range, null.shape) == ("sampled", None, (conv.n_inputs, conv.n_outputs))


def test_taps_over_padding_have_no_part_in_the_null():
    conv = Conv(1, 2, (3,), (1,), padding=1)
    kernel = np.array([[[9.0, 2, 9]], [[9, 1, 9]]])
    null = persistence_null(kernel, conv=conv, seed=0)
    assert null.weights == 2
    assert null.measured == 0.25
    assert null.expected.lower == null.expected.upper == 0.25


def test_a_kernel_with_a_mask_or_zeros_is_permuted_where_it_is_not_zero():
    conv = Conv(4, 4, (3, 3), (5, 5), padding=1)
    kernel = np.random.default_rng(0).standard_normal(conv.weight_shape)
    mask = np.random.default_rng(1).random(conv.weight_shape) < 0.5
    by_mask = persistence_null(kernel, mask, conv=conv, seed=2, trials=20)
    assert by_mask == persistence_null(np.where(mask, kernel, 0), conv=conv, seed=2, trials=20)
    assert by_mask.weights == mask.sum()
    assert persistence_null(0 * kernel, conv=conv).reason.startswith("The kernel has no weight other than zero")


def test_the_seed_decides():
    weights = SMALL["disconnected"]
    assert persistence_null(weights, seed=4) == persistence_null(weights, seed=4)
    assert persistence_null(weights, seed=4).expected != persistence_null(weights, seed=5).expected
    drawn = persistence_null(weights)
    assert drawn == persistence_null(weights, seed=drawn.seed)


def test_the_record_is_ready_for_json():
    record = persistence_null(SMALL["tied"], seed=0).to_dict()
    assert record["schema_version"] == 1
    assert set(record["expected"]) == {"lower", "upper"}
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0}, "Argument 'p' must be a number above 0 and at most 1000, not 0."),
        ({"p": math.nan}, "Argument 'p' must be a number above 0"),
        ({"trials": 1}, "Argument 'trials' must be an integer of at least 2, not 1."),
        ({"seed": -1}, "Argument 'seed' must be a non-negative integer|an integer from 0"),
        ({"conv": "3x3"}, "Argument 'conv' must be a Conv"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        persistence_null(np.ones((2, 2)), **arguments)


@pytest.mark.parametrize("weights", [[1.0, 2], [[1.0, math.nan]], [[]], "abc"])
def test_weights_that_are_no_matrix_are_refused(weights):
    with pytest.raises(ValueError, match="Argument 'weights' must"):
        persistence_null(weights)


SIDES = st.integers(1, 5)
MATRICES = st.tuples(SIDES, SIDES).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.5, -1.0, 1.0, 2.0, 3.5, -4.0]))
)


@settings(max_examples=150, deadline=None)
@given(MATRICES, st.sampled_from([0.5, 1, 2, 3]))
def test_what_is_measured_lies_in_the_range(weights, p):
    """Tied, zero-ridden and disconnected layers, on their own supports."""
    null = persistence_null(weights, p=p, trials=20, seed=0)
    if not np.any(weights):
        assert null.range is None
        return
    slack = 1e-12 * (1 + null.measured)
    assert null.range.lower - slack <= null.measured <= null.range.upper + slack
    assert null.range.lower - slack <= null.expected.upper
    assert null.expected.lower <= null.range.upper + slack
    if np.all(weights):
        values = np.sort(np.abs(weights).ravel())[::-1]
        assert null.range == persistence_range(*weights.shape, values, p=p)


@pytest.mark.parametrize("seed", range(8))
def test_what_all_orders_share_but_for_rounding_has_no_z(seed):
    """Beside the largest weight all others are next to nothing: whatever the order, their persistences are 1."""
    weights = np.array([[3e-310, -1e-323, 0.0, 0.0, -1e-323, -1e-323], [0.0, 5e-324, 0.0, 1e-308, 0.0, -1e-323]])
    scaled = np.random.default_rng(seed).permutation([1e300, *np.linspace(0.1, 1.7, 17), 0.0, 0.0]).reshape(4, 5)
    for layer in (weights, scaled):
        null = persistence_null(layer, trials=50, seed=seed)
        assert null.z is None
        assert null.deviation == 0
        assert null.reason.startswith("Every order gives the same neural persistence")


def test_a_trained_layer(data_dir):
    """The first layer of a trained net: 290.47 where its values alone give 248.1."""
    torch = pytest.importorskip("torch")
    path = data_dir / "checkpoints" / "mnist_6_100_nat.pth"
    if not path.exists():
        pytest.skip("the checkpoint is not there")
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"][0]
    null = persistence_null(state["1.weight"].numpy().T)
    assert 248.11 in null.expected
    assert null.expected.width <= 0.15
    assert null.measured == pytest.approx(290.47, abs=0.01)
    assert null.deviation == pytest.approx(0.93, abs=0.01)
    assert null.z == pytest.approx(45.4, abs=0.3)
    assert null.share == pytest.approx(0.924, abs=0.001)
