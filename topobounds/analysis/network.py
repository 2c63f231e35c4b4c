"""Dense layers that share their neurons as one graph: the stratified network, of a traced module or of a file."""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topobounds.analysis.reports import NetworkReport
from topobounds.layers import LayerTensor
from topobounds.topology.network import network_forest

_NO_CHANCE = "What chance gives for layers that share neurons is not known."
_ASSUMED = "the layers feed one another in the order of {}, nothing but elementwise functions between them"
_NOT_A_CHAIN = re.compile(
    r"(^|[._])(q|k|v|query|key|value|qkv|attn|attention|self_attn|experts?|lora|gate|[qkv]_proj|lora_[AB])([._]|$)"
)
"""Names of layers that stand one after the other in a file and do not feed one another."""


class Connected(NamedTuple):
    """A dense layer between two groups of neurons."""

    name: str
    weights: NDArray[Any]  # inputs by outputs
    source: Hashable
    target: Hashable


def network_reports(layers: Sequence[Connected], assumed: str | None = None) -> tuple[NetworkReport, ...]:
    """Return a report on each set of two or more layers that are joined by the neurons they share.

    Parameters
    ----------
    layers : sequence of Connected
        In the model's order.
    assumed : str, optional
        What was guessed.

    Returns
    -------
    tuple of NetworkReport
        In the order of their first layers. A set in which a group of neurons has two sizes has none: a part of the
        model that is not known here changes them.

    Examples
    --------
    >>> layers = [Connected("a", np.ones((4, 3)), 0, 1), Connected("b", np.ones((3, 2)), 1, 2)]
    >>> (report,) = network_reports(layers)
    >>> report.layers, report.neurons, report.alpha
    (('a', 'b'), 9, 8)
    """
    joined = [part for part in _joined(layers) if len({layer.name for layer in part}) > 1 and _fits(part)]
    return tuple(_report(part, assumed) for part in joined)


def in_order(dtypes: Mapping[str, Hashable]) -> tuple[list[str], str]:
    """Return the names of tensors in the order in which layers may feed one another, and in words what is assumed.

    That is the order of the file, unless it is the alphabet, or the alphabet for one dtype after the other, as
    safetensors writes: there it tells nothing of the model, and numbers in the names count by their size.

    Parameters
    ----------
    dtypes : mapping of str to hashable
        The tensors, in the order of the file, each with the dtype under which it is stored.

    Examples
    --------
    >>> in_order({"fc3": "float32", "fc1": "float16", "fc2": "float16"})[0]
    ['fc1', 'fc2', 'fc3']
    >>> in_order({"up": "float32", "mid": "float32", "down": "float32"})[0]
    ['up', 'mid', 'down']
    """
    names = list(dtypes)
    groups = [list(group) for _, group in groupby(names, key=dtypes.__getitem__)]
    is_by_dtype = len(groups) == len(set(dtypes.values())) and all(group == sorted(group) for group in groups)
    ordered = sorted(names, key=_with_numbers) if is_by_dtype or names == sorted(names) else names
    if ordered == names:
        return names, _ASSUMED.format("the file")
    return ordered, _ASSUMED.format("their numbers" if re.search(r"\d", "".join(names)) else "their names")


def _with_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key by which names are sorted, the numbers in them by their size."""
    parts = re.split(r"(\d+)", name)
    parts[1::2] = [number.lstrip("0") for number in parts[1::2]]
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)]


def chains(names: Iterable[str], layers: Iterable[LayerTensor], matrices: Iterable[str]) -> Iterator[list[LayerTensor]]:
    """Yield the runs of two or more dense layers of a file that by their sizes and their order feed one another.

    A file does not say which layers share neurons. Taken are dense layers that stand one after the other, with nothing
    but vectors between, each with as many inputs as the one before has outputs; in files without recurrent layers,
    embeddings, attention or experts, where such runs are no chains.

    Parameters
    ----------
    names : iterable of str
        The tensors, as `in_order` gives them.
    layers : iterable of LayerTensor
        Those that are read.
    matrices : iterable of str
        Names of all tensors of two or more dimensions.
    """
    read = {layer.name: layer for layer in layers}
    shaped = set(matrices)
    if any(layer.kind in ("recurrent", "embedding") or len(layer.parts) > 1 for layer in read.values()):
        return
    if any(_NOT_A_CHAIN.search(name) for name in shaped):
        return
    run: list[LayerTensor] = []
    for name in names:
        if name not in shaped:
            continue
        layer = read.get(name)
        if layer is None or layer.kind != "dense" or (run and run[-1].graph.n_outputs != layer.graph.n_inputs):
            if len(run) > 1:
                yield run
            run = []
        if layer is not None and layer.kind == "dense":
            run.append(layer)
    if len(run) > 1:
        yield run


def _joined(layers: Sequence[Connected]) -> list[list[Connected]]:
    """Return the layers by the sets that shared neurons join."""
    leaders: dict[Hashable, Hashable] = {}

    def leader(group: Hashable) -> Hashable:
        while leaders.setdefault(group, group) != group:
            group = leaders[group]
        return group

    for layer in layers:
        leaders[leader(layer.source)] = leader(layer.target)
    parts: dict[Hashable, list[Connected]] = {}
    for layer in layers:
        parts.setdefault(leader(layer.source), []).append(layer)
    return list(parts.values())


def _fits(layers: Sequence[Connected]) -> bool:
    """Return whether every group of neurons has one size."""
    sizes: dict[Hashable, int] = {}
    ends = [pair for layer in layers for pair in zip((layer.source, layer.target), layer.weights.shape, strict=True)]
    return all(sizes.setdefault(group, size) == size for group, size in ends)


def _report(layers: Sequence[Connected], assumed: str | None) -> NetworkReport:
    forest = network_forest([(layer.weights, layer.source, layer.target) for layer in layers])
    deficit = forest.deficit()
    weights = forest.network.n_weights
    rank = forest.critical_rank
    return NetworkReport(
        layers=tuple(layer.name for layer in layers),
        neurons=forest.network.n_vertices,
        weights=weights,
        nonzero=sum(int(np.count_nonzero(layer.weights)) for layer in layers),
        alpha=forest.alpha,
        components=forest.n_components,
        critical_ratio=weights / forest.alpha if forest.alpha else None,
        critical_rank=rank,
        safe_density=rank / weights,
        overlap=forest.overlap(),
        silent_inputs=deficit.silent_inputs,
        silent_outputs=deficit.silent_outputs,
        fragments=deficit.fragments,
        assumed=assumed,
        reason=_NO_CHANCE,
    )
