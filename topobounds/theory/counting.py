"""The expected overlap as an exact rational number, by counting connected bipartite graphs."""

import math
import operator
from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction

from topobounds.layers.shape import Shape, checked_shape

MAX_STEPS = 3 * 10**8  # multiplications of a number of up to log2 C(N, k) bits by a short one; about half a minute


def exact_expected_overlap(m: int, n: int, k: int | None = None) -> Fraction:
    r"""Return E[X_k], the expected overlap of the k largest weights with the maximum spanning forest, exactly.

    With ``N = m n``, the expected number of components of the uniformly random bipartite graph with k edges is ::

        E[kappa] = m q(n) + sum_{b=1}^{n} C(n, b) sum_{L |- b} c_L [x^k] P_L(x)^m / C(N, k)
        P_L(x)   = sum_i ((1 + x)^{L_i} - 1) + (1 + x)^{n - b},     c_L = (-1)^(r-1) (r-1)! N_L

    over the partitions L of b into r parts, N_L being the number of set partitions of type L, and
    ``E[X_k] = (m + n - E[kappa]) / (m + n - 1)``. This is Moebius inversion over the partitions of the columns: a set
    of b columns and the rows attached to it are one component if they are connected through no proper partition.

    The work grows with the partitions of the shorter side and with k: 25 x 25 and 12 x 1000 take a second, 12 x 5000
    ten, and what takes more than half a minute (39 x 39, 12 x 8000) is refused.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1; the value is symmetric in them.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    Fraction
        In [0, 1], for exchangeable |w| with almost surely distinct magnitudes.

    Raises
    ------
    ValueError
        If an argument is out of range, or the layer is too large to count.

    See Also
    --------
    expected_overlap : A certified interval, up to m n = 2^52.

    Examples
    --------
    >>> exact_expected_overlap(4, 4)
    Fraction(346, 385)
    """
    return exact_expected_overlap_of(checked_shape(m, n, k))


def exact_expected_overlap_of(shape: Shape) -> Fraction:
    """Return the `exact_expected_overlap` of a checked shape."""
    m, n, k = max(shape[:2]), min(shape[:2]), shape.k
    if n == 1:
        return Fraction(k, m)
    steps = counting_steps(m, n, k)
    if steps > MAX_STEPS:
        raise ValueError(
            f"Arguments m={shape.m}, n={shape.n}, k={k} are too large to count exactly: about {steps:.0e} steps, "
            f"more than {MAX_STEPS:.0e}. expected_overlap encloses the value up to m n = 2^52, "
            "simulate_overlap estimates it."
        )
    components = m * math.comb(m * n - n, k) + sum(_components_with_columns(m, n, k, b) for b in range(1, n + 1))
    return (m + n - Fraction(components, math.comb(m * n, k))) / (m + n - 1)


def counting_steps(m: int, n: int, k: int) -> int:
    """Return about how many steps `exact_expected_overlap` takes: partitions of up to n, times n k, times words."""
    short, long = sorted((m, n))
    words = (
        1 + min(k, m * n // 2) * math.log2(4 * m * n / (k + 1)) // 2000
    )  # at the largest coefficient on the way to k
    return int(sum(_partition_counts(min(short, 64))) * short * k / 2 * words) if long > 1 else 0


def _components_with_columns(m: int, n: int, k: int, b: int) -> int:
    """Return the number of (graph with k edges, component with b columns), all m x n graphs together."""
    total = 0
    for parts in _partitions(b):
        polynomial = [sum(math.comb(p, i) for p in parts) + math.comb(n - b, i) for i in range(max(*parts, n - b) + 1)]
        polynomial[0] = 1
        sign = -1 if len(parts) % 2 == 0 else 1
        total += sign * math.factorial(len(parts) - 1) * _set_partitions(parts) * _power_coefficient(polynomial, m, k)
    return math.comb(n, b) * total


def _power_coefficient(polynomial: list[int], power: int, k: int) -> int:
    """Return [x^k] of polynomial^power, where polynomial(0) = 1: f = p^m solves p f' = m p' f."""
    tail = polynomial[1:]
    factors = [(power + 1) * i * p for i, p in enumerate(tail, 1)]
    recent = deque([1], maxlen=len(tail))  # f[j - 1], f[j - 2], ...
    for j in range(1, k + 1):
        factors = list(map(operator.sub, factors, tail))  # ((m + 1) i - j) p_i
        recent.appendleft(sum(map(operator.mul, factors, recent)) // j)
    return recent[0]


def _partitions(b: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield the partitions of b into parts of at most `largest`, parts falling."""
    if b == 0:
        yield ()
    for first in range(min(b, largest or b), 0, -1):
        for rest in _partitions(b - first, first):
            yield (first, *rest)


def _set_partitions(parts: tuple[int, ...]) -> int:
    """Return the number of set partitions whose blocks have these sizes."""
    same = math.prod(math.factorial(c) for c in Counter(parts).values())
    return math.factorial(sum(parts)) // (math.prod(map(math.factorial, parts)) * same)


def _partition_counts(n: int) -> list[int]:
    """Return the numbers of partitions of 0, 1, ..., n."""
    counts = [1] + [0] * n
    for part in range(1, n + 1):
        for total in range(part, n + 1):
            counts[total] += counts[total - part]
    return counts
