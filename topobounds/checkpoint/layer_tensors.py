"""The layers of a checkpoint: each of its tensors as the graphs that it is read as, or the reason why it is none."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, cast

from topobounds._arguments import argument_error, integer, items
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.config import tied_though_stored
from topobounds.checkpoint.described import Described
from topobounds.checkpoint.geometry import Geometry, geometry_content
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.kernels import assumed_geometry, kernel_words
from topobounds.checkpoint.stored import Stored, StoredTensors, nearest_names
from topobounds.checkpoint.tensor_kinds import kind_of
from topobounds.layers import Conv, LayerTensor

GivenGeometry = str | os.PathLike[str] | Mapping[str, Any]
"""A geometry: a TOML file, or its content."""
_USED_AS_STORED = "used as it is stored, though config.json ties it to '{}', which programs may load in its place"


@dataclass(frozen=True)
class LayerTensorReading:
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
    damaged : frozenset of str
        What is left out as the file does not even tell its shape.
    """

    layers: tuple[LayerTensor, ...]
    left_out: dict[str, str]
    forms: dict[str, tuple[tuple[int, ...], str]]
    tied: dict[str, str]
    damaged: frozenset[str] = frozenset()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all names; an array that is damaged may not tell its own again."""
        shapes = {name: shape for name, (shape, _) in self.forms.items()}
        shapes |= {layer.name: layer.shape for layer in self.layers}
        return shapes | {name: shapes[owner] for name, owner in self.tied.items() if owner in shapes}


def layer_tensors(
    checkpoint: Checkpoint | Mapping[str, Any],
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    geometry: GivenGeometry | None = None,
) -> Iterator[LayerTensor]:
    """Return the layers of a checkpoint: each weight tensor with the graphs that it is read as. No weight is read.

    What a tensor is follows from its name, its shape, its neighbours and the config.json; `LayerTensor.assumed` says
    what was guessed.

    Parameters
    ----------
    checkpoint : Checkpoint or mapping of str to array_like
        From `topobounds.open_checkpoint`, or arrays by name.
    include, exclude : sequence of str
        Patterns of names, with ``*`` and ``?``, that are read alone, and that are not read.
    geometry : path, or mapping of str to mapping, optional
        A TOML file that says what tensors are, or its content: for each pattern of names a table of ``kind``
        (``dense``, ``conv``, ``recurrent``, ``embedding``, ``none``), ``inputs_first``, ``gates``, ``parts``,
        ``sizes``, ``interleaved``, ``stacked``, and of kernels ``stride``, ``padding``, ``padding_end``,
        ``padding_mode``, ``dilation``, ``output_padding``, ``input``, ``groups``, ``transposed``,
        ``channels_last``. Where several patterns match a name, the later count, key by key.

    Returns
    -------
    iterator of LayerTensor
        In the order in which the tensors are stored.

    Raises
    ------
    ValueError
        If a pattern matches nothing, or `geometry` says what is unknown or impossible.
    CheckpointError
        If `geometry` cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = {"rnn.weight_ih_l0": np.ones((12, 5)), "rnn.weight_hh_l0": np.ones((12, 3)), "fc.bias": np.ones(3)}
    >>> for tensor in layer_tensors(arrays):
    ...     print(tensor.part_names[1], tensor.kind, tensor.read_as[1])
    rnn.weight_ih_l0[forget] dense gate 2 of 4 (forget), 5 inputs x 3 outputs
    rnn.weight_hh_l0[forget] recurrent gate 2 of 4 (forget), 3 inputs x 3 outputs
    """
    return iter(read_layer_tensors(checkpoint, include=include, exclude=exclude, geometry=geometry).layers)


def read_layer_tensors(
    checkpoint: Checkpoint | Mapping[str, Any],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    geometry: GivenGeometry | None = None,
    input_size: Sequence[int] | None = None,
) -> LayerTensorReading:
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
    tensors = StoredTensors(stored)
    excluded = _excluded(tensors.dtypes, stored.tied, include, exclude)
    sizes = () if input_size is None else _input_size(input_size)
    layers: list[LayerTensor] = []
    left_out: dict[str, str] = {}
    given = None if geometry is None else Geometry(geometry, tensors.dtypes)
    heads = tied_though_stored(tensors.config, tensors.dtypes)
    for name in tensors.dtypes:
        each = Stored(name, tensors)
        answer = excluded.get(name) or _described(stored, name, sizes) or kind_of(each)
        if name in heads and isinstance(answer, LayerTensor):
            answer = replace(answer, assumed=_USED_AS_STORED.format(heads[name]))
        if given is not None and name not in excluded:
            answer = given.applied(each, answer, sizes)
        if isinstance(answer, str):
            left_out[name] = answer
        else:
            layers.append(replace(_completed(answer, sizes), source=stored.file_of(name)))
    if given is not None:
        given.check_used()
    forms = {name: (tensors.shapes.get(name, ()), Stored(name, tensors).dtype) for name in left_out}
    forms |= stored.left_out_forms
    damaged = frozenset(left_out) & (tensors.dtypes.keys() - tensors.shapes.keys())
    return LayerTensorReading(tuple(layers), left_out | dict(stored.left_out), forms, dict(stored.tied), damaged)


def _described(checkpoint: Checkpoint, name: str, input_size: Sequence[int]) -> LayerTensor | str | None:
    """Return what the file itself says a tensor is; None where it says nothing."""
    found = checkpoint.described.get(name)
    if not isinstance(found, Described):
        return found
    tensor = replace(found.tensor, dtype=checkpoint.dtype(name).name)
    if tensor.kind != "conv":
        return tensor
    try:
        conv, assumed = assumed_geometry(tensor, input_size, found.conv)
    except ValueError as error:
        return f"a kernel whose geometry is impossible: {str(error).rstrip('.')}"
    return replace(tensor, geometry=conv, assumed=assumed)


def _completed(tensor: LayerTensor, input_size: Sequence[int]) -> LayerTensor:
    """Return a tensor with a geometry, where it is a kernel."""
    if tensor.kind != "conv":
        return tensor
    if tensor.geometry is None:
        conv, assumed = assumed_geometry(tensor, input_size)
        tensor = replace(tensor, geometry=conv, assumed="; ".join(filter(None, (tensor.assumed, assumed))))
    words = kernel_words(cast(Conv, tensor.geometry))
    return replace(tensor, words=tuple(f"{word}: {words}" for word in tensor.words) or (words,))


def check_given_geometry(geometry: GivenGeometry | None, input_size: Sequence[int] | None) -> None:
    """Refuse a geometry or an input size that could be of no checkpoint, before one is opened.

    Raises
    ------
    CheckpointError
        If `geometry` cannot be read.
    ValueError
        If `input_size` is not the size of an image or another map: one or several positive integers.
    """
    if geometry is not None:
        geometry_content(geometry)
    if input_size is not None:
        _input_size(input_size)


def _input_size(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(integer("input_size", size, 1) for size in items("input_size", sizes, "positive integers"))


def _excluded(
    names: Iterable[str], tied: Mapping[str, str], include: Iterable[str], exclude: Iterable[str]
) -> dict[str, str]:
    """Return the names that patterns leave out, and why; a tensor goes by the names that are tied to it, too."""
    owners = {name: name for name in names} | dict(tied)
    wanted = _matched("include", include, owners)
    unwanted = _matched("exclude", exclude, owners)
    found = {name: "excluded" for name in owners.values() if name in (unwanted or ())}
    return found | ({} if wanted is None else {n: "not included" for n in owners.values() if n not in wanted})


def _matched(argument: str, given: Iterable[str], owners: Mapping[str, str]) -> set[str] | None:
    """Return the tensors that patterns match; None where there is no pattern."""
    patterns = [given] if isinstance(given, str) else items(argument, given, "patterns of names")
    found: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise argument_error(argument, "a sequence of patterns of names", pattern)
        matched = {owner for name, owner in owners.items() if name == pattern or fnmatchcase(name, pattern)}
        if not matched:
            near = nearest_names(pattern, owners)
            rule = f"must match the name of a tensor, which '{pattern}' does not"
            raise ValueError(f"Argument '{argument}' {rule}{near}.")
        found |= matched
    return found if patterns else None
