"""Mutation testing: the source changed in one place at a time, to see whether a test notices.

``python -m tests.attack.mutation --mutants 300 --seconds 5400 --folder FOLDER`` draws changes of cosmic-ray's from a
seed, makes them one after the other in a copy of the repository in FOLDER, runs the quick tests of the module that is
changed, and writes to FOLDER/results.jsonl what came of it; it goes on where it ended, unless the source or the seed is
another, which draws other changes. Kernels run as plain Python (`tests.attack.twins`), so that a change need not be
compiled.
"""

import argparse
import ast
import collections
import json
import math
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT = 90  # seconds that the tests of a mutant may take; longer is an endless loop, which a test run notices
SHARES = {"_kernels": 3, "topology": 3, "theory": 3, "pruning": 1}
KERNELS = (
    "spanning",
    "magnitudes",
    "squares",
    "tied_graph",
    "selection",
)  # that `tests.attack.test_twins` goes through
WRITTEN_FOR_LLVM = ("generate", "_splat", "_load", "_keys", "_unsigned")

TESTS = {
    "_kernels": ["tests/attack/test_twins.py"],
    "_kernels/magnitudes": ["tests/chance/test_magnitudes.py", "tests/attack/test_twins.py"],
    "_kernels/squares": [
        "tests/attack/test_twins.py::test_magnitudes_and_moments_are_those_of_numpy",
        "tests/attack/test_twins.py::test_moments_of_codes_whose_scales_change_in_the_midst_of_lines",
        "tests/attack/test_twins.py::test_one_code_that_is_not_finite_is_met_wherever_it_stands",
    ],
    "_kernels/spanning": [
        "tests/topology/test_few_levels.py::test_levels_one_after_the_other_join_what_kruskals_algorithm_joins",
        "tests/topology/test_few_levels.py::test_ranks_in_the_midst_of_long_ties",
        "tests/attack/test_twins.py",
    ],
    "_kernels/tied_graph": ["tests/topology/test_recurrent.py", "tests/topology/test_convolution.py"],
    "_kernels/selection": ["tests/pruning/test_selection.py"],
    "topology/spanning_engine": [
        "tests/attack/test_twins.py",
        "tests/topology/test_spanning_fast.py::test_the_largest_that_come_with_a_forest_are_those_of_sorting",
        "tests/topology/test_few_levels.py",
    ],
    "topology/key_matrix": ["tests/attack/test_twins.py", "tests/topology/test_few_levels.py", "tests/test_weights.py"],
    "topology/spanning": ["tests/topology/test_spanning.py", "tests/attack/test_twins.py"],
    "topology/filtration": ["tests/topology/test_spanning.py", "tests/topology/test_persistence.py"],
    "topology/forest": ["tests/topology/test_spanning.py", "tests/topology/test_deficit.py"],
    "topology/tied_graph": ["tests/topology/test_convolution.py", "tests/topology/test_recurrent.py"],
    "topology/moments": ["tests/chance/test_magnitudes.py", "tests/attack/test_twins.py", "tests/test_weights.py"],
    "topology/convolution": ["tests/topology/test_deficit.py", "tests/topology/test_convolution.py"],
    "topology/recurrent": ["tests/topology/test_deficit.py", "tests/topology/test_recurrent.py"],
    "topology/network": ["tests/topology/test_deficit.py", "tests/topology/test_network.py"],
    "theory/counting": ["tests/theory/test_counting.py", "tests/theory/test_deviation.py"],
    "theory/_components": ["tests/theory/test_enclosure.py", "tests/attack/test_enclosures.py"],
    "theory/_balls": ["tests/theory/test_enclosure.py", "tests/attack/test_enclosures.py"],
    "theory/_logarithms": ["tests/theory/test_enclosure.py", "tests/attack/test_enclosures.py"],
    "theory/_rounding": ["tests/theory/test_enclosure.py", "tests/attack/test_enclosures.py"],
    "theory/enclosure": ["tests/theory/test_enclosure.py", "tests/attack/test_enclosures.py"],
    "theory/overlap": ["tests/theory/test_overlap.py", "tests/theory/test_enclosure.py"],
    "theory/bounds": ["tests/theory/test_overlap.py", "tests/attack/test_enclosures.py"],
    "theory/ranks": ["tests/theory/test_persistence.py", "tests/attack/test_enclosures.py"],
    "theory/critical_rank": ["tests/theory/test_critical_rank.py", "tests/theory/test_critical_rank_quantiles.py"],
    "theory/random_kernels": ["tests/theory/test_random_kernels.py", "tests/theory/test_wide_kernels.py"],
    "pruning": ["tests/test_pruning.py", "tests/pruning"],
}


# -- what is drawn ---------------------------------------------------------------------------------------------------


def modules(room: str) -> list[Path]:
    """Return the modules of a room that are changed, from the root of the repository."""
    found = sorted((ROOT / "topobounds" / room).glob("*.py"))
    kept = [file for file in found if file.stem != "__init__" and (room != "_kernels" or file.stem in KERNELS)]
    return [file.relative_to(ROOT) for file in kept]


