"""How much of a layer's overlap and persistence the scales of its neurons explain.

Null hypothesis: ``|W_ij| = r_i c_j Z_ij`` with a scale for every input and output and residuals Z in random order. See
docs/theory/scales.md.
"""

import math
import secrets
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import MOST_TRIALS, argument_error, integer, real
from topobounds._records import Record
from topobounds._types import FloatArray
from topobounds.chance.measured_layer import MeasuredLayer
from topobounds.chance.overlap import overlap_if_ties_decide
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.weights import check_finite, weight_matrix

_EXPLAINED = 3.0
"""|refitted_z| below which the scales explain a number; see `ScaleNull.warning`."""
_MOST_ZEROS = 0.01
"""Share of weights that may be zero; beyond, the layer has been pruned."""
_TOLERANCE = 1e-9
_MOST_ROUNDS = 10_000
_LEAST_LOG = -700.0  # of a probability that is taken as 0
_SEED_BITS = 32


@dataclass(frozen=True, eq=False)
class NeuronScales(Record):
    """A layer as scales of its neurons and residuals: ``|W_ij| = rows_i cols_j residuals_ij``.

    Attributes
    ----------
    rows : ndarray of float64, shape (m,)
        Scale of each input.
    cols : ndarray of float64, shape (n,)
        Scale of each output; their geometric mean is 1, for only products of a row's and a column's scale are defined.
    residuals : ndarray of float64, shape (m, n)
        At least 0; in every row and every column the mean of their squares is 1.
    """

    rows: FloatArray
    cols: FloatArray
    residuals: FloatArray


@dataclass(frozen=True)
class ScaleComparison(Record):
    """A number of a layer beside what the scales of its neurons give.

    Attributes
    ----------
    measured : float
        Of the layer.
    expected, deviation : float
        Mean and standard deviation over the samples.
    z : float or None
        ``(measured - expected) / deviation``; None where the deviation is 0, or where the rule that ranks tied weights
        moves the overlap by more than it (see `OverlapNull`).
    bias : float
        Mean of sample less resample: how far a layer that obeys the null lies, on average, above what its own fitted
        scales give.
    refitted_z : float or None
        ``(measured - expected - bias) / deviation``: z with the scales fitted anew to every sample; None as `z`.
    limit : float or None
        The expectation for large layers, computed and not sampled; None where there is no formula.
    """

    measured: float
    expected: float
    deviation: float
    z: float | None
    bias: float
    refitted_z: float | None
    limit: float | None

    @property
    def explained(self) -> bool | None:
        """Whether the scales explain the number, |refitted_z| < 3; None where there is no z."""
        return None if self.refitted_z is None else abs(self.refitted_z) < _EXPLAINED


@dataclass(frozen=True)
class ScaleNull(Record):
    """A layer's overlap and neural persistence beside what the scales of its neurons give.

    Attributes
    ----------
    m, n, k : int
        The layer, and the largest weights kept.
    p : float
        Order of the neural persistence.
    trials, seed : int
        These two determine every sample.
    overlap : ScaleComparison
        Of ``|forest ∩ top-k| / alpha``.
    persistence : ScaleComparison
        Of NP^p, balwani, not normalised. The order of the cells is the sample's, the values are the layer's, by rank.
    status : dict of str to str
        The scales are ``fitted``, expectations and deviations ``sampled``, the limit a ``limit``.
    warning : str
        How to read z.
    """

    m: int
    n: int
    k: int
    p: float
    trials: int
    seed: int
    overlap: ScaleComparison
    persistence: ScaleComparison
    status: dict[str, str] = field(
        default_factory=lambda: {"scales": "fitted", "expected": "sampled", "deviation": "sampled", "limit": "limit"}
    )
    warning: str = (
        "The scales are fitted to the layer that they are compared with, so on layers that obey the null z is off by 3 "
        "and more, and refitted_z by up to 1, or, with heavy-tailed residuals, by half of what z is. "
        "Read |refitted_z| < 3 as explained. The error goes one way: an overlap below, or a persistence above, is not "
        "made by the fit."
    )


