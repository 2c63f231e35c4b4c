"""What may be passed as weights or as a mask, and the array it is read as.

Every function that takes weights reads them here, so that a torch tensor, a list and an array of any floating-point
type give the same numbers, and a bad entry gives the same message.
"""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error

MAGNITUDE_BITS = {2: 0x7FFF, 4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}  # by size in bytes: all but the sign
_NATIVE_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_EXACT_INTEGERS = 2**53
_CELLS_CHECKED = 2**20  # at a time, so that no array of the layer's size is made


def order_keys(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return the bits of |w| as unsigned integers, which sort as |w| does, equal where |w| is equal.

    Examples
    --------
    >>> order_keys(np.array([[0.5, -0.5, -0.0]]))[0].tolist()
    [4602678819172646912, 4602678819172646912, 0]
    """
    bits = matrix.view(f"u{matrix.itemsize}")
    keys: NDArray[Any] = bits & bits.dtype.type(MAGNITUDE_BITS[matrix.itemsize])
    return keys


def non_zero(weights: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where weights are not zero; -0 is zero.

    Examples
    --------
    >>> non_zero(np.array([[0.5, -0.0, 0.0]])).tolist()
    [[True, False, False]]
    """
    if weights.itemsize not in MAGNITUDE_BITS or weights.dtype.name not in _NATIVE_FLOATS or not weights.dtype.isnative:
        return np.asarray(weights != 0)
    flat = np.ascontiguousarray(weights).reshape(-1)
    found = np.empty(flat.size, np.bool_)
    for start in range(0, flat.size, _CELLS_CHECKED):  # in the cache: ml_dtypes compares one by one
        part = slice(start, start + _CELLS_CHECKED)
        np.not_equal(order_keys(flat[part]), 0, out=found[part])
    return found.reshape(weights.shape)


def count_non_zero(weights: NDArray[Any]) -> int:
    """Return how many weights are not zero; -0 is zero.

    Examples
    --------
    >>> count_non_zero(np.array([[0.5, -0.0, 0.0]]))
    1
    """
    flat = np.ascontiguousarray(weights).reshape(-1)
    starts = range(0, flat.size, _CELLS_CHECKED)
    return sum(int(np.count_nonzero(non_zero(flat[start : start + _CELLS_CHECKED]))) for start in starts)


def weight_matrix(weights: ArrayLike) -> NDArray[Any]:
    """Return `weights` as a matrix of float16, bfloat16, float32 or float64.

    Parameters
    ----------
    weights : array_like of shape (m, n)
        Real numbers: any floating-point type of at most 64 bits, with the types of ml_dtypes; integers and booleans,
        which are converted; a torch tensor on any device. At least one row and one column.

    Returns
    -------
    ndarray of shape (m, n)
        The same values. Nothing is copied where the type is one of the four.

    Raises
    ------
    ValueError
        If `weights` is not a real matrix with at least one row and one column, or holds an integer beyond 2**53
        that float64 cannot tell from its neighbours.
    """
    array = as_array("weights", weights)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            "Argument 'weights' must be a matrix with at least one row and one column, "
            f"not an array of shape {array.shape}."
        )
    return _as_floats(array)


def weight_array(weights: ArrayLike) -> NDArray[Any]:
    """Return `weights`, of any shape, as an array of float16, bfloat16, float32 or float64.

    Parameters
    ----------
    weights : array_like
        As in `weight_matrix`, with any number of axes and at least one entry.

    Returns
    -------
    ndarray of the same shape
        The same values. Nothing is copied where the type is one of the four.

    Raises
    ------
    ValueError
        As `weight_matrix`, but for the shape.
    """
    array = as_array("weights", weights)
    if 0 in array.shape:
        raise ValueError(
            f"Argument 'weights' must be an array with at least one entry, not one of shape {array.shape}."
        )
    return _as_floats(array)


