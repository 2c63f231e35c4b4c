"""Files pruned: masks against a slow T-IMP, what is left alone, what is refused, and the bytes of the rest."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.naive import kruskal
from tests.naive_convolution import critical
from topobounds import analyze, layer_tensors, network_masks, open_checkpoint, persistence_diagram, prune_checkpoint
from topobounds.checkpoint import CheckpointError
from topobounds.theory.deviation import known_deviation

RNG = np.random.default_rng(7)
BFLOAT16 = ml_dtypes.bfloat16


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


NET = {
    "fc1.weight": normal(30, 40),
    "fc1.bias": normal(30),
    "fc2.weight": normal(20, 30),
    "fc3.weight": normal(4, 20),
    "norm.weight": np.ones(20, np.float32),
}


@pytest.fixture
def net(tmp_path):
    save_file(NET, tmp_path / "net.safetensors", {"format": "pt"})
    return tmp_path / "net.safetensors"


def slow_mask(weights, keep):
    """Return T-IMP's mask of a matrix: its forest, then the largest others, ties by flat index."""
    forest = set(kruskal(weights.tolist())[0])
    cells = [(i, j) for i in range(weights.shape[0]) for j in range(weights.shape[1]) if weights[i, j] != 0]
    order = sorted(cells, key=lambda c: (c not in forest, -abs(float(weights[c])), c))
    mask = np.zeros(weights.shape, bool)
    for cell in order[:keep]:
        mask[cell] = True
    return mask


def masks_of(path):
    with open_checkpoint(path) as masks:
        return {name: masks.tensor(name) for name in masks.names}


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16])
def test_masks_are_those_of_a_slow_t_imp_and_counts_are_exact(tmp_path, dtype):
    arrays = {name: array.astype(dtype) for name, array in NET.items()}
    save_file(arrays, tmp_path / "net.safetensors")
    report = prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.15)
    new = load_file(tmp_path / "new.safetensors")
    masks = masks_of(tmp_path / "new.masks.safetensors")
    assert sum(layer.kept for layer in report.layers) == round(0.15 * sum(layer.weights for layer in report.layers))
    assert report.preserved
    for layer in report.layers:
        weights = arrays[layer.name]
        mask = slow_mask(weights, layer.kept)
        assert np.array_equal(masks[layer.name], mask)
        assert new[layer.name].tobytes() == np.where(mask, weights, np.zeros((), dtype)).astype(dtype).tobytes()
        old, now = persistence_diagram(weights), persistence_diagram(new[layer.name])
        assert np.array_equal(old.deaths, now.deaths)
        assert layer.alpha == len(kruskal(weights.tolist())[0])
    assert all(new[name].tobytes() == arrays[name].tobytes() for name in ("fc1.bias", "norm.weight"))


def test_what_is_lost_against_magnitude_is_counted_slowly(net, tmp_path):
    report = prune_checkpoint(net, tmp_path / "new.safetensors", density=0.15)
    for layer in report.layers:
        weights = NET[layer.name]
        topological = slow_mask(weights, layer.kept)
        order = np.argsort(-np.abs(weights).ravel(), kind="stable")
        largest = np.zeros(weights.size, bool)
        largest[order[: layer.kept]] = True
        squares = weights.astype(float).ravel() ** 2
        assert layer.swaps == int((largest & ~topological.ravel()).sum())
        lost = squares[largest].sum() - squares[topological.ravel()].sum()
        assert layer.squared_weight_lost == pytest.approx(lost, abs=1e-9)


@pytest.mark.long
def test_swaps_stand_beside_what_the_same_weights_give_in_random_order(tmp_path):
    """Gates, ranked together, and a matrix: the mean over orders of the same weights is what is said to be expected."""
    rng = np.random.default_rng(5)
    shapes = {"rnn.weight_ih_l0": (32, 9), "rnn.weight_hh_l0": (32, 8), "fc.weight": (20, 30)}
    values = {name: rng.standard_normal(shape) * np.exp(rng.standard_normal(shape)) for name, shape in shapes.items()}
    found = {name: [] for name in shapes}
    for number in range(150):
        drawn = {name: np.stack([rng.permutation(gate.ravel()) for gate in _gates(values[name])]) for name in shapes}
        np.savez(tmp_path / f"{number}.npz", **{name: drawn[name].reshape(shape) for name, shape in shapes.items()})
        report = prune_checkpoint(
            tmp_path / f"{number}.npz", tmp_path / "new.npz", density=0.25, on_infeasible="clamp", dry_run=True
        )
        for layer in report.layers:
            found[layer.name].append((layer.swaps, layer.swaps_expected, layer.swaps_deviation))
            assert layer.swaps_status == "certified"
            assert layer.swaps_deviation_status == known_deviation_status(layer)
    for swaps, expected, deviations in (zip(*each, strict=True) for each in found.values()):
        assert len(set(expected)) == 1  # it goes by the values of each gate, which stay in it
        assert abs(np.mean(swaps) - expected[0]) < 4 * np.std(swaps) / np.sqrt(len(swaps))
        if deviations[0] is not None:
            assert np.std(swaps) == pytest.approx(deviations[0], rel=0.25)


