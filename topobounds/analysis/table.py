"""A report of a model as columns: for data frames, CSV and Parquet, and for tables that show some of them."""

import typing
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from topobounds._arguments import argument_error, nearest
from topobounds._records import Column
from topobounds.analysis.reports import FIRST_KEYS, LayerReport

_RANGES = ("safe_density_range", "neural_persistence_range")
"""Keys of two numbers, which become two columns: ``_low`` and ``_high`` in the place of ``_range``."""
SHARES = ("values", "scales", "rest")
"""What the shares of `ScaleShares` are of, in their order."""


def layer_columns(layers: Sequence[LayerReport]) -> dict[str, Column]:
    """Return layers as columns, one value a layer: numbers, texts, or None.

    Parameters
    ----------
    layers : sequence of LayerReport
        The rows.

    Returns
    -------
    dict of str to Column
        Under the names of the keys of ``topobounds analyze --json``. A shape is a text such as ``"64x3x3x3"``, a range
        is two columns, and ratios are floats. Where layers were compared with the scales of their neurons, the shares
        of that follow.

    Examples
    --------
    >>> import numpy as np
    >>> from topobounds import layer_report
    >>> from topobounds.layers import Dense
    >>> columns = layer_columns([layer_report("fc", np.eye(3), Dense(3, 3), chance=False)])
    >>> columns["shape"].values, columns["density"].values, columns["overlap_z"]
    (['3x3'], [0.3333333333333333], Column(kind=<class 'float'>, values=[None]))
    """
    columns: dict[str, Column] = {}
    for key in FIRST_KEYS:
        values = [getattr(layer, key) for layer in layers]
        if key in _RANGES:
            for place, end in enumerate(("low", "high")):
                ends = [None if value is None else float(value[place]) for value in values]
                columns[key.removesuffix("range") + end] = Column(float, ends)
        else:
            kind = _kind(key)
            columns[key] = Column(kind, [None if value is None else _as_kind(kind, value) for value in values])
    return columns | _scales(layers)


def column_names(layers: Sequence[LayerReport] = ()) -> list[str]:
    """Return the names of the columns of layers."""
    return list(layer_columns(layers))


def checked_columns(argument: str, names: Iterable[str]) -> list[str]:
    """Return names of columns.

    Raises
    ------
    ValueError
        If one is that of no column; the nearest ones are named, and `argument` is to blame.
    """
    known = [*column_names(), *_scale_names()]
    for name in (names := list(names)):
        if name not in known:
            raise argument_error(argument, f"the name of a column, such as {nearest(name, known)}", name)
    return names


def _kind(key: str) -> type:
    """Return the type of a column's values."""
    hint = typing.get_type_hints(LayerReport).get(key, float)  # what is no field is a ratio
    kinds = {each for each in typing.get_args(hint) or (hint,) if each is not type(None)}
    return next((kind for kind in (int, bool, str) if kinds == {kind}), float if kinds <= {float, Fraction} else str)


def _as_kind(kind: type, value: Any) -> Any:
    return "x".join(map(str, value)) if isinstance(value, tuple) else kind(value)


def _scale_names() -> list[str]:
    keys = ("overlap", "neural_persistence")
    return [name for key in keys for name in (*(f"{key}_share_of_{share}" for share in SHARES), f"{key}_scales_z")]


def _scales(layers: Sequence[LayerReport]) -> dict[str, Column]:
    """Return the shares of values, scales and rest; nothing where they were not asked for."""
    if all(layer.scales is None for layer in layers):
        return {}
    columns: dict[str, list[float | None]] = {name: [] for name in _scale_names()}
    for layer in layers:
        for key in ("overlap", "neural_persistence"):
            shares = getattr(layer.scales, key, None) or (None,) * len(SHARES)
            for share, value in zip(SHARES, shares, strict=True):
                columns[f"{key}_share_of_{share}"].append(value)
            columns[f"{key}_scales_z"].append(getattr(layer.scales, f"{key}_z", None))
    return {name: Column(float, values) for name, values in columns.items()}
