"""One process at a time compiles a kernel, and the others take what it then keeps: numba's cache has no lock."""

import fcntl
from pathlib import Path

from numba import config
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher


def install():
    """Have every kernel of this process that is kept in numba's cache wait for the processes that compile it.

    A lock of a file is free again when its process ends, however it ends. numba's own lock is taken first: another
    thread may hold it, and want a kernel that this one has locked.
    """
    at_once = Dispatcher.compile
    folder = Path(config.CACHE_DIR)
    folder.mkdir(parents=True, exist_ok=True)

    def in_turn(kernel, signature):
        if not isinstance(kernel._cache, FunctionCache):
            return at_once(kernel, signature)
        name = f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}.lock"
        with global_compiler_lock, (folder / name).open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            return at_once(kernel, signature)

    Dispatcher.compile = in_turn
