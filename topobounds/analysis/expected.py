"""What chance gives for the measured numbers of one layer: the columns of a report that stand beside them."""

from typing import Any, cast

from numpy.typing import NDArray

from topobounds.chance.measured_layer import MeasuredKernel, MeasuredLayer
from topobounds.chance.overlap import OverlapNull, kernel_overlap_null, layer_overlap_null
from topobounds.chance.persistence import PersistenceNull, kernel_persistence_null, layer_persistence_null
from topobounds.chance.sampling import TRIALS, Sampling
from topobounds.layers import Conv, SingleTensorLayer
from topobounds.theory.critical_rank import critical_rank_law
from topobounds.theory.enclosure import Enclosure
from topobounds.topology.layer_topology import Topology
from topobounds.topology.spanning import SpanningForest

_FEWEST_TRIALS = 20
_SAMPLED_NEURONS = 2**19  # over all trials of a layer: about a second
_WEIGHTS_PER_NEURON = 8  # of a kernel, that take as long to order as one neuron takes to join
_ORDER = 2  # of the norm of the neural persistence in a report
NOT_ASKED = "What chance gives was not asked for."
NO_GRAPH = "The layer has no known graph."
_NO_LAW_OF_KERNELS = "The law of the critical rank is not known for kernels."
_NO_LAW_WITH_ZEROS = "The law of the critical rank is known for layers without zeros."


def default_trials(n_neurons: int) -> int:
    """Return how many random orders are drawn where no number is asked for: 200, and down to 20 for large layers.

    Examples
    --------
    >>> default_trials(784 + 300), default_trials(4096 + 4096), default_trials(10**6)
    (200, 64, 20)
    """
    return max(_FEWEST_TRIALS, min(TRIALS, _SAMPLED_NEURONS // n_neurons))


def expected_columns(
    weights: NDArray[Any], layer: SingleTensorLayer, topology: Topology, n_nonzero: int, trials: int | None, seed: int
) -> dict[str, Any]:
    """Return the columns of chance of a `LayerReport`.

    Parameters
    ----------
    weights : ndarray
        A matrix, of either orientation, or the kernel of the convolution.
    layer : Dense, Recurrent or Conv
        Its shape.
    topology : Topology
        Of these weights.
    n_nonzero : int
        How many of them are not zero.
    trials : int or None
        Random orders where there is sampling: 0 for none, at least 2, or None for `default_trials`.
    seed : int
        What draws them.

    Returns
    -------
    dict of str to object
        By the names of the fields of `LayerReport`.
    """
    work = (
        max(layer.n_vertices, layer.n_weights // _WEIGHTS_PER_NEURON) if isinstance(layer, Conv) else layer.n_vertices
    )
    count = default_trials(work) if trials is None else trials
    sampling = Sampling(count, seed) if count else None
    overlap, persistence = _nulls(weights, layer, topology, n_nonzero, sampling)
    reasons = [null.reason for null in (overlap, persistence) if null.reason]
    columns = _of_overlap(overlap) | _of_persistence(persistence)
    if isinstance(layer, Conv):
        reasons.append(_NO_LAW_OF_KERNELS)
    elif n_nonzero == layer.n_weights:
        columns |= _of_critical_rank(layer)
    elif overlap.alpha:
        reasons.append(_NO_LAW_WITH_ZEROS)
    trials_drawn = overlap.trials or persistence.trials
    return columns | {
        "trials": trials_drawn,
        "seed": seed if trials_drawn else None,
        "chance_reason": " ".join(dict.fromkeys(reasons)) or None,
    }


def _nulls(
    weights: NDArray[Any], layer: SingleTensorLayer, topology: Topology, n_nonzero: int, sampling: Sampling | None
) -> tuple[OverlapNull, PersistenceNull]:
    (forest,) = topology.forests
    if isinstance(forest, SpanningForest):
        matrix = MeasuredLayer.of(weights, forest=forest, n_nonzero=n_nonzero, largest=topology.largest)
        return (
            layer_overlap_null(matrix, forest.alpha, sampling),
            layer_persistence_null(matrix, _ORDER, sampling, in_report=True),
        )
    kernel = MeasuredKernel.of(weights, cast(Conv, layer), critical=forest)
    return kernel_overlap_null(kernel, None, sampling), kernel_persistence_null(kernel, _ORDER, sampling)


def _of_overlap(null: OverlapNull) -> dict[str, Any]:
    return {
        "overlap_expected": _middle(null.expected),
        "overlap_deviation": null.deviation,
        "overlap_z": null.z,
        "overlap_status": null.status,
        "overlap_deviation_status": null.deviation_status,
    }


def _of_persistence(null: PersistenceNull) -> dict[str, Any]:
    return {
        "neural_persistence_expected": null.norm,
        "neural_persistence_deviation": null.deviation,
        "neural_persistence_z": null.z,
        "neural_persistence_share": null.share,
        "neural_persistence_range": None if null.range is None else (null.range.lower, null.range.upper),
        "neural_persistence_status": null.status,
        "neural_persistence_deviation_status": null.deviation_status,
    }


def _of_critical_rank(layer: SingleTensorLayer) -> dict[str, Any]:
    """Return the median of the certified law and its 5% and 95% quantiles, as densities."""
    law = critical_rank_law(layer.n_inputs, layer.n_outputs)
    weights = layer.n_weights
    middle = cast(float, _middle(law.median))
    return {
        "safe_density_expected": middle / weights,
        "safe_density_range": (law.low.lower / weights, law.high.upper / weights),
    }


def _middle(interval: Enclosure | None) -> float | None:
    return None if interval is None else (interval.lower + interval.upper) / 2
