"""The rows of a sweep: one SQLite file, in which a point is either whole or not at all.

SQLite because a row is committed or not, whatever kills the process; because two processes cannot write at once; and
because every language reads it without us: ``pandas.read_sql("select * from overlap", sqlite3.connect(file))``. Each
row holds a checksum, and what a damaged file still tells is kept.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from topobounds._text import counted
from topobounds.sweeps.plan import SweepPlan

FILE = "results.sqlite"
_FORMAT = 1
_RECENT = 1000  # rows from which the rate is taken
_MOST_ERRORS = 10
_LONGEST_LIST = 3  # entries of a list that become columns, as the ends of an interval do
_MOST_COLUMNS = 1900  # of a view: SQLite has no more than 2,000
_SAMPLED = 50  # answers whose keys become columns
_TABLE = """
create table if not exists points (
    key blob primary key, question text not null, parameters text not null, status text not null, answer text,
    error text, seconds real not null, worker text not null, topobounds text not null, numpy text not null,
    python text not null, finished real not null, checksum integer not null
) without rowid
"""


class StoreError(OSError):
    """A store of results that cannot be used as asked; the message names it."""


@dataclass(frozen=True)
class Row:
    """What became of one point.

    Attributes
    ----------
    key : bytes
        Of the point.
    question : str
        What was asked.
    parameters : str
        With what, as JSON.
    status : str
        ``"done"``, or ``"failed"``: it is asked again when the sweep goes on.
    answer : str or None
        As JSON.
    error : str or None
        Why there is none.
    seconds : float
        That the answer took.
    worker : str
        Host and process that gave it.
    topobounds, numpy, python : str
        Their versions there.
    finished : float
        When, in seconds since 1970.
    """

    key: bytes
    question: str
    parameters: str
    status: str
    answer: str | None
    error: str | None
    seconds: float
    worker: str
    topobounds: str
    numpy: str
    python: str
    finished: float

    @property
    def checksum(self) -> int:
        """CRC-32 of the row."""
        return zlib.crc32(repr(astuple(self)).encode())


_COLUMNS = tuple(field.name for field in fields(Row))
_OF_THE_ROW = tuple(name for name in _COLUMNS if name not in ("key", "parameters", "answer"))


class Store:
    """The rows of the sweep in a folder; a context manager.

    Attributes
    ----------
    file : pathlib.Path
        The SQLite file.
    salvaged : str or None
        What was found to be damaged when the file was opened, and what became of it.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.salvaged: str | None = None
        with self._sqlite_as_store_error():
            self._connection = sqlite3.connect(self.file, isolation_level=None)

    @classmethod
    def create(cls, folder: Path, plan: SweepPlan) -> "Store":
        """Open the store of a plan, made where there is none.

        Raises
        ------
        StoreError
            If the folder holds the results of another plan, or cannot be written.
        """
        store = cls(folder)
        try:
            store._mend()
            with store._sqlite_as_store_error():
                store._connection.execute(_TABLE)
                store._connection.execute("create table if not exists plan (format integer, text text)")
            known = store.plan_text
            if known is None:
                with store._sqlite_as_store_error():
                    store._connection.execute("insert into plan values (?, ?)", (_FORMAT, plan.text))
            elif known != plan.text:
                raise StoreError(f"{folder} holds the results of another plan: choose another folder.")
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open the store that is in a folder, to look at.

        Raises
        ------
        StoreError
            If there is none, or it is damaged.
        """
        if not (folder / FILE).is_file():
            raise StoreError(f"{folder} holds no sweep: {FILE} is missing.")
        store = cls(folder)
        try:
            if store.plan_text is None:
                raise StoreError(f"{store.file} is of no sweep.")
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def plan_text(self) -> str | None:
        """The text of the plan whose rows these are; None before there is one."""
        with self._sqlite_as_store_error():
            if not self._has("plan"):
                return None
            found = self._connection.execute("select format, text from plan").fetchone()
        if found is not None and found[0] != _FORMAT:
            raise StoreError(
                f"{self.file} is of another version of topobounds: its format is {found[0]}, not {_FORMAT}."
            )
        return None if found is None else str(found[1])

    def done(self) -> set[bytes]:
        """Return the keys of the points that have an answer."""
        with self._sqlite_as_store_error():
            return {key for (key,) in self._connection.execute("select key from points where status = 'done'")}

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows, all of them or none, in the place of failed ones of the same points.

        Raises
        ------
        StoreError
            If there is no room for them.
        """
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        values = [(*astuple(row), row.checksum) for row in rows]
        with self._sqlite_as_store_error():
            self._connection.execute("begin immediate")
            try:
                self._connection.executemany(f"insert or replace into points values ({marks})", values)
                self._connection.execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("rollback")
                raise

    def counts(self) -> dict[str, int]:
        """Return how many points are done, and how many failed."""
        with self._sqlite_as_store_error():
            found = dict(self._connection.execute("select status, count(*) from points group by status"))
        return {status: found.get(status, 0) for status in ("done", "failed")}

    def errors(self) -> dict[str, int]:
        """Return the ten commonest errors, each after its question, and of how many points they are."""
        with self._sqlite_as_store_error():
            query = "select question || ': ' || error, count(*) from points where status = 'failed' group by 1"
            return dict(self._connection.execute(f"{query} order by 2 desc, 1 limit {_MOST_ERRORS}"))

    def rate(self) -> float | None:
        """Return the points a second of the last thousand; None of less than two."""
        with self._sqlite_as_store_error():
            query = "select max(finished) - min(finished), count(*) from (select finished from points order by finished"
            seconds, count = self._connection.execute(f"{query} desc limit {_RECENT})").fetchone()
        return (count - 1) / seconds if count > 1 and seconds else None

    def records(self, question: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows as flat records, in the order of their parameters."""
        where, values = ("where question = ?", (question,)) if question else ("", ())
        with self._sqlite_as_store_error():
            order = "order by question, parameters"
            for row in self._connection.execute(f"select {', '.join(_COLUMNS)} from points {where} {order}", values):
                yield _flat(Row(*row))

    def add_views(self) -> None:
        """Make for each question a view with a column for each parameter and each number of the answers."""
        with self._sqlite_as_store_error():
            for (question,) in self._connection.execute("select distinct question from points").fetchall():
                self._add_view(question)

    def _add_view(self, question: str) -> None:
        columns: dict[str, str] = {}
        for source in ("parameters", "answer"):
            query = f"select {source} from points where question = ? and {source} is not null limit {_SAMPLED}"
            for (text,) in self._connection.execute(query, (question,)):
                for path, name, _ in _own_leaves(source, text):
                    columns.setdefault(name, f"json_extract({source}, {_quoted(path)}) as {_named(name)}")
        wanted = ", ".join([*list(columns.values())[:_MOST_COLUMNS], *map(_named, _OF_THE_ROW)])
        self._connection.execute(f"drop view if exists {_named(question)}")
        where = f"where question = {_quoted(question)}"
        self._connection.execute(f"create view {_named(question)} as select {wanted} from points {where}")

    def _has(self, table: str) -> bool:
        query = "select count(*) from sqlite_master where type = 'table' and name = ?"
        return bool(self._connection.execute(query, (table,)).fetchone()[0])

    def _mend(self) -> None:
        """Keep what a damaged file still tells, in a new one; drop rows that are not what was written."""
        try:
            whole = self._connection.execute("pragma quick_check").fetchone()[0] == "ok"
            damaged = self._damaged_keys() if whole and self._has("points") else []
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                with self._sqlite_as_store_error():
                    raise
            whole, damaged = False, []
        if not whole:
            self._salvage()
        elif damaged:
            with self._sqlite_as_store_error():
                self._connection.executemany("delete from points where key = ?", [(key,) for key in damaged])
            self.salvaged = f"{self.file}: {counted(len(damaged), 'damaged row is', 'damaged rows are')} asked again."

    def _damaged_keys(self) -> list[bytes]:
        return [row.key for row, checksum in _rows_and_checksums(self._connection) if row.checksum != checksum]

    def _salvage(self) -> None:
        """Move a damaged file aside and copy what can be read of it."""
        self._connection.close()
        number = next(i for i in range(1, 1000) if not self.file.with_suffix(f".damaged-{i}").exists())
        aside = self.file.with_suffix(f".damaged-{number}")
        self.file.rename(aside)
        for leftover in (f"{self.file}-journal", f"{self.file}-wal", f"{self.file}-shm"):
            Path(leftover).unlink(missing_ok=True)
        kept: list[Row] = []
        text = None
        old = sqlite3.connect(f"file:{aside}?mode=ro&immutable=1", uri=True)
        with suppress(sqlite3.DatabaseError):
            text = old.execute("select text from plan").fetchone()[0]
        for direction in ("asc", "desc"):  # from both ends, up to what cannot be read
            with suppress(sqlite3.DatabaseError, UnicodeDecodeError, TypeError):
                for row, checksum in _rows_and_checksums(old, f"order by key {direction}"):
                    if row.checksum == checksum:
                        kept.append(row)
        old.close()
        self._connection = sqlite3.connect(self.file, isolation_level=None)
        self._connection.execute(_TABLE)
        if text is not None:
            self._connection.execute("create table plan (format integer, text text)")
            self._connection.execute("insert into plan values (?, ?)", (_FORMAT, text))
        self.add(kept)
        count = len({row.key for row in kept})
        rows = counted(count, "row of it is", "rows of it are")
        self.salvaged = f"{self.file} was damaged: {rows} kept, the file is now {aside.name}."

    @contextmanager
    def _sqlite_as_store_error(self) -> Iterator[None]:
        """Turn what SQLite says into one line that names the file."""
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error).rstrip(".")
            raise StoreError(f"{self.file}: {reason}.") from error


def _leaves(value: Any, path: str = "$", name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the JSON path, the dotted name and the value of each number and text in nested objects and short lists."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f'{path}."{key}"', f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for place, each in enumerate(value if len(value) <= _LONGEST_LIST else ()):
            yield from _leaves(each, f"{path}[{place}]", f"{name}.{place}")
    else:
        yield path, name, value


def _flat(row: Row) -> dict[str, Any]:
    """Return a row with its parameters and the numbers of its answer side by side."""
    record = {name: getattr(row, name) for name in _OF_THE_ROW}
    for source, text in (("parameters", row.parameters), ("answer", row.answer or "{}")):
        for _, name, value in _own_leaves(source, text):
            record.setdefault(name, value)
    return record


def _own_leaves(source: str, text: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the leaves of the parameters or the answer of a row, under names that the row has no column of."""
    for path, name, value in _leaves(json.loads(text)):
        yield path, f"{source}.{name}" if name in _OF_THE_ROW else name, value


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _named(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _rows_and_checksums(connection: sqlite3.Connection, order: str = "") -> Iterator[tuple[Row, int]]:
    """Yield the rows of a store as they are read, each with the checksum that it was written with."""
    for *values, checksum in connection.execute(f"select {', '.join(_COLUMNS)}, checksum from points {order}"):
        yield Row(*values), checksum
