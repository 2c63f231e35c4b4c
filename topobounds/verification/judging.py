"""From samples to verdicts: what was tested, what came out, and what that says of a claim."""

import math
from dataclasses import dataclass, replace
from typing import Any

from topobounds._arguments import as_written
from topobounds._records import Record
from topobounds._text import counted
from topobounds._types import Interval, NamedProgress
from topobounds.verification.permutation import PermutationTest
from topobounds.verification.sequential import MeanInterval, share_interval

TOO_LARGE = "One matrix of this size is more than the default budget; ask for --trials."


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
        What was drawn: a claim about the complete layer is tested on complete layers, whatever the support was to be.
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
        `topobounds.verification.sequential`); for one given layer, under exchangeability, ties in random order.
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
        The arguments of the call.
    file, tensor : str or None
        Where given weights come from.
    witness : dict or None
        Of a violation: the arguments of the call that shows it again.
    z, p_value : float or None
        Of a claim that is a test by permutation: the distance of `estimate` from the mean of the shuffles in standard
        deviations of theirs, and the two-sided p-value.
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
    z: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class JudgingTerms:
    """How long claims are tested, how sure a verdict must be, and who is told of the progress."""

    trials: int | None
    confidence: float
    tolerance: float
    progress: NamedProgress | None

    @property
    def error(self) -> float:
        """The probability of a wrong verdict that is allowed: 0.1 for a confidence of 0.9, to the last digit."""
        return float(1 - as_written(self.confidence))

    def advance(self, done: int, budget: int, claim: str) -> None:
        """Report the samples done of a claim."""
        if self.progress is not None:
            self.progress(done, budget, claim)


@dataclass(frozen=True)
class Outcome:
    """What the test of a claim came to: these fields of a `Verdict`, the bound still as an interval."""

    bound: Interval | None
    estimate: float | None
    standard_error: float | None
    confidence_interval: Interval | None
    trials: int
    verdict: str
    reason: str
    z: float | None = None
    p_value: float | None = None


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


def not_tested(reason: str, bound: Interval | None = None) -> Outcome:
    """Return the outcome of a claim that no sample was tested on."""
    return Outcome(bound, None, None, None, 0, "undecided", reason)


def outcome_of_mean(bound: Interval, interval: MeanInterval, verdict: str, terms: JudgingTerms) -> Outcome:
    """Return the outcome of a claim about a mean, from all samples so far and the verdict on them."""
    seen = interval.seen
    if not seen.count:
        return not_tested("No sample meets the hypothesis, or one takes too long.", bound)
    low, high = interval.ends
    samples = counted(seen.count, "sample")
    reason = f"With confidence {terms.confidence:g} the mean of {samples} puts it in [{low:.4f}, {high:.4f}]"
    if verdict == "undecided":
        reason += ", which is not clear of the bound."
    elif verdict == "violated":
        reason += ", outside the bound."
    elif decide(bound, interval.ends) == "holds":
        reason += ", inside the bound."
    else:
        reason += f", inside the bound to within {terms.tolerance:g}."
    return Outcome(bound, seen.mean, interval.standard_error, interval.ends, seen.count, verdict, reason)


def spared_for_ties(outcome: Outcome, moved: float) -> Outcome:
    """Return an outcome, undecided instead of violated where ties in another order, by so much, might have met it.

    Examples
    --------
    >>> violated = Outcome((0.6, 1.0), 0.4, 0.01, (0.35, 0.45), 32, "violated", "It lies outside the bound.")
    >>> spared_for_ties(violated, 0.1).verdict, spared_for_ties(violated, 0.2).verdict
    ('violated', 'undecided')
    """
    if outcome.verdict != "violated" or outcome.bound is None or outcome.confidence_interval is None:
        return outcome
    low, high = outcome.confidence_interval
    if decide(outcome.bound, (low - moved, high + moved)) == "violated":
        return outcome
    told = (
        f" But weights tie, and ties in another order may move X by {moved:.4f}: the claim presumes distinct weights."
    )
    return replace(outcome, verdict="undecided", reason=outcome.reason + told)


def outcome_of_permutations(test: PermutationTest, remark: str, terms: JudgingTerms) -> Outcome:
    """Return the outcome of a comparison with shuffles: a violation where the p-value is as small as it takes.

    Where no shuffle is as extreme as the matrix, and they are too few for so small a p-value, nothing is decided.
    """
    error = terms.error
    x = test.observed / test.alpha
    reason = f"X = {x:.4f}; the mean over {counted(test.shuffles, 'shuffle')} is {test.mean:.4f}"
    if test.z is not None:
        reason += f", {test.z:+.1f} standard deviations away"
    reason += f" (p = {test.p_value:.2g}).{remark}"
    if test.p_value <= error:
        verdict = "violated"
    elif test.as_extreme:
        verdict = "holds"
    else:
        verdict = "undecided"
        reason += f" No p-value of {error:.2g} is had from fewer than {math.ceil(2 / error) - 1} shuffles."
    return Outcome(test.accepted(error), x, None, (x, x), test.shuffles, verdict, reason, test.z, test.p_value)


def outcome_of_matrices(trials: int, failed: bool, terms: JudgingTerms) -> Outcome:
    """Return the outcome of a claim about every matrix; if it failed, then at the last one."""
    always = (1.0, 1.0)
    if not trials:
        return not_tested(TOO_LARGE, always)
    interval = share_interval(trials, failed=failed, confidence=terms.confidence)
    share = (trials - failed) / trials
    error = math.sqrt(share * (1 - share) / trials)
    if failed:
        reason = f"Matrix {trials} of {trials} is a counterexample."
        return Outcome(always, share, error, interval, trials, "violated", reason)
    return Outcome(always, share, error, interval, trials, "holds", f"No counterexample in {counted(trials, 'trial')}.")
