"""Kernels that read the largest magnitudes of a layer, and how many lie in each bin, without sorting the layer.

Keys are the bits of the weights as unsigned integers, without the sign, which `magnitude` masks away; they sort as |w|
does. A bin holds the keys that agree but for their lowest `shift` bits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels import compiled
from topobounds._types import Keys

_DIGIT_BITS, _DIGITS = 11, 2048
_SUMS = 64
_BLOCK, _LANES, _U0 = np.uint64(32), np.uint64(4), np.uint64(0)


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
def collect_above(bits: Keys, magnitude: Any, bound: Any, keys: Keys) -> tuple[Any, Any, Any]:
    """Write to `keys`, modified in place, all keys above `bound`.

    `keys` needs room for one more than there are bits. Returns how many are above, how many equal `bound`, and how
    many of all keys are 0.
    """
    count, equal, size = _U0, _U0, np.uint64(bits.size)
    zeros = _U0
    for block in range(_U0, size, _BLOCK):
        end = min(block + _BLOCK, size)
        largest = bits[block] & magnitude
        smallest = largest
        for index in range(block, end):  # no branches: the compiler does many at once
            largest = max(largest, bits[index] & magnitude)
            smallest = min(smallest, bits[index] & magnitude)
        if not smallest:
            for index in range(block, end):
                zeros += np.uint64((bits[index] & magnitude) == 0)
        if largest >= bound:
            for index in range(block, end):  # writes each key, and over it unless it counts: no branch to foresee
                key = bits[index] & magnitude
                keys[count] = key
                count += np.uint64(key > bound)
                equal += np.uint64(key == bound)
    return count, equal, zeros


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


@compiled
def add_squares(weights: NDArray[Any]) -> tuple[Any, Any]:
    """Return the sum of the squares of floats, in double precision, and how many of them are not 0."""
    # Many sums side by side: the order of the additions is fixed, and yet the processor can do several at once.
    sums, nonzero = np.zeros(_SUMS), 0
    for index in range(weights.size):
        nonzero += weights[index] != 0
    whole = weights.size - weights.size % _SUMS
    for first in range(0, whole, _SUMS):
        row = weights[first : first + _SUMS]
        for lane in range(_SUMS):
            wide = np.float64(row[lane])
            sums[lane] += wide * wide
    for index in range(whole, weights.size):
        wide = np.float64(weights[index])
        sums[0] += wide * wide
    return sums.sum(), nonzero
