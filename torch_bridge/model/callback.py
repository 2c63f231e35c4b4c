"""What training does to the topology, epoch by epoch: a plain function, and a callback for Lightning's trainers.

Lightning is not imported: its ``LambdaCallback`` takes the callback's method.
"""

from collections.abc import Callable
from typing import Any

from topobounds._arguments import argument_error, checked_seed, checked_trials, integer
from torch_bridge._torch import nn
from torch_bridge.model.analyze import analyze
from torch_bridge.model.example_input import example_input_for

_QUANTITIES = (
    "neural_persistence",
    "neural_persistence_expected",
    "neural_persistence_z",
    "overlap",
    "overlap_expected",
    "overlap_z",
    "density",
)
_TRIALS = 20  # of what is sampled: each epoch anew, once there are zeros


def topology_metrics(
    model: nn.Module, example_input: Any = None, *, chance: bool = True, trials: int = _TRIALS, seed: int = 0
) -> dict[str, float]:
    """Return neural persistence and overlap of every layer beside what chance gives, and density, under flat names.

    Parameters
    ----------
    model : torch.nn.Module
        Any model, left as it was; weights that are zero, or masked by ``torch.nn.utils.prune``, are no edges.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the model is called with to learn the geometry of its convolutions; see `torch_bridge.analyze`. Without it
        they have no persistence and no overlap.
    chance, trials, seed
        As in `torch_bridge.analyze`. What a shape alone decides, up to some seconds, is computed at the first call;
        where weights are zero the layer's own support is sampled in each.

    Returns
    -------
    dict of str to float
        ``topology/neural_persistence`` (normalised, convention ``balwani``, p = 2; summed over the layers that have
        one) and ``topology/density``, and for every layer ``topology/NAME/QUANTITY``, as far as there is one: of its
        `topobounds.LayerReport` ``neural_persistence``, ``overlap`` and ``density``, the first two also with
        ``_expected`` and ``_z``.

    Raises
    ------
    ValueError
        As `torch_bridge.analyze`.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> for name, value in topology_metrics(nn.Linear(50, 40)).items():
    ...     print(name, round(value, 3))
    topology/neural_persistence 0.035
    topology/density 1.0
    topology/weight/neural_persistence 0.035
    topology/weight/neural_persistence_expected 0.03
    topology/weight/neural_persistence_z 2.158
    topology/weight/overlap 0.798
    topology/weight/overlap_expected 0.84
    topology/weight/overlap_z -1.436
    topology/weight/density 1.0
    """
    report = analyze(model, example_input, chance=chance, trials=trials, seed=seed)
    total = {"topology/neural_persistence": report.total_neural_persistence, "topology/density": report.density}
    found = {
        f"topology/{layer.name}/{quantity}": getattr(layer, quantity)
        for layer in report.layers
        for quantity in _QUANTITIES
    }
    return total | {name: value for name, value in found.items() if value is not None}


class TopologyLog:
    """Logs `topology_metrics` at the end of every epoch.

    In a loop of one's own, call it with the model. In Lightning::

        log = TopologyLog()
        Trainer(callbacks=[LambdaCallback(on_train_epoch_end=log.on_train_epoch_end)])

    Parameters
    ----------
    example_input : Tensor, or tuple or dict of arguments, optional
        As in `topology_metrics`. It follows the model to its device and, if it is of floating point, its type.
    every : int
        Epochs from one record to the next, at least 1.
    sink : callable, optional
        Called with every record: ``print``, or ``wandb.log``.
    chance, trials, seed
        As in `topology_metrics`.

    Attributes
    ----------
    records : list of dict
        ``epoch`` and the metrics.

    Raises
    ------
    ValueError
        If `every` is no positive integer, or `sink` cannot be called.

    Examples
    --------
    >>> log = TopologyLog(every=2)
    >>> for epoch in range(4):
    ...     _ = log(nn.Linear(50, 40), epoch)
    >>> [record["epoch"] for record in log.records]
    [0, 2]
    """

    def __init__(
        self,
        *,
        example_input: Any = None,
        every: int = 1,
        sink: Callable[[dict[str, Any]], Any] | None = None,
        chance: bool = True,
        trials: int = _TRIALS,
        seed: int = 0,
    ) -> None:
        self.example_input = example_input
        self.every = integer("every", every, 1)
        if sink is not None and not callable(sink):
            raise argument_error("sink", "a function or None", sink)
        self.sink = sink
        self.options: dict[str, Any] = {"chance": chance, "trials": checked_trials(trials), "seed": checked_seed(seed)}
        self.records: list[dict[str, Any]] = []
        self._calls = 0

    def __call__(self, model: nn.Module, epoch: int | None = None) -> dict[str, Any] | None:
        """Log the model after an epoch.

        Parameters
        ----------
        model : torch.nn.Module
            The model as it is now.
        epoch : int, optional
            By default the number of earlier calls.

        Returns
        -------
        dict or None
            The record; None in the epochs between.
        """
        number = self._calls if epoch is None else integer("epoch", epoch, 0)
        self._calls += 1
        if number % self.every:
            return None
        metrics = topology_metrics(model, example_input_for(model, self.example_input), **self.options)
        record = {"epoch": number, **metrics}
        self.records.append(record)
        if self.sink is not None:
            self.sink(record)
        return record

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log a LightningModule after an epoch, with Lightning's loggers as well."""
        record = self(pl_module, trainer.current_epoch)
        if record is not None:
            pl_module.log_dict({name: value for name, value in record.items() if name != "epoch"})
