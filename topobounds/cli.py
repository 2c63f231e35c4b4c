"""The command line. One function per command; the only file of the package that prints.

Numbers go to stdout (a table, or one JSON object with ``--json``), progress and errors to stderr. What a command
needs is imported inside it, so that ``topobounds --help`` loads no numerical library and a short answer comes at once.
"""

import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error, choice, density_fraction, integer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from rich.console import Console
    from rich.table import Table

    from topobounds.analysis import CompressionReport, OverlapReport
    from topobounds.layers import LayerShape
    from topobounds.theory.table1 import Architecture
    from topobounds.verification import Verdict

USAGE_ERROR = 2
INTERRUPTED = 130
LINE_WIDTH = 61
TABLE_WIDTH = 120  # where there is no terminal
LARGEST = 2**63 - 1  # number that a size may be; beyond, ratios leave the range of floating point


class Commands(click.Group):
    """The commands of this file, and those that other packages register as ``topobounds.commands`` entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted({*super().list_commands(ctx), *_plugins()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command of our own or, failing that, load the plug-in of that name."""
        command = super().get_command(ctx, name)
        if command is None and name in (plugins := _plugins()):
            command = plugins[name].load()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what is wrong with an argument is said of the option that the user typed."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            commands = command.commands.values() if isinstance(command, click.Group) else [command] if command else []
            said = _of_options(str(error), [param for each in commands for param in each.params])
            if said == str(error):
                raise
            raise ValueError(said) from None


def _of_options(message: str, params: Sequence[click.Parameter]) -> str:
    """Return an error with the options' names in place of those of Python's arguments."""
    names = {param.name: param.opts[0] for param in params if isinstance(param, click.Option)}
    arguments = re.compile(r"\bArguments? '\w+'(?: and '\w+')*")
    return arguments.sub(lambda found: re.sub(r"\w+(?=')", lambda name: names.get(name[0], name[0]), found[0]), message)


class Count(click.ParamType[Any]):
    """An integer within a range, refused in the house grammar."""

    name = "integer"

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return `value` as an integer from `low` to `high`."""
        try:
            return integer(_option(param), _as_number(int, value), self.low, self.high)
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None


class Density(click.ParamType[Any]):
    """A density in (0, 1]."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` as a number in (0, 1]."""
        try:
            return density_fraction(_option(param), _as_number(float, value))
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None


class Sizes(click.ParamType[Any]):
    """Sizes along one, two or three dimensions, as in ``3``, ``3x3`` or ``3x3x3``."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return `value` as a tuple of integers."""
        try:
            return tuple(integer("", int(size), -LARGEST, LARGEST) for size in str(value).lower().split("x"))
        except ValueError:
            rule = "sizes such as 3, 3x3 or 3x3x3"
            raise click.UsageError(str(argument_error(_option(param), rule, value)), ctx) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="topobounds", message="%(prog)s %(version)s")
def cli() -> None:
    """Zeroth-order topology of neural network layers, and what magnitude pruning keeps of it."""


