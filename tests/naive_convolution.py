"""Oracles for convolutions, kept dumb: the explicit graph by index arithmetic, its matrix by torch, Kruskal by hand."""

import functools
import itertools
import math

import numpy as np
import torch
from torch import nn

from topobounds.layers import PADDING_MODES, Conv

NUMPY_MODES = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def random_conv(rng, modes=PADDING_MODES):
    """Return a random small geometry; those that cannot be, or are large, are drawn again."""
    while True:
        n_axes = int(rng.choice([1, 2, 2, 2, 3]))
        groups = int(rng.choice([1, 1, 2, 3]))
        channels = groups * rng.integers(1, 3, 2)
        size = tuple(rng.integers(1, {1: 14, 2: 6, 3: 4}[n_axes], n_axes).tolist())
        kernel = tuple(rng.integers(1, 5 if n_axes < 3 else 4, n_axes).tolist())
        stride, dilation, padding = (tuple(rng.integers(low, low + 3, n_axes).tolist()) for low in (1, 1, 0))
        mode, transposed = str(rng.choice(modes)), bool(rng.random() < 0.25)
        extra = tuple(rng.integers(0, 2, n_axes).tolist()) if transposed else 0
        try:
            conv = Conv(
                int(channels[0]),
                int(channels[1]),
                kernel,
                size,
                stride,
                padding,
                dilation,
                groups,
                padding_mode="zeros" if transposed else mode,
                transposed=transposed,
                output_padding=extra,
            )
        except ValueError:
            continue
        if conv.n_vertices <= 500:
            return conv


@functools.lru_cache(maxsize=4)
def edges(conv):
    """Return (input neuron, output neuron, flat index of the weight) for every tap that reads a real cell."""
    image, positions = conv.input_size, conv.output_size
    if conv.transposed:
        image, positions = positions, image
    reads = [_padded_indices(conv, axis, image[axis]) for axis in range(len(image))]
    first, second = conv.weight_shape[:2]
    result = []
    for a, b, *tap in itertools.product(range(first), range(second), *map(range, conv.kernel_size)):
        weight = int(np.ravel_multi_index((a, b, *tap), conv.weight_shape))
        b_channel = a // (first // conv.groups) * second + b
        for position in itertools.product(*map(range, positions)):
            where = [q * s + t * d for q, s, t, d in zip(position, conv.stride, tap, conv.dilation, strict=True)]
            cell = [reads[axis].get(x) for axis, x in enumerate(where)]
            if None in cell:
                continue
            i = b_channel * math.prod(image) + int(np.ravel_multi_index(cell, image))
            o = a * math.prod(positions) + int(np.ravel_multi_index(position, positions))
            result.append((o, i, weight) if conv.transposed else (i, o, weight))
    return result


def _padded_indices(conv, axis, size):
    """Return {place in the padded image: real cell}, counted from the start of the padding."""
    before, after = conv.padding[axis], conv.padding_end[axis]
    if conv.padding_mode == "zeros":
        return {before + cell: cell for cell in range(size)}
    return dict(enumerate(np.pad(np.arange(size), (before, after), mode=NUMPY_MODES[conv.padding_mode]).tolist()))


def matrix(conv, kernel):
    """Return the matrix (inputs, outputs) that the edges make; where two taps meet in one pair, their sum."""
    result = np.zeros((conv.n_inputs, conv.n_outputs))
    for i, o, weight in edges(conv):
        result[i, o] += kernel.ravel()[weight]
    return result


def torch_matrix(conv, kernel):
    """Return the matrix of torch's own layer, by its answers to unit impulses."""
    name = f"Conv{'Transpose' if conv.transposed else ''}{len(conv.kernel_size)}d"
    more = {"output_padding": conv.output_padding} if conv.transposed else {}
    layer = getattr(nn, name)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=False,
        padding_mode=conv.padding_mode,
        dtype=torch.float64,
        **more,
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel))
        impulses = torch.eye(conv.n_inputs, dtype=torch.float64).reshape(-1, conv.in_channels, *conv.input_size)
        answers = layer(impulses)
    assert tuple(answers.shape[1:]) == (conv.out_channels, *conv.output_size)
    return answers.reshape(conv.n_inputs, -1).numpy()


def components(n_vertices, pairs):
    """Return the number of components of a graph, isolated vertices counted."""
    return n_vertices - sum(merges(n_vertices, [pairs]))


def critical(conv, kernel, mask=None, zeros="absent"):
    """Return merges per kernel weight (flat): weights by descending |w|, then flat index, all edges of one at once."""
    values = np.abs(kernel).ravel().astype(float)
    present = np.ones(values.size, bool) if mask is None else np.asarray(mask, bool).ravel()
    order = [w for w in np.argsort(-values, kind="stable") if present[w] and (values[w] or zeros == "edge")]
    bundles = {w: [] for w in order}
    for i, o, weight in edges(conv):
        if weight in bundles:
            bundles[weight].append((i, conv.n_inputs + o))
    counts = np.zeros(values.size, int)
    counts[order] = merges(conv.n_vertices, [bundles[w] for w in order])
    return counts


def merges(n_vertices, bundles):
    """Return how many components each bundle of edges merges, one bundle after the other."""
    parent = list(range(n_vertices))

    def find(x):
        while parent[x] != x:
            parent[x] = x = parent[parent[x]]
        return x

    counts = []
    for bundle in bundles:
        counts.append(0)
        for edge in bundle:
            a, b = map(find, edge)
            if a != b:
                parent[a] = b
                counts[-1] += 1
    return counts
