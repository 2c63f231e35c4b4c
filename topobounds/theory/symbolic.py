"""The paper's formulas as sympy expressions: sums, closed forms, limits, exact values, LaTeX.

The sum of Theorem 3.3 (cells = m n) and of Corollary 3.4 (cells = p m n), over i from 0 to j = min(m, n), is ::

    sum_i (m - i) (n - i) / (cells - i)
        = (j + 1) (m + n - cells - j / 2) + (m - cells) (n - cells) (H(cells) - H(cells - j - 1))

with harmonic numbers H, H(x) = digamma(x + 1) + gamma where x is no integer. The closed form is for reading: in
floating point its two large terms cancel (`cancellation`), and `topobounds.theory.paper` evaluates the sum.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr, Min, Rational, Sum, Symbol, digamma, harmonic

from topobounds._arguments import argument_error, as_written, choice, density_fraction, integer, real
from topobounds._records import Record
from topobounds.layers.shape import Shape
from topobounds.theory.paper import corollary_3_4_of, printed_sum

_FORMS = ("sum", "closed")
_MOST_EXACT = 64  # terms of a sum that may have a denominator short enough to be printed

m, n = sympy.symbols("m n", integer=True, positive=True)
i = Symbol("i", integer=True, nonnegative=True)
p, r = sympy.symbols("p r", positive=True)


@dataclass(frozen=True)
class Cancellation(Record):
    """What floating point makes of the printed bound.

    Attributes
    ----------
    value : float
        The bound, correctly rounded, before any clipping at 1.
    plain_sum, closed_form : float
        The two forms evaluated in double precision.
    plain_sum_error, closed_form_error : float
        Their relative errors.
    """

    value: float
    plain_sum: float
    closed_form: float
    plain_sum_error: float
    closed_form_error: float


def theorem_3_3_expression(form: str = "sum") -> Expr:
    """Return the bound of Theorem 3.3 in the symbols m and n, for min(m, n) >= 2.

    Parameters
    ----------
    form : {"sum", "closed"}
        The printed sum, or its closed form with harmonic numbers.

    Returns
    -------
    sympy.Expr
        In the symbols `m` and `n` of this module.

    Raises
    ------
    ValueError
        If `form` is none of the above.

    Examples
    --------
    >>> theorem_3_3_expression("closed").subs({m: 3, n: 4})
    16/55
    """
    return _bound(m * n, form)


def corollary_3_4_expression(form: str = "sum") -> Expr:
    """Return the bound of Corollary 3.4 in the symbols m, n and p, before it is clipped at 1. It is false for p < 1.

    Parameters
    ----------
    form : {"sum", "closed"}
        The printed sum, or its closed form with the digamma function.

    Returns
    -------
    sympy.Expr
        In the symbols `m`, `n` and `p` of this module.

    Raises
    ------
    ValueError
        If `form` is none of the above.

    Examples
    --------
    >>> corollary_3_4_expression().subs({m: 8, n: 8, p: Rational(1, 4)}).doit().evalf(4)
    0.9616
    """
    return _bound(p * m * n, form)


def corollary_3_4_limit() -> Expr:
    """Return the limit of the bound of Corollary 3.4 for m = r n, n -> infinity, r <= 1, p fixed; before clipping.

    The denominators lie between p m n - j and p m n, so the sum lies between two sums of polynomials, whose limits
    agree. At p = 1 it is the limit of Theorem 3.3.

    Returns
    -------
    sympy.Expr
        In the symbols `r` and `p` of this module.

    Examples
    --------
    >>> corollary_3_4_limit()
    -r*(r - 3)/(6*p*(r + 1))
    """
    numerator = Sum((m - i) * (n - i), (i, 0, m)).doit()
    ends = [numerator / ((m + n - 1) * denominator) for denominator in (p * m * n, p * m * n - m)]
    low, high = (sympy.factor(sympy.limit(sympy.together(end.subs(m, r * n)), n, sympy.oo)) for end in ends)
    if sympy.simplify(low - high) != 0:
        raise ArithmeticError(f"the limits {low} and {high} differ")
    return low


def theorem_3_3_limit(ratio: Expr = r) -> Expr:
    """Return the limit of the bound of Theorem 3.3 for m / n = `ratio` fixed and n -> infinity.

    Parameters
    ----------
    ratio : sympy.Expr or number
        In (0, 1]; by symmetry m <= n. The symbol `r` by default.

    Returns
    -------
    sympy.Expr
        ``ratio (3 - ratio) / (6 (ratio + 1))``, which is 1/6 at 1 and tends to 0 with the ratio.

    Raises
    ------
    ValueError
        If `ratio` is a number outside (0, 1].

    Examples
    --------
    >>> theorem_3_3_limit(1)
    1/6
    """
    ratio = sympy.sympify(ratio)
    if ratio.is_number and not 0 < ratio <= 1:
        raise argument_error("ratio", "a number in (0, 1] or a symbol", ratio)
    return corollary_3_4_limit().subs({p: 1, r: ratio})


def eta_tau_expression() -> Expr:
    """Return the critical compression ratio of a dense layer, m n / (m + n - 1).

    Returns
    -------
    sympy.Expr
        In the symbols `m` and `n` of this module; a recurrent layer of l units has m = n = l.

    Examples
    --------
    >>> eta_tau_expression().subs({m: 784, n: 300})
    78400/361
    """
    return m * n / (m + n - 1)


def eta_tau_asymptotics(terms: int = 2) -> Expr:
    """Return the first terms of eta_tau for m = r n and n -> infinity.

    Parameters
    ----------
    terms : int
        How many, at least 1.

    Returns
    -------
    sympy.Expr
        ``r n / (1 + r) + r / (1 + r)^2 + ...`` in the symbols `r` and `n`; what is left out is O(n^(1 - terms)).

    Raises
    ------
    ValueError
        If `terms` is no positive integer.

    Examples
    --------
    >>> eta_tau_asymptotics(1)
    n*r/(r + 1)
    """
    terms = integer("terms", terms, 1)
    # r n^2 / ((1 + r) n - 1) is a geometric series in 1 / ((1 + r) n).
    return sum((r * n ** (1 - t) / (1 + r) ** (t + 1) for t in range(terms)), sympy.Integer(0))


def exact_theorem_3_3(inputs: int, outputs: int) -> Fraction:
    """Return the bound of Theorem 3.3 as an exact fraction.

    Parameters
    ----------
    inputs, outputs : int
        m and n, at least 1.

    Returns
    -------
    Fraction
        Within a rounding error of `topobounds.theory.paper.theorem_3_3`; 1 if either is 1.

    Raises
    ------
    ValueError
        If an argument is no positive integer.

    Examples
    --------
    >>> exact_theorem_3_3(3, 4)
    Fraction(16, 55)
    """
    return exact_corollary_3_4(inputs, outputs, Fraction(1))


def exact_corollary_3_4(inputs: int, outputs: int, density: Fraction) -> Fraction:
    """Return the bound of Corollary 3.4 as an exact fraction, clipped at 1. It is false below density 1.

    Parameters
    ----------
    inputs, outputs : int
        m and n, at least 1.
    density : Fraction or float
        p in (0, 1]; a float stands for the fraction it is.

    Returns
    -------
    Fraction
        The value of the printed formula.

    Raises
    ------
    ValueError
        If an argument is out of range, or a support of that density cannot be connected.

    Examples
    --------
    >>> exact_corollary_3_4(8, 8, Fraction(1, 4))
    Fraction(129944, 135135)
    """
    shape = Shape.checked(inputs, outputs, None)
    density_fraction("density", density)
    return _exact_corollary_3_4_of(shape, density)


def _exact_corollary_3_4_of(shape: Shape, density: Fraction) -> Fraction:
    """Return `exact_corollary_3_4` of a checked shape and density."""
    a, b, _ = shape
    claim = corollary_3_4_of(shape, density)
    if claim.value is None:
        raise argument_error("density", f"enough to connect the layer: {claim.reason.rstrip('.')}", float(density))
    return Fraction(1) if min(a, b) == 1 else min(Fraction(1), _exact_sum(a, b, Fraction(density) * a * b))


def cancellation(inputs: int, outputs: int, density: float = 1.0) -> Cancellation:
    """Return what double precision makes of the plain sum and of the closed form.

    Parameters
    ----------
    inputs, outputs : int
        m and n, at least 2.
    density : float
        p in (0, 1], with p m n > min(m, n).

    Returns
    -------
    Cancellation
        Both values and their relative errors.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> lost = cancellation(4096, 14336)
    >>> round(lost.value, 5), lost.plain_sum_error < 1e-15, lost.closed_form_error > 1e-6
    (0.10056, True, True)
    """
    a, b = integer("m", inputs, 2), integer("n", outputs, 2)
    p_value, j = density_fraction("density", density), min(a, b)
    cells = p_value * a * b
    real("density", cells, f"more than {j / (a * b)}, so that p m n > min(m, n)", j, float(a * b), open_low=True)
    plain = printed_sum(a, b, cells)
    closed = _closed_form(float(a), float(b), cells, lambda x: float(digamma(sympy.Float(x, 60)).evalf(60)), j)
    exact = _closed_form(a, b, sympy.Float(cells, 60), digamma, sympy.Integer(j)).evalf(40)
    errors = [float(abs(value - exact) / exact) for value in (plain, closed)]
    return Cancellation(float(exact), plain, closed, *errors)


def overlap_latex(inputs: int, outputs: int, density: float | None = None, k: int | None = None) -> str:
    r"""Return the paper's formulas for a layer as LaTeX, ready for a paper.

    Parameters
    ----------
    inputs, outputs : int
        m and n, at least 1.
    density : float, optional
        Adds Corollary 3.4 at this density, marked as false below 1.
    k : int, optional
        Largest weights kept, 0 to m n; alpha = m + n - 1 if left out.

    Returns
    -------
    str
        An ``align*`` environment. What the paper says nothing of (k other than alpha, a density at which no support
        is connected) is left out, and a LaTeX comment before it says so.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> print(overlap_latex(3, 4))
    \begin{align*}
    \eta_\tau &= \frac{m n}{m + n - 1} = 2 \\
    \mathbb{E}[X] &\ge \frac{1}{m + n - 1} \sum_{i=0}^{\min(m, n)} \frac{(m - i)(n - i)}{m n - i} = \frac{16}{55}
    \end{align*}
    """
    shape = Shape.checked(inputs, outputs, k)
    if density is not None:
        density_fraction("density", density)
    return overlap_latex_of(shape, density)


def overlap_latex_of(shape: Shape, density: float | None) -> str:
    """Return the `overlap_latex` of a checked shape and density."""
    a, b, _ = shape
    eta = rf"\eta_\tau &= {sympy.latex(eta_tau_expression())} {_equals(Fraction(a * b, a + b - 1))}"
    lines = [eta, *_printed_lines(shape, density)]
    comments = [line for line in lines if line.startswith("%")]
    formulas = " \\\\\n".join(line for line in lines if line not in comments)
    return "\n".join([*comments, r"\begin{align*}", formulas, r"\end{align*}"])


def _printed_lines(shape: Shape, density: float | None) -> Iterator[str]:
    """Yield the line of Theorem 3.3 and, at a density, that of Corollary 3.4; comments for those left out."""
    a, b, k = shape
    if k != a + b - 1:
        claims = "Theorem 3.3" if density is None else "Theorem 3.3 and Corollary 3.4"
        yield f"% Left out: {claims}, about the {a + b - 1} largest weights, not {k}."
    elif min(a, b) == 1:
        yield r"\mathbb{E}[X] &= 1"
    else:
        yield rf"\mathbb{{E}}[X] &\ge {_latex_sum(m * n)} {_equals(_bound_at(shape, Fraction(1)))}"
    if density is None or k != a + b - 1:
        return
    claim = corollary_3_4_of(shape, density)
    if claim.value is None:
        yield f"% Left out: Corollary 3.4, undefined at density {density}. {claim.reason}"
    elif min(a, b) > 1:
        note = r" \quad\text{(as printed; false for } p < 1 \text{)}"
        value = _equals(_bound_at(shape, as_written(density)))
        bound = rf"\min\Bigl(1, {_latex_sum(p * m * n)}\Bigr) {value}, \quad p = {density}"
        yield rf"\mathbb{{E}}[X] &\ge {bound}{note if density < 1 else ''}"


def _bound_at(shape: Shape, density: Fraction) -> Fraction | float:
    """Return the printed bound, clipped at 1; as a fraction where that may be short."""
    if min(shape.m, shape.n) <= _MOST_EXACT:
        return _exact_corollary_3_4_of(shape, density)
    value = corollary_3_4_of(shape, density).value
    assert value is not None
    return Fraction(1) if value == 1 else value


def _bound(cells: Expr, form: str) -> Expr:
    j = Min(m, n)
    if choice("form", form, _FORMS) == "sum":
        return Sum((m - i) * (n - i) / (cells - i), (i, 0, j)) / (m + n - 1)
    if cells.is_integer:
        return _closed_form(m, n, cells, lambda x: harmonic(x - 1), j)
    return _closed_form(m, n, cells, digamma, j)


def _closed_form(a: Any, b: Any, cells: Any, h: Callable[[Any], Any], j: Any) -> Any:
    """Return the closed form over alpha; h(x + 1) = H(x) up to a constant."""
    total = (j + 1) * (a + b - cells - j / 2) + (a - cells) * (b - cells) * (h(cells + 1) - h(cells - j))
    return total / (a + b - 1)


def _exact_sum(a: int, b: int, cells: Fraction) -> Fraction:
    terms = [(a - t) * (b - t) / (cells - t) for t in range(min(a, b))]
    while len(terms) > 1:  # by halves: fractions of like size are cheap to add
        terms = [sum(terms[t : t + 2], Fraction(0)) for t in range(0, len(terms), 2)]
    return terms[0] / (a + b - 1)


def _latex_sum(cells: Expr) -> str:
    """Return the LaTeX of `_bound` (cells, "sum"), with its terms in the paper's order (sympy would write -i + m)."""
    term = rf"\frac{{(m - i)(n - i)}}{{{sympy.latex(cells)} - i}}"
    return rf"\frac{{1}}{{{sympy.latex(m + n - 1)}}} \sum_{{i=0}}^{{\min(m, n)}} {term}"


def _equals(value: Fraction | float) -> str:
    if isinstance(value, Fraction) and value.denominator < 10**6:
        return f"= {sympy.latex(Rational(value.numerator, value.denominator))}"
    return rf"\approx {float(value):.6g}"
