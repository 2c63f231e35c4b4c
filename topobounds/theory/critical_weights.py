"""How many weights of a kernel carry the topology of its convolution: bounds for every kernel without zeros.

A kernel weight is critical if, the weights taken by falling magnitude, its edges merge components of the layer graph
(`topobounds.critical_kernel_weights`). Everything here follows from the shape of the layer alone. Statements and
proofs: docs/theory/convolutions.md.
"""

import itertools
import math
from typing import NamedTuple

from topobounds.layers import Axis, Conv
from topobounds.layers.convolution import checked_conv


class _Shifts(NamedTuple):
    """What the taps of a kernel do along one dimension.

    A tap reads the cells of one residue modulo a step (the stride, where the input does not wrap around), and shifts
    positions against them. `residues` counts the residues that are read. The shifts along closed walks generate a
    cyclic group that contains one of `order` elements; 0 stands for infinitely many.
    """

    residues: int
    order: int


def critical_weights_bound(conv: Conv) -> int:
    """Return a lower bound on the critical weights of every kernel without zeros.

    With g groups, R residues of cells that are read, and d the least number of generators of the group of shifts, ::

        n_critical >= in_channels R + out_channels - g + g d

    R is the product over the dimensions of the residues modulo the stride that some tap reads. Zero padding: d is the
    number of dimensions along which two positions, or two cells of one residue, are connected. Circular padding: the
    residues are those modulo gcd(stride, input size), and d is the largest number of dimensions whose groups of
    shifts, subgroups of the integers modulo size / gcd, have orders with a common factor; stride 1 and an undilated
    kernel on 8 x 8 cells: 2, on 7 x 9 cells: 1. Reflected padding: as circular padding, with 2 for the input size.
    Replicated padding: R = 1 and d = 0, for two taps may connect a map of any number of dimensions. A dimension whose
    taps read no padding counts as zero padded. For transposed convolutions input and output channels change places.

    Parameters
    ----------
    conv : Conv
        The geometry, of any stride, dilation, padding, groups and number of dimensions.

    Returns
    -------
    int
        At least 0, which it is where every tap reads padding only. Proved; attained by many geometries.

    Raises
    ------
    ValueError
        If `conv` is no Conv.

    See Also
    --------
    critical_weights_range : With an upper bound.
    topobounds.expected_critical_weights : The mean over random kernels.

    Notes
    -----
    Proof: docs/theory/convolutions.md, "How few weights can be critical".

    Examples
    --------
    >>> critical_weights_bound(Conv(64, 64, (3, 3), (8, 8), padding=1))
    129
    >>> critical_weights_bound(Conv(512, 512, (3, 3), (14, 14), padding=1))
    1025
    """
    shifts = [_shifts(axis) for axis in checked_conv(conv).axes]
    residues = math.prod(shift.residues for shift in shifts)
    if not residues:
        return 0
    return _channel_rank(conv, residues) + conv.groups * _least_generators([shift.order for shift in shifts])


