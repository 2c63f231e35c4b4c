"""Coverage-guided fuzzing of every reader of checkpoints, and of what reads plans, geometry, allocations and reports.

``python -m tests.attack.readers --seconds 3600 --folder FOLDER`` gives each kind of file its share of the time, with
atheris, in a process of its own, from the malformed files of the tests on; what is new goes to FOLDER/KIND, where
the next call goes on, and an input that breaks a promise is left in FOLDER as KIND-crash-... (or -timeout-, -oom-).
``--replay FILE KIND`` tries one again.

The promise, of whatever bytes: an error is a CheckpointError or a ValueError (OSError for files that are named, and not
read from) of one line, nothing is run, nothing is written, and it takes neither long nor much memory.
"""

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 2**16  # bytes of an input
SECONDS = 20  # that one input may take, instrumented and on a busy machine
MEGABYTES = 3000  # that the process may have: torch alone takes 700
MESSAGE = 1000  # characters of an error

FILES = {
    "npy": "x.npy",
    "npz": "x.npz",
    "safetensors": "x.safetensors",
    "gguf": "x.gguf",
    "onnx": "x.onnx",
    "torch": "x.pt",
    "index": "model.safetensors.index.json",
    "config": "config.json",
    "geometry": "geometry.toml",
    "allocation": "allocation.json",
    "sweep": "plan.toml",
    "imp": "imp.toml",
    "report": "report.json",
    "witness": "witness.json",
    "run": "plan.json",
    "any": "x",
}
CHECKPOINTS = ("npy", "npz", "safetensors", "gguf", "onnx", "torch", "any")
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
)


class Broken(Exception):
    """A promise is broken."""


# -- what is tried ---------------------------------------------------------------------------------------------------


def attempt(kind: str, content: bytes, folder: Path) -> None:
    """Read a file of this content in an empty folder.

    Raises
    ------
    Broken
        If an error is of another kind, or not one line of a reasonable length.
    """
    from topobounds.checkpoint import CheckpointError

    path = folder / FILES[kind]
    path.write_bytes(content)
    try:
        _READ[kind if kind in _READ else "checkpoint"](path)
    except (CheckpointError, ValueError) as error:
        text = str(error)
        if type(error) not in (CheckpointError, ValueError) and type(error).__module__ == "builtins":
            raise Broken(f"{kind}: {error!r}") from error
        if not text or len(text) > MESSAGE or not text.isprintable():
            raise Broken(f"{kind}: no line of a message: {text[:300]!r}") from error


def _checkpoint(path: Path) -> None:
    from topobounds.checkpoint import CheckpointError, open_checkpoint
    from topobounds.checkpoint.layer_tensors import layer_tensors

    refused = None
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.names:
            try:
                shape = checkpoint.shape(name)
                checkpoint.dtype(name)
                if np.shape(checkpoint.tensor(name)) != tuple(shape):
                    raise Broken(f"{name}: not the shape that was told")
            except CheckpointError as error:
                refused = error
        try:
            list(layer_tensors(checkpoint))
        except ValueError as error:
            refused = CheckpointError(str(error))
    if refused is not None:
        raise refused


def _index(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"first": np.ones((2, 3), "f4")}, path.parent / "a-1.safetensors")
    save_file({"second": np.ones((3, 2), "f4")}, path.parent / "a-2.safetensors")
    _checkpoint(path.parent)


