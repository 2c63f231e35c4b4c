"""Layers as graphs: counts by integer arithmetic, and an audit that agrees with the parts it is made of."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topobounds import effective_masks, overlap_null, topology_price
from topobounds.layers import Conv, LayerTensor
from topobounds.layers.layer_tensor import GATES, numbered_parts
from topobounds.pruning import METHODS as EVERY_METHOD
from topobounds.pruning import dead_connections
from topobounds.topology.convolution import critical_kernel_weights
from topobounds.topology.layer_topology import layer_topology
from topobounds.topology.persistence import neural_persistence
from topobounds.topology.spanning import maximum_spanning_forest
from torch_bridge.experiment.plan import Pruning
from torch_bridge.experiment.topology_records import (
    chance_record,
    check_feasible,
    dead_units,
    layer_topologies,
    price_record,
    prune,
    pruning_record,
    training_record,
)

METHODS = [name for name, method in EVERY_METHOD.items() if not method.by_paths]
CONV = Conv(4, 6, (3, 3), (5, 5), padding=1)
LAYERS = [
    LayerTensor("dense", (12, 9)),
    LayerTensor("gates", (20, 7), parts=GATES["LSTM"]),
    LayerTensor("conv", (6, 4, 3, 3), "conv", geometry=CONV),
    LayerTensor("head", (5, 12)),
]


def weights_of(layers, seed):
    rng = np.random.default_rng(seed)
    return {layer.name: rng.standard_normal(layer.shape).astype(np.float32) for layer in layers}


def full(layers):
    return {layer.name: np.ones(layer.shape, np.bool_) for layer in layers}


def nearest(numerator, denominator):
    """Return the quotient rounded to the nearest integer, halves to even, in integers."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2))


# counts


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**7), st.integers(1, 99), st.integers(1, 15))
def test_geometric_counts_are_integer_arithmetic(n_weights, percent, rounds):
    left, expected = n_weights, []
    for _ in range(rounds):
        left = nearest(left * (100 - percent), 100)
        expected.append(left)
    assert list(Pruning(rounds=rounds, rate=percent / 100).counts(n_weights)) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**7), st.integers(1, 99), st.integers(1, 15), st.integers(0, 4))
def test_linear_counts_are_integer_arithmetic(n_weights, percent, rounds, quarters):
    pruning = Pruning(rounds=rounds, schedule="linear", density=percent / 100)
    whole = 400 * rounds
    expected = [nearest(n_weights * (whole - (100 - percent) * quarters * r), whole) for r in range(1, rounds + 1)]
    assert list(pruning.counts(n_weights, quarters / 4)) == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_masks_have_the_counts_of_the_schedule_and_only_shrink(method, scope, schedule):
    pruning = Pruning(
        method=method, scope=scope, rounds=3, rate=0.2, schedule=schedule, density=0.6 if schedule == "linear" else None
    )
    masks, total = full(LAYERS), sum(layer.n_weights for layer in LAYERS)
    for number in (1, 2, 3):
        weights = weights_of(LAYERS, number)
        new = prune(LAYERS, weights, masks, pruning, number, seed=number)
        assert not any((new[name] & ~masks[name]).any() for name in new)
        if scope == "global":
            assert sum(int(mask.sum()) for mask in new.values()) == pruning.counts(total)[number - 1]
        else:
            for layer in LAYERS:
                assert new[layer.name].sum() == pruning.counts(layer.n_weights)[number - 1]
        masks = new


def test_random_masks_of_equal_layers_differ():
    twins = [LayerTensor("a", (10, 10)), LayerTensor("b", (10, 10))]
    for method in ("random", "shuffled"):
        masks = prune(twins, weights_of(twins, 0), full(twins), Pruning(method=method, rate=0.5), 1, seed=3)
        assert not np.array_equal(masks["a"], masks["b"])


def test_a_layer_that_the_plan_names_and_there_is_not():
    with pytest.raises(ValueError, match=r"no layer 'tail', which the plan's factors name; it has dense, gates"):
        prune(LAYERS, {}, full(LAYERS), Pruning(factors={"tail": 0.5}), 1, seed=0)