def known_deviation_status(layer):
    known = known_deviation(*((8, layer.shape[1]) if layer.shape[0] == 32 else layer.shape))
    return None if layer.swaps_deviation is None or known is None else known.status


def _gates(weights):
    return np.split(weights, 4 if len(weights) == 32 else 1)


def test_where_chance_is_not_known_the_reason_says_so(net, tmp_path):
    rng = np.random.default_rng(0)
    weights = {
        "zeros.weight": rng.standard_normal((30, 20)) * (rng.random((30, 20)) < 0.9),
        "conv.weight": rng.standard_normal((6, 4, 3, 3)),
        "big.weight": rng.standard_normal((200, 100)),
    }
    np.savez(tmp_path / "a.npz", **weights)
    reasons = {each.name: each.reason for each in _dry(tmp_path / "a.npz", density=0.5)}
    assert "layers without zeros" in reasons["zeros.weight"]
    assert "not known for kernels without sampling" in reasons["conv.weight"]
    assert "how far these swaps spread by chance is not known" in reasons["big.weight"]
    scores = {"big.weight": np.where(rng.random((200, 100)) < 0.9, np.abs(weights["big.weight"]), 0)}
    (scored,) = _dry(tmp_path / "a.npz", density=0.5, scores=scores, include=["big.weight"])
    assert (scored.swaps_expected, scored.swaps is None) == (None, False)
    (other,) = _dry(tmp_path / "a.npz", density=0.5, method="magnitude", include=["big.weight"])
    assert (other.swaps, other.swaps_expected) == (None, None)
    assert "counted for t-imp" in other.reason


def _dry(file, **options):
    return prune_checkpoint(file, file, dry_run=True, **options).layers


def test_kernels_keep_their_critical_weights(tmp_path):
    arrays = {"conv.weight": normal(6, 4, 3, 3), "conv.bias": normal(6), "fc.weight": normal(10, 60)}
    np.savez(tmp_path / "net.npz", **arrays)
    report = prune_checkpoint(tmp_path / "net.npz", tmp_path / "new.npz", density=0.3, input_size=(5, 5))
    (conv,) = [tensor.geometry for tensor in layer_tensors(arrays) if tensor.kind == "conv"]
    conv = type(conv)(4, 6, (3, 3), (5, 5), padding=conv.padding)
    carries = critical(conv, arrays["conv.weight"]).reshape(6, 4, 3, 3) > 0
    with np.load(tmp_path / "new.npz") as new:
        assert np.array_equal(new["conv.weight"][carries], arrays["conv.weight"][carries])
        assert np.count_nonzero(new["conv.weight"]) == report.layers[0].kept
    assert report.layers[0].alpha == carries.sum()
    assert "assumed" in report.layers[0].reason
    assert report.preserved


def test_parts_keep_their_own_forests(tmp_path):
    arrays = {
        "rnn.weight_ih_l0": normal(24, 9),
        "rnn.weight_hh_l0": normal(24, 6),
        "experts.up_proj.weight": normal(9, 8),
    }
    save_file(arrays, tmp_path / "net.safetensors")
    prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.6)
    new = load_file(tmp_path / "new.safetensors")
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0"):
        for gate in range(4):
            rows = slice(6 * gate, 6 * gate + 6)
            forest = kruskal(arrays[name][rows].tolist())[0]
            assert all(new[name][rows][cell] != 0 for cell in forest)


@pytest.mark.parametrize("method", ["t-imp", "magnitude", "shuffled"])
def test_the_global_scope_is_that_of_network_masks(net, tmp_path, method):
    layers = {name: array for name, array in NET.items() if array.ndim == 2}
    keep = round(0.2 * sum(array.size for array in layers.values()))
    report = prune_checkpoint(net, tmp_path / "new.safetensors", density=0.2, scope="global", method=method, seed=3)
    masks = network_masks(layers, keep, method=method, scope="global", seed=3)
    written = masks_of(tmp_path / "new.masks.safetensors")
    assert sum(layer.kept for layer in report.layers) == keep
    if method == "shuffled":
        assert {name: mask.sum() for name, mask in masks.items()} == {
            name: mask.sum() for name, mask in written.items()
        }
    else:
        assert all(np.array_equal(masks[name], written[name]) for name in layers)


