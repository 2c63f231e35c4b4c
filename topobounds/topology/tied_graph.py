"""Spanning forests of graphs in which one stored weight makes many edges, all at once.

Convolutions and recurrent layers unrolled in time are such graphs. Weights are taken in the total order; each adds
all its edges, and merges so many components. What it takes is linear in the stored weights, for almost all of them
are never sorted: the heaviest few go first, and then only those that may still join channels.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._kernels.tied_graph import compress, gather_candidates, join
from topobounds._types import Integers
from topobounds.topology.key_matrix import KeyMatrix
from topobounds.topology.spanning_engine import ranks_of

_SAMPLE = 8192  # levels from which it is estimated how high the heaviest are
_PIECE = 32_768  # weights that are joined at a time
_INT32_VERTICES = 2**31  # from so many on, vertices are numbered in int64


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
    firsts: NDArray[np.int32]
    seconds: NDArray[np.int32]
    first_taps: NDArray[np.int32]
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
        See `topobounds.weights.order_keys`.
    mask : ndarray of bool or None
        The support.
    zeros : {"absent", "edge"}
        Whether a weight of zero makes edges.
    """
    if zeros == "absent" and mask is None:
        return keys
    lift = keys.dtype.type(zeros == "edge")
    levels: NDArray[Any] = keys + lift  # does not overflow: keys leave the sign's bit free
    if mask is not None:
        levels[~mask] = 0
    return levels


def in_one_type(matrices: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return matrices of float16, bfloat16, float32 or float64 in one type that holds all their values exactly.

    The keys of weights of one type can be compared with one another. Nothing is copied where the types are equal.
    """
    types = {matrix.dtype for matrix in matrices}
    if len(types) == 1:
        return list(matrices)
    common = np.float64 if np.dtype(np.float64) in types else np.float32
    return [matrix.astype(common) for matrix in matrices]


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
    joined = np.ones(graph.block_starts.size - 1, np.int64)
    weights, merges = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in _batches(levels, graph, parent, joined):
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
            joined,
            limit,
            made,
        )
        critical = np.flatnonzero(made)
        weights.append(batch[critical])
        merges.append(made[critical])
        if not limit:
            break
    return np.concatenate(weights), np.concatenate(merges)


def ranks_in_order(matrix: NDArray[Any], support: NDArray[np.bool_] | None, zeros: str, indices: Integers) -> Integers:
    """Return the ranks, from 1, of weights among all of the support: one pass over them.

    Parameters
    ----------
    matrix : ndarray of float16, bfloat16, float32 or float64, two-dimensional
        All weights.
    support, zeros
        See `entry_levels`.
    indices : ndarray of int64
        Flat indices of the weights in question, in the total order.
    """
    if not indices.size:
        return np.empty(0, np.int64)
    keys = KeyMatrix.of(matrix, support, zero_edges=zeros == "edge")
    rows, cols = np.divmod(indices.astype(np.uint64), np.uint64(matrix.shape[1]))
    cells = rows << np.uint64(32) | cols
    return ranks_of(keys, keys.at(cells), cells)


def _batches(levels: NDArray[Any], graph: SharedGraph, parent: NDArray[Any], joined: Integers) -> Iterator[Integers]:
    """Yield the weights in order, a batch at a time, without those that can merge nothing any more.

    `parent` and `joined`, as in the kernel `join`, are what the batches before have made of the graph.
    """
    n_blocks = joined.size
    size = max(64, int(1.5 * n_blocks * math.log(n_blocks + 1)))  # random pairs join all blocks at (n ln n) / 2
    batch, level = _heaviest(levels, size)
    yield from _in_pieces(batch)
    while level > 1:
        whole = joined == np.diff(graph.block_starts)
        candidates = _candidates(levels, level, graph, parent, whole)
        size *= 4
        batch, level = _heaviest(levels[candidates], size)
        yield from _in_pieces(candidates[batch])


def _in_pieces(batch: Integers) -> Iterator[Integers]:
    """Yield a batch piece by piece, for one with many ties may be far longer than what it takes of it."""
    for start in range(0, batch.size, _PIECE):
        yield batch[start : start + _PIECE]


def _candidates(
    levels: NDArray[Any], below: int, graph: SharedGraph, parent: NDArray[Any], whole: NDArray[np.bool_]
) -> Integers:
    """Return the weights of levels below `below` that may still merge something, by index.

    `whole` says of each block whether all its vertices are known to lie in one component.
    """
    classes = _classes(graph, parent, whole)
    best = np.full((3, whole.size, graph.edges.starts.size - 1), -1)
    others = np.empty(levels.size, np.int64)
    n_others = gather_candidates(
        levels,
        below,
        graph.firsts,
        graph.seconds,
        graph.first_taps,
        graph.taps_per_pair,
        whole,
        classes,
        (_most_common(classes, graph.firsts), _most_common(classes, graph.seconds)),
        best,
        others,
    )
    return np.sort(np.concatenate([best[best >= 0], others[:n_others]]), kind="stable")


def _classes(graph: SharedGraph, parent: NDArray[Any], whole: NDArray[np.bool_]) -> Integers:
    """Return labels of the blocks, equal where blocks lie, vertex for vertex, in the same components.

    A whole block has the label of its component, whatever its size.
    """
    compress(parent)
    classes = parent[graph.block_starts[:-1]].astype(np.int64)
    rows: dict[bytes, int] = {}
    for block in np.flatnonzero(~whole):
        row = parent[graph.block_starts[block] : graph.block_starts[block + 1]].tobytes()
        classes[block] = graph.n_vertices + rows.setdefault(row, len(rows))
    return classes


def _most_common(classes: Integers, blocks: NDArray[np.int32]) -> int:
    """Return the class that most of the blocks belong to."""
    values, counts = np.unique(classes[np.bincount(blocks, minlength=classes.size) > 0], return_counts=True)
    return int(values[counts.argmax()])


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
    sample = levels[_sampled_places(levels.size)]
    place = _SAMPLE - 1 - math.ceil(_SAMPLE * size / levels.size)
    return np.partition(sample, place)[place]


@functools.lru_cache(64)
def _sampled_places(n_levels: int) -> NDArray[np.int64]:
    """Return where a sample is taken: kept, since the layers of a net and their trials have few lengths."""
    places: NDArray[np.int64] = np.random.default_rng(0).integers(n_levels, size=_SAMPLE)
    places.flags.writeable = False
    return places
