"""Ask the points of a plan over an executor, and keep the rows."""

import itertools
import json
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from topobounds._arguments import argument_error, file_name, integer
from topobounds._parallel import MOST_JOBS, MOST_LOST, process_pool, processors
from topobounds._records import Record
from topobounds._text import counted
from topobounds.runs.locks import lock
from topobounds.sweeps.plan import MOST_POINTS, Point, SweepPlan
from topobounds.sweeps.questions import question as question_of
from topobounds.sweeps.store import Row, Store

Progress = Callable[[int, int], None]
_LOCK = "sweep.lock"
_UNIT_SECONDS = 1.0  # that a unit of work takes
_MOST_IN_A_UNIT = 2000  # points
_WORTH_A_POOL = 4.0  # seconds of work for which processes are started
_MOST_GIVEN_UP = 3
"""Points in a row that fail so before it is the workers that are to blame, and the sweep is broken off."""


@dataclass(frozen=True)
class SweepResult(Record):
    """How far a sweep is.

    Attributes
    ----------
    folder : str
        Where its rows are.
    points, done, failed : int
        Points of the plan, each once; those that have an answer; those that were asked and have none.
    rate : float or None
        Points a second, of the last thousand.
    seconds_left : float or None
        At that rate.
    salvaged : str or None
        What was damaged in the folder when it was opened, and what became of it.
    errors : dict of str to int
        Why points failed, the question first, and how many: the ten commonest.
    """

    folder: str
    points: int
    done: int
    failed: int
    rate: float | None
    seconds_left: float | None
    salvaged: str | None = None
    errors: dict[str, int] = field(default_factory=dict)


