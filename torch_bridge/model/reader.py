"""Files of torch.save as checkpoints: a reader of topobounds.checkpoint, which finds it by its entry point.

Nothing is unpickled but what ``torch.load(weights_only=True)`` allows. The values of a file in the zip format of
torch 1.6 and later are mapped into memory; behind a URL they are asked for one tensor at a time.
"""

import io
import mmap
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topobounds._files import writing_whole
from topobounds._memory import check_memory
from topobounds._types import Array
from topobounds.checkpoint.base import Checkpoint
from topobounds.checkpoint.config import read_config, tied_by_config
from topobounds.checkpoint.errors import CheckpointError
from topobounds.checkpoint.location import Location, read_range, size_of
from topobounds.checkpoint.refusals import refuse_by_content
from topobounds.checkpoint.rewriting import BLOCK, BesideWriter, Change, WeightFile, index_with_size, write_anew
from topobounds.checkpoint.sharded import Index
from topobounds.checkpoint.signatures import format_by_signature
from topobounds.weights import as_array
from torch_bridge.model.checksums import put_checksums_right
from torch_bridge.model.state_dicts import NumpyValue, StateDict, find_state_dict

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
_INDEX = "pytorch_model.bin.index.json"
_SINGLE = "pytorch_model.bin"
_NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")
    ),
)
"""What numbers and arrays of numpy are pickled with: best accuracies, states of random generators."""
_BYTE_ARRAY = re.compile(rb"c(?:builtins|__builtin__)\nbytearray\n")
_WAY_ON = (
    "Save its weights alone where you trust it: loaded = torch.load(FILE, weights_only=False), then "
    "torch.save(loaded.state_dict(), 'weights.pt') of a module, torch.save(loaded['state_dict'], 'weights.pt') of a "
    "dictionary"
)


class TorchReader:
    """Opens files of torch.save, and folders of them."""

    @staticmethod
    def can_open(path: Location) -> bool:
        """Whether the file is one by its content, or by its name where the content shows nothing."""
        if path.name.endswith(".bin.index.json"):
            return True
        try:
            if path.is_dir():
                return _entry_file(path) is not None
        except (CheckpointError, OSError):
            return False
        content = format_by_signature(path)
        return content in ("torch", "torch, legacy") or (content in (None, "zip") and path.suffix in SUFFIXES)

    @staticmethod
    def open(path: Location) -> "TorchCheckpoint":
        """Open a file, or a folder with ``pytorch_model.bin.index.json`` or ``pytorch_model.bin``.

        Raises
        ------
        CheckpointError
            If it is missing or damaged, holds objects that would have to be unpickled, or torch is not installed; or if
            an index names files that are missing, or tensors that they lack.
        """
        file = path
        if path.is_dir():
            file = _entry_file(path) or path / _SINGLE  # a folder without either is told that it lacks the file
        if not file.name.endswith(".index.json"):
            stored = _StoredFile(file)
            folder = path if path.is_dir() else None
            return TorchCheckpoint(path, [stored], dict.fromkeys(stored.tensors, stored), {}, folder)
        index = Index.read(file, ".bin")
        shards = {shard: _StoredFile(index.place(shard)) for shard in index.files}
        for name, shard in index.shards.items():
            if name not in shards[shard].known:
                raise CheckpointError(f"{file} is damaged: tensor '{name}' is not in {shard}, where it should be.")
        owners = {name: shards[shard] for name, shard in index.shards.items()}
        return TorchCheckpoint(path, list(shards.values()), owners, _unnamed(shards, index), file.parent, file)


def _unnamed(shards: "Mapping[str, _StoredFile]", index: Index) -> dict[str, str]:
    """Return the tensors that the index does not name, and those that it takes from another file."""
    found = {}
    for shard, stored in shards.items():
        for name in stored.known:
            where = index.shards.get(name)
            if where is None:
                found[name] = f"{index.file.name} does not name it; it is in {shard}"
            elif where != shard:
                found[f"{name} in {shard}"] = f"{index.file.name} takes it from {where}"
    return found


def _entry_file(folder: Location) -> Location | None:
    return next((folder / name for name in (_INDEX, _SINGLE) if (folder / name).exists()), None)


