"""``topobounds verify``: which claims hold of random layers, or of the matrices in a file."""

import shlex
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from topobounds._arguments import argument_error, choice
from topobounds.cli.arguments import Count, Density, spelling
from topobounds.cli.output import TABLE_WIDTH, console_on_stdout, decimals, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from topobounds.verification import Verdict

TEST_WIDTH = 16  # of the two columns of a test by permutation


@click.command()
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
            raise click.UsageError(f"{spelling(name.removesuffix('s'))} does not go with {source}.")

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
        if what[name] is None:
            raise click.UsageError(f"{other} needs {spelling(name)}.")
    return verify(progress=advance, **given)


def _print_checks(checks: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    has_tests = any(check["p_value"] is not None for check in checks)
    console = console_on_stdout(TABLE_WIDTH + (TEST_WIDTH if has_tests else 0))
    for _, rows in groupby(checks, key=lambda check: check["tensor"]):
        group = list(rows)
        console.print(Text(_checks_sentence(group[0])))
        columns = ("claim", "put to", "bound", "estimate", "interval", "trials", "verdict")
        tested = ("z", "p") if has_tests else ()
        table = Table(*columns, *tested, box=None, pad_edge=False, header_style="bold")
        for check in group:
            place = f"density {check['density']:.4g}, {check['support']}"
            bound = f"{check['direction']} {_interval(check['bound'])}"
            found = decimals(check["estimate"]), _interval(check["confidence_interval"]), str(check["trials"])
            test = (decimals(check["z"], 1), _p_value(check["p_value"])) if tested else ()
            table.add_row(check["claim"], place, bound, *found, check["verdict"], *test)
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
    return f"[{value[0]:.4f}, {value[1]:.4f}]" if isinstance(value, list) else decimals(value)


def _p_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
