from . import compression, findings, fixed, model, overlap

__all__ = ["compression", "findings", "fixed", "model", "overlap"]
