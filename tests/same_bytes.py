"""Write what every part of topobounds returns for fixed inputs, so that two states of the code can be compared.

    python tests/same_bytes.py BEFORE
    python tests/same_bytes.py AFTER
    diff -r BEFORE AFTER

Each result is a file of its own: a value as JSON, a file that is written as its SHA-256, a command as its exit status,
stdout and stderr. Only public names and the command line are used, of the tree this script lies in. Both runs need the
same machine, packages and TMPDIR.

This is taken out of every text, and of every text file before it is hashed:

- the name of the temporary folder in which all of it happens (written as TEMPORARY),
- times: the number after `"seconds":` in the JSON of commands that train or draw (written as null),
- versions: the number after `"topobounds":` in the JSON files of figures (written as null).

Files whose names begin with a dot (the locks of run folders, which are empty or name a process) are left out. Dates,
hosts and other paths are in no result. The device is the processor, even where there is a GPU.
"""

import dataclasses
import hashlib
import importlib
import io
import itertools
import json
import math
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import matplotlib as mpl
import ml_dtypes
import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils import prune

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import topobounds as tb
import torch_bridge as bridge

ROOT = Path(__file__).resolve().parents[1]
STRIPPED = [(r'"seconds": [0-9.e+-]+', '"seconds": null'), (r'"topobounds": "[^"]*"', '"topobounds": null')]
TEXT_FILES = {".csv", ".json", ".jsonl", ".md", ".tex", ".toml", ".txt"}
SHOWN = 400  # entries of an array; the others are in its hash


# results as text


def stripped(text):
    text = text.replace(tempfile.gettempdir(), "TEMPORARY")
    for pattern, replacement in STRIPPED:
        text = re.sub(pattern, replacement, text)
    return text


