"""What a claim is tested on: each kind of sample is a class, and a claim holds an object of it.

A kind says which layers it fits, what is drawn, how one given matrix is judged, and how a violation is shown again.
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topobounds._text import counted
from topobounds._types import Array, Interval
from topobounds.chance.sampling import sample_supports
from topobounds.montecarlo import retained_counts
from topobounds.theory.enclosure import spread
from topobounds.theory.overlap import expected_overlap_of
from topobounds.theory.persistence import expected_persistence, persistence_range, persistences, sufficient_rank
from topobounds.verification import draws, judging
from topobounds.verification.batches import Batch
from topobounds.verification.draws import DrawSetting
from topobounds.verification.judging import TOO_LARGE, JudgingTerms, Outcome
from topobounds.verification.permutation import PermutationTest
from topobounds.verification.sequential import MeanInterval
from topobounds.verification.subject import Subject, count_components

if TYPE_CHECKING:
    from topobounds.verification.claims import Claim

TAIL = 0.1  # probability of the band whose outliers are counted
_TRIES = 200  # matrices among which a sample on the wrong side of a bound is looked for
_MATRIX_CELLS = 1_000_000  # of all matrices that a claim about every matrix is tested on by default,
_GUDHI_CELLS = 500_000  # and where gudhi goes through them too, or many masks of them are compared
_MOST_MATRICES = 100
_MOST_PLACED, _PLACED_CELLS = 100_000, 80_000_000  # times that values are placed by default, and cells drawn for it
_SAME = 1e-9  # relative difference below which two neural persistences are one
_ENOUGH_AS_EXTREME = 20  # shuffles as extreme as a matrix, after which no more are drawn


def enclosure(setting: DrawSetting) -> Interval:
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

    def misfit(self, setting: DrawSetting) -> str | None:
        """Return why claims of this kind say nothing of these layers, None if they do say something."""
        return None

    def adapt(self, setting: DrawSetting) -> DrawSetting:
        """Return the setting whose layers meet the hypothesis, as close to this one as there is."""
        return setting

    @abstractmethod
    def stream(self, claim: "Claim", setting: DrawSetting) -> str:
        """Return the name of the random numbers; claims with the same one share their samples."""

    def direction(self, claim: "Claim", setting: DrawSetting) -> str:
        """Return how the mean is to compare with the bound, as in `Claim.direction`."""
        return claim.direction

    def k_of_every_sample(self, setting: DrawSetting) -> int | None:
        """Return the number of largest weights, None where it differs from sample to sample."""
        return setting.kept

    @abstractmethod
    def test_samples(self, claims: "Sequence[Claim]", setting: DrawSetting, terms: JudgingTerms) -> dict[str, Outcome]:
        """Test claims that share a stream on samples drawn from it; return the outcome of each by its id."""

    @abstractmethod
    def test_subject(self, claim: "Claim", subject: Subject, setting: DrawSetting, terms: JudgingTerms) -> Outcome:
        """Test a claim on one given matrix."""

    def example(self, claim: "Claim", setting: DrawSetting, trials: int) -> dict[str, Any]:
        """Return what shows the violation seen after so many trials: a ``matrix``, and what is known of it.

        A witness holds these entries beside the arguments of the call, so none may have the name of an argument. They
        are empty for kinds that show violations by the seed only, and where no such matrix is at hand.
        """
        return {}

    def check_example(self, claim: "Claim", setting: DrawSetting, matrix: Array, known: dict[str, Any]) -> None:
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
    drawn_cells: int = _MATRIX_CELLS
    subject_cells: int = draws.CELLS

    def stream(self, claim: "Claim", setting: DrawSetting) -> str:
        """Return the id of the claim: each draws its own matrices."""
        return claim.id

    def test_samples(self, claims: "Sequence[Claim]", setting: DrawSetting, terms: JudgingTerms) -> dict[str, Outcome]:
        """Test each claim on one matrix after another, until one contradicts it."""
        return {claim.id: self._test_matrices(claim, setting, terms) for claim in claims}

    def _test_matrices(self, claim: "Claim", setting: DrawSetting, terms: JudgingTerms) -> Outcome:
        size = setting.m * setting.n
        budget = min(_MOST_MATRICES, self.drawn_cells // size) if terms.trials is None else terms.trials
        for number in range(budget):
            terms.advance(number, budget, claim.id)
            matrix = draws.draw_matrix(setting, setting.random_generator(claim.id, number))
            if not self._bears_out(claim, Subject(matrix), setting, number):
                return judging.outcome_of_matrices(number + 1, True, terms)
        return judging.outcome_of_matrices(budget, False, terms)

    def test_subject(self, claim: "Claim", subject: Subject, setting: DrawSetting, terms: JudgingTerms) -> Outcome:
        """Test a claim on one given matrix, which is one sample."""
        if terms.trials is None and subject.weights.size > self.subject_cells:
            return judging.outcome_of_matrices(0, False, terms)
        return judging.outcome_of_matrices(1, not self._bears_out(claim, subject, setting, 0), terms)

    def example(self, claim: "Claim", setting: DrawSetting, trials: int) -> dict[str, Any]:
        """Return the counterexample: the last matrix that was drawn."""
        number = trials - 1
        return {"number": number, "matrix": draws.draw_matrix(setting, setting.random_generator(claim.id, number))}

    def check_example(self, claim: "Claim", setting: DrawSetting, matrix: Array, known: dict[str, Any]) -> None:
        """Refuse a matrix that bears the claim out."""
        if self._bears_out(claim, Subject(matrix), setting, known["number"]):
            raise ValueError("the matrix in it is no counterexample")

    def _bears_out(self, claim: "Claim", subject: Subject, setting: DrawSetting, number: int) -> bool:
        """Whether a matrix bears the claim out; what the check draws follows from the seed and the matrix's number."""
        assert claim.check is not None
        return claim.check(subject, setting.random_generator(claim.id, number, 1))


