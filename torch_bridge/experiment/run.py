"""Iterative magnitude pruning and T-IMP: a frozen plan in, a run folder of levels out.

Level 0 is dense; each of the others prunes what the level before has trained, and trains what is left. A level is a
folder ``replicate-0.level-03`` with ``start``, ``masks`` and ``end`` (and, in level 0, ``rewind`` where the plan
rewinds to a later step) as safetensors, and its records as JSON lines: one of the level's start, one for every
evaluation, one for every layer, and last a summary.
"""

import hashlib
import json
import math
import pickle
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from topobounds._arguments import argument_error, real
from topobounds._parallel import WORKER_PATIENCE, do_pieces, process_count
from topobounds._records import plain_record
from topobounds._text import counted
from topobounds._types import Array, NamedProgress, StepProgress
from topobounds.layers import LayerTensor
from topobounds.pruning import dead_connections, pruning_method
from topobounds.runs import PLAN_FILE, RunError, RunFolder
from topobounds.topology.layer_topology import Topology
from torch_bridge._torch import Tensor, nn, torch
from torch_bridge.experiment import history, net_state, topology_records
from torch_bridge.experiment.plan import ImpPlan
from torch_bridge.model.devices import one_thread, pick_device, processor
from torch_bridge.model.undisturbed import undisturbed
from torch_bridge.training.data import Dataset, load_dataset
from torch_bridge.training.loop import (
    Clock,
    Split,
    StepRange,
    Training,
    scheduled_rate,
    split_data,
    steps_per_epoch,
    total_steps,
)
from torch_bridge.training.models import build_model
from torch_bridge.training.seeding import generator_seed, seeded, torch_seed

_TrainFunction = Callable[[nn.Module, dict[str, Tensor], int], Mapping[str, Any] | None]

_CHECKPOINT_SECONDS = 10.0


