"""Effective weights: for every weight of a network, the largest threshold at which it still carries something.

A weight carries something at threshold t if it lies on a path from an input to an output of which every weight is at
least t in size. One forward and one backward pass find that threshold for all weights: see
docs/theory/effective_weights.md.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, integer, items, real
from topobounds._records import Record
from topobounds.layers import Conv
from topobounds.layers.axis import axis_edges
from topobounds.topology.persistence import PersistenceDiagram
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.weights import check_finite, weight_array, weight_matrix

Values = NDArray[Any]
Ends = tuple[Hashable, Hashable]


@dataclass(frozen=True, eq=False, repr=False)
class EffectiveWeights(Record):
    """The effective weights of a network.

    Attributes
    ----------
    weights : tuple of ndarray
        For each array of weights, in its shape: ``w_eff = min(|w|, best bottleneck from an input to its source, best
        bottleneck from its target to an output)``, the bottleneck of a path being its smallest |w|. Of a kernel, the
        largest over the edges that a weight makes. 0 where a weight is 0 or on no path.
    collapse_threshold : float
        The largest w_eff: above it no path is left. 0 for a network without a path.
    values : ndarray, falling
        The values of w_eff other than 0.
    sizes : ndarray of int64
        How many weights have each of them. A path shares its bottleneck, so ties are the rule: pruning by w_eff leaves
        no dead connection exactly at the sums ``sizes[:i].sum()``.
    """

    weights: tuple[Values, ...]
    collapse_threshold: float
    values: Values
    sizes: NDArray[np.int64]
    _network: "_Network"
    _identities: dict[int, Values]

    @property
    def n_weights(self) -> int:
        """Weights of the network, zeros included."""
        return sum(part.size for part in self.weights)

    def density(self, threshold: float) -> float:
        """Return the share of all weights that lie on a path whose weights are at least `threshold` in size.

        Parameters
        ----------
        threshold : float
            Above 0.

        Returns
        -------
        float
            In [0, 1]: the effective density of the network pruned at `threshold`.

        Raises
        ------
        ValueError
            If `threshold` is not above 0.
        """
        least = real("threshold", threshold, "a number above 0", 0.0, math.inf, open_low=True)
        return int(self.sizes[self.values >= least].sum()) / self.n_weights

    @cached_property
    def diagram(self) -> PersistenceDiagram:
        """The 0-dimensional diagram of the network's inputs and outputs, as they are joined by paths.

        All layers are one graph with the weights w_eff; a merge makes a point if both components hold an input or an
        output of the network, for inner neurons are not counted. Deaths are over `collapse_threshold`; an identity
        connection from an input to an output joins them at 1. ``shape`` is (inputs, outputs), and ``edges`` holds the
        place in `matrices` of the weight that makes each point and its flat index (of an identity: the neuron).

        Raises
        ------
        ValueError
            If the network has a convolution.
        """
        if any(layer.conv is not None for layer in self._network.layers):
            raise ValueError("The diagram of effective weights is for networks without convolutions.")
        return _diagram(self)

    def __repr__(self) -> str:
        return (
            f"EffectiveWeights(layers={len(self.weights)}, weights={self.n_weights}, values={self.values.size}, "
            f"collapse_threshold={self.collapse_threshold:.6g})"
        )


@dataclass(frozen=True, eq=False)
class EffectiveMasks(Record):
    """Masks of the weights that are largest by w_eff.

    Attributes
    ----------
    masks : tuple of ndarray of bool
        One for each array of weights, of its shape; together they keep exactly the number asked for.
    n_dead : int
        Kept weights that lie on no path of kept weights: what the last class of ties leaves when it is cut, and what
        had no path before. 0 at the sums of `EffectiveWeights.sizes`.
    """

    masks: tuple[NDArray[np.bool_], ...]
    n_dead: int


@dataclass(frozen=True, eq=False)
class _Layer:
    """One connection: |w| of its weights, None for an identity, and the groups of neurons that it joins."""

    magnitudes: Values | None
    source: Hashable
    target: Hashable
    conv: Conv | None = None


@dataclass(frozen=True, eq=False)
class _Network:
    """Connections in an order in which a group is complete before it is read, and the neurons of every group."""

    layers: tuple[_Layer, ...]
    order: tuple[int, ...]
    groups: dict[Hashable, int]

    @property
    def inputs(self) -> list[Hashable]:
        """Groups that nothing feeds."""
        fed = {layer.target for layer in self.layers}
        return [group for group in self.groups if group not in fed]

    @property
    def outputs(self) -> list[Hashable]:
        """Groups that nothing reads."""
        read = {layer.source for layer in self.layers}
        return [group for group in self.groups if group not in read]

    def with_magnitudes(self, magnitudes: Sequence[Values]) -> "_Network":
        """Return the same network with other weights."""
        left = iter(magnitudes)
        layers = [
            layer if layer.magnitudes is None else replace(layer, magnitudes=next(left) * 1.0) for layer in self.layers
        ]
        return replace(self, layers=tuple(layers))


def effective_weights(
    matrices: Sequence[ArrayLike | None],
    connections: Sequence[Ends] | None = None,
    *,
    convs: Sequence[Conv | None] | None = None,
) -> EffectiveWeights:
    """Return for every weight the largest threshold at which it lies on a path from an input to an output.

    ::

        w_eff(i, j) = min(|w_ij|, F(i), B(j)),    F(j) = max_i min(|w_ij|, F(i)),    B(i) = max_j min(|w_ij|, B(j))

    F is infinite at the inputs of the network, B at its outputs. For every t > 0, ``{w_eff >= t}`` is exactly the part
    of ``{|w| >= t}`` that lies on paths from inputs to outputs: one pass gives the effective density at every
    threshold. Time and memory are proportional to the weights (of a kernel, time to its edges).

    Parameters
    ----------
    matrices : sequence of array_like of shape (m, n)
        Real and finite, inputs by outputs (a torch weight is the transpose). None is a connection without weights: an
        identity skip, whose source and target have as many neurons.
    connections : sequence of (source, target), optional
        The names of the groups of neurons that each of `matrices` reads and feeds: any hashable. Several connections
        into one group are added up (a residual sum). The groups that nothing feeds are the inputs of the network, those
        that nothing reads its outputs. Layers in a row if left out.
    convs : sequence of Conv or None, optional
        For each of `matrices` that is a kernel, in torch's layout, its geometry. Its neurons are the cells of all
        channels, so a dense layer that reads the flattened output fits.

    Returns
    -------
    EffectiveWeights
        w_eff in the shapes of `matrices`, without those that are None; float64 if one of them is, else float32.

    Raises
    ------
    ValueError
        If an argument is not as said, sizes do not fit, or the connections have a cycle (unroll a recurrent network).

    References
    ----------
    Vysogorets & Kempe 2021 (effective sparsity); Girrbach et al. 2023 (the diagram).

    Examples
    --------
    >>> found = effective_weights([[[5.0, 1.0], [2.0, 4.0]], [[3.0], [6.0]]])
    >>> [part.tolist() for part in found.weights], found.collapse_threshold
    ([[[3.0, 1.0], [2.0, 4.0]], [[3.0], [4.0]]], 4.0)
    >>> found.density(3.0), found.sizes.tolist()
    (0.6666666666666666, [2, 2, 1, 1])
    """
    return _found(_network(matrices, connections, convs))


def effective_density(
    masks: Sequence[ArrayLike | None],
    connections: Sequence[Ends] | None = None,
    *,
    convs: Sequence[Conv | None] | None = None,
) -> float:
    """Return the share of all weights of a pruned network that lie on paths of kept weights from inputs to outputs.

    Parameters
    ----------
    masks, connections, convs
        As in `effective_weights`: masks, or weights, of which those that are not 0 are kept.

    Returns
    -------
    float
        In [0, 1], at most the density of the masks, and equal to it if no kept weight is dead.

    Raises
    ------
    ValueError
        As `effective_weights`.

    Examples
    --------
    >>> effective_density([[[1, 1], [0, 1]], [[1], [0]]])  # the second hidden neuron feeds nothing
    0.3333333333333333
    """
    kept = [None if mask is None else weight_array(mask) != 0 for mask in items("masks", masks, "masks")]
    return effective_weights(kept, connections, convs=convs).density(1.0)


def effective_masks(
    matrices: Sequence[ArrayLike | None],
    keep: int,
    connections: Sequence[Ends] | None = None,
    *,
    convs: Sequence[Conv | None] | None = None,
) -> EffectiveMasks:
    """Return masks of the `keep` weights of a network that are largest by w_eff; the count is exact.

    Ties of w_eff are kept by falling |w|, then by layer and flat index. A cut through ties may leave connections that
    are on no path any more: `EffectiveMasks.n_dead` says how many.

    Parameters
    ----------
    matrices, connections, convs
        As in `effective_weights`.
    keep : int
        Weights to keep in all layers together, 0 to all.

    Returns
    -------
    EffectiveMasks
        The masks, in the shapes of `matrices`, without those that are None.

    Raises
    ------
    ValueError
        As `effective_weights`, or if `keep` is no integer from 0 to the number of weights.

    Examples
    --------
    >>> kept = effective_masks([[[5.0, 1.0], [2.0, 4.0]], [[3.0], [6.0]]], 3)
    >>> [mask.tolist() for mask in kept.masks], kept.n_dead
    ([[[True, False], [False, True]], [[False], [True]]], 1)
    """
    network = _network(matrices, connections, convs)
    found = _found(network)
    count = integer("keep", keep, 0, found.n_weights)
    magnitudes = [layer.magnitudes for layer in network.layers if layer.magnitudes is not None]
    kept = _largest(_joined(found.weights), _joined(magnitudes), count)
    ends = np.cumsum([part.size for part in magnitudes])[:-1]
    masks = tuple(mask.reshape(part.shape) for mask, part in zip(np.split(kept, ends), magnitudes, strict=True))
    alive = _found(network.with_magnitudes(masks))
    return EffectiveMasks(masks, count - int(alive.sizes.sum()))


def _joined(parts: Sequence[Values]) -> Values:
    """Return all entries of arrays, one array after the other."""
    return np.concatenate([part.ravel() for part in parts])


def _largest(values: Values, then: Values, count: int) -> NDArray[np.bool_]:
    """Return which `count` entries are largest by `values`, ties by `then`, then by index."""
    kept = np.zeros(values.size, np.bool_)
    if count:
        bound = np.partition(values, values.size - count)[values.size - count]
        kept[values > bound] = True
        tied = np.flatnonzero(values == bound)
        kept[tied[np.argsort(-then[tied], kind="stable")[: count - int(np.count_nonzero(kept))]]] = True
    return kept


# -- the network -----------------------------------------------------------------------------------------------------


def _network(matrices: Any, connections: Any, convs: Any) -> _Network:
    given = items("matrices", matrices, "matrices")
    if all(each is None for each in given):
        raise argument_error("matrices", "a sequence with at least one matrix", matrices)
    geometries = [None] * len(given) if convs is None else items("convs", convs, "Conv or None")
    ends = [(place, place + 1) for place in range(len(given))] if connections is None else connections
    ends = [_pair(pair) for pair in items("connections", ends, "(source, target)")]
    for name, values in (("convs", geometries), ("connections", ends)):
        if len(values) != len(given):
            raise ValueError(f"Argument '{name}' must hold one entry for each of the {len(given)} matrices.")
    layers = [
        _Layer(_magnitudes(array, conv), source, target, conv)
        for array, conv, (source, target) in zip(given, geometries, ends, strict=True)
    ]
    return _Network(tuple(_of_one_type(layers)), _order(layers), _groups(layers))


def _pair(pair: Any) -> Ends:
    """Return the names of two groups, checked."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise argument_error("connections", "a sequence of (source, target)", pair)
    source, target = pair
    try:
        hash((source, target))
    except TypeError:
        raise argument_error("connections", "of names that can be hashed", pair) from None
    return source, target