def _config(path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {f"model.layers.0.self_attn.{name}.weight": np.ones((4, 4), "f4") for name in ("q_proj", "qkv_proj")}
    arrays |= {
        f"model.layers.0.mlp.down_proj.{name}": np.ones((4, 4), "i4") for name in ("qweight", "scales", "qzeros")
    }
    save_file(arrays | {"lm_head.weight": np.ones((4, 4), "f4")}, path.parent / "model.safetensors")
    _checkpoint(path.parent)


def _geometry(path: Path) -> None:
    from topobounds.checkpoint import open_checkpoint
    from topobounds.checkpoint.layer_tensors import layer_tensors

    weights = path.parent / "w.npz"
    np.savez(weights, conv=np.ones((4, 2, 3, 3), "f4"), dense=np.ones((4, 6), "f4"), lstm=np.ones((8, 2), "f4"))
    with open_checkpoint(weights) as checkpoint:
        list(layer_tensors(checkpoint, geometry=path))


def _allocation(path: Path) -> None:
    from topobounds.pruning.sparsities import read_sparsities

    read_sparsities(path, ())


def _sweep(path: Path) -> None:
    from topobounds.sweeps.plan import SweepPlan

    plan = SweepPlan.read(path)
    if len(plan) < 2000:
        points = list(plan.points())
        if SweepPlan.from_text(plan.text).text != plan.text or len(points) != len(plan):
            raise Broken("a plan is not what its text says")


def _imp(path: Path) -> None:
    from torch_bridge.experiment.plan import ImpPlan

    plan = ImpPlan.read(path)
    if ImpPlan.from_dict(plan.to_dict()) != plan:
        raise Broken("a plan is not what its dictionary says")


def _report(path: Path) -> None:
    from topobounds import ModelReport

    ModelReport.load(path).to_dict()


def _witness(path: Path) -> None:
    from topobounds.verification.witnesses import replay

    with contextlib.suppress(OSError):
        replay(path)


def _run(path: Path) -> None:
    (path.parent / "r0-00").mkdir(exist_ok=True)
    _checkpoint(path.parent)


_READ: dict[str, Callable[[Path], None]] = {
    "checkpoint": _checkpoint,
    "index": _index,
    "config": _config,
    "geometry": _geometry,
    "allocation": _allocation,
    "sweep": _sweep,
    "imp": _imp,
    "report": _report,
    "witness": _witness,
    "run": _run,
}


def forbid(scratch: Path) -> None:
    """Let the interpreter stop whatever runs a program, unpickles a class, or writes outside a folder."""
    inside = str(scratch)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            raise Broken(f"{event} {arguments!r}")
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            place = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
            if place and not place.startswith((inside, "/dev/null", "/proc/self")) and "__pycache__" not in place:
                raise Broken(f"wrote {place}")

    sys.addaudithook(hook)


# -- where it begins -------------------------------------------------------------------------------------------------

TEXTS: dict[str, list[str]] = {
    "index": ['{"weight_map": {"first": "a-1.safetensors", "second": "a-2.safetensors"}}', "[]", '{"weight_map": 3}'],
    "config": [
        '{"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": true}',
        '{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true}}',
        '{"quantization_config": {"quant_method": "awq", "bits": 4}, "hidden_size": 4, "architectures": ["X"]}',
    ],
    "geometry": [
        '["conv"]\nstride = 2\npadding = [1, 1]\ninput = "8x8"\n["d*"]\nkind = "dense"\ninputs_first = true',
        '["lstm"]\nkind = "lstm"\n["conv"]\ngroups = 2\ndilation = 1\npadding_mode = "circular"\ntransposed = true',
    ],
    "allocation": [
        '[{"tensor_fqn": "a", "sparsity_level": 0.5}]',
        "- tensor_fqn: a\n  sparsity_level: 0.5\n",
        "a: 0.3\n'b': 1e-3",
        '{"a": 0.1}',
    ],
    "sweep": [
        'seed = 3\n[[grid]]\nquestion = "overlap"\nm = [3, 4]\nn = {from = 2, to = 9, step = 3}\ndensity = 0.5',
        '[[grid]]\nquestion = "verify"\nclaim = "star_bound"\nm = 3\nn = 4\n[[grid]]\nquestion = "collapse"',
    ],
    "report": ['{"schema_version": 1, "layers": [], "left_out": {}, "findings": []}'],
    "witness": ['{"schema_version": 1, "witnesses": []}', "[]"],
    "run": ['{"schema_version": 1, "plan": {"rounds": 2}}', '{"plan": {}}'],
}


def seeds(kind: str) -> Iterator[bytes]:
    """Yield inputs to begin with: what the tests of readers have, and what is right."""
    yield from (text.encode() for text in TEXTS.get(kind, []))
    if kind == "imp":
        yield from (file.read_bytes() for file in sorted(Path("torch_bridge/experiment").rglob("*.toml")))
        yield b'[pruning]\nmethod = "t-imp"\nrounds = 3\nkeep = 0.8\n[seeds]\nmodel = 1'
    if kind == "report":
        import topobounds

        report = topobounds.analyze({"a": np.arange(12.0).reshape(3, 4)}, chance=False, trials=0, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            report.save(Path(folder) / "r.json")
            yield (Path(folder) / "r.json").read_bytes()
    names = ("new.pt", "old.pt", "x.pt") if kind == "torch" else (FILES[kind],)
    yield from (content for name, content in _malformed() if name in names or kind == "any")


@functools.cache
def _malformed() -> list[tuple[str, bytes]]:
    """Return the malformed files of the tests that are short, by name and content."""
    from tests.checkpoint.malformed import CASES

    found = []
    for case in CASES:
        if "pipe" in case.name or "device" in case.name or "socket" in case.name:
            continue
        with tempfile.TemporaryDirectory(dir=_memory()) as folder:
            path = case.write(Path(folder))
            path = path / FILES["index"] if path.is_dir() else path
            if path.is_file() and path.stat().st_size <= LONGEST:
                found.append((path.name, path.read_bytes()))
    return found


# -- the fuzzer ------------------------------------------------------------------------------------------------------


def fuzz(kind: str, seconds: int, folder: Path) -> None:
    """Fuzz one kind of file in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["topobounds", "torch_bridge"], enable_loader_override=False):
        import topobounds.analysis.reports
        import topobounds.checkpoint.layer_tensors
        import topobounds.checkpoint.onnx
        import topobounds.pruning.sparsities
        import topobounds.sweeps.plan
        import topobounds.verification.witnesses  # noqa: F401
        import torch_bridge.experiment.plan
        import torch_bridge.model.reader  # noqa: F401

    corpus = folder / kind
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(kind)):
        (corpus / f"seed-{number:03}").write_bytes(content)
        with tempfile.TemporaryDirectory(dir=_memory()) as place:
            attempt(kind, content, Path(place))  # what is loaded when first needed
    scratch = Path(tempfile.mkdtemp(dir=_memory()))
    forbid(scratch.parent)

    def one(content: bytes) -> None:
        place = scratch / "here"
        place.mkdir()
        try:
            attempt(kind, content, place)
        finally:
            for file in sorted(place.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            place.rmdir()

    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    options += [f"-artifact_prefix={folder}/{kind}-", "-print_final_stats=1", "-verbosity=1", str(corpus)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    """Fuzz every kind in turn, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=list(FILES), help=", ".join(FILES))
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--here", action="store_true", help="in this process, one kind")
    arguments = parser.parse_args()
    if arguments.replay:
        with tempfile.TemporaryDirectory() as place:
            attempt(arguments.kinds[0], arguments.replay.read_bytes(), Path(place))
        return 0
    if arguments.here:
        fuzz(arguments.kinds[0], arguments.seconds, arguments.folder.resolve())
    arguments.folder.mkdir(parents=True, exist_ok=True)
    share = max(1, arguments.seconds // len(arguments.kinds))
    broken = 0
    for kind in arguments.kinds:
        command = [sys.executable, "-m", "tests.attack.readers", kind, "--here"]
        command += ["--seconds", str(share), "--folder", str(arguments.folder)]
        start = time.monotonic()
        with (arguments.folder / f"{kind}.log").open("a") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        text = (arguments.folder / f"{kind}.log").read_text(errors="replace")
        runs = text.rpartition("stat::number_of_executed_units:")[2].split()[:1] or ["?"]
        print(f"{kind}: {time.monotonic() - start:.0f} s, {runs[0]} inputs, exit {code}", flush=True)
        broken += code != 0
    return broken


if __name__ == "__main__":
    sys.exit(main())
