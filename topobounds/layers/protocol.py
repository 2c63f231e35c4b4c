"""What every layer shape knows of its graph: how large it is, and what the paper counts of it."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard


@dataclass(frozen=True)
class PrintedCounts:
    """What the paper's closed form of eta_tau counts of one layer.

    Attributes
    ----------
    weights : int
        The numerator: edges.
    kept : int
        The denominator: edges of a spanning tree.
    components : int or None
        Connected components of the layer graph; None where the closed form presumes a connected graph and counts none.
    """

    weights: int
    kept: int
    components: int | None

    @property
    def reason(self) -> str | None:
        """Why the quotient is no compression ratio; None where it is one."""
        if self.weights >= self.kept:
            return None
        return "Below 1: the closed form presumes a connected graph, so this is no compression ratio."


class Layer(Protocol):
    """The shape of a layer: exact counts of its graph, in integers. It holds no weights.

    A new shape inherits from this class and defines the four counts without a body here; where it is the shape of one
    stored tensor, also ``weight_shape``, ``n_inputs`` and ``n_outputs``, as `TensorLayer` says.
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


class TensorLayer(Layer, Protocol):
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
