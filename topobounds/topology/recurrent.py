"""Recurrent layers: vanilla, GRU and LSTM cells, gate by gate, stacked, and unrolled in time.

Matrices are laid out as in torch, gates one below the other: ``weight_ih`` (gates l, d) and ``weight_hh`` (gates l, l)
for d inputs and l hidden units; rows are gate units, columns what they read.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, choice
from topobounds._types import Zeros
from topobounds.layers import Unrolled
from topobounds.topology import tied_graph
from topobounds.topology.deficit import Deficit
from topobounds.topology.forest import RankedForest
from topobounds.topology.persistence import PersistenceDiagram, persistence_diagram
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.weights import check_finite, order_keys, weight_matrix

Cell = Literal["rnn", "gru", "lstm"]
GATES: dict[str, tuple[str, ...]] = {"rnn": ("h",), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}


def recurrent_matrices(weight_ih: ArrayLike, weight_hh: ArrayLike, cell: Cell = "rnn") -> dict[str, NDArray[Any]]:
    """Return the matrices of a recurrent layer, stacked and gate by gate.

    Parameters
    ----------
    weight_ih : array_like of shape (gates l, d)
        From inputs to hidden units, as torch stores it (``weight_ih_l0``).
    weight_hh : array_like of shape (gates l, l)
        From hidden units to hidden units (``weight_hh_l0``).
    cell : {"rnn", "gru", "lstm"}
        One gate (h), three (r, z, n) or four (i, f, g, o), in torch's order.

    Returns
    -------
    dict of str to ndarray
        ``ih`` and ``hh``, in which every gate unit is a neuron; and, where there is more than one gate, ``ih_i``,
        ``hh_i`` and so on: views, one K(d, l) and one K(l, l) for every gate.

    Raises
    ------
    ValueError
        If a matrix is none (see `weight_matrix`) or the shapes do not fit each other and the cell.

    Examples
    --------
    >>> list(recurrent_matrices(np.ones((6, 5)), np.ones((6, 2)), "gru"))
    ['ih', 'hh', 'ih_r', 'hh_r', 'ih_z', 'hh_z', 'ih_n', 'hh_n']
    """
    gates = GATES[choice("cell", cell, tuple(GATES))]
    hidden = _hidden_matrix(weight_hh, gates)
    matrices = {"ih": _input_matrix(weight_ih, hidden), "hh": hidden}
    size = hidden.shape[1]
    parts = {
        f"{name}_{gate}": matrix[place * size : (place + 1) * size]
        for place, gate in enumerate(gates)
        for name, matrix in matrices.items()
    }
    return matrices if len(gates) == 1 else matrices | parts


def recurrent_forests(
    weight_ih: ArrayLike, weight_hh: ArrayLike, cell: Cell = "rnn", *, zeros: Zeros = "absent"
) -> dict[str, SpanningForest]:
    """Return the maximum spanning forest of each matrix of a recurrent layer, stacked and gate by gate.

    Parameters
    ----------
    weight_ih, weight_hh, cell
        As in `recurrent_matrices`.
    zeros : {"absent", "edge"}
        As in `maximum_spanning_forest`.

    Returns
    -------
    dict of str to SpanningForest
        By the names of `recurrent_matrices`.

    Raises
    ------
    ValueError
        As `recurrent_matrices` and `maximum_spanning_forest`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> forests = recurrent_forests(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)), "lstm")
    >>> {name: forest.alpha for name, forest in forests.items() if name in ("ih", "hh", "ih_i", "hh_i")}
    {'ih': 10, 'hh': 9, 'ih_i': 4, 'hh_i': 3}
    """
    matrices = recurrent_matrices(weight_ih, weight_hh, cell)
    return {name: maximum_spanning_forest(matrix, zeros=zeros) for name, matrix in matrices.items()}


def recurrent_diagrams(
    weight_ih: ArrayLike, weight_hh: ArrayLike, cell: Cell = "rnn", *, zeros: Zeros = "absent"
) -> dict[str, PersistenceDiagram]:
    """Return the persistence diagram of each matrix of a recurrent layer, each normalised by its own largest weight.

    Parameters
    ----------
    weight_ih, weight_hh, cell, zeros
        As in `recurrent_forests`.

    Returns
    -------
    dict of str to PersistenceDiagram
        By the names of `recurrent_matrices`.

    Raises
    ------
    ValueError
        As `recurrent_forests`.

    Examples
    --------
    >>> diagrams = recurrent_diagrams([[4.0], [2.0]], [[1.0, -2.0], [0.5, 1.0]])
    >>> diagrams["hh"].deaths.tolist()
    [1.0, 0.5, 0.5]
    """
    matrices = recurrent_matrices(weight_ih, weight_hh, cell)
    return {name: persistence_diagram(matrix, zeros=zeros) for name, matrix in matrices.items()}


@dataclass(frozen=True, eq=False, repr=False)
class UnrolledForest(RankedForest):
    """The maximum spanning forest of a recurrent layer unrolled in time, by the stored weights that carry it.

    Attributes
    ----------
    layer : Unrolled
        The geometry, with the closed-form counts.
    hidden : ndarray of bool, one entry per critical weight
        True where the weight is one of ``weight_hh``, False where of ``weight_ih``. In order of entry: descending
        |w|, ties by matrix (``weight_ih`` first), then flat index.
    rows, cols : ndarray of int64, one entry per critical weight
        Its place in its matrix.
    merges : ndarray of int64, one entry per critical weight
        How many components its T edges merge.
    weights : ndarray, one entry per critical weight
        |w|, descending.
    ranks : ndarray of int64, one entry per critical weight
        Position of each among all stored weights of both matrices in the total order, from 1, ascending.
    n_critical : int
        Critical weights that are not zero; they come first.
    alpha : int
        Edges of the forest of the non-zero weights.
    n_components : int
        Components of the graph that is spanned, neurons without an edge counted.
    """

    layer: Unrolled
    hidden: NDArray[np.bool_]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    merges: NDArray[np.int64]
    weights: NDArray[Any]
    ranks: NDArray[np.int64]
    n_critical: int
    alpha: int
    n_components: int

    @property
    def ratio(self) -> Fraction | None:
        """Stored weights over critical weights that are not zero; None if there is none of these."""
        return Fraction(self.layer.n_weights, self.n_critical) if self.n_critical else None

    @property
    def w_max(self) -> float:
        """The largest |w| of both matrices; 0 if all are zero."""
        return float(self.weights[0]) if self.weights.size else 0.0

    @property
    def deaths(self) -> NDArray[np.float64]:
        """|w| / w_max for every merge, descending: the finite part of the persistence diagram, births being 1."""
        values = self.weights.astype(np.float64)
        return np.repeat(values / self.w_max if self.w_max else values, self.merges)

    @property
    def diagram(self) -> PersistenceDiagram:
        """The persistence diagram of the unrolled layer: a point (1, |w| / w_max) for every merge.

        ``edges`` holds the critical weight of each point as row and column of ``weight_ih`` and ``weight_hh`` side by
        side; ``shape`` counts the neurons that no weight feeds (inputs, and the hidden units of step 0) and the others.
        """
        places = np.stack([self.rows, self.cols + self.layer.input_size * self.hidden], axis=1)
        n_inputs = self.layer.steps * self.layer.input_size + self.layer.hidden_size
        return PersistenceDiagram(
            births=np.ones(self.deaths.size),
            deaths=self.deaths,
            edges=np.repeat(places, self.merges, axis=0),
            n_essential=self.n_components,
            shape=(n_inputs, self.layer.n_vertices - n_inputs),
            alpha=self.alpha,
            w_max=self.w_max,
            backend="kruskal",
        )

    @property
    def _n_carriers(self) -> int:
        return self.n_critical

    @property
    def _n_stored(self) -> int:
        return self.layer.n_weights

    def _deficit_of_first(self, n_carriers: int) -> Deficit:
        """Return the deficit in neurons of all steps; those that no weight feeds, units at step 0 too, are inputs."""
        layer, hidden = self.layer, self.hidden[:n_carriers]
        cols = self.cols[:n_carriers]
        fed = np.zeros(layer.hidden_size, np.bool_)
        fed[self.rows[:n_carriers] % layer.hidden_size] = True  # the gates of a unit are that unit
        read = np.zeros(layer.hidden_size, np.bool_)
        read[cols[hidden]] = True
        n_unread_inputs = layer.input_size - np.unique(cols[~hidden]).size
        # A unit is only read at step 0, only fed at step T, and both at the steps between.
        silent_inputs = layer.steps * n_unread_inputs + int(np.count_nonzero(~read))
        silent_outputs = int(np.count_nonzero(~fed)) + (layer.steps - 1) * int(np.count_nonzero(~(fed | read)))
        n_components = layer.n_vertices - int(self.merges[:n_carriers].sum())
        return Deficit(silent_inputs, silent_outputs, n_components - silent_inputs - silent_outputs)

    def __repr__(self) -> str:
        return (
            f"UnrolledForest({self.layer}, n_critical={self.n_critical}, alpha={self.alpha}, "
            f"n_components={self.n_components})"
        )


def unrolled_forest(
    weight_ih: ArrayLike | None, weight_hh: ArrayLike, steps: int, cell: Cell = "rnn", *, zeros: Zeros = "absent"
) -> UnrolledForest:
    """Return the maximum spanning forest of a recurrent layer unrolled over T steps with shared weights.

    The graph is that of `Unrolled`: hidden units of steps 0 .. T, inputs of steps 1 .. T; each weight adds its T edges
    at once. The gates of a unit are read as that unit, so the `gates` weights between the same two units are parallel
    edges, of which the heaviest counts.

    The paper takes every step as a layer of its own, T times K(l, l): the forest of ``weight_hh`` T times, and
    l^2 / (2 l - 1) for any T. That is ``unrolled_forest(None, weight_hh, 1)``. With more steps the neurons are shared:
    T l^2 edges and (T + 1) l - 1 of them in the forest, a ratio that tends to l.

    Parameters
    ----------
    weight_ih : array_like of shape (gates l, d), or None
        None leaves the inputs out.
    weight_hh : array_like of shape (gates l, l)
        See `recurrent_matrices`.
    steps : int
        Time steps T, at least 1.
    cell : {"rnn", "gru", "lstm"}
        See `recurrent_matrices`.
    zeros : {"absent", "edge"}
        What a weight of exactly zero makes: no edges, or edges of weight 0, which come after all others.

    Returns
    -------
    UnrolledForest
        The critical weights in order of entry, with what each merges.

    Raises
    ------
    ValueError
        As `recurrent_matrices`; or if a weight is NaN or infinite, or `steps` is no positive integer.

    Examples
    --------
    >>> W = np.random.default_rng(0).standard_normal((32, 32))
    >>> forest = unrolled_forest(None, W, steps=10)
    >>> forest.alpha, forest.n_components, forest.layer.n_edges, forest.n_critical
    (351, 1, 10240, 54)
    """
    choice("zeros", zeros, ("absent", "edge"))
    gates = GATES[choice("cell", cell, tuple(GATES))]
    hidden = _hidden_matrix(weight_hh, gates)
    matrices = [hidden] if weight_ih is None else [_input_matrix(weight_ih, hidden), hidden]
    for matrix in matrices:
        check_finite(matrix)
    layer = Unrolled(hidden.shape[1], steps, sum(m.shape[1] for m in matrices[:-1]), len(gates))
    values = np.concatenate([matrix.ravel() for matrix in tied_graph.in_one_type(matrices)])
    levels = tied_graph.entry_levels(order_keys(values), None, zeros)
    indices, merges = tied_graph.critical_weights(levels, _unrolled_graph(layer), layer.n_vertices - 1)
    weights = np.abs(values[indices])
    n_critical = int(np.count_nonzero(weights))
    n_before = values.size - hidden.size
    is_hidden = indices >= n_before
    width = np.where(is_hidden, layer.hidden_size, max(1, layer.input_size))
    rows, cols = np.divmod(indices - n_before * is_hidden, width)
    return UnrolledForest(
        layer=layer,
        hidden=is_hidden,
        rows=rows,
        cols=cols,
        merges=merges,
        weights=weights,
        ranks=tied_graph.ranks_in_order(values[None], None, zeros, indices),
        n_critical=n_critical,
        alpha=int(merges[:n_critical].sum()),
        n_components=layer.n_vertices - int(merges.sum()),
    )


def _unrolled_graph(layer: Unrolled) -> tied_graph.SharedGraph:
    """Return the graph whose blocks are the inputs, each at steps 1 .. T, then the hidden units, each at 0 .. T.

    Tap 0 joins a unit at step t with an input at step t, tap 1 with a unit at step t - 1.
    """
    size, steps, n_inputs = layer.hidden_size, layer.steps, layer.input_size
    units = np.tile(np.arange(size, dtype=np.int32), layer.gates)
    firsts = [np.repeat(n_inputs + units, width) for width in (n_inputs, size)]
    seconds = [
        np.tile(np.arange(width, dtype=np.int32) + start, units.size)
        for start, width in ((0, n_inputs), (n_inputs, size))
    ]
    taps = np.repeat(np.arange(2, dtype=np.int32), [first.size for first in firsts])
    sizes = np.repeat([steps, steps + 1], [n_inputs, size])
    step = np.arange(steps)
    edges = tied_graph.TapEdges(steps * np.arange(3), np.tile(step + 1, 2), np.tile(step, 2))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return tied_graph.SharedGraph(starts, np.concatenate(firsts), np.concatenate(seconds), taps, 1, edges)


def _hidden_matrix(weight_hh: ArrayLike, gates: tuple[str, ...]) -> NDArray[Any]:
    matrix = weight_matrix(weight_hh)
    rows, cols = matrix.shape
    if rows != len(gates) * cols:
        raise argument_error("weight_hh", f"of shape ({len(gates)} l, l), the gates one below the other", matrix.shape)
    return matrix


def _input_matrix(weight_ih: ArrayLike, hidden: NDArray[Any]) -> NDArray[Any]:
    matrix = weight_matrix(weight_ih)
    if len(matrix) != len(hidden):
        raise argument_error("weight_ih", f"of {len(hidden)} rows, as weight_hh is", matrix.shape)
    return matrix
