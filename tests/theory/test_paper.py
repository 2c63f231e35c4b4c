"""The paper's claims as printed; known answers."""

import itertools
import json
from fractions import Fraction

import pytest

from topobounds.layers import Conv, Dense, Recurrent
from topobounds.theory.paper import corollary_3_4, printed_counts, theorem_3_3


def naive_sum(m, n, cells):
    return sum(Fraction((m - i) * (n - i)) / (cells - i) for i in range(min(m, n))) / (m + n - 1)


def closed_form(m, n):
    j, cells = min(m, n), m * n
    harmonic = sum(Fraction(1, i) for i in range(cells - j, cells + 1))
    total = (j + 1) * (m + n - cells - Fraction(j, 2)) + cells * (m - 1) * (n - 1) * harmonic
    return total / (m + n - 1)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (2, 5), (7, 3), (8, 8), (30, 20)])
def test_theorem_3_3_is_the_printed_sum_and_its_closed_form(m, n):
    assert theorem_3_3(m, n).value == pytest.approx(float(naive_sum(m, n, m * n)), rel=1e-15)
    assert naive_sum(m, n, m * n) == closed_form(m, n)


@pytest.mark.parametrize(
    ("m", "n", "value", "digits"),
    [(784, 300, 0.12135, 5), (4096, 14336, 0.10056, 5), (5, 1, 1.0, 15), (1, 5, 1.0, 15), (1, 1, 1.0, 15)],
)
def test_theorem_3_3_known_answers(m, n, value, digits):
    claim = theorem_3_3(m, n)
    assert claim.value == theorem_3_3(n, m).value
    assert claim.value == pytest.approx(value, abs=0.6 * 10**-digits)
    assert claim.status == "proved"
    assert "exchangeable" in claim.reason


def test_corollary_3_4_counterexample_by_enumeration():
    """8x8, p = 1/4: a 4-cycle with 12 pendant edges has E[X] = 19/20, below the bound."""
    cycle, edges, alpha = 4, 16, 15
    # Top-15 of 16 drops one edge, each equally likely; the tree drops the lightest of the cycle.
    expected = Fraction(cycle, edges) + Fraction(edges - cycle, edges) * Fraction(alpha - 1, alpha)
    assert expected == Fraction(19, 20)
    claim = corollary_3_4(8, 8, 0.25)
    assert claim.status == "false"
    assert claim.value == pytest.approx(float(naive_sum(8, 8, Fraction(16))), rel=1e-14)
    assert float(expected) < claim.value < 0.9617


@pytest.mark.parametrize(
    ("m", "n", "density", "value"), [(784, 300, 0.1, 1.0), (784, 300, 0.15, 0.811), (300, 100, 0.1, 1.0)]
)
def test_corollary_3_4_known_answers(m, n, density, value):
    assert corollary_3_4(m, n, density).value == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("m", "n"), [(784, 300), (1, 7), (1, 1)])
def test_corollary_3_4_at_density_one_is_theorem_3_3(m, n):
    assert corollary_3_4(m, n, 1) == corollary_3_4(m, n, 1.0) == theorem_3_3(m, n)


def test_corollary_3_4_says_nothing_without_a_connected_support():
    claim = corollary_3_4(784, 300, 1082 / 235200)
    assert (claim.value, claim.status) == (None, "undefined")
    assert "1082" in claim.reason
    assert corollary_3_4(784, 300, 1083 / 235200).value == 1.0
    assert corollary_3_4(1, 9, 0.5).value is None


def test_corollary_3_4_is_never_more_than_one_nor_less_than_theorem_3_3():
    for m, n, density in itertools.product(range(1, 7), range(1, 7), (0.3, 0.55, 0.8, 0.99, 1.0)):
        value = corollary_3_4(m, n, density).value
        assert value is None or theorem_3_3(m, n).value <= value <= 1


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: theorem_3_3(0, 3), "'m'"),
        (lambda: theorem_3_3(3, 2.0), "'n'"),
        (lambda: corollary_3_4(3, -1, 0.5), "'n'"),
        (lambda: theorem_3_3(10**400, 4), "'m'"),
        (lambda: corollary_3_4(4, 10**400, 0.5), "'n'"),
        (lambda: theorem_3_3(2**40, 2**41), "'m'"),
        (lambda: corollary_3_4(2**25, 2**25, 0.5), "'m'"),
        (lambda: corollary_3_4(3, 3, 0), "'density'"),
        (lambda: corollary_3_4(3, 3, 1.5), "'density'"),
        (lambda: corollary_3_4(3, 3, float("nan")), "'density'"),
    ],
)
def test_bad_arguments(call, argument):
    with pytest.raises(ValueError, match=f"Argument {argument} must be"):
        call()


def test_a_sum_too_long_says_so():
    with pytest.raises(
        ValueError, match=r"'m' must be at most 2\^24 where n is 33554432, as the sum .*, not 1099511627776\.$"
    ):
        theorem_3_3(2**40, 2**25)


def test_a_claim_is_ready_for_json():
    record = json.loads(json.dumps(corollary_3_4(784, 300, 0.001).to_dict()))
    assert record["value"] is None
    assert set(record) == {"schema_version", "value", "status", "reason"}


@pytest.mark.parametrize(
    ("layer", "counts"),
    [
        (Dense(784, 300), (235200, 1083)),
        (Recurrent(128), (128**2, 255)),
        (Conv(1, 1, (3, 3), (32, 32), padding=1), (9 * 1024, 34**2 + 32**2 - 1)),
        (Conv(64, 128, (3, 3), (32, 32), padding=1), (9 * 1024, 34**2 + 32**2 - 1)),
        (Conv(3, 8, 5, 100, stride=2), (5 * 48, 100 + 48 - 1)),
    ],
)
def test_printed_counts(layer, counts):
    assert printed_counts(layer) == counts
