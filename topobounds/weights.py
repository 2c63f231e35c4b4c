"""What may be passed as weights or as a mask, and the array it is read as.

Every function that takes weights reads them here, so that a torch tensor, a list and an array of any floating-point
type give the same numbers, and a bad entry gives the same message.
"""

import functools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, integer, items

MAGNITUDE_BITS = {1: 0x7F, 2: 0x7FFF, 4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}  # by size in bytes: all but the sign
_NATIVE_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_SMALL_TYPES = ("float8", "float6", "float4", "int4", "uint4", "int2", "uint2")  # of ml_dtypes: one byte each
_SIGNED_BYTES = ("float8_e3", "float8_e4", "float8_e5")  # not e8m0, which has no sign and no zero
_EXACT_INTEGERS = 2**53
_CELLS_CHECKED = 2**20  # at a time, so that no array of the layer's size is made


def key_bits(matrix: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the bits of weights, and which of them sort as |w| does: all but the sign; int8 is returned as it is.

    Nothing is copied, but for the types of ml_dtypes whose NaN is the negative zero: there NaN is made 0x80.

    Parameters
    ----------
    matrix : ndarray
        As `stored_matrix` returns it.
    """
    if matrix.dtype.name.endswith("fnuz"):
        keys = np.arange(256, dtype=np.uint8) & np.uint8(0x7F)
        keys[0x80] = 0x80
        return keys[matrix.view(np.uint8)], 0xFF
    if matrix.dtype in (np.int8, np.uint8):
        return matrix, 0xFF
    return matrix.view(f"u{matrix.itemsize}"), MAGNITUDE_BITS[matrix.itemsize]


@functools.cache
def infinity_key(dtype: np.dtype[Any]) -> int:
    """Return the least key that no finite weight of a type has: that of infinity, of NaN, or one that is no key."""
    if dtype.kind in "iu":
        return 0xFF if dtype == np.int8 else 0x100
    if dtype.itemsize > 1:
        return int(order_keys(np.array([[np.inf]], dtype))[0, 0])
    values = np.arange(0x80, dtype=np.uint8).view(dtype).astype(np.float32)
    return int(np.append(np.isfinite(values), False).argmin())


def order_keys(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers that sort as |w| does, equal where |w| is equal: the bits of |w|.

    Examples
    --------
    >>> order_keys(np.array([[0.5, -0.5, -0.0]]))[0].tolist()
    [4602678819172646912, 4602678819172646912, 0]
    >>> order_keys(np.array([[-128, 127]], np.int8))[0].tolist()
    [128, 127]
    """
    bits, magnitude = key_bits(matrix)
    if bits.dtype == np.int8:
        bits = np.abs(bits).view(np.uint8)  # of -128 too, which overflows to the bits of 128
    keys: NDArray[Any] = bits & bits.dtype.type(magnitude)
    return keys


def non_zero(weights: "NDArray[Any] | ScaledWeights", out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return where weights are not zero; -0 is zero. Those with scales are multiplied out a part at a time, if at all.

    Parameters
    ----------
    weights : ndarray or ScaledWeights
        Of any shape.
    out : ndarray of bool of that shape, optional
        Contiguous; what is returned.

    Examples
    --------
    >>> non_zero(np.array([[0.5, -0.0, 0.0]])).tolist()
    [[True, False, False]]
    """
    if isinstance(weights, ScaledWeights):
        return _non_zero_products(weights, np.empty(weights.shape, np.bool_) if out is None else out)
    name = weights.dtype.name
    one_by_one = name in ("float16", "bfloat16") or name.startswith(_SIGNED_BYTES)  # as numpy compares these
    if not one_by_one or not weights.dtype.isnative:
        return np.asarray(np.not_equal(weights, 0, out=out))
    if out is None and weights.ndim and weights.flags.f_contiguous and not weights.flags.c_contiguous:
        return non_zero(weights.T).T
    flat = np.ascontiguousarray(weights).reshape(-1)
    found = np.empty(flat.size, np.bool_) if out is None else out.reshape(-1)
    for start in range(0, flat.size, _CELLS_CHECKED):  # in the cache
        part = slice(start, start + _CELLS_CHECKED)
        np.not_equal(order_keys(flat[part]), 0, out=found[part])
    return found.reshape(weights.shape)


def _non_zero_products(weights: "ScaledWeights", found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Write to `found` where codes times their scales, which may underflow, are not zero; return it."""
    codes = weights.codes
    if is_signed_byte(codes.dtype):
        values = np.abs(_values_of_bytes(codes.dtype))
        least = float(np.min(values, where=values > 0, initial=np.inf))
        if float(np.abs(weights.scale).min(initial=np.inf)) * least >= np.finfo(np.float32).smallest_subnormal:
            return non_zero(codes, out=found)
    step = max(_CELLS_CHECKED * len(weights) // max(weights.size, 1), 1)
    for start in range(0, len(weights), step):
        non_zero(np.asarray(weights[start : start + step]), out=found[start : start + step])
    return found


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


def stored_matrix(weights: "ArrayLike | ScaledWeights") -> "NDArray[Any] | ScaledWeights":
    """Return `weights` as `weight_matrix` does, but int8, uint8 and 8-bit floats with a sign as they are.

    `ScaledWeights` of such codes, uint8 aside, are returned as they are too.

    Raises
    ------
    ValueError
        As `weight_matrix`.
    """
    given = weights.codes if isinstance(weights, ScaledWeights) else as_array("weights", weights)
    is_byte = given.dtype == np.uint8 or is_signed_byte(given.dtype)
    if is_byte and given.ndim == 2 and given.size:
        if not isinstance(weights, ScaledWeights):
            return given
        if given.dtype != np.uint8:
            return weights
    return weight_matrix(weights)


def is_signed_byte(dtype: np.dtype[Any]) -> bool:
    """Whether a type is int8 or an 8-bit float with a sign, whose order is known from the bits."""
    return dtype == np.int8 or dtype.name.startswith(_SIGNED_BYTES)


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
    if array.dtype.name.startswith(_SMALL_TYPES):
        return _values_of_bytes(array.dtype)[array.view(np.uint8)]
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
    """Return `mask` as a boolean array of the given shape; integers 0 and 1 and floats 0.0 and 1.0 are accepted.

    Raises
    ------
    ValueError
        If it has another shape, or holds anything but true and false.
    """
    array = as_array("mask", mask)
    if array.shape != shape:
        raise ValueError(f"Argument 'mask' must have the shape of the weights, {shape}, not {array.shape}.")
    if array.dtype != np.bool_ and not (usable := np.isin(array, (0, 1))).all():
        first = int(np.argmin(usable))
        rule = "an array of true and false, or of 1 and 0"
        raise ValueError(f"Argument 'mask' must be {rule}, but at {_place(first, shape)} it is {array.flat[first]}.")
    return array.astype(np.bool_, copy=False)


def check_finite(
    matrix: "NDArray[Any] | ScaledWeights",
    support: NDArray[np.bool_] | None = None,
    shape: tuple[int, ...] | None = None,
    name: str = "weights",
) -> None:
    """Refuse a matrix with NaN or infinity on its support, saying how many and where the first is.

    Parameters
    ----------
    matrix, support, shape
        As in `what_is_not_finite`.
    name : str
        The argument to blame.

    Raises
    ------
    ValueError
        If there is one.
    """
    found = what_is_not_finite(matrix, support, shape)
    if found:
        raise ValueError(f"Argument '{name}' must be finite, but {found}.")


def what_is_not_finite(
    matrix: "NDArray[Any] | ScaledWeights",
    support: NDArray[np.bool_] | None = None,
    shape: tuple[int, ...] | None = None,
) -> str | None:
    """Return in words how many entries of a matrix are NaN or infinite, and where the first is; None if none is.

    Parameters
    ----------
    matrix : ndarray of floats or ScaledWeights, two-dimensional
        The weights.
    support : ndarray of bool of the shape of `matrix`, optional
        Where they are looked at.
    shape : tuple of int, optional
        The shape that the weights were given in, in which a place is named; that of `matrix` if left out.
    """
    n_bad, first, value = 0, None, 0.0
    step = max(_CELLS_CHECKED // matrix.shape[1], 1)
    for start in range(0, len(matrix), step):
        part = np.asarray(matrix[start : start + step])
        with np.errstate(invalid="ignore"):  # ml_dtypes warns of signalling NaN
            bad = ~np.isfinite(part)
        if support is not None:
            bad &= support[start : start + step]
        if first is None and bad.any():
            row, col = np.argwhere(bad)[0]
            first, value = (int(start + row), int(col)), float(part[row, col])
        n_bad += int(np.count_nonzero(bad))
    if first is None:
        return None
    place = _place(first[0] * matrix.shape[1] + first[1], shape or matrix.shape)
    return f"{n_bad} of its {matrix.size} entries are NaN or infinite, the first at {place}: {value}"


class ScaledWeights:
    """Quantised weights as they are stored: small codes, and the scales that these are multiplied by.

    Every function that takes weights takes them, and gives what it gives for ``np.asarray`` of them: each weight is
    ``float32(code) * float32(scale)``, rounded once, to float32.

    Parameters
    ----------
    codes : array_like of any shape, at least one axis
        Integers of at most 16 bits, or floating-point numbers of at most 16 bits with the types of ml_dtypes.
    scale : array_like
        Finite. One number for all codes; or an array with as many axes as `codes`, of as many entries along each axis
        as it has blocks, or of one: shape (m, 1) for a scale per row, (1, n) per column, (m, n / 32) per group.
    block : int or sequence of int, optional
        How many codes share a scale along each axis; an integer means so many neighbours in a row. The last block may
        be shorter. One by default.

    Raises
    ------
    ValueError
        If the codes or scales are of another kind, their shapes do not fit, or a scale is NaN or infinite.

    Examples
    --------
    >>> rows = ScaledWeights(np.array([[127, -128], [3, 0]], np.int8), [[0.5], [2.0]])
    >>> np.asarray(rows).tolist()
    [[63.5, -64.0], [6.0, 0.0]]
    >>> groups = ScaledWeights(np.ones((2, 6), np.int8), [[1, 2], [3, 4]], block=4)
    >>> np.asarray(groups).tolist()
    [[1.0, 1.0, 1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0, 4.0, 4.0]]
    >>> np.asarray(groups[:, 3:]).tolist(), groups.T.shape
    ([[1.0, 2.0, 2.0], [3.0, 4.0, 4.0]], (6, 2))
    """

    codes: NDArray[Any]
    """The stored codes."""
    scale: NDArray[np.float32]
    """The scales, with as many axes as the codes."""
    block: tuple[int, ...]
    """How many codes share a scale along each axis; 1 where the scale has one entry there."""

    def __init__(self, codes: ArrayLike, scale: ArrayLike, block: int | Sequence[int] | None = None) -> None:
        stored, scales = as_array("codes", codes), as_array("scale", scale)
        if stored.itemsize > 2 or not is_real(stored.dtype):
            raise argument_error("codes", "integers or floats of at most 16 bits", stored.dtype.name)
        if not stored.ndim:
            raise argument_error("codes", "an array with at least one axis", stored)
        if not is_real(scales.dtype):
            raise argument_error("scale", "an array of real numbers", scales.dtype.name)
        if scales.size == 1:
            scales = scales.reshape((1,) * stored.ndim)
        if scales.ndim != stored.ndim:
            rule = f"one number or an array with {stored.ndim} axes, as the codes"
            raise argument_error("scale", rule, f"an array of shape {scales.shape}")
        blocks = _blocks(block, stored.ndim)
        for side, given, step in zip(stored.shape, scales.shape, blocks, strict=True):
            if given not in (1, -(-side // step)):
                rule = f"an array of 1 or {-(-side // step)} entries along an axis of {side} codes in blocks of {step}"
                raise argument_error("scale", rule, f"an array of shape {scales.shape}")
        with np.errstate(over="ignore"):
            scales = scales.astype(np.float32, copy=False)
        bad = ~np.isfinite(scales)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"Argument 'scale' must be finite in float32, but {np.count_nonzero(bad)} of its {scales.size} entries "
                f"are not, the first at {_place(int(np.flatnonzero(bad)[0]), scales.shape)}: {scales[first]}."
            )
        self.codes, self.scale = stored, scales
        self.block = tuple(step if given > 1 else 1 for step, given in zip(blocks, scales.shape, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the codes."""
        return self.codes.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.codes.ndim

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.codes.size

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """The type of the weights: float32."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and the scales."""
        return self.codes.nbytes + self.scale.nbytes

    @property
    def T(self) -> "ScaledWeights":
        """The same weights with the axes reversed."""
        return self._of(self.codes.T, self.scale.T, self.block[::-1])

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"ScaledWeights(shape={self.shape}, codes={self.codes.dtype.name}, scales={self.scale.shape})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the weights in float32, or then in another type."""
        if copy is False:
            raise ValueError("Weights with scales cannot be an array without a copy.")
        weights = np.empty(self.shape, np.float32)
        table = _values_of_bytes(self.codes.dtype) if self.codes.itemsize == 1 else None
        rows = max(_CELLS_CHECKED // max(self.size // max(len(self), 1), 1), 1)
        for start in range(0, len(self), rows):
            part = self[start : start + rows]
            codes = part.codes.astype(np.float32) if table is None else table[part.codes.view(np.uint8)]
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                np.multiply(codes, part.expanded_scale(), out=weights[start : start + rows])
        return weights if dtype is None else weights.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> "ScaledWeights":
        """Return a part: slices of the axes, with any steps."""
        given = index if isinstance(index, tuple) else (index,)
        if len(given) > self.ndim or not all(isinstance(each, slice) for each in given):
            raise argument_error("index", f"at most {self.ndim} slices", index)
        scale, block = self.scale, list(self.block)
        for axis, part in enumerate(given):
            if scale.shape[axis] == 1:
                continue
            start, stop, step = part.indices(self.shape[axis])
            if step == 1 and start % block[axis] == 0 and start < stop:
                places: Any = slice(start // block[axis], -(-stop // block[axis]))
            else:  # blocks that are cut: a scale for every code along this axis
                places, block[axis] = np.arange(start, stop, step) // block[axis], 1
            scale = scale[(slice(None),) * axis + (places,)]
        return self._of(self.codes[index], scale, tuple(block))

    def reshape(self, *shape: Any) -> "ScaledWeights":
        """Return the same weights in another shape, in row-major order."""
        codes = self.codes.reshape(*shape)
        if codes.shape == self.shape:
            return self
        ones = (1,) * (codes.ndim - 1)
        by_rows = self.scale.size == len(self.scale) and codes.shape[:1] == self.shape[:1]
        if by_rows or self.scale.size == 1:
            return self._of(codes, self.scale.reshape(-1, *ones), (self.block[0], *ones))
        scale = np.broadcast_to(self.expanded_scale(), self.shape).reshape(codes.shape)
        return self._of(codes, scale, (1,) * codes.ndim)

    def expanded_scale(self) -> NDArray[np.float32]:
        """Return the scales in a form that broadcasts against the codes."""
        scale = self.scale
        for axis, step in enumerate(self.block):
            if step > 1:
                scale = np.repeat(scale, step, axis)[(slice(None),) * axis + (slice(self.shape[axis]),)]
        return scale

    @classmethod
    def _of(cls, codes: NDArray[Any], scale: NDArray[np.float32], block: tuple[int, ...]) -> "ScaledWeights":
        """Return weights of parts that have been checked."""
        weights = cls.__new__(cls)
        weights.codes, weights.scale = codes, scale
        weights.block = tuple(step if given > 1 else 1 for step, given in zip(block, scale.shape, strict=True))
        return weights


def _blocks(block: int | Sequence[int] | None, n_axes: int) -> tuple[int, ...]:
    """Return the sides of the blocks that share a scale, along each axis."""
    if block is None:
        return (1,) * n_axes
    if not hasattr(block, "__len__"):
        return (1,) * (n_axes - 1) + (integer("block", block, 1),)
    sides = tuple(integer("block", side, 1) for side in items("block", block, "integers, one for each axis"))
    if len(sides) != n_axes:
        raise argument_error("block", f"an integer or {n_axes} integers, one for each axis of the codes", block)
    return sides


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether a type holds real numbers: of numpy, but for truth values, or of ml_dtypes."""
    return dtype.kind in "iuf" or dtype.name.startswith(("bfloat16", *_SMALL_TYPES))


def every_byte(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the 256 entries that a type of one byte may be stored as, in the order of their bits."""
    return np.arange(256, dtype=np.uint8).view(dtype)


@functools.cache
def _values_of_bytes(dtype: np.dtype[Any]) -> NDArray[np.float32]:
    return every_byte(dtype).astype(np.float32)


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
