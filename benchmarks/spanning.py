"""The maximum spanning forest of a dense layer, beside one read of its weights and beside its peers.

python benchmarks/spanning.py [--quick] [--huge]

Prints Markdown. Each figure is the median over repeated rounds, for stored types the least; a round runs every
contestant once, one after the other, so that a ratio compares neighbours in time. Peers, which would leave cold caches
behind and take seconds on large layers, are timed on their own, five times, or once where that takes more than two
seconds. Contestants:

read      the weights read once by one thread, in words of 64 bits: the limit
ours      maximum_spanning_forest, checks included, on all cores; "1 thread" on one
scipy, igraph, gudhi, ripser, networkx   the same forest, the building of their graph included; those installed

--quick leaves out whatever takes more than some seconds; --huge adds a bfloat16 layer of more than 2^31 cells.
Writes the growth with size as a figure, benchmarks/spanning.png.
"""

import importlib
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import ml_dtypes
import numba
import numpy as np
import scipy
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from topobounds import (
    ScaledWeights,
    magnitude_overlap,
    maximum_spanning_forest,
    neural_persistence,
    persistence_diagram,
)
from topobounds.topology import spanning_engine as machine

SIZES = [(256, 256), (784, 300), (1024, 1024), (2048, 2048), (4096, 4096), (4096, 14336)]
LIMITS = {"scipy": 2**26, "igraph": 2**24, "gudhi": 2**24, "ripser": 2**22, "networkx": 2**20}  # cells: time, memory
QUICK_LIMIT = 2**20


@numba.njit(cache=True, nogil=True)
def read_words(words):
    total = np.uint64(0)
    for word in words:
        total ^= word
    return total


def read(weights):
    return read_words(weights.reshape(-1).view(np.uint8).view(np.uint64))


def ours(weights):
    return maximum_spanning_forest(weights)


def ours_on_one_thread(weights):
    threads, machine.THREADS = machine.THREADS, 1
    try:
        return maximum_spanning_forest(weights)
    finally:
        machine.THREADS = threads


def with_scipy(weights):
    m, n = weights.shape
    lengths = (10 - np.abs(weights)).astype(np.float64).ravel()
    pointers = np.concatenate([np.arange(0, m * n + 1, n), np.full(n, m * n)])
    graph = csr_array((lengths, np.tile(np.arange(m, m + n), m), pointers), shape=(m + n, m + n))
    return minimum_spanning_tree(graph)


def with_igraph(weights):
    m, n = weights.shape
    igraph = importlib.import_module("igraph")
    edges = np.stack([np.repeat(np.arange(m), n), np.tile(np.arange(m, m + n), m)], axis=1)
    return igraph.Graph(n=m + n, edges=edges).spanning_tree(weights=-np.abs(weights).ravel())


def with_gudhi(weights):
    m, n = weights.shape
    tree = importlib.import_module("gudhi").SimplexTree()
    tree.insert_batch(np.arange(m + n)[None], np.full(m + n, -np.inf))
    edges = np.stack([np.repeat(np.arange(m), n), np.tile(np.arange(m, m + n), m)])
    tree.insert_batch(edges, -np.abs(weights).ravel().astype(np.float64))
    tree.compute_persistence(min_persistence=-1)
    return tree.persistence_pairs()


def with_ripser(weights):
    m, n = weights.shape
    rows, cols = np.divmod(np.arange(m * n), n)
    graph = coo_array((10 - np.abs(weights).ravel(), (rows, m + cols)), shape=(m + n, m + n))
    return importlib.import_module("ripser").ripser(graph + graph.T, distance_matrix=True, maxdim=0)


def with_networkx(weights):
    m, n = weights.shape
    networkx = importlib.import_module("networkx")
    graph = networkx.Graph()
    rows, cols = np.divmod(np.arange(m * n), n)
    heavy = np.abs(weights).ravel().tolist()
    graph.add_weighted_edges_from(zip(rows.tolist(), (m + cols).tolist(), heavy, strict=True))
    return list(networkx.maximum_spanning_edges(graph, data=False))


PEERS = {"scipy": with_scipy, "igraph": with_igraph, "gudhi": with_gudhi, "ripser": with_ripser}
PEERS["networkx"] = with_networkx


def normal(m, n, seed=0):
    return np.random.default_rng(seed).standard_normal((m, n), dtype=np.float32)


