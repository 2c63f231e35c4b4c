"""Which weights to keep: masks by magnitude, by topology (T-IMP) and at random, and how many to keep in which round.

Every mask keeps an exact number of weights, by rank and never by a threshold: |w| descending, ties by flat index. It is
monotone: a weight that is pruned stays pruned. Weights that are zero without being pruned are kept last.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, as_written, choice, density_fraction, integer, is_integer, real
from topobounds._engine import kernels_disabled
from topobounds.layers import Conv
from topobounds.topology.convolution import checked_conv, critical_kernel_weights
from topobounds.topology.spanning import maximum_spanning_forest
from topobounds.weights import MAGNITUDE_BITS, check_finite, mask_matrix, order_keys, weight_array, weight_matrix

Keep = int | float | Fraction
Mask = NDArray[np.bool_]
Method = Literal["magnitude", "topological", "random"]
Scope = Literal["local", "global"]
Infeasible = Literal["raise", "clamp"]

METHODS = ("magnitude", "topological", "random")
MOST_ROUNDS = 10**6
COMPILED_FROM = 2**18
"""Weights from which on compiled kernels select; four times as many where numba, half a second, is not loaded yet."""
_DIGIT = 16  # bits of a key that are counted at once: the counts stay in the cache


def magnitude_mask(
    weights: ArrayLike,
    keep: Keep | None = None,
    mask: ArrayLike | None = None,
    *,
    compression_ratio: Keep | None = None,
) -> Mask:
    """Return the mask of the largest weights.

    Parameters
    ----------
    weights : array_like
        Real numbers of any shape, finite where they survive; see `topobounds.weights.weight_matrix`.
    keep : int or float or Fraction, optional
        An integer is the number of weights to keep, 0 to the number of survivors. A float or fraction in (0, 1] is the
        share of the survivors: ``keep=1`` keeps one weight, ``keep=1.0`` all of them. The share is read as it is
        written (0.1 is one tenth), multiplied exactly and rounded to the nearest integer, halves to even.
    mask : array_like of bool of the shape of `weights`, optional
        The survivors so far. What is False stays False, and is not looked at.
    compression_ratio : int or float or Fraction, optional
        Instead of `keep`: all weights, pruned ones included, over those to keep; at least 1. Rounded likewise.

    Returns
    -------
    ndarray of bool of the shape of `weights`
        True where a weight is kept.

    Raises
    ------
    ValueError
        If neither or both of `keep` and `compression_ratio` are given, either is out of range or asks for more weights
        than survive, or the arrays are not as said.

    Examples
    --------
    >>> magnitude_mask([[3.0, -2.0], [2.0, 1.0]], 2).tolist()
    [[True, True], [False, False]]
    """
    return _masks([_layer(weights, mask, "magnitude")], keep, compression_ratio)[0]


def topological_mask(
    weights: ArrayLike,
    keep: Keep | None = None,
    mask: ArrayLike | None = None,
    *,
    on_infeasible: Infeasible = "raise",
    compression_ratio: Keep | None = None,
    conv: Conv | None = None,
) -> Mask:
    """Return the mask of T-IMP: first what carries the layer's topology, then the largest of the other weights.

    What carries it is the maximum spanning forest of the weights that survive and are not zero, alpha edges; for a
    convolution, its critical kernel weights. So the layer's persistence diagram stays as it is, bit for bit, its
    largest weight included, whether zeros are read as no edges or as edges of weight 0.

    Parameters
    ----------
    weights : array_like of shape (m, n); with `conv`, of the kernel's shape
        As in `maximum_spanning_forest` and `critical_kernel_weights`. A kernel without `conv` is refused: flatten it
        (``kernel.reshape(len(kernel), -1)``) to prune it as a matrix.
    keep, mask, compression_ratio
        As in `magnitude_mask`.
    on_infeasible : {"raise", "clamp"}
        What to do if fewer weights are to be kept than carry the topology: refuse, or keep exactly those.
    conv : Conv, optional
        The geometry of a convolution.

    Returns
    -------
    ndarray of bool of the shape of `weights`
        True where a weight is kept.

    Raises
    ------
    ValueError
        As `magnitude_mask`; or if fewer than alpha weights are to be kept; the message says what alpha is.

    References
    ----------
    Balwani & Krzyston, arXiv 2206.06563, section 3.4.

    Examples
    --------
    >>> weights = [[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]]
    >>> topological_mask(weights, 4).tolist(), magnitude_mask(weights, 4).tolist()
    ([[True, True, True], [True, False, False]], [[True, True, False], [True, True, False]])
    """
    layer = _layer(weights, mask, "topological", conv)
    return _masks([layer], keep, compression_ratio, on_infeasible)[0]


def random_mask(
    weights: ArrayLike,
    keep: Keep | None = None,
    mask: ArrayLike | None = None,
    *,
    seed: int,
    compression_ratio: Keep | None = None,
) -> Mask:
    """Return the mask of a uniformly random subset of the survivors, zeros among them included.

    Parameters
    ----------
    weights, keep, mask, compression_ratio
        As in `magnitude_mask`. Of the weights only the shape matters, but they are checked alike.
    seed : int
        Non-negative; the same seed gives the same mask.

    Returns
    -------
    ndarray of bool of the shape of `weights`
        True where a weight is kept.

    Raises
    ------
    ValueError
        As `magnitude_mask`, or if `seed` is no non-negative integer.

    Examples
    --------
    >>> int(random_mask(np.ones((20, 10)), 0.25, seed=1).sum())
    50
    """
    entropy = integer("seed", seed, 0), 0
    return _masks([_layer(weights, mask, "random")], keep, compression_ratio, entropy=entropy)[0]


Layers = Mapping[str, ArrayLike] | Sequence[ArrayLike]
Masks = Mapping[str, ArrayLike | None] | Sequence[ArrayLike | None]
Keeps = Keep | Mapping[str, Keep] | Sequence[Keep]
Convs = Mapping[str, Conv | None] | Sequence[Conv | None]


@overload
def network_masks(
    layers: Mapping[str, ArrayLike],
    keep: Keeps | None = ...,
    masks: Masks | None = ...,
    *,
    method: Method = ...,
    scope: Scope = ...,
    on_infeasible: Infeasible = ...,
    compression_ratio: Keep | None = ...,
    convs: Convs | None = ...,
    seed: int | None = ...,
) -> dict[str, Mask]: ...


@overload
def network_masks(
    layers: Sequence[ArrayLike],
    keep: Keeps | None = ...,
    masks: Masks | None = ...,
    *,
    method: Method = ...,
    scope: Scope = ...,
    on_infeasible: Infeasible = ...,
    compression_ratio: Keep | None = ...,
    convs: Convs | None = ...,
    seed: int | None = ...,
) -> list[Mask]: ...


def network_masks(
    layers: Layers,
    keep: Keeps | None = None,
    masks: Masks | None = None,
    *,
    method: Method = "topological",
    scope: Scope = "local",
    on_infeasible: Infeasible = "raise",
    compression_ratio: Keep | None = None,
    convs: Convs | None = None,
    seed: int | None = None,
) -> dict[str, Mask] | list[Mask]:
    """Return the masks of several layers, each pruned on its own or all ranked together.

    Parameters
    ----------
    layers : mapping of str to array_like, or sequence of array_like
        The layers' weights.
    keep : int or float or Fraction, or a mapping or sequence of them, optional
        As in `magnitude_mask`. Locally it is about each layer, and one for each layer may be given; globally it is
        about all layers together.
    masks : mapping or sequence of array_like or None, optional
        The survivors so far, by layer; None where nothing has been pruned.
    method : {"magnitude", "topological", "random"}
        As the function of that name.
    scope : {"local", "global"}
        ``global`` ranks the weights of all layers together, raw as they are, ties by layer and flat index. For
        ``topological`` every layer keeps first what carries its own topology, so none can collapse.
    on_infeasible, compression_ratio
        As in `topological_mask`. Globally alpha is the sum over the layers.
    convs : mapping or sequence of Conv or None, optional
        The geometry of the layers that are convolutions; used by ``topological`` only.
    seed : int, optional
        For ``random``, which needs it.

    Returns
    -------
    dict of str to ndarray of bool, or list of ndarray of bool
        The masks, under the names or in the order of `layers`.

    Raises
    ------
    ValueError
        As the functions of one layer (the message names the layer), or if names, lengths or options do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> layers = {"a": rng.standard_normal((30, 20)), "b": 5 * rng.standard_normal((20, 10))}
    >>> masks = network_masks(layers, 80, scope="global")
    >>> {name: int(mask.sum()) for name, mask in masks.items()}
    {'a': 49, 'b': 31}
    """
    choice("method", method, METHODS)
    if seed is not None:
        integer("seed", seed, 0)
    names = _names(layers)
    supports, geometries = _by_layer("masks", masks, names), _by_layer("convs", convs, names)
    given = zip(names, _by_layer("layers", layers, names), supports, geometries, strict=True)
    read = [_layer(weights, mask, method, conv, name) for name, weights, mask, conv in given]
    groups, keeps = [[layer] for layer in read], _by_layer("keep", keep, names)
    if isinstance(keep, Mapping):
        for name in names:
            if name not in keep:
                raise argument_error("keep", f"a mapping of all layers, also '{name}'", list(keep))
    if choice("scope", scope, ("local", "global")) == "global":
        groups, keeps = [read], [keep]
    found: list[Mask] = []
    for place, (group, asked) in enumerate(zip(groups, keeps, strict=True)):
        entropy = (integer("seed", seed, 0), place) if method == "random" else None
        found += _masks(group, asked, compression_ratio, on_infeasible, entropy)
    return dict(zip(names, found, strict=True)) if isinstance(layers, Mapping) else found


def masks_around(
    required: Sequence[Mask], weights: Sequence[NDArray[Any]], masks: Sequence[Mask], keep: int
) -> list[Mask]:
    """Return the masks of arrays that are ranked together: what is required, then the largest of their other survivors.

    What `network_masks` ends with, for those who know what carries the topology already.

    Parameters
    ----------
    required : sequence of ndarray of bool
        For each array, what is kept in any case; survivors.
    weights : sequence of ndarray of two or more dimensions
        Finite where they survive; ties by array and flat index.
    masks : sequence of ndarray of bool
        The survivors.
    keep : int
        Weights to keep of all arrays together, from the number of those required to that of the survivors.

    Returns
    -------
    list of ndarray of bool
        A mask of the shape of each array.

    Examples
    --------
    >>> weights = np.array([[3.0, 9.0], [5.0, 1.0]])
    >>> required = np.array([[False, False], [False, True]])
    >>> masks_around([required], [weights], [np.ones((2, 2), np.bool_)], 2)[0].tolist()
    [[False, True], [False, True]]
    """
    group = [
        _Layer(
            None, weight_matrix(array.reshape(len(array), -1)).ravel(), array.shape, mask.ravel(), kept.ravel(), False
        )
        for array, mask, kept in zip(weights, masks, required, strict=True)
    ]
    return _select(group, keep, None)


def linear_schedule(n_weights: int, density: float | Fraction, rounds: int) -> tuple[int, ...]:
    """Return the paper's schedule: the same share of all weights is pruned in every round.

    After round r of N, ``n_weights (1 - (1 - density) r / N)`` weights are left, computed exactly (the density is read
    as it is written) and rounded to the nearest integer, halves to even; the rounding does not add up.

    Parameters
    ----------
    n_weights : int
        Weights of the layer or network before the first round, at least 1.
    density : float or Fraction
        Share to be left after the last round, in (0, 1].
    rounds : int
        Rounds N, from 1 to 10^6.

    Returns
    -------
    tuple of int
        Weights left after each round; the last is ``n_weights density``, rounded.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Balwani & Krzyston, arXiv 2206.06563, section 2.1: p/N percent a round.

    Examples
    --------
    >>> linear_schedule(1000, 0.1, 5)
    (820, 640, 460, 280, 100)
    """
    weights, n_rounds = integer("n_weights", n_weights, 1), integer("rounds", rounds, 1, most=MOST_ROUNDS)
    density_fraction("density", density)
    pruned = weights * (1 - as_written(density)) / n_rounds
    return tuple(round(weights - pruned * r) for r in range(1, n_rounds + 1))


def geometric_schedule(n_weights: int, rate: float | Fraction, rounds: int) -> tuple[int, ...]:
    """Return the literature's schedule: the same share of what is left is pruned in every round.

    Each round leaves ``round((1 - rate) left)``, the rate as it is written, computed exactly, halves to even: for 0.2
    what a mask of ``keep=0.8`` leaves when it is taken again and again.

    Parameters
    ----------
    n_weights : int
        Weights of the layer or network before the first round, at least 1.
    rate : float or Fraction
        Share of the survivors that each round prunes, in [0, 1); 0.2 is customary, 0.1 for the output layer.
    rounds : int
        Rounds, from 1 to 10^6.

    Returns
    -------
    tuple of int
        Weights left after each round.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> geometric_schedule(1000, 0.2, 5)
    (800, 640, 512, 410, 328)
    """
    left, n_rounds = integer("n_weights", n_weights, 1), integer("rounds", rounds, 1, most=MOST_ROUNDS)
    real("rate", rate, "a number in [0, 1)", 0.0, float(np.nextafter(1.0, 0.0)))
    kept = 1 - as_written(rate)
    counts = []
    for _ in range(n_rounds):
        left = round(kept * left)
        counts.append(left)
    return tuple(counts)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer, flattened: what may be kept of it, and what carries its topology."""

    name: str | None
    weights: NDArray[Any]
    shape: tuple[int, ...]
    survivors: Mask
    critical: Mask
    is_conv: bool

    @property
    def n_critical(self) -> int:
        return int(np.count_nonzero(self.critical))


