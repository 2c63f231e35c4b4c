"""``topobounds prune``: a file of weights pruned, its topology kept, and written anew."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error
from topobounds._text import counted, grouped_reasons
from topobounds.cli.arguments import Count, Density, Name, Sizes, output_file
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import (
    console_on_stdout,
    decimals,
    print_json,
    progress_bar,
)
from topobounds.cli.scheduler import executor_of

if TYPE_CHECKING:
    from rich.console import Console

    from topobounds.pruning import PrunedLayer, PruningReport

_LARGER = "A zero takes as much room as any weight: "
_SMALLER = "smaller it gets packed (zstd, gzip), or stored sparse (sparse-bitmask of compressed-tensors, torch's CSR)."


class DensityNotPattern(Density):
    """A density in (0, 1]; a pattern such as 2:4 is refused by name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` as a number in (0, 1]."""
        from topobounds.pruning.checkpoints import check_pattern

        try:
            check_pattern("--density", value)
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None
        return super().convert(value, param, ctx)


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds prune model.safetensors pruned.safetensors --density 0.1",
        "topobounds prune model pruned --density 0.2 --allocate retention --dry-run",
    ),
)
@click.argument("source", type=Name())
@click.argument("target", type=Name(), required=False)
@click.option("--density", type=DensityNotPattern(), help="Weights to be left, over all weights of the layers.")
@click.option(
    "--method", metavar="NAME", default="t-imp", show_default=True, help="t-imp, magnitude, random or shuffled."
)
@click.option(
    "--scope", metavar="SCOPE", default="local", show_default=True, help="local; global: all layers ranked together."
)
@click.option(
    "--allocate",
    metavar="BUDGET",
    default="uniform",
    show_default=True,
    help="How the weights are shared out: uniform, safe, retention, or a file of sparsities, as --export writes it, "
    "which --density scales.",
)
@click.option(
    "--on-infeasible",
    metavar="WHAT",
    default="share",
    show_default=True,
    help="A layer that cannot be cut so far keeps what carries its topology: the others give up more (share), the "
    "file has more weights (clamp), or nothing is written (raise).",
)
@click.option("--include", metavar="GLOB", multiple=True, help="Only these tensors; may be repeated.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="Not these tensors; may be repeated.")
@click.option("--geometry", metavar="TOML", type=Name(), help="A file that says what tensors are.")
@click.option("--input", "input_size", type=Sizes(), help="Size of the map that convolutions read, as in 3x32x32.")
@click.option(
    "--scores",
    metavar="PATH",
    type=Name(),
    help="A file of importances, taken for the weights: what is said of topology is then of them.",
)
@click.option("--masks-only", is_flag=True, help="Write the masks alone, packed, to TARGET.")
@click.option("--dry-run", is_flag=True, help="Write no weights; show what each budget would leave.")
@click.option("--export", metavar="FILE", type=Name(), help="Write the sparsity of each layer, as JSON or YAML.")
@click.option("--html", metavar="FILE", type=Name(), help="Write a page about what pruning did.")
@click.option("--seed", type=Count(0), help="Seed of the methods random and shuffled.  [default: drawn, and shown]")
@click.option("--jobs", type=Count(1, 1024), help="Processes at the same time.  [default: this one alone]")
@click.option("--scheduler", metavar="ADDRESS", help="Do the work on the Dask cluster of this scheduler: tcp://...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def prune(
    source: Path,
    target: Path | None,
    density: float | None,
    method: str,
    scope: str,
    allocate: str,
    on_infeasible: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    geometry: Path | None,
    input_size: tuple[int, ...] | None,
    scores: Path | None,
    masks_only: bool,
    dry_run: bool,
    export: Path | None,
    html: Path | None,
    seed: int | None,
    jobs: int | None,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Prune the weights in SOURCE, and write TARGET: the same files with the pruned weights zero, and their masks.

    T-IMP keeps what carries the topology of each layer, and then the largest of the other weights. SOURCE is a file or
    folder of weights (safetensors, npz, npy, torch). What was broken off goes on when it is started again.
    """
    if target is None and not dry_run:
        raise click.UsageError("Missing argument 'TARGET'; only --dry-run needs none.")
    if density is None and allocate in ("uniform", "safe", "retention"):
        raise click.UsageError("Missing option '--density'; only with a file for --allocate it may be left out.")
    if export is not None and (not export.parent.is_dir() or export.is_dir()):
        raise argument_error("--export", "the name of a file in a folder that exists", str(export))

    if html is not None:
        output_file("--html", html)
        from topobounds.report.page import template

        template()  # before anything is pruned, since jinja2 may be missing
    from topobounds.pruning import prune_checkpoint
    from topobounds.pruning.sparsities import write_sparsities

    with executor_of(jobs, scheduler) as executor, progress_bar("pruning") as advance:
        report = prune_checkpoint(
            source,
            target or "",
            density=density,
            method=method,
            scope=scope,  # type: ignore[arg-type]  # checked there
            allocate=allocate,
            on_infeasible=on_infeasible,  # type: ignore[arg-type]
            include=include,
            exclude=exclude,
            geometry=geometry,
            input_size=input_size,
            scores=scores,
            masks_only=masks_only,
            dry_run=dry_run,
            seed=seed,
            executor=executor,
            progress=advance,
        )
    if export is not None:
        write_sparsities(export, report)
    if html is not None:
        from topobounds.report import write_html

        write_html(report, html)
    if as_json:
        print_json(_record(report, density))
    else:
        _print_report(report)


def _record(report: "PruningReport", density: float | None) -> dict[str, Any]:
    """Return what ``--json`` prints: the report, with the form of each tensor that was left out beside its reason."""
    record = report.to_dict()
    for name in ("left_alone", "forms", "preserved"):
        del record[name]
    record["left_out"] = []
    for name, why in report.left_out.items():
        shape, dtype = report.forms.get(name, (None, None))
        record["left_out"].append({"name": name, "shape": shape, "dtype": dtype, "reason": why})
    reason = None
    if report.target is None:
        reason = "nothing was written: a trial" if report.masks is None else "only the masks were written"
    return {**record, "density": density, "summary": report.summary, "reason": reason}


def _print_report(report: "PruningReport") -> None:
    console = console_on_stdout()
    if report.budgets:
        _print_budgets(console, report)
    _print_layers(console, report)
    summary = report.summary
    kept = sum(layer.preserved for layer in report.layers)
    keeping = counted(len(report.layers), "layer keeps", "layers keep")
    seed = "" if report.seed is None else f", seed {report.seed}"
    their = "its" if len(report.layers) == 1 else "their"
    diagrams = f"{their} diagrams" if report.scores is None else f"the diagrams of {their} scores in {report.scores}"
    console.print(
        f"{summary['kept']} of {counted(summary['weights'], 'weight')} kept, density {summary['density']:.6f} "
        f"({report.method}, {report.scope}, {report.allocate}{seed}); {kept} of {keeping} "
        f"{diagrams}, bit for bit."
    )
    if report.left_out:
        tensors = counted(len(report.left_out), "tensor is left as it is", "tensors are left as they are")
        reasons = report.left_out | dict.fromkeys(report.not_finite, "not finite")
        console.print(f"{tensors}: {grouped_reasons(reasons)}.")
    for name, reason in (report.not_finite | report.not_alike).items():
        console.print(f"Not pruned: '{name}', {reason}.")
    if report.target is not None:
        console.print(f"Written: {report.target}, masks {report.masks}.")
        before = "as before" if report.bytes == report.bytes_before else f"{report.bytes_before} before"
        console.print(f"The weights take {report.bytes} bytes, {before}. {_LARGER}{_SMALLER}")
    elif report.masks is not None:
        console.print(f"Written: {report.masks}, the masks alone.")
    else:
        console.print("No weights are written.")


def _print_layers(console: "Console", report: "PruningReport") -> None:
    """Print a row for each layer, with as many columns as the terminal has room for."""
    from topobounds.cli.layer_table import Title, print_rows

    name = Title("layer", lambda layer: layer.name, is_text=True)
    shape = Title("shape", lambda layer: "x".join(map(str, layer.shape)), is_text=True)
    kept = Title("kept", _kept)
    density = Title("density", lambda layer: f"{layer.density:.4f}")
    must_keep = Title("must\nkeep", lambda layer: str(layer.alpha))
    swaps = (
        Title("swaps", lambda layer: "-" if layer.swaps is None else str(layer.swaps)),
        Title("by\nchance", lambda layer: decimals(layer.swaps_expected, 1)),
    )
    lost = Title("lost", lambda layer: "-" if layer.squared_weight_lost is None else f"{layer.squared_weight_lost:.3g}")
    diagram = Title("diagram", lambda layer: "kept" if layer.preserved else "changed", is_text=True)
    full = (name, shape, kept, density, must_keep, *swaps, lost, diagram)
    some = (name, kept, density, must_keep, *swaps, diagram)
    few = (name, kept, must_keep, diagram)
    print_rows(console, report.layers, full, some, few)


def _kept(layer: "PrunedLayer") -> str:
    return str(layer.kept) + ("" if layer.asked in (None, layer.kept) else f" ({layer.asked} asked)")


def _print_budgets(console: "Console", report: "PruningReport") -> None:
    """Print what each allocation would leave of each layer."""
    from topobounds.cli.layer_table import Title, print_rows

    def density(kept: dict[str, int], layer: "PrunedLayer") -> str:
        return f"{kept[layer.name] / layer.weights:.4f}"

    name = Title("density of", lambda layer: layer.name, is_text=True)
    print_rows(
        console, report.layers, [name, *(Title(by, partial(density, kept)) for by, kept in report.budgets.items())]
    )
    console.print()
