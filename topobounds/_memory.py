"""How much memory there is, and what is refused because it would not fit: one rule for arguments and for files."""

import os
from pathlib import Path

SHARE = 0.5  # of the memory that one task may take; the rest is for copies, and for others
SMALL = 2**28  # bytes that a packed file may always expand to
MOST_EXPANSION = 50  # times its packed size; weights of which one in fifty is not zero pack about as well
_CELL_BYTES = 24  # that a layer drawn whole takes at least for each of its cells, weight and order
CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")


def memory() -> float:
    """Return the bytes of memory of this machine, or of the container that limits this process; infinity if unknown.

    Examples
    --------
    >>> memory() > 2**20
    True
    """
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return float("inf")
    installed = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        return min(installed, float(CONTROL_GROUP.read_text()))
    except (OSError, ValueError):  # there is none, or it says "max"
        return installed


def check_memory(subject: str, n_bytes: float) -> None:
    """Refuse what takes more than half of the memory.

    Parameters
    ----------
    subject : str
        What takes it, the beginning of the sentence.
    n_bytes : float
        Bytes that it takes at least.

    Raises
    ------
    ValueError
        Saying how much it would take, and how much there is.

    Examples
    --------
    >>> check_memory("A layer of 3 x 3 cells", 72)
    """
    if n_bytes > SHARE * memory():
        raise ValueError(f"{subject} takes at least {_gib(n_bytes)} of memory, more than half of the {_gib(memory())}.")


def check_layer_memory(m: int, n: int) -> None:
    """Refuse a layer whose cells take more than half of the memory.

    Raises
    ------
    ValueError
        Saying how much it would take.
    """
    check_memory(f"A layer of {m} x {n} cells", _CELL_BYTES * m * n)


def largest_unpacked_size(packed: int) -> int:
    """Return the bytes that a packed file of so many bytes may have when it is unpacked, or it is refused.

    Examples
    --------
    >>> largest_unpacked_size(1000) == SMALL, largest_unpacked_size(10**8)
    (True, 5000000000)
    """
    return max(SMALL, MOST_EXPANSION * packed)


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
