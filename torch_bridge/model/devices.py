"""The devices that torch finds on this machine."""

from typing import Any

from torch_bridge import require


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
