"""The certified enclosure; known answers from docs/theory/enclosure.md, truth from the exact count."""

import itertools
import math
import random
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.enumeration import connected_graphs, mean_overlap, small_layers
from topobounds.layers.shape import Shape
from topobounds.theory import overlap as overlap_module
from topobounds.theory._balls import Ball, ball_sum
from topobounds.theory._components import (
    Effort,
    _binomial_model,
    _components,
    _facts,
    components_by_size,
    middle_components,
)
from topobounds.theory._logarithms import log_binomial, log_ratio
from topobounds.theory.bounds import boruvka_bound, star_bound
from topobounds.theory.counting import exact_expected_overlap
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import (
    expected_overlap,
    expected_overlap_of,
    expected_retention,
    expected_retention_of,
    overlap_limit,
)
from topobounds.theory.paper import theorem_3_3
from topobounds.theory.ranks import QUICK

# Monte Carlo mean and standard error of 784x300 at k = alpha.
SAMPLED_784_300 = 0.799607, 0.000014


@pytest.fixture
def no_exact_counting(monkeypatch):
    """Make the enclosure show its bounds where it would count."""
    monkeypatch.setattr(overlap_module, "SHARP", overlap_module.SHARP._replace(steps=-1))
    expected_overlap_of.cache_clear()  # what is kept was counted, and what is enclosed here is for no other test
    yield
    expected_overlap_of.cache_clear()


def shifted(e):
    return Enclosure(e.lower + e.width, e.upper + e.width), Enclosure(e.lower - e.width, e.upper - e.width)


@pytest.mark.parametrize(
    ("m", "n", "reference"),
    [
        (784, 300, (0.799621, 0.799663)),
        (1000, 1000, (0.838290, 0.838315)),
        (300, 100, (0.78992, 0.79015)),
        (10, 1000, (0.65804465, 0.65804475)),
    ],
)
def test_reference_points_are_sharpened(m, n, reference):
    e = expected_overlap(m, n)
    assert reference[0] <= e.lower < e.upper <= reference[1]
    assert e.width < (reference[1] - reference[0]) / 50


def test_the_sampled_value_lies_within_the_enclosure():
    mean, error = SAMPLED_784_300
    e = expected_overlap(784, 300)
    assert e.lower - 5 * error <= mean <= e.upper + 5 * error


def test_a_language_model_layer():
    e = expected_overlap(4096, 14336)
    assert e.width < 1e-9
    assert abs(e.lower - overlap_limit(4096, 14336)) < 1e-4


def test_small_layers_are_exact_up_to_the_last_digit():
    for m, n, k in small_layers():
        e, truth = expected_overlap(m, n, k), mean_overlap(m, n, k)
        assert e.lower <= truth <= e.upper
        assert e.width <= math.ulp(1.0)


@pytest.mark.usefixtures("no_exact_counting")
def test_the_bounds_enclose_the_exact_value_at_every_k_of_small_layers():
    for m, n in [(2, 2), (3, 2), (2, 7), (4, 4), (6, 5), (7, 7), (3, 9)]:
        for k in range(m * n + 1):
            assert exact_expected_overlap(m, n, k) in expected_overlap(m, n, k), (m, n, k)


