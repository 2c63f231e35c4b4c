"""Two checkpoints of one model: what of the one's topology is alive in the other."""

import json

import numpy as np
import pytest

from topobounds import (
    compare,
    critical_kernel_weights,
    layer_tensors,
    magnitude_mask,
    maximum_spanning_forest,
    topological_mask,
    write_html,
)
from topobounds.analysis.comparison import EQUAL
from topobounds.checkpoint import CheckpointError
from topobounds.cli import main


@pytest.fixture(scope="module")
def arrays():
    draw = np.random.default_rng(0)
    return {
        "fc1.weight": draw.standard_normal((30, 50)) * np.exp(draw.standard_normal((30, 1))),
        "fc2.weight": draw.standard_normal((20, 30)),
        "conv.weight": draw.standard_normal((6, 4, 3, 3)),
        "fc1.bias": draw.standard_normal(30),
    }


def pruned(arrays, mask_of, keep):
    return {n: np.where(mask_of(w, keep=keep), w, 0.0) if w.ndim == 2 else w for n, w in arrays.items()}


def test_a_copy_pruned_by_t_imp_keeps_everything(arrays):
    found = compare(arrays, pruned(arrays, topological_mask, 0.2), seed=0)
    assert [layer.name for layer in found.layers] == ["fc1.weight", "fc2.weight", "conv.weight"]
    for layer in found.layers:
        assert (layer.forest_kept, layer.forest_in_common, layer.bottleneck, layer.wasserstein) == (1.0, 1.0, 0.0, 0.0)
    assert [layer.reason for layer in found.layers] == [None, None, EQUAL]
    assert found.summary.topology_kept == 3
    assert found.summary.text == "Of 3 layers, b keeps all that carries a's topology in 3."


@pytest.mark.parametrize("keep", [0.1, 0.3])
def test_what_a_copy_pruned_by_magnitude_lacks_is_its_deficit(arrays, keep):
    found = compare(arrays, pruned(arrays, magnitude_mask, keep), seed=0)
    for layer in found.layers[:2]:
        forest = maximum_spanning_forest(arrays[layer.name].T)
        k = round(keep * arrays[layer.name].size)
        deficit = forest.deficit(k)
        assert layer.forest_kept == forest.overlap(k)
        assert (layer.silent_inputs, layer.silent_outputs, layer.fragments) == (
            deficit.silent_inputs,
            deficit.silent_outputs,
            deficit.fragments,
        )
        assert layer.density_b == k / arrays[layer.name].size
    assert found.layers[2].reason == EQUAL


@pytest.mark.parametrize("keep", [0.05, 0.2])
def test_a_kernel_pruned_by_magnitude_has_the_deficit_of_its_geometry(arrays, keep):
    kernel = arrays["conv.weight"]
    copy = {"conv.weight": np.where(magnitude_mask(kernel, keep=keep), kernel, 0.0)}
    (layer,) = compare({"conv.weight": kernel}, copy, seed=0).layers
    (tensor,) = layer_tensors({"conv.weight": kernel})
    forest = critical_kernel_weights(kernel, tensor.graph)
    k = round(keep * kernel.size)
    deficit = forest.deficit(k)
    assert layer.forest_kept == forest.overlap(k) < 1
    assert (layer.silent_inputs, layer.silent_outputs, layer.fragments) == (
        deficit.silent_inputs,
        deficit.silent_outputs,
        deficit.fragments,
    )


def test_diagrams_that_do_not_end_alike_are_infinitely_far_apart_and_it_is_said(arrays):
    layer = compare(arrays, pruned(arrays, magnitude_mask, 0.05), seed=0).layers[0]
    assert (layer.bottleneck, layer.wasserstein) == (None, None)
    assert "never merge" in layer.reason
    assert "infinite" in layer.reason


