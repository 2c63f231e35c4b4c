"""Run folders as checkpoints: a reader of topobounds.checkpoint, which finds it by its entry point."""

from pathlib import Path
from typing import Any

import numpy as np

from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import Location
from topobounds.runs.errors import RunError
from topobounds.runs.files import PLAN_FILE, read_file
from topobounds.runs.folder import RunFolder
from topobounds.runs.json_text import parse_json
from topobounds.runs.level import Level, natural_order

_WEIGHTS = "end"
_MASKS = "masks"


class RunReader:
    """Opens run folders, and single levels of them."""

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether it is a folder with the plan of a run, or with the manifest of a level."""
        return isinstance(path, Path) and path.is_dir() and _folder(path) is not None

    @staticmethod
    def open(path: Location) -> "RunCheckpoint":
        """Open the weights at the end of a level, the last that is finished where the folder is that of the run.

        Raises
        ------
        CheckpointError
            If nothing is finished yet, or the plan or a file is damaged.
        """
        folder = _folder(Path(str(path)))
        if folder is None:
            raise CheckpointError(f"{path} is no run folder: it has no {PLAN_FILE}.")
        try:
            run = RunFolder.open(folder)
            levels = run.levels if folder == path else [run.level(path.name)]
            if not levels:
                raise CheckpointError(f"{path} is a run of which no level is finished yet.")
            return RunCheckpoint(path, levels[-1], [level.name for level in levels[:-1]])
        except RunError as error:
            raise CheckpointError(str(error)) from error


def _folder(path: Path) -> Path | None:
    """Return the folder of the run that a folder is, or is a level of."""
    return next((folder for folder in (path, path.parent) if _is_plan(folder / PLAN_FILE)), None)


def _is_plan(file: Path) -> bool:
    try:
        content = parse_json(file, read_file(file)) if file.is_file() else None
    except RunError:
        return True
    return isinstance(content, dict) and "plan" in content and "sha256" in content


class RunCheckpoint(Checkpoint):
    """The weights at the end of a level of a run, zero where its masks say so; see `RunReader.open`.

    The level is read, and checked against its manifest, when it is opened.
    """

    format = "run"

    def __init__(self, path: Location, level: Level, others: list[str]) -> None:
        super().__init__(path)
        self._file = level.path / f"{_stem(level)}.safetensors"
        self._weights = level.weights(_stem(level))
        self._masks = level.weights(_MASKS) if _MASKS in level.weight_files else {}
        for name, mask in self._masks.items():
            if name in self._weights and mask.shape != self._weights[name].shape:
                raise CheckpointError(f"{level.path}, tensor '{name}', is damaged: its mask is of another shape.")
        reason = f"another level of the run; {level.name} is the last that is finished"
        self.left_out = dict.fromkeys(others, reason)
        self.stored_as = {name: f"{name}, where its mask is not 0" for name in self._weights if name in self._masks}

    @property
    def files(self) -> tuple[Location, ...]:
        """The file of the level's weights."""
        return (self._file,)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, ``layers.2`` before ``layers.10``."""
        return tuple(self._weights)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._weights[self._checked(name)].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor."""
        return self._weights[self._checked(name)].dtype

    def tensor(self, name: str) -> Array:
        """Return a tensor, its pruned weights zero."""
        weights = self._weights[self._checked(name)]
        if name not in self._masks:
            return weights
        masked: Array = np.where(self._masks[name] != 0, weights, np.zeros((), weights.dtype))
        return masked


def _stem(level: Level) -> str:
    """Return the weight file of a level's end: ``end``, or the last of those that are no masks."""
    stems = [stem for stem in level.weight_files if stem != _MASKS]
    if not stems:
        raise CheckpointError(f"{level.path} holds no weights.")
    return _WEIGHTS if _WEIGHTS in stems else max(stems, key=natural_order)
