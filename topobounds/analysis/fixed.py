"""Tensors that look as if they were written down and not trained: Fourier bases, filter banks, tables of positions."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds.weights import ScaledWeights

TOLERANCE = 1e-3
"""How far a row may be from a sampled sinusoid, in parts of its largest entry."""
_SHORTEST = 16  # entries of a row: three numbers fit a shorter one too easily
LONGEST = 2**10  # entries of a row that are looked at
ROWS = 12  # that are looked at, at most
_CONCENTRATED = 0.9  # share of a sinusoid's energy, windowed or not, that lies near its peak
_NEAR = 4  # frequencies of the transform, on either side of the peak
GRID = np.linspace(-1.0, 1.0, 33)
_ZOOMS = 8  # rounds in which the frequency is found, each eight times as fine
WORDS = re.compile(
    r"(?<![a-z])(i?stft|i?dft|i?dct|fourier|inv_freq|sinusoid\w*|sin_?cos|mel_?(basis|filters?|fb)|filter_?bank)(?![a-z])"
)
"""Words in the names of what is not trained."""


def looks_fixed(name: str, weights: NDArray[Any] | ScaledWeights) -> str | None:
    """Return why a tensor looks as if it was not trained: its name, or its values; None where neither says so.

    Parameters
    ----------
    name : str
        Of the tensor.
    weights : ndarray or ScaledWeights, of two or more dimensions
        Its values, finite; of those with scales, what is looked at is multiplied out.

    Returns
    -------
    str or None
        The values say so where every one of some rows, or columns, is a sampled sinusoid to 1e-3 of its largest entry
        (as much as its type resolves, where that is coarser): at equal amplitude, or each in the same window, which is
        then the root of the mean square of all rows.

    Examples
    --------
    >>> angles = np.outer(np.arange(1, 9), np.arange(64)) * 2 * np.pi / 64
    >>> looks_fixed("conv", np.cos(angles) * np.hanning(64))
    >>> looks_fixed("conv", np.vstack([np.cos(angles), np.sin(angles)]) * np.hanning(64))
    'its rows are sampled sinusoids, to 1e-3'
    >>> looks_fixed("spec.stft.weight", np.ones((2, 3)))
    "its name has 'stft' in it"
    """
    matrix = weights.reshape(len(weights), -1)
    for side, lines in (("rows", matrix), ("columns", matrix.T)):
        if _are_sinusoids(lines):
            return f"its {side} are sampled sinusoids, to 1e-3"
    word = WORDS.search(name.lower())
    return f"its name has '{word[0]}' in it" if word else None


def _are_sinusoids(lines: NDArray[Any] | ScaledWeights) -> bool:
    """Whether all lines that are looked at, but for constant ones, are sinusoids."""
    lines = lines[:, :LONGEST]
    if lines.shape[1] < _SHORTEST:
        return False
    chosen = np.asarray(lines[:: -(-len(lines) // ROWS)]).astype(np.float64, order="C")
    exponent = min(-int(np.frexp(np.abs(chosen).max())[1]), 1023)  # by which no square overflows or is lost
    chosen *= np.ldexp(1.0, exponent)
    faint = TOLERANCE * np.abs(chosen).max()  # as the sine of a whole number of half turns, which is rounding
    varying = chosen[np.ptp(chosen, axis=1) > faint]
    if len(varying) < max(2, len(chosen) // 2) or not all(map(_is_concentrated, varying)):
        return False
    tolerance = max(TOLERANCE, _resolution(lines.dtype))
    flat = np.ones(lines.shape[1])
    if all(_is_sinusoid(line, flat, tolerance) for line in varying):
        return True
    with np.errstate(over="ignore"):  # of rows that were not chosen
        window = np.sqrt(np.mean(np.square(np.ldexp(np.asarray(lines).astype(np.float64), exponent)), axis=0))
    return bool(np.isfinite(window).all()) and all(_is_sinusoid(line, window, tolerance) for line in varying)


def _resolution(dtype: np.dtype[Any]) -> float:
    """Return by how much a number of this type may be rounded, in parts of itself."""
    return {2: 2.0**-8, 1: 2.0**-3}.get(dtype.itemsize, 0.0)


def _is_concentrated(line: NDArray[np.float64]) -> bool:
    """Whether nearly all of a line's energy lies near one frequency; of what is trained hardly any line's does."""
    energy = np.abs(np.fft.rfft(line)) ** 2
    peak = int(np.argmax(energy))
    return bool(energy[max(peak - _NEAR, 0) : peak + _NEAR + 1].sum() >= _CONCENTRATED * energy.sum())


def _is_sinusoid(line: NDArray[np.float64], window: NDArray[np.float64], tolerance: float) -> bool:
    """Whether a line is ``window * (a cos(w t) + b sin(w t))`` for some a, b and w."""
    times = np.arange(line.size)
    frequency = 2 * math.pi * int(np.argmax(np.abs(np.fft.rfft(line)))) / line.size
    reach = 2 * math.pi / line.size
    for _ in range(_ZOOMS):
        tried = frequency + reach * GRID
        errors = [np.sum(_left_over(line, window, each, times) ** 2) for each in tried]
        frequency = float(tried[int(np.argmin(errors))])
        reach /= 8
    left_over = np.abs(_left_over(line, window, frequency, times)).max()
    return bool(left_over <= tolerance * np.abs(line).max())


def _left_over(
    line: NDArray[np.float64], window: NDArray[np.float64], frequency: float, times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return what the nearest sinusoid of a frequency leaves of a line."""
    waves = np.stack([window * np.cos(frequency * times), window * np.sin(frequency * times)], axis=1)
    amplitudes = np.linalg.lstsq(waves, line, rcond=None)[0]
    left_over: NDArray[np.float64] = line - waves @ amplitudes
    return left_over
