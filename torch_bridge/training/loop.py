"""Training one level by a recipe: masked, evaluated on the way, and resumable after any step, bit for bit."""

import io
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topobounds._memory import check_memory
from torch_bridge._torch import Tensor, functional, nn, torch
from torch_bridge.training.data import Dataset
from torch_bridge.training.plan import DataPlan, Recipe, Seeds
from torch_bridge.training.seeding import generator_seed

_EVALUATION_BATCH = 2048


@dataclass(frozen=True)
class Split:
    """Images and labels on the device, apart by what they are for."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, rows, columns."""
        return tuple(self.train[0].shape[1:])


def split_data(data: Dataset, plan: DataPlan, seed: int, device: torch.device) -> Split:
    """Return the training, validation and test images as tensors of shape (count, 1, rows, columns).

    Parameters
    ----------
    data : Dataset
        Square images.
    plan : DataPlan
        Size of the validation set, normalisation, padding.
    seed : int
        Of the images that are held out.
    device : torch.device
        Where the tensors go.

    Returns
    -------
    Split
        The images that are left keep their order.

    Raises
    ------
    ValueError
        If fewer than one image would be left to train on, or the images are larger than the plan's.
    """
    count = len(data.train_labels)
    held_out = plan.validation if isinstance(plan.validation, int) else round(plan.validation * count)
    if not 1 <= held_out < count:
        given = plan.validation
        raise ValueError(f"Argument 'validation' must leave some of the {count} images on both sides, not {given}.")
    order = np.random.default_rng(generator_seed(seed, "split")).permutation(count)
    chosen, left = np.sort(order[:held_out]), np.sort(order[held_out:])
    images, test_images = (
        _pad(each, data.max_value, plan.image_size) for each in (data.train_images, data.test_images)
    )
    mean, deviation = 0.5, 0.5
    if plan.normalization == "standard":
        mean, deviation = (float(measure(images[left], dtype=np.float64)) for measure in (np.mean, np.std))
    parts = (
        (images[left], data.train_labels[left]),
        (images[chosen], data.train_labels[chosen]),
        (test_images, data.test_labels),
    )
    return Split(*(_tensors((pixels - mean) / deviation, labels, device) for pixels, labels in parts))


def _pad(images: np.ndarray[Any, Any], max_value: int, image_size: int | None) -> np.ndarray[Any, Any]:
    """Return the images in [0, 1], square, with background around them."""
    side = math.isqrt(images.shape[1])
    extra = (image_size or side) - side
    if extra < 0:
        raise ValueError(f"Argument 'image_size' must be at least the {side} pixels that there are, not {image_size}.")
    check_memory(f"{len(images)} images of {side + extra} x {side + extra}", 8 * len(images) * (side + extra) ** 2)
    square = images.reshape(-1, 1, side, side) / np.float32(max_value)
    around = (extra // 2, extra - extra // 2)
    return np.pad(square, ((0, 0), (0, 0), around, around))


def _tensors(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(images, dtype=torch.float32, device=device),
        torch.tensor(labels, dtype=torch.int64, device=device),
    )


@dataclass(frozen=True)
class StepRange:
    """The steps that a level takes: `first` (done already) to `last`, at the recipe's rate or a constant one."""

    first: int
    last: int
    constant_rate: float | None = None


def steps_per_epoch(recipe: Recipe, n_images: int) -> int:
    """Return the batches of a pass, the last of which may be smaller."""
    return -(-n_images // recipe.batch_size)


def total_steps(recipe: Recipe, n_images: int) -> int:
    """Return the steps of the dense level."""
    return recipe.steps or recipe.epochs * steps_per_epoch(recipe, n_images)


def scheduled_rate(recipe: Recipe, step: int, schedule_steps: int) -> float:
    """Return the learning rate that the schedule of a recipe, over so many steps, has for a step, counted from 0.

    Examples
    --------
    >>> recipe = Recipe(schedule="steps", milestones=(0.5, 0.75), learning_rate=0.1)
    >>> [round(scheduled_rate(recipe, step, 8), 6) for step in (0, 3, 4, 6)]
    [0.1, 0.1, 0.01, 0.001]
    """
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * step / schedule_steps)) / 2
    passed = sum(step >= stone * schedule_steps for stone in recipe.milestones)
    return recipe.learning_rate * recipe.gamma**passed


@dataclass
class Progress:
    """Where a training is: everything that is neither in the net nor in the optimiser."""

    step: int
    losses: list[Tensor] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)


