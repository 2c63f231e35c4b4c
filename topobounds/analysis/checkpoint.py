"""What a checkpoint says: every layer of a file, of several files, or of arrays, read one tensor at a time."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topobounds._arguments import argument_error, boolean, checked_seed, checked_trials, integer
from topobounds._parallel import MOST_JOBS, ExecutorWork, Sharing, processors
from topobounds.analysis.curves import layer_curves
from topobounds.analysis.errors import Interrupted, UnreadTensorError
from topobounds.analysis.findings import find
from topobounds.analysis.masks_and_scores import check_values, masked_weights, scores_for
from topobounds.analysis.network import Connected, chains, in_order, network_reports
from topobounds.analysis.reports import LayerReport, ModelReport, NetworkReport, Source, layer_report
from topobounds.analysis.scales import scale_shares
from topobounds.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from topobounds.checkpoint.in_memory import ArraysCheckpoint
from topobounds.checkpoint.layer_tensors import LayerTensorReading, read_layer_tensors
from topobounds.checkpoint.location import path_elsewhere
from topobounds.checkpoint.opening import opened
from topobounds.checkpoint.per_tensor_arrays import MasksOrScores, PerTensorArrays
from topobounds.layers import Conv, LayerTensor, SingleTensorLayer
from topobounds.topology.moments import weight_moments

Progress = Callable[[int, int, str], None]
LARGE = 2**26
"""Bytes of a tensor of which no more than `_MOST_LARGE` are read at the same time."""
_MOST_LARGE = 2
SMALL = 2**22
"""Bytes of a tensor below which Python does most of the work, so that two at the same time take longer than in turn."""
INTERRUPTED = "Interrupted before it was read."


@dataclass(frozen=True)
class _Task:
    """What is done to every tensor; it holds no weights, so that it can go to other processes.

    `path`, `mask` and `scores` name what is opened there; they are not used where the checkpoint is open.
    """

    chance: bool
    trials: int | None
    seed: int
    scales: bool
    curves: bool
    path: str = ""
    mask: str | None = None
    scores: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Done:
    """What became of a tensor: a report for each of its graphs, or the reason why there is none."""

    reports: tuple[LayerReport, ...] = ()
    reason: str | None = None
    fault: str | None = None


def analyze(
    source: str | os.PathLike[str] | Checkpoint | Mapping[str, ArrayLike],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    geometry: Any = None,
    input_size: Sequence[int] | None = None,
    mask: MasksOrScores | None = None,
    scores: MasksOrScores | None = None,
    scales: bool = False,
    curves: bool = False,
    chance: bool = True,
    trials: int | None = None,
    seed: int | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> ModelReport:
    """Return what the weights in a checkpoint say layer by layer, beside what their shapes imply and what chance gives.

    Every tensor that is the weights of a layer is read, one at a time: a gate of a recurrent layer, a projection of
    attention or an expert is a layer of its own. What is not read is listed with its reason.

    Parameters
    ----------
    source : path, Checkpoint, or mapping of str to array_like
        What `open_checkpoint` takes or returns, or arrays by name.
    include, exclude : sequence of str
        Patterns of names, as of a shell; only what one of `include` matches, if there is any, and none of `exclude`.
    geometry, input_size
        What files do not tell: as in `layer_tensors`.
    mask : path, or mapping of str to array_like, optional
        Masks under the names of the tensors, with or without ``_mask`` at the end: weights that are False there are
        taken as zero. Tensors without one are not masked.
    scores : likewise, optional
        Scores of the weights, as Wanda's or SynFlow's. Their magnitudes take the place of |w| in all that depends on
        the order of the weights; density, root mean square and the largest weight stay those of the weights. Scores of
        weights that are zero are not looked at, and may be NaN; a layer with others that are not finite is left out.
    scales : bool
        Whether each layer is compared with what the scales of its neurons give, which takes a hundred forests a layer.
    curves : bool
        Whether each layer has its pictures as numbers, as a page needs them, which takes some forests a layer.
    chance, trials, seed
        As in `layer_report`; all layers are sampled with one seed.
    jobs : int, optional
        Tensors that are worked on at the same time; as many as there are processors if left out. Of large ones no more
        than two; those below 4 MiB are computed one after the other, which is faster.
    executor : concurrent.futures.Executor, optional
        What does the work in the place of threads of this process, on any machine that reads the same paths: it gets
        names, not weights.
    progress : callable, optional
        Called as ``progress(done, total, name)``, in bytes of weights, at the start and after each tensor.

    Returns
    -------
    ModelReport
        The numbers depend on the weights and the seed alone, not on `jobs`, `executor` or what else is read.

    Raises
    ------
    CheckpointError
        If a file cannot be opened or its container is damaged, or nothing in it can be read as a layer. A single tensor
        that is damaged or not finite is left out.
    ValueError
        If an argument is out of range, or names what is not there.
    Interrupted
        On Ctrl-C; with a report on what was done.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arrays = {"fc1.weight": rng.standard_normal((30, 50)), "fc2.weight": rng.standard_normal((10, 30))}
    >>> report = analyze(arrays | {"fc1.bias": np.zeros(30)}, seed=0)
    >>> [(layer.name, layer.m, layer.n, layer.alpha, layer.critical_rank) for layer in report.layers]
    [('fc1.weight', 50, 30, 79, 166), ('fc2.weight', 30, 10, 39, 103)]
    """
    if executor is not None and jobs is not None:
        raise argument_error("jobs", "left out where 'executor' does the work", jobs)
    n_threads = processors() if jobs is None else integer("jobs", jobs, 1, most=MOST_JOBS)
    task = _Task(
        chance=boolean("chance", chance),
        trials=checked_trials(trials),
        seed=checked_seed(seed),
        scales=boolean("scales", scales),
        curves=boolean("curves", curves),
    )
    with ExitStack() as held:
        checkpoint = opened(source, held)
        reading = read_layer_tensors(
            checkpoint, include=include, exclude=exclude, geometry=geometry, input_size=input_size
        )
        if not reading.layers:
            raise _nothing(checkpoint, reading.left_out)
        wanted = [layer.name for layer in reading.layers]
        masks_and_scores = _open_masks_and_scores(reading.shapes, wanted, mask, scores, held)
        work = _Work(checkpoint, reading, masks_and_scores, task, progress)
        if executor is None:
            work.in_threads(n_threads)
        else:
            work.elsewhere(executor, source, mask, scores)
        return work.report()


@dataclass(frozen=True)
class _MasksAndScores:
    """Masks and scores beside a checkpoint, open."""

    masks: PerTensorArrays | None
    scores: PerTensorArrays | None


class _Work:
    """The tensors of a checkpoint, what is done of them, and who hears of it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        reading: LayerTensorReading,
        masks_and_scores: _MasksAndScores,
        task: _Task,
        progress: Progress | None,
    ) -> None:
        self.checkpoint = checkpoint
        self.reading = reading
        self.masks_and_scores = masks_and_scores
        self.task = task
        self.progress = progress
        self.sizes = {layer.name: _n_bytes(layer) for layer in reading.layers}
        self.done: dict[str, _Done] = {}
        self._reading_lock = Lock()  # archives and streams are read by one thread at a time
        self._large = BoundedSemaphore(_MOST_LARGE)
        self._small = Lock()
        self._sharing = Sharing()

    def in_threads(self, n_threads: int) -> None:
        """Do all tensors in threads of this process."""
        pool = ThreadPoolExecutor(min(n_threads, len(self.reading.layers)))
        try:
            self._gather(ExecutorWork(pool, self._here))
        finally:
            pool.shutdown(cancel_futures=True)

    def elsewhere(
        self, executor: Executor, source: object, mask: MasksOrScores | None, scores: MasksOrScores | None
    ) -> None:
        """Do all tensors by an executor, whose workers open the files by their paths."""
        rule = "a path where 'executor' does the work, for weights are not sent"
        if isinstance(source, Mapping | ArraysCheckpoint):
            raise argument_error("source", rule, type(source).__name__)
        if isinstance(mask, Mapping) or isinstance(scores, Mapping):
            raise argument_error("mask" if isinstance(mask, Mapping) else "scores", rule, "a mapping")
        task = replace(
            self.task,
            path=path_elsewhere(self.checkpoint.path),
            mask=None if mask is None else path_elsewhere(mask),
            scores=None if scores is None else path_elsewhere(scores),
            shapes=self.reading.shapes if self.masks_and_scores != _MasksAndScores(None, None) else {},
        )
        self._gather(ExecutorWork(executor, partial(_in_worker, task)))

    def _here(self, layer: LayerTensor) -> _Done:
        large = self._large if self.sizes[layer.name] >= LARGE else nullcontext()
        with large:
            return _tensor_done(
                self.checkpoint, self.masks_and_scores, layer, self.task, self._reading_lock, self._computing(layer)
            )

    @contextmanager
    def _computing(self, layer: LayerTensor) -> Iterator[None]:
        in_turn = self._small if self.sizes[layer.name] < SMALL else nullcontext()
        with in_turn, self._sharing.piece():
            yield

    def _gather(self, work: ExecutorWork[LayerTensor, _Done]) -> None:
        futures = {work.submit(layer): layer for layer in self.reading.layers}
        total = sum(self.sizes.values())
        done = 0
        try:
            if self.progress is not None:
                self.progress(0, total, self.reading.layers[0].name)
            for future in as_completed(futures):
                name = futures[future].name
                self.done[name] = work.result(futures[future], future)
                done += self.sizes[name]
                if self.progress is not None:
                    self.progress(done, total, name)
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            ended = [f for f in futures if f.done() and not f.cancelled() and not f.exception()]
            self.done |= {futures[f].name: done for f in ended for done, raised in [f.result()] if raised is None}
            raise Interrupted(self.report(complete=False)) from None
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def report(self, *, complete: bool = True) -> ModelReport:
        """Return the report of what is done."""
        left_out = dict(self.reading.left_out)
        faults = dict.fromkeys(sorted(self.reading.damaged), "damaged")
        layers: list[LayerReport] = []
        for tensor in self.reading.layers:
            done = self.done.get(tensor.name, _Done(reason=INTERRUPTED))
            layers += done.reports
            if done.reason is not None:
                left_out[tensor.name] = done.reason
            if done.fault is not None:
                faults[tensor.name] = done.fault
        if complete and not layers:
            raise _nothing(self.checkpoint, left_out)
        read = {layer.tensor for layer in layers}
        order = {name: place for place, name in enumerate((*self.checkpoint.names, *left_out))}
        report = ModelReport(
            layers=tuple(layers),
            left_out=dict(sorted(left_out.items(), key=lambda item: order[item[0]])),
            source=self._source(read),
            forms=self._forms(left_out),
            tied=dict(self.reading.tied),
            networks=self._networks(read) if complete else (),
            faults=faults,
        )
        return replace(report, findings=find(report))

    def _source(self, read: set[str]) -> Source:
        checkpoint, masks, scores = self.checkpoint, self.masks_and_scores.masks, self.masks_and_scores.scores
        return Source(
            path="" if isinstance(checkpoint, ArraysCheckpoint) else str(checkpoint.path),
            format=checkpoint.format,
            files=tuple(_within(checkpoint, str(file)) for file in checkpoint.files),
            bytes=sum(self.sizes[name] for name in read),
            mask=None if masks is None else masks.label,
            scores=None if scores is None else scores.label,
        )

    def _forms(self, left_out: Mapping[str, str]) -> dict[str, tuple[tuple[int, ...], str]]:
        read = {layer.name: (layer.shape, layer.dtype) for layer in self.reading.layers if layer.name in left_out}
        return {**self.reading.forms, **read}

    def _networks(self, read: set[str]) -> tuple[NetworkReport, ...]:
        """Return the chains of dense layers, whose weights are read once more."""
        layers = [layer for layer in self.reading.layers if layer.name in read]
        tied = self.reading.tied
        matrices = [name for name, shape in self.reading.shapes.items() if len(shape) > 1 and name not in tied]
        names, assumed = in_order(self._stored_dtypes())
        reports: list[NetworkReport] = []
        for run in chains(names, layers, matrices):
            connected = []
            for place, layer in enumerate(run):
                weights = _ranked(
                    _weights(self.checkpoint, self.masks_and_scores, layer, self._reading_lock),
                    self.masks_and_scores,
                    layer,
                )
                matrix = layer.split(weights)[0]
                connected.append(Connected(layer.name, matrix if layer.inputs_first else matrix.T, place, place + 1))
            reports += network_reports(connected, assumed)
        return tuple(reports)

    def _stored_dtypes(self) -> dict[str, tuple[str, bool]]:
        """Return the dtype of each tensor, and whether it is that of a quantised weight, whose codes have another."""
        known = {name: dtype for name, (_, dtype) in self.reading.forms.items()}
        known |= {layer.name: layer.dtype for layer in self.reading.layers}
        quantised = self.checkpoint.quantised
        return {name: (known.get(name, ""), name in quantised) for name in self.checkpoint.names}


