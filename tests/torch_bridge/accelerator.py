"""A device that is not the CPU, for machines that have no other: importing this adds the device ``"remote"`` to torch.

Its tensors hold their numbers in the CPU's memory and compute there, so results are the CPU's, bit for bit. But they
are as apart from the CPU's tensors as a GPU's: an operation that mixes the two is refused, and so is reading them with
numpy. What runs here has every tensor where it belongs; what it costs on a GPU, or rounds to, is not seen.
"""

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

REMOTE = torch.device("privateuseone:0")  # torch's name until the device is registered, below; then "remote:0"
CROSSING = {"aten._to_copy.default", "aten.copy_.default"}
"""The operations that may go from one device to the other."""


class Backend(backend_registration._DummyBackendModule):
    """What torch asks a device's module for."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


class RemoteTensor(Tensor):
    """A tensor of the device; `raw` holds its numbers."""

    @staticmethod
    def __new__(cls, raw):
        tensor = Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=REMOTE
        )
        tensor.raw = raw
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __reduce_ex__(self, protocol):
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, (
            self.raw,
            self.dtype,
            str(REMOTE),
            self.requires_grad,
        )

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


def compute(operation, args, kwargs):
    """Run an operation on the numbers, and return its results on the device it was asked to leave them on."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    crossing = str(operation) in CROSSING
    for tensor in tensors:
        if not (crossing or isinstance(tensor, RemoteTensor) or tensor.ndim == 0):
            raise RuntimeError(f"{operation} was given a tensor on {tensor.device} beside one on {REMOTE}.")
    target = torch.device(kwargs.get("device") or REMOTE)
    raw_args, raw_kwargs = tree_map(
        lambda value: value.raw if isinstance(value, RemoteTensor) else value, (args, kwargs)
    )
    if "device" in raw_kwargs:
        raw_kwargs["device"] = "cpu"
    results = operation(*raw_args, **raw_kwargs)
    owners = {id(tensor.raw): tensor for tensor in tensors if isinstance(tensor, RemoteTensor)}
    owners |= {id(tensor): tensor for tensor in tensors if not isinstance(tensor, RemoteTensor)}  # copied to the CPU

    def placed(value):
        if not isinstance(value, Tensor) or target.type == "cpu":
            return value
        return owners[id(value)] if id(value) in owners else RemoteTensor(value)

    return tree_map(placed, results)


def _makes_a_tensor(schema):
    kinds = [str(argument.type) for argument in schema.arguments]
    asks = any(argument.name == "device" for argument in schema.arguments)
    return asks and not any("Tensor" in kind for kind in kinds) and [str(r.type) for r in schema.returns] == ["Tensor"]


def _maker(operation):
    def make(*args, device=None, pin_memory=None, **kwargs):
        return RemoteTensor(operation(*args, device="cpu", **kwargs))

    return make


backend_registration._setup_privateuseone_for_python_backend("remote", backend_module=Backend())
library = torch.library.Library("aten", "IMPL")  # what it registers lasts as long as it does
for name in torch._C._dispatch_get_all_op_names():
    packet, _, overload = name.removeprefix("aten::").partition(".")
    if name.startswith("aten::") and hasattr(torch.ops.aten, packet):
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
        if operation is not None and _makes_a_tensor(operation._schema):
            library.impl(name.removeprefix("aten::"), _maker(operation), "PrivateUse1")
