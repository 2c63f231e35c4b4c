"""Expectation and variance of the overlap as exact rational numbers, by counting bipartite graphs by components."""

import math
import operator
from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from topobounds.layers.shape import Shape

# Steps: multiplications of a number of up to log2 C(N, k) bits by a short one.
QUICK_STEPS = 10**6  # a tenth of a second: counting is the first choice
MAX_STEPS = 3 * 10**8  # about half a minute: what takes more is refused


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
    return exact_expected_overlap_of(Shape.checked(m, n, k))


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


def exact_expected_ranks(m: int, n: int, most: int | None = None) -> list[Fraction]:
    """Return E[R_k], the expected number of forest edges among the k largest weights, for k = 0, ..., `most`, exactly.

    ``E[R_k] = alpha E[X_k]`` with `exact_expected_overlap`, whose one pass over the partitions of the columns gives
    the coefficients of all powers of x at once.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1; the values are symmetric in them.
    most : int, optional
        The largest k, 0 to m n; m n if left out.

    Returns
    -------
    list of Fraction
        ``most + 1`` numbers, rising from 0, at most alpha = m + n - 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or the layer is too large to count.

    Examples
    --------
    >>> [str(rank) for rank in exact_expected_ranks(3, 3, 6)]
    ['0', '1', '2', '3', '55/14', '65/14', '69/14']
    """
    m, n, most = Shape.checked(m, n, m * n if most is None else most)
    m, n = max(m, n), min(m, n)
    if n == 1:
        return [Fraction(k) for k in range(most + 1)]
    steps = counting_steps(m, n, most)
    if steps > MAX_STEPS:
        raise ValueError(
            f"Arguments m={m}, n={n} are too large to count exactly up to k={most}: about {steps:.0e} steps, more "
            f"than {MAX_STEPS:.0e}. expected_retention encloses the values up to m n = 2^52."
        )
    components = [m * math.comb(m * n - n, k) for k in range(most + 1)]
    for b in range(1, n + 1):
        for weight, coefficients in _partition_terms(m, n, most, b):
            factor = math.comb(n, b) * weight
            components = [total + factor * c for total, c in zip(components, coefficients, strict=True)]
    return [m + n - Fraction(total, math.comb(m * n, k)) for k, total in enumerate(components)]


def variance_steps(m: int, n: int, k: int) -> int:
    """Return about how many steps `exact_overlap_variance` takes, in the unit of `counting_steps`."""
    short, long = sorted((m, n))
    return int(_partition_counts(min(short, 64))[-1] * short * k * _words(m * n, k)) if long > 1 else 0


def connected_graphs(m: int, n: int) -> list[int]:
    """Return the numbers of connected bipartite graphs on m labelled rows and n labelled columns, by number of edges.

    The coefficient of q in the sum of `exact_overlap_variance`: ::

        sum_{L |- n} N_L (-1)^(r-1) (r-1)! (sum_i ((1 + x)^{L_i} - 1))^m

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.

    Returns
    -------
    list of int
        m n + 1 numbers, those for 0, 1, ..., m n edges.

    Examples
    --------
    >>> connected_graphs(2, 2), connected_graphs(2, 3)[4:]
    ([0, 0, 0, 4, 1], [12, 6, 1])
    """
    m, n = max(m, n), min(m, n)
    counts = [0] * (m * n + 1)
    for parts in _partitions(n):
        # Every row has an edge, so x^m is taken out of the power.
        by_edges = [sum(math.comb(part, i) for part in parts) for i in range(1, parts[0] + 1)]
        powers = _power_coefficients(by_edges, m, m * (parts[0] - 1))
        weight = _set_partitions(parts) * math.factorial(len(parts) - 1) * (-1) ** (len(parts) - 1)
        for edges, coefficient in enumerate(powers, m):
            counts[edges] += weight * coefficient
    return counts