def _layer(
    weights: ArrayLike, mask: ArrayLike | None, method: Method, conv: Conv | None = None, name: str | None = None
) -> _Layer:
    with _about(name):
        array = weight_array(weights)
        if method == "topological":
            _check_geometry(array.shape, conv)
        matrix = array.reshape(len(array), -1) if array.ndim > 2 else np.atleast_2d(array)
        survivors = np.ones(array.shape, np.bool_) if mask is None else mask_matrix(mask, array.shape)
        check_finite(matrix, survivors.reshape(matrix.shape), array.shape)
        critical = np.zeros(array.shape, np.bool_)
        if method == "topological":
            critical = _critical(matrix, survivors, conv)
    return _Layer(name, matrix.ravel(), array.shape, survivors.ravel(), critical.ravel(), conv is not None)


def _check_geometry(shape: tuple[int, ...], conv: Conv | None) -> None:
    """Refuse weights that are no matrix where no Conv says what they are, and what is no Conv."""
    if conv is not None:
        checked_conv(conv)
    elif len(shape) < 2:
        raise ValueError(f"Argument 'weights' must be a matrix, not an array of shape {shape}.")
    elif len(shape) > 2:
        raise ValueError(
            f"Argument 'conv' must be given for weights of shape {shape}: the Conv whose kernel they are, or "
            "flatten them to a matrix, kernel.reshape(len(kernel), -1)."
        )


