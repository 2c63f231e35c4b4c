"""Table 1: 18 printed numbers, 17 of them right."""

import itertools
from fractions import Fraction

import pytest

from topobounds.theory.compression import compression
from topobounds.theory.table1 import architecture, table1

ROWS = {(row.architecture, row.dataset, row.part): row for row in table1()}


PRINTED_BY_THE_PAPER = """
CONV: 4.2295 CONV: 4.1508
DENSE: 9.8273 DENSE: 8.7671
FINAL: 4.3914 FINAL: 4.1679
CONV: 4.2295 CONV: 4.1508
DENSE: 83.7971 DENSE: 39.2638
FINAL: 6.9239 FINAL: 4.4389
CONV: 4.2672 CONV: 4.3142
DENSE: 528.3911 DENSE: 144.0225
FINAL: 183.3624 FINAL: 6.13182
"""
"""Balwani & Krzyston, PMLR 196, 2022, Table 1: columns VGG11 and ResNet; CIFAR10, CIFAR100, Tiny-ImageNet."""


def test_every_number_is_as_the_paper_prints_it():
    words = PRINTED_BY_THE_PAPER.split()
    vgg11 = list(zip(words[0::4], words[1::4], strict=True))
    resnet = list(zip(words[2::4], words[3::4], strict=True))
    assert [(f"{row.part}:", row.printed) for row in table1()] == vgg11 + resnet


def test_computed_numbers_are_shown_to_the_last_printed_digit():
    last = table1()[-1]
    assert (last.decimals, f"{float(last.computed):.{last.decimals}f}") == (5, last.printed)
    assert "<td>6.13182</td>" in table1()._repr_html_().partition("<td>6.13182</td>")[2], "printed, and computed"


def test_resnets_convolutions_are_more_compressible_than_vggs_by_the_table_itself():
    tiny = [float(ROWS[name, "tiny-imagenet", "CONV"].printed) for name in ("vgg11", "resnet18")]
    cifar = [ROWS["vgg11", "cifar10", "CONV"].corrected, ROWS["resnet20", "cifar10", "CONV"].computed]
    assert tiny == sorted(tiny)
    assert cifar == sorted(cifar)


def test_17_of_18_numbers_follow_from_the_convention():
    assert len(ROWS) == 18
    assert [key for key, row in ROWS.items() if not row.matches] == [("vgg11", "cifar10", "FINAL")]


def test_the_misprint():
    row = ROWS["vgg11", "cifar10", "FINAL"]
    assert row.printed == "4.3914"
    assert row.computed == Fraction(78848, 17953)
    assert row.note.startswith("Misprint: the table's own convention gives 4.3919.")


@pytest.mark.parametrize(
    ("dataset", "part", "corrected"),
    [
        ("cifar10", "CONV", 4.0422),
        ("cifar100", "CONV", 4.0422),
        ("cifar10", "FINAL", 4.8470),
        ("cifar100", "FINAL", 16.7489),
    ],
)
def test_vgg11_on_cifar_with_pooling(dataset, part, corrected):
    row = ROWS["vgg11", dataset, part]
    assert float(row.corrected) == pytest.approx(corrected, abs=5e-5)
    assert "without pooling" in row.note


def test_what_differs_is_corrected_and_nothing_else():
    corrected = [row for row in table1() if row.corrected is not None]
    assert [(row.architecture, row.dataset, row.part) for row in corrected] == [
        ("vgg11", dataset, part) for dataset in ("cifar10", "cifar100") for part in ("CONV", "FINAL")
    ]
    assert all(row.note == "" for row in table1() if row.matches and row.corrected is None)


@pytest.mark.parametrize(
    ("name", "dataset", "sides"),
    [
        ("vgg11", "cifar10", [32] * 8),
        ("vgg11", "tiny-imagenet", [64, 32, 16, 16, 8, 8, 4, 4]),
        ("resnet20", "cifar100", [32] * 7 + [16] * 6 + [8] * 6),
        ("resnet18", "tiny-imagenet", [64] * 5 + [32] * 4 + [16] * 4 + [8] * 4),
    ],
)
def test_the_sizes_the_printed_table_uses(name, dataset, sides):
    assert [layer.printed_side for layer in architecture(name, dataset).convs if layer.printed_side] == sides


@pytest.mark.parametrize(
    ("name", "dataset", "weights"),
    [
        ("vgg11", "cifar10", 9217728 + 5120),
        ("vgg11", "tiny-imagenet", 9217728 + 2048 * 1024 + 1024 * 1024 + 1024 * 200),
        ("resnet20", "cifar10", 267696 + 640),
        ("resnet18", "tiny-imagenet", 11159232 + 512 * 200),
    ],
)
def test_the_architectures_have_the_weights_of_the_networks(name, dataset, weights):
    """Convolution and dense weights; published totals less biases and batch norms.

    VGG11: 9,220,480 in the convolutions with 2,752 biases.
    ResNet-20: 269,722 = 267,696 + 1,376 of batch norms + 650 dense.
    ResNet-18: 11,689,512 with a 7x7 stem and 1000 classes = 11,166,912 + 9,600 of batch norms + 513,000.
    """
    network = architecture(name, dataset)
    assert sum(layer.conv.n_weights for layer in network.convs) + sum(d.n_weights for d in network.dense) == weights


@pytest.mark.parametrize("key", sorted({(row.architecture, row.dataset) for row in table1()}))
def test_layers_fit_together(key):
    network = architecture(*key)
    main = [layer.conv for layer in network.convs if layer.printed_side]
    for before, after in itertools.pairwise(main):
        assert before.out_channels == after.in_channels
        assert before.output_size[0] in (after.input_size[0], 2 * after.input_size[0])  # pooled or not
    assert network.dense[0].m % main[-1].out_channels == 0
    assert compression([layer.conv for layer in network.convs], "toeplitz").ratio > 1


def test_the_projections_are_there_and_not_counted():
    network = architecture("resnet18", "tiny-imagenet")
    projections = [layer for layer in network.convs if layer.printed_side is None]
    assert [(p.conv.kernel_size, p.conv.stride, p.conv.output_size[0]) for p in projections] == [
        ((1, 1), (2, 2), side) for side in (32, 16, 8)
    ]
    assert len(network.pooled_convs) == len(network.printed_convs) == 17


@pytest.mark.parametrize(("name", "dataset"), [("vgg16", "cifar10"), ("resnet18", "cifar10"), ("vgg11", "mnist")])
def test_unknown_architecture(name, dataset):
    with pytest.raises(
        ValueError, match=f"Argument 'architecture' must be .*resnet20/cifar100.* not '{name}/{dataset}'"
    ):
        architecture(name, dataset)
