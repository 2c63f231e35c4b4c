"""Global pruning of untrained networks: simulation, enumeration, and the published collapse of VGG nets."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import topobounds as tb
from topobounds.layers import Conv, Dense, Recurrent
from topobounds.theory.global_pruning import global_pruning
from topobounds.theory.table1 import architecture, table1

LENET = [784, 300, 100, 10]
N_LENET = 266_200


@pytest.mark.parametrize(
    ("law", "k", "rank"),
    [("exchangeable", 1193, 939.9), ("he", 1193, 488.9), ("he", 4776, 1092.5), ("torch", 4776, 409.0)],
)
def test_the_limit_of_the_rank_of_lenet(law, k, rank):
    assert global_pruning(LENET, k / N_LENET, law).overlap * 1193 == pytest.approx(rank, abs=0.06)


def drawn(law, rng):
    """Return a LeNet-300-100 at an initialisation, drawn as torch draws it."""
    layers = []
    for m, n in itertools.pairwise(LENET):
        scales = {
            "torch": lambda m, n: rng.uniform(-1, 1, (m, n)) / math.sqrt(m),
            "he": lambda m, n: rng.standard_normal((m, n)) * math.sqrt(2 / m),
            "he_uniform": lambda m, n: rng.uniform(-1, 1, (m, n)) * math.sqrt(6 / m),
            "glorot": lambda m, n: rng.uniform(-1, 1, (m, n)) * math.sqrt(6 / (m + n)),
            "glorot_normal": lambda m, n: rng.standard_normal((m, n)) * math.sqrt(2 / (m + n)),
            "exchangeable": lambda m, n: rng.standard_normal((m, n)),
        }
        layers.append(scales[law](m, n))
    return layers


@pytest.mark.parametrize("law", ["torch", "he", "he_uniform", "glorot", "glorot_normal", "exchangeable"])
def test_every_law_keeps_in_every_layer_what_it_says(law):
    layers = drawn(law, np.random.default_rng(0))
    masks = tb.network_masks(layers, 20_000, method="magnitude", scope="global")
    pruned = global_pruning(LENET, 20_000 / N_LENET, law)
    for mask, layer in zip(masks, pruned.layers, strict=True):
        assert int(mask.sum()) == pytest.approx(layer.kept, abs=5 * math.sqrt(layer.kept) + 1)
        assert layer.density == layer.kept / layer.weights
    assert sum(layer.kept for layer in pruned.layers) == pytest.approx(20_000)


@pytest.mark.parametrize(("law", "k"), [("exchangeable", 1193), ("he", 1193), ("torch", 14_000)])
def test_the_overlap_of_drawn_networks_is_near_the_limit(law, k):
    rng = np.random.default_rng(1)
    overlaps = [tb.network_forest(tb.chain(drawn(law, rng))).overlap(k) for _ in range(5)]
    assert global_pruning(LENET, k / N_LENET, law).overlap == pytest.approx(np.mean(overlaps), abs=0.01)


def test_lenet_collapses_at_the_initialisation_of_torch_where_its_first_layer_is_empty():
    collapse = global_pruning(LENET, 0.05).collapse_density
    assert collapse == pytest.approx(0.0454, abs=0.001)
    bounds = [1 / math.sqrt(m) for m in LENET[:-1]]
    sizes = [m * n for m, n in itertools.pairwise(LENET)]
    empty = sum(n * (1 - bounds[0] / b) for n, b in zip(sizes, bounds, strict=True)) / N_LENET
    assert collapse == pytest.approx(empty, abs=1e-5)
    layers = [global_pruning(LENET, density).layers[0].kept for density in (empty * 0.999, collapse * 1.001)]
    assert layers[0] == 0
    assert layers[1] > 1
    nets = [drawn("torch", np.random.default_rng(seed)) for seed in range(5)]
    for density, alive in ((0.95 * collapse, False), (1.05 * collapse, True)):
        keep = round(density * N_LENET)
        masks = [tb.network_masks(net, keep, method="magnitude", scope="global") for net in nets]
        assert all(bool(mask[0].any()) == alive for mask in masks)


@pytest.mark.parametrize(
    ("network", "decades", "k", "per_layer", "channels"),
    [("vgg16", 2, 147_617, 2447.3, 507.5), ("vgg16", 2.25, 83_011, 461.6, 101.6), ("vgg11", 2.5, 29_165, None, 1.25)],
)
def test_published_layer_collapse_is_predicted(network, decades, k, per_layer, channels):
    layers = architecture(network, "cifar100" if network == "vgg16" else "cifar10")
    pruned = global_pruning(layers, 10**-decades, "he")
    assert pruned.kept == k
    *convs, classifier = pruned.layers
    assert classifier.name == "dense1"
    assert convs[-1].reached == pytest.approx(channels, abs=0.05)
    if per_layer is not None:
        assert [layer.kept for layer in convs[-5:]] == pytest.approx([per_layer] * 5, abs=0.05)
        published = {2: [2454, 2444, 2448, 2492, 2415], 2.25: [446, 497, 451, 471, 467]}[decades]
        assert [abs(count - per_layer) < 4 * math.sqrt(per_layer) for count in published] == [True] * 5


def test_vgg16_is_an_architecture_and_no_row_of_table_1():
    network = architecture("vgg16", "cifar100")
    assert sum(layer.n_weights for layer in network.layers) == 14_761_664
    assert [layer.conv.output_size for layer in network.convs][-4:] == [(4, 4), (2, 2), (2, 2), (2, 2)]
    assert not network.printed_note
    assert len(table1()) == 18
    assert not any(row.architecture == "vgg16" for row in table1())


def neurons_alive(masks):
    """Return how many outputs of each layer are reached from the inputs, and effective weights of each layer."""
    forward = [np.ones(masks[0].shape[0], bool)]
    for mask in masks:
        forward.append(forward[-1] @ mask)
    backward = [np.ones(masks[-1].shape[1], bool)]
    for mask in reversed(masks):
        backward.insert(0, mask @ backward[0])
    effective = [
        np.count_nonzero(mask & before[:, None] & after)
        for mask, before, after in zip(masks, forward, backward[1:], strict=False)
    ]
    return [np.count_nonzero(group) for group in forward[1:]], effective


@pytest.mark.parametrize("widths", [[6, 4, 3], [5, 8, 8, 2], [30, 20, 20, 5]])
def test_reached_and_effective_bound_the_means_at_a_threshold(widths):
    rng = np.random.default_rng(0)
    layers = [Dense(m, n) for m, n in itertools.pairwise(widths)]
    n_weights = sum(layer.n_weights for layer in layers)
    for share in (0.1, 0.25, 0.5):
        pruned = global_pruning(layers, round(share * n_weights) / n_weights, "exchangeable")
        p = pruned.density
        counts = [neurons_alive([rng.random(layer.weight_shape) < p for layer in layers]) for _ in range(2000)]
        for at, attribute in enumerate(("reached", "effective")):
            sampled = np.array([count[at] for count in counts])
            error = sampled.std(axis=0) / math.sqrt(len(counts))
            bounds = np.array([getattr(layer, attribute) for layer in pruned.layers])
            assert (bounds >= sampled.mean(axis=0) - 4 * error - 0.01).all()
            assert (bounds <= 2.5 * sampled.mean(axis=0) + 0.2).all()


def ranks_of_all_subsets(widths, taps=1):
    """Return, for every k, the mean rank of all k-subsets of the weights of a network, exactly."""
    edges = []
    start = 0
    for m, n in itertools.pairwise(widths):
        edges += [(start + i, start + m + j) for i in range(m) for j in range(n) for _ in range(taps)]
        start += m
    means = []
    for k in range(len(edges) + 1):
        ranks = [_rank(kept, sum(widths)) for kept in itertools.combinations(edges, k)]
        means.append(Fraction(sum(ranks), len(ranks)))
    return means


def _rank(edges, n_vertices):
    label = list(range(n_vertices))
    rank = 0
    for a, b in edges:
        if label[a] != label[b]:
            rank += 1
            label = [label[b] if x == label[a] else x for x in label]
    return rank


@pytest.mark.parametrize(("widths", "taps"), [([2, 2, 2], 1), ([1, 3, 2], 1), ([2, 3], 2), ([2, 1, 2, 1], 2)])
def test_the_bound_for_exchangeable_weights_is_below_the_mean_over_all_subsets(widths, taps):
    layers = [Conv(m, n, taps, 4) for m, n in itertools.pairwise(widths)]
    means = ranks_of_all_subsets(widths, taps)
    alpha = sum(widths) - 1
    for k, mean in enumerate(means[1:], 1):
        pruned = global_pruning(layers, Fraction(k, len(means) - 1), "exchangeable")
        assert pruned.kept == k
        assert 0.6 * mean <= pruned.overlap_bound * alpha <= mean


def test_an_empty_layer_leaves_two_giant_components():
    pruned = global_pruning([300, 200, 200, 300], 0.5, [1.0, 1e-9, 1.0])
    assert pruned.layers[1].kept < 1e-6
    assert pruned.overlap * 999 == pytest.approx(998, abs=0.01)


def test_the_limit_of_one_layer_is_that_of_the_layer():
    for k in (100, 489, 600, 1083, 5000):
        pruned = global_pruning([784, 300], Fraction(k, 784 * 300), "exchangeable")
        assert pruned.overlap * 1083 == pytest.approx(tb.overlap_limit(784, 300, k) * 1083, abs=1.0001)


@pytest.mark.parametrize("widths", [[1, 1], [1, 1, 1], [4, 4]])
def test_tiny_and_critical_networks_have_an_overlap(widths):
    n_weights = sum(m * n for m, n in itertools.pairwise(widths))
    for k in range(1, n_weights + 1):
        pruned = global_pruning(widths, Fraction(k, n_weights))
        assert 0 <= pruned.overlap <= 1
        assert pruned.kept == k


def test_a_flattened_map_multiplies_the_weights_per_channel():
    row = [Conv(1, 6, (5, 5), (28, 28), padding=2), Conv(6, 16, (5, 5), (14, 14)), Dense(400, 120), Dense(120, 10)]
    pruned = global_pruning(row, 0.01, "he")
    assert [layer.weights for layer in pruned.layers] == [150, 2400, 48_000, 1200]
    p = pruned.layers[2].density
    reached = pruned.layers[1].reached
    assert pruned.layers[2].reached == pytest.approx(120 * (1 - (1 - p) ** (25 * reached)))


def test_the_record_becomes_plain_python_with_the_densities_of_the_layers():
    record = global_pruning(LENET, 0.05).to_dict()
    assert record["status"] == "limit"
    assert set(record["layers"][0]) == {"name", "weights", "kept", "density", "reached", "effective"}
    assert "reached" in global_pruning(LENET, 0.05)._repr_html_()


@pytest.mark.parametrize(
    ("layers", "density", "law", "said"),
    [
        (LENET, 0, "he", "'density' must be a number in"),
        (LENET, 1e-9, "he", "'density' must be at least one of the 266200 weights"),
        (LENET, 0.1, "normal", "'law' must be one of 'torch', 'he'"),
        (LENET, 0.1, [1.0], "3 standard deviations"),
        (LENET, 0.1, [1.0, -1.0, 1.0], "'law' must be positive numbers"),
        ([784], 0.1, "he", "'layers' must be at least two widths"),
        ([], 0.1, "he", "'layers' must be at least two widths"),
        ([Recurrent(3)], 0.1, "he", "'layers' must be at least two widths"),
        ([Dense(2, 3), Dense(6, 3)], 0.1, "he", "layer '1' reads 6, the one before it feeds 3"),
        ([Conv(4, 4, 3, 9, groups=2)], 0.1, "he", "one group"),
        (architecture("resnet20", "cifar10"), 0.1, "he", "without skips"),
    ],
)
def test_what_cannot_be_said_is_refused(layers, density, law, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        global_pruning(layers, density, law)


@pytest.mark.parametrize("widths", [[1, 1, 1], [2, 3], [9, 9, 9], [784, 300, 10]])
def test_a_network_that_is_not_pruned_keeps_its_whole_forest(widths):
    assert global_pruning(widths, 1.0).overlap == 1