def test_forests_in_common_by_chance(arrays):
    draw = np.random.default_rng(5)
    shares = []
    for _ in range(60):
        other = {"fc2.weight": draw.standard_normal((20, 30))}
        layer = compare({"fc2.weight": arrays["fc2.weight"]}, other, trials=0, seed=0).layers[0]
        shares.append(layer.forest_in_common)
    assert layer.forest_in_common_expected == 49 / 600
    assert abs(np.mean(shares) - 49 / 600) < 4 * np.std(shares) / 60**0.5


def test_the_same_weights_twice_and_nothing_in_common_are_said(arrays):
    assert compare(arrays, dict(arrays)).summary.text == "The two hold the same weights."
    nothing = compare({"a.weight": np.eye(3)}, {"b.weight": np.eye(3)})
    assert "no layer in common" in nothing.summary.text
    assert list(nothing.only_in_a) == ["a.weight"]
    other_shape = compare(arrays, {**arrays, "fc2.weight": np.ones((20, 31))})
    assert other_shape.only_in_a == {"fc2.weight": "There it has the shape (20, 31), here (20, 30)."}


def test_two_arrays_without_names_are_compared(tmp_path):
    np.save(tmp_path / "w.npy", np.eye(3))
    np.save(tmp_path / "pruned.npy", np.diag([1.0, 1.0, 0.0]))
    found = compare(tmp_path / "w.npy", tmp_path / "pruned.npy")
    assert [(layer.name, layer.forest_kept) for layer in found.layers] == [("w", 2 / 3)]
    assert not found.only_in_a
    assert not found.only_in_b


def test_a_layer_that_cannot_be_read_is_said_and_the_others_are_compared(arrays):
    damaged = {**arrays, "fc1.weight": np.full((30, 50), np.nan)}
    first, second, _ = compare(arrays, damaged).layers
    assert first.forest_kept is None
    assert first.reason.startswith("Not finite in b: 1500 of its 1500 entries are NaN or infinite")
    assert second.reason == EQUAL


def test_a_file_with_zeros_and_nan_keeps_all_of_itself(arrays, tmp_path, capsys):
    odd = {"zero.weight": np.zeros((5, 4)), "nan.weight": np.full((5, 4), np.nan), "inf.weight": np.diag([1, np.inf])}
    weights = arrays | odd
    found = compare(weights, dict(weights), seed=0)
    summary = found.summary
    counts = (summary.layers, summary.compared, summary.identical, summary.topology_kept, summary.diagrams_equal)
    assert (counts, summary.least_kept) == ((6, 4, 4, 4, 4), None)
    assert summary.text == (
        "Of 4 layers, b keeps all that carries a's topology in 4; not compared: nan.weight, inf.weight."
    )
    zero = found.layers[3]
    assert (zero.forest_kept, zero.forest_in_common, zero.density_a, zero.reason) == (1.0, 1.0, 0.0, EQUAL)
    file = str(tmp_path / "odd.npz")
    np.savez(file, **weights)
    with pytest.raises(SystemExit):
        main(["compare", file, file, "--html", str(tmp_path / "page.html")])
    printed = " ".join(capsys.readouterr().out.split())
    assert "not compared: nan.weight: Not finite in a: 20 of its 20 entries are NaN or infinite" in printed
    assert "not compared: inf.weight: Not finite in a: 1 of its 4 entries" in printed
    assert printed.count("not compared:") == 3
    assert "of 4 layers have all that carries" in (tmp_path / "page.html").read_text()
    only_nan = {"nan.weight": odd["nan.weight"]}
    assert compare(only_nan, only_nan).summary.text == "None of the layers that both have is compared: nan.weight."


