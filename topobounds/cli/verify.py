"""``topobounds verify``: which claims hold of random layers, or of the matrices in a file."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from topobounds._arguments import choice
from topobounds._text import counted, grouped_reasons
from topobounds.cli.arguments import Count, Density, Name, output_file, spelling
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
from topobounds.cli.scheduler import executor_of

if TYPE_CHECKING:
    from topobounds.verification import Verdict

# Options that only go with some of the three sources of layers; the others go with --m and with FILE.
_SOURCES_OF_OPTION = {
    "tensor": ("FILE",),
    "density": ("--m",),
    "support": ("--m",),
    "strict": ("--m", "FILE", "--replay"),
    "witness": ("--m", "FILE", "--replay"),
    "as_json": ("--m", "FILE", "--replay"),
}


class CommandWithClaims(CommandWithExamples):
    """A command whose help lists the claims; they are loaded for that only."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the id of each claim and what it says."""
        super().format_epilog(ctx, formatter)
        from topobounds.verification import CLAIMS

        with formatter.section("Claims"):
            formatter.write_dl([(claim.id, claim.statement) for claim in CLAIMS.values()])


@click.command(
    cls=CommandWithClaims,
    examples=(
        "topobounds verify --m 784 --n 300 --density 0.1 --seed 1",
        "topobounds verify model.safetensors --claim exchangeable --strict",
    ),
)
@click.argument("file", required=False, type=Name())
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
@click.option("--tensor", metavar="NAME", help="A matrix of FILE, or a tensor that holds some.  [default: all]")
@click.option("--claim", "claims", multiple=True, metavar="ID", help="A claim; may be repeated.  [default: all]")
@click.option("--trials", type=Count(1), help="Most samples of a claim.  [default: what takes seconds]")
@click.option("--confidence", type=float, default=0.999, show_default=True, help="Confidence of each verdict.")
@click.option(
    "--tolerance", type=float, default=0.005, show_default=True, help="Slack of a bound when the trials are spent."
)
@click.option("--seed", type=Count(0), help="Seed of all that is drawn.  [default: drawn, and shown]")
@click.option("--jobs", type=Count(1, 1024), help="Processes at the same time.  [default: this one alone]")
@click.option("--scheduler", metavar="ADDRESS", help="Do the work on the Dask cluster of this scheduler: tcp://...")
@click.option("--strict", is_flag=True, help="Exit 1 if a claim is violated.")
@click.option("--witness", metavar="JSON", type=Name(), help="Write what shows the violations again to this file.")
@click.option("--replay", metavar="JSON", type=Name(), help="Show the violations of a witness file again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def verify(
    file: Path | None,
    m: int | None,
    n: int | None,
    k: int | None,
    density: float | None,
    support: str | None,
    distribution: str | None,
    tensor: str | None,
    claims: tuple[str, ...],
    trials: int | None,
    confidence: float,
    tolerance: float,
    seed: int | None,
    jobs: int | None,
    scheduler: str | None,
    strict: bool,
    witness: Path | None,
    replay: Path | None,
    as_json: bool,
) -> int:
    """Test the claims of the paper, and ours, on random layers or on the matrices in FILE, which `analyze` reads too.

    Samples are drawn until a claim is decided or the trials are spent: it holds, is violated or stays undecided. The
    claims are tested on the matrices of FILE as if their weights were exchangeable; those that are not break some.
    """
    if witness is not None:
        output_file("--witness", witness)
    _check_options(click.get_current_context())

    from topobounds import verification

    for claim in claims:
        choice("--claim", claim, tuple(verification.CLAIMS))
    left_out: dict[str, str] = {}
    damaged: tuple[str, ...] = ()
    with executor_of(jobs, scheduler) as executor, progress_bar("claims") as advance:
        if replay is not None:
            verdicts = verification.replay(replay, advance)
        elif file is not None:
            verdicts, left_out, damaged = verification.verdicts_on_file(
                file,
                k,
                tensor=tensor,
                distribution=distribution,
                claims=claims or None,
                trials=trials,
                confidence=confidence,
                tolerance=tolerance,
                seed=seed,
                executor=executor,
                progress=advance,
            )
        else:
            verdicts = verification.verify(
                m,
                n,
                k,
                density=density,
                support=support,
                distribution=distribution,
                claims=claims or None,
                trials=trials,
                confidence=confidence,
                tolerance=tolerance,
                seed=seed,
                executor=executor,
                progress=advance,
            )
    if witness is not None and not verification.write_witnesses(witness, verdicts):
        click.echo(f"No claim is violated, so {witness} is not written.", err=True)
    if as_json:
        reasons = [{"name": name, "reason": reason} for name, reason in left_out.items()]
        print_json({"checks": [verdict.to_dict() for verdict in verdicts], "left_out": reasons})
    else:
        if left_out:
            n_tested = len({verdict.tensor for verdict in verdicts})
            console_on_stdout().print(
                f"{counted(n_tested, 'matrix', 'matrices')}; left out: {grouped_reasons(left_out)}."
            )
        for name in damaged:
            print_line(f"Not read: {name}: {left_out[name].rstrip('.')}.")
        _print_verdicts(verdicts)
    return int(strict and any(verdict.verdict == "violated" for verdict in verdicts))