def drawn(mutants: int, seed: int) -> list[dict[str, Any]]:
    """Return the changes to be made, in the order in which they are: those of all rooms in turn."""
    rng = random.Random(seed)
    chosen: list[list[dict[str, Any]]] = []
    for room, share in SHARES.items():
        every = [each for module in modules(room) for each in changes(module)]
        chosen.append(rng.sample(every, min(len(every), math.ceil(mutants * share / sum(SHARES.values())))))
    return sorted((each for part in chosen for each in part), key=lambda each: rng.random())[:mutants]


def changes(module: Path) -> list[dict[str, Any]]:
    """Return the changes that cosmic-ray knows for a module, but for those of what is not run: types, text for LLVM."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import WorkDB, use_db

    unread = _not_run(ROOT / module)
    with use_db(":memory:", mode=WorkDB.Mode.create) as database:
        init([ROOT / module], database, {})
        specs = [mutation for item in database.work_items for mutation in item.mutations]
    return [
        {
            "module": str(module),
            "operator": spec.operator_name,
            "arguments": dict(spec.operator_args or {}),
            "occurrence": spec.occurrence,
            "line": spec.start_pos[0],
            "where": spec.definition_name,
        }
        for spec in sorted(specs, key=lambda spec: (spec.operator_name, spec.occurrence))
        if not any(first <= tuple(spec.start_pos) < last for first, last in unread)
    ]


def _not_run(file: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where annotations, imports for types, decorators and functions written for LLVM begin and end."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
        if isinstance(node, ast.FunctionDef):
            found += [node.returns, *node.decorator_list]
            names = [getattr(each, "id", "") for each in node.decorator_list]
            if "_intrinsic" in names or node.name in WRITTEN_FOR_LLVM:
                found.append(node)
        if isinstance(node, ast.ClassDef):
            found += node.decorator_list
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not node.col_offset:
            name = node.targets[0].id
            if name[0].isupper() and not name.isupper():  # of a type
                found.append(node)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            found.append(node)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)) for node in found if node is not None
    ]


def tests_of(module: str) -> list[str]:
    """Return the tests that are to notice a change of a module, the doctests of the module first."""
    place = module.removeprefix("topobounds/").removesuffix(".py")
    room = place.partition("/")[0]
    files = TESTS.get(place) or TESTS.get(room) or [f"tests/{place.replace('/', '/test_')}.py"]
    return [
        *([] if room == "_kernels" else [module]),
        *(test for test in files if (ROOT / test.partition("::")[0]).exists()),
    ]


# -- the run ---------------------------------------------------------------------------------------------------------


def run(folder: Path, mutants: int, seconds: float, seed: int) -> list[dict[str, Any]]:
    """Make the changes that are not made yet, until the time is over; return all results.

    Raises
    ------
    ValueError
        If the folder holds results of other changes than are drawn now.
    """
    from cosmic_ray.mutating import mutate_and_test
    from cosmic_ray.work_item import MutationSpec

    copy, results = folder / "copy", folder / "results.jsonl"
    planned = drawn(mutants, seed)
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if not _begin(done, planned):
        raise ValueError(f"{results} is of another source or seed, which draws other changes: give a new folder.")
    if not copy.exists():
        ignored = shutil.ignore_patterns(".git", ".venv", ".nox", "*.pyc", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
    os.environ["PYTHONPATH"] = str(copy)
    end = time.monotonic() + seconds
    os.chdir(copy)
    for change in planned[len(done) :]:
        if time.monotonic() > end:
            break
        start = time.monotonic()
        as_python = "/_kernels/" in change["module"]
        command = f"env NUMBA_DISABLE_JIT={int(as_python)} {sys.executable} -m pytest -x -q --tb=no "
        command += "-p no:xdist -p no:cacheprovider " + ("-p tests.attack.twins " if as_python else "")
        command += " ".join(tests_of(change["module"]))
        spec = MutationSpec(
            module_path=copy / change["module"],
            operator_name=change["operator"],
            operator_args=change["arguments"],
            occurrence=change["occurrence"],
            start_pos=(change["line"], 0),
            end_pos=(change["line"], 1),
        )
        result = mutate_and_test([spec], command, TIMEOUT)
        outcome = getattr(result.test_outcome, "value", str(result.worker_outcome))
        done.append({**change, "outcome": outcome, "seconds": round(time.monotonic() - start, 1), "diff": result.diff})
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    return done


def _begin(done: list[dict[str, Any]], planned: list[dict[str, Any]]) -> bool:
    """Whether results are those of the first of the planned changes."""
    return len(done) <= len(planned) and all(
        change.items() <= result.items() for result, change in zip(done, planned, strict=False)
    )


def main() -> int:
    """Run as the command line says; print how many were noticed, and the diffs of those that were not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    done = run(arguments.folder.resolve(), arguments.mutants, arguments.seconds, arguments.seed)
    for room in SHARES:
        outcomes = collections.Counter(each["outcome"] for each in done if f"topobounds/{room}/" in each["module"])
        print(f"{room}: {dict(outcomes)}")
    for each in done:
        if each["outcome"] == "survived":
            print(each["module"], each["line"], each["operator"], each["diff"], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
