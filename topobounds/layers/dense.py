"""Dense layers: the complete bipartite graph on inputs and outputs. No weights here, only exact counts."""

from dataclasses import dataclass

from topobounds.layers.layer import Layer, set_integers


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
        set_integers(self, "m", "n")

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
