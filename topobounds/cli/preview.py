"""``topobounds preview``: what the shapes of a checkpoint imply, from its headers."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from topobounds._text import counted
from topobounds.cli.arguments import Density, Name, Sizes
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, decimals, new_table, print_json, print_line, print_table

if TYPE_CHECKING:
    from topobounds.analysis.preview import Preview


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds preview model.safetensors --density 0.1",
        "topobounds preview https://example.org/model.safetensors --json",
    ),
)
@click.argument("path")
@click.option("--density", type=Density(), help="Share of each layer's weights that pruning would keep.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only tensors with names like this; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No tensors with names like this; may be repeated.")
@click.option("--geometry", metavar="TOML", type=Name(), help="What the tensors are, where that is told wrong.")
@click.option("--input", "input_size", type=Sizes(), help="What goes in, as 3x32x32.  [default: maps of 8x8]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def preview(
    path: str,
    density: float | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    geometry: Path | None,
    input_size: tuple[int, ...] | None,
    as_json: bool,
) -> None:
    """Tell what the shapes of the layers in PATH imply for pruning; only headers are read, no weight.

    It is about weights in random order, as before training. Trained weights differ: measure them with analyze.
    """
    from topobounds.analysis import preview as previews

    found = previews.preview(path, density, include=include, exclude=exclude, geometry=geometry, input_size=input_size)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_preview(found)


def _print_preview(found: "Preview") -> None:
    summary = found.summary
    print_line(
        f"{found.source['path']}: {found.source['format']}, {found.source['bytes'] / 1e6:,.2f} MB of weights, none read"
    )
    print_line(
        f"{counted(summary.layers, 'layer', form=',')} of {counted(summary.weights, 'weight', form=',')}; at least "
        f"{summary.must_keep:,} carry the topology; {counted(len(found.left_out), 'tensor', form=',')} left out."
    )
    if found.density is not None:
        impossible = counted(summary.impossible, "layer cannot keep its", "layers cannot keep their", form=",")
        print_line(
            f"At density {found.density:g}: {impossible} topology; pruned globally before training, "
            f"{summary.below_if_global:,} would lose it."
        )
    table = new_table(
        "layer", "shape", "weights", "must keep", "keep", "overlap by chance", "safe by chance", "swaps", "if global"
    )
    for layer in found.layers:
        table.add_row(
            layer.name,
            "x".join(map(str, layer.shape)),
            f"{layer.weights:,}",
            # What chance gives is told of all but kernels, of which this is a lower bound.
            f">={layer.must_keep:,}" if layer.overlap_expected is None and layer.must_keep else _count(layer.must_keep),
            _count(layer.keep),
            decimals(layer.overlap_expected),
            decimals(layer.safe_density_expected),
            decimals(layer.swaps_expected, 1),
            "-" if layer.kept_if_global is None else f"{layer.kept_if_global:,.0f}",
        )
    print_table(console_on_stdout(), table)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