def run_imp(
    plan: ImpPlan,
    folder: str | PathLike[str],
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    train_fn: _TrainFunction | None = None,
    example_input: Any = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    device: str = "auto",
    jobs: int | None = 1,
    checkpoint_seconds: float = _CHECKPOINT_SECONDS,
    progress: NamedProgress | None = None,
) -> RunFolder:
    """Make the levels of a plan that are missing in a run folder.

    A finished level is not made again. One that was interrupted goes on from its last checkpoint, or, where the
    caller trains, from its start, and ends in the same weights, masks and metrics, bit for bit on the CPU. Another kind
    of processor rounds otherwise; the first record of each level names the one it was made on.

    Parameters
    ----------
    plan : ImpPlan
        What to do.
    folder : path
        The run folder of this plan; made where missing.
    model : torch.nn.Module or callable that returns one, optional
        The caller's own net, exactly where the plan has no ``model``. A callable is called with the global generators
        of torch, numpy and Python seeded by replicate, and returns a new net each time; of a module, copies are
        trained, it is left as it is, and its weights are the initialisation. Where the plan has a ``recipe``, it
        returns logits or log-probabilities.
    train_fn : callable, optional
        ``train_fn(model, mask, round) -> metrics``, exactly where the plan has no ``recipe``: trains `model` in place.
        `mask` holds a bool tensor for every pruned parameter by name; the gradients are zero where it is False, and
        every ``torch.optim`` optimiser leaves these weights at zero, whether the function knows of it or not: see
        `masked_steps`. One that trains by other means multiplies by the mask itself. `round` is the level. The
        metrics, a mapping of names to what JSON can hold, are recorded; ``test_accuracy``, if it is there, is what
        ``topobounds imp status`` shows. The global generators are seeded by replicate and level.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the caller's own net is called with, to learn the geometry of its convolutions. Without it their kernels
        are pruned as matrices.
    data_dir, download
        As in `torch_bridge.training.data.resolve_dataset`.
    device : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where there is one. A `train_fn` minds its own device.
    jobs : int, optional
        Replicates that are made at the same time, each in a process of its own, to the same end; at least 1. None: one
        on each processor, one on a GPU. A script that asks for more than one needs ``if __name__ == "__main__":``
        around what it does, and a `model` and a `train_fn` that other processes can import.
    checkpoint_seconds : float
        Time between checkpoints inside a level.
    progress : callable, optional
        Called as ``progress(done, total, message)``, in optimiser steps, or in levels where the caller trains.

    Returns
    -------
    RunFolder
        With a level ``replicate-r.level-ll`` for every replicate r and level l.

    Raises
    ------
    ValueError
        If the arguments do not fit the plan, T-IMP cannot keep every layer's topology at the counts of the schedule
        (told before anything is trained where it can be known), training diverged, or `train_fn` returned what is no
        metrics or left pruned weights alive.
    RunError
        If the folder holds another plan, was made from other data or with other layers, is in use, is damaged or cannot
        be written.
    """
    _check_arguments(plan, model, train_fn)
    checkpoint_seconds = real("checkpoint_seconds", checkpoint_seconds, "a non-negative number", 0.0, math.inf)
    folder = Path(folder).absolute()  # whatever a training function makes the current one
    place, own = pick_device(device), (model, train_fn, example_input)
    at_once = min(process_count(jobs, place.type), plan.replicates)
    if at_once > 1:
        _check_can_travel(own, at_once)
    if (folder / PLAN_FILE).exists():
        run = _run_of(plan, folder)
        for level in run.levels:
            level.verify()
        if not history.missing_levels(run, plan):
            _drop_leftovers(run)
            return run
    data = None if plan.data is None else load_dataset(plan.data.name, data_dir, download=download)
    # Before there is a folder, so that a plan that fails claims none.
    experiment = _Experiment(plan, place, data, *own)
    steps = sum(map(experiment.steps, plan.levels))
    run = _run_of(plan, folder)
    with run.locked():
        _check_same_data(run, data)
        _drop_leftovers(run)
        _check_same_layers(run, experiment.layers)
        experiment.run, experiment.checkpoint_seconds = run, checkpoint_seconds
        left = list(dict.fromkeys(replicate for replicate, _ in history.missing_levels(run, plan)))

        def report(done: int, message: str) -> None:
            if progress is not None:
                progress((plan.replicates - len(left)) * steps + done, plan.replicates * steps, message)

        work = experiment.make_replicate
        if min(at_once, len(left)) > 1:
            work = partial(_make_elsewhere, plan, run.path, own, data_dir, device, checkpoint_seconds)
        do_pieces(work, left, at_once, report)
    return run


def _make_elsewhere(
    plan: ImpPlan,
    path: Path,
    own: tuple[Any, ...],
    data_dir: str | PathLike[str] | None,
    device: str,
    checkpoint_seconds: float,
    replicate: int,
    report: StepProgress,
) -> None:
    """Make the levels of one replicate in a process other than the one that has locked the run."""
    data = None if plan.data is None else load_dataset(plan.data.name, data_dir)
    experiment = _Experiment(plan, pick_device(device), data, *own)
    experiment.run, experiment.checkpoint_seconds = RunFolder.open(path), checkpoint_seconds
    experiment.make_replicate(replicate, report)


def _run_of(plan: ImpPlan, folder: Path) -> RunFolder:
    extent = {"replicates": plan.replicates}
    return RunFolder.create(folder, plan.of_each_replicate, defaults=plan.defaults(), extent=extent)


