"""Which tensors of a model are pruned, and which are left alone and why; weights that layers share are one target."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from topobounds._arguments import argument_error, argument_errors_naming, choice
from topobounds._types import Array, Mask
from topobounds.layers import Conv, LayerTensor
from topobounds.topology.layer_topology import Topology, layer_topology
from topobounds.weights import as_array
from torch_bridge._torch import Tensor, nn
from torch_bridge._types import Amount, Amounts, Convention
from torch_bridge.model.masked import current_mask, mask_array
from torch_bridge.model.tracing import Trace, trace
from torch_bridge.model.unprunable import unprunable_parameters, why_unprunable
from torch_bridge.model.unread_weights import unread_weights
from torch_bridge.model.weight_tensors import model_weight_tensors
from torch_bridge.model.weights import current_weight, weight_parameter

CONVENTIONS = ("flattened", "shared")
_NAMES_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Place:
    """Where a model has a weight tensor.

    Attributes
    ----------
    module : torch.nn.Module
        Its module.
    tensor : LayerTensor
        The parameter, named as it is spelt before pruning, and the graphs that it holds.
    readers : tuple of torch.nn.Module
        The modules that read it in their own calls, without a call of its module: attention its output projection, and
        whatever was traced; see `torch_bridge.model.tracing.Trace`.
    """

    module: nn.Module
    tensor: LayerTensor
    readers: tuple[nn.Module, ...]

    @property
    def name(self) -> str:
        """The parameter in the model."""
        return self.tensor.name

    @property
    def parameter(self) -> nn.Parameter | None:
        """The parameter that holds the weights; None if they are computed."""
        return weight_parameter(self.module, self.tensor.own_name)

    @property
    def alive(self) -> Mask:
        """What the masks of earlier rounds have left."""
        mask = current_mask(self.module, self.tensor.own_name)
        return mask_array(mask) if mask is not None else np.ones(tuple(cast(Tensor, self.parameter).shape), np.bool_)


@dataclass(frozen=True, eq=False)
class Target:
    """A tensor that is to be pruned, in all its places.

    Attributes
    ----------
    places : list of Place
        The first is the one it is named by.
    layers : list of LayerTensor
        The graphs it holds, place by place: the same weights can be a convolution's on inputs of two sizes.
    weights : ndarray
        As they are now; pruned ones are zero.
    alive : ndarray of bool
        What earlier rounds have left: masked by none of them, and not zero.
    amount : int or float or None
        Its own amount, where each has one.
    """

    places: list[Place]
    layers: list[LayerTensor]
    weights: Array
    alive: Mask
    amount: Amount | None

    def topologies(self, mask: Mask) -> list[Topology]:
        """Return the topology under a mask, place by place."""
        found: dict[LayerTensor, Topology] = {}
        for layer in self.layers:
            graph = replace(layer, name="", source="")
            if graph not in found:
                with argument_errors_naming(layer.name):
                    found[graph] = layer_topology(graph, self.weights, mask)
        return [found[replace(layer, name="", source="")] for layer in self.layers]


def find_targets(
    model: nn.Module,
    amount: Amounts,
    skip: Collection[str],
    convention: Convention | None,
    example_input: Any,
) -> tuple[list[Target], dict[str, str]]:
    """Return what to prune of a model, in the order of its modules, and by name what is left alone, and why.

    Parameters
    ----------
    model, amount, skip, convention, example_input
        As in `torch_bridge.pruning.method.topological_`.

    Raises
    ------
    ValueError
        If a name is not that of a layer, or is that of a weight that cannot be pruned in place; if layers that share
        their weights have different masks or amounts; if a convolution has no one graph; or as `as_array`.
    """
    places = list(_places(model))
    _check_names(places, amount, skip)
    groups: dict[object, list[Place]] = {}
    for place in places:
        groups.setdefault(place.parameter if place.parameter is not None else place.name, []).append(place)
    left_alone: dict[str, str] = {}
    chosen = []
    unprunable = unprunable_parameters(model)
    for group in groups.values():
        reasons = _why_not(group, amount, skip, unprunable)
        left_alone |= reasons
        if not reasons:
            chosen.append(group)
    traced = _traced(chosen, model, convention, example_input)
    targets = [_target(_with_readers(group, traced), amount, _geometries(traced, convention)) for group in chosen]
    empty = [target for target in targets if not target.alive.any()]
    left_alone |= {place.name: "all its weights are zero" for target in empty for place in target.places}
    targets = [target for target in targets if target.alive.any()]
    order = {place.name: number for number, place in enumerate(places)}
    left_alone = dict(sorted(left_alone.items(), key=lambda item: order[item[0]]))
    return targets, left_alone | {name: reason for name, reason in unread_weights(model) if name not in left_alone}


def _places(model: nn.Module) -> Iterator[Place]:
    attentions: dict[nn.Module, tuple[nn.MultiheadAttention, ...]] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            attentions[module.out_proj] = (*attentions.get(module.out_proj, ()), module)
    for module, tensors in model_weight_tensors(model).items():
        for tensor in tensors:
            yield Place(module, tensor, attentions.get(module, ()))


def _check_names(places: list[Place], amount: Amounts, skip: Collection[str]) -> None:
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise argument_error("skip", "a collection of parameter names", skip)
    names = [place.name for place in places]
    for argument, given in (("skip", skip), ("amount", amount if isinstance(amount, Mapping) else ())):
        for name in given:
            if name not in names:
                shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
                raise ValueError(f"Argument '{argument}' names '{name}'; the model has no such layer, only: {shown}.")


def _why_not(
    group: list[Place], amount: Amounts, skip: Collection[str], unprunable: Mapping[int, str]
) -> dict[str, str]:
    """Return the reasons to leave a tensor alone, by place; empty if it is to be pruned."""
    reasons = {place.name: "skipped" for place in group if place.name in skip}
    if isinstance(amount, Mapping):
        if not reasons and any(place.name in amount for place in group):
            _check_can_be_pruned(group[0], unprunable)
            return {}
        reasons = reasons or {place.name: _obstacle(place, unprunable) or "not asked for" for place in group}
    else:
        for place in group:
            obstacle = _obstacle(place, unprunable)
            if obstacle is not None:
                reasons.setdefault(place.name, obstacle)
            if place.tensor.kind == "embedding":
                reasons.setdefault(place.name, "embeddings are pruned where 'amount' names them")
    if not reasons:
        return {}
    first = next(iter(reasons))
    return {each.name: reasons.get(each.name, f"the same weights as '{first}', which is left alone") for each in group}


def _obstacle(place: Place, unprunable: Mapping[int, str]) -> str | None:
    """Return why a weight cannot be pruned in place; None if it can."""
    return why_unprunable(place.module, place.tensor.own_name) or unprunable.get(id(place.parameter))


def _check_can_be_pruned(place: Place, unprunable: Mapping[int, str]) -> None:
    obstacle = _obstacle(place, unprunable)
    if obstacle is not None:
        raise argument_error("amount", f"a mapping of parameters that can be pruned ({obstacle})", place.name)


def _traced(
    chosen: list[list[Place]], model: nn.Module, convention: Convention | None, example_input: Any
) -> Trace | None:
    """Return what a call of the model tells, if there is an example of its input and something to prune."""
    if convention is not None and choice("convention", convention, CONVENTIONS) == "shared" and example_input is None:
        raise argument_error("example_input", "given where convention is 'shared'", example_input)
    return None if example_input is None or not chosen else trace(model, example_input)


def _geometries(traced: Trace | None, convention: Convention | None) -> Trace | None:
    """Return the trace if the geometry of convolutions is to be taken from it."""
    return None if convention == "flattened" else traced


def _with_readers(group: list[Place], traced: Trace | None) -> list[Place]:
    if traced is None:
        return group
    found = [traced.readers.get((place.module, place.tensor.own_name), ()) for place in group]
    return [
        replace(place, readers=tuple(dict.fromkeys((*place.readers, *readers))))
        for place, readers in zip(group, found, strict=True)
    ]


def _target(group: list[Place], amount: Amounts, traced: Trace | None) -> Target:
    first, layers = group[0], []
    with argument_errors_naming(first.name):
        weights = as_array("weights", current_weight(first.module, first.tensor.own_name))
    for place in group:
        conv = _traced_conv(place, traced) if place.tensor.kind == "conv" and traced is not None else None
        with argument_errors_naming(place.name):
            layers.append(replace(place.tensor, shape=weights.shape).with_geometry(conv))
    return Target(group, layers, weights, _one_mask(group) & (weights != 0), _one_amount(group, amount))


def _traced_conv(place: Place, traced: Trace) -> Conv:
    with argument_errors_naming(place.name):
        convs = traced.convs(place.module)
    if len(convs) == 1:
        return convs[0]
    what = "was not called with this example"
    if convs:
        what = "was called with inputs of several sizes"
    elif traced.calls.get(place.module):
        what = "gives outputs that are not of the size of its geometry (it pads or crops by itself)"
    raise ValueError(
        f"Layer '{place.name}' {what}, so it has no one graph on neurons; convention='flattened' needs none."
    )


def _one_mask(group: list[Place]) -> Mask:
    masks = [place.alive for place in group]
    for place, mask in zip(group[1:], masks[1:], strict=True):
        if not np.array_equal(mask, masks[0]):
            raise ValueError(
                f"Layers '{group[0].name}' and '{place.name}' share their weights but have different masks: prune them "
                "alike, or skip them."
            )
    return masks[0]


def _one_amount(group: list[Place], amount: Amounts) -> Amount | None:
    if not isinstance(amount, Mapping):
        return None
    asked = {place.name: amount[place.name] for place in group if place.name in amount}
    first = next(iter(asked))
    for name, other in asked.items():
        if other != asked[first]:
            raise argument_error("amount", f"the same for '{first}' and '{name}', which share their weights", other)
    return asked[first]