@pytest.mark.parametrize(
    "dtypes", [(np.float32, np.float64, BFLOAT16), (BFLOAT16,) * 3, (np.float16, BFLOAT16, np.float16)]
)
def test_the_global_scope_has_exact_ties_whatever_the_types(tmp_path, dtypes):
    rng = np.random.default_rng(3)
    layers = {
        name: rng.integers(-3, 4, shape).astype(dtype)
        for name, shape, dtype in zip("abc", ((8, 9), (7, 8), (9, 3)), dtypes, strict=True)
    }
    save_file(layers, tmp_path / "net.safetensors")
    with open_checkpoint(tmp_path / "net.safetensors") as checkpoint:
        layers = {name: layers[name] for name in checkpoint.names}  # ties go by the order of the file
    for keep in (60, 75, 90):
        prune_checkpoint(tmp_path / "net.safetensors", tmp_path / f"{keep}.safetensors", keep=keep, scope="global")
        masks = network_masks({name: array.astype(float) for name, array in layers.items()}, keep, scope="global")
        written = masks_of(tmp_path / f"{keep}.masks.safetensors")
        assert all(np.array_equal(masks[name], written[name]) for name in layers)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_random_masks_have_exact_counts_and_one_seed_makes_one(net, tmp_path, scope):
    reports = [
        prune_checkpoint(net, tmp_path / f"{i}.safetensors", density=0.3, method="random", seed=seed, scope=scope)
        for i, seed in enumerate((1, 1, 2))
    ]
    one, same, other = (masks_of(tmp_path / f"{i}.masks.safetensors") for i in range(3))
    assert sum(layer.kept for layer in reports[0].layers) == round(0.3 * 1880)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not all(np.array_equal(one[name], other[name]) for name in one)
    assert not reports[0].preserved
    assert reports[0].layers[0].swaps is None


def test_scores_take_the_place_of_weights(net, tmp_path):
    scores = {name: np.abs(normal(*array.shape)) for name, array in NET.items() if array.ndim == 2}
    report = prune_checkpoint(net, tmp_path / "new.safetensors", density=0.2, scores=scores)
    masks = masks_of(tmp_path / "new.masks.safetensors")
    for layer in report.layers:
        assert np.array_equal(masks[layer.name], slow_mask(scores[layer.name], layer.kept))
    assert report.preserved
    np.savez(tmp_path / "scores.npz", **scores)
    prune_checkpoint(net, tmp_path / "file.safetensors", density=0.2, scores=tmp_path / "scores.npz")
    assert (tmp_path / "file.safetensors").read_bytes() == (tmp_path / "new.safetensors").read_bytes()


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_layer_without_scores_is_left_out(net, tmp_path, scope):
    np.savez(
        tmp_path / "scores.npz", **{name: np.abs(normal(*NET[name].shape)) for name in ("fc1.weight", "fc2.weight")}
    )
    scores = np.load(tmp_path / "scores.npz")
    given = {"density": 0.2, "scores": tmp_path / "scores.npz", "scope": scope}
    report = prune_checkpoint(net, tmp_path / "new.safetensors", **given)
    assert report.left_out["fc3.weight"] == f"{tmp_path / 'scores.npz'} holds no scores for it"
    assert report.forms["fc3.weight"] == ((4, 20), "float32")
    masks, new = masks_of(tmp_path / "new.masks.safetensors"), load_file(tmp_path / "new.safetensors")
    assert masks.keys() == scores.keys()
    assert sum(int(mask.sum()) for mask in masks.values()) == 360
    for layer in report.layers:
        assert np.array_equal(masks[layer.name], slow_mask(scores[layer.name], layer.kept))
    assert new["fc3.weight"].tobytes() == NET["fc3.weight"].tobytes()
    with ThreadPoolExecutor(2) as executor:
        elsewhere = prune_checkpoint(net, tmp_path / "elsewhere.safetensors", **given, executor=executor)
    assert elsewhere.left_out == report.left_out
    assert (tmp_path / "elsewhere.safetensors").read_bytes() == (tmp_path / "new.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"fc1.weight": (30, 40), "fc2.wieght": (20, 30)}, "the nearest are 'fc2.weight', .*, not 'fc2.wieght'"),
        ({"fc1": (30, 40)}, "'scores' must be arrays under the names of the tensors"),
        (
            {"fc1.bias": (30,)},
            "'scores' must be arrays for some of the layers: 'fc1.weight', 'fc2.weight', 'fc3.weight'",
        ),
        ({"fc1.weight": (2, 2)}, r"of the shapes of the tensors: 'fc1.weight' is to have \(30, 40\), not \(2, 2\)"),
    ],
)
def test_scores_of_other_tensors_are_refused_as_analyze_refuses_them(net, tmp_path, scores, message):
    arrays = {name: np.ones(shape) for name, shape in scores.items()}
    with pytest.raises(ValueError, match=message) as refused:
        prune_checkpoint(net, tmp_path / "new.safetensors", density=0.2, scores=arrays)
    with pytest.raises(ValueError, match=re.escape(str(refused.value))):
        analyze(net, scores=arrays)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_scores_may_have_tied_names_too(tmp_path):
    torch = pytest.importorskip("torch")
    weights = torch.from_numpy(normal(30, 20))
    torch.save({"fc.weight": weights, "tied.weight": weights}, tmp_path / "net.pt")
    scores = torch.from_numpy(np.abs(normal(30, 20))).to(torch.bfloat16).requires_grad_()
    named = {"fc.weight": scores, "tied.weight": scores}
    report = prune_checkpoint(tmp_path / "net.pt", tmp_path / "new.pt", density=0.3, scores=named)
    assert [layer.name for layer in report.layers] == ["fc.weight"]
    mask = slow_mask(scores.detach().float().numpy(), 180)
    assert np.array_equal(masks_of(tmp_path / "new.masks.safetensors")["fc.weight"], mask)
    assert analyze(tmp_path / "net.pt", scores=named).layers[0].critical == 49


