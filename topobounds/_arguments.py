"""The house grammar of errors: argument, rule, what was given.

Every face checks its own arguments with these functions, so that one mistake reads the same whether it was made in
Python or on the command line: ``Argument 'm' must be a positive integer, not 0.``
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsFloat, SupportsIndex


def argument_error(name: str, rule: str, given: object) -> ValueError:
    """Return the error for an argument that breaks a rule.

    Parameters
    ----------
    name : str
        The argument as the caller spells it.
    rule : str
        What the argument must be, without the full stop.
    given : object
        What it is; shown with ``repr``.

    Returns
    -------
    ValueError
        To be raised by the caller.
    """
    return ValueError(f"Argument '{name}' must be {rule}, not {given!r}.")


def integer(name: str, value: SupportsIndex | Any, low: int, high: int | None = None) -> int:
    """Return `value` as an integer in ``[low, high]``; booleans and floats are refused.

    Raises
    ------
    ValueError
        If `value` is no integer, or lies outside the range.
    """
    rule = {0: "a non-negative integer", 1: "a positive integer"}.get(low, f"an integer of at least {low}")
    if high is not None:
        rule = f"an integer from {low} to {high}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise argument_error(name, rule, value)
    number = operator.index(value)
    if number < low or (high is not None and number > high):
        raise argument_error(name, rule, number)
    return number


def real(name: str, value: SupportsFloat | Any, rule: str, low: float, high: float, *, open_low: bool = False) -> float:
    """Return `value` as a float in ``[low, high]``, or ``(low, high]`` with `open_low`; NaN is refused.

    Raises
    ------
    ValueError
        If `value` is no real number, or lies outside the range.
    """
    if isinstance(value, str | bytes | bool) or not hasattr(value, "__float__"):
        raise argument_error(name, rule, value)
    number = float(value)
    if math.isnan(number) or not low <= number <= high or (open_low and number == low):
        raise argument_error(name, rule, value)
    return number


def density_fraction(name: str, value: SupportsFloat | Any) -> float:
    """Return `value` as a density, a real number in (0, 1].

    Raises
    ------
    ValueError
        If it is not one.
    """
    return real(name, value, "a number in (0, 1]", 0.0, 1.0, open_low=True)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of `allowed`.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not isinstance(value, str) or value not in allowed:
        raise argument_error(name, "one of " + ", ".join(repr(a) for a in allowed), value)
    return value
