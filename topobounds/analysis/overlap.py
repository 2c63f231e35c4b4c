"""What is known of the overlap of a dense layer's largest weights with its maximum spanning tree, side by side."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from topobounds._arguments import MOST_TRIALS, argument_error, check_neurons, checked_seed, density_fraction, integer
from topobounds._records import Record, html_table
from topobounds._types import Progress
from topobounds.layers.shape import Shape
from topobounds.montecarlo import Estimate, simulate_overlap_of
from topobounds.supports import Support, cells_at_density, uniform_support
from topobounds.theory.bounds import BOUNDS, Bound
from topobounds.theory.counting import MAX_STEPS, counting_steps, exact_expected_overlap_of
from topobounds.theory.deviation import Deviation, known_deviation_of
from topobounds.theory.enclosure import Enclosure
from topobounds.theory.overlap import expected_overlap_of, overlap_limit_of
from topobounds.theory.paper import MOST_TERMS, PrintedClaim

NOT_ASKED = {
    "exact": "Not asked for: it takes up to half a minute.",
    "monte_carlo": "Not asked for: 0 trials.",
    "corollary_3_4": "It is about supports of a density, and none was given.",
}
"""Why an entry of a report's JSON is null."""
Row = tuple[str, float | Fraction | str | None, str, str]

_NO_DEVIATION = "It takes a simulation of complete layers: at this m, n and k no formula is good."
_WAYS = {"proved": "counted exactly", "limit": "for large layers", "sampled": "of the simulated layers"}


@dataclass(frozen=True)
class OverlapReport(Record):
    """Everything known of the overlap of a dense layer's k largest weights with its maximum spanning tree.

    Attributes
    ----------
    m, n, k : int
        Inputs, outputs, and the weights kept that the bounds, the enclosure and the limit are about.
    density : float
        Density of the uniformly random support that the corollary and the simulation are about; 1 for all cells.
    cells : int
        Cells of that support.
    alpha : int
        Edges of the spanning tree of the complete layer, m + n - 1.
    eta_tau : Fraction
        Critical compression ratio of the complete layer.
    bounds : dict of str to (float or PrintedClaim or None)
        The lower bounds of `topobounds.theory.bounds.BOUNDS` by name: a number for a bound that is proved for the
        complete layer, a `PrintedClaim` for one of the paper's, None for one about a density where none was given.
    enclosure : Enclosure
        A certified interval around the expected overlap of the complete layer.
    limit : float
        The overlap of large layers of this shape.
    deviation : Deviation or None
        Standard deviation of the overlap of one complete layer: counted exactly, by the limit, or, where neither is
        good, of the simulated layers; None where these are none, or lie on a support.
    exact : Fraction or None
        The expected overlap of the complete layer, if it was asked for.
    monte_carlo : Estimate or None
        The simulation, None for no trials. On a support its k is that support's own alpha, where no k was asked for.
    """

    m: int
    n: int
    k: int
    density: float
    cells: int
    alpha: int
    eta_tau: Fraction
    bounds: dict[str, float | PrintedClaim | None]
    enclosure: Enclosure
    limit: float
    deviation: Deviation | None
    exact: Fraction | None
    monte_carlo: Estimate | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is known, as a table: name, value (of the certified interval what digits it gives), status, remark."""
        whole = "" if self.density == 1 else " For the complete layer."
        certified = ", ".join(_outwards(self.enclosure, 7))
        rows: list[Row] = [
            (BOUNDS[name].label, *_of_bound(BOUNDS[name], value, whole))
            for name, value in self.bounds.items()
            if value is not None
        ]
        rows.append(
            ("certified", certified_digits(self.enclosure), "proved", f"In [{certified}], for the complete layer.")
        )
        if self.exact is not None:
            rows.append(("exact", self.exact, "proved", f"{_fraction(self.exact)}, for the complete layer."))
        rows.append(("limit", self.limit, "asymptotic", f"Large {'complete ' if whole else ''}layers of this shape."))
        if self.deviation is not None:
            remark = f"Standard deviation of one layer's overlap, {_WAYS[self.deviation.status]}.{whole}"
            rows.append(("deviation", self.deviation.value, self.deviation.status, remark))
        if self.monte_carlo:
            rows.append(("simulated", self.monte_carlo.mean, "sampled", _of_estimate(self.monte_carlo)))
        return tuple(rows)

    def _repr_html_(self) -> str:
        columns = zip(*self.rows, strict=True)
        return html_table(dict(zip(("overlap", "value", "status", "remark"), columns, strict=True)))

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain Python: each bound by name, `eta_tau` as a number, `enclosure` as a pair.

        Beside what may be missing stands why: ``exact_reason``, ``monte_carlo_reason`` and ``corollary_3_4_reason``,
        None where it is there.
        """
        record: dict[str, object] = {}
        for name, value in super().to_dict().items():
            record |= value if name == "bounds" else {name: value}
        ends = [self.enclosure.lower, self.enclosure.upper]
        record |= {"eta_tau": float(self.eta_tau), "enclosure": ends, "deviation": self._deviation_as_dict()}
        return record | {f"{name}_reason": None if record[name] is not None else why for name, why in NOT_ASKED.items()}

    def _deviation_as_dict(self) -> dict[str, object]:
        if self.deviation is None:
            return {"value": None, "status": None, "reason": _NO_DEVIATION}
        return {"value": self.deviation.value, "status": self.deviation.status}

    @property
    def theorem_3_3(self) -> PrintedClaim:
        """The printed bound for the complete layer."""
        return cast(PrintedClaim, self.bounds["theorem_3_3"])

    @property
    def corollary_3_4(self) -> PrintedClaim | None:
        """The printed bound for supports of the density; None where none was given."""
        return cast(PrintedClaim | None, self.bounds["corollary_3_4"])

    @property
    def star_bound(self) -> float:
        """The star bound, proved for the complete layer."""
        return cast(float, self.bounds["star_bound"])

    @property
    def boruvka_bound(self) -> float:
        """The Boruvka bound, proved for the complete layer."""
        return cast(float, self.bounds["boruvka_bound"])


