"""How long pruning masks take, beside those of numpy and torch, and T-IMP of whole models beside torch's pruning.

python benchmarks/masks.py [--quick]

First table: masks of one float32 layer that keep a tenth of it, in milliseconds, the median over rounds in which every
contestant runs once. The limit is one read of the weights by one thread.

numpy       the threshold by ``numpy.partition``, then all weights at least as large (ties may be too many)
torch       ``torch.topk``, as ``torch.nn.utils.prune.l1_unstructured`` does
argsort     a stable ``numpy.argsort`` of all weights, which is exact

Second table: T-IMP of a whole model by `topological_`, its report included, and `analyze`, beside
``l1_unstructured`` of the same layers. Weights are random.
"""

import copy
import statistics
import sys
import time
from functools import partial

import numpy as np
import torch
from spanning import machine_line
from torch import nn
from torch.nn.utils import prune

from topobounds import magnitude_mask, maximum_spanning_forest, topological_mask
from torch_bridge import analyze, topological_
from torch_bridge.training.models import build_model
from torch_bridge.training.plan import ModelPlan

SIZES = [(784, 300), (1024, 1024), (4096, 4096), (4096, 14336)]
KEEP = 0.1


def by_partition(weights):
    magnitudes = np.abs(weights)
    place = weights.size - round(KEEP * weights.size)
    return magnitudes >= np.partition(magnitudes, place, axis=None)[place]


def by_topk(weights):
    scores = torch.from_numpy(weights).abs().view(-1)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[torch.topk(scores, round(KEEP * weights.size)).indices] = True
    return mask.numpy()


def by_argsort(weights):
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")
    mask = np.zeros(weights.size, np.bool_)
    mask[order[: round(KEEP * weights.size)]] = True
    return mask


CONTESTANTS = {
    "one read": lambda w: w.view(np.uint32).max(),
    "magnitude_mask": lambda w: magnitude_mask(w, KEEP),
    "topological_mask": lambda w: topological_mask(w, KEEP),
    "its forest": maximum_spanning_forest,
    "numpy": by_partition,
    "torch": by_topk,
    "argsort": by_argsort,
}


def gpt(width=768, layers=12):
    """Return the matrices of a language model of 85 million weights."""
    shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    return nn.Sequential(*(nn.Linear(m, n) for _ in range(layers) for m, n in shapes))


MODELS = {
    "VGG11, 32x32": (lambda: build_model(ModelPlan(name="vgg11"), 32), torch.zeros(1, 1, 32, 32)),
    "ResNet-20 of 4 times the width, 32x32": (
        lambda: build_model(ModelPlan(name="resnet-20", width=64), 32),
        torch.zeros(1, 1, 32, 32),
    ),
    "GPT, 12 blocks of 768": (gpt, None),
    "one layer, 4096x14336": (lambda: nn.Sequential(nn.Linear(4096, 14336, bias=False)), None),
}


def l1_everywhere(model, _):
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            prune.l1_unstructured(module, "weight", 1 - KEEP)


def rounds_of(contestants, rounds):
    """Return name -> seconds in each round; `contestants` are name -> function without arguments."""
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, function in contestants.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return times


ON_MODELS = {
    "topological_": lambda m, x: topological_(m, 1 - KEEP, example_input=x, on_infeasible="clamp"),
    "analyze": analyze,
    "l1_unstructured": l1_everywhere,
}


def model_times(build, example, rounds):
    """Return name -> seconds in each round; a copy of the model for each is made before the clock starts."""
    model, times = build(), {name: [] for name in ON_MODELS}
    for number in range(rounds + 1):
        for name, function in ON_MODELS.items():
            own = copy.deepcopy(model)
            start = time.perf_counter()
            function(own, example)
            if number:  # the first compiles kernels
                times[name].append(time.perf_counter() - start)
    return times


def main():
    rounds = 3 if "--quick" in sys.argv[1:] else 9
    torch.set_num_threads(1)
    print(f"{machine_line().rstrip('.')}; torch {torch.__version__}, one thread; {rounds} rounds\n")
    print("| keep 0.1 | " + " | ".join(CONTESTANTS) + " |\n|---|" + "---:|" * len(CONTESTANTS))
    for m, n in SIZES:
        weights = np.random.default_rng(0).standard_normal((m, n), np.float32)
        functions = {name: partial(function, weights) for name, function in CONTESTANTS.items()}
        rounds_of(functions, 1)
        times = rounds_of(functions, rounds)
        cells = " | ".join(f"{1e3 * statistics.median(values):.3g}" for values in times.values())
        print(f"| {m}x{n} | {cells} |", flush=True)
    print("\n| model | weights | topological_ | analyze | l1_unstructured | topological_ / l1 |\n|---|" + "---:|" * 5)
    for name, (build, example) in MODELS.items():
        times = model_times(build, example, rounds)
        weights = sum(p.numel() for p in build().parameters() if p.ndim > 1)
        ratio = statistics.median(a / b for a, b in zip(times["topological_"], times["l1_unstructured"], strict=True))
        cells = " | ".join(f"{statistics.median(values):.2f} s" for values in times.values())
        print(f"| {name} | {weights:,} | {cells} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
