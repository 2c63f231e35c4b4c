"""Logarithms of binomial coefficients, and of their ratios, in double precision with a proved radius of error.

Differences of log-gamma functions lose as many digits as the arguments have. Here Stirling's formula is taken apart
until the large terms have cancelled by algebra, so that what is left is computed to a few units in the last place.

The radii hold in IEEE double precision if numpy's log, log1p, exp and expm1 err by at most 4 units in the last place.
With eps = 2^-53: every part below has at most three rounded arguments, in a range where the function magnifies their
errors at most 1.45 times, one function value (8 eps) and two more roundings, so less than 16 eps of its own size; the
sum of at most eight parts adds 8 eps of the sum of their sizes. The radius allows 64 eps of it, and 2^-45 for the
Stirling remainders (each truncated by less than 2^-52 and rounded a few times).
"""

import math

import numpy as np

from topobounds._types import FloatArray
from topobounds.theory._balls import Ball, ball_sum

Real = float | FloatArray

_REMAINDER_RADIUS = 2.0**-45  # of the Stirling remainders of a formula together


def log_binomial(n: float, k: FloatArray) -> Ball:
    """Return log C(n, k) for integers 0 <= k <= n.

    ``-k log(k/n) - (n-k) log((n-k)/n) + log(n / (2 pi k (n-k))) / 2 + r(n) - r(k) - r(n-k)``, r as in `_remainder`.
    """
    inside = (k > 0) & (k < n)  # at both ends the logarithm is 0, and the formula is not finite
    n, k = max(n, 2.0), np.where(inside, k, 1.0)
    large = (-k * _log_part(n - k, n), -(n - k) * _log_part(k, n))
    half_log = np.log(n / (2 * math.pi * k * (n - k))) / 2
    remainders = _remainder(np.array(n)) - _remainder(k) - _remainder(n - k)
    total = ball_sum(*large, half_log, remainders)
    return Ball(np.where(inside, total.mid, 0.0), np.where(inside, total.rad + _REMAINDER_RADIUS, 0.0))


def log_ratio(n: Real, c: FloatArray, k: Real) -> Ball:
    """Return log(C(n - c, k) / C(n, k)) for integers c, k >= 0 with c + k <= n: the chance that k draws miss c cells.

    With y = n - c - k, Stirling's formula gives, after n log n and the like have cancelled, ::

        k log(1 - c/n) + c log(1 - k/n) - (y + 1/2) log(n y / ((n-c)(n-k))) + r(n-c) + r(n-k) - r(n) - r(y)

    where n y / ((n-c)(n-k)) = 1 - c k / ((n-c)(n-k)). For y = 0, y! = 1 leaves log(2 pi (n-c)(n-k)/n) / 2 instead of
    the third term.
    """
    n, c, k = np.broadcast_arrays(np.asarray(n, dtype=float), c, np.asarray(k, dtype=float))
    inside = (c > 0) & (k > 0)  # the ratio is 1 elsewhere
    n, c, k = np.where(inside, n, 2.0), np.where(inside, c, 1.0), np.where(inside, k, 1.0)
    y = n - c - k
    odds = (c / (n - c)) * (k / (n - k))
    with np.errstate(divide="ignore"):
        log_quotient = np.where(
            odds <= 0.5, np.log1p(-np.minimum(odds, 0.5)), np.log((n / (n - c)) * (np.maximum(y, 0.5) / (n - k)))
        )
    last = np.where(y > 0, -(y + 0.5) * log_quotient, np.log(2 * math.pi * (n - c) * ((n - k) / n)) / 2)
    remainders = _remainder(n - c) + _remainder(n - k) - _remainder(n) - _remainder(y)
    total = ball_sum(k * _log_part(c, n), c * _log_part(k, n), last, remainders)
    return Ball(np.where(inside, total.mid, 0.0), np.where(inside, total.rad + _REMAINDER_RADIUS, 0.0))


def _log_part(part: FloatArray, whole: Real) -> FloatArray:
    """Return log(1 - part / whole), stably at both ends, for integers 0 <= part < whole."""
    small = 2 * part <= whole
    return np.where(small, np.log1p(np.where(small, -part / whole, 0.0)), np.log((whole - part) / whole))


_SMALL = 16  # integers below have their remainders in a table


def _series(z: FloatArray) -> FloatArray:
    z2 = z * z
    return z * (1 / 12 - z2 * (1 / 360 - z2 * (1 / 1260 - z2 * (1 / 1680 - z2 / 1188))))


def _small_remainders() -> FloatArray:
    """Return r(1), ..., r(15) after a 0: r(j) - r(j + 1) = (j + 1/2) log(1 + 1/j) - 1."""
    steps = [(j + 0.5) * math.log1p(1 / j) - 1 for j in range(1, _SMALL)]
    from_above = float(_series(np.array(1 / _SMALL)))
    return np.array([0.0] + [math.fsum([from_above, *steps[j:]]) for j in range(_SMALL - 1)])


_SMALL_REMAINDERS = _small_remainders()


def _remainder(x: FloatArray) -> FloatArray:
    """Return r(x) = log x! - (x log x - x + log(2 pi x) / 2) for integers x, and 0 for x = 0.

    From 16 on by Stirling's series, which errs by less than its first term left out, 691 / (360360 x^11) < 2^-52.
    """
    small = _SMALL_REMAINDERS[np.minimum(x, _SMALL - 1).astype(np.intp)]
    return np.where(x >= _SMALL, _series(1 / np.maximum(x, float(_SMALL))), small)
