"""What every format of weights on disk offers: its tensors by name, headers first, each array read when it is due."""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from topobounds._memory import check_memory
from topobounds._types import Array
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import check_new_path, check_suffix

if TYPE_CHECKING:
    from topobounds.checkpoint.described import Described
    from topobounds.checkpoint.location import Location
    from topobounds.checkpoint.rewriting import BesideWriter, Change


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Checkpoint(ABC):
    """The tensors of a file of weights, or of several; a context manager that closes them.

    Opening reads headers only.

    Attributes
    ----------
    path : pathlib.Path
        What was opened; an object much like one where it is a URL.
    format : str
        ``"safetensors"``.
    files : tuple of pathlib.Path
        The files that hold the tensors.
    names : tuple of str
        The tensors, in the order in which they are stored; each tensor once.
    tied : mapping of str to str
        Names that stand for the tensor of another name, which is in `names`.
    left_out : mapping of str to str
        What the files hold besides and is not read, with the reason.
    left_out_forms : mapping of str to (tuple of int, str)
        Shape and dtype of tensors that are left out, as far as the headers tell; ``""`` for a dtype without a name.
    stored_as : mapping of str to str
        How a tensor is stored where that is not under its own name: ``"module.fc.weight"``, or
        ``"fc.weight_orig * fc.weight_mask"``, ``"fc.weight * fc.weight_scale, a scale for each row"``.
    config : mapping
        What the ``config.json`` says that describes the model; empty where there is none.
    folder : pathlib.Path or None
        The folder that was opened, all of which is written when this is written anew; None where it was a file.
    can_be_written : bool
        Whether `rewrite` can write this format.
    quantised : collection of str
        Tensors that are stored as codes and read as the weights that these stand for; they cannot be changed.
    described : mapping of str to (Described or str)
        What the file itself says a tensor is: the layer that reads it, or the reason why it is none.
    holds_state_dict : bool
        Whether its names may be those of wrappers, and its tensors parts of weights, as in the state dict of a module.
    """

    format: str
    tied: Mapping[str, str] = NOTHING
    left_out: Mapping[str, str] = NOTHING
    left_out_forms: Mapping[str, tuple[tuple[int, ...], str]] = NOTHING
    stored_as: Mapping[str, str] = NOTHING
    config: Mapping[str, Any] = NOTHING
    folder: "Location | None" = None
    can_be_written: bool = False
    quantised: Collection[str] = ()
    described: "Mapping[str, Described | str]" = NOTHING
    holds_state_dict: bool = True

    def __init__(self, path: "Location") -> None:
        self.path = path

    @property
    def files(self) -> "tuple[Location, ...]":
        """The files that hold the tensors."""
        return (self.path,)

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order in which they are stored."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, from the header."""

    @abstractmethod
    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor, from the header; bfloat16 and float8 are those of ml_dtypes.

        Raises
        ------
        CheckpointError
            If numpy has no name for it.
        """

    @abstractmethod
    def tensor(self, name: str) -> Array:
        """Read one tensor; the array may be a read-only view of the file.

        A quantised weight is a `topobounds.weights.ScaledWeights`, which is taken wherever weights are, or an array
        of float32.

        Raises
        ------
        CheckpointError
            If the file is damaged there, or holds no plain array of numbers.
        """

    def file_of(self, name: str) -> str:
        """Return the name of the file that holds a tensor, within its folder; empty where there is none."""
        return self.files[0].name if self.files else ""

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: "Change",
        *,
        resume: str | None = None,
        beside: "BesideWriter | None" = None,
        room: int = 0,
    ) -> None:
        """Write a checkpoint of the same format, files, names, dtypes and metadata, with some of the tensors changed.

        One tensor at a time is read, changed and written; the bytes of one that `change` returns as it is are copied.
        Of a folder everything else is copied too, hidden files left out, and the ``total_size`` of an index is put
        right.

        Parameters
        ----------
        target : path
            The new file, or the new folder where this was opened as one; it appears whole or not at all.
        change : callable
            ``change(name, array)`` returns what takes the array's place: of its shape and dtype, or the array itself.
            It is written, or copied, before the next call, which may overwrite it.
        resume : str, optional
            What tells this rewriting from others. One that was killed or interrupted leaves what it has written in
            ``.TARGET.partial``; the next one of the same text keeps the files that are finished there. `change` is
            called for their tensors all the same.
        beside : callable, optional
            ``beside(folder)`` returns a context manager, which is entered before the first call of `change` and left
            after the last; what it writes into the folder appears with the target, or beside it where that is a file.
        room : int
            Bytes that it will write.

        Raises
        ------
        CheckpointError
            If this format cannot be written, `target` is there already or lies in the folder that is rewritten, the
            disk lacks the room, or `change` returns another shape or dtype.
        """
        raise self._not_written()

    def _not_written(self) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be rewritten: topobounds does not write {self.format} files.")

    def check_target(self, target: str | os.PathLike[str]) -> None:
        """Refuse what `rewrite` cannot write, or not there.

        Raises
        ------
        CheckpointError
            If this format cannot be written, is not on this machine, or the target is there, lies in the folder that
            is rewritten, has no folder to be in, or has the name of a file of another format.
        """
        source, place = self.folder or self.path, Path(target)
        if not self.can_be_written:
            raise self._not_written()
        if not isinstance(source, Path):
            raise CheckpointError(f"{source} cannot be rewritten: it is not on this machine. Download it first.")
        check_new_path(place)
        if self.folder is None:
            check_suffix(place, self.format, source)
        elif place.resolve().is_relative_to(source.resolve()):
            raise CheckpointError(f"{target} lies in {source}, which is to stay as it is: give a place outside.")

    def close(self) -> None:  # noqa: B027 -- most formats hold nothing open
        """Let go of the files; what was read stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def _checked(self, name: str) -> str:
        """Return the name under which a tensor is read: that of the tensor it is tied to, or its own."""
        stored = self.tied.get(name, name)
        if stored not in self._known:
            raise CheckpointError(f"{self.path} has no tensor '{name}'.")
        return stored

    def _check_memory(self, name: str, n_bytes: int) -> None:
        """Refuse to read a tensor of so many bytes if there is no memory for it."""
        try:
            check_memory(f"{self.path}, tensor '{name}',", n_bytes)
        except ValueError as error:
            raise CheckpointError(str(error)) from None

    def changed(self, name: str, change: "Change") -> Array:
        """Return what takes a tensor's place in a rewritten file."""
        array = self.tensor(name)
        return self.checked_change(name, array, change(name, array))

    def checked_change(self, name: str, array: Array, new: Array) -> Array:
        """Return what takes an array's place, if it has its shape and dtype."""
        if new.shape != array.shape or new.dtype != array.dtype:
            kinds = f"{new.dtype} {new.shape}, not {array.dtype} {array.shape}"
            raise CheckpointError(f"{self.path}, tensor '{name}', cannot be rewritten: its change is {kinds}.")
        return new


class Reader(Protocol):
    """A format of checkpoints; to add one, register an object like this in the entry-point group topobounds.readers."""

    def can_open(self, path: "Location", /) -> bool:
        """Whether this is the format of a file or folder, by its first bytes or its name; nothing is raised."""

    def open(self, path: "Location", /) -> Checkpoint:
        """Open a file or folder of this format; of a URL, `path` has the methods of a Path that reading takes.

        Raises
        ------
        CheckpointError
            If it cannot be read, or is damaged.
        """
