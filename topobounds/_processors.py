"""Which processors this process runs on, and how many."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the processors."""


def processors() -> int:
    """Return the processors that the operating system lets this process run on.

    Examples
    --------
    >>> processors() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return what the processor is called, as precisely as the operating system tells without a helper.

    Examples
    --------
    >>> len(processor_name()) > 0
    True
    """
    return _model_name() or platform.processor() or platform.machine() or "unknown"


def _model_name() -> str:
    """Return the first model name in `CPUINFO`; empty where there is none."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return next(names, "")