@pytest.mark.usefixtures("no_exact_counting")
@pytest.mark.parametrize(("m", "n"), [(14, 14), (40, 8), (6, 100), (300, 4), (1000, 3), (2, 500)])
def test_the_bounds_enclose_the_exact_value_of_thin_layers(m, n):
    cells, alpha = m * n, m + n - 1
    ks = {1, 4, 5, 7, m // 2 + 3, math.isqrt(cells) + 1, alpha, 2 * alpha, cells // 2, cells - m, cells - 2, cells - 1}
    for k in ks:
        e = expected_overlap(m, n, min(k, cells))
        assert exact_expected_overlap(m, n, min(k, cells)) in e, k


@pytest.mark.usefixtures("no_exact_counting")
def test_an_enclosure_shifted_by_its_width_misses():
    for m, n, k in [(300, 4, None), (14, 14, None), (14, 14, 14), (100, 6, 50), (10, 100, None), (9, 9, 70)]:
        e, truth = expected_overlap(m, n, k), exact_expected_overlap(m, n, k)
        assert truth in e
        assert all(truth not in other for other in shifted(e))


def grid():
    rng = random.Random(4)
    sizes = [1, 2, 3, 5, 10, 17, 30, 80, 200, 500, 2000]
    for m, n in itertools.combinations_with_replacement(sizes, 2):
        fractions = [0, rng.random() ** 4, rng.random() ** 2, 1]
        yield from ((m, n, k) for k in {m + n - 1, *(round(f * m * n) for f in fractions)})
    yield 2000, 2000, 2600


def test_the_bounds_stand_in_order_on_a_grid():
    points = list(grid())
    assert len(points) >= 200
    for m, n, k in points:
        e, alpha = expected_overlap(m, n, k), m + n - 1
        assert 0 <= e.lower <= e.upper <= 1, (m, n, k)
        assert star_bound(m, n, k) <= boruvka_bound(m, n, k) * (1 + 1e-14), (m, n, k)
        assert boruvka_bound(m, n, k) <= e.upper * (1 + 1e-14), (m, n, k)
        assert e.upper <= math.nextafter(min(k, alpha) / alpha, 2), (m, n, k)
        if k == alpha:
            assert theorem_3_3(m, n).value <= star_bound(m, n) * (1 + 1e-14), (m, n)
            assert boruvka_bound(m, n, k) <= e.lower * (1 + 1e-14), (m, n, k)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_properties(m, n, fraction):
    k = round(fraction**3 * m * n)
    e, transposed = expected_overlap(m, n, k), expected_overlap(n, m, k)
    assert 0 <= e.lower <= e.upper <= 1
    assert max(e.lower, transposed.lower) <= min(e.upper, transposed.upper)
    assert e.upper >= boruvka_bound(m, n, k) * (1 - 1e-14)


def test_the_limit_is_approached_as_one_over_the_size():
    """At alpha the gap times the size tends to a constant, -0.0416."""
    scaled = []
    for size in (100, 400, 1600, 6400):
        e = expected_overlap(size, size)
        scaled.append((e.lower - overlap_limit(size, size)) * size)
    assert scaled == pytest.approx([-0.0417] * 4, abs=3e-3)


def test_edges():
    assert expected_overlap(5, 7, 0) == Enclosure(0.0, 0.0)
    assert expected_overlap(5, 7, 35) == expected_overlap(1, 1) == expected_overlap(1, 9) == Enclosure(1.0, 1.0)
    assert Fraction(3, 10**6) in expected_overlap(1, 10**6, 3)
    assert Fraction(2, 1083) in expected_overlap(784, 300, 2)
    for k in (235199, 235200 - 300, 235200 - 784):
        assert expected_overlap(784, 300, k).lower > 1 - 1e-15


def test_the_largest_layers():
    assert expected_overlap(2**20, 2**18).width < 1e-9
    assert expected_overlap(2**50, 4).width < 1e-9
    with pytest.raises(ValueError, match=r"'m' must be so small that m n is at most 2\^52"):
        expected_overlap(2**26, 2**26 + 1)


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 3), "'m'"), ((3, 3.0), "'n'"), ((3, 3, 10), "'k'"), ((3, 3, -1), "'k'")]
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"Argument {name} must be"):
        expected_overlap(*arguments)


def test_a_retention_curve_rises_and_its_ratio_to_k_falls():
    ks = [0, 20, 50, 80, 90, 100, 110, 120, 150, 199, 300, 700, 10_000, 20]
    curve = expected_retention(100, 100, ks)
    assert list(curve.ks) == sorted(set(ks))
    assert curve.densities[-1] == 1
    for k, low, high in zip(curve.ks, curve.lower, curve.upper, strict=True):
        point = expected_overlap(100, 100, k)
        assert point.lower <= low <= high <= point.upper
    for k, lower, upper in [(curve.ks, curve.lower, curve.upper)]:
        assert list(lower) == sorted(lower)
        assert list(upper) == sorted(upper)
        for values in (lower, upper):
            ratios = [v / j for v, j in zip(values[1:], k[1:], strict=True)]
            assert all(a >= b * (1 - 1e-14) for a, b in itertools.pairwise(ratios))


