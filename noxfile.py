"""What a release has to pass beyond `make test`: packages in clean environments.

``make package`` runs the first of these sessions, ``make release`` all of them. uv makes the environments, in seconds
where its cache knows the packages.
"""

import tempfile
from pathlib import Path

import nox
from uv import find_uv_bin

ROOT = Path(__file__).parent

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"  # other Pythons are those on the PATH


def built(session: nox.Session) -> tuple[Path, Path]:
    """Build the source distribution, and from it the wheel; return the wheel and the source distribution."""
    folder = Path(tempfile.mkdtemp(dir=session.create_tmp()))
    session.run(find_uv_bin(), "build", "--quiet", "--out-dir", str(folder), str(ROOT), external=True)
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    return wheel, source


@nox.session
def package(session: nox.Session) -> None:
    """Build, look at what is in the packages, install without any extra and use it."""
    wheel, source = built(session)
    session.install(str(wheel))
    session.run("python", str(ROOT / "tests" / "distributions.py"), str(wheel), str(source))
    session.chdir(session.create_tmp())
    session.run("python", "-I", str(ROOT / "tests" / "bare_install.py"))


@nox.session
def readonly(session: nox.Session) -> None:
    """Use an installation that nobody can write to, without a home."""
    session.install(str(built(session)[0]))
    session.run("python", "-I", str(ROOT / "tests" / "readonly_install.py"))


EXTRAS = ("remote", "gguf", "onnx", "page", "scheduler", "frames")  # all for users but torch
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "networkx", "jsonschema")


def check_without_torch(session: nox.Session, *options: str) -> None:
    """Run the tests; the files that need torch are left out, and pytest says how many."""
    session.install(*TOOLS)
    session.chdir(ROOT)
    chosen = ["-m", "not attack", *(f"--ignore=tests/{name}" for name in ("attack", "paper_figures", "torch_bridge"))]
    session.run("pytest", "-n", "auto", "-p", "no:cacheprovider", "tests", *chosen, *options, *session.posargs)


@nox.session(python=["3.12", "3.13", "3.14"])
def without_torch(session: nox.Session) -> None:
    """Run on other Pythons. One that is not on the machine is skipped, and nox says so."""
    session.install(f"{built(session)[0]}[{','.join(EXTRAS)}]")
    check_without_torch(session)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run with the oldest dependencies that pyproject.toml allows, and see that it is these that are installed."""
    extras = [option for extra in EXTRAS for option in ("--extra", extra)]
    # Of a wheel only the wheel itself would be direct, and all that it needs the newest.
    session.install("--resolution", "lowest-direct", "-r", str(ROOT / "pyproject.toml"), *extras)
    session.install("--no-deps", str(built(session)[0]))
    session.run("python", str(ROOT / "tests" / "oldest_install.py"), *EXTRAS)
    # Old packages warn of one another; the printed tables of the pages are spaced as the newest rich does.
    check_without_torch(session, "-W", "ignore::DeprecationWarning", "--ignore=tests/test_docs.py")


@nox.session
@nox.parametrize("extra", ["torch", *EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Use each extra alone: what it is for works, and importing topobounds does not load it."""
    session.install(f"{built(session)[0]}[{extra}]")
    session.chdir(session.create_tmp())
    session.run("python", "-I", str(ROOT / "tests" / "extra_install.py"), extra)


@nox.session
def audit(session: nox.Session) -> None:
    """Ask the index for known holes of every dependency, in the version that a user would get today."""
    session.install("pip-audit")
    extras = [option for extra in ("torch", *EXTRAS) for option in ("--extra", extra)]
    versions = Path(session.create_tmp()) / "versions.txt"
    resolved = session.run(
        *(find_uv_bin(), "pip", "compile", "--quiet", *extras, str(ROOT / "pyproject.toml")), silent=True, external=True
    )
    versions.write_text(str(resolved))
    session.run("pip-audit", "--strict", "--disable-pip", "--no-deps", "--requirement", str(versions))
