"""Speed and memory of `topobounds.analyze` on a large checkpoint, with WeightWatcher beside it on small models.

Run with: `python benchmarks/checkpoint.py` (`--quick` for 1 GB in the place of 8).

A bfloat16 file of a language model is made in a temporary folder: one block of normal weights, as often as it takes.
The measure is the rate at which one thread adds the same bytes as 64-bit words, from a file in the cache of the system
that is mapped anew; start-up, the file of one block, is apart. Anonymous memory is sampled every hundredth of a second.
WeightWatcher runs in the Python that `--weightwatcher` names, for it brings dependencies of its own.

Then the same blocks in float8 with a scale for each 128 by 128 codes, and in int8 with one for each row, beside their
twin in bfloat16, in turns, medians of three: read from the disk, which the system is told to let go of before, and held
in memory, where all three fit.
"""

import argparse
import json
import os
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
SIDE = 128  # of the blocks that share a scale
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


def make_model(path, n_bytes, n_blocks=None, stored_as=None):
    """Write a file of blocks of random weights; return the bytes of its tensors.

    `stored_as` makes the tensors of a name and its values, `of_bfloat16` where none is given.
    """
    stored_as = stored_as or of_bfloat16
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in BLOCK.items():
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        tensors |= stored_as(name, values)
    size = sum(array.nbytes for _, array in tensors.values())
    header, offset = {}, 0
    n_blocks = n_blocks or max(1, round(n_bytes / size))
    for block in range(n_blocks):
        for name, (kind, array) in tensors.items():
            header[f"model.layers.{block}.{name}"] = {
                "dtype": kind,
                "shape": list(array.shape),
                "data_offsets": [offset, offset + array.nbytes],
            }
            offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _ in range(n_blocks):
            for _, array in tensors.values():
                stream.write(array.data)
    return offset


def of_bfloat16(name, values):
    """Return the tensors of weights under their names: type and bits."""
    return {f"{name}.weight": ("BF16", values.astype(ml_dtypes.bfloat16).view(np.uint16))}


def of_int8(name, values):
    """Return those of weights with a scale for every row, whose largest code is 127: one in a hundred becomes 0."""
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    return {f"{name}.weight": ("I8", np.rint(values / scale).astype(np.int8)), f"{name}.weight_scale": ("F32", scale)}


def of_float8(name, values):
    """Return those of weights with a scale for every block of 128 by 128, as DeepSeek-V3 has them.

    The largest code of a block is the largest number of the type. So a few weights in a million become 0.
    """
    m, n = values.shape
    blocks = values.reshape(m // SIDE, SIDE, n // SIDE, SIDE)
    scale = np.abs(blocks).max(axis=(1, 3)) / np.float32(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)
    codes = (blocks / scale[:, None, :, None]).reshape(m, n).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return {f"{name}.weight": ("F8_E4M3", codes), f"{name}.weight_scale_inv": ("F32", scale)}


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
    """Return the bytes of anonymous memory of this process.

    Not from ``smaps_rollup``, for which Linux looks at every page that is mapped: with files of 8 GB this takes a core.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


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


def of_quantised_models(folder, n_blocks):
    """Print how long the analysis of a model in float8, and of one in int8, takes beside their twin in bfloat16."""
    kinds = {"bfloat16": of_bfloat16, f"float8, a scale for {SIDE} x {SIDE}": of_float8, "int8, a scale a row": of_int8}
    paths = [Path(folder) / f"{kind.__name__}.safetensors" for kind in kinds.values()]
    sizes = [make_model(path, 0, n_blocks, kind) for path, kind in zip(paths, kinds.values(), strict=True)]
    analyze({"a.weight": np.ones((8, 9))})
    rows = []
    for before, state in ((let_go, "from the disk"), (sum_words, "held in memory")):
        if state == "held in memory" and sum(sizes) > memory() / 2:
            print("Too large to be held in memory, all three.", file=sys.stderr)
            continue
        rounds = [[] for _ in paths]
        for _ in range(3):
            for path, times in zip(paths, rounds, strict=True):
                before(path)
                start, used = time.perf_counter(), time.process_time()
                analyze(path, seed=0)
                times.append((time.process_time() - used, time.perf_counter() - start))
        taken = [np.median(times, axis=0) for times in rounds]
        rows += [
            [f"{name}, {state}", f"{size / 1e9:.2f} GB", *(f"{seconds:.3f} s" for seconds in both)]
            + [f"{first / seconds:.2f}" for first, seconds in zip(taken[0], both, strict=True)]
            for name, size, both in zip(kinds, sizes, taken, strict=True)
        ]
    over = ["the twin's processor time over it", "the twin's time over it"]
    print_table(["model", "bytes", "processor time", "time", *over], rows)


def let_go(path):
    """Have the system write a file to the disk, and keep none of it in memory."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def of_small_models(python, resnet):
    """Print what ResNet-20 and four layers of 1024 x 1024 take here and with WeightWatcher, imports apart."""
    torch.manual_seed(0)
    four = {f"{place}.weight": torch.nn.Linear(1024, 1024).weight.detach().numpy() for place in range(4)}
    rows = []
    for name, source, model in (
        ("ResNet-20", resnet, RESNET.format(path=str(resnet))),
        ("4 x 1024x1024", four, FOUR_LAYERS),
    ):
        if source is None:
            continue
        start = time.perf_counter()
        analyze(source, seed=0)
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
    parser.add_argument("--blocks", type=int, default=8, help="of the quantised models: 37 have 8 billion weights")
    parser.add_argument("--quick", action="store_true", help="1 GB in the place of 8, and one block")
    parser.add_argument("--weightwatcher", metavar="PYTHON", help="a Python that has weightwatcher and torch")
    parser.add_argument("--resnet", type=Path, help="resnet20-12fca82f.th")
    options = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        of_large_model(folder, int(1e9 * (1 if options.quick else options.gigabytes)))
    with tempfile.TemporaryDirectory() as folder:
        of_quantised_models(folder, 1 if options.quick else options.blocks)
    of_small_models(options.weightwatcher, options.resnet)


if __name__ == "__main__":
    main()
