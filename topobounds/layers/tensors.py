"""A stored weight tensor, and the layer graphs that it is read as. It holds no array."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from topobounds.layers.protocol import TensorLayer
from topobounds.layers.shapes import Dense, Recurrent

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
        The graphs that it stacks along its first dimension, in equal blocks of rows: the gates of a recurrent layer,
        the query, key and value projections of attention, the groups of a kernel. ``("",)`` for one graph.
    geometry : TensorLayer or None
        The shape of the graph where that of the tensor does not tell it: of a kernel its `Conv`. None: the matrix of
        the first dimension and the rest.
    groups : int
        Groups of a kernel.
    inputs_first : bool
        Whether the first dimension is the inputs: of an embedding, a transposed convolution, GPT-2's linear layers.
    source : str
        Where it comes from: the module of the model, by its path, or the file that holds it.

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
    geometry: TensorLayer | None = None
    groups: int = 1
    inputs_first: bool = False
    source: str = ""

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
    def graph(self) -> TensorLayer:
        """The shape of the graph of each part."""
        if self.geometry is not None:
            return self.geometry
        rows = self.shape[0] // len(self.parts)
        columns = math.prod(self.shape[1:])
        if self.kind == "recurrent":
            return Recurrent(columns)
        return Dense(rows, columns) if self.inputs_first else Dense(columns, rows)

    @property
    def shares_weights(self) -> bool:
        """Whether a stored weight makes several edges, so that critical weights are not the edges of a forest."""
        return self.graph.n_critical is None

    @property
    def n_critical(self) -> int | None:
        """Weights that carry the topology whatever the weights are, over all parts; None where they decide."""
        critical = self.graph.n_critical
        return None if critical is None else len(self.parts) * critical

    def with_geometry(self, geometry: TensorLayer | None) -> "LayerTensor":
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
        """Return the parts of an array of the tensor's shape: views of equal blocks of rows."""
        if len(self.parts) == 1:
            return [array]
        rows, rest = divmod(len(array), len(self.parts))
        if rest:
            raise ValueError(
                f"Tensor '{self.name}' must have rows for {len(self.parts)} equal parts, not {len(array)}."
            )
        return [array[part * rows : (part + 1) * rows] for part in range(len(self.parts))]

    def join(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the array of the tensor's shape whose parts these are."""
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(self.shape)
