"""Kernels of pruning masks: the threshold of the largest keys by counting digits, and the mask, ties by index.

A key is the bits of a weight without its sign, ``bits & magnitude_bits``: an unsigned integer that sorts as |w| does.
Only free weights count: those that `may_keep` marks and `kept` does not mark yet.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._types import Keys, MaskBytes

_BLOCK, _U0 = np.uint64(1024), np.uint64(0)


@compiled
def count_digits(
    bits: Keys,
    may_keep: MaskBytes,
    kept: MaskBytes,
    magnitude_bits: Any,
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
        key = np.uint64(bits[index] & magnitude_bits)
        if key >> above == prefix:
            counts[key >> shift & low] += np.int64(may_keep[index] > kept[index])


@compiled
def mark_largest(
    bits: Keys, may_keep: MaskBytes, magnitude_bits: Any, threshold: Any, ties: int, kept: MaskBytes
) -> int:
    """Mark in `kept`, modified in place, the free keys above `threshold` and the first `ties` of those equal to it.

    Returns how many ties are left.
    """
    size = np.uint64(bits.size)
    for block in range(_U0, size, _BLOCK):
        end, equal = min(block + _BLOCK, size), np.uint8(0)
        for index in range(block, end):  # no branches: the compiler does many at once
            key = bits[index] & magnitude_bits
            kept[index] |= may_keep[index] & np.uint8(key > threshold)
            equal |= may_keep[index] & np.uint8(key == threshold)
        if equal and ties:
            for index in range(block, end):
                # Few keys equal the threshold, so that comparison comes first: the others are then hardly ever made.
                if bits[index] & magnitude_bits == threshold and may_keep[index] > kept[index] and ties:
                    kept[index] = 1
                    ties -= 1
    return ties