def _critical(matrix: NDArray[Any], survivors: Mask, conv: Conv | None) -> Mask:
    """Return the mask of the spanning forest, or of the critical kernel weights, of the survivors."""
    support = None if survivors.all() else survivors
    if conv is not None:
        return critical_kernel_weights(matrix.reshape(survivors.shape), conv, support).mask
    forest = maximum_spanning_forest(matrix, support)
    critical = np.zeros(survivors.shape, np.bool_)
    critical[forest.rows, forest.cols] = True
    return critical


def _masks(
    group: list[_Layer],
    keep: Keep | None,
    compression_ratio: Keep | None,
    on_infeasible: Infeasible = "raise",
    entropy: tuple[int, int] | None = None,
) -> list[Mask]:
    """Return the masks of layers that are ranked together."""
    choice("on_infeasible", on_infeasible, ("raise", "clamp"))
    n_critical = sum(layer.n_critical for layer in group)
    with _about(group[0].name if len(group) == 1 else None):
        count = _asked(group, keep, compression_ratio)
        if count < n_critical and on_infeasible == "raise":
            given = ("keep", keep) if compression_ratio is None else ("compression_ratio", compression_ratio)
            raise _infeasible(group, n_critical, *given, count)
    return _select(group, max(count, n_critical), entropy)


