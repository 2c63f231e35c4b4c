"""T-IMP masks of weights on a GPU: by Borůvka rounds where they are, and copied to the CPU and back.

    python benchmarks/on_device.py [DEVICE]

Masks of one layer that keep a tenth of it, in milliseconds, the median over rounds in which each way runs once, both
ending with the mask on the device (``cuda`` by default). The two masks are compared. Without a GPU there is nothing to
decide: ``python benchmarks/on_device.py cpu`` only shows that it runs.
"""

import statistics
import sys
import time

import torch
from spanning import machine_line

import topobounds
from topobounds.weights import as_array
from torch_bridge import topological_mask

SIZES = [(784, 300), (1024, 1024), (4096, 4096), (4096, 14336)]
DTYPES = (torch.float32, torch.bfloat16)
KEEP = 0.1
ROUNDS = 7


def copied(weights):
    mask = topobounds.topological_mask(as_array("weights", weights), KEEP)
    return torch.from_numpy(mask).to(weights.device)


def finished(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main():
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"{machine_line().rstrip('.')}; torch {torch.__version__}, {name}; {ROUNDS} rounds\n")
    print("| keep 0.1 | on the device | copied | on the device / copied |\n|---|---:|---:|---:|")
    sizes = SIZES if device.type == "cuda" else SIZES[:2]
    for m, n in sizes:
        for dtype in DTYPES:
            weights = torch.randn(m, n, device=device).to(dtype)
            ways = {"on the device": lambda w: topological_mask(w, KEEP), "copied": copied}
            times = {way: [] for way in ways}
            for number in range(ROUNDS + 1):
                masks = []
                for way, function in ways.items():
                    finished(device)
                    start = time.perf_counter()
                    masks.append(function(weights))
                    finished(device)
                    if number:  # the first compiles kernels
                        times[way].append(time.perf_counter() - start)
                assert torch.equal(*masks)
            ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
            cells = " | ".join(f"{1e3 * statistics.median(each):.3g}" for each in times.values())
            print(f"| {m}x{n}, {str(dtype).removeprefix('torch.')} | {cells} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
