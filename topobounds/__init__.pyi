from .layers import Conv, Dense, Recurrent
from .montecarlo import Estimate, simulate_overlap
from .runs import RunError, RunFolder
from .theory.compression import critical_compression_ratio
from .theory.overlap import boruvka_bound, overlap_limit, star_bound
from .theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
from .theory.table1 import architecture, table1
from .topology.convolution import CriticalWeights, critical_kernel_weights
from .topology.persistence import (
    PersistenceDiagram,
    neural_persistence,
    persistence_diagram,
    total_neural_persistence,
)
from .topology.spanning import SpanningForest, magnitude_overlap, maximum_spanning_forest

__version__: str

__all__ = [
    "Conv",
    "CriticalWeights",
    "Dense",
    "Estimate",
    "PersistenceDiagram",
    "PrintedClaim",
    "Recurrent",
    "RunError",
    "RunFolder",
    "SpanningForest",
    "architecture",
    "boruvka_bound",
    "corollary_3_4",
    "critical_compression_ratio",
    "critical_kernel_weights",
    "magnitude_overlap",
    "maximum_spanning_forest",
    "neural_persistence",
    "overlap_limit",
    "persistence_diagram",
    "simulate_overlap",
    "star_bound",
    "table1",
    "theorem_3_3",
    "total_neural_persistence",
]
