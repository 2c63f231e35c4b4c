"""What the nodes of an ONNX graph say of the tensors that they read: which layer each is, and how it is quantised."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from topobounds.checkpoint.described import Described
from topobounds.layers import LayerTensor
from topobounds.layers.layer_tensor import numbered_parts
from topobounds.layers.layout import Layout

_GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "new"), "RNN": ("",)}
"""The gates of each recurrent operator, in the order in which ONNX stacks them (``iofc``, ``zrh``)."""
_DIRECTIONS = ("forward", "reverse")
_OPERATORS_OF_CODES = ("MatMulInteger", "ConvInteger", "MatMulNBits", "DynamicQuantizeMatMul", "QGemm", "QAttention")
"""Operators whose codes have scales that are not read."""

_FLOATS = (1, 10, 11, 16)
"""What ONNX numbers float32, float16, float64 and bfloat16, of which a cast to another rounds, and no more."""

Sizes = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class Quantised:
    """Where the scale and the zero point of codes are, and along which axis they lie."""

    scale: str
    zeros: str | None
    axis: int
    block: int


@dataclass(frozen=True)
class Origin:
    """The stored tensor that a value of the graph is, but for the order of its axes.

    Attributes
    ----------
    name : str
        Of the stored tensor.
    order : tuple of int
        Its axes in the order of the value's.
    quantised : Quantised or None
        How the value is made from the codes that are stored.
    as_codes : bool
        Whether the value is codes that were made from stored weights.
    """

    name: str
    order: tuple[int, ...]
    quantised: Quantised | None = None
    as_codes: bool = False


@dataclass(frozen=True)
class Use:
    """A stored tensor as an input of a node.

    Attributes
    ----------
    node : onnx.NodeProto
        The node.
    place : int
        Which of its inputs.
    origin : Origin
        The stored tensor.
    shape : tuple of int
        Of the stored tensor.
    sizes : mapping of str to tuple
        Shapes of the values of the graph, as far as they are known.
    """

    node: Any
    place: int
    origin: Origin
    shape: tuple[int, ...]
    sizes: Sizes

    @property
    def seen(self) -> tuple[int, ...]:
        """The shape that the node sees."""
        return tuple(self.shape[axis] for axis in self.origin.order)

    @property
    def is_swapped(self) -> bool:
        """Whether the node sees the last two axes exchanged; ValueError where it sees another order."""
        n = len(self.shape)
        if self.origin.order == tuple(range(n)):
            return False
        if self.origin.order == (*range(n - 2), n - 1, n - 2):
            return True
        raise ValueError("its axes are exchanged before it is used, in another order than a transpose")

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the node: a number, a text or a tuple of numbers."""
        for each in self.node.attribute:
            if each.name == name:
                kinds = {1: each.f, 2: each.i, 3: each.s.decode("utf-8", "replace"), 6: tuple(each.floats)}
                return tuple(each.ints) if each.type == 7 else kinds.get(each.type, default)
        return default


def origins(
    nodes: Sequence[Any], shapes: Mapping[str, tuple[int, ...]], around: Mapping[str, Origin]
) -> dict[str, Origin]:
    """Return which values of a graph are stored tensors, by the nodes that only rename, transpose or dequantise them.

    Parameters
    ----------
    nodes : sequence of onnx.NodeProto
        In the order of the graph.
    shapes : mapping of str to tuple of int
        The stored tensors.
    around : mapping of str to Origin
        Those of the graphs around this one.
    """
    found = {name: Origin(name, tuple(range(len(shape)))) for name, shape in shapes.items()} | dict(around)
    for node in nodes:
        origin = found.get(node.input[0]) if node.input else None
        if origin is None or len(node.output) < 1 or node.output[0] in found:
            continue
        passed = _passed(node, origin, found, shapes)
        if passed is not None:
            found[node.output[0]] = passed
    return found


def _passed(
    node: Any, origin: Origin, found: Mapping[str, Origin], shapes: Mapping[str, tuple[int, ...]]
) -> Origin | None:
    """Return what the output of a node is, if it is a stored tensor too."""
    use = Use(node, 0, origin, shapes[origin.name], {})
    n_axes = len(origin.order)
    if node.op_type == "Transpose":
        order = use.attribute("perm", tuple(reversed(range(n_axes))))
        good = isinstance(order, tuple) and sorted(order) == list(range(n_axes))
        return replace(origin, order=tuple(origin.order[axis] for axis in order)) if good else None
    if node.op_type == "QuantizeLinear":
        return replace(origin, as_codes=True) if origin.quantised is None else None
    if node.op_type == "DequantizeLinear":
        return replace(origin, as_codes=False) if origin.as_codes else _dequantised(use, found)
    if node.op_type == "Cast":
        return origin if use.attribute("to", 0) in _FLOATS and not origin.as_codes else None
    return origin if node.op_type == "Identity" else None


