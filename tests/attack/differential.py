"""Random small layers and kernels, answered by topobounds and by others: nothing may differ.

``python -m tests.attack.differential --cases 1000000 --folder FOLDER`` draws cases from a seed, in blocks, and writes
after each block what was done to FOLDER/state.json, from which it goes on when it is called again. A difference is
written to FOLDER/differences.txt with the block and place from which `case_of` makes it again.

Every case goes through a Kruskal's algorithm of our own on a full sort; all cases of a block at once through scipy's
minimum spanning tree, ranks for weights; some through gudhi, networkx and the pure Python of `tests.naive`.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gudhi
import ml_dtypes
import networkx as nx
import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from tests import naive, naive_convolution
from topobounds import (
    ScaledWeights,
    critical_kernel_weights,
    magnitude_mask,
    maximum_spanning_forest,
    neural_persistence,
    persistence_diagram,
    topological_mask,
    total_neural_persistence,
)
from topobounds._engine import NumpyBudget
from topobounds.topology import spanning
from topobounds.topology import spanning_engine as machine

BLOCK = 500
FLOATS = ["float64", "float32", "float16", "bfloat16"]
SMALL_FLOATS = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e3m4"]
INTEGERS = ["int8", "uint8", "int16", "int32", "bool"]
CODES = ["int8", "uint8", "float8_e4m3fn", "float8_e5m2", "int16", "float16"]
DTYPES = [*FLOATS, *FLOATS, *SMALL_FLOATS, *INTEGERS, "int8", "uint8", "scaled", "scaled", ">f4", ">f8", ">f2"]
PATHS = ["_filter_round", "_boruvka_round", "_joined_at", "_settle", "ranks_of"]
PATHS += ["_heaviest_by_line", "_heaviest_by_entry"]


@dataclass
class Case:
    """A layer as it is handed in, its magnitudes, and what is asked of it."""

    weights: Any
    sizes: NDArray[np.float64]
    mask: NDArray[np.bool_] | None
    zeros: str
    numpy_only: bool
    share: float  # of the survivors that masks keep

    @property
    def about(self) -> str:
        """What it is, in words."""
        kind = "scaled " + self.weights.codes.dtype.name if self.is_scaled else self.weights.dtype.str
        return f"{self.sizes.shape} {kind} mask={self.mask is not None} zeros={self.zeros} numpy={self.numpy_only}"

    @property
    def is_scaled(self) -> bool:
        """Whether it is codes and scales."""
        return isinstance(self.weights, ScaledWeights)


# -- what is drawn ---------------------------------------------------------------------------------------------------


def cases_of(seed: int, block: int) -> Iterator[Case]:
    """Yield the cases of a block."""
    rng = np.random.default_rng((seed, block))
    for _ in range(BLOCK):
        yield _case(rng)


def case_of(seed: int, block: int, place: int) -> Case:
    """Return one case again."""
    return next(case for i, case in enumerate(cases_of(seed, block)) if i == place)


def _case(rng: np.random.Generator) -> Case:
    m, n = _shape(rng)
    dtype = DTYPES[rng.integers(len(DTYPES))]
    if dtype == "scaled":
        weights: Any = _scaled(m, n, rng)
    else:
        weights = _in_memory(_typed(_values(m, n, rng), dtype, rng), rng)
    with np.errstate(invalid="ignore"):
        values = np.asarray(weights).astype(np.float64)
    mask = None
    if rng.random() < 0.3:
        mask = rng.random((m, n)) < rng.choice([0.05, 0.3, 0.7, 0.95])
        if rng.random() < 0.3:
            mask = np.asfortranarray(mask)
    zeros = "edge" if rng.random() < 0.3 else "absent"
    return Case(weights, np.abs(values), mask, zeros, bool(rng.random() < 0.25), float(rng.random()))


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    kind = rng.random()
    if kind < 0.75:
        return int(rng.integers(1, 7)), int(rng.integers(1, 7))
    if kind < 0.97:
        return int(rng.integers(1, 20)), int(rng.integers(1, 20))
    if kind < 0.98:
        long = int(rng.integers(60, 300))
        return (1 + int(rng.integers(3)), long) if rng.random() < 0.5 else (long, 1 + int(rng.integers(3)))
    return int(rng.integers(40, 110)), int(rng.integers(40, 110))


def _values(m: int, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return values of many kinds, in doubles."""
    kind = rng.integers(14)
    normal = rng.standard_normal((m, n))
    if kind < 3:
        return normal
    if kind == 3:
        return np.round(normal * 2)
    if kind == 4:
        return rng.integers(-1, 2, (m, n)).astype(np.float64)
    if kind == 5:
        return np.full((m, n), rng.choice([-0.5, 0.0, -0.0, 1.0, 5e-324]))
    if kind == 6:
        return normal * (rng.random((m, n)) < 0.3) * rng.choice([-1.0, 1.0], (m, n))
    if kind == 7:
        return np.exp(rng.uniform(-740, 709, (m, n))) * rng.choice([-1.0, 1.0], (m, n))
    if kind == 8:
        return normal * np.exp(rng.standard_normal((m, 1)) * 3) * np.exp(rng.standard_normal(n) * 3)
    if kind == 9:
        return rng.integers(-4, 5, (m, n)) * 5e-324
    if kind == 10:
        return np.sort(normal, axis=None).reshape(m, n)
    if kind == 11:
        return normal * (rng.random((m, 1)) < 0.6) * (rng.random(n) < 0.6)
    if kind == 12:
        blocks = (np.arange(m)[:, None] * 4 // m) ^ (np.arange(n) * 4 // n)
        return normal * 0.3**blocks
    return np.outer(rng.standard_normal(m), rng.standard_normal(n))


def _typed(values: NDArray[np.float64], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    """Return the values in a type, all of them finite, or any bits of that type."""
    kind = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else np.dtype(dtype)
    if dtype == "bool":
        return values > 0.5
    if dtype in INTEGERS:
        bounds = np.iinfo(kind)
        if rng.random() < 0.5:
            return rng.integers(bounds.min, bounds.max, values.shape, kind, endpoint=True)
        with np.errstate(over="ignore"):
            return np.clip(np.round(values * rng.choice([1, 3, 50])), bounds.min, bounds.max).astype(kind)
    if rng.random() < 0.3:
        typed = np.frombuffer(rng.bytes(values.size * kind.itemsize), kind).reshape(values.shape).copy()
    else:
        with np.errstate(all="ignore"):
            scale = rng.choice([1.0, 1.0, 1e-4, 1e-38, 1e4])
            typed = (values * scale).astype(kind)
    with np.errstate(all="ignore"):
        finite = np.isfinite(typed.astype(np.float64))
    if not finite.all() and rng.random() < 0.97:
        typed[~finite] = np.zeros((), kind)
    return typed


def _scaled(m: int, n: int, rng: np.random.Generator) -> ScaledWeights:
    """Return codes with one scale, or scales by row, column or block."""
    codes = _in_memory(_typed(_values(m, n, rng), CODES[rng.integers(len(CODES))], rng), rng)
    with np.errstate(all="ignore"):
        bad = ~np.isfinite(codes.astype(np.float64))
    if bad.any():
        codes = np.where(bad, np.zeros((), codes.dtype), codes)
    kind = rng.integers(4)
    block = int(rng.integers(1, 5))
    shape = [(1, 1), (m, 1), (1, n), (m, -(-n // block))][kind]
    scales = np.exp(rng.uniform(-3, 3, shape)) * rng.choice([-1.0, 1.0], shape)
    special = rng.random()
    if special < 0.1:
        scales *= rng.random(shape) < 0.5
    elif special < 0.2:
        scales = np.round(scales) + 1.0
    elif special < 0.3:
        scales = scales * 1e-44
    elif special < 0.35:
        scales = scales * 1e30
    return ScaledWeights(codes, scales.astype(np.float32), block if kind == 3 else None)


def _in_memory(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return the same values, laid out in one way or another."""
    kind = rng.integers(12)
    m, n = array.shape
    if kind == 0:
        return np.asfortranarray(array)
    if kind == 1:
        return np.ascontiguousarray(array[::-1])[::-1]
    if kind == 2:
        return np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    if kind == 3:
        return np.repeat(array, 2, axis=1)[:, ::2]
    if kind == 4:
        return np.repeat(array, 3, axis=0)[1::3]
    if kind == 5:
        return np.hstack([array, array])[:, :n]
    if kind == 6:
        return np.asfortranarray(array[::-1, ::-1])[::-1, ::-1]
    if kind == 7 and array.dtype.itemsize > 1:  # not aligned
        room = np.empty(array.nbytes + 1, np.uint8)
        odd = room[1:].view(array.dtype).reshape(m, n)
        odd[...] = array
        return odd
    if kind == 8:
        array = array.copy()
        array.setflags(write=False)
        return array
    if kind == 9:
        return np.broadcast_to(array[:1], array.shape)
    if kind == 10:
        return np.broadcast_to(array[:, :1], array.shape)
    return array


# -- the other answers -----------------------------------------------------------------------------------------------


@numba.njit
def _kruskal(cells, m, n):
    """Return the positions of the forest's edges among cells in order."""
    parent, found, count = np.arange(m + n), np.empty(m + n, np.int64), 0
    for position in range(cells.size):
        a, b = cells[position] // n, m + cells[position] % n
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if a != b:
            parent[a] = b
            found[count] = position
            count += 1
    return found[:count]


@dataclass
class Truth:
    """The cells of a layer in order, those of the forest, and how many of either are not zero."""

    order: NDArray[np.int64]
    positions: NDArray[np.int64]
    n_weights: int
    alpha: int

    @property
    def cells(self) -> NDArray[np.int64]:
        """Flat indices of the forest's edges."""
        return self.order[self.positions]


def truth_of(case: Case) -> Truth:
    """Return the forest by a full sort and Kruskal's algorithm."""
    flat = case.sizes.ravel()
    present = np.ones(flat.size, bool) if case.mask is None else case.mask.ravel()
    if case.zeros == "absent":
        present = present & (flat > 0)
    cells = np.flatnonzero(present)
    order = cells[np.lexsort((cells, -flat[cells]))]
    positions = _kruskal(order, *case.sizes.shape)
    n_weights = int(np.count_nonzero(flat[order]))
    return Truth(order, positions, n_weights, int(np.count_nonzero(positions < n_weights)))


def masks_of(case: Case, truth: Truth, keep: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Return the masks of magnitude and of T-IMP; None where T-IMP has too few weights."""
    flat = case.sizes.ravel()
    survivors = np.arange(flat.size) if case.mask is None else np.flatnonzero(case.mask.ravel())
    order = survivors[np.lexsort((survivors, -flat[survivors]))]
    largest = np.zeros(flat.size, bool)
    largest[order[:keep]] = True
    if keep < truth.alpha:
        return largest.reshape(case.sizes.shape), None
    carrying = truth.cells[: truth.alpha]
    others = order[~np.isin(order, carrying)]
    topological = np.zeros(flat.size, bool)
    topological[carrying] = True
    topological[others[: keep - truth.alpha]] = True
    return largest.reshape(case.sizes.shape), topological.reshape(case.sizes.shape)


class Differ(Exception):
    """Two answers are not the same."""


def same(what: str, ours: Any, theirs: Any) -> None:
    """Raise `Differ` unless two answers are equal."""
    if not (np.array_equal(ours, theirs) if isinstance(theirs, np.ndarray) else ours == theirs):
        raise Differ(f"{what}: {ours!r}, not {theirs!r}")


def near(what: str, ours: float, theirs: float) -> None:
    """Raise `Differ` unless two sums are equal but for their rounding."""
    if not math.isclose(ours, theirs, rel_tol=1e-11, abs_tol=1e-14):
        raise Differ(f"{what}: {ours!r}, not {theirs!r}")


# -- one case --------------------------------------------------------------------------------------------------------


def check(case: Case, place: int, counts: Counter[str]) -> tuple[NDArray[np.int64], Truth] | None:
    """Compare all that is said of one case; return its forest and the truth, or None where it is refused rightly."""
    there = case.sizes if case.mask is None else case.sizes[case.mask]
    if not np.isfinite(there).all():
        counts["refused"] += 1
        for function in (maximum_spanning_forest, lambda w, mask: magnitude_mask(w, 0, mask)):
            try:
                function(case.weights, case.mask)
            except ValueError as error:
                if "finite" not in str(error):
                    raise Differ(f"refused as {error}") from error
            else:
                raise Differ("infinity or NaN is not refused")
        return None
    truth = truth_of(case)
    forest = maximum_spanning_forest(case.weights, case.mask, zeros=case.zeros)
    m, n = case.sizes.shape
    cells = forest.rows * n + forest.cols
    same("cells", cells, truth.cells)
    same("weights", forest.weights.astype(np.float64), case.sizes.ravel()[truth.cells])
    same("ranks", forest.ranks, truth.positions + 1)
    same("alpha", forest.alpha, truth.alpha)
    same("components", forest.n_components, m + n - truth.cells.size)
    last = truth.positions[truth.alpha - 1] + 1 if truth.alpha else 0
    same("critical rank", forest.critical_rank, last)
    k = round(case.share * m * n)
    kept = int(np.count_nonzero(truth.positions[: truth.alpha] < k))
    same("overlap", forest.overlap(k), kept / truth.alpha if truth.alpha else 1.0)
    if place % 4 == 0:
        _check_deficit(forest, truth, k)
        _check_persistence(case, truth)
    if place % 2 == 0:
        _check_masks(case, truth, counts)
    if m * n <= 36:
        _check_small(case, forest, truth, place, counts)
    return cells, truth


def _check_deficit(forest: Any, truth: Truth, k: int) -> None:
    m, n = forest.shape
    cells = truth.order[: min(k, truth.n_weights)]
    silent = m - np.unique(cells // n).size, n - np.unique(cells % n).size
    fragments = m + n - _kruskal(cells, m, n).size - sum(silent)
    deficit = forest.deficit(k)
    same("deficit", (deficit.silent_inputs, deficit.silent_outputs, deficit.fragments), (*silent, fragments))


def _check_persistence(case: Case, truth: Truth) -> None:
    diagram = persistence_diagram(case.weights, case.mask, zeros=case.zeros)
    values = case.sizes.ravel()[truth.cells]
    largest = float(values[0]) if values.size else 0.0
    deaths = values / largest if largest else values
    same("deaths", diagram.deaths, deaths)
    m, n = case.sizes.shape
    for p in (1.0, 2.0, 3.5, math.inf):
        lost = (1.0 - deaths[: truth.alpha]).tolist()
        total = max(lost, default=0.0) if p == math.inf else math.fsum(x**p for x in lost) ** (1 / p)
        near("persistence", neural_persistence(diagram, p=p), total)
        if p != math.inf:
            rieck = math.fsum([*(x**p for x in lost), *[1.0] * (m + n - truth.alpha)]) ** (1 / p)
            near("persistence, rieck", neural_persistence(diagram, p=p, convention="rieck"), rieck)
        normal = total / (truth.alpha - 1) ** (1 / p) if truth.alpha > 1 else 0.0
        near("persistence, normalized", neural_persistence(diagram, p=p, normalized=True), normal)
        near("total", total_neural_persistence([diagram, diagram], p=p), 2 * total)


def _check_masks(case: Case, truth: Truth, counts: Counter[str]) -> None:
    weights = np.asarray(case.weights) if case.is_scaled else case.weights
    survivors = case.sizes.size if case.mask is None else int(np.count_nonzero(case.mask))
    keep = round(case.share * survivors)
    if case.zeros == "edge":  # the mask keeps the forest of weights that are not zero, whatever zeros are
        truth = truth_of(Case(case.weights, case.sizes, case.mask, "absent", case.numpy_only, case.share))
    largest, topological = masks_of(case, truth, keep)
    same("magnitude mask", magnitude_mask(weights, keep, case.mask), largest)
    counts["masks"] += 1
    if topological is None:
        clamped = topological_mask(weights, keep, case.mask, on_infeasible="clamp")
        same("T-IMP mask, clamped", np.flatnonzero(clamped), np.sort(truth.cells[: truth.alpha]))
    else:
        same("T-IMP mask", topological_mask(weights, keep, case.mask), topological)


def _check_small(case: Case, forest: Any, truth: Truth, place: int, counts: Counter[str]) -> None:
    m, n = case.sizes.shape
    ours = (forest.rows * n + forest.cols).tolist()
    if place % 8 == 1:
        counts["naive"] += 1
        mask = None if case.mask is None else case.mask.tolist()
        edges, alpha, critical = naive.kruskal(case.sizes.tolist(), mask, case.zeros)
        same("naive", ([i * n + j for i, j in edges], alpha, critical), (ours, forest.alpha, forest.critical_rank))
    if place % 32 == 3:
        counts["networkx"] += 1
        graph = nx.Graph()
        graph.add_nodes_from(range(m + n))
        graph.add_weighted_edges_from(
            (cell // n, m + cell % n, -rank) for rank, cell in enumerate(truth.order.tolist())
        )
        edges = nx.maximum_spanning_edges(graph, algorithm="boruvka" if place % 64 == 3 else "prim", data=False)
        same("networkx", sorted(min(u, v) * n + max(u, v) - m for u, v in edges), sorted(ours))
    if place % 16 == 5:
        counts["gudhi"] += 1
        tree = gudhi.SimplexTree()
        for v in range(m + n):
            tree.insert([v], -math.inf)
        for rank, cell in enumerate(truth.order.tolist()):
            tree.insert([cell // n, m + cell % n], float(rank))
        tree.compute_persistence(min_persistence=-1.0, persistence_dim_max=True)
        deaths = tree.persistence_intervals_in_dimension(0)[:, 1]
        same("gudhi", np.sort(deaths[np.isfinite(deaths)]) + 1, forest.ranks)


def check_kernel(rng: np.random.Generator) -> None:
    """Compare what is said of one convolution kernel."""
    conv = naive_convolution.random_conv(rng)
    size = math.prod(conv.weight_shape)
    dtype = DTYPES[rng.integers(len(DTYPES))]
    if dtype == "scaled":
        dtype = "float32"
    kernel = _typed(_values(1, size, rng), dtype, rng).reshape(conv.weight_shape)
    with np.errstate(all="ignore"):
        kernel = np.where(np.isfinite(kernel.astype(np.float64)), kernel, np.zeros((), kernel.dtype))
    mask = rng.random(conv.weight_shape) < 0.6 if rng.random() < 0.3 else None
    zeros = "edge" if rng.random() < 0.3 else "absent"
    sizes = np.abs(kernel.astype(np.float64))
    found = critical_kernel_weights(kernel, conv, mask, zeros=zeros)
    same("multiplicities", found.multiplicities.ravel(), naive_convolution.critical(conv, sizes, mask, zeros))


# -- blocks ----------------------------------------------------------------------------------------------------------


@contextmanager
def engine(case: Case, rng: np.random.Generator) -> Iterator[None]:
    """Let numpy answer, or the kernels, with pieces and limits that make small layers go every way."""
    if case.numpy_only:
        with patch.object(spanning, "_NUMPY_BUDGET", NumpyBudget("a module that nobody loads", 2**62)):
            yield
        return
    kind = rng.random()
    changed: dict[str, Any] = {"THREADS": 3 if kind < 0.04 else 1}
    if kind < 0.5:
        changed |= {"_CELLS_PER_CHUNK": int(rng.integers(1, 60)), "_CELLS_PER_COPY": int(rng.integers(1, 60))}
        changed |= {"_ROOM": int(rng.integers(0, 64))}
    if 0.25 < kind < 0.75:
        wanted = [lambda keys: max(keys.shape), lambda keys: 1 + keys.size // 5, lambda keys: 1 + keys.size // 20]
        changed |= {"_wanted": wanted[rng.integers(3)], "_CROWD": int(rng.integers(1, 9))}
    if 0.4 < kind < 0.5:
        changed |= {"_LIMIT": 0.5}
    if 0.3 < kind < 0.6:
        changed |= {"_SAMPLED_HITS": int(rng.integers(1, 64))}
    old = {name: getattr(machine, name) for name in changed}
    scaled_cells = spanning._SCALED_CELLS
    spanning._SCALED_CELLS = 0
    for name, value in changed.items():
        setattr(machine, name, value)
    try:
        yield
    finally:
        spanning._SCALED_CELLS = scaled_cells
        for name, value in old.items():
            setattr(machine, name, value)


def run_block(seed: int, block: int, counts: Counter[str]) -> list[str]:
    """Check the cases of a block; return what differs."""
    differences: list[str] = []
    rng = np.random.default_rng((seed, block, 1))
    forests: list[tuple[int, NDArray[np.int64], Truth, tuple[int, int]]] = []
    for place, case in enumerate(cases_of(seed, block)):
        try:
            with engine(case, rng):
                found = check(case, place, counts)
        except Exception as error:  # whatever is raised is a difference
            differences.append(f"seed {seed} block {block} place {place}: {case.about}: {error!r}")
            continue
        kind = "numpy" if case.numpy_only else "kernels"
        counts[f"{kind}, {'scaled' if case.is_scaled else case.weights.dtype.name}"] += 1
        if found is not None:
            forests.append((place, *found, case.sizes.shape))
    for kernel in range(BLOCK // 25):
        counts["convolutions"] += 1
        try:
            check_kernel(np.random.default_rng((seed, block, 2, kernel)))
        except Exception as error:
            differences.append(f"seed {seed} block {block} kernel {kernel}: {error!r}")
    differences += [f"seed {seed} block {block} place {place}: scipy differs" for place in _not_as_scipy(forests)]
    counts["scipy"] += len(forests)
    return differences


def _not_as_scipy(forests: list[tuple[int, NDArray[np.int64], Truth, tuple[int, int]]]) -> Iterator[int]:
    """Yield the places of forests that are not scipy's, which finds those of all layers of a block at once."""
    rows, columns, ranks, ours, starts = [], [], [], [], [0]
    for _, cells, truth, (m, n) in forests:
        start = starts[-1]
        rows.append(start + truth.order // n)
        columns.append(start + m + truth.order % n)
        ranks.append(np.arange(1.0, truth.order.size + 1))
        ours.append((start + cells // n, start + m + cells % n))
        starts.append(start + m + n)
    if not forests:
        return
    size = starts[-1]
    entries = np.concatenate(ranks), (np.concatenate(rows), np.concatenate(columns))
    tree = minimum_spanning_tree(csr_array(entries, shape=(size, size))).tocoo()
    theirs = set((np.minimum(*tree.coords).astype(np.int64) * size + np.maximum(*tree.coords)).tolist())
    for (place, *_), (i, j) in zip(forests, ours, strict=True):
        mine = (i * size + j).tolist()
        if not theirs.issuperset(mine):
            yield place
        theirs -= set(mine)
    if theirs:
        yield -1  # edges that none of ours has


@contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    """Count how often each part of the engine is called."""

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[f"path {name}"] += 1
            return function(*args, **kwargs)

        return call

    old = {name: getattr(machine, name) for name in PATHS}
    plain, scaled = spanning._plain_edges, machine.kernels.collect_scaled
    for name, function in old.items():
        setattr(machine, name, wrapped(name, function))
    spanning._plain_edges = wrapped("_plain_edges", plain)
    machine.kernels.collect_scaled = wrapped("collect_scaled", scaled)
    try:
        yield
    finally:
        for name, function in old.items():
            setattr(machine, name, function)
        spanning._plain_edges, machine.kernels.collect_scaled = plain, scaled


def run(folder: Path, cases: int, seconds: float, seed: int) -> dict[str, Any]:
    """Go on with the run of a folder until there are so many cases or so many seconds are over; return its state."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.json"
    state = json.loads(path.read_text()) if path.exists() else {"seed": seed, "blocks": 0, "seconds": 0.0, "counts": {}}
    counts: Counter[str] = Counter(state["counts"])
    end = time.monotonic() + seconds
    with counted(counts):
        while counts["cases"] < cases and time.monotonic() < end:
            start = time.monotonic()
            differences = run_block(state["seed"], state["blocks"], counts)
            counts["cases"] += BLOCK + BLOCK // 25
            counts["differences"] += len(differences)
            if differences:
                with (folder / "differences.txt").open("a") as file:
                    file.writelines(f"{line}\n" for line in differences)
            state["blocks"] += 1
            state["seconds"] += time.monotonic() - start
            state["counts"] = dict(sorted(counts.items()))
            path.with_suffix(".part").write_text(json.dumps(state, indent=1))
            path.with_suffix(".part").replace(path)
    return state


def main() -> int:
    """Run as the command line says, and print the state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10**6)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    state = run(arguments.folder, arguments.cases, arguments.seconds, arguments.seed)
    print(json.dumps(state, indent=1))
    return bool(state["counts"].get("differences"))


if __name__ == "__main__":
    sys.exit(main())
