"""Iterative magnitude pruning and T-IMP: a frozen plan in, a run folder of levels out.

Level 0 is dense; each of the others prunes what the level before has trained, and trains what is left. A level is a
folder ``replicate-0.level-03`` with ``start``, ``masks`` and ``end`` (and, in level 0, ``rewind`` where the plan
rewinds to a later step) as safetensors, and its records as JSON lines: one of the level's start, one for every
evaluation, one for every layer, and last a summary.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from torch_bridge import MissingExtra

try:
    import torch
    from torch import Tensor, nn
    from torch.optim.optimizer import register_optimizer_step_post_hook
except ModuleNotFoundError as error:
    raise MissingExtra("torch") from error

from topobounds._arguments import argument_error
from topobounds.runs import RunError, RunFolder
from torch_bridge.audit import LayerTensor, check_feasible, forest_share, prune, pruning_record, training_record
from torch_bridge.data import Dataset, load_dataset
from torch_bridge.geometry import Trace, WeightTensor, trace, weight_tensors
from torch_bridge.models import build_model
from torch_bridge.parallel import PATIENCE, Report, each, how_many
from torch_bridge.plan import ImpPlan
from torch_bridge.recipe import (
    Clock,
    Split,
    Stretch,
    Training,
    generator_seed,
    learning_rate,
    seeded,
    split_data,
    steps_per_epoch,
    torch_seed,
    total_steps,
)
from torch_bridge.train import one_thread, pick_device

Array = NDArray[Any]
State = dict[str, Array]
TrainFunction = Callable[[nn.Module, dict[str, Tensor], int], Mapping[str, Any] | None]
Progress = Callable[[int, int, str], None]

CHECKPOINT_SECONDS = 10.0
PERSISTENCES = ("neural_persistence", "neural_persistence_before_pruning", "neural_persistence_after_pruning")


def run_imp(
    plan: ImpPlan,
    folder: str | PathLike[str],
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    train_fn: TrainFunction | None = None,
    example_input: Any = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    device: str = "auto",
    jobs: int | None = 1,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: Progress | None = None,
) -> RunFolder:
    """Make the levels of a plan that are missing in a run folder.

    A finished level is not made again. One that was interrupted goes on from its last checkpoint, or, where the
    caller trains, from its start, and ends in the same weights, masks and metrics, bit for bit on the CPU.

    Parameters
    ----------
    plan : ImpPlan
        What to do.
    folder : path
        The run folder of this plan; made where missing.
    model : torch.nn.Module or callable that returns one, optional
        The caller's own net, exactly where the plan has no ``model``. A callable is called with torch's generators
        seeded by replicate; a module's weights as they are now are the initialisation.
    train_fn : callable, optional
        ``train_fn(model, mask, round) -> metrics``, exactly where the plan has no ``recipe``: trains `model` in place.
        `mask` holds a bool tensor for every pruned parameter by name; every ``torch.optim`` optimiser leaves what is
        False at zero, whether the function knows of it or not. `round` is the level. The metrics, a mapping of names
        to numbers, are recorded; ``test_accuracy``, if it is there, is what ``topobounds imp status`` shows. Torch's
        generators are seeded by replicate and level.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the caller's own net is called with, to learn the geometry of its convolutions. Without it their kernels
        are pruned as matrices.
    data_dir, download
        As in `torch_bridge.data.resolve_dataset`.
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
        (told before anything is trained where it can be known), or training diverged.
    RunError
        If the folder holds another plan, was made from other data, is in use, is damaged or cannot be written.
    """
    _check_arguments(plan, model, train_fn)
    place, own = pick_device(device), (model, train_fn, example_input)
    at_once = min(how_many(jobs, place.type), plan.replicates)
    if at_once > 1:
        _check_can_travel(own, at_once)
    extent = {"replicates": plan.replicates}
    run = RunFolder.create(folder, plan.of_each_replicate, defaults=plan.defaults(), extent=extent)
    if not missing_levels(run, plan):
        return run
    data = None if plan.data is None else load_dataset(plan.data.name, data_dir, download=download)
    with run.locked():
        _check_same_data(run, data)
        for finished in run.levels:  # a process that was killed between the two may have left one
            run.drop_checkpoint(finished.name)
        experiment = _Experiment(run, plan, place, data, *own)
        experiment.checkpoint_seconds = checkpoint_seconds
        left = list(dict.fromkeys(replicate for replicate, _ in missing_levels(run, plan)))
        steps = sum(map(experiment.steps, plan.levels))

        def report(done: int, message: str) -> None:
            if progress is not None:
                progress((plan.replicates - len(left)) * steps + done, plan.replicates * steps, message)

        work = experiment.make_replicate
        if min(at_once, len(left)) > 1:
            work = partial(_make_elsewhere, plan, run.path, own, data_dir, device, checkpoint_seconds)
        each(work, left, at_once, report)
    return run


def _make_elsewhere(
    plan: ImpPlan,
    path: Path,
    own: tuple[Any, ...],
    data_dir: str | PathLike[str] | None,
    device: str,
    checkpoint_seconds: float,
    replicate: int,
    report: Report,
) -> None:
    """Make the levels of one replicate in a process other than the one that has locked the run."""
    data = None if plan.data is None else load_dataset(plan.data.name, data_dir)
    experiment = _Experiment(RunFolder.open(path), plan, pick_device(device), data, *own)
    experiment.checkpoint_seconds = checkpoint_seconds
    experiment.make_replicate(replicate, report)


def level_name(replicate: int, level: int) -> str:
    """Return the name of a level's folder."""
    return f"replicate-{replicate}.level-{level:02d}"


