"""Masks: exact counts by rank, monotone, and T-IMP's promise that the persistence diagram stays as it is."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests import naive, naive_convolution
from topobounds import effective_masks, maximum_spanning_forest, persistence_diagram
from topobounds.layers import Conv, LayerTensor
from topobounds.pruning import (
    METHODS,
    dead_connections,
    geometric_schedule,
    linear_schedule,
    magnitude_mask,
    network_masks,
    pruning_method,
    random_mask,
    selection,
    topological_mask,
)
from topobounds.pruning.methods import recorded_name

FLOATS = st.floats(-4, 4, width=32)
TIED = st.integers(-3, 3).map(float)
ZERO_RIDDEN = st.one_of(st.just(0.0), st.just(-0.0), st.just(0.0), FLOATS)
SUBNORMAL = st.sampled_from([5e-324, -5e-324, 1e300, 0.0, 1.0])


@st.composite
def layers(draw):
    """Return (weights, mask): random, tied, zero-ridden, subnormal; whole, pruned before, or in disconnected blocks."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    weights = draw(
        arrays.arrays(np.float64, shape, elements=draw(st.sampled_from([FLOATS, TIED, ZERO_RIDDEN, SUBNORMAL])))
    )
    kind = draw(st.sampled_from(["whole", "pruned", "blocks"]))
    if kind == "whole":
        return weights, None
    if kind == "pruned":
        return weights, draw(arrays.arrays(np.bool_, shape))
    rows, cols = (np.arange(size) % draw(st.integers(1, 3)) for size in shape)
    return weights, rows[:, None] == cols


def survivors(weights, mask):
    return np.ones(weights.shape, bool) if mask is None else mask


def diagrams(weights, mask):
    """Return both diagrams, zeros absent and zeros edges, as bytes, with the largest weight."""
    kept = np.where(mask, weights, 0.0)
    read = [persistence_diagram(kept, zeros=zeros) for zeros in ("absent", "edge")]
    return [(np.asarray(d).tobytes(), d.n_essential, d.w_max) for d in read]


@settings(max_examples=300, deadline=None)
@given(layers(), st.data())
def test_t_imp_preserves_the_diagram_bit_for_bit(layer, data):
    weights, mask = layer
    alive = survivors(weights, mask)
    alpha = maximum_spanning_forest(weights, mask).alpha
    keep = data.draw(st.integers(alpha, int(alive.sum())))
    kept = topological_mask(weights, keep, mask)
    assert kept.sum() == keep
    assert not (kept & ~alive).any()
    assert diagrams(weights, kept) == diagrams(weights, alive)


@settings(max_examples=100, deadline=None)
@given(layers(), st.data())
def test_t_imp_keeps_the_forest_and_then_the_largest_of_the_rest(layer, data):
    weights, mask = layer
    alive = survivors(weights, mask)
    edges, alpha, _ = naive.kruskal(weights.tolist(), alive.tolist())
    keep = data.draw(st.integers(alpha, int(alive.sum())))
    cells = [tuple(cell) for cell in np.argwhere(alive).tolist()]
    rest = sorted((c for c in cells if c not in edges), key=lambda c: (-abs(weights[c]), c))
    kept = topological_mask(weights, keep, mask)
    assert {tuple(c) for c in np.argwhere(kept).tolist()} == {*edges, *rest[: keep - alpha]}


@settings(max_examples=100, deadline=None)
@given(layers(), st.data())
def test_magnitude_keeps_the_first_of_the_total_order(layer, data):
    weights, mask = layer
    alive = survivors(weights, mask)
    keep = data.draw(st.integers(0, int(alive.sum())))
    order = sorted(map(tuple, np.argwhere(alive).tolist()), key=lambda c: (-abs(weights[c]), c))
    assert {tuple(c) for c in np.argwhere(magnitude_mask(weights, keep, mask)).tolist()} == set(order[:keep])


@settings(max_examples=60, deadline=None)
@given(layers(), st.integers(0, 2**32), st.data())
def test_masks_are_monotone_and_count_exactly_round_after_round(layer, seed, data):
    weights, mask = layer
    rng = np.random.default_rng(seed)
    for method in ("magnitude", "topological", "random"):
        alive = survivors(weights, mask)
        while alive.sum() > maximum_spanning_forest(weights, alive).alpha:
            keep = data.draw(st.integers(maximum_spanning_forest(weights, alive).alpha, int(alive.sum()) - 1))
            (kept,) = network_masks([weights], keep, [alive], method=method, seed=seed)
            assert kept.sum() == keep
            assert not (kept & ~alive).any()
            alive = kept
            weights = weights + alive * rng.standard_normal(weights.shape)  # training moves what is left


