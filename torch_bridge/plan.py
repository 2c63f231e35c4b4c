"""What an IMP experiment is to do: a frozen plan, read from TOML, with a hash. No torch here."""

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np

from topobounds._arguments import argument_error, choice, integer, real, spelled
from topobounds._files import read_regular
from topobounds._records import Record, plain
from topobounds.pruning import geometric_schedule, linear_schedule
from topobounds.runs import digest
from torch_bridge.data import DATASETS

METHODS = ("imp", "t-imp", "random", "shuffled")
AFTER = ("rewind", "finetune", "lr-rewind", "reinit")
MODELS = ("mlp", "lenet-300-100", "lenet-5", "vgg11", "resnet-20", "lstm")
WIDTHS = {"vgg11": 64, "resnet-20": 16, "lstm": 128}
"""Models that have a `width`, and what it is by default."""

BELOW_ONE = float(np.nextafter(1.0, 0.0))
LARGEST = 2**31 - 1
"""No count in a plan is larger."""
MOST_ROUNDS = 10_000
"""Rounds and replicates; each is a folder."""
MOST_BYTES = 2**14
"""Of a plan's file, which has a thousand as a rule; Python needs a minute for dotted keys of four times this length."""


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
                found[each.name] = value.changed() if isinstance(value, Part) else plain(value)
        return found

    def complete(self) -> dict[str, Any]:
        """Return every key, defaults too, as plain Python."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))  # type: ignore[arg-type]
        return {name: value.complete() if isinstance(value, Part) else plain(value) for name, value in values}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return what every key stands for that is left out, as plain Python; also within parts that may be missing."""
        found = {key: part.defaults() for key, part in cls.PARTS.items()}
        for each in fields(cls):  # type: ignore[arg-type]
            if each.name not in found and each.default is not MISSING:
                found[each.name] = plain(each.default)
        return found

    def _integers(self, low: int, *names: str, high: int = LARGEST) -> None:
        for name in names:
            object.__setattr__(self, name, integer(name, getattr(self, name), low, most=high))

    def _real(self, name: str, rule: str, low: float, high: float, *, open_low: bool = False) -> None:
        """Check a number and keep it as a float, so that 1 and 1.0 are one plan."""
        object.__setattr__(self, name, real(name, getattr(self, name), rule, low, high, open_low=open_low))

    def _optional_integer(self, name: str, low: int) -> None:
        if getattr(self, name) is not None:
            self._integers(low, name)


def _check_pair(name: str, given: bool, of: str, chosen: str, its: str) -> None:
    """Refuse an argument without the choice that it goes with, and the choice without it."""
    if given and chosen != its:
        raise ValueError(f"Argument '{name}' goes with the {of} '{its}', not with {chosen!r}.")
    if chosen == its and not given:
        raise ValueError(f"Argument '{name}' must be given with the {of} '{its}', and not be empty.")


