"""Malformed files of weights, made from a seed: every way in which a file can be cut, lie or try to do harm.

``python -m tests.checkpoint.malformed FOLDER`` writes them, opens each, and prints what is said of it, how long it took
and how much memory.
"""

import io
import json
import os
import pickle
import resource
import socket
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from tests.checkpoint.conftest import entry_points_of_the_project
from topobounds.checkpoint import CheckpointError, open_checkpoint, opening

RNG = np.random.default_rng(13)
FIRST = RNG.standard_normal((3, 4))
SECOND = RNG.standard_normal((4, 2))
ARRAYS = {"first": FIRST, "second": SECOND}
RAN = "a pickle was executed"


@dataclass(frozen=True)
class Case:
    """A malformed file.

    Attributes
    ----------
    name : str
        What is wrong with it.
    write : callable
        ``write(folder)`` writes it and returns its path.
    tensor : str or None
        The tensor that is to be named, where the damage is that of one.
    readable : tuple of str
        The tensors that can be read all the same.
    """

    name: str
    write: Callable[[Path], Path]
    tensor: str | None = None
    readable: tuple[str, ...] = ()


def problems(path: Path) -> tuple[list[str], list[str]]:
    """Open a file and read every tensor; return what is said of it, and the tensors that can be read."""
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError as error:
        return [str(error)], []
    messages, readable = [], []
    with checkpoint:
        for name in checkpoint.names:
            try:
                (checkpoint.shape(name), checkpoint.dtype(name))
                checkpoint.tensor(name)
                readable.append(name)
            except CheckpointError as error:
                messages.append(str(error))
    return messages, readable


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


# -- whole files, and cuts of them -------------------------------------------------------------------------------------


def npy(array: np.ndarray = FIRST) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)
    return stream.getvalue()


