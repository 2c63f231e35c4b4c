"""The data sets as arrays: MNIST and Fashion-MNIST from their IDX files, and scikit-learn's digits, embedded.

No torch here, so that a wrong name or a damaged file is reported at once.
"""

import gzip
import hashlib
import io
import math
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topobounds._arguments import argument_error, choice
from topobounds._files import read_regular
from topobounds._memory import largest_unpacked_size
from topobounds._records import Record
from topobounds._text import printable, shortened
from torch_bridge import MissingExtra, require

_DATA_VARIABLE = "TOPOBOUNDS_DATA"
_N_CLASSES = 10


@dataclass(frozen=True)
class IdxSource:
    """A data set in IDX files: what it is called, where it is published, and the SHA-256 of its four gz files.

    `folders` are those of a data folder in which its files are looked for: ours, and torchvision's.
    """

    title: str
    url: str
    sha256: dict[str, str]
    folders: tuple[str, ...]


FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_SOURCES = {
    "mnist": IdxSource(
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        ("mnist", "MNIST/raw"),
    ),
    "fashion-mnist": IdxSource(
        "Fashion-MNIST",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        {
            "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        ("fashion-mnist", "FashionMNIST/raw"),
    ),
}
DATASETS = (*IDX_SOURCES, "digits")

_DIGITS_TEST = 500  # of 1797: an accuracy of 0.95 on them has a standard error of 0.01
DIGITS_SEED = 0


class DataError(ValueError):
    """Data that is missing or damaged; the message names the file and the byte or count."""


@dataclass(frozen=True, kw_only=True)
class Dataset(Record):
    """Images and labels, in memory.

    Attributes
    ----------
    name : str
        ``"mnist"``, ``"fashion-mnist"`` or ``"digits"``.
    train_images, test_images : ndarray of uint8, shape (count, features)
        Flattened, row by row; 0 is background and `max_value` full ink.
    train_labels, test_labels : ndarray of uint8, shape (count,)
        From 0 to `n_classes` - 1.
    n_classes : int
        10.
    max_value : int
        255, or 16 for the digits.
    provenance : dict
        ``source`` in words, ``counts``, and the SHA-256 of every ``files`` entry as it was read.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    n_classes: int
    max_value: int
    provenance: dict[str, Any]

    @property
    def n_features(self) -> int:
        """Pixels of an image."""
        return int(self.train_images.shape[1])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the arrays, whatever files they came from."""
        whole = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()


def resolve_dataset(dataset: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = False) -> str:
    """Say which data set a name stands for, without reading it.

    The data folder is `data_dir`, else the environment variable ``TOPOBOUNDS_DATA``, else the user's cache; it holds
    the folders ``mnist`` and ``fashion-mnist`` with the original IDX files, gz or unpacked, named with dashes or with
    a dot (``train-images.idx3-ubyte``), or ``MNIST/raw`` and ``FashionMNIST/raw`` as torchvision lays them.

    Parameters
    ----------
    dataset : str
        ``"mnist"``, ``"fashion-mnist"``, ``"digits"``, or ``"auto"``: MNIST if it is present (or may be downloaded),
        else digits.
    data_dir : path, optional
        A data folder that exists.
    download : bool
        Whether missing files may be downloaded.

    Returns
    -------
    str
        ``"mnist"``, ``"fashion-mnist"`` or ``"digits"``.

    Raises
    ------
    ValueError
        If the name is unknown or the data folder does not exist.
    DataError
        If a named data set is not there and may not be downloaded, or only a part of it is there.
    MissingExtra
        If pooch, which knows the user's cache, is needed and not installed; digits do not need it.
    """
    choice("dataset", dataset, ("auto", *DATASETS))
    folder = _data_folder(data_dir, needed=download or dataset not in ("auto", "digits"))
    if dataset == "auto":
        return "mnist" if download or (folder and _find("mnist", folder)) else "digits"
    if dataset != "digits" and not download and not (folder and _find(dataset, folder)):
        raise DataError(_not_there(dataset, folder))
    return dataset


def data_found() -> dict[str, Any]:
    """Return the data folder and the data sets that are in it, whole: ``{"folder": ..., "sets": ["mnist"]}``.

    Raises
    ------
    ValueError
        If ``TOPOBOUNDS_DATA`` names no folder.
    DataError
        If only a part of a data set is there.
    MissingExtra
        If pooch, which knows the user's cache, is needed and not installed.
    """
    folder = _data_folder(None, needed=True)
    assert folder is not None, "it is needed"
    return {"folder": str(folder), "sets": [name for name in IDX_SOURCES if _find(name, folder)]}


def _not_there(name: str, folder: Path | None) -> str:
    """Return the message for a data set that is not in a data folder: files looked for, and ways to get them."""
    source = IDX_SOURCES[name]
    places = " or ".join(str(Path(folder or ".", each)) for each in source.folders)
    return (
        f"{source.title} is not in {places}, where {', '.join(FILES)} were looked for (gz or not, with dashes or as in "
        f"{FILES[0].replace('-idx', '.idx')}): set {_DATA_VARIABLE} or --data-dir to a folder that holds "
        f"{source.folders[0]}/ or {source.folders[1]}/ with them, or allow the download with --download."
    )


def load_dataset(dataset: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = False) -> Dataset:
    """Read a data set and check it.

    Parameters
    ----------
    dataset, data_dir, download
        As in `resolve_dataset`. Downloads go to the user's cache and must have the published SHA-256.

    Returns
    -------
    Dataset
        The digits are split once and for all: 500 images, drawn by ``numpy.random.default_rng(0)``, are the test set,
        1297 are for training and validation.

    Raises
    ------
    ValueError
        As in `resolve_dataset`.
    DataError
        If a file is missing or damaged, or could not be downloaded.
    MissingExtra
        If scikit-learn (for the digits) or pooch (for the cache) is not installed.
    """
    name = resolve_dataset(dataset, data_dir, download=download)
    if name == "digits":
        return _digits()
    folder = _data_folder(data_dir, needed=True)
    return _idx_dataset(name, (folder and _find(name, folder)) or _download(name))


def read_idx(file: Path, n_axes: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, gz by its suffix or unpacked.

    Parameters
    ----------
    file : pathlib.Path
        The file.
    n_axes : int
        Axes that the array must have: 3 for images (magic number 2051), 1 for labels (2049).

    Returns
    -------
    ndarray of uint8
        The array, read-only.

    Raises
    ------
    DataError
        If the file is missing, is not a whole gz stream, has another magic number, or has fewer or more bytes than its
        header says.
    """
    content = _content(file)
    header = np.frombuffer(content[: 4 + 4 * n_axes], dtype=">u4", count=min(len(content) // 4, 1 + n_axes))
    if len(header) < 1 + n_axes:
        raise DataError(f"{file} is damaged: it ends at byte {len(content)}, inside the header of {4 + 4 * n_axes}.")
    magic, *shape = header.tolist()
    if magic != 2048 + n_axes:
        raise DataError(f"{file} is damaged: byte 0 starts the magic number {magic}, not {2048 + n_axes}.")
    expected, found = math.prod(shape), len(content) - header.nbytes
    if found != expected:
        announced = f"{expected} bytes ({' x '.join(map(str, shape))})"
        raise DataError(f"{file} is damaged: its header announces {announced}, {found} follow it.")
    return np.frombuffer(content, dtype=np.uint8, offset=header.nbytes).reshape(shape)


def _content(file: Path) -> bytes:
    try:
        content = read_regular(file)
        return _unpacked(file, content) if file.suffix == ".gz" else content
    except EOFError as error:
        raise DataError(f"{file} is damaged: its gz stream is cut off at byte {file.stat().st_size}.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file} is damaged: {error}.") from error
    except OSError as error:
        raise DataError(f"{file} could not be read: {error.strerror or error}.") from error


def _unpacked(file: Path, content: bytes) -> bytes:
    """Return what a gz stream holds."""
    most = largest_unpacked_size(len(content))
    with gzip.open(io.BytesIO(content)) as stream:
        unpacked = stream.read(most + 1)
    if len(unpacked) > most:
        raise DataError(f"{file} is damaged: its {len(content)} bytes expand to more than {most}.")
    return unpacked


def _data_folder(data_dir: str | os.PathLike[str] | None, *, needed: bool) -> Path | None:
    """Return the data folder; None for the user's cache if pooch, which knows it, is missing and not needed."""
    named = os.environ.get(_DATA_VARIABLE)
    if data_dir is None and not named:
        try:
            return Path(require("pooch").os_cache("topobounds"))
        except MissingExtra:
            if needed:
                raise
            return None
    folder = Path(data_dir if data_dir is not None else str(named))
    if not folder.is_dir():
        raise argument_error("data_dir" if data_dir is not None else _DATA_VARIABLE, "an existing folder", str(folder))
    return folder


def _find(name: str, folder: Path) -> dict[str, Path]:
    """Return the four files of a data set by stem; empty if none of them is there."""
    found = [_files_in(folder / each) for each in IDX_SOURCES[name].folders]
    whole = next((files for files in found if len(files) == len(FILES)), {})
    for each, files in zip(IDX_SOURCES[name].folders, found, strict=True):
        if files and not whole:
            missing = [stem for stem in FILES if stem not in files]
            raise DataError(f"{folder / each} is incomplete: {', '.join(missing)} (gz or not) is missing.")
    return whole


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are those of a data set, by stem, under any of the names they go by."""
    spellings = {stem: (stem, stem.replace("-idx", ".idx")) for stem in FILES}
    candidates = [
        (stem, folder / f"{name}{suffix}") for stem in FILES for name in spellings[stem] for suffix in ("", ".gz")
    ]
    return {stem: file for stem, file in candidates if file.exists()}


def _download(name: str) -> dict[str, Path]:
    pooch = require("pooch")
    source = IDX_SOURCES[name]
    store = pooch.create(
        path=pooch.os_cache("topobounds") / name,
        base_url=source.url,
        registry={f"{stem}.gz": f"sha256:{digest}" for stem, digest in source.sha256.items()},
        retry_if_failed=1,
    )
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # progress is the caller's to show
    try:
        return {stem: _fetched(store, f"{stem}.gz") for stem in FILES}
    finally:
        logger.setLevel(level)


def _fetched(store: Any, name: str) -> Path:
    """Return a file of the user's cache, downloaded where it is missing."""
    try:
        return Path(store.fetch(name))
    except (OSError, ValueError) as error:
        reason = shortened(printable(str(error))).rstrip(".")
        raise DataError(f"{name} could not be downloaded from {store.get_url(name)}: {reason}.") from error


def _idx_dataset(name: str, files: dict[str, Path]) -> Dataset:
    train = _images_and_labels(files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"])
    test = _images_and_labels(files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"])
    if train[0].shape[1] != test[0].shape[1]:
        raise DataError(
            f"{files['t10k-images-idx3-ubyte']} has images of {test[0].shape[1]} pixels, the training set of "
            f"{train[0].shape[1]}."
        )
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()}
    source = IDX_SOURCES[name]
    status = "published" if set(hashes.values()) == set(source.sha256.values()) else "other"
    return _dataset(name, train, test, 255, f"{source.title}, {status} IDX files", hashes)


def _images_and_labels(images_file: Path, labels_file: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if images.size == 0:
        raise DataError(f"{images_file} is damaged: it holds no image.")
    if len(images) != len(labels):
        raise DataError(f"{labels_file} has {len(labels)} labels for the {len(images)} images of {images_file}.")
    wrong = np.flatnonzero(labels >= _N_CLASSES)
    if len(wrong):
        raise DataError(
            f"{labels_file} is damaged: {len(wrong)} labels are not from 0 to {_N_CLASSES - 1}; the first is "
            f"{labels[wrong[0]]} at position {wrong[0]} (byte {wrong[0] + 8})."
        )
    return images.reshape(len(images), -1), labels


def _digits() -> Dataset:
    images, labels = require("sklearn.datasets").load_digits(return_X_y=True)
    images, labels = images.astype(np.uint8), labels.astype(np.uint8)
    order = np.random.default_rng(DIGITS_SEED).permutation(len(images))
    test, train = np.sort(order[:_DIGITS_TEST]), np.sort(order[_DIGITS_TEST:])
    hashes = {"digits": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()}
    source = f"scikit-learn's digits, {_DIGITS_TEST} images held out (seed {DIGITS_SEED})"
    return _dataset("digits", (images[train], labels[train]), (images[test], labels[test]), 16, source, hashes)


def _dataset(
    name: str,
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    max_value: int,
    source: str,
    hashes: dict[str, str],
) -> Dataset:
    return Dataset(
        name=name,
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        n_classes=_N_CLASSES,
        max_value=max_value,
        provenance={"source": source, "counts": {"train": len(train[0]), "test": len(test[0])}, "files": hashes},
    )
