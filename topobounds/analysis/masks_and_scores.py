"""The weights of a tensor that its mask leaves, and the scores that rank them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds.analysis.errors import UnreadTensorError
from topobounds.checkpoint import CheckpointError
from topobounds.checkpoint.per_tensor_arrays import PerTensorArrays, scores_not_finite
from topobounds.weights import mask_matrix, non_zero, weight_array, what_is_not_finite


def masked_weights(weights: NDArray[Any], masks: PerTensorArrays | None, name: str) -> NDArray[Any]:
    """Return the weights of a tensor, zero where its mask is; as they are where it has none.

    Raises
    ------
    UnreadTensorError
        If the mask holds anything but true and false, or cannot be read.
    """
    if masks is None or name not in masks:
        return weights
    try:
        mask = mask_matrix(masks.array(name), weights.shape)
    except (ValueError, CheckpointError) as error:
        raise UnreadTensorError(f"Its mask in {masks.label} cannot be used. {error}", "damaged") from None
    return np.where(mask, weights, np.zeros((), weights.dtype))


def scores_for(weights: NDArray[Any], scores: PerTensorArrays, name: str) -> NDArray[Any]:
    """Return the |score| of each weight of a tensor, 0 where the weight is 0.

    Raises
    ------
    UnreadTensorError
        If there are none for it, or they are no real numbers, or not finite where the weight is not 0.
    """
    if name not in scores:
        raise UnreadTensorError(f"{scores.absence}.")
    try:
        found = weight_array(scores.array(name))
    except (ValueError, CheckpointError) as error:
        raise UnreadTensorError(f"Its scores in {scores.label} cannot be used. {error}", "damaged") from None
    _refuse(scores_not_finite(found, weights), f"its scores in {scores.label}")
    return np.where(non_zero(weights), np.abs(found), np.zeros((), found.dtype))


def check_values(array: NDArray[Any], whose: str) -> None:
    """Refuse a tensor that holds NaN or infinity.

    Raises
    ------
    UnreadTensorError
        Saying how many, and where the first is.
    """
    _refuse(what_is_not_finite(array.reshape(len(array), -1), shape=array.shape), whose)


def _refuse(found: str | None, whose: str) -> None:
    if found:
        raise UnreadTensorError(f"{whose[:1].upper()}{whose[1:]} are not finite: {found}.", "not-finite")
