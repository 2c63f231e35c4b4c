"""The claims, as data: what each says, under which hypothesis, and on what kind of samples it is tested.

Every claim is that a mean lies in an interval: of the overlap, of an indicator, or, for a claim about every matrix,
of "it is so" (the interval is then the one point 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from topobounds.theory.overlap import boruvka_bound, corollary_3_4_repaired, overlap_limit, star_bound
from topobounds.theory.paper import PrintedClaim, corollary_3_4, theorem_3_3
from topobounds.theory.supports import support_bound
from topobounds.verification import checks, kinds
from topobounds.verification.draws import Setting
from topobounds.verification.judging import Interval
from topobounds.verification.kinds import TAIL, Kind
from topobounds.verification.subject import Subject

Bound = Callable[[Setting], Interval]
Check = Callable[[Subject, np.random.Generator], bool]

EXCHANGEABLE = "|w| exchangeable and distinct"
EXCHANGEABLE_LAYER = f"{EXCHANGEABLE}, on all cells or a uniformly random support"
ANY_MATRIX = "any real matrix"


@dataclass(frozen=True)
class Claim:
    """A claim that can be tested on samples.

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
    kind : Kind
        What is drawn, and how it is judged; see `topobounds.verification.kinds`.
    bound : callable or None
        The interval, from the setting; None for a claim about every matrix, and where shuffles give it.
    check : callable or None
        For a claim about every matrix: whether a matrix bears it out.
    at_alpha : bool
        Whether it is about k = alpha only.
    no_bound : callable or None
        Why there is no bound for the layers of a setting, None where there is one; None for a claim that always has it.
    """

    id: str
    source: str
    statement: str
    hypothesis: str
    direction: str
    kind: Kind
    bound: Bound | None = None
    check: Check | None = None
    at_alpha: bool = False
    no_bound: Callable[[Setting], str | None] | None = None

    @property
    def sample(self) -> str:
        """Name of the kind of samples."""
        return self.kind.name

    def interval(self, setting: Setting) -> Interval:
        """Return the bound as an interval; [1, 1] for a claim about every matrix."""
        return self.bound(setting) if self.bound else (1.0, 1.0)

    def misfit(self, setting: Setting) -> str | None:
        """Return why the claim says nothing of these layers, None if it does say something."""
        if self.at_alpha and setting.kept != setting.alpha:
            return f"it is about the {setting.alpha} largest weights, not {setting.kept}."
        # A given matrix has a support of its own, on which the kind decides.
        if self.no_bound is not None and setting.distribution != "given":
            return self.no_bound(setting) or self.kind.misfit(setting)
        return self.kind.misfit(setting)


def _repaired(setting: Setting) -> Interval:
    if setting.mask is None and setting.k is None:
        return corollary_3_4_repaired(setting.m, setting.n, setting.density), 1.0
    if setting.mask is None:
        return boruvka_bound(setting.m, setting.n, setting.kept), 1.0
    return support_bound(setting.mask, setting.k), 1.0


def _limit(setting: Setting) -> Interval:
    limit = overlap_limit(setting.m, setting.n, setting.kept)
    error = 1 / min(setting.m, setting.n)
    return max(0.0, limit - error), min(1.0, limit + error)


def _no_corollary(setting: Setting) -> str | None:
    printed = corollary_3_4(setting.m, setting.n, setting.density)
    return printed.reason if printed.value is None else None


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
            ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.theorem_3_2,
        ),
        Claim(
            "theorem_3_3",
            "Theorem 3.3",
            "E[X] >= sum_{i<j} (m - i)(n - i) / (m n - i) / (m + n - 1), j = min(m, n); 1 for j = 1",
            EXCHANGEABLE_LAYER,
            ">=",
            kinds.LAYER,
            lambda s: (_value(theorem_3_3(s.m, s.n)), 1.0),
            at_alpha=True,
        ),
        Claim(
            "corollary_3_4",
            "Corollary 3.4, as printed",
            "E[X] >= min(1, sum_{i<j} (m - i)(n - i) / (p m n - i) / (m + n - 1)), j = min(m, n)",
            f"{EXCHANGEABLE}, on a connected support of density p",
            ">=",
            kinds.CONNECTED,
            lambda s: (_value(corollary_3_4(s.m, s.n, s.density)), 1.0),
            at_alpha=True,
            no_bound=_no_corollary,
        ),
        Claim(
            "corollary_3_4_repaired",
            "Corollary 3.4, repaired",
            "E[X_k] >= the Boruvka bound on a uniformly random support, its form by degrees on a fixed one",
            f"{EXCHANGEABLE}, on a uniformly random or fixed support",
            ">=",
            kinds.SUPPORT,
            _repaired,
        ),
        Claim(
            "star_bound",
            "Star bound",
            "E[X_k] >= max(n (1 - q(m)), m (1 - q(n))) / (m + n - 1)",
            EXCHANGEABLE_LAYER,
            ">=",
            kinds.LAYER,
            lambda s: (star_bound(s.m, s.n, s.kept), 1.0),
        ),
        Claim(
            "boruvka_bound",
            "Boruvka bound",
            "E[X_k] >= (m (1 - q(n)) + n (1 - q(m)) - m n / alpha (1 - q(alpha))) / alpha",
            EXCHANGEABLE_LAYER,
            ">=",
            kinds.LAYER,
            lambda s: (boruvka_bound(s.m, s.n, s.kept), 1.0),
        ),
        Claim(
            "enclosure",
            "Certified enclosure",
            "lower <= E[X_k] <= upper",
            EXCHANGEABLE_LAYER,
            "in",
            kinds.LAYER,
            kinds.enclosure,
        ),
        Claim(
            "concentration",
            "Concentration",
            f"P(|X_k - E X_k| >= t) <= 2 exp(-2 alpha^2 t^2 / v), here with t such that this is {TAIL}",
            EXCHANGEABLE_LAYER,
            "<=",
            kinds.OUTLIERS,
            lambda s: (0.0, TAIL),
        ),
        Claim(
            "limit",
            "Limit of large layers",
            "|E[X_k] - limit| <= 1 / min(m, n), a rate that is measured, not proved",
            EXCHANGEABLE_LAYER,
            "in",
            kinds.LAYER,
            _limit,
        ),
        Claim(
            "component_identity",
            "Greedy property of Kruskal's algorithm",
            "|forest ∩ top-k| = m + n - kappa(F_k)",
            ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.component_identity,
        ),
        Claim(
            "t_imp_preserves",
            "Section 3.4 (T-IMP)",
            "the mask of the forest and the largest other weights leaves the diagram as it is, bit for bit",
            ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.t_imp_preserves,
        ),
        Claim(
            "diagram_equals_gudhi",
            "Section 2.2",
            "our diagram is gudhi's, zeros read either way",
            ANY_MATRIX,
            "always",
            kinds.GUDHI_MATRIX,
            check=checks.diagram_equals_gudhi,
        ),
        Claim(
            "exchangeable",
            "The hypothesis itself, of a given matrix",
            "X_k of the matrix is within the concentration band of its mean over shuffles of the weights",
            "|w| exchangeable on its support",
            "in",
            kinds.SHUFFLES,
        ),
    )
}
