"""The paper's formulas as symbols: every simplification is proved equal, symbolically and at rational points."""

from fractions import Fraction

import pytest
import sympy

from topobounds.layers import Dense
from topobounds.theory import symbolic
from topobounds.theory.paper import corollary_3_4, printed_counts, theorem_3_3
from topobounds.theory.symbolic import (
    cancellation,
    corollary_3_4_expression,
    corollary_3_4_limit,
    eta_tau_asymptotics,
    eta_tau_expression,
    exact_corollary_3_4,
    exact_theorem_3_3,
    overlap_latex,
    theorem_3_3_expression,
    theorem_3_3_limit,
)

m, n, p, r = symbolic.m, symbolic.n, symbolic.p, symbolic.r


def printed_sum(a, b, cells):
    return sum(Fraction((a - i) * (b - i)) / (cells - i) for i in range(min(a, b))) / (a + b - 1)


def test_the_closed_form_solves_the_recursion_of_the_sum():
    """Adding the term i = j to the closed form up to j - 1 gives that up to j, by H(x) = H(x - 1) + 1/x alone."""
    cells, j, h = sympy.symbols("cells j h")  # h = H(cells - j - 1)

    def up_to(last, harmonic_below):
        total = (last + 1) * (m + n - cells - last / 2)
        return total + (m - cells) * (n - cells) * (sympy.harmonic(cells) - harmonic_below)

    term = (m - j) * (n - j) / (cells - j)
    step = up_to(j, h) - up_to(j - 1, h + 1 / (cells - j))
    assert sympy.simplify(step - term) == 0
    first = up_to(sympy.Integer(0), sympy.harmonic(cells) - 1 / cells)
    assert sympy.simplify(first - m * n / cells) == 0


def test_the_closed_form_in_the_package_is_that_closed_form():
    cells, j = m * n, sympy.Min(m, n)
    total = (j + 1) * (m + n - cells - j / 2)
    total += cells * (m - 1) * (n - 1) * (sympy.harmonic(cells) - sympy.harmonic(cells - j - 1))
    assert sympy.simplify(theorem_3_3_expression("closed") - total / (m + n - 1)) == 0


@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 4), (9, 5), (8, 8), (2, 31), (17, 11)])
def test_theorem_3_3_at_rational_points(a, b):
    exact = printed_sum(a, b, Fraction(a * b))
    assert exact_theorem_3_3(a, b) == exact
    for form in ("sum", "closed"):
        value = theorem_3_3_expression(form).subs({m: a, n: b}).doit()
        assert value == sympy.Rational(exact.numerator, exact.denominator)
    assert theorem_3_3(a, b).value == pytest.approx(float(exact), rel=1e-15)


@pytest.mark.parametrize(("a", "b", "density"), [(8, 8, "1/4"), (5, 9, "3/7"), (12, 7, "99/100"), (20, 3, "1")])
def test_corollary_3_4_at_rational_points(a, b, density):
    exact = printed_sum(a, b, Fraction(density) * a * b)
    assert exact_corollary_3_4(a, b, Fraction(density)) == min(1, exact)
    values = {m: a, n: b, p: sympy.Rational(density)}
    assert corollary_3_4_expression("sum").subs(values).doit() == sympy.Rational(exact.numerator, exact.denominator)
    assert float(corollary_3_4_expression("closed").subs(values).evalf(30)) == pytest.approx(float(exact), rel=1e-14)
    assert corollary_3_4(a, b, float(Fraction(density))).value == pytest.approx(min(1, float(exact)), rel=1e-13)


def test_corollary_3_4_at_density_one_is_theorem_3_3():
    assert corollary_3_4_expression("sum").subs(p, 1) == theorem_3_3_expression("sum")
    assert exact_corollary_3_4(784, 300, 1) == exact_theorem_3_3(784, 300)
    assert exact_theorem_3_3(1, 7) == exact_theorem_3_3(1, 1) == 1


def test_limits():
    """1/6 for m = n, 0 as m/n -> 0; (1/2 - m/(6n)) m / (m + n) in between (overlap.md, "Theorem 3.3")."""
    assert theorem_3_3_limit(1) == sympy.Rational(1, 6)
    assert sympy.limit(theorem_3_3_limit(), r, 0) == 0
    assert sympy.simplify(theorem_3_3_limit() - (sympy.Rational(1, 2) - r / 6) * r / (1 + r)) == 0
    assert sympy.simplify(corollary_3_4_limit() * p - theorem_3_3_limit()) == 0


@pytest.mark.parametrize("ratio", ["1", "1/2", "1/10"])
def test_the_bound_approaches_its_limit_as_one_over_the_size(ratio):
    limit = float(theorem_3_3_limit(sympy.Rational(ratio)))
    gaps = [abs(theorem_3_3(int(Fraction(ratio) * size), size).value - limit) * size for size in (1000, 2000, 4000)]
    assert gaps[2] == pytest.approx(gaps[1], rel=0.01)
    assert gaps[1] == pytest.approx(gaps[0], rel=0.02)


def test_eta_tau_and_its_asymptotics():
    weights, kept = printed_counts(Dense(784, 300))
    assert eta_tau_expression().subs({m: 784, n: 300}) == sympy.Rational(weights, kept)
    eta = eta_tau_expression().subs(m, r * n)
    for terms in (1, 2, 3):
        left_out = (eta - eta_tau_asymptotics(terms)) * n ** (terms - 1)
        limit = sympy.limit(sympy.together(left_out), n, sympy.oo)
        assert sympy.simplify(limit - r / (1 + r) ** (terms + 1)) == 0


