"""Kernels of pruning masks: the threshold of the largest keys by counting digits, and the mask, ties by index.

Keys are the bits of the weights as unsigned integers, without the sign, which `magnitude` masks away; they sort as |w|
does. Only free weights are asked: those that are open and not marked in `kept` yet.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._types import Keys

Marks = NDArray[np.uint8]
"""A boolean array, seen as bytes."""

_BLOCK, _U0 = np.uint64(1024), np.uint64(0)


@compiled
def count_digits(
    bits: Keys,
    open_: Marks,
    kept: Marks,
    magnitude: Any,
    above: Any,
    prefix: Any,
    shift: Any,
    counts: NDArray[np.int64],
) -> None:
    """Add to `counts`, modified in place, the free keys by digit: those whose bits from `above` up are `prefix`.

    The digit is the key's bits from `shift` up, as many as make ``counts.size``, a power of 2.
    """
    low = np.uint64(counts.size - 1)
    for index in range(_U0, np.uint64(bits.size)):
        key = np.uint64(bits[index] & magnitude)
        if key >> above == prefix:
            counts[key >> shift & low] += np.int64(open_[index] > kept[index])


@compiled
def mark_largest(bits: Keys, open_: Marks, magnitude: Any, threshold: Any, ties: int, kept: Marks) -> int:
    """Mark in `kept`, modified in place, the free keys above `threshold` and the first `ties` of those equal to it.

    Returns how many ties are left.
    """
    size = np.uint64(bits.size)
    for block in range(_U0, size, _BLOCK):
        end, equal = min(block + _BLOCK, size), np.uint8(0)
        for index in range(block, end):  # no branches: the compiler does many at once
            key = bits[index] & magnitude
            kept[index] |= open_[index] & np.uint8(key > threshold)
            equal |= open_[index] & np.uint8(key == threshold)
        if equal and ties:
            for index in range(block, end):
                # What is seldom true comes first: the others are then hardly ever asked.
                if bits[index] & magnitude == threshold and open_[index] > kept[index] and ties:
                    kept[index] = 1
                    ties -= 1
    return ties
