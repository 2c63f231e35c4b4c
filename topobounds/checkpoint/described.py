"""What a file itself says of a tensor: the layer that reads it, and the geometry of its kernel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from topobounds.layers import LayerTensor


@dataclass(frozen=True)
class Described:
    """A layer that a file describes.

    Attributes
    ----------
    tensor : LayerTensor
        The tensor and its graphs; of a kernel without its geometry.
    conv : mapping of str to object
        Of a kernel, the arguments of `topobounds.layers.Conv` that the file tells: ``stride``, ``padding``,
        ``padding_end``, ``dilation``, ``output_padding``, ``input_size``.
    """

    tensor: LayerTensor
    conv: Mapping[str, Any] = field(default_factory=dict)
