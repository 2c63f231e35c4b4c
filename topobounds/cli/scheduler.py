"""Work in other processes: the options ``--jobs`` and ``--scheduler``, of a cluster that is there already."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

import click

from topobounds._arguments import argument_error

CONNECT_SECONDS = 10
_WATCH_SECONDS = 10


@contextmanager
def executor_of(jobs: int | None, scheduler: str | None) -> Iterator[Executor | None]:
    """Yield the executor of so many processes, or of a Dask scheduler; None where this process does the work.

    Raises
    ------
    click.UsageError
        If both are given, or as `executor_at`.
    ValueError
        As `executor_at`.
    """
    refuse_both(jobs, scheduler)
    if scheduler is None and jobs is not None and jobs > 1:
        from topobounds._parallel import process_pool

        with process_pool(jobs) as pool:
            yield pool
        return
    with executor_at(scheduler) as (executor, _):
        yield executor


def refuse_both(jobs: int | None, scheduler: str | None) -> None:
    """Refuse a number of processes of this machine beside a cluster."""
    if scheduler is not None and jobs is not None:
        raise click.UsageError("--jobs is for this machine; with --scheduler its workers decide.")


@contextmanager
def executor_at(address: str | None) -> Iterator[tuple[Executor | None, int | None]]:
    """Yield the executor of a Dask scheduler and how many units its workers work on at a time; None without an address.

    Raises
    ------
    click.UsageError
        If distributed is not installed.
    ValueError
        If there is no scheduler at that address, or it has no worker.
    """
    if address is None:
        yield None, None
        return
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ModuleNotFoundError:
        raise click.UsageError(
            "--scheduler needs distributed, which is not installed: in a clone of topobounds, "
            "pip install '.[scheduler]'."
        ) from None
    try:
        get_address_host_port(address)  # a client that finds it wrong tries for 20 s to close, and prints a traceback
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        rule = "the address of a Dask scheduler that answers, such as tcp://127.0.0.1:8786"
        raise argument_error("--scheduler", rule, address) from error
    try:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise argument_error("--scheduler", "the address of a scheduler with workers", address) from None
        threads = sum(client.ncores().values())
        with _watched(client, address):
            yield client.get_executor(pure=False), threads
    finally:
        client.close(timeout=CONNECT_SECONDS)


@contextmanager
def _watched(client: Any, address: str) -> Iterator[None]:
    """Say on stderr where all workers are gone: Dask waits for new ones, in silence and without end."""
    is_over = threading.Event()

    def watch() -> None:
        is_told = False
        while not is_over.wait(_WATCH_SECONDS):
            try:
                has_workers = bool(client.ncores())
            except Exception:  # the scheduler is gone, which those who wait for results hear of
                continue
            if not has_workers and not is_told:
                click.echo(f"{address} has no workers left; waiting for new ones. Ctrl-C gives up.", err=True)
            is_told = not has_workers

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
