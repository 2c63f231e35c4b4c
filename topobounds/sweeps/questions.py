"""What may be asked at each point of a sweep: one table, to which other packages add."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from topobounds._arguments import choice

GROUP = "topobounds.questions"
"""Entry-point group of questions that other packages add: objects like `Question`, by their names."""


@dataclass(frozen=True)
class Question:
    """Something that can be asked for many parameters.

    Attributes
    ----------
    answer : callable
        ``answer(**parameters)``: the answer in plain Python, ready for JSON; ValueError or OSError if the parameters
        make no sense.
    required : tuple of str
        Parameters that every point must have.
    optional : tuple of str
        Parameters that a point may have.
    draws : bool
        Whether it takes a ``seed``.
    """

    answer: Callable[..., Mapping[str, Any]]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    draws: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """All parameters, the seed too."""
        return (*self.required, *self.optional, *(("seed",) if self.draws else ()))


def question_names() -> tuple[str, ...]:
    """Return what may be asked: our questions, and those that other packages add."""
    return tuple(dict.fromkeys((*QUESTIONS, *_plugins())))


def question(name: str) -> Question:
    """Return the question of a name; a package that adds it is imported now.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name in QUESTIONS:
        return QUESTIONS[name]
    found: Question = _plugins()[choice("question", name, question_names())].load()
    return found


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {plugin.name: plugin for plugin in entry_points(group=GROUP)}


def _overlap(m: int, n: int, **options: Any) -> Mapping[str, Any]:
    from topobounds.analysis.overlap import overlap_report

    return overlap_report(m, n, options.pop("k", None), **options).to_dict()


def _verify(m: int, n: int, claim: str | None = None, **options: Any) -> Mapping[str, Any]:
    from topobounds.verification import verify

    verdicts = verify(m, n, options.pop("k", None), claims=None if claim is None else [claim], **options)
    return {verdict.claim: verdict.to_dict() for verdict in verdicts}


def _collapse(
    density: float,
    mlp: str | None = None,
    architecture: str | None = None,
    dataset: str | None = None,
    law: str = "torch",
) -> Mapping[str, Any]:
    from topobounds.theory.global_pruning import global_pruning
    from topobounds.theory.table1 import architecture as named

    if (mlp is None) == (architecture is None):
        raise ValueError("A point of collapse needs one of mlp and architecture.")
    layers: Any = [int(width) for width in mlp.split("-")] if mlp is not None else None
    if architecture is not None:
        if dataset is None:
            raise ValueError("A point of collapse with an architecture needs a dataset.")
        layers = named(architecture, dataset)
    return global_pruning(layers, density, cast(Any, law)).to_dict()


def _analyze(path: str, **options: Any) -> Mapping[str, Any]:
    from topobounds.analysis.checkpoint import analyze

    patterns: dict[str, Any] = {name: [options.pop(name)] for name in ("include", "exclude") if name in options}
    report = analyze(path, jobs=1, **patterns, **options).to_dict()
    layers = {layer["name"]: {key: layer[key] for key in _LAYER_KEYS} for layer in report["layers"]}
    return {"summary": report["summary"], "layers": layers}


_LAYER_KEYS = (
    "weights",
    "density",
    "critical",
    "safe_density",
    "overlap",
    "overlap_expected",
    "overlap_z",
    "neural_persistence",
    "neural_persistence_expected",
    "neural_persistence_z",
)
"""What a point of `analyze` tells of each layer."""


QUESTIONS = {
    "overlap": Question(_overlap, ("m", "n"), ("k", "density", "exact", "trials"), draws=True),
    "verify": Question(
        _verify,
        ("m", "n"),
        ("k", "density", "support", "distribution", "claim", "trials", "confidence", "tolerance"),
        draws=True,
    ),
    "analyze": Question(_analyze, ("path",), ("include", "exclude", "trials"), draws=True),
    "collapse": Question(_collapse, ("density",), ("mlp", "architecture", "dataset", "law")),
}
"""Our own questions; each parameter is that of the command of the same name."""