def _dequantised(use: Use, found: Mapping[str, Origin]) -> Origin | None:
    """Return what a node makes of codes as they are stored; None where their scale is not stored."""
    n_axes = len(use.shape)
    axis, block = use.attribute("axis", 1), use.attribute("block_size", 0)
    parts = [_as_stored(found.get(name)) for name in use.node.input[1:3] if name]
    if _as_stored(use.origin) is None or None in parts or not parts:
        return None
    if not n_axes or not isinstance(axis, int) or not isinstance(block, int):
        return None
    scale, *zeros = (part for part in parts if part is not None)
    return replace(use.origin, quantised=Quantised(scale, zeros[0] if zeros else None, axis, block))


def _as_stored(origin: Origin | None) -> str | None:
    """Return the name of a stored tensor, if that is what a value is, unchanged."""
    if origin is None or origin != Origin(origin.name, tuple(range(len(origin.order)))):
        return None
    return origin.name


def uses(nodes: Sequence[Any], found: Mapping[str, Origin], shapes: Mapping[str, Any], sizes: Sizes) -> Iterator[Use]:
    """Yield every place where a node reads a stored tensor, but where it only passes it on."""
    for node in nodes:
        for place, name in enumerate(node.input):
            passed_on = place == 0 and node.output and node.output[0] in found
            if name in found and not passed_on:
                yield Use(node, place, found[name], shapes[found[name].name], sizes)


def described(use: Use) -> Described | str:
    """Return the layer that a use of a stored tensor is, or the reason why it is none."""
    operator = use.node.op_type
    describe = _LAYERS.get((operator, use.place))
    if describe is None:
        if operator in _OPERATORS_OF_CODES:
            return f"codes of {operator}, whose scales are not known"
        if (operator, use.place) in _BIASES:
            return "bias"
        return f"input {use.place} of {operator}, which is no layer that is known"
    if use.origin.as_codes:
        return f"quantised before {operator} reads it"
    try:
        return describe(use)
    except ValueError as error:
        return str(error).rstrip(".")


# -- the operators ----------------------------------------------------------------------------------------------------


def _matrix(use: Use, inputs_first: bool) -> Described | str:
    """Return a matrix, or a stack of them; `inputs_first` is of the order that the node sees."""
    n_stacked = len(use.shape) - 2
    if n_stacked < 0:
        return "vector of one dimension"
    number = math.prod(use.shape[:n_stacked])
    return Described(
        LayerTensor(
            use.origin.name,
            use.shape,
            parts=numbered_parts(number),
            inputs_first=inputs_first != use.is_swapped,
            layout=Layout(stacked=n_stacked) if n_stacked else Layout(),
        )
    )


def _right_factor(use: Use) -> Described | str:
    return _matrix(use, inputs_first=True)


def _left_factor(use: Use) -> Described | str:
    return _matrix(use, inputs_first=False)


def _gemm(use: Use) -> Described | str:
    side = "transA" if use.place == 0 else "transB"
    return _matrix(use, inputs_first=bool(use.place) != bool(use.attribute(side, 0)))


def _embedding(use: Use) -> Described | str:
    if use.attribute("axis", 0) != 0 or len(use.shape) != 2 or use.is_swapped:
        return "looked up in another way than rows"
    return Described(LayerTensor(use.origin.name, use.shape, "embedding", inputs_first=True))


def _recurrent(use: Use) -> Described | str:
    operator = use.node.op_type
    gates = _GATES[operator]
    is_hidden = use.place == 2
    if len(use.shape) != 3 or use.shape[0] not in (1, 2) or use.shape[1] % len(gates) or use.is_swapped:
        return f"of another shape than {operator} reads"
    if is_hidden and use.shape[1] != len(gates) * use.shape[2]:
        return f"of another shape than {operator} reads"
    sides = _DIRECTIONS if use.shape[0] == 2 else ("",)
    parts = tuple(f"{side} {gate}".strip() for side in sides for gate in gates)
    what = "hidden to hidden" if is_hidden else "inputs to hidden"
    words = tuple(f"{part} of {operator}, {what}" if part else f"{operator}, {what}" for part in parts)
    kind = "recurrent" if is_hidden else "dense"
    layout = Layout(stacked=1)
    return Described(LayerTensor(use.origin.name, use.shape, kind, parts=parts, layout=layout, words=words))


