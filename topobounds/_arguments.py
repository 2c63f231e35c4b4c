"""The house grammar of errors: argument, rule, what was given.

Every public function checks its own arguments with these, so that one mistake reads the same whether it was made in
Python or on the command line: ``Argument 'm' must be a positive integer, not 0.``
"""

import difflib
import math
import operator
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, SupportsFloat, SupportsIndex, TypeGuard

from topobounds._text import shortened

MOST_TRIALS = 10**9  # of a simulation: hours, where one trial is short
MOST_NEURONS = 2**24  # of a layer that is summed up or sampled: some ten seconds each
LARGEST_SEED = 2**64 - 1


def argument_error(name: str, rule: str, given: object) -> ValueError:
    """Return the error for an argument that breaks a rule.

    Parameters
    ----------
    name : str
        The argument as the caller spells it.
    rule : str
        What the argument must be, without the full stop.
    given : object
        What it is; shown with ``repr``, the middle of a long one left out.

    Returns
    -------
    ValueError
        To be raised by the caller.
    """
    return ValueError(f"Argument '{name}' must be {rule}, not {_shown(given)}.")


def integer(
    name: str, value: SupportsIndex | Any, low: int, high: int | None = None, *, most: int | None = None
) -> int:
    """Return `value` as an integer in ``[low, high]``; booleans, floats and arrays with an axis are refused.

    `most` is an upper limit too, but one so far away that only what is beyond it is told.

    Raises
    ------
    ValueError
        If `value` is no integer, or lies outside the range.
    """
    rule = {0: "a non-negative integer", 1: "a positive integer"}.get(low, f"an integer of at least {low}")
    if high is not None:
        rule = f"an integer from {low} to {high}"
    if not is_integer(value):
        raise argument_error(name, rule, value)
    number = operator.index(value)
    if number < low or (high is not None and number > high):
        raise argument_error(name, rule, number)
    if most is not None and number > most:
        raise argument_error(name, f"at most {most}", number)
    return number


def is_integer(value: object) -> TypeGuard[SupportsIndex]:
    """Whether `value` is a single integer, Python's or the entry of an array; True and False are not taken for one."""
    if not _is_number(value):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # a tensor of floats has an __index__ too
        return False
    return True


def integers(name: str, one: str, values: Iterable[SupportsIndex] | Any, low: int, high: int) -> list[int]:
    """Return `values` as a list of integers in ``[low, high]``; `one` is what a single one is called.

    Raises
    ------
    ValueError
        If `values` cannot be gone through, or one of them is no integer of the range.
    """
    return [integer(one, value, low, high) for value in items(name, values, f"integers from {low} to {high}")]


def items(name: str, values: Any, elements: str) -> list[Any]:
    """Return `values` as a list; `elements` is what they are called in the error: ``"layers"``.

    Raises
    ------
    ValueError
        If `values` is no iterable, or is a str or bytes.
    """
    try:
        if isinstance(values, str | bytes):
            raise TypeError
        return list(values)
    except TypeError:
        raise argument_error(name, f"a sequence of {elements}", values) from None


def real(name: str, value: SupportsFloat | Any, rule: str, low: float, high: float, *, open_low: bool = False) -> float:
    """Return `value` as a float in ``[low, high]``, or ``(low, high]`` with `open_low`; NaN is refused.

    Raises
    ------
    ValueError
        If `value` is no real number, or lies outside the range.
    """
    if not _is_number(value) or isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise argument_error(name, rule, value)
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        raise argument_error(name, rule, value) from None
    if math.isnan(number) or not low <= number <= high or (open_low and number == low):
        raise argument_error(name, rule, value)
    return number


def boolean(name: str, value: object) -> bool:
    """Return `value` as True or False; nothing else stands for them.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if not isinstance(value, bool) and not (_is_boolean(value) and _is_scalar(value)):
        raise argument_error(name, "True or False", value)
    return bool(value)


def checked_seed(seed: int | None) -> int:
    """Return a seed, drawn where there is none.

    Raises
    ------
    ValueError
        If it is out of range.
    """
    return secrets.randbits(32) if seed is None else integer("seed", seed, 0, LARGEST_SEED)


def checked_trials(trials: int | None) -> int | None:
    """Return a number of random orders: None, 0, or at least 2.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if trials is None:
        return None
    count = integer("trials", trials, 0, most=MOST_TRIALS)
    if count == 1:
        raise argument_error("trials", "0 or at least 2, for one order has no spread", trials)
    return count


