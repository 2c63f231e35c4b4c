"""T-IMP masks by operations of torch are those of the CPU, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topobounds
from topobounds.weights import as_array
from torch_bridge import topological_mask
from torch_bridge.pruning import on_device

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def expected_mask(weights, keep, mask=None, **options):
    survivors = None if mask is None else (mask != 0).numpy()
    return topobounds.topological_mask(as_array("weights", weights), keep, survivors, **options)


def assert_same(weights, keep, mask=None):
    found = topological_mask(weights, keep, mask, on_infeasible="clamp")
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found.numpy(), expected_mask(weights, keep, mask, on_infeasible="clamp"))


KINDS = {
    "random": lambda rng, shape: rng.standard_normal(shape),
    "tied": lambda rng, shape: rng.integers(-2, 3, shape) / 2,
    "one value": lambda rng, shape: np.full(shape, -1.5),
    "zeros": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.3),
    "all zero": lambda rng, shape: np.zeros(shape),
    "negative zeros": lambda rng, shape: np.where(rng.random(shape) < 0.5, -0.0, rng.integers(0, 2, shape)),
    "scales": lambda rng, shape: np.exp(2 * rng.standard_normal((shape[0], 1))) * rng.standard_normal(shape),
    "blocks": lambda rng, shape: np.where(
        np.add.outer(np.arange(shape[0]) // 3, np.arange(shape[1]) // 3) % 2, rng.integers(1, 3, shape), 0.0
    ),
    "sorted": lambda rng, shape: np.sort(rng.standard_normal(shape).ravel()).reshape(shape),
    "subnormal": lambda rng, shape: rng.integers(0, 4, shape) * 2.0**-24,
}


BLOCKS = [(17, torch.float32), (17, torch.bfloat16), (1, torch.float32)]
OTHER_BLOCKS = [(17, torch.float64), (17, torch.float16), (2**24, torch.bfloat16)]
BLOCKS += [pytest.param(*each, marks=pytest.mark.long) for each in OTHER_BLOCKS]


@pytest.mark.parametrize(("block", "dtype"), BLOCKS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_the_cpu(kind, dtype, block, monkeypatch):
    monkeypatch.setattr(on_device, "BLOCK", block)
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (9, 1), (7, 12), (12, 7), (23, 31)):
        weights = torch.from_numpy(np.asarray(KINDS[kind](rng, shape), np.float64)).to(dtype)
        for keep in (0, 1, weights.numel() // 3, weights.numel()):
            assert_same(weights, keep)
        survivors = torch.from_numpy(rng.random(shape) < 0.6)
        assert_same(weights, int(survivors.sum()) // 2, survivors)
        assert_same(weights.T.contiguous().T, 0.5)
        assert_same(weights[:, ::2], 0.5)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_masks_are_those_of_the_cpu_whatever_the_weights(data):
    m, n = (data.draw(st.integers(1, 9)) for _ in range(2))
    values = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]), st.floats(-4, 4, width=16))
    cells = data.draw(st.lists(values, min_size=m * n, max_size=m * n))
    alive = data.draw(st.lists(st.booleans(), min_size=m * n, max_size=m * n))
    weights = torch.tensor(cells, dtype=data.draw(st.sampled_from(DTYPES))).view(m, n)
    mask = torch.tensor(alive).view(m, n) if data.draw(st.booleans()) else None
    survivors = m * n if mask is None else int(mask.sum())
    assert_same(weights, data.draw(st.integers(0, survivors)), mask)


@pytest.mark.parametrize("shape", [(300, 784), (512, 512)])
def test_layers_of_the_usual_sizes(shape):
    torch.manual_seed(0)
    for weights in (torch.randn(shape), torch.randn(shape).to(torch.bfloat16), torch.randn(shape).round()):
        assert_same(weights, 0.1)


def test_a_mask_may_be_of_any_type_and_of_other_strides():
    weights, mask = torch.randn(6, 5), torch.ones(5, 6).T
    mask[0] = 0
    assert_same(weights, 12, mask)
    assert not topological_mask(weights, 12, mask)[0].any()


def test_what_is_not_looked_at_may_be_anything():
    weights = torch.randn(6, 5)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2] = False
    weights[2] = torch.nan
    assert_same(weights, 12, mask)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_that_are_not_finite_are_refused_in_the_words_of_the_cpu(bad, dtype):
    weights = torch.ones(4, 3, dtype=dtype)
    weights[2, 1] = bad
    with pytest.raises(ValueError, match="must be finite") as expected:
        expected_mask(weights, 6)
    with pytest.raises(ValueError, match="must be finite") as found:
        topological_mask(weights, 6)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("keep", [3, 0.25, -1, 13, 1.5, "few"])
def test_counts_are_refused_in_the_words_of_the_cpu(keep):
    weights = torch.randn(4, 3)
    with pytest.raises(ValueError, match="Argument 'keep'") as expected:
        expected_mask(weights, keep)
    with pytest.raises(ValueError, match="Argument 'keep'") as found:
        topological_mask(weights, keep)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    "weights",
    [
        torch.ones(3),
        torch.ones(2, 3, 3, 3),
        torch.ones(0, 3),
        torch.ones(3, 3, dtype=torch.int32),
        torch.ones(3, 3, dtype=torch.complex64),
        np.ones((3, 3)),
        np.ones((3, 3), ml_dtypes.bfloat16),
        None,
    ],
    ids=lambda each: f"{type(each).__name__} {getattr(each, 'dtype', '')} {tuple(getattr(each, 'shape', ()))}",
)
def test_what_is_no_matrix_of_floats_is_refused(weights):
    with pytest.raises(
        ValueError, match="Argument 'weights' must be a matrix of float16, bfloat16, float32 or float64"
    ):
        topological_mask(weights, 3)


@pytest.mark.parametrize("mask", [torch.ones(3, 2), np.ones((2, 3)), [[1]]])
def test_a_mask_of_another_kind_or_shape_is_refused(mask):
    with pytest.raises(ValueError, match=r"Argument 'mask' must be a Tensor of the shape \(2, 3\) of the weights"):
        topological_mask(torch.ones(2, 3), 3, mask)


def test_a_parameter_that_is_trained_is_taken_and_left_as_it_is():
    weights = torch.nn.Parameter(torch.randn(6, 5))
    before = weights.detach().clone()
    assert not topological_mask(weights, 12).requires_grad
    assert torch.equal(weights, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masks_on_cuda_are_those_of_the_cpu(dtype):
    rng = np.random.default_rng(0)
    for kind in KINDS.values():
        for shape in ((1, 9), (23, 31), (300, 200)):
            weights = torch.from_numpy(np.asarray(kind(rng, shape), np.float64)).to(dtype)
            survivors = torch.from_numpy(rng.random(shape) < 0.7)
            found = topological_mask(weights.cuda(), 0.3, survivors.cuda(), on_infeasible="clamp")
            assert found.is_cuda
            expected = expected_mask(weights, 0.3, survivors, on_infeasible="clamp")
            np.testing.assert_array_equal(found.cpu().numpy(), expected)
