"""What global magnitude pruning leaves of an untrained network, layer by layer, and where the network collapses.

Layers in a row, layer l with ``N_l = n_l n_{l+1} T_l`` weights between ``n_l`` and ``n_{l+1}`` neurons or channels, T_l
weights per pair. All weights are ranked together and the k largest are kept; layer l keeps each of its weights with the
probability ``p_l = P(|w_l| > t)``, the threshold t being where ``sum N_l p_l = k``. See docs/theory/global_pruning.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np

from topobounds._arguments import argument_error, as_written, choice, density_fraction, integer, is_integer, items, real
from topobounds._records import Record, html_table, plain_record
from topobounds._types import FloatArray
from topobounds.layers import Conv, Dense
from topobounds.theory._logarithms import log_ratio
from topobounds.theory.table1 import Architecture

_Law = Literal["torch", "he", "he_uniform", "glorot", "glorot_normal", "exchangeable"]
_Tail = Callable[[float, float], float]

_BISECTIONS = 200  # of a threshold: more than the bits of a double
_LARGEST_QUANTILE = 40.0  # standard deviations beyond which no normal number of a double's probability lies
_NEGLIGIBLE = 1e-9  # share of a layer in a giant component, taken as none: rounding of an iteration that tends to 0


@dataclass(frozen=True)
class GloballyPrunedLayer(Record):
    """One layer of a network under global pruning.

    Attributes
    ----------
    name : str
        Its name in the architecture, or its position from 0.
    weights : int
        Its weights before pruning.
    kept : float
        Expected number of weights kept.
    reached : float
        Upper bound on the expected number of its outputs (neurons or channels) that a path of kept weights joins to
        an input of the network.
    effective : float
        Upper bound on the expected number of its kept weights that lie on a path from an input to an output.
    """

    name: str
    weights: int
    kept: float
    reached: float
    effective: float

    @property
    def density(self) -> float:
        """Expected share of its weights that is kept."""
        return self.kept / self.weights


@dataclass(frozen=True)
class GlobalPruning(Record):
    """What global magnitude pruning leaves of an untrained network.

    Attributes
    ----------
    law : str
        The law of the weights; ``"scales"`` where standard deviations were given.
    density : float
        Share of all weights that is kept.
    kept : int
        Number of them, k.
    layers : tuple of GloballyPrunedLayer
        In the order of the network.
    overlap : float
        Limit of E[R_k] / alpha: the share of the network's maximum spanning forest that the k largest weights hold.
    overlap_bound : float or None
        A proved lower bound on it, for exchangeable weights; None for other laws.
    collapse_density : float
        Below this density some layer keeps fewer than one weight, or fewer than one output of some layer is reached,
        in expectation; see `global_pruning`.
    status : str
        ``"limit"``: derived for wide layers, no certified error. `reached`, `effective` and `overlap_bound` are bounds,
        proved for pruning at the threshold, and for exchangeable weights.
    """

    law: str
    density: float
    kept: int
    layers: tuple[GloballyPrunedLayer, ...]
    overlap: float
    overlap_bound: float | None
    collapse_density: float

    status: str = "limit"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and the density of each layer, as plain Python."""
        layers = [{**plain_record(layer), "density": layer.density} for layer in self.layers]
        return {**super().to_dict(), "layers": layers}

    def _repr_html_(self) -> str:
        names = ("name", "weights", "kept", "density", "reached", "effective")
        return html_table({name: [getattr(layer, name) for layer in self.layers] for name in names})


@dataclass(frozen=True)
class _Shape:
    """A layer between `inputs` and `outputs` neurons or channels, `taps` weights for every pair of them."""

    name: str
    inputs: int
    outputs: int
    taps: int
    fan_in: int
    fan_out: int

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.taps


@dataclass(frozen=True)
class _Tails:
    """Weights with one law up to their scale: P(|w_l| > t) = tail(t, scale_l), which falls to 0 at or before `end`."""

    tail: _Tail
    scales: tuple[float, ...]
    end: float

    def kept(self, threshold: float) -> FloatArray:
        return np.array([self.tail(threshold, scale) for scale in self.scales])