# -- claims about the mean of the overlap ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MeasuredOverlap:
    """The overlap X_k of a given matrix, and what decides how far it may lie from its mean.

    Attributes
    ----------
    subject, setting : Subject, DrawSetting
        The matrix.
    cells : int
        The k largest weights are a random subset of so many cells, if the weights are exchangeable.
    alpha : int
        Denominator of X_k.
    k : int
        Largest weights.
    """

    subject: Subject
    setting: DrawSetting
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

    @cached_property
    def range(self) -> Interval:
        """The least and the largest X_k of the matrix, in whatever order weights that tie at the cut are ranked."""
        if not self.tie:
            return self.value, self.value
        above, at_least = self.tie_counts
        before, after = self.subject.retained(above), self.subject.retained(at_least)
        least, most = max(before, after - (at_least - self.k)), min(after, before + self.k - above)
        return least / self.alpha, most / self.alpha

    @cached_property
    def tie_counts(self) -> tuple[int, int]:
        """Weights above the k-th largest, and weights at least as large."""
        return self.subject.tie_counts(self.k)

    def band(self, error: float) -> float:
        """Return how far X_k is from its mean at most, but with the probability `error`."""
        return band(self.cells, self.k, self.alpha, error)


class Overlaps(Kind):
    """Overlaps, whose mean is to lie in the bound."""

    @abstractmethod
    def draw(self, setting: DrawSetting, budget: int) -> Iterator[Batch]:
        """Yield batches of overlaps, or of what else lies in [0, 1]."""

    @abstractmethod
    def overlap(self, matrix: Array, setting: DrawSetting) -> float | None:
        """Return the overlap of a matrix; None where it does not meet the hypothesis."""

    def source(self, setting: DrawSetting) -> "Overlaps":
        """Return the kind whose samples serve: on all cells every overlap is that of the layer."""
        return LAYER if setting.density == 1 else self

    def stream(self, claim: "Claim", setting: DrawSetting) -> str:
        """Return the name of the kind whose samples serve: claims of one kind share them."""
        return self.source(setting).name

    def test_samples(self, claims: "Sequence[Claim]", setting: DrawSetting, terms: JudgingTerms) -> dict[str, Outcome]:
        """Test claims on the same overlaps; each is decided at its own time."""
        budget = setting.budget(terms.trials)
        bounds = {claim.id: claim.interval(setting) for claim in claims}
        outcomes: dict[str, Outcome] = {}
        interval = MeanInterval(terms.confidence)
        for batch in self.source(setting).draw(setting, budget):
            interval.add(batch)
            terms.advance(interval.seen.count, budget, claims[0].id)
            for name in [name for name in bounds if name not in outcomes]:
                verdict = judging.decide(bounds[name], interval.ends)
                if verdict != "undecided":
                    outcomes[name] = judging.outcome_of_mean(bounds[name], interval, verdict, terms)
            if len(outcomes) == len(bounds):
                break
        # The trials are spent: now the tolerance counts.
        for name in [name for name in bounds if name not in outcomes]:
            verdict = judging.decide(bounds[name], interval.ends, terms.tolerance)
            outcomes[name] = judging.outcome_of_mean(bounds[name], interval, verdict, terms)
        moved = self.moved_by_ties(setting)
        return {name: judging.spared_for_ties(outcome, moved) for name, outcome in outcomes.items()}

    def moved_by_ties(self, setting: DrawSetting) -> float:
        """Return by how much X may differ if those of the shuffled weights that tie at the cut are in another order."""
        return draws.moved_by_ties(setting)

    def population(self, subject: Subject) -> tuple[int, int]:
        """Return the cells that the largest weights are a random subset of, and the alpha that X is over."""
        return subject.weights.size, sum(subject.weights.shape) - 1

    def test_subject(self, claim: "Claim", subject: Subject, setting: DrawSetting, terms: JudgingTerms) -> Outcome:
        """Test a claim on the one overlap of a given matrix."""
        cells, alpha = self.population(subject)
        k = alpha if setting.k is None else setting.k
        if k > subject.n_weights:
            return judging.not_tested(
                f"The layer has {counted(subject.n_weights, 'weight')} other than zero, fewer than the {k} to keep."
            )
        return self.judge(claim, MeasuredOverlap(subject, setting, cells, alpha, k), terms)

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: JudgingTerms) -> Outcome:
        """Judge a claim by one overlap, which lies within t of its mean if the hypothesis is met.

        A rule for ties does not meet it, a random order of them does: so the overlap is any that another order gives.
        """
        t = overlap.band(1 - terms.confidence)
        interval = _clipped(overlap.range[0] - t, overlap.range[1] + t)
        return _outcome_of_one(claim.interval(overlap.setting), interval, overlap, t, terms)

    def example(self, claim: "Claim", setting: DrawSetting, trials: int) -> dict[str, Any]:
        """Return the first sample on the wrong side of the bound, with its overlap."""
        adapted = self.adapt(setting)
        low, high = claim.interval(adapted)
        for number in range(_TRIES):
            matrix = draws.draw_matrix(adapted, setting.random_generator("example", number))
            overlap = self.overlap(matrix, setting)
            if overlap is not None and not low <= overlap <= high:
                return {"matrix": matrix, "overlap": overlap}
        return {}

    def check_example(self, claim: "Claim", setting: DrawSetting, matrix: Array, known: dict[str, Any]) -> None:
        """Refuse a matrix that has another overlap than is known of it."""
        overlap = self.overlap(matrix, setting)
        if overlap != known["overlap"]:
            raise ValueError(f"the matrix in it has the overlap {overlap}, not {known['overlap']}")