def plain(value):
    """Return a value as what JSON can hold; arrays with their type, and with the hash of their bytes if large."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    for kind, convert in CONVERTED.items():
        if isinstance(value, kind):
            return convert(value)
    if dataclasses.is_dataclass(value):
        return attributes(value, *[field.name for field in dataclasses.fields(value) if field.name[0] != "_"])
    return str(value)


def plain_array(array):
    described = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size > SHOWN:
        return described | {"sha256": hashlib.sha256(array.tobytes()).hexdigest()}
    numbers = array if array.dtype.kind in "biuf" else array.astype(np.float64)
    return described | {"values": numbers.tolist()}


CONVERTED = {
    (str, int, float, types.NoneType): lambda value: value,
    dict: lambda value: {str(key): plain(each) for key, each in value.items()},
    (list, tuple): lambda value: [plain(each) for each in value],
    np.ndarray: plain_array,
    np.generic: lambda value: value.item(),
    torch.Tensor: lambda value: plain_array(value.detach().numpy()),
}


def attributes(record, *names):
    """Return what a record holds under these names: arrays with their types, and what `to_dict` leaves out."""
    return {name: plain(getattr(record, name)) for name in names}


def files_in(folder):
    """Return the SHA-256 of every file in a folder by its name."""
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(folder)): file_hash(file) for file in files}


def file_hash(file):
    content = file.read_bytes()
    if file.suffix in TEXT_FILES:
        content = stripped(content.decode()).encode()
    return hashlib.sha256(content).hexdigest()


def result_text(call):
    """Return what a call returns, or how it fails, as text."""
    try:
        value = call()
    except Exception as error:
        value = f"{type(error).__name__}: {error}"
    return stripped(value if isinstance(value, str) else json.dumps(plain(value), indent=1)) + "\n"


def function_named(name):
    """Return a function that topobounds has, but not under its own name: whichever module defines it now."""
    for module in pkgutil.walk_packages(tb.__path__, "topobounds."):
        if not module.name.endswith("__main__"):
            value = getattr(importlib.import_module(module.name), name, None)
            if isinstance(value, types.FunctionType) and value.__module__ == module.name:
                return value
    raise LookupError(f"No module of topobounds defines a function {name}.")


# inputs


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def size(weights):
    return math.prod(np.shape(weights))


def sparse(*shape, density, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * (rng.random(shape) < density)


def matrices():
    rng = np.random.default_rng(1)
    return {
        "one": np.array([[-2.0]]),
        "row": normal(1, 9),
        "column": normal(9, 1),
        "normal": normal(30, 20),
        "wide": normal(7, 40),
        "ties": rng.integers(-3, 4, (12, 10)).astype(float),
        "all-equal": np.ones((6, 5)),
        "all-zero": np.zeros((4, 3)),
        "sparse": sparse(15, 12, density=0.3),
        "disconnected": np.kron(np.eye(3), np.abs(normal(4, 3)) + 0.1),
        "negative-zeros": np.where(sparse(8, 8, density=0.5) == 0, -0.0, normal(8, 8)),
        "subnormal": normal(6, 6) * 1e-310,
        "fortran": np.asfortranarray(normal(20, 25)),
        "strided": normal(40, 50)[::2, ::-3],
        "list": [[3.0, 2.0], [2.5, 1.0]],
        "tensor": torch.from_numpy(normal(9, 8)),
        "float16": normal(20, 15).astype(np.float16),
        "float32": normal(20, 15).astype(np.float32),
        "bfloat16": normal(20, 15).astype(ml_dtypes.bfloat16),
        "float8": normal(20, 15).astype(ml_dtypes.float8_e4m3fn),
        "int8": rng.integers(-128, 128, (20, 15)).astype(np.int8),
        "uint8": rng.integers(0, 256, (20, 15)).astype(np.uint8),
        "int64": rng.integers(-(10**6), 10**6, (9, 7)),
        "bool": rng.random((9, 7)) < 0.5,
        "middle": normal(300, 200).astype(np.float32),
        "large": normal(2500, 2000).astype(np.float32),
        "large-ties": rng.integers(-9, 10, (800, 1000)).astype(np.int8),
        "large-sparse": sparse(900, 1100, density=0.01),
    }


def convolutions():
    return {
        "1d": tb.Conv(3, 8, 5, 40, stride=2, padding=2),
        "2d": tb.Conv(4, 6, (3, 3), (8, 8), padding=1),
        "2d-same": tb.Conv(2, 3, (2, 4), (9, 7), padding="same"),
        "2d-dilated-groups": tb.Conv(4, 8, (3, 3), (12, 10), dilation=2, groups=2),
        "2d-depthwise": tb.Conv(5, 5, (3, 3), (7, 7), padding=1, groups=5),
        "2d-disconnected": tb.Conv(1, 1, (1, 1), (4, 4), stride=2),
        "2d-circular": tb.Conv(2, 2, (3, 3), (4, 5), padding=1, padding_mode="circular"),
        "2d-reflect": tb.Conv(2, 2, (3, 3), (4, 5), padding=1, padding_mode="reflect"),
        "2d-replicate": tb.Conv(2, 2, (3, 3), (4, 5), padding=1, padding_mode="replicate"),
        "2d-one-sided": tb.Conv(2, 2, (3, 2), (6, 6), stride=2, padding=(1, 0), padding_end=(0, 1)),
        "2d-transposed": tb.Conv(4, 3, (4, 4), (5, 5), stride=2, padding=1, transposed=True),
        "1d-transposed": tb.Conv(2, 3, 3, 6, stride=3, output_padding=1, transposed=True),
        "3d": tb.Conv(2, 3, (3, 3, 3), (6, 5, 4), padding=1),
    }


SHAPES = [(1, 1), (1, 9), (2, 3), (4, 4), (7, 40), (33, 100), (784, 300), (4096, 14336)]


# groups of calls: name -> function without arguments


def forests():
    cases = itertools.product(matrices().items(), ("absent", "edge"))
    calls = {f"{name}-{zeros}": partial(forest, weights, zeros=zeros) for (name, weights), zeros in cases}
    mask = np.random.default_rng(2).random((30, 20)) < 0.4
    calls["masked"] = lambda: forest(normal(30, 20), mask)
    calls["masked-edge"] = lambda: forest(np.round(normal(30, 20)), mask, zeros="edge")
    calls["magnitude-overlap"] = lambda: [
        tb.magnitude_overlap(normal(30, 20), k, mask) for k in (None, 0, 10, 49, 100, 600)
    ]
    return calls


def forest(weights, mask=None, **options):
    made = tb.maximum_spanning_forest(weights, mask, **options)
    ks = [0, 1, made.alpha, min(2 * made.alpha, size(weights)), size(weights)]
    names = ("rows", "cols", "weights", "shape", "zeros", "alpha", "n_components", "critical_rank", "ranks")
    return attributes(made, *names) | {
        "to_dict": hashlib.sha256(json.dumps(made.to_dict()).encode()).hexdigest(),
        "overlap": [made.overlap(), *map(made.overlap, ks)],
        "retention": plain(made.retention(ks)),
    }


def persistence():
    cases = itertools.product(matrices().items(), ("absent", "edge"), ("kruskal", "gudhi"))
    calls = {
        f"diagram-{name}-{zeros}-{backend}": partial(diagram, weights, zeros=zeros, backend=backend)
        for (name, weights), zeros, backend in cases
        if size(weights) < 10**5
    }
    calls["diagram-masked"] = lambda: diagram(normal(8, 9), np.eye(8, 9, dtype=bool))
    for name, weights in matrices().items():
        calls[f"neural-{name}"] = partial(neural_persistences, weights)
    layers = [normal(6, 4), sparse(9, 9, density=0.2), np.zeros((3, 3))]
    calls["total"] = lambda: [tb.total_neural_persistence(layers, normalized=each) for each in (False, True)]
    return calls


def diagram(weights, mask=None, **options):
    made = tb.persistence_diagram(weights, mask, **options)
    names = ("births", "deaths", "edges", "n_essential", "shape", "alpha", "w_max", "backend")
    return attributes(made, *names) | {
        "to_dict": made.to_dict(),
        "betti": plain(made.betti_curve([1.0, 0.9, 0.5, 0.1, 0.0])),
        "gudhi": plain(made.as_gudhi()),
        "array": plain(np.asarray(made)),
        "repr": repr(made),
    }


def neural_persistences(weights):
    cases = itertools.product(("balwani", "rieck"), (1, 2, 3.5, np.inf), (False, True))
    return {str(each): result_text(partial(neural_persistence, weights, *each)) for each in cases}


def neural_persistence(weights, convention, p, normalized):
    return tb.neural_persistence(weights, p=p, convention=convention, normalized=normalized)


def recurrent():
    calls = {}
    for (cell, gates), zeros in itertools.product({"rnn": 1, "gru": 3, "lstm": 4}.items(), ("absent", "edge")):
        layer = (sparse(gates * 6, 5, density=0.7), np.round(normal(gates * 6, 6), 1))
        calls[f"matrices-{cell}"] = partial(tb.recurrent_matrices, *layer, cell)
        calls[f"forests-{cell}-{zeros}"] = partial(tb.recurrent_forests, *layer, cell, zeros=zeros)
        calls[f"diagrams-{cell}-{zeros}"] = partial(tb.recurrent_diagrams, *layer, cell, zeros=zeros)
        for steps in (1, 2, 10):
            calls[f"unrolled-{cell}-{zeros}-{steps}"] = partial(unrolled, *layer, steps, cell, zeros=zeros)
    calls["unrolled-without-inputs"] = lambda: unrolled(None, normal(40, 40), 5)
    calls["large"] = lambda: unrolled(
        normal(800, 150).astype(np.float32), normal(800, 200).astype(np.float32), 7, "lstm"
    )
    return calls


def unrolled(*arguments, **options):
    made = tb.unrolled_forest(*arguments, **options)
    names = ("hidden", "rows", "cols", "merges", "weights", "n_critical", "alpha", "n_components")
    return attributes(made, *names, "deaths", "ratio", "w_max") | {"layer": plain(made.layer), **counts(made.layer)}


def counts(layer):
    return attributes(layer, "n_weights", "n_edges", "n_vertices", "n_components")


def networks():
    mlp = tb.chain([normal(30, 20), sparse(20, 20, density=0.1), normal(20, 5)])
    skip = [
        (normal(9, 4), "in", "a"),
        (normal(4, 4), "a", "a"),
        (normal(9, 3), "in", 1),
        (np.round(normal(4, 3)), "a", 1),
    ]
    apart = [(normal(3, 3), 0, 1), (np.zeros((2, 2)), 2, 3)]
    large = tb.chain([normal(784, 300).astype(np.float32), normal(300, 100).astype(np.float16), normal(100, 10)])
    cases = itertools.product({"chain": mlp, "skip": skip, "apart": apart, "large": large}.items(), ("absent", "edge"))
    return {f"{name}-{zeros}": partial(network, layers, zeros=zeros) for (name, layers), zeros in cases}


def network(connections, zeros):
    made = tb.network_forest(connections, zeros=zeros)
    names = ("layers", "rows", "cols", "weights", "zeros", "alpha", "n_components", "ranks", "critical_rank", "deaths")
    ks = [0, made.alpha // 2, made.alpha, made.network.n_weights]
    return attributes(made, *names, "ratio", "w_max") | {
        "network": plain(made.network),
        **counts(made.network),
        "sizes": plain(made.network.sizes),
        "overlap": [made.overlap(), *map(made.overlap, ks)],
        "retention": plain(made.retention(ks)),
    }


def kernels():
    calls = {}
    for name, conv in convolutions().items():
        weights = np.round(normal(*conv.weight_shape), 1)
        mask = np.random.default_rng(3).random(conv.weight_shape) < 0.5
        calls[f"{name}-geometry"] = partial(geometry, conv)
        for zeros in ("absent", "edge"):
            calls[f"{name}-{zeros}"] = partial(critical, weights, conv, zeros=zeros)
            calls[f"{name}-{zeros}-masked"] = partial(critical, weights, conv, mask, zeros=zeros)
    conv = tb.Conv(64, 64, (3, 3), (16, 16), padding=1)
    calls["large"] = lambda: critical(normal(*conv.weight_shape).astype(np.float32), conv)
    return calls


def geometry(conv):
    ratios = {convention: tb.critical_compression_ratio(conv, convention) for convention in ("paper", "toeplitz")}
    names = ("weight_shape", "output_size", "padded_size", "n_inputs", "n_outputs")
    return plain(conv) | attributes(conv, *names) | counts(conv) | plain(ratios)


def critical(weights, conv, mask=None, **options):
    made = tb.critical_kernel_weights(weights, conv, mask, **options)
    names = ("indices", "merges", "weights", "weight_shape", "shape", "n_critical", "alpha", "n_components", "mask")
    return attributes(made, *names, "multiplicities", "ratio", "w_max", "diagram")


def theory():
    calls = {f"{m}x{n}": partial(bounds, m, n) for m, n in SHAPES}
    calls["exact"] = lambda: {
        str(each): tb.exact_expected_overlap(*each)
        for each in [(1, 1), (4, 4), (4, 4, 9), (3, 200), (12, 12), (6, 5, 0)]
    }
    calls["corollary_3_4"] = lambda: [
        tb.corollary_3_4(m, n, p) for m, n in SHAPES[2:] for p in (Fraction(1, 3), 0.5, 0.9, 1)
    ]
    calls["retention"] = lambda: tb.expected_retention(784, 300, [0, 500, 1083, 5000, 235200])
    calls["retention-small"] = lambda: tb.expected_retention(5, 7, range(36))
    calls["ratios"] = lambda: [tb.critical_compression_ratio(each) for each in [(784, 300), tb.Recurrent(128)]]
    calls["ratio-unrolled"] = lambda: [tb.critical_compression_ratio(tb.Unrolled(128, 28, 28, 4), "toeplitz")]
    calls["ratio-network"] = lambda: tb.critical_compression_ratio(tb.Network([(tb.Dense(9, 4), 0, 1)]), "toeplitz")
    calls["table1"] = tb.table1
    calls["table1-html"] = lambda: tb.table1()._repr_html_()
    for name, dataset in [("vgg11", "cifar10"), ("resnet20", "cifar100"), ("resnet18", "tiny-imagenet")]:
        calls[f"architecture-{name}"] = partial(tb.architecture, name, dataset)
    return calls | further_theory()


def bounds(m, n):
    ks = [None, 0, 1, min(m, n), m * n // 3, m * n]
    functions = (tb.star_bound, tb.boruvka_bound, tb.overlap_limit, tb.concentration_band, tb.expected_overlap)
    values = {function.__name__: [result_text(partial(function, m, n, k)) for k in ks] for function in functions}
    return values | {"theorem_3_3": plain(tb.theorem_3_3(m, n))}


def further_theory():
    """Return calls of functions that are documented, but not among the names of the package."""
    cases = {
        "support_bound": [(np.ones((784, 300)),), (sparse(30, 20, density=0.3) != 0, 20)],
        "any_support_bound": [(235200, 1083), (235200, 1083, 5000)],
        "minimum_overlap": [(784, 300), (784, 300, 5000)],
        "corollary_3_4_repaired": [(784, 300, 0.1), (8, 8, 0.5)],
        "connection_probability": [(784, 300, 5445), (20, 30, 100)],
        "critical_rank_quantile": [(784, 300), (784, 300, 0.05)],
        "critical_rank": [(784, 300), (20, 20)],
        "printed_counts": [(tb.Dense(784, 300),), (tb.Conv(16, 16, (3, 3), (8, 8), padding=1),)],
        "exact_theorem_3_3": [(3, 4), (30, 20)],
        "exact_corollary_3_4": [(8, 8, Fraction(1, 4))],
        "cancellation": [(4096, 14336)],
        "overlap_latex": [(3, 4), (8, 8, 0.25), (8, 8, None, 20)],
        "theorem_3_3_expression": [("sum",), ("closed",)],
        "corollary_3_4_expression": [("sum",), ("closed",)],
        "corollary_3_4_limit": [()],
        "theorem_3_3_limit": [(), (1,)],
        "eta_tau_expression": [()],
        "eta_tau_asymptotics": [(1,), (3,)],
    }
    return {f"further-{name}": partial(each_of, name, arguments) for name, arguments in cases.items()}


def each_of(name, arguments):
    function = function_named(name)
    return [function(*each) for each in arguments]


def simulation():
    block = np.kron(np.eye(2, dtype=bool), np.ones((10, 8), bool))
    cases = {
        "complete": (784, 300, {}),
        "k": (784, 300, {"k": 5000, "trials": 50}),
        "one-trial": (30, 20, {"trials": 1}),
        "many": (12, 9, {"trials": 20_000}),
        "uniform": (100, 80, {"density": 0.1}),
        "uniform-thin": (100, 80, {"density": 0.005}),
        "uniform-complete-alpha": (100, 80, {"density": 0.05, "alpha_of": "complete"}),
        "star": (60, 50, {"density": 0.2, "support": "star"}),
        "block": (60, 50, {"density": 0.2, "support": "block"}),
        "block-k": (60, 50, {"density": 0.2, "support": "block", "k": 300}),
        "mask": (20, 16, {"support": block}),
        "one-thread": (500, 400, {"threads": 1}),
        "two-threads": (500, 400, {"threads": 2}),
        "large": (4096, 4096, {"trials": 10}),
        "row": (1, 50, {}),
    }
    return {name: partial(tb.simulate_overlap, m, n, **options, seed=7) for name, (m, n, options) in cases.items()}


def masks():
    weights, mask = np.round(normal(30, 20), 2), np.random.default_rng(4).random((30, 20)) < 0.7
    conv = convolutions()["2d"]
    kernel = normal(*conv.weight_shape)
    calls = {
        "topological-clamped": lambda: tb.topological_mask(weights, 5, on_infeasible="clamp"),
        "topological-infeasible": lambda: tb.topological_mask(weights, 5),
        "topological-conv": lambda: tb.topological_mask(kernel, 0.5, conv=conv),
        "topological-kernel": lambda: tb.topological_mask(kernel, 0.5),
        "topological-large": lambda: tb.topological_mask(normal(900, 800).astype(np.float32), 0.05),
        "magnitude-large": lambda: tb.magnitude_mask(normal(900, 800).astype(np.float16), 0.05),
        "magnitude-kernel": lambda: tb.magnitude_mask(kernel, 0.5),
        "linear": lambda: tb.linear_schedule(10_000, 0.05, 8),
        "geometric": lambda: tb.geometric_schedule(10_000, Fraction(1, 5), 8),
    }
    methods = {"magnitude": tb.magnitude_mask, "topological": tb.topological_mask}
    methods["random"] = partial(tb.random_mask, seed=5)
    cases = {"count": {"keep": 100}, "share": {"keep": 0.3}, "fraction": {"keep": Fraction(1, 2)}, "all": {"keep": 1.0}}
    cases["compression"] = {"compression_ratio": 4}
    for (method, function), (name, options), given in itertools.product(methods.items(), cases.items(), (None, mask)):
        suffix = "" if given is None else "-masked"
        calls[f"{method}-{name}{suffix}"] = partial(function, weights, mask=given, **options)
    return calls | whole_network_masks(kernel, conv)


def whole_network_masks(kernel, conv):
    layers = {"a": normal(30, 20), "k": kernel, "b": np.round(normal(20, 10), 1).astype(np.float32)}
    convs = {"k": conv}
    old = {"a": np.random.default_rng(6).random((30, 20)) < 0.6}
    calls = {}
    for method, scope in itertools.product(("magnitude", "topological", "random"), ("local", "global")):
        options = {"method": method, "scope": scope, "seed": 3 if method == "random" else None}
        calls[f"network-{method}-{scope}"] = partial(tb.network_masks, layers, 0.4, **options)
        calls[f"network-{method}-{scope}-convs"] = partial(tb.network_masks, layers, 0.4, convs=convs, **options)
        calls[f"network-{method}-{scope}-masked"] = partial(tb.network_masks, layers, 0.5, old, **options)
        calls[f"network-{method}-{scope}-list"] = partial(
            tb.network_masks, list(layers.values()), compression_ratio=3, **options
        )
    calls["network-each"] = lambda: tb.network_masks(layers, {"a": 100, "k": 0.5, "b": Fraction(1, 3)})
    calls["network-clamp"] = lambda: tb.network_masks(layers, 0.01, on_infeasible="clamp")
    calls["network-infeasible"] = lambda: tb.network_masks(layers, 0.01, scope="global")
    return calls


def reports():
    calls = {
        f"overlap-{m}x{n}-{density}": partial(tb.overlap_report, m, n, density=density, seed=1, exact=m * n < 100)
        for (m, n), density in itertools.product(SHAPES[1:7], (None, 0.3))
    }
    calls["overlap-k"] = lambda: tb.overlap_report(100, 50, 400, trials=10, seed=1)
    calls["overlap-rows"] = lambda: tb.overlap_report(100, 50, trials=10, seed=1).rows
    calls["overlap-html"] = lambda: tb.overlap_report(100, 50, density=0.5, trials=10, seed=1)._repr_html_()
    for name, conv in convolutions().items():
        calls[f"compression-{name}"] = partial(tb.compression_report, [conv], trials=3, seed=1)
    mixed = [tb.Dense(784, 300), tb.Recurrent(64), convolutions()["2d"]]
    calls["compression-mixed"] = lambda: tb.compression_report(mixed, trials=3, seed=2)
    calls["compression-rows"] = lambda: tb.compression_report(mixed, trials=3, seed=2).rows
    calls["compression-html"] = lambda: tb.compression_report(mixed, trials=3, seed=2)._repr_html_()
    calls["compression-network"] = lambda: tb.compression_report(
        tb.architecture("resnet20", "cifar10"), trials=1, seed=1
    )
    for name, weights in matrices().items():
        calls[f"layer-{name}"] = partial(tb.layer_report, name, weights, tb.Dense(*np.shape(weights)), seed=1)
    for name, conv in convolutions().items():
        calls[f"layer-{name}"] = partial(tb.layer_report, name, normal(*conv.weight_shape), conv, kind="conv", seed=1)
    calls["layer-recurrent"] = lambda: tb.layer_report(
        "h", normal(9, 9), tb.Recurrent(9), kind="recurrent", calls=2, seed=1
    )
    calls["layer-unknown"] = lambda: tb.layer_report(
        "k", normal(4, 3, 3, 3), None, kind="conv", reason="No input size."
    )
    return calls


def claims():
    drawn = {
        "complete": (60, 50, {}),
        "k": (30, 20, {"k": 100}),
        "uniform": (60, 50, {"density": 0.1}),
        "star": (30, 20, {"density": 0.2, "support": "star"}),
        "block": (30, 20, {"density": 0.2, "support": "block"}),
        "normal": (12, 10, {"distribution": "normal", "trials": 100}),
        "cauchy": (12, 10, {"distribution": "cauchy", "trials": 100, "density": 0.5}),
        "loose": (12, 10, {"confidence": 0.9, "tolerance": 0.05, "trials": 30}),
    }
    calls = {name: partial(tb.verify, m, n, **options, seed=2) for name, (m, n, options) in drawn.items()}
    scaled = normal(40, 30) * np.exp(normal(40, 1, seed=8))
    for name, weights in {"given": normal(40, 30), "scaled": scaled, "ties": matrices()["ties"]}.items():
        calls[name] = partial(tb.verify, weights=weights, seed=2)
        calls[f"{name}-shuffled"] = partial(tb.verify, weights=weights, distribution="shuffled", trials=50, seed=2)
    return calls


def mistakes():
    weights = normal(4, 3)
    not_finite = np.array([[1.0, np.nan], [np.inf, 2.0]])
    conv = convolutions()["2d"]
    return {
        "not-finite": lambda: tb.maximum_spanning_forest(not_finite),
        "not-a-matrix": lambda: tb.maximum_spanning_forest([1.0, 2.0]),
        "complex": lambda: tb.maximum_spanning_forest([[1j]]),
        "empty": lambda: tb.maximum_spanning_forest(np.ones((0, 3))),
        "mask-shape": lambda: tb.maximum_spanning_forest(weights, np.ones((3, 4), bool)),
        "zeros": lambda: tb.maximum_spanning_forest(weights, zeros="none"),
        "backend": lambda: tb.persistence_diagram(weights, backend="ripser"),
        "p": lambda: tb.neural_persistence(weights, p=0),
        "convention": lambda: tb.neural_persistence(weights, convention="other"),
        "overlap-k": lambda: tb.magnitude_overlap(weights, 13),
        "retention-k": lambda: tb.maximum_spanning_forest(weights).retention([-1]),
        "m": lambda: tb.star_bound(0, 3),
        "k": lambda: tb.boruvka_bound(4, 3, 13),
        "confidence": lambda: tb.concentration_band(4, 3, confidence=1),
        "density": lambda: tb.corollary_3_4(4, 3, 0),
        "exact-too-large": lambda: tb.exact_expected_overlap(3000, 3000),
        "support": lambda: tb.simulate_overlap(4, 3, support="ring"),
        "trials": lambda: tb.simulate_overlap(4, 3, trials=0),
        "star-density": lambda: tb.simulate_overlap(40, 30, density=0.01, support="star"),
        "keep": lambda: tb.magnitude_mask(weights, 1.5),
        "keep-and-ratio": lambda: tb.magnitude_mask(weights, 2, compression_ratio=3),
        "infeasible": lambda: tb.topological_mask(weights, 1),
        "seed": lambda: tb.random_mask(weights, 2, seed=-1),
        "method": lambda: tb.network_masks([weights], 0.5, method="snip"),
        "rate": lambda: tb.geometric_schedule(100, 2, 3),
        "cell": lambda: tb.recurrent_matrices(weights, weights, "tanh"),
        "recurrent-shape": lambda: tb.recurrent_matrices(weights, weights),
        "steps": lambda: tb.unrolled_forest(None, normal(3, 3), 0),
        "chain": lambda: tb.network_forest(tb.chain([weights, weights])),
        "conv-kernel": lambda: tb.Conv(1, 1, 5, 3),
        "conv-groups": lambda: tb.Conv(3, 4, 3, 8, groups=2),
        "conv-padding": lambda: tb.Conv(3, 4, 3, 8, padding="full"),
        "conv-weights": lambda: tb.critical_kernel_weights(weights, conv),
        "conv-type": lambda: tb.critical_kernel_weights(weights, tb.Dense(4, 3)),
        "dense": lambda: tb.Dense(4, 0),
        "architecture": lambda: tb.architecture("vgg19", "cifar10"),
        "ratio-convention": lambda: tb.critical_compression_ratio((4, 3), "shared"),
        "claim": lambda: tb.verify(4, 3, claims=["theorem_9"]),
        "verify-both": lambda: tb.verify(4, 3, weights=weights),
        "layer-shape": lambda: tb.layer_report("a", weights, tb.Dense(5, 4)),
        "run-folder": lambda: tb.RunFolder.open("nothing here"),
        "analyze": lambda: bridge.analyze("net"),
        "nothing-to-prune": lambda: bridge.topological_(nn.ReLU(), 0.5),
        "too-much": lambda: bridge.topological_(nn.Linear(9, 4), 0.9),
        "plan": lambda: bridge.ImpPlan.from_toml("[pruning]\nrounds = 0"),
        "plan-key": lambda: bridge.ImpPlan.from_toml("[pruning]\nround = 1"),
        "dataset": lambda: bridge.load_dataset("cifar10"),
        "extra": lambda: bridge.require("torch_bridge.no_such_module"),
    }


def pictures():
    weights = normal(6, 5)
    made = tb.maximum_spanning_forest(weights)
    curves = (np.arange(5), normal(7, 5))
    return {
        "band": lambda: picture("draw_band", *curves),
        "interval": lambda: picture("draw_interval", np.arange(5), normal(5) - 1, normal(5) + 1),
        "diagram": lambda: picture("draw_persistence_diagram", tb.persistence_diagram(weights)),
        "betti": lambda: picture("draw_betti_curve", tb.persistence_diagram(weights)),
        "filtration": lambda: picture("draw_filtration", weights, made, 0.5),
        "colors": lambda: function_named("layer_colors")(6),
    }


def picture(function, *arguments):
    image = io.BytesIO()
    figure = Figure()
    function_named(function)(figure.subplots(), *arguments)
    figure.savefig(image, format="png")
    return hashlib.sha256(image.getvalue()).hexdigest()


def run_folders():
    return {"made": made_run, "checkpoint": checkpoint_of_a_run, "imp-of-a-net": imp_of_a_net}


def made_run():
    folder = tb.RunFolder.create("own-run", {"epochs": 1, "widths": [4, 3]}, extent={"trials": 2})
    with folder.writing("trial-0") as level:
        level.save_weights("epoch-00", {"a": normal(4, 3), "b": normal(3).astype(np.float16)})
        level.append_metrics({"epoch": 0, "loss": 0.25})
    opened = tb.RunFolder.open("own-run")
    level = opened.level("trial-0")
    return files_in("own-run") | {
        "plan": opened.plan,
        "sha256": opened.sha256,
        "extent": opened.extent,
        "levels": [each.name for each in opened.levels],
        "finished": [opened.is_finished("trial-0"), opened.is_finished("trial-1"), opened.is_in_use],
        "weights": plain(level.weights("epoch-00")),
        "metrics": level.metrics,
        "other-plan": result_text(partial(tb.RunFolder.create, "own-run", {"epochs": 2, "widths": [4, 3]})),
        "unknown-level": result_text(partial(opened.level, "trial-9")),
    }


def checkpoint_of_a_run():
    folder = tb.RunFolder.create("own-run-2", {"epochs": 1})
    with folder.locked():
        folder.save_checkpoint("trial-0", b"half way")
    kept = [str(folder.checkpoint("trial-0")), files_in("own-run-2")]
    with folder.locked():
        folder.drop_checkpoint("trial-0")
    return [*kept, folder.checkpoint("trial-0"), files_in("own-run-2")]


def imp_of_a_net():
    plan = bridge.ImpPlan.from_toml("[pruning]\nrounds = 2\nrate = 0.3")
    bridge.run_imp(plan, "net-run", model=small_mlp, train_fn=one_step, device="cpu")
    return files_in("net-run")


def one_step(model, mask, level):
    loss = model(torch.ones(2, 12)).square().mean()
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return {"test_accuracy": 0.5, "level": level, "loss": loss.item()}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", groups=2)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.head = nn.Linear(2 * 16 * 16, 5)

    def forward(self, images):
        images = self.stem(images).relu()
        images = self.up(images + self.block(images).relu())
        return self.head(images.flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        words = self.words(tokens)
        return self.head(self.norm(words + self.attention(words, words, words)[0]))


def small_mlp():
    return seeded(lambda: bridge.mlp((12, 10, 6, 3)))


def seeded(make):
    torch.manual_seed(0)
    return make()


NETS = {
    "mlp": (small_mlp, torch.zeros(1, 12)),
    "cnn": (partial(seeded, Residual), torch.zeros(1, 3, 8, 8)),
    "cnn-1d": (partial(seeded, lambda: nn.Sequential(nn.Conv1d(2, 4, 5, stride=2), nn.ReLU())), torch.zeros(1, 2, 30)),
    "lstm": (partial(seeded, lambda: nn.LSTM(5, 6, num_layers=2, bidirectional=True)), torch.zeros(4, 1, 5)),
    "gru": (partial(seeded, lambda: nn.GRU(5, 6)), torch.zeros(4, 1, 5)),
    "attention": (partial(seeded, Attention), torch.zeros(1, 7, dtype=torch.long)),
}


def torch_models():
    calls = {"digits": lambda: bridge.load_dataset("digits"), "resolved": lambda: bridge.resolve_dataset("digits")}
    for name, (make, example) in NETS.items():
        for given, suffix in ((None, ""), (example, "-example")):
            calls[f"analyze-{name}{suffix}"] = partial(analyzed, make, given)
            calls[f"metrics-{name}{suffix}"] = partial(metrics, make, given)
            for scope in ("local", "global"):
                options = {"scope": scope, "example_input": given, "on_infeasible": "clamp"}
                calls[f"prune-{name}-{scope}{suffix}"] = partial(pruned, make, 0.6, **options)
    calls["prune-flattened"] = lambda: pruned(NETS["cnn"][0], 0.5, convention="flattened", skip=["head.weight"])
    calls["prune-named"] = lambda: pruned(small_mlp, {"layers.0.weight": 50})
    calls["prune-infeasible"] = lambda: pruned(small_mlp, 0.95)
    calls["unstructured-linear"] = lambda: mask_of(seeded(lambda: nn.Linear(20, 15)), "weight", 0.5)
    calls["unstructured-twice"] = pruned_twice
    calls["unstructured-lstm"] = lambda: mask_of(NETS["lstm"][0](), "weight_hh_l0", 40)
    calls["unstructured-kernel"] = lambda: mask_of(NETS["cnn"][0]().stem, "weight", 0.5)
    calls["unstructured-shared"] = lambda: mask_of(
        NETS["cnn"][0]().stem, "weight", 0.5, convention="shared", input_size=(8, 8)
    )
    calls["log"] = logged
    calls["plan"] = lambda: [PLAN_OF_A_RUN, bridge.ImpPlan.from_toml(PLAN_OF_A_RUN), imp_plan_hash()]
    calls["training-plan"] = lambda: bridge.TrainingPlan(dataset="digits", trials=2)
    return calls


def analyzed(make, example):
    report = bridge.analyze(make(), example, seed=1)
    return [report, report._repr_html_(), report.total_neural_persistence, report.density, report.sources]


def metrics(make, example):
    return bridge.topology_metrics(make(), example)


def pruned(make, amount, **options):
    model = make()
    report = bridge.topological_(model, amount, **options)
    masks = {name: value for name, value in model.named_buffers() if name.endswith("_mask")}
    return [report, report._repr_html_(), masks, report.preserved, report.density]


def mask_of(module, name, amount, **options):
    return getattr(bridge.topological_unstructured(module, name, amount, **options), f"{name}_mask")


def pruned_twice():
    layer = seeded(lambda: nn.Linear(20, 15))
    prune.l1_unstructured(layer, "weight", 0.3)
    bridge.topological_unstructured(layer, "weight", 0.5)
    return [layer.weight_mask, layer.weight]


def logged():
    log = bridge.TopologyLog(every=2)
    return [log(small_mlp(), epoch) for epoch in range(3)] + [log.records]


def imp_plan_hash():
    return bridge.ImpPlan.from_toml(PLAN_OF_A_RUN).sha256


# the command line

PLAN_OF_A_RUN = """
replicates = 2
[model]
name = "mlp"
hidden = [20, 15]
[data]
name = "digits"
[recipe]
epochs = 1
learning_rate = 0.1
[pruning]
method = "t-imp"
rounds = 2
rate = 0.4
"""

COMMANDS = """
overlap --m 784 --n 300 --seed 1
overlap --m 784 --n 300 --density 0.1 --seed 1
overlap --m 784 --n 300 --density 0.005 --k 900 --seed 1
overlap --m 30 --n 20 --k 100 --trials 0
overlap --m 4 --n 4 --exact --trials 0
overlap --m 1 --n 9 --exact --trials 1 --seed 3
overlap --m 20 --n 20 --density 0.4 --trials 0
overlap --m 8 --n 8 --density 0.25 --latex --seed 1
compression --dense 784 300 --seed 1
compression --recurrent 128 --seed 1
compression --conv 3 8 --kernel 5 --input 40 --stride 2 --padding 2 --seed 1
compression --conv 64 128 --kernel 3x3 --input 16x16 --padding 1x1 --trials 5 --seed 1
compression --conv 4 8 --kernel 3x3 --input 12x10 --dilation 2 --groups 2 --seed 1
compression --conv 1 1 --kernel 1x1 --input 4x4 --stride 2 --seed 1
compression --conv 2 3 --kernel 3x3x3 --input 6x5x4 --padding 1 --seed 1
compression --architecture resnet20 --dataset cifar10 --trials 1 --seed 1
verify --m 60 --n 50 --density 0.1 --seed 1
verify --m 60 --n 50 --claim theorem_3_3 --claim corollary_3_4 --density 0.1 --seed 1 --strict
verify --m 12 --n 10 --distribution cauchy --density 0.5 --support star --trials 100 --seed 2
verify --m 12 --n 10 --k 40 --distribution normal --trials 100 --confidence 0.9 --tolerance 0.02 --seed 2
verify weights.npy --seed 3
verify weights.npz --seed 3 --trials 50
verify weights.safetensors --tensor scaled --distribution shuffled --trials 50 --seed 3
figures table1 --out tables
""".strip().splitlines()

REFUSED = """
overlap
overlap --m 0 --n 3
overlap --m 3 --n x
overlap --m 3 --n 3 --k 10
overlap --m 3 --n 3 --density 1.5
overlap --m 3000 --n 3000 --exact --trials 0
compression
compression --dense 3 4 --recurrent 5
compression --dense 3 4 --kernel 3
compression --conv 3 4 --kernel 3
compression --conv 3 4 --kernel 9 --input 4
compression --architecture vgg19 --dataset cifar10
verify
verify --m 3 --n 3 --claim theorem_9
verify missing.npy
verify broken.npz
verify weights.npz --tensor other
verify weights.npy --m 3
verify --m 3 --n 3 --witness missing/witness.json
verify --replay plan.toml
figures figure9
figures figure1 --from-records --trials 3
figures figure1 --dataset mnist --data-dir .
imp run missing.toml --out runs/missing
imp run broken.toml --out runs/broken
imp run plan.toml --out tables
imp status missing
imp plot missing
imp export plan.toml --out exported
prune
--other
""".strip().splitlines()

HELP = ["", "overlap", "compression", "verify", "figures", "imp"]
HELP += ["imp run", "imp resume", "imp status", "imp plot", "imp export"]

WRITING = """
verify weights.npz --tensor scaled --seed 3 --witness witness.json
verify --replay witness.json
verify --replay witness.json --json
figures --from-records --out records
figures figure1 figure2 figure3 figure3_expected --out trained --dataset digits --trials 1 --epochs 1 --device cpu
figures corollary_3_4 compression --trials 1 --seed 2 --out untrained
imp run plan.toml --out runs/t-imp --device cpu --jobs 1
imp run plan.toml --out runs/t-imp --device cpu --jobs 1 --json
imp run plan.toml --out runs/imp --method imp --replicates 1 --seed 4 --device cpu --json
imp run plan.toml --out runs/random --method random --replicates 1 --device cpu
imp run plan.toml --out runs/shuffled --method shuffled --replicates 1 --device cpu
imp resume runs/imp --device cpu
imp plot runs/t-imp runs/imp --out plotted
imp plot runs/t-imp --out plotted --json
imp export runs/t-imp --out exported
imp export runs/t-imp --out exported --json
""".strip().splitlines()

STATUS = ["imp status runs/t-imp", "imp status runs/shuffled"]
FOLDERS = ("records", "trained", "untrained", "tables", "runs", "plotted", "exported")


def commands():
    return in_three_forms(COMMANDS)


def in_three_forms(lines):
    """Return calls of each command as JSON, as a table on 110 columns, and as a table in a pipe."""
    calls = {}
    for line in lines:
        calls[f"{named(line)}.json"] = partial(command, f"{line} --json")
        calls[f"{named(line)}.110"] = partial(command, line, COLUMNS="110")
        calls[f"{named(line)}.pipe"] = partial(command, line)
    return calls


def refused():
    return {named(line): partial(command, line) for line in REFUSED}


def helped():
    return {named(f"{line} --help"): partial(command, f"{line} --help", COLUMNS="110") for line in HELP}


def written():
    calls = {named(line): partial(command, line) for line in WRITING} | in_three_forms(STATUS)
    calls["witness"] = lambda: Path("witness.json").read_text()
    return calls | {f"files of {folder}": partial(files_in, folder) for folder in FOLDERS}


def named(line):
    return re.sub(r"[^\w.-]+", "_", line.replace("--", "")).strip("_")


def command(line, **environment):
    """Return exit status, stdout and stderr of a command, run in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "topobounds", *shlex.split(line)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
    )
    return f"$ topobounds {line}\nexit status {run.returncode}\n--- stdout\n{run.stdout}--- stderr\n{run.stderr}"


