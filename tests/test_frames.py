"""Columns as data frames of whatever library there is, as CSV and as Parquet."""

import csv
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from topobounds import _records
from topobounds._records import BACKENDS, Column, csv_text, frame, parquet_bytes

COLUMNS = {
    "name": Column(str, ["a,b", 'c"d\n', "слой"]),
    "count": Column(int, [1, 2, 3]),
    "some": Column(int, [2**52, None, 0]),
    "share": Column(float, [0.1, None, float("1e-300")]),
    "flag": Column(bool, [True, None, False]),
    "nothing": Column(float, [None, None, None]),
    "no text": Column(str, [None, None, None]),
}


def rows(native):
    """Return the values of a frame by column, None where there is none."""
    if isinstance(native, pd.DataFrame):
        return {name: [None if pd.isna(v) else v for v in native[name].tolist()] for name in native}
    return native.to_dict(as_series=False) if isinstance(native, pl.DataFrame) else native.to_pydict()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_has_the_values(backend):
    native = frame(COLUMNS, backend)
    assert type(native).__module__.split(".")[0] == backend
    assert rows(native) == {name: list(column.values) for name, column in COLUMNS.items()}


def test_a_column_of_nothing_has_its_type():
    polars, arrow, pandas = (frame(COLUMNS, backend) for backend in ("polars", "pyarrow", "pandas"))
    assert dict(polars.schema)["nothing"] == pl.Float64
    assert dict(polars.schema)["some"] == pl.Int64
    assert dict(polars.schema)["no text"] == pl.String
    assert arrow.schema.field("nothing").type == pa.float64()
    assert (pandas["nothing"].dtype, pandas["count"].dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_without_rows(backend):
    assert rows(frame({"a": Column(int, []), "b": Column(str, [])}, backend)) == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("installed", "made"),
    [(BACKENDS, "pandas"), (("polars", "pyarrow"), "polars"), (("pyarrow",), "pyarrow")],
)
def test_the_first_library_that_is_there_makes_the_frame(monkeypatch, installed, made):
    monkeypatch.setattr(_records, "find_spec", lambda name: name in (*installed, "narwhals") or None)
    assert type(frame(COLUMNS)).__module__.split(".")[0] == made


@pytest.mark.parametrize(
    ("installed", "backend", "missing"),
    [
        ((), None, "one of pandas, polars and pyarrow"),
        (("pandas", "narwhals"), "polars", "polars"),
        (("pandas",), None, "narwhals"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, installed, backend, missing):
    monkeypatch.setattr(_records, "find_spec", lambda name: name in installed or None)
    message = (
        rf"^A frame needs {missing}, which is not installed: in a clone of topobounds, pip install -e '\.\[frames\]'"
    )
    with pytest.raises(ImportError, match=message):
        frame(COLUMNS, backend)


def test_an_unknown_library_is_refused():
    message = "^Argument 'backend' must be one of 'pandas', 'polars', 'pyarrow', not 'dask'"
    with pytest.raises(ValueError, match=message):
        frame(COLUMNS, "dask")


def test_parquet_has_the_values_and_the_types():
    table = parquet.read_table(io.BytesIO(parquet_bytes(COLUMNS)))
    assert table.to_pydict() == {name: list(column.values) for name, column in COLUMNS.items()}
    assert table.schema.field("nothing").type == pa.float64()


def test_csv_has_the_values_and_needs_nothing():
    header, *lines = csv.reader(io.StringIO(csv_text(COLUMNS), newline=""))
    assert header == list(COLUMNS)
    assert [line[0] for line in lines] == COLUMNS["name"].values
    assert [float(line[3]) if line[3] else None for line in lines] == COLUMNS["share"].values
    code = (
        "import sys\nfor name in ('narwhals', 'pyarrow', 'pandas', 'polars'): sys.modules[name] = None\n"
        "from topobounds._records import Column, csv_text\nprint(csv_text({'a': Column(int, [1])}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["a", "1"]
