"""The pictures of one layer as numbers: what it keeps at each density beside chance, and when its components merge."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds.analysis.expected import default_trials
from topobounds.chance.measured_layer import MeasuredKernel, MeasuredLayer
from topobounds.chance.retention import retention_null
from topobounds.chance.sampling import Sampling
from topobounds.layers import Conv, SingleTensorLayer
from topobounds.topology.layer_topology import graph_topology

POINTS = 40  # of the retention
_MOST_DEATHS = 100
_DIGITS = 5  # that a picture can show


@dataclass(frozen=True)
class LayerCurves:
    """The pictures of one layer, with at most 200 points a curve.

    Attributes
    ----------
    density : tuple of float
        Shares of the stored weights that magnitude pruning keeps, rising.
    measured : tuple of float
        The overlap at each: the share of what carries the topology that is kept.
    expected, low, high : tuple of float or None
        What chance gives, and two standard deviations below and above, within [0, 1]; None where it is not known.
    deaths : tuple of float
        Death values of the persistence diagram, falling; of more than 100 as many quantiles.
    """

    density: tuple[float, ...]
    measured: tuple[float, ...]
    expected: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    deaths: tuple[float, ...]

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "LayerCurves":
        """Return the curves that are in the record of a report."""
        return cls(**{name: tuple(values) for name, values in record.items()})


def layer_curves(
    weights: NDArray[Any], layer: SingleTensorLayer | None, trials: int | None, seed: int
) -> LayerCurves | None:
    """Return the curves of a layer; None where its graph is not known, or has no edge.

    Parameters
    ----------
    weights : ndarray
        The matrix or kernel.
    layer : Dense or Recurrent or Conv, or None
        Its shape.
    trials, seed : int or None, int
        As in `layer_report`.
    """
    if layer is None:
        return None
    topology = graph_topology(layer, weights)
    if not topology.alpha:
        return None
    (forest,) = topology.forests
    measured = MeasuredKernel.of(weights, layer) if isinstance(layer, Conv) else MeasuredLayer.of(weights)
    count = default_trials(layer.n_vertices) if trials is None else trials
    ks = spaced_counts(1, weights.size, POINTS)
    null = retention_null(measured, ks, Sampling(count, seed) if count else None)
    spread = 2 * np.where(np.isnan(null.deviation), 0.0, null.deviation)
    deaths = forest.diagram.deaths
    if deaths.size > _MOST_DEATHS:
        deaths = np.quantile(deaths, np.linspace(1, 0, _MOST_DEATHS))
    return LayerCurves(
        density=_rounded(ks / weights.size),
        measured=_rounded(forest.retention(ks)),
        expected=_rounded(null.expected),
        low=_rounded(np.clip(null.expected - spread, 0, 1)),
        high=_rounded(np.clip(null.expected + spread, 0, 1)),
        deaths=_rounded(deaths),
    )


def spaced_counts(first: int, last: int, points: int) -> NDArray[np.int64]:
    """Return up to so many integers from `first` to `last`, rising, evenly spaced on a logarithmic scale.

    Examples
    --------
    >>> spaced_counts(1, 100, 5).tolist()
    [1, 3, 10, 31, 100]
    """
    spaced = np.clip(np.geomspace(first, last, points), first, last).astype(np.int64)
    return np.unique([*spaced.tolist(), last])


def _rounded(values: NDArray[np.float64]) -> tuple[Any, ...]:
    """Return numbers with as many digits as a picture shows, None for those that are not known."""
    return tuple(None if np.isnan(value) else float(f"{value:.{_DIGITS}g}") for value in values.tolist())
