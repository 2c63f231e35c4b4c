"""T-IMP for ``torch.nn.utils.prune``: keep what carries a layer's topology, then the largest of its other weights.

One tensor: `topological_unstructured`; a whole model, with a report: `topological_`. Masks and hooks are torch's own,
so ``prune.remove``, ``prune.is_pruned`` and the state_dict work as they do for its methods.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from torch_bridge import MissingExtra

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.utils import prune
except ModuleNotFoundError as error:
    raise MissingExtra("torch") from error

from topobounds._arguments import argument_error, choice, integer, real
from topobounds._records import Record
from topobounds.analysis import html_table
from topobounds.layers import Conv
from topobounds.pruning import Infeasible, Scope, network_masks
from topobounds.topology.convolution import critical_kernel_weights
from topobounds.topology.filtration import as_array
from topobounds.topology.persistence import PersistenceDiagram, persistence_diagram, total_neural_persistence
from torch_bridge.geometry import (
    Trace,
    WeightTensor,
    about,
    conv_geometry,
    current_weight,
    stored_weight,
    trace,
    weight_tensors,
)

Amount = int | float | Fraction
Convention = Literal["flattened", "shared"]
Array = NDArray[Any]

CONVENTIONS = ("flattened", "shared")


class TopologicalUnstructured(prune.BasePruningMethod):  # type: ignore[misc,unused-ignore]
    """T-IMP as a pruning method of torch: prune what is smallest, but never what carries the topology.

    The mask is that of `topobounds.pruning.topological_mask`; for several graphs stacked in one tensor (`parts`) each
    keeps its own spanning forest, and the rest is ranked over the whole tensor. Magnitudes are those of
    ``weight_orig * mask``, whatever an optimiser did to the pruned entries.

    Parameters
    ----------
    amount : int or float
        As in torch: an integer is the number of weights to prune, a float in [0, 1] the share of the survivors. The
        share is read as it is written, multiplied exactly and rounded to the nearest integer, halves to even.
    parts : int
        Equal blocks of rows that are graphs of their own; 1 by default.
    conv : Conv, optional
        Prune a kernel in the convention ``shared``: keep the critical kernel weights. Without it a kernel is read as
        a matrix with its first dimension as rows.
    on_infeasible : {"raise", "clamp"}
        Where fewer than alpha weights would be left: refuse, or leave alpha.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    PRUNING_TYPE = (
        "global"  # hands over the whole tensor and its mask, where "unstructured" would flatten the survivors
    )

    def __init__(
        self, amount: Amount, *, parts: int = 1, conv: Conv | None = None, on_infeasible: Infeasible = "raise"
    ) -> None:
        self.amount = _checked_amount(amount)
        self.parts = integer("parts", parts, 1)
        self.conv = conv
        self.on_infeasible = choice("on_infeasible", on_infeasible, ("raise", "clamp"))

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Return the mask of T-IMP within `default_mask`, for importance scores `t`."""
        graphs = _graphs(as_array("weights", t), _alive(default_mask), self.parts, self.conv)
        masks = _topological_masks({"": graphs}, {"": self.amount}, "local", cast(Infeasible, self.on_infeasible))
        return default_mask * torch.from_numpy(masks[""]).reshape(t.shape).to(default_mask)

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
        if importance_scores is None:
            importance_scores = current_weight(module, name)
        with _unchanged_on_error(module, name):
            options = {"parts": parts, "conv": conv, "on_infeasible": on_infeasible}
            return super().apply(module, name, amount, importance_scores=importance_scores, **options)  # type: ignore[no-untyped-call]


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
    and training fails; `topological_` prunes attention as a whole and sees to it.

    Examples
    --------
    >>> layer = topological_unstructured(nn.Linear(60, 40), "weight", 0.5)
    >>> int(layer.weight_mask.sum())
    1200
    """
    tensor = _tensor(module, name)
    conv = _conv(module, convention, input_size) if tensor.kind == "conv" else None
    if tensor.kind != "conv" and (convention, input_size) != (None, None):
        raise ValueError(f"Arguments 'convention' and 'input_size' are for convolutions, not {type(module).__name__}.")
    parts = _n_parts(module, tensor, conv)
    TopologicalUnstructured.apply(
        module, name, amount, importance_scores=importance_scores, parts=parts, conv=conv, on_infeasible=on_infeasible
    )
    return module


