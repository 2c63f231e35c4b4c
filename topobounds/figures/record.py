"""The numbers behind a figure, with where they come from: small, plain, the same bytes whenever they are made.

That holds for the same command, the same versions and the same kind of processor, which the record names: another may
round sums in another order, and training a net makes more of such a difference.

Measuring makes a `FigureRecord`, drawing takes one, and nothing else passes between the two.
"""

import csv
import io
import json
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from topobounds._parallel import processor_name
from topobounds._records import Record, plain_record

DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "digits": "scikit-learn digits"}
"""Data sets by the names they have in print."""

Cell = str | int | float | None


@dataclass(frozen=True)
class FigureRecord(Record):
    """The numbers behind one figure or table.

    Attributes
    ----------
    name : str
        The figure.
    provenance : dict
        Command, seed, processor, versions and, where nets were trained, data set with its hashes, trials, epochs, and
        the processors they were trained on. No date.
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
        rows = ",\n  ".join(json.dumps(plain_record(row), allow_nan=False) for row in self.rows)
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


def provenance(command: str, **more: Any) -> dict[str, Any]:
    """Return where a record comes from: the command, `more` (the seed...), the processor, and the versions.

    The versions are those of topobounds and numpy.
    """
    versions = {name: metadata.version(name) for name in ("topobounds", "numpy")}
    return {"command": command, **more, "processor": processor_name(), "versions": versions}


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
