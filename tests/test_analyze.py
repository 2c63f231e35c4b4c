"""Reports on files: what is read and left out, beside what, and that neither order nor threads change a number."""

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from safetensors.numpy import save_file

import topobounds.weights
from tests import naive
from topobounds import CheckpointError, Interrupted, ModelReport, analyze, neural_persistence, prune_checkpoint
from topobounds.topology.network import chain, network_forest


def arrays(seed=0, **more):
    rng = np.random.default_rng(seed)
    weights = {
        "fc1.weight": rng.standard_normal((30, 50)),
        "fc1.bias": np.zeros(30),
        "fc2.weight": rng.standard_normal((10, 30)) * (rng.random((10, 30)) < 0.6),
        "rnn.weight_ih_l0": rng.standard_normal((12, 7)),
        "rnn.weight_hh_l0": rng.standard_normal((12, 3)),
        "conv.weight": rng.standard_normal((6, 4, 3, 3)).astype(np.float32),
    }
    return weights | more


def saved(folder, weights, name="weights.npz"):
    path = folder / name
    np.savez(path, **weights)
    return path


def by_name(report):
    return {layer.name: layer for layer in report.layers}


def test_every_number_is_that_of_a_slow_computation():
    weights = arrays()
    for name, layer in by_name(analyze(weights, seed=0)).items():
        if layer.kind == "conv":
            continue
        matrix = weights[layer.tensor]
        if name.startswith("rnn"):
            gate = ["input", "forget", "cell", "output"].index(name.partition("[")[2].rstrip("]"))
            matrix = matrix[3 * gate : 3 * gate + 3]
        edges, alpha, critical_rank = naive.kruskal(matrix)
        falling = sorted((abs(w) for w in matrix.ravel()), reverse=True)
        heaviest = sum(abs(matrix[cell]) >= falling[alpha - 1] for cell in edges)
        assert (layer.alpha, layer.components) == (alpha, sum(matrix.shape) - alpha)
        assert layer.critical_rank == critical_rank
        assert layer.overlap == pytest.approx(heaviest / alpha)
        assert layer.neural_persistence == pytest.approx(neural_persistence(matrix, normalized=True), rel=1e-12)
        assert (layer.w_max, layer.w_second) == tuple(falling[:2])
        assert layer.nonzero == np.count_nonzero(matrix)
        assert (layer.m, layer.n) == matrix.shape[::-1]


def test_a_report_is_the_same_after_a_journey_through_a_file(tmp_path):
    broken = {"fc3.weight": np.full((4, 10), np.nan), "tall.weight": np.ones((3, 2))}
    report = analyze(arrays(**broken), seed=0, scales=True, trials=5)
    report.save(tmp_path / "report.json")
    again = ModelReport.load(tmp_path / "report.json")
    assert again == report
    assert again.to_dict() == report.to_dict() == json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not json", "it is no JSON"),
        ("[1]", "it has other keys"),
        ("{}", "its schema_version is None"),
        ('{"schema_version": 2}', "it has no 'left_out'"),
        ('{"schema_version": 2, "left_out": [3], "source": null, "layers": []}', "it has other keys"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, problem):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem) as caught:
        ModelReport.load(path)
    assert str(path) in str(caught.value)


def test_neither_threads_nor_what_else_is_read_change_a_number(tmp_path):
    path = saved(tmp_path, arrays())
    report = analyze(path, seed=3, jobs=1)
    assert analyze(path, seed=3, jobs=4) == report
    with ThreadPoolExecutor(2) as executor:
        assert analyze(path, seed=3, executor=executor) == report
    alone = analyze(path, seed=3, include=["fc2*", "conv*"])
    assert by_name(alone) == {name: by_name(report)[name] for name in ("fc2.weight", "conv.weight")}
    assert analyze(path, seed=4).layers != report.layers


def test_workers_open_the_files_by_their_paths(tmp_path):
    path = saved(tmp_path, arrays())
    mask = saved(tmp_path, {"fc1.weight": np.eye(30, 50)}, "mask.npz")
    options = {"seed": 3, "mask": mask, "trials": 5}
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        assert analyze(path, executor=executor, **options) == analyze(path, **options)
        with pytest.raises(ValueError, match="'source' must be a path where 'executor'"):
            analyze(arrays(), executor=executor)
        with pytest.raises(ValueError, match="'jobs' must be left out"):
            analyze(path, executor=executor, jobs=2)