def global_pruning(
    layers: Sequence[int] | Sequence[Dense | Conv] | Architecture,
    density: float,
    law: _Law | Sequence[float] = "torch",
) -> GlobalPruning:
    """Say what global magnitude pruning leaves of an untrained network, and at which density the network collapses.

    With p_l the share that layer l keeps and T_l its weights per pair of neurons or channels, ::

        x_l = 1 - exp(-T_{l-1} p_{l-1} n_{l-1} x_{l-1} - T_l p_l n_{l+1} x_{l+1})                      largest solution
        E R_k ~ sum n_l x_l + sum T_l p_l n_l n_{l+1} (1 - x_l)(1 - x_{l+1}) - (giant components)
        a_0 = n_0,  a_{l+1} = n_{l+1} (1 - (1 - p_l)^(T_l a_l))  >=  E[outputs of layer l that are reached]

    The **collapse density** is the largest density below which the expected number of weights kept in some layer, or
    the bound a_l on the expected number of neurons reached in some layer, is below 1. Both bound, by Markov's
    inequality, the probability that the network still joins an input to an output. For uniform weights it is where the
    threshold reaches the least of their bounds: the layer with that bound becomes empty there.

    Parameters
    ----------
    layers : sequence of int, sequence of Dense or Conv, or Architecture
        Layers in a row. Integers are the widths of dense layers: ``[784, 300, 100, 10]``. A dense layer after a
        convolution reads its flattened map: its inputs must be a multiple of the channels, and are counted as weights
        of one channel. Convolutions have one group and are not transposed. Architectures with skips are refused.
    density : float
        Share of all weights that is kept, in (0, 1], at least one weight.
    law : str or sequence of float
        ``torch``: uniform in ±1/sqrt(fan_in), the default of torch's Linear and Conv layers. ``he``: normal,
        sqrt(2/fan_in), torch's ``kaiming_normal_``. ``he_uniform``: in ±sqrt(6/fan_in), ``kaiming_uniform_``.
        ``glorot``: uniform in ±sqrt(6/(fan_in + fan_out)), ``xavier_uniform_``. ``glorot_normal``: normal,
        sqrt(2/(fan_in + fan_out)), ``xavier_normal_``. ``exchangeable``: weights exchangeable across all layers. A
        sequence holds the standard deviation of each layer's weights, which are then normal.

    Returns
    -------
    GlobalPruning
        Per layer what is kept, reached and effective; the overlap; the collapse density. Biases and batch norms are
        no weights here.

    Raises
    ------
    ValueError
        If the layers do not fit one another or are no row of such layers, or an argument is out of range.

    Notes
    -----
    Limit statements are for wide layers; `reached` and `effective` are bounds, proved for pruning at a fixed threshold
    with independent weights. Proofs: docs/theory/global_pruning.md.

    References
    ----------
    Bollobas, Janson & Riordan 2007 (the limit); Tanaka et al. 2020 (layer collapse).

    Examples
    --------
    >>> pruned = global_pruning([784, 300, 100, 10], 0.05)
    >>> [round(layer.kept) for layer in pruned.layers], round(pruned.collapse_density, 4)
    ([1134, 11532, 645], 0.0454)
    """
    shapes = _row_of_layers(layers)
    density_fraction("density", density)
    n_weights = sum(shape.weights for shape in shapes)
    k = round(as_written(density) * n_weights)
    if not k:
        raise argument_error("density", f"at least one of the {n_weights} weights", density)
    name, tails = _law(law, shapes)
    shares = _shares(shapes, tails, k)
    alive = _alive(shapes, shares)
    alpha = sum(_neurons(shapes)) - 1
    return GlobalPruning(
        law=name,
        density=k / n_weights,
        kept=k,
        layers=tuple(GloballyPrunedLayer(*each) for each in zip([s.name for s in shapes], *alive, strict=True)),
        overlap=min(1.0, k / alpha, max(0.0, _rank_limit(shapes, shares)) / alpha) if k < n_weights else 1.0,
        overlap_bound=_rank_bound(shapes, k) / alpha if tails is None else None,
        collapse_density=_collapse_density(shapes, tails),
    )


