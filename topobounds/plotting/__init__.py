"""Pictures of single records, drawn into axes that the caller owns.

Every function takes a matplotlib ``Axes`` first, returns the artists it added, writes no file and changes no setting of
matplotlib. Sizes, fonts and what stands around the axes are the caller's.
"""

from topobounds.plotting.curves import (
    CATEGORIES,
    BandArtists,
    IntervalArtists,
    draw_band,
    draw_interval,
    layer_colors,
)
from topobounds.plotting.diagrams import DiagramArtists, draw_betti_curve, draw_persistence_diagram
from topobounds.plotting.graphs import FiltrationArtists, draw_filtration

__all__ = [
    "CATEGORIES",
    "BandArtists",
    "DiagramArtists",
    "FiltrationArtists",
    "IntervalArtists",
    "draw_band",
    "draw_betti_curve",
    "draw_filtration",
    "draw_interval",
    "draw_persistence_diagram",
    "layer_colors",
]
