"""The devices that torch finds on this machine, and how it computes on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from topobounds._arguments import argument_error, choice
from topobounds._parallel import processor_name
from torch_bridge import require

if TYPE_CHECKING:
    import torch


def devices() -> list[dict[str, Any]]:
    """Return the devices of torch: the processor first, then accelerators with their memory in bytes.

    Raises
    ------
    MissingExtra
        If torch is not installed.

    Examples
    --------
    >>> devices()[0]["name"]
    'cpu'
    """
    torch = require("torch")
    found: list[dict[str, Any]] = [{"name": "cpu", "memory": None, "reason": "That of the machine."}]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found.append({"name": f"cuda:{number} ({properties.name})", "memory": int(properties.total_memory)})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "memory": None, "reason": "It shares that of the machine."})
    return found


def pick_device(device: str) -> "torch.device":
    """Return the torch device for ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    ValueError
        If `device` is another word, or CUDA is asked for and not there.
    """
    library = require("torch")
    choice("device", device, ("auto", "cpu", "cuda"))
    has_cuda = library.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise argument_error("device", f"one that is here (torch {library.__version__} finds no CUDA device)", device)
    chosen: torch.device = library.device("cuda" if device != "cpu" and has_cuda else "cpu")
    return chosen


def processor() -> str:
    """Return the processor, and which of torch's routines it has: what the numbers of a training depend on.

    Examples
    --------
    >>> ", " in processor()
    True
    """
    torch = require("torch")
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread for the length of a ``with`` block."""
    torch = require("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
