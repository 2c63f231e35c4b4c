"""What the shapes imply, what the weights say and what chance gives, side by side.

This module holds and compares; the numbers are computed on the floors below.
"""

import math
import secrets
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from topobounds._arguments import argument_error, integer
from topobounds._records import Record
from topobounds.layers import Conv, LayerShape
from topobounds.montecarlo import Estimate, simulate_overlap
from topobounds.theory.compression import Compression, compression, critical_compression_ratio
from topobounds.theory.overlap import boruvka_bound, overlap_limit, star_bound
from topobounds.theory.paper import PrintedClaim, corollary_3_4, theorem_3_3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OverlapReport(Record):
    """Everything known of the overlap of a dense layer's k largest weights with its maximum spanning tree.

    Attributes
    ----------
    m, n, k : int
        Inputs, outputs, weights kept.
    density : float
        Density of the uniformly random support that the corollary and the simulation are about; 1 for all cells.
    alpha : int
        Edges of the spanning tree of the complete layer, m + n - 1.
    eta_tau : Fraction
        Critical compression ratio of the complete layer.
    theorem_3_3, corollary_3_4 : PrintedClaim
        The printed bounds; no corollary where no density was given.
    star_bound, boruvka_bound : float
        Proved lower bounds for the complete layer.
    limit : float
        The overlap of large layers of this shape.
    monte_carlo : Estimate or None
        The simulation, None for no trials.
    """

    m: int
    n: int
    k: int
    density: float
    alpha: int
    eta_tau: Fraction
    theorem_3_3: PrintedClaim
    corollary_3_4: PrintedClaim | None
    star_bound: float
    boruvka_bound: float
    limit: float
    monte_carlo: Estimate | None

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python; `eta_tau` as a number."""
        return {**super().to_dict(), "eta_tau": float(self.eta_tau)}


def overlap_report(
    m: int,
    n: int,
    k: int | None = None,
    *,
    density: float | None = None,
    trials: int = 200,
    seed: int | None = None,
    progress: Progress | None = None,
) -> OverlapReport:
    """Return all that is known of the expected overlap of an m x n layer.

    Parameters
    ----------
    m, n : int
        Inputs and outputs, at least 1.
    k : int, optional
        Weights kept, 0 to m n; alpha by default. The printed bounds are about k = alpha only.
    density : float, optional
        In (0, 1]: ask for Corollary 3.4, and simulate on uniformly random supports of this density.
    trials : int
        Trials of the simulation; 0 for none.
    seed : int, optional
        Seed of the simulation; drawn and recorded if not given.
    progress : callable, optional
        Called with (trials done, trials).

    Returns
    -------
    OverlapReport
        The printed bounds, the proved ones, the limit and the simulation.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> report = overlap_report(784, 300, seed=1)
    >>> report.alpha, round(report.theorem_3_3.value, 4), round(report.boruvka_bound, 4)
    (1083, 0.1213, 0.6132)
    """
    m, n, trials = integer("m", m, 1), integer("n", n, 1), integer("trials", trials, 0)
    alpha = m + n - 1
    kept = alpha if k is None else integer("k", k, 0, m * n)
    return OverlapReport(
        m=m,
        n=n,
        k=kept,
        density=1.0 if density is None else density,
        alpha=alpha,
        eta_tau=critical_compression_ratio((m, n)),
        theorem_3_3=_at_alpha(theorem_3_3(m, n), kept, alpha),
        corollary_3_4=None if density is None else _at_alpha(corollary_3_4(m, n, density), kept, alpha),
        star_bound=star_bound(m, n, kept),
        boruvka_bound=boruvka_bound(m, n, kept),
        limit=overlap_limit(m, n, kept),
        monte_carlo=simulate_overlap(m, n, k, density=density or 1.0, trials=trials, seed=seed, progress=progress)
        if trials
        else None,
    )


def _at_alpha(claim: PrintedClaim, k: int, alpha: int) -> PrintedClaim:
    if k == alpha:
        return claim
    return PrintedClaim(None, "undefined", f"The paper's bound is about the {alpha} largest weights, not {k}.")


@dataclass(frozen=True)
class SharedCompression(Record):
    """Stored weights over critical ones, for random kernels.

    Attributes
    ----------
    weights : int or None
        Stored weights.
    kept : float or None
        Mean number of critical weights over the trials.
    ratio : float or None
        ``weights / kept``.
    standard_error : float or None
        Of `ratio`, to first order from that of `kept`; None for one trial.
    trials, seed : int or None
        Random kernels drawn, and what draws them again.
    reason : str or None
        Why there is no ratio.
    """

    weights: int | None = None
    kept: float | None = None
    ratio: float | None = None
    standard_error: float | None = None
    trials: int | None = None
    seed: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CompressionReport(Record):
    """The critical compression ratio of one or several layers in the three conventions.

    Attributes
    ----------
    paper, toeplitz : Compression
        The printed closed form, and the exact layer graph.
    shared : SharedCompression
        Stored kernel weights over critical ones.
    """

    paper: Compression
    toeplitz: Compression
    shared: SharedCompression

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python; ratios as numbers."""
        record = super().to_dict()
        for name in ("paper", "toeplitz"):
            ratio = getattr(self, name).ratio
            record[name]["ratio"] = None if ratio is None else float(ratio)
        return record


