"""The critical weights of convolution kernels, beside scipy and a plain Kruskal on the explicit graph.

python benchmarks/convolution.py [--quick]

Prints Markdown. Each figure is the median over repeated rounds; a round of the first table runs every contestant once,
one after the other, so that a ratio compares neighbours in time. Contestants:

scipy    scipy.sparse.csgraph.minimum_spanning_tree of the explicit graph, made a sparse matrix first (both timed)
plain    all kernel weights sorted, all their edges through a compiled union-find
ours     critical_kernel_weights, checks included
"""

import os
import platform
import resource
import statistics
import sys
import time

import numba
import numpy as np
import scipy
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from topobounds.layers import Conv
from topobounds.topology.convolution import critical_kernel_weights

PEERS = [Conv(16, 32, (3, 3), (8, 8), padding=1), Conv(64, 128, (3, 3), (16, 16), padding=1)]
WIDE = Conv(512, 512, (3, 3), (14, 14), padding=1)
GEOMETRIES = {
    "1x1, 2048 -> 512, 7x7": Conv(2048, 512, (1, 1), (7, 7)),
    "stem 7x7/2, 3 -> 64, 224x224": Conv(3, 64, (7, 7), (224, 224), 2, 3),
    "3x3, 64 -> 64, 224x224": Conv(64, 64, (3, 3), (224, 224), padding=1),
    "3x3/2, 256 -> 512, 28x28": Conv(256, 512, (3, 3), (28, 28), 2, 1),
    "3x3 dilation 2, 512 -> 512, 28x28": Conv(512, 512, (3, 3), (28, 28), padding=2, dilation=2),
    "3x3 in 32 groups, 512 -> 512, 14x14": Conv(512, 512, (3, 3), (14, 14), padding=1, groups=32),
    "7x7 depthwise, 96, 56x56": Conv(96, 96, (7, 7), (56, 56), padding=3, groups=96),
    "patches 16x16/16, 3 -> 768, 224x224": Conv(3, 768, (16, 16), (224, 224), 16),
    "4x4/2 transposed, 512 -> 256, 14x14": Conv(512, 256, (4, 4), (14, 14), 2, 1, transposed=True),
    "3x3 circular, 256 -> 256, 14x14": Conv(256, 256, (3, 3), (14, 14), padding=1, padding_mode="circular"),
    "10/5, 1 -> 512, 16000 samples": Conv(1, 512, 10, 16_000, 5),
    "3x3x3, 64 -> 64, 8x28x28": Conv(64, 64, (3, 3, 3), (8, 28, 28), padding=1),
}


def normal(conv, seed=0):
    return np.random.default_rng(seed).standard_normal(conv.weight_shape).astype(np.float32)


