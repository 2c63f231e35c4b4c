"""The run folder: one writer and one reader of one format, without torch.

::

    run/
      plan.json                 what the run is to do, the SHA-256 of its canonical JSON, and how much of it so far
      trial-0/                  a level
        epoch-00.safetensors    weights
        metrics.jsonl           one JSON object a line
        manifest.json           size and SHA-256 of every file; written last

A level is written beside its place (``.trial-0.partial``) and renamed once its manifest is in, and it counts as done
only by its manifest. Whatever is read is checked against the manifest first, so that a damaged file is never half used.
What it takes to go on with an unfinished level is kept in ``.trial-0.checkpoint``.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save

from topobounds._arguments import argument_error
from topobounds._records import plain
from topobounds.checkpoint.safetensors import DTYPES, arrays_in, tensor_at

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
PLAN = "plan.json"
FORMAT_VERSION = 1
POLL_SECONDS = 0.02
PATIENCE = 1.0
"""Seconds within which the lock of a process that was killed is free."""


class RunError(OSError):
    """A run folder that cannot be read, written, locked or continued; the message names the file."""


class RunFolder:
    """A plan and the levels made so far.

    Made by `create` or `open`, not by hand.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    plan : dict
        What the run is to do, as plain Python.
    extent : dict of str to int
        How much of it, where that may grow without making another run of it: ``{"replicates": 5}``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = RunFolder.create(folder.name, {"epochs": 1})
    >>> with run.writing("trial-0") as level:
    ...     level.save_weights("epoch-00", {"layers.0.weight": np.eye(2)})
    ...     level.append_metrics({"epoch": 0, "test_accuracy": 0.5})
    >>> [level.name for level in RunFolder.open(folder.name).levels]
    ['trial-0']
    >>> run.level("trial-0").weights("epoch-00")["layers.0.weight"].shape
    (2, 2)
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, plan: dict[str, Any], extent: dict[str, int] | None = None) -> None:
        self.path = path
        self.plan = plan
        self.extent = extent or {}
        self._locks: set[str] = set()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        plan: Mapping[str, Any] | Any,
        *,
        defaults: Mapping[str, Any] | None = None,
        extent: Mapping[str, int] | None = None,
    ) -> Self:
        """Make a run folder, or reopen one that was made with the same plan.

        Parameters
        ----------
        path : path
            The folder; it and its parents are made where missing.
        plan : mapping or dataclass
            What the run is to do, in what JSON can hold.
        defaults : mapping, optional
            What the keys stand for that a plan leaves out; so that a refusal can tell the values that differ.
        extent : mapping of str to int, optional
            How much of it to make. The folder keeps the largest that was ever asked for.

        Returns
        -------
        RunFolder
            The new or reopened folder.

        Raises
        ------
        RunError
            If the folder holds another plan (the differing keys are named), is no run folder but not empty either,
            or cannot be written.
        """
        run = cls(Path(path), plain(plan), dict(extent or {}))
        with _explained(run.path, "made"):
            run.path.mkdir(parents=True, exist_ok=True)
        if not (run.path / PLAN).exists():
            with run.locked():
                run._write_plan()
        stored = cls.open(path)
        _check_same_plan(run.path, stored.plan, run.plan, plain(dict(defaults or {})))
        if _larger(run.extent, stored.extent) == stored.extent:
            return stored
        with run.locked():
            run._write_plan()
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open an existing run folder for reading.

        Raises
        ------
        RunError
            If there is no plan in it, the plan was altered, or another version of the format wrote it.
        """
        file = Path(path) / PLAN
        stored = _parse(file, _read(file))
        if not isinstance(stored, dict) or not isinstance(stored.get("plan"), dict):
            raise RunError(f"{file} is damaged: it does not hold a mapping 'plan'.")
        if stored.get("sha256") != digest(stored["plan"]):
            raise RunError(f"{file} is damaged: the plan in it does not have the SHA-256 that stands beside it.")
        if stored.get("version") != FORMAT_VERSION:
            raise RunError(f"{file} is of format {stored.get('version')}; this topobounds reads {FORMAT_VERSION}.")
        extent = stored.get("extent", {})
        if not isinstance(extent, dict) or any(type(count) is not int for count in extent.values()):
            raise RunError(f"{file} is damaged: 'extent' must be a mapping of names to integers, not {extent!r}.")
        return cls(Path(path), stored["plan"], extent)

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan's canonical JSON (sorted keys, no spaces)."""
        return digest(self.plan)

    @property
    def levels(self) -> list["Level"]:
        """The finished levels, trial-2 before trial-10."""
        names = [file.parent.name for file in self.path.glob(f"[!.]*/{MANIFEST}")]
        return [self.level(name) for name in sorted(names, key=natural_order)]

    def is_finished(self, name: str) -> bool:
        """Whether the level `name` is finished, which its manifest alone decides."""
        return (self.path / _checked("name", name) / MANIFEST).exists()

    def level(self, name: str) -> "Level":
        """Return the finished level `name`.

        Raises
        ------
        RunError
            If it is not finished, its manifest is damaged, or it was made for another plan or as another level: copied
            or renamed.
        """
        if not self.is_finished(name):
            raise RunError(f"{self.path / name} is not a finished level: it has no {MANIFEST}.")
        level = Level(self.path / name)
        if level.manifest["plan"] != self.sha256:
            raise RunError(f"{self.path / name / MANIFEST} belongs to another plan than {self.path / PLAN}.")
        if (made := level.manifest.get("name", name)) != name:  # the first folders had no names in them
            raise RunError(f"{self.path / name} was made as the level '{made}': a copy, or renamed. Move it elsewhere.")
        return level

    @contextmanager
    def locked(self, part: str = "", patience: float = PATIENCE) -> Iterator[Self]:
        """Keep every other process from writing here, for the length of a ``with`` block.

        The operating system lets the lock go when the process ends, however it ends.

        Parameters
        ----------
        part : str, optional
            Keep them from this part only, by any name: for processes that share the run between them. By default, from
            the whole.
        patience : float
            Seconds to wait for another process to let go: one that was killed a moment ago may hold the lock still.

        Raises
        ------
        RunError
            If another process has the lock, or the folder is not writable.
        """
        if part in self._locks:
            yield self
            return
        path = self.path / (f".{_checked('part', part)}.lock" if part else ".lock")
        with _lock(path, patience):
            self._locks.add(part)
            try:
                yield self
            finally:
                self._locks.remove(part)

    @property
    def is_in_use(self) -> bool:
        """Whether another process has the lock now."""
        path = self.path / ".lock"
        if not path.exists():
            return False
        with _explained(path, "read"), path.open(encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def writing(self, name: str) -> Iterator["LevelWriter"]:
        """Write the level `name` in a ``with`` block; it is finished when the block ends, and not before.

        What an earlier process left unfinished under this name is thrown away first. An exception in the block leaves
        nothing behind.

        Yields
        ------
        LevelWriter
            Takes the weights and metrics.

        Raises
        ------
        RunError
            If the level is finished already, another process writes in this folder, or the disk refuses.
        """
        if self.is_finished(name):
            raise RunError(f"{self.path / name} is finished already.")
        partial = self.path / f".{name}.partial"
        with nullcontext() if self._locks else self.locked():
            with _explained(partial, "made"):
                for leftover in (partial, self.path / name):
                    if leftover.exists():
                        shutil.rmtree(leftover)
                partial.mkdir()
            try:
                yield LevelWriter(partial)
                self._finish(partial, name)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise

    def save_checkpoint(self, name: str, content: bytes) -> None:
        """Keep what it takes to go on with the unfinished level `name`, in place of what was kept before.

        Raises
        ------
        RunError
            If the disk refuses; the earlier checkpoint is then intact.
        """
        file = self._checkpoint_file(name)
        temporary = file.with_name(f"{file.name}.partial")
        with _explained(file, "written"):
            temporary.unlink(missing_ok=True)
            _write(temporary, hashlib.sha256(content).digest() + content)
            temporary.rename(file)

    def checkpoint(self, name: str) -> bytes | None:
        """Return what `save_checkpoint` kept of the level `name`; None if there is nothing, or it is damaged.

        Raises
        ------
        RunError
            If it is there and cannot be read.
        """
        file = self._checkpoint_file(name)
        if not file.exists():
            return None
        content = _read(file)
        return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None

    def drop_checkpoint(self, name: str) -> None:
        """Forget the checkpoint of the level `name`, and what is left of one that was never whole, if there are any."""
        file = self._checkpoint_file(name)
        for each in (file, file.with_name(f"{file.name}.partial")):
            if each.exists():
                with _explained(each, "removed"):
                    each.unlink(missing_ok=True)

    def _checkpoint_file(self, name: str) -> Path:
        return self.path / f".{_checked('name', name)}.checkpoint"

    def _finish(self, partial: Path, name: str) -> None:
        with _explained(partial, "finished"):
            files = {file.name: _describe(file) for file in sorted(partial.iterdir())}
            manifest = {"version": FORMAT_VERSION, "name": name, "plan": self.sha256, "files": files}
            _write(partial / MANIFEST, _pretty(manifest))
            _sync(partial)
            partial.rename(self.path / name)
            _sync(self.path)

    def _write_plan(self) -> None:
        """Write the plan, or, where it is there, the larger of its extent and ours."""
        file, temporary = self.path / PLAN, self.path / f".{PLAN}.partial"
        with _explained(file, "written"):
            if file.exists():
                stored = type(self).open(self.path)
                if stored.sha256 != self.sha256:  # another process was first; `create` compares the plans
                    return
                self.extent = _larger(self.extent, stored.extent)
            elif any(not each.name.startswith(".") for each in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and has no {PLAN}: it is not a run folder.")
            temporary.unlink(missing_ok=True)
            content = {"version": FORMAT_VERSION, "plan": self.plan, "sha256": self.sha256, "extent": self.extent}
            _write(temporary, _pretty(content))
            temporary.rename(file)


class Level:
    """A finished level, read and never written.

    Attributes
    ----------
    path : pathlib.Path
        Its folder.
    manifest : dict
        ``files``: name -> ``size`` in bytes and ``sha256``; ``name`` of the level; ``plan``: SHA-256 of the plan it was
        made for.

    Raises
    ------
    RunError
        If the manifest is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / MANIFEST
        self.manifest: dict[str, Any] = _parse(file, _read(file))
        if not isinstance(self.manifest, dict) or not {"plan", "files"} <= self.manifest.keys():
            raise RunError(f"{file} is damaged: it does not hold 'plan' and 'files'.")
        files = self.manifest["files"]
        if not isinstance(files, dict) or not all(map(_is_description, files.values())):
            raise RunError(f"{file} is damaged: 'files' must be a mapping of names to 'size' and 'sha256'.")

    @property
    def name(self) -> str:
        """The level's name, ``trial-0``."""
        return self.path.name

    @property
    def weight_files(self) -> list[str]:
        """The stems that `weights` takes, ``epoch-2`` before ``epoch-10``."""
        stems = [name.removesuffix(".safetensors") for name in self.manifest["files"] if name.endswith(".safetensors")]
        return sorted(stems, key=natural_order)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl``, in order; empty if there is no such file.

        Raises
        ------
        RunError
            If the file is damaged.
        """
        if METRICS not in self.manifest["files"]:
            return []
        lines = self._verified(METRICS).splitlines()
        return [_parse(self.path / METRICS, line, number) for number, line in enumerate(lines, 1)]

    def weights(self, stem: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of one weight file by name, ``layers.2`` before ``layers.10``.

        Parameters
        ----------
        stem : str
            The file without its suffix, one of `weight_files`.

        Returns
        -------
        dict of str to ndarray
            Read-only arrays as they were saved; bfloat16 and float8 in the dtypes of ml_dtypes.

        Raises
        ------
        RunError
            If there is no such file, or it is damaged: truncated, altered, or with a dtype that numpy has no name for.
        """
        if stem not in self.weight_files:
            raise RunError(f"{self.path} has no weights '{stem}', only: {', '.join(self.weight_files) or 'none'}.")
        return _arrays(self.path / f"{stem}.safetensors", self._verified(f"{stem}.safetensors"))

    def read(self, name: str) -> bytes:
        """Return the content of one file of the level.

        Raises
        ------
        RunError
            If there is no such file, or it is damaged.
        """
        if name not in self.manifest["files"]:
            raise RunError(f"{self.path} has no file '{name}'.")
        return self._verified(name)

    def verify(self) -> None:
        """Check every file of the level against its manifest.

        Raises
        ------
        RunError
            Naming the first file that is missing, truncated or altered.
        """
        for name in self.manifest["files"]:
            self._verified(name)

    def check_sizes(self) -> None:
        """Check that every file of the level is there, and as long as its manifest says; `verify` reads them all.

        Raises
        ------
        RunError
            Naming the first file that is missing or truncated.
        """
        for name, expected in self.manifest["files"].items():
            file = self.path / name
            with _explained(file, "read"):
                size = file.stat().st_size
            if size != expected["size"]:
                self._verified(name)

    def _verified(self, name: str) -> bytes:
        file, expected = self.path / name, self.manifest["files"][name]
        content = _read(file)
        if len(content) < expected["size"]:
            where = _tensor_at(content, len(content)) if name.endswith(".safetensors") else ""
            raise RunError(f"{file} is damaged: it ends at byte {len(content)} of {expected['size']}{where}.")
        if len(content) > expected["size"]:
            raise RunError(f"{file} is damaged: it has {len(content)} bytes, the manifest says {expected['size']}.")
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise RunError(f"{file} is damaged: it was altered, its SHA-256 is not the manifest's.")
        return content


class LevelWriter:
    """Takes the weights and metrics of a level that is being made; see `RunFolder.writing`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save_weights(self, stem: str, weights: Mapping[str, ArrayLike]) -> None:
        """Save named arrays as ``stem.safetensors``.

        Parameters
        ----------
        stem : str
            Letters, digits, ``.``, ``_``, ``=`` and ``-``; new in this level.
        weights : mapping of str to array
            Arrays of any layout and of a dtype that safetensors knows.

        Raises
        ------
        ValueError
            If the stem or a dtype does not fit.
        RunError
            If the file exists already, or the disk refuses.
        """
        file = self.path / f"{_checked('stem', stem)}.safetensors"
        # safetensors reads the raw buffer: strides and byte order must be plain
        arrays = {name: np.asarray(value, order="C") for name, value in weights.items()}
        for name, array in arrays.items():
            if array.dtype.newbyteorder("=") not in map(np.dtype, DTYPES.values()):
                raise argument_error("weights", f"of a dtype that safetensors knows, tensor '{name}' too", array.dtype)
        with _explained(file, "written"):
            _write(file, save(arrays))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one record to ``metrics.jsonl``; numbers that are not finite become null.

        Raises
        ------
        RunError
            If the disk refuses.
        """
        file = self.path / METRICS
        with _explained(file, "written"), file.open("ab") as stream:
            stream.write(_canonical(plain(record)) + b"\n")


def natural_order(name: str) -> list[str | int]:
    """Return a sort key under which ``layers.2`` comes before ``layers.10``."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def _arrays(file: Path, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        arrays = arrays_in(content)
    except ValueError as error:
        damaged = str(error).startswith("is damaged")
        raise RunError(f"{file}{'' if damaged else ':'} {error}.") from error
    return {name: arrays[name] for name in sorted(arrays, key=natural_order)}


def _tensor_at(content: bytes, position: int) -> str:
    """Return ", inside tensor 'x'" for a byte of a safetensors file, as far as its header can be read."""
    header_end = 8 + int.from_bytes(content[:8], "little")
    if position < header_end:
        return ", inside the header"
    name = tensor_at(content, position)
    return "" if name is None else f", inside tensor '{name}'"


def _check_same_plan(path: Path, stored: dict[str, Any], asked: dict[str, Any], defaults: dict[str, Any]) -> None:
    if stored == asked:
        return
    old, new = (_leaves(defaults) | _leaves(plan) for plan in (stored, asked))
    changes = [
        f"{key} is {old.get(key, 'absent')} there and {new.get(key, 'absent')} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changes:
        raise RunError(f"{path} holds a run with another plan: {'; '.join(changes)}.")


def _larger(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: max(each.get(name, 0) for each in (one, other)) for name in one | other}


def _leaves(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        return {prefix: _canonical(value).decode()}
    dot = "." if prefix else ""
    return {k: v for name, each in value.items() for k, v in _leaves(each, f"{prefix}{dot}{name}").items()}


def _checked(argument: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", name):
        raise argument_error(argument, "a file name of letters, digits and . _ = -, not starting with a dot", name)
    return name


_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _let_go() -> None:
    """Close the locks that a process has from its parent, which would be locked as long as it goes on."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def _lock(path: Path, patience: float) -> Iterator[None]:
    with _explained(path, "locked"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        with _explained(path, "locked"):
            _acquire(descriptor, path.parent, patience)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()}".encode())
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def _acquire(descriptor: int, folder: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= until:
                holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "starting"
                raise RunError(f"{folder} is in use by another process ({holder}).") from error
            time.sleep(POLL_SECONDS)


@contextmanager
def _explained(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path} could not be {action}: {error.strerror or error}.") from error


def _read(file: Path) -> bytes:
    with _explained(file, "read"):
        return file.read_bytes()


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Put a rename in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_description(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("size")) is int and isinstance(value.get("sha256"), str)


def _describe(file: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file that a manifest is to vouch for, once it is on the disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _parse(file: Path, content: bytes, line: int = 1) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        reason = f"line {line + error.lineno - 1}: {error.msg}" if isinstance(error, json.JSONDecodeError) else error
        raise RunError(f"{file} is damaged: {reason}.") from error
    except RecursionError:
        raise RunError(f"{file} is damaged: it is nested too deeply.") from None


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _pretty(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"


def digest(plan: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `plan`: sorted keys, no spaces."""
    return hashlib.sha256(_canonical(plan)).hexdigest()
