"""What a claim is tested on: each kind of sample is a class, and a claim holds an object of it.

A kind says which layers it fits, what is drawn, how one given matrix is judged, and how a violation is shown again.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topobounds.pruning import magnitude_mask
from topobounds.theory.enclosure import expected_overlap_of
from topobounds.theory.overlap import spread
from topobounds.verification import draws
from topobounds.verification.draws import Matrix, Setting
from topobounds.verification.judging import (
    Interval,
    Outcome,
    Terms,
    decide,
    not_tested,
    outcome_of_matrices,
    outcome_of_mean,
)
from topobounds.verification.sequential import Batch, MeanInterval
from topobounds.verification.subject import Subject, count_components

if TYPE_CHECKING:
    from topobounds.verification.claims import Claim

TAIL = 0.1  # probability of the band whose outliers are counted
TRIES = 200  # matrices among which a sample on the wrong side of a bound is looked for
MATRIX_CELLS = 1_000_000  # of all matrices that a claim about every matrix is tested on by default,
GUDHI_CELLS = 500_000  # and where gudhi goes through them too
MOST_MATRICES = 100


def enclosure(setting: Setting) -> Interval:
    """Return the certified enclosure of E[X_k] of the complete layer."""
    interval = expected_overlap_of(setting.shape)
    return interval.lower, interval.upper


def band(cells: int, k: int, alpha: int, probability: float) -> float:
    """Return t such that X_k = R_k / alpha is at least t from its mean with at most this probability.

    The k largest weights are a random subset of `cells` cells, and one swapped cell changes R_k by at most 1.
    """
    return math.sqrt(spread(cells, k) / 2 * math.log(2 / probability)) / alpha if 0 < k < cells else 0.0


class Kind(ABC):
    """A kind of sample.

    Attributes
    ----------
    name : str
        What claims of this kind call their sample.
    """

    name: ClassVar[str]

    def misfit(self, setting: Setting) -> str | None:
        """Return why claims of this kind say nothing of these layers, None if they do say something."""
        return None

    def adapt(self, setting: Setting) -> Setting:
        """Return the setting whose layers meet the hypothesis, as close to this one as there is."""
        return setting

    @abstractmethod
    def stream(self, claim: "Claim", setting: Setting) -> str:
        """Return the name of the random numbers; claims with the same one share their samples."""

    def direction(self, claim: "Claim", setting: Setting) -> str:
        """Return how the mean is to compare with the bound, as in `Claim.direction`."""
        return claim.direction

    def k_of_every_sample(self, setting: Setting) -> int | None:
        """Return the number of largest weights, None where it differs from sample to sample."""
        return setting.kept

    @abstractmethod
    def test_samples(self, claims: "Sequence[Claim]", setting: Setting, terms: Terms) -> dict[str, Outcome]:
        """Test claims that share a stream on samples drawn from it; return the outcome of each by its id."""

    @abstractmethod
    def test_subject(self, claim: "Claim", subject: Subject, setting: Setting, terms: Terms) -> Outcome:
        """Test a claim on one given matrix."""

    def example(self, claim: "Claim", setting: Setting, trials: int) -> dict[str, Any]:
        """Return what shows the violation seen after so many trials: a ``matrix``, and what is known of it.

        A witness holds these entries beside the arguments of the call, so none may have the name of an argument. They
        are empty for kinds that show violations by the seed only, and where no such matrix is at hand.
        """
        return {}

    def check_example(self, claim: "Claim", setting: Setting, matrix: Matrix, known: dict[str, Any]) -> None:
        """Refuse a matrix that does not show what is known of it.

        Raises
        ------
        ValueError
            Saying how it differs.
        """
        del claim, setting, matrix, known


# -- claims about every matrix -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EveryMatrix(Kind):
    """Whole matrices, each of which must bear the claim out.

    Attributes
    ----------
    drawn_cells, subject_cells : int
        By default at most as many cells are drawn for a claim, and a given matrix has at most as many.
    """

    name: ClassVar[str] = "matrix"
    drawn_cells: int = MATRIX_CELLS
    subject_cells: int = draws.CELLS

    def stream(self, claim: "Claim", setting: Setting) -> str:
        """Return the id of the claim: each draws its own matrices."""
        return claim.id

    def test_samples(self, claims: "Sequence[Claim]", setting: Setting, terms: Terms) -> dict[str, Outcome]:
        """Test each claim on one matrix after another, until one contradicts it."""
        return {claim.id: self._test_matrices(claim, setting, terms) for claim in claims}

    def _test_matrices(self, claim: "Claim", setting: Setting, terms: Terms) -> Outcome:
        size = setting.m * setting.n
        budget = min(MOST_MATRICES, self.drawn_cells // size) if terms.trials is None else terms.trials
        for number in range(budget):
            terms.advance(number, budget, claim.id)
            matrix = draws.draw_matrix(setting, setting.stream(claim.id, number))
            if not self._bears_out(claim, Subject(matrix), setting, number):
                return outcome_of_matrices(number + 1, True, terms)
        return outcome_of_matrices(budget, False, terms)

    def test_subject(self, claim: "Claim", subject: Subject, setting: Setting, terms: Terms) -> Outcome:
        """Test a claim on one given matrix, which is one sample."""
        if terms.trials is None and subject.weights.size > self.subject_cells:
            return outcome_of_matrices(0, False, terms)
        return outcome_of_matrices(1, not self._bears_out(claim, subject, setting, 0), terms)

    def example(self, claim: "Claim", setting: Setting, trials: int) -> dict[str, Any]:
        """Return the counterexample: the last matrix that was drawn."""
        number = trials - 1
        return {"number": number, "matrix": draws.draw_matrix(setting, setting.stream(claim.id, number))}

    def check_example(self, claim: "Claim", setting: Setting, matrix: Matrix, known: dict[str, Any]) -> None:
        """Refuse a matrix that bears the claim out."""
        if self._bears_out(claim, Subject(matrix), setting, known["number"]):
            raise ValueError("the matrix in it is no counterexample")

    def _bears_out(self, claim: "Claim", subject: Subject, setting: Setting, number: int) -> bool:
        """Whether a matrix bears the claim out; what the check draws follows from the seed and the matrix's number."""
        assert claim.check is not None
        return claim.check(subject, setting.stream(claim.id, number, 1))


