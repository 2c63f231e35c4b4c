"""Arrays beside a checkpoint, one for each of its tensors: masks, or scores that rank the weights."""

import difflib
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, file_name
from topobounds._text import shortened
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.opening import open_checkpoint
from topobounds.weights import non_zero, what_is_not_finite

MASK_SUFFIX = "_mask"
"""What torch.nn.utils.prune adds to the name of a weight for that of its mask."""
MasksOrScores = Mapping[str, ArrayLike] | str | os.PathLike[str]


class PerTensorArrays:
    """The arrays of a second file, by the names of the tensors that they belong to; a context manager.

    Parameters
    ----------
    argument : str
        What the user calls it: ``"mask"``.
    given : path, or mapping of str to array_like
        The file or the arrays.
    shapes : mapping of str to tuple of int
        The tensors of the checkpoint beside which it lies.
    wanted : collection of str
        Those that are read as layers; nothing where it does not matter whether one of them has an array.

    Raises
    ------
    CheckpointError
        If the file cannot be read.
    ValueError
        If an array has the name or the shape of no tensor, or none that of one of `wanted`.
    """

    def __init__(
        self, argument: str, given: MasksOrScores, shapes: Mapping[str, tuple[int, ...]], wanted: Collection[str]
    ) -> None:
        self.argument = argument
        self.label = "arrays" if isinstance(given, Mapping) else os.fspath(given)
        self.checkpoint: Checkpoint
        if isinstance(given, Mapping):
            self.checkpoint = ArraysCheckpoint(
                {name: array if hasattr(array, "dtype") else np.asarray(array) for name, array in given.items()}
            )
        else:
            self.checkpoint = open_checkpoint(file_name(argument, given))
        self._names: dict[str, str] = {}  # of the arrays, by those of their tensors
        try:
            self._check_all(shapes, wanted)
        except BaseException:
            self.checkpoint.close()
            raise

    def _check_all(self, shapes: Mapping[str, tuple[int, ...]], wanted: Collection[str]) -> None:
        for name in (*self.checkpoint.names, *self.checkpoint.tied):
            tensor = name if name in shapes else name.removesuffix(MASK_SUFFIX)
            self._check(name, tensor, shapes)
            self._names[tensor] = name
        if wanted and not any(name in self._names for name in wanted):
            rule = f"arrays for some of the layers: {_listed(wanted)}"
            raise argument_error(self.argument, rule, list(self._names))

    def _check(self, name: str, tensor: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if tensor not in shapes:
            near = difflib.get_close_matches(tensor, shapes, n=3, cutoff=0.0)
            raise argument_error(
                self.argument, f"arrays under the names of the tensors (the nearest are {_listed(near)})", name
            )
        shape = self.checkpoint.shape(name)
        if shape != shapes[tensor]:
            rule = f"arrays of the shapes of the tensors: '{name}' is to have {shapes[tensor]}"
            raise argument_error(self.argument, rule, shape)

    def __contains__(self, name: str) -> bool:
        """Return whether there is an array for a tensor."""
        return name in self._names

    @property
    def absence(self) -> str:
        """What is said of a tensor for which there is none."""
        return f"{self.label} holds no {self.argument} for it"

    def array(self, name: str) -> NDArray[Any]:
        """Return the array of a tensor."""
        return self.checkpoint.tensor(self._names[name])

    def __enter__(self) -> "PerTensorArrays":
        return self

    def __exit__(self, *raised: object) -> None:
        self.checkpoint.close()


def scores_not_finite(scores: NDArray[Any], weights: NDArray[Any]) -> str | None:
    """Return in words which scores of a tensor are NaN or infinite; None if none is.

    A score ranks a weight that is there: those of weights that are zero are not looked at, and may be anything.

    Examples
    --------
    >>> scores_not_finite(np.array([[np.nan, 1.0]]), np.array([[0.0, 2.0]]))
    >>> scores_not_finite(np.array([[np.nan, 1.0]]), np.array([[3.0, 2.0]]))
    '1 of its 2 entries are NaN or infinite, the first at row 0, column 0: nan'
    """
    rows = (len(scores), -1)
    return what_is_not_finite(scores.reshape(rows), non_zero(weights).reshape(rows), scores.shape)


def _listed(names: Collection[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in list(names)[:most])
    return shortened(shown if len(names) <= most else f"{shown}, ...")
