"""The price of the topology against enumeration, and against the published values of normal weights."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import topobounds as tb
from tests import naive
from topobounds.chance.price import topology_price
from topobounds.theory.ranks import missing_edges

VALUES = {
    (2, 2): [9, 5, 4, 1],
    (2, 3): [12, 9, 8, 5, 2, 1],
    (3, 2): [7, 6, 5, 4, 3, 2],
    (2, 4): [9, 8, 7, 5, 4, 3, 2, 1],
}


def lost_and_swaps(matrix, k, mask=None):
    """Return what T-IMP loses against magnitude pruning, and its swaps, in pure Python."""
    m, n = len(matrix), len(matrix[0])
    forest, _, _ = naive.kruskal(matrix, mask)
    cells = [(i, j) for i in range(m) for j in range(n) if mask is None or mask[i][j]]
    order = sorted(cells, key=lambda c: (-abs(matrix[c[0]][c[1]]), c))
    others = [cell for cell in order if cell not in forest]
    kept = forest + others[: k - len(forest)]
    top = order[:k]
    energy = [sum(matrix[i][j] ** 2 for i, j in cells) for cells in (top, kept)]
    return energy[0] - energy[1], len(set(top) - set(kept))


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2)])
def test_the_expectations_enclose_the_mean_over_all_orders_of_the_values(shape):
    m, n = shape
    for k in range(m + n - 1, m * n + 1):
        orders = [np.reshape(order, shape).tolist() for order in itertools.permutations(VALUES[shape])]
        results = [lost_and_swaps(matrix, k) for matrix in orders]
        mean, swaps = (Fraction(sum(each), len(orders)) for each in zip(*results, strict=True))
        price = topology_price(orders[0], k)
        assert swaps in price.expected_swaps
        bound = price.expected_squared_weight_lost
        assert bound.lower <= mean <= bound.upper + price.expectation_gap
        if k == m + n - 1:
            assert price.expectation_gap == 0
            assert bound.width < 1e-6


@pytest.mark.parametrize("seed", range(30))
def test_swaps_and_loss_agree_with_plain_python(seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 6, 2).tolist()
    matrix = rng.integers(-4, 5, (m, n)) if seed % 2 else rng.standard_normal((m, n))
    alpha = tb.maximum_spanning_forest(matrix).alpha
    for k in range(alpha, np.count_nonzero(matrix) + 1):
        price = topology_price(matrix, k, expected=False)
        lost, swaps = lost_and_swaps(matrix.tolist(), k)
        assert price.swaps == swaps == alpha - round(tb.magnitude_overlap(matrix, k) * alpha)
        assert price.squared_weight_lost == pytest.approx(lost, abs=1e-12)
        assert price.keep == k
        assert price.alpha == alpha


def test_normal_weights_cost_what_was_found_for_them():
    weights = np.random.default_rng(0).standard_normal((784, 300))
    alpha = 1083
    # The loss is that of other normal weights: it hangs on the largest few.
    for times, swaps, share, loss in ((1, 217.0, 0.024, 258.6), (2, 49.1, 0.0013, 25.4), (3, 12.1, 0.0002, 4.19)):
        price = topology_price(weights, times * alpha)
        assert price.expected_swaps.lower == pytest.approx(swaps, abs=0.06)
        bound = price.expected_squared_weight_lost
        total = price.squared_weight_lost / price.share_lost
        assert bound.lower / total == pytest.approx(share, rel=0.3)
        assert bound.lower == pytest.approx(loss, rel=0.06)
        assert bound.width < 0.01 * bound.upper
        rng = np.random.default_rng(1)
        shuffled = [rng.permutation(weights.ravel()).reshape(weights.shape) for _ in range(20)]
        lost = [topology_price(each, times * alpha, expected=False).squared_weight_lost for each in shuffled]
        error = np.std(lost) / math.sqrt(len(lost))
        assert bound.lower - 4 * error < np.mean(lost) < bound.upper + price.expectation_gap + 4 * error


@pytest.mark.parametrize("seed", range(10))
def test_a_masked_layer_is_compared_on_its_survivors(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-4, 5, (4, 5))
    mask = rng.random((4, 5)) < 0.7
    for k in range(tb.maximum_spanning_forest(matrix, mask).alpha, int(mask.sum()) + 1):
        price = topology_price(matrix, k, mask)
        assert (price.squared_weight_lost, price.swaps) == lost_and_swaps(matrix.tolist(), k, mask.tolist())
        both = [tb.topological_mask(matrix, k, mask), tb.magnitude_mask(matrix, k, mask)]
        assert price.swaps == np.count_nonzero(both[1] & ~both[0])
    assert topology_price(matrix, 1.0, mask).keep == mask.sum()


def test_where_weights_are_missing_there_is_no_expectation_and_a_reason():
    weights = np.arange(1.0, 13.0).reshape(3, 4)
    mask = np.ones((3, 4), bool)
    mask[0, 0] = False
    for price in (topology_price(weights, 7, mask), topology_price(weights * mask, 7)):
        assert price.expected_swaps is price.expected_squared_weight_lost is price.expectation_gap is None
        assert price.reason.startswith("The expectations are known for full layers")
    assert topology_price(np.zeros((2, 2)), 0).share_lost == 0
    assert topology_price(weights, 7, expected=False).reason == "The expectations were not asked for."


def test_fewer_weights_than_the_forest_has_are_refused():
    with pytest.raises(ValueError, match="at least alpha = 6 weights"):
        topology_price(np.arange(1.0, 13.0).reshape(3, 4), 5)


@pytest.mark.parametrize("shape", [(1, 5), (2, 4), (3, 3)])
def test_the_expected_ranks_enclose_the_exact_ones(shape):
    m, n = shape
    ks = np.arange(m * n + 1)
    lower, upper = missing_edges(m, n).ranks_at(ks)
    exact = [naive.expected_overlap(m, n, k) * (m + n - 1) for k in ks.tolist()]
    assert all(low <= rank <= high for low, rank, high in zip(lower, exact, upper, strict=True))
    assert (upper - lower).max() < 1e-9


def test_bounds_at_every_rank_hold_and_are_narrow():
    m, n = 25, 8
    ks = np.arange(1, m * n + 1)
    lower, upper = missing_edges(m, n).ranks_at(ks)
    for k in ks[::7].tolist():
        exact = tb.expected_overlap(m, n, k)
        assert lower[k - 1] <= exact.upper * (m + n - 1)
        assert upper[k - 1] >= exact.lower * (m + n - 1)
    assert (upper - lower).max() < 1


@pytest.mark.parametrize("exponent", [-1060, -600, -530, 300, 505, 600, 1000])
def test_weights_of_any_size(exponent: int) -> None:
    weights = np.array([[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]])
    price = topology_price(np.ldexp(weights, exponent), 4)
    plain = topology_price(weights, 4)
    assert (price.swaps, price.share_lost) == (plain.swaps, plain.share_lost)
    lost, expected = price.expected_squared_weight_lost, Fraction(7) * Fraction(2) ** (2 * exponent)
    assert lost is not None
    assert Fraction(lost.lower) <= expected
    assert lost.upper == math.inf or expected <= Fraction(lost.upper)
    assert price.squared_weight_lost == (math.ldexp(35.0, 2 * exponent) if 2 * exponent < 1018 else math.inf)


def bound_by_definition(values, m, n, k):
    """Return the bound on the expected loss, in fractions."""
    alpha = m + n - 1
    falling = [*sorted((Fraction(value) for value in values), reverse=True), Fraction(0)]
    ranks = [Fraction(naive.expected_overlap(m, n, j)) * alpha for j in range(m * n + 1)]
    return sum(
        (falling[j - 1] ** 2 - falling[j] ** 2) * (min(j, k) - min(Fraction(j), k - alpha + ranks[j]))
        for j in range(1, m * n + 1)
    )


@pytest.mark.parametrize("n_large", [2, 3, 4, 6])
@pytest.mark.parametrize("large", [0, 300, 450, 1000])
@pytest.mark.parametrize("small", [-1060, -700, -540, -530, -500, -300, -50, -10])
def test_a_few_weights_far_above_the_rest_do_not_blur_what_the_rest_costs(n_large, large, small):
    values = np.ldexp(np.random.default_rng(n_large).uniform(1, 2, 9), [large] * n_large + [small] * (9 - n_large))
    for k in (5, 6, 7):
        bound = topology_price(values.reshape(3, 3), k).expected_squared_weight_lost
        exact = bound_by_definition(values.tolist(), 3, 3, k)
        assert bound.lower <= exact
        assert bound.upper == math.inf or exact <= Fraction(bound.upper)
        if exact < Fraction(2) ** 1022:
            assert bound.width <= 1e-8 * float(exact) + 2e-323 or not exact


def test_nearly_equal_weights_that_are_swapped_cost_the_difference_of_their_squares():
    large, less = 0.7, 0.7 - 2**-53
    price = topology_price([[2.0, 1.5, less], [1.2, large, 0.1]], 4, expected=False)
    assert price.swaps == 1
    assert price.squared_weight_lost == float(Fraction(large) ** 2 - Fraction(less) ** 2)


def _levels(name, rng):
    """Return 20,000 weights of few levels, none of them zero."""
    if name == "one":
        return np.ones(20_000)
    if name == "two":
        return rng.choice([1.0, 2.0], 20_000)
    return np.where(levels := np.clip(np.round(rng.standard_normal(20_000) * 2.5), -7, 7), levels, 1.0)


@pytest.mark.parametrize(("name", "times", "by_place"), [("one", 1, 197), ("two", 2, 187), ("four bits", 4, 3.5)])
def test_no_swaps_are_expected_where_the_rule_for_ties_makes_them(name, times, by_place):
    """Over orders of the values the mean of the swaps is far from the expectation, which is that of ties at random."""
    rng = np.random.default_rng(3)
    values, k = _levels(name, rng), 299 * times
    orders = [rng.permutation(values).reshape(200, 100) for _ in range(20)]
    found = [topology_price(each, k, expected=False).swaps for each in orders]
    assert np.mean(found) == pytest.approx(by_place, rel=0.35 if name == "four bits" else 0.02)
    of_distinct = topology_price(rng.standard_normal((200, 100)), k).expected_swaps
    price = topology_price(orders[int(np.argmax(found))], k)
    assert price.expected_swaps is None
    told = float(price.reason.removesuffix(" weights are swapped. So there are no expected swaps.").split()[-1])
    assert abs(told - of_distinct.lower) < 3 * max(1, np.sqrt(of_distinct.lower))


def test_few_ties_leave_the_expected_swaps():
    weights = np.round(np.random.default_rng(3).standard_normal((200, 100)) * 1000)
    weights[weights == 0] = 1
    for times in (1, 2, 4):
        price = topology_price(weights, 299 * times)
        assert (price.reason, price.expected_swaps is None) == (None, False)


def test_what_is_lost_is_the_same_in_whatever_order_ties_are_ranked():
    levels = _levels("four bits", np.random.default_rng(4)).reshape(200, 100)
    noise = 1 + 1e-12 * np.random.default_rng(5).random(levels.shape)
    price, other = topology_price(levels, 299), topology_price(levels * noise, 299)
    assert price.swaps != other.swaps
    assert price.squared_weight_lost == pytest.approx(other.squared_weight_lost, rel=1e-8)
    assert price.expected_squared_weight_lost.lower == pytest.approx(other.expected_squared_weight_lost.lower, rel=1e-8)
