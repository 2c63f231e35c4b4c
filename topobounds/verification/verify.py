"""`verify` and `verify_file`: arguments in, one verdict for each claim out."""

import math
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from topobounds._arguments import (
    MOST_TRIALS,
    argument_error,
    check_neurons,
    choice,
    density_fraction,
    integer,
    items,
    real,
)
from topobounds._memory import check_layer_memory
from topobounds._parallel import ExecutorWork
from topobounds._text import counted
from topobounds._types import Array, Interval, NamedProgress
from topobounds.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from topobounds.checkpoint.layer_tensors import read_layer_tensors
from topobounds.checkpoint.location import path_elsewhere
from topobounds.layers import Conv, LayerTensor
from topobounds.supports import SUPPORTS, read_support
from topobounds.verification import judging
from topobounds.verification.claims import CLAIMS, Claim
from topobounds.verification.draws import DISTRIBUTIONS, DrawSetting
from topobounds.verification.judging import JudgingTerms, Outcome, Verdict
from topobounds.verification.subject import Subject
from topobounds.weights import check_finite, weight_matrix

_KERNEL = "kernel of a convolution, of which the claims say nothing"
"""Why a convolution is not tested."""


def verify(
    m: int | None = None,
    n: int | None = None,
    k: int | None = None,
    *,
    weights: ArrayLike | None = None,
    density: float | None = None,
    support: str | None = None,
    distribution: str | None = None,
    claims: Iterable[str] | None = None,
    trials: int | None = None,
    confidence: float = 0.999,
    tolerance: float = 0.005,
    seed: int | None = None,
    executor: Executor | None = None,
    progress: NamedProgress | None = None,
) -> list[Verdict]:
    """Test claims about the overlap and the diagram on samples, or on a given layer, and say which hold.

    Samples are drawn until a claim is decided or the trials are spent; the confidence is that of the whole sequence.
    A claim is tested on samples that meet its hypothesis: a bound for the complete layer is sampled there, or on
    uniformly random supports, where it holds too.

    Parameters
    ----------
    m, n : int
        Rows and columns of the layers to be drawn, at least 1, together at most 2**24; left out where `weights` are
        given.
    k : int, optional
        How many of the largest weights, 0 to m n; alpha if left out. Theorem 3.3 and Corollary 3.4 are about alpha.
    weights : array_like of shape (m, n), optional
        A layer. A claim about the mean of X is then tested on its one X, with the interval X ± t that holds E[X] with
        the probability `confidence` if the weights are exchangeable: so a layer that is not exchangeable breaks claims,
        and ``exchangeable`` compares it with shuffles of itself. Weights of zero are no edges. Where weights tie at the
        cut, X is any that another order of these gives, for the claims presume distinct weights: so ties by themselves
        violate nothing, but may leave claims undecided.
    density : float, optional
        In (0, 1]; 1 if left out. Share of the cells that carry a weight.
    support : {"uniform", "star", "block"}, optional
        Where they are; see `simulate_overlap`. ``uniform`` if left out.
    distribution : {"none", "normal", "uniform", "cauchy"}; with weights {"given", "shuffled"}; optional
        ``none``, the default, samples supports and orders only; the others draw weights and run Kruskal's algorithm on
        them. ``shuffled`` puts the entries of `weights`, zeros among them, at random places: the null model.
    claims : iterable of str, optional
        Ids, as in `topobounds.verification.claims.CLAIMS`; all that say something of these layers if left out.
    trials : int, optional
        Most samples of each claim, from 1 to 10^9; what takes seconds if left out. A given matrix is one sample.
    confidence : float
        In (0, 1): at most 1 minus this is the probability of a wrong ``violated``, and of a wrong ``holds``.
    tolerance : float
        In [0, 1). When the trials are spent, a bound met to within this counts as holding.
    seed : int, optional
        Non-negative; drawn and recorded if left out. One seed gives one result.
    executor : concurrent.futures.Executor, optional
        What draws the samples, on any machine; claims that share their samples are one piece of work. It gets no
        weights, so that `weights` are tested here only.
    progress : callable, optional
        Called with (samples done, most samples, claim); of an executor with (claims done, claims, claim).

    Returns
    -------
    list of Verdict
        One for each claim, in the order of `CLAIMS`.

    Raises
    ------
    ValueError
        If an argument is out of range, a claim is unknown or says nothing of these layers, the weights are no finite
        matrix with a weight other than zero, or the layers to be drawn do not fit into memory.

    Examples
    --------
    >>> from topobounds.verification import verify
    >>> names = ["theorem_3_3", "corollary_3_4"]
    >>> [(v.claim, v.verdict) for v in verify(60, 50, density=0.1, claims=names, seed=1)]
    [('theorem_3_3', 'holds'), ('corollary_3_4', 'violated')]
    """
    seed = _seed(seed)
    terms = _terms(trials, confidence, tolerance, progress)
    if weights is None:
        setting = _setting_of_draws(m, n, k, density, support, distribution, seed)
    else:
        _refuse(m=m, n=n, density=density, support=support, executor=executor)
        setting = _setting_of_matrix(weights, k, distribution, seed)
    return _verdicts(setting, _chosen(claims), terms, executor)


