"""Files of weights: every format and dtype, and every way they can be damaged."""

import ctypes
import io
import mmap
import os
import sys
import time
import zipfile
from importlib.metadata import EntryPoint

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save

from topobounds.checkpoint import DTYPES, CheckpointError, open_checkpoint, opening, read_arrays
from topobounds.checkpoint.arrays import NpyCheckpoint, NpzCheckpoint

LAYERS = {
    "a": np.arange(12.0).reshape(3, 4),
    "b": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "half": np.ones((2, 2), ml_dtypes.bfloat16),
    "tiny": np.full((2, 2), 0.5, ml_dtypes.float8_e4m3fn),
    "bias": np.array([1, 2], np.int64),
    "empty": np.zeros((0, 3)),
    "scalar": np.array(3.0),
}


def packed(name, array, start=0):
    """Return a safetensors file of one array, or of what is none."""
    header = f'{{"{name}":{{"dtype":"{array}","shape":[2],"data_offsets":[{start},{start + 2}]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0"


def refused(file, content, *tensor):
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        list(read_arrays(file, *tensor))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_safetensors(tmp_path):
    file = tmp_path / "layers.safetensors"
    file.write_bytes(save(LAYERS, {"made": "by hand"}))
    found = dict(read_arrays(file))
    assert set(found) == set(LAYERS)
    for name, array in LAYERS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    assert [name for name, _ in read_arrays(file, "b")] == ["b"]


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_dtype_of_safetensors(tmp_path, name):
    array = np.array([[0, 1], [1, 0]]).astype(DTYPES[name])
    try:
        content = save({"x": array})
    except SafetensorError as error:
        pytest.skip(f"this release of safetensors cannot write it: {error}")
    (tmp_path / "x.safetensors").write_bytes(content)
    ((_, found),) = read_arrays(tmp_path / "x.safetensors")
    assert (found.dtype, found.shape) == (DTYPES[name], (2, 2))
    assert found.tobytes() == array.tobytes()


def test_npz_and_npy(tmp_path):
    plain = {name: array for name, array in LAYERS.items() if name not in ("half", "tiny")}
    np.savez_compressed(tmp_path / "layers.npz", **plain)
    for name, array in read_arrays(tmp_path / "layers.npz"):
        assert np.array_equal(array, plain.pop(name))
    assert not plain
    np.save(tmp_path / "head.npy", LAYERS["a"])
    ((name, array),) = read_arrays(tmp_path / "head.npy")
    assert name == "head"
    assert np.array_equal(array, LAYERS["a"])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_missing(tmp_path, suffix):
    with pytest.raises(CheckpointError, match=r"could not be read: [Nn]o such file"):
        list(read_arrays(tmp_path / f"absent{suffix}"))


def test_another_tensor(tmp_path):
    np.savez(tmp_path / "layers.npz", a=np.ones(2))
    np.save(tmp_path / "head.npy", np.ones(2))
    for name in ("layers.npz", "head.npy"):
        with pytest.raises(CheckpointError, match=f"{name} has no tensor 'tail'"):
            list(read_arrays(tmp_path / name, "tail"))


def test_another_kind(tmp_path):
    assert refused(tmp_path / "model.txt", b"text").endswith("is no .npy, .npz, .safetensors, .gguf or .onnx file.")
    assert "is damaged" in refused(tmp_path / "model.npz", b"\x89PNG and so on")
    assert "is damaged" in refused(tmp_path / "model.npy", b"hello there, this is text")


def _npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_cut_files(tmp_path):
    whole = save({"first": LAYERS["a"], "second": LAYERS["a"]})
    for length in range(0, len(whole), 7):
        message = refused(tmp_path / "x.safetensors", whole[:length])
        if length > len(whole) - 96:
            assert "tensor 'second'" in message
    whole = _npy(LAYERS["a"])
    for length in range(0, len(whole), 7):
        refused(tmp_path / "x.npy", whole[:length])
    stream = io.BytesIO()
    np.savez(stream, a=LAYERS["a"])
    whole = stream.getvalue()
    for length in range(0, len(whole), 7):
        refused(tmp_path / "x.npz", whole[:length])


