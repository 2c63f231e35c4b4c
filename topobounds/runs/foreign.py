"""Runs that other programs made: which folders are levels, which files in them hold weights, masks and accuracies.

::

    replicate_1/level_0/main/      as open_lth writes them: model_ep0_it0.pth at the start, model_ep20_it0.pth at the
                                   end, mask.pth with a tensor of 0 and 1 for every pruned weight, logger
    round-3/                       any numbered folders: one file of weights, and their masks in a second one, in the
                                   same one as fc.weight_mask or fc.mask, or nowhere: then pruned weights are zero
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from topobounds._arguments import file_name
from topobounds._types import Array, Mask
from topobounds.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.checkpoint.model_names import masks_beside_weights
from topobounds.checkpoint.opening import SUFFIXES
from topobounds.layers import LayerTensor
from topobounds.runs.errors import RunError, as_run_error
from topobounds.runs.files import PLAN_FILE
from topobounds.runs.level import natural_order
from topobounds.weights import non_zero

_MAIN = "main"
"""The folder within a level where open_lth keeps what is no branch of its experiment."""
_LOGGER = "logger"
_ACCURACY = "test_accuracy"
_LONGEST_LOGGER = 2**26  # bytes
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_ENDS = ("end", "final", "last", "trained", "model", "weights", "state_dict")
"""Stems of files that hold the weights at a level's end, the ones to be preferred first."""
_IN_MASK_FILE, _IN_WEIGHT_FILE, _AS_ZEROS = "a file of masks", "the file of weights", "zeros of the weights"
_NUMBERED = re.compile(r"(.*?)[-_. ]?(\d{1,9})")
_STEP = re.compile(r"model_ep(\d+)_it(\d+)")
_MASKS = re.compile(r"(^|[._-])masks?([._-]|$)", re.IGNORECASE)
_NO_END = re.compile(r"(^|[._-])(optim\w*|start|init\w*|rewind\w*|scheduler|rng\w*)([._-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ForeignLevel:
    """A level of a run that another program made, found but not read.

    Attributes
    ----------
    replicate, level : int
        Its numbers, as the folders say them; the replicate is 0 where they say none.
    path : pathlib.Path
        The folder with its files.
    weights : pathlib.Path
        What holds the weights at its end; the folder itself where they are in shards.
    masks : pathlib.Path or None
        The file of its masks, where there is one.
    step : tuple of int
        Epoch and iteration of the weights; empty where the name of the file does not tell them.
    """

    replicate: int
    level: int
    path: Path
    weights: Path
    masks: Path | None = None
    step: tuple[int, ...] = ()


@dataclass(frozen=True)
class ForeignRun:
    """The levels of a run that another program made.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    levels : tuple of ForeignLevel
        By replicate and number.
    left_out : dict of str to str
        Levels that are missing, or cannot be read, and why.
    """

    path: Path
    levels: tuple[ForeignLevel, ...]
    left_out: dict[str, str]


@dataclass(frozen=True, eq=False)
class LevelWeights:
    """What a level holds.

    Attributes
    ----------
    layers : tuple of LayerTensor
        The layers that are pruned.
    weights, masks : dict of str to ndarray
        Of each, by name, of one shape.
    masks_from : {"a file of masks", "the file of weights", "zeros of the weights"}
        Where the masks were found.
    left_out : dict of str to str
        Tensors that are no layers, or are not pruned, and why.
    """

    layers: tuple[LayerTensor, ...]
    weights: dict[str, Array]
    masks: dict[str, Mask]
    masks_from: str
    left_out: dict[str, str]


def level_label(replicate: int, level: int) -> str:
    """Return what a level is called: ``"replicate 1, level 3"``."""
    return f"replicate {replicate}, level {level}"


def find_levels(folder: Any) -> ForeignRun:
    """Find the levels of a run that another program made; no weight is read.

    Parameters
    ----------
    folder : path
        A folder of numbered folders (``level_0``, ``round-1``, ``2``), or of numbered replicates of those.

    Returns
    -------
    ForeignRun
        What was found. Levels of open_lth that are not trained to the end are left out.

    Raises
    ------
    RunError
        If there are none, or it is not told which of several kinds of numbered folders they are.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     for number in (0, 2):
    ...         (Path(name) / f"level_{number}").mkdir()
    ...         np.savez(Path(name) / f"level_{number}" / "end.npz", fc=np.eye(3))
    ...     run = find_levels(name)
    >>> [level.level for level in run.levels], run.left_out
    ([0, 2], {'replicate 0, level 1': 'there is no folder of it'})
    """
    path = Path(file_name("folder", folder))
    with as_run_error(path, "read"):
        if (path / PLAN_FILE).is_file():
            raise RunError(f"{path} is a run of topobounds: topobounds imp status reads it.")
        found = _replicates(path)
    levels: list[ForeignLevel] = []
    left_out: dict[str, str] = {}
    for replicate, folders in found.items():
        for number in range(min(folders), max(folders) + 1):
            try:
                if number not in folders:
                    raise RunError("there is no folder of it")
                with as_run_error(folders[number], "read"):
                    levels.append(_found_level(replicate, number, folders[number]))
            except RunError as error:
                left_out[level_label(replicate, number)] = str(error).rstrip(".")
    last = max((level.step for level in levels), default=())
    for level in levels:
        if level.step < last:
            step, end = ("epoch {}, iteration {}".format(*each) for each in (level.step or (0, 0), last))
            reason = f"not trained to the end: its last weights are of {step}, those of others of {end}"
            left_out[level_label(level.replicate, level.level)] = reason
    return ForeignRun(path, tuple(level for level in levels if level.step == last), left_out)


def read_level(level: ForeignLevel, *, geometry: Any = None, input_size: Sequence[int] | None = None) -> LevelWeights:
    """Read the weights and masks of a level.

    Parameters
    ----------
    level : ForeignLevel
        From `find_levels`.
    geometry, input_size
        As in `topobounds.analyze`.

    Raises
    ------
    CheckpointError
        If a file cannot be read, holds no layer to prune, or holds a mask that is of another shape than its weights
        or has values other than 0 and 1; or if there is a file of masks that holds none of a layer.
    ValueError
        If `geometry` or `input_size` is wrong.
    """
    with open_checkpoint(level.weights) as checkpoint:
        reading = read_layer_tensors(checkpoint, geometry=geometry, input_size=input_size)
        left_out = dict(reading.left_out)
        left_out |= {layer.name: "embedding" for layer in reading.layers if layer.kind == "embedding"}
        names = [layer.name for layer in reading.layers if layer.name not in left_out]
        left_out |= {name: "mask" for name in names if _layer_of(name, names, is_mask=False)}
        layers = [layer for layer in reading.layers if layer.name not in left_out]
        if not layers:
            raise CheckpointError(f"{level.weights} holds no layer to prune.")
        names = [layer.name for layer in layers]
        masks_from = _IN_WEIGHT_FILE
        if level.masks is not None:
            masks_from = _IN_MASK_FILE
            with open_checkpoint(level.masks) as stored:
                masks = dict(_masks(level.masks, stored, names, left_out))
                if not masks:
                    held = ", ".join(f"'{name}'" for name in stored.names[:3]) or "nothing"
                    raise CheckpointError(
                        f"{level.masks} holds no mask of a layer in {level.weights}: it holds {held}, and the mask of "
                        f"the first layer would be '{names[0]}' or '{names[0]}_mask'."
                    )
        else:
            masks = dict(_masks(level.weights, checkpoint, names, None))
            pruned = {name: mask for name, mask in masks_beside_weights(checkpoint) if name in names}
            masks |= {name: _checked(level.weights, name, mask) for name, mask in pruned.items()}
        weights = {name: np.asarray(checkpoint.tensor(name)) for name in names}
    if not masks:  # nor is there a file of them
        masks_from = _AS_ZEROS
        masks = {name: non_zero(array) for name, array in weights.items()}
    for name in [name for name in names if name not in masks]:
        left_out[name] = "it has no mask, and other layers have"
        del weights[name]
    kept = tuple(layer for layer in layers if layer.name in masks)
    for name, mask in masks.items():
        if mask.shape != weights[name].shape:
            shapes = f"{mask.shape}, not {weights[name].shape}"
            raise CheckpointError(f"{level.masks or level.weights}, mask of '{name}', is of another shape: {shapes}.")
    return LevelWeights(kept, weights, masks, masks_from, left_out)


def logged_accuracy(level: ForeignLevel) -> tuple[float | None, str | None]:
    """Return the last test accuracy that open_lth has logged of a level, or None and why there is none."""
    file = level.path / _LOGGER
    if not file.is_file():
        return None, f"there is no {_LOGGER}"
    try:
        if file.stat().st_size > _LONGEST_LOGGER:
            return None, f"{file} is longer than {_LONGEST_LOGGER} bytes"
        rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = {int(step): float(value) for name, step, value in rows if name == _ACCURACY}
    except (OSError, ValueError):
        return None, f"{file} is damaged: its lines are no name, iteration, value"
    value = found[max(found)] if found else math.nan
    return (value, None) if math.isfinite(value) else (None, f"{file} has no {_ACCURACY}")


# -- folders ----------------------------------------------------------------------------------------------------------


def _replicates(folder: Path) -> dict[int, dict[int, Path]]:
    """Return the folders of the levels, by number, of each replicate."""
    levels = _levels_in(folder)
    if levels:
        return {0: levels}
    found = []
    for members in _numbered(folder).values():
        replicates = {number: _levels_in(path) for number, path in members.items()}
        if any(replicates.values()):
            found.append({number: each for number, each in sorted(replicates.items()) if each})
    if len(found) != 1:
        several = "several kinds of" if found else "no"
        raise RunError(
            f"{folder} holds {several} numbered folders with weights: name one that holds level_0, level_1 and so on, "
            "or replicates of them."
        )
    return found[0]


def _levels_in(folder: Path) -> dict[int, Path]:
    """Return the folders in a folder that are levels, by number; none where there are none."""
    groups = {word: members for word, members in _numbered(folder).items() if any(map(_has_weights, members.values()))}
    named = {word: members for word, members in groups.items() if "level" in word.lower()}
    chosen = named if len(named) == 1 else groups
    if len(chosen) > 1:
        kinds = ", ".join(f"'{word}'" for word in sorted(chosen))
        raise RunError(
            f"{folder} holds several kinds of numbered folders with weights, {kinds}: leave one, the levels."
        )
    return next(iter(chosen.values()), {})


def _numbered(folder: Path) -> dict[str, dict[int, Path]]:
    """Return the numbered folders in a folder, by what stands before the number, then by number."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir(), key=lambda each: (natural_order(each.name), each.name)):
        match = _NUMBERED.fullmatch(path.name)
        if match is None or path.name.startswith(".") or not path.is_dir():
            continue
        members = found.setdefault(match[1], {})
        if int(match[2]) in members:
            raise RunError(f"{folder} holds two folders of one number: {members[int(match[2])].name}, {path.name}.")
        members[int(match[2])] = path
    return found


def _place(folder: Path) -> Path:
    return folder / _MAIN if (folder / _MAIN).is_dir() else folder


def _has_weights(folder: Path) -> bool:
    return any(each.name in _INDICES or each.suffix in SUFFIXES for each in _place(folder).iterdir())


def _found_level(replicate: int, number: int, folder: Path) -> ForeignLevel:
    """Return a level with its files.

    Raises
    ------
    RunError
        If it has no weights, or several files that may be them or their masks.
    """
    place = _place(folder)
    files = sorted((each for each in place.iterdir() if each.suffix in SUFFIXES and each.is_file()), key=_by_name)
    masks = [file for file in files if _MASKS.search(file.stem)]
    if len(masks) > 1:
        raise RunError(f"{place} holds several files of masks, {_listed(masks)}: leave one")
    level = ForeignLevel(replicate, number, place, place, masks[0] if masks else None)
    if any((place / index).is_file() for index in _INDICES):
        return level
    steps = {file: (int(match[1]), int(match[2])) for file in files if (match := _STEP.fullmatch(file.stem))}
    if steps:
        last = max(steps, key=lambda file: steps[file])
        return replace(level, weights=last, step=steps[last])
    return replace(level, weights=_only_end(place, [file for file in files if file not in masks]))


def _only_end(place: Path, files: list[Path]) -> Path:
    """Return the one of these files that holds the weights at the end of a level."""
    ends = [file for file in files if not _NO_END.search(file.stem)]
    preferred = [file for stem in _ENDS for file in ends if file.stem == stem]
    numbered = [match[1] for file in ends if (match := _NUMBERED.fullmatch(file.stem))]
    if not ends:
        raise RunError(f"{place} holds no weights of its end{': ' if files else ''}{_listed(files)}")
    if preferred:
        return preferred[0]
    if len(ends) > 1 and (len(numbered) < len(ends) or len(set(numbered)) > 1):
        raise RunError(f"{place} holds several files of weights, {_listed(ends)}: leave one, or call it end")
    return ends[-1]


def _by_name(file: Path) -> list[str | int]:
    return natural_order(file.name)


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)


# -- masks ------------------------------------------------------------------------------------------------------------


def _masks(
    file: Path, stored: Checkpoint, layers: Sequence[str], left_out: dict[str, str] | None
) -> Iterator[tuple[str, Mask]]:
    """Yield the masks of layers; what is in a file of masks and of none of them is added to `left_out`."""
    for name in (*stored.names, *stored.tied):
        layer = _layer_of(name, layers, is_mask=left_out is not None)
        if layer is not None:
            yield layer, _checked(file, name, np.asarray(stored.tensor(name)))
        elif left_out is not None:
            left_out[f"{name} in {file.name}"] = "a mask of no layer"


def _layer_of(name: str, layers: Sequence[str], *, is_mask: bool) -> str | None:
    """Return the layer whose mask a tensor is, by its name; that of a layer is one where it is in a file of masks."""
    bare = [name] if is_mask else []
    if name.startswith("mask_"):
        bare.append(name.removeprefix("mask_").replace("___", "."))
    bare += [name.removesuffix(end) for end in ("_mask", ".mask") if name.endswith(end)]
    candidates = [each for stem in bare for each in (stem, f"{stem}.weight")]
    return next((each for each in candidates if each in layers), None)


def _checked(file: Path, name: str, mask: Array) -> Mask:
    """Return a mask as booleans, if it holds 0 and 1 alone."""
    wrong = ~((mask == 0) | (mask == 1))
    if wrong.any():
        place = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), mask.shape)))
        raise CheckpointError(f"{file}, mask '{name}', must hold 0 and 1 alone, not {mask[place]} at {place}.")
    return np.asarray(mask != 0)


def check_same_layers(label: str, first: LevelWeights, first_label: str, found: LevelWeights) -> None:
    """Refuse a level that is not of the same net as the first.

    Raises
    ------
    ValueError
        Naming the first layer that one has and the other has not, or of another shape.
    """
    shapes, first_shapes = ({layer.name: layer.shape for layer in each.layers} for each in (found, first))
    for name in {**first_shapes, **shapes}:
        if shapes.get(name) != first_shapes.get(name):
            raise ValueError(
                f"'{name}' is {_form(name, shapes, found)} there and {_form(name, first_shapes, first)} at "
                f"{first_label}, so {label} is of another net"
            )


def _form(name: str, shapes: dict[str, tuple[int, ...]], level: LevelWeights) -> str:
    """Return the shape of a layer at a level, or that it is absent, with the reason if it was left out."""
    if name in shapes:
        return f"of shape {shapes[name]}"
    return f"absent ({level.left_out[name]})" if name in level.left_out else "absent"