# -- claims about the mean of the overlap ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MeasuredOverlap:
    """The overlap X_k of a given matrix, and what decides how far it may lie from its mean.

    Attributes
    ----------
    subject, setting : Subject, Setting
        The matrix.
    cells : int
        The k largest weights are a random subset of so many cells, if the weights are exchangeable.
    alpha : int
        Denominator of X_k.
    k : int
        Largest weights.
    """

    subject: Subject
    setting: Setting
    cells: int
    alpha: int
    k: int

    @cached_property
    def value(self) -> float:
        """X_k, in [0, 1]."""
        return float(self.subject.retained(self.k)) / self.alpha

    @cached_property
    def tie(self) -> str:
        """A sentence if a tie decides which weights are the k largest; other ties have no bearing on X_k."""
        tied = self.subject.has_tie_at(self.k)
        return f" The weights ranked {self.k} and {self.k + 1} tie." if tied else ""

    def band(self, error: float) -> float:
        """Return how far X_k is from its mean at most, but with the probability `error`."""
        return band(self.cells, self.k, self.alpha, error)

    def tied_band(self, error: float) -> float:
        """Return the band where a tie decides which weights are the k largest, so that they are no random subset.

        What decides it are the cells of all weights not below the k-th, and a swap of two cells changes X by at
        most 1 / alpha: McDiarmid's inequality for permutations, v = their number.
        """
        return math.sqrt(self.subject.n_at_least(self.k) / 2 * math.log(2 / error)) / self.alpha


