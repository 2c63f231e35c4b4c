"""Where topobounds meets PyTorch: any model's layers, T-IMP as a pruning method, IMP experiments, data, training.

Importing this package is cheap; torch, scikit-learn and pooch come with the first function that needs them. They are
brought by ``pip install 'topobounds[torch]'``.
"""

import importlib
from types import ModuleType
from typing import Any

__all__ = [
    "DataError",
    "Dataset",
    "ImpPlan",
    "MissingExtra",
    "PruningReport",
    "TopologicalUnstructured",
    "TopologyLog",
    "TrainingPlan",
    "analyze",
    "load_dataset",
    "mlp",
    "require",
    "resolve_dataset",
    "run_imp",
    "topological_",
    "topological_unstructured",
    "topology_metrics",
]

_HOMES = {
    "DataError": "torch_bridge.data",
    "Dataset": "torch_bridge.data",
    "ImpPlan": "torch_bridge.plan",
    "PruningReport": "torch_bridge.prune",
    "TopologicalUnstructured": "torch_bridge.prune",
    "TopologyLog": "torch_bridge.callback",
    "TrainingPlan": "torch_bridge.train",
    "analyze": "torch_bridge.bridge",
    "load_dataset": "torch_bridge.data",
    "mlp": "torch_bridge.models",
    "resolve_dataset": "torch_bridge.data",
    "run_imp": "torch_bridge.imp",
    "topological_": "torch_bridge.prune",
    "topological_unstructured": "torch_bridge.prune",
    "topology_metrics": "torch_bridge.callback",
}


class MissingExtra(ImportError):
    """A package of the extra ``torch`` is not installed; the message is the line that brings it.

    Parameters
    ----------
    package : str
        What was to be imported.
    """

    def __init__(self, package: str) -> None:
        super().__init__(f"torch_bridge needs {package}, which is not installed: pip install 'topobounds[torch]'")


def require(module: str) -> ModuleType:
    """Import a module of the extra ``torch``.

    Parameters
    ----------
    module : str
        Its dotted name, such as ``"torch"`` or ``"sklearn.datasets"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingExtra
        If its package is not installed.

    Examples
    --------
    >>> require("torch_bridge.no_such_module")
    Traceback (most recent call last):
    torch_bridge.MissingExtra: torch_bridge needs torch_bridge, which is not installed: pip install 'topobounds[torch]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(module.split(".", maxsplit=1)[0]) from error


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'torch_bridge' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
