"""Speed and memory of `topobounds.analyze` on a large checkpoint, with WeightWatcher beside it on small models.

Run with: `python benchmarks/checkpoint.py` (`--quick` for 1 GB in the place of 8).

A bfloat16 file of a language model is made in a temporary folder: one block of normal weights, linked under as many
names as it takes. The rate at which one thread adds the same bytes as 64-bit words, from a file in the cache of the
system that is mapped anew, is the measure; start-up, the file of one block, is apart. Anonymous memory is sampled
every hundredth of a second.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
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
import json, sys, time
import torch
import weightwatcher
{model}
start = time.perf_counter()
weightwatcher.WeightWatcher(model=model).analyze()
print(json.dumps(time.perf_counter() - start))
"""
FOUR_LAYERS = "torch.manual_seed(0); model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(4)))"
RESNET = """
sys.path.insert(0, {root!r})
from benchmarks.resnet import resnet20
model = resnet20({path!r})
"""


def make_model(path, n_bytes):
    """Write a file of blocks of random weights; return the names and the bytes of its tensors."""
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
    return n_blocks, offset


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
    _, size = make_model(path, n_bytes)
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


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true", help="1 GB in the place of 8")
    options = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        of_large_model(folder, int(1e9 * (1 if options.quick else options.gigabytes)))


if __name__ == "__main__":
    main()