def overlap_report(
    m: int,
    n: int,
    k: int | None = None,
    *,
    density: float | None = None,
    exact: bool = False,
    trials: int = 200,
    seed: int | None = None,
    progress: Progress | None = None,
) -> OverlapReport:
    """Return all that is known of the expected overlap of an m x n layer.

    Parameters
    ----------
    m, n : int
        Inputs and outputs, at least 1; together at most 2**24 where layers are simulated.
    k : int, optional
        Weights kept, 0 to m n; alpha by default. The printed bounds are about k = alpha only.
    density : float, optional
        In (0, 1]: ask for Corollary 3.4, and simulate on uniformly random supports of this density.
    exact : bool
        Also count graphs, for a layer small or thin enough.
    trials : int
        Trials of the simulation; 0 for none.
    seed : int, optional
        Seed of the simulation; drawn and recorded if not given.
    progress : callable, optional
        Called with (trials done, trials).

    Returns
    -------
    OverlapReport
        The printed bounds, the proved ones, the enclosure, the limit and the simulation.

    Raises
    ------
    ValueError
        If an argument is out of range, or the exact value was asked for and is out of reach.

    Examples
    --------
    >>> report = overlap_report(784, 300, seed=1)
    >>> report.alpha, round(report.theorem_3_3.value, 4), round(report.boruvka_bound, 4)
    (1083, 0.1213, 0.6132)
    """
    m, n = integer("m", m, 1), integer("n", n, 1)
    trials = integer("trials", trials, 0, most=MOST_TRIALS)
    if trials:
        check_neurons(m, n)
    shape = Shape(m, n, k=m + n - 1)
    cells = shape.cells if density is None else _cells(shape, density)
    support = uniform_support(m, n, 1.0 if density is None else float(density), cells)
    if k is not None:
        shape = shape._replace(k=integer("k", k, 0, shape.cells))
        if shape.k > cells:
            raise argument_error("k", f"at most {cells}, the number of cells of the support", k)
    if exact:
        _check_counted(shape)
    estimate = _simulated(support, None if k is None else shape.k, trials, seed, progress)
    return OverlapReport(
        m=shape.m,
        n=shape.n,
        k=shape.k,
        density=support.density,
        cells=cells,
        alpha=shape.alpha,
        eta_tau=Fraction(shape.cells, shape.alpha),
        bounds={name: _value(bound, shape, density) for name, bound in BOUNDS.items()},
        enclosure=expected_overlap_of(shape),
        limit=overlap_limit_of(shape),
        deviation=_deviation(shape, estimate),
        exact=exact_expected_overlap_of(shape) if exact else None,
        monte_carlo=estimate,
    )