# -- the layers ------------------------------------------------------------------------------------------------------


def _row_of_layers(layers: Any) -> list[_Shape]:
    """Return the layers as one row, each reading what the one before it feeds."""
    named = _named_layers(layers)
    shapes: list[_Shape] = []
    for name, layer in named:
        before = shapes[-1].outputs if shapes else None
        after_conv = bool(shapes) and isinstance(named[len(shapes) - 1][1], Conv)
        shapes.append(_shape(name, layer, before, after_conv))
    return shapes


def _named_layers(layers: Any) -> list[tuple[str, Dense | Conv]]:
    if isinstance(layers, Architecture):
        if layers.has_skips:
            raise argument_error("layers", "a network whose layers are in a row, without skips", layers.name)
        dense = [(f"dense{place}", layer) for place, layer in enumerate(layers.dense, 1)]
        return [*((each.name, each.conv) for each in layers.convs), *dense]
    given = items("layers", layers, "widths or layers")
    if given and all(map(is_integer, given)):
        widths = [integer("layers", width, 1) for width in given]
        given = [Dense(m, n) for m, n in pairwise(widths)]
    if not given or not all(isinstance(layer, Dense | Conv) for layer in given):
        raise argument_error("layers", "at least two widths, or at least one Dense or Conv, in a row", layers)
    return [(str(place), layer) for place, layer in enumerate(given)]


def _shape(name: str, layer: Dense | Conv, before: int | None, after_conv: bool) -> _Shape:
    """Return a layer as pairs of neurons or channels; `before` is the number that the layer before it feeds."""
    if isinstance(layer, Conv):
        if layer.groups != 1 or layer.transposed:
            raise argument_error("layers", "of convolutions with one group, none of them transposed", layer)
        inputs, outputs, taps = layer.in_channels, layer.out_channels, math.prod(layer.kernel_size)
        fan_in, fan_out = inputs * taps, outputs * taps
    else:
        cells = layer.m // before if after_conv and before and not layer.m % before else 1
        inputs, outputs, taps = layer.m // cells, layer.n, cells
        fan_in, fan_out = layer.m, layer.n
    if before is not None and inputs != before:
        raise ValueError(
            f"Argument 'layers' must fit: layer '{name}' reads {inputs}, the one before it feeds {before}."
        )
    return _Shape(name, inputs, outputs, taps, fan_in, fan_out)


def _neurons(shapes: Sequence[_Shape]) -> list[int]:
    """Return the neurons or channels of every group, from the network's inputs to its outputs."""
    return [shapes[0].inputs, *(shape.outputs for shape in shapes)]


# -- what each layer keeps -------------------------------------------------------------------------------------------


def _law(law: Any, shapes: Sequence[_Shape]) -> tuple[str, _Tails | None]:
    """Return the name of a law and its tails; None for exchangeable weights, which all layers keep alike."""
    names = ("torch", "he", "he_uniform", "glorot", "glorot_normal", "exchangeable")
    if not isinstance(law, str):
        given = items("law", law, "standard deviations")
        if len(given) != len(shapes):
            raise argument_error("law", f"one of {names} or {len(shapes)} standard deviations", law)
        return "scales", _normal([real("law", s, "positive numbers", 0.0, math.inf, open_low=True) for s in given])
    choice("law", law, names)
    if law == "exchangeable":
        return law, None
    glorot = law.startswith("glorot")
    fans = [shape.fan_in + shape.fan_out if glorot else shape.fan_in for shape in shapes]
    if law in ("he", "glorot_normal"):
        return law, _normal([math.sqrt(2 / fan) for fan in fans])
    return law, _uniform([math.sqrt((1 if law == "torch" else 6) / fan) for fan in fans])


