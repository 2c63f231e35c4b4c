"""The exact expected overlap; known answers."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.enumeration import connected_graphs, mean_overlap, mean_overlap_by_components, small_layers
from topobounds.theory import counting
from topobounds.theory.bounds import boruvka_bound
from topobounds.theory.counting import exact_expected_overlap
from topobounds.theory.overlap import overlap_limit


@pytest.mark.parametrize(
    ("m", "n", "value"), [(2, 2, "1"), (2, 3, "19/20"), (3, 3, "13/14"), (3, 4, "839/924"), (4, 4, "346/385")]
)
def test_known_answers(m, n, value):
    assert exact_expected_overlap(m, n) == exact_expected_overlap(n, m) == Fraction(value)


@pytest.mark.parametrize(("m", "n", "value"), [(100, 10, 0.7122653), (512, 10, 0.6643136), (784, 10, 0.6598706)])
def test_known_answers_of_thin_layers(m, n, value):
    assert float(exact_expected_overlap(m, n)) == pytest.approx(value, abs=6e-8)


def test_enumeration_of_all_subsets_up_to_4x4():
    for m, n, k in small_layers(4):
        assert exact_expected_overlap(m, n, k) == mean_overlap(m, n, k), (m, n, k)


@pytest.mark.parametrize(("m", "n"), [(5, 5), (7, 6), (3, 11)])
def test_counting_connected_graphs_gives_the_same(m, n):
    for k in (0, 1, m, m + n - 1, 2 * m, m * n // 2, m * n - 1, m * n):
        assert exact_expected_overlap(m, n, k) == mean_overlap_by_components(m, n, k), k


def test_the_oracle_counts_connected_graphs():
    """K(a, b) has a^(b-1) b^(a-1) spanning trees (Scoins 1962), and 2x2 one 4-cycle."""
    assert connected_graphs(2, 2) == [0, 0, 0, 4, 1]
    for a, b in [(1, 5), (2, 4), (3, 4), (5, 5)]:
        assert connected_graphs(a, b)[a + b - 1] == a ** (b - 1) * b ** (a - 1)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_properties(m, n, data):
    k = data.draw(st.integers(0, m * n))
    value = exact_expected_overlap(m, n, k)
    alpha = m + n - 1
    assert boruvka_bound(m, n, k) * (1 - 1e-14) <= value <= Fraction(min(k, alpha), alpha)
    assert (value == Fraction(k, alpha)) == (k <= 3 or min(m, n) == 1)  # a bipartite cycle has at least four edges
    if k < m * n:
        assert value <= exact_expected_overlap(m, n, k + 1)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (4, 1), (2, 4), (5, 5), (7, 3)])
def test_connected_graphs_are_counted_by_edges(m, n):
    assert counting.connected_graphs(m, n) == connected_graphs(m, n)


def test_edges():
    assert exact_expected_overlap(1, 1) == 1
    assert exact_expected_overlap(5, 7, 0) == 0
    assert exact_expected_overlap(5, 7, 35) == 1
    assert exact_expected_overlap(10**6, 1, 3) == Fraction(3, 10**6)


def test_the_limit_is_near_from_ten_by_ten_on():
    for size in (10, 14, 18):
        assert abs(float(exact_expected_overlap(size, size)) - overlap_limit(size, size)) < 0.05 / size


@pytest.mark.parametrize(
    ("m", "n", "k"), [(100, 100, None), (784, 300, None), (30, 30, 450), (5000, 12, None), (2, 10**6, 2 * 10**6 - 9)]
)
def test_too_large_to_count(m, n, k):
    with pytest.raises(ValueError, match=r"too large to count exactly: .* expected_overlap .* simulate_overlap"):
        exact_expected_overlap(m, n, k)


@pytest.mark.parametrize(("arguments", "name"), [((0, 3), "'m'"), ((3, "3"), "'n'"), ((3, 3, 10), "'k'")])
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"Argument {name} must be"):
        exact_expected_overlap(*arguments)
