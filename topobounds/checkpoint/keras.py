"""Kernels as Keras and Flax store them: inputs before outputs, those of convolutions behind the axes of the map."""

import re

from topobounds._text import counted
from topobounds.checkpoint.kernels import DEPTHWISE, channels_last
from topobounds.checkpoint.stored import Stored
from topobounds.layers import LayerTensor
from topobounds.layers.layer_tensor import GATES, gate_words, numbered_parts
from topobounds.layers.layout import Layout

_GATES_BY_NUMBER = {1: GATES["RNN"], 3: ("update", "reset", "new"), 4: GATES["LSTM"]}
_ATTENTION = r"query|key|value|q|k|v"


def read_keras(stored: Stored) -> LayerTensor | str | None:
    """Return the layer of a kernel of Keras or Flax; None for any other tensor."""
    if stored.leaf in ("kernel", "recurrent_kernel") and len(stored.shape) == 2:
        return _read_gates(stored) or LayerTensor(stored.name, stored.shape, inputs_first=True)
    if stored.leaf == "kernel" and len(stored.shape) == 3 and (found := _read_heads(stored)) is not None:
        return found
    if stored.leaf in ("kernel", "depthwise_kernel", "pointwise_kernel") and 3 <= len(stored.shape) <= 5:
        return channels_last(stored, depthwise=stored.leaf == "depthwise_kernel" or stored.has_word(DEPTHWISE))
    return None


def _read_gates(stored: Stored) -> LayerTensor | None:
    recurrent = stored.beside("recurrent_kernel") if stored.leaf == "kernel" else stored.shape
    if recurrent is None or len(recurrent) != 2 or recurrent[1] % recurrent[0]:
        return None
    number = recurrent[1] // recurrent[0]
    gates = _GATES_BY_NUMBER.get(number, numbered_parts(number))
    return LayerTensor(
        stored.name,
        stored.shape,
        kind="recurrent" if stored.leaf == "recurrent_kernel" else "dense",
        parts=gates,
        inputs_first=True,
        layout=Layout(axis=1),
        words=gate_words(gates, "hidden to hidden" if stored.leaf == "recurrent_kernel" else "inputs to hidden"),
        assumed=None if number in _GATES_BY_NUMBER else f"{number} gates, of no known kind of recurrent layer",
    )


def _read_heads(stored: Stored) -> LayerTensor | None:
    """Return a projection of attention: inputs by heads by width, or, of the output, heads by width by outputs."""
    if not re.search("atten|attn", stored.path, re.IGNORECASE):
        return None
    is_output = re.fullmatch(r".*out(put)?|o|.*o_proj", stored.module)
    if not is_output and not re.fullmatch(_ATTENTION, stored.module):
        return None
    heads = stored.shape[0 if is_output else 1]
    layout = Layout(row_axes=2 if is_output else 1)
    words = (f"{stored.module} projection of {counted(heads, 'head')}",)
    return LayerTensor(stored.name, stored.shape, inputs_first=True, layout=layout, words=words)