def critical_weights_range(conv: Conv) -> tuple[int, int]:
    """Return a lower and an upper bound on the critical weights of every kernel without zeros.

    The lower one is `critical_weights_bound`. The upper one is the least of: the stored weights that read a real cell;
    the edges of the spanning forest; and, where the graph is one of a torus (circular padding, and an output of input
    size / stride along every dimension), ::

        in_channels R + out_channels - g + g min(in_channels R / g, out_channels / g) Omega

    Omega is the number of prime factors, with multiplicity, of the order of the group of shifts: 6 for 8 x 8 cells.

    Parameters
    ----------
    conv : Conv
        The geometry.

    Returns
    -------
    tuple of int
        The two bounds, both proved.

    Raises
    ------
    ValueError
        If `conv` is no Conv.

    Notes
    -----
    Proof: docs/theory/convolutions.md, "Circular padding: a gain graph".

    Examples
    --------
    >>> critical_weights_range(Conv(2, 2, (3, 3), (8, 8), padding=1, padding_mode="circular"))
    (5, 15)
    """
    lower = critical_weights_bound(conv)
    reading = [sum(1 for reads in _reads(axis) if reads) for axis in conv.axes]
    pairs = conv.weight_shape[0] * conv.weight_shape[1]
    most = min(pairs * math.prod(reading), conv.n_vertices - conv.n_components)
    if not all(_is_torus(axis) for axis in conv.axes):
        return lower, most
    shifts = [_shifts(axis) for axis in conv.axes]
    residues = math.prod(shift.residues for shift in shifts)
    components = min(conv.weight_shape[1] * residues, conv.weight_shape[0] // conv.groups)
    growths = conv.groups * components * sum(_prime_factors(shift.order) for shift in shifts)
    return lower, min(most, _channel_rank(conv, residues) + growths)


# -- shifts ----------------------------------------------------------------------------------------------------------


def _channel_rank(conv: Conv, residues: int) -> int:
    """Return the edges of a spanning forest of the channels, the cells of each residue being a channel of their own."""
    positions_channels, cells_channels = conv.weight_shape[:2]
    return conv.groups * cells_channels * residues + positions_channels - conv.groups


def _least_generators(orders: list[int]) -> int:
    """Return the least number of generators of a product of cyclic groups: the most of them with a common factor.

    An infinite group has the order 0, which every number divides.
    """
    sizes = range(len(orders), 0, -1)
    return next((k for k in sizes for some in itertools.combinations(orders, k) if math.gcd(*some) != 1), 0)


def _shifts(axis: Axis) -> _Shifts:
    modulus = _modulus(axis)
    step = math.gcd(axis.stride, modulus)  # without a modulus, gcd(stride, 0), the stride
    reads = _reads(axis)
    residues = {(tap * axis.dilation - axis.padding) % step for tap, positions in enumerate(reads) if positions}
    apart = step // math.gcd(step, axis.dilation)  # between two taps that read the same residue
    shift = apart * axis.dilation // step  # of the cells they read, in steps
    if modulus:
        order = modulus // step
        return _Shifts(len(residues), order // math.gcd(order, shift) if axis.kernel > apart else 1)
    moved = any(_connect(axis, *pair, shift) for pair in zip(reads, reads[apart:], strict=False))
    return _Shifts(len(residues), 0 if moved else 1)


def _connect(axis: Axis, near: range, far: range, shift: int) -> bool:
    """Return whether two taps of one residue connect two cells at a position, or two positions at a cell.

    `near` and `far` are the positions at which they read real cells, those of `far` being `shift` steps further on.
    """
    at_a_position = max(near.start, far.start) < min(near.stop, far.stop)
    at_a_cell = bool(far) and far.start + shift < axis.positions
    return at_a_position or at_a_cell


def _modulus(axis: Axis) -> int:
    """Return the number modulo which the cell that a tap reads is a linear function of the position; 0: it always is.

    Reflection keeps a cell's parity, replication nothing.
    """
    if axis.padding_mode == "zeros" or _reads_no_padding(axis):
        return 0
    return {"circular": axis.size, "reflect": 2, "replicate": 1}[axis.padding_mode]


def _reads_no_padding(axis: Axis) -> bool:
    return not axis.padding and (axis.positions - 1) * axis.stride + axis.span <= axis.size


def _is_torus(axis: Axis) -> bool:
    """Return whether every tap reads every cell of its residue once, cells taken modulo the size."""
    wraps = axis.padding_mode == "circular" or _reads_no_padding(axis)
    return wraps and axis.positions * axis.stride == axis.size


def _reads(axis: Axis) -> list[range]:
    """Return, for each tap, the positions at which it reads a real cell or a copy of one."""
    if axis.padding_mode != "zeros":
        return [range(axis.positions)] * axis.kernel
    starts = [axis.padding - tap * axis.dilation for tap in range(axis.kernel)]
    return [
        range(max(0, -(-start // axis.stride)), min(axis.positions, -(-(start + axis.size) // axis.stride)))
        for start in starts
    ]


def _prime_factors(number: int) -> int:
    """Return how many prime factors a positive number has, with multiplicity."""
    count, factor = 0, 2
    while number > 1:
        while number % factor:
            factor = number if factor * factor > number else factor + 1
        number //= factor
        count += 1
    return count