def _convolution(use: Use) -> Described | str:
    transposed = use.node.op_type == "ConvTranspose"
    rows, kernel = (use.seen[0], use.seen[2:]) if len(use.seen) > 2 else (0, ())
    groups = use.attribute("group", 1)
    if not 1 <= len(kernel) <= 3 or 0 in use.shape or not isinstance(groups, int) or groups < 1:
        return f"a kernel of {len(kernel)} dimensions in {groups} groups, which is not read"
    if rows % groups:
        return f"a kernel of {rows} channels in {groups} groups"
    order = use.origin.order
    layout = Layout(order=order) if order != tuple(range(len(order))) else Layout()
    tensor = LayerTensor(use.origin.name, use.shape, "conv", groups=groups, inputs_first=transposed, layout=layout)
    return Described(tensor, _geometry(use, kernel, transposed) | {"groups": groups})


def _geometry(use: Use, kernel: tuple[int, ...], transposed: bool) -> dict[str, Any]:
    """Return what a node says of the geometry of its kernel, in the words of `Conv`."""
    n = len(kernel)
    told = {
        "stride": use.attribute("strides", (1,) * n),
        "dilation": use.attribute("dilations", (1,) * n),
        "output_padding": use.attribute("output_padding", (0,) * n),
    }
    if any(not isinstance(value, tuple) or len(value) != n for value in told.values()):
        raise ValueError("a kernel whose node has attributes of another number of dimensions")
    if not transposed:
        del told["output_padding"]
    read = use.sizes.get(use.node.input[0], ())
    size = read[2:] if len(read) == n + 2 else (None,) * n
    if all(isinstance(each, int) and each > 0 for each in size):
        told["input_size"] = size
    pads = use.attribute("pads", (0,) * (2 * n))
    if len(pads) != 2 * n:
        raise ValueError("a kernel whose node has paddings of another number of dimensions")
    wanted = use.attribute("output_shape", ())[-n:]
    automatic = use.attribute("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER") or wanted:
        totals = _totals(kernel, told, size, wanted)
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        # Of an odd cell: UPPER puts it at the end. A transposed convolution with a wanted output and no mode: before.
        before, after = (less, more) if automatic == "SAME_UPPER" else (more, less)
        pads = (*before, *after)
    elif automatic == "VALID":
        pads = (0,) * (2 * n)
    return told | {"padding": tuple(pads[:n]), "padding_end": tuple(pads[n:])}


def _totals(
    kernel: tuple[int, ...], told: Mapping[str, Any], size: Sequence[int | None], wanted: Sequence[int]
) -> list[int]:
    """Return the cells of padding along each dimension, where the size of the output is told and not they."""
    totals = []
    for axis, length in enumerate(kernel):
        stride, span = told["stride"][axis], told["dilation"][axis] * (length - 1) + 1
        cells = size[axis]
        if "output_padding" in told:  # transposed
            image = wanted[axis] if wanted else None
            if image is None:
                total = span - stride + told["output_padding"][axis]
            elif cells is None:
                raise ValueError("a transposed kernel whose output is told, and whose input is not known")
            else:
                total = stride * (cells - 1) + span + told["output_padding"][axis] - image
        else:
            steps = stride if cells is None or cells % stride == 0 else cells % stride
            total = span - steps
        totals.append(max(total, 0))
    return totals


_LAYERS: dict[tuple[str, int], Callable[[Use], Described | str]] = {
    ("MatMul", 0): _left_factor,
    ("MatMul", 1): _right_factor,
    ("QLinearMatMul", 0): _left_factor,
    ("QLinearMatMul", 3): _right_factor,
    ("Gemm", 0): _gemm,
    ("Gemm", 1): _gemm,
    ("Gather", 0): _embedding,
    ("Conv", 1): _convolution,
    ("QLinearConv", 3): _convolution,
    ("ConvTranspose", 1): _convolution,
    **{(operator, place): _recurrent for operator in _GATES for place in (1, 2)},
}
"""The operators and their inputs that are layers."""
_BIASES = {("Conv", 2), ("ConvTranspose", 2), ("Gemm", 2), ("QLinearConv", 8)} | {(each, 3) for each in _GATES}
QUANTISED_INPUTS = {("QLinearMatMul", 0), ("QLinearMatMul", 3), ("QLinearConv", 3)}
"""Codes whose scale and zero point are the next two inputs of their node."""


def quantised_by_node(use: Use, found: Mapping[str, Origin]) -> Quantised | None:
    """Return how a node that reads codes dequantises them; None where its scale is not stored."""
    if len(use.node.input) < use.place + 3:
        return None
    scale, zeros = (_as_stored(found.get(use.node.input[use.place + step])) for step in (1, 2))
    if scale is None or zeros is None:
        return None
    last = len(use.shape) - 1
    axis = 0 if use.node.op_type == "QLinearConv" else last if use.place else max(last - 1, 0)
    return Quantised(scale, zeros, use.origin.order[axis], 0)
