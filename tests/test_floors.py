"""The floors' rule: a module imports only from floors strictly below, or from its own folder."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"_text"},
    {"_arguments", "_cache", "_engine", "_memory", "_types"},
    {"_parallel"},
    {"_kernels", "_records", "_files"},
    {"layers", "weights", "supports"},
    {"checkpoint"},
    {"topology", "theory", "montecarlo", "runs"},
    {"pruning", "chance", "figures"},
    {"analysis", "verification"},
    {"plotting"},
    {"sweeps", "report"},
    {"cli"},
    {"__init__", "__main__"},
]
GARDEN = ["torch_bridge", "paper_figures"]  # stand on the whole package, each on those before it
BRIDGE = ["model", "pruning", "training", "experiment"]  # the rooms of torch_bridge, likewise
HOMES = {  # the only places that may import a library
    "numba": {"topobounds/_kernels"},
    "sympy": {"topobounds/theory/symbolic.py"},
    "gudhi": {"topobounds/topology/persistence.py"},
    "matplotlib": {"topobounds/plotting", "topobounds/figures", "paper_figures"},
    "torch": {"torch_bridge"},
    "fsspec": {"topobounds/checkpoint"},
    "gguf": {"topobounds/checkpoint"},
    "onnx": {"topobounds/checkpoint"},
    "distributed": {"topobounds/cli"},
    "jinja2": {"topobounds/report"},
    "narwhals": {"topobounds/_records.py"},
    "pyarrow": {"topobounds/_records.py"},
}
FILES = sorted(p for folder in ("topobounds", "torch_bridge", "paper_figures") for p in (ROOT / folder).rglob("*.py"))


def imports(source: str) -> set[str]:
    """Return the modules that a source imports, anywhere in it; ``from a.b import c`` gives ``a.b`` and ``a.b.c``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return found


def room(module: str) -> str:
    """Return the room of a module of the package: ``topobounds.theory.paper`` is in ``theory``."""
    return module.split(".")[1] if "." in module else "__init__"


def floor(name: str) -> int:
    (level,) = (level for level, rooms in enumerate(FLOORS) if name in rooms)
    return level


def later_rooms(own: str, modules: list[str]) -> list[str]:
    """Return the modules that are in a room of torch_bridge after one's own."""
    above = BRIDGE[BRIDGE.index(own) + 1 :]
    return [name for name in modules if name.startswith("torch_bridge.") and room(name) in above]


def violations(path: str, source: str) -> list[str]:
    """Return what a file imports against the rule."""
    package, *rest = Path(path).with_suffix("").parts
    found = sorted(imports(source))
    libraries = [name for name in found if name.split(".")[0] in HOMES]
    wrong = [lib for lib in libraries if not any(path.startswith(home) for home in HOMES[lib.split(".")[0]])]
    outside = [*GARDEN, "tests", "benchmarks"]
    if package in GARDEN:
        above = outside[GARDEN.index(package) + 1 :]
        wrong += [name for name in found if name.split(".")[0] in above]
        return wrong + (later_rooms(rest[0], found) if package == "torch_bridge" and len(rest) > 1 else [])
    own = rest[0]
    inside = [name for name in found if name.split(".")[0] == "topobounds" and name != "topobounds"]
    wrong += [name for name in inside if room(name) != own and floor(room(name)) >= floor(own)]
    return wrong + [name for name in found if name.split(".")[0] in outside]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_below(path):
    assert violations(str(path.relative_to(ROOT)), path.read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("topobounds/theory/paper.py", "from topobounds.montecarlo import simulate_overlap"),
        ("topobounds/theory/paper.py", "def f():\n    from topobounds.topology import spanning"),
        ("topobounds/theory/paper.py", "from topobounds import montecarlo"),
        ("topobounds/layers/dense.py", "import topobounds.theory.paper"),
        ("topobounds/montecarlo.py", "import numba"),
        ("topobounds/runs/folder.py", "import importlib\nimportlib.import_module('torch')"),
        ("topobounds/analysis/reports.py", "from paper_figures import settings"),
        ("paper_figures/figure1.py", "import torch"),
        ("torch_bridge/experiment/picture.py", "from paper_figures import settings"),
        ("torch_bridge/model/analyze.py", "from torch_bridge.pruning import method"),
        ("paper_figures/figure1.py", "import tests.naive"),
    ],
)
def test_the_rule_sees_what_breaks_it(path, source):
    assert violations(path, source)


def test_every_room_has_one_floor_and_every_floor_its_rooms():
    rooms = {
        path.relative_to(ROOT / "topobounds").with_suffix("").parts[0] for path in (ROOT / "topobounds").rglob("*.py")
    }
    named = [name for rooms_of_floor in FLOORS for name in rooms_of_floor]
    assert sorted(named) == sorted(rooms)
    assert sorted(BRIDGE) == sorted(path.parent.name for path in (ROOT / "torch_bridge").glob("*/__init__.py"))


def test_contributing_draws_every_room_on_its_floor_and_names_the_libraries_with_one_home():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    drawing = text.partition("```\nroof")[2].partition("\nbeside")[0].splitlines()
    lines = {name: place for place, line in enumerate(drawing) for name in re.findall(r"\w+", line[:57])}
    rooms = [name for rooms_of_floor in FLOORS for name in rooms_of_floor]
    assert [name for name in rooms if name not in lines] == []
    falling = [(low, high) for low in rooms for high in rooms if floor(low) < floor(high)]
    assert [pair for pair in falling if lines[pair[0]] <= lines[pair[1]]] == []
    rule = text.partition("A module imports only from floors")[2].partition("\n\n")[0]
    assert [library for library in HOMES if library not in rule] == []


def test_only_declared_libraries_are_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name in sorted(extras) if name not in ("dev", "bench") for line in extras[name]
    ]
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in lines}
    declared = declared - {"scikit_learn"} | {"sklearn", "topobounds", "torch_bridge", "paper_figures"}
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(path.read_text())}
        assert roots <= declared | set(sys.stdlib_module_names), path