def compression_report(
    layers: Sequence[LayerShape],
    printed_layers: Sequence[LayerShape] | None = None,
    *,
    trials: int = 20,
    seed: int | None = None,
    progress: Progress | None = None,
) -> CompressionReport:
    """Return the critical compression ratio of the layers, pruned each on its own, in the three conventions.

    Parameters
    ----------
    layers : sequence of Dense, Recurrent or Conv
        The layers.
    printed_layers : sequence of the same, optional
        The layers as the convention ``paper`` counts them, where that differs (`Architecture.printed_layers`).
    trials : int
        Random kernels for the convention ``shared``, at least 1.
    seed : int, optional
        Their seed; drawn and recorded if not given.
    progress : callable, optional
        Called with (trials done, trials).

    Returns
    -------
    CompressionReport
        Ratios of sums over the layers. ``shared`` draws standard normal kernels; dense and recurrent layers among
        convolutions count m n stored weights and a spanning tree.

    Raises
    ------
    ValueError
        If there is no layer, or an argument is out of range.

    Examples
    --------
    >>> report = compression_report([Conv(16, 32, (1, 1), (8, 8))], seed=0)
    >>> report.toeplitz.ratio, report.shared.kept
    (Fraction(512, 47), 47.0)
    """
    if not layers:
        raise argument_error("layers", "a sequence of at least one layer", layers)
    return CompressionReport(
        compression(tuple(printed_layers or layers)),
        compression(tuple(layers), "toeplitz"),
        _shared_compression(layers, integer("trials", trials, 1), seed, progress),
    )


def _shared_compression(
    layers: Sequence[LayerShape], trials: int, seed: int | None, progress: Progress | None
) -> SharedCompression:
    if not any(isinstance(layer, Conv) for layer in layers):
        return SharedCompression(reason="Only the weights of convolutions are shared.")
    seed = secrets.randbits(32) if seed is None else integer("seed", seed, 0)
    kept = [0] * trials
    for trial in range(trials):
        kept[trial] = sum(_n_critical(layer, (seed, trial, place)) for place, layer in enumerate(layers))
        if progress:
            progress(trial + 1, trials)
    weights, mean = sum(layer.n_weights for layer in layers), statistics.fmean(kept)
    if not mean:
        return SharedCompression(weights, 0.0, reason="The layer graph has no edge, so there is nothing to keep.")
    error = weights / mean**2 * statistics.stdev(kept) / math.sqrt(trials) if trials > 1 else None
    return SharedCompression(weights, mean, weights / mean, error, trials, seed)


def _n_critical(layer: LayerShape, entropy: tuple[int, ...]) -> int:
    """Return the critical weights of a random normal kernel; of a dense layer, the edges of its spanning tree."""
    if not isinstance(layer, Conv):
        return layer.n_vertices - layer.n_components
    from topobounds.topology.convolution import critical_kernel_weights

    return critical_kernel_weights(np.random.default_rng(entropy).standard_normal(layer.weight_shape), layer).n_critical
