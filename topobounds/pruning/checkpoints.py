"""Files of weights pruned: which tensors, to how many weights each, and the same file with the rest zero."""

import hashlib
import json
import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from topobounds._arguments import (
    argument_error,
    as_written,
    boolean,
    choice,
    density_fraction,
    integer,
    is_integer,
    nearest,
    real,
)
from topobounds._parallel import ExecutorWork, in_threads
from topobounds._text import counted
from topobounds._types import Array, Mask, NamedProgress
from topobounds.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from topobounds.checkpoint.layer_tensors import LayerTensorReading, read_layer_tensors
from topobounds.checkpoint.location import Location, check_new_path, check_suffix, size_of
from topobounds.checkpoint.masks import masks_size, writing_masks
from topobounds.layers import LayerTensor
from topobounds.pruning.allocations import ALLOCATIONS, FROM_FILE, Profile, allocated
from topobounds.pruning.choosing import Asked, Chosen, Rooms, choose, choose_at, zeroed
from topobounds.pruning.methods import Method, pruning_method
from topobounds.pruning.report import PrunedLayer, PruningReport
from topobounds.pruning.selection import counts_of_largest
from topobounds.pruning.sparsities import read_sparsities
from topobounds.pruning.survey import Files, Places, Surveyed, checksum_of, opened_scores, survey, survey_at
from topobounds.pruning.which_layers import chosen_layers
from topobounds.weights import non_zero, weight_array

_ON_INFEASIBLE = ("share", "raise", "clamp")
_AHEAD = 2**28
"""Bytes of masks that workers choose before they are due."""
MASKS = "pruning/masks.safetensors"
"""Where the masks are in a folder."""
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".h5", ".msgpack", ".onnx", ".gguf")
_N_OF_M = re.compile(r"\d+:\d+")
_PathLike = str | os.PathLike[str]