GROUPS = (
    forests,
    persistence,
    recurrent,
    networks,
    kernels,
    theory,
    simulation,
    masks,
    reports,
    claims,
    mistakes,
    pictures,
    run_folders,
    torch_models,
    commands,
    refused,
    helped,
    written,
)
AT_ONCE = (commands, refused, helped)  # groups of processes that need nothing of one another


def write_inputs():
    np.save("weights.npy", normal(40, 30))
    several = {"normal": normal(30, 20), "scaled": normal(40, 30) * np.exp(normal(40, 1, seed=8)), "vector": normal(3)}
    np.savez("weights.npz", **several)
    save_file(several | {"half": normal(20, 10).astype(np.float16)}, "weights.safetensors")
    Path("broken.npz").write_bytes(b"PK nothing")
    Path("broken.toml").write_text("[pruning\n")
    Path("plan.toml").write_text(PLAN_OF_A_RUN)


def prepare(folder):
    """Make a folder the current and the temporary one, and take out of the environment what results depend on."""
    for name in ("TOPOBOUNDS_DATA", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"):
        os.environ.pop(name, None)
    os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")  # numba does not notice edits in other files
    os.environ["PYTHONPATH"] = str(ROOT)
    mpl.use("agg")
    torch.set_num_threads(1)
    tempfile.tempdir = str(folder)
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    write_inputs()


def main(out):
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder).resolve())
        for group in GROUPS:
            started = time.monotonic()
            calls = group()
            (out / group.__name__).mkdir(parents=True)
            with ThreadPoolExecutor(2) as pool:
                texts = (pool.map if group in AT_ONCE else map)(result_text, calls.values())
                for name, text in zip(calls, texts, strict=True):
                    (out / group.__name__ / f"{name}.txt").write_text(text)
            sys.stderr.write(f"{group.__name__}: {len(calls)} results, {time.monotonic() - started:.0f} s\n")
        os.chdir(ROOT)


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit("Usage: python tests/same_bytes.py OUT, a folder that does not exist yet")
    main(Path(sys.argv[1]).resolve())