def verify_file(
    path: str | os.PathLike[str],
    k: int | None = None,
    *,
    tensor: str | None = None,
    distribution: str | None = None,
    claims: Iterable[str] | None = None,
    trials: int | None = None,
    confidence: float = 0.999,
    tolerance: float = 0.005,
    seed: int | None = None,
    executor: Executor | None = None,
    progress: NamedProgress | None = None,
) -> list[Verdict]:
    """Test claims on every layer in a file of weights that is a matrix.

    The tensors are read as `topobounds.analyze` reads them: each gate of a recurrent layer, each projection of
    attention and each expert is a matrix of its own. Kernels are not tested, for the claims are about dense layers, nor
    is what is no weight of a layer: `verdicts_on_file` says what is left out.

    Parameters
    ----------
    path : path
        What `topobounds.open_checkpoint` takes.
    tensor : str, optional
        The name of one tensor, or of one of its parts; all of them if left out.
    k, distribution, claims, trials, confidence, tolerance, seed
        As in `verify`.
    executor : concurrent.futures.Executor, optional
        What tests the tensors, each a piece of work, on any machine that reads the same path: it gets names, not
        weights.
    progress : callable, optional
        As in `verify`; of an executor with (tensors done, tensors, name).

    Returns
    -------
    list of Verdict
        Those of the first matrix, then those of the next. What cannot be tested on one of several matrices (it is all
        zeros, say, or not finite) is undecided, for the reason that `verify` gives.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or has no such tensor.
    ValueError
        As `verify`; or if there is no matrix, or nothing can be tested on any of them, in which case the message names
        the first.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/layer.npy", np.random.default_rng(0).standard_normal((60, 50)))
    ...     found = verify_file(f"{folder}/layer.npy", claims=["exchangeable"], seed=1)
    >>> [(verdict.claim, verdict.verdict) for verdict in found]
    [('exchangeable', 'holds')]
    """
    return verdicts_on_file(
        path,
        k,
        tensor=tensor,
        distribution=distribution,
        claims=claims,
        trials=trials,
        confidence=confidence,
        tolerance=tolerance,
        seed=seed,
        executor=executor,
        progress=progress,
    ).verdicts


class FileVerdicts(NamedTuple):
    """What is found on a file.

    Attributes
    ----------
    verdicts : list of Verdict
        Of each matrix in turn.
    left_out : dict of str to str
        The tensors that are not tested, and why.
    damaged : tuple of str
        Those of them that the file cannot give.
    """

    verdicts: list[Verdict]
    left_out: dict[str, str]
    damaged: tuple[str, ...] = ()


