"""Folders of weights: an index that says which file holds which tensor, or the one file of a folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from topobounds._files import read_regular
from topobounds._text import counted
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.config import read_config, tied_by_config
from topobounds.checkpoint.errors import CheckpointError, as_checkpoint_error
from topobounds.checkpoint.json_text import read_json
from topobounds.checkpoint.location import Location, RemotePath, is_inside
from topobounds.checkpoint.refusals import refuse_by_content
from topobounds.checkpoint.rewriting import BesideWriter, Change, index_with_size, write_anew
from topobounds.checkpoint.safetensors import (
    Header,
    SafetensorsCheckpoint,
    numpy_dtype,
    read_header,
    read_tensor,
    tied_by_metadata,
    weight_file,
)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_LONGEST_REFERENCE = 1000
"""Bytes of a file that names a snapshot."""
_STRAY = "a file that the index does not name"


class ShardedCheckpoint(Checkpoint):
    """The tensors of several .safetensors files, each where the index says it is; see `open_index`."""

    format = "safetensors"
    can_be_written = True

    def __init__(self, path: Location, index: "Index", headers: Mapping[str, Header]) -> None:
        super().__init__(path)
        self._index = index
        self.folder = index.file.parent
        self._headers = headers
        self.config, unread = read_config(index.file.parent)
        declared = {name: other for header in headers.values() for name, other in tied_by_metadata(header).items()}
        declared = {name: other for name, other in declared.items() if name not in index.shards}
        self.tied = tied_by_config(self.config, index.shards) | declared
        self.left_out = self._besides() | unread

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether it is an index of .safetensors files, or a folder with one, or with model.safetensors."""
        try:
            return path.name.endswith(".safetensors.index.json") or (path.is_dir() and _entry_file(path) is not None)
        except (CheckpointError, OSError):
            return False

    @classmethod
    def open(cls, path: Location) -> Checkpoint:
        """Open a folder or an index; the headers of the files that the index names are read.

        Raises
        ------
        CheckpointError
            If the index is damaged or names files that are missing or damaged, or tensors that they lack.
        """
        file = path
        if path.is_dir():
            file = _entry_file(path) or path / INDEX  # a folder without either is told that it lacks the index
        if file.name == SINGLE:
            return _only_file(path, file)
        index = Index.read(file, ".safetensors")
        headers = {shard: _header_of(index.place(shard)) for shard in index.files}
        for name, shard in index.shards.items():
            if name not in headers[shard].entries:
                raise CheckpointError(f"{file} is damaged: tensor '{name}' is not in {shard}, where it should be.")
        return cls(path, index, headers)

    @property
    def files(self) -> tuple[Location, ...]:
        """The files that the index names, by name."""
        return tuple(map(self._index.place, self._index.files))

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, file by file, in the order of the index."""
        return tuple(self._index.shards)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        name = self._checked(name)
        return self._headers[self._index.shards[name]].entries[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; bfloat16 and float8 are those of ml_dtypes."""
        return numpy_dtype(*self._place(name))

    def tensor(self, name: str) -> Array:
        """Read one tensor."""
        file, header, name = self._place(name)
        self._check_memory(name, header.entries[name].n_bytes)
        return read_tensor(file, header, name)

    def file_of(self, name: str) -> str:
        """Return the file that holds a tensor, as the index calls it."""
        return self._index.shards[self._checked(name)]

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
        room: int = 0,
    ) -> None:
        """Write a folder, not there yet, of the same files with tensors changed; see `Checkpoint.rewrite`."""
        files = {}
        for shard, header in self._headers.items():
            names = [name for name in header.entries if self._index.shards.get(name) == shard]
            files[shard] = weight_file(self, self._index.place(shard), header, names)
        n_bytes = sum(self._headers[shard].entries[name].n_bytes for name, shard in self._index.shards.items())
        texts = index_with_size(self._index.file, n_bytes)
        write_anew(self, files, target, change, resume=resume, beside=beside, room=room, texts=texts)

    def _place(self, name: str) -> tuple[Location, Header, str]:
        name = self._checked(name)
        shard = self._index.shards[name]
        return self._index.place(shard), self._headers[shard], name

    def _besides(self) -> dict[str, str]:
        """Return the files that the index does not name, and the tensors that it does not name or takes elsewhere."""
        found = {}
        folder = self._index.file.parent
        if isinstance(folder, Path):
            strays = {file.name for file in folder.glob("*.safetensors")} - set(self._index.files)
            found = dict.fromkeys(sorted(strays), _STRAY)
        for shard, header in self._headers.items():
            for name in header.entries:
                where = self._index.shards.get(name)
                if where is None:
                    found[name] = f"{self._index.file.name} does not name it; it is in {shard}"
                elif where != shard:
                    found[f"{name} in {shard}"] = f"{self._index.file.name} takes it from {where}"
        return found


