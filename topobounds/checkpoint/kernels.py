"""Kernels of convolutions in files: whether they are transposed, and their groups, by name and neighbours."""

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from topobounds._text import counted
from topobounds.checkpoint.stored import Stored
from topobounds.layers import Conv, LayerTensor
from topobounds.layers.layout import Layout

_MAP = 8
"""Cells along each dimension of the map that is assumed where no input is given; a larger kernel has its own length."""
_LARGEST = 31  # taps along a dimension of a kernel whose channels come last
_LONGEST = 256  # taps of a kernel along one axis; beyond, matrices that are stacked
_MOST_TAPS = 2**16  # along one axis; beyond, no kernel is known
_SHORT = 8  # taps of the convolutions of state-space and linear attention blocks
_PATCHES = r"patch_?embed|patchify|^conv_proj$"
_TRANSPOSED = r"deconv|transpose|conv_?t(r?_|r?$|r?\d)|upconv"
DEPTHWISE = r"depth_?(wise|conv)|dw_?conv|conv_?dw|(^|_)dw(_|$|\d)"
_FEWEST_GROUPS = 8
"""From so many on, groups of several channels are told by the layer before: a shuffle of pixels looks like 4."""


def read_kernel(stored: Stored) -> LayerTensor | str | None:
    """Return the convolution that a tensor of 3 to 5 dimensions is read as; None where no name says it is one.

    Its geometry is left open: see `assumed_geometry`.
    """
    if not 3 <= len(stored.shape) <= 5 or not _is_kernel(stored) or max(stored.shape[2:]) > _MOST_TAPS:
        return None
    if _is_channels_last(stored):
        return channels_last(stored, depthwise=False, assumed="channels last, as the bias is as long as the last axis")
    transposed = _is_transposed(stored)
    groups = _groups(stored, transposed=transposed)
    return LayerTensor(stored.name, stored.shape, "conv", groups=groups, inputs_first=transposed)


def assumed_geometry(
    tensor: LayerTensor, input_size: Sequence[int] = (), told: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Conv, str | None]:
    """Return the geometry of a kernel, and in words what is assumed of it; None where nothing is.

    Parameters
    ----------
    tensor : LayerTensor
        A kernel.
    input_size : sequence of int
        Cells of the input along each dimension, perhaps after the number of its channels.
    told : mapping of str to object
        Arguments of `Conv` that are known: ``stride``, ``padding``, ``input_size`` ...

    Raises
    ------
    ValueError
        If what is told makes no convolution.
    """
    rows, columns, kernel = _axes(tensor)
    channels = (rows, columns * tensor.groups)
    outputs, inputs = channels[::-1] if tensor.inputs_first else channels
    given = tuple(input_size)[-len(kernel) :] if len(kernel) <= len(input_size) <= len(kernel) + 1 else ()
    taken: dict[str, Any] = {"stride": 1, **_same_padding(kernel, told), "input_size": given or (_MAP,) * len(kernel)}
    notes = {"stride": "stride 1", "padding": "same padding"}
    if any(re.search(_PATCHES, piece, re.IGNORECASE) for piece in re.split("[./]", tensor.name)[-3:]):
        taken |= {"stride": kernel, "padding": 0, "padding_end": 0}
        notes = {"stride": f"stride {written(kernel)}", "padding": "no padding (a patch embedding)"}
    if "padding" in told:
        del taken["padding_end"]
    if "input_size" not in told:
        taken["input_size"] = tuple(map(max, taken["input_size"], kernel))
        notes["input_size"] = f"a map of {written(taken['input_size'])}"
    arguments = {**taken, **told, "groups": tensor.groups, "transposed": tensor.inputs_first}
    conv = Conv(inputs, outputs, kernel, **arguments)
    if tensor.groups > 1:
        notes["groups"] = f"{tensor.groups} groups"
    return conv, ", ".join(note for key, note in notes.items() if key not in told) or None


