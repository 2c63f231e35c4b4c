"""Quantised weights of state dicts, as weights: codes, scales and zero points joined to one weight each."""

import math
import os
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, cast

import numpy as np

from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.code_formats import CODE_FORMATS, FLOAT8
from topobounds.checkpoint.coded_weights import CodedModule, CodedWeight, CodedWeightSettings, UnreadCodedWeight
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.location import Location
from topobounds.checkpoint.rewriting import BesideWriter, Change

_STATE = ".quant_state."
"""In the names under which bitsandbytes stores how a weight of four bits was coded: ``fc.weight.quant_state.X``."""


class QuantisedCheckpoint(Checkpoint):
    """A checkpoint whose quantised weights are read as what they stand for; made by `with_quantised_weights`."""

    def __init__(
        self, stored: Checkpoint, sources: Mapping[str, str | CodedWeight], left_out: Mapping[str, str]
    ) -> None:
        super().__init__(stored.path)
        self._stored = stored
        self._sources = sources
        self._coded = {name: source for name, source in sources.items() if isinstance(source, CodedWeight)}
        self._left_out = left_out
        self.format = stored.format
        self.config = stored.config
        self.folder = stored.folder
        self.can_be_written = stored.can_be_written
        self.quantised = frozenset(self._coded)
        self.left_out = {**stored.left_out, **left_out}
        self.left_out_forms = {**stored.left_out_forms, **{name: _form(stored, name) for name in left_out}}
        owners = {source.stored[0]: name for name, source in self._coded.items()}
        tied = {name: owners.get(other, other) for name, other in stored.tied.items()}
        self.tied = {name: other for name, other in tied.items() if other in sources}
        written = {name: source.written for name, source in self._coded.items()}
        self.stored_as = {name: text for name, text in stored.stored_as.items() if name in sources} | written

    @property
    def files(self) -> tuple[Location, ...]:
        """The files that hold the tensors."""
        return self._stored.files

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order in which they, or their codes, are stored."""
        return tuple(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; of a quantised weight, that of the weight."""
        name = self._checked(name)
        return self._coded[name].shape if name in self._coded else self._stored.shape(name)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; quantised weights are of float32."""
        name = self._checked(name)
        return np.dtype(np.float32) if name in self._coded else self._stored.dtype(name)

    def tensor(self, name: str) -> Array:
        """Read one tensor; a quantised weight comes as `ScaledWeights`, or multiplied out to float32."""
        name = self._checked(name)
        if name not in self._coded:
            return self._stored.tensor(name)
        source = self._coded[name]
        self._check_memory(name, math.prod(source.shape))
        parts = {role: self._stored.tensor(part) for role, part in source.parts.items()}
        with (
            as_checkpoint_error(self.path, name, IndexError),  # of a table that is too short
            np.errstate(over="ignore", invalid="ignore"),  # a scale that float32 does not hold is refused as infinite
        ):
            return cast(Array, source.decode(parts))  # a ScaledWeights has what is asked of an array

    def file_of(self, name: str) -> str:
        """Return the name of the file that holds a tensor, or its codes."""
        name = self._checked(name)
        return self._stored.file_of(self._coded[name].stored[0] if name in self._coded else name)

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
        room: int = 0,
    ) -> None:
        """Write a file of the same stored tensors; a quantised weight cannot be changed. See `Checkpoint.rewrite`."""
        owners = {source.stored[0]: name for name, source in self._coded.items()}

        def change_stored(part: str, array: Array) -> Array:
            if part in owners:
                self._check_unchanged(owners[part], change)
            return change(part, array) if part in self._sources and part not in self._coded else array

        self._stored.rewrite(target, change_stored, resume=resume, beside=beside, room=room)

    def close(self) -> None:
        """Let go of the files."""
        self._stored.close()

    def _check_unchanged(self, name: str, change: Change) -> None:
        weights = np.asarray(self.tensor(name))
        if not np.array_equal(change(name, weights), weights):
            raise CheckpointError(
                f"{self.path}, tensor '{name}', cannot be rewritten: it is quantised, stored as {self.stored_as[name]}."
            )


def with_quantised_weights(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with its quantised weights as weights: itself, where it holds none.

    What is a quantised weight, and of which kind, is told by the names, types and shapes of its parts, and by the
    config.json beside them; a kind is a function in `CODE_FORMATS`. Parts that fit no kind, or that are not all
    there, are in `Checkpoint.left_out` with the reason.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its tensors under the names of the model, the parts of quantised weights one by one.

    Returns
    -------
    Checkpoint
        ``X.weight`` where it holds ``X.qweight``, ``X.qzeros`` and ``X.scales``, or ``X.weight`` and
        ``X.weight_scale``; `Checkpoint.stored_as` has the formula.
    """
    quantisation = CodedWeightSettings(checkpoint)
    modules = list(_modules(checkpoint, quantisation))
    found = [each for module in modules for each in _of_module(module)]
    taken = {part for each in found for part in each.stored}
    if found or quantisation.settings:
        found += [each for module in modules for each in _without_scales(module, taken)]
    if not found:
        return checkpoint
    if quantisation.unread:
        unknown = f"quantised, and nothing tells how, for {quantisation.unread}"
        found = [UnreadCodedWeight(each.stored, unknown) for each in found]
    coded = {each.stored[0]: each for each in found if isinstance(each, CodedWeight)}
    parts = {part for each in found for part in each.stored}
    sources: dict[str, str | CodedWeight] = {}
    for stored in checkpoint.names:
        if stored in coded:
            sources[coded[stored].name] = coded[stored]
        elif stored not in parts:
            sources[stored] = stored
    refused = (each for each in found if isinstance(each, UnreadCodedWeight))
    return QuantisedCheckpoint(checkpoint, sources, dict(chain.from_iterable(map(_reasons, refused))))


