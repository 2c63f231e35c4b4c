"""`topobounds prune` of a sharded bfloat16 model: killed at random, its memory, and beside a copy put on the disk.

The size is TOPOBOUNDS_ATTACK_GIGABYTES, half a gigabyte where it is not set; ``pytest -s`` shows what was measured.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

GIGABYTES = float(os.environ.get("TOPOBOUNDS_ATTACK_GIGABYTES", "0.5"))
WIDTH = 4096 if GIGABYTES >= 2 else 1536
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH // 4, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.up_proj": (WIDTH * 7 // 2, WIDTH),
    "mlp.down_proj": (WIDTH, WIDTH * 7 // 2),
}
"""The tensors of a block; each block is a shard."""
LARGEST = 2 * WIDTH * WIDTH * 7 // 2  # bytes
ROOM = 300 * 2**20  # bytes beside two of the largest tensors
KILLS = 5
LOADED = """
import re, topobounds.cli
import topobounds._kernels.selection, topobounds.pruning.checkpoints, topobounds.topology.spanning_engine
print(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def write_model(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    size = 2 * sum(m * n for m, n in SHAPES.values())
    n_blocks = max(4, round(GIGABYTES * 1e9 / size))
    places = {}
    for number in range(n_blocks):
        shard = f"model-{number + 1:05d}-of-{n_blocks:05d}.safetensors"
        tensors = {
            f"model.layers.{number}.{name}.weight": rng.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)
            for name, shape in SHAPES.items()
        }
        tensors[f"model.layers.{number}.norm.weight"] = np.ones(WIDTH, ml_dtypes.bfloat16)
        save_file(tensors, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(tensors, shard)
    total = n_blocks * (size + 2 * WIDTH)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    return folder


def command(source, target):
    return [sys.executable, "-m", "topobounds", "prune", str(source), str(target), "--density", "0.3", "--json"]


def hashes(folder):
    found = {}
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        with file.open("rb") as stream:
            found[str(file.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def anonymous(process):
    """Return the bytes of memory of a process that are no pages of files; 0 when it has ended."""
    try:
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def copied(source, target):
    start = time.perf_counter()
    shutil.copytree(source, target)
    for file in target.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


@pytest.mark.attack
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_at_random_it_ends_in_the_same_bytes_and_takes_two_tensors_of_memory(tmp_path):
    source = write_model(tmp_path / "model")
    loaded = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True).stdout
    copy = copied(source, tmp_path / "copy")
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command(source, tmp_path / "whole"), stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.01)
        report = json.loads(process.stdout.read())
    seconds = time.perf_counter() - start
    peak -= int(loaded) * 1024
    print(
        f"\n{sum(file.stat().st_size for file in source.iterdir()) / 1e9:.2f} GB: copy and fsync {copy:.1f} s, prune "
        f"{seconds:.1f} s, ratio {seconds / copy:.2f}; memory {peak / 2**20:.0f} MB beyond what the imports take, goal "
        f"{(2 * LARGEST + ROOM) / 2**20:.0f} MB"
    )
    assert report["summary"]["preserved"]
    assert report["summary"]["kept"] == round(0.3 * report["summary"]["weights"])
    assert 0 < peak <= 2 * LARGEST + ROOM
    expected = hashes(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")

    seed = random.SystemRandom().randrange(2**32)
    draw, waits = random.Random(seed), []
    while len(waits) < KILLS:
        with subprocess.Popen(command(source, tmp_path / "new"), stdout=subprocess.DEVNULL) as process:
            waits.append(draw.uniform(0.1, 0.9) * seconds)
            try:
                process.wait(waits[-1])
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            else:  # what was left of it took less than that: from the beginning again
                waits.pop()
        if (tmp_path / "new").exists():
            assert hashes(tmp_path / "new") == expected
            shutil.rmtree(tmp_path / "new")
    print(f"killed after {', '.join(f'{each:.1f}' for each in waits)} s (seed {seed})")
    subprocess.run(command(source, tmp_path / "new"), check=True, stdout=subprocess.DEVNULL)
    assert hashes(tmp_path / "new") == expected
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
