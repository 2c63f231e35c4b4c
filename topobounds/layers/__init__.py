"""What a layer is to a graph: dense, recurrent and convolutional layers, and how much of a graph each one is."""

from topobounds.layers.axis import Axis
from topobounds.layers.convolution import PADDING_MODES, Conv
from topobounds.layers.shapes import Dense, Network, Recurrent, Unrolled

LayerShape = Dense | Recurrent | Unrolled | Network | Conv

__all__ = ["PADDING_MODES", "Axis", "Conv", "Dense", "LayerShape", "Network", "Recurrent", "Unrolled"]