def _same_padding(kernel: tuple[int, ...], told: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the padding that keeps the size of the map at stride 1."""
    dilation = told.get("dilation", 1)
    steps = dilation if isinstance(dilation, tuple) and len(dilation) == len(kernel) else (dilation,) * len(kernel)
    totals = [step * (length - 1) for step, length in zip(steps, kernel, strict=True)]
    before = tuple(total // 2 for total in totals)
    return {"padding": before, "padding_end": tuple(t - b for t, b in zip(totals, before, strict=True))}


def kernel_words(conv: Conv) -> str:
    """Return what a convolution is, for people."""
    kind = "transposed convolution" if conv.transposed else "convolution"
    if conv.groups == conv.in_channels > 1:
        kind = f"depthwise {kind}"
    elif conv.groups > 1:
        kind = f"{kind} in {conv.groups} groups"
    return f"{kind} {written(conv.kernel_size)}, {conv.in_channels} to {counted(conv.out_channels, 'channel')}"


def written(sizes: Sequence[int]) -> str:
    """Return lengths as people write them: ``"3x3"``."""
    return "x".join(map(str, sizes))


def channels_last(stored: Stored, *, depthwise: bool, assumed: str | None = None) -> LayerTensor:
    """Return the convolution of a kernel that Keras or Flax stores: spatial axes first, then inputs, then outputs."""
    n_axes = len(stored.shape)
    kernel = tuple(range(n_axes - 2))
    inputs, outputs = stored.shape[-2:]
    if depthwise and stored.leaf == "depthwise_kernel":
        layout = Layout(order=(n_axes - 2, n_axes - 1, *kernel), row_axes=2)
        return LayerTensor(stored.name, stored.shape, "conv", groups=inputs, layout=layout, assumed=assumed)
    transposed = stored.has_word(_TRANSPOSED) and not depthwise
    # Keras stores a transposed convolution outputs first, Flax as it does any other.
    bias_tells = outputs != inputs and stored.bias == outputs
    of_flax = bias_tells or stored.module.startswith("ConvTranspose")
    order = (n_axes - 2, n_axes - 1, *kernel) if transposed and of_flax else (n_axes - 1, n_axes - 2, *kernel)
    groups = outputs if depthwise and inputs == 1 else 1
    layout = Layout(order=order)
    return LayerTensor(
        stored.name, stored.shape, "conv", groups=groups, inputs_first=transposed, layout=layout, assumed=assumed
    )


def _axes(tensor: LayerTensor) -> tuple[int, int, tuple[int, ...]]:
    """Return the lengths of rows, of columns and of the taps of a kernel, in the order of torch."""
    shape = tuple(tensor.shape[axis] for axis in tensor.layout.order or range(len(tensor.shape)))
    if tensor.layout.row_axes == 1:
        return shape[0], shape[1], shape[2:]
    return shape[0] * shape[1], 1, shape[2:]


def _is_channels_last(stored: Stored) -> bool:
    """Whether only the last axis is as long as the bias, and a kernel can be that small."""
    fits = stored.bias == stored.shape[-1] and stored.bias not in stored.shape[:2]
    return fits and max(stored.shape[:-2]) <= _LARGEST


def _is_kernel(stored: Stored) -> bool:
    if re.fullmatch(r"(.*[_.])?(weight|kernel|w)\d*", stored.leaf, re.IGNORECASE):
        is_stack = len(stored.shape) == 3 and stored.shape[1] > 1 and stored.shape[2] > _LONGEST
        return not stored.has_word("bilinear") and (not is_stack or stored.has_word("conv"))
    has_bias = len(stored.shape) > 3 and stored.bias in (stored.shape[0], stored.shape[-1])
    return stored.has_word("conv") or has_bias


def _is_transposed(stored: Stored) -> bool:
    """Whether the first dimension is the inputs: by the length of the bias, else by name."""
    first, second = stored.shape[:2]
    if stored.bias is not None and stored.bias != first:
        return stored.bias % second == 0 and first % (stored.bias // second) == 0
    return stored.has_word(_TRANSPOSED, places=3) and stored.bias in (None, first)


def _groups(stored: Stored, *, transposed: bool) -> int:
    """Return the groups of a kernel: those of its bias, a depthwise one's, or those that the layer before tells."""
    first, second = stored.shape[:2]
    if transposed:
        by_bias = stored.bias // second if stored.bias else 1
        return first if second == 1 and stored.has_word(DEPTHWISE, places=3) else by_bias
    before = _rows_before(stored)
    if second == 1 and first > 1:
        return _depthwise_groups(stored, list(before.values()))
    if second == 3 or math.prod(stored.shape[2:]) == 1:
        return 1  # a first layer reads colours
    for name, rows in before.items():
        number = rows // second
        if stored.tensors.shapes[name] == stored.shape and number >= _FEWEST_GROUPS:
            return _groups(Stored(name, stored.tensors), transposed=False)
        beside = stored.tensors.shapes[name][1] == second  # it reads what the one before reads, as a shortcut does
        if not beside and rows % second == 0 and first % max(number, 1) == 0:
            alike = rows == first and number >= _FEWEST_GROUPS
            if alike or (number > 1 and first % rows == 0 and len(stored.shape) == 4 and _follows(stored.name, name)):
                return number
    return 1


def _rows_before(stored: Stored) -> dict[str, int]:
    """Return the rows of the layers before, by name: of kernels, and of matrices in the same part of the model."""
    found = {}
    for name in stored.tensors.before.get(stored.name, ()):
        shape = stored.tensors.shapes[name]
        if len(shape) > 2 or re.split("[./]", name)[0] == stored.pieces[0]:
            found[name] = shape[0]
    return found


def _depthwise_groups(stored: Stored, rows: list[int]) -> int:
    """Return the groups of a kernel of which each output reads one channel: all channels, or 1 in a first layer."""
    first = stored.shape[0]
    named = stored.has_word(DEPTHWISE, places=3)
    later = first >= _FEWEST_GROUPS and stored.tensors.reads_colours(len(stored.shape))
    is_one = named or later or first in rows or _in_block(stored)
    return first if is_one else 1


def _follows(name: str, before: str) -> bool:
    """Whether a kernel is called conv2 in the block in which the one before is called conv1."""
    here, there = (re.split(rf"(?:^|[._])conv{number}", each)[0] for each, number in ((name, 2), (before, 1)))
    return here == there and here not in (name, "")


def _in_block(stored: Stored) -> bool:
    """Whether it is a convolution of one axis in a numbered block of matrices, which are as wide or it is short."""
    match = re.match(r"(.*[./]\d+[./])", stored.path)
    if len(stored.shape) != 3 or match is None:
        return False
    beside = (shape for name, shape in stored.tensors.shapes_of_matrices if name.startswith(match[1]))
    return any(stored.shape[0] in shape or stored.shape[2] <= _SHORT for shape in beside)
