"""How many processors this process may use."""

import os


def processors() -> int:
    """Return the processors that the operating system lets this process run on.

    Examples
    --------
    >>> processors() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
