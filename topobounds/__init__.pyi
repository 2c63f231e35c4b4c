from . import (
    analysis,
    chance,
    checkpoint,
    figures,
    layers,
    montecarlo,
    plotting,
    pruning,
    report,
    runs,
    supports,
    sweeps,
    theory,
    topology,
    verification,
    weights,
)
from .analysis.checkpoint import analyze
from .analysis.comparison import Comparison, compare
from .analysis.compression import compression_report
from .analysis.errors import Interrupted
from .analysis.overlap import overlap_report
from .analysis.preview import Preview, preview
from .analysis.reports import LayerReport, ModelReport, layer_report
from .chance.convolution import CriticalWeightsEstimate, expected_critical_weights
from .chance.overlap import OverlapNull, overlap_null, overlap_range
from .chance.persistence import PersistenceNull, persistence_null
from .chance.price import TopologyPrice, topology_price
from .chance.scales import NeuronScales, ScaleNull, neuron_scales, scale_null
from .checkpoint import Checkpoint, CheckpointError, open_checkpoint
from .checkpoint.layer_tensors import layer_tensors
from .layers import Conv, Dense, Network, Recurrent, Unrolled
from .montecarlo import Estimate, simulate_overlap
from .pruning import (
    cubic_schedule,
    geometric_schedule,
    linear_schedule,
    magnitude_mask,
    network_masks,
    prune_checkpoint,
    random_mask,
    topological_mask,
)
from .report.page import write_html
from .runs import RunError, RunFolder
from .sweeps.plan import SweepPlan
from .sweeps.run import SweepResult, sweep, sweep_status
from .theory.bounds import boruvka_bound, star_bound
from .theory.compression import critical_compression_ratio
from .theory.counting import exact_expected_overlap
from .theory.critical_rank import CriticalRankLaw, connection_probability, critical_rank_law
from .theory.critical_weights import critical_weights_bound
from .theory.deviation import overlap_deviation
from .theory.enclosure import Enclosure
from .theory.global_pruning import GlobalPruning, global_pruning
from .theory.overlap import concentration_band, expected_overlap, expected_retention, overlap_limit
from .theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
from .theory.persistence import untrained_persistence, untrained_persistence_limit
from .theory.support_bounds import any_support_bound, support_bound
from .theory.table1 import architecture, table1
from .topology.convolution import CriticalWeights, critical_kernel_weights, filter_persistence
from .topology.deficit import Deficit
from .topology.distances import bottleneck_distance, wasserstein_distance
from .topology.effective import EffectiveMasks, EffectiveWeights, effective_density, effective_masks, effective_weights
from .topology.network import NetworkForest, chain, network_forest
from .topology.persistence import PersistenceDiagram, neural_persistence, persistence_diagram, total_neural_persistence
from .topology.recurrent import (
    UnrolledForest,
    recurrent_diagrams,
    recurrent_forests,
    recurrent_matrices,
    unrolled_forest,
)
from .topology.spanning import SpanningForest, magnitude_overlap, maximum_spanning_forest
from .topology.stopping import stopping_epoch
from .verification import Verdict, replay, verify, verify_file, write_witnesses
from .weights import ScaledWeights

__version__: str

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "Conv",
    "CriticalRankLaw",
    "CriticalWeights",
    "CriticalWeightsEstimate",
    "Deficit",
    "Dense",
    "EffectiveMasks",
    "EffectiveWeights",
    "Enclosure",
    "Estimate",
    "GlobalPruning",
    "Interrupted",
    "LayerReport",
    "ModelReport",
    "Network",
    "NetworkForest",
    "NeuronScales",
    "OverlapNull",
    "PersistenceDiagram",
    "PersistenceNull",
    "Preview",
    "PrintedClaim",
    "Recurrent",
    "RunError",
    "RunFolder",
    "ScaleNull",
    "ScaledWeights",
    "SpanningForest",
    "SweepPlan",
    "SweepResult",
    "TopologyPrice",
    "Unrolled",
    "UnrolledForest",
    "Verdict",
    "analysis",
    "analyze",
    "any_support_bound",
    "architecture",
    "boruvka_bound",
    "bottleneck_distance",
    "chain",
    "chance",
    "checkpoint",
    "compare",
    "compression_report",
    "concentration_band",
    "connection_probability",
    "corollary_3_4",
    "critical_compression_ratio",
    "critical_kernel_weights",
    "critical_rank_law",
    "critical_weights_bound",
    "cubic_schedule",
    "effective_density",
    "effective_masks",
    "effective_weights",
    "exact_expected_overlap",
    "expected_critical_weights",
    "expected_overlap",
    "expected_retention",
    "figures",
    "filter_persistence",
    "geometric_schedule",
    "global_pruning",
    "layer_report",
    "layer_tensors",
    "layers",
    "linear_schedule",
    "magnitude_mask",
    "magnitude_overlap",
    "maximum_spanning_forest",
    "montecarlo",
    "network_forest",
    "network_masks",
    "neural_persistence",
    "neuron_scales",
    "open_checkpoint",
    "overlap_deviation",
    "overlap_limit",
    "overlap_null",
    "overlap_range",
    "overlap_report",
    "persistence_diagram",
    "persistence_null",
    "plotting",
    "preview",
    "prune_checkpoint",
    "pruning",
    "random_mask",
    "recurrent_diagrams",
    "recurrent_forests",
    "recurrent_matrices",
    "replay",
    "report",
    "runs",
    "scale_null",
    "simulate_overlap",
    "star_bound",
    "stopping_epoch",
    "support_bound",
    "supports",
    "sweep",
    "sweep_status",
    "sweeps",
    "table1",
    "theorem_3_3",
    "theory",
    "topological_mask",
    "topology",
    "topology_price",
    "total_neural_persistence",
    "unrolled_forest",
    "untrained_persistence",
    "untrained_persistence_limit",
    "verification",
    "verify",
    "verify_file",
    "wasserstein_distance",
    "weights",
    "write_html",
    "write_witnesses",
]
