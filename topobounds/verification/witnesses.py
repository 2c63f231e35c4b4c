"""The witness of a violation: a file that shows it again, from the seed and from the matrix itself.

The file is JSON: ``{"format": "topobounds witnesses", "version": 1, "witnesses": [...]}``. Each witness holds the
arguments of the call that found the violation, and a matrix: the counterexample, or for a claim about a mean one sample
on the wrong side of the bound, with its overlap. A matrix that came from a file is named with the SHA-256 of the file.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topobounds._arguments import argument_error, density_fraction, integer, real
from topobounds._files import check_regular, read_regular, write_whole
from topobounds._memory import check_layer_memory
from topobounds._types import Array, NamedProgress
from topobounds.verification.claims import CLAIMS, Claim
from topobounds.verification.draws import DrawSetting
from topobounds.verification.judging import Verdict
from topobounds.verification.verify import verify, verify_file
from topobounds.weights import weight_matrix

_FORMAT, _VERSION = "topobounds witnesses", 1
_MOST_CELLS = 1_000_000  # of a matrix that is written out; a larger one the seed draws again
_LARGEST = sys.float_info.max
_SAME = 1e-12  # relative difference of equal numbers, whose last digits another processor may add up otherwise
_CALL = ("claims", "m", "n", "k", "density", "support", "distribution", "trials", "confidence", "tolerance", "seed")


def write_witnesses(path: str | os.PathLike[str], verdicts: Sequence[Verdict], weights: ArrayLike | None = None) -> int:
    """Write the witnesses of the violations among `verdicts` to a JSON file, if there are any.

    Parameters
    ----------
    path : path
        The file; it appears whole or not at all.
    verdicts : sequence of Verdict
        What `verify` or `verify_file` returned.
    weights : array_like, optional
        What was given to `verify`, to be written out with the witnesses; needed if it was given.

    Returns
    -------
    int
        How many were written; without any, no file is.

    Raises
    ------
    ValueError
        If `path` names no file, or `weights` are missing.
    OSError
        If the file cannot be written; the message names it.

    Examples
    --------
    >>> write_witnesses("nothing.json", verify(12, 9, claims=["star_bound"], seed=1))
    0
    """
    violated = [verdict for verdict in verdicts if verdict.witness is not None]
    if violated:
        witnesses = [_described(verdict, weights) for verdict in violated]
        record = {"format": _FORMAT, "version": _VERSION, "witnesses": witnesses}
        _write(Path(path), json.dumps(record, allow_nan=False) + "\n")
    return len(violated)


def _write(target: Path, text: str) -> None:
    """Write a file whole or not at all."""
    if not target.name:
        raise argument_error("path", "the name of a file", str(target))
    try:
        write_whole(target, text)
    except OSError as error:
        raise OSError(f"{target} could not be written: {error.strerror}.") from None


def replay(path: str | os.PathLike[str], progress: NamedProgress | None = None) -> list[Verdict]:
    """Show the violations of a witness file again.

    Parameters
    ----------
    path : path
        What `write_witnesses` wrote.
    progress : callable, optional
        As in `verify`.

    Returns
    -------
    list of Verdict
        What the same call finds now; each is ``violated`` again if nothing has changed since.

    Raises
    ------
    ValueError
        If the file is no witness file, the call finds another density, bound, estimate or number of trials than the
        file says, a matrix in it does not show what it says, or the file of weights that it names is another than it
        was.
    OSError
        If one of these files cannot be read; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> violated = verify(60, 50, density=0.1, claims=["corollary_3_4"], seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     n_written = write_witnesses(f"{folder}/witness.json", violated)
    ...     replay(f"{folder}/witness.json") == violated
    True
    """
    with _reading(path):
        content = read_regular(path)
    try:
        record = json.loads(content)
        witnesses = record["witnesses"] if (record["format"], record["version"]) == (_FORMAT, _VERSION) else None
        if not witnesses or not all(isinstance(witness, dict) for witness in witnesses):
            raise ValueError("there is no witness in it")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no witness file of version {_VERSION}: {_in_words(error)}.") from None
    verdicts = []
    for number, witness in enumerate(witnesses, 1):
        try:
            verdicts.append(_replayed(witness, progress))
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError) as error:
            raise ValueError(f"Witness {number} of {path} cannot be replayed: {_in_words(error)}.") from None
    return verdicts


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in what goes wrong with it."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be read: {error.strerror}.") from None


def _in_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).rstrip(".") or type(error).__name__
    return f"it has no entry {text}" if isinstance(error, KeyError) else text


def _described(verdict: Verdict, weights: ArrayLike | None) -> dict[str, Any]:
    """Return the witness of one verdict, ready for JSON."""
    assert verdict.witness is not None
    record = verdict.witness | {"bound": verdict.bound, "estimate": verdict.estimate, "trials_used": verdict.trials}
    if verdict.file is not None:
        file = str(Path(verdict.file).resolve())
        return record | {"file": file, "tensor": verdict.tensor, "sha256": _sha256(file)}
    if verdict.distribution in ("given", "shuffled"):
        if weights is None:
            raise ValueError("Argument 'weights' must be given: the violation is one of given weights.")
        return record | {"weights": _packed(weight_matrix(weights))}
    if verdict.m * verdict.n > _MOST_CELLS:
        return record
    return record | _example(CLAIMS[verdict.claim], verdict)


def _example(claim: Claim, verdict: Verdict) -> dict[str, Any]:
    """Return the counterexample or, for a bound on a mean, the first sample on its wrong side, with its overlap."""
    example = claim.kind.example(claim, _setting(verdict, verdict.witness), verdict.trials)
    return example | {"matrix": _packed(example["matrix"])} if example else {}


def _setting(verdict: Verdict, witness: dict[str, Any] | None) -> DrawSetting:
    """Return what layers the verdict is about."""
    k = witness["k"] if witness else None
    return DrawSetting(verdict.m, verdict.n, k, verdict.density, verdict.support, verdict.distribution, verdict.seed)


def _replayed(witness: dict[str, Any], progress: NamedProgress | None) -> Verdict:
    """Run the call that a witness records again, and return its verdict.

    Raises
    ------
    ValueError
        If the witness lacks something, or the verdict is not the one that it records.
    """
    claims = witness["claims"]
    if not isinstance(claims, list) or not claims:
        raise ValueError("it names no claim")
    if len(claims) > 1:
        raise ValueError(f"it names {len(claims)} claims, not one")
    integer("seed", witness["seed"], 0)  # a seed that is missing would be drawn, and the verdict would be another
    numbers = _checked_numbers(witness)
    (verdict,) = _verdicts_of_call(witness, progress)
    if "matrix" in witness:
        claim = CLAIMS[verdict.claim]
        claim.kind.check_example(claim, _setting(verdict, witness), _unpacked(witness["matrix"]), witness)
    _compare(numbers, verdict)
    return verdict


def _verdicts_of_call(witness: dict[str, Any], progress: NamedProgress | None) -> list[Verdict]:
    """Return the verdicts of the call that a witness describes, on its matrix or its file where it has one."""
    call = {name: witness[name] for name in _CALL if name in witness} | {"progress": progress}
    if "sha256" in witness:
        if _sha256(witness["file"]) != witness["sha256"]:
            raise ValueError(f"{witness['file']} is not the file it was, its SHA-256 is another")
        return verify_file(witness["file"], tensor=witness["tensor"], **call)
    if "weights" in witness:
        return verify(weights=_unpacked(witness["weights"]), **call)
    return verify(**call)


def _checked_numbers(witness: dict[str, Any]) -> dict[str, list[float]]:
    """Return the numbers in a witness that the call must find again; given weights have their own density."""
    numbers = {}
    if "sha256" not in witness and "weights" not in witness:
        numbers["density"] = [density_fraction("density", witness["density"])]
    for name in ("bound", "estimate", "trials_used"):
        values = witness[name] if isinstance(witness[name], list) else [witness[name]]
        numbers[name] = [real(name, value, "a finite number", -_LARGEST, _LARGEST) for value in values]
    return numbers


def _compare(numbers: dict[str, list[float]], verdict: Verdict) -> None:
    """Refuse numbers of a witness that are not those of the verdict found again."""
    found = verdict.to_dict() | {"trials_used": verdict.trials}
    for name, values in numbers.items():
        again = found[name] if isinstance(found[name], list) else [found[name]]
        is_same = len(values) == len(again) and None not in again
        if not is_same or not all(map(partial(math.isclose, rel_tol=_SAME), values, again)):
            stated = values if len(values) != 1 else values[0]
            raise ValueError(f"its '{name}' is {stated}, but {found[name]} is found again")


def _packed(matrix: Array) -> dict[str, Any]:
    cells = np.flatnonzero(matrix)
    values = matrix.ravel()[cells].tolist()
    return {"shape": list(matrix.shape), "dtype": matrix.dtype.name, "cells": cells.tolist(), "values": values}


def _unpacked(packed: dict[str, Any]) -> Array:
    m, n = packed["shape"]
    check_layer_memory(m, n)
    matrix = np.zeros((m, n), packed["dtype"])
    matrix.ravel()[np.asarray(packed["cells"], np.int64)] = np.asarray(packed["values"], np.float64)
    return matrix


def _sha256(path: str) -> str:
    with _reading(path):
        check_regular(path)
    with _reading(path), Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
