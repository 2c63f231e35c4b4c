"""What every layer shape knows of its graph: how large it is, and what the paper counts of it."""

from typing import Any, Protocol, TypeGuard

from topobounds._arguments import integer
from topobounds.layers.printed_counts import PrintedCounts


class Layer(Protocol):
    """The shape of a layer: exact counts of its graph, in integers. It holds no weights.

    A new shape inherits from this class and defines the four counts without a body here; where it is the shape of one
    stored tensor, also ``weight_shape``, ``n_inputs`` and ``n_outputs``, as `SingleTensorLayer` says.
    """

    @property
    def n_weights(self) -> int:
        """Stored weights."""
        ...

    @property
    def n_edges(self) -> int:
        """Edges of the layer graph."""
        ...

    @property
    def n_vertices(self) -> int:
        """Neurons of the layer graph."""
        ...

    @property
    def n_components(self) -> int:
        """Connected components of the layer graph, neurons without an edge counted."""
        ...

    @property
    def n_critical(self) -> int | None:
        """Weights that carry the spanning forest, whatever the weights are: its edges.

        None where the number depends on the weights: those of a convolution make several edges each.
        """
        return self.n_vertices - self.n_components

    @property
    def printed_counts(self) -> PrintedCounts:
        """What the paper's closed form counts: the edges, and those of a spanning tree."""
        return PrintedCounts(self.n_edges, self.n_vertices - 1, self.n_components)


class SingleTensorLayer(Layer, Protocol):
    """The shape of a layer whose weights are one stored tensor."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the stored tensor."""
        ...

    @property
    def n_inputs(self) -> int:
        """Input neurons."""
        ...

    @property
    def n_outputs(self) -> int:
        """Output neurons."""
        ...


def is_layer(value: Any) -> TypeGuard[Layer]:
    """Return whether a value is the shape of a layer.

    Only its type is asked: the counts of a large convolution take a while.

    Examples
    --------
    >>> from topobounds.layers import Dense
    >>> is_layer(Dense(3, 2)), is_layer((3, 2)), is_layer(Dense)
    (True, False, False)
    """
    return hasattr(type(value), "printed_counts")


def set_integers(layer: Layer, *names: str) -> None:
    """Make arguments of these names positive integers, while a frozen layer is made."""
    for name in names:
        object.__setattr__(layer, name, integer(name, getattr(layer, name), 1))
