"""The null of the overlap: certified on full layers, sampled on pruned ones and kernels."""

import itertools
import json
import math
import re

import ml_dtypes  # noqa: F401 (numpy knows its types by name then)
import numpy as np
import pytest

from tests import naive
from tests.theory.random_orders import forest_rank_law
from topobounds import (
    Conv,
    ScaledWeights,
    critical_kernel_weights,
    expected_overlap,
    magnitude_mask,
    maximum_spanning_forest,
    overlap_null,
    overlap_range,
    simulate_overlap,
)
from topobounds.chance import overlap
from topobounds.chance.measured_layer import MeasuredLayer

SUPPORTS = {
    "full": np.ones((3, 3), bool),
    "disconnected": np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool),
    "with a dead row": np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1]], bool),
}


@pytest.mark.parametrize("k", [None, 0, 1, 4, 6])
@pytest.mark.parametrize("present", SUPPORTS.values(), ids=SUPPORTS)
def test_small_layers_have_the_null_of_all_orders(present, k):
    weights = np.where(present, np.random.default_rng(0).standard_normal(present.shape), 0)
    cells = [tuple(c) for c in np.argwhere(present).tolist()]
    law = forest_rank_law(cells, *present.shape)
    alpha = len(next(iter(law)))
    kept = alpha if k is None else k
    overlaps = np.repeat([sum(r <= kept for r in ranks) / alpha for ranks in law], list(law.values()))
    null = overlap_null(weights, k, trials=4000, seed=2)
    assert null.k == kept
    assert null.expected.lower - 1e-12 <= overlaps.mean() + 0.01 * overlaps.std()
    assert overlaps.mean() - 0.01 * overlaps.std() <= null.expected.upper + 1e-12
    assert null.deviation == pytest.approx(overlaps.std(), rel=0.1, abs=1e-12)
    assert null.measured == maximum_spanning_forest(weights).overlap(k)


def test_a_full_layer_is_certified_without_trials():
    weights = np.random.default_rng(0).standard_normal((120, 90))
    null = overlap_null(weights)
    assert null.expected == expected_overlap(120, 90)
    assert (null.status, null.deviation_status, null.trials, null.seed) == ("certified", "limit", None, None)
    sampled = simulate_overlap(120, 90, trials=2000, seed=0).standard_deviation
    assert null.deviation == pytest.approx(sampled, rel=0.1)
    assert abs(null.z) < 4
    assert null.uniform_support is None


@pytest.mark.parametrize(("m", "n", "k"), [(120, 90, 90), (120, 90, 1000), (200, 30, None)])
def test_outside_of_its_domain_the_limit_gives_way_to_a_simulation(m, n, k):
    weights = np.random.default_rng(0).standard_normal((m, n))
    null = overlap_null(weights, k, trials=400, seed=7)
    assert (null.status, null.deviation_status, null.trials, null.seed) == ("certified", "sampled", 400, 7)
    assert null.deviation == simulate_overlap(m, n, k, trials=400, seed=7).standard_deviation
    assert null.expected == expected_overlap(m, n, k)


def test_a_few_absent_cells_leave_the_null_certified():
    weights = np.random.default_rng(0).standard_normal((200, 300))
    full = overlap_null(weights)
    weights[5, 6] = 0
    null = overlap_null(weights)
    assert null.status == "certified"
    assert null.expected.lower < full.expected.lower < full.expected.upper < null.expected.upper
    assert null.expected.width < 1e-4


@pytest.mark.parametrize("n_absent", [20, 90])
@pytest.mark.parametrize("k", [300, 499, 900])
def test_the_null_of_a_layer_with_some_zeros_is_certified_and_what_sampling_gives(k, n_absent):
    weights = np.random.default_rng(8).standard_normal((200, 300))
    weights.flat[np.argsort(np.abs(weights), axis=None)[:n_absent]] = 0
    null = overlap_null(weights, k)
    sampled = simulate_overlap(200, 300, k, support=weights != 0, trials=4000, seed=2)
    assert null.status == "certified"
    error = 4 * sampled.standard_deviation / math.sqrt(4000)
    assert null.expected.lower - error <= sampled.mean <= null.expected.upper + error
    assert null.deviation == pytest.approx(sampled.standard_deviation, rel=0.1)