def test_what_is_pruned_again_stays_pruned(net, tmp_path):
    prune_checkpoint(net, tmp_path / "half.safetensors", density=0.5)
    report = prune_checkpoint(tmp_path / "half.safetensors", tmp_path / "fifth.safetensors", keep=0.4)
    half, fifth = load_file(tmp_path / "half.safetensors"), load_file(tmp_path / "fifth.safetensors")
    assert all(not fifth[name][half[name] == 0].any() for name in fifth)
    assert sum(layer.kept for layer in report.layers) == round(0.4 * round(0.5 * 1880))


def test_minus_zero_is_zero(tmp_path):
    weights = normal(12, 9)
    weights[3:5] *= -0.0
    np.save(tmp_path / "a.npy", weights)
    prune_checkpoint(tmp_path / "a.npy", tmp_path / "b.npy", density=0.3)
    new = np.load(tmp_path / "b.npy")
    assert not np.signbit(new[new == 0]).any()
    assert np.count_nonzero(new) == round(0.3 * 108)


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_a_layer_that_cannot_be_cut_so_far(net, tmp_path):
    shared = prune_checkpoint(net, tmp_path / "share.safetensors", density=0.1)
    clamped = prune_checkpoint(net, tmp_path / "clamp.safetensors", density=0.1, on_infeasible="clamp")
    asked = {layer.name: layer.asked for layer in shared.layers}
    assert asked == {"fc1.weight": 120, "fc2.weight": 60, "fc3.weight": 8}
    assert [layer.kept for layer in shared.layers] == [110, 55, 23]
    assert [layer.kept for layer in clamped.layers] == [120, 60, 23]
    assert "8 were asked for, 23 carry its topology" in shared.layers[2].reason
    with pytest.raises(ValueError, match=r"1 of 3 would not have: 'fc3.weight' \(23 critical, 8 asked\)"):
        prune_checkpoint(net, tmp_path / "raise.safetensors", density=0.1, on_infeasible="raise")
    with pytest.raises(ValueError, match=r"at least alpha = 141 of the 1880 weights.*leaves 94"):
        prune_checkpoint(net, tmp_path / "raise.safetensors", density=0.05)
    least = prune_checkpoint(net, tmp_path / "least.safetensors", density=0.05, on_infeasible="clamp")
    assert [layer.kept for layer in least.layers] == [69, 49, 23]
    assert not (tmp_path / "raise.safetensors").exists()


def test_a_trial_says_what_each_budget_would_leave(net, tmp_path):
    report = prune_checkpoint(net, tmp_path / "new.safetensors", density=0.2, dry_run=True)
    for name, counts in report.budgets.items():
        done = prune_checkpoint(net, tmp_path / f"{name}.safetensors", density=0.2, allocate=name)
        assert {layer.name: layer.kept for layer in done.layers} == counts
    assert not (tmp_path / "new.safetensors").exists()
    assert report.target is report.masks is None


# -- what is left alone, and what is refused --------------------------------------------------------------------------