def _magnitudes(weights: Any, conv: Conv | None) -> Values | None:
    """Return |w| of a connection, checked."""
    if weights is None:
        return None
    if conv is None:
        matrix = weight_matrix(weights)
        check_finite(matrix)
        return _abs(matrix)
    if not isinstance(conv, Conv):
        raise argument_error("convs", "a sequence of Conv or None", conv)
    kernel = weight_array(weights)
    if kernel.shape != conv.weight_shape:
        raise argument_error("matrices", f"of the shape {conv.weight_shape} of its Conv", kernel.shape)
    check_finite(kernel.reshape(len(kernel), -1), shape=kernel.shape)
    return _abs(kernel)


def _abs(weights: Values) -> Values:
    magnitudes: Values = np.abs(weights)
    return magnitudes


def _of_one_type(layers: Sequence[_Layer]) -> Iterator[_Layer]:
    """Yield the layers with their |w| in one type that holds them all exactly."""
    wide = any(layer.magnitudes is not None and layer.magnitudes.dtype.itemsize > 4 for layer in layers)
    for layer in layers:
        given = layer.magnitudes
        yield replace(layer, magnitudes=None if given is None else given.astype(np.float64 if wide else np.float32))


def _groups(layers: Sequence[_Layer]) -> dict[Hashable, int]:
    """Return the neurons of every group, which all its connections must agree on."""
    groups: dict[Hashable, int] = {}
    left = list(layers)
    while left:
        known = [
            layer for layer in left if layer.magnitudes is not None or {layer.source, layer.target} & groups.keys()
        ]
        if not known:
            rule = "such that every identity joins, perhaps by way of others, a group whose size a matrix gives"
            raise argument_error("connections", rule, (left[0].source, left[0].target))
        for layer in known:
            for group, size in zip((layer.source, layer.target), _neurons_at_ends(layer, groups), strict=True):
                if groups.setdefault(group, size) != size:
                    given = f"{groups[group]} and {size}"
                    raise argument_error("connections", f"such that group {group!r} has one number of neurons", given)
        left = [layer for layer in left if layer not in known]
    return groups