class _Experiment:
    """What the levels of one run share."""

    def __init__(
        self,
        plan: ImpPlan,
        device: torch.device,
        data: Dataset | None,
        model: nn.Module | Callable[[], nn.Module] | None,
        train_fn: _TrainFunction | None,
        example_input: Any,
    ) -> None:
        self.plan, self.device, self.train_fn = plan, device, train_fn
        self.run: RunFolder
        self.checkpoint_seconds = _CHECKPOINT_SECONDS
        self.data = data
        self.split: Split | None = None
        if data is not None and plan.data is not None:
            self.split = split_data(data, plan.data, plan.seeds.split, device)
        self.model = model
        if isinstance(model, nn.Module):
            net_state.check_state(model)  # before it is copied, which not every tensor can be
        self.original = net_state.copied(model) if isinstance(model, nn.Module) else None
        self.last_net: weakref.ref[nn.Module] | None = None
        if model is None and self.split is not None:
            example_input = self.split.train[0][:1]
        net = self.new_net(0)
        self.layers = net_state.layer_tensors(net, example_input)
        self.aliases = net_state.aliases(net)
        self.left_alone = net_state.left_alone(net, self.layers)
        topology_records.check_feasible(self.layers, plan.pruning)
        if pruning_method(plan.pruning.method).by_paths:
            net_state.check_in_a_row(net, self.layers, example_input)
        if plan.recipe is not None and self.split is not None:
            if model is not None:
                self._check_own_net(net, self.split)
            self._check_precision(net, plan.recipe.precision, self.split.train[0][:2])

    def new_net(self, replicate: int, level: int = 0) -> nn.Module:
        """Return the net as initialised for a replicate or, drawn anew, for one of its levels."""
        with seeded(torch_seed(self.plan.seeds.init, "init", replicate, level)):
            net = self._made_net()
        last = self.last_net() if self.last_net else None
        if net is last:
            raise argument_error("model", "a function that returns a new net each time", "one that returns the same")
        self.last_net = weakref.ref(net)
        net_state.check_state(net)
        return net if self.train_fn else net.to(self.device)

    def _made_net(self) -> nn.Module:
        if self.original is not None:
            return net_state.copied(self.original)
        try:
            net = self.model() if self.model is not None else self._planned_net()
        except RuntimeError as error:
            if "allocate" in str(error):
                raise MemoryError(f"The net does not fit into memory: {str(error).splitlines()[0]}") from None
            raise
        if not isinstance(net, nn.Module):
            raise argument_error("model", "a net or a function that returns one", type(net).__name__)
        return net

    def _check_own_net(self, net: nn.Module, split: Split) -> None:
        """Refuse a net that does not make scores of the classes of the images."""
        images = split.train[0][:2]
        n_classes = 1 + max(int(labels.max()) for _, labels in (split.train, split.validation, split.test))
        shape = "x".join(map(str, images.shape))
        rule = f"a net that returns scores of {n_classes} classes, 2x{n_classes}, for float32 images, {shape}"
        try:
            with undisturbed(net):
                scores = net(images)
        except (RuntimeError, TypeError, ValueError) as error:
            raise argument_error("model", rule, f"one that fails ({str(error).splitlines()[0]})") from error
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            raise argument_error("model", rule, scores.dtype if isinstance(scores, Tensor) else type(scores).__name__)
        if scores.ndim != 2 or len(scores) != 2 or scores.shape[1] < n_classes:
            raise argument_error("model", rule, tuple(scores.shape))

    @torch.no_grad()
    def _check_precision(self, net: nn.Module, precision: str, images: Tensor) -> None:
        """Refuse a precision that torch cannot compute the net in on this device."""
        if precision == "float32":
            return
        try:
            with torch.autocast(self.device.type, torch.bfloat16), undisturbed(net):
                net(images)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            rule = f"'float32' for this net on {self.device} (torch: {reason})"
            raise argument_error("precision", rule, precision) from None

    def _planned_net(self) -> nn.Module:
        assert self.plan.model is not None
        assert self.split is not None
        channels, _, side = self.split.image_shape
        return build_model(self.plan.model, side, channels=channels)

    def make_replicate(self, replicate: int, report: StepProgress) -> None:
        """Make the levels of a replicate that are missing."""
        name = f"replicate {replicate + 1} of {self.plan.replicates}, " if self.plan.replicates > 1 else ""
        done = 0
        topologies: dict[str, Topology] | None = None  # at the end of the level before, if it was made just now
        with self.run.locked(f"replicate-{replicate}", WORKER_PATIENCE), _threads_for(self.plan, self.device):
            for level in self.plan.levels:
                if self.run.is_finished(history.level_name(replicate, level)):
                    topologies = None
                elif level and history.stops_after(self.run, self.plan, replicate, level - 1):
                    return
                else:
                    where = f"{name}level {level} of {self.plan.pruning.rounds}: "
                    own_report = partial(_report_from, report, done, where)
                    topologies = self._make_level(replicate, level, topologies, own_report)
                done += self.steps(level)

    def _make_level(
        self, replicate: int, level: int, topologies: dict[str, Topology] | None, report: StepProgress
    ) -> dict[str, Topology]:
        """Prune, train, measure and write one level; return the topology of each layer at its end.

        `topologies` are those at the end of the level before, where they are known.
        """
        maker = _LevelMaker(self, replicate, level, topologies)
        maker.prune()
        maker.train(report)
        with self.run.writing(maker.name) as writer:
            for stem, arrays in maker.files.items():
                writer.save_weights(stem, arrays)
            for record in maker.records():
                writer.append_metrics(record)
        self.run.drop_checkpoint(maker.name)
        return maker.after_training

    def steps(self, level: int) -> int:
        """Return how many steps a level takes; 1 where the caller trains."""
        step_range = self.step_range(level)
        return step_range.last - step_range.first if step_range else 1

    def step_range(self, level: int) -> StepRange | None:
        """Return the steps of a level, None where the caller trains."""
        recipe, pruning = self.plan.recipe, self.plan.pruning
        if recipe is None or self.split is None:
            return None
        n_images = len(self.split.train[1])
        total = total_steps(recipe, n_images)
        if pruning.rewind_step >= total:
            raise argument_error("rewind_step", f"less than the {total} steps of the dense level", pruning.rewind_step)
        if level == 0 or pruning.after in ("lr-rewind", "reinit"):
            return StepRange(0, total)
        if pruning.after == "rewind":
            return StepRange(pruning.rewind_step, total)
        epochs = pruning.finetune_epochs
        steps = epochs * steps_per_epoch(recipe, n_images) if epochs else total
        return StepRange(0, steps, scheduled_rate(recipe, total - 1, total))

    def facts(self) -> dict[str, Any]:
        """Return what the first record of a level says of where it was made."""
        device = "the caller's" if self.train_fn else str(self.device)
        if not self.train_fn and self.device.type == "cuda":
            device = torch.cuda.get_device_name(self.device)
        data = (
            None if self.data is None else {"name": self.data.name, "sha256": self.data.sha256, **self.data.provenance}
        )
        return {"device": device, "processor": processor(), "torch": torch.__version__, "data": data}


