"""``topobounds compare``: what of one checkpoint's topology is alive in another."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from topobounds.cli.arguments import Count, Name, Sizes, output_file
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import (
    console_on_stdout,
    decimals,
    new_table,
    print_json,
    print_line,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from topobounds.analysis.comparison import Comparison


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
    print_line(f"a: {found.a}")
    print_line(f"b: {found.b}")
    print_line(found.summary.text)
    table = new_table(
        "layer",
        "density a",
        "b",
        "kept",
        "in common",
        "by chance",
        "silent",
        "overlap a",
        "b",
        "by chance",
        "bottleneck",
    )
    for layer in found.layers:
        silent = None if layer.silent_inputs is None else layer.silent_inputs + (layer.silent_outputs or 0)
        table.add_row(
            layer.name,
            *map(decimals, (layer.density_a, layer.density_b, layer.forest_kept, layer.forest_in_common)),
            decimals(layer.forest_in_common_expected),
            "-" if silent is None else str(silent),
            *map(decimals, (layer.overlap_a, layer.overlap_b, layer.overlap_expected, layer.bottleneck)),
        )
    if found.layers:
        print_table(console_on_stdout(), table)
    for layer in found.layers:
        if layer.forest_kept is None:
            print_line(f"not compared: {layer.name}: {layer.reason}")
    for side, only in (("a", found.only_in_a), ("b", found.only_in_b)):
        for name, reason in only.items():
            print_line(f"only in {side}: {name}. {reason}")
