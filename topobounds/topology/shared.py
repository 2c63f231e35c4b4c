"""Spanning forests of graphs in which one stored weight makes many edges, all at once.

Convolutions and recurrent layers unrolled in time are such graphs. Weights are taken in the total order; each adds
all its edges, and merges so many components. What it takes is linear in the stored weights, for almost all of them
are never sorted: the heaviest few go first, and then only weights between channels that are not yet one component.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels.convolution import join, label_whole_blocks

Integers = NDArray[np.int64]

_SAMPLE = 8192
_INT32_VERTICES = 2**31


@dataclass(frozen=True, eq=False)
class TapEdges:
    """The edges each tap makes between a first and a second block, as positions within the blocks.

    Those of tap t are the entries ``starts[t] .. starts[t + 1] - 1`` of `firsts` and `seconds`.
    """

    starts: Integers
    firsts: Integers
    seconds: Integers


@dataclass(frozen=True, eq=False)
class SharedGraph:
    """Blocks of vertices, and the stored weights that join pairs of them.

    Attributes
    ----------
    block_starts : ndarray
        Block b holds the vertices ``block_starts[b] .. block_starts[b + 1] - 1``.
    firsts, seconds : ndarray
        The two blocks of each pair. Weights are stored pair by pair, `taps_per_pair` of them for each.
    first_taps : ndarray
        The tap of the first weight of each pair; the next has the next tap.
    taps_per_pair : int
        Weights of a pair.
    edges : TapEdges
        What the taps join.
    """

    block_starts: Integers
    firsts: Integers
    seconds: Integers
    first_taps: Integers
    taps_per_pair: int
    edges: TapEdges

    @property
    def n_vertices(self) -> int:
        """Vertices of all blocks."""
        return int(self.block_starts[-1])


def entry_levels(keys: NDArray[Any], mask: NDArray[np.bool_] | None, zeros: str) -> NDArray[Any]:
    """Return levels that order weights as their keys do, with 0 for a weight that makes no edge.

    Parameters
    ----------
    keys : ndarray of unsigned integers
        See `topobounds.topology.filtration.order_keys`.
    mask : ndarray of bool or None
        The support.
    zeros : {"absent", "edge"}
        Whether a weight of zero makes edges.
    """
    if zeros == "absent" and mask is None:
        return keys
    levels: NDArray[Any] = keys + keys.dtype.type(
        zeros == "edge"
    )  # no overflow: the largest key of a finite weight is not the largest integer
    if mask is not None:
        levels[~mask] = 0
    return levels


def critical_weights(levels: NDArray[Any], graph: SharedGraph, limit: int) -> tuple[Integers, Integers]:
    """Return the weights that merge components, taken by descending level, then index, and how many each merges.

    Parameters
    ----------
    levels : ndarray of unsigned integers, one entry per weight
        See `entry_levels`.
    graph : SharedGraph
        What the weights join.
    limit : int
        The merges that all weights together can make.

    Returns
    -------
    weights, merges : ndarray of int64
        Indices of the critical weights in order of entry, and their merges, whose sum is the number of edges of the
        spanning forest.
    """
    vertex = np.int32 if graph.n_vertices < _INT32_VERTICES else np.int64
    parent = np.arange(graph.n_vertices, dtype=vertex)
    whole = np.diff(graph.block_starts) == 1
    weights, merges = [], []
    for batch in _batches(levels, graph, parent, whole):
        made = np.zeros(batch.size, np.int64)
        pairs, taps = np.divmod(batch, graph.taps_per_pair)
        limit -= join(
            graph.firsts[pairs],
            graph.seconds[pairs],
            taps + graph.first_taps[pairs],
            graph.block_starts,
            graph.edges.starts,
            graph.edges.firsts,
            graph.edges.seconds,
            parent,
            whole,
            limit,
            made,
        )
        critical = np.flatnonzero(made)
        weights.append(batch[critical])
        merges.append(made[critical])
        if not limit:
            break
    return np.concatenate(weights), np.concatenate(merges)


def _batches(
    levels: NDArray[Any], graph: SharedGraph, parent: NDArray[Any], whole: NDArray[np.bool_]
) -> Iterator[Integers]:
    """Yield the weights in order, a batch at a time, without those that can merge nothing any more.

    `parent` and `whole` are what the batches before have made of the graph.
    """
    n_blocks = whole.size
    size = max(64, int(1.5 * n_blocks * math.log(n_blocks + 1)))
    batch, level = _heaviest(levels, size)
    yield batch
    by_pair = levels.reshape(-1, graph.taps_per_pair)
    pairs = np.arange(len(by_pair))
    while level > 1:
        pairs = pairs[_open(pairs, graph, parent, whole)]
        left = by_pair[pairs]
        rows, taps = np.nonzero((left < level) & (left > 0))
        size *= 4
        batch, level = _heaviest(left[rows, taps], size)
        yield pairs[rows[batch]] * graph.taps_per_pair + taps[batch]


def _open(pairs: Integers, graph: SharedGraph, parent: NDArray[Any], whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pairs of blocks are not in one component as yet."""
    labels = np.empty(whole.size, np.int64)
    label_whole_blocks(graph.block_starts, parent, whole, labels)
    first = labels[graph.firsts[pairs]]
    still: NDArray[np.bool_] = (first < 0) | (first != labels[graph.seconds[pairs]])
    return still


def _heaviest(levels: NDArray[Any], size: int) -> tuple[Integers, int]:
    """Return about `size` of the highest levels in order, ties by index, and the lowest level among them.

    That level is there with all its ties, and is 1 or less if nothing is left; levels of 0 are none.
    """
    level = _estimated_level(levels, size)
    above = np.flatnonzero(levels > level)
    batch = above[np.argsort(~levels[above], kind="stable")]
    if level:
        batch = np.concatenate([batch, np.flatnonzero(levels == level)])
    return batch, int(level)


def _estimated_level(levels: NDArray[Any], size: int) -> Any:
    """Return the level that about `size` of the levels reach, by a sample; 0 if there are few more than that."""
    if levels.size <= 2 * size:
        return levels.dtype.type(0)
    sample = levels[np.random.default_rng(0).integers(levels.size, size=_SAMPLE)]
    place = _SAMPLE - 1 - math.ceil(_SAMPLE * size / levels.size)
    return np.partition(sample, place)[place]
