from .checkpoints import prune_checkpoint
from .effective import chain_of, dead_connections
from .exchanges import Exchange, exchange
from .masks import (
    Infeasible,
    Keep,
    MaskRequest,
    Scope,
    kept_masks,
    magnitude_mask,
    network_masks,
    random_mask,
    redrawn_mask,
    topological_mask,
)
from .methods import METHODS, Method, pruning_method
from .prunable import Prunable
from .report import PrunedLayer, PruningReport
from .schedules import cubic_schedule, geometric_schedule, linear_schedule

__all__ = [
    "METHODS",
    "Exchange",
    "Infeasible",
    "Keep",
    "MaskRequest",
    "Method",
    "Prunable",
    "PrunedLayer",
    "PruningReport",
    "Scope",
    "chain_of",
    "cubic_schedule",
    "dead_connections",
    "exchange",
    "geometric_schedule",
    "kept_masks",
    "linear_schedule",
    "magnitude_mask",
    "network_masks",
    "prune_checkpoint",
    "pruning_method",
    "random_mask",
    "redrawn_mask",
    "topological_mask",
]
