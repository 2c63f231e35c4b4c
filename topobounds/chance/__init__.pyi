from . import (
    convolution,
    layer,
    magnitudes,
    orders,
    overlap,
    persistence,
    price,
    retention,
    scales,
)

__all__ = [
    "convolution",
    "layer",
    "magnitudes",
    "orders",
    "overlap",
    "persistence",
    "price",
    "retention",
    "scales",
]
