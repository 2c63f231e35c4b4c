"""What is known of a tensor before it is pruned: its graphs, their forests and diagrams; found here or in a worker."""

import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import argument_error
from topobounds._types import Array
from topobounds.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from topobounds.checkpoint.location import path_elsewhere
from topobounds.checkpoint.per_tensor_arrays import MasksOrScores, PerTensorArrays, scores_not_finite
from topobounds.layers import LayerTensor
from topobounds.pruning.allocations import Profile
from topobounds.pruning.report import NOT_FINITE
from topobounds.topology.layer_topology import layer_topology
from topobounds.topology.persistence import PersistenceDiagram
from topobounds.weights import count_non_zero, non_zero, weight_array, what_is_not_finite

# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """The files of a pruning.

    Attributes
    ----------
    checkpoint : Checkpoint
        The weights.
    scored : PerTensorArrays or None
        What is taken for them.
    """

    checkpoint: Checkpoint
    scored: PerTensorArrays | None

    def read(self, name: str) -> tuple[Array, Array | None]:
        """Read a tensor that is pruned, and the scores that stand for it.

        Raises
        ------
        CheckpointError
            If a file is damaged there.
        """
        return self.checkpoint.tensor(name), None if self.scored is None else self.scored.array(name)


def opened_scores(
    scores: MasksOrScores | None, shapes: Mapping[str, tuple[int, ...]], wanted: Collection[str]
) -> AbstractContextManager[PerTensorArrays | None]:
    """Open what is taken for the weights, and check its names and shapes, as `PerTensorArrays` does."""
    return nullcontext() if scores is None else PerTensorArrays("scores", scores, shapes, wanted)


@dataclass(frozen=True)
class Places:
    """Where workers find the files of a pruning.

    Attributes
    ----------
    source : str
        The weights.
    scores : str or None
        What is taken for them.
    shapes : mapping of str to tuple of int
        Of the tensors; empty without scores.
    """

    source: str
    scores: str | None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str | os.PathLike[str], scores: MasksOrScores | None) -> "Places":
        """Return the places of files.

        Raises
        ------
        ValueError
            If the scores are arrays, which are not sent.
        """
        if isinstance(scores, Mapping):
            rule = "a path where 'executor' does the work, for arrays are not sent"
            raise argument_error("scores", rule, "a mapping")
        return cls(path_elsewhere(source), None if scores is None else path_elsewhere(scores))

    @contextmanager
    def opened(self) -> Iterator[Files]:
        """Open the files, in a worker."""
        with open_checkpoint(self.source) as checkpoint, opened_scores(self.scores, self.shapes, ()) as scored:
            yield Files(checkpoint, scored)


def checksum_of(array: Array, scores: Array | None) -> int:
    """Return the CRC-32 of what was read of a tensor."""
    found = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
    return found if scores is None else zlib.crc32(np.ascontiguousarray(scores).view(np.uint8).data, found)


# -- before it is pruned ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What is known of a tensor before it is pruned; small beside it.

    Attributes
    ----------
    layer : LayerTensor
        The graphs that it holds.
    critical : ndarray of int64
        Flat indices of the weights that carry its topology.
    diagrams : list of tuple
        What tells the diagram of each graph.
    neural_persistence : float
        Normalised, summed over its graphs.
    profile : Profile
        What allocations go by.
    itemsize : int
        Bytes of a weight, as they are ranked.
    checksum : int or None
        Of what a worker read; None where this process did.
    """

    layer: LayerTensor
    critical: NDArray[np.int64]
    diagrams: list[tuple[Any, ...]]
    neural_persistence: float
    profile: Profile
    itemsize: int
    checksum: int | None = None


def survey(layer: LayerTensor, array: Array, scores: Array | None) -> Surveyed | str:
    """Return what is known of a tensor; as a text the reason why it cannot be pruned, which the report lists."""
    survivors = count_non_zero(array)
    if not survivors:
        return "all its weights are zero"
    if scores is None:
        weights, support = weight_array(array), None
    else:
        if found := _not_finite(weight_array(array)):
            return f"its weights{NOT_FINITE}{found}"
        try:
            weights, support = weight_array(scores), non_zero(array)
        except ValueError as error:
            return f"its scores cannot be used: {str(error).rstrip('.')}"
    try:
        topology = layer_topology(layer, weights, support)
    except ValueError as error:
        whose = "its weights" if scores is None else "its scores"
        found = _not_finite(weights) if scores is None else scores_not_finite(weights, array)
        return f"{whose}{NOT_FINITE}{found}" if found else str(error).rstrip(".")
    return Surveyed(
        layer=layer,
        critical=np.flatnonzero(topology.critical),
        diagrams=[signature(diagram) for diagram in topology.diagrams],
        neural_persistence=topology.neural_persistence,
        profile=Profile.of(topology, array.size, survivors),
        itemsize=weights.itemsize,
    )


def _not_finite(weights: Array) -> str | None:
    return what_is_not_finite(weights.reshape(len(weights), -1), shape=weights.shape)


def survey_at(places: Places, layer: LayerTensor) -> Surveyed | str:
    """Return what `survey` does from another process, which opens the files itself and notes what it has read."""
    with places.opened() as files:
        try:
            array, scores = files.read(layer.name)
        except CheckpointError as error:
            return str(error).rstrip(".")
        found = survey(layer, array, scores)
        return found if isinstance(found, str) else replace(found, checksum=checksum_of(array, scores))


def signature(diagram: PersistenceDiagram) -> tuple[Any, ...]:
    """Return what tells a diagram from others."""
    return diagram.deaths, diagram.n_essential, diagram.w_max
