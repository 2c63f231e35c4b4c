from . import compression, model, overlap

__all__ = ["compression", "model", "overlap"]
