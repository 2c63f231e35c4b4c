"""What the graph of the largest weights of a layer is still short of."""

from dataclasses import dataclass

from topobounds._records import Record


@dataclass(frozen=True)
class Deficit(Record):
    """What the graph F_k of the k largest weights is still short of: its components, by kind.

    Attributes
    ----------
    silent_inputs, silent_outputs : int
        Input and output neurons without an edge in F_k, those that have none in the whole layer included.
    fragments : int
        Components of F_k that have an edge.

    Notes
    -----
    The three add up to the components of F_k, so on a connected layer
    ``alpha - |forest ∩ top-k| = silent_inputs + silent_outputs + fragments - 1``. On any other layer the sum of its
    own three, those of k = all weights, stands in place of the 1. Proof: docs/theory/deficit.md.
    """

    silent_inputs: int
    silent_outputs: int
    fragments: int

    @property
    def n_components(self) -> int:
        """Components of F_k: the sum of the three."""
        return self.silent_inputs + self.silent_outputs + self.fragments
