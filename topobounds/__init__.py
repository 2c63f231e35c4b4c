"""Zeroth-order topology of neural network layers, and what magnitude pruning keeps of it.

Names are resolved when first used, so that ``import topobounds`` costs nothing and a command loads only what it needs.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

_HOMES = {
    "topobounds.layers": ("Conv", "Dense", "Recurrent"),
    "topobounds.montecarlo": ("Estimate", "simulate_overlap"),
    "topobounds.runs": ("RunError", "RunFolder"),
    "topobounds.theory.compression": ("critical_compression_ratio",),
    "topobounds.theory.overlap": ("boruvka_bound", "overlap_limit", "star_bound"),
    "topobounds.theory.paper": ("PrintedClaim", "corollary_3_4", "theorem_3_3"),
    "topobounds.theory.table1": ("architecture", "table1"),
    "topobounds.topology.convolution": ("CriticalWeights", "critical_kernel_weights"),
    "topobounds.topology.persistence": (
        "PersistenceDiagram",
        "neural_persistence",
        "persistence_diagram",
        "total_neural_persistence",
    ),
    "topobounds.topology.spanning": ("SpanningForest", "magnitude_overlap", "maximum_spanning_forest"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 -- the table above is the list, checked by tests/test_public_names.py

if TYPE_CHECKING:
    from topobounds.layers import Conv, Dense, Recurrent
    from topobounds.montecarlo import Estimate, simulate_overlap
    from topobounds.runs import RunError, RunFolder
    from topobounds.theory.compression import critical_compression_ratio
    from topobounds.theory.overlap import boruvka_bound, overlap_limit, star_bound
    from topobounds.theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
    from topobounds.theory.table1 import architecture, table1
    from topobounds.topology.convolution import CriticalWeights, critical_kernel_weights
    from topobounds.topology.persistence import (
        PersistenceDiagram,
        neural_persistence,
        persistence_diagram,
        total_neural_persistence,
    )
    from topobounds.topology.spanning import SpanningForest, magnitude_overlap, maximum_spanning_forest


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("topobounds")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'topobounds' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
