"""Which of the weights that may go are kept: the largest, or a random subset."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._engine import kernels_disabled
from topobounds._parallel import in_threads
from topobounds._types import Array, Keys, Mask
from topobounds.weights import MAGNITUDE_BITS, order_keys

_FlatWeights = list[Array]  # one flat array for each tensor
_FlatMasks = list[Mask]
_Entropy = tuple[int, int] | None

COMPILED_FROM = 2**18
"""Weights from which on compiled kernels select; four times as many where numba, half a second, is not loaded yet."""
_DIGIT = 16  # bits of a key that are counted at once: the counts stay in the cache
_CHUNK = 2**21  # weights for one call


def mark_random(weights: _FlatWeights, survivors: _FlatMasks, wanted: int, kept: _FlatMasks, entropy: _Entropy) -> None:
    """Mark a uniformly random subset of `wanted` survivors, of those not marked yet, in `kept`, modified in place."""
    places = [np.flatnonzero(_free(survivor, mask)) for survivor, mask in zip(survivors, kept, strict=True)]
    ends = np.cumsum([each.size for each in places])
    chosen = np.zeros(ends[-1], np.bool_)
    chosen[np.random.default_rng(entropy).choice(ends[-1], wanted, replace=False)] = True
    for mask, place, part in zip(kept, places, np.split(chosen, ends[:-1]), strict=True):
        mask[place] = part


def mark_largest(
    weights: _FlatWeights, survivors: _FlatMasks, wanted: int, kept: _FlatMasks, entropy: _Entropy = None
) -> None:
    """Mark the `wanted` largest survivors, of those not marked yet, in `kept`, modified in place.

    Of equal weights, those that come first in storage are taken. `entropy` is there for the signature of `mark_random`.
    """
    if not wanted:
        return
    if len({part.dtype for part in weights}) > 1:
        weights = [part.astype(np.float64) for part in weights]  # which holds the other types exactly
    compiled_from = COMPILED_FROM * (1 if "numba" in sys.modules else 4)
    if sum(part.size for part in weights) >= compiled_from and not kernels_disabled():
        _mark_by_digits(weights, survivors, wanted, kept)
        return
    free = [_free(survivor, mask) for survivor, mask in zip(survivors, kept, strict=True)]
    keys = np.concatenate([order_keys(part)[may_keep] for part, may_keep in zip(weights, free, strict=True)])
    threshold = np.partition(keys, keys.size - wanted)[keys.size - wanted]
    ties = wanted - int(np.count_nonzero(keys > threshold))
    for part, may_keep, mask in zip(weights, free, kept, strict=True):
        keys_here = order_keys(part)
        equal = np.flatnonzero(may_keep & (keys_here == threshold))[:ties]
        mask[may_keep & (keys_here > threshold)] = True
        mask[equal] = True
        ties -= equal.size


def _free(survivors: Mask, kept: Mask) -> Mask:
    return np.greater(survivors, kept)


def _mark_by_digits(weights: _FlatWeights, survivors: _FlatMasks, wanted: int, kept: _FlatMasks) -> None:
    """Do the same by counting the digits of the keys, from the highest on, with compiled kernels, on all cores."""
    from topobounds._kernels import selection as kernels  # noqa: PLC0415 (loads numba)

    kind, magnitude_bits = _key_kind(weights[0].itemsize)
    layers = zip((part.view(kind) for part in weights), survivors, kept, strict=True)
    pieces = [piece for layer in layers for piece in _pieces(*layer)]

    def counts(digit: _Digit) -> list[NDArray[np.int64]]:
        return in_threads(lambda piece: digit.counts(*piece), pieces)

    threshold, _, ties = _threshold(counts, wanted, weights[0].itemsize)

    def mark(number: int) -> None:
        bits, may_keep, mask = pieces[number]
        kept_bytes = mask.view(np.uint8)
        kernels.mark_largest(bits, may_keep.view(np.uint8), magnitude_bits, kind(threshold), ties[number], kept_bytes)

    in_threads(mark, range(len(pieces)))


def counts_of_largest(read: Callable[[], Iterable[tuple[Array, Mask, Mask]]], wanted: int, itemsize: int) -> list[int]:
    """Return how many of the `wanted` largest of some weights are in each tensor; the first ones among equals.

    The tensors are read one at a time, as often as their keys have digits.

    Parameters
    ----------
    read : callable
        ``read()`` yields the flat weights of each tensor, of one type, which of them survive, and which of these do not
        count, for they are kept.
    wanted : int
        At most as many as count.
    itemsize : int
        Bytes of a weight.
    """
    if not wanted:
        return [0 for _ in read()]
    kind, _ = _key_kind(itemsize)

    def counts(digit: _Digit) -> list[NDArray[np.int64]]:
        return [digit.all_counts(weights.view(kind), survivors, kept) for weights, survivors, kept in read()]

    _, larger, ties = _threshold(counts, wanted, itemsize)
    return [above + equal for above, equal in zip(larger, ties, strict=True)]


@dataclass(frozen=True)
class _Digit:
    """A digit of those keys whose bits from `above` up are `prefix`: the next `width` bits."""

    above: int
    prefix: int
    width: int

    def counts(self, bits: Keys, survivors: Mask, kept: Mask) -> NDArray[np.int64]:
        """Return how many keys that survive and are not kept yet have each digit, the highest first."""
        from topobounds._kernels import selection as kernels  # noqa: PLC0415 (loads numba)

        found = np.zeros(2**self.width, np.int64)
        above, prefix, shift = np.uint64(self.above), np.uint64(self.prefix), np.uint64(self.above - self.width)
        masks = survivors.view(np.uint8), kept.view(np.uint8)
        kernels.count_digits(bits, *masks, _key_kind(bits.itemsize)[1], above, prefix, shift, found)
        return found[::-1]

    def all_counts(self, bits: Keys, survivors: Mask, kept: Mask) -> NDArray[np.int64]:
        """Do the same of many keys, on all cores."""
        found = in_threads(lambda piece: self.counts(*piece), _pieces(bits, survivors, kept))
        total: NDArray[np.int64] = np.sum(found, axis=0)
        return total


def _pieces(bits: Keys, survivors: Mask, kept: Mask) -> list[tuple[Keys, Mask, Mask]]:
    parts = [slice(start, start + _CHUNK) for start in range(0, max(bits.size, 1), _CHUNK)]
    return [(bits[part], survivors[part], kept[part]) for part in parts]


def _threshold(
    counts: Callable[[_Digit], list[NDArray[np.int64]]], wanted: int, itemsize: int
) -> tuple[int, list[int], list[int]]:
    """Return the least of the `wanted` largest keys, and how many in each piece are above it and equal to it.

    Parameters
    ----------
    counts : callable
        ``counts(digit)`` returns, for each piece, how many of its keys have each digit, the highest first.
    wanted : int
        At most as many as there are; at least 1.
    itemsize : int
        Bytes of a key.

    Returns
    -------
    threshold : int
        A key.
    larger, ties : list of int
        For each piece; together they are `wanted`, the ties being those of the first pieces.
    """
    threshold, above = 0, 8 * itemsize - 1
    larger: list[int] = []
    while above:
        digit = _Digit(above, threshold, min(_DIGIT, above))
        found = counts(digit)
        before = np.sum(found, axis=0).cumsum()
        place = int(np.searchsorted(before, wanted))
        more = [int(each[:place].sum()) for each in found]
        larger = [old + new for old, new in zip(larger or [0] * len(found), more, strict=True)]
        wanted -= sum(more)
        threshold, above = threshold << digit.width | (2**digit.width - 1 - place), above - digit.width
    equal = np.array([int(each[place]) for each in found])
    ties = np.clip(wanted - (equal.cumsum() - equal), 0, equal)
    return threshold, larger, ties.tolist()


def _key_kind(itemsize: int) -> tuple[Any, Any]:
    """Return the type of keys, and which of their bits sort as |w| does."""
    kind = np.dtype(f"u{itemsize}").type
    return kind, kind(MAGNITUDE_BITS[itemsize])


RANKINGS: dict[str, Callable[[_FlatWeights, _FlatMasks, int, _FlatMasks, _Entropy], None]] = {
    "magnitude": mark_largest,
    "random": mark_random,
}
"""The ways to choose so many of the survivors of flat tensors that are not kept yet, by name; these are marked."""