class Index:
    """Which file of a folder holds which tensor.

    Attributes
    ----------
    file : Path or RemotePath
        The index.
    shards : mapping of str to str
        Tensor to file name: file by file, and in the order of the index within a file.
    files : tuple of str
        The files, by name.
    """

    def __init__(self, file: Location, shards: Mapping[str, str]) -> None:
        self.file = file
        self.files = tuple(sorted(set(shards.values())))
        self.shards = dict(sorted(shards.items(), key=lambda item: item[1]))

    @classmethod
    def read(cls, file: Location, suffix: str) -> Self:
        """Read an index, and see that the files it names are there.

        Raises
        ------
        CheckpointError
            If it is damaged, names a file outside its folder or of another suffix, or names files that are missing.
        """
        content = read_json(file)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{file} is damaged: it holds no mapping 'weight_map' of tensors to files.")
        for name, shard in shards.items():
            if not is_inside(shard) or not shard.endswith(suffix):
                problem = f"tensor '{name}' would be in {shard!r}, which is no {suffix} file of its folder"
                raise CheckpointError(f"{file} is damaged: {problem}.")
        index = cls(file, shards)
        with as_checkpoint_error(file):
            missing = [shard for shard in index.files if not index.place(shard).exists()]
        if missing:
            lost = sum(shard in missing for shard in index.shards.values())
            files, are = counted(len(index.files), "file"), "is" if len(missing) == 1 else "are"
            problem = f"{len(missing)} of the {files} {are} missing, with {counted(lost, 'tensor')}"
            raise CheckpointError(f"{file} cannot be followed: {problem}: {', '.join(missing[:5])}.")
        return index

    def place(self, shard: str) -> Location:
        """Return where a file of the index is."""
        return self.file.parent / shard


def _header_of(file: Location) -> Header:
    """Return the header of a file that an index names; the error says what the file is where it is another."""
    try:
        return read_header(file)
    except CheckpointError:
        refuse_by_content(file)
        raise


def _entry_file(folder: Location) -> Location | None:
    """Return the index of a folder, or its model.safetensors, if it has either."""
    for name in (INDEX, SINGLE):
        if (folder / name).exists():
            return folder / name
    indices = [] if isinstance(folder, RemotePath) else sorted(folder.glob("*.safetensors.index.json"))
    return indices[0] if indices else None


class LoneFileReader:
    """Opens folders whose only .safetensors file has a name of its own."""

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether it is a folder, on this machine, with .safetensors files."""
        return isinstance(path, Path) and path.is_dir() and any(path.glob("*.safetensors"))

    @staticmethod
    def open(path: Location) -> Checkpoint:
        """Open the one file.

        Raises
        ------
        CheckpointError
            If there are several, or it is damaged.
        """
        folder = Path(str(path))
        files = sorted(folder.glob("*.safetensors"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:5])
            raise CheckpointError(
                f"{path} holds {len(files)} .safetensors files and no index: name one of them, {names}."
            )
        refuse_by_content(files[0])
        checkpoint = SafetensorsCheckpoint.open(files[0])
        checkpoint.folder = folder
        return checkpoint


def snapshot_of(folder: Location) -> Location:
    """Return the snapshot of a folder of the Hugging Face cache, the one of "main" or the only one; else the folder.

    Examples
    --------
    >>> import tempfile
    >>> cache = Path(tempfile.mkdtemp()) / "models--someone--model"
    >>> (cache / "snapshots" / "0a1b2c").mkdir(parents=True)
    >>> snapshot_of(cache).name
    '0a1b2c'
    """
    if not isinstance(folder, Path) or not (folder / "snapshots").is_dir():
        return folder
    snapshots = [each for each in sorted((folder / "snapshots").iterdir()) if each.is_dir()]
    main = folder / "refs" / "main"
    with as_checkpoint_error(main):
        chosen = read_regular(main, _LONGEST_REFERENCE).decode("utf-8", "replace").strip() if main.is_file() else ""
    named = [each for each in snapshots if each.name == chosen or len(snapshots) == 1]
    return named[0] if named else folder


def _only_file(folder: Location, file: Location) -> Checkpoint:
    """Open the model.safetensors of a folder that has no index."""
    refuse_by_content(file)
    checkpoint = SafetensorsCheckpoint.open(file)
    checkpoint.folder = folder
    others = sorted(folder.glob("*.safetensors")) if isinstance(folder, Path) else []
    besides = {other.name: f"a file beside {SINGLE}" for other in others if other.name != SINGLE}
    checkpoint.left_out = {**besides, **checkpoint.left_out}
    return checkpoint
