"""What is worth a second look in a report: one table of rules, and what each of them sees."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from topobounds._arguments import argument_error, nearest
from topobounds._text import counted
from topobounds.analysis.reports import Finding, LayerReport, ModelReport
from topobounds.layers.shape import Shape
from topobounds.theory.critical_rank import critical_rank_law_of
from topobounds.theory.ties import TIES_DECIDE

SEVERITIES = ("error", "warning", "info")
_FAR_BELOW = -3.0  # standard deviations
_MANY_SILENT = 0.1  # of the inputs, or of the outputs
_FAR_ABOVE = 2.0  # times the second largest weight
_WISHED = ("not included", "excluded", "left out by the geometry file")
"""Reasons for which nothing is found: somebody asked for it."""
_LORA = re.compile(r"\blora_(A|B|down|up|embedding_A|embedding_B)\b")
_OTHER_FACTOR = {"A": "B", "down": "up", "embedding_A": "embedding_B"}

Seen = Iterator[tuple[str | None, str]]
"""Layers or tensors, None for the whole, and what is to be said of them."""


@dataclass(frozen=True)
class Rule:
    """What a report is looked through for.

    Attributes
    ----------
    severity : str
        ``"error"``, ``"warning"`` or ``"info"``.
    about : str
        What it sees, in words.
    see : callable
        Yields layer and text of each finding in a report.
    """

    severity: str
    about: str
    see: Callable[[ModelReport], Seen]


def find(report: ModelReport) -> tuple[Finding, ...]:
    """Return what the rules see in a report: errors first, then warnings, in the order of `RULES` and of the layers.

    Parameters
    ----------
    report : ModelReport
        Its `findings` are not looked at.

    Returns
    -------
    tuple of Finding
        What is None in a report is no finding.

    Examples
    --------
    >>> import numpy as np
    >>> from topobounds import layer_report
    >>> from topobounds.layers import Dense
    >>> weights = np.array([[9.0, 2.0, 1.5], [1.0, 0.5, 0.7]])
    >>> layer = layer_report("fc.weight", weights, Dense(3, 2), chance=False)
    >>> for finding in find(ModelReport((layer,), {})):
    ...     print(finding.severity, finding.rule, finding.text)
    warning one-weight-dominates The largest |w|, 9, is 4.5 times the second largest, 2.
    """
    found = [
        Finding(rule.severity, name, layer, text) for name, rule in RULES.items() for layer, text in rule.see(report)
    ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def checked_rule(name: str, rule: str) -> str:
    """Return the name of a rule.

    Raises
    ------
    ValueError
        If there is no such rule; the nearest ones are named, and `name` is the argument to blame.
    """
    if rule not in RULES:
        raise argument_error(name, f"a rule, such as {nearest(rule, RULES)}", rule)
    return rule


def _of_layers(sees: Callable[[LayerReport], str | None]) -> Callable[[ModelReport], Seen]:
    """Return what a rule sees that looks at one layer at a time."""

    def see(report: ModelReport) -> Seen:
        for layer in report.layers:
            if (text := sees(layer)) is not None:
                yield layer.name, text

    return see


def _below_critical(layer: LayerReport) -> str | None:
    """Say where a density is below what pruning by magnitude needs, and the tree is gone.

    A report of the weights that are left has a safe density of what is left, which they meet; of a dense layer that is
    in pieces, that of a whole layer of its shape by chance stands in for the one it had.
    """
    safe = layer.safe_density or 0.0
    origin = "where magnitude pruning stops keeping its tree"
    if layer.kind != "conv" and layer.m and layer.n and _pieces_more(layer):
        law = critical_rank_law_of(Shape(layer.m, layer.n, layer.nonzero))
        if (by_chance := law.median.lower / layer.weights) > safe:
            safe = by_chance
            origin = "where pruning by magnitude cuts half of all layers of its shape with weights in random order"
    return f"The density {layer.density:.4g} is below {safe:.4g}, {origin}." if layer.density < safe else None


def _pieces_more(layer: LayerReport) -> int:
    """Return into how many more pieces its zeros cut a layer that has other weights; 0 where that is not known."""
    if layer.components is None or layer.components_unpruned is None or not layer.nonzero:
        return 0
    return layer.components - layer.components_unpruned


def _overlap_below_chance(layer: LayerReport) -> str | None:
    if layer.overlap_z is None or layer.overlap_z >= _FAR_BELOW:
        return None
    kept = f"Its {layer.critical} largest weights hold {layer.overlap:.4f} of what carries the topology"
    return f"{kept}, {-layer.overlap_z:.1f} standard deviations less than the {layer.overlap_expected:.4f} of chance."


def _silent_neurons(layer: LayerReport) -> str | None:
    sides = (("input", layer.silent_inputs, layer.m), ("output", layer.silent_outputs, layer.n))
    known = [(side, silent, size) for side, silent, size in sides if silent is not None and size]
    if not any(silent > _MANY_SILENT * size for _, silent, size in known):
        return None
    if (layer.critical or 0) < 2:
        return None  # of no weight but one the rules on zeros say all
    counts = " and ".join(f"{silent} of {counted(size, side)}" for side, silent, size in known if silent)
    have = "has" if sum(silent for _, silent, _ in known) == 1 else "have"
    return f"{counts} {have} none of the {layer.critical} largest weights{_missing_by_chance(layer)}."


def _missing_by_chance(layer: LayerReport) -> str:
    """Say how many edges the largest weights miss, here and by chance; of a whole dense layer only."""
    if layer.kind == "conv" or layer.overlap_expected is None or not layer.alpha:
        return ""
    lost, by_chance = (layer.alpha * (1 - share) for share in (layer.overlap or 0.0, layer.overlap_expected))
    missed = f", which miss {counted(round(lost), 'edge')} of the forest"
    if TIES_DECIDE in (layer.chance_reason or ""):  # a random order, to which chance refers, would miss others
        return f"{missed}, weights that tie being ranked by their place"
    return f"{missed}, {by_chance:.0f} by chance"


def _dead_neurons(layer: LayerReport) -> str | None:
    if not (layer.dead_inputs or layer.dead_outputs) or not layer.nonzero:
        return None
    sides = ("input channel", "output channel") if layer.kind == "conv" else ("input", "output")
    dead = zip(sides, (layer.dead_inputs, layer.dead_outputs), strict=True)
    counts = " and ".join(counted(count, side) for side, count in dead if count)
    have = "has" if (layer.dead_inputs or 0) + (layer.dead_outputs or 0) == 1 else "have"
    padded = ", or weights that meet nothing but padding" if layer.kind == "conv" else ""
    return f"{counts} {have} only zeros{padded}."


def _disconnected(layer: LayerReport) -> str | None:
    if not _pieces_more(layer):
        return None
    whole = layer.components_unpruned
    there = "is" if whole == 1 else "are"
    return f"The weights that are not zero are in {layer.components} pieces; without zeros there {there} {whole}."


def _all_zero(layer: LayerReport) -> str | None:
    if layer.nonzero:
        return None
    return "Its only weight is zero." if layer.weights == 1 else f"All its {layer.weights} weights are zero."


def _one_weight_dominates(layer: LayerReport) -> str | None:
    if not layer.w_max or not layer.w_second or layer.w_max <= _FAR_ABOVE * layer.w_second:
        return None
    ratio = layer.w_max / layer.w_second
    return f"The largest |w|, {layer.w_max:.4g}, is {ratio:.3g} times the second largest, {layer.w_second:.4g}."


def _looks_fixed(layer: LayerReport) -> str | None:
    return f"It looks as if it was not trained: {layer.looks_fixed}." if layer.looks_fixed else None


def _assumed_geometry(layer: LayerReport) -> str | None:
    return f"Assumed: {layer.assumed}." if layer.assumed else None


def _with_fault(fault: str) -> Callable[[ModelReport], Seen]:
    """Return what a rule sees that is about tensors that are left out because something is wrong with them."""

    def see(report: ModelReport) -> Seen:
        yield from ((name, _sentence(report.left_out[name])) for name, kind in report.faults.items() if kind == fault)

    return see


def _left_out(report: ModelReport) -> Seen:
    """Yield the weights of two or more dimensions, or of no known type, that are not read, for all else but a wish."""
    for name, reason in report.left_out.items():
        shape, dtype = report.forms.get(name, ((), None))
        if (len(shape) > 1 or dtype == "") and name not in report.faults and reason not in _WISHED:
            yield name, _sentence(reason)


def _sentence(reason: str) -> str:
    return f"Not read: {reason.rstrip('.')}."


def _lora_pair(report: ModelReport) -> Seen:
    names = {layer.name for layer in report.layers} | set(report.left_out)
    for name in sorted(names):
        factor = _LORA.search(name)
        if factor is None or factor[1] not in _OTHER_FACTOR:
            continue
        other = f"{name[: factor.start(1)]}{_OTHER_FACTOR[factor[1]]}{name[factor.end(1) :]}"
        if other in names:
            yield name, f"A factor of a low-rank update, with '{other}': only their product acts, added to a weight."


RULES = {
    "not-finite": Rule("error", "a tensor with NaN or infinity, which is left out", _with_fault("not-finite")),
    "damaged": Rule("error", "a tensor that cannot be read, and is left out", _with_fault("damaged")),
    "all-zero": Rule("warning", "a layer without a weight other than zero", _of_layers(_all_zero)),
    "below-critical": Rule(
        "warning", "a density below that at which magnitude pruning cuts the tree", _of_layers(_below_critical)
    ),
    "disconnected": Rule("warning", "a layer that its zeros cut into more pieces", _of_layers(_disconnected)),
    "dead-neurons": Rule(
        "warning",
        "inputs or outputs whose weights are all zero, or meet nothing but padding",
        _of_layers(_dead_neurons),
    ),
    "one-weight-dominates": Rule(
        "warning", "a largest weight of more than twice the second", _of_layers(_one_weight_dominates)
    ),
    "overlap-below-chance": Rule(
        "info", "an overlap more than 3 standard deviations below chance", _of_layers(_overlap_below_chance)
    ),
    "silent-neurons": Rule(
        "info", "over 10% of the inputs or outputs without any of the largest weights", _of_layers(_silent_neurons)
    ),
    "looks-fixed": Rule("info", "weights that look as if they were not trained", _of_layers(_looks_fixed)),
    "lora-pair": Rule("info", "two factors of a low-rank update", _lora_pair),
    "assumed-geometry": Rule("info", "a stride, padding or map that was guessed", _of_layers(_assumed_geometry)),
    "left-out": Rule("info", "a tensor of two or more dimensions that is not read", _left_out),
}
"""The rules by name: how grave a finding is, what it says, and what sees it."""
