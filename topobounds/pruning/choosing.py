"""The mask of one tensor of a file that is pruned, and what that leaves of its topology; here or in a worker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from topobounds._parallel import in_threads
from topobounds._types import Array, Mask
from topobounds.pruning.exchanges import Exchange, exchange
from topobounds.pruning.expected_swaps import ZEROS_UNKNOWN, ExpectedSwaps, expected_swaps
from topobounds.pruning.masks import MaskRequest, kept_masks, redrawn_mask
from topobounds.pruning.methods import METHODS, Method, pruning_method
from topobounds.pruning.prunable import Prunable
from topobounds.pruning.survey import Places, Surveyed, checksum_of, signature
from topobounds.topology.layer_topology import layer_topology
from topobounds.topology.persistence import PersistenceDiagram
from topobounds.weights import count_non_zero, non_zero, weight_array

_CHUNK = 2**20  # weights for one call: they stay in the cache


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of a tensor.

    Attributes
    ----------
    tensor : Surveyed
        The tensor.
    count : int
        Weights that are left.
    method : str
        Which ones.
    entropy : tuple of int or None
        Seed of a method that is random.
    """

    tensor: Surveyed
    count: int
    method: str
    entropy: tuple[int, int] | None

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self.tensor.layer.name


@dataclass(frozen=True, eq=False)
class Chosen:
    """The mask of a tensor, and what it leaves of the topology.

    Attributes
    ----------
    packed : ndarray of uint8
        The mask, eight weights a byte.
    exchange : Exchange or None
        What T-IMP's mask costs; None for other methods.
    expected_swaps : ExpectedSwaps
        What it would cost by chance, or why that is not known.
    neural_persistence : float
        Of the weights that are left, as `Surveyed` has it of all.
    preserved : bool
        Whether their diagrams are those of all, bit for bit.
    checksum : int or None
        As of `Surveyed`.
    """

    packed: NDArray[np.uint8]
    exchange: Exchange | None
    expected_swaps: ExpectedSwaps
    neural_persistence: float
    preserved: bool
    checksum: int | None = None

    def mask(self, shape: tuple[int, ...]) -> Mask:
        """Return the mask."""
        return np.unpackbits(self.packed, count=int(np.prod(shape))).reshape(shape).view(np.bool_)


class Rooms:
    """Memory for the arrays of one tensor after the other: to get new memory takes longer than to fill it."""

    def __init__(self) -> None:
        self._rooms: dict[str, NDArray[np.uint8]] = {}

    def array(self, use: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array with any content, in the place of what an earlier call with the same use returned."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        room = self._rooms.get(use)
        if room is None or room.size < n_bytes:
            room = self._rooms[use] = np.empty(n_bytes, np.uint8)
        found: Array = room[:n_bytes].view(dtype).reshape(shape)
        return found

    def mask(self, use: str, shape: tuple[int, ...]) -> Mask:
        """Return a mask likewise."""
        return self.array(use, shape, np.bool_)


def choose(asked: Asked, array: Array, scores: Array | None, rooms: Rooms) -> tuple[Mask, Array, Chosen]:
    """Return the mask of a tensor, the tensor with the pruned weights zero, and the record of it, without the mask.

    Mask and tensor lie in `rooms`, and are overwritten when these are used for the next one.
    """
    method, tensor = pruning_method(asked.method), asked.tensor
    weights = weight_array(array if scores is None else scores)
    group = _prunable(tensor, method, weights, array, rooms)
    mask = _mask(group, asked.count, method, asked.entropy, rooms.mask("kept", array.shape))
    cost = None
    if method is METHODS["t-imp"]:
        cost = exchange(group, asked.count, mask, room=group.protected)  # which nothing reads any more
    by_chance = _expected_swaps(group, asked.count, method, cost, scored=scores is not None)
    del group
    new = zeroed(array, mask, rooms)
    after = None
    if mask.any():
        ranked, support = (weight_array(new), None) if scores is None else (weights, mask)
        after = layer_topology(tensor.layer, ranked, support)
    chosen = Chosen(
        packed=np.empty(0, np.uint8),
        exchange=cost,
        expected_swaps=by_chance,
        neural_persistence=0.0 if after is None else after.neural_persistence,
        preserved=after is not None and _are_equal(tensor.diagrams, after.diagrams),
    )
    return mask, new, chosen


def choose_at(places: Places, asked: Asked) -> Chosen:
    """Do the same in another process, which opens the files itself and sends the mask back."""
    with places.opened() as files:
        array, scores = files.read(asked.name)
        mask, _, chosen = choose(asked, array, scores, Rooms())
        return replace(chosen, packed=np.packbits(mask), checksum=checksum_of(array, scores))


def _mask(group: Prunable, count: int, method: Method, entropy: tuple[int, int] | None, out: Mask) -> Mask:
    if method.counts_of:
        return redrawn_mask(group, _of_count(group.weights.shape, count), method, entropy)
    (mask,) = kept_masks([group], MaskRequest("count", count, count), method, entropy=entropy, out=[out])
    return mask


def _prunable(tensor: Surveyed, method: Method, weights: Array, array: Array, rooms: Rooms) -> Prunable:
    protected = rooms.mask("protected", array.shape)
    protected.fill(False)
    if method.counted_by.protects:
        protected.reshape(-1)[tensor.critical] = True
    survivors = non_zero(array, out=rooms.mask("survivors", array.shape))
    return Prunable(weights, survivors, protected, (tensor.layer,))


def _expected_swaps(
    group: Prunable, count: int, method: Method, cost: Exchange | None, *, scored: bool
) -> ExpectedSwaps:
    if method is not METHODS["t-imp"]:
        return ExpectedSwaps(reason="what is swapped and lost is counted for t-imp")
    if scored and count_non_zero(group.weights) < group.weights.size:
        return ExpectedSwaps(reason=ZEROS_UNKNOWN)
    if cost is None:
        return expected_swaps(group, count)
    return expected_swaps(group, count, cost.swaps, group.protected)  # which `exchange` has made magnitude's mask


def _are_equal(before: Sequence[tuple[Any, ...]], after: Sequence[PersistenceDiagram]) -> bool:
    """Whether diagrams are, bit for bit, what these signatures tell."""
    pairs = zip(before, map(signature, after), strict=True)
    return all(np.array_equal(old[0], new[0]) and old[1:] == new[1:] for old, new in pairs)


def _of_count(shape: tuple[int, ...], count: int) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask.reshape(-1)[:count] = True
    return mask


def zeroed(array: Array, mask: Mask, rooms: Rooms) -> Array:
    """Return an array in `rooms`, with +0 where the mask is False, the bits of the others as they are."""
    bits, kept = np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}"), mask.reshape(-1)
    new = rooms.array("new", bits.shape, bits.dtype)

    def fill(start: int) -> None:
        part = slice(start, start + _CHUNK)
        np.multiply(bits[part], kept[part], out=new[part], dtype=bits.dtype)

    in_threads(fill, range(0, bits.size, _CHUNK))
    return new.view(array.dtype).reshape(array.shape)