def prune_checkpoint(
    source: _PathLike,
    target: _PathLike,
    *,
    keep: int | float | Fraction | None = None,
    density: float | Fraction | None = None,
    method: str = "t-imp",
    scope: Literal["local", "global"] = "local",
    allocate: str | os.PathLike[str] = "uniform",
    on_infeasible: Literal["share", "raise", "clamp"] = "share",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    geometry: Any = None,
    input_size: Sequence[int] | None = None,
    scores: _PathLike | Mapping[str, Any] | None = None,
    masks_only: bool = False,
    dry_run: bool = False,
    seed: int | None = None,
    executor: Executor | None = None,
    progress: NamedProgress | None = None,
) -> PruningReport:
    """Prune the weights of a file or a folder, and write it anew with the pruned ones zero.

    Names, dtypes, metadata, nesting and shards stay, and so do the bytes of all that is not pruned and the other files
    of a folder. The result is as large as before. Pruned are the layers that `topobounds.layer_tensors` finds, but for
    embeddings, heads that are tied to them and routers of experts.

    Parameters
    ----------
    source : path
        A file or folder that `topobounds.open_checkpoint` opens and that can be written: safetensors, npz, npy, torch.
    target : path
        What is to be made, in a folder that exists: a folder where `source` is one, else a file. Beside the weights are
        the masks, packed, with the SHA-256 of the files they belong to: ``pruning/masks.safetensors`` in a folder,
        ``NAME.masks.safetensors`` beside a file. `open_checkpoint` reads them as arrays of bool.
    keep : int or float or Fraction, optional
        Weights of all layers together to be left, or the share of those that are not zero.
    density : float or Fraction, optional
        Instead of `keep`: those to be left over all weights of the layers, in (0, 1], as it is written.
    method : {"t-imp", "magnitude", "random", "shuffled"}
        As in `topobounds.network_masks`.
    scope : {"local", "global"}
        ``global`` ranks the weights of all layers together.
    allocate : {"uniform", "safe", "retention"} or path
        How the weights are shared out, for the scope ``local``. ``uniform``: the same density everywhere. ``safe``: in
        proportion to the weights that magnitude pruning would need to keep a layer's diagram. ``retention``: so that
        magnitude pruning would keep the same share of the critical weights of every layer. A path: in proportion to the
        densities of a JSON or YAML file, as `topobounds.pruning.sparsities` describes it; without `keep` and `density`
        exactly those.
    on_infeasible : {"share", "raise", "clamp"}
        For a layer that would be left with fewer weights than carry its topology. ``share``: it keeps those, and the
        others give up as many more, so that the count of the file is exact. ``raise``: all such layers are named, and
        nothing is written. ``clamp``: it keeps those, and the file has more weights than asked for.
    include, exclude : sequence of str
        Patterns of names; see `topobounds.layer_tensors`. One that matches embeddings, tied heads or routers only has
        them pruned.
    geometry, input_size
        As in `topobounds.analyze`: what tensors are, and the size of the map that convolutions read.
    scores : path or mapping of str to array_like, optional
        Taken for the weights, topology included: a file of importances, by the names of the tensors. A layer without
        scores is left out. What the report says of diagrams, persistence and squares lost is then of the scores. Those
        of weights that are zero are not looked at, and may be NaN; a layer with others that are not finite is left out.
    masks_only : bool
        Write the masks alone, to `target`.
    dry_run : bool
        Write no weights; the report says what each allocation would leave.
    seed : int, optional
        Of a random method; drawn by default.
    executor : concurrent.futures.Executor, optional
        What finds the forests and chooses the masks, tensor by tensor, on any machine that reads the same paths: it
        gets names, not weights, and masks come back. This process writes.
    progress : callable, optional
        ``progress(done, total, tensor)``, in bytes.

    Returns
    -------
    PruningReport
        Layer by layer; `preserved` is measured on what is written.

    Raises
    ------
    ValueError
        If an argument is out of range, weights are quantised (they are named), fewer weights are to be left than carry
        the topology of all layers (the message says how many those are), there is nothing to prune, or scores have the
        name or the shape of no tensor, or none those of a layer that is pruned.
    CheckpointError
        If a file cannot be read or written; the target is then not there.

    Notes
    -----
    A run that is killed or interrupted goes on where it was, file by file, when it is started again with the same
    arguments; ``.TARGET.partial`` holds what it has written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> rng = np.random.default_rng(0)
    >>> np.savez(folder / "net.npz", fc1=rng.standard_normal((100, 50)), fc2=rng.standard_normal((10, 100)))
    >>> report = prune_checkpoint(folder / "net.npz", folder / "pruned.npz", density=0.1)
    >>> [(layer.name, layer.alpha, layer.asked, layer.kept) for layer in report.layers], report.preserved
    ([('fc1', 149, 500, 491), ('fc2', 109, 100, 109)], True)
    """
    chosen = _checked_method(method)
    choice("scope", scope, ("local", "global"))
    choice("on_infeasible", on_infeasible, _ON_INFEASIBLE)
    boolean("masks_only", masks_only)
    sparsities = None if allocate in ALLOCATIONS else read_sparsities(allocate, tuple(ALLOCATIONS))
    if scope == "global" and allocate != "uniform":
        raise argument_error(
            "allocate", "'uniform' where the scope is 'global', which shares the weights out", allocate
        )
    _check_amount(keep, density, has_file=sparsities is not None)
    if seed is not None:
        integer("seed", seed, 0)
    drawn = (secrets.randbits(64) if seed is None else seed) if chosen.is_random else None
    places = None if executor is None else Places.of(source, scores)
    with ExitStack() as held:
        checkpoint = held.enter_context(open_checkpoint(source))
        if not dry_run:
            _check_target(checkpoint, Path(target), masks_only=masks_only)
        reading = read_layer_tensors(
            checkpoint, include=include, exclude=exclude, geometry=geometry, input_size=input_size
        )
        layers, left_out = chosen_layers(reading, checkpoint, include)
        scored = held.enter_context(opened_scores(scores, reading.shapes, [layer.name for layer in layers]))
        if scored is not None:
            left_out |= {layer.name: scored.absence for layer in layers if layer.name not in scored}
            layers = [layer for layer in layers if layer.name in scored]
            places = None if places is None else replace(places, shapes=reading.shapes)
        pruning = held.enter_context(closing(_Pruning(Files(checkpoint, scored), chosen, drawn, progress or _silent)))
        with ThreadPoolExecutor(1) as helper:
            base = None if dry_run else helper.submit(_hashes, checkpoint)
            left_out = _other_weights(checkpoint) | left_out
            left_out |= pruning.survey(layers, executor, places)
            if not pruning.tensors:
                raise argument_error("source", f"a file with layers to prune{_commonest(left_out)}", str(source))
            counts = pruning.counts(keep, density, scope, allocate, sparsities, on_infeasible)
            report = PruningReport(
                (),
                left_out,
                source=str(source),
                method=chosen.name,
                scope=scope,
                allocate=os.fspath(allocate),
                seed=drawn,
                bytes_before=sum(size_of(file) for file in checkpoint.files),
                forms=_forms(reading, left_out),
                scores=None if scored is None else scored.label,
            )
            if dry_run:
                budgets = pruning.budgets(sum(counts), on_infeasible) if scope == "local" else {}
                return replace(report, layers=pruning.tried(), budgets=budgets)
            hashes = _awaited(base)
        masks = _masks_place(checkpoint, Path(target), masks_only=masks_only)
        resume = _identity(hashes, pruning, counts, scores)
        pruning.write(Path(target), masks, hashes, resume, masks_only=masks_only)
    report = replace(report, layers=pruning.in_order(), masks=str(masks))
    if masks_only:
        return report
    written = sum(size_of(file) for file in _files_of(checkpoint, Path(target)))
    return replace(report, target=str(target), bytes=written)