def test_a_deviation_that_is_proved_for_the_full_layer_is_sampled_for_one_with_a_zero():
    weights = np.random.default_rng(1).standard_normal((784, 10))
    assert overlap_null(weights).deviation_status == "proved"
    weights[3, 4] = 0
    null = overlap_null(weights, trials=50, seed=1)
    assert (null.status, null.deviation_status, null.trials) == ("certified", "sampled", 50)
    assert overlap_null(weights, 3).deviation == 0  # three edges make no cycle on any support


def test_pruned_row_scales_are_far_below_the_chance_of_their_own_support():
    """784 x 300, log-normal row scales, 5% kept: the full layer's value would read as chance, and is not."""
    rng = np.random.default_rng(0)
    weights = np.exp(rng.standard_normal((784, 1))) * rng.standard_normal((784, 300))
    null = overlap_null(weights, mask=magnitude_mask(weights, 11_760), trials=400, seed=1)
    assert null.z == pytest.approx(-17, abs=2)
    assert null.measured == pytest.approx(0.53, abs=0.02)
    assert null.expected.lower == pytest.approx(0.72, abs=0.02)
    assert null.deviation == pytest.approx(0.0115, abs=0.001)
    assert abs(null.uniform_support.lower - null.measured) < 0.03


@pytest.mark.parametrize("k", [None, 0, 2, 4])
def test_a_kernel_has_the_null_of_all_orders_of_its_taps(k):
    conv = Conv(2, 1, (2,), (3,))
    found = []
    for order in itertools.permutations([4.0, 3, 2, 1]):
        critical = critical_kernel_weights(np.reshape(order, (1, 2, 2)), conv)
        ranks = 5 - critical.weights
        found.append(np.mean(ranks <= (critical.n_critical if k is None else k)))
    null = overlap_null(np.array([4.0, -3, 2, 1]).reshape(1, 2, 2), k, conv=conv, trials=2000, seed=3)
    assert null.expected.lower - 1e-12 <= np.mean(found) <= null.expected.upper + 1e-12
    assert null.measured == found[0]
    assert null.k == k
    assert null.status == "sampled"


def test_a_pruned_kernel_is_measured_among_its_own_weights():
    conv = Conv(8, 8, (3, 3), (6, 6), padding=1)
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal(conv.weight_shape)
    mask = rng.random(conv.weight_shape) < 0.4
    null = overlap_null(kernel, mask=mask, conv=conv, trials=50, seed=0)
    critical = critical_kernel_weights(kernel, conv, mask)
    pruned = np.where(mask, kernel, 0)
    shared = (critical.mask & magnitude_mask(pruned, critical.n_critical)).sum()
    assert null.measured == pytest.approx(shared / critical.n_critical)
    assert null.weights == mask.sum()
    assert abs(null.z) < 5


def test_layers_of_zeros_have_no_null():
    for null in (overlap_null(np.zeros((3, 4))), overlap_null(np.zeros((1, 1, 2)), conv=Conv(1, 1, (2,), (3,)))):
        assert (null.expected, null.deviation, null.z, null.status, null.measured) == (None, None, None, None, 1.0)
        assert "no weight other than zero" in null.reason


@pytest.mark.parametrize("weights", [[[3.0, 1, 2]], [[4.0, 3], [2, 1]], [[5.0]], np.eye(4)], ids=str)
def test_where_nothing_is_left_to_chance_there_is_no_z(weights):
    null = overlap_null(weights, seed=0)
    assert null.deviation == 0
    assert null.z is None
    assert "no z" in null.reason


def test_the_seed_decides_and_the_record_is_ready_for_json():
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((9, 9)) < 0.5, rng.standard_normal((9, 9)), 0)
    null = overlap_null(weights, seed=4)
    assert null == overlap_null(weights, seed=4)
    assert null != overlap_null(weights, seed=5)
    drawn = overlap_null(weights)
    assert drawn == overlap_null(weights, seed=drawn.seed)
    json.dumps(null.to_dict(), allow_nan=False)
    assert null.standard_error == pytest.approx(null.deviation / math.sqrt(200))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 5}, "Argument 'k' must be an integer from 0 to 4, not 5."),
        ({"k": True}, "Argument 'k' must be an integer from 0 to 4, not True."),
        ({"trials": 0}, "Argument 'trials' must be an integer of at least 2, not 0."),
        ({"conv": 3}, "Argument 'conv' must be a Conv, not 3."),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlap_null(np.ones((2, 2)), **arguments)