def test_altered_files(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, a=LAYERS["a"], b=LAYERS["b"])
    content = bytearray(stream.getvalue())
    content[content.index(_npy(LAYERS["b"])) + 130] ^= 1
    assert "tensor 'b', is damaged" in refused(tmp_path / "x.npz", bytes(content))
    whole = save({"a": LAYERS["a"]})
    assert "is damaged" in refused(tmp_path / "x.safetensors", whole + b"\0")
    for header in (b"[]", b"{", b'{"a":[]}', b'{"a":{"data_offsets":["z",null]}}', b'{"a":{"data_offsets":[0,9,9]}}'):
        refused(tmp_path / "x.safetensors", len(header).to_bytes(8, "little") + header)


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"not": "numbers"}]))
    with pytest.raises(CheckpointError, match=r"tensor 'a', is no plain array of numbers: it holds objects"):
        list(read_arrays(tmp_path / "x.npz"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("note.txt", "no array")
    with pytest.raises(CheckpointError, match=r"'note\.txt' is no array"):
        list(read_arrays(tmp_path / "x.npz"))


def test_an_array_of_python_2(tmp_path):
    content = _npy(np.arange(12.0)).replace(b"(12,), }  ", b"(12L,), } ")
    assert b"12L" in content
    (tmp_path / "x.npy").write_bytes(content)
    (tmp_path / "x.npz").write_bytes(_zipped(("x.npy", content)))
    for suffix in ("npy", "npz"):
        ((_, array),) = read_arrays(tmp_path / f"x.{suffix}")
        assert np.array_equal(array, np.arange(12.0))


def test_an_array_that_stands_twice_is_damage(tmp_path):
    assert "holds an array 'a' twice" in refused(
        tmp_path / "x.npz", _zipped(("a", _npy(np.ones(2))), ("a.npy", _npy(np.ones(3))))
    )


def _zipped(*members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def test_a_dtype_without_a_name_in_numpy(tmp_path):
    assert "tensor 'x', is of type F4, which numpy has no name for" in refused(
        tmp_path / "x.safetensors", packed("x", "F4").replace(b"[2]", b"[4]")
    )


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["npy", "npz", "safetensors"])
def file(request, tmp_path):
    file = tmp_path / f"layers.{request.param}"
    arrays = {name: array for name, array in LAYERS.items() if name not in ("half", "tiny")}
    if request.param == "npy":
        np.save(file, LAYERS["a"])
    elif request.param == "npz":
        np.savez_compressed(file, **arrays)
    else:
        file.write_bytes(save(LAYERS, {"made": "by hand"}))
    return file


def test_headers_tell_shapes_and_types(file):
    with open_checkpoint(file) as checkpoint:
        assert checkpoint.format == file.suffix[1:]
        assert checkpoint.files == (file,)
        for name in checkpoint.names:
            array = checkpoint.tensor(name)
            assert (checkpoint.shape(name), checkpoint.dtype(name)) == (array.shape, array.dtype)
        with pytest.raises(CheckpointError, match=f"{file.name} has no tensor 'tail'"):
            checkpoint.shape("tail")


def test_headers_are_read_without_the_values(tmp_path):
    whole = save({"first": LAYERS["a"]})
    file = tmp_path / "x.safetensors"
    file.write_bytes(whole)
    with open_checkpoint(file) as checkpoint:
        file.write_bytes(whole[:-8])
        assert checkpoint.shape("first") == (3, 4)
        with pytest.raises(CheckpointError, match="tensor 'first'"):
            checkpoint.tensor("first")


def test_a_file_rewritten_without_a_change_holds_the_same(file, tmp_path):
    copy = tmp_path / f"copy{file.suffix}"
    with open_checkpoint(file) as checkpoint:
        checkpoint.rewrite(copy, lambda name, array: array)
        names = checkpoint.names
    old, new = (dict(read_arrays(path)) for path in (file, copy))
    for one, other in zip(old.values(), new.values(), strict=True):
        assert one.tobytes() == other.tobytes()
    assert file.suffix == ".npy" or tuple(new) == names
    assert file.suffix != ".safetensors" or copy.read_bytes() == file.read_bytes()


def test_a_rewritten_file_holds_the_change(file, tmp_path):
    copy = tmp_path / f"copy{file.suffix}"
    with open_checkpoint(file) as checkpoint:
        checkpoint.rewrite(copy, lambda name, array: np.zeros_like(array))
    assert not any(array.any() for _, array in read_arrays(copy))


def test_a_change_of_type_or_shape_is_refused_and_leaves_nothing(file, tmp_path):
    copy = tmp_path / f"copy{file.suffix}"
    refusal = pytest.raises(CheckpointError, match=r"cannot be rewritten: its change is float32")
    with open_checkpoint(file) as checkpoint, refusal:
        checkpoint.rewrite(copy, lambda name, array: array.astype(np.float32).reshape(-1, 1))
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


class Lines:
    """A format of another package: one number a line."""

    @staticmethod
    def can_open(path):
        return path.suffix == ".lines"

    @staticmethod
    def open(path):
        np.save(path.with_suffix(".npy"), np.loadtxt(path))
        return NpyCheckpoint.open(path.with_suffix(".npy"))


def test_another_package_brings_a_format(tmp_path, monkeypatch):
    plugin = EntryPoint("lines", f"{__name__}:Lines", "topobounds.readers")
    monkeypatch.setattr(opening, "entry_points", lambda group: [plugin] if group == "topobounds.readers" else [])
    (tmp_path / "w.lines").write_text("1\n2\n")
    ((name, array),) = read_arrays(tmp_path / "w.lines")
    assert (name, array.tolist()) == ("w", [1.0, 2.0])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".bin", ""])
