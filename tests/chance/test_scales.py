"""Neuron scales: the fit, the null, and what they say of trained layers."""

import numpy as np
import pytest

import topobounds as tb
from topobounds.chance.scales import neuron_scales, scale_null


def rank_one(m, n, seed):
    """Return a layer that obeys the null, with log-normal scales."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.standard_normal((m, 1))) * np.exp(rng.standard_normal((1, n)))
    return scales * rng.standard_normal((m, n))


def test_scales_times_residuals_are_the_layer_and_the_residuals_are_balanced():
    weights = rank_one(30, 20, 0)
    scales = neuron_scales(weights)
    assert np.allclose(scales.rows[:, None] * scales.cols * scales.residuals, np.abs(weights), rtol=1e-12)
    squares = scales.residuals**2
    assert np.allclose(squares.mean(axis=0), 1, atol=1e-8)
    assert np.allclose(squares.mean(axis=1), 1, atol=1e-8)
    assert np.log(scales.cols).mean() == pytest.approx(0, abs=1e-12)


def test_scaling_rows_and_columns_changes_the_scales_and_not_the_residuals():
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((8, 5))
    rows, cols = rng.uniform(0.1, 10, 8), rng.uniform(0.1, 10, 5)
    one, other = neuron_scales(weights), neuron_scales(rows[:, None] * weights * cols)
    assert np.allclose(one.residuals, other.residuals, rtol=1e-6)
    assert np.ptp(other.rows / one.rows / rows) < 1e-6 * np.max(other.rows / one.rows / rows)


def test_a_layer_of_one_row_is_its_column_scales():
    scales = neuron_scales([[1.0, -2.0, 4.0]])
    assert np.allclose(scales.residuals, 1)
    assert np.allclose(scales.rows[0] * scales.cols, [1, 2, 4])


def test_where_every_order_has_the_same_forest_there_is_no_z():
    null = scale_null(np.random.default_rng(0).standard_normal((1, 9)), 5, trials=3, seed=0)
    assert null.overlap.expected == null.overlap.measured == pytest.approx(5 / 9)
    assert null.overlap.z is null.persistence.z is None
    assert null.overlap.deviation == null.persistence.deviation == 0


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([[1.0, 1.0], [0.0, 0.0]], "without a row of zeros, which has no scale, not '1 of them, the first row 1'"),
        ([[1.0, 0.0], [1.0, 0.0]], "without a column of zeros"),
        ([[1.0, 1.0], [1.0, 0.0]], "at most 1% zeros"),
        ([[1.0, 1.0], [1.0, 1e-200]], "Sinkhorn's algorithm does not converge"),
        ([[1.0, np.nan]], "must be finite"),
        ([[0.0]], "without a row of zeros"),
    ],
)
def test_what_has_no_scales_is_refused(weights, said):
    with pytest.raises(ValueError, match=said):
        neuron_scales(weights)


def test_a_single_zero_among_many_weights_is_a_weight_like_others():
    weights = rank_one(20, 15, 2)
    weights[3, 4] = 0
    assert neuron_scales(weights).residuals[3, 4] == 0


def test_limit_and_samples_agree():
    for seed, (m, n, k) in enumerate([(200, 100, None), (200, 100, 150), (200, 100, 900), (150, 150, 100)]):
        null = scale_null(rank_one(m, n, seed), k, trials=30, seed=0)
        assert null.overlap.limit == pytest.approx(null.overlap.expected, abs=0.01)


def test_where_all_scales_are_equal_the_limit_is_that_of_exchangeable_weights():
    values = np.random.default_rng(0).standard_normal(300)
    weights = values[np.add.outer(np.arange(300), np.arange(300)) % 300]  # every row and column has the same values
    null = scale_null(weights, 700, trials=2, seed=0)
    assert null.overlap.limit == pytest.approx(tb.overlap_limit(300, 300, 900), abs=0.005)  # 3 of 300 values, tied


def test_everything_kept_is_the_whole_forest():
    null = scale_null(rank_one(12, 9, 0), 12 * 9, trials=3, seed=0)
    assert null.overlap.measured == null.overlap.expected == 1
    assert null.overlap.z is null.overlap.refitted_z is null.overlap.explained is None
    assert null.overlap.limit == pytest.approx(1)
    assert scale_null(rank_one(12, 9, 0), 0, trials=2, seed=0).overlap.limit == 0


def test_the_measured_values_are_those_of_the_layer():
    weights = rank_one(25, 14, 3)
    null = scale_null(weights, trials=2, seed=1)
    assert null.overlap.measured == tb.magnitude_overlap(weights)
    assert null.persistence.measured == pytest.approx(tb.neural_persistence(weights) ** 2)
    assert null.to_dict() == scale_null(weights, trials=2, seed=1).to_dict()
    assert null.to_dict() != scale_null(weights, trials=2, seed=2).to_dict()
    assert scale_null(weights, trials=2).seed >= 0


def test_layers_that_obey_the_null_are_explained():
    nulls = [scale_null(rank_one(200, 10, seed), trials=30, seed=seed) for seed in range(12)]
    overlaps = [null.overlap.refitted_z for null in nulls]
    persistences = [null.persistence.refitted_z for null in nulls]
    assert abs(np.mean(overlaps)) < 1
    assert abs(np.mean(persistences)) < 1
    assert sum(null.overlap.explained for null in nulls) >= 11


def test_exchangeable_weights_would_not_explain_row_scales_and_these_do():
    rng = np.random.default_rng(0)
    weights = np.exp(rng.standard_normal((784, 1))) * rng.standard_normal((784, 300))
    null = scale_null(weights, trials=20, seed=0)
    assert tb.expected_overlap(784, 300).lower - null.overlap.measured > 0.1
    assert null.overlap.explained


TRAINED = [  # file, tensor, limit, sampled overlap, measured overlap, z of the persistence and how far it may be off
    ("mnist_6_100_nat.pth", "1.weight", 0.534, 0.535, 0.450, 11.7, 2.0),
    ("mnist_6_100_nat.pth", "5.weight", 0.723, 0.729, 0.719, 0.4, 0.6),
    ("mnist_fc_3layer.pth", "fc1.weight", 0.528, 0.531, 0.548, 7.5, 1.6),
    ("mnist_fc_3layer.pth", "fc2.weight", 0.505, 0.503, 0.508, 4.1, 1.2),
    ("mnist_lenet5.pth", "7.weight", 0.604, 0.601, 0.581, 8.8, 1.8),
    ("g2p_gru_checkpoint20.npz", "enc_w_ih", 0.594, 0.591, 0.576, 3.8, 1.5),
    ("fashion_mnist_robust_cnn.pth", "5.weight", 0.563, 0.566, 0.367, 29.0, 6.0),
]


def trained(folder, file, name):
    """Return a layer of a checkpoint, inputs by outputs."""
    path = folder / "checkpoints" / file
    if path.suffix == ".npz":
        return np.load(path)[name].T
    torch = pytest.importorskip("torch")
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    return (state[0] if isinstance(state, list) else state)[name].numpy().T


@pytest.mark.parametrize(("file", "name", "limit", "sampled", "measured", "z", "spread"), TRAINED)
def test_trained_layers_beside_the_scales_of_their_neurons(data_dir, file, name, limit, sampled, measured, z, spread):
    null = scale_null(trained(data_dir, file, name), trials=60, seed=0)
    assert null.overlap.limit == pytest.approx(limit, abs=0.001)
    assert null.overlap.expected == pytest.approx(sampled, abs=0.006)
    assert null.overlap.measured == pytest.approx(measured, abs=0.0006)
    assert null.persistence.z == pytest.approx(z, abs=spread)


def test_no_z_tells_of_the_rule_that_ranks_ties():
    rng = np.random.default_rng(2)
    weights = np.exp(rng.standard_normal((90, 1)) / 4) * rng.standard_normal((90, 70))
    fine = scale_null(weights, trials=20, seed=0)
    assert fine.overlap.explained
    coarse = scale_null(np.sign(weights) * np.ceil(np.abs(weights) / 2), trials=20, seed=0)
    assert (coarse.overlap.z, coarse.overlap.refitted_z, coarse.overlap.explained) == (None, None, None)
    assert coarse.overlap.measured < coarse.overlap.expected - 5 * coarse.overlap.deviation
    assert coarse.persistence.refitted_z is not None  # the same whatever the rule