def check_neurons(m: int, n: int) -> None:
    """Refuse a layer of so many rows and columns that what is in proportion to them takes too long.

    Raises
    ------
    ValueError
        If m + n is more than `MOST_NEURONS`.
    """
    if m + n > MOST_NEURONS:
        raise ValueError(f"Arguments 'm' and 'n' must add up to at most {MOST_NEURONS}, not {m + n}.")


def density_fraction(name: str, value: SupportsFloat | Any) -> float:
    """Return `value` as a density, a real number in (0, 1].

    Raises
    ------
    ValueError
        If it is not one.
    """
    return real(name, value, "a number in (0, 1]", 0.0, 1.0, open_low=True)


def as_written(number: SupportsFloat) -> Fraction:
    """Return a real number as it is written: 0.1 is one tenth, not the nearest binary fraction.

    Examples
    --------
    >>> as_written(0.1), Fraction(0.1) == Fraction(1, 10)
    (Fraction(1, 10), False)
    """
    try:
        return Fraction(str(number))
    except ValueError:  # the text of a tensor is more than its number
        return Fraction(str(float(number)))


def file_name(name: str, value: object) -> str:
    """Return the name of a file or a folder as text; nothing, which a path takes for the current folder, is none.

    Raises
    ------
    ValueError
        If it is empty, or holds a null character.
    """
    path = os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else ""
    if not path or "\0" in path:
        raise argument_error(name, "the name of a file or folder", value)
    return path


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


def nearest(given: str, allowed: Iterable[str], count: int = 3) -> str:
    """Return the names most like what was given, in quotation marks; of few names, or where none is alike, all or some.

    Examples
    --------
    >>> nearest("overlp", ["name", "overlap", "density", "alpha"]), nearest("x", ["name", "density"])
    ("'overlap'", "'name' or 'density'")
    """
    names = list(allowed)
    alike = difflib.get_close_matches(given, names, count, 0.6) or [name for name in names if given and given in name]
    shown = [repr(name) for name in (alike or names)[:count]]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


@contextmanager
def argument_errors_naming(name: str | None) -> Iterator[None]:
    """Name the layer in a ValueError that is raised in a ``with`` block; nothing for no name."""
    try:
        yield
    except ValueError as error:
        raise (ValueError(f"Layer '{name}': {error}") if name else error) from None


def spelled(value: Any, allowed: Iterable[str]) -> Any:
    """Return the one of `allowed` that `value` spells, hyphens, underscores and capitals aside; else `value` itself.

    Examples
    --------
    >>> spelled("ResNet20", ["vgg11", "resnet-20"]), spelled("vgg19", ["vgg11"])
    ('resnet-20', 'vgg19')
    """
    letters = {re.sub("[-_]", "", name).lower(): name for name in allowed}
    return letters.get(re.sub("[-_]", "", value).lower(), value) if isinstance(value, str) else value


def _is_number(value: object) -> TypeGuard[Any]:
    """Whether `value` may be one number: arrays with an axis, booleans and complex numbers are none."""
    return _is_scalar(value) and not _is_boolean(value) and "complex" not in _type_name(value)


def _is_scalar(value: object) -> bool:
    return not getattr(value, "ndim", 0)


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool) or _type_name(value) in ("bool", "torch.bool")


def _type_name(value: object) -> str:
    """Return the name of the type of an array's or a tensor's entries; empty where it is neither."""
    return str(getattr(value, "dtype", ""))


def _shown(given: object) -> str:
    """Return what was given, on one line and not too long."""
    try:
        text = " ".join(line.strip() for line in repr(given).splitlines())
    except ValueError:  # Python writes no integer of more than some thousand digits
        return f"an integer of {given.bit_length()} bits" if isinstance(given, int) else f"a {type(given).__name__}"
    return shortened(text)
