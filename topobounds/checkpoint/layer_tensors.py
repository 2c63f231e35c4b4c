"""The layers of a checkpoint: each of its tensors as the graphs that it is read as, or the reason why it is none."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from topobounds._arguments import argument_error, integer, items
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.kernels import assumed_geometry, kernel_words
from topobounds.checkpoint.memory import ArraysCheckpoint
from topobounds.checkpoint.stored import Names, Stored
from topobounds.checkpoint.tensor_kinds import kind_of
from topobounds.layers import Conv, LayerTensor

NEAREST = 3  # names that are told where one matches nothing


@dataclass(frozen=True)
class Reading:
    """What the tensors of a checkpoint are: every name is in `layers`, `left_out` or `tied`.

    Attributes
    ----------
    layers : tuple of LayerTensor
        In the order in which they are stored.
    left_out : dict of str to str
        What is no layer, or is not read, and why; with what the files hold besides tensors.
    forms : dict of str to (tuple of int, str)
        Shape and dtype of what is left out, where the file tells them; ``""`` for a dtype that numpy has no name for.
    tied : dict of str to str
        Names that stand for the tensor of another name.
    """

    layers: tuple[LayerTensor, ...]
    left_out: dict[str, str]
    forms: dict[str, tuple[tuple[int, ...], str]]
    tied: dict[str, str]


def layer_tensors(
    checkpoint: Checkpoint | Mapping[str, Any],
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    geometry: Any = None,
) -> Iterator[LayerTensor]:
    """Yield the layers of a checkpoint: each weight tensor with the graphs that it is read as. No weight is read.

    What a tensor is follows from its name, its shape, its neighbours and the config.json; `LayerTensor.assumed` says
    what was guessed.

    Parameters
    ----------
    checkpoint : Checkpoint or mapping of str to array_like
        From `topobounds.open_checkpoint`, or arrays by name.
    include, exclude : sequence of str
        Patterns of names, with ``*`` and ``?``, that are read alone, and that are not read.
    geometry : path, optional
        A TOML file that says what tensors are.

    Yields
    ------
    LayerTensor
        In the order in which the tensors are stored.

    Raises
    ------
    ValueError
        If a pattern matches nothing.
    CheckpointError
        If `geometry` cannot be read.

    Returns
    -------
    Iterator of LayerTensor
        See above.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = {"rnn.weight_ih_l0": np.ones((12, 5)), "rnn.weight_hh_l0": np.ones((12, 3)), "fc.bias": np.ones(3)}
    >>> for tensor in layer_tensors(arrays):
    ...     print(tensor.part_names[1], tensor.kind, tensor.read_as[1])
    rnn.weight_ih_l0[forget] dense gate 2 of 4 (forget), 5 inputs x 3 outputs
    rnn.weight_hh_l0[forget] recurrent gate 2 of 4 (forget), 3 inputs x 3 outputs
    """
    yield from read_tensors(checkpoint, include=include, exclude=exclude, geometry=geometry).layers


def read_tensors(
    checkpoint: Checkpoint | Mapping[str, Any],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    geometry: Any = None,
    input_size: Sequence[int] | None = None,
) -> Reading:
    """Return what each tensor of a checkpoint is.

    Parameters
    ----------
    checkpoint, include, exclude, geometry
        As in `layer_tensors`.
    input_size : sequence of int, optional
        Size of the map that convolutions without a geometry are taken to read, perhaps after its channels; 8 cells
        along each dimension by default.

    Raises
    ------
    ValueError
        As `layer_tensors`.
    """
    stored = checkpoint if isinstance(checkpoint, Checkpoint) else ArraysCheckpoint(checkpoint)
    names = Names(stored)
    excluded = _excluded(list(names.dtypes), include, exclude)
    sizes = () if input_size is None else _input_size(input_size)
    layers: list[LayerTensor] = []
    left_out: dict[str, str] = {}
    for name in names.dtypes:
        answer = excluded.get(name) or kind_of(Stored(name, names))
        if isinstance(answer, str):
            left_out[name] = answer
        else:
            layers.append(_completed(answer, sizes))
    forms = {name: (names.shapes.get(name, ()), Stored(name, names).dtype) for name in left_out}
    return Reading(tuple(layers), left_out | dict(stored.left_out), forms, dict(stored.tied))


def _completed(tensor: LayerTensor, input_size: Sequence[int]) -> LayerTensor:
    """Return a tensor with a geometry, where it is a kernel."""
    if tensor.kind != "conv":
        return tensor
    conv, assumed = (tensor.geometry, tensor.assumed) if tensor.geometry else assumed_geometry(tensor, input_size)
    words = (kernel_words(conv),) * len(tensor.parts) if isinstance(conv, Conv) else tensor.words
    return replace(tensor, geometry=conv, assumed=assumed, words=words)


def _input_size(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(integer("input_size", size, 1) for size in items("input_size", sizes, "positive integers"))


def _excluded(names: Sequence[str], include: Iterable[str], exclude: Iterable[str]) -> dict[str, str]:
    """Return the names that patterns leave out, and why."""
    wanted, unwanted = (
        _patterns(argument, given, names) for argument, given in (("include", include), ("exclude", exclude))
    )
    found: dict[str, str] = {}
    for name in names:
        if wanted and not any(fnmatchcase(name, pattern) for pattern in wanted):
            found[name] = "not included"
        elif any(fnmatchcase(name, pattern) for pattern in unwanted):
            found[name] = "excluded"
    return found


def _patterns(argument: str, given: Iterable[str], names: Sequence[str]) -> list[str]:
    patterns = [given] if isinstance(given, str) else items(argument, given, "patterns of names")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise argument_error(argument, "a sequence of patterns of names", pattern)
        if not any(fnmatchcase(name, pattern) for name in names):
            raise no_such_name(argument, pattern, names)
    return patterns


def no_such_name(argument: str, pattern: str, names: Sequence[str]) -> ValueError:
    """Return the error for a pattern that matches no tensor, with the nearest names."""
    near = difflib.get_close_matches(pattern, names, NEAREST, 0.4) or list(names[:NEAREST])
    nearest = f"; the nearest are {', '.join(near)}" if near else "; there is none"
    return ValueError(f"Argument '{argument}' must match the name of a tensor, which '{pattern}' does not{nearest}.")
