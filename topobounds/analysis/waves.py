"""Rows of weights that are sampled waves: a Fourier basis or a table of positions, computed and not trained."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-3  # of the root mean square of a row
SHORTEST = 16  # entries of a row: many a short one looks like a wave
LOOKED_AT = 32  # rows
WINDOW_BINS = 1  # on either side of its frequency, to which a window of Hann's or Hamming's spreads a wave


def is_sampled_waves(weights: NDArray[Any]) -> bool:
    """Return whether the rows of a matrix, or its columns, are sampled waves, under a window or not.

    A row is one if it is ``a cos(w t) + b sin(w t)`` at t = 0, 1, ... for some frequency w, or if its spectrum lies in
    one frequency and its neighbours, as that of a wave times a window of Hann's or Hamming's does; each up to a
    thousandth of its size. Constant rows are neither, and rows of zeros are not looked at. Of a kernel the rows are
    what lies along its last dimension.

    Parameters
    ----------
    weights : ndarray of two or more dimensions
        The weights. Some thirty rows are looked at, evenly spaced.

    Examples
    --------
    >>> t = np.arange(64)
    >>> basis = np.cos(2 * np.pi * np.arange(1, 20)[:, None] * t / 64)
    >>> hann = np.sin(np.pi * t / 64) ** 2
    >>> is_sampled_waves(basis), is_sampled_waves(basis * hann), is_sampled_waves(np.tile(t, (20, 1)))
    (True, True, False)
    """
    matrix = weights.reshape(-1, weights.shape[-1])
    return _are_waves(matrix) or (weights.ndim == 2 and _are_waves(matrix.T))


def _are_waves(rows: NDArray[Any]) -> bool:
    if min(rows.shape) < 2 or rows.shape[1] < SHORTEST:
        return False
    places = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(np.intp))
    seen = 0
    # One after the other, those in the middle first: those of trained weights are told by the first.
    for place in sorted(places.tolist(), key=lambda place: abs(place - len(rows) // 2)):
        row = rows[place].astype(np.float64)
        size = float(np.max(np.abs(row), initial=0.0))
        if not size or not math.isfinite(size):
            continue
        row /= size
        if np.ptp(row) <= TOLERANCE:  # the frequency 0 of a Fourier basis, without a window
            continue
        if not (_is_sinusoid(row) or _is_windowed(row)):
            return False
        seen += 1
    return seen > 1


def _is_sinusoid(row: FloatArray) -> bool:
    """Return whether a row is a sinusoid: then ``x[t + 1] + x[t - 1] = 2 cos(w) x[t]``."""
    inner = row[1:-1]
    neighbours = row[2:] + row[:-2]
    square = float(inner @ inner)
    cosine = float(neighbours @ inner) / (2 * square) if square else 2.0
    if not -1 <= cosine < 1 or float(np.max(np.abs(neighbours - 2 * cosine * inner))) > 4 * TOLERANCE:
        return False
    angles = math.acos(cosine) * np.arange(row.size)
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    fitted = waves @ np.linalg.lstsq(waves, row, rcond=None)[0]
    return _is_small(row - fitted, row)


def _is_windowed(row: FloatArray) -> bool:
    """Return whether the spectrum of a row lies in one frequency and its neighbours."""
    spectrum = np.abs(np.fft.rfft(row)) ** 2
    spectrum[1:] *= 2
    if row.size % 2 == 0:
        spectrum[-1] /= 2
    peak = int(np.argmax(spectrum))
    spectrum[max(peak - WINDOW_BINS, 0) : peak + WINDOW_BINS + 1] = 0
    return float(spectrum.sum()) <= row.size * TOLERANCE**2 * float(row @ row)


def _is_small(rest: FloatArray, row: FloatArray) -> bool:
    return float(rest @ rest) <= TOLERANCE**2 * float(row @ row)