def kernels(conv):
    """Return kernels of one geometry that are harder than independent normal weights."""
    rng, weights = np.random.default_rng(1), normal(conv)
    out, into = (rng.lognormal(0, 2, size).astype(np.float32) for size in conv.weight_shape[:2])
    scaled = weights * out[:, None, None, None] * into[:, None, None]
    dead = np.ones(conv.weight_shape[:2], np.float32)
    dead[: len(out) // 5], dead[:, : len(into) // 3] = 0, 0
    heavy = weights * np.float32(1e-3)
    heavy[:, :, 1, 1] = weights[:, :, 1, 1]
    return {
        "normal": weights,
        "float16": weights.astype(np.float16),
        "float64": weights.astype(np.float64),
        "dead channels": weights * dead[:, :, None, None],
        "log-normal channel scales": scaled,
        "both": scaled * dead[:, :, None, None],
        "95% zeros": np.where(rng.random(weights.shape) < 0.95, np.float32(0), weights),
        "int8": np.round(weights * 30).clip(-127, 127).astype(np.int8),
        "ternary": np.sign(np.where(np.abs(weights) < 0.5, 0, weights)).astype(np.float32),
        "all equal": np.ones_like(weights),
        "sorted": np.sort(weights, axis=None).reshape(weights.shape),
        "rank 1": (out[:, None, None, None] * rng.standard_normal((1, *weights.shape[1:]))).astype(np.float32),
        "centre tap 1000 times the others": heavy,
    }


def explicit_edges(conv):
    """Return (input, output, weight) of every edge of an ungrouped 2-D convolution of stride 1, as index arithmetic."""
    (height, width), (rows, cols) = conv.input_size, conv.kernel_size
    n_cells, parts = height * width, []
    y, x = np.indices((height, width)).reshape(2, -1)
    channels_out, channels_in = np.indices((conv.out_channels, conv.in_channels)).reshape(2, -1, 1)
    for tap in range(rows * cols):
        read_y, read_x = y + tap // cols - conv.padding[0], x + tap % cols - conv.padding[1]
        real = (read_y >= 0) & (read_y < height) & (read_x >= 0) & (read_x < width)
        inputs = channels_in * n_cells + (read_y * width + read_x)[real]
        outputs = channels_out * n_cells + np.flatnonzero(real)
        weights = (channels_out * conv.in_channels + channels_in) * rows * cols + tap
        parts.append(
            np.stack([inputs, outputs, np.broadcast_to(weights, inputs.shape)]).reshape(3, -1).astype(np.int32)
        )
    return np.concatenate(parts, axis=1)


def by_scipy(weights, conv, edges):
    inputs, outputs, places = edges
    values = -np.abs(weights.ravel()).astype(np.float64)[places]
    start = time.perf_counter()
    graph = csr_array((values, (inputs, conv.n_inputs + outputs)), shape=(conv.n_vertices,) * 2)
    tree = -minimum_spanning_tree(graph).data
    return time.perf_counter() - start, np.sort(tree)[::-1]


@numba.njit
def union_all(order, starts, inputs, outputs, parent):
    merges = np.zeros(order.size, np.int64)
    for position, weight in enumerate(order):
        for edge in range(starts[weight], starts[weight + 1]):
            a, b = inputs[edge], outputs[edge]
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a != b:
                parent[a] = b
                merges[position] += 1
    return merges


def by_plain_kruskal(weights, conv, bundles):
    starts, inputs, outputs = bundles
    start = time.perf_counter()
    values = np.abs(weights.ravel())
    order = np.argsort(-values, kind="stable")
    merges = union_all(order, starts, inputs, outputs, np.arange(conv.n_vertices, dtype=np.int32))
    return time.perf_counter() - start, np.repeat(values[order].astype(np.float64), merges)


def by_us(weights, conv):
    start = time.perf_counter()
    found = critical_kernel_weights(weights, conv)
    return time.perf_counter() - start, np.repeat(found.weights.astype(np.float64), found.merges)


def read_time(weights):
    start = time.perf_counter()
    weights.ravel().view(np.uint8).max()
    return time.perf_counter() - start


def peers_row(conv, rounds):
    weights, edges = normal(conv), explicit_edges(conv)
    assert edges.shape[1] == conv.n_edges
    order = np.argsort(edges[2], kind="stable")
    starts = np.searchsorted(edges[2][order], np.arange(conv.n_weights + 1))
    bundles = starts, edges[0][order], edges[1][order] + np.int32(conv.n_inputs)
    times = {"scipy": [], "plain": [], "ours": []}
    for _ in range(rounds):
        results = by_scipy(weights, conv, edges), by_plain_kruskal(weights, conv, bundles), by_us(weights, conv)
        for name, (seconds, tree) in zip(times, results, strict=True):
            times[name].append(seconds)
            np.testing.assert_array_equal(tree, results[0][1])
    ratios = {name: statistics.median(np.divide(times[name], times["ours"])) for name in ("scipy", "plain")}
    medians = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    return (
        f"| {title(conv)} | {conv.n_weights:,} | {conv.n_edges:,} | {medians['scipy']:,.0f} | {medians['plain']:,.1f} "
        f"| {medians['ours']:.2f} | {ratios['scipy']:,.0f} | {ratios['plain']:,.0f} |"
    )


def our_row(name, weights, conv, rounds):
    found = critical_kernel_weights(weights, conv)
    pairs = [(by_us(weights, conv)[0], read_time(weights)) for _ in range(rounds)]
    seconds, read = (statistics.median(times) for times in zip(*pairs, strict=True))
    return (
        f"| {name} | {weights.size:,} | {conv.n_vertices:,} | {found.n_critical:,} | {1e3 * seconds:.1f} "
        f"| {1e3 * read:.2f} |"
    )


def title(conv):
    kernel, size = ("x".join(map(str, each)) for each in (conv.kernel_size, conv.input_size))
    return f"{kernel}, {conv.in_channels} -> {conv.out_channels}, {size}"


def print_machine():
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), {versions}, numba {numba.__version__}. Times in ms.\n")


def main(quick):
    print_machine()
    print("| layer | weights | edges | scipy | plain | ours | scipy / ours | plain / ours |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for conv in PEERS:
        by_us(normal(conv), conv)  # compiled before the clock runs
        by_plain_kruskal(np.zeros((1, 1)), Conv(1, 1, 1, 1), (np.zeros(2, np.int64), *np.zeros((2, 1), np.int32)))
        print(peers_row(conv, 2 if quick else 5), flush=True)
    columns = "| weights | neurons | critical | ours | one read of the weights |\n|---|---:|---:|---:|---:|---:|"
    print(f"\n| {title(WIDE)} {columns}")
    for name, weights in kernels(WIDE).items():
        print(our_row(name, weights, WIDE, 3 if quick else 15), flush=True)
    print(f"\n| normal kernels {columns}")
    for name, conv in GEOMETRIES.items():
        print(our_row(name, normal(conv), conv, 3 if quick else 15), flush=True)
    print(f"\nPeak memory, the peers' included: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB.")


if __name__ == "__main__":
    main("--quick" in sys.argv)
