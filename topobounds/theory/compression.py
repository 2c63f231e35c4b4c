"""Critical compression ratios: how far a layer can be pruned with its 0-dimensional diagram intact."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeGuard

from topobounds._arguments import argument_error, choice
from topobounds._records import Record
from topobounds.layers import Dense, Layer, is_layer

CONVENTIONS = ("paper", "toeplitz")

_LayerLike = Layer | tuple[int, int]


@dataclass(frozen=True)
class Compression(Record):
    """Weights over what must be kept of them, for one layer or for several together.

    Attributes
    ----------
    weights : int
        Edges of the layer graph, summed over the layers.
    kept : int
        Edges of its spanning forest, summed over the layers.
    ratio : Fraction or None
        ``weights / kept``; None if nothing is to be kept.
    components : int or None
        Connected components, isolated neurons counted, summed over the layers; None where a convolution or a network
        is counted by the convention ``paper``, which presumes a connected graph.
    reason : str or None
        Why there is no ratio, or why it is no compression ratio; None if there is nothing to say.
    """

    weights: int
    kept: int
    ratio: Fraction | None
    components: int | None
    reason: str | None


def compression(layers: _LayerLike | Sequence[_LayerLike], convention: str = "paper") -> Compression:
    """Return the critical compression of one layer, or of several pruned each on its own.

    Several layers give the ratio of the sums, as Table 1 does, not the mean of the ratios.

    Parameters
    ----------
    layers : (m, n) or one of the shapes of `topobounds.layers`, or a sequence of them
        The layers; two integers in a tuple are one dense layer.
    convention : {"paper", "toeplitz"}
        What graph a convolution is; for dense and recurrent layers both are the same.

        ``paper``: the printed closed form n f1 f2 / (m + n - 1), one channel, m cells of the padded input and n of the
        output. It presumes a connected graph; where it falls below 1 it is no compression ratio, and the reason says
        so (a 1x1 convolution: n / (2n - 1)).

        ``toeplitz``: the exact layer graph with all channels, real neurons only: n_edges / (n_vertices -
        n_components).

    Returns
    -------
    Compression
        The counts, with a ratio of None where the graph has no edge at all.

    Raises
    ------
    ValueError
        If a layer or the convention is none of the above, or there is no layer.

    Examples
    --------
    >>> compression([(784, 300), (300, 100), (100, 10)]).ratio
    Fraction(266200, 1591)
    >>> from topobounds.layers import Conv
    >>> conv = Conv(16, 16, (3, 3), (8, 8), padding=1)
    >>> compression(conv).ratio, compression(conv, "toeplitz").ratio
    (Fraction(576, 163), Fraction(123904, 2047))
    """
    choice("convention", convention, CONVENTIONS)
    parts = [_one(layer, convention) for layer in as_layers(layers)]
    weights, kept = sum(p.weights for p in parts), sum(p.kept for p in parts)
    counted = [p.components for p in parts]
    components = None if None in counted else sum(c or 0 for c in counted)
    reasons = [p.reason if len(parts) == 1 else f"Layer {i}: {p.reason}" for i, p in enumerate(parts, 1) if p.reason]
    return Compression(weights, kept, Fraction(weights, kept) if kept else None, components, " ".join(reasons) or None)


def critical_compression_ratio(layer: _LayerLike, convention: str = "paper") -> Fraction:
    """Return eta_tau: weights over the fewest that keep the layer's 0-dimensional diagram (Theorem 3.2), exactly.

    Parameters
    ----------
    layer : (m, n) or one of the shapes of `topobounds.layers`
        The layer.
    convention : {"paper", "toeplitz"}
        See `compression`, which gives the two counts as well, and takes several layers.

    Returns
    -------
    Fraction
        At least 1 for dense and recurrent layers (1 iff one side has one neuron) and in the convention ``toeplitz``;
        may fall below 1 for a convolution in the convention ``paper``.

    Raises
    ------
    ValueError
        If an argument is none of the above, or the layer graph has no edge, so that there is nothing to keep.

    Examples
    --------
    >>> critical_compression_ratio((784, 300))
    Fraction(78400, 361)
    """
    result = _one(_as_layer(layer), choice("convention", convention, CONVENTIONS))
    if result.ratio is None:
        raise ValueError(f"No compression ratio: {result.reason}")
    return result.ratio


def _one(layer: Layer, convention: str) -> Compression:
    if convention == "paper":
        printed = layer.printed_counts
        ratio = Fraction(printed.weights, printed.kept)
        return Compression(printed.weights, printed.kept, ratio, printed.components, printed.reason)
    kept = layer.n_vertices - layer.n_components
    if not kept:
        reason = "The layer graph has no edge (every tap reads padding only), so there is nothing to keep."
        return Compression(layer.n_edges, kept, None, layer.n_components, reason)
    return Compression(layer.n_edges, kept, Fraction(layer.n_edges, kept), layer.n_components, None)


def as_layers(layers: _LayerLike | Sequence[_LayerLike]) -> list[Layer]:
    """Return the layers; two integers in a tuple are one dense layer.

    Raises
    ------
    ValueError
        If there is none, or one of them is no layer.
    """
    if not isinstance(layers, Sequence) or isinstance(layers, str) or _is_shape(layers):
        return [_as_layer(layers)]
    if not layers:
        raise argument_error("layers", "a layer or a non-empty sequence of layers", layers)
    return [_as_layer(layer) for layer in layers]


def _as_layer(layer: object) -> Layer:
    if is_layer(layer):
        return layer
    if _is_shape(layer):
        return Dense(*layer)
    raise argument_error("layer", "(m, n) or one of the shapes of topobounds.layers", layer)


def _is_shape(layer: object) -> TypeGuard[tuple[int, int]]:
    return isinstance(layer, tuple) and len(layer) == 2 and all(hasattr(size, "__index__") for size in layer)
