"""Training the nets of Figures 1 and 3: a frozen plan in, a run folder of trials out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from topobounds._arguments import choice, integer, real
from topobounds._parallel import WORKER_PATIENCE, do_pieces, process_count
from topobounds._records import Record
from topobounds._types import NamedProgress, StepProgress
from topobounds.runs import MOST_LEVELS, LevelWriter, RunError, RunFolder, json_sha256
from torch_bridge._torch import Tensor, functional, nn, torch
from torch_bridge.model.devices import one_thread, pick_device, processor
from torch_bridge.training.data import DATASETS, Dataset, load_dataset
from torch_bridge.training.models import mlp


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Record):
    """What to train: by default what is behind the paper's Figures 1 and 3, as in its authors' notebook.

    The paper itself says six layers and MNIST, and none of the numbers below.

    Parameters
    ----------
    dataset : str
        ``"mnist"``, ``"fashion-mnist"`` or ``"digits"``.
    trials : int
        Replicates, from 1 to 100,000: each is a folder. Trial t depends on `seed` and t alone.
    epochs : int
        Plotted epochs, from 1 to 100,000; weights are saved after each.
    seed : int
        Non-negative.
    hidden : sequence of int
        Units of the hidden layers.
    batch_size : int
        The last batch of a pass may be smaller.
    learning_rate, momentum : float
        Of stochastic gradient descent as in ``torch.optim.SGD``; above 0, and in [0, 1).
    passes_per_epoch : int, optional
        Passes over the training set in one epoch; by default 1, and 20 for the digits, whose 21 batches a pass would
        teach nothing: 420 steps an epoch.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> plan = TrainingPlan(dataset="digits", trials=2)
    >>> plan.passes_per_epoch, plan.name
    (20, 'digits-20-epochs-seed-0-82819c48')
    """

    dataset: str
    trials: int = 5
    epochs: int = 20
    seed: int = 0
    hidden: Sequence[int] = (100,) * 5
    batch_size: int = 64
    learning_rate: float = 0.01
    momentum: float = 0.0
    passes_per_epoch: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments; passes that were not given are chosen by the data set."""
        choice("dataset", self.dataset, DATASETS)
        for name in ("trials", "epochs"):
            integer(name, getattr(self, name), 1, most=MOST_LEVELS)  # each is a folder of the run, or a file in one
        integer("batch_size", self.batch_size, 1)
        integer("seed", self.seed, 0)
        real("learning_rate", self.learning_rate, "a positive number", 0.0, float("inf"), open_low=True)
        real("momentum", self.momentum, "a number in [0, 1)", 0.0, np.nextafter(1.0, 0.0))
        object.__setattr__(self, "hidden", tuple(integer("hidden", units, 1) for units in self.hidden))
        passes = self.passes_per_epoch if self.passes_per_epoch is not None else 20 if self.dataset == "digits" else 1
        object.__setattr__(self, "passes_per_epoch", integer("passes_per_epoch", passes, 1))

    @property
    def of_each_trial(self) -> dict[str, Any]:
        """What trial t depends on beside t: the plan without the number of trials, which may grow."""
        return {key: value for key, value in self.to_dict().items() if key != "trials"}

    @property
    def name(self) -> str:
        """A folder name that no other plan has: the data, the epochs, the seed, and a hash of `of_each_trial`."""
        return f"{self.dataset}-{self.epochs}-epochs-seed-{self.seed}-{json_sha256(self.of_each_trial)[:8]}"


def train(
    plan: TrainingPlan,
    folder: str | PathLike[str],
    *,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    device: str = "auto",
    jobs: int | None = 1,
    progress: NamedProgress | None = None,
) -> RunFolder:
    """Train the trials that are missing in a run folder.

    A finished trial is not trained again. One that was killed is trained again from its beginning and ends in the same
    numbers; on the CPU these do not depend on the number of threads, for training runs in one (which is also the
    fastest for nets this small). On another kind of processor they differ: torch has other routines for it, which round
    otherwise, and training makes more of it. So a trial records its processor.

    Parameters
    ----------
    plan : TrainingPlan
        What to train.
    folder : path
        The run folder of this plan; made where missing.
    data_dir, download
        As in `torch_bridge.training.data.resolve_dataset`.
    device : str
        ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where there is one.
    jobs : int, optional
        Trials that are trained at the same time, each in a process of its own; at least 1. None: one on each
        processor, one on a GPU. A script that asks for more than one needs ``if __name__ == "__main__":`` around what
        it does.
    progress : callable, optional
        Called as ``progress(done, total, message)`` after every epoch, in epochs of all trials.

    Returns
    -------
    RunFolder
        The levels ``trial-0``, ``trial-1``, ... Weights: ``epoch-00`` (the initialisation) to ``epoch-20``, the arrays
        ``layers.0.weight`` (outputs, inputs), ``layers.0.bias``, and so on by depth. Metrics: a record per epoch with
        ``epoch``, ``train_loss`` (mean over the epoch's batches; null for epoch 0), ``test_loss``, ``test_accuracy``;
        that of epoch 0 also has ``device``, ``processor``, ``torch`` and ``data``.

    Raises
    ------
    ValueError
        If the device is not there, or the data is missing or damaged.
    RunError
        If the folder holds another plan, was trained on other data, is in use, or cannot be written.
    """
    place = pick_device(device)
    at_once = process_count(jobs, place.type)
    run = RunFolder.create(folder, plan.of_each_trial)
    if not _missing(run, plan):
        return run
    data = load_dataset(plan.dataset, data_dir, download=download)
    with run.locked():
        _check_same_data(run, data)
        left = _missing(run, plan)

        def report(done: int, message: str) -> None:
            if progress is not None:
                progress((plan.trials - len(left)) * plan.epochs + done, plan.trials * plan.epochs, message)

        work = _Session(run, plan, data, place).train_trial
        if min(at_once, len(left)) > 1:
            work = partial(_train_elsewhere, plan, run.path, data_dir, device)
        do_pieces(work, left, at_once, report)
    return run


