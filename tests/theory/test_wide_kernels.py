"""The limit for many channels, against simulation, the dense limit and the coverage constants."""

import numpy as np
import pytest

from topobounds.layers import Conv
from topobounds.theory.overlap import overlap_limit
from topobounds.theory.random_kernels import coverage_constant
from topobounds.theory.wide_kernels import critical_weights_limit
from topobounds.topology.convolution import critical_kernel_weights


@pytest.mark.parametrize(
    ("conv", "per_channel", "overlap"),
    [
        (Conv(256, 256, (3, 3), (3, 3), padding=1), 2.353, 0.810),
        (Conv(256, 256, (3, 3), (2, 2), padding=1), 2.530, 0.833),
        (Conv(256, 256, 3, 8, padding=1), 1.505, 0.817),
        (Conv(16, 256, 3, 8, padding=1), 1.631, 0.671),
        (Conv(256, 16, 3, 8, padding=1), 1.631, 0.671),
        (Conv(256, 256, (3, 3), (4, 4), stride=2, padding=1), 3.940, 0.7346),
        (Conv(3, 2, 1, 1, stride=5, padding=1), 0, 1),
    ],
)
def test_known_limits(conv, per_channel, overlap):
    limit = critical_weights_limit(conv)
    assert limit.per_channel == pytest.approx(per_channel, abs=6e-4)
    assert limit.overlap == pytest.approx(overlap, abs=6e-4)


@pytest.mark.parametrize(
    "conv",
    [
        Conv(128, 128, (3, 3), (3, 3), padding=1),
        pytest.param(Conv(32, 256, (3, 3), (2, 2), padding=1), marks=pytest.mark.long),
        Conv(128, 128, (3, 3), (4, 4), stride=2, padding=1),
        pytest.param(Conv(128, 128, (3, 3), (5, 5)), marks=pytest.mark.long),
        Conv(128, 128, 4, 5, stride=2, padding=1, transposed=True),
        Conv(128, 128, 3, 9, padding=2, dilation=2),
    ],
)
def test_random_kernels_come_near_the_limit(conv):
    limit = critical_weights_limit(conv)
    counts, overlaps = [], []
    for seed in range(8):
        kernel = np.random.default_rng(seed).standard_normal(conv.weight_shape)
        critical = critical_kernel_weights(kernel, conv)
        heaviest = np.argsort(-np.abs(kernel), axis=None)[: critical.n_critical]
        counts.append(critical.n_critical / (conv.in_channels + conv.out_channels))
        overlaps.append(np.isin(heaviest, critical.indices).mean())
    assert np.mean(counts) == pytest.approx(limit.per_channel, rel=0.02)
    assert np.mean(overlaps) == pytest.approx(limit.overlap, abs=0.012)


@pytest.mark.parametrize(
    "conv", [Conv(300, 300, (1, 1), (3, 3)), Conv(300, 300, (3, 3), (3, 3), padding=1, padding_mode="circular")]
)
def test_taps_that_read_every_cell_make_a_dense_layer_of_channels(conv):
    limit = critical_weights_limit(conv)
    assert limit.per_channel == pytest.approx(1, abs=1e-4)
    assert limit.overlap == pytest.approx(overlap_limit(10**6, 10**6), abs=2e-4)


def test_unequal_widths_tend_to_the_coverage_constants():
    wide = Conv(1, 10_000, (3, 3), (4, 3), stride=(2, 1), padding=1)
    assert critical_weights_limit(wide).per_channel == pytest.approx(float(coverage_constant(wide)), abs=2e-3)
    narrow = Conv(10_000, 1, (3, 3), (4, 3), stride=(2, 1), padding=1)
    inputs = float(coverage_constant(narrow, "inputs"))
    assert critical_weights_limit(narrow).per_channel == pytest.approx(inputs, abs=2e-3)


def test_a_transposed_convolution_has_the_limit_of_its_mirror():
    conv = Conv(6, 4, 3, 5, stride=2, padding=1)
    mirror = Conv(4, 6, 3, 3, stride=2, padding=1, transposed=True)
    assert critical_weights_limit(mirror) == critical_weights_limit(conv)


@pytest.mark.parametrize(
    "conv",
    [
        Conv(4, 4, (3, 3), (4096, 4096), padding=1),
        Conv(4, 4, 3, 5, padding=1, padding_mode="replicate"),
        Conv(4, 4, 3, 5, padding=1, padding_mode="reflect"),
    ],
)
def test_what_has_no_limit_here_is_refused(conv):
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv each tap of which reads at most 12 cells, "):
        critical_weights_limit(conv)
    with pytest.raises(ValueError, match=r"^Argument 'conv' must be a Conv, not None\.$"):
        critical_weights_limit(None)