@dataclass(frozen=True)
class PrunedLayer(Record):
    """What pruning did to one weight tensor.

    Attributes
    ----------
    name : str
        The parameter in the model, ``"features.0.weight"``.
    kind : {"dense", "recurrent", "conv", "embedding"}
        What its graphs are.
    convention : {"flattened", "shared"} or None
        For a convolution, what graph it was taken for.
    shape : tuple of int
        Of the tensor.
    weights, survivors, kept : int
        Stored weights; those left by earlier rounds; those left now.
    alpha : int
        Weights that carry the topology and so had to stay: edges of the spanning forests of its graphs, or critical
        kernel weights.
    neural_persistence_before, neural_persistence_after : float
        Sum of the normalised neural persistence (convention ``balwani``, p = 2) over its graphs.
    preserved : bool
        Whether the persistence diagrams after pruning are, bit for bit, those before; measured, not presumed.
    reason : str or None
        What else there is to say: the weights are another layer's too.
    """

    name: str
    kind: str
    convention: Convention | None
    shape: tuple[int, ...]
    weights: int
    survivors: int
    kept: int
    alpha: int
    neural_persistence_before: float
    neural_persistence_after: float
    preserved: bool
    reason: str | None = None

    @property
    def density(self) -> float:
        """Share of the weights that is left."""
        return self.kept / self.weights