def _train_elsewhere(
    plan: TrainingPlan, path: Path, data_dir: str | PathLike[str] | None, device: str, trial: int, report: StepProgress
) -> None:
    """Train one trial in a process other than the one that has locked the run."""
    data = load_dataset(plan.dataset, data_dir)
    _Session(RunFolder.open(path), plan, data, pick_device(device)).train_trial(trial, report)


class _Session:
    """What the trials of one process share: plan, and data on the device."""

    def __init__(self, run: RunFolder, plan: TrainingPlan, data: Dataset, device: torch.device) -> None:
        self.run = run
        self.plan = plan
        self.passes = cast(int, plan.passes_per_epoch)
        self.data = data
        self.device = device
        self.train_set = self._tensors(data.train_images, data.train_labels)
        self.test_set = self._tensors(data.test_images, data.test_labels)
        self.widths = (data.n_features, *plan.hidden, data.n_classes)

    def train_trial(self, trial: int, report: StepProgress) -> None:
        """Train one trial and write it as a level; `report` takes its epochs."""
        init_seed, order_seed = np.random.SeedSequence([self.plan.seed, trial]).spawn(2)
        order = np.random.default_rng(order_seed)
        net = self._net(int(init_seed.generate_state(1, np.uint64)[0]))
        optimizer = torch.optim.SGD(net.parameters(), lr=self.plan.learning_rate, momentum=self.plan.momentum)
        facts = {
            "device": self._device_name(),
            "processor": processor(),
            "torch": torch.__version__,
            "data": self._data_facts(),
        }
        name = f"trial-{trial}"
        with self.run.locked(name, WORKER_PATIENCE), one_thread(), self.run.writing(name) as level:
            self._record(level, 0, net, {"train_loss": None, **facts})
            for epoch in range(1, self.plan.epochs + 1):
                loss = self._train_epoch(net, optimizer, order)
                accuracy = self._record(level, epoch, net, {"train_loss": loss})
                where = f"trial {trial + 1} of {self.plan.trials}, epoch {epoch}"
                report(epoch, f"{where}: test accuracy {accuracy:.4f}")

    def _train_epoch(self, net: nn.Module, optimizer: torch.optim.SGD, order: np.random.Generator) -> float:
        images, labels = self.train_set
        losses = []
        for _ in range(self.passes):
            shuffled = torch.from_numpy(order.permutation(len(labels))).to(self.device)
            for batch in torch.split(shuffled, self.plan.batch_size):
                optimizer.zero_grad()
                loss = functional.nll_loss(net(images.index_select(0, batch)), labels.index_select(0, batch))
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _record(self, level: LevelWriter, epoch: int, net: nn.Module, facts: dict[str, Any]) -> float:
        """Save the weights and the metrics of an epoch, and return the test accuracy."""
        images, labels = self.test_set
        with torch.no_grad():
            scores = net(images)
        accuracy = float((scores.argmax(dim=1) == labels).double().mean())
        test = {"test_loss": float(functional.nll_loss(scores, labels)), "test_accuracy": accuracy}
        level.save_weights(f"epoch-{epoch:02d}", {name: p.cpu().numpy() for name, p in net.state_dict().items()})
        level.append_metrics({"epoch": epoch, **facts, **test})
        return accuracy

    def _net(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return mlp(self.widths).to(self.device)

    def _tensors(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """Scale to [0, 1], then subtract 0.5 and divide by 0.5, as the authors' notebook does."""
        scaled = torch.tensor(images, dtype=torch.float32, device=self.device) / self.data.max_value
        return (scaled - 0.5) / 0.5, torch.tensor(labels, dtype=torch.int64, device=self.device)

    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def _data_facts(self) -> dict[str, Any]:
        return {"name": self.data.name, "sha256": self.data.sha256, **self.data.provenance}


def _missing(run: RunFolder, plan: TrainingPlan) -> list[int]:
    return [trial for trial in range(plan.trials) if not run.is_finished(f"trial-{trial}")]


def _check_same_data(run: RunFolder, data: Dataset) -> None:
    for level in run.levels:
        if level.metrics[0]["data"]["sha256"] != data.sha256:
            raise RunError(f"{level.path} was trained on other data than the {data.name} given now.")