class TorchCheckpoint(Checkpoint):
    """The tensors of a file of torch.save, or of several; see `TorchReader.open`."""

    format = "torch"
    can_be_written = True

    def __init__(
        self,
        path: Location,
        stored: "list[_StoredFile]",
        owners: "Mapping[str, _StoredFile]",
        left_out: Mapping[str, str],
        folder: Location | None,
        index: Location | None = None,
    ) -> None:
        super().__init__(path)
        self.folder = folder
        self._index = index
        self._stored = stored
        tied = {name: other for each in stored for name, other in each.tied.items()}
        self._owners = {name: owner for name, owner in owners.items() if name not in tied}
        self.config, unread = read_config(stored[0].file.parent)
        self.tied = tied_by_config(self.config, [*owners, *tied]) | tied
        self.left_out = {name: reason for each in stored for name, reason in each.left_out.items()} | dict(left_out)
        self.left_out |= unread

    @property
    def files(self) -> tuple[Location, ...]:
        """The files that hold the tensors."""
        return tuple(each.file for each in self._stored)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in the order of the state dict, or of the index file by file."""
        return tuple(self._owners)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        name = self._checked(name)
        return tuple(self._owners[name].tensors[name].shape)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor; bfloat16 and float8 are those of ml_dtypes."""
        name = self._checked(name)
        return self._owners[name].dtype(name)

    def tensor(self, name: str) -> Array:
        """Read one tensor: a view of the file where it is mapped into memory."""
        name = self._checked(name)
        return self._owners[name].read(name)

    def file_of(self, name: str) -> str:
        """Return the name of the file that holds a tensor."""
        return self._owners[self._checked(name)].file.name

    def rewrite(
        self,
        target: str | os.PathLike[str],
        change: Change,
        *,
        resume: str | None = None,
        beside: BesideWriter | None = None,
        room: int = 0,
    ) -> None:
        """Write files of torch.save, optimiser state and all else included; see `Checkpoint.rewrite`.

        In the zip format of torch 1.6 and later the values of changed tensors are written over those of a copy, one
        tensor at a time. A file of the format before is held in memory until it is written.
        """
        files = {}
        for each in self._stored:
            names = tuple(name for name, owner in self._owners.items() if owner is each and each.is_plain(name))
            write = partial(self._write_file, each, names)
            key = each.file.name if self.folder is None else str(each.file).removeprefix(f"{self.folder}/")
            files[key] = WeightFile(each.file, write, names)
        texts = {}
        if self._index is not None:
            tensors = [owner.tensors[name] for name, owner in self._owners.items()]
            texts = index_with_size(self._index, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
        write_anew(self, files, target, change, resume=resume, beside=beside, room=room, texts=texts)

    def _write_file(self, stored: "_StoredFile", names: tuple[str, ...], path: Path, change: Change) -> None:
        if format_by_signature(stored.file) == "torch":
            stored.write_over_copy(path, {name: partial(self._changed_or_none, name, change) for name in names})
            return
        import torch

        content = _load_before_torch_1_6(stored.file)
        tensors = find_state_dict(content, stored.file.stem).tensors
        for name in names:
            new = self._changed_or_none(name, change)
            if new is not None:
                values = torch.frombuffer(bytearray(new.tobytes()), dtype=tensors[name].dtype)
                tensors[name].detach().copy_(values.reshape(new.shape))
        with writing_whole(path) as stream:
            torch.save(content, stream, _use_new_zipfile_serialization=False)

    def _changed_or_none(self, name: str, change: Change) -> Array | None:
        """Return what takes a tensor's place; None if it stays."""
        array = self.tensor(name)
        new = self.checked_change(name, array, change(name, array))
        return None if new is array else new


class _StoredFile:
    """One file of torch.save.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Its tensors by name, each once; behind a URL they are on the device "meta", without values.
    tied : dict of str to str
        Further names, of tensors that share all their memory with one of `tensors`.
    left_out : mapping of str to str
        What is in it besides, with the reason.
    """

    def __init__(self, file: Location) -> None:
        self.file = file
        size_of(file)
        try:
            self._record_sizes = _record_sizes(file)
            content = _load(file)
        except CheckpointError:
            refuse_by_content(file)  # a pointer of Git LFS says so of itself
            raise
        state: StateDict = find_state_dict(content, file.stem)
        self.left_out = state.left_out | {name: form for name, each in state.tensors.items() if (form := _form(each))}
        self.tensors: dict[str, Tensor] = {}
        self.tied: dict[str, str] = {}
        if not state.tensors:
            besides = "".join(f": '{name}' is {reason}" for name, reason in list(self.left_out.items())[:1])
            raise CheckpointError(f"{file} holds no weights{besides}.")
        first: dict[object, str] = {}
        for name in (name for name in state.tensors if name not in self.left_out):
            tensor = state.tensors[name]
            memory = _memory(tensor)
            if memory is not None and memory in first:
                self.tied[name] = first[memory]
            else:
                self.tensors[name] = tensor
                first[memory] = name

    @property
    def known(self) -> set[str]:
        """All names, those of tied tensors too."""
        return {*self.tensors, *self.tied}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor, as numpy or ml_dtypes calls it."""
        import torch

        tensor = self.tensors[name]
        try:
            if tensor.layout != torch.strided or tensor.is_quantized:
                raise ValueError
            return as_array(name, torch.empty(0, dtype=tensor.dtype)).dtype
        except (ValueError, AttributeError):
            kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
            raise CheckpointError(
                f"{self.file}, tensor '{name}', is no plain array of numbers, but one of type {kind}."
            ) from None

    def is_plain(self, name: str) -> bool:
        """Whether a tensor is a plain array of numbers."""
        try:
            self.dtype(name)
        except CheckpointError:
            return False
        return True

    def write_over_copy(self, path: Path, changed: Mapping[str, Callable[[], Array | None]]) -> None:
        """Write a copy of the file in which tensors have other values; the archive's checksums follow.

        Parameters
        ----------
        path : Path
            The copy.
        changed : mapping of str to callable
            What gives the values of a tensor, of its shape and dtype, or None where it stays as it is.
        """
        places = find_state_dict(_load_meta(self.file), self.file.stem).tensors
        with writing_whole(path) as stream:
            with self.file.open("rb") as content:
                shutil.copyfileobj(content, stream, BLOCK)
            stream.flush()
            with mmap.mmap(stream.fileno(), 0) as memory:
                written = []
                for name, compute in changed.items():
                    new = compute()
                    if new is not None and new.size:
                        written.append(_write_over(memory, self.file, name, places[name], new))
                put_checksums_right(path, memory, written)

    def read(self, name: str) -> Array:
        """Read a tensor, after it is checked against the memory that the file has for it."""
        dtype = self.dtype(name)
        tensor = self.tensors[name].detach()
        if tensor.is_meta and isinstance(self.file, Path):
            raise CheckpointError(f"{self.file}, tensor '{name}', has no values: it was saved on the device 'meta'.")
        there = tensor.untyped_storage().nbytes()
        if tensor.numel() * dtype.itemsize > there:
            declared = f"it declares {tensor.numel()} values, the file holds {there} bytes for them"
            raise CheckpointError(f"{self.file}, tensor '{name}', is damaged: {declared}.")
        if self._record_sizes is not None and there and there not in self._record_sizes:
            raise CheckpointError(f"{self.file}, tensor '{name}', is damaged: no record of it has its {there} bytes.")
        _check_memory(f"{self.file}, tensor '{name}',", tensor.numel() * dtype.itemsize)
        return self._read_meta(name, tensor, dtype) if tensor.is_meta else as_array(name, tensor)

    def _read_meta(self, name: str, tensor: "Tensor", dtype: np.dtype[Any]) -> Array:
        """Ask for the values of a tensor that was loaded without them."""
        start, length = _span(self.file, name, tensor, dtype)
        raw = read_range(self.file, start, length).view(dtype)
        steps = [step * dtype.itemsize for step in tensor.stride()]
        return np.lib.stride_tricks.as_strided(raw, tuple(tensor.shape), steps, writeable=False)


def _span(file: Location, name: str, tensor: "Tensor", dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return where the values of a tensor on the device "meta" begin in the file, and over how many bytes they lie."""
    start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if start is None:
        raise CheckpointError(f"{file}, tensor '{name}', could not be read: torch does not say where it lies.")
    span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start + tensor.storage_offset() * dtype.itemsize, span * dtype.itemsize if tensor.numel() else 0


def _write_over(memory: mmap.mmap, file: Location, name: str, place: "Tensor", new: Array) -> int:
    """Write the values of a tensor, and return where they begin."""
    start, length = _span(file, name, place, new.dtype)
    raw = np.frombuffer(memory, np.uint8, length, start).view(new.dtype)
    steps = [step * new.dtype.itemsize for step in place.stride()]
    np.lib.stride_tricks.as_strided(raw, tuple(place.shape), steps)[...] = new
    return start


def _form(tensor: "Tensor") -> str:
    """Return what a tensor is that is made of others, and so has no memory or no shape of its own; empty of any other.

    The classes of torchao's tensors are unpickled where their library is loaded.
    """
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if tensor.is_nested:
        return "a nested tensor, which is not read"
    is_made_of_others: bool = is_traceable_wrapper_subclass(tensor)
    if is_made_of_others:
        return f"a tensor in another form ({type(tensor).__name__}), which is not read"
    return ""


def _memory(tensor: "Tensor") -> object | None:
    """Return what two tensors have in common that are one; None for what has no memory of its own."""
    import torch

    if tensor.layout != torch.strided or not tensor.numel():
        return None
    storage = tensor.untyped_storage()
    start = getattr(storage, "_checkpoint_offset", None) if tensor.is_meta else storage.data_ptr()
    return (start, tensor.storage_offset(), tensor.dtype, tuple(tensor.shape), tensor.stride()) if start else None


def _record_sizes(file: Location) -> set[int] | None:
    """Return the lengths of the records of a zip archive; None of another file.

    Raises
    ------
    CheckpointError
        If a record is compressed, or its pickle makes byte arrays, of any length that it likes.
    """
    if format_by_signature(file) != "torch":
        return None
    with _torch_as_checkpoint_error(file), file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        packed = next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None)
        if packed is not None:
            raise CheckpointError(
                f"{file} is damaged: its record '{packed.filename}' is compressed, which torch does not do. "
                "Unpack the archive and pack it again uncompressed: zip -0 -r."
            )
        for member in members:
            if member.filename.endswith("data.pkl"):
                _check_pickle(file, archive.read(member))
    return {member.file_size for member in members}


