"""Small integers packed one after the other into 32-bit words, and their order and zero points in known formats."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds.weights import ScaledWeights

_WORD = 32
MOST_BITS = 8
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where AWQ puts eight neighbours of a row in a word of eight codes: the place of each of them."""
_AT_A_TIME = 2**22  # codes that are unpacked at once, for odd numbers of bits are spread over as many bytes


def words_of(n_codes: int, bits: int) -> int:
    """Return how many 32-bit words so many codes fill, densely packed.

    Examples
    --------
    >>> words_of(32, 3), words_of(33, 4)
    (3, 5)
    """
    return -(-n_codes * bits // _WORD)


def unpacked(words: NDArray[Any], bits: int, n_codes: int) -> NDArray[np.uint8]:
    """Return the codes that rows of 32-bit words hold, the lowest bits of the first word first.

    Parameters
    ----------
    words : ndarray of int32, last axis of ``words_of(n_codes, bits)`` words
        A code may lie across two words.
    bits : int
        Of a code, 1 to 8.
    n_codes : int
        In a row.

    Returns
    -------
    ndarray of uint8
        From 0 to 2**bits - 1; `n_codes` along the last axis.

    Examples
    --------
    >>> unpacked(np.array([[0x76543210]], np.int32), 4, 7)
    array([[0, 1, 2, 3, 4, 5, 6]], dtype=uint8)
    """
    stored = np.ascontiguousarray(words.astype("<i4", copy=False)).view(np.uint8)
    if bits == 8:
        return stored[..., :n_codes]
    rows = stored.reshape(-1, stored.shape[-1])
    codes = np.empty((len(rows), n_codes), np.uint8)
    step = max(_AT_A_TIME // max(n_codes, 1), 1)
    for start in range(0, len(rows), step):
        codes[start : start + step] = _rows_unpacked(rows[start : start + step], bits, n_codes)
    return codes.reshape(*stored.shape[:-1], n_codes)


def _rows_unpacked(rows: NDArray[np.uint8], bits: int, n_codes: int) -> NDArray[np.uint8]:
    if 8 % bits == 0:  # no code lies across two bytes
        a_byte = 8 // bits
        codes = np.empty((len(rows), rows.shape[1] * a_byte), np.uint8)
        for place in range(a_byte):
            codes[:, place::a_byte] = rows >> np.uint8(bits * place) & np.uint8(2**bits - 1)
        return codes[:, :n_codes]
    spread = np.unpackbits(rows, axis=1, count=n_codes * bits, bitorder="little").reshape(len(rows), n_codes, bits)
    return np.packbits(spread, axis=2, bitorder="little")[:, :, 0]


def awq_ordered(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return rows of codes of four bits in their order, as AWQ's kernels interleave eight of them in a word.

    Examples
    --------
    >>> awq_ordered(np.array([[0, 2, 4, 6, 1, 3, 5, 7]], np.uint8)).tolist()
    [[0, 1, 2, 3, 4, 5, 6, 7]]
    """
    groups = codes.reshape(len(codes), -1, len(_AWQ_ORDER))
    return groups[:, :, _AWQ_ORDER].reshape(codes.shape)


def with_zeros(
    codes: NDArray[Any],
    zeros: NDArray[Any] | None,
    scale: NDArray[Any],
    block: tuple[int, ...],
    groups: NDArray[Any] | None = None,
) -> ScaledWeights | NDArray[np.float32]:
    """Return the weights ``(code - zero) scale``, in which the difference is an integer and so loses nothing.

    Parameters
    ----------
    codes : ndarray of integers
        The codes.
    zeros : ndarray of integers or None
        The zero points, in blocks like `scale`; None for 0 everywhere.
    scale : ndarray
        With as many axes as `codes`.
    block : tuple of int
        How many codes share a scale and a zero point along each axis.
    groups : ndarray of int, optional
        The block of every code along the last axis, where those of a block are no neighbours. Then the weights are
        multiplied out, for there are as many scales as codes.
    """
    if groups is not None:
        scale, block = scale[..., groups], (*block[:-1], 1)
        zeros = None if zeros is None else zeros[..., groups]
    if zeros is not None and codes.size and zeros.any():
        codes = _differences(codes, zeros, block)
    weights = ScaledWeights(codes, scale, block)
    return weights if groups is None else np.asarray(weights)


def _differences(codes: NDArray[Any], zeros: NDArray[Any], block: tuple[int, ...]) -> NDArray[Any]:
    """Return the codes less the zero points of their blocks, in eight bits where they fit."""
    lowest, highest = int(codes.min()) - int(zeros.max()), int(codes.max()) - int(zeros.min())
    if max(-lowest, highest) >= 2**15:
        raise ValueError(f"its codes less its zero points go from {lowest} to {highest}, beyond 16 bits")
    narrow = max(-lowest, highest) < 2**7
    dtype = np.int8 if narrow else np.int16
    left: NDArray[Any] = codes.astype(dtype, copy=False)  # may wrap, and the difference then comes back to what it is
    right: NDArray[Any] = zeros.astype(dtype)
    difference: NDArray[Any]
    *lead, step = block
    if right.shape[-1] > 1 and codes.shape[-1] == right.shape[-1] * step and set(lead) <= {1}:
        difference = left.reshape(*left.shape[:-1], -1, step) - right[..., np.newaxis]
    else:
        for axis, side in enumerate(block):
            if right.shape[axis] > 1 and side > 1:
                right = np.repeat(right, side, axis)[(slice(None),) * axis + (slice(codes.shape[axis]),)]
        difference = left - right
    return difference.reshape(codes.shape)