def test_embeddings_heads_and_routers_are_left_alone_unless_named(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    arrays = {
        "model.embed_tokens.weight": normal(50, 8),
        "model.layers.0.mlp.gate.weight": normal(4, 8),
        "model.layers.0.mlp.experts.0.up_proj.weight": normal(16, 8),
        "model.layers.0.mlp.gate_proj.weight": normal(16, 8),
        "lm_head.weight": normal(50, 8),
    }
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    report = prune_checkpoint(folder, tmp_path / "new", density=0.4)
    assert [layer.name for layer in report.layers] == [
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
    ]
    assert report.left_out["model.embed_tokens.weight"].startswith("embedding")
    assert report.left_out["model.layers.0.mlp.gate.weight"].startswith("router")
    assert "ties" in report.left_out["lm_head.weight"]
    named = prune_checkpoint(folder, tmp_path / "named", density=0.4, include=["*embed*", "*up_proj*"])
    assert sorted(layer.name for layer in named.layers) == [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
    ]
    assert len(prune_checkpoint(folder, tmp_path / "all", density=0.4, include=["*"]).layers) == 2


def test_a_head_and_an_embedding_that_are_tied_and_both_stored(tmp_path):
    folder, embedding = tmp_path / "model", "model.embed_tokens.weight"
    folder.mkdir()
    table = normal(50, 8)
    save_file({embedding: table, "lm_head.weight": table, "fc.weight": normal(16, 8)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"text_config": {"tie_word_embeddings": True}}))
    report = analyze(folder, chance=False)
    assumed = f"used as it is stored, though config.json ties it to '{embedding}', which programs may load in its place"
    assert {layer.name: layer.assumed for layer in report.layers if layer.assumed} == {"lm_head.weight": assumed}
    assert [each.text for each in report.findings if each.rule == "assumed-geometry"] == [f"Assumed: {assumed}."]
    plain = prune_checkpoint(folder, tmp_path / "plain", density=0.4)
    assert [layer.name for layer in plain.layers] == ["fc.weight"]
    assert "ties" in plain.left_out["lm_head.weight"]
    assert not plain.not_alike

    for place, (named, other) in enumerate([(embedding, "lm_head.weight"), ("lm_head.weight", embedding)]):
        report = prune_checkpoint(folder, tmp_path / f"{place}", density=0.4, include=[named])
        assert report.not_alike == {other: report.left_out[other]}
        assert report.left_out[other].startswith(f"not included; '{named}' is pruned, to which config.json ties it")
    both = prune_checkpoint(folder, tmp_path / "both", density=0.4, include=[embedding, "lm_head.weight"])
    assert not both.not_alike
    new = load_file(tmp_path / "both" / "model.safetensors")
    assert np.array_equal(new[embedding], new["lm_head.weight"])


def test_quantised_tensors_are_refused_by_name(tmp_path):
    arrays = {"a.weight": normal(9, 8), "b.weight": normal(9, 8).astype(ml_dtypes.float8_e4m3fn)}
    save_file(arrays | {"c.weight": np.ones((4, 4), np.int8)}, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"Quantised tensors cannot be pruned: .*'b.weight' \(float8_e4m3fn\)"):
        prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5)
    report = prune_checkpoint(
        tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5, exclude=["b.*", "c.*"]
    )
    assert [layer.name for layer in report.layers] == ["a.weight"]


def test_weights_that_a_reader_decodes_from_codes_are_refused(tmp_path):
    codes = RNG.integers(-127, 127, (8, 8)).astype(np.int8)
    arrays = {"a.weight": codes, "a.weight_scale": np.ones((8, 1), np.float32), "b.weight": normal(9, 8)}
    save_file(arrays, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"Quantised tensors cannot be pruned: 'a\.weight' \(codes\)\."):
        prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5)
    prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5, exclude=["a.*"])
    new = load_file(tmp_path / "new.safetensors")
    assert all(np.array_equal(new[name], arrays[name]) for name in ("a.weight", "a.weight_scale"))
    assert np.count_nonzero(new["b.weight"]) == 36


def test_a_tensor_that_is_not_finite_is_left_as_it_is(tmp_path):
    bad = normal(9, 8)
    bad[2, 3] = np.nan
    arrays = {"a.weight": normal(9, 8), "b.weight": bad, "c.weight": np.zeros((4, 3), np.float32)}
    save_file(arrays, tmp_path / "net.safetensors")
    report = prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5)
    assert [layer.name for layer in report.layers] == ["a.weight"]
    reason = "its weights are not finite: 1 of its 72 entries are NaN or infinite, the first at row 2, column 3: nan"
    assert report.left_out["b.weight"] == reason
    assert report.left_out["c.weight"] == "all its weights are zero"
    assert load_file(tmp_path / "new.safetensors")["b.weight"].tobytes() == bad.tobytes()


