"""What every result record can do: turn itself into plain Python, ready for JSON, or into a table for notebooks."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar


class Record:
    """Base of the frozen dataclasses that functions return.

    ``to_dict()`` gives plain Python: exact fractions as strings (``"346/385"``), arrays as lists, a number that is
    not finite as None. ``schema_version`` rises when a key changes its meaning or goes. Arrays are read-only: a record
    holds a view of what it was given.
    """

    schema_version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Take the arrays as views that cannot be written to."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if getattr(value, "ndim", 0) and hasattr(value, "setflags"):  # numpy, without importing it
                view = value.view()
                view.setflags(write=False)
                object.__setattr__(self, field.name, view)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``schema_version`` as plain Python, ready for ``json.dumps``."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        record = {f.name: plain(getattr(self, f.name)) for f in fields if not f.name.startswith("_")}
        return {"schema_version": self.schema_version, **record}


def plain(value: Any) -> Any:
    """Return `value` in terms of None, bool, int, float, str, list and dict."""
    if isinstance(value, Fraction) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value) if isinstance(value, Fraction) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return plain(value.tolist())
    return value


def html_table(columns: Mapping[str, Sequence[object]]) -> str:
    """Return columns of equal length as an HTML table, for notebooks.

    Examples
    --------
    >>> html_table({"layer": ["a<b"], "ratio": [1 / 3]})
    '<table><thead><tr><th>layer</th><th>ratio</th></tr></thead><tbody><tr><td>a&lt;b</td><td>0.3333</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in zip(*columns.values(), strict=True))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    if isinstance(value, float | Fraction):
        return f"{float(value):.4g}"
    return html.escape(str(value))