def test_content_decides_where_the_name_lies(tmp_path, suffix):
    contents = {"npy": _npy(np.ones(2)), "npz": _npz(model=np.ones(2)), "safetensors": save({"model": np.ones(2)})}
    for name, content in contents.items():
        (tmp_path / f"model{suffix}").write_bytes(content)
        with open_checkpoint(tmp_path / f"model{suffix}") as checkpoint:
            assert (checkpoint.format, checkpoint.names) == (name, ("model",))
            assert checkpoint.tensor("model").tolist() == [1, 1]


def test_a_reader_that_is_handed_another_format_names_it(tmp_path):
    (tmp_path / "x.npy").write_bytes(_npz(a=np.ones(2)))
    with pytest.raises(CheckpointError, match=r"is an archive of arrays, as \.npz files are"):
        NpyCheckpoint.open(tmp_path / "x.npy")
    (tmp_path / "x.npz").write_bytes(_npy(np.ones(3)))
    with pytest.raises(CheckpointError, match="is no archive of arrays"):
        NpzCheckpoint.open(tmp_path / "x.npz")


def test_messages_are_one_line_of_printable_characters():
    error = CheckpointError("x.npz, tensor 'a\x1b[31mRED\n\udcff', is damaged.")
    assert str(error) == r"x.npz, tensor 'a\x1b[31mRED\n\udcff', is damaged."
    assert len(str(CheckpointError("a" * 10**6))) <= 601


def _share_held(array):
    """Return the share of the pages of a mapped array that the system holds, so that no disk has to be asked."""
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = array.ctypes.data + array.nbytes - first
    pages = np.zeros(-(-length // mmap.PAGESIZE), np.uint8)
    assert not ctypes.CDLL(None).mincore(
        ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.c_void_p(pages.ctypes.data)
    )
    return np.mean(pages & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the system is asked for a file's pages on Linux only")
def test_a_tensor_is_fetched_as_soon_as_it_is_opened(tmp_path):
    file = tmp_path / "x.npy"
    file.write_bytes(_npy(np.ones((4096, 4096), np.float32)))
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _share_held(np.memmap(file, np.uint8, "r")):
        pytest.skip("the file system lets go of nothing")
    shares = []
    while len(shares) < 5 and 1 not in shares:  # a system in need of memory may fetch less than it is asked for
        with open_checkpoint(file) as checkpoint:
            weights = checkpoint.tensor("x")  # nobody looks into it
            deadline = time.monotonic() + 10
            while _share_held(weights) < 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            shares.append(_share_held(weights))
    assert 1 in shares, shares