def kept_by_fan_in(weights: Sequence[int], fan_ins: Sequence[int], density: float) -> list[float]:
    """Return how many weights each layer of an untrained network is expected to keep under global magnitude pruning.

    The weights are uniform in ±1/sqrt(fan_in), torch's default; the layers need not stand in a row.

    Parameters
    ----------
    weights, fan_ins : sequence of int
        Of each layer, positive; at least one layer.
    density : float
        Share of all weights that is kept, in (0, 1].

    Examples
    --------
    >>> [round(kept) for kept in kept_by_fan_in([235200, 30000, 1000], [784, 300, 100], 0.05)]
    [1134, 11532, 645]
    """
    sizes = np.array(weights, float)
    tails = _uniform([1 / math.sqrt(fan) for fan in fan_ins])
    shares = tails.kept(_largest(lambda t: float(sizes @ tails.kept(t)) >= density * sizes.sum(), tails.end))
    return [float(kept) for kept in sizes * shares]


def _normal(deviations: Sequence[float]) -> _Tails:
    largest = _LARGEST_QUANTILE * max(deviations)
    return _Tails(lambda t, scale: math.erfc(t / scale / math.sqrt(2)), tuple(deviations), largest)


def _uniform(bounds: Sequence[float]) -> _Tails:
    return _Tails(lambda t, bound: max(0.0, 1 - t / bound), tuple(bounds), max(bounds))


def _shares(shapes: Sequence[_Shape], tails: _Tails | None, k: float) -> FloatArray:
    """Return the share p_l of its weights that each layer keeps when k are kept in all."""
    sizes = np.array([shape.weights for shape in shapes], float)
    if tails is None:
        return np.full(len(shapes), k / sizes.sum())
    threshold = _largest(lambda t: float(sizes @ tails.kept(t)) >= k, tails.end)
    return tails.kept(threshold)


def _largest(holds: Callable[[float], bool], end: float) -> float:
    """Return the largest number of [0, end], up to rounding, at which a condition holds that holds at 0, then fails."""
    low, high = 0.0, end
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


# -- what is reached -------------------------------------------------------------------------------------------------


def _alive(shapes: Sequence[_Shape], shares: FloatArray) -> tuple[list[int], list[float], list[float], list[float]]:
    """Return, layer by layer, the weights and what is kept, reached and effective of them."""
    forward = _reached(shapes, shares)
    backward = _reached(_reversed(shapes), shares[::-1])[::-1]
    kept = [shape.weights * p for shape, p in zip(shapes, shares.tolist(), strict=True)]
    pairs = zip(shapes, shares.tolist(), forward[:-1], backward[1:], strict=True)
    effective = [p * shape.taps * sources * targets for shape, p, sources, targets in pairs]
    return [shape.weights for shape in shapes], kept, forward[1:], effective


def _reached(shapes: Sequence[_Shape], shares: FloatArray) -> list[float]:
    """Return the bounds a_l on the expected numbers of neurons reached from the inputs, group by group."""
    reached = [float(shapes[0].inputs)]
    for shape, p in zip(shapes, shares.tolist(), strict=True):
        missed = math.log1p(-p) if p < 1 else -math.inf
        tries = shape.taps * reached[-1]
        reached.append(-shape.outputs * math.expm1(tries * missed) if tries else 0.0)
    return reached


def _reversed(shapes: Sequence[_Shape]) -> list[_Shape]:
    """Return the network read from its outputs to its inputs."""
    return [_Shape(s.name, s.outputs, s.inputs, s.taps, s.fan_out, s.fan_in) for s in reversed(shapes)]


