"""``topobounds overlap``: how much of a layer's spanning tree its largest weights hold."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from topobounds._text import counted
from topobounds.cli.arguments import Count, Density
from topobounds.cli.command import CommandWithExamples
from topobounds.cli.console import (
    UNBOUNDED,
    console_on_stdout,
    decimals,
    new_table,
    print_json,
    print_line,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from topobounds.analysis.overlap import OverlapReport

_ENDS = len("0 |") + len("| 1")  # columns beside the number line
_LONGEST_LINE = 101  # places of the number line: one a hundredth
_PIPED_WIDTH = 67  # columns of the number line and its legend where there is no terminal


@click.command(
    cls=CommandWithExamples,
    examples=(
        "topobounds overlap --m 784 --n 300",
        "topobounds overlap --m 784 --n 300 --density 0.1 --trials 1000 --seed 1 --json",
    ),
)
@click.option("--m", type=Count(1), required=True, help="Inputs of the layer.")
@click.option("--n", type=Count(1), required=True, help="Outputs of the layer.")
@click.option("--k", type=Count(0), help="Weights kept, at most m n.  [default: m + n - 1]")
@click.option("--density", type=Density(), help="Density of a uniformly random support.  [default: all cells]")
@click.option("--trials", type=Count(0), default=200, show_default=True, help="Simulated layers; 0 for none.")
@click.option("--seed", type=Count(0), help="Seed of the simulation.  [default: drawn, and shown]")
@click.option("--exact", is_flag=True, help="Also the exact fraction, for small or thin layers.")
@click.option("--latex", is_flag=True, help="The paper's formulas for this layer in LaTeX, instead of the table.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def overlap(
    m: int,
    n: int,
    k: int | None,
    density: float | None,
    trials: int,
    seed: int | None,
    exact: bool,
    latex: bool,
    as_json: bool,
) -> None:
    """Tell how much of a layer's maximum spanning tree its K largest weights hold.

    For m x n weights with exchangeable magnitudes: the printed bounds, ours, a certified interval, the large-layer
    limit, and a simulation that draws no weights.
    """
    from topobounds.analysis.overlap import overlap_report

    work = trials * (m + n)
    label = "counting graphs" if exact else counted(trials, "trial")
    with progress_bar(label, shown=exact or work > 2_000_000) as advance:
        report = overlap_report(m, n, k, density=density, exact=exact, trials=trials, seed=seed, progress=advance)
    formulas = {"latex": _latex(report, density)} if latex else {}
    if as_json:
        print_json(report.to_dict() | formulas)
    elif latex:
        click.echo(formulas["latex"])
    else:
        _print_overlap(report)


def _latex(report: "OverlapReport", density: float | None) -> str:
    from topobounds.layers.shape import Shape
    from topobounds.theory.symbolic import overlap_latex_of

    return overlap_latex_of(Shape(report.m, report.n, report.k), density)


def _print_overlap(report: "OverlapReport") -> None:
    console = console_on_stdout()
    console.print(_overlap_sentence(report))
    for line in _number_line(_marks(report), _PIPED_WIDTH if console.width == UNBOUNDED else console.width):
        print_line(line)
    table = new_table("", "value", "status", "")
    for name, value, status, remark in report.rows:
        table.add_row(name, value if isinstance(value, str) else decimals(value), status, remark)
    print_table(console, table)


def _overlap_sentence(report: "OverlapReport") -> str:
    """Say how much of which forest the simulated, or the certified, number is about."""
    if report.density == 1:
        kept = f"its {_largest(report.k, report.cells)} {_expected(report)} of its maximum spanning tree's "
        layer, share, tau = "layer", f"{kept}{counted(report.alpha, 'edge')} on average", "eta_tau"
    else:
        layer, tau = f"layer on a random support of density {report.density:g}", "eta_tau of the complete layer"
        share = _share_on_a_support(report)
    return f"A {report.m} x {report.n} {layer}: {share} ({tau} = {float(report.eta_tau):.2f})."


def _largest(k: int, cells: int) -> str:
    return f"largest weight of {cells} holds" if k == 1 else f"{k} largest weights of {cells} hold"


def _share_on_a_support(report: "OverlapReport") -> str:
    """Return what is said of supports, which may be disconnected: the edges of their forests are random too."""
    estimate = report.monte_carlo
    expected = _expected(report)
    k = report.k if estimate is None else estimate.k
    if k is not None and k <= report.cells:
        forest_edges = "its maximum spanning forest's edges"
        return f"its {_largest(k, report.cells)} {expected} of {forest_edges} on average"
    edges = f"edges ({estimate.alpha:.1f} on average)" if estimate else "edges"
    kept = f"its largest weights, as many of the {report.cells} as its maximum spanning forest has {edges},"
    return f"{kept} hold {expected} of that forest on average"


def _expected(report: "OverlapReport") -> str:
    """Return the expected overlap as well as it is known: exact or certified for the complete layer, else simulated."""
    from topobounds.analysis.overlap import certified_digits

    if report.density < 1:
        return decimals(report.monte_carlo.mean) if report.monte_carlo else "an unknown share"
    return certified_digits(report.enclosure) if report.exact is None else decimals(report.exact)


def _marks(report: "OverlapReport") -> Iterator[tuple[str, Sequence[float], str]]:
    """Yield a letter for each value that is known, where it lies, and what it is; an interval lies at both its ends."""
    from topobounds.theory.bounds import BOUNDS
    from topobounds.theory.paper import PrintedClaim

    for name, value in report.bounds.items():
        bound = BOUNDS[name]
        if isinstance(value, PrintedClaim):
            false = ", false" if value.status == "false" else ""
            yield bound.letter, _numbers(value.value), f"{bound.label}{false}"
        elif value is not None:
            yield bound.letter, [value], bound.label
    yield "c", [report.enclosure.lower, report.enclosure.upper], "certified"
    if report.monte_carlo:
        yield "o", [report.monte_carlo.mean], "simulated"


def _numbers(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _number_line(marks: Iterable[tuple[str, Sequence[float], str]], width: int) -> Iterator[str]:
    """Yield a line from 0 to 1 with a letter at each value, below it those whose places were taken, and the legend."""
    length = min(width - _ENDS, _LONGEST_LINE)
    lines = [["-"] * length]
    legend = []
    for mark, values, label in marks:
        for place in {round(value * (length - 1)) for value in values}:
            if all(line[place] not in "- " for line in lines):
                lines.append([" "] * length)
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
