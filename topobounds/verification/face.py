"""`verify` and `verify_file`: arguments in, one verdict for each claim out."""

import math
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topobounds._arguments import MOST_TRIALS, argument_error, choice, density_fraction, integer, items, real
from topobounds.checkpoint import read_arrays
from topobounds.montecarlo import SUPPORTS, simulate_overlap
from topobounds.supports import check_neurons
from topobounds.theory.paper import corollary_3_4
from topobounds.verification.claims import CLAIMS, Claim
from topobounds.verification.samples import DISTRIBUTIONS, OVERLAPS, Matrix, Setting, check_memory, draw_support
from topobounds.verification.verdicts import (
    Found,
    GivenLayer,
    Progress,
    Terms,
    Verdict,
    put_to_matrices,
    put_to_overlaps,
)
from topobounds.weights import check_finite, weight_matrix

ABOUT_THE_LAYER = ("layer", "tail")


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
    progress: Progress | None = None,
) -> list[Verdict]:
    """Put claims about the overlap and the diagram to samples, or to a given layer, and say which hold.

    Samples are drawn until a claim is decided or the trials are spent; the confidence is that of the whole sequence.
    A claim is put to samples that meet its hypothesis: a bound for the complete layer is sampled there, or on
    uniformly random supports, where it holds too.

    Parameters
    ----------
    m, n : int
        Rows and columns of the layers to be drawn, at least 1, together at most 2**24; left out where `weights` are
        given.
    k : int, optional
        How many of the largest weights, 0 to m n; alpha if left out. Theorem 3.3 and Corollary 3.4 are about alpha.
    weights : array_like of shape (m, n), optional
        A layer. A claim about the mean of X is then put to its one X, with the interval X ± t that holds E[X] with the
        probability `confidence` if the weights are exchangeable: so a layer that is not exchangeable breaks claims,
        and ``exchangeable`` compares it with shuffles of itself. Weights of zero are no edges.
    density : float, optional
        In (0, 1]; 1 if left out. Share of the cells that carry a weight.
    support : {"uniform", "star", "block"}, optional
        Where they are; see `simulate_overlap`. ``uniform`` if left out.
    distribution : {"none", "normal", "uniform", "cauchy"}; with weights {"given", "shuffled"}; optional
        ``none``, the default, samples supports and orders only; the others draw weights and run Kruskal's algorithm on
        them. ``shuffled`` puts the entries of `weights`, zeros among them, at random places: the null model.
    claims : iterable of str, optional
        Ids, as in `topobounds.verification.claims.CLAIMS`; all that can be put to these layers if left out.
    trials : int, optional
        Most samples of each claim, from 1 to 10^9; what takes seconds if left out. A given matrix is one sample.
    confidence : float
        In (0, 1): at most 1 minus this is the probability of a wrong ``violated``, and of a wrong ``holds``.
    tolerance : float
        In [0, 1). When the trials are spent, ``holds`` is said of a bound that is met to within this.
    seed : int, optional
        Non-negative; drawn and recorded if left out. One seed gives one result.
    progress : callable, optional
        Called with (samples done, most samples, claim).

    Returns
    -------
    list of Verdict
        One for each claim, in the order of `CLAIMS`.

    Raises
    ------
    ValueError
        If an argument is out of range, a claim is unknown or cannot be put to these layers, the weights are no finite
        matrix with a weight other than zero, or the layers to be drawn do not fit into memory.

    Examples
    --------
    >>> from topobounds.verification import verify
    >>> names = ["theorem_3_3", "corollary_3_4"]
    >>> [(v.claim, v.verdict) for v in verify(60, 50, density=0.1, claims=names, seed=1)]
    [('theorem_3_3', 'holds'), ('corollary_3_4', 'violated')]
    """
    seed, terms = _seed(seed), _terms(trials, confidence, tolerance, progress)
    if weights is None:
        setting = _drawn_setting(m, n, k, density, support, distribution, seed)
    else:
        _refuse(m=m, n=n, density=density, support=support)
        setting = _given_setting(weights, k, distribution, seed)
    return _verdicts(setting, _asked(claims), terms)


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
    progress: Progress | None = None,
) -> list[Verdict]:
    """Put claims to every matrix in a file of weights.

    Parameters
    ----------
    path : path
        A ``.npy``, ``.npz`` or ``.safetensors`` file.
    tensor : str, optional
        The name of one matrix; all two-dimensional arrays if left out.
    k, distribution, claims, trials, confidence, tolerance, seed, progress
        As in `verify`.

    Returns
    -------
    list of Verdict
        Those of the first matrix, then those of the next. What cannot be put to one of several matrices (it is all
        zeros, say, or not finite) is undecided, for the reason that `verify` gives.

    Raises
    ------
    CheckpointError
        If the file cannot be read or holds no matrix.
    ValueError
        As `verify`; or if nothing can be put to any of the matrices, in which case the message names the first.
    """
    seed, terms, asked = _seed(seed), _terms(trials, confidence, tolerance, progress), _asked(claims)
    verdicts: list[Verdict] = []
    refused: list[ValueError] = []
    n_put = 0
    for name, array in matrices_of(path, tensor):
        try:
            found = _verdicts(_given_setting(array, k, distribution, seed), asked, terms)
        except ValueError as error:
            refused.append(ValueError(f"{path}, tensor '{name}': {error}"))
            found = [_not_put(claim, array, k, terms, seed, str(error)) for claim in asked or CLAIMS.values()]
        else:
            n_put += 1
        verdicts += [replace(verdict, file=str(path), tensor=name) for verdict in found]
    if refused and not n_put:
        raise refused[0]
    return verdicts


