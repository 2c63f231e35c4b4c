"""Dense and recurrent layers, and networks of them: how much of a graph each one is.

No weights here, only shapes. The counts are exact integers.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topobounds._arguments import argument_error, integer, items
from topobounds.layers.protocol import Layer, PrintedCounts


@dataclass(frozen=True)
class Dense(Layer):
    """A dense layer: the complete bipartite graph K(m, n).

    Parameters
    ----------
    m : int
        Inputs (rows of the weight matrix), at least 1.
    n : int
        Outputs (columns), at least 1.

    Raises
    ------
    ValueError
        If `m` or `n` is no positive integer.
    """

    m: int
    n: int

    def __post_init__(self) -> None:
        """Check the shape."""
        _set_integers(self, "m", "n")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of the stored matrix."""
        return self.m, self.n

    @property
    def n_inputs(self) -> int:
        """Input neurons, m."""
        return self.m

    @property
    def n_outputs(self) -> int:
        """Output neurons, n."""
        return self.n

    @property
    def n_weights(self) -> int:
        """Stored weights, m n."""
        return self.m * self.n

    @property
    def n_edges(self) -> int:
        """Edges of the layer graph: one for every weight."""
        return self.n_weights

    @property
    def n_vertices(self) -> int:
        """Neurons, m + n."""
        return self.m + self.n

    @property
    def n_components(self) -> int:
        """Connected components: 1."""
        return 1


