"""Which of the weights that may go are kept: the largest, or a random subset."""

import sys
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from topobounds._engine import kernels_disabled
from topobounds._types import Array, Mask
from topobounds.weights import MAGNITUDE_BITS, order_keys

Weights = list[Array]
Masks = list[Mask]
Entropy = tuple[int, int] | None

COMPILED_FROM = 2**18
"""Weights from which on compiled kernels select; four times as many where numba, half a second, is not loaded yet."""
_DIGIT = 16  # bits of a key that are counted at once: the counts stay in the cache


def mark_random(weights: Weights, free: Masks, wanted: int, kept: Masks, entropy: Entropy) -> None:
    """Mark a uniformly random subset of `wanted` free weights in `kept`, modified in place."""
    places = [np.flatnonzero(each) for each in free]
    ends = np.cumsum([each.size for each in places])
    chosen = np.zeros(ends[-1], np.bool_)
    chosen[np.random.default_rng(entropy).choice(ends[-1], wanted, replace=False)] = True
    for mask, place, part in zip(kept, places, np.split(chosen, ends[:-1]), strict=True):
        mask[place] = part


def mark_largest(weights: Weights, free: Masks, wanted: int, kept: Masks, entropy: Entropy = None) -> None:
    """Mark the `wanted` largest of the free weights in `kept`, modified in place; the first ones among equals."""
    if not wanted:
        return
    if len({part.dtype for part in weights}) > 1:
        weights = [part.astype(np.float64) for part in weights]  # which holds the other types exactly
    compiled_from = COMPILED_FROM * (1 if "numba" in sys.modules else 4)
    if sum(part.size for part in weights) >= compiled_from and not kernels_disabled():
        _mark_by_digits(weights, free, wanted, kept)
        return
    keys = np.concatenate([order_keys(part)[open_] for part, open_ in zip(weights, free, strict=True)])
    threshold = np.partition(keys, keys.size - wanted)[keys.size - wanted]
    ties = wanted - int(np.count_nonzero(keys > threshold))
    for part, open_, mask in zip(weights, free, kept, strict=True):
        found = order_keys(part)
        equal = np.flatnonzero(open_ & (found == threshold))[:ties]
        mask[open_ & (found > threshold)] = True
        mask[equal] = True
        ties -= equal.size


def _mark_by_digits(weights: Weights, free: Masks, wanted: int, kept: Masks) -> None:
    """Do the same by counting the digits of the keys, from the highest on, with compiled kernels."""
    from topobounds._kernels import selection as kernels  # noqa: PLC0415 (loads numba)

    itemsize = weights[0].itemsize
    kind = np.dtype(f"u{itemsize}").type
    magnitude = kind(MAGNITUDE_BITS[itemsize])
    layers = [(part.view(kind), open_.view(np.uint8)) for part, open_ in zip(weights, free, strict=True)]
    threshold, above = 0, 8 * itemsize - 1
    while above:
        width = min(_DIGIT, above)
        counts = np.zeros(2**width, np.int64)
        for bits, open_ in layers:
            kernels.count_digits(
                bits, open_, magnitude, np.uint64(above), np.uint64(threshold), np.uint64(above - width), counts
            )
        place, larger = _threshold_place(counts[::-1], wanted)
        wanted -= larger
        threshold, above = threshold << width | (2**width - 1 - place), above - width
    for (bits, open_), mask in zip(layers, kept, strict=True):
        wanted = kernels.mark_largest(bits, open_, magnitude, kind(threshold), wanted, mask.view(np.uint8))


def counts_of_largest(read: Callable[[], Iterable[tuple[Array, Mask]]], wanted: int, itemsize: int) -> list[int]:
    """Return how many of the `wanted` largest free weights of all tensors are in each; the first ones among equals.

    The tensors are read one at a time, as often as their keys have digits.

    Parameters
    ----------
    read : callable
        ``read()`` yields the flat weights of each tensor, of one type, and which of them are free.
    wanted : int
        At most as many as are free.
    itemsize : int
        Bytes of a weight.
    """
    from topobounds._kernels import selection as kernels  # noqa: PLC0415 (loads numba)

    if not wanted:
        return [0 for _ in read()]
    kind = np.dtype(f"u{itemsize}").type
    magnitude = kind(MAGNITUDE_BITS[itemsize])
    prefix, above = 0, 8 * itemsize - 1
    kept: list[int] = []
    while above:
        width = min(_DIGIT, above)
        found = []
        for weights, open_ in read():
            counts = np.zeros(2**width, np.int64)
            shift = np.uint64(above - width)
            kernels.count_digits(
                weights.view(kind), open_.view(np.uint8), magnitude, np.uint64(above), np.uint64(prefix), shift, counts
            )
            found.append(counts[::-1])  # the highest digit first
        place, larger = _threshold_place(np.sum(found, axis=0), wanted)
        wanted -= larger
        kept = [
            before + int(counts[:place].sum()) for before, counts in zip(kept or [0] * len(found), found, strict=True)
        ]
        prefix, above = prefix << width | (2**width - 1 - place), above - width
    for number, counts in enumerate(found):
        ties = min(wanted, int(counts[place]))
        kept[number] += ties
        wanted -= ties
    return kept


def _threshold_place(counts: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """Return the digit, from the highest, in which the last wanted key lies, and how many are in higher ones."""
    larger = counts.cumsum() - counts
    place = int(np.searchsorted(larger, wanted)) - 1
    return place, int(larger[place])


RANKINGS: dict[str, Callable[[Weights, Masks, int, Masks, Entropy], None]] = {
    "magnitude": mark_largest,
    "random": mark_random,
}
"""The ways to choose so many of the free weights of flat tensors, by name; the chosen ones are marked in place."""