def _check_pickle(file: Location, content: Any) -> None:
    """Refuse a pickle that makes byte arrays, of any length that it likes: torch allows it to."""
    if _BYTE_ARRAY.search(content) is not None:
        raise CheckpointError(f"{file} holds a pickled object, bytearray, which weights do not need. {_WAY_ON}.")


def _load(file: Location) -> Any:
    """Return what a file of torch.save holds; its tensors are mapped into memory, or without values behind a URL."""
    try:
        import torch
    except ModuleNotFoundError:
        raise CheckpointError(
            f"{file} is a file of torch, which is not installed: in a clone of topobounds, pip install -e '.[torch]'."
        ) from None
    in_zip_format = format_by_signature(file) == "torch"
    with _torch_as_checkpoint_error(file), _numpy_as_nothing(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own functions for old files
        if isinstance(file, Path) and (not in_zip_format or file.suffix == ".safetensors"):
            _check_memory(f"{file}, which is read whole,", size_of(file))
        if isinstance(file, Path) and not in_zip_format and size_of(file):
            _check_pickle(file, read_range(file, 0, size_of(file)).data)
        if isinstance(file, Path) and file.suffix != ".safetensors":
            return torch.load(file, map_location="cpu", weights_only=True, mmap=in_zip_format)
        if isinstance(file, Path):  # torch would go by the name
            return torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
        if not in_zip_format:
            raise CheckpointError(f"{file} is of the format before torch 1.6, which is read whole: download it first.")
        return _load_meta(file)


def _load_meta(file: Location) -> Any:
    """Return what a file in the zip format holds, its tensors without values."""
    import torch

    with _torch_as_checkpoint_error(file), _numpy_as_nothing(), file.open("rb") as stream:
        return torch.load(stream, map_location="meta", weights_only=True)


def _load_before_torch_1_6(file: Location) -> Any:
    """Return what a file of the format before torch 1.6 holds, as torch alone reads it and so can write it again."""
    import torch

    with _torch_as_checkpoint_error(file), file.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(stream, map_location="cpu", weights_only=True)


def _numpy_as_nothing() -> AbstractContextManager[Any]:
    """Return a context in which torch reads numbers of numpy as `NumpyValue`."""
    import torch

    return torch.serialization.safe_globals([(NumpyValue, name) for name in _NUMPY])


def _check_memory(subject: str, n_bytes: int) -> None:
    try:
        check_memory(subject, n_bytes)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


@contextmanager
def _torch_as_checkpoint_error(file: Location) -> Iterator[None]:
    """Turn whatever torch raises on a file into one line."""
    try:
        yield
    except CheckpointError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise CheckpointError(f"{file} could not be read: {error.strerror}.") from error
    except Exception as error:
        raise CheckpointError(f"{file} {_problem(error)}.") from error


def _problem(error: Exception) -> str:
    """Return what is wrong with a file on which torch raises an error, and a way on where there is one."""
    text = str(error)
    named = re.search(r"(?:Unsupported global: GLOBAL|Unsupported class|instance of) ([\w.<>]+)", text)
    if named is not None:
        return f"holds a pickled object, {named[1].rstrip('.')}, which can run code and is never unpickled. {_WAY_ON}"
    if "legacy .tar format" in text:
        return f"is of the tar format before torch 0.1.10, which is never unpickled. {_WAY_ON}"
    if isinstance(error, pickle.UnpicklingError):
        return "is damaged, or no file of torch: it cannot be unpickled as weights alone"
    reason = next(iter(text.splitlines()), "").split(". ")[0].rstrip(".:")
    return f"is damaged, or no file of torch: {reason if ' ' in reason else type(error).__name__}"
