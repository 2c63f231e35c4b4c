"""Layers of trained nets beside what chance gives: overlap, neural persistence, critical rank, kernels."""

import math

import numpy as np
import pytest

from tests.chance.test_scales import trained
from topobounds import (
    Conv,
    connection_probability,
    critical_kernel_weights,
    expected_overlap,
    maximum_spanning_forest,
    overlap_null,
    persistence_null,
)

# file, tensor; certified overlap of exchangeable weights; z of NP^2; share of NP, and of NP^2, that the values explain;
# density to which magnitude pruning is safe, by chance (median) and measured
LAYERS = [
    ("mnist_6_100_nat.pth", "5.weight", 0.840, 10.6, 0.981, 0.963, 0.055, 0.059),
    ("mnist_6_100_nat.pth", "9.weight", 0.840, 4.3, 0.99, 0.98, 0.055, 0.051),
    ("mnist_fc_3layer.pth", "fc1.weight", 0.731, 76, 0.895, 0.802, 0.053, 0.568),
    ("mnist_fc_3layer.pth", "fc2.weight", 0.819, 44, 0.80, 0.64, 0.078, 0.400),
    ("mnist_lenet5.pth", "7.weight", 0.814, 46, 0.862, 0.742, 0.048, 0.209),
    ("g2p_gru_checkpoint20.npz", "enc_w_ih", 0.789, 59, 0.910, 0.828, 0.027, 0.115),
    ("fashion_mnist_robust_cnn.pth", "5.weight", 0.677, 94, 0.968, 0.937, 0.074, 0.099),
    ("mnist_6_100_nat.pth", "1.weight", 0.714, 45.4, 0.924, 0.854, 0.068, 0.094),
]


@pytest.mark.parametrize(("file", "name", "overlap", "z", "share", "squared", "safe", "measured"), LAYERS)
def test_a_trained_layer_beside_chance(data_dir, file, name, overlap, z, share, squared, safe, measured):
    weights = trained(data_dir, file, name)
    m, n = weights.shape
    certified = expected_overlap(m, n)
    assert certified.lower == pytest.approx(overlap, abs=6e-4)
    null = persistence_null(weights, seed=0)
    assert null.status == "certified"
    assert null.z == pytest.approx(z, rel=0.03)
    assert null.share == pytest.approx(share, abs=0.005)
    assert null.share**2 == pytest.approx(squared, abs=0.006)
    half = [connection_probability(m, n, math.floor((safe + step) * m * n)).lower for step in (-0.0015, 0.0015)]
    assert half[0] < 0.5 < half[1]
    assert maximum_spanning_forest(weights).critical_rank / (m * n) == pytest.approx(measured, abs=6e-4)


@pytest.mark.parametrize(
    ("channels", "side", "per_channel", "overlap"), [(256, 4, 2.331, 0.8053), (256, 8, 2.317, None)]
)
def test_wide_kernels_have_the_critical_weights_that_were_measured(channels, side, per_channel, overlap):
    conv = Conv(channels, channels, (3, 3), (side, side), padding=1)
    rng = np.random.default_rng(0)
    found = [critical_kernel_weights(rng.standard_normal(conv.weight_shape), conv) for _ in range(6)]
    assert np.mean([each.n_critical for each in found]) / (2 * channels) == pytest.approx(per_channel, abs=0.04)
    if overlap is not None:
        assert np.mean([each.overlap() for each in found]) == pytest.approx(overlap, abs=0.01)


def test_trained_kernels_keep_less_than_chance(data_dir):
    """Of a trained ResNet-20: 1.5 to 3.0 critical weights a channel, overlap 0.45 to 0.73, by chance 0.72 to 0.82."""
    torch = pytest.importorskip("torch")
    path = data_dir / "checkpoints" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip("the checkpoint is not there")
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    per_channel, measured, expected = [], [], []
    side = {16: 32, 32: 16, 64: 8}
    for name, tensor in state.items():
        if tensor.ndim != 4:
            continue
        outputs, inputs = tensor.shape[:2]
        stride = 2 if 3 < inputs < outputs else 1
        conv = Conv(inputs, outputs, (3, 3), (side[outputs] * stride,) * 2, stride, 1)
        null = overlap_null(tensor.numpy(), conv=conv, trials=5, seed=0)
        critical = critical_kernel_weights(tensor.numpy(), conv)
        assert null.measured < null.expected.upper, name
        if stride == 1 and inputs > 3:
            per_channel.append(critical.n_critical / (inputs + outputs))
            measured.append(null.measured)
            expected.append((null.expected.lower + null.expected.upper) / 2)
    assert len(measured) == 16
    assert 1.45 <= min(per_channel) < max(per_channel) <= 3.05
    assert 0.44 <= min(measured) < max(measured) <= 0.74
    assert 0.79 <= min(expected) < max(expected) <= 0.84


def test_a_circular_kernel_of_many_channels_grows_about_four_times():
    conv = Conv(256, 256, (3, 3), (8, 8), padding=1, padding_mode="circular")
    rng = np.random.default_rng(0)
    growth = [critical_kernel_weights(rng.standard_normal(conv.weight_shape), conv).n_critical - 511 for _ in range(12)]
    assert min(growth) >= 2
    assert np.mean(growth) == pytest.approx(3.8, abs=0.9)