def _check_counted(shape: Shape) -> None:
    """Refuse a shape that is too large to count, before anything is simulated, with what there is of it."""
    steps = counting_steps(*shape) if min(shape.m, shape.n) > 1 else 0
    if steps > MAX_STEPS:
        raise ValueError(
            f"Argument 'exact' cannot be had for m={shape.m}, n={shape.n}, k={shape.k}, which are too large to count: "
            f"about {steps:.0e} steps, more than {MAX_STEPS:.0e}. Without it the value is certified to lie in an "
            "interval, up to m n = 2^52, and simulated."
        )


def _simulated(
    support: Support, k: int | None, trials: int, seed: int | None, progress: Progress | None
) -> Estimate | None:
    """Return the simulation, None for no trials; k None is the alpha of each support."""
    if not trials:
        return None
    return simulate_overlap_of(support, k, trials=trials, seed=checked_seed(seed), progress=progress)


def _deviation(shape: Shape, simulated: Estimate | None) -> Deviation | None:
    """Return the standard deviation of the complete layer's overlap, of its simulation where there is no formula."""
    known = known_deviation_of(shape)
    if known is None and simulated is not None and simulated.density == 1 and simulated.trials > 1:
        return Deviation(simulated.standard_deviation, "sampled")
    return known


def _value(bound: Bound, shape: Shape, density: float | None) -> float | PrintedClaim | None:
    """Return a bound's value; None for one about supports of a density where none was given."""
    if density is None and bound.needs_density:
        return None
    if bound.at_alpha and min(shape.m, shape.n) > MOST_TERMS:
        return PrintedClaim(None, "undefined", f"Not computed: it is a sum of more than {MOST_TERMS} terms.")
    if density is None:
        return bound.at(shape)
    return bound.at(shape, density)


def _cells(shape: Shape, density: float) -> int:
    density_fraction("density", density)
    cells = cells_at_density(shape.m, shape.n, density)
    if not cells:
        raise argument_error("density", f"at least {1 / shape.cells!r}, one of the {shape.cells} cells", density)
    return cells


def _of_bound(bound: Bound, value: float | PrintedClaim, whole: str) -> tuple[float | None, str, str]:
    """Return value, status and remark of a bound."""
    if isinstance(value, PrintedClaim):
        return value.value, value.status, value.reason
    return value, "proved", f"{bound.remark}{whole}"


def certified_digits(interval: Enclosure, digits: int = 4) -> str:
    """Return what an interval certifies: the number to so many digits if both ends round to it, else the interval.

    Examples
    --------
    >>> certified_digits(Enclosure(0.79962, 0.79963)), certified_digits(Enclosure(0.84496, 0.85554))
    ('0.7996', '0.8449 to 0.8556')
    """
    lower, upper = f"{interval.lower:.{digits}f}", f"{interval.upper:.{digits}f}"
    return lower if lower == upper else " to ".join(_outwards(interval, digits))


def _outwards(interval: Enclosure, digits: int) -> tuple[str, str]:
    """Return decimals around an interval."""
    scale = 10**digits
    ends = math.floor(Fraction(interval.lower) * scale), math.ceil(Fraction(interval.upper) * scale)
    lower, upper = (f"{end / scale:.{digits}f}" for end in ends)
    return lower, upper


def _fraction(value: Fraction) -> str:
    """Return a fraction, or how long it is where that is more than a line."""
    if value.denominator < 10**20:
        return str(value)
    return f"A fraction with a denominator of {len(str(value.denominator))} digits"


def _of_estimate(estimate: Estimate) -> str:
    """Return what is to be known of a simulated mean."""
    own = f"k is the alpha of each support, {estimate.alpha:.1f} on average. " if estimate.k is None else ""
    if estimate.trials == 1:
        return f"{own}One trial, seed {estimate.seed}."
    return f"{own}Standard error {estimate.standard_error:.5f}, {estimate.trials} trials, seed {estimate.seed}."
