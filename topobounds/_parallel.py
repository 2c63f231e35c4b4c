"""Pieces of work that do not depend on one another, one after the other or in processes of their own."""

import os
import platform
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from topobounds._arguments import integer

if TYPE_CHECKING:
    from topobounds._types import StepProgress  # which needs numpy

Piece = TypeVar("Piece", bound=Hashable)
_Item = TypeVar("_Item")
Result = TypeVar("Result")

MOST_JOBS = 1024
"""Processes at the same time that are not a slip of the finger."""
_CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the processors."""
POLL_SECONDS = 0.1
MOST_LOST = 4
"""Times that the worker of a piece may be lost, by being killed or for want of memory, before it is no more asked."""
WORKER_PATIENCE = 10.0
"""Seconds within which the processes of a caller that was killed have ended, too."""
_pieces_at_once = ContextVar("pieces_at_once", default=1)


def processors() -> int:
    """Return the processors that the operating system lets this process run on.

    Examples
    --------
    >>> processors() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return what the processor is called, as precisely as the operating system tells without a helper.

    Examples
    --------
    >>> len(processor_name()) > 0
    True
    """
    return _model_name() or platform.processor() or platform.machine() or "unknown"


def _model_name() -> str:
    """Return the first model name in `_CPUINFO`; empty where there is none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return next(names, "")


class Sharing:
    """Pieces of work that threads do at the same time: within each, `fair_share` of the processors is its own.

    Examples
    --------
    >>> sharing = Sharing()
    >>> with sharing.piece():
    ...     alone = fair_share(8)
    ...     with sharing.piece():
    ...         alone, fair_share(8)
    (8, 4)
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_pieces = 0

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Do one of the pieces, in the thread that enters."""
        with self._lock:
            self._n_pieces += 1
            token = _pieces_at_once.set(self._n_pieces)
        try:
            yield
        finally:
            _pieces_at_once.reset(token)
            with self._lock:
                self._n_pieces -= 1