# -- arguments --------------------------------------------------------------------------------------------------------


def check_pattern(argument: str, value: object) -> None:
    """Refuse patterns such as 2:4 by name.

    Raises
    ------
    ValueError
        If `value` is one.
    """
    if isinstance(value, str) and _N_OF_M.fullmatch(value.strip()):
        raise ValueError(
            f"Argument '{argument}' must not be a pattern such as {value}: N:M sparsity cannot keep a spanning forest "
            "in general. docs/n_of_m.md says what T-IMP costs under it."
        )


def _checked_method(name: Any) -> Method:
    check_pattern("method", name)
    method = pruning_method(name)
    if method.by_paths:
        rule = "one that needs no layers in a row, whose order a file does not tell"
        raise argument_error("method", rule, name)
    return method


def _check_amount(keep: Any, density: Any, *, has_file: bool) -> None:
    if keep is not None and density is not None:
        raise ValueError("Only one of the arguments 'keep' and 'density' can be given.")
    if keep is None and density is None and not has_file:
        raise ValueError("One of the arguments 'keep' and 'density' must be given.")
    check_pattern("density", density)
    check_pattern("keep", keep)
    if density is not None:
        density_fraction("density", density)
    elif keep is not None and is_integer(keep):
        integer("keep", keep, 0)
    elif keep is not None:
        real("keep", keep, "a number of weights or a share of them in (0, 1]", 0.0, 1.0, open_low=True)


def _silent(done: int, total: int, name: str) -> None:
    """Show no progress."""


# -- what is found before anything is written -------------------------------------------------------------------------