def _asked(group: list[_Layer], keep: Keep | None, compression_ratio: Keep | None) -> int:
    if (keep is None) == (compression_ratio is None):
        raise ValueError("Exactly one of the arguments 'keep' and 'compression_ratio' must be given.")
    survivors = sum(int(np.count_nonzero(layer.survivors)) for layer in group)
    if compression_ratio is not None:
        real("compression_ratio", compression_ratio, "a number of at least 1", 1.0, sys.float_info.max)
        count = round(sum(layer.weights.size for layer in group) / as_written(compression_ratio))
        if count > survivors:
            rule = f"so large that no more than the {survivors} survivors are to be kept"
            raise argument_error("compression_ratio", rule, compression_ratio)
        return count
    if is_integer(keep):
        return integer("keep", keep, 0, survivors)
    real("keep", keep, "a number of weights or a share of them in (0, 1]", 0.0, 1.0, open_low=True)
    return round(as_written(cast(float, keep)) * survivors)


def _infeasible(group: list[_Layer], n_critical: int, argument: str, given: Keep | None, count: int) -> ValueError:
    kinds = {layer.is_conv for layer in group}
    what = {
        frozenset([False]): "the edges of the spanning forest",
        frozenset([True]): "the critical kernel weights",
    }.get(frozenset(kinds), "the edges of the spanning forests and the critical kernel weights")
    of = "layer" if len(group) == 1 else "layers"
    return ValueError(
        f"Argument '{argument}' must leave at least alpha = {n_critical} weights, {what}, or the diagram of the {of} "
        f"would change; {given!r} leaves {count}. on_infeasible='clamp' stops at alpha."
    )


