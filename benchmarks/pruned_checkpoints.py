"""Trained nets of others pruned without a further step of training: test accuracy after T-IMP and after magnitude.

    TOPOBOUNDS_DATA=FOLDER python benchmarks/pruned_checkpoints.py [DENSITY]

FOLDER holds ``mnist/`` and ``fashion-mnist/`` (the original IDX files) and ``checkpoints/``. Printed is a table for the
README: accuracy, and how many layers keep their persistence diagrams.
"""

import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from topobounds import prune_checkpoint
from torch_bridge import load_dataset

MNIST_MEAN, MNIST_DEVIATION = 0.1307, 0.3081


def dense(*widths: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for m, n in pairwise(widths):
        layers += [nn.Linear(m, n), nn.ReLU()]
    return layers[:-1]


def six_layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), *dense(784, 100, 100, 100, 100, 100, 10))


def three_layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), *dense(784, 128, 64, 10))


def lenet5() -> nn.Module:
    kernels = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*kernels, nn.Flatten(), *dense(256, 120, 84, 10))


def robust() -> nn.Module:
    kernels = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*kernels, nn.Flatten(), *dense(1568, 100, 10))


NETS = {
    "mnist_6_100_nat.pth": (six_layers, "mnist", False),
    "mnist_fc_3layer.pth": (three_layers, "mnist", False),
    "mnist_lenet5.pth": (lenet5, "mnist", True),
    "fashion_mnist_robust_cnn.pth": (robust, "fashion-mnist", False),
}
"""The net, its data, and whether it takes them normalised."""


def weights_of(file: Path) -> list[torch.Tensor]:
    content = torch.load(file, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    return list((state[0] if isinstance(state, list) else state).values())


def accuracy(make, file: Path, images: torch.Tensor, labels: torch.Tensor) -> float:
    net = make()
    net.load_state_dict(dict(zip(net.state_dict(), weights_of(file), strict=True)))
    with torch.no_grad():
        return float((net(images).argmax(1) == labels).double().mean())


def main() -> None:
    folder, density = Path(os.environ["TOPOBOUNDS_DATA"]), float(sys.argv[1]) if len(sys.argv) > 1 else 0.1
    print(f"| file, density {density} | before | T-IMP | magnitude | diagrams kept by T-IMP | by magnitude |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (make, data, normalised) in NETS.items():
        test = load_dataset(data, folder)
        images = torch.tensor(test.test_images).float().reshape(-1, 1, 28, 28)
        images = images / test.max_value
        images = (images - MNIST_MEAN) / MNIST_DEVIATION if normalised else images
        labels = torch.tensor(test.test_labels)
        source, cells = folder / "checkpoints" / name, []
        with tempfile.TemporaryDirectory() as new:
            cells.append(f"{accuracy(make, source, images, labels):.4f}")
            kept = []
            for method in ("t-imp", "magnitude"):
                target = Path(new) / f"{method}.pth"
                report = prune_checkpoint(source, target, density=density, method=method, input_size=(28, 28))
                cells.append(f"{accuracy(make, target, images, labels):.4f}")
                kept.append(f"{sum(layer.preserved for layer in report.layers)} of {len(report.layers)}")
        print(f"| `{name}` | {' | '.join(cells + kept)} |", flush=True)


if __name__ == "__main__":
    main()