@pytest.mark.parametrize("seed", range(60))
def test_t_imp_preserves_the_diagram_of_a_convolution_with_its_multiplicities(seed):
    rng = np.random.default_rng(seed)
    conv = naive_convolution.random_conv(rng)
    kernel = rng.standard_normal(conv.weight_shape)
    if seed % 3 == 1:
        kernel = kernel.round()
    alive = rng.random(kernel.shape) < (1.0 if seed % 2 else 0.6)
    n_critical = np.count_nonzero(naive_convolution.critical(conv, np.where(alive, kernel, 0)))
    keep = int(rng.integers(n_critical, alive.sum() + 1))
    kept = topological_mask(kernel, keep, alive, conv=conv)
    assert kept.sum() == keep
    assert not (kept & ~alive).any()
    assert conv_diagrams(conv, kernel, kept) == conv_diagrams(conv, kernel, alive)
    if n_critical:
        with pytest.raises(ValueError, match=rf"alpha = {n_critical} weights?, the critical kernel weights"):
            topological_mask(kernel, n_critical - 1, alive, conv=conv)


def conv_diagrams(conv, kernel, mask):
    """Return {death: multiplicity} by the oracle, zeros absent and edges; w_max is over the taps that carry an edge."""
    kept = np.where(mask, kernel, 0.0)
    carried = {weight for _, _, weight in naive_convolution.edges(conv)}
    w_max = max((abs(kept.ravel()[w]) for w in carried), default=0.0) or 1.0
    found = []
    for zeros in ("absent", "edge"):
        merges = naive_convolution.critical(conv, kept, zeros=zeros)
        diagram = {}
        for death, times in zip((np.abs(kept) / w_max).ravel().tolist(), merges.tolist(), strict=True):
            if times:
                diagram[death] = diagram.get(death, 0) + times
        found.append(diagram)
    return w_max, found


def test_the_pruned_convolution_has_the_persistence_diagram_of_its_explicit_matrix():
    rng = np.random.default_rng(4)
    conv = Conv(3, 4, (3, 3), (4, 4), padding=1)
    kernel = rng.standard_normal(conv.weight_shape)
    before = persistence_diagram(naive_convolution.matrix(conv, kernel))
    kept = topological_mask(kernel, compression_ratio=4, conv=conv)
    after = persistence_diagram(naive_convolution.matrix(conv, np.where(kept, kernel, 0)))
    assert kept.sum() == 27
    np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


def test_magnitude_pruning_does_change_the_diagram():
    weights = np.array([[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]])
    assert diagrams(weights, magnitude_mask(weights, 4)) != diagrams(weights, np.ones((2, 3), bool))


@pytest.mark.parametrize(
    ("keep", "size", "count"),
    [
        (3, 10, 3),
        (0, 10, 0),
        (1, 10, 1),
        (1.0, 10, 10),
        (0.1, 10, 1),
        (0.3, 10, 3),  # 0.1 + 0.2 is not 0.3, and 0.3 * 10 must still be 3
        (0.29, 100, 29),  # int(0.29 * 100) is 28
        (0.145, 100, 14),  # 14.5 exactly: to even
        (0.155, 100, 16),  # 15.5 exactly: to even
        (1 / 3, 3, 1),
        (Fraction(1, 3), 3, 1),
        (np.float32(0.2), 10, 2),
        (np.int64(4), 10, 4),
        (1e-9, 10, 0),
    ],
)
def test_keep_is_a_count_or_a_share_of_the_survivors(keep, size, count):
    weights = np.random.default_rng(0).standard_normal((1, 2 * size))
    mask = np.arange(2 * size).reshape(1, -1) < size
    for kept in (magnitude_mask(weights, keep, mask), random_mask(weights, keep, mask, seed=0)):
        assert kept.sum() == count


@pytest.mark.parametrize(
    ("ratio", "count"), [(1, 600), (2, 300), (7, 86), (1.5, 400), (Fraction(600, 49), 49), (600 / 49, 49), (1e9, 0)]
)
def test_a_compression_ratio_is_all_weights_over_those_kept(ratio, count):
    weights = np.random.default_rng(0).standard_normal((30, 20))
    assert magnitude_mask(weights, compression_ratio=ratio).sum() == count


