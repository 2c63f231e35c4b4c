"""Masks of arrays: by magnitude, by topology (T-IMP) and at random.

Weights that are protected are kept first, then the best of the others.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from topobounds._arguments import argument_error, argument_errors_naming, as_written, choice, integer, is_integer, real
from topobounds._text import counted
from topobounds._types import Mask
from topobounds.layers import Conv, LayerTensor
from topobounds.pruning.effective import path_scores
from topobounds.pruning.methods import METHODS, Method, pruning_method
from topobounds.pruning.prunable import Prunable
from topobounds.pruning.selection import RANKINGS
from topobounds.topology.layer_topology import layer_topology
from topobounds.weights import check_finite, mask_matrix, weight_array

Keep = int | float | Fraction
_MethodName = Literal["magnitude", "t-imp", "random", "shuffled", "effective", "topological", "imp"]
Scope = Literal["local", "global"]
Infeasible = Literal["raise", "clamp"]
"""What to do where fewer weights are asked for than carry the topology: refuse, or keep exactly those."""
ON_INFEASIBLE = ("raise", "clamp")


@dataclass(frozen=True)
class MaskRequest:
    """How many weights are to be left, and the argument that asked for it.

    Attributes
    ----------
    argument : str
        Its name.
    value : object
        As it was given.
    count : int
        The weights that it leaves.
    out_of : int or None
        The survivors, where the value alone does not say of how many weights it is.
    """

    argument: str
    value: object
    count: int
    out_of: int | None = None


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
    return _mask(weights, mask, METHODS["magnitude"], keep, compression_ratio)


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
    Balwani & Krzyston, PMLR 196, 2022, section 3.4.

    Examples
    --------
    >>> weights = [[9.0, 8.0, 1.0], [7.0, 6.0, 0.5]]
    >>> topological_mask(weights, 4).tolist(), magnitude_mask(weights, 4).tolist()
    ([[True, True, True], [True, False, False]], [[True, True, False], [True, True, False]])
    """
    return _mask(weights, mask, METHODS["t-imp"], keep, compression_ratio, conv=conv, on_infeasible=on_infeasible)


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
    return _mask(weights, mask, METHODS["random"], keep, compression_ratio, entropy=entropy)


Layers = Mapping[str, ArrayLike] | Sequence[ArrayLike]
Masks = Mapping[str, ArrayLike | None] | Sequence[ArrayLike | None]
_Keeps = Keep | Mapping[str, Keep] | Sequence[Keep]
_Convs = Mapping[str, Conv | None] | Sequence[Conv | None]


@overload
def network_masks(
    layers: Mapping[str, ArrayLike],
    keep: _Keeps | None = ...,
    masks: Masks | None = ...,
    *,
    method: _MethodName = ...,
    scope: Scope = ...,
    on_infeasible: Infeasible = ...,
    compression_ratio: Keep | None = ...,
    convs: _Convs | None = ...,
    seed: int | None = ...,
) -> dict[str, Mask]: ...


@overload
def network_masks(
    layers: Sequence[ArrayLike],
    keep: _Keeps | None = ...,
    masks: Masks | None = ...,
    *,
    method: _MethodName = ...,
    scope: Scope = ...,
    on_infeasible: Infeasible = ...,
    compression_ratio: Keep | None = ...,
    convs: _Convs | None = ...,
    seed: int | None = ...,
) -> list[Mask]: ...