class _Values(NamedTuple):
    """The two numbers that are compared."""

    overlap: float
    persistence: float


def neuron_scales(weights: ArrayLike) -> NeuronScales:
    """Return the scales of a layer's neurons and the residuals that are left: Sinkhorn's algorithm on W^2.

    Rows and columns of ``W^2`` are divided by their means in turn until all these means are 1.

    Parameters
    ----------
    weights : array_like of shape (m, n)
        Real and finite, m inputs by n outputs, at most 1% of them zero.

    Returns
    -------
    NeuronScales
        ``rows``, ``cols`` and ``residuals``, whose product is |weights|.

    Raises
    ------
    ValueError
        If a row or a column is zero, more than 1% of the weights are (a pruned layer), or the algorithm does not
        converge: ``[[1, 1], [1, 0]]`` has no scales, and ``[[1, 1], [1, 1e-200]]`` none that doubles hold.

    References
    ----------
    Sinkhorn & Knopp 1967.

    Examples
    --------
    >>> scales = neuron_scales([[1.0, 2.0], [3.0, 6.0]])
    >>> (scales.rows / scales.rows[0]).round(6).tolist(), scales.residuals.round(6).tolist()
    ([1.0, 3.0], [[1.0, 1.0], [1.0, 1.0]])
    """
    matrix = weight_matrix(weights)
    check_finite(matrix)
    sizes = np.abs(matrix.astype(np.float64))
    _refuse_zeros(sizes)
    largest = float(sizes.max())
    squares = np.square(sizes / largest)
    rows, cols = _balanced(squares)
    rows, cols = np.sqrt(rows) * largest, np.sqrt(cols)
    balance = math.exp(np.log(cols).mean())
    rows, cols = rows * balance, cols / balance
    return NeuronScales(rows, cols, sizes / rows[:, None] / cols)


def scale_null(
    weights: ArrayLike, k: int | None = None, *, p: float = 2, trials: int = 100, seed: int | None = None
) -> ScaleNull:
    """Compare a layer with samples that have the same scales of neurons and its residuals in random order.

    Every sample is ``r_i c_j Z_ij`` with the residuals permuted over all cells. To correct for r and c being fitted to
    the layer itself, they are fitted anew to every sample, and one resample is drawn from that fit: the mean of sample
    less resample is the bias.

    Parameters
    ----------
    weights : array_like of shape (m, n)
        As in `neuron_scales`.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.
    p : float
        Order of the neural persistence, at least 1.
    trials : int
        Samples, at least 2; each costs two forests and one fit.
    seed : int, optional
        From 0 to 2^64 - 1. None draws one; the record has it.

    Returns
    -------
    ScaleNull
        Overlap and NP^p: measured, expected, z, corrected z, and for the overlap the limit.

    Raises
    ------
    ValueError
        As `neuron_scales`, or if an argument is out of range.

    References
    ----------
    docs/theory/scales.md; Bollobas, Janson & Riordan 2007 for the limit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weights = np.exp(rng.standard_normal((60, 1))) * rng.standard_normal((60, 40))
    >>> null = scale_null(weights, trials=20, seed=0)
    >>> null.overlap.explained, abs(null.overlap.expected - null.overlap.limit) < 0.05
    (True, True)
    """
    scales = neuron_scales(weights)
    m, n = scales.residuals.shape
    order = real("p", p, "a number of at least 1", 1.0, 2.0**53)
    count = m + n - 1 if k is None else integer("k", k, 0, m * n)
    trials = integer("trials", trials, 2, most=MOST_TRIALS)
    seed = secrets.randbits(_SEED_BITS) if seed is None else integer("seed", seed, 0, 2**64 - 1)
    layer = MeasuredLayer.of(weight_matrix(weights))
    persistences = _persistences(scales, order)
    measured = _values(layer.forest, count, persistences)
    samples, resamples = _sampled(scales, count, persistences, trials, seed)
    overlap = _compared(measured, samples, resamples, 0, _overlap_limit(scales, count))
    if overlap.z is not None and overlap_if_ties_decide(layer, count, overlap.deviation, seed) is not None:
        overlap = replace(overlap, z=None, refitted_z=None)
    return ScaleNull(
        m=m,
        n=n,
        k=count,
        p=order,
        trials=trials,
        seed=seed,
        overlap=overlap,
        persistence=_compared(measured, samples, resamples, 1, None),
    )


