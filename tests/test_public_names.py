"""The public surface is a written list: what it names exists, is documented, and nothing else gets out.

Names without an underscore that are in no list of supported names stand in ``internal_names.txt``, so that a new one is
a decision: support it in ``topobounds/__init__.pyi``, give it an underscore, or run
``python tests/test_public_names.py --write``.
"""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import topobounds

STUB = ast.parse((Path(topobounds.__file__).with_suffix(".pyi")).read_text())
LISTED = [name.value for node in STUB.body if isinstance(node, ast.Assign) for name in node.value.elts]
PACKAGE = Path(topobounds.__file__).parent
INTERNAL = Path(__file__).with_name("internal_names.txt")


def defined_names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that the statements of a module define."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            yield from (node.id for node in ast.walk(target or ast.Pass()) if isinstance(node, ast.Name))


def internal_names() -> list[str]:
    """Return the names without an underscore that modules without one define and the list of supported names lacks."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if any(part.startswith("_") for part in parts):
            continue
        names = set(defined_names(ast.parse(file.read_text()).body)) - set(LISTED)
        found += [".".join((*parts, name)) for name in names if not name.startswith("_")]
    return sorted(found)


def test_a_name_that_is_not_supported_is_known_to_be_internal():
    assert internal_names() == INTERNAL.read_text().splitlines()


@pytest.mark.parametrize("room", sorted(file.parent.name for file in PACKAGE.glob("*/__init__.pyi")))
def test_what_a_room_names_exists(room):
    named = importlib.import_module(f"topobounds.{room}")
    assert [name for name in named.__all__ if not hasattr(named, name)] == []


def test_the_folders_are_reachable_and_loaded_only_when_used():
    rooms = [
        path.stem
        for path in PACKAGE.iterdir()
        if path.name[0] != "_" and (path.suffix == ".py" or (path / "__init__.py").exists())
    ]
    reachable = {name for name in LISTED if isinstance(getattr(topobounds, name), ModuleType)}
    assert reachable == set(rooms) - {"cli"}


def test_a_file_is_loaded_when_it_is_first_used():
    """``import topobounds as tb`` reaches every file of the folders that have no names of their own, and no sooner."""
    folders = ("analysis", "chance", "figures", "theory", "topology")
    files = [file for folder in folders for file in (PACKAGE / folder).glob("*.py") if not file.stem.startswith("_")]
    paths = [f"{file.parent.name}.{file.stem}" for file in files]
    assert "theory.support_bounds" in paths
    code = "import sys, topobounds as tb\nassert not [name for name in sys.modules if name.startswith('topobounds.')]\n"
    code += "\n".join(f"assert tb.{path}.__name__ == 'topobounds.{path}'" for path in paths)
    subprocess.run([sys.executable, "-c", code], check=True)


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


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    INTERNAL.write_text("\n".join(internal_names()) + "\n")
