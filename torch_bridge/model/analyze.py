"""What topobounds says of the layers of any PyTorch model."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from topobounds._arguments import argument_errors_naming, checked_seed, checked_trials
from topobounds.analysis.findings import find
from topobounds.analysis.network import Connected, network_reports
from topobounds.analysis.reports import LayerReport, ModelReport, NetworkReport, Source, layer_report
from topobounds.layers import Conv, LayerTensor
from topobounds.weights import as_array
from torch_bridge._torch import nn
from torch_bridge.model.errors import UnreadWeightError
from torch_bridge.model.modules import check_module
from torch_bridge.model.tracing import Trace, trace
from torch_bridge.model.undisturbed import undisturbed
from torch_bridge.model.unread_weights import unread_weights
from torch_bridge.model.weight_tensors import model_weight_tensors
from torch_bridge.model.weights import current_weight, has_weight, weight_parameter

_MOST_CONNECTED_WEIGHTS = 2**28
"""Weights of the layers that share neurons, up to which they are read once more, as one graph."""


def analyze(
    model: nn.Module,
    example_input: Any = None,
    *,
    chance: bool = True,
    trials: int | None = None,
    seed: int | None = None,
) -> ModelReport:
    """Return what the weights of a model's layers say, what their shapes imply, and what chance would give.

    Linear, convolutional (transposed too) and recurrent layers, attention and embeddings are read wherever they are in
    the model, the linear layers of GPT-2 in the package transformers too. Each gate of a recurrent layer and each
    projection of attention is a layer of its own; weights that pruning has masked, or that are zero, are no edges.

    Parameters
    ----------
    model : torch.nn.Module
        Any model. It is left as it was: its modes, buffers and gradients, and the state of the random generators.
    example_input : Tensor, or tuple or dict of arguments, optional
        What the model is called with, once, in evaluation mode and without gradients, to learn the input sizes of its
        convolutions and which layers are called; a tuple holds positional, a dict keyword arguments. Without it
        convolutions have no graph, and only their weights are counted.
    chance, trials, seed
        As in `topobounds.layer_report`; all layers are sampled with one seed. What is computed for one shape serves all
        its layers.

    Returns
    -------
    ModelReport
        A `topobounds.LayerReport` for every layer, named as ``model.named_parameters()`` names its weights,
        with the gate or projection in brackets. A layer that is called on inputs of several sizes has a graph for each;
        the first is reported, and the reason says so. With an example input, `LayerReport.neurons` says which layers
        share neurons: activations of each element, dropout, normalisation and reshaping keep neurons, and a sum, as at
        the end of a residual block, makes those of its terms one; pooling, softmax, concatenation, transposition and
        whatever else make new ones. Attention's projections feed neurons of their own; of the neurons in recurrent
        modules nothing is said.

    Raises
    ------
    ValueError
        If `model` is no module, `trials` or `seed` is out of range, or a weight is NaN or infinite, naming the layer.
        What the model itself raises is not caught.

    Notes
    -----
    Weights that are stored in another form are read as what they stand for where that is told: torch's own quantized
    layers, sparse layouts, bitsandbytes' ``Linear4bit`` and ``Linear8bitLt``, and subclasses
    of Tensor that have a method ``dequantize``, as torchao's have. Whatever is not read is in `ModelReport.unread` with
    the reason: codes without a known scale, weights that are lazy, fake, on ``meta`` or distributed, a shape other than
    the sizes of the module ask for, scripted and traced
    modules. Several threads may analyze one model: they take turns.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    >>> for layer in analyze(model, torch.zeros(1, 1, 8, 8)).layers:
    ...     print(layer.name, layer.kind, layer.m, layer.n, layer.alpha, layer.critical, round(float(layer.eta_tau), 3))
    0.weight conv 64 512 575 22 3.534
    3.weight dense 512 10 521 521 9.827

    The layers of a residual net as one graph of 108 weights and 27 neurons:

    >>> from topobounds import network_forest
    >>> class Residual(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.a, self.b, self.c = nn.Linear(9, 4), nn.Linear(4, 4), nn.Linear(4, 14)
    ...
    ...     def forward(self, x):
    ...         x = self.a(x).relu()
    ...         return self.c(x + self.b(x).relu())
    >>> model = Residual()
    >>> layers = analyze(model, torch.zeros(1, 9)).layers
    >>> [layer.neurons for layer in layers]
    [((0, 1),), ((1, 1),), ((1, 2),)]
    >>> weights = [model.get_parameter(layer.name).detach().numpy().T for layer in layers]
    >>> network_forest([(w, *ends) for w, layer in zip(weights, layers) for ends in layer.neurons]).ratio
    Fraction(54, 13)
    """
    check_module("model", model)
    asked = {"chance": chance, "trials": checked_trials(trials), "seed": checked_seed(seed)}
    traced = None if example_input is None else trace(model, example_input)
    tensors = model_weight_tensors(model, traced.tensors if traced else None)
    seen: dict[nn.Parameter, str] = {}
    layers: list[LayerReport] = []
    connected = _Connections()
    n_bytes = 0
    unread: dict[str, str] = {}
    paths = {module: path for path, module in model.named_modules()}
    with undisturbed(model):  # computed weights are read in evaluation mode, in which reading changes nothing
        for module, held in tensors.items():
            place = 0
            for tensor in held:
                if has_weight(module, tensor.own_name):
                    parameter = weight_parameter(module, tensor.own_name)
                    owner = tensor.name if parameter is None else seen.setdefault(parameter, tensor.name)
                    reason = "" if owner == tensor.name else f"The same weights as '{owner}'."
                    read_by = [paths[each] for each in _readers(traced, module, tensor)]
                    try:
                        weights = _weights(module, tensor)
                    except UnreadWeightError as error:
                        unread[tensor.name] = str(error)
                    else:
                        found = list(_layer_reports(tensor, weights, module, traced, reason, place, read_by, asked))
                        connected.add(tensor, weights, found)
                        layers += found
                        n_bytes += weights.nbytes
                place += len(tensor.parts)
        unread |= dict(unread_weights(model, tensors))
    source = Source("", type(model).__name__, (), n_bytes)
    report = ModelReport(tuple(layers), unread, source, networks=connected.reports())
    return replace(report, findings=find(report))


class _Connections:
    """The dense layers of a traced model with the groups of neurons that they join."""

    def __init__(self) -> None:
        self._layers: list[Connected] = []
        self._n_weights = 0

    def add(self, tensor: LayerTensor, weights: NDArray[Any], reports: list[LayerReport]) -> None:
        """Take in the layers of one tensor that are matrices between known groups of neurons."""
        if tensor.kind == "conv" or not any(report.neurons for report in reports):
            return
        self._n_weights += weights.size
        if self._n_weights > _MOST_CONNECTED_WEIGHTS:
            self._layers.clear()  # for good: a graph of a part of the layers would not be that of the model
            return
        for report, part in zip(reports, replace(tensor, shape=weights.shape).split(weights), strict=True):
            matrix = part if tensor.inputs_first else part.T
            self._layers += [Connected(report.name, matrix, *ends) for ends in report.neurons]

    def reports(self) -> tuple[NetworkReport, ...]:
        """Return a report on each set of layers that share neurons; none of models that are too large."""
        return network_reports(self._layers) if self._n_weights <= _MOST_CONNECTED_WEIGHTS else ()


def _readers(traced: Trace | None, module: nn.Module, tensor: LayerTensor) -> tuple[nn.Module, ...]:
    return traced.readers.get((module, tensor.own_name), ()) if traced else ()


def _weights(module: nn.Module, tensor: LayerTensor) -> NDArray[Any]:
    """Return a weight as an array; `UnreadWeightError` if it cannot be one."""
    values = current_weight(module, tensor.own_name)
    try:
        return as_array("weights", values)
    except ValueError as error:
        raise UnreadWeightError(f"It cannot be read as an array: {error}") from None


def _layer_reports(
    tensor: LayerTensor,
    weights: NDArray[Any],
    module: nn.Module,
    traced: Trace | None,
    reason: str,
    first: int,
    read_by: list[str],
    asked: dict[str, Any],
) -> Iterator[LayerReport]:
    """Yield a report for each graph of a tensor.

    Parameters
    ----------
    tensor, weights, module
        The tensor, its values, and the module that holds it.
    traced
        What a forward pass showed, if there was one.
    reason
        What else the reports are to tell of the tensor; may be empty.
    first
        The place of its first graph among those of the module.
    read_by
        The paths of other modules that read the weights as theirs.
    asked
        Arguments of `layer_report`: what is to be told of chance.
    """
    with argument_errors_naming(tensor.name):
        convs = traced.convs(module) if traced and tensor.kind == "conv" else []
    tensor = replace(tensor, shape=weights.shape, geometry=convs[0] if convs else tensor.geometry)
    calls = len(traced.calls.get(module, [])) if traced else None
    words = replace(tensor, words=_words(tensor, module)).read_as
    notes = " ".join(note for note in (reason, _note(tensor, calls, convs, read_by)) if note)
    for place, (name, part) in enumerate(zip(tensor.part_names, tensor.split(weights), strict=True), first):
        with argument_errors_naming(name):
            graph = None if tensor.kind == "conv" and not convs else tensor.graph
            neurons = tuple(traced.neurons.get((module, place), ())) if traced else ()
            report = layer_report(
                name,
                part,
                graph,
                kind=tensor.kind,
                calls=calls,
                reason=notes or None,
                neurons=neurons,
                inputs_first=tensor.inputs_first,
                **asked,
            )
            yield replace(report, tensor=tensor.name, read_as=words[place - first])


def _words(tensor: LayerTensor, module: nn.Module) -> tuple[str, ...]:
    """Return what the parts of a tensor are, for people; nothing where it is one graph."""
    n_parts = len(tensor.parts)
    if n_parts == 1:
        return tensor.words
    part = "gate" if isinstance(module, nn.RNNBase | nn.RNNCellBase) else "part"
    return tuple(f"{part} {number} of {n_parts} ({name})" for number, name in enumerate(tensor.parts, 1))


def _note(tensor: LayerTensor, calls: int | None, convs: list[Conv], read_by: list[str]) -> str:
    if calls == 0 and read_by:
        who = ", ".join(f"'{path}'" if path else "the model itself" for path in read_by)
        return f"Not called with this example: its weight is read without a call, by {who}."
    if calls == 0:
        return "Not called with this example."
    if len(convs) > 1:
        return f"Called on inputs of {len(convs)} sizes; this is the first, {convs[0].input_size}."
    if tensor.kind == "conv" and calls and not convs:
        return "Its outputs are not of the size of its geometry, so it pads or crops by itself, and has no known graph."
    if tensor.kind == "conv" and not convs:
        return "No example input, so no input size and no graph."
    return ""
