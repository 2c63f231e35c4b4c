"""What a net is, what it is trained on and how: the parts of plans that training needs. No torch here."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from topobounds._arguments import argument_error, choice, integer, real, spelled
from topobounds._records import Record, plain_record
from torch_bridge.training.data import DATASETS

MODELS = ("mlp", "lenet-300-100", "lenet-5", "vgg11", "resnet-20", "lstm")
WIDTHS = {"vgg11": 64, "resnet-20": 16, "lstm": 128}
"""Models that have a `width`, and what it is by default."""

BELOW_ONE = float(np.nextafter(1.0, 0.0))
_LARGEST = 2**31 - 1
"""No count in a plan is larger."""


class Part(Record):
    """Base of the plan and its parts: to and from plain Python, with what is left at its default left out."""

    PARTS: ClassVar[dict[str, type["Part"]]] = {}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Return the part that `values` describe.

        Raises
        ------
        ValueError
            If a key is unknown or missing, or a value out of range; the message names the table.
        """
        table = f" of [{where}]" if where else ""
        if not isinstance(values, Mapping):
            raise argument_error(where or "plan", "a table", values)
        known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
        for key in values:
            choice(f"a key{table}", key, tuple(known))
        for name, each in known.items():
            if name not in values and each.default is MISSING and each.default_factory is MISSING:
                raise ValueError(f"Key '{name}'{table} must be given.")
        parts = {
            key: cls.PARTS[key].from_dict(value, key) if key in cls.PARTS and value is not None else value
            for key, value in values.items()
        }
        try:
            return cls(**parts)
        except ValueError as error:
            message = str(error).replace("Argument '", "Key '", 1)  # no option of the command line is meant
            raise ValueError(f"[{where}] {message}" if where else message) from None

    def changed(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain Python; optional parts that are there stay, if empty."""
        found: dict[str, Any] = {}
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            default = each.default_factory() if each.default_factory is not MISSING else each.default
            if value != default:
                found[each.name] = value.changed() if isinstance(value, Part) else plain_record(value)
        return found

    def complete(self) -> dict[str, Any]:
        """Return every key, defaults too, as plain Python."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))  # type: ignore[arg-type]
        return {name: value.complete() if isinstance(value, Part) else plain_record(value) for name, value in values}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return what every key stands for that is left out, as plain Python; also within parts that may be missing."""
        found = {key: part.defaults() for key, part in cls.PARTS.items()}
        for each in fields(cls):  # type: ignore[arg-type]
            if each.name not in found and each.default is not MISSING:
                found[each.name] = plain_record(each.default)
        return found

    def _integers(self, low: int, *names: str, high: int = _LARGEST) -> None:
        for name in names:
            object.__setattr__(self, name, integer(name, getattr(self, name), low, most=high))

    def _real(self, name: str, rule: str, low: float, high: float, *, open_low: bool = False) -> None:
        """Check a number and keep it as a float, so that 1 and 1.0 are one plan."""
        object.__setattr__(self, name, real(name, getattr(self, name), rule, low, high, open_low=open_low))

    def _optional_integer(self, name: str, low: int) -> None:
        if getattr(self, name) is not None:
            self._integers(low, name)


def check_goes_with(name: str, given: bool, option: str, chosen: str, *, needed: str) -> None:
    """Refuse an argument without the choice of an option that it goes with, and that choice without it."""
    if given and chosen != needed:
        raise ValueError(f"Argument '{name}' goes with the {option} '{needed}', not with {chosen!r}.")
    if chosen == needed and not given:
        raise ValueError(f"Argument '{name}' must be given with the {option} '{needed}', and not be empty.")


@dataclass(frozen=True, kw_only=True)
class ModelPlan(Part):
    """Which of our nets to train.

    Parameters
    ----------
    name : str
        ``"mlp"``, ``"lenet-300-100"`` (the mlp of these widths), ``"lenet-5"``, ``"vgg11"``, ``"resnet-20"``, or
        ``"lstm"``, to which an image is the sequence of its rows. Hyphens and capitals do not matter: ``"resnet20"``.
    hidden : sequence of int
        Units of an mlp's hidden layers; that of the paper's authors has ``(100, 100, 100, 100, 100)``.
    width : int, optional
        Channels of the first stage of ``vgg11`` (64) and ``resnet-20`` (16), units of the ``lstm`` (128).
    initialization : {"default", "glorot"}
        PyTorch's, or Gaussian Glorot with zero biases (Frankle & Carbin).

    Raises
    ------
    ValueError
        If an argument is out of range or does not go with `name`.
    """

    name: str
    hidden: Sequence[int] = ()
    width: int | None = None
    initialization: str = "default"

    def __post_init__(self) -> None:
        """Check the arguments."""
        object.__setattr__(self, "name", choice("name", spelled(self.name, MODELS), MODELS))
        choice("initialization", self.initialization, ("default", "glorot"))
        if not isinstance(self.hidden, list | tuple):
            raise argument_error("hidden", "a sequence of positive integers", self.hidden)
        object.__setattr__(self, "hidden", tuple(integer("hidden", units, 1, most=_LARGEST) for units in self.hidden))
        check_goes_with("hidden", bool(self.hidden), "model", self.name, needed="mlp")
        self._optional_integer("width", 1)
        if self.width == WIDTHS.get(self.name):  # so that a default given is a default left out
            object.__setattr__(self, "width", None)
        if self.width is not None and self.name not in WIDTHS:
            raise ValueError(f"Argument 'width' goes with {', '.join(WIDTHS)}, not with {self.name}.")


@dataclass(frozen=True, kw_only=True)
class DataPlan(Part):
    """What the net is trained on.

    Parameters
    ----------
    name : str
        ``"mnist"``, ``"fashion-mnist"`` or ``"digits"``.
    validation : int or float
        Training images that are held out to choose by: a number of them, or a share in (0, 1). The test images choose
        nothing.
    normalization : {"half", "standard"}
        ``half``: subtract 0.5 and divide by 0.5, as the authors' notebook does. ``standard``: by mean and standard
        deviation of the images that are trained on.
    image_size : int, optional
        Pad the images with background to this many rows and columns.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    name: str
    validation: int | float = 0.1
    normalization: str = "half"
    image_size: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        choice("name", self.name, DATASETS)
        choice("normalization", self.normalization, ("half", "standard"))
        if hasattr(self.validation, "__index__"):
            self._integers(1, "validation")
        else:
            rule = "a number of images or a share in (0, 1)"
            self._real("validation", rule, 0.0, BELOW_ONE, open_low=True)
        self._optional_integer("image_size", 1)


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """How the net is trained, in every level alike.

    Parameters
    ----------
    epochs : int
        Passes over the training images.
    steps : int, optional
        Instead of `epochs`: optimiser steps.
    batch_size : int
        The last batch of a pass may be smaller.
    optimizer : {"sgd", "adam", "adamw"}
        As in ``torch.optim``.
    learning_rate, momentum, weight_decay : float
        Above 0; in [0, 1), of ``sgd`` only; at least 0.
    schedule : {"constant", "steps", "cosine"}
        Of the learning rate: ``steps`` multiplies it by `gamma` at every milestone, ``cosine`` brings it to 0.
    milestones : sequence of float
        For ``steps``: shares of the training, each in (0, 1).
    gamma : float
        In (0, 1].
    warmup : int
        Steps over which the learning rate rises linearly from 0, before all else.
    evaluate_every : int, optional
        Steps between evaluations; an epoch by default. There is one at the start and one at the end as well.
    precision : {"float32", "bfloat16"}
        ``bfloat16`` autocasts the forward pass; weights stay float32.
    compile : bool
        Put the net through ``torch.compile``: a slow start of every process, for faster steps of deep nets.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    milestones: Sequence[float] = ()
    gamma: float = 0.1
    warmup: int = 0
    evaluate_every: int | None = None
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._integers(1, "epochs", "batch_size")
        self._integers(0, "warmup")
        for name in ("steps", "evaluate_every"):
            self._optional_integer(name, 1)
        choice("optimizer", self.optimizer, ("sgd", "adam", "adamw"))
        choice("schedule", self.schedule, ("constant", "steps", "cosine"))
        choice("precision", self.precision, ("float32", "bfloat16"))
        if not isinstance(self.compile, bool):
            raise argument_error("compile", "true or false", self.compile)
        self._real("learning_rate", "a positive, finite number", 0.0, sys.float_info.max, open_low=True)
        self._real("momentum", "a number in [0, 1)", 0.0, BELOW_ONE)
        self._real("weight_decay", "a non-negative, finite number", 0.0, sys.float_info.max)
        self._real("gamma", "a number in (0, 1]", 0.0, 1.0, open_low=True)
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"Argument 'momentum' goes with the optimizer 'sgd', not with {self.optimizer!r}.")
        rule = "a sequence of numbers in (0, 1)"
        if not isinstance(self.milestones, list | tuple):
            raise argument_error("milestones", rule, self.milestones)
        stones = [real("milestones", stone, rule, 0.0, BELOW_ONE, open_low=True) for stone in self.milestones]
        object.__setattr__(self, "milestones", tuple(stones))
        check_goes_with("milestones", bool(stones), "schedule", self.schedule, needed="steps")


@dataclass(frozen=True, kw_only=True)
class Seeds(Part):
    """Seeds, apart from one another, so that one can be changed alone.

    Parameters
    ----------
    init : int
        Of the initial weights.
    order : int
        Of the order of the batches and of what else is random in training.
    split : int
        Of the images that are held out for validation.
    pruning : int
        Of the methods ``random`` and ``shuffled``.

    Raises
    ------
    ValueError
        If one is no non-negative integer.
    """

    init: int = 0
    order: int = 0
    split: int = 0
    pruning: int = 0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._integers(0, "init", "order", "split", "pruning", high=2**64 - 1)
