"""A finished level of a run, and one that is being written."""

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save

from topobounds._arguments import argument_error
from topobounds._records import plain_record
from topobounds.checkpoint.safetensors import DTYPES, arrays_in, tensor_at
from topobounds.runs.errors import RunError, as_run_error
from topobounds.runs.files import (
    MANIFEST_FILE,
    METRICS_FILE,
    checked_file_name,
    is_file_description,
    read_file,
    write_new_file,
)
from topobounds.runs.json_text import canonical_json, parse_json

MOST_LEVELS = 100_000
"""Levels that a run may have: each is a folder, and a run is looked through for those that are missing."""


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
        file = path / MANIFEST_FILE
        self.manifest: dict[str, Any] = parse_json(file, read_file(file))
        if not isinstance(self.manifest, dict) or not {"plan", "files"} <= self.manifest.keys():
            raise RunError(f"{file} is damaged: it does not hold 'plan' and 'files'.")
        files = self.manifest["files"]
        if not isinstance(files, dict) or not all(map(is_file_description, files.values())):
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
        if METRICS_FILE not in self.manifest["files"]:
            return []
        lines = self._verified(METRICS_FILE).splitlines()
        return [parse_json(self.path / METRICS_FILE, line, number) for number, line in enumerate(lines, 1)]

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
            with as_run_error(file, "read"):
                size = file.stat().st_size
            if size != expected["size"]:
                self._verified(name)

    def _verified(self, name: str) -> bytes:
        file, expected = self.path / name, self.manifest["files"][name]
        content = read_file(file)
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
        file = self.path / f"{checked_file_name('stem', stem)}.safetensors"
        # safetensors reads the raw buffer: strides and byte order must be plain
        arrays = {name: np.asarray(value, order="C") for name, value in weights.items()}
        for name, array in arrays.items():
            if array.dtype.newbyteorder("=") not in map(np.dtype, DTYPES.values()):
                raise argument_error("weights", f"of a dtype that safetensors knows, tensor '{name}' too", array.dtype)
        with as_run_error(file, "written"):
            write_new_file(file, save(arrays))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one record to ``metrics.jsonl``; numbers that are not finite become null.

        Raises
        ------
        RunError
            If the disk refuses.
        """
        file = self.path / METRICS_FILE
        with as_run_error(file, "written"), file.open("ab") as stream:
            stream.write(canonical_json(plain_record(record)) + b"\n")


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