def _open_masks_and_scores(
    shapes: Mapping[str, tuple[int, ...]],
    wanted: Sequence[str],
    mask: MasksOrScores | None,
    scores: MasksOrScores | None,
    held: ExitStack,
) -> _MasksAndScores:
    """Open the masks and the scores, and check their names and shapes."""
    opened = [
        None if given is None else held.enter_context(PerTensorArrays(argument, given, shapes, wanted))
        for argument, given in (("mask", mask), ("scores", scores))
    ]
    return _MasksAndScores(*opened)


def _nothing(checkpoint: Checkpoint, left_out: Mapping[str, str]) -> CheckpointError:
    """Return the error for a file of which nothing is read, with the commonest reason."""
    place = "of the arrays" if isinstance(checkpoint, ArraysCheckpoint) else f"of {checkpoint.path}"
    if not left_out:
        return CheckpointError(f"There is no tensor {place}.".replace(" of ", " in ", 1))
    (reason, count), *_ = Counter(left_out.values()).most_common(1)
    if len(left_out) == 1:
        return CheckpointError(f"The only tensor {place} is not read as a layer: {reason}")
    return CheckpointError(f"None of the {len(left_out)} tensors {place} is read as a layer; {count} of them: {reason}")


def _within(checkpoint: Checkpoint, file: str) -> str:
    """Return the name of a file within the folder that was opened, or its last part."""
    folder = str(checkpoint.path).rstrip("/") + "/"
    return file.removeprefix(folder) if file.startswith(folder) else file.rstrip("/").rpartition("/")[2]


