"""What a layer is to a graph: dense, recurrent and convolutional layers, and how much of a graph each one is.

No weights here, only shapes. The counts are exact integers, for every geometry, in the time of one axis.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from topobounds._arguments import integer


@dataclass(frozen=True)
class Dense:
    """A dense layer: the complete bipartite graph K(m, n).

    Parameters
    ----------
    m : int
        Inputs (rows of the weight matrix), at least 1.
    n : int
        Outputs (columns), at least 1.

    Raises
    ------
    ValueError
        If `m` or `n` is no positive integer.
    """

    m: int
    n: int

    def __post_init__(self) -> None:
        """Check the shape."""
        _set_integers(self)

    @property
    def n_weights(self) -> int:
        """Stored weights, m n."""
        return self.m * self.n

    @property
    def n_edges(self) -> int:
        """Edges of the layer graph: one for every weight."""
        return self.n_weights

    @property
    def n_vertices(self) -> int:
        """Neurons, m + n."""
        return self.m + self.n

    @property
    def n_components(self) -> int:
        """Connected components: 1."""
        return 1


@dataclass(frozen=True)
class Recurrent:
    """The hidden-to-hidden matrix of a recurrent layer between two time steps: K(l, l).

    Parameters
    ----------
    hidden_size : int
        Hidden units l, at least 1.

    Raises
    ------
    ValueError
        If `hidden_size` is no positive integer.
    """

    hidden_size: int

    def __post_init__(self) -> None:
        """Check the shape."""
        _set_integers(self)

    @property
    def n_weights(self) -> int:
        """Stored weights, l^2."""
        return self.hidden_size**2

    @property
    def n_edges(self) -> int:
        """Edges of the layer graph: one for every weight."""
        return self.n_weights

    @property
    def n_vertices(self) -> int:
        """Neurons at the two time steps, 2 l."""
        return 2 * self.hidden_size

    @property
    def n_components(self) -> int:
        """Connected components: 1."""
        return 1


@dataclass(frozen=True, init=False)
class Conv:
    """A convolution with zero padding, in one, two or three dimensions.

    Its layer graph has the real input neurons (channel and position; padding cells are no neurons) on one side, the
    output neurons on the other, and an edge for every pair that the convolution connects. The weights are laid out
    as in torch: (out_channels, in_channels / groups, *kernel_size).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels, at least 1.
    kernel_size, input_size : int or tuple of int
        One length per spatial dimension. A number stands for that length along every dimension; where both are
        numbers, the convolution is one-dimensional.
    stride, dilation : int or tuple of int
        At least 1.
    padding : int or tuple of int
        Cells added at both ends of each dimension, at least 0.
    groups : int
        Must divide both numbers of channels.

    Raises
    ------
    ValueError
        If an argument is out of range, the tuples differ in length, `groups` does not divide the channels, or the
        dilated kernel is larger than the padded input.

    Examples
    --------
    >>> conv = Conv(16, 16, (3, 3), (8, 8), padding=1)
    >>> conv.output_size, conv.n_weights, conv.n_edges, conv.n_components
    ((8, 8), 2304, 123904, 1)
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    input_size: tuple[int, ...]
    stride: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)
    groups: int = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        input_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        lengths = [len(v) for v in (kernel_size, input_size) if isinstance(v, Sequence)]
        n_axes = lengths[0] if lengths else 1
        tuples = {
            "kernel_size": _per_axis("kernel_size", kernel_size, n_axes, 1),
            "input_size": _per_axis("input_size", input_size, n_axes, 1),
            "stride": _per_axis("stride", stride, n_axes, 1),
            "padding": _per_axis("padding", padding, n_axes, 0),
            "dilation": _per_axis("dilation", dilation, n_axes, 1),
        }
        counts = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
        for name, value in (tuples | {k: integer(k, v, 1) for k, v in counts.items()}).items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"Argument 'groups' must divide in_channels={self.in_channels} and out_channels={self.out_channels}, "
                f"not {self.groups}."
            )
        for axis in self.axes:
            if axis.outputs < 1:
                raise ValueError(
                    f"Argument 'kernel_size' must fit the padded input: {axis.kernel} taps at dilation {axis.dilation} "
                    f"span {axis.span} cells, not the {axis.size + 2 * axis.padding} there are "
                    f"(input {axis.size}, padding {axis.padding})."
                )

    @cached_property
    def axes(self) -> tuple["Axis", ...]:
        """The geometry along each spatial dimension."""
        sizes = zip(self.input_size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        return tuple(Axis(*each) for each in sizes)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the output."""
        return tuple(axis.outputs for axis in self.axes)

    @property
    def padded_size(self) -> tuple[int, ...]:
        """Spatial size of the input with its padding."""
        return tuple(axis.size + 2 * axis.padding for axis in self.axes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the stored kernel, as in torch."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def n_weights(self) -> int:
        """Stored kernel weights."""
        return math.prod(self.weight_shape)

    @property
    def n_vertices(self) -> int:
        """Real input neurons plus output neurons, all channels."""
        return self.in_channels * math.prod(self.input_size) + self.out_channels * math.prod(self.output_size)

    @property
    def n_edges(self) -> int:
        """Pairs (real input neuron, output neuron) that the convolution connects."""
        spatial = math.prod(sum(axis.tap_edges) for axis in self.axes)
        return self.in_channels // self.groups * self.out_channels * spatial

    @property
    def n_components(self) -> int:
        """Connected components of the layer graph, isolated neurons counted.

        The spatial graph is the product of its axes, inputs with inputs and outputs with outputs; such a product of
        connected bipartite graphs with at least one edge each is connected (Weichsel 1962), so components multiply.
        Channels of one group are copies of the same spatial graph, joined wherever it has an edge.
        """
        joined = math.prod(axis.graph.n_joined for axis in self.axes)
        lone_inputs = math.prod(self.input_size) - math.prod(axis.graph.touched_inputs for axis in self.axes)
        lone_outputs = math.prod(self.output_size) - math.prod(axis.graph.touched_outputs for axis in self.axes)
        return self.groups * joined + self.in_channels * lone_inputs + self.out_channels * lone_outputs


@dataclass(frozen=True)
class AxisGraph:
    """The one-dimensional, one-channel layer graph, counted.

    ``n_joined`` counts the components that have an edge; an input or output is touched if it has one.
    """

    n_joined: int
    touched_inputs: int
    touched_outputs: int


@dataclass(frozen=True)
class Axis:
    """A convolution along one spatial dimension, one channel to one channel."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def span(self) -> int:
        """Cells from the first tap to the last."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def outputs(self) -> int:
        """Output positions; below 1 where the kernel does not fit."""
        return (self.size + 2 * self.padding - self.span) // self.stride + 1

    def real_outputs(self, tap: int) -> range:
        """Output positions at which `tap` reads a real input: q with 0 <= q stride - padding + tap dilation < size."""
        offset = tap * self.dilation - self.padding
        first = max(0, -(offset // self.stride))
        last = min(self.outputs - 1, (self.size - 1 - offset) // self.stride)
        return range(first, last + 1)

    @property
    def tap_edges(self) -> tuple[int, ...]:
        """Edges that each tap makes."""
        return tuple(len(self.real_outputs(tap)) for tap in range(self.kernel))

    def edges(self) -> Iterator[tuple[int, int]]:
        """Yield (input, output) for every edge."""
        for tap in range(self.kernel):
            for output in self.real_outputs(tap):
                yield output * self.stride - self.padding + tap * self.dilation, output

    @cached_property
    def graph(self) -> AxisGraph:
        """The components of the one-channel graph along this dimension."""
        parent = list(range(self.size + self.outputs))

        def find(x: int) -> int:
            while parent[x] != x:
                parent[x] = x = parent[parent[x]]
            return x

        touched = set()
        for i, q in self.edges():
            touched |= {i, self.size + q}
            parent[find(i)] = find(self.size + q)
        inputs = sum(v < self.size for v in touched)
        return AxisGraph(len({find(v) for v in touched}), inputs, len(touched) - inputs)


LayerShape = Dense | Recurrent | Conv


def _per_axis(name: str, value: int | Sequence[int], n_axes: int, low: int) -> tuple[int, ...]:
    if not isinstance(value, Sequence):
        return (integer(name, value, low),) * n_axes
    if len(value) != n_axes or not value:
        raise ValueError(f"Argument '{name}' must be a number or {n_axes} of them, not {value!r}.")
    return tuple(integer(name, v, low) for v in value)


def _set_integers(layer: Dense | Recurrent) -> None:
    for field in fields(layer):
        object.__setattr__(layer, field.name, integer(field.name, getattr(layer, field.name), 1))
