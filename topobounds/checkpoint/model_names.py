"""State dicts under the names of the model: prefixes of wrappers stripped, pruned and normalised weights joined."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.location import Location
from topobounds.checkpoint.rewriting import BesideWriter, Change

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put before a name, or into it."""
_COUNTERS = ("n_averaged",)
"""Entries of torch.optim.swa_utils.AveragedModel that stand beside ``module.``"""


@dataclass(frozen=True)
class Joined:
    """A weight that a file holds in parts.

    Attributes
    ----------
    parts : tuple of str
        The stored names; the last is of the weight's shape and type.
    written : str
        The formula, for people.
    join : callable
        The weight from its parts.
    split : callable or None
        ``split(weight, *parts)``: the parts of another weight, in memory of their own, for they may wait until they are
        written; None where it cannot be stored so.
    """

    parts: tuple[str, ...]
    written: str
    join: Callable[..., Array]
    split: Callable[..., tuple[Array, ...]] | None = None


class ModelNames(Checkpoint):
    """A checkpoint whose tensors go by the names that the model gives them; made by `with_model_names`."""

    def __init__(
        self, stored: Checkpoint, sources: Mapping[str, str | Joined], left_out: Mapping[str, str], prefix: str
    ) -> None:
        super().__init__(stored.path)
        self._stored = stored
        self._sources = sources
        self.format = stored.format
        self.config = stored.config
        self.folder = stored.folder
        self.can_be_written = stored.can_be_written
        self.left_out = {**stored.left_out, **left_out}
        names = {source: name for name, source in sources.items() if isinstance(source, str)}
        self.tied = {_stripped(name, prefix): names.get(other, other) for name, other in stored.tied.items()}
        written = {name: _written(source) for name, source in sources.items()}
        written = {name: text for name, text in written.items() if text != name}
        self.stored_as = {name: stored.stored_as.get(text, text) for name, text in written.items()}

    @property
    def files(self) -> tuple[Location, ...]:
        """The files that hold the tensors."""
        return self._stored.files

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order in which they, or the first of their parts, are stored."""
        return tuple(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._stored.shape(self._main_part(name))

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor."""
        return self._stored.dtype(self._main_part(name))

    def tensor(self, name: str) -> Array:
        """Read one tensor, or join it from its parts."""
        source = self._sources[self._checked(name)]
        if isinstance(source, str):
            return self._stored.tensor(source)
        parts = [self._stored.tensor(part) for part in source.parts]
        with as_checkpoint_error(self.path, name):
            return source.join(*parts)

    def file_of(self, name: str) -> str:
        """Return the file that holds a tensor, or the last of its parts."""
        return self._stored.file_of(self._main_part(name))

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
        room: int = 0,
    ) -> None:
        """Write a file of the same stored names; see `Checkpoint.rewrite`.

        The mask of a pruned weight follows its change; a normalised one cannot be changed.
        """
        owners = {part: name for name, source in self._sources.items() for part in _parts(source)}
        waiting: dict[str, Array] = {}  # parts that were computed with the first of their weight

        def change_stored(part: str, array: Array) -> Array:
            name = owners.get(part)
            if name is None:
                return array
            source = self._sources[name]
            if isinstance(source, str):
                return change(name, array)
            if part not in waiting:
                waiting.update(zip(source.parts, self._changed_parts(name, source, change), strict=True))
            return waiting.pop(part)

        self._stored.rewrite(target, change_stored, resume=resume, beside=beside, room=room)

    def close(self) -> None:
        """Let go of the files."""
        self._stored.close()

    def _changed_parts(self, name: str, source: Joined, change: Change) -> tuple[Array, ...]:
        """Return the parts of what takes a weight's place."""
        parts = tuple(self._stored.tensor(part) for part in source.parts)
        new = self.changed(name, change)
        if np.array_equal(new, source.join(*parts)):
            return parts
        if source.split is None:
            raise CheckpointError(
                f"{self.path}, tensor '{name}', cannot be rewritten: it is stored as {source.written}."
            )
        return source.split(new, *parts)

    def masks(self) -> Iterator[tuple[str, Array]]:
        """Yield the masks of the weights that are stored beside them, by the names of the weights."""
        for name, source in self._sources.items():
            if isinstance(source, Joined) and source.join is _masked:
                yield name, self._stored.tensor(source.parts[0])

    def _main_part(self, name: str) -> str:
        """Return the stored tensor that has the shape and type of a tensor: the last of its parts."""
        source = self._sources[self._checked(name)]
        return source if isinstance(source, str) else source.parts[-1]


