"""Early stopping without a validation set: training stops once neural persistence no longer grows."""

import statistics
from typing import Any, SupportsFloat

from topobounds._arguments import argument_error
from topobounds.topology.stopping import stopping_epoch
from torch_bridge._torch import Tensor, nn
from torch_bridge.model.analyze import analyze
from torch_bridge.model.tracing import moved_to


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

    Attributes
    ----------
    values : list of float
        The mean neural persistence after each epoch.
    stopped_epoch : int or None
        The epoch after which training was to stop, from 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Rieck et al., *Neural persistence: a complexity measure for deep neural networks using algebraic topology*, ICLR
    2019 (arXiv 1812.09764), section 4.2 and algorithm 2.

    Examples
    --------
    >>> stopper = NeuralPersistenceStopper(patience=2, burn_in=1)
    >>> [stopper.update(value) for value in (0.1, 0.2, 0.3, 0.3, 0.29)], stopper.stopped_epoch
    ([False, False, False, False, True], 5)
    """

    def __init__(self, patience: int, burn_in: int, *, min_delta: float = 0.0, example_input: Any = None) -> None:
        stopping_epoch([], patience, burn_in, min_delta)  # checks them
        self.patience = patience
        self.burn_in = burn_in
        self.min_delta = min_delta
        self.example_input = example_input
        self.values: list[float] = []

    @property
    def stopped_epoch(self) -> int | None:
        """The epoch after which training was to stop, from 1; None as long as it goes on."""
        return stopping_epoch(self.values, self.patience, self.burn_in, self.min_delta)

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
        value = self._mean_persistence(model) if isinstance(model, nn.Module) else _number(model)
        stopping_epoch([value], self.patience, 0)  # refuses what is not finite
        self.values.append(value)
        return self.stopped_epoch is not None

    def _mean_persistence(self, model: nn.Module) -> float:
        """Return the mean over the layers, each normalised (convention ``balwani``, p = 2)."""
        report = analyze(model, moved_to(model, self.example_input), chance=False)
        values = [layer.neural_persistence for layer in report.layers if layer.neural_persistence is not None]
        if not values:
            raise argument_error("model", "a model with a layer whose graph is known", type(model).__name__)
        return statistics.fmean(values)


def _number(value: Any) -> float:
    """Return a number as a float."""
    if isinstance(value, Tensor):
        value = value.detach()
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise argument_error("model", "a torch.nn.Module or a number", type(value).__name__) from None
