"""What an IMP experiment is to do: a frozen plan, read from TOML, with a hash. No torch here."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Self

from topobounds._arguments import argument_error, choice, real
from topobounds._files import read_regular
from topobounds.pruning import geometric_schedule, linear_schedule
from topobounds.pruning.methods import pruning_method, recorded_name
from topobounds.runs import MOST_LEVELS, json_sha256
from torch_bridge.training.plan import BELOW_ONE, DataPlan, ModelPlan, Part, Recipe, Seeds, check_goes_with

AFTER = ("rewind", "finetune", "lr-rewind", "reinit")
_MOST_ROUNDS = 10_000
"""Rounds and replicates."""
MOST_BYTES = 2**14
"""Of a plan's file, which has a thousand as a rule; Python needs a minute for dotted keys of four times this length."""


@dataclass(frozen=True, kw_only=True)
class Pruning(Part):
    """What is pruned in every round, and what happens after.

    Parameters
    ----------
    method : {"imp", "t-imp", "random", "shuffled", "effective"}
        By magnitude; the forest first (`topobounds.pruning.topological_mask`); at random; as many weights of every
        layer as T-IMP would keep, at random places; or by `topobounds.effective_weights`, for nets of dense layers and
        convolutions in a row, with the scope ``global`` and without factors. ``magnitude`` and ``topological`` stand
        for the first two.
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
    stop_below : float, optional
        In (0, 1): a level whose validation accuracy is below this is the last, whatever `rounds` says (the target
        accuracy of the paper's section 3.4, step 4). It needs a recipe.

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
    stop_below: float | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        object.__setattr__(self, "method", recorded_name(self.method))
        choice("schedule", self.schedule, ("geometric", "linear"))
        choice("scope", self.scope, ("local", "global"))
        choice("on_infeasible", self.on_infeasible, ("raise", "clamp"))
        choice("after", self.after, AFTER)
        self._integers(1, "rounds", high=_MOST_ROUNDS)
        self._integers(0, "rewind_step")
        self._optional_integer("finetune_epochs", 1)
        rule = "a number in (0, 1)"
        self._real("rate", rule, 0.0, BELOW_ONE, open_low=True)
        for name in ("density", "stop_below"):
            if getattr(self, name) is not None:
                self._real(name, rule, 0.0, BELOW_ONE, open_low=True)
        check_goes_with("density", self.density is not None, "schedule", self.schedule, needed="linear")
        if self.rewind_step and self.after != "rewind":
            raise ValueError(f"Argument 'rewind_step' goes with after='rewind', not with {self.after!r}.")
        if self.finetune_epochs and self.after != "finetune":
            raise ValueError(f"Argument 'finetune_epochs' goes with after='finetune', not with {self.after!r}.")
        self._check_factors()
        if pruning_method(self.method).by_paths:
            self._check_ranks_all()

    def _check_ranks_all(self) -> None:
        """Refuse what does not go with a method that ranks the weights of a net by its paths: it needs all of them."""
        if self.scope != "global":
            rule = f"'global' for the method '{self.method}', which ranks all layers together"
            raise argument_error("scope", rule, self.scope)
        for name, factor in {"output_factor": self.output_factor, **self.factors}.items():
            if factor != 1:
                raise argument_error(name, f"1 for the method '{self.method}', which ranks all layers together", factor)

    def _check_factors(self) -> None:
        if not isinstance(self.factors, Mapping):
            raise argument_error("factors", "a mapping of layer names to numbers", self.factors)
        self._real("output_factor", "a number in [0, 1]", 0.0, 1.0)
        factors = {name: real(name, factor, "a number in [0, 1]", 0.0, 1.0) for name, factor in self.factors.items()}
        object.__setattr__(self, "factors", factors)
        for name, factor in {"output_factor": self.output_factor, **factors}.items():
            if self.scope == "global" and factor not in (0, 1):
                raise argument_error(name, "0 or 1 where all layers are ranked together", factor)

    def is_last(self, level: Mapping[str, Any]) -> bool:
        """Return whether pruning ends after a level, by the record of its summary: its accuracy is below the target."""
        return self.stop_below is not None and level["validation_accuracy"] < self.stop_below

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
        If an argument is out of range, parts do not go together, or the plan has more than 100,000 levels.

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
        self._integers(1, "replicates", high=_MOST_ROUNDS)
        self._check_levels()
        for name, kind in self.PARTS.items():
            value = getattr(self, name)
            if (value is not None or name in ("pruning", "seeds")) and not isinstance(value, kind):
                raise argument_error(name, f"a {kind.__name__}", type(value).__name__)
        if self.data is None and (self.model is not None or self.recipe is not None):
            raise ValueError("A plan with a [model] or a [recipe] needs [data].")
        if self.recipe is None and self.pruning.rewind_step:
            raise ValueError("Argument 'rewind_step' needs a [recipe]: a training function of your own tells no steps.")
        if self.recipe is None and self.pruning.stop_below is not None:
            raise ValueError(
                "Argument 'stop_below' needs a [recipe]: a training function of your own validates nothing."
            )

    def _check_levels(self) -> None:
        """Refuse more levels than a run folder may have: all of them are looked for before anything is trained."""
        levels = self.replicates * (self.pruning.rounds + 1) if isinstance(self.pruning, Pruning) else 0
        if levels > MOST_LEVELS:
            rule = f"must make at most {MOST_LEVELS} levels, replicates * (rounds + 1)"
            raise ValueError(f"Arguments 'replicates' and 'rounds' {rule}, not {levels}.")

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
        return json_sha256(self.of_each_replicate)

    @property
    def levels(self) -> range:
        """The numbers of the levels: 0 is dense, each of the others comes after one pruning."""
        return range(self.pruning.rounds + 1)
