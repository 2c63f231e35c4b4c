"""The nets of the experiments. All of them return log-probabilities."""

import itertools
from collections.abc import Sequence
from itertools import pairwise

from topobounds._arguments import argument_error, integer
from topobounds._memory import check_memory
from torch_bridge._torch import Tensor, functional, nn, torch
from torch_bridge.training.plan import WIDTHS, ModelPlan

_STAGES_OF_VGG11 = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Channels of the convolutions of every stage, in units of the width."""
_RESNET_STAGES, _RESNET_BLOCKS = (1, 2, 4), 3
_WEIGHT_BYTES = 24  # that a weight takes at least: itself, gradient, the moments of adam, where it began, its mask


class MLP(nn.Module):
    """A fully connected net; made by `mlp`."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(m, n) for m, n in pairwise(widths)])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return log-probabilities, shape (batch, classes), for inputs of shape (batch, ...), which are flattened."""
        inputs = inputs.flatten(1)
        *hidden, last = self.layers
        for layer in hidden:
            inputs = torch.relu(layer(inputs))
        return torch.log_softmax(last(inputs), dim=1)


class LeNet5(nn.Module):
    """LeNet-5: two 5x5 convolutions of 6 and 16 channels, each with max pooling, and a 120-84 head.

    The first convolution is padded by 2, and so is the second on images of less than 14 pixels a side, which it would
    not fit otherwise.
    """

    def __init__(self, image_size: int, n_classes: int, channels: int = 1) -> None:
        super().__init__()
        if image_size < 4:
            raise argument_error("image_size", "an integer of at least 4", image_size)
        padding = 2 if image_size // 2 < 7 else 0
        side = (image_size // 2 + 2 * padding - 4) // 2
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5, padding=padding)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities for images of shape (batch, channels, height, width)."""
        for conv in (self.conv1, self.conv2):
            images = functional.max_pool2d(torch.relu(conv(images)), 2)
        features = images.flatten(1)
        for layer in (self.fc1, self.fc2):
            features = torch.relu(layer(features))
        return torch.log_softmax(self.fc3(features), dim=1)


class VGG11(nn.Module):
    """VGG11 with batch normalisation and a single linear layer on the averaged last map.

    Stages of 1, 1, 2, 2 and 2 convolutions of 3x3, with max pooling after all but the last; sides that are odd are
    rounded up. On 32x32 the maps are 32, 16, 8, 8, 4, 4, 2, 2.
    """

    def __init__(self, n_classes: int, channels: int = 1, width: int = 64) -> None:
        super().__init__()
        sizes = [channels, *(unit * width for unit in itertools.chain(*_STAGES_OF_VGG11))]
        self.convs = nn.ModuleList([nn.Conv2d(m, n, 3, padding=1, bias=False) for m, n in pairwise(sizes)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(n) for n in sizes[1:]])
        self.head = nn.Linear(sizes[-1], n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities for images of shape (batch, channels, height, width)."""
        layers = iter(zip(self.convs, self.norms, strict=True))
        for stage, units in enumerate(_STAGES_OF_VGG11):
            if stage:
                images = functional.max_pool2d(images, 2, ceil_mode=True)
            for conv, norm in itertools.islice(layers, len(units)):
                images = torch.relu(norm(conv(images)))
        return torch.log_softmax(self.head(images.mean(dim=(2, 3))), dim=1)


class Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut: 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps."""
        hidden = torch.relu(self.norm1(self.conv1(images)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(images))


class ResNet20(nn.Module):
    """ResNet-20: a 3x3 convolution, three stages of three blocks, and a linear layer on the averaged last map."""

    def __init__(self, n_classes: int, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, inputs = [], width
        for stage, units in enumerate(_RESNET_STAGES):
            for block in range(_RESNET_BLOCKS):
                blocks.append(Block(inputs, units * width, 2 if stage and not block else 1))
                inputs = units * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities for images of shape (batch, channels, height, width)."""
        maps = self.blocks(torch.relu(self.norm(self.conv(images))))
        return torch.log_softmax(self.head(maps.mean(dim=(2, 3))), dim=1)


class RowLSTM(nn.Module):
    """An LSTM that reads an image row by row, and a linear layer on its last state."""

    def __init__(self, image_size: int, n_classes: int, channels: int = 1, width: int = 128) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels * image_size, width, batch_first=True)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities for images of shape (batch, channels, height, width)."""
        rows = images.transpose(1, 2).flatten(2)
        states, _ = self.lstm(rows)
        return torch.log_softmax(self.head(states[:, -1]), dim=1)


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


def build_model(plan: ModelPlan, image_size: int, n_classes: int = 10, channels: int = 1) -> nn.Module:
    """Return the net that a plan names, for square images.

    Parameters
    ----------
    plan : ModelPlan
        Name, widths, initialisation.
    image_size : int
        Rows and columns of an image; at least 4 for ``lenet-5``, else at least 1.
    n_classes, channels : int
        At least 1.

    Returns
    -------
    torch.nn.Module
        Drawn from the global generator; takes images of shape (batch, channels, rows, columns).

    Raises
    ------
    ValueError
        If the images are too small, or the net takes more than half of the memory to train.

    Examples
    --------
    >>> net = build_model(ModelPlan(name="lenet-5"), 28)
    >>> tuple(net(torch.zeros(2, 1, 28, 28)).shape)
    (2, 10)
    """
    _check_memory(plan, image_size, n_classes, channels)
    net = _net(plan, image_size, n_classes, channels)
    if plan.initialization == "glorot":
        _draw_glorot(net)
    return net


def _check_memory(plan: ModelPlan, *sizes: int) -> None:
    """Refuse a net whose weights do not fit into memory; those of torch's device without memory are counted."""
    try:
        with torch.device("meta"):
            n_weights: float = sum(parameter.numel() for parameter in _net(plan, *sizes).parameters())
    except RuntimeError:  # more than torch can count
        n_weights = 2.0**63
    check_memory(f"Training a {plan.name} of {n_weights:.3g} weights", _WEIGHT_BYTES * n_weights)


def _net(plan: ModelPlan, image_size: int, n_classes: int, channels: int) -> nn.Module:
    """Return the net that a plan names, as torch draws it."""
    inputs, width = channels * image_size**2, plan.width or WIDTHS.get(plan.name, 0)
    net: nn.Module
    match plan.name:
        case "lenet-5":
            net = LeNet5(image_size, n_classes, channels)
        case "vgg11":
            net = VGG11(n_classes, channels, width)
        case "resnet-20":
            net = ResNet20(n_classes, channels, width)
        case "lstm":
            net = RowLSTM(image_size, n_classes, channels, width)
        case _:
            net = mlp((inputs, *(plan.hidden or (300, 100)), n_classes))
    return net


@torch.no_grad()
def _draw_glorot(net: nn.Module) -> None:
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
        elif "bias" in name.rsplit(".", maxsplit=1)[-1]:
            nn.init.zeros_(parameter)