class Overlaps(Kind):
    """Overlaps, whose mean is to lie in the bound."""

    @abstractmethod
    def draw(self, setting: Setting, budget: int) -> Iterator[Batch]:
        """Yield batches of overlaps, or of what else lies in [0, 1]."""

    @abstractmethod
    def overlap(self, matrix: Matrix, setting: Setting) -> float | None:
        """Return the overlap of a matrix; None where it does not meet the hypothesis."""

    def source(self, setting: Setting) -> "Overlaps":
        """Return the kind whose samples serve: on all cells every overlap is that of the layer."""
        return LAYER if setting.density == 1 else self

    def stream(self, claim: "Claim", setting: Setting) -> str:
        """Return the name of the kind whose samples serve: claims of one kind share them."""
        return self.source(setting).name

    def test_samples(self, claims: "Sequence[Claim]", setting: Setting, terms: Terms) -> dict[str, Outcome]:
        """Test claims on the same overlaps; each is decided at its own time."""
        budget = setting.budget(terms.trials)
        bounds = {claim.id: claim.interval(setting) for claim in claims}
        outcomes: dict[str, Outcome] = {}
        interval = MeanInterval(terms.confidence)
        for batch in self.source(setting).draw(setting, budget):
            interval.add(batch)
            terms.advance(interval.seen.count, budget, claims[0].id)
            for name in [name for name in bounds if name not in outcomes]:
                verdict = decide(bounds[name], interval.ends)
                if verdict != "undecided":
                    outcomes[name] = outcome_of_mean(bounds[name], interval, verdict, terms)
            if len(outcomes) == len(bounds):
                break
        # The trials are spent: now the tolerance counts.
        for name in [name for name in bounds if name not in outcomes]:
            verdict = decide(bounds[name], interval.ends, terms.tolerance)
            outcomes[name] = outcome_of_mean(bounds[name], interval, verdict, terms)
        return outcomes

    def population(self, subject: Subject) -> tuple[int, int]:
        """Return the cells that the largest weights are a random subset of, and the alpha that X is over."""
        return subject.weights.size, sum(subject.weights.shape) - 1

    def test_subject(self, claim: "Claim", subject: Subject, setting: Setting, terms: Terms) -> Outcome:
        """Test a claim on the one overlap of a given matrix."""
        cells, alpha = self.population(subject)
        k = alpha if setting.k is None else setting.k
        if k > subject.n_weights:
            return not_tested(f"The layer has {subject.n_weights} weights other than zero, fewer than the {k} to keep.")
        return self.judge(claim, MeasuredOverlap(subject, setting, cells, alpha, k), terms)

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: Terms) -> Outcome:
        """Judge a claim by one overlap, which lies within t of its mean if the hypothesis is met."""
        t = overlap.band(1 - terms.confidence)
        interval = _clipped(overlap.value - t, overlap.value + t)
        return _outcome_of_one(claim.interval(overlap.setting), interval, overlap, t, terms)

    def example(self, claim: "Claim", setting: Setting, trials: int) -> dict[str, Any]:
        """Return the first sample on the wrong side of the bound, with its overlap."""
        adapted = self.adapt(setting)
        low, high = claim.interval(adapted)
        for number in range(TRIES):
            matrix = draws.draw_matrix(adapted, setting.stream("example", number))
            overlap = self.overlap(matrix, setting)
            if overlap is not None and not low <= overlap <= high:
                return {"matrix": matrix, "overlap": overlap}
        return {}

    def check_example(self, claim: "Claim", setting: Setting, matrix: Matrix, known: dict[str, Any]) -> None:
        """Refuse a matrix that has another overlap than is known of it."""
        overlap = self.overlap(matrix, setting)
        if overlap != known["overlap"]:
            raise ValueError(f"the matrix in it has the overlap {overlap}, not {known['overlap']}")