def verdicts_on_file(
    path: str | os.PathLike[str],
    k: int | None = None,
    *,
    tensor: str | None = None,
    distribution: str | None = None,
    claims: Iterable[str] | None = None,
    trials: int | None = None,
    confidence: float = 0.999,
    tolerance: float = 0.005,
    seed: int | None = None,
    executor: Executor | None = None,
    progress: NamedProgress | None = None,
) -> FileVerdicts:
    """Return what `verify_file` does, with what of the file is left out."""
    seed = _seed(seed)
    terms = _terms(trials, confidence, tolerance, progress)
    chosen = _chosen(claims)
    with open_checkpoint(path) as checkpoint:
        owner = None if tensor is None else checkpoint.tied.get(tensor, tensor)
        layers, left_out, damaged = _matrices(checkpoint, tensor)
        task = _FileTask(os.fspath(path), owner, k, distribution, _ids(chosen), replace(terms, progress=None), seed)
        if executor is None:
            found = [_of_tensor(replace(task, terms=terms), layer, checkpoint) for layer in layers]
        else:
            found = _tested_elsewhere(executor, task, layers, progress)
    for layer, of_tensor in zip(layers, found, strict=True):
        if of_tensor.damage is not None:
            if len(layers) == 1:
                raise CheckpointError(of_tensor.damage)
            left_out[layer.name] = of_tensor.damage
            damaged.append(layer.name)
    refusals = [of_tensor.refusal for of_tensor in found if of_tensor.refusal is not None]
    if refusals and not any(of_tensor.n_tested for of_tensor in found):
        raise ValueError(refusals[0])
    verdicts = [verdict for of_tensor in found for verdict in of_tensor.verdicts]
    return FileVerdicts(verdicts, left_out, tuple(damaged))


@dataclass(frozen=True)
class _FileTask:
    """What is tested on every tensor of a file; it holds no weights, so that it can go to other processes."""

    path: str
    owner: str | None
    k: int | None
    distribution: str | None
    claims: tuple[str, ...] | None
    terms: JudgingTerms
    seed: int


@dataclass(frozen=True)
class _OfTensor:
    """What became of a tensor: verdicts on its matrices, how many were tested, why the first of the others was not."""

    verdicts: list[Verdict]
    n_tested: int = 0
    refusal: str | None = None
    damage: str | None = None


def _tested_elsewhere(
    executor: Executor, task: _FileTask, layers: Sequence[LayerTensor], progress: NamedProgress | None
) -> list[_OfTensor]:
    work = ExecutorWork(executor, partial(_in_worker, path_elsewhere(task.path), task))
    found = []
    for layer, of_tensor in zip(layers, work.in_order(layers), strict=True):
        found.append(of_tensor)
        if progress is not None:
            progress(len(found), len(layers), layer.name)
    return found


def _in_worker(path: str, task: _FileTask, layer: LayerTensor) -> _OfTensor:
    """Test one tensor in another process, which opens the file."""
    with open_checkpoint(path) as checkpoint:
        return _of_tensor(task, layer, checkpoint)


def _of_tensor(task: _FileTask, layer: LayerTensor, checkpoint: Checkpoint) -> _OfTensor:
    """Test claims on the matrices that a tensor holds."""
    chosen, k, seed = _chosen(task.claims), task.k, task.seed
    verdicts: list[Verdict] = []
    refusal, n_tested = None, 0
    try:
        parts = layer.split(checkpoint.tensor(layer.name))
    except CheckpointError as error:
        return _OfTensor([], damage=str(error))
    for name, matrix in zip(layer.part_names, parts, strict=True):
        if task.owner not in (None, name, layer.name):
            continue
        try:
            of_matrix = _verdicts(_setting_of_matrix(matrix, k, task.distribution, seed), chosen, task.terms)
        except ValueError as error:
            refusal = refusal or f"{task.path}, tensor '{name}': {error}"
            of_matrix = _undecided(matrix, k, chosen, task.terms, seed, str(error))
        else:
            n_tested += 1
        verdicts += [replace(verdict, file=task.path, tensor=name) for verdict in of_matrix]
    return _OfTensor(verdicts, n_tested, refusal)


def _undecided(
    matrix: Array, k: int | None, chosen: list[Claim] | None, terms: JudgingTerms, seed: int, reason: str
) -> list[Verdict]:
    """Return the verdicts on claims that cannot be tested on a matrix of a file."""
    m, n = matrix.shape
    density = np.count_nonzero(matrix) / matrix.size if matrix.size else 0.0
    setting = DrawSetting(m, n, k, density, "given", "given", seed)
    return [_verdict(claim, setting, judging.not_tested(reason), terms) for claim in chosen or CLAIMS.values()]