def test_the_closed_form_loses_digits_and_the_sum_does_not():
    """4096x14336: 0.10060 against 0.10056 (docs/theory/overlap.md, "Theorem 3.3")."""
    large = cancellation(4096, 14336)
    assert large.value == pytest.approx(0.10056, abs=5e-6)
    assert large.closed_form == pytest.approx(0.10060, abs=5e-6)
    assert large.closed_form_error > 1e-4
    errors = []
    for a, b in [(8, 8), (100, 30), (784, 300), (4096, 14336)]:
        lost = cancellation(a, b)
        assert lost.plain_sum == theorem_3_3(a, b).value
        assert lost.plain_sum_error < 4e-16
        errors.append(lost.closed_form_error)
    assert errors == sorted(errors)


def test_cancellation_measures_against_the_exact_value():
    lost = cancellation(60, 40, 0.5)
    assert lost.value == float(printed_sum(60, 40, Fraction(1200)))
    assert lost.plain_sum_error == pytest.approx(abs(lost.plain_sum - lost.value) / lost.value, abs=3e-16)


def test_latex():
    text = overlap_latex(8, 8, 0.25)
    assert text.startswith(r"\begin{align*}")
    assert text.endswith(r"\end{align*}")
    assert r"\frac{m n}{m + n - 1} = \frac{64}{15}" in text
    assert r"\frac{129944}{135135}" in text
    assert "false for" in text
    assert "false for" not in overlap_latex(8, 8, 1)
    assert r"\approx 0.121347" in overlap_latex(784, 300)
    assert all(text.count(a) == text.count(b) for a, b in ("{}", "()", [r"\begin", r"\end"]))


def formulas(text):
    """Return the lines of the environment, and the comments before it."""
    comments, _, rest = text.partition("\\begin{align*}\n")
    return rest.removesuffix("\n\\end{align*}").split(" \\\\\n"), comments.splitlines()


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1)])
def test_the_latex_of_a_layer_that_is_a_tree(shape):
    """The printed sum is 1/7 at 1 x 7, but it is about j >= 2: for j = 1 the theorem says 1."""
    (_, bound), comments = formulas(overlap_latex(*shape))
    assert (bound, comments) == (r"\mathbb{E}[X] &= 1", [])
    assert overlap_latex(*shape, density=1.0) == overlap_latex(*shape)


def test_the_latex_leaves_out_what_the_paper_does_not_say():
    lines, comments = formulas(overlap_latex(784, 300, 0.001))
    assert len(lines) == 2
    undefined = "undefined at density 0.001. 235 weights cannot connect 1084 neurons: that takes 1083."
    assert comments == [f"% Left out: Corollary 3.4, {undefined}"]
    lines, comments = formulas(overlap_latex(784, 300, 0.1, k=7))
    assert [line[:9] for line in lines] == [r"\eta_\tau"]
    assert comments == ["% Left out: Theorem 3.3 and Corollary 3.4, about the 1083 largest weights, not 7."]
    assert formulas(overlap_latex(3, 4, k=5))[1] == ["% Left out: Theorem 3.3, about the 6 largest weights, not 5."]
    lines, comments = formulas(overlap_latex(3, 4, 0.9, k=7))  # more than there are edges
    assert [line[:9] for line in lines] == [r"\eta_\tau"]
    assert comments == ["% Left out: Theorem 3.3 and Corollary 3.4, about the 6 largest weights, not 7."]
    assert overlap_latex(3, 4, k=6) == overlap_latex(3, 4)
    assert overlap_latex(784, 300, 0.1).count(" = 1, ") == 1


def test_the_density_of_the_latex_is_read_as_it_is_written():
    exact = printed_sum(4, 5, Fraction(7, 10) * 20)
    assert f"= {sympy.latex(sympy.Rational(str(exact)))}, " in overlap_latex(4, 5, 0.7)


def test_the_latex_of_the_sum_is_the_sum():
    """The term written by hand is the term of the expression."""
    term = "(m - i)(n - i)}{m n - i}"
    assert term in overlap_latex(3, 4)
    i = symbolic.i
    assert theorem_3_3_expression("sum").find(sympy.Sum).pop().function == (m - i) * (n - i) / (m * n - i)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theorem_3_3_expression("product"), "'form' must be one of 'sum', 'closed'"),
        (lambda: theorem_3_3_limit(2), r"'ratio' must be a number in \(0, 1\] or a symbol, not 2"),
        (lambda: eta_tau_asymptotics(0), "'terms' must be a positive integer"),
        (lambda: exact_theorem_3_3(0, 3), "'m' must be a positive integer"),
        (
            lambda: exact_corollary_3_4(8, 8, 0.01),
            r"'density' must be enough to connect .*: that takes 15, not 0\.01\.$",
        ),
        (lambda: exact_corollary_3_4(8, 8, 2), "'density' must be a number in"),
        (lambda: cancellation(1, 5), "'m' must be an integer of at least 2"),
        (lambda: cancellation(5, 5, 0.1), "'density' must be more than 0.2"),
        (lambda: overlap_latex(5, 0), "'n' must be a positive integer"),
        (lambda: overlap_latex(5, 3, k=16), "'k' must be an integer from 0 to 15, not 16"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