def inputs(m, n):
    """Yield (name, weights): what is harder, or just other, than independent normal float32 weights."""
    rng, f = np.random.default_rng(1), np.float32
    yield "normal", normal(m, n)
    yield "Cauchy", rng.standard_cauchy((m, n)).astype(f)
    yield "int8 values", rng.integers(-128, 128, (m, n)).astype(f)
    yield "int4 values", rng.integers(-8, 8, (m, n)).astype(f)
    yield "ternary", rng.integers(-1, 2, (m, n)).astype(f)
    yield "all equal", np.full((m, n), 0.5, f)
    yield "95% zeros", normal(m, n) * (rng.random((m, n)) < 0.05)
    yield "half the rows dead", normal(m, n) * (rng.permutation(m)[:, None] < m // 2)
    for sigma in (1, 3):
        scales = (np.exp(sigma * rng.standard_normal(size)).astype(f) for size in ((m, 1), (1, n)))
        yield f"log-normal row and column scales, sigma {sigma}", normal(m, n) * next(scales) * next(scales)
    yield "rank 1", normal(m, 1) * normal(1, n, 1)
    yield "rank 16", normal(m, 16) @ normal(16, n, 1)
    yield "sorted", np.sort(normal(m, n), axis=None).reshape(m, n)
    yield "magnitudes rising", np.sort(np.abs(normal(m, n)), axis=None).reshape(m, n)
    block = np.arange(m)[:, None] * 64 // m == np.arange(n) * 64 // n
    yield "64 diagonal blocks, zeros between", normal(m, n) * block
    yield "64 diagonal blocks, 1/1000 between", normal(m, n) * np.where(block, f(1), f(1e-3))
    apart = np.arange(m)[:, None] * 256 // m ^ np.arange(n) * 256 // n
    level = np.ceil(np.log2(apart + 1)).astype(f)
    yield "hierarchy of 8 levels, factor 10", normal(m, n) * f(10) ** -level


def layouts(m, n):
    """Yield (name, weights): other types and strides of normal weights."""
    weights = normal(m, n)
    yield "float16", weights.astype(np.float16)
    yield "bfloat16", weights.astype(ml_dtypes.bfloat16)
    yield "float64", np.random.default_rng(0).standard_normal((m, n))
    yield "Fortran order", np.asfortranarray(weights)
    yield "rows reversed", weights[::-1]
    yield "columns reversed", weights[:, ::-1]
    yield "every other column of a wider one", normal(m, 2 * n)[:, ::2]
    yield "part of a wider one", normal(m, n + 100)[:, :n]


def rounded(weights):
    return np.clip(np.round(weights), -127, 127).astype(np.int8)


def quantised(weights, rows, cols, dtype=np.int8, largest=127):
    """Return weights as codes with a scale for every block of so many rows and columns: its largest code is `largest`.

    Of int8 codes are rounded, of other types cast.
    """
    m, n = weights.shape
    blocks = weights.reshape(m // rows, rows, n // cols, cols)
    scale = np.abs(blocks).max(axis=(1, 3)) / largest
    codes = (blocks / scale[:, None, :, None]).reshape(m, n)
    return ScaledWeights(rounded(codes) if dtype is np.int8 else codes.astype(dtype), scale, (rows, cols))


def stored(m, n):
    """Yield (name, weights): the types that layers are stored in, with scales or without."""
    weights, rng = normal(m, n), np.random.default_rng(1)
    yield "float32", weights
    yield "bfloat16", weights.astype(ml_dtypes.bfloat16)
    yield "float16", weights.astype(np.float16)
    yield "float8_e4m3fn", weights.astype(ml_dtypes.float8_e4m3fn)
    yield "float8_e5m2", weights.astype(ml_dtypes.float8_e5m2)
    yield "int8, largest weight 127", rounded(weights / np.abs(weights).max() * 127)
    yield "int8, some clipped", rounded(weights * 30)
    yield "int8, uniform", rng.integers(-128, 128, (m, n), np.int8)
    yield "uint8, uniform", rng.integers(0, 256, (m, n), np.uint8)
    yield "int4 values in int8", rng.integers(-8, 8, (m, n), np.int8)
    yield "ternary in int8", rng.integers(-1, 2, (m, n), np.int8)
    yield "int8, a scale for all", quantised(weights, m, n)
    yield "int8, a scale per row", quantised(weights, 1, n)
    yield "int8, a scale per 128 in a row", quantised(weights, 1, 128)
    yield "int8, a scale per block of 128x128", quantised(weights, 128, 128)
    yield "float8_e4m3fn, a scale per block of 128x128", quantised(weights, 128, 128, ml_dtypes.float8_e4m3fn, 448)


def medians(functions, rounds):
    """Return the median seconds of each function, all of them run in turn, after a first time that does not count."""
    times = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def least_times(functions, rounds, clock):
    """Return the least time of each function by a clock, all of them run in turn."""
    times = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append(clock() - start)
    return [min(taken[1:]) for taken in times]


def patient_median(function, weights):
    """Return the median seconds of five calls, or those of the first if it takes more than two."""
    times = []
    while len(times) < 5 and max(times, default=0) < 2:
        start = time.perf_counter()
        function(weights)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def print_table(header, rows):
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def machine_line():
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model)
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}"
    return f"{model}, {machine.THREADS} cores, load {os.getloadavg()[0]:.1f}; {versions}, scipy {scipy.__version__}."


