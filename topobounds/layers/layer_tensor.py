"""A stored weight tensor, and the layer graphs that it is read as. It holds no array."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from topobounds._text import counted
from topobounds.layers.dense import Dense
from topobounds.layers.layer import SingleTensorLayer
from topobounds.layers.layout import ROWS, Layout
from topobounds.layers.recurrent import Recurrent

Scalar = TypeVar("Scalar", bound=np.generic)
WHOLE = ("",)
"""The parts of a tensor that is one graph."""
GATES = {
    "RNN": WHOLE,
    "GRU": ("reset", "update", "new"),
    "LSTM": ("input", "forget", "cell", "output"),
}
"""The gates of each recurrent layer, in the order in which torch stacks them."""


def numbered_parts(n_parts: int) -> tuple[str, ...]:
    """Return names for parts that have none: their numbers, from 0.

    Examples
    --------
    >>> numbered_parts(3), numbered_parts(1)
    (('0', '1', '2'), ('',))
    """
    return WHOLE if n_parts == 1 else tuple(map(str, range(n_parts)))


def gate_words(gates: tuple[str, ...], whole: str) -> tuple[str, ...]:
    """Return what the gates of a recurrent layer are, for people."""
    if gates == ("",):
        return (whole,)
    return tuple(f"gate {place} of {len(gates)} ({gate})" for place, gate in enumerate(gates, 1))


@dataclass(frozen=True)
class LayerTensor:
    """A stored weight tensor, and the layer graphs that it is read as.

    Attributes
    ----------
    name : str
        As in the model or the file: ``"encoder.weight_ih_l0"``.
    shape : tuple of int
        Of the tensor, at least two dimensions; empty where it is not known, as of a module that makes its weights when
        it is called.
    kind : str
        What its graphs are: ``"dense"``, ``"recurrent"``, ``"conv"`` or ``"embedding"``.
    parts : tuple of str
        The graphs that it holds: the gates of a recurrent layer, the query, key and value projections of attention, the
        groups of a kernel, the experts of a mixture, ``"3 gate"`` where an expert has several. ``("",)`` for one graph.
    geometry : SingleTensorLayer or None
        The shape of the graph where that of the tensor does not tell it: of a kernel its `Conv`. None: the matrix of
        the first dimension and the rest.
    groups : int
        Groups of a kernel.
    inputs_first : bool
        Whether the first dimension is the inputs: of an embedding, a transposed convolution, GPT-2's linear layers.
    source : str
        Where it comes from: the module of the model, by its path, or the file that holds it.
    layout : Layout
        How the parts lie in the tensor; in equal blocks of rows, unless it says otherwise.
    words : tuple of str
        What each part is, for people: ``"gate 2 of 4 (forget)"``; empty where `kind` says it.
    assumed : str or None
        What was guessed to read it so: the stride of a kernel in a file. None where nothing was.
    dtype : str
        Type of the stored weights: ``"bfloat16"``; empty where it is not known.

    Examples
    --------
    >>> gates = LayerTensor("weight_ih_l0", (64, 8), parts=GATES["LSTM"])
    >>> gates.part_names[0], gates.graph
    ('weight_ih_l0[input]', Dense(m=8, n=16))
    """

    name: str
    shape: tuple[int, ...] = ()
    kind: str = "dense"
    parts: tuple[str, ...] = WHOLE
    geometry: SingleTensorLayer | None = None
    groups: int = 1
    inputs_first: bool = False
    source: str = ""
    layout: Layout = ROWS
    words: tuple[str, ...] = ()
    assumed: str | None = None
    dtype: str = ""

    @property
    def own_name(self) -> str:
        """The name within its source: ``"weight_ih_l0"``."""
        return self.name.removeprefix(f"{self.source}.") if self.source else self.name

    @property
    def n_weights(self) -> int:
        """Stored weights."""
        return math.prod(self.shape)

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of its graphs, the part in brackets where there are several: ``"weight_ih_l0[forget]"``."""
        return tuple(f"{self.name}[{part}]" if part else self.name for part in self.parts)

    @property
    def read_as(self) -> tuple[str, ...]:
        """Each part in words, with the size of its graph: ``"gate 2 of 4 (forget), 128 inputs x 128 outputs"``."""
        words = self.words or (_WORDS.get(self.kind, self.kind),) * len(self.parts)
        return tuple(
            word
            if graph is None
            else f"{word}, {counted(graph.n_inputs, 'input')} x {counted(graph.n_outputs, 'output')}"
            for word, graph in zip(words, self.graphs, strict=True)
        )

    @property
    def graphs(self) -> tuple[SingleTensorLayer | None, ...]:
        """The graph of each part; None where it is not known, of a kernel without geometry."""
        if self.kind == "conv" and self.geometry is None:
            return (None,) * len(self.parts)
        return self.matrix_graphs

    @property
    def matrix_graphs(self) -> tuple[SingleTensorLayer, ...]:
        """The graph of each part, a kernel without geometry being read as the matrix of its rows and the rest."""
        if self.geometry is not None:
            return (self.geometry,) * len(self.parts)
        return tuple(self._matrix_graph(*shape) for shape in self.part_shapes())

    def part_shapes(self) -> list[tuple[int, int]]:
        """Return rows and columns of each part, read as a matrix as it is stored.

        Raises
        ------
        ValueError
            If the tensor cannot be cut into its parts.
        """
        return [self._matrix_shape(shape) for shape in self.layout.part_shapes(self.shape, len(self.parts))]

    def _matrix_graph(self, rows: int, columns: int) -> SingleTensorLayer:
        if self.kind == "recurrent":
            return Recurrent(columns)
        return Dense(rows, columns) if self.inputs_first else Dense(columns, rows)

    def _matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        axes = self.layout.row_axes
        return math.prod(shape[:axes]), math.prod(shape[axes:])

    @property
    def graph(self) -> SingleTensorLayer:
        """The shape of the graph of each part; of the first, where they are of several sizes."""
        return self.matrix_graphs[0]

    @property
    def shares_weights(self) -> bool:
        """Whether a stored weight makes several edges, so that critical weights are not the edges of a forest."""
        return self.graph.n_critical is None

    @property
    def n_critical(self) -> int | None:
        """Weights that carry the topology whatever the weights are, over all parts; None where they decide."""
        critical = [graph.n_critical for graph in self.matrix_graphs]
        return None if None in critical else sum(each or 0 for each in critical)

    def with_geometry(self, geometry: SingleTensorLayer | None) -> "LayerTensor":
        """Return a kernel as one graph on the neurons of a geometry, or, without one, as a matrix for each group.

        Any other tensor is returned as it is.

        Examples
        --------
        >>> LayerTensor("conv.weight", (8, 2, 3, 3), "conv", groups=4).with_geometry(None).graph
        Dense(m=18, n=2)
        """
        if self.kind != "conv":
            return self
        parts = WHOLE if geometry is not None else numbered_parts(self.groups)
        return replace(self, geometry=geometry, parts=parts)

    def split(self, array: NDArray[Scalar]) -> list[NDArray[Scalar]]:
        """Return the parts of an array of the tensor's shape, each a matrix, or a kernel as torch has it.

        They are views, but for parts that are interleaved in pieces of several rows, which are copied. Weights with
        scales are cut as they are where their parts lie in one piece side by side, and are multiplied out elsewhere.
        """
        is_kernel = self.kind == "conv" or self.geometry is not None
        if len(self.parts) == 1 and self.layout == ROWS and (is_kernel or array.ndim == 2):
            return [array]
        shapes = self._split_shapes(array.shape)
        if not (hasattr(array, "strides") or self.layout.cuts_one_axis):
            array = np.asarray(array)
        places = self.layout.places(array, len(self.parts))
        return [place.reshape(shape) for place, shape in zip(places, shapes, strict=True)]

    def join(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the array of the tensor's shape whose parts these are."""
        if len(parts) == 1 and self.layout == ROWS:
            return parts[0].reshape(self.shape)
        joined = np.empty(self.shape, np.result_type(*parts))
        for place, part in zip(self.layout.places(joined, len(parts)), parts, strict=True):
            place[...] = part.reshape(place.shape)
        return joined

    def _split_shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        if self.geometry is not None:
            return [self.geometry.weight_shape] * len(self.parts)
        shapes = self.layout.part_shapes(shape, len(self.parts))
        return shapes if self.kind == "conv" else [self._matrix_shape(each) for each in shapes]


_WORDS = {"dense": "dense layer", "conv": "convolution", "recurrent": "hidden to hidden", "embedding": "embedding"}
"""What a graph of each kind is called."""
