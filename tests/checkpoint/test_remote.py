"""Weights behind URLs: what is read is asked for in ranges, and servers that send whole files only are refused."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save, save_file

from topobounds import preview
from topobounds.checkpoint import CheckpointError, open_checkpoint, read_arrays

pytestmark = pytest.mark.usefixtures("registered")
RNG = np.random.default_rng(2)
LARGE = RNG.standard_normal((1000, 1000))
SMALL = RNG.standard_normal((3, 5)).astype(np.float32)


class Server(ThreadingHTTPServer):
    """A web server of the files of a folder, which counts the bytes it sends; with ranges or without."""

    daemon_threads = True

    def __init__(self, folder, ranges):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.ranges = ranges
        self.sent = 0
        self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Keep quiet about clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.server.requests += 1
        self.answer(with_body=True)

    def answer(self, with_body):
        file = self.server.folder / self.path.partition("?")[0].lstrip("/")
        content = file.read_bytes() if file.is_file() else b""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(match[1]), int(match[2]) + 1) if match and self.server.ranges else (0, len(content))
        self.send_response(
            403
            if "secret" in self.path
            else 404
            if not file.is_file()
            else 206
            if match and self.server.ranges
            else 200
        )
        if match and self.server.ranges:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content[first:last])))
        self.end_headers()
        for start in range(first, last if with_body else first, 2**16):
            self.server.sent += self.wfile.write(content[start : min(start + 2**16, last)])


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(ranges=True):
        server = Server(tmp_path, ranges)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def write(folder, name):
    arrays = {"large": LARGE, "small": SMALL}
    if name.endswith(".npz"):
        np.savez(folder / name, **arrays)
    elif name.endswith(".pt"):
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save(
            {"epoch": 1, "state_dict": {**tensors, "turned": tensors["small"].T, "tied": tensors["large"]}},
            folder / name,
        )
    else:
        save_file(arrays, folder / name)


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pt"])
def test_only_what_is_read_is_asked_for(tmp_path, serve, name):
    write(tmp_path, name)
    server = serve()
    with open_checkpoint(f"{server.url}/{name}") as checkpoint:
        assert str(checkpoint.path) == f"{server.url}/{name}"
        assert checkpoint.shape("large") == (1000, 1000)
        assert np.array_equal(checkpoint.tensor("small"), SMALL)
        assert server.sent < 2**21
        assert np.array_equal(checkpoint.tensor("large"), LARGE)
        assert server.sent < LARGE.nbytes + 2**21
        assert server.requests <= 8


def test_views_and_tied_tensors_of_a_torch_file(tmp_path, serve):
    write(tmp_path, "x.pt")
    checkpoint = open_checkpoint(f"{serve().url}/x.pt?download=true")
    assert np.array_equal(checkpoint.tensor("turned"), SMALL.T)
    assert checkpoint.tied == {"tied": "large"}


def test_of_a_gguf_file_only_what_is_read_is_asked_for(tmp_path, serve):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_array("tokens", ["a", "bc"])
    writer.add_tensor("large", LARGE)
    writer.add_tensor("small", SMALL)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    server = serve()
    with open_checkpoint(f"{server.url}/x.gguf") as checkpoint:
        assert np.array_equal(checkpoint.tensor("small"), SMALL)
        assert server.sent < 1e6
        assert np.array_equal(checkpoint.tensor("large"), LARGE)


def test_the_values_beside_an_onnx_file_are_asked_for_one_by_one(tmp_path, serve):
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in (("large", LARGE), ("small", SMALL))]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    beside = {"save_as_external_data": True, "location": "x.data", "size_threshold": 0}
    onnx.save_model(model, tmp_path / "x.onnx", **beside)
    server = serve()
    with open_checkpoint(f"{server.url}/x.onnx") as checkpoint:
        assert np.array_equal(checkpoint.tensor("small"), SMALL)
        assert server.sent < 1e6
        assert np.array_equal(checkpoint.tensor("large"), LARGE)


def test_a_torch_file_before_the_zip_format_is_refused(tmp_path, serve):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(
        CheckpointError, match=r"is of the format before torch 1\.6, which is read whole: download it first"
    ):
        open_checkpoint(f"{serve().url}/x.pt")


@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pt"])
def test_a_server_without_ranges_is_refused_before_it_sends_the_file(tmp_path, serve, name):
    write(tmp_path, name)
    server = serve(ranges=False)
    with pytest.raises(CheckpointError, match=r"its server sends whole files only\. Download it") as caught:
        open_checkpoint(f"{server.url}/{name}")
    assert str(caught.value).startswith(f"{server.url}/{name}")
    assert server.sent < LARGE.nbytes / 2


@pytest.mark.parametrize("entry", ["", "/", "/model.safetensors.index.json"])
def test_a_sharded_folder(tmp_path, serve, entry):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": LARGE}, folder / "model-1.safetensors")
    save_file({"embed_tokens.weight": SMALL}, folder / "model-2.safetensors")
    places = {"a": "model-1.safetensors", "embed_tokens.weight": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    server = serve()
    with open_checkpoint(f"{server.url}/model{entry}") as checkpoint:
        assert checkpoint.names == ("a", "embed_tokens.weight")
        assert checkpoint.tied == {"lm_head.weight": "embed_tokens.weight"}
        assert np.array_equal(checkpoint.tensor("lm_head.weight"), SMALL)
        assert server.sent < 2**21
        assert [str(file) for file in checkpoint.files] == [f"{server.url}/model/model-{i}.safetensors" for i in (1, 2)]
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of the 2 files is missing, with 1 tensor: model-2\.safetensors"):
        open_checkpoint(f"{server.url}/model{entry}")


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors"])
@pytest.mark.parametrize("scheme", ["file", "memory", "http"])
def test_every_scheme_reads_the_same(tmp_path, serve, scheme, name):
    if name == "x.npy":
        np.save(tmp_path / name, np.asfortranarray(SMALL))
    else:
        (tmp_path / name).write_bytes(save({"x": SMALL}))
    url = {"file": f"file://{tmp_path}/{name}", "memory": f"memory://folder/{name}"}.get(
        scheme
    ) or f"{serve().url}/{name}"
    if scheme == "memory":
        fsspec.filesystem("memory").pipe(f"/folder/{name}", (tmp_path / name).read_bytes())
    ((found, array),) = read_arrays(url)
    assert found == "x"
    assert array.dtype == np.float32
    assert np.array_equal(array, SMALL)


def test_a_lone_array_is_read_when_it_is_asked_for_and_must_fit_in_memory(tmp_path, serve, monkeypatch):
    np.save(tmp_path / "x.npy", LARGE)
    server = serve()
    with open_checkpoint(f"{server.url}/x.npy") as checkpoint:
        assert checkpoint.shape("x") == (1000, 1000)
        assert server.sent < 2**21
        assert np.array_equal(checkpoint.tensor("x"), LARGE)
        monkeypatch.setattr("topobounds._memory.memory", lambda: 500.0)
        with pytest.raises(CheckpointError, match=r"x\.npy, tensor 'x', takes at least .* of memory"):
            checkpoint.tensor("x")


def test_urls_that_are_none(tmp_path):
    for url, problem in {
        "http://[::1/x.npz": "is no URL: Invalid IPv6 URL",
        "s3://": "names no file",
        "file://": "names no file",
    }.items():
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(url)
        assert str(caught.value).startswith(f"{url} {problem}")
    np.save(tmp_path / "x.npy", SMALL)
    assert open_checkpoint(f"FILE://{tmp_path}/x.npy").names == ("x",)


def test_a_scheme_whose_package_is_missing_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(CheckpointError, match=r"^s3://bucket/x\.npz could not be read: Install s3fs to access S3\.$"):
        open_checkpoint("s3://bucket/x.npz")


def test_a_folder_whose_name_has_a_dot_ends_in_a_slash(tmp_path, serve):
    (tmp_path / "model-2.5").mkdir()
    save_file({"a": SMALL}, tmp_path / "model-2.5" / "model.safetensors")
    assert open_checkpoint(f"{serve().url}/model-2.5/").names == ("a",)


def test_a_missing_file_and_a_dead_server(tmp_path, serve):
    server = serve()
    for url in (f"{server.url}/x.npz", f"{server.url}/x.safetensors", f"{server.url}/x.pt", "memory://absent/x.npz"):
        with pytest.raises(CheckpointError, match="could not be read: it is not there"):
            open_checkpoint(url)
    with pytest.raises(CheckpointError, match=r"http://127\.0\.0\.1:9/x\.npz could not be read: .*[Cc]onnect"):
        open_checkpoint("http://127.0.0.1:9/x.npz")
    with pytest.raises(CheckpointError, match=r"secret\.npz could not be read: its server answered 403, Forbidden\."):
        open_checkpoint(f"{server.url}/secret.npz")
    with pytest.raises(CheckpointError, match="could not be read: Protocol not known: nosuch"):
        open_checkpoint("nosuch://x.npz")


def test_damaged_files_are_named(tmp_path, serve):
    (tmp_path / "x.safetensors").write_bytes(save({"a": SMALL})[:-1])
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 and so on")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0\xff\xff{")
    url = serve().url
    for name in ("x.safetensors", "x.npz", "x.npy"):
        with pytest.raises(CheckpointError, match=f"{name}.* is damaged"):
            open_checkpoint(f"{url}/{name}")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(CheckpointError, match=r"needs fsspec, which is not installed: .*pip install -e '\.\[remote\]'"):
        open_checkpoint("http://127.0.0.1:9/x.npz")


def test_nothing_is_written_to_a_url(tmp_path, serve):
    write(tmp_path, "x.pt")
    checkpoint = open_checkpoint(f"{serve().url}/x.pt")
    with pytest.raises(CheckpointError, match="cannot be rewritten: it is not on this machine"):
        checkpoint.rewrite(tmp_path / "y.pt", lambda name, array: array)


def test_a_preview_reads_the_header_and_no_more(tmp_path, serve):
    write(tmp_path, "x.safetensors")
    server = serve()
    found = preview(f"{server.url}/x.safetensors", 0.1)
    assert [layer.name for layer in found.layers] == ["large", "small"]
    content = (tmp_path / "x.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert server.sent <= header + 64, "the first bytes may be asked for twice, to know the format"
