"""The numbers behind a figure, with where they come from: small, plain, the same bytes whenever they are made.

Measuring makes a `FigureRecord`, drawing takes one, and nothing else passes between the two.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from topobounds._records import Record, plain

COMMITTED = Path(__file__).with_name("data")
"""Folder of the records that come with the package; its README says what each is."""

DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "digits": "scikit-learn digits"}
"""Data sets by the names they have in print."""

Cell = str | int | float | None


@dataclass(frozen=True)
class Settings:
    """What the command was asked for.

    Attributes
    ----------
    out : pathlib.Path
        Folder of the files; training keeps its run folders under ``runs/`` in it.
    dataset : str
        A resolved name: never ``auto``.
    trials, epochs : int
        Nets trained, and how long each.
    seed : int
        Of everything drawn at random: nets, order of the data, supports.
    data_dir : pathlib.Path or None
        Where the data sets lie; None for the environment's or the user's cache.
    download : bool
        Whether missing data may be downloaded.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    jobs : int or None
        Nets trained at the same time; None for one on each processor.
    progress : callable
        Told ``(done, total, message)`` as work goes on.
    """

    out: Path
    dataset: str
    trials: int
    epochs: int
    seed: int
    data_dir: Path | None
    download: bool
    device: str
    jobs: int | None
    progress: Callable[[float, float, str], None]


@dataclass(frozen=True)
class FigureRecord(Record):
    """The numbers behind one figure or table.

    Attributes
    ----------
    name : str
        The figure.
    provenance : dict
        Command, seed, versions and, where nets were trained, data set with its hashes, trials, epochs. No date.
    columns : tuple of str
        Names of the columns, the header of the CSV.
    rows : tuple of tuple
        The numbers; None where there is none.
    notes : tuple of str
        What the caption or the footnotes must say besides.

    Examples
    --------
    >>> record = FigureRecord("figure0", {"seed": 1}, ("trial", "x"), ((0, 0.5), (1, None)))
    >>> record.column("x")
    [0.5, None]
    >>> print(record.csv(), end="")
    trial,x
    0,0.5
    1,
    >>> FigureRecord.from_json(record.json()) == record
    True
    """

    name: str
    provenance: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def settled(self) -> dict[str, Any]:
        """What the command's options were: dataset, trials, epochs, seed, as far as the figure depends on them."""
        made = self.provenance
        dataset = {"dataset": made["data"]["name"]} if "data" in made else {}
        return dataset | {key: made[key] for key in ("trials", "epochs", "seed") if key in made}

    def column(self, name: str) -> list[Any]:
        """Return one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def distinct(self, name: str) -> list[Any]:
        """Return the values of a column, each once, in order of appearance."""
        return list(dict.fromkeys(self.column(name)))

    def where(self, **conditions: Cell) -> Self:
        """Return the record of the rows that have these values in these columns."""
        wanted = [(self.columns.index(name), value) for name, value in conditions.items()]
        rows = tuple(row for row in self.rows if all(row[place] == value for place, value in wanted))
        return type(self)(self.name, self.provenance, self.columns, rows, self.notes)

    def pivot(self, value: str, across: str, down: str = "trial") -> tuple[list[Any], NDArray[np.float64]]:
        """Return the values of `across`, and `value` as a matrix: one row for each `down`, one column for each."""
        places = list(zip(self.column(down), self.column(across), strict=True))
        cells = dict(zip(places, self.column(value), strict=True))
        rows, columns = self.distinct(down), self.distinct(across)
        return columns, np.array([[cells[row, column] for column in columns] for row in rows], float)

    def csv(self) -> str:
        """Return the rows as CSV with a header; floats in the shortest form that reads back the same."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def json(self) -> str:
        """Return the record as JSON, one row a line."""
        head = {key: value for key, value in self.to_dict().items() if key != "rows"}
        rows = ",\n  ".join(json.dumps(plain(row), allow_nan=False) for row in self.rows)
        return json.dumps(head, indent=1, ensure_ascii=False)[:-2] + f',\n "rows": [\n  {rows}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the record that `json` wrote.

        Raises
        ------
        ValueError
            If the text is none of this schema.
        """
        held = json.loads(text)
        if held.get("schema_version") != cls.schema_version:
            raise ValueError(
                f"A figure's record must have schema {cls.schema_version}, not {held.get('schema_version')}."
            )
        rows = tuple(tuple(row) for row in held["rows"])
        return cls(held["name"], held["provenance"], tuple(held["columns"]), rows, tuple(held["notes"]))


def committed_record(name: str) -> FigureRecord:
    """Return the record of a figure that comes with the package.

    Raises
    ------
    ValueError
        If there is none.
    """
    file = COMMITTED / f"{name}.json"
    if not file.exists():
        names = ", ".join(sorted(each.stem for each in COMMITTED.glob("*.json")))
        raise ValueError(f"No record of {name} comes with the package, only of: {names}.")
    return FigureRecord.from_json(file.read_text(encoding="utf-8"))


def provenance(command: str, **more: Any) -> dict[str, Any]:
    """Return where a record comes from: the command, `more` (the seed...), and the versions of topobounds and numpy."""
    return {"command": command, **more, "versions": {name: metadata.version(name) for name in ("topobounds", "numpy")}}


def point_seed(seed: int, *place: int) -> int:
    """Return a seed for one point of a figure, so that no two points share their draws.

    Parameters
    ----------
    seed : int
        The figure's.
    *place : int
        What tells the point from the others; non-negative.

    Returns
    -------
    int
        From 0 to 2^32 - 1.
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def save(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all: beside its place first, then renamed.

    Raises
    ------
    OSError
        If the disk refuses; what was there before is then untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path
