"""The run folder: one writer and one reader of one format, without torch.

::

    run/
      plan.json                 what the run is to do, defaults too, the SHA-256 of its canonical JSON, how much of it
                                so far, and the version of topobounds that began it
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
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from topobounds._arguments import file_name
from topobounds._files import check_regular, write_whole
from topobounds._records import plain_record
from topobounds.runs.errors import RunError, as_run_error
from topobounds.runs.files import (
    MANIFEST_FILE,
    PLAN_FILE,
    checked_file_name,
    describe_file,
    read_file,
    sync_folder,
    write_new_file,
)
from topobounds.runs.json_text import canonical_json, json_sha256, parse_json, pretty_json
from topobounds.runs.level import Level, LevelWriter, natural_order
from topobounds.runs.locks import LOCK_PATIENCE, lock

SCHEMA_VERSION = 2
"""Of plans and manifests. 1: the plan without what was at its default, and no version of topobounds."""


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
    made_by : str or None
        The version of topobounds that made the folder; None for the first folders, which do not say.

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

    def __init__(
        self, path: Path, plan: dict[str, Any], extent: dict[str, int] | None = None, made_by: str | None = None
    ) -> None:
        self.path = path
        self.plan = plan
        self.extent = extent or {}
        self.made_by = made_by
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
        run = cls(Path(file_name("path", path)), plain_record(plan), dict(extent or {}))
        with as_run_error(run.path, "made"):
            run.path.mkdir(parents=True, exist_ok=True)
        if not (run.path / PLAN_FILE).exists():
            with run.locked():
                run._write_plan()
        stored = cls.open(path)
        _check_same_plan(run.path, stored.plan, run.plan, plain_record(dict(defaults or {})))
        extent = _larger(run.extent, stored.extent)
        if extent != stored.extent:
            stored.extent = extent
            with stored.locked():
                stored._write_plan()
        return stored

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open an existing run folder for reading.

        Raises
        ------
        RunError
            If there is no plan in it, the plan was altered, or another version of the format wrote it.
        """
        file = Path(file_name("path", path)) / PLAN_FILE
        stored = parse_json(file, read_file(file))
        if not isinstance(stored, dict) or not isinstance(stored.get("plan"), dict):
            raise RunError(f"{file} is damaged: it does not hold a mapping 'plan'.")
        if stored.get("sha256") != json_sha256(stored["plan"]):
            raise RunError(f"{file} is damaged: the plan in it does not have the SHA-256 that stands beside it.")
        schema = stored.get("schema_version", stored.get("version"))
        if schema not in (1, SCHEMA_VERSION):
            maker = f" (topobounds {stored['topobounds']})" if "topobounds" in stored else ""
            raise RunError(
                f"{file} is of schema {schema}{maker}, and this topobounds reads 1 and {SCHEMA_VERSION}: take the "
                "version that made it, or run its plan again in another folder."
            )
        extent = stored.get("extent", {})
        if not isinstance(extent, dict) or any(type(count) is not int for count in extent.values()):
            raise RunError(f"{file} is damaged: 'extent' must be a mapping of names to integers, not {extent!r}.")
        return cls(Path(path), stored["plan"], extent, stored.get("topobounds"))

    @property
    def sha256(self) -> str:
        """SHA-256 of the plan's canonical JSON (sorted keys, no spaces)."""
        return json_sha256(self.plan)

    @property
    def levels(self) -> list["Level"]:
        """The finished levels, trial-2 before trial-10."""
        names = [file.parent.name for file in self.path.glob(f"[!.]*/{MANIFEST_FILE}")]
        return [self.level(name) for name in sorted(names, key=natural_order)]

    def is_finished(self, name: str) -> bool:
        """Whether the level `name` is finished, which its manifest alone decides."""
        return (self.path / checked_file_name("name", name) / MANIFEST_FILE).exists()

    def level(self, name: str) -> "Level":
        """Return the finished level `name`.

        Raises
        ------
        RunError
            If it is not finished, its manifest is damaged, or it is none of this run under this name: it was copied
            here from the run of another plan, or from another level, or renamed.
        """
        if not self.is_finished(name):
            raise RunError(f"{self.path / name} is not a finished level: it has no {MANIFEST_FILE}.")
        level = Level(self.path / name)
        if level.manifest["plan"] != self.sha256:
            raise RunError(f"{self.path / name / MANIFEST_FILE} belongs to another plan than {self.path / PLAN_FILE}.")
        own_name = level.manifest.get("name", name)  # manifests of the first versions hold no name
        if own_name != name:
            raise RunError(
                f"{self.path / name} was made as the level '{own_name}': a copy, or renamed. Move it elsewhere."
            )
        return level

    @contextmanager
    def locked(self, part: str = "", patience: float = LOCK_PATIENCE) -> Iterator[Self]:
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
        path = self.path / (f".{checked_file_name('part', part)}.lock" if part else ".lock")
        with lock(path, patience):
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
        with as_run_error(path, "read"):
            check_regular(path)
        with as_run_error(path, "read"), path.open(encoding="ascii") as lock:
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
            with as_run_error(partial, "made"):
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
        with as_run_error(file, "written"):
            write_whole(file, hashlib.sha256(content).digest() + content)

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
        content = read_file(file)
        return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None

    def drop_checkpoint(self, name: str) -> None:
        """Forget the checkpoint of the level `name`, and what is left of one that was never whole, if there are any."""
        file = self._checkpoint_file(name)
        partial = (file.with_name(f"{file.name}.partial"), *self.path.glob(f".{file.name}.*.partial"))
        for leftover in (file, *partial):
            with as_run_error(leftover, "removed"):
                leftover.unlink(missing_ok=True)

    def _checkpoint_file(self, name: str) -> Path:
        return self.path / f".{checked_file_name('name', name)}.checkpoint"

    def _finish(self, partial: Path, name: str) -> None:
        with as_run_error(partial, "finished"):
            files = {file.name: describe_file(file) for file in sorted(partial.iterdir())}
            manifest = {"schema_version": SCHEMA_VERSION, "name": name, "plan": self.sha256, "files": files}
            write_new_file(partial / MANIFEST_FILE, pretty_json(manifest))
            sync_folder(partial)
            partial.rename(self.path / name)
            sync_folder(self.path)

    def _write_plan(self) -> None:
        """Write the plan; where it is there, write nothing but the larger extent."""
        file = self.path / PLAN_FILE
        with as_run_error(file, "written"):
            if file.exists():
                content = parse_json(file, read_file(file))
                if content["sha256"] != self.sha256:  # another process was first; `create` compares the plans
                    return
                self.extent = _larger(self.extent, content.get("extent", {}))
                content["extent"] = self.extent
            elif any(not each.name.startswith(".") for each in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and has no {PLAN_FILE}: it is not a run folder.")
            else:
                content = {
                    "schema_version": SCHEMA_VERSION,
                    "topobounds": metadata.version("topobounds"),
                    "plan": self.plan,
                    "sha256": self.sha256,
                    "extent": self.extent,
                }
            write_whole(file, pretty_json(content))


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
        return {prefix: canonical_json(value).decode()}
    dot = "." if prefix else ""
    return {k: v for name, each in value.items() for k, v in _leaves(each, f"{prefix}{dot}{name}").items()}
