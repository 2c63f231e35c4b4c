"""Early stopping without a validation set: training stops once neural persistence no longer grows."""

import statistics
from collections.abc import Sequence
from typing import Any, SupportsFloat

from topobounds._arguments import argument_error, boolean
from topobounds.topology.stopping import stopping_epoch
from torch_bridge._torch import Tensor, nn
from torch_bridge.model.analyze import analyze
from torch_bridge.model.example_input import example_input_for
from torch_bridge.model.weight_tensors import model_weight_tensors
from torch_bridge.model.weights import current_weight


class NeuralPersistenceStopper:
    """Says when to stop training: once the mean normalised neural persistence of the layers no longer grows.

    Needs no validation data. The rule is that of `topobounds.stopping_epoch`.

    Parameters
    ----------
    patience : int
        Epochs in a row without an improvement after which training stops, at least 1.
    burn_in : int
        Epochs at the start that are not looked at, at least 0.
    min_delta : float
        What an improvement has to exceed, at least 0.
    example_input : Tensor, or tuple or dict of arguments, optional
        What a model with convolutions is called with, as in `torch_bridge.analyze`; without it these do not count. It
        follows the model to its device and, if it is of floating point, its type.
    beside : bool
        Whether to take the two other series below too.

    Attributes
    ----------
    values : list of float
        The mean neural persistence after each epoch.
    null_values : list of float or None
        The mean of what the values of the weights alone would give, certified, as `torch_bridge.analyze` has it; None
        where a layer has no such number, as a kernel or a pruned one, or where no model was given.
    variances : list of float or None
        The mean variance of the weights of the same layers.
    stopped_epoch, null_stopped_epoch, variance_stopped_epoch : int or None
        The epoch after which training was to stop, from 1, and those in which the same rule would have stopped it by
        the other two series; None as long as it goes on.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Rieck et al., *Neural persistence: a complexity measure for deep neural networks using algebraic topology*, ICLR
    2019 (arXiv 1812.09764), section 4.2 and algorithm 2. That neural persistence may say little beyond the variance of
    the weights: Girrbach et al., TMLR 2023 (arXiv 2307.10865).

    Examples
    --------
    >>> stopper = NeuralPersistenceStopper(patience=2, burn_in=1)
    >>> [stopper.update(value) for value in (0.1, 0.2, 0.3, 0.3, 0.29)], stopper.stopped_epoch
    ([False, False, False, False, True], 5)
    """

    def __init__(
        self,
        patience: int,
        burn_in: int,
        *,
        min_delta: float = 0.0,
        example_input: Any = None,
        beside: bool = True,
    ) -> None:
        stopping_epoch([], patience, burn_in, min_delta)  # checks them
        self.patience = patience
        self.burn_in = burn_in
        self.min_delta = min_delta
        self.example_input = example_input
        self.beside = boolean("beside", beside)
        self.values: list[float] = []
        self.null_values: list[float | None] = []
        self.variances: list[float | None] = []

    @property
    def stopped_epoch(self) -> int | None:
        """The epoch after which training was to stop, from 1; None as long as it goes on."""
        return self._stopped(self.values)

    @property
    def null_stopped_epoch(self) -> int | None:
        """The epoch after which the same rule would have stopped by what the values of the weights alone would give."""
        return self._stopped(self.null_values)

    @property
    def variance_stopped_epoch(self) -> int | None:
        """The epoch after which the same rule would have stopped by the variance of the weights."""
        return self._stopped(self.variances)

    def _stopped(self, series: Sequence[float | None]) -> int | None:
        known = [value for value in series if value is not None]
        if len(known) < len(series):
            return None
        return stopping_epoch(known, self.patience, self.burn_in, self.min_delta)

    def update(self, model: nn.Module | SupportsFloat) -> bool:
        """Take the state after one more epoch, and return whether to stop.

        Parameters
        ----------
        model : torch.nn.Module or float
            The model as it is now, or its mean normalised neural persistence where that is known.

        Returns
        -------
        bool
            Whether training is to stop after this epoch, or was to stop after an earlier one.

        Raises
        ------
        ValueError
            If no layer of the model has a neural persistence, or a number is NaN or infinite; the epoch then does not
            count.
        """
        value, null, variance = self._means(model) if isinstance(model, nn.Module) else (_number(model), None, None)
        stopping_epoch([value], self.patience, 0)  # refuses what is not finite
        self.values.append(value)
        self.null_values.append(null)
        self.variances.append(variance)
        return self.stopped_epoch is not None

    def _means(self, model: nn.Module) -> tuple[float, float | None, float | None]:
        """Return the mean normalised persistence (convention ``balwani``, p = 2), its null and the mean variance."""
        example = example_input_for(model, self.example_input)
        report = analyze(model, example, chance=self.beside, trials=0, seed=0)
        layers = [layer for layer in report.layers if layer.neural_persistence is not None]
        if not layers:
            raise argument_error("model", "a model with a layer whose graph is known", type(model).__name__)
        value = statistics.fmean(layer.neural_persistence or 0.0 for layer in layers)
        if not self.beside:
            return value, None, None
        expected = [layer.neural_persistence_expected for layer in layers]
        known = [each for each in expected if each is not None]
        null = statistics.fmean(known) if len(known) == len(expected) else None
        return value, null, _mean_variance(model, {layer.name for layer in layers})


def _mean_variance(model: nn.Module, names: set[str]) -> float:
    """Return the mean of the variances of the weights of some graphs, of those of a tensor together."""
    tensors = [(module, tensor) for module, found in model_weight_tensors(model).items() for tensor in found]
    own = [(module, tensor) for module, tensor in tensors if names & set(tensor.part_names) or tensor.name in names]
    variances = [current_weight(module, each.own_name).double().var(correction=0) for module, each in own]
    return statistics.fmean(map(float, variances))


def _number(value: Any) -> float:
    """Return a number as a float."""
    if isinstance(value, Tensor):
        value = value.detach()
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise argument_error("model", "a torch.nn.Module or a number", type(value).__name__) from None
