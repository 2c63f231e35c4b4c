"""``topobounds compare``: what of one checkpoint's topology is alive in another."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from topobounds.cli.arguments import Count, Name, Sizes, output_file
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, decimals, print_json, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from topobounds.analysis.comparison import Comparison, LayerComparison


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds compare model.safetensors pruned.safetensors",
        "topobounds compare run/replicate-0.level-00 run/replicate-0.level-05 --json",
    ),
)
@click.argument("a")
@click.argument("b")
@click.option("--geometry", metavar="TOML", type=Name(), help="What the tensors are, where that is told wrong.")
@click.option("--input", "input_size", type=Sizes(), help="What goes in, as 3x32x32.  [default: maps of 8x8]")
@click.option("--trials", type=Count(0), help="Random orders of a layer, where they are drawn.  [default: 20 to 200]")
@click.option("--seed", type=Count(0), help="Seed of what is drawn.  [default: drawn, and shown]")
@click.option("--html", metavar="FILE", type=Name(), help="Write a page about the two.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def compare(
    a: str,
    b: str,
    geometry: Path | None,
    input_size: tuple[int, ...] | None,
    trials: int | None,
    seed: int | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare the checkpoints A and B layer by layer: how much of what carries A's topology is alive in B.

    A and B are files, folders, levels of a run or URLs, as for analyze. Layers are the same if name and shape are.
    """
    if html is not None:
        output_file("--html", html)
        from topobounds.report.page import template

        template()  # before anything is read, since jinja2 may be missing
    from topobounds.analysis import comparison

    with progress_bar("headers") as advance:
        found = comparison.compare(
            a, b, geometry=geometry, input_size=input_size, trials=trials, seed=seed, progress=advance
        )
    if html is not None:
        from topobounds.report import write_html

        write_html(found, html)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_comparison(found)


def _print_comparison(found: "Comparison") -> None:
    console = console_on_stdout()
    console.print(f"a: {found.a}")
    console.print(f"b: {found.b}")
    console.print(found.summary.text)
    if found.layers:
        _print_layers(console, found.layers)
    for layer in found.layers:
        if layer.forest_kept is None:
            console.print(f"not compared: {layer.name}: {layer.reason}")
    for side, only in (("a", found.only_in_a), ("b", found.only_in_b)):
        for name, reason in only.items():
            console.print(f"only in {side}: {name}. {reason}")


def _print_layers(console: "Console", layers: "Sequence[LayerComparison]") -> None:
    """Print a row for each layer, with as many columns as the terminal has room for."""
    from topobounds.cli.layer_table import Title, print_rows

    name = Title("layer", lambda layer: layer.name, is_text=True)
    density_b = Title("density\nb", lambda layer: decimals(layer.density_b))
    kept = Title("kept", lambda layer: decimals(layer.forest_kept))
    in_common = (
        Title("in\ncommon", lambda layer: decimals(layer.forest_in_common)),
        Title("by\nchance", lambda layer: decimals(layer.forest_in_common_expected)),
    )
    silent = Title("silent", _silent)
    bottleneck = Title("bottle-\nneck", lambda layer: decimals(layer.bottleneck))
    densities = (
        Title("density\na", lambda layer: decimals(layer.density_a)),
        Title("b", lambda layer: decimals(layer.density_b)),
    )
    overlaps = (
        Title("overlap\na", lambda layer: decimals(layer.overlap_a)),
        Title("b", lambda layer: decimals(layer.overlap_b)),
        Title("by\nchance", lambda layer: decimals(layer.overlap_expected)),
    )
    full = (name, *densities, kept, *in_common, silent, *overlaps, bottleneck)
    some = (name, density_b, kept, *in_common, silent, bottleneck)
    few = (name, density_b, kept, bottleneck)
    print_rows(console, layers, full, some, few)


def _silent(layer: "LayerComparison") -> str:
    return "-" if layer.silent_inputs is None else str(layer.silent_inputs + (layer.silent_outputs or 0))