def test_a_tensor_that_is_damaged_or_not_finite_is_left_out(tmp_path):
    weights = arrays()
    weights["fc1.weight"][3, 4] = np.inf
    path = saved(tmp_path, weights)
    content = bytearray(path.read_bytes())
    place = content.index(b"fc2.weight.npy") + 500  # within the values
    content[place] ^= 255
    path.write_bytes(bytes(content))
    report = analyze(path, seed=0)
    assert report.faults == {"fc1.weight": "not-finite", "fc2.weight": "damaged"}
    assert "1 of its 1500 entries are NaN or infinite, the first at row 3, column 4" in report.left_out["fc1.weight"]
    assert report.forms["fc1.weight"] == ((30, 50), "float64")
    assert {finding.rule for finding in report.findings if finding.severity == "error"} == {"not-finite", "damaged"}
    assert "conv.weight" in by_name(report)


def test_a_file_of_nothing_that_is_read_says_why(tmp_path):
    path = saved(tmp_path, {"a.bias": np.ones(3), "b.bias": np.ones(4), "c.weight": np.full((3, 2), np.nan)})
    with pytest.raises(CheckpointError, match=r"None of the 3 tensors of .*weights.npz is read as a layer; 2 of them:"):
        analyze(path)
    with pytest.raises(
        CheckpointError, match="The only tensor of the arrays is not read as a layer: vector of one dimension"
    ):
        analyze({"a": np.ones(3)})


# -- masks and scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_masked_weights_are_taken_as_zero(tmp_path, suffix):
    weights = arrays()
    mask = np.random.default_rng(1).random((30, 50)) < 0.5
    weights["fc1.weight"][~mask] = np.nan  # what is masked may be anything
    file = saved(tmp_path, {f"fc1.weight{suffix}": mask.astype(np.uint8)}, "mask.npz")
    report = analyze(weights, mask=file, seed=0)
    pruned = analyze(weights | {"fc1.weight": np.where(mask, weights["fc1.weight"], 0)}, seed=0)
    assert report.layers == pruned.layers
    assert report.source.mask == str(file)
    assert by_name(report)["fc1.weight"].nonzero == mask.sum()


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        ({"fc1.wieght": np.ones((30, 50))}, r"nearest are 'fc1.weight'.*, not 'fc1.wieght'"),
        ({"fc1.weight": np.ones((50, 30))}, r"'fc1.weight' is to have \(30, 50\), not \(50, 30\)"),
        ({"fc1.bias": np.ones(30)}, "arrays for some of the layers: 'fc1.weight'"),
    ],
)
def test_a_mask_of_other_names_or_shapes_is_refused(mask, problem):
    with pytest.raises(ValueError, match=problem):
        analyze(arrays(), mask=mask)


def test_a_mask_of_other_values_leaves_its_tensor_out():
    mask = np.ones((30, 50), np.float32)
    mask[2, 7] = 0.5
    reason = analyze(arrays(), mask={"fc1.weight": mask}, seed=0).left_out["fc1.weight"]
    assert reason.startswith("Its mask in arrays cannot be used.")
    assert reason.endswith("must be an array of true and false, or of 1 and 0, but at row 2, column 7 it is 0.5.")


def test_scores_take_the_place_of_the_weights_in_every_rank():
    weights = arrays()
    rng = np.random.default_rng(5)
    scores = {name: -rng.random(array.shape) for name, array in weights.items() if array.ndim > 1}
    del scores["rnn.weight_hh_l0"]
    report = analyze(weights, scores=scores, seed=0)
    alive = {name: np.where(weights[name] != 0, array, 0) for name, array in scores.items()}
    ranked = by_name(analyze(weights | alive, seed=0))
    of_weights = by_name(analyze(weights, seed=0))
    for name, layer in by_name(report).items():
        own = {key: getattr(ranked[name], key) for key in ("rms", "w_max", "w_second", "dtype", "reason")}
        assert replace(layer, **own) == ranked[name]
        assert layer.rms == of_weights[name].rms
        assert layer.w_max == of_weights[name].w_max
        assert "Ranked by scores" in layer.reason
    assert report.left_out["rnn.weight_hh_l0"] == "arrays holds no scores for it."
    assert report.source.scores == "arrays"