class Training:
    """The training of one level.

    Parameters
    ----------
    net : torch.nn.Module
        Trained in place.
    masks : mapping of str to bool tensor
        Parameters that are pruned; what is False is zero after every step.
    recipe, step_range
        How, and from which step to which.
    split : Split
        The images.
    seeds, replicate, level
        What the order of the batches depends on.
    snapshot_step : int, optional
        Keep the net's state as it is after so many steps.
    normalized : bool
        Whether the net returns log-probabilities. Otherwise they are taken of what it returns.

    Attributes
    ----------
    progress : Progress
        The step, the losses since the last evaluation, and the records so far.
    snapshot : dict of str to Tensor or None
        The state at `snapshot_step`, once it has been reached.
    """

    def __init__(
        self,
        net: nn.Module,
        masks: Mapping[str, Tensor],
        recipe: Recipe,
        step_range: StepRange,
        split: Split,
        seeds: Seeds,
        *,
        replicate: int,
        level: int,
        snapshot_step: int | None = None,
        normalized: bool = True,
    ) -> None:
        self.net, self.recipe, self.step_range, self.split = net, recipe, step_range, split
        # its batches have three sizes, of which each gets a graph of its own
        self.forward: Callable[[Tensor], Tensor] = torch.compile(net, dynamic=False) if recipe.compile else net
        self.order_of = (seeds.order, "order", replicate, level)
        parameters = dict(net.named_parameters())
        self.masked = [(parameters[name], mask.to(parameters[name])) for name, mask in masks.items()]
        self.optimizer = _optimizer(recipe, net)
        self.device = split.train[0].device
        self.schedule_steps = total_steps(recipe, len(split.train[1]))
        self.per_epoch = steps_per_epoch(recipe, len(split.train[1]))
        self.evaluate_every = recipe.evaluate_every or self.per_epoch
        self.progress = Progress(step_range.first)
        self.snapshot_step = snapshot_step
        self.snapshot: dict[str, Tensor] | None = None
        self.normalized = normalized

    def run(self, save: Callable[[Callable[[], bytes]], None], report: Callable[[int, dict[str, Any]], None]) -> None:
        """Train to the last step.

        Parameters
        ----------
        save : callable
            Called after every step with a function that returns `state`; it decides whether to take it.
        report : callable
            Called as ``report(step, record)`` after every evaluation but the first.
        """
        if self.progress.step == self.step_range.first and not self.progress.records:
            self._evaluate()
        self._keep_snapshot()
        for batch in self._batches():
            self._step(batch)
            self._keep_snapshot()
            if self.progress.step % self.evaluate_every == 0 or self.progress.step == self.step_range.last:
                report(self.progress.step, self._evaluate())
            save(self.state)

    def _batches(self) -> Iterator[Tensor]:
        """Yield the batches that are left, from the one in the middle of an epoch where the training stands."""
        n_images, size = len(self.split.train[1]), self.recipe.batch_size
        epoch, done = divmod(self.progress.step, self.per_epoch)
        left = self.step_range.last - self.progress.step
        while left > 0:
            order = np.random.default_rng(generator_seed(*self.order_of, epoch)).permutation(n_images)
            for batch in torch.split(torch.from_numpy(order).to(self.device), size)[done : done + left]:
                yield batch
                left -= 1
            epoch, done = epoch + 1, 0

    def _step(self, batch: Tensor) -> None:
        """Train on one batch, then set pruned weights to zero again, which momentum and weight decay have moved."""
        rate = self.step_range.constant_rate
        if rate is None:
            rate = scheduled_rate(self.recipe, self.progress.step, self.schedule_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.net.train()
        images, labels = self.split.train
        self.optimizer.zero_grad()
        loss = self._loss(images.index_select(0, batch), labels.index_select(0, batch))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for parameter, mask in self.masked:
                parameter.mul_(mask)
        self.progress.losses.append(loss.detach())
        self.progress.step += 1

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return functional.nll_loss(self._scores(images), labels)

    def _scores(self, images: Tensor) -> Tensor:
        """Return log-probabilities."""
        enabled = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            scores = self.forward(images)
        return scores.float() if self.normalized else torch.log_softmax(scores.float(), dim=1)

    def _evaluate(self) -> dict[str, Any]:
        losses = self.progress.losses
        record: dict[str, Any] = {
            "record": "evaluation",
            "step": self.progress.step,
            "epoch": self.progress.step / self.per_epoch,
            "train_loss": float(torch.stack(losses).double().mean()) if losses else None,
        }
        for name in ("validation", "test"):
            loss, accuracy = self._score(*getattr(self.split, name))
            record |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        self.progress.losses = []
        self.progress.records.append(record)
        return record

    @torch.no_grad()
    def _score(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Return the mean loss and the accuracy."""
        self.net.eval()
        loss, right = 0.0, 0
        batches = (torch.split(each, _EVALUATION_BATCH) for each in (images, labels))
        for pixels, truth in zip(*batches, strict=True):
            scores = self._scores(pixels)
            loss += float(functional.nll_loss(scores, truth, reduction="sum"))
            right += int((scores.argmax(dim=1) == truth).sum())
        return loss / len(labels), right / len(labels)

    def _keep_snapshot(self) -> None:
        if self.progress.step == self.snapshot_step and self.snapshot is None:
            self.snapshot = {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def state(self) -> bytes:
        """Return all it takes to go on from here: net, optimiser, generators, position, records."""
        content = io.BytesIO()
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
            "snapshot": self.snapshot,
            "generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "python_generator": random.getstate(),
            "numpy_generator": _numpy_state(),
        }
        torch.save(state, content)
        return content.getvalue()

    def restore(self, content: bytes) -> None:
        """Go back to a `state`."""
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.progress.losses = [loss.to(self.device) for loss in self.progress.losses]
        self.snapshot = state["snapshot"]
        torch.set_rng_state(state["generator"])
        if state["cuda_generator"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)
        random.setstate(state["python_generator"])
        _set_numpy_state(state["numpy_generator"])


def _numpy_state() -> dict[str, Any]:
    """Return the state of numpy's global generator, which a net may draw from, in plain Python."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {"name": name, "keys": np.asarray(keys).tolist(), "rest": rest}


def _set_numpy_state(state: dict[str, Any]) -> None:
    np.random.set_state((state["name"], np.array(state["keys"], np.uint32), *state["rest"]))  # noqa: NPY002


def _optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), momentum=recipe.momentum, **common)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(net.parameters(), **common)


class Clock:
    """Says when so many seconds have gone by since it last did."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.last = time.monotonic()

    def strikes(self) -> bool:
        """Return whether it is time."""
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
