"""Kernels as plain Python: their vector instructions written out, so that they run without being compiled.

Under ``NUMBA_DISABLE_JIT=1`` a kernel is the Python function that it is written as, which is slow, checks every index,
and need not be compiled again for every change to it; only what is written for LLVM has no Python. `installed` puts
the functions here in its place, and lets the engine take the kernels however they are run. ``pytest -p
tests.attack.twins`` does so for all tests that it runs.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from topobounds import _engine
from topobounds._engine import NumpyBudget
from topobounds._kernels import magnitudes as magnitude_kernels
from topobounds._kernels import spanning as kernels
from topobounds._kernels import squares as square_kernels
from topobounds.pruning import selection
from topobounds.topology import moments, spanning

BLOCK = kernels._BLOCK
LANES = kernels._LANES


def _part(array: Any, start: Any, count: int) -> Any:
    start = int(start)
    assert 0 <= start <= array.size - count, (start, array.size)
    return array[start : start + count]


def _keys(part: Any, magnitude: Any) -> Any:
    if part.dtype.kind == "i":
        return np.abs(part.astype(np.int64)).astype(f"u{part.itemsize}")
    return part & part.dtype.type(magnitude)


def _bits(flags: Any) -> Any:
    return np.uint64(sum(1 << i for i, flag in enumerate(flags.tolist()) if flag))


def any_at_least(array: Any, start: Any, magnitude: Any, bound: Any) -> Any:
    """See `_any_at_least`."""
    part = _part(array, start, BLOCK)
    return bool(((part & part.dtype.type(magnitude)) >= part.dtype.type(bound)).any())


def write_bins(
    array: Any, start: Any, magnitude: Any, lightest: Any, span: Any, shift: Any, n_bins: Any, bins: Any
) -> None:
    """See `_write_bins`."""
    kind = array.dtype.type
    keys = _part(array, start, BLOCK) & kind(magnitude)
    beyond = keys - kind(lightest)
    steps = (beyond >> kind(shift)).astype(np.uint32)
    inside = np.where(beyond <= kind(span), steps, np.uint32(n_bins))
    unread = np.uint32(n_bins) + np.uint32(1) + np.arange(BLOCK, dtype=np.uint32) % np.uint32(kernels.UNREAD_BINS)
    bins[:BLOCK] = np.where(keys >= kind(lightest), inside, unread)


def any_above(array: Any, start: Any, magnitude: Any, lift: Any, bounds: Any, first: Any) -> Any:
    """See `_any_above`."""
    kind = array.dtype.type
    return bool((_keys(_part(array, start, BLOCK), magnitude) + kind(lift) > _part(bounds, first, BLOCK)).any())


def at_least(array: Any, start: Any, magnitude: Any, bound: Any) -> Any:
    """See `_at_least`."""
    return _bits(_keys(_part(array, start, LANES), magnitude) >= _in_type(array, bound))


def equal(array: Any, start: Any, magnitude: Any, level: Any) -> Any:
    """See `_equal`."""
    return _bits(_keys(_part(array, start, LANES), magnitude) == _in_type(array, level))


def _in_type(array: Any, value: Any) -> Any:
    """Return a number cut to the bits of the keys, as a call of the compiled function does."""
    return np.dtype(f"u{array.itemsize}").type(int(value) & (1 << 8 * array.itemsize) - 1)


def key(array: Any, index: Any, magnitude: Any) -> Any:
    """See `_key`."""
    return np.uint64(_keys(_part(array, index, 1), magnitude)[0])


def differ(array: Any, start: Any, value: Any) -> Any:
    """See `_differ`."""
    return _bits(_part(array, start, LANES) != value)


def lowest(bits: Any) -> Any:
    """See `_lowest`."""
    bits = int(bits)
    assert bits
    return np.uint64((bits & -bits).bit_length() - 1)


def highest(bits: Any) -> Any:
    """See `_highest`."""
    assert bits
    return np.uint64(int(bits).bit_length() - 1)


def number(bits: Any) -> Any:
    """See `_number`."""
    return np.uint64(int(bits).bit_count())


def bits_of(value: Any) -> Any:
    """See `_bits_of`."""
    return np.float32(value).view(np.uint32)


def ratio(value: Any, divisor: Any) -> Any:
    """See `_ratio`."""
    return np.float32(value) / np.float32(divisor)


def float_of(bits: Any) -> Any:
    """See `_float_of`."""
    return np.uint32(bits).view(np.float32)


def add_floats(numbers: Any, start: Any, sums: Any) -> None:
    """See `_add_floats`."""
    for i, square in enumerate(_part(numbers, start, 256).astype(np.float64) ** 2):
        sums[i % 64] += square


def add_float16(bits: Any, start: Any, sums: Any) -> None:
    """See `_add_float16`."""
    add_floats(_part(bits, start, 256).view(np.float16), 0, sums)


def float_of_half(bits: Any) -> Any:
    """See `_float_of_half`."""
    return np.uint16(bits).view(np.float16).astype(np.float32)


def add_bfloat16(bits: Any, start: Any, sums: Any) -> None:
    """See `_add_bfloat16`."""
    values = (_part(bits, start, 256).astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = (values * values).astype(np.float64)
    for i, square in enumerate(squares):
        sums[i % 64] += square


def float_of_byte(code: Any, shift: Any) -> Any:
    """See `_float_of_byte`."""
    if isinstance(code, np.int8):
        return np.float32(code)
    return np.uint32((int(code) & 0x7F) << int(shift)).view(np.float32)


def add_products(codes: Any, start: Any, n_groups: Any, scale_of: Any, shift: Any, sums: Any, largest: Any) -> None:
    """See `_add_products`."""
    added = np.zeros((4, 8))
    for first in range(0, 32 * int(n_groups), 32):
        part, scales = _part(codes, int(start) + first, 32), _part(scale_of, first, 32)
        values = np.array([float_of_byte(code, shift) for code in part], np.float32)
        products = (values.reshape(8, 4).T * scales.reshape(4, 8)).astype(np.float64)
        added += products * products
        if part.dtype == np.uint8:
            np.maximum(largest, part & np.uint8(0x7F), out=largest)
    sums += added.ravel()


def add_digits(
    codes: Any, start: Any, width: Any, lines: Any, n_blocks: Any, digits: Any, sums: Any, largest: Any
) -> None:
    """See `_add_digits`."""
    for line in range(int(lines)):
        for block in range(int(n_blocks)):
            part = _part(codes, int(start) + line * int(width) + 64 * block, 64) & np.uint8(0x7F)
            np.maximum(largest, part, out=largest)
            for place, table in enumerate(digits):
                sums[place] += table[part].reshape(8, 8).sum(axis=1, dtype=np.uint64)


SPANNING = [any_at_least, write_bins, any_above, at_least, equal, key, differ, lowest, highest, number]
SPANNING += [bits_of, ratio, float_of]
MAGNITUDES = [any_at_least, at_least, lowest]
SQUARES = [equal, key, number, float_of, float_of_half, add_floats, add_float16, add_bfloat16]
SQUARES += [float_of_byte, add_products, add_digits]
ROOMS = [(kernels, SPANNING), (magnitude_kernels, MAGNITUDES), (square_kernels, SQUARES)]


@contextmanager
def installed() -> Iterator[None]:
    """Run kernels as Python, of however small a layer."""
    with ExitStack() as stack, np.errstate(all="ignore"):
        for module, functions in ROOMS:
            for function in functions:
                stack.enter_context(patch.object(module, f"_{function.__name__}", function))
        for module in (_engine, spanning, selection, moments):
            stack.enter_context(patch.object(module, "kernels_disabled", lambda: False))
        for module in (spanning, moments):
            stack.enter_context(patch.object(module, "_NUMPY_BUDGET", NumpyBudget("numba", 0)))
        stack.enter_context(patch.object(moments, "_FEW_CODES", 0))
        stack.enter_context(patch.object(selection, "COMPILED_FROM", 1))
        stack.enter_context(patch.object(square_kernels, "LOOKS_UP_BYTES", True))
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Run kernels as Python until the end, where pytest is told to load this module."""
    stack = ExitStack()
    stack.enter_context(installed())
    config.add_cleanup(stack.close)