def _form(checkpoint: Checkpoint, name: str) -> tuple[tuple[int, ...], str]:
    """Return the shape and the dtype of a stored tensor; no dtype where numpy has no name for it."""
    try:
        return checkpoint.shape(name), checkpoint.dtype(name).name
    except CheckpointError:
        return checkpoint.shape(name), ""


def _reasons(refused: UnreadCodedWeight) -> Iterator[tuple[str, str]]:
    codes, *others = refused.stored
    yield codes, refused.reason
    for other in others:
        yield other, f"part of '{codes}', which is not read"


def _modules(checkpoint: Checkpoint, quantisation: CodedWeightSettings) -> Iterator[CodedModule]:
    """Yield the modules of a checkpoint that hold tensors, by their names."""
    owns: dict[str, list[str]] = {}
    for name in checkpoint.names:
        before, state, after = name.partition(_STATE)
        path = before.rpartition(".")[0]
        owns.setdefault(path, []).append(name[len(path) + 1 :] if path else name)
        if state and not after:
            owns[path][-1] = name
    for path in filter(None, list(owns)):  # "fc.weight" is a weight and no module, though there is "fc.weight.absmax"
        parent, _, last = path.rpartition(".")
        if last in owns.get(parent, ()):
            owns[parent] += [f"{last}.{own}" for own in owns.pop(path)]
    for path, own in owns.items():
        yield CodedModule(checkpoint, f"{path}." if path else "", own, quantisation)


def _of_module(module: CodedModule) -> Iterator[CodedWeight | UnreadCodedWeight]:
    taken: set[str] = set()
    for kind in CODE_FORMATS:
        for own in module.own:
            found = None if module.stored(own) in taken else kind(module, own)
            if found is not None:
                taken |= set(found.stored)
                yield found


def _without_scales(module: CodedModule, taken: set[str]) -> Iterator[UnreadCodedWeight]:
    """Yield the float8 matrices of a quantised model that have no scales: they are not the weights."""
    for own in module.own:
        is_matrix = module.stored(own) not in taken and len(module.shape(own)) >= 2
        if is_matrix and module.dtype(own) in FLOAT8:
            yield module.refused((own,), "float8 codes of a quantised model, whose scales are not in what was opened")
