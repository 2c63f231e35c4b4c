"""Uses topobounds as installed with one extra: ``python -I tests/extra_install.py EXTRA`` in a clean environment."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WEIGHTS = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
LOADED = {"torch": "torch", "remote": "fsspec", "gguf": "gguf", "onnx": "onnx"}
LOADED |= {"page": "jinja2", "scheduler": "distributed", "frames": "pyarrow"}
CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


def run(*arguments):
    command = [str(Path(sys.executable).with_name("topobounds")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def alpha_of(path):
    """Return the edges of the forest that a report has of a file's only layer."""
    (layer,) = json.loads(run("analyze", path, "--seed", 1, "--json"))["layers"]
    return layer["alpha"]


def plain(folder):
    path = folder / "w.safetensors"
    save_file({"a.weight": WEIGHTS}, path)
    return path


def use_torch(folder):
    torch = import_module("torch")
    torch.save({"a.weight": torch.from_numpy(WEIGHTS)}, folder / "w.pt")
    assert alpha_of(folder / "w.pt") == 49
    torch.manual_seed(0)
    report = import_module("torch_bridge").analyze(torch.nn.Linear(6, 5), seed=0)
    assert [layer.alpha for layer in report.layers] == [10]


class Ranges(SimpleHTTPRequestHandler):
    """Serves the range that is asked for, which the standard library's does not."""

    def send_head(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        first, last = 0, len(content) - 1
        if asked:
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop) if stop else last, last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[first : last + 1])

    def do_GET(self):
        self.send_head()

    def log_message(self, *_):
        pass


def use_remote(folder):
    plain(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert alpha_of(f"http://127.0.0.1:{server.server_port}/w.safetensors") == 49
    server.shutdown()


def use_gguf(folder):
    writer = import_module("gguf").GGUFWriter(folder / "w.gguf", "llama")
    writer.add_tensor("a.weight", WEIGHTS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert alpha_of(folder / "w.gguf") == 49


def use_onnx(folder):
    onnx = import_module("onnx")
    helper, kind = import_module("onnx.helper"), onnx.TensorProto.FLOAT
    sides = [helper.make_tensor_value_info(name, kind, [1, size]) for name, size in (("x", 30), ("y", 20))]
    weights = import_module("onnx.numpy_helper").from_array(WEIGHTS, "a.weight")
    node = helper.make_node("MatMul", ["x", "a.weight"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", sides[:1], sides[1:], [weights])), folder / "w.onnx")
    assert alpha_of(folder / "w.onnx") == 49


def use_page(folder):
    run("analyze", plain(folder), "--seed", 1, "--html", folder / "page.html")
    assert "a.weight" in (folder / "page.html").read_text(encoding="utf-8")


def use_frames(folder):
    run("analyze", plain(folder), "--seed", 1, "--parquet", folder / "rows.parquet")
    assert import_module("pyarrow.parquet").read_table(folder / "rows.parquet").num_rows == 1


def use_scheduler(folder):
    (folder / "cluster.py").write_text(CLUSTER)
    command = [sys.executable, "-I", str(folder / "cluster.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        try:
            address = cluster.stdout.readline().strip()
            printed = run("analyze", plain(folder), "--seed", 1, "--json", "--scheduler", address)
            assert json.loads(printed)["layers"][0]["alpha"] == 49
        finally:
            with contextlib.suppress(BrokenPipeError):
                cluster.communicate("\n", timeout=60)


USES = {"torch": use_torch, "remote": use_remote, "gguf": use_gguf, "onnx": use_onnx}
USES |= {"page": use_page, "frames": use_frames, "scheduler": use_scheduler}

if __name__ == "__main__":
    extra = sys.argv[1]
    import topobounds

    assert Path(topobounds.__file__).resolve().is_relative_to(Path(sys.prefix).resolve())
    assert LOADED[extra] not in sys.modules, f"importing topobounds loads {LOADED[extra]}"
    with tempfile.TemporaryDirectory() as name:
        USES[extra](Path(name))
    print(f"{extra}: works")