def torch_file(zipped: bool) -> bytes:
    stream = io.BytesIO()
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(tensors, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def cuts() -> list[Case]:
    """Return every format cut at each of its boundaries, and a byte before and after."""
    tensors = save(ARRAYS)
    header = 8 + int.from_bytes(tensors[:8], "little")
    array, archive, old, new = npy(), npz(), torch_file(False), torch_file(True)
    central, end = archive.index(b"PK\1\2"), archive.index(b"PK\5\6")
    torch_central = new.index(b"PK\1\2")
    places = {
        ("x.npy", array): [0, 5, 6, 8, 10, 64, 127, 128, 129, len(array) - 1],
        ("x.npz", archive): [0, 3, 4, 30, 40, 300, central - 1, central, central + 9, end, end + 9, len(archive) - 1],
        ("x.safetensors", tensors): [
            0,
            7,
            8,
            9,
            header - 1,
            header,
            header + 1,
            header + FIRST.nbytes,
            len(tensors) - 1,
        ],
        ("old.pt", old): [0, 1, 2, 14, 20, 40, 150, 300, len(old) - 200, len(old) - SECOND.nbytes, len(old) - 1],
        ("new.pt", new): [0, 4, 30, 100, len(new) // 2, torch_central, torch_central + 9, len(new) - 22, len(new) - 1],
    }
    return [
        Case(f"{name} cut at byte {place} of {len(content)}", written(name, content[:place]))
        for (name, content), several in places.items()
        for place in several
    ]


# -- safetensors -------------------------------------------------------------------------------------------------------


def packed(header: object, values: bytes = bytes(16), length: int | None = None) -> Callable[[Path], Path]:
    """Return how to write a .safetensors file with a header, a text or what JSON makes one of."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = (len(text) if length is None else length).to_bytes(8, "little")
    return written("x.safetensors", start + text + values)


def entry(dtype: object = "F64", shape: object = (2,), places: object = (0, 16)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


def safetensors_cases() -> list[Case]:
    good = json.dumps({"a": entry()}).encode()
    bad_entries = {
        "no dtype": {"shape": [2], "data_offsets": [0, 16]},
        "a number as dtype": entry(dtype=7),
        "an unknown dtype": entry(dtype="F99"),
        "a dtype of another length": entry(dtype="F32"),
        "no shape": {"dtype": "F64", "data_offsets": [0, 16]},
        "a negative shape": entry(shape=[-2]),
        "two negative axes": entry(shape=[-2, -1]),
        "a fractional shape": entry(shape=[2.0]),
        "a text as shape": entry(shape="2"),
        "a shape of booleans": entry(shape=[True, 2]),
        "a shape that overflows": entry(shape=[2**62, 2**62]),
        "a shape of 2**64": entry(shape=[2**64, 2]),
        "a shape of many axes": entry(shape=[1] * 100_000 + [2]),
        "a terabyte declared": entry(shape=[10**6, 10**6]),
        "a terabyte with its place": entry(shape=[10**6, 10**6], places=[0, 8 * 10**12]),
        "no place": {"dtype": "F64", "shape": [2]},
        "a negative place": entry(places=[-16, 0]),
        "a place that goes backwards": entry(places=[16, 0]),
        "a place of three numbers": entry(places=[0, 16, 16]),
        "a place of texts": entry(places=["0", "16"]),
        "a place beyond the end": entry(places=[16, 32]),
        "a place after a hole": entry(shape=[1], places=[8, 16]),
        "a list as entry": [],
        "null as entry": None,
    }
    cases = [Case(f"safetensors: {name}", packed({"bad": value}), "bad") for name, value in bad_entries.items()]
    overlapping = {"a": entry(), "bad": entry(places=[8, 24])}
    terminal = {"\x1b[31mred\r\n": entry(places=[8, 24])}
    return [
        *cases,
        Case("safetensors: overlapping tensors", packed(overlapping, bytes(24)), "bad"),
        Case("safetensors: a name of control characters", packed(terminal, bytes(24)), "\\x1b[31mred\\r\\n"),
        Case("safetensors: a name of half a character", packed(b'{"\\ud800": []}'), "\\ud800"),
        Case("safetensors: a very long name", packed({"a" * 10**6: []})),
        Case(
            "safetensors: a name that stands twice",
            packed(good[:-1] + b', "a": ' + json.dumps(entry()).encode() + b"}"),
        ),
        Case("safetensors: bytes that belong to nothing", packed({"a": entry()}, bytes(17))),
        Case("safetensors: metadata of numbers", packed({"__metadata__": {"a": 1}, "a": entry()})),
        Case("safetensors: metadata in a list", packed({"__metadata__": ["a"], "a": entry()})),
        Case("safetensors: a header that is a list", packed([1, 2])),
        Case("safetensors: a header that is no JSON", packed(b'{"a": ')),
        Case("safetensors: a header that is not UTF-8", packed(b'{"\xff\xfe": {}}')),
        Case("safetensors: a header nested deeply", packed(b'{"a":' * 200_000)),
        Case("safetensors: a header of 2**63 bytes", packed(good, length=2**63)),
        Case("safetensors: a header of 2**64 - 1 bytes", packed(good, length=2**64 - 1)),
        Case("safetensors: a header one byte too long", packed(good, b"", length=len(good) + 1)),
        Case("safetensors: no header", packed(b"", length=0)),
        Case("safetensors: millions of empty lists", packed(b'{"a":[' + b"[]," * 10**7 + b"0]}")),
    ]


# -- npy and npz -------------------------------------------------------------------------------------------------------


def with_header(text: str, values: bytes = bytes(32), version: bytes = b"\1\0") -> bytes:
    header = text.encode("latin1")
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version == b"\1\0" else 4, "little") + header + values


def described(descr: str = "'<f8'", order: str = "False", shape: str = "(4,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def npy_cases() -> list[Case]:
    contents = {
        "a shape that overflows": with_header(described(shape="(9223372036854775807, 9223372036854775807)")),
        "a shape of 2**80": with_header(described(shape=f"({2**80},)")),
        "a terabyte declared": with_header(described(shape="(1000000, 1000000)")),
        "a negative shape": with_header(described(shape="(-4,)")),
        "objects": npy(np.array([{"a": 1}], dtype=object)),
        "a pickle that would run code": npy(np.array([Payload()], dtype=object)),
        "a header that would run code": with_header("__import__('os').system('touch ran')\n"),
        "a header of nested brackets": with_header("(" * 9000),
        "a header of nested lists": with_header("[" * 5000 + "]" * 4000),
        "a header without a shape": with_header("{'descr': '<f8', 'fortran_order': False, }\n"),
        "an unknown dtype": with_header(described(descr="'<q9'")),
        "an unknown order": with_header(described(order="'no'")),
        "another version": with_header(described(), version=b"\x09\0"),
        "a header longer than numpy takes": with_header(described() + " " * 60_000),
        "a header longer than the file": with_header(described())[:8] + b"\xff\xff" + described().encode(),
        "a header of 4 GB": b"\x93NUMPY\2\0\xff\xff\xff\xff" + described().encode(),
    }
    return [Case(f"npy: {name}", written("x.npy", content)) for name, content in contents.items()]


class Payload:
    """An object that leaves a file in the current folder, and raises, when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open('ran', 'w').close(); raise SystemExit({RAN!r})",)


def archived(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def bomb(folder: Path) -> Path:
    """Write an archive of 300 KB whose only array is one of 300 MB of zeros."""
    side = 6200
    header = npy(np.zeros((1, 1)))[:128].replace(b"(1, 1), }      ", f"({side}, {side}), }}".encode().ljust(15))
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("bad.npy", "w", force_zip64=True) as member:
            member.write(header)
            for _ in range(side):
                member.write(bytes(8 * side))
        archive.writestr("good.npy", npy())
    return folder / "bomb.npz"


def npz_cases() -> list[Case]:
    members = (("bad.npy", npy(SECOND)), ("good.npy", npy()))
    whole = archived(*members)
    entry_at = whole.index(b"PK\1\2")
    value_at = whole.index(npy(SECOND)) + 140
    deflated = archived(*members, method=zipfile.ZIP_DEFLATED)

    def patched(content: bytes, place: int, new: bytes) -> bytes:
        return content[:place] + new + content[place + len(new) :]

    good = ("good",)
    huge = (10**9).to_bytes(4, "little")
    return [
        Case("npz: a value altered", written("x.npz", patched(whole, value_at, b"\x99\x98")), "bad", good),
        Case("npz: another checksum", written("x.npz", patched(whole, entry_at + 16, bytes(4))), "bad", good),
        Case(
            "npz: a gigabyte declared by the table", written("x.npz", patched(whole, entry_at + 24, huge)), "bad", good
        ),
        Case("npz: an unknown compression", written("x.npz", patched(whole, entry_at + 10, b"\x63")), "bad", good),
        Case("npz: an encrypted member", written("x.npz", patched(whole, entry_at + 8, b"\1")), "bad", good),
        Case("npz: a member that lies elsewhere", written("x.npz", patched(whole, entry_at + 42, huge)), "bad", good),
        Case("npz: two members in one place", written("x.npz", two_in_one_place(whole)), "bad"),
        Case("npz: a damaged deflate stream", written("x.npz", patched(deflated, 45, b"\xff" * 8)), "bad", good),
        Case(
            "npz: a member that is no array",
            written("x.npz", archived(("bad.txt", b"text"), members[1])),
            "bad.txt",
            good,
        ),
        Case("npz: a cut member", written("x.npz", archived(("bad.npy", npy()[:-1]), members[1])), "bad", good),
        Case(
            "npz: a member with bytes too many",
            written("x.npz", archived(("bad.npy", npy() + bytes(70_000)), members[1])),
            "bad",
            good,
        ),
        Case("npz: an empty member", written("x.npz", archived(("bad.npy", b""), members[1])), "bad", good),
        Case(
            "npz: objects",
            written("x.npz", archived(("bad.npy", npy(np.array([Payload()], object))), members[1])),
            "bad",
            good,
        ),
        Case(
            "npz: a member that declares a terabyte",
            written("x.npz", archived(("bad.npy", with_header(described(shape="(1000000, 1000000)"))), members[1])),
            "bad",
            good,
        ),
        Case(
            "npz: a name of control characters",
            written("x.npz", archived(("\x1b[2J\n.npy", b"no"), members[1])),
            "\\x1b[2J\\n",
            good,
        ),
        Case("npz: a bomb of zeros", bomb, "bad", good),
        Case(
            "npz: a header of 100 MB of spaces",
            written(
                "x.npz",
                archived(
                    ("bad.npy", b"\x93NUMPY\2\0" + (10**8).to_bytes(4, "little") + b" " * 10**8),
                    members[1],
                    method=zipfile.ZIP_DEFLATED,
                ),
            ),
            "bad",
            good,
        ),
        Case(
            "npz: a damaged lzma stream",
            written("x.npz", patched(archived(*members, method=zipfile.ZIP_LZMA), 52, b"\xff" * 8)),
            "bad",
            good,
        ),
        Case("npz: two members of one name", written("x.npz", archived(("bad", npy()), ("bad.npy", npy())))),
        Case(
            "npz: a mask without a header",
            written("x.npz", archived(("w_orig.npy", npy()), ("w_mask.npy", npy()[:40]), members[1])),
            "w_mask",
            good,
        ),
        Case("npz: an archive in an archive", written("x.npz", archived(("inner.npz", npz()))), "inner.npz"),
    ]


def two_in_one_place(whole: bytes) -> bytes:
    """Return an archive whose table says of both members that they lie where the second does."""
    first = whole.index(b"PK\1\2")
    second = whole.index(b"PK\1\2", first + 4)
    return whole[: first + 42] + whole[second + 42 : second + 46] + whole[first + 46 :]


# -- torch -------------------------------------------------------------------------------------------------------------


@dataclass
class Storage:
    """What a pickle of torch refers to as the memory of a tensor."""

    numel: object = 12
    key: str = "1"
    kind: object = torch.DoubleStorage


class Tensor:
    """A tensor of any memory, offset, shape and strides, right or wrong."""

    def __init__(self, storage=None, offset=0, shape=(3, 4), stride=(4, 1)):
        self.parts = (storage or Storage(), offset, shape, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.parts


class Pickler(pickle.Pickler):
    def persistent_id(self, each):
        return ("storage", each.kind, each.key, "cpu", each.numel) if isinstance(each, Storage) else None


def pickled(content: object) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(content)
    return stream.getvalue()


def torch_archive(content: object) -> bytes:
    """Return a file of torch with a pickle and two records, which both hold `FIRST`."""
    pickle_bytes = content if isinstance(content, bytes) else pickled(content)
    records = {"0": FIRST.tobytes(), "1": FIRST.tobytes()}
    members = [(f"x/data/{key}", value) for key, value in records.items()]
    return archived(("x/data.pkl", pickle_bytes), ("x/byteorder", b"little"), ("x/version", b"3\n"), *members)


def torch_cases() -> list[Case]:
    good = Tensor(Storage(12, "0"))
    alone = {
        "more values than its memory": Tensor(shape=(3, 5), stride=(5, 1)),
        "a terabyte in a few bytes": Tensor(shape=(10**6, 10**6), stride=(10**6, 1)),
        "a terabyte by strides of 0": Tensor(shape=(10**6, 10**6), stride=(0, 0)),
        "an offset beyond its memory": Tensor(offset=10**6),
        "a negative offset": Tensor(offset=-4),
        "a negative stride": Tensor(stride=(-4, 1)),
        "a negative shape": Tensor(shape=(-3, 4)),
        "a shape that overflows": Tensor(shape=(2**62, 2**62), stride=(1, 1)),
        "a shape of texts": Tensor(shape=("3", "4")),
        "a memory of 2**60 values": Tensor(Storage(2**60)),
        "a memory of -1 values": Tensor(Storage(-1)),
        "a memory of half its record": Tensor(Storage(6), shape=(2, 3), stride=(3, 1)),
        "a memory of another type": Tensor(Storage(12, kind=torch.FloatStorage), shape=(3, 4)),
        "a memory that is not there": Tensor(Storage(12, "7")),
        "a memory outside the archive": Tensor(Storage(12, "../../etc/passwd")),
    }
    cases = [
        Case(f"torch: {name}", written("x.pt", torch_archive({"good": good, "bad": bad})))
        for name, bad in alone.items()
    ]
    itself: dict[str, object] = {}
    itself["self"] = itself
    legacy = torch_file(False)
    contents = {
        "a pickle that would run code": torch_archive({"good": good, "bad": Payload()}),
        "a legacy pickle that would run code": legacy[:150] + pickle.dumps(Payload()) + legacy[150:],
        "a plain pickle that would run code": pickle.dumps(Payload(), 4),
        "an old pickle that would run code": pickle.dumps(Payload(), 0),
        "a module": saved(torch.nn.Linear(2, 2)),
        "a mapping of itself": torch_archive(itself),
        "a pickle of a gigabyte of zeros": torch_archive(b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R."),
        "a cut pickle": torch_archive(pickled({"good": good})[:-20]),
        "an empty pickle": torch_archive(b""),
        "a pickle of noise": torch_archive(RNG.bytes(300)),
        "a pickle of an unknown code": torch_archive(b"\x80\x02\xff."),
        "a text that is longer than the pickle": torch_archive(b"\x80\x02X\xff\xff\xff\x7fabc."),
        "a memo that is not there": torch_archive(b"\x80\x02h\x07."),
        "a deeply nested pickle": torch_archive(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."),
        "a byte order of noise": archived(
            ("x/data.pkl", pickled({"a": good})),
            ("x/byteorder", b"\xff"),
            ("x/version", b"3"),
            ("x/data/0", FIRST.tobytes()),
        ),
        "a TorchScript archive": archived(("x/data.pkl", b"."), ("x/constants.pkl", b"."), ("x/code/x.py", b"1/0")),
        "a program of torch.export": archived(("x/archive_format", b"pt2"), ("x/models/model.json", b"{}")),
        "compressed records": archived(
            ("x/data.pkl", pickled({"a": good})),
            ("x/version", b"3"),
            ("x/data/0", FIRST.tobytes()),
            method=zipfile.ZIP_DEFLATED,
        ),
        "no tensors": saved({"epoch": 3}),
        "text": b"these are no weights",
    }
    cases += [Case(f"torch: {name}", written("x.pt", content)) for name, content in contents.items()]
    return cases


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


# -- folders, indices and what is no file ------------------------------------------------------------------------------


def sharded(weight_map: object, *, text: bytes | None = None, shard: bytes | None = None, prepare=None):
    """Return how to write a folder of two shards, with an index that may lie."""

    def write(folder: Path) -> Path:
        model = folder / "model"
        model.mkdir()
        (model / "a-1.safetensors").write_bytes(save({"first": FIRST}) if shard is None else shard)
        (model / "a-2.safetensors").write_bytes(save({"second": SECOND}))
        index = json.dumps({"weight_map": weight_map}).encode() if text is None else text
        (model / "model.safetensors.index.json").write_bytes(index)
        if prepare is not None:
            prepare(model)
        return model

    return write


def index_cases() -> list[Case]:
    right = {"first": "a-1.safetensors", "second": "a-2.safetensors"}

    def fifo(model: Path) -> None:
        (model / "a-1.safetensors").unlink()
        os.mkfifo(model / "a-1.safetensors")

    def directory(model: Path) -> None:
        (model / "a-1.safetensors").unlink()
        (model / "a-1.safetensors").mkdir()

    def fifo_index(model: Path) -> None:
        (model / "model.safetensors.index.json").unlink()
        os.mkfifo(model / "model.safetensors.index.json")

    return [
        Case("index: empty", sharded(right, text=b"")),
        Case("index: cut", sharded(right, text=json.dumps({"weight_map": right}).encode()[:-5])),
        Case("index: not UTF-8", sharded(right, text=b'{"weight_map": {"\xff": "a-1.safetensors"}}')),
        Case("index: nested deeply", sharded(right, text=b'{"a":' * 200_000)),
        Case("index: a list", sharded(right, text=b"[]")),
        Case("index: no weight_map", sharded(right, text=b"{}")),
        Case("index: an empty weight_map", sharded({})),
        Case("index: a list as weight_map", sharded(["first"])),
        Case(
            "index: a tensor named twice",
            sharded(right, text=b'{"weight_map": {"first": "a-1.safetensors", "first": "a-2.safetensors"}}'),
        ),
        Case("index: a shard that is not there", sharded({**right, "first": "a-9.safetensors"})),
        Case("index: a tensor that is not there", sharded({**right, "ghost": "a-1.safetensors"}), "ghost"),
        Case("index: a tensor in the wrong shard", sharded({**right, "first": "a-2.safetensors"}), "first"),
        Case("index: a way out of the folder", sharded({**right, "first": "../../etc/passwd.safetensors"}), "first"),
        Case("index: an absolute path", sharded({**right, "first": "/etc/passwd.safetensors"}), "first"),
        Case("index: a number as shard", sharded({**right, "first": 1}), "first"),
        Case("index: itself as shard", sharded({**right, "first": "model.safetensors.index.json"}), "first"),
        Case("index: a shard name with a zero byte", sharded({**right, "first": "a\0.safetensors"}), "first"),
        Case("index: a shard name of control characters", sharded({**right, "first": "\x1b[2J.safetensors"})),
        Case("index: a very long shard name", sharded({**right, "first": "a" * 5000 + ".safetensors"})),
        Case("index: a cut shard", sharded(right, shard=save({"first": FIRST})[:-1]), "first"),
        Case("index: an empty shard", sharded(right, shard=b"")),
        Case(
            "index: a pointer of Git LFS as shard",
            sharded(right, shard=b"version https://git-lfs.github.com/spec/v1\n"),
        ),
        Case("index: millions of empty lists", sharded(right, text=b'{"a":[' + b"[]," * 10**7 + b"0]}")),
        Case("index: a shard that is a pipe", sharded(right, prepare=fifo)),
        Case("index: a shard that is a folder", sharded(right, prepare=directory)),
        Case("index: a pipe", sharded(right, prepare=fifo_index)),
    ]


def no_file_cases() -> list[Case]:
    def fifo(name: str) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            os.mkfifo(folder / name)
            return folder / name

        return write

    def folder_called(name: str) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            (folder / name).mkdir()
            return folder / name

        return write

    def link(name: str, target: str) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            (folder / name).symlink_to(target)
            return folder / name

        return write

    def plug(folder: Path) -> Path:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.path.relpath(folder / "x.npy"))
        return folder / "x.npy"

    suffixes = (".npy", ".npz", ".safetensors", ".pt")
    return [
        *(Case(f"a pipe called {suffix}", fifo(f"x{suffix}")) for suffix in suffixes),
        *(Case(f"a folder called {suffix}", folder_called(f"x{suffix}")) for suffix in suffixes),
        *(Case(f"an endless device called {suffix}", link(f"x{suffix}", "/dev/zero")) for suffix in suffixes),
        Case("an empty device", link("x.npy", "/dev/null")),
        Case("a socket", plug),
        Case("a link to nothing", link("x.npz", "nowhere.npz")),
        Case("a link to itself", link("x.npz", "x.npz")),
        Case("a file that is not there", lambda folder: folder / "absent.npz"),
        Case("a name that is not UTF-8", written(os.fsdecode(b"\xff\xfe.npz"), npz()[:-9])),
        Case("a name of control characters", written("\x1b[31m\n.npy", npy()[:-1])),
        Case("an empty file without a suffix", written("weights", b"")),
        Case(
            "a pointer of Git LFS",
            written("x.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        ),
        Case("a web page", written("x.safetensors", b"<!DOCTYPE html><html></html>")),
    ]


# -- GGUF --------------------------------------------------------------------------------------------------------------


def text(content: bytes | str, length: int | None = None) -> bytes:
    """Return a text of a GGUF file, perhaps under another length."""
    content = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(content) if length is None else length) + content


def gguf_tensor(name: bytes | str = "bad", shape: tuple[int, ...] = (64, 2), kind: int = 8, first: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, first)


def gguf_file(
    *tensors: bytes,
    settings: tuple[bytes, ...] = (),
    version: int = 3,
    counts: tuple[int, int] | None = None,
    values: bytes = bytes(256),
) -> bytes:
    """Return a GGUF file; a tensor of 2 x 64 in Q8_0 blocks takes 136 bytes."""
    n_tensors, n_settings = counts or (len(tensors), len(settings))
    header = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_settings) + b"".join((*settings, *tensors))
    return header + bytes(-len(header) % 32) + values


def gguf_cases() -> list[Case]:
    good = gguf_file(gguf_tensor("good"), settings=(text("key") + struct.pack("<I", 8) + text("value"),))
    arrays = text("key") + struct.pack("<I", 9) * 2 + struct.pack("<Q", 1)
    nested = text("key") + struct.pack("<I", 9) + (struct.pack("<I", 9) + struct.pack("<Q", 1)) * 10_000
    wide = text("key") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 100) + struct.pack("<IQ", 8, 2**60)
    bad = {
        "an old version": gguf_file(version=1),
        "a version to come": gguf_file(version=4),
        "the other order of bytes": gguf_file(version=3 << 24),
        "2**63 tensors": gguf_file(counts=(2**63, 0)),
        "2**63 settings": gguf_file(counts=(0, 2**63)),
        "a million tensors that are not there": gguf_file(counts=(10**6, 0), values=bytes(4096)),
        "a name of 2**60 bytes": gguf_file(text(b"", 2**60), counts=(1, 0)),
        "a name that is no text": gguf_file(gguf_tensor(b"\xff\xfe")),
        "the same name twice": gguf_file(gguf_tensor(), gguf_tensor()),
        "a tensor of 2**31 axes": gguf_file(text("bad") + struct.pack("<I", 2**31), counts=(1, 0)),
        "a setting of an unknown type": gguf_file(settings=(text("key") + struct.pack("<I", 77),)),
        "a setting of 2**62 numbers": gguf_file(settings=(text("key") + struct.pack("<IIQ", 9, 10, 2**62),)),
        "a setting of 2**62 texts": gguf_file(settings=(text("key") + struct.pack("<IIQ", 9, 8, 2**62),)),
        "a setting of endless arrays": gguf_file(settings=(arrays * 50,)),
        "a setting of nested arrays": gguf_file(settings=(nested,)),
        "a setting of lying arrays": gguf_file(settings=(wide,)),
        "an alignment of 0": gguf_file(settings=(text("general.alignment") + struct.pack("<II", 4, 0),)),
        "an alignment of 2**31": gguf_file(settings=(text("general.alignment") + struct.pack("<II", 4, 2**31),)),
        "an alignment that is a text": gguf_file(
            gguf_tensor(first=7), settings=(text("general.alignment") + struct.pack("<I", 8) + text("32"),)
        ),
    }
    of_tensor = {
        "a terabyte declared": gguf_tensor(shape=(2**20, 2**20)),
        "a shape that overflows": gguf_tensor(shape=(2**62, 2**62)),
        "a place beyond the end": gguf_tensor(first=2**40),
        "a place of 2**63": gguf_tensor(first=2**63),
        "a place that is not aligned": gguf_tensor(first=8),
        "values that are cut": gguf_tensor(shape=(64, 4)),
    }
    places = [0, 3, 4, 7, 8, 15, 23, 24, 31, 40, 60, 70, 100, len(good) - 256, len(good) - 121]
    return [
        *(Case(f"GGUF: {name}", written("x.gguf", content)) for name, content in bad.items()),
        *(Case(f"GGUF: {name}", written("x.gguf", gguf_file(each)), "bad") for name, each in of_tensor.items()),
        *(Case(f"x.gguf cut at byte {place}", written("x.gguf", good[:place])) for place in places),
    ]


# -- ONNX --------------------------------------------------------------------------------------------------------------


def field(number: int, content: bytes | int) -> bytes:
    """Return a field of a protobuf message: a message, a text, or a number that is not negative."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def onnx_tensor(
    shape: tuple[int, ...] = (2, 2),
    kind: int = 1,
    raw: bytes | None = bytes(16),
    external: dict[str, str] | None = None,
    name: bytes = b"bad",
) -> bytes:
    dims = b"".join(field(1, size % 2**64) for size in shape)
    values = b"" if raw is None else field(9, raw)
    said = (field(1, key.encode()) + field(2, value.encode()) for key, value in (external or {}).items())
    beside = b"".join(field(13, each) for each in said) + (field(14, 1) if external is not None else b"")
    return dims + field(2, kind) + field(8, name) + values + beside


def onnx_file(*tensors: bytes, nodes: tuple[bytes, ...] = ()) -> bytes:
    graph = b"".join(field(1, node) for node in nodes) + field(2, b"g") + b"".join(field(5, each) for each in tensors)
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 17))


def onnx_node(operator: bytes, *inputs: bytes, attributes: tuple[bytes, ...] = ()) -> bytes:
    read = b"".join(field(1, name) for name in inputs)
    return read + field(2, b"y") + field(4, operator) + b"".join(field(5, each) for each in attributes)


def onnx_cases() -> list[Case]:
    good = onnx_file(onnx_tensor())
    nested = field(2, b"g")
    for _ in range(500):
        nested = field(1, onnx_node(b"If", attributes=(field(1, b"then") + field(6, nested) + field(20, 5),)))
    whole = {
        "no graph": field(1, 8),
        "nothing but bytes": bytes(range(256)),
        "graphs in graphs": field(1, 8) + field(7, nested),
        "a tensor without a name": onnx_file(onnx_tensor(name=b"")),
        "a name that is no text": onnx_file(onnx_tensor(name=b"\xff\xfe")),
        "a length beyond the end": good[:-20] + b"\xff\xff\xff\xff\x0f",
    }
    of_tensor = {
        "too few bytes": onnx_tensor(raw=bytes(12)),
        "too many bytes": onnx_tensor(raw=bytes(20)),
        "no values": onnx_tensor(raw=None),
        "a negative shape": onnx_tensor((-2, -2)),
        "a terabyte declared": onnx_tensor((2**19, 2**19)),
        "a shape that overflows": onnx_tensor((2**40, 2**40)),
        "values in a file outside": onnx_tensor(raw=None, external={"location": "../x.bin"}),
        "values in a file of the system": onnx_tensor(raw=None, external={"location": "/etc/passwd"}),
        "values in a file that is missing": onnx_tensor(raw=None, external={"location": "y.bin"}),
        "values in no file": onnx_tensor(raw=None, external={"offset": "0"}),
        "values at no number": onnx_tensor(raw=None, external={"location": "x.onnx", "offset": "many"}),
        "values before the file": onnx_tensor(raw=None, external={"location": "x.onnx", "offset": "-16"}),
        "values beyond the file": onnx_tensor(raw=None, external={"location": "x.onnx", "offset": "4096"}),
        "values of another length": onnx_tensor(raw=None, external={"location": "x.onnx", "length": "8"}),
        "a terabyte elsewhere": onnx_tensor((2**19, 2**19), raw=None, external={"location": "x.onnx"}),
    }
    places = [0, 1, 2, 3, 5, len(good) // 2, len(good) - 6, len(good) - 1]
    return [
        *(Case(f"ONNX: {name}", written("x.onnx", content)) for name, content in whole.items()),
        *(Case(f"ONNX: {name}", written("x.onnx", onnx_file(each)), "bad") for name, each in of_tensor.items()),
        *(Case(f"x.onnx cut at byte {place}", written("x.onnx", good[:place])) for place in places),
    ]


CASES = [
    *cuts(),
    *safetensors_cases(),
    *npy_cases(),
    *npz_cases(),
    *torch_cases(),
    *index_cases(),
    *gguf_cases(),
    *onnx_cases(),
    *no_file_cases(),
]


def measure(folder: Path) -> None:
    """Open every case; print what is said of it, the seconds, and the megabytes that the peak of memory rose by."""
    opening.entry_points = entry_points_of_the_project
    problems(written("first.pt", saved({"a": torch.ones(1)}))(folder))  # what is imported with the first file
    for number, case in enumerate(CASES):
        place = folder / str(number)
        place.mkdir()
        path = case.write(place)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        messages, _ = problems(path)
        seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{seconds:.2f} s, {(after - before) / 1024:.0f} MB\t{case.name}\t{' | '.join(messages)}")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
