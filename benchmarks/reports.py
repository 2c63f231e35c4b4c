"""What a report of one layer costs beside its spanning forest: `python benchmarks/reports.py`."""

import argparse
import time

import ml_dtypes
import numpy as np
from spanning import machine_line, medians, ms, normal, print_table

from topobounds import layer_report, maximum_spanning_forest, overlap_null, persistence_null
from topobounds.layers import Dense

LAYERS = [(784, 300, np.float32), (4096, 4096, np.float32), (4096, 4096, ml_dtypes.bfloat16), (4096, 14336, np.float32)]


def of_layer(m, n, dtype, rounds):
    """Return a row: the forest, and everything else in forests; and what the first call of the shape took."""
    weights, layer = normal(m, n).astype(dtype), Dense(m, n)
    start = time.perf_counter()
    layer_report("layer", weights, layer, trials=0)
    first = time.perf_counter() - start
    calls = [
        lambda: maximum_spanning_forest(weights),
        lambda: layer_report("layer", weights, layer, chance=False),
        lambda: layer_report("layer", weights, layer, trials=0),
        lambda: persistence_null(weights, seed=0),
        lambda: overlap_null(weights, seed=0),
    ]
    forest, *others = medians(calls, rounds)
    return [f"{m}x{n} {np.dtype(dtype).name}", ms(forest), *(f"{t / forest:.2f}" for t in others), f"{first:.1f} s"]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(machine_line())
    print_table(
        ["in forests", "forest", "report, chance=False", "report", "persistence_null", "overlap_null", "first report"],
        [of_layer(*layer, rounds) for layer in LAYERS],
    )


if __name__ == "__main__":
    main()
