"""Zero-dimensional persistence of a layer graph, and neural persistence.

Superlevel filtration: weights are normalised by ``w_max = max |w|`` to [0, 1], every neuron is born at 1, edges enter
by descending |w|, and a component dies when an edge merges it; so birth = 1 >= death.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from topobounds._arguments import argument_error, choice, items, real
from topobounds._records import Record
from topobounds._types import Zeros
from topobounds.topology.filtration import Filtration, filtration
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest

Convention = Literal["balwani", "rieck"]
CONVENTIONS = ("balwani", "rieck")


@dataclass(frozen=True, eq=False, repr=False)
class PersistenceDiagram(Record):
    """The zero-dimensional persistence diagram of a layer's superlevel filtration.

    ``numpy.asarray(diagram)`` gives the finite points, shape (k, 2), columns birth and death, in order of entry. Deaths
    lie below births there, which other software takes for points that do not count; it is to be given `as_sublevel`.

    Attributes
    ----------
    births, deaths : ndarray of float64, one entry per finite point
        ``1`` and ``|w| / w_max``, in order of entry (deaths descending).
    edges : ndarray of int64 of shape (k, 2)
        Row and column of the weight that kills each class: the forest edges.
    n_essential : int
        Classes that never die, one per component of the graph.
    shape : tuple of int
        Rows m and columns n of the layer.
    alpha : int
        Points made by weights other than zero; they are the first ones. The rest, if any, lie at (1, 0).
    w_max : float
        The largest |w| of the layer; 0 for a layer of zeros, whose deaths, if zeros are edges, are taken as 0.
    backend : {"kruskal", "gudhi"}
        What computed it.
    """

    births: NDArray[np.float64]
    deaths: NDArray[np.float64]
    edges: NDArray[np.int64]
    n_essential: int
    shape: tuple[int, int]
    alpha: int
    w_max: float
    backend: str

    def betti_curve(self, t: ArrayLike) -> Any:
        """Return Betti-0 at each threshold t: the components of the graph of the edges with |w|/w_max >= t.

        Parameters
        ----------
        t : float or array_like of float
            Thresholds on the normalised scale. Above 1 there is no vertex yet, so the value is 0.

        Returns
        -------
        int, or ndarray of int64 of the shape of `t`
            Number of components.

        Raises
        ------
        ValueError
            If a threshold is NaN or no number.

        Examples
        --------
        >>> diagram = persistence_diagram([[4.0, 2.0], [3.0, 1.0]])
        >>> diagram.betti_curve([1.0, 0.75, 0.5, 0.0]).tolist()
        [3, 2, 1, 1]
        """
        try:
            thresholds = np.asarray(t, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise argument_error("t", "a number or an array of numbers", t) from None
        if np.isnan(thresholds).any():
            raise ValueError("Argument 't' must hold no NaN.")
        entered = np.searchsorted(-self.deaths, -thresholds, side="right")
        curve = np.where(thresholds > 1, 0, sum(self.shape) - entered)
        return int(curve) if curve.ndim == 0 else curve

    def as_gudhi(self) -> list[tuple[int, tuple[float, float]]]:
        """Return the diagram as gudhi writes the same graph: sublevel, negated, essential deaths infinite.

        Returns
        -------
        list of (dimension, (birth, death))
            What ``gudhi.SimplexTree.persistence`` gives and gudhi's plots take. Its distances take `as_sublevel`.
        """
        finite = [(0, (-1.0, -death)) for death in self.deaths.tolist()]
        return finite + [(0, (-1.0, math.inf))] * self.n_essential

    def as_sublevel(self, *, essential: bool = False) -> NDArray[np.float64]:
        """Return the diagram of the sublevel filtration of ``1 - |w| / w_max``, births below deaths.

        It is the same diagram upside down: distances stay as they are, and a death is the point's persistence. gudhi's
        distances and persim take it as it is.

        Parameters
        ----------
        essential : bool
            Also give a row (0, infinity) for each class that never dies; gudhi takes them, persim leaves them out.

        Returns
        -------
        ndarray of float64 of shape (k, 2)
            Births, which are 0, and deaths, in order of entry.

        Examples
        --------
        >>> persistence_diagram([[4.0, 2.0], [3.0, 1.0]]).as_sublevel().tolist()
        [[0.0, 0.0], [0.0, 0.25], [0.0, 0.5]]
        """
        deaths = 1.0 - self.deaths
        if essential:
            deaths = np.append(deaths, np.full(self.n_essential, math.inf))
        return np.stack([np.zeros(deaths.size), deaths], axis=1)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("A PersistenceDiagram becomes an array by copying; copy=False cannot be met.")
        return np.stack([self.births, self.deaths], axis=1).astype(dtype or np.float64)

    def __len__(self) -> int:
        return self.deaths.size

    def __repr__(self) -> str:
        return (
            f"PersistenceDiagram(shape={self.shape}, points={len(self)}, n_essential={self.n_essential}, "
            f"w_max={self.w_max:.6g}, backend={self.backend!r})"
        )


def persistence_diagram(
    weights: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    zeros: Zeros = "absent",
    backend: Literal["kruskal", "gudhi"] = "kruskal",
) -> PersistenceDiagram:
    """Return the zero-dimensional persistence diagram of a layer: (1, |w|/w_max) for every forest edge.

    Parameters
    ----------
    weights, mask, zeros
        As in `maximum_spanning_forest`. Whether a weight is zero is decided before it is divided by w_max.
    backend : {"kruskal", "gudhi"}
        Our own spanning forest, or gudhi's simplex tree, which is independent of it and some hundred times slower.
        The diagrams are the same; among weights that tie, gudhi may name other edges.

    Returns
    -------
    PersistenceDiagram
        Finite points in order of entry, the edges that made them, and the number of essential classes.

    Raises
    ------
    ValueError
        As `maximum_spanning_forest`, or for another `backend`.

    References
    ----------
    Balwani & Krzyston, PMLR 196, 2022, section 2.3; Rieck et al., arXiv 1812.09764.

    Examples
    --------
    >>> diagram = persistence_diagram([[4.0, 2.0], [-3.0, 1.0]])
    >>> np.asarray(diagram).tolist(), diagram.n_essential
    ([[1.0, 1.0], [1.0, 0.75], [1.0, 0.5]], 1)
    """
    if choice("backend", backend, ("kruskal", "gudhi")) == "gudhi":
        return _diagram_by_gudhi(filtration(weights, mask), choice("zeros", zeros, ("absent", "edge")))
    return diagram_of_forest(maximum_spanning_forest(weights, mask, zeros=zeros))


def neural_persistence(
    weights_or_diagram: ArrayLike | PersistenceDiagram,
    *,
    p: float = 2,
    convention: Convention = "balwani",
    normalized: bool = False,
) -> float:
    """Return the neural persistence of a layer, the p-norm of the persistences ``1 - |w|/w_max``.

    Parameters
    ----------
    weights_or_diagram : array_like of shape (m, n), or PersistenceDiagram
        The layer. A diagram serves both conventions, whichever way it took zeros.
    p : float
        Order of the norm, at least 1, or infinity.
    convention : {"balwani", "rieck"}
        ``balwani``: one point per edge of the spanning forest of the non-zero weights; normaliser
        ``(alpha - 1)^(1/p)``, the tight bound, since the heaviest edge has persistence 0.
        ``rieck``: zeros are edges of weight 0, and the class that survives counts as a point (1, 0); normaliser
        ``(m + n - 1)^(1/p)``. With p = 2, ``NP_rieck^2 = NP_balwani^2 + kappa``, kappa being the components of
        the non-zero graph.
    normalized : bool
        Divide by the normaliser of the convention.

    Returns
    -------
    float
        At least 0; at most 1 if normalised, but for a ``rieck`` layer of zeros: all its m + n persistences are 1,
        one more than the normaliser counts. ``balwani`` gives 0.0 where there is at most one edge, normalised or not.

    Raises
    ------
    ValueError
        As `persistence_diagram`; or if `p` is below 1 or NaN, or the convention is another.

    References
    ----------
    Rieck et al., arXiv 1812.09764, definition 2; Balwani & Krzyston, PMLR 196, 2022, section 2.3.

    Examples
    --------
    >>> W = np.random.default_rng(0).standard_normal((5, 4))
    >>> round(neural_persistence(W), 12), round(neural_persistence(W, convention="rieck", normalized=True), 12)
    (1.510868561619, 0.640578235902)
    """
    order = real("p", p, "a number of at least 1, or infinity", 1.0, math.inf)
    choice("convention", convention, CONVENTIONS)
    diagram = _as_diagram(weights_or_diagram)
    return _neural_persistence(diagram, order, convention, normalized, diagram.w_max)


def total_neural_persistence(
    layers: Iterable[ArrayLike | PersistenceDiagram],
    *,
    p: float = 2,
    convention: Convention = "balwani",
    normalized: bool = False,
) -> float:
    """Return the neural persistence of a network from that of its layers.

    Parameters
    ----------
    layers : iterable of array_like or PersistenceDiagram
        The layers' weight matrices or diagrams, at least one.
    p, convention, normalized
        As in `neural_persistence`. ``balwani`` normalises the weights of each layer by that layer's own maximum,
        ``rieck`` by the maximum over all layers.

    Returns
    -------
    float
        The sum over layers; for ``rieck`` normalised, the mean, as that code has it, which can exceed 1.

    Raises
    ------
    ValueError
        As `neural_persistence`, or if there is no layer.

    Examples
    --------
    >>> layers = [np.random.default_rng(seed).standard_normal((6, 4)) for seed in range(2)]
    >>> total = total_neural_persistence(layers, normalized=True)
    >>> abs(total - sum(neural_persistence(W, normalized=True) for W in layers)) < 1e-15
    True
    """
    order = real("p", p, "a number of at least 1, or infinity", 1.0, math.inf)
    choice("convention", convention, CONVENTIONS)
    diagrams = [_as_diagram(layer) for layer in items("layers", layers, "weight matrices or diagrams")]
    if not diagrams:
        raise ValueError("Argument 'layers' must hold at least one layer, not none.")
    largest = max(diagram.w_max for diagram in diagrams)
    values = [
        _neural_persistence(d, order, convention, normalized, largest if convention == "rieck" else d.w_max)
        for d in diagrams
    ]
    return math.fsum(values) / (len(values) if convention == "rieck" and normalized else 1)


def _neural_persistence(
    diagram: PersistenceDiagram, p: float, convention: Convention, normalized: bool, w_max: float
) -> float:
    scale = diagram.w_max / w_max if w_max else 0.0
    persistences = 1.0 - scale * diagram.deaths[: diagram.alpha]
    n_points = diagram.alpha - 1
    if convention == "rieck":
        n_lone = sum(diagram.shape) - diagram.alpha  # zero-weight edges that join components, and the one that survives
        persistences = np.append(persistences, np.ones(n_lone))
        n_points = sum(diagram.shape) - 1
    norm = _norm(persistences, p)
    if not normalized:
        return norm
    return norm / n_points ** (1 / p) if n_points > 0 else 0.0


def _norm(values: NDArray[np.float64], p: float) -> float:
    """Return the p-norm of values in [0, 1], scaled so that no power underflows."""
    largest = float(values.max(initial=0.0))
    if p == math.inf or largest == 0.0:
        return largest
    return float(largest * np.sum((values / largest) ** p) ** (1 / p))


def _as_diagram(layer: ArrayLike | PersistenceDiagram) -> PersistenceDiagram:
    return layer if isinstance(layer, PersistenceDiagram) else persistence_diagram(layer)


def diagram_of_forest(forest: SpanningForest) -> PersistenceDiagram:
    """Return the persistence diagram of the layer that `forest` spans."""
    values = forest.weights.astype(np.float64)
    w_max = float(values[0]) if values.size else 0.0
    deaths = values / w_max if w_max else values
    edges = np.stack([forest.rows, forest.cols], axis=1)
    return PersistenceDiagram(
        births=np.ones(deaths.size),
        deaths=deaths,
        edges=edges,
        n_essential=forest.n_components,
        shape=forest.shape,
        alpha=forest.alpha,
        w_max=w_max,
        backend="kruskal",
    )


def _diagram_by_gudhi(layer: Filtration, zeros: str) -> PersistenceDiagram:
    """Hand gudhi the graph in its own sublevel terms: vertices at -1, the edge of w at -|w|/w_max."""
    from gudhi import SimplexTree

    m, n = layer.shape
    cells = layer.cells if zeros == "edge" else layer.cells[: layer.n_nonzero]
    rows, cols = np.divmod(cells, n)
    values = np.abs(layer.weights[rows, cols].astype(np.float64))
    w_max = float(values[0]) if values.size else 0.0
    tree = SimplexTree()
    tree.insert_batch(np.arange(m + n).reshape(1, -1), np.full(m + n, -1.0))
    tree.insert_batch(np.stack([rows, m + cols]), -values / w_max if w_max else values)
    tree.compute_persistence(
        min_persistence=-1, persistence_dim_max=not cells.size
    )  # else only below its top dimension
    pairs = [death for birth, death in tree.persistence_pairs() if len(birth) == 1]
    edges = np.array([sorted(edge) for edge in pairs if len(edge)], np.int64).reshape(-1, 2) - np.array([0, m])
    deaths = np.array([0.0 - tree.filtration((int(i), int(m + j))) for i, j in edges])
    entry = np.lexsort((edges[:, 0] * n + edges[:, 1], -deaths))
    return PersistenceDiagram(
        births=np.ones(len(edges)),
        deaths=deaths[entry],
        edges=edges[entry],
        n_essential=sum(not len(edge) for edge in pairs),
        shape=(m, n),
        alpha=int(np.count_nonzero(layer.weights[edges[:, 0], edges[:, 1]])),
        w_max=w_max,
        backend="gudhi",
    )
