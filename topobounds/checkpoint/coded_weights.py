"""What is known of a quantised weight before it is read: its parts in a file, its formula, and what the config says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.config import CONFIG, read_settings
from topobounds.checkpoint.errors import CheckpointError
from topobounds.weights import ScaledWeights

_CONFIGS = ("quantize_config.json", "quant_config.json")
"""Where AutoGPTQ and AutoAWQ say how they quantised, if config.json does not."""

_Decode = Callable[[Mapping[str, Array]], Array | ScaledWeights]


@dataclass(frozen=True)
class CodedWeight:
    """A weight that a file holds as codes.

    Attributes
    ----------
    name : str
        Of the weight.
    parts : mapping of str to str
        The stored names by what each tensor is to the weight; the codes first.
    written : str
        The formula, for people.
    shape : tuple of int
        Of the weight.
    decode : callable
        The weight from its parts.
    """

    name: str
    parts: Mapping[str, str]
    written: str
    shape: tuple[int, ...]
    decode: _Decode

    @property
    def stored(self) -> tuple[str, ...]:
        """The stored names of its parts, the codes first."""
        return tuple(self.parts.values())


@dataclass(frozen=True)
class UnreadCodedWeight:
    """Tensors that belong to one quantised weight, and are not read.

    Attributes
    ----------
    stored : tuple of str
        Their stored names; the codes first.
    reason : str
        Why.
    """

    stored: tuple[str, ...]
    reason: str


class CodedWeightSettings:
    """What the files beside the weights say of how these were quantised; it may be nothing."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings of whatever quantised the weights; empty where they are not there."""
        config = self._checkpoint.config
        text = config.get("text_config")
        for each in (config, text if isinstance(text, dict) else {}):
            for key in ("quantization_config", "compression_config"):
                if isinstance(each.get(key), dict):
                    found: dict[str, Any] = each[key]
                    return found
        return {}

    @cached_property
    def packed_settings(self) -> Mapping[str, Any]:
        """The settings for weights of a few bits, which may stand in a file of their own."""
        return self.settings or next((found for found, _ in self._beside if found), {})

    @cached_property
    def unread(self) -> str:
        """Why a file that may tell how the weights were quantised is not read; empty where none is so."""
        if CONFIG in self._checkpoint.left_out:
            return self._checkpoint.left_out[CONFIG]
        return "" if self.settings else "; ".join(why for _, reasons in self._beside for why in reasons.values())

    @cached_property
    def _beside(self) -> list[tuple[Mapping[str, Any], dict[str, str]]]:
        files = self._checkpoint.files
        return [read_settings(files[0].parent / name) for name in _CONFIGS] if files else []

    def packed_setting(self, key: str) -> str:
        """Return a setting that is a text, in small letters; empty where it is not there."""
        value = self.packed_settings.get(key)
        return value.lower() if isinstance(value, str) else ""

    @cached_property
    def bits(self) -> frozenset[int]:
        """The numbers of bits of a code that are told."""
        told = [each.get(key) for each in self._packed_settings_by_layer for key in ("bits", "w_bit")]
        told += [weights.get("num_bits") for weights in self._weights_of_groups]
        return frozenset(bits for bits in told if type(bits) is int)

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The sides of the blocks that are told to share a scale; of groups in a row their length alone."""
        told: list[Any] = [self.settings.get("weight_block_size")]
        for weights in self._weights_of_groups:
            told += [weights.get("block_structure"), weights.get("group_size")]
        listed = [each if isinstance(each, list) else [each] for each in told]
        return tuple(
            tuple(each) for each in listed if len(each) in (1, 2) and all(type(n) is int and n > 0 for n in each)
        )

    @cached_property
    def group_sizes(self) -> frozenset[int]:
        """How many inputs are told to share a scale in GPTQ's weights; not where all of them do."""
        told = [each.get("group_size") for each in self._packed_settings_by_layer]
        return frozenset(size for size in told if type(size) is int and size > 0)

    @property
    def tells_zeros(self) -> bool:
        """Whether every weight of compressed-tensors is told to have zero points."""
        told = [weights.get("symmetric") for weights in self._weights_of_groups]
        return bool(told) and all(each is False for each in told)

    @property
    def tells_order_of_groups(self) -> bool:
        """Whether every weight in groups is told to have them in an order of its own."""
        orders = [weights.get("actorder") for weights in self._weights_of_groups]
        is_told = bool(orders) and all(each is True or each == "group" for each in orders)
        return is_told or self.packed_settings.get("desc_act") is True

    @property
    def _packed_settings_by_layer(self) -> list[Mapping[str, Any]]:
        """The settings for weights of a few bits, and those that AutoRound and GPTQModel have for some layers alone."""
        found = [self.packed_settings]
        for key in ("extra_config", "dynamic"):
            layers = self.packed_settings.get(key)
            found += [each for each in layers.values() if isinstance(each, dict)] if isinstance(layers, dict) else []
        return found

    @property
    def _weights_of_groups(self) -> list[dict[str, Any]]:
        groups = self.settings.get("config_groups")
        found = groups.values() if isinstance(groups, dict) else ()
        weights = [each.get("weights") for each in found if isinstance(each, dict)]
        return [each for each in weights if isinstance(each, dict)]


class CodedModule:
    """The stored tensors of one module, under their own names.

    Parameters
    ----------
    checkpoint : Checkpoint
        Which holds them.
    path : str
        What their stored names begin with: empty, or the module and a point.
    own : sequence of str
        Their own names.
    quantisation : CodedWeightSettings
        Of the checkpoint.
    """

    def __init__(
        self, checkpoint: Checkpoint, path: str, own: Sequence[str], quantisation: CodedWeightSettings
    ) -> None:
        self.checkpoint = checkpoint
        self.path = path
        self.own = tuple(own)
        self.quantisation = quantisation
        self._known = frozenset(own)

    def __contains__(self, own: object) -> bool:
        return own in self._known

    def stored(self, own: str) -> str:
        """Return the name in the file."""
        return f"{self.path}{own}"

    def shape(self, own: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.checkpoint.shape(self.stored(own))

    def dtype(self, own: str) -> str:
        """Return the name of the type of a tensor; empty where numpy has none."""
        try:
            return self.checkpoint.dtype(self.stored(own)).name
        except CheckpointError:
            return ""

    def small(self, own: str, most: int) -> Array | None:
        """Read a tensor of at most so many entries; None if it has more, or cannot be read."""
        if math.prod(self.shape(own)) > most:
            return None
        try:
            return self.checkpoint.tensor(self.stored(own))
        except CheckpointError:
            return None

    def coded(
        self, name: str, roles: Mapping[str, str], written: str, shape: tuple[int, ...], decode: _Decode
    ) -> CodedWeight:
        """Return a weight of this module; `roles` has the own names of its parts, `written` the roles in braces."""
        parts = {role: self.stored(own) for role, own in roles.items()}
        return CodedWeight(self.stored(name), parts, written.format(**parts), shape, decode)

    def refused(self, owns: Sequence[str], reason: str) -> UnreadCodedWeight:
        """Return that tensors are not read, as many of these names as there are."""
        return UnreadCodedWeight(tuple(self.stored(own) for own in owns if own in self), reason)