def _not_put(claim: Claim, matrix: Matrix, k: int | None, terms: Terms, seed: int, reason: str) -> Verdict:
    """Return the verdict on a claim that cannot be put to a matrix of a file."""
    m, n = matrix.shape
    density = np.count_nonzero(matrix) / matrix.size if matrix.size else 0.0
    setting = Setting(m, n, k, density, "given", "given", seed)
    return _verdict(claim, setting, Found(None, None, None, None, 0, "undecided", reason), terms)


def matrices_of(path: str | os.PathLike[str], tensor: str | None = None) -> Iterator[tuple[str, Matrix]]:
    """Yield the two-dimensional arrays of a file.

    Raises
    ------
    ValueError
        If there is none, or the tensor asked for is no matrix.
    """
    shapes = []
    for name, array in read_arrays(path, tensor):
        shapes.append(array.shape)
        if array.ndim == 2:
            yield name, array
    if not any(len(shape) == 2 for shape in shapes):
        what = f"tensor '{tensor}' of {path}" if tensor else f"{path}"
        raise ValueError(f"There is no matrix in {what}, only arrays of shape {', '.join(map(str, shapes)) or 'none'}.")


# -- arguments ---------------------------------------------------------------------------------------------------------


def _seed(seed: int | None) -> int:
    return secrets.randbits(32) if seed is None else integer("seed", seed, 0)


def _terms(trials: int | None, confidence: float, tolerance: float, progress: Progress | None) -> Terms:
    return Terms(
        None if trials is None else integer("trials", trials, 1, most=MOST_TRIALS),
        real("confidence", confidence, "a number in (0, 1)", math.ulp(0.0), math.nextafter(1.0, 0.0)),
        real("tolerance", tolerance, "a number in [0, 1)", 0.0, math.nextafter(1.0, 0.0)),
        progress,
    )


def _drawn_setting(
    m: int | None,
    n: int | None,
    k: int | None,
    density: float | None,
    support: str | None,
    distribution: str | None,
    seed: int,
) -> Setting:
    m, n = integer("m", m, 1), integer("n", n, 1)
    check_neurons(m, n)
    k = None if k is None else integer("k", k, 0, m * n)
    density = 1.0 if density is None else density_fraction("density", density)
    support = choice("support", "uniform" if support is None else support, SUPPORTS)
    distribution = choice("distribution", "none" if distribution is None else distribution, DISTRIBUTIONS)
    simulate_overlap(m, n, 0, density=density, support=support, trials=1, seed=0)  # refuses what cannot be drawn
    return Setting(m, n, k, density, "uniform" if density == 1 else support, distribution, seed)


def _given_setting(weights: ArrayLike, k: int | None, distribution: str | None, seed: int) -> Setting:
    matrix = weight_matrix(weights)
    m, n = matrix.shape
    check_memory(m, n)
    matrix = np.ascontiguousarray(matrix)
    check_finite(matrix)
    k = None if k is None else integer("k", k, 0, m * n)
    mask = matrix != 0
    if not mask.any():
        raise ValueError("Argument 'weights' must hold a weight other than zero.")
    distribution = choice("distribution", distribution or "given", ("given", "shuffled"))
    fixed = None if distribution == "shuffled" or mask.all() else mask
    support = "uniform" if distribution == "shuffled" else "given"
    return Setting(m, n, k, float(mask.mean()), support, distribution, seed, matrix, fixed)


