"""What every result record can do: turn itself into plain Python, ready for JSON, or into a table or a frame."""

import csv
import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

BACKENDS = ("pandas", "polars", "pyarrow")
"""What a frame may be of, in the order in which they are looked for."""
_WITH_FRAMES = "in a clone of topobounds, pip install -e '.[frames]'"


class Column(NamedTuple):
    """A column of a frame.

    Attributes
    ----------
    kind : type
        int, float, bool or str.
    values : sequence
        Of this type, or None.
    """

    kind: type
    values: Sequence[Any]


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
        record = {f.name: plain_record(getattr(self, f.name)) for f in fields if not f.name.startswith("_")}
        return {"schema_version": self.schema_version, **record}


def plain_record(value: Any) -> Any:
    """Return `value` in terms of None, bool, int, float, str, list and dict."""
    if isinstance(value, Fraction) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value) if isinstance(value, Fraction) else None
    if isinstance(value, dict):
        return {str(k): plain_record(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_record(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_record(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return plain_record(value.tolist())
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


def frame(columns: Mapping[str, Column], backend: str | None = None) -> Any:
    """Return columns of equal length as a data frame.

    Parameters
    ----------
    columns : mapping of str to Column
        By their names.
    backend : {"pandas", "polars", "pyarrow"}, optional
        What makes it; the first of these that is installed if left out.

    Returns
    -------
    pandas.DataFrame, polars.DataFrame or pyarrow.Table
        A column has its type even where every value is missing; pandas makes integers with missing ones floats.

    Raises
    ------
    ValueError
        If there is no such backend.
    ImportError
        If the backend, or any, or narwhals is not installed; it says what to install.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"Argument 'backend' must be one of {', '.join(map(repr, BACKENDS))}, not {backend!r}.")
    found = [name for name in ([backend] if backend else BACKENDS) if find_spec(name) is not None]
    if not found or find_spec("narwhals") is None:
        missing = "narwhals" if found else backend or "one of pandas, polars and pyarrow"
        raise ImportError(f"A frame needs {missing}, which is not installed: {_WITH_FRAMES}.")
    import narwhals as nw  # noqa: PLC0415 (of the extra frames)

    types = {int: nw.Int64(), float: nw.Float64(), bool: nw.Boolean(), str: nw.String()}
    schema = {name: types[column.kind] for name, column in columns.items()}
    if found[0] == "pandas":  # whose integers and booleans cannot be missing
        schema |= {
            name: nw.Float64()
            for name, column in columns.items()
            if column.kind in (int, bool) and any(value is None for value in column.values)
        }
    values = {name: list(column.values) for name, column in columns.items()}
    maker: Any = found[0]  # one of the literals that narwhals lists
    return nw.from_dict(values, schema, backend=maker).to_native()


def parquet_bytes(columns: Mapping[str, Column]) -> bytes:
    """Return columns of equal length as a Parquet file.

    Raises
    ------
    ImportError
        If pyarrow or narwhals is not installed; it says what to install.
    """
    table = frame(columns, "pyarrow")
    from pyarrow import parquet  # noqa: PLC0415 (of the extra frames)

    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


def csv_text(columns: Mapping[str, Column]) -> str:
    """Return columns of equal length as CSV with a line of their names; what is missing is empty.

    Examples
    --------
    >>> print(csv_text({"layer": Column(str, ["a,b", "c"]), "density": Column(float, [0.1, None])}))
    layer,density
    "a,b",0.1
    c,
    <BLANKLINE>
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.values for column in columns.values()), strict=True))
    return stream.getvalue()


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