class LayerOverlaps(Overlaps):
    """R_k / (m + n - 1), k the same for every support: that of the complete layer, or of uniformly random supports."""

    name = "layer"

    def misfit(self, setting: DrawSetting) -> str | None:
        """Refuse to keep more weights than a shuffled matrix has."""
        if setting.distribution == "shuffled" and setting.kept > setting.cells:
            return f"the matrix has {counted(setting.cells, 'weight')} other than zero, fewer than {setting.kept}."
        return None

    def adapt(self, setting: DrawSetting) -> DrawSetting:
        """Take the complete layer where the supports are not uniformly random, or too thin."""
        if setting.support != "uniform" or setting.kept > setting.cells:
            return replace(setting, density=1.0, support="uniform")
        return setting

    def draw(self, setting: DrawSetting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_k / (m + n - 1)."""
        return draws.overlaps(setting, self.name, budget, k=setting.kept, alpha_of="complete")

    def overlap(self, matrix: Array, setting: DrawSetting) -> float | None:
        """Return R_k / (m + n - 1)."""
        return draws.forest_overlap(matrix, setting.kept, "complete")[0]


class Outliers(LayerOverlaps):
    """Whether R_k / (m + n - 1) lies outside the band around its mean: 1 or 0."""

    name = "tail"

    def source(self, setting: DrawSetting) -> Overlaps:
        """Return this kind: no other one draws outliers."""
        return self

    def draw(self, setting: DrawSetting, budget: int) -> Iterator[Batch]:
        """Yield batches of 1 for outside, 0 for inside."""
        low, high = enclosure(setting)
        t = band(setting.m * setting.n, setting.kept, setting.alpha, TAIL)
        return draws.outliers(setting, budget, low - t, high + t)

    def moved_by_ties(self, setting: DrawSetting) -> float:
        """Return 1 where ties may move X at all: then any share of outliers may be due to them."""
        return float(super().moved_by_ties(setting) > 0)

    def direction(self, claim: "Claim", setting: DrawSetting) -> str:
        """Return "in" for a given matrix, whose one overlap is to lie in the band."""
        return "in" if setting.distribution == "given" else claim.direction

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: JudgingTerms) -> Outcome:
        """Judge by whether the overlap lies in the band around the enclosure of its mean."""
        t = overlap.band(1 - terms.confidence)
        low, high = enclosure(overlap.setting)
        return _outcome_of_one(_clipped(low - t, high + t), overlap.range, overlap, t, terms)

    def example(self, claim: "Claim", setting: DrawSetting, trials: int) -> dict[str, Any]:
        """Return nothing: no single matrix shows a share of outliers."""
        return {}


class SupportOverlaps(Overlaps):
    """R_k / alpha, alpha that of the sample's own support; it is also k, where none is set."""

    name = "support"

    def adapt(self, setting: DrawSetting) -> DrawSetting:
        """Fix one support, where they are not uniformly random."""
        if setting.support != "uniform":
            return replace(setting, mask=draws.draw_support(setting, setting.random_generator("mask")))
        return setting

    def k_of_every_sample(self, setting: DrawSetting) -> int | None:
        """Return None for alpha on uniformly random supports, where it differs."""
        differs = setting.k is None and setting.support == "uniform" and setting.density < 1
        return None if differs else setting.kept

    def draw(self, setting: DrawSetting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_k / alpha."""
        return draws.overlaps(setting, self.name, budget, k=setting.k, alpha_of="support")

    def overlap(self, matrix: Array, setting: DrawSetting) -> float | None:
        """Return R_k / alpha."""
        return draws.forest_overlap(matrix, setting.k, "support")[0]

    def population(self, subject: Subject) -> tuple[int, int]:
        """Return the number of weights and the alpha of the matrix itself."""
        return subject.n_weights, subject.forest.alpha


class ConnectedOverlaps(SupportOverlaps):
    """R_alpha / alpha of those samples whose support is connected."""

    name = "connected"

    def adapt(self, setting: DrawSetting) -> DrawSetting:
        """Draw the supports anew for every sample, of whatever kind they are."""
        return setting

    def k_of_every_sample(self, setting: DrawSetting) -> int | None:
        """Return alpha: all connected supports have the same."""
        return setting.kept

    def draw(self, setting: DrawSetting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_alpha / alpha, smaller by the samples whose support is not connected."""
        return draws.overlaps(setting, self.name, budget, k=None, alpha_of="support", connected=True)

    def overlap(self, matrix: Array, setting: DrawSetting) -> float | None:
        """Return R_k / alpha; None where the support is not connected."""
        overlap, alpha = draws.forest_overlap(matrix, setting.k, "support")
        return None if alpha < setting.alpha else overlap

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: JudgingTerms) -> Outcome:
        """Judge a matrix whose support is connected."""
        forest = overlap.subject.forest
        if forest.alpha < overlap.setting.alpha:
            return judging.not_tested(f"The support has {forest.n_components} components; the claim presumes 1.")
        return super().judge(claim, overlap, terms)


class Shuffles(SupportOverlaps):
    """The overlap of a given matrix, among those of shuffles of its weights on their support."""

    name = "shuffles"

    def misfit(self, setting: DrawSetting) -> str | None:
        """Refuse where there is no matrix to shuffle."""
        return None if setting.distribution == "given" else "it is about a given matrix."

    def judge(self, claim: "Claim", overlap: MeasuredOverlap, terms: JudgingTerms) -> Outcome:
        """Compare X with shuffles by a permutation test."""
        test = PermutationTest(overlap.subject.retained(overlap.k), overlap.alpha)
        budget = _shuffles(overlap) if terms.trials is None else terms.trials
        for numbers in draws.batches_of_numbers(budget):
            test.counts.update(_retained_by_shuffles(overlap, numbers))
            terms.advance(test.shuffles, budget, claim.id)
            # Ending early can only spare a matrix: a violation is told by all the shuffles alone.
            if test.as_extreme >= _ENOUGH_AS_EXTREME and test.p_value > terms.error:
                break
        return judging.outcome_of_permutations(test, overlap.tie, terms)

    def example(self, claim: "Claim", setting: DrawSetting, trials: int) -> dict[str, Any]:
        """Return nothing: the matrix itself is the example."""
        return {}


class NetworkOverlaps(Overlaps):
    """R_k / alpha of a network of widths m, n, m, n, whose weights are ranked together, at k = alpha."""

    name = "network"

    def misfit(self, setting: DrawSetting) -> str | None:
        """Refuse given weights, which make one layer, and networks that are too large to list."""
        if setting.weights is not None:
            return "it is about networks of three layers."
        cells = 3 * setting.m * setting.n
        return f"networks of {cells} weights are too large for it." if cells > draws.CELLS else None

    def adapt(self, setting: DrawSetting) -> DrawSetting:
        """Take complete layers."""
        return replace(setting, density=1.0, support="uniform")

    def source(self, setting: DrawSetting) -> Overlaps:
        """Return this kind: no other one draws networks."""
        return self

    def k_of_every_sample(self, setting: DrawSetting) -> int | None:
        """Return alpha of the network."""
        return 2 * setting.alpha + 1

    def draw(self, setting: DrawSetting, budget: int) -> Iterator[Batch]:
        """Yield batches of R_k / alpha: the network's graph joins its two groups of inputs to its two of outputs."""
        present = np.ones((2 * setting.m, 2 * setting.n), np.bool_)
        present[: setting.m, setting.n :] = False  # the first group feeds the second alone
        network = replace(setting, m=2 * setting.m, n=2 * setting.n, support="mask", distribution="none", mask=present)
        return draws.overlaps(network, self.name, budget, k=None, alpha_of="support")

    def overlap(self, matrix: Array, setting: DrawSetting) -> float | None:
        """Return None: a matrix is one layer only."""
        return None

    def example(self, claim: "Claim", setting: DrawSetting, trials: int) -> dict[str, Any]:
        """Return nothing: no single matrix is a network."""
        return {}


# -- claims about the mean of neural persistence -----------------------------------------------------------------------


class PlacedValues(Kind):
    """NP^2 of fixed values at random cells of the complete layer: 0 for the least they can have, 1 for the most."""

    name = "values"

    def misfit(self, setting: DrawSetting) -> str | None:
        """Refuse matrices with zeros."""
        return "it has zeros." if setting.weights is not None and setting.density < 1 else None

    def adapt(self, setting: DrawSetting) -> DrawSetting:
        """Take the complete layer."""
        return replace(setting, density=1.0, support="uniform")

    def stream(self, claim: "Claim", setting: DrawSetting) -> str:
        """Return the name of the kind."""
        return self.name

    def k_of_every_sample(self, setting: DrawSetting) -> int | None:
        """Return None: no number of largest weights plays a part."""
        return None

    def test_samples(self, claims: "Sequence[Claim]", setting: DrawSetting, terms: JudgingTerms) -> dict[str, Outcome]:
        """Test each claim on the values of one matrix."""
        if terms.trials is None and setting.m * setting.n > draws.CELLS:
            return {claim.id: judging.not_tested(TOO_LARGE) for claim in claims}
        if setting.distribution == "none":
            # Values that fall off within a few alpha: of uniform ones the few late forest edges would be all of NP.
            matrix = np.exp(-np.arange(setting.m * setting.n) / setting.alpha).reshape(setting.m, setting.n)
        else:
            matrix = draws.draw_matrix(setting, setting.random_generator(self.name))
        return {claim.id: self._test_values(claim, matrix, setting, terms) for claim in claims}

    def test_subject(self, claim: "Claim", subject: Subject, setting: DrawSetting, terms: JudgingTerms) -> Outcome:
        """Test a claim on the values of a given matrix."""
        if terms.trials is None and subject.weights.size > draws.CELLS:
            return judging.not_tested(TOO_LARGE)
        return self._test_values(claim, subject.weights, setting, terms)

    def _test_values(self, claim: "Claim", matrix: Array, setting: DrawSetting, terms: JudgingTerms) -> Outcome:
        m, n = matrix.shape
        magnitudes = np.sort(np.abs(matrix).ravel().astype(np.float64))[::-1]
        possible = persistence_range(m, n, magnitudes)
        expected = expected_persistence(m, n, magnitudes)
        if possible.upper <= possible.lower * (1 + _SAME):
            return judging.not_tested("Every order of these values has the same neural persistence.")

        def placed(persistence: float) -> float:
            return min(1.0, max(0.0, (persistence - possible.lower) / possible.width))

        bound = placed(expected.lower), placed(expected.upper)
        budget = terms.trials or max(1, min(_MOST_PLACED, _PLACED_CELLS // sufficient_rank(m, n)))
        interval = MeanInterval(terms.confidence)
        for batch in self._draw(magnitudes, (m, n), setting, budget):
            interval.add(Batch.of([placed(persistence) for persistence in batch]))
            terms.advance(interval.seen.count, budget, claim.id)
            if judging.decide(bound, interval.ends) != "undecided":
                break
        slack = terms.tolerance if interval.seen.count == budget else 0.0
        return judging.outcome_of_mean(bound, interval, judging.decide(bound, interval.ends, slack), terms)

    def _draw(
        self, magnitudes: NDArray[np.float64], shape: tuple[int, int], setting: DrawSetting, budget: int
    ) -> Iterator[NDArray[np.float64]]:
        """Yield batches of NP^2."""
        by_rank = persistences(magnitudes, 2)

        def persistence(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.asarray(by_rank[ranks - 1].sum(axis=1))

        every = np.ones(shape, np.bool_)
        for numbers in draws.batches_of_numbers(budget):
            seed = int(setting.random_generator(self.name, numbers.start).integers(1 << 63))
            yield sample_supports(every, sum(shape) - 1, persistence, len(numbers), seed).values


def _shuffles(overlap: MeasuredOverlap) -> int:
    """Return how many shuffles to draw at most: what takes a few seconds."""
    budget = replace(overlap.setting, distribution="none").budget(None)
    if not overlap.tie:
        return budget
    return max(1, min(draws.USUAL, draws.CELLS // overlap.tie_counts[1]))


def _retained_by_shuffles(overlap: MeasuredOverlap, numbers: range) -> Counter[int]:
    """Return how many shuffles of the weights on their support have so many forest edges among the k largest."""
    setting = overlap.setting
    if overlap.tie:
        return Counter(
            _retained_by_tied_shuffle(overlap, setting.random_generator(SUPPORT.name, number)) for number in numbers
        )
    return retained_counts(
        setting.m,
        setting.n,
        overlap.k,
        support="uniform" if setting.mask is None else setting.mask,
        trials=len(numbers),
        seed=int(setting.random_generator(SUPPORT.name, numbers.start).integers(1 << 63)),
    )


def _retained_by_tied_shuffle(overlap: MeasuredOverlap, rng: np.random.Generator) -> int:
    """Return |forest ∩ top-k| of one shuffle where a tie decides which weights are the k largest.

    The support stays. The cells of the weights above the k-th are a random subset of it, and so are those that tie with
    it, of which the first by index count: R_k = m + n - kappa(F_k), so that no forest is needed.
    """
    weights = overlap.subject.weights
    support = np.flatnonzero(weights)
    above, at_least = overlap.tie_counts
    drawn = support[rng.choice(support.size, at_least, replace=False)]
    tied = np.sort(drawn[above:])[: overlap.k - above]
    return sum(weights.shape) - count_components(np.concatenate([drawn[:above], tied]), weights.shape)


def _outcome_of_one(
    bound: Interval, interval: Interval, overlap: MeasuredOverlap, t: float, terms: JudgingTerms
) -> Outcome:
    """Return the outcome of a claim by one overlap, which lies within t of its mean if the hypothesis is met."""
    reason = f"X = {overlap.value:.4f}{_told_of_ties(overlap)}; if the weights are exchangeable and distinct, E[X] is "
    reason += f"within {t:.4f} of it with confidence {terms.confidence:g}."
    if overlap.tie:
        reason += " The claim presumes distinct weights, or ties in random order, not by their place."
    verdict = judging.decide(bound, interval, terms.tolerance)
    return Outcome(bound, overlap.value, None, interval, 1, verdict, reason)


def _told_of_ties(overlap: MeasuredOverlap) -> str:
    """Return that a tie decides which weights are the k largest, and where X_k is in any order; "" if none does."""
    if not overlap.tie:
        return ""
    low, high = overlap.range
    k = overlap.k
    return (
        f", but the weights ranked {k} and {k + 1} tie, and in any order of ties it is within [{low:.4f}, {high:.4f}]"
    )


def _clipped(low: float, high: float) -> Interval:
    return max(0.0, low), min(1.0, high)


LAYER = LayerOverlaps()
SUPPORT = SupportOverlaps()
CONNECTED = ConnectedOverlaps()
OUTLIERS = Outliers()
SHUFFLES = Shuffles()
NETWORK = NetworkOverlaps()
VALUES = PlacedValues()
MATRIX = EveryMatrix()
GUDHI_MATRIX = EveryMatrix(_GUDHI_CELLS, _GUDHI_CELLS)
COMPARED_MATRIX = EveryMatrix(_GUDHI_CELLS, _GUDHI_CELLS)
