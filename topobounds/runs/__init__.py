"""Run folders: one writer and one reader of one format, which `topobounds.runs.folder` describes. No torch here."""

from topobounds.runs.errors import RunError
from topobounds.runs.files import METRICS_FILE, PLAN_FILE
from topobounds.runs.folder import RunFolder
from topobounds.runs.json_text import json_sha256
from topobounds.runs.level import MOST_LEVELS, Level, LevelWriter

__all__ = [
    "METRICS_FILE",
    "MOST_LEVELS",
    "PLAN_FILE",
    "Level",
    "LevelWriter",
    "RunError",
    "RunFolder",
    "json_sha256",
]
