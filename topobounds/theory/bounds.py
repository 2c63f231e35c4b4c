"""Lower bounds on the overlap of a layer's k largest weights with its maximum spanning forest, and the table of them.

Setting, in all of this module: W has m rows and n columns, N = m n, and its |w| are exchangeable with almost surely
distinct magnitudes. Then the k largest weights are a uniformly random set of k cells, G(m, n; k), and

    R_k = |forest ∩ top-k| = m + n - kappa(G(m, n; k)),     X_k = R_k / alpha,     alpha = m + n - 1,

with kappa the number of connected components, isolated vertices counted. ``q(c) = C(N - c, k) / C(N, k)`` is the
probability that c given cells are all empty.

To add a bound, write its function of a checked `Shape` here and give it a row in `BOUNDS`: the report, the command
line, the claims of `topobounds.verification` and the figure of the bounds go through that table.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from topobounds._arguments import argument_error, density_fraction
from topobounds.layers.shape import Shape
from topobounds.supports import cells_at_density
from topobounds.theory.paper import PrintedClaim, corollary_3_4_of, theorem_3_3_of

_MOST_EXACT = 64  # factors of a probability that are multiplied as integers,
MOST_SUMMED = 2**16  # and one by one, by their logarithms
_ROUNDING = 2.0**-47  # of the terms of a bound; see `star_bound`


def star_bound(m: int, n: int, k: int | None = None) -> float:
    """Return the star bound, a lower bound on the expected overlap: one edge for every non-isolated vertex of a side.

    ::

        E[X_k] >= max(n (1 - q(m)), m (1 - q(n))) / alpha

    Keeping one edge of every non-empty column gives a forest of stars, so R_k is at least the number of non-empty
    columns, and likewise of rows.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    float
        In [0, 1], rounded down: never above the number it stands for, and at most 2^-46 of it below (where k or alpha
        is at most 64, the largest float not above). 0 for k = 0; k / alpha, the expectation itself, if m or n is 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or m or n beyond 2^63 - 1.

    See Also
    --------
    boruvka_bound : Larger.

    Notes
    -----
    With u = 2^-53, a logarithm or an exponential errs by at most 8 u (four units in the last place, as in
    `topobounds.theory._logarithms`), and its arguments and products add less than 4 u. 1 - q is found to 45 u from at
    most three such parts; dividing and adding leave less than 64 u = 2^-47 of what is added up, which is taken off.

    Examples
    --------
    >>> round(star_bound(784, 300), 4)
    0.5428
    """
    return star_bound_of(Shape.checked(m, n, k))


def star_bound_of(shape: Shape) -> float:
    """Return the `star_bound` of a checked shape."""
    m, n, k = shape
    if min(m, n) == 1:
        return _rounded_down(Fraction(k, m * n))
    alpha = shape.alpha
    if min(k, alpha) <= _MOST_EXACT:
        return _rounded_down(max(n * _exact_hit(m * n, k, m), m * _exact_hit(m * n, k, n)) / alpha)
    return max(n * _hit(m * n, k, m), m * _hit(m * n, k, n)) / alpha * (1 - _ROUNDING)


def boruvka_bound(m: int, n: int, k: int | None = None) -> float:
    """Return the Boruvka bound, a lower bound on the expected overlap: what Boruvka's first round finds.

    ::

        E[X_k] >= (m (1 - q(n)) + n (1 - q(m)) - N / alpha * (1 - q(alpha))) / alpha

    Every vertex marks its heaviest edge in the top k; the marked edges lie in the forest, and an edge marked twice is
    the heaviest of its row and of its column. At k = alpha the value is above 0.609 for all m, n.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    float
        In [0, 1], rounded down: never above the number it stands for, and at most 2^-44 of it below (see
        `star_bound`). 0 for k = 0; k / alpha, the expectation itself, if m or n is 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or m or n beyond 2^63 - 1.

    Examples
    --------
    >>> round(boruvka_bound(784, 300), 4)
    0.6132
    """
    return boruvka_bound_of(Shape.checked(m, n, k))


def boruvka_bound_of(shape: Shape) -> float:
    """Return the `boruvka_bound` of a checked shape."""
    m, n, k = shape
    if min(m, n) == 1:
        return _rounded_down(Fraction(k, m * n))
    cells, alpha = shape.cells, shape.alpha
    if min(k, alpha) <= _MOST_EXACT:
        both = m * _exact_hit(cells, k, n) + n * _exact_hit(cells, k, m)
        return _rounded_down((both - Fraction(cells, alpha) * _exact_hit(cells, k, alpha)) / alpha)
    marked = m * _hit(cells, k, n) + n * _hit(cells, k, m)
    marked_twice = cells / alpha * _hit(cells, k, alpha)
    return min(1.0, (marked - marked_twice - _ROUNDING * (marked + marked_twice)) / alpha)


def corollary_3_4_repaired(m: int, n: int, density: float) -> float:
    """Return a lower bound on the expected overlap that holds at every density: Corollary 3.4, repaired.

    For a uniformly random support of M = p m n cells, rounded, connected or not, and weights exchangeable on it, ::

        E[X] >= B(alpha)    for M >= alpha = m + n - 1,        E[X] >= B(M) alpha / M    for M < alpha

    where B(k) = `boruvka_bound` (m, n, k). X is read either way: the k = alpha largest weights against
    alpha, or the k = alpha' largest against the alpha' edges of the support's own forest (for M < alpha, only so).
    Supports that are not uniformly random can do much worse: see `topobounds.theory.support_bounds`.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    density : float
        p in (0, 1], with at least one cell.

    Returns
    -------
    float
        In [0, 1]; above 0.609, and independent of the density once M >= alpha.

    Raises
    ------
    ValueError
        If an argument is out of range, or the support is empty.

    Examples
    --------
    >>> round(corollary_3_4_repaired(784, 300, 0.1), 4)
    0.6132
    """
    shape = Shape.checked(m, n, None)
    density_fraction("density", density)
    return corollary_3_4_repaired_of(shape, density)


def corollary_3_4_repaired_of(shape: Shape, density: float) -> float:
    """Return the `corollary_3_4_repaired` of a checked shape and density."""
    cells = cells_at_density(shape.m, shape.n, density)
    if not cells:
        raise argument_error("density", f"at least one of the {shape.cells} cells", density)
    alpha = shape.alpha
    kept = min(cells, alpha)
    bound = boruvka_bound_of(shape._replace(k=kept))
    return bound if kept == alpha else min(1.0, _rounded_down(Fraction(bound) * alpha / kept))


def minimum_overlap(m: int, n: int, k: int | None = None) -> int:
    """Return the least ``|forest ∩ top-k|`` that any m x n matrix of non-zero weights has, whatever their law.

    k edges on a rows and b columns need a b >= k, and a connected graph on them has rank a + b - 1; spreading the
    edges over several components only raises the rank. Sharp: fill an a x b block first.

    Parameters
    ----------
    m, n : int
        Rows and columns, at least 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    int
        ``min(a + b - 1 : a <= m, b <= n, a b >= k)``; 0 for k = 0.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> minimum_overlap(784, 300)
    65
    """
    return minimum_overlap_of(Shape.checked(m, n, k))


def minimum_overlap_of(shape: Shape) -> int:
    """Return the `minimum_overlap` of a checked shape."""
    m, n, k = shape
    # a + ceil(k / a) does not rise up to a = floor(sqrt(k)), nor fall from there on: the squarest block is best.
    side = min(m, n, math.isqrt(k))
    return side + -(-k // side) - 1 if k else 0


@dataclass(frozen=True)
class Bound:
    """A lower bound on the expected overlap E[X_k], as the report, the command line, the claims and a figure show it.

    Attributes
    ----------
    name : str
        Of its function, of its key in JSON, and of the claim.
    letter : str
        Its mark on the number line of ``topobounds overlap``; one character.
    label : str
        What it is called, everywhere.
    formula : str
        The inequality, in plain text.
    remark : str
        What it rests on, one sentence; of a printed claim, the claim itself says it.
    evaluate : callable
        Its value from a checked `Shape` and, where it `needs_density`, the density: a float for a bound that is
        proved, rounded down, or a `PrintedClaim` for one of the paper's.
    at_alpha : bool
        Whether it is about k = alpha only.
    needs_density : bool
        Whether it is about supports of a density, and not about the complete layer.
    """

    name: str
    letter: str
    label: str
    formula: str
    remark: str
    evaluate: Callable[[Shape, float], float | PrintedClaim]
    at_alpha: bool = False
    needs_density: bool = False

    def at(self, shape: Shape, density: float = 1.0) -> float | PrintedClaim:
        """Return the value at a shape; undefined for a bound about alpha weights at another k."""
        value = self.evaluate(shape, density)
        if self.at_alpha and shape.k != shape.alpha:
            reason = f"The paper's bound is about the {shape.alpha} largest weights, not {shape.k}."
            return PrintedClaim(None, "undefined", reason)
        return value


BOUNDS: dict[str, Bound] = {
    bound.name: bound
    for bound in (
        Bound(
            "theorem_3_3",
            "T",
            "Theorem 3.3, printed",
            "E[X] >= sum_{i<j} (m - i)(n - i) / (m n - i) / (m + n - 1), j = min(m, n); 1 for j = 1",
            "",
            lambda shape, density: theorem_3_3_of(shape),
            at_alpha=True,
        ),
        Bound(
            "corollary_3_4",
            "C",
            "Corollary 3.4, printed",
            "E[X] >= min(1, sum_{i<j} (m - i)(n - i) / (p m n - i) / (m + n - 1)), j = min(m, n)",
            "",
            corollary_3_4_of,
            at_alpha=True,
            needs_density=True,
        ),
        Bound(
            "star_bound",
            "s",
            "star bound",
            "E[X_k] >= max(n (1 - q(m)), m (1 - q(n))) / (m + n - 1)",
            "One edge for every neuron of one side.",
            lambda shape, density: star_bound_of(shape),
        ),
        Bound(
            "boruvka_bound",
            "b",
            "Boruvka bound",
            "E[X_k] >= (m (1 - q(n)) + n (1 - q(m)) - m n / alpha (1 - q(alpha))) / alpha",
            "The first round of Boruvka's algorithm.",
            lambda shape, density: boruvka_bound_of(shape),
        ),
    )
}


def _exact_hit(cells: int, k: int, c: int) -> Fraction:
    """Return 1 - q(c) as a fraction."""
    few, many = sorted((c, k))
    return 1 - Fraction(math.perm(max(0, cells - many), few), math.perm(cells, few))


def _hit(cells: int, k: int, c: int) -> float:
    """Return 1 - q(c), the probability that k random cells out of `cells` hit a given set of c cells."""
    if c + k > cells:
        return 1.0
    few, many = sorted((c, k))
    if few > MOST_SUMMED:
        return -math.expm1(_log_missed(cells, many, few))
    return 0.0 - math.expm1(math.fsum(_log_complement(many, cells - i) for i in range(few)))  # never -0.0


def _log_missed(cells: int, many: int, few: int) -> float:
    """Return log q, without adding up its factors: Stirling's formula taken apart, as in docs/theory/enclosure.md.

    That is for k = many and c = few, both in the thousands at least, where r(x) = 1 / (12 x) - 1 / (360 x^3) to the
    last digit; where x = y is smaller, q is 0 to the last digit.
    """
    rest = cells - few - many
    if not rest:
        return -math.inf
    r_many, r_few, r_cells, r_rest = (1 / (12 * x) - 1 / (360 * x**3) for x in (cells - few, cells - many, cells, rest))
    crossed = _log_complement(few * many, (cells - few) * (cells - many))
    return math.fsum(
        [
            many * _log_complement(few, cells),
            few * _log_complement(many, cells),
            -(rest + 0.5) * crossed,
            r_many + r_few - r_cells - r_rest,
        ]
    )


def _log_complement(part: int, whole: int) -> float:
    """Return log(1 - part / whole), to the last digits on both sides."""
    return math.log1p(-part / whole) if 2 * part <= whole else math.log((whole - part) / whole)


def _rounded_down(value: Fraction) -> float:
    """Return the largest float that is not above a non-negative value."""
    nearest = float(value)
    return nearest if nearest <= value else math.nextafter(nearest, 0)
