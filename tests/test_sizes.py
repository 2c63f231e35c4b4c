"""Sizes that a file or an argument declares are looked at before anything is allocated, at every door."""

import gzip
import json
import math
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from topobounds import (
    CheckpointError,
    Conv,
    _memory,
    compression_report,
    critical_kernel_weights,
    open_checkpoint,
    overlap_report,
    simulate_overlap,
)
from topobounds._memory import ALWAYS_ALLOWED, MOST_EXPANSION, check_memory, largest_unpacked_size, memory
from topobounds.cli import main
from topobounds.verification import replay, verify, verify_file
from torch_bridge.training.data import DataError, load_dataset, read_idx
from torch_bridge.training.loop import split_data
from torch_bridge.training.models import build_model
from torch_bridge.training.plan import DataPlan, ModelPlan

MOST_BYTES = 150 * 2**20  # that a refusal may take, by far more than any does


@pytest.fixture(autouse=True)
def nothing_large_is_allocated():
    """Fail where a test allocates more than a refusal takes."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES


def run(capsys, *arguments):
    """Return the exit status of a command, what it printed, and its errors."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    printed = capsys.readouterr()
    return left.value.code, printed.out, printed.err


def header_of(shape, dtype="<f4"):
    """Return numpy's header of an array."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def bomb(path, shape, held=2**20):
    """Write an archive with a deflated array of zeros, or the beginning of one: nobody gets to its end."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("layer.npy", header_of(shape) + bytes(held))
    return path


@pytest.mark.parametrize("shape", [(50_000, 50_000), (10**9, 10**9), (2**63 - 1, 2**63 - 1), (2**27, 1), (2**12,) * 4])
def test_an_archive_that_announces_far_more_than_it_stores_is_refused(capsys, tmp_path, shape):
    file = bomb(tmp_path / "layers.npz", shape)
    with open_checkpoint(file) as checkpoint, pytest.raises(CheckpointError, match=r"layers\.npz, tensor 'layer'"):
        checkpoint.tensor("layer")
    status, out, err = run(capsys, "verify", file)
    assert (status, out, err.count("\n")) == (2, "", 1)
    is_matrix = len(shape) == 2 and min(shape) > 1
    assert ("its header announces" if is_matrix else "There is no matrix in ") in err


def test_deflated_arrays_of_a_usual_size_are_read(tmp_path):
    sparse = np.zeros((1000, 1000), np.float32)
    sparse[0, 0] = 1
    np.savez_compressed(tmp_path / "layers.npz", layer=sparse)
    with open_checkpoint(tmp_path / "layers.npz") as checkpoint:
        np.testing.assert_array_equal(checkpoint.tensor("layer"), sparse)


def test_packed_bytes_expand_so_far_and_no_further():
    assert largest_unpacked_size(1) == largest_unpacked_size(ALWAYS_ALLOWED // MOST_EXPANSION) == ALWAYS_ALLOWED
    assert largest_unpacked_size(10**9) == MOST_EXPANSION * 10**9


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_an_array_larger_than_half_the_memory_is_refused(monkeypatch, tmp_path, suffix):
    file = tmp_path / f"layer.{suffix}"
    array = np.ones((100, 100), np.float32)
    if suffix == "npy":
        np.save(file, array)
    elif suffix == "npz":
        np.savez(file, layer=array)
    else:
        save_file({"layer": array}, file)
    monkeypatch.setattr(_memory, "memory", lambda: 79_999.0)
    with open_checkpoint(file) as checkpoint, pytest.raises(CheckpointError, match=r"more than half of the 0\.0 GiB"):
        checkpoint.tensor("layer")
    monkeypatch.setattr(_memory, "memory", lambda: 80_000.0)
    with open_checkpoint(file) as checkpoint:
        assert checkpoint.tensor("layer").shape == (100, 100)


def test_a_file_with_a_hole_is_as_large_as_it_says(tmp_path):
    """It takes no room on the disk, and all of it in memory."""
    file = tmp_path / "layer.npy"
    header = header_of((10**6, 10**6))
    with file.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + 4 * 10**12)
    with pytest.raises(CheckpointError, match=r"takes at least 3,725\.3 GiB of memory"):
        verify_file(file)


def test_a_gz_stream_that_expands_too_far_is_no_data_set(monkeypatch, tmp_path):
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(struct.pack(">4I", 2051, 10**5, 28, 28) + bytes(2**22)))
    monkeypatch.setattr(_memory, "ALWAYS_ALLOWED", 2**20)
    with pytest.raises(DataError, match="expand to more than 1048576"):
        read_idx(file, 3)


def test_a_matrix_that_a_witness_announces_is_not_made(tmp_path):
    verdict = {
        "claims": ["star_bound"],
        "seed": 0,
        "bound": 0.5,
        "estimate": 0.6,
        "trials_used": 1,
        "weights": {"shape": [10**6, 10**6], "dtype": "float64", "cells": [], "values": []},
    }
    file = tmp_path / "witness.json"
    file.write_text(json.dumps({"format": "topobounds witnesses", "version": 1, "witnesses": [verdict]}))
    with pytest.raises(ValueError, match="A layer of 1000000 x 1000000 cells takes at least"):
        replay(file)