# -- ties --------------------------------------------------------------------------------------------------------------


def overlaps_of_every_tie_order(weights, k):
    """Return the overlaps of all orders of the cells that fall in size, by brute force."""
    cells = [divmod(int(cell), weights.shape[1]) for cell in np.flatnonzero(weights)]
    m, n = weights.shape
    alpha = m + n - naive.components(cells, m, n)
    sizes = sorted((abs(weights[cell]) for cell in cells), reverse=True)
    sure = [cell for cell in cells if abs(weights[cell]) > sizes[k - 1]]
    tied = [cell for cell in cells if abs(weights[cell]) == sizes[k - 1]]
    tops = (sure + list(some) for some in itertools.combinations(tied, k - len(sure)))
    return {(m + n - naive.components(top, m, n)) / alpha for top in tops}


@pytest.mark.parametrize("seed", range(30))
def test_the_range_over_ties_holds_the_overlap_of_every_order(seed):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-2, 3, (3, 4)).astype([np.float64, np.int8][seed % 2])
    count = np.count_nonzero(weights)
    for k in range(1, count):
        found = overlap_range(weights, k)
        possible = overlaps_of_every_tie_order(weights, k)
        assert found.lower <= min(possible)
        assert found.upper == max(possible)
        assert maximum_spanning_forest(weights).overlap(k) in found
        assert maximum_spanning_forest(weights.T).overlap(k) in found


def test_without_a_tie_the_range_is_the_overlap():
    weights = np.random.default_rng(0).standard_normal((20, 12))
    forest = maximum_spanning_forest(weights)
    for k in (0, 1, 17, 31, 240):
        found = overlap_range(weights, k)
        assert found.lower == found.upper == forest.overlap(k)
    assert overlap_range(weights).lower == forest.overlap()
    assert overlap_range(np.zeros((2, 2))).lower == 1.0
    masked = overlap_range(np.ones((2, 2)), 1, mask=[[1, 0], [0, 1]])
    assert masked.lower == masked.upper == 0.5


def test_a_quantised_layer_and_its_transpose_lie_in_the_range():
    weights = np.random.default_rng(0).standard_normal((784, 300))
    codes = np.rint(weights / np.abs(weights).max() * 127).astype(np.int8)
    found = overlap_range(codes)
    upright = maximum_spanning_forest(codes).overlap()
    turned = maximum_spanning_forest(codes.T).overlap()
    assert (round(upright, 4), round(turned, 4)) == (0.8024, 0.8015)
    assert found.lower <= turned < upright <= found.upper
    assert found.width < 0.03


def of_few_magnitudes(seed, levels=4, shape=(120, 90)):
    return np.round(np.random.default_rng(seed).standard_normal(shape) * levels / 4)


@pytest.mark.parametrize("seed", range(3))
def test_no_z_tells_of_the_rule_that_ranks_ties(seed):
    """Exchangeable weights, of which hundreds tie at the cut: the first rows get them all."""
    weights = of_few_magnitudes(seed, levels=2)
    null = overlap_null(weights, seed=0, trials=50)
    assert null.z is None
    told = float(re.search(r"at random, as by chance, the overlap is (0\.\d+)\. So", null.reason)[1])
    # With ties broken by noise far below the levels, the weights have no ties and are as exchangeable.
    noise = np.random.default_rng(9).random((20, *weights.shape)) * 1e-6
    alpha = maximum_spanning_forest(weights).alpha
    without_ties = [maximum_spanning_forest(weights * (1 + each)).overlap(alpha) for each in noise]
    assert abs(told - np.mean(without_ties)) < 5 * np.std(without_ties)
    assert abs(told - (null.expected.lower + null.expected.upper) / 2) < 4 * null.deviation
    assert abs(null.measured - np.mean(without_ties)) > null.deviation


