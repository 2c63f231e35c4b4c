"""Sees that the oldest allowed dependencies are installed: ``python tests/oldest_install.py EXTRA...``."""

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [
        *project["dependencies"],
        *(each for extra in sys.argv[1:] for each in project["optional-dependencies"][extra]),
    ]
    for requirement in required:
        name, least = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement).groups()
        numbers = [int(number) for number in least.split(".")]
        installed = [int(number) for number in re.findall(r"\d+", version(name))][: len(numbers)]
        assert installed == numbers, f"{name} {version(name)} is not the oldest, {least}"
