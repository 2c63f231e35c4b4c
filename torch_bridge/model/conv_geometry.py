"""The geometry of PyTorch's convolutions, for inputs of a given size."""

from collections.abc import Sequence
from typing import Any, cast

from topobounds._arguments import argument_error, integer
from topobounds.layers import Conv
from torch_bridge._torch import _ConvNd, nn
from torch_bridge.model.modules import is_convolution


def conv_geometry(module: nn.Module, input_size: Sequence[int], output_size: Sequence[int] | None = None) -> Conv:
    """Return the geometry of a convolution for inputs of a given size.

    Parameters
    ----------
    module : torch.nn.Conv1d, Conv2d, Conv3d or a transposed one
        The convolution.
    input_size : sequence of int
        Cells along each spatial dimension, no batch and no channels.
    output_size : sequence of int, optional
        For a transposed convolution that was called with one: it decides the output padding.

    Returns
    -------
    Conv
        The same geometry in topobounds' terms.

    Raises
    ------
    ValueError
        If the module is no convolution, or the size does not fit it.

    Examples
    --------
    >>> conv_geometry(nn.Conv2d(3, 8, 5, stride=2, padding=2), (28, 28)).output_size
    (14, 14)
    """
    if not is_convolution(module):
        raise argument_error("module", "a convolution", type(module).__name__)
    n_axes = len(cast(_ConvNd, module).kernel_size)
    if not isinstance(input_size, Sequence) or len(input_size) != n_axes:
        raise argument_error("input_size", f"a sequence of {n_axes} positive integers", input_size)
    padding = cast(tuple[int, ...], module.output_padding)
    conv = _conv(cast(_ConvNd, module), input_size, padding)
    if output_size is None or not conv.transposed or conv.output_size == tuple(output_size):
        return conv
    extra = (p + a - b for p, a, b in zip(padding, output_size, conv.output_size, strict=True))
    return _conv(cast(_ConvNd, module), input_size, tuple(extra))


def _conv(module: _ConvNd, input_size: Sequence[int], output_padding: Sequence[int]) -> Conv:
    padding: Any = module.padding
    return Conv(
        module.in_channels,
        module.out_channels,
        tuple(module.kernel_size),
        tuple(integer("input_size", size, 1) for size in input_size),
        stride=tuple(module.stride),
        padding=padding if isinstance(padding, str) else tuple(padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
        padding_mode=module.padding_mode,
        transposed=module.transposed,
        output_padding=tuple(output_padding),
    )
