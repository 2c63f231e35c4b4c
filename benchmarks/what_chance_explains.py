"""How much of the topology of published networks their weights give in random order.

Run with: `TOPOBOUNDS_DATA=folder python benchmarks/what_chance_explains.py`; the networks are the files in its folder
`checkpoints`. Of each layer: the share of its neural persistence that the values alone explain, and by how many
standard deviations its overlap differs from chance.
"""

import os
import statistics
from pathlib import Path

from spanning import print_table

from topobounds import analyze

SEED = 1
FAR = -3.0  # standard deviations


def row(path: Path) -> list[str]:
    layers = analyze(path, seed=SEED).layers
    shares = [layer.neural_persistence_share for layer in layers if layer.neural_persistence_share is not None]
    distances = [layer.overlap_z for layer in layers if layer.overlap_z is not None]
    return [
        f"`{path.name}`",
        str(len(shares)),
        f"{statistics.median(shares):.2f}",
        f"{statistics.median(distances):+.1f}",
        f"{sum(distance < FAR for distance in distances)} of {len(distances)}",
    ]


def main() -> None:
    folder = os.environ.get("TOPOBOUNDS_DATA")
    if not folder:
        print("TOPOBOUNDS_DATA names no folder with published networks: nothing to do.")
        return
    files = sorted(path for path in (Path(folder) / "checkpoints").iterdir() if path.is_file())
    head = ["network", "layers", "persistence explained, median", "overlap z, median", "layers with z < -3"]
    print_table(head, map(row, files))


if __name__ == "__main__":
    main()