@pytest.mark.long
def test_layers_too_large_to_simulate_are_refused_in_python_as_on_the_command_line(capsys):
    message = "must add up to at most 16777216, not 134217728."
    with pytest.raises(ValueError, match=message):
        simulate_overlap(2**26, 2**26, trials=1)
    with pytest.raises(ValueError, match=message):
        overlap_report(2**26, 2**26)
    with pytest.raises(ValueError, match=message):
        verify(2**26, 2**26)
    for command in ("overlap", "verify"):
        status, _, err = run(capsys, command, "--m", 2**26, "--n", 2**26)
        assert (status, message in err) == (2, True)
    with pytest.raises(ValueError, match="A layer of 1000000 x 1000000 cells takes"):
        verify(10**6, 10**6, distribution="normal", trials=1)


def test_what_needs_no_simulation_is_answered_for_layers_too_large_to_simulate(capsys):
    report = overlap_report(2**26, 2**26, trials=0)
    assert 0 < report.star_bound < report.enclosure.lower <= report.enclosure.upper < 1
    status, out, _ = run(capsys, "overlap", "--m", 2**26, "--n", 2**26, "--trials", 0, "--json")
    assert status == 0
    assert json.loads(out)["enclosure"] == [report.enclosure.lower, report.enclosure.upper]


@pytest.mark.parametrize(
    ("conv", "why"),
    [
        (Conv(64, 64, (3, 3), (4096, 4096), padding=1), "at most 67108864 edges"),
        (Conv(2, 2, (3, 3, 3), (256, 256, 256), padding=1), "at most 67108864 edges"),
        (Conv(2, 2, 2**14, 2**14, padding=2**13), "at most 67108864 edges"),
        (Conv(10**5, 10**5, (3, 3), (8, 8), padding=1), "A random kernel of 90000000000 weights takes at least 3,352"),
    ],
)
def test_a_convolution_too_large_to_simulate_is_counted_and_says_so(conv, why):
    report = compression_report([conv], trials=1, seed=0)
    assert report.toeplitz.kept == conv.n_inputs + conv.n_outputs - conv.n_components
    assert (report.shared.kept, report.shared.trials, report.shared.weights) == (
        None,
        None,
        math.prod(conv.weight_shape),
    )
    assert why in report.shared.reason
    assert why in report.rows[2][-1]


def test_a_kernel_of_a_convolution_too_large_is_refused():
    with pytest.raises(ValueError, match="Argument 'input_size' must be so small that two channels have at most"):
        critical_kernel_weights(np.ones((1, 1, 3, 3)), Conv(1, 1, (3, 3), (4096, 4096)))


@pytest.mark.parametrize(
    ("plan", "image_size"),
    [
        (ModelPlan(name="mlp", hidden=[10**9]), 8),
        (ModelPlan(name="mlp", hidden=[10**9, 10**9]), 8),
        (ModelPlan(name="mlp", hidden=[2**31 - 1, 2**31 - 1, 2**31 - 1]), 2**20),
        (ModelPlan(name="vgg11", width=10**6), 28),
        (ModelPlan(name="resnet-20", width=2**31 - 1), 28),
        (ModelPlan(name="lstm", width=10**6), 28),
        (ModelPlan(name="lenet-5"), 10**6),
    ],
)
def test_a_net_that_does_not_fit_into_memory_is_not_built(plan, image_size):
    with pytest.raises(ValueError, match=rf"Training a {plan.name} of .* weights takes at least"):
        build_model(plan, image_size)


def test_images_that_do_not_fit_into_memory_are_not_padded():
    data = load_dataset("digits")
    with pytest.raises(ValueError, match=r"1297 images of 100000 x 100000 takes at least 96,634\.0 GiB"):
        split_data(data, DataPlan(name="digits", image_size=100_000), 0, "cpu")


@pytest.mark.parametrize("change", ['[data]\nname = "digits"\nimage_size = 100000', '[data]\nname = "digits"'])
def test_a_plan_too_large_is_one_line_and_claims_no_folder(capsys, tmp_path, change):
    hidden = "[5]" if "image_size" in change else "[1000000000, 1000000000]"
    file = tmp_path / "plan.toml"
    file.write_text(f'[model]\nname = "mlp"\nhidden = {hidden}\n{change}\n[recipe]\n')
    status, out, err = run(capsys, "imp", "run", file, "--out", tmp_path / "run")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "takes at least" in err
    assert not (tmp_path / "run").exists()


def test_memory_is_that_of_the_container_where_it_has_a_limit(monkeypatch, tmp_path):
    installed = memory()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(_memory, "CONTROL_GROUP", limit)
    without = memory()
    limit.write_text("max\n")
    assert memory() == without >= installed
    limit.write_text("1048576\n")
    assert memory() == 2**20
    with pytest.raises(ValueError, match=r"^That takes at least 1\.0 GiB of memory, more than half of the 0\.0 GiB\.$"):
        check_memory("That", 2**30)