@dataclass(frozen=True)
class Recurrent(Layer):
    """The hidden-to-hidden matrix of a recurrent layer between two time steps: K(l, l).

    Parameters
    ----------
    hidden_size : int
        Hidden units l, at least 1.

    Raises
    ------
    ValueError
        If `hidden_size` is no positive integer.
    """

    hidden_size: int

    def __post_init__(self) -> None:
        """Check the shape."""
        _set_integers(self, "hidden_size")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of the stored matrix."""
        return self.hidden_size, self.hidden_size

    @property
    def n_inputs(self) -> int:
        """Hidden units at the first time step, l."""
        return self.hidden_size

    @property
    def n_outputs(self) -> int:
        """Hidden units at the second time step, l."""
        return self.hidden_size

    @property
    def n_weights(self) -> int:
        """Stored weights, l^2."""
        return self.hidden_size**2

    @property
    def n_edges(self) -> int:
        """Edges of the layer graph: one for every weight."""
        return self.n_weights

    @property
    def n_vertices(self) -> int:
        """Neurons at the two time steps, 2 l."""
        return 2 * self.hidden_size

    @property
    def n_components(self) -> int:
        """Connected components: 1."""
        return 1


@dataclass(frozen=True)
class Unrolled(Layer):
    """A recurrent layer unrolled over T time steps, its neurons shared by consecutive steps.

    Neurons: the inputs of steps 1 .. T and the hidden units of steps 0 .. T. The hidden units of step t are joined to
    the inputs of step t and to the hidden units of step t - 1. The gates of a unit are read as that unit: each stored
    weight makes one edge per step, and the `gates` weights between the same two units make parallel edges, which count
    as one. With ``steps=1`` and no input this is `Recurrent`.

    Parameters
    ----------
    hidden_size : int
        Hidden units l, at least 1.
    steps : int
        Time steps T, at least 1.
    input_size : int
        Inputs d per step, at least 0; 0 leaves the inputs out.
    gates : int
        1 for a vanilla cell, 3 for a GRU, 4 for an LSTM.

    Raises
    ------
    ValueError
        If an argument is no integer of its range.

    Examples
    --------
    >>> layer = Unrolled(hidden_size=128, steps=28, input_size=28, gates=4)
    >>> layer.n_weights, layer.n_edges, layer.n_vertices
    (79872, 559104, 4496)
    """

    hidden_size: int
    steps: int
    input_size: int = 0
    gates: int = 1

    def __post_init__(self) -> None:
        """Check the shape."""
        object.__setattr__(self, "input_size", integer("input_size", self.input_size, 0))
        _set_integers(self, "hidden_size", "steps", "gates")

    @property
    def n_weights(self) -> int:
        """Stored weights, gates l (l + d)."""
        return self.gates * self.hidden_size * (self.hidden_size + self.input_size)

    @property
    def n_edges(self) -> int:
        """Pairs of neurons that are joined, T l (l + d)."""
        return self.steps * self.hidden_size * (self.hidden_size + self.input_size)

    @property
    def n_vertices(self) -> int:
        """Neurons of all steps, (T + 1) l + T d."""
        return self.hidden_size + self.steps * (self.hidden_size + self.input_size)

    @property
    def n_components(self) -> int:
        """Connected components: 1."""
        return 1


@dataclass(frozen=True)
class Network(Layer):
    """Dense layers that share their neurons: the stratified graph of a whole network.

    Parameters
    ----------
    connections : sequence of (Dense, source, target)
        Each layer with the names of the groups of neurons it reads and feeds; a name is anything hashable. Layers that
        name one group share its neurons: an identity skip adds a layer's output to a group, so both are one name. A
        layer with weights of its own on a skip is one more connection. Source and target may be one group (a
        recurrent layer that is not unrolled); its diagonal joins nothing.

    Raises
    ------
    ValueError
        If there is no connection, one is no such triple, or a group has two sizes.

    Examples
    --------
    >>> network = Network([(Dense(784, 300), 0, 1), (Dense(300, 100), 1, 2), (Dense(100, 10), 2, 3)])
    >>> network.n_weights, network.n_vertices, network.n_components
    (266200, 1194, 1)
    """

    connections: tuple[tuple[Dense, Hashable, Hashable], ...]

    def __post_init__(self) -> None:
        """Check that the groups fit."""
        given = tuple(items("connections", self.connections, "(Dense, source, target)"))
        if not given or not all(map(_is_connection, given)):
            raise argument_error("connections", "a non-empty sequence of (Dense, source, target)", self.connections)
        object.__setattr__(self, "connections", given)
        sizes = self.sizes
        for place, (layer, source, target) in enumerate(given):
            for group, size in ((source, layer.m), (target, layer.n)):
                if sizes[group] != size:
                    rule = f"of one size per group: layer {place} has {size} neurons in {group!r}, which has"
                    raise argument_error("connections", f"{rule} {sizes[group]}", layer)

    @cached_property
    def sizes(self) -> dict[Hashable, int]:
        """Neurons of each group, groups in the order in which they are first named."""
        sizes: dict[Hashable, int] = {}
        for layer, source, target in self.connections:
            sizes.setdefault(source, layer.m)
            sizes.setdefault(target, layer.n)
        return sizes

    @property
    def n_weights(self) -> int:
        """Stored weights of all layers."""
        return sum(layer.n_weights for layer, _, _ in self.connections)

    @property
    def n_edges(self) -> int:
        """Edges of the graph: one for every weight, parallel ones and the diagonals of recurrent layers included."""
        return self.n_weights

    @property
    def n_vertices(self) -> int:
        """Neurons, each group counted once."""
        return sum(self.sizes.values())

    @property
    def n_components(self) -> int:
        """Connected components: groups that no chain of layers links."""
        component = {group: group for group in self.sizes}
        for _, source, target in self.connections:
            old, new = component[source], component[target]
            component = {group: new if c == old else c for group, c in component.items()}
        return len(set(component.values()))

    @property
    def printed_counts(self) -> PrintedCounts:
        """What the paper's closed form counts: the edges, and those of a spanning tree of a connected network."""
        return PrintedCounts(self.n_edges, self.n_vertices - 1, None)


def _is_connection(given: object) -> bool:
    """Whether it is a layer with the names of two groups."""
    if not isinstance(given, list | tuple) or len(given) != 3:
        return False
    try:
        hash(tuple(given[1:]))
    except TypeError:
        return False
    return isinstance(given[0], Dense)


def _set_integers(layer: Any, *names: str) -> None:
    for name in names:
        object.__setattr__(layer, name, integer(name, getattr(layer, name), 1))