def _check_options(ctx: click.Context) -> None:
    """Refuse a call that does not name exactly one source of layers, or options that do not go with it."""
    typed = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    is_named = {"--m": "m" in typed or "n" in typed, "FILE": "file" in typed, "--replay": "replay" in typed}
    sources = [source for source, named in is_named.items() if named]
    if len(sources) != 1:
        raise click.UsageError(
            f"Give exactly one of --m with --n, FILE and --replay, not {' and '.join(sources) or 'none'}."
        )
    for name in typed:
        if name not in ("m", "n", "file", "replay") and sources[0] not in _SOURCES_OF_OPTION.get(name, ("--m", "FILE")):
            raise click.UsageError(f"{spelling(name.removesuffix('s'))} does not go with {sources[0]}.")
    if sources == ["--m"] and ("m" not in typed or "n" not in typed):
        raise click.UsageError("--n needs --m." if "n" in typed else "--m needs --n.")


def _print_verdicts(verdicts: "Sequence[Verdict]") -> None:
    has_tests = any(verdict.p_value is not None for verdict in verdicts)
    console = console_on_stdout()
    for _, of_layers in groupby(verdicts, key=_layers):
        group = list(of_layers)
        if (
            group[0].file
            and len(group) > 1
            and len({verdict.reason for verdict in group}) == 1
            and not any(map(_was_looked_at, group))
        ):
            print_line(f"Not tested: {group[0].file}, {group[0].tensor}: {group[0].reason}")
            continue
        console.print(_layers(group[0]))
        columns = ("claim", "tested on", "bound", "estimate", "interval", "trials", "verdict")
        table = new_table(*columns, *(("z", "p") if has_tests else ()))
        for verdict in group:
            table.add_row(
                _claim(verdict, group),
                f"density {verdict.density:.4g}, {verdict.support}",
                f"{verdict.direction} {_number_or_interval(verdict.bound)}",
                decimals(verdict.estimate),
                _number_or_interval(verdict.confidence_interval),
                str(verdict.trials),
                verdict.verdict,
                *((decimals(verdict.z, 1), _p_value(verdict.p_value)) if has_tests else ()),
            )
        print_table(console, table)
        for line in _remarks(group):
            console.print(line)
        violated = [verdict for verdict in group if verdict.witness]
        for k in dict.fromkeys((verdict.witness or {})["k"] for verdict in violated):
            together = [verdict for verdict in violated if (verdict.witness or {})["k"] == k]
            console.print(f"Again: {_command(together)}", soft_wrap=True)  # on one line, so that it can be pasted


def _was_looked_at(verdict: "Verdict") -> bool:
    """Whether anything is known beside the reason why a claim is not tested."""
    return verdict.trials > 0 or verdict.bound is not None


def _claim(verdict: "Verdict", group: "Sequence[Verdict]") -> str:
    """Return the claim of a verdict, with its k where the group has others on the claim, as in files of witnesses."""
    others = [other for other in group if other.claim == verdict.claim]
    if len(others) == 1:
        return verdict.claim
    return f"{verdict.claim} (k = {'alpha' if verdict.k is None else verdict.k})"


def _layers(verdict: "Verdict") -> str:
    """Return which layers a verdict is about, and on what terms."""
    source = f"{verdict.file}, {verdict.tensor}: " if verdict.file else ""
    terms = f"distribution {verdict.distribution}, seed {verdict.seed}, confidence {verdict.confidence:g}"
    return f"{source}{verdict.m} x {verdict.n}, {terms}"


def _remarks(verdicts: "Sequence[Verdict]") -> Iterator[str]:
    """Yield the reasons of what does not hold, each once."""
    claims_by_reason: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.verdict != "holds":
            claims_by_reason.setdefault((verdict.verdict, verdict.reason), []).append(_claim(verdict, verdicts))
    for (verdict_word, reason), claims in claims_by_reason.items():
        yield f"{verdict_word.capitalize()}: {', '.join(claims)}. {reason}"


def _command(violated: "Sequence[Verdict]") -> str:
    """Return the command that shows these violations, of the same layers, again."""
    first = max(violated, key=lambda verdict: verdict.density < 1)
    options = {**(first.witness or {}), "tensor": first.tensor}
    del options["claims"]
    if options["distribution"] == "given":
        del options["distribution"]
    words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for verdict in violated for word in ("--claim", verdict.claim)]
    return shlex.join(["topobounds", "verify", *([first.file] if first.file else []), *words])


def _number_or_interval(value: float | tuple[float, float] | None) -> str:
    return f"[{value[0]:.4f}, {value[1]:.4f}]" if isinstance(value, tuple) else decimals(value)


def _p_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