@cli.command()
@click.option("--m", type=Count(1), required=True, help="Inputs of the layer.")
@click.option("--n", type=Count(1), required=True, help="Outputs of the layer.")
@click.option("--k", type=Count(0), help="Weights kept, at most m n.  [default: m + n - 1]")
@click.option("--density", type=Density(), help="Density of a uniformly random support.  [default: all cells]")
@click.option("--trials", type=Count(0), default=200, show_default=True, help="Simulated layers; 0 for none.")
@click.option("--seed", type=Count(0), help="Seed of the simulation.  [default: drawn, and shown]")
@click.option("--exact", is_flag=True, help="Also the exact fraction, for small or thin layers.")
@click.option("--latex", is_flag=True, help="The paper's formulas for this layer in LaTeX, instead of the table.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def overlap(latex: bool, as_json: bool, **asked: Any) -> None:
    """Tell how much of a layer's maximum spanning tree its K largest weights hold.

    For m x n weights with exchangeable magnitudes: the printed bounds, ours, a certified interval, the large-layer
    limit, and a simulation that draws no weights.
    """
    from topobounds.analysis import overlap_report

    work = asked["trials"] * (asked["m"] + asked["n"])
    with progress_bar(f"{asked['trials']} trials", shown=work > 2_000_000) as advance:
        report = overlap_report(**asked, progress=advance)
    formulas = {"latex": _latex(asked["m"], asked["n"], asked["density"], asked["k"])} if latex else {}
    if as_json:
        print_json(report.to_dict() | formulas)
    elif latex:
        click.echo(formulas["latex"])
    else:
        _print_overlap(report)


def _latex(m: int, n: int, density: float | None, k: int | None) -> str:
    from topobounds.theory.symbolic import overlap_latex

    return overlap_latex(m, n, density, k)


def _print_overlap(report: "OverlapReport") -> None:
    from rich.table import Table
    from rich.text import Text

    console = console_on_stdout()
    console.print(Text(_overlap_sentence(report)))
    for line in _number_line(_marks(report), console.width):
        console.print(Text(line))
    table = Table("", "value", "status", "", box=None, pad_edge=False, header_style="bold")
    for name, value, status, remark in report.rows:
        table.add_row(name, value if isinstance(value, str) else _decimals(value), status, remark)
    print_table(console, table)


def _overlap_sentence(report: "OverlapReport") -> str:
    """Say how much of which forest the simulated, or the certified, number is about."""
    if report.density == 1:
        kept = f"its {report.k} largest weights of {report.cells} hold {_found(report)} of its maximum spanning tree's "
        layer, share, tau = "layer", f"{kept}{report.alpha} edges on average", "eta_tau"
    else:
        layer, tau = f"layer on a random support of density {report.density:g}", "eta_tau of the complete layer"
        share = _share_on_a_support(report)
    return f"A {report.m} x {report.n} {layer}: {share} ({tau} = {float(report.eta_tau):.2f})."


def _share_on_a_support(report: "OverlapReport") -> str:
    """Return what is said of supports, which may be disconnected: the edges of their forests are random too."""
    estimate, found = report.monte_carlo, _found(report)
    k = report.k if estimate is None else estimate.k
    if k is not None and k <= report.cells:
        return (
            f"its {k} largest weights of {report.cells} hold {found} of its maximum spanning forest's edges on average"
        )
    edges = f"edges ({estimate.alpha:.1f} on average)" if estimate else "edges"
    kept = f"its largest weights, as many of the {report.cells} as its maximum spanning forest has {edges},"
    return f"{kept} hold {found} of that forest on average"


def _found(report: "OverlapReport") -> str:
    """Return the expected overlap as well as it is known: exact or certified for the complete layer, else simulated."""
    from topobounds.analysis import certified_digits

    if report.density < 1:
        return _decimals(report.monte_carlo.mean) if report.monte_carlo else "an unknown share"
    return certified_digits(report.enclosure) if report.exact is None else _decimals(report.exact)


def _marks(report: "OverlapReport") -> Iterator[tuple[str, Sequence[float], str]]:
    """Yield a letter for each value that is known, where it lies, and what it is; an interval lies at both its ends."""
    yield "T", _numbers(report.theorem_3_3.value), "Theorem 3.3 (printed)"
    if report.corollary_3_4:
        yield "C", _numbers(report.corollary_3_4.value), "Corollary 3.4 (printed, false)"
    yield "s", [report.star_bound], "star bound"
    yield "b", [report.boruvka_bound], "Boruvka bound"
    yield "c", [report.enclosure.lower, report.enclosure.upper], "certified"
    if report.monte_carlo:
        yield "o", [report.monte_carlo.mean], "simulated"


def _numbers(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _number_line(marks: Iterable[tuple[str, Sequence[float], str]], width: int) -> Iterator[str]:
    """Yield a line from 0 to 1 with a letter at each value, below it those whose places were taken, and the legend."""
    lines, legend = [["-"] * LINE_WIDTH], []
    for mark, values, label in marks:
        for place in {round(value * (LINE_WIDTH - 1)) for value in values}:
            if all(line[place] not in "- " for line in lines):
                lines.append([" "] * LINE_WIDTH)
            next(line for line in lines if line[place] in "- ")[place] = mark
        if values:
            legend.append(f"{mark} {label}".replace(" ", "\0"))
    yield f"0 |{''.join(lines[0])}| 1"
    for line in lines[1:]:
        yield f"   {''.join(line)}".rstrip()
    indent = " " * 4
    for row in textwrap.wrap(
        "   ".join(legend), width, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    ):
        yield row.replace("\0", " ")


@cli.command()
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
@click.option("--architecture", help="A network of Table 1: vgg11, resnet20 or resnet18.")
@click.option("--dataset", help="Its data set: cifar10, cifar100 or tiny-imagenet.")
@click.option("--trials", type=Count(1), default=20, show_default=True, help="Random kernels, for 'shared'.")
@click.option("--seed", type=Count(0), help="Seed of the random kernels.  [default: drawn, and shown]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def compression(trials: int, seed: int | None, as_json: bool, **what: Any) -> None:
    """Tell by how much a layer can be pruned with its zeroth-order topology intact.

    Three conventions, which for convolutions are three different graphs: paper (the printed closed form: one channel,
    padded input), toeplitz (every real input and output neuron, all channels) and shared (stored kernel weights, each
    shared by many edges; the mean over random normal kernels).
    """
    from topobounds.analysis import compression_report

    layers = _layers_asked_for(what)
    with progress_bar(f"{trials} random kernels", shown=what["architecture"] is not None) as advance:
        report = compression_report(layers, trials=trials, seed=seed, progress=advance)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_compression(report)


def _layers_asked_for(what: dict[str, Any]) -> "Sequence[LayerShape] | Architecture":
    """Return the one layer asked for, or the network of Table 1."""
    from topobounds.layers import Dense, Recurrent
    from topobounds.theory.table1 import architecture

    kinds = [kind for kind in ("dense", "recurrent", "conv", "architecture") if what[kind] is not None]
    if len(kinds) != 1:
        given = ", ".join(f"--{kind}" for kind in kinds) or "none"
        raise click.UsageError(f"Give exactly one of --dense, --recurrent, --conv and --architecture, not {given}.")
    kind = kinds[0]
    geometry = ("kernel_size", "input_size", "stride", "padding", "dilation", "groups")
    _refuse_stray([name for name in geometry if kind != "conv" and what[name] is not None], "--conv")
    _refuse_stray(["dataset"] if kind != "architecture" and what["dataset"] is not None else [], "--architecture")
    if kind == "architecture":
        return architecture(what["architecture"], _required(what, "dataset", "--architecture"))
    if kind == "conv":
        return [_conv(what)]
    return [Dense(*what["dense"]) if kind == "dense" else Recurrent(what["recurrent"])]


def _conv(what: dict[str, Any]) -> "LayerShape":
    from topobounds.layers import Conv

    kernel, input_size = (_required(what, name, "--conv") for name in ("kernel_size", "input_size"))
    stride, dilation, groups = (_or(what[name], 1) for name in ("stride", "dilation", "groups"))
    channels_in, channels_out = what["conv"]
    return Conv(channels_in, channels_out, kernel, input_size, stride, _or(what["padding"], 0), dilation, groups)


def _or(given: Any, default: int) -> Any:
    """Return what was given, or the default; one size as a number, which stands for every dimension."""
    if given is None:
        return default
    return given[0] if isinstance(given, tuple) and len(given) == 1 else given


def _required(what: dict[str, Any], name: str, by: str) -> Any:
    if what[name] is None:
        raise click.UsageError(f"{by} needs {_spelt(name)}.")
    return what[name]


def _refuse_stray(names: list[str], home: str) -> None:
    if names:
        raise click.UsageError(f"{_spelt(names[0])} goes with {home}.")


def _spelt(name: str) -> str:
    return "--" + name.removesuffix("_size").replace("_", "-")


def _print_compression(report: "CompressionReport") -> None:
    from rich.table import Table

    table = Table("convention", "weights", "kept", "ratio", "remark", box=None, pad_edge=False, header_style="bold")
    for name, *counts, ratio, remark in report.rows:
        table.add_row(name, *("-" if count is None else f"{count:,}" for count in counts), _decimals(ratio), remark)
    print_table(console_on_stdout(), table)


@cli.command()
@click.argument("file", required=False)
@click.option("--m", type=Count(1), help="Inputs of the layers to be drawn.")
@click.option("--n", type=Count(1), help="Outputs of the layers to be drawn.")
@click.option("--k", type=Count(0), help="Weights kept, at most m n.  [default: alpha]")
@click.option("--density", type=Density(), help="Density of the support.  [default: all cells]")
@click.option("--support", metavar="KIND", help="Where the weights are: uniform, star or block.  [default: uniform]")
@click.option(
    "--distribution",
    metavar="LAW",
    help="none: supports and orders only; normal, uniform, cauchy: draw weights and run Kruskal on them; shuffled: "
    "those of FILE at random places.  [default: none; of FILE: as given]",
)
@click.option("--tensor", metavar="NAME", help="A matrix of FILE.  [default: all]")
@click.option("--claim", "claims", multiple=True, metavar="ID", help="A claim; may be repeated.  [default: all]")
@click.option("--trials", type=Count(1), help="Most samples of a claim.  [default: what takes seconds]")
@click.option("--confidence", type=float, help="Confidence of each verdict.  [default: 0.999]")
@click.option("--tolerance", type=float, help="Slack of a bound when the trials are spent.  [default: 0.005]")
@click.option("--seed", type=Count(0), help="Seed of all that is drawn.  [default: drawn, and shown]")
@click.option("--strict", is_flag=True, help="Exit 1 if a claim is violated.")
@click.option("--witness", metavar="JSON", help="Write what shows the violations again to this file.")
@click.option("--replay", metavar="JSON", help="Show the violations of a witness file again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def verify(strict: bool, witness: str | None, as_json: bool, **what: Any) -> int:
    """Put the claims of the paper, and ours, to random layers or to the matrices in FILE (.npy, .npz, .safetensors).

    Samples are drawn until a claim is decided or the trials are spent: it holds, is violated or stays undecided. The
    matrices of FILE are put to the claims as if their weights were exchangeable; those that are not break some.
    """
    if witness is not None and (not Path(witness).name or not Path(witness).parent.is_dir() or Path(witness).is_dir()):
        raise argument_error("--witness", "the name of a file in a folder that exists", witness)
    with progress_bar("claims") as advance:
        verdicts = _verdicts_asked_for(what, advance)
    checks = [verdict.to_dict() for verdict in verdicts]
    violated = [check["claim"] for check in checks if check["verdict"] == "violated"]
    if witness is not None:
        from topobounds.verification import write_witnesses

        write_witnesses(witness, verdicts)
    if as_json:
        print_json({"checks": checks})
    else:
        _print_checks(checks)
    return int(strict and bool(violated))


def _verdicts_asked_for(what: dict[str, Any], advance: Callable[..., None]) -> "list[Verdict]":
    given = {name: value for name, value in what.items() if value not in (None, ())}
    sources = {"--m": "m" in given or "n" in given, "FILE": "file" in given, "--replay": "replay" in given}
    if sum(sources.values()) != 1:
        named = " and ".join(source for source, is_given in sources.items() if is_given) or "none"
        raise click.UsageError(f"Give exactly one of --m with --n, FILE and --replay, not {named}.")
    (source,) = (source for source, is_given in sources.items() if is_given)
    homes = {"tensor": ["FILE"], "density": ["--m"], "support": ["--m"]}
    for name in given.keys() - {"m", "n", "file", "replay"}:
        if source not in homes.get(name, ["--m", "FILE"]):
            raise click.UsageError(f"{_spelt(name.removesuffix('s'))} does not go with {source}.")

    from topobounds.verification import CLAIMS, replay, verify, verify_file

    for name in what["claims"]:
        choice("--claim", name, tuple(CLAIMS))
    if source == "--replay":
        if not what["replay"]:
            raise argument_error("--replay", "the name of a file", what["replay"])
        return replay(what["replay"], advance)
    if source == "FILE":
        return verify_file(given.pop("file"), progress=advance, **given)
    for name, other in (("m", "--n"), ("n", "--m")):
        _required(what, name, other)
    return verify(progress=advance, **given)


def console_on_stdout(width: int | None = None) -> "Console":
    """Return a console on stdout; `width` is that of an output that is no terminal, whose own is a guess."""
    from rich.console import Console

    console = Console(highlight=False)
    if width is not None and not console.is_terminal:
        console.width = width
    return console


def print_table(console: "Console", table: "Table") -> None:
    """Print a table that cuts no word: where the console is too narrow for that, its rows are longer than a line."""
    for column in table.columns:
        column.min_width = max(map(len, f"{column.header} {' '.join(map(str, column.cells))}".split()), default=0)
    console.print(table, crop=False)


def _print_checks(checks: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = console_on_stdout(TABLE_WIDTH)
    for _, rows in groupby(checks, key=lambda check: check["tensor"]):
        group = list(rows)
        console.print(Text(_checks_sentence(group[0])))
        columns = ("claim", "put to", "bound", "estimate", "interval", "trials", "verdict")
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for check in group:
            place = f"density {check['density']:.4g}, {check['support']}"
            bound = f"{check['direction']} {_interval(check['bound'])}"
            found = _decimals(check["estimate"]), _interval(check["confidence_interval"]), str(check["trials"])
            table.add_row(check["claim"], place, bound, *found, check["verdict"])
        print_table(console, table)
        for line in _remarks(group):
            console.print(Text(line))
        violated = [check for check in group if check["witness"]]
        if violated:  # on one line, however long, so that it can be pasted
            console.print(Text(f"Again: {_command(violated)}"), soft_wrap=True)


def _checks_sentence(check: dict[str, Any]) -> str:
    of = f"{check['file']}, {check['tensor']}: " if check["file"] else ""
    terms = f"distribution {check['distribution']}, seed {check['seed']}, confidence {check['confidence']:g}"
    return f"{of}{check['m']} x {check['n']}, {terms}"


def _remarks(checks: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the reasons of what does not hold, each once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check["verdict"] != "holds":
            reasons.setdefault((check["verdict"], check["reason"]), []).append(check["claim"])
    for (verdict, reason), claims in reasons.items():
        yield f"{verdict.capitalize()}: {', '.join(claims)}. {reason}"


def _command(violated: list[dict[str, Any]]) -> str:
    """Return the command that shows these violations, of the same layers, again."""
    first = max(violated, key=lambda check: check["density"] < 1)
    options = {**first["witness"], "tensor": first["tensor"]}
    del options["claims"]
    if options["distribution"] == "given":
        del options["distribution"]
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for check in violated for word in ("--claim", check["claim"])]
    return shlex.join(["topobounds", "verify", *([first["file"]] if first["file"] else []), *words])


def _interval(value: float | list[float] | None) -> str:
    return f"[{value[0]:.4f}, {value[1]:.4f}]" if isinstance(value, list) else _decimals(value)


@contextmanager
def progress_bar(label: str, *, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yield a function (done, total, label) that moves a bar on stderr; without a terminal there it does nothing."""
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total, message=label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TimeRemainingColumn(compact=True), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total, message=label: bar.update(task, completed=done, total=total, description=message)


def print_json(record: dict[str, Any]) -> None:
    """Print one JSON object on stdout, numbers as numbers, never NaN."""
    click.echo(json.dumps(record, allow_nan=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process: errors are one line on stderr and exit status 2."""
    asked = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        status = cli.main(asked, prog_name="topobounds", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit()
    except (click.Abort, KeyboardInterrupt):
        _leave("Interrupted.", INTERRUPTED)
    except click.ClickException as error:
        _leave(f"Error: {error.format_message()}", USAGE_ERROR)
    except (ValueError, OSError, ArithmeticError, MemoryError, RecursionError, ImportError) as error:
        _leave(f"Error: {_said(error)}", USAGE_ERROR)
    sys.exit(status if isinstance(status, int) else 0)


def _said(error: Exception) -> str:
    """Return what is wrong: the file, where the system says no more than that, and never nothing."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    unsaid = "There is not enough memory." if isinstance(error, MemoryError) else type(error).__name__
    return str(error) or unsaid


def _leave(message: str, status: int) -> None:
    click.echo(" ".join(message.split()), err=True)
    sys.exit(status)


def _plugins() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {plugin.name: plugin for plugin in entry_points(group="topobounds.commands")}


def _option(param: click.Parameter | None) -> str:
    return param.opts[0] if param else "value"


def _as_number(kind: type, value: Any) -> Any:
    """Return `value` as a number of the kind, or as it is for the check to refuse."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        return value


def _decimals(value: float | Fraction | None, digits: int = 4) -> str:
    return "-" if value is None else f"{float(value):.{digits}f}"