# what T-IMP keeps


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("seed", range(3))
def test_t_imp_preserves_the_diagrams_of_every_kind_of_layer(scope, seed):
    """Round after round, with other weights each time, ties and zeros among them."""
    pruning = Pruning(method="t-imp", scope=scope, rounds=4, rate=0.35, on_infeasible="clamp")
    masks = full(LAYERS)
    for number in range(1, 5):
        weights = {name: np.round(w, seed) for name, w in weights_of(LAYERS, [seed, number]).items()}
        new = prune(LAYERS, weights, masks, pruning, number, seed=0)
        for layer in LAYERS:
            before, after = (layer_topology(layer, weights[layer.name], each[layer.name]) for each in (masks, new))
            for one, other in zip(before.diagrams, after.diagrams, strict=True):
                np.testing.assert_array_equal(one.deaths, other.deaths)
                assert (one.w_max, one.n_essential, one.alpha) == (other.w_max, other.n_essential, other.alpha)
            record = pruning_record(masks[layer.name], new[layer.name], before, after)
            assert record["diagram_preserved"] is True
            assert record["forest_survived"] == 1.0
        masks = new


def test_a_pruning_that_cuts_the_forest_is_seen():
    layer, weights = LAYERS[0], weights_of(LAYERS, 1)["dense"]
    forest = maximum_spanning_forest(weights)
    mask = np.ones(layer.shape, np.bool_)
    mask[forest.rows[:3], forest.cols[:3]] = False
    whole = np.ones(layer.shape, np.bool_)
    record = pruning_record(whole, mask, layer_topology(layer, weights, whole), layer_topology(layer, weights, mask))
    assert record["diagram_preserved"] is False
    assert record["forest_survived"] == (forest.alpha - 3) / forest.alpha
    assert record["pruned"] == 3


# the audit


def test_a_dense_layer_is_its_forest():
    weights, mask = weights_of(LAYERS, 2)["dense"], np.random.default_rng(3).random((12, 9)) < 0.3
    topology = layer_topology(LAYERS[0], weights, mask)
    forest = maximum_spanning_forest(weights, mask)
    assert topology.n_critical == forest.alpha == int(topology.critical[forest.rows, forest.cols].sum())
    assert topology.overlap == forest.overlap()
    assert topology.neural_persistence == neural_persistence(np.where(mask, weights, 0), normalized=True)


def test_gates_are_graphs_of_their_own():
    weights = weights_of(LAYERS, 4)["gates"]
    mask = np.ones((20, 7), np.bool_)
    topology = layer_topology(LAYERS[1], weights, mask)
    blocks = [weights[start : start + 5] for start in range(0, 20, 5)]
    forests = [maximum_spanning_forest(block) for block in blocks]
    assert topology.n_critical == 4 * 11
    overlap = topology.overlap
    assert overlap == pytest.approx(np.mean([forest.overlap() for forest in forests]))
    assert topology.neural_persistence == pytest.approx(sum(neural_persistence(b, normalized=True) for b in blocks))


def test_a_kernel_is_its_critical_weights():
    kernel = weights_of(LAYERS, 5)["conv"]
    mask = np.random.default_rng(6).random(kernel.shape) < 0.5
    topology = layer_topology(LAYERS[2], kernel, mask)
    critical = critical_kernel_weights(np.where(mask, kernel, 0), CONV)
    np.testing.assert_array_equal(topology.critical, critical.mask)
    largest = np.argsort(-np.abs(np.where(mask, kernel, 0)), axis=None, kind="stable")[: critical.n_critical]
    assert topology.overlap == critical.mask.ravel()[largest].mean()
    record = training_record(LAYERS[2], mask, topology)
    assert (record["alpha"], record["critical"]) == (critical.alpha, critical.n_critical)
    assert record["graphs"] == "shared"
    assert record["components"] == critical.n_components


def test_an_empty_layer_has_an_audit_too():
    layer, weights = LAYERS[0], np.zeros((12, 9), np.float32)
    nothing = np.zeros((12, 9), np.bool_)
    topology = layer_topology(layer, weights, nothing)
    record = training_record(layer, nothing, topology) | pruning_record(nothing, nothing, topology, topology)
    assert (record["alpha"], record["components"], record["overlap"]) == (0, 21, 1.0)
    assert (record["dead_outputs"], record["dead_inputs"], record["neural_persistence"]) == (12, 9, 0.0)
    assert record["forest_survived"] == topology.share_in(topology.critical) == 1.0