def test_a_retention_curve_of_a_small_layer_is_exact():
    curve = expected_retention(4, 3, range(13))
    for k, low, high in zip(curve.ks, curve.lower, curve.upper, strict=True):
        assert low <= mean_overlap(4, 3, k) <= high < low + 1e-15


@pytest.mark.parametrize("ks", [None, 5, "12", True])
def test_a_retention_curve_needs_a_sequence(ks):
    with pytest.raises(ValueError, match=r"^Argument 'ks' must be a sequence of integers from 0 to 16, not "):
        expected_retention(4, 4, ks)


@pytest.mark.parametrize("k", [None, 1.5, True, [3], 17, -1])
def test_every_k_of_a_retention_curve_is_checked(k):
    with pytest.raises(ValueError, match=r"^Argument 'k' must be an integer from 0 to 16, not "):
        expected_retention(4, 4, [3, k])


def test_where_an_enclosure_is_widest():
    """What the docstring and docs/theory/enclosure.md say: at 18 x 18, and falling from there."""
    widths = {n: expected_overlap(n, n).width for n in (17, 18, 19, 20, 40, 200)}
    assert widths[17] < 1e-15
    assert max(widths.values()) == widths[18]
    rounded = {n: f"{width:.1e}" for n, width in widths.items()}
    assert (rounded[18], rounded[40], rounded[200]) == ("5.9e-03", "5.9e-04", "1.5e-06")


@pytest.mark.parametrize(("n", "ks"), [(773, (651, 715)), (961, (427, 444, 564, 838)), (1869, (1111, 1651, 1862))])
def test_a_retention_curve_is_rounded_outwards(n, ks):
    curve = expected_retention(1, n, ks)
    for k, low, high in zip(curve.ks, curve.lower, curve.upper, strict=True):
        assert Fraction(low) <= Fraction(k, n) <= Fraction(high)


# The parts, each against the truth.


def exact_components(m, n, k, a, b, *, cycles=None):
    """Return the expected number of components of a shape, with so many independent cycles if given."""
    counts = connected_graphs(a, b)
    edges = range(len(counts)) if cycles is None else [a + b - 1 + cycles]
    rest = (m - a) * (n - b)
    total = sum(counts[e] * math.comb(rest, k - e) for e in edges if e <= min(k, a * b))
    return Fraction(math.comb(m, a) * math.comb(n, b) * total, math.comb(m * n, k))


@pytest.mark.parametrize(("m", "n", "k"), [(9, 7, 15), (9, 7, 40), (7, 7, 6), (12, 5, 20), (6, 6, 33)])
def test_components_of_every_shape(m, n, k):
    shapes = [(a, b) for a in range(1, m + 1) for b in range(1, n + 1)]
    rows, columns = np.array(shapes, dtype=float).T
    bounds = _components(m, n, k, _facts(m, n, rows, columns))
    for (a, b), low, high, one_cycle, every in zip(shapes, *bounds, strict=True):
        tree_possible = 0 <= k - (a + b - 1) <= (m - a) * (n - b)
        unicyclic = exact_components(m, n, k, a, b, cycles=1) if tree_possible else 0
        counted = exact_components(m, n, k, a, b, cycles=0) + unicyclic
        assert low <= counted <= high <= float(counted) * (1 + 1e-9)
        assert unicyclic <= one_cycle <= float(unicyclic) * (1 + 1e-9)
        assert exact_components(m, n, k, a, b) <= every


@pytest.mark.parametrize(("m", "n", "k"), [(9, 7, 15), (9, 7, 40), (12, 5, 20)])
def test_components_in_the_middle(m, n, k):
    half = (m + n) // 2
    for largest in range(1, half):
        shapes = [(a, b) for a in range(1, m + 1) for b in range(1, n + 1) if largest < a + b <= half]
        assert sum(exact_components(m, n, k, a, b) for a, b in shapes) <= middle_components(m, n, k, largest)
    assert middle_components(m, n, k, half) == 0