def _neurons_at_ends(layer: _Layer, groups: dict[Hashable, int]) -> tuple[int, int]:
    """Return how many neurons the source and the target of a connection have; of an identity, `groups` knows one."""
    if layer.conv is not None:
        return layer.conv.n_inputs, layer.conv.n_outputs
    if layer.magnitudes is not None:
        m, n = layer.magnitudes.shape
        return m, n
    size = groups[layer.source if layer.source in groups else layer.target]
    return size, size


def _order(layers: Sequence[_Layer]) -> tuple[int, ...]:
    """Return the connections in an order in which everything that feeds a group comes before what reads it."""
    waiting = dict(enumerate(layers))
    order: list[int] = []
    while waiting:
        unfinished = {layer.target for layer in waiting.values()}
        ready = [place for place, layer in waiting.items() if layer.source not in unfinished]
        if not ready:
            groups = sorted({repr(layer.source) for layer in waiting.values()})
            raise argument_error("connections", "free of cycles (unroll a recurrent network)", ", ".join(groups))
        order += ready
        waiting = {place: layer for place, layer in waiting.items() if place not in ready}
    return tuple(order)


# -- the two passes --------------------------------------------------------------------------------------------------


def _found(network: _Network) -> EffectiveWeights:
    """Return the effective weights of a network that is checked."""
    forward = _bottlenecks(network, network.inputs, forward=True)
    backward = _bottlenecks(network, network.outputs, forward=False)
    weights = tuple(
        _effective(layer.magnitudes, layer.conv, forward[layer.source], backward[layer.target])
        for layer in network.layers
        if layer.magnitudes is not None
    )
    everything = _joined(weights)
    values, sizes = np.unique(everything[everything > 0], return_counts=True)
    threshold = float(values[-1]) if values.size else 0.0
    identities = {
        place: np.minimum(forward[layer.source], backward[layer.target])
        for place, layer in enumerate(network.layers)
        if layer.magnitudes is None
    }
    return EffectiveWeights(weights, threshold, values[::-1], sizes[::-1].astype(np.int64), network, identities)


