"""From samples to verdicts: claims are put to overlaps, to matrices, or to one given matrix."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topobounds._records import Record
from topobounds.topology.spanning import SpanningForest, maximum_spanning_forest
from topobounds.verification import draws
from topobounds.verification.claims import CLAIMS, TAIL, Claim, Interval, band
from topobounds.verification.draws import Matrix, Setting
from topobounds.verification.sequential import Batch, MeanInterval, share_interval

Progress = Callable[[int, int, str], object]

MATRIX_CELLS, GUDHI_CELLS = 1_000_000, 500_000  # of all matrices that a claim is put to by default
MOST_MATRICES = 100
SLOW = ("diagram_equals_gudhi",)


@dataclass(frozen=True)
class Verdict(Record):
    """What samples say of a claim.

    Attributes
    ----------
    claim : str
        Its id.
    m, n, k : int
        The layer, and how many of its largest weights; k is None where it is the alpha of every sample's own support.
    density, support, distribution : float, str, str
        What was drawn: a claim about the complete layer is put to complete layers, whatever support was asked for.
    bound : float or tuple of float or None
        What the claim sets for the mean: a least or largest value, or an interval; 1 for a claim about every matrix;
        None where a given matrix does not meet the hypothesis.
    estimate : float or None
        The mean of the samples: of the overlap; for ``concentration`` the share of outliers; for a claim about every
        matrix the share of matrices that bear it out.
    standard_error : float or None
        Of `estimate`.
    confidence_interval : tuple of float or None
        Holds the mean with the probability `confidence`, over the whole sequence of looks (see
        `topobounds.verification.sequential`); for one given layer, under exchangeability.
    trials : int
        Samples used.
    verdict : {"holds", "violated", "undecided"}
        ``violated``: the confidence interval lies outside the bound, or a matrix contradicts the claim. ``holds``:
        it lies inside or, when no trials are left, inside to within `tolerance`; or no matrix contradicts the claim.
    reason : str
        How the verdict came about.
    source, statement, hypothesis, direction : str
        The claim itself; see `topobounds.verification.claims.Claim`.
    confidence, tolerance, seed : float, float, int
        As asked for.
    file, tensor : str or None
        Where given weights come from.
    witness : dict or None
        Of a violation: the arguments of the call that shows it again.
    """

    claim: str
    m: int
    n: int
    k: int | None
    density: float
    support: str
    distribution: str
    bound: float | Interval | None
    estimate: float | None
    standard_error: float | None
    confidence_interval: Interval | None
    trials: int
    verdict: str
    reason: str
    source: str
    statement: str
    hypothesis: str
    direction: str
    confidence: float
    tolerance: float
    seed: int
    file: str | None = None
    tensor: str | None = None
    witness: dict[str, Any] | None = None


@dataclass(frozen=True)
class Terms:
    """On which terms a verdict is given."""

    trials: int | None
    confidence: float
    tolerance: float
    progress: Progress | None

    def advance(self, done: int, budget: int, claim: str) -> None:
        """Report the samples done of a claim."""
        if self.progress is not None:
            self.progress(done, budget, claim)


@dataclass(frozen=True)
class Found:
    """What the samples of a claim came to; the fields are those of `Verdict`."""

    bound: Interval | None
    estimate: float | None
    standard_error: float | None
    confidence_interval: Interval | None
    trials: int
    verdict: str
    reason: str


def decide(bound: Interval, interval: Interval, tolerance: float = 0.0) -> str:
    """Return the verdict on "the mean lies in `bound`" if it lies in `interval`.

    Examples
    --------
    >>> decide((0.6, 1.0), (0.7, 0.9)), decide((0.6, 1.0), (0.1, 0.5)), decide((0.6, 1.0), (0.5, 0.7))
    ('holds', 'violated', 'undecided')
    """
    if interval[1] < bound[0] or interval[0] > bound[1]:
        return "violated"
    inside = bound[0] - tolerance <= interval[0] and interval[1] <= bound[1] + tolerance
    return "holds" if inside else "undecided"


# -- claims about a mean, put to overlaps ------------------------------------------------------------------------------


def put_to_overlaps(stream: str, claims: list[Claim], setting: Setting, terms: Terms) -> dict[str, Found]:
    """Put claims to the overlaps of one stream; each is decided at its own time."""
    budget = setting.budget(terms.trials)
    bounds = {claim.id: claim.interval(setting) for claim in claims}
    found: dict[str, Found] = {}
    interval = MeanInterval(terms.confidence)
    for batch in _batches(stream, setting, budget):
        interval.add(batch)
        terms.advance(interval.seen.count, budget, claims[0].id)
        decided = {name: decide(bound, interval.ends) for name, bound in bounds.items() if name not in found}
        found |= {name: _of_mean(bounds[name], interval, v, terms) for name, v in decided.items() if v != "undecided"}
        if len(found) == len(bounds):
            break
    for name, bound in bounds.items():
        if name not in found:
            found[name] = _of_mean(bound, interval, decide(bound, interval.ends, terms.tolerance), terms)
    return found


def _batches(stream: str, setting: Setting, budget: int) -> Iterator[Batch]:
    if stream != "tail":
        return draws.OVERLAPS[stream](setting, budget)
    low, high = CLAIMS["enclosure"].interval(setting)
    t = band(setting.m * setting.n, setting.kept, setting.alpha, TAIL)
    return draws.outliers(setting, budget, low - t, high + t)


def _of_mean(bound: Interval, interval: MeanInterval, verdict: str, terms: Terms) -> Found:
    low, high = interval.ends
    known = f"the mean of {interval.seen.count} samples puts it in [{low:.4f}, {high:.4f}]"
    if not interval.seen.count:
        return Found(bound, None, None, None, 0, "undecided", "No sample meets the hypothesis, or one takes too long.")
    if verdict == "undecided":
        reason = f"With confidence {terms.confidence:g} {known}, which is not clear of the bound."
    elif verdict == "violated":
        reason = f"With confidence {terms.confidence:g} {known}, outside the bound."
    else:
        strictly = decide(bound, interval.ends) == "holds"
        reason = f"With confidence {terms.confidence:g} {known}, inside the bound"
        reason += "." if strictly else f" to within {terms.tolerance:g}."
    seen = interval.seen
    return Found(bound, seen.mean, interval.standard_error, interval.ends, seen.count, verdict, reason)


# -- claims about every matrix -----------------------------------------------------------------------------------------


def put_to_matrices(claim: Claim, setting: Setting, terms: Terms) -> Found:
    """Put a claim to one matrix after another, until one contradicts it."""
    size = setting.m * setting.n
    most = GUDHI_CELLS if claim.id in SLOW else MATRIX_CELLS
    budget = min(MOST_MATRICES, most // size) if terms.trials is None else terms.trials
    for number in range(budget):
        terms.advance(number, budget, claim.id)
        if not bears_out(claim, draws.draw_matrix(setting, setting.stream(claim.id, number)), setting, number):
            return _of_matrices(number + 1, True, terms)
    return _of_matrices(budget, False, terms)


def bears_out(claim: Claim, weights: Matrix, setting: Setting, number: int) -> bool:
    """Whether a matrix bears the claim out; what the check draws follows from the seed and the matrix's number."""
    assert claim.check is not None
    return claim.check(weights, setting.stream(claim.id, number, 1))