def _n_bytes(layer: LayerTensor) -> int:
    return int(layer.n_weights * np.dtype(layer.dtype).itemsize)


# -- one tensor ------------------------------------------------------------------------------------------------------


def _in_worker(task: _Task, layer: LayerTensor) -> _Done:
    """Do one tensor in another process, which opens the files."""
    with ExitStack() as held:
        checkpoint = held.enter_context(open_checkpoint(task.path))
        masks_and_scores = _open_masks_and_scores(task.shapes, (), task.mask, task.scores, held)
        return _tensor_done(checkpoint, masks_and_scores, layer, task, Lock(), nullcontext())


def _tensor_done(
    checkpoint: Checkpoint,
    masks_and_scores: _MasksAndScores,
    layer: LayerTensor,
    task: _Task,
    lock: Lock,
    computing: AbstractContextManager[None],
) -> _Done:
    """Return the reports of one tensor, or why it is left out."""
    try:
        weights = _weights(checkpoint, masks_and_scores, layer, lock)
        ranked = _ranked(weights, masks_and_scores, layer)
        names = [name for name, of in checkpoint.tied.items() if of == layer.name]
        try:
            with computing:
                return _Done(tuple(_part_reports(layer, weights, ranked, task, ", ".join(names) or None)))
        except ValueError as error:
            check_values(ranked, "its weights")
            raise UnreadTensorError(str(error)) from None
    except UnreadTensorError as error:
        return _Done(reason=str(error), fault=error.fault)