def _bottlenecks(network: _Network, starts: Sequence[Hashable], *, forward: bool) -> dict[Hashable, Values]:
    """Return the best bottleneck from the groups `starts` to every neuron; against the connections if not `forward`."""
    best: dict[Hashable, Values] = {group: np.zeros(size) for group, size in network.groups.items()}
    for group in starts:
        best[group][:] = np.inf
    for place in network.order if forward else reversed(network.order):
        layer = network.layers[place]
        start, end = (layer.source, layer.target) if forward else (layer.target, layer.source)
        np.maximum(best[end], _passed(layer, best[start], forward), out=best[end])
    return best


def _passed(layer: _Layer, best: Values, forward: bool) -> Values:
    """Return the max-min product of a connection with the bottlenecks of the neurons on one side of it."""
    if layer.magnitudes is None:
        return best
    best = best.astype(layer.magnitudes.dtype)
    if layer.conv is not None:
        return _passed_by_kernel(layer.magnitudes, layer.conv, best, forward)
    limits = best[:, None] if forward else best
    result: Values = np.minimum(layer.magnitudes, limits).max(axis=0 if forward else 1)
    return result


def _effective(magnitudes: Values, conv: Conv | None, before: Values, after: Values) -> Values:
    """Return w_eff of a connection with weights from the bottlenecks before and after it."""
    before, after = before.astype(magnitudes.dtype), after.astype(magnitudes.dtype)
    if conv is not None:
        return _effective_kernel(magnitudes, conv, before, after)
    found = np.minimum(magnitudes, before[:, None])
    return np.minimum(found, after, out=found)