def test_with_scores_too_a_tensor_is_left_as_it_is_that_holds_nan(tmp_path):
    weights = {name: normal(9, 8) for name in ("a.weight", "b.weight", "c.weight")}
    weights["b.weight"][2, 3] = np.nan
    scores = {name: np.abs(normal(9, 8)) for name in weights}
    scores["c.weight"] = scores["c.weight"] + 1j
    save_file(weights, tmp_path / "net.safetensors")
    report = prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5, scores=scores)
    assert [layer.name for layer in report.layers] == ["a.weight"]
    reason = "its weights are not finite: 1 of its 72 entries are NaN or infinite, the first at row 2, column 3: nan"
    assert report.left_out["b.weight"] == report.not_finite["b.weight"] == reason
    assert "its scores cannot be used: " in report.left_out["c.weight"]
    assert "complex64" in report.left_out["c.weight"]
    new = load_file(tmp_path / "new.safetensors")
    assert all(new[name].tobytes() == weights[name].tobytes() for name in ("b.weight", "c.weight"))


def test_scores_of_weights_that_are_zero_are_not_looked_at(tmp_path, monkeypatch):
    weights = {name: normal(9, 8) for name in ("a.weight", "b.weight")}
    scores = {name: np.abs(normal(9, 8)) for name in weights}
    for name, array in weights.items():
        array[0, :2] = 0
        scores[name][0, :2] = np.nan
    scores["b.weight"][5, 1] = np.inf
    save_file(weights, tmp_path / "net.safetensors")
    report = prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "new.safetensors", density=0.5, scores=scores)
    reason = "its scores are not finite: 1 of its 72 entries are NaN or infinite, the first at row 5, column 1: inf"
    assert report.left_out == {"b.weight": reason}
    live = np.where(weights["a.weight"] != 0, scores["a.weight"], 0)
    assert np.array_equal(masks_of(tmp_path / "new.masks.safetensors")["a.weight"], slow_mask(live, 36))

    def refuse(*arguments):
        raise ValueError("Another cause.")

    scores["b.weight"][5, 1] = 1
    monkeypatch.setattr("topobounds.pruning.survey.layer_topology", refuse)
    with pytest.raises(ValueError, match="the commonest reason is: Another cause"):  # it is not the NaN of the zeros
        prune_checkpoint(tmp_path / "net.safetensors", tmp_path / "x.safetensors", density=0.5, scores=scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "One of the arguments 'keep' and 'density' must be given"),
        ({"density": 0.2, "keep": 9}, "Only one of the arguments"),
        ({"density": 1.5}, "'density' must be a number in (0, 1]"),
        ({"keep": -1}, "'keep' must be a non-negative integer"),
        ({"density": "2:4"}, "must not be a pattern such as 2:4"),
        ({"density": 0.5, "method": "2:4"}, "docs/n_of_m.md"),
        ({"density": 0.5, "method": "effective"}, "needs no layers in a row"),
        ({"density": 0.5, "method": "best"}, "'method' must be one of"),
        ({"density": 0.5, "scope": "all"}, "'scope' must be one of"),
        ({"density": 0.5, "on_infeasible": "x"}, "'on_infeasible' must be one of"),
        ({"density": 0.5, "allocate": "even"}, "'allocate' must be one of 'uniform', 'safe', 'retention', or a file"),
        ({"density": 0.5, "allocate": "safe", "scope": "global"}, "'allocate' must be 'uniform' where the scope"),
        ({"density": 0.5, "include": "zzz"}, "'include' must match the name of a tensor"),
        ({"density": 0.5, "include": "fc1.bias"}, "'source' must be a file with layers to prune; the commonest reason"),
        ({"keep": 1881}, "must leave no more than the 1880 of the 1880 weights"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(net, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        prune_checkpoint(net, tmp_path / "new.safetensors", **arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_targets_that_are_there_and_masks_that_are(net, tmp_path):
    (tmp_path / "new.masks.safetensors").write_text("")
    for target in (net, tmp_path / "new.safetensors", tmp_path / "no" / "new.safetensors"):
        with pytest.raises(CheckpointError, match=r"is there already|there is no folder"):
            prune_checkpoint(net, target, density=0.5)


@pytest.mark.parametrize("name", ["new.pt", "new.NPZ", "new.npy"])
@pytest.mark.parametrize("masks_only", [False, True])
def test_a_name_that_tells_another_format_is_refused(net, tmp_path, name, masks_only):
    with pytest.raises(CheckpointError, match=r"would be of the format safetensors, and .*; name it new.safetensors\."):
        prune_checkpoint(net, tmp_path / name, density=0.5, masks_only=masks_only)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_file_of_an_odd_name_may_keep_it(net, tmp_path):
    net.rename(tmp_path / "net.pt")
    assert prune_checkpoint(tmp_path / "net.pt", tmp_path / "new.pt", density=0.5).target


# -- files ------------------------------------------------------------------------------------------------------------


def write_model(folder):
    folder.mkdir()
    places = {}
    for shard in range(3):
        arrays = {f"layers.{shard}.{name}": normal(*array.shape, dtype=BFLOAT16) for name, array in NET.items()}
        save_file(arrays, folder / f"model-{shard}.safetensors", {"format": "pt"})
        places |= dict.fromkeys(arrays, f"model-{shard}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def files_of(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_is_written_with_all_that_is_in_it(tmp_path):
    source = write_model(tmp_path / "model")
    report = prune_checkpoint(source, tmp_path / "new", density=0.3)
    old, new = files_of(source), files_of(tmp_path / "new")
    assert new.keys() == old.keys() | {"pruning/masks.safetensors"}
    assert {name for name in old if old[name] == new[name]} == {"config.json", "tokenizer.json"}
    total = json.loads(new["model.safetensors.index.json"])["metadata"]["total_size"]
    with open_checkpoint(tmp_path / "new") as pruned, open_checkpoint(source) as before:
        assert total == sum(pruned.tensor(name).nbytes for name in pruned.names)
        for name, mask in masks_of(tmp_path / "new" / "pruning" / "masks.safetensors").items():
            assert np.array_equal(pruned.tensor(name) != 0, mask)
            assert np.array_equal(pruned.tensor(name), np.where(mask, before.tensor(name), 0).astype(BFLOAT16))
        assert not pruned.left_out
    with open_checkpoint(tmp_path / "new" / "pruning" / "masks.safetensors") as masks:
        base = json.loads(masks.metadata["base"])
    assert base == {
        f"model-{i}.safetensors": hashlib.sha256(old[f"model-{i}.safetensors"]).hexdigest() for i in range(3)
    }
    assert report.target == str(tmp_path / "new")


def test_other_files_of_weights_are_copied_and_named(tmp_path):
    source = write_model(tmp_path / "model")
    save_file({"x": np.ones((3, 3))}, source / "stray.safetensors")
    (source / "pytorch_model.bin").write_bytes(b"abc")
    report = prune_checkpoint(source, tmp_path / "new", density=0.3)
    assert "copied as it is" in report.left_out["pytorch_model.bin"]
    assert "does not name" in report.left_out["stray.safetensors"]
    assert (tmp_path / "new" / "pytorch_model.bin").read_bytes() == b"abc"


def test_bytes_are_those_that_were_written(tmp_path):
    np.savez_compressed(tmp_path / "net.npz", **NET)
    report = prune_checkpoint(tmp_path / "net.npz", tmp_path / "new.npz", density=0.1)
    assert report.bytes == (tmp_path / "new.npz").stat().st_size < report.bytes_before
    assert report.bytes_before == (tmp_path / "net.npz").stat().st_size


CHECKPOINTS = [
    "fashion_mnist_robust_cnn.pth",
    "g2p_gru_checkpoint20.npz",
    "mnist_6_100_nat.pth",
    "mnist_fc_3layer.pth",
    "mnist_lenet5.pth",
    "resnet20-12fca82f.th",
    "silero_vad_16k.safetensors",
]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_trained_nets_of_others_keep_their_diagrams_and_reload(name, data_dir, tmp_path):
    source, target = data_dir / "checkpoints" / name, tmp_path / name
    report = prune_checkpoint(source, target, density=0.1)
    assert report.preserved
    assert sum(layer.kept for layer in report.layers) == round(0.1 * sum(layer.weights for layer in report.layers))
    assert abs(target.stat().st_size - source.stat().st_size) < 1024  # of the old format of torch, some names
    pruned = {layer.name: layer for layer in report.layers}
    with open_checkpoint(source) as before, open_checkpoint(target) as after:
        assert after.names == before.names
        for tensor in before.names:
            old, new = before.tensor(tensor), after.tensor(tensor)
            if tensor not in pruned:
                assert new.tobytes() == old.tobytes()
                continue
            assert np.count_nonzero(new) == pruned[tensor].kept
            assert np.array_equal(new[new != 0], old[new != 0])
            if pruned[tensor].kind == "dense" and old.ndim == 2 and "_ih" not in tensor:
                assert np.array_equal(persistence_diagram(new).deaths, persistence_diagram(old).deaths)
    if source.suffix in (".pth", ".th"):
        torch = pytest.importorskip("torch")
        contents = [torch.load(file, map_location="cpu", weights_only=True) for file in (source, target)]
        assert type(contents[0]) is type(contents[1])
        assert list(contents[0]) == list(contents[1])


def test_masks_alone(net, tmp_path):
    report = prune_checkpoint(net, tmp_path / "masks.safetensors", density=0.3, masks_only=True)
    prune_checkpoint(net, tmp_path / "new.safetensors", density=0.3)
    assert (tmp_path / "masks.safetensors").read_bytes() == (tmp_path / "new.masks.safetensors").read_bytes()
    assert report.target is None
    assert sum(mask.sum() for mask in masks_of(tmp_path / "masks.safetensors").values()) == round(0.3 * 1880)


def test_masks_whose_metadata_lie_are_refused(tmp_path):
    save_file(
        {"a": np.zeros(3, np.uint8)}, tmp_path / "m.safetensors", {"topobounds.masks": "1", "shapes": '{"a": [2]}'}
    )
    with pytest.raises(CheckpointError, match="its metadata do not tell the shapes"):
        open_checkpoint(tmp_path / "m.safetensors")


def test_an_executor_finds_the_same(net, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        prune_checkpoint(net, tmp_path / "a.safetensors", density=0.3, executor=executor)
    prune_checkpoint(net, tmp_path / "b.safetensors", density=0.3)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_progress_tells_bytes_and_tensors(net, tmp_path):
    told = []
    prune_checkpoint(net, tmp_path / "a.safetensors", density=0.3, progress=lambda *what: told.append(what))
    assert told[-1] == (2 * 1880 * 4, 2 * 1880 * 4, "fc3.weight")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


@pytest.mark.long
def test_a_run_that_is_killed_at_random_ends_in_the_same_bytes(tmp_path):
    source = write_model(tmp_path / "model")
    script = "import sys, topobounds; topobounds.prune_checkpoint(*sys.argv[1:3], density=0.3)"
    rng = np.random.default_rng()
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", script, source, tmp_path / "new"], stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    if not (tmp_path / "new").exists():
        prune_checkpoint(source, tmp_path / "new", density=0.3)
    prune_checkpoint(source, tmp_path / "whole", density=0.3)
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16])
def test_swaps_of_scores_are_those_of_their_numbers_whatever_their_type(tmp_path, dtype):
    """The size of the smallest number of int8 is no int8."""
    rng = np.random.default_rng(3)
    scores = rng.choice([-128.0, 127, 64], (200, 100))
    np.savez(tmp_path / "a.npz", w=rng.standard_normal((200, 100)))
    found = [_dry(tmp_path / "a.npz", density=0.2, scores={"w": scores.astype(each)}) for each in (np.float64, dtype)]
    (expected,), (layer,) = found
    assert (layer.kept, layer.swaps, layer.swaps_expected, layer.reason) == (
        (expected.kept, expected.swaps, expected.swaps_expected, expected.reason)
    )
    assert "weights tie at the cut" in layer.reason


def test_no_swaps_by_chance_where_the_rule_for_ties_makes_them(tmp_path):
    """Of few levels far more is swapped than of distinct weights; of ties in random order as much."""
    rng = np.random.default_rng(3)
    weights = {
        "two.weight": rng.choice([1.0, 2.0], (200, 100)),
        "fine.weight": np.round(rng.standard_normal((200, 100)) * 1000),
        "rnn.weight_hh_l0": rng.choice([1.0, 2.0], (200, 50)).astype(np.float16),
    }
    weights["fine.weight"][weights["fine.weight"] == 0] = 1
    np.savez(tmp_path / "a.npz", **weights)
    found = {each.name: each for each in _dry(tmp_path / "a.npz", density=0.03)}
    two, fine, gates = found["two.weight"], found["fine.weight"], found["rnn.weight_hh_l0"]
    assert two.swaps > 180
    assert (two.swaps_expected, two.swaps_deviation, two.swaps_status, two.swaps_deviation_status) == (None,) * 4
    at_random, expected = (float(two.reason.split(word)[0].split()[-1]) for word in (" weights are", " are expected"))
    assert two.reason.startswith("weights tie at the cut")
    assert abs(at_random - expected) < 9
    assert fine.swaps_expected == pytest.approx(expected, abs=0.1)
    assert abs(fine.swaps - fine.swaps_expected) < 4 * fine.swaps_deviation
    assert gates.swaps_expected is None
    assert "weights tie at the cut" in gates.reason
