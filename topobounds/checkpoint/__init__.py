"""Weights on disk, one tensor at a time and without torch: one reader per format behind `open_checkpoint`."""

from topobounds.checkpoint.base import Checkpoint, Reader
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.opening import open_checkpoint, read_arrays
from topobounds.checkpoint.safetensors import DTYPES

__all__ = ["DTYPES", "Checkpoint", "CheckpointError", "Reader", "open_checkpoint", "read_arrays"]