def _as_floats(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.name in _NATIVE_FLOATS:
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "biu":
        return _from_integers(array)
    if array.dtype.name.startswith(("float8", "float6", "float4", "int4", "uint4", "int2", "uint2")):
        return array.astype(np.float32)
    raise ValueError(
        f"Argument 'weights' must hold real numbers of at most 64 bits, not values of type {array.dtype.name}."
    )


def as_array(name: str, values: Any) -> NDArray[Any]:
    """Return `values` as an array: a torch tensor too, with or without a gradient, on any device.

    Raises
    ------
    ValueError
        If it is no array of numbers, or a masked array of numpy that hides some; `name` is the argument to blame.
    """
    if type(values) is np.ndarray and values.dtype != object:  # not one of its subclasses, which may hide entries
        return values
    if np.ma.is_masked(values):
        raise argument_error(name, "an array that hides no entries (a support goes into 'mask')", "a masked array")
    try:
        array = np.asarray(_on_cpu(values))
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"Argument '{name}' must be an array of numbers, and this is none: {reason}.") from None
    if array.ndim == 0 and array.dtype == object:
        raise argument_error(name, "an array of numbers", type(values).__name__)
    return array


def _on_cpu(values: Any) -> Any:
    if hasattr(values, "detach"):  # a torch tensor that requires a gradient or lies on a GPU refuses __array__
        values = values.detach().cpu().resolve_conj().resolve_neg()  # numpy knows neither of these bits
        name = str(values.dtype).removeprefix("torch.")
        if name.startswith(("bfloat16", "float8")):  # torch cannot hand these types to numpy, but their bits
            bits = values.new_empty(0).to(float).short() if name == "bfloat16" else values.new_empty(0).to(float).byte()
            values = values.view(bits.dtype).numpy().view(getattr(ml_dtypes, name))
    return values


def mask_matrix(mask: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return `mask` as a boolean matrix of the given shape; integers 0 and 1 and floats 0.0 and 1.0 are accepted.

    Raises
    ------
    ValueError
        If it has another shape, or holds anything but true and false.
    """
    array = as_array("mask", mask)
    if array.shape != shape:
        raise ValueError(f"Argument 'mask' must have the shape of the weights, {shape}, not {array.shape}.")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise argument_error("mask", "an array of true and false", array.dtype.name)
    return array.astype(np.bool_, copy=False)


def check_finite(
    matrix: NDArray[Any],
    support: NDArray[np.bool_] | None = None,
    shape: tuple[int, ...] | None = None,
    name: str = "weights",
) -> None:
    """Refuse a matrix with NaN or infinity on its support, saying how many and where the first is.

    Parameters
    ----------
    matrix : ndarray of floats, two-dimensional
        The weights.
    support : ndarray of bool of the shape of `matrix`, optional
        Where they are looked at.
    shape : tuple of int, optional
        The shape that the weights were given in, in which a place is named; that of `matrix` if left out.
    name : str
        The argument to blame.

    Raises
    ------
    ValueError
        If there is one.
    """
    n_bad, first = 0, None
    step = max(_CELLS_CHECKED // matrix.shape[1], 1)
    for start in range(0, len(matrix), step):
        bad = ~np.isfinite(matrix[start : start + step])
        if support is not None:
            bad &= support[start : start + step]
        if first is None and bad.any():
            row, col = np.argwhere(bad)[0]
            first = int(start + row), int(col)
        n_bad += int(np.count_nonzero(bad))
    if first is not None:
        flat = first[0] * matrix.shape[1] + first[1]
        raise ValueError(
            f"Argument '{name}' must be finite, but {n_bad} of its {matrix.size} entries are NaN or infinite, "
            f"the first at {_place(flat, shape or matrix.shape)}: {float(matrix[first])}."
        )


def _from_integers(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.itemsize == 8 and max(-int(array.min()), int(array.max())) > _EXACT_INTEGERS:
        flat = int(np.argmax((array > _EXACT_INTEGERS) | (array < -_EXACT_INTEGERS)))
        raise ValueError(
            "Argument 'weights' must hold no integer beyond 2**53, where float64 would merge neighbours, but holds "
            f"{array.flat[flat]} at {_place(flat, array.shape)}."
        )
    return array.astype(np.float64)


def _place(flat: int, shape: tuple[int, ...]) -> str:
    """Return where an entry is, in words; `flat` is its row-major index."""
    index = tuple(int(i) for i in np.unravel_index(flat, shape))
    return f"row {index[0]}, column {index[1]}" if len(index) == 2 else f"index {index}"
