"""Uses topobounds as installed without any extra: ``python -I tests/bare_install.py`` in a clean environment.

A script of its own, as such an environment has no pytest either. It runs where nothing of a clone can be imported.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

COMMANDS = ("analyze", "collapse", "compare", "compression", "doctor", "figures", "imp", "overlap", "preview", "prune")
COMMANDS += ("sweep", "verify")
OF_EXTRAS = ("torch", "sklearn", "pooch", "fsspec", "gguf", "onnx", "jinja2", "distributed", "narwhals", "pyarrow")
PLAN = '[[grid]]\nquestion = "overlap"\nm = 3\nn = 3\ntrials = 2\n'


def run(*arguments):
    command = [str(Path(sys.executable).with_name("topobounds")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def printed(*arguments, told=None):
    """Return what a command prints on stdout; on stderr it says nothing, or a line that ends with what is `told`."""
    done = run(*arguments)
    assert done.returncode == 0, (arguments, done.stderr)
    assert done.stderr.strip().endswith(told) if told else done.stderr == "", (arguments, done.stderr)
    return done.stdout


def refusal(*arguments):
    """Return the line with which a command is refused."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), (arguments, done.stdout, done.stderr)
    *_, last = done.stderr.splitlines()
    assert last.startswith("Error: "), (arguments, done.stderr)
    return last


def check_environment():
    import topobounds as package  # noqa: PLC0415 -- what is installed, after the clone is known to be out of the way

    place = Path(package.__file__).resolve()
    assert place.is_relative_to(Path(sys.prefix).resolve()), f"{place} is not what was installed"
    assert package.__version__ == metadata.version("topobounds")
    there = [name for name in OF_EXTRAS if find_spec(name) is not None]
    assert there == [], f"the environment is not clean: {there}"
    found = json.loads(printed("doctor", "--json"))
    assert found["topobounds"] == package.__version__
    assert not any(extra["installed"] for extra in found["extras"].values())


def check_answers(folder):
    listed = printed("--help")
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", listed, re.MULTILINE), command
        assert printed(command, "--help").startswith(f"Usage: topobounds {command} ")
    report = json.loads(printed("overlap", "--m", 784, "--n", 300, "--seed", 1, "--json"))
    assert 0.799621 <= report["enclosure"][0] <= report["enclosure"][1] <= 0.799663
    rng = np.random.default_rng(0)
    weights = folder / "w.safetensors"
    save_file({"a.weight": rng.standard_normal((30, 20)), "b.weight": rng.standard_normal((8, 30))}, weights)
    layers = json.loads(printed("analyze", weights, "--seed", 1, "--json"))["layers"]
    assert [(layer["name"], layer["alpha"]) for layer in layers] == [("a.weight", 49), ("b.weight", 37)]
    printed("prune", weights, folder / "pruned.safetensors", "--density", 0.3)
    printed("compare", weights, folder / "pruned.safetensors", "--seed", 1)
    printed("verify", "--m", 8, "--n", 6, "--trials", 2)
    printed("figures", "table1", "--from-records", "--out", folder / "figures")
    (folder / "plan.toml").write_text(PLAN)
    printed("sweep", folder / "plan.toml", "--out", folder / "sweep", told="1 point.")


def check_missing_extras(folder):
    """Each extra is named by what needs it."""
    (folder / "x.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
    (folder / "x.onnx").write_bytes(b"\x08\x07")
    torch_file = folder / "x.pt"
    with zipfile.ZipFile(torch_file, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("x/version", b"3\n")
    weights, out = folder / "w.safetensors", folder / "out"
    refused = {
        "torch": [
            ("analyze", torch_file),
            ("imp", "run", "digits", "--out", out),
            ("figures", "figure1", "--out", out),
        ],
        "remote": [("analyze", "https://127.0.0.1:9/w.safetensors")],
        "gguf": [("analyze", folder / "x.gguf")],
        "onnx": [("analyze", folder / "x.onnx")],
        "page": [("analyze", weights, "--html", folder / "page.html")],
        "frames": [("analyze", weights, "--parquet", folder / "rows.parquet")],
        "scheduler": [("sweep", folder / "plan.toml", "--out", out, "--scheduler", "tcp://127.0.0.1:9")],
    }
    known = set(metadata.metadata("topobounds").get_all("Provides-Extra")) - {"attack", "bench", "dev"}
    assert set(refused) == known, sorted(set(refused) ^ known)
    for extra, commands in refused.items():
        for command in commands:
            message = refusal(*command)
            assert f".[{extra}]'" in message, (extra, message)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        check_environment()
        check_answers(Path(name))
        check_missing_extras(Path(name))
