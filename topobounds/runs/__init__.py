"""Run folders: one writer and one reader of one format, which `topobounds.runs.folder` describes. No torch here."""

from topobounds.runs.files import METRICS, MOST_LEVELS, PLAN, RunError, digest
from topobounds.runs.folder import RunFolder
from topobounds.runs.level import Level, LevelWriter

__all__ = ["METRICS", "MOST_LEVELS", "PLAN", "Level", "LevelWriter", "RunError", "RunFolder", "digest"]