def _matrices(checkpoint: Checkpoint, tensor: str | None) -> tuple[list[LayerTensor], dict[str, str], list[str]]:
    """Return the tensors of a file whose graphs are those of matrices, why others are left out, and which are damaged.

    Raises
    ------
    CheckpointError
        If there is no tensor of this name, and no part.
    ValueError
        If there is no matrix, or the tensor is none.
    """
    reading = read_layer_tensors(checkpoint)
    left_out = dict(reading.left_out)
    layers = []
    for layer in reading.layers:
        if any(graph is None or isinstance(graph, Conv) for graph in layer.graphs):
            left_out[layer.name] = _KERNEL
        else:
            layers.append(layer)
    if tensor is not None:
        owner = checkpoint.tied.get(tensor, tensor)
        layers = [layer for layer in layers if owner in (layer.name, *layer.part_names)]
        if not layers and owner not in left_out:
            raise CheckpointError(f"{checkpoint.path} has no tensor '{tensor}'.")
        if not layers:
            raise ValueError(f"There is no matrix in tensor '{tensor}' of {checkpoint.path}: {left_out[owner]}.")
        return layers, {}, []
    if not layers:
        reasons = Counter(left_out.values()).most_common(1)
        raise ValueError(
            f"There is no matrix in {checkpoint.path}: {reasons[0][1]} of "
            f"{counted(len(left_out), 'tensor is', 'tensors are')} left out, {reasons[0][0]}."
            if reasons
            else f"There is no matrix in {checkpoint.path}, and no other tensor."
        )
    return layers, left_out, sorted(reading.damaged)


# -- arguments ---------------------------------------------------------------------------------------------------------


def _seed(seed: int | None) -> int:
    return secrets.randbits(32) if seed is None else integer("seed", seed, 0)


def _terms(trials: int | None, confidence: float, tolerance: float, progress: NamedProgress | None) -> JudgingTerms:
    return JudgingTerms(
        None if trials is None else integer("trials", trials, 1, most=MOST_TRIALS),
        real("confidence", confidence, "a number in (0, 1)", math.ulp(0.0), math.nextafter(1.0, 0.0)),
        real("tolerance", tolerance, "a number in [0, 1)", 0.0, math.nextafter(1.0, 0.0)),
        progress,
    )


def _setting_of_draws(
    m: int | None,
    n: int | None,
    k: int | None,
    density: float | None,
    support: str | None,
    distribution: str | None,
    seed: int,
) -> DrawSetting:
    m, n = integer("m", m, 1), integer("n", n, 1)
    check_neurons(m, n)
    k = None if k is None else integer("k", k, 0, m * n)
    density = 1.0 if density is None else density_fraction("density", density)
    support = choice("support", "uniform" if support is None else support, SUPPORTS)
    distribution = choice("distribution", "none" if distribution is None else distribution, DISTRIBUTIONS)
    read_support(m, n, density, support)  # refuses what cannot be drawn
    return DrawSetting(m, n, k, density, "uniform" if density == 1 else support, distribution, seed)


def _setting_of_matrix(weights: ArrayLike, k: int | None, distribution: str | None, seed: int) -> DrawSetting:
    matrix = weight_matrix(weights)
    m, n = matrix.shape
    check_layer_memory(m, n)
    matrix = np.ascontiguousarray(matrix)
    check_finite(matrix)
    k = None if k is None else integer("k", k, 0, m * n)
    mask = matrix != 0
    if not mask.any():
        raise ValueError("Argument 'weights' must hold a weight other than zero.")
    distribution = choice("distribution", distribution or "given", ("given", "shuffled"))
    fixed = None if distribution == "shuffled" or mask.all() else mask
    support = "uniform" if distribution == "shuffled" else "given"
    return DrawSetting(m, n, k, float(mask.mean()), support, distribution, seed, matrix, fixed)


