"""``topobounds compression``: by how much a layer can be pruned with its topology intact."""

from typing import TYPE_CHECKING, Any

import click

from topobounds._text import counted
from topobounds.cli.arguments import LARGEST, Count, Sizes, refuse_stray, required, spelling
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import console_on_stdout, decimals, new_table, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topobounds.analysis.compression import CompressionReport
    from topobounds.layers import Conv, Layer
    from topobounds.theory.table1 import Architecture


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds compression --dense 784 300",
        "topobounds compression --conv 64 128 --kernel 3x3 --input 16x16 --padding 1x1",
    ),
)
@click.option(
    "--dense", nargs=2, type=Count(1, LARGEST), metavar="M N", help="A dense layer of M inputs and N outputs."
)
@click.option("--recurrent", type=Count(1, LARGEST), metavar="L", help="A recurrent layer of L hidden units.")
@click.option(
    "--conv",
    nargs=2,
    type=Count(1, LARGEST),
    metavar="CIN COUT",
    help="A convolution; needs --kernel and --input.",
)
@click.option("--kernel", "kernel_size", type=Sizes(), help="Kernel size: 3, 3x3 or 3x3x3.")
@click.option("--input", "input_size", type=Sizes(), help="Input size, as many numbers as --kernel.")
@click.option("--stride", type=Sizes(), help="Stride.  [default: 1]")
@click.option("--padding", type=Sizes(), help="Zero padding.  [default: 0]")
@click.option("--dilation", type=Sizes(), help="Dilation.  [default: 1]")
@click.option("--groups", type=Count(1), help="Groups.  [default: 1]")
@click.option("--architecture", help="A network of Table 1: vgg11, resnet-20 or resnet-18.")
@click.option("--dataset", help="Its data set: cifar10, cifar100 or tiny-imagenet.")
@click.option("--trials", type=Count(1), default=20, show_default=True, help="Random kernels, for 'shared'.")
@click.option("--seed", type=Count(0), help="Seed of the random kernels.  [default: drawn, and shown]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def compression(
    dense: tuple[int, int] | None,
    recurrent: int | None,
    conv: tuple[int, int] | None,
    architecture: str | None,
    dataset: str | None,
    trials: int,
    seed: int | None,
    as_json: bool,
    **geometry: Any,
) -> None:
    """Tell by how much a layer can be pruned with its zeroth-order topology intact.

    Three conventions, which for convolutions are three different graphs: paper (the printed closed form: one channel,
    padded input), toeplitz (every real input and output neuron, all channels) and shared (stored kernel weights, each
    shared by many edges; the mean over random normal kernels).
    """
    from topobounds.analysis.compression import compression_report

    layers = _chosen_layers(dense, recurrent, conv, architecture, dataset, geometry)
    with progress_bar(counted(trials, "random kernel"), shown=architecture is not None or conv is not None) as advance:
        report = compression_report(layers, trials=trials, seed=seed, progress=advance)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_compression(report)


def _chosen_layers(
    dense: tuple[int, int] | None,
    recurrent: int | None,
    conv: tuple[int, int] | None,
    network: str | None,
    dataset: str | None,
    geometry: dict[str, Any],
) -> "Sequence[Layer] | Architecture":
    """Return the one layer that the options name, or the network of Table 1."""
    from topobounds.layers import Dense, Recurrent
    from topobounds.theory.table1 import architecture

    kinds = {"--dense": dense, "--recurrent": recurrent, "--conv": conv, "--architecture": network}
    named = [kind for kind, value in kinds.items() if value is not None]
    typed = [name for name, value in geometry.items() if value is not None]
    if not named and typed:
        raise click.UsageError(
            f"{spelling(typed[0])} goes with --conv, which is missing: give the channels too, as in --conv 64 128."
        )
    if len(named) != 1:
        given = ", ".join(named) or "none"
        raise click.UsageError(f"Give exactly one of --dense, --recurrent, --conv and --architecture, not {given}.")
    refuse_stray(typed if conv is None else [], "--conv")
    refuse_stray(["dataset"] if network is None and dataset is not None else [], "--architecture")
    if network is not None:
        return architecture(network, required("dataset", dataset, "--architecture"))
    if conv is not None:
        return [_conv(conv, **geometry)]
    return [Dense(*dense) if dense is not None else Recurrent(recurrent)]  # type: ignore[arg-type]


def _conv(channels: tuple[int, int], kernel_size: Any, input_size: Any, **geometry: Any) -> "Conv":
    from topobounds.layers import Conv

    sizes = (required("kernel_size", kernel_size, "--conv"), required("input_size", input_size, "--conv"))
    _check_as_many(kernel_size, input_size)
    others: dict[str, Any] = {name: _plain(size) for name, size in geometry.items() if size is not None}
    return Conv(*channels, *sizes, **others)


def _check_as_many(kernel_size: tuple[int, ...], input_size: tuple[int, ...]) -> None:
    """Refuse sizes of kernel and input of unlike lengths; 3 is no 3x3, but a kernel along one dimension."""
    if len(kernel_size) == len(input_size):
        return
    kernel, input_ = ("x".join(map(str, size)) for size in (kernel_size, input_size))
    problem = f"--kernel {kernel} and --input {input_} have unlike numbers of dimensions"
    for option, size, other in (("--kernel", kernel_size, input_size), ("--input", input_size, kernel_size)):
        if len(size) == 1:
            raise click.UsageError(f"{problem}: give {option} {'x'.join(map(str, size * len(other)))}.")
    raise click.UsageError(f"{problem}: give as many numbers for each, as in --kernel 3x3 --input 16x16.")


def _plain(size: tuple[int, ...] | int) -> tuple[int, ...] | int:
    """Return one size as a number, which stands for every dimension."""
    return size[0] if isinstance(size, tuple) and len(size) == 1 else size


def _print_compression(report: "CompressionReport") -> None:
    table = new_table("convention", "weights", "kept", "ratio", "remark")
    for name, *counts, ratio, remark in report.rows:
        table.add_row(name, *("-" if count is None else f"{count:,}" for count in counts), decimals(ratio), remark)
    print_table(console_on_stdout(), table)
