"""Data sets: where they are looked for, and every damage an IDX file can have."""

import functools
import gzip
import hashlib
import http.server
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from torch_bridge.training import data
from torch_bridge.training.data import DataError, load_dataset, read_idx, resolve_dataset

COUNTS = {"train": 20, "t10k": 7}


def gz(content):
    return gzip.compress(content, mtime=0)  # no date, so that every worker collects tests of the same names


def images(count, rows=28, columns=28):
    pixels = np.random.default_rng(count).integers(0, 256, count * rows * columns, dtype=np.uint8)
    return struct.pack(">4I", 2051, count, rows, columns) + pixels.tobytes()


def labels(count):
    return struct.pack(">2I", 2049, count) + bytes(i % 10 for i in range(count))


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Make a data folder with a tiny MNIST, half of it gz."""
    monkeypatch.delenv("TOPOBOUNDS_DATA", raising=False)
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part, count in COUNTS.items():
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gz(images(count)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels(count))
    return folder


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """Name no data folder, and have an empty cache."""
    monkeypatch.delenv("TOPOBOUNDS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


# reading


def test_idx_files_are_read(mnist):
    dataset = load_dataset("mnist", mnist.parent)
    assert (dataset.name, dataset.n_features, dataset.n_classes, dataset.max_value) == ("mnist", 784, 10, 255)
    assert dataset.train_images.shape == (20, 784)
    assert dataset.train_images.tobytes() == images(20)[16:]
    assert dataset.test_labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert dataset.provenance["source"] == "MNIST, other IDX files"
    assert dataset.provenance["counts"] == {"train": 20, "test": 7}
    assert dataset.provenance["files"]["t10k-labels-idx1-ubyte"] == hashlib.sha256(labels(7)).hexdigest()
    assert "t10k-images-idx3-ubyte.gz" in dataset.provenance["files"]


def test_the_digest_is_of_the_pictures_not_of_their_packing(mnist):
    before = load_dataset("mnist", mnist.parent).sha256
    packed = mnist / "train-images-idx3-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert load_dataset("mnist", mnist.parent).sha256 == before
    (mnist / "t10k-labels-idx1-ubyte").write_bytes(labels(7)[:-1] + b"\x09")
    assert load_dataset("mnist", mnist.parent).sha256 != before


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_published_files(data_dir, name):
    dataset = load_dataset(name, data_dir)
    assert dataset.train_images.shape == (60000, 784)
    assert dataset.test_images.shape == (10000, 784)
    assert "published IDX files" in dataset.provenance["source"]
    counts = np.bincount(dataset.train_labels)
    if name == "mnist":
        assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert dataset.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    else:
        assert counts.tolist() == [6000] * 10


def test_the_digits_are_split_once_and_for_all():
    dataset = load_dataset("digits")
    assert dataset.train_images.shape == (1297, 64)
    assert dataset.test_images.shape == (500, 64)
    assert -(-1297 // 64) * 20 == 420  # steps an epoch
    assert (dataset.train_images.max(), dataset.max_value) == (16, 16)
    assert set(dataset.test_labels.tolist()) == set(range(10))
    assert dataset.sha256 == "8baae042d4adf0502586b8d95db08e362fe4ecd7f5388b29538e1b0606bb5ced"


# finding


def test_auto_is_mnist_where_there_is_one(mnist, no_data, monkeypatch):
    assert resolve_dataset("auto") == "digits"
    assert resolve_dataset("auto", mnist.parent) == "mnist"
    assert resolve_dataset("auto", no_data.parent) == "digits"
    assert resolve_dataset("auto", download=True) == "mnist"
    monkeypatch.setenv("TOPOBOUNDS_DATA", str(mnist.parent))
    assert resolve_dataset("auto") == "mnist"
    assert load_dataset("auto").name == "mnist"


def test_the_cache_is_looked_at_last(mnist, no_data):
    (no_data / "topobounds").mkdir(parents=True)
    mnist.rename(no_data / "topobounds" / "mnist")
    assert resolve_dataset("auto") == "mnist"
    assert resolve_dataset("auto", no_data) == "digits"


@pytest.mark.parametrize("dataset", ["auto", "mnist", "digits"])
def test_a_named_folder_must_exist(no_data, monkeypatch, dataset):
    with pytest.raises(ValueError, match="Argument 'data_dir' must be an existing folder, not '/no/such/folder'"):
        resolve_dataset(dataset, "/no/such/folder")
    monkeypatch.setenv("TOPOBOUNDS_DATA", "/no/such/folder")
    with pytest.raises(ValueError, match="Argument 'TOPOBOUNDS_DATA' must be an existing folder"):
        resolve_dataset(dataset)


def test_a_named_data_set_that_is_not_there_says_how_to_get_it(no_data):
    with pytest.raises(DataError) as error:
        resolve_dataset("fashion-mnist", no_data.parent)
    message = str(error.value)
    places = f"{no_data.parent}/fashion-mnist or {no_data.parent}/FashionMNIST/raw"
    assert message.startswith(f"Fashion-MNIST is not in {places}, where {', '.join(data.FILES)} were looked for")
    assert all(way in message for way in ("TOPOBOUNDS_DATA", "--data-dir", "--download"))
    assert "\n" not in message


def test_an_unknown_name_is_refused(no_data):
    with pytest.raises(
        ValueError, match="Argument 'dataset' must be one of 'auto', 'mnist', 'fashion-mnist', 'digits'"
    ):
        load_dataset("cifar10")


def test_half_a_data_set_is_not_used(mnist):
    (mnist / "train-labels-idx1-ubyte").unlink()
    for dataset in ("auto", "mnist"):
        with pytest.raises(DataError, match=r"mnist is incomplete: train-labels-idx1-ubyte \(gz or not\) is missing"):
            resolve_dataset(dataset, mnist.parent)


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("dotted", [False, True])
def test_the_files_are_found_as_others_lay_and_name_them(mnist, tmp_path, place, dotted):
    expected = load_dataset("mnist", mnist.parent)
    folder = tmp_path / "elsewhere" / place
    folder.mkdir(parents=True)
    for file in mnist.iterdir():
        (folder / (file.name.replace("-idx", ".idx") if dotted else file.name)).write_bytes(file.read_bytes())
    found = load_dataset("mnist", tmp_path / "elsewhere")
    assert found.sha256 == expected.sha256
    assert resolve_dataset("auto", tmp_path / "elsewhere") == "mnist"
    (folder / "more").mkdir()
    next(folder.glob("t10k-labels*")).unlink()
    with pytest.raises(DataError, match=f"{place} is incomplete: t10k-labels-idx1-ubyte"):
        resolve_dataset("mnist", tmp_path / "elsewhere")


# damage


@pytest.mark.parametrize(
    ("stem", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", gz(images(20))[:-900], r"its gz stream is cut off at byte \d+\."),
        ("train-images-idx3-ubyte.gz", gz(images(20))[:5], "its gz stream is cut off at byte 5"),
        ("train-images-idx3-ubyte.gz", b"", "it ends at byte 0, inside the header of 16"),
        ("train-images-idx3-ubyte.gz", images(20), "Not a gzipped file"),
        ("train-images-idx3-ubyte.gz", gz(images(20)) + b"more", "Not a gzipped file"),
        ("train-images-idx3-ubyte.gz", gz(images(20))[:-8] + bytes(8), "CRC check failed"),
        ("train-images-idx3-ubyte.gz", gz(b"")[:10] + b"\xff" * 99, "Error -3 while decompressing"),
        ("train-images-idx3-ubyte.gz", gz(images(20)[:-1]), r"15680 bytes \(20 x 28 x 28\), 15679 follow"),
        ("train-images-idx3-ubyte.gz", gz(images(20) + b"?"), r"15680 bytes \(20 x 28 x 28\), 15681 follow"),
        ("train-images-idx3-ubyte.gz", gz(images(20)[:15]), "it ends at byte 15, inside the header of 16"),
        ("train-images-idx3-ubyte.gz", gz(labels(20)), "byte 0 starts the magic number 2049, not 2051"),
        ("train-images-idx3-ubyte.gz", gz(images(0)), "it holds no image"),
        ("train-images-idx3-ubyte.gz", gz(images(20, 0)), "it holds no image"),
        ("train-images-idx3-ubyte.gz", gz(images(20, 5, 5)), "images of 784 pixels, the training set of 25"),
        ("train-labels-idx1-ubyte", images(20), "byte 0 starts the magic number 2051, not 2049"),
        ("train-labels-idx1-ubyte", labels(20)[:-3], r"its header announces 20 bytes \(20\), 17 follow it"),
        ("train-labels-idx1-ubyte", labels(19), "has 19 labels for the 20 images of .*train-images-idx3-ubyte"),
        (
            "train-labels-idx1-ubyte",
            labels(20)[:13] + b"\x0a\xff" + labels(20)[15:],
            r"2 labels are not from 0 to 9; the first is 10 at position 5 \(byte 13\)",
        ),
    ],
)
def test_damage_is_named(mnist, stem, content, message):
    (mnist / stem).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset("mnist", mnist.parent)
    assert "-idx" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(mnist):
    with pytest.raises(DataError, match="mnist could not be read: Is a directory"):
        read_idx(mnist, 3)


# download


@pytest.fixture
def server(mnist, no_data, monkeypatch):
    """Serve the tiny MNIST, all of it gz, in the place of the published one."""
    for file in mnist.glob("*-labels-*"):
        file.with_suffix(".gz").write_bytes(gz(file.read_bytes()))
        file.unlink()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(mnist))
    monkeypatch.setattr(handler.func, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    sha256 = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in mnist.glob("*.gz")}
    source = data.IdxSource("MNIST", f"http://127.0.0.1:{server.server_port}/", sha256, ("mnist", "MNIST/raw"))
    monkeypatch.setitem(data.IDX_SOURCES, "mnist", source)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield mnist
    server.shutdown()
    server.server_close()


def test_a_download_goes_to_the_cache_and_is_used_again(server, no_data):
    with pytest.raises(DataError, match="allow the download"):
        load_dataset("mnist")
    dataset = load_dataset("mnist", download=True)
    assert dataset.provenance["source"] == "MNIST, published IDX files"
    assert len(list((no_data / "topobounds" / "mnist").iterdir())) == 4
    assert load_dataset("auto").sha256 == dataset.sha256


def test_a_download_with_another_hash_is_refused(server, no_data):
    (server / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    expected = r"t10k-labels-idx1-ubyte\.gz could not be downloaded from .*hash of downloaded file \(t10k-labels"
    with pytest.raises(DataError, match=expected):
        load_dataset("mnist", download=True)
    assert not (no_data / "topobounds" / "mnist" / "t10k-labels-idx1-ubyte.gz").exists()


# imports


def test_importing_the_package_is_cheap_and_data_needs_no_torch():
    code = "import sys, torch_bridge; assert not {'torch', 'numpy', 'sklearn', 'pooch'} & set(sys.modules)"
    more = "torch_bridge.load_dataset; assert not {'torch', 'sklearn', 'pooch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{code}\n{more}"], check=True)


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("torch", "torch_bridge.TrainingPlan"),
        ("torch", "from torch_bridge.training.models import mlp"),
        ("sklearn", "torch_bridge.load_dataset('digits', '.')"),
        ("pooch", "torch_bridge.resolve_dataset('mnist')"),
        ("pooch", "torch_bridge.resolve_dataset('auto', download=True)"),
    ],
)
def test_what_is_not_installed_says_how_to_install_it(module, use):
    code = f"""
import os, sys, torch_bridge
os.environ.pop("TOPOBOUNDS_DATA", None)
sys.modules[{module!r}] = None
try:
    {use}
except torch_bridge.MissingExtra as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = f"torch_bridge needs {module}, which is not installed: pip install '.[torch]' in a clone of topobounds\n"
    assert result.stdout == told


@pytest.mark.long
def test_the_digits_do_not_need_pooch():
    code = """
import os, sys, torch_bridge
os.environ.pop("TOPOBOUNDS_DATA", None)
sys.modules["pooch"] = None
print(torch_bridge.load_dataset("digits").name, torch_bridge.load_dataset("auto").name)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "digits digits\n"


def test_the_package_lists_its_names():
    import torch_bridge  # noqa: PLC0415

    for name in torch_bridge.__all__:
        assert getattr(torch_bridge, name).__name__ == name
    with pytest.raises(AttributeError, match="No torch_bridge attribute tain"):
        _ = torch_bridge.tain