class _Pruning:
    """One pruning of a checkpoint: a pass over its tensors to find their forests, and one to write them pruned."""

    def __init__(self, files: Files, method: Method, seed: int | None, progress: NamedProgress) -> None:
        self.files = files
        self.checkpoint = files.checkpoint
        self.method = method
        self.seed = seed
        self.tensors: dict[str, Surveyed] = {}
        self._asked: dict[str, int | None] = {}
        self._counts: dict[str, int] = {}
        self._pruned: dict[str, PrunedLayer] = {}
        self._masks_ahead: _MasksAhead | None = None
        self._begin_ahead: Callable[[Sequence[Asked]], _MasksAhead] | None = None  # None where this process chooses
        self._rooms = Rooms()
        self._progress = progress
        self._done = 0
        self._total = 0

    def close(self) -> None:
        """Give up what workers have not finished."""
        if self._masks_ahead is not None:
            self._masks_ahead.close()

    # -- finding out --

    def survey(self, layers: Sequence[LayerTensor], executor: Executor | None, places: Places | None) -> dict[str, str]:
        """Find the forests of all layers; return those that cannot be pruned, with the reason."""
        left_out: dict[str, str] = {}
        # Bytes of two passes over the weights: this one, and the one that writes them pruned.
        self._total = 2 * sum(layer.n_weights * _itemsize(layer) for layer in layers)
        if executor is None or places is None:
            found: Iterator[Surveyed | str] = map(self._surveyed, layers)  # or the reason why it cannot be pruned
        else:
            found = ExecutorWork(executor, partial(survey_at, places)).in_order(layers)
            self._begin_ahead = partial(_MasksAhead, executor, places)
        for layer, each in zip(layers, found, strict=True):
            if isinstance(each, str):
                left_out[layer.name] = each
            else:
                self.tensors[layer.name] = each
            self._advance(layer)
        return left_out

    def _surveyed(self, layer: LayerTensor) -> Surveyed | str:
        try:
            return survey(layer, *self.files.read(layer.name))
        except CheckpointError as error:
            return str(error).rstrip(".")

    def _advance(self, layer: LayerTensor) -> None:
        self._done += layer.n_weights * _itemsize(layer)
        self._progress(min(self._done, self._total), self._total, layer.name)

    # -- how many are left --

    @property
    def _profiles(self) -> list[Profile]:
        return [tensor.profile for tensor in self.tensors.values()]

    @property
    def _least(self) -> list[int]:
        """What each tensor must keep."""
        protects = self.method.counted_by.protects
        return [len(tensor.critical) if protects else 0 for tensor in self.tensors.values()]

    def counts(
        self,
        keep: Any,
        density: Any,
        scope: str,
        allocate: _PathLike,
        sparsities: Mapping[str, float] | None,
        on_infeasible: str,
    ) -> list[int]:
        """Decide how many weights each tensor is left with."""
        if sparsities is not None:
            self._take_shares(sparsities)
        total = self._checked_total(keep, density, on_infeasible)
        if scope == "global":
            counts = self._global_counts(max(total, sum(self._least)))
            asked: list[int | None] = [None] * len(counts)
        else:
            demand = FROM_FILE if sparsities is not None else ALLOCATIONS[os.fspath(allocate)]
            plain = allocated(self._profiles, total, demand).tolist()
            asked = list(plain)
            counts = self._feasible(plain, total, demand, on_infeasible)
        self._asked = dict(zip(self.tensors, asked, strict=True))
        self._counts = dict(zip(self.tensors, counts, strict=True))
        return counts

    def budgets(self, total: int, on_infeasible: str) -> dict[str, dict[str, int]]:
        """Return what each allocation would leave of each tensor."""
        found = {}
        for name, demand in ALLOCATIONS.items():
            plain = allocated(self._profiles, total, demand).tolist()
            policy = "share" if on_infeasible == "raise" else on_infeasible
            found[name] = dict(zip(self.tensors, self._feasible(plain, total, demand, policy), strict=True))
        return found

    def _take_shares(self, sparsities: Mapping[str, float]) -> None:
        unknown = [name for name in sparsities if name not in self.tensors]
        if unknown:
            raise ValueError(
                f"Argument 'allocate' names {unknown[0]!r} in its file, which is none of the layers that are pruned; "
                f"one of them is {nearest(unknown[0], self.tensors)}. A file that names them all is written by "
                "topobounds prune SOURCE --density 0.1 --dry-run --export FILE."
            )
        for name, tensor in self.tensors.items():
            kept = 1 - as_written(sparsities[name]) if name in sparsities else Fraction(1)
            share = float(min(round(kept * tensor.profile.weights), tensor.profile.survivors))
            self.tensors[name] = replace(tensor, profile=replace(tensor.profile, share=share))

    def _checked_total(self, keep: Any, density: Any, on_infeasible: str) -> int:
        """Return how many weights are left of all tensors together."""
        weights, survivors, least = (
            sum(profile.weights for profile in self._profiles),
            sum(profile.survivors for profile in self._profiles),
            sum(self._least),
        )
        argument, value = ("density", density) if density is not None else ("keep", keep)
        if value is None:
            argument, value, total = "allocate", "the file", round(sum(profile.share for profile in self._profiles))
        elif density is not None:
            total = round(as_written(density) * weights)
        else:
            total = int(keep) if is_integer(keep) else round(as_written(keep) * survivors)
        if total > survivors:
            raise ValueError(
                f"Argument '{argument}' must leave no more than the {survivors} of the {weights} weights that are not "
                f"zero; {value!r} leaves {total}."
            )
        if total < least and on_infeasible != "clamp":
            raise ValueError(
                f"Argument '{argument}' must leave at least alpha = {least} of the {counted(weights, 'weight')}, which "
                f"carry the topology of the {counted(len(self.tensors), 'layer')}; {value!r} leaves {total}. "
                "on_infeasible='clamp' stops at alpha."
            )
        return total

    def _feasible(self, plain: list[int], total: int, demand: Any, on_infeasible: str) -> list[int]:
        """Return counts of at least what each tensor must keep."""
        least = self._least
        short = [(name, low, asked) for name, low, asked in zip(self.tensors, least, plain, strict=True) if asked < low]
        if not short:
            return plain
        if on_infeasible == "raise":
            named = ", ".join(f"'{name}' ({low} critical, {asked} asked)" for name, low, asked in short)
            raise ValueError(
                f"Argument 'density' must leave every layer the weights that carry its topology, which {len(short)} of "
                f"{len(plain)} would not have: {named}. on_infeasible='share' takes them from the others, 'clamp' "
                "leaves more than asked for."
            )
        if on_infeasible == "clamp":
            return [max(asked, low) for asked, low in zip(plain, least, strict=True)]
        shared: list[int] = allocated(self._profiles, total, demand, least).tolist()
        return shared

    def _global_counts(self, total: int) -> list[int]:
        """Return how many of the largest weights of all tensors are in each."""
        survivors = [profile.survivors for profile in self._profiles]
        if self.method.rank == "random" and not self.method.counts_of:
            rng = np.random.default_rng(self.seed)
            drawn: list[int] = rng.multivariate_hypergeometric(survivors, total, method="marginals").tolist()
            return drawn
        sizes = {tensor.itemsize for tensor in self.tensors.values()}
        kinds = {tensor.layer.dtype for tensor in self.tensors.values()}
        common = None if len(sizes) == len(kinds) == 1 else np.dtype(np.float64)
        least = self._least
        free = counts_of_largest(partial(self._all_weights, common), total - sum(least), 8 if common else sizes.pop())
        return [low + more for low, more in zip(least, free, strict=True)]

    def _all_weights(self, common: np.dtype[Any] | None) -> Iterator[tuple[Array, Mask, Mask]]:
        """Yield the flat weights of each tensor, which of them are not zero, and which are protected."""
        for name, tensor in self.tensors.items():
            array, scores = self.files.read(name)
            protected = np.zeros(array.size, np.bool_)
            if self.method.counted_by.protects:
                protected[tensor.critical] = True
            weights = weight_array(array if scores is None else scores).ravel()
            yield weights if common is None else weights.astype(common), non_zero(array).ravel(), protected

    # -- pruning --

    def pruned(self, name: str, array: Array, write: Callable[[str, Mask], None] | None = None) -> Array:
        """Return a tensor with its pruned weights zero, and keep the record of it."""
        if name not in self.tensors:
            return array
        scores = None if self.files.scored is None else self.files.read(name)[1]
        if self._begin_ahead is None:
            mask, new, chosen = choose(self._asked_of(name), array, scores, self._rooms)
        else:
            chosen = self._sent(name, checksum_of(array, scores))
            mask = chosen.mask(array.shape)
            new = zeroed(array, mask, self._rooms)
        self._pruned[name] = self._record(self.tensors[name], self._counts[name], chosen)
        if write is not None:
            write(name, mask)
        self._advance(self.tensors[name].layer)
        return new

    def _asked_of(self, name: str) -> Asked:
        entropy = None if self.seed is None else (self.seed, list(self.tensors).index(name))
        return Asked(self.tensors[name], self._counts[name], self.method.name, entropy)

    def _sent(self, name: str, checksum: int) -> Chosen:
        """Return the mask that a worker has chosen, of a file that must be the one that is open here."""
        assert self._begin_ahead is not None
        if self._masks_ahead is None:
            self._masks_ahead = self._begin_ahead([self._asked_of(each) for each in self.tensors])
        chosen = self._masks_ahead.take(name)
        if not checksum == chosen.checksum == self.tensors[name].checksum:
            path = self.checkpoint.path
            raise CheckpointError(f"{path} is not the same file on all workers: tensor '{name}' differs there.")
        return chosen

    def _record(self, tensor: Surveyed, count: int, chosen: Chosen) -> PrunedLayer:
        """Return what was done to a tensor, whose topology was computed anew from what is left."""
        name, exchange = tensor.layer.name, chosen.exchange
        return PrunedLayer(
            name=name,
            kind=tensor.layer.kind,
            convention="shared" if tensor.layer.kind == "conv" and tensor.layer.geometry is not None else None,
            shape=tensor.layer.shape,
            weights=tensor.profile.weights,
            survivors=tensor.profile.survivors,
            asked=self._asked[name],
            kept=count,
            alpha=len(tensor.critical),
            neural_persistence_before=tensor.neural_persistence,
            neural_persistence_after=chosen.neural_persistence,
            preserved=chosen.preserved,
            reason=self._reason(tensor, count, chosen.expected_swaps.reason),
            swaps=None if exchange is None else exchange.swaps,
            squared_weight_lost=None if exchange is None else exchange.squared_weight_lost,
            swaps_expected=chosen.expected_swaps.mean,
            swaps_deviation=chosen.expected_swaps.deviation,
            swaps_status=chosen.expected_swaps.status,
            swaps_deviation_status=chosen.expected_swaps.deviation_status,
        )

    def _reason(self, tensor: Surveyed, count: int, unknown: str | None) -> str | None:
        asked, notes = self._asked[tensor.layer.name], []
        if asked is None:
            notes.append("asked of all layers together")
        if unknown is not None:
            notes.append(unknown)
        if asked is not None and count > asked and count == len(tensor.critical):
            notes.append(f"{asked} were asked for, {count} carry its topology")
        if asked is not None and count == tensor.profile.survivors < tensor.profile.weights:
            notes.append("all its weights that are not zero are kept")
        if tensor.layer.assumed:
            notes.append(f"assumed: {tensor.layer.assumed}")
        return "; ".join(notes) or None

    def in_order(self) -> tuple[PrunedLayer, ...]:
        """Return what was done to each tensor, in the order of the file."""
        return tuple(self._pruned[name] for name in self.tensors)

    def tried(self) -> tuple[PrunedLayer, ...]:
        """Prune all tensors without writing them."""
        for name in self.tensors:
            self.pruned(name, self.checkpoint.tensor(name))
        return self.in_order()

    def write(
        self, target: Path, masks: Path, base: Mapping[str, str], resume: str | None, *, masks_only: bool
    ) -> None:
        """Write the pruned checkpoint and the masks, or these alone."""
        shapes = {name: self.tensors[name].layer.shape for name in self.tensors}
        if masks_only:
            with writing_masks(masks, shapes, base) as write:
                for name in self.tensors:
                    self.pruned(name, self.checkpoint.tensor(name), write)
            return
        relative = MASKS if self.checkpoint.folder is not None else masks.name
        writers: list[Callable[[str, Mask], None]] = []

        @contextmanager
        def beside(folder: Path) -> Iterator[None]:
            (folder / relative).parent.mkdir(exist_ok=True)
            with writing_masks(folder / relative, shapes, base) as write:
                writers.append(write)
                yield

        def change(name: str, array: Array) -> Array:
            return self.pruned(name, array, writers[-1])

        self.checkpoint.rewrite(target, change, resume=resume, beside=beside, room=masks_size(shapes))


