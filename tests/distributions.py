"""Checks what a wheel and a source distribution hold: ``python tests/distributions.py WHEEL SOURCE``.

A script of its own, run by ``nox -s package`` in an environment with the dependencies of the package alone.
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
NEEDED = {
    "topobounds/py.typed",
    "topobounds/__init__.pyi",
    "topobounds/report/page.css",
    "topobounds/report/page.js",
    "topobounds/report/page.html.jinja",
    "topobounds/schemas/analyze.json",
    "torch_bridge/experiment/configs/digits.toml",
    "paper_figures/data/figure1.json",
}


def tracked():
    """Return the files that git knows, without which nothing here can be compared."""
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in run.stdout.split("\0") if name}


def check_wheel(wheel, version):
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    info = f"topobounds-{version}.dist-info"
    about = {name.removeprefix(f"{info}/") for name in files if name.startswith(info)}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}, about
    code = {name: content for name, content in files.items() if not name.startswith(info)}
    expected = {name for name in tracked() if name.split("/")[0] in PACKAGES}
    assert set(code) == expected, sorted(set(code) ^ expected)
    assert set(code) >= NEEDED, sorted(NEEDED - set(code))
    for name, content in code.items():
        assert content == (ROOT / name).read_bytes(), name
    return Metadata.from_email(files[f"{info}/METADATA"], validate=True)


def check_source(source, version):
    top = f"topobounds-{version}/"
    with tarfile.open(source) as archive:
        names = {member.name.removeprefix(top) for member in archive.getmembers() if member.isfile()}
    assert names == tracked() | {"PKG-INFO"}, sorted(names ^ (tracked() | {"PKG-INFO"}))


def check_metadata(metadata, version):
    project = PROJECT["project"]
    assert (metadata.name, str(metadata.version)) == ("topobounds", version)
    assert str(metadata.requires_python) == project["requires-python"]
    assert metadata.license_expression == project["license"]
    assert set(metadata.provides_extra) == set(project["optional-dependencies"])
    without = [requirement for requirement in metadata.requires_dist if "extra" not in str(requirement.marker)]
    assert len(without) == len(project["dependencies"])
    assert metadata.description == (ROOT / "README.md").read_text()


def main(wheel, source):
    version = Path(wheel).name.split("-")[1]
    check_metadata(check_wheel(wheel, version), version)
    check_source(source, version)
    assert f'__version__ = "{version}"' in (ROOT / "topobounds" / "__init__.py").read_text()


if __name__ == "__main__":
    main(*sys.argv[1:])