def missing_levels(run: RunFolder, plan: ImpPlan) -> list[tuple[int, int]]:
    """Return replicate and number of the levels that are not finished, in the order in which they are made."""
    every = [(replicate, level) for replicate in range(plan.replicates) for level in plan.levels]
    return [each for each in every if not run.is_finished(level_name(*each))]


def layer_tensors(net: nn.Module, example_input: Any = None) -> list[LayerTensor]:
    """Return the prunable weight tensors of a net: linear, recurrent and convolutional layers, attention.

    Parameters
    ----------
    net : torch.nn.Module
        The net. Embeddings, biases and normalisation are left out; weights that layers share come once.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the net is called with, once, to learn the geometry of its convolutions; of one that is called on inputs
        of several sizes the first counts. Kernels of unknown geometry are matrices, group by group.

    Returns
    -------
    list of LayerTensor
        In the order of the net's modules.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> [(layer.name, layer.parts) for layer in layer_tensors(nn.LSTM(8, 16))]
    [('weight_ih_l0', 4), ('weight_hh_l0', 4)]
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    traced = None if example_input is None else trace(net, example_input)
    found: dict[str, LayerTensor] = {}
    for module in net.modules():
        for tensor in weight_tensors(module):
            parameter = module._parameters.get(tensor.name)
            if parameter is not None and tensor.kind != "embedding":
                name = names[id(parameter)]
                found.setdefault(name, _layer_tensor(name, parameter, module, tensor, traced))
    if not found:
        raise ValueError("Argument 'model' must have a layer to prune, and this has none.")
    return list(found.values())


def _layer_tensor(
    name: str, parameter: Tensor, module: nn.Module, tensor: WeightTensor, traced: Trace | None
) -> LayerTensor:
    shape = tuple(parameter.shape)
    if tensor.kind != "conv":
        return LayerTensor(name, shape, len(tensor.parts), inputs_first=tensor.inputs_first)
    groups = cast(int, module.groups)
    convs = traced.convs(module) if traced else []
    return LayerTensor(name, shape, groups, convs[0] if convs else None, groups, tensor.inputs_first)


class _Experiment:
    """What the levels of one run share."""

    def __init__(
        self,
        run: RunFolder,
        plan: ImpPlan,
        device: torch.device,
        data: Dataset | None,
        model: nn.Module | Callable[[], nn.Module] | None,
        train_fn: TrainFunction | None,
        example_input: Any,
    ) -> None:
        self.run, self.plan, self.device, self.train_fn = run, plan, device, train_fn
        self.checkpoint_seconds = CHECKPOINT_SECONDS
        self.data = data
        self.split: Split | None = None
        if data is not None and plan.data is not None:
            self.split = split_data(data, plan.data, plan.seeds.split, device)
        self.model = model
        self.initial = _state(model) if isinstance(model, nn.Module) else None
        if model is None and self.split is not None:
            example_input = self.split.train[0][:1]
        self.layers = layer_tensors(self.new_net(0), example_input)
        check_feasible(self.layers, plan.pruning)

    def new_net(self, replicate: int, level: int = 0) -> nn.Module:
        """Return the net as initialised for a replicate or, drawn anew, for one of its levels."""
        if isinstance(self.model, nn.Module):
            _load(self.model, self.initial or {})
            return self.model
        with seeded(torch_seed(self.plan.seeds.init, "init", replicate, level)):
            net = self.model() if self.model is not None else self._planned_net()
        return net if self.train_fn else net.to(self.device)

    def _planned_net(self) -> nn.Module:
        assert self.plan.model is not None
        assert self.split is not None
        channels, _, side = self.split.image_shape
        return build_model(self.plan.model, side, channels=channels)

    def make_replicate(self, replicate: int, report: Report) -> None:
        """Make the levels of a replicate that are missing."""
        name = f"replicate {replicate + 1} of {self.plan.replicates}, " if self.plan.replicates > 1 else ""
        done = 0
        with self.run.locked(f"replicate-{replicate}", PATIENCE), _threads_for(self.plan, self.device):
            for level in self.plan.levels:
                if not self.run.is_finished(level_name(replicate, level)):
                    where = f"{name}level {level} of {self.plan.pruning.rounds}: "
                    self._make_level(replicate, level, partial(_report_from, report, done, where))
                done += self.steps(level)

    def _make_level(self, replicate: int, level: int, report: Report) -> None:
        """Prune, train, measure and write one level."""
        maker = _LevelMaker(self, replicate, level)
        maker.prune()
        maker.train(report)
        with self.run.writing(maker.name) as writer:
            for stem, arrays in maker.files.items():
                writer.save_weights(stem, arrays)
            for record in maker.records():
                writer.append_metrics(record)
        self.run.drop_checkpoint(maker.name)

    def steps(self, level: int) -> int:
        """Return how many steps a level takes; 1 where the caller trains."""
        stretch = self.stretch(level)
        return stretch.last - stretch.first if stretch else 1

    def stretch(self, level: int) -> Stretch | None:
        """Return the steps of a level, None where the caller trains."""
        recipe, pruning = self.plan.recipe, self.plan.pruning
        if recipe is None or self.split is None:
            return None
        n_images = len(self.split.train[1])
        total = total_steps(recipe, n_images)
        if pruning.rewind_step >= total:
            raise argument_error("rewind_step", f"less than the {total} steps of the dense level", pruning.rewind_step)
        if level == 0 or pruning.after in ("lr-rewind", "reinit"):
            return Stretch(0, total)
        if pruning.after == "rewind":
            return Stretch(pruning.rewind_step, total)
        epochs = pruning.finetune_epochs
        steps = epochs * steps_per_epoch(recipe, n_images) if epochs else total
        return Stretch(0, steps, learning_rate(recipe, total - 1, total))

    def facts(self) -> dict[str, Any]:
        """Return what the first record of a level says of where it was made."""
        device = "the caller's" if self.train_fn else str(self.device)
        if not self.train_fn and self.device.type == "cuda":
            device = torch.cuda.get_device_name(self.device)
        data = (
            None if self.data is None else {"name": self.data.name, "sha256": self.data.sha256, **self.data.provenance}
        )
        return {"device": device, "torch": torch.__version__, "data": data}


class _LevelMaker:
    """One level while it is made; `files` and `records` are what is written of it."""

    def __init__(self, experiment: _Experiment, replicate: int, level: int) -> None:
        self.experiment, self.replicate, self.level = experiment, replicate, level
        self.plan, self.layers = experiment.plan, experiment.layers
        self.name = level_name(replicate, level)
        self.previous = experiment.run.level(level_name(replicate, level - 1)) if level else None
        self.files: dict[str, State] = {}
        self.pruned: dict[str, dict[str, Any]] = {}
        self.trained: list[dict[str, Any]] = []

    def prune(self) -> None:
        """Settle the masks, and the weights that the level starts from."""
        if self.previous is None:
            masks = {layer.name: np.ones(layer.shape, np.bool_) for layer in self.layers}
        else:
            weights, old = self.previous.weights("end"), self.previous.weights("masks")
            seed = int(self._seed("pruning").generate_state(1, np.uint64)[0])
            with self._named():
                masks = prune(self.layers, weights, old, self.plan.pruning, self.level, seed)
                self.pruned = {
                    layer.name: pruning_record(layer, weights[layer.name], old[layer.name], masks[layer.name])
                    for layer in self.layers
                }
        self.files["masks"] = dict(masks)
        self.files["start"] = self._masked(self._starting_weights())

    def _starting_weights(self) -> State:
        after = self.plan.pruning.after
        if self.previous is None or after == "reinit":
            return _state(self.experiment.new_net(self.replicate, self.level))
        if after == "rewind":
            dense = self.experiment.run.level(level_name(self.replicate, 0))
            return dense.weights("rewind" if self.plan.pruning.rewind_step else "start")
        return self.previous.weights("end")

    def train(self, report: Report) -> None:
        """Train the level, by the recipe or by the caller's function; `report` takes the steps of the level."""
        net = self.experiment.new_net(self.replicate)
        _load(net, self.files["start"])
        masks = {name: torch.from_numpy(mask) for name, mask in self.files["masks"].items()}
        with seeded(torch_seed(self.plan.seeds.order, "torch", self.replicate, self.level)):
            if self.experiment.train_fn is None:
                self._train_by_recipe(net, masks, report)
            else:
                self._train_by_caller(self.experiment.train_fn, net, masks)
                report(1, "trained")
        self.files["end"] = self._masked(_state(net))

    def _train_by_recipe(self, net: nn.Module, masks: dict[str, Tensor], report: Report) -> None:
        experiment, recipe, split = self.experiment, self.plan.recipe, self.experiment.split
        stretch = experiment.stretch(self.level)
        assert recipe is not None
        assert split is not None
        assert stretch is not None
        snapshot = self.plan.pruning.rewind_step if self.level == 0 else 0
        numbers = {"replicate": self.replicate, "level": self.level}
        training = Training(net, masks, recipe, stretch, split, self.plan.seeds, **numbers, snapshot_step=snapshot)
        if (checkpoint := experiment.run.checkpoint(self.name)) is not None:
            training.restore(checkpoint)
        clock = Clock(experiment.checkpoint_seconds)

        def save(state: Callable[[], bytes]) -> None:
            if clock.strikes():
                experiment.run.save_checkpoint(self.name, state())

        def evaluated(step: int, record: dict[str, Any]) -> None:
            report(step - stretch.first, f"validation accuracy {record['validation_accuracy']:.4f}")

        training.run(save, evaluated)
        self.trained = training.progress.records
        if snapshot and training.snapshot is not None:
            self.files["rewind"] = {name: _as_numpy(value) for name, value in training.snapshot.items()}

    def _train_by_caller(self, train_fn: TrainFunction, net: nn.Module, masks: dict[str, Tensor]) -> None:
        places = {name: parameter.device for name, parameter in net.named_parameters()}
        with masked_steps(net, masks):
            metrics = train_fn(net, {name: mask.to(places[name]) for name, mask in masks.items()}, self.level)
        if metrics is not None and not isinstance(metrics, Mapping):
            raise argument_error("train_fn", "a function that returns a mapping of metrics", type(metrics).__name__)
        self.trained = [{"record": "training", **(metrics or {})}]

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of the finished level."""
        identity = {"replicate": self.replicate, "level": self.level, "method": self.plan.pruning.method}
        yield {"record": "start", **identity, **self.experiment.facts()}
        yield from self.trained
        layers = []
        with self._named():
            for layer in self.layers:
                record = training_record(layer, self.files["end"][layer.name], self.files["masks"][layer.name])
                layers.append(record | self.pruned.get(layer.name, {}) | self._forest_persisted(layer))
        yield from layers
        yield {"record": "level", **identity, **_summary(layers), **_result(self.trained)}

    def _forest_persisted(self, layer: LayerTensor) -> dict[str, Any]:
        if self.previous is None:
            return {}
        old, new = (
            (weights[layer.name], masks[layer.name])
            for weights, masks in (
                (self.previous.weights("end"), self.previous.weights("masks")),
                (self.files["end"], self.files["masks"]),
            )
        )
        return {"forest_persisted": forest_share(layer, old, new)}

    def _masked(self, state: Mapping[str, Array]) -> State:
        """Return the state with exact, positive zeros where the masks are False."""
        masked = dict(state)
        for name, mask in self.files["masks"].items():
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


@contextmanager
def masked_steps(net: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Keep pruned weights at zero in whatever trains a net, for the length of a ``with`` block.

    After every step of every ``torch.optim`` optimiser the parameters of `net` are multiplied by their masks.

    Parameters
    ----------
    net : torch.nn.Module
        The net. A copy of it is not watched.
    masks : mapping of str to bool tensor
        By parameter name, of the parameters' shapes.
    """
    parameters = dict(net.named_parameters())
    factors = {parameters[name]: mask for name, mask in masks.items()}

    @torch.no_grad()
    def apply_masks(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in factors:
                    factors[parameter] = factors[parameter].to(parameter)  # nothing to do but where the net has moved
                    parameter.mul_(factors[parameter])

    handle = register_optimizer_step_post_hook(apply_masks)
    try:
        yield
    finally:
        handle.remove()


def _summary(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over the layers; the overlap is that of all forests together."""
    total = {key: sum(layer[key] for layer in layers) for key in ("weights", "kept", "critical", "alpha")}
    held = sum(layer["overlap"] * layer["critical"] for layer in layers)
    return {
        **total,
        "density": total["kept"] / total["weights"],
        "overlap": held / total["critical"] if total["critical"] else 1.0,
        "dead_units": sum(layer["dead_outputs"] + layer["dead_inputs"] for layer in layers),
        **{key: sum(layer[key] for layer in layers) if key in layers[0] else None for key in PERSISTENCES},
    }


def _result(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how good the level is: at the least validation loss, the first where there are several, and at the end."""
    if trained[0]["record"] == "training":
        return {"test_accuracy": trained[0].get("test_accuracy")}
    best = min(trained, key=lambda record: (not np.isfinite(record["validation_loss"]), record["validation_loss"]))
    keys = ("validation_loss", "validation_accuracy", "test_accuracy")
    found = {"best_step": best["step"]} | {key: best[key] for key in keys}
    return found | {f"{key}_at_end": trained[-1][key] for key in keys}


def _check_arguments(plan: ImpPlan, model: object, train_fn: object) -> None:
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


def _report_from(report: Report, done: int, where: str, steps: int, message: str) -> None:
    report(done + steps, where + message)


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


def _state(net: nn.Module) -> State:
    return {name: _as_numpy(value) for name, value in net.state_dict().items()}


def _as_numpy(tensor: Tensor) -> Array:
    """Return a copy of a tensor; bfloat16, which torch cannot hand to numpy, in the type of ml_dtypes."""
    tensor = tensor.detach().cpu().clone()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _load(net: nn.Module, state: Mapping[str, Array]) -> None:
    net.load_state_dict({name: _as_tensor(array) for name, array in state.items()})


def _as_tensor(array: Array) -> Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