def naive_dead(layer, mask, n_outputs, n_inputs, joins):
    used = {(o, i) for o, i in itertools.product(range(n_outputs), range(n_inputs)) if joins(mask, o, i)}
    return n_outputs - len({o for o, _ in used}), n_inputs - len({i for _, i in used})


@pytest.mark.parametrize("seed", range(4))
def test_dead_units_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    dense = rng.random((12, 9)) < 0.1
    assert dead_units(LAYERS[0], dense) == naive_dead(LAYERS[0], dense, 12, 9, lambda mask, o, i: mask[o, i])
    grouped = LayerTensor("g", (6, 2, 3), "conv", numbered_parts(3), groups=3)
    mask = rng.random(grouped.shape) < 0.15

    def in_group(mask, o, i):
        return o // 2 == i // 2 and mask[o, i % 2].any()

    assert dead_units(grouped, mask) == naive_dead(grouped, mask, 6, 6, in_group)
    transposed = LayerTensor(
        "t", (4, 6, 3), "conv", geometry=Conv(4, 6, (3,), (5,), transposed=True), inputs_first=True
    )
    mask = rng.random(transposed.shape) < 0.1
    expected = naive_dead(transposed, mask, 6, 4, lambda mask, o, i: mask[i, o].any())
    assert dead_units(transposed, mask) == expected


# what cannot be met