@pytest.mark.parametrize("keep", [torch.tensor(150), torch.tensor(0.25), np.float32(0.25), np.array(150)])
def test_counts_and_shares_may_be_of_any_kind(keep):
    weights = np.random.default_rng(0).standard_normal((30, 20))
    assert magnitude_mask(weights, keep).sum() == 150
    assert magnitude_mask(weights, compression_ratio=torch.tensor(4)).sum() == 150
    assert magnitude_mask(weights, compression_ratio=torch.tensor(4.0)).sum() == 150


def test_a_compression_ratio_counts_pruned_weights_too():
    weights = np.random.default_rng(0).standard_normal((30, 20))
    half = magnitude_mask(weights, 0.5)
    assert magnitude_mask(weights, mask=half, compression_ratio=4).sum() == 150
    with pytest.raises(ValueError, match=r"no more than the 300 survivors are to be kept, not 1\.5"):
        magnitude_mask(weights, mask=half, compression_ratio=1.5)


def test_a_share_repeated_is_a_share_of_what_is_left():
    weights, mask = np.random.default_rng(0).standard_normal((50, 40)), None
    for left in geometric_schedule(2000, 0.2, 6):
        mask = topological_mask(weights, 0.8, mask)
        assert mask.sum() == left


def test_zeros_among_the_survivors_are_kept_last():
    weights = np.array([[0.0, 1.0, -0.0], [0.0, 2.0, 0.0]])
    assert magnitude_mask(weights, 3).tolist() == [[True, True, False], [False, True, False]]
    assert topological_mask(weights, 3).tolist() == [[True, True, False], [False, True, False]]


def test_ties_go_by_flat_index():
    assert magnitude_mask(np.full((2, 3), -1.0), 4).tolist() == [[True] * 3, [True, False, False]]
    assert magnitude_mask([1.0, -1.0, 2.0, 1.0], 3).tolist() == [True, True, True, False]


def test_pruned_entries_are_not_looked_at():
    weights = np.array([[np.nan, 2.0], [3.0, np.inf]])
    mask = np.array([[False, True], [True, False]])
    for kept in (magnitude_mask(weights, 2, mask), topological_mask(weights, 2, mask)):
        assert kept.tolist() == mask.tolist()
    kernel = np.where(mask[:, :, None, None], weights[:, :, None, None], np.nan)
    assert topological_mask(kernel, 2, mask[:, :, None, None], conv=Conv(2, 2, (1, 1), (3, 3))).sum() == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("shape", [(12, 8), (96,), (4, 4, 6), (2, 2, 2, 12)])
def test_every_type_and_shape_has_the_mask_of_its_values(dtype, shape):
    values = (4 * np.random.default_rng(3).standard_normal(shape)).astype(dtype)
    kept = magnitude_mask(values, 40)
    np.testing.assert_array_equal(kept, magnitude_mask(values.astype(np.float64), 40))
    assert kept.shape == shape
    if len(shape) == 2:
        kept = topological_mask(np.asfortranarray(values), 40)
        np.testing.assert_array_equal(kept, topological_mask(values.astype(np.float64), 40))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("seed", range(12))
