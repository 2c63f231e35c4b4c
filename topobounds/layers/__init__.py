"""What a layer is to a graph: dense, recurrent and convolutional layers, and how much of a graph each one is."""

from topobounds.layers.axis import Axis
from topobounds.layers.convolution import PADDING_MODES, Conv
from topobounds.layers.layer_tensor import LayerTensor
from topobounds.layers.protocol import Layer, PrintedCounts, TensorLayer, is_layer
from topobounds.layers.shapes import Dense, Network, Recurrent, Unrolled

__all__ = [
    "PADDING_MODES",
    "Axis",
    "Conv",
    "Dense",
    "Layer",
    "LayerTensor",
    "Network",
    "PrintedCounts",
    "Recurrent",
    "TensorLayer",
    "Unrolled",
    "is_layer",
]
