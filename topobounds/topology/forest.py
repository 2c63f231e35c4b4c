"""What the records of spanning forests have in common: ranks, and what magnitude pruning leaves of the forest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import integer, integers
from topobounds._records import Record
from topobounds.topology.deficit import Deficit

if TYPE_CHECKING:
    from topobounds.topology.persistence import PersistenceDiagram


class Forest(Protocol):
    """A maximum spanning forest, of whatever graph: a layer, a network, a convolution, an unrolled recurrent layer."""

    @property
    def alpha(self) -> int:
        """Edges of the forest of the non-zero weights."""

    @property
    def n_components(self) -> int:
        """Components of the graph that the forest spans, isolated neurons counted."""

    @property
    def ranks(self) -> NDArray[np.int64]:
        """Position, from 1, of each weight that carries the forest among all stored weights, ascending."""

    @property
    def critical_rank(self) -> int:
        """Rank of the lightest non-zero weight that carries the forest; 0 if there is none."""

    @property
    def diagram(self) -> "PersistenceDiagram":
        """The zero-dimensional persistence diagram."""

    def overlap(self, k: int | None = None) -> float:
        """Return the share of the weights that carry the forest that is among the k largest weights."""

    def retention(self, ks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the overlap at each k."""

    def deficit(self, k: int | None = None) -> Deficit:
        """Return the silent neurons and the fragments of the graph of the k largest weights."""


class RankedForest(Record):
    """Base of the forest records: what follows from the ranks of the weights that carry the forest.

    A weight carries the forest if it makes an edge of it. In a layer or a network every edge is a weight of its own; a
    kernel weight may make many edges.
    """

    ranks: NDArray[np.int64]

    @property
    def _n_carriers(self) -> int:
        """Weights that carry the forest and are not zero; they are the first of `ranks`."""
        raise NotImplementedError

    @property
    def _n_stored(self) -> int:
        """Stored weights."""
        raise NotImplementedError

    def _deficit_of_first(self, n_carriers: int) -> Deficit:
        """Return the deficit of a graph that holds only the first so many of the weights that carry the forest."""
        raise NotImplementedError

    @property
    def critical_rank(self) -> int:
        """Rank of the lightest non-zero weight that carries the forest; 0 if there is none.

        Magnitude pruning leaves the persistence diagram as it is exactly if it keeps at least this many weights.
        """
        n_carriers = self._n_carriers
        return int(self.ranks[n_carriers - 1]) if n_carriers else 0

    def overlap(self, k: int | None = None) -> float:
        """Return the share of the weights that carry the forest that is among the k largest weights.

        In a layer or a network these are the edges: |forest ∩ top-k| / alpha.

        Parameters
        ----------
        k : int, optional
            Weights kept, 0 to all stored ones; by default as many as carry the forest: alpha (the paper's X), or, of
            shared weights, `n_critical`. Weights that are zero carry nothing here, whatever `zeros` was.

        Returns
        -------
        float
            In [0, 1]; 1.0 without non-zero weights, for an empty forest can lose nothing.

        Raises
        ------
        ValueError
            If `k` is no integer from 0 to the number of stored weights.

        Examples
        --------
        >>> from topobounds import maximum_spanning_forest
        >>> forest = maximum_spanning_forest([[3.0, 2.0], [2.5, 1.0]])
        >>> forest.overlap(2), forest.overlap()
        (0.6666666666666666, 1.0)
        """
        return float(self.retention([self._n_carriers if k is None else k])[0])

    def retention(self, ks: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the overlap at each k: the retention curve of magnitude pruning.

        Parameters
        ----------
        ks : sequence of int
            Numbers of weights kept, each from 0 to all stored ones.

        Returns
        -------
        ndarray of float64, one entry per k
            See `overlap`.

        Raises
        ------
        ValueError
            If `ks` is no sequence, or one of them no integer from 0 to the number of stored weights.
        """
        kept = integers("ks", "k", ks, 0, self._n_stored)
        n_carriers = self._n_carriers
        if not n_carriers:
            return np.ones(len(kept))
        return np.searchsorted(self.ranks[:n_carriers], kept, side="right") / n_carriers

    def deficit(self, k: int | None = None) -> Deficit:
        """Return the silent neurons and the fragments of the graph F_k of the k largest non-zero weights.

        They say what a lost forest edge is: ``alpha - |forest ∩ top-k|`` is the number of silent neurons, plus
        fragments, less one (see `Deficit`).

        Parameters
        ----------
        k : int, optional
            As in `overlap`. Above the number of non-zero weights nothing changes any more. At k = 0 every neuron is
            silent and there is no fragment.

        Returns
        -------
        Deficit
            Read off the record, in time linear in the forest: the heaviest edge of a neuron is a forest edge, for
            when it enters, the neuron is alone; so a neuron is silent exactly if its forest edges all rank after k.

        Raises
        ------
        ValueError
            If `k` is no integer from 0 to the number of stored weights.

        References
        ----------
        docs/theory/deficit.md.

        Examples
        --------
        >>> from topobounds import maximum_spanning_forest
        >>> forest = maximum_spanning_forest([[9.0, 0.0, 1.0], [8.0, 0.0, 2.0], [3.0, 7.0, 4.0]])
        >>> forest.deficit(2)
        Deficit(silent_inputs=1, silent_outputs=2, fragments=1)
        >>> forest.alpha - 2 == 1 + 2 + 1 - 1
        True
        """
        kept = self._n_carriers if k is None else integer("k", k, 0, self._n_stored)
        return self._deficit_of_first(int(np.searchsorted(self.ranks[: self._n_carriers], kept, side="right")))