def test_scores_of_weights_that_are_zero_are_not_looked_at_as_prune_does_not(tmp_path):
    rng = np.random.default_rng(7)
    weights = {name: rng.standard_normal((9, 8)) for name in ("a.weight", "b.weight")}
    scores = {name: rng.random((9, 8)) for name in weights}
    for name, array in weights.items():
        array[0, :2] = 0
        scores[name][0, :2] = np.nan
    scores["b.weight"][5, 1] = -np.inf
    report = analyze(weights, scores=scores, seed=0)
    whole = {name: np.where(weights[name] != 0, array, 0) for name, array in scores.items()}
    assert report.layers == analyze(weights, scores={"a.weight": whole["a.weight"]}, seed=0).layers
    bad = "1 of its 72 entries are NaN or infinite, the first at row 5, column 1: -inf"
    assert report.left_out == {"b.weight": f"Its scores in arrays are not finite: {bad}."}
    assert [(each.rule, each.layer) for each in report.findings if each.severity == "error"] == [
        ("not-finite", "b.weight")
    ]
    np.savez(tmp_path / "net.npz", **weights)
    pruned = prune_checkpoint(tmp_path / "net.npz", tmp_path / "new.npz", density=0.5, scores=scores)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in report.layers]
    assert pruned.left_out == {"b.weight": f"its scores are not finite: {bad}"}
    masked = {name: np.ones((9, 8)) for name in weights}
    masked["b.weight"][5, 1] = 0  # a weight that a mask takes is zero
    assert not analyze(weights, mask=masked, scores=scores, seed=0).left_out


# -- long work ---------------------------------------------------------------------------------------------------------


def test_the_other_order_of_bytes_is_turned_once(monkeypatch):
    turned = []
    convert = topobounds.weights._as_floats
    monkeypatch.setattr(
        topobounds.weights, "_as_floats", lambda array: (turned.append(array.dtype.isnative), convert(array))[1]
    )
    matrix = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    reports = [
        analyze({"fc.weight": given}, scales=True, curves=True, trials=4, seed=0)
        for given in (matrix.astype(">f4"), matrix.astype("<f4"))
    ]
    assert reports[0].to_dict() == reports[1].to_dict()
    assert reports[0].layers[0].dtype == "float32"
    assert turned
    assert all(turned)


def test_progress_counts_bytes_and_names_tensors():
    told = []
    report = analyze(arrays(), seed=0, chance=False, progress=lambda *each: told.append(each))
    assert told[0] == (0, report.source.bytes, "fc1.weight")
    assert told[-1][0] == told[-1][1] == sum(array.nbytes for array in arrays().values() if array.ndim > 1)
    assert {name for *_, name in told} == {layer.tensor for layer in report.layers}


def test_what_is_done_is_kept_on_interruption():
    def interrupt(done, _total, _name):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        analyze(arrays(), seed=0, jobs=1, progress=interrupt)
    report = caught.value.report
    done = {layer.tensor for layer in report.layers}
    assert done
    assert set(report.left_out) >= {name for name, array in arrays().items() if array.ndim > 1} - done
    assert by_name(report).items() <= by_name(analyze(arrays(), seed=0)).items()


# -- networks ----------------------------------------------------------------------------------------------------------


def test_layers_that_feed_one_another_are_one_network():
    rng = np.random.default_rng(0)
    shapes = [(784, 30), (30, 20), (20, 10)]
    matrices = [rng.standard_normal(shape) for shape in shapes]
    weights = {f"fc{i}.weight": matrix.T for i, matrix in enumerate(matrices)}
    (network,) = analyze(weights | {"fc0.bias": np.ones(30)}, chance=False).networks
    forest = network_forest(chain(matrices))
    assert (network.alpha, network.critical_rank, network.overlap) == (843, forest.critical_rank, forest.overlap())
    assert network.critical_ratio == pytest.approx(float(forest.ratio))
    assert "order of the file" in network.assumed
    ten = {f"{i}.weight": np.eye(4) for i in range(11)}
    (sorted_by_number,) = analyze(dict(sorted(ten.items())), chance=False).networks
    assert sorted_by_number.layers == tuple(ten)
    assert "in the order of their numbers" in sorted_by_number.assumed


def _square_layers(n_layers, dtype=np.float16):
    rng = np.random.default_rng(3)
    layers = {f"fc{i}.weight": rng.integers(-127, 128, (6, 6)).astype(dtype) for i in range(n_layers)}
    return layers | {f"fc{i}.bias": np.ones(6, dtype) for i in range(n_layers)}