def _refuse(**arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise argument_error(name, "left out where 'weights' are given", value)


def _asked(claims: Iterable[str] | None) -> list[Claim] | None:
    if claims is None:
        return None
    names = [claims] if isinstance(claims, str) else items("claims", claims, "claims")
    for name in names:
        choice("claims", name, tuple(CLAIMS))
    return [claim for claim in CLAIMS.values() if claim.id in names]


# -- claims and what they are put to -----------------------------------------------------------------------------------


def _verdicts(setting: Setting, asked: list[Claim] | None, terms: Terms) -> list[Verdict]:
    unfit = {claim.id: reason for claim in CLAIMS.values() if (reason := _unfit(claim, setting))}
    for claim in asked or ():
        if claim.id in unfit:
            raise ValueError(f"Claim '{claim.id}' cannot be put to these layers: {unfit[claim.id]}")
    claims = [claim for claim in asked or CLAIMS.values() if claim.id not in unfit]
    if setting.distribution == "given":
        layer = GivenLayer(setting)
        return [_verdict(claim, setting, layer.put(claim, terms), terms) for claim in claims]
    places = {claim.id: place(claim, setting) for claim in claims}
    found: dict[str, Found] = {}
    for claim in claims:
        stream = _stream(claim, places[claim.id])
        if stream == "matrix":
            found[claim.id] = put_to_matrices(claim, places[claim.id], terms)
        elif claim.id not in found:
            together = [other for other in claims if _stream(other, places[other.id]) == stream]
            found |= put_to_overlaps(stream, together, places[claim.id], terms)
    return [_verdict(claim, places[claim.id], found[claim.id], terms) for claim in claims]


def _unfit(claim: Claim, setting: Setting) -> str | None:
    """Return why a claim says nothing of these layers, None if it does say something."""
    if claim.at_alpha and setting.kept != setting.alpha:
        return f"it is about the {setting.alpha} largest weights, not {setting.kept}."
    if claim.id == "corollary_3_4" and setting.distribution != "given":
        printed = corollary_3_4(setting.m, setting.n, setting.density)
        return printed.reason if printed.value is None else None
    if claim.sample == "shuffles" and setting.distribution != "given":
        return "it is about a given matrix."
    if claim.sample in ABOUT_THE_LAYER and setting.distribution == "shuffled" and setting.kept > setting.cells:
        return f"the matrix has {setting.cells} weights other than zero, fewer than {setting.kept}."
    return None


def place(claim: Claim, setting: Setting) -> Setting:
    """Return the setting that meets the claim's hypothesis."""
    if claim.sample in ABOUT_THE_LAYER and (setting.support != "uniform" or setting.kept > setting.cells):
        return replace(setting, density=1.0, support="uniform")
    if claim.sample == "support" and setting.support != "uniform":
        return replace(setting, mask=draw_support(setting, setting.stream("mask")))
    return setting


def _stream(claim: Claim, setting: Setting) -> str:
    """Return what is drawn for the claim; on all cells every overlap is that of the layer."""
    return "layer" if claim.sample in OVERLAPS and setting.density == 1 else claim.sample


def _verdict(claim: Claim, setting: Setting, found: Found, terms: Terms) -> Verdict:
    own_alpha = claim.sample == "support" and setting.k is None and setting.support == "uniform" and setting.density < 1
    of_one = setting.distribution == "given" and claim.sample == "tail"
    direction = "in" if of_one else claim.direction
    return Verdict(
        claim=claim.id,
        m=setting.m,
        n=setting.n,
        k=None if own_alpha else setting.kept,
        density=setting.density,
        support=setting.support,
        distribution=setting.distribution,
        bound=found.bound and {">=": found.bound[0], "<=": found.bound[1], "always": 1.0}.get(direction, found.bound),
        estimate=found.estimate,
        standard_error=found.standard_error,
        confidence_interval=found.confidence_interval,
        trials=found.trials,
        verdict=found.verdict,
        reason=found.reason,
        source=claim.source,
        statement=claim.statement,
        hypothesis=claim.hypothesis,
        direction=direction,
        confidence=terms.confidence,
        tolerance=terms.tolerance,
        seed=setting.seed,
        witness=_witness(claim, setting, terms) if found.verdict == "violated" else None,
    )


def _witness(claim: Claim, setting: Setting, terms: Terms) -> dict[str, Any]:
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
