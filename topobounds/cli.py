"""The command line. One function per command; the only file of the package that prints.

Numbers go to stdout (a table, or one JSON object with ``--json``), progress and errors to stderr. What a command
needs is imported inside it, so that ``topobounds --help`` loads no numerical library and a short answer comes at once.
"""

import json
import math
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error, choice, density_fraction, integer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from rich.console import Console
    from rich.table import Table

    from topobounds.layers import LayerShape
    from topobounds.verification import Verdict

USAGE_ERROR = 2
INTERRUPTED = 130
LINE_WIDTH = 61
TABLE_WIDTH = 120  # where there is no terminal


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


class Count(click.ParamType[Any]):
    """An integer within a range, refused in the house grammar."""

    name = "integer"

    def __init__(self, low: int) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return `value` as an integer of at least `low`."""
        try:
            return integer(_option(param), _as_number(int, value), self.low)
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
            return tuple(int(size) for size in str(value).lower().split("x"))
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
        report = overlap_report(**asked, progress=advance).to_dict()
    if latex:
        report["latex"] = _latex(asked["m"], asked["n"], asked["density"], asked["k"])
    if as_json:
        print_json(report)
    elif latex:
        click.echo(report["latex"])
    else:
        _print_overlap(report)


def _latex(m: int, n: int, density: float | None, k: int | None) -> str:
    from topobounds.theory.symbolic import overlap_latex

    return overlap_latex(m, n, density, k)


def _print_overlap(report: dict[str, Any]) -> None:
    from rich.text import Text

    console = console_on_stdout()
    console.print(Text(_overlap_sentence(report)))
    marks = [
        ("T", report["theorem_3_3"]["value"], "Theorem 3.3 (printed)"),
        ("C", (report["corollary_3_4"] or {}).get("value"), "Corollary 3.4 (printed, false)"),
        ("s", report["star_bound"], "star bound"),
        ("b", report["boruvka_bound"], "Boruvka bound"),
        ("o", (report["monte_carlo"] or {}).get("mean"), "simulated"),
        ("c", sum(report["enclosure"]) / 2, "certified"),
    ]
    for line in _number_line(
        [(mark, value, label) for mark, value, label in marks if value is not None], console.width
    ):
        console.print(Text(line))
    print_table(console, _overlap_table(report))


def _overlap_sentence(report: dict[str, Any]) -> str:
    m, n, k = report["m"], report["n"], report["k"]
    support, cells, edges = "", m * n, f"maximum spanning tree's {report['alpha']} edges"
    if report["density"] < 1:  # the support may be disconnected, and the edges of its forest are random too
        support = f" on a random support of density {report['density']:g}"
        cells, edges = round(report["density"] * cells), "maximum spanning forest's edges"
    return (
        f"A {m} x {n} layer{support}: its {min(k, cells)} largest weights of {cells} hold {_found(report)} of its "
        f"{edges} on average (eta_tau = {report['eta_tau']:.2f})."
    )


def _found(report: dict[str, Any]) -> str:
    """Return the expected overlap as well as it is known: certified for the complete layer, else simulated."""
    if report["density"] == 1:
        lower, upper = (f"{end:.4f}" for end in report["enclosure"])
        return lower if lower == upper else f"{lower} to {upper}"
    return _decimals((report["monte_carlo"] or {}).get("mean"))


def _overlap_table(report: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("", "value", "status", "", box=None, pad_edge=False, header_style="bold")
    for name, key in (("Theorem 3.3, printed", "theorem_3_3"), ("Corollary 3.4, printed", "corollary_3_4")):
        if claim := report[key]:
            table.add_row(name, _decimals(claim["value"]), claim["status"], claim["reason"])
    table.add_row("star bound", _decimals(report["star_bound"]), "proved", "One edge for every neuron of one side.")
    table.add_row(
        "Boruvka bound", _decimals(report["boruvka_bound"]), "proved", "The first round of Boruvka's algorithm."
    )
    lower, upper = report["enclosure"]
    interval = f"[{math.floor(lower * 1e7) / 1e7:.7f}, {math.ceil(upper * 1e7) / 1e7:.7f}]"
    table.add_row("certified", _decimals((lower + upper) / 2), "proved", f"In {interval}, for the complete layer.")
    if report["exact"]:
        table.add_row("exact", _decimals(float(Fraction(report["exact"]))), "proved", report["exact"])
    table.add_row("limit", _decimals(report["limit"]), "asymptotic", "Large layers of this shape.")
    if simulated := report["monte_carlo"]:
        known = f"Standard error {_decimals(simulated['standard_error'], 5)}, {simulated['trials']} trials, seed "
        table.add_row("simulated", _decimals(simulated["mean"]), "sampled", f"{known}{simulated['seed']}.")
    return table


def _number_line(marks: Sequence[tuple[str, float, str]], width: int) -> Iterator[str]:
    """Yield a line from 0 to 1 with a letter at each value (the last one wins a shared place), and its legend."""
    line = ["-"] * LINE_WIDTH
    for mark, value, _ in marks:
        line[round(value * (LINE_WIDTH - 1))] = mark
    yield f"0 |{''.join(line)}| 1"
    legend = "   ".join(f"{mark} {label}".replace(" ", "\0") for mark, _, label in marks)
    for row in textwrap.wrap(legend, width, initial_indent=" " * 4, subsequent_indent=" " * 4, break_long_words=False):
        yield row.replace("\0", " ")


@cli.command()
@click.option("--dense", nargs=2, type=Count(1), metavar="M N", help="A dense layer of M inputs and N outputs.")
@click.option("--recurrent", type=Count(1), metavar="L", help="A recurrent layer of L hidden units.")
@click.option("--conv", nargs=2, type=Count(1), metavar="CIN COUT", help="A convolution; needs --kernel and --input.")
@click.option("--kernel", type=Sizes(), help="Kernel size: 3, 3x3 or 3x3x3.")
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

    name, layers, printed = _layers_asked_for(what)
    with progress_bar(f"{trials} random kernels", shown=name == "network") as advance:
        report = compression_report(layers, printed, trials=trials, seed=seed, progress=advance)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_compression(report.to_dict())


def _layers_asked_for(what: dict[str, Any]) -> tuple[str, "Sequence[LayerShape]", "Sequence[LayerShape]"]:
    """Return the kind asked for, its layers, and the same layers as the printed convention counts them."""
    from topobounds.layers import Dense, Recurrent
    from topobounds.theory.table1 import architecture

    kinds = [kind for kind in ("dense", "recurrent", "conv", "architecture") if what[kind] is not None]
    if len(kinds) != 1:
        given = ", ".join(f"--{kind}" for kind in kinds) or "none"
        raise click.UsageError(f"Give exactly one of --dense, --recurrent, --conv and --architecture, not {given}.")
    kind = kinds[0]
    geometry = ("kernel", "input_size", "stride", "padding", "dilation", "groups")
    _refuse_stray([name for name in geometry if kind != "conv" and what[name] is not None], "--conv")
    _refuse_stray(["dataset"] if kind != "architecture" and what["dataset"] is not None else [], "--architecture")
    if kind == "architecture":
        network = architecture(what["architecture"], _required(what, "dataset", "--architecture"))
        return "network", network.layers, network.printed_layers
    if kind == "conv":
        layer: LayerShape = _conv(what)
    else:
        layer = Dense(*what["dense"]) if kind == "dense" else Recurrent(what["recurrent"])
    return kind, (layer,), (layer,)


def _conv(what: dict[str, Any]) -> "LayerShape":
    from topobounds.layers import Conv

    kernel, input_size = (_required(what, name, "--conv") for name in ("kernel", "input_size"))
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


def _print_compression(report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("convention", "weights", "kept", "ratio", "remark", box=None, pad_edge=False, header_style="bold")
    for name in ("paper", "toeplitz", "shared"):
        row = report[name]
        remarks = [f"{row['components']} component(s)" if row.get("components") else "", row.get("reason") or ""]
        if row.get("trials"):
            error = _decimals(row["standard_error"])
            remarks.append(f"standard error {error}, {row['trials']} random kernels, seed {row['seed']}")
        numbers = [f"{row[key]:,}" if row.get(key) is not None else "-" for key in ("weights", "kept")]
        table.add_row(name, *numbers, _decimals(row["ratio"]), "; ".join(filter(None, remarks)))
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
    with progress_bar("claims") as advance:
        verdicts = _verdicts_asked_for(what, advance)
    checks = [verdict.to_dict() for verdict in verdicts]
    violated = [check["claim"] for check in checks if check["verdict"] == "violated"]
    if as_json:
        print_json({"checks": checks})
    else:
        _print_checks(checks)
    if witness and violated:
        from topobounds.verification import write_witnesses

        write_witnesses(witness, verdicts)
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


def _checks_sentence(check: dict[str, Any]) -> str:
    of = f"{check['file']}, {check['tensor']}: " if check["file"] else ""
    terms = f"distribution {check['distribution']}, seed {check['seed']}, confidence {check['confidence']:g}"
    return f"{of}{check['m']} x {check['n']}, {terms}"


def _remarks(checks: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the reasons of what does not hold, each once, and for violations the command that shows them again."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check["verdict"] != "holds":
            reasons.setdefault((check["verdict"], check["reason"]), []).append(check["claim"])
    for (verdict, reason), claims in reasons.items():
        yield f"{verdict.capitalize()}: {', '.join(claims)}. {reason}"
    violated = [check for check in checks if check["witness"]]
    if violated:
        yield f"Again: {_command(violated)}"


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
    except (ValueError, OSError, MemoryError, ImportError) as error:
        _leave(f"Error: {error or type(error).__name__}", USAGE_ERROR)
    sys.exit(status if isinstance(status, int) else 0)


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


def _decimals(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
