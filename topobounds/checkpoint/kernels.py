"""Kernels of convolutions in files: whether they are transposed, and their groups, by name and neighbours."""

import math
import re
from collections.abc import Sequence

from topobounds.checkpoint.stored import Stored
from topobounds.layers import Conv, LayerTensor

MAP = 8
"""Cells along each dimension of the map that is assumed where no input is given; a larger kernel has its own length."""
_TRANSPOSED = r"deconv|conv_?transpose|transposed?_?conv|conv_?tr(_|$|\d)|upconv"
_DEPTHWISE = r"depthwise|dw_?conv|conv_?dw|(^|_)dw(_|$|\d)"
_FEWEST_GROUPS = 8
"""From so many on, groups of several channels are told by the layer before: a shuffle of pixels looks like 4."""


def read_kernel(stored: Stored) -> LayerTensor | str | None:
    """Return the convolution that a tensor of 3 to 5 dimensions is read as; None where no name says it is one.

    Its geometry is left open: see `assumed_geometry`.
    """
    if not 3 <= len(stored.shape) <= 5 or not _is_kernel(stored):
        return None
    transposed = _is_transposed(stored)
    groups = _groups(stored, transposed=transposed)
    return LayerTensor(stored.name, stored.shape, "conv", groups=groups, inputs_first=transposed)


def assumed_geometry(tensor: LayerTensor, input_size: Sequence[int] = ()) -> tuple[Conv, str]:
    """Return the geometry of a kernel of which a file says nothing, and what is assumed of it in words.

    Parameters
    ----------
    tensor : LayerTensor
        A kernel as torch lays it out.
    input_size : sequence of int
        Cells of the input along each dimension, perhaps after the number of its channels.
    """
    kernel = tensor.shape[2:]
    channels = (tensor.shape[0], tensor.shape[1] * tensor.groups)
    outputs, inputs = channels[::-1] if tensor.inputs_first else channels
    given = tuple(input_size)[-len(kernel) :] if len(kernel) <= len(input_size) <= len(kernel) + 1 else ()
    size = tuple(map(max, given or (MAP,) * len(kernel), kernel))
    before = tuple((length - 1) // 2 for length in kernel)
    after = tuple(length - 1 - first for length, first in zip(kernel, before, strict=True))
    conv = Conv(
        inputs,
        outputs,
        kernel,
        size,
        padding=before,
        padding_end=after,
        groups=tensor.groups,
        transposed=tensor.inputs_first,
    )
    groups = f"{tensor.groups} groups, " if tensor.groups > 1 else ""
    return conv, f"stride 1, same padding, {groups}a map of {written(size)}"


def kernel_words(conv: Conv) -> str:
    """Return what a convolution is, for people."""
    kind = "transposed convolution" if conv.transposed else "convolution"
    if conv.groups == conv.in_channels > 1:
        kind = f"depthwise {kind}"
    elif conv.groups > 1:
        kind = f"{kind} in {conv.groups} groups"
    return f"{kind} {written(conv.kernel_size)}, {conv.in_channels} to {conv.out_channels} channels"


def written(sizes: Sequence[int]) -> str:
    """Return lengths as people write them: ``"3x3"``."""
    return "x".join(map(str, sizes))


def _is_kernel(stored: Stored) -> bool:
    if re.fullmatch(r"(.*[_.])?(weight|kernel|w)\d*", stored.leaf, re.IGNORECASE):
        return not stored.has_word("bilinear")
    return stored.has_word("conv")


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
        return first if second == 1 and stored.has_word(_DEPTHWISE, places=3) else by_bias
    rows = [stored.names.shapes[name][0] for name in stored.names.before.get(stored.name, ())]
    if second == 1 and first > 1:
        return first if stored.has_word(_DEPTHWISE, places=3) or first in rows or _in_mixer(stored) else 1
    number = first // second
    is_grouped = first in rows and first % second == 0 and number >= _FEWEST_GROUPS
    return number if is_grouped and math.prod(stored.shape[2:]) > 1 else 1


def _in_mixer(stored: Stored) -> bool:
    """Whether it is the convolution of a state-space block, each channel by itself."""
    around = stored.path.removesuffix(f"{stored.module}.")
    return any(f"{around}{leaf}" in stored.names.shapes for leaf in ("A_log", "A_logs"))