def ms(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds < 10 else f"{seconds:.3g} s"


def against_peers(rounds, limit):
    """Print the table of peers; return the seconds of ours and of scipy by size."""
    installed = [name for name in PEERS if importlib.util.find_spec(name)]
    rows, growth = [], {"read": {}, "ours": {}, "ours, 1 thread": {}, "scipy": {}}
    for m, n in SIZES:
        weights = normal(m, n)
        base = medians([lambda call=call, w=weights: call(w) for call in (read, ours, ours_on_one_thread)], rounds)
        names = [name for name in installed if m * n <= min(limit, LIMITS[name])]
        peers = {name: patient_median(PEERS[name], weights) for name in names}
        for name, seconds in zip(growth, [*base, peers.get("scipy")], strict=True):
            if seconds:
                growth[name][m * n] = seconds
        row = [f"{m}x{n}", ms(base[0]), f"{ms(base[1])} = {base[1] / base[0]:.2f} reads", ms(base[2])]
        rows.append(row + [f"{peers[p] / base[1]:.0f}x" if p in peers else "-" for p in installed])
    print_table(["float32, normal", "one read", "ours", "1 thread", *(f"{p} / ours" for p in installed)], rows)
    return growth


def hard_inputs(make, rounds, m, n):
    reference, rows = normal(m, n), []
    for name, weights in make(m, n):
        calls = [lambda: read(reference)]
        calls += [lambda call=call, weights=weights: call(weights) for call in (ours, ours_on_one_thread)]
        base, all_cores, single = medians(calls, rounds)
        rows.append([name, ms(all_cores), f"{all_cores / base:.1f}", f"{single / base:.1f}"])
    print_table([f"{m}x{n}", "ours", "in reads of as many float32", "1 thread"], rows)


def as_stored(rounds, m, n):
    """Print the forests of stored types, each beside one read of its own bytes, codes without their scales.

    On one thread both are CPU time, which other processes disturb less.
    """
    rows = []
    for name, weights in stored(m, n):
        codes = getattr(weights, "codes", weights)
        calls = [lambda call=call, w=w: call(w) for call, w in ((read, codes), (ours, weights))]
        base, all_cores = least_times(calls, rounds, time.perf_counter)
        calls[1] = lambda weights=weights: ours_on_one_thread(weights)
        base_alone, alone = least_times(calls, rounds, time.thread_time)
        rows.append([name, ms(base), ms(all_cores), f"{all_cores / base:.1f}", f"{alone / base_alone:.1f}"])
    print_table([f"{m}x{n}", "one read", "ours", "in reads of its own bytes", "CPU time of 1 thread"], rows)


def what_follows(rounds, m, n):
    """Print what the diagram, the overlap and the ranks cost on top of the forest."""
    rows, ks = [], np.linspace(0, m * n, 100).astype(int)
    for name, weights in inputs(m, n):
        if name in ("normal", "log-normal row and column scales, sigma 1", "64 diagonal blocks, 1/1000 between"):
            calls = {
                "forest": lambda w=weights: maximum_spanning_forest(w),
                "diagram": lambda w=weights: persistence_diagram(w),
                "neural persistence": lambda w=weights: neural_persistence(w),
                "overlap at alpha": lambda w=weights: magnitude_overlap(w),
                "critical rank": lambda w=weights: maximum_spanning_forest(w).critical_rank,
                "retention at 100 k": lambda w=weights: maximum_spanning_forest(w).retention(ks),
            }
            rows.append([name, *map(ms, medians(list(calls.values()), rounds))])
    print_table([f"{m}x{n}", *calls], rows)


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import spanning

def kilobytes(field):
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0])