# -- the fit ---------------------------------------------------------------------------------------------------------


def _refuse_zeros(sizes: FloatArray) -> None:
    """Refuse a layer that has no scales."""
    for name, axis in (("row", 1), ("column", 0)):
        silent = np.flatnonzero(~sizes.any(axis=axis))
        if silent.size:
            rule = f"without a {name} of zeros, which has no scale"
            raise argument_error("weights", rule, f"{silent.size} of them, the first {name} {int(silent[0])}")
    n_zeros = int(np.count_nonzero(sizes == 0))
    if n_zeros > _MOST_ZEROS * sizes.size:
        rule = f"at most {_MOST_ZEROS:.0%} zeros (the scales of a pruned layer are not defined)"
        raise argument_error("weights", rule, f"{n_zeros} zeros of {sizes.size}")


def _balanced(squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a and b such that the rows and columns of ``squares / (a b^T)`` have the mean 1."""
    m, n = squares.shape
    cols = np.ones(n)
    for _ in range(_MOST_ROUNDS):
        rows = squares @ (1 / cols) / n
        sums = (1 / rows) @ squares / m
        error = float(np.abs(sums / cols - 1).max())
        cols = sums
        if error < _TOLERANCE:
            return squares @ (1 / cols) / n, cols
        if not (np.isfinite(cols).all() and cols.min() > 0):
            break
    raise ValueError(
        "Argument 'weights' must have scales for its rows and columns; Sinkhorn's algorithm does not converge on it."
    )


# -- samples ---------------------------------------------------------------------------------------------------------


def _persistences(scales: NeuronScales, p: float) -> FloatArray:
    """Return (1 - v_j / v_1)^p of the layer's own sizes, by rank."""
    falling = np.sort(scales.residuals * scales.rows[:, None] * scales.cols, axis=None)[::-1]
    persistences: FloatArray = (1 - falling / falling[0]) ** p
    return persistences


def _values(forest: SpanningForest, k: int, persistences: FloatArray) -> _Values:
    """Return the overlap at k, and NP^p with the layer's values at the ranks of the forest's edges."""
    ranks = forest.ranks[: forest.alpha]
    return _Values(forest.overlap(k), float(persistences[ranks - 1].sum()))


def _sampled(
    scales: NeuronScales, k: int, persistences: FloatArray, trials: int, seed: int
) -> tuple[list[_Values], list[_Values]]:
    """Return the values of the samples, and of one resample from the scales that fit each sample."""
    samples, resamples = [], []
    for stream in np.random.SeedSequence(seed).spawn(trials):
        rng = np.random.default_rng(stream)
        sample = _permuted(scales, rng)
        samples.append(_values(maximum_spanning_forest(sample), k, persistences))
        again = _permuted(neuron_scales(sample), rng)
        resamples.append(_values(maximum_spanning_forest(again), k, persistences))
    return samples, resamples


def _permuted(scales: NeuronScales, rng: np.random.Generator) -> FloatArray:
    """Return sizes with the same scales, and the residuals in random order."""
    residuals = rng.permutation(scales.residuals.ravel()).reshape(scales.residuals.shape)
    sizes: FloatArray = residuals * scales.rows[:, None] * scales.cols
    return sizes


def _compared(
    measured: _Values, samples: list[_Values], resamples: list[_Values], which: int, limit: float | None
) -> ScaleComparison:
    """Return one of the two numbers beside its samples."""
    first, again = (np.array([values[which] for values in found]) for found in (samples, resamples))
    expected = float(first.mean())
    deviation = float(first.std(ddof=1)) if np.ptp(first) else 0.0  # exactly, where rounding would leave something
    bias = float((first - again).mean())
    excess = measured[which] - expected
    return ScaleComparison(
        measured=measured[which],
        expected=expected,
        deviation=deviation,
        z=excess / deviation if deviation else None,
        bias=bias,
        refitted_z=(excess - bias) / deviation if deviation else None,
        limit=limit,
    )


# -- the limit -------------------------------------------------------------------------------------------------------


def _overlap_limit(scales: NeuronScales, k: int) -> float:
    """Return the limit of E[R_k] / alpha under the null.

    With p_ij = P(Z > t / (r_i c_j)), t such that their sum is k, and x, y the largest solution of
    ``x_i = 1 - prod_j (1 - p_ij y_j)``, ``y_j = 1 - prod_i (1 - p_ij x_i)``, ::

        E R_k ~ sum x_i + sum y_j + sum p_ij prod_{j' != j} (1 - p_ij' y_j') prod_{i' != i} (1 - p_i'j x_i') - 1
    """
    if not k:
        return 0.0
    m, n = scales.residuals.shape
    probabilities = _probabilities(scales, k)
    x, y = _giant(probabilities)
    alone_rows = _log_missed(probabilities * y)
    alone_cols = _log_missed(probabilities * x[:, None])
    rest = alone_rows.sum(axis=1)[:, None] - alone_rows + alone_cols.sum(axis=0) - alone_cols
    small_edges = float((probabilities * np.exp(rest)).sum())
    n_giants = int(x.max() > math.sqrt(_TOLERANCE))
    return float(min(1.0, (float(x.sum() + y.sum()) + small_edges - n_giants) / (m + n - 1)))


def _probabilities(scales: NeuronScales, k: int) -> FloatArray:
    """Return p_ij, the chance that a random residual lifts a cell over the threshold that k cells pass on average."""
    residuals = np.sort(scales.residuals, axis=None)
    logs = np.log(np.maximum(np.outer(scales.rows, scales.cols).ravel(), np.finfo(float).tiny))
    order = np.argsort(logs)
    bounds = logs[order]

    def above(log_threshold: float) -> NDArray[np.int64]:
        return residuals.size - np.searchsorted(residuals, np.exp(log_threshold - bounds), side="right")

    low = bounds[0] + math.log(max(residuals[0], np.finfo(float).tiny)) - 1
    high = bounds[-1] + math.log(residuals[-1])
    while high - low > _TOLERANCE * max(1.0, abs(low), abs(high)):
        middle = (low + high) / 2
        low, high = (middle, high) if int(above(middle).sum()) >= k * residuals.size else (low, middle)
    found = np.empty(residuals.size)
    found[order] = above(low) / residuals.size
    return found.reshape(scales.residuals.shape)


def _giant(probabilities: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the largest x and y, by iteration from 1, which falls onto them."""
    m, n = probabilities.shape
    x, y, change = np.ones(m), np.ones(n), 1.0
    rounds = 0
    while change > _TOLERANCE and rounds < _MOST_ROUNDS:
        new_x = -np.expm1(_log_missed(probabilities * y).sum(axis=1))
        y = -np.expm1(_log_missed(probabilities * new_x[:, None]).sum(axis=0))
        change = float(np.abs(new_x - x).max())
        x, rounds = new_x, rounds + 1
    return x, y


def _log_missed(hits: FloatArray) -> FloatArray:
    """Return log(1 - hits), no less than a logarithm whose exponential is all but 0."""
    with np.errstate(divide="ignore"):
        logs: FloatArray = np.maximum(np.log1p(-np.minimum(hits, 1.0)), _LEAST_LOG)
    return logs