def _select(group: list[_Layer], count: int, entropy: tuple[int, int] | None) -> list[Mask]:
    """Keep what is critical, then the best of the rest, `count` weights in all."""
    free = [layer.survivors & ~layer.critical for layer in group]
    wanted = count - sum(layer.n_critical for layer in group)
    kept = [layer.critical.copy() for layer in group]
    if entropy is None:
        _mark_largest([layer.weights for layer in group], free, wanted, kept)
    else:
        places = [np.flatnonzero(each) for each in free]
        ends = np.cumsum([each.size for each in places])
        chosen = np.zeros(ends[-1], np.bool_)
        chosen[np.random.default_rng(entropy).choice(ends[-1], wanted, replace=False)] = True
        for mask, place, part in zip(kept, places, np.split(chosen, ends[:-1]), strict=True):
            mask[place] = part
    return [mask.reshape(layer.shape) for mask, layer in zip(kept, group, strict=True)]


def _mark_largest(weights: list[NDArray[Any]], free: list[Mask], wanted: int, kept: list[Mask]) -> None:
    """Mark the `wanted` largest of the free weights in `kept`, modified in place; the first ones among equals."""
    if not wanted:
        return
    if len({part.dtype for part in weights}) > 1:
        weights = [part.astype(np.float64) for part in weights]  # which holds the other types exactly
    compiled_from = COMPILED_FROM * (1 if "numba" in sys.modules else 4)
    if sum(part.size for part in weights) >= compiled_from and not kernels_disabled():
        _mark_by_digits(weights, free, wanted, kept)
        return
    keys = np.concatenate([order_keys(part)[open_] for part, open_ in zip(weights, free, strict=True)])
    threshold = np.partition(keys, keys.size - wanted)[keys.size - wanted]
    ties = wanted - int(np.count_nonzero(keys > threshold))
    for part, open_, mask in zip(weights, free, kept, strict=True):
        found = order_keys(part)
        equal = np.flatnonzero(open_ & (found == threshold))[:ties]
        mask[open_ & (found > threshold)] = True
        mask[equal] = True
        ties -= equal.size


def _mark_by_digits(weights: list[NDArray[Any]], free: list[Mask], wanted: int, kept: list[Mask]) -> None:
    """Do the same by counting the digits of the keys, from the highest on, with compiled kernels."""
    from topobounds._kernels import selection as kernels  # noqa: PLC0415 (loads numba)

    itemsize = weights[0].itemsize
    kind = np.dtype(f"u{itemsize}").type
    magnitude = kind(MAGNITUDE_BITS[itemsize])
    layers = [(part.view(kind), open_.view(np.uint8)) for part, open_ in zip(weights, free, strict=True)]
    threshold, above = 0, 8 * itemsize - 1
    while above:
        width = min(_DIGIT, above)
        counts = np.zeros(2**width, np.int64)
        for bits, open_ in layers:
            kernels.count_digits(
                bits, open_, magnitude, np.uint64(above), np.uint64(threshold), np.uint64(above - width), counts
            )
        larger = counts[::-1].cumsum() - counts[::-1]  # of each digit, the highest first: the keys with higher ones
        place = int(np.searchsorted(larger, wanted)) - 1
        wanted -= int(larger[place])
        threshold, above = threshold << width | (2**width - 1 - place), above - width
    for (bits, open_), mask in zip(layers, kept, strict=True):
        wanted = kernels.mark_largest(bits, open_, magnitude, kind(threshold), wanted, mask.view(np.uint8))


def _is_container(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _names(layers: Layers) -> list[str]:
    """Return the layers' names; in a sequence they go by their position."""
    if not _is_container(layers) or not layers:
        rule = "a mapping or list of at least one layer"
        raise argument_error("layers", rule, layers if _is_container(layers) else type(layers).__name__)
    return list(layers) if isinstance(layers, Mapping) else [str(place) for place in range(len(layers))]


def _by_layer(argument: str, values: Any, names: Sequence[str]) -> Sequence[Any]:
    """Return one value for each layer: the same where there is but one, and None where a mapping has none."""
    if not _is_container(values):
        return [values] * len(names)
    if isinstance(values, Mapping):
        unknown = [name for name in values if name not in names]
        if unknown:
            raise argument_error(argument, "a mapping of layer names", unknown[0])
        return [values.get(name) for name in names]
    if len(values) != len(names):
        raise ValueError(f"Argument '{argument}' must hold one entry for each of the {len(names)} layers.")
    return cast(Sequence[Any], values)


@contextmanager
def _about(name: str | None) -> Iterator[None]:
    """Name the layer in an error."""
    try:
        yield
    except ValueError as error:
        raise (error if name is None else ValueError(f"Layer '{name}': {error}")) from None
