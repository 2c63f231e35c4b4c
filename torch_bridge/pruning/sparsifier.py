"""T-IMP as a sparsifier of ``torch.ao.pruning``: prepare, step, squash_mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from topobounds._arguments import argument_error, argument_errors_naming, as_written, choice, real
from topobounds.layers import Conv
from topobounds.pruning import METHODS, MaskRequest, Prunable, kept_masks
from topobounds.weights import as_array
from torch_bridge._torch import BaseSparsifier, nn, torch
from torch_bridge.model.masked import Masked, mask_array
from torch_bridge.model.unprunable import unprunable_parameters, why_unprunable
from torch_bridge.model.weight_tensors import model_weight_tensors, weight_tensors
from torch_bridge.model.weights import current_weight, weight_parameter


class TopologicalSparsifier(BaseSparsifier):  # type: ignore[misc,unused-ignore]
    """T-IMP behind the interface that sparsifiers of torch.ao.pruning and torchao share.

    ``prepare(model, config)`` puts the masks on, ``step()`` prunes, ``squash_mask()`` leaves a plain model. The masks
    are those of `torch_bridge.topological_`; they stay in the state dict of the model while it is prepared.

    Parameters
    ----------
    sparsity_level : float
        Share of the weights of each tensor that is pruned, in [0, 1]. In ``config`` each tensor may have its own,
        beside its ``tensor_fqn``: what `topobounds prune --export` writes.
    on_infeasible : {"raise", "clamp"}
        Where fewer weights would be left than carry the topology: refuse, or leave those.
    convs : mapping of str to Conv, optional
        The geometry of kernels, by ``tensor_fqn``; the others are read as matrices.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 10))
    >>> sparsifier = TopologicalSparsifier(0.8)
    >>> sparsifier.prepare(model, None)
    >>> sparsifier.step()
    >>> sparsifier.squash_mask()
    >>> int((model[0].weight != 0).sum()), int((model[2].weight != 0).sum())
    (480, 80)
    """

    def __init__(
        self, sparsity_level: float = 0.5, *, on_infeasible: str = "raise", convs: Mapping[str, Conv] | None = None
    ) -> None:
        _checked_level(sparsity_level)
        choice("on_infeasible", on_infeasible, ("raise", "clamp"))
        for name, conv in (convs or {}).items():
            if not isinstance(conv, Conv):
                raise argument_error("convs", f"a mapping of names to Conv, '{name}' too", conv)
        defaults = {"sparsity_level": sparsity_level, "on_infeasible": on_infeasible, "parametrization": Masked}
        super().__init__(defaults=defaults)
        self.convs = dict(convs or {})

    def prepare(self, model: nn.Module, config: list[dict[str, Any]] | None) -> None:
        """Put masks on the tensors of a model.

        Parameters
        ----------
        model : torch.nn.Module
            The model, changed in place.
        config : list of dict, or None
            One for each tensor to prune: ``{"tensor_fqn": "0.weight"}``, its name in the model, and where it is not
            that of the sparsifier its own ``"sparsity_level"``. None: the weights of all layers but embeddings.

        Raises
        ------
        ValueError
            If `config` names a tensor that is no weight of a layer or cannot be pruned in place, or gives a
            ``sparsity_level`` outside [0, 1].
        """
        known = {
            tensor.name: (module, tensor)
            for module, tensors in model_weight_tensors(model).items()
            for tensor in tensors
        }
        unprunable = unprunable_parameters(model)
        obstacles = {
            name: why_unprunable(module, tensor.own_name)
            or unprunable.get(id(weight_parameter(module, tensor.own_name)))
            for name, (module, tensor) in known.items()
        }
        if config is None:
            config = [
                {"tensor_fqn": name}
                for name, (_, tensor) in known.items()
                if tensor.kind != "embedding" and obstacles[name] is None
            ]
        for each in config:
            name = str(each.get("tensor_fqn")).removeprefix(".")
            if name not in known:
                raise argument_error("config", f"a list of layers' weights, such as {', '.join(list(known)[:5])}", name)
            if obstacles[name] is not None:
                raise argument_error("config", f"a list of weights that can be pruned ({obstacles[name]})", name)
            _checked_level(each.get("sparsity_level", 0.5))
        super().prepare(model, config)  # type: ignore[no-untyped-call,unused-ignore]

    def update_mask(self, module: nn.Module, tensor_name: str, **config: Any) -> None:
        """Prune one tensor further, to its ``sparsity_level``; what is pruned stays pruned."""
        mask = module.parametrizations[tensor_name][0].mask  # type: ignore[index,union-attr]
        layer = next(tensor for tensor in weight_tensors(module) if tensor.name == tensor_name)
        with argument_errors_naming(config["tensor_fqn"]):
            weights = current_weight(module, tensor_name)
            layer = layer.with_geometry(self.convs.get(config["tensor_fqn"]))
            values = as_array("weights", weights)
            survivors = mask_array(mask) & (values != 0)
            tensor = Prunable.keeping_topology(values, survivors, layer)
            level = config["sparsity_level"]
            count = min(values.size - round(as_written(level) * values.size), int(np.count_nonzero(survivors)))
            request = MaskRequest("sparsity_level", level, count)
            (kept,) = kept_masks([tensor], request, METHODS["t-imp"], on_infeasible=config["on_infeasible"])
        mask.copy_(torch.from_numpy(kept))


def _checked_level(level: Any) -> None:
    real("sparsity_level", level, "a share of the weights in [0, 1]", 0.0, 1.0)
