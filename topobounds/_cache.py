"""The last results of a function, kept for all threads."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def cached(maxsize: int) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Return a decorator that keeps the last results of a function, each computed once whatever the threads.

    `functools.lru_cache` lets two threads that ask for the same at the same time compute it twice.

    Parameters
    ----------
    maxsize : int
        Results that are kept.

    Examples
    --------
    >>> @cached(8)
    ... def square(number: int) -> int:
    ...     print("computed")
    ...     return number * number
    >>> square(3), square(3)
    computed
    (9, 9)
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        results: Any = lru_cache(maxsize)(function)  # that the arguments are hashable is the caller's to know
        locks: defaultdict[Hashable, Lock] = defaultdict(Lock)

        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with locks[args, tuple(kwargs.items())]:
                found: Result = results(*args, **kwargs)
                return found

        call.cache_clear = results.cache_clear  # type: ignore[attr-defined]
        return call

    return decorate