def connected_steps(m: int, n: int) -> int:
    """Return about how many steps `connected_graphs` takes, in the unit of `counting_steps`."""
    short, cells = min(m, n), m * n
    return int(_partition_counts(min(short, 64))[-1] * short * (cells - max(m, n)) * _words(cells, cells // 2))


def counting_steps(m: int, n: int, k: int) -> int:
    """Return about how many steps `exact_expected_overlap` takes: partitions of up to n, times n k, times words."""
    short, long = sorted((m, n))
    return int(sum(_partition_counts(min(short, 64))) * short * k / 2 * _words(m * n, k)) if long > 1 else 0


def _words(cells: int, k: int) -> float:
    """Return the length of the largest coefficient on the way to k edges, in units of 2000 bits."""
    return 1 + min(k, cells // 2) * math.log2(4 * cells / (k + 1)) // 2000


def component_moments(m: int, n: int, k: int) -> tuple[int, int]:
    """Return the sums of kappa and of kappa (kappa - 1) over all graphs with k edges, for m >= n >= 2."""
    # The partition into one part is apart: its terms do not vanish at q = 1.
    first = math.comb(m * n, k) + m * math.comb(m * n - n, k)
    second = 2 * m * math.comb(m * n - n, k) + m * (m - 1) * math.comb(m * n - 2 * n, k)
    for parts in _partitions(n):
        if len(parts) > 1:
            once, twice = _moments_of_partition(parts, m, k)
            first += once
            second += twice
    return first, second


def _moments_of_partition(parts: tuple[int, ...], m: int, k: int) -> tuple[int, int]:
    """Return the terms of a partition into r >= 2 parts in the sums of `component_moments`.

    ``h(q) = q (q - 1) ... (q - r + 1)`` has h(1) = 0, h'(1) = (-1)^r (r-2)! and h''(1) = 2 h'(1) (1 - H_{r-2}), with
    the harmonic number H; the power S^m of the partition has the derivative m S^(m-1).
    """
    r = len(parts)
    polynomial = [1, *(sum(math.comb(part, i) for part in parts) for i in range(1, parts[0] + 1))]
    lower_power = _last_coefficients(polynomial, m - 1, k)
    power = sum(map(operator.mul, polynomial, lower_power))
    slope = (-1) ** r * math.factorial(r - 2) * _set_partitions(parts)
    bend = slope * 2 * (1 - sum(Fraction(1, i) for i in range(1, r - 1)))
    return slope * power, int(bend * power) + 2 * slope * m * lower_power[0]


def _components_with_columns(m: int, n: int, k: int, b: int) -> int:
    """Return the number of (graph with k edges, component with b columns), all m x n graphs together."""
    total = sum(weight * deque(powers, maxlen=1)[0] for weight, powers in _partition_terms(m, n, k, b))
    return math.comb(n, b) * total


def _partition_terms(m: int, n: int, most: int, b: int) -> Iterator[tuple[int, Iterator[int]]]:
    """Yield for every partition L of b its c_L and the coefficients [x^k] P_L(x)^m, k = 0, ..., `most`."""
    for parts in _partitions(b):
        polynomial = [sum(math.comb(p, i) for p in parts) + math.comb(n - b, i) for i in range(max(*parts, n - b) + 1)]
        polynomial[0] = 1
        sign = -1 if len(parts) % 2 == 0 else 1
        weight = sign * math.factorial(len(parts) - 1) * _set_partitions(parts)
        yield weight, _power_coefficients(polynomial, m, most)


def _last_coefficients(polynomial: list[int], power: int, k: int) -> list[int]:
    """Return [x^k], [x^(k-1)], ... of polynomial^power: as many as the polynomial has, or down to [x^0]."""
    last = deque(_power_coefficients(polynomial, power, k), maxlen=len(polynomial))
    return list(reversed(last))


def _power_coefficients(polynomial: list[int], power: int, k: int) -> Iterator[int]:
    """Yield [x^0], ..., [x^k] of polynomial^power, where polynomial(0) > 0: f = p^m solves p f' = m p' f."""
    start, *tail = polynomial
    factors = [(power + 1) * i * p for i, p in enumerate(tail, 1)]
    recent = deque([start**power], maxlen=len(tail))  # f[j - 1], f[j - 2], ...
    yield start**power
    for j in range(1, k + 1):
        factors = list(map(operator.sub, factors, tail))  # ((m + 1) i - j) p_i
        coefficient = sum(map(operator.mul, factors, recent)) // (j * start)
        recent.appendleft(coefficient)
        yield coefficient


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


@lru_cache(maxsize=64)
def _partition_counts(n: int) -> tuple[int, ...]:
    """Return the numbers of partitions of 0, 1, ..., n."""
    counts = [1] + [0] * n
    for part in range(1, n + 1):
        for total in range(part, n + 1):
            counts[total] += counts[total - part]
    return tuple(counts)