class _LevelMaker:
    """One level while it is made; `files` and `records` are what is written of it."""

    def __init__(
        self, experiment: _Experiment, replicate: int, level: int, topologies: dict[str, Topology] | None
    ) -> None:
        self.experiment, self.replicate, self.level = experiment, replicate, level
        self.plan, self.layers = experiment.plan, experiment.layers
        self.name = history.level_name(replicate, level)
        self.previous = experiment.run.level(history.level_name(replicate, level - 1)) if level else None
        self.files: dict[str, net_state.State] = {}
        self.previous_weights: net_state.State = {}
        self.before_pruning = topologies
        self.after_training: dict[str, Topology] = {}
        self.pruned: dict[str, dict[str, Any]] = {}
        self.trained: list[dict[str, Any]] = []

    def prune(self) -> None:
        """Settle the masks, and the weights that the level starts from."""
        if self.previous is None:
            masks = {layer.name: np.ones(layer.shape, np.bool_) for layer in self.layers}
        else:
            weights = self.previous_weights = self.previous.weights("end")
            old = self.previous.weights("masks")
            seed = int(self._seed("pruning").generate_state(1, np.uint64)[0])
            with self._named():
                before = self.before_pruning or topology_records.layer_topologies(self.layers, weights, old)
                masks = topology_records.prune(self.layers, weights, old, self.plan.pruning, self.level, seed, before)
                after = topology_records.layer_topologies(self.layers, weights, masks)
            self.before_pruning = before
            self.pruned = {
                layer.name: self._pruning_record(layer, weights, old, masks, before, after) for layer in self.layers
            }
        self.files["masks"] = dict(masks)
        self.files["start"] = self._masked(self._starting_weights())

    def _pruning_record(
        self,
        layer: LayerTensor,
        weights: net_state.State,
        old: Mapping[str, Array],
        masks: Mapping[str, Array],
        before: Mapping[str, Topology],
        after: Mapping[str, Topology],
    ) -> dict[str, Any]:
        """Return what the pruning did to a layer, and what keeping its topology (T-IMP) costs there.

        Parameters
        ----------
        layer
            The layer.
        weights
            The trained weights of all layers, which the pruning ranked.
        old, masks
            The masks of all layers before the pruning, and after it.
        before, after
            The topology of all layers under each.
        """
        name = layer.name
        kept = int(np.count_nonzero(masks[name]))
        record = topology_records.pruning_record(old[name], masks[name], before[name], after[name])
        return record | topology_records.price_record(layer, weights[name], old[name], before[name], kept)

    def _starting_weights(self) -> net_state.State:
        after = self.plan.pruning.after
        if self.previous is None or after == "reinit":
            return net_state.state_of(self.experiment.new_net(self.replicate, self.level))
        if after == "rewind":
            dense = self.experiment.run.level(history.level_name(self.replicate, 0))
            return dense.weights("rewind" if self.plan.pruning.rewind_step else "start")
        return self.previous_weights

    def train(self, report: StepProgress) -> None:
        """Train the level, by the recipe or by the caller's function; `report` takes the steps of the level."""
        net = self.experiment.new_net(self.replicate)
        net_state.load(net, self.files["start"])
        masks = {name: torch.from_numpy(mask.copy()) for name, mask in self.files["masks"].items()}
        with seeded(torch_seed(self.plan.seeds.order, "torch", self.replicate, self.level)):
            if self.experiment.train_fn is None:
                self._train_by_recipe(net, masks, report)
            else:
                self._train_by_caller(self.experiment.train_fn, net, masks)
                report(1, "trained")
        state = net_state.state_of(net)
        with self._named():
            if self.experiment.train_fn is not None:
                self._check_masked(state)
            self._check_converged(state)
        self.files["end"] = self._masked(state)

    def _check_masked(self, state: net_state.State) -> None:
        """Refuse a net whose pruned weights the caller has trained: its metrics are of another net than is kept."""
        start, goes_on = self.files["start"], self.plan.pruning.after in ("finetune", "lr-rewind")
        for name, array in start.items():
            if name not in state or state[name].shape != array.shape:
                raise ValueError(f"Argument 'train_fn' must leave the net's parameters as they are; '{name}' is gone.")
        for name in state:
            if name not in start and goes_on:  # a new net has no place for it
                raise ValueError(f"Argument 'train_fn' must leave the net's state as it is; '{name}' is new in it.")
        for name, mask in self.files["masks"].items():
            alive = int(np.count_nonzero(state[name][~mask]))
            if alive:
                raise ValueError(
                    f"Argument 'train_fn' must leave pruned weights at zero, but {alive} of '{name}' are not. Weights "
                    "that no torch.optim optimiser of the net trains are to be multiplied by the mask after every step."
                )

    def _check_converged(self, state: net_state.State) -> None:
        for name in self.experiment.aliases:
            values = state[name][self.files["masks"].get(name, ...)]
            bad = int(np.count_nonzero(~np.isfinite(values.astype(np.float64))))
            if bad:
                left = "weights left of layer" if name in self.files["masks"] else "entries of"
                raise ValueError(f"Training diverged: {bad} of the {values.size} {left} '{name}' are NaN or infinite.")

    def _train_by_recipe(self, net: nn.Module, masks: dict[str, Tensor], report: StepProgress) -> None:
        experiment, recipe, split = self.experiment, self.plan.recipe, self.experiment.split
        step_range = experiment.step_range(self.level)
        assert recipe is not None
        assert split is not None
        assert step_range is not None
        snapshot = self.plan.pruning.rewind_step if self.level == 0 else 0
        numbers = {"replicate": self.replicate, "level": self.level}
        training = Training(
            net,
            masks,
            recipe,
            step_range,
            split,
            self.plan.seeds,
            **numbers,
            snapshot_step=snapshot,
            normalized=experiment.model is None,
        )
        fingerprint = self._fingerprint(net)  # a checkpoint begins with it
        if (checkpoint := experiment.run.checkpoint(self.name)) is not None:
            if not checkpoint.startswith(fingerprint):
                raise RunError(
                    f"The checkpoint of {self.name} in {experiment.run.path} was made from other data, another plan or "
                    f"another net. Delete the file .{self.name}.checkpoint to train the level from its start."
                )
            training.restore(checkpoint.removeprefix(fingerprint))
        clock = Clock(experiment.checkpoint_seconds)

        def save(state: Callable[[], bytes]) -> None:
            if clock.strikes():
                experiment.run.save_checkpoint(self.name, fingerprint + state())

        def evaluated(step: int, record: dict[str, Any]) -> None:
            report(step - step_range.first, f"validation accuracy {record['validation_accuracy']:.4f}")

        with _failure_to_compile_explained(recipe.compile):
            training.run(save, evaluated)
        self.trained = training.progress.records
        if snapshot and training.snapshot is not None:
            self.files["rewind"] = {name: net_state.as_numpy(value) for name, value in training.snapshot.items()}

    def _fingerprint(self, net: nn.Module) -> bytes:
        """Return a hash of what the level is made from: level, plan, data, net, masks and starting weights."""
        assert self.experiment.data is not None
        found = hashlib.sha256()
        net_as_text = re.sub(r"\b0x[0-9a-fA-F]+", "", repr(net))  # without addresses in memory
        for text in (self.name, self.experiment.run.sha256, self.experiment.data.sha256, net_as_text):
            found.update(text.encode() + b"\0")
        for stem in ("masks", "start"):
            for name, array in self.files[stem].items():
                found.update(f"{name} {array.dtype} {array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
        return found.digest()

    def _train_by_caller(self, train_fn: _TrainFunction, net: nn.Module, masks: dict[str, Tensor]) -> None:
        places = {name: parameter.device for name, parameter in net.named_parameters()}
        with net_state.masked_steps(net, masks, self.experiment.model):
            given = {name: mask.to(places[name], copy=True) for name, mask in masks.items()}
            metrics = train_fn(net, given, self.level)
        self.trained = [{**_checked_metrics(metrics), "record": "training"}]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of the finished level."""
        identity = {"replicate": self.replicate, "level": self.level, "method": self.plan.pruning.method}
        yield {"record": "start", **identity, **self.experiment.facts(), "left_alone": self.experiment.left_alone}
        yield from self.trained
        masks = self.files["masks"]
        with self._named():
            self.after_training = topology_records.layer_topologies(self.layers, self.files["end"], masks)
        layers = []
        for layer in self.layers:
            name, topology = layer.name, self.after_training[layer.name]
            record = topology_records.training_record(layer, masks[name], topology) | self.pruned.get(name, {})
            record |= topology_records.chance_record(layer, self.files["end"][name], masks[name], topology)
            if self.before_pruning is not None:
                record["forest_persisted"] = self.before_pruning[name].share_in(topology.critical)
            layers.append(record)
        yield from layers
        summary = topology_records.level_summary(layers)
        if pruning_method(self.plan.pruning.method).by_paths:
            kept = [masks[layer.name] for layer in self.layers]
            summary["dead_connections"] = dead_connections(self.layers, kept)
        yield {"record": "level", **identity, **summary, **_result(self.trained)}

    def _masked(self, state: Mapping[str, Array]) -> net_state.State:
        """Return the state with exact, positive zeros where the masks are False."""
        masked = dict(state)
        for layer, mask in self.files["masks"].items():
            for name in self.experiment.aliases[layer]:
                masked[name] = np.where(mask, state[name], state[name].dtype.type(0))
        return masked

    def _seed(self, stream: str) -> np.random.SeedSequence:
        return generator_seed(getattr(self.plan.seeds, stream), stream, self.replicate, self.level)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the level in an error."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None


def _checked_metrics(metrics: Any) -> dict[str, Any]:
    """Return what a training function says of its net as plain Python."""
    if metrics is None:
        return {}
    rule = "a function that returns a mapping of metrics"
    if not isinstance(metrics, Mapping):
        raise argument_error("train_fn", rule, type(metrics).__name__)
    found = {}
    for name, value in metrics.items():
        try:
            found[str(name)] = plain_record(value)
            json.dumps(found[str(name)])
        except (TypeError, ValueError, RecursionError):
            raise argument_error("train_fn", f"{rule} that JSON can hold", f"{name} = {value!r}") from None
    accuracy = found.get("test_accuracy")
    if accuracy is not None and (isinstance(accuracy, bool) or not isinstance(accuracy, int | float)):
        raise argument_error("train_fn", f"{rule}, 'test_accuracy' a number", accuracy)
    return found


def _result(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how good the level is: at the least validation loss, the first where there are several, and at the end."""
    if trained[0]["record"] == "training":
        return {"test_accuracy": trained[0].get("test_accuracy")}
    best = min(trained, key=lambda record: (not np.isfinite(record["validation_loss"]), record["validation_loss"]))
    keys = ("validation_loss", "validation_accuracy", "test_accuracy")
    found = {"best_step": best["step"]} | {key: best[key] for key in keys}
    return found | {f"{key}_at_end": trained[-1][key] for key in keys}


def _check_arguments(plan: ImpPlan, model: object, train_fn: object) -> None:
    if not isinstance(plan, ImpPlan):
        raise argument_error("plan", "an ImpPlan, such as ImpPlan.read makes of a file", type(plan).__name__)
    for name, part, given in (("model", plan.model, model), ("train_fn", plan.recipe, train_fn)):
        if (part is None) != (given is not None):
            table = "model" if name == "model" else "recipe"
            rule = f"given exactly where the plan has no [{table}]"
            raise argument_error(
                name, rule, None if given is None else getattr(given, "__name__", type(given).__name__)
            )
    if isinstance(model, nn.Module) and (plan.replicates > 1 or plan.pruning.after == "reinit"):
        raise argument_error(
            "model", "a function that returns a new net, for replicates and reinit", type(model).__name__
        )


def _check_can_travel(own: tuple[Any, ...], jobs: int) -> None:
    try:
        pickle.dumps(own)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise argument_error(
            "jobs", f"1 where other processes cannot import the model or train_fn ({error})", jobs
        ) from error


@contextmanager
def _failure_to_compile_explained(compiled: bool) -> Iterator[None]:
    """Say that it was ``torch.compile`` that failed, in one line."""
    try:
        yield
    except RuntimeError as error:
        if not compiled or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = next(line for line in str(error).splitlines() if line.strip())
        raise argument_error("compile", f"false where torch.compile fails ({reason.strip()})", True) from error


def _report_from(report: StepProgress, done: int, where: str, steps: int, message: str) -> None:
    report(done + steps, where + message)


def _check_same_layers(run: RunFolder, layers: list[LayerTensor]) -> None:
    """Refuse a net with other layers than the levels that are there, or of which less is known."""
    here = {layer.name: _graphs(topology_records.layer_facts(layer)) for layer in layers}
    for level in run.levels[:1]:
        there = {record["name"]: _graphs(record) for record in level.metrics if record["record"] == "layer"}
        for name in [*there, *here]:
            if there.get(name) != here.get(name):
                raise RunError(
                    f"{level.path} was made with other layers: '{name}' is {there.get(name, 'not there')} there and "
                    f"{here.get(name, 'not there')} in the net and the example_input given now."
                )


def _graphs(record: Mapping[str, Any]) -> str:
    size = f", inputs {'x'.join(map(str, record['input_size']))}" if record.get("input_size") else ""
    return f"{'x'.join(map(str, record['shape']))} ({counted(record['graphs'], 'graph')}{size})"


def _drop_leftovers(run: RunFolder) -> None:
    """Remove checkpoints of finished levels, which a process that was killed may have left."""
    for finished in run.levels:
        run.drop_checkpoint(finished.name)


def _check_same_data(run: RunFolder, data: Dataset | None) -> None:
    for level in run.levels[:1]:
        made_from = level.metrics[0]["data"]
        if (made_from or {}).get("sha256") != (data.sha256 if data else None):
            raise RunError(f"{level.path} was made from other data than the {data.name if data else 'none'} given now.")


@contextmanager
def _threads_for(plan: ImpPlan, device: torch.device) -> Iterator[None]:
    """Let our own training run in one thread on the CPU, so that its numbers do not depend on how many there are."""
    if plan.recipe is None or device.type != "cpu":
        yield
        return
    with one_thread():
        yield