def test_the_layer_of_which_the_least_is_alive_is_named_if_one_lost_something(arrays):
    copy = pruned(arrays, magnitude_mask, 0.1) | {"fc1.weight": arrays["fc1.weight"]}
    assert compare(arrays, copy, trials=0, seed=0).summary.least_kept == "fc2.weight"
    assert compare(arrays, pruned(arrays, topological_mask, 0.2), trials=0, seed=0).summary.least_kept is None
    zeros = {"fc2.weight": np.zeros((20, 30))}
    layer = compare(zeros, {"fc2.weight": arrays["fc2.weight"]}, trials=0, seed=0).layers[0]
    assert (layer.forest_kept, layer.reason) == (
        1.0,
        "All weights of a are zero, so it has no topology that could be lost.",
    )
    lost = compare({"fc2.weight": arrays["fc2.weight"]}, zeros, trials=0, seed=0)
    assert (lost.layers[0].forest_kept, lost.summary.least_kept) == (0.0, "fc2.weight")


def test_gates_are_compared_one_by_one():
    draw = np.random.default_rng(0)
    gates = {"rnn.weight_ih_l0": draw.standard_normal((12, 5)), "rnn.weight_hh_l0": draw.standard_normal((12, 3))}
    names = [layer.name for layer in compare(gates, gates).layers]
    assert names[:4] == [f"rnn.weight_ih_l0[{gate}]" for gate in ("input", "forget", "cell", "output")]


def test_files_without_layers_are_refused():
    with pytest.raises(CheckpointError, match="None of the tensors of arrays is read as a layer"):
        compare({"a.bias": np.ones(3)}, {"a.bias": np.ones(3)})


def test_the_command_prints_what_python_returns(arrays, tmp_path, capsys):
    files = [str(tmp_path / f"{side}.npz") for side in "ab"]
    np.savez(files[0], **arrays)
    np.savez(files[1], **pruned(arrays, magnitude_mask, 0.1))
    with pytest.raises(SystemExit) as left:
        main(["compare", *files, "--seed", "0", "--json", "--html", str(tmp_path / "page.html")])
    assert left.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {**json.loads(json.dumps(compare(*files, seed=0).to_dict())), "schema_version": 1}
    for layer in printed["layers"]:
        assert all(value is not None for key, value in layer.items() if key != "reason") or layer["reason"]
    assert "topology kept" in (tmp_path / "page.html").read_text()
    with pytest.raises(SystemExit):
        main(["compare", *files])
    assert "only in" not in capsys.readouterr().out


def test_where_no_layer_is_common_there_is_no_table(tmp_path, capsys):
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", **{f"{name}.weight": np.eye(3)})
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")])
    printed = capsys.readouterr().out
    assert "no layer in common" in printed
    assert "bottleneck" not in printed
    assert "only in b: b.weight" in printed


def test_a_comparison_is_a_page(arrays, tmp_path):
    found = compare(arrays, {**pruned(arrays, topological_mask, 0.3), "fc2.weight": np.ones((2, 3))}, seed=0)
    text = write_html(found, tmp_path / "page.html").read_text()
    assert "Only in a" in text
    assert all(layer.name in text for layer in found.layers)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int64])
@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_a_file_of_masks_is_pointed_to_where_masks_belong(arrays, tmp_path, capsys, kind, suffix):
    masks = {f"{name}{suffix}": (np.abs(array) > 0.5).astype(kind) for name, array in arrays.items()}
    np.savez(tmp_path / "my model.npz", **arrays)
    np.savez(tmp_path / "masks.npz", **masks)
    command = f"topobounds analyze '{tmp_path}/my model.npz' --mask {tmp_path}/masks.npz"
    for pair in (("my model.npz", "masks.npz"), ("masks.npz", "my model.npz")):
        with pytest.raises(SystemExit) as left:
            main(["compare", *(str(tmp_path / name) for name in pair)])
        assert left.value.code == 2
        assert f"is read as a layer. It holds masks, which belong beside weights: {command}" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"beside weights: topobounds\.analyze\(weights, mask=masks\)"):
        compare(arrays, masks)
    codes = {name: np.full(array.shape, 7, np.int64) for name, array in arrays.items()}
    with pytest.raises(CheckpointError, match=r"is read as a layer\.$"):
        compare(arrays, codes)
