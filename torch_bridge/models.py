"""The nets of the experiments."""

from collections.abc import Sequence
from itertools import pairwise

from torch_bridge import MissingExtra

try:
    import torch
    from torch import Tensor, nn
except ModuleNotFoundError as error:
    raise MissingExtra("torch") from error

from topobounds._arguments import integer


class MLP(nn.Module):
    """A fully connected net; made by `mlp`."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(m, n) for m, n in pairwise(widths)])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return log-probabilities, shape (batch, classes), for inputs of shape (batch, features)."""
        *hidden, last = self.layers
        for layer in hidden:
            inputs = torch.relu(layer(inputs))
        return torch.log_softmax(last(inputs), dim=1)


def mlp(widths: Sequence[int]) -> MLP:
    """Return a fully connected net: linear layers with ReLU between them, and a log-softmax.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden units of every layer, classes; at least two, each at least 1. The paper's net for MNIST is
        ``(784, 100, 100, 100, 100, 100, 10)``.

    Returns
    -------
    MLP
        With PyTorch's default initialisation, drawn from the global generator. Its state names are
        ``layers.0.weight`` (outputs, inputs), ``layers.0.bias``, ``layers.1.weight``, and so on by depth.

    Raises
    ------
    ValueError
        If there are fewer than two widths, or one is no positive integer.

    Examples
    --------
    >>> [tuple(p.shape) for name, p in mlp((64, 100, 10)).named_parameters() if name.endswith(".weight")]
    [(100, 64), (10, 100)]
    """
    if len(widths) < 2:
        raise ValueError(f"Argument 'widths' must be at least two numbers, not {widths!r}.")
    return MLP([integer("widths", width, 1) for width in widths])
