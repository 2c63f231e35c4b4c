"""Kernels that read the largest magnitudes of a layer, and how many lie in each bin, without sorting the layer.

Keys are the bits of the weights as unsigned integers, without the sign, which `magnitude` masks away; they sort as |w|
does. A bin holds the keys that agree but for their lowest `shift` bits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._kernels.spanning import (
    _any_at_least,
    _at_least,
    _lowest,
)
from topobounds._types import Keys

_DIGIT_BITS, _DIGITS = 11, 2048
_LANES, _U0, _U1 = np.uint64(4), np.uint64(0), np.uint64(1)
_STEP, _BITS = np.uint64(128), np.uint64(64)


@compiled
def count_bins(bits: Keys, magnitude: Any, shift: Any, counts: NDArray[np.int64]) -> None:
    """Add to `counts`, modified in place, the keys by bin; each of its four rows counts every fourth key.

    Four rows, since counting twice in one place makes the second wait for the first.
    """
    size = np.uint64(bits.size)
    whole = size // _LANES * _LANES
    for index in range(_U0, whole, _LANES):
        for lane in range(_LANES):
            counts[lane, (bits[index + lane] & magnitude) >> shift] += 1
    for index in range(whole, size):
        counts[_U0, (bits[index] & magnitude) >> shift] += 1


@compiled
def collect_above(bits: Keys, magnitude: Any, bound: Any, keys: Keys) -> tuple[Any, Any]:
    """Write to `keys`, modified in place, all keys above `bound`.

    `keys` needs room for as many as there are bits. Returns how many are above, and how many equal `bound`.
    """
    count, equal, size = _U0, _U0, np.uint64(bits.size)
    whole = size // _STEP * _STEP
    for block in range(_U0, whole, _STEP):
        if not _any_at_least(bits, block, magnitude, bound):
            continue
        for start in range(block, block + _STEP, _BITS):
            heavy = _at_least(bits, start, magnitude, bound)
            while heavy:
                key = bits[start + _lowest(heavy)] & magnitude
                heavy &= heavy - _U1
                keys[count] = key
                count += np.uint64(key > bound)
                equal += np.uint64(key == bound)
    for index in range(whole, size):
        key = bits[index] & magnitude
        if key > bound:
            keys[count] = key
            count += _U1
        equal += np.uint64(key == bound)
    return count, equal


@compiled
def sort_keys(keys: Keys, spare: Keys) -> Keys:
    """Return the keys rising, in one of the two arrays, of equal length; both are modified.

    Digit by digit from the lowest: for keys that differ in few of their bits this is faster than comparing them.
    """
    source, target = keys, spare
    for shift in range(0, 8 * keys.itemsize, _DIGIT_BITS):
        places = np.zeros(_DIGITS, np.int64)
        for key in source:
            places[np.uint64(key) >> np.uint64(shift) & np.uint64(_DIGITS - 1)] += 1
        if places.max() == source.size:
            continue
        first = 0
        for smaller in range(_DIGITS):
            count = places[smaller]
            places[smaller] = first
            first += count
        for key in source:
            digit = np.uint64(key) >> np.uint64(shift) & np.uint64(_DIGITS - 1)
            target[places[digit]] = key
            places[digit] += 1
        source, target = target, source
    return source
