"""What keeping the topology costs under N:M sparsity, layer by layer: a table for docs/n_of_m.md.

    python benchmarks/n_of_m.py [FILE]...

Beside layers of normal weights, the matrices of the files are read, outputs as rows. A group is M inputs of one output
that lie side by side. Under T-IMP a group would keep its forest edges first, then its largest other weights.
"""

import sys

import numpy as np

from topobounds import layer_tensors, maximum_spanning_forest, open_checkpoint

PATTERNS = ((2, 4), (1, 4), (4, 8), (1, 16))


def costs(weights: np.ndarray, n: int, m: int) -> tuple[int, int, float]:
    """Return the forest's edges, those that do not fit, and the share of the kept squared weight that is lost."""
    columns = weights.shape[1] // m * m  # the rest is no whole group
    weights = np.abs(weights[:, :columns].astype(np.float64))
    forest = maximum_spanning_forest(weights)
    edges = np.zeros(weights.shape, bool)
    edges[forest.rows, forest.cols] = True
    in_group = edges.reshape(-1, m).sum(1)
    first = np.where(edges, 2.0, 0.0) + weights / weights.max() / 2
    order = np.argsort(-first.reshape(-1, m), axis=1, kind="stable")[:, :n]
    ours = np.take_along_axis(weights.reshape(-1, m), order, 1)
    largest = np.sort(weights.reshape(-1, m), 1)[:, ::-1][:, :n]
    lost = 1 - float((ours**2).sum() / (largest**2).sum())
    return forest.alpha, int(np.maximum(in_group - n, 0).sum()), lost


def layers(files: list[str]):
    rng = np.random.default_rng(0)
    for shape in ((300, 784), (1024, 1024), (4096, 1024), (10, 512)):
        yield f"normal, {shape[0]}x{shape[1]}", rng.standard_normal(shape).astype(np.float32)
    for file in files:
        with open_checkpoint(file) as checkpoint:
            for tensor in layer_tensors(checkpoint):
                if len(tensor.shape) == 2 and len(tensor.parts) == 1 and not tensor.inputs_first:
                    yield f"{checkpoint.path.name}, {tensor.name}", checkpoint.tensor(tensor.name)


def main() -> None:
    head = " | ".join(f"{n}:{m} lost edges | {n}:{m} weight lost" for n, m in PATTERNS)
    print(f"| layer | alpha | {head} |")
    print("| --- " * (2 + 2 * len(PATTERNS)) + "|")
    for name, weights in layers(sys.argv[1:]):
        cells = []
        for n, m in PATTERNS:
            alpha, misfits, lost = costs(weights, n, m)
            cells += [str(misfits), f"{lost:.2%}"]
        print(f"| {name} | {alpha} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
