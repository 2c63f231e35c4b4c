"""ONNX files: the stored tensors of a graph, and what its nodes say of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self, cast

import numpy as np

from topobounds._memory import check_memory
from topobounds._types import Array
from topobounds.checkpoint import onnx_nodes
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.code_formats import FLOAT8, FLOATS
from topobounds.checkpoint.described import Described
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.location import Location, is_inside, read_range, size_of
from topobounds.checkpoint.packed import with_zeros
from topobounds.checkpoint.signatures import format_by_signature
from topobounds.weights import ScaledWeights

_MOST_BYTES = 2**31
"""Of a file: protobuf reads no larger one, and ONNX then keeps the values in another."""
_COPIES = 3  # of the file in memory while it is read: its bytes, protobuf's, and the values
_SMALL = 2**12
"""Bytes of values that stay in the graph: shapes, for example, which decide those of others."""
_PER_BYTE = {"int4": 2, "uint4": 2, "int2": 4, "uint2": 4, "float4_e2m1fn": 2}
_INTEGER_CODES = ("int8", "uint8", "int4", "uint4", "int2", "uint2", "int16", "uint16")
_CODES = (*_INTEGER_CODES, *FLOAT8)


@dataclass(frozen=True)
class Values:
    """A stored tensor.

    Attributes
    ----------
    proto : onnx.TensorProto
        As it is stored, without its bytes.
    dtype : numpy.dtype
        Its type.
    shape : tuple of int
        Its shape.
    content : bytes or None
        Its bytes, where they are in the file in one piece.
    place : tuple or None
        The other file that holds them, and the first byte.
    """

    proto: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    content: bytes | None
    place: tuple[Location, int] | None

    @property
    def n_bytes(self) -> int:
        """The length of its values."""
        return _n_bytes(self.dtype, self.shape)


class OnnxCheckpoint(Checkpoint):
    """The stored tensors of an ONNX file: initialisers and constants, of the graph and of those within its nodes.

    Codes that a node dequantises are read as the weights that they stand for, under the name of the codes.
    """

    format = "onnx"
    holds_state_dict = False

    def __init__(self, path: Location, graph: "_Graph") -> None:
        super().__init__(path)
        self._values = graph.values
        self._quantised = {name: each for name, each in graph.quantised.items() if self._fits(name, each)}
        parts = {part for each in self._quantised.values() for part in (each.scale, each.zeros) if part}
        self._names = tuple(name for name in graph.values if name not in parts - set(self._quantised))
        self.left_out = dict(graph.left_out)
        self.described = {name: each for name, each in graph.described.items() if name in self._names}
        self.stored_as = {name: self._written(name) for name in self._quantised}
        unfit = graph.quantised.keys() - self._quantised.keys()
        self.described |= dict.fromkeys(unfit, "codes whose scales and zero points do not fit them")

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file is called .onnx, and shows nothing else: its content begins with no mark."""
        return path.suffix == ".onnx" and format_by_signature(path) is None and path.is_file()

    @classmethod
    def open(cls, path: Location) -> Self:
        """Open a file: the graph is read, and the values that are in the file itself; those in others are not.

        Raises
        ------
        CheckpointError
            If it cannot be read or is damaged, names values outside its folder, or the package onnx is not installed.
        """
        if find_spec("onnx") is None:
            raise CheckpointError(
                f"{path} is an ONNX file, and the package onnx is not installed: in a clone of topobounds, "
                "pip install -e '.[onnx]'."
            )
        size = size_of(path)
        if size >= _MOST_BYTES:
            raise CheckpointError(f"{path} has {size} bytes, more than protobuf reads: save its values beside it.")
        with as_checkpoint_error(path):
            check_memory("its graph", _COPIES * size)
            model = _parsed(read_range(path, 0, size).tobytes())
        return cls(path, _Graph(path, model))

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of the graph."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._values[self._checked(name)].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; float32 of codes that are dequantised."""
        name = self._checked(name)
        return np.dtype(np.float32) if name in self._quantised else self._values[name].dtype

    def file_of(self, name: str) -> str:
        """Return the name of the file that holds a tensor's values."""
        place = self._values[self._checked(name)].place
        return self.path.name if place is None else place[0].name

    def tensor(self, name: str) -> Array:
        """Read one tensor; of codes the weights, `ScaledWeights` where that is possible."""
        name = self._checked(name)
        self._check_memory(name, self._values[name].n_bytes)
        with (
            as_checkpoint_error(self.path, name, TypeError),
            np.errstate(over="ignore", invalid="ignore"),  # a scale that float32 does not hold is refused as infinite
        ):
            values = self._read(name)
            if name not in self._quantised:
                return values
            return cast(Array, self._dequantised(name, values))  # a ScaledWeights has what is asked of an array

    def _read(self, name: str) -> Array:
        from onnx import TensorProto, numpy_helper  # noqa: PLC0415 -- an extra

        values = self._values[name]
        per_byte = _PER_BYTE.get(values.dtype.name, 1)
        if values.place is not None:
            raw = read_range(*values.place, values.n_bytes)
        elif values.content is not None:
            raw = np.frombuffer(values.content, np.uint8)
        else:
            return numpy_helper.to_array(values.proto)
        if per_byte == 1:
            array = (
                raw.view(values.dtype)
                if raw.ctypes.data % values.dtype.itemsize == 0
                else raw.copy().view(values.dtype)
            )
            return array.reshape(values.shape)
        packed = TensorProto(dims=values.shape, data_type=values.proto.data_type, raw_data=raw.tobytes())
        return numpy_helper.to_array(packed)

    def _dequantised(self, name: str, codes: Array) -> Array | ScaledWeights:
        quantised = self._quantised[name]
        placed, block = cast(tuple[tuple[int, ...], tuple[int, ...]], self._placed(name, quantised))
        scale = self._read(quantised.scale).reshape(placed).astype(np.float32)
        zeros = None if quantised.zeros is None else self._read(quantised.zeros).reshape(placed)
        if codes.dtype.name in FLOAT8:
            if zeros is not None and zeros.astype(np.float32).any():
                raise ValueError("it has zero points, which float8 codes do not")
            return with_zeros(codes, None, scale, block)
        if codes.dtype.name.endswith(("t4", "t2")):
            codes = codes.astype(np.int8)
        if codes.dtype.itemsize == 2 and zeros is not None and zeros.any():
            return _wide(codes, zeros, scale, block)
        return with_zeros(codes, zeros, scale, block)

    def _placed(self, name: str, quantised: onnx_nodes.Quantised) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return the shape of the scales with as many axes as the codes, and the sides of a block."""
        shape, scales = self._values[name].shape, self._values[quantised.scale].shape
        ones = (1,) * len(shape)
        if math.prod(scales) == 1:
            return ones, ones
        axis, size = quantised.axis, quantised.block
        if not -len(shape) <= axis < len(shape):
            return None
        axis %= len(shape)
        before, after = ones[:axis], ones[axis + 1 :]
        if size > 0:
            wanted = (*shape[:axis], -(-shape[axis] // size), *shape[axis + 1 :])
            return (scales, (*before, size, *after)) if scales == wanted else None
        return ((*before, shape[axis], *after), ones) if scales == shape[axis : axis + 1] else None

    def _fits(self, name: str, quantised: onnx_nodes.Quantised) -> bool:
        """Whether codes, scales and zero points are of types and shapes that go together."""
        codes, scale = self._values[name], self._values[quantised.scale]
        zeros = None if quantised.zeros is None else self._values[quantised.zeros]
        types = codes.dtype.name in _CODES and scale.dtype.name in FLOATS
        alike = zeros is None or (zeros.dtype == codes.dtype and zeros.shape == scale.shape)
        return types and alike and bool(codes.shape) and self._placed(name, quantised) is not None

    def _written(self, name: str) -> str:
        quantised = self._quantised[name]
        codes = name if quantised.zeros is None else f"({name} - {quantised.zeros})"
        return f"{codes} * {quantised.scale}"


def _wide(codes: Array, zeros: Array, scale: Array, block: tuple[int, ...]) -> Array:
    """Return ``(code - zero) scale`` of codes of 16 bits, whose differences need 17."""
    both = [codes.astype(np.int32), zeros.astype(np.int32)]
    for axis, step in enumerate(block):
        if step > 1:
            cut = (slice(None),) * axis + (slice(codes.shape[axis]),)
            both[1] = np.repeat(both[1], step, axis)[cut] if zeros.shape[axis] > 1 else both[1]
            scale = np.repeat(scale, step, axis)[cut] if scale.shape[axis] > 1 else scale
    weights: Array = (both[0] - both[1]).astype(np.float32) * scale
    return weights


def _parsed(content: bytes) -> Any:
    """Return the model that the bytes of a file are; ValueError if they are none."""
    from onnx import load_model_from_string  # noqa: PLC0415 -- an extra

    try:
        model = load_model_from_string(content)
    except Exception as error:  # of protobuf, which onnx brings along
        raise ValueError(str(error)) from None
    if not model.ir_version or not model.HasField("graph") or not model.opset_import:
        raise ValueError("it holds no graph of known operators")
    return model


class _Graph:
    """What a model holds, taken from its graph and those within its nodes.

    Attributes
    ----------
    values : dict of str to Values
        The stored tensors.
    quantised : dict of str to Quantised
        How codes are dequantised.
    described : dict of str to Described or str
        What the nodes say of the tensors.
    left_out : dict of str to str
        What is not read, and why.
    """

    def __init__(self, path: Location, model: Any) -> None:
        self._path = path
        self.values: dict[str, Values] = {}
        self.left_out: dict[str, str] = {}
        self.quantised: dict[str, onnx_nodes.Quantised] = {}
        self.described: dict[str, Described | str] = {}
        for graph in _graphs(model.graph):
            for proto in _stored(graph):
                self._take(proto)
            for sparse in graph.sparse_initializer:
                self.left_out[sparse.values.name] = "sparse: its indices are beside its values"
        model = _inlined(model)
        sizes = _sizes(model)
        shapes = {name: values.shape for name, values in self.values.items()}
        self._read(model.graph, {}, shapes, sizes)

    def _read(
        self,
        graph: Any,
        around: Mapping[str, onnx_nodes.Origin],
        shapes: Mapping[str, tuple[int, ...]],
        sizes: onnx_nodes.Sizes,
    ) -> None:
        """Keep what the nodes of a graph say of the tensors, and those of the graphs within them, which see its values.

        Parameters
        ----------
        graph : onnx.GraphProto
            The graph.
        around : mapping of str to Origin
            The values of the graphs around it that are stored tensors.
        shapes, sizes
            As in `onnx_nodes.uses`.
        """
        found = onnx_nodes.origins(graph.node, shapes, around)
        self._join_codes(found)
        for use in onnx_nodes.uses(graph.node, found, shapes, sizes):
            self._describe(use, found)
        for inner in _inner_graphs(graph):
            self._read(inner, found, shapes, sizes)

    def _take(self, proto: Any) -> None:
        """Take a stored tensor, and its bytes from the graph, if there are many."""
        name = proto.name
        if not isinstance(name, str) or not name:  # protobuf returns the bytes of what is no text
            raise CheckpointError(f"{self._path} is damaged: it holds a tensor whose name is {name!r}.")
        with as_checkpoint_error(self._path, name, TypeError):
            values = self._values(proto)
        if name in self.values:
            self.left_out[f"{name}, again"] = "another tensor of this name, in a graph within a node"
        elif values is None:
            self.left_out[name] = "texts, or of a type that is not known"
        else:
            self.values[name] = values

    def _values(self, proto: Any) -> Values | None:
        from onnx import TensorProto, helper  # noqa: PLC0415 -- an extra

        shape = tuple(proto.dims)
        if proto.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or proto.HasField("segment"):
            return None
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(proto.data_type))
        except KeyError:
            return None
        if any(size < 0 for size in shape) or math.prod(shape) > 2**60:
            raise ValueError(f"its shape is {shape}")
        if proto.data_location == TensorProto.EXTERNAL:
            return Values(proto, dtype, shape, None, self._place(proto, _n_bytes(dtype, shape)))
        content = proto.raw_data or None
        if content is not None or not math.prod(shape):
            content = content or b""
            if len(content) != _n_bytes(dtype, shape):
                raise ValueError(f"it has {len(content)} bytes, its type {dtype} and shape {shape} say otherwise")
            if len(content) > _SMALL:
                proto.ClearField("raw_data")
        elif max(map(len, _typed(proto))) > 2 * math.prod(shape) + 1 or not any(map(len, _typed(proto))):
            raise ValueError(f"it has no values, or another number of them than its shape {shape} says")
        return Values(proto, dtype, shape, content, None)

    def _place(self, proto: Any, n_bytes: int) -> tuple[Location, int]:
        """Return the file that holds the values of a tensor, and the first of their bytes."""
        said = {entry.key: entry.value for entry in proto.external_data}
        name, first = said.get("location"), int(said.get("offset", "0"))
        length = int(said.get("length", str(n_bytes)))
        if not is_inside(name):
            raise ValueError(f"its values would be in {name!r}, which is no file of its folder")
        if length != n_bytes or first < 0:
            raise ValueError(f"its values are {length} bytes from {first} on, its type and shape say {n_bytes} bytes")
        file = self._path.parent / cast(str, name)
        if not file.exists():
            raise ValueError(f"its values are in {file}, which is missing")
        size = size_of(file)
        if first + n_bytes > size:
            raise ValueError(f"{file} ends at byte {size}, its values at {first + n_bytes}")
        return file, first

    def _join_codes(self, found: Mapping[str, onnx_nodes.Origin]) -> None:
        for origin in found.values():
            if origin.quantised is not None:
                self.quantised.setdefault(origin.name, origin.quantised)

    def _describe(self, use: onnx_nodes.Use, found: Mapping[str, onnx_nodes.Origin]) -> None:
        """Keep what a use says, unless an earlier one says which layer it is."""
        name = use.origin.name
        if _takes_codes(use):
            quantised = onnx_nodes.quantised_by_node(use, found)
            if quantised is not None:
                self.quantised.setdefault(name, quantised)
        said = onnx_nodes.described(use)
        dtype = self.values[name].dtype.name
        is_dequantised = use.origin.quantised is not None or (name in self.quantised and _takes_codes(use))
        if isinstance(said, Described) and dtype in _INTEGER_CODES and not is_dequantised:
            said = f"codes of unknown scale ({dtype})"
        if isinstance(self.described.get(name), Described) or (name in self.described and isinstance(said, str)):
            return
        self.described[name] = said


def _takes_codes(use: onnx_nodes.Use) -> bool:
    """Whether a node dequantises codes itself."""
    return (use.node.op_type, use.place) in onnx_nodes.QUANTISED_INPUTS


def _n_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    per_byte = _PER_BYTE.get(dtype.name, 1)
    return -(-math.prod(shape) * dtype.itemsize // per_byte)


def _typed(proto: Any) -> tuple[Any, ...]:
    """Return the fields in which values may stand one by one."""
    return proto.float_data, proto.int32_data, proto.int64_data, proto.double_data, proto.uint64_data


def _stored(graph: Any) -> Iterator[Any]:
    """Yield the initialisers of a graph, and its constants under the names of their values."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    attribute.t.name = node.output[0]
                    yield attribute.t


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph, and those within its nodes: branches and loops."""
    yield graph
    for inner in _inner_graphs(graph):
        yield from _graphs(inner)


def _inner_graphs(graph: Any) -> Iterator[Any]:
    """Yield the graphs within the nodes of a graph, but not those within these."""
    for node in graph.node:
        for attribute in node.attribute:
            yield from ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)


def _inlined(model: Any) -> Any:
    """Return a model without functions of its own, whose nodes then stand in the graph; itself where that fails."""
    if not model.functions:
        return model
    try:
        from onnx import inliner  # noqa: PLC0415 -- an extra

        return inliner.inline_local_functions(model)
    except Exception:  # of the compiled library, about a graph that is wrong: its functions are unknown operators then
        return model


def _sizes(model: Any) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of the values of a graph, as far as they can be inferred."""
    try:
        from onnx import shape_inference  # noqa: PLC0415 -- an extra

        model = shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # likewise: then only what the file itself says is known
        pass
    found: dict[str, tuple[int | None, ...]] = {}
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(each.dim_value if each.HasField("dim_value") else None for each in dims)
    return found
