"""Kernels whose weights come in uniformly random order: what is expected of their critical weights, exactly.

Sums over subsets of the weights, and of the channels. Statements and proofs: docs/theory/convolutions.md. Which
weights are critical: `topobounds.critical_kernel_weights`.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from topobounds._arguments import argument_error, choice, integer
from topobounds._types import Integers
from topobounds.layers import Axis, Conv
from topobounds.layers.convolution import checked_conv
from topobounds.layers.shape import Shape
from topobounds.theory.counting import exact_expected_overlap_of

_MOST_WEIGHTS = 25  # of a group, where all their subsets are summed over
MOST_CLOSED_SETS = 2**16  # that are kept: every subset of 16 weights; some seconds
_MOST_NEURONS = 2**19  # of a group,
_MOST_LABELS = 2**25  # and times closed sets; 256 megabytes
_FEW_EDGES = 16  # that are added one by one

State = TypeVar("State")


def exact_expected_critical_weights(conv: Conv) -> Fraction:
    """Return the expected number of critical weights of a kernel whose weights come in uniformly random order, exactly.

    With T the weights of a group that read a real cell, ::

        E = groups sum_S (number of weights outside S that merge components after S) / (T C(T - 1, |S|))

    over the proper subsets S of these weights. Subsets after which the same weights would merge nothing have the same
    components, and are counted together.

    Parameters
    ----------
    conv : Conv
        A geometry with at most 25 weights per group, which is meant for one channel per group (depthwise). A 3 x 3
        kernel takes 0.1 to 1 s up to 224 x 224 cells, a 5 x 5 kernel some seconds on small maps.

    Returns
    -------
    Fraction
        0 where every tap reads padding only.

    Raises
    ------
    ValueError
        If `conv` is no Conv, or a group has more than 25 weights or 2^19 neurons, or its weights have more than 2^16
        subsets that differ in their components, or, times the neurons of the group, more than 2^25.

    See Also
    --------
    topobounds.expected_critical_weights : Simulates where this is out of reach.

    Notes
    -----
    Proof: docs/theory/convolutions.md, "The expectation, exactly".

    Examples
    --------
    >>> exact_expected_critical_weights(Conv(1, 1, (3, 3), (8, 8), padding=1))
    Fraction(1247, 315)
    """
    n_weights = checked_conv(conv).n_weights // conv.groups
    n_neurons = conv.n_vertices // conv.groups
    if n_weights > _MOST_WEIGHTS or n_neurons > _MOST_NEURONS:
        rule = f"a Conv with at most {_MOST_WEIGHTS} weights and {_MOST_NEURONS} neurons per group"
        raise argument_error("conv", rule, conv)
    graph = _GroupGraph(_group_edges(conv))
    if graph.cells.size == (conv.n_vertices - conv.n_components) // conv.groups:
        return Fraction(conv.groups * graph.n_weights)  # a forest: every edge merges two components
    most_states = min(MOST_CLOSED_SETS, _MOST_LABELS // n_neurons)
    mean = _mean_additions(graph.n_weights, np.arange(n_neurons), graph.merged, graph.joined_weights, most_states)
    if mean is None:
        rule = f"a Conv whose weights have fewer subsets that differ in their components, for {n_neurons} neurons"
        raise argument_error("conv", rule, conv)
    return conv.groups * mean


def coverage_constant(conv: Conv, side: str = "outputs") -> Fraction:
    """Return how many critical weights each channel of a side has when that side has far more channels than the other.

    The taps of a kernel come in uniformly random order, and those are counted at which the channel has a neuron that
    no tap before has reached: with D_t the neurons that tap t reaches, ::

        c = sum_S (number of taps t with D_t not inside the union of D_s, s in S) / (T C(T - 1, |S|))

    For a fixed number of channels on the other side, and more and more on this one, the critical weights of a kernel
    in random order, divided by the channels of this side, tend to c.

    Parameters
    ----------
    conv : Conv
        The geometry; its numbers of channels and groups play no part.
    side : {"outputs", "inputs"}
        Which side has the many channels.

    Returns
    -------
    Fraction
        From 0 (every tap reads padding only) to the number of taps.

    Raises
    ------
    ValueError
        If an argument is none of these, or more than 25 taps reach a neuron, or their subsets reach more than 2^16
        different sets of neurons.

    Notes
    -----
    Proof: docs/theory/convolutions.md, "Many channels on one side".

    Examples
    --------
    >>> coverage_constant(Conv(1, 1, (3, 3), (8, 8), padding=1))
    Fraction(349, 126)
    """
    reads_positions = (choice("side", side, ("outputs", "inputs")) == "outputs") is not checked_conv(conv).transposed
    # Neurons that the same taps reach are one: along a dimension a kernel of 3 has three kinds of them, and of pairs of
    # kinds, one along each dimension, a tap reaches those that it reaches along both.
    kinds = reduce(np.kron, [_kinds_reached(axis, reads_positions) for axis in conv.axes])
    kinds = kinds[kinds.any(axis=1)]
    if len(kinds) > _MOST_WEIGHTS:
        raise argument_error("conv", f"a Conv with at most {_MOST_WEIGHTS} taps that read a real cell", conv)
    masks = [sum(1 << kind for kind in np.flatnonzero(row).tolist()) for row in kinds]

    def reach(covered: int, tap: int) -> int:
        return covered | masks[tap]

    def covered_taps(covered: int) -> int:
        return sum(1 << tap for tap, mask in enumerate(masks) if not mask & ~covered)

    mean = _mean_additions(len(masks), 0, reach, covered_taps)
    if mean is None:
        raise argument_error("conv", "a Conv whose taps reach fewer different sets of neurons", conv)
    return mean


def expected_channel_overlap(m: int, n: int, taps: int, k: int | None = None) -> Fraction:
    """Return the expected share of a spanning tree of the channels that the k largest weights of a kernel hold.

    The channels are the graph K(m, n) with as many parallel edges as there are taps, its N = m n taps edges in
    uniformly random order. The k largest cover j pairs of channels with probability ::

        P(j) = C(m n, j) [x^k] ((1 + x)^taps - 1)^j / C(N, k)

    and are then a uniformly random set of j pairs, so that ``E = sum_j P(j) E[R_j] / (m + n - 1)`` with the E[R_j] of
    a dense layer. Equivalently: the formula of `exact_expected_overlap` with (1 + x)^taps in the place of 1 + x.

    Parameters
    ----------
    m, n : int
        Input and output channels, at least 1.
    taps : int
        Kernel weights per pair of channels, at least 1. With 1 this is `exact_expected_overlap`.
    k : int, optional
        Largest weights kept, 0 to m n taps; m + n - 1 by default.

    Returns
    -------
    Fraction
        In [0, 1].

    Raises
    ------
    ValueError
        If an argument is out of range, or the channels are too many to count (see `exact_expected_overlap`).

    Notes
    -----
    Proof: docs/theory/convolutions.md, "The channels' part of the overlap".

    Examples
    --------
    >>> expected_channel_overlap(2, 2, 9)
    Fraction(281, 357)
    """
    m, n = integer("m", m, 1), integer("n", n, 1)
    taps = integer("taps", taps, 1)
    k = m + n - 1 if k is None else integer("k", k, 0, m * n * taps)
    covered = [
        math.comb(m * n, j) * _surjections(taps, k, j) * exact_expected_overlap_of(Shape(m, n, j))
        for j in range(-(-k // taps), min(k, m * n) + 1)
    ]
    return sum(covered, Fraction(0)) / math.comb(m * n * taps, k)


def _surjections(taps: int, k: int, j: int) -> int:
    """Return [x^k] ((1 + x)^taps - 1)^j: the ways to choose k parallel edges of j pairs so that each pair has one."""
    return sum((-1) ** (j - i) * math.comb(j, i) * math.comb(i * taps, k) for i in range(j + 1))


# -- sums over subsets -----------------------------------------------------------------------------------------------


def _mean_additions(
    n_weights: int,
    empty: State,
    add: Callable[[State, int], State],
    closure: Callable[[State], int],
    most_states: int = MOST_CLOSED_SETS,
) -> Fraction | None:
    """Return how many weights, in uniformly random order, add something to those before them, on average.

    Parameters
    ----------
    n_weights : int
        How many there are.
    empty : State
        What no weight makes.
    add : callable
        Returns what a state becomes with one weight more.
    closure : callable
        Returns the weights that add nothing to a state, as bits. States of one closure are the same.
    most_states : int
        Give up, and return None, where there are more states than this.
    """
    states = {closure(empty): empty}
    # Subsets of the weights gone through so far, by closure and size.
    subsets = {closed: np.eye(1, n_weights + 1, dtype=np.int64)[0] for closed in states}
    for weight in range(n_weights):
        with_weight = {closed: counts.copy() for closed, counts in subsets.items()}
        for closed, counts in subsets.items():
            larger = closed
            if not closed >> weight & 1:
                state = add(states[closed], weight)
                larger = closure(state)
                states.setdefault(larger, state)
                if len(states) > most_states:
                    return None
            with_weight.setdefault(larger, np.zeros_like(counts))[1:] += counts[:-1]
        subsets = with_weight
    return sum((_mean_share(closed, counts, n_weights) for closed, counts in subsets.items()), Fraction(0))


def _mean_share(closed: int, counts: Integers, n_weights: int) -> Fraction:
    """Return what the subsets of one closure contribute: those of a size stand before a given weight equally often."""
    additions = n_weights - closed.bit_count()
    sizes = np.flatnonzero(counts).tolist() if additions else []
    chances = (Fraction(int(counts[size]), n_weights * math.comb(n_weights - 1, size)) for size in sizes)
    return additions * sum(chances, Fraction(0))


class _Edges(NamedTuple):
    """The edges that one weight makes, from cells to positions."""

    cells: Integers
    positions: Integers


def spatial_edges(conv: Conv) -> list[_Edges]:
    """Return the edges of one pair of channels, from cells to positions, for every tap that reads a real cell."""
    along = [[tap_edges(axis, tap) for tap in range(axis.kernel)] for axis in conv.axes]
    lengths = [(axis.size, axis.positions) for axis in conv.axes]
    edges = (_flat_edges(taps, lengths) for taps in itertools.product(*along))
    return [each for each in edges if each.cells.size]


def tap_edges(axis: Axis, tap: int) -> _Edges:
    """Return the edges of a tap along one dimension, for one channel."""
    positions = np.arange(axis.positions)
    cells = positions * axis.stride - axis.padding + tap * axis.dilation
    if axis.padding_mode != "zeros":
        return _Edges(axis.copied(cells), positions)
    real = (cells >= 0) & (cells < axis.size)
    return _Edges(cells[real], positions[real])


def _kinds_reached(axis: Axis, reads_positions: bool) -> NDArray[np.bool_]:
    """Return which taps, by row, reach which kinds of positions (or cells) along one dimension, by column."""
    reached = np.zeros((axis.kernel, axis.positions if reads_positions else axis.size), bool)
    for tap in range(axis.kernel):
        edges = tap_edges(axis, tap)
        reached[tap, edges.positions if reads_positions else edges.cells] = True
    return np.unique(reached, axis=1)


def _flat_edges(along: tuple[_Edges, ...], lengths: list[tuple[int, int]]) -> _Edges:
    """Return the edges of a tap from its edges along every dimension, numbering cells and positions row by row."""
    cells = _flat_indices([edges.cells for edges in along], [size for size, _ in lengths])
    positions = _flat_indices([edges.positions for edges in along], [count for _, count in lengths])
    return _Edges(cells, positions)


def _flat_indices(along: list[Integers], lengths: list[int]) -> Integers:
    pairs = zip(along[1:], lengths[1:], strict=True)
    return reduce(lambda outer, inner: np.add.outer(outer * inner[1], inner[0]).ravel(), pairs, along[0])


def _group_edges(conv: Conv) -> list[_Edges]:
    """Return the edges of each weight of one group, as neurons of that group: those of all cells come first."""
    positions_channels = conv.weight_shape[0] // conv.groups
    cells_channels = conv.weight_shape[1]
    n_cells = math.prod(axis.size for axis in conv.axes)
    n_positions = math.prod(conv.kernel_positions)
    spatial = spatial_edges(conv)
    return [
        _Edges(cells + second * n_cells, positions + cells_channels * n_cells + first * n_positions)
        for first in range(positions_channels)
        for second in range(cells_channels)
        for cells, positions in spatial
    ]


class _GroupGraph:
    """The layer graph of one group, its edges weight by weight; a state of it is the component of each neuron."""

    def __init__(self, edges: list[_Edges]) -> None:
        self.n_weights = len(edges)
        self.edges = edges
        self.cells = np.concatenate([np.empty(0, np.int64), *(each.cells for each in edges)])
        self.positions = np.concatenate([np.empty(0, np.int64), *(each.positions for each in edges)])
        self.starts = np.cumsum([0, *(each.cells.size for each in edges[:-1])])

    def merged(self, labels: Integers, weight: int) -> Integers:
        """Return the components after the edges of one weight more."""
        cells, positions = self.edges[weight]
        ends = np.stack([labels[cells], labels[positions]])
        ends = ends[:, ends[0] != ends[1]]
        if ends.shape[1] <= _FEW_EDGES:
            return _joined(labels, ends)
        n_labels = int(labels.max()) + 1
        joined: Any = coo_array((np.ones(ends.shape[1], np.int8), tuple(ends)), (n_labels, n_labels))
        _, components = connected_components(joined, directed=False)
        return np.asarray(components[labels], np.int64)

    def joined_weights(self, labels: Integers) -> int:
        """Return the weights, as bits, whose edges all lie within components."""
        if not self.n_weights:
            return 0
        joined = np.logical_and.reduceat(labels[self.cells] == labels[self.positions], self.starts)
        return sum(1 << weight for weight in np.flatnonzero(joined).tolist())


def _joined(labels: Integers, ends: Integers) -> Integers:
    """Return the labels after a few edges, one by one: scipy would take longer to begin."""
    merged = labels.copy()
    places = ends.copy()
    for edge in range(ends.shape[1]):
        kept, given_up = places[:, edge]
        merged[merged == given_up] = kept
        places[places == given_up] = kept
    return merged