small, large = spanning.normal(300, 200), spanning.normal({m}, {n})
call = getattr(spanning, {call!r})
call(small)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts afresh
before = kilobytes("VmRSS")
call(large)
print((kilobytes("VmHWM") - before) * 1024 / large.nbytes)
"""


def memory(sizes, peers):
    """Print the peak memory beyond the weights, each in a process of its own; for Linux."""
    rows = []
    for m, n in sizes:
        row = [f"{m}x{n}"]
        for call in ["ours", *peers]:
            code = MEMORY.format(folder=str(Path(__file__).parent), m=m, n=n, call=call)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            row.append(f"{float(done.stdout):.1%}" if done.returncode == 0 else "-")
        rows.append(row)
    print_table(["peak memory beyond W, in W", "ours", *(p.removeprefix("with_") for p in peers)], rows)


def cold_start(rounds):
    """Print how long whole processes take: interpreter, imports, and a first forest."""
    layer = "numpy.random.default_rng(0).standard_normal(({}), dtype='f')"
    forest = "import numpy, topobounds; topobounds.maximum_spanning_forest({})"
    programs = {
        "import numpy": "import numpy",
        "import topobounds": "import topobounds",
        "forest of 784x300": forest.format(layer.format("784, 300")),
        "forest of 1024x1024": forest.format(layer.format("1024, 1024")),
        "forest of 4096x4096": forest.format(layer.format("4096, 4096")),
        "the same by scipy": f"import numpy, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import spanning; spanning.with_scipy({layer.format('4096, 4096')})",
    }
    commands = [[sys.executable, "-c", program] for program in programs.values()]
    runs = [lambda command=command: subprocess.run(command, check=True) for command in commands]
    taken = medians(runs, rounds)
    print_table(["a process that only does", "takes"], [[k, ms(s)] for k, s in zip(programs, taken, strict=True)])


def draw(growth):
    """Fit and draw the growth of time with the number of weights."""
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, points in growth.items():
        cells, seconds = np.array(list(points)), np.array(list(points.values()))
        if cells.size < 2:
            continue
        slope = np.polyfit(np.log(cells), np.log(seconds), 1)[0]
        print(
            f"- {name}: time grows as weights^{slope:.2f}; {seconds[-1] / cells[-1] * 1e9:.2f} ns a weight at the end"
        )
        ax.loglog(cells, seconds, "o-", label=f"{name}, slope {slope:.2f}")
    ax.set(xlabel="weights", ylabel="seconds", title="Maximum spanning forest of a float32 layer")
    ax.legend()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)
    print()


def huge():
    """Print one layer of more than 2^31 cells, in bfloat16."""
    side, step = 46_400, 100
    weights = np.empty((side, side), ml_dtypes.bfloat16)
    for start in range(0, side, step):
        weights[start : start + step] = normal(step, side, start)
    base, taken = medians([lambda: read(weights), lambda: ours(weights)], 3)
    forest = ours(weights)
    print(f"{side}x{side} bfloat16, {weights.nbytes / 1e9:.1f} GB: {ms(taken)} = {taken / base:.2f} reads of it;")
    print(f"{forest.alpha} edges, the lightest of rank {forest.critical_rank}, in row {forest.rows[-1]}.\n")


def main():
    quick = "--quick" in sys.argv
    rounds = 5 if quick else 15
    print(machine_line() + "\n")
    growth = against_peers(rounds, QUICK_LIMIT if quick else sys.maxsize)
    draw(growth)
    size = (1024, 1024) if quick else (4096, 4096)
    hard_inputs(inputs, rounds, *size)
    hard_inputs(layouts, rounds, *size)
    as_stored(rounds, *((1024, 1024) if quick else (4096, 14336)))
    what_follows(5, *size)
    peers = [] if quick else [f"with_{p}" for p in ("scipy", "igraph", "gudhi") if importlib.util.find_spec(p)]
    memory([size] if quick else [size, (4096, 14336)], [] if quick else peers[:1])
    if peers:
        memory([(1024, 1024)], peers)
    cold_start(3)
    if "--huge" in sys.argv:
        huge()


if __name__ == "__main__":
    main()