# -- kernels: each weight is an edge at every position, from a cell of one channel to a position of another -----------


@dataclass(frozen=True, eq=False)
class _Edges:
    """The edges of the weights that one tap has between one channel of cells and all channels of positions it meets.

    `weights` is their place in the kernel, (first channels, second channel, tap); `channel` the channel of cells.
    """

    weights: tuple[slice, int, int]
    channel: int
    cells: NDArray[np.int64]
    positions: NDArray[np.int64]

    @property
    def channels(self) -> slice:
        """Channels of positions."""
        return self.weights[0]


def _edges(conv: Conv) -> Iterator[_Edges]:
    """Yield the edges of a convolution, tap by tap.

    The first axis of the stored kernel is the side of the positions, the second, group by group, that of the cells; a
    transposed convolution reads positions and writes cells.
    """
    n_first, n_second = conv.weight_shape[:2]
    per_group = n_first // conv.groups
    for tap, (cells, positions) in enumerate(_edges_of_taps(conv)):
        for group in range(conv.groups):
            firsts = slice(group * per_group, (group + 1) * per_group)
            for second in range(n_second):
                yield _Edges((firsts, second, tap), group * n_second + second, cells, positions)


def _edges_of_taps(conv: Conv) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return cell and position of the edges of every tap, in the flat order of the kernel's spatial axes."""
    found = [(np.zeros(1, np.int64), np.zeros(1, np.int64))]
    for axis in conv.axes:
        taps, cells, positions = axis_edges(axis)
        own = [(cells[taps == tap], positions[taps == tap]) for tap in range(axis.kernel)]
        found = [
            (np.add.outer(c * axis.size, cell).ravel(), np.add.outer(p * axis.positions, position).ravel())
            for c, p in found
            for cell, position in own
        ]
    return found


