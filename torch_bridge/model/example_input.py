"""Example inputs of models: on the device of the model, and as the arguments of its call."""

from collections.abc import Mapping
from typing import Any

from torch_bridge._torch import Tensor, nn


def example_input_for(model: nn.Module, example: Any) -> Any:
    """Return an example input on the device of a model and, where it is of floating point, in its type.

    Parameters
    ----------
    model : torch.nn.Module
        Its first parameter decides, and of the type its first of floating point; without one, the example stays as it
        is.
    example : Tensor, or tuple, list or dict of them
        Anything else in it stays as it is.
    """
    parameters = list(model.parameters())
    if not parameters:
        return example
    like = next((each for each in parameters if each.is_floating_point()), parameters[0])
    if isinstance(example, Tensor):
        kind = like.dtype if example.is_floating_point() and like.is_floating_point() else example.dtype
        return example.to(parameters[0].device, kind)
    if isinstance(example, dict):
        return {name: example_input_for(model, value) for name, value in example.items()}
    return (
        type(example)(example_input_for(model, each) for each in example) if type(example) in (tuple, list) else example
    )


def as_arguments(example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return an example input as the positional and the keyword arguments of the call of a model."""
    if isinstance(example_input, Mapping):
        return (), dict(example_input)
    return (example_input if type(example_input) is tuple else (example_input,)), {}  # a PackedSequence is a tuple, too
