"""What a figure is made from: the options of the command, or the records that come with the package."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topobounds.figures.record import FigureRecord

TRAINING_OPTIONS = ("dataset", "trials", "epochs", "data_dir", "download", "device", "jobs")
"""Options of the command, by the names of their parameters, that only what is trained depends on."""

COMMITTED = Path(__file__).with_name("data")
"""Folder of the records that come with the package; its README says what each is."""


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
