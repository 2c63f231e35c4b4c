"""``topobounds collapse``: what global magnitude pruning leaves of an untrained network, and where it collapses."""

from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error
from topobounds._text import counted
from topobounds.cli.arguments import Density, Widths, refuse_stray, required
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, decimals, new_table, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topobounds.theory.global_pruning import GlobalPruning
    from topobounds.theory.table1 import Architecture


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds collapse --mlp 784-300-100-10",
        "topobounds collapse --architecture vgg16 --dataset cifar100 --density 0.01",
    ),
)
@click.option("--mlp", type=Widths(), metavar="WIDTHS", help="Dense layers in a row: 784-300-100-10.")
@click.option("--architecture", help="A network without shortcuts: vgg11 or vgg16.")
@click.option("--dataset", help="Its data set: cifar10, cifar100 or tiny-imagenet.")
@click.option("--density", type=Density(), help="Share of all weights that is kept.  [default: where it collapses]")
@click.option(
    "--law",
    default="torch",
    show_default=True,
    help="Of the weights: torch, he, he_uniform, glorot, glorot_normal or exchangeable.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def collapse(
    mlp: tuple[int, ...] | None,
    architecture: str | None,
    dataset: str | None,
    density: float | None,
    law: str,
    as_json: bool,
) -> None:
    """Tell at which density global magnitude pruning breaks an untrained network, and what each layer keeps.

    All weights are ranked together, those of a layer spread as the law says. Below the collapse density some layer is
    expected to keep less than one weight, or less than one of its outputs is joined to the inputs. Bounds and limits
    for wide layers; nothing is drawn.
    """
    layers = _chosen_layers(mlp, architecture, dataset)
    pruned = _pruned(layers, density, law)
    if as_json:
        print_json(_as_dict(pruned))
    else:
        _print_collapse(pruned)


def _chosen_layers(
    mlp: tuple[int, ...] | None, network: str | None, dataset: str | None
) -> "Sequence[int] | Architecture":
    """Return the widths, or the network, that the options name."""
    from topobounds.theory.table1 import architecture

    if (mlp is None) == (network is None):
        named = "none" if mlp is None else "both"
        raise click.UsageError(f"Give exactly one of --mlp and --architecture, not {named}.")
    if network is None:
        refuse_stray(["dataset"] if dataset is not None else [], "--architecture")
        return mlp or ()
    chosen = architecture(network, required("dataset", dataset, "--architecture"))
    if chosen.has_skips:
        raise argument_error("--architecture", "a network whose layers are in a row, without shortcuts", network)
    return chosen


def _pruned(layers: "Sequence[int] | Architecture", density: float | None, law: Any) -> "GlobalPruning":
    """Return what is left at a density, or where the network collapses."""
    from topobounds.theory.global_pruning import global_pruning

    if density is not None:
        return global_pruning(layers, density, law)
    whole = global_pruning(layers, 1.0, law)
    return global_pruning(layers, max(whole.collapse_density, 1 / whole.kept), law)


def _as_dict(pruned: "GlobalPruning") -> dict[str, Any]:
    record = pruned.to_dict()
    layers = [{name: value for name, value in layer.items() if name in _KEYS} for layer in record["layers"]]
    named = {name: record[name] for name in ("law", "density", "collapse_density")}
    return {**named, "overlap_expected": pruned.overlap, "status": pruned.status, "layers": layers}


_KEYS = ("name", "weights", "kept", "density", "reached", "effective")


def _print_collapse(pruned: "GlobalPruning") -> None:
    console = console_on_stdout()
    weights = sum(layer.weights for layer in pruned.layers)
    console.print(
        f"Weights drawn by the law {pruned.law}: global pruning collapses the network below the density "
        f"{pruned.collapse_density:.4g}."
    )
    console.print(
        f"At the density {pruned.density:.4g}, {pruned.kept:,} of {counted(weights, 'weight', form=',')}, it keeps "
        f"{decimals(pruned.overlap)} of its maximum spanning forest ({pruned.status})."
    )
    table = new_table("layer", *_KEYS[1:])
    for layer in pruned.layers:
        counts = f"{layer.weights:,}", f"{layer.kept:,.1f}", f"{layer.density:.4g}"
        table.add_row(layer.name, *counts, f"{layer.reached:,.1f}", f"{layer.effective:,.1f}")
    print_table(console, table)