@pytest.mark.parametrize(("m", "n"), [(784, 300), (60, 2000)])
@pytest.mark.parametrize("times", [1.2, 1.9, 3.0, 8.0])
def test_halved_blocks_hold_every_shape_of_the_middle(m, n, times):
    """Against one block for each shape: the bound by blocks is never below it, and not far above where it counts."""
    k = int(times * math.sqrt(m * n))
    a, b = (side.ravel().astype(float) for side in np.indices((min(m, 100), min(n, 100))) + 1)
    inside = (a + b > 40) & (a + b <= (m + n) // 2)
    a, b = a[inside], b[inside]
    shapes = float(np.sum(_binomial_model(m, n, k, (a, a), (b, b)).exp_below()))
    assert shapes <= middle_components(m, n, k, 40)
    effort = Effort(enough=1e-3, blocks=2**10)
    assert middle_components(m, n, k, 40, effort) >= middle_components(m, n, k, 40) * (1 - 1e-9)


@pytest.mark.parametrize(("m", "n"), [(30, 20), (300, 100), (784, 300), (40, 900)])
def test_many_ranks_at_once_are_enclosed_as_one_by_one(m, n):
    """The quick bounds, for all ranks together, hold the sharp ones, and are near them where the layer is connected."""
    ks = sorted({int(k) for k in np.geomspace(4, 0.9 * m * n, 30)})
    quick = expected_retention_of(Shape(m, n, m + n - 1), ks, QUICK)
    sharp = expected_retention_of(Shape(m, n, m + n - 1), ks)
    for k, low, high, least, most in zip(ks, quick.lower, quick.upper, sharp.lower, sharp.upper, strict=True):
        assert low <= most
        assert least <= high
        assert high - low <= most - least + (2e-3 if k > 2 * math.sqrt(m * n) else 2e-2)


def test_components_are_counted_until_the_rest_is_negligible():
    by_size, middle = components_by_size(4096, 14336, 18431)
    assert len(by_size.every) < 600
    assert middle < 1e-12


def test_logarithms_lie_within_their_radius():
    """Against 60 digits, over sizes up to 2^50, with the corners where little is left."""
    rng = random.Random(7)
    with mpmath.workdps(60):
        for _ in range(400):
            n = round(10 ** rng.uniform(0.5, 15))
            c = min(n, round(n ** rng.uniform(0, 1)))
            k = rng.choice([min(n - c, round(n ** rng.uniform(0, 1))), n - c, max(0, n - c - rng.randrange(20))])
            for ball, truth in [
                (log_ratio(n, np.array([float(c)]), k), log_choices(n - c, k) - log_choices(n, k)),
                (log_binomial(n, np.array([float(k)])), log_choices(n, k)),
            ]:
                assert abs(mpmath.mpf(ball.mid[0]) - truth) <= ball.rad[0] / 4 + mpmath.mpf(10) ** -40, (n, c, k)
                assert ball.rad[0] <= 1e-12 * (1 + abs(ball.mid[0]))


def log_choices(n, k):
    return mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)


@pytest.mark.parametrize("function", ["exp", "log", "log1p", "expm1"])
def test_the_accuracy_the_proof_asks_of_numpy(function):
    """At most 4 units in the last place, on samples over the ranges used."""
    rng = np.random.default_rng(3)
    x = {
        "exp": rng.uniform(-700, 700, 2000),
        "log": 10 ** rng.uniform(-300, 300, 2000),
        "log1p": -(10 ** rng.uniform(-18, np.log10(0.5), 2000)),
        "expm1": -(10 ** rng.uniform(-18, 2, 2000)),
    }[function]
    computed = getattr(np, function)(x)
    with mpmath.workdps(40):
        for argument, value in zip(x, computed, strict=True):
            error = abs(getattr(mpmath, function)(mpmath.mpf(argument)) - mpmath.mpf(value))
            assert error <= 4 * math.ulp(value)


def test_balls_add_and_exponentiate_outwards():
    ball = ball_sum(Ball(np.array([1.0]), np.array([0.5])), np.array([-3.0]))
    assert ball.exp_below()[0] < math.exp(-2.5) < math.exp(-1.5) < ball.exp_above()[0]
    assert Ball(np.array([1e4]), np.array([0.0])).exp_above()[0] == math.inf
