"""Files of weights: every format and dtype, and every way they can be damaged."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from topobounds.checkpoint import DTYPES, CheckpointError, read_arrays

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
    (tmp_path / "x.safetensors").write_bytes(save({"x": array}))
    ((_, found),) = read_arrays(tmp_path / "x.safetensors")
    assert found.dtype == DTYPES[name]
    assert np.array_equal(found, array)


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
    assert refused(tmp_path / "model.pt", b"PK\3\4").endswith("is no .npy, .npz or .safetensors file.")
    assert "is damaged" in refused(tmp_path / "model.npz", b"\x89PNG and so on")
    assert "is damaged" in refused(tmp_path / "model.npy", b"hello there, this is text")
    assert "no archive" in refused(tmp_path / "model.npz", _npy(np.ones(3)))


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
    with pytest.raises(CheckpointError, match=r"tensor 'a', is .* no plain array of numbers"):
        list(read_arrays(tmp_path / "x.npz"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("note.txt", "no array")
    with pytest.raises(CheckpointError, match=r"'note\.txt' is no array"):
        list(read_arrays(tmp_path / "x.npz"))


def test_a_dtype_without_a_name_in_numpy(tmp_path):
    assert "tensor 'x', is of type F8_E8M0" in refused(tmp_path / "x.safetensors", packed("x", "F8_E8M0"))
