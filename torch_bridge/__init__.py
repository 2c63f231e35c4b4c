"""Where topobounds meets PyTorch: any model's layers, T-IMP as a pruning method, IMP experiments, data, training.

Importing this package is cheap; torch, scikit-learn and pooch come with the first function that needs them. They are
brought by ``pip install '.[torch]'`` in a clone of topobounds; there is no distribution to be installed by name yet.
"""

import importlib
from types import ModuleType

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model.analyze": ["analyze"],
        "model.callback": ["TopologyLog", "topology_metrics"],
        "model.masked": ["Masked", "unmask"],
        "model.stopping": ["NeuralPersistenceStopper"],
        "training.data": ["DataError", "Dataset", "load_dataset", "resolve_dataset"],
        "experiment.run": ["run_imp"],
        "training.models": ["mlp"],
        "experiment.plan": ["ImpPlan"],
        "pruning.method": ["PruningReport", "TopologicalUnstructured", "topological_", "topological_unstructured"],
        "pruning.gradual": ["GradualPruning"],
        "pruning.on_device": ["topological_mask"],
        "pruning.sparsifier": ["TopologicalSparsifier"],
        "training.figure_nets": ["TrainingPlan"],
    },
)
__all__ += ["MissingExtra", "require"]


INSTALL = "pip install '.[torch]' in a clone of topobounds"


class MissingExtra(ImportError):
    """A package of the extra ``torch`` is not installed; the message is the line that brings it.

    Parameters
    ----------
    package : str
        What was to be imported.
    """

    def __init__(self, package: str) -> None:
        super().__init__(f"torch_bridge needs {package}, which is not installed: {INSTALL}")


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
    >>> require("torch_bridge.no_such_module")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    torch_bridge.MissingExtra: torch_bridge needs torch_bridge, which is not installed: pip install ...
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(module.split(".", maxsplit=1)[0]) from error
