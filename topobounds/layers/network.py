"""Networks of dense layers that share their neurons. No weights here, only exact counts."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from topobounds._arguments import argument_error, items
from topobounds.layers.dense import Dense
from topobounds.layers.layer import Layer
from topobounds.layers.printed_counts import PrintedCounts


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
