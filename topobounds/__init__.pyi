from .analysis import LayerReport, ModelReport, compression_report, layer_report, overlap_report
from .checkpoint import CheckpointError
from .layers import Conv, Dense, Network, Recurrent, Unrolled
from .montecarlo import Estimate, simulate_overlap
from .pruning import geometric_schedule, linear_schedule, magnitude_mask, network_masks, random_mask, topological_mask
from .runs import RunError, RunFolder
from .theory.compression import critical_compression_ratio
from .theory.counting import exact_expected_overlap
from .theory.enclosure import Enclosure, expected_overlap, expected_retention
from .theory.overlap import boruvka_bound, concentration_band, overlap_limit, star_bound
from .theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
from .theory.table1 import architecture, table1
from .topology.convolution import CriticalWeights, critical_kernel_weights
from .topology.network import NetworkForest, chain, network_forest
from .topology.persistence import (
    PersistenceDiagram,
    neural_persistence,
    persistence_diagram,
    total_neural_persistence,
)
from .topology.protocol import Deficit
from .topology.recurrent import (
    UnrolledForest,
    recurrent_diagrams,
    recurrent_forests,
    recurrent_matrices,
    unrolled_forest,
)
from .topology.spanning import SpanningForest, magnitude_overlap, maximum_spanning_forest
from .verification import Verdict, verify

__version__: str

__all__ = [
    "CheckpointError",
    "Conv",
    "CriticalWeights",
    "Deficit",
    "Dense",
    "Enclosure",
    "Estimate",
    "LayerReport",
    "ModelReport",
    "Network",
    "NetworkForest",
    "PersistenceDiagram",
    "PrintedClaim",
    "Recurrent",
    "RunError",
    "RunFolder",
    "SpanningForest",
    "Unrolled",
    "UnrolledForest",
    "Verdict",
    "architecture",
    "boruvka_bound",
    "chain",
    "compression_report",
    "concentration_band",
    "corollary_3_4",
    "critical_compression_ratio",
    "critical_kernel_weights",
    "exact_expected_overlap",
    "expected_overlap",
    "expected_retention",
    "geometric_schedule",
    "layer_report",
    "linear_schedule",
    "magnitude_mask",
    "magnitude_overlap",
    "maximum_spanning_forest",
    "network_forest",
    "network_masks",
    "neural_persistence",
    "overlap_limit",
    "overlap_report",
    "persistence_diagram",
    "random_mask",
    "recurrent_diagrams",
    "recurrent_forests",
    "recurrent_matrices",
    "simulate_overlap",
    "star_bound",
    "table1",
    "theorem_3_3",
    "topological_mask",
    "total_neural_persistence",
    "unrolled_forest",
    "verify",
]
