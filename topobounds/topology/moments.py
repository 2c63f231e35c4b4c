"""How many weights of a tensor are not zero, and how large they are on average, in one read of them."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._engine import NumpyBudget
from topobounds._parallel import processors
from topobounds.weights import weight_array

_ENGINE = NumpyBudget("topobounds._kernels.magnitudes", cells=2**22, loaded_cells=2**16)
_CHUNK = 2**19  # stays in a cache, where it is read twice
_TASK = 4 * _CHUNK
_SMALLEST = 1e-290  # of a sum of squares, of which none has lost digits that count


class WeightMoments(NamedTuple):
    """What one read of a tensor tells.

    Attributes
    ----------
    nonzero : int
        Weights that are not zero.
    rms : float
        The square root of the mean squared weight, zeros included.
    """

    nonzero: int
    rms: float


def weight_moments(weights: ArrayLike) -> WeightMoments:
    """Return how many weights are not zero, and the root of their mean square.

    Parameters
    ----------
    weights : array_like of any shape
        As in `topobounds.weights.weight_array`. Finite, else `rms` is not finite either.

    Returns
    -------
    WeightMoments
        Squares are added up in double precision, in an order that does not depend on the threads.

    Raises
    ------
    ValueError
        As `weight_array`.

    Examples
    --------
    >>> weight_moments([[3.0, 0.0], [0.0, -4.0]])
    WeightMoments(nonzero=2, rms=2.5)
    """
    array = weight_array(weights)
    flat = array.ravel(order="K")  # no copy of what is contiguous
    nonzero, total = _added(flat)
    if nonzero and not _SMALLEST < total < math.inf:
        return WeightMoments(nonzero, _scaled_rms(flat))
    return WeightMoments(nonzero, math.sqrt(total / flat.size))


def _added(flat: NDArray[Any]) -> tuple[int, float]:
    """Return how many entries are not zero, and the sum of the squares, infinite where it overflows."""
    if _ENGINE.affords(flat.size):
        values = flat.astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            return int(np.count_nonzero(values)), float(values @ values)
    from topobounds._kernels.magnitudes import add_squares, add_squares_of_bfloat16  # noqa: PLC0415 (loads numba)

    sums_of = add_squares
    if flat.dtype.name == "bfloat16":
        flat = flat.view(np.uint16)
        sums_of = add_squares_of_bfloat16

    def add(first: int) -> list[tuple[float, int]]:
        last = min(first + _TASK, flat.size)
        return [sums_of(_in_numpy_type(flat[at : at + _CHUNK])) for at in range(first, last, _CHUNK)]

    with ThreadPoolExecutor(processors()) as pool:
        sums = [pair for pairs in pool.map(add, range(0, flat.size, _TASK)) for pair in pairs]
    try:
        total = math.fsum(total for total, _ in sums)
    except OverflowError:
        total = math.inf
    return sum(int(nonzero) for _, nonzero in sums), total


def _scaled_rms(flat: NDArray[Any]) -> float:
    """Return the root mean square of entries whose squares are too large or too small, by the largest of them."""
    chunks = [flat[at : at + _CHUNK] for at in range(0, flat.size, _CHUNK)]
    largest = float(np.max([np.max(np.abs(chunk.astype(np.float64))) for chunk in chunks]))
    if not math.isfinite(largest):
        return largest
    with np.errstate(under="ignore"):
        total = math.fsum(float(np.sum((chunk.astype(np.float64) / largest) ** 2)) for chunk in chunks)
    return largest * math.sqrt(total / flat.size)


def _in_numpy_type(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in a type that kernels can read."""
    return values.astype(np.float32) if values.dtype == np.float16 else values
