"""What a layer is to a graph: dense, recurrent and convolutional layers, and how much of a graph each one is.

No weights here, only shapes. The counts are exact integers, for every geometry, in the time of one axis.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsFloat

from topobounds._arguments import argument_error, as_written, boolean, choice, integer, items

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
MAX_AXES = 3
MOST_CELLS = 2**24  # of the input and the output along one dimension, which are counted one by one: about a minute


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
        _set_integers(self, "m", "n")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of the stored matrix."""
        return self.m, self.n

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
        _set_integers(self, "hidden_size")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of the stored matrix."""
        return self.hidden_size, self.hidden_size

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


@dataclass(frozen=True)
class Unrolled:
    """A recurrent layer unrolled over T time steps, its neurons shared by consecutive steps.

    Neurons: the inputs of steps 1 .. T and the hidden units of steps 0 .. T. The hidden units of step t are joined to
    the inputs of step t and to the hidden units of step t - 1. The gates of a unit are read as that unit: each stored
    weight makes one edge per step, and the `gates` weights between the same two units make parallel edges, which count
    as one. With ``steps=1`` and no input this is `Recurrent`.

    Parameters
    ----------
    hidden_size : int
        Hidden units l, at least 1.
    steps : int
        Time steps T, at least 1.
    input_size : int
        Inputs d per step, at least 0; 0 leaves the inputs out.
    gates : int
        1 for a vanilla cell, 3 for a GRU, 4 for an LSTM.

    Raises
    ------
    ValueError
        If an argument is no integer of its range.

    Examples
    --------
    >>> layer = Unrolled(hidden_size=128, steps=28, input_size=28, gates=4)
    >>> layer.n_weights, layer.n_edges, layer.n_vertices
    (79872, 559104, 4496)
    """

    hidden_size: int
    steps: int
    input_size: int = 0
    gates: int = 1

    def __post_init__(self) -> None:
        """Check the shape."""
        object.__setattr__(self, "input_size", integer("input_size", self.input_size, 0))
        _set_integers(self, "hidden_size", "steps", "gates")

    @property
    def n_weights(self) -> int:
        """Stored weights, gates l (l + d)."""
        return self.gates * self.hidden_size * (self.hidden_size + self.input_size)

    @property
    def n_edges(self) -> int:
        """Pairs of neurons that are joined, T l (l + d)."""
        return self.steps * self.hidden_size * (self.hidden_size + self.input_size)

    @property
    def n_vertices(self) -> int:
        """Neurons of all steps, (T + 1) l + T d."""
        return self.hidden_size + self.steps * (self.hidden_size + self.input_size)

    @property
    def n_components(self) -> int:
        """Connected components: 1."""
        return 1


@dataclass(frozen=True)
class Network:
    """Dense layers that share their neurons: the stratified graph of a whole network.

    Parameters
    ----------
    connections : sequence of (Dense, source, target)
        Each layer with the names of the groups of neurons it reads and feeds; a name is anything hashable. Layers that
        name one group share its neurons: an identity skip adds a layer's output to a group, so both are one name. A
        layer with weights of its own on a skip is one more connection. Source and target may be one group (a
        recurrent layer that is not unrolled); its diagonal joins nothing.

    Raises
    ------
    ValueError
        If there is no connection, one is no such triple, or a group has two sizes.

    Examples
    --------
    >>> network = Network([(Dense(784, 300), 0, 1), (Dense(300, 100), 1, 2), (Dense(100, 10), 2, 3)])
    >>> network.n_weights, network.n_vertices, network.n_components
    (266200, 1194, 1)
    """

    connections: tuple[tuple[Dense, Hashable, Hashable], ...]

    def __post_init__(self) -> None:
        """Check that the groups fit."""
        given = tuple(items("connections", self.connections, "(Dense, source, target)"))
        if not given or not all(map(_is_connection, given)):
            raise argument_error("connections", "a non-empty sequence of (Dense, source, target)", self.connections)
        object.__setattr__(self, "connections", given)
        sizes = self.sizes
        for place, (layer, source, target) in enumerate(given):
            for group, size in ((source, layer.m), (target, layer.n)):
                if sizes[group] != size:
                    rule = f"of one size per group: layer {place} has {size} neurons in {group!r}, which has"
                    raise argument_error("connections", f"{rule} {sizes[group]}", layer)

    @cached_property
    def sizes(self) -> dict[Hashable, int]:
        """Neurons of each group, groups in the order in which they are first named."""
        sizes: dict[Hashable, int] = {}
        for layer, source, target in self.connections:
            sizes.setdefault(source, layer.m)
            sizes.setdefault(target, layer.n)
        return sizes

    @property
    def n_weights(self) -> int:
        """Stored weights of all layers."""
        return sum(layer.n_weights for layer, _, _ in self.connections)

    @property
    def n_edges(self) -> int:
        """Edges of the graph: one for every weight, parallel ones and the diagonals of recurrent layers included."""
        return self.n_weights

    @property
    def n_vertices(self) -> int:
        """Neurons, each group counted once."""
        return sum(self.sizes.values())

    @property
    def n_components(self) -> int:
        """Connected components: groups that no chain of layers links."""
        component = {group: group for group in self.sizes}
        for _, source, target in self.connections:
            old, new = component[source], component[target]
            component = {group: new if c == old else c for group, c in component.items()}
        return len(set(component.values()))


@dataclass(frozen=True, init=False)
class Conv:
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
            if axis.size + axis.positions > MOST_CELLS:
                rule = f"so small that input and output have at most {MOST_CELLS} cells along each dimension"
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
    def axes(self) -> tuple["Axis", ...]:
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

    def _axis(self, size: int, kernel: int, stride: int, before: int, after: int, dilation: int, extra: int) -> "Axis":
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


@dataclass(frozen=True)
class AxisGraph:
    """The one-dimensional, one-channel layer graph, counted.

    ``n_joined`` counts the components that have an edge; a cell or position is touched if it has one.
    """

    n_edges: int
    n_joined: int
    touched_cells: int
    touched_positions: int


@dataclass(frozen=True)
class Axis:
    """A convolution along one spatial dimension, one channel to one channel.

    A kernel at `positions` places reads `size` cells: tap t at position q reads the cell
    ``q stride - padding + t dilation``. For a convolution cells are inputs and positions outputs; for a transposed
    one it is the other way round.
    """

    size: int
    positions: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    padding_mode: str = "zeros"

    @property
    def span(self) -> int:
        """Cells from the first tap to the last."""
        return self.dilation * (self.kernel - 1) + 1

    def copied(self, cell: Any) -> Any:
        """Return the real cell that is copied to `cell`, an integer or an array of them; not for zero padding."""
        last = self.size - 1
        if self.padding_mode == "circular":
            return cell % self.size
        if self.padding_mode == "reflect":
            return last - abs(last - cell % max(1, 2 * last))
        return (abs(cell) - abs(cell - last) + last) // 2  # cell clipped to 0 .. last

    def real_cells(self, position: int) -> range:
        """Return the cells of the image that the taps read at `position`, padding left out."""
        start = position * self.stride - self.padding
        first = max(0, -(start // self.dilation))
        last = min(self.kernel - 1, (self.size - 1 - start) // self.dilation)
        return range(start + first * self.dilation, start + last * self.dilation + 1, self.dilation)

    def copied_cells(self, position: int) -> set[int]:
        """Return the cells that the taps over the padding read at `position`."""
        if self.padding_mode == "zeros":
            return set()
        start = position * self.stride - self.padding
        reads = range(start, start + self.span, self.dilation)
        return {self.copied(cell) for cell in reads if not 0 <= cell < self.size}

    @cached_property
    def graph(self) -> AxisGraph:
        """The one-channel graph along this dimension, counted in O(size + positions) where no padding is copied."""
        parent = list(range(self.size + self.positions))

        def find(x: int) -> int:
            while parent[x] != x:
                parent[x] = x = parent[parent[x]]
            return x

        n_edges, touched, reach = 0, set(), dict[int, int]()
        for position in range(self.positions):
            real, copied = self.real_cells(position), self.copied_cells(position)
            n_edges += len(real) + sum(cell not in real for cell in copied)
            vertex = self.size + position
            for cell in itertools.chain(self._fresh(real, reach), copied):
                touched |= {cell, vertex}
                parent[find(cell)] = find(vertex)
        cells = sum(v < self.size for v in touched)
        return AxisGraph(n_edges, len({find(v) for v in touched}), cells, len(touched) - cells)

    def _fresh(self, real: range, reach: dict[int, int]) -> range:
        """Return the part of `real` that earlier positions have not strung together, with one cell they have.

        ``reach[r]`` is the last cell read so far among those of residue r modulo the dilation; runs of one residue
        begin and end in order, so what lies between the start of this one and that cell is one component already.
        """
        if not real:
            return real
        residue = real[0] % self.dilation
        start = max(real[0], reach.get(residue, 0))
        reach[residue] = real[-1]
        return range(start, real[-1] + 1, self.dilation)


LayerShape = Dense | Recurrent | Unrolled | Network | Conv


MOST_NEURONS = 2**24  # of a layer that is summed up or sampled: some ten seconds each


def check_neurons(m: int, n: int) -> None:
    """Refuse a layer of so many rows and columns that what is in proportion to them takes too long.

    Raises
    ------
    ValueError
        If m + n is more than `MOST_NEURONS`.
    """
    if m + n > MOST_NEURONS:
        raise ValueError(f"Arguments 'm' and 'n' must add up to at most {MOST_NEURONS}, not {m + n}.")


def cells_at_density(m: int, n: int, density: SupportsFloat) -> int:
    """Return how many of the m n cells a support of this density has, wherever they are.

    The density is read as it is written (0.1 is one tenth), multiplied exactly and rounded to the nearest integer,
    halves to even.

    Parameters
    ----------
    m, n : int
        Rows and columns.
    density : float or Fraction
        In (0, 1].

    Returns
    -------
    int
        From 0, where the density is below half a cell, to m n.

    Examples
    --------
    >>> cells_at_density(5, 20, 0.235), round(0.235 * 5 * 20)
    (24, 23)
    """
    return round(as_written(density) * m * n)


def _is_connection(given: object) -> bool:
    """Whether it is a layer with the names of two groups."""
    if not isinstance(given, list | tuple) or len(given) != 3:
        return False
    try:
        hash(tuple(given[1:]))
    except TypeError:
        return False
    return isinstance(given[0], Dense)


def _number_of_axes(kernel_size: int | Sequence[int], input_size: int | Sequence[int]) -> int:
    lengths = [len(v) for v in (kernel_size, input_size) if isinstance(v, list | tuple)]
    n_axes = lengths[0] if lengths else 1
    if not 1 <= n_axes <= MAX_AXES:
        raise argument_error("kernel_size", f"given along 1 to {MAX_AXES} dimensions", kernel_size)
    return n_axes


def _per_axis(name: str, value: int | Sequence[int], n_axes: int, low: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        return (integer(name, value, low),) * n_axes
    if len(value) != n_axes:
        raise argument_error(name, f"a number or {n_axes} of them", value)
    return tuple(integer(name, v, low) for v in value)


def _set_integers(layer: Any, *names: str) -> None:
    for name in names:
        object.__setattr__(layer, name, integer(name, getattr(layer, name), 1))
