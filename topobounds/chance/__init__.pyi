from . import (
    convolution,
    magnitudes,
    measured_layer,
    overlap,
    persistence,
    price,
    retention,
    sampling,
    scales,
)

__all__ = [
    "convolution",
    "magnitudes",
    "measured_layer",
    "overlap",
    "persistence",
    "price",
    "retention",
    "sampling",
    "scales",
]
