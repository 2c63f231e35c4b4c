"""T-IMP while a model is trained: in a loop of one's own, in Hugging Face's Trainer and in Lightning."""

from collections.abc import Callable, Collection
from typing import Any

from topobounds._arguments import argument_error, choice, density_fraction, integer
from topobounds.pruning import (
    Infeasible,
    PruningReport,
    Scope,
    cubic_schedule,
    geometric_schedule,
    linear_schedule,
)
from torch_bridge._torch import nn
from torch_bridge._types import Convention
from torch_bridge.model.example_input import example_input_for
from torch_bridge.pruning.method import FRONTS, Front, topological_

_SCHEDULES: dict[str, Callable[[int, float, int], tuple[int, ...]]] = {
    "cubic": cubic_schedule,
    "linear": linear_schedule,
    "geometric": lambda n_weights, density, rounds: geometric_schedule(n_weights, 1 - density ** (1 / rounds), rounds),
}
"""The schedules by name: weights left after each round, of weights, the last density and the rounds."""


class GradualPruning:
    """Prunes a model by T-IMP round after round while it is trained.

    In a loop of one's own, call it with the model after every step of the optimiser. In Hugging Face's Trainer::

        Trainer(model, callbacks=[GradualPruning(0.2, every=100, rounds=20)])

    In Lightning::

        pruning = GradualPruning(0.2, every=100, rounds=20)
        Trainer(callbacks=[LambdaCallback(on_train_batch_end=pruning.on_train_batch_end)])

    Parameters
    ----------
    density : float
        Share of the weights of the layers that is left after the last round, in (0, 1].
    every : int
        Steps from one round to the next.
    rounds : int
        Rounds.
    begin : int
        Steps before the first round; `every` by default.
    schedule : {"cubic", "linear", "geometric"}
        How many weights each round leaves; see `topobounds.cubic_schedule` and the like.
    scope, convention, example_input, on_infeasible, skip, front
        As in `torch_bridge.topological_`. A layer that cannot be cut so far keeps what carries its topology.

    Attributes
    ----------
    reports : list of PruningReport
        One for each round.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> model, pruning = nn.Linear(60, 40), GradualPruning(0.25, every=10, rounds=3)
    >>> for step in range(1, 41):
    ...     _ = pruning(model, step)  # after the optimiser's step
    >>> [report.layers[0].kept for report in pruning.reports]
    [1133, 667, 600]
    """

    def __init__(
        self,
        density: float,
        *,
        every: int,
        rounds: int,
        begin: int | None = None,
        schedule: str = "cubic",
        scope: Scope = "local",
        convention: Convention | None = None,
        example_input: Any = None,
        on_infeasible: Infeasible = "clamp",
        skip: Collection[str] = (),
        front: Front = "parametrize",
    ) -> None:
        self.density = density_fraction("density", density)
        self.every, self.rounds = integer("every", every, 1), integer("rounds", rounds, 1)
        self.begin = self.every if begin is None else integer("begin", begin, 0)
        self.schedule = _SCHEDULES[choice("schedule", schedule, tuple(_SCHEDULES))]
        self.scope = choice("scope", scope, ("local", "global"))
        choice("front", front, FRONTS)
        self.example_input = example_input
        self.options: dict[str, Any] = {
            "convention": convention,
            "on_infeasible": choice("on_infeasible", on_infeasible, ("raise", "clamp")),
            "skip": skip,
            "front": front,
        }
        self.reports: list[PruningReport] = []
        self._calls = 0

    def __call__(self, model: nn.Module, step: int | None = None) -> PruningReport | None:
        """Prune the model, if a round is due.

        Parameters
        ----------
        model : torch.nn.Module
            The model as it is after a step.
        step : int, optional
            Steps so far; by default the number of calls. Rounds that were missed are made up for at once.

        Returns
        -------
        PruningReport or None
            None between the rounds.
        """
        self._calls += 1
        done = self._calls if step is None else integer("step", step, 0)
        due = min(self.rounds, (done - self.begin) // self.every + 1) if done >= self.begin else 0
        if due <= len(self.reports):
            return None
        report = self._prune(model, due)
        self.reports += [report] * (due - len(self.reports))
        return report

    def _prune(self, model: nn.Module, round_: int) -> PruningReport:
        options = {**self.options, "example_input": example_input_for(model, self.example_input)}
        if not isinstance(model, nn.Module):
            raise argument_error("model", "a torch.nn.Module", type(model).__name__)
        layers = topological_(model, 0, **options).layers  # masked by what they are, so that survivors are known
        own = [layer for layer in layers if "the same weights as" not in (layer.reason or "")]
        if self.scope == "global":
            left = self.schedule(sum(layer.weights for layer in own), self.density, self.rounds)[round_ - 1]
            amount = max(0, sum(layer.kept for layer in own) - left)
            return topological_(model, amount, scope="global", **options)
        left_of = {layer.name: self.schedule(layer.weights, self.density, self.rounds)[round_ - 1] for layer in own}
        return topological_(model, {each.name: max(0, each.kept - left_of[each.name]) for each in own}, **options)

    # -- Hugging Face: a callback answers to every event, and most are none of ours --

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Prune after a step of Hugging Face's Trainer."""
        self(model, state.global_step)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return what answers to the other events of Hugging Face's Trainer, by doing nothing."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return _nothing

    # -- Lightning --

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
        """Prune a LightningModule after a step of Lightning's Trainer."""
        self(pl_module, trainer.global_step)


def _nothing(*given: Any, **named: Any) -> None:
    """Do nothing."""
