"""What a sweep costs beside its answers: here, and on Dask clusters of this machine.

python benchmarks/sweep.py [--trials MILLIONS] [--checkpoints FOLDER]

The overhead of a point is the time of the sweep, less that of its answers, which the rows tell, over the points (of W
workers a W-th of the answers' time). A cluster is a scheduler and its workers, each a process, on the loopback address,
warm: what is imported and compiled once has been. Smallest of three rounds. With --trials also so many million trials
of 784x300 in one sweep, with --checkpoints all files of weights in a folder in one sweep.
"""

import argparse
import sqlite3
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, LocalCluster

from topobounds._parallel import processor_name, processors
from topobounds.sweeps import SweepPlan, sweep
from topobounds.sweeps.run import answer_points
from topobounds.sweeps.store import FILE, Store

POINTS = 2000
ROUNDS = 3
TRIALS_A_POINT = 100_000


def plan_of_points(seed):
    """Return a plan of 2,000 points of overlap, each of which takes about a millisecond."""
    axes = {"m": {"from": 101, "to": 150}, "n": {"from": 21, "to": 60}}
    return SweepPlan.of({"seed": seed, "grid": [{"question": "overlap", **axes, "trials": 0}]})


def timed_sweep(plan, workers, **options):
    """Return the seconds of a sweep, the overhead of a point in ms, and the mean bytes of a row."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = sweep(plan, folder, **options)
        seconds = time.perf_counter() - began
        assert result.done == len(plan), result
        connection = sqlite3.connect(Path(folder) / FILE)
        (answers,) = connection.execute("select sum(seconds) from points").fetchone()
        connection.close()
        size = (Path(folder) / FILE).stat().st_size / len(plan)
    return seconds, 1000 * (seconds - answers / workers) / len(plan), size


@contextmanager
def cluster_of(workers):
    with (
        LocalCluster(workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client.get_executor(pure=False)


def overheads():
    print(f"| {POINTS:,} points of overlap | seconds | overhead a point | asked for |")
    print("| --- | ---: | ---: | ---: |")
    here = min((timed_sweep(plan_of_points(seed), 1, jobs=1) for seed in range(ROUNDS + 1)), key=lambda row: row[1])
    print(f"| this process | {here[0]:.2f} | {here[1]:.3f} ms | 0.3 ms |", flush=True)
    tasks = {}
    for workers in (2, 4):
        with cluster_of(workers) as executor:
            timed_sweep(plan_of_points(99), workers, executor=executor, jobs=workers)
            rounds = [
                timed_sweep(plan_of_points(seed), workers, executor=executor, jobs=workers) for seed in range(ROUNDS)
            ]
            there = min(rounds, key=lambda row: row[1])
            tasks[workers] = task_milliseconds(executor)
        print(f"| {workers} Dask workers | {there[0]:.2f} | {there[1]:.3f} ms | 5 ms |", flush=True)
    print()
    rows = rows_a_second()
    print("| what limits more workers | |")
    print("| --- | ---: |")
    print(f"| rows a second that one store takes, 1,000 at a time | {rows:,.0f} |")
    print(f"| bytes of a row in the store | {here[2]:,.0f} |")
    for workers, milliseconds in tasks.items():
        print(f"| scheduler and client, a unit of work, {workers} workers | {milliseconds:.2f} ms |")
    print()


def task_milliseconds(executor):
    """Return how long a unit takes in which nothing is done."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        futures = [executor.submit(answer_points, []) for _ in range(POINTS)]
        for future in futures:
            future.result()
        found.append(time.perf_counter() - began)
    return 1000 * min(found) / POINTS


def rows_a_second():
    plan = SweepPlan.of({"grid": [{"question": "overlap", "m": {"from": 2, "to": 1001}, "n": 2, "trials": 0}]})
    rows = answer_points([(point.question, point.parameters) for point in plan.points()])
    found = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder, Store.create(Path(folder), plan) as store:
            began = time.perf_counter()
            store.add(rows)
            found.append(time.perf_counter() - began)
    return len(rows) / min(found)


def many_trials(millions):
    points = round(millions * 1e6 / TRIALS_A_POINT)
    grid = {"question": "overlap", "m": 784, "n": 300, "trials": TRIALS_A_POINT, "seed": {"from": 0, "to": points - 1}}
    seconds, _, _ = timed_sweep(SweepPlan.of({"grid": [grid]}), 1, jobs=1)
    print(f"{points * TRIALS_A_POINT:,} trials of 784x300, {points} points: {seconds:.0f} s.\n")


def checkpoints(folder):
    paths = sorted(
        str(path.resolve())
        for path in folder.iterdir()
        if path.suffix in (".safetensors", ".npz", ".pt", ".pth", ".th")
    )
    plan = SweepPlan.of({"grid": [{"question": "analyze", "path": paths, "seed": 0}]})
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        result = sweep(plan, out, jobs=1)
        seconds = time.perf_counter() - began
        with Store.open(Path(out)) as store:
            rows = list(store.records())
    print(f"{result.points} checkpoints, {result.done} analyzed, {result.failed} failed: {seconds:.1f} s.\n")
    print("| checkpoint | layers | seconds | |")
    print("| --- | ---: | ---: | --- |")
    for row in rows:
        layers = sum(name.startswith("layers.") and name.endswith(".weights") for name in row)
        print(f"| {Path(row['path']).name} | {layers} | {row['seconds']:.1f} | {row['error'] or ''} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=float, metavar="MILLIONS")
    parser.add_argument("--checkpoints", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    print(f"{processor_name()}, {processors()} processors\n")
    overheads()
    if arguments.trials:
        many_trials(arguments.trials)
    if arguments.checkpoints:
        checkpoints(arguments.checkpoints)


if __name__ == "__main__":
    main()
