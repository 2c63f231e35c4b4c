"""What the paper counts of a layer for its compression ratio."""

from dataclasses import dataclass


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
