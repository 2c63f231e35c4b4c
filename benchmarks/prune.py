"""A sharded bfloat16 model pruned, beside a copy of it that is put on the disk: time, memory, and the same when killed.

    python benchmarks/prune.py [GIGABYTES] [FOLDER]

One block of a language model is repeated until the files have so many gigabytes (4 by default). Printed are the
seconds of a copy with fsync (the mean of one before and one after, for disks are uneven) and of `prune_checkpoint`,
hash, masks and fsync included, their ratio, and the most anonymous memory above what the imports take, beside the goal:
the two largest tensors and 300 MB.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
GOAL = 2 * 2 * 14336 * 4096 / 2**20 + 300
CHILD = r"""
import re, sys, threading, time
import topobounds._kernels.selection, topobounds.pruning.checkpoints, topobounds.topology.spanning_engine
from topobounds import prune_checkpoint

def anonymous():
    with open("/proc/self/status") as status:
        return int(re.search(r"RssAnon:\s+(\d+)", status.read())[1]) / 1024

def watch():
    while True:
        most[0] = max(most[0], anonymous())
        time.sleep(0.01)

most = [anonymous()]
first = most[0]
threading.Thread(target=watch, daemon=True).start()
start = time.perf_counter()
report = prune_checkpoint(sys.argv[1], sys.argv[2], density=0.3, scope=sys.argv[3])
print(time.perf_counter() - start, most[0] - first, report.preserved, report.summary["density"])
"""


def write_model(folder: Path, gigabytes: float) -> None:
    rng = np.random.default_rng(0)
    block = {
        name: (rng.standard_normal(shape, np.float32) * 0.02).astype(ml_dtypes.bfloat16)
        for name, shape in SHAPES.items()
    }
    size = sum(array.nbytes for array in block.values())
    n_blocks = max(1, round(gigabytes * 1e9 / size))
    places = {}
    for number in range(n_blocks):
        shard = f"model-{number + 1:05d}-of-{n_blocks:05d}.safetensors"
        tensors = {f"model.layers.{number}.{name}.weight": array for name, array in block.items()}
        save_file(tensors, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(tensors, shard)
    index = {"metadata": {"total_size": n_blocks * size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def copy_with_fsync(source: Path, target: Path) -> float:
    start = time.perf_counter()
    shutil.copytree(source, target)
    for file in target.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def main() -> None:
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        (folder / "model").mkdir()
        write_model(folder / "model", gigabytes)
        print(f"| {gigabytes:g} GB, bfloat16 | copy, fsync | prune | ratio | memory | goal | diagrams kept | density |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for scope in ("local", "global"):
            copies = [copy_with_fsync(folder / "model", folder / "copy")]
            arguments = [sys.executable, "-c", CHILD, folder / "model", folder / "new", scope]
            output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
            seconds, memory, preserved, density = re.findall(r"\S+", output)
            shutil.rmtree(folder / "new")
            copies.append(copy_with_fsync(folder / "model", folder / "copy"))
            copied = sum(copies) / 2
            cells = f"{copied:.1f} s | {float(seconds):.1f} s | {float(seconds) / copied:.1f} | {float(memory):.0f} MB"
            print(f"| {scope} | {cells} | {GOAL:.0f} MB | {preserved} | {float(density):.6f} |", flush=True)


if __name__ == "__main__":
    main()
