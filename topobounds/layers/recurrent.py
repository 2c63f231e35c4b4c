"""Recurrent layers, between two time steps and unrolled over many. No weights here, only exact counts."""

from dataclasses import dataclass

from topobounds._arguments import integer
from topobounds.layers.layer import Layer, set_integers


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
        set_integers(self, "hidden_size")

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
        set_integers(self, "hidden_size", "steps", "gates")

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