class LayerOverlaps(Overlaps):
    """R_k / (m + n - 1), k the same for every support: that of the complete layer, or of uniformly random supports."""

    name = "layer"

    def misfit(self, setting: Setting) -> str | None:
        """Refuse to keep more weights than a shuffled matrix has."""
        if setting.distribution == "shuffled" and setting.kept > setting.cells:
            return f"the matrix has {setting.cells} weights other than zero, fewer than {setting.kept}."
        return None

    def adapt(self, setting: Setting) -> Setting:
        """Take the complete layer where the supports are not uniformly random, or too thin."""
        if setting.support != "uniform" or setting.kept > setting.cells:
            return replace(setting, density=1.0, support="uniform")
        return setting

    def draw(self, setting: Setting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_k / (m + n - 1)."""
        return draws.overlaps(setting, self.name, budget, k=setting.kept, alpha_of="complete")

    def overlap(self, matrix: Matrix, setting: Setting) -> float | None:
        """Return R_k / (m + n - 1)."""
        return draws.forest_overlap(matrix, setting.kept, "complete")[0]


class Outliers(LayerOverlaps):
    """Whether R_k / (m + n - 1) lies outside the band around its mean: 1 or 0."""

    name = "tail"

    def source(self, setting: Setting) -> Overlaps:
        """Return this kind: no other one draws outliers."""
        return self

    def draw(self, setting: Setting, budget: int) -> Iterator[Batch]:
        """Yield batches of 1 for outside, 0 for inside."""
        low, high = enclosure(setting)
        t = band(setting.m * setting.n, setting.kept, setting.alpha, TAIL)
        return draws.outliers(setting, budget, low - t, high + t)

    def direction(self, claim: "Claim", setting: Setting) -> str:
        """Return "in" for a given matrix, whose one overlap is to lie in the band."""
        return "in" if setting.distribution == "given" else claim.direction

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: Terms) -> Outcome:
        """Judge by whether the overlap lies in the band around the enclosure of its mean."""
        t = overlap.band(1 - terms.confidence)
        low, high = enclosure(overlap.setting)
        return _outcome_of_one(_clipped(low - t, high + t), (overlap.value, overlap.value), overlap, t, terms)

    def example(self, claim: "Claim", setting: Setting, trials: int) -> dict[str, Any]:
        """Return nothing: no single matrix shows a share of outliers."""
        return {}


class SupportOverlaps(Overlaps):
    """R_k / alpha, alpha that of the sample's own support; it is also k, where none is set."""

    name = "support"

    def adapt(self, setting: Setting) -> Setting:
        """Fix one support, where they are not uniformly random."""
        if setting.support != "uniform":
            return replace(setting, mask=draws.draw_support(setting, setting.stream("mask")))
        return setting

    def k_of_every_sample(self, setting: Setting) -> int | None:
        """Return None for alpha on uniformly random supports, where it differs."""
        differs = setting.k is None and setting.support == "uniform" and setting.density < 1
        return None if differs else setting.kept

    def draw(self, setting: Setting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_k / alpha."""
        return draws.overlaps(setting, self.name, budget, k=setting.k, alpha_of="support")

    def overlap(self, matrix: Matrix, setting: Setting) -> float | None:
        """Return R_k / alpha."""
        return draws.forest_overlap(matrix, setting.k, "support")[0]

    def population(self, subject: Subject) -> tuple[int, int]:
        """Return the number of weights and the alpha of the matrix itself."""
        return subject.n_weights, subject.forest.alpha


class ConnectedOverlaps(SupportOverlaps):
    """R_alpha / alpha of those samples whose support is connected."""

    name = "connected"

    def adapt(self, setting: Setting) -> Setting:
        """Draw the supports anew for every sample, of whatever kind they are."""
        return setting

    def k_of_every_sample(self, setting: Setting) -> int | None:
        """Return alpha: all connected supports have the same."""
        return setting.kept

    def draw(self, setting: Setting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_alpha / alpha, smaller by the samples whose support is not connected."""
        return draws.overlaps(setting, self.name, budget, k=None, alpha_of="support", connected=True)

    def overlap(self, matrix: Matrix, setting: Setting) -> float | None:
        """Return R_k / alpha; None where the support is not connected."""
        overlap, alpha = draws.forest_overlap(matrix, setting.k, "support")
        return None if alpha < setting.alpha else overlap

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: Terms) -> Outcome:
        """Judge a matrix whose support is connected."""
        forest = overlap.subject.forest
        if forest.alpha < overlap.setting.alpha:
            return not_tested(f"The support has {forest.n_components} components; the claim presumes 1.")
        return super().judge(claim, overlap, terms)


class Shuffles(SupportOverlaps):
    """The overlap of a given matrix, among those of shuffles of its weights on their support."""

    name = "shuffles"

    def misfit(self, setting: Setting) -> str | None:
        """Refuse where there is no matrix to shuffle."""
        return None if setting.distribution == "given" else "it is about a given matrix."

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: Terms) -> Outcome:
        """Compare X with the mean over shuffles: half the error for the mean, half for the band around it."""
        error = (1 - terms.confidence) / 2
        x = overlap.value
        t = overlap.tied_band(error) if overlap.tie else overlap.band(error)
        mean = MeanInterval(1 - error)
        verdict = "undecided"
        setting = overlap.setting if overlap.tie else _orders_of(overlap.setting)
        budget = setting.budget(terms.trials)
        for batch in _tied_shuffles(overlap, budget) if overlap.tie else SUPPORT.draw(setting, budget):
            mean.add(batch)
            terms.advance(mean.seen.count, budget, claim.id)
            is_last = mean.seen.count == budget
            verdict = _within_band(x, mean.ends, t, terms.tolerance if is_last else 0.0)
            if verdict != "undecided":
                break
        seen = mean.seen
        low, high = mean.ends
        deviation = math.sqrt(seen.squares / (seen.count - 1)) if seen.count > 1 else 0.0
        away = f", {(x - seen.mean) / deviation:+.1f} standard deviations away" if deviation else ""
        reason = f"X = {x:.4f}; the mean over {seen.count} shuffles is {seen.mean:.4f}{away}.{overlap.tie}"
        return Outcome(_clipped(low - t, high + t), x, None, (x, x), seen.count, verdict, reason)

    def example(self, claim: "Claim", setting: Setting, trials: int) -> dict[str, Any]:
        """Return nothing: the matrix itself is the example."""
        return {}