def sweep(
    plan: SweepPlan | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    large: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Ask every point of a plan that has no answer yet.

    One plan gives one set of answers, whatever the executor, the order of work and the interruptions: each point has a
    seed of its own.

    Parameters
    ----------
    plan : SweepPlan or path
        What is asked, or the TOML file that says it.
    out : path
        The folder of the rows; made where it is missing, gone on with where it holds this plan's.
    executor : concurrent.futures.Executor, optional
        What does the work: of Dask ``Client.get_executor()``, of joblib, submitit, ``mpi4py.futures``. By default
        processes of this machine, where the work is worth them.
    jobs : int, optional
        Units of work at the same time; one for each processor by default, or for each worker that `executor` tells of.
    large : bool
        Whether the plan may have more than a million points.
    progress : callable, optional
        Called as ``progress(answered, points)``.

    Returns
    -------
    SweepResult
        How far it is, when all points have been asked.

    Raises
    ------
    ValueError
        If the plan is none, or too large.
    OSError
        If the folder holds another plan's rows, is in use by another process, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> plan = SweepPlan.of({"grid": [{"question": "overlap", "m": [5, 6], "n": [4, 7], "trials": 10}]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = sweep(plan, folder, jobs=1)
    >>> result.points, result.done, result.failed
    (4, 4, 0)
    """
    plan = plan if isinstance(plan, SweepPlan) else SweepPlan.read(plan)
    if len(plan) > MOST_POINTS and not large:
        raise argument_error("plan", f"at most {MOST_POINTS:,} points, unless large=True (--large)", f"{len(plan):,}")
    folder = Path(file_name("out", out))
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / _LOCK, 0.0), Store.create(folder, plan) as store:
        done = store.done()
        work = _Work(plan, store, done, progress)
        try:
            with _engine(executor, jobs, work) as (engine, at_once):
                work.finish(engine, at_once)
        finally:
            store.add_views()
        return _result(folder, plan, store)


def sweep_status(out: str | os.PathLike[str], plan: SweepPlan | None = None) -> SweepResult:
    """Return how far the sweep in a folder is.

    Parameters
    ----------
    out : path
        The folder.
    plan : SweepPlan, optional
        Its plan, where it is at hand.

    Returns
    -------
    SweepResult
        As `sweep` returns it.

    Raises
    ------
    OSError
        If the folder holds no sweep.

    Examples
    --------
    >>> sweep_status("nowhere")
    Traceback (most recent call last):
    topobounds.sweeps.store.StoreError: nowhere holds no sweep: results.sqlite is missing.
    """
    folder = Path(file_name("out", out))
    with Store.open(folder) as store:
        return _result(folder, plan or SweepPlan.from_text(str(store.plan_text)), store)


def _result(folder: Path, plan: SweepPlan, store: Store) -> SweepResult:
    counts, rate = store.counts(), store.rate()
    points = plan.n_distinct
    left = points - counts["done"]
    return SweepResult(
        folder=str(folder),
        points=points,
        done=counts["done"],
        failed=counts["failed"],
        rate=rate,
        seconds_left=0.0 if not left else left / rate if rate else None,
        salvaged=store.salvaged,
        errors=store.errors(),
    )


def answer_points(points: Sequence[tuple[str, dict[str, Any]]]) -> list[Row]:
    """Answer points, one after the other: the unit of work. What a point raises is its row's error.

    Parameters
    ----------
    points : sequence of (str, dict)
        Questions and their parameters.
    """
    rows = []
    for question, parameters in points:
        answer, error = None, None
        began = time.perf_counter()
        try:
            answer = json.dumps(question_of(question).answer(**parameters), allow_nan=False)
        except (ValueError, TypeError, ArithmeticError, OSError, MemoryError, ImportError) as raised:
            error = " ".join(str(raised).split()) or type(raised).__name__
        rows.append(_row(Point(question, parameters), answer, error, time.perf_counter() - began))
    return rows


def _row(point: Point, answer: str | None, error: str | None, seconds: float) -> Row:
    return Row(
        key=point.key,
        question=point.question,
        parameters=json.dumps(point.parameters, sort_keys=True),
        status="done" if error is None else "failed",
        answer=answer,
        error=error,
        seconds=seconds,
        worker=f"{platform.node()}:{os.getpid()}",
        **_versions(),
        finished=time.time(),
    )


@cache
def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("topobounds", "numpy")}
    return {**packages, "python": platform.python_version()}


class _Here(Executor):
    """Does the work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _engine(executor: Executor | None, jobs: int | None, work: "_Work") -> Iterator[tuple[Executor, int]]:
    """Yield what does the work, and how many units it works on at the same time."""
    asked = None if jobs is None else integer("jobs", jobs, 1, most=MOST_JOBS)
    if executor is not None:
        yield executor, asked or int(getattr(executor, "_max_workers", None) or processors())
        return
    at_once = asked or processors()
    if at_once > 1:
        work.finish(_Here(), 1, seconds=_UNIT_SECONDS)
    if at_once == 1 or work.seconds_left() < _WORTH_A_POOL:
        yield _Here(), 1
        return
    with process_pool(at_once) as pool:
        yield pool, at_once


@dataclass
class _Unit:
    """Points that are asked together, and how often the worker that had them was lost."""

    points: list[Point]
    lost: int = 0


class _Work:
    """The points of a plan that have no answer, cut into units."""

    def __init__(self, plan: SweepPlan, store: Store, done: set[bytes], progress: Progress | None) -> None:
        self.store, self.progress = store, progress
        self.total, self.answered = plan.n_distinct, len(done)
        self.points = (point for point in plan.distinct_points() if point.key not in done)
        self.again: deque[_Unit] = deque()
        self.suspects: deque[_Unit] = deque()
        """Single points that may be what their worker was lost by: each is asked while nothing else is."""
        self.given_up = 0
        self.asked, self.seconds = 0, 0.0
        self._report()

    def seconds_left(self) -> float:
        """Return about how long the rest takes in one process."""
        return (self.total - self.answered) * (self.seconds / self.asked if self.asked else _UNIT_SECONDS)

    def finish(self, executor: Executor, at_once: int, seconds: float = math.inf) -> None:
        """Ask what is left, or as much as there is time for; rows are written as they come."""
        until = time.monotonic() + seconds
        under_way: dict[Future[list[Row]], _Unit] = {}
        try:
            while True:
                # Twice as many units as can be worked on, so that no worker waits.
                while len(under_way) < 2 * at_once and (unit := self._next_unit(until, idle=not under_way)):
                    asked = [(point.question, point.parameters) for point in unit.points]
                    under_way[executor.submit(answer_points, asked)] = unit
                if not under_way:
                    return
                ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in ended:
                    self._take(future, under_way.pop(future))
        finally:
            for future in under_way:
                future.cancel()

    def _next_unit(self, until: float, *, idle: bool) -> _Unit | None:
        if self.suspects:
            return self.suspects.popleft() if idle else None
        if self.again:
            return self.again.popleft()
        aim = min(_UNIT_SECONDS, until - time.monotonic())
        if aim <= 0:
            return None
        each = self.seconds / self.asked if self.asked else _UNIT_SECONDS
        size = max(1, min(_MOST_IN_A_UNIT, int(aim / each) if each else _MOST_IN_A_UNIT))
        points = list(itertools.islice(self.points, size))
        return _Unit(points) if points else None

    def _take(self, future: "Future[list[Row]]", unit: _Unit) -> None:
        """Write the rows of a unit; ask again what was lost with its worker."""
        try:
            rows = future.result()
        except Exception as error:  # of the executor: what a point raises is in its row
            self._ask_again(unit, f"{type(error).__name__}: {error}")
            return
        self.given_up = 0
        self._keep(rows)

    def _ask_again(self, unit: _Unit, reason: str) -> None:
        """Ask lost points again: in halves, then one by one, and at last no more."""
        lost = unit.lost + 1
        if len(unit.points) > 1 and lost == 1:
            middle = len(unit.points) // 2
            self.again.extend(_Unit(points, lost) for points in (unit.points[:middle], unit.points[middle:]))
        elif len(unit.points) > 1 or lost < MOST_LOST:
            self.suspects.extend(_Unit([point], lost) for point in unit.points)
        else:
            text = " ".join(f"Its worker was lost {counted(lost, 'time')}, the last time by {reason}".split())
            self.given_up += 1
            if self.given_up == _MOST_GIVEN_UP:
                raise ChildProcessError(f"{text} What is done is kept: go on with the same command.")
            (point,) = unit.points
            self._keep([_row(point, None, text, 0.0)])

    def _keep(self, rows: list[Row]) -> None:
        self.store.add(rows)
        self.asked += len(rows)
        self.seconds += sum(row.seconds for row in rows)
        self.answered += sum(row.error is None for row in rows)
        self._report()

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(self.answered, self.total)