@dataclass(frozen=True, kw_only=True)
class ModelPlan(Part):
    """Which of our nets to train.

    Parameters
    ----------
    name : str
        ``"mlp"``, ``"lenet-300-100"`` (the mlp of these widths), ``"lenet-5"``, ``"vgg11"``, ``"resnet-20"``, or
        ``"lstm"``, to which an image is the sequence of its rows. Hyphens and capitals do not matter: ``"resnet20"``.
    hidden : sequence of int
        Units of an mlp's hidden layers; the paper's net has ``(100, 100, 100, 100, 100)``.
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
        object.__setattr__(self, "hidden", tuple(integer("hidden", units, 1, most=LARGEST) for units in self.hidden))
        _check_pair("hidden", bool(self.hidden), "model", self.name, "mlp")
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
        ``half``: subtract 0.5 and divide by 0.5, as the paper does. ``standard``: by mean and standard deviation of
        the images that are trained on.
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
        _check_pair("milestones", bool(stones), "schedule", self.schedule, "steps")


@dataclass(frozen=True, kw_only=True)
class Pruning(Part):
    """What is pruned in every round, and what happens after.

    Parameters
    ----------
    method : {"imp", "t-imp", "random", "shuffled"}
        By magnitude; the forest first (`topobounds.pruning.topological_mask`); at random; or as many weights of every
        layer as T-IMP would keep, at random places.
    rounds : int
        Prunings; there is one level more, the dense one.
    schedule : {"geometric", "linear"}
        ``geometric`` prunes the share `rate` of the survivors every round, ``linear`` (the paper) the same number every
        round until the share `density` is left.
    rate : float
        In (0, 1); of ``geometric``.
    density : float, optional
        In (0, 1); ``linear`` needs it.
    scope : {"local", "global"}
        Each layer on its own, or all layers ranked together.
    output_factor : float
        What the rate (for ``linear``: the pruned share) of the last layer is multiplied by, that is the last in the
        order of the net's modules; Frankle & Carbin have 0.5. 0 leaves the layer dense; with ``global``, 0 or 1.
    factors : mapping of str to float
        The same for other layers, by the names of their weights.
    on_infeasible : {"raise", "clamp"}
        What T-IMP does where fewer weights are to be kept than carry the topology.
    after : {"rewind", "finetune", "lr-rewind", "reinit"}
        Weights of the initialisation, or of step `rewind_step` of the dense level, and training from that step on; the
        weights as they are at the last learning rate (almost 0 where the schedule is ``cosine``, which goes with
        ``lr-rewind``); the weights as they are and the whole schedule again; new random weights. Batch-norm statistics
        go with the weights; the optimiser always starts anew.
    rewind_step : int
        For ``rewind``: 0 is the initialisation.
    finetune_epochs : int, optional
        For ``finetune``; by default as long as the recipe.

    Raises
    ------
    ValueError
        If an argument is out of range or does not go with another.
    """

    method: str = "imp"
    rounds: int = 5
    schedule: str = "geometric"
    rate: float = 0.2
    density: float | None = None
    scope: str = "local"
    output_factor: float = 1.0
    factors: Mapping[str, float] = field(default_factory=dict)
    on_infeasible: str = "raise"
    after: str = "rewind"
    rewind_step: int = 0
    finetune_epochs: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        choice("method", self.method, METHODS)
        choice("schedule", self.schedule, ("geometric", "linear"))
        choice("scope", self.scope, ("local", "global"))
        choice("on_infeasible", self.on_infeasible, ("raise", "clamp"))
        choice("after", self.after, AFTER)
        self._integers(1, "rounds", high=MOST_ROUNDS)
        self._integers(0, "rewind_step")
        self._optional_integer("finetune_epochs", 1)
        rule = "a number in (0, 1)"
        self._real("rate", rule, 0.0, BELOW_ONE, open_low=True)
        if self.density is not None:
            self._real("density", rule, 0.0, BELOW_ONE, open_low=True)
        _check_pair("density", self.density is not None, "schedule", self.schedule, "linear")
        if self.rewind_step and self.after != "rewind":
            raise ValueError(f"Argument 'rewind_step' goes with after='rewind', not with {self.after!r}.")
        if self.finetune_epochs and self.after != "finetune":
            raise ValueError(f"Argument 'finetune_epochs' goes with after='finetune', not with {self.after!r}.")
        self._check_factors()

    def _check_factors(self) -> None:
        if not isinstance(self.factors, Mapping):
            raise argument_error("factors", "a mapping of layer names to numbers", self.factors)
        self._real("output_factor", "a number in [0, 1]", 0.0, 1.0)
        factors = {name: real(name, factor, "a number in [0, 1]", 0.0, 1.0) for name, factor in self.factors.items()}
        object.__setattr__(self, "factors", factors)
        for name, factor in {"output_factor": self.output_factor, **factors}.items():
            if self.scope == "global" and factor not in (0, 1):
                raise argument_error(name, "0 or 1 where all layers are ranked together", factor)

    def counts(self, n_weights: int, factor: float = 1.0) -> tuple[int, ...]:
        """Return how many of `n_weights` weights are left after each round: exact, by integer arithmetic.

        Parameters
        ----------
        n_weights : int
            Weights of a layer or, ranked together, of all layers.
        factor : float
            What the rate, or the pruned share, is multiplied by; in [0, 1].

        Examples
        --------
        >>> Pruning(rounds=4).counts(1000), Pruning(rounds=4).counts(1000, 0.5)
        ((800, 640, 512, 410), (900, 810, 729, 656))
        >>> Pruning(rounds=4, schedule="linear", density=0.1).counts(1000)
        (775, 550, 325, 100)
        """
        share = Fraction(str(factor))
        if self.schedule == "geometric":
            return geometric_schedule(n_weights, share * Fraction(str(self.rate)), self.rounds)
        pruned = share * (1 - Fraction(str(self.density)))
        return linear_schedule(n_weights, 1 - pruned, self.rounds)


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


@dataclass(frozen=True, kw_only=True)
class ImpPlan(Part):
    """An IMP or T-IMP experiment.

    Parameters
    ----------
    pruning : Pruning
        What is pruned, and what happens after.
    model : ModelPlan, optional
        One of our nets; None stands for the caller's own.
    data : DataPlan, optional
        None where the caller's own training function brings its own.
    recipe : Recipe, optional
        None stands for the caller's own training function.
    replicates : int
        Independent repetitions, at least 1; each depends on the seeds and its number alone, so that more can be added
        to a run later.
    seeds : Seeds
        By default all 0.

    Raises
    ------
    ValueError
        If an argument is out of range, or parts do not go together.

    Examples
    --------
    >>> plan = ImpPlan.from_toml('''
    ... [model]
    ... name = "lenet-300-100"
    ... [data]
    ... name = "digits"
    ... [recipe]
    ... epochs = 5
    ... [pruning]
    ... method = "t-imp"
    ... ''')
    >>> plan.pruning.rounds, plan.changed()["recipe"]
    (5, {'epochs': 5})
    """

    PARTS: ClassVar[dict[str, type[Part]]] = {
        "model": ModelPlan, "data": DataPlan, "recipe": Recipe, "pruning": Pruning, "seeds": Seeds,
    }  # fmt: skip

    pruning: Pruning = field(default_factory=Pruning)
    model: ModelPlan | None = None
    data: DataPlan | None = None
    recipe: Recipe | None = None
    replicates: int = 1
    seeds: Seeds = field(default_factory=Seeds)

    def __post_init__(self) -> None:
        """Check that the parts go together."""
        self._integers(1, "replicates", high=MOST_ROUNDS)
        for name, kind in self.PARTS.items():
            value = getattr(self, name)
            if (value is not None or name in ("pruning", "seeds")) and not isinstance(value, kind):
                raise argument_error(name, f"a {kind.__name__}", type(value).__name__)
        if self.data is None and (self.model is not None or self.recipe is not None):
            raise ValueError("A plan with a [model] or a [recipe] needs [data].")
        if self.recipe is None and self.pruning.rewind_step:
            raise ValueError("Argument 'rewind_step' needs a [recipe]: a training function of your own tells no steps.")

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Return the plan that a TOML text describes.

        Raises
        ------
        ValueError
            If it is no TOML, or describes no plan.
        """
        try:
            return cls.from_dict(tomllib.loads(text))
        except RecursionError:
            raise ValueError("This is no plan: its arrays or tables are nested too deeply.") from None

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> Self:
        """Read a plan from a TOML file.

        Raises
        ------
        ValueError
            Naming the file, if it cannot be read, is no TOML, or describes no plan.
        """
        try:
            return cls.from_toml(read_regular(file, MOST_BYTES).decode("utf-8-sig"))
        except OSError as error:
            raise ValueError(f"{file} could not be read: {error.strerror or error}.") from error
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    @property
    def of_each_replicate(self) -> dict[str, Any]:
        """The plan, defaults too, without the number of replicates: all that a replicate depends on."""
        return {key: value for key, value in self.complete().items() if key != "replicates"}

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of `of_each_replicate`."""
        return digest(self.of_each_replicate)

    @property
    def levels(self) -> range:
        """The numbers of the levels: 0 is dense, each of the others comes after one pruning."""
        return range(self.pruning.rounds + 1)
