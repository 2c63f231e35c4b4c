"""The claims, as data: what each says, under which hypothesis, and to what samples it is put.

Every claim is that a mean lies in an interval: of the overlap, of an indicator, or, for a claim about every matrix,
of "it is so" (the interval is then the one point 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from topobounds.theory.bounds import boruvka_bound, corollary_3_4_repaired, star_bound
from topobounds.theory.enclosure import expected_overlap
from topobounds.theory.overlap import overlap_limit, spread
from topobounds.theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
from topobounds.theory.supports import support_bound
from topobounds.verification import matrices
from topobounds.verification.samples import Matrix, Setting

Interval = tuple[float, float]
Bound = Callable[[Setting], Interval]
Check = Callable[[Matrix, np.random.Generator], bool]

TAIL = 0.1  # probability of the band whose outliers are counted

EXCHANGEABLE = "|w| exchangeable and distinct"
LAYER = f"{EXCHANGEABLE}, on all cells or a uniformly random support"
ANY = "any real matrix"


@dataclass(frozen=True)
class Claim:
    """A claim that can be put to samples.

    Attributes
    ----------
    id : str
        Its name.
    source : str
        Where it stands.
    statement, hypothesis : str
        What it says, and of what.
    direction : str
        How the mean is to compare with the bound: ``">="``, ``"<="``, ``"in"`` an interval, or ``"always"``.
    sample : str
        What is drawn: ``"layer"``, ``"support"``, ``"connected"`` (see `topobounds.verification.samples`), ``"tail"``
        or ``"matrix"``; ``"shuffles"`` for what only a given matrix can be put to.
    bound : callable or None
        The interval, from the setting, of what is drawn as ``"layer"``, ``"support"``, ``"connected"`` or ``"tail"``.
    check : callable or None
        For ``"matrix"``: whether a matrix bears the claim out.
    at_alpha : bool
        Whether it is about k = alpha only.
    """

    id: str
    source: str
    statement: str
    hypothesis: str
    direction: str
    sample: str
    bound: Bound | None = None
    check: Check | None = None
    at_alpha: bool = False

    def interval(self, setting: Setting) -> Interval:
        """Return the bound as an interval; [1, 1] for a claim about every matrix."""
        return self.bound(setting) if self.bound else (1.0, 1.0)


def _repaired(setting: Setting) -> Interval:
    if setting.mask is None and setting.k is None:
        return corollary_3_4_repaired(setting.m, setting.n, setting.density), 1.0
    if setting.mask is None:
        return boruvka_bound(setting.m, setting.n, setting.kept), 1.0
    return support_bound(setting.mask, setting.k), 1.0


def _enclosure(setting: Setting) -> Interval:
    enclosure = expected_overlap(setting.m, setting.n, setting.kept)
    return enclosure.lower, enclosure.upper


def _limit(setting: Setting) -> Interval:
    limit, error = overlap_limit(setting.m, setting.n, setting.kept), 1 / min(setting.m, setting.n)
    return max(0.0, limit - error), min(1.0, limit + error)


def band(cells: int, k: int, alpha: int, probability: float) -> float:
    """Return t such that X_k = R_k / alpha is at least t from its mean with at most this probability.

    The k largest weights are a random subset of `cells` cells, and one swapped cell changes R_k by at most 1.
    """
    return math.sqrt(spread(cells, k) / 2 * math.log(2 / probability)) / alpha if 0 < k < cells else 0.0


def _value(claim: PrintedClaim) -> float:
    if claim.value is None:
        raise ValueError(claim.reason)
    return claim.value


CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "theorem_3_2",
            "Theorem 3.2",
            "alpha weights, the spanning forest, preserve the diagram; fewer never do",
            ANY,
            "always",
            "matrix",
            check=matrices.theorem_3_2,
        ),
        Claim(
            "theorem_3_3",
            "Theorem 3.3",
            "E[X] >= sum_{i<j} (m - i)(n - i) / (m n - i) / (m + n - 1), j = min(m, n); 1 for j = 1",
            LAYER,
            ">=",
            "layer",
            lambda s: (_value(theorem_3_3(s.m, s.n)), 1.0),
            at_alpha=True,
        ),
        Claim(
            "corollary_3_4",
            "Corollary 3.4, as printed",
            "E[X] >= min(1, sum_{i<j} (m - i)(n - i) / (p m n - i) / (m + n - 1)), j = min(m, n)",
            f"{EXCHANGEABLE}, on a connected support of density p",
            ">=",
            "connected",
            lambda s: (_value(corollary_3_4(s.m, s.n, s.density)), 1.0),
            at_alpha=True,
        ),
        Claim(
            "corollary_3_4_repaired",
            "Corollary 3.4, repaired",
            "E[X_k] >= the Boruvka bound on a uniformly random support, its form by degrees on a fixed one",
            f"{EXCHANGEABLE}, on a uniformly random or fixed support",
            ">=",
            "support",
            _repaired,
        ),
        Claim(
            "star_bound",
            "Star bound",
            "E[X_k] >= max(n (1 - q(m)), m (1 - q(n))) / (m + n - 1)",
            LAYER,
            ">=",
            "layer",
            lambda s: (star_bound(s.m, s.n, s.kept), 1.0),
        ),
        Claim(
            "boruvka_bound",
            "Boruvka bound",
            "E[X_k] >= (m (1 - q(n)) + n (1 - q(m)) - m n / alpha (1 - q(alpha))) / alpha",
            LAYER,
            ">=",
            "layer",
            lambda s: (boruvka_bound(s.m, s.n, s.kept), 1.0),
        ),
        Claim(
            "enclosure",
            "Certified enclosure",
            "lower <= E[X_k] <= upper",
            LAYER,
            "in",
            "layer",
            _enclosure,
        ),
        Claim(
            "concentration",
            "Concentration",
            f"P(|X_k - E X_k| >= t) <= 2 exp(-2 alpha^2 t^2 / v), here with t such that this is {TAIL}",
            LAYER,
            "<=",
            "tail",
            lambda s: (0.0, TAIL),
        ),
        Claim(
            "limit",
            "Limit of large layers",
            "|E[X_k] - limit| <= 1 / min(m, n), a rate that is measured, not proved",
            LAYER,
            "in",
            "layer",
            _limit,
        ),
        Claim(
            "component_identity",
            "Greedy property of Kruskal's algorithm",
            "|forest ∩ top-k| = m + n - kappa(F_k)",
            ANY,
            "always",
            "matrix",
            check=matrices.component_identity,
        ),
        Claim(
            "t_imp_preserves",
            "Section 3.4 (T-IMP)",
            "the mask of the forest and the largest other weights leaves the diagram as it is, bit for bit",
            ANY,
            "always",
            "matrix",
            check=matrices.t_imp_preserves,
        ),
        Claim(
            "diagram_equals_gudhi",
            "Section 2.3",
            "our diagram is gudhi's, zeros read either way",
            ANY,
            "always",
            "matrix",
            check=matrices.diagram_equals_gudhi,
        ),
        Claim(
            "exchangeable",
            "The hypothesis itself, of a given matrix",
            "X_k of the matrix is within the concentration band of its mean over shuffles of the weights",
            "|w| exchangeable on its support",
            "in",
            "shuffles",
        ),
    )
}
