from . import beside, checkpoint, compression, findings, fixed, model, network, overlap, scales, table

__all__ = [
    "beside",
    "checkpoint",
    "compression",
    "findings",
    "fixed",
    "model",
    "network",
    "overlap",
    "scales",
    "table",
]
