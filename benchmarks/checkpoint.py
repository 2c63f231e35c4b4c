"""Speed and memory of `topobounds.analyze` on a large checkpoint, with WeightWatcher beside it on small models.

Run with: `python benchmarks/checkpoint.py` (`--quick` for 1 GB in the place of 8).

A bfloat16 file of a language model is made in a temporary folder: one block of normal weights, as often as it takes.
The measure is the rate at which one thread adds the same bytes as 64-bit words, from a file in the cache of the system
that is mapped anew; start-up, the file of one block, is apart. Anonymous memory is sampled every hundredth of a second.
WeightWatcher runs in the Python that `--weightwatcher` names, for it brings dependencies of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from spanning import machine_line, print_table

from topobounds import analyze
from topobounds._memory import memory

BLOCK = {  # outputs by inputs, as of a model of 8 billion parameters
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
ITEM = 2  # bytes of a bfloat16
ALLOWED = 300 * 2**20  # bytes of memory beside the two largest tensors
PEER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch, weightwatcher
{model}
start = time.perf_counter()
weightwatcher.WeightWatcher(model=model).analyze()
print(json.dumps(time.perf_counter() - start))
"""
FOUR_LAYERS = """
torch.manual_seed(0)
model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(4)))
"""
RESNET = """
state = torch.load({path!r}, map_location="cpu", weights_only=True)["state_dict"]
class Holder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, weight in state.items():
            if name.endswith("weight") and weight.ndim in (2, 4):
                rows, cols, *kernel = weight.shape
                if kernel:
                    layer = torch.nn.Conv2d(cols, rows, kernel, bias=False)
                else:
                    layer = torch.nn.Linear(cols, rows, bias=False)
                layer.weight.data = weight
                self.add_module(name.replace(".", "_"), layer)
model = Holder()
"""
"""What WeightWatcher looks at: the layers of ResNet-20 with their weights."""


def make_model(path, n_bytes):
    """Write a file of blocks of random weights; return the bytes of its tensors."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in BLOCK.items():
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        weights[name] = values.astype(ml_dtypes.bfloat16)
    size = sum(array.nbytes for array in weights.values())
    header, offset = {}, 0
    n_blocks = max(1, round(n_bytes / size))
    for block in range(n_blocks):
        for name, array in weights.items():
            place = [offset, offset + array.nbytes]
            header[f"model.layers.{block}.{name}.weight"] = {
                "dtype": "BF16",
                "shape": list(array.shape),
                "data_offsets": place,
            }
            offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _ in range(n_blocks):
            for array in weights.values():
                stream.write(array.view(np.uint16).data)
    return offset


def sum_words(path):
    """Return the seconds in which one thread adds a file as 64-bit words, mapped into memory anew, as analyze does."""
    start = time.perf_counter()
    int(np.add.reduce(np.memmap(path, np.uint64, "r", offset=0, shape=(path.stat().st_size // 8,))))
    return time.perf_counter() - start


class AnonymousMemory:
    """The peak of the anonymous memory of this process above what it is at first; a context manager."""

    def __enter__(self):
        self.first = self.peak = anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.01):
            self.peak = max(self.peak, anonymous())

    def __exit__(self, *raised):
        self._done.set()
        self._thread.join()

    @property
    def above(self):
        """Bytes."""
        return self.peak - self.first


def anonymous():
    """Return the bytes of anonymous memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def of_large_model(folder, n_bytes):
    """Print what the analysis of a large file takes."""
    free = min(shutil.disk_usage(folder).free, memory() / 2)
    if free < 1.2 * n_bytes:
        n_bytes = int(free / 1.2)
        print(f"Only {n_bytes / 1e9:.1f} GB, for the disk or the memory is too small.", file=sys.stderr)
    first, path = Path(folder) / "block.safetensors", Path(folder) / "model.safetensors"
    make_model(first, 1)
    size = make_model(path, n_bytes)
    analyze({"a.weight": np.ones((8, 9))})
    with AnonymousMemory() as memory_used:
        start = time.perf_counter()
        analyze(first, seed=0)
        start_up = time.perf_counter() - start
        sum_words(path)
        rounds = []
        for _ in range(3):
            added = sum_words(path)
            start = time.perf_counter()
            report = analyze(path, seed=0)
            rounds.append((time.perf_counter() - start, added))
    taken, added = min(rounds)
    two_largest = 2 * ITEM * max(a * b for a, b in BLOCK.values())
    print_table(
        ["model", "one thread adds its words", "analyze", "share of that rate", "first block", "memory", "allowed"],
        [
            [
                f"{size / 1e9:.1f} GB, {len(report.layers)} layers",
                f"{added:.2f} s ({size / added / 1e9:.1f} GB/s)",
                f"{taken:.2f} s ({size / taken / 1e9:.1f} GB/s)",
                f"{max(a / t for t, a in rounds):.2f}",
                f"{start_up:.2f} s",
                f"{memory_used.above / 2**20:.0f} MiB",
                f"{(two_largest + ALLOWED) / 2**20:.0f} MiB",
            ]
        ],
    )


def of_small_models(python, resnet):
    """Print what ResNet-20 and four layers of 1024 x 1024 take here and with WeightWatcher, without loading."""
    torch.manual_seed(0)
    four = {f"{place}.weight": torch.nn.Linear(1024, 1024).weight.detach().numpy() for place in range(4)}
    rows = []
    for name, source, model in (
        ("ResNet-20", resnet, RESNET.format(path=str(resnet))),
        ("4 x 1024x1024", four, FOUR_LAYERS),
    ):
        if source is None:
            continue
        analyze(source, seed=0)  # loads the kernels, and computes what the shapes imply
        start = time.perf_counter()
        analyze(source, seed=1)
        ours = time.perf_counter() - start
        rows.append([name, f"{ours:.2f} s", _peer(python, PEER.format(model=model))])
    print_table(["model", "topobounds", "WeightWatcher"], rows)


def _peer(python, script):
    if python is None:
        return "not run"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return f"{json.loads(done.stdout.splitlines()[-1]):.2f} s" if not done.returncode else done.stderr.splitlines()[-1]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true", help="1 GB in the place of 8")
    parser.add_argument("--weightwatcher", metavar="PYTHON", help="a Python that has weightwatcher and torch")
    parser.add_argument("--resnet", type=Path, help="resnet20-12fca82f.th")
    options = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        of_large_model(folder, int(1e9 * (1 if options.quick else options.gigabytes)))
    of_small_models(options.weightwatcher, options.resnet)


if __name__ == "__main__":
    main()
