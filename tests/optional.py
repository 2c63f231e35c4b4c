"""Which test files cannot be imported here, for a package of an extra is not installed."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_EXTRAS = ("torch", "sklearn", "pooch", "fsspec", "gguf", "onnx", "jinja2", "distributed", "narwhals", "pyarrow")
OF_TESTS = ("compressed_tensors", "bitsandbytes", "torchao", "pandas", "polars", "selenium", "nbclient", "flint")
ABSENT = {name for name in (*OF_EXTRAS, *OF_TESTS) if find_spec(name) is None}
OURS = {"tests", "torch_bridge", "paper_figures"}


@cache
def absent_of(path: Path) -> str | None:
    """Return a package that a file imports at its top, or by another file of ours, and that is not installed."""
    top = ast.parse(path.read_text(encoding="utf-8")).body
    tried = [inner for node in top if isinstance(node, ast.Try) for inner in node.body]
    for node in top + tried:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        for name in names:
            root = name.partition(".")[0]
            if root in ABSENT:
                return root
            if root in OURS and (found := _absent_of_module(name)):
                return found
    return None


def _absent_of_module(name: str) -> str | None:
    """Return the same of a module of ours, and of the packages around it; None where there is no such module."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:length])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file() and (found := absent_of(file)):
                return found
    return None
