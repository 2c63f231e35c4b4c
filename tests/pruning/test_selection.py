"""How many of the largest weights are in each of several tensors, counted digit by digit of their keys."""

import numpy as np
import pytest

from topobounds.pruning.selection import counts_of_largest


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_counts_are_those_of_sorting_to_the_last_bit_of_a_key(dtype):
    """The keys differ in every digit, most of them in the last ones alone."""
    rng = np.random.default_rng(0)
    kind = np.dtype(f"u{np.dtype(dtype).itemsize}")
    one = int(np.ones(1, dtype).view(kind)[0])
    tensors = []
    for size in (300, 500, 200):
        bits = one + rng.integers(0, 2 ** rng.integers(1, 8 * kind.itemsize - 5, size), dtype=np.int64)
        weights = bits.astype(kind).view(dtype) * rng.choice([-1, 1], size).astype(dtype)
        tensors.append((weights, rng.random(size) < 0.8))
    keys = np.concatenate([np.where(free, np.abs(weights), -1) for weights, free in tensors])
    owner = np.repeat(range(3), [300, 500, 200])
    order = owner[np.argsort(-keys, kind="stable")]
    for wanted in (0, 1, 7, 100, 399, int(np.count_nonzero(keys > 0))):
        found = counts_of_largest(lambda: iter(tensors), wanted, kind.itemsize)
        assert found == np.bincount(order[:wanted], minlength=3).tolist()
