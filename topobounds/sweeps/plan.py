"""The plan of a sweep: grids of points, each a question with its parameters and a seed of its own."""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topobounds._arguments import argument_error, choice, integer, spelled
from topobounds._files import parsed_toml, read_regular
from topobounds.sweeps.questions import question, question_names

_Value = str | int | float | bool
_LONGEST_PLAN = 2**20  # bytes
MOST_POINTS = 10**6
"""Points of a sweep that is no slip of the finger."""
_LARGEST_SEED = 2**53 - 1  # that every reader of JSON and SQLite keeps to the last digit
_LARGEST_PLAN = 2**53 - 1  # points that can be counted, and more than any engine answers
_RANGE = ("from", "to", "step")


@dataclass(frozen=True)
class Point:
    """One question.

    Attributes
    ----------
    question : str
        ``"overlap"``.
    parameters : dict
        What is asked, the seed included where the answer is drawn.
    """

    question: str
    parameters: dict[str, _Value]

    @property
    def key(self) -> bytes:
        """What tells the point from all others: a hash of the question and the parameters, 16 bytes."""
        text = json.dumps([self.question, self.parameters], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).digest()[:16]


@dataclass(frozen=True)
class Grid:
    """All combinations of some values of the parameters of a question.

    Attributes
    ----------
    question : str
        What is asked at each point.
    axes : dict of str to sequence
        For each parameter the values that it takes; the last one varies fastest.
    """

    question: str
    axes: dict[str, Sequence[_Value]]

    def __len__(self) -> int:
        return math.prod(map(len, self.axes.values()))

    def points(self, seed: int) -> Iterator[Point]:
        """Yield the points; where the question draws and the grid has no seed, each has one of its own from `seed`."""
        draws = question(self.question).draws and "seed" not in self.axes
        for values in itertools.product(*self.axes.values()):
            parameters = dict(zip(self.axes, values, strict=True))
            if draws:
                parameters["seed"] = _seed_of(Point(self.question, parameters), seed)
            yield Point(self.question, parameters)


@dataclass(frozen=True)
class SweepPlan:
    """Grids of points, and the seed from which each point has its own.

    Attributes
    ----------
    grids : tuple of Grid
        At least one.
    seed : int
        From 0 to 2^53 - 1.
    """

    grids: tuple[Grid, ...]
    seed: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.grids))

    def points(self) -> Iterator[Point]:
        """Yield all points; one that is in two grids comes twice."""
        for grid in self.grids:
            yield from grid.points(self.seed)

    def distinct_points(self) -> Iterator[Point]:
        """Yield all points, each once."""
        if len(self.grids) == 1:
            yield from self.points()
            return
        seen: set[bytes] = set()
        for point in self.points():
            if (key := point.key) not in seen:
                seen.add(key)
                yield point

    @cached_property
    def n_distinct(self) -> int:
        """How many points there are, each counted once."""
        return len(self) if len(self.grids) == 1 else sum(1 for _ in self.distinct_points())

    @property
    def text(self) -> str:
        """The plan as JSON: two plans with one text ask the same."""
        grids = [{"question": g.question, "axes": {k: _short(v) for k, v in g.axes.items()}} for g in self.grids]
        return json.dumps({"seed": self.seed, "grids": grids}, sort_keys=True)

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> "SweepPlan":
        """Read a plan from a TOML file.

        Parameters
        ----------
        file : path
            As docs/sweep.md describes it.

        Raises
        ------
        ValueError
            If it is no TOML, or no plan.
        OSError
            If it cannot be read.
        """
        content = read_regular(file, _LONGEST_PLAN)
        try:
            plan = parsed_toml(content)
        except ValueError as error:
            raise ValueError(f"{os.fspath(file)} is no TOML: {error}") from None
        try:
            return cls.of(plan)
        except ValueError as error:
            raise ValueError(f"{os.fspath(file)}: {error}") from None

    @classmethod
    def from_text(cls, text: str) -> "SweepPlan":
        """Return the plan whose `text` this is."""
        plan = json.loads(text)
        grids = [Grid(each["question"], {k: _long(v) for k, v in each["axes"].items()}) for each in plan["grids"]]
        return cls(tuple(grids), plan["seed"])

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> "SweepPlan":
        """Return the plan that a mapping describes, as TOML reads it.

        Raises
        ------
        ValueError
            If a key is unknown, or a value makes no sense.

        Examples
        --------
        >>> plan = SweepPlan.of({"grid": [{"question": "overlap", "m": [3, 4], "n": {"from": 2, "to": 10, "step": 4}}]})
        >>> len(plan), next(plan.points()).parameters["n"]
        (6, 2)
        """
        for key in plan:
            choice("key", spelled(key, ("seed", "grid")), ("seed", "grid"))
        grids = plan.get("grid")
        if not isinstance(grids, list) or not grids:
            raise argument_error("grid", "at least one table [[grid]]", grids)
        found = cls(tuple(map(_grid, grids)), integer("seed", plan.get("seed", 0), 0, _LARGEST_SEED))
        n_points = sum(math.prod(map(len, grid.axes.values())) for grid in found.grids)
        if n_points > _LARGEST_PLAN:
            raise argument_error("grid", f"tables of at most {_LARGEST_PLAN:,} points", f"{n_points:,}")
        return found


def _grid(table: Any) -> Grid:
    if not isinstance(table, dict):
        raise argument_error("grid", "a table [[grid]]", table)
    name = choice("question", table.get("question"), question_names())
    asked = question(name)
    given = {key: value for key, value in table.items() if key != "question"}
    for key in given:
        choice(f"key of a grid of {name}", key, asked.parameters)
    missing = [key for key in asked.required if key not in given]
    if missing:
        raise ValueError(f"A grid of {name} needs {', '.join(missing)}.")
    return Grid(name, {key: _values(key, value) for key, value in given.items()})


def _values(key: str, value: Any) -> Sequence[_Value]:
    """Return the values that a parameter takes: those of a list, of a range of integers, or one."""
    if isinstance(value, dict):
        first, last, step = _range(key, value)
        return range(first, last + 1, step)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise argument_error(key, "at least one value", value)
    for each in values:
        if not isinstance(each, str | int | float) or (isinstance(each, float) and not math.isfinite(each)):
            raise argument_error(key, "a number, a text, or a list of them", each)
    if len(set(map(repr, values))) < len(values):
        raise argument_error(key, "values that differ", value)
    return values


def _range(key: str, table: dict[str, Any]) -> tuple[int, int, int]:
    for name in table:
        choice(f"key of {key}", name, _RANGE)
    for name in _RANGE[:2]:
        if name not in table:
            raise argument_error(key, "a range {from = 1, to = 9, step = 2} of integers, both ends in it", table)
    first = integer(f"{key}.from", table["from"], 0)
    last = integer(f"{key}.to", table["to"], first, _LARGEST_SEED)
    return first, last, integer(f"{key}.step", table.get("step", 1), 1)


def _short(values: Sequence[_Value]) -> Any:
    return {"range": [values.start, values.stop, values.step]} if isinstance(values, range) else list(values)


def _long(values: Any) -> Sequence[_Value]:
    return range(*values["range"]) if isinstance(values, dict) else values


def _seed_of(point: Point, seed: int) -> int:
    """Return a seed that depends on the point and the plan's seed alone, not on its place in the plan."""
    digest = hashlib.sha256(point.key + seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:8], "big") & _LARGEST_SEED
