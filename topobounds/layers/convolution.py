"""Convolutions in one to three dimensions: how much of a graph each one is, for every geometry.

The counts are exact integers, in the time of one axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topobounds._arguments import argument_error, boolean, choice, integer
from topobounds.layers.axis import Axis
from topobounds.layers.layer import Layer
from topobounds.layers.printed_counts import PrintedCounts

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
_MAX_AXES = 3
_MOST_CELLS = 2**24  # of the input and the output along one dimension, which are counted one by one: about a minute


@dataclass(frozen=True, init=False)
class Conv(Layer):
    """A convolution, or transposed convolution, in one, two or three dimensions.

    Its layer graph has the real input neurons (channel and cell; padding cells are no neurons) on one side, the
    output neurons on the other, and an edge for every pair that the convolution connects. The weights are laid out
    as in torch: (out_channels, in_channels / groups, *kernel_size), or, transposed, (in_channels,
    out_channels / groups, *kernel_size).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels, at least 1.
    kernel_size, input_size : int or sequence of int
        One length per spatial dimension. A number stands for that length along every dimension; where both are
        numbers, the convolution is one-dimensional.
    stride, dilation : int or sequence of int
        At least 1.
    padding : int or sequence of int, or {"valid", "same"}
        Cells added at the beginning of each dimension, at least 0. ``"same"``, which needs stride 1, makes the output
        as large as the input; an odd cell goes to the end, as in torch.
    groups : int
        Must divide both numbers of channels.
    padding_end : int or sequence of int, optional
        Cells added at the end of each dimension; as `padding` by default.
    padding_mode : {"zeros", "circular", "reflect", "replicate"}
        What a tap over the padding reads: nothing, or the real cell that torch copies there. Two taps may then read
        one cell for one output. Such a pair is **one** edge in ``n_edges``; in the shared filtration
        (`critical_kernel_weights`) it is there as soon as the heavier of its weights is, for weights are stored, and
        pruned, one by one and not in sums.
    transposed : bool
        A transposed convolution: the graph of a convolution with inputs and outputs exchanged. Zero padding only.
    output_padding : int or sequence of int
        For a transposed convolution: cells added to one side of the output, less than the stride or the dilation.

    Raises
    ------
    ValueError
        If an argument is out of range, the sequences differ in length, `groups` does not divide the channels, the
        dilated kernel is larger than the padded input, the padding is more than its mode can copy (circular: the
        input; reflect: one less), or input and output have more than 2^24 cells along a dimension.

    Examples
    --------
    >>> conv = Conv(16, 16, (3, 3), (8, 8), padding=1)
    >>> conv.output_size, conv.n_weights, conv.n_edges, conv.n_components
    ((8, 8), 2304, 123904, 1)
    >>> Conv(16, 8, (4, 4), (8, 8), stride=2, padding=1, transposed=True).output_size
    (16, 16)
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    input_size: tuple[int, ...]
    stride: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)
    groups: int = 1
    padding_end: tuple[int, ...] = (0,)
    padding_mode: str = "zeros"
    transposed: bool = False
    output_padding: tuple[int, ...] = (0,)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        input_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        *,
        padding_end: int | Sequence[int] | None = None,
        padding_mode: str = "zeros",
        transposed: bool = False,
        output_padding: int | Sequence[int] = 0,
    ) -> None:
        n_axes = _number_of_axes(kernel_size, input_size)
        values: dict[str, Any] = {
            "in_channels": integer("in_channels", in_channels, 1),
            "out_channels": integer("out_channels", out_channels, 1),
            "kernel_size": _per_axis("kernel_size", kernel_size, n_axes, 1),
            "input_size": _per_axis("input_size", input_size, n_axes, 1),
            "stride": _per_axis("stride", stride, n_axes, 1),
            "dilation": _per_axis("dilation", dilation, n_axes, 1),
            "groups": integer("groups", groups, 1),
            "padding_mode": choice("padding_mode", padding_mode, PADDING_MODES),
            "transposed": boolean("transposed", transposed),
            "output_padding": _per_axis("output_padding", output_padding, n_axes, 0),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        before, after = self._paddings(padding, padding_end)
        object.__setattr__(self, "padding", before)
        object.__setattr__(self, "padding_end", after)
        self._check()

    def _paddings(
        self, padding: int | Sequence[int] | str, padding_end: int | Sequence[int] | None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        n_axes = len(self.kernel_size)
        if not isinstance(padding, str):
            before = _per_axis("padding", padding, n_axes, 0)
            return before, before if padding_end is None else _per_axis("padding_end", padding_end, n_axes, 0)
        choice("padding", padding, ("valid", "same"))
        if padding_end is not None:
            raise argument_error("padding_end", f"left out where padding is {padding!r}", padding_end)
        if padding == "valid":
            return (0,) * n_axes, (0,) * n_axes
        if self.transposed or max(self.stride) > 1:
            raise argument_error("padding", "a number where the stride is not 1 or the convolution transposed", padding)
        totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)

    def _check(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"Argument 'groups' must divide in_channels={self.in_channels} and out_channels={self.out_channels}, "
                f"not {self.groups}."
            )
        if self.transposed:
            self._check_transposed()
        elif any(self.output_padding):
            raise argument_error("output_padding", "0 where the convolution is not transposed", self.output_padding)
        for axis, size, after in zip(self.axes, self.input_size, self.padding_end, strict=True):
            if axis.positions < 1:
                raise ValueError(
                    f"Argument 'kernel_size' must fit the padded input: {axis.kernel} taps at dilation {axis.dilation} "
                    f"span {axis.span} cells, not the {size + axis.padding + after} there are "
                    f"(input {size}, padding {axis.padding} and {after})."
                )
            if axis.size + axis.positions > _MOST_CELLS:
                rule = f"so small that input and output have at most {_MOST_CELLS} cells along each dimension"
                raise argument_error("input_size", rule, self.input_size)
            most = {"circular": size, "reflect": size - 1}.get(self.padding_mode, math.inf)
            if max(axis.padding, after) > most:
                rule = f"at most {most} where padding_mode is {self.padding_mode!r} and the input {size}"
                raise argument_error("padding", rule, max(axis.padding, after))

    def _check_transposed(self) -> None:
        if self.padding_mode != "zeros":
            raise argument_error("padding_mode", "'zeros' where the convolution is transposed", self.padding_mode)
        for extra, axis in zip(self.output_padding, self.axes, strict=True):
            if extra >= max(axis.stride, axis.dilation):
                rule = f"less than the stride {axis.stride} or the dilation {axis.dilation}"
                raise argument_error("output_padding", rule, extra)
            if axis.size < 1:
                raise argument_error(
                    "padding", f"so small that an output is left, whose size is now {axis.size}", axis.padding
                )

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The geometry along each spatial dimension."""
        sizes = zip(
            self.input_size,
            self.kernel_size,
            self.stride,
            self.padding,
            self.padding_end,
            self.dilation,
            self.output_padding,
            strict=True,
        )
        return tuple(self._axis(*each) for each in sizes)

    def _axis(self, size: int, kernel: int, stride: int, before: int, after: int, dilation: int, extra: int) -> Axis:
        span = dilation * (kernel - 1) + 1
        if self.transposed:
            image = (size - 1) * stride + span - before - after + extra
            return Axis(image, size, kernel, stride, before, dilation)
        positions = (size + before + after - span) // stride + 1
        return Axis(size, positions, kernel, stride, before, dilation, self.padding_mode)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return tuple(axis.size if self.transposed else axis.positions for axis in self.axes)

    @property
    def kernel_positions(self) -> tuple[int, ...]:
        """Positions of the kernel along each dimension: the output size, or, transposed, the input size."""
        return tuple(axis.positions for axis in self.axes)

    @property
    def padded_size(self) -> tuple[int, ...]:
        """Spatial size, padding included, of what the kernel slides over: the input, or, transposed, the output."""
        ends = zip(self.axes, self.padding_end, strict=True)
        return tuple(axis.size + axis.padding + after for axis, after in ends)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the stored kernel, as in torch."""
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        return (first, second // self.groups, *self.kernel_size)

    @property
    def n_weights(self) -> int:
        """Stored kernel weights."""
        return math.prod(self.weight_shape)

    @property
    def n_inputs(self) -> int:
        """Real input neurons, all channels."""
        return self.in_channels * math.prod(self.input_size)

    @property
    def n_outputs(self) -> int:
        """Output neurons, all channels."""
        return self.out_channels * math.prod(self.output_size)

    @property
    def n_vertices(self) -> int:
        """Real input neurons plus output neurons, all channels."""
        return self.n_inputs + self.n_outputs

    @property
    def n_edges(self) -> int:
        """Pairs (real input neuron, output neuron) that the convolution connects, each counted once."""
        spatial = math.prod(axis.graph.n_edges for axis in self.axes)
        return self.in_channels // self.groups * self.out_channels * spatial

    @property
    def n_components(self) -> int:
        """Connected components of the layer graph, isolated neurons counted.

        The biadjacency matrix of the graph is the Kronecker product of those of its axes and of the channels. Such a
        product of connected bipartite graphs with an edge each is connected (Weichsel 1962: a walk from an input to
        an output has odd length in every factor, and a walk is made two steps longer by going there and back; so the
        factors can be walked in step). Hence the numbers of components with an edge multiply, and so do those of the
        neurons with an edge.
        """
        joined = math.prod(axis.graph.n_joined for axis in self.axes)
        cells = math.prod(axis.size for axis in self.axes) - math.prod(axis.graph.touched_cells for axis in self.axes)
        positions = math.prod(self.kernel_positions)
        positions -= math.prod(axis.graph.touched_positions for axis in self.axes)
        if self.transposed:
            cells, positions = positions, cells
        return self.groups * joined + self.in_channels * cells + self.out_channels * positions

    @property
    def n_critical(self) -> None:
        """None: how many kernel weights carry the spanning forest depends on the weights."""
        return

    @property
    def printed_counts(self) -> PrintedCounts:
        """What the paper's closed form counts, n f1 f2 ... and m + n - 1: one channel, m cells of the padded input."""
        positions = math.prod(self.kernel_positions)
        return PrintedCounts(
            positions * math.prod(self.kernel_size), math.prod(self.padded_size) + positions - 1, components=None
        )


def _number_of_axes(kernel_size: int | Sequence[int], input_size: int | Sequence[int]) -> int:
    lengths = [len(v) for v in (kernel_size, input_size) if isinstance(v, list | tuple)]
    n_axes = lengths[0] if lengths else 1
    if not 1 <= n_axes <= _MAX_AXES:
        raise argument_error("kernel_size", f"given along 1 to {_MAX_AXES} dimensions", kernel_size)
    return n_axes


def _per_axis(name: str, value: int | Sequence[int], n_axes: int, low: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return (integer(name, value, low),) * n_axes
    if len(value) != n_axes:
        raise argument_error(name, f"a number or {n_axes} of them", value)
    return tuple(integer(name, v, low) for v in value)


def checked_conv(conv: object) -> Conv:
    """Return `conv`, if it is a Conv.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not isinstance(conv, Conv):
        raise argument_error("conv", "a Conv", conv)
    return conv
