"""Trials a second of the simulated overlap, beside its peers.

python benchmarks/montecarlo.py [--quick]

Each row is the median over repeated rounds; a round runs every contestant once, one after the other, so that a ratio
compares neighbours in time. Contestants:

weights   draw normal weights, take the top alpha, count components with scipy
numpy     batches in numpy: distinct random cells, hooking and pointer jumping over all trials of a batch
ours (numpy), ours, ours xN   simulate_overlap by numpy alone, compiled on one thread, and on N threads
"""

import os
import platform
import statistics
import sys
import time

import numba
import numpy as np
import scipy
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from topobounds import montecarlo

SIZES = {(784, 300): (20, 200, 40_000), (4096, 4096): (1, 20, 3_000), (4096, 14336): (0, 10, 2_000)}


def weights_drawn(m, n, trials):
    """Draw weights, select the top alpha, count components, one trial at a time."""
    rng, k = np.random.default_rng(0), m + n - 1
    total = 0
    for _ in range(trials):
        weights = np.abs(rng.standard_normal(m * n, np.float32))
        top = np.argpartition(weights, -k)[-k:]
        graph = coo_array((np.ones(k), (top // n, m + top % n)), shape=(m + n, m + n))
        total += m + n - connected_components(graph, directed=False)[0]
    return total / (trials * k)


def numpy_batch(m, n, trials):
    """Do many trials at a time in numpy, with numpy's own random numbers, in batches that stay in the cache."""
    rng, size = np.random.default_rng(0), max(1, 8192 // (m + n))
    return sum(numpy_ranks(rng, m, n, min(size, trials - t)) for t in range(0, trials, size)) / (trials * (m + n - 1))


def numpy_ranks(rng, m, n, trials):
    """Return the sum of the ranks of one batch: distinct random cells, hooking, pointer jumping."""
    k, vertices = m + n - 1, m + n
    cells = np.sort(rng.integers(0, m * n, (trials, k)), axis=1)
    while (repeats := cells[:, 1:] == cells[:, :-1]).any():
        cells[:, 1:][repeats] = rng.integers(0, m * n, repeats.sum())
        cells.sort(axis=1)
    offsets = vertices * np.arange(trials)[:, None]
    u, v = (cells // n + offsets).ravel(), (m + cells % n + offsets).ravel()
    parents = np.arange(trials * vertices)
    while u.size:
        u, v = parents[u], parents[v]
        u, v = u[u != v], v[u != v]
        parents[np.maximum(u, v)] = np.minimum(u, v)
        while not np.array_equal(flatter := parents[parents], parents):
            parents = flatter
    return (parents != np.arange(parents.size)).sum()


def ours(m, n, trials, *, threads=1, numpy=False):
    """Run the package on its numpy path or its compiled one."""
    montecarlo._NUMPY_BUDGET.affords = lambda cells: numpy
    return montecarlo.simulate_overlap(m, n, trials=trials, seed=0, threads=threads).mean


def contestants(m, n):
    """Return what runs at this size: name -> (function, trials)."""
    weights, batch, compiled = SIZES[m, n]
    rows = {
        "weights": (weights_drawn, weights),
        "numpy": (numpy_batch, batch),
        "ours (numpy)": (lambda *a: ours(*a, numpy=True), batch),
        "ours": (ours, compiled),
    }
    for threads in sorted({2, os.cpu_count() or 1} - {1}):
        rows[f"ours x{threads}"] = (lambda *a, t=threads: ours(*a, threads=t), compiled * threads)
    return {name: row for name, row in rows.items() if row[1]}


def measure(m, n, rounds):
    """Return name -> trials a second in each round."""
    rates = {name: [] for name in contestants(m, n)}
    for _ in range(rounds):
        for name, (function, trials) in contestants(m, n).items():
            start = time.perf_counter()
            function(m, n, trials)
            rates[name].append(trials / (time.perf_counter() - start))
    return rates


def ratio(rates, name, base):
    """Return the median over the rounds of one rate over another."""
    return statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True))


def main():
    rounds = 3 if "--quick" in sys.argv[1:] else 15
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}, numba {numba.__version__}"
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}; {rounds} rounds"
    )
    ours(20, 30, 10)  # compile
    print("| layer | | trials/s | against numpy | against ours (numpy) | against ours |")
    print("|---|---|---|---|---|---|")
    for m, n in SIZES:
        rates = measure(m, n, rounds)
        for name, values in rates.items():
            ratios = " | ".join(f"{ratio(rates, name, base):.3g}" for base in ("numpy", "ours (numpy)", "ours"))
            rate = statistics.median(values)
            print(f"| {m}x{n} | {name} | {rate:,.{0 if rate >= 10 else 2}f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
