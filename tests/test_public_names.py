"""The public surface is a written list: what it names exists, is documented, and nothing else gets out."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import topobounds

STUB = ast.parse((Path(topobounds.__file__).with_suffix(".pyi")).read_text())
LISTED = [name.value for node in STUB.body if isinstance(node, ast.Assign) for name in node.value.elts]


def test_the_list_is_sorted_and_is_what_the_package_offers():
    assert sorted(LISTED) == LISTED
    assert sorted(topobounds.__all__) == LISTED
    assert set(LISTED) <= set(dir(topobounds))


@pytest.mark.parametrize("name", LISTED)
def test_a_public_name_exists_and_has_a_docstring(name):
    thing = getattr(topobounds, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        for section in ("Parameters", "Returns", "Examples"):
            assert f"{section}\n---" in inspect.getdoc(thing) or (
                section == "Parameters" and not thing.__code__.co_argcount
            )


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = topobounds.no_such_name


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, topobounds, torch_bridge, paper_figures; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "numba", "scipy", "sympy", "matplotlib", "torch", "gudhi", "click"} & set(run.stdout.split())
