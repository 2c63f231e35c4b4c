"""Pictures of single records, drawn into axes that the caller owns.

Every function takes a matplotlib ``Axes`` first, returns the artists it added, writes no file and changes no setting of
matplotlib. Sizes, fonts and what stands around the axes are the caller's.
"""

from topobounds.plotting.colors import CATEGORIES, layer_colors
from topobounds.plotting.curves import BandArtists, IntervalArtists, draw_band, draw_interval
from topobounds.plotting.diagrams import (
    BarcodeArtists,
    DiagramArtists,
    draw_barcode,
    draw_betti_curve,
    draw_persistence_diagram,
)
from topobounds.plotting.graphs import FiltrationArtists, ForestMatrixArtists, draw_filtration, draw_forest
from topobounds.plotting.layers import (
    BesideChanceArtists,
    EffectiveArtists,
    RetentionArtists,
    SilentArtists,
    draw_beside_chance,
    draw_effective_density,
    draw_over_training,
    draw_retention,
    draw_silent_neurons,
)

__all__ = [
    "CATEGORIES",
    "BandArtists",
    "BarcodeArtists",
    "BesideChanceArtists",
    "DiagramArtists",
    "EffectiveArtists",
    "FiltrationArtists",
    "ForestMatrixArtists",
    "IntervalArtists",
    "RetentionArtists",
    "SilentArtists",
    "draw_band",
    "draw_barcode",
    "draw_beside_chance",
    "draw_betti_curve",
    "draw_effective_density",
    "draw_filtration",
    "draw_forest",
    "draw_interval",
    "draw_over_training",
    "draw_persistence_diagram",
    "draw_retention",
    "draw_silent_neurons",
    "layer_colors",
]
