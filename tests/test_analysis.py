"""Reports: what they hold is what was computed, and what is missing has its reason."""

import json
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch

from topobounds import architecture, compression_report, layer_report, overlap_report, simulate_overlap, table1
from topobounds.analysis.overlap import certified_digits
from topobounds.layers import Conv, Dense, Recurrent
from topobounds.theory.enclosure import Enclosure
from topobounds.topology.convolution import critical_kernel_weights


def nulls(record, path=()):
    """Yield the places of a JSON record that are null, with the object that each lies in."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from nulls(value, (*path, name))
        elif value is None and name != "reason":
            yield (*path, name), record


# -- overlap -----------------------------------------------------------------------------------------------------------


def test_a_thin_support_says_which_k_was_simulated():
    report = overlap_report(784, 300, density=0.005, seed=1, trials=50)
    same = simulate_overlap(784, 300, density=0.005, seed=1, trials=50)
    assert report.monte_carlo.to_dict() == same.to_dict()
    assert (report.k, report.monte_carlo.k, report.cells) == (1083, None, 1176)
    record = json.loads(json.dumps(report.to_dict()))
    assert f"the alpha of its own support for k, {same.alpha:.1f} on average" in record["monte_carlo"]["reason"]
    rows = {name: (value, remark) for name, value, _, remark in report.rows}
    assert rows["simulated"][1].startswith(f"k is the alpha of each support, {same.alpha:.1f} on average. Standard")
    for name in ("star bound", "Boruvka bound", "certified", "limit"):
        assert "complete" in rows[name][1]


@pytest.mark.parametrize("options", [{}, {"density": 0.3}, {"density": 0.05}, {"k": 7}, {"trials": 1, "density": 0.05}])
def test_every_null_has_a_reason_beside_it(options):
    record = json.loads(json.dumps(overlap_report(30, 20, **{"trials": 9, "seed": 1} | options).to_dict()))
    missing = [(path, where) for path, where in nulls(record) if len(path) > 1]
    assert all(where["reason"] for _, where in missing), missing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"density": 0.1, "k": 61, "trials": 0},
            "^Argument 'k' must be at most 60, the number of cells of the support",
        ),
        ({"density": 1e-4, "trials": 0}, "^Argument 'density' must be at least .* one of the 600 cells"),
        ({"trials": 10**20}, "^Argument 'trials' must be at most 1000000000, not 1"),
        ({"trials": -1}, "^Argument 'trials' must be a non-negative integer, not -1"),
    ],
)
def test_bad_arguments_of_an_overlap_report(options, message):
    with pytest.raises(ValueError, match=message):
        overlap_report(30, 20, **options)


@pytest.mark.parametrize(
    ("ends", "digits"),
    [
        ((0.7996222, 0.7996224), "0.7996"),
        ((0.84496, 0.85554), "0.8449 to 0.8556"),
        ((0.8449, 0.8556), "0.8448 to 0.8557"),  # of these floats one is below, one above what is written
        ((0.5, 0.5), "0.5000"),
        ((0.79964, 0.79966), "0.7996 to 0.7997"),
        ((0.0, 1.0), "0.0000 to 1.0000"),
    ],
)
def test_digits_that_an_interval_certifies(ends, digits):
    assert certified_digits(Enclosure(*ends)) == digits
    if " to " in digits:
        lower, upper = map(Fraction, digits.split(" to "))
        assert lower <= Fraction(ends[0]) <= Fraction(ends[1]) <= upper


def test_what_is_called_certified_is():
    """At 20 x 20 the middle of the interval is 0.8502, and the truth 0.8479."""
    rows = {name: value for name, value, _, _ in overlap_report(20, 20, exact=True, trials=0).rows}
    low, high = map(float, rows["certified"].split(" to "))
    assert low <= rows["exact"] <= high
    assert f"{float(rows['exact']):.4f}" == "0.8479"


# -- compression -------------------------------------------------------------------------------------------------------


def test_a_network_whose_printed_row_errs_says_so():
    report = compression_report(architecture("vgg11", "cifar10"), trials=1, seed=0)
    printed = {(row.architecture, row.dataset, row.part): row for row in table1()}["vgg11", "cifar10", "FINAL"]
    assert (report.paper.ratio, report.corrected) == (printed.computed, printed.corrected)
    assert report.paper.reason.startswith("Erratum: printed without pooling, all activations 32x32.")
    assert "4.8470" in report.paper.reason
    record = report.to_dict()
    assert record["paper"]["corrected"] == float(printed.corrected)
    assert record["n_layers"] == 9
    (remark,) = (remark for name, *_, remark in report.rows if name == "toeplitz")
    assert remark == f"{report.toeplitz.components} components, summed over 9 layers"


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (("resnet20", "cifar10"), None),
        (("vgg11", "tiny-imagenet"), None),
        (("resnet18", "tiny-imagenet"), "Printed without the 3 1x1 projections."),
    ],
)
def test_a_network_whose_printed_row_is_right_is_not_corrected(network, reason):
    report = compression_report(architecture(*network), trials=1, seed=0)
    assert (report.corrected, report.paper.reason) == (None, reason)
    assert "corrected" not in report.to_dict()["paper"]


@pytest.mark.parametrize("layer", [Conv(2, 2, 3, 8), Conv(2, 2, 1, 8), Dense(3, 4), Recurrent(5)])
def test_every_null_of_a_compression_report_has_a_reason(layer):
    record = json.loads(json.dumps(compression_report([layer], trials=1, seed=0).to_dict()))
    assert all(where["reason"] for _, where in nulls(record))
    assert (record["paper"]["components"] is None) == isinstance(layer, Conv)


def test_kernels_and_dense_layers_together():
    report = compression_report([Conv(2, 3, 3, 8), (24, 10)], trials=3, seed=0)
    assert report.shared.weights == 2 * 3 * 3 + 240
    assert report.toeplitz.components == 2


@pytest.mark.parametrize("layers", [5, None, "ab", True, torch.tensor(3)])
def test_layers_are_a_sequence(layers):
    with pytest.raises(ValueError, match=r"^Argument 'layers' must be a sequence of layers, not "):
        compression_report(layers)


@pytest.mark.parametrize(("layers", "name"), [([], "layers"), ([3], "layer"), (torch.ones(2), "layer")])
def test_what_is_no_layer_is_refused(layers, name):
    with pytest.raises(ValueError, match=rf"^Argument '{name}' must be "):
        compression_report(layers)


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float16, ml_dtypes.float8_e4m3fn])
def test_the_critical_rank_of_a_kernel_of_any_type(dtype):
    """The absolute value of the int8 -128 is -128 in int8, and the largest of all weights."""
    conv = Conv(3, 4, 3, 6, padding=1)
    values = (
        np.random.default_rng(0)
        .integers(-128, 128, conv.weight_shape)
        .clip(*(0, 255) if dtype == np.uint8 else (-128, 127))
    )
    values.flat[5] = 0 if dtype == np.uint8 else -128
    kernel = values.astype(dtype)
    report = layer_report("conv", kernel, conv)
    critical = critical_kernel_weights(kernel, conv)
    order = np.argsort(-np.abs(kernel.astype(np.float64)).ravel(), kind="stable")
    places = np.empty(order.size, int)
    places[order] = np.arange(1, order.size + 1)
    assert report.critical_rank == places[critical.indices[: critical.n_critical]].max()
    assert report.critical_rank == layer_report("conv", kernel.astype(np.float64), conv).critical_rank


# -- notebooks ---------------------------------------------------------------------------------------------------------


def test_notebooks_show_tables():
    overlap = overlap_report(20, 20, density=0.5, seed=1, trials=20)._repr_html_()
    assert overlap.count("<tr>") == 1 + len(overlap_report(20, 20, density=0.5, seed=1, trials=20).rows)
    assert "Corollary 3.4, printed" in overlap
    compression = compression_report([Conv(2, 2, 3, 8)], seed=0)._repr_html_()
    assert all(f"<td>{name}</td>" in compression for name in ("paper", "toeplitz", "shared"))
    table = table1()._repr_html_()
    assert table.count("<tr>") == 19
    assert "<td>4.3914</td><td>4.3919</td><td>4.8470</td>" in table