def _network_numbers(source):
    (network,) = analyze(source, chance=False).networks
    return replace(network, assumed=None), network.assumed


@pytest.mark.parametrize("wide", [{2}, {0}, {1, 11}, set()], ids=str)
def test_the_dtypes_by_which_safetensors_sorts_do_not_order_the_layers(tmp_path, wide):
    expected, _ = _network_numbers({f"fc{i}.weight": w for i, w in enumerate(_square_layers(12).values()) if i < 12})
    assert expected.layers == tuple(f"fc{i}.weight" for i in range(12))
    mixed = {
        name: array.astype(np.float32 if int(name[2:].partition(".")[0]) in wide else np.float16)
        for name, array in _square_layers(12).items()
    }
    save_file(mixed, tmp_path / "mixed.safetensors")
    found, assumed = _network_numbers(tmp_path / "mixed.safetensors")
    assert found == expected
    assert "in the order of their numbers" in assumed
    assert "of the file" not in assumed


def test_the_codes_of_quantised_layers_are_a_dtype_of_their_own(tmp_path):
    layers = _square_layers(3, np.float32)
    expected, _ = _network_numbers({name: array for name, array in layers.items() if name.endswith("weight")})
    coded = layers | {f"fc{i}.weight": layers[f"fc{i}.weight"].astype(np.int8) for i in (0, 1)}
    coded |= {f"fc{i}.weight_scale": np.ones((6, 1), np.float32) for i in (0, 1)}
    save_file(coded, tmp_path / "coded.safetensors")
    found, assumed = _network_numbers(tmp_path / "coded.safetensors")
    assert found == expected
    assert "in the order of their numbers" in assumed


def test_an_order_that_no_writer_sorts_by_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    names = ["up.weight", "mid2.weight", "mid1.weight", "down.weight"]
    weights = {name: rng.standard_normal((5, 5)) for name in names}
    weights["mid1.weight"] = weights["mid1.weight"].astype(np.float32)
    kept, assumed = _network_numbers(saved(tmp_path, weights))
    assert kept.layers == tuple(names)
    assert "in the order of the file" in assumed
    by_dtype = {name: weights[name] for name in ("mid1.weight", "down.weight", "up.weight")}
    assert _network_numbers(by_dtype)[0].layers == ("down.weight", "mid1.weight", "up.weight")
    _, assumed = _network_numbers({"up.weight": np.eye(5, dtype=np.float32), "down.weight": np.eye(5)})
    assert "in the order of their names" in assumed


@pytest.mark.parametrize(
    "weights",
    [
        {"a.weight": np.ones((4, 3)), "b.weight": np.ones((4, 3))},
        {"q_proj.weight": np.ones((4, 4)), "k_proj.weight": np.ones((4, 4))},
        {"embed_tokens.weight": np.ones((9, 4)), "a.weight": np.ones((4, 4)), "b.weight": np.ones((4, 4))},
        {"a.weight": np.ones((4, 3)), "conv.weight": np.ones((5, 4, 3, 3)), "b.weight": np.ones((2, 4))},
    ],
    ids=["sizes", "attention", "embedding", "a kernel between"],
)
def test_what_may_not_feed_one_another_is_no_network(weights):
    assert analyze(weights, chance=False).networks == ()


# -- scales ------------------------------------------------------------------------------------------------------------


def test_shares_of_the_scales_add_up_to_the_number():
    rng = np.random.default_rng(0)
    weights = np.exp(rng.standard_normal((60, 1))) * rng.standard_normal((60, 40))
    (layer,) = analyze({"a.weight": weights}, scales=True, seed=0).layers
    for shares in (layer.scales.overlap, layer.scales.neural_persistence):
        assert sum(shares) == pytest.approx(1)
    values, added, rest = layer.scales.overlap
    assert values > 1.5  # a random order would keep more
    assert added < -0.5
    assert abs(rest) < 0.2
    assert abs(layer.scales.overlap_z) < 3
    few_sizes = np.ceil(np.abs(rng.standard_normal((90, 70))) / 2)
    coarse = analyze({"a.weight": few_sizes}, scales=True, seed=0).layers[0]
    assert coarse.scales.overlap_z is None
    assert coarse.scales.reason.startswith("Weights tie at the cut")
    kernel = analyze({"conv.weight": rng.standard_normal((4, 3, 3, 3))}, scales=True, seed=0).layers[0]
    assert kernel.scales.reason == "The scales of neurons are not known for kernels."