def _sides(conv: Conv) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return channels and size of the side of the cells, and of that of the positions."""
    inputs, outputs = (conv.in_channels, conv.n_inputs), (conv.out_channels, conv.n_outputs)
    (cell_channels, n_cells), (channels, n_positions) = (outputs, inputs) if conv.transposed else (inputs, outputs)
    return (cell_channels, n_cells // cell_channels), (channels, n_positions // channels)


def _passed_by_kernel(kernel: Values, conv: Conv, best: Values, forward: bool) -> Values:
    """Return the max-min product of a kernel with the bottlenecks of the neurons on one side of it."""
    kernel = kernel.reshape(*kernel.shape[:2], -1)
    cell_side, position_side = _sides(conv)
    if forward != conv.transposed:
        cells, positions = best.reshape(cell_side), np.zeros(position_side, kernel.dtype)
        for edge in _edges(conv):
            passed = np.minimum(kernel[edge.weights][:, None], cells[edge.channel, edge.cells])
            there = positions[edge.channels]
            there[:, edge.positions] = np.maximum(there[:, edge.positions], passed)
        return positions.ravel()
    cells, positions = np.zeros(cell_side, kernel.dtype), best.reshape(position_side)
    for edge in _edges(conv):
        passed = np.minimum(kernel[edge.weights][:, None], positions[edge.channels][:, edge.positions])
        np.maximum.at(cells[edge.channel], edge.cells, passed.max(axis=0))  # copied padding: one cell, many positions
    return cells.ravel()


def _effective_kernel(kernel: Values, conv: Conv, before: Values, after: Values) -> Values:
    """Return w_eff of a kernel: the largest over the edges that a weight makes, 0 if it makes none."""
    magnitudes = kernel.reshape(*kernel.shape[:2], -1)
    found = np.zeros_like(magnitudes)
    cell_side, position_side = _sides(conv)
    on_cells, on_positions = (after, before) if conv.transposed else (before, after)
    cells, positions = on_cells.reshape(cell_side), on_positions.reshape(position_side)
    for edge in _edges(conv):
        ends = np.minimum(cells[edge.channel, edge.cells], positions[edge.channels][:, edge.positions])
        found[edge.weights] = np.minimum(magnitudes[edge.weights], ends.max(axis=1, initial=0))
    return found.reshape(kernel.shape)


# -- the diagram -----------------------------------------------------------------------------------------------------


def _diagram(found: EffectiveWeights) -> PersistenceDiagram:
    """Return the diagram of the inputs and outputs: Kruskal's algorithm on the edges of the layers' forests.

    An edge of the network's forest is in the forest of its layer, for a cycle in a layer is one in the network.
    """
    network = found._network
    ends, values, edges = _forest_edges(found)
    first = dict(zip(network.groups, np.cumsum([0, *network.groups.values()]).tolist(), strict=False))
    counted = [False] * sum(network.groups.values())
    for group in {*network.inputs, *network.outputs}:
        counted[first[group] : first[group] + network.groups[group]] = [True] * network.groups[group]
    n_ends = counted.count(True)
    order = np.argsort(-values, kind="stable")
    points = [order[place] for place in _counted_merges(ends[order].tolist(), counted)]
    scale = found.collapse_threshold or 1.0
    n_inputs = sum(network.groups[group] for group in network.inputs)
    return PersistenceDiagram(
        births=np.ones(len(points)),
        deaths=np.minimum(values[points] / scale, 1.0),  # an identity from input to output has no weight to die at
        edges=edges[points],
        n_essential=n_ends - len(points),
        shape=(n_inputs, n_ends - n_inputs),
        alpha=len(points),
        w_max=found.collapse_threshold,
        backend="kruskal",
    )


def _forest_edges(found: EffectiveWeights) -> tuple[NDArray[np.int64], Values, NDArray[np.int64]]:
    """Return, for the edges of all layers' forests, the neurons they join, their w_eff, and their layer and index."""
    network = found._network
    first = dict(zip(network.groups, np.cumsum([0, *network.groups.values()]).tolist(), strict=False))
    weights = iter(found.weights)
    ends, values, edges = [], [], []
    for place, layer in enumerate(network.layers):
        if layer.magnitudes is None:
            best = found._identities[place]
            sources = targets = index = np.flatnonzero(best)
            values.append(best[index])
        else:
            forest = maximum_spanning_forest(next(weights))
            sources, targets = forest.rows, forest.cols
            index = sources * forest.shape[1] + targets
            values.append(forest.weights.astype(np.float64))
        ends.append(np.stack([sources + first[layer.source], targets + first[layer.target]], axis=1))
        edges.append(np.stack([np.full_like(index, place), index], axis=1))
    return np.concatenate(ends), np.concatenate(values), np.concatenate(edges)


def _counted_merges(ends: Sequence[Sequence[int]], counted: list[bool]) -> list[int]:
    """Return which edges, taken in order, merge two components that both hold a counted vertex.

    `counted`, modified in place, says at the root of a component whether it holds one.
    """
    parent = list(range(len(counted)))

    def root(vertex: int) -> int:
        while parent[vertex] != vertex:
            parent[vertex] = vertex = parent[parent[vertex]]
        return vertex

    merges = []
    for place, (source, target) in enumerate(ends):
        one, other = root(source), root(target)
        if one != other:
            if counted[one] and counted[other]:
                merges.append(place)
            parent[one] = other
            counted[other] = counted[one] or counted[other]
    return merges
