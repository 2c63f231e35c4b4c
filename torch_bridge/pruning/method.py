"""T-IMP for ``torch.nn.utils.prune``: keep what carries a layer's topology, then the largest of its other weights.

One tensor: `topological_unstructured`; a whole model, with a report: `topological_`. Masks and hooks are torch's own,
so ``prune.remove``, ``prune.is_pruned`` and the state_dict work as they do for its methods.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from fractions import Fraction
from numbers import Rational
from typing import Any, Literal, cast

import numpy as np

from topobounds._arguments import argument_error, argument_errors_naming, boolean, choice, integer, real
from topobounds._types import Mask
from topobounds.layers import Conv, LayerTensor
from topobounds.layers.layer_tensor import numbered_parts
from topobounds.pruning import (
    METHODS,
    Infeasible,
    MaskRequest,
    Prunable,
    PrunedLayer,
    PruningReport,
    Scope,
    kept_masks,
)
from topobounds.topology.layer_topology import Topology
from topobounds.weights import as_array, check_finite, weight_array
from torch_bridge._torch import Tensor, is_lazy, nn, parametrize, prune, torch
from torch_bridge._types import Amount, Amounts, Convention
from torch_bridge.model.conv_geometry import conv_geometry
from torch_bridge.model.locks import MODEL_LOCK
from torch_bridge.model.masked import Masked, let_be_copied, mask_array, parametrised_mask
from torch_bridge.model.modules import check_module
from torch_bridge.model.unprunable import why_unprunable
from torch_bridge.model.weight_tensors import model_weight_tensors, weight_tensors
from torch_bridge.model.weights import current_weight, weight_parameter
from torch_bridge.pruning.targets import CONVENTIONS, Place, Target, find_targets

Front = Literal["prune", "parametrize"]
FRONTS = ("prune", "parametrize")


class TopologicalUnstructured(prune.BasePruningMethod):  # type: ignore[misc,unused-ignore]
    """T-IMP as a pruning method of torch: prune what is smallest, but never what carries the topology.

    The mask is that of `topobounds.pruning.topological_mask`; for several graphs stacked in one tensor (`parts`) each
    keeps its own spanning forest, and the rest is ranked over the whole tensor. Magnitudes are those of
    ``weight_orig * mask``, whatever an optimiser did to the pruned entries.

    Parameters
    ----------
    amount : int or float
        An integer is the number of weights to prune, a float in [0, 1] the share of the survivors, as in torch; but the
        share is read as it is written (0.545 of 100 is 54.5), multiplied exactly and rounded, halves to even.
    parts : int
        Equal blocks of rows that are graphs of their own; 1 by default.
    conv : Conv, optional
        Prune a kernel in the convention ``shared``: keep the critical kernel weights. Without it a kernel is read as
        a matrix with its first dimension as rows.
    on_infeasible : {"raise", "clamp"}
        Where fewer than alpha weights would be left: refuse, or leave alpha.
    scored : bool
        Whether the importance scores are one's own. If not they are the weights, and a weight that is zero already,
        as ``prune.remove`` leaves it, is no survivor.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    PRUNING_TYPE = (
        "global"  # hands over the whole tensor and its mask, where "unstructured" would flatten the survivors
    )

    def __init__(
        self,
        amount: Amount,
        *,
        parts: int = 1,
        conv: Conv | None = None,
        on_infeasible: Infeasible = "raise",
        scored: bool = False,
    ) -> None:
        self.amount = _checked_amount(amount)
        self.parts = integer("parts", parts, 1)
        if conv is not None and not isinstance(conv, Conv):
            raise argument_error("conv", "a Conv or None", conv)
        self.conv = conv
        self.on_infeasible = choice("on_infeasible", on_infeasible, ("raise", "clamp"))
        self.scored = boolean("scored", scored)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask of T-IMP within `default_mask`, for importance scores `t`."""
        scores, survivors = as_array("t", t), mask_array(default_mask)
        if survivors.shape != scores.shape:
            raise argument_error("default_mask", f"of the shape {scores.shape} of the weights", survivors.shape)
        if scores.ndim < 2:
            raise ValueError(
                f"Argument 'name' must name a weight of two or more dimensions, not one of {scores.shape}."
            )
        if len(scores) % self.parts:
            raise argument_error("parts", f"a divisor of the {len(scores)} rows", self.parts)
        if not self.scored:
            survivors = survivors & (scores != 0)
        layer = LayerTensor("", scores.shape, parts=numbered_parts(self.parts), geometry=self.conv)
        group = Prunable.keeping_topology(scores, survivors, layer)
        request = _request(self.amount, [group])
        (mask,) = kept_masks([group], request, METHODS["t-imp"], on_infeasible=self.on_infeasible)
        return default_mask * torch.from_numpy(mask).to(default_mask)

    @classmethod
    def apply(  # type: ignore[override,unused-ignore]
        cls,
        module: nn.Module,
        name: str,
        amount: Amount,
        *,
        importance_scores: Tensor | None = None,
        parts: int = 1,
        conv: Conv | None = None,
        on_infeasible: Infeasible = "raise",
    ) -> Any:
        """Prune the parameter `name` of `module`; see `topological_unstructured`.

        Returns
        -------
        TopologicalUnstructured or torch.nn.utils.prune.PruningContainer
            The hook that now masks the parameter.
        """
        _parameter(module, name)
        scores, scored = current_weight(module, name), importance_scores is not None
        if scored:
            scores = _checked_scores(importance_scores, scores.shape, module._buffers.get(f"{name}_mask"))
        with MODEL_LOCK, _trainable_tensors(), _unchanged_on_error(module):
            let_be_copied(module)
            options = {"parts": parts, "conv": conv, "on_infeasible": on_infeasible, "scored": scored}
            return super().apply(module, name, amount, importance_scores=scores, **options)  # type: ignore[no-untyped-call]


def topological_unstructured(
    module: nn.Module,
    name: str,
    amount: Amount,
    importance_scores: Tensor | None = None,
    *,
    convention: Convention | None = None,
    input_size: Sequence[int] | None = None,
    on_infeasible: Infeasible = "raise",
) -> nn.Module:
    """Prune one weight tensor of a module by T-IMP, as ``torch.nn.utils.prune.l1_unstructured`` does by magnitude.

    The layer's persistence diagram stays as it is, bit for bit. Applied again it prunes what is left: an amount of
    0.2 twice leaves 0.64.

    Parameters
    ----------
    module : torch.nn.Module
        The module, changed in place.
    name : str
        Its parameter, of two or more dimensions. Gates of recurrent layers, the query, key and value projections in
        ``in_proj_weight`` and the groups of a grouped kernel are graphs of their own, in one ranking.
    amount : int or float
        Weights to prune, or the share of the survivors; see `TopologicalUnstructured`.
    importance_scores : Tensor of the shape of the parameter, optional
        Take these for the weights, topology included.
    convention : {"flattened", "shared"}, optional
        What graph a convolution is. ``flattened``: the dense layer of the kernel as a matrix (first dimension, the
        rest), each group on its own. ``shared``: the layer graph on neurons, whose critical kernel weights are kept;
        needs `input_size`. The default is ``shared`` where `input_size` is given and ``flattened`` where it is not.
    input_size : sequence of int, optional
        Spatial size of the convolution's input.
    on_infeasible : {"raise", "clamp"}
        Where fewer than alpha weights would be left: refuse, or leave alpha.

    Returns
    -------
    torch.nn.Module
        The same module, with ``name_orig`` and ``name_mask``, and a hook that multiplies them before every call.

    Raises
    ------
    ValueError
        If the module has no such parameter, an argument is out of range, a surviving weight is NaN or infinite, or
        fewer than alpha weights would be left (the message says what alpha is). The module is then as it was.

    Notes
    -----
    ``nn.MultiheadAttention`` reads ``out_proj.weight`` without calling ``out_proj``, so torch's hook on it never runs
    and training fails; `topological_` prunes attention as a whole and sees to it. So it does, given an example input,
    with any other weight that is read without a call of its module, as in ``functional.linear(x, self.layer.weight)``.

    A model that these functions have pruned is copied by ``copy.deepcopy``, and so by
    ``torch.optim.swa_utils.AveragedModel``; one that torch's own methods have pruned only after a call under
    ``torch.no_grad()``. ``prune.global_unstructured`` and Lightning's ``ModelPruning`` hand a method the weights of all
    layers in one flat row, in which there is no graph; `topological_` with ``scope="global"`` is that.

    Examples
    --------
    >>> layer = topological_unstructured(nn.Linear(60, 40), "weight", 0.5)
    >>> int(layer.weight_mask.sum())
    1200
    """
    _parameter(module, name)
    tensor = next((t for t in weight_tensors(module) if t.name == name), LayerTensor(name))
    conv = _conv(module, convention, input_size) if tensor.kind == "conv" else None
    if tensor.kind != "conv" and (convention, input_size) != (None, None):
        what = f"'{name}' of {type(module).__name__}"
        raise ValueError(f"Arguments 'convention' and 'input_size' are for the weights of convolutions, not {what}.")
    parts = len(tensor.with_geometry(conv).parts)
    TopologicalUnstructured.apply(
        module, name, amount, importance_scores=importance_scores, parts=parts, conv=conv, on_infeasible=on_infeasible
    )
    return module


def topological_(
    model: nn.Module,
    amount: Amounts,
    *,
    scope: Scope = "local",
    convention: Convention | None = None,
    example_input: Any = None,
    on_infeasible: Infeasible = "raise",
    skip: Collection[str] = (),
    front: Front = "prune",
) -> PruningReport:
    """Prune all layers of a model by T-IMP, in place.

    Parameters
    ----------
    model : torch.nn.Module
        The model. Linear, convolutional and recurrent layers and attention are pruned, in each of its weight tensors,
        and the linear layers of GPT-2 in the package transformers; biases, embeddings, tensors that are no parameters
        (parametrized, for example), weights in another form (quantized, packed, sparse, distributed), layers whose
        weights are all zero and modules that are none of these are left alone.
    amount : int or float, or a mapping of parameter name to them
        Weights to prune, or the share of the survivors; see `TopologicalUnstructured`. Locally it is about every
        tensor, globally about all together. With a mapping, which is local, only what it names is pruned, and layers
        that have the same weights.
    scope : {"local", "global"}
        ``global`` ranks the weights of all tensors together, once each has kept what carries its own topology.
    convention : {"flattened", "shared"}, optional
        What graph a convolution is; see `topological_unstructured`. ``shared`` needs `example_input`. The default is
        ``shared`` where that is given and ``flattened`` where it is not.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the model is called with, once, to learn the input sizes of its convolutions, and which weights are read
        without a call of their module; see `analyze`.
    on_infeasible : {"raise", "clamp"}
        Where fewer than alpha weights would be left: refuse, or leave alpha.
    skip : collection of str
        Parameters to leave alone, as ``model.named_parameters()`` spells them before pruning: ``"head.weight"``.
    front : {"prune", "parametrize"}
        What masks the weights: the hooks of ``torch.nn.utils.prune``, which ``prune.remove`` takes away, or a
        parametrisation, `torch_bridge.Masked`, which `torch_bridge.unmask` takes away. That one serves every reader of
        a weight, and a model that is compiled, averaged or called under ``inference_mode``. A weight that is masked
        already goes on as it is.

    Returns
    -------
    PruningReport
        Before and after, by layer.

    Raises
    ------
    ValueError
        If there is nothing to prune, a name is not that of a layer, or as `topological_unstructured`, naming the
        layer. The model is then as it was.

    Notes
    -----
    Weights that layers share are pruned once, in all of them, and get one mask, which keeps what carries the topology
    of each; if one of these layers is left alone, all are, and so are weights that a module out of reach holds as its
    own too (a scripted one, or one that is no layer here), for it would read them unmasked. What FSDP distributes is
    left alone, gathered or not. A weight that is zero is no survivor, whoever made it so.

    Torch's hook multiplies a weight by its mask when its module is called. Where another module reads the weight
    without that call (attention its ``out_proj``; ``functional.linear(x, self.layer.weight)``; fused Mamba blocks), a
    hook on this reader refreshes it before every call of the reader; it goes with the first call after
    ``prune.remove``. But for attention the reader is known only from `example_input`, whose call must take the way that
    training takes. Without one, such a weight stays what it was when it was pruned, whatever an optimiser or
    ``load_state_dict`` does.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> report = topological_(nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 10)), 0.8)
    >>> [(layer.name, layer.alpha, layer.kept) for layer in report.layers], report.preserved
    ([('0.weight', 89, 400), ('2.weight', 49, 80)], True)
    """
    check_module("model", model)
    choice("scope", scope, ("local", "global"))
    choice("on_infeasible", on_infeasible, ("raise", "clamp"))
    choice("front", front, FRONTS)
    if isinstance(amount, Mapping) and scope == "global":
        raise argument_error("amount", "one number where the scope is 'global'", amount)
    whole: Amounts
    if isinstance(amount, Mapping):
        whole = {name: _checked_amount(each) for name, each in amount.items()}
    else:
        whole = _checked_amount(amount)
    with MODEL_LOCK, _trainable_tensors():
        return _pruned(model, whole, scope, convention, example_input, on_infeasible, skip, front)


def _pruned(
    model: nn.Module,
    amount: Amounts,
    scope: Scope,
    convention: Convention | None,
    example_input: Any,
    on_infeasible: Infeasible,
    skip: Collection[str],
    front: Front,
) -> PruningReport:
    """Prune the layers of a model, as `topological_` does with checked arguments."""
    targets, left_alone = find_targets(model, amount, skip, convention, example_input)
    if not targets:
        why = "".join(f" '{name}': {reason}" + "." * (not reason.endswith(".")) for name, reason in left_alone.items())
        raise ValueError(f"Argument 'model' must have a layer to prune, and this has none.{why}")
    befores = [target.topologies(target.alive) for target in targets]
    tensors = [_prunable(target, before) for target, before in zip(targets, befores, strict=True)]
    if scope == "global":
        masks = _masks(tensors, amount, on_infeasible)
        asked: list[int | None] = [None] * len(targets)
    else:
        amounts = [amount if target.amount is None else target.amount for target in targets]
        masks = [_masks([tensor], own, on_infeasible)[0] for tensor, own in zip(tensors, amounts, strict=True)]
        asked = [_request(own, [tensor]).count for tensor, own in zip(tensors, amounts, strict=True)]
    found = {
        layer.name: layer
        for target, before, mask, count in zip(targets, befores, masks, asked, strict=True)
        for layer in _pruned_layers(target, before, mask, count)
    }
    with ExitStack() as stack:
        for target in targets:
            for place in target.places:
                stack.enter_context(_unchanged_on_error(place.module, *place.readers))
        for target, mask in zip(targets, masks, strict=True):
            for place in target.places:
                _apply(place, mask, front)
    order = [tensor.name for tensors in model_weight_tensors(model).values() for tensor in tensors]
    return PruningReport(tuple(found[name] for name in order if name in found), left_alone)


def _prunable(target: Target, before: list[Topology]) -> Prunable:
    """Return a target that keeps what carries the topology of each layer that has its weights."""
    protected = np.logical_or.reduce([topology.critical for topology in before])
    return Prunable(weight_array(target.weights), target.alive, protected, tuple(target.layers))


def _masks(group: list[Prunable], amount: Amounts, on_infeasible: str) -> list[Mask]:
    """Return the masks of tensors that are ranked together."""
    with argument_errors_naming(group[0].layers[0].name if len(group) == 1 else None):
        return kept_masks(group, _request(amount, group), METHODS["t-imp"], on_infeasible=on_infeasible)


def _checked_amount(amount: Any) -> Amount:
    rule = "a number of weights or a share of them in [0, 1]"
    if isinstance(amount, Tensor | np.ndarray) and amount.ndim == 0:
        amount = amount.item()
    if isinstance(amount, bool | np.bool_) or not isinstance(amount, Rational | float | np.integer | np.floating):
        raise argument_error("amount", rule, amount)
    if hasattr(amount, "__index__"):
        return integer("amount", amount, 0)
    real("amount", amount, rule, 0.0, 1.0)
    return cast(Amount, amount)


def _request(amount: Any, group: Sequence[Prunable]) -> MaskRequest:
    """Return how many weights are left once `amount` of the survivors of some tensors is pruned."""
    survivors = sum(tensor.n_survivors for tensor in group)
    if hasattr(amount, "__index__"):
        keep = survivors - integer("amount", amount, 0, survivors)
    else:
        keep = survivors - round(Fraction(str(amount)) * survivors)
    return MaskRequest("amount", amount, keep, out_of=survivors)


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    """Return the parameter that holds the weights `name`."""
    check_module("module", module)
    if isinstance(module, torch.jit.ScriptModule):
        raise argument_error("module", "one that is not scripted: torch cannot prune it", type(module).__name__)
    parameter = weight_parameter(module, name) if isinstance(name, str) else None
    if parameter is None:
        raise argument_error("name", f"a parameter of {type(module).__name__}", name)
    if is_lazy(parameter):
        raise argument_error(
            "module", "one that has its weights: this makes them when it is called", type(module).__name__
        )
    obstacle = why_unprunable(module, name)
    if obstacle is not None:
        raise argument_error("name", f"a parameter that can be pruned ({obstacle})", name)
    return parameter


def _checked_scores(scores: Any, shape: torch.Size, mask: Tensor | None) -> Tensor:
    if not isinstance(scores, Tensor) or scores.shape != shape:
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise argument_error("importance_scores", f"a tensor of the shape {tuple(shape)}", given)
    if scores.numel():
        matrix = as_array("importance_scores", scores).reshape(len(scores), -1)
        support = None if mask is None else mask_array(mask).reshape(matrix.shape)
        check_finite(matrix, support, tuple(shape), "importance_scores")
    return scores


def _conv(module: nn.Module, convention: Convention | None, input_size: Sequence[int] | None) -> Conv | None:
    if convention is not None and choice("convention", convention, CONVENTIONS) == "flattened":
        if input_size is not None:
            raise argument_error("input_size", "left out where convention is 'flattened'", input_size)
        return None
    if input_size is None and convention == "shared":
        raise argument_error("input_size", "given where convention is 'shared'", input_size)
    return None if input_size is None else conv_geometry(module, input_size)


def _pruned_layers(target: Target, befores: list[Topology], mask: Mask, asked: int | None) -> Iterator[PrunedLayer]:
    """Yield what was done to each layer that has the weights of a target."""
    first, found = target.places[0], zip(target.places, target.layers, befores, target.topologies(mask), strict=True)
    for place, layer, before, after in found:
        convention: Convention = "flattened" if layer.geometry is None else "shared"
        yield PrunedLayer(
            name=place.name,
            kind=place.tensor.kind,
            convention=convention if place.tensor.kind == "conv" else None,
            shape=layer.shape,
            weights=mask.size,
            survivors=int(np.count_nonzero(target.alive)),
            asked=asked,
            kept=int(np.count_nonzero(mask)),
            alpha=before.n_critical,
            neural_persistence_before=before.neural_persistence,
            neural_persistence_after=after.neural_persistence,
            preserved=before.is_kept_by(after),
            reason=_reason(place, first),
        )


def _apply(place: Place, mask: Mask, front: Front) -> None:
    name, parameter = place.tensor.own_name, cast(Tensor, place.parameter)
    tensor = torch.from_numpy(mask).to(parameter.device)
    known = parametrised_mask(place.module, name)
    if known is not None:
        known.copy_(tensor)
        return
    if front == "parametrize" and f"{name}_mask" not in place.module._buffers:
        parametrize.register_parametrization(place.module, name, Masked(tensor))
        if isinstance(place.module, nn.RNNBase):  # which keeps what was computed
            let_be_copied(place.module)
        return
    let_be_copied(place.module)
    method = prune.CustomFromMask.apply(place.module, name, tensor)  # type: ignore[no-untyped-call]
    last = method[-1] if isinstance(method, prune.PruningContainer) else method
    last.mask = None  # torch keeps it in the module from now on, and asks this method for none again
    for reader in place.readers:
        _refresh_before(reader, place.module)


def _reason(place: Place, first: Place) -> str | None:
    """Return what else there is to say of a pruned weight."""
    shared = "" if place is first else f"the same weights as '{first.name}'"
    readers = ", ".join(sorted({type(each).__name__ for each in place.readers if not _is_attention_of(each, place)}))
    read = f"read without a call of its module by {readers}, where a hook masks it" if readers else ""
    return "; ".join(note for note in (shared, read) if note) or None


def _is_attention_of(reader: nn.Module, place: Place) -> bool:
    return isinstance(reader, nn.MultiheadAttention) and reader.out_proj is place.module


class RefreshWeights:
    """A hook that multiplies weights by their masks before a call of a module that reads them without their modules'.

    It takes itself away once none of them is pruned any more.

    Parameters
    ----------
    modules : list of torch.nn.Module
        Whose weights these are.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules = modules

    def __call__(self, reader: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Run the hooks of pruning of the modules."""
        hooks = [(module, hook) for module in self.modules for hook in _pruning_hooks(module)]
        for module, hook in hooks:
            hook(module, inputs)
        if not hooks:
            own = reader._forward_pre_hooks
            for key in [key for key, hook in own.items() if hook is self]:
                del own[key]


def _pruning_hooks(module: nn.Module) -> list[Any]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, prune.BasePruningMethod)]


def _refresh_before(reader: nn.Module, module: nn.Module) -> None:
    """See to it that the weights of a module are masked before every call of another one that reads them."""
    known = [hook for hook in reader._forward_pre_hooks.values() if isinstance(hook, RefreshWeights)]
    if not known:
        reader.register_forward_pre_hook(RefreshWeights([module]))
    elif all(each is not module for each in known[0].modules):
        known[0].modules.append(module)


def _trainable_tensors() -> AbstractContextManager[Any]:
    """Return a context in which masks and weights are made that can be trained with, under ``inference_mode`` too."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


@contextmanager
def _unchanged_on_error(*modules: nn.Module) -> Iterator[None]:
    """Put modules back as they were if something is refused: torch drops hooks and moves parameters before it asks."""
    saved = [_Saved(module) for module in modules]
    try:
        yield
    except BaseException:
        for each in saved:
            each.put_back()
        raise


class _Saved:
    """What pruning changes of a module, in its order."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind = module, type(module)
        own = (module._parameters, module._buffers, module._forward_pre_hooks, module._modules, vars(module))
        places: list[dict[Any, Any]] = [*own]
        self.dictionaries = [(place, dict(place)) for place in places]
        containers = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, prune.PruningContainer)]
        self.methods = [(container, container._pruning_methods) for container in containers]
        flat = getattr(module, "_flat_weights", None)  # of recurrent modules
        self.flat = (flat, list(flat)) if isinstance(flat, list) else None

    def put_back(self) -> None:
        """Make the module what it was."""
        self.module.__class__ = self.kind  # a parametrised one is of a class of its own
        for place, before in reversed(self.dictionaries):  # vars first: it holds the others
            place.clear()
            place.update(before)
        for container, methods in self.methods:
            container._pruning_methods = methods
        if self.flat is not None:
            self.flat[0][:] = self.flat[1]