@pytest.mark.parametrize("as_mask", [True, False])
def test_no_z_tells_of_ties_where_the_last_rows_have_most_weights(as_mask):
    """By place, the first rows come first, in which each weight joins a row: the overlap is too large."""
    rng = np.random.default_rng(8)
    weights = rng.standard_normal((200, 200))
    weights = np.round(weights / np.abs(weights).max() * 7)
    mask = rng.random(weights.shape) < 2 / 200
    mask[-50:] = True
    given = {"weights": weights, "mask": mask} if as_mask else {"weights": np.where(mask, weights, 0)}
    null = overlap_null(**given, seed=8, trials=50)
    assert (null.z, null.measured > null.expected.upper + 4 * null.deviation) == (None, True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, "bfloat16", np.float16])
def test_few_ties_leave_the_z(dtype):
    weights = np.random.default_rng(1).standard_normal((120, 90)).astype(dtype)
    null = overlap_null(weights)
    assert null.reason is None
    middle = (null.expected.lower + null.expected.upper) / 2
    assert null.z == pytest.approx((null.measured - middle) / null.deviation)


def with_one_scale(weights):
    return ScaledWeights(weights.astype(np.int8), np.float32(0.3))


def with_scales_of_rows(weights):
    return ScaledWeights(weights.astype(np.int8), np.full((len(weights), 1), 0.3, np.float32))


TYPES = {
    "float64": np.asarray,
    "float32": lambda weights: weights.astype(np.float32),
    "bfloat16": lambda weights: weights.astype("bfloat16"),
    "float8": lambda weights: weights.astype("float8_e4m3fn"),
    "int8": lambda weights: weights.astype(np.int8),
    "uint8": lambda weights: np.abs(weights).astype(np.uint8),
    "by columns": np.asfortranarray,
    "one scale": with_one_scale,
    "scales of rows": with_scales_of_rows,
}


@pytest.mark.parametrize("make", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("masked", [False, True])
def test_a_cut_between_ties_is_the_same_in_any_order(make, masked):
    weights = of_few_magnitudes(0, levels=8)
    mask = np.random.default_rng(5).random(weights.shape) < 0.8 if masked else None
    layer = MeasuredLayer.of(make(weights), mask)
    levels = np.abs(weights)[np.ones_like(weights, bool) if mask is None else mask]
    for level in (6, 5, 3):
        k = int(np.count_nonzero(levels >= level))
        for seed in range(2):
            assert overlap._overlap_with_ties_at_random(layer, k, seed) == pytest.approx(layer.forest.overlap(k))


@pytest.mark.parametrize("make", TYPES.values(), ids=TYPES)
def test_ties_at_random_lie_in_the_range_of_all_orders_whatever_the_type(make):
    weights = of_few_magnitudes(3, levels=8)
    layer = MeasuredLayer.of(make(weights))
    for k in (100, 209, 400, 2000):
        found = overlap_range(weights, k)
        drawn = {overlap._overlap_with_ties_at_random(layer, k, seed) for seed in range(4)}
        assert all(found.lower - 1e-12 <= each <= found.upper + 1e-12 for each in drawn)
        assert len(drawn) > 1 or found.lower == pytest.approx(found.upper)


@pytest.mark.parametrize("levels", [1, 20_000])
def test_no_z_of_a_kernel_tells_of_the_rule_that_ranks_ties(levels):
    """With ties broken by noise far below the levels, the weights have no ties and are as exchangeable."""
    rng = np.random.default_rng(4)
    kernel = rng.integers(-levels, levels + 1, (24, 24, 3, 3)).astype(np.float64)
    conv = Conv(24, 24, (3, 3), (6, 6), padding=1)
    null = overlap_null(kernel, conv=conv, seed=0, trials=50)
    without_ties = []
    for noise in rng.random((12, *kernel.shape)) * 1e-6:
        forest = critical_kernel_weights(kernel * (1 + noise), conv)
        without_ties.append(forest.overlap())
    if levels > 1:  # few ties
        assert (null.reason, null.z is None) == (None, False)
        assert abs(null.measured - np.mean(without_ties)) < null.deviation
        return
    assert null.z is None
    told = float(re.search(r"at random, as by chance, the overlap is (0\.\d+)\. So", null.reason)[1])
    assert null.measured < told - 5 * null.deviation
    assert abs(told - np.mean(without_ties)) < 3 * np.std(without_ties)
    assert overlap_null(kernel, conv=conv, seed=0, trials=50).reason == null.reason