class _MasksAhead:
    """Masks that workers choose ahead, in the order of the tensors, until `_AHEAD` bytes are waiting."""

    def __init__(self, executor: Executor, places: Places, asked: Sequence[Asked]) -> None:
        self._work = ExecutorWork(executor, partial(choose_at, places))
        self._asked = {each.name: each for each in asked}
        self._not_submitted = deque(self._asked)
        self._futures: dict[str, Future[Any]] = {}

    def take(self, name: str) -> Chosen:
        """Return the mask of a tensor, and have the next ones chosen."""
        self._submit(name)
        while self._not_submitted and sum(map(self._n_bytes, self._futures)) < _AHEAD:
            self._submit(self._not_submitted.popleft())
        return self._work.result(self._asked.pop(name), self._futures.pop(name))

    def close(self) -> None:
        """Give up what has not been taken."""
        for future in self._futures.values():
            future.cancel()

    def _submit(self, name: str) -> None:
        if name in self._asked and name not in self._futures:
            self._futures[name] = self._work.submit(self._asked[name])

    def _n_bytes(self, name: str) -> int:
        return self._asked[name].tensor.profile.weights // 8


def _itemsize(layer: LayerTensor) -> int:
    """Return the bytes of a stored weight; 4 where the dtype is not numpy's."""
    digits = re.search(r"\d+", layer.dtype)
    return max(1, int(digits[0]) // 8) if digits else 4


# -- files ------------------------------------------------------------------------------------------------------------


def _files_of(checkpoint: Checkpoint, target: Path) -> list[Path]:
    """Return the weight files of a target, where those of the checkpoint were written."""
    if checkpoint.folder is None:
        return [target]
    return [target / str(file).removeprefix(f"{checkpoint.folder}/") for file in checkpoint.files]


def _other_weights(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the files of weights in a folder that are none of the checkpoint's, which are copied."""
    if not isinstance(checkpoint.folder, Path):
        return {}
    own = {file.name for file in checkpoint.files}
    others = [file.name for file in checkpoint.folder.iterdir() if file.suffix in _WEIGHT_SUFFIXES]
    return {
        name: "a file beside the weights that are read, copied as it is" for name in sorted(others) if name not in own
    }


def _check_target(checkpoint: Checkpoint, target: Path, *, masks_only: bool) -> None:
    if masks_only:
        check_new_path(target)
        check_suffix(target, "safetensors")
    else:
        checkpoint.check_target(target)


def _masks_place(checkpoint: Checkpoint, target: Path, *, masks_only: bool) -> Path:
    if masks_only:
        return target
    if checkpoint.folder is not None:
        return target / MASKS
    place = target.with_name(f"{target.stem}.masks.safetensors")
    check_new_path(place)
    return place


def _hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint, by name."""

    def digest(file: Location) -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]

    names = [file.name for file in checkpoint.files]
    return dict(zip(names, in_threads(digest, checkpoint.files), strict=True))


def _awaited(base: "Future[dict[str, str]] | None") -> dict[str, str]:
    assert base is not None
    return base.result()


def _identity(base: Mapping[str, str], pruning: _Pruning, counts: Sequence[int], scores: Any) -> str | None:
    """Return what tells a pruning from all others; None where that would be too long to find out."""
    if isinstance(scores, Mapping):
        return None
    scored = None if pruning.files.scored is None else _hashes(pruning.files.scored.checkpoint)
    told = {
        "base": base,
        "scores": scored,
        "method": pruning.method.name,
        "seed": pruning.seed,
        "counts": dict(zip(pruning.tensors, counts, strict=True)),
        "graphs": {name: repr(tensor.layer) for name, tensor in pruning.tensors.items()},
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _forms(reading: LayerTensorReading, left_out: Mapping[str, str]) -> dict[str, tuple[tuple[int, ...], str]]:
    forms = dict(reading.forms) | {layer.name: (layer.shape, layer.dtype) for layer in reading.layers}
    return {name: forms[name] for name in left_out if name in forms}


def _commonest(left_out: Mapping[str, str]) -> str:
    """Return the commonest reason why nothing is pruned."""
    reasons = list(left_out.values())
    return f"; the commonest reason is: {max(reasons, key=reasons.count)}" if reasons else ""