def _of_matrices(trials: int, failed: bool, terms: Terms) -> Found:
    if not trials:
        reason = "One matrix of this size is more than the default budget; ask for --trials."
        return Found((1.0, 1.0), None, None, None, 0, "undecided", reason)
    interval = share_interval(trials, failed=failed, confidence=terms.confidence)
    share = (trials - failed) / trials
    reason = f"Matrix {trials} of {trials} is a counterexample." if failed else f"No counterexample in {trials} trials."
    error = math.sqrt(share * (1 - share) / trials)
    return Found((1.0, 1.0), share, error, interval, trials, "violated" if failed else "holds", reason)


# -- a given matrix ----------------------------------------------------------------------------------------------------


class GivenLayer:
    """A matrix that claims are put to as it is.

    Parameters
    ----------
    setting : Setting
        With the matrix as `weights`, and its support as `mask` unless that is everything.
    """

    def __init__(self, setting: Setting) -> None:
        assert setting.weights is not None
        self.setting, self.weights = setting, setting.weights
        self.forest: SpanningForest = maximum_spanning_forest(self.weights)
        self.magnitudes = np.abs(self.weights[self.weights != 0]).astype(np.float64)

    def put(self, claim: Claim, terms: Terms) -> Found:
        """Return what the matrix says of a claim."""
        if claim.sample == "matrix":
            most = GUDHI_CELLS if claim.id in SLOW else draws.CELLS
            if terms.trials is None and self.weights.size > most:
                return _of_matrices(0, False, terms)
            return _of_matrices(1, not bears_out(claim, self.weights, self.setting, 0), terms)
        own = claim.sample in ("support", "connected", "shuffles")
        alpha = self.forest.alpha if own else self.setting.alpha
        k = alpha if self.setting.k is None else self.setting.k
        if k > self.magnitudes.size:
            return _unfit(f"The layer has {self.magnitudes.size} weights other than zero, fewer than the {k} to keep.")
        if claim.sample == "connected" and self.forest.alpha < self.setting.alpha:
            return _unfit(f"The support has {self.forest.n_components} components; the claim presumes 1.")
        overlap = float(np.searchsorted(self.forest.ranks, k, side="right")) / alpha
        if claim.sample == "shuffles":
            return self._put_to_shuffles(overlap, k, terms)
        t = band(self.magnitudes.size if own else self.weights.size, k, alpha, 1 - terms.confidence)
        return self._of_one(claim, overlap, t, k, terms)

    def _of_one(self, claim: Claim, overlap: float, t: float, k: int, terms: Terms) -> Found:
        """Return the verdict of one overlap, which lies within t of its mean if the hypothesis is met."""
        if claim.sample == "tail":
            low, high = CLAIMS["enclosure"].interval(self.setting)
            bound, interval = _clipped(low - t, high + t), (overlap, overlap)
        else:
            bound, interval = claim.interval(self.setting), _clipped(overlap - t, overlap + t)
        reason = f"X = {overlap:.4f}; if the weights are exchangeable and distinct, E[X] is within {t:.4f} of it "
        reason += f"with confidence {terms.confidence:g}.{self._tie(k)}"
        return Found(bound, overlap, None, interval, 1, decide(bound, interval, terms.tolerance), reason)

    def _put_to_shuffles(self, overlap: float, k: int, terms: Terms) -> Found:
        """Compare X with shuffles of the weights on their support: half the error for their mean, half for the band."""
        error = (1 - terms.confidence) / 2
        cut = self._tie(k)
        setting = self.setting if cut else _orders_of(self.setting)
        t = self._tied_band(k, error) if cut else band(self.magnitudes.size, k, self.forest.alpha, error)
        mean = MeanInterval(1 - error)
        verdict = "undecided"
        budget = setting.budget(terms.trials)
        for batch in draws.support_overlaps(setting, budget):
            mean.add(batch)
            terms.advance(mean.seen.count, budget, "exchangeable")
            last = mean.seen.count == budget
            verdict = _within_band(overlap, mean.ends, t, terms.tolerance if last else 0.0)
            if verdict != "undecided":
                break
        seen, (low, high) = mean.seen, mean.ends
        deviation = math.sqrt(seen.squares / (seen.count - 1)) if seen.count > 1 else 0.0
        away = f", {(overlap - seen.mean) / deviation:+.1f} standard deviations away" if deviation else ""
        reason = f"X = {overlap:.4f}; the mean over {seen.count} shuffles is {seen.mean:.4f}{away}.{cut}"
        return Found(_clipped(low - t, high + t), overlap, None, (overlap, overlap), seen.count, verdict, reason)

    def _tie(self, k: int) -> str:
        """Return a sentence if a tie decides which weights are the k largest; other ties have no bearing on X_k."""
        tied = 0 < k < self.magnitudes.size and self._places(k) > k
        return f" The weights ranked {k} and {k + 1} tie." if tied else ""

    def _places(self, k: int) -> int:
        """Return the number of weights not below the k-th largest."""
        least = np.partition(self.magnitudes, self.magnitudes.size - k)[self.magnitudes.size - k]
        return int(np.count_nonzero(self.magnitudes >= least))

    def _tied_band(self, k: int, error: float) -> float:
        """Return the band where a tie decides which weights are the k largest, so that they are no random subset.

        What decides it are the places of all weights not below the k-th, and a swap of two places changes X by at
        most 1 / alpha: McDiarmid's inequality for permutations, v = their number.
        """
        return math.sqrt(self._places(k) / 2 * math.log(2 / error)) / self.forest.alpha


def _clipped(low: float, high: float) -> Interval:
    return max(0.0, low), min(1.0, high)


def _orders_of(setting: Setting) -> Setting:
    """Return the setting that draws orders only: for distinct weights a shuffle is nothing else."""
    if setting.mask is None:
        return replace(setting, weights=None, distribution="none", density=1.0, support="uniform")
    return replace(setting, weights=None, distribution="none")


def _within_band(overlap: float, mean: Interval, t: float, tolerance: float = 0.0) -> str:
    if not mean[0] - t <= overlap <= mean[1] + t:
        return "violated"
    return "holds" if mean[1] - t - tolerance <= overlap <= mean[0] + t + tolerance else "undecided"


def _unfit(reason: str) -> Found:
    return Found(None, None, None, None, 0, "undecided", reason)