def test_the_first_round_that_asks_for_too_little_is_named():
    layers = [LayerTensor("big", (30, 40)), LayerTensor("head", (10, 30))]
    with pytest.raises(ValueError, match=r"Round 10 leaves layer 'head' 32 weights, fewer than the alpha = 39"):
        check_feasible(layers, Pruning(method="t-imp", rounds=11))
    check_feasible(layers, Pruning(method="t-imp", rounds=9))
    check_feasible(layers, Pruning(method="imp", rounds=11))
    check_feasible(layers, Pruning(method="t-imp", rounds=11, on_infeasible="clamp"))
    check_feasible(layers, Pruning(method="t-imp", rounds=11, scope="global"))
    with pytest.raises(ValueError, match=r"Round 12 leaves the layers together \d+ weights, .* alpha = 108"):
        check_feasible(layers, Pruning(method="shuffled", rounds=13, scope="global"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (0, r"^Layer 'dense': Argument 'keep' must leave at least alpha = 20 weights, the edges"),
        (1, r"^Layer 'gates': Argument 'keep' must leave at least alpha = 44 weights, the edges"),
        (2, r"^Layer 'conv': Argument 'keep' must leave at least alpha = \d+ weights, the critical kernel weights"),
    ],
)
def test_a_layer_too_small_is_named_when_it_is_pruned(place, message):
    layers = LAYERS[place : place + 1]
    with pytest.raises(ValueError, match=message):
        prune(layers, weights_of(layers, 0), full(layers), Pruning(method="t-imp", rounds=9, rate=0.4), 9, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_that_is_not_finite_is_told_by_its_gate(method):
    weights = weights_of(LAYERS, 0)
    weights["gates"][7, 3] = np.nan
    message = (
        r"^Layer 'gates\[forget\]': Argument 'weights' must be finite, but 1 of its 35 .* at row 2, column 3: nan\.$"
    )
    with pytest.raises(ValueError, match=message):
        prune(LAYERS, weights, full(LAYERS), Pruning(method=method), 1, seed=0)
    with pytest.raises(ValueError, match=message):
        layer_topologies(LAYERS, weights, full(LAYERS))


# beside chance


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_the_overlap_stands_beside_its_null(density):
    rng = np.random.default_rng(8)
    weights = weights_of(LAYERS, 8)
    masks = {name: rng.random(array.shape) < density for name, array in weights.items()}
    for layer, conv in ((LAYERS[0], None), (LAYERS[2], CONV)):
        array, mask = weights[layer.name], masks[layer.name]
        record = chance_record(layer, array, mask, layer_topology(layer, array, mask), trials=30, seed=5)
        null = overlap_null(array, mask=mask, conv=conv, trials=30, seed=5)
        assert record["overlap_expected"] == pytest.approx((null.expected.lower + null.expected.upper) / 2, rel=1e-12)
        assert record["overlap_z"] == pytest.approx(null.z, rel=1e-12)
        assert record["overlap_status"] == null.status
        assert (record["overlap_trials"], record["overlap_seed"]) == (null.trials, null.seed)


def test_the_null_of_gates_is_that_of_their_sum():
    layer, weights = LAYERS[1], weights_of(LAYERS, 9)["gates"]
    mask = np.random.default_rng(9).random(weights.shape) < 0.7
    topology = layer_topology(layer, weights, mask)
    record = chance_record(layer, weights, mask, topology, trials=40, seed=2)
    parts = zip(topology.sizes, np.split(weights, 4), np.split(mask, 4), strict=True)
    held = variance = 0.0
    for size, part, alive in parts:
        null = overlap_null(part, mask=alive, trials=40, seed=2)
        held += size * (null.expected.lower + null.expected.upper) / 2
        variance += (size * null.deviation) ** 2
    assert record["overlap_expected"] == pytest.approx(held / topology.n_critical, rel=1e-12)
    z = (topology.overlap * topology.n_critical - held) / variance**0.5
    assert record["overlap_z"] == pytest.approx(z, rel=1e-9)


def test_an_empty_layer_has_no_null():
    layer, nothing = LAYERS[1], np.zeros((20, 7), np.bool_)
    weights = weights_of(LAYERS, 0)["gates"]
    record = chance_record(layer, weights, nothing, layer_topology(layer, weights, nothing))
    assert set(record.values()) == {None}


@pytest.mark.parametrize("kept", [20, 21, 40, 60])
def test_the_price_of_a_layer_is_that_of_its_forest(kept):
    layer, weights = LAYERS[0], weights_of(LAYERS, 10)["dense"]
    old = np.random.default_rng(3).random(weights.shape) < 0.8
    record = price_record(layer, weights, old, layer_topology(layer, weights, old), kept)
    price = topology_price(weights, kept, old, expected=False)
    assert record["swaps"] == price.swaps
    assert record["squared_weight_lost"] == pytest.approx(price.squared_weight_lost, rel=1e-9, abs=1e-12)


def test_below_alpha_there_is_no_price():
    layer, weights = LAYERS[0], weights_of(LAYERS, 0)["dense"]
    whole = np.ones((12, 9), np.bool_)
    record = price_record(layer, weights, whole, layer_topology(layer, weights, whole), 19)
    assert record == {"swaps": None, "squared_weight_lost": None}


# by effective weights


ROW = [LayerTensor("a", (12, 9)), LayerTensor("b", (7, 12)), LayerTensor("c", (5, 7))]


def test_effective_pruning_keeps_exact_counts_and_only_shrinks():
    pruning = Pruning(method="effective", scope="global", rounds=6, rate=0.4)
    masks, total = full(ROW), sum(layer.n_weights for layer in ROW)
    for number in range(1, 7):
        weights = {name: np.round(w, 1) for name, w in weights_of(ROW, number).items()}
        new = prune(ROW, weights, masks, pruning, number, seed=0)
        assert sum(int(mask.sum()) for mask in new.values()) == pruning.counts(total)[number - 1]
        assert not any((new[name] & ~masks[name]).any() for name in new)
        masks = new


def test_the_first_effective_masks_are_those_of_the_network():
    weights = weights_of(ROW, 4)
    masks = prune(ROW, weights, full(ROW), Pruning(method="effective", scope="global", rate=0.8), 1, seed=0)
    kept = effective_masks([w.T for w in weights.values()], sum(int(mask.sum()) for mask in masks.values()))
    for mask, other in zip(masks.values(), kept.masks, strict=True):
        np.testing.assert_array_equal(mask, other.T)
    assert dead_connections(ROW, list(masks.values())) == kept.n_dead


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (LAYERS[:2], r"^Layer 'gates': Argument 'method' must be another than 'effective' for gates"),
        (ROW[::2], r"^Layer 'c': .* unless layers are in a row: this reads 7 neurons, not 12"),
        ([LayerTensor("k", (4, 3, 3, 3), "conv")], r"^Layer 'k': .* for kernels of unknown geometry"),
    ],
)
def test_layers_that_are_not_in_a_row_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        prune(layers, weights_of(layers, 0), full(layers), Pruning(method="effective", scope="global"), 1, seed=0)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "scope"),
        ({"scope": "global", "output_factor": 0}, "output_factor"),
        ({"scope": "global", "factors": {"a": 0}}, "a"),
    ],
)
def test_a_plan_by_effective_weights_prunes_all_layers_together(options, name):
    with pytest.raises(ValueError, match=f"'{name}' must be .* for the method 'effective', which ranks all"):
        Pruning(method="effective", **options)
