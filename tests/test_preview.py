"""What the shapes in a checkpoint imply, from headers alone."""

import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from topobounds import analyze, critical_weights_bound, expected_overlap, global_pruning, layer_tensors, preview
from topobounds.checkpoint import CheckpointError
from topobounds.cli import main


@pytest.fixture
def file(tmp_path):
    tensors = {
        "fc1.weight": np.zeros((300, 784), np.float32),
        "fc2.weight": np.zeros((100, 300), np.float32),
        "fc3.weight": np.zeros((10, 100), np.float32),
        "fc1.bias": np.zeros(300, np.float32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_numbers_are_those_of_the_theory(file):
    found = preview(file, 0.05)
    assert [layer.alpha for layer in found.layers] == [1083, 399, 109]
    assert [layer.keep for layer in found.layers] == [11760, 1500, 50]
    pruned = global_pruning([784, 300, 100, 10], 0.05)
    assert [layer.kept_if_global for layer in found.layers] == pytest.approx([each.kept for each in pruned.layers])
    for layer, (m, n) in zip(found.layers, ((784, 300), (300, 100), (100, 10)), strict=True):
        overlap = expected_overlap(m, n, layer.keep)
        assert layer.overlap_expected == (overlap.lower + overlap.upper) / 2
        assert layer.eta_tau == m * n / layer.alpha
    assert found.layers[2].swaps_expected is None
    assert "fewer weights are kept than carry the topology" in found.layers[2].reason
    assert found.layers[0].swaps_expected == pytest.approx(1083 * (1 - found.layers[0].overlap_expected))
    assert (found.summary.impossible, found.summary.below_if_global) == (1, 0)
    assert found.left_out == {"fc1.bias": "bias"}


def test_it_agrees_with_what_is_measured_of_random_weights():
    draw = np.random.default_rng(0)
    arrays = {"fc.weight": draw.standard_normal((40, 60)), "conv.weight": draw.standard_normal((8, 4, 3, 3))}
    for implied, measured in zip(preview(arrays).layers, analyze(arrays, seed=0).layers, strict=True):
        assert (implied.name, implied.kind, implied.read_as, implied.assumed, implied.dtype) == (
            measured.name,
            measured.kind,
            measured.read_as,
            measured.assumed,
            measured.dtype,
        )
        assert implied.alpha == measured.alpha
        assert implied.must_keep <= measured.critical
        assert implied.safe_density_expected == measured.safe_density_expected
    dense = preview(arrays).layers[0]
    assert dense.overlap_expected == analyze(arrays, seed=0).layers[0].overlap_expected


def test_no_weight_is_read(file, monkeypatch):
    monkeypatch.setattr("topobounds.checkpoint.safetensors.SafetensorsCheckpoint.tensor", lambda *_: 1 / 0)
    assert preview(file, 0.1).summary.layers == 3


def test_kernels_have_a_proved_lower_bound(tmp_path):
    arrays = {"conv.weight": np.zeros((8, 4, 3, 3))}
    (layer,) = preview(arrays, 0.1).layers
    (tensor,) = layer_tensors(arrays)
    assert layer.must_keep == critical_weights_bound(tensor.graph)
    assert layer.overlap_expected is None
    assert "kernels" in layer.reason


@pytest.mark.parametrize("density", [0, -0.1, 1.5, math.nan])
def test_a_density_that_makes_no_sense_is_refused(file, density):
    with pytest.raises(ValueError, match="density"):
        preview(file, density)


def test_the_command_prints_what_python_returns(file, capsys):
    with pytest.raises(SystemExit) as left:
        main(["preview", str(file), "--density", "0.05", "--json"])
    assert left.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {**json.loads(json.dumps(preview(file, 0.05).to_dict())), "schema_version": 1}
    with pytest.raises(SystemExit):
        main(["preview", str(file)])
    output = capsys.readouterr().out
    assert "none read" in output
    assert "fc1.weight" in output


def test_what_matches_nothing_is_refused_with_the_nearest(file, capsys):
    with pytest.raises(SystemExit) as left:
        main(["preview", str(file), "--include", "fc1.wieght"])
    assert left.value.code == 2
    assert "fc1.weight" in capsys.readouterr().err


def test_what_is_a_lower_bound_is_shown_as_one(tmp_path, capsys):
    file = tmp_path / "weights.npz"
    np.savez(file, **{"conv.weight": np.ones((16, 8, 3, 3)), "fc.weight": np.ones((10, 16))})
    with pytest.raises(SystemExit):
        main(["preview", str(file)])
    rows = {line.split()[0]: line.split()[3] for line in capsys.readouterr().out.splitlines() if "weight " in line}
    assert rows == {"conv.weight": ">=25", "fc.weight": "25"}


def test_one_is_not_said_as_several(capsys, tmp_path):
    np.savez(tmp_path / "one.npz", **{"fc.weight": np.ones((1, 1)), "fc.bias": np.ones(1)})
    with pytest.raises(SystemExit):
        main(["preview", str(tmp_path / "one.npz")])
    assert "1 layer of 1 weight; at least 1 carry the topology; 1 tensor left out." in capsys.readouterr().out
    with pytest.raises(CheckpointError, match=r"^The only tensor of .* is not read as a layer\.$"):
        preview({"a": np.ones(3)})
    (tensor,) = layer_tensors({"fc.weight": np.ones((1, 3))})
    assert tensor.read_as[0].endswith("3 inputs x 1 output")