def fair_share(threads: int) -> int:
    """Return how many of so many threads a piece of work should use itself, at least one; see `Sharing`."""
    return max(1, threads // _pieces_at_once.get())


def in_threads(function: Callable[[_Item], Result], items: Sequence[_Item]) -> list[Result]:
    """Apply a function that releases the lock to all items, on all cores that are this thread's to use.

    Returns
    -------
    list
        The results in the order of the items.

    Examples
    --------
    >>> in_threads(abs, [-1, 2])
    [1, 2]
    """
    threads = min(fair_share(processors()), len(items))
    if threads < 2:
        return [function(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor  # loads queues and logging

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def process_count(jobs: int | None, device: str) -> int:
    """Return how many processes `jobs` stands for: None for one on each processor, but one on a GPU, which all share.

    Raises
    ------
    ValueError
        If it is neither None nor an integer from 1 to `MOST_JOBS`.

    Examples
    --------
    >>> process_count(None, "cuda"), process_count(3, "cuda")
    (1, 3)
    """
    if jobs is None:
        return processors() if device == "cpu" else 1
    return integer("jobs", jobs, 1, most=MOST_JOBS)


def do_pieces(
    work: "Callable[[Piece, StepProgress], Any]", pieces: Sequence[Piece], jobs: int, report: "StepProgress"
) -> None:
    """Do all pieces of a work.

    Parameters
    ----------
    work : callable
        Called as ``work(piece, report)``. For processes it must be a function of a module, or a ``functools.partial``
        of one, and must not rely on what other pieces did.
    pieces : sequence
        What is to be done; hashable.
    jobs : int
        Processes at the same time, at least 1. Where one would do, there are none: the caller does the work.
    report : callable
        Called in the caller with the steps done of all pieces together.

    Raises
    ------
    Exception
        The first one that a piece raised. What other processes were doing is broken off then, and on Ctrl-C.
    ChildProcessError
        If a process ended without a word: killed, for want of memory as a rule.

    Notes
    -----
    Processes are spawned, so a script that asks for them needs ``if __name__ == "__main__":``. They end when the
    caller's process ends, however it ends.
    """
    done = dict.fromkeys(pieces, 0)

    def heard(piece: Piece, steps: int, message: str) -> None:
        done[piece] = steps
        report(sum(done.values()), message)

    if min(jobs, len(pieces)) > 1:
        _in_processes(work, pieces, min(jobs, len(pieces)), heard)
        return
    for piece in pieces:
        work(piece, partial(heard, piece))


@contextmanager
def process_pool(jobs: int) -> Iterator[Executor]:
    """Yield so many processes that wait for work, and end with the caller's process, however it ends.

    They are spawned, so a script that asks for them needs ``if __name__ == "__main__":``. Where one is killed, what all
    of them were doing is lost, and those that come next are new ones. Ctrl-C is the caller's to answer.
    """
    pool = _Processes(jobs)
    try:
        yield pool
    except BaseException:
        pool.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class Named(Protocol):
    """A piece of work that a message can name."""

    @property
    def name(self) -> str:
        """What it is called."""


_NamedPiece = TypeVar("_NamedPiece", bound=Named)


class ExecutorWork(Generic[_NamedPiece, Result]):
    """Pieces of work given to an executor, whose workers may be lost: what they had is asked again.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        What does the work.
    work : callable
        ``work(piece)``, a function of a module or a ``functools.partial`` of one. What it raises is raised to the
        caller, and not asked again.
    """

    def __init__(self, executor: Executor, work: Callable[[_NamedPiece], Result]) -> None:
        self._executor, self._work = executor, work

    def submit(self, piece: _NamedPiece) -> "Future[Any]":
        """Have a piece done; `result` awaits it."""
        try:
            return self._executor.submit(_attempted, self._work, piece)
        except Exception as error:  # of an executor that is broken
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def result(self, piece: _NamedPiece, future: "Future[Any]") -> Result:
        """Return what a piece that was submitted came to.

        Raises
        ------
        ChildProcessError
            If its worker was lost `MOST_LOST` times.
        Exception
            What the work raised.
        """
        reason = ""
        for lost in range(MOST_LOST):
            try:
                result, raised = (self.submit(piece) if lost else future).result()
            except Exception as error:  # of the executor: what the work raises is returned
                reason = f"{type(error).__name__}: {error}"
                continue
            if raised is not None:
                raise raised
            found: Result = result
            return found
        named = f"The worker of '{piece.name}' was lost {MOST_LOST} times, the last time by {reason}"
        raise ChildProcessError(" ".join(named.split()))

    def in_order(self, pieces: Sequence[_NamedPiece]) -> Iterator[Result]:
        """Yield what the pieces come to, in their order; what is left is given up where the caller stops.

        Raises
        ------
        Exception
            As `result`.
        """
        futures = [self.submit(piece) for piece in pieces]
        try:
            for piece, future in zip(pieces, futures, strict=True):
                yield self.result(piece, future)
        finally:
            for future in futures:
                future.cancel()


def _attempted(work: Callable[[_NamedPiece], Result], piece: _NamedPiece) -> tuple[Result | None, Exception | None]:
    """Return what a piece comes to and what it raises, so that what the executor raises is told from it."""
    try:
        return work(piece), None
    except Exception as error:  # raised again by the caller
        return None, error


class _Processes(Executor):
    """A pool of processes that is made anew when it is broken."""

    def __init__(self, jobs: int) -> None:
        import multiprocessing

        self._max_workers = jobs
        self._before = set(multiprocessing.active_children())
        self._pool = self._new_pool()

    def _new_pool(self) -> Executor:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._max_workers, mp_context=context, initializer=_begin, initargs=(None,))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        from concurrent.futures.process import BrokenProcessPool

        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = self._new_pool()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def terminate(self) -> None:
        """Break off what the processes are doing."""
        import multiprocessing

        for child in set(multiprocessing.active_children()) - self._before:
            child.terminate()


def _in_processes(
    work: "Callable[[Piece, StepProgress], Any]",
    pieces: Sequence[Piece],
    jobs: int,
    heard: Callable[[Piece, int, str], None],
) -> None:
    import multiprocessing
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")
    before, reports = set(multiprocessing.active_children()), context.SimpleQueue()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(reports,))
    try:
        left = {pool.submit(_do, work, piece) for piece in pieces}
        while left:
            ended, left = wait(left, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            while not reports.empty():
                heard(*reports.get())
            for future in ended:
                future.result()
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            message = "A worker process was killed, perhaps for want of memory: ask for fewer jobs."
            raise ChildProcessError(message) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_reports: Any = None


def _begin(reports: Any) -> None:
    """Make a process ready: Ctrl-C is the parent's to answer, and without a parent there is nothing to do."""
    import signal
    import threading

    global _reports  # noqa: PLW0603 -- how a process of the pool is handed what cannot be pickled with its work
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(work: "Callable[[Piece, StepProgress], Any]", piece: Piece) -> None:
    work(piece, lambda steps, message: _reports.put((piece, steps, message)))
