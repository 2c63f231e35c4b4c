"""Arguments are checked at the public door, and not again behind it: counted by running the commands."""

import sys
from collections import Counter

import pytest

import topobounds.analysis.overlap
import topobounds.theory.symbolic  # noqa: F401 -- what the command loads must be there to be counted
from topobounds import _arguments
from topobounds.cli import main


@pytest.fixture
def checks(monkeypatch):
    """Count how often each argument is checked, by whatever module, under its own name or its option's."""
    counts = Counter()

    def counting(function):
        def counted(name, *values, **options):
            counts[name.lstrip("-")] += 1
            return function(name, *values, **options)

        return counted

    for name in ("integer", "density_fraction"):
        function = getattr(_arguments, name)
        counted = counting(function)
        for module in importing(function, name):
            monkeypatch.setattr(module, name, counted)
    return counts


def importing(function, name):
    """Return the modules that hold this function, those of the command loaded."""
    modules = [module for key, module in sys.modules.items() if key.startswith("topobounds")]
    return [module for module in modules if vars(module).get(name) is function]


@pytest.mark.parametrize(
    "options", [[], ["--k", "60"], ["--density", "0.5"], ["--exact"], ["--k", "9", "--density", "0.5", "--trials", "0"]]
)
def test_overlap_checks_each_argument_at_the_command_and_at_the_report_only(checks, capsys, options):
    with pytest.raises(SystemExit) as left:
        main(["overlap", "--m", "12", "--n", "10", "--seed", "1", "--json", *options])
    assert (left.value.code, capsys.readouterr().err) == (0, "")
    assert checks["m"] == checks["n"] == checks["trials"] == 2
    assert checks["k"] == (2 if "--k" in options else 0)
    assert checks["density"] == (2 if "--density" in options else 0)


def test_the_formulas_check_nothing_again(checks, capsys):
    with pytest.raises(SystemExit):
        main(["overlap", "--m", "12", "--n", "10", "--density", "0.5", "--seed", "1", "--latex"])
    assert r"\begin{align*}" in capsys.readouterr().out
    assert checks["m"] == checks["n"] == checks["density"] == 2