def _orders_of(setting: Setting) -> Setting:
    """Return the setting that draws orders of the cells only: for distinct weights a shuffle is nothing else."""
    orders = replace(setting, weights=None, distribution="none")
    return orders if setting.mask is not None else replace(orders, density=1.0, support="uniform")


def _tied_shuffles(overlap: MeasuredOverlap, budget: int) -> Iterator[Batch]:
    """Yield batches of overlaps of shuffles where a tie decides which weights are the k largest.

    The support stays, and with it alpha; R_k = m + n - kappa(F_k), so that no forest is needed.
    """
    setting = overlap.setting
    for numbers in draws.batches_of_numbers(budget):
        retained = []
        for number in numbers:
            matrix = draws.draw_matrix(setting, setting.stream(SUPPORT.name, number))
            largest = np.flatnonzero(magnitude_mask(matrix, overlap.k))
            retained.append(sum(matrix.shape) - count_components(largest, matrix.shape))
        yield Batch.of([rank / overlap.alpha for rank in retained])


def _outcome_of_one(bound: Interval, interval: Interval, overlap: MeasuredOverlap, t: float, terms: Terms) -> Outcome:
    """Return the outcome of a claim by one overlap, which lies within t of its mean if the hypothesis is met."""
    reason = f"X = {overlap.value:.4f}; if the weights are exchangeable and distinct, E[X] is within {t:.4f} of it "
    reason += f"with confidence {terms.confidence:g}.{overlap.tie}"
    verdict = decide(bound, interval, terms.tolerance)
    return Outcome(bound, overlap.value, None, interval, 1, verdict, reason)


def _within_band(x: float, mean: Interval, t: float, tolerance: float) -> str:
    """Return the verdict on "x is within t of the mean" if the mean lies in an interval."""
    low, high = mean
    if not low - t <= x <= high + t:
        return "violated"
    return "holds" if high - t - tolerance <= x <= low + t + tolerance else "undecided"


def _clipped(low: float, high: float) -> Interval:
    return max(0.0, low), min(1.0, high)


LAYER = LayerOverlaps()
SUPPORT = SupportOverlaps()
CONNECTED = ConnectedOverlaps()
OUTLIERS = Outliers()
SHUFFLES = Shuffles()
MATRIX = EveryMatrix()
GUDHI_MATRIX = EveryMatrix(GUDHI_CELLS, GUDHI_CELLS)