def _collapse_density(shapes: Sequence[_Shape], tails: _Tails | None) -> float:
    """Return the density at which the first layer has less than one weight, or less than one output that is reached."""
    n_weights = sum(shape.weights for shape in shapes)

    def density(at: float) -> float:
        return float(sum(s.weights * p for s, p in zip(shapes, shares(at).tolist(), strict=True))) / n_weights

    def shares(at: float) -> FloatArray:
        return np.full(len(shapes), 1 - at) if tails is None else tails.kept(at)

    def whole(at: float) -> bool:
        kept = shares(at)
        fewest = min(s.weights * p for s, p in zip(shapes, kept.tolist(), strict=True))
        return bool(min(fewest, *_reached(shapes, kept)) >= 1)

    return density(_largest(whole, 1.0 if tails is None else tails.end))


# -- the overlap -----------------------------------------------------------------------------------------------------


def _rank_limit(shapes: Sequence[_Shape], shares: FloatArray) -> float:
    """Return the limit of E[R_k] for the graph of all layers together."""
    sizes = np.array(_neurons(shapes), float)
    rates = np.array([shape.taps for shape in shapes]) * shares  # expected weights kept per pair of neurons
    giant = _giant_shares(sizes, rates)
    small = 1 - giant
    edges = rates * sizes[:-1] * sizes[1:] * small[:-1] * small[1:]
    joined = (rates > 0) & (giant[:-1] > 0) & (giant[1:] > 0)
    n_giants = sum(bool(value) for value, _ in groupby(joined))  # runs of layers that a giant component crosses
    return float(sizes @ giant + edges.sum()) - n_giants


def _giant_shares(sizes: FloatArray, rates: FloatArray) -> FloatArray:
    """Return the largest solution of the equations for x in `global_pruning`.

    The right side is concave and rises with x, so Newton's steps from x = 1, above the solution, fall onto it.
    """
    # entry (l, l + 1): expected weights kept from a neuron of group l to group l + 1
    degrees = np.diag(rates * sizes[1:], 1) + np.diag(rates * sizes[:-1], -1)
    x, change = np.ones_like(sizes), 1.0
    while change > _NEGLIGIBLE**2:
        exponents = -degrees @ x
        jacobian = np.eye(sizes.size) - np.exp(exponents)[:, None] * degrees
        step = np.linalg.solve(jacobian, x + np.expm1(exponents))
        following = np.clip(x - step, 0.0, x)
        change, x = float(np.max(x - following)), following
    return np.where(x > _NEGLIGIBLE, x, 0.0)


def _rank_bound(shapes: Sequence[_Shape], k: int) -> float:
    """Return a lower bound on E[R_k] for exchangeable weights: the larger of Boruvka's first round and a chord.

    A neuron with d weights marks its heaviest if one of them is kept, with probability h(d) = 1 - C(M-d, k) / C(M, k).
    A weight is marked twice if it is the heaviest of the d_i + d_j - T at its ends, the T between them counted once.
    """
    sizes, n_weights = _neurons(shapes), sum(shape.weights for shape in shapes)
    fans = [shape.taps * shape.outputs for shape in shapes]
    degrees = [a + b for a, b in zip([0, *(s.taps * s.inputs for s in shapes)], [*fans, 0], strict=True)]
    around = [a + b - s.taps for a, b, s in zip(degrees, degrees[1:], shapes, strict=False)]
    marked = sum(size * _hit(n_weights, k, d)[0] for size, d in zip(sizes, degrees, strict=True))
    twice = sum(s.weights / d * _hit(n_weights, k, d)[1] for s, d in zip(shapes, around, strict=True))
    alpha = sum(sizes) - 1
    rounding = 2.0**-44 * (marked + twice)
    return min(float(alpha), max(k * alpha / n_weights * (1 - 2.0**-50), marked - twice - rounding))


def _hit(n_weights: int, k: int, cells: int) -> tuple[float, float]:
    """Return bounds on the probability that k random weights hit a given set of `cells` of them."""
    if cells + k > n_weights:
        return 1.0, 1.0
    missed = log_ratio(n_weights, np.array([float(cells)]), k)
    return 1 - float(missed.exp_above()[0]), 1 - float(missed.exp_below()[0])
