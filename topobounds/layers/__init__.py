"""What a layer is to a graph: dense, recurrent and convolutional layers, and how much of a graph each one is."""

from topobounds.layers.axis import Axis
from topobounds.layers.convolution import PADDING_MODES, Conv
from topobounds.layers.dense import Dense
from topobounds.layers.layer import Layer, SingleTensorLayer, is_layer
from topobounds.layers.layer_tensor import LayerTensor
from topobounds.layers.network import Network
from topobounds.layers.printed_counts import PrintedCounts
from topobounds.layers.recurrent import Recurrent, Unrolled

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
    "SingleTensorLayer",
    "Unrolled",
    "is_layer",
]
