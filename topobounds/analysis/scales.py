"""What the scales of a layer's neurons explain of its numbers: the columns of a report that are asked for apart."""

from typing import Any

from numpy.typing import NDArray

from topobounds.analysis.reports import LayerReport, ScaleShares
from topobounds.chance.scales import ScaleComparison, scale_null
from topobounds.layers import Conv, SingleTensorLayer
from topobounds.theory.ties import TIES_DECIDE

_MOST_SAMPLES = 100
_FEWEST_SAMPLES = 5
_SAMPLED_CELLS = 2**24  # over all samples of a layer: some seconds
_NO_SCALES_OF_KERNELS = "The scales of neurons are not known for kernels."


def scale_shares(
    report: LayerReport, weights: NDArray[Any], layer: SingleTensorLayer | None, trials: int | None, seed: int
) -> ScaleShares:
    """Return how much of a layer's overlap and persistence its values, the scales of its neurons, and neither give.

    Parameters
    ----------
    report : LayerReport
        Of this layer; what chance gives is taken from it.
    weights : ndarray
        The matrix.
    layer : Dense or Recurrent or Conv, or None
        Its shape.
    trials : int or None
        Samples, at least 2; from 5 to 100, the fewer the larger the layer, for None. With 0 there are no shares.
    seed : int
        What draws them.
    """
    if layer is None or isinstance(layer, Conv):
        return ScaleShares(reason=_NO_SCALES_OF_KERNELS)
    if trials == 0:
        return ScaleShares(reason="It would have to be sampled, and no trials were asked for.")
    count = max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _SAMPLED_CELLS // weights.size)) if trials is None else trials
    try:
        null = scale_null(weights, trials=count, seed=seed)
    except ValueError as error:
        return ScaleShares(reason=str(error))
    reasons = [report.chance_reason] if report.overlap_expected is None and report.chance_reason else []
    if null.overlap.refitted_z is None and null.overlap.deviation:
        reasons.append(f"{TIES_DECIDE}, the overlap is another. So there is no overlap_z.")
    share = report.neural_persistence_share
    return ScaleShares(
        overlap=_shares(null.overlap, report.overlap_expected),
        overlap_z=null.overlap.refitted_z,
        neural_persistence=_shares(null.persistence, None if share is None else share**2 * null.persistence.measured),
        neural_persistence_z=null.persistence.refitted_z,
        trials=count,
        seed=seed,
        reason=" ".join(reasons) or None,
    )


def _shares(compared: ScaleComparison, by_values: float | None) -> tuple[float, float, float] | None:
    """Return the shares of a measured number: by values alone, what the scales add, and the rest."""
    if by_values is None or not compared.measured:
        return None
    by_scales = compared.expected + compared.bias
    parts = (by_values, by_scales - by_values, compared.measured - by_scales)
    values, scales, rest = (part / compared.measured for part in parts)
    return values, scales, rest
