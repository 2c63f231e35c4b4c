"""Compiled kernels: bare arrays in, counts out. The only folder that imports numba.

A kernel is handed everything it works on, checks nothing, and calls only kernels of its own file: numba's cache of a
compiled function does not notice an edit in another file.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


class _Cache(FunctionCache):
    """numba's cache of a function, done without where its files cannot be read or written: no room, no permission."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            yield


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a kernel when it is first called, and keep what was compiled where there is a place for it.

    The place is numba's choice: ``NUMBA_CACHE_DIR``, beside the source, or the user's cache. Where none of them can be
    written, every process compiles anew. Under ``NUMBA_DISABLE_JIT`` the kernel stays what it is, a Python function.
    """
    kernel = numba.njit(function, nogil=True)
    if kernel is not function:
        with suppress(RuntimeError):  # numba has no place for a cache
            kernel._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return kernel


inlined = numba.njit(inline="always")
"""Compiles a function into the kernels of its file that call it."""
