"""How many of the largest weights are in each of several tensors, counted digit by digit of their keys."""

import ml_dtypes
import numpy as np
import pytest

from topobounds.pruning import selection
from topobounds.pruning.selection import counts_of_largest, mark_largest


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
        survivors = rng.random(size) < 0.9
        tensors.append((weights, survivors, survivors & (rng.random(size) < 0.2)))
    keys = np.concatenate([np.where(open_ & ~kept, np.abs(weights), -1) for weights, open_, kept in tensors])
    owner = np.repeat(range(3), [300, 500, 200])
    order = owner[np.argsort(-keys, kind="stable")]
    for wanted in (0, 1, 7, 100, 399, int(np.count_nonzero(keys > 0))):
        found = counts_of_largest(lambda: iter(tensors), wanted, kind.itemsize)
        assert found == np.bincount(order[:wanted], minlength=3).tolist()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("tied", [False, True])
def test_kernels_mark_in_pieces_what_sorting_marks(monkeypatch, dtype, tied):
    """Ties run over the ends of pieces and tensors, and what is kept already is left alone."""
    rng = np.random.default_rng(0)
    for size in (1, 37, 500, 2000):
        monkeypatch.setattr(selection, "_CHUNK", int(rng.integers(1, 300)))
        drawn = (rng.integers(-20, 20, n) / 8 if tied else rng.standard_normal(n) for n in (size, size // 2 + 1))
        weights = [each.astype(dtype) for each in drawn]
        survivors = [np.asarray(each != 0) for each in weights]
        before = [mask & (rng.random(mask.size) < 0.1) for mask in survivors]
        free = sum(int(np.count_nonzero(mask & ~old)) for mask, old in zip(survivors, before, strict=True))
        for wanted in (0, min(1, free), free // 3, free):
            found = []
            for compiled_from in (1, 10**9):
                monkeypatch.setattr(selection, "COMPILED_FROM", compiled_from)
                found.append([old.copy() for old in before])
                mark_largest(weights, survivors, wanted, found[-1])
            for by_kernels, by_sorting, old in zip(*found, before, strict=True):
                assert np.array_equal(by_kernels, by_sorting)
                assert not np.any(old & ~by_kernels)
            assert sum(int(np.count_nonzero(mask & ~old)) for mask, old in zip(found[0], before, strict=True)) == wanted
