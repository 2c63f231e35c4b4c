"""The claims, as data: what each says, under which hypothesis, and on what kind of samples it is tested.

Every claim is that a mean lies in an interval: of the overlap, of an indicator, or, for a claim about every matrix,
of "it is so" (the interval is then the one point 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from topobounds._types import Interval
from topobounds.theory.bounds import BOUNDS, Bound, boruvka_bound_of, corollary_3_4_repaired_of
from topobounds.theory.global_pruning import global_pruning
from topobounds.theory.overlap import overlap_limit_of
from topobounds.theory.paper import PrintedClaim
from topobounds.theory.support_bounds import support_bound
from topobounds.verification import checks, kinds
from topobounds.verification.draws import DrawSetting
from topobounds.verification.kinds import TAIL, Kind
from topobounds.verification.subject import Subject

_BoundOfSetting = Callable[[DrawSetting], Interval]
Check = Callable[[Subject, np.random.Generator], bool]

EXCHANGEABLE = "|w| exchangeable and distinct"
_EXCHANGEABLE_LAYER = f"{EXCHANGEABLE}, on all cells or a uniformly random support"
_ANY_MATRIX = "any real matrix"
_NETWORK_RATE = 0.5  # the largest gap seen, times the shorter side, is 0.40, at 1 x 1


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
    bound: _BoundOfSetting | None = None
    check: Check | None = None
    at_alpha: bool = False
    no_bound: Callable[[DrawSetting], str | None] | None = None

    @property
    def sample(self) -> str:
        """Name of the kind of samples."""
        return self.kind.name

    def interval(self, setting: DrawSetting) -> Interval:
        """Return the bound as an interval; [1, 1] for a claim about every matrix."""
        return self.bound(setting) if self.bound else (1.0, 1.0)

    def misfit(self, setting: DrawSetting) -> str | None:
        """Return why the claim says nothing of these layers, None if it does say something."""
        if self.at_alpha and setting.kept != setting.alpha:
            return f"it is about the {setting.alpha} largest weights, not {setting.kept}."
        # A given matrix has a support of its own, on which the kind decides.
        if self.no_bound is not None and setting.distribution != "given":
            return self.no_bound(setting) or self.kind.misfit(setting)
        return self.kind.misfit(setting)


def _repaired(setting: DrawSetting) -> Interval:
    if setting.mask is None and setting.k is None:
        return corollary_3_4_repaired_of(setting.shape, setting.density), 1.0
    if setting.mask is None:
        return boruvka_bound_of(setting.shape), 1.0
    return support_bound(setting.mask, setting.k), 1.0


def _limit(setting: DrawSetting) -> Interval:
    limit = overlap_limit_of(setting.shape)
    error = 1 / min(setting.m, setting.n)
    return max(0.0, limit - error), min(1.0, limit + error)


def _network_limit(setting: DrawSetting) -> Interval:
    m, n = setting.m, setting.n
    alpha = 2 * (m + n) - 1
    limit = global_pruning([m, n, m, n], alpha / (3 * m * n), "exchangeable").overlap
    error = _NETWORK_RATE / min(m, n)
    return max(0.0, limit - error), min(1.0, limit + error)


def _of_bound(bound: Bound) -> Claim:
    """Return the claim that a bound of the table is one."""
    connected = f"{EXCHANGEABLE}, on a connected support of density p"
    return Claim(
        bound.name,
        bound.label,
        bound.formula,
        connected if bound.needs_density else _EXCHANGEABLE_LAYER,
        ">=",
        kinds.CONNECTED if bound.needs_density else kinds.LAYER,
        partial(_from_value_up, bound),
        at_alpha=bound.at_alpha,
        no_bound=partial(_reason_for_none, bound) if bound.needs_density else None,
    )


def _from_value_up(bound: Bound, setting: DrawSetting) -> Interval:
    value = bound.evaluate(setting.shape, setting.density)
    if not isinstance(value, PrintedClaim):
        return value, 1.0
    if value.value is None:
        raise ValueError(value.reason)
    return value.value, 1.0


def _reason_for_none(bound: Bound, setting: DrawSetting) -> str | None:
    value = bound.evaluate(setting.shape, setting.density)
    return value.reason if isinstance(value, PrintedClaim) and value.value is None else None


CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "theorem_3_2",
            "Theorem 3.2",
            "alpha weights, the spanning forest, preserve the diagram; fewer never do",
            _ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.theorem_3_2,
        ),
        *(_of_bound(bound) for bound in BOUNDS.values() if bound.at_alpha),
        Claim(
            "corollary_3_4_repaired",
            "Corollary 3.4, repaired",
            "E[X_k] >= the Boruvka bound on a uniformly random support, its form by degrees on a fixed one",
            f"{EXCHANGEABLE}, on a uniformly random or fixed support",
            ">=",
            kinds.SUPPORT,
            _repaired,
        ),
        *(_of_bound(bound) for bound in BOUNDS.values() if not bound.at_alpha),
        Claim(
            "enclosure",
            "Certified enclosure",
            "lower <= E[X_k] <= upper",
            _EXCHANGEABLE_LAYER,
            "in",
            kinds.LAYER,
            kinds.enclosure,
        ),
        Claim(
            "concentration",
            "Concentration",
            f"P(|X_k - E X_k| >= t) <= 2 exp(-2 alpha^2 t^2 / v), here with t such that this is {TAIL}",
            _EXCHANGEABLE_LAYER,
            "<=",
            kinds.OUTLIERS,
            lambda s: (0.0, TAIL),
        ),
        Claim(
            "limit",
            "Limit of large layers",
            "|E[X_k] - limit| <= 1 / min(m, n), a rate that is measured, not proved",
            _EXCHANGEABLE_LAYER,
            "in",
            kinds.LAYER,
            _limit,
        ),
        Claim(
            "global_pruning",
            "Limit of wide networks",
            f"|E[X_k] - limit| <= {_NETWORK_RATE:g} / min(m, n), a rate that is measured, not proved",
            f"{EXCHANGEABLE}, across all layers of a network of widths m, n, m, n",
            "in",
            kinds.NETWORK,
            _network_limit,
            at_alpha=True,
        ),
        Claim(
            "persistence_null",
            "Neural persistence of the values alone",
            "lower <= E[NP^2 | values] <= upper, in units of the range of NP^2 over all orders of the values",
            "fixed values, none of them zero, at random cells of the complete layer",
            "in",
            kinds.VALUES,
        ),
        Claim(
            "component_identity",
            "Greedy property of Kruskal's algorithm",
            "|forest ∩ top-k| = m + n - kappa(F_k)",
            _ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.component_identity,
        ),
        Claim(
            "deficit",
            "What a lost forest edge is",
            "alpha - R_k = silent inputs + silent outputs + fragments - those of the whole graph",
            _ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.deficit,
        ),
        Claim(
            "t_imp_preserves",
            "Section 3.4 (T-IMP)",
            "the mask of the forest and the largest other weights leaves the diagram as it is, bit for bit",
            _ANY_MATRIX,
            "always",
            kinds.MATRIX,
            check=checks.t_imp_preserves,
        ),
        Claim(
            "t_imp_optimal",
            "T-IMP keeps the largest weights",
            "of all masks with as many weights and the same components T-IMP's has the largest weights, one by one",
            _ANY_MATRIX,
            "always",
            kinds.COMPARED_MATRIX,
            check=checks.t_imp_optimal,
        ),
        Claim(
            "effective_density",
            "T-IMP leaves no dead weight",
            "every weight that T-IMP keeps in layers in a row lies on a path from an input to an output",
            "layers in a row, no hidden neuron without a weight on one side only",
            "always",
            kinds.MATRIX,
            check=checks.effective_density_is_nominal,
        ),
        Claim(
            "diagram_equals_gudhi",
            "Section 2.3",
            "our diagram is gudhi's, zeros read either way",
            _ANY_MATRIX,
            "always",
            kinds.GUDHI_MATRIX,
            check=checks.diagram_equals_gudhi,
        ),
        Claim(
            "exchangeable",
            "The hypothesis itself, of a given matrix",
            "X_k of the matrix is not too rare among those of shuffles of its weights (permutation test)",
            "|w| exchangeable on its support",
            "in",
            kinds.SHUFFLES,
        ),
    )
}