def _refuse(**arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise argument_error(name, "left out where 'weights' are given", value)


def _chosen(claims: Iterable[str] | None) -> list[Claim] | None:
    if claims is None:
        return None
    names = [claims] if isinstance(claims, str) else items("claims", claims, "claims")
    for name in names:
        choice("claims", name, tuple(CLAIMS))
    return [claim for claim in CLAIMS.values() if claim.id in names]


def _ids(claims: list[Claim] | None) -> tuple[str, ...] | None:
    return None if claims is None else tuple(claim.id for claim in claims)


# -- claims and what they are tested on --------------------------------------------------------------------------------


def _verdicts(
    setting: DrawSetting, chosen: list[Claim] | None, terms: JudgingTerms, executor: Executor | None = None
) -> list[Verdict]:
    misfits = {claim.id: reason for claim in CLAIMS.values() if (reason := claim.misfit(setting))}
    for claim in chosen or ():
        if claim.id in misfits:
            raise ValueError(f"Claim '{claim.id}' cannot be tested on these layers: {misfits[claim.id]}")
    claims = [claim for claim in chosen or CLAIMS.values() if claim.id not in misfits]
    if setting.weights is not None and setting.distribution == "given":
        subject = Subject(setting.weights)
        return [_verdict(c, setting, c.kind.test_subject(c, subject, setting, terms), terms) for c in claims]
    settings = {claim.id: claim.kind.adapt(setting) for claim in claims}
    streams: dict[str, list[str]] = {}
    for claim in claims:
        streams.setdefault(claim.kind.stream(claim, settings[claim.id]), []).append(claim.id)
    units = [_Unit(tuple(together), settings[together[0]]) for together in streams.values()]
    outcomes: dict[str, Outcome] = {}
    if executor is None:
        for unit in units:
            outcomes |= _tested(terms, unit)
    else:
        work = ExecutorWork(executor, partial(_tested, replace(terms, progress=None)))
        for unit, of_unit in zip(units, work.in_order(units), strict=True):
            outcomes |= of_unit
            terms.advance(len(outcomes), len(claims), unit.name)
    return [_verdict(claim, settings[claim.id], outcomes[claim.id], terms) for claim in claims]


@dataclass(frozen=True)
class _Unit:
    """Claims that are tested on the same samples, and the layers that these are of."""

    claims: tuple[str, ...]
    setting: DrawSetting

    @property
    def name(self) -> str:
        """The first of the claims."""
        return self.claims[0]


def _tested(terms: JudgingTerms, unit: _Unit) -> dict[str, Outcome]:
    """Return the outcome of each claim of a unit, here or in another process."""
    claims = [CLAIMS[name] for name in unit.claims]
    return claims[0].kind.test_samples(claims, unit.setting, terms)


def _verdict(claim: Claim, setting: DrawSetting, outcome: Outcome, terms: JudgingTerms) -> Verdict:
    direction = claim.kind.direction(claim, setting)
    # The outcome's fields are the verdict's, but for the bound, of which a claim may be about one end only.
    tested = vars(outcome) | {"bound": _as_stated(outcome.bound, direction)}
    return Verdict(
        claim=claim.id,
        m=setting.m,
        n=setting.n,
        k=claim.kind.k_of_every_sample(setting),
        density=setting.density,
        support=setting.support,
        distribution=setting.distribution,
        source=claim.source,
        statement=claim.statement,
        hypothesis=claim.hypothesis,
        direction=direction,
        confidence=terms.confidence,
        tolerance=terms.tolerance,
        seed=setting.seed,
        witness=_witness(claim, setting, terms) if outcome.verdict == "violated" else None,
        **tested,
    )


def _as_stated(bound: Interval | None, direction: str) -> float | Interval | None:
    """Return a bound as the claim states it: the one end that it is about, or both."""
    if bound is None or direction == "in":
        return bound
    low, high = bound
    return high if direction == "<=" else low


def _witness(claim: Claim, setting: DrawSetting, terms: JudgingTerms) -> dict[str, Any]:
    """Return the arguments of `verify` that show a violation again, but for the weights."""
    drawn = {"m": setting.m, "n": setting.n, "density": setting.density, "support": setting.support}
    return {
        "claims": [claim.id],
        **(drawn if setting.weights is None else {}),
        "k": setting.k,
        "distribution": setting.distribution,
        "trials": terms.trials,
        "confidence": terms.confidence,
        "tolerance": terms.tolerance,
        "seed": setting.seed,
    }