def test_compiled_kernels_select_as_numpy_does(dtype, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    layers, masks = [], []
    for _ in range(1 + seed % 3):
        shape = tuple(rng.integers(1, 70, 2))
        weights = rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 4)
        weights = np.round(weights, 1) if seed % 4 == 1 else weights  # ties
        weights[rng.random(shape) < 0.3 * (seed % 2)] = -0.0
        layers.append(weights.astype(dtype))
        masks.append(rng.random(shape) < 0.8)
    survivors = sum(int(mask.sum()) for mask in masks)
    for keep in {0, 1, survivors // 3, survivors - 1, survivors} & set(range(survivors + 1)):
        for method in ("magnitude", "topological"):
            found = []
            for limit in (0, 10**9):
                monkeypatch.setattr(selection, "COMPILED_FROM", limit)
                asked = {"method": method, "scope": "global", "on_infeasible": "clamp"}
                found.append(network_masks(layers, keep, masks, **asked))
            for one, other in zip(*found, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_compiled_kernels_know_the_ends_of_the_range(dtype, monkeypatch):
    monkeypatch.setattr(selection, "COMPILED_FROM", 0)
    info = np.finfo(dtype)
    ordered = np.array([info.max, -info.max, 1, info.tiny, -info.smallest_subnormal, 0.0, -0.0], dtype)
    for keep in range(8):
        assert magnitude_mask(ordered, keep).tolist() == [True] * keep + [False] * (7 - keep)
    everywhere = magnitude_mask(np.full((60, 50), 3.0, dtype), 1234)
    np.testing.assert_array_equal(np.flatnonzero(everywhere), np.arange(1234))


@pytest.mark.parametrize("shape", [(1, 6), (6, 1)])
def test_a_single_row_or_column_is_all_forest(shape):
    with pytest.raises(ValueError, match="at least alpha = 6 weights, the edges of the spanning forest"):
        topological_mask(np.arange(1.0, 7.0).reshape(shape), 5)


def test_fewer_than_alpha_is_refused_or_clamped():
    weights = np.random.default_rng(0).standard_normal((30, 20))
    with pytest.raises(ValueError, match=r"'keep' must leave at least alpha = 49 weights.*; 0\.05 leaves 30.*'clamp'"):
        topological_mask(weights, 0.05)
    kept = topological_mask(weights, 0.05, on_infeasible="clamp")
    forest = maximum_spanning_forest(weights)
    assert kept.sum() == 49
    assert kept[forest.rows, forest.cols].all()


def test_random_masks_are_seeded_and_uniform_over_the_survivors():
    weights, mask = np.ones((4, 5)), np.arange(20).reshape(4, 5) % 2 == 0
    same = [random_mask(weights, 4, mask, seed=7) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    hits = sum(random_mask(weights, 4, mask, seed=seed).astype(int) for seed in range(500))
    assert not hits[~mask].any()
    assert (np.abs(hits[mask] - 200) < 5 * math.sqrt(500 * 0.4 * 0.6)).all()


def network(seed=0):
    rng = np.random.default_rng(seed)
    conv = Conv(3, 5, (3, 3), (6, 6), padding=1)
    layers = {
        "conv": 0.1 * rng.standard_normal(conv.weight_shape).astype(np.float32),
        "wide": rng.standard_normal((20, 30)),
        "thin": 0.01 * rng.standard_normal((30, 10)).astype(np.float16),
    }
    return layers, {"conv": conv}


def test_the_global_order_is_that_of_all_weights_together():
    layers, _ = network()
    masks = network_masks(layers, 200, method="magnitude", scope="global")
    assert sum(int(m.sum()) for m in masks.values()) == 200
    kept = [np.abs(w[masks[name]]).min() for name, w in layers.items() if masks[name].any()]
    lost = [np.abs(w[~masks[name]]).max() for name, w in layers.items() if not masks[name].all()]
    assert min(kept) > max(lost)
    assert not masks["thin"].any()  # magnitude alone collapses the layer of small weights


def test_global_t_imp_cannot_collapse_a_layer():
    layers, convs = network()
    alphas = [int(topological_mask(w, 0, on_infeasible="clamp", conv=convs.get(n)).sum()) for n, w in layers.items()]
    masks = network_masks(layers, sum(alphas) + 10, scope="global", convs=convs)
    assert sum(int(m.sum()) for m in masks.values()) == sum(alphas) + 10
    for name, weights in layers.items():
        if name in convs:
            everything = np.ones(weights.shape, bool)
            assert conv_diagrams(convs[name], weights, masks[name]) == conv_diagrams(convs[name], weights, everything)
        else:
            assert diagrams(weights, masks[name])[0] == diagrams(weights, np.ones(weights.shape, bool))[0]
    with pytest.raises(ValueError, match=f"alpha = {sum(alphas)} weights, .* spanning forests and the critical kernel"):
        network_masks(layers, sum(alphas) - 1, scope="global", convs=convs)


def test_global_ties_go_by_layer_and_then_by_flat_index():
    masks = network_masks([np.ones((2, 2)), -np.ones((2, 2), np.float32)], 5, method="magnitude", scope="global")
    assert [m.tolist() for m in masks] == [[[True] * 2] * 2, [[True, False], [False, False]]]


def test_local_rates_by_layer():
    layers, convs = network()
    masks = network_masks(layers, {"conv": 1.0, "wide": 0.5, "thin": 100}, convs=convs)
    assert {name: int(m.sum()) for name, m in masks.items()} == {"conv": 135, "wide": 300, "thin": 100}
    again = network_masks(layers, 0.9, masks, convs=convs)
    assert {name: int(m.sum()) for name, m in again.items()} == {"conv": 122, "wide": 270, "thin": 90}
    for name in layers:
        np.testing.assert_array_equal(
            again[name], topological_mask(layers[name], 0.9, masks[name], conv=convs.get(name))
        )


@pytest.mark.parametrize("scope", ["local", "global"])
def test_shuffled_masks_have_the_counts_of_t_imp_at_random_places(scope):
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((30, 20)), 5 * rng.standard_normal((20, 10))]
    alive = [rng.random(layer.shape) < 0.9 for layer in layers]
    options = {"scope": scope, "on_infeasible": "clamp"}
    t_imp = network_masks(layers, 0.3, alive, method="t-imp", **options)
    shuffled = network_masks(layers, 0.3, alive, method="shuffled", seed=1, **options)
    again = network_masks(layers, 0.3, alive, method="shuffled", seed=1, **options)
    assert [mask.sum() for mask in shuffled] == [mask.sum() for mask in t_imp]
    for mask, same, survivors, other in zip(shuffled, again, alive, t_imp, strict=True):
        np.testing.assert_array_equal(mask, same)
        assert not (mask & ~survivors).any()
        assert (mask != other).any()
    with pytest.raises(ValueError, match="at least alpha = "):
        network_masks(layers, 20, alive, method="shuffled", seed=1, scope=scope)


def test_a_method_has_one_name_and_its_aliases():
    weights = np.random.default_rng(0).standard_normal((6, 5))
    for alias, name in {"imp": "magnitude", "topological": "t-imp"}.items():
        assert pruning_method(alias) is METHODS[name]
        one, other = (network_masks([weights], 15, method=method)[0] for method in (alias, name))
        np.testing.assert_array_equal(one, other)
    assert list(METHODS) == ["magnitude", "t-imp", "random", "shuffled", "effective"]
    counted_by = [method.counted_by.name for method in METHODS.values()]
    assert counted_by == ["magnitude", "t-imp", "random", "t-imp", "effective"]


@pytest.mark.parametrize("name", ["best", None, 3, ["imp"]])
def test_a_method_that_there_is_not(name):
    names = "'magnitude', 't-imp', 'random', 'shuffled', 'effective'"
    with pytest.raises(ValueError, match=rf"^Argument 'method' must be one of {names}, not "):
        pruning_method(name)
    with pytest.raises(ValueError, match=r"^Argument 'method' must be one of 'imp', 't-imp', 'random', 'shuffled'"):
        recorded_name(name)


def test_random_layers_of_one_network_get_masks_of_their_own():
    first, second = network_masks([np.ones((9, 9))] * 2, 0.5, method="random", seed=3)
    assert (first != second).any()
    together = network_masks([np.ones((9, 9))] * 2, 0.5, method="random", scope="global", seed=3)
    assert sum(int(m.sum()) for m in together) == 81


@pytest.mark.parametrize("n_weights", [1, 7, 266200, 11_689_512])
@pytest.mark.parametrize(("percent", "rounds"), [(90, 10), (99, 7), (100, 3), (33, 1), (0, 2)])
def test_the_linear_schedule_against_integer_arithmetic(n_weights, percent, rounds):
    if percent == 100:
        with pytest.raises(ValueError, match=r"Argument 'density' must be a number in \(0, 1\]"):
            linear_schedule(n_weights, 0.0, rounds)
        return
    counts = linear_schedule(n_weights, (100 - percent) / 100, rounds)
    whole = 100 * rounds
    expected = [half_even(n_weights * (whole - percent * r), whole) for r in range(1, rounds + 1)]
    assert list(counts) == expected
    assert max(counts) - min(counts) <= n_weights


@pytest.mark.parametrize("n_weights", [1, 7, 266200, 11_689_512])
@pytest.mark.parametrize("tenths", [0, 1, 2, 5, 9])
def test_the_geometric_schedule_against_integer_arithmetic(n_weights, tenths):
    left = n_weights
    for count in geometric_schedule(n_weights, tenths / 10, 30):
        left = half_even(left * (10 - tenths), 10)
        assert count == left


def half_even(numerator, denominator):
    """Round a ratio of integers without a float."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2))


def test_the_schedules_of_the_literature():
    assert geometric_schedule(266200, 0.2, 12)[-1] == 18293  # LeNet-300-100 to 6.9% in 12 rounds
    assert linear_schedule(266200, 0.1, 9)[-1] == 26620


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (magnitude_mask, "Exactly one of the arguments 'keep' and 'compression_ratio'"),
        (lambda w: magnitude_mask(w, 3, compression_ratio=2), "Exactly one"),
        (lambda w: magnitude_mask(w, 7), "'keep' must be an integer from 0 to 6, not 7"),
        (lambda w: magnitude_mask(w, -1), "'keep' must be an integer from 0 to 6, not -1"),
        (
            lambda w: magnitude_mask(w, 0.0),
            r"'keep' must be a number of weights or a share of them in \(0, 1\], not 0.0",
        ),
        (lambda w: magnitude_mask(w, 1.5), "'keep'.*not 1.5"),
        (lambda w: magnitude_mask(w, math.nan), "'keep'.*not nan"),
        (lambda w: magnitude_mask(w, True), "'keep'.*not True"),
        (lambda w: magnitude_mask(w, "3"), "'keep'.*not '3'"),
        (
            lambda w: magnitude_mask(w, compression_ratio=0.5),
            "'compression_ratio' must be a number of at least 1, not 0.5",
        ),
        (lambda w: magnitude_mask(w, compression_ratio=math.inf), "'compression_ratio'.*not inf"),
        (lambda w: magnitude_mask(w, 2, np.ones((3, 2))), r"'mask' must have the shape of the weights, \(2, 3\)"),
        (lambda w: magnitude_mask(w, 2, np.full((2, 3), 2)), "'mask' must be an array of true and false"),
        (lambda w: topological_mask(np.where(w > 5, np.nan, w), 5), "1 of its 6 entries are NaN.*row 1, column 2: nan"),
        (lambda w: magnitude_mask(np.where(w > 5, np.inf, w), 5), "row 1, column 2: inf"),
        (lambda w: magnitude_mask(np.ones((0, 3)), 0), r"shape \(0, 3\)"),
        (lambda w: topological_mask(w, 6, on_infeasible="stop"), "'on_infeasible' must be one of 'raise', 'clamp'"),
        (lambda w: topological_mask(w[None, None], 6), r"'conv' must be given for weights of shape \(1, 1, 2, 3\)"),
        (lambda w: topological_mask(w, 6, conv=Conv(1, 1, (3, 3), (4, 4))), r"shape of the kernel, \(1, 1, 3, 3\)"),
        (lambda w: random_mask(w, 3, seed=-1), "'seed' must be a non-negative integer"),
        (lambda w: network_masks([w], 3, method="random"), "'seed' must be a non-negative integer, not None"),
        (
            lambda w: network_masks([w], 3, method="best"),
            "'method' must be one of 'magnitude', 't-imp', 'random', 'shuffled', 'effective', not 'best'",
        ),
        (lambda w: network_masks([w], 6, scope="each"), "'scope' must be one of 'local', 'global'"),
        (lambda w: network_masks([], 3), "'layers' must be a mapping or list of at least one layer"),
        (lambda w: network_masks(w, 3), "'layers' must be a mapping or list of at least one layer, not 'ndarray'"),
        (lambda w: network_masks([w, w], 6, [None]), "'masks' must hold one entry for each of the 2 layers"),
        (lambda w: network_masks({"a": w}, 6, {"b": w > 0}), "'masks' must be a mapping of layer names, not 'b'"),
        (lambda w: network_masks({"a": w}, {"a": 2}), "Layer 'a': Argument 'keep' must leave at least alpha = 4"),
        (lambda w: network_masks({"a": w, "b": w}, {"a": 6}), r"'keep' must be a mapping of all layers, also 'b', not"),
        (lambda w: topological_mask(w, compression_ratio=6), "'compression_ratio' must leave at least alpha = 4 .*; 6"),
        (
            lambda w: network_masks({"a": w, "b": w}, [6, 7]),
            "Layer 'b': Argument 'keep' must be an integer from 0 to 6",
        ),
        (lambda w: network_masks({"a": w}, [6], scope="global"), r"'keep' must be a number of weights.*not \[6\]"),
        (lambda w: network_masks({"a": [["x"]]}, 1), "Layer 'a': Argument 'weights' must hold real numbers"),
        (
            lambda w: magnitude_mask(w, np.bool_(True)),
            r"^Argument 'keep' must be a number of weights or .*, not np.True_\.$",
        ),
        (lambda w: magnitude_mask(w, torch.tensor([2])), r"^Argument 'keep' must be a number of weights or a share"),
        (lambda w: magnitude_mask(w, 10**400), "^Argument 'keep' must be an integer from 0 to 6, not 1000"),
        (
            lambda w: magnitude_mask(np.ones((0, 3, 3)), 0),
            r"'weights' must be an array with at least one entry, not .*0, 3",
        ),
        (lambda w: topological_mask([1.0, 2.0, 3.0], 2), r"^Argument 'weights' must be a matrix, not .*shape \(3,\)"),
        (lambda w: topological_mask(3.0, 1), r"^Argument 'weights' must be a matrix, not .*shape \(\)"),
        (lambda w: topological_mask(w, 6, conv=3), r"^Argument 'conv' must be a Conv, not 3\.$"),
        (lambda w: network_masks([w], 6, convs="conv"), r"^Layer '0': Argument 'conv' must be a Conv, not 'conv'\.$"),
        (lambda w: network_masks([w], 6, seed="x"), r"^Argument 'seed' must be a non-negative integer, not 'x'\.$"),
        (
            lambda w: magnitude_mask(np.full((2, 2, 2, 2), np.nan), 1),
            r"16 of its 16 .* first at index \(0, 0, 0, 0\): nan",
        ),
        (lambda w: magnitude_mask([1.0, np.inf], 1), r"the first at index \(1,\): inf"),
        (lambda w: linear_schedule(0, 0.5, 1), "'n_weights' must be a positive integer, not 0"),
        (lambda w: linear_schedule(10, 1.5, 1), "'density'"),
        (lambda w: linear_schedule(10, 0.5, 0), "'rounds' must be a positive integer, not 0"),
        (lambda w: linear_schedule(10, 0.5, 2**70), r"'rounds' must be at most 1000000, not 1180591620717411303424\.$"),
        (lambda w: geometric_schedule(10, 0.5, 10**7), r"'rounds' must be at most 1000000, not 10000000\.$"),
        (lambda w: geometric_schedule(10, 1.0, 2), r"'rate' must be a number in \[0, 1\), not 1.0"),
        (lambda w: geometric_schedule(10, -0.1, 2), "'rate'"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.arange(1.0, 7.0).reshape(2, 3))


@pytest.mark.parametrize("conv", [Conv(1, 2, 3, 5, padding=1), Conv(2, 1, (2, 2), (2, 3), stride=(1, 2))], ids=str)
def test_dead_connections_around_a_kernel_are_those_without_an_edge_between_fed_and_read_neurons(conv):
    rng = np.random.default_rng(0)
    row = [LayerTensor("a", (conv.n_inputs, 3)), LayerTensor("k", conv.weight_shape, "conv", geometry=conv)]
    row.append(LayerTensor("c", (4, conv.n_outputs)))
    for density in (0.1, 0.3, 0.3, 0.6, 1.0):
        before, kernel, after = masks = [rng.random(layer.shape) < density for layer in row]
        fed, read = before.any(axis=1), after.any(axis=0)
        edges = naive_convolution.edges(conv)
        joining = [(i, o, w) for i, o, w in edges if kernel.ravel()[w] and fed[i] and read[o]]
        inputs, outputs, weights = map(list, map(set, zip(*joining, strict=True))) if joining else ([], [], [])
        alive = int(before[inputs].sum()) + len(weights) + int(after[:, outputs].sum())
        assert dead_connections(row, masks) == sum(int(mask.sum()) for mask in masks) - alive


def test_pruning_by_effective_weights_is_that_of_the_network():
    layers = [np.round(np.random.default_rng(seed).standard_normal(s), 1) for seed, s in enumerate([(9, 7), (7, 4)])]
    for keep in (0, 5, 30, 91):
        masks = network_masks(layers, keep, method="effective", scope="global")
        for mask, other in zip(masks, effective_masks(layers, keep).masks, strict=True):
            np.testing.assert_array_equal(mask, other)
    with pytest.raises(ValueError, match="'scope' must be 'global' for the method 'effective'"):
        network_masks(layers, 10, method="effective")
    with pytest.raises(ValueError, match="unless layers are in a row: this reads 9 neurons, not 4"):
        network_masks(layers[::-1], 10, method="effective", scope="global")