def network_masks(
    layers: Layers,
    keep: _Keeps | None = None,
    masks: Masks | None = None,
    *,
    method: _MethodName = "t-imp",
    scope: Scope = "local",
    on_infeasible: Infeasible = "raise",
    compression_ratio: Keep | None = None,
    convs: _Convs | None = None,
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
    method : {"magnitude", "t-imp", "random", "shuffled", "effective"}
        Its names are those of `topobounds.pruning.METHODS`, or their aliases, ``imp`` and ``topological``. The first
        three are `magnitude_mask`, `topological_mask` and `random_mask`; ``shuffled`` keeps as many weights of every
        layer as ``t-imp``, at random. ``effective`` keeps those of the largest `effective_weights`, ties by |w| and
        then by layer and flat index: `layers` are then layers in a row, in this order, matrices inputs by outputs, and
        the scope is ``global``. `effective_density` of the masks tells how many connections a cut tie left dead.
    scope : {"local", "global"}
        ``global`` ranks the weights of all layers together, raw as they are, ties by layer and flat index. For
        ``t-imp`` every layer keeps first what carries its own topology, so none can collapse.
    on_infeasible, compression_ratio
        As in `topological_mask`. Globally alpha is the sum over the layers.
    convs : mapping or sequence of Conv or None, optional
        The geometry of the layers that are convolutions; used by ``t-imp``, ``shuffled`` and ``effective`` only.
    seed : int, optional
        For ``random`` and ``shuffled``, which need it.

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
    chosen = pruning_method(method)
    counting = chosen.counted_by
    if seed is not None:
        integer("seed", seed, 0)
    names = _names(layers)
    supports, geometries = _by_layer("masks", masks, names), _by_layer("convs", convs, names)
    tensors = []
    for name, weights, mask, conv in zip(names, _by_layer("layers", layers, names), supports, geometries, strict=True):
        with argument_errors_naming(name):
            tensors.append(_prunable(weights, mask, conv, counting))
    groups, keeps = [[tensor] for tensor in tensors], _by_layer("keep", keep, names)
    if isinstance(keep, Mapping):
        for name in names:
            if name not in keep:
                raise argument_error("keep", f"a mapping of all layers, also '{name}'", list(keep))
    if choice("scope", scope, ("local", "global")) == "global":
        groups, keeps = [tensors], [keep]
    elif chosen.by_paths:
        raise argument_error(
            "scope", f"'global' for the method '{chosen.name}', which ranks all layers together", scope
        )
    entropy = [(integer("seed", seed, 0), place) if chosen.is_random else None for place in range(len(names))]
    found: list[Mask] = []
    for place, (group, wanted) in enumerate(zip(groups, keeps, strict=True)):
        with argument_errors_naming(names[place] if len(group) == 1 else None):
            found += _group_masks(group, wanted, compression_ratio, counting, on_infeasible, entropy[place])
    if chosen.counts_of:
        redrawn = zip(tensors, found, entropy, strict=True)
        found = [redrawn_mask(tensor, mask, chosen, own) for tensor, mask, own in redrawn]
    return dict(zip(names, found, strict=True)) if isinstance(layers, Mapping) else found


def _mask(
    weights: ArrayLike,
    mask: ArrayLike | None,
    method: Method,
    keep: Keep | None,
    compression_ratio: Keep | None,
    *,
    conv: Conv | None = None,
    on_infeasible: str = "raise",
    entropy: tuple[int, int] | None = None,
) -> Mask:
    """Return the mask of one layer."""
    group = [_prunable(weights, mask, conv, method)]
    return _group_masks(group, keep, compression_ratio, method, on_infeasible, entropy)[0]


def _group_masks(
    group: Sequence[Prunable],
    keep: Keep | None,
    compression_ratio: Keep | None,
    method: Method,
    on_infeasible: str,
    entropy: tuple[int, int] | None,
) -> list[Mask]:
    """Return the masks of layers that are ranked together."""
    choice("on_infeasible", on_infeasible, ON_INFEASIBLE)
    request = _request(group, keep, compression_ratio)
    return kept_masks(group, request, method, on_infeasible=on_infeasible, entropy=entropy)


def _prunable(weights: ArrayLike, mask: ArrayLike | None, conv: Conv | None, method: Method) -> Prunable:
    """Return checked weights with their survivors and, where the method protects them, what carries their topology."""
    array = weight_array(weights)
    if method.protects or method.by_paths:
        _check_geometry(array.shape, conv)
    survivors = np.ones(array.shape, np.bool_) if mask is None else mask_matrix(mask, array.shape)
    matrix = array.reshape(len(array), -1) if array.ndim > 2 else np.atleast_2d(array)
    check_finite(matrix, survivors.reshape(matrix.shape), array.shape)
    layer = LayerTensor("", array.shape, geometry=conv, inputs_first=True)
    if not method.protects:
        return Prunable.unprotected(array, survivors, layer)
    return Prunable(array, survivors, layer_topology(layer, array, survivors).critical, (layer,))


def _check_geometry(shape: tuple[int, ...], conv: Conv | None) -> None:
    """Refuse weights that are no matrix where no Conv says what they are, and what is no Conv."""
    if conv is not None and not isinstance(conv, Conv):
        raise argument_error("conv", "a Conv", conv)
    if conv is None and len(shape) < 2:
        raise ValueError(f"Argument 'weights' must be a matrix, not an array of shape {shape}.")
    if conv is None and len(shape) > 2:
        raise ValueError(
            f"Argument 'conv' must be given for weights of shape {shape}: the Conv whose kernel they are, or "
            "flatten them to a matrix, kernel.reshape(len(kernel), -1)."
        )


def _request(group: Sequence[Prunable], keep: Keep | None, compression_ratio: Keep | None) -> MaskRequest:
    """Return how many weights the arguments leave of tensors that are ranked together."""
    if (keep is None) == (compression_ratio is None):
        raise ValueError("Exactly one of the arguments 'keep' and 'compression_ratio' must be given.")
    survivors = sum(tensor.n_survivors for tensor in group)
    if compression_ratio is None:
        return MaskRequest("keep", keep, kept_count(cast(Keep, keep), survivors))
    real("compression_ratio", compression_ratio, "a number of at least 1", 1.0, sys.float_info.max)
    count = round(sum(tensor.weights.size for tensor in group) / as_written(compression_ratio))
    if count > survivors:
        rule = f"so large that no more than the {counted(survivors, 'survivor is', 'survivors are')} to be kept"
        raise argument_error("compression_ratio", rule, compression_ratio)
    return MaskRequest("compression_ratio", compression_ratio, count)


def kept_count(keep: Keep, survivors: int) -> int:
    """Return how many of the survivors a count or a share keeps."""
    if is_integer(keep):
        return integer("keep", keep, 0, survivors)
    real("keep", keep, "a number of weights or a share of them in (0, 1]", 0.0, 1.0, open_low=True)
    return round(as_written(keep) * survivors)


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
        raise ValueError(f"Argument '{argument}' must hold one entry for each of the {counted(len(names), 'layer')}.")
    return cast(Sequence[Any], values)


# -- of tensors that are ranked together ------------------------------------------------------------------------------


def kept_masks(
    group: Sequence[Prunable],
    request: MaskRequest,
    method: Method,
    *,
    on_infeasible: str = "raise",
    entropy: tuple[int, int] | None = None,
    out: Sequence[Mask] | None = None,
) -> list[Mask]:
    """Return the masks of tensors that are ranked together.

    Parameters
    ----------
    group : sequence of Prunable
        The tensors; ties go by tensor, then by flat index.
    request : MaskRequest
        How many weights are to be left of all together.
    method : Method
        Its ranking decides which of the weights that are not protected are kept.
    on_infeasible : {"raise", "clamp"}
        What to do if fewer weights are to be left than are protected: refuse, or keep exactly those.
    entropy : tuple of int, optional
        Seed of a ranking that is random, which needs it.
    out : sequence of ndarray of bool, optional
        The masks that are returned, whatever they hold: contiguous, of the shape of each tensor.

    Returns
    -------
    list of ndarray of bool
        A mask of the shape of each tensor.

    Raises
    ------
    ValueError
        If fewer weights are to be left than are protected, and `on_infeasible` is ``raise``.

    Examples
    --------
    >>> from topobounds.pruning import METHODS
    >>> weights = np.array([[3.0, 9.0], [5.0, 1.0]])
    >>> protected = np.array([[False, False], [False, True]])
    >>> tensor = Prunable(weights, np.ones((2, 2), np.bool_), protected, ())
    >>> kept_masks([tensor], MaskRequest("keep", 2, 2), METHODS["magnitude"])[0].tolist()
    [[False, True], [False, True]]
    """
    n_protected = sum(tensor.n_protected for tensor in group)
    if request.count < n_protected and on_infeasible == "raise":
        raise _too_few(group, n_protected, request)
    masks = [np.empty(tensor.weights.shape, np.bool_) for tensor in group] if out is None else list(out)
    for mask, tensor in zip(masks, group, strict=True):
        np.copyto(mask, tensor.protected)
    kept = [mask.reshape(-1) for mask in masks]
    survivors = [tensor.survivors.ravel() for tensor in group]
    wanted = max(request.count, n_protected) - n_protected
    ranked = path_scores(group) if method.by_paths else [tensor.weights for tensor in group]
    RANKINGS[method.rank]([array.ravel() for array in ranked], survivors, wanted, kept, entropy)
    return masks


def redrawn_mask(tensor: Prunable, mask: Mask, method: Method, entropy: tuple[int, int] | None) -> Mask:
    """Return as many survivors as a mask keeps, chosen by a method that protects none of them."""
    count = int(np.count_nonzero(mask))
    free = replace(tensor, protected=np.zeros(mask.shape, np.bool_))
    return kept_masks([free], MaskRequest("keep", count, count), method, entropy=entropy)[0]


def _too_few(group: Sequence[Prunable], n_protected: int, request: MaskRequest) -> ValueError:
    layers = [layer for tensor in group for layer in tensor.layers]
    carriers = {
        frozenset([False]): "the edges of the spanning forest",
        frozenset([True]): "the critical kernel weights",
    }.get(
        frozenset(layer.shares_weights for layer in layers),
        "the edges of the spanning forests and the critical kernel weights",
    )
    n_graphs = sum(len(layer.parts) for layer in layers)
    diagram = "the diagram of the layer" + "s" * (n_graphs > 1)
    out_of = "" if request.out_of is None else f" of {request.out_of}"
    return ValueError(
        f"Argument '{request.argument}' must leave at least alpha = {counted(n_protected, 'weight')}, {carriers}, or "
        f"{diagram} would change; {request.value!r} leaves {request.count}{out_of}. on_infeasible='clamp' "
        "stops at alpha."
    )
