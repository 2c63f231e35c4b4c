"""Checkpoints written anew: file by file in a folder beside the target, which takes its place when all is there."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from topobounds._files import write_whole, writing_whole
from topobounds._text import bytes_in_words
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.json_text import read_json
from topobounds.checkpoint.location import Location, size_of

Change = Callable[[str, Array], Array]
"""``change(name, array)``: what stands in the place of a tensor in a rewritten file, of the same shape and dtype."""
BesideWriter = Callable[[Path], AbstractContextManager[object]]
"""``beside(folder)``: entered before the first tensor is read, left after the last; it may add files to the folder."""

STATE = ".rewriting"
"""The file that says what an unfinished folder is the beginning of."""
BLOCK = 2**20
"""Bytes that are copied at a time."""


@dataclass(frozen=True)
class WeightFile:
    """One file of a checkpoint, and how it is written anew.

    Attributes
    ----------
    source : Path or RemotePath
        The file.
    write : callable
        ``write(path, change)`` writes it, changed, to another path.
    names : tuple of str
        Its tensors, as `change` is called for them.
    """

    source: Location
    write: Callable[[Path, Change], None]
    names: tuple[str, ...]


def write_anew(
    checkpoint: Checkpoint,
    files: Mapping[str, WeightFile],
    target: str | os.PathLike[str],
    change: Change,
    *,
    resume: str | None = None,
    beside: BesideWriter | None = None,
    room: int = 0,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint of the same files, with some of the tensors changed.

    Parameters
    ----------
    checkpoint : Checkpoint
        What is written anew.
    files : mapping of str to WeightFile
        Its files, under their paths in its folder; the one file where it has none.
    target : path
        The new file or folder. It appears when all of it is written.
    change, resume, beside, room
        As in `Checkpoint.rewrite`.
    texts : mapping of str to str, optional
        Files of the folder that get another content.

    Raises
    ------
    CheckpointError
        If the target is there, or lies in the folder; if the disk lacks the room; or as `change` makes it.
    """
    checkpoint.check_target(target)
    place, folder = Path(target), checkpoint.folder
    others = {} if folder is None else _others(Path(str(folder)), files)
    sizes = [size_of(file.source) for file in files.values()] + [file.stat().st_size for file in others.values()]
    with _staging(place, resume) as staged:
        _check_room(place, sum(sizes) + room - _size_of_folder(staged))
        for name, file in others.items():
            if name not in (texts or {}) and not (staged / name).exists():
                _copy(file, staged / name)
        for name, text in (texts or {}).items():
            write_whole(staged / name, text)
        with beside(staged) if beside is not None else nullcontext():
            for name, each in files.items():
                place_of_file = staged / (name if folder is not None else place.name)
                if place_of_file.exists():
                    _see_again(checkpoint, each, change)
                    continue
                place_of_file.parent.mkdir(parents=True, exist_ok=True)
                each.write(place_of_file, change)
        _move(staged, place, is_folder=folder is not None)


def write_blocks(stream: IO[bytes], content: memoryview) -> None:
    """Write bytes block by block: Linux takes longer for a hundred megabytes in one call."""
    for start in range(0, len(content), BLOCK):
        stream.write(content[start : start + BLOCK])


@contextmanager
def flushing(stream: IO[bytes]) -> Iterator[Callable[[], None]]:
    """Yield a function that has the disk take, from now on and in the background, what was written to a file.

    What the disk has leaves the memory that the system keeps for files, so that the next bytes find room there: where
    that has to be got anew, writing takes several times as long, and a checkpoint may be larger than it.
    """
    waiting: list[Future[None]] = []

    def flush() -> None:
        stream.flush()
        if not waiting or waiting[-1].done():
            waiting[:] = [helper.submit(_put_on_disk, stream.fileno())]

    with ThreadPoolExecutor(1) as helper:
        yield flush


def _put_on_disk(handle: int) -> None:
    if not hasattr(os, "fdatasync"):  # as on macOS
        os.fsync(handle)
        return
    os.fdatasync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def index_with_size(index: Location, n_bytes: int) -> dict[str, str]:
    """Return an index whose metadata say how many bytes its tensors have; nothing if it says so already.

    Returns
    -------
    dict of str to str
        The text of the file under its name, with `n_bytes` as the ``total_size``; or empty.
    """
    content: dict[str, Any] = read_json(index)
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if metadata.get("total_size") == n_bytes:
        return {}
    content["metadata"] = metadata | {"total_size": n_bytes}
    return {index.name: json.dumps(content, indent=2) + "\n"}


def _others(folder: Path, files: Mapping[str, WeightFile]) -> dict[str, Path]:
    """Return the files of a folder that hold none of the weights, by their paths in it."""
    found = {file.relative_to(folder).as_posix(): file for file in _files_in(folder)}
    return {name: file for name, file in found.items() if name not in files}


def _files_in(folder: Path) -> list[Path]:
    """Return the files of a folder and of those below it, hidden ones left out; symbolic links are followed."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _check_room(target: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if n_bytes > free:
        needs = f"it needs {bytes_in_words(n_bytes)}, {bytes_in_words(free)} are free"
        raise CheckpointError(f"{target} cannot be written: {needs}.")


def _size_of_folder(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def _staging(target: Path, resume: str | None) -> Iterator[Path]:
    """Yield the folder in which a target is prepared, which is gone when the block ends.

    `resume` says what is written, in words of the caller's. Where it is given, what an interrupt leaves unfinished
    stays, for the next run that says the same.
    """
    try:
        if resume is None:
            staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
            with _removing_at_the_end(staged):
                yield staged
            return
        staged = target.parent / f".{target.name}.partial"
        staged.mkdir(exist_ok=True)
        with _locked(staged, target):
            _take_up(staged, resume)
            try:
                yield staged
            except KeyboardInterrupt:
                raise  # the folder stays
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error


@contextmanager
def _removing_at_the_end(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(staged: Path, target: Path) -> Iterator[None]:
    """Hold an unfinished folder for this process alone."""
    descriptor = os.open(staged, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CheckpointError(f"{target} is being written by another process.") from None
    finally:
        os.close(descriptor)


def _take_up(staged: Path, resume: str) -> None:
    """Empty an unfinished folder, unless it is the beginning of what is to be written; remove its unfinished files."""
    state = staged / STATE
    if not state.is_file() or state.read_text(encoding="utf-8") != resume:
        for each in staged.iterdir():
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        write_whole(state, resume)
    for file in staged.rglob("*.partial"):
        file.unlink()


def _copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(path) as stream, source.open("rb") as content:
        shutil.copyfileobj(content, stream, BLOCK)


def _see_again(checkpoint: Checkpoint, file: WeightFile, change: Change) -> None:
    """Call a change for the tensors of a file that is written already, as it may keep a record of what it sees."""
    for name in file.names:
        checkpoint.changed(name, change)


def _move(staged: Path, target: Path, *, is_folder: bool) -> None:
    """Put what was prepared in its place, the target itself last."""
    (staged / STATE).unlink(missing_ok=True)
    if os.path.lexists(target):
        raise CheckpointError(f"{target} is there already: something else has made it in the meantime.")
    if is_folder:
        staged.chmod(0o755)
        staged.rename(target)
        return
    for file in sorted(staged.iterdir(), key=lambda each: each.name == target.name):
        file.rename(target.parent / file.name)