@dataclass(frozen=True)
class PruningReport(Record):
    """What pruning did to a model, layer by layer.

    Attributes
    ----------
    layers : tuple of PrunedLayer
        In the order of the model's modules.
    left_alone : dict of str to str
        Weight tensors that were not pruned, and why.
    """

    layers: tuple[PrunedLayer, ...]
    left_alone: dict[str, str] = field(default_factory=dict)

    @property
    def preserved(self) -> bool:
        """Whether every layer kept its persistence diagrams."""
        return all(layer.preserved for layer in self.layers)

    @property
    def density(self) -> float:
        """Share of the weights of these layers that is left."""
        return sum(layer.kept for layer in self.layers) / sum(layer.weights for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python, with `density` and `preserved`."""
        return {**super().to_dict(), "density": self.density, "preserved": self.preserved}

    def _repr_html_(self) -> str:
        columns: dict[str, Sequence[object]] = {
            "layer": [layer.name for layer in self.layers],
            "kind": [layer.convention or layer.kind for layer in self.layers],
            "shape": [layer.shape for layer in self.layers],
            "weights": [layer.weights for layer in self.layers],
            "kept": [layer.kept for layer in self.layers],
            "density": [layer.density for layer in self.layers],
            "alpha": [layer.alpha for layer in self.layers],
            "neural persistence": [layer.neural_persistence_after for layer in self.layers],
            "preserved": [layer.preserved for layer in self.layers],
        }
        return html_table(columns)


def topological_(
    model: nn.Module,
    amount: Amount | Mapping[str, Amount],
    *,
    scope: Scope = "local",
    convention: Convention | None = None,
    example_input: Any = None,
    on_infeasible: Infeasible = "raise",
    skip: Collection[str] = (),
) -> PruningReport:
    """Prune all layers of a model by T-IMP, in place.

    Parameters
    ----------
    model : torch.nn.Module
        The model. Linear, convolutional and recurrent layers and attention are pruned, in each of its weight tensors;
        biases, embeddings and tensors that are no parameters (parametrized, for example) are left alone.
    amount : int or float, or a mapping of parameter name to them
        Weights to prune, or the share of the survivors; see `TopologicalUnstructured`. Locally it is about every
        tensor, globally about all together. With a mapping, which is local, only what it names is pruned.
    scope : {"local", "global"}
        ``global`` ranks the weights of all tensors together, once each has kept what carries its own topology.
    convention : {"flattened", "shared"}, optional
        What graph a convolution is; see `topological_unstructured`. ``shared`` needs `example_input`. The default is
        ``shared`` where that is given and ``flattened`` where it is not.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the model is called with, once, to learn the input sizes of its convolutions; see `analyze`.
    on_infeasible : {"raise", "clamp"}
        Where fewer than alpha weights would be left: refuse, or leave alpha.
    skip : collection of str
        Parameters to leave alone, as ``model.named_parameters()`` spells them before pruning: ``"head.weight"``.

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
    Weights that two layers share are pruned once, and get one mask. Where ``out_proj`` of attention is pruned, a hook
    on the attention refreshes it before every call; it does nothing after ``prune.remove``.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> report = topological_(nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 10)), 0.8)
    >>> [(layer.name, layer.alpha, layer.kept) for layer in report.layers], report.preserved
    ([('0.weight', 89, 400), ('2.weight', 49, 80)], True)
    """
    targets, left_alone = _targets(model, amount, skip, _geometry(model, convention, example_input))
    amounts = amount if isinstance(amount, Mapping) else dict.fromkeys(targets, amount)
    if not targets:
        raise ValueError("Argument 'model' must have a layer to prune, and this has none.")
    choice("scope", scope, ("local", "global"))
    if isinstance(amount, Mapping) and scope == "global":
        raise argument_error("amount", "one number where the scope is 'global'", amount)
    firsts = {t.owner: t for t in reversed(targets.values())}
    graphs = {name: t.graphs for name, t in targets.items() if firsts[t.owner] is t}
    masks = _topological_masks(graphs, amounts, scope, on_infeasible)
    layers = []
    for target in targets.values():
        first = firsts[target.owner]
        layers.append(_pruned_layer(target, masks[first.name], None if first is target else first.name))
    for target in targets.values():
        _apply(target, masks[firsts[target.owner].name])
    return PruningReport(tuple(layers), left_alone)


@dataclass(frozen=True, eq=False)
class _Graph:
    """One layer graph of a tensor: its weights, which of them are left, and, of a kernel, its geometry."""

    weights: Array
    alive: NDArray[np.bool_]
    conv: Conv | None

    def measured(self, mask: NDArray[np.bool_]) -> tuple[int, PersistenceDiagram]:
        """Return how many of the weights under `mask` carry the topology, and the diagram they make."""
        if self.conv is None:
            diagram = persistence_diagram(self.weights, mask)
            return diagram.alpha, diagram
        critical = critical_kernel_weights(self.weights, self.conv, mask)
        return critical.n_critical, critical.diagram


@dataclass(frozen=True, eq=False)
class _Target:
    """A tensor of the model that is to be pruned."""

    name: str
    module: nn.Module
    tensor: WeightTensor
    owner: nn.Parameter | None
    graphs: list[_Graph]
    convention: Convention | None
    parent: nn.MultiheadAttention | None


def _graphs(weights: Array, alive: NDArray[np.bool_], parts: int, conv: Conv | None) -> list[_Graph]:
    if weights.ndim < 2:
        raise ValueError(f"Argument 'name' must name a weight of two or more dimensions, not one of {weights.shape}.")
    if conv is not None:
        return [_Graph(weights, alive, conv)]
    if len(weights) % parts:
        raise argument_error("parts", f"a divisor of the {len(weights)} rows", parts)
    matrix, support = weights.reshape(len(weights), -1), alive.reshape(len(weights), -1)
    blocks = zip(np.split(matrix, parts), np.split(support, parts), strict=True)
    return [_Graph(block, kept, None) for block, kept in blocks]


def _topological_masks(
    tensors: Mapping[str, list[_Graph]], amounts: Mapping[str, Amount], scope: str, on_infeasible: Infeasible
) -> dict[str, NDArray[np.bool_]]:
    """Return the flat mask of each tensor; its graphs are always ranked together."""
    if scope == "global":
        return _ranked_together(tensors, next(iter(amounts.values())), on_infeasible)
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, graphs in tensors.items():
        with about(name):
            masks |= _ranked_together({name: graphs}, amounts[name], on_infeasible)
    return masks


def _ranked_together(
    tensors: Mapping[str, list[_Graph]], amount: Amount, on_infeasible: Infeasible
) -> dict[str, NDArray[np.bool_]]:
    graphs = [graph for parts in tensors.values() for graph in parts]
    keep = _left(amount, sum(int(graph.alive.sum()) for graph in graphs))
    masks = iter(
        network_masks(
            [graph.weights for graph in graphs],
            keep,
            [graph.alive for graph in graphs],
            scope="global",
            convs=[graph.conv for graph in graphs],
            on_infeasible=on_infeasible,
        )
    )
    return {name: np.concatenate([next(masks).ravel() for _ in parts]) for name, parts in tensors.items()}


def _checked_amount(amount: Amount) -> Amount:
    if not isinstance(amount, bool) and hasattr(amount, "__index__"):
        return integer("amount", amount, 0)
    real("amount", amount, "a number of weights or a share of them in [0, 1]", 0.0, 1.0)
    return amount


def _left(amount: Amount, survivors: int) -> int:
    """Return how many weights are left once `amount` of the survivors is pruned."""
    if hasattr(_checked_amount(amount), "__index__"):
        return survivors - integer("amount", amount, 0, survivors)
    return survivors - round(Fraction(str(amount)) * survivors)


def _alive(mask: Tensor) -> NDArray[np.bool_]:
    return cast(NDArray[np.bool_], (mask != 0).cpu().numpy())


def _tensor(module: nn.Module, name: str) -> WeightTensor:
    """Return what the parameter `name` is; an unknown one is taken for a dense layer."""
    if stored_weight(module, name) is None:
        raise argument_error("name", f"a parameter of {type(module).__name__}", name)
    return next((t for t in weight_tensors(module) if t.name == name), WeightTensor(name, "dense"))


def _conv(module: nn.Module, convention: Convention | None, input_size: Sequence[int] | None) -> Conv | None:
    if convention is not None and choice("convention", convention, CONVENTIONS) == "flattened":
        return None
    if input_size is None and convention == "shared":
        raise argument_error("input_size", "given where convention is 'shared'", input_size)
    return None if input_size is None else conv_geometry(module, input_size)


def _n_parts(module: nn.Module, tensor: WeightTensor, conv: Conv | None) -> int:
    if tensor.kind == "conv":
        return 1 if conv else cast(int, module.groups)
    return len(tensor.parts)


def _geometry(model: nn.Module, convention: Convention | None, example_input: Any) -> Trace | None:
    if convention is not None and choice("convention", convention, CONVENTIONS) == "flattened":
        return None
    if example_input is None and convention == "shared":
        raise argument_error("example_input", "given where convention is 'shared'", example_input)
    return None if example_input is None else trace(model, example_input)


def _targets(
    model: nn.Module, amount: Amount | Mapping[str, Amount], skip: Collection[str], geometry: Trace | None
) -> tuple[dict[str, _Target], dict[str, str]]:
    """Return what to prune and, with the reason, what not."""
    targets: dict[str, _Target] = {}
    left_alone: dict[str, str] = {}
    for name, module, tensor, parent in _weights_of(model):
        reason = _why_not(module, tensor, name, amount, skip)
        if reason is None:
            targets[name] = _target(name, module, tensor, parent, geometry)
        else:
            left_alone[name] = reason
    asked = {*skip, *(amount if isinstance(amount, Mapping) else ())}
    for name in sorted(asked - targets.keys() - left_alone.keys()):
        raise ValueError(f"The model has no layer '{name}'; its layers are: {', '.join([*targets, *left_alone])}.")
    return targets, left_alone


def _weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, WeightTensor, nn.MultiheadAttention | None]]:
    """Yield name, module and tensor of every layer, and the attention it is the output projection of."""
    attention = {module.out_proj: module for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    for path, module in model.named_modules():
        for tensor in weight_tensors(module):
            yield f"{path}.{tensor.name}" if path else tensor.name, module, tensor, attention.get(module)


def _why_not(
    module: nn.Module, tensor: WeightTensor, name: str, amount: Amount | Mapping[str, Amount], skip: Collection[str]
) -> str | None:
    if isinstance(amount, Mapping):
        return None if name in amount and name not in skip else "not asked for"
    if name in skip:
        return "skipped"
    if tensor.kind == "embedding":
        return "embeddings are pruned where 'amount' names them"
    return "it is computed from other parameters" if stored_weight(module, tensor.name) is None else None


def _target(
    name: str, module: nn.Module, tensor: WeightTensor, parent: nn.MultiheadAttention | None, geometry: Trace | None
) -> _Target:
    conv = _traced_conv(name, module, geometry) if tensor.kind == "conv" and geometry is not None else None
    weights = as_array("weights", current_weight(module, tensor.name))
    mask = getattr(module, f"{tensor.name}_mask", None)
    alive = np.ones(weights.shape, np.bool_) if mask is None else _alive(mask)
    graphs = _graphs(weights, alive, _n_parts(module, tensor, conv), conv)
    convention: Convention | None = ("shared" if conv else "flattened") if tensor.kind == "conv" else None
    return _Target(name, module, tensor, stored_weight(module, tensor.name), graphs, convention, parent)


def _traced_conv(name: str, module: nn.Module, geometry: Trace) -> Conv:
    convs = geometry.convs(module)
    if len(convs) == 1:
        return convs[0]
    what = "was called with inputs of several sizes" if convs else "was not called with this example"
    raise ValueError(f"Layer '{name}' {what}, so it has no one graph on neurons; convention='flattened' needs none.")


def _pruned_layer(target: _Target, mask: NDArray[np.bool_], shared_with: str | None) -> PrunedLayer:
    sizes = np.cumsum([graph.alive.size for graph in target.graphs])[:-1]
    parts = [part.reshape(g.alive.shape) for part, g in zip(np.split(mask, sizes), target.graphs, strict=True)]
    alphas, before = zip(*(graph.measured(graph.alive) for graph in target.graphs), strict=True)
    _, after = zip(*(graph.measured(part) for graph, part in zip(target.graphs, parts, strict=True)), strict=True)
    return PrunedLayer(
        name=target.name,
        kind=target.tensor.kind,
        convention=target.convention,
        shape=tuple(current_weight(target.module, target.tensor.name).shape),
        weights=mask.size,
        survivors=sum(int(graph.alive.sum()) for graph in target.graphs),
        kept=int(mask.sum()),
        alpha=sum(alphas),
        neural_persistence_before=total_neural_persistence(before, normalized=True),
        neural_persistence_after=total_neural_persistence(after, normalized=True),
        preserved=all(_same(*pair) for pair in zip(before, after, strict=True)),
        reason=None if shared_with is None else f"the same weights as '{shared_with}'",
    )


def _same(one: PersistenceDiagram, other: PersistenceDiagram) -> bool:
    return (
        np.array_equal(one.deaths, other.deaths) and one.n_essential == other.n_essential and one.w_max == other.w_max
    )


def _apply(target: _Target, mask: NDArray[np.bool_]) -> None:
    weight = current_weight(target.module, target.tensor.name)
    tensor = torch.from_numpy(mask).reshape(weight.shape).to(weight)
    prune.custom_from_mask(target.module, target.tensor.name, tensor)  # type: ignore[no-untyped-call]
    if target.parent is not None and _refresh_out_proj not in target.parent._forward_pre_hooks.values():
        target.parent.register_forward_pre_hook(_refresh_out_proj)


def _refresh_out_proj(attention: nn.MultiheadAttention, inputs: tuple[Any, ...]) -> None:
    """Mask the output projection of attention, whose own hooks do not run: attention reads it without calling it."""
    for hook in attention.out_proj._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            hook(attention.out_proj, inputs)


@contextmanager
def _unchanged_on_error(module: nn.Module, name: str) -> Iterator[None]:
    """Put the hooks back that torch drops before it asks for a second mask, which may be refused."""
    hooks = dict(module._forward_pre_hooks)
    mine = [hook for hook in hooks.values() if getattr(hook, "_tensor_name", None) == name]
    methods = {hook: hook._pruning_methods for hook in mine if isinstance(hook, prune.PruningContainer)}
    try:
        yield
    except Exception:
        module._forward_pre_hooks.clear()
        module._forward_pre_hooks.update(hooks)
        for hook, earlier in methods.items():
            hook._pruning_methods = earlier
        raise
