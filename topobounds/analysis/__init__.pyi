from . import beside, checkpoint, compression, model, network, overlap, scales, waves

__all__ = ["beside", "checkpoint", "compression", "model", "network", "overlap", "scales", "waves"]