def with_model_names(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint under the names of the model: itself, where those are the stored ones.

    ``module.``, which DataParallel puts before every name, goes, and so does ``_orig_mod.`` of torch.compile wherever
    it stands. ``X_orig`` and ``X_mask`` of torch.nn.utils.prune become ``X``, their product; ``X_g`` and ``X_v`` of
    weight_norm, and its ``parametrizations.X.original0`` and ``original1``, become ``X = g v / |v|``; ``X_orig``,
    ``X_u`` and ``X_v`` of spectral_norm, and its ``parametrizations.X.original``, ``0._u`` and ``0._v``, become the
    weight in evaluation, ``X = w / (u · w v)``; ``parametrizations.X.original`` and ``0.mask`` of torch_bridge are
    masked like those of pruning. Of other parametrisations the file does not hold the function: they are left out, with
    that reason.
    `Checkpoint.stored_as` tells all of it.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its tensors under the stored names.

    Returns
    -------
    Checkpoint
        Its tensors under the names of the model.
    """
    prefix = _common_prefix(checkpoint.names)
    stored = {_stripped(name, prefix): name for name in checkpoint.names}
    if len(stored) < len(checkpoint.names):  # two names would become one
        stored = {name: name for name in checkpoint.names}
    joined, reasons = _joined(checkpoint, stored)
    parts = {part for each in joined.values() for part in each.parts} | {stored[name] for name in reasons}
    sources: dict[str, str | Joined] = {}
    first_parts = {each.parts[0]: name for name, each in joined.items()}
    for name, source in stored.items():
        if source in first_parts:
            sources[first_parts[source]] = joined[first_parts[source]]
        elif source not in parts:
            sources[name] = source
    if list(sources.items()) == [(name, name) for name in checkpoint.names]:
        return checkpoint
    return ModelNames(checkpoint, sources, reasons, prefix)


def masks_beside_weights(checkpoint: Checkpoint) -> Iterator[tuple[str, Array]]:
    """Yield the masks that a checkpoint multiplies its weights by, by the names of the weights."""
    return checkpoint.masks() if isinstance(checkpoint, ModelNames) else iter(())


def _common_prefix(names: Iterable[str]) -> str:
    """Return ``"module."``, as often as every name begins with it."""
    counted = [name for name in names if name not in _COUNTERS]
    prefix = ""
    while counted and all(_unwrapped(name).startswith(f"{prefix}module.") for name in counted):
        prefix += "module."
    return prefix


def _stripped(name: str, prefix: str) -> str:
    return _unwrapped(name).removeprefix(prefix)


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "") if f".{name}".count(f".{wrapper}") else name
    return name


def _parts(source: str | Joined) -> tuple[str, ...]:
    return (source,) if isinstance(source, str) else source.parts


def _written(source: str | Joined) -> str:
    return source if isinstance(source, str) else source.written


# -- weights in parts -------------------------------------------------------------------------------------------------


def _joined(checkpoint: Checkpoint, stored: Mapping[str, str]) -> tuple[dict[str, Joined], dict[str, str]]:
    """Return the weights that are stored in parts, and which entries are left out, with the reason."""
    joined: dict[str, Joined] = {}
    reasons: dict[str, str] = {}
    for name in stored:
        if name.endswith("_orig"):
            bare = name.removesuffix("_orig")
            _join_pruned(bare, checkpoint, stored, joined, reasons)
            _join_spectral(bare, (f"{bare}_u", f"{bare}_v", name), checkpoint, stored, joined)
        elif name.endswith("_g"):
            bare = name.removesuffix("_g")
            _join_normed(bare, (name, f"{bare}_v"), checkpoint, stored, joined)
        elif match := re.fullmatch(r"(.*\.|)parametrizations\.([^.]+)\.(.+)", name):
            _join_parametrised(match, checkpoint, stored, joined, reasons)
    return joined, reasons


def _join_pruned(
    name: str, checkpoint: Checkpoint, stored: Mapping[str, str], joined: dict[str, Joined], reasons: dict[str, str]
) -> None:
    _join_masked(name, (f"{name}_mask", f"{name}_orig"), checkpoint, stored, joined, reasons)


def _join_masked(
    name: str,
    parts: tuple[str, str],
    checkpoint: Checkpoint,
    stored: Mapping[str, str],
    joined: dict[str, Joined],
    reasons: dict[str, str],
) -> None:
    if name in stored or not set(parts) <= set(stored):
        return
    mask, weight = (stored[part] for part in parts)
    if _differ(_shape(checkpoint, mask), _shape(checkpoint, weight)):
        reasons |= dict.fromkeys(parts, f"part of '{name}', whose mask is of another shape")
    else:
        joined[name] = Joined((mask, weight), f"{weight} * {mask}", _masked, _unmasked)


def _join_normed(
    name: str, parts: tuple[str, str], checkpoint: Checkpoint, stored: Mapping[str, str], joined: dict[str, Joined]
) -> None:
    if name in stored or any(part not in stored for part in parts):
        return
    norm, direction = (stored[part] for part in parts)
    if _is_norm_of(_shape(checkpoint, norm), _shape(checkpoint, direction)):
        joined[name] = Joined((norm, direction), f"{norm} * {direction} / |{direction}|", _normed)


def _join_spectral(
    name: str, parts: tuple[str, str, str], checkpoint: Checkpoint, stored: Mapping[str, str], joined: dict[str, Joined]
) -> None:
    if name in stored or f"{name}_mask" in stored or any(part not in stored for part in parts):
        return
    left, right, weight = (stored[part] for part in parts)
    if _are_vectors_of(_shape(checkpoint, weight), _shape(checkpoint, left), _shape(checkpoint, right)):
        joined[name] = Joined((left, right, weight), f"{weight} / ({left} · {weight} {right})", _over_spectral_norm)


def _join_parametrised(
    match: re.Match[str],
    checkpoint: Checkpoint,
    stored: Mapping[str, str],
    joined: dict[str, Joined],
    reasons: dict[str, str],
) -> None:
    module, weight, part = match.groups()
    name, before = f"{module}{weight}", f"{module}parametrizations.{weight}."
    if part in ("original", "0.mask"):
        _join_masked(name, (f"{before}0.mask", f"{before}original"), checkpoint, stored, joined, reasons)
    if part == "original0":
        _join_normed(name, (f"{before}original0", f"{before}original1"), checkpoint, stored, joined)
    elif part == "original" and f"{before}1." not in {each[: len(before) + 2] for each in stored}:
        _join_spectral(name, (f"{before}0._u", f"{before}0._v", match[0]), checkpoint, stored, joined)
    if name not in joined:
        reasons[match[0]] = f"part of '{name}', which is parametrised by a function that the file does not hold"


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...] | None:
    """Return the shape of a stored tensor; None where it is damaged, which is said when it is read."""
    try:
        return checkpoint.shape(name)
    except CheckpointError:
        return None


def _differ(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> bool:
    return one is not None and other is not None and one != other


def _is_norm_of(norm: tuple[int, ...] | None, direction: tuple[int, ...] | None) -> bool:
    """Whether a tensor has the shape of norms over some axes of another, or is damaged."""
    if norm is None or direction is None:
        return True
    if len(direction) < 2:
        return False
    one_by_one = len(norm) == len(direction) and all(n in (1, size) for n, size in zip(norm, direction, strict=True))
    return one_by_one or norm == ()


def _are_vectors_of(
    weight: tuple[int, ...] | None, left: tuple[int, ...] | None, right: tuple[int, ...] | None
) -> bool:
    """Whether two vectors are as long as the sides of a weight that is laid out as a matrix, or one is damaged."""
    if weight is None or left is None or right is None:
        return True
    sides = [(size, math.prod(weight) // size) for size in weight if size]
    return len(weight) > 1 and len(left) == len(right) == 1 and (*left, *right) in sides


def _masked(mask: Array, weight: Array) -> Array:
    """Return the product, which is 0 where the mask is, whatever is under it."""
    with np.errstate(over="ignore", invalid="ignore"):
        product: Array = np.where(mask != 0, weight * mask.astype(weight.dtype), np.zeros((), weight.dtype))
    return product


def _unmasked(new: Array, mask: Array, weight: Array) -> tuple[Array, Array]:
    """Return the mask and the weights under it for another weight; both are as they were where it is as it was."""
    same = new == _masked(mask, weight)
    new_mask = np.where(same, mask, new != 0).astype(mask.dtype)
    return new_mask, np.where(same | (new == 0), weight, new)


def _normed(norm: Array, direction: Array) -> Array:
    """Return ``g v / |v|``, where |v| is taken over the axes that g lacks."""
    axes = tuple(axis for axis in range(direction.ndim) if norm.ndim == 0 or norm.shape[axis] == 1)
    exact = direction.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is said of the weight
        length = np.sqrt(np.sum(exact**2, axis=axes, keepdims=True))
        weight: Array = (norm.astype(np.float64) * exact / np.where(length, length, 1.0)).astype(direction.dtype)
    return weight


def _over_spectral_norm(left: Array, right: Array, weight: Array) -> Array:
    """Return ``w / (u · w v)``, of the axis that lies in the rows of the matrix where u fits to several.

    u and v are the singular vectors of the largest singular value, so that of another axis gives less.
    """
    exact = weight.astype(np.float64)
    fitting = [axis for axis, size in enumerate(weight.shape) if size == len(left)]
    matrices = [np.moveaxis(exact, axis, 0).reshape(len(left), -1) for axis in fitting]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is said of the weight
        norms = [float(left.astype(np.float64) @ matrix @ right.astype(np.float64)) for matrix in matrices]
        divided: Array = (exact / max(norms, key=abs)).astype(weight.dtype)
    return divided