def _weights(checkpoint: Checkpoint, masks_and_scores: _MasksAndScores, layer: LayerTensor, lock: Lock) -> NDArray[Any]:
    """Read a tensor, and what masks it."""
    with lock:
        try:
            weights = checkpoint.tensor(layer.name)
        except CheckpointError as error:
            raise UnreadTensorError(str(error), "damaged") from None
        if not weights.dtype.isnative:  # else all that is computed of it would convert it again
            weights = weights.astype(weights.dtype.newbyteorder("="))
        return masked_weights(weights, masks_and_scores.masks, layer.name)


def _ranked(weights: NDArray[Any], masks_and_scores: _MasksAndScores, layer: LayerTensor) -> NDArray[Any]:
    """Return what the weights are ranked by: themselves, or their scores."""
    if masks_and_scores.scores is None:
        return weights
    check_values(weights, "its weights")
    return scores_for(weights, masks_and_scores.scores, layer.name)


def _part_reports(
    layer: LayerTensor, weights: NDArray[Any], ranked: NDArray[Any], task: _Task, tied_to: str | None
) -> Iterator[LayerReport]:
    """Yield the report of each graph of a tensor."""
    parts = zip(layer.part_names, layer.read_as, layer.graphs, layer.split(ranked), strict=True)
    own_parts = layer.split(weights) if ranked is not weights else [None] * len(layer.parts)
    for (name, read_as, graph, part), own in zip(parts, own_parts, strict=True):
        report = _part_report(layer, name, part, graph, task)
        if own is not None:
            report = _of_weights(report, own)
        yield replace(
            report,
            tensor=layer.name,
            read_as=read_as,
            assumed=layer.assumed,
            dtype=layer.dtype or report.dtype,
            file=layer.source or None,
            tied_to=tied_to,
            scales=scale_shares(report, part, graph, task.trials, task.seed) if task.scales else None,
            curves=layer_curves(part, graph, task.trials, task.seed) if task.curves else None,
        )


def _part_report(
    layer: LayerTensor, name: str, part: NDArray[Any], graph: SingleTensorLayer | None, task: _Task
) -> LayerReport:
    """Return the report of one graph; without the graph where the map of a convolution is too large."""
    report = partial(
        layer_report, name, part, kind=layer.kind, inputs_first=layer.inputs_first, trials=task.trials, seed=task.seed
    )
    try:
        return report(graph, chance=task.chance)
    except ValueError as error:
        if not isinstance(graph, Conv) or not np.isfinite(part).all():
            raise
        return report(None, reason=str(error))


def _of_weights(report: LayerReport, weights: NDArray[Any]) -> LayerReport:
    """Return a report on scores with what it says of the weights themselves."""
    moments = weight_moments(weights)
    sizes = np.abs(weights.astype(np.float64)).ravel()
    largest = np.partition(sizes, -2)[:-3:-1] if sizes.size > 1 else sizes
    note = "Ranked by scores in the place of the weights."
    return replace(
        report,
        nonzero=moments.nonzero,
        rms=moments.rms,
        w_max=float(largest[0]),
        w_second=float(largest[1]) if largest.size > 1 and largest[1] else None,
        reason=" ".join(filter(None, [note, report.reason])),
    )
